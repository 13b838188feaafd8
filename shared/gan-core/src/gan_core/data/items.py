"""Sources whose items are read one at a time, and the augmentation of images.

A source of files returns its items as `Items`. This module does what all such sources share: it holds small datasets in
memory, decodes the items of large ones on demand, and skips unreadable items.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data.augmentation import MEMORY_BYTES, augmented
from gan_core.data.dataset import Batch, TensorDataset
from gan_core.data.files import nothing_readable, skip
from gan_core.data.source import Items, Source
from gan_core.data.spec import Spec
from gan_core.errors import DataError, Unreadable

MEMORY_VALUES = 10**9
"""Maximum number of values that are decoded before training starts, about ten seconds of images."""

logger = logging.getLogger("gan_core")


class ItemSource(Source):
    """Base class of sources whose items are read one at a time.

    `fit` decodes a small dataset at once and holds it in memory. The items of a large one are decoded on demand, and an
    unreadable item is replaced by the next readable one.

    Attributes:
        thing: name of an item in messages, in the singular.
        suffixes: file name suffixes of items, for messages.
        strict: whether an unreadable item is an error.
        skipped: reasons by name of the items that could not be read so far.
    """

    thing = "item"
    suffixes: Sequence[str] = ()
    logger = logger

    def __init__(self, *, strict: bool = False):
        self.strict = strict
        self.skipped: dict[str, str] = {}

    @abstractmethod
    def items(self, spec: Spec) -> Items: ...

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns the items as a game needs them; see `Source.fit`.

        Raises:
            DataError: no item is readable; or an item is unreadable and the source is strict; or the data cannot be
                converted to the specification.
        """
        items = self.items(spec)
        if items.memory <= MEMORY_BYTES and items.values <= MEMORY_VALUES:
            return augmented(self._held(items), spec)
        read = ReadItems(self, items)
        read[0]  # raises here rather than during training if no item is readable
        return augmented(read, spec)

    def first(self) -> Batch:
        """Returns the first readable item at its own size."""
        return ReadItems(self, self.items(Spec()))[0]

    def _held(self, items: Items) -> Dataset[Batch]:
        """Returns all readable items, decoded."""
        read: dict[int, Batch] = {}
        skipped: dict[str, str] = {}
        for index in range(len(items)):
            try:
                read[index] = items.read(index)
            except Unreadable as error:
                skipped[items.name(index)] = str(error)
        if not read:
            raise self.nothing(len(items), skipped)
        self.skip(skipped)
        return held(list(read.values()), items.pixels, None if items.groups is None else items.groups[list(read)])

    def skip(self, skipped: Mapping[str, str]) -> None:
        """Records unreadable items, and logs a warning that names the new ones.

        Args:
            skipped: reasons by name.

        Raises:
            DataError: there is a new unreadable item, and the source is strict.
        """
        skip(self.skipped, skipped, where=self.name, thing=self.thing, strict=self.strict, logger=self.logger)

    def nothing(self, seen: int, skipped: Mapping[str, str]) -> DataError:
        """Returns the error for a source of `seen` items, none of which is readable."""
        return nothing_readable(self.name, seen, skipped, thing=self.thing, suffixes=self.suffixes)


class ReadItems(Dataset[Batch]):
    """A source's items, decoded on demand; an unreadable item is replaced by the next readable one."""

    def __init__(self, source: ItemSource, items: Items):
        self.source, self.items, self.pixels, self.groups = source, items, items.pixels, items.groups

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Batch:
        for place in (*range(index, len(self)), *range(index)):
            try:
                return self.items.read(place)
            except Unreadable as error:
                self.source.skip({self.items.name(place): str(error)})
        raise self.source.nothing(len(self), self.source.skipped)


class HeldItems(Dataset[Batch]):
    """Items of different sizes, held in memory."""

    def __init__(self, items: Sequence[Batch], pixels: Collection[str], groups: Tensor | None):
        self.items, self.pixels, self.groups = items, frozenset(pixels), groups

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Batch:
        return self.items[index]


def held(items: Sequence[Batch], pixels: Collection[str], groups: Tensor | None = None) -> Dataset[Batch]:
    """Returns a dataset of items in memory, stacked to one tensor per key if all items have the same shapes."""
    keys = items[0].keys()
    if all(len({item[key].shape for item in items}) == 1 for key in keys):
        stacked = {key: torch.stack([item[key] for item in items]) for key in keys}
        return TensorDataset(stacked, pixels=pixels, groups=groups)
    return HeldItems(items, pixels, groups)


# --- size and augmentation


class FittedData:
    """A source with the datasets that are fitted from it for training, previews and evaluation.

    Attributes:
        source: the data.
        spec: the game's specification, with augmentation.
        plain: the items without augmentation, for previews and evaluation.

    Args:
        source: the data.
        spec: the game's specification, with augmentation.

    Raises:
        DataError: the data cannot be converted to the specification.
    """

    def __init__(self, source: Source, spec: Spec):
        self.source, self.spec = source, spec
        self._last = (spec, source.fit(spec))
        self.plain = self._last[1] if spec.plain() == spec else source.fit(spec.plain())

    def for_training(self, changes: Mapping[str, Any]) -> Dataset[Batch]:
        """Returns the training items of a phase; the source is fitted again only if the specification changes.

        Args:
            changes: values of the specification's fields that the phase changes.
        """
        spec = self.spec.but(changes)
        if spec == self.spec.plain():
            return self.plain
        if spec != self._last[0]:
            self._last = (spec, self.source.fit(spec))
        return self._last[1]
