"""What the image package's data sets are made of: images of any size cut to a network's, and points."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from gan_core.data import Batch, Source, TensorDataset, TensorSource, require_labels
from gan_core.errors import DataError
from gan_core.files import Files, Unreadable, labels_of, nothing_readable, skip
from gan_image.files import (
    SUFFIXES,
    channels_of,
    image_names,
    open_files,
    opened,
    read_image,
    to_channels,
    to_square,
)

MEMORY_BYTES = 2**31
"""The largest set that is held in memory, cut to size."""
MEMORY_PIXELS = 10**9
"""The most pixels that are decoded before a training begins: some ten seconds."""

logger = logging.getLogger("gan_image")


class Images(Protocol):
    """Images by index, of any size: what an `ImageSource` cuts to a network's."""

    @property
    def shapes(self) -> Sequence[tuple[int, int, int]]:
        """Channels, height and width of every image."""

    def name(self, index: int) -> str: ...

    def ready(self, *, channels: int, size: int) -> Tensor | None:
        """All pixels, uint8 `[N, C, H, W]`, if they are in memory in that form already."""

    def read(self, index: int, *, channels: int, size: int) -> Image.Image:
        """One image as grey or RGB, resized and centre-cropped to a square.

        Raises:
            Unreadable: it is damaged.
        """


class TensorImages:
    """Pixels in memory, uint8 `[N, C, H, W]`."""

    def __init__(self, pixels: Tensor):
        self.pixels = pixels
        count, channels, height, width = pixels.shape
        self.shapes = [(channels, height, width)] * count

    def name(self, index: int) -> str:
        return str(index)

    def ready(self, *, channels: int, size: int) -> Tensor | None:
        return self.pixels if self.pixels.shape[1:] == (channels, size, size) else None

    def read(self, index: int, *, channels: int, size: int) -> Image.Image:
        pixels = self.pixels[index]
        array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)  # [C, H, W] -> [H, W(, C)]
        return to_square(to_channels(Image.fromarray(array.numpy()), channels), size)


class DetailImages:
    """Squares cut from pictures `[H, W, 3]` (uint8) at places drawn evenly, the same in every process.

    Args:
        pictures: at least as large as a square.
        which: the picture of each square, `[N]`.
        side: of the squares, in pixels.
    """

    def __init__(self, pictures: Sequence[Tensor], which: Tensor, side: int):
        self.pictures, self.which, self.side = pictures, which, side
        room = torch.tensor([picture.shape[:2] for picture in pictures])[which] - side + 1
        self.places = (torch.rand(len(which), 2, generator=torch.Generator().manual_seed(0)) * room).long()
        self.shapes = [(3, side, side)] * len(which)

    def name(self, index: int) -> str:
        return str(index)

    def ready(self, *, channels: int, size: int) -> Tensor | None:
        return None

    def read(self, index: int, *, channels: int, size: int) -> Image.Image:
        top, left = self.places[index].tolist()
        detail = self.pictures[int(self.which[index])][top : top + self.side, left : left + self.side]
        return to_square(to_channels(Image.fromarray(detail.numpy()), channels), size)


class FileImages:
    """The images of a folder or archive."""

    def __init__(self, files: Files, names: Sequence[str], shapes: Sequence[tuple[int, int, int]]):
        self.files, self.names, self.shapes = files, names, shapes

    def name(self, index: int) -> str:
        return self.names[index]

    def ready(self, *, channels: int, size: int) -> Tensor | None:
        return None

    def read(self, index: int, *, channels: int, size: int) -> Image.Image:
        return read_image(self.files, self.names[index], channels=channels, size=size)


