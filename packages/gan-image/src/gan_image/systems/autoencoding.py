"""Systems whose discriminator is an autoencoder.

- `ebgan`: Zhao et al. 2017, arXiv:1609.03126, with the networks of its CelebA experiment (appendix D).
- `began`: Berthelot et al. 2017, arXiv:1703.10717, without its optional skip connections. The initial weights are
  Glorot's, because with torch's default the image hardly depends on the latent.

Both discriminators return energies `[B]` instead of logits: reconstruction errors, which are low for real images.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from gan_core import draws
from gan_core.data import Batch, ImageSpec
from gan_core.nn.blocks import doublings, same_convolution, xavier
from gan_core.nn.initialization import initialize_normal
from gan_core.play.conditions import Truncation
from gan_core.play.latents import straight_line
from gan_core.play.objectives import Objective, Terms, energy_objective
from gan_core.play.preset import Preset
from gan_core.play.regularizers import PullAway, Regularizer
from gan_core.play.two_player import TwoPlayerGame, latent_dim
from gan_core.recipe import Adam, Linear, Size, Step
from gan_image.systems import convolutional


class Autoencoder(nn.Module):
    """EBGAN's discriminator: images `[B, channels, H, W]` to energies `[B]`, mean squared errors of reconstruction.

    Args:
        image_size: side in pixels, 4 doubled at least twice; the side of the code is an eighth of it, but at least 4.
        channels: channels of the images.
        width: channels after the first layer; doubled by each further one.
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
        self.apply(initialize_normal)

    def forward(self, images: Tensor) -> Tensor:
        return (self.decoder(self.encoder(images)) - images).square().flatten(1).mean(dim=1)


class EnergyBased(TwoPlayerGame):
    """EBGAN (Zhao et al. 2017, arXiv:1609.03126, equations 1 and 2).

    Args:
        generator: the generator.
        discriminator: a network that returns energies.
        regularizers: penalties, augmentations and constraints, such as the pull-away term.
        margin: energy above which fakes do not contribute to the discriminator's loss. The energy of images in [-1, 1]
            is at most 4, so the paper's margin of 20 is never reached.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        regularizers: Sequence[Regularizer] = (),
        margin: float = 20.0,
    ) -> None:
        super().__init__(generator, discriminator, objective=energy_objective(margin), regularizers=regularizers)


class Decoder(nn.Module):
    """BEGAN's generator, and the decoder of its discriminator: `h [B, latent_dim]` to images `[B, channels, H, W]`.

    There are two convolutions at each size from 8 pixels on. The images are not bounded to [-1, 1].

    Args:
        image_size: side in pixels, 8 doubled at least once.
        channels: channels of the images.
        latent_dim: size of h.
        width: channels of every convolution, n.
    """

    num_classes = None

    def __init__(self, *, image_size: Size = 64, channels: Size = 3, latent_dim: Size = 64, width: Size = 128):
        super().__init__()
        self.latent_dim, self.width = latent_dim, width
        self.data_spec = ImageSpec(image_size=image_size, channels=channels)
        self.project = xavier(nn.Linear(latent_dim, width * 8 * 8))
        stages: list[nn.Module] = [convolutions(width, width)]
        for _ in range(doublings(image_size, 8)):
            stages += [nn.Upsample(scale_factor=2, mode="nearest"), convolutions(width, width)]
        self.stages = nn.Sequential(*stages, same_convolution(width, channels, 3))

    def forward(self, h: Tensor) -> Tensor:
        return self.stages(self.project(h).unflatten(1, (self.width, 8, 8)))


class Reconstructor(nn.Module):
    """BEGAN's discriminator: images `[B, channels, H, W]` to energies `[B]`, mean absolute errors of reconstruction.

    Args:
        image_size: side in pixels, 8 doubled at least once.
        channels: channels of the images.
        latent_dim: size of the code.
        width: n; the encoder has n channels at the full size, 2n at half, 3n at a quarter and so on.
    """

    energy, num_classes, features_at = True, None, "decoder"

    def __init__(self, *, image_size: Size = 64, channels: Size = 3, latent_dim: Size = 64, width: Size = 128):
        super().__init__()
        halvings = doublings(image_size, 8)
        stages: list[nn.Module] = [same_convolution(channels, width, 3), nn.ELU()]
        for stage in range(1, halvings + 1):
            stages += [
                convolutions(stage * width, stage * width),
                xavier(nn.Conv2d(stage * width, (stage + 1) * width, 3, 2, 1)),
                nn.ELU(),
            ]
        last = (halvings + 1) * width
        self.encoder = nn.Sequential(
            *stages, convolutions(last, last), nn.Flatten(), xavier(nn.Linear(last * 8 * 8, latent_dim))
        )
        self.decoder = Decoder(image_size=image_size, channels=channels, latent_dim=latent_dim, width=width)

    def forward(self, images: Tensor) -> Tensor:
        return (self.decoder(self.encoder(images)) - images).abs().flatten(1).mean(dim=1)


def convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Returns two convolutions with exponential linear units."""
    first, second = same_convolution(inputs, outputs, 3), same_convolution(outputs, outputs, 3)
    return nn.Sequential(first, nn.ELU(), second, nn.ELU())


