"""Compositions of sources: pairs, unpaired datasets, and pairs in which one part is computed from the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from gan_core import draws
from gan_core.data.dataset import Batch, collate, fetch, length, pixels_of
from gan_core.data.items import ItemSource
from gan_core.data.source import Items, Source, as_source, facts_of, require_channels
from gan_core.data.spec import LABEL_MAPS, ImageSpec, Spec
from gan_core.data.stream import hold_out
from gan_core.errors import NAMED, DataError, count, printable

logger = logging.getLogger("gan_core")

Data = Source | Mapping[str, Tensor] | Dataset[Batch]
"""Data that can be trained on: a source, tensors by key, or a dataset whose items are tensors by key."""


def main_key(source: Source) -> str:
    """Returns the only key of a source besides `label`.

    Raises:
        DataError: there is not exactly one.
    """
    keys = [key for key in source.keys if key != "label"]
    if len(keys) != 1:
        raise DataError(
            f"{source.name} has {', '.join(f'`{key}`' for key in keys)}; each part must have one key besides `label`"
        )
    return keys[0]


def first_item(source: Source) -> Batch:
    """Returns the first readable item of a source, without a specification applied."""
    return source.first() if isinstance(source, ItemSource) else source.fit(Spec())[0]


def as_part(data: Data | Tensor) -> Source:
    """Returns the source of one part of an item; a tensor `[N, …]` becomes a source with the key `image`."""
    if isinstance(data, str | Path):
        raise DataError(f"{data}: a path is not a source; open it first, for example with `gan_image.open_data`")
    return as_source({"image": data} if isinstance(data, Tensor) else data)


def joint_facts(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the facts of each part as `PART_FACT`, and those that are equal in all parts also as `FACT`.

    Facts about classes are left out; `Paired` takes them from the labelled source.
    """
    facts: dict[str, Any] = {}
    for name in {name for each in parts.values() for name in each} - {"num_classes", "classes"}:
        values = [each.get(name) for each in parts.values()]
        facts |= {f"{part}_{name}": value for part, value in zip(parts, values, strict=True) if value is not None}
        if all(value == values[0] for value in values):
            facts[name] = values[0]
    return facts


class Paired(ItemSource):
    """Items whose parts come from several sources: `Paired(source=a, target=b)`.

    Files are matched by name without suffix, other data by index. Items with a missing or unreadable part are skipped
    with a warning. Labels and classes are those of the first labelled source.

    Args:
        name: name of the source (default: the names of the parts' sources).
        strict: whether an item with a missing or unreadable part is an error.
        **parts: a source, tensors by key, a dataset, or a tensor `[N, …]` for each part. Each must have exactly one key
            besides `label`; in the items it is renamed to the part's name.

    Raises:
        DataError: no items match; or sources that are matched by index have different lengths; or a source does not
            have exactly one key besides `label`; or a part is missing and `strict` is set.
    """

    def __init__(self, *, name: str | None = None, strict: bool = False, **parts: Data | Tensor):
        self.parts = {part: as_part(data) for part, data in parts.items()}
        self.inner = {part: main_key(source) for part, source in self.parts.items()}
        labelled = next((source for source in self.parts.values() if "label" in source.keys), None)
        facts = joint_facts({part: source.facts for part, source in self.parts.items()})
        if labelled is not None:
            facts |= {fact: labelled.facts[fact] for fact in ("num_classes", "classes") if fact in labelled.facts}
        name = name or " + ".join(source.name for source in self.parts.values())
        super().__init__(name=name, facts=facts, strict=strict)
        self._keys = [*self.parts, *(["label"] if labelled is not None else [])]
        self.indices = self._match()

    @property
    def keys(self) -> Collection[str]:
        return self._keys

    def __len__(self) -> int:
        return len(self.indices)

    def item_name(self, index: int) -> str:
        return next(iter(self.parts.values())).item_name(int(self.indices[index, 0]))

    def _match(self) -> Tensor:
        """Returns the index of each item in each source, `[N, parts]`."""
        names: list[Sequence[str]] = [getattr(source, "names", None) or () for source in self.parts.values()]
        if not all(names):
            sizes = {part: len(source) for part, source in self.parts.items()}
            if len(set(sizes.values())) > 1:
                raise DataError(f"the parts have different numbers of items {sizes}; use `Unpaired` for unpaired data")
            size = next(iter(sizes.values()))
            return torch.arange(size)[:, None].expand(size, len(self.parts))
        places = [self._places(source, each) for source, each in zip(self.parts.values(), names, strict=True)]
        shared = [stem for stem in places[0] if all(stem in each for each in places[1:])]
        if not shared:
            first = " and ".join(
                f"{source.name} has {printable(each[0])}"
                for source, each in zip(self.parts.values(), names, strict=True)
            )
            raise DataError(f"no files match by name: {first}, …; give the files of a pair the same name")
        alone = {stem for each in places for stem in each} - set(shared)
        if alone:
            few = ", ".join(printable(stem) for stem in sorted(alone)[:NAMED]) + ", …" * (len(alone) > NAMED)
            left = f"{count(len(alone), 'item')} of {len(alone) + len(shared):,} without a counterpart: {few}"
            if self.strict:
                raise DataError(f"{self.name}: {left}; give the files of a pair the same name, or leave out `strict`")
            logger.warning("%s: left out %s", self.name, left)
        return torch.tensor([[each[stem] for each in places] for stem in shared])

    def _places(self, source: Source, names: Sequence[str]) -> dict[str, int]:
        """Returns the index of each file by name without suffix; if several files share a name, the first is used."""
        places: dict[str, int] = {}
        for index, name in enumerate(names):
            first = places.setdefault(_stem(name), index)
            if first != index:
                self.skip({f"{source.name}/{name}": f"has the same name as {printable(names[first])}"})
        return places

    def items(self, spec: Spec) -> Items:
        return _JointItems(self, {part: source.items(spec.part(part)) for part, source in self.parts.items()})

    def in_words(self, spec: Spec) -> str:
        return parts_in_words(self.parts, spec)


