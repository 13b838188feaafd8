"""Image tasks in Python: from files, folders and pipes to PNG files and pipes.

Whole images are held in memory as 8-bit pixels, and only one tile at a time in floating point.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from gan_core.data import LABEL_MAPS, ImageSpec, to_device
from gan_core.data.files import Files, LoneFile
from gan_core.data.pictures import (
    IMAGES,
    MAX_BYTES,
    channels_of,
    opacity_of,
    open_image,
    read_upright,
    to_channels,
    to_indices,
    to_tensor,
    upright_size,
)
from gan_core.errors import InputError, Unreadable, count, unknown
from gan_core.jobs import Input, Job, Outcome, Shard, Show, send, standard_input
from gan_core.media.pictures import to_picture
from gan_core.media.writing import replacing
from gan_core.nn.blocks import evaluating
from gan_core.nn.tiling import UNKNOWN_RADIUS, Needs, Tiling, tiled
from gan_core.play.game import Game

logger = logging.getLogger("gan_image")


class Given(NamedTuple):
    """An image file whose header has been read: the file, its name in `files`, and the image's height and width."""

    files: Files
    name: str
    size: tuple[int, int]


def open_input(one: Input) -> Given:
    """Reads the header of an image, from a file or from standard input.

    Raises:
        Unreadable: see `open_image`.
        InputError: standard input is closed.
    """
    files = LoneFile(one.path or standard_input().read(MAX_BYTES + 1))
    with open_image(files, files.name) as image:
        return Given(files, files.name, upright_size(image))


class Pixels:
    """An image as an array `[1, C, H, W]` of uint8 that converts to the game's channels when slices are read."""

    def __init__(self, image: Image.Image, spec: ImageSpec):
        self.image, self.interpolate = image, spec.interpolate
        self.channels = spec.channels if isinstance(spec.channels, int) else channels_of(image)
        self.shape = (1, self.channels, image.height, image.width)

    def __getitem__(self, place: tuple[object, slice, slice]) -> Tensor:
        part = self.image.crop(_box(place))
        try:
            return to_tensor(to_channels(part, self.channels) if self.interpolate else to_indices(part))[None]
        except ValueError as error:
            raise Unreadable(str(error)) from error


class Canvas:
    """An output image as an array `[1, C, H, W]` in [-1, 1], grey (C = 1) or RGB (C = 3)."""

    def __init__(self, shape: Sequence[int]):
        self.shape = shape
        self.image = Image.new("RGB" if shape[1] == 3 else "L", (shape[3], shape[2]))

    def __getitem__(self, place: tuple[object, slice, slice]) -> Tensor:
        return to_tensor(self.image.crop(_box(place)))[None] / 127.5 - 1

    def __setitem__(self, place: tuple[object, slice, slice], value: Tensor) -> None:
        self.image.paste(to_picture(value[0]), _box(place)[:2])


def _box(place: tuple[object, slice, slice]) -> tuple[int, int, int, int]:
    _, rows, columns = place
    return columns.start, rows.start, columns.stop, rows.stop


def translate(
    game: Game,
    given: Sequence[str],
    out: str,
    *,
    result: str | None = None,
    tile: int | None = None,
    shard: Shard | None = None,
    **conditions: Any,
) -> Outcome:
    """Transforms images with a game to 8-bit PNG files of the same size (or a multiple of it, if the game upscales).

    Images are rotated according to EXIF and converted to the game's channels. The game receives transparent pixels as
    white, and the result keeps the transparency of the image. Images larger than a tile are transformed in tiles; see
    `gan_core.nn.tiling`.

    Args:
        game: the game; it defines `apply` and `results`.
        given: files, folders and `-`.
        out: output folder, in which the folder structure is kept, or `-`.
        result: name of the game's result to write (default: the first).
        tile: maximum side of a tile in pixels (default: 512, or more if the networks need it).
        shard: part of the files that is processed (default: all).
        conditions: conditions of the game other than the image, the same for all files: `label="apple"`.

    Raises:
        RecipeError: a condition is unknown, out of range, or missing.
        DataError: an image that was named directly cannot be read, or no image can be read.
        InputError: the game has no such result, a file exists or cannot be written, or `tile` is too small.
        OutputClosed: standard output is closed.
    """
    result, key = chosen_result(game, result)
    spec, needs = game.spec.part(key), Needs.of(game.networks_of(result))
    tiling = needs.tiling(tile)
    if not isinstance(spec, ImageSpec):
        raise InputError(f"this {game.title} takes {spec.thing}, not images")
    asked = game.rows_of(game.asked_besides(key, **conditions), 0, 1)
    job = Job(given, out, kind=IMAGES, suffix=".png", shard=shard)
    ready = job.open(open_input)
    _note_tiles([one for _, one in ready], tiling, needs)

    pixels = frozenset({key}) - LABEL_MAPS

    def apply(part: Tensor) -> Tensor:
        return game.apply(to_device({key: part}, game.device, pixels) | asked)[result].float().cpu()

    def make(source: Given, target: Path | None, show: Show) -> None:
        image = read_upright(source.files, source.name)
        made = tiled(apply, Pixels(image, spec), tiling, out=Canvas, show=_shown(show)).image
        if (opacity := opacity_of(image)) is not None:
            made.putalpha(opacity.resize(made.size))
        write_png(made, target)

    with evaluating(game):
        return job.run(ready, make)


def chosen_result(game: Game, name: str | None) -> tuple[str, str]:
    """Returns a result of `game.apply` and the key of the batch that it is computed from.

    Args:
        game: the game.
        name: name of the result (default: the first whose networks have weights).

    Raises:
        InputError: the game does not transform images or has no such result, or the networks for it have no weights.
    """
    title, offered = game.title, game.offered
    if not game.results:
        raise InputError(f"{title} does not translate images (it declares no `results`); use the model of a translator")
    if name is None and offered:
        name = offered[0]
    elif name not in offered:
        if name is None or name in game.results:
            held = f"it offers {', '.join(offered)}" if offered else "it offers no result"
            raise InputError(f"this model of {title} has no weights for {name or ' and '.join(game.results)}; {held}")
        raise unknown("result", name, offered, InputError)
    return name, game.results[name]


def _note_tiles(given: Sequence[Given], tiling: Tiling, needs: Needs) -> None:
    """Logs a warning about images for which the result of tiling differs from that of the whole image."""
    larger = sum(tiling.divides(one.size) for one in given)
    if larger and tiling.margin != needs.receptive_radius:
        why = UNKNOWN_RADIUS
        if needs.receptive_radius is not None:
            radius = needs.receptive_radius
            why = f"outputs depend on inputs up to {radius} pixels away; set `--tile {needs.exact_from}` or more"
        logger.warning(
            "%s larger than a tile of %s pixels: the tiles are blended, and the result differs from that of "
            "the whole, because %s",
            count(larger, "image"),
            tiling.tile,
            why,
        )


def _shown(show: Show) -> Callable[[int, int], None]:
    return lambda number, total: show(f"tile {number} of {total}" if total > 1 else "")


def write_png(image: Image.Image, path: Path | None) -> None:
    """Writes an image as PNG to a file, or to standard output (None).

    Raises:
        OutputClosed: standard output is closed.
        InputError: the path cannot be written.
        GanError: the disk is full or broken.
    """
    if path is None:
        content = io.BytesIO()
        image.save(content, format="PNG")
        send(content.getvalue())
        return
    with replacing(path) as partial:
        image.save(partial, format="PNG")
