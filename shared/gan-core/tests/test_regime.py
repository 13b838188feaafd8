"""A training regime like differential privacy: what it changes, what it remembers, and where it may come from.

This file is also a program: a training that kills itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import Dataset

import gan_core.training.regime
from gan_core import Game, Player, Regime, RMSprop, draws, resume, train
from gan_core.api import Toolkit
from gan_core.data import Batch, BatchStream, IndexStream
from gan_core.domain import Domain
from gan_core.errors import RecipeError
from gan_core.models.checkpoint import read_checkpoint
from gan_core.play.objectives import Terms
from gan_core.recipe import Recipe, parse
from gan_core.runs.run import Run
from gan_core.training.player_state import PlayerState
from gan_core.training.regime import find_regime, regime_of


class Poisson(IndexStream):
    """Batches that have each item with the same probability, independently of the others."""

    varies = True

    def __iter__(self) -> Iterator[list[int]]:
        number = self.position
        while True:
            generator = torch.Generator().manual_seed(draws.mix(self.seed, number))
            drawn = torch.rand(self.length, generator=generator) < self.batch_size / self.length
            yield drawn.nonzero()[:, 0].tolist()
            number += 1


class Private(Regime):
    """The discriminator's gradients are clipped by sample and noised; no other player has data.

    Args:
        noise: standard deviation of the noise, as a multiple of `clip`.
        clip: maximum norm of a sample's gradient.
        budget: number of noised steps.
    """

    def __init__(self, *, noise: float = 1.0, clip: float = 0.5, budget: int = 10):
        super().__init__()
        self.noise, self.clip, self.budget = noise, clip, budget
        self.secret = 4_611_686_018_427_387_847
        self.spent: Tensor
        self.register_buffer("spent", torch.tensor(0))
        self.rows: list[int] = []

    def get_extra_state(self) -> dict[str, Any]:
        return {"secret": self.secret}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.secret = state["secret"]

    def prepare(self, game: Game, recipe: Recipe) -> None:
        if type(game).stage is not Game.stage:
            raise RecipeError(f"{recipe.system} shares samples of the data among its players; privacy is impossible")
        self.classes = game.num_classes

    def player(self, player: Player) -> Player:
        return replace(player, step=self.private_step) if player.name == "discriminator" else player

    def stream(self, dataset: Dataset[Batch], batch_size: int, **options: Any) -> BatchStream:
        self.batch_size = batch_size
        self.item = {key: torch.as_tensor(value) for key, value in dataset[0].items()}
        return super().stream(dataset, batch_size, **options | {"seed": self.secret, "order": Poisson})

    def batches(self, player: Player, read: Callable[[], Sequence[Batch]]) -> Sequence[Batch]:
        if player.name == "discriminator":
            return read()
        blank = {key: value.new_zeros(self.batch_size, *value.shape) for key, value in self.item.items()}
        if self.classes is not None:
            blank["label"] = torch.randint(self.classes, (self.batch_size,))
        return [blank]

    def private_step(self, state: PlayerState, batches: Sequence[Batch]) -> Terms:
        sums = [torch.zeros_like(parameter) for parameter in state.parameters]
        rows = [
            {key: value[k : k + 1] for key, value in part.items()}
            for part in batches
            for k in range(len(next(iter(part.values()))))
        ]
        for number, row in enumerate(rows):
            with state.part(number, len(rows), row):
                gradients = torch.autograd.grad(sum(state.loss(row).values()), state.parameters)
            norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
            for total, gradient in zip(sums, gradients, strict=True):
                total.add_(gradient * min(1.0, self.clip / float(norm)))
        generator = torch.Generator().manual_seed(draws.mix(self.secret, int(self.spent)))
        for parameter, total in zip(state.parameters, sums, strict=True):
            noise = torch.randn(total.shape, generator=generator) * self.noise * self.clip
            parameter.grad = (total + noise) / self.batch_size
        state.update()
        self.spent += 1
        self.rows.append(len(rows))
        return {"rows": torch.tensor(float(len(rows)))}

    def over(self) -> str | None:
        return f"the budget of {self.budget} private steps is spent" if self.spent >= self.budget else None

    def figures(self) -> dict[str, float]:
        return {"privacy/spent": float(self.spent)}


class Labelled(Game):
    """A conditional game; its generator may see no row of the data."""

    def __init__(self, kill_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_classes, self.kill_at = 3, kill_at
        self.generator = nn.Sequential(nn.Linear(2 + 3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.discriminator = nn.Sequential(nn.Linear(2 + 3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.read: list[Tensor] = []

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.discriminator,), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss, optimizer=RMSprop())

    def sample(self, count: int, label: Tensor | None = None) -> Tensor:
        label = torch.zeros(count, dtype=torch.int64) if label is None else label
        z = draws.normal(count, 2, like=self.generator[0].weight)
        return self.generator(torch.cat([z, nn.functional.one_hot(label, 3)], dim=1))

    def judge(self, rows: Tensor, label: Tensor) -> Tensor:
        return self.discriminator(torch.cat([rows, nn.functional.one_hot(label, 3)], dim=1))

    def discriminator_loss(self, batch: Batch) -> Terms:
        self.read.append(batch["rows"])
        fake = self.sample(len(batch["rows"]), batch["label"])
        return {"adversarial": (self.judge(fake, batch["label"]) - self.judge(batch["rows"], batch["label"])).mean()}

    def generator_loss(self, batch: Batch) -> Terms:
        if self.step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        assert not batch["rows"].any()
        assert len(batch["rows"]) == 4
        return {"adversarial": -self.judge(self.sample(len(batch["rows"]), batch["label"]), batch["label"]).mean()}


DATA = {"rows": torch.randn(12, 2, generator=torch.Generator().manual_seed(1)) + 1, "label": torch.arange(12) % 3}
SGD = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.5}


def fit(game: Game, out: Path, regime: Regime | None = None, **settings: Any) -> Run:
    fixed = {"device": "cpu", "steps": 50, "batch_size": 4, "log_every": 3, "checkpoint_every": 2, "changes": SGD}
    return train(game, data=DATA, out=out, regime=regime, shown=False, **fixed | settings)


def test_a_regime_runs_and_ends_the_run_by_its_own_sentence(tmp_path: Path) -> None:
    game, regime = Labelled(), Private(budget=7)
    run = fit(game, tmp_path, regime)
    assert (run.ended, run.interrupted) == ("the budget of 7 private steps is spent", None)
    assert [line["step"] for line in run.log()] == [3, 6, 7]
    assert [line["privacy/spent"] for line in run.log()] == [3.0, 6.0, 7.0]
    assert len(set(regime.rows)) > 1  # Poisson batches
    assert sum(len(rows) for rows in game.read) == sum(regime.rows)
    assert game.generate(3, seed=0, label=torch.tensor([0, 1, 2])).shape == (3, 2)
    with pytest.raises(RecipeError, match=r"is finished at step 7; the budget of 7 private steps is spent"):
        resume(tmp_path, steps=60, game=Labelled(), data=DATA, regime=Private(budget=7), shown=False)


def test_an_empty_batch_is_a_step_of_noise_alone(tmp_path: Path) -> None:
    class Blanks(Labelled):
        def generator_loss(self, batch: Batch) -> Terms:
            return {"adversarial": 0 * self.sample(1).sum()}

    game, regime = Blanks(), Private(budget=20, noise=0.0)
    before = game.discriminator[0].weight.clone()
    regime.rows = []
    fit(game, tmp_path / "a", regime, batch_size=1, accumulate=1)
    assert 0 in regime.rows
    game, regime = Blanks(), Private(budget=1, noise=2.0)
    empty = next(seed for seed in range(1000) if not next(iter(Poisson(12, 1, seed=seed))))
    regime.secret = empty
    fit(game, tmp_path / "b", regime, batch_size=1)
    assert regime.rows == [0]
    noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(draws.mix(empty, 0)))
    assert_close(game.discriminator[0].weight, before - 0.5 * noise * 2.0 * 0.5)


def test_a_private_step_clips_each_row(tmp_path: Path) -> None:
    """Without noise it moves by the rate times the sum of the clipped gradients over the expected size of a batch."""
    games = [Labelled(), Labelled()]
    fit(games[0], tmp_path / "clipped", Private(budget=1, noise=0.0, clip=0.1))
    fit(games[1], tmp_path / "free", Private(budget=1, noise=0.0, clip=1e9))
    start = Labelled()
    moved = [
        torch.cat(
            [
                (a - b).flatten()
                for a, b in zip(g.discriminator.parameters(), start.discriminator.parameters(), strict=True)
            ]
        )
        .norm()
        .item()
        for g in games
    ]
    rows = len(next(iter(Poisson(12, 4, seed=Private().secret))))
    assert 0 < moved[0] <= 0.5 * rows * 0.1 / 4 * (1 + 1e-5)
    assert moved[1] > 2 * moved[0]


def test_a_batch_of_fewer_rows_than_parts_is_no_error(tmp_path: Path) -> None:
    regime = Private(budget=12)
    fit(Labelled(), tmp_path, regime, accumulate=4)
    assert min(regime.rows) < 4


def test_a_killed_run_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    whole = fit(Labelled(), tmp_path / "whole", Private())
    program = [sys.executable, __file__, str(tmp_path / "run"), "5"]
    assert subprocess.run(program, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert [path.name for path in Run(tmp_path / "run").checkpoints()] == ["00000002", "00000004"]
    other = Private()
    other.secret = 1  # a fresh secret must be replaced before the stream is made
    run = resume(tmp_path / "run", game=Labelled(), data=DATA, regime=other, shown=False)
    assert run.ended == whole.ended
    (files, state), (expected, expected_state) = (read_checkpoint(r.checkpoints()[-1]) for r in (run, whole))
    assert_close(files, expected, rtol=0, atol=0)
    for key in ("step", "seen", "position", "game", "regime", "losses"):
        assert state[key] == expected_state[key], key
    clocks = {"samples_per_second"}
    assert [{k: v for k, v in line.items() if k not in clocks} for line in run.log()] == (
        [{k: v for k, v in line.items() if k not in clocks} for line in whole.log()]
    )


def test_the_state_of_a_regime_is_only_in_checkpoints(tmp_path: Path) -> None:
    regime = Private(budget=4)
    run = fit(Labelled(), tmp_path, regime)
    secret = str(regime.secret).encode()
    holders = {path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()}
    assert holders == {folder / "state.json" for folder in run.checkpoints()}
    files, _ = read_checkpoint(run.checkpoints()[-1])
    assert files["regime.safetensors"]["spent"].item() == 4


def test_plain_training_has_no_regime(tmp_path: Path) -> None:
    class Plain(Labelled):
        def generator_loss(self, batch: Batch) -> Terms:
            return {"adversarial": -self.judge(self.sample(4, batch["label"]), batch["label"]).mean()}

    games = [Plain(), Plain()]
    runs = [fit(game, tmp_path / str(k), (None, Regime())[k], steps=4) for k, game in enumerate(games)]
    assert_close(games[0].state_dict(), games[1].state_dict(), rtol=0, atol=0)
    assert (runs[0].recipe.regime, runs[0].ended) == (None, None)
    assert "regime.safetensors" not in read_checkpoint(runs[0].checkpoints()[-1])[0]


def test_a_regime_may_refuse_a_game_before_anything_is_written(tmp_path: Path) -> None:
    class Staged(Labelled):
        def stage(self, batch: Batch) -> Batch:
            return batch

    with pytest.raises(RecipeError, match=r"Staged shares samples of the data among its players"):
        fit(Staged(), tmp_path / "run", Private())
    assert not (tmp_path / "run").exists()


# Where it comes from.


def test_a_run_under_a_regime_built_in_python_is_resumed_with_it_alone(tmp_path: Path) -> None:
    run = fit(Labelled(), tmp_path, Private(), steps=4)
    assert run.recipe.regime == {"name": f"{__name__}.Private"}
    with pytest.raises(RecipeError, match=rf"{__name__}.Private, was built in Python; pass it again as `regime`"):
        resume(tmp_path, steps=6, game=Labelled(), data=DATA, shown=False)
    with pytest.raises(
        RecipeError, match=rf"regime is `{__name__}.Private`, but `regime` is a gan_core.training.regime.Regime"
    ):
        resume(tmp_path, steps=6, game=Labelled(), data=DATA, regime=Regime(), shown=False)


class Brief(Regime):
    """Ends a run after some steps."""

    def __init__(self, *, rounds: int = 5, kind: str = "short"):
        super().__init__()
        self.rounds, self.kind = rounds, kind
        self.register_buffer("played", torch.tensor(0))

    def batches(self, player: Player, read: Callable[[], Sequence[Batch]]) -> Sequence[Batch]:
        self.played += 1
        return super().batches(player, read)

    def over(self) -> str | None:
        return f"{self.rounds} {self.kind} rounds are over" if self.played >= 2 * self.rounds else None


def import_nothing() -> None:
    raise ImportError("no opacus")


@pytest.fixture
def brief(toy: Domain, monkeypatch: pytest.MonkeyPatch) -> Domain:
    """The toy domain, with `Brief` in its package and as an entry point."""
    here = SimpleNamespace(Brief=Brief, Other=nn.Module)
    monkeypatch.setitem(sys.modules, "gan_toy.regimes", here)  # type: ignore[arg-type]
    point = SimpleNamespace(name="brief", module="gan_toy", load=lambda: Brief)
    broken = SimpleNamespace(name="broken", module="gan_toy", load=import_nothing)
    monkeypatch.setattr(gan_core.training.regime, "entry_points", lambda group: [point, broken])
    return toy


@pytest.mark.parametrize("name", ["brief", "gan_toy.regimes:Brief"])
def test_a_recipe_names_a_regime_of_any_system(brief: Domain, tmp_path: Path, name: str) -> None:
    changes = {"regime.name": name, "regime.rounds": 2, "train.steps": 9}
    run = Toolkit(brief).train("plain", data="cloud", out=tmp_path / "run", changes=changes, shown=False)
    assert run.ended == "2 short rounds are over"
    assert run.recipe.regime == {"name": name, "rounds": 2, "kind": "short"}
    assert run.log()[-1]["step"] == 2
    with pytest.raises(RecipeError, match=r"`regime.rounds` cannot change when a run is resumed"):
        Toolkit(brief).resume(run.path, changes={"regime.rounds": 3}, shown=False)
    with pytest.raises(RecipeError, match=r"is finished at step 2; 2 short rounds are over"):
        Toolkit(brief).resume(run.path, steps=12, shown=False)


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        ({"name": "brief", "round": 3}, r"unknown setting `regime.round`; did you mean `regime.rounds`\?"),
        ({"name": "brief", "rounds": "many"}, r"`regime.rounds` is 'many'; expected a whole number"),
        ({"name": "breif"}, r"unknown regime `breif`; did you mean `brief`\?"),
        ({"rounds": 3}, r"`regime.name` is missing; give an entry point of `gan.regimes`, or MODULE:CLASS"),
        ({"name": "broken"}, r"`regime.name` is broken, which cannot be imported \(no opacus\)"),
        ({"name": "os:system"}, r"`regime.name` is os:system, which is not in a domain package \(installed: gan_toy\)"),
        ({"name": "gan_toyish.regimes:Brief"}, r"is not in a domain package"),
        ({"name": "gan_toy.regimes:Brie"}, r"gan_toy.regimes:Brie, which cannot be imported"),
        ({"name": "gan_toy.none:Brief"}, r"gan_toy.none:Brief, which cannot be imported"),
        ({"name": "gan_toy.regimes:Other"}, r"gan_toy.regimes:Other, which is not a `gan_core.Regime`"),
    ],
)
def test_an_invalid_regime_is_refused(brief: Domain, regime: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        regime_of(parse({"system": "plain", "regime": regime}))


def test_a_recipe_imports_no_module_from_elsewhere(
    brief: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("planted:Regime", "planted.Regime", "gan_toy.regimes:Brief.x", "gan_toy..planted:Regime"):
        with pytest.raises(RecipeError):
            find_regime(name)
    assert "planted" not in sys.modules


if __name__ == "__main__":
    torch.set_num_threads(1)
    fit(Labelled(kill_at=int(sys.argv[2])), Path(sys.argv[1]), Private())
