"""Two processes train what one does on the same global batch, and are interrupted and resumed together.

This file is also a program, which torchrun starts twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.testing import assert_close

from gan_core import Game, GradientPenalty, Phase, Player, ReplayPool, TwoPlayerGame, draws, resume, train
from gan_core.distributed import GlobalBatchNorm, Processes, rows_of_all, share_batch_statistics
from gan_core.errors import InputError, NonFiniteError, RecipeError
from gan_core.models.checkpoint import read_checkpoint, read_tensors, write_tensors
from gan_core.play.objectives import non_saturating, wasserstein
from gan_core.runs.run import Run

GENERATOR = torch.Generator().manual_seed(0)
POINTS = {"points": torch.randn(96, 2, generator=GENERATOR)}
PICTURES = {"image": torch.randn(96, 1, 4, 4, generator=GENERATOR).clamp(-1, 1)}
PAIRS = {key: torch.randn(96, 2, generator=GENERATOR) for key in ("source", "target")}


class Generator(nn.Sequential):
    latent_dim = 4


def wgan_gp() -> Game:
    return TwoPlayerGame(
        Generator(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)),
        nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1, bias=False), nn.Flatten(0)),
        objective=wasserstein,
        regularizers=[GradientPenalty()],
    )


def dcgan(**settings: Any) -> Game:
    """Batch statistics in both networks; with a gradient penalty, they are differentiated twice."""
    grown = nn.ConvTranspose2d(4, 4, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.Tanh()
    judged = nn.Conv2d(1, 4, 2, 2, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 2)
    return TwoPlayerGame(
        Generator(nn.Unflatten(1, (4, 1, 1)), *grown), nn.Sequential(*judged, nn.Flatten(0)), **settings
    )


class Staged(Game):
    """Shares its fakes among the players, keeps a pool of them, and begins its second phase with new weights."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.judge = nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        self.pool = ReplayPool(20)
        self.register_buffer("balance", torch.zeros(()))

    @torch.no_grad()
    def after_turn(self, player: str, values: dict[str, Tensor]) -> None:
        self.balance.lerp_(values.get("fake", self.balance), 0.1)

    def phases(self) -> Iterable[Phase]:
        return [Phase("one"), Phase("two", batch_size=8)]

    def enter(self, phase: Phase) -> None:
        if phase.name == "two":
            self.judge[2].reset_parameters()

    def players(self) -> Iterable[Player]:
        yield Player("judge", (self.judge,), self.judge_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def stage(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        noise = draws.normal(len(batch["source"]), 2, like=batch["source"])
        return batch | {"fake": self.generator(torch.cat([batch["source"], noise], dim=1))}

    def judge_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        real, fake = self.judge(batch["target"]), self.judge(self.pool(batch["fake"]))
        self.note("fake", fake.mean())
        return {"adversarial": non_saturating.discriminator(real, fake - self.balance)}

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        near = (batch["fake"] - batch["target"]).abs().mean()
        return {"adversarial": non_saturating.generator(self.judge(batch["fake"])), "reconstruction": near}

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"fake": self.stage(batch)["fake"]}


class Shared(Game):
    """Two players that own a network together."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.features = nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 8), nn.Tanh())
        self.judge, self.recognize = nn.Linear(8, 1), nn.Linear(8, 4)

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.features, self.judge), self.discriminator_loss)
        yield Player("generator", (self.generator, self.features, self.recognize), self.generator_loss)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = [self.judge(self.features(rows)) for rows in (batch["points"], self.sample(len(batch["points"])))]
        return {"adversarial": non_saturating.discriminator(*logits)}

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        z = draws.normal(len(batch["points"]), 4, like=self.judge.weight)
        features = self.features(self.generator(z))
        fool = non_saturating.generator(self.judge(features))
        return {"adversarial": fool, "latent": (self.recognize(features) - z).square().mean()}

    def sample(self, count: int) -> Tensor:
        return self.generator(draws.normal(count, 4, like=self.judge.weight))


class Stopped(Staged):
    """One of the processes alone is told to stop."""

    def judge_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.step == 12 and os.environ.get("RANK") == "1":
            signal.raise_signal(signal.SIGTERM)
        return super().judge_loss(batch)


class Broken(Staged):
    """From step 4 on, a loss is not finite in one of the processes alone."""

    def judge_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        terms, broken = super().judge_loss(batch), self.step >= 4 and os.environ.get("RANK") == "1"
        return terms | {"broken": terms["adversarial"] * (float("nan") if broken else 0.0)}


FIVE = {"players.discriminator.turns": 5}
SCENARIOS: dict[str, tuple[Callable[[], Game], dict[str, Tensor], dict[str, Any]]] = {
    "wgan_gp": (wgan_gp, POINTS, {"changes": FIVE}),
    "parts": (wgan_gp, POINTS, {"accumulate": 2, "changes": FIVE}),
    "dcgan": (dcgan, PICTURES, {}),
    "penalised": (lambda: dcgan(regularizers=[GradientPenalty(weight=0.1)]), PICTURES, {}),
    "staged": (Staged, PAIRS, {}),
    "shared": (Shared, POINTS, {}),
    "rhythm": (
        Staged,
        PAIRS,
        {
            "changes": {"players.generator.every": 3, "players.judge.turns": 2},
            "samples": 216,
            "steps": 1000,
            "ema": {"half_life": 50, "ramp_up": 0.5},
        },
    ),
    "bf16": (dcgan, PICTURES, {"precision": "bf16"}),
}


def build(make: Callable[[], Game]) -> Game:
    torch.manual_seed(1)
    return make()


def play(folder: Path, name: str, game: Game | None = None, **more: Any) -> tuple[Game, Run]:
    make, data, settings = SCENARIOS[name.split("-")[0]]
    game = game or build(make)
    changes = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.05} | settings.get("changes", {})
    fixed = {"steps": 20, "batch_size": 16, "log_every": 5, "ema": 0.9, "show": 16}
    fixed["device"] = "auto" if "RANK" in os.environ else "cpu"  # two processes use the default device
    run = train(game, data=data, out=folder / name, shown=False, **fixed | settings | more | {"changes": changes})
    return game, run


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest number of its tensor."""
    return max(
        float((tensor - one[name]).abs().max() / tensor.abs().max().clamp(min=1e-3))
        for name, tensor in other.items()
        if tensor.is_floating_point()
    )


def batch_norms() -> nn.Sequential:
    """Layers without parameters or running statistics, and with cumulative running statistics."""
    return nn.Sequential(
        nn.BatchNorm1d(3, affine=False, track_running_stats=False), nn.BatchNorm1d(3, affine=False, momentum=None)
    )


# The work of both processes.


def both(folder: Path) -> None:
    rank, seen = int(os.environ["RANK"]), {}
    for name in SCENARIOS:
        game, _ = play(folder, name)
        write_tensors(folder / f"{name}-{rank}.safetensors", game.state_dict())
    play(folder, "staged-whole", checkpoint_every=3)
    _, run = play(folder, "staged-stopped", build(Stopped), checkpoint_every=3)
    seen["interrupted"] = run.interrupted
    seen["stopped"] = int(run.checkpoints()[-1].name)
    seen["resumed"] = resume(run.path, game=build(Staged), data=PAIRS, shown=False).interrupted
    try:
        game = build(Broken)
        play(folder, "staged-broken", game, checkpoint_every=3)
    except NonFiniteError as error:
        seen["broken"] = str(error)
    write_tensors(folder / f"broken-{rank}.safetensors", game.state_dict())
    try:
        play(folder, "wgan_gp-odd", batch_size=15)
    except RecipeError as error:
        seen["odd"] = str(error)
    rows = torch.arange(12.0).view(4, 3)[2 * rank : 2 * rank + 2]
    cumulative = batch_norms()
    share_batch_statistics(cumulative)
    seen["normal"] = [cumulative(rows), cumulative(rows.square())][0].tolist()
    seen["cumulative"] = [tensor.tolist() for tensor in cumulative.state_dict().values()]
    everyone, mine = rows_of_all(rows)
    seen["everyone"], seen["mine"] = everyone.tolist(), everyone[mine].tolist()
    processes = Processes("auto")
    seen["highest"] = processes.highest(rank * 7)
    dist.set_timeout(timedelta(seconds=0.5), dist.group.WORLD)
    time.sleep(0 if rank else 2)
    processes.wait()  # longer than the limit of other exchanges
    dist.set_timeout(timedelta(minutes=10), dist.group.WORLD)
    seen["waited"] = True
    seen["mean"] = processes.mean(torch.tensor([float(rank), 1.0])).tolist()
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen))


