"""Experience replay: a pool of earlier fakes that the discriminator sees again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gan_core import draws
from gan_core.distributed import rows_of_all


class ReplayPool(nn.Module):
    """A pool of generated samples (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3, as CycleGAN uses it).

    Until the pool is full, samples are stored and returned. After that, each sample is returned itself or, with
    probability 1/2, replaces a stored sample, which is returned instead. The pool is part of its game's state. Several
    processes share one pool: each stores the samples of all processes and returns those for its own. Samples of another
    shape, from networks that have grown, clear the pool.

    Args:
        size: maximum number of stored samples.
    """

    def __init__(self, size: int = 50):
        super().__init__()
        self.size = size
        self.pool: Tensor
        self.register_buffer("pool", torch.empty(0))

    @torch.no_grad()
    def forward(self, samples: Tensor) -> Tensor:
        """Samples `[B, …]` of now and of before, constant."""
        chances, _ = rows_of_all(draws.uniform(len(samples), like=samples))
        places, _ = rows_of_all(draws.integers(self.size, len(samples), like=samples))
        passed, mine = rows_of_all(samples)
        if self.pool.shape[1:] != passed.shape[1:]:
            self.pool = passed[:0].clone()
        free = min(self.size - len(self.pool), len(passed))
        if free:
            self.pool = torch.cat([self.pool, passed[:free]])
        passed = passed.clone()
        for row in (
            slice(n, n + 1) for n in range(free, len(passed))
        ):  # one row, of which no accelerator tells a value
            swap, now, before = chances[row] > 0.5, passed[row].clone(), self.pool[places[row]]
            swap = swap.view([1] * now.ndim)
            passed[row], self.pool[places[row]] = torch.where(swap, before, now), torch.where(swap, now, before)
        return passed[mine]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}pool", self.pool)
        self.pool = torch.empty_like(saved, device=self.pool.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
