"""Writing, drawing and reading of samples: images as PNG, points as CSV.

Files are written atomically, and equal samples give equal bytes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.errors import DataError, InputError, printable
from gan_core.media.items import split_samples, write_each
from gan_core.media.writing import refuse_existing, replacing, write_rows

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageDraw
    from torch import Tensor

    from gan_core.media.items import Samples
    from gan_core.play.game import Game

GAP, WIDE_GAP = 2, 8
"""Pixels between the images of one item, and between items that have several."""
SMALLEST, LARGEST = 512, 2048
"""Approximate sizes in pixels to which a picture is enlarged and reduced."""
HEAD = 14
"""Height of the names above the columns of a picture, in pixels."""
CANVAS, MARGIN, BARS = 512, 32, 64
INK, PAPER, POINT = (90, 90, 90), (255, 255, 255), (31, 98, 168)


def write_samples(
    samples: Mapping[str, Tensor],
    stem: Path,
    *,
    columns: int | None = None,
    game: Game | None = None,
    limits: tuple[float, float] | None = None,
) -> Path:
    """Writes one picture of all samples to `stem` with the suffix `.png`.

    Args:
        samples: images `[N, C, H, W]` in [-1, 1] by name, drawn side by side for each item; or points `[N, D]` by name,
            one plot each: a histogram (D = 1), or the first two coordinates.
        stem: output path without the suffix; its folder is created if needed.
        columns: number of items in a row (default: a square picture).
        game: game that generated the samples; its class names are the headings of columns.
        limits: range of the axes for points (default: round numbers around them).

    Raises:
        DataError: none of the samples can be drawn.
    """
    points = _points(samples)
    picture = _plots(points, limits) if points else _grid(_images(samples), columns, _heads(samples, columns, game))
    path = stem.with_suffix(".png")
    _save(picture, path)
    return path


def write_items(
    samples: Samples,
    folder: Path,
    *,
    count: int | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    game: Game | None = None,
) -> list[Path]:
    """Writes each item to a file of its own: `00000.png`, … (`00000_source.png` if it has several); or `points.csv`.

    Args:
        samples: one tensor, tensors by name as `write_samples` takes them, or an iterable of tensors, which are written
            part by part.
        folder: output folder, created if needed. Existing files are not overwritten.
        count: total number of items (default: those of the first part).
        labels: texts by column, one for each item, written to `labels.csv`, or beside the points.
        game: game that generated the samples; not used.

    Returns:
        The paths of the files, without `labels.csv`.

    Raises:
        InputError: one of the files exists already.
        DataError: none of the samples can be written.
    """
    first, parts = split_samples(samples)
    if points := _points(first):
        name = next(iter(points))
        rows = [row for part in parts for row in part[name].detach().float().cpu().tolist()]
        return [_write_points(rows, folder / "points.csv", labels or {})]
    images, number = map(_images, parts), len(next(iter(first.values())))
    return write_each(images, folder, ".png", _write_image, count=count or number, labels=labels)


def read_items(folder: Path) -> dict[str, Tensor]:
    """Reads the files of `write_items`: `image` `[N, C, H, W]` in [-1, 1], or `points` `[N, D]`.

    Raises:
        DataError: there are no such files, a file is damaged, or the images have different sizes.
    """
    import torch

    if (table := folder / "points.csv").is_file():
        return {"points": torch.tensor(_read_points(table))}
    from gan_image.files import open_files, read_image
    from gan_image.sources import to_tensor

    files = open_files(folder)
    images = [to_tensor(read_image(files, name)) for name in files.sizes if name.endswith(".png")]
    if not images:
        raise DataError(f"{folder}: no generated items (looked for 00000.png, … and points.csv)")
    if len({image.shape for image in images}) > 1:
        raise DataError(f"{folder}: the images have different sizes or channels; use those of one generator")
    return {"image": torch.stack(images) / 127.5 - 1}


def write_gif(frames: Sequence[Path], path: Path, *, milliseconds: int = 120) -> Path:
    """Writes pictures as a GIF that repeats; the last frame lasts a second.

    Raises:
        InputError: there are no pictures.
        DataError: a picture is damaged.
    """
    from PIL import Image

    if not frames:
        raise InputError(f"{path}: there are no pictures to animate; train with a smaller `train.sample_every`")
    size = _read_picture(frames[-1]).size
    pictures = (_read_picture(frame).resize(size, Image.Resampling.NEAREST).quantize(256) for frame in frames)
    _save(
        next(pictures),
        path,
        format="GIF",
        save_all=True,
        append_images=pictures,
        loop=0,
        duration=[milliseconds] * (len(frames) - 1) + [max(milliseconds, 1000)],
    )
    return path


# --- images


def _images(samples: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns the images among the samples as uint8 `[N, H, W, C]`; `C` is 1 or 3, and the same for all."""
    images = {key: tensor for key, tensor in samples.items() if tensor.ndim == 4 and len(tensor)}
    if not images:
        shapes = {key: list(tensor.shape) for key, tensor in samples.items()}
        raise DataError(f"no samples to write: expected images [N, C, H, W] or points [N, D], got {shapes}")
    counts = {key: len(tensor) for key, tensor in images.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"the samples have different numbers of items: {counts}")
    colour = any(tensor.shape[1] == 3 for tensor in images.values())
    return {key: _to_pixels(tensor, 3 if colour else 1) for key, tensor in images.items()}


