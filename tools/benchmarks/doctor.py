"""Detection rate and false alarms of the doctor.

Each case, made to fail in one way or healthy, is trained with 3 seeds. The symptoms that a run really has are measured
on its weights and samples at each tenth of the training (`_ailments.py`); the doctor does not use these measures, and
their thresholds were set before the runs were measured. The symptoms are: samples with half the data's kinds or fewer,
by a classifier or the nearest mode (collapse); a discriminator that ranks all samples below the data, or above it,
while the samples are hardly closer to the data than the data's mean; training items that are ranked above unseen ones
(memory); gradient norms on a new batch that are 100 times those of the untrained game, or a hundredth of the largest;
and kinds of samples that change from one tenth to the next (oscillation). The thresholds in `gan_core.runs.symptoms`
were chosen on runs with other seeds. Some cases were added after results of others with seed 0 were known; all are
included, with the symptom for which they were written.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from _ailments import SAMPLES, TENTHS, Reference, ailments
from _record import Progress, record
from _tables import markdown
from torch.utils.data import Dataset

import gan_image
from gan_core.data import Batch, BatchStream, ImageSpec, Source, Spec, TensorDataset, TensorSource, hold_out
from gan_core.errors import NonFiniteError
from gan_core.measure.classification import recognise
from gan_core.measure.image_classifier import learn_image_classes
from gan_core.runs.record import read_run
from gan_core.runs.run import Run
from gan_core.runs.symptoms import SYMPTOMS, find_symptoms
from gan_image.sources import PointSource

SEEDS = (100, 101, 102)
FEW = 128
"""Number of images that a discriminator can memorise."""
HELD_OUT = 0.2
COMMON: dict[str, Any] = {"train.ema": None, "train.log_every": 10}
DIGITS: dict[str, Any] = {
    "network.image_size": 16,
    "network.width": 16,
    "train.batch_size": 32,
    "train.steps": 800,
    "train.sample_every": 400,
}
RESIDUAL: dict[str, Any] = {
    "network.generator.width": 16,
    "network.discriminator.width": 16,
    "train.batch_size": 32,
    "train.steps": 200,
    "train.sample_every": 100,
}
POINTS: dict[str, Any] = {"network.width": 64, "train.batch_size": 128, "train.steps": 2000, "train.sample_every": 1000}
MLP: dict[str, Any] = {"network.width": 128, "train.batch_size": 64, "train.steps": 1500, "train.sample_every": 500}


def rates(generator: float, discriminator: float) -> dict[str, Any]:
    """Returns settings of the players' learning rates."""
    return {
        "players.generator.optimizer.learning_rate": generator,
        "players.discriminator.optimizer.learning_rate": discriminator,
    }


