"""Tiled inference on items that are too large for one forward pass, along any number of axes.

An item is divided into tiles. The central part of each tile's result is kept, and the kept parts cover the item. Two
numbers determine how they are joined:

- `margin`: context around the kept part, which is also transformed and then dropped. If the margin is at least the
  network's receptive radius (the largest distance from an input to an output that depends on it), and the network uses
  no statistics of the whole item, the result equals that of the whole item, up to rounding.
- `blend`: width of the overlap in which neighbouring tiles are cross-faded linearly, so that there are no visible seams
  if the results of tiles differ.

There is no margin at the borders of the item, so the network's padding has the same effect there as for the whole item.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gan_core.errors import InputError

TILE = 512
"""Default maximum side of a tile."""
UNKNOWN_RADIUS = (
    "its networks have no finite `receptive_radius` (instance and layer normalization depend on the whole input)"
)
"""Reason, for messages, why the result of tiles may differ from that of the whole item."""
PerAxis = int | Sequence[int]
"""One number for all axes, or a number for each axis."""


class Sliceable(Protocol):
    """An array `[B, C, …]` that is read by slices: a tensor, a memory-mapped NumPy array, or a lazy decoder."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, place: Any, /) -> Any: ...


class Buffer(Sliceable, Protocol):
    """An array `[B, C, …]` that is also written by slices."""

    def __setitem__(self, place: Any, value: Any, /) -> None: ...


@dataclass(frozen=True)
class Span:
    """A tile along one axis, as positions in the input.

    Attributes:
        start: start of its input, including the margin.
        stop: end of its input.
        first: start of its kept part, including half of the overlap.
        last: end of its kept part.
        fades: whether it is cross-faded with the previous tile, and with the next one.
    """

    start: int
    stop: int
    first: int
    last: int
    fades: tuple[bool, bool]


