"""Penalties on the discriminator's gradients at real, fake and interpolated samples, and on path lengths."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.nn.precision import full_precision, in_full_precision
from gan_core.play.objectives import Terms
from gan_core.play.regularizers.base import Generation, Lazy, Network, Penalty, Regularized, Turn, uncompiled


def gradient_norm(network: Network, x: Tensor) -> Tensor:
    """Computes ‖∇ₓ D(x)‖₂ of each sample, `[B]`, differentiable with respect to the network's parameters.

    If a sample has several logits, D(x) is their sum.
    """
    return input_gradient(network, x).norm(2, dim=1)


def input_gradient(network: Network, x: Tensor) -> Tensor:
    """Computes ∇ₓ D(x) of each sample, `[B, n]`, differentiable with respect to the network's parameters.

    If a sample has several logits, D(x) is their sum.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    return gradient.flatten(1)


def gradient_penalty(network: Network, real: Tensor, fake: Tensor, *, one_sided: bool = False) -> Tensor:
    """Computes E[(‖∇ D(x̂)‖₂ - 1)²] at a random x̂ between each real and fake sample (arXiv:1704.00028, eq. 3).

    If `one_sided`, norms below 1 are not penalised (Petzka et al. 2018, arXiv:1709.08894, eq. 7).
    """
    epsilon = draws.uniform(len(real), *[1] * (real.ndim - 1), like=real)
    excess = gradient_norm(network, epsilon * real + (1 - epsilon) * fake) - 1
    return (excess.relu() if one_sided else excess).square().mean()


def dragan_penalty(network: Network, real: Tensor) -> Tensor:
    """Computes E[(‖∇ D(x + δ)‖₂ - 1)²] around real samples x (Kodali et al. 2017, arXiv:1705.07215, section 2.3).

    As in the authors' code, x + δ is a random point between x and x + ½ σ u, where σ is the standard deviation of all
    values in the batch, and every value of u is uniform in [0, 1).
    """
    alpha = draws.uniform(len(real), *[1] * (real.ndim - 1), like=real)
    noise = draws.uniform(len(real), *real.shape[1:], like=real)
    return (gradient_norm(network, real + alpha * (real.std() / 2) * noise) - 1).square().mean()


def zero_centred_penalty(network: Network, x: Tensor) -> Tensor:
    """Computes ½ E[‖∇ D(x)‖²]: R1 at real samples, R2 at fakes (Mescheder et al. 2018, arXiv:1801.04406, eq. 9, 10)."""
    return input_gradient(network, x).square().sum(dim=1).mean() / 2


def path_lengths(generate: Callable[[Tensor], Tensor], latent: Tensor) -> Tensor:
    """Computes ‖Jᵀy‖₂ at each latent, `[B]`, with Gaussian noise y (Karras et al. 2020, arXiv:1912.04958, section 3.2).

    The deviation of y is one over the square root of the number of pixels. If the latents were computed by a mapping
    network, gradients reach it.

    Args:
        generate: maps latents `[B, n]` (or `[B, layers, n]`) to samples `[B, C, …]`.
        latent: latents at which the Jacobian J is taken. Squared lengths are averaged over the layers.
    """
    if not latent.requires_grad:
        latent = latent.detach().requires_grad_()
    samples = generate(latent)
    size = math.prod(samples.shape[2:]) if samples.ndim > 2 else 1
    noise = draws.normal(len(samples), *samples.shape[1:], like=samples) / math.sqrt(size)
    (gradient,) = torch.autograd.grad((samples * noise).sum(), latent, create_graph=True)
    layers = gradient[0].numel() // gradient.shape[-1]
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # its slope at 0 is 0; a square root's is infinite
    return norm / math.sqrt(layers)


class GradientPenalty(Penalty):
    """The gradient penalty of WGAN-GP, for any objective (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3).

    Attributes:
        one_sided: whether only gradient norms above 1 are penalised.
    """

    name = "gradient_penalty"
    weight: float = Field(default=10.0, gt=0)
    one_sided: bool = False

    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        return gradient_penalty(network, real, fake, one_sided=self.one_sided)


class Dragan(Penalty):
    """The gradient penalty of DRAGAN, around real samples (Kodali et al. 2017, arXiv:1705.07215)."""

    name = "dragan"
    weight: float = Field(default=10.0, gt=0)

    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        return dragan_penalty(network, real)


class R1(Penalty):
    """The zero-centred penalty at real samples; `weight` is γ (Mescheder et al. 2018, arXiv:1801.04406, eq. 9)."""

    name = "r1"
    weight: float = Field(default=10.0, gt=0)

    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        return zero_centred_penalty(network, real)


class R2(Penalty):
    """The zero-centred penalty at fake samples; `weight` is γ (Mescheder et al. 2018, arXiv:1801.04406, eq. 10)."""

    name = "r2"
    weight: float = Field(default=10.0, gt=0)

    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        return zero_centred_penalty(network, fake)


class PathLength(Lazy):
    """Path length regularization of the generator (Karras et al. 2020, arXiv:1912.04958, section 3.2).

    It encourages steps of equal size in the latent space to change samples by equal amounts.

    Attributes:
        decay: weight of a new batch in the moving average of the path lengths.
        shrink: factor by which the batch size is reduced for this term, to save memory.
    """

    name = "path_length"
    weight: float = Field(default=2.0, gt=0)
    interval: int = Field(default=4, ge=1)
    decay: float = Field(default=0.01, gt=0, le=1)
    shrink: int = Field(default=2, ge=1)

    def prepare(self, adversary: Regularized) -> nn.Module:
        self._generation(adversary)
        return MeanLength()

    def _generation(self, adversary: Regularized) -> Generation:
        if adversary.generation is None:
            reason = "needs a generator of latents, but this adversary has none"
            raise RecipeError(f"`regularizers.path_length` {reason}; leave it out, or give the adversary `generation`")
        return adversary.generation

    def generator_terms(self, turn: Turn) -> Terms:
        return self.due(turn.adversary.moment.step, lambda: self._penalty(turn))

    def _penalty(self, turn: Turn) -> Tensor:
        adversary, rows = turn.adversary, max(1, len(turn.fake) // self.shrink)
        generation = self._generation(adversary)
        condition = {key: value[:rows] for key, value in turn.condition.items()}
        latents, render = uncompiled(generation.latent), uncompiled(generation.render)
        with in_full_precision(turn.fake):
            latent = full_precision(latents(rows, **condition))
            lengths = path_lengths(lambda latent: full_precision(render(latent, **condition)), latent)
        length = self.kept(adversary, MeanLength).length.lerp(lengths.detach().mean(), self.decay)
        adversary.note("path_length_mean", length)
        return (lengths - length).square().mean()

    @torch.no_grad()
    def after_turn(self, adversary: Regularized, values: Terms) -> None:
        if "path_length_mean" in values:
            self.kept(adversary, MeanLength).length.copy_(values["path_length_mean"])


class MeanLength(nn.Module):
    """State of `PathLength`: the exponential moving average of the path lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.length: Tensor
        self.register_buffer("length", torch.zeros(()))
