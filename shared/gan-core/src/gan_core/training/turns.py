"""One step of training: the turns of the players."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from gan_core.data import Batch
from gan_core.draws import mix, seed_torch
from gan_core.errors import GanError
from gan_core.training.player_state import PRECISIONS, PlayerState, autocast, share_of_draws
from gan_core.training.schedule import Point
from gan_core.training.state import Training

GRADIENT_NORM = "gradient_norm"
"""Name in the log of a player's gradient norm, which is measured in the last step before each line of the log."""


MOST_ROWS = 64
"""Largest batch that `least_rows` tries."""


class Staged(NamedTuple):
    """The batch that the turns of a step share.

    Attributes:
        keys: keys of the data; all other keys were added by `Game.stage`.
        parts: the staged batch, in the parts over which gradients are accumulated.
    """

    keys: set[str]
    parts: list[Batch]


def play_step(training: Training) -> None:
    """Runs one step: the turns of every player that takes part in it, then the update of the moving average."""
    game, done = training.game, training.schedule.done(training.point)
    moving = [state for state in training.states if done % state.every == 0]
    staged = _stage(training, moving) if training.staging else None
    next_line = training.step + training.log_every - training.step % training.log_every
    for state in training.states:  # before any turn: a game may read the learning rates of all players
        state.set_rate(game.progress, done)
    for place, state in enumerate(training.states, start=1):
        if state in moving:
            state.watched, state.gradient_norm = training.step + state.every >= next_line, None
            _take_turns(training, state, place, staged)
    if training.average is not None:
        training.average.update(training.step, game.batch_size)
    elapsed = 0.0
    if training.settings.minutes is not None:
        elapsed = training.processes.highest(round(training.clock.seconds() * 1e6)) / 1e6
    training.reach(Point(training.step + 1, training.seen, elapsed))


def least_rows(training: Training) -> int | None:
    """Returns the least number of rows, from 2, on which the losses of all players can be computed, or None.

    It is asked for if a step failed, and changes the state of the game.
    """
    batch = next(training.stream)
    for rows in range(2, MOST_ROWS + 1):
        part = {key: value[torch.arange(rows, device=value.device) % len(value)] for key, value in batch.items()}
        try:
            with share_of_draws(0, training.processes, 0, 1, part), torch.no_grad():
                part = training.game.stage(dict(part)) if training.staging else part
            for state in training.states:
                with share_of_draws(0, training.processes, 0, 1, part):
                    state.loss(part)
        except (ValueError, GanError):
            continue
        return rows
    return None


def _take_turns(training: Training, state: PlayerState, place: int, staged: Staged | None) -> None:
    """Runs a player's turns; `place` is the player's position in the step, from 1."""
    game, name = training.game, state.player.name
    _give_turn_to(training, [state])
    for turn in range(state.turns):
        seed = _seed(training, place, turn)
        read = partial(_next_batches, training) if staged is None else partial(_staged_for, training, state, staged)
        values = state.move(training.regime.batches(state.player, read), seed) | game.take_notes()
        training.losses.add(name, values)
        if state.gradient_norm is not None:
            training.losses.add(name, {GRADIENT_NORM: state.gradient_norm})
        if training.has_after_turn:
            game.after_turn(name, training.mean_over_processes(values))


def _stage(training: Training, moving: Sequence[PlayerState]) -> Staged:
    """Stages the step's batch; only the parameters of the moving stagers require gradients."""
    game, processes = training.game, training.processes
    _give_turn_to(training, [state for state in moving if state.player.name in game.stagers])
    seed, precision = _seed(training, 0, 0), PRECISIONS.get(training.settings.precision)
    batches, parts = _next_batches(training), []
    for index, batch in enumerate(batches):
        with share_of_draws(seed, processes, index, len(batches), batch), autocast(processes.device, precision):
            parts.append(game.stage(dict(batch)))
    return Staged(set(batches[0]), parts)


def _staged_for(training: Training, state: PlayerState, staged: Staged) -> list[Batch]:
    """Returns the staged batch for a player's turn; staged tensors are detached unless the player is a stager."""
    if state.player.name in training.game.stagers:
        return staged.parts
    return [{key: t if key in staged.keys else t.detach() for key, t in part.items()} for part in staged.parts]


def _next_batches(training: Training) -> list[Batch]:
    """Returns the next batch, split into the parts over which gradients are accumulated."""
    batch, count = next(training.stream), training.settings.accumulate
    training.seen += training.stream.batch_size
    if count == 1:
        return [batch]
    parts = {key: value.tensor_split(count) for key, value in batch.items()}
    return [{key: parts[key][index] for key in parts} for index in range(count)]


def _give_turn_to(training: Training, movers: Sequence[PlayerState]) -> None:
    """Sets only the movers' parameters to require gradients, including those shared with other players."""
    for state in training.states:
        if state not in movers:
            state.allow(False)
    for state in movers:
        state.allow(True)


def _seed(training: Training, place: int, turn: int) -> int:
    """Returns the seed of a turn and seeds torch's generators with it, differently in every process."""
    seed = mix(training.settings.seed, training.step, place, turn)
    seed_torch(mix(seed, training.processes.rank), training.processes.device)
    return seed
