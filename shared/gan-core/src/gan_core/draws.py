"""Random numbers that depend only on the seed, the step and the sample's index in the global batch.

Noise that belongs to a sample (its latent, its mixing weight) is drawn here. During training, every process and every
part of an accumulated batch draws numbers for the *whole* global batch from the same stream and keeps its own rows, so
the result does not depend on the number of processes and parts. Outside of training, torch's default generator is used.
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
"""Draws are padded to a multiple of this number of samples. On the CPU, torch generates vectors of 16 values, and the
padding ensures that a longer draw from the same seed starts with the values of a shorter one."""

BLOCK = 64
"""Number of generated samples that share a seed, independently of the number generated in one forward pass."""

WITHIN_TWO = math.erf(math.sqrt(2))
"""Probability that a standard normal variable lies within ±2."""


@dataclass(frozen=True)
class _Stream:
    generator: torch.Generator
    start: int
    rows: int
    total: int


_stream: ContextVar[_Stream | None] = ContextVar("stream", default=None)
_reading: ContextVar[tuple[int, int] | None] = ContextVar("reading", default=None)


def mix(*numbers: int) -> int:
    """Returns a 63-bit seed that is a hash of several numbers."""
    digest = blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_torch(seed: int, device: torch.device) -> None:
    """Seeds torch's default generators, without the 0.25 ms in which `torch.manual_seed` records its caller."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class drawing:
    """Context manager under which random numbers are drawn from the stream of `seed`.

    The draws are those of samples `start` to `start + rows` out of `total`.
    """

    def __init__(self, seed: int, device: torch.device, *, start: int = 0, rows: int = 1, total: int = 1):
        self.seed, self.device, self.rows = seed, device, (start, rows, total)

    def __enter__(self) -> None:
        self.token = _stream.set(_Stream(torch.Generator(self.device).manual_seed(self.seed), *self.rows))

    def __exit__(self, *error: object) -> None:
        _stream.reset(self.token)


class reading:
    """Context manager for reading a batch of a stream; `first` is the index of the batch's first item in the stream."""

    def __init__(self, seed: int, first: int):
        self.place = seed, first

    def __enter__(self) -> None:
        self.token = _reading.set(self.place)

    def __exit__(self, *error: object) -> None:
        _reading.reset(self.token)


def of_items(count: int, numbers: int = 1) -> Tensor:
    """Returns random numbers in [0, 1) for each item of a batch that a dataset reads, `[count, numbers]` in float64.

    They depend only on the seed and the item's index in the stream, not on the process or worker that reads it.
    Repeated calls return the same numbers, so that all parts of an item share them. Outside a stream, torch's default
    generator is used.
    """
    stream = _reading.get()
    if stream is None:
        return torch.rand(count, numbers, dtype=torch.float64)
    seed, first = stream
    drawn = [[mix(seed, first + row, *[k] * (k > 0)) / 2**63 for k in range(numbers)] for row in range(count)]
    return torch.tensor(drawn, dtype=torch.float64).view(count, numbers)


@contextmanager
def apart(name: str) -> Iterator[None]:
    """Context manager under which `of_items` returns different numbers, for parts of an item drawn independently."""
    stream = _reading.get()
    token = _reading.set(None if stream is None else (mix(stream[0], *name.encode()), stream[1]))
    try:
        yield
    finally:
        _reading.reset(token)


def normal(count: int, *shape: int, like: Tensor, truncation: float | None = None) -> Tensor:
    """Returns standard normal noise `[count, *shape]`, with the device and dtype of `like`.

    Args:
        count: number of samples in this process's part of the batch.
        shape: shape of one sample.
        like: a floating-point tensor.
        truncation: ψ in (0, 1]; values are truncated to ±2 and scaled by ψ (Brock et al. 2019, section 3.1).
    """

    def fill(z: Tensor, generator: torch.Generator | None) -> None:
        if truncation is None:
            z.normal_(generator=generator)
        else:  # by the inverse CDF: torch's rejection sampling would make a longer draw start differently
            z.uniform_(-WITHIN_TWO, WITHIN_TWO, generator=generator).erfinv_().mul_(math.sqrt(2)).clamp_(-2, 2)
            z.mul_(truncation)

    return _draw(fill, count, shape, like)


def uniform(count: int, *shape: int, like: Tensor) -> Tensor:
    """Returns noise `[count, *shape]`, uniform in [0, 1), with the device and dtype of `like`."""
    return _draw(lambda u, generator: u.uniform_(generator=generator), count, shape, like)


def symmetric(count: int, *shape: int, like: Tensor, truncation: float | None = None) -> Tensor:
    """Returns latents `[count, *shape]`, uniform in [-1, 1), or in [-ψ, ψ) if the truncation ψ is given."""
    latent = 2 * uniform(count, *shape, like=like) - 1
    return latent if truncation is None else truncation * latent


def integers(high: int, count: int, *shape: int, like: Tensor) -> Tensor:
    """Returns integers `[count, *shape]`, uniform in [0, high), on the device of `like`."""
    return _draw(lambda k, generator: k.random_(high, generator=generator), count, shape, like, torch.int64)


def shared_integers(high: int, count: int, *, like: Tensor) -> Tensor:
    """Returns integers `[count]`, uniform in [0, high), on the device of `like`, for the whole batch.

    They are equal in all processes and in all parts of an accumulated batch.
    """
    stream = _stream.get()
    drawn = torch.empty(count, dtype=torch.int64, device=like.device)
    return drawn.random_(high, generator=None if stream is None else stream.generator)


def _draw(
    fill: Callable[[Tensor, torch.Generator | None], object],
    count: int,
    shape: tuple[int, ...],
    like: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    stream = _stream.get()
    if stream is None:
        drawn = torch.empty(count, *shape, device=like.device, dtype=dtype or like.dtype)
        fill(drawn, None)
        return drawn
    total, start = (n * count // stream.rows for n in (stream.total, stream.start))
    drawn = torch.empty(-(-total // ROWS) * ROWS, *shape, device=like.device, dtype=dtype or like.dtype)
    fill(drawn, stream.generator)
    return drawn[start : start + count]
