"""The average of the weights over the steps: its closed form, and how it takes the weights' place and gives it back."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm
from torch.testing import assert_close

from gan_core import Game, Phase, Player, resume, train
from gan_core.models.checkpoint import read_checkpoint
from gan_core.recipe import HalfLife
from gan_core.training.averaging import Average


class Network(nn.Module):
    """A weight, a statistic, a counter, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.mean: Tensor
        self.count: Tensor
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("count", torch.tensor(0))


class Toy(Game):
    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = Network(), Network()

    def players(self) -> Iterable[Player]:
        yield Player("generator", (self.generator,), self.loss)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.generator.count += 1
        return {"slope": -self.generator.weight.sum()}

    def sample(self, count: int) -> Tensor:
        return self.generator.weight.detach().expand(count, 2).clone()


def play(game: Game, out: Path, **settings: object) -> None:
    descent = {"optimizer.name": "sgd", "optimizer.learning_rate": 1.0}
    fixed = {"steps": 3, "batch_size": 2, "device": "cpu", "shown": False}
    train(game, data={"rows": torch.zeros(4, 1)}, out=out, changes=descent, **fixed | settings)  # type: ignore[arg-type]


def test_the_average_of_three_steps_has_its_closed_form() -> None:
    game = Toy()
    average = Average(game, 0.15)
    for step, value in enumerate((10.0, 20.0, 30.0)):
        with torch.no_grad():
            game.generator.weight.fill_(value)
            game.generator.mean.fill_(-value)
            game.generator.count.fill_(step + 1)
        average.update(step, 1)
    # The decay is the smaller of (1 + t) / (10 + t) and 0.15: 1/10, 0.15 (not 2/11), 0.15 (not 3/12).
    expected = 0.15 * (0.15 * (0.1 * 0 + 0.9 * 10) + 0.85 * 20) + 0.85 * 30
    assert_close(average.average["generator.weight"], torch.full((2,), expected))
    assert_close(average.average["generator.mean"], torch.tensor([-expected]))
    assert average.average["generator.count"].item() == 3
    assert not any(name.startswith("discriminator") for name in average.average)


def test_the_decay_warms_up() -> None:
    game = Toy()
    average = Average(game, 0.999)
    with torch.no_grad():
        game.generator.weight.fill_(1.0)
    for step, left in ((0, 1 / 10), (1, 1 / 10 * 2 / 11), (2, 1 / 10 * 2 / 11 * 3 / 12)):
        average.update(step, 1)
        assert_close(average.average["generator.weight"], torch.full((2,), 1 - left))


def test_a_half_life_is_in_samples_and_grows_with_them() -> None:
    """As in StyleGAN2-ADA: `0.5 ** (batch / max(min(half_life, samples · ramp_up), 1e-8))`, samples before the step."""
    game, plain = Toy(), Toy()
    average = Average(game, HalfLife(half_life=100, ramp_up=0.5))
    fixed = Average(plain, HalfLife(half_life=100, ramp_up=None))
    expected, expected_fixed = 0.0, 0.0
    for step, (value, batch) in enumerate(((10.0, 40), (20.0, 40), (30.0, 20), (40.0, 300), (50.0, 50))):
        samples = (0, 40, 80, 100, 400)[step]
        decay = 0.5 ** (batch / max(min(100, samples * 0.5), 1e-8))
        expected = decay * expected + (1 - decay) * value
        expected_fixed += (1 - 0.5 ** (batch / 100)) * (value - expected_fixed)
        with torch.no_grad():
            game.generator.weight.fill_(value)
            plain.generator.weight.fill_(value)
        average.update(step, batch)
        fixed.update(step, batch)
        assert_close(average.average["generator.weight"], torch.full((2,), expected))
        assert_close(fixed.average["generator.weight"], torch.full((2,), expected_fixed))
    assert average.samples == 450


