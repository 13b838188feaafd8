"""Data: what a source is, how it is cut to a network's sizes, and the endless stream of batches a training reads.

A batch is `dict[str, Tensor]` with the field's keys (`image`, `video`, `audio`, `points`, `label`, `source`,
`target` …). Images travel as uint8 and are normalised to [-1, 1] on the device (`to_device`).
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from gan_core.draws import mix, reading, seed_torch
from gan_core.errors import DataError

Batch = dict[str, Tensor]
PIXELS = frozenset({"image", "video"})
LARGEST_PIXEL = 2.0
"""Floating-point pixels beyond this are on another scale than [-1, 1]."""
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Source(ABC):
    """A data set before it is cut to a network's sizes.

    Attributes:
        name: what the user called it.
        facts: what the data know about themselves and a network may need: `channels`, `num_classes`, `shape`, and
            `classes` (their names). A network setting that neither preset nor user gives is taken from here.
    """

    name: str
    facts: Mapping[str, Any]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fit(self, **network: Any) -> Dataset[Batch]:
        """The items at the sizes that a network's settings ask for (`image_size`, `channels`, …); others are ignored.

        Items are `dict[str, Tensor]`. A dataset that can fetch many items at once does so in `__getitems__` and
        returns the finished batch from it.

        Raises:
            DataError: the data cannot be brought to those sizes, or lack what they need (labels).
        """


class TensorDataset(Dataset[Batch]):
    """Items that are held in memory, one row of every tensor each; a batch is one indexing operation."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        sizes = {key: len(tensor) for key, tensor in tensors.items()}
        if not sizes or 0 in sizes.values():
            raise DataError("the data set is empty: give at least one item of every key")
        if len(set(sizes.values())) > 1:
            raise DataError(f"the tensors have different lengths {sizes}; for data without pairs use `Unpaired`")
        self.tensors = dict(tensors)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: int) -> Batch:
        return {key: tensor[index] for key, tensor in self.tensors.items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.as_tensor(indices)
        return {key: tensor[rows] for key, tensor in self.tensors.items()}


class FixedSource(Source):
    """A dataset that is already as the network wants it: items are `dict[str, Tensor]`."""

    def __init__(self, dataset: Dataset[Batch], *, name: str = "dataset", facts: Mapping[str, Any] = EMPTY):
        self.dataset, self.name, self.facts = dataset, name, facts

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # every dataset here has one

    def fit(self, **network: Any) -> Dataset[Batch]:
        """The dataset as it is.

        Raises:
            DataError: the network has classes and the data say that they have none, or others.
        """
        require_labels(self, network.get("num_classes"))
        return self.dataset


class TensorSource(FixedSource):
    """Tensors that are already as the network wants them: `{"image": [N, C, H, W], "label": [N]}`.

    uint8 tensors are pixels, 0 to 255; floating point is used as it is and should lie in [-1, 1].

    Raises:
        DataError: there are no items, or their numbers differ, or floating-point pixels are on another scale.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, name: str = "tensors", classes: Sequence[str] | None = None):
        super().__init__(TensorDataset(tensors), name=name, facts=facts_of(tensors, classes))
        for key in PIXELS & tensors.keys():
            if tensors[key].is_floating_point() and tensors[key].abs().max() > LARGEST_PIXEL:
                reach = f"{name}: `{key}` is floating point and reaches {float(tensors[key].abs().max()):.3g}"
                raise DataError(f"{reach}; give pixels as uint8, or bring them to [-1, 1]")


def as_source(data: Source | Mapping[str, Tensor] | Dataset[Batch]) -> Source:
    """A source of what users have: a source, tensors by key, or a dataset of items by key."""
    if isinstance(data, Source):
        return data
    if not isinstance(data, Mapping) and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        kind = type(data).__name__
        raise DataError(f"`data` is a {kind}; give tensors by key, or a dataset with indices and a length")
    return TensorSource(data) if isinstance(data, Mapping) else FixedSource(data, facts=_facts_of_items(data))


def _facts_of_items(dataset: Dataset[Batch]) -> Mapping[str, Any]:
    """What the first item of a dataset tells of all; how many classes there are it does not."""
    first = dataset[0]
    if not isinstance(first, Mapping):  # a batch of such items is refused, with what to do
        return EMPTY
    return facts_of({key: value[None] for key, value in first.items() if key != "label"})


class Part(Dataset[Batch]):
    """Some of a dataset's items, by their indices in it."""

    def __init__(self, dataset: Dataset[Batch], indices: Sequence[int]):
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return fetch(self.dataset, [self.indices[index] for index in indices])


def fetch(dataset: Dataset[Batch], indices: Sequence[int]) -> Any:
    """Many items, as a list or as the finished batch that the dataset makes of them."""
    at_once = getattr(dataset, "__getitems__", None)
    return at_once(indices) if at_once is not None else [dataset[index] for index in indices]


def hold_out(dataset: Dataset[Batch], share: float) -> tuple[Dataset[Batch], Dataset[Batch] | None]:
    """The items that are trained on, and those that are not: the same ones in every training on the data.

    Raises:
        DataError: nothing would be left to train on.
    """
    if not share:
        return dataset, None
    length = len(dataset)  # type: ignore[arg-type]  # every dataset here has one
    order = torch.randperm(length, generator=torch.Generator().manual_seed(0)).tolist()
    kept_back = max(1, round(share * length))
    if kept_back >= length:
        raise DataError(f"`data.held_out` is {share}, which leaves none of {length} items to train on; make it smaller")
    return Part(dataset, sorted(order[kept_back:])), Part(dataset, sorted(order[:kept_back]))


class Unpaired(Dataset[Batch]):
    """Two sets without pairs as one: `source` in its own order, `target` drawn by a fixed shuffle of its indices."""

    def __init__(self, source: Tensor, target: Tensor):
        self.source, self.target = source, target
        self.partner = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return max(len(self.source), len(self.target))

    def __getitem__(self, index: int) -> Batch:
        partner = self.partner[index % len(self.target)]
        return {"source": self.source[index % len(self.source)], "target": self.target[partner]}


def facts_of(tensors: Mapping[str, Tensor], classes: Sequence[str] | None = None) -> dict[str, Any]:
    """What tensors tell of themselves: the sample's `shape`, its `channels`, and the number of `classes`.

    Raises:
        DataError: there are labels and nothing else.
    """
    shape = next((tuple(tensor.shape[1:]) for key, tensor in tensors.items() if key != "label"), None)
    if shape is None:
        raise DataError("the tensors are labels alone; give what they are labels of")
    facts: dict[str, Any] = {"shape": shape} | ({"channels": shape[0]} if shape else {})
    if "label" in tensors:
        facts["num_classes"] = len(classes) if classes else int(tensors["label"].max()) + 1
        facts["classes"] = list(classes) if classes else [str(k) for k in range(facts["num_classes"])]
    return facts


def require_labels(source: Source, num_classes: int | None) -> None:
    """Checks that a source has the classes that a network was asked to have.

    Raises:
        DataError: the source has no labels, or another number of classes.
    """
    if num_classes is None:
        return
    have = source.facts.get("num_classes")
    if have is None:
        raise DataError(f"{source.name} has no labels, and `network.num_classes` is {num_classes}; leave it out")
    if have != num_classes:
        raise DataError(
            f"{source.name} has {have} classes and `network.num_classes` is {num_classes}; set it to {have}"
        )


class IndexStream(Sampler[list[int]]):
    """Endless batches of indices: one seeded shuffle an epoch, epochs joined without a seam, from any position.

    A process reads its own rows of each global batch, so several processes together read what one would.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, position: int = 0, rank: int = 0, processes: int = 1
    ):
        self.length, self.batch_size, self.seed, self.position = length, batch_size, seed, position
        share = batch_size // processes
        self.rows = slice(rank * share, (rank + 1) * share)

    def epoch(self, number: int) -> list[int]:
        """The order of one epoch: a function of the seed and the epoch's number."""
        order = torch.Generator().manual_seed((self.seed << 20) + number)
        return torch.randperm(self.length, generator=order).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        number, start = divmod(self.position, self.length)
        order = self.epoch(number)
        while True:
            batch = order[start : start + self.batch_size]
            start += self.batch_size
            while start > self.length:  # the batch goes on in the next epoch
                number, start = number + 1, start - self.length
                order = self.epoch(number)
                batch += order[:start]
            yield batch[self.rows]


class _Placed(Dataset[Any]):
    """A dataset whose items may draw: what they draw depends on their place in the stream.

    What is drawn by `draws.of_items` is the same however many processes and workers read. Of torch's own generator, in
    the training's own process it is the turn's already; a worker's is seeded for every batch, as it knows neither the
    turn nor what was read before the training was resumed.

    Args:
        dataset: of items.
        seed: of the stream.
        rank: of the process.
        row: of the global batch at which the process's own rows begin.
    """

    def __init__(self, dataset: Dataset[Batch], seed: int, *, rank: int = 0, row: int = 0):
        self.dataset, self.seed, self.rank, self.row = dataset, seed, rank, row

    def __getitems__(self, placed: tuple[int, list[int]]) -> Any:
        place, indices = placed
        if get_worker_info() is not None:
            seed_torch(mix(mix(self.seed, self.rank), place), torch.device("cpu"))
        with reading(self.seed, place + self.row):
            return fetch(self.dataset, indices)


def _outlive_interrupts(worker: int) -> None:
    """An interrupt of the whole process group ends the training in order, and that is what ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class BatchStream:
    """Fresh batches without end. `position` counts the samples handed out, all processes together, and is its state."""

    def __init__(self, dataset: Dataset[Batch], batch_size: int, *, seed: int, position: int = 0, workers: int = 0,
                 rank: int = 0, processes: int = 1, pin_memory: bool = False):  # fmt: skip
        self.position, self.batch_size = position, batch_size
        length = len(dataset)  # type: ignore[arg-type]  # every dataset here has one
        indices = IndexStream(length, batch_size, seed=seed, position=position, rank=rank, processes=processes)
        places: Iterable[Any] = zip(count(position, batch_size), indices)  # both are endless
        loader = DataLoader(
            _Placed(dataset, seed, rank=rank, row=indices.rows.start), batch_sampler=places, num_workers=workers,
            pin_memory=pin_memory, collate_fn=_collate, worker_init_fn=_outlive_interrupts,
            generator=torch.Generator().manual_seed(seed), persistent_workers=workers > 0,
        )  # fmt: skip
        self.batches = iter(loader)

    def __next__(self) -> Batch:
        batch: Batch = next(self.batches)
        self.position += self.batch_size
        return batch


def read(dataset: Dataset[Batch], indices: Sequence[int], batch_size: int) -> Iterator[Batch]:
    """The items of some indices, once, in batches on the CPU (`to_device`); what items draw is the same every time."""
    for start in range(0, len(indices), batch_size):
        batch = list(indices[start : start + batch_size])
        with torch.random.fork_rng(devices=[]):
            seed_torch(mix(*batch), torch.device("cpu"))
            with reading(0, start):
                items = fetch(dataset, batch)
        yield to_device(_collate(items), torch.device("cpu"))


def _collate(items: Any) -> Batch:
    """A batch from items; what a dataset's `__getitems__` returns is one already."""
    batch: Batch = items if isinstance(items, dict) else default_collate(items)
    if not isinstance(batch, dict):
        raise DataError("the data set's items have no names; make each a dictionary, such as {'image': tensor}")
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch on the device, with pixels (uint8, 0 to 255) as floating point in [-1, 1]."""
    moved = {key: tensor.to(device, non_blocking=True) for key, tensor in batch.items()}
    return {
        key: t.to(torch.get_default_dtype()).div_(127.5).sub_(1.0) if t.dtype is torch.uint8 else t
        for key, t in moved.items()
    }