SGD: dict[str, Any] = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}
Case = tuple[str | None, str, str, dict[str, Any]]
FAILING: dict[str, Case] = {
    "dcgan, gradient descent at rate 100": (
        "finite",
        "dcgan",
        "digits",
        DIGITS | {"optimizer": SGD | {"learning_rate": 100.0}},
    ),
    "gan on the ring, Wasserstein without a bound, gradient descent at rate 10": (
        "finite",
        "gan",
        "ring",
        POINTS | {"objective": "wasserstein", "optimizer": SGD | {"learning_rate": 10.0}},
    ),
    "gan on the grid, the discriminator 1,000 times slower": ("collapse", "gan", "grid", POINTS | rates(1e-2, 1e-5)),
    "gan on the grid, hinge, the discriminator hardly learns": (
        "collapse",
        "gan",
        "grid",
        POINTS | {"objective": "hinge"} | rates(1e-2, 1e-7),
    ),
    "dcgan, the generator has 10 turns": (
        "collapse",
        "dcgan",
        "digits",
        DIGITS | {"players.generator.turns": 10, "train.steps": 300},
    ),
    "dcgan, the discriminator 100 times slower": (
        "collapse",
        "dcgan",
        "digits",
        DIGITS | rates(5e-3, 5e-5) | {"train.steps": 500},
    ),
    "dcgan, the generator hardly learns": ("discriminator", "dcgan", "digits", DIGITS | rates(1e-7, 1e-3)),
    "gan on digits, hinge, the generator hardly learns": (
        "discriminator",
        "gan",
        "digits",
        MLP | rates(1e-7, 1e-3) | {"objective": "hinge"},
    ),
    "dcgan, the discriminator hardly learns": ("discriminator", "dcgan", "digits", DIGITS | rates(2e-3, 1e-7)),
    "lsgan, the discriminator hardly learns": ("discriminator", "lsgan", "digits", DIGITS | rates(2e-3, 1e-7)),
    "gan on the ring, hinge, the discriminator hardly learns": (
        "discriminator",
        "gan",
        "ring",
        POINTS | {"objective": "hinge"} | rates(1e-3, 1e-7),
    ),
    "dcgan, 16 wide, on 128 images": ("memory", "dcgan", "few", DIGITS | {"train.steps": 1500}),
    "gan on 128 images": ("memory", "gan", "few", MLP),
    "gan on 128 images, R1": ("memory", "gan", "few", MLP | {"regularizers.r1": {"weight": 0.1}}),
    "gan on 128 images, the discriminator 10 times faster": ("memory", "gan", "few", MLP | rates(1e-4, 1e-3)),
    "dcgan on 128 images": ("memory", "dcgan", "few", DIGITS | {"network.width": 32, "train.steps": 1500}),
    "dcgan on 128 images, hinge": (
        "memory",
        "dcgan",
        "few",
        DIGITS | {"network.width": 32, "train.steps": 1500, "objective": "hinge"},
    ),
    "gan on the ring, Wasserstein without a bound": (
        "gradients",
        "gan",
        "ring",
        POINTS | {"objective": "wasserstein", "optimizer.learning_rate": 1e-2},
    ),
    "dcgan, minimax, the discriminator 20 times faster": (
        "gradients",
        "dcgan",
        "digits",
        DIGITS | rates(1e-4, 2e-3) | {"objective": "minimax"},
    ),
    "gan on the ring, momentum": (
        "oscillation",
        "gan",
        "ring",
        POINTS | {"optimizer.learning_rate": 1e-3, "optimizer.betas": [0.9, 0.999]},
    ),
    "gan on the ring, hinge, momentum": (
        "oscillation",
        "gan",
        "ring",
        POINTS | {"objective": "hinge", "optimizer.learning_rate": 1e-3, "optimizer.betas": [0.9, 0.999]},
    ),
    "gan on the grid, momentum": (
        "oscillation",
        "gan",
        "grid",
        POINTS | {"optimizer.learning_rate": 1e-3, "optimizer.betas": [0.9, 0.999]},
    ),
    "gan on the ring, momentum, rate 5e-3": (
        "oscillation",
        "gan",
        "ring",
        POINTS | {"optimizer.learning_rate": 5e-3, "optimizer.betas": [0.9, 0.999]},
    ),
    "gan on the grid, momentum, rate 3e-3": (
        "oscillation",
        "gan",
        "grid",
        POINTS | {"optimizer.learning_rate": 3e-3, "optimizer.betas": [0.9, 0.999]},
    ),
    "gan on the ring, minimax, gradient descent at rate 0.02": (
        "oscillation",
        "gan",
        "ring",
        POINTS | {"objective": "minimax", "optimizer": SGD | {"learning_rate": 0.02}},
    ),
    "gan on the grid, minimax, gradient descent at rate 0.01": (
        "oscillation",
        "gan",
        "grid",
        POINTS | {"objective": "minimax", "optimizer": SGD | {"learning_rate": 0.01}},
    ),
    "gan on the grid, minimax, gradient descent with momentum": (
        "oscillation",
        "gan",
        "grid",
        POINTS | {"objective": "minimax", "optimizer": SGD},
    ),
}
"""Symptom, system, data and changes of each case that is made to fail."""
HEALTHY: dict[str, Case] = {
    "dcgan": (None, "dcgan", "digits", DIGITS),
    "dcgan with classes": (
        None,
        "dcgan",
        "digits",
        DIGITS | {"network.num_classes": 10, "network.width": 32, "train.batch_size": 64},
    ),
    "dcgan with classes, 16 wide": (None, "dcgan", "digits", DIGITS | {"network.num_classes": 10}),
    "lsgan": (None, "lsgan", "digits", DIGITS),
    "dragan": (None, "dcgan", "digits", DIGITS | {"regularizers.dragan": {}}),
    "dcgan, least squares, R1": (
        None,
        "dcgan",
        "digits",
        DIGITS | {"objective": "least_squares", "regularizers.r1": {}},
    ),
    "wgan-gp": (None, "wgan-gp", "digits", RESIDUAL),
    "sngan": (None, "sngan", "digits", RESIDUAL),
    "gan on digits, R1": (None, "gan", "digits", MLP | {"regularizers.r1": {}}),
    "gan on the grid, WGAN-GP": (
        None,
        "gan",
        "grid",
        POINTS
        | {"objective": "wasserstein", "regularizers.gradient_penalty.weight": 0.1, "players.discriminator.turns": 3},
    ),
    "gan on the ring, relativistic, R1 and R2": (
        None,
        "gan",
        "ring",
        POINTS | {"objective": "relativistic", "regularizers.r1.weight": 0.1, "regularizers.r2.weight": 0.1},
    ),
    "pacgan on the grid": (None, "pacgan", "grid", {"train.steps": 2000, "train.sample_every": 1000}),
    "infogan": (None, "infogan", "digits", {"train.steps": 800, "train.sample_every": 400}),
}
CASES = FAILING | HEALTHY


@cache
def digits() -> TensorDataset:
    """Returns all scanned digits."""
    return gan_image.open_data("digits").fit(ImageSpec(image_size=16, channels=1))  # type: ignore[return-value]


