"""Batches and datasets: fetching, stacking, and items held in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from gan_core.errors import DataError

Batch = dict[str, Tensor]

PIXELS = frozenset({"image", "video", "source", "target"})
"""Keys whose uint8 values are pixels (0 to 255), unless a dataset sets its attribute `pixels`."""

EMPTY: Mapping[str, Any] = MappingProxyType({})


class TensorDataset(Dataset[Batch]):
    """Dataset of items in memory. Item i is row i of every tensor, and a batch is fetched by one indexing operation.

    Args:
        tensors: tensors `[N, …]` by key.
        pixels: keys whose uint8 values are pixels (default: `PIXELS`).
        groups: group of each item, `[N]`; None if each item is a group of its own.

    Raises:
        DataError: there are no items, or the tensors have different lengths.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], *, pixels: Collection[str] | None = None, groups: Tensor | None = None
    ) -> None:
        for key, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise DataError(f"`{key}` is of the type {type(tensor).__name__}; give a tensor (`torch.as_tensor`)")
        sizes = {key: len(tensor) for key, tensor in tensors.items()}
        if not sizes or 0 in sizes.values():
            raise DataError("the dataset is empty; give at least one item for every key")
        if len(set(sizes.values())) > 1:
            raise DataError(f"the tensors have different lengths {sizes}; use `Unpaired` for unpaired data")
        self.tensors, self.groups = dict(tensors), groups
        self.pixels = frozenset(PIXELS if pixels is None else pixels)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: int) -> Batch:
        return {key: tensor[index] for key, tensor in self.tensors.items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return {key: tensor[rows] for key, tensor in self.tensors.items()}


def named(item: Any) -> Batch:
    """Returns an item or batch after checking that it is a dictionary.

    Raises:
        DataError: the item is not a dictionary.
    """
    if not isinstance(item, Mapping):
        raise DataError(
            f"the dataset's items are {type(item).__name__}; return dictionaries, such as {{'image': tensor}}"
        )
    return item  # type: ignore[return-value]


def length(dataset: Dataset[Batch]) -> int:
    """Returns the number of items of a map-style dataset."""
    return len(dataset)  # type: ignore[arg-type]


def pixels_of(dataset: Dataset[Batch]) -> frozenset[str]:
    """Returns the keys of a dataset whose uint8 values are pixels: its attribute `pixels` (default: `PIXELS`)."""
    return frozenset(getattr(dataset, "pixels", PIXELS))


def fetch(dataset: Dataset[Batch], indices: Sequence[int]) -> Any:
    """Returns the items with the given indices: the result of the dataset's `__getitems__`, or else a list."""
    at_once = getattr(dataset, "__getitems__", None)
    return at_once(indices) if at_once is not None else [dataset[index] for index in indices]


def collate(items: Any) -> Batch:
    """Stacks items into a batch. A batch, which some datasets return from `__getitems__`, is returned unchanged.

    Raises:
        DataError: the items are not dictionaries of tensors and numbers, or the tensors of a key have different shapes.
    """
    if isinstance(items, dict):
        return items
    for key, value in named(items[0]).items():
        shapes = {tuple(torch.as_tensor(item[key]).shape) for item in items} if _is_numeric(value) else None
        if shapes is None:
            raise DataError(
                f"`{key}` of the data is {type(value).__name__}, such as {value!r:.40}; give numbers, such as token ids"
            )
        if len(shapes) > 1:
            few = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
            raise DataError(f"`{key}` of the data has items of different shapes, such as {few}; make them the same")
    batch: Batch = default_collate(items)
    return batch


def _is_numeric(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | bool | int | float | np.generic)
