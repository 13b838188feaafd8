"""Sources of images of any size: in memory, or in the files of folders and archives."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from statistics import fmean
from typing import Any, Protocol, Unpack

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data.augmentation import augmented
from gan_core.data.dataset import Batch, TensorDataset
from gan_core.data.files import Files
from gan_core.data.folders import Opened, list_files
from gan_core.data.items import ItemOptions, ItemSource, ReadItems
from gan_core.data.pictures import (
    IMAGES,
    channels_of,
    open_image,
    read_image,
    to_channels,
    to_size,
    to_tensor,
    upright_size,
)
from gan_core.data.source import Items
from gan_core.data.spec import ImageSpec, Spec, expect
from gan_core.errors import DataError, count

HEADERS = 20_000
"""Maximum number of headers read when a folder is opened; in larger folders, evenly spaced files are read."""


class Images(Protocol):
    """Images of any size, by index."""

    @property
    def shapes(self) -> Sequence[tuple[int, int, int]]:
        """Channels, height and width of the images, or of a subset if there are more than `HEADERS`."""

    def __len__(self) -> int: ...

    def ready(self, spec: ImageSpec) -> Tensor | None:
        """Returns all pixels, uint8 `[N, C, H, W]`, if they are in memory and already match `spec`; otherwise None."""

    def read(self, index: int, spec: ImageSpec) -> Image.Image:
        """Returns an image, converted to `spec.channels` and resized for `spec.image_size`, but not cropped.

        Raises:
            Unreadable: the image is damaged, or smaller than the crop.
        """


class TensorImages:
    """Images in memory, uint8 `[N, C, H, W]`."""

    def __init__(self, pixels: Tensor):
        self.pixels = pixels
        count, channels, height, width = pixels.shape
        self.shapes = [(channels, height, width)] * count

    def __len__(self) -> int:
        return len(self.pixels)

    def ready(self, spec: ImageSpec) -> Tensor | None:
        return self.pixels if self.pixels.shape[1:] == (spec.channels, *(spec.loaded_size or ())) else None

    def read(self, index: int, spec: ImageSpec) -> Image.Image:
        pixels = self.pixels[index]
        array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)  # [C, H, W] -> [H, W(, C)]
        return to_size(to_channels(Image.fromarray(array.numpy()), channels_in(spec)), spec)


class FileImages:
    """The images of a folder or archive.

    Args:
        files: the folder or archive.
        names: names of the images in it.
        shapes: channels, height and width of the files, or of a subset.
        half: `left` or `right` for one half of files that show two images side by side; None for the whole.
    """

    def __init__(
        self, files: Files, names: Sequence[str], shapes: Sequence[tuple[int, int, int]], half: str | None = None
    ) -> None:
        self.files, self.names, self.half = files, names, half
        self.shapes = shapes if half is None else [(channels, height, width // 2) for channels, height, width in shapes]

    def __len__(self) -> int:
        return len(self.names)

    def ready(self, spec: ImageSpec) -> Tensor | None:
        return None

    def read(self, index: int, spec: ImageSpec) -> Image.Image:
        return read_image(self.files, self.names[index], spec=spec, half=self.half)


class ImageSource(ItemSource):
    """A source of images, with or without labels.

    Args:
        images: the images.
        name: name of the source.
        groups: group of each image, `[N]`; images of one group, such as crops of one picture, are held out together.
        **options: see `ItemSource`.
    """

    key, kind = "image", IMAGES

    def __init__(
        self, images: Images, *, name: str, groups: Tensor | None = None, **options: Unpack[ItemOptions]
    ) -> None:
        super().__init__(name=name, facts=_facts(images.shapes), names=getattr(images, "names", None), **options)
        self.images, self.groups = images, groups

    def __len__(self) -> int:
        return len(self.images)

    def in_words(self, spec: Spec) -> str:
        sizes = [(width, height) for _, height, width in self.images.shapes]
        least, most = (f"{pick(w for w, _ in sizes)}x{pick(h for _, h in sizes)}" for pick in (min, max))
        found = f"{count(self.readable, 'image')} of {least if least == most else f'{least} to {most}'} pixels"
        unchanged = isinstance(spec, ImageSpec) and {spec.size} == {(h, w) for w, h in sizes} and not spec.augments
        return found if unchanged or not spec.in_words() else f"{found}, {spec.in_words()}"

    def complete(self, spec: Spec) -> ImageSpec:
        """Returns a specification with open fields set to the images' own size and number of channels.

        Raises:
            DataError: the specification is not for images; or `channels` is neither 1 nor 3; or the size is open and
                the images have different sizes.
        """
        wanted = expect(spec, ImageSpec, self.name, "images")
        channels, size = wanted.channels or self.facts["channels"], wanted.image_size or self.facts.get("image_size")
        if isinstance(channels, dict):
            needs = f"the game needs several parts, with the channels {channels}"
            raise DataError(f"{self.name} has one part, but {needs}; give data for each part: `{{'source': PATH, …}}`")
        if channels not in (1, 3):
            raise DataError(f"{self.name}: `data.spec.channels` is {channels}; expected 1 or 3")
        if size is None:
            raise DataError(f"{self.name}: the images have different sizes; set `data.spec.image_size`")
        return wanted.but({"channels": channels, "image_size": size})

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns items `image` (uint8 `[C, H, W]`) and `label`; see `ItemSource.fit`."""
        wanted = self.complete(spec)
        if (pixels := self.images.ready(wanted)) is not None:
            labels = {} if self.labels is None else {"label": self.labels}
            return augmented(TensorDataset({"image": pixels} | labels, groups=self.groups), wanted)
        return super().fit(wanted)

    def items(self, spec: Spec) -> Items:
        return ImageItems(self, self.complete(spec))

    def first(self) -> Batch:
        return ReadItems(self, ImageItems(self, ImageSpec(channels=self.facts["channels"])))[0]


