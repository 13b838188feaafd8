"""The trainer: trains any game.

In a step, every player has its turns. The result of a step depends only on the state, the seed and the step number, so
a run that is interrupted and resumed on a CPU equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn

from gan_core.data import BatchStream, FittedData, hold_out, length
from gan_core.distributed import Processes, share_batch_statistics
from gan_core.draws import mix, seed_torch
from gan_core.errors import CheckpointError, NonFiniteError, RecipeError, writing
from gan_core.models.checkpoint import (
    AVERAGE,
    EXTRA,
    GAME,
    OPTIMIZERS,
    Tensors,
    load_state,
    read_checkpoint,
    split_state,
    write_checkpoint,
)
from gan_core.models.pretrained import check_helpers, helpers_of
from gan_core.play.game import Batch, Game, Phase, Player, Terms, evaluating
from gan_core.recipe import Recipe, TrainSettings
from gan_core.runs.record import DIAGNOSTICS, EVALUATION
from gan_core.runs.run import Run
from gan_core.training.allocator import keep_freed_memory
from gan_core.training.averaging import Average
from gan_core.training.diagnostics import SampleDiagnostics
from gan_core.training.layout import lay_out
from gan_core.training.logging import Display, LossMeans, Trackers, check_trackers
from gan_core.training.player_state import PRECISIONS, PlayerState, autocast, frozen, playing, release, share_of_draws
from gan_core.training.regime import Regime
from gan_core.training.schedule import Limits, Point, Schedule, lengths

Evaluate = Callable[[Game], Mapping[str, Any]]
"""Function that returns a game's figures for the log."""


class WriteSamples(Protocol):
    """Type of a domain's `media.write_samples`."""

    def __call__(self, samples: dict[str, Tensor], stem: Path, *, columns: int | None, game: Game) -> Path:
        """Writes samples to `stem` plus a suffix and returns the path; `game` defines, for example, the sample rate."""


COLUMNS_BY_CLASS = 16
"""Maximum number of classes for which a picture of samples has one column per class."""

GRADIENT_NORM = "gradient_norm"
"""Name in the log of a player's gradient norm, measured in the last steps before a line."""
REGIME = "regime.safetensors"
"""File of a checkpoint with the state of the regime."""
CONTENTS = {GAME: "weights", OPTIMIZERS: "optimizer states", AVERAGE: "averaged weights", REGIME: "regime's state"}
NAMED = 3
"""Maximum number of non-finite values listed by name."""

FINISHED = 1000
"""Code for 'finished', exchanged between processes; greater than any signal number, the other codes."""


def cast_of(game: Game) -> dict[str, Player]:
    """Returns a game's players by name.

    Raises:
        RecipeError: two players have the same name, or a player's networks are not submodules of the game and would not
            be saved.
    """
    players: dict[str, Player] = {}
    own = {id(parameter) for parameter in game.parameters()}
    for player in game.players():
        if player.name in players:
            raise RecipeError(f"{type(game).__name__} has two players named `{player.name}`; give each its own name")
        if any(id(parameter) not in own for parameter in player.parameters()):
            where = f"the networks of `{player.name}` are not all part of the game"
            raise RecipeError(f"{where}: make them its attributes (several in an nn.ModuleList), or they are not saved")
        players[player.name] = player
    return players


class Progress(BaseModel):
    """State of a training other than tensors, saved in a checkpoint.

    Attributes:
        step: completed steps.
        seen: samples read, over all processes.
        elapsed: seconds of training.
        position: position in the phase's data stream.
        phase: index of the phase.
        progress: completed fraction of the phase.
        starts: completed steps at which each phase began, up to the current one.
        start_seen: samples read when the current phase began.
        start_elapsed: seconds of training when the current phase began.
        ends: completed steps at which each phase is planned to end.
        averaged: number of samples that the moving average has seen.
        game: the game's state other than tensors.
        optimizers: parameter groups of each player's optimizer.
        losses: sums and counts of the current log interval.
        scalers: state of each player's gradient scaler.
        regime: the regime's state other than tensors.
        pretrained: SHA-256 of the weights of the game's frozen helpers, by name.
    """

    step: int = Field(ge=0)
    seen: int = Field(ge=0)
    elapsed: float = Field(ge=0, allow_inf_nan=False)
    position: int = Field(ge=0)
    phase: int = Field(ge=0)
    progress: float = Field(ge=0, le=1)
    starts: list[int]
    start_seen: int = Field(ge=0)
    start_elapsed: float = Field(ge=0, allow_inf_nan=False)
    ends: list[int]
    averaged: int = Field(ge=0)
    game: dict[str, Any]
    optimizers: dict[str, list[dict[str, Any]]]
    losses: dict[str, tuple[list[float], int]]
    scalers: dict[str, dict[str, Any]]
    regime: dict[str, Any]
    pretrained: dict[str, str]


