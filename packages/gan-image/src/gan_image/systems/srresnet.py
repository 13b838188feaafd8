"""Residual networks like those of super-resolution (SRResNet).

- `dragan`: Kodali et al. 2017, arXiv:1705.07215, with the networks of Jin et al. 2017, arXiv:1708.05509, figures 3 and
  4, for anime characters, without attributes.
"""

from __future__ import annotations

from torch import Tensor, nn

from gan_core.data import ImageSpec
from gan_core.nn.blocks import doublings
from gan_core.play.preset import Preset
from gan_core.play.regularizers import Dragan
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Adam, Linear, Size


def initialize(layer: nn.Module) -> None:
    """Draws weights as in He et al. (arXiv:1502.01852) and sets biases to 0.

    The discriminator has no norms, so with smaller weights its logits would hardly depend on the image.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, 0.2)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class NormalisedBlock(nn.Module):
    """Residual block of two 3×3 convolutions with batch normalization."""

    def __init__(self, width: int):
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.branch = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), second, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class LeakyBlock(nn.Module):
    """Residual block of two 3×3 convolutions without norms, followed by leaky ReLU."""

    def __init__(self, width: int):
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.branch, self.rectify = nn.Sequential(first, nn.LeakyReLU(0.2), second), nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.rectify(x + self.branch(x))


class SubPixel(nn.Sequential):
    """Convolution to four times the channels and pixel shuffle, which double the size, with batch norm and ReLU."""

    def __init__(self, width: int):
        conv = nn.Conv2d(width, 4 * width, 3, padding=1, bias=False)
        super().__init__(conv, nn.PixelShuffle(2), nn.BatchNorm2d(width), nn.ReLU())


class Generator(nn.Module):
    """Generator of images `[B, channels, H, W]` in [-1, 1] from `z [B, latent_dim]`.

    Args:
        image_size: side in pixels, 4 doubled at least once; the first features have an eighth of it, but at least 4.
        channels: channels of the images.
        latent_dim: size of z.
        width: channels of every block.
        blocks: number of residual blocks.
    """

    def __init__(
        self, *, image_size: Size = 128, channels: Size = 3, latent_dim: Size = 128, width: Size = 64, blocks: Size = 16
    ):
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, None
        self.data_spec = ImageSpec(image_size=image_size, channels=channels)
        stages = min(3, doublings(image_size, 4))
        self.width, self.start = width, image_size >> stages
        self.project = nn.Linear(latent_dim, width * self.start**2)
        self.enter = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(*[NormalisedBlock(width) for _ in range(blocks)], nn.BatchNorm2d(width), nn.ReLU())
        self.up = nn.Sequential(*[SubPixel(width) for _ in range(stages)])
        self.to_image = nn.Sequential(nn.Conv2d(width, channels, 9, padding=4), nn.Tanh())
        self.apply(initialize)

    def forward(self, z: Tensor) -> Tensor:
        x = self.enter(self.project(z).unflatten(1, (self.width, self.start, self.start)))
        return self.to_image(self.up(x + self.blocks(x)))


class Discriminator(nn.Module):
    """Discriminator of images `[B, channels, H, W]`, with logits `[B]`.

    It has no norms, because DRAGAN's penalty requires logits that depend only on their own sample.

    Args:
        image_size: side in pixels, 4 doubled at least once.
        channels: channels of the images.
        width: channels after the first layer; doubled at each smaller size.
        pack: number of samples per logit, concatenated along the channels.
    """

    def __init__(self, *, image_size: Size = 128, channels: Size = 3, width: Size = 32, pack: Size = 1):
        super().__init__()
        self.num_classes, self.pack = None, pack
        stages, inputs = [], pack * channels
        for stage in range(min(6, doublings(image_size, 2, least=2))):
            outputs, kernel = width << stage, 4 if stage < 3 else 3
            stages += [nn.Conv2d(inputs, outputs, kernel, stride=2, padding=1), nn.LeakyReLU(0.2)]
            stages += [LeakyBlock(outputs), LeakyBlock(outputs)] if stage < 5 else []
            inputs = outputs
        self.features = nn.Sequential(*stages, nn.Flatten())
        self.judge = nn.Linear(inputs * 2 * 2, 1)
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(self.features(images)).squeeze(1)


DRAGAN = Preset(
    TwoPlayerGame,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1705.07215",
    objective="non_saturating",
    regularizers=[Dragan(weight=0.5)],
    optimizer=Adam(learning_rate=2e-4, betas=(0.5, 0.999), schedule=Linear(start=0.5)),
    network={"image_size": 128, "generator": {"width": 64}, "discriminator": {"width": 32}},
    train={"batch_size": 64, "steps": 100_000, "sample_every": 1000, "checkpoint_every": 1000},
)
SMALL = DRAGAN.but(
    regularizers=[Dragan(weight=10.0)],
    network={
        "image_size": 16,
        "latent_dim": 64,
        "generator": {"width": 32, "blocks": 2},
        "discriminator": {"width": 24},
    },
    optimizer=Adam(learning_rate=5e-4, betas=(0.5, 0.999), schedule=Linear(start=0.5)),
    train={"steps": 2500, "ema": 0.995, "sample_every": 500, "checkpoint_every": 500},
)

PRESETS = {"dragan": {"paper": DRAGAN, "small": SMALL}}
