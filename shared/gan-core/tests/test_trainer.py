"""The trainer: order of turns, batches, learning rates, phases, staging, the log, limits, signals and rollbacks."""

from __future__ import annotations

import collections
import itertools
import json
import math
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partialmethod
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.testing import assert_close

import gan_core.training.logging
import gan_core.training.state
from gan_core import SGD, Game, GradientPenalty, Phase, Player, TwoPlayerGame, draws, resume, train
from gan_core.api import Toolkit
from gan_core.data import Source, Spec, TensorDataset, hold_out
from gan_core.domain import Domain
from gan_core.errors import CheckpointError, NonFiniteError, RecipeError
from gan_core.models.checkpoint import read_checkpoint, write_checkpoint
from gan_core.play.objectives import wasserstein
from gan_core.runs.run import Run


def fit(game: Game, out: Path, data: Any = None, **settings: Any) -> Run:
    """Trains on numbered rows, unless other data are given."""
    data = {"rows": torch.arange(12.0)[:, None]} if data is None else data
    return train(game, data=data, out=out, shown=False, **{"device": "cpu", "steps": 3, "batch_size": 4} | settings)


class Weight(nn.Module):
    """A network with a single parameter."""

    def __init__(self, start: float = 0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([start]))


class Slopes(Game):
    """Two players, each with one weight and a linear loss: descent at rate r moves the weight by r times the slope."""

    def __init__(self, first: float = 1.0, second: float = 1.0, turns: Mapping[str, int] = MappingProxyType({})):
        super().__init__()
        self.generator, self.discriminator = Weight(), Weight()
        self.first, self.second, self.turns = first, second, turns
        self.events: list[tuple[str, Tensor]] = []

    def players(self) -> Iterable[Player]:
        yield Player("first", (self.generator,), self.first_loss, self.turns.get("first", 1))
        yield Player("second", (self.discriminator,), self.second_loss, self.turns.get("second", 1))

    def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.events.append(("first", batch["rows"]))
        return {"slope": self.first * self.generator.value.sum()}

    def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.events.append(("second", batch["rows"]))
        return {"slope": self.second * self.discriminator.value.sum()}

    def sample(self, count: int) -> Tensor:
        return self.generator.value.expand(count, 1)


class Studious(Slopes):
    """Stores the mean of its training data."""

    def __init__(self) -> None:
        super().__init__()
        self.studies = 0
        self.register_buffer("mean", torch.zeros(()))

    def study(self, training: Any) -> None:
        self.studies += 1
        self.mean = torch.stack([training[k]["rows"] for k in range(len(training))]).mean()


def test_a_game_studies_the_data_before_its_first_step_and_never_again(tmp_path: Path) -> None:
    game, data = Studious(), {"rows": torch.arange(10.0)[:, None]}
    run = train(game, data=data, out=tmp_path, shown=False, steps=2, batch_size=4, device="cpu", checkpoint_every=1)
    assert (game.studies, game.mean) == (1, 4.5)
    again = Studious()
    resume(run.path, steps=4, game=again, data={"rows": torch.zeros(10, 1)}, shown=False)
    assert (again.studies, again.mean) == (0, 4.5)


def test_a_game_studies_the_items_that_are_not_held_out(tmp_path: Path) -> None:
    game, rows = Studious(), torch.arange(10.0)[:, None]
    train(game, data={"rows": rows}, out=tmp_path, shown=False, changes={"data.held_out": 0.5}, steps=1, device="cpu")
    kept = [item["rows"] for item in hold_out(TensorDataset({"rows": rows}), 0.5)[0]]
    assert_close(game.mean, torch.stack(kept).mean())


def test_networks_that_cannot_be_compiled_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    import torch._inductor.config

    def critic() -> TwoPlayerGame:
        generator = nn.Sequential(nn.Linear(2, 1))
        generator.latent_dim = 2  # type: ignore[assignment]
        return TwoPlayerGame(generator, nn.Sequential(nn.Linear(1, 1), nn.Flatten(0)))

    words = r"^the networks cannot be compiled \(.*\); install a C\+\+ compiler, such as g\+\+, or leave `--compile` \("
    nothing = {"cpp.cxx": (None, "/nonexistent/c++"), "force_disable_caches": True}
    with torch._inductor.config.patch(nothing), pytest.raises(RecipeError, match=words):
        fit(critic(), tmp_path / "run", compile=True)
    assert list(tmp_path.iterdir()) == []
    fit(critic(), tmp_path / "run")


DESCENT = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.5}


# Trained and frozen parameters.


class Watched(Game):
    """A generator, a discriminator, and an encoder of no player; every loss records which parameters are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.discriminator = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.encoder = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Dropout(0.5))
        self.movable: dict[str, set[str]] = {}
        self.modes: dict[str, bool] = {}

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.discriminator,), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def watch(self, player: str) -> None:
        self.movable[player] = {name.split(".")[0] for name, p in self.named_parameters() if p.requires_grad}
        self.modes |= {name: network.training for name, network in self.named_children()}

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.watch("generator")
        return {"adversarial": -self.discriminator(self.sample(len(batch["rows"]))).mean()}

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.watch("discriminator")
        real, fake = self.discriminator(self.encoder(batch["rows"])), self.discriminator(self.sample(4))
        return {"adversarial": (fake - real).mean()}

    def sample(self, count: int) -> Tensor:
        return self.generator(draws.normal(count, 1, like=self.generator[0].weight))


def test_only_the_mover_s_parameters_require_gradients(tmp_path: Path) -> None:
    game = Watched()
    fit(game, tmp_path)
    assert game.movable == {"generator": {"generator"}, "discriminator": {"discriminator"}}


def test_a_network_of_no_player_does_not_change_and_stays_in_evaluation_mode(tmp_path: Path) -> None:
    game = Watched()
    before = {name: tensor.clone() for name, tensor in game.state_dict().items()}
    fit(game, tmp_path)
    assert game.modes == {"generator": True, "discriminator": True, "encoder": False}
    changed = {
        name.split(".")[0] for name, tensor in game.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"generator", "discriminator"}


def test_players_that_sit_out_a_phase_are_frozen_in_it(tmp_path: Path) -> None:
    class Alone(Watched):
        def phases(self) -> Iterable[Phase]:
            return [Phase("alone", ("discriminator",))]

    game = Alone()
    before = {name: tensor.clone() for name, tensor in game.generator.state_dict().items()}
    fit(game, tmp_path)
    assert not game.modes["generator"]
    assert game.movable == {"discriminator": {"discriminator"}}
    assert all(torch.equal(tensor, before[name]) for name, tensor in game.generator.state_dict().items())


def test_shared_networks_are_trained_in_the_turns_of_both_players(tmp_path: Path) -> None:
    class Shared(Watched):
        def players(self) -> Iterable[Player]:
            yield Player("discriminator", (self.discriminator, self.encoder), self.discriminator_loss)
            yield Player("generator", (self.generator, self.discriminator), self.generator_loss)

    game = Shared()
    fit(game, tmp_path)
    assert game.movable["discriminator"] == {"discriminator", "encoder"}
    assert game.movable["generator"] == {"generator", "discriminator"}


def test_after_training_all_parameters_require_gradients_in_evaluation_mode(tmp_path: Path) -> None:
    game = Watched()
    fit(game, tmp_path)
    assert all(parameter.requires_grad for parameter in game.parameters())
    assert not any(module.training for module in game.modules())


def test_after_a_failed_or_refused_training_all_parameters_require_gradients(tmp_path: Path) -> None:
    class Failing(Watched):
        def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if self.fails:
                raise ArithmeticError
            return super().generator_loss(batch)

    game = Failing()
    game.fails = True
    with pytest.raises(ArithmeticError):
        fit(game, tmp_path / "failed")
    assert all(parameter.requires_grad for parameter in game.parameters())
    game.fails = False
    fit(game, tmp_path / "run")
    with pytest.raises(RecipeError, match="is finished at step 3"):
        resume(tmp_path / "run", game=game, data={"rows": torch.arange(12.0)[:, None]}, shown=False)
    fit(game, tmp_path / "again")


class Frozen(Watched):
    """A game whose discriminator has a frozen encoder with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        fixed = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3)).requires_grad_(False)
        self.discriminator = nn.Sequential(fixed, nn.Linear(3, 3), nn.Linear(3, 1))
        self.generator[2].bias.requires_grad_(False)


