"""The standard two-player game: a generator and a discriminator with an objective and regularizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gan_core import draws
from gan_core.data import Batch
from gan_core.data.spec import Spec
from gan_core.errors import DataError, RecipeError
from gan_core.nn.blocks import evaluating
from gan_core.play.adversary import Adversary
from gan_core.play.conditions import Truncation
from gan_core.play.exported import BATCH, Exported, Input
from gan_core.play.game import Game
from gan_core.play.objectives import Objective, Terms, non_saturating
from gan_core.play.player import Player
from gan_core.play.regularizers import Generation, Regularizer


class TwoPlayerGame(Game):
    """Generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661), with or without classes.

    The batch holds one tensor of real samples and, if the networks are class-conditional, `label` `[B]`. Fake samples
    are generated with the labels of the real samples in the batch.

    Args:
        generator: maps latents `[B, latent_dim]` (and `label`, if class-conditional) to samples. Attributes:
            `latent_dim`; optionally `num_classes`, and `data_spec`, which describes the samples
            (`ImageSpec(image_size=64, channels=3)`).
        discriminator: a network, see `Adversary`, with the same `num_classes` as the generator; or an `Adversary` with
            its own objective and regularizers.
        objective: the losses of both players; only with a plain network as discriminator.
        regularizers: penalties, augmentations and constraints; only with a plain network as discriminator.

    Attributes:
        prior: description of the latents' distribution.
        discriminator: the adversary; its network is `discriminator.network`.

    Raises:
        RecipeError: the networks have different numbers of classes, or the objective or a regularizer does not apply.
    """

    prior: ClassVar[str] = "standard normal"

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        objective: Objective | str = non_saturating,
        regularizers: Sequence[Regularizer | str] = (),
    ) -> None:
        super().__init__()
        for name, network in {"generator": generator, "discriminator": discriminator}.items():
            if not isinstance(network, nn.Module):
                raise RecipeError(f"`{name}` is {network!r}; give a network, an instance of `nn.Module`")
        self.generator = generator
        self.num_classes, judged = getattr(generator, "num_classes", None), getattr(discriminator, "num_classes", None)
        if judged != self.num_classes:
            given = f"`num_classes` is {self.num_classes} in the generator and {judged} in the discriminator"
            raise RecipeError(f"{given}; make them equal")
        if not isinstance(discriminator, Adversary):
            discriminator = Adversary(
                discriminator,
                objective=objective,
                regularizers=regularizers,
                images=self.images,
                example=self.probe,
                generation=Generation(generator, self._drawn_styles, self.synthesize),
            )
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
        """Computes the discriminator's loss on real and fake samples, `[B, …]` each, as weighted terms by name."""
        return self.discriminator.discriminator_terms(real, fake, **condition)

    def generator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        """Computes the generator's loss on new fake samples `[B, …]`, as weighted terms by name.

        Args:
            real: real samples, `[B, …]`.
            fake: fake samples, `[B, …]`, with gradients.
            condition: condition of both.
        """
        return self.discriminator.generator_terms(fake, real, **condition)

    def realness(self, batch: Batch) -> dict[str, Tensor]:
        real, condition = self.real(batch)
        return {"discriminator": self.discriminator.realness(real, **condition)}

    def fakes(self, count: int, **condition: Any) -> Tensor:
        """Generates `count` samples in the form that the discriminator judges; `finish` converts them for users."""
        return self.synthesize(self._drawn_styles(count, **condition), **condition)

    def sample(self, count: int, *, truncation: Truncation = None, **condition: Any) -> Tensor:
        return self.render(self.latent(count, truncation=truncation), **condition)

    def latent(self, count: int, *, truncation: Truncation = None) -> Tensor:
        """Draws latents `[count, latent_dim]`, standard normal."""
        return draws.normal(count, latent_dim(self.generator), like=next(self.parameters()), truncation=truncation)

    def render(self, latent: Tensor, **condition: Any) -> Tensor:
        return self.finish(self.synthesize(self.styles(latent, **condition), **condition))

    def styles(self, latent: Tensor, **condition: Any) -> Tensor:
        """Returns the latents at which path lengths are measured (default: z). Override it for a mapping network."""
        return latent

    def synthesize(self, styles: Tensor, **condition: Any) -> Tensor:
        """Generates samples in the form for the discriminator from the result of `styles`."""
        samples: Tensor = self.generator(styles, **condition)
        return samples

    def finish(self, fakes: Tensor) -> Tensor:
        """Converts samples from the form for the discriminator to that for users (default: unchanged)."""
        return fakes

    def _drawn_styles(self, count: int, **condition: Any) -> Tensor:
        return self.styles(self.latent(count), **condition)

    def real(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Returns the batch's real samples, and the condition that is passed to both networks.

        Raises:
            DataError: the data have several keys besides `label`, and neither `reads` nor the data specification
                selects one.
        """
        key = self.data_spec().key
        keys = self.reads[:1] or ((key,) if key else tuple(batch.keys() - {"label"}))
        if len(keys) != 1:
            have = ", ".join(f"`{key}`" for key in sorted(keys))
            raise DataError(f"the data have the keys {have}; set `{type(self).__name__}.reads` to one of them")
        return batch[keys[0]], {"label": batch["label"]} if self.num_classes is not None else {}

    def exports(self) -> Mapping[str, Exported]:
        inputs = {"z": Input((BATCH, latent_dim(self.generator)), self.prior, lambda shape: self.latent(shape[0]))}
        classes = self.num_classes
        if classes is not None:
            inputs["label"] = Input(
                (BATCH,), f"class, from 0 to {classes - 1}", lambda shape: torch.arange(shape[0]) % classes
            )
        return {"generator": Exported(self.generator, inputs, {"samples": self.data_spec().values})}

    def data_spec(self) -> Spec:
        spec: Spec = getattr(self.generator, "data_spec", Spec())
        return spec

    def probe(self, rows: int) -> tuple[Tensor, dict[str, Any]]:
        """Returns `rows` generated samples and their condition, for regularizers to determine shapes.

        They are generated from zeros in evaluation mode and without gradients.
        """
        z = torch.zeros(rows, latent_dim(self.generator), device=self.device)
        labels = torch.zeros(rows, dtype=torch.int64, device=self.device)
        condition = {} if self.num_classes is None else {"label": labels}
        with torch.no_grad(), evaluating(self), torch.random.fork_rng([]):
            return self.generator(z, **condition), condition


def latent_dim(generator: nn.Module) -> int:
    """Returns the number of dimensions of a generator's latent.

    Raises:
        RecipeError: the generator has no attribute `latent_dim`.
    """
    size = getattr(generator, "latent_dim", None)
    if not isinstance(size, int):
        raise RecipeError(f"{type(generator).__name__} has no attribute `latent_dim`; set it to the size of its latent")
    return size
