"""Pictures of samples: sheets of images, animations, and single images, written as PNG and GIF.

Files are written atomically, and equal samples give equal bytes. It needs Pillow, which `gan-core[pictures]` installs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from gan_core.errors import DataError, InputError, printable
from gan_core.media.layout import Grid, columns_for
from gan_core.media.writing import replacing

Pixels = NDArray[np.uint8]
"""Pixels of an image, `[H, W, C]`, or of several, `[N, H, W, C]`; `C` is 1 (grey) or 3 (RGB)."""

INK, PAPER = (90, 90, 90), (255, 255, 255)
"""Colours of text and of the background."""
GAP = 2
"""Distance in pixels between the images of one item, and between items with a single image."""
WIDE_GAP = 8
"""Distance between items that have several images, in pixels."""
MIN_WIDTH = 512
"""Width in pixels to which a smaller sheet is enlarged."""
MAX_SIDE = 2048
"""Approximate maximum width and height of a sheet in pixels; larger sheets are reduced."""
HEADING = 14
"""Height of the headings above the columns of a sheet, in pixels."""


def pixels_of(images: Tensor, channels: int) -> Pixels:
    """Converts images `[N, C, H, W]` in [-1, 1] to pixels `[N, H, W, channels]`, clamped and rounded.

    Channels other than grey or RGB are averaged. NaN becomes 0, the middle of the range.
    """
    images = images.detach().float().cpu().nan_to_num(0.0)
    if images.shape[1] not in (1, 3):
        images = images.mean(dim=1, keepdim=True)
    pixels = images.clamp(-1, 1).add(1).mul(127.5).round().byte()
    array: Pixels = pixels.expand(-1, channels, -1, -1).permute(0, 2, 3, 1).numpy()  # [N, C, H, W] -> [N, H, W, C]
    return array


def to_pixels(samples: Mapping[str, Tensor]) -> dict[str, Pixels]:
    """Converts images `[N, C, H, W]` by name to pixels: RGB if any of them has three channels, otherwise grey."""
    colour = any(tensor.shape[1] == 3 for tensor in samples.values())
    return {key: pixels_of(tensor, 3 if colour else 1) for key, tensor in samples.items()}


def to_picture(image: Tensor) -> Image.Image:
    """Converts an image `[C, H, W]` in [-1, 1] to 8-bit grey or RGB; other channels are averaged."""
    return picture_of(pixels_of(image[None], 3 if len(image) == 3 else 1)[0])


def picture_of(pixels: Pixels) -> Image.Image:
    """Returns pixels `[H, W, C]` as a grey or RGB picture."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def draw_sheet(images: Mapping[str, Pixels], columns: int | None = None, headings: Sequence[str] = ()) -> Image.Image:
    """Draws items in rows, with the images of an item side by side, all at the size of the largest image.

    Images are enlarged or reduced by an integer factor, so that the sheet is between `MIN_WIDTH` and about `MAX_SIDE`
    pixels wide.

    Args:
        images: pixels `[N, H, W, C]` by name.
        columns: number of items in a row (default: a square picture).
        headings: texts above the columns, truncated to the column width (default: none).
    """
    height, width = (max(array.shape[axis] for array in images.values()) for axis in (1, 2))
    count, cells = len(next(iter(images.values()))), len(images)
    columns = columns_for(count, columns, width=cells)
    longest = max(columns * cells * width, math.ceil(count / columns) * height)
    factor = max(1, min(math.ceil(MIN_WIDTH / (columns * cells * width)), MAX_SIDE // longest))
    grid = Grid(
        count,
        columns,
        width * factor,
        height * factor,
        cells=cells,
        cell_gap=GAP,
        gap=WIDE_GAP if cells > 1 else GAP,
        top=HEADING if headings else 0,
    )
    sheet = Image.new("RGB", grid.size, PAPER)
    for column, heading in enumerate(headings):
        strip = Image.new("RGB", (grid.item_width, HEADING), PAPER)
        ImageDraw.Draw(strip).text((1, 2), printable(heading), fill=INK)
        sheet.paste(strip, (grid.corner(column)[0], 0))
    for cell, array in enumerate(images.values()):
        for item, pixels in enumerate(array):
            picture = picture_of(pixels).resize((grid.width, grid.height), Image.Resampling.NEAREST)
            sheet.paste(picture, grid.corner(item, cell))
    return sheet.reduce(math.ceil(longest / MAX_SIDE)) if longest > MAX_SIDE else sheet


def write_picture(picture: Image.Image, path: Path, *, format: str = "PNG", **options: object) -> None:
    """Writes a picture to a file.

    Args:
        picture: the picture.
        path: output file; missing folders are created.
        format: Pillow's name of the format.
        **options: options of the format, see Pillow's `Image.save`.

    Raises:
        InputError: the path cannot be written.
        GanError: the disk is full or broken.
    """
    with replacing(path) as partial:
        picture.save(partial, format=format, **options)


def write_pixels(path: Path, pixels: Pixels) -> None:
    """Writes pixels `[H, W, C]` as a PNG file."""
    write_picture(picture_of(pixels), path)


def write_gif(frames: Sequence[Path], path: Path, *, milliseconds: int = 120) -> Path:
    """Writes pictures as a looping GIF. All frames have the size of the last one.

    Args:
        frames: files of the pictures.
        path: output file.
        milliseconds: duration of each frame; the last one lasts at least a second.

    Raises:
        InputError: there are no pictures.
        DataError: a picture is damaged.
    """
    if not frames:
        raise InputError(f"{path}: there are no pictures to animate; train with a smaller `train.sample_every`")
    size = _read(frames[-1]).size
    pictures = (_read(frame).resize(size, Image.Resampling.NEAREST).quantize(256) for frame in frames)
    write_picture(
        next(pictures),
        path,
        format="GIF",
        save_all=True,
        append_images=pictures,
        loop=0,
        duration=[milliseconds] * (len(frames) - 1) + [max(milliseconds, 1000)],
    )
    return path


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a picture ({error})") from error
