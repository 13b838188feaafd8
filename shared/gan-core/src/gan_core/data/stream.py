"""Held-out splits of datasets, and the endless stream of batches on a device that the trainer reads.

A batch is `dict[str, Tensor]` with keys such as `image`, `video`, `audio`, `points`, `label` and `source`. Pixels are
transferred as uint8 and scaled to [-1, 1] on the device; masks, label maps and tokens keep their values.
"""

from __future__ import annotations

import atexit
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from multiprocessing import connection
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from gan_core.data.dataset import PIXELS, Batch, collate, fetch, length, pixels_of
from gan_core.draws import mix, reading, seed_torch
from gan_core.errors import DataError, GanError

CPU = torch.device("cpu")

logger = logging.getLogger("gan_core")


class Part(Dataset[Batch]):
    """A subset of a dataset, given by indices `[N]`. It has the dataset's `pixels` and fetches whole batches."""

    def __init__(self, dataset: Dataset[Batch], indices: Tensor):
        self.dataset, self.indices, self.pixels = dataset, indices, pixels_of(dataset)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        return self.dataset[int(self.indices[index])]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return fetch(self.dataset, self.indices[torch.as_tensor(indices, dtype=torch.int64)].tolist())


def shuffled(number: int, seed: int = 0) -> Tensor:
    """Returns a permutation of 0 … `number - 1` that depends only on the seed, `[number]`."""
    return torch.randperm(number, generator=torch.Generator().manual_seed(seed))


def hold_out(dataset: Dataset[Batch], share: float) -> tuple[Dataset[Batch], Dataset[Batch] | None]:
    """Splits a dataset into training items and held-out items. The split is random but always the same.

    If the dataset has an attribute `groups` `[N]`, items of one group are kept together: whole groups are held out
    until they contain at least the given share of the items. A dataset of unpaired sets splits each set in its method
    `hold_out`.

    Args:
        dataset: the items.
        share: fraction of the items to hold out, in [0, 1).

    Returns:
        The training items and the held-out items; None instead of the latter if `share` is 0.

    Raises:
        DataError: no training items would be left.
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
    """Endless stream of batches of indices, in a new seeded order for each epoch. Batches may span epochs.

    The stream can start at any position. Each process reads its own rows of the global batch, so the global batches do
    not depend on the number of processes.

    Attributes:
        varies: whether batch sizes vary, as they can in subclasses. The position then counts batches instead of
            samples.
    """

    varies = False

    def __init__(
        self, length: int, batch_size: int, *, seed: int, position: int = 0, rank: int = 0, processes: int = 1
    ):
        self.length, self.batch_size, self.seed, self.position = length, batch_size, seed, position
        share = batch_size // processes
        self.rows = slice(rank * share, (rank + 1) * share)

    def epoch(self, number: int) -> Tensor:
        """Returns the order of an epoch, `[length]`, which depends only on the seed and the epoch's number."""
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
    """A dataset whose items may draw random numbers that depend on their position in the stream.

    The numbers of `draws.of_items` do not depend on the number of processes and workers. Workers seed torch's own
    generator for every batch; in the main process, the trainer seeds it for every turn.

    Args:
        dataset: the items.
        seed: seed of the stream.
        rank: rank of the process.
        row: index of the process's first row in the global batch.
    """

    def __init__(self, dataset: Dataset[Batch], seed: int, *, rank: int = 0, row: int = 0):
        self.dataset, self.seed, self.rank, self.row = dataset, seed, rank, row

    def __getitems__(self, placed: tuple[int, list[int]]) -> Any:
        place, indices = placed
        if get_worker_info() is not None:
            self._seed(place)
        try:
            with reading(self.seed, place + self.row):
                if not indices:  # an empty batch with the shape of an item
                    return {key: value[:0] for key, value in collate(fetch(self.dataset, [0])).items()}
                return collate(fetch(self.dataset, indices))
        except GanError as error:  # raised by the stream; a worker would wrap it in its own traceback
            return error

    def for_worker(self, placed: tuple[int, list[int]]) -> Any:
        """Returns a batch as a worker would, in the main process."""
        with torch.random.fork_rng(devices=[]):
            self._seed(placed[0])
            return self.__getitems__(placed)

    def _seed(self, place: int) -> None:
        seed_torch(mix(mix(self.seed, self.rank), place), CPU)


def _ignore_interrupts(worker: int) -> None:
    """Makes a worker ignore SIGINT and SIGTERM, so that only the main process stops it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _without_child_signals() -> Iterator[None]:
    """Context manager that keeps the handler of SIGCHLD. Torch's would raise an error in the middle of a step."""
    number = getattr(signal, "SIGCHLD", None)  # Windows has none
    before = signal.getsignal(number) if number else None
    try:
        yield
    finally:
        if number and signal.getsignal(number) is not before:
            signal.signal(number, signal.SIG_DFL if before is None else before)


