"""Adversarial objectives: losses of the discriminator and the generator on logits; a high logit means real.

Every loss is a mean over the batch and is finite, with finite gradients, for logits of any size. Logits are `[B]`, or
`[B, …]` if the discriminator judges patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gan_core.errors import RecipeError

Terms = dict[str, Tensor]
"""Named scalars whose sum a player minimises."""


@dataclass(frozen=True)
class Objective:
    """A pair of adversarial losses.

    Attributes:
        name: name in recipes.
        discriminator: `(real logits, fake logits) -> scalar`.
        generator: `(fake logits, real logits) -> scalar`; the real logits are None unless it is `relative`.
        relative: whether the generator's loss compares fake samples with real ones.
        zero_sum: whether the generator maximises what the discriminator minimises.
        cross_entropy: whether the discriminator's loss is the cross-entropy of a classifier into real and fake.
        energy: whether it takes energies, at least 0 and low for real samples, instead of logits.
        guessing: lowest loss of a discriminator that returns the same logit for all samples; 0 if the loss has no lower
            bound and does not measure the discriminator's quality.
    """

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[..., Tensor]
    relative: bool = False
    zero_sum: bool = False
    cross_entropy: bool = False
    energy: bool = False
    guessing: float = 0.0

    def swapped(self, real: Tensor, fake: Tensor) -> Tensor:
        """Computes the discriminator's loss with real and fake exchanged.

        It is the loss of players that produce both sides of the comparison, such as the encoder and the generator of
        BiGAN (Donahue et al. 2017, arXiv:1605.09782) and ALI (Dumoulin et al. 2017, arXiv:1606.00704).
        """
        return self.discriminator(fake, real)


# Goodfellow et al. 2014, arXiv:1406.2661.


def minimax_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Computes -E[log D(x)] - E[log(1 - D(G(z)))] with D = sigmoid(logit) (Goodfellow et al. 2014, eq. 1, negated)."""
    return softplus(-real).mean() + softplus(fake).mean()


def minimax_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Computes E[log(1 - D(G(z)))] (Goodfellow et al. 2014, eq. 1); it saturates if the discriminator is confident."""
    return -softplus(fake).mean()


def non_saturating_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Computes -E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    return softplus(-fake).mean()


# Mao et al. 2017, arXiv:1611.04076.


def least_squares_objective(name: str, *, fake_label: float, real_label: float, generator_label: float) -> Objective:
    """Returns the least-squares objective with labels a, b and c (Mao et al. 2017, arXiv:1611.04076, eq. 2).

    The discriminator minimises ½E[(D(x) - b)²] + ½E[(D(G(z)) - a)²], and the generator ½E[(D(G(z)) - c)²].

    Args:
        name: name in recipes.
        fake_label: a, target of the discriminator for fake samples.
        real_label: b, target of the discriminator for real samples.
        generator_label: c, target of the generator for its samples.
    """

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        return ((real - real_label).square().mean() + (fake - fake_label).square().mean()) / 2

    def generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
        return (fake - generator_label).square().mean() / 2

    return Objective(name, discriminator, generator, guessing=(real_label - fake_label) ** 2 / 4)


# Arjovsky et al. 2017, arXiv:1701.07875.


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Computes E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017, arXiv:1701.07875, eq. 2, negated)."""
    return fake.mean() - real.mean()


def wasserstein_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Computes -E[D(G(z))] (Arjovsky et al. 2017, arXiv:1701.07875)."""
    return -fake.mean()


# Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eqs. 16 and 17.


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Computes E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (arXiv:1802.05957, eq. 16).

    The generator minimises `wasserstein_generator`.
    """
    return (1 - real).relu().mean() + (1 + fake).relu().mean()


# Jolicoeur-Martineau 2019, arXiv:1807.00734.


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Computes E[f(D(G(z)) - D(x))] over pairs, f = softplus (arXiv:1807.00734, sec. 4.1; arXiv:2501.05441, eq. 1)."""
    return softplus(fake - real).mean()


def relativistic_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """Computes E[f(D(x) - D(G(z)))] over pairs, f = softplus."""
    return softplus(_given(real) - fake).mean()


def relativistic_average_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Computes the cross-entropy of D(x) - E[D(G(z))] and D(G(z)) - E[D(x)] (arXiv:1807.00734, section 4.2)."""
    return softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()


def relativistic_average_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """Computes `relativistic_average_discriminator` with real and fake exchanged."""
    return relativistic_average_discriminator(fake, _given(real))


# Zhao et al. 2017, arXiv:1609.03126.


def energy_objective(margin: float) -> Objective:
    """Returns the objective of EBGAN for a discriminator that returns energies (arXiv:1609.03126, eq. 1 and 2).

    The discriminator minimises E[D(x)] + E[max(0, m - D(G(z)))], and the generator E[D(G(z))].

    Args:
        margin: m, energy above which fake samples do not contribute to the discriminator's loss.
    """

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() + (margin - fake).relu().mean()

    def generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
        return fake.mean()

    return Objective("energy", discriminator, generator, energy=True, guessing=margin)


def pull_away(features: Tensor) -> Tensor:
    """Computes the mean squared cosine between the features `[B, …]` of different samples (arXiv:1609.03126, eq. 4).

    Raises:
        RecipeError: there is only one sample.
    """
    count = len(features)
    if count < 2:
        raise RecipeError(
            "the pull-away term compares samples, but a part of a batch has only 1; "
            "increase `train.batch_size`, or reduce `train.accumulate`"
        )
    unit = torch.nn.functional.normalize(features.flatten(1), dim=1)
    return ((unit @ unit.T).square().sum() - count) / (count * (count - 1))


# Salimans et al. 2016, arXiv:1606.03498.


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Computes ‖E[f(x)] - E[f(G(z))]‖² of features `[B, …]` (Salimans et al. 2016, arXiv:1606.03498, section 3.1)."""
    return (real.mean(dim=0) - fake.mean(dim=0)).square().sum()


def _given(real: Tensor | None) -> Tensor:
    assert real is not None, "a relative objective compares with real samples"
    return real


minimax = Objective(
    "minimax", minimax_discriminator, minimax_generator, zero_sum=True, cross_entropy=True, guessing=2 * math.log(2)
)
non_saturating = Objective(
    "non_saturating", minimax_discriminator, non_saturating_generator, cross_entropy=True, guessing=2 * math.log(2)
)
least_squares = least_squares_objective("least_squares", fake_label=0.0, real_label=1.0, generator_label=1.0)
pearson = least_squares_objective("pearson", fake_label=-1.0, real_label=1.0, generator_label=0.0)
"""Least squares with the labels that minimise Pearson's χ² divergence (arXiv:1611.04076, section 3.2.2)."""
wasserstein = Objective("wasserstein", wasserstein_discriminator, wasserstein_generator, zero_sum=True)
hinge = Objective("hinge", hinge_discriminator, wasserstein_generator, guessing=2.0)
relativistic = Objective(
    "relativistic", relativistic_discriminator, relativistic_generator, relative=True, guessing=math.log(2)
)
relativistic_average = Objective(
    "relativistic_average",
    relativistic_average_discriminator,
    relativistic_average_generator,
    relative=True,
    guessing=2 * math.log(2),
)

OBJECTIVES = {
    objective.name: objective
    for objective in (
        minimax,
        non_saturating,
        least_squares,
        pearson,
        wasserstein,
        hinge,
        relativistic,
        relativistic_average,
        energy_objective(margin=1.0),
    )
}