def spans(size: int, *, tile: int, margin: int = 0, blend: int = 0, multiple: int = 1, least: int = 1) -> list[Span]:
    """Divides an axis into tiles of equal length, whose inputs start and end at multiples of `multiple`.

    The kept parts have similar lengths.

    Args:
        size: length of the axis, a multiple of `multiple`.
        tile: maximum length of a tile's input.
        margin: context on each side.
        blend: width of the overlap between neighbours.
        multiple: number by which starts and lengths of the inputs are divisible.
        least: minimum length of an input.

    Raises:
        InputError: `tile` is too small for the margin and the overlap.
    """
    if size <= tile:
        return [Span(0, size, 0, size, (False, False))]
    halo = _upward(margin + -(-blend // 2), multiple)
    needed = _needed(multiple, max(blend, least))
    core = (tile - 2 * halo) // multiple * multiple
    if core < needed:
        raise InputError(
            f"a tile of {tile} is too small for a margin of {margin}, an overlap of {blend} and multiples "
            f"of {multiple}; make it {2 * halo + needed} or more"
        )
    number = -(-size // core)
    cuts = [k * (size // multiple) // number * multiple for k in range(number + 1)]  # core / 2 or more apart
    length = min(size, 2 * halo + max(stop - start for start, stop in itertools.pairwise(cuts)))
    starts = [min(max(0, cut - halo), size - length) for cut in cuts[:-1]]
    return [
        Span(
            start,
            start + length,
            first - blend // 2 * (first > 0),
            last + (blend - blend // 2) * (last < size),
            (first > 0, last < size),
        )
        for start, (first, last) in zip(starts, itertools.pairwise(cuts), strict=True)
    ]


@dataclass(frozen=True)
class Tiling:
    """Settings for dividing an item into tiles. Each value is one number for all axes, or a sequence with one per axis.

    Attributes:
        tile: maximum length of a tile, margins included; shorter axes are not divided.
        margin: context on each side of a tile that is dropped from its result.
        blend: width of the overlap in which neighbours are cross-faded.
        multiple: number by which the lengths of the function's inputs must be divisible; tiles start at multiples of
            it.
        least: minimum length of the function's inputs.
    """

    tile: PerAxis
    margin: PerAxis = 0
    blend: PerAxis = 0
    multiple: PerAxis = 1
    least: PerAxis = 1

    def spans(self, sizes: Sequence[int]) -> list[list[Span]]:
        """Divides every axis of an item, after extending it to the next length that the function accepts.

        Raises:
            InputError: `tile` is too small for the margin and the overlap.
        """
        settings = (self.tile, self.margin, self.blend, self.multiple, self.least)
        return [
            spans(
                _upward(max(size, least), multiple),
                tile=tile,
                margin=margin,
                blend=blend,
                multiple=multiple,
                least=least,
            )
            for size, tile, margin, blend, multiple, least in zip(
                sizes, *(_each(setting, len(sizes)) for setting in settings), strict=True
            )
        ]

    def divides(self, sizes: Sequence[int]) -> bool:
        """Returns whether an item has more than one tile."""
        return any(len(axis) > 1 for axis in self.spans(sizes))


@dataclass(frozen=True)
class Needs:
    """Requirements of networks on the sizes of tiles.

    Networks declare them as attributes with these names. Without the attributes, any size is accepted, and the
    receptive radius is unknown.

    Attributes:
        multiple: number by which all sides must be divisible.
        least: minimum side.
        receptive_radius: maximum distance from an input to an output that depends on it, in evaluation mode; None if it
            is unknown or if outputs depend on the whole item.
    """

    multiple: int = 1
    least: int = 1
    receptive_radius: int | None = None

    @classmethod
    def of(cls, networks: Iterable[nn.Module]) -> Needs:
        """Returns the combined requirements of networks that run in parallel, not in sequence.

        If a network does not declare `multiple` or `least`, those of its submodules apply, and its receptive radius is
        unknown.
        """
        few = list(networks)
        radii = [getattr(network, "receptive_radius", None) for network in few]
        return cls(
            math.lcm(*(number for network in few for number in _declared(network, "multiple"))),
            max((number for network in few for number in _declared(network, "least")), default=1),
            None if None in radii or not radii else max(radius for radius in radii if radius is not None),
        )

    def tiling(self, tile: int | None = None) -> Tiling:
        """Returns a tiling, which gives exact results if tiles are large enough for the receptive radius.

        Otherwise, the margin is 1/16 of a tile, and tiles are blended over 1/8 of a tile.

        Args:
            tile: maximum side of a tile (default: `TILE`, or `3 * multiple` if that is larger).
        """
        tile = max(TILE, 3 * self.multiple) if tile is None else tile
        if self.exact_from is not None and tile >= self.exact_from:
            return Tiling(tile, margin=self.receptive_radius or 0, multiple=self.multiple, least=self.least)
        return Tiling(tile, margin=tile // 16, blend=tile // 8, multiple=self.multiple, least=self.least)

    @property
    def exact_from(self) -> int | None:
        """Minimum side of a tile for exact results; None if no tile gives exact results."""
        if self.receptive_radius is None:
            return None
        return 2 * _upward(self.receptive_radius, self.multiple) + _needed(self.multiple, self.least)


def _declared(network: nn.Module, name: str) -> list[int]:
    """Returns the values of an attribute of a network, or of its submodules if the network does not have it."""
    parts = [network] if hasattr(network, name) else network.modules()
    return [getattr(part, name) for part in parts if isinstance(getattr(part, name, None), int)]


@torch.no_grad()
def tiled(
    function: Callable[[Tensor], Tensor],
    source: Sliceable,
    tiling: Tiling,
    *,
    out: Callable[[list[int]], Buffer] | None = None,
    show: Callable[[int, int], None] | None = None,
) -> Any:
    """Applies a function to an item tile by tile.

    Only one tile at a time is held in floating point: parts of the source are read when needed, and results are written
    to the output immediately. Axes whose size is not a multiple are padded at the end by reflection, and the result is
    cropped.

    Args:
        function: maps `[B, C, …]` to `[B, C', …]`, where axes have the same length or an integer multiple of it (as in
            super-resolution).
        source: `[B, C, …]`.
        tiling: size, margin and overlap of the tiles.
        out: creates the output array of a given shape (default: a tensor like the first result).
        show: called with the number of finished tiles and the total.

    Returns:
        The output, `[B, C', …]`.

    Raises:
        InputError: the tiles are too small for their margin and overlap, or results have an unsupported size.
    """
    sizes = list(source.shape[2:])
    axes, blends = tiling.spans(sizes), _each(tiling.blend, len(sizes))
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


def _needed(multiple: int, least: int) -> int:
    """Returns the smallest maximum part length for which an evenly divided axis has no part shorter than `least`."""
    return _upward(2 * least, multiple) if least > multiple else multiple


def _upward(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _read(source: Sliceable, place: Sequence[Span], sizes: Sequence[int]) -> Tensor:
    """Returns a tile's input, reflected beyond the end of an axis."""
    wanted = [_reflected(torch.arange(span.start, span.stop), size) for span, size in zip(place, sizes, strict=True)]
    part = source[(..., *(slice(int(index.min()), int(index.max()) + 1) for index in wanted))]
    read = part if isinstance(part, Tensor) else torch.tensor(part)
    for axis, (index, span, size) in enumerate(zip(wanted, place, sizes, strict=True), start=2):
        if span.stop > size:
            read = read.index_select(axis, (index - index.min()).to(read.device))
    return read


def _reflected(index: Tensor, size: int) -> Tensor:
    """Returns positions on an axis that is repeatedly reflected at both ends, without repeating the end values."""
    if size == 1:
        return torch.zeros_like(index)
    return (size - 1) - ((size - 1) - index % (2 * (size - 1))).abs()


def _scales(made: Tensor, place: Sequence[Span]) -> list[int]:
    given = [span.stop - span.start for span in place]
    if any(after % before or not after for before, after in zip(given, made.shape[2:], strict=True)):
        before, after = ("x".join(map(str, sizes)) for sizes in (given, made.shape[2:]))
        raise InputError(
            f"the network maps {before} to {after}; tiling needs outputs whose size is an integer multiple"
        )
    return [after // before for before, after in zip(given, made.shape[2:], strict=True)]


def _write(
    out: Buffer, made: Tensor, place: Sequence[Span], scales: Sequence[int], sizes: Sequence[int], blends: Sequence[int]
) -> None:
    """Writes the kept part of a tile, cross-faded with the tiles that were written before it.

    The result at a position is the sum of the tiles' results, weighted by products of ramps that sum to 1. Since tiles
    are written one after the other, a tile with weight w is blended in with w / (sum of the weights so far).
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
    """Returns a tile's weights along an axis, and the sum of the weights of the tiles before it."""
    own, earlier = torch.ones((2, (span.last - span.first) * scale))
    earlier.zero_()
    width = blend * scale
    ramp = (torch.arange(width) + 0.5) / width
    if span.fades[0]:
        own[:width], earlier[:width] = ramp, 1 - ramp
    if span.fades[1]:
        own[len(own) - width :] = 1 - ramp
    return own, earlier
