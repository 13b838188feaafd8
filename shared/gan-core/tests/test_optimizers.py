import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core.recipe import SGD, Adam, Constant, Cosine, Linear, RMSprop, Step
from gan_core.training.optimizers import make_optimizer, rate_factor

GRADIENT = torch.tensor([0.5, -2.0])


def moved(settings, steps=1):
    """How far a parameter at zero has moved, under a constant gradient."""
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = make_optimizer(settings, [parameter])
    for _ in range(steps):
        parameter.grad = GRADIENT.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_adam_moves_by_its_rate_whatever_the_gradients_size(steps):
    settings = Adam(learning_rate=0.1, betas=(0.5, 0.9))
    assert_close(moved(settings, steps), -0.1 * steps * GRADIENT.sign(), atol=1e-6, rtol=0)


def test_adams_epsilon_damps_small_gradients():
    assert_close(moved(Adam(learning_rate=0.1, epsilon=1.5)), -0.1 * GRADIENT / (GRADIENT.abs() + 1.5))


def test_weights_decay_apart_from_the_gradient():
    start, after = torch.tensor([3.0, -1.0]), []
    for settings in (Adam(learning_rate=0.1, weight_decay=0.5), Adam(learning_rate=0.1)):
        weight = nn.Parameter(start.clone())
        weight.grad = GRADIENT.clone()
        make_optimizer(settings, [weight]).step()
        after.append(weight.detach())
    assert_close(after[0], after[1] - 0.1 * 0.5 * start)


def test_rmsprop_divides_by_the_root_of_the_mean_square():
    assert_close(moved(RMSprop(learning_rate=0.1)), -0.1 / math.sqrt(1 - 0.99) * GRADIENT.sign(), atol=1e-5, rtol=0)


def test_gradient_descent_with_momentum_goes_on():
    assert_close(moved(SGD(learning_rate=0.1)), -0.1 * GRADIENT)
    assert_close(moved(SGD(learning_rate=0.1, momentum=0.9), steps=2), -0.1 * (1 + 1.9) * GRADIENT)


@pytest.mark.parametrize("settings", [Adam(), RMSprop(), SGD(momentum=0.5)], ids=lambda settings: settings.name)
def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened(settings):
    straight = moved(settings, steps=4)
    parameter = nn.Parameter(torch.zeros(2))
    first = make_optimizer(settings, [parameter])
    for step in range(4):
        if step == 2:
            second = make_optimizer(settings, [parameter])
            second.load_state_dict(first.state_dict())
            first = second
        parameter.grad = GRADIENT.clone()
        first.step()
    assert torch.equal(parameter.detach(), straight)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), {0: 1, 50: 1, 100: 1}),
        (Linear(), {0: 1, 25: 0.75, 50: 0.5, 100: 0}),
        (Linear(start=0.5), {0: 1, 50: 1, 75: 0.5, 100: 0}),
        (Linear(start=0.5, end=0.2), {50: 1, 75: 0.6, 100: 0.2}),
        (Linear(end=2.0), {0: 1, 50: 1.5, 100: 2}),
        (Cosine(), {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 100: 0}),
        (Cosine(end=0.2), {0: 1, 50: 0.6, 100: 0.2}),
        (Step(every=10), {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.25, 99: 0.5**9}),
        (Step(every=30, factor=0.1), {29: 1, 30: 0.1, 90: 0.001}),
    ],
)
def test_the_rate_follows_its_schedule(schedule, factors):
    assert {step: rate_factor(schedule, step / 100, step) for step in factors} == pytest.approx(factors)
