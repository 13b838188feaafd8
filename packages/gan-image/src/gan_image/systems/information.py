"""Systems that maximise the mutual information between latent codes and images.

- `infogan`: Chen et al. 2016, arXiv:1606.03657, with the MNIST networks of github.com/Natsu6767/InfoGAN-PyTorch. Q
  shares the discriminator's trunk, but the information term does not train the trunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from gan_core import draws
from gan_core.data import Batch, ImageSpec
from gan_core.errors import RecipeError
from gan_core.nn.initialization import initialize_normal
from gan_core.play.conditions import Truncation
from gan_core.play.latents import straight_line
from gan_core.play.objectives import Objective, Terms, non_saturating
from gan_core.play.player import Player
from gan_core.play.preset import Preset
from gan_core.play.regularizers import GradientPenalty, Regularizer
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Adam, Size

SLOPE = 0.1
"""Negative slope of the leaky ReLUs."""


class Generator(nn.Module):
    """Generator of images `[B, channels, H, W]` in [-1, 1] from `z [B, latent_dim]` or `[B, latent_dim, 1, 1]`.

    z is the concatenation of noise, one categorical code (one-hot), and continuous codes.

    Args:
        image_size: side in pixels, a multiple of 4.
        channels: channels of the images.
        noise: size of the noise.
        categories: number of categories of the categorical code.
        continuous: number of continuous codes.
        width: channels before the last layer; the two preceding layers have 2 and 16 times this number.
    """

    def __init__(
        self,
        *,
        image_size: Size = 28,
        channels: Size = 1,
        noise: Size = 62,
        categories: Size = 10,
        continuous: Size = 2,
        width: Size = 64,
    ):
        super().__init__()
        self.num_classes, self.noise, self.categories, self.continuous = None, noise, categories, continuous
        self.latent_dim = noise + categories + continuous
        self.data_spec = ImageSpec(image_size=image_size, channels=channels)
        widths = [self.latent_dim, 16 * width, 2 * width, width]
        shapes = [(1, 1, 0), (quarter(image_size), 1, 0), (4, 2, 1)]
        layers: list[nn.Module] = []
        for inputs, outputs, (size, stride, padding) in zip(widths, widths[1:], shapes, strict=False):
            layers += [nn.ConvTranspose2d(inputs, outputs, size, stride, padding, bias=False), nn.BatchNorm2d(outputs)]
            layers.append(nn.ReLU())
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Sigmoid())
        self.apply(initialize_normal)

    def forward(self, z: Tensor) -> Tensor:
        return 2 * self.main(z.flatten(1)[:, :, None, None]) - 1


class Discriminator(nn.Module):
    """Discriminator of images `[B, channels, H, W]`, with logits `[B]`; `posterior` predicts the codes.

    Args:
        image_size: side in pixels, a multiple of 4.
        channels: channels of the images.
        categories: number of categories of the categorical code.
        continuous: number of continuous codes.
        width: channels after the first layer; the next two layers have 2 and 16 times this number.
    """

    separate = ("posterior",)

    def __init__(
        self,
        *,
        image_size: Size = 28,
        channels: Size = 1,
        categories: Size = 10,
        continuous: Size = 2,
        width: Size = 64,
    ):
        super().__init__()
        self.num_classes = None
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, 16 * width, quarter(image_size), bias=False),
            nn.BatchNorm2d(16 * width),
            nn.LeakyReLU(SLOPE),
        )
        self.judge = nn.Conv2d(16 * width, 1, 1)
        self.posterior = Posterior(16 * width, 2 * width, categories, continuous)
        self.apply(initialize_normal)

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(self.trunk(images)).flatten()

    def trunk(self, images: Tensor) -> Tensor:
        """Computes the features shared by D and Q, `[B, 16 · width, 1, 1]`; images in [-1, 1] are scaled to [0, 1]."""
        features: Tensor = self.features((images + 1) / 2)
        return features


class Posterior(nn.Module):
    """Q: features `[B, inputs, 1, 1]` to logits of the category, and means and variances of the continuous codes."""

    def __init__(self, inputs: int, width: int, categories: int, continuous: int):
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE))
        self.category, self.mean = nn.Conv2d(width, categories, 1), nn.Conv2d(width, continuous, 1)
        self.log_variance = nn.Conv2d(width, continuous, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.main(features)
        return (
            self.category(hidden).flatten(1),
            self.mean(hidden).flatten(1),
            self.log_variance(hidden).exp().flatten(1),
        )


def quarter(image_size: int) -> int:
    """Returns a quarter of an image size.

    Raises:
        RecipeError: the size is not a multiple of 4.
    """
    if image_size % 4:
        raise RecipeError(
            f"`image_size` is {image_size}; expected a multiple of 4, such as {max(4, 4 * round(image_size / 4))}"
        )
    return image_size // 4


class InfoGAN(TwoPlayerGame):
    """InfoGAN (Chen et al. 2016, arXiv:1606.03657, eq. 6).

    The generator maximises L_I, a lower bound of the mutual information between codes and images (eq. 5), which is, up
    to a constant, the log-likelihood of the codes under Q. The player `generator` trains G and Q. The trunk, which D
    and Q share, is trained only by the player `discriminator`.

    Args:
        generator: the generator.
        discriminator: the discriminator with Q.
        objective: the losses of both players.
        regularizers: penalties, augmentations and constraints.
        categorical_weight: weight of the term of the categorical code, λ.
        continuous_weight: weight of the term of the continuous codes, λ.
    """

    prior: ClassVar[str] = "noise uniform in [-1, 1], then a one-hot category, then continuous codes uniform in [-1, 1]"

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        objective: Objective = non_saturating,
        regularizers: Sequence[Regularizer] = (),
        categorical_weight: float = 1.0,
        continuous_weight: float = 0.1,
    ) -> None:
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.noise, self.categories, self.continuous = generator.noise, generator.categories, generator.continuous
        self.trunk = discriminator.trunk
        self.categorical_weight, self.continuous_weight = categorical_weight, continuous_weight

    @property
    def posterior(self) -> nn.Module:
        """The network Q, which predicts the codes."""
        return self.discriminator.network.get_submodule("posterior")

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", self.discriminator.trained, self.discriminator_loss)
        yield Player("generator", (self.generator, self.posterior), self.generator_loss)

    def latent(self, count: int, *, truncation: Truncation = None) -> Tensor:
        like = next(self.parameters())
        category = draws.integers(self.categories, count, like=like)
        rest = draws.symmetric(count, self.noise + self.continuous, like=like, truncation=truncation)
        return torch.cat(
            [rest[:, : self.noise], one_hot(category, self.categories).to(rest), rest[:, self.noise :]], dim=1
        )

    def between(self, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
        """Returns latents on a straight line for noise and continuous codes; the category is that of `start`."""
        latents = straight_line(start, end, share)
        category = slice(self.noise, self.noise + self.categories)
        latents[:, :, category] = start[:, None, category]
        return latents

    def generator_loss(self, batch: Batch) -> Terms:
        real, _ = self.real(batch)
        z = self.latent(len(real))
        fake = self.generator(z)
        terms = self.discriminator.generator_terms(fake, real)
        _, category, continuous = torch.split(z, [self.noise, self.categories, self.continuous], dim=1)
        logits, mean, variance = self.posterior(self.trunk(self.discriminator.augmented(fake)))
        return terms | {
            "category": self.categorical_weight * cross_entropy(logits, category.argmax(dim=1)),
            "continuous": self.continuous_weight * negative_log_likelihood(continuous, mean, variance),
        }

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Returns a traversal of the first continuous code, with a row for each category."""
        return {"traversal": self.traverse(0)}

    @torch.no_grad()
    def traverse(self, code: int, *, span: float = 2.0, seed: int = 0) -> Tensor:
        """Generates images `[categories², …]`: one row per category, along which one continuous code changes.

        All images have the same noise.

        Args:
            code: index of the continuous code; the others are 0.
            span: range of the code, from -span to span.
            seed: random seed of the noise.
        """
        with draws.drawing(seed, self.device):
            noise = 2 * draws.uniform(1, self.noise, like=next(self.parameters())) - 1
        places = torch.arange(self.categories**2, device=self.device)
        continuous = torch.zeros(len(places), self.continuous, device=self.device)
        continuous[:, code] = span * (2 * (places % self.categories) / max(1, self.categories - 1) - 1)
        category = one_hot(places // self.categories, self.categories).to(noise)
        images: Tensor = self.generator(torch.cat([noise.expand(len(places), -1), category, continuous], dim=1))
        return images


def negative_log_likelihood(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Computes -E[log N(x; mean, variance)] of codes `[B, n]`, summed over the codes."""
    return (((x - mean).square() / variance + variance.log() + math.log(2 * math.pi)) / 2).sum(dim=1).mean()


INFOGAN = Preset(
    InfoGAN,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1606.03657",
    objective="non_saturating",
    network={"image_size": 28, "channels": 1},
    optimizer=Adam(learning_rate=2e-4, betas=(0.5, 0.999)),
    players={"generator": {"optimizer": {"learning_rate": 1e-3}}},
    train={"batch_size": 128, "steps": 50_000, "sample_every": 1000, "checkpoint_every": 1000, "show": 100},
)
SMALL = INFOGAN.but(
    regularizers=[GradientPenalty(weight=1.0, interval=4)],
    network={"image_size": 16, "noise": 16, "width": 16},
    train={"batch_size": 64, "steps": 4000, "ema": 0.99, "sample_every": 500, "checkpoint_every": 500},
)

PRESETS = {"infogan": {"paper": INFOGAN, "small": SMALL}}