@cache
def few() -> tuple[Batch, Batch]:
    """Returns `FEW` digits for training, and `SAMPLES` others."""
    batch = next(BatchStream(digits(), FEW + SAMPLES, seed=0))
    return {key: value[:FEW] for key, value in batch.items()}, {key: value[FEW:] for key, value in batch.items()}


def source_of(name: str) -> Source:
    """Returns a named dataset; `few` is the training digits of `few()`."""
    return gan_image.open_data(name) if name != "few" else TensorSource({"image": few()[0]["image"]}, name=name)


def some(dataset: Dataset[Batch]) -> Batch:
    """Returns up to `SAMPLES` items of a dataset."""
    count = min(SAMPLES, len(dataset))  # type: ignore[arg-type]
    return next(BatchStream(dataset, count, seed=1))


@cache
def reference(name: str) -> Reference:
    """Returns the reference for runs on a dataset."""
    source = source_of(name)
    if isinstance(source, PointSource):
        modes = source.facts["modes"]
        nearest = lambda points: torch.cdist(points, modes.to(points)).argmin(dim=1)  # noqa: E731
        return Reference(some(source.fit(Spec())), None, "points", (nearest, len(modes)))
    every = digits().tensors
    network, _ = learn_image_classes(every["image"], every["label"], num_classes=10)
    trained, unseen = hold_out(source.fit(ImageSpec(image_size=16, channels=1)), HELD_OUT)
    others = TensorDataset(few()[1]) if name == "few" else unseen
    assert others is not None
    return Reference(some(trained), some(others), "image", (partial(recognise, network), 10))


def diagnose(case: str, seed: int) -> dict[str, Any]:
    """Trains once and returns the measured symptoms, those that the doctor finds, and those that it could not check."""
    _, system, data, changes = CASES[case]
    images = {} if data in ("ring", "grid") else {"data.held_out": HELD_OUT}
    shape = {"network.shape": [1, 16, 16]} if images and system == "gan" else {}
    kept = {"train.checkpoint_every": changes["train.steps"] // TENTHS, "train.keep_checkpoints": TENTHS}
    settings, ended, start = COMMON | changes | images | shape | kept, False, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        try:
            gan_image.train(system, data=source_of(data), out=path, seed=seed, changes=settings, shown=False)
        except NonFiniteError:  # the doctor has to find it
            ended = True
        checks = find_symptoms(read_run(path))
        has = dict.fromkeys(SYMPTOMS) | {"finite": True}
        if not ended:
            run = Run.open(path)
            has = ailments(run, gan_image.DOMAIN.preset(system, "small").build(run.recipe), reference(data))
    return {
        "has": [symptom for symptom, value in has.items() if value],
        "unknown": [symptom for symptom, value in has.items() if value is None],
        "found": {check.name: check.finding for check in checks if not check.good},
        "not looked at": [check.name for check in checks if not check.seen],
        "seconds": round(time.perf_counter() - start, 1),
    }


def counts(cases: Mapping[str, Any]) -> dict[str, dict[str, list[int]]]:
    """Returns, for each symptom, the number of runs in which it was found, and the number of all runs, by group.

    The groups are runs that were made to have the symptom, runs that have it, and runs that do not.
    """
    runs = [(case["symptom"], run) for case in cases.values() for run in case["runs"]]
    rows = {}
    for symptom in SYMPTOMS:
        known = [run for _, run in runs if symptom not in run["unknown"]]
        groups = {
            "made to": [run for meant, run in runs if meant == symptom],
            "have it": [run for run in known if symptom in run["has"]],
            "do not": [run for run in known if symptom not in run["has"]],
        }
        rows[symptom] = {
            name: [sum(symptom in run["found"] for run in group), len(group)] for name, group in groups.items()
        }
    return rows


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results page."""
    rows = [
        [f"`{symptom}`", *("{} of {}".format(*count) for count in row.values())]
        for symptom, row in figures["found by symptom"].items()
    ]
    rows.append(["any of them, in healthy runs", "", "", f"{figures['false alarms']} of {figures['healthy runs']}"])
    return markdown(["found", "in runs made to have it", "that have it by measure", "that do not"], rows)


def main() -> None:
    """Trains and diagnoses each case with each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    parser.add_argument(
        "--cases",
        nargs="*",
        default=list(CASES),
        choices=list(CASES),
        help="cases to measure; with this option nothing is recorded",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    progress = Progress(options.progress)
    found = {
        case: [progress.take(f"{case} {seed}", partial(diagnose, case, seed)) for seed in options.seeds]
        for case in options.cases
    }
    cases = {case: {"symptom": CASES[case][0], "runs": runs} for case, runs in found.items()}
    healthy = [run for case in HEALTHY if case in found for run in found[case]]
    figures = {
        "seeds": options.seeds,
        "found by symptom": counts(cases),
        "false alarms": sum(bool(run["found"]) for run in healthy),
        "healthy runs": len(healthy),
        "cases": cases,
    }
    if options.cases == list(CASES):
        record("doctor", figures, " ".join((__doc__ or "").split()))
    else:
        print(figures["found by symptom"])


if __name__ == "__main__":
    main()
