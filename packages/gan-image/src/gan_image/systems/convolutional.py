"""Networks of strided convolutions with batch normalization.

- `dcgan`: Radford et al. 2016, arXiv:1511.06434. At 64 pixels, the networks are those of the PyTorch examples, whose
  discriminator normalizes real and fake images in separate batches. Other sizes have one stage per halving down to 4
  pixels.
- `wgan`: Arjovsky et al. 2017, arXiv:1701.07875. DCGAN's networks; the discriminator's weights are clipped.
- `lsgan`: Mao et al. 2017, arXiv:1611.04076. DCGAN's networks with the least squares objective.

With `num_classes`, the generator takes the class as a one-hot vector appended to the latent (Mirza & Osindero 2014,
arXiv:1411.1784), and the discriminator by projection (Miyato & Koyama 2018, arXiv:1802.05637, eq. 3).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from gan_core.data import ImageSpec
from gan_core.nn.blocks import doublings, norm
from gan_core.nn.conditioning import add_class_projection, append_class
from gan_core.nn.initialization import initialize_normal
from gan_core.play.preset import Preset
from gan_core.play.regularizers import WeightClipping
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Adam, RMSprop, Size


class Up(nn.Sequential):
    """Transposed convolution that doubles the size, batch normalization and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Down(nn.Sequential):
    """Convolution that halves the size, a norm and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kind: str):
        conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        super().__init__(conv, norm(kind, outputs), nn.LeakyReLU(0.2))


class Generator(nn.Module):
    """Generator of images `[B, channels, H, W]` in [-1, 1] from `z [B, latent_dim]` or `[B, latent_dim, 1, 1]`.

    Args:
        image_size: side in pixels, 4 doubled at least twice.
        channels: channels of the images.
        latent_dim: size of z.
        width: channels before the last layer; doubled at each smaller size.
        num_classes: number of classes; None for a generator without classes.
    """

    def __init__(
        self,
        *,
        image_size: Size = 64,
        channels: Size = 3,
        latent_dim: Size = 100,
        width: Size = 64,
        num_classes: Size | None = None,
    ):
        super().__init__()
        stages = doublings(image_size, 4, least=2)
        widths = [width << stage for stage in reversed(range(stages))]
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.data_spec = ImageSpec(image_size=image_size, channels=channels)
        first = nn.ConvTranspose2d(latent_dim + (num_classes or 0), widths[0], 4, bias=False)
        self.project = nn.Sequential(first, nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.up = nn.Sequential(*[Up(a, b) for a, b in pairwise(widths)])
        self.to_image = nn.Sequential(
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1, bias=False), nn.Tanh()
        )
        self.apply(initialize_normal)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        z = append_class(z.flatten(1), label, self.num_classes)
        return self.to_image(self.up(self.project(z[:, :, None, None])))


class Discriminator(nn.Module):
    """Discriminator of images `[B, channels, H, W]`, with logits `[B]`.

    Args:
        image_size: side in pixels, 4 doubled at least twice.
        channels: channels of the images.
        width: channels after the first layer; doubled at each smaller size.
        norm: norm of all stages but the first, which has none: `batch`, `layer` or `none`.
        num_classes: number of classes; None for a discriminator without classes.
        pack: number of samples per logit, concatenated along the channels, `[B / pack, pack · channels, H, W]`.
    """

    def __init__(
        self,
        *,
        image_size: Size = 64,
        channels: Size = 3,
        width: Size = 64,
        norm: str = "batch",
        num_classes: Size | None = None,
        pack: Size = 1,
    ):
        super().__init__()
        stages = doublings(image_size, 4, least=2)
        widths = [width << stage for stage in range(stages)]
        self.num_classes, self.pack = num_classes, pack
        downs = [Down(a, b, norm) for a, b in pairwise(widths)]
        self.features = nn.Sequential(Down(pack * channels, width, "none"), *downs)
        self.judge = nn.Conv2d(widths[-1], 1, 4, bias=False)
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, widths[-1])
        self.apply(initialize_normal)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.features(images)
        logits = self.judge(features).flatten()
        return add_class_projection(logits, features, label, self.embedding)


DCGAN = Preset(
    TwoPlayerGame,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1511.06434",
    objective="non_saturating",
    optimizer=Adam(learning_rate=2e-4, betas=(0.5, 0.999)),
    network={"image_size": 64, "latent_dim": 100, "width": 64},
    train={"batch_size": 128, "steps": 100_000, "sample_every": 1000, "checkpoint_every": 1000},
)
SMALL = Preset(
    TwoPlayerGame,
    networks=DCGAN.networks,
    paper=DCGAN.paper,
    objective="non_saturating",
    optimizer=Adam(learning_rate=5e-4, betas=(0.5, 0.999)),
    network={"image_size": 32, "latent_dim": 64, "width": 32},
    train={"steps": 4000, "ema": 0.995, "sample_every": 500, "checkpoint_every": 500},
)

WGAN = DCGAN.but(
    paper="arXiv:1701.07875",
    objective="wasserstein",
    regularizers=[WeightClipping(bound=0.01)],
    optimizer=RMSprop(learning_rate=5e-5),
    players={"discriminator": {"turns": 5}},
    train={"batch_size": 64},
)
LSGAN = DCGAN.but(paper="arXiv:1611.04076", objective="least_squares", train={"batch_size": 64})

SMALL_WGAN = SMALL.but(
    paper=WGAN.paper,
    objective="wasserstein",
    regularizers=[WeightClipping(bound=0.01)],
    optimizer=RMSprop(learning_rate=2e-4),
    players={"discriminator": {"turns": 5}},
    network={"image_size": 16},
)
SMALL_LSGAN = SMALL.but(paper=LSGAN.paper, objective="least_squares")

PRESETS = {
    "dcgan": {"paper": DCGAN, "small": SMALL},
    "wgan": {"paper": WGAN, "small": SMALL_WGAN},
    "lsgan": {"paper": LSGAN, "small": SMALL_LSGAN},
}
