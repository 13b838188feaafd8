"""Residual networks as in Mimicry (github.com/kwotsin/mimicry), with bilinear upsampling.

SAGAN at its paper's size has the layout of BigGAN-PyTorch (github.com/ajbrock/BigGAN-PyTorch), with nearest-neighbour
upsampling.

- `wgan-gp`: Gulrajani et al. 2017, arXiv:1704.00028. The discriminator has no norms and averages its features.
- `sngan`: Miyato et al. 2018, arXiv:1802.05957. The discriminator has spectral normalization and sums its features.
- `cgan-pd`: Miyato & Koyama 2018, arXiv:1802.05637. Classes condition the generator by conditional batch normalization
  and the discriminator by projection.
- `sagan`: Zhang et al. 2019, arXiv:1805.08318. Both networks have self-attention and spectral normalization.
- `ssgan`: Chen et al. 2019, arXiv:1811.11212. The discriminator also predicts the rotation of images.
- `infomax-gan`: Lee et al. 2021, arXiv:2007.04589. The discriminator also matches local features with the global
  feature of their image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gan_core.data import ImageSpec
from gan_core.errors import RecipeError
from gan_core.nn.blocks import (
    ResidualDown,
    ResidualStem,
    ResidualUp,
    SelfAttention,
    doublings,
    same_convolution,
    xavier,
)
from gan_core.nn.conditioning import add_class_projection
from gan_core.play.objectives import Objective, Terms, hinge
from gan_core.play.preset import Preset
from gan_core.play.regularizers import GradientPenalty, Regularizer
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Adam, Linear, Size

MASKED = -10.0
"""Score that InfoMax-GAN assigns to pairs from the same image, to exclude them from the negatives."""
Layout = Literal["mimicry", "biggan"]
"""Published code whose residual blocks are used.