def test_a_run_with_a_half_life_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    rule = {"half_life": 6, "ramp_up": 0.5}
    whole, game = Toy(), Toy()
    play(whole, tmp_path / "whole", steps=8, ema=rule)
    play(Toy(), tmp_path / "run", steps=4, ema=rule)
    run = resume(tmp_path / "run", steps=8, game=game, data={"rows": torch.zeros(4, 1)}, shown=False)
    assert torch.equal(game.generator.weight, whole.generator.weight)
    assert run.recipe.train.ema == HalfLife(half_life=6, ramp_up=0.5)
    expected, samples = 0.0, 0
    for step in range(8):  # of two samples; the weight is the step's number
        decay = 0.5 ** (2 / max(min(6, samples * 0.5), 1e-8))
        expected, samples = decay * expected + (1 - decay) * (step + 1), samples + 2
    assert whole.generator.weight.tolist() == pytest.approx([expected] * 2)


def test_frozen_weights_are_in_no_average(tmp_path: Path) -> None:
    game = Toy()
    game.generator.fixed = nn.Linear(2, 2).requires_grad_(False)
    average = Average(game, 0.5)
    assert not any("fixed" in name for name in average.average)
    before = game.generator.fixed.weight.clone()
    with average.in_place():
        assert torch.equal(game.generator.fixed.weight, before)


