"""Sources of images of any size, stacked images, and points."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from math import prod
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data import (
    ArraySpec,
    Batch,
    ImageSpec,
    Items,
    ItemSource,
    Source,
    Spec,
    TensorDataset,
    TensorSource,
    augmented,
    collate,
    expect,
    fetch,
)
from gan_core.data.files import Files, nothing_readable
from gan_core.data.folders import labels_of
from gan_core.data.items import ReadItems
from gan_core.errors import DataError, Unreadable
from gan_image.files import SUFFIXES, channels_of, image_names, opened, read_image, to_channels, to_size, upright_size

HEADERS = 20_000
"""Maximum number of headers read when a folder is opened; in larger folders, evenly spaced files are read."""

Labelled = tuple[list[int] | None, list[str] | None]
"""Class index of each item, and names of the classes; None if there are none."""

logger = logging.getLogger("gan_image")


class Images(Protocol):
    """Images of any size, by index."""

    @property
    def shapes(self) -> Sequence[tuple[int, int, int]]:
        """Channels, height and width of the images, or of a subset if there are more than `HEADERS`."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def ready(self, spec: ImageSpec) -> Tensor | None:
        """Returns all pixels, uint8 `[N, C, H, W]`, if they are already in memory as specified; else None."""

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

    def name(self, index: int) -> str:
        return str(index)

    def ready(self, spec: ImageSpec) -> Tensor | None:
        return self.pixels if self.pixels.shape[1:] == (spec.channels, *(spec.loaded_size or ())) else None

    def read(self, index: int, spec: ImageSpec) -> Image.Image:
        pixels = self.pixels[index]
        array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)  # [C, H, W] -> [H, W(, C)]
        return to_size(to_channels(Image.fromarray(array.numpy()), channels_in(spec)), spec)


class DetailImages:
    """Squares cut from pictures at uniformly random positions, which are the same in every process.

    Args:
        pictures: pictures, uint8 `[H, W, 3]`, at least as large as the squares.
        which: index of the picture from which each square is cut, `[N]`.
        side: side of the squares in pixels.
    """

    def __init__(self, pictures: Sequence[Tensor], which: Tensor, side: int):
        self.pictures, self.which, self.side = pictures, which, side
        room = torch.tensor([picture.shape[:2] for picture in pictures])[which] - side + 1
        self.places = (torch.rand(len(which), 2, generator=torch.Generator().manual_seed(0)) * room).long()
        self.shapes = [(3, side, side)] * len(which)

    def __len__(self) -> int:
        return len(self.which)

    def name(self, index: int) -> str:
        return str(index)

    def ready(self, spec: ImageSpec) -> Tensor | None:
        return None

    def read(self, index: int, spec: ImageSpec) -> Image.Image:
        top, left = self.places[index].tolist()
        detail = self.pictures[int(self.which[index])][top : top + self.side, left : left + self.side]
        return to_size(to_channels(Image.fromarray(detail.numpy()), channels_in(spec)), spec)


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

    def name(self, index: int) -> str:
        return self.names[index]

    def ready(self, spec: ImageSpec) -> Tensor | None:
        return None

    def read(self, index: int, spec: ImageSpec) -> Image.Image:
        return read_image(self.files, self.names[index], spec=spec, half=self.half)


class ImageSource(ItemSource):
    """A source of images, with or without labels.

    Args:
        images: the images.
        name: name of the source.
        labels: class index of each image, `[N]`; None if there are no classes.
        classes: names of the classes.
        strict: whether an unreadable image is an error.
        groups: group of each image, `[N]`; images of one group, such as crops of one picture, are held out together.
    """

    thing, suffixes, logger = "image", SUFFIXES, logger

    def __init__(
        self,
        images: Images,
        *,
        name: str,
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        strict: bool = False,
        groups: Tensor | None = None,
    ) -> None:
        super().__init__(strict=strict)
        self.images, self.name, self.labels, self.groups = images, name, labels, groups
        self.facts = _facts(images.shapes, classes)

    @property
    def keys(self) -> Collection[str]:
        return ("image",) if self.labels is None else ("image", "label")

    @property
    def names(self) -> Sequence[str] | None:
        """Names of the files, by which the parts of pairs are matched; None if the images are not files."""
        return getattr(self.images, "names", None)

    def __len__(self) -> int:
        return len(self.images)

    def complete(self, spec: Spec) -> ImageSpec:
        """Returns a specification with open fields set to the images' own size and number of channels.

        Raises:
            DataError: the specification is not for images; or `channels` is neither 1 nor 3; or the size is open and
                the images have different sizes.
        """
        wanted = expect(spec, ImageSpec, self.name, "images")
        channels, size = wanted.channels or self.facts["channels"], wanted.image_size or self.facts.get("image_size")
        if isinstance(channels, dict):
            parts = f"channels of several parts, {channels}, and {self.name} is one"
            raise DataError(f"the game needs {parts}; open it as a part: `open_data({{'source': PATH}})`")
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

    def name(self, index: int) -> str:
        return self.images.name(index)

    def read(self, index: int) -> Batch:
        image = {"image": to_tensor(self.images.read(index, self.spec))}
        return image if self.labels is None else image | {"label": self.labels[index]}


def channels_in(spec: ImageSpec) -> int:
    """Returns `spec.channels`, which must be a number."""
    assert isinstance(spec.channels, int)
    return spec.channels


