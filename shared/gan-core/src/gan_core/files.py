"""Files as users have them: in folders and archives that are read in place, and of which nothing is trusted.

A file is read by its name inside the folder or archive, never unpacked to disk, so a name cannot lead outside. A file
that cannot be used is named, counted and skipped. What is written takes its place whole or not at all.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import logging
import lzma
import os
import secrets
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from http.client import HTTPException
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, TypeVar

from gan_core.errors import DataError, InputError, writing

MAX_UNPACKED = 2**31
"""The largest content of a compressed tar archive, in bytes."""
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
NAMED = 5
"""How many skipped files a warning names."""
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, RuntimeError,
           MemoryError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)  # fmt: skip
"""What the archive readers raise on damaged content, and decoders of files."""

_PACKED = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ": lzma.LZMAFile}

Loaded = TypeVar("Loaded")


class Unreadable(DataError):
    """One file that cannot be used; the message is the reason."""


# --- reading


class Files(Protocol):
    """The files of a folder or archive by name, relative and with slashes, in order."""

    @property
    def sizes(self) -> Mapping[str, int]: ...

    def open(self, name: str) -> IO[bytes]: ...


class FolderFiles:
    """The files below a folder; links are followed, and a folder that is reached twice is read once."""

    def __init__(self, path: Path):
        self.path = path
        sizes = {
            file.relative_to(path).as_posix(): file.stat().st_size if file.exists() else 0
            for file in _walk(path)
            if file.is_file() or not file.exists()  # a link to nothing is named when it is read
        }
        self.sizes = {name: sizes[name] for name in sorted(sizes)}

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")


class ZipFiles:
    """The files of a zip archive. Each process opens the archive for itself: a shared one would share its place."""

    def __init__(self, path: Path):
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._process: int | None = None
        self._members = {str(PurePosixPath(i.filename)): i.filename for i in self._open().infolist() if not i.is_dir()}
        self.sizes = {name: self._open().getinfo(self._members[name]).file_size for name in sorted(self._members)}

    def open(self, name: str) -> IO[bytes]:
        return self._open().open(self._members[name])

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None or self._process != os.getpid():
            self._archive, self._process = zipfile.ZipFile(self.path), os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archive": None, "_process": None}


class TarFiles:
    """The files of a tar archive by their place in it; a compressed one, which cannot be entered, is held in memory."""

    def __init__(self, path: Path):
        self.path = path
        self._content = _unpacked(path)
        with self._stream() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            members = {str(PurePosixPath(member.name)): member for member in archive if _plain(member)}
        self.sizes = {name: members[name].size for name in sorted(members)}
        self._places = {name: member.offset_data for name, member in members.items()}

    def open(self, name: str) -> IO[bytes]:
        with self._stream() as stream:
            stream.seek(self._places[name])
            return io.BytesIO(stream.read(self.sizes[name]))

    def _stream(self) -> IO[bytes]:
        return self.path.open("rb") if self._content is None else io.BytesIO(self._content)


def open_files(path: Path) -> Files:
    """The files of a folder, or of a zip or tar archive.

    Raises:
        DataError: there is nothing of that name, or it is neither.
    """
    with opening(path):
        if path.is_dir():
            return FolderFiles(path)
        return ZipFiles(path) if _start(path).startswith(b"PK") else TarFiles(path)


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Within it, what is raised on a folder or archive that cannot be read becomes one line that names it.

    Raises:
        DataError: there is nothing of that name, or it cannot be read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such folder or archive") from error
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be read as a folder, a zip or a tar archive ({reason_of(error)})") from error


def names_ending(files: Files, suffixes: tuple[str, ...]) -> tuple[list[str], int]:
    """The names that end in one of the suffixes, and how many files there are; hidden ones and `__MACOSX` do not count.

    Args:
        files: the folder or archive.
        suffixes: with their dot, in lower case.
    """
    seen = [name for name in files.sizes if not _hidden(name)]
    return [name for name in seen if name.lower().endswith(suffixes)], len(seen)


@contextmanager
def open_member(files: Files, name: str, *, most_bytes: int) -> Iterator[IO[bytes]]:
    """One file, whose name and size are checked before it is opened.

    Raises:
        Unreadable: its name leads out of the archive, or it is too large.
    """
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise Unreadable("its name leads out of the archive")
    if files.sizes[name] > most_bytes:
        raise Unreadable(f"{files.sizes[name] / 2**20:,.0f} MiB, at most {most_bytes // 2**20} are read")
    with files.open(name) as file:
        yield file


def read_member(files: Files, name: str, *, most_bytes: int) -> bytes:
    """The content of one file.

    Raises:
        Unreadable: see `open_member`, or it cannot be read: it or its archive is damaged.
    """
    try:
        with open_member(files, name, most_bytes=most_bytes) as file:
            return file.read()
    except DAMAGED as error:
        raise Unreadable(reason_of(error)) from error


# --- what the names say


def classes_of(names: Iterable[str]) -> dict[str, str] | None:
    """The class of each file: its first folder, below the folders that all files share.

    Returns:
        None if some file lies in no folder, and if all lie in one.
    """
    parts = {name: PurePosixPath(name).parts[:-1] for name in names}
    shared = next((k for k, level in enumerate(zip_longest(*parts.values())) if len(set(level)) > 1), None)
    if shared is None or any(len(folders) == shared for folders in parts.values()):
        return None
    return {name: folders[shared] for name, folders in parts.items()}


def labels_of(
    path: Path, names: Sequence[str], kept: Sequence[str], *, thing: str, logger: logging.Logger
) -> tuple[list[int] | None, list[str] | None]:
    """The class of each file that is kept, as a number, and the names of the classes; both None if there are none.

    Args:
        path: the folder or archive, for messages.
        names: of all files of the kind, readable or not.
        kept: the readable ones.
        thing: what a file is, for messages.
        logger: is told of files that lie beside the classes.

    Raises:
        DataError: the folders are the parts of a data set.
    """
    folders = classes_of(names)
    if folders is None:
        if len({name.rpartition("/")[0] for name in names}) > 1:
            logger.warning("%s: %ss lie beside its sub-folders as well as in them, so none is labelled", path, thing)
        return None, None
    classes = sorted(set(folders.values()))
    if SPLITS.issuperset(name.lower() for name in classes):
        raise DataError(f"{path}: {', '.join(classes)} are parts of a data set, not classes; give one of them")
    number = {name: k for k, name in enumerate(classes)}
    return [number[folders[name]] for name in kept], classes


# --- what cannot be read


def skip(
    known: dict[str, str], skipped: Mapping[str, str], *, where: str, thing: str, strict: bool, logger: logging.Logger
) -> None:
    """Adds what cannot be read to what is known of it, and names what is new in a warning.

    Args:
        known: reasons by name; added to.
        skipped: reasons by name.
        where: the source's name.
        thing: what a file is.
        strict: whether a file that cannot be read is an error.
        logger: is told.

    Raises:
        DataError: something cannot be read, and `strict`.
    """
    new = {name: reason for name, reason in skipped.items() if name not in known}
    if not new:
        return
    first = [f"{printable(name)} ({reason})" for name, reason in list(new.items())[:NAMED]]
    if strict:
        raise DataError(f"{where}: cannot read {first[0]}; mend or remove it, or leave out `strict` to skip it")
    known.update(new)
    more = f", and {len(new) - NAMED} more" if len(new) > NAMED else ""
    logger.warning("%s: skipped %s: %s%s", where, count(len(new), f"unreadable {thing}"), ", ".join(first), more)


def nothing_readable(
    where: str, seen: int, skipped: Mapping[str, str], *, thing: str, suffixes: Sequence[str]
) -> DataError:
    """The error for a folder or archive of which nothing is usable: what was looked for, and why the first is not."""
    first = next(iter(skipped.items()), None)
    why = f"; {printable(first[0])}: {first[1]}" if first else ""
    looked = f"looked for {', '.join(suffixes)}"
    return DataError(f"{where}: no readable {thing}s among {count(seen, 'file')} ({looked}){why}")


def reason_of(error: BaseException) -> str:
    """What went wrong as part of one line, and in characters that a terminal may be sent."""
    return printable((" ".join(str(error).split()) or type(error).__name__)[:200])


def printable(text: str) -> str:
    """A text in characters that a terminal may be sent."""
    return text if text.isprintable() else ascii(text)


def count(number: int, thing: str) -> str:
    """A number of things: `1 file`, `2 files`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


