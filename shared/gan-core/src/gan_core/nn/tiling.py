"""Networks on items that are too large to be transformed as a whole: tile by tile, along any number of axes.

The kept parts of the tiles cover the item. Two numbers say how they are joined:

- `margin`: context around the kept part that is transformed too, and dropped. If it is at least the network's reach
  (the distance from which an input can change an output), and the network uses no statistics of the whole item, the
  result is that of the whole item, up to rounding.
- `blend`: width of the overlap in which neighbouring tiles are cross-faded linearly, so that no seams show where the
  results of tiles differ.

At the item's own borders there is no margin: the network's own padding acts there as it would on the whole item.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gan_core.errors import InputError

PerAxis = int | Sequence[int]
"""A number for all axes, or one for each."""


class Sliceable(Protocol):
    """An array `[B, C, …]` that is read by slices: a tensor, a memory-mapped NumPy array, or an object that decodes."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, place: Any, /) -> Any: ...


class Buffer(Sliceable, Protocol):
    """An array `[B, C, …]` that is also written by slices."""

    def __setitem__(self, place: Any, value: Any, /) -> None: ...


@dataclass(frozen=True)
class Span:
    """A tile along one axis; positions in the input.

    Attributes:
        start: where its input begins, margin included.
        stop: where its input ends.
        first: where its kept part begins, half of the overlap included.
        last: where its kept part ends.
        fades: whether it is cross-faded with the tile before and with the tile after.
    """

    start: int
    stop: int
    first: int
    last: int
    fades: tuple[bool, bool]


