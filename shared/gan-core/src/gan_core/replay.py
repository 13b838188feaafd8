"""Experience replay: a pool of earlier fakes, so that the discriminator does not forget them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gan_core import draws


class ReplayPool(nn.Module):
    """A pool of generated samples (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3, as CycleGAN uses it).

    Until it is full, samples are kept and passed on. From then on each is passed on itself, or, half of the time, put
    in the place of an earlier one that is passed on instead. It is part of its game's state.

    Args:
        size: samples that it holds.
    """

    def __init__(self, size: int = 50):
        super().__init__()
        self.size = size
        self.pool: Tensor
        self.register_buffer("pool", torch.empty(0))

    @torch.no_grad()
    def forward(self, samples: Tensor) -> Tensor:
        """Samples `[B, …]` of now and of before, constant."""
        swaps = draws.uniform(len(samples), like=samples) > 0.5
        places = draws.integers(self.size, len(samples), like=samples)
        passed = samples.detach().clone()
        free = min(self.size - len(self.pool), len(samples))
        if free:
            grown = samples[:free].detach()
            self.pool = torch.cat([self.pool, grown]) if len(self.pool) else grown.clone()
        for row in range(free, len(samples)):
            keep = swaps[row]
            kept, mine = self.pool[places[row]].clone(), passed[row].clone()
            passed[row] = torch.where(keep, kept, mine)
            self.pool[places[row]] = torch.where(keep, mine, kept)
        return passed

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.pool = torch.empty_like(state_dict[f"{prefix}pool"], device=self.pool.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
