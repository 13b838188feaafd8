"""Progressive growing: training starts at 4x4 pixels, and each phase doubles the size.

- `progan`: Karras et al. 2018, arXiv:1710.10196. Real images are reduced to each size by a Lanczos filter; the authors
  average squares of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from gan_core.data import Batch, ImageSpec
from gan_core.errors import RecipeError
from gan_core.nn.blocks import MinibatchDeviation, PixelNorm, doublings, equalized
from gan_core.play.adversary import Moment
from gan_core.play.objectives import Objective, wasserstein
from gan_core.play.player import Phase, Player
from gan_core.play.preset import Preset
from gan_core.play.regularizers import R1, R2, GradientPenalty, Regularizer
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Adam, Size

SMALLEST = 4
"""Side of the first phase's images, in pixels."""
WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)
"""Channels at 4, 8, 16, … 1024 pixels (Karras et al. 2018, table 2)."""
FADING = 0.5
"""Fraction of a phase in which its new blocks are faded in (appendix A.1)."""


def convolution(inputs: int, outputs: int, size: int = 3, *, gain: float = math.sqrt(2)) -> nn.Module:
    """Returns a convolution with an equalized learning rate that keeps the image's size."""
    return equalized(nn.Conv2d(inputs, outputs, size, padding=size // 2), gain=gain)


def upsample(images: Tensor) -> Tensor:
    """Doubles the size of images by nearest-neighbour interpolation."""
    return interpolate(images, scale_factor=2)


class Start(nn.Sequential):
    """The generator's first block: `z [B, latent_dim]` to features `[B, outputs, 4, 4]`."""

    def __init__(self, latent_dim: int, outputs: int):
        # The authors' gain, a quarter of He's.
        project = equalized(nn.Linear(latent_dim, outputs * SMALLEST**2), gain=math.sqrt(2) / 4)
        super().__init__(
            PixelNorm(),
            project,
            nn.Unflatten(1, (outputs, SMALLEST, SMALLEST)),
            nn.LeakyReLU(0.2),
            PixelNorm(),
            convolution(outputs, outputs),
            nn.LeakyReLU(0.2),
            PixelNorm(),
        )


class Up(nn.Sequential):
    """Doubles the size, then applies two convolutions."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            nn.Upsample(scale_factor=2),
            convolution(inputs, outputs),
            nn.LeakyReLU(0.2),
            PixelNorm(),
            convolution(outputs, outputs),
            nn.LeakyReLU(0.2),
            PixelNorm(),
        )


class Down(nn.Sequential):
    """Applies two convolutions, then halves the size."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            convolution(inputs, inputs),
            nn.LeakyReLU(0.2),
            convolution(inputs, outputs),
            nn.LeakyReLU(0.2),
            nn.AvgPool2d(2),
        )


class End(nn.Sequential):
    """Last block of the discriminator, with minibatch deviation: features `[B, inputs, 4, 4]` to `[B, inputs]`."""

    def __init__(self, inputs: int):
        super().__init__(
            MinibatchDeviation(4),
            convolution(inputs + 1, inputs),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            equalized(nn.Linear(inputs * SMALLEST**2, inputs)),
            nn.LeakyReLU(0.2),
        )


class Growing(nn.Module):
    """A network with a block for each size. Only the blocks up to the current size are used.

    Args:
        blocks: blocks for 4, 8, 16, … pixels.
        rgb: layers between images and features of each size (the paper's toRGB or fromRGB).

    Attributes:
        stage: index of the newest block in use; images have a side of 4 · 2^stage pixels.
        moment: progress of the phase in which that block is faded in. It is the game's; without a game, the phase is
            completed.
    """

    def __init__(self, blocks: Iterable[nn.Module], rgb: Iterable[nn.Module]):
        super().__init__()
        self.blocks, self.rgb = nn.ModuleList(blocks), nn.ModuleList(rgb)
        self.stage, self.moment = len(self.blocks) - 1, Moment(progress=1.0)

    @property
    def fade(self) -> float:
        """Weight of the newest block (the paper's α), in [0, 1]; the smaller image has the remaining weight."""
        return min(1.0, self.moment.progress / FADING)

    def in_use(self) -> tuple[nn.Module, ...]:
        """Returns the modules that are used at the current size."""
        return *self.blocks[: self.stage + 1], *self.rgb[max(0, self.stage - 1) : self.stage + 1]


class Generator(Growing):
    """`z [B, latent_dim]` to images `[B, channels, H, W]` of the current size, approximately in [-1, 1].

    Args:
        image_size: side in pixels when fully grown, 4 doubled any number of times.
        channels: channels of the images.
        latent_dim: size of z.
        widths: channels at 4, 8, 16, … pixels; those for sizes above `image_size` are not used.
    """

    def __init__(
        self, *, image_size: Size = 1024, channels: Size = 3, latent_dim: Size = 512, widths: tuple[Size, ...] = WIDTHS
    ):
        widths = widths_up_to(image_size, widths)
        super().__init__(
            [Start(latent_dim, widths[0]), *(Up(a, b) for a, b in pairwise(widths))],
            [convolution(width, channels, 1, gain=1.0) for width in widths],
        )
        self.latent_dim = latent_dim
        self.data_spec = ImageSpec(image_size=image_size, channels=channels)

    def forward(self, z: Tensor) -> Tensor:
        x = z
        for stage in range(self.stage):
            x = self.blocks[stage](x)
        images = self.rgb[self.stage](self.blocks[self.stage](x))
        if self.stage == 0:
            return images
        return torch.lerp(upsample(self.rgb[self.stage - 1](x)), images, self.fade)


class Discriminator(Growing):
    """Images `[B, channels, H, W]` of the current size to logits `[B]`.

    Args:
        image_size: side in pixels when fully grown, 4 doubled any number of times.
        channels: channels of the images.
        widths: channels at 4, 8, 16, … pixels; those for sizes above `image_size` are not used.
    """

    def __init__(self, *, image_size: Size = 1024, channels: Size = 3, widths: tuple[Size, ...] = WIDTHS):
        widths = widths_up_to(image_size, widths)
        super().__init__(
            [End(widths[0]), *(Down(b, a) for a, b in pairwise(widths))],
            [nn.Sequential(convolution(channels, width, 1), nn.LeakyReLU(0.2)) for width in widths],
        )
        self.judge = equalized(nn.Linear(widths[0], 1), gain=1.0)

    def in_use(self) -> tuple[nn.Module, ...]:
        return *super().in_use(), self.judge

    def forward(self, images: Tensor) -> Tensor:
        x = self.rgb[self.stage](images)
        if self.stage > 0:
            smaller = self.rgb[self.stage - 1](avg_pool2d(images, 2))
            x = torch.lerp(smaller, self.blocks[self.stage](x), self.fade)
        for stage in range(max(0, self.stage - 1), -1, -1):
            x = self.blocks[stage](x)
        return self.judge(x).squeeze(1)


def widths_up_to(image_size: int, widths: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the widths for sizes from 4 pixels to `image_size`.

    Raises:
        RecipeError: there are too few widths, or the size is not 4 times a power of two.
    """
    sizes = doublings(image_size, SMALLEST, least=0) + 1
    if len(widths) < sizes:
        reason = f"`widths` has {len(widths)} values, but from 4 to {image_size} pixels there are {sizes} sizes"
        raise RecipeError(f"{reason}; give a width for each")
    return widths[:sizes]


class ProGAN(TwoPlayerGame):
    """Progressive GAN: both networks grow by a block in every phase (Karras et al. 2018, arXiv:1710.10196, section 2).

    In the first half of a phase, the new blocks are faded in; in the second half, they are trained. The first phase has
    no blocks to fade in and is half as long. In all phases, samples are enlarged to the full size.

    Args:
        generator: a network that grows.
        discriminator: a network that grows.
        objective: the losses of both players.
        regularizers: penalties, augmentations and constraints.
        drift: weight of E[D(x)²] in the discriminator's loss, which keeps the logits of real images near 0
            (appendix A.1).
        batch_sizes: batch sizes at 4, 8, 16, … pixels; if empty, the recipe's batch size is used in all phases.

    Raises:
        RecipeError: there are fewer batch sizes than phases.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        objective: Objective = wasserstein,
        regularizers: Sequence[Regularizer] = (),
        drift: Annotated[float, Field(ge=0)] = 0.0,
        batch_sizes: tuple[Size, ...] = (),
    ) -> None:
        objective = with_drift(objective, drift) if drift else objective
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.sizes = [SMALLEST << stage for stage in range(len(generator.blocks))]
        if batch_sizes and len(batch_sizes) < len(self.sizes):
            reason = f"`game.batch_sizes` has {len(batch_sizes)} values, but there are {len(self.sizes)} phases"
            raise RecipeError(f"{reason}; give one for each, or none")
        self.batch_sizes: tuple[int | None, ...] = batch_sizes or (None,) * len(self.sizes)
        self.growing: tuple[Growing, ...] = (generator, discriminator)
        for network in self.growing:
            network.moment = self.moment
        self.enter_phase(0)

    def phases(self) -> Iterator[Phase]:
        for size, batch_size in zip(self.sizes, self.batch_sizes, strict=False):
            images = 1 if size == SMALLEST else 1 / FADING
            share = images / (batch_size or 1)
            yield Phase(f"{size} pixels", share=share, spec={"image_size": size}, batch_size=batch_size)

    def enter(self, phase: Phase) -> None:
        for network in self.growing:
            network.stage = doublings(phase.spec["image_size"], SMALLEST, least=0)

    def players(self) -> Iterable[Player]:
        generator, discriminator = self.growing
        yield Player("discriminator", discriminator.in_use(), self.discriminator_loss)
        yield Player("generator", generator.in_use(), self.generator_loss)

    def real(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Returns the real images, blended with their smaller versions like the generator's, and the condition."""
        images, condition = super().real(batch)
        network = self.growing[0]
        if network.stage == 0:
            return images, condition
        return torch.lerp(upsample(avg_pool2d(images, 2)), images, network.fade), condition

    def finish(self, fakes: Tensor) -> Tensor:
        """Enlarges images of the current size to the full size."""
        return interpolate(fakes, size=self.sizes[-1])


def with_drift(objective: Objective, weight: float) -> Objective:
    """Returns an objective with the additional term `weight` · E[D(x)²] in the discriminator's loss."""

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        return objective.discriminator(real, fake) + weight * real.square().mean()

    return replace(objective, discriminator=discriminator)


PROGAN = Preset(
    ProGAN,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1710.10196",
    objective="wasserstein",
    regularizers=[GradientPenalty(weight=10.0)],
    settings={"drift": 1e-3, "batch_sizes": (16, 16, 16, 16, 16, 16, 14, 6, 3)},
    optimizer=Adam(learning_rate=1e-3, betas=(0.0, 0.99)),
    network={"image_size": 1024, "latent_dim": 512, "widths": WIDTHS},
    train={"batch_size": 16, "steps": 1_464_286, "ema": 0.999, "sample_every": 5000, "checkpoint_every": 5000},
)
"""Trains on 800,000 images at 4 pixels, and on 1,600,000 at each further size."""
SMALL = PROGAN.but(
    objective="relativistic",
    regularizers=[R1(weight=0.2), R2(weight=0.2)],
    settings={"drift": 0.0, "batch_sizes": ()},
    optimizer=Adam(learning_rate=3e-3, betas=(0.0, 0.99)),
    network={"image_size": 16, "latent_dim": 64, "widths": (64, 32, 16, 16)},
    train={"batch_size": 32, "steps": 1500, "ema": 0.995, "sample_every": 150, "checkpoint_every": 150},
)

PRESETS = {"progan": {"paper": PROGAN, "small": SMALL}}
