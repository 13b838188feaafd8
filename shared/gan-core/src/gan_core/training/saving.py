"""Checkpoints of a training run: their contents, and saving, resuming and rolling back a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from gan_core.errors import CheckpointError, NonFiniteError, RecipeError
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
from gan_core.runs.run import Run
from gan_core.training.player_state import PlayerState
from gan_core.training.schedule import Point
from gan_core.training.state import Training, intervals
from gan_core.training.turns import GRADIENT_NORM

REGIME = "regime.safetensors"
"""Name of a checkpoint's file with the state of the regime."""
CONTENTS = {GAME: "weights", OPTIMIZERS: "optimizer states", AVERAGE: "averaged weights", REGIME: "regime's state"}
"""Contents of a checkpoint's tensor files, for messages."""
NAMED = 3
"""Maximum number of non-finite values listed by name."""


Count = Annotated[int, Field(ge=0, le=10**15)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]


class Progress(BaseModel):
    """State of a training run other than tensors, saved in a checkpoint.

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
        averaged: number of samples for which the moving average has been updated.
        game: the game's state other than tensors.
        optimizers: parameter groups of each player's optimizer.
        losses: sums and counts of the current log interval.
        scalers: state of each player's gradient scaler.
        regime: the regime's state other than tensors.
        pretrained: SHA-256 of the weights of the game's frozen helpers, by name.
    """

    step: Count
    seen: Count
    elapsed: Seconds
    position: Count
    phase: Count
    progress: float = Field(ge=0, le=1)
    starts: list[Count]
    start_seen: Count
    start_elapsed: Seconds
    ends: list[Count]
    averaged: Count
    game: dict[str, Any]
    optimizers: dict[str, list[dict[str, Any]]]
    losses: dict[str, tuple[list[float], Annotated[int, Field(ge=1, le=10**15)]]]
    scalers: dict[str, dict[str, Any]]
    regime: dict[str, Any]
    pretrained: dict[str, str]


class Saved(NamedTuple):
    """A valid checkpoint: its folder, its tensors by file, and the rest of its state."""

    folder: Path
    files: dict[str, Tensors]
    progress: Progress


