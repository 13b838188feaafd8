"""A run that was stopped in any way and resumed is, bit for bit, the run that was never stopped.

This file is also a program: torch takes seconds to import, so one process imports it and forks the trainings to kill.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gan_core import Game, Phase, Player, ReplayPool, TwoPlayerGame, draws, resume, train
from gan_core.errors import CheckpointError, GanError, RecipeError
from gan_core.models.checkpoint import read_checkpoint, read_tensors, write_checkpoint
from gan_core.play.objectives import non_saturating
from gan_core.runs.run import Run


class Jittered(Dataset[dict[str, Tensor]]):
    """Rows that are moved a little, at random, every time that they are read."""

    rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"rows": self.rows[index] + 0.1 * torch.randn(2)}


class Rich(Game):
    """All that a run has to remember: phases, statistics, a pool of fakes, plain state, and every kind of chance."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder = nn.Linear(2, 2)
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.3), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        self.generator[3].weight = nn.Parameter(torch.randn(8, 2).t())  # laid out in columns
        self.pool = ReplayPool(10)
        self.strength, self.history = 0.0, [0.0]
        self.register_buffer("balance", torch.zeros(()))

    def get_extra_state(self) -> dict[str, Any]:
        return {"strength": self.strength, "history": self.history}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.strength, self.history = state["strength"], state["history"]

    def phases(self) -> Iterable[Phase]:
        return [Phase("warm", ("discriminator",), batch_size=4), Phase("play", share=2), Phase("tune", share=1)]

    def enter(self, phase: Phase) -> None:
        if phase.name == "tune":
            nn.init.normal_(self.discriminator[3].weight)

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.discriminator,), self.discriminator_loss, turns=2)
        yield Player("generator", (self.generator,), self.generator_loss)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.strength = 0.9 * self.strength + 0.1 * self.step
        self.history = [*self.history[-2:], self.strength]
        real, fake = self.encoder(batch["rows"]), self.pool(self.sample(len(batch["rows"])))
        logits = [self.discriminator(rows + self.balance * torch.rand_like(rows)) for rows in (real, fake)]
        self.note("real", logits[0].mean())
        return {"adversarial": non_saturating.discriminator(*logits)}

    @torch.no_grad()
    def after_turn(self, player: str, values: dict[str, Tensor]) -> None:
        self.balance.lerp_(values.get("real", self.balance * 0), 0.1)

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"adversarial": non_saturating.generator(self.discriminator(self.sample(len(batch["rows"]))))}

    def sample(self, count: int) -> Tensor:
        return self.generator(draws.normal(count, 3, like=self.balance))


STEPS = 24
CHANGES = {
    "optimizer.learning_rate": 0.01,
    "optimizer.schedule": {"name": "cosine"},
    "players.generator.optimizer.clip_norm": 0.5,
    "players.discriminator.optimizer.name": "rmsprop",
}
EVERY = {"log_every": 3, "sample_every": 5, "checkpoint_every": 2}


def begin(out: Path, game: Game | None = None, **settings: Any) -> Run:
    fixed = {"steps": STEPS, "batch_size": 8, "ema": 0.9, "show": 4, "device": "cpu", "changes": CHANGES}
    return train(game or Rich(), data=Jittered(), out=out, shown=False, **fixed | EVERY | settings)


def go_on(out: Path, game: Game | None = None, **settings: Any) -> Run:
    game = game or Rich()
    torch.manual_seed(4)  # the state of torch's own generator must not matter
    return resume(out, game=game, data=Jittered(), shown=False, **settings)


CLOCKS = ("elapsed", "start_elapsed", "files")


def remembered(path: Path) -> dict[str, Any]:
    """All that a run is, as plain values: only what clocks say is left out."""
    run = Run(path)
    files, state = read_checkpoint(run.checkpoints()[-1])
    lines = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    model = {"model": read_tensors(path / "model/model.safetensors")} if (path / "model").exists() else {}
    tensors = {
        f"{file}/{name}": (str(tensor.dtype), tuple(tensor.shape), tensor.flatten().view(torch.uint8).tolist())
        for file, content in (files | model).items()
        for name, tensor in content.items()
    }
    return {
        **tensors,
        "state": {key: value for key, value in state.items() if key not in CLOCKS},
        "log": [{key: value for key, value in line.items() if key != "samples_per_second"} for line in lines],
        "samples": {file.name: file.read_bytes().hex() for file in sorted(run.samples_folder.iterdir())},
    }


