"""Image files as users have them: in folders and archives that are read in place, and of which nothing is trusted.

A file is read into memory by its name inside the folder or archive, never unpacked to disk, so a name cannot lead
outside. Its size is checked before it is read, its width and height before it is decoded.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from gan_core.data import files as general
from gan_core.data.files import Files, is_url, names_ending, open_member, opening
from gan_core.data.limits import DAMAGED
from gan_core.data.spec import ImageSpec
from gan_core.errors import MissingDependency, Unreadable, reason_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
NATIVE = ImageSpec()
"""Images as they are."""
MAX_BYTES = 2**28
"""The largest image file that is read: an uncompressed image of `MAX_PIXELS` fits."""
MAX_PIXELS = 89_478_485
"""The largest image that is decoded; above it Pillow warns of a decompression bomb."""
MAX_SIDE, MIN_SIDE = 20_000, 4
DATABASE = "data.mdb"
"""The file by which a folder is known as an LMDB database."""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B")


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


def open_files(place: str | Path) -> Files:
    """Opens a folder, a zip or tar archive (local, or at a URL), or an LMDB database.

    Raises:
        DataError: it does not exist or cannot be read.
        MissingDependency: it is a database and lmdb is not installed, or the library that reads the URL is not.
    """
    if is_url(place) or not (Path(place) / DATABASE).is_file():
        return general.open_files(place)
    with opening(place):
        return DatabaseFiles(Path(place))


def image_names(files: Files) -> tuple[list[str], int]:
    """The names that look like images, and how many files there are; hidden files and `__MACOSX` do not count."""
    return names_ending(files, SUFFIXES)


@contextmanager
def opened(files: Files, name: str) -> Iterator[Image.Image]:
    """An image whose width, height and mode are known and checked, and whose pixels are not decoded yet.

    Raises:
        Unreadable: it is damaged (also if that shows inside the `with`), no image, too large or too small, or its name
            leads out of the archive.
    """
    with _guarded(), open_member(files, name, most_bytes=MAX_BYTES) as file, Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if max(width, height) > MAX_SIDE:
            raise Unreadable(_too_large(f"{width}x{height} pixels"))
        if min(width, height) < MIN_SIDE:
            raise Unreadable(f"{width}x{height} pixels, smaller than {MIN_SIDE} a side")
        yield image


def read_image(files: Files, name: str, *, spec: ImageSpec = NATIVE, half: str | None = None) -> Image.Image:
    """Returns a decoded image, upright, 8-bit grey or RGB, and on white where it was transparent.

    Without interpolation (masks and label maps) values are the file's own: grey levels, or indices into its palette.

    Args:
        files: the folder or archive.
        name: name of the file in it.
        spec: channels and size; the file's own where they are None.
        half: `left` or `right`, of a file that shows two images side by side.

    Raises:
        Unreadable: see `opened`; or it is smaller than what is to be cut out of it.
    """
    with opened(files, name) as image:
        if spec.loaded_size is not None and half is None and spec.interpolate:
            height, width = spec.loaded_size
            side = 2 * max(height, width)  # of both sides, as EXIF may turn the image
            image.draft(None, (side, side))  # JPEG leaves out detail that the reduction would average away
        upright = ImageOps.exif_transpose(image)
        if half is not None:
            middle = upright.width // 2
            upright = upright.crop(
                (0, 0, middle, upright.height)
                if half == "left"
                else (upright.width - middle, 0, upright.width, upright.height)
            )
        if not spec.interpolate:
            return to_size(to_indices(upright), spec)
        channels = spec.channels if isinstance(spec.channels, int) else channels_of(upright)
        return to_size(to_channels(upright, channels), spec)


def read_upright(files: Files, name: str) -> Image.Image:
    """Returns a decoded image, upright and in its own mode.

    Raises:
        Unreadable: see `opened`.
    """
    with opened(files, name) as image:
        return ImageOps.exif_transpose(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns the height and width of an image that is turned as its EXIF data say; nothing is decoded."""
    turned = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.width, image.height) if turned else (image.height, image.width)


def channels_of(image: Image.Image) -> int:
    """1 for grey, 3 for colour, judged by the mode alone."""
    return 1 if image.mode in GREY else 3


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """An image as 8-bit grey (1) or RGB (3); what is transparent becomes white.

    Raises:
        ValueError: its numbers have no stated range.
    """
    if image.mode.startswith("I"):  # 16 bits of grey
        opacity, levels = opacity_of(image), np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit pixels have no stated range; save it with 8 or 16 bits")
        image = Image.fromarray(np.rint(levels / 257).astype(np.uint8))
        if opacity is not None:
            image.putalpha(opacity)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no stated range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def opacity_of(image: Image.Image) -> Image.Image | None:
    """Returns the opacity of an image's pixels, 0 to 255 in 8 bits; None if it has no transparency."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):  # Pillow does not convert these; one level of grey is transparent
        seen = np.asarray(image) != image.info["transparency"]
        return Image.fromarray(seen.astype(np.uint8) * 255)
    return image.convert("RGBA").getchannel("A")


def to_indices(image: Image.Image) -> Image.Image:
    """Returns a mask or label map as 8-bit integers: indices into its palette, or grey levels.

    Raises:
        ValueError: its values are colours.
    """
    if image.mode in ("P", "L"):
        return Image.fromarray(np.asarray(image))
    if image.mode == "1":
        return image.convert("L")
    raise ValueError(f"pixels of mode {image.mode} are no class indices; save it as grey levels or with a palette")


def to_size(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Returns an image resized as a specification says: reduced by Lanczos' filter, enlarged bilinearly (no ringing).

    It is cut to size only where that is at its centre; what is cut at random is cut later.

    Raises:
        Unreadable: it is not resized, and smaller than what is to be cut out of it.
    """
    if spec.size is None:
        return image
    width, height = image.size
    if spec.loaded_size is None:
        if height < spec.size[0] or width < spec.size[1]:
            raise Unreadable(f"{width}x{height} pixels, smaller than the {spec.size[1]}x{spec.size[0]} cut out of it")
        return image
    rows, columns = spec.loaded_size
    if (height, width) == (rows, columns):
        return image
    if spec.resize == "stretch":
        scale = min(rows / height, columns / width)
        return image.resize((columns, rows), _filter(scale, spec))
    scale = max(rows / height, columns / width)
    if spec.crop == "centre":
        return ImageOps.fit(image, (columns, rows), _filter(scale, spec))
    return image.resize((max(columns, round(width * scale)), max(rows, round(height * scale))), _filter(scale, spec))


def _filter(scale: float, spec: ImageSpec) -> Image.Resampling:
    if not spec.interpolate:
        return Image.Resampling.NEAREST
    return Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BILINEAR


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
        except DAMAGED as error:
            raise Unreadable(reason_of(error)) from error


def _too_large(what: str) -> str:
    return f"{what}, at most {MAX_PIXELS / 1e6:.0f} million and {MAX_SIDE:,} a side are read"
