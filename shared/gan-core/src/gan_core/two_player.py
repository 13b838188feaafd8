"""The plain game of two players that most systems are: a generator, a discriminator, an objective, regularizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from gan_core import draws
from gan_core.blocks import pack, unpack
from gan_core.data.spec import Spec
from gan_core.errors import DataError, RecipeError
from gan_core.game import Batch, Game, Player, Terms, evaluating
from gan_core.objectives import Objective, non_saturating
from gan_core.precision import full_precision
from gan_core.regularizers import REGULARIZERS, JudgedTurn, Regularizer, Turn, Unrolled

T = TypeVar("T")


class TwoPlayerGame(Game):
    """Generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661), with or without classes.

    The batch holds one tensor of real samples and, where the networks have classes, a `label`. Fakes take the labels
    of the real samples that they are judged beside.

    Args:
        generator: `(z [B, latent_dim][, label]) -> samples`; has the attribute `latent_dim`, `num_classes` if it has
            classes, and `data_spec` to say what its samples are (`ImageSpec(image_size=64, channels=3)`).
        discriminator: `(samples[, label]) -> logits`; with `num_classes` likewise. With `pack` it judges so many
            samples together, joined along their channels (PacGAN, Lin et al. 2018, arXiv:1712.04086). With `energy` it
            gives energies, at least 0, in the place of logits.
        objective: what both minimise.
        regularizers: what steadies them; they take part in the order of `REGULARIZERS`.

    Attributes:
        images: whether what the discriminator judges is images wherever it has channels and two axes, so that it may be
            mirrored, moved and recoloured; False where the axes are something else, as time and pitch.

    Raises:
        RecipeError: the networks, the objective and the regularizers do not go together.
    """

    images: ClassVar[bool] = True

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, *, objective: Objective = non_saturating,
        regularizers: Sequence[Regularizer] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.generator, self.discriminator, self.objective = generator, discriminator, objective
        self.num_classes, judged = getattr(generator, "num_classes", None), getattr(discriminator, "num_classes", None)
        if judged != self.num_classes:
            raise RecipeError(f"the generator has {self.num_classes} classes, the discriminator {judged}")
        self.pack: int = getattr(discriminator, "pack", 1)
        if self.pack > 1 and self.num_classes is not None:
            raise RecipeError("samples that are judged together have no one class; leave `network.pack` out")
        if objective.energy != getattr(discriminator, "energy", False):
            gives = "energies" if not objective.energy else "logits"
            raise RecipeError(f"the objective `{objective.name}` does not fit a discriminator that gives {gives}")
        order = list(REGULARIZERS)
        self.regularizers = tuple(sorted(regularizers, key=lambda r: order.index(r.name) if r.name in order else -1))
        self.memory = nn.ModuleDict()
        for regularizer in self.regularizers:
            kept = regularizer.prepare(self)
            if kept is not None:
                self.memory[regularizer.name] = kept

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.discriminator,), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def discriminator_loss(self, batch: Batch) -> Terms:
        """The adversarial term, and the regularizers' on the same real and fake samples."""
        turn = self.discriminator_turn(batch)
        # Penalties first: what is computed last is derived first, and where that was WaveGAN's gradient penalty, whose
        # gradients nothing can be added to in place, a turn took 5 % longer.
        penalties: Terms = {}
        for regularizer in self.regularizers:
            penalties |= regularizer.discriminator_terms(turn)
        terms = self.told_apart(turn) | penalties
        self.note("real_logits", turn.real_logits.mean())
        self.note("fake_logits", turn.fake_logits.mean())
        self.note("real_sign", turn.real_logits.sign().mean())
        return terms

    def discriminator_turn(self, batch: Batch) -> JudgedTurn:
        """The batch's real samples and as many fakes."""
        real, condition = self.real(batch)
        fake = self.fakes(len(real), **condition)
        for regularizer in self.regularizers:
            fake = regularizer.recall(self, fake)
        real, fake = pack(real, self.pack), pack(fake, self.pack)
        return JudgedTurn(self, real, fake, condition)

    def told_apart(self, turn: JudgedTurn) -> Terms:
        """The discriminator's adversarial term, and what it minimises besides."""
        return {"adversarial": self.objective.discriminator(turn.real_logits, turn.fake_logits)}

    def generator_loss(self, batch: Batch) -> Terms:
        """The adversarial term on fresh fakes, and the regularizers'."""
        turn = self.generator_turn(batch)
        terms = {"adversarial": self.fooled(turn)} | self.generator_terms(turn)
        for regularizer in self.regularizers:
            terms |= regularizer.generator_terms(turn)
        return terms

    def generator_terms(self, turn: Turn) -> Terms:
        """What the generator minimises besides; nothing in the plain game."""
        return {}

    def generator_turn(self, batch: Batch) -> Turn:
        """The batch's real samples and as many fresh fakes."""
        real, condition = self.real(batch)
        fake = self.fakes(len(real), **condition)
        return Turn(self, pack(real, self.pack), pack(fake, self.pack), condition)

    def fooled(self, turn: Turn) -> Tensor:
        """The generator's adversarial term."""
        for regularizer in self.regularizers:
            if isinstance(regularizer, Unrolled):
                return regularizer.generator_loss(turn)
        real_logits = self.judge(turn.real, **turn.condition) if self.objective.relative else None
        return self.objective.generator(self.judge(turn.fake, **turn.condition), real_logits)

    def judge(self, samples: Tensor, **condition: Any) -> Tensor:
        """The discriminator's logits of samples, as the regularizers let it see them."""
        return self.judge_by(self.discriminator, **condition)(samples)

    def judge_by(self, network: Callable[..., Tensor], **condition: Any) -> Callable[[Tensor], Tensor]:
        """How another network in the discriminator's place judges samples; a loss has no digits to spare."""
        return lambda samples: full_precision(network(self.shown(samples), **condition))

    def shown(self, samples: Tensor) -> Tensor:
        """What the discriminator is shown of samples, which may be packed: every one of the pack its own view."""
        viewed = unpack(samples, self.pack)
        for regularizer in self.regularizers:
            viewed = regularizer.view(self, viewed)
        return pack(viewed, self.pack)

    def verdicts(self, batch: Batch) -> Tensor:
        real, condition = self.real(batch)
        whole = len(real) // self.pack * self.pack
        logits = self.judge(pack(real[:whole], self.pack), **condition)
        logits = logits.reshape(whole // self.pack, -1).mean(dim=1)
        return -logits if self.objective.energy else logits

    @property
    def steers(self) -> bool:
        kinds = (type(regularizer) for regularizer in self.regularizers)
        own = type(self).after_turn is not TwoPlayerGame.after_turn
        return own or any(kind.after_turn is not Regularizer.after_turn for kind in kinds)

    def after_turn(self, player: str, values: Terms) -> None:
        for regularizer in self.regularizers:
            regularizer.after_turn(self, player, values)

    def fakes(self, count: int, **condition: Any) -> Tensor:
        """`count` samples in the form that the discriminator judges; `sample` may give users another."""
        return self.sample(count, **condition)

    def sample(self, count: int, *, label: Tensor | None = None, truncation: float | None = None) -> Tensor:
        z = self.latent(count, truncation=truncation)
        return self.generator(z) if label is None else self.generator(z, label=label)

    def latent(self, count: int, *, truncation: float | None = None) -> Tensor:
        """What samples are made of: `[count, latent_dim]`, standard normal."""
        return draws.normal(count, latent_dim(self.generator), like=next(self.parameters()), truncation=truncation)

    def real(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Returns the batch's real samples, and the condition that both networks get.

        Raises:
            DataError: the data have several keys, and the game does not say which it reads.
        """
        key = self.data_spec().key
        keys = self.reads[:1] or ((key,) if key else tuple(batch.keys() - {"label"}))
        if len(keys) != 1:
            have = ", ".join(f"`{key}`" for key in sorted(keys))
            raise DataError(f"the data have {have}; say which one {type(self).__name__} reads by its attribute `reads`")
        return batch[keys[0]], {"label": batch["label"]} if self.num_classes is not None else {}

    def data_spec(self) -> Spec:
        spec: Spec = getattr(self.generator, "data_spec", Spec())
        return spec

    def probe(self, look: Callable[[Tensor, Mapping[str, Any]], T]) -> T:
        """What `look(samples, condition)` finds on two packs of samples, made in evaluation mode: for its shape."""
        rows = 2 * self.pack
        z = torch.zeros(rows, latent_dim(self.generator), device=self.device)
        labels = torch.zeros(rows, dtype=torch.int64, device=self.device)
        condition = {} if self.num_classes is None else {"label": labels}
        with torch.no_grad(), evaluating(self), torch.random.fork_rng([]):
            return look(pack(self.generator(z, **condition), self.pack), condition)


def latent_dim(generator: nn.Module) -> int:
    """The size of a generator's latent.

    Raises:
        RecipeError: it does not say.
    """
    size = getattr(generator, "latent_dim", None)
    if not isinstance(size, int):
        raise RecipeError(f"{type(generator).__name__} has no attribute `latent_dim`; say how long its latent is")
    return size
