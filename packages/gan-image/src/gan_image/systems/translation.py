"""Image-to-image translation, from paired and from unpaired images.

- `pix2pix`: Isola et al. 2017, arXiv:1611.07004. A U-Net is trained on pairs, and a PatchGAN judges source and target
  together. The only noise is the U-Net's dropout. The authors apply it at test time as well; here, it is then disabled.
- `cyclegan`: Zhu et al. 2017, arXiv:1703.10593. Two ResNet translators are trained on two unpaired sets of images.

The networks are those of `gan_core.nn.translators`. Images are augmented as in the authors' code: they are stretched to
286 pixels, cropped to 256 at random, and flipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from gan_core.data import Batch, ImageSpec
from gan_core.errors import RecipeError
from gan_core.nn.translators import PatchDiscriminator, Probability, ResNetTranslator, UNetTranslator
from gan_core.play.adversary import Adversary, prefixed, weighted
from gan_core.play.exported import BATCH, Axis, Exported, Input
from gan_core.play.game import Game
from gan_core.play.objectives import Terms
from gan_core.play.player import Player
from gan_core.play.preset import Preset
from gan_core.play.regularizers import Replay
from gan_core.recipe import Adam, Linear, Size

Layers = Annotated[int, Field(ge=0, le=16)]
"""Number of times that a PatchGAN halves the resolution."""
Weight = Annotated[float, Field(ge=0)]
"""Weight of a loss term."""
AUGMENTED = {"image_size": 256, "resize": "stretch", "enlarge": 286 / 256, "crop": "random", "flip": True}
"""Data settings in the code of both papers."""


def check_sides(spec: ImageSpec, network: ResNetTranslator | UNetTranslator) -> ImageSpec:
    """Returns a specification after checking that a translator accepts its images.

    Raises:
        RecipeError: their sides are shorter than `least` of the network, or not divisible by its `multiple`.
    """
    multiple, least = network.multiple, network.least
    if spec.size is not None and any(side % multiple or side < least for side in spec.size):
        near = [max(least, multiple * round(side / multiple)) for side in spec.size]
        wanted = f"sides of {least} or more that are multiples of {multiple}"
        raise RecipeError(f"`data.spec.image_size` is {list(spec.size)}; these networks take {wanted}. Try {near}.")
    return spec


def export_of(network: ResNetTranslator | UNetTranslator, made: str, spec: ImageSpec) -> Exported:
    """Returns the export of a translator, with dynamic batch size, height and width.

    Args:
        network: translator between `source` and `target`.
        made: part of an item that the network generates, `source` or `target`; the other part is its input.
        spec: specification with the channels of both parts.
    """
    taken = "source" if made == "target" else "target"
    height, width = (Axis(name, network.multiple, network.least) for name in ("height", "width"))
    channels = spec.part(taken).channels
    assert isinstance(channels, int)
    return Exported(network, {taken: Input((BATCH, channels, height, width), spec.values)}, {made: spec.values})


# pix2pix.


class PairTranslator(UNetTranslator):
    """Translator of source images `[B, source_channels, H, W]` to target images `[B, target_channels, H, W]`.

    Args:
        source_channels: channels of the source.
        target_channels: channels of the target.
        width: channels at half the resolution; doubled at each of the next three, then constant.
        depth: number of layers that halve the sides of images, which must be multiples of `2 ** depth`.
        norm: `batch`, `instance`, `layer` or `none`.
        dropout: dropout probability in the decoder, at the `depth - 5` resolutions next to the innermost.
    """

    def __init__(
        self,
        *,
        source_channels: Size = 3,
        target_channels: Size = 3,
        width: Size = 64,
        depth: Size = 8,
        norm: str = "batch",
        dropout: Probability = 0.5,
    ):
        super().__init__(
            in_channels=source_channels,
            out_channels=target_channels,
            width=width,
            depth=depth,
            norm=norm,
            dropout=dropout,
        )
        self.data_spec = ImageSpec(channels={"source": source_channels, "target": target_channels})


class PairDiscriminator(PatchDiscriminator):
    """Discriminator of pairs, concatenated along their channels, with a logit for each patch, `[B, 1, H', W']`.

    Args:
        source_channels: channels of the source.
        target_channels: channels of the target.
        width: channels after the first layer.
        layers: number of layers that halve the sides: 1, 3 and 5 for patches of 16, 70 and 286 pixels, 0 for pixels.
        norm: `batch`, `instance`, `layer` or `none`.
    """

    def __init__(
        self,
        *,
        source_channels: Size = 3,
        target_channels: Size = 3,
        width: Size = 64,
        layers: Layers = 3,
        norm: str = "batch",
    ):
        super().__init__(in_channels=source_channels + target_channels, width=width, layers=layers, norm=norm)


class Pix2Pix(Game):
    """pix2pix (Isola et al. 2017, arXiv:1611.07004, section 3).

    The discriminator's samples are pairs, so that augmentations and replay keep source and target together.

    Args:
        generator: translates sources to targets.
        discriminator: takes pairs, `[B, source_channels + target_channels, H, W]`.
        reconstruction_weight: weight of the L1 distance to the target, λ (eq. 4).
    """

    reads: ClassVar[tuple[str, ...]] = ("source", "target")
    results: ClassVar[Mapping[str, str]] = {"translated": "source"}
    compared: ClassVar[Mapping[str, str]] = {"translated": "target"}
    example: ClassVar[str] = 'target = game.apply({"source": source})["translated"]  # [B, C, H, W] in [-1, 1]'

    def __init__(self, generator: PairTranslator, discriminator: Adversary, *, reconstruction_weight: Weight = 100.0):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.reconstruction_weight = reconstruction_weight

    def data_spec(self) -> ImageSpec:
        return self.generator.data_spec

    def spec_with(self, changes: Mapping[str, Any]) -> ImageSpec:
        return check_sides(cast(ImageSpec, super().spec_with(changes)), self.generator)

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.discriminator,), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def stage(self, batch: Batch) -> Batch:
        return batch | {"fake": self.generator(batch["source"])}

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the real and the fake pairs, `[B, source_channels + target_channels, H, W]`."""
        real, fake = (torch.cat([batch["source"], batch[key]], dim=1) for key in ("target", "fake"))
        return real, fake

    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.discriminator.discriminator_terms(*self.pairs(batch))

    def generator_loss(self, batch: Batch) -> Terms:
        real, fake = self.pairs(batch)
        reconstruction = self.reconstruction_weight * l1_loss(batch["fake"], batch["target"])  # eq. 3
        return self.discriminator.generator_terms(fake, real) | {"reconstruction": reconstruction}

    def apply(self, batch: Batch) -> dict[str, Tensor]:  # type: ignore[override]
        return {"translated": self.generator(batch["source"])}

    def exports(self) -> dict[str, Exported]:
        return {"generator": export_of(self.generator, "target", self.data_spec())}

    def realness(self, batch: Batch) -> dict[str, Tensor]:
        return {"discriminator": self.discriminator.realness(torch.cat([batch["source"], batch["target"]], dim=1))}


