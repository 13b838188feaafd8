"""Time of a step with a regularizer divided by that without: `dcgan`, digits at 32×32, batch size 64, one thread.

Two runs alternate step by step in one process. Processor times are compared, so that other load affects neither or
both. The ratio of a step is its time divided by that of the preceding plain step; the figure is the median. For a
regularizer with an interval, the medians of steps with and without it are averaged with their frequencies.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _record import record
from _tables import markdown

import gan_image
from gan_core.api import write_arrays
from gan_core.data import FittedData
from gan_core.play.regularizers import REGULARIZERS, Lazy
from gan_core.runs.run import Run
from gan_core.training.regime import Regime
from gan_core.training.trainer import Trainer

OTHERS: dict[str, dict[str, Any]] = {
    "r1.interval=16": {"regularizers.r1.interval": 16},
    "path_length.interval=1": {"regularizers.path_length.interval": 1},
    "consistency.fake_weight=10": {"regularizers.consistency.fake_weight": 10.0},
    "unrolled.first_order=true": {"regularizers.unrolled.first_order": True},
    "network.pack=2": {"network.pack": 2},
    "optimizer.clip_norm=1": {"optimizer.clip_norm": 1.0},
}
"""Regularizers with other than default settings, and settings elsewhere that have a similar role."""
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    **{name: {f"regularizers.{name}": {}} for name in REGULARIZERS},
    **OTHERS,
}
WARM = 4
"""Number of warm-up steps, which are not counted."""


class Steps(Trainer):
    """A training run that is timed step by step."""

    def seconds(self) -> Iterator[float]:
        """Runs steps endlessly and yields the processor time of each."""
        while True:
            self.enter_due()
            start = time.process_time()
            self.play_step()
            yield time.process_time() - start


def training(changes: Mapping[str, Any], folder: Path) -> Steps:
    """Returns a training run of the preset `small` with changes, before its first step."""
    preset, source = gan_image.DOMAIN.preset("dcgan"), gan_image.open_data("digits")
    recipe = preset.recipe(domain="image", system="dcgan", preset="small").but({"train.ema": None, **changes})
    recipe = preset.complete(recipe, source.facts)
    torch.manual_seed(0)
    game = preset.build(recipe)
    data = FittedData(source, game.spec)
    return Steps(game, recipe, data, Run(folder), write_samples=write_arrays, regime=Regime(), shown=False)


def interval(steps: Steps) -> int:
    """Returns the interval of a run's regularizer; 1 if it has none."""
    kinds = [(REGULARIZERS[name], fields) for name, fields in steps.recipe.regularizers.items()]
    return next((int(fields["interval"]) for kind, fields in kinds if issubclass(kind, Lazy)), 1)


def compare(changes: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Measures a case over `steps` steps, or more until the regularizer has been computed in 8 of them."""
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = training(changes, Path(folder)), training({}, Path(folder))
    every = interval(ours)
    played = zip(range(WARM + max(steps, 8 * every)), plain.seconds(), ours.seconds(), strict=False)
    timed = [(b / a, a, step) for step, a, b in played][WARM:]
    due = median(ratio for ratio, _, step in timed if step % every == 0)
    others = median([ratio for ratio, _, step in timed if step % every] or [due])
    figures = {
        "ratio": (due + (every - 1) * others) / every,
        "ratio_of_a_step_with_it": due,
        "plain_seconds_a_step": median(seconds for _, seconds, _ in timed),
    }
    return {"interval": every, "steps": len(timed), **{name: round(value, 4) for name, value in figures.items()}}


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results page."""
    rows = []
    for case, measured in figures.items():
        every = measured["interval"]
        taken = f"{measured['ratio_of_a_step_with_it']:.2f} every {every} steps" if every > 1 else ""
        rows.append((case if case == "none" else f"`{case}`", f"{measured['ratio']:.2f}", taken))
    return markdown(["with", "a step's time", "of a step in which it is taken"], rows)


def main() -> None:
    """Measures each case and records the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for case, changes in CASES.items():
        figures[case] = compare(changes, options.steps)
        print(case, json.dumps(figures[case]), flush=True)
    record("regularizers", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
