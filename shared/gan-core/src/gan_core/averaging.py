"""The exponential moving average of the networks that samples are made with, buffers included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from gan_core.game import Game


class Average:
    """Weights averaged over the steps (Karras et al. 2018, arXiv:1710.10196, section 2).

    The decay warms up as (1 + t) / (10 + t), so that the first weights, which are noise, are soon forgotten.

    Args:
        game: whose `sampling` networks are averaged.
        decay: of the average at every step, once warm.
    """

    def __init__(self, game: Game, decay: float):
        self.decay = decay
        self.weights = dict(sampling_state(game))
        self.average = {name: tensor.clone() for name, tensor in self.weights.items()}
        self._smooth = [name for name, tensor in self.weights.items() if tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the weights; buffers that count are copied."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averages, weights = ([of[name] for name in self._smooth] for of in (self.average, self.weights))
        torch._foreach_lerp_(averages, weights, weight)
        for name in self.weights.keys() - self._smooth:
            self.average[name].copy_(self.weights[name])

    @torch.no_grad()
    def load(self, average: Mapping[str, Tensor]) -> None:
        """Takes up an average that was saved."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the average with the weights, in place."""
        for name, weight in self.weights.items():
            kept = weight.clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the game's networks hold the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def sampling_state(game: Game) -> Iterator[tuple[str, Tensor]]:
    """Names (as in the game's state) and tensors of the networks that samples are made with."""
    for network in game.sampling:
        for name, tensor in game.get_submodule(network).state_dict(keep_vars=True).items():
            if isinstance(tensor, Tensor):
                yield f"{network}.{name}", tensor.data
