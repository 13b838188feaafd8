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
import stat
import tarfile
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Protocol

from gan_core.data.limits import DAMAGED, MAX_RATIO, MAX_UNPACKED, bounded
from gan_core.data.links import follow, target_of
from gan_core.errors import NAMED, DataError, InputError, Unreadable, count, printable, reason_of

_UNPACK: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
_READ_AHEAD = 2**23  # bytes of a compressed archive fetched at once
_LONGEST_LINK = 4096  # bytes of a link's target that are read
_UNSUSPICIOUS = 2**26  # bytes that any compressed archive may unpack to

SNIFFED = 16
"""Number of bytes by which the content of a file is recognised."""

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
        return open_regular(self.path / name)


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
        return open_regular(self.file) if isinstance(self.file, Path) else io.BytesIO(self.file)


class ZipFiles:
    """The files of a zip archive. Each process opens the archive itself, so that file positions are not shared.

    Links inside the archive are followed. Backslashes separate folders too, as some programs on Windows write them.
    """

    def __init__(self, path: Place):
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._process: int | None = None
        archive = self._open()
        stored: dict[str, str] = {}
        links: dict[str, str] = {}
        for info in bounded(archive.infolist()):
            name = _normal(info.filename.replace("\\", "/"))
            if stat.S_ISLNK(info.external_attr >> 16):
                with archive.open(info) as link:
                    links[name] = target_of(name, link.read(_LONGEST_LINK).decode("utf-8", "replace"))
            elif not info.is_dir() and not info.filename.endswith("\\"):
                stored[name] = info.filename
        found, self._broken = follow(links, stored)
        sizes = {name: archive.getinfo(stored[found.get(name, name)]).file_size for name in (*stored, *found)}
        self.sizes = dict(sorted(bounded((sizes | dict.fromkeys(self._broken, 0)).items())))
        self._stored = {name: stored[found.get(name, name)] for name in sizes if stored[found.get(name, name)] != name}

    def open(self, name: str) -> IO[bytes]:
        if name in self._broken:
            raise Unreadable(self._broken[name])
        return self._open().open(self._stored.get(name, name))

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None or self._process != os.getpid():
            file = self.path if isinstance(self.path, Path) else self.path.open("rb")
            self._archive, self._process = zipfile.ZipFile(file), os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archive": None, "_process": None}


class TarFiles:
    """The files of a tar archive. A compressed archive does not allow random access, so it is unpacked to memory.

    Links inside the archive are followed.
    """

    def __init__(self, path: Place):
        self.path = path
        self._content = _unpacked(path)
        places: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        with self._stream() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in bounded(_members(archive)):
                name = _normal(member.name)
                if member.issym() or member.islnk():
                    links[name] = target_of(name, member.linkname, hard=member.islnk())
                elif member.isreg() and not member.issparse() and member.size >= 0:
                    places[name] = member.offset_data, member.size
                elif not member.isdir():
                    self._broken[name] = "a sparse file" if member.issparse() else "not a regular file"
        found, broken = follow(links, places)
        self._broken |= broken
        places |= {name: places[target] for name, target in bounded(found.items())}
        self._offsets = {name: offset for name, (offset, _) in places.items()}
        sizes = {name: size for name, (_, size) in places.items()}
        self.sizes = dict(sorted((dict.fromkeys(self._broken, 0) | sizes).items()))

    def open(self, name: str) -> IO[bytes]:
        if name not in self._offsets:
            raise Unreadable(self._broken[name])
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


def nothing_readable(
    where: str, seen: int, skipped: Mapping[str, str], kind: FileKind, ignored: Mapping[str, int] | None = None
) -> DataError:
    """Returns the error for a folder or archive that has no readable file of a kind.

    Args:
        where: name of the source.
        seen: total number of files.
        skipped: reasons by name of unreadable files; the message contains the first.
        kind: kind of the files.
        ignored: numbers of other files, by suffix; None leaves them out of the message.
    """
    first = next(iter(skipped.items()), None)
    why = f"; {printable(first[0])}: {first[1]}" if first else ""
    there = f"found {in_words(ignored)}; " if ignored else ""
    looked = f" ({there}looked for {', '.join(kind.suffixes)})" if kind.suffixes else ""
    found = count(seen, "file" if kind.suffixes else kind.thing)
    return DataError(f"{where}: no readable {kind.thing}s among {found}{looked}{why}")


def in_words(suffixes: Mapping[str, int]) -> str:
    """Returns numbers of files by suffix as a text, the most frequent first: `2 .txt, 1 without suffix`."""
    most = sorted(suffixes.items(), key=lambda each: (-each[1], each[0]))
    named = [f"{number:,} {printable(suffix) or 'without suffix'}" for suffix, number in most[:NAMED]]
    return ", ".join(named + [f"{sum(n for _, n in most[NAMED:]):,} others"] * (len(most) > NAMED))


def open_regular(path: Path) -> IO[bytes]:
    """Opens a file for reading, without waiting for a writer if the path has become a named pipe.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    # Windows, which has no O_NONBLOCK, has no named pipes in folders either.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken or circular link, which is reported when it is opened
        return 0


def _walk(root: Path) -> Iterator[str]:
    """Yields the relative paths of all files below a folder, except in hidden folders."""
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
                if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                    below += [] if hidden(entry.name) else [f"{start}{entry.name}/"]
                else:  # pipes, devices and broken links too, which are reported when they are opened
                    yield start + entry.name
        pending += sorted(below, reverse=True)


def _start(place: Place) -> bytes:
    with open_regular(place) if isinstance(place, Path) else place.open("rb") as file:
        return file.read(6)


def _unpacked(place: Place) -> bytes | None:
    """Returns the unpacked content of a compressed file, or None if it is not compressed."""
    start = _start(place)
    unpack = next((unpack for magic, unpack in _UNPACK.items() if start.startswith(magic)), None)
    if unpack is None:
        return None
    with place.open("rb", _READ_AHEAD) as packed:
        limit = min(MAX_UNPACKED, max(_UNSUSPICIOUS, MAX_RATIO * packed.seek(0, os.SEEK_END)))
        packed.seek(0)
        with unpack(packed) as stream:
            content: bytes = stream.read(limit + 1)
    if len(content) > limit:
        bound = f"{MAX_RATIO} times its size" if limit < MAX_UNPACKED else f"{MAX_UNPACKED // 2**20:,} MiB"
        raise ValueError(f"it unpacks to more than {bound}; use zip, or tar without compression")
    return content


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the members of a tar archive."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # otherwise it keeps about a kilobyte per member
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