def test_parameters_frozen_by_the_author_do_not_change(tmp_path: Path) -> None:
    game = Frozen()
    before = {name: tensor.clone() for name, tensor in game.state_dict().items()}
    run = fit(game, tmp_path, steps=4, ema=0.9, checkpoint_every=2)
    still = {name for name, tensor in game.state_dict().items() if torch.equal(tensor, before[name])}
    fixed = {f"discriminator.0.{name}" for name in game.discriminator[0].state_dict()} | {"generator.2.bias"}
    assert fixed <= still
    assert not still & {"discriminator.1.weight", "discriminator.2.weight", "generator.0.weight", "generator.2.weight"}
    assert {name for name, p in game.named_parameters() if not p.requires_grad} == (
        {"discriminator.0.0.weight", "discriminator.0.0.bias", "discriminator.0.1.weight", "discriminator.0.1.bias"}
        | {"generator.2.bias"}
    )
    files, state = read_checkpoint(run.checkpoints()[-1])
    assert len(state["optimizers"]["discriminator"][0]["params"]) == 4  # of two layers
    assert not any(
        tuple(tensor.shape) == (3, 1)
        for name, tensor in files["optimizers.safetensors"].items()
        if name.startswith("discriminator/")
    )
    assert "generator.2.bias" not in files["average.safetensors"]
    assert "generator.2.weight" in files["average.safetensors"]
    resumed = Frozen()
    resumed.load_state_dict(before)
    resume(tmp_path, steps=6, game=resumed, data={"rows": torch.arange(12.0)[:, None]}, shown=False)
    assert all(torch.equal(resumed.state_dict()[name], before[name]) for name in fixed)


def test_a_phase_may_freeze_and_thaw(tmp_path: Path) -> None:
    class Thawing(Watched):
        def phases(self) -> Iterable[Phase]:
            return [Phase("frozen", steps=2), Phase("free", steps=2)]

        def enter(self, phase: Phase) -> None:
            self.generator[0].requires_grad_(phase.name == "free")

        def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.trained.append(self.generator[0].weight.requires_grad)
            return super().generator_loss(batch)

    game = Thawing()
    game.trained = []
    fit(game, tmp_path, steps=4)
    assert game.trained == [False, False, True, True]
    assert all(parameter.requires_grad for parameter in game.parameters())


def test_a_player_without_anything_to_train_is_refused(tmp_path: Path) -> None:
    game = Watched()
    game.generator.requires_grad_(False)
    with pytest.raises(RecipeError, match="the player `generator` has nothing to train: all its parameters are frozen"):
        fit(game, tmp_path)


# Turns and batches.


def test_players_move_in_order_as_often_as_they_have_turns(tmp_path: Path) -> None:
    game = Slopes()
    fit(game, tmp_path, steps=2, changes={"players.first.turns": 3, **DESCENT})
    assert [name for name, _ in game.events] == ["first", "first", "first", "second"] * 2
    assert (game.generator.value.item(), game.discriminator.value.item()) == (-3.0, -1.0)  # turns · steps · 0.5


def test_a_player_s_own_turns_are_the_default(tmp_path: Path) -> None:
    game = Slopes(turns={"second": 2})
    fit(game, tmp_path, steps=2)
    assert [name for name, _ in game.events] == ["first", "second", "second"] * 2


def test_every_turn_gets_a_fresh_batch_until_every_row_was_seen_once(tmp_path: Path) -> None:
    game = Slopes()
    fit(game, tmp_path, steps=3)  # 6 turns of 4 rows: two epochs of 12
    rows = torch.cat([batch for _, batch in game.events]).flatten()
    for epoch in rows.split(12):
        assert sorted(epoch.tolist()) == list(range(12))
    assert not torch.equal(rows[:12], rows[12:])


def test_unknown_players_are_refused(tmp_path: Path) -> None:
    class Misspelt(Slopes):
        def phases(self) -> Iterable[Phase]:
            return [Phase("warm", ("frist",))]

    with pytest.raises(RecipeError, match=r"unknown player in phase `warm` `frist`; did you mean `first`\?"):
        fit(Misspelt(), tmp_path / "phase")
    with pytest.raises(RecipeError, match=r"unknown player of Slopes `secnd`; did you mean `second`\?"):
        fit(Slopes(), tmp_path / "recipe", changes={"players.secnd.turns": 2})
    assert not (tmp_path / "recipe").exists()


def test_a_player_moves_in_every_nth_step_of_a_phase(tmp_path: Path) -> None:
    class Rare(Slopes):
        def phases(self) -> Iterable[Phase]:
            return [Phase("one", steps=4), Phase("two", steps=5)]

        def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.moved.append(self.step)
            return super().second_loss(batch)

    game = Rare()
    game.moved = []
    changes = {"players.second.every": 3, "players.second.turns": 2, **DESCENT}
    run = fit(game, tmp_path, steps=9, log_every=3, changes=changes)
    assert game.moved == [0, 0, 3, 3, 4, 4, 7, 7]
    assert game.generator.value.item() == -4.5
    # A line has the gradient of the last move before it: of the steps 0, 4 and 7.
    assert ["second/gradient_norm" in line for line in run.log()] == [True, True, True]
    steps = [line for line in run.log() if "second/slope" in line]
    assert len(steps) == 3


