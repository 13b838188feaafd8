"""Files as users have them: in folders and archives, local or remote, which are read in place and are untrusted.

A file is read by its name inside the folder or archive and never unpacked to disk, so a name cannot lead outside. A
file that cannot be used is named, counted and skipped. A written file takes its place whole or not at all.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import logging
import lzma
import os
import re
import secrets
import shlex
import struct
import sys
import tarfile
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Protocol, TypeVar

from gan_core.errors import DataError, InputError, unknown, writing

MAX_FILES = 2**25
"""Maximum number of files in a folder or archive."""
MAX_UNPACKED = 2**31
"""Maximum size of the content of a compressed tar archive, in bytes."""
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Folder names, in lower case, that are parts of a dataset and not classes."""
SOURCES = ("masks", "mask", "labels", "label", "annotations", "annotation", "sources", "source", "inputs", "input",
           "A", "traina", "vala", "testa")  # fmt: skip
TARGETS = ("images", "image", "imgs", "img", "targets", "target", "outputs", "output",
           "B", "trainb", "valb", "testb")  # fmt: skip
"""Folder names that hold one part of every item: the usual source and target of a pair. All but `A` and `B`, which
could be classes if they were `a` and `b`, are in lower case and match any case."""
NAMED = 5
"""Maximum number of skipped files that a warning names."""
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, RuntimeError,
           MemoryError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)  # fmt: skip
"""Exceptions that archive readers and decoders raise on damaged content."""

_UNPACK: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
_READ_AHEAD = 2**23  # bytes of a compressed archive fetched at once

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class Unreadable(DataError):
    """One file that cannot be used; the message is the reason."""


# --- reading


class Files(Protocol):
    """The files of a folder or archive by name, relative and with slashes, in order."""

    @property
    def sizes(self) -> Mapping[str, int]: ...

    def open(self, name: str) -> IO[bytes]: ...


class Place(Protocol):
    """One file that can be opened as often as needed: a `pathlib.Path` or a `gan_core.remote.RemoteFile`."""

    def open(self, mode: Literal["rb"], buffering: int = -1, /) -> IO[bytes]: ...


class Sizes(Mapping[str, int]):
    """Sizes of files in bytes, looked up one at a time.

    Args:
        names: of all files, sorted.
        size_of: returns the size of one.
    """

    def __init__(self, names: Sequence[str], size_of: Callable[[str], int]):
        self._names, self._size_of = names, size_of

    def __getitem__(self, name: str) -> int:
        return self._size_of(name)

    def __contains__(self, name: object) -> bool:
        place = bisect_left(self._names, str(name))
        return place < len(self) and self._names[place] == name

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class FolderFiles:
    """The files below a folder. Links are followed; a folder that is reached twice is listed once."""

    def __init__(self, path: Path):
        self.path = path
        self._names = sorted(bounded(_walk(path)))

    @property
    def sizes(self) -> Mapping[str, int]:
        return Sizes(self._names, self._size)

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")

    def _size(self, name: str) -> int:
        try:
            return os.stat(self.path / name).st_size
        except OSError:  # a link to nothing, or to itself; opening it says so
            return 0


class ZipFiles:
    """The files of a zip archive. Every process opens the archive again, as an open file has one position."""

    def __init__(self, path: Place):
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._process: int | None = None
        members = {_normal(info.filename): info for info in bounded(self._open().infolist()) if not info.is_dir()}
        self._renamed = {name: info.filename for name, info in members.items() if name != info.filename}
        self.sizes = {name: members[name].file_size for name in sorted(members)}

    def open(self, name: str) -> IO[bytes]:
        return self._open().open(self._renamed.get(name, name))

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None or self._process != os.getpid():
            file = self.path if isinstance(self.path, Path) else self.path.open("rb")
            self._archive, self._process = zipfile.ZipFile(file), os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archive": None, "_process": None}


