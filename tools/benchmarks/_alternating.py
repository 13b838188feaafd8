"""Timing of a training run and a bare loop that alternate in one process, so that other load affects both equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gan_core.data import TensorDataset


class Alternating(TensorDataset):
    """Dataset that runs a step of the bare loop before each training step.

    Batches that are read without gradients, for sample pictures and metrics, are not counted.

    Args:
        samples: tensors by key.
        loop: yields the seconds of each bare step.
        reads: number of batches that training reads per step.
        clock: returns the time in seconds.

    Attributes:
        ours: seconds of each training step, without the bare step.
        theirs: seconds of the bare step before each training step.
    """

    def __init__(
        self,
        samples: dict[str, Tensor],
        loop: Iterator[float],
        reads: int,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        super().__init__(samples)
        self.loop, self.reads, self.clock = loop, reads, clock
        self.ours, self.theirs = list[float](), list[float]()
        self.read, self.resumed = 0, 0.0

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        if torch.is_grad_enabled():
            if self.read % self.reads == 0:
                if self.read:
                    self.ours.append(self.clock() - self.resumed)
                self.theirs.append(next(self.loop))
                self.resumed = self.clock()
            self.read += 1
        return super().__getitems__(indices)

    def pairs(self, warm: int) -> list[tuple[float, float]]:
        """Returns the seconds of each training step and of the bare step before it, without the first `warm` steps."""
        return list(zip(self.ours, self.theirs, strict=False))[warm:]
