"""Logging: terms are summed on the device, read once per interval, and sent to the terminal and to trackers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from gan_core.distributed import Processes, rows_of_all
from gan_core.errors import MissingDependency, unknown
from gan_core.play.game import Terms


class LossMeans:
    """Means of the terms since the last line of the log. Adding does not synchronise with the device; reading does."""

    def __init__(self) -> None:
        self.sums: Terms = {}
        self.counts: dict[str, int] = {}

    def add(self, player: str, terms: Mapping[str, Tensor]) -> None:
        """Adds a turn's terms and notes, as `player/term`."""
        named = {f"{player}/{term}": value for term, value in terms.items()}
        for name in named:
            self.counts[name] = self.counts.get(name, 0) + 1
        new = {name: value.clone() for name, value in named.items() if name not in self.sums}
        old = [name for name in named if name not in new]
        if old:  # one operation for all terms
            torch._foreach_add_([self.sums[name] for name in old], [named[name] for name in old])
        self.sums |= new

    def means(self, processes: Processes) -> dict[str, float]:
        """Returns the mean of every term over steps and processes."""
        if not self.sums:
            return {}
        sums = processes.mean(torch.stack(list(self.sums.values()))).tolist()
        return {name: total / self.counts[name] for name, total in zip(self.sums, sums, strict=True)}

    def clear(self) -> None:
        """Starts the next interval."""
        self.sums, self.counts = {}, {}

    def state(self) -> dict[str, tuple[list[float], int]]:
        """Returns the current interval as plain values: each term's sum in every process, and its count."""
        if not self.sums:
            return {}
        everyone, _ = rows_of_all(torch.stack(list(self.sums.values()))[None])  # [processes, terms]
        sums = zip(self.sums, everyone.T.tolist(), strict=True)
        return {name: (values, self.counts[name]) for name, values in sums}

    def load(self, state: Mapping[str, tuple[list[float], int]], processes: Processes) -> None:
        """Restores a saved interval; if the number of processes has changed, each gets the mean of the saved sums."""
        self.clear()
        for name, (values, count) in state.items():
            mine = values[processes.rank] if len(values) == processes.count else sum(values) / len(values)
            self.sums[name], self.counts[name] = torch.tensor(mine, device=processes.device), count


class Display:
    """Progress of the training on standard error: a bar in a terminal, otherwise one line per line of the log."""

    def __init__(self, title: str, steps: int, *, shown: bool):
        self.title, self.steps, self.shown = title, steps, shown
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self.live = shown and sys.stderr.isatty()
        self.bar = Progress(*columns, console=Console(stderr=True), disable=not self.live)
        self.task = self.bar.add_task(title, total=steps, figures="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, step: int, progress: float) -> None:
        """Updates the bar: the completed steps, and the total that the completed fraction predicts."""
        self.steps = max(step, round(step / progress))
        if self.live:
            self.bar.update(self.task, completed=step, total=self.steps)

    def line(self, line: Mapping[str, Any]) -> None:
        """Shows a line of the log."""
        figures = "  ".join(f"{name} {value:.3g}" for name, value in line.items() if "/" in name)
        if self.live:
            self.bar.update(self.task, completed=line["step"], figures=figures)
        elif self.shown:
            speed = f"{line['samples_per_second']:.0f} samples/s"
            print(f"{self.title} {line['step']}/{self.steps} [{line['phase']}] {figures}  {speed}", file=sys.stderr)  # noqa: T201

    def ended(self, sentence: str, step: int) -> None:
        """Reports why the regime ended the training."""
        if self.shown:
            self.bar.console.print(f"{self.title}: ended at step {step}: {sentence}", markup=False)

    def interrupted(self, why: str, step: int) -> None:
        """Reports the signal that interrupted the training."""
        if self.shown:
            sentence = f"interrupted by {why} at step {step}; continue with `resume`"
            self.bar.console.print(f"{self.title}: {sentence}", markup=False)


def check_trackers(names: Sequence[str], folder: Path) -> None:
    """Checks that experiment trackers are available, before anything is written.

    Raises:
        RecipeError: accelerate knows no tracker of that name.
        MissingDependency: its library is not installed.
    """
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
        if not filter_trackers([name], folder):
            raise MissingDependency(f"the tracker `{name}` needs its library: pip install {name}")


class Trackers:
    """Experiment trackers, by accelerate's classes; they start at once and finish when the context ends.

    Args:
        names: names of the trackers.
        folder: run folder.

    Raises:
        RecipeError: see `check_trackers`.
    """

    def __init__(self, names: Sequence[str], folder: Path):
        check_trackers(names, folder)
        self.trackers = []
        for name in names:
            kind = LOGGER_TYPE_TO_CLASS[name]
            tracker = kind(folder.name, folder / "trackers") if kind.requires_logging_directory else kind(folder.name)
            tracker.start()
            self.trackers.append(tracker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for tracker in self.trackers:
            tracker.finish()

    def log(self, line: Mapping[str, Any]) -> None:
        """Sends a line of the log."""
        for tracker in self.trackers:
            tracker.log({name: value for name, value in line.items() if name != "step"}, step=line["step"])
