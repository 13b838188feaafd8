"""A discriminator with its objective, its regularizers and their state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gan_core.errors import RecipeError, unknown
from gan_core.nn.blocks import evaluating, pack, unpack
from gan_core.play.judgement import Judgement, discriminator_adversarial, generator_adversarial, joined, judgement_of
from gan_core.play.objectives import OBJECTIVES, Objective, Terms, non_saturating
from gan_core.play.regularizers import REGULARIZERS, Generation, Regularizer, Turn

T = TypeVar("T")
Example = Callable[[int], tuple[Tensor, Mapping[str, Any]]]


@dataclass
class Moment:
    """The progress of a training run, shared by a game and its adversaries and set by the trainer.

    Attributes:
        step: number of completed steps.
        progress: completed fraction of the current phase, in [0, 1].
        batch_size: global batch size, over all processes.
        optimizers: optimizers of the phase's players, by name; empty when no training is running.
    """

    step: int = 0
    progress: float = 0.0
    batch_size: int = 1
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)


class Adversary(nn.Module):
    """A discriminator with its objective, its regularizers and their state.

    A game calls `discriminator_terms` and `generator_terms`; `Game.after_turn` calls `after_turn`. If the network
    returns several sets of logits, the adversarial term is summed over them, and gradient penalties differentiate the
    sum of all logits of a sample.

    Args:
        network: maps `(samples, **condition)` to logits `[B, …]` or a `Judgement`. Optional attributes: `num_classes`;
            `pack`, the number of samples that are concatenated along their channels and judged together (PacGAN, Lin
            et al. 2018, arXiv:1712.04086); `energy`, whether it returns energies (non-negative, low for real samples)
            instead of logits; `separate`, names of children that another player trains; `features_at`, the name of
            the child whose input is the features (default: `judge`).
        objective: the losses of the discriminator and the generator.
        regularizers: penalties, augmentations and constraints, in any order; they are applied in the order of
            `REGULARIZERS`.
        images: whether samples `[B, C, H, W]` are images and samples `[B, C, T, H, W]` are clips, which may be
            flipped, shifted and recoloured; False if the axes mean something else, such as time and pitch.
        example: returns a given number of samples and their condition; only their shapes are used. Required by
            `minibatch_discrimination`. If it is given, regularizers for images check the shape before training.
        generation: the generator; required by `path_length`, and also regularized by `orthogonal` if given.

    Attributes:
        memory: state of the regularizers, by name. It is training state and is not saved with a model.
        moment: step, progress, batch size and optimizers; shared with the game.

    Raises:
        RecipeError: the objective or a regularizer does not apply to the network.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        objective: Objective | str = non_saturating,
        regularizers: Sequence[Regularizer | str] = (),
        images: bool = True,
        example: Example | None = None,
        generation: Generation | None = None,
    ) -> None:
        super().__init__()
        objective, regularizers = objective_of(objective), regularizers_of(regularizers)
        self.network, self.objective, self.images = network, objective, images
        self.example, self.generation, self.moment = example, generation, Moment()
        self.num_classes: int | None = getattr(network, "num_classes", None)
        self.pack: int = getattr(network, "pack", 1)
        if self.pack > 1 and self.num_classes is not None:
            raise RecipeError("packed samples do not share a class; omit `network.pack`, or train without classes")
        if objective.energy != getattr(network, "energy", False):
            gives = "energies" if not objective.energy else "logits"
            given = f"the objective `{objective.name}` does not support a discriminator that returns {gives}"
            raise RecipeError(f"{given}; choose another objective")
        self._notes: dict[str, list[Tensor]] = {}
        order = list(REGULARIZERS)
        self.regularizers = tuple(sorted(regularizers, key=lambda r: order.index(r.name) if r.name in order else -1))
        self.memory = nn.ModuleDict()
        self.memory.of_training = True  # type: ignore[assignment]  # see `checkpoint.state_of_training`
        for regularizer in self.regularizers:
            kept = regularizer.prepare(self)
            if kept is not None:
                self.memory[regularizer.name] = kept

    # For games.

    def forward(self, samples: Tensor, **condition: Any) -> Tensor:
        """Returns the logits of samples after packing and augmentation; several sets are joined to `[B / pack, n]`."""
        return joined(self.judge(pack(samples, self.pack), **condition))

    def discriminator_terms(self, real: Tensor, fake: Tensor, **condition: Any) -> Terms:
        """Computes the discriminator's loss: the adversarial term and the regularizers' terms.

        Logs the mean logits of real and fake samples (`real_logits`, `fake_logits`), the mean sign of the real logits
        (`real_sign`), and the ratio of the unweighted adversarial term to the loss of a discriminator that guesses
        (`of_guessing`).

        Args:
            real: real samples, `[B, …]`.
            fake: fake samples, `[B, …]`, of the same shape.
            condition: further inputs of the network, the same for real and fake samples.

        Returns:
            Scalars by name, `adversarial` and one for each regularizer that is due at this step; already weighted.
        """
        for regularizer in self.regularizers:
            fake = regularizer.recall(self, fake, condition)
        turn = self._turn(fake, real, condition)
        # Penalties come first, since autograd starts with what was computed last: with WaveGAN's gradient penalty
        # last, whose gradients cannot be accumulated in place, a turn took 5 % longer.
        penalties: Terms = {}
        for regularizer in self.regularizers:
            penalties |= regularizer.discriminator_terms(turn)
        judged = turn.real_judgement, turn.fake_judgement
        adversarial = discriminator_adversarial(self.objective, *judged)
        real_logits, fake_logits = (joined(judgement).detach() for judgement in judged)
        self.note("real_logits", real_logits.mean())
        self.note("fake_logits", fake_logits.mean())
        self.note("real_sign", real_logits.sign().mean())
        if self.objective.guessing:
            self.note("of_guessing", adversarial.detach() / (self.objective.guessing * len(turn.real_judgement.logits)))
        return {"adversarial": adversarial} | penalties

    def generator_terms(self, fake: Tensor, real: Tensor | None = None, **condition: Any) -> Terms:
        """Computes the generator's loss: the adversarial term and the regularizers' terms.

        Args:
            fake: fake samples, `[B, …]`.
            real: real samples, `[B, …]`; required by relativistic objectives and by regularizers that compare with
                real samples.
            condition: further inputs of the network.

        Returns:
            Scalars by name, `adversarial` and one for each regularizer that is due at this step; already weighted.

        Raises:
            RecipeError: the objective or a regularizer needs real samples, and `real` is None.
        """
        turn = self._turn(fake, real, condition)
        replaced = [term for r in self.regularizers if (term := r.generator_adversarial(turn)) is not None]
        terms = {"adversarial": replaced[0] if replaced else self._generator_adversarial(turn)}
        for regularizer in self.regularizers:
            terms |= regularizer.generator_terms(turn)
        return terms

    def _turn(self, fake: Tensor, real: Tensor | None, condition: Mapping[str, Any]) -> Turn:
        """Returns the inputs of the regularizers in a turn.

        Raises:
            RecipeError: a regularizer moves samples, but not a condition that must stay aligned with them.
        """
        maps = [
            name
            for name, value in condition.items()
            if isinstance(value, Tensor) and fake.ndim > 3 and value.shape[2:] == fake.shape[2:]
        ]
        mover = next((r.name for r in self.regularizers if r.moves), None)
        if maps and mover is not None:
            moved = f"`regularizers.{mover}` moves samples, but not the condition `{maps[0]}` that is aligned with them"
            raise RecipeError(f"{moved}; concatenate both along the channels, or leave out the regularizer")
        return Turn(self, pack(fake, self.pack), None if real is None else pack(real, self.pack), condition)

    def _generator_adversarial(self, turn: Turn) -> Tensor:
        real = turn.real_judgement if self.objective.relative else None
        return generator_adversarial(self.objective, turn.fake_judgement, real)

    @property
    def trained(self) -> tuple[nn.Module, ...]:
        """The parts of the network that the discriminator's player trains: all except those named in `separate`."""
        separate = getattr(self.network, "separate", ())
        if not separate:
            return (self.network,)
        return tuple(child for name, child in self.network.named_children() if name not in separate)

    @property
    def has_after_turn(self) -> bool:
        """Whether `after_turn` has an effect."""
        return any(type(r).after_turn is not Regularizer.after_turn for r in self.regularizers)

    def after_turn(self, values: Terms) -> None:
        """Updates the regularizers' state after a turn of any player.

        Args:
            values: the adversary's terms and logged values in that turn, by name, without the adversary's prefix.
        """
        for regularizer in self.regularizers:
            regularizer.after_turn(self, values)

    @torch.no_grad()
    def realness(self, samples: Tensor, **condition: Any) -> Tensor:
        """Returns a score for each pack of samples, `[B / pack]`, higher for more realistic ones.

        It is the mean logit, or the negative energy. Samples left over after the last full pack are dropped.
        """
        whole = len(samples) // self.pack * self.pack
        logits = self(samples[:whole], **condition).reshape(whole // self.pack, -1).mean(dim=1)
        return -logits if self.objective.energy else logits

    def take_notes(self) -> Terms:
        """Returns the means of the values noted since the last call."""
        notes, self._notes = self._notes, {}
        return means_of(notes)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the network; see `torch.nn.Module.compile`."""
        self.network.compile(*args, **kwargs)

    # For regularizers.

    def note(self, name: str, value: Tensor) -> None:
        """Logs a scalar that is not minimised."""
        self._notes.setdefault(name, []).append(value.detach().float())

    def judge(self, samples: Tensor, **condition: Any) -> Judgement:
        """Returns the judgement of packed samples after augmentation."""
        return self.judge_with(self.network, **condition)(samples)

    def judge_with(self, network: Callable[..., Any], **condition: Any) -> Callable[[Tensor], Judgement]:
        """Returns a function like `judge` that uses another network."""
        return lambda samples: judgement_of(network(self.augmented(samples), **condition))

    def augmented(self, samples: Tensor) -> Tensor:
        """Applies the regularizers' augmentations to packed samples; each sample of a pack is augmented separately."""
        viewed = unpack(samples, self.pack)
        for regularizer in self.regularizers:
            viewed = regularizer.view(self, viewed)
        return pack(viewed, self.pack)

    def probe(self, look: Callable[[Tensor, Mapping[str, Any]], T]) -> T | None:
        """Calls a function with example samples, to determine shapes or the type of the network's result.

        It is called in evaluation mode and without gradients, and torch's random state is restored afterwards.

        Args:
            look: takes the samples of two packs and their condition.

        Returns:
            The function's result; None if the adversary has no `example`.
        """
        if self.example is None:
            return None
        samples, condition = self.example(2 * self.pack)
        with torch.no_grad(), evaluating(self), torch.random.fork_rng([]):
            return look(pack(samples, self.pack), condition)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer that trains the network; None when no training is running."""
        first = next((p for part in self.trained for p in part.parameters()), None)
        optimizers = self.moment.optimizers.values()
        return next((o for o in optimizers if any(p is first for g in o.param_groups for p in g["params"])), None)


def objective_of(given: Objective | str) -> Objective:
    """Returns an objective, which may be given by name.

    Raises:
        RecipeError: there is no objective of that name, or several are given.
    """
    if isinstance(given, Objective):
        return given
    if not isinstance(given, str):
        raise RecipeError(f"`objective` is {given!r}; give one objective or its name, such as 'hinge'")
    if given not in OBJECTIVES:
        raise unknown("objective", given, OBJECTIVES)
    return OBJECTIVES[given]


def regularizers_of(given: Sequence[Regularizer | str]) -> list[Regularizer]:
    """Returns regularizers, which may be given by name for their default settings.

    Raises:
        RecipeError: an entry is unknown, is given twice, or is not a regularizer.
    """
    if isinstance(given, str):
        raise RecipeError(f"`regularizers` is {given!r}; give a list, [{given!r}]")
    regularizers: list[Regularizer] = []
    for each in given:
        if isinstance(each, str):
            if each not in REGULARIZERS:
                raise unknown("regularizer", each, REGULARIZERS)
            regularizers.append(REGULARIZERS[each]())
        elif isinstance(each, Regularizer):
            regularizers.append(each)
        else:
            raise RecipeError(f"`regularizers` has {each!r}; give settings, `R1(weight=1.0)`, or a name, 'r1'")
    names = [regularizer.name for regularizer in regularizers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"`regularizers` has `{twice}` twice; give it once")
    return regularizers


def find_adversaries(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Adversary]]:
    """Yields the adversaries among a module's children and their names, including those in module lists and dicts."""
    for name, child in module.named_children():
        if isinstance(child, Adversary):
            yield prefix + name, child
        elif isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from find_adversaries(child, f"{prefix}{name}.")


def weighted(terms: Terms, weight: float) -> Terms:
    """Returns an adversary's terms with the adversarial one multiplied by a weight."""
    return terms | {"adversarial": weight * terms["adversarial"]}


def means_of(notes: Mapping[str, Sequence[Tensor]]) -> Terms:
    """Returns the mean of the scalars for each name, as copies, because a noted value may be a buffer that changes.

    All names share one `stack`, because one operation per name would slow down small steps noticeably.
    """
    if not notes:
        return {}
    means = [values[0] if len(values) == 1 else torch.stack(list(values)).mean() for values in notes.values()]
    return dict(zip(notes, torch.stack(means).unbind(), strict=True))


def prefixed(name: str, terms: Terms) -> Terms:
    """Returns terms under an adversary's name: `{"r1": …}` as `{"mpd/r1": …}`."""
    return {f"{name}/{term}": value for term, value in terms.items()}
