"""From a dataset to batches on a device: held-out splits, and the endless stream that a training reads.

A batch is `dict[str, Tensor]` with the field's keys (`image`, `video`, `audio`, `points`, `label`, `source` …). Pixels
travel as uint8 and are scaled to [-1, 1] on the device; masks, label maps and tokens keep their values.
"""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from gan_core.data.source import PIXELS, Batch, length, named
from gan_core.draws import mix, reading, seed_torch
from gan_core.errors import DataError, GanError

CPU = torch.device("cpu")


class Part(Dataset[Batch]):
    """Some of a dataset's items, by their indices `[N]` in it."""

    def __init__(self, dataset: Dataset[Batch], indices: Tensor):
        self.dataset, self.indices, self.pixels = dataset, indices, pixels_of(dataset)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        return self.dataset[int(self.indices[index])]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return fetch(self.dataset, self.indices[torch.as_tensor(indices)].tolist())


def pixels_of(dataset: Dataset[Batch]) -> frozenset[str]:
    """Returns the keys whose uint8 values are pixels."""
    return frozenset(getattr(dataset, "pixels", PIXELS))


def fetch(dataset: Dataset[Batch], indices: Sequence[int]) -> Any:
    """Returns many items, as a list or as the finished batch that the dataset makes of them."""
    at_once = getattr(dataset, "__getitems__", None)
    return at_once(indices) if at_once is not None else [dataset[index] for index in indices]


def shuffled(number: int, seed: int = 0) -> Tensor:
    """Returns the numbers below `number` in an order that depends on the seed alone, `[number]`."""
    return torch.randperm(number, generator=torch.Generator().manual_seed(seed))


def hold_out(dataset: Dataset[Batch], share: float) -> tuple[Dataset[Batch], Dataset[Batch] | None]:
    """Splits a dataset into the items that are trained on and those that are not; the split is always the same.

    Items of one group (the attribute `groups` of a dataset, `[N]`) stay together: whole groups are held out until their
    items are at least the share. A dataset of sets without pairs splits each of them in its method `hold_out`.

    Raises:
        DataError: nothing would be left to train on.
    """
    if not share:
        return dataset, None
    apart = getattr(dataset, "hold_out", None)
    if apart is not None:
        split: tuple[Dataset[Batch], Dataset[Batch]] = apart(share)
        return split
    items = length(dataset)
    groups = getattr(dataset, "groups", None)
    if groups is None:
        chosen = shuffled(items)[: max(1, round(share * items))]
    else:
        _, group, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
        order = shuffled(len(sizes))
        needed = int((sizes[order].cumsum(0) < share * items).sum()) + 1
        chosen = torch.isin(group, order[:needed]).nonzero()[:, 0]
    held = torch.zeros(items, dtype=torch.bool)
    held[chosen] = True
    if held.all():
        what = "items" if groups is None else f"items from {len(sizes)} files"
        raise DataError(f"`data.held_out` is {share}, which leaves none of {items} {what} to train on; make it smaller")
    return Part(dataset, (~held).nonzero()[:, 0]), Part(dataset, held.nonzero()[:, 0])


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

    def epoch(self, number: int) -> Tensor:
        """Returns the order of one epoch, `[length]`: a function of the seed and the epoch's number."""
        return shuffled(self.length, (self.seed << 20) + number)

    def __iter__(self) -> Iterator[list[int]]:
        number, start = divmod(self.position, self.length)
        order = self.epoch(number)
        while True:
            parts = [order[start : start + self.batch_size]]
            start += self.batch_size
            while start > self.length:  # the batch goes on in the next epoch
                number, start = number + 1, start - self.length
                order = self.epoch(number)
                parts.append(order[:start])
            yield torch.cat(parts)[self.rows].tolist()


class _Placed(Dataset[Any]):
    """A dataset whose items may draw random numbers that depend on their place in the stream.

    What `draws.of_items` draws is the same however many processes and workers read. Torch's own generator is seeded by
    the turn in the training's own process; in a worker, which does not know the turn or what was read before the
    training was resumed, it is seeded for every batch.

    Args:
        dataset: items.
        seed: seed of the stream.
        rank: number of the process.
        row: row of the global batch at which the process's own rows begin.
    """

    def __init__(self, dataset: Dataset[Batch], seed: int, *, rank: int = 0, row: int = 0):
        self.dataset, self.seed, self.rank, self.row = dataset, seed, rank, row

    def __getitems__(self, placed: tuple[int, list[int]]) -> Any:
        place, indices = placed
        if get_worker_info() is not None:
            seed_torch(mix(mix(self.seed, self.rank), place), CPU)
        try:
            with reading(self.seed, place + self.row):
                return collate(fetch(self.dataset, indices))
        except GanError as error:  # raised by the stream; a worker would wrap it in its own traceback
            return error


