"""The plain game of two players that most systems are: a generator, a discriminator, an objective, regularizers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.game import Batch, Game, Player, Terms
from gan_core.objectives import Objective, non_saturating
from gan_core.regularizers import Regularizer, penalties, uncompiled


class TwoPlayerGame(Game):
    """Generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661), with or without classes.

    The batch holds one tensor of real samples and, where the networks have classes, a `label`. Fakes take the labels
    of the real samples that they are judged beside.

    Args:
        generator: `(z [B, latent_dim][, label]) -> samples`; has the attribute `latent_dim`, and `num_classes` if it
            has classes.
        discriminator: `(samples[, label]) -> logits`; with `num_classes` likewise.
        objective: what both minimise.
        regularizers: penalties on the discriminator.
    """

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, *, objective: Objective = non_saturating,
        regularizers: Sequence[Regularizer] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.objective, self.regularizers = objective, tuple(regularizers)
        self.num_classes, judged = getattr(generator, "num_classes", None), getattr(discriminator, "num_classes", None)
        if judged != self.num_classes:
            raise RecipeError(f"the generator has {self.num_classes} classes, the discriminator {judged}")

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.discriminator,), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def discriminator_loss(self, batch: Batch) -> Terms:
        """The adversarial term, and the regularizers' on the same real and fake samples."""
        real, condition = self.real(batch)
        fake = self.sample(len(real), **condition)
        judge = partial(self.discriminator, **condition)
        adversarial = self.objective.discriminator(judge(real), judge(fake))
        smooth = partial(uncompiled(self.discriminator), **condition)
        return {"adversarial": adversarial} | penalties(self.regularizers, self.step, smooth, real, fake)

    def generator_loss(self, batch: Batch) -> Terms:
        """The adversarial term on fresh fakes."""
        real, condition = self.real(batch)
        fake = self.sample(len(real), **condition)
        return {"adversarial": self.objective.generator(self.discriminator(fake, **condition))}

    def sample(self, count: int, *, label: Tensor | None = None, truncation: float | None = None) -> Tensor:
        z = draws.normal(count, latent_dim(self.generator), like=next(self.parameters()), truncation=truncation)
        return self.generator(z) if label is None else self.generator(z, label=label)

    def real(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """The batch's real samples and what both networks are told about them."""
        (key,) = batch.keys() - {"label"}
        return batch[key], {"label": batch["label"]} if self.num_classes is not None else {}


def latent_dim(generator: nn.Module) -> int:
    """The size of a generator's latent.

    Raises:
        RecipeError: it does not say.
    """
    size = getattr(generator, "latent_dim", None)
    if not isinstance(size, int):
        raise RecipeError(f"{type(generator).__name__} has no attribute `latent_dim`; say how long its latent is")
    return size
