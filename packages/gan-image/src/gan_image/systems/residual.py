"""Residual networks, as Mimicry (github.com/kwotsin/mimicry) has them: up-sampling is bilinear.

SAGAN at its paper's size is laid out as in BigGAN-PyTorch (github.com/ajbrock/BigGAN-PyTorch): the nearest is repeated.
The blocks are gan-core's.

- `wgan-gp`: Gulrajani et al. 2017, arXiv:1704.00028: nothing is normalised in the critic, whose features are averaged.
- `sngan`: Miyato et al. 2018, arXiv:1802.05957: the discriminator is spectrally normalised, its features are summed.
- `cgan-pd`: Miyato & Koyama 2018, arXiv:1802.05637: with classes, by conditional batch normalisation and projection.
- `sagan`: Zhang et al. 2019, arXiv:1805.08318: both networks attend to themselves and are spectrally normalised.
- `ssgan`: Chen et al. 2019, arXiv:1811.11212: the discriminator also tells how an image was turned.
- `infomax-gan`: Lee et al. 2021, arXiv:2007.04589: its local features tell which global feature is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

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
from gan_core.play.game import Terms
from gan_core.play.objectives import Objective, hinge
from gan_core.play.preset import Preset
from gan_core.play.regularizers import GradientPenalty, Regularizer
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Adam, Linear, Size

MASKED = -10.0
"""InfoMax-GAN's score in the place of pairs of one sample that are no negatives."""
Layout = Literal["mimicry", "biggan"]
"""Which published code's blocks a network is made of.

Mimicry doubles height and width bilinearly, BigGAN-PyTorch repeats the nearest. In Mimicry's discriminators the hidden
width is the input's, and shortcuts take the rectified input too: it rectifies in place, so that its published results
have it so. In BigGAN-PyTorch the hidden width is the output's, and shortcuts take the input itself.
"""


def attending(
    blocks: Sequence[nn.Module], channels: Sequence[int], sizes: Sequence[int], attention: int | None, spectral: bool
) -> list[nn.Module]:
    """The blocks, and after the first that gives `attention` pixels a side what attends to them.

    Raises:
        RecipeError: no block gives so many.
    """
    if attention is None:
        return list(blocks)
    if attention not in sizes:
        given = ", ".join(str(size) for size in dict.fromkeys(sizes))
        raise RecipeError(f"`attention` is {attention}; the blocks give {given} pixels a side")
    after = sizes.index(attention) + 1
    return [*blocks[:after], SelfAttention(channels[after - 1], spectral=spectral), *blocks[after:]]


