"""What a regularizer is: settings that a recipe names, and the places of a two-player game where it takes part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_core.game import Terms
from gan_core.precision import full_precision, in_full_precision
from gan_core.recipe import Settings

if TYPE_CHECKING:
    from gan_core.two_player import TwoPlayerGame

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Turn:
    """What the player that moves has before it.

    Attributes:
        game: that is played.
        real: samples `[B, …]`.
        fake: samples `[B, …]`; constant in the discriminator's turn.
        condition: what the networks are told about them: nothing, or `label [B]`.
    """

    game: TwoPlayerGame
    real: Tensor
    fake: Tensor
    condition: Mapping[str, Any]


@dataclass(frozen=True)
class JudgedTurn(Turn):
    """The discriminator's turn, in which samples are judged when that is first asked for, always with gradients.

    Attributes:
        real_logits: of the real samples, `[B]`.
        fake_logits: of the fakes, `[B]`.
    """

    @cached_property
    def real_logits(self) -> Tensor:
        with torch.enable_grad():
            return self.game.judge(self.real, **self.condition)

    @cached_property
    def fake_logits(self) -> Tensor:
        with torch.enable_grad():
            return self.game.judge(self.fake, **self.condition)


class Regularizer(Settings):
    """Settings of something that steadies a game. What it does is in the places that a subclass fills."""

    name: ClassVar[str]

    def prepare(self, game: TwoPlayerGame) -> nn.Module | None:
        """Changes the networks before the game begins; what is returned is kept in `game.memory` under its name.

        Raises:
            RecipeError: it makes no sense in this game.
        """
        return None

    def view(self, game: TwoPlayerGame, samples: Tensor) -> Tensor:
        """What the discriminator is shown of samples, real and fake, in both turns."""
        return samples

    def recall(self, game: TwoPlayerGame, fake: Tensor) -> Tensor:
        """The fakes of the discriminator's turn."""
        return fake

    def discriminator_terms(self, turn: JudgedTurn) -> Terms:
        """What the discriminator minimises besides, weighted."""
        return {}

    def generator_terms(self, turn: Turn) -> Terms:
        """What the generator minimises besides, weighted."""
        return {}

    def after_turn(self, game: TwoPlayerGame, player: str, values: Terms) -> None:
        """After every turn; see `Game.after_turn`."""


class Lazy(Regularizer):
    """A term with a factor, taken every so many steps.

    A lazy one (an `interval` over 1) is taken with `interval` times the weight, so that its mean strength stays the
    same (Karras et al. 2020, arXiv:1912.04958, section 3.1). Adam's settings stay: the factors of its appendix B are
    for a penalty that has an optimizer step of its own, and here it shares the step of the adversarial term.
    """

    weight: float = Field(gt=0)
    interval: int = Field(default=1, ge=1)

    def due(self, step: int, value: Callable[[], Tensor]) -> Terms:
        """The weighted term, if it is due at this step."""
        return {} if step % self.interval else {self.name: self.weight * self.interval * value()}


class Penalty(Lazy):
    """A penalty on the discriminator at some points."""

    @abstractmethod
    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        """The unweighted penalty, a scalar.

        Args:
            network: the discriminator, samples `[B, …]` to logits `[B]`.
            real: samples `[B, …]`.
            fake: samples `[B, …]`.
        """

    def discriminator_terms(self, turn: JudgedTurn) -> Terms:
        game = turn.game
        smooth = game.judge_by(uncompiled(game.discriminator), **turn.condition)
        return penalties([self], game.step, smooth, turn.real, turn.fake)


def penalties(
    regularizers: Iterable[Penalty], step: int, network: Network, real: Tensor, fake: Tensor
) -> dict[str, Tensor]:
    """The weighted terms that are due at this step. Taken in float32: a second derivative has no digits to spare."""
    terms: Terms = {}
    with in_full_precision(real):
        for r in regularizers:
            terms |= r.due(step, lambda r=r: r.penalty(network, full_precision(real), full_precision(fake)))  # type: ignore[misc]
    return terms


@contextmanager
def without_compiling(network: nn.Module) -> Iterator[None]:
    """Within it, the network and its parts run as they are written: compiled ones have no second derivative."""
    compiled = {part: part._compiled_call_impl for part in network.modules() if part._compiled_call_impl is not None}
    for part in compiled:
        part._compiled_call_impl = None
    try:
        yield
    finally:
        for part, call in compiled.items():
            part._compiled_call_impl = call


def uncompiled(network: nn.Module) -> Callable[..., Tensor]:
    """The network as a penalty must call it, with a second derivative even where it is compiled."""

    def call(*inputs: Any, **settings: Any) -> Tensor:
        with without_compiling(network):
            result: Tensor = network(*inputs, **settings)
            return result

    return call