# CycleGAN.


class SourceToTarget(ResNetTranslator):
    """Translator of source images `[B, source_channels, H, W]` to target images `[B, target_channels, H, W]`.

    Args:
        source_channels: channels of the source domain.
        target_channels: channels of the target domain.
        width: channels at full resolution.
        blocks: residual blocks: 6 for images of 128 pixels, 9 for 256 and more.
        norm: `instance`, `batch`, `layer` or `none`.
        dropout: dropout probability in the residual blocks.
    """

    def __init__(
        self,
        *,
        source_channels: Size = 3,
        target_channels: Size = 3,
        width: Size = 64,
        blocks: Size = 9,
        norm: str = "instance",
        dropout: Probability = 0.0,
    ):
        super().__init__(
            in_channels=source_channels,
            out_channels=target_channels,
            width=width,
            blocks=blocks,
            norm=norm,
            dropout=dropout,
        )
        self.data_spec = ImageSpec(channels={"source": source_channels, "target": target_channels})
        self.channels_differ = source_channels != target_channels


class TargetToSource(ResNetTranslator):
    """Translator of target images to source images; the arguments are those of `SourceToTarget`."""

    def __init__(
        self,
        *,
        source_channels: Size = 3,
        target_channels: Size = 3,
        width: Size = 64,
        blocks: Size = 9,
        norm: str = "instance",
        dropout: Probability = 0.0,
    ):
        super().__init__(
            in_channels=target_channels,
            out_channels=source_channels,
            width=width,
            blocks=blocks,
            norm=norm,
            dropout=dropout,
        )


