"""`torchrun … gan-image train`, as the how-to page writes it, on the default device: two processes train one run.

One launch serves all tests: the run is compared with that of one process up to its last checkpoint, and then one of
the processes is killed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from torch.testing import assert_close

import gan_image
from gan_core.models.checkpoint import read_checkpoint
from gan_core.runs.run import Run

SETTINGS = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.05, "network.width": 4, "network.image_size": 16}
TRAINING = {"checkpoint_every": 5, "log_every": 5, "keep_checkpoints": 1000, "show": 4, "batch_size": 8}
CHANGES = SETTINGS | {f"train.{name}": value for name, value in TRAINING.items()}


class Ended(NamedTuple):
    """A run of two processes, of which one was killed."""

    run: Run
    seconds: float
    status: int
    lines: list[str]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    run = Run(tmp_path_factory.mktemp("two") / "run")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    train = ["-m", "gan_image", "train", "dcgan", "--data", "digits", "--out", str(run.path), "--steps", "100000"]
    options = [word for key, value in CHANGES.items() for word in ("--set", f"{key}={value}")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(launch + train + options, stderr=subprocess.PIPE, text=True, env=environment) as launcher:
        deadline = time.monotonic() + 120
        while len(run.checkpoints()) < 2 and launcher.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in psutil.Process(launcher.pid).children():
            if process.environ().get("RANK") == "1":
                process.kill()
        killed = time.monotonic()
        _, err = launcher.communicate(timeout=60)
    return Ended(run, time.monotonic() - killed, launcher.returncode, err.splitlines())


def test_two_processes_train_what_one_does_on_the_same_global_batch(tmp_path: Path, ended: Ended) -> None:
    both = ended.run.checkpoints()[1]
    steps = int(both.name)
    one = gan_image.train(
        "dcgan", data="digits", out=tmp_path / "one", steps=steps, device="cpu", shown=False, changes=CHANGES
    )
    files, state = read_checkpoint(both)
    alone, own = read_checkpoint(one.checkpoints()[-1])
    assert (state["step"], state["seen"]) == (own["step"], own["seen"]) == (steps, 16 * steps)
    assert_close(files["game.safetensors"], alone["game.safetensors"], rtol=1e-4, atol=1e-5)
    logged = [line for line in ended.run.log() if line["step"] <= steps and line["phase"] == "adversarial"]
    assert [line["step"] for line in logged] == list(range(5, steps + 1, 5))  # one process writes
    first = next(line for line in one.log() if line["phase"] == "adversarial")
    assert logged[0]["generator/adversarial"] == pytest.approx(first["generator/adversarial"], rel=1e-3)


def test_the_death_of_one_process_ends_the_run_with_one_line(ended: Ended) -> None:
    assert ended.seconds < 30
    assert ended.status == 1
    said = [line for line in ended.lines if line.startswith("gan-image: ")]
    assert len(said) == 1
    step, saved, command = re.fullmatch(
        r"gan-image: step (\d+): another process of this run has ended \(killed, or out of memory\?\); "
        r"continue from step (\d+) with (.*)",
        said[0],
    ).groups()  # type: ignore[union-attr]
    assert saved == str(int(ended.run.checkpoints()[-1].name))
    assert 0 <= int(step) - int(saved) <= 6
    assert command == f"gan-image resume {ended.run.path}"


def test_the_run_is_resumed_by_one_process(ended: Ended) -> None:
    saved = int(ended.run.checkpoints()[-1].name)
    gan_image.resume(ended.run.path, steps=saved + 2, shown=False)
    assert int(ended.run.checkpoints()[-1].name) == saved + 2