class Trainer:
    """Trains a game and writes everything to a run folder.

    Args:
        game: game that is trained; it is moved to the recipe's device and changed in place.
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
        self.recipe, self.settings, self.data, self.run = recipe, recipe.train, data, run
        self.write_samples, self.evaluate, self.shown = write_samples, evaluate, shown
        self.processes = Processes(self.settings.device)
        self._check(game)
        regime.prepare(game, recipe)
        self.regime = regime.to(self.processes.device)
        self.game = game.to(self.processes.device)
        self.frozen = frozen(game)
        self.schedule = Schedule(lengths(game, recipe, data)[0], Limits.of(self.settings))
        self.losses = LossMeans()
        self.step = self.seen = 0
        self.elapsed, self._mark = 0.0, (time.perf_counter(), 0)
        self.point = Point()
        self.states: list[PlayerState] = []
        self.average = None if self.settings.ema is None else Average(game, self.settings.ema)
        self.interrupted: str | None = None
        self.ended: str | None = None
        self.recovered = False
        self._signal = 0
        self._check_split()
        self.reference = self._read_reference()

    # The loop.

    def fit(self) -> str | None:
        """Trains until the run ends or is interrupted, and writes the last checkpoint.

        Returns:
            Name of the signal that interrupted it (`SIGINT`, `SIGTERM`), or None.

        Raises:
            NonFiniteError: a loss or a weight is not finite. The run was rolled back to the last valid checkpoint, and
                so was the game if `recovered`.
            GanError: a checkpoint could not be written.
        """
        self._prepare()
        try:
            self._play()
        except NonFiniteError as error:
            raise NonFiniteError(self._roll_back(str(error))) from None
        finally:
            self.game.optimizers = {}
            self.release()
        return self.interrupted

    def _play(self) -> None:
        title = f"{self.recipe.domain or 'game'}/{self.recipe.system}"
        with (
            self._listening(),
            Display(title, self.settings.steps, shown=self.shown and self.processes.first) as display,
            Trackers(self.settings.trackers if self.processes.first else (), self.run.path) as trackers,
        ):
            self._mark = (time.perf_counter(), self.seen)
            self.over = self._is_over()
            while not self.over:
                self.enter_due()
                self.play_step()
                self.over = self._is_over()
                display.step(self.step, self.schedule.limits.progress(self.point))
                self._log(display, trackers)
                self._show()
                self._evaluate(trackers)
                self._save()
            if self.interrupted:
                display.interrupted(self.interrupted, self.step)
            elif self.ended:
                display.ended(self.ended, self.step)

    def play_step(self) -> None:
        """Runs one step: the turns of every player that moves in it."""
        done = self.schedule.done(self.point)
        moving = [state for state in self.states if done % state.every == 0]
        staged = self._stage(moving) if self.staging else None
        line = self.step + self.log_every - self.step % self.log_every  # step of the next line of the log
        for state in self.states:  # before any turn: a game may read the rates of all
            state.set_rate(self.game.progress, done)
        for place, state in enumerate(self.states, start=1):
            if state not in moving:
                continue
            state.watched, state.gradient_norm = self.step + state.every >= line, None
            self._give_turn_to([state])
            for turn in range(state.turns):
                seed = self._seed(place, turn)
                read = self._next_batches if staged is None else partial(self._as_seen_by, state, staged)
                batches = self.regime.batches(state.player, read)
                values = state.move(batches, seed) | self.game.take_notes()
                self.losses.add(state.player.name, values)
                if state.gradient_norm is not None:
                    self.losses.add(state.player.name, {GRADIENT_NORM: state.gradient_norm})
                if self.has_after_turn:
                    self.game.after_turn(state.player.name, self._over_processes(values))
        if self.average is not None:
            self.average.update(self.step, self.game.batch_size)
        self.step += 1
        elapsed = 0.0 if self.settings.minutes is None else self.processes.highest(round(self._seconds() * 1e6)) / 1e6
        self._reach(Point(self.step, self.seen, elapsed))

    def _reach(self, point: Point) -> None:
        """Sets the training's current point, equal in all processes, and the game's `step` and `progress`."""
        self.point, moment = point, self.game.moment
        moment.step, moment.progress = point.step, self.schedule.progress(point)

    def _over_processes(self, values: Terms) -> Terms:
        """Returns the means over all processes."""
        if self.processes.count == 1:
            return values
        means = self.processes.mean(torch.stack(list(values.values())))
        return dict(zip(values, means.unbind(), strict=True))

    def _stage(self, moving: Sequence[PlayerState]) -> tuple[set[str], list[Batch]]:
        """Returns the keys and parts of the step's staged batch; the moving stagers' parameters require gradients."""
        self._give_turn_to([state for state in moving if state.player.name in self.game.stagers])
        seed = self._seed(0, 0)
        batches = self._next_batches()
        staged = []
        for index, batch in enumerate(batches):
            precision = PRECISIONS.get(self.settings.precision)
            with (
                share_of_draws(seed, self.processes, index, len(batches), batch),
                autocast(self.processes.device, precision),
            ):
                staged.append(self.game.stage(dict(batch)))
        return set(batches[0]), staged

    def _as_seen_by(self, state: PlayerState, staged: tuple[set[str], list[Batch]]) -> list[Batch]:
        """Returns the staged batch as a player gets it: staged tensors are detached unless the player is a stager."""
        drawn, batches = staged
        if state.player.name in self.game.stagers:
            return batches
        return [{key: value if key in drawn else value.detach() for key, value in b.items()} for b in batches]

    def _next_batches(self) -> list[Batch]:
        """Returns the next batch, split into the parts over which gradients are accumulated."""
        batch = next(self.stream)
        self.seen += self.stream.batch_size
        if self.settings.accumulate == 1:
            return [batch]
        parts = {key: value.tensor_split(self.settings.accumulate) for key, value in batch.items()}
        return [{key: parts[key][i] for key in parts} for i in range(self.settings.accumulate)]

    def _give_turn_to(self, movers: Sequence[PlayerState]) -> None:
        """Lets only the movers' parameters require gradients, including those shared with other players."""
        for state in self.states:
            if state not in movers:
                state.allow(False)
        for state in movers:
            state.allow(True)

    def _seed(self, place: int, turn: int) -> int:
        """Returns the seed of a turn and seeds torch's generators with it, differently in every process."""
        seed = mix(self.settings.seed, self.step, place, turn)
        seed_torch(mix(seed, self.processes.rank), self.processes.device)
        return seed

    # Phases.

    def enter_due(self) -> None:
        """Enters the next phase if it is due, at the start of its data."""
        if self.schedule.due(self.point):
            self.schedule.enter(self.point)
            self._enter(position=0)

    def _enter(self, position: int) -> None:
        """Enters the schedule's current phase, with new optimizers, at a position of its data."""
        number, phase = self.schedule.number, self.schedule.phase
        batch_size = self.game.batch_size = phase.batch_size or self.settings.batch_size
        self.log_every, self.sample_every, self.checkpoint_every = intervals(phase, self.settings)
        self._reach(self.point)
        # For new weights: equal in all processes, and when the run is resumed.
        seed_torch(mix(self.settings.seed, number), self.processes.device)
        self.release()
        self.game.enter_phase(number, self.schedule.progress(self.point))
        self.frozen = frozen(self.game)
        self._lay_out()
        self._seat_players(phase)
        training, held_out = hold_out(self.data.for_training(phase.spec), self.recipe.data.held_out)
        if self.step == 0:
            self.game.study(training)
        self.diagnostics = SampleDiagnostics(self.game, training, held_out)
        self.stream = self.regime.stream(
            training,
            batch_size,
            seed=mix(self.settings.seed, number) >> 32,
            position=position,
            workers=self.recipe.data.workers,
            rank=self.processes.rank,
            processes=self.processes.count,
            device=self.processes.device,
        )

    def release(self) -> None:
        """Lets gradients reach all parameters of the game, except those that its author froze."""
        release(self.game, self.frozen)

    def _lay_out(self) -> None:
        """Moves the game and its average to the device, in the fastest memory format."""
        lay_out(self.game.to(self.processes.device))
        if self.average is not None:
            self.average.follow(self.game)

    def _seat_players(self, phase: Phase) -> None:
        """Creates the state of the phase's players; networks that none of them trains are frozen."""
        players = cast_of(self.game)
        if self.game.shares_samples(self.game.stagers) and not any(name in players for name in self.game.stagers):
            given = f"`stagers` names {', '.join(self.game.stagers)}, and the players are {', '.join(players)}"
            raise RecipeError(f"{self.recipe.system}: {given}; name the player that trains through `stage`")
        takers = playing(phase, players.values())
        if self.processes.count > 1:
            share_batch_statistics(self.game)
        self.states = [PlayerState(self.regime.player(player), self.recipe, self.processes) for player in takers]
        self.game.eval()
        for network in (network for player in takers for network in player.networks):
            train_mode(network)
        self.game.requires_grad_(False)
        self.game.optimizers = {state.player.name: state.optimizer for state in self.states}
        self.has_after_turn = self.game.has_after_turn
        self.staging = self.game.shares_samples(state.player.name for state in self.states)
        for state in self.states:
            if self.staging and state.player.name in self.game.stagers and state.turns > 1:
                what = f"`{state.player.name}` of {self.recipe.system} trains through the samples that a step shares"
                raise RecipeError(f"{what}; its `turns` must be 1")
        if self.settings.compile:
            for network in {network: None for player in takers for network in player.networks}:
                network.compile()

    # What is written.

    def _log(self, display: Display, trackers: Trackers) -> None:
        """Writes a line of the log if it is due; an incomplete last interval stays open for a resumed run."""
        due = self.step % self.log_every == 0
        if not (due or self.over):
            return
        figures = self._finite(self.losses.means(self.processes) | self.regime.figures())
        if due:
            self.losses.clear()
        now, (then, seen) = time.perf_counter(), self._mark
        self._mark = (now, self.seen)
        self.elapsed += now - then
        speed = round((self.seen - seen) / (now - then), 1)
        line = {"step": self.step, "phase": self.schedule.phase.name, **figures, "samples_per_second": speed}
        if self.processes.first:
            self.run.append_log(line)
            trackers.log(line)
            display.line(line)

    def _show(self) -> None:
        """Writes a picture of samples, and logs diagnostics of them for the doctor."""
        every = self.sample_every
        if not ((every and self.step % every == 0) or self.over):
            return
        if self.processes.first:
            with self._averaged(), evaluating(self.game), torch.no_grad():
                samples, figures = self.game.preview(self.reference), self.diagnostics.figures()
            with writing(self.run.samples_folder):
                self.write_samples(samples, self.run.sample_stem(self.step), columns=self.columns, game=self.game)
            if figures:
                self.run.append_log({"step": self.step, "phase": DIAGNOSTICS, **figures})
        self.processes.wait()

    def _evaluate(self, trackers: Trackers) -> None:
        """Evaluates the game with the averaged weights; the time does not count as training time."""
        every = self.settings.evaluate_every
        if self.evaluate is None or every is None:
            return
        if not (self.step % every == 0 or (self.over and self.interrupted is None)):
            return
        began = time.perf_counter()
        if self.processes.first:
            with self._averaged():
                line = {"step": self.step, "phase": EVALUATION, **self.evaluate(self.game)}
            self.run.append_log(line)
            trackers.log(line)
        self.processes.wait()
        then, seen = self._mark
        self._mark = (then + time.perf_counter() - began, seen)

    def _save(self) -> None:
        every = self.checkpoint_every
        if (every and self.step % every == 0) or self.over:
            self._finite(self.losses.means(self.processes))
            self.save()

    def save(self) -> None:
        """Writes a checkpoint of this step and removes old ones; must be called in every process.

        Raises:
            NonFiniteError: a tensor is not finite; nothing is written.
        """
        tensors, plain = split_state(self.game)
        optimizers, groups = self._optimizer_state()
        kept, kept_plain = split_state(self.regime)
        files: dict[str, Tensors] = {GAME: tensors, OPTIMIZERS: optimizers} | ({REGIME: kept} if kept else {})
        if self.average is not None:
            files[AVERAGE] = self.average.average
        wrong = self._not_finite(files)
        if wrong:
            raise NonFiniteError(wrong)
        start = self.schedule.start
        progress = Progress(
            step=self.step,
            seen=self.seen,
            elapsed=self._seconds(),
            position=self.stream.position,
            phase=self.schedule.number,
            progress=self.game.progress,
            starts=self.schedule.starts,
            start_seen=start.seen,
            start_elapsed=start.elapsed,
            ends=self.schedule.ends,
            averaged=0 if self.average is None else self.average.samples,
            game=plain,
            optimizers=groups,
            losses=self.losses.state(),
            scalers={state.player.name: state.scaler.state_dict() for state in self.states},
            regime=kept_plain,
            pretrained={name: helper.sha256 for name, helper in helpers_of(self.game).items()},
        )
        if self.processes.first:
            write_checkpoint(
                self.run.checkpoint(self.step), files, progress.model_dump(), save_files=self.game.save_files
            )
            self.run.keep_checkpoints(self.settings.keep_checkpoints, self.step)
        self.processes.wait()

    def restore(self) -> list[str]:
        """Loads the latest valid checkpoint, without changing the run folder.

        Returns:
            Problems of newer checkpoints, one line each.

        Raises:
            CheckpointError: no checkpoint is valid.
            RecipeError: the recipe changes the kind of a player's optimizer.
        """
        problems: list[str] = []
        for checkpoint in self._good_checkpoints(problems):
            self._load(*checkpoint)
            return problems
        raise CheckpointError(problems[0] if problems else f"{self.run.path}: has no checkpoint to resume from")

    def _good_checkpoints(
        self, problems: list[str], step: int | None = None
    ) -> Iterator[tuple[Path, dict[str, Tensors], Progress]]:
        """Yields the valid checkpoints up to a step, newest first; `problems` collects those of the others."""
        for folder in reversed(self.run.checkpoints(step)):
            try:
                files, plain = read_checkpoint(folder)
                progress = Progress.model_validate(plain)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            except ValidationError:
                problems.append(f"{folder}: its state.json is not that of a training")
                continue
            wrong = self._not_finite(files)
            if wrong:
                problems.append(f"{folder}: {wrong}")
            else:
                yield folder, files, progress

    def rewind(self) -> None:
        """Removes everything that the run folder has of later steps."""
        self.processes.wait()  # until all processes have read the checkpoint
        if self.processes.first:
            before = self.run.recipe.train  # a resumed run may have other intervals
            log_every, sample_every, _ = intervals(self.schedule.phase, before)
            self.run.rewind(
                self.step, log_every=log_every, sample_every=sample_every, evaluate_every=before.evaluate_every
            )
            self.run.keep_checkpoints(self.settings.keep_checkpoints, self.step)

    def _load(self, folder: Path, files: dict[str, Tensors], saved: Progress) -> None:
        """Loads a checkpoint.

        Raises:
            CheckpointError: it belongs to another game, or has other phases or players.
        """
        try:
            start = Point(saved.starts[-1], saved.start_seen, saved.start_elapsed)
            self.schedule.load(saved.starts, start, saved.ends)
            self.step, self.seen, self.elapsed = saved.step, saved.seen, saved.elapsed
            self.point = Point(saved.step, saved.seen, saved.elapsed)
            load_state(self.regime, files.get(REGIME, {}), saved.regime, folder)  # the stream may depend on it
            if self.average is not None:
                self.average.names = set(files.get(AVERAGE, self.average.average))
            self._enter(saved.position)
            check_helpers(self.game, saved.pretrained, folder)
            if (folder / EXTRA).is_dir():
                self.game.load_files(folder / EXTRA)
            load_state(self.game, files[GAME], saved.game, folder)
            if self.average is not None:  # an average that the run did not have starts here
                self.average.load(files.get(AVERAGE, self.average.weights))
                self.average.samples = saved.averaged
            for state in self.states:
                self._check_kind(state)
                state.optimizer.load_state_dict(_optimizer_state(state, files[OPTIMIZERS], saved.optimizers))
                if saved.scalers[state.player.name]:  # empty in precisions without loss scaling
                    state.scaler.load_state_dict(saved.scalers[state.player.name])
            self.losses.load(saved.losses, self.processes)
        except (TypeError, ValueError, LookupError) as error:
            raise CheckpointError(f"{folder}: does not fit this run's recipe ({error})") from error

    def _check_kind(self, state: PlayerState) -> None:
        """Checks that a player's optimizer is of the kind whose state was saved."""
        before = self.run.recipe.player_optimizer(state.player.name, state.player.optimizer).name
        if state.settings.name != before:
            what = f"{self.run.path}: the state of the optimizer of `{state.player.name}` is that of {before}"
            raise RecipeError(f"{what}; keep its `name`, or start a new run with {state.settings.name}")

    def _optimizer_state(self) -> tuple[Tensors, dict[str, Any]]:
        """Returns the optimizers' tensors as `player/parameter/name`, and their parameter groups."""
        tensors: Tensors = {}
        groups: dict[str, Any] = {}
        for state in self.states:
            saved = state.optimizer.state_dict()
            groups[state.player.name] = saved["param_groups"]
            for index, values in saved["state"].items():
                for name, value in values.items():
                    if value is not None:
                        tensors[f"{state.player.name}/{index}/{name}"] = value
        return tensors, groups

    # End of a run, and errors.

    def finished(self) -> bool:
        """Returns whether the run has reached a limit or the regime ends it; sets `ended` to the regime's reason."""
        self.ended = self.regime.over()
        return self.ended is not None or self.schedule.over(self.point)

    def _is_over(self) -> bool:
        """Returns whether the training ends here; called once per step in all processes, so that they agree."""
        why = self.processes.highest(FINISHED if self.finished() else self._signal)
        self.interrupted = signal.Signals(why).name if 0 < why < FINISHED else None
        return why > 0

    def _seconds(self) -> float:
        """Returns the training time in seconds, including that before interruptions."""
        return self.elapsed + time.perf_counter() - self._mark[0]

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Context in which SIGINT and SIGTERM end the training after the current step, and a second signal at once."""

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

    def _finite(self, figures: dict[str, float]) -> dict[str, float]:
        """Returns the figures without non-finite gradient norms, for which a gradient scaler skips the step.

        Raises:
            NonFiniteError: another figure is not finite.
        """
        figures = {n: value for n, value in figures.items() if math.isfinite(value) or not n.endswith(GRADIENT_NORM)}
        wrong = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
        if wrong:
            raise NonFiniteError(", ".join(wrong[:NAMED]) + (f" and {len(wrong) - NAMED} more" * (len(wrong) > NAMED)))
        return figures

    def _not_finite(self, files: dict[str, Tensors]) -> str:
        """Returns a message about the first non-finite tensor, or nothing. Buffers, such as masks, may be infinite."""
        weights = {name for name, _ in self.game.named_parameters()}
        for file, tensors in files.items():
            for name, tensor in tensors.items():
                bounded = file == OPTIMIZERS or name in weights
                if not (tensor.isfinite() if bounded else ~tensor.isnan()).all():
                    return f"the {CONTENTS[file]} of {name} are not finite"
        return ""

    def _roll_back(self, what: str) -> str:
        """Rolls the run back to the latest valid checkpoint and records it in `rollbacks.jsonl`.

        Returns:
            The error message: the problem, and how to continue.
        """
        happened = f"step {self.step}: {what}"
        good = next(self._good_checkpoints([], self.step), None)
        if self.processes.first:
            self.run.append_rollback(self.step, None if good is None else good[2].step, what)
        if good is None:
            hint = "start a new run with a lower `optimizer.learning_rate` or with `optimizer.clip_norm`"
            return f"{happened}; there is no valid checkpoint to return to: set `train.checkpoint_every`, and {hint}"
        try:
            self._load(*good)
            self.recovered = True
        except CheckpointError:  # the game has grown since; a rebuilt one can be resumed
            self.step = good[2].step
        self.rewind()
        if self.recovered:
            self.over = True
            self._show()
        return f"{happened}; rolled back to step {self.step}; continue with {self._gentler()}"

    def _gentler(self) -> str:
        """Returns the command or call that resumes with half the learning rates, or with bf16 or gradient clipping."""
        changes: dict[str, float] = {}
        for state in self.states:
            player, settings = state.player, self.recipe.players.get(state.player.name)
            own = player.optimizer is not None or (settings is not None and settings.optimizer)
            key = f"players.{player.name}.optimizer.learning_rate" if own else "optimizer.learning_rate"
            changes[key] = state.settings.learning_rate / 2
        other = {"train.precision": "bf16"} if self.settings.precision == "fp16" else {"optimizer.clip_norm": 1}
        if self.recipe.domain is None or self.recipe.data.source is None:
            call = f"gan_core.resume({str(self.run.path)!r}, game=game, data=data, changes={changes})"
            return f"{call}, or with changes={other}"
        halved = " ".join(f"--set {key}={value:g}" for key, value in changes.items())
        bounded = " ".join(f"--set {key}={value}" for key, value in other.items())
        return f"gan-{self.recipe.domain} resume {shlex.quote(str(self.run.path))} {halved}, or with {bounded}"

    def _check(self, game: Game) -> None:
        if self.settings.precision == "fp16" and self.processes.device.type == "cpu":
            raise RecipeError("`train.precision` is fp16, which needs an accelerator; use bf16 or fp32")
        check_trackers(self.settings.trackers, self.run.path)
        parts = self.processes.count * self.settings.accumulate
        for size in [self.settings.batch_size, *filter(None, (phase.batch_size for phase in game.phases()))]:
            if size % parts:
                raise RecipeError(f"a batch size of {size} is not divisible by {parts} (processes × parts)")
        kind = type(game)
        if kind.sample is Game.sample and kind.apply is Game.apply and kind.preview is Game.preview:
            raise RecipeError(f"{kind.__name__} has no samples to show; define `sample`, `apply` or `preview`")

    # Pictures.

    def _check_split(self) -> None:
        """Checks that the first phase has training items besides those held out."""
        phase = next(iter(self.game.phases()))
        hold_out(self.data.for_training(phase.spec), self.recipe.data.held_out)

    def _read_reference(self) -> Batch:
        """Returns the batch from which pictures are made."""
        count, self.columns = _picture(self.settings.show, self.game.num_classes)
        count = min(count, length(self.data.plain))
        seed_torch(0, self.processes.device)  # for items that draw from torch's generator
        return next(BatchStream(self.data.plain, count, seed=0, device=self.processes.device))

    def _prepare(self) -> None:
        """Applies the device's settings and writes the picture of real samples."""
        if self.processes.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        elif self.processes.device.type == "cpu":
            keep_freed_memory()
        if self.processes.first:
            real = {key: value for key, value in self.reference.items() if key != "label"}
            with writing(self.run.samples_folder):
                self.write_samples(real, self.run.samples_folder / "real", columns=self.columns, game=self.game)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        with nullcontext() if self.average is None else self.average.in_place():
            yield


