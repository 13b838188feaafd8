"""Reading of untrusted folders and archives, local or remote.

Files are read in place, by their names in the folder or archive, and are never unpacked to disk, so that a name cannot
refer to a file outside of the archive. Unreadable files are skipped with a warning.
"""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import os
import tarfile
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Protocol

from gan_core.data.limits import DAMAGED, MAX_UNPACKED, bounded
from gan_core.errors import NAMED, DataError, InputError, Unreadable, count, printable, reason_of

_UNPACK: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
_READ_AHEAD = 2**23  # bytes of a compressed archive fetched at once

logger = logging.getLogger("gan_core")


@dataclass(frozen=True)
class FileKind:
    """A kind of files, such as images.

    Attributes:
        thing: name of a file in messages, in the singular.
        suffixes: file name suffixes, with the dot and in lower case.
        foreign: suffixes of files of this kind that cannot be read.
        convert: advice for these files: the format to convert them to.
        looks_like: returns whether the first `SNIFFED` bytes of a file are those of a file of this kind.
    """

    thing: str
    suffixes: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    convert: str = ""
    looks_like: Callable[[bytes], bool] | None = None


class Files(Protocol):
    """Interface of the files of a folder or archive, which are accessed by relative name.

    Names use slashes as separators, and `sizes` lists them in sorted order.
    """

    @property
    def sizes(self) -> Mapping[str, int]: ...

    def open(self, name: str) -> IO[bytes]: ...


class Place(Protocol):
    """A file that can be opened repeatedly: a `pathlib.Path` or a `gan_core.data.remote.RemoteFile`."""

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
    """The files in a folder and its sub-folders. Symbolic links are followed; no folder is listed twice."""

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
        file: path of the file, or its content.

    Attributes:
        name: name of the file; `content` if its content was given.
    """

    def __init__(self, file: Path | bytes):
        self.file, self.name = file, file.name if isinstance(file, Path) else "content"

    @property
    def sizes(self) -> Mapping[str, int]:
        return {self.name: _size_of(self.file) if isinstance(self.file, Path) else len(self.file)}

    def open(self, name: str) -> IO[bytes]:
        return self.file.open("rb") if isinstance(self.file, Path) else io.BytesIO(self.file)


class ZipFiles:
    """The files of a zip archive. Each process opens the archive itself, so that file positions are not shared."""

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
    """The files of a tar archive. A compressed archive does not allow random access, so it is unpacked to memory."""

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


class SomeFiles:
    """A subset of the files of a folder or archive, given by their names."""

    def __init__(self, files: Files, names: Iterable[str]):
        self.files, self._names = files, sorted(names)

    @property
    def sizes(self) -> Mapping[str, int]:
        return Sizes(self._names, lambda name: self.files.sizes[name])

    def open(self, name: str) -> IO[bytes]:
        return self.files.open(name)


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
        place: a local path, or a URL that `gan_core.data.remote` reads: `memory://folder`, `s3://bucket/set.zip`,
            `hf://datasets/owner/name/folder`, `https://host/set.zip`.

    Raises:
        DataError: there is no such folder or archive, or it cannot be read, or the protocol is not supported.
        MissingDependency: the library for the protocol is not installed.
    """
    with opening(place):
        if is_url(place):
            from gan_core.data import remote

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
    """Context manager that converts exceptions to a `DataError` that names the folder or archive.

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


def names_ending(files: Files, suffixes: tuple[str, ...]) -> tuple[list[str], int]:
    """Returns the names that end with one of the suffixes, and the total number of files.

    Hidden files and those in `__MACOSX` are ignored and not counted.

    Args:
        files: the folder or archive.
        suffixes: suffixes with the dot and in lower case; upper and lower case match.
    """
    seen = [name for name in files.sizes if not hidden(name)]
    return [name for name in seen if name.lower().endswith(suffixes)], len(seen)


@contextmanager
def open_member(files: Files, name: str, *, most_bytes: int) -> Iterator[IO[bytes]]:
    """Context manager that opens a file after checking its name and size.

    Args:
        files: the folder or archive.
        name: name of the file in it.
        most_bytes: maximum size of the file, in bytes.

    Raises:
        Unreadable: the name points outside of the archive, or the file is too large.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise Unreadable("its name points outside of the archive")
    if (size := files.sizes[name]) > most_bytes:
        raise Unreadable(f"{size / 2**20:,.0f} MiB, more than the maximum of {most_bytes // 2**20}")
    with files.open(name) as file:
        yield file


