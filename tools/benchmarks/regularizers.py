"""A step's time with a regularizer over that without, `dcgan` at 32x32 on the digits, batch 64, one thread.

Two trainings go on in one process, a step of the one after a step of the other, and the processor's time is taken, so
that what else the machine does slows neither, or both alike. A step's ratio is its seconds over those of the plain step
before it. A figure is the median of the steps' ratios; of what is taken at an interval, the medians of the steps with
it and of those without, each with its share.
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
from _tables import markdown, show

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
"""Regularizers otherwise than by default, and what is set elsewhere."""
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    **{name: {f"regularizers.{name}": {}} for name in REGULARIZERS},
    **OTHERS,
}
WARM = 4
"""The first steps, which are not counted."""


class Steps(Trainer):
    """A training of which a step is taken when its seconds are asked for."""

    def seconds(self) -> Iterator[float]:
        """Of the processor, step by step without end."""
        while True:
            self.enter_due()
            start = time.process_time()
            self.play_step()
            yield time.process_time() - start


def training(changes: Mapping[str, Any], folder: Path) -> Steps:
    """The `small` preset's training with some changes, about to begin."""
    preset, source = gan_image.DOMAIN.preset("dcgan"), gan_image.open_data("digits")
    recipe = preset.recipe(domain="image", system="dcgan", preset="small").but({"train.ema": None, **changes})
    recipe = preset.complete(recipe, source.facts)
    torch.manual_seed(0)
    game = preset.build(recipe)
    data = FittedData(source, game.spec)
    return Steps(game, recipe, data, Run(folder), write_samples=write_arrays, regime=Regime(), shown=False)


def interval(steps: Steps) -> int:
    """Of the steps at which a training's regularizer is taken."""
    kinds = [(REGULARIZERS[name], fields) for name, fields in steps.recipe.regularizers.items()]
    return next((int(fields["interval"]) for kind, fields in kinds if issubclass(kind, Lazy)), 1)


def compare(changes: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """A case's figures over so many steps, or over 8 in which it is taken, if those are more."""
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
    """What the README shows of the figures."""
    rows = []
    for case, measured in figures.items():
        every = measured["interval"]
        taken = f"{measured['ratio_of_a_step_with_it']:.2f} every {every} steps" if every > 1 else ""
        rows.append((case if case == "none" else f"`{case}`", f"{measured['ratio']:.2f}", taken))
    return markdown(["with", "a step's time", "of a step in which it is taken"], rows)


def main() -> None:
    """Measures every case and writes the README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for case, changes in CASES.items():
        figures[case] = compare(changes, options.steps)
        print(case, json.dumps(figures[case]), flush=True)
    record("regularizers", figures, " ".join((__doc__ or "").split()))
    show("regularizers", table(figures))


if __name__ == "__main__":
    main()
