"""The image package's sources: images of any size that are brought to what a game needs, and points."""

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
from gan_core.data.items import ReadItems
from gan_core.errors import DataError
from gan_core.files import Files, Unreadable, labels_of, nothing_readable
from gan_image.files import SUFFIXES, channels_of, image_names, opened, read_image, to_channels, to_size, upright_size

HEADERS = 20_000
"""Largest number of files whose headers are read when a folder is opened; of more, as many spread evenly are read."""

Labelled = tuple[list[int] | None, list[str] | None]
"""The class of each item as an index, and the names of the classes; None where there are none."""

logger = logging.getLogger("gan_image")


class Images(Protocol):
    """Images by index, of any size."""

    @property
    def shapes(self) -> Sequence[tuple[int, int, int]]:
        """Channels, height and width of the images, or of some of them where they are too many."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def ready(self, spec: ImageSpec) -> Tensor | None:
        """Returns all pixels, uint8 `[N, C, H, W]`, if they are in memory in that form already."""

    def read(self, index: int, spec: ImageSpec) -> Image.Image:
        """Returns one image as grey or RGB, resized.

        Raises:
            Unreadable: it is damaged, or smaller than what is cut out of it.
        """


class TensorImages:
    """Pixels in memory, uint8 `[N, C, H, W]`."""

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
    """Squares cut from pictures `[H, W, 3]` (uint8) at places drawn evenly, the same in every process.

    Args:
        pictures: at least as large as a square.
        which: index of the picture of each square, `[N]`.
        side: side of the squares, in pixels.
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
        shapes: channels, height and width of the images, or of some of them.
        half: `left` or `right`, for files that show two images side by side.
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
    """Images with or without labels.

    Args:
        images: the images.
        name: what the user called them.
        labels: class of each, `[N]`.
        classes: names of the classes.
        strict: whether an image that cannot be read is an error.
        groups: group of each, `[N]`: images cut from one picture are held out together.
    """

    thing, suffixes, logger = "image", SUFFIXES, logger

    def __init__(
        self, images: Images, *, name: str, labels: Tensor | None = None, classes: Sequence[str] | None = None,
        strict: bool = False, groups: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__(strict=strict)
        self.images, self.name, self.labels, self.groups = images, name, labels, groups
        self.facts = _facts(images.shapes, classes)

    @property
    def keys(self) -> Collection[str]:
        return ("image",) if self.labels is None else ("image", "label")

    @property
    def names(self) -> Sequence[str] | None:
        """Names of the files, by which parts of pairs find each other; None if the images are no files."""
        return getattr(self.images, "names", None)

    def __len__(self) -> int:
        return len(self.images)

    def complete(self, spec: Spec) -> ImageSpec:
        """Returns what a game needs, with the images' own size and channels where it leaves them open.

        Raises:
            DataError: the game needs something else, or a size that the images do not have in common.
        """
        wanted = expect(spec, ImageSpec, self.name, "images")
        channels, size = wanted.channels or self.facts["channels"], wanted.image_size or self.facts.get("image_size")
        if isinstance(channels, dict):
            parts = f"channels of several parts, {channels}, and {self.name} is one"
            raise DataError(f"the game needs {parts}; open it as a part: `open_data({{'source': PATH}})`")
        if channels not in (1, 3):
            raise DataError(f"{self.name}: images have 1 or 3 channels, and `channels` is {channels}")
        if size is None:
            raise DataError(f"{self.name}: the images have different sizes; set `data.spec.image_size`")
        return wanted.but({"channels": channels, "image_size": size})

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns images `image` `[C, H, W]` in uint8, and `label`; see `ItemSource.fit`."""
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
    """Returns the number of channels of a specification that is complete and of one part."""
    assert isinstance(spec.channels, int)
    return spec.channels


class StackedSource(Source):
    """Three random grey images as the channels of one, drawn with replacement and without regard to each other.

    The draw is the same in every process. `facts` hold the single images, `stacked`, for measuring.
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
        """Returns images `image` `[3, H, W]` in uint8, stacked when they are asked for.

        Raises:
            DataError: the game needs something else, or other than 3 channels.
        """
        wanted = expect(spec, ImageSpec, self.name, "images")
        if wanted.channels not in (None, 3):
            given = f"{self.name} has 3 channels, and the networks have {wanted.channels}"
            raise DataError(f"{given}; set `network.channels` to 3")
        single = self.single.fit(wanted.plain().but({"channels": 1}))
        return augmented(StackedImages(single, self.parts), wanted)


class StackedImages(Dataset[Batch]):
    """Single images `[1, S, S]` in threes; `parts` `[N, 3]` says which."""

    def __init__(self, single: Dataset[Batch], parts: Tensor):
        self.single, self.parts = single, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Batch:
        return {"image": self.__getitems__([index])["image"][0]}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        single = collate(fetch(self.single, self.parts[torch.as_tensor(indices)].flatten().tolist()))["image"]
        return {"image": single.reshape(-1, 3, *single.shape[2:])}  # [3 B, 1, S, S] -> [B, 3, S, S]


class PointSource(TensorSource):
    """Points of a known mixture, `points` `[N, D]`; `facts` hold the `modes` `[M, D]` and their `std` for measuring."""

    def __init__(self, points: Tensor, *, name: str, modes: Tensor, std: float):
        super().__init__({"points": points}, name=name)
        self.facts = {"shape": tuple(points.shape[1:]), "modes": modes, "std": std}

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns the points as they are.

        Raises:
            DataError: the game needs something else.
        """
        holds = f"points of shape {list(self.facts['shape'])}"
        shape = expect(spec, ArraySpec, self.name, holds).shape
        if shape not in (None, self.facts["shape"]):
            raise DataError(f"{self.name} holds {holds}, and `network.shape` is {list(shape)}")
        return self.dataset


def open_images(
    name: str, files: Files, *, strict: bool, half: str | None = None, labelled: Labelled | None = None
) -> ImageSource:
    """Opens the images of a folder or archive.

    Headers are read now, so that what is not an image is known; those of large folders only in part.

    Args:
        name: name of the source.
        files: its files.
        strict: whether a file that cannot be read is an error.
        half: `left` or `right`, for files that show two images side by side.
        labelled: class of each file and names of the classes; None takes them from the folders.

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
        FileImages(files, kept, list(shapes.values()), half), name=name, classes=classes, strict=strict,
        labels=None if labels is None else torch.tensor(labels),
    )  # fmt: skip
    source.skip(skipped)
    return source


def to_tensor(image: Image.Image) -> Tensor:
    """The pixels of a grey or RGB image, uint8 `[C, H, W]`."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _shape(files: Files, name: str) -> tuple[int, int, int]:
    with opened(files, name) as image:
        return channels_of(image), *upright_size(image)


def _facts(shapes: Sequence[tuple[int, int, int]], classes: Sequence[str] | None) -> dict[str, Any]:
    """Returns the facts of images: `channels`; `image_size` and `shape` where all have one size; the classes."""
    facts: dict[str, Any] = {"channels": max((shape[0] for shape in shapes), default=3)}
    sizes = {(height, width) for _, height, width in shapes}
    if len(sizes) == 1:
        ((height, width),) = sizes
        facts["image_size"] = height if height == width else (height, width)
        facts["shape"] = (facts["channels"], height, width)
    if classes is not None:
        facts |= {"num_classes": len(classes), "classes": list(classes)}
    return facts