Mimicry upsamples bilinearly, BigGAN-PyTorch by nearest neighbours. In Mimicry's discriminators, the hidden layer of a
block has the number of channels of the input, and the shortcut takes the input after ReLU, because that ReLU is in
place; Mimicry's published results were obtained in this way. In BigGAN-PyTorch, the hidden layer has the number of
channels of the output, and the shortcut takes the input before ReLU.
"""


def with_attention(
    blocks: Sequence[nn.Module], channels: Sequence[int], sizes: Sequence[int], attention: int | None, spectral: bool
) -> list[nn.Module]:
    """Inserts self-attention after the first block whose output has a side of `attention` pixels.

    Args:
        blocks: residual blocks.
        channels: output channels of each block.
        sizes: side of each block's output, in pixels.
        attention: side of the features with self-attention; None for no attention.
        spectral: whether the attention has spectral normalization.

    Raises:
        RecipeError: no block has an output of that size.
    """
    if attention is None:
        return list(blocks)
    if attention not in sizes:
        known = ", ".join(str(size) for size in dict.fromkeys(sizes))
        raise RecipeError(f"`attention` is {attention}; expected the size of a block's output: {known}")
    after = sizes.index(attention) + 1
    return [*blocks[:after], SelfAttention(channels[after - 1], spectral=spectral), *blocks[after:]]


class Generator(nn.Module):
    """Generator of images `[B, channels, H, W]` in [-1, 1] from `z [B, latent_dim]` and, optionally, classes.

    Args:
        image_size: side in pixels, 4 or 6 doubled at least twice.
        channels: channels of the images.
        latent_dim: size of z.
        width: channels of the first block.
        tapered: whether each of the last four blocks halves the channels (in BigGAN-PyTorch's layout, all but the
            first), as in the published networks for 48 pixels or more; otherwise all blocks have `width` channels.
        num_classes: number of classes; None for a generator without classes.
        spectral_generator: whether every layer has spectral normalization.
        attention: side of the features with self-attention, in pixels; None for no attention.
        layout: published code whose blocks are used, `mimicry` or `biggan`.
    """

    def __init__(
        self,
        *,
        image_size: Size = 32,
        channels: Size = 3,
        latent_dim: Size = 128,
        width: Size = 256,
        tapered: bool = False,
        num_classes: Size | None = None,
        spectral_generator: bool = False,
        attention: Size | None = None,
        layout: Layout = "mimicry",
    ):
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.data_spec = ImageSpec(image_size=image_size, channels=channels)
        self.start = 6 if image_size % 3 == 0 else 4
        blocks = doublings(image_size, self.start, least=2)
        kept = max(0, blocks - 4) if layout == "mimicry" else 1
        widths = [width >> max(0, k - kept) if tapered else width for k in range(blocks + 1)]
        if not widths[-1]:
            least = 1 << blocks - kept
            raise RecipeError(f"`width` is {width}; it is halved {blocks - kept} times and must be at least {least}")
        spectral = spectral_generator
        self.project = xavier(nn.Linear(latent_dim, width * self.start**2), spectral=spectral)
        smooth = layout == "mimicry"
        ups = [ResidualUp(a, b, num_classes, spectral=spectral, smooth=smooth) for a, b in pairwise(widths)]
        sizes = [self.start << block for block in range(1, blocks + 1)]
        self.blocks = nn.ModuleList(with_attention(ups, widths[1:], sizes, attention, spectral))
        end = same_convolution(widths[-1], channels, 3, spectral=spectral)
        self.to_image = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(), end, nn.Tanh())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.project(z).unflatten(1, (-1, self.start, self.start))
        for block in self.blocks:
            x = block(x, label) if isinstance(block, ResidualUp) else block(x)
        return self.to_image(x)


class Discriminator(nn.Module):
    """Discriminator of images `[B, channels, H, W]` and, optionally, classes, with logits `[B]`.

    Args:
        image_size: side in pixels, 4 or 6 doubled at least once.
        channels: channels of the images.
        width: channels of the last block.
        tapered: whether the channels double from block to block, from a sixteenth of `width`, and all blocks halve the
            size (in BigGAN-PyTorch's layout, all but the last, down to 4 pixels), as in the published networks for 48
            pixels or more; otherwise there are four blocks of `width` channels, of which two halve the size.
        spectral: whether every layer has spectral normalization.
        pool: reduction of the features over space, `sum` or `mean`.
        num_classes: number of classes; None for a discriminator without classes.
        pack: number of samples per logit, concatenated along the channels, `[B / pack, pack · channels, H, W]`.
        attention: side of the features with self-attention, in pixels; None for no attention.
        layout: published code whose blocks are used, `mimicry` or `biggan`.
    """

    def __init__(
        self,
        *,
        image_size: Size = 32,
        channels: Size = 3,
        width: Size = 128,
        tapered: bool = False,
        spectral: bool = True,
        pool: str = "sum",
        num_classes: Size | None = None,
        pack: Size = 1,
        attention: Size | None = None,
        layout: Layout = "mimicry",
    ):
        super().__init__()
        if pool not in ("sum", "mean"):
            raise RecipeError(f"`pool` is {pool}; expected sum or mean")
        doublings(image_size, 6 if image_size % 3 == 0 else 4, least=1)
        self.num_classes, self.pack, self.pool, self.spectral = num_classes, pack, pool, spectral
        plan = [(width, True), (width, True), (width, False), (width, False)]
        if tapered:
            plan = taper(image_size, width) if layout == "mimicry" else taper_to_4(image_size, width)
        mimicry = layout == "mimicry"
        blocks: list[nn.Module] = [ResidualStem(pack * channels, plan[0][0], spectral=spectral)]
        for (inputs, _), (outputs, halves) in pairwise(plan):
            block = ResidualDown(
                inputs,
                outputs,
                hidden=inputs if mimicry else outputs,
                halves=halves,
                spectral=spectral,
                rectified_shortcut=mimicry,
            )
            blocks.append(block)
        widths, halved = zip(*plan, strict=True)
        sizes = [image_size >> count for count in accumulate(halved)]
        self.blocks = nn.Sequential(*with_attention(blocks, widths, sizes, attention, spectral))
        self.judge = xavier(nn.Linear(width, 1), spectral=spectral)
        self.embedding = None if num_classes is None else xavier(nn.Embedding(num_classes, width), spectral=spectral)

    def pooled(self, features: Tensor) -> Tensor:
        """Reduces features `[B, C, H, W]` of the last block over space to `[B, C]`, after ReLU."""
        features = features.relu()
        return features.sum(dim=(2, 3)) if self.pool == "sum" else features.mean(dim=(2, 3))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.pooled(self.blocks(images))
        logits = self.judge(features).squeeze(1)
        return add_class_projection(logits, features, label, self.embedding)


def taper(image_size: int, width: int) -> list[tuple[int, bool]]:
    """Returns the channels of Mimicry's blocks and whether they halve the size.

    The channels double up to `width`. From 128 pixels on, there is one more block.
    """
    widths = [sixteenth(width) << k for k in range(5)] + [width] * (image_size >= 128)
    size, plan = image_size, []
    for block, channels in enumerate(widths):
        halves = size % 2 == 0 and block < 5
        plan.append((channels, halves))
        size = size // 2 if halves else size
    return plan


def taper_to_4(image_size: int, width: int) -> list[tuple[int, bool]]:
    """Returns the channels of BigGAN-PyTorch's blocks and whether they halve the size.

    The channels double up to `width`. All blocks halve the size, down to 4 pixels, except for an additional last block.
    """
    last = doublings(image_size, 4, least=4)
    return [(min(width, sixteenth(width) << block), block < last) for block in range(last + 1)]


def sixteenth(width: int) -> int:
    """Returns the channels of the first block of a tapered discriminator.

    Raises:
        RecipeError: `width` is not a multiple of 16.
    """
    if width % 16:
        nearest = 16 * max(1, round(width / 16))
        raise RecipeError(f"`width` is {width}; a tapered discriminator needs a multiple of 16. Try {nearest}.")
    return width // 16


# SSGAN and InfoMax-GAN.


def rotate_quarters(images: Tensor) -> tuple[Tensor, Tensor]:
    """Rotates the four quarters of a batch `[B, C, H, H]` by 0, 90, 180 and 270 degrees.

    Returns:
        The images, and the number of quarter turns of each, `[B]`.

    Raises:
        RecipeError: there are fewer than 4 images.
    """
    if len(images) < 4:
        raise RecipeError(
            f"SSGAN rotates a batch by four angles, but a part of the batch has {len(images)} images; it needs 4 or "
            "more: increase `train.batch_size`, or decrease `train.accumulate`"
        )
    turns = 4 * torch.arange(len(images), device=images.device) // len(images)
    rotated = [images, images.transpose(2, 3).flip(2), images.flip(2, 3), images.transpose(2, 3).flip(3)]
    return torch.cat([each[turns == turn] for turn, each in enumerate(rotated)]), turns


class RotationDiscriminator(Discriminator):
    """SSGAN's discriminator, which also predicts the rotation of images from its pooled features.

    The arguments are those of `Discriminator`.
    """

    auxiliary: ClassVar[str] = "rotation"

    def __init__(
        self,
        *,
        image_size: Size = 32,
        channels: Size = 3,
        width: Size = 128,
        tapered: bool = False,
        spectral: bool = True,
        pool: str = "sum",
    ):
        super().__init__(
            image_size=image_size, channels=channels, width=width, tapered=tapered, spectral=spectral, pool=pool
        )
        self.rotation = xavier(nn.Linear(width, 4), spectral=spectral)

    def auxiliary_loss(self, images: Tensor) -> Tensor:
        """Rotates a batch and computes the cross-entropy of the predicted angles (Chen et al. 2019, section 3)."""
        rotated, turns = rotate_quarters(images)
        return cross_entropy(self.rotation(self.pooled(self.blocks(rotated))), turns)


class InfoMaxDiscriminator(Discriminator):
    """InfoMax-GAN's discriminator, which also projects local and global features to a common space.

    Local features are those before the last block; the global feature of an image is the input of the last layer.

    Args:
        space_dim: number of dimensions of the common space, R. The other arguments are those of `Discriminator`.
    """

    auxiliary: ClassVar[str] = "infomax"

    def __init__(
        self,
        *,
        image_size: Size = 32,
        channels: Size = 3,
        width: Size = 128,
        tapered: bool = False,
        spectral: bool = True,
        pool: str = "sum",
        space_dim: Size = 1024,
    ):
        super().__init__(
            image_size=image_size, channels=channels, width=width, tapered=tapered, spectral=spectral, pool=pool
        )
        local: int = self.blocks[-1].conv1.in_channels  # type: ignore[union-attr, assignment]
        self.local = Projection(nn.Conv2d, local, space_dim, spectral)
        self.whole = Projection(nn.Linear, width, space_dim, spectral)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the local features `[B, C, H, W]`, after ReLU, and the global features `[B, C]`."""
        local = self.blocks[:-1](images).relu()
        return local, self.pooled(self.blocks[-1](local))

    def auxiliary_loss(self, images: Tensor) -> Tensor:
        """Computes the InfoNCE loss between local and global features (Lee et al. 2021, eq. 5)."""
        local, whole = self.features(images)
        return info_nce(self.local(local), self.whole(whole))


class Projection(nn.Module):
    """Two pointwise layers with a linear shortcut, `[B, inputs, …]` to `[B, outputs, …]`."""

    def __init__(self, kind: type[nn.Conv2d] | type[nn.Linear], inputs: int, outputs: int, spectral: bool):
        super().__init__()
        size = (1,) if kind is nn.Conv2d else ()
        self.first = xavier(kind(inputs, inputs, *size), spectral=spectral)
        self.second = xavier(kind(inputs, outputs, *size), spectral=spectral)
        self.shortcut = xavier(kind(inputs, outputs, *size), spectral=spectral)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()) + self.shortcut(x)


