"""Data specifications: the form of the data that a game needs, as typed settings.

A game derives its specification from its networks (`Game.data_spec`). The recipe's `data.spec` sets fields that the
networks leave open, and a phase may change fields. `Source.fit` converts the items to the specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, PositiveInt, field_validator

from gan_core.errors import DataError, RecipeError
from gan_core.recipe import Settings, Size, parse_settings

LABEL_MAPS = frozenset({"mask", "label_map"})
"""Keys of class indices per pixel, which keep their integer values and are resized without interpolation."""


class Spec(Settings):
    """Base class of data specifications. A field that is None is determined by the data.

    Attributes:
        key: key of the samples in a batch; None if it is not specified.
        thing: name of the samples in messages, in the plural.
        values: description of the range of values.
    """

    key: ClassVar[str | None] = None
    thing: ClassVar[str] = "other data"
    values: ClassVar[str] = "as in the data"

    def but(self, changes: Mapping[str, Any], where: str = "data.spec") -> Self:
        """Returns the specification with some fields changed.

        Args:
            changes: values by field name.
            where: path of the settings, for error messages.

        Raises:
            RecipeError: a field is unknown or its value is out of range.
        """
        return parse_settings(type(self), self.fixed() | {**changes}, where)

    def fixed(self) -> dict[str, Any]:
        """Returns the fields that were set explicitly and are not None."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in given.items() if value is not None}

    def open_fields(self) -> list[str]:
        """Returns the names of the fields that are determined by the data."""
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
        """Whether items are randomly augmented when they are read."""
        return False

    def in_words(self) -> str:
        """Returns how items are converted, as the end of a sentence about them; empty if nothing is to be said."""
        return ""


S = TypeVar("S", bound="Spec")


class ArraySpec(Spec):
    """Points or other arrays, used unchanged.

    Attributes:
        shape: shape of an item, without the batch axis.
    """

    key: ClassVar[str | None] = "points"
    thing: ClassVar[str] = "points"
    shape: tuple[Size, ...] | None = None


class ImageSpec(Spec):
    """Images, and pairs of images.

    Attributes:
        image_size: side of square images in pixels, or `(height, width)`.
        channels: 1 (grey) or 3 (RGB); for items of several parts, a mapping of keys to numbers of channels.
        resize: `cover` scales the image to cover `image_size` and crops the rest, `stretch` ignores the aspect ratio,
            and `none` only crops.
        enlarge: factor in [1, 8] by which images are resized to more than `image_size` before the crop; for `cover` and
            `stretch` (pix2pix: 286 / 256).
        crop: position of the crop: `centre`, or `random`, which is drawn each time an item is read.
        flip: whether items are flipped left to right with probability 1/2 each time they are read.
        interpolate: whether resizing interpolates; False selects the nearest pixel, which preserves values.

    All parts of an item are cropped and flipped in the same way. Previews and evaluations use neither random crops nor
    flips nor `enlarge`.
    """

    key: ClassVar[str | None] = "image"
    thing: ClassVar[str] = "images"
    values: ClassVar[str] = "[-1, 1]"
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
        """Height and width of the items in pixels; None if they are determined by the data."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def loaded_size(self) -> tuple[int, int] | None:
        """Height and width in pixels to which an image is resized before the crop; None if it is not resized."""
        if self.size is None or self.resize == "none":
            return None
        height, width = (round(self.enlarge * side) for side in self.size)
        return height, width

    @property
    def augments(self) -> bool:
        return self.flip or self.crop == "random"

    def plain(self) -> Self:
        return self.but({"enlarge": 1.0, "crop": "centre", "flip": False})

    def in_words(self) -> str:
        if self.size is None:
            return "at their own size"
        size = f"{self.size[1]}x{self.size[0]}"
        where = "at the centre" if self.crop == "centre" else "at random"
        words = f"stretched to {size}" if self.resize == "stretch" else f"scaled and cropped {where} to {size}"
        words = f"cropped {where} to {size}" if self.resize == "none" else words
        return f"{words}, flipped at random" if self.flip else words

    def part(self, key: str) -> Self:
        """Returns the specification of one part of an item.

        Masks and label maps (`LABEL_MAPS`) have one channel and are resized without interpolation.

        Raises:
            RecipeError: `channels` is a mapping without this key.
        """
        if key in LABEL_MAPS:
            return self.but({"channels": 1, "interpolate": False})
        if not isinstance(self.channels, dict):
            return self
        if key not in self.channels:
            raise RecipeError(f"`data.spec.channels` is set for {', '.join(self.channels)}; set it for `{key}` too")
        return self.but({"channels": self.channels[key]})


def expect(spec: Spec, kind: type[S], name: str, holds: str) -> S:
    """Returns the specification after checking that it is of the class that a source supports.

    A plain `Spec`, which has no requirements, is replaced by the default specification of that class.

    Args:
        spec: the game's specification.
        kind: class of specifications that the source supports.
        name: the source's name, for the error message.
        holds: contents of the source, for the error message.

    Raises:
        DataError: the specification is of another class.
    """
    if type(spec) is Spec:
        return kind()
    if not isinstance(spec, kind):
        raise DataError(f"{name} holds {holds}, but this game needs {spec.thing}; choose other data")
    return spec
