"""Regularizers: penalties on a network at some points. The mathematics is functions; the settings go into recipes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_core import draws
from gan_core.recipe import Settings

Network = Callable[[Tensor], Tensor]


class Regularizer(Settings):
    """A penalty's settings: its factor, and how often it is taken.

    A lazy penalty (an `interval` over 1) is taken every so many steps with `interval` times the weight, so that its
    mean strength stays the same (Karras et al. 2020, arXiv:1912.04958, section 3.1).
    """

    name: ClassVar[str]
    weight: float = Field(gt=0)
    interval: int = Field(default=1, ge=1)

    @abstractmethod
    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        """The unweighted penalty, a scalar."""


class GradientPenalty(Regularizer):
    """WGAN-GP's penalty, with any objective (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3)."""

    name = "gradient_penalty"
    weight: float = Field(default=10.0, gt=0)

    def penalty(self, network: Network, real: Tensor, fake: Tensor) -> Tensor:
        return gradient_penalty(network, real, fake)


REGULARIZERS: dict[str, type[Regularizer]] = {kind.name: kind for kind in (GradientPenalty,)}


def penalties(
    regularizers: Iterable[Regularizer], step: int, network: Network, real: Tensor, fake: Tensor
) -> dict[str, Tensor]:
    """The weighted terms that are due at this step. Taken in float32: a second derivative has no digits to spare."""
    with torch.autocast(real.device.type, enabled=False):
        return {
            r.name: r.weight * r.interval * r.penalty(network, full_precision(real), full_precision(fake))
            for r in regularizers
            if step % r.interval == 0
        }


def full_precision(x: Tensor) -> Tensor:
    """The tensor in at least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def gradient_penalty(network: Network, real: Tensor, fake: Tensor) -> Tensor:
    """E[(‖∇ D(x̂)‖₂ - 1)²] at one x̂ on the line between each real and fake sample (arXiv:1704.00028, eq. 3)."""
    epsilon = draws.uniform(len(real), *[1] * (real.ndim - 1), like=real)
    x_hat = epsilon * real + (1 - epsilon) * fake
    return (gradient_norm(network, x_hat) - 1).square().mean()


def gradient_norm(network: Network, x: Tensor) -> Tensor:
    """‖∇ₓ D(x)‖₂ of each sample, `[B]`, through which gradients flow on to the network's parameters."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    return gradient.flatten(1).norm(2, dim=1)


def uncompiled(network: nn.Module) -> Callable[..., Tensor]:
    """The network as a penalty must call it: a compiled network has no second derivative, its `forward` has."""
    return network.forward
