"""The result of a discriminator with one or several sets of logits, and the losses that are summed over them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from gan_core.errors import RecipeError
from gan_core.nn.precision import full_precision
from gan_core.play.objectives import Objective


class Judgement(NamedTuple):
    """The result of a discriminator with several sets of logits, such as a multi-scale or multi-period one.

    Attributes:
        logits: one tensor `[B, …]` for each sub-discriminator.
        features: the outputs of the layers of each sub-discriminator; empty if it does not return any.
    """

    logits: list[Tensor]
    features: list[list[Tensor]]


def judgement_of(result: Tensor | Judgement) -> Judgement:
    """Converts a discriminator's result to a judgement, with logits in float32 or higher precision.

    Raises:
        RecipeError: the result is neither logits nor a judgement.
    """
    if isinstance(result, Tensor):
        return Judgement([full_precision(result)], [])
    if not isinstance(result, Judgement):
        found = type(result).__name__
        raise RecipeError(f"the discriminator returned a {found}; expected logits [B, …] or a `Judgement`")
    return Judgement([full_precision(logits) for logits in result.logits], result.features)


def joined(judgement: Judgement) -> Tensor:
    """Returns all logits of each sample: a single tensor unchanged, several concatenated to `[B, n]`."""
    first, *others = judgement.logits
    if not others:
        return first
    return torch.cat([logits.reshape(len(logits), -1) for logits in judgement.logits], dim=1)


def discriminator_adversarial(objective: Objective, real: Judgement, fake: Judgement) -> Tensor:
    """Computes the discriminator's adversarial loss, summed over the sets of logits."""
    return total(objective.discriminator(a, b) for a, b in zip(real.logits, fake.logits, strict=True))


def generator_adversarial(objective: Objective, fake: Judgement, real: Judgement | None = None) -> Tensor:
    """Computes the generator's adversarial loss, summed over the sets of logits."""
    if real is None:
        return total(objective.generator(logits, None) for logits in fake.logits)
    return total(objective.generator(b, a) for a, b in zip(real.logits, fake.logits, strict=True))


def feature_distance(real: Judgement, fake: Judgement) -> Tensor:
    """Computes the mean |D_i(x) - D_i(G(s))|, summed over layers i and discriminators (arXiv:1910.06711, section 2.3).

    The features of real samples are detached.
    """
    pairs = zip(chain(*real.features), chain(*fake.features), strict=True)
    return total(l1_loss(b, a.detach()) for a, b in pairs)


def total(terms: Iterable[Tensor]) -> Tensor:
    """Sums scalars; there must be at least one."""
    first, *others = terms
    return torch.stack([first, *others]).sum() if others else first
