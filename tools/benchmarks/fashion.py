"""Unconditional systems on Fashion-MNIST at 16×16 with one budget of real images.

The data are the first 20,000 training images, padded by 2 pixels and halved by area averaging. Each system has its
preset `small` with the changes below (width 32) and a learning rate that decays linearly to 0. The number of real
images in the batches of all turns is the same for all systems; one with several turns of the discriminator makes fewer
steps. `r3gan-objective` has the networks of wgan-gp with the paired relativistic objective, R1 and R2. `dcgan` and
`sngan` are also trained on 1,000 images, with and without augmentation. 5,000 samples of the last and of the averaged
weights are compared with 5,000 of the 20,000 images, in features of a classifier trained on the data's labels. One
seed. The picture has 20 samples of the averaged weights for each run, in the order of the table.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import RESULTS, Progress, record
from _tables import markdown
from torch import Tensor
from torch.nn import functional as F

import gan_image
from gan_core.data import FittedData, TensorSource
from gan_core.measure.evaluation import Evaluation, protocol_id
from gan_core.models.checkpoint import GAME, load_state, read_checkpoint
from gan_image.media import write_samples

BUDGET = 256_000
"""Number of real images in the batches of all turns."""
SIZE, FEW, COUNT, COLUMNS = 16, 1000, 5000, 20
METRICS = ["fid", "kid", "inception_score", "precision_recall", "density_coverage"]
COMMON: dict[str, Any] = {
    "network.image_size": SIZE,
    "network.channels": 1,
    "optimizer.schedule": {"name": "linear"},
    "train.ema": 0.995,
    "train.sample_every": None,
    "train.checkpoint_every": 1_000_000,
    "train.samples": BUDGET,
}
RESIDUAL = {"network.generator.width": 32, "network.discriminator.width": 32}
"""The width of the small DCGAN."""
R3GAN = {
    "objective": "relativistic",
    "regularizers.gradient_penalty": None,
    "regularizers.r1.weight": 0.5,
    "regularizers.r2.weight": 0.5,
    "players.discriminator.turns": 1,
}
AUGMENTED: dict[str, dict[str, Any]] = {
    "": {},
    ", DiffAugment": {"regularizers.diffaugment.policy": ["translation", "cutout"]},
    ", ADA": {"regularizers.ada.speed": 100_000},
}
RUNS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "dcgan": ("dcgan", {}, None),
    "lsgan": ("lsgan", {}, None),
    "wgan-gp": ("wgan-gp", RESIDUAL, None),
    "sngan": ("sngan", RESIDUAL, None),
    "sagan": ("sagan", RESIDUAL, None),
    "r3gan-objective": ("wgan-gp", RESIDUAL | R3GAN, None),
    **{
        f"{system}, 1,000 images{label}": (system, width | augmentation, FEW)
        for system, width in (("dcgan", {}), ("sngan", RESIDUAL))
        for label, augmentation in AUGMENTED.items()
    },
}
"""System, changes, and number of training images (None for all)."""


@cache
def fashion() -> dict[str, Tensor]:
    """Returns the images, uint8 `[20000, 1, 16, 16]`, and their labels."""
    folder = Path(os.environ["GAN_TEST_DATA"]) / "fashion_mnist"
    if not folder.is_dir():
        sys.exit(f"{folder}: no such folder; set GAN_TEST_DATA to where fashion_mnist/train-images-idx3-ubyte.gz is")

    def read(name: str, header: int) -> Tensor:
        with gzip.open(folder / name) as file:
            return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())

    images = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    halved = F.avg_pool2d(F.pad(images, (2, 2, 2, 2)).float(), 2)
    return {"image": halved.round().byte(), "label": read("train-labels-idx1-ubyte.gz", 8).long()}


@cache
def evaluation() -> Evaluation:
    """Returns the evaluation of all runs, whose data specifications are equal."""
    game = gan_image.create("dcgan", image_size=SIZE, channels=1)
    data = FittedData(TensorSource(fashion(), name="fashion-mnist, 20,000 images"), game.spec)
    return Evaluation(gan_image.DOMAIN.metrics, data, game, metrics=METRICS, count=COUNT)


def measure(name: str, seed: int) -> dict[str, Any]:
    """Trains once and returns the metrics of the last and the averaged weights, the protocols, and samples."""
    system, changes, few = RUNS[name]
    shown = {key: value[:few] for key, value in fashion().items()}
    player = gan_image.DOMAIN.recipe(system).players.get("discriminator")
    turns = changes.get("players.discriminator.turns", player.turns if player and player.turns else 1) + 1
    steps = -(-BUDGET // (64 * turns))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        start = time.perf_counter()
        gan_image.train(
            system,
            data=TensorSource(shown, name="fashion-mnist"),
            out=run,
            steps=steps,
            batch_size=64,
            seed=seed,
            changes=COMMON | changes,
            shown=False,
        )
        seconds = time.perf_counter() - start
        game = gan_image.load(run)
        averaged, protocols = evaluation().measure(game)
        samples = ((game.generate(COLUMNS, seed=0) + 1) * 127.5).round().byte()
        newest = max((run / "checkpoints").iterdir())
        load_state(game, read_checkpoint(newest)[0][GAME], {}, newest)
        last, _ = evaluation().measure(game)
    figures = {
        weights: {figure: round(value, 4) for metric in found.values() for figure, value in metric.items()}
        for weights, found in (("average", averaged), ("last", last))
    }
    return {
        "figures": {"seed": seed, "steps": steps, "seconds": round(seconds), **figures},
        "protocols": {metric: (protocol_id(protocol), protocol) for metric, protocol in protocols.items()},
        "samples": samples.tolist(),
    }


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results page."""
    shown = {"fid": 1.0, "kid": 1e3, "precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}
    rows = []
    for name, run in figures["runs"].items():
        average = [f"{unit * run['average'][figure]:.2f}" for figure, unit in shown.items() if figure != "fid"]
        rows.append([name, *(f"{run[weights]['fid']:.3f}" for weights in ("average", "last")), *average])
    names = ("KID · 10³", "precision", "recall", "density", "coverage")
    return markdown(["", "FID, averaged weights", "FID, last weights", *names], rows)


def main() -> None:
    """Trains and measures each system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    options = parser.parse_args()
    torch.set_num_threads(1)
    progress = Progress(options.progress)
    found = {name: progress.take(f"{name}, {options.seed}", partial(measure, name, options.seed)) for name in RUNS}
    protocols = next(iter(found.values()))["protocols"]
    if any(each["protocols"] != protocols for each in found.values()):
        sys.exit("the runs were measured by different protocols; remove the file of kept results (`--progress`)")
    figures = {
        "budget": BUDGET,
        "protocol": {metric: name for metric, (name, _) in protocols.items()},
        "runs": {name: each["figures"] for name, each in found.items()},
        "protocols": dict(protocols.values()),
    }
    rows = torch.cat([torch.tensor(each["samples"]) for each in found.values()]) / 127.5 - 1
    write_samples({"samples": rows}, RESULTS / "fashion", columns=COLUMNS)
    record("fashion", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
