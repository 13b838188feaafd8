"""Image files as users have them: in folders and archives that are read in place, and of which nothing is trusted.

A file is read into memory by its name inside the folder or archive, never unpacked to disk, so a name cannot lead
outside. Its size is checked before it is read, its width and height before it is decoded.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gan_core.errors import DataError, MissingDependency

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_BYTES = 2**28
"""The largest image file that is read: an uncompressed image of `MAX_PIXELS` fits."""
MAX_UNPACKED = 2**31
"""The largest content of a compressed tar archive, in bytes."""
MAX_PIXELS = 89_478_485
"""The largest image that is decoded; above it Pillow warns of a decompression bomb."""
MAX_SIDE, MIN_SIDE = 20_000, 4
DATABASE = "data.mdb"
"""The file by which a folder is known as an LMDB database."""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B")

_PACKED = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ": lzma.LZMAFile}
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, RuntimeError,
            MemoryError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)  # fmt: skip
"""What Pillow and the archive readers raise on damaged content."""


class Unreadable(DataError):
    """One file that cannot be used; the message is the reason."""


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


class DatabaseFiles:
    """The images of an LMDB database, as LSUN is published: WebP under keys that say nothing.

    LMDB trusts its pages: a database that is damaged on purpose can end the process.

    Raises:
        MissingDependency: lmdb is not installed.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._begin(buffers=True) as transaction:
            sizes = {f"{bytes(key).hex()}.webp": len(value) for key, value in transaction.cursor()}
        self.sizes = dict(sorted(sizes.items()))

    def open(self, name: str) -> IO[bytes]:
        with self._begin() as transaction:
            return io.BytesIO(transaction.get(bytes.fromhex(name.removesuffix(".webp"))))

    def _begin(self, **options: Any) -> Any:
        return _database(self.path.resolve(), os.getpid()).begin(**options)


@cache
def _database(path: Path, process: int) -> Any:
    """An open database: one in each process, as LMDB wants it, and without its lock, which would be written."""
    try:
        import lmdb
    except ImportError as error:
        raise MissingDependency(f"{path}: needs lmdb: pip install gan-image[lsun]") from error
    try:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise OSError(str(error)) from error


def open_files(path: Path) -> Files:
    """The files of a folder, of a zip or tar archive, or of an LMDB database.

    Raises:
        DataError: there is nothing of that name, or it is neither.
        MissingDependency: it is a database, and lmdb is not installed.
    """
    try:
        if (path / DATABASE).is_file():
            return DatabaseFiles(path)
        if path.is_dir():
            return FolderFiles(path)
        return ZipFiles(path) if _start(path).startswith(b"PK") else TarFiles(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such folder or archive") from error
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read as a folder, a zip or a tar archive ({_reason(error)})") from error


def image_names(files: Files) -> tuple[list[str], int]:
    """The names that look like images, and how many files there are; hidden files and `__MACOSX` do not count."""
    seen = [name for name in files.sizes if not _hidden(name)]
    return [name for name in seen if _looks_like_image(name)], len(seen)


def classes_of(names: Iterable[str]) -> dict[str, str] | None:
    """The class of each image: its first folder, below the folders that all images share.

    Returns:
        None if some image lies in no folder, and if all lie in one.
    """
    parts = {name: PurePosixPath(name).parts[:-1] for name in names}
    shared = next((k for k, level in enumerate(zip_longest(*parts.values())) if len(set(level)) > 1), None)
    if shared is None or any(len(folders) == shared for folders in parts.values()):
        return None
    return {name: folders[shared] for name, folders in parts.items()}


@contextmanager
def opened(files: Files, name: str) -> Iterator[Image.Image]:
    """An image whose width, height and mode are known and checked, and whose pixels are not decoded yet.

    Raises:
        Unreadable: it is damaged (also if that shows inside the `with`), no image, too large or too small, or its name
            leads out of the archive.
    """
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise Unreadable("its name leads out of the archive")
    if files.sizes[name] > MAX_BYTES:
        raise Unreadable(f"{files.sizes[name] / 2**20:,.0f} MiB, at most {MAX_BYTES // 2**20} are read")
    with _guarded(), files.open(name) as file, Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if max(width, height) > MAX_SIDE:
            raise Unreadable(_too_large(f"{width}x{height} pixels"))
        if min(width, height) < MIN_SIDE:
            raise Unreadable(f"{width}x{height} pixels, smaller than {MIN_SIDE} a side")
        yield image


def read_image(files: Files, name: str, *, channels: int | None = None, size: int | None = None) -> Image.Image:
    """A decoded image, upright, 8-bit grey or RGB, and on white where it was transparent.

    Args:
        files: the folder or archive.
        name: of the file in it.
        channels: 1 or 3; as the file has them if None.
        size: the side of the square that it is resized and centre-cropped to; as it is if None.

    Raises:
        Unreadable: see `opened`.
    """
    with opened(files, name) as image:
        if size is not None:
            image.draft(None, (2 * size, 2 * size))  # JPEG leaves out detail that the reduction would average away
        upright = ImageOps.exif_transpose(image)
        plain = to_channels(upright, channels or channels_of(upright))
        return plain if size is None else to_square(plain, size)


def channels_of(image: Image.Image) -> int:
    """1 for grey, 3 for colour, judged by the mode alone."""
    return 1 if image.mode in GREY else 3


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """An image as 8-bit grey (1) or RGB (3); what is transparent becomes white.

    Raises:
        ValueError: its numbers have no stated range.
    """
    if image.mode.startswith("I"):  # 16 bits of grey
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit pixels have no stated range; save it with 8 or 16 bits")
        image = Image.fromarray(np.rint(levels / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no stated range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def to_square(image: Image.Image, size: int) -> Image.Image:
    """The centre of an image at `size` x `size`: reduced by Lanczos' filter, enlarged bilinearly, which cannot ring."""
    if image.size == (size, size):
        return image
    reduced = min(image.size) > size
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS if reduced else Image.Resampling.BILINEAR)


@contextmanager
def _guarded() -> Iterator[None]:
    """Turns what is raised on damaged content into `Unreadable`. Pillow also warns, of odd metadata: no matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Unreadable(_too_large("too many pixels")) from error
        except UnidentifiedImageError as error:
            raise Unreadable("not an image, or damaged at its start") from error
        except _DAMAGED as error:
            raise Unreadable(_reason(error)) from error


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


def _looks_like_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _too_large(what: str) -> str:
    return f"{what}, at most {MAX_PIXELS / 1e6:.0f} million and {MAX_SIDE:,} a side are read"


def _reason(error: BaseException) -> str:
    """What went wrong as part of one line, and in characters that a terminal may be sent."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200] if text.isprintable() else ascii(text[:200])
