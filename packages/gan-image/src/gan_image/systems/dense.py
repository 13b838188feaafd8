"""Multilayer perceptrons for images and toy distributions.

- `gan`: Goodfellow et al. 2014, arXiv:1406.2661. The paper's generator mixes rectified and sigmoid units, and its
  discriminator has maxout and dropout; here both are plain perceptrons, as in most later work.
- `cgan`: Mirza & Osindero 2014, arXiv:1411.1784, section 4.1. Both networks take the class as an input.
- `unrolled-gan`: Metz et al. 2017, arXiv:1611.02163, appendix A. The unrolled updates are those of Adam, as in the
  paper's experiments; in `small`, they are plain gradient steps, which are longer. The initial weights are torch's
  defaults instead of orthogonal as in the paper.
- `pacgan`: Lin et al. 2018, arXiv:1712.04086, section 4.1 and appendix A. The discriminator judges several samples
  together; the paper's batch size of 100 is a number of packs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from gan_core.data import ArraySpec, ImageSpec, Spec
from gan_core.errors import RecipeError
from gan_core.nn.conditioning import one_hot
from gan_core.nn.initialization import initialize_weights
from gan_core.play.preset import Preset
from gan_core.play.regularizers import Unrolled
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import SGD, Adam, Size, Step


class Maxout(nn.Module):
    """Maximum of several linear layers (Goodfellow et al. 2013, arXiv:1302.4389), `[B, inputs]` to `[B, outputs]`."""

    def __init__(self, inputs: int, outputs: int, pieces: int):
        super().__init__()
        self.pieces, self.linear = pieces, nn.Linear(inputs, outputs * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(dim=2)


def perceptron(
    inputs: int, outputs: int, *, width: int, depth: int, hidden: Callable[[int, int], nn.Module]
) -> nn.Sequential:
    """Returns `depth` hidden layers with `width` units and a linear output layer."""
    widths = [inputs, *[width] * depth]
    layers = [hidden(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def relu_layer(inputs: int, outputs: int) -> nn.Module:
    """Returns a linear layer with ReLU."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())


def leaky_relu_layer(inputs: int, outputs: int) -> nn.Module:
    """Returns a linear layer with leaky ReLU."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LeakyReLU(0.2))


def batch_norm_layer(inputs: int, outputs: int) -> nn.Module:
    """Returns a linear layer without bias, with batch normalization and ReLU."""
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())


class Generator(nn.Module):
    """Generator of images in [-1, 1] or of unbounded points, `z [B, latent_dim]` to samples `[B, *shape]`.

    Args:
        shape: shape of a sample; images have three axes.
        latent_dim: size of z.
        width: units of each hidden layer.
        depth: number of hidden layers.
        batch_norm: whether the hidden layers have batch normalization.
        deviation: standard deviation of the initial weights, which are normal; None for torch's default.
    """

    def __init__(
        self,
        *,
        shape: tuple[Size, ...] = (1, 28, 28),
        latent_dim: Size = 100,
        width: Size = 1200,
        depth: Size = 2,
        batch_norm: bool = False,
        deviation: float | None = None,
    ):
        super().__init__()
        if not shape:
            raise RecipeError(f"`shape` is {shape}; give the size of a sample, such as [1, 28, 28] or [2]")
        self.shape, self.latent_dim, self.num_classes = shape, latent_dim, None
        self.data_spec = spec_of(shape)
        hidden = batch_norm_layer if batch_norm else relu_layer
        self.main = perceptron(latent_dim, prod(shape), width=width, depth=depth, hidden=hidden)
        self.activation = nn.Tanh() if len(shape) == 3 else nn.Identity()
        if deviation is not None:
            self.apply(partial(initialize_weights, deviation=deviation))

    def forward(self, z: Tensor) -> Tensor:
        return self.activation(self.main(z)).unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Discriminator, samples `[B, *shape]` to logits `[B]`.

    Args:
        shape: shape of a sample.
        width: units of each hidden layer.
        depth: number of hidden layers.
        maxout: number of pieces of each maxout unit; None for leaky ReLU.
        deviation: standard deviation of the initial weights, which are normal; None for torch's default.
        scale: divisor of the samples.
        pack: number of samples per logit, concatenated along the channels, `[B / pack, pack · C, …]`.
    """

    def __init__(
        self,
        *,
        shape: tuple[Size, ...] = (1, 28, 28),
        width: Size = 1200,
        depth: Size = 2,
        maxout: Size | None = None,
        deviation: float | None = None,
        scale: float = 1.0,
        pack: Size = 1,
    ):
        super().__init__()
        self.num_classes, self.scale, self.pack = None, scale, pack
        hidden = leaky_relu_layer if maxout is None else lambda inputs, outputs: Maxout(inputs, outputs, maxout)
        *layers, self.judge = perceptron(pack * prod(shape), 1, width=width, depth=depth, hidden=hidden)
        self.features = nn.Sequential(*layers)
        if deviation is not None:
            self.apply(partial(initialize_weights, deviation=deviation))

    def forward(self, samples: Tensor) -> Tensor:
        return self.judge(self.features(samples.flatten(1) / self.scale)).squeeze(1)