class ImageSource(Source):
    """Images with or without labels.

    Attributes:
        skipped: what could not be read and why, by name; it grows as items are read.
    """

    def __init__(self, images: Images, *, name: str, labels: Tensor | None = None, classes: Sequence[str] | None = None,
                 strict: bool = False):  # fmt: skip
        self.images, self.name, self.labels, self.strict = images, name, labels, strict
        self.skipped: dict[str, str] = {}
        self.facts = _facts(images.shapes, classes)
        self._last: tuple[tuple[int, int], Dataset[Batch]] | None = None

    def __len__(self) -> int:
        return len(self.images.shapes)

    def fit(self, **network: Any) -> Dataset[Batch]:
        """Square images `image` `[C, image_size, image_size]` in uint8, and `label`.

        A set that is small enough is decoded now and kept in memory (until another size is asked for); of a larger one
        every item is decoded when it is asked for, and one that cannot be read then gives its place to the next.

        Args:
            network: `image_size` and `channels`, or `shape` with both; the images' own if neither is given.

        Raises:
            DataError: the size or channels are missing or impossible, the classes are not the network's, or no image
                can be read.
        """
        require_labels(self, network.get("num_classes"))
        wanted = _wanted(self, network)
        if self._last is None or self._last[0] != wanted:
            self._last = wanted, self._fit(*wanted)
        return self._last[1]

    def _fit(self, channels: int, size: int) -> Dataset[Batch]:
        if (pixels := self.images.ready(channels=channels, size=size)) is not None:
            return TensorDataset({"image": pixels} | ({} if self.labels is None else {"label": self.labels}))
        squares = SquareImages(self, channels, size)
        decoded = sum(height * width for _, height, width in self.images.shapes)
        if len(self) * channels * size * size <= MEMORY_BYTES and decoded <= MEMORY_PIXELS:
            return squares.in_memory()
        squares[0]  # if no image can be read, this says so before the training begins
        return squares

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def skip(self, skipped: Mapping[str, str]) -> None:
        """Records what cannot be read, and names what is new in a warning.

        Raises:
            DataError: something cannot be read, and the source is strict.
        """
        skip(self.skipped, skipped, where=self.name, thing="image", strict=self.strict, logger=logger)


class SquareImages(Dataset[Batch]):
    """A source's images at one size, decoded when they are asked for."""

    def __init__(self, source: ImageSource, channels: int, size: int):
        self.source, self.channels, self.size = source, channels, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Batch:
        """The item, or the next one that can be read."""
        for place in (*range(index, len(self)), *range(index)):
            try:
                return self._item(place)
            except Unreadable as error:
                self.source.skip({self.source.images.name(place): str(error)})
        raise _nothing(self.source.name, len(self), self.source.skipped)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch: Batch = default_collate([self[index] for index in indices])
        return batch

    def in_memory(self) -> TensorDataset:
        """All items that can be read.

        Raises:
            DataError: there are none, or one cannot be read and the source is strict.
        """
        pixels = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        kept: list[int] = []
        skipped: dict[str, str] = {}
        for index in range(len(self)):
            try:
                pixels[len(kept)] = self._read(index)
                kept.append(index)
            except Unreadable as error:
                skipped[self.source.images.name(index)] = str(error)
        if not kept:
            raise _nothing(self.source.name, len(self), skipped)
        self.source.skip(skipped)
        labels = self.source.labels
        return TensorDataset({"image": pixels[: len(kept)]} | ({} if labels is None else {"label": labels[kept]}))

    def _item(self, index: int) -> Batch:
        labels = self.source.labels
        return {"image": self._read(index)} | ({} if labels is None else {"label": labels[index]})

    def _read(self, index: int) -> Tensor:
        return to_tensor(self.source.images.read(index, channels=self.channels, size=self.size))


class StackedSource(Source):
    """Three random grey images as the channels of one, drawn with replacement and without regard to each other.

    The draw is the same in every process. `facts` hold the single images, `stacked`, for measuring.
    """

    def __init__(self, single: ImageSource, *, name: str, count: int):
        self.single, self.name = single, name
        self.parts = torch.randint(len(single), (count, 3), generator=torch.Generator().manual_seed(0))
        size = single.facts["image_size"]
        self.facts = {"channels": 3, "image_size": size, "shape": (3, size, size), "stacked": single}

    def __len__(self) -> int:
        return len(self.parts)

    def fit(self, **network: Any) -> Dataset[Batch]:
        """Square images `image` `[3, image_size, image_size]` in uint8, stacked when they are asked for.

        Raises:
            DataError: the network has classes, or other than 3 channels.
        """
        require_labels(self, network.get("num_classes"))
        channels, size = _wanted(self, network)
        if channels != 3:
            raise DataError(f"{self.name} has 3 channels, and `network.channels` is {channels}; set it to 3")
        return StackedImages(self.single.fit(image_size=size, channels=1), self.parts)