class BatchStream:
    """An endless iterator over batches on a device, with pixels as floating point in [-1, 1].

    If a worker process is killed, the stream goes on in the main process, with the same batches, so that
    the trainer can complete its step.

    Attributes:
        position: number of samples returned so far, over all processes, or of batches if their sizes vary; the only
            state needed to resume.
        lost: whether a worker process was killed.

    Args:
        dataset: the items.
        batch_size: global batch size, over all processes.
        seed: seed of the order and of the items' random numbers.
        position: position at which to start.
        workers: number of worker processes that read items; 0 reads in the main process.
        rank: rank of this process.
        processes: number of training processes.
        device: device of the batches.
        order: returns the stream of indices.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        batch_size: int,
        *,
        seed: int,
        position: int = 0,
        workers: int = 0,
        rank: int = 0,
        processes: int = 1,
        device: torch.device = CPU,
        order: Callable[..., IndexStream] = IndexStream,
    ) -> None:
        self.position, self.batch_size, self.device, self.pixels = position, batch_size, device, pixels_of(dataset)
        self.lost = False
        items, pin = length(dataset), device.type == "cuda"
        make_order = partial(order, items, batch_size, seed=seed, rank=rank, processes=processes)
        indices = make_order(position=position)
        self.advance = 1 if indices.varies else batch_size
        placed = _Placed(dataset, seed, rank=rank, row=indices.rows.start)

        def places(indices: IndexStream) -> Iterator[tuple[int, list[int]]]:
            # Index of an item in the stream, which seeds its draws. A batch of varying size has at most all items.
            start, step = (indices.position * items, items) if indices.varies else (indices.position, batch_size)
            return zip(count(start, step), indices, strict=False)  # both are endless

        def alone(position: int) -> Iterator[Any]:  # without a DataLoader, which costs more than a small batch
            get = placed.for_worker if workers else placed.__getitems__
            return (_pinned(batch) if pin else batch for batch in map(get, places(make_order(position=position))))

        self._alone = alone  # must not refer to the stream: workers end with its last reference
        self.batches: Iterator[Any] = alone(position)
        self._loader: Any = None
        if workers:
            loader = DataLoader(
                placed,
                batch_sampler=places(indices),  # type: ignore[arg-type]
                num_workers=workers,
                pin_memory=pin,
                collate_fn=_unchanged,
                worker_init_fn=_ignore_interrupts,
                generator=torch.Generator().manual_seed(seed),
                persistent_workers=True,
            )
            with _without_child_signals():
                self.batches = self._loader = iter(loader)
            _with_workers.add(self)

    def __next__(self) -> Batch:
        try:
            read = next(self.batches)
        except Exception as error:
            if not self._has_lost_worker():
                raise
            logger.debug("a data worker has ended: %s", error)
            self.lost = True
            self.stop_workers()
            self.batches = self._alone(self.position)
            read = next(self.batches)
        if isinstance(read, GanError):
            raise read
        self.position += self.advance
        return to_device(read, self.device, self.pixels)

    def _has_lost_worker(self) -> bool:
        """Returns whether a worker process has ended. It may end a moment after its connection."""
        if self._loader is None or self.lost:
            return False
        return bool(connection.wait([worker.sentinel for worker in self._loader._workers], timeout=1.0))

    def stop_workers(self) -> None:
        """Stops the worker processes. No batch can be read from them afterwards."""
        self._loader._shutdown_workers()  # torch offers no public way
        for worker in self._loader._workers:
            worker.kill()  # one that waits for a lock of a killed one


_with_workers: WeakSet[BatchStream] = WeakSet()


@atexit.register
def _stop_all_workers() -> None:
    """Stops all workers before `multiprocessing` waits for them, because they ignore the SIGTERM that it sends."""
    for stream in list(_with_workers):
        stream.stop_workers()


def read(dataset: Dataset[Batch], indices: Sequence[int] | Tensor, batch_size: int) -> Iterator[Batch]:
    """Yields the items with the given indices in batches on the CPU, with the same random numbers in every call."""
    every = torch.as_tensor(indices)
    for start in range(0, len(every), batch_size):
        batch = every[start : start + batch_size].tolist()
        with torch.random.fork_rng(devices=[]):
            seed_torch(mix(*batch), CPU)
            with reading(0, start):
                items = fetch(dataset, batch)
        yield to_device(collate(items), CPU, pixels_of(dataset))


def some(dataset: Dataset[Batch], most: int, device: torch.device = CPU) -> Batch:
    """Returns up to `most` items of a dataset as one batch: always the same items, in the order of a fixed shuffle."""
    batches = list(read(dataset, shuffled(length(dataset))[:most], 1024))
    return {key: torch.cat([batch[key] for batch in batches]).to(device) for key in batches[0]}


def _unchanged(batch: Any) -> Any:
    """Returns a batch unchanged, because `_Placed` has already collated it."""
    return batch


def _pinned(batch: Any) -> Any:
    """Returns a batch in page-locked memory, for asynchronous copies to a GPU."""
    return {key: value.pin_memory() for key, value in batch.items()} if isinstance(batch, dict) else batch


def to_device(batch: Mapping[str, Tensor], device: torch.device, pixels: frozenset[str] = PIXELS) -> Batch:
    """Moves a batch to a device and converts pixels from uint8 (0 to 255) to floating point in [-1, 1].

    Args:
        batch: tensors by key.
        device: the target device.
        pixels: keys whose uint8 values are pixels; other integers keep their values.
    """
    moved = {key: tensor.to(device, non_blocking=True) for key, tensor in batch.items()}
    return {key: _scaled(t) if key in pixels and t.dtype is torch.uint8 else t for key, t in moved.items()}


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.to(torch.get_default_dtype()).div_(127.5).sub_(1.0)