class SourceDiscriminator(PatchDiscriminator):
    """Discriminator of source images, with a logit for each patch, `[B, 1, H', W']`.

    Args:
        source_channels: channels of the source domain.
        width: channels after the first layer.
        layers: number of layers that halve the sides: 3 for patches of 70 pixels.
        norm: `instance`, `batch`, `layer` or `none`.
    """

    def __init__(self, *, source_channels: Size = 3, width: Size = 64, layers: Layers = 3, norm: str = "instance"):
        super().__init__(in_channels=source_channels, width=width, layers=layers, norm=norm)


class TargetDiscriminator(PatchDiscriminator):
    """Discriminator of target images; the arguments are those of `SourceDiscriminator`."""

    def __init__(self, *, target_channels: Size = 3, width: Size = 64, layers: Layers = 3, norm: str = "instance"):
        super().__init__(in_channels=target_channels, width=width, layers=layers, norm=norm)


class CycleGAN(Game):
    """CycleGAN (Zhu et al. 2017, arXiv:1703.10593): two inverse translators, and a discriminator for each domain.

    Args:
        a_to_b: translates sources to targets.
        b_to_a: translates targets to sources.
        discriminator_a: discriminator of sources.
        discriminator_b: discriminator of targets.
        adversarial_weight: weight of the translators' adversarial terms; 2 cancels the factor ½ in `least_squares`.
        cycle_weight: weight of the cycle consistency loss, λ (eq. 3).
        identity_weight: weight of the identity loss (section 5.2); 0 leaves it out. It must be 0 if the domains have
            different numbers of channels.

    Raises:
        RecipeError: `identity_weight` is not 0, and the domains have different numbers of channels.
    """

    reads: ClassVar[tuple[str, ...]] = ("source", "target")
    paired: ClassVar[bool] = False
    results: ClassVar[Mapping[str, str]] = {"to_target": "source", "to_source": "target"}
    compared: ClassVar[Mapping[str, str]] = {"to_target": "target", "to_source": "source"}
    sampling: ClassVar[tuple[str, ...]] = ("a_to_b", "b_to_a")
    example: ClassVar[str] = 'targets = game.apply({"source": source})["to_target"]  # [B, C, H, W] in [-1, 1]'

    def __init__(
        self,
        a_to_b: SourceToTarget,
        b_to_a: TargetToSource,
        discriminator_a: Adversary,
        discriminator_b: Adversary,
        *,
        adversarial_weight: Weight = 2.0,
        cycle_weight: Weight = 10.0,
        identity_weight: Weight = 5.0,
    ) -> None:
        super().__init__()
        self.a_to_b, self.b_to_a = a_to_b, b_to_a
        self.discriminator_a, self.discriminator_b = discriminator_a, discriminator_b
        self.adversarial_weight, self.cycle_weight = adversarial_weight, cycle_weight
        self.identity_weight = identity_weight
        if identity_weight and a_to_b.channels_differ:
            raise RecipeError("`game.identity_weight` needs domains with equal channels; set it to 0")

    def data_spec(self) -> ImageSpec:
        return self.a_to_b.data_spec

    def spec_with(self, changes: Mapping[str, Any]) -> ImageSpec:
        return check_sides(cast(ImageSpec, super().spec_with(changes)), self.a_to_b)

    def players(self) -> Iterable[Player]:
        yield Player("generator", (self.a_to_b, self.b_to_a), self.generator_loss)
        yield Player("discriminator", (self.discriminator_a, self.discriminator_b), self.discriminator_loss)

    def stage(self, batch: Batch) -> Batch:
        return batch | {"fake_a": self.b_to_a(batch["target"]), "fake_b": self.a_to_b(batch["source"])}

    def generator_loss(self, batch: Batch) -> Terms:
        a, b, fake_a, fake_b = (batch[key] for key in ("source", "target", "fake_a", "fake_b"))
        judged_a = weighted(self.discriminator_a.generator_terms(fake_a, a), self.adversarial_weight)
        judged_b = weighted(self.discriminator_b.generator_terms(fake_b, b), self.adversarial_weight)
        cycle = l1_loss(self.b_to_a(fake_b), a) + l1_loss(self.a_to_b(fake_a), b)  # eq. 2
        terms = prefixed("discriminator_a", judged_a) | prefixed("discriminator_b", judged_b)
        terms["cycle"] = self.cycle_weight * cycle
        if self.identity_weight:
            terms["identity"] = self.identity_weight * (l1_loss(self.a_to_b(b), b) + l1_loss(self.b_to_a(a), a))
        return terms

    def discriminator_loss(self, batch: Batch) -> Terms:
        a = self.discriminator_a.discriminator_terms(batch["source"], batch["fake_a"])
        b = self.discriminator_b.discriminator_terms(batch["target"], batch["fake_b"])
        return prefixed("discriminator_a", a) | prefixed("discriminator_b", b)

    def apply(self, batch: Batch) -> dict[str, Tensor]:  # type: ignore[override]
        made = {"to_target": ("source", self.a_to_b), "to_source": ("target", self.b_to_a)}
        return {name: translate(batch[key]) for name, (key, translate) in made.items() if key in batch}

    def networks_of(self, result: str) -> tuple[nn.Module, ...]:
        return ({"to_target": self.a_to_b, "to_source": self.b_to_a}[result],)

    def exports(self) -> dict[str, Exported]:
        spec = self.data_spec()
        return {"a_to_b": export_of(self.a_to_b, "target", spec), "b_to_a": export_of(self.b_to_a, "source", spec)}

    def realness(self, batch: Batch) -> dict[str, Tensor]:
        judged = {"discriminator_a": batch["source"], "discriminator_b": batch["target"]}
        return {name: self.adversaries[name].realness(samples) for name, samples in judged.items()}