class Freezing(Toy):
    """Its generator is trained in the middle one of three phases, and frozen before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.generator.requires_grad_(False)

    def phases(self) -> Iterable[Phase]:
        return [Phase("before", ("other",), steps=2), Phase("training", steps=3), Phase("after", ("other",), steps=2)]

    def enter(self, phase: Phase) -> None:
        self.generator.requires_grad_(phase.name == "training")

    def players(self) -> Iterable[Player]:
        yield Player("other", (self.discriminator,), lambda batch: {"slope": self.discriminator.weight.sum()})
        if self.generator.weight.requires_grad:
            yield Player("generator", (self.generator,), self.loss)


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_averages_of_weights_that_a_later_phase_freezes_are_kept(tmp_path: Path, stop: int) -> None:
    game, resumed = Freezing(), Freezing()
    play(game, tmp_path / "whole", steps=7, ema=0.15, checkpoint_every=1, keep_checkpoints=9)
    # The weight is 1, 2, 3, 3, 3 from the third step on, and the decay 0.15 there, as (1 + t) / (10 + t) is more.
    expected = 0.0
    for value in (1.0, 2.0, 3.0, 3.0, 3.0):
        expected = 0.15 * expected + 0.85 * value
    assert game.generator.weight.tolist() == pytest.approx([expected] * 2)
    for folder in sorted((tmp_path / "whole" / "checkpoints").iterdir())[stop:]:
        shutil.rmtree(folder)
    resume(tmp_path / "whole", game=resumed, data={"rows": torch.zeros(4, 1)}, shown=False)
    assert torch.equal(resumed.generator.weight, game.generator.weight)


def test_an_average_of_frozen_weights_alone_changes_nothing() -> None:
    game = Toy()
    game.generator = nn.Linear(2, 2).requires_grad_(False)
    Average(game, 0.5).update(0, 1)


def test_swapping_in_the_average_and_back_changes_no_bit() -> None:
    game = Toy()
    average = Average(game, 0.9)
    with torch.no_grad():
        game.generator.weight.copy_(torch.tensor([1 / 3, 1e-30]))
        game.generator.count.fill_(7)
    weights = {name: tensor.clone() for name, tensor in game.state_dict().items()}
    with average.in_place():
        assert game.generator.weight.tolist() == [0.0, 0.0]
        assert game.generator.count.item() == 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in game.state_dict().items())
    assert average.average["generator.weight"].tolist() == [0.0, 0.0]
    with pytest.raises(ZeroDivisionError), average.in_place():
        raise ZeroDivisionError
    assert all(torch.equal(tensor, weights[name]) for name, tensor in game.state_dict().items())


def test_a_weight_with_two_names_is_exchanged_once() -> None:
    game = Toy()
    game.generator.other = nn.Linear(1, 2, bias=False)
    game.generator.again = nn.Linear(1, 2, bias=False)
    game.generator.again.weight = game.generator.other.weight
    average = Average(game, 0.9)
    before = game.generator.other.weight.detach().clone()
    with torch.no_grad():
        game.generator.other.weight.fill_(5.0)
    with average.in_place():
        assert torch.equal(game.generator.again.weight, before)
    assert game.generator.other.weight.tolist() == [[5.0], [5.0]]
    assert torch.equal(average.average["generator.again.weight"], before)


def test_the_average_follows_networks_that_move_in_memory_and_grow() -> None:
    game = Toy()
    average = Average(game, 0.5)
    game.generator.weight.data = game.generator.weight.data.clone()  # as a change of the memory layout does
    game.generator.grown = nn.Linear(1, 1)
    average.follow(game)
    with torch.no_grad():
        game.generator.weight.fill_(1.0)
    grown = game.generator.grown.weight.detach().clone()
    average.update(100, 1)
    assert average.average["generator.weight"].tolist() == [0.5, 0.5]
    assert torch.equal(average.average["generator.grown.weight"], grown)


def test_the_average_of_a_spectrally_normalised_layer_is_normalised() -> None:
    game = Toy()
    layer = game.generator.layer = spectral_norm(nn.Linear(2, 2, bias=False))
    average = Average(game, 0.5)
    for step, rows in enumerate(([[9.0, 0.1], [0.1, 1.0]], [[1.0, 0.1], [0.1, 20.0]])):  # the largest changes places
        with torch.no_grad():
            layer.weight_orig.copy_(torch.tensor(rows))
        for _ in range(50):
            layer(torch.zeros(1, 2))
        average.update(100 + step, 1)
    with average.in_place():
        game.eval()
        layer(torch.zeros(1, 2))
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, rel=0.02)


class Shrinking(Toy):
    """The second phase replaces the generator by one of another shape."""

    def phases(self) -> Iterable[Phase]:
        return [Phase("one"), Phase("two")]

    def enter(self, phase: Phase) -> None:
        if phase.name == "two":
            self.generator.weight = nn.Parameter(torch.zeros(1))

    def sample(self, count: int) -> Tensor:
        return self.generator.weight.detach().expand(count, -1).clone()


def test_a_phase_may_replace_averaged_networks(tmp_path: Path) -> None:
    game = Shrinking()
    play(game, tmp_path / "run", steps=4, ema=0.01)
    # In the second phase, of two steps on a slope of -1 at rate 1, the weight is 1 and then 2.
    assert game.generator.weight.tolist() == pytest.approx([0.01 * (0.99 * 1) + 0.99 * 2])


def test_samples_and_the_game_afterwards_are_the_average(tmp_path: Path) -> None:
    shown = []

    class Showing(Toy):
        def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            shown.append(self.generator.weight[0].item())
            return super().preview(batch)

    game = Showing()
    play(game, tmp_path / "run", ema=0.15, sample_every=1)
    # At rate 1 on a slope of -1 the weight is 1, 2, 3; the decay is 1/10 in the first step, and then 0.15.
    first = 0.9 * 1
    second = 0.15 * first + 0.85 * 2
    third = 0.15 * second + 0.85 * 3
    assert shown == pytest.approx([first, second, third])
    assert game.generator.weight.tolist() == pytest.approx([third, third])
    assert game.generator.count.item() == 3
    files, _ = read_checkpoint(tmp_path / "run/checkpoints/00000003")
    assert files["game.safetensors"]["generator.weight"].tolist() == [3.0, 3.0]
    assert_close(files["average.safetensors"]["generator.weight"], torch.full((2,), third))
    assert Toy().restore(tmp_path / "run").generator.weight.tolist() == pytest.approx([third, third])
    assert Toy().restore(tmp_path / "run/model").generator.weight.tolist() == pytest.approx([third, third])


def test_without_an_average_samples_are_made_with_the_last_weights(tmp_path: Path) -> None:
    game = Toy()
    play(game, tmp_path / "run")
    assert game.generator.weight.tolist() == [3.0, 3.0]
