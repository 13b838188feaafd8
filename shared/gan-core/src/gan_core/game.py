"""The idea that everything here is written in: a game of players, played in phases.

A game is its networks and its rules. It never loops, never calls `.backward()` or an optimizer, and knows nothing of
devices, precision, processes and files: the trainer does that, alike for every game.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gan_core import draws
from gan_core.adversary import Adversary, Moment, find_adversaries, means_of, prefixed
from gan_core.blocks import evaluating as evaluating
from gan_core.data.spec import Spec
from gan_core.errors import CheckpointError, RecipeError
from gan_core.objectives import Terms as Terms
from gan_core.recipe import Optimizer, Recipe

if TYPE_CHECKING:
    from gan_core.seat import Seat

Batch = dict[str, Tensor]

GENERATE_AT_ONCE = 64
"""Samples that `generate` makes in one forward pass; more are made in several."""


@dataclass(frozen=True)
class Player:
    """Who moves: the networks it may change, what it minimises, and how.

    Attributes:
        name: as logs and recipes say it (`players.<name>.optimizer …`).
        networks: what its turns change. All of their parameters are reached by its loss.
        loss: `batch -> {term: scalar}`, already weighted; the sum is minimised.
        turns: how often it moves in a round, on a fresh batch each time.
        optimizer: where it is not the recipe's.
        step: how it moves, where that is not plain descent: `(seat, batches) -> {term: scalar}` leaves gradients in the
            parameters and calls `seat.update()` (training with differential privacy does).
    """

    name: str
    networks: tuple[nn.Module, ...]
    loss: Callable[[Batch], Terms]
    turns: int = 1
    optimizer: Optimizer | None = None
    step: Callable[[Seat, Sequence[Batch]], Terms] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """The parameters of its networks, each once."""
        return list(dict.fromkeys(parameter for network in self.networks for parameter in network.parameters()))


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Attributes:
        name: as logs say it.
        players: who plays, by name; None is everyone. Networks that no player of the phase owns are frozen and in
            evaluation mode.
        share: of the training's steps, relative to the other phases' shares.
        spec: fields of the data specification that are other than the game's in this phase: `{"image_size": 16}`.
        batch_size: where it is not the recipe's.
    """

    name: str = "adversarial"
    players: tuple[str, ...] | None = None
    share: float = 1.0
    spec: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None