PIX2PIX = Preset(
    Pix2Pix,
    networks={"generator": PairTranslator, "discriminator": PairDiscriminator},
    paper="arXiv:1611.07004",
    objective="non_saturating",
    optimizer=Adam(learning_rate=2e-4, betas=(0.5, 0.999), schedule=Linear(start=0.5)),
    network={"width": 64, "norm": "batch", "generator": {"depth": 8}, "discriminator": {"layers": 3}},
    data={"spec": AUGMENTED},
    train={"batch_size": 1, "steps": 80_000, "sample_every": 1000, "checkpoint_every": 4000, "show": 16},
)
"""Trains for 200 epochs of the 400 pairs in the facades dataset."""
SMALL_PIX2PIX = PIX2PIX.but(
    network={"width": 16, "generator": {"depth": 4}, "discriminator": {"layers": 2}},
    data={"spec": {"image_size": 32, "resize": "cover", "enlarge": 1.0, "crop": "centre", "flip": False}},
    optimizer=Adam(learning_rate=5e-4, betas=(0.5, 0.999), schedule=Linear(start=0.5)),
    train={"batch_size": 8, "steps": 1500, "sample_every": 250, "checkpoint_every": 250},
)

CYCLEGAN = Preset(
    CycleGAN,
    networks={
        "a_to_b": SourceToTarget,
        "b_to_a": TargetToSource,
        "discriminator_a": SourceDiscriminator,
        "discriminator_b": TargetDiscriminator,
    },
    paper="arXiv:1703.10593",
    objective="least_squares",
    regularizers=[Replay(size=50)],
    optimizer=Adam(learning_rate=2e-4, betas=(0.5, 0.999), schedule=Linear(start=0.5)),
    network={"width": 64, "norm": "instance", "blocks": 9, "layers": 3},
    data={"spec": AUGMENTED},
    train={"batch_size": 1, "steps": 266_800, "sample_every": 1000, "checkpoint_every": 4000, "show": 16},
)
"""Trains for 200 epochs of the 1,334 zebras, the larger set of the horse2zebra dataset."""
SMALL_CYCLEGAN = CYCLEGAN.but(
    settings={"identity_weight": 0.0},
    network={"width": 16, "blocks": 2, "layers": 2},
    data={"spec": {"image_size": 16, "resize": "cover", "enlarge": 1.0, "crop": "centre", "flip": False}},
    optimizer=Adam(learning_rate=1e-3, betas=(0.5, 0.999), schedule=Linear(start=0.5)),
    train={"batch_size": 8, "steps": 600, "sample_every": 100, "checkpoint_every": 200},
)

PRESETS = {
    "pix2pix": {"paper": PIX2PIX, "small": SMALL_PIX2PIX},
    "cyclegan": {"paper": CYCLEGAN, "small": SMALL_CYCLEGAN},
}
