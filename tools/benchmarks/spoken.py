"""Spoken digits by WaveGAN, with phase shuffle and without: one budget, one seed each.

The Free Spoken Digit Dataset's 2,000 recordings at 8 kHz (four speakers), half a second of each (4,096 samples). The
preset `small`, told the digit, with the changes below; 2 is the published radius of phase shuffle. 2,000 samples of the
averaged weights, 200 of each digit, are measured by a classifier that has learnt the recordings' digits: the share that
it recognises, the inception score, and the Fréchet distance of its features; and by their mean spectrum, whose distance
is in dB. `real` are the recordings themselves: of the spectrum, one half beside the other. The picture has 5 samples of
each digit, a column a digit: above with phase shuffle, below without; the sounds are beside it.
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
from _tables import markdown, show

import gan_audio
from gan_audio.media import write_samples

DIGITS, COUNT, ROWS = 10, 2000, 5
METRICS = ["recognition", "fid", "inception_score", "spectrum"]
CHANGES: dict[str, Any] = {"network.num_classes": DIGITS, "train.sample_every": 1000, "train.checkpoint_every": 1000}
RUNS = {"phase shuffle": 2, "without": 0}


def by_digit(data: Path, folder: Path) -> Path:
    """The recordings in a folder for each digit, which their names begin with."""
    for recording in sorted(data.glob("*.wav")):
        (folder / recording.name[0]).mkdir(exist_ok=True, parents=True)
        shutil.copy(recording, folder / recording.name[0])
    return folder


def measure(data: Path, radius: int, steps: int, model: Path) -> dict[str, Any]:
    """One training, and its figures; its model is kept."""
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
    """What the README shows."""
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
    """Trains and measures both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--progress", type=Path, help="a file where results are kept, to go on from")
    parser.add_argument("--models", type=Path, help="a folder where the runs are kept", required=True)
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
        show("spoken", table(figures))


if __name__ == "__main__":
    main()
