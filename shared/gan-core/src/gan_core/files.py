"""Reading of untrusted folders and archives, local or remote, and atomic writing of files.

Files are read in place by their names in the folder or archive and never unpacked to disk, so that a name cannot refer
to anything outside of it. Unreadable files are skipped with a warning. A file is written under a temporary name and
then renamed, so that it is never seen incomplete.
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
"""Maximum size of the content of a compressed tar archive, and of a single remote read, in bytes."""
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Folder names, in lower case, that name splits of a dataset and not classes."""
SOURCES = ("masks", "mask", "labels", "label", "annotations", "annotation", "sources", "source", "inputs", "input",
           "A", "traina", "vala", "testa")  # fmt: skip
TARGETS = ("images", "image", "imgs", "img", "targets", "target", "outputs", "output",
           "B", "trainb", "valb", "testb")  # fmt: skip
"""Folder names that usually hold the sources and the targets of pairs, and not classes. They match in any case, except
`A` and `B`, since folders `a` and `b` may be classes."""
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
    """A file that cannot be read; the message is the reason."""


# --- reading


class Files(Protocol):
    """The files of a folder or archive by their relative names, with slashes as separators, in sorted order."""

    @property
    def sizes(self) -> Mapping[str, int]: ...

    def open(self, name: str) -> IO[bytes]: ...


class Place(Protocol):
    """A file that can be opened repeatedly: a `pathlib.Path` or a `gan_core.remote.RemoteFile`."""

    def open(self, mode: Literal["rb"], buffering: int = -1, /) -> IO[bytes]: ...


class Sizes(Mapping[str, int]):
    """A mapping of file names to sizes in bytes, which are looked up on access.

    Args:
        names: names of all files, sorted.
        size_of: returns the size of a file.
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
    """The files below a folder. Symbolic links are followed; a folder that is reached twice is listed once."""

    def __init__(self, path: Path):
        self.path = path
        self._names = sorted(bounded(_walk(path)))

    @property
    def sizes(self) -> Mapping[str, int]:
        return Sizes(self._names, lambda name: _size_of(self.path / name))

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")


class LoneFile:
    """A single file.

    Args:
        file: path or content.

    Attributes:
        name: name of the file.
    """

    def __init__(self, file: Path | bytes):
        self.file, self.name = file, file.name if isinstance(file, Path) else "content"

    @property
    def sizes(self) -> Mapping[str, int]:
        return {self.name: _size_of(self.file) if isinstance(self.file, Path) else len(self.file)}

    def open(self, name: str) -> IO[bytes]:
        return self.file.open("rb") if isinstance(self.file, Path) else io.BytesIO(self.file)


class ZipFiles:
    """The files of a zip archive. Each process opens the archive anew, since processes would share a file position."""

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
    """The files of a tar archive. A compressed archive has no random access, so its content is held in memory."""

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
    """The files of one sub-folder of an archive or a remote folder, by their names relative to the sub-folder."""

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
    """Returns whether a text is a URL. A URL must stay a `str`, because `Path("s3://a")` is `s3:/a`."""
    return isinstance(text, str) and "://" in text


def open_files(place: str | Path) -> Files:
    """Opens a folder, or a zip or tar archive.

    Args:
        place: a local path, or a URL that `gan_core.remote` reads: `memory://folder`, `s3://bucket/set.zip`,
            `hf://datasets/owner/name/folder`, `https://host/set.zip`.

    Raises:
        DataError: there is no such folder or archive, or it cannot be read, or the protocol is not supported.
        MissingDependency: the library for the protocol is not installed.
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
    """Converts exceptions raised within the context to a `DataError` that names the folder or archive.

    Raises:
        DataError: the folder or archive does not exist or cannot be read.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        why = f" ({reason_of(error.__cause__)})" if is_url(place) and error.__cause__ else ""
        raise DataError(f"{place}: there is no such folder or archive{why}") from error
    except DAMAGED as error:
        raise DataError(f"{place}: cannot be read as a folder, zip or tar archive ({reason_of(error)})") from error


def bounded(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the files of a listing, up to a maximum number.

    Raises:
        ValueError: there are more than `MAX_FILES`.
    """
    for number, item in enumerate(items):
        if number >= MAX_FILES:
            raise ValueError(f"it holds more than {MAX_FILES:,} files; split it")
        yield item


def names_ending(files: Files, suffixes: tuple[str, ...]) -> tuple[list[str], int]:
    """Returns the names that end in one of the suffixes, and the number of all files.

    Hidden files and those in `__MACOSX` are ignored.

    Args:
        files: the folder or archive.
        suffixes: suffixes with their dot, in lower case; they match in any case.
    """
    seen = [name for name in files.sizes if not _hidden(name)]
    return [name for name in seen if name.lower().endswith(suffixes)], len(seen)