def assert_same_run(one: Path, other: Path, *, ends: Iterable[int] = ()) -> None:
    """`ends`: the steps after which the first run ended before it was resumed; their pictures stay, and are extra."""
    ours, theirs = remembered(one), remembered(other)
    for step in ends:
        assert ours["samples"].pop(f"{step:08d}.npz")
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if ours[key] != theirs[key]] == []


def leftovers(path: Path) -> list[str]:
    return [str(file.relative_to(path)) for file in path.rglob(".*")]


# Interrupts, in this process.


class Stopped(Rich):
    """Interrupted at some steps, once at each."""

    def __init__(self, *steps: int, by: signal.Signals = signal.SIGTERM):
        super().__init__()
        self.stops, self.by = set(steps), by

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.step in self.stops:
            self.stops.remove(self.step)
            signal.raise_signal(self.by)
        return super().generator_loss(batch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped."""
    return begin(tmp_path_factory.mktemp("whole") / "run").path


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path: Path, whole: Path, by: signal.Signals) -> None:
    run = begin(tmp_path / "run", Stopped(12, by=by))
    assert (run.interrupted, run.checkpoints()[-1].name) == (by.name, "00000013")
    assert run.log()[-1]["step"] == 13  # of the interval that has begun; so is the last picture
    assert run.samples()[-1].stem == "00000013"
    for stop in (13, 15, 17, 20):  # at once again; between two checkpoints; before the last phase; in it
        assert go_on(run.path, Stopped(stop)).checkpoints()[-1].name == f"{stop + 1:08d}"
    assert go_on(run.path).interrupted is None
    assert_same_run(run.path, whole, ends=(13, 14, 16, 18, 21))
    assert leftovers(run.path) == []


def test_the_run_that_was_never_stopped_shows_that_there_was_something_to_remember(whole: Path) -> None:
    files, state = read_checkpoint(Run(whole).checkpoints()[-1])
    assert [line["phase"] for line in Run(whole).log()] == ["warm"] * 2 + ["play"] * 4 + ["tune"] * 2
    assert files["game.safetensors"]["pool.pool"].shape == (10, 2)
    assert state["game"]["_extra_state"]["strength"] > 10
    assert not torch.equal(
        files["average.safetensors"]["generator.0.weight"], files["game.safetensors"]["generator.0.weight"]
    )
    assert {key.split("/")[-1] for key in files["optimizers.safetensors"]} == {
        "exp_avg",
        "exp_avg_sq",
        "step",
        "square_avg",
    }
    assert [path.stem for path in Run(whole).samples()] == [f"{step:08d}" for step in (5, 10, 15, 20, 24)]
    lines = [json.loads(line) for line in Run(whole).log_file.read_text().splitlines()]
    assert [line["step"] for line in lines if "samples/nearest" in line] == [5, 10, 15, 20, 24]


def test_a_finished_run_goes_on_to_more_steps_as_if_it_had_had_them(tmp_path: Path) -> None:
    def game() -> TwoPlayerGame:
        torch.manual_seed(0)
        generator = nn.Sequential(nn.Linear(3, 2))
        generator.latent_dim = 3  # type: ignore[assignment]
        return TwoPlayerGame(generator, nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)))

    begin(tmp_path / "long", game(), steps=14, changes={})
    begin(tmp_path / "short", game(), steps=8, changes={})
    with pytest.raises(RecipeError, match=r"short: is finished at step 8; give more steps to train on"):
        go_on(tmp_path / "short", game())
    go_on(tmp_path / "short", game(), steps=14)
    assert_same_run(tmp_path / "short", tmp_path / "long", ends=[8])
    assert Run(tmp_path / "short").recipe == Run(tmp_path / "long").recipe


def test_a_run_without_a_checkpoint_cannot_be_resumed(tmp_path: Path, whole: Path) -> None:
    Run.create(tmp_path / "run", Run(whole).recipe)
    with pytest.raises(CheckpointError, match=r"run: has no checkpoint to resume from; start a new run"):
        go_on(tmp_path / "run")


# Damage.


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted, with checkpoints of steps 14 and 15."""
    return begin(tmp_path_factory.mktemp("interrupted") / "run", Stopped(14)).path


@pytest.fixture
def halfway(tmp_path: Path, interrupted: Path) -> Run:
    """A copy of the interrupted run."""
    return Run(shutil.copytree(interrupted, tmp_path / "run"))


@pytest.mark.parametrize("name", ["game.safetensors", "average.safetensors", "optimizers.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_checkpoint_is_skipped_and_reported(
    halfway: Run, whole: Path, name: str, damage: Callable[[Path], None]
) -> None:
    assert [path.name for path in halfway.checkpoints()] == ["00000014", "00000015"]
    damage(halfway.checkpoint(15) / name)
    run = go_on(halfway.path)
    assert len(run.problems) == 1
    assert run.problems[0].startswith(f"{halfway.checkpoint(15) / name}: ")
    assert "damaged" in run.problems[0]
    assert_same_run(run.path, whole)


@pytest.mark.parametrize("change", [{"elapsed": 10**400}, {"position": 2**64}, {"losses": {"a/b": [[1.0], 0]}}])
def test_a_state_with_numbers_out_of_range_is_passed_over(halfway: Run, whole: Path, change: dict[str, Any]) -> None:
    files, state = read_checkpoint(halfway.checkpoint(15))
    write_checkpoint(halfway.checkpoint(15), files, state | change)
    run = go_on(halfway.path)
    assert run.problems == [f"{halfway.checkpoint(15)}: its state.json is not a training state"]
    assert_same_run(run.path, whole)


def test_a_checkpoint_of_another_game_is_passed_over(halfway: Run, whole: Path) -> None:
    files, state = read_checkpoint(halfway.checkpoint(15))
    files["game.safetensors"]["generator.0.weight"] = torch.zeros(5, 5)
    write_checkpoint(halfway.checkpoint(15), files, state)
    run = go_on(halfway.path)
    assert len(run.problems) == 1
    assert run.problems[0].startswith(f"{halfway.checkpoint(15)}: does not fit Rich")
    assert_same_run(run.path, whole)


def test_whether_a_run_is_finished_does_not_depend_on_the_clock(tmp_path: Path, whole: Path) -> None:
    run = Run(shutil.copytree(whole, tmp_path / "run"))
    for when in (0, 2**33):
        for path in (run.model, run.report_file):
            os.utime(path, (when, when))
        with pytest.raises(RecipeError, match="is finished at step 24"):
            go_on(run.path)
    config = run.model / "config.json"
    config.write_text(config.read_text().replace('"step": 24', '"step": 22'))  # as after a kill before the model
    os.utime(config, (2**33, 2**33))
    go_on(run.path)
    assert json.loads(config.read_text())["step"] == 24
    with pytest.raises(RecipeError, match="is finished at step 24"):
        go_on(run.path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": "soon"}, "its state.json is not a training state"),
        ({"ends": None}, "its state.json is not a training state"),
        ({"losses": {"a/b": [1]}}, "its state.json is not a training state"),
        ({"optimizers": {}}, "does not fit this run's recipe"),
        ({"starts": [0, 1, 2, 3]}, "does not fit this run's recipe"),
    ],
)
def test_an_invalid_state_is_one_line(halfway: Run, change: dict[str, Any], words: str) -> None:
    for folder in halfway.checkpoints():
        files, state = read_checkpoint(folder)
        del state["files"]
        write_checkpoint(folder, files, state | change)
    with pytest.raises(CheckpointError, match=rf"00000015: {words}"):
        go_on(halfway.path)


def test_with_all_checkpoints_damaged_the_run_says_so_and_is_left_alone(halfway: Run) -> None:
    for folder in halfway.checkpoints():
        flip(folder / "game.safetensors")
    before = halfway.log_file.read_bytes()
    with pytest.raises(CheckpointError, match=r"00000015/game\.safetensors: missing or damaged"):
        go_on(halfway.path)
    assert halfway.log_file.read_bytes() == before


def test_damaged_checkpoints_never_cost_the_one_that_is_whole(halfway: Run) -> None:
    for step in (16, 18):  # newer ones than are kept, all of them damaged
        shutil.copytree(halfway.checkpoint(15), halfway.checkpoint(step))
        cut(halfway.checkpoint(step) / "state.json")
    flip(halfway.checkpoint(15) / "game.safetensors")
    run = go_on(halfway.path, Stopped(14))  # it plays step 14 alone, and writes the checkpoint of 15 again
    assert [problem.split("/checkpoints/")[1][:8] for problem in run.problems] == ["00000018", "00000016", "00000015"]
    assert [path.name for path in run.checkpoints(16)][:2] == ["00000014", "00000015"]
    assert read_checkpoint(run.checkpoint(15))[1]["step"] == 15


def test_damaged_lines_of_a_log_do_not_stop_a_resume(halfway: Run, whole: Path) -> None:
    lines = halfway.log_file.read_bytes().splitlines(keepends=True)
    damaged = [b"\xff\x00\n", b"[]\n", b'{"phase": "play"}\n', b'{"step": 3, "pha\n']
    halfway.log_file.write_bytes(b"".join([lines[0], *damaged, *lines[1:], b'{"step": 15, "phase": "pl']))
    assert halfway.log()[-1]["step"] == 15
    go_on(halfway.path)
    assert_same_run(halfway.path, whole)


# Kills and full disks, in processes forked from one that has imported torch.

KILLS = 20


def harness(folder: Path) -> None:
    import torch._dynamo

    import gan_core.runs.report  # noqa: F401

    torch.set_num_threads(1)  # a pool of threads does not outlive a fork
    assert forked(lambda: begin(folder / "short", **SHORT)) == 0
    results = {
        "killed": kill_again_and_again(folder / "killed"),
        "swept": kill_at_file_operations(folder / "swept"),
        "full": fill_the_disk(folder / "full"),
        "workers": interrupt_a_group(folder),
        "reader": kill_a_reader(folder),
        "full_log": fill_the_disk(folder / "full_log", log_every=1, checkpoint_every=None),
        "full_again": fill_the_disk_again(folder / "full_again"),
        "models": kill_while_saving(folder / "models"),
        "orphan": orphan_a_worker(folder / "orphan"),
    }
    (folder / "results.json").write_text(json.dumps(results))


def start(work: Callable[[], object]) -> int:
    """Forks a process that does the work and exits with 0, or 1 if it raised."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    return child


def forked(work: Callable[[], object]) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(start(work), 0)[1])


def begin_or_go_on(out: Path, **settings: Any) -> None:
    """What a user does who was told nothing: resume; where there is nothing to resume, begin again."""
    for newest in Run(out).checkpoints()[-1:]:
        try:
            read_checkpoint(newest)
        except CheckpointError as error:
            out.with_suffix(".damaged").write_text(str(error))
    try:
        with suppress(RecipeError):  # it is finished
            go_on(out)
    except CheckpointError:
        shutil.rmtree(out, ignore_errors=True)
        begin(out, **settings)


def kill_again_and_again(out: Path) -> dict[str, Any]:
    """One run, killed at random moments until it has had enough of them."""
    started = time.monotonic()
    assert forked(lambda: begin(out.parent / "whole", **LONG)) == 0
    whole, chance, kills = time.monotonic() - started, random.Random(0), 0
    while kills < KILLS:
        child = start(lambda: begin_or_go_on(out, **LONG))
        time.sleep(chance.uniform(0.0, whole / 6))
        os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1] == 0:
            break
        kills += 1
    return {"kills": kills, "last": forked(lambda: begin_or_go_on(out, **LONG))}


LONG = {"steps": 60}
SHORT = {"steps": 6, "log_every": 3, "sample_every": 4, "checkpoint_every": 2, "keep_checkpoints": 1}
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir")


def kill_at_operation(number: int, under: Path) -> None:
    """Kills this process just before its n-th operation on a file of the run."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in OPERATIONS and str(arguments[0]).startswith(str(under)):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_at_file_operations(out: Path) -> dict[str, Any]:
    """Short runs, each killed at another file operation, and again when it is resumed."""
    kills, number, failures = 0, 1, []
    while True:
        path = out / str(number)

        def work(path: Path = path, number: int = number) -> None:
            kill_at_operation(number, path)
            begin_or_go_on(path, **SHORT)

        first, second = forked(work), forked(work)
        last = forked(lambda path=path: begin_or_go_on(path, **SHORT))
        if last != 0:
            failures.append(number)
        if first == 0:
            return {
                "kills": kills,
                "failures": failures,
                "damaged": [path.read_text() for path in out.glob("*.damaged")],
            }
        kills += (first < 0) + (second < 0)
        number += 3


def kill_while_saving(out: Path) -> dict[str, Any]:
    """A model saved over another one, each time killed at another file operation: which of them is left, and what else.

    Afterwards, the model is saved again.
    """

    def marked(mark: float) -> Rich:
        game = Rich()
        nn.init.constant_(game.encoder.weight, mark)
        return game

    def mark_of(folder: Path) -> float:
        return float(Rich().restore(folder).encoder.weight[0, 0])

    found, number = [], 1
    while True:
        folder = out / str(number) / "model"
        marked(1).save_pretrained(folder)

        def work(folder: Path = folder, number: int = number) -> None:
            kill_at_operation(number, folder.parent)
            marked(2).save_pretrained(folder)

        killed = forked(work) < 0
        found.append(mark_of(folder))
        marked(3).save_pretrained(folder)
        assert mark_of(folder) == 3
        assert [path.name for path in folder.parent.iterdir()] == ["model"]
        if not killed:
            return {"marks": found}
        number += 1


def orphan_a_worker(out: Path) -> dict[str, Any]:
    """A training is killed while a process that reads its data lives on: whether the run can be resumed at once."""
    assert forked(lambda: begin(out, Stopped(12))) == 0
    receive, send = os.pipe()

    def work() -> None:
        with Run(out).owned():
            worker = os.fork()
            if worker == 0:
                time.sleep(60)
                os._exit(0)
            os.write(send, f"{worker}\n".encode())
            time.sleep(60)

    child = start(work)
    worker = int(os.read(receive, 20))
    refused = forked(lambda: go_on(out))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    free = forked(lambda: go_on(out))
    os.kill(worker, signal.SIGKILL)
    return {"refused": refused, "free": free}


class Growing(Rich):
    """Its checkpoints become larger than the disk."""

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.history = [float(number) for number in range(self.step * 1000)]
        return {"adversarial": self.discriminator(batch["rows"]).mean() + 0 * len(self.history)}


def fill_the_disk(out: Path, **settings: Any) -> dict[str, Any]:
    """The system refuses files above a size, as a full disk does; then there is room again."""
    receive, send = os.pipe()

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = 100_000 if "log_every" not in settings else 4_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        game = Growing() if "log_every" not in settings else Rich()
        try:
            begin(out, game, **settings)
        except GanError as error:
            os.write(send, str(error).encode())

    code = forked(work)
    os.close(send)
    with os.fdopen(receive) as pipe:
        message = pipe.read()
    kept = [path.name for path in Run(out).checkpoints()]
    return {"code": code, "message": message, "kept": kept, "leftovers": leftovers(out)}


def fill_the_disk_again(out: Path) -> dict[str, Any]:
    """There is not even room for the log when the run is resumed."""
    assert forked(lambda: begin(out, Stopped(14), log_every=1)) == 0
    before = (out / "log.jsonl").read_text()

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, resource.RLIM_INFINITY))
        with suppress(GanError):
            go_on(out)

    return {"code": forked(work), "kept": (out / "log.jsonl").read_text() == before}


