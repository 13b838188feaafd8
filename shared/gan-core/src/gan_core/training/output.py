"""Output of a training run other than checkpoints: lines of the log, pictures of samples, and evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gan_core.data import Batch, BatchStream, length
from gan_core.draws import seed_torch
from gan_core.errors import writing
from gan_core.nn.blocks import evaluating
from gan_core.play.game import Game
from gan_core.runs.lines import DIAGNOSTICS, EVALUATION
from gan_core.runs.run import Run
from gan_core.training.logging import Display, Trackers
from gan_core.training.saving import finite_figures
from gan_core.training.state import Training

Evaluate = Callable[[Game], Mapping[str, Any]]
"""Function that returns a game's figures for the log."""


class WriteSamples(Protocol):
    """Type of a domain's `media.write_samples`."""

    def __call__(self, samples: dict[str, Tensor], stem: Path, *, columns: int | None, game: Game) -> Path:
        """Writes samples to `stem` plus a suffix and returns the path; `game` defines, for example, the sample rate."""


MAX_SEARCHED, AT_ONCE = 1024, 128
"""Maximum number of items that are searched for real samples of every class, and number of items read at once."""
COLUMNS_BY_CLASS = 16
"""Maximum number of classes for which a picture of samples has one column per class."""


class Output:
    """Writer of the log, pictures and evaluations of a run. Every method must be called in all processes.

    Args:
        training: state of the training run.
        run: the run folder.
        write_samples: the domain's writer of samples.
        evaluate: returns the figures of an evaluation; None if the recipe has no evaluations.
    """

    def __init__(self, training: Training, run: Run, *, write_samples: WriteSamples, evaluate: Evaluate | None):
        self.training, self.run = training, run
        self.write_samples, self.evaluate_game = write_samples, evaluate
        self.seen_before = 0  # samples read up to the last line of the log
        self.reference = self._read_reference()

    def _read_reference(self) -> Batch:
        """Returns the batch that is shown as real samples and from which previews are generated."""
        data, device = self.training.data.plain, self.training.processes.device
        count, self.columns = picture_size(self.training.settings.show, self.training.game.num_classes)
        seed_torch(0, device)  # for items that draw from torch's generator
        return next(BatchStream(data, min(count, length(data)), seed=0, device=device))

    def show_real(self) -> None:
        """Writes the picture of real samples; if generated samples have one column per class, real ones too."""
        if self.training.processes.first:
            parts = {key: value for key, value in self.reference.items() if key != "label"}
            if self.columns is not None and len(parts) == 1 and (sorted_ := self._real_by_class()) is not None:
                parts = {"real": sorted_}
            self._write(parts, self.run.samples_folder / "real")

    def _real_by_class(self) -> Tensor | None:
        """Returns as many real samples as a picture shows, with the classes in turn; None if they are not found."""
        data, (key,) = self.training.data.plain, self.reference.keys() - {"label"}
        classes = self.training.game.num_classes or 1
        rows = len(self.reference[key]) // classes
        found: list[list[Tensor]] = [[] for _ in range(classes)]
        seed_torch(0, self.training.processes.device)
        stream = BatchStream(data, min(AT_ONCE, length(data)), seed=0, device=self.training.processes.device)
        for _ in range(-(-min(length(data), MAX_SEARCHED) // AT_ONCE)):
            batch = next(stream)
            for sample, label in zip(batch[key], batch["label"].tolist(), strict=True):
                if len(found[label]) < rows:
                    found[label].append(sample)
            if all(len(each) == rows for each in found):
                break
        if rows < 1 or any(len(each) < rows for each in found):
            return None
        return torch.stack([each[row] for row in range(rows) for each in found])

    def start(self) -> None:
        """Starts the clock and the sample count from which the speed is computed."""
        self.training.clock.start()
        self.seen_before = self.training.seen

    def log(self, display: Display, trackers: Trackers, *, last: bool) -> None:
        """Writes a line of the log if one is due. An incomplete last interval is continued if the run is resumed.

        Raises:
            NonFiniteError: a figure is not finite.
        """
        training = self.training
        due = training.step % training.log_every == 0
        if not (due or last):
            return
        figures = finite_figures(training.losses.means(training.processes) | training.regime.figures())
        if due:
            training.losses.clear()
        speed = round((training.seen - self.seen_before) / training.clock.lap(), 1)
        self.seen_before = training.seen
        line = {"step": training.step, "phase": training.schedule.phase.name, **figures, "samples_per_second": speed}
        if training.processes.first:
            self.run.append_log(line)
            trackers.log(line)
            display.line(line)

    def show(self, *, last: bool) -> None:
        """Writes a picture of samples and logs their diagnostics, if they are due."""
        training = self.training
        if not (last or is_due(training.step, training.sample_every)):
            return
        if training.processes.first:
            with self._averaged(), evaluating(training.game), torch.no_grad():
                samples, figures = training.game.preview(self.reference), training.diagnostics.figures()
            self._write(samples, self.run.sample_stem(training.step))
            if figures:
                self.run.append_log({"step": training.step, "phase": DIAGNOSTICS, **figures})
        training.processes.wait()

    def evaluate(self, display: Display, trackers: Trackers, *, last: bool) -> None:
        """Evaluates the game with the averaged weights, if it is due. The time does not count as training time."""
        training, every = self.training, self.training.settings.evaluate_every
        if self.evaluate_game is None or every is None or not (last or is_due(training.step, every)):
            return
        with training.clock.paused():
            if training.processes.first:
                with self._averaged():
                    line = {"step": training.step, "phase": EVALUATION, **self.evaluate_game(training.game)}
                self.run.append_log(line)
                trackers.log(line)
                display.evaluation(line)
            training.processes.wait()

    def _write(self, samples: dict[str, Tensor], stem: Path) -> None:
        with writing(self.run.samples_folder):
            self.write_samples(samples, stem, columns=self.columns, game=self.training.game)

    def _averaged(self) -> AbstractContextManager[None]:
        """Returns a context manager under which the game has the averaged weights, if there are any."""
        average = self.training.average
        return nullcontext() if average is None else average.in_place()


def is_due(step: int, interval: int | None) -> bool:
    """Returns whether an action with the given interval in steps is due at a step (None: never)."""
    return interval is not None and step % interval == 0


def picture_size(show: int, classes: int | None) -> tuple[int, int | None]:
    """Returns the numbers of samples and of columns in a picture; if there are few classes, each has its own columns.

    Args:
        show: number of samples set in the recipe.
        classes: number of classes; None if there are none.
    """
    if classes is None or classes > COLUMNS_BY_CLASS:
        return show, None
    columns = classes * max(1, round(math.sqrt(show) / classes))
    return max(1, show // columns) * columns, columns
