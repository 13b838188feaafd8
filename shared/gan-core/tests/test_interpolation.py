"""Ways between latents, in the distribution that they are drawn from."""

import math
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.play.conditions import Text
from gan_core.play.game import Game
from gan_core.play.interpolation import interpolate
from gan_core.play.latents import great_circle, straight_line
from gan_core.play.two_player import TwoPlayerGame


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


def test_latents_of_several_axes_have_ways_of_their_shape():
    start, end = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    share = torch.linspace(0, 1, 5)
    for way in (great_circle, straight_line):
        flat = way(start.flatten(1), end.flatten(1), share)
        assert torch.equal(way(start, end, share), flat.unflatten(2, (2, 4)))


def test_a_straight_line_by_hand_stays_in_its_cube():
    start, end = torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    line = straight_line(start, end, torch.tensor([0.0, 0.25, 1.0]))
    assert line.tolist() == [[[-1.0, 1.0], [-0.5, 0.75], [1.0, 0.0]]]


def drawn(game, count, *, seed=0):
    with draws.drawing(seed, game.device, rows=count, total=count):
        return game.latent(count)


def test_rows_go_from_one_drawn_latent_to_another():
    made = interpolate(game(), rows=3, steps=5, seed=1)
    assert made.shape == (3, 5, 1, 1, 3)
    start, end = drawn(game(), 6, seed=1).chunk(2)
    assert torch.equal(made[:, :, 0, 0], great_circle(start, end, torch.linspace(0, 1, 5)))
    assert torch.equal(made, interpolate(game(), rows=3, steps=5, seed=1))
    assert not torch.equal(made, interpolate(game(), rows=3, steps=5, seed=2))


def test_a_row_has_one_class():
    def classes(**given):
        return interpolate(game(3), rows=4, steps=2, **given)[..., 3].flatten().tolist()

    assert classes() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert classes(label=2) == [2] * 8
    assert classes(label=[2, 0, 1, 1]) == [2, 2, 0, 0, 1, 1, 1, 1]


def test_parts_are_made_in_evaluation_mode_and_leave_the_game_as_it_was():
    trained = game().train()
    trained.at_once = 4
    assert torch.equal(interpolate(trained, rows=2, steps=3), interpolate(game().eval(), rows=2, steps=3))
    assert trained.generator.training
    assert not interpolate(trained).requires_grad


def test_what_is_drawn_on_the_way_does_not_depend_on_how_many_run_at_once():
    class Noisy(TwoPlayerGame):
        def synthesize(self, styles):
            return draws.normal(len(styles), 2, like=styles)

    noisy = Noisy(Latent(), Judge())
    whole = interpolate(noisy, rows=10, steps=10)
    assert len(whole.unique()) == 200
    noisy.at_once = 8
    assert torch.equal(interpolate(noisy, rows=10, steps=10), whole)
    noisy.at_once = 7
    with pytest.raises(RecipeError, match=r"^`at_once` is 7; expected a divisor of 64, such as 8$"):
        interpolate(noisy)


def test_samples_are_what_users_get_and_the_ends_are_truncated():
    class Doubled(TwoPlayerGame):
        def finish(self, fakes):
            return 2 * fakes

    doubled = Doubled(Latent(), Judge())
    assert torch.equal(interpolate(doubled), 2 * interpolate(game()))
    ends = interpolate(game(), rows=64, truncation=0.1)[:, [0, -1]]
    assert ends.abs().max() <= 0.2  # ψ times 2
    with pytest.raises(RecipeError, match=r"^`truncation` is 2.0; expected a number above 0 and at most 1$"):
        interpolate(game(), truncation=2)


def test_a_row_has_one_text():
    class Told(TwoPlayerGame):
        conditions: ClassVar = {"caption": Text()}

        def synthesize(self, styles, caption):
            return torch.tensor([[float(len(text))] for text in caption])

    told = Told(Latent(), Judge())
    assert interpolate(told, rows=2, steps=3, caption=["a", "bird"]).flatten().tolist() == [1, 1, 1, 4, 4, 4]
    with pytest.raises(RecipeError, match=r"^`caption` is missing; "):
        interpolate(told)


def test_what_has_no_way_says_why():
    class Other(Game):
        def __init__(self):
            super().__init__()
            self.network = nn.Linear(1, 1)

        def players(self):
            return ()

    without = "this TwoPlayerGame was trained without classes; leave `label` out, or set `num_classes`"
    for asked, given, words in (
        (game(3), {"label": 3}, "`label` is 3; expected 0 to 2"),
        (game(), {"label": 0}, without),
        (game(), {"frames": 3}, "TwoPlayerGame takes no `frames`; it takes `truncation`"),
        (Other(), {}, "Other has no latents to interpolate between"),
    ):
        with pytest.raises(RecipeError) as error:
            interpolate(asked, rows=2, steps=2, **given)
        assert str(error.value) == words
