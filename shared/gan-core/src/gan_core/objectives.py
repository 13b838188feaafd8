"""Adversarial objectives: what the discriminator and the generator minimise, on logits, where high means real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Objective:
    """A pair of adversarial losses.

    Attributes:
        name: as recipes say it.
        discriminator: `(real logits, fake logits) -> scalar`.
        generator: `(fake logits) -> scalar`.
    """

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def minimax_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))] with D = sigmoid(logit) (Goodfellow et al. 2014, eq. 1, its sign turned)."""
    return softplus(-real).mean() + softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    return softplus(-fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017, arXiv:1701.07875, eq. 2, its sign turned)."""
    return fake.mean() - real.mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    """-E[D(G(z))] (Arjovsky et al. 2017, arXiv:1701.07875)."""
    return -fake.mean()


non_saturating = Objective("non_saturating", minimax_discriminator, non_saturating_generator)
wasserstein = Objective("wasserstein", wasserstein_discriminator, wasserstein_generator)

OBJECTIVES = {objective.name: objective for objective in (non_saturating, wasserstein)}
