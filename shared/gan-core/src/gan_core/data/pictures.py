"""Reading of image files from untrusted folders and archives (`gan_core.data.files`).

The size of a file is checked before it is read, and its width and height before it is decoded. It needs Pillow, which
`gan-core[pictures]` installs.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gan_core.data.files import FileKind, Files, open_member, read_member
from gan_core.data.limits import DAMAGED
from gan_core.data.spec import ImageSpec
from gan_core.errors import Unreadable, reason_of

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".webp", ".avif", ".bmp", ".dib", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""File name suffixes of images, in lower case."""
FOREIGN = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".psd", ".xcf", ".svg", ".eps", ".tga", ".exr", ".hdr"),
    *(".ico", ".dds", ".pcx", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""File name suffixes of images that are not read."""
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of the formats that are decoded."""


def looks_like_image(start: bytes) -> bool:
    """Returns whether a file that starts with these bytes is an image in one of the usual formats."""
    boxed = start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    magics = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\xff\x0a", b"8BPS")
    return boxed or webp or start.startswith(magics)


IMAGES = FileKind("image", SUFFIXES, FOREIGN, "PNG or JPEG", looks_like_image)
UNCHANGED = ImageSpec()
"""Specification of images at their own size, with their own number of channels."""
MAX_BYTES = 2**28
"""Maximum size of an image file in bytes, enough for an uncompressed image of `MAX_PIXELS`."""
MAX_PIXELS = 89_478_485
"""Maximum number of pixels of an image; Pillow warns of a decompression bomb above it."""
MAX_SIDE = 20_000
"""Maximum width and height of an image in pixels."""
MIN_SIDE = 4
"""Minimum width and height of an image in pixels."""
UNSUSPICIOUS, MAX_RATIO = 2**25, 500
"""Number of pixels that every image may have, and maximum number of pixels per byte of the file of a larger one."""
MAX_SCANS = 100
"""Maximum number of scans of a progressive JPEG file. Encoders write about ten."""
BAND = 2**20
"""Number of pixels that are converted at once."""
PPM_HEADER = 4096
"""Maximum number of bytes before the height of an image in PPM format."""
PNG = b"\x89PNG\r\n\x1a\n"
"""First bytes of a PNG file."""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B")
"""Pillow's modes of grey images."""


@contextmanager
def open_image(files: Files, name: str) -> Iterator[Image.Image]:
    """Context manager that yields an opened image whose header is checked and whose pixels are not decoded yet.

    Raises:
        Unreadable: the file is damaged (even if that is only discovered inside the `with` block), is not an image, or
            is too large or too small; or its name points outside of the archive.
    """
    with _guarded(), open_member(files, name, most_bytes=MAX_BYTES) as file, _opened(file) as image:
        width, height = image.size
        if max(width, height) > MAX_SIDE:
            raise Unreadable(_too_large(f"{width}x{height} pixels"))
        if min(width, height) < MIN_SIDE:
            raise Unreadable(f"{width}x{height} pixels, smaller than the minimum of {MIN_SIDE} per side")
        if width * height > max(UNSUSPICIOUS, MAX_RATIO * files.sizes[name]):
            raise Unreadable(f"{width}x{height} pixels in a file of {files.sizes[name]:,} bytes: a decompression bomb")
        yield image


def _opened(file: IO[bytes]) -> Image.Image:
    """Opens an image; if its metadata prevent that and the format allows it, without them."""
    start = file.read(PPM_HEADER)
    file.seek(0)
    tokens = re.sub(rb"#[^\n]*", b"", start).split()
    if re.match(rb"P[1-6]\s", start) and len(start) == PPM_HEADER and len(tokens) < 4:
        raise Unreadable(f"its header is longer than {PPM_HEADER:,} bytes")  # Pillow reads it byte by byte
    try:
        return Image.open(file, formats=FORMATS)
    except DAMAGED:
        file.seek(0)
        if file.read(len(PNG)) != PNG:
            raise
        return Image.open(io.BytesIO(essential_chunks(PNG + file.read())), formats=("PNG",))


def decoded(files: Files, name: str, *, side: int | None = None) -> Image.Image:
    """Reads an image in its own mode, rotated according to EXIF.

    Args:
        files: the folder or archive.
        name: name of the file in it.
        side: width and height that suffice; a JPEG image is decoded at a fraction of its size if that is faster.

    Raises:
        Unreadable: see `open_image`; or decoding takes too long.
    """
    with open_image(files, name) as image:
        if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
            check_scans(files, name)
        if side is not None:
            image.draft(None, (side, side))
        try:
            image.load()
        except DAMAGED:
            if image.format != "PNG":
                raise
            # Texts and profiles after the pixels can fail too.
            content = essential_chunks(read_member(files, name, most_bytes=MAX_BYTES))
            with Image.open(io.BytesIO(content), formats=("PNG",)) as again:
                return _upright(again)
        return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """Decodes an image and rotates it according to EXIF, in place: a copy would double the memory."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def essential_chunks(content: bytes) -> bytes:
    """Returns a PNG file without the metadata that do not change its pixels, such as texts and colour profiles."""
    kept, place = [PNG], len(PNG)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if not kind.isalpha():  # damaged
            break
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            kept.append(content[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def check_scans(files: Files, name: str) -> None:
    """Checks the number of scans of a progressive JPEG file, each of which may change every pixel.

    Raises:
        Unreadable: there are more than `MAX_SCANS`.
    """
    scans = read_member(files, name, most_bytes=MAX_BYTES).count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise Unreadable(f"has {scans:,} scans; the maximum is {MAX_SCANS}")


def read_image(files: Files, name: str, *, spec: ImageSpec = UNCHANGED, half: str | None = None) -> Image.Image:
    """Reads an image as 8-bit grey or RGB, rotated according to EXIF, with transparent pixels on white.

    If the specification does not interpolate (masks and label maps), the values are those of the file: grey levels, or
    indices into its palette.

    Args:
        files: the folder or archive.
        name: name of the file in it.
        spec: number of channels and size (default: those of the file).
        half: `left` or `right` for one half of a file that shows two images side by side; None for the whole.

    Raises:
        Unreadable: see `open_image`; or the image is smaller than the crop.
    """
    side = None
    if spec.loaded_size is not None and half is None and spec.interpolate:
        side = 2 * max(spec.loaded_size)  # for width and height alike, since EXIF may rotate the image
    upright = decoded(files, name, side=side)
    with _guarded():
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
    """Reads an image in its own mode, rotated according to EXIF.

    Raises:
        Unreadable: see `decoded`.
    """
    with _guarded():
        return decoded(files, name)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns the height and width of an image after rotation according to EXIF, without decoding it."""
    rotated = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.width, image.height) if rotated else (image.height, image.width)