def interrupt_a_group(folder: Path) -> dict[str, Any]:
    """Ctrl-C goes to the training and to the processes that read its data; here when it has been resumed."""
    settings = {"changes": CHANGES | {"data.workers": 1}, "steps": 120, "checkpoint_every": 20}
    assert forked(lambda: begin(folder / "workers_whole", **settings)) == 0
    out, codes, steps = folder / "workers", [], []

    def interrupted(work: Callable[[], Run]) -> None:
        def group() -> None:
            os.setpgid(0, 0)
            assert work().interrupted == "SIGINT"

        seen = len(Run(out).log())
        child = start(group)
        deadline = time.monotonic() + 20
        while len(Run(out).log()) < seen + 3 and time.monotonic() < deadline:
            time.sleep(0.002)
        os.killpg(child, signal.SIGINT)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        steps.append(int(Run(out).checkpoints()[-1].name))

    interrupted(lambda: begin(out, **settings))
    interrupted(lambda: go_on(out))
    codes.append(forked(lambda: go_on(out)))
    return {"codes": codes, "steps": steps}


class Bereft(Rich):
    """A process that reads its data is killed in the middle of a step."""

    def after_turn(self, player: str, values: dict[str, Tensor]) -> None:
        super().after_turn(player, values)
        if self.step >= 15 and player == "generator" and (children := multiprocessing.active_children()):
            children[0].kill()