class ImageItems(Items):
    """A source's images, decoded and resized when they are read."""

    pixels = frozenset({"image"})

    def __init__(self, source: ImageSource, spec: ImageSpec):
        self.images, self.labels, self.spec, self.groups = source.images, source.labels, spec, source.groups
        areas = [height * width for _, height, width in self.images.shapes]
        self.values = round(len(self) * fmean(areas))
        loaded = self.values if spec.loaded_size is None else len(self) * prod(spec.loaded_size)
        self.memory = loaded * channels_in(spec)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Batch:
        image = {"image": to_tensor(self.images.read(index, self.spec))}
        return image if self.labels is None else image | {"label": self.labels[index]}


def channels_in(spec: ImageSpec) -> int:
    """Returns `spec.channels`, which must be a number."""
    assert isinstance(spec.channels, int)
    return spec.channels


def open_images(opened: Opened, *, strict: bool = False, half: str | None = None) -> ImageSource:
    """Opens the images of a folder or archive.

    Headers are read immediately to find sizes and unreadable files; in large folders, only `HEADERS` of them.

    Args:
        opened: the folder or archive.
        strict: whether an unreadable file is an error.
        half: `left` or `right` for one half of files that show two images side by side; None for the whole.

    Raises:
        DataError: see `list_files`.
    """
    found = list_files(opened, IMAGES, _shape, strict=strict, max_headers=HEADERS)
    return ImageSource(
        FileImages(opened.files, found.names, list(found.headers.values()), half),
        name=opened.name,
        labels=found.labels,
        classes=found.classes,
        skipped=found.skipped,
        ignored=found.ignored,
        strict=strict,
    )


def _shape(files: Files, name: str) -> tuple[int, int, int]:
    with open_image(files, name) as image:
        return channels_of(image), *upright_size(image)


def _facts(shapes: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    """Returns the facts of images: `channels`, and `image_size` and `shape` if all images have one size."""
    facts: dict[str, Any] = {"channels": max((shape[0] for shape in shapes), default=3)}
    sizes = {(height, width) for _, height, width in shapes}
    if len(sizes) == 1:
        ((height, width),) = sizes
        facts["image_size"] = height if height == width else (height, width)
        facts["shape"] = (facts["channels"], height, width)
    return facts
