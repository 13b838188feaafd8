"""Every objective by its closed form, on logits whose sigmoid is a simple fraction."""

import math

import pytest
import torch
from torch.testing import assert_close

from gan_core.play.objectives import OBJECTIVES, Objective, energy_objective, feature_matching, pull_away

LN3 = math.log(3.0)  # the sigmoid of it is 3/4, of its negative 1/4


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def log_loss(*logits: float) -> float:
    """Computes the cross-entropy of real samples with these logits and fake ones with their negatives."""
    return -2 * sum(math.log(1 / (1 + math.exp(-logit))) for logit in logits) / len(logits)


BY_HAND = {
    # name: discriminator's on real (0, ln 3) and fake (0, -ln 3), generator's on the same
    "non_saturating": (
        -(math.log(1 / 2) + math.log(3 / 4)) / 2 - (math.log(1 / 2) + math.log(3 / 4)) / 2,
        -(math.log(1 / 2) + math.log(1 / 4)) / 2,
    ),
    "minimax": (
        -(math.log(1 / 2) + math.log(3 / 4)) / 2 - (math.log(1 / 2) + math.log(3 / 4)) / 2,
        (math.log(1 / 2) + math.log(3 / 4)) / 2,
    ),
    "least_squares": ((1 + (LN3 - 1) ** 2 + LN3**2) / 4, (1 + (LN3 + 1) ** 2) / 4),
    "pearson": ((1 + (LN3 - 1) ** 2 + 1 + (1 - LN3) ** 2) / 4, LN3**2 / 4),
    "wasserstein": (-LN3 / 2 - LN3 / 2, LN3 / 2),
    "hinge": ((1 + 0) / 2 + (1 + 0) / 2, LN3 / 2),  # ln 3 is beyond the margin on either side
    "relativistic": (  # the pairs' differences are 0 and 2 ln 3, whose sigmoid is 9/10
        -(math.log(1 / 2) + math.log(9 / 10)) / 2,
        -(math.log(1 / 2) + math.log(1 / 10)) / 2,
    ),
    "relativistic_average": (  # each sample against the others' mean, ±(ln 3) / 2
        log_loss(LN3 / 2, 3 * LN3 / 2),
        log_loss(-LN3 / 2, -3 * LN3 / 2),
    ),
    "energy": ((0 + LN3) / 2 + (1 + 1 + LN3) / 2, -LN3 / 2),  # its margin is 1
}


@pytest.fixture(params=OBJECTIVES.values(), ids=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return request.param


def test_every_objective_has_its_value_by_hand(objective):
    real, fake = torch.tensor([0.0, LN3]), torch.tensor([0.0, -LN3])
    discriminator, generator = BY_HAND[objective.name]
    assert_close(objective.discriminator(real, fake), torch.tensor(discriminator))
    assert_close(objective.generator(fake, real), torch.tensor(generator))


def test_objectives_are_found_by_their_name():
    assert {name: objective.name for name, objective in OBJECTIVES.items()} == {name: name for name in OBJECTIVES}
    assert OBJECTIVES.keys() == BY_HAND.keys()


def test_a_high_logit_means_real_and_a_high_energy_fake(objective):
    between = -0.5 if objective.name == "pearson" else 0.5  # what fakes are pushed to and pulled to
    real, fake = (torch.full((4,), between, requires_grad=True) for _ in range(2))
    direction = -1 if objective.energy else 1
    objective.discriminator(real, fake).backward()
    assert (direction * real.grad < 0).all()
    assert (direction * fake.grad > 0).all()
    fake.grad = None
    objective.generator(fake, real.detach()).backward()
    assert (direction * fake.grad < 0).all()


def test_an_objective_that_is_zero_sum_is_one(objective):
    real, fake = torch.linspace(-3, 3, 6), torch.linspace(-3, 3, 6).flip(0).requires_grad_()
    (push,) = torch.autograd.grad(objective.discriminator(real, fake), fake)
    (pull,) = torch.autograd.grad(objective.generator(fake, real), fake)
    assert torch.allclose(push, -pull) == objective.zero_sum


def test_gradients_are_zero_beyond_the_margin():
    real, fake = torch.tensor([1.5], requires_grad=True), torch.tensor([-1.5], requires_grad=True)
    OBJECTIVES["hinge"].discriminator(real, fake).backward()
    assert (real.grad.item(), fake.grad.item()) == (0, 0)
    far = torch.tensor([3.0, 1.0], requires_grad=True)
    energy_objective(margin=2.0).discriminator(torch.zeros(2), far).backward()
    assert far.grad.tolist() == [0, -0.5]


def test_the_pull_away_term_is_the_mean_squared_cosine():
    assert_close(pull_away(torch.tensor([[1.0, 1.0], [3.0, 3.0]])), torch.tensor(1.0))
    assert_close(pull_away(torch.tensor([[1.0, 1.0], [-2.0, 2.0]])), torch.tensor(0.0), atol=1e-6, rtol=0)
    half = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])  # squared cosines ½, ½ and 0
    assert_close(pull_away(half), torch.tensor(1 / 3))
    assert_close(pull_away(half[:, :, None, None]), torch.tensor(1 / 3))  # features of any shape are vectors