class _JointItems(Items):
    def __init__(self, source: Paired, parts: Mapping[str, Items]):
        self.source, self.parts = source, parts
        first = next(iter(parts.values()))
        self.pixels = (
            frozenset(part for part, items in parts.items() if source.inner[part] in items.pixels) - LABEL_MAPS
        )
        self.groups = None if first.groups is None else first.groups[source.indices[:, 0]]
        self.memory, self.values = (
            sum(getattr(items, name) for items in parts.values()) for name in ("memory", "values")
        )

    def __len__(self) -> int:
        return len(self.source.indices)

    def read(self, index: int) -> Batch:
        item: Batch = {}
        for (part, items), place in zip(self.parts.items(), self.source.indices[index].tolist(), strict=True):
            read = items.read(place)
            item[part] = read[self.source.inner[part]]
            if "label" in read and "label" in self.source.keys:
                item.setdefault("label", read["label"])
        return item


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def parts_in_words(parts: Mapping[str, Source], spec: Spec) -> str:
    """Returns what the parts of composed data are and how they are converted, for people."""
    return "; ".join(f"{part}: {source.in_words(spec.part(part))}" for part, source in parts.items())


class Unpaired(Source):
    """Two unpaired datasets: `Unpaired(source=a, target=b)`, as CycleGAN is trained (arXiv:1703.10593).

    Each item combines an item of the first dataset, by index, with a random item of the second, which is drawn each
    time it is read. The length is that of the larger dataset. The two parts are augmented independently. Labels are
    dropped.

    Args:
        name: name of the source (default: the names of the two sources).
        **parts: data of the two parts, as in `Paired`.

    Raises:
        DataError: there are not exactly two parts.
    """

    def __init__(self, *, name: str | None = None, **parts: Data | Tensor):
        if len(parts) != 2:
            raise DataError(
                f"`Unpaired` was given {count(len(parts), 'dataset')}; give two, such as source= and target="
            )
        self.parts = {part: as_part(data) for part, data in parts.items()}
        self.name = name or " + ".join(source.name for source in self.parts.values())
        self.facts = joint_facts({part: source.facts for part, source in self.parts.items()})

    @property
    def keys(self) -> Collection[str]:
        return self.parts.keys()

    def __len__(self) -> int:
        return max(len(source) for source in self.parts.values())

    def in_words(self, spec: Spec) -> str:
        return parts_in_words(self.parts, spec)

    def fit(self, spec: Spec) -> Dataset[Batch]:
        fitted = {part: (source.fit(spec.part(part)), main_key(source)) for part, source in self.parts.items()}
        return _Unpaired(fitted)


