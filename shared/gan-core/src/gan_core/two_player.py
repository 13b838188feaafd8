"""The plain game of two players that most systems are: a generator, a discriminator, an objective, regularizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gan_core import draws
from gan_core.adversary import Adversary
from gan_core.data.spec import Spec
from gan_core.errors import DataError, RecipeError
from gan_core.game import Batch, Game, Player, Terms, evaluating
from gan_core.objectives import Objective, non_saturating
from gan_core.regularizers import Generation, Regularizer


class TwoPlayerGame(Game):
    """Generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661), with or without classes.

    The batch holds one tensor of real samples and, where the networks have classes, a `label`. Fakes take the labels
    of the real samples that they are judged beside.

    Args:
        generator: `(z [B, latent_dim][, label]) -> samples`; has the attribute `latent_dim`, `num_classes` if it has
            classes, and `data_spec` to say what its samples are (`ImageSpec(image_size=64, channels=3)`).
        discriminator: A network as `Adversary` takes it, or an `Adversary`, which has its own objective and
            regularizers. It has the generator's `num_classes`.
        objective: What both minimise.
        regularizers: Penalties, augmentations and constraints.

    Attributes:
        discriminator: The adversary; its network is `discriminator.network`.

    Raises:
        RecipeError: The networks, the objective and the regularizers do not fit together.
    """

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, *, objective: Objective | str = non_saturating,
        regularizers: Sequence[Regularizer | str] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.generator = generator
        self.num_classes, judged = getattr(generator, "num_classes", None), getattr(discriminator, "num_classes", None)
        if judged != self.num_classes:
            raise RecipeError(f"the generator has {self.num_classes} classes, the discriminator {judged}")
        if not isinstance(discriminator, Adversary):
            discriminator = Adversary(
                discriminator, objective=objective, regularizers=regularizers, images=self.images, example=self.probe,
                generation=Generation(generator, self.styles, self.render),
            )  # fmt: skip
        elif regularizers or objective is not non_saturating:
            raise RecipeError("the discriminator is an `Adversary`; give it the objective and the regularizers instead")
        self.discriminator: Adversary = discriminator

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.discriminator,), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, condition = self.real(batch)
        return self.discriminator_terms(real, self.fakes(len(real), **condition), condition)

    def generator_loss(self, batch: Batch) -> Terms:
        real, condition = self.real(batch)
        return self.generator_terms(real, self.fakes(len(real), **condition), condition)

    def discriminator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        """Computes what the discriminator minimises on real samples and as many fake ones."""
        return self.discriminator.discriminator_terms(real, fake, **condition)

    def generator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        """Computes what the generator minimises on as many fresh fake samples as there are real ones."""
        return self.discriminator.generator_terms(fake, real, **condition)

    def realness(self, batch: Batch) -> dict[str, Tensor]:
        real, condition = self.real(batch)
        return {"discriminator": self.discriminator.realness(real, **condition)}

    def fakes(self, count: int, **condition: Any) -> Tensor:
        """Generates `count` samples in the form that the discriminator judges; `sample` may return another to users."""
        return self.sample(count, **condition)

    def sample(self, count: int, *, label: Tensor | None = None, truncation: float | None = None) -> Tensor:
        z = self.latent(count, truncation=truncation)
        return self.generator(z) if label is None else self.generator(z, label=label)

    def latent(self, count: int, *, truncation: float | None = None) -> Tensor:
        """Draws latents `[count, latent_dim]`, standard normal."""
        return draws.normal(count, latent_dim(self.generator), like=next(self.parameters()), truncation=truncation)

    def styles(self, count: int, **condition: Any) -> Tensor:
        """Returns the latents whose path lengths are measured: by default z; with a mapping network, its output."""
        return self.latent(count)

    def render(self, styles: Tensor, **condition: Any) -> Tensor:
        """Returns the samples of latents that `styles` returns."""
        samples: Tensor = self.generator(styles, **condition)
        return samples

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

    def probe(self, rows: int) -> tuple[Tensor, dict[str, Any]]:
        """Returns generated samples and their condition, made in evaluation mode, for their shape."""
        z = torch.zeros(rows, latent_dim(self.generator), device=self.device)
        labels = torch.zeros(rows, dtype=torch.int64, device=self.device)
        condition = {} if self.num_classes is None else {"label": labels}
        with torch.no_grad(), evaluating(self), torch.random.fork_rng([]):
            return self.generator(z, **condition), condition


def latent_dim(generator: nn.Module) -> int:
    """Returns the size of a generator's latent.

    Raises:
        RecipeError: The generator has no attribute `latent_dim`.
    """
    size = getattr(generator, "latent_dim", None)
    if not isinstance(size, int):
        raise RecipeError(f"{type(generator).__name__} has no attribute `latent_dim`; say how long its latent is")
    return size