def read_member(files: Files, name: str, *, most_bytes: int) -> bytes:
    """Returns the content of a file; see `open_member` for the arguments.

    Raises:
        Unreadable: see `open_member`; or the file or its archive is damaged, or the connection was lost.
    """
    try:
        with open_member(files, name, most_bytes=most_bytes) as file:
            return file.read()
    except DAMAGED as error:
        raise Unreadable(reason_of(error)) from error


def skip(known: dict[str, str], skipped: Mapping[str, str], *, where: str, thing: str, strict: bool) -> None:
    """Records unreadable files, and logs a warning with the names and reasons of the first `NAMED` new ones.

    Args:
        known: reasons by name of the files recorded so far; updated in place.
        skipped: reasons by name of unreadable files.
        where: name of the source, for messages.
        thing: name of a file in messages, in the singular.
        strict: whether an unreadable file is an error.

    Raises:
        DataError: there is a new unreadable file, and `strict` is set.
    """
    new = {name: reason for name, reason in skipped.items() if name not in known}
    if not new:
        return
    first = [f"{printable(name)} ({reason})" for name, reason in list(new.items())[:NAMED]]
    if strict:
        raise DataError(f"{where}: cannot read {first[0]}; repair or remove it, or omit `strict` to skip it")
    known.update(new)
    more = f", and {len(new) - NAMED} more" if len(new) > NAMED else ""
    logger.warning("%s: skipped %s: %s%s", where, count(len(new), f"unreadable {thing}"), ", ".join(first), more)


def nothing_readable(where: str, seen: int, skipped: Mapping[str, str], kind: FileKind) -> DataError:
    """Returns the error for a folder or archive that has no readable file of a kind.

    Args:
        where: name of the source.
        seen: total number of files.
        skipped: reasons by name of unreadable files; the message contains the first.
        kind: kind of the files.
    """
    first = next(iter(skipped.items()), None)
    why = f"; {printable(first[0])}: {first[1]}" if first else ""
    looked = f" (looked for {', '.join(kind.suffixes)})" if kind.suffixes else ""
    found = count(seen, "file" if kind.suffixes else kind.thing)
    return DataError(f"{where}: no readable {kind.thing}s among {found}{looked}{why}")


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken or circular link, which is reported when it is opened
        return 0


def _walk(root: Path) -> Iterator[str]:
    """Yields the relative paths of all files below a folder. Hidden folders and special files are skipped."""
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
                elif is_folder and not hidden(entry.name):
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
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED // 2**20:,} MiB; use zip, or tar without compression")
    return content


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the regular files of a tar archive, without links, devices, sparse files and negative sizes."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # otherwise it keeps about a kilobyte per member
        if member.isreg() and not member.issparse() and member.size >= 0:
            yield member


def _normal(name: str) -> str:
    """Returns a member's name without empty components and `.`."""
    odd = "//" in name or "/./" in name or name.startswith("./") or name.endswith(("/", "/."))
    return str(PurePosixPath(name)) if odd else name


def hidden(name: str) -> bool:
    """Returns whether a file is hidden, or is metadata that macOS adds to archives (`__MACOSX`)."""
    if not name.startswith(".") and "/." not in name and "__MACOSX" not in name:
        return False
    parts = name.split("/")
    return "__MACOSX" in parts or any(part.startswith(".") and part != ".." for part in parts)
