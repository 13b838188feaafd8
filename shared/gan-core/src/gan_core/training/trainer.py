"""The trainer, which trains any game.

In each step, every player has its turns. The result of a step depends only on the state, the seed and the step number,
so a run that is interrupted and resumed on a CPU equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import torch

from gan_core.data import FittedData, hold_out
from gan_core.distributed import Processes, ProcessLost
from gan_core.errors import GanError, NonFiniteError, RecipeError
from gan_core.play.game import Game
from gan_core.recipe import Recipe
from gan_core.runs.advice import change_options, lower_rates, rate_key, resume_command
from gan_core.runs.run import Run
from gan_core.training.allocator import keep_freed_memory
from gan_core.training.averaging import Average
from gan_core.training.logging import Display, Trackers, check_trackers
from gan_core.training.output import Evaluate, Output, WriteSamples, is_due
from gan_core.training.regime import Regime
from gan_core.training.saving import Checkpoints
from gan_core.training.state import Training
from gan_core.training.turns import least_rows, play_step

FINISHED, READER_LOST = 1001, 1000
"""Codes that processes exchange if training ends after a step: finished, and a process that read data has ended. The
other codes are signal numbers, which are smaller."""
ONE_VALUE = "Expected more than 1 value per channel"
"""Start of torch's message if batch normalization has a single value per channel."""


class ReaderLost(GanError):
    """A process that read data has ended; the run has a checkpoint of the step that was reached."""


