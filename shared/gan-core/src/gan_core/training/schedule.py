"""The phases of a training run: their order and progress, and when the run ends.

A run ends at the first limit that it reaches (`Limits`). If steps are the only limit, phases begin and end at fixed
steps. With `samples` or `minutes`, phases take their shares of the progress towards the limit that is reached first, so
that the run always reaches the last phase and the end of every learning-rate schedule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gan_core.data import FittedData, hold_out, length
from gan_core.errors import RecipeError
from gan_core.play.game import Game
from gan_core.play.player import Phase
from gan_core.recipe import Recipe, TrainSettings
from gan_core.training.player_state import playing, turns_of


@dataclass(frozen=True)
class Point:
    """A point in a run.

    Attributes:
        step: completed steps.
        seen: samples read, over all processes.
        elapsed: seconds of training.
    """

    step: int = 0
    seen: int = 0
    elapsed: float = 0.0


@dataclass(frozen=True)
class Limits:
    """Limits of a run, which ends at the first limit that it reaches.

    Attributes:
        steps: number of steps.
        samples: number of samples read; None for no limit.
        minutes: minutes of training; None for no limit.
    """

    steps: int
    samples: int | None = None
    minutes: float | None = None

    @classmethod
    def of(cls, settings: TrainSettings) -> Limits:
        """Returns the limits of a recipe's `train`."""
        return cls(settings.steps, settings.samples, settings.minutes)

    @property
    def only_steps(self) -> bool:
        """Whether the number of steps is the only limit."""
        return self.samples is None and self.minutes is None

    def progress(self, point: Point) -> float:
        """Returns the completed fraction of the run with respect to the nearest limit; 1 or more at the end."""
        by_samples = 0.0 if self.samples is None else point.seen / self.samples
        by_minutes = 0.0 if self.minutes is None else point.elapsed / 60 / self.minutes
        return max(point.step / self.steps, by_samples, by_minutes)


class Schedule:
    """Schedule of the phases of a run, with the current phase.

    Phases with `steps` have that length; the others share the remaining steps. Each phase has at least one step, even
    if a limit is reached before it begins. The last phase lasts until the run ends.

    Args:
        phases: the phases in order. Lengths in `epochs` must have been converted; see `in_steps`.
        limits: limits of the run.

    Attributes:
        ends: number of completed steps at which each phase ends if steps are the only limit.
        starts: number of completed steps at which each phase began, up to the current one.
        start: point in the run at which the current phase began.

    Raises:
        RecipeError: there are too few steps for the phases.
    """

    def __init__(self, phases: Sequence[Phase], limits: Limits):
        self.phases, self.limits = tuple(phases), limits
        self.ends = cut(self.phases, limits.steps)
        self.starts: list[int] = []
        self.start = Point()

    @property
    def number(self) -> int:
        """Index of the current phase; -1 before the first."""
        return len(self.starts) - 1

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases[self.number]

    @property
    def in_last(self) -> bool:
        """Whether the current phase is the last."""
        return len(self.starts) == len(self.phases)

    def enter(self, point: Point) -> None:
        """Begins the next phase."""
        self.starts.append(point.step)
        self.start = point

    def load(self, starts: Sequence[int], start: Point, ends: Sequence[int]) -> None:
        """Restores a saved plan.

        Phases that have ended keep their steps. The last phase ends at the current limit. The others end as planned, or
        earlier if that is necessary to leave a step for each later phase.

        Raises:
            ValueError: the plan has another number of phases.
        """
        if len(ends) != len(self.phases) or not 0 < len(starts) <= len(ends):
            saved = f"it is in phase {len(starts)} of {len(ends)}"
            raise ValueError(f"{saved}, but the game has {len(self.phases)} phases")
        last = [self.limits.steps - left for left in range(len(ends) - 1, -1, -1)]
        self.starts, self.start = list(starts), start
        self.ends = [*(min(end, latest) for end, latest in zip(ends[:-1], last, strict=False)), self.limits.steps]

    def over(self, point: Point) -> bool:
        """Returns whether the run has reached a limit and every phase has had a step."""
        if point.step >= self.limits.steps:
            return True
        return self.in_last and self.limits.progress(point) >= 1

    def due(self, point: Point) -> bool:
        """Returns whether the next phase begins at this point."""
        if self.in_last or not self.starts:
            return not self.starts
        if self.limits.only_steps:
            return point.step >= self.ends[self.number]
        left = len(self.phases) - len(self.starts)
        if point.step >= self.limits.steps - left:
            return True
        progress, fixed = self.limits.progress(point), self.phase.steps
        if fixed is not None:
            return progress >= 1 or point.step - self.start.step >= fixed
        return progress >= self._end(point)

    def done(self, point: Point) -> int:
        """Returns the completed steps of the current phase."""
        return point.step - self.start.step

    def progress(self, point: Point) -> float:
        """Returns the completed fraction of the current phase, in [0, 1]."""
        if self.limits.only_steps:
            return min(1.0, self.done(point) / max(1, self.ends[self.number] - self.start.step))
        if self.phase.steps is not None and not self.in_last:
            return min(1.0, self.done(point) / self.phase.steps)
        began = self.limits.progress(self.start)
        share = (1.0 if self.in_last else self._end(point)) - began
        if share <= 0:  # nothing is left of the run: the phase has a single step
            return float(self.done(point) > 0)
        return min(1.0, (self.limits.progress(point) - began) / share)

    def _end(self, point: Point) -> float:
        """Returns the progress of the run at which the current phase ends, from its share of the remaining run.

        The duration of later phases with a fixed number of steps is estimated from the pace of the run so far.
        """
        began, later = self.limits.progress(self.start), self.phases[self.number :]
        pace = self.limits.progress(point) / max(1, point.step)
        fixed = sum(phase.steps for phase in later if phase.steps is not None) * pace
        shares = sum(phase.share for phase in later if phase.share is not None)
        return began + max(0.0, 1 - began - fixed) * (self.phase.share or 0.0) / shares