# The results of both processes.


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with everything that two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        __file__,
        str(folder),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.fixture(scope="module")
def seen(two: Path) -> list[dict[str, Any]]:
    return [json.loads((two / f"seen-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["wgan_gp", "parts", "dcgan", "penalised", "staged", "shared", "rhythm"])
def test_two_processes_are_one_on_the_same_batch(tmp_path: Path, two: Path, name: str) -> None:
    game, run = play(tmp_path, name)
    mine, other = (read_tensors(two / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(mine[key], other[key]) for key in mine)  # the processes hold the same
    assert difference(mine, game.state_dict()) < 1e-5
    with torch.no_grad():
        assert difference(build(SCENARIOS[name][0]).state_dict(), dict(game.named_parameters())) > 1e-2  # they did move
    logs = Run(two / name).log()
    assert [line["step"] for line in logs] == [5, 10, 15, 20]
    for ours, theirs in zip(logs, run.log(), strict=True):
        for key in theirs.keys() - {"phase", "samples_per_second"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6), key


def test_two_processes_in_bf16_stay_near_one(tmp_path: Path, two: Path) -> None:
    game, _ = play(tmp_path, "bf16")
    assert difference(read_tensors(two / "bf16-0.safetensors"), game.state_dict()) < 0.1


def test_a_signal_to_one_process_stops_both_with_one_checkpoint(seen: list[dict[str, Any]]) -> None:
    for process in seen:
        assert (process["interrupted"], process["stopped"], process["resumed"]) == ("SIGTERM", 13, None)


def test_two_processes_resumed_are_two_that_were_not_stopped(two: Path) -> None:
    runs = [Run(two / f"staged-{name}") for name in ("whole", "stopped")]
    (whole, state), (stopped, other) = (read_checkpoint(run.checkpoints()[-1]) for run in runs)
    for file, tensors in whole.items():
        assert all(torch.equal(tensor, stopped[file][name]) for name, tensor in tensors.items()), file
    assert {**state, "elapsed": 0} == {**other, "elapsed": 0}
    logs = [[{k: v for k, v in line.items() if k != "samples_per_second"} for line in run.log()] for run in runs]
    assert logs[0] == logs[1]


def test_a_non_finite_value_in_one_process_rolls_both_back(two: Path, seen: list[dict[str, Any]]) -> None:
    run = Run(two / "staged-broken")
    model, kept = read_tensors(run.model / "model.safetensors"), read_checkpoint(run.checkpoint(3))[0]
    for rank, process in enumerate(seen):
        assert process["broken"].startswith("step 5: judge/")
        assert "; rolled back to step 3; " in process["broken"]
        game = read_tensors(two / f"broken-{rank}.safetensors")
        for name, tensor in (kept["game.safetensors"] | kept["average.safetensors"]).items():
            assert torch.equal(tensor, game[name]), name
            assert torch.equal(tensor, model[name]), name
    assert ([int(path.name) for path in run.checkpoints()], len(run.rollbacks())) == ([3], 1)


def test_a_batch_that_two_cannot_share_is_refused(seen: list[dict[str, Any]]) -> None:
    for process in seen:
        assert (
            process["odd"]
            == "the batch size is 15; expected a multiple of 2 (number of processes × `train.accumulate`)"
        )


def test_processes_wait_for_the_first_however_long_it_evaluates(seen: list[dict[str, Any]]) -> None:
    assert [process["waited"] for process in seen] == [True, True]


def test_statistics_are_over_the_rows_of_all_processes(seen: list[dict[str, Any]]) -> None:
    alone, rows = batch_norms(), torch.arange(12.0).view(4, 3)
    whole, _ = alone(rows), alone(rows.square())
    assert_close(torch.tensor(seen[0]["normal"] + seen[1]["normal"]), whole)
    for process in seen:
        for ours, theirs in zip(process["cumulative"], alone.state_dict().values(), strict=True):
            assert_close(torch.tensor(ours), theirs, check_dtype=False)
        assert process["everyone"] == torch.arange(12.0).view(4, 3).tolist()
        assert (process["highest"], process["mean"]) == (7, [0.5, 1.0])
    assert seen[0]["mine"] + seen[1]["mine"] == seen[0]["everyone"]


# Alone.


def test_alone_rows_of_all_are_the_rows_and_constant() -> None:
    rows = torch.ones(3, 2, requires_grad=True)
    everyone, mine = rows_of_all(rows)
    assert torch.equal(everyone[mine], rows)
    assert not everyone.requires_grad


def test_in_evaluation_shared_statistics_are_torch_s_own() -> None:
    for tracked in (True, False):
        own = nn.BatchNorm1d(2, track_running_stats=tracked).eval()
        shared = GlobalBatchNorm(2, track_running_stats=tracked).eval()
        shared.load_state_dict(own.state_dict())
        rows = torch.randn(5, 2)
        assert torch.equal(shared(rows), own(rows))


def test_shared_statistics_keep_names_tensors_and_shared_layers() -> None:
    norm = nn.BatchNorm2d(2, eps=1e-3, momentum=0.3)
    network = nn.ModuleDict({"one": nn.Sequential(nn.Conv2d(1, 2, 1), norm), "other": norm}).eval()
    before = network.state_dict(keep_vars=True)
    share_batch_statistics(network)
    after = network.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    shared = network["other"]
    assert type(shared) is GlobalBatchNorm
    assert network["one"][1] is shared
    assert (shared.eps, shared.momentum, shared.training) == (1e-3, 0.3, False)


def test_a_device_that_this_machine_lacks_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"`train.device` is cuda:7, which this machine lacks; use auto or cpu"):
        Processes("cuda:7")


@pytest.mark.parametrize(
    ("launched", "words"),
    [
        ({"WORLD_SIZE": "2"}, r"^2 processes were started, but they are not connected \(accelerate reports 1\); start"),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, r"^3 processes were started, but they are not connected"),
        (
            {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
            r"^`accelerate launch` was asked for several processes and started one, .* `torchrun --nproc-per-node N`",
        ),
    ],
)
def test_processes_that_would_each_train_alone_are_refused(
    monkeypatch: pytest.MonkeyPatch, launched: dict[str, str], words: str
) -> None:
    Processes("cpu")  # accelerate's state of this process is that of one process
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words):
        Processes("cpu")


def test_an_error_that_is_not_about_processes_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"^gloom$"), Processes("cpu").connected():
        raise RuntimeError("gloom")


if __name__ == "__main__":
    warnings.simplefilter("error")
    # Of kernels with a size of 1, along which strides mean nothing: torch copies them, and says so once.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    both(Path(sys.argv[1]))