@contextmanager
def open_member(files: Files, name: str, *, most_bytes: int) -> Iterator[IO[bytes]]:
    """Opens a file after checking its name and size.

    Args:
        files: the folder or archive.
        name: name of the file in it.
        most_bytes: maximum size of the file, in bytes.

    Raises:
        Unreadable: the name leads out of the archive, or the file is too large.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise Unreadable("its name leads out of the archive")
    if (size := files.sizes[name]) > most_bytes:
        raise Unreadable(f"{size / 2**20:,.0f} MiB, more than the maximum of {most_bytes // 2**20}")
    with files.open(name) as file:
        yield file


def read_member(files: Files, name: str, *, most_bytes: int) -> bytes:
    """Returns the content of a file; for the arguments see `open_member`.

    Raises:
        Unreadable: see `open_member`; or the file or its archive is damaged, or the connection was lost.
    """
    try:
        with open_member(files, name, most_bytes=most_bytes) as file:
            return file.read()
    except DAMAGED as error:
        raise Unreadable(reason_of(error)) from error


# --- classes and parts, from names


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorts names in natural order: `2` before `10`, `class2` before `Class10`."""
    return sorted(names, key=_natural)


def classes_of(names: Iterable[str]) -> dict[str, str] | None:
    """Returns the class of each folder: its first component below the folders that all files share.

    Args:
        names: names of files.

    Returns:
        The class by folder (with a trailing slash); None if all files are in one folder, or if some are in the folder
        that contains the classes.
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
        names: names of all files of the kind, readable or not.
        kept: names of the readable files.
        thing: name of a file in messages, in the singular.
        logger: receives a warning if some files are in the folder that contains the classes.

    Returns:
        The class indices and the names of the classes; None for both if there are no classes.

    Raises:
        DataError: the sub-folders are splits of a dataset or parts of items, not classes.
    """
    of_folder = classes_of(names)
    if of_folder is None:
        if len({_folder(name) for name in names}) > 1:
            logger.warning("%s: %ss lie both beside and in sub-folders; labels are ignored", place, thing)
        return None, None
    classes = natural_order(set(of_folder.values()))
    _refuse_parts(place, classes)
    number = {name: k for k, name in enumerate(classes)}
    return [number[of_folder[_folder(name)]] for name in kept], [printable(name) for name in classes]


def split_part(text: str) -> tuple[str, str | None]:
    """Splits `PATH:part`, `URL:part` or `NAME:part` into the place and the part; the part is None if there is none."""
    if not is_url(text) and Path(text).exists():
        return text, None
    host = re.match(r"https?://[^/]*", text)  # a port is no part
    colon = text.rfind(":", host.end() if host else text.find("://") + 3 if is_url(text) else 2)  # nor is a drive
    return (text, None) if colon < 0 or colon == len(text) - 1 else (text[:colon], text[colon + 1 :])


def parts_of(files: Files) -> dict[str, str]:
    """Returns the sub-folders that can be opened as parts: their paths by name, in natural order.

    They are the first folders below the path that all files share, since archives often wrap everything in one folder.
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
        place: the folder or archive, for messages.

    Raises:
        DataError: there is no such sub-folder.
    """
    parts = parts_of(files)
    folder = parts.get(part, part.strip("/"))
    if not folder or not any(name.startswith(f"{folder}/") for name in files.sizes):
        raise DataError(f"{place}: {unknown('part', part, parts)}")
    return FolderFiles(files.path / folder) if isinstance(files, FolderFiles) else SubFolder(files, folder)


# --- unreadable files


def skip(
    known: dict[str, str], skipped: Mapping[str, str], *, where: str, thing: str, strict: bool, logger: logging.Logger
) -> None:
    """Records unreadable files, and logs a warning that names the first of the new ones.

    Args:
        known: reasons by name of the files recorded so far; updated.
        skipped: reasons by name of unreadable files.
        where: the source's name, for messages.
        thing: name of a file in messages, in the singular.
        strict: whether an unreadable file is an error.
        logger: receives the warning.

    Raises:
        DataError: there is a new unreadable file, and `strict` is set.
    """
    new = {name: reason for name, reason in skipped.items() if name not in known}
    if not new:
        return
    first = [f"{printable(name)} ({reason})" for name, reason in list(new.items())[:NAMED]]
    if strict:
        raise DataError(f"{where}: cannot read {first[0]}; repair or remove it, or leave out `strict` to skip it")
    known.update(new)
    more = f", and {len(new) - NAMED} more" if len(new) > NAMED else ""
    logger.warning("%s: skipped %s: %s%s", where, count(len(new), f"unreadable {thing}"), ", ".join(first), more)


def nothing_readable(
    where: str, seen: int, skipped: Mapping[str, str], *, thing: str, suffixes: Sequence[str]
) -> DataError:
    """Returns the error for a folder or archive without a readable file: the suffixes, and the first file's reason.

    Args:
        where: the source's name.
        seen: number of files.
        skipped: reasons by name of unreadable files.
        thing: name of a file, in the singular.
        suffixes: suffixes that were looked for.
    """
    first = next(iter(skipped.items()), None)
    why = f"; {printable(first[0])}: {first[1]}" if first else ""
    looked = f" (looked for {', '.join(suffixes)})" if suffixes else ""
    return DataError(f"{where}: no readable {thing}s among {count(seen, 'file' if suffixes else thing)}{looked}{why}")