def cut(phases: Sequence[Phase], steps: int) -> list[int]:
    """Returns the step at which each phase ends, from its own number of steps or its share of the rest (at least one).

    Raises:
        RecipeError: there are too few steps.
    """
    fixed = sum(phase.steps for phase in phases if phase.steps is not None)
    shares = [phase.share for phase in phases if phase.share is not None]
    if steps < fixed + len(shares):
        if not fixed:
            need = f"this game has {len(phases)} phases and needs at least one step for each"
        else:
            names = ", ".join(f"`{phase.name}`" for phase in phases if phase.steps is not None)
            need = (
                f"the phases {names} take {fixed} steps, and every other phase needs at least one; "
                f"set {fixed + len(shares)} or more"
            )
        raise RecipeError(f"`train.steps` is {steps}; {need}")
    rest, total, done, start, shared = steps - fixed, sum(shares), 0.0, 0, []
    for left, share in zip(range(len(shares) - 1, -1, -1), shares, strict=True):
        done += share
        end = max(start + 1, min(round(rest * done / total), rest - left))
        shared.append(end - start)
        start = end
    lengths, ends, end = iter(shared), [], 0
    for phase in phases:
        end += next(lengths) if phase.steps is None else phase.steps
        ends.append(end)
    return [*ends[:-1], steps]


def in_steps(
    phases: Sequence[Phase], epochs: float | None, steps: int, items: Sequence[int], read: Sequence[float]
) -> tuple[list[Phase], int]:
    """Returns the phases with `epochs` converted to `steps`, and the number of steps of the run.

    Args:
        phases: the phases in order.
        epochs: passes over the training items in the whole run, rounded up to whole steps; None uses `steps`.
        steps: number of steps if `epochs` is None. If all phases have a fixed length, the run may be shorter.
        items: number of training items in each phase.
        read: number of samples that one step reads, for each phase.

    Raises:
        RecipeError: the phases of fixed length take all epochs, or all phases have a fixed length.
    """
    lengths = [
        phase if phase.epochs is None else replace(phase, epochs=None, steps=max(1, round(phase.epochs * n / samples)))
        for phase, n, samples in zip(phases, items, read, strict=True)
    ]
    fixed = sum(phase.steps for phase in lengths if phase.steps is not None)
    shares = sum(phase.share for phase in lengths if phase.share is not None)
    if not shares and epochs is not None:
        raise RecipeError(f"`train.epochs` is {epochs:g}, but all phases have a fixed length; leave it out")
    if not shares:
        return lengths, min(steps, fixed)
    if epochs is None:
        return lengths, steps
    each = list(zip(lengths, items, read, strict=True))
    taken = sum(phase.steps * samples / n for phase, n, samples in each if phase.steps is not None)
    rate = sum(phase.share / shares * samples / n for phase, n, samples in each if phase.share is not None)
    open_ = sum(phase.share is not None for phase in lengths)
    if epochs <= taken:
        raise RecipeError(f"`train.epochs` is {epochs:g}, but the phases of fixed length take {taken:.4g}; set more")
    return lengths, fixed + max(open_, math.ceil(round((epochs - taken) / rate, 6)))


def lengths(game: Game, recipe: Recipe, data: FittedData) -> tuple[list[Phase], int]:
    """Returns a game's phases with their `epochs` converted to steps by the size of the data, and the run's steps.

    Args:
        game: the game; the turns of its players are read before the first phase is entered.
        recipe: the recipe; `train.epochs` or `train.steps` sets the length.
        data: the data, fitted to the game's specification.
    """
    phases, settings = list(game.phases()), recipe.train
    if settings.epochs is None and all(phase.epochs is None for phase in phases):
        return in_steps(phases, None, settings.steps, [1] * len(phases), [1.0] * len(phases))
    splits = (hold_out(data.for_training(phase.spec), recipe.data.held_out)[0] for phase in phases)
    read = [(phase.batch_size or settings.batch_size) * batches_read(game, phase, recipe) for phase in phases]
    return in_steps(phases, settings.epochs, settings.steps, [length(split) for split in splits], read)


def batches_read(game: Game, phase: Phase, recipe: Recipe) -> float:
    """Returns the mean number of batches that a step reads: one per turn, or a single one if the turns share it."""
    players = playing(phase, game.players())
    if game.shares_samples(player.name for player in players):
        return 1.0
    return sum(turns / every for turns, every in (turns_of(player, recipe) for player in players))
