"""Walks along the great circle."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core.errors import InputError
from gan_core.game import Game
from gan_core.two_player import TwoPlayerGame
from gan_image.interpolation import great_circle, strips


class Latent(nn.Module):
    """Shows its latent, and its class, as an image of one row."""

    latent_dim = 3

    def __init__(self, num_classes=None):
        super().__init__()
        self.num_classes = num_classes
        self.scale, self.norm = nn.Parameter(torch.ones(1)), nn.BatchNorm1d(3, affine=False)

    def forward(self, z, label=None):
        shown = self.norm(self.scale * z) if self.training else self.scale * z
        return (shown if label is None else torch.cat([shown, label[:, None].to(z)], dim=1))[:, None, None]


class Judge(nn.Module):
    def __init__(self, num_classes=None):
        super().__init__()
        self.num_classes = num_classes


def game(num_classes=None):
    return TwoPlayerGame(Latent(num_classes), Judge(num_classes))


def test_a_quarter_turn_by_hand():
    start, end = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    points = great_circle(start, end, torch.tensor([0.0, 1 / 3, 0.5, 1.0]))
    angles = torch.tensor([0.0, math.pi / 6, math.pi / 4, math.pi / 2])
    assert_close(points, torch.stack([angles.cos(), angles.sin()], dim=1)[None])


def test_a_walk_begins_and_ends_where_it_should_and_keeps_its_length():
    start, end = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    walk = great_circle(start, end, torch.linspace(0, 1, 9))
    assert walk.shape == (5, 9, 64)
    assert_close(walk[:, 0], start)
    assert_close(walk[:, -1], end)
    unit = great_circle(*(x / x.norm(dim=1, keepdim=True) for x in (start, end)), torch.linspace(0, 1, 9))
    assert_close(unit.norm(dim=2), torch.ones(5, 9))


def test_a_walk_back_is_the_walk_reversed():
    start, end = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    share = torch.linspace(0, 1, 7)
    assert_close(great_circle(end, start, share), great_circle(start, end, share).flip(1))


@pytest.mark.parametrize("end", [[2.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 1e-8]])
def test_latents_on_one_line_have_a_walk_too(end):
    start, stop, share = torch.tensor([1.0, 0.0]), torch.tensor(end), torch.linspace(0, 1, 5)
    assert_close(great_circle(start[None], stop[None], share)[0], torch.lerp(start, stop, share[:, None]))


def test_strips_are_rows_of_walks_that_depend_on_the_seed_alone():
    images = strips(game(), rows=3, steps=5, label=None, seed=1)
    assert images.shape == (15, 1, 1, 3)
    rows = images.unflatten(0, (3, 5)).flatten(2)
    assert_close(great_circle(rows[:, 0], rows[:, -1], torch.linspace(0, 1, 5)), rows)
    assert torch.equal(images, strips(game(), rows=3, steps=5, label=None, seed=1))
    assert not torch.equal(images, strips(game(), rows=3, steps=5, label=None, seed=2))


def test_a_strip_stays_in_its_class():
    classes = [strips(game(3), rows=4, steps=2, label=label, seed=0)[:, 0, 0, 3].tolist() for label in (None, 2)]
    assert classes == [[0, 0, 1, 1, 2, 2, 0, 0], [2] * 8]


def test_strips_are_made_in_evaluation_mode_and_leave_the_game_as_it_was():
    trained = game().train()
    assert torch.equal(strips(trained, rows=2, steps=3, label=None, seed=0),
                       strips(game().eval(), rows=2, steps=3, label=None, seed=0))  # fmt: skip
    assert trained.generator.training


def test_what_has_no_walk_says_why():
    class Other(Game):
        def players(self):
            return ()

    for asked, label, words in (
        (game(3), 3, "`label` is 3; it must be from 0 to 2"),
        (game(3), -1, "`label` is -1; it must be from 0 to 2"),
        (game(), 0, "the model was trained without classes; leave `label` out"),
        (Other(), None, "Other has no generator that takes a latent"),
    ):
        with pytest.raises(InputError) as error:
            strips(asked, rows=2, steps=2, label=label, seed=0)
        assert str(error.value) == words
