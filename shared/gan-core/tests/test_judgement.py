"""Judgements of several discriminators, and the losses that are summed over them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gan_core.errors import RecipeError
from gan_core.play.judgement import (
    Judgement,
    discriminator_adversarial,
    feature_distance,
    generator_adversarial,
    joined,
    judgement_of,
)
from gan_core.play.objectives import hinge, least_squares, relativistic

REAL = Judgement([torch.ones(3), torch.zeros(2)], [[torch.ones(4), torch.ones(2, 2)], [torch.zeros(1)]])
FAKE = Judgement([torch.zeros(3), torch.zeros(2)], [[torch.zeros(4), torch.ones(2, 2)], [torch.full((1,), 3.0)]])


def test_losses_are_summed_over_discriminators_and_layers() -> None:
    assert float(discriminator_adversarial(least_squares, REAL, FAKE)) == 0.5
    assert float(generator_adversarial(least_squares, FAKE)) == 1.0
    assert float(feature_distance(REAL, FAKE)) == 4.0


def test_a_relative_objective_compares_the_logits_of_each_discriminator() -> None:
    wanted = relativistic.generator(FAKE.logits[0], REAL.logits[0]) + relativistic.generator(
        FAKE.logits[1], REAL.logits[1]
    )
    assert_close(generator_adversarial(relativistic, FAKE, REAL), wanted)


def test_logits_are_in_full_precision() -> None:
    half = judgement_of(Judgement([logits.bfloat16() for logits in REAL.logits], REAL.features))
    assert discriminator_adversarial(least_squares, half, half).dtype is torch.float32
    assert generator_adversarial(hinge, half).dtype is torch.float32
    assert judgement_of(torch.ones(2).half()).logits[0].dtype is torch.float32


def test_all_logits_of_a_sample_are_joined_and_single_ones_stay_as_they_are() -> None:
    patches = torch.zeros(2, 1, 3, 3)
    assert joined(Judgement([patches], [])) is patches
    assert joined(Judgement([patches, torch.ones(2)], [])).shape == (2, 10)


def test_what_is_no_judgement_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^the discriminator returned a tuple; expected logits \[B, …\] or a"):
        judgement_of((torch.ones(2), []))