def reason_of(error: BaseException) -> str:
    """Returns an exception's message, or else its type, in one printable line of at most 200 characters."""
    return printable((" ".join(str(error).split()) or type(error).__name__)[:200])


def printable(text: str) -> str:
    """Returns a text that is safe to print to a terminal, with unprintable characters escaped."""
    return text if text.isprintable() else ascii(text)


def count(number: int, thing: str) -> str:
    """Returns a number with a noun: `1 file`, `2 files`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


# --- downloads


def data_home() -> Path:
    """Returns the folder of downloads: the environment variable `GAN_DATA_HOME` (default: `~/.cache/gan-data`)."""
    return Path(os.environ.get("GAN_DATA_HOME") or "~/.cache/gan-data").expanduser()


def download(name: str, fetch: Callable[[], Loaded], *, files: str, folder: Path) -> Loaded:
    """Returns the result of a library's downloader, whose output is redirected to stderr.

    Args:
        name: name of the dataset.
        fetch: the downloader; it must download only files that are missing.
        files: names of the files that it looks for.
        folder: folder in which it looks for them.

    Raises:
        DataError: the download fails; the message says which files to put where by hand.
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
    """Yields a temporary path to write to, and renames it to `path` if the context succeeds.

    The temporary path is unique, in the same folder, and does not exist yet. If several processes write one path, the
    last one to finish wins. Missing folders are created.

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


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken or circular link, which is reported when it is opened
        return 0


def _walk(root: Path) -> Iterator[str]:
    """Yields the relative paths of the files below a folder. Hidden folders and special files are skipped."""
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
    """Returns whether an entry is a folder, and whether it is a file; a broken link counts as a file."""
    if not entry.is_symlink():
        return entry.is_dir(), entry.is_file()
    return os.path.isdir(entry.path), os.path.isfile(entry.path) or not os.path.exists(entry.path)


def _start(place: Place) -> bytes:
    with place.open("rb") as file:
        return file.read(6)


def _unpacked(place: Place) -> bytes | None:
    """Returns the unpacked content of a compressed file, or None if it is not compressed."""
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
    """Yields the regular files of a tar archive, without links, devices, sparse files and negative sizes."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # it would keep a kilobyte for each
        if member.isreg() and not member.issparse() and member.size >= 0:
            yield member


def _normal(name: str) -> str:
    """Returns a member's name without `.` and empty components."""
    odd = "//" in name or "/./" in name or name.startswith("./") or name.endswith(("/", "/."))
    return str(PurePosixPath(name)) if odd else name


def _hidden(name: str) -> bool:
    if not name.startswith(".") and "/." not in name and "__MACOSX" not in name:
        return False
    parts = name.split("/")
    return "__MACOSX" in parts or any(part.startswith(".") and part != ".." for part in parts)


def _folder(name: str) -> str:
    """Returns the folder of a file with a trailing slash; empty for a file at the top level."""
    return name[: name.rfind("/") + 1]


def _shared(folders: Collection[str]) -> str:
    """Returns the deepest folder that contains all folders; all with a trailing slash."""
    first, last = min(folders, default=""), max(folders, default="")  # a prefix of these two is one of all
    same = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return _folder(first[:same])


def _natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Returns the sorting key of `natural_order`: alternating text and numbers, then the name itself."""
    pieces = re.split("([0-9]+)", name.casefold())
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    key: list[str | tuple[int, str]] = [*pieces]
    key[1::2] = [(len(digits), digits) for digits in numbers]  # as numbers compare, of any length
    return key, name


def _refuse_parts(place: str | Path, folders: Sequence[str]) -> None:
    """Checks that the names of sub-folders may be classes.

    Raises:
        DataError: they are splits of a dataset or parts of items.
    """
    listed = ", ".join(map(printable, folders))
    if SPLITS.issuperset(name.lower() for name in folders):
        first = next((name for name in folders if name.lower().startswith("train")), folders[0])
        raise DataError(
            f"{place}: {listed} are splits of a dataset, not classes; give one of them, such as {place}:{first}"
        )
    known = {name if len(name) == 1 else name.lower(): name for name in folders}
    if known.keys() <= {*SOURCES, *TARGETS}:
        source, *others = (known[name] for name in (*SOURCES, *TARGETS) if name in known)
        target = next((known[name] for name in TARGETS if known.get(name) in others), others[0])
        start = f"{place}/" if Path(place, source).is_dir() else f"{place}:"
        one = shlex.quote(start + source)
        advice = f"--data source={one} --data target={shlex.quote(start + target)}, or one of them alone, --data {one}"
        raise DataError(f"{place}: {listed} are parts of each item, not classes; give them as {advice}")
