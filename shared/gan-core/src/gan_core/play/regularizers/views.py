"""Regularizers that augment the discriminator's inputs: noise, augmentation, consistency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.nn.augment import AdaptiveStrength, AugmentPipe, diff_augment, reflected
from gan_core.nn.blocks import unpack
from gan_core.play.judgement import joined
from gan_core.play.objectives import Terms
from gan_core.play.regularizers.base import Lazy, Regularized, Regularizer, Turn


def prepare_images(name: str, adversary: Regularized, channels: tuple[int, ...] | None = None) -> None:
    """Checks before training that an adversary's samples are images or clips.

    The shape is checked only if the adversary has an example.

    Args:
        name: the regularizer's name.
        adversary: the adversary.
        channels: supported numbers of channels; None supports any.

    Raises:
        RecipeError: the samples are not images or clips, or have another number of channels.
    """
    if not adversary.images:
        reason = "the axes of this game's samples are not height and width"
        raise RecipeError(f"`regularizers.{name}` needs images, but {reason}; leave it out")
    shape = adversary.probe(lambda samples, condition: unpack(samples, adversary.pack).shape)
    if shape is not None:
        require_images(name, shape, channels)


def require_images(name: str, shape: torch.Size, channels: tuple[int, ...] | None = None) -> None:
    """Checks the shape of samples: images `[B, C, H, W]` or clips `[B, C, T, H, W]`.

    Raises:
        RecipeError: the samples have another number of axes or channels.
    """
    if len(shape) not in (4, 5):
        found = f"this game's samples have the shape {list(shape[1:])}"
        raise RecipeError(f"`regularizers.{name}` needs images or clips, but {found}; leave it out")
    if channels is not None and shape[1] not in channels:
        wanted = " or ".join(map(str, channels))
        found = f"this game's samples have {shape[1]}"
        raise RecipeError(f"`regularizers.{name}` needs {wanted} channels, but {found}; leave it out")


CHANNELS = (1, 3)
"""Numbers of channels that the colour transforms support."""


class InstanceNoise(Regularizer):
    """Gaussian noise on real and fake samples in both turns (Sønderby et al. 2017, arXiv:1610.04490).

    Attributes:
        deviation: standard deviation at the start of the phase, in units of the samples' values.
        until: fraction of the phase over which the deviation decreases linearly to 0.
    """

    name = "instance_noise"
    deviation: float = Field(default=0.1, gt=0)
    until: float = Field(default=1.0, gt=0, le=1)

    def view(self, adversary: Regularized, samples: Tensor) -> Tensor:
        deviation = self.deviation * max(0.0, 1 - adversary.moment.progress / self.until)
        if deviation == 0:
            return samples
        return samples + deviation * draws.normal(len(samples), *samples.shape[1:], like=samples)


class DiffAugment(Regularizer):
    """Differentiable augmentation of real and fake samples in both turns (Zhao et al. 2020, arXiv:2006.10738).

    All frames of a clip `[B, C, T, H, W]` are augmented in the same way.

    Attributes:
        policy: transforms in the order in which they are applied: `color`, `translation`, `cutout`.
    """

    name = "diffaugment"
    policy: tuple[Literal["color", "translation", "cutout"], ...] = ("color", "translation", "cutout")

    @property
    def moves(self) -> bool:
        return "translation" in self.policy or "cutout" in self.policy

    def prepare(self, adversary: Regularized) -> None:
        prepare_images(self.name, adversary)

    def view(self, adversary: Regularized, samples: Tensor) -> Tensor:
        require_images(self.name, samples.shape)
        return diff_augment(samples, self.policy)


class AdaptiveAugmentation(Regularizer):
    """Adaptive discriminator augmentation (Karras et al. 2020, arXiv:2006.06676).

    All frames of a clip `[B, C, T, H, W]` are augmented in the same way.

    Attributes:
        groups: groups of transforms: `blit`, `geom`, `color`, `filter`, `noise`, `cutout`.
        p: strength in [0, 1] at the start of training; constant if `target` is None.
        target: target value of r_t, the mean sign of D(x) at real samples, to which the strength is adapted; None keeps
            the strength constant.
        speed: number of real images over which the strength changes by 1.
        interval: steps between changes of the strength.
    """

    name = "ada"
    groups: tuple[Literal["blit", "geom", "color", "filter", "noise", "cutout"], ...] = ("blit", "geom", "color")
    p: float = Field(default=0.0, ge=0, le=1)
    target: float | None = Field(default=0.6, gt=-1, lt=1)
    speed: int = Field(default=500_000, ge=1)
    interval: int = Field(default=4, ge=1)

    @property
    def moves(self) -> bool:
        return not {"blit", "geom", "cutout"}.isdisjoint(self.groups)

    def prepare(self, adversary: Regularized) -> nn.Module:
        objective = adversary.objective
        if self.target is not None and not (objective.cross_entropy or objective.name == "hinge"):
            reason = f"the sign of a logit has no meaning under the objective `{objective.name}`"
            raise RecipeError(f"`regularizers.ada.target`: {reason}; set it to null and give a fixed `p`")
        prepare_images(self.name, adversary, CHANNELS)
        return Adaptive(self)

    def view(self, adversary: Regularized, samples: Tensor) -> Tensor:
        require_images(self.name, samples.shape, CHANNELS)
        augmented: Tensor = self.kept(adversary, Adaptive).pipe(samples)
        return augmented

    def after_turn(self, adversary: Regularized, values: Terms) -> None:
        kept = self.kept(adversary, Adaptive)
        if kept.strength is not None and "real_sign" in values:
            kept.strength.update(kept.pipe.p, values["real_sign"], adversary.moment.batch_size)


class Adaptive(nn.Module):
    """State of `AdaptiveAugmentation`: the pipeline, and the controller of its strength (None if it is constant)."""

    def __init__(self, settings: AdaptiveAugmentation):
        super().__init__()
        self.pipe = AugmentPipe(settings.groups)
        self.pipe.p.fill_(settings.p)
        self.strength: AdaptiveStrength | None = None
        if settings.target is not None:
            self.strength = AdaptiveStrength(target=settings.target, speed=settings.speed, interval=settings.interval)


class Consistency(Lazy):
    """Consistency of the logits of images and of their flipped, shifted copies (Zhang et al. 2020, arXiv:1910.12027).

    The term is the mean squared difference of all logits. All frames of a clip are moved in the same way.

    Attributes:
        fake_weight: weight of the same term on fake samples, for balanced consistency (Zhao et al. 2021,
            arXiv:2002.04724, section 2.2); 0 leaves it out.
        shift: maximum shift in each direction, in pixels.
    """

    name = "consistency"
    weight: float = Field(default=10.0, gt=0)
    fake_weight: float = Field(default=0.0, ge=0)
    shift: int = Field(default=4, ge=0)

    @property
    def moves(self) -> bool:
        return True

    def prepare(self, adversary: Regularized) -> None:
        prepare_images(self.name, adversary)

    def discriminator_terms(self, turn: Turn) -> Terms:
        adversary = turn.adversary
        pairs = [(self.weight, turn.real, turn.real_logits), (self.fake_weight, turn.fake, turn.fake_logits)]

        def disagreement() -> Tensor:
            return torch.stack(
                [
                    weight / self.weight * (self._moved(adversary, samples, turn.condition) - logits).square().mean()
                    for weight, samples, logits in pairs
                    if weight
                ]
            ).sum()

        return self.due(adversary.moment.step, disagreement)

    def _moved(self, adversary: Regularized, samples: Tensor, condition: Mapping[str, Any]) -> Tensor:
        require_images(self.name, samples.shape)
        return joined(adversary.judge(flip_and_shift(samples, self.shift), **condition))


def flip_and_shift(images: Tensor, shift: int) -> Tensor:
    """Flips images `[B, C, H, W]` with probability 1/2 and shifts them by up to `shift` pixels, with reflected borders.

    All frames of a clip `[B, C, T, H, W]` are moved in the same way.
    """
    count, *_, height, width = images.shape
    mirrored = draws.uniform(count, 1, like=images) < 0.5
    rows, columns = (draws.integers(2 * shift + 1, count, 1, like=images) - shift for _ in range(2))
    y = torch.arange(height, device=images.device) + rows
    x = torch.arange(width, device=images.device) + columns
    x = torch.where(mirrored, width - 1 - x, x)
    y, x = reflected(y, height), reflected(x, width)  # [B, H], [B, W]
    planes = images.flatten(1, -3)  # [B, C, T, H, W] -> [B, C*T, H, W]
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    plane = torch.arange(planes.shape[1], device=images.device)[None, :, None, None]
    return planes[sample, plane, y[:, None, :, None], x[:, None, None, :]].view_as(images)
