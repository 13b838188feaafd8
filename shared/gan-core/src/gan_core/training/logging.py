"""Logging: terms are summed on the device, read once per interval, and sent to the terminal and to trackers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text
from torch import Tensor

from gan_core.distributed import Processes, rows_of_all
from gan_core.errors import MissingDependency, escaped, say, unknown
from gan_core.play.objectives import Terms

SECONDS = 5.0
"""Time between two printed lines of progress, in seconds."""
SHORT_NAMES = {"discriminator": "D", "generator": "G"}
"""Names of players in the terminal; others keep their name."""
ACRONYM = 3
"""Maximum length of the name of a figure that is written in capitals, such as `FID`."""
TITLE = 24
"""Maximum width of the title, in characters."""
FIXED = Column(no_wrap=True, overflow="fold", justify="right")
"""Style of the columns of the bar that are never truncated."""


class LossMeans:
    """Means of the terms since the last line of the log. Reading them synchronises with the device; adding does not."""

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
        """Clears the sums for the next interval."""
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
    """Progress of training on standard error.

    In a terminal or a notebook, it shows a bar with the step, the percentage and the remaining time, and below it each
    player's main loss and the main figure of the last evaluation; the log has the rest. Elsewhere, it prints lines of
    text: the first, the last, and in between one every `SECONDS`, with or without a new line of the log.

    Args:
        title: name of the game.
        steps: planned number of steps.
        shown: whether anything is shown.
        done: number of steps that are already completed.
    """

    def __init__(self, title: str, steps: int, *, shown: bool, done: int = 0):
        self.title, self.steps, self.shown = escaped(title), steps, shown
        self.console = Console(stderr=True)
        self.live = shown and (self.console.is_terminal or in_notebook(self.console))
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=TITLE)),
            BarColumn(bar_width=None, table_column=Column(min_width=5, ratio=1)),
            MofNCompleteColumn(table_column=FIXED),
            TaskProgressColumn(table_column=FIXED),
            TimeElapsedColumn(table_column=FIXED),
            TimeRemainingColumn(table_column=FIXED),
        )
        self.bar = Progress(*columns, console=self.console, expand=True)
        self.task = self.bar.add_task(title, total=steps, completed=done)
        self.values = Text(no_wrap=True, overflow="ellipsis")
        self.screen = Live(Group(self.bar, self.values), console=self.console, refresh_per_second=4)
        self.printed = 0.0  # time of the last printed line
        self.waiting: str | None = self._line(done, "")  # last line, if it has not been printed
        self.losses, self.figure = "", ""

    def __enter__(self) -> Self:
        if self.live:
            self.screen.start()
        self._print_waiting()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.screen.refresh()  # in a notebook, `stop` leaves the display as it is
            self.screen.stop()
        self._print_waiting()

    def step(self, step: int, progress: float) -> None:
        """Updates the bar with the completed steps, and with the total number of steps predicted from `progress`."""
        self.steps = max(step, round(step / progress))
        if self.live:
            self.bar.update(self.task, completed=step, total=self.steps)
        elif self.shown and time.monotonic() - self.printed >= SECONDS:
            self.waiting = self.waiting or self._line(step, "")
            self._print_waiting()

    def line(self, line: Mapping[str, Any]) -> None:
        """Shows a line of the log."""
        self.losses = "  ".join(f"{name} {value:.3g}" for name, value in main_losses(line).items())
        self._show_values()
        if self.shown and not self.live:
            speed = f"{line['samples_per_second']:.0f} samples/s"
            self.waiting = self._line(
                line["step"], "  ".join(["", line["phase"], *filter(None, [self._values]), speed])
            )
            if time.monotonic() - self.printed >= SECONDS:
                self._print_waiting()

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """Reports the figures of an evaluation."""
        figures = {name.removeprefix("evaluation/"): value for name, value in line.items() if "evaluation/" in name}
        named = [f"{name.upper() if len(name) <= ACRONYM else name} {value:.3g}" for name, value in figures.items()]
        self.figure = named[0] if named else ""
        self._show_values()
        self._report(f"step {line['step']}: {'  '.join(named)}")

    @property
    def _values(self) -> str:
        return "  ".join(filter(None, (self.losses, self.figure)))

    def _show_values(self) -> None:
        if self.live:
            self.values.plain = self._values

    def _line(self, step: int, rest: str) -> str:
        return f"{self.title} {step}/{self.steps} {step / self.steps:.0%}{rest}"

    def ended(self, reason: str, step: int) -> None:
        """Reports why the regime ended training."""
        self._report(f"ended at step {step}: {reason}")

    def interrupted(self, signal: str, step: int) -> None:
        """Reports the signal that interrupted training."""
        self._report(f"interrupted by {signal} at step {step}; continue with `resume`")

    def _report(self, sentence: str) -> None:
        self._print_waiting()
        if self.live:
            self.console.print(escaped(f"{self.title}: {sentence}"), markup=False, highlight=False)
        elif self.shown:
            say(f"{self.title}: {sentence}")

    def _print_waiting(self) -> None:
        if self.waiting is not None and self.shown and not self.live:
            say(self.waiting)
            self.printed, self.waiting = time.monotonic(), None


def main_losses(line: Mapping[str, Any]) -> dict[str, float]:
    """Returns a loss term of each player in a line of the log, by its short name: an adversarial one, if any."""
    found: dict[str, float] = {}
    for name in sorted(line, key=lambda each: (not each.endswith("/adversarial"), each)):  # in a resumed run too
        player, slash, _ = name.partition("/")
        if slash:
            found.setdefault(SHORT_NAMES.get(player, player), line[name])
    return found


def in_notebook(console: Console) -> bool:
    """Returns whether rich can update a display in place in a Jupyter notebook, which requires ipywidgets."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


def check_trackers(names: Sequence[str], folder: Path) -> None:
    """Checks that experiment trackers are available, before anything is written.

    Raises:
        RecipeError: accelerate has no tracker of that name.
        MissingDependency: the tracker's library is not installed.
    """
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
        if not filter_trackers([name], folder):
            raise MissingDependency(f"the tracker `{name}` needs its library: pip install {name}")


class Trackers:
    """Experiment trackers from accelerate. They start on construction and finish when the context exits.

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
