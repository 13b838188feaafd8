"""The interface of regularizers: their settings, and the places of an adversary's turns where they take part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_core.errors import RecipeError
from gan_core.judgement import Judgement, joined
from gan_core.objectives import Objective, Terms
from gan_core.precision import full_precision, in_full_precision
from gan_core.recipe import Settings

Network = Callable[[Tensor], Tensor]
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


@dataclass(frozen=True)
class Generation:
    """The generator of an adversary's fake samples, for regularizers that concern it.

    Attributes:
        network: The generator.
        latent: `(count, **condition)` to the latents by which path lengths are measured. They may have a graph, so that
            the gradient reaches a mapping network.
        render: `(latents, **condition)` to samples.
    """

    network: nn.Module
    latent: Callable[..., Tensor]
    render: Callable[..., Tensor]


class Timing(Protocol):
    """The state of a training as regularizers see it; see `gan_core.adversary.Moment`."""

    @property
    def step(self) -> int: ...
    @property
    def progress(self) -> float: ...
    @property
    def batch_size(self) -> int: ...


class Regularized(Protocol):
    """An adversary as regularizers see it; see `gan_core.adversary.Adversary`."""

    network: nn.Module
    objective: Objective
    images: bool
    pack: int
    num_classes: int | None
    generation: Generation | None
    regularizers: tuple[Regularizer, ...]
    memory: nn.ModuleDict

    @property
    def moment(self) -> Timing: ...
    @property
    def trained(self) -> tuple[nn.Module, ...]: ...
    @property
    def optimizer(self) -> torch.optim.Optimizer | None: ...
    def note(self, name: str, value: Tensor) -> None: ...
    def judge(self, samples: Tensor, **condition: Any) -> Judgement: ...
    def judge_with(self, network: Callable[..., Any], **condition: Any) -> Callable[[Tensor], Judgement]: ...
    def augmented(self, samples: Tensor) -> Tensor: ...
    def probe(self, look: Callable[[Tensor, Mapping[str, Any]], T]) -> T | None: ...


@dataclass(frozen=True)
class Turn:
    """The samples of a player's turn, and their judgements, which are computed once, when first asked for.

    Attributes:
        adversary: The discriminator with its objective.
        fake: Packed samples `[B, …]`; constant in the discriminator's turn.
        given: Packed real samples `[B, …]`; None if the game has none in this turn.
        condition: What the networks take besides the samples.
    """

    adversary: Regularized
    fake: Tensor
    given: Tensor | None
    condition: Mapping[str, Any]

    @property
    def real(self) -> Tensor:
        """Packed real samples `[B, …]`.

        Raises:
            RecipeError: The game has none in this turn.
        """
        if self.given is None:
            names = [f"the objective `{self.adversary.objective.name}`"]
            names += [f"`regularizers.{r.name}`" for r in self.adversary.regularizers]
            reason = f"this game compares no real samples in the generator's turn, as {' or '.join(names)} does"
            raise RecipeError(f"{reason}; choose another, or pass `real` to `generator_terms`")
        return self.given

    @cached_property
    def real_judgement(self) -> Judgement:
        """The judgement of the real samples, with gradients."""
        with torch.enable_grad():
            return self.adversary.judge(self.real, **self.condition)

    @cached_property
    def fake_judgement(self) -> Judgement:
        """The judgement of the fake samples, with gradients."""
        with torch.enable_grad():
            return self.adversary.judge(self.fake, **self.condition)

    @property
    def real_logits(self) -> Tensor:
        """All logits of each real sample, `[B]` or `[B, …]`."""
        return joined(self.real_judgement)

    @property
    def fake_logits(self) -> Tensor:
        """All logits of each fake sample, `[B]` or `[B, …]`."""
        return joined(self.fake_judgement)


class Regularizer(Settings):
    """Settings of a penalty, an augmentation or a constraint of an adversary. Subclasses override what they change."""

    name: ClassVar[str]

    @property
    def moves(self) -> bool:
        """Whether it moves or covers parts of samples, so that what belongs to their places must move along."""
        return False

    def prepare(self, adversary: Regularized) -> nn.Module | None:
        """Changes the network before training; what is returned is kept in `adversary.memory` under its name.

        Raises:
            RecipeError: It does not apply to this adversary.
        """
        return None

    def kept(self, adversary: Regularized, kind: type[M]) -> M:
        """Returns the module that `prepare` returned."""
        module = adversary.memory[self.name]
        assert isinstance(module, kind)
        return module

    def view(self, adversary: Regularized, samples: Tensor) -> Tensor:
        """Returns samples as the discriminator sees them, real and fake, in both turns."""
        return samples

    def recall(self, adversary: Regularized, fake: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Returns the fake samples of the discriminator's turn."""
        return fake

    def discriminator_terms(self, turn: Turn) -> Terms:
        """Computes further terms of the discriminator, weighted."""
        return {}

    def generator_adversarial(self, turn: Turn) -> Tensor | None:
        """Computes the generator's adversarial term where it replaces the objective's, else returns None."""
        return None

    def generator_terms(self, turn: Turn) -> Terms:
        """Computes further terms of the generator, weighted."""
        return {}

    def after_turn(self, adversary: Regularized, values: Terms) -> None:
        """Updates the state after every turn of any player; see `Adversary.after_turn`."""


