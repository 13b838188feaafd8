"""Discriminators that are autoencoders: what they reconstruct well is real.

- `ebgan`: Zhao et al. 2017, arXiv:1609.03126, with the networks of its CelebA experiment (appendix D).

The discriminator gives energies `[B]`, at least 0 and low for real images, in the place of logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from gan_core.blocks import doublings
from gan_core.objectives import energy_objective
from gan_core.preset import Preset
from gan_core.recipe import Adam, Size
from gan_core.regularizers import PullAway, Regularizer
from gan_core.two_player import TwoPlayerGame
from gan_image.systems import convolutional


class Autoencoder(nn.Module):
    """Images `[B, channels, H, W]` to energies `[B]`: the mean squared error of their reconstruction.

    Args:
        image_size: 4 doubled at least twice; the code is an eighth as large, or 4 pixels.
        channels: of the images.
        width: channels after the first layer; every further one has twice as many.
    """

    energy, num_classes, features_at = True, None, "decoder"

    def __init__(self, *, image_size: Size = 64, channels: Size = 3, width: Size = 64):
        super().__init__()
        stages = min(3, doublings(image_size, 4, least=2))
        widths = [width << stage for stage in range(stages)]
        encoders = [convolutional.Down(a, b, "batch") for a, b in pairwise(widths)]
        self.encoder = nn.Sequential(convolutional.Down(channels, width, "none"), *encoders)
        decoders = [convolutional.Up(b, a) for a, b in reversed(list(pairwise(widths)))]
        self.decoder = nn.Sequential(*decoders, nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1), nn.Tanh())
        self.apply(convolutional.initialize)

    def forward(self, images: Tensor) -> Tensor:
        return (self.decoder(self.encoder(images)) - images).square().flatten(1).mean(dim=1)


class EnergyBased(TwoPlayerGame):
    """EBGAN (Zhao et al. 2017, arXiv:1609.03126, equations 1 and 2).

    Args:
        generator: as `TwoPlayerGame`'s.
        discriminator: images to energies.
        regularizers: such as the pull-away term.
        margin: energies of fakes are pushed up to it and no further. Images in [-1, 1] have energies of at most 4, so
            that the paper's 20 stops nothing.
    """

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, *, regularizers: Sequence[Regularizer] = (),
        margin: float = 20.0,
    ) -> None:  # fmt: skip
        super().__init__(generator, discriminator, objective=energy_objective(margin), regularizers=regularizers)


EBGAN = Preset(
    EnergyBased,
    networks={"generator": convolutional.Generator, "discriminator": Autoencoder},
    paper="arXiv:1609.03126",
    settings={"margin": 20.0},
    regularizers=[PullAway(weight=0.1)],
    network={"image_size": 64, "latent_dim": 100, "width": 64},
    optimizer=Adam(learning_rate=2e-4, betas=(0.5, 0.999)),
    train={"batch_size": 128, "steps": 100_000, "sample_every": 1000, "checkpoint_every": 1000},
)
SMALL_EBGAN = EBGAN.but(
    settings={"margin": 0.5},
    network={"image_size": 16, "latent_dim": 32, "width": 32},
    optimizer=Adam(learning_rate=5e-4, betas=(0.5, 0.999)),
    train={"batch_size": 64, "steps": 4000, "ema": 0.995, "sample_every": 500, "checkpoint_every": 500},
)

PRESETS = {"ebgan": {"paper": EBGAN, "small": SMALL_EBGAN}}
