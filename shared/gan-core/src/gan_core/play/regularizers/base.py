"""Interface of regularizers: their settings, and the methods that an adversary calls in a turn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_core.errors import RecipeError
from gan_core.nn.precision import full_precision, in_full_precision
from gan_core.play.judgement import Judgement, joined
from gan_core.play.objectives import Objective, Terms
from gan_core.recipe import Settings

Network = Callable[[Tensor], Tensor]
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


@dataclass(frozen=True)
class Generation:
    """The generator of an adversary's fake samples, for regularizers that need it.

    Attributes:
        network: the generator.
        latent: maps `(count, **condition)` to the latents `[count, …]` at which path lengths are measured. The latents
            may require gradients, so that the penalty also trains a mapping network.
        render: maps `(latents, **condition)` to samples.
    """

    network: nn.Module
    latent: Callable[..., Tensor]
    render: Callable[..., Tensor]


class Timing(Protocol):
    """Interface of the progress of a training run for regularizers; see `gan_core.play.adversary.Moment`."""

    @property
    def step(self) -> int: ...
    @property
    def progress(self) -> float: ...
    @property
    def batch_size(self) -> int: ...


class Regularized(Protocol):
    """Interface of an adversary for regularizers; see `gan_core.play.adversary.Adversary`."""

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
    """The samples of a player's turn and their judgements, which are computed on first access.

    Attributes:
        adversary: the discriminator with its objective.
        fake: packed fake samples `[B / pack, …]`, before augmentation; without gradients in the discriminator's turn.
        given: packed real samples `[B / pack, …]`, before augmentation; None if the game passes none in this turn.
        condition: further inputs of the network.
    """

    adversary: Regularized
    fake: Tensor
    given: Tensor | None
    condition: Mapping[str, Any]

    @property
    def real(self) -> Tensor:
        """Packed real samples `[B / pack, …]`, before augmentation.

        Raises:
            RecipeError: the game passes none in this turn.
        """
        if self.given is None:
            names = [f"the objective `{self.adversary.objective.name}`"]
            names += [f"`regularizers.{r.name}`" for r in self.adversary.regularizers]
            reason = f"{' or '.join(names)} needs real samples in the generator's turn, but this game passes none"
            raise RecipeError(f"{reason}; remove what needs them, or pass `real` to `generator_terms`")
        return self.given

    @cached_property
    def real_judgement(self) -> Judgement:
        """The judgement of the augmented real samples, with gradients."""
        with torch.enable_grad():
            return self.adversary.judge(self.real, **self.condition)

    @cached_property
    def fake_judgement(self) -> Judgement:
        """The judgement of the augmented fake samples, with gradients."""
        with torch.enable_grad():
            return self.adversary.judge(self.fake, **self.condition)

    @property
    def real_logits(self) -> Tensor:
        """All logits of each pack of real samples, `[B / pack, …]`."""
        return joined(self.real_judgement)

    @property
    def fake_logits(self) -> Tensor:
        """All logits of each pack of fake samples, `[B / pack, …]`."""
        return joined(self.fake_judgement)


class Regularizer(Settings):
    """Base class of penalties, augmentations and constraints of an adversary. By default, no method has an effect."""

    name: ClassVar[str]

    @property
    def moves(self) -> bool:
        """Whether it moves or covers parts of samples, so that conditions aligned with the samples must move too."""
        return False

    def prepare(self, adversary: Regularized) -> nn.Module | None:
        """Prepares the adversary before training, for example by changing its network.

        Returns:
            A module with the regularizer's state, stored as `adversary.memory[name]`; None if it has no state.

        Raises:
            RecipeError: the regularizer does not apply to this adversary.
        """
        return None

    def kept(self, adversary: Regularized, kind: type[M]) -> M:
        """Returns the module that `prepare` returned."""
        module = adversary.memory[self.name]
        assert isinstance(module, kind)
        return module

    def view(self, adversary: Regularized, samples: Tensor) -> Tensor:
        """Augments samples `[B, …]`, real and fake, before the discriminator, in the turns of both players."""
        return samples

    def recall(self, adversary: Regularized, fake: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Returns the fake samples that the discriminator is trained on, given newly generated ones, `[B, …]`."""
        return fake

    def discriminator_terms(self, turn: Turn) -> Terms:
        """Computes additional terms of the discriminator's loss by name, already weighted."""
        return {}

    def generator_adversarial(self, turn: Turn) -> Tensor | None:
        """Computes a replacement for the generator's adversarial term; None keeps the term of the objective."""
        return None

    def generator_terms(self, turn: Turn) -> Terms:
        """Computes additional terms of the generator's loss by name, already weighted."""
        return {}

    def after_turn(self, adversary: Regularized, values: Terms) -> None:
        """Updates the regularizer's state after a turn of any player; see `Adversary.after_turn`."""


class Lazy(Regularizer):
    """A weighted term that is computed every `interval` steps.

    The weight is multiplied by the interval, so that the mean strength does not depend on it (Karras et al. 2020,
    arXiv:1912.04958, section 3.1). Adam's settings are not changed, because the factors in the paper's appendix B apply
    to a penalty with its own optimizer step. Here, the term shares the step of the adversarial term.

    Attributes:
        weight: weight of the term.
        interval: number of steps between computations.
    """

    weight: float = Field(gt=0)
    interval: int = Field(default=1, ge=1)

    def due(self, step: int, value: Callable[[], Tensor]) -> Terms:
        """Returns the weighted term by name in every `interval`-th step, and an empty dictionary in other steps."""
        return {} if step % self.interval else {self.name: self.weight * self.interval * value()}


class Penalty(Lazy):
    """A penalty on the gradients of the discriminator with respect to samples."""

    @abstractmethod
    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        """Computes the unweighted penalty, a scalar.

        Args:
            network: maps samples `[B, …]` to logits `[B, …]`; the sum of a sample's logits is differentiated.
            real: real samples, `[B, …]`.
            fake: fake samples, `[B, …]`.
        """

    def discriminator_terms(self, turn: Turn) -> Terms:
        judge = turn.adversary.judge_with(uncompiled(turn.adversary.network), **turn.condition)
        step = turn.adversary.moment.step
        return penalties([self], step, lambda samples: joined(judge(samples)), turn.real, turn.fake)


def penalties(
    regularizers: Iterable[Penalty], step: int, network: Network, real: Tensor, fake: Tensor
) -> dict[str, Tensor]:
    """Computes the weighted penalties that are due in this step, in float32 because of the second derivatives."""
    terms: Terms = {}
    with in_full_precision(real):
        for r in regularizers:
            terms |= r.due(step, lambda r=r: r.penalty(network, full_precision(real), full_precision(fake)))  # type: ignore[misc]
    return terms


def uncompiled(network: Callable[..., T]) -> Callable[..., T]:
    """Returns a function that calls a network uncompiled, because compiled networks have no second derivative."""

    def call(*inputs: Any, **settings: Any) -> T:
        with torch.compiler.set_stance("force_eager"):
            return network(*inputs, **settings)

    return call