class StackedImages(Dataset[Batch]):
    """Single images `[1, S, S]` in threes; `parts` `[N, 3]` says which."""

    def __init__(self, single: Any, parts: Tensor):
        self.single, self.parts = single, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Batch:
        return {"image": self.__getitems__([index])["image"][0]}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        single = self.single.__getitems__(self.parts[torch.as_tensor(indices)].flatten().tolist())["image"]
        return {"image": single.unflatten(0, (-1, 3)).squeeze(2)}  # [3 B, 1, S, S] -> [B, 3, S, S]


class PointSource(TensorSource):
    """Points of a known mixture, `points` `[N, D]`; `facts` hold the `modes` `[M, D]` and their `std` for measuring."""

    def __init__(self, points: Tensor, *, name: str, modes: Tensor, std: float):
        super().__init__({"points": points}, name=name)
        self.facts = {"shape": tuple(points.shape[1:]), "modes": modes, "std": std}

    def fit(self, **network: Any) -> Dataset[Batch]:
        """The points as they are.

        Raises:
            DataError: the network makes something else, or has classes.
        """
        shape = tuple(network.get("shape") or self.facts["shape"])
        images = network.get("image_size") is not None
        if images or shape != self.facts["shape"]:
            wanted = "the network makes images" if images else f"`network.shape` is {list(shape)}"
            raise DataError(f"{self.name} holds points of shape {list(self.facts['shape'])}, and {wanted}")
        return super().fit(**network)


def open_images(path: Path, *, strict: bool) -> ImageSource:
    """The images of a folder or archive; every header is read now, so that what is not an image is known.

    Raises:
        DataError: see `gan_image.data.open_folder`.
    """
    files = open_files(path)
    names, seen = image_names(files)
    shapes: dict[str, tuple[int, int, int]] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            shapes[name] = _shape(files, name)
        except Unreadable as error:
            skipped[name] = str(error)
    if not shapes and not (strict and skipped):
        raise _nothing(str(path), seen, skipped)
    labels, classes = _labels(path, names, list(shapes))
    images = FileImages(files, list(shapes), list(shapes.values()))
    source = ImageSource(images, name=str(path), labels=labels, classes=classes, strict=strict)
    source.skip(skipped)
    return source


def to_tensor(image: Image.Image) -> Tensor:
    """The pixels of a grey or RGB image, uint8 `[C, H, W]`."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _wanted(source: Source, network: Mapping[str, Any]) -> tuple[int, int]:
    """The channels and the side that a network asks for, or the data's own."""
    shape = tuple(network.get("shape") or ())
    if shape and (len(shape) != 3 or shape[1] != shape[2]):
        raise DataError(f"{source.name} holds images, not `network.shape` {list(shape)}; give [channels, size, size]")
    channels, size, _ = shape or (source.facts["channels"], source.facts.get("image_size"), None)
    channels, size = network.get("channels") or channels, network.get("image_size") or size
    if channels not in (1, 3):
        raise DataError(f"{source.name}: images have 1 or 3 channels, and `network.channels` is {channels}")
    if size is None:
        raise DataError(f"{source.name}: the images have different sizes or are not square; set `network.image_size`")
    return channels, size


def _shape(files: Files, name: str) -> tuple[int, int, int]:
    with opened(files, name) as image:
        return channels_of(image), image.height, image.width


def _labels(path: Path, names: Sequence[str], kept: Sequence[str]) -> tuple[Tensor | None, list[str] | None]:
    labels, classes = labels_of(path, names, kept, thing="image", logger=logger)
    return None if labels is None else torch.tensor(labels), classes


def _facts(shapes: Sequence[tuple[int, int, int]], classes: Sequence[str] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"channels": max((shape[0] for shape in shapes), default=3)}
    sides = {side for _, height, width in shapes for side in (height, width)}
    if len(sides) == 1:
        facts["image_size"] = sides.pop()
        facts["shape"] = (facts["channels"], facts["image_size"], facts["image_size"])
    if classes is not None:
        facts |= {"num_classes": len(classes), "classes": list(classes)}
    return facts


def _nothing(name: str, seen: int, skipped: Mapping[str, str]) -> DataError:
    return nothing_readable(name, seen, skipped, thing="image", suffixes=SUFFIXES)