def spec_of(shape: tuple[int, ...]) -> Spec:
    """Returns the data specification of samples of a shape: images `[C, H, W]`, or points."""
    if len(shape) != 3:
        return ArraySpec(shape=shape)
    channels, height, width = shape
    return ImageSpec(image_size=height if height == width else (height, width), channels=channels)


class ConditionalGenerator(nn.Module):
    """Generator of images `[B, *shape]` in [-1, 1] from `z [B, latent_dim]` and `label [B]` (section 4.1).

    The latent and the class each have a hidden layer, and a third hidden layer takes their concatenation.

    Args:
        shape: shape of a sample.
        num_classes: number of classes.
        latent_dim: size of z.
        latent_width: hidden units for the latent.
        class_width: hidden units for the class.
        width: units of the joint hidden layer.
    """

    def __init__(
        self,
        *,
        shape: tuple[Size, ...] = (1, 28, 28),
        num_classes: Size = 10,
        latent_dim: Size = 100,
        latent_width: Size = 200,
        class_width: Size = 1000,
        width: Size = 1200,
    ):
        super().__init__()
        self.shape, self.latent_dim, self.num_classes = shape, latent_dim, num_classes
        self.data_spec = spec_of(shape)
        self.from_latent, self.from_class = relu_layer(latent_dim, latent_width), relu_layer(num_classes, class_width)
        self.main = nn.Sequential(
            relu_layer(latent_width + class_width, width), nn.Linear(width, prod(shape)), nn.Tanh()
        )

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        joined = torch.cat([self.from_latent(z), self.from_class(one_hot(label, self.num_classes))], dim=1)
        return self.main(joined).unflatten(1, self.shape)


class ConditionalDiscriminator(nn.Module):
    """Discriminator of images `[B, *shape]` with `label [B]`, with logits `[B]`.

    The image and the class each have a maxout layer, and a third maxout layer takes their concatenation.

    Args:
        shape: shape of a sample.
        num_classes: number of classes.
        image_width: maxout units for the image, with 5 pieces each.
        class_width: maxout units for the class, with 5 pieces each.
        joint_width: units of the joint maxout layer, with 4 pieces each.
        dropout: dropout probability after each maxout layer.
    """

    def __init__(
        self,
        *,
        shape: tuple[Size, ...] = (1, 28, 28),
        num_classes: Size = 10,
        image_width: Size = 240,
        class_width: Size = 50,
        joint_width: Size = 240,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.from_image = nn.Sequential(Maxout(prod(shape), image_width, 5), nn.Dropout(dropout))
        self.from_class = nn.Sequential(Maxout(num_classes, class_width, 5), nn.Dropout(dropout))
        self.joint = nn.Sequential(Maxout(image_width + class_width, joint_width, 4), nn.Dropout(dropout))
        self.judge = nn.Linear(joint_width, 1)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        from_class = self.from_class(one_hot(label, self.num_classes))
        joined = torch.cat([self.from_image(images.flatten(1)), from_class], dim=1)
        return self.judge(self.joint(joined)).squeeze(1)


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
    optimizer=Adam(learning_rate=3e-4, betas=(0.5, 0.999)),
    network={"latent_dim": 16, "width": 128, "depth": 3},
    train={"batch_size": 256, "steps": 5000, "sample_every": 500, "checkpoint_every": 1000, "ema": 0.999},
)