def test_feature_matching_compares_means():
    real, fake = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[2.0, 4.0]])
    assert_close(feature_matching(real, fake), torch.tensor(9.0))
    assert_close(feature_matching(real, real.flip(0)), torch.tensor(0.0))


def test_a_loss_is_a_mean_over_samples(objective):
    real, fake = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    once = objective.discriminator(real, fake), objective.generator(fake, real)
    twice = objective.discriminator(real.repeat(2), fake.repeat(2)), objective.generator(fake.repeat(2), real.repeat(2))
    assert_close(once, twice)
    if objective.name == "relativistic_average":
        return  # it compares with the mean of the batch
    parts = [objective.discriminator(r, f) for r, f in zip(real.chunk(3), fake.chunk(3), strict=True)]
    assert_close(torch.stack(parts).mean(), once[0])


def test_logits_of_any_shape_are_samples_alike(objective):
    real, fake = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    patches = objective.discriminator(real.reshape(2, 1, 2, 2), fake.reshape(2, 1, 2, 2))
    assert_close(patches, objective.discriminator(real, fake))


def test_extreme_logits_are_finite_and_have_finite_gradients(objective):
    for size in (1e4, -1e4):
        real, fake = torch.full((2,), size, requires_grad=True), torch.full((2,), -size, requires_grad=True)
        loss = objective.discriminator(real, fake) + objective.generator(fake, real)
        loss.backward()
        assert torch.isfinite(torch.stack([loss, *real.grad, *fake.grad])).all()


def test_a_saturated_generator_still_has_a_gradient():
    fake = torch.tensor([-20.0], requires_grad=True)  # D(G(z)) = 2e-9: log(1 - D) would be flat
    OBJECTIVES["non_saturating"].generator(fake).backward()
    assert_close(fake.grad, torch.tensor([-1.0]))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_of_guessing_is_that_of_the_best_constant(name):
    """The least loss of a discriminator that gives every sample the same logit (or energy)."""
    objective = OBJECTIVES[name]
    constants = torch.linspace(0 if objective.energy else -2, 2, 401)
    costs = [float(objective.discriminator(c.repeat(4), c.repeat(4))) for c in constants]
    assert objective.guessing == pytest.approx(min(costs), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("minimax", softplus(3.0) + softplus(1.0)),
        ("non_saturating", softplus(3.0) + softplus(1.0)),
        ("least_squares", (3.0**2 + (-1.0 - 1) ** 2) / 2),
        ("pearson", ((3.0 + 1) ** 2 + (-1.0 - 1) ** 2) / 2),
        ("wasserstein", 3.0 - -1.0),
        ("hinge", 2.0 + 4.0),
        ("relativistic", softplus(4.0)),
        ("relativistic_average", 2 * softplus(4.0)),
        ("energy", -1.0 + 0.0),
    ],
)
def test_players_of_both_sides_minimise_the_loss_with_real_and_fake_exchanged(name, expected):
    real, fake = torch.full((4,), 3.0), torch.full((4,), -1.0)
    assert_close(OBJECTIVES[name].swapped(real, fake), torch.tensor(expected))