def _ignore_interrupts(worker: int) -> None:
    """Makes a worker ignore SIGINT and SIGTERM; the main process stops it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class BatchStream:
    """Fresh batches on a device, without end. Pixels are floating point in [-1, 1].

    Attributes:
        position: samples handed out so far, over all processes; the stream's state.

    Args:
        dataset: items.
        batch_size: global batch size, over all processes.
        seed: seed of the order and of what items draw.
        position: samples to start from.
        workers: processes that read; 0 reads in this one.
        rank: number of this process.
        processes: number of processes that train together.
        device: device of the batches.
    """

    def __init__(
        self, dataset: Dataset[Batch], batch_size: int, *, seed: int, position: int = 0, workers: int = 0,
        rank: int = 0, processes: int = 1, device: torch.device = CPU,
    ) -> None:  # fmt: skip
        self.position, self.batch_size, self.device, self.pixels = position, batch_size, device, pixels_of(dataset)
        indices = IndexStream(length(dataset), batch_size, seed=seed, position=position, rank=rank, processes=processes)
        places: Iterable[Any] = zip(count(position, batch_size), indices)  # both are endless
        loader = DataLoader(
            _Placed(dataset, seed, rank=rank, row=indices.rows.start), batch_sampler=places, num_workers=workers,
            pin_memory=device.type == "cuda", collate_fn=_unchanged, worker_init_fn=_ignore_interrupts,
            generator=torch.Generator().manual_seed(seed), persistent_workers=workers > 0,
        )  # fmt: skip
        self.batches = iter(loader)
        if workers:
            _with_workers.add(self)

    def __next__(self) -> Batch:
        read = next(self.batches)
        if isinstance(read, GanError):
            raise read
        self.position += self.batch_size
        return to_device(read, self.device, self.pixels)

    def stop_workers(self) -> None:
        """Ends the processes that read; no batch can be read afterwards."""
        self.batches._shutdown_workers()  # type: ignore[attr-defined]  # torch offers no public way


_with_workers: WeakSet[BatchStream] = WeakSet()


@atexit.register
def _stop_all_workers() -> None:
    """Ends all workers before `multiprocessing` waits for them; they ignore the SIGTERM that it sends."""
    for stream in list(_with_workers):
        stream.stop_workers()


def read(dataset: Dataset[Batch], indices: Sequence[int] | Tensor, batch_size: int) -> Iterator[Batch]:
    """Yields the items of some indices once, in batches on the CPU; what items draw is the same every time."""
    every = torch.as_tensor(indices)
    for start in range(0, len(every), batch_size):
        batch = every[start : start + batch_size].tolist()
        with torch.random.fork_rng(devices=[]):
            seed_torch(mix(*batch), CPU)
            with reading(0, start):
                items = fetch(dataset, batch)
        yield to_device(collate(items), CPU, pixels_of(dataset))


def collate(items: Any) -> Batch:
    """Returns the batch of some items; what a dataset's `__getitems__` returns may be one already.

    Raises:
        DataError: the items are not dictionaries of tensors and numbers, or those under a key have different shapes.
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
            raise DataError(
                f"`{key}` of the data has items of different shapes, such as {few}; bring them to one shape"
            )
    batch: Batch = default_collate(items)
    return batch


def _unchanged(batch: Any) -> Any:
    """Returns what `_Placed` has collated already."""
    return batch


def _is_numeric(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | bool | int | float | np.generic)


def to_device(batch: Mapping[str, Tensor], device: torch.device, pixels: frozenset[str] = PIXELS) -> Batch:
    """Returns a batch on the device, with pixels (uint8, 0 to 255) as floating point in [-1, 1].

    Args:
        batch: tensors by key.
        device: where to.
        pixels: keys whose uint8 values are pixels; other integers keep their values.
    """
    moved = {key: tensor.to(device, non_blocking=True) for key, tensor in batch.items()}
    return {key: _scaled(t) if key in pixels and t.dtype is torch.uint8 else t for key, t in moved.items()}


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.to(torch.get_default_dtype()).div_(127.5).sub_(1.0)
