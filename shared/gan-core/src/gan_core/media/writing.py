"""Atomic writing of files and tables."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gan_core.errors import InputError, writing


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path to write to, and renames it to `path` if no exception is raised.

    The temporary path is unique, in the same folder, and does not exist yet. If several processes write the same path,
    the last one to finish wins. Missing folders are created.

    Raises:
        InputError: the path cannot be written.
        GanError: the disk is full or broken.
    """
    partial = path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_rows(rows: Iterable[Sequence[object]], path: Path) -> None:
    """Writes a table as CSV."""
    with replacing(path) as partial, partial.open("x", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Checks that none of the names exists in the folder.

    Raises:
        InputError: one of them exists.
    """
    there = next((name for name in names if (folder / name).exists()), None)
    if there is not None:
        raise InputError(f"{folder} already contains {there}; choose another folder, or empty this one")