class BoundaryEquilibrium(TwoPlayerGame):
    """BEGAN (Berthelot et al. 2017, arXiv:1703.10717, section 3.4).

    With L the energy, the discriminator minimises L(x) - kₜ L(G(z)), and the generator L(G(z)). The balance
    kₜ₊₁ = kₜ + λ (γ L(x) - L(G(z))), limited to [0, 1], maintains E[L(G(z))] = γ E[L(x)]. Latents are uniform in
    [-1, 1]. The measure of convergence, L(x) + |γ L(x) - L(G(z))|, is logged as `generator/convergence`.

    Args:
        generator: the generator.
        discriminator: a network that returns energies.
        regularizers: penalties, augmentations and constraints.
        gamma: diversity ratio γ, the energy of fakes relative to that of real images.
        gain: step size of k, λ.
    """

    prior: ClassVar[str] = "uniform in [-1, 1]"

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        regularizers: Sequence[Regularizer] = (),
        gamma: float = 0.5,
        gain: float = 0.001,
    ) -> None:
        objective = Objective("boundary_equilibrium", self.discriminator_energy, self.generator_energy, energy=True)
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.gamma, self.gain = gamma, gain
        self.k: Tensor
        self.real_energy: Tensor
        self.register_buffer("k", torch.zeros(()))
        self.register_buffer("real_energy", torch.zeros(()))

    def latent(self, count: int, *, truncation: Truncation = None) -> Tensor:
        like = next(self.parameters())
        return draws.symmetric(count, latent_dim(self.generator), like=like, truncation=truncation)

    def between(self, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
        return straight_line(start, end, share)

    def discriminator_energy(self, real: Tensor, fake: Tensor) -> Tensor:
        """Computes L(x) - kₜ L(G(z)) from the energies."""
        return real.mean() - self.k * fake.mean()

    def generator_energy(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Computes L(G(z)) from the energies."""
        return fake.mean()

    def generator_loss(self, batch: Batch) -> Terms:
        terms = super().generator_loss(batch)
        self.note("convergence", self.real_energy + (self.gamma * self.real_energy - terms["adversarial"]).abs())
        return terms

    @torch.no_grad()
    def after_turn(self, player: str, values: Terms) -> None:
        super().after_turn(player, values)
        if player == "discriminator":
            self.real_energy.copy_(values["real_logits"])
            return
        self.k.add_(self.gain * (self.gamma * self.real_energy - values["adversarial"])).clamp_(0, 1)


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

BEGAN = Preset(
    BoundaryEquilibrium,
    networks={"generator": Decoder, "discriminator": Reconstructor},
    paper="arXiv:1703.10717",
    network={"image_size": 64, "latent_dim": 64, "width": 128},
    optimizer=Adam(learning_rate=1e-4, betas=(0.5, 0.999), schedule=Step(every=100_000, factor=0.5)),
    train={"batch_size": 16, "steps": 500_000, "sample_every": 5000, "checkpoint_every": 5000},
)
SMALL_BEGAN = BEGAN.but(
    settings={"gamma": 1.0, "gain": 0.05},  # with a smaller γ, samples of digits lose diversity
    network={"image_size": 16, "latent_dim": 16, "width": 16},
    optimizer=Adam(learning_rate=5e-4, betas=(0.5, 0.999), schedule=Linear()),
    players={"discriminator": {"optimizer": {"learning_rate": 2.5e-4}}},
    train={"batch_size": 32, "steps": 1500, "ema": 0.995, "sample_every": 250, "checkpoint_every": 500},
)

PRESETS = {"ebgan": {"paper": EBGAN, "small": SMALL_EBGAN}, "began": {"paper": BEGAN, "small": SMALL_BEGAN}}