class _Unpaired(Dataset[Batch]):
    def __init__(self, parts: Mapping[str, tuple[Dataset[Batch], str]]):
        self.parts = parts
        self.pixels = (
            frozenset(part for part, (dataset, key) in parts.items() if key in pixels_of(dataset)) - LABEL_MAPS
        )

    def __len__(self) -> int:
        return max(length(dataset) for dataset, _ in self.parts.values())

    def __getitem__(self, index: int) -> Batch:
        return {key: tensor[0] for key, tensor in self.__getitems__([index]).items()}

    def hold_out(self, share: float) -> tuple[_Unpaired, _Unpaired]:
        """Splits both sets, so that held-out items are not drawn as partners of training items either."""
        training: dict[str, tuple[Dataset[Batch], str]] = {}
        held_out: dict[str, tuple[Dataset[Batch], str]] = {}
        for part, (dataset, key) in self.parts.items():
            kept, left_out = hold_out(dataset, share)
            assert left_out is not None
            training[part], held_out[part] = (kept, key), (left_out, key)
        return _Unpaired(training), _Unpaired(held_out)

    def apart(self, part: str) -> Dataset[Batch]:
        """Returns one of the two sets."""
        return _Alone(part, *self.parts[part])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        (first, (one, one_key)), (second, (other, other_key)) = self.parts.items()
        rows = torch.as_tensor(indices)
        with draws.apart("partner"):  # not the numbers that the first part is cropped by
            partner = (draws.of_items(len(rows))[:, 0] * length(other)).long()
        batch = {first: collate(fetch(one, (rows % length(one)).tolist()))[one_key]}
        with draws.apart(second):
            batch[second] = collate(fetch(other, partner.tolist()))[other_key]
        return batch


class _Alone(Dataset[Batch]):
    """One of two unpaired sets, with its samples under the name of the part."""

    def __init__(self, part: str, dataset: Dataset[Batch], key: str):
        self.part, self.dataset, self.key = part, dataset, key
        self.pixels = frozenset((part,)) - LABEL_MAPS if key in pixels_of(dataset) else frozenset()

    def __len__(self) -> int:
        return length(self.dataset)

    def __getitem__(self, index: int) -> Batch:
        return {self.part: self.dataset[index][self.key]}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return {self.part: collate(fetch(self.dataset, indices))[self.key]}


Degrade = Callable[[Tensor, Sequence[float]], Tensor]
"""A function of a sample and random numbers in [0, 1) that returns the degraded sample."""


class Derived(Source):
    """Pairs whose `source` is computed from their `target`: `Derived(photos, degrade)`.

    Args:
        data: data with exactly one key besides `label`; its samples become `target`.
        degrade: takes a sample after cropping and flipping (images: uint8 `[C, H, W]`) and a list of random numbers,
            and returns the `source`. All sources must have the same shape. It may run in worker processes, so its only
            source of randomness must be these numbers.
        draws: number of random numbers in [0, 1), which are drawn each time an item is read (default: 0).
        labels: whether items keep their `label`, for class-conditional games.
        name: name of the source (default: that of the data).

    Raises:
        DataError: the data do not have exactly one key besides `label`, or have no labels to keep.
    """

    def __init__(
        self, data: Data | Tensor, degrade: Degrade, *, draws: int = 0, labels: bool = False, name: str | None = None
    ) -> None:
        self.data, self.degrade, self.draws = as_part(data), degrade, draws
        self.kept = ("label",) if labels else ()
        if labels and "label" not in self.data.keys:
            raise DataError(f"{self.data.name} has no labels to keep; give a folder with a sub-folder for each class")
        self.name = name or self.data.name
        self.inner = main_key(self.data)
        target = first_item(self.data)[self.inner]
        source = degrade(target, [0.0] * draws)
        samples = {"source": source, "target": target}
        own = joint_facts({part: facts_of({part: sample[None]}) for part, sample in samples.items()})
        of_classes = ("num_classes", "classes") if labels else ()
        self.facts = {**own, **{fact: self.data.facts[fact] for fact in of_classes}}

    @property
    def keys(self) -> Collection[str]:
        return ("source", "target", *self.kept)

    def __len__(self) -> int:
        return len(self.data)

    def fit(self, spec: Spec) -> Dataset[Batch]:
        dataset = _Derived(self, self.data.fit(spec.part("target")))
        if isinstance(spec, ImageSpec):
            require_channels(dataset[0], spec, dataset.pixels, self.name)
        return dataset


class _Derived(Dataset[Batch]):
    def __init__(self, source: Derived, dataset: Dataset[Batch]):
        self.source, self.dataset = source, dataset
        self.groups = getattr(dataset, "groups", None)
        self.pixels = frozenset(("source", "target")) if source.inner in pixels_of(dataset) else frozenset()

    def __len__(self) -> int:
        return length(self.dataset)

    def __getitem__(self, index: int) -> Batch:
        return {key: tensor[0] for key, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        items = collate(fetch(self.dataset, indices))
        targets = items[self.source.inner]
        with draws.apart("degrade"):
            numbers = draws.of_items(len(targets), self.source.draws).tolist()
        sources = [self.source.degrade(target, own) for target, own in zip(targets, numbers, strict=True)]
        kept = {key: items[key] for key in self.source.kept}
        return {"source": default_collate(sources), "target": targets} | kept