def info_nce(local: Tensor, whole: Tensor) -> Tensor:
    """Computes the InfoNCE loss: local features are classified by the global feature of their image.

    The positives for a global feature are the local features of the same image; the negatives are all local features of
    the other images in the batch.

    Args:
        local: local features `[B, R, H, W]`.
        whole: global features `[B, R]`.
    """
    local = local.flatten(2)  # [B, R, places]
    scores = torch.einsum("brp,nr->nbp", local, whole)  # of image n with each place of image b
    own = scores.diagonal(dim1=0, dim2=1).T  # [B, places]
    same = torch.eye(len(whole), dtype=torch.bool, device=whole.device)[:, :, None]
    others = scores.masked_fill(same, MASKED).flatten(1)  # [B, B · places]
    return (torch.logaddexp(own, others.logsumexp(dim=1, keepdim=True)) - own).mean()


class SelfSupervised(TwoPlayerGame):
    """A GAN whose discriminator has an auxiliary task: SSGAN and InfoMax-GAN.

    The discriminator minimises the auxiliary loss on real images, and the generator minimises it on fakes (Chen et al.
    2019, equations 2 and 3; Lee et al. 2021, equations 6 and 7). The terms are named after the task.

    Args:
        generator: the generator.
        discriminator: a discriminator with an auxiliary task.
        objective: the losses of both players.
        regularizers: penalties, augmentations and constraints.
        real_weight: weight of the auxiliary loss on real images, β.
        fake_weight: weight of the auxiliary loss on fakes, α.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: RotationDiscriminator | InfoMaxDiscriminator,
        *,
        objective: Objective = hinge,
        regularizers: Sequence[Regularizer] = (),
        real_weight: float = 1.0,
        fake_weight: float = 0.2,
    ) -> None:
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.auxiliary, self.auxiliary_loss = discriminator.auxiliary, discriminator.auxiliary_loss
        self.real_weight, self.fake_weight = real_weight, fake_weight

    def discriminator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        auxiliary = self.real_weight * self.auxiliary_loss(self.discriminator.augmented(real))
        return super().discriminator_terms(real, fake, condition) | {self.auxiliary: auxiliary}

    def generator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        terms = super().generator_terms(real, fake, condition)
        return terms | {self.auxiliary: self.fake_weight * self.auxiliary_loss(self.discriminator.augmented(fake))}


SNGAN = Preset(
    TwoPlayerGame,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1802.05957",
    objective="hinge",
    players={"discriminator": {"turns": 5}},
    optimizer=Adam(learning_rate=2e-4, betas=(0.0, 0.9), schedule=Linear()),
    network={"image_size": 32, "latent_dim": 128, "generator": {"width": 256}, "discriminator": {"width": 128}},
    train={"batch_size": 64, "steps": 100_000, "sample_every": 1000, "checkpoint_every": 1000},
)
TAPERED = {"tapered": True, "discriminator": {"width": 1024}}
SNGAN_48 = SNGAN.but(network={**TAPERED, "image_size": 48, "generator": {"width": 512}})
SNGAN_64 = SNGAN.but(network={**TAPERED, "image_size": 64, "generator": {"width": 1024}})
SNGAN_128 = SNGAN.but(network={**TAPERED, "image_size": 128, "generator": {"width": 1024}})
WGAN_GP = SNGAN.but(
    paper="arXiv:1704.00028",
    objective="wasserstein",
    regularizers=[GradientPenalty(weight=10.0)],
    network={"discriminator": {"width": 128, "spectral": False, "pool": "mean"}},
)
CGAN_PD = SNGAN.but(paper="arXiv:1802.05637", network={"num_classes": 10})
SAGAN_32 = CGAN_PD.but(
    paper="arXiv:1805.08318",
    network={
        "spectral_generator": True,
        "generator": {"width": 256, "attention": 16},
        "discriminator": {"width": 128, "attention": 8},
    },
)
"""SAGAN as trained in Mimicry: SNGAN's schedule, equal learning rates, and five turns of the discriminator."""
SAGAN = SAGAN_32.but(
    players={"discriminator": {"turns": 1, "optimizer": {"learning_rate": 4e-4}}},
    optimizer=Adam(learning_rate=1e-4, betas=(0.0, 0.9)),
    network={
        **TAPERED,
        "layout": "biggan",
        "image_size": 128,
        "num_classes": 1000,
        "attention": 64,
        "generator": {"width": 1024},
    },
    train={"batch_size": 256, "steps": 1_000_000},
)
SSGAN = SNGAN.but(game=SelfSupervised, paper="arXiv:1811.11212", networks={"discriminator": RotationDiscriminator})
SSGAN_64 = SSGAN.but(network={**TAPERED, "image_size": 64, "generator": {"width": 1024}})
INFOMAX = SNGAN.but(
    game=SelfSupervised,
    paper="arXiv:2007.04589",
    networks={"discriminator": InfoMaxDiscriminator},
    settings={"real_weight": 0.2, "fake_weight": 0.2},
)
INFOMAX_64 = INFOMAX.but(network={**TAPERED, "image_size": 64, "generator": {"width": 1024}})


