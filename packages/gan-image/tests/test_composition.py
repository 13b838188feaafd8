"""Two processes train real networks to the same weights as one process on the same global batch.

The trainings run in float64. In float32 they drift apart through rounding: a bias before batch normalization has a
gradient of zero, and Adam turns the rounding errors in its place into full steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from gan_core.models.checkpoint import read_tensors
from gan_image.__main__ import main

COMMON = ["train.ema=null", "train.sample_every=null", "network.image_size=16"]
SYSTEMS = {
    "dcgan": ["network.width=8", "network.num_classes=10", "regularizers.gradient_penalty.interval=2"],
    "wgan-gp": ["network.generator.width=8", "network.discriminator.width=8"],
}
UNCHANGED = ["optimizer.learning_rate=1e-300", "players={}"]
"""Settings with which the weights stay as they were initialized."""
Weights = Mapping[str, torch.Tensor]


def train(system: str, out: Path, settings: list[str], steps: int) -> None:
    """Trains by the command line."""
    sets = [word for setting in [*COMMON, *SYSTEMS[system], *settings] for word in ("--set", setting)]
    options = ["--data", "digits", "--batch-size", "32", "--device", "cpu", "--steps", str(steps), "--out", str(out)]
    sys.argv = ["gan-image", "train", system, *options, *sets]
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, system


def program(folder: Path) -> None:
    """Trains all systems; a single process also writes their initial weights."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    for system in SYSTEMS:
        train(system, folder / system, [], steps=6)
        if "WORLD_SIZE" not in os.environ:
            train(system, folder / f"initial-{system}", UNCHANGED, steps=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of the runs, by number of processes."""
    folders = {}
    for processes in (1, 2):
        folder = tmp_path_factory.mktemp(f"processes-{processes}")
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(launch if processes > 1 else []), __file__, str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == len(list(folder.iterdir())), "only one process prints"
        folders[processes] = folder
    return folders


def weights(run: Path) -> Weights:
    """Returns the floating-point tensors of a run's model."""
    tensors = read_tensors(run / "model" / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def differences(one: Weights, other: Weights) -> dict[str, float]:
    """Returns the distance between the tensors of each name, relative to the norm of the first."""
    return {name: float((a - other[name]).norm() / a.norm().clamp(min=1e-3)) for name, a in one.items()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_two_processes_equal_one_on_the_same_global_batch(system: str, runs: dict[int, Path]) -> None:
    one, two = (weights(folder / system) for folder in runs.values())
    assert {tensor.dtype for tensor in one.values()} == {torch.float64}
    assert max(differences(one, two).values()) <= 1e-5


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_trainings_that_are_compared_change_every_weight(system: str, runs: dict[int, Path]) -> None:
    initial = {name: tensor for name, tensor in weights(runs[1] / f"initial-{system}").items() if tensor.ndim > 1}
    assert min(differences(initial, weights(runs[1] / system)).values()) > 1e-3


if __name__ == "__main__":
    program(Path(sys.argv[1]))
