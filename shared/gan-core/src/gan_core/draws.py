"""Random draws that depend on the seed, the step and the sample's place in the global batch, and on nothing else.

Noise that belongs to a sample (its latent, its mixing weight) is drawn here. Inside a training every process and every
part of an accumulated batch draws for the *whole* global batch from the same stream and keeps its own rows, so the
number of processes and parts changes no number. Outside a training the draws come from torch's default generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

ROWS = 16
"""Draws are made for a multiple of this many samples: torch fills whole vectors of 16, and then a longer draw from the
same seed begins with the shorter one (on the CPU)."""

BLOCK = 64
"""Number of generated samples for which noise is drawn from one seed, however many run through the networks at once."""

WITHIN_TWO = math.erf(math.sqrt(2))
"""The share of a standard normal distribution that lies within ±2."""


@dataclass(frozen=True)
class _Stream:
    generator: torch.Generator
    start: int
    rows: int
    total: int


_stream: ContextVar[_Stream | None] = ContextVar("stream", default=None)
_reading: ContextVar[tuple[int, int] | None] = ContextVar("reading", default=None)


def mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers; a change in any of them changes all of it."""
    digest = blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_torch(seed: int, device: torch.device) -> None:
    """Seeds torch's own generators; `torch.manual_seed` would take a quarter of a millisecond to note who asked."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def drawing(seed: int, device: torch.device, *, start: int = 0, rows: int = 1, total: int = 1) -> Iterator[None]:
    """Within it, draws come from the stream of `seed`, for the `rows` from `start` on of a batch of `total`."""
    token = _stream.set(_Stream(torch.Generator(device).manual_seed(seed), start, rows, total))
    try:
        yield
    finally:
        _stream.reset(token)


@contextmanager
def reading(seed: int, first: int) -> Iterator[None]:
    """Within it, a batch of items is read whose first one has this place among all that are read of a stream."""
    token = _reading.set((seed, first))
    try:
        yield
    finally:
        _reading.reset(token)


def of_items(count: int, numbers: int = 1) -> Tensor:
    """Returns numbers in [0, 1) for each item of a batch that a dataset reads, `[count, numbers]` in float64.

    They are a function of the seed and the item's place in the stream, whichever process or worker reads it, and the
    same when they are drawn again: parts of one item draw the same ones. Outside a stream, torch's default generator
    draws them.
    """
    stream = _reading.get()
    if stream is None:
        return torch.rand(count, numbers, dtype=torch.float64)
    seed, first = stream
    drawn = [[mix(seed, first + row, *[k] * (k > 0)) / 2**63 for k in range(numbers)] for row in range(count)]
    return torch.tensor(drawn, dtype=torch.float64).view(count, numbers)


@contextmanager
def apart(name: str) -> Iterator[None]:
    """Context in which `of_items` draws other numbers than outside, for parts of an item that must not draw alike."""
    stream = _reading.get()
    token = _reading.set(None if stream is None else (mix(stream[0], *name.encode()), stream[1]))
    try:
        yield
    finally:
        _reading.reset(token)


def normal(count: int, *shape: int, like: Tensor, truncation: float | None = None) -> Tensor:
    """Standard normal noise `[count, *shape]`, of the device and type of `like`.

    Args:
        count: samples in this process's part of the batch.
        shape: of one sample.
        like: a floating-point tensor.
        truncation: ψ in (0, 1]: values lie within ±2 and are scaled by ψ (Brock et al. 2019, section 3.1).
    """

    def fill(z: Tensor, generator: torch.Generator | None) -> None:
        if truncation is None:
            z.normal_(generator=generator)
        else:  # by the inverse of the distribution, as torch's own redraws, so that a longer draw begins otherwise
            z.uniform_(-WITHIN_TWO, WITHIN_TWO, generator=generator).erfinv_().mul_(math.sqrt(2)).clamp_(-2, 2)
            z.mul_(truncation)

    return _draw(fill, count, shape, like)


def uniform(count: int, *shape: int, like: Tensor) -> Tensor:
    """Noise `[count, *shape]`, uniform in [0, 1), of the device and type of `like`."""
    return _draw(lambda u, generator: u.uniform_(generator=generator), count, shape, like)


def symmetric(count: int, *shape: int, like: Tensor, truncation: float | None = None) -> Tensor:
    """A latent `[count, *shape]`, uniform in [-1, 1), or in [-ψ, ψ) where ψ is the truncation, as `like`."""
    latent = 2 * uniform(count, *shape, like=like) - 1
    return latent if truncation is None else truncation * latent


def integers(high: int, count: int, *shape: int, like: Tensor) -> Tensor:
    """Integers `[count, *shape]`, uniform in [0, high), on the device of `like`."""
    return _draw(lambda k, generator: k.random_(high, generator=generator), count, shape, like, torch.int64)


def shared_integers(high: int, count: int, *, like: Tensor) -> Tensor:
    """Integers `[count]`, uniform in [0, high), on the device of `like`: those of no sample, but of the whole batch.

    Every process and every part of an accumulated batch draws the same ones.
    """
    stream = _stream.get()
    drawn = torch.empty(count, dtype=torch.int64, device=like.device)
    return drawn.random_(high, generator=None if stream is None else stream.generator)


def _draw(
    fill: Callable[[Tensor, torch.Generator | None], object], count: int, shape: tuple[int, ...], like: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    stream = _stream.get()
    if stream is None:
        drawn = torch.empty(count, *shape, device=like.device, dtype=dtype or like.dtype)
        fill(drawn, None)
        return drawn
    total, start = (n * count // stream.rows for n in (stream.total, stream.start))
    drawn = torch.empty(-(-total // ROWS) * ROWS, *shape, device=like.device, dtype=dtype or like.dtype)
    fill(drawn, stream.generator)
    return drawn[start : start + count]