class Game(nn.Module, ABC):
    """Networks and rules. A subclass defines `players`, and `sample` where it can make samples from nothing.

    Attributes:
        recipe: what it was built from; None for a game put together by hand.
        sampling: names of the networks that samples are made with: the ones that are averaged over the steps (EMA).
        reads: keys of the batch that its losses read; empty for those of its data specification.
        paired: whether the parts of an item that it reads belong together; otherwise they come from separate sets.
        stagers: names of the players that `stage` may train through; the others see its results as constants.
        unmeasured: why what it samples is none of its domain's measures' business; None where it is.
        example: what to do with a loaded `game`, as a line of Python for the model card.
        num_classes: of a class-conditional game, else None.
        images: Whether judged samples with two axes besides channels are images, and with three axes clips; see
            `Adversary`.
        moment: Step, progress, batch size and optimizers, which its adversaries share.
        phase: the phase that is being played; set by the trainer, like `step`, `progress`, `batch_size` and
            `optimizers`.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    sampling: ClassVar[tuple[str, ...]] = ("generator",)
    paired: ClassVar[bool] = True
    stagers: ClassVar[tuple[str, ...]] = ("generator",)
    unmeasured: ClassVar[str | None] = None
    images: ClassVar[bool] = True
    example: ClassVar[str] = "samples = game.generate(16, seed=0)"

    def __init__(self) -> None:
        super().__init__()
        self.recipe: Recipe | None = None
        self.num_classes: int | None = None
        self.moment, self.phase = Moment(), Phase()
        self._notes: dict[str, list[Tensor]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            for adversary in self.adversaries.values():
                adversary.moment = self.moment

    @property
    def adversaries(self) -> dict[str, Adversary]:
        """Its adversaries by their attributes' names."""
        return dict(find_adversaries(self))

    @property
    def step(self) -> int:
        """Rounds played so far."""
        return self.moment.step

    @step.setter
    def step(self, step: int) -> None:
        self.moment.step = step

    @property
    def progress(self) -> float:
        """Share of the phase that is done, in [0, 1)."""
        return self.moment.progress

    @progress.setter
    def progress(self, progress: float) -> None:
        self.moment.progress = progress

    @property
    def batch_size(self) -> int:
        """Global batch size, over all processes."""
        return self.moment.batch_size

    @batch_size.setter
    def batch_size(self, batch_size: int) -> None:
        self.moment.batch_size = batch_size

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimizers of the phase's players, by name, for a loss that looks ahead; empty outside a training."""
        return self.moment.optimizers

    @optimizers.setter
    def optimizers(self, optimizers: dict[str, torch.optim.Optimizer]) -> None:
        self.moment.optimizers = optimizers

    # The rules, for subclasses.

    @abstractmethod
    def players(self) -> Iterable[Player]:
        """The cast, in the order of play. Asked anew at the start of every phase."""

    def data_spec(self) -> Spec:
        """Returns what the networks need of the data; fields that they leave open are set by the recipe."""
        return Spec()

    @property
    def spec(self) -> Spec:
        """What the data are fitted to: `data_spec` with the recipe's `data.spec` laid over it."""
        return self.spec_with({} if self.recipe is None else self.recipe.data.spec)

    def spec_with(self, changes: Mapping[str, Any]) -> Spec:
        """Returns `data_spec` with some fields set.

        Raises:
            RecipeError: a field is unknown or out of range, or contradicts the networks.
        """
        own = self.data_spec()
        spec = own.but(changes)
        for name, value in own.fixed().items():
            if getattr(spec, name) != value:
                given = f"`data.spec.{name}` is {getattr(spec, name)}, and the game needs {value}"
                change = (
                    f"set `network.{name}`"
                    if name in (self.recipe.network if self.recipe else ())
                    else "change the game"
                )
                raise RecipeError(f"{given}; leave it out, or {change}")
        return spec

    @property
    def data_keys(self) -> tuple[str, ...]:
        """Keys that the data must have: `reads`, else the specification's key, and `label` where there are classes."""
        if self.reads:
            return self.reads
        label = ("label",) if self.num_classes is not None else ()
        return self.data_spec().parts + label

    def phases(self) -> Iterable[Phase]:
        """The parts of a training, in order."""
        return (Phase(),)

    def enter(self, phase: Phase) -> None:
        """Called at the start of every phase, before `players` (and again when a run is resumed): grow or swap here."""

    def study(self, training: Dataset[Batch]) -> None:
        """Called once, before a training's first step, with its data: statistics of them become buffers here.

        Every process does it alike. A run that is resumed has them from its checkpoint.
        """

    def stage(self, batch: Batch) -> Batch:
        """Defined where the players of one round look at the same generated samples: the batch with what was made.

        It runs once a round, on one batch that all players share, and then every player has one turn a round.
        """
        return batch

    def sample(self, count: int) -> Tensor:
        """`count` new samples. A subclass with classes or truncation adds the keywords `label` and `truncation`."""
        other = "; use `game.apply(batch)`" if type(self).apply is not Game.apply else "; give it data"
        raise RecipeError(f"{type(self).__name__} makes no samples from nothing{other}")

    def apply(self, batch: Any) -> Any:
        """Returns what the game makes of each item of a batch, by name; defined where it turns items into items.

        `Module.apply(function)` works as ever.
        """
        if callable(batch):
            return super().apply(batch)
        other = "; use `generate`" if type(self).sample is not Game.sample else ""
        raise RecipeError(f"{type(self).__name__} does not turn items into items: it defines no `apply`{other}")

    def reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Defined where a game makes something of data: real items `[N, …]` and what it makes of each, of that shape.

        They are what measures of pairs compare.
        """
        raise RecipeError(f"{type(self).__name__} makes samples from nothing; there is nothing to compare them with")

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Returns what a training shows at intervals, made from a fixed batch of its data: named rows of samples.

        By default it is what `apply` makes beside what it reads, or new samples.
        """
        if type(self).apply is not Game.apply:
            return {key: batch[key] for key in self.data_keys if key != "label"} | self.apply(batch)
        return {"generated": self.generate(len(next(iter(batch.values()))), seed=0)}

    def realness(self, batch: Batch) -> dict[str, Tensor]:
        """Returns how real each adversary finds the items of a batch, `[N]` by its name; empty if none judges them."""
        return {}

    @property
    def steers(self) -> bool:
        """Whether `after_turn` does anything; only then are the values averaged over the processes."""
        own = type(self).after_turn is not Game.after_turn
        return own or any(adversary.steers for adversary in self.adversaries.values())

    def after_turn(self, player: str, values: Terms) -> None:
        """Updates state that steers the game, after every turn of a player; here, that of the adversaries.

        A subclass that overrides it calls `super().after_turn(player, values)`. A loss must not change state: it runs
        once for every part of an accumulated batch, and in every process.

        Args:
            player: The player that moved.
            values: Its terms and notes: means over parts and processes, constant and on the device. State is a buffer,
                changed under `torch.no_grad`.
        """
        adversaries = self.adversaries
        for name, adversary in adversaries.items():
            start = f"{name}/" if len(adversaries) > 1 else ""
            own = {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
            adversary.after_turn(own)

    def note(self, name: str, value: Tensor) -> None:
        """Logs a value that is watched and not minimised, beside the terms of the player that moves."""
        self._notes.setdefault(name, []).append(value.detach().float())

    def take_notes(self) -> Terms:
        """Returns the means of the values noted since the last call, by the game and its adversaries."""
        notes, self._notes = self._notes, {}
        means = means_of(notes)
        adversaries = self.adversaries
        for name, adversary in adversaries.items():
            taken = adversary.take_notes()
            means |= prefixed(name, taken) if len(adversaries) > 1 else taken
        return means

    # For users.

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    def generate(
        self, count: int, *, seed: int | None = None, label: int | Tensor | None = None, truncation: float | None = None
    ) -> Tensor:
        """New samples, in evaluation mode.

        Args:
            count: how many.
            seed: the same seed gives the same samples, however many are asked for; None draws one.
            label: the class of all, or of each `[count]`; None goes through the classes in turn.
            truncation: ψ in (0, 1], less variety for more typical samples.

        Returns:
            `[count, …]` in the data's range ([-1, 1] for images and audio).

        Raises:
            RecipeError: the game has no classes or no truncation, or a value is out of range.
        """
        if count < 1:
            raise RecipeError(f"cannot generate {count} samples; ask for 1 or more")
        seed = int(torch.randint(2**31, ())) if seed is None else seed
        conditions = self._conditions(count, label, truncation)
        return torch.cat([self._part(part, count, seed, conditions) for part in range(-(-count // GENERATE_AT_ONCE))])

    def generated(self, count: int, *, seed: int, start: int = 0) -> Iterator[Tensor]:
        """The samples of `generate(count, seed=seed)` in parts, so that they need not be in memory together.

        Args:
            count: how many there are in all.
            seed: of the samples.
            start: the first that is wanted, a multiple of `GENERATE_AT_ONCE`.
        """
        conditions = self._conditions(count, None, None)
        for part in range(start // GENERATE_AT_ONCE, -(-count // GENERATE_AT_ONCE)):
            yield self._part(part, count, seed, conditions)

    @torch.no_grad()
    def _part(self, part: int, count: int, seed: int, conditions: Mapping[str, Any]) -> Tensor:
        """One of the parts in which samples are made; it depends on the seed and its number alone."""
        rows = slice(part * GENERATE_AT_ONCE, min((part + 1) * GENERATE_AT_ONCE, count))
        chosen = {key: value[rows] if isinstance(value, Tensor) else value for key, value in conditions.items()}
        own, made = draws.mix(seed, part), rows.stop - rows.start
        with evaluating(self), torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            draws.seed_torch(own, self.device)  # of what `sample` draws from torch itself
            with draws.drawing(own, self.device, rows=made, total=GENERATE_AT_ONCE):
                return self.sample(made, **chosen)

    def _conditions(self, count: int, label: int | Tensor | None, truncation: float | None) -> dict[str, Any]:
        takes = inspect.signature(self.sample).parameters
        title = type(self).__name__ if self.recipe is None else self.recipe.system
        conditions: dict[str, Any] = {}
        if truncation is not None:
            if "truncation" not in takes:
                raise RecipeError(f"{title} has no truncation; leave it out")
            if not 0 < truncation <= 1:
                raise RecipeError(f"`truncation` is {truncation}; it must be above 0 and at most 1")
            conditions["truncation"] = truncation
        if self.num_classes is None:
            if label is not None:
                raise RecipeError(
                    f"this {title} was trained without classes; leave `label` out, or set `network.num_classes`"
                )
            return conditions
        labels = torch.arange(count) % self.num_classes if label is None else _labels(label, count)
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise RecipeError(f"`label` is {label}; it must be from 0 to {self.num_classes - 1}")
        return conditions | {"label": labels.to(self.device)}

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes a model folder: `config.json`, `model.safetensors` and a model card."""
        from gan_core.model import save_model

        return save_model(self, Path(folder))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """The game of a model folder, a run folder or a hub repository id.

        Raises:
            CheckpointError: there is none, it is damaged, or it is another kind of game.
        """
        from gan_core.api import load

        game = load(path)
        if not isinstance(game, cls):
            raise CheckpointError(f"{path}: holds a {type(game).__name__}, not a {cls.__name__}")
        return game

    def restore(self, path: str | Path) -> Self:
        """Loads the weights of a run or model folder into this game: the way back for a game put together by hand.

        Raises:
            CheckpointError: there is none, it is damaged, or its networks are not this game's.
        """
        from gan_core.model import restore

        restore(self, path)
        return self

    def push_to_hub(self, repository: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model folder to the Hugging Face hub and returns its address."""
        from gan_core.model import push

        return push(self, repository, private=private, token=token)


def _labels(label: int | Tensor, count: int) -> Tensor:
    labels = torch.as_tensor(label)
    if labels.is_floating_point():
        raise RecipeError(f"`label` is {label}; classes are whole numbers")
    if labels.ndim and labels.shape != (count,):
        given = f"`label` has the shape {list(labels.shape)}"
        raise RecipeError(f"{given}; give one class, or one for each of {count} samples")
    return labels.long().expand(count)
