"""Exponential moving average (EMA) of the networks that generate samples, including their buffers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from gan_core.errors import RecipeError
from gan_core.nn.spectral import singular_vectors
from gan_core.play.game import Game
from gan_core.recipe import HalfLife


class Average:
    """Moving average of the weights (Karras et al. 2018, arXiv:1710.10196, section 2).

    Attributes:
        average: averaged tensors by name.
        names: names of all tensors that have been averaged so far.
        samples: number of samples so far; each step counts as one batch, however many batches it reads.

    Args:
        game: game whose `sampling` networks are averaged.
        rule: decay per step, or half-life in samples. A decay per step is limited to (1 + t) / (10 + t) after t steps,
            so that the random initial weights are soon forgotten.
    """

    def __init__(self, game: Game, rule: float | HalfLife):
        self.rule, self.samples = rule, 0
        self.average: dict[str, Tensor] = {}
        self.names: set[str] = set()
        self.follow(game)

    def follow(self, game: Game) -> None:
        """Updates the set of averaged tensors after networks have grown or moved to another device.

        The averages of new weights start at their current values. Parameters that do not require gradients are not
        averaged, unless they were averaged before a phase froze them.
        """
        parameters = game.named_parameters(remove_duplicate=False)
        fixed = {name for name, p in parameters if not p.requires_grad} - self.names
        self.weights = {name: tensor for name, tensor in sampling_state(game) if name not in fixed}
        self.names |= self.weights.keys()
        old = self.average
        self.average = {
            name: old[name] if name in old and old[name].shape == tensor.shape else tensor.clone()
            for name, tensor in self.weights.items()
        }
        vectors = set(singular_vectors(game))
        smooth = [name for name, t in self.weights.items() if t.is_floating_point() and name not in vectors]
        copied = [name for name in self.weights if name not in set(smooth)]
        self._smooth = ([self.average[name] for name in smooth], [self.weights[name] for name in smooth])
        self._copied = [(self.average[name], self.weights[name]) for name in copied]

    @torch.no_grad()
    def update(self, step: int, batch_size: int) -> None:
        """Updates the average with the current weights; integer buffers and singular vectors are copied.

        Args:
            step: number of steps before this one.
            batch_size: number of samples for which the step counts.
        """
        if self._smooth[0]:
            torch._foreach_lerp_(*self._smooth, 1 - self._decay(step, batch_size))
        for average, now in self._copied:
            average.copy_(now)
        self.samples += batch_size

    def _decay(self, step: int, batch_size: int) -> float:
        if not isinstance(self.rule, HalfLife):
            return min(self.rule, (1 + step) / (10 + step))
        ramp = math.inf if self.rule.ramp_up is None else self.samples * self.rule.ramp_up
        return 0.5 ** (batch_size / max(min(self.rule.half_life, ramp), 1e-8))

    @torch.no_grad()
    def load(self, average: Mapping[str, Tensor]) -> None:
        """Loads a saved average."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the average with the weights, in place. A weight may have several names."""
        weights = {name: weight.clone() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            weight.copy_(self.average[name])
        self.load(weights)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Context manager under which the game's networks hold the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def sampling_state(game: Game) -> Iterator[tuple[str, Tensor]]:
    """Yields names (as in the game's state) and tensors of the networks that generate samples.

    Raises:
        RecipeError: `sampling` contains a name that is not a network of the game.
    """
    networks = dict(game.named_modules())
    for network in (name for name in game.sampling if name not in game.absent):
        if network not in networks:
            title = type(game).__name__
            remedy = "list in `sampling` the networks that generate samples"
            raise RecipeError(f"{title} has no network `{network}`; {remedy}")
        for name, tensor in game.get_submodule(network).state_dict(keep_vars=True).items():
            if isinstance(tensor, Tensor):
                yield f"{network}.{name}", tensor.data
