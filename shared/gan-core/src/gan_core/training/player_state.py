"""State of a player during training: its optimizer, gradient scaler and learning rate, and the code of its turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gan_core import draws
from gan_core.data import Batch
from gan_core.distributed import Processes
from gan_core.errors import RecipeError, unknown
from gan_core.play.judgement import total
from gan_core.play.objectives import Terms
from gan_core.play.player import Phase, Player
from gan_core.recipe import PlayerSettings, Recipe
from gan_core.training.optimizers import make_optimizer, rate_factor

LOSS_RETURNS = 'a loss returns named scalars, such as {"adversarial": loss.mean()}'
"""Last part of error messages about the return value of a loss."""
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Reduced precisions by their name in recipes."""


class _Loss(nn.Module):
    """A player's loss as a module with the player's parameters, for DistributedDataParallel.

    It has no buffers, because they are already equal in all processes and need not be broadcast at every step.
    """

    def __init__(self, player: Player):
        super().__init__()
        self.changed = nn.ParameterList(player.parameters())
        self.player = player

    def forward(self, batch: Batch) -> Terms:
        return self.player.loss(batch)


class PlayerState:
    """State of a player in a phase.

    Attributes:
        player: the player.
        turns: number of turns in each step in which it takes part.
        every: interval in steps at which it takes part, from the first step of a phase.
        parameters: parameters that it trains.
        optimizer: the torch optimizer.
        watched: whether the next turns compute `gradient_norm`, which takes a pass over the gradients.
        gradient_norm: norm of the gradient in the last watched turn, before clipping; None before that.

    Args:
        player: the player.
        recipe: recipe with the settings of `players` and `optimizer`.
        processes: processes of the training run.
    """

    def __init__(self, player: Player, recipe: Recipe, processes: Processes):
        self.player, self.processes = player, processes
        self.parameters = player.parameters()
        self.settings = recipe.player_optimizer(player.name, player.optimizer)
        self.turns, self.every = turns_of(player, recipe)
        if not self.parameters:
            nothing = f"the player `{player.name}` has nothing to train: all its parameters are frozen"
            raise RecipeError(f"{nothing}; unfreeze some, or remove the player")
        self.optimizer = make_optimizer(self.settings, self.parameters)
        self.precision = PRECISIONS.get(recipe.train.precision)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=self.precision is torch.float16)
        self._loss = player.loss if processes.count == 1 else DistributedDataParallel(_Loss(player))
        self._seed = 0
        self.watched = False
        self.gradient_norm: Tensor | None = None

    def allow(self, moves: bool) -> None:
        """Sets whether the player's parameters require gradients."""
        for parameter in self.parameters:
            parameter.requires_grad_(moves)

    def set_rate(self, progress: float, step: int) -> None:
        """Sets the learning rate for a point in the phase; see `rate_factor`."""
        rate = self.settings.learning_rate * rate_factor(self.settings.schedule, progress, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def move(self, batches: Sequence[Batch], seed: int) -> Terms:
        """Runs one turn.

        Args:
            batches: the batch, split into the parts over which gradients are accumulated.
            seed: random seed of the turn.

        Returns:
            The terms, detached, on the device.
        """
        self._seed = seed
        return (self.player.step or descend)(self, batches)

    def part(self, index: int, count: int, batch: Batch) -> AbstractContextManager[object]:
        """Returns the context manager for the loss and the backward pass of a part.

        It selects the part's rows of the random draws, and synchronises gradients only in the last part.
        """
        drawing = share_of_draws(self._seed, self.processes, index, count, batch)
        if not isinstance(self._loss, DistributedDataParallel) or index + 1 == count:
            return drawing
        both = ExitStack()
        both.enter_context(drawing)
        both.enter_context(self._loss.no_sync())
        return both

    def loss(self, batch: Batch) -> Terms:
        """Returns the player's loss terms on a batch, in the recipe's precision."""
        try:
            with autocast(self.processes.device, self.precision):
                terms: Terms = self._loss(batch)
        except Exception as error:
            shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in batch.items())
            error.add_note(f"(in the loss of the player `{self.player.name}`, on a batch of {shapes})")
            raise
        return self._checked(terms)

    def _checked(self, terms: Terms) -> Terms:
        """Returns the terms of a loss after checking their types and shapes."""
        if not isinstance(terms, dict) or not terms:
            raise RecipeError(f"the loss of `{self.player.name}` returned {type(terms).__name__}; {LOSS_RETURNS}")
        for name, term in terms.items():
            if not isinstance(term, Tensor) or term.ndim:
                given = f"of shape {list(term.shape)}" if isinstance(term, Tensor) else f"a {type(term).__name__}"
                raise RecipeError(f"the term `{name}` of `{self.player.name}` is {given}; {LOSS_RETURNS}")
        return terms

    def backward(self, loss: Tensor) -> None:
        """Runs the backward pass of the loss, which adds to the parameters' gradients."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Updates the parameters and clears their gradients."""
        if self.scaler.is_enabled() and (self.watched or self.settings.clip_norm is not None):
            self.scaler.unscale_(self.optimizer)
        if self.watched:
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            self.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()


def frozen(game: nn.Module) -> set[nn.Parameter]:
    """Returns the parameters that do not require gradients; before the first turn, those that the game itself froze."""
    return {parameter for parameter in game.parameters() if not parameter.requires_grad}


def release(game: nn.Module, fixed: set[nn.Parameter]) -> None:
    """Sets all parameters of a game to require gradients, except those in `fixed`."""
    for parameter in game.parameters():
        parameter.requires_grad_(parameter not in fixed)


def playing(phase: Phase, players: Iterable[Player]) -> list[Player]:
    """Returns the players that take part in a phase, in the order of their turns.

    Raises:
        RecipeError: the phase lists an unknown player, or no players.
    """
    known = {player.name: player for player in players}
    for name in known if phase.players is None else phase.players:
        if name not in known:
            raise unknown(f"player in phase `{phase.name}`", name, known)
    found = [player for name, player in known.items() if phase.players is None or name in phase.players]
    if not found:
        raise RecipeError(f"the phase `{phase.name}` has no players; list at least one in `players`")
    return found


def turns_of(player: Player, recipe: Recipe) -> tuple[int, int]:
    """Returns a player's `turns` and `every`, from the recipe's settings if given and otherwise its own."""
    settings = recipe.players.get(player.name, PlayerSettings())
    return settings.turns or player.turns, settings.every or player.every


def descend(state: PlayerState, batches: Sequence[Batch]) -> Terms:
    """Runs the default step: minimises the sum of the terms, with the gradient averaged over the parts of the batch."""
    sums: Terms = {}
    for index, batch in enumerate(batches):
        with state.part(index, len(batches), batch):
            terms = state.loss(batch)
            loss = total(terms.values())
            state.backward(loss / len(batches) if len(batches) > 1 else loss)
        for name, term in terms.items():
            value = term.detach().float()
            sums[name] = value if len(batches) == 1 else sums.get(name, 0.0) + value / len(batches)
    state.update()
    return sums


def autocast(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[object]:
    """Returns an autocast context manager; None as `precision` selects fp32."""
    return nullcontext() if precision is None else torch.autocast(device.type, dtype=precision)


def share_of_draws(seed: int, processes: Processes, index: int, count: int, batch: Batch) -> draws.drawing:
    """Returns the context manager for random draws of one of `count` parts of this process's share of the batch."""
    rows = len(next(iter(batch.values())))
    start, total = (processes.rank * count + index) * rows, count * processes.count * rows
    return draws.drawing(seed, processes.device, start=start, rows=rows, total=total)
