"""What is logged: terms summed on the device, read once an interval, and shown on a terminal and to trackers."""

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
from gan_core.game import Terms


class Ledger:
    """Means of the terms since the last line of the log. Adding to it waits for no device; reading it does, once."""

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
        """The mean of every term, over the steps and the processes."""
        if not self.sums:
            return {}
        sums = processes.mean(torch.stack(list(self.sums.values()))).tolist()
        return {name: total / self.counts[name] for name, total in zip(self.sums, sums, strict=True)}

    def clear(self) -> None:
        """Starts the next interval."""
        self.sums, self.counts = {}, {}

    def state(self) -> dict[str, tuple[list[float], int]]:
        """The interval that has begun, as plain values: of each term the sum in every process, and the count."""
        if not self.sums:
            return {}
        everyone, _ = rows_of_all(torch.stack(list(self.sums.values()))[None])  # [processes, terms]
        sums = zip(self.sums, everyone.T.tolist(), strict=True)
        return {name: (values, self.counts[name]) for name, values in sums}

    def load(self, state: Mapping[str, tuple[list[float], int]], processes: Processes) -> None:
        """Takes up an interval that was saved; by another number of processes, the mean of theirs."""
        self.clear()
        for name, (values, count) in state.items():
            mine = values[processes.rank] if len(values) == processes.count else sum(values) / len(values)
            self.sums[name], self.counts[name] = torch.tensor(mine, device=processes.device), count


class Display:
    """The training on standard error: a bar on a terminal, else a line for every line of the log."""

    def __init__(self, title: str, steps: int, *, shown: bool):
        self.title, self.steps, self.shown = title, steps, shown
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[figures]}"),
        )  # fmt: skip
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
        """Moves the bar to a step, and its end to the step that the run's completed fraction points to."""
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
        """Says why the training ended before its limits."""
        if self.shown:
            self.bar.console.print(f"{self.title}: ended at step {step}: {sentence}", markup=False)

    def interrupted(self, why: str, step: int) -> None:
        """Says what ended the training early."""
        if self.shown:
            self.bar.console.print(f"{self.title}: interrupted by {why} at step {step}; `resume` goes on", markup=False)


def check_trackers(names: Sequence[str], folder: Path) -> None:
    """Makes sure that experiment trackers can be used, before anything is written.

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
    """Experiment trackers, by accelerate's classes; within it, they track.

    Args:
        names: the trackers'.
        folder: the run's.

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
