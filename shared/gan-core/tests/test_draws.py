"""Draws depend only on the seed and on a sample's index in the global batch."""

import pytest
import torch
from torch.testing import assert_close

from gan_core import draws

CPU = torch.device("cpu")
LIKE = torch.empty(0)
KINDS = {
    "normal": lambda count: draws.normal(count, 3, like=LIKE),
    "truncated": lambda count: draws.normal(count, 3, like=LIKE, truncation=0.7),
    "uniform": lambda count: draws.uniform(count, 2, 2, like=LIKE),
    "scalars": lambda count: draws.uniform(count, like=LIKE),
    "integers": lambda count: draws.integers(5, count, like=LIKE),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def draw(request):
    return request.param


def drawn(draw, seed, rows, *, start=0, total=None, times=1):
    with draws.drawing(seed, CPU, start=start, rows=rows, total=total or rows):
        made = [draw(rows * times) for _ in range(2)]
    return torch.stack(made)


@pytest.mark.parametrize(("total", "parts"), [(12, 2), (12, 3), (12, 12), (64, 4), (6, 6)])
def test_the_rows_of_the_parts_are_the_whole(draw, total, parts):
    rows = total // parts
    pieces = [drawn(draw, 7, rows, start=part * rows, total=total) for part in range(parts)]
    assert_close(torch.cat(pieces, dim=1), drawn(draw, 7, total), atol=0, rtol=0)


def test_parts_that_draw_twice_a_sample_get_the_rows_of_the_whole(draw):
    whole = drawn(draw, 7, 8, times=2)
    pieces = [drawn(draw, 7, 4, start=start, total=8, times=2) for start in (0, 4)]
    assert_close(torch.cat(pieces, dim=1), whole, atol=0, rtol=0)


@pytest.mark.parametrize(("total", "parts"), [(12, 2), (12, 12), (64, 4)])
def test_shared_draws_are_equal_in_all_parts(total, parts):
    pieces, rows = [], total // parts
    for part in range(parts):
        with draws.drawing(7, CPU, start=part * rows, rows=rows, total=total):
            pieces.append(torch.stack([draws.shared_integers(1000, 3, like=LIKE) for _ in range(2)]))
    assert all(torch.equal(piece, pieces[0]) for piece in pieces)
    assert len(pieces[0].unique()) > 1


@pytest.mark.parametrize("total", [1, 2, 15, 16, 17, 100])
def test_the_first_samples_do_not_depend_on_how_many_are_asked_for(draw, total):
    """torch fills vectors of 16, so that a draw of 17 would else begin otherwise than one of 16."""
    with draws.drawing(1, CPU, rows=200, total=200):
        longest = draw(200)
    with draws.drawing(1, CPU, rows=total, total=total):
        assert_close(draw(total), longest[:total], atol=0, rtol=0)


def test_a_seed_repeats_and_another_differs(draw):
    assert torch.equal(drawn(draw, 7, 9), drawn(draw, 7, 9))
    assert not torch.equal(drawn(draw, 7, 9), drawn(draw, 8, 9))


def test_the_draws_of_one_stream_differ(draw):
    first, second = drawn(draw, 7, 32)
    assert not torch.equal(first, second)


def test_the_global_generator_is_neither_used_nor_moved(draw):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = drawn(draw, 7, 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(drawn(draw, 7, 4), first)


def test_outside_a_training_draws_come_from_torchs_generator(draw):
    torch.manual_seed(3)
    first = draw(5)
    torch.manual_seed(3)
    assert torch.equal(draw(5), first)
    assert not torch.equal(draw(64), draw(64))


def test_a_stream_ends_with_its_block_and_gives_back_the_outer_one():
    with draws.drawing(1, CPU, rows=2, total=2):
        first = draws.normal(2, like=LIKE)
        with pytest.raises(ZeroDivisionError), draws.drawing(2, CPU, rows=2, total=2):
            raise ZeroDivisionError
        second = draws.normal(2, like=LIKE)
    assert torch.equal(torch.stack([first, second]), drawn(lambda count: draws.normal(count, like=LIKE), 1, 2))
    torch.manual_seed(0)
    outside = draws.normal(2, like=LIKE)
    torch.manual_seed(0)
    assert torch.equal(outside, torch.empty(2).normal_())


# --- distributions


def test_normal_noise_is_standard():
    with draws.drawing(0, CPU, rows=20_000, total=20_000):
        z = draws.normal(20_000, 2, like=LIKE)
    assert z.dtype is torch.float32
    assert_close((z.mean(), z.std()), (torch.tensor(0.0), torch.tensor(1.0)), atol=0.02, rtol=0)


@pytest.mark.parametrize("psi", [1.0, 0.5, 0.1])
def test_truncated_noise_lies_within_two_and_is_scaled(psi):
    with draws.drawing(0, CPU, rows=20_000, total=20_000):
        z = draws.normal(20_000, like=LIKE, truncation=psi)
    assert z.abs().max() <= 2 * psi
    assert_close(z.std() / psi, torch.tensor(0.8796), atol=0.02, rtol=0)  # of a normal cut at ±2


@pytest.mark.parametrize("psi", [None, 0.5])
def test_a_symmetric_latent_is_uniform_around_0(psi):
    with draws.drawing(0, CPU, rows=20_000, total=20_000):
        z = draws.symmetric(20_000, 2, like=LIKE, truncation=psi) / (psi or 1)
    assert z.abs().max() <= 1
    assert_close((z.mean(), z.var()), (torch.tensor(0.0), torch.tensor(1 / 3)), atol=0.02, rtol=0)


def test_uniform_noise_is_in_the_half_open_unit_interval():
    with draws.drawing(0, CPU, rows=20_000, total=20_000):
        u = draws.uniform(20_000, like=LIKE)
    assert u.min() >= 0
    assert u.max() < 1
    assert_close((u.mean(), u.var()), (torch.tensor(0.5), torch.tensor(1 / 12)), atol=0.01, rtol=0)


def test_integers_are_all_below_the_bound_and_even():
    with draws.drawing(0, CPU, rows=20_000, total=20_000):
        k = draws.integers(4, 20_000, like=LIKE)
    assert k.dtype is torch.int64
    assert_close(torch.bincount(k) / len(k), torch.full((4,), 0.25), atol=0.02, rtol=0)


# --- seeds


def test_mixed_seeds_are_the_same_on_every_machine():
    assert draws.mix(0, 1) == 9017893900260303862
    assert draws.mix() == draws.mix()


def test_a_mixed_seed_changes_with_every_number_and_their_order():
    seeds = {draws.mix(*numbers) for numbers in [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 1, 0), (-1,), (2**70,)]}
    assert len(seeds) == 9
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_numbers_of_items_are_uniform_and_depend_on_the_place_in_the_stream():
    with draws.reading(3, 0):
        whole, two = draws.of_items(1000), draws.of_items(1000, 2)
    assert whole.dtype is torch.float64
    assert 0 <= whole.min() < 0.01
    assert 0.99 < whole.max() < 1
    assert abs(whole.mean() - 0.5) < 0.03
    assert torch.equal(two[:, :1], whole)
    assert abs(torch.corrcoef(two.T)[0, 1]) < 0.1
    with draws.reading(3, 5):
        assert torch.equal(draws.of_items(995), whole[5:])
    with draws.reading(4, 0):
        assert not torch.isclose(draws.of_items(1000), whole).any()