class Trainer:
    """Trains a game and writes everything to a run folder.

    Attributes:
        interrupted: name of the signal that interrupted training, or None.
        ended: reason why the regime ended training, or None.
        recovered: whether the run was rolled back and the game has the state of the checkpoint.
        reader_lost: whether training ended because a process that read data has ended.

    Args:
        game: game to train; it is moved to the recipe's device and changed in place.
        recipe: complete recipe.
        data: data, fitted to the game's specification.
        run: output run folder.
        write_samples: the domain's writer of samples.
        regime: training regime, which the recipe names.
        evaluate: returns the figures of an evaluation; None if the recipe has no evaluations.
        shown: whether progress is shown on standard error.

    Raises:
        RecipeError: the recipe does not fit the game or the machine.
        DataError: no items are left to train on, or the items cannot be stacked into a batch.
    """

    def __init__(
        self,
        game: Game,
        recipe: Recipe,
        data: FittedData,
        run: Run,
        *,
        write_samples: WriteSamples,
        regime: Regime,
        evaluate: Evaluate | None = None,
        shown: bool = True,
    ) -> None:
        self.recipe, self.run, self.shown = recipe, run, shown
        self.processes = Processes(recipe.train.device)
        self._check(game)
        regime.prepare(game, recipe)
        device = self.processes.device
        self.training = Training(game.to(device), recipe, data, regime.to(device), self.processes)
        hold_out(data.for_training(next(iter(game.phases())).spec), recipe.data.held_out)  # refuses an empty rest early
        self.checkpoints = Checkpoints(self.training, run)
        self.output = Output(self.training, run, write_samples=write_samples, evaluate=evaluate)
        self.interrupted: str | None = None
        self.ended: str | None = None
        self.recovered = False
        self.reader_lost = False
        self._signal = 0

    def fit(self) -> str | None:
        """Trains until the run ends or is interrupted, and writes the last checkpoint.

        Returns:
            Name of the signal that interrupted it (`SIGINT`, `SIGTERM`), or None.

        Raises:
            RecipeError: the networks cannot be compiled on this machine.
            NonFiniteError: a loss or a weight is not finite. The run was rolled back to the last valid checkpoint, and
                so was the game if `recovered`.
            ProcessLost: another process has ended.
            ReaderLost: a process that read data has ended. A checkpoint was written.
            GanError: a checkpoint could not be written.
        """
        if self.processes.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        elif self.processes.device.type == "cpu":
            keep_freed_memory()
        self.output.show_real()
        try:
            with self.processes.connected():
                self._train()
        except NonFiniteError as error:
            raise NonFiniteError(self._roll_back(str(error))) from None
        except ProcessLost as error:
            raise ProcessLost(self._stopped_by(str(error))) from error
        except RuntimeError as error:
            if not self.recipe.train.compile or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            raise RecipeError(cannot_compile(str(error))) from error
        finally:
            self.game.optimizers = {}
            self.release()
        if self.reader_lost:
            raise ReaderLost(self._without_reader())
        return self.interrupted

    def _train(self) -> None:
        training, settings, first = self.training, self.recipe.train, self.processes.first
        title = f"{self.recipe.domain or 'game'}/{self.recipe.system}"
        with (
            self._catching_signals(),
            Display(title, settings.steps, shown=self.shown and first, done=self.step) as display,
            Trackers(settings.trackers if first else (), self.run.path) as trackers,
        ):
            self.output.start()
            last = self._is_last()
            while not last:
                self.enter_due()
                self.play_step()
                last = self._is_last()
                display.step(self.step, training.schedule.limits.progress(training.point))
                self.output.log(display, trackers, last=last)
                self.output.show(last=last)
                self.output.evaluate(display, trackers, last=last and not (self.interrupted or self.reader_lost))
                if last or is_due(self.step, training.checkpoint_every):
                    self.checkpoints.save()
            if self.interrupted:
                display.interrupted(self.interrupted, self.step)
            elif self.ended:
                display.ended(self.ended, self.step)

    def enter_due(self) -> None:
        """Enters the next phase if it is due."""
        self.training.enter_due()

    def play_step(self) -> None:
        """Runs one step: the turns of every player that moves in it.

        Raises:
            RecipeError: the batch is too small for batch normalization.
        """
        try:
            play_step(self.training)
        except ValueError as error:
            if ONE_VALUE not in str(error):
                raise
            raise RecipeError(self._larger_batch()) from error

    def restore(self) -> list[str]:
        """Loads the latest valid checkpoint, without changing the run folder; see `Checkpoints.restore`."""
        return self.checkpoints.restore()

    def rewind(self) -> None:
        """Removes all output of later steps from the run folder."""
        self.checkpoints.rewind()

    def release(self) -> None:
        """Sets all parameters of the game to require gradients, except those that the game itself froze."""
        self.training.release()

    @property
    def game(self) -> Game:
        """The game that is being trained."""
        return self.training.game

    @property
    def average(self) -> Average | None:
        """Moving average of the weights; None if the recipe has none."""
        return self.training.average

    @property
    def step(self) -> int:
        """Number of completed steps."""
        return self.training.step

    def finished(self) -> bool:
        """Returns whether a limit is reached or the regime ends the run, and sets `ended` to the regime's reason."""
        self.ended = self.training.regime.over()
        return self.ended is not None or self.training.schedule.over(self.training.point)

    def _is_last(self) -> bool:
        """Returns whether training ends after this step. All processes call it once per step, so that they agree."""
        reader_lost = self.step > 0 and self.training.stream.lost
        code = FINISHED if self.finished() else READER_LOST if reader_lost else self._signal
        why = self.processes.highest(code)
        self.reader_lost = why == READER_LOST
        self.interrupted = signal.Signals(why).name if 0 < why < READER_LOST else None
        return why > 0

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Context manager under which SIGINT or SIGTERM ends training after the step, and a second one immediately."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self._signal:
                raise KeyboardInterrupt
            self._signal = number

        try:
            old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # signal handlers can only be set in the main thread
            old = {}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _roll_back(self, what: str) -> str:
        """Rolls the run back and returns the error message: the problem, and how to continue."""
        happened = f"step {self.step}: {what}"
        step, self.recovered = self.checkpoints.roll_back(what)
        if step is None:
            hint = "start a new run with a lower `optimizer.learning_rate` or with `optimizer.clip_norm`"
            return f"{happened}; there is no valid checkpoint to return to: set `train.checkpoint_every`, and {hint}"
        if self.recovered:
            self.output.show(last=True)
        return f"{happened}; rolled back to step {step}; continue with {self._advice()}"

    def _stopped_by(self, what: str) -> str:
        """Returns the error message if training stopped before the end of a step: the problem, and how to continue."""
        happened, saved = f"step {self.step + 1}: {what}", self.run.checkpoints()
        if not saved:
            return f"{happened}; there is no checkpoint to continue from: set `train.checkpoint_every`, and start again"
        return f"{happened}; continue from step {int(saved[-1].name)} with {self._resume_command()}"

    def _without_reader(self) -> str:
        """Returns the error message if a process that read data has ended: the problem, and how to continue."""
        happened = f"step {self.step}: a process that reads data has ended (killed, or out of memory?)"
        command = self._resume_command({"data.workers": max(0, self.recipe.data.workers // 2)})
        return f"{happened}; continue with {command}"

    def _resume_command(self, changes: Mapping[str, object] | None = None) -> str:
        """Returns the command that continues the run."""
        return resume_command(self._program, self.run.path, changes=changes)

    @property
    def _program(self) -> str | None:
        """Command-line program that can build the run's game and open its data, or None."""
        buildable = self.recipe.preset is not None and self.recipe.data.source is not None
        return f"gan-{self.recipe.domain}" if buildable and self.recipe.domain else None

    def _advice(self) -> str:
        """Returns the command that resumes with half the learning rates, and an alternative.

        The alternative is bf16 if the run uses fp16, otherwise gradient clipping.
        """
        rates: dict[str, float] = {}
        for state in self.training.states:
            name, settings = state.player.name, self.recipe.players.get(state.player.name)
            own = state.player.optimizer is not None or (settings is not None and settings.optimizer)
            rates[rate_key(name if own else None)] = state.settings.learning_rate
        fp16 = self.recipe.train.precision == "fp16"
        other: dict[str, object] = {"train.precision": "bf16"} if fp16 else {"optimizer.clip_norm": 1}
        return f"{self._resume_command(lower_rates(rates))}, or with {change_options(self._program, other)}"

    def _larger_batch(self) -> str:
        """Returns the error message for a batch that is too small for batch normalization."""
        training = self.training
        parts = self.processes.count * training.settings.accumulate
        rows = least_rows(training)
        remedy = "a larger batch" if rows is None else f"{rows * parts} or more"
        size, split = training.stream.batch_size, f", in {parts} parts" if parts > 1 else ""
        return (
            f"the batch size is {size}{split}, too small for batch normalization in {self.recipe.system}; set {remedy}"
        )

    def _check(self, game: Game) -> None:
        settings = self.recipe.train
        if settings.precision == "fp16" and self.processes.device.type == "cpu":
            raise RecipeError("`train.precision` is fp16, which needs an accelerator; use bf16 or fp32")
        check_trackers(settings.trackers, self.run.path)
        parts = self.processes.count * settings.accumulate
        for size in [settings.batch_size, *filter(None, (phase.batch_size for phase in game.phases()))]:
            if size % parts:
                factors = "number of processes × `train.accumulate`"
                raise RecipeError(f"the batch size is {size}; expected a multiple of {parts} ({factors})")
        kind = type(game)
        if kind.sample is Game.sample and kind.apply is Game.apply and kind.preview is Game.preview:
            raise RecipeError(f"{kind.__name__} has no samples to show; define `sample`, `apply` or `preview`")


def cannot_compile(reason: str) -> str:
    """Returns the message about networks that `torch.compile` cannot compile, from that of its error."""
    first = reason.strip().partition("\n")[0][:200]
    missing = "install a C++ compiler, such as g++, or " if "compiler" in first.lower() else ""
    return f"the networks cannot be compiled ({first}); {missing}leave `--compile` (`train.compile`) out"
