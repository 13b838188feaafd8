"""What a training sees of its samples beside the data, in closed form."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from gan_core.data import TensorDataset
from gan_core.nn.blocks import pack
from gan_core.play.game import Game
from gan_core.play.objectives import energy_objective, non_saturating
from gan_core.play.player import Player
from gan_core.play.two_player import TwoPlayerGame
from gan_core.training.diagnostics import FEWEST, ITEMS, VALUES, SampleDiagnostics

ROWS = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(0))


def near(value: float) -> object:
    return pytest.approx(value, rel=1e-4)


class Copying(Game):
    """Its samples are rows that it is given, in their order, those of a class where it has classes."""

    def __init__(self, rows: Tensor, num_classes: int | None = None):
        super().__init__()
        self.generator, self.rows, self.num_classes, self.made = nn.Linear(1, 1), rows, num_classes, 0

    def players(self) -> Iterable[Player]:
        return ()

    def sample(self, count: int, *, label: Tensor | None = None) -> Tensor:
        self.made += count
        return self.rows[self.made - count : self.made] if label is None else self.rows[label]


def seen(game: Game, training: dict[str, Tensor], held_out: dict[str, Tensor] | None = None) -> dict[str, float]:
    return SampleDiagnostics(
        game, TensorDataset(training), None if held_out is None else TensorDataset(held_out)
    ).figures()


@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
def test_samples_that_are_the_data_scaled_are_as_diverse_as_the_scale(scale):
    figures = seen(Copying(scale * ROWS + 7), {"points": ROWS})
    assert figures == {"samples/nearest": near(scale), "samples/spread": near(scale)}


def test_samples_on_two_points_are_far_apart_and_alike():
    figures = seen(Copying(torch.tensor([[-1.0, 0, 0], [1, 0, 0]]).repeat(ITEMS // 2, 1)), {"points": ROWS})
    assert figures["samples/nearest"] == 0
    assert figures["samples/spread"] == pytest.approx(2 * 64 / 127 / float(torch.pdist(ROWS).mean()))


def test_with_classes_samples_are_compared_within_their_class():
    label = torch.arange(ITEMS) % 4
    figures = seen(Copying(10 * torch.eye(4), num_classes=4), {"points": torch.randn(ITEMS, 4), "label": label})
    assert figures == {"samples/nearest": 0, "samples/spread": 0}  # the classes differ, no two of one class do


def test_with_more_classes_than_items_all_are_compared():
    figures = seen(Copying(ROWS, num_classes=ITEMS), {"points": ROWS, "label": torch.arange(ITEMS)})
    assert figures == {"samples/nearest": near(1), "samples/spread": near(1)}


def test_large_items_are_subsampled():
    rows = torch.zeros(ITEMS, 2, VALUES)
    rows[:, 0, 0] = torch.arange(ITEMS)
    other = 2 * rows
    other[:, 1, 1] = torch.randn(ITEMS)  # at an odd place, which is not looked at
    figures = seen(Copying(other), {"waves": rows})
    assert figures == {"samples/nearest": near(2), "samples/spread": near(2)}


def test_samples_are_compared_with_the_data_that_have_their_shape():
    paired = {"source": torch.randn(ITEMS, 5), "target": ROWS, "label": torch.arange(ITEMS)}
    assert seen(Copying(ROWS), paired)["samples/nearest"] == near(1)
    assert seen(Copying(torch.randn(ITEMS, 4)), paired) == {}


def test_figures_that_cannot_be_computed_are_left_out():
    assert seen(Copying(ROWS), {"points": ROWS[: FEWEST - 1]}) == {}
    assert seen(Copying(ROWS), {"points": torch.ones(ITEMS, 3)}) == {}  # data without diversity are no measure
    assert set(seen(Copying(ROWS), {"points": torch.eye(3).repeat(ITEMS, 1)})) == {"samples/spread"}
    assert seen(Copying(torch.full_like(ROWS, torch.nan)), {"points": ROWS}) == {}


# What the discriminator remembers.

KNOWN, NEW = ROWS[:64], ROWS[64:]


class Remembering(nn.Module):
    """Finds what it knows real, and all the rest not."""

    def __init__(self, sign: float = 1.0):
        super().__init__()
        self.sign = sign

    def forward(self, points: Tensor) -> Tensor:
        return self.sign * (points[:, None, :3] == KNOWN).all(dim=2).any(dim=1).float()


class Latent(nn.Linear):
    latent_dim = 2


def game(discriminator: nn.Module, **settings) -> TwoPlayerGame:
    return TwoPlayerGame(Latent(2, 3), discriminator, **settings)


def test_a_discriminator_that_memorises_the_data_recognises_it():
    assert seen(game(Remembering()), {"points": KNOWN}, {"points": NEW})["held_out/recognised"] == 1


def test_a_discriminator_that_knows_nothing_is_right_by_half():
    assert seen(game(Remembering(0.0)), {"points": KNOWN}, {"points": NEW})["held_out/recognised"] == 0.5
    linear = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    recognised = seen(game(linear), {"points": KNOWN}, {"points": NEW})["held_out/recognised"]
    assert 0.3 < recognised < 0.7


def test_low_energies_are_real():
    remembering = Remembering(-1.0)
    remembering.energy = True
    found = seen(game(remembering, objective=energy_objective(1.0)), {"points": KNOWN}, {"points": NEW})
    assert found["held_out/recognised"] == 1


def test_patches_and_packs_are_judged_as_one():
    class Patches(Remembering):
        def forward(self, points):
            return super().forward(points)[:, None, None] * torch.tensor([[0.0, 1.0], [2.0, -1.0]])

    assert seen(game(Patches()), {"points": KNOWN}, {"points": NEW})["held_out/recognised"] == 1
    remembering = Remembering()
    remembering.pack = 2
    packed = game(remembering, objective=non_saturating)
    assert len(packed.realness({"points": KNOWN[:63]})["discriminator"]) == 31
    assert remembering(pack(KNOWN[:2], 2)).tolist() == [1.0]


def test_without_a_discriminator_or_enough_held_out_items_there_is_no_figure():
    assert "held_out/recognised" not in seen(Copying(ROWS), {"points": KNOWN}, {"points": NEW})
    assert "held_out/recognised" not in seen(game(Remembering()), {"points": KNOWN}, {"points": NEW[: FEWEST - 1]})
