"""Points: scatter plots and histograms as pictures, and tables as CSV.

It needs Pillow, which `gan-core[pictures]` installs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from gan_core.media.layout import round_step, ticks
from gan_core.media.pictures import INK, PAPER
from gan_core.media.writing import refuse_existing, write_rows

Array = NDArray[np.float64]

SIDE = 512
"""Width and height of a plot in pixels."""
MARGIN = 32
"""Distance of the axes from the edge of a plot, in pixels."""
BINS = 64
"""Number of bins of a histogram."""
RADIUS = 2
"""Radius of a drawn point in pixels."""
COLOUR = (31, 98, 168)
"""Colour of points and bars."""


def points_in(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the points `[N, D]` among some samples."""
    return {
        name: tensor
        for name, tensor in samples.items()
        if tensor.ndim == 2 and tensor.is_floating_point() and tensor.numel()
    }


def draw_points(points: Mapping[str, Tensor]) -> Image.Image:
    """Draws one plot for each name, side by side and with the same axes.

    Args:
        points: points `[N, D]` by name: a histogram if D = 1, otherwise a scatter plot of the first two coordinates.
            Points that are not finite are left out.
    """
    arrays = [tensor.detach().double().cpu().numpy()[:, :2] for tensor in points.values()]
    arrays = [array[np.isfinite(array).all(axis=1)] for array in arrays]
    low, high = limits_of(np.concatenate([array.ravel() for array in arrays]))
    picture = Image.new("RGB", (SIDE * len(arrays), SIDE), PAPER)
    for k, array in enumerate(arrays):
        plot = histogram(array, low, high) if array.shape[1] == 1 else scatter(array, low, high)
        picture.paste(plot, (k * SIDE, 0))
    return picture


def limits_of(values: Array) -> tuple[float, float]:
    """Returns round limits around all values, with a margin of at least a tenth of their range.

    Round limits rarely change from one picture of a training run to the next.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    margin = 0.1 * (high - low) or 1.0
    low, high = low - margin, high + margin
    step = _step(low, high)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def scatter(points: Array, low: float, high: float) -> Image.Image:
    """Draws points `[N, 2]` as small discs that darken where they overlap. Both axes range from `low` to `high`."""
    places = (MARGIN + (points - low) / (high - low) * (SIDE - 2 * MARGIN)).round()
    inside = ((places >= RADIUS) & (places < SIDE - RADIUS)).all(axis=1)
    across, up = places[inside].astype(np.int64).T
    counts = np.zeros((SIDE, SIDE))
    offsets = range(-RADIUS, RADIUS + 1)
    for dx, dy in [(x, y) for x in offsets for y in offsets if x * x + y * y <= RADIUS**2 + 1]:
        np.add.at(counts, (SIDE - 1 - up - dy, across + dx), 1)
    visible = 1 - (1 - _opacity(len(points))) ** counts[..., None]
    image = np.asarray(_axes(low, high)) * (1 - visible) + np.array(COLOUR) * visible
    return Image.fromarray(image.round().astype(np.uint8))


def histogram(values: Array, low: float, high: float) -> Image.Image:
    """Draws a histogram of values `[N, 1]` from `low` to `high`. The highest bar has the height of the plot."""
    counts, _ = np.histogram(values, bins=BINS, range=(low, high))
    image, bottom = _axes(low, high, vertical=False), SIDE - MARGIN
    draw, width = ImageDraw.Draw(image), (SIDE - 2 * MARGIN) / BINS
    for k, count in enumerate(counts):
        if count:
            top = bottom - count / counts.max() * (SIDE - 2 * MARGIN)
            draw.rectangle((MARGIN + k * width, top, MARGIN + (k + 1) * width - 1, bottom), fill=COLOUR)
    return image


def write_points(points: Sequence[Sequence[float]], path: Path, labels: Mapping[str, Sequence[str]]) -> Path:
    """Writes a header and the coordinates with nine significant digits, which preserve float32 values.

    Args:
        points: coordinates of each point; the columns are `x0`, `x1`, ….
        path: output file. An existing file is not overwritten.
        labels: texts by column, one for each point, which are written after the coordinates.

    Raises:
        InputError: the file already exists.
    """
    refuse_existing(path.parent, [path.name])
    header = [*(f"x{k}" for k in range(len(points[0]))), *labels]
    texts = zip(*labels.values(), strict=True) if labels else [()] * len(points)
    rows = ([*(f"{value:.9g}" for value in point), *own] for point, own in zip(points, texts, strict=True))
    write_rows([header, *rows], path)
    return path


def _step(low: float, high: float) -> float:
    """Returns a distance between ticks that gives about five to ten ticks."""
    return round_step((high - low) / 8)


def _axes(low: float, high: float, *, vertical: bool = True) -> Image.Image:
    """Draws an empty plot with a horizontal axis, and a vertical one if `vertical` is true."""
    image = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(image)
    first, last = MARGIN, SIDE - MARGIN
    draw.line((first, last, last, last), fill=INK)
    for value in ticks(low, high, _step(low, high)):
        at = round(first + (value - low) / (high - low) * (last - first))
        _tick(draw, (at, last), (0, 4), f"{value:g}", "mt")
        if vertical:
            _tick(draw, (first, SIDE - 1 - at), (-4, 0), f"{value:g}", "rm")
    if vertical:
        draw.line((first, first, first, last), fill=INK)
    return image


def _tick(draw: ImageDraw.ImageDraw, at: tuple[int, int], step: tuple[int, int], text: str, anchor: str) -> None:
    end = at[0] + step[0], at[1] + step[1]
    draw.line((*at, *end), fill=INK)
    draw.text((end[0] + step[0] // 2, end[1] + step[1] // 2), text, fill=INK, anchor=anchor)


def _opacity(count: int) -> float:
    """Returns the opacity of a point: 0.5 for a few hundred points, less for more, so that densities are visible."""
    return min(0.5, max(0.02, 200 / max(count, 1)))
