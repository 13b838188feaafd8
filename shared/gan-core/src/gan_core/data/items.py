"""Sources whose items are read one at a time and may be unreadable.

Small datasets are held in memory, items of large datasets are decoded on demand, and unreadable items are skipped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, TypedDict, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data.augmentation import MEMORY_BYTES, augmented
from gan_core.data.dataset import EMPTY, Batch, TensorDataset
from gan_core.data.files import FileKind, in_words, nothing_readable, skip
from gan_core.data.source import Items, Source
from gan_core.data.spec import Spec
from gan_core.errors import Unreadable, count

MEMORY_VALUES = 10**9
"""Maximum number of values that are decoded before training starts; images of this total size take about 10 s."""

CLASSES = 10
"""Maximum number of classes that are named when training starts."""

Part = TypeVar("Part")


class ItemOptions(TypedDict, total=False):
    """Arguments of `ItemSource` that its subclasses pass on."""

    labels: Tensor | Sequence[int] | None
    classes: Sequence[str] | None
    skipped: Mapping[str, str]
    ignored: Mapping[str, int]
    strict: bool


class ItemSource(Source):
    """Base class of sources whose items are read one at a time and may be unreadable.

    A subclass defines `items`. `fit` decodes a small dataset completely and holds it in memory. The items of a large
    dataset are decoded on demand, and an unreadable item is replaced by the next readable one.

    Args:
        name: name of the source.
        facts: properties of the data without the classes; see `Source`.
        names: names of the items, such as file names (default: their indices).
        labels: class index of each item, `[N]`; None if there are no classes.
        classes: names of the classes.
        skipped: reasons by name of the items that are known to be unreadable.
        ignored: numbers of other files in the same place, by suffix.
        strict: whether an unreadable item is an error.

    Attributes:
        key: key of the samples in the items.
        kind: names of the items in messages.
        skipped: reasons by name of the items that could not be read so far.
        ignored: numbers of other files in the same place, by suffix.
    """

    key: ClassVar[str]
    kind: ClassVar[FileKind] = FileKind("item")

    def __init__(
        self,
        *,
        name: str,
        facts: Mapping[str, Any] = EMPTY,
        names: Sequence[str] | None = None,
        labels: Tensor | Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        skipped: Mapping[str, str] = EMPTY,
        ignored: Mapping[str, int] = EMPTY,
        strict: bool = False,
    ) -> None:
        self.name, self.names, self.strict, self.skipped = name, names, strict, dict(skipped)
        self.ignored = dict(ignored)
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.int64)
        self.facts = {**facts}
        if classes is not None:
            self.facts |= {"num_classes": len(classes), "classes": list(classes)}

    @property
    def keys(self) -> Collection[str]:
        return (self.key,) if self.labels is None else (self.key, "label")

    def item_name(self, index: int) -> str:
        return str(index) if self.names is None else self.names[index]

    def in_words(self, spec: Spec) -> str:
        return ", ".join(filter(None, (count(self.readable, self.kind.thing), spec.in_words())))

    @property
    def readable(self) -> int:
        """Number of items without those that are known to be unreadable."""
        return len(self) - sum(name in self.skipped for name in self.names or ())

    @abstractmethod
    def items(self, spec: Spec) -> Items: ...

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns the items converted to a specification; see `Source.fit`.

        Raises:
            DataError: no item is readable; or an item is unreadable and the source is strict; or the data cannot be
                converted to the specification.
        """
        items = self.items(spec)
        if items.memory <= MEMORY_BYTES and items.values <= MEMORY_VALUES:
            read = self.read_all(items.read)
            groups = None if items.groups is None else items.groups[list(read)]
            return augmented(held(list(read.values()), items.pixels, groups), spec)
        lazy = ReadItems(self, items)
        lazy[0]  # raises here rather than during training if no item is readable
        return augmented(lazy, spec)

    def first(self) -> Batch:
        """Returns the first readable item, in its original size."""
        return ReadItems(self, self.items(Spec()))[0]

    def read_all(self, read: Callable[[int], Part]) -> dict[int, Part]:
        """Reads all items, and returns the readable ones by index.

        Args:
            read: reads the item with an index; raises `Unreadable` if it is damaged.

        Raises:
            DataError: no item is readable; or an item is unreadable and the source is strict.
        """
        found: dict[int, Part] = {}
        skipped: dict[str, str] = {}
        for index in range(len(self)):
            try:
                found[index] = read(index)
            except Unreadable as error:
                skipped[self.item_name(index)] = str(error)
        if not found:
            raise nothing_readable(self.name, len(self), skipped, self.kind)
        self.skip(skipped)
        return found

    def read_next(self, index: int, read: Callable[[int], Part]) -> tuple[int, Part]:
        """Reads an item, or the next readable one if it is damaged.

        Args:
            index: index of the item.
            read: see `read_all`.

        Returns:
            The index of the item that was read, and the item.

        Raises:
            DataError: see `read_all`.
        """
        for place in (*range(index, len(self)), *range(index)):
            try:
                return place, read(place)
            except Unreadable as error:
                self.skip({self.item_name(place): str(error)})
        raise nothing_readable(self.name, len(self), self.skipped, self.kind)

    def skip(self, skipped: Mapping[str, str]) -> None:
        """Records unreadable items, and logs a warning about the new ones.

        Args:
            skipped: reasons by name.

        Raises:
            DataError: there is a new unreadable item, and the source is strict.
        """
        skip(self.skipped, skipped, where=self.name, thing=self.kind.thing, strict=self.strict)


class ReadItems(Dataset[Batch]):
    """A source's items, decoded on demand; an unreadable item is replaced by the next readable one."""

    def __init__(self, source: ItemSource, items: Items):
        self.source, self.items, self.pixels, self.groups = source, items, items.pixels, items.groups

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Batch:
        return self.source.read_next(index, self.items.read)[1]


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

    def in_words(self, num_classes: int | None) -> str:
        """Returns what the data are and how they are converted, for people.

        Args:
            num_classes: the game's number of classes; None if it does not learn classes.
        """
        words, classes = [self.source.in_words(self.spec)], self.source.facts.get("classes")
        if classes is not None:
            named = ", ".join(classes[:CLASSES]) + (" …" if len(classes) > CLASSES else "")
            number = "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
            learnt = "" if num_classes is not None else f", not learnt (set `network.num_classes` to {len(classes)})"
            words.append(f"{number}: {named}{learnt}")
        if ignored := getattr(self.source, "ignored", None):
            words.append(f"ignored: {in_words(ignored)}")
        return "; ".join(words)
