"""Every objective by its closed form, on logits of which the sigmoid is a simple fraction."""

import math

import pytest
import torch
from torch.testing import assert_close

from gan_core.objectives import OBJECTIVES, Objective

LN3 = math.log(3.0)  # the sigmoid of it is 3/4, of its negative 1/4

BY_HAND = {
    # name: discriminator's on real (0, ln 3) and fake (0, -ln 3), generator's on the same fake
    "non_saturating": (
        -(math.log(1 / 2) + math.log(3 / 4)) / 2 - (math.log(1 / 2) + math.log(3 / 4)) / 2,
        -(math.log(1 / 2) + math.log(1 / 4)) / 2,
    ),
    "wasserstein": (-LN3 / 2 - LN3 / 2, LN3 / 2),
}


@pytest.fixture(params=OBJECTIVES.values(), ids=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return request.param


def test_every_objective_has_its_value_by_hand(objective):
    real, fake = torch.tensor([0.0, LN3]), torch.tensor([0.0, -LN3])
    discriminator, generator = BY_HAND[objective.name]
    assert_close(objective.discriminator(real, fake), torch.tensor(discriminator))
    assert_close(objective.generator(fake), torch.tensor(generator))


def test_objectives_are_found_by_their_name():
    assert {name: objective.name for name, objective in OBJECTIVES.items()} == {name: name for name in OBJECTIVES}
    assert OBJECTIVES.keys() == BY_HAND.keys()


def test_a_high_logit_means_real(objective):
    real, fake = (torch.zeros(4, requires_grad=True) for _ in range(2))
    objective.discriminator(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    fake.grad = None
    objective.generator(fake).backward()
    assert (fake.grad < 0).all()


def test_a_loss_is_a_mean_over_samples(objective):
    real, fake = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    once = objective.discriminator(real, fake), objective.generator(fake)
    twice = objective.discriminator(real.repeat(2), fake.repeat(2)), objective.generator(fake.repeat(2))
    assert_close(once, twice)
    parts = [objective.discriminator(r, f) for r, f in zip(real.chunk(3), fake.chunk(3), strict=True)]
    assert_close(torch.stack(parts).mean(), once[0])


def test_logits_of_any_shape_are_samples_alike(objective):
    real, fake = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    patches = objective.discriminator(real.reshape(2, 1, 2, 2), fake.reshape(2, 1, 2, 2))
    assert_close(patches, objective.discriminator(real, fake))


def test_extreme_logits_are_finite_and_have_finite_gradients(objective):
    for size in (1e4, -1e4):
        real, fake = torch.full((2,), size, requires_grad=True), torch.full((2,), -size, requires_grad=True)
        loss = objective.discriminator(real, fake) + objective.generator(fake)
        loss.backward()
        assert torch.isfinite(torch.stack([loss, *real.grad, *fake.grad])).all()


def test_a_saturated_generator_still_has_a_gradient():
    fake = torch.tensor([-20.0], requires_grad=True)  # D(G(z)) = 2e-9: log(1 - D) would be flat
    OBJECTIVES["non_saturating"].generator(fake).backward()
    assert_close(fake.grad, torch.tensor([-1.0]))