class Lazy(Regularizer):
    """A weighted term that is computed every `interval` steps.

    With an interval above 1, the weight is multiplied by it, so that the mean strength stays the same (Karras et al.
    2020, arXiv:1912.04958, section 3.1). Adam's settings are not changed: the factors of the paper's appendix B are for
    a penalty with an optimizer step of its own, and here it shares the step of the adversarial term.
    """

    weight: float = Field(gt=0)
    interval: int = Field(default=1, ge=1)

    def due(self, step: int, value: Callable[[], Tensor]) -> Terms:
        """Returns the weighted term, if it is due at this step."""
        return {} if step % self.interval else {self.name: self.weight * self.interval * value()}


class Penalty(Lazy):
    """A penalty on the discriminator's gradients at some samples."""

    @abstractmethod
    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        """Computes the unweighted penalty, a scalar.

        Args:
            network: Samples `[B, …]` to logits, `[B]` or `[B, …]`, whose sum over all logits of a sample is
                differentiated.
            real: Samples `[B, …]`.
            fake: Samples `[B, …]`.
        """

    def discriminator_terms(self, turn: Turn) -> Terms:
        judge = turn.adversary.judge_with(uncompiled(turn.adversary.network), **turn.condition)
        step = turn.adversary.moment.step
        return penalties([self], step, lambda samples: joined(judge(samples)), turn.real, turn.fake)


def penalties(
    regularizers: Iterable[Penalty], step: int, network: Network, real: Tensor, fake: Tensor
) -> dict[str, Tensor]:
    """Computes the weighted terms that are due at this step, in float32: second derivatives need the precision."""
    terms: Terms = {}
    with in_full_precision(real):
        for r in regularizers:
            terms |= r.due(step, lambda r=r: r.penalty(network, full_precision(real), full_precision(fake)))  # type: ignore[misc]
    return terms


@contextmanager
def without_compiling(network: nn.Module) -> Iterator[None]:
    """Runs the network and its parts uncompiled within the context: compiled ones have no second derivative."""
    compiled = {part: part._compiled_call_impl for part in network.modules() if part._compiled_call_impl is not None}
    for part in compiled:
        part._compiled_call_impl = None
    try:
        yield
    finally:
        for part, call in compiled.items():
            part._compiled_call_impl = call


def uncompiled(network: nn.Module) -> Callable[..., Any]:
    """Returns a function that calls the network uncompiled, so that it can be differentiated twice."""

    def call(*inputs: Any, **settings: Any) -> Any:
        with without_compiling(network):
            return network(*inputs, **settings)

    return call
