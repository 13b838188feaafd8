"""Modes found on toy data by methods against mode collapse (Lin et al. 2018, PacGAN, arXiv:1712.04086, section 4).

Figures are means and standard errors over 5 seeds. A mode is found if a sample is within 3 standard deviations of it.
Where the discriminator has more turns, there are correspondingly fewer steps. Minibatch discrimination has 20 kernels
instead of the published 100.

`ring` and `grid`: perceptrons without norms. The generator has two layers of 128 ReLU units and a latent of 16; the
discriminator has 256 leaky ReLU units, in one layer for the ring and two for the grid. Adam with beta1 0.5 and a
learning rate of 1e-3 that decays linearly to 0, 120 packs per batch, 10,000 steps, averaged weights with decay 0.999,
2,500 samples. The paper has wider networks with batch normalization and maxout, and 400,000 steps at 1e-4. The settings
here were chosen with seed 0, which is not among those measured, such that a plain GAN converges but misses modes. With
two layers in the discriminator, a plain GAN finds all 8 modes of the ring. The `small` PacGAN with batch normalization,
after 8,000 steps with 120 samples, found all 8 modes of the ring with any packing; on the grid it found 19.4 modes
without packing and 18.8, 20.4 and 16.0 with packs of 2, 3 and 4, with few samples near a mode.

`unrolled ring`: the protocol of Unrolled GAN (Metz et al. 2017, arXiv:1611.02163, appendix A), radius 2, standard
deviation 0.02, for 5,000 steps instead of 25,000. `unrolled grid`: the same networks and learning rates on the grid; an
earlier run with seed 9 had 1 and 11 modes.

`stacked`: `stacked-digits` at 16×16 with a `dcgan` whose discriminator has a quarter of the generator's width (8 and
32), batch size 60 for any packing, 2,000 steps, averaged weights with decay 0.995, and 25,600 samples whose digits are
classified. `unrolled stacked`: the protocol of Unrolled GAN for these digits (section 3.3). Its discriminator also has
a quarter of the generator's width (here 4 and 16); latent 256, batch size 128, betas (0.5, 0.99), five times the
paper's learning rates (5e-4, and 1e-3 for the discriminator, constant), 3,000 steps instead of 500,000, last weights.
It is the first setting that was tried; with seed 9 the figures were 84 and 333.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from _record import Progress, record
from _tables import markdown

import gan_image
from gan_core.data import Source, Spec
from gan_image.sources import PointSource

COMMON: dict[str, Any] = {"train.sample_every": None, "train.checkpoint_every": None}
LINEAR: dict[str, Any] = {"name": "linear"}
PACKS = (2, 3, 4)


def methods(pack: str, *, penalty: float, relativistic: float, rows: int | None = None) -> dict[str, dict[str, Any]]:
    """Returns the changes of each method.

    Args:
        pack: key of the number of samples per logit.
        penalty: weight of the gradient penalty in WGAN-GP.
        relativistic: weight of R1 and R2 with R3GAN's objective.
        rows: number of packs per batch; None for the same number of samples with any packing.
    """
    no_momentum = {"optimizer.betas": [0.0, 0.9]}
    return {
        "GAN": {pack: 1},
        **{f"PacGAN{m}": {pack: m} | ({} if rows is None else {"train.batch_size": m * rows}) for m in PACKS},
        "WGAN-GP": {
            pack: 1,
            "objective": "wasserstein",
            "regularizers.gradient_penalty.weight": penalty,
            "players.discriminator.turns": 5,
        }
        | no_momentum,
        "R3GAN's objective": {
            pack: 1,
            "objective": "relativistic",
            "regularizers.r1.weight": relativistic,
            "regularizers.r2.weight": relativistic,
        }
        | no_momentum,
        "minibatch discrimination": {pack: 1, "regularizers.minibatch_discrimination.kernels": 20},
        "unrolled by 5 steps": {pack: 1, "regularizers.unrolled.steps": 5},
    }


@dataclass(frozen=True)
class Table:
    """Methods that are compared with equal budgets.

    Attributes:
        system: name of the system.
        changes: changes to its preset.
        steps: number of steps with two turns each.
        samples: number of samples that are scored.
        methods: further changes of each method.
        preset: name of the preset.
        seeds: seeds of the runs.
    """

    system: str
    changes: Mapping[str, Any]
    steps: int
    samples: int
    methods: Mapping[str, Mapping[str, Any]]
    preset: str = "small"
    seeds: Sequence[int] = range(5)


def perceptrons(layers: int) -> Table:
    """Returns a comparison on points.

    Args:
        layers: number of hidden layers of the discriminator.
    """
    return Table(
        "pacgan",
        {
            "network": {
                "latent_dim": 16,
                "deviation": None,
                "generator": {"width": 128, "depth": 2, "batch_norm": False},
                "discriminator": {"width": 256, "depth": layers, "maxout": None},
            },
            "optimizer": {"name": "adam", "learning_rate": 1e-3, "betas": [0.5, 0.999], "schedule": LINEAR},
            "train.batch_size": 120,
            "train.ema": 0.999,
        },
        10_000,
        2500,
        methods("network.discriminator.pack", penalty=0.1, relativistic=0.1, rows=120),
        seeds=range(1, 6),
    )


UNROLLED = Table(
    "unrolled-gan",
    {"train.ema": None},
    5000,
    2500,
    {"GAN": {"regularizers.unrolled": None}, "unrolled by 10 steps": {}},
    "paper",
)
TABLES = {
    "ring": perceptrons(1),
    "grid": perceptrons(2),
    "unrolled ring": UNROLLED,
    "unrolled grid": UNROLLED,
    "stacked": Table(
        "dcgan",
        {
            "network.image_size": 16,
            "network.channels": 3,
            "network.latent_dim": 64,
            "network.width": 32,
            "network.discriminator": {"width": 8},
            "optimizer.schedule": LINEAR,
            "train.batch_size": 60,
            "train.ema": 0.995,
        },
        2000,
        25_600,
        methods("network.pack", penalty=10.0, relativistic=1.0),
    ),
    "unrolled stacked": Table(
        "dcgan",
        {
            "network.image_size": 16,
            "network.channels": 3,
            "network.latent_dim": 256,
            "network.width": 16,
            "network.discriminator": {"width": 4},
            "optimizer.learning_rate": 5e-4,
            "optimizer.betas": [0.5, 0.99],
            "players.discriminator.optimizer.learning_rate": 1e-3,
            "train.batch_size": 128,
            "train.ema": None,
        },
        3000,
        25_600,
        {"GAN": {}, "unrolled by 5 steps": {"regularizers.unrolled.steps": 5}},
    ),
}


@cache
def source_of(table: str) -> Source:
    """Returns the data of a table."""
    if table != "unrolled ring":
        name = table.removeprefix("unrolled ")
        return gan_image.open_data("stacked-digits" if name == "stacked" else name)
    ring = gan_image.open_data("ring")
    points = ring.fit(Spec()).tensors["points"]  # type: ignore[attr-defined]
    return PointSource(2 * points, name="ring of radius 2", modes=2 * ring.facts["modes"], std=2 * ring.facts["std"])


def measure(name: str, method: str, seed: int) -> dict[str, Any]:
    """Trains once and returns the figures."""
    table, source, start = TABLES[name], source_of(name), time.perf_counter()
    changes = {**COMMON, **table.changes, **table.methods[method]}
    steps = 2 * table.steps // (1 + changes.get("players.discriminator.turns", 1))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        gan_image.train(
            table.system,
            data=source,
            out=run,
            preset=table.preset,
            steps=steps,
            seed=seed,
            changes=changes,
            shown=False,
        )
        metric = "stacked_modes" if name.endswith("stacked") else "modes"
        figures = gan_image.evaluate(run, data=source, count=table.samples, seed=seed, metrics=[metric])
    return dict(figures["metrics"][metric]) | {"seconds": round(time.perf_counter() - start)}


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns means and standard errors of the figures over the runs."""
    names = [name for name in ("modes_found", "high_quality", "kl") if name in runs[0]]
    of = {name: [run[name] for run in runs] for name in names}
    errors = {
        name: stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan for name, values in of.items()
    }
    return (
        {"modes": runs[0]["modes"]}
        | {
            name: {
                "mean": round(mean(values), 4),
                "standard_error": round(errors[name], 4),
                "runs": [round(v, 4) for v in values],
            }
            for name, values in of.items()
        }
        | {"seconds_a_run": round(mean(run["seconds"] for run in runs))}
    )


