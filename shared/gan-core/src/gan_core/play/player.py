"""Players, which train networks, and phases, the parts of a training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gan_core.data import Batch
from gan_core.errors import RecipeError
from gan_core.play.objectives import Terms
from gan_core.recipe import Optimizer


class Mover(Protocol):
    """Interface of a player's training state for custom steps (`gan_core.training.player_state.PlayerState`)."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Parameters that the player trains."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer."""

    def part(self, index: int, count: int, batch: Batch) -> AbstractContextManager[object]:
        """Returns the context manager for the loss and the backward pass of one of `count` parts of the batch."""

    def loss(self, batch: Batch) -> Terms:
        """Returns the player's loss terms on a batch, in the recipe's precision."""

    def backward(self, loss: Tensor) -> None:
        """Runs the backward pass of the loss, which adds to the parameters' gradients."""

    def update(self) -> None:
        """Updates the parameters and clears their gradients."""


@dataclass(frozen=True)
class Player:
    """A player: the networks that it trains, its loss and its optimizer.

    Attributes:
        name: name in logs and recipes (`players.<name>.optimizer …`).
        networks: networks that it trains. Its loss must depend on all of their parameters.
        loss: maps a batch to scalars by name, already weighted; their sum is minimised.
        turns: number of turns in a step, each on a new batch, or on the staged batch if the game has one.
        every: interval in steps at which it takes part, from the first step of a phase.
        optimizer: settings of its optimizer; None uses the recipe's.
        step: replaces the default backward pass and update, for example for differential privacy: takes the player's
            `Mover` and the batches of a turn, computes gradients, calls `update` and returns scalars by name.
    """

    name: str
    networks: tuple[nn.Module, ...]
    loss: Callable[[Batch], Terms]
    turns: int = 1
    every: int = 1
    optimizer: Optimizer | None = None
    step: Callable[[Mover, Sequence[Batch]], Terms] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Returns the parameters of its networks that require gradients, without duplicates."""
        own = dict.fromkeys(parameter for network in self.networks for parameter in network.parameters())
        return [parameter for parameter in own if parameter.requires_grad]


@dataclass(frozen=True)
class Phase:
    """A part of a training run. Its length is given by one of `share` (default: 1), `steps` and `epochs`.

    Attributes:
        name: name in logs.
        players: names of the players that take part (default: all). Networks that none of them trains are frozen and in
            evaluation mode.
        share: relative length of the phase: the steps that remain after all phases with `steps` or `epochs` are divided
            in proportion to the shares.
        spec: changed fields of the data specification: `{"image_size": 16}`.
        batch_size: global batch size; None uses the recipe's.
        steps: number of steps.
        epochs: number of passes over the training items, counted in samples read.
        log_every: steps between lines in the log; None uses the recipe's.
        sample_every: steps between pictures of samples; None uses the recipe's.
        checkpoint_every: steps between checkpoints; None uses the recipe's.

    Raises:
        RecipeError: a value is not positive, or more than one of `share`, `steps` and `epochs` is given.
    """

    name: str = "adversarial"
    players: tuple[str, ...] | None = None
    share: float | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    steps: int | None = None
    epochs: float | None = None
    log_every: int | None = None
    sample_every: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        lengths = {name: getattr(self, name) for name in ("share", "steps", "epochs")}
        given = {name: value for name, value in lengths.items() if value is not None}
        if len(given) > 1:
            raise RecipeError(f"the phase `{self.name}` has {' and '.join(given)}; give one of share, steps and epochs")
        if not given:
            object.__setattr__(self, "share", 1.0)
        whole = ("batch_size", "log_every", "sample_every", "checkpoint_every")
        for name, value in (given | {name: getattr(self, name) for name in whole}).items():
            if value is not None and not value > 0:
                raise RecipeError(f"`{name}` of the phase `{self.name}` is {value}; expected a positive number")