def test_a_resumed_player_keeps_its_interval(tmp_path: Path) -> None:
    class Rare(Slopes):
        def players(self) -> Iterable[Player]:
            yield Player("first", (self.generator,), self.first_loss, every=4)
            yield Player("second", (self.discriminator,), self.second_loss)

    fit(Rare(), tmp_path, steps=6, changes=DESCENT)
    game = Rare()
    resume(tmp_path, steps=9, game=game, data={"rows": torch.zeros(12, 1)}, shown=False)
    assert [name for name, _ in game.events] == ["second", "second", "first", "second"]
    assert game.generator.value.item() == -1.5


# Learning rates.


def test_each_player_has_its_own_learning_rate(tmp_path: Path) -> None:
    game = Slopes()
    fit(game, tmp_path, steps=4, changes=DESCENT | {"players.second.optimizer.learning_rate": 0.125})
    assert (game.generator.value.item(), game.discriminator.value.item()) == (-2.0, -0.5)  # 4 · 0.5 and 4 · 0.125


def test_a_player_s_own_optimizer_wins_over_the_recipe_s(tmp_path: Path) -> None:
    class Own(Slopes):
        def players(self) -> Iterable[Player]:
            yield Player("first", (self.generator,), self.first_loss, optimizer=SGD(learning_rate=2.0))
            yield Player("second", (self.discriminator,), self.second_loss)

    game = Own()
    fit(game, tmp_path, steps=1, changes=DESCENT)
    assert (game.generator.value.item(), game.discriminator.value.item()) == (-2.0, -0.5)


def test_the_norm_of_a_player_s_whole_gradient_is_clipped(tmp_path: Path) -> None:
    class Steep(Slopes):
        def __init__(self) -> None:
            super().__init__()
            self.other = Weight()

        def players(self) -> Iterable[Player]:
            yield Player("first", (self.generator, self.other), self.steep_loss)
            yield Player("second", (self.discriminator,), self.second_loss)

        def steep_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"a": 3 * self.generator.value.sum(), "b": 4 * self.other.value.sum()}

    game = Steep()
    fit(
        game,
        tmp_path,
        steps=1,
        changes={"optimizer.name": "sgd", "optimizer.learning_rate": 1.0, "optimizer.clip_norm": 2.0},
    )
    assert_close(torch.cat([game.generator.value, game.other.value]), torch.tensor([-1.2, -1.6]))  # 2 · (3, 4) / 5
    assert game.discriminator.value.item() == -1.0  # a gradient of 1 is short enough


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ({"name": "linear"}, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ({"name": "linear", "start": 0.5, "end": 0.2}, [1, 1, 1, 1, 1, 0.8, 0.6, 0.4]),
        ({"name": "cosine"}, [(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]),
        ({"name": "cosine", "end": 0.1}, [0.1 + 0.9 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]),
        ({"name": "step", "every": 3, "factor": 0.1}, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        ({"name": "constant"}, [1] * 8),
    ],
    ids=["linear", "linear-late", "cosine", "cosine-end", "step", "constant"],
)
def test_the_learning_rate_follows_its_schedule(tmp_path: Path, schedule: dict[str, Any], factors: list[float]) -> None:
    places: list[float] = []

    class Tracked(Slopes):
        def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            places.append(-self.generator.value.item())
            return super().first_loss(batch)

    game = Tracked()
    fit(game, tmp_path, steps=8, changes=DESCENT | {"optimizer.schedule": schedule})
    places.append(-game.generator.value.item())
    moved = [after - before for before, after in itertools.pairwise(places)]
    assert moved == pytest.approx([0.5 * factor for factor in factors], abs=1e-6)


# Phases.


class RowSpec(Spec):
    size: int = 1


class Sizes(Source):
    """Rows with the number of columns that the phase specifies."""

    name, facts, keys = "sizes", {}, ("rows",)

    def __len__(self) -> int:
        return 12

    def fit(self, spec: Spec) -> TensorDataset:
        assert isinstance(spec, RowSpec)
        return TensorDataset({"rows": torch.zeros(12, spec.size)})


class Growing(Slopes):
    """Two phases: the second has wider data, smaller batches, another slope, and the first player alone."""

    def __init__(self) -> None:
        super().__init__(first=1000.0)
        self.entered: list[tuple[str, int]] = []
        self.places: list[tuple[str, float]] = []

    def data_spec(self) -> Spec:
        return RowSpec()

    def phases(self) -> Iterable[Phase]:
        return [Phase("narrow", share=3), Phase("wide", ("first",), share=1, spec={"size": 2}, batch_size=2)]

    def enter(self, phase: Phase) -> None:
        self.entered.append((phase.name, self.step))
        self.first = 1000.0 if phase.name == "narrow" else -1.0

    def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.places.append((self.phase.name, self.progress))
        return super().first_loss(batch)


def test_a_phase_has_its_own_players_data_and_new_optimizers(tmp_path: Path) -> None:
    game = Growing()
    adam = {"optimizer.learning_rate": 0.25, "optimizer.betas": (0.9, 0.999)}
    run = fit(game, tmp_path, data=Sizes(), steps=4, log_every=1, changes=adam)
    assert [name for name, _ in game.entered] == ["narrow", "wide"]
    assert game.places == [("narrow", 0.0), ("narrow", 1 / 3), ("narrow", 2 / 3), ("wide", 0.0)]
    assert game.progress == 1.0
    assert [(name, tuple(batch.shape)) for name, batch in game.events] == (
        [("first", (4, 1)), ("second", (4, 1))] * 3 + [("first", (2, 2))]
    )
    # Adam's first step is its rate whatever the slope; with the moments of slopes of 1000 it would go on downwards.
    assert game.generator.value.item() == pytest.approx(-3 * 0.25 + 0.25, abs=1e-4)
    assert [line["phase"] for line in run.log()] == ["narrow"] * 3 + ["wide"]
    assert "second/slope" not in run.log()[-1]


def test_a_learning_rate_schedule_restarts_with_each_phase(tmp_path: Path) -> None:
    class Halves(Slopes):
        def phases(self) -> Iterable[Phase]:
            return [Phase("one"), Phase("two")]

    game = Halves()
    fit(game, tmp_path, steps=4, changes=DESCENT | {"optimizer.schedule": {"name": "linear"}})
    assert game.generator.value.item() == -0.5 * (1 + 0.5 + 1 + 0.5)


def test_an_indivisible_batch_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"the batch size is 2; expected a multiple of 4 \(number of processes ×"):
        fit(Growing(), tmp_path / "run", data=Sizes(), steps=4, accumulate=4)
    assert not (tmp_path / "run").exists()


