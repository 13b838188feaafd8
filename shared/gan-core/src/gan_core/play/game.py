"""Games: networks and the losses of the players that train them, in one or several phases.

A game never loops and never calls `.backward()` or an optimizer. The trainer does that, and it handles devices,
precision, processes and files in the same way for every game.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gan_core import draws
from gan_core.data.spec import Spec
from gan_core.errors import CheckpointError, RecipeError
from gan_core.nn.blocks import evaluating as evaluating
from gan_core.play.adversary import Adversary, Moment, find_adversaries, means_of, prefixed
from gan_core.play.conditions import Classes, Condition, Text, Values
from gan_core.play.exported import Exported
from gan_core.play.latents import great_circle
from gan_core.play.objectives import Terms as Terms
from gan_core.recipe import Optimizer, Recipe
from gan_core.signature import checked, keywords

Batch = dict[str, Tensor]


class Mover(Protocol):
    """Interface of a player's training state for custom steps (`gan_core.training.player_state.PlayerState`)."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Parameters that the player trains."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer."""

    def part(self, index: int, count: int, batch: Batch) -> AbstractContextManager[object]:
        """Returns the context manager for the loss and the backward pass of one of `count` parts of the batch."""

    def loss(self, batch: Batch) -> Terms:
        """Returns the player's loss terms on a batch, in the recipe's precision."""

    def backward(self, loss: Tensor) -> None:
        """Runs the backward pass of the loss, which adds to the parameters' gradients."""

    def update(self) -> None:
        """Updates the parameters and clears their gradients."""


@dataclass(frozen=True)
class Player:
    """A player: the networks that it trains, its loss and its optimizer.

    Attributes:
        name: name in logs and recipes (`players.<name>.optimizer …`).
        networks: networks that it trains. Its loss must depend on all of their parameters.
        loss: maps a batch to scalars by name, already weighted; their sum is minimised.
        turns: number of turns in a step, each on a new batch, or on the staged batch if the game has one.
        every: interval in steps at which it takes part, from the first step of a phase.
        optimizer: settings of its optimizer; None uses the recipe's.
        step: replaces the default backward pass and update, for example for differential privacy: takes the player's
            `Mover` and the batches of a turn, computes gradients, calls `update` and returns scalars by name.
    """

    name: str
    networks: tuple[nn.Module, ...]
    loss: Callable[[Batch], Terms]
    turns: int = 1
    every: int = 1
    optimizer: Optimizer | None = None
    step: Callable[[Mover, Sequence[Batch]], Terms] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Returns the parameters of its networks that require gradients, without duplicates."""
        own = dict.fromkeys(parameter for network in self.networks for parameter in network.parameters())
        return [parameter for parameter in own if parameter.requires_grad]


@dataclass(frozen=True)
class Phase:
    """A part of a training run. Its length is given by one of `share` (default: 1), `steps` and `epochs`.

    Attributes:
        name: name in logs.
        players: names of the players that take part (default: all). Networks that none of them trains are frozen and in
            evaluation mode.
        share: relative length of the phase: the steps that remain after all phases with `steps` or `epochs` are divided
            in proportion to the shares.
        spec: changed fields of the data specification: `{"image_size": 16}`.
        batch_size: global batch size; None uses the recipe's.
        steps: number of steps.
        epochs: number of passes over the training items, counted in samples read.
        log_every: steps between lines in the log; None uses the recipe's.
        sample_every: steps between pictures of samples; None uses the recipe's.
        checkpoint_every: steps between checkpoints; None uses the recipe's.

    Raises:
        RecipeError: a value is not positive, or more than one of `share`, `steps` and `epochs` is given.
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
                raise RecipeError(f"`{name}` of the phase `{self.name}` is {value}; expected a positive number")