def spans(size: int, *, tile: int, margin: int = 0, blend: int = 0, multiple: int = 1, least: int = 1) -> list[Span]:
    """Divides an axis into tiles of nearly equal size that start and end at multiples.

    Args:
        size: length of the axis, a multiple of `multiple`.
        tile: maximum length of a tile's input.
        margin: context on each side.
        blend: width of the overlap of neighbours.
        multiple: number by which starts and lengths of the inputs are divisible.
        least: minimum length of an input.

    Raises:
        InputError: `tile` is too small for the margin and the overlap.
    """
    if size <= tile:
        return [Span(0, size, 0, size, (False, False))]
    halo = _upward(margin + -(-blend // 2), multiple)
    shortest = max(blend, least)
    needed = _upward(2 * shortest, multiple) if shortest > multiple else multiple
    core = (tile - 2 * halo) // multiple * multiple
    if core < needed:
        raise InputError(f"a tile of {tile} is too small for a margin of {margin}, an overlap of {blend} and multiples "
                         f"of {multiple}; make it {2 * halo + needed} or more")  # fmt: skip
    number = -(-size // core)
    cuts = [k * (size // multiple) // number * multiple for k in range(number + 1)]  # core / 2 or more apart
    return [
        Span(
            max(0, start - halo), min(size, stop + halo), start - blend // 2 * (start > 0),
            stop + (blend - blend // 2) * (stop < size), (start > 0, stop < size),
        )
        for start, stop in itertools.pairwise(cuts)
    ]  # fmt: skip


@torch.no_grad()
def tiled(
    function: Callable[[Tensor], Tensor], source: Sliceable, *, tile: PerAxis, margin: PerAxis = 0, blend: PerAxis = 0,
    multiple: PerAxis = 1, least: PerAxis = 1, out: Callable[[list[int]], Buffer] | None = None,
    show: Callable[[int, int], None] | None = None,
) -> Any:  # fmt: skip
    """Applies a function to an item tile by tile.

    Only one tile is held in floating point: parts of the source are read when they are needed, and results are written
    to the output at once. Axes whose size is not a multiple are extended at their end by reflection, and the result is
    cropped. All settings may be given for each axis.

    Args:
        function: maps `[B, C, …]` to `[B, C', …]`, whose axes are as long, or longer by whole factors (as in
            super-resolution).
        source: `[B, C, …]`.
        tile: maximum length of a tile, margins included; shorter axes are not divided.
        margin: context on each side of a tile that is dropped from its result.
        blend: width of the overlap in which neighbours are cross-faded.
        multiple: number by which the function's inputs must be divisible; tiles start at multiples.
        least: minimum length of the function's inputs.
        out: makes the output, given its shape; it is filled and returned (default: a tensor like the first result).
        show: called with the number of finished tiles and of all.

    Returns:
        The output, `[B, C', …]`.

    Raises:
        InputError: `tile` is too small for the margin and the overlap, or the function's results have another size.
    """
    sizes = list(source.shape[2:])
    tiles, margins, blends, multiples, leasts = (
        _each(value, len(sizes)) for value in (tile, margin, blend, multiple, least)
    )
    axes = [
        spans(_upward(max(size, shortest), m), tile=length, margin=dropped, blend=faded, multiple=m, least=shortest)
        for size, length, dropped, faded, m, shortest in zip(
            sizes, tiles, margins, blends, multiples, leasts, strict=True
        )
    ]
    result, total = None, math.prod(map(len, axes))
    for number, place in enumerate(itertools.product(*axes), start=1):
        made = function(_read(source, place, sizes))
        scales = _scales(made, place)
        if result is None:
            shape = [*made.shape[:2], *(size * scale for size, scale in zip(sizes, scales, strict=True))]
            result = made.new_empty(shape) if out is None else out(shape)
        _write(result, made, place, scales, sizes, blends)
        if show is not None:
            show(number, total)
    return result


def _each(value: PerAxis, number: int) -> list[int]:
    return [value] * number if isinstance(value, int) else list(value)


def _upward(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _read(source: Sliceable, place: Sequence[Span], sizes: Sequence[int]) -> Tensor:
    """Returns a tile's input; beyond the end of an axis its values are reflected."""
    wanted = [_reflected(torch.arange(span.start, span.stop), size) for span, size in zip(place, sizes, strict=True)]
    part = source[(..., *(slice(int(index.min()), int(index.max()) + 1) for index in wanted))]
    read = part if isinstance(part, Tensor) else torch.tensor(part)
    for axis, (index, span, size) in enumerate(zip(wanted, place, sizes, strict=True), start=2):
        if span.stop > size:
            read = read.index_select(axis, (index - index.min()).to(read.device))
    return read


def _reflected(index: Tensor, size: int) -> Tensor:
    """Positions on an axis without end that is reflected at both of its ends, which are not repeated."""
    if size == 1:
        return torch.zeros_like(index)
    return (size - 1) - ((size - 1) - index % (2 * (size - 1))).abs()


def _scales(made: Tensor, place: Sequence[Span]) -> list[int]:
    given = [span.stop - span.start for span in place]
    if any(after % before or not after for before, after in zip(given, made.shape[2:], strict=True)):
        before, after = ("x".join(map(str, sizes)) for sizes in (given, made.shape[2:]))
        raise InputError(f"the network turns {before} into {after}; only whole multiples of the size can be tiled")
    return [after // before for before, after in zip(given, made.shape[2:], strict=True)]


def _write(
    out: Buffer, made: Tensor, place: Sequence[Span], scales: Sequence[int], sizes: Sequence[int], blends: Sequence[int]
) -> None:
    """Writes the kept part of a tile, cross-faded with the tiles that were written before it.

    A position's result is the sum of its tiles' results times their weights w, which are products of ramps and add up
    to 1. Written one after the other, a tile is mixed in with w / (sum of the weights so far).
    """
    before: Tensor = torch.zeros(())  # sum of the weights so far, without and with this tile
    weight: Tensor = torch.ones(())
    kept, target = [slice(None), slice(None)], list[slice]()
    for axis, (span, scale, size, blend) in enumerate(zip(place, scales, sizes, blends, strict=True)):
        last = min(span.last, size)
        kept.append(slice((span.first - span.start) * scale, (last - span.start) * scale))
        target.append(slice(span.first * scale, last * scale))
        own, earlier = _ramps(span, blend, scale)
        length, shape = (last - span.first) * scale, [-1, *[1] * (len(place) - axis - 1)]
        own, earlier = own[:length].view(shape), earlier[:length].view(shape)
        before, weight = before + weight * earlier, weight * own
    made = made[tuple(kept)]
    where = (..., *target)
    if any(span.fades[0] for span in place) and any(blends):
        share = (weight / (before + weight)).to(made)
        made = torch.where(share < 1, torch.lerp(torch.as_tensor(out[where]).to(made), made, share), made)
    out[where] = made


def _ramps(span: Span, blend: int, scale: int) -> tuple[Tensor, Tensor]:
    """Returns a tile's weights along an axis, and the weights of all tiles before it."""
    own, earlier = torch.ones((2, (span.last - span.first) * scale))
    earlier.zero_()
    width = blend * scale
    ramp = (torch.arange(width) + 0.5) / width
    if span.fades[0]:
        own[:width], earlier[:width] = ramp, 1 - ramp
    if span.fades[1]:
        own[len(own) - width :] = 1 - ramp
    return own, earlier
