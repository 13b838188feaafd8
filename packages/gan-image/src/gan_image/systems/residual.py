"""Residual networks of three blocks and more.

- `wgan-gp`: Gulrajani et al. 2017, arXiv:1704.00028, with the residual networks of its CIFAR-10 experiment as
  Mimicry (github.com/kwotsin/mimicry) has them: up-sampling is bilinear, the discriminator ends in the mean over space.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from gan_core.blocks import doublings
from gan_core.preset import Preset
from gan_core.recipe import Adam, Linear, Size
from gan_core.regularizers import GradientPenalty
from gan_core.two_player import TwoPlayerGame

GAIN = 2**0.5
"""Of the residual branch's weights; shortcuts and ends have 1."""


def conv(inputs: int, outputs: int, size: int, *, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the size, with Glorot's uniform weights (He et al.'s gain in residual branches)."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def double(x: Tensor) -> Tensor:
    """Twice the height and width, bilinearly."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Up(nn.Module):
    """Normalise, rectify, double, convolve; normalise, rectify, convolve; beside a doubled 1×1 shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, gain=GAIN)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs, 3, gain=GAIN)
        self.shortcut = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv1(double(self.norm1(x).relu()))
        branch = self.conv2(self.norm2(branch).relu())
        return branch + self.shortcut(double(x))


class Stem(nn.Module):
    """The first block of a discriminator, on the image itself: nothing is rectified before the first convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs, 3, gain=GAIN), conv(outputs, outputs, 3, gain=GAIN)
        self.shortcut = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        branch = avg_pool2d(self.conv2(self.conv1(x).relu()), 2)
        return branch + self.shortcut(avg_pool2d(x, 2))


class Down(nn.Module):
    """Rectify, convolve, rectify, convolve, and halve if asked; the hidden width is the input's.

    The shortcut takes the rectified input too: Mimicry rectifies in place, so that its published results have it so.
    """

    def __init__(self, inputs: int, outputs: int, *, halves: bool):
        super().__init__()
        self.halves = halves
        self.conv1, self.conv2 = conv(inputs, inputs, 3, gain=GAIN), conv(inputs, outputs, 3, gain=GAIN)
        self.shortcut = conv(inputs, outputs, 1) if halves or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        branch, shortcut = self.conv2(self.conv1(x).relu()), self.shortcut(x)
        return avg_pool2d(branch, 2) + avg_pool2d(shortcut, 2) if self.halves else branch + shortcut


class Generator(nn.Module):
    """`z [B, latent_dim]` to images `[B, channels, H, W]` in [-1, 1]; every block is as wide as the next.

    Args:
        image_size: 4 doubled at least twice.
        channels: of the images.
        latent_dim: of z.
        width: channels of every block.
    """

    def __init__(self, *, image_size: Size = 32, channels: Size = 3, latent_dim: Size = 128, width: Size = 256):
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, None
        self.project = nn.Linear(latent_dim, width * 4 * 4)
        nn.init.xavier_uniform_(self.project.weight)
        self.blocks = nn.Sequential(*[Up(width, width) for _ in range(doublings(image_size, 4, least=2))])
        self.to_image = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), conv(width, channels, 3), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.to_image(self.blocks(self.project(z).unflatten(1, (-1, 4, 4))))


class Discriminator(nn.Module):
    """Images `[B, channels, H, W]` to logits `[B]`: two blocks that halve, then two that do not.

    Args:
        image_size: at least 8; the blocks do not depend on it.
        channels: of the images.
        width: channels of every block.
    """

    def __init__(self, *, image_size: Size = 32, channels: Size = 3, width: Size = 128):
        super().__init__()
        doublings(image_size, 4, least=2)
        self.num_classes = None
        downs = [Down(width, width, halves=halves) for halves in (True, False, False)]
        self.blocks = nn.Sequential(Stem(channels, width), *downs)
        self.judge = nn.Linear(width, 1)
        nn.init.xavier_uniform_(self.judge.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(self.blocks(images).relu().mean(dim=(2, 3))).squeeze(1)


WGAN_GP = Preset(
    TwoPlayerGame,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1704.00028",
    objective="wasserstein",
    regularizers=[GradientPenalty(weight=10.0)],
    players={"discriminator": {"turns": 5}},
    optimizer=Adam(learning_rate=2e-4, betas=(0.0, 0.9), schedule=Linear()),
    network={"image_size": 32, "latent_dim": 128, "generator": {"width": 256}, "discriminator": {"width": 128}},
    train={"batch_size": 64, "steps": 100_000, "sample_every": 1000, "checkpoint_every": 1000},
)
SMALL = WGAN_GP.but(
    network={"image_size": 16, "latent_dim": 64, "generator": {"width": 48}, "discriminator": {"width": 48}},
    train={"steps": 2000, "ema": 0.99, "sample_every": 200, "checkpoint_every": 200},
    optimizer=Adam(learning_rate=5e-4, betas=(0.0, 0.9), schedule=Linear()),
)

PRESETS = {"wgan-gp": {"paper": WGAN_GP, "small": SMALL}}