class Game(nn.Module, ABC):
    """Networks and the players that train them. A subclass defines `players`, and `sample` if it is a generative model.

    Attributes:
        recipe: recipe from which it was built; None if it was built by hand.
        sampling: names of the networks that generate samples; their weights are averaged over the steps (EMA).
        reads: keys of the batch that its losses read (default: see `data_keys`).
        paired: whether the parts of an item belong together; False if they come from unpaired datasets.
        results: for each result of `apply`, by name, the key of the batch that it is computed from.
        compared: for each result that metrics compare with data, by name, the key of the data that it should match.
            Results are compared item by item if the game is `paired`, otherwise as sets. `apply` of an unpaired game
            accepts either part alone.
        stagers: names of the players whose gradients reach the networks through `stage`; for other players, its
            results are constants.
        unmeasured: reason why the domain's metrics do not apply to its samples; None if they do.
        example: a line of Python for the model card that uses a loaded `game`.
        num_classes: number of classes; None if the game is not class-conditional.
        at_once: number of samples per forward pass of `generate`, a divisor of `draws.BLOCK`.
        images: whether samples `[B, C, H, W]` are images and samples `[B, C, T, H, W]` are clips; see `Adversary`.
        moment: step, progress, batch size and optimizers, shared with its adversaries and set by the trainer.
        phase: the current phase; see `enter_phase`.
        phase_number: index of the current phase in `phases`.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    sampling: ClassVar[tuple[str, ...]] = ("generator",)
    paired: ClassVar[bool] = True
    results: ClassVar[Mapping[str, str]] = {}
    compared: ClassVar[Mapping[str, str]] = {}
    stagers: ClassVar[tuple[str, ...]] = ("generator",)
    unmeasured: ClassVar[str | None] = None
    images: ClassVar[bool] = True
    num_classes: int | None = None
    at_once: int = draws.BLOCK
    example: ClassVar[str] = "samples = game.generate(16, seed=0)"

    def __init__(self) -> None:
        super().__init__()
        self.recipe: Recipe | None = None
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
        """Returns the data specification that the networks require; the recipe or the data set its open fields."""
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
        """Called when a phase starts, a run is resumed, or a model is loaded; override it to grow networks.

        It is called before `players`. When a run is resumed or a model is loaded, earlier phases are not entered first,
        so it must work whatever the previous phase was.
        """

    def enter_phase(self, number: int, progress: float = 0.0) -> None:
        """Enters a phase: sets `phase`, `phase_number` and `progress`, and calls `enter`.

        The phase and its progress are saved with a model and restored when it is loaded.

        Args:
            number: index of the phase, from 0.
            progress: completed fraction of the phase, in [0, 1].

        Raises:
            RecipeError: the game has no such phase.
        """
        phases = list(self.phases())
        if not 0 <= number < len(phases):
            raise RecipeError(f"{type(self).__name__} has no phase {number}; expected 0 to {len(phases) - 1}")
        self.phase, self.phase_number, self.progress = phases[number], number, progress
        self.enter(self.phase)

    def save_files(self, folder: Path) -> None:
        """Writes files that belong to the model besides its tensors, such as a tokenizer, to a folder.

        They are kept with the weights in model folders and checkpoints. Override it together with `load_files`.
        """

    def load_files(self, folder: Path) -> None:
        """Reads the files of `save_files`. Called after `enter` and before the weights are loaded."""

    def study(self, training: Dataset[Batch]) -> None:
        """Called once with the training data before the first step; override it to store statistics in buffers.

        It is called in every process and must have the same result in all of them. It is not called when a run is
        resumed, because the buffers are loaded from the checkpoint.
        """

    def stage(self, batch: Batch) -> Batch:
        """Adds samples to the batch that all players of a step share; override it to generate them once per step.

        It is called once per step, in phases in which one of the `stagers` plays. All turns of the step then use
        the batch that it returns, and stagers have one turn per step. In other phases, each turn reads a new batch.
        """
        return batch

    def shares_samples(self, playing: Iterable[str]) -> bool:
        """Returns whether the turns of a phase with these players use the batches that `stage` returns."""
        return type(self).stage is not Game.stage and any(name in self.stagers for name in playing)

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """The conditions that users can pass to `generate`, by name (default: `label`, if there are classes).

        `sample` takes a keyword for each: integers `[count]` for `Classes`, `count` strings for `Text`, a tensor
        `[count, …]` for `Given`.
        """
        if self.num_classes is None:
            return {}
        names = None if self.recipe is None else self.recipe.data.classes
        return {"label": Classes(self.num_classes, names or ())}

    def conditions_in(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the conditions of a batch's items, except texts, which batches do not contain."""
        kinds = self.conditions
        return {name: batch[name] for name in kinds if name in batch and not isinstance(kinds[name], Text)}

    def sample(self, count: int) -> Tensor:
        """Generates `count` samples.

        A subclass takes a keyword for each of `conditions`, and may take others with a default (`frames: int = 16`).
        Users pass them to `generate`, which validates their values against the annotations.
        """
        other = "; use `game.apply(batch)`" if type(self).apply is not Game.apply else ""
        raise RecipeError(f"{type(self).__name__} cannot generate samples without input{other}")

    def latent(self, count: int) -> Tensor:
        """Draws the latents of `count` samples, `[count, …]`.

        Raises:
            RecipeError: the game does not generate each sample from one latent.
        """
        raise RecipeError(f"{self.title} has no latents to interpolate between")

    def render(self, latent: Tensor, **condition: Any) -> Tensor:
        """Generates samples from latents, in the form that `sample` returns.

        Raises:
            RecipeError: the game does not generate each sample from one latent.
        """
        raise RecipeError(f"{self.title} has no latents to interpolate between")

    def between(self, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
        """Interpolates between latents such that the results follow the distribution of `latent`.

        The default is interpolation along a great circle, for normal latents.

        Args:
            start: latents `[B, …]`.
            end: latents `[B, …]`.
            share: positions between them, `[S]` in [0, 1].

        Returns:
            `[B, S, …]`.
        """
        return great_circle(start, end, share)

    def apply(self, batch: Any) -> Any:
        """Transforms the items of a batch; override it in games such as translators.

        If a function is passed instead of a batch, this is `torch.nn.Module.apply`.

        Returns:
            The results by name, `[B, …]` each.

        Raises:
            RecipeError: the game does not define `apply`.
        """
        if callable(batch):
            return super().apply(batch)
        other = "; use `generate`" if type(self).sample is not Game.sample else ": it does not define `apply`"
        raise RecipeError(f"{type(self).__name__} does not transform data{other}")

    def networks_of(self, result: str) -> tuple[nn.Module, ...]:
        """Returns the networks that compute a result of `apply` (default: those in `sampling` that the game has).

        Their attributes `multiple`, `least` and `receptive_radius` determine how large items are tiled; see
        `gan_core.nn.tiling`.
        """
        networks = dict(self.named_modules())
        return tuple(networks[name] for name in self.sampling if name in networks)

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the samples that are written at intervals during training, by name, `[B, …]` each.

        By default, these are the inputs and results of `apply`, or else samples generated with the batch's conditions
        and all classes in turn.

        Args:
            batch: a batch of the data, the same throughout the run.
        """
        if type(self).apply is not Game.apply:
            return {key: batch[key] for key in self.data_keys if key != "label"} | self.apply(batch)
        given = {name: value for name, value in self.conditions_in(batch).items() if name != "label"}
        for name, kind in self.conditions.items():
            if kind.required and name not in given:
                raise RecipeError(
                    f"{self.title} needs values of `{name}` for previews; give it defaults, or override `preview`"
                )
        return {"generated": self.generate(len(next(iter(batch.values()))), seed=0, **given)}

    def exports(self) -> Mapping[str, Exported]:
        """Returns the networks that can be exported to other runtimes, by name (default: none)."""
        return {}

    def realness(self, batch: Batch) -> dict[str, Tensor]:
        """Returns each adversary's scores for a batch, `[N]`, higher for more realistic items (default: none)."""
        return {}

    @property
    def has_after_turn(self) -> bool:
        """Whether `after_turn` has an effect; otherwise its values are not averaged over the processes."""
        own = type(self).after_turn is not Game.after_turn
        return own or any(adversary.has_after_turn for adversary in self.adversaries.values())

    def after_turn(self, player: str, values: Terms) -> None:
        """Updates state after a turn of a player (default: the state of the adversaries).

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
    def title(self) -> str:
        """Name in messages: the system's name, or the class name if there is no recipe."""
        return type(self).__name__ if self.recipe is None else self.recipe.system

    @property
    def built_by_hand(self) -> bool:
        """Whether the game was built by hand instead of from a preset of a domain's system."""
        return self.recipe is None or self.recipe.domain is None or self.recipe.preset is None

    @property
    def device(self) -> torch.device:
        """The device of the parameters, apart from those of absent networks."""
        return next((p.device for p in self.parameters() if not p.is_meta), torch.device("meta"))

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the networks without weights, which are on torch's `meta` device."""
        return tuple(name for name, network in self.named_children() if any(p.is_meta for p in network.parameters()))

    @property
    def offered(self) -> tuple[str, ...]:
        """Names of the `results` whose networks have weights, in order."""
        absent = {self.get_submodule(name) for name in self.absent}
        return tuple(name for name in self.results if absent.isdisjoint(self.networks_of(name)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves or converts the networks; absent networks are not changed."""
        return super()._apply(lambda tensor: tensor if tensor.is_meta else fn(tensor), recurse)  # type: ignore[no-untyped-call]

    def asked(self, count: int, **given: Any) -> dict[str, Values]:
        """Returns the value of every condition for each of `count` samples: a tensor `[count, …]` or a list of texts.

        Args:
            count: number of samples, at least 1.
            given: conditions and keywords of `sample`; the keywords are checked and not returned.

        Raises:
            RecipeError: see `generate`.
        """
        return self.checked_given(count, given, (self.sample,))[0]

    def asked_besides(self, key: str, **given: Any) -> dict[str, Values]:
        """Returns the values of the conditions, other than the item itself, for one item that `apply` transforms.

        Args:
            key: key of the item in the batch.
            given: conditions by name; all are required.

        Raises:
            RecipeError: a condition is unknown, out of range, or missing.
        """
        kinds = {name: kind for name, kind in self.conditions.items() if name != key}
        for name in given:
            if name not in kinds:
                raise self._takes_no(name, list(kinds))
        if missing := next((name for name in kinds if given.get(name) is None), None):
            raise RecipeError(f"`{missing}` is missing: {self.title} needs it in addition to `{key}`")
        return {name: kind.values(name, given[name], 1) for name, kind in kinds.items()}

    def checked_given(
        self, count: int, given: Mapping[str, Any], functions: Sequence[Callable[..., Any]]
    ) -> tuple[dict[str, Values], dict[str, Any]]:
        """Returns the conditions' values for each of `count` samples, and the checked keywords of methods.

        Args:
            count: number of samples, at least 1.
            given: conditions and keywords by name.
            functions: methods that take the keywords; their first argument is ignored.

        Raises:
            RecipeError: see `generate`.
        """
        if count < 1:
            raise RecipeError(f"cannot generate {count} samples; ask for 1 or more")
        conditions, takes = self.conditions, self.parameters_of(*functions)
        for name in given:
            if name not in conditions and name not in takes:
                raise self._takes_no(name, [*conditions, *takes])
        # None is the default of both kinds.
        others = {name: value for name, value in given.items() if name in takes and value is not None}
        asked = {name: kind.values(name, given.get(name), count) for name, kind in conditions.items()}
        return asked, checked(functions, takes, others, fill=False) if others else {}

    def parameters_of(self, *functions: Callable[..., Any]) -> dict[str, inspect.Parameter]:
        """Returns the keywords of methods, without conditions and the first argument."""
        named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        return {
            name: parameter
            for function in functions
            for name, parameter in list(keywords(function).items())[1:]
            if parameter.kind in named and name not in self.conditions and name != "label"
        }

    def _takes_no(self, name: str, takes: Sequence[str]) -> RecipeError:
        if name == "label":
            without = f"this {self.title} was trained without classes"
            setting = "num_classes" if self.built_by_hand else "network.num_classes"
            return RecipeError(f"{without}; leave `label` out, or set `{setting}`")
        known = f"it takes {', '.join(f'`{known}`' for known in takes)}" if takes else "leave it out"
        return RecipeError(f"{self.title} takes no `{name}`; {known}")

    def generate(self, count: int, *, seed: int | None = None, **given: Any) -> Tensor:
        """Generates samples in evaluation mode.

        Args:
            count: number of samples, at least 1.
            seed: random seed (default: drawn at random). For a given seed, the first samples do not depend on `count`.
            given: conditions by name (see `conditions`; `label` is a class name or number, a sequence of them, or a
                tensor `[count]`), and keywords of `sample`, such as `truncation`.

        Returns:
            `[count, …]` in the data's range ([-1, 1] for images and audio).

        Raises:
            RecipeError: the game has no such condition or keyword, a value is out of range, a condition that has no
                default is missing, or the game does not generate samples.
        """
        seed = int(torch.randint(2**31, ())) if seed is None else seed
        return torch.cat(list(self.generated(count, seed=seed, **given)))

    def generated(self, count: int, *, seed: int, start: int = 0, **given: Any) -> Iterator[Tensor]:
        """Returns an iterator over the samples of `generate` in parts of `at_once`, to save memory.

        Args:
            count: total number of samples.
            seed: random seed.
            start: index of the first sample, a multiple of `at_once`.
            given: conditions and keywords of `sample`, as `generate` takes them.

        Raises:
            RecipeError: see `generate`; or `at_once` does not divide `draws.BLOCK`.
        """
        if type(self).sample is Game.sample:
            self.sample(count)  # raises
        firsts = self.firsts(count, start)
        asked, others = self.checked_given(count, given, (self.sample,))
        return (self._part(first, min(self.at_once, count - first), seed, asked, others) for first in firsts)

    @torch.no_grad()
    def _part(self, first: int, rows: int, seed: int, asked: Mapping[str, Values], others: Mapping[str, Any]) -> Tensor:
        """Generates `rows` samples, which depend only on the seed and the index of the first."""
        with self.seeded_rows(seed, first, rows):
            return self.sample(rows, **self.rows_of(asked, first, rows), **others)

    def firsts(self, count: int, start: int = 0) -> range:
        """Returns the start index of each forward pass of `at_once` samples, for `count` samples in total.

        Args:
            count: total number of samples.
            start: index of the first sample, a multiple of `at_once`.

        Raises:
            RecipeError: `at_once` does not divide `draws.BLOCK`.
        """
        if self.at_once < 1 or draws.BLOCK % self.at_once:
            raise RecipeError(f"`at_once` is {self.at_once}; expected a divisor of {draws.BLOCK}, such as 8")
        return range(start, count, self.at_once)

    def rows_of(self, asked: Mapping[str, Values], first: int, rows: int) -> dict[str, Values]:
        """Returns the values for `rows` samples from index `first` on; tensors are moved to the game's device."""
        chosen = {name: values[first : first + rows] for name, values in asked.items()}
        return {
            name: values.to(self.device) if isinstance(values, Tensor) else values for name, values in chosen.items()
        }

    @contextmanager
    def seeded_rows(self, seed: int, first: int, rows: int) -> Iterator[None]:
        """Context manager like `seeded`, for `rows` samples from index `first` on; each block has its own seed."""
        block, start = divmod(first, draws.BLOCK)
        with self.seeded(draws.mix(seed, block), start=start, rows=rows, total=draws.BLOCK):
            yield

    @contextmanager
    def seeded(self, seed: int, *, start: int, rows: int, total: int) -> Iterator[None]:
        """Context manager for drawing samples `start` to `start + rows` of `total` with `seed`, in evaluation mode."""
        own = draws.mix(seed, start) if start else seed  # torch's own draws, such as dropout, differ between parts
        with evaluating(self), torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            draws.seed_torch(own, self.device)
            with draws.drawing(seed, self.device, start=start, rows=rows, total=total):
                yield

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes a model folder: `config.json`, `model.safetensors`, a model card, and the game's own files.

        Training state is not written: modules whose attribute `of_training` is true, such as replay pools.
        """
        from gan_core.models.folder import save_model

        return save_model(self, Path(folder))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Loads a game from a model folder, a run folder or a Hugging Face Hub repository id.

        Raises:
            CheckpointError: there is no model, it is damaged, or it is another kind of game.
        """
        from gan_core.api import load

        game = load(path)
        if not isinstance(game, cls):
            raise CheckpointError(f"{path}: contains a {type(game).__name__}, not a {cls.__name__}")
        return game

    def restore(self, path: str | Path) -> Self:
        """Loads the weights of a run or model folder into this game, which may have been built by hand.

        Raises:
            CheckpointError: there is no model, it is damaged, or its weights do not fit this game's networks.
        """
        from gan_core.models.folder import restore

        restore(self, path)
        return self

    def push_to_hub(self, repository: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model folder to the Hugging Face Hub and returns its URL."""
        from gan_core.models.hub import push

        return push(self, repository, private=private, token=token)
