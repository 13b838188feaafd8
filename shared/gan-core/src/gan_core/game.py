"""Games: networks and the losses of the players that train them, in one or several phases.

A game never loops and never calls `.backward()` or an optimizer. The trainer does that, and it handles devices,
precision, processes and files in the same way for every game.
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
"""Maximum number of samples that `generate` makes in one forward pass."""


@dataclass(frozen=True)
class Player:
    """A player: the networks that it trains, its loss and its optimizer.

    Attributes:
        name: name in logs and recipes (`players.<name>.optimizer …`).
        networks: networks that it trains. Its loss must depend on all of their parameters.
        loss: maps a batch to scalars by name, already weighted; their sum is minimised.
        turns: number of turns in a step, each on a new batch, or on the staged batch if the game has one.
        every: steps between its turns, counted from the start of the phase: it moves in the phase's first step and in
            every `every`-th step after it.
        optimizer: settings of its optimizer; None uses the recipe's.
        step: replaces the usual backward pass and update: takes the seat and the batches of a turn, computes the
            gradients, calls `seat.update()` and returns scalars by name (for example for differential privacy).
    """

    name: str
    networks: tuple[nn.Module, ...]
    loss: Callable[[Batch], Terms]
    turns: int = 1
    every: int = 1
    optimizer: Optimizer | None = None
    step: Callable[[Seat, Sequence[Batch]], Terms] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Returns the parameters of its networks that require gradients, without duplicates."""
        own = dict.fromkeys(parameter for network in self.networks for parameter in network.parameters())
        return [parameter for parameter in own if parameter.requires_grad]


@dataclass(frozen=True)
class Phase:
    """A part of a training run. Its length is one of `share` (default: 1), `steps` and `epochs`.

    Attributes:
        name: name in logs.
        players: names of the players that take part (default: all). Networks that none of them trains are frozen and in
            evaluation mode.
        share: share of the run that phases with `steps` or `epochs` leave, relative to the other phases' shares.
        spec: values of the data specification's fields that the phase changes: `{"image_size": 16}`.
        batch_size: global batch size; None uses the recipe's.
        steps: number of steps.
        epochs: number of passes over the training items, counted in samples read.
        log_every: steps between lines in the log; None uses the recipe's.
        sample_every: steps between pictures; None uses the recipe's.
        checkpoint_every: steps between checkpoints; None uses the recipe's.

    Raises:
        RecipeError: a value is not positive, or the length is given twice.
    """

    name: str = "adversarial"
    players: tuple[str, ...] | None = None
    share: float | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    steps: int | None = None
    epochs: float | None = None
    log_every: int | None = None
    sample_every: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        lengths = {name: getattr(self, name) for name in ("share", "steps", "epochs")}
        given = {name: value for name, value in lengths.items() if value is not None}
        if len(given) > 1:
            raise RecipeError(f"the phase `{self.name}` has {' and '.join(given)}; give one of share, steps and epochs")
        if not given:
            object.__setattr__(self, "share", 1.0)
        whole = ("batch_size", "log_every", "sample_every", "checkpoint_every")
        for name, value in (given | {name: getattr(self, name) for name in whole}).items():
            if value is not None and not value > 0:
                raise RecipeError(f"`{name}` of the phase `{self.name}` is {value}; it must be positive")


