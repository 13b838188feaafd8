"""Regularizers that change the adversarial losses or their samples: label smoothing, replay, unrolling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from gan_core.errors import RecipeError
from gan_core.play.judgement import discriminator_adversarial, generator_adversarial, total
from gan_core.play.objectives import Terms
from gan_core.play.regularizers.base import Regularized, Regularizer, Turn, uncompiled
from gan_core.play.replay import ReplayPool
from gan_core.recipe import Size


class LabelSmoothing(Regularizer):
    """One-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498, section 3.4).

    With the label t, a real sample's cross-entropy is softplus(-D(x)) + (1 - t) D(x); the second part is added here.

    Attributes:
        real: label t of real samples.
    """

    name = "label_smoothing"
    real: float = Field(default=0.9, gt=0.5, lt=1)

    def prepare(self, adversary: Regularized) -> None:
        if not adversary.objective.cross_entropy:
            reason = f"the objective `{adversary.objective.name}` has no probabilities"
            raise RecipeError(f"`regularizers.label_smoothing`: {reason}; use non_saturating or minimax")

    def discriminator_terms(self, turn: Turn) -> Terms:
        return {self.name: (1 - self.real) * total(logits.mean() for logits in turn.real_judgement.logits)}


class Replay(Regularizer):
    """Also trains the discriminator on earlier fakes (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3).

    Attributes:
        size: maximum number of fakes in the pool.
    """

    name = "replay"
    size: Size = 256

    def prepare(self, adversary: Regularized) -> nn.Module:
        if adversary.num_classes is not None:
            raise RecipeError(
                "`regularizers.replay` does not store classes, but this game has classes; omit one of them"
            )
        if adversary.objective.relative:
            reason = f"the objective `{adversary.objective.name}` compares samples of one batch"
            raise RecipeError(f"`regularizers.replay`: {reason}; omit one of them")
        return ReplayPool(self.size)

    def recall(self, adversary: Regularized, fake: Tensor, condition: Mapping[str, Any]) -> Tensor:
        if condition:
            reason = f"does not store conditions, but this game's discriminator takes `{next(iter(condition))}`"
            raise RecipeError(f"`regularizers.replay` {reason}; leave it out")
        remembered: Tensor = self.kept(adversary, ReplayPool)(fake)
        return remembered


Weights = dict[str, Tensor]
Move = Callable[[Weights, Mapping[str, Tensor]], Weights]
"""A differentiable optimizer step: maps weights, and the gradients of some of them, to the new values of the latter."""


class Unrolled(Regularizer):
    """Trains the generator against the discriminator after K more steps (Metz et al. 2017, arXiv:1611.02163, eq. 7-10).

    A copy of the discriminator is trained on the adversarial term of this turn's samples. Its updates are those of the
    discriminator's Adam, as in the paper's experiments, or plain gradient steps, as in the paper's equation 7. If the
    objective is zero-sum, the generator maximises the whole loss of the discriminator, because the term of the real
    samples also depends on the generator through the copy's weights.

    Attributes:
        steps: number of steps, K.
        learning_rate: learning rate η of plain gradient steps; None uses the updates of the discriminator's Adam.
        first_order: whether to ignore the effect of the generator's samples on the copy's weights in the gradient,
            which is cheaper.
    """

    name = "unrolled"
    steps: int = Field(default=5, ge=1, le=100)
    learning_rate: float | None = Field(default=None, gt=0)
    first_order: bool = False

    def generator_adversarial(self, turn: Turn) -> Tensor:
        """Computes the generator's adversarial term against the discriminator after `steps` more steps.

        Raises:
            RecipeError: `learning_rate` is None, and the discriminator is not trained by Adam.
        """
        adversary, objective, discriminator = turn.adversary, turn.adversary.objective, turn.adversary.network
        real, fake = turn.real, turn.fake
        move = self._move(adversary)
        weights = {name: p.detach().requires_grad_() for name, p in discriminator.named_parameters()}
        buffers = {name: b.clone() for name, b in discriminator.named_buffers()}

        @uncompiled
        def ahead(samples: Tensor, **condition: Any) -> Any:
            return functional_call(discriminator, (weights, buffers), (samples,), condition)

        judge = adversary.judge_with(ahead, **turn.condition)
        for _ in range(self.steps):
            seen = fake.detach() if self.first_order else fake
            loss = discriminator_adversarial(objective, judge(real), judge(seen))
            slopes = torch.autograd.grad(
                loss, list(weights.values()), create_graph=not self.first_order, allow_unused=True
            )
            reached = {name: slope for name, slope in zip(weights, slopes, strict=True) if slope is not None}
            weights = weights | move(weights, reached)  # parts that judge something else stay as they are
            if self.first_order:
                weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        if objective.zero_sum:
            return -discriminator_adversarial(objective, judge(real), judge(fake))
        return generator_adversarial(objective, judge(fake), judge(real) if objective.relative else None)

    def _move(self, adversary: Regularized) -> Move:
        if self.learning_rate is not None:
            return gradient_steps(self.learning_rate)
        optimizer = adversary.optimizer
        if not isinstance(optimizer, torch.optim.Adam):
            found = "no optimizer outside of a training run" if optimizer is None else type(optimizer).__name__
            asked = "`regularizers.unrolled` uses the discriminator's Adam optimizer"
            remedy = "set `regularizers.unrolled.learning_rate` to use plain gradient steps"
            raise RecipeError(f"{asked}, but it has {found}; {remedy}")
        return adam_steps(optimizer, dict(adversary.network.named_parameters()))


def gradient_steps(rate: float) -> Move:
    """Returns a plain gradient step, θ - η g."""
    return lambda weights, gradients: {name: weights[name] - rate * slope for name, slope in gradients.items()}


def adam_steps(optimizer: torch.optim.Adam, parameters: Mapping[str, nn.Parameter]) -> Move:
    """Returns the next steps of an Adam optimizer (Kingma & Ba 2015, algorithm 1), without changing it.

    Args:
        optimizer: an optimizer with one parameter group; its current learning rate and moments are used.
        parameters: parameters that it updates, by name.
    """
    (group,) = optimizer.param_groups
    (beta1, beta2), rate, epsilon, decay = group["betas"], group["lr"], group["eps"], group["weight_decay"]
    states: dict[str, Any] = {name: optimizer.state.get(p) or {} for name, p in parameters.items()}
    taken = {name: state.get("step", 0) for name, state in states.items()}
    first: Weights = {name: states[name].get("exp_avg", torch.zeros_like(p)) for name, p in parameters.items()}
    second: Weights = {name: states[name].get("exp_avg_sq", torch.zeros_like(p)) for name, p in parameters.items()}
    tiny = 1e-30  # its root is far below ε; without it a weight that never had a gradient has an infinite derivative

    def move(weights: Weights, gradients: Mapping[str, Tensor]) -> Weights:
        moved: Weights = {}
        for name, gradient in gradients.items():
            taken[name] = taken[name] + 1
            first[name] = beta1 * first[name] + (1 - beta1) * gradient
            second[name] = beta2 * second[name] + (1 - beta2) * gradient.square()
            mean = first[name] / (1 - beta1 ** taken[name])
            deviation = (second[name] / (1 - beta2 ** taken[name]) + tiny).sqrt()
            moved[name] = (1 - rate * decay) * weights[name] - rate * mean / (deviation + epsilon)
        return moved

    return move
