"""Data specifications: what a game needs of its data, as typed settings.

A game derives its specification from its networks (`Game.data_spec`), the recipe's `data.spec` sets what the networks
leave open, and a phase may change it. A source brings its items to it (`Source.fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, PositiveInt, field_validator

from gan_core.errors import DataError, RecipeError
from gan_core.recipe import Settings, Size, parse_settings

LABEL_MAPS = frozenset({"mask", "label_map"})
"""Parts of an item that hold class indices per pixel: they keep their integer values and are never interpolated."""


class Spec(Settings):
    """Base class of data specifications. A field that is None is left to the data.

    Attributes:
        key: key of the samples in a batch; None if the game does not say.
        thing: what the samples are, in messages.
    """

    key: ClassVar[str | None] = None
    thing: ClassVar[str] = "other data"

    def but(self, changes: Mapping[str, Any], where: str = "data.spec") -> Self:
        """Returns the specification with some fields changed.

        Args:
            changes: values by field name.
            where: name of the settings in error messages.

        Raises:
            RecipeError: a field is unknown or its value is out of range.
        """
        return parse_settings(type(self), self.fixed() | {**changes}, where)

    def fixed(self) -> dict[str, Any]:
        """Returns the fields that have been given a value."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in given.items() if value is not None}

    def open_fields(self) -> list[str]:
        """Returns the names of the fields that are left to the data."""
        return [name for name in type(self).model_fields if getattr(self, name) is None]

    @property
    def parts(self) -> tuple[str, ...]:
        """Keys of the parts of an item that a game reads."""
        return () if self.key is None else (self.key,)

    def plain(self) -> Self:
        """Returns the specification without random augmentation, as previews and evaluations use it."""
        return self

    def part(self, key: str) -> Self:
        """Returns the specification of one part of an item that has several, such as `source` or `mask`."""
        return self

    @property
    def augments(self) -> bool:
        """Whether items are changed at random when they are read."""
        return False


S = TypeVar("S", bound="Spec")


class ArraySpec(Spec):
    """Points or other arrays, used as they are.

    Attributes:
        shape: shape of an item.
    """

    key: ClassVar[str | None] = "points"
    thing: ClassVar[str] = "points"
    shape: tuple[Size, ...] | None = None


class ImageSpec(Spec):
    """Images, and pairs of images.

    Attributes:
        image_size: height and width of the items in pixels, or `(height, width)`.
        channels: 1 (grey) or 3 (RGB); for items of several parts, a value for each part by its key.
        resize: how an image is brought to `image_size`. `cover` keeps the aspect ratio and cuts what is left over,
            `stretch` changes it, `none` keeps the native scale and only cuts.
        enlarge: factor on the size that images are resized to before `image_size` is cut out of them, for `cover` and
            `stretch` (pix2pix: 286 / 256).
        crop: where the window is cut: at the `centre`, or at a `random` place drawn anew each time an item is read.
        flip: whether half of the items, chosen at random each time, are mirrored left to right.
        interpolate: whether resizing interpolates; otherwise it repeats or drops pixels, so that values stay.

    Crops and flips are the same for all parts of an item, and are left out of previews and evaluations.
    """

    key: ClassVar[str | None] = "image"
    thing: ClassVar[str] = "images"
    image_size: Size | tuple[Size, Size] | None = None
    channels: PositiveInt | dict[str, PositiveInt] | None = None
    resize: Literal["cover", "stretch", "none"] = "cover"
    enlarge: float = Field(default=1.0, ge=1, le=8)
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    interpolate: bool = True

    @field_validator("image_size", mode="before")
    @classmethod
    def _is_size(cls, value: Any) -> Any:
        sides = value if isinstance(value, list | tuple) else [value]
        if value is not None and not (len(sides) < 3 and all(isinstance(side, int) for side in sides)):
            raise ValueError(f"`data.spec.image_size` is {value!r}; expected a whole number, or [height, width]")
        return value

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.channels) if isinstance(self.channels, dict) else super().parts

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the items; None if they are left to the data."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def loaded_size(self) -> tuple[int, int] | None:
        """Height and width that an image is resized to before it is cut; None where it is not resized."""
        if self.size is None or self.resize == "none":
            return None
        height, width = (round(self.enlarge * side) for side in self.size)
        return height, width

    @property
    def augments(self) -> bool:
        return self.flip or self.crop == "random"

    def plain(self) -> Self:
        return self.but({"enlarge": 1.0, "crop": "centre", "flip": False})

    def part(self, key: str) -> Self:
        """Returns the specification of one part of an item.

        Masks and label maps (`LABEL_MAPS`) have one channel and are resized without interpolation.

        Raises:
            RecipeError: `channels` is given by part and leaves this one out.
        """
        if key in LABEL_MAPS:
            return self.but({"channels": 1, "interpolate": False})
        if not isinstance(self.channels, dict):
            return self
        if key not in self.channels:
            raise RecipeError(f"`data.spec.channels` has no value for `{key}`, only for {', '.join(self.channels)}")
        return self.but({"channels": self.channels[key]})


def expect(spec: Spec, kind: type[S], name: str, holds: str) -> S:
    """Returns a specification of the kind that a source can meet; one that asks for nothing becomes its default.

    Args:
        spec: what the game needs.
        kind: the source's kind of specification.
        name: the source's name.
        holds: what the source holds, for the error message.

    Raises:
        DataError: the game needs another kind of data.
    """
    if type(spec) is Spec:
        return kind()
    if not isinstance(spec, kind):
        raise DataError(f"{name} holds {holds}, and this game needs {spec.thing}; give it other data")
    return spec