class TarFiles:
    """The files of a tar archive by their offset. A compressed one has no random access and is held in memory."""

    def __init__(self, path: Place):
        self.path = path
        self._content = _unpacked(path)
        with self._stream() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            members = {_normal(member.name): (member.offset_data, member.size) for member in bounded(_members(archive))}
        self._offsets = {name: offset for name, (offset, _) in members.items()}
        self.sizes = {name: members[name][1] for name in sorted(members)}

    def open(self, name: str) -> IO[bytes]:
        with self._stream() as stream:
            stream.seek(self._offsets[name])
            return io.BytesIO(stream.read(self.sizes[name]))

    def _stream(self) -> IO[bytes]:
        return self.path.open("rb") if self._content is None else io.BytesIO(self._content)


class SubFolder:
    """The files of one folder inside an archive or a remote folder, by their names below it."""

    def __init__(self, files: Files, folder: str):
        self.files, self.folder = files, folder
        start = f"{folder}/"
        self._names = [name.removeprefix(start) for name in files.sizes if name.startswith(start)]

    @property
    def sizes(self) -> Mapping[str, int]:
        return Sizes(self._names, lambda name: self.files.sizes[f"{self.folder}/{name}"])

    def open(self, name: str) -> IO[bytes]:
        return self.files.open(f"{self.folder}/{name}")


def is_url(text: object) -> bool:
    """Whether a text is a URL and not a local path (`Path("s3://a")` is `s3:/a`, so a URL stays a `str`)."""
    return isinstance(text, str) and "://" in text


def open_files(place: str | Path) -> Files:
    """Opens a folder, or a zip or tar archive.

    Args:
        place: a local path, or a URL that `gan_core.remote` reads: `memory://folder`, `s3://bucket/set.zip`,
            `hf://datasets/owner/name/folder`, `https://host/set.zip`.

    Raises:
        DataError: it does not exist or cannot be read, or the protocol is not supported.
        MissingDependency: the library that reads this protocol is not installed.
    """
    with opening(place):
        if is_url(place):
            from gan_core import remote

            there = remote.locate(str(place))
            if isinstance(there, remote.RemoteFiles):
                return there
            archive: Place = there
        elif (path := Path(place)).is_dir():
            return FolderFiles(path)
        else:
            archive = path
        return ZipFiles(archive) if _start(archive).startswith(b"PK") else TarFiles(archive)


@contextmanager
def opening(place: str | Path) -> Iterator[None]:
    """Turns the errors of a folder or archive that cannot be read into one line that names it.

    Raises:
        DataError: it does not exist or cannot be read.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        why = f" ({reason_of(error.__cause__)})" if is_url(place) and error.__cause__ else ""
        raise DataError(f"{place}: there is no such folder or archive{why}") from error
    except DAMAGED as error:
        raise DataError(f"{place}: cannot be read as a folder, a zip or a tar archive ({reason_of(error)})") from error


def bounded(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the files of a listing, and stops one that is too long.

    Raises:
        ValueError: there are more than `MAX_FILES`.
    """
    for number, item in enumerate(items):
        if number >= MAX_FILES:
            raise ValueError(f"it holds more than {MAX_FILES:,} files; split it")
        yield item


def names_ending(files: Files, suffixes: tuple[str, ...]) -> tuple[list[str], int]:
    """Returns the names that end in one of the suffixes, and the number of all files.

    Hidden files and `__MACOSX` do not count.

    Args:
        files: the folder or archive.
        suffixes: with their dot, in lower case.
    """
    seen = [name for name in files.sizes if not _hidden(name)]
    return [name for name in seen if name.lower().endswith(suffixes)], len(seen)


@contextmanager
def open_member(files: Files, name: str, *, most_bytes: int) -> Iterator[IO[bytes]]:
    """Opens one file after its name and size have been checked.

    Raises:
        Unreadable: its name leads out of the archive, or it is too large.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise Unreadable("its name leads out of the archive")
    if (size := files.sizes[name]) > most_bytes:
        raise Unreadable(f"{size / 2**20:,.0f} MiB, at most {most_bytes // 2**20} are read")
    with files.open(name) as file:
        yield file


def read_member(files: Files, name: str, *, most_bytes: int) -> bytes:
    """Returns the content of one file.

    Raises:
        Unreadable: see `open_member`; or it or its archive is damaged, or the connection broke.
    """
    try:
        with open_member(files, name, most_bytes=most_bytes) as file:
            return file.read()
    except DAMAGED as error:
        raise Unreadable(reason_of(error)) from error


# --- what the names mean


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorts names as people count: 1, 2, 10; `class2` before `Class10`."""
    return sorted(names, key=_natural)


