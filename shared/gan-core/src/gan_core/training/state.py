"""The state of a training run: the current phase, its players, its data stream and its clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gan_core.data import FittedData, hold_out
from gan_core.distributed import Processes, share_batch_statistics
from gan_core.draws import mix, seed_torch
from gan_core.errors import RecipeError
from gan_core.play.game import Game
from gan_core.play.objectives import Terms
from gan_core.play.player import Phase, Player
from gan_core.recipe import Recipe, TrainSettings
from gan_core.training.averaging import Average
from gan_core.training.diagnostics import SampleDiagnostics
from gan_core.training.layout import lay_out
from gan_core.training.logging import LossMeans
from gan_core.training.player_state import PlayerState, frozen, playing, release
from gan_core.training.regime import Regime
from gan_core.training.schedule import Limits, Point, Schedule, lengths


class Clock:
    """Clock of the training time in seconds, which excludes evaluations.

    Attributes:
        elapsed: seconds up to the last lap, including those before the run was resumed.
    """

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.start()

    def start(self) -> None:
        """Starts the current lap now."""
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Returns the training time up to now."""
        return self.elapsed + time.perf_counter() - self._started

    def lap(self) -> float:
        """Ends the current lap, starts the next one, and returns the duration of the ended lap in seconds."""
        started, self._started = self._started, time.perf_counter()
        self.elapsed += self._started - started
        return self._started - started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager whose time is not counted as training time."""
        began = time.perf_counter()
        yield
        self._started += time.perf_counter() - began


class Training:
    """A game in training. `enter_due` enters its phases; `gan_core.training.turns.play_step` trains one step.

    Attributes:
        point: completed steps, samples read and seconds of training after the last step; equal in all processes.
        seen: samples read, over all processes, including those of the current step.
        schedule: the phases.
        losses: means of the terms since the last line of the log.
        average: moving average of the weights; None if the recipe has none.
        frozen: parameters that the game itself froze, as of the current phase.
        states: states of the current phase's players, in the order of their turns.
        staging: whether the turns of a step share the batch that `Game.stage` returns.
        has_after_turn: whether `Game.after_turn` has an effect.
        log_every: steps between lines of the log in the current phase.
        sample_every: steps between pictures of samples in the current phase; None for only one at the end.
        checkpoint_every: steps between checkpoints in the current phase; None for only one at the end.
        stream: the current phase's batches.
        diagnostics: diagnostics of samples against the current phase's data.

    Args:
        game: the game, on the device of `processes`.
        recipe: complete recipe.
        data: data, fitted to the game's specification.
        regime: training regime, which the recipe names.
        processes: processes of the training run.
    """

    def __init__(self, game: Game, recipe: Recipe, data: FittedData, regime: Regime, processes: Processes):
        self.game, self.recipe, self.settings, self.data = game, recipe, recipe.train, data
        self.regime, self.processes = regime, processes
        self.frozen = frozen(game)
        self.schedule = Schedule(lengths(game, recipe, data)[0], Limits.of(self.settings))
        self.losses, self.clock = LossMeans(), Clock()
        self.average = None if self.settings.ema is None else Average(game, self.settings.ema)
        self.point, self.seen = Point(), 0
        self.states: list[PlayerState] = []

    @property
    def step(self) -> int:
        """Number of completed steps."""
        return self.point.step

    def reach(self, point: Point) -> None:
        """Sets the current point, and the game's `step` and `progress`."""
        self.point, moment = point, self.game.moment
        moment.step, moment.progress = point.step, self.schedule.progress(point)

    def enter_due(self) -> None:
        """Enters the next phase if it is due, at the start of its data."""
        if self.schedule.due(self.point):
            self.schedule.enter(self.point)
            self.enter(position=0)

    def enter(self, position: int) -> None:
        """Enters the schedule's current phase, with new optimizers, at a position of its data."""
        number, phase = self.schedule.number, self.schedule.phase
        batch_size = self.game.batch_size = phase.batch_size or self.settings.batch_size
        self.log_every, self.sample_every, self.checkpoint_every = intervals(phase, self.settings)
        self.reach(self.point)
        # For new weights: equal in all processes, and when the run is resumed.
        seed_torch(mix(self.settings.seed, number), self.processes.device)
        self.release()
        self.game.enter_phase(number, self.schedule.progress(self.point))
        self.frozen = frozen(self.game)
        lay_out(self.game.to(self.processes.device))
        if self.average is not None:
            self.average.follow(self.game)
        self._make_players(phase)
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

    def _make_players(self, phase: Phase) -> None:
        """Creates the states of the phase's players; networks that none of them trains are frozen."""
        if self.processes.count > 1:
            share_batch_statistics(self.game)
        players = players_of(self.game)
        stagers = self.game.stagers
        if self.game.shares_samples(stagers) and not any(name in players for name in stagers):
            given = f"`stagers` lists {', '.join(stagers)}, but the players are {', '.join(players)}"
            raise RecipeError(f"{self.recipe.system}: {given}; list the player that is trained through `stage`")
        taking_part = playing(phase, players.values())
        self.states = [PlayerState(self.regime.player(player), self.recipe, self.processes) for player in taking_part]
        networks = dict.fromkeys(network for player in taking_part for network in player.networks)
        self.game.eval()
        for network in networks:
            train_mode(network)
        self.game.requires_grad_(False)
        self.game.optimizers = {state.player.name: state.optimizer for state in self.states}
        self.has_after_turn = self.game.has_after_turn
        self.staging = self.game.shares_samples(state.player.name for state in self.states)
        for state in self.states:
            if self.staging and state.player.name in stagers and state.turns > 1:
                what = f"`{state.player.name}` of {self.recipe.system} is trained once per step, through `stage`"
                raise RecipeError(f"{what}; set its `turns` to 1")
        if self.settings.compile:
            for network in networks:
                network.compile()

    def mean_over_processes(self, values: Terms) -> Terms:
        """Returns the means of a turn's values over all processes."""
        if self.processes.count == 1:
            return values
        means = self.processes.mean(torch.stack(list(values.values())))
        return dict(zip(values, means.unbind(), strict=True))

    def release(self) -> None:
        """Sets all parameters of the game to require gradients, except those that the game itself froze."""
        release(self.game, self.frozen)


def players_of(game: Game) -> dict[str, Player]:
    """Returns a game's players by name.

    Raises:
        RecipeError: two players have the same name, or a player's network is not a submodule of the game, so that it
            would not be saved.
    """
    players: dict[str, Player] = {}
    own = {id(parameter) for parameter in game.parameters()}
    for player in game.players():
        if player.name in players:
            raise RecipeError(f"{type(game).__name__} has two players named `{player.name}`; give each its own name")
        if any(id(parameter) not in own for parameter in player.parameters()):
            where = f"the networks of `{player.name}` are not all submodules of the game, so they would not be saved"
            raise RecipeError(f"{where}; make them attributes of the game (several in an nn.ModuleList)")
        players[player.name] = player
    return players


def intervals(phase: Phase, settings: TrainSettings) -> tuple[int, int | None, int | None]:
    """Returns the steps between lines of the log, pictures and checkpoints in a phase."""
    return (
        phase.log_every or settings.log_every,
        phase.sample_every or settings.sample_every,
        phase.checkpoint_every or settings.checkpoint_every,
    )


def train_mode(network: nn.Module) -> None:
    """Sets a network to training mode, except for modules whose parameters are all frozen."""
    network.train()
    for part in network.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()