class Game(nn.Module, ABC):
    """Networks and the players that train them. A subclass defines `players`, and `sample` if it is a generative model.

    Attributes:
        recipe: recipe from which it was built; None if it was built by hand.
        sampling: names of the networks that generate samples; their weights are averaged over the steps (EMA).
        reads: keys of the batch that its losses read (default: see `data_keys`).
        paired: whether the parts of an item belong together; False if they come from unpaired datasets.
        stagers: names of the players whose gradients reach the networks through `stage`; for other players, its
            results are constants.
        unmeasured: reason why the domain's metrics do not apply to its samples; None if they do.
        example: a line of Python for the model card that uses a loaded `game`.
        num_classes: number of classes; None if the game is not class-conditional.
        images: whether samples `[B, C, H, W]` are images and `[B, C, T, H, W]` clips; see `Adversary`.
        moment: step, progress, batch size and optimizers, shared with its adversaries and set by the trainer.
        phase: the current phase; see `enter_phase`.
        phase_number: its number among `phases`.
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
        self.moment, self.phase, self.phase_number = Moment(), Phase(), 0
        self._notes: dict[str, list[Tensor]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            for adversary in self.adversaries.values():
                adversary.moment = self.moment

    @property
    def adversaries(self) -> dict[str, Adversary]:
        """The game's adversaries by attribute name; those in a module list or dict as `attribute.key`."""
        return dict(find_adversaries(self))

    @property
    def step(self) -> int:
        """Number of completed steps."""
        return self.moment.step

    @step.setter
    def step(self, step: int) -> None:
        self.moment.step = step

    @property
    def progress(self) -> float:
        """Completed fraction of the current phase, in [0, 1]; updated after every step."""
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
        """Optimizers of the phase's players, by name; empty when no training is running."""
        return self.moment.optimizers

    @optimizers.setter
    def optimizers(self, optimizers: dict[str, torch.optim.Optimizer]) -> None:
        self.moment.optimizers = optimizers

    # The rules, for subclasses.

    @abstractmethod
    def players(self) -> Iterable[Player]:
        """Returns the players in the order of their turns. Called at the start of every phase."""

    def data_spec(self) -> Spec:
        """Returns the data specification that follows from the networks; the recipe or the data set its open fields."""
        return Spec()

    @property
    def spec(self) -> Spec:
        """The specification to which data are converted: `data_spec` updated with the recipe's `data.spec`."""
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
                given = f"`data.spec.{name}` is {getattr(spec, name)}, but the game needs {value}"
                built = {} if self.recipe is None else self.recipe.network
                change = f"set `network.{name}`" if name in built else "change the game"
                raise RecipeError(f"{given}; leave it out, or {change}")
        return spec

    @property
    def data_keys(self) -> tuple[str, ...]:
        """Keys that the data must have: `reads`, or else the specification's key, and `label` if there are classes."""
        if self.reads:
            return self.reads
        label = ("label",) if self.num_classes is not None else ()
        return self.data_spec().parts + label

    def phases(self) -> Iterable[Phase]:
        """Returns the phases of a training run, in order."""
        return (Phase(),)

    def enter(self, phase: Phase) -> None:
        """Called at the start of a phase, and when a run is resumed or a model loaded; override it to grow networks.

        It is called before `players`, for the current phase alone: it must bring the game into that phase from any
        other one.
        """

    def enter_phase(self, number: int, progress: float = 0.0) -> None:
        """Brings the game into one of its phases: sets `phase`, `phase_number` and `progress`, and calls `enter`.

        The phase and the progress in it are saved with a model. A game that was loaded is where its training ended.

        Args:
            number: number of the phase, from 0.
            progress: completed fraction of the phase, in [0, 1].

        Raises:
            RecipeError: the game has no such phase.
        """
        phases = list(self.phases())
        if not 0 <= number < len(phases):
            raise RecipeError(f"{type(self).__name__} has {len(phases)} phases, and none with the number {number}")
        self.phase, self.phase_number, self.progress = phases[number], number, progress
        self.enter(self.phase)

    def save_files(self, folder: Path) -> None:
        """Writes what belongs to the model and is no tensor, such as a tokenizer, as files of a folder.

        They lie beside the weights in a model folder, and in checkpoints. Override it together with `load_files`.
        """

    def load_files(self, folder: Path) -> None:
        """Reads what `save_files` wrote. Called before the weights are loaded, after `enter`."""

    def study(self, training: Dataset[Batch]) -> None:
        """Called once with the training data before the first step; override it to store statistics in buffers.

        It is called in every process and must have the same result in all. It is not called when a run is resumed; the
        buffers are then loaded from the checkpoint.
        """

    def stage(self, batch: Batch) -> Batch:
        """Returns the batch with samples that all players of a step share; override it to generate them once.

        It is called once per step, in phases in which one of the `stagers` plays. All turns of the step are then on
        the batch that it returns, and stagers have one turn per step. In other phases each turn gets a batch of data.
        """
        return batch

    def shares_samples(self, playing: Iterable[str]) -> bool:
        """Whether a phase with these players is played on the batches that `stage` returns."""
        return type(self).stage is not Game.stage and any(name in self.stagers for name in playing)

    def sample(self, count: int) -> Tensor:
        """Generates `count` samples. A subclass may add the keywords `label` `[count]` and `truncation`."""
        other = "; use `game.apply(batch)`" if type(self).apply is not Game.apply else ""
        raise RecipeError(f"{type(self).__name__} cannot generate samples without input{other}")

    def apply(self, batch: Any) -> Any:
        """Transforms the items of a batch; override it in games such as translators.

        With a function instead of a batch, it is `torch.nn.Module.apply`.

        Returns:
            The results by name, each `[B, …]`.

        Raises:
            RecipeError: the game does not transform items.
        """
        if callable(batch):
            return super().apply(batch)
        other = "; use `generate`" if type(self).sample is not Game.sample else ": it does not define `apply`"
        raise RecipeError(f"{type(self).__name__} does not transform data{other}")

    def reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns target items `[N, …]` and the game's results for them, of the same shape, for paired metrics.

        Raises:
            RecipeError: the game has no such pairs.
        """
        raise RecipeError(f"{type(self).__name__} does not reconstruct data; paired metrics do not apply to it")

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the samples that are shown at intervals during training: rows by name, `[B, …]` each.

        By default these are the inputs and the results of `apply`, or else generated samples.

        Args:
            batch: a batch of the data, the same throughout the run.
        """
        if type(self).apply is not Game.apply:
            return {key: batch[key] for key in self.data_keys if key != "label"} | self.apply(batch)
        return {"generated": self.generate(len(next(iter(batch.values()))), seed=0)}

    def realness(self, batch: Batch) -> dict[str, Tensor]:
        """Returns each adversary's scores of a batch, `[N]`, higher for more realistic items; by default none."""
        return {}

    @property
    def steers(self) -> bool:
        """Whether `after_turn` has an effect; otherwise its values are not averaged over the processes."""
        own = type(self).after_turn is not Game.after_turn
        return own or any(adversary.steers for adversary in self.adversaries.values())

    def after_turn(self, player: str, values: Terms) -> None:
        """Updates state after a turn of a player; by default that of the adversaries.

        Override it for state that depends on losses; keep that state in buffers, and change it under `torch.no_grad`.
        An override must call `super().after_turn(player, values)`. Losses must not change state, because they are
        called for every part of an accumulated batch, and in every process.

        Args:
            player: name of the player.
            values: its loss terms and logged values: detached scalars on the device, averaged over parts and processes.
        """
        adversaries = self.adversaries
        for name, adversary in adversaries.items():
            start = f"{name}/" if len(adversaries) > 1 else ""
            own = {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
            adversary.after_turn(own)

    def note(self, name: str, value: Tensor) -> None:
        """Logs a scalar that is not minimised, under the name of the player whose turn it is."""
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
        """The device of the parameters."""
        return next(parameter.device for parameter in self.parameters() if not parameter.is_meta)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the networks whose weights the model does not hold; they are on torch's `meta` device."""
        return tuple(name for name, network in self.named_children() if any(p.is_meta for p in network.parameters()))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves or converts the networks; absent ones stay where they are."""
        return super()._apply(lambda tensor: tensor if tensor.is_meta else fn(tensor), recurse)  # type: ignore[no-untyped-call]

    def generate(
        self, count: int, *, seed: int | None = None, label: int | Tensor | None = None, truncation: float | None = None
    ) -> Tensor:
        """Generates samples in evaluation mode.

        Args:
            count: number of samples, at least 1.
            seed: random seed; the samples do not depend on `count` (default: a random seed).
            label: class of all samples, or of each, `[count]` (default: all classes in turn).
            truncation: truncation ψ in (0, 1]; lower values give more typical and less varied samples.

        Returns:
            `[count, …]` in the data's range ([-1, 1] for images and audio).

        Raises:
            RecipeError: `label` or `truncation` is not supported by the game, or a value is out of range.
        """
        if count < 1:
            raise RecipeError(f"cannot generate {count} samples; ask for 1 or more")
        seed = int(torch.randint(2**31, ())) if seed is None else seed
        conditions = self._conditions(count, label, truncation)
        return torch.cat([self._part(part, count, seed, conditions) for part in range(-(-count // GENERATE_AT_ONCE))])

    def generated(self, count: int, *, seed: int, start: int = 0) -> Iterator[Tensor]:
        """Yields the samples of `generate(count, seed=seed)` in parts, to save memory.

        Args:
            count: total number of samples.
            seed: random seed.
            start: index of the first sample to yield, a multiple of `GENERATE_AT_ONCE`.
        """
        conditions = self._conditions(count, None, None)
        for part in range(start // GENERATE_AT_ONCE, -(-count // GENERATE_AT_ONCE)):
            yield self._part(part, count, seed, conditions)

    @torch.no_grad()
    def _part(self, part: int, count: int, seed: int, conditions: Mapping[str, Any]) -> Tensor:
        """Generates one part of at most `GENERATE_AT_ONCE` samples, which depends only on the seed and its number."""
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
        """Writes a model folder: `config.json`, `model.safetensors`, a model card, and the game's own files.

        The state of a training is left out: modules whose attribute `of_training` is true, such as replay pools.
        """
        from gan_core.model import save_model

        return save_model(self, Path(folder))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Loads a game from a model folder, a run folder or a Hugging Face Hub repository id.

        Raises:
            CheckpointError: there is no model, or it is damaged, or it is another kind of game.
        """
        from gan_core.api import load

        game = load(path)
        if not isinstance(game, cls):
            raise CheckpointError(f"{path}: holds a {type(game).__name__}, not a {cls.__name__}")
        return game

    def restore(self, path: str | Path) -> Self:
        """Loads the weights of a run or model folder into this game, which may have been built by hand.

        Raises:
            CheckpointError: there is no model, or it is damaged, or its weights do not fit this game's networks.
        """
        from gan_core.model import restore

        restore(self, path)
        return self

    def push_to_hub(self, repository: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model folder to the Hugging Face Hub and returns its URL."""
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
