"""The pool of earlier fakes, as CycleGAN's published code has it."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core import draws
from gan_core.models.checkpoint import load_state, split_state
from gan_core.play.replay import ReplayPool

CPU = torch.device("cpu")


def shown(pool, samples, seed=0):
    samples = torch.as_tensor(samples, dtype=torch.float32)
    with draws.drawing(seed, CPU, rows=len(samples), total=len(samples)):
        return pool(samples)


def full(size=50):
    pool = ReplayPool(size)
    shown(pool, torch.arange(size))
    return pool


def test_the_first_fifty_pass_and_are_kept():
    pool = ReplayPool()
    for start in range(0, 50, 10):
        now = torch.arange(start, start + 10)
        assert torch.equal(shown(pool, now), now.float())
    assert pool.pool.tolist() == list(range(50))


def test_a_batch_that_fills_the_pool_passes_up_to_there():
    pool = ReplayPool(4)
    assert shown(pool, [0, 1, 2]).tolist() == [0, 1, 2]
    passed = shown(pool, [3, 4, 5, 6, 7, 8])
    assert passed[0] == 3
    assert sorted([*passed.tolist(), *pool.pool.tolist()]) == sorted([0, 1, 2, 3, 3, 4, 5, 6, 7, 8])


def test_from_then_on_half_are_exchanged_for_earlier_ones():
    pool, old = full(), 0
    for step in range(200):
        now = 1000 + torch.arange(10) + 10 * step
        old += int((shown(pool, now, seed=step) != now).sum())
    assert old / 2000 == pytest.approx(0.5, abs=0.05)


def test_nothing_is_lost_and_nothing_is_doubled():
    pool = full(8)
    seen = list(range(8))
    for step in range(20):
        now = 100 + torch.arange(5) + 5 * step
        seen = [*seen, *now.tolist()]
        passed = shown(pool, now, seed=step).tolist()
        for value in passed:
            seen.remove(value)
        assert sorted(seen) == sorted(pool.pool.tolist())


def test_every_place_of_the_pool_is_exchanged_in_time():
    pool = full(10)
    for step in range(40):
        shown(pool, torch.full((10,), -1.0), seed=step)
    assert (pool.pool == -1).all()


def test_what_is_passed_on_is_constant_and_no_view_of_what_came():
    pool = ReplayPool(2)
    samples = torch.ones(2, 3, requires_grad=True)
    passed = pool(samples)
    assert not passed.requires_grad
    passed.zero_()
    assert (samples == 1).all()
    assert (pool.pool == 1).all()


def test_samples_of_any_shape_stay_whole():
    pool = ReplayPool(3)
    images = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4).clone()
    pool(images)
    passed = pool(10 + images)
    assert passed.shape == (3, 2, 4, 4)
    assert all(len(image.unique()) == 1 for image in [*passed, *pool.pool])


def test_samples_of_another_shape_begin_the_pool_anew():
    pool = full(4)
    larger = torch.arange(6.0).view(3, 2)
    assert torch.equal(shown(pool, larger), larger)
    assert torch.equal(pool.pool, larger)


def test_draws_are_the_streams():
    first, second = full(), full()
    for step in range(5):
        now = torch.arange(6) + 100 * step
        assert torch.equal(shown(first, now, seed=step), shown(second, now, seed=step))


@pytest.mark.parametrize("held", [0, 3, 50])
def test_a_saved_pool_goes_on_as_it_would_have(held):
    straight = ReplayPool()
    if held:
        shown(straight, torch.arange(held))
    tensors, plain = split_state(nn.ModuleDict({"pool": straight}))
    resumed = nn.ModuleDict({"pool": ReplayPool()})
    load_state(resumed, {key: value.clone() for key, value in tensors.items()}, plain, "here")
    for step in range(8):
        now = 100 + torch.arange(10) + 10 * step
        assert_close(shown(resumed["pool"], now, seed=step), shown(straight, now, seed=step))
    assert_close(resumed["pool"].pool, straight.pool)