def classes_of(names: Iterable[str]) -> dict[str, str] | None:
    """Returns the class of each folder (with a slash at its end): its first part below the folders that all share.

    Returns:
        None if a file lies beside the classes, and if all files lie in one folder.
    """
    folders = {_folder(name) for name in names}
    shared = _shared(folders)
    if len(folders) < 2 or shared in folders:
        return None
    return {folder: folder[len(shared) :].partition("/")[0] for folder in folders}


def labels_of(
    place: str | Path, names: Sequence[str], kept: Sequence[str], *, thing: str, logger: logging.Logger
) -> tuple[list[int] | None, list[str] | None]:
    """Returns the class of each kept file as a number, and the names of the classes in natural order.

    Args:
        place: the folder or archive, for messages.
        names: of all files of the kind, readable or not.
        kept: the readable ones.
        thing: what a file is, for messages.
        logger: warns of files that lie beside the classes.

    Returns:
        None twice if there are no classes.

    Raises:
        DataError: the folders are parts of a dataset or of each item, not classes.
    """
    of_folder = classes_of(names)
    if of_folder is None:
        if len({_folder(name) for name in names}) > 1:
            logger.warning("%s: %ss lie beside its sub-folders as well as in them, so none is labelled", place, thing)
        return None, None
    classes = natural_order(set(of_folder.values()))
    _refuse_parts(place, classes)
    number = {name: k for k, name in enumerate(classes)}
    return [number[of_folder[_folder(name)]] for name in kept], [printable(name) for name in classes]


def split_part(text: str) -> tuple[str, str | None]:
    """Splits `PATH:part` (or `URL:part`, `NAME:part`) into the place and the part; None if no part is named."""
    if not is_url(text) and Path(text).exists():
        return text, None
    host = re.match(r"https?://[^/]*", text)  # a port is no part
    colon = text.rfind(":", host.end() if host else text.find("://") + 3 if is_url(text) else 2)  # nor is a drive
    return (text, None) if colon < 0 or colon == len(text) - 1 else (text[:colon], text[colon + 1 :])


def parts_of(files: Files) -> dict[str, str]:
    """Returns the sub-folders that can be opened as parts: their folder by name, in natural order.

    They are the first folders below those that all files share, as archives often wrap everything in one folder.
    """
    folders = {_folder(name) for name in files.sizes if not _hidden(name)} - {""}
    shared = _shared(folders) if len(folders) > 1 else ""
    found = {rest.partition("/")[0] for folder in folders if (rest := folder[len(shared) :])}
    return {name: shared + name for name in natural_order(found)}


def sub_folder(files: Files, part: str, place: str | Path) -> Files:
    """Opens a sub-folder of a folder or archive: `train`, `masks`, `photos/train`.

    Args:
        files: the folder or archive.
        part: a name among `parts_of(files)`, or a path from the top.
        place: name of the folder or archive, for messages.

    Raises:
        DataError: there is no such sub-folder.
    """
    parts = parts_of(files)
    folder = parts.get(part, part.strip("/"))
    if not folder or not any(name.startswith(f"{folder}/") for name in files.sizes):
        raise DataError(f"{place}: {unknown('part', part, parts)}")
    return FolderFiles(files.path / folder) if isinstance(files, FolderFiles) else SubFolder(files, folder)


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
    looked = f" (looked for {', '.join(suffixes)})" if suffixes else ""
    return DataError(f"{where}: no readable {thing}s among {count(seen, 'file' if suffixes else thing)}{looked}{why}")


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


