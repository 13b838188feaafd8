"""Atomic writing of files, folders and tables."""

from __future__ import annotations

import csv
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gan_core.errors import InputError, writing

PARTIAL_FILE = re.compile(r"\.([0-9]{1,10})-[0-9a-f]{16}\.partial")
"""Name of a file in `replacing`; the group is the process id of its writer."""
PARTIAL_FOLDER = re.compile(r"\.(.+)\.([0-9]{1,10})(\.old)?")
"""Name of a partial folder; the groups are the name of the folder, the process id of its writer, and the end of the
name of a folder that is about to be replaced."""


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


def partial_folder(path: Path) -> Path:
    """Returns the temporary path of a folder that this process writes."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def remove_partial_files(folder: Path) -> None:
    """Removes partial files of interrupted writers from a folder, which may be missing."""
    for path in list(folder.glob(".*.partial")):
        match = PARTIAL_FILE.fullmatch(path.name)
        if match and path.is_file() and not is_written(int(match[1])):
            path.unlink(missing_ok=True)


def remove_partial_folders(folder: Path, name: str) -> None:
    """Removes partial folders of interrupted writers from a folder, which may be missing.

    Args:
        folder: the folder.
        name: pattern of the names of the folders that were being written.
    """
    for path in list(folder.glob(".*")):
        match = PARTIAL_FOLDER.fullmatch(path.name)
        if match and re.fullmatch(name, match[1]) and path.is_dir() and not is_written(int(match[2])):
            shutil.rmtree(path, ignore_errors=True)


def is_written(process: int) -> bool:
    """Returns whether the writer of a partial file may be alive: another process of this machine with that id.

    The id of this process is that of an interrupted one, for example in a container that was started again.
    """
    if process == os.getpid():
        return False
    if os.name == "nt":  # where a signal would end it, and where open files cannot be removed
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return process > 0


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
