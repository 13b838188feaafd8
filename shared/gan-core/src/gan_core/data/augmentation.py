"""Resizing, cropping and flipping of images in datasets."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from gan_core import draws
from gan_core.data.dataset import Batch, TensorDataset, collate, fetch, length, named, pixels_of
from gan_core.data.spec import LABEL_MAPS, ImageSpec, Spec
from gan_core.errors import DataError

MEMORY_BYTES = 2**31
"""Maximum size of a dataset that is held in memory, in bytes."""

RESIZED_AT_ONCE = 2**26
"""Maximum number of values, after resizing, of the in-memory images that are resized in one call."""


def sized(dataset: Dataset[Batch], spec: ImageSpec) -> Dataset[Batch]:
    """Returns a dataset whose images are resized to a specification; see `Resized`.

    Images in memory are resized in advance, unless they would then be larger than `MEMORY_BYTES`.
    """
    images = pixels_of(dataset) | LABEL_MAPS
    first = {key: tensor for key, tensor in named(dataset[0]).items() if key in images and tensor.ndim > 2}
    if spec.loaded_size is None or all(tuple(x.shape[-2:]) == loaded_size(x, spec) for x in first.values()):
        return dataset
    resized = Resized(dataset, spec)
    items = length(dataset)
    if not isinstance(dataset, TensorDataset) or items * sum(t.nbytes for t in resized[0].values()) > MEMORY_BYTES:
        return resized
    rows = max(1, RESIZED_AT_ONCE // sum(tensor.numel() for tensor in resized[0].values()))
    parts = [resized.__getitems__(range(k, min(k + rows, items))) for k in range(0, items, rows)]
    tensors = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return TensorDataset(tensors, pixels=dataset.pixels, groups=dataset.groups)


class Resized(Dataset[Batch]):
    """Items whose images are resized to a specification, before they are cropped.

    Images are interpolated bilinearly, with antialiasing when downscaling; label maps keep their values.

    Args:
        dataset: items whose images and label maps are `[…, H, W]`. Other tensors are left unchanged.
        spec: specification with the size and the kind of resizing.
    """

    def __init__(self, dataset: Dataset[Batch], spec: ImageSpec):
        self.dataset, self.spec, self.pixels = dataset, spec, pixels_of(dataset)
        self.groups = getattr(dataset, "groups", None)

    def __len__(self) -> int:
        return length(self.dataset)

    def __getitem__(self, index: int) -> Batch:
        return self._resized(named(self.dataset[index]))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        fetched = fetch(self.dataset, indices)
        if isinstance(fetched, dict):
            return self._resized(fetched)
        return [self._resized(named(item)) for item in fetched]

    def _resized(self, items: Batch) -> Batch:
        images = {key: x for key, x in items.items() if key in self.pixels | LABEL_MAPS and x.ndim > 2}
        smooth = {key: self.spec.interpolate and key not in LABEL_MAPS for key in images}
        return items | {key: resized(x, self.spec, interpolated=smooth[key]) for key, x in images.items()}


def resized(images: Tensor, spec: ImageSpec, *, interpolated: bool) -> Tensor:
    """Returns images `[…, H, W]` resized to the size before the crop, with the same dtype."""
    size = loaded_size(images, spec)
    if tuple(images.shape[-2:]) == size:
        return images
    planes = images.reshape(-1, 1, *images.shape[-2:]).float()
    if interpolated:
        planes = interpolate(planes, size, mode="bilinear", align_corners=False, antialias=True)
    else:
        planes = interpolate(planes, size, mode="nearest-exact")
    planes = planes if images.is_floating_point() else planes.round()
    return planes.to(images.dtype).reshape(*images.shape[:-2], *size)


def loaded_size(images: Tensor, spec: ImageSpec) -> tuple[int, int]:
    """Returns the height and width to which images `[…, H, W]` are resized before the crop."""
    height, width = images.shape[-2:]
    if spec.loaded_size is None:
        return height, width
    rows, columns = spec.loaded_size
    if spec.resize == "stretch":
        return rows, columns
    scale = max(rows / height, columns / width)
    return max(rows, round(height * scale)), max(columns, round(width * scale))


def augmented(dataset: Dataset[Batch], spec: Spec) -> Dataset[Batch]:
    """Returns a dataset whose images are cropped and flipped according to a specification."""
    if not isinstance(spec, ImageSpec) or not (spec.augments or spec.resize == "none" or spec.enlarge > 1):
        return dataset
    return Augmented(dataset, spec)


class Augmented(Dataset[Batch]):
    """Items whose images are cropped and flipped; all parts of an item are cropped and flipped in the same way.

    Args:
        dataset: items whose images and label maps `[…, H, W]` are at least as large as the crop. Other tensors are left
            unchanged.
        spec: size, crop and flip.
    """

    def __init__(self, dataset: Dataset[Batch], spec: ImageSpec):
        self.dataset, self.spec, self.pixels = dataset, spec, pixels_of(dataset)
        self.images = self.pixels | LABEL_MAPS
        self.groups = getattr(dataset, "groups", None)

    def __len__(self) -> int:
        return length(self.dataset)

    def __getitem__(self, index: int) -> Batch:
        return {key: tensor[0] for key, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        fetched = fetch(self.dataset, indices)
        numbers = draws.of_items(len(indices), 3)
        places = numbers[:, :2].tolist()
        if isinstance(fetched, dict):
            batch, rows = fetched, range(len(indices))
            if self._shape(batch) != self.spec.size:
                windows = [self._window(self._shape(batch), *place) for place in places]
                cut = {key: torch.stack([batch[key][row][windows[row]] for row in rows]) for key in self._parts(batch)}
                batch = batch | cut
        else:
            batch = collate([self._cut(item, *place) for item, place in zip(fetched, places, strict=True)])
        if self.spec.flip:
            mirrored = numbers[:, 2] < 0.5
            batch = batch | {key: mirror(batch[key], mirrored) for key in self._parts(batch)}
        return batch

    def _cut(self, item: Batch, down: float, right: float) -> Batch:
        window = self._window(self._shape(item), down, right)
        return item | {key: item[key][window] for key in self._parts(item)}

    def _parts(self, item: Batch) -> list[str]:
        return [key for key in item if key in self.images]

    def _shape(self, item: Batch) -> tuple[int, ...]:
        """Returns the height and width of an item, or of all items of a batch."""
        shapes = {tuple(item[key].shape[-2:]) for key in self._parts(item)}
        if len(shapes) > 1:
            raise DataError(f"the parts of an item have different sizes {sorted(shapes)}; resize them to the same size")
        return next(iter(shapes))

    def _window(self, shape: tuple[int, ...], down: float, right: float) -> tuple[EllipsisType, slice, slice]:
        """Returns the index of an item's crop; `down` and `right` in [0, 1) set the position of a random crop."""
        size = self.spec.size or shape
        rooms = [side - wanted for side, wanted in zip(shape, size, strict=True)]
        if min(rooms) < 0:
            raise DataError(
                f"an item is {shape[0]}x{shape[1]} pixels, smaller than the crop of {size[0]}x{size[1]}; enlarge it"
            )
        top, left = (
            room // 2 if self.spec.crop == "centre" else int(place * (room + 1))
            for place, room in zip((down, right), rooms, strict=True)
        )
        return ..., slice(top, top + size[0]), slice(left, left + size[1])


def mirror(images: Tensor, which: Tensor) -> Tensor:
    """Returns images `[B, …, W]`, flipped left to right where `which` `[B]` is true."""
    return torch.where(which.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)
