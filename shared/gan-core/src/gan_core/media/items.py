"""Functions of all domains' media writers: names of item files, and `labels.csv`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from gan_core.errors import DataError
from gan_core.media.writing import refuse_existing, write_rows

if TYPE_CHECKING:
    from torch import Tensor

Samples: TypeAlias = "Tensor | Mapping[str, Tensor] | Iterable[Tensor]"
"""Samples to write: one tensor `[N, …]`, tensors by name, or an iterable of tensors that are written part by part."""
LABELS = "labels.csv"
"""Name of the table with the labels of the items."""
Item = TypeVar("Item")


def item_names(count: int) -> list[str]:
    """Returns names of `count` items without a suffix: `00000`, `00001`, …; they sort alphabetically."""
    return [f"{i:0{max(5, len(str(count - 1)))}d}" for i in range(count)]


def split_samples(samples: Samples) -> tuple[Mapping[str, Tensor], Iterator[Mapping[str, Tensor]]]:
    """Returns the first part of some samples, and an iterator over all parts, each with tensors `[N, …]` by name.

    A single tensor is named `generated`.
    """
    from torch import Tensor

    given = [samples] if isinstance(samples, Tensor | Mapping) else samples
    parts = (part if isinstance(part, Mapping) else {"generated": part} for part in given)
    first = next(parts)
    return first, itertools.chain([first], parts)


def check_samples(chosen: Mapping[str, Tensor], samples: Mapping[str, Tensor], *, expected: str) -> None:
    """Checks that a writer supports some of the samples, and that these have the same number of items for all names.

    Args:
        chosen: samples `[N, …]` by name that the writer supports.
        samples: all samples, for the error message.
        expected: description of the supported samples and their shapes, for the error message.

    Raises:
        DataError: the writer supports none of the samples, or they have different numbers of items.
    """
    if not chosen:
        shapes = {key: list(tensor.shape) for key, tensor in samples.items()}
        raise DataError(f"no samples to write: expected {expected}, got {shapes}")
    counts = {key: len(tensor) for key, tensor in chosen.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"the samples have different numbers of items: {counts}")


def write_each(
    parts: Iterable[Mapping[str, Iterable[Item]]],
    folder: Path,
    suffix: str,
    write: Callable[[Path, Item], Any],
    *,
    count: int,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """Writes each item to its own file: `00000.png`, …, or `00000_NAME.png`, … if an item has several parts.

    Args:
        parts: items by name, part by part; every part has the same names.
        folder: output folder, created if needed. Existing files are not overwritten.
        suffix: suffix of the files.
        write: writes an item to a path.
        count: total number of items.
        labels: texts by column, one for each item; they are written to `labels.csv` with the names of the files.

    Returns:
        The paths of the files, without `labels.csv`.

    Raises:
        InputError: one of the files already exists.
    """
    parts = iter(parts)
    first = next(parts)
    names = [
        f"{item}{suffix}" if len(first) == 1 else f"{item}_{key}{suffix}" for item in item_names(count) for key in first
    ]
    refuse_existing(folder, [*names, LABELS] if labels else names)
    paths = (folder / name for name in names)
    for part in itertools.chain([first], parts):
        for item in zip(*part.values(), strict=True):
            for one in item:
                write(next(paths), one)
    if labels:
        columns = [[text for text in column for _ in first] for column in labels.values()]
        write_rows([("file", *labels), *zip(names, *columns, strict=True)], folder / LABELS)
    return [folder / name for name in names]
