"""A player at the table: with its optimizer, its scaler, its share of the processes, and the step that it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gan_core import draws
from gan_core.distributed import Processes
from gan_core.errors import RecipeError, unknown
from gan_core.game import Batch, Phase, Player, Terms
from gan_core.judgement import total
from gan_core.optimizers import make_optimizer, rate_factor
from gan_core.recipe import PlayerSettings, Recipe

LOSS_RETURNS = 'a loss returns named scalars, such as {"adversarial": loss.mean()}'
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class _Loss(nn.Module):
    """A player's loss as a module that has what the player changes: DistributedDataParallel wraps such a one.

    It has no buffers, which would be sent around at every step: they are the same in all processes already.
    """

    def __init__(self, player: Player):
        super().__init__()
        self.changed = nn.ParameterList(player.parameters())
        self.player = player

    def forward(self, batch: Batch) -> Terms:
        return self.player.loss(batch)


class Seat:
    """What a player needs to move.

    Attributes:
        player: who sits here.
        turns: number of its turns in a step in which it moves.
        every: steps between those steps.
        parameters: what it changes.
        optimizer: torch's.
        watched: whether the next turns measure `gradient_norm`, which costs a pass over the gradients.
        gradient_norm: of the last turn that was watched, before any clipping; None where there was none.

    Args:
        player: who sits here.
        recipe: whose `players` and `optimizer` hold for it.
        processes: that train together.
    """

    def __init__(self, player: Player, recipe: Recipe, processes: Processes):
        self.player, self.processes = player, processes
        self.parameters = player.parameters()
        self.settings = recipe.player_optimizer(player.name, player.optimizer)
        self.turns, self.every = turns_of(player, recipe)
        if not self.parameters:
            raise RecipeError(f"the player `{player.name}` has nothing to train: all its parameters are frozen")
        self.optimizer = make_optimizer(self.settings, self.parameters)
        self.precision = PRECISIONS.get(recipe.train.precision)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=self.precision is torch.float16)
        self._loss = player.loss if processes.count == 1 else DistributedDataParallel(_Loss(player))
        self._seed = 0
        self.watched = False
        self.gradient_norm: Tensor | None = None

    def allow(self, moves: bool) -> None:
        """Lets gradients reach its parameters, or not."""
        for parameter in self.parameters:
            parameter.requires_grad_(moves)

    def set_rate(self, progress: float, step: int) -> None:
        """Sets the learning rate for a place in the phase; see `rate_factor`."""
        rate = self.settings.learning_rate * rate_factor(self.settings.schedule, progress, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def move(self, batches: Sequence[Batch], seed: int) -> Terms:
        """One turn.

        Args:
            batches: the batch, in as many parts as gradients are accumulated over.
            seed: of the turn's draws.

        Returns:
            The terms, on the device and without gradients.
        """
        self._seed = seed
        return (self.player.step or descend)(self, batches)

    def part(self, index: int, count: int, batch: Batch) -> AbstractContextManager[object]:
        """Around the loss and the backward pass of one part: its rows of the draws, and no exchange before the last."""
        drawing = share_of_draws(self._seed, self.processes, index, count, batch)
        if not isinstance(self._loss, DistributedDataParallel) or index + 1 == count:
            return drawing
        both = ExitStack()
        both.enter_context(drawing)
        both.enter_context(self._loss.no_sync())
        return both

    def loss(self, batch: Batch) -> Terms:
        """The player's terms on a batch, in the recipe's precision."""
        try:
            with autocast(self.processes.device, self.precision):
                terms: Terms = self._loss(batch)
        except Exception as error:
            shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in batch.items())
            error.add_note(f"(in the loss of the player `{self.player.name}`, on a batch of {shapes})")
            raise
        return self._checked(terms)

    def _checked(self, terms: Terms) -> Terms:
        """What a loss returned, if it is what a loss should return."""
        if not isinstance(terms, dict) or not terms:
            raise RecipeError(f"the loss of `{self.player.name}` returned {type(terms).__name__}; {LOSS_RETURNS}")
        for name, term in terms.items():
            if not isinstance(term, Tensor) or term.ndim:
                given = f"of shape {list(term.shape)}" if isinstance(term, Tensor) else f"a {type(term).__name__}"
                raise RecipeError(f"the term `{name}` of `{self.player.name}` is {given}; {LOSS_RETURNS}")
        return terms

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradients to the parameters'."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Moves the parameters along their gradients, and clears them."""
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
    """Returns the parameters that require no gradients; before anybody moves, these are those that the author froze."""
    return {parameter for parameter in game.parameters() if not parameter.requires_grad}


def release(game: nn.Module, fixed: set[nn.Parameter]) -> None:
    """Lets gradients reach all parameters of a game except the fixed ones."""
    for parameter in game.parameters():
        parameter.requires_grad_(parameter not in fixed)


def playing(phase: Phase, players: Iterable[Player]) -> list[Player]:
    """Returns the players that take part in a phase, in the order of their turns.

    Raises:
        RecipeError: the phase names a player that there is not, or nobody takes part.
    """
    known = {player.name: player for player in players}
    for name in known if phase.players is None else phase.players:
        if name not in known:
            raise unknown(f"player in phase `{phase.name}`", name, known)
    found = [player for name, player in known.items() if phase.players is None or name in phase.players]
    if not found:
        raise RecipeError(f"nobody plays in the phase `{phase.name}`; name a player")
    return found


def turns_of(player: Player, recipe: Recipe) -> tuple[int, int]:
    """Returns a player's turns in a step and the steps between them: the recipe's, or else its own."""
    settings = recipe.players.get(player.name, PlayerSettings())
    return settings.turns or player.turns, settings.every or player.every


def descend(seat: Seat, batches: Sequence[Batch]) -> Terms:
    """The plain step: down the mean gradient of the sum of the terms."""
    sums: Terms = {}
    for index, batch in enumerate(batches):
        with seat.part(index, len(batches), batch):
            terms = seat.loss(batch)
            loss = total(terms.values())
            seat.backward(loss / len(batches) if len(batches) > 1 else loss)
        for name, term in terms.items():
            value = term.detach().float()
            sums[name] = value if len(batches) == 1 else sums.get(name, 0.0) + value / len(batches)
    seat.update()
    return sums


def autocast(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[object]:
    """The arithmetic of a forward pass: full where `precision` is None."""
    return nullcontext() if precision is None else torch.autocast(device.type, dtype=precision)


def share_of_draws(seed: int, processes: Processes, index: int, count: int, batch: Batch) -> draws.drawing:
    """Returns a context with the draws for one part of `count` of this process's share of the batch."""
    rows = len(next(iter(batch.values())))
    start, total = (processes.rank * count + index) * rows, count * processes.count * rows
    return draws.drawing(seed, processes.device, start=start, rows=rows, total=total)