def small(paper: Preset, **discriminator: object) -> Preset:
    """Returns a smaller version of a preset that trains on two CPU cores.

    Args:
        paper: the paper's preset.
        discriminator: settings of the discriminator.
    """
    return paper.but(
        network={
            "image_size": 16,
            "latent_dim": 64,
            "generator": {"width": 48},
            "discriminator": {"width": 48, **discriminator},
        },
        players={"discriminator": {"turns": 2}},
        train={"steps": 2000, "ema": 0.99, "sample_every": 200, "checkpoint_every": 200},
        optimizer=Adam(learning_rate=5e-4, betas=(0.0, 0.9), schedule=Linear()),
    )


PRESETS = {
    "wgan-gp": {
        "paper": WGAN_GP,
        "small": small(WGAN_GP, spectral=False, pool="mean").but(players={"discriminator": {"turns": 5}}),
    },
    "sngan": {
        "paper": SNGAN,
        "paper-48": SNGAN_48,
        "paper-64": SNGAN_64,
        "paper-128": SNGAN_128,
        "small": small(SNGAN),
    },
    "cgan-pd": {"paper": CGAN_PD, "small": small(CGAN_PD)},
    "sagan": {
        "paper": SAGAN,
        "paper-32": SAGAN_32,
        "small": small(SAGAN_32).but(
            network={"num_classes": None, "attention": 8, "generator": {"width": 32}, "discriminator": {"width": 32}},
            players={"discriminator": {"turns": 1}},
            train={"batch_size": 32, "steps": 600},
            optimizer=Adam(learning_rate=1e-3, betas=(0.0, 0.9), schedule=Linear()),
        ),
    },
    "ssgan": {"paper": SSGAN, "paper-64": SSGAN_64, "small": small(SSGAN)},
    "infomax-gan": {"paper": INFOMAX, "paper-64": INFOMAX_64, "small": small(INFOMAX, space_dim=128)},
}
