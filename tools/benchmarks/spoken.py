"""Spoken digits by WaveGAN with and without phase shuffle, with equal budgets and one seed each.

The data are the 2,000 recordings of the Free Spoken Digit Dataset (four speakers, 8 kHz), of which half a second (4,096
samples) is used. The preset `small` is conditioned on the digit and has the changes below; 2 is the published radius of
phase shuffle. 2,000 samples of the averaged weights, 200 of each digit, are evaluated with a classifier trained on the
recordings: the fraction that it recognises, the inception score, and the Fréchet distance of its features. The distance
of the mean spectra is in dB. For the recordings, it is that between their two halves. The picture has 5 samples of each
digit, a column for each digit, with phase shuffle (above) and without (below); the sounds are in the WAV file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _record import RESULTS, Progress, record
from _tables import markdown

import gan_audio
from gan_audio.media import write_samples

DIGITS, COUNT, ROWS = 10, 2000, 5
METRICS = ["recognition", "fid", "inception_score", "spectrum"]
CHANGES: dict[str, Any] = {"network.num_classes": DIGITS, "train.sample_every": 1000, "train.checkpoint_every": 1000}
RUNS = {"phase shuffle": 2, "without": 0}


def by_digit(data: Path, folder: Path) -> Path:
    """Copies the recordings to a folder for each digit, the first character of their names."""
    for recording in sorted(data.glob("*.wav")):
        (folder / recording.name[0]).mkdir(exist_ok=True, parents=True)
        shutil.copy(recording, folder / recording.name[0])
    return folder


def measure(data: Path, radius: int, steps: int, model: Path) -> dict[str, Any]:
    """Trains once, copies the run to `model`, and returns the metrics."""
    with tempfile.TemporaryDirectory() as folder:
        digits, run = by_digit(data, Path(folder) / "digits"), Path(folder) / "run"
        start = time.perf_counter()
        changes = CHANGES | {"network.discriminator": {"phase_shuffle": radius}}
        gan_audio.train("wavegan", data=digits, out=run, steps=steps, changes=changes, shown=False)
        seconds = time.perf_counter() - start
        found = gan_audio.evaluate(run, data=digits, metrics=METRICS, count=COUNT)
        shutil.copytree(run, model, dirs_exist_ok=True)
    return {"steps": steps, "seconds": round(seconds), **found["metrics"]}


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results page."""
    rows = []
    for name in RUNS:
        found = figures[name]
        score, spectrum = found["inception_score"]["inception_score"], found["spectrum"]["spectrum"]
        rows.append(
            [
                name,
                f"{100 * found['recognition']['accuracy']:.0f} %",
                f"{score:.2f}",
                f"{found['fid']['fid']:.2f}",
                f"{spectrum:.1f} dB",
            ]
        )
    found = figures[next(iter(RUNS))]
    rows.append(
        [
            "recordings",
            f"{100 * found['recognition']['accuracy_on_real']:.0f} %",
            "",
            "",
            f"{found['spectrum']['spectrum_of_real']:.1f} dB",
        ]
    )
    return markdown(["", "recognised", "inception score", "FID", "mean spectrum off by"], rows)


def main() -> None:
    """Trains and measures both runs, and records the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    parser.add_argument("--models", type=Path, help="folder for the runs", required=True)
    options = parser.parse_args()
    data = Path(os.environ["GAN_TEST_DATA"]) / "fsdd"
    if not data.is_dir():
        sys.exit(f"{data}: no such folder; set GAN_TEST_DATA to where fsdd/0_george_0.wav is")
    torch.set_num_threads(1)
    progress = Progress(options.progress)
    figures = {
        name: progress.take(
            f"{name}, {options.steps}", partial(measure, data, RUNS[name], options.steps, options.models / name)
        )
        for name in options.only
    }
    if options.only == list(RUNS):
        games = [gan_audio.load(options.models / name) for name in RUNS]
        rows = torch.cat([game.generate(ROWS * DIGITS, seed=0) for game in games])
        write_samples({"samples": rows}, RESULTS / "spoken", columns=DIGITS, game=games[0])
        record("spoken", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
