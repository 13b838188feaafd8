"""Writing and drawing of samples: images as PNG, points as CSV and plots.

Files are written atomically, and equal samples give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.media.items import check_samples, split_samples, write_each
from gan_core.media.pictures import draw_sheet, to_pixels, write_picture, write_pixels
from gan_core.media.points import draw_points, points_in, write_points

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.media.items import Samples
    from gan_core.media.pictures import Pixels
    from gan_core.play.game import Game


def write_samples(
    samples: Mapping[str, Tensor], stem: Path, *, columns: int | None = None, game: Game | None = None
) -> Path:
    """Writes one picture of all samples to `stem` with the suffix `.png`.

    Args:
        samples: images `[N, C, H, W]` in [-1, 1] by name, drawn side by side for each item; or points `[N, D]` by name,
            one plot each: a histogram (D = 1), or the first two coordinates.
        stem: output path without the suffix; its folder is created if needed.
        columns: number of items in a row (default: a square picture).
        game: game that generated the samples; its class names are used as column headings.

    Raises:
        DataError: none of the samples can be drawn.
    """
    points = points_in(samples)
    picture = (
        draw_points(points) if points else draw_sheet(_images(samples), columns, _headings(samples, columns, game))
    )
    path = stem.with_suffix(".png")
    write_picture(picture, path)
    return path


def write_items(
    samples: Samples,
    folder: Path,
    *,
    count: int | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    game: Game | None = None,
) -> list[Path]:
    """Writes each image to its own file, `00000.png`, … (`00000_source.png`, … if an item has several images).

    Points are written to a table, `points.csv`.

    Args:
        samples: one tensor, tensors by name as in `write_samples`, or an iterable of tensors, which are written part by
            part.
        folder: output folder, created if needed. Existing files are not overwritten.
        count: total number of items (default: those of the first part).
        labels: texts by column, one for each item, which are written to `labels.csv`, or to `points.csv` for points.
        game: game that generated the samples; not used.

    Returns:
        The paths of the files, without `labels.csv`.

    Raises:
        InputError: one of the files already exists.
        DataError: none of the samples can be written.
    """
    first, parts = split_samples(samples)
    if points := points_in(first):
        name = next(iter(points))
        rows = [row for part in parts for row in part[name].detach().float().cpu().tolist()]
        return [write_points(rows, folder / "points.csv", labels or {})]
    number = count or len(next(iter(first.values())))
    return write_each(map(_images, parts), folder, ".png", write_pixels, count=number, labels=labels)


def _images(samples: Mapping[str, Tensor]) -> dict[str, Pixels]:
    """Returns the pixels of the images among the samples."""
    images = {key: tensor for key, tensor in samples.items() if tensor.ndim == 4 and len(tensor)}
    check_samples(images, samples, expected="images [N, C, H, W] or points [N, D]")
    return to_pixels(images)


BY_CLASS = frozenset({"generated", "real"})
"""Names of samples that have all classes in turn, if there is a column for each class."""


def _headings(samples: Mapping[str, Tensor], columns: int | None, game: Game | None) -> Sequence[str]:
    """Returns the headings of columns if samples have all classes in turn, otherwise nothing."""
    classes = None if game is None or game.recipe is None else game.recipe.data.classes
    if not classes or columns is None or columns % len(classes) or not samples.keys() & BY_CLASS:
        return ()
    return list(classes) * (columns // len(classes))
