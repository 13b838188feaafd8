"""Random draws that depend on the seed, the step and the sample's place in the global batch, and on nothing else.

Noise that belongs to a sample (its latent, its mixing weight) is drawn here. Inside a training every process and every
part of an accumulated batch draws for the *whole* global batch from the same stream and keeps its own rows, so the
number of processes and parts changes no number. Outside a training the draws come from torch's default generator.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class _Stream:
    generator: torch.Generator
    start: int
    rows: int
    total: int


_stream: ContextVar[_Stream | None] = ContextVar("stream", default=None)


def mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers; a change in any of them changes all of it."""
    digest = blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def drawing(seed: int, device: torch.device, *, start: int = 0, rows: int = 1, total: int = 1) -> Iterator[None]:
    """Within it, draws come from the stream of `seed`, for the `rows` from `start` on of a batch of `total`."""
    token = _stream.set(_Stream(torch.Generator(device).manual_seed(seed), start, rows, total))
    try:
        yield
    finally:
        _stream.reset(token)


def normal(count: int, *shape: int, like: Tensor, truncation: float | None = None) -> Tensor:
    """Standard normal noise `[count, *shape]` on the device of `like`.

    Args:
        count: samples in this process's part of the batch.
        shape: of one sample.
        like: a tensor whose device the noise is made on.
        truncation: ψ in (0, 1]: values are redrawn within ±2 and scaled by ψ (Brock et al. 2019, section 3.1).
    """

    def fill(z: Tensor, generator: torch.Generator | None) -> None:
        if truncation is None:
            z.normal_(generator=generator)
        else:
            torch.nn.init.trunc_normal_(z, a=-2.0, b=2.0, generator=generator).mul_(truncation)

    return _draw(fill, count, shape, like)


def uniform(count: int, *shape: int, like: Tensor) -> Tensor:
    """Noise `[count, *shape]`, uniform in [0, 1)."""
    return _draw(lambda u, generator: u.uniform_(generator=generator), count, shape, like)


def integers(high: int, count: int, *shape: int, like: Tensor) -> Tensor:
    """Integers `[count, *shape]`, uniform in [0, high)."""
    return _draw(lambda k, generator: k.random_(high, generator=generator), count, shape, like, torch.int64)


def _draw(
    fill: Callable[[Tensor, torch.Generator | None], object], count: int, shape: tuple[int, ...], like: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    stream = _stream.get()
    if stream is None:
        drawn = torch.empty(count, *shape, device=like.device, dtype=dtype)
        fill(drawn, None)
        return drawn
    total, start = (n * count // stream.rows for n in (stream.total, stream.start))
    drawn = torch.empty(-(-total // ROWS) * ROWS, *shape, device=like.device, dtype=dtype)
    fill(drawn, stream.generator)
    return drawn[start : start + count]
