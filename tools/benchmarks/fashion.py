"""Fashion-MNIST at 16x16, unconditional, one budget for all: real images that the networks were shown in all.

The first 20,000 images of the training set, padded by 2 pixels and halved by area. Each system is its `small` preset
with the changes below (all are 32 wide), and a learning rate that falls to 0 by the budget's end; a system with several
turns of the discriminator a round makes fewer rounds. `r3gan-objective` is wgan-gp's networks with the paired
relativistic objective, R1 and R2. At 1,000 images, `sngan` alone and with augmentation. 5,000 samples of the last
weights and of the average are measured against 5,000 images of the 20,000 by the classifier of the data's labels. The
picture has 20 samples of the average, a row a run, in the table's order.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import RESULTS, record
from torch import Tensor
from torch.nn import functional as F

import gan_image
from gan_core.checkpoint import load_state, read_checkpoint
from gan_core.data import TensorSource
from gan_core.evaluation import Evaluation, protocol_id
from gan_core.trainer import GAME
from gan_image.media import write_samples

BUDGET = 256_000
"""Real images that are shown in all."""
SIZE, FEW, COUNT, COLUMNS = 16, 1000, 5000, 20
METRICS = ["fid", "kid", "inception_score", "precision_recall", "density_coverage"]
COMMON: dict[str, Any] = {
    "network.image_size": SIZE, "network.channels": 1,
    "optimizer.schedule": {"name": "linear"},
    "train.ema": 0.995, "train.sample_every": None, "train.checkpoint_every": 1_000_000, "train.samples": BUDGET,
}  # fmt: skip
RESIDUAL = {"network.generator.width": 32, "network.discriminator.width": 32}
"""As wide as the small DCGAN."""
R3GAN = {
    "objective": "relativistic", "regularizers": {"r1": {"weight": 1.0}, "r2": {"weight": 1.0}},
    "players.discriminator.turns": 1,
}  # fmt: skip
RUNS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "dcgan": ("dcgan", {}, None),
    "lsgan": ("lsgan", {}, None),
    "wgan-gp": ("wgan-gp", RESIDUAL, None),
    "sngan": ("sngan", RESIDUAL, None),
    "sagan": ("sagan", RESIDUAL, None),
    "r3gan-objective": ("wgan-gp", RESIDUAL | R3GAN, None),
    "sngan, 1,000 images": ("sngan", RESIDUAL, FEW),
    "sngan, 1,000 images, DiffAugment": (
        "sngan",
        RESIDUAL | {"regularizers.diffaugment.policy": ["translation", "cutout"]},
        FEW,
    ),
    "sngan, 1,000 images, ADA": ("sngan", RESIDUAL | {"regularizers.ada.speed": 100_000}, FEW),
}
"""System, changes, and the number of images, where it is not all."""


def fashion() -> dict[str, Tensor]:
    """Images, uint8 `[20000, 1, 16, 16]`, and labels."""
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
    """How every run's samples are measured; they are alike in what the data are cut to."""
    game = gan_image.create("dcgan", image_size=SIZE, channels=1)
    source = TensorSource(fashion(), name="fashion-mnist, 20,000 images")
    network = {"image_size": SIZE, "channels": 1}
    return Evaluation(gan_image.DOMAIN, source, game, network, metrics=METRICS, count=COUNT)


def measure(name: str, tensors: dict[str, Tensor], seed: int) -> tuple[dict[str, Any], Tensor]:
    """One training: the figures of its last and its averaged weights, and samples of the average."""
    system, changes, few = RUNS[name]
    shown = {key: value[:few] for key, value in tensors.items()}
    rounds = gan_image.create(system).recipe.players.get("discriminator")
    turns = changes.get("players.discriminator.turns", rounds.turns if rounds else 1) + 1
    steps = -(-BUDGET // (64 * turns))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        start = time.perf_counter()
        gan_image.train(system, data=TensorSource(shown, name="fashion-mnist"), out=run, steps=steps, batch_size=64,
                        seed=seed, changes=COMMON | changes, shown=False)  # fmt: skip
        seconds = time.perf_counter() - start
        game = gan_image.load(run)
        averaged, protocols = evaluation().measure(game)
        samples = game.generate(COLUMNS, seed=0)
        newest = max((run / "checkpoints").iterdir())
        load_state(game, read_checkpoint(newest)[0][GAME], {}, newest)
        last, _ = evaluation().measure(game)
    figures = {
        weights: {figure: round(value, 4) for metric in found.values() for figure, value in metric.items()}
        for weights, found in (("average", averaged), ("last", last))
    }
    ids = {metric: protocol_id(protocol) for metric, protocol in protocols.items()}
    document = {"seed": seed, "steps": steps, "seconds": round(seconds), **figures, "protocol": ids}
    print(name, document, flush=True)
    return document | {"protocols": {ids[metric]: protocol for metric, protocol in protocols.items()}}, samples


def main() -> None:
    """Trains and measures every system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    tensors = fashion()
    found = {name: measure(name, tensors, options.seed) for name in options.only}
    protocols = {key: value for figures, _ in found.values() for key, value in figures.pop("protocols").items()}
    table = {"budget": BUDGET, "runs": {name: figures for name, (figures, _) in found.items()}, "protocols": protocols}
    rows = torch.cat([samples for _, samples in found.values()])
    write_samples({"samples": rows}, RESULTS / "fashion", columns=COLUMNS)
    record("fashion", table, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