class StackedSource(Source):
    """A source of colour images whose channels are three random grey images, drawn independently with replacement.

    The images are the same in every process. The fact `stacked` is the source of the grey images, for metrics.

    Args:
        single: source of the grey images.
        name: name of the source.
        count: number of stacked images.
    """

    def __init__(self, single: ImageSource, *, name: str, count: int):
        self.single, self.name = single, name
        self.parts = torch.randint(len(single), (count, 3), generator=torch.Generator().manual_seed(0))
        size = single.facts["image_size"]
        self.facts = {"channels": 3, "image_size": size, "shape": (3, size, size), "stacked": single}

    @property
    def keys(self) -> Collection[str]:
        return ("image",)

    def __len__(self) -> int:
        return len(self.parts)

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns items `image` (uint8 `[3, H, W]`), stacked on demand.

        Raises:
            DataError: the specification is not for images, or not for 3 channels.
        """
        wanted = expect(spec, ImageSpec, self.name, "images")
        if wanted.channels not in (None, 3):
            given = f"{self.name} has 3 channels, but the networks have {wanted.channels}"
            raise DataError(f"{given}; set `network.channels` to 3")
        single = self.single.fit(wanted.plain().but({"channels": 1}))
        return augmented(StackedImages(single, self.parts), wanted)


class StackedImages(Dataset[Batch]):
    """Stacks of three single images `[1, H, W]`, whose indices are `parts` `[N, 3]`."""

    def __init__(self, single: Dataset[Batch], parts: Tensor):
        self.single, self.parts = single, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Batch:
        return {"image": self.__getitems__([index])["image"][0]}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        single = collate(fetch(self.single, self.parts[torch.as_tensor(indices)].flatten().tolist()))["image"]
        return {"image": single.reshape(-1, 3, *single.shape[2:])}  # [3 B, 1, H, W] -> [B, 3, H, W]


class PointSource(TensorSource):
    """A source of points `[N, D]` from a known mixture; its facts include `modes` `[M, D]` and `std`, for metrics."""

    def __init__(self, points: Tensor, *, name: str, modes: Tensor, std: float):
        super().__init__({"points": points}, name=name)
        self.facts = {"shape": tuple(points.shape[1:]), "modes": modes, "std": std}

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns the points unchanged.

        Raises:
            DataError: the specification is not for arrays, or its shape is not that of the points.
        """
        holds = f"points of shape {list(self.facts['shape'])}"
        shape = expect(spec, ArraySpec, self.name, holds).shape
        if shape not in (None, self.facts["shape"]):
            raise DataError(f"{self.name} holds {holds}, but `network.shape` is {list(shape)}; set it to that shape")
        return self.dataset


def open_images(
    name: str, files: Files, *, strict: bool, half: str | None = None, labelled: Labelled | None = None
) -> ImageSource:
    """Opens the images of a folder or archive.

    Headers are read at once to find sizes and unreadable files; in large folders, only `HEADERS` of them.

    Args:
        name: name of the source.
        files: the folder or archive.
        strict: whether an unreadable file is an error.
        half: `left` or `right` for one half of files that show two images side by side; None for the whole.
        labelled: class index of each file and names of the classes; None uses the names of the sub-folders.

    Raises:
        DataError: see `gan_image.data.open_folder`.
    """
    names, seen = image_names(files)
    looked_at = names[:: -(-len(names) // HEADERS)] if names else []
    shapes: dict[str, tuple[int, int, int]] = {}
    skipped: dict[str, str] = {}
    for file in looked_at:
        try:
            shapes[file] = _shape(files, file)
        except Unreadable as error:
            skipped[file] = str(error)
    if not shapes and not (strict and skipped):
        raise nothing_readable(name, seen, skipped, thing="image", suffixes=SUFFIXES)
    kept = [file for file in names if file not in skipped]
    labels, classes = labelled or labels_of(name, names, kept, thing="image", logger=logger)
    if labelled is not None and labels is not None:
        labels = [label for file, label in zip(names, labels, strict=True) if file not in skipped]
    source = ImageSource(
        FileImages(files, kept, list(shapes.values()), half),
        name=name,
        classes=classes,
        strict=strict,
        labels=None if labels is None else torch.tensor(labels),
    )
    source.skip(skipped)
    return source


def to_tensor(image: Image.Image) -> Tensor:
    """Returns the pixels of a grey or RGB image, uint8 `[C, H, W]`."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _shape(files: Files, name: str) -> tuple[int, int, int]:
    with opened(files, name) as image:
        return channels_of(image), *upright_size(image)


def _facts(shapes: Sequence[tuple[int, int, int]], classes: Sequence[str] | None) -> dict[str, Any]:
    """Returns the facts of images: `channels`, `image_size` and `shape` (if all have one size), and the classes."""
    facts: dict[str, Any] = {"channels": max((shape[0] for shape in shapes), default=3)}
    sizes = {(height, width) for _, height, width in shapes}
    if len(sizes) == 1:
        ((height, width),) = sizes
        facts["image_size"] = height if height == width else (height, width)
        facts["shape"] = (facts["channels"], height, width)
    if classes is not None:
        facts |= {"num_classes": len(classes), "classes": list(classes)}
    return facts