class Generator(nn.Module):
    """`z [B, latent_dim]` and a class to images `[B, channels, H, W]` in [-1, 1].

    Args:
        image_size: 4 or 6 doubled at least twice.
        channels: of the images.
        latent_dim: of z.
        width: channels of the first block.
        tapered: whether the last four blocks (in BigGAN-PyTorch's layout: all but the first) halve the channels, as at
            48 pixels and more; else all are alike.
        num_classes: number of classes; None for a generator without classes.
        spectral_generator: whether every layer is spectrally normalised.
        attention: the side in pixels at which features attend to themselves; None for a generator that has none.
        layout: whose blocks these are.
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
            raise RecipeError(f"`width` is {width}; {blocks} blocks that halve it need more")
        spectral = spectral_generator
        self.project = xavier(nn.Linear(latent_dim, width * self.start**2), spectral=spectral)
        smooth = layout == "mimicry"
        ups = [ResidualUp(a, b, num_classes, spectral=spectral, smooth=smooth) for a, b in pairwise(widths)]
        sizes = [self.start << block for block in range(1, blocks + 1)]
        self.blocks = nn.ModuleList(attending(ups, widths[1:], sizes, attention, spectral))
        end = same_convolution(widths[-1], channels, 3, spectral=spectral)
        self.to_image = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(), end, nn.Tanh())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.project(z).unflatten(1, (-1, self.start, self.start))
        for block in self.blocks:
            x = block(x, label) if isinstance(block, ResidualUp) else block(x)
        return self.to_image(x)


class Discriminator(nn.Module):
    """Images `[B, channels, H, W]` and a class to logits `[B]`.

    Args:
        image_size: at least 8.
        channels: of the images.
        width: channels of the last block.
        tapered: whether the blocks' channels double from a sixteenth of the width, as at 48 pixels and more, and all
            halve the size (in BigGAN-PyTorch's layout: all but the last, to 4 pixels); else all are alike, and two of
            four halve it.
        spectral: whether every layer is spectrally normalised.
        pool: how features become one of an image: their `sum` or `mean` over space.
        num_classes: number of classes; None for a discriminator without classes.
        pack: samples that are judged together, `[B / pack, pack · channels, H, W]`.
        attention: the side in pixels at which features attend to themselves; None for a discriminator that has none.
        layout: whose blocks these are.
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
        self.blocks = nn.Sequential(*attending(blocks, widths, sizes, attention, spectral))
        self.judge = xavier(nn.Linear(width, 1), spectral=spectral)
        self.embedding = None if num_classes is None else xavier(nn.Embedding(num_classes, width), spectral=spectral)

    def pooled(self, features: Tensor) -> Tensor:
        """Features `[B, C, H, W]` of the last block as one `[B, C]` of each image."""
        features = features.relu()
        return features.sum(dim=(2, 3)) if self.pool == "sum" else features.mean(dim=(2, 3))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.pooled(self.blocks(images))
        logits = self.judge(features).squeeze(1)
        return add_class_projection(logits, features, label, self.embedding)


def taper(image_size: int, width: int) -> list[tuple[int, bool]]:
    """The blocks' channels and whether they halve: doublings up to the width, and one more from 128 pixels on."""
    widths = [sixteenth(width) << k for k in range(5)] + [width] * (image_size >= 128)
    size, plan = image_size, []
    for block, channels in enumerate(widths):
        halves = size % 2 == 0 and block < 5
        plan.append((channels, halves))
        size = size // 2 if halves else size
    return plan


def taper_to_4(image_size: int, width: int) -> list[tuple[int, bool]]:
    """The same in BigGAN-PyTorch: doublings up to the width; all halve down to 4 pixels, and one more keeps them."""
    last = doublings(image_size, 4, least=4)
    return [(min(width, sixteenth(width) << block), block < last) for block in range(last + 1)]


def sixteenth(width: int) -> int:
    """The channels of a tapered discriminator's first block."""
    if width % 16:
        raise RecipeError(f"`width` is {width}; a tapered discriminator needs a multiple of 16")
    return width // 16


# SSGAN.


def turned(images: Tensor) -> tuple[Tensor, Tensor]:
    """A batch `[B, C, H, H]` in four quarters that are turned by 0, 90, 180 and 270 degrees, and which `[B]` it was.

    Raises:
        RecipeError: there are fewer images than angles.
    """
    if len(images) < 4:
        raise RecipeError(f"SSGAN turns a batch by four angles, and a part of it has {len(images)}; give it 4 or more")
    turns = 4 * torch.arange(len(images), device=images.device) // len(images)
    ways = [images, images.transpose(2, 3).flip(2), images.flip(2, 3), images.transpose(2, 3).flip(3)]
    return torch.cat([way[turns == turn] for turn, way in enumerate(ways)]), turns


class RotationDiscriminator(Discriminator):
    """A discriminator that also tells, of features that it shares, by which of four angles an image was turned."""

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

    def rotation_loss(self, images: Tensor) -> Tensor:
        """Cross-entropy of the angles of a batch that is turned here (arXiv:1811.11212, section 3)."""
        seen, turns = turned(images)
        return cross_entropy(self.rotation(self.pooled(self.blocks(seen))), turns)


class SelfSupervised(TwoPlayerGame):
    """SSGAN (Chen et al. 2019, arXiv:1811.11212, equations 2 and 3).

    Args:
        generator: as `TwoPlayerGame`'s.
        discriminator: with a `rotation_loss`.
        objective: what both minimise.
        regularizers: what steadies them.
        real_weight: β, of the rotation loss on real images, which the discriminator minimises.
        fake_weight: α, of that on fakes, which the generator minimises.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: RotationDiscriminator,
        *,
        objective: Objective = hinge,
        regularizers: Sequence[Regularizer] = (),
        real_weight: float = 1.0,
        fake_weight: float = 0.2,
    ) -> None:
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.tell = discriminator.rotation_loss
        self.real_weight, self.fake_weight = real_weight, fake_weight

    def discriminator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        rotation = self.real_weight * self.tell(self.discriminator.augmented(real))
        return super().discriminator_terms(real, fake, condition) | {"rotation": rotation}

    def generator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        terms = super().generator_terms(real, fake, condition)
        return terms | {"rotation": self.fake_weight * self.tell(self.discriminator.augmented(fake))}


# InfoMax-GAN.


class InfoMaxDiscriminator(Discriminator):
    """A discriminator that also brings local and global features into one space, `[B, space_dim, …]`.

    Local features are those before the last block, the global one is what the last layer judges.

    Args:
        space_dim: R, of the space in which they are compared.
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
        space_dim: Size = 1024,
    ):
        super().__init__(
            image_size=image_size, channels=channels, width=width, tapered=tapered, spectral=spectral, pool=pool
        )
        local: int = self.blocks[-1].conv1.in_channels  # type: ignore[union-attr, assignment]
        self.local = Projection(nn.Conv2d, local, space_dim, spectral)
        self.whole = Projection(nn.Linear, width, space_dim, spectral)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Local features `[B, C, H, W]`, rectified as the last block takes them, and the global one `[B, C]`."""
        local = self.blocks[:-1](images).relu()
        return local, self.pooled(self.blocks[-1](local))

    def infomax_loss(self, images: Tensor) -> Tensor:
        """The contrast of each image's local and global features with other images' (arXiv:2007.04589, eq. 5)."""
        local, whole = self.features(images)
        return info_nce(self.local(local), self.whole(whole))


class Projection(nn.Module):
    """Two pointwise layers beside a third: `[B, inputs, …]` to `[B, outputs, …]`."""

    def __init__(self, kind: type[nn.Conv2d] | type[nn.Linear], inputs: int, outputs: int, spectral: bool):
        super().__init__()
        size = (1,) if kind is nn.Conv2d else ()
        self.first = xavier(kind(inputs, inputs, *size), spectral=spectral)
        self.second = xavier(kind(inputs, outputs, *size), spectral=spectral)
        self.shortcut = xavier(kind(inputs, outputs, *size), spectral=spectral)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()) + self.shortcut(x)


def info_nce(local: Tensor, whole: Tensor) -> Tensor:
    """-E[log softmax] of each place's score with its own image's global feature among those of other images' places.

    Args:
        local: `[B, R, H, W]`.
        whole: `[B, R]`.
    """
    local = local.flatten(2)  # [B, R, places]
    scores = torch.einsum("brp,nr->nbp", local, whole)  # of image n with every place of image b
    own = scores.diagonal(dim1=0, dim2=1).T  # [B, places]
    same = torch.eye(len(whole), dtype=torch.bool, device=whole.device)[:, :, None]
    others = scores.masked_fill(same, MASKED).flatten(1)  # [B, B · places]
    return (torch.logaddexp(own, others.logsumexp(dim=1, keepdim=True)) - own).mean()


class InfoMax(TwoPlayerGame):
    """InfoMax-GAN (Lee et al. 2021, arXiv:2007.04589, equations 6 and 7).

    Args:
        generator: as `TwoPlayerGame`'s.
        discriminator: with an `infomax_loss`.
        objective: what both minimise.
        regularizers: what steadies them.
        real_weight: β, of the contrast on real images, which the discriminator minimises.
        fake_weight: α, of that on fakes, which the generator minimises.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: InfoMaxDiscriminator,
        *,
        objective: Objective = hinge,
        regularizers: Sequence[Regularizer] = (),
        real_weight: float = 0.2,
        fake_weight: float = 0.2,
    ) -> None:
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.contrast = discriminator.infomax_loss
        self.real_weight, self.fake_weight = real_weight, fake_weight

    def discriminator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        infomax = self.real_weight * self.contrast(self.discriminator.augmented(real))
        return super().discriminator_terms(real, fake, condition) | {"infomax": infomax}

    def generator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        terms = super().generator_terms(real, fake, condition)
        return terms | {"infomax": self.fake_weight * self.contrast(self.discriminator.augmented(fake))}


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
"""As Mimicry trained it: SNGAN's schedule, with one rate for both players and five turns of the discriminator."""
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
INFOMAX = SNGAN.but(game=InfoMax, paper="arXiv:2007.04589", networks={"discriminator": InfoMaxDiscriminator})
INFOMAX_64 = INFOMAX.but(network={**TAPERED, "image_size": 64, "generator": {"width": 1024}})


def small(paper: Preset, **discriminator: object) -> Preset:
    """A system at the size that learns on two cores."""
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