def _to_pixels(images: Tensor, channels: int) -> np.ndarray:
    """Converts [-1, 1] to 0 … 255, clamped and rounded; channels other than grey or RGB are averaged."""
    images = images.detach().float().cpu().nan_to_num(0.0)
    if images.shape[1] not in (1, 3):
        images = images.mean(dim=1, keepdim=True)
    pixels = images.clamp(-1, 1).add(1).mul(127.5).round().byte()
    return pixels.expand(-1, channels, -1, -1).permute(0, 2, 3, 1).numpy()  # [N, C, H, W] -> [N, H, W, C]


def _heads(samples: Mapping[str, Tensor], columns: int | None, game: Game | None) -> Sequence[str]:
    """Returns the headings of columns if samples were generated for all classes in turn, otherwise nothing."""
    classes = None if game is None or game.recipe is None else game.recipe.data.classes
    return classes if classes is not None and len(classes) == columns and "generated" in samples else ()


def _grid(images: dict[str, np.ndarray], columns: int | None, heads: Sequence[str] = ()) -> Image.Image:
    """Draws items in rows; an item's images are side by side, each at the size of the largest.

    Args:
        images: uint8 `[N, H, W, C]` by name.
        columns: number of items in a row (default: a square picture).
        heads: names of the columns, cut to their width; none are drawn if empty.
    """
    from PIL import Image, ImageDraw

    height, width = (max(array.shape[axis] for array in images.values()) for axis in (1, 2))
    count, keys = len(next(iter(images.values()))), len(images)
    columns = min(count, columns or max(1, round(math.sqrt(count / keys))))
    rows = math.ceil(count / columns)
    longest = max(columns * keys * width, rows * height)
    factor = max(1, min(math.ceil(SMALLEST / (columns * keys * width)), LARGEST // longest))
    height, width, between = height * factor, width * factor, WIDE_GAP if keys > 1 else GAP
    across, down = keys * (width + GAP) - GAP + between, height + between
    top = HEAD if heads else 0
    grid = Image.new("RGB", (columns * across - between, top + rows * down - between), PAPER)
    for column, head in enumerate(heads):
        cell = Image.new("RGB", (across - between, HEAD), PAPER)
        ImageDraw.Draw(cell).text((1, 2), printable(head), fill=INK)
        grid.paste(cell, (column * across, 0))
    for k, array in enumerate(images.values()):
        for i, pixels in enumerate(array):
            cell = _to_image(pixels).resize((width, height), Image.Resampling.NEAREST)
            grid.paste(cell, (i % columns * across + k * (width + GAP), top + i // columns * down))
    return grid.reduce(math.ceil(longest / LARGEST)) if longest > LARGEST else grid


def to_picture(image: Tensor) -> Image.Image:
    """Returns an image `[C, H, W]` in [-1, 1] as 8-bit grey or RGB; other channels are averaged."""
    return _to_image(_to_pixels(image[None], 3 if len(image) == 3 else 1)[0])


def _to_image(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _read_picture(path: Path) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: no picture that can be shown ({error})") from error


# --- points


def _points(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the points among the samples, `[N, D]`."""
    return {
        name: tensor
        for name, tensor in samples.items()
        if tensor.ndim == 2 and tensor.is_floating_point() and tensor.numel()
    }


def _plots(points: Mapping[str, Tensor], limits: tuple[float, float] | None) -> Image.Image:
    """Draws one plot for each name, side by side and with the same axes."""
    import numpy as np
    from PIL import Image

    arrays = [tensor.detach().double().cpu().numpy()[:, :2] for tensor in points.values()]
    arrays = [array[np.isfinite(array).all(axis=1)] for array in arrays]
    low, high = limits or _range(np.concatenate([array.ravel() for array in arrays]))
    picture = Image.new("RGB", (CANVAS * len(arrays), CANVAS), PAPER)
    for k, array in enumerate(arrays):
        plot = _histogram(array, low, high) if array.shape[1] == 1 else _scatter(array, low, high)
        picture.paste(plot, (k * CANVAS, 0))
    return picture


def _scatter(points: np.ndarray, low: float, high: float) -> Image.Image:
    """Draws points as small discs that darken where they overlap; both axes have the same scale."""
    import numpy as np
    from PIL import Image

    place = (MARGIN + (points - low) / (high - low) * (CANVAS - 2 * MARGIN)).round()
    across, up = place[((place >= 2) & (place < CANVAS - 2)).all(axis=1)].astype(np.int64).T
    counts = np.zeros((CANVAS, CANVAS))
    for dx, dy in [(x, y) for x in (-2, -1, 0, 1, 2) for y in (-2, -1, 0, 1, 2) if x * x + y * y <= 5]:
        np.add.at(counts, (CANVAS - 1 - up - dy, across + dx), 1)
    visible = 1 - (1 - _opacity(len(points))) ** counts[..., None]
    image = np.asarray(_axes(low, high)) * (1 - visible) + np.array(POINT) * visible
    return Image.fromarray(image.round().astype(np.uint8))


def _histogram(values: np.ndarray, low: float, high: float) -> Image.Image:
    import numpy as np
    from PIL import ImageDraw

    counts, _ = np.histogram(values, bins=BARS, range=(low, high))
    image, bottom = _axes(low, high, vertical=False), CANVAS - MARGIN
    draw, width = ImageDraw.Draw(image), (CANVAS - 2 * MARGIN) / BARS
    for k, count in enumerate(counts):
        if count:
            top = bottom - count / counts.max() * (CANVAS - 2 * MARGIN)
            draw.rectangle((MARGIN + k * width, top, MARGIN + (k + 1) * width - 1, bottom), fill=POINT)
    return image


def _axes(low: float, high: float, *, vertical: bool = True) -> Image.Image:
    """Draws an empty plot with round numbers along its lower edge, and along its left edge if the axes are equal."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (CANVAS, CANVAS), PAPER)
    draw = ImageDraw.Draw(image)
    first, last = MARGIN, CANVAS - MARGIN
    draw.line((first, last, last, last), fill=INK)
    for value in _ticks(low, high):
        at = round(first + (value - low) / (high - low) * (last - first))
        _tick(draw, (at, last), (0, 4), f"{value:g}", "mt")
        if vertical:
            _tick(draw, (first, CANVAS - 1 - at), (-4, 0), f"{value:g}", "rm")
    if vertical:
        draw.line((first, first, first, last), fill=INK)
    return image


def _tick(draw: ImageDraw.ImageDraw, at: tuple[int, int], step: tuple[int, int], text: str, anchor: str) -> None:
    end = at[0] + step[0], at[1] + step[1]
    draw.line((*at, *end), fill=INK)
    draw.text((end[0] + step[0] // 2, end[1] + step[1] // 2), text, fill=INK, anchor=anchor)


def _range(values: np.ndarray) -> tuple[float, float]:
    """Returns ticks around all values and a tenth more; being round, they seldom change between pictures."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    more = 0.1 * (high - low) or 1.0
    step = _step(low - more, high + more)
    return math.floor((low - more) / step) * step, math.ceil((high + more) / step) * step


def _step(low: float, high: float) -> float:
    """Returns the distance of ticks: 1, 2 or 5 times a power of ten, for about five to ten ticks."""
    rough = (high - low) / 8
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= rough)


def _ticks(low: float, high: float) -> list[float]:
    step = _step(low, high)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _opacity(count: int) -> float:
    """Returns the opacity of a point: 0.5 for a few hundred points, less for more, so that densities are visible."""
    return min(0.5, max(0.02, 200 / max(count, 1)))


# --- files


def _save(image: Image.Image, path: Path, *, format: str = "PNG", **options: object) -> None:
    with replacing(path) as partial:
        image.save(partial, format=format, **options)


def _write_image(path: Path, pixels: np.ndarray) -> None:
    _save(_to_image(pixels), path)


def _write_points(points: Sequence[Sequence[float]], path: Path, labels: Mapping[str, Sequence[str]]) -> Path:
    """Writes a header and coordinates with nine significant digits, which preserve float32 values."""
    refuse_existing(path.parent, [path.name])
    rows = [[f"{value:.9g}" for value in point] for point in points]
    beside = zip(rows, *labels.values(), strict=True) if labels else ((row,) for row in rows)
    header = [*(f"x{k}" for k in range(len(rows[0]))), *labels]
    write_rows([header, *([*row, *texts] for row, *texts in beside)], path)
    return path


def _read_points(path: Path) -> list[list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = [name for name in reader.fieldnames or () if name.startswith("x")]
        try:
            return [[float(row[name]) for name in names] for row in reader]
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: line {reader.line_num} is not a point ({error})") from error
