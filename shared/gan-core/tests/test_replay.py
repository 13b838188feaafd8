"""The pool of earlier fakes, compared with CycleGAN's published code."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core import draws
from gan_core.models.checkpoint import load_state, split_state
from gan_core.play.replay import ReplayPool

CPU = torch.device("cpu")


def replayed(pool, samples, seed=0):
    samples = torch.as_tensor(samples, dtype=torch.float32)
    with draws.drawing(seed, CPU, rows=len(samples), total=len(samples)):
        return pool(samples)


def full(size=50):
    pool = ReplayPool(size)
    replayed(pool, torch.arange(size))
    return pool


def test_the_first_fifty_pass_and_are_kept():
    pool = ReplayPool()
    for start in range(0, 50, 10):
        now = torch.arange(start, start + 10)
        assert torch.equal(replayed(pool, now), now.float())
    assert pool.pool.tolist() == list(range(50))


def test_a_batch_that_fills_the_pool_passes_up_to_there():
    pool = ReplayPool(4)
    assert replayed(pool, [0, 1, 2]).tolist() == [0, 1, 2]
    passed = replayed(pool, [3, 4, 5, 6, 7, 8])
    assert passed[0] == 3
    assert sorted([*passed.tolist(), *pool.pool.tolist()]) == sorted([0, 1, 2, 3, 3, 4, 5, 6, 7, 8])


def test_half_of_the_samples_of_a_full_pool_are_exchanged():
    pool, old = full(), 0
    for step in range(200):
        now = 1000 + torch.arange(10) + 10 * step
        old += int((replayed(pool, now, seed=step) != now).sum())
    assert old / 2000 == pytest.approx(0.5, abs=0.05)


def test_no_sample_is_lost_or_duplicated():
    pool = full(8)
    seen = list(range(8))
    for step in range(20):
        now = 100 + torch.arange(5) + 5 * step
        seen = [*seen, *now.tolist()]
        passed = replayed(pool, now, seed=step).tolist()
        for value in passed:
            seen.remove(value)
        assert sorted(seen) == sorted(pool.pool.tolist())


def test_every_place_of_the_pool_is_exchanged_in_time():
    pool = full(10)
    for step in range(40):
        replayed(pool, torch.full((10,), -1.0), seed=step)
    assert (pool.pool == -1).all()


def test_returned_samples_have_no_gradient_and_their_own_memory():
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


def test_samples_of_another_shape_clear_the_pool():
    pool = full(4)
    larger = torch.arange(6.0).view(3, 2)
    assert torch.equal(replayed(pool, larger), larger)
    assert torch.equal(pool.pool, larger)


def test_the_seed_determines_the_exchanges():
    first, second = full(), full()
    for step in range(5):
        now = torch.arange(6) + 100 * step
        assert torch.equal(replayed(first, now, seed=step), replayed(second, now, seed=step))


@pytest.mark.parametrize("held", [0, 3, 50])
def test_a_restored_pool_continues_as_before(held):
    straight = ReplayPool()
    if held:
        replayed(straight, torch.arange(held))
    tensors, plain = split_state(nn.ModuleDict({"pool": straight}))
    resumed = nn.ModuleDict({"pool": ReplayPool()})
    load_state(resumed, {key: value.clone() for key, value in tensors.items()}, plain, "here")
    for step in range(8):
        now = 100 + torch.arange(10) + 10 * step
        assert_close(replayed(resumed["pool"], now, seed=step), replayed(straight, now, seed=step))
    assert_close(resumed["pool"].pool, straight.pool)