CGAN = Preset(
    TwoPlayerGame,
    networks={"generator": ConditionalGenerator, "discriminator": ConditionalDiscriminator},
    paper="arXiv:1411.1784",
    objective="non_saturating",
    network={
        "shape": (1, 28, 28),
        "num_classes": 10,
        "generator": {"class_width": 1000},
        "discriminator": {"class_width": 50},
    },
    optimizer=SGD(learning_rate=0.1, momentum=0.5, schedule=Step(every=1, factor=1 / 1.00004)),
    train={"batch_size": 100, "steps": 100_000, "sample_every": 1000, "checkpoint_every": 1000},
)
SMALL_CGAN = CGAN.but(
    network={
        "shape": (1, 16, 16),
        "latent_dim": 32,
        "generator": {"latent_width": 64, "class_width": 64, "width": 256},
        "discriminator": {"image_width": 96, "class_width": 48, "joint_width": 96, "dropout": 0.25},
    },
    optimizer=Adam(learning_rate=5e-4, betas=(0.5, 0.999)),
    train={"batch_size": 64, "steps": 6000, "ema": 0.995, "sample_every": 500, "checkpoint_every": 500},
)

UNROLLED = Preset(
    TwoPlayerGame,
    networks=GAN.networks,
    paper="arXiv:1611.02163",
    objective="minimax",
    regularizers=[Unrolled(steps=10)],
    network={
        "shape": (2,),
        "latent_dim": 256,
        "generator": {"width": 128, "depth": 2},
        "discriminator": {"width": 128, "depth": 1, "scale": 4.0},
    },
    optimizer=Adam(learning_rate=1e-3, betas=(0.5, 0.999)),
    players={"discriminator": {"optimizer": {"learning_rate": 1e-4}}},
    train={"batch_size": 512, "steps": 25_000, "sample_every": 1000, "checkpoint_every": 1000},
)
SMALL_UNROLLED = UNROLLED.but(
    regularizers=[Unrolled(steps=5, learning_rate=0.1)],
    network={"latent_dim": 64, "discriminator": {"width": 128, "depth": 1, "scale": 1.0}},
    train={"batch_size": 256, "steps": 5000},
)

PACGAN = Preset(
    TwoPlayerGame,
    networks=GAN.networks,
    paper="arXiv:1712.04086",
    objective="non_saturating",
    network={
        "shape": (2,),
        "latent_dim": 2,
        "deviation": 0.02,
        "generator": {"width": 400, "depth": 4, "batch_norm": True},
        "discriminator": {"width": 200, "depth": 3, "maxout": 5, "pack": 2},
    },
    optimizer=Adam(learning_rate=1e-4, betas=(0.8, 0.999)),
    train={"batch_size": 200, "steps": 400_000, "sample_every": 10_000, "checkpoint_every": 10_000},  # 100 packs
)
SMALL_PACGAN = PACGAN.but(
    network={
        "generator": {"width": 128, "depth": 3, "batch_norm": True},
        "discriminator": {"width": 64, "depth": 2, "maxout": 5, "pack": 2},
    },
    optimizer=Adam(learning_rate=5e-4, betas=(0.8, 0.999)),
    train={"batch_size": 128, "steps": 5000, "sample_every": 500, "checkpoint_every": 1000},
)

PRESETS = {
    "gan": {"paper": GAN, "small": SMALL},
    "cgan": {"paper": CGAN, "small": SMALL_CGAN},
    "unrolled-gan": {"paper": UNROLLED, "small": SMALL_UNROLLED},
    "pacgan": {"paper": PACGAN, "small": SMALL_PACGAN},
}
