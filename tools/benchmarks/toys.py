"""WGAN-GP on toy distributions: modes found (protocol of PacGAN), samples near a mode, mean and deviation; 5 seeds."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from _record import record

import gan_image
from gan_core.api import evaluate

SAMPLES = 2500
"""Number of samples that are scored, as in PacGAN (arXiv:1712.04086, section 4.1)."""
WGAN_GP: dict[str, Any] = {
    "objective": "wasserstein",
    "regularizers.gradient_penalty.weight": 0.1,
    "players.discriminator.turns": 5,
    "optimizer": {"learning_rate": 1e-3, "betas": [0.0, 0.9], "schedule": {"name": "linear"}},
    "train.sample_every": None,
    "train.checkpoint_every": None,
    "train.ema": 0.99,
}
"""Changes to the preset `small` of `gan`; the weight of the penalty is that of the authors' toy code."""
STEPS = {"ring": 3000, "grid": 4000, "gaussian-1d": 1000}
NETWORK = {"ring": {"width": 128}, "grid": {"width": 256}, "gaussian-1d": {"width": 64}}


def measure(data: str, seed: int) -> dict[str, Any]:
    """Trains once and returns the metrics."""
    start = time.perf_counter()
    changes = WGAN_GP | {f"network.{name}": value for name, value in NETWORK[data].items()}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        gan_image.train("gan", data=data, out=run, steps=STEPS[data], seed=seed, changes=changes, shown=False)
        metrics = evaluate(run, data=data, count=SAMPLES, seed=seed)["metrics"]
    figures = {name: value for metric in metrics.values() for name, value in metric.items()}
    print(data, seed, figures, flush=True)
    return figures | {"seed": seed, "seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    """Trains on each distribution with each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", nargs="*", default=list(STEPS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for data in options.data:
        runs = [measure(data, seed) for seed in range(options.seeds)]
        figures[data] = {
            "modes": runs[0]["modes"],
            "modes_found": [run["modes_found"] for run in runs],
            "high_quality_mean": round(mean(run["high_quality"] for run in runs), 4),
            "mean_of_samples": [round(run["mean_of_samples"], 4) for run in runs],
            "std_of_samples": [round(run["std_of_samples"], 4) for run in runs],
            "mean_of_data": round(runs[0]["mean_of_data"], 4),
            "std_of_data": round(runs[0]["std_of_data"], 4),
            "steps": STEPS[data],
            "seconds_a_run": round(mean(run["seconds"] for run in runs), 1),
        }
    record("toys", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