# --- downloads


def data_home() -> Path:
    """Where downloads are kept: the environment variable `GAN_DATA_HOME`, else `~/.cache/gan-data`."""
    return Path(os.environ.get("GAN_DATA_HOME") or "~/.cache/gan-data").expanduser()


def download(name: str, fetch: Callable[[], Loaded], *, files: str, folder: Path) -> Loaded:
    """What a library's own downloader gives; what it prints goes to stderr, as stdout is for results.

    Args:
        name: of the data set.
        fetch: the downloader; it looks for the files before it downloads anything.
        files: what it looks for.
        folder: where.

    Raises:
        DataError: it fails; the message says which files to put where by hand.
    """
    try:
        with redirect_stdout(sys.stderr):
            return fetch()
    except (OSError, RuntimeError, ImportError, HTTPException, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} cannot be downloaded; put {files} into {folder} by hand ({reason[:200]})") from error


# --- writing


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Within it, a file is written under the name that it is given; then it takes its place, whole or not at all.

    The name is of this writer alone, and nothing is there: of several writers of one path the last to end has it.

    Raises:
        InputError: nothing can be written there.
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
    """A table as CSV."""
    with replacing(path) as partial, partial.open("x", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Checks that no file of these names would be replaced.

    Raises:
        InputError: one is there.
    """
    there = next((name for name in names if (folder / name).exists()), None)
    if there is not None:
        raise InputError(f"{folder} already holds {there}; choose another folder, or empty this one")


def _walk(path: Path) -> Iterator[Path]:
    known: set[str] = set()
    for folder, below, names in os.walk(path, followlinks=True, onerror=_stop):
        if (real := os.path.realpath(folder)) in known:
            below.clear()
            continue
        known.add(real)
        below[:] = sorted(name for name in below if not _hidden(name))
        yield from (Path(folder, name) for name in names)


def _stop(error: OSError) -> None:
    raise error


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(6)


def _unpacked(path: Path) -> bytes | None:
    """The content of a compressed file, or None if it is not compressed."""
    for magic, unpack in _PACKED.items():
        if _start(path).startswith(magic):
            with unpack(path) as stream:
                content: bytes = stream.read(MAX_UNPACKED + 1)
            if len(content) > MAX_UNPACKED:
                raise ValueError(f"it unpacks to more than {MAX_UNPACKED // 2**20:,} MiB; use zip, or tar uncompressed")
            return content
    return None


def _plain(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file: no link, no device, no holes, and of a possible size."""
    return member.isreg() and not member.issparse() and member.size >= 0


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") and part != ".." for part in parts)
