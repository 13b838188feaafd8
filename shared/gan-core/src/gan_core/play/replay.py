"""Experience replay: a pool of earlier fake samples for the discriminator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gan_core import draws
from gan_core.distributed import rows_of_all


class ReplayPool(nn.Module):
    """A pool of generated samples (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3), as in CycleGAN.

    Until the pool is full, samples are stored and returned. After that, each sample is either returned or, with
    probability 1/2, replaces a stored sample, which is returned instead. The pool is part of the game's state. With
    several processes, each process stores the samples of all processes and returns the rows for its own samples. The
    pool is cleared when samples have another shape, for example because the networks have grown.

    Args:
        size: maximum number of stored samples.
    """

    def __init__(self, size: int = 50):
        super().__init__()
        self.size = size
        self.pool: Tensor
        self.register_buffer("pool", torch.empty(0))
        self.register_load_state_dict_pre_hook(_resize)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def forward(self, samples: Tensor) -> Tensor:
        """Returns a mix of new and earlier samples `[B, …]`, without gradients."""
        chances, _ = rows_of_all(draws.uniform(len(samples), like=samples))
        places, _ = rows_of_all(draws.integers(self.size, len(samples), like=samples))
        passed, mine = rows_of_all(samples)
        if self.pool.shape[1:] != passed.shape[1:]:
            self.pool = passed[:0].clone()
        free = min(self.size - len(self.pool), len(passed))
        if free:
            self.pool = torch.cat([self.pool, passed[:free]])
        passed = passed.clone()
        for number in range(free, len(passed)):
            row = slice(number, number + 1)  # a slice, because indexing by a value would wait for the accelerator
            swap, now, before = chances[row] > 0.5, passed[row].clone(), self.pool[places[row]]
            swap = swap.view([1] * now.ndim)
            passed[row], self.pool[places[row]] = torch.where(swap, before, now), torch.where(swap, now, before)
        return passed[mine]


def _resize(pool: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Resizes a pool to the size of the saved one before it is loaded."""
    assert isinstance(pool, ReplayPool)
    saved = state_dict.get(f"{prefix}pool", pool.pool)
    pool.pool = torch.empty_like(saved, device=pool.pool.device)