def intervals(phase: Phase, settings: TrainSettings) -> tuple[int, int | None, int | None]:
    """Returns the steps between lines of the log, pictures and checkpoints in a phase."""
    return (
        phase.log_every or settings.log_every,
        phase.sample_every or settings.sample_every,
        phase.checkpoint_every or settings.checkpoint_every,
    )


def train_mode(network: nn.Module) -> None:
    """Sets a network to training mode, except modules whose parameters are all frozen."""
    network.train()
    for part in network.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


def _picture(show: int, classes: int | None) -> tuple[int, int | None]:
    """Returns the numbers of samples and columns of a picture: whole rows of all classes if there are few classes."""
    if classes is None or classes > COLUMNS_BY_CLASS:
        return show, None
    return max(1, show // classes) * classes, classes


def _optimizer_state(state: PlayerState, tensors: Tensors, groups: dict[str, Any]) -> dict[str, Any]:
    """Returns a player's optimizer state. Tensors get their parameter's memory format, as fused optimizers need."""
    tensors_of: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        player, index, name = key.rsplit("/", 2)
        if player == state.player.name:
            like = state.parameters[int(index)]
            alike = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) if tensor.shape == like.shape else tensor
            tensors_of.setdefault(int(index), {})[name] = alike
    fresh = state.optimizer.state_dict()["param_groups"]  # with the recipe's current settings
    saved = groups[state.player.name]
    groups_now = [old | new | {"params": old["params"]} for old, new in zip(saved, fresh, strict=True)]
    return {"state": tensors_of, "param_groups": groups_now}