def kill_a_reader(folder: Path) -> dict[str, Any]:
    """The end of memory takes one of the processes that read the data; the run goes on with fewer."""
    out, seen = folder / "reader", folder / "reader.json"

    def begun() -> None:
        try:
            begin(out, Bereft(), steps=120, checkpoint_every=100, changes=CHANGES | {"data.workers": 2})
        except GanError as error:
            seen.write_text(json.dumps([type(error).__name__, error.exit_status, str(error)]))

    began = time.monotonic()
    codes = [forked(begun)]
    seconds, step = time.monotonic() - began, int(Run(out).checkpoints()[-1].name)
    codes.append(forked(lambda: go_on(out, changes={"data.workers": 1, "train.checkpoint_every": 20})))
    return {"codes": codes, "seconds": seconds, "step": step, "error": json.loads(seen.read_text())}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What happened to the runs of the harness, and where they are."""
    folder = tmp_path_factory.mktemp("harness")
    done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, json.loads((folder / "results.json").read_text()) | {"stderr": done.stderr}


def test_a_run_killed_at_random_moments_is_the_run_that_was_not(stopped: tuple[Path, dict[str, Any]]) -> None:
    folder, results = stopped
    assert results["killed"]["kills"] >= 10
    assert results["killed"]["last"] == 0
    assert_same_run(folder / "killed", folder / "whole")
    assert leftovers(folder / "killed") == []
    assert not (folder / "killed.damaged").exists()  # a checkpoint is there whole or not at all


def test_a_run_killed_at_any_file_operation_is_the_run_that_was_not(stopped: tuple[Path, dict[str, Any]]) -> None:
    folder, results = stopped
    assert results["swept"]["kills"] >= 30
    assert (results["swept"]["failures"], results["swept"]["damaged"]) == ([], [])
    for path in (folder / "swept").iterdir():
        assert_same_run(path, folder / "short")
        assert leftovers(path) == []
        assert (path / "report.html").exists()


def test_a_disk_that_fills_up_costs_the_steps_since_the_last_checkpoint(stopped: tuple[Path, dict[str, Any]]) -> None:
    folder, results = stopped
    full = results["full"]
    assert full["code"] == 0
    assert "the checkpoint could not be written" in full["message"]
    assert "\n" not in full["message"]
    assert len(full["kept"]) == 2
    assert full["leftovers"] == []
    assert read_checkpoint(folder / "full/checkpoints" / full["kept"][-1])
    go_on(folder / "full", Growing(), steps=int(full["kept"][-1]) + 3)
    assert leftovers(folder / "full") == []


def test_a_disk_that_fills_up_under_the_log_is_one_line(stopped: tuple[Path, dict[str, Any]]) -> None:
    full = stopped[1]["full_log"]
    assert full["code"] == 0
    assert "log.jsonl: cannot be written (File too large)" in full["message"]
    assert "\n" not in full["message"]


def test_a_full_disk_does_not_damage_the_log(stopped: tuple[Path, dict[str, Any]]) -> None:
    assert stopped[1]["full_again"] == {"code": 0, "kept": True}


def test_a_model_killed_at_any_file_operation_is_the_old_or_the_new_one(stopped: tuple[Path, dict[str, Any]]) -> None:
    marks = stopped[1]["models"]["marks"]
    assert len(marks) > 8
    assert marks == sorted(marks)
    assert (marks[0], marks[-1]) == (1, 2)


def test_a_process_that_reads_data_does_not_keep_the_run_of_a_killed_one(stopped: tuple[Path, dict[str, Any]]) -> None:
    assert stopped[1]["orphan"] == {"refused": 1, "free": 0}


def test_an_interrupt_of_the_whole_group_spares_the_processes_that_read(stopped: tuple[Path, dict[str, Any]]) -> None:
    folder, results = stopped
    assert results["workers"]["codes"] == [0, 0, 0], results["stderr"][-3000:]
    assert 0 < results["workers"]["steps"][0] < results["workers"]["steps"][1] < 120
    ends = [step for step in results["workers"]["steps"] if step % EVERY["sample_every"]]
    assert_same_run(folder / "workers", folder / "workers_whole", ends=ends)


def test_a_killed_reader_ends_the_run_with_a_checkpoint_of_the_step_reached(
    stopped: tuple[Path, dict[str, Any]],
) -> None:
    folder, results = stopped
    reader = results["reader"]
    assert reader["codes"] == [0, 0], results["stderr"][-3000:]
    assert reader["seconds"] < 30
    assert 16 <= reader["step"] < 60  # what had been read before is still played
    call = f"gan_core.resume('{folder / 'reader'}', game=game, data=data, changes={{'data.workers': 1}})"
    assert reader["error"] == [
        "ReaderLost",
        1,
        f"step {reader['step']}: a process that reads data has ended (killed, or out of memory?); continue with {call}",
    ]
    assert_same_run(folder / "reader", folder / "workers_whole", ends=[reader["step"]])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        harness(Path(sys.argv[1]))