def channels_of(image: Image.Image) -> int:
    """Returns the number of channels of an image by its mode: 1 (grey) or 3 (colour)."""
    return 1 if image.mode in GREY else 3


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Converts an image to 8-bit grey (1 channel) or RGB (3), with transparent pixels on white.

    Raises:
        ValueError: the range of the pixel values is not known.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save the image with 8 or 16 bits")
    mode = "L" if channels == 1 else "RGB"
    if not image.mode.startswith("I") and not image.has_transparency_data:
        return image.convert(mode)
    rows = max(1, BAND // image.width)  # intermediate results of a whole image would multiply its memory
    converted = Image.new(mode, image.size)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        converted.paste(_on_white(band).convert(mode), (0, top))
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    """Converts 16-bit grey to 8 bits, and composites transparent pixels on white."""
    if image.mode.startswith("I"):
        opacity, levels = opacity_of(image), np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit pixels have no defined range; save the image with 8 or 16 bits")
        image = Image.fromarray(((levels.astype(np.int32) + 128) // 257).astype(np.uint8))  # rounded to the nearest
        if opacity is not None:
            image.putalpha(opacity)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def opacity_of(image: Image.Image) -> Image.Image | None:
    """Returns the alpha channel of an image, 0 to 255 in 8 bits; None if it has no transparency."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):  # Pillow does not convert these; one grey level is transparent
        opaque = np.asarray(image) != image.info["transparency"]
        return Image.fromarray(opaque.astype(np.uint8) * 255)
    return image.convert("RGBA").getchannel("A")


def to_indices(image: Image.Image) -> Image.Image:
    """Returns a mask or label map as 8-bit integers: indices into its palette, or grey levels.

    Raises:
        ValueError: the pixels are colours.
    """
    if image.mode in ("P", "L"):
        return Image.fromarray(np.asarray(image))
    if image.mode == "1":
        return image.convert("L")
    raise ValueError(
        f"pixels of mode {image.mode} are not class indices; save the image as grey levels or with a palette"
    )


def to_size(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Resizes an image to a specification: Lanczos when downscaling, bilinear (without ringing) when upscaling.

    The image is cropped only if the crop is at its centre. Random crops follow when an item is read.

    Raises:
        Unreadable: the specification does not resize, and the image is smaller than the crop.
    """
    if spec.size is None:
        return image
    width, height = image.size
    if spec.loaded_size is None:
        if height < spec.size[0] or width < spec.size[1]:
            raise Unreadable(f"{width}x{height} pixels, smaller than the crop of {spec.size[1]}x{spec.size[0]}")
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


def to_tensor(image: Image.Image) -> Tensor:
    """Returns the pixels of a grey or RGB image, uint8 `[C, H, W]`."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


@contextmanager
def _guarded() -> Iterator[None]:
    """Context manager that converts errors on damaged content to `Unreadable`, and hides Pillow's metadata warnings."""
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


def _too_large(size: str) -> str:
    return f"{size}; the maximum is {MAX_PIXELS / 1e6:.0f} million pixels and {MAX_SIDE:,} per side"
