"""What should not change the mathematics does not change the numbers: processes, parts, compiled networks.

Measured in float64. In float32 the same trainings drift apart by the rounding of sums in another order: a bias before a
batch normalisation has a gradient of zero, and Adam makes whole steps of whatever noise is in its place.
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

ROUNDS = 20
COMMON = [
    "--data",
    "digits",
    "--batch-size",
    "32",
    "--device",
    "cpu",
    "--set",
    "train.ema=null",
    "--set",
    "train.sample_every=null",
    "--set",
    "network.image_size=16",
]
SYSTEMS = {
    "dcgan": [
        "--set",
        "network.width=8",
        "--set",
        "network.num_classes=10",
        "--set",
        "regularizers.gradient_penalty.interval=2",
    ],
    "wgan-gp": ["--set", "network.generator.width=8", "--set", "network.discriminator.width=8"],
}
SCRIPT = """
import torch
from gan_image.__main__ import main

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
main()
"""
Weights = Mapping[str, torch.Tensor]


def trained(system: str, folder: Path, *options: str, processes: int = 1) -> Weights:
    """The weights after a training by the command line, under `torchrun` where several processes are asked for."""
    (folder / "train.py").write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] * (processes > 1)
    words = ["train", system, *COMMON, *SYSTEMS[system], *options, "--out", str(folder / "run")]
    command = [sys.executable, *launch, str(folder / "train.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, "one process speaks for all"
    return read_tensors(folder / "run" / "model" / "model.safetensors")


def apart(one: Weights, other: Weights) -> float:
    """The largest distance between two tensors of a name, relative to the tensor's length."""
    pairs = [(tensor, other[name]) for name, tensor in one.items() if tensor.is_floating_point()]
    return max(float((a - b).norm() / a.norm().clamp(min=1e-3)) for a, b in pairs)


@pytest.fixture(scope="module", params=SYSTEMS)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Weights]:
    """A system, and its weights after a plain training."""
    return request.param, trained(request.param, tmp_path_factory.mktemp("plain"), "--steps", str(ROUNDS))


def test_two_processes_equal_one_on_the_same_global_batch(plain: tuple[str, Weights], tmp_path: Path) -> None:
    system, weights = plain
    assert apart(weights, trained(system, tmp_path, "--steps", str(ROUNDS), processes=2)) <= 1e-5
