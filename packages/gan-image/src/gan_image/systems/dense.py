"""Multilayer perceptrons on images and on toy distributions: the first GANs.

- `gan`: Goodfellow et al. 2014, arXiv:1406.2661. The paper's generator mixes rectified and sigmoid units, its
  discriminator uses maxout and dropout; here both are plain perceptrons, as most later work has them.
"""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from gan_core.errors import RecipeError
from gan_core.preset import Preset
from gan_core.recipe import Adam, Size
from gan_core.two_player import TwoPlayerGame


def perceptron(inputs: int, outputs: int, *, width: int, depth: int, activation: nn.Module) -> nn.Sequential:
    """`depth` hidden layers of `width` and a linear output."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), activation]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Generator(nn.Module):
    """`z [B, latent_dim]` to samples `[B, *shape]`: images in [-1, 1], points without bounds."""

    def __init__(
        self, *, shape: tuple[Size, ...] = (1, 28, 28), latent_dim: Size = 100, width: Size = 1200, depth: Size = 2
    ):
        super().__init__()
        if not shape:
            raise RecipeError(f"`shape` is {shape}; give the size of a sample, such as [1, 28, 28] or [2]")
        self.shape, self.latent_dim, self.num_classes = shape, latent_dim, None
        self.main = perceptron(latent_dim, prod(shape), width=width, depth=depth, activation=nn.ReLU())
        self.bound = nn.Tanh() if len(shape) == 3 else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        return self.bound(self.main(z)).unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Samples `[B, *shape]` to logits `[B]`."""

    def __init__(self, *, shape: tuple[Size, ...] = (1, 28, 28), width: Size = 1200, depth: Size = 2):
        super().__init__()
        self.num_classes = None
        self.main = perceptron(prod(shape), 1, width=width, depth=depth, activation=nn.LeakyReLU(0.2))

    def forward(self, samples: Tensor) -> Tensor:
        return self.main(samples.flatten(1)).squeeze(1)


GAN = Preset(
    TwoPlayerGame,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1406.2661",
    objective="non_saturating",
    optimizer=Adam(learning_rate=2e-4, betas=(0.5, 0.999)),
    train={"batch_size": 100, "steps": 100_000},
)
SMALL = Preset(
    TwoPlayerGame,
    networks=GAN.networks,
    paper=GAN.paper,
    objective="non_saturating",
    optimizer=Adam(learning_rate=1e-3, betas=(0.5, 0.9)),
    network={"latent_dim": 16, "width": 128, "depth": 3},
    train={"batch_size": 256, "steps": 5000, "sample_every": 500, "checkpoint_every": 1000, "ema": 0.999},
)

PRESETS = {"gan": {"paper": GAN, "small": SMALL}}