class Checkpoints:
    """The checkpoints of a run.

    Args:
        training: training run whose state is saved and loaded.
        run: the run folder.
    """

    def __init__(self, training: Training, run: Run):
        self.training, self.run = training, run

    def save(self) -> None:
        """Writes a checkpoint of the current step and removes old ones. It must be called in every process.

        Raises:
            NonFiniteError: a tensor or the mean of a loss is not finite; nothing is written.
            GanError: the checkpoint could not be written.
        """
        training = self.training
        finite_figures(training.losses.means(training.processes))
        files, progress = self._collect()
        if problem := self._not_finite(files):
            raise NonFiniteError(problem)
        if training.processes.first:
            folder = self.run.checkpoint(training.step)
            write_checkpoint(folder, files, progress.model_dump(), save_files=training.game.save_files)
            self.run.keep_checkpoints(training.settings.keep_checkpoints, training.step)
        training.processes.wait()

    def restore(self) -> list[str]:
        """Loads the latest valid checkpoint that fits the game and the recipe, without changing the run folder.

        Returns:
            Problems of newer checkpoints, one line each.

        Raises:
            CheckpointError: no checkpoint is valid and fits; the message is about the latest.
            RecipeError: the recipe selects another optimizer for a player than the checkpoint has.
        """
        problems: list[str] = []
        for saved in self._valid(problems):
            try:
                self._load(saved)
                return problems
            except CheckpointError as error:  # whatever was loaded is loaded again from the next one
                problems.append(str(error))
        none = f"{self.run.path}: has no checkpoint to resume from; start a new run"
        raise CheckpointError(problems[0] if problems else none)

    def rewind(self) -> None:
        """Removes all output of later steps from the run folder."""
        training = self.training
        training.processes.wait()  # until all processes have read the checkpoint
        if training.processes.first:
            before = self.run.recipe.train  # a resumed run may have other intervals
            log_every, sample_every, _ = intervals(training.schedule.phase, before)
            self.run.rewind(
                training.step, log_every=log_every, sample_every=sample_every, evaluate_every=before.evaluate_every
            )
            self.run.keep_checkpoints(training.settings.keep_checkpoints, training.step)

    def roll_back(self, what: str) -> tuple[int | None, bool]:
        """Rolls the run back to the latest valid checkpoint and records it in `rollbacks.jsonl`.

        Args:
            what: name of the value that is not finite.

        Returns:
            The checkpoint's step, or None if no checkpoint is valid; and whether its state was loaded into the game. A
            game whose networks have grown since the checkpoint cannot load it, but a newly built game can resume from
            it.
        """
        training = self.training
        saved = next(self._valid([], training.step), None)
        step = None if saved is None else saved.progress.step
        if training.processes.first:
            self.run.append_rollback(training.step, step, what)
        if saved is None:
            return None, False
        try:
            self._load(saved)
            loaded = True
        except CheckpointError:
            training.point = replace(training.point, step=saved.progress.step)
            loaded = False
        self.rewind()
        return step, loaded

    def _collect(self) -> tuple[dict[str, Tensors], Progress]:
        """Returns the tensors by file, and the rest of the state."""
        training, average, start = self.training, self.training.average, self.training.schedule.start
        tensors, plain = split_state(training.game)
        optimizers, groups = collect_optimizers(training.states)
        regime_tensors, regime_plain = split_state(training.regime)
        files: dict[str, Tensors] = {GAME: tensors, OPTIMIZERS: optimizers}
        if regime_tensors:
            files[REGIME] = regime_tensors
        if average is not None:
            files[AVERAGE] = average.average
        progress = Progress(
            step=training.step,
            seen=training.seen,
            elapsed=training.clock.seconds(),
            position=training.stream.position,
            phase=training.schedule.number,
            progress=training.game.progress,
            starts=training.schedule.starts,
            start_seen=start.seen,
            start_elapsed=start.elapsed,
            ends=training.schedule.ends,
            averaged=0 if average is None else average.samples,
            game=plain,
            optimizers=groups,
            losses=training.losses.state(),
            scalers={state.player.name: state.scaler.state_dict() for state in training.states},
            regime=regime_plain,
            pretrained={name: helper.sha256 for name, helper in helpers_of(training.game).items()},
        )
        return files, progress

    def _valid(self, problems: list[str], step: int | None = None) -> Iterator[Saved]:
        """Yields the valid checkpoints up to a step, newest first; appends problems of the others to `problems`."""
        for folder in reversed(self.run.checkpoints(step)):
            try:
                files, plain = read_checkpoint(folder)
                progress = Progress.model_validate(plain)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            except (ValidationError, OverflowError):
                problems.append(f"{folder}: its state.json is not a training state")
                continue
            if problem := self._not_finite(files):
                problems.append(f"{folder}: {problem}")
            else:
                yield Saved(folder, files, progress)

    def _load(self, checkpoint: Saved) -> None:
        """Loads a checkpoint.

        Raises:
            CheckpointError: it belongs to another game, or has other phases or players.
            RecipeError: the recipe selects another optimizer for a player than the checkpoint has.
        """
        training, average = self.training, self.training.average
        folder, files, saved = checkpoint
        try:
            start = Point(saved.starts[-1], saved.start_seen, saved.start_elapsed)
            training.schedule.load(saved.starts, start, saved.ends)
            training.point, training.seen = Point(saved.step, saved.seen, saved.elapsed), saved.seen
            training.clock.elapsed = saved.elapsed
            load_state(training.regime, files.get(REGIME, {}), saved.regime, folder)  # the stream may depend on it
            if average is not None:
                average.names = set(files.get(AVERAGE, average.average))
            training.enter(saved.position)
            check_helpers(training.game, saved.pretrained, folder)
            if (folder / EXTRA).is_dir():
                training.game.load_files(folder / EXTRA)
            load_state(training.game, files[GAME], saved.game, folder)
            if average is not None:  # if the run had no average before, it starts at the current weights
                average.load(files.get(AVERAGE, average.weights))
                average.samples = saved.averaged
            for state in training.states:
                self._check_kind(state)
                load_optimizer(state, files[OPTIMIZERS], saved.optimizers)
                if saved.scalers[state.player.name]:  # empty in precisions without loss scaling
                    state.scaler.load_state_dict(saved.scalers[state.player.name])
            training.losses.load(saved.losses, training.processes)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(f"{folder}: does not fit this run's recipe ({error})") from error

    def _check_kind(self, state: PlayerState) -> None:
        """Checks that a player's optimizer is of the same kind as the one whose state was saved."""
        before = self.run.recipe.player_optimizer(state.player.name, state.player.optimizer).name
        if state.settings.name != before:
            what = f"{self.run.path}: the saved optimizer state of `{state.player.name}` is for {before}"
            raise RecipeError(f"{what}; keep its `name`, or start a new run with {state.settings.name}")

    def _not_finite(self, files: Mapping[str, Tensors]) -> str:
        """Returns a message about the first non-finite tensor, or an empty string.

        Buffers, such as masks, may be infinite, but not NaN.
        """
        weights = {name for name, _ in self.training.game.named_parameters()}
        for file, tensors in files.items():
            for name, tensor in tensors.items():
                bounded = file == OPTIMIZERS or name in weights
                if not (tensor.isfinite() if bounded else ~tensor.isnan()).all():
                    return f"the {CONTENTS[file]} of {name} are not finite"
        return ""


def finite_figures(figures: Mapping[str, float]) -> dict[str, float]:
    """Removes non-finite gradient norms, which are normal under gradient scaling, because the scaler skips the step.

    Raises:
        NonFiniteError: another figure is not finite.
    """
    kept = {n: value for n, value in figures.items() if math.isfinite(value) or not n.endswith(GRADIENT_NORM)}
    wrong = [f"{name} is {value}" for name, value in kept.items() if not math.isfinite(value)]
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise NonFiniteError(", ".join(wrong[:NAMED]) + more)
    return kept


def collect_optimizers(states: list[PlayerState]) -> tuple[Tensors, dict[str, Any]]:
    """Returns the optimizers' tensors as `player/parameter/name`, and their parameter groups by player."""
    tensors: Tensors = {}
    groups: dict[str, Any] = {}
    for state in states:
        saved = state.optimizer.state_dict()
        groups[state.player.name] = saved["param_groups"]
        for index, values in saved["state"].items():
            for name, value in values.items():
                if value is not None:
                    tensors[f"{state.player.name}/{index}/{name}"] = value
    return tensors, groups


def load_optimizer(state: PlayerState, tensors: Tensors, groups: Mapping[str, Any]) -> None:
    """Loads a player's optimizer state, with the recipe's current settings.

    Tensors are converted to the memory format of their parameter, which fused optimizers require.
    """
    tensors_of: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        player, index, name = key.rsplit("/", 2)
        if player == state.player.name:
            like = state.parameters[int(index)]
            alike = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) if tensor.shape == like.shape else tensor
            tensors_of.setdefault(int(index), {})[name] = alike
    current = state.optimizer.state_dict()["param_groups"]
    merged = [
        old | new | {"params": old["params"]} for old, new in zip(groups[state.player.name], current, strict=True)
    ]
    state.optimizer.load_state_dict({"state": tensors_of, "param_groups": merged})