def test_a_game_without_samples_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Mute(Slopes):
        sample = Game.sample

    with pytest.raises(RecipeError, match="Mute has no samples to show; define `sample`, `apply` or `preview`"):
        fit(Mute(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Staging.


class Translator(Game):
    """A generator and a discriminator with losses on the same translations, which are staged or made in each loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator, self.discriminator = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        self.staged: list[int] = []
        self.seen: dict[str, bool] = {}

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.discriminator,), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen["generator"] = batch["fake"].requires_grad
        near = (batch["fake"] - batch["target"]).square().mean()
        return {"adversarial": -self.discriminator(batch["fake"]).mean(), "reconstruction": near}

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen["discriminator"] = batch["fake"].requires_grad
        judged = self.discriminator(batch["fake"]).exp() - self.discriminator(batch["target"])
        return {"adversarial": judged.mean()}

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"translated": self.generator(batch["source"])}


class Staged(Translator):
    def stage(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.staged.append(self.step)
        return batch | {"fake": self.generator(batch["source"])}


class Unstaged(Translator):
    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return super().generator_loss(batch | {"fake": self.generator(batch["source"])})

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return super().discriminator_loss(batch | {"fake": self.generator(batch["source"])})


def pairs(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(count, 2, generator=generator) for key in ("source", "target")}


def test_staging_happens_once_per_step_and_is_constant_for_other_players(tmp_path: Path) -> None:
    game = Staged()
    fit(game, tmp_path, data=pairs(12), steps=5)
    assert game.staged == [0, 1, 2, 3, 4]
    assert game.seen == {"generator": True, "discriminator": False}


def test_staged_and_unstaged_games_compute_the_same(tmp_path: Path) -> None:
    staged, unstaged = Staged(), Unstaged()
    for game in (staged, unstaged):  # batches of all the rows, so that every turn sees the same ones
        fit(game, tmp_path / type(game).__name__, data=pairs(8), batch_size=8, steps=20)
    for name, tensor in staged.state_dict().items():
        assert_close(tensor, unstaged.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_staging_trains_networks_that_a_stager_shares_with_a_later_player(tmp_path: Path) -> None:
    class Shared(Staged):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(2, 2)

        def players(self) -> Iterable[Player]:
            yield Player("generator", (self.generator, self.encoder), self.generator_loss)
            yield Player("discriminator", (self.discriminator, self.encoder), self.discriminator_loss)

        def stage(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            made = self.generator(self.encoder(batch["source"]))
            assert self.encoder.weight.requires_grad
            return batch | {"fake": made}

        def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"adversarial": self.discriminator(self.encoder(batch["target"])).mean()}

    game = Shared()
    fit(game, tmp_path, data=pairs(8), steps=1, changes={"players.discriminator.optimizer.learning_rate": 1e-30})
    torch.manual_seed(0)
    assert not torch.equal(game.encoder.weight, Shared().encoder.weight)


def test_a_stager_has_one_turn(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"`generator` of Staged is trained once per step, through `stage`; set its `turns` to 1"
    ):
        fit(Staged(), tmp_path, data=pairs(8), changes={"players.generator.turns": 2})


def test_other_players_have_all_their_turns_on_the_staged_batch(tmp_path: Path) -> None:
    class Several(Staged):
        def __init__(self) -> None:
            super().__init__()
            self.judged: list[Tensor] = []

        def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.judged.append(batch["fake"])
            return super().discriminator_loss(batch)

    game = Several()
    run = fit(game, tmp_path, data=pairs(12), steps=4, changes={"players.discriminator.turns": 3})
    assert game.staged == [0, 1, 2, 3]
    for one, two, three in zip(*[iter(game.judged)] * 3, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    assert not torch.equal(game.judged[0], game.judged[3])
    assert read_checkpoint(run.checkpoints()[-1])[1]["seen"] == 4 * 4


def test_a_phase_without_stagers_is_not_staged_and_reads_a_batch_each_turn(tmp_path: Path) -> None:
    class Warm(Staged):
        def phases(self) -> Iterable[Phase]:
            return [Phase("warm", ("discriminator",), steps=2), Phase("joint", steps=3)]

        def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if "fake" in batch:
                return super().discriminator_loss(batch)
            return {"adversarial": self.discriminator(batch["target"]).square().mean()}

    game = Warm()
    run = fit(game, tmp_path, data=pairs(12), steps=5, changes={"players.discriminator.turns": 2})
    assert game.staged == [2, 3, 4]
    assert read_checkpoint(run.checkpoints()[-1])[1]["seen"] == 4 * (2 * 2 + 3)


def test_stagers_must_be_players(tmp_path: Path) -> None:
    class Misnamed(Staged):
        stagers = ("painter",)

    with pytest.raises(RecipeError, match=r"`stagers` lists painter, but the players are discriminator, generator;"):
        fit(Misnamed(), tmp_path, data=pairs(8))


# The log.


class Counting(Slopes):
    """A game whose terms and notes are functions of the step."""

    def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.note("square", torch.tensor(self.step**2))
        terms = {"step": self.generator.value.sum() * 0 + self.step}
        return terms | ({"lazy": terms["step"] * 10} if self.step % 4 == 0 else {})


def test_the_log_has_the_means_of_each_interval(tmp_path: Path) -> None:
    run = fit(Counting(), tmp_path, steps=12, log_every=5)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == run.log()
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert [line["first/step"] for line in lines] == [2.0, 7.0, 10.5]
    assert [line["first/square"] for line in lines] == [6.0, 51.0, 110.5]  # (0+1+4+9+16)/5, (25+…+81)/5, (100+121)/2
    assert [line.get("first/lazy") for line in lines] == [20.0, 80.0, None]  # of the steps that have it: (0+40)/2, 80
    assert set(lines[0]) == {
        "step",
        "phase",
        "first/step",
        "first/lazy",
        "first/square",
        "second/slope",
        "samples_per_second",
        "first/gradient_norm",
        "second/gradient_norm",
    }
    assert {line["phase"] for line in lines} == {"adversarial"}
    assert all(line["samples_per_second"] > 0 for line in lines)


def test_a_line_has_the_gradients_of_the_step_that_it_ends_with(tmp_path: Path) -> None:
    class Steeper(Slopes):
        def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.first = float(self.step)
            return super().first_loss(batch)

    changes = DESCENT | {"players.second.turns": 2}
    run = fit(Steeper(second=-3.0), tmp_path, steps=8, log_every=3, changes=changes)
    assert [line.get("first/gradient_norm") for line in run.log()] == [2.0, 5.0, None]  # the last one is cut short
    assert [line.get("second/gradient_norm") for line in run.log()] == [3.0, 3.0, None]


def test_an_infinite_gradient_whose_step_is_skipped_is_left_out_of_the_log(tmp_path: Path) -> None:
    def skip(state: Any, batches: Any) -> dict[str, Tensor]:
        """Skips the update, as a gradient scaler does."""
        (weight,) = state.parameters
        weight.grad, before = torch.full_like(weight, math.inf), weight.detach().clone()
        state.update()
        weight.data.copy_(before)
        return {"slope": torch.ones(())}

    class Skipping(Slopes):
        def players(self) -> Iterable[Player]:
            yield Player("first", (self.generator,), self.first_loss, step=skip)

    (line,) = fit(Skipping(), tmp_path, steps=2, log_every=2, changes=DESCENT).log()
    assert (line["first/slope"], "first/gradient_norm" in line) == (1.0, False)


def test_diagnostics_of_samples_have_their_own_lines(tmp_path: Path) -> None:
    class Rows(Slopes):
        def sample(self, count: int) -> Tensor:
            return self.rows[:count] / 2

    game = Rows()
    game.rows = torch.arange(20.0)[:, None]
    run = fit(game, tmp_path, data={"rows": game.rows}, steps=7, log_every=2, sample_every=3)
    lines = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    seen = {"samples/nearest": 0.5, "samples/spread": 0.5}
    assert [line for line in lines if line["phase"] == "diagnostics"] == [
        {"step": step, "phase": "diagnostics", **seen} for step in (3, 6, 7)
    ]
    assert [line["step"] for line in run.log()] == [2, 4, 6, 7]
    game = Rows()
    game.rows = torch.arange(20.0)[:, None]
    resume(tmp_path, steps=9, game=game, data={"rows": game.rows}, shown=False)
    lines = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "diagnostics"] == [
        3,
        6,
        9,
    ]  # of the end there is none now


def test_held_out_items_are_never_trained_on(tmp_path: Path) -> None:
    game = Slopes()
    run = fit(game, tmp_path, steps=20, changes={"data.held_out": 0.25})
    assert len({row for _, rows in game.events for row in rows.flatten().tolist()}) == 9
    assert run.recipe.data.held_out == 0.25


def test_a_note_is_logged_and_not_minimised(tmp_path: Path) -> None:
    class Noting(Slopes):
        def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.note("value", self.generator.value.sum() * 100)
            return super().first_loss(batch)

    game = Noting()
    run = fit(game, tmp_path, steps=2, log_every=1, changes=DESCENT)
    assert game.generator.value.item() == -1.0
    assert [line["first/value"] for line in run.log()] == [0.0, -50.0]


def test_a_note_is_the_mean_of_a_batch_s_parts(tmp_path: Path) -> None:
    class Noting(Slopes):
        def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.note("row", batch["rows"].mean())
            return super().first_loss(batch)

    run = fit(Noting(), tmp_path, steps=1, batch_size=12, accumulate=4)
    assert run.log()[0]["first/row"] == 5.5  # the mean of 0 … 11


def test_after_turn_gets_the_means_of_the_logged_values(tmp_path: Path) -> None:
    told: list[tuple[str, dict[str, float]]] = []

    class Steered(Slopes):
        def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.note("row", batch["rows"].mean())
            return super().second_loss(batch)

        def after_turn(self, player: str, values: dict[str, Tensor]) -> None:
            assert not any(value.requires_grad for value in values.values())
            told.append((player, {name: value.item() for name, value in values.items()}))
            self.second = 3.0

    changes = DESCENT | {"players.second.turns": 2}
    fit(Steered(), tmp_path, steps=1, batch_size=12, accumulate=4, changes=changes)
    # The second's weight goes from 0 by -0.5 · 3, and its slope is 3 already in its first turn.
    assert told == [
        ("first", {"slope": 0.0}),
        ("second", {"slope": 0.0, "row": 5.5}),
        ("second", {"slope": -4.5, "row": 5.5}),
    ]


def test_after_turn_of_a_two_player_game_s_subclass_is_called(tmp_path: Path) -> None:
    class Balanced(TwoPlayerGame):
        def after_turn(self, player: str, values: dict[str, Tensor]) -> None:
            super().after_turn(player, values)
            turns.append((player, "adversarial" in values))

    turns: list[tuple[str, bool]] = []
    plain = wgan_gp()
    game = Balanced(plain.generator, plain.discriminator.network)
    fit(game, tmp_path, data=POINTS, steps=2, changes={"players.discriminator.turns": 2})
    assert turns == [("discriminator", True), ("discriminator", True), ("generator", True)] * 2


class FakeTracker:
    """A tracker that keeps the lines that it gets, by run."""

    requires_logging_directory = False
    lines: ClassVar[dict[str, list[Any]]] = {}

    def __init__(self, run_name: str):
        self.run_name = run_name

    def start(self) -> None:
        self.lines[self.run_name] = []

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.lines[self.run_name].append((step, values))

    def finish(self) -> None:
        self.lines[self.run_name].append("finished")


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Lines that a tracker got, by name of the run."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "fake", FakeTracker)
    monkeypatch.setattr(gan_core.training.logging, "filter_trackers", lambda names, folder: names)
    monkeypatch.setattr(FakeTracker, "lines", {})
    return FakeTracker.lines


def test_trackers_get_the_lines_of_the_log_and_are_finished(tmp_path: Path, tracked: dict[str, list[Any]]) -> None:
    run = fit(Slopes(), tmp_path / "run", steps=4, log_every=2, trackers=["fake"])
    expected = [(line["step"], {key: value for key, value in line.items() if key != "step"}) for line in run.log()]
    assert [step for step, _ in expected] == [2, 4]
    assert tracked["run"] == [*expected, "finished"]
    with pytest.raises(NonFiniteError):
        fit(Breaking(3, "loss"), tmp_path / "failed", steps=8, log_every=2, trackers=["fake"])
    first, last = tracked["failed"]
    assert (first[0], last) == (2, "finished")


def test_an_evaluation_is_tracked_and_its_time_is_not_training_time(
    tmp_path: Path, toy: Domain, tracked: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count()

    class Slow(sys.modules["gan_toy.metrics"].Spread):
        def figures(self) -> dict[str, float]:
            collections.deque(itertools.islice(now, 10**6), maxlen=0)
            return super().figures()

    monkeypatch.setattr(sys.modules["gan_toy.metrics"], "Spread", Slow)
    monkeypatch.setattr(gan_core.training.state, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    settings = {"steps": 3, "log_every": 2, "evaluate_every": 2, "evaluate": 64, "metrics": ["spread"]}
    run = Toolkit(toy).train("plain", data="cloud", out=tmp_path / "run", shown=False, trackers=["fake"], **settings)
    assert [line["step"] for line in run.evaluations()] == [2, 3]
    _, state = read_checkpoint(run.checkpoints()[-1])
    assert 0 < state["elapsed"] < 100
    lines = [(step, values["phase"]) for step, values in tracked["run"][:-1]]
    assert lines == [(2, "adversarial"), (2, "evaluation"), (3, "adversarial"), (3, "evaluation")]
    assert tracked["run"][-1] == "finished"
    assert tracked["run"][1] == (2, {key: value for key, value in run.evaluations()[0].items() if key != "step"})


def test_a_checkpoint_of_other_phases_is_refused(tmp_path: Path) -> None:
    class Two(Slopes):
        def phases(self) -> Iterable[Phase]:
            return [Phase("one"), Phase("two")]

    class Three(Slopes):
        def phases(self) -> Iterable[Phase]:
            return [Phase("one"), Phase("two"), Phase("three")]

    run = fit(Two(), tmp_path, steps=4)
    words = r"does not fit this run's recipe \(it is in phase 2 of 2, but the game has 3 phases\)"
    with pytest.raises(CheckpointError, match=words):
        resume(tmp_path, steps=6, game=Three(), data={"rows": torch.zeros(12, 1)}, shown=False)
    assert run.log()[-1]["step"] == 4


def test_a_loss_can_read_the_learning_rates_of_all_players_after_a_resume_too(tmp_path: Path) -> None:
    class Seen(Slopes):
        def __init__(self, stop_at: int | None = None) -> None:
            super().__init__()
            self.stop_at, self.rates = stop_at, []

        def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.rates.append(self.optimizers["second"].param_groups[0]["lr"])
            if self.step == self.stop_at:
                signal.raise_signal(signal.SIGTERM)
            return super().first_loss(batch)

    settings = {"steps": 8, "changes": {**LINEAR, "players.second.every": 3}}
    whole, stopped, resumed = Seen(), Seen(3), Seen()
    fit(whole, tmp_path / "whole", **settings)
    run = fit(stopped, tmp_path / "run", **settings)
    resume(run.path, game=resumed, data={"rows": torch.arange(12.0)[:, None]}, shown=False)
    assert stopped.rates + resumed.rates == whole.rates
    assert len(set(whole.rates)) == 4  # they fall in the second half


# The end of a training.


def test_training_stops_at_the_number_of_steps(tmp_path: Path) -> None:
    assert fit(Slopes(), tmp_path, steps=7).log()[-1]["step"] == 7


def test_training_stops_at_the_number_of_samples(tmp_path: Path) -> None:
    run = fit(Slopes(), tmp_path, steps=1000, samples=20)  # 2 turns of 4 rows a round
    assert run.log()[-1]["step"] == 3
    with pytest.raises(RecipeError, match=r"is finished at step 3; give more minutes \(or samples\) to train on"):
        resume(tmp_path, game=Slopes(), data={"rows": torch.zeros(12, 1)}, shown=False)


def test_training_stops_at_the_number_of_minutes_including_those_before_an_interruption(tmp_path: Path) -> None:
    class Slow(Slopes):
        def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            time.sleep(0.05)
            if self.step == 4 and not self.events[10:]:
                signal.raise_signal(signal.SIGTERM)
            return super().first_loss(batch)

    data = {"rows": torch.zeros(12, 1)}
    run = fit(Slow(), tmp_path, data=data, steps=10**6, minutes=0.5 / 60)
    _, state = read_checkpoint(run.checkpoints()[-1])
    assert (run.interrupted, state["step"]) == ("SIGTERM", 5)
    assert 0.25 <= state["elapsed"] < 0.5
    started = time.perf_counter()
    resume(tmp_path, game=Slow(), data=data, shown=False)
    _, state = read_checkpoint(run.checkpoints()[-1])
    assert 0.5 <= state["elapsed"] < 0.5 + 0.2  # and one step more at the most
    assert time.perf_counter() - started < 0.5 + 2.0


class Timed(Slopes):
    """Two phases of a game whose first player has a linear schedule, and notes its progress and its rate."""

    def __init__(self) -> None:
        super().__init__()
        self.course: list[tuple[str, float, float]] = []

    def phases(self) -> Iterable[Phase]:
        return [Phase("one"), Phase("two")]

    def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        time.sleep(0.005)
        self.course.append((self.phase.name, self.progress, self.optimizers["first"].param_groups[0]["lr"]))
        return super().first_loss(batch)


LINEAR = DESCENT | {"optimizer.schedule": {"name": "linear", "start": 0.5}}


def test_a_run_limited_by_minutes_reaches_its_last_phase_and_the_end_of_its_schedule(tmp_path: Path) -> None:
    game = Timed()
    run = fit(game, tmp_path, steps=10**6, minutes=0.6 / 60, log_every=1, changes=LINEAR)
    one, two = (([entry for entry in game.course if entry[0] == name]) for name in ("one", "two"))
    assert 0.5 < len(one) / len(two) < 2
    for course in (one, two):
        assert course[0][1:] == (0.0, 0.5)
        assert course[-1][1] > 0.8
        assert course[-1][2] == pytest.approx(0.5 * (1 - (course[-1][1] - 0.5) / 0.5))
    assert game.progress == 1.0
    assert {line["phase"] for line in run.log()} == {"one", "two"}


def test_a_run_limited_by_samples_stretches_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    class Stopped(Timed):
        def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if self.step == 7:
                signal.raise_signal(signal.SIGTERM)
            return super().second_loss(batch)

    settings = {"steps": 10**6, "samples": 80, "changes": LINEAR}  # 10 steps of 2 batches of 4
    whole, stopped, resumed = Timed(), Stopped(), Timed()
    fit(whole, tmp_path / "whole", **settings)
    assert [name for name, _, _ in whole.course] == ["one"] * 5 + ["two"] * 5
    assert [progress for _, progress, _ in whole.course] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8] * 2)
    fit(stopped, tmp_path / "run", **settings)
    resume(tmp_path / "run", game=resumed, data={"rows": torch.arange(12.0)[:, None]}, shown=False)
    assert stopped.course + resumed.course == whole.course
    assert torch.equal(resumed.generator.value, whole.generator.value)


def test_more_minutes_go_to_the_last_phase(tmp_path: Path) -> None:
    fit(Timed(), tmp_path, steps=10**6, minutes=0.2 / 60, changes=DESCENT)
    game = Timed()
    run = resume(tmp_path, minutes=0.5 / 60, game=game, data={"rows": torch.zeros(12, 1)}, shown=False)
    assert {name for name, _, _ in game.course} == {"two"}
    assert 0.15 < game.course[0][1] < 0.5  # 0.2 s are over; the phase takes from 0.1 s to 0.5 s
    assert read_checkpoint(run.checkpoints()[-1])[1]["elapsed"] >= 0.5


def test_epochs_become_steps_in_the_recipe(tmp_path: Path) -> None:
    game = Slopes()
    run = fit(game, tmp_path, data={"rows": torch.zeros(40, 1)}, epochs=3, changes={"data.held_out": 0.1})
    assert run.recipe.train.epochs == 3
    assert run.recipe.train.steps == 14  # 3 · 36 / (2 · 4), rounded up
    assert run.log()[-1]["step"] == 14
    data = {"rows": torch.zeros(40, 1)}
    assert resume(tmp_path, steps=20, game=Slopes(), data=data, shown=False).log()[-1]["step"] == 20
    assert run.recipe.train.epochs is None
    again = resume(tmp_path, changes={"train.epochs": 5}, game=Slopes(), data=data, shown=False)
    assert again.log()[-1]["step"] == 23  # 5 · 36 / 8


def test_phases_have_their_own_intervals(tmp_path: Path) -> None:
    class Intervals(Slopes):
        def phases(self) -> Iterable[Phase]:
            quick = {"log_every": 1, "sample_every": 2, "checkpoint_every": 2}
            return [Phase("slow", steps=12), Phase("quick", steps=4, **quick)]

    settings = {"log_every": 5, "sample_every": 6, "checkpoint_every": 6, "keep_checkpoints": 9}
    run = fit(Intervals(), tmp_path, steps=16, **settings)
    assert [line["step"] for line in run.log()] == [5, 10, 13, 14, 15, 16]
    assert [path.stem for path in run.samples()] == ["00000006", "00000012", "00000014", "00000016"]
    assert [int(path.name) for path in run.checkpoints()] == [6, 12, 14, 16]
    resume(tmp_path, steps=17, game=Intervals(), data={"rows": torch.zeros(12, 1)}, shown=False)
    assert [line["step"] for line in run.log()] == [5, 10, 13, 14, 15, 16, 17]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_after_its_step_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    class Signalled(Slopes):
        def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if self.step == 2:
                signal.raise_signal(number)
            return super().second_loss(batch)

    handler = signal.getsignal(number)
    run = fit(Signalled(), tmp_path, steps=10, checkpoint_every=100)
    assert run.interrupted == number.name
    assert [path.name for path in run.checkpoints()] == ["00000003"]
    assert signal.getsignal(number) is handler
    assert run.model.is_dir()


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    class Impatient(Slopes):
        def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super().second_loss(batch)

    game, handler = Impatient(), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(game, tmp_path, steps=10)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert game.step == 0


def test_a_signal_in_the_last_step_interrupts_nothing(tmp_path: Path) -> None:
    class Late(Slopes):
        def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if self.step == 4:
                signal.raise_signal(signal.SIGTERM)
            return super().second_loss(batch)

    run = fit(Late(), tmp_path, steps=5)
    assert run.interrupted is None
    assert run.log()[-1]["step"] == 5


class Breaking(Slopes):
    """A game with a non-finite loss, or a finite loss with a non-finite gradient, from a step on."""

    def __init__(self, step: int, term: str):
        super().__init__()
        self.break_at, self.term = step, term

    def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        terms = super().first_loss(batch)
        if self.step >= self.break_at:
            value = self.generator.value.sum()
            terms |= {"loss": value * math.inf} if self.term == "loss" else {"root": (value * 0).sqrt()}
        return terms


def finite(run: Run) -> bool:
    files = [read_checkpoint(folder)[0] for folder in run.checkpoints()]
    return all(
        bool(tensor.isfinite().all()) for file in files for tensors in file.values() for tensor in tensors.values()
    )


@pytest.mark.parametrize(
    ("term", "what"), [("loss", r"first/loss is -inf"), ("gradient", r"the weights of generator\.value are not finite")]
)
def test_a_non_finite_value_stops_the_run_and_is_not_saved(tmp_path: Path, term: str, what: str) -> None:
    with pytest.raises(NonFiniteError, match=rf"^step 6: {what}; rolled back to step 4; continue with ") as error:
        fit(Breaking(5, term), tmp_path, steps=20, log_every=100, checkpoint_every=2, ema=0.9)
    assert "\n" not in str(error.value)
    run = Run(tmp_path)
    assert [path.name for path in run.checkpoints()] == ["00000002", "00000004"]
    assert finite(run)


def test_a_loss_that_is_not_finite_before_the_first_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError,
        match=r"^step 3: first/slope is nan, first/loss is nan; there is no valid checkpoint to return to",
    ):
        fit(Breaking(0, "loss"), tmp_path, steps=20, log_every=3)
    run = Run(tmp_path)
    assert run.checkpoints() == []
    assert run.rollbacks() == [{"step": 3, "to": None, "what": "first/slope is nan, first/loss is nan", "log": []}]
    assert run.report_file.is_file()
    assert not run.model.exists()


def test_a_rolled_back_run_equals_one_that_ended_at_its_last_valid_checkpoint(tmp_path: Path) -> None:
    """The log, the pictures, the model and the game in memory are those of that step."""
    settings = {"log_every": 3, "sample_every": 5, "checkpoint_every": 4, "ema": 0.9, "changes": DESCENT}
    ended, game = Slopes(), Breaking(10, "gradient")
    fit(ended, tmp_path / "ended", steps=8, **settings)
    with pytest.raises(
        NonFiniteError, match=r"^step 12: first/slope is nan, first/root is nan; rolled back to step 8; "
    ):
        fit(game, tmp_path / "run", steps=20, **settings)
    one, other = Run(tmp_path / "run"), Run(tmp_path / "ended")
    assert_close(game.state_dict(), ended.state_dict(), rtol=0, atol=0)
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
    assert [path.name for path in one.samples()] == [path.name for path in other.samples()]
    assert [line["step"] for line in one.log()] == [3, 6]
    assert f"{8} of {20}" in one.report_file.read_text()
    (event,) = one.rollbacks()
    assert (event["step"], event["to"], [line["step"] for line in event["log"]]) == (12, 8, [9])


def test_a_rollback_passes_over_a_checkpoint_that_is_damaged_or_not_finite(tmp_path: Path) -> None:
    class Damaging(Breaking):
        def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if self.step == 9:
                files, state = read_checkpoint(tmp_path / "checkpoints/00000006")
                files["game.safetensors"]["generator.value"].fill_(math.nan)
                del state["files"]
                write_checkpoint(tmp_path / "checkpoints/00000006", files, state)
                (tmp_path / "checkpoints/00000008/state.json").write_text("{}")
            return super().second_loss(batch)

    game = Damaging(9, "loss")
    with pytest.raises(NonFiniteError, match=r"rolled back to step 4"):
        fit(game, tmp_path, steps=20, checkpoint_every=2, keep_checkpoints=5, changes=DESCENT)
    assert game.generator.value.item() == -2.0
    resumed = Slopes()
    run = resume(tmp_path, game=resumed, data={"rows": torch.zeros(12, 1)}, shown=False)
    assert run.problems[1] == f"{run.checkpoint(6)}: the weights of generator.value are not finite"
    assert resumed.generator.value.item() == -10.0


def test_an_infinite_optimizer_state_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"the optimizer states of first/0/exp_avg_sq are not finite"):
        fit(Slopes(first=1e25), tmp_path, steps=2)  # its square is infinite, and the step 0


@pytest.mark.parametrize(("value", "good"), [(-math.inf, True), (math.nan, False)])
def test_a_buffer_may_be_infinite_as_masks_are_but_never_nan(tmp_path: Path, value: float, good: bool) -> None:
    game = Slopes()
    game.generator.register_buffer("mask", torch.tensor([0.0, value]))
    with (
        nullcontext() if good else pytest.raises(NonFiniteError, match=r"the weights of generator\.mask are not finite")
    ):
        fit(game, tmp_path)


def test_the_run_of_a_game_that_has_grown_can_be_resumed_after_a_rollback(tmp_path: Path) -> None:
    class Growing(Breaking):
        def phases(self) -> Iterable[Phase]:
            return [Phase("small"), Phase("large")]

        def enter(self, phase: Phase) -> None:
            if phase.name == "large":
                self.generator.more = Weight()

        def second_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return super().second_loss(batch) | {"more": 0 * self.discriminator.value.sum()}

    with pytest.raises(NonFiniteError, match=r"^step 6: .*; rolled back to step 4; continue with "):
        fit(Growing(5, "loss"), tmp_path, steps=10, checkpoint_every=4, log_every=2, changes=DESCENT)
    run = Run(tmp_path)
    assert [line["step"] for line in run.log()] == [2, 4]
    assert not run.model.exists()  # the game in memory is not that of the checkpoint
    assert run.report_file.is_file()
    resume(tmp_path, game=Growing(99, "loss"), data={"rows": torch.zeros(12, 1)}, shown=False)
    assert run.log()[-1]["step"] == 10


def test_many_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    class Many(Slopes):
        def first_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {str(number): self.generator.value.sum() * math.nan for number in range(9)}

    with pytest.raises(NonFiniteError, match=r"^step 3: first/0 is nan, first/1 is nan, first/2 is nan and 6 more; "):
        fit(Many(), tmp_path)


def test_a_rolled_back_run_resumes_from_its_last_valid_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        fit(Breaking(5, "loss"), tmp_path, steps=10, log_every=3, checkpoint_every=4, changes=DESCENT)
    whole = Slopes()
    resume(tmp_path, game=whole, data={"rows": torch.zeros(12, 1)}, shown=False)
    assert whole.generator.value.item() == -5.0
    assert [line["step"] for line in Run(tmp_path).log()] == [3, 6, 9, 10]


# Settings that do not change the result.


class Generator(nn.Sequential):
    latent_dim = 4


def wgan_gp(width: int = 8) -> TwoPlayerGame:
    """Wasserstein with a gradient penalty, without batch statistics."""
    torch.manual_seed(1)
    return TwoPlayerGame(
        Generator(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2)),
        nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1), nn.Flatten(0)),
        objective=wasserstein,
        regularizers=[GradientPenalty()],
    )


def difference(one: Game, other: Game) -> float:
    """The largest difference of two games' weights, relative to the largest weight of the network."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in pairs)


POINTS = {"points": torch.randn(64, 2, generator=torch.Generator().manual_seed(2))}
FAST = {"optimizer.learning_rate": 0.01}


def test_four_accumulated_parts_equal_one_batch(tmp_path: Path) -> None:
    games = {parts: wgan_gp() for parts in (1, 4)}
    logs = {
        parts: fit(
            game, tmp_path / str(parts), data=POINTS, steps=20, batch_size=16, accumulate=parts, changes=FAST
        ).log()
        for parts, game in games.items()
    }
    assert difference(games[4], games[1]) < 1e-5
    assert difference(games[1], wgan_gp()) > 0.1  # and it did move
    for name in ("discriminator/adversarial", "discriminator/gradient_penalty", "generator/adversarial"):
        assert logs[4][0][name] == pytest.approx(logs[1][0][name], rel=1e-4)


def test_four_accumulated_parts_of_a_staged_game_equal_one_batch(tmp_path: Path) -> None:
    games = {parts: Staged() for parts in (1, 4)}
    for parts, game in games.items():
        fit(game, tmp_path / str(parts), data=pairs(64), steps=20, batch_size=16, accumulate=parts, changes=FAST)
    assert difference(games[4], games[1]) < 1e-5


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo itself reads it
def test_compiled_networks_compute_the_same_with_penalties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
    games = {compiled: wgan_gp() for compiled in (False, True)}
    for compiled, game in games.items():
        fit(
            game,
            tmp_path / str(compiled),
            data=POINTS,
            steps=20,
            batch_size=16,
            show=16,
            compile=compiled,
            changes=FAST,
        )
    assert difference(games[True], games[False]) < 1e-4


def test_bf16_stays_near_fp32(tmp_path: Path) -> None:
    seen, descent = [], {"optimizer.name": "sgd", "optimizer.learning_rate": 0.05}

    class Looking(TwoPlayerGame):
        def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.append(self.discriminator.network(self.sample(len(batch["points"]))).dtype)
            return super().generator_loss(batch)

    plain, reduced = wgan_gp(), wgan_gp()
    networks = reduced.generator, reduced.discriminator.network
    game = Looking(*networks, objective=wasserstein, regularizers=[GradientPenalty()])
    fit(plain, tmp_path / "fp32", data=POINTS, steps=20, batch_size=16, changes=descent)
    fit(game, tmp_path / "bf16", data=POINTS, steps=20, batch_size=16, precision="bf16", changes=descent)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in game.parameters()} == {torch.float32}
    start, there, near = (parameters_to_vector(g.parameters()) for g in (wgan_gp(), plain, game))
    assert (near - there).norm() < 0.1 * (there - start).norm()


def test_fp16_needs_an_accelerator(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"`train.precision` is fp16, which needs an accelerator; use bf16 or fp32"):
        fit(wgan_gp(), tmp_path / "run", data=POINTS, precision="fp16")
    assert not (tmp_path / "run").exists()


def test_a_seed_repeats_a_training_and_another_does_not(tmp_path: Path) -> None:
    games = [wgan_gp() for _ in range(3)]
    for number, (game, seed) in enumerate(zip(games, (5, 5, 6), strict=True)):
        torch.manual_seed(number)  # the state of torch's own generator must not matter
        fit(game, tmp_path / str(number), data=POINTS, steps=3, seed=seed)
    assert difference(games[1], games[0]) == 0
    assert difference(games[2], games[0]) > 1e-6


# Batches that are too small for batch normalization.


def normalized(pack: int = 1) -> Game:
    """Batch normalization over rows in both networks; the discriminator judges several samples together."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.judge = nn.Sequential(nn.Linear(pack, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

        def forward(self, rows: Tensor) -> Tensor:
            if len(rows) % pack:
                raise RecipeError(f"the batch size is {len(rows)}; expected a multiple of {pack}")
            return self.judge(rows.reshape(-1, pack)).flatten()

    generator = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    generator.latent_dim = 2
    return TwoPlayerGame(generator, Packed())


@pytest.mark.parametrize(
    ("pack", "size", "accumulate", "words"),
    [
        (1, 1, 1, "the batch size is 1, too small for batch normalization in TwoPlayerGame; set 2 or more"),
        (1, 3, 3, "the batch size is 3, in 3 parts, too small for batch normalization in TwoPlayerGame; set 6 or more"),
        (3, 3, 1, "the batch size is 3, too small for batch normalization in TwoPlayerGame; set 6 or more"),
    ],
)
def test_a_batch_too_small_for_batch_normalization_is_refused_and_the_least_is_named(
    tmp_path: Path, pack: int, size: int, accumulate: int, words: str
) -> None:
    with pytest.raises(RecipeError) as error:
        fit(normalized(pack), tmp_path / "run", batch_size=size, accumulate=accumulate)
    assert str(error.value) == words
    assert not (tmp_path / "run").exists()
    least = int(words.split()[-3])
    assert fit(normalized(pack), tmp_path / "run", batch_size=least, accumulate=accumulate).checkpoints()
