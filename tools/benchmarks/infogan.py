"""Meaning of InfoGAN's codes on the scanned digits: `infogan`, preset `small`, 16×16; 3 seeds.

Clustering accuracy: Q predicts the category of each of the 1,797 real digits. Categories are matched with classes one
to one by the Hungarian method; the accuracy is the fraction of digits that agree. The largest class contains 10.2 % of
the digits. Labels are not used in training. Continuous codes: each goes from -2 to 2 in 10 steps for every category
and 20 noise vectors. The figures are the mean rank correlations of the code with the slant of the ink (shear, from
second moments) and with its width (standard deviation, in pixels). The picture is the traversal of the first seed: a
row for each category, along which the code with the larger effect on the slant changes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from _record import RESULTS, record
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from torch import Tensor

import gan_image
from gan_core.data import ImageSpec, length, read, to_device
from gan_image.media import write_samples
from gan_image.systems.information import InfoGAN

NOISES, SEEDS = 20, 3
"""Number of noise vectors per code, and number of runs."""


def clustering_accuracy(game: InfoGAN) -> float:
    """Returns the accuracy of Q's category on real digits, with categories and classes matched one to one."""
    data = gan_image.open_data("digits").fit(ImageSpec(image_size=16, channels=1))
    batch = to_device(next(read(data, range(length(data)), length(data))), torch.device("cpu"))
    with torch.no_grad():
        logits, _, _ = game.posterior(game.trunk(batch["image"]))
    agreement = np.zeros((game.categories, 10))
    np.add.at(agreement, (logits.argmax(dim=1).numpy(), batch["label"].numpy()), 1)
    return float(agreement[linear_sum_assignment(-agreement)].sum() / len(batch["label"]))


def shape_of(images: Tensor) -> dict[str, Tensor]:
    """Computes the slant (shear) and the width (standard deviation in pixels) of the ink, `[N]` each.

    Args:
        images: `[N, 1, S, S]` in [-1, 1].
    """
    ink = (images[:, 0] + 1) / 2
    ink = ink / ink.sum(dim=(1, 2), keepdim=True)
    side = torch.arange(ink.shape[-1], dtype=ink.dtype)
    x, y = side[None, None, :], side[None, :, None]
    dx, dy = (axis - (ink * axis).sum(dim=(1, 2), keepdim=True) for axis in (x, y))
    slant = -(ink * dx * dy).sum(dim=(1, 2)) / (ink * dy * dy).sum(dim=(1, 2))  # positive to the right
    return {"slant": slant, "width": (ink * dx * dx).sum(dim=(1, 2)).sqrt()}


def movement(game: InfoGAN, code: int) -> dict[str, float]:
    """Returns the mean rank correlations of a continuous code with slant and width."""
    found: dict[str, list[float]] = {"slant": [], "width": []}
    for seed in range(NOISES):
        for name, values in shape_of(game.traverse(code, seed=seed)).items():
            rows = values.reshape(game.categories, -1).numpy()
            found[name] += [float(spearmanr(np.arange(row.size), row).statistic) for row in rows]
    return {name: round(mean(values), 3) for name, values in found.items()}


def measure(seed: int) -> tuple[dict[str, Any], Tensor]:
    """Trains once and returns the figures and a traversal."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        changes = {"train.sample_every": None, "train.checkpoint_every": None}
        run = gan_image.train(
            "infogan", data="digits", out=Path(folder) / "run", seed=seed, changes=changes, shown=False
        )
        game = gan_image.load(run.path)
        steps = run.recipe.train.steps
    assert isinstance(game, InfoGAN)
    codes = [movement(game, code) for code in range(game.continuous)]
    slanting = max(range(game.continuous), key=lambda code: abs(codes[code]["slant"]))
    figures = {
        "seed": seed,
        "clustering_accuracy": round(clustering_accuracy(game), 4),
        "codes": codes,
        "steps": steps,
        "seconds": round(time.perf_counter() - start),
    }
    print(figures, flush=True)
    return figures, game.traverse(slanting)


def main() -> None:
    """Trains with each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(seed) for seed in range(options.seeds)]
    write_samples({"traversal": found[0][1]}, RESULTS / "infogan", columns=10)
    accuracies = [figures["clustering_accuracy"] for figures, _ in found]
    table = {"clustering_accuracy_mean": round(mean(accuracies), 4), "runs": [figures for figures, _ in found]}
    record("infogan", table, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