def _walk(root: Path) -> Iterator[str]:
    """Yields the files below a folder: relative, with slashes. Hidden folders and what is no file are left out."""
    known: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        start = pending.pop()
        status = os.stat(root / start)
        if (status.st_dev, status.st_ino) in known:
            continue
        known.add((status.st_dev, status.st_ino))
        below = []
        with os.scandir(root / start) as entries:
            for entry in entries:
                is_folder, is_file = _kind(entry)
                if is_file:
                    yield start + entry.name
                elif is_folder and not _hidden(entry.name):
                    below.append(f"{start}{entry.name}/")
        pending += sorted(below, reverse=True)


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether an entry is a folder, and whether it is a file; a link to nothing counts as a file and is named later."""
    if not entry.is_symlink():
        return entry.is_dir(), entry.is_file()
    return os.path.isdir(entry.path), os.path.isfile(entry.path) or not os.path.exists(entry.path)


def _start(place: Place) -> bytes:
    with place.open("rb") as file:
        return file.read(6)


def _unpacked(place: Place) -> bytes | None:
    """The content of a compressed file, or None if it is not compressed."""
    start = _start(place)
    unpack = next((unpack for magic, unpack in _UNPACK.items() if start.startswith(magic)), None)
    if unpack is None:
        return None
    with place.open("rb", _READ_AHEAD) as packed, unpack(packed) as stream:
        content: bytes = stream.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED // 2**20:,} MiB; use zip, or tar uncompressed")
    return content


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the plain files of a tar archive: no links or devices, none with holes or an impossible size."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # it would keep a kilobyte for each
        if member.isreg() and not member.issparse() and member.size >= 0:
            yield member


def _normal(name: str) -> str:
    """A member's name without `.` and empty parts; the path of a file is mostly in this form already."""
    odd = "//" in name or "/./" in name or name.startswith("./") or name.endswith(("/", "/."))
    return str(PurePosixPath(name)) if odd else name


def _hidden(name: str) -> bool:
    if not name.startswith(".") and "/." not in name and "__MACOSX" not in name:
        return False
    parts = name.split("/")
    return "__MACOSX" in parts or any(part.startswith(".") and part != ".." for part in parts)


def _folder(name: str) -> str:
    """The folder of a file, with a slash at its end; empty for a file at the top."""
    return name[: name.rfind("/") + 1]


def _shared(folders: Collection[str]) -> str:
    """The folder that all folders (with a slash at their end) lie in."""
    first, last = min(folders, default=""), max(folders, default="")  # what these two share, all between them share
    same = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return _folder(first[:same])


def _natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """The sorting key of `natural_order`: text and numbers in turn, then the name itself."""
    pieces = re.split("([0-9]+)", name.casefold())
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    key: list[str | tuple[int, str]] = [*pieces]
    key[1::2] = [(len(digits), digits) for digits in numbers]  # as numbers compare, of any length
    return key, name


def _refuse_parts(place: str | Path, folders: Sequence[str]) -> None:
    """Checks that folders are classes.

    Raises:
        DataError: they are parts of a dataset or of each item.
    """
    listed = ", ".join(map(printable, folders))
    if SPLITS.issuperset(name.lower() for name in folders):
        first = next((name for name in folders if name.lower().startswith("train")), folders[0])
        raise DataError(
            f"{place}: {listed} are parts of a dataset, not classes; give one of them, such as {place}:{first}"
        )
    known = {name if len(name) == 1 else name.lower(): name for name in folders}
    if known.keys() <= {*SOURCES, *TARGETS}:
        source, *others = (known[name] for name in (*SOURCES, *TARGETS) if name in known)
        target = next((known[name] for name in TARGETS if known.get(name) in others), others[0])
        start = f"{place}/" if Path(place, source).is_dir() else f"{place}:"
        one = shlex.quote(start + source)
        advice = f"--data source={one} --data target={shlex.quote(start + target)}, or one of them alone, --data {one}"
        raise DataError(f"{place}: {listed} are parts of each item, not classes; give them as {advice}")