def table(figures: Mapping[str, Any], name: str) -> str:
    """Formats one of the tables of the results page."""

    def shown(value: Mapping[str, Any], form: str, unit: float = 1) -> str:
        return f"{unit * value['mean']:{form}} ± {unit * value['standard_error']:{form}}"

    rows = []
    for method, found in figures[name].items():
        row = [method, shown(found["modes_found"], ".1f")]
        row += [shown(found["high_quality"], ".1f", 100) + " %"] if "high_quality" in found else []
        rows.append([*row, shown(found["kl"], ".2f")])
    found = next(iter(figures[name].values()))
    quality = ["near a mode"] if "high_quality" in found else []
    return markdown([name, f"modes of {found['modes']:,}", *quality, "reverse KL"], rows)


def main() -> None:
    """Trains and scores each method with each seed, and records the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    options = parser.parse_args()
    torch.set_num_threads(1)
    progress = Progress(options.progress)
    found = {
        name: {
            method: [
                progress.take(f"{name}, {method}, {seed}", partial(measure, name, method, seed))
                for seed in TABLES[name].seeds
            ]
            for method in TABLES[name].methods
        }
        for name in options.only
    }
    figures = {name: {method: summary(runs) for method, runs in ways.items()} for name, ways in found.items()}
    if options.only == list(TABLES):
        record("modes", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
