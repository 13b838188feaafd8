"""What the discriminator is shown in the place of samples, real and fake, and that it should not mind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_core import draws
from gan_core.augment import AdaptiveStrength, AugmentPipe, diff_augment, reflected
from gan_core.blocks import unpack
from gan_core.errors import RecipeError
from gan_core.game import Terms
from gan_core.regularizers.base import JudgedTurn, Lazy, Regularizer

if TYPE_CHECKING:
    from gan_core.two_player import TwoPlayerGame


def require_images(name: str, game: TwoPlayerGame, channels: tuple[int, ...] | None = None) -> int:
    """The channels of the game's samples, which must be images.

    Raises:
        RecipeError: they are something else, or have other numbers of channels.
    """
    shape = list(game.probe(lambda samples, condition: unpack(samples, game.pack)).shape[1:])
    if len(shape) != 3:
        raise RecipeError(f"`regularizers.{name}` is for images, and this game's samples are {shape}; leave it out")
    if not game.images:
        reason = f"the axes of {type(game).__name__}'s samples are not height and width: one that is moved is another"
        raise RecipeError(f"`regularizers.{name}` is for images, and {reason}; leave it out")
    if channels is not None and shape[0] not in channels:
        raise RecipeError(f"`regularizers.{name}` is for images of {channels} channels, and these have {shape[0]}")
    return int(shape[0])


class InstanceNoise(Regularizer):
    """Noise on all samples, so that both distributions have the same support (Sønderby et al. 2017, arXiv:1610.04490).

    Attributes:
        deviation: at the start, in the samples' unit.
        until: the share of the phase after which there is none; it falls in a line.
    """

    name = "instance_noise"
    deviation: float = Field(default=0.1, gt=0)
    until: float = Field(default=1.0, gt=0, le=1)

    def view(self, game: TwoPlayerGame, samples: Tensor) -> Tensor:
        deviation = self.deviation * max(0.0, 1 - game.progress / self.until)
        if deviation == 0:
            return samples
        return samples + deviation * draws.normal(len(samples), *samples.shape[1:], like=samples)


class DiffAugment(Regularizer):
    """Differentiable augmentation of real and fake samples in both turns (Zhao et al. 2020, arXiv:2006.10738).

    Attributes:
        policy: `color`, `translation`, `cutout`, in the order in which they are done.
    """

    name = "diffaugment"
    policy: tuple[Literal["color", "translation", "cutout"], ...] = ("color", "translation", "cutout")

    def prepare(self, game: TwoPlayerGame) -> None:
        require_images(self.name, game)

    def view(self, game: TwoPlayerGame, samples: Tensor) -> Tensor:
        return diff_augment(samples, self.policy)


class AdaptiveAugmentation(Regularizer):
    """Adaptive discriminator augmentation (Karras et al. 2020, arXiv:2006.06676).

    Attributes:
        groups: of transforms: `blit`, `geom`, `color`, `filter`, `noise`, `cutout`.
        p: the strength in [0, 1]: at the start, or always where there is no target.
        target: of r_t, the mean sign of D(x), towards which the strength is moved; None keeps it fixed.
        speed: real images that it takes to move the strength by 1.
        interval: steps between the strength's moves.
    """

    name = "ada"
    groups: tuple[Literal["blit", "geom", "color", "filter", "noise", "cutout"], ...] = ("blit", "geom", "color")
    p: float = Field(default=0.0, ge=0, le=1)
    target: float | None = Field(default=0.6, gt=-1, lt=1)
    speed: int = Field(default=500_000, ge=1)
    interval: int = Field(default=4, ge=1)

    def prepare(self, game: TwoPlayerGame) -> nn.Module:
        objective = game.objective
        if self.target is not None and not (objective.cross_entropy or objective.name == "hinge"):
            reason = f"the sign of a logit says nothing under the objective `{objective.name}`"
            raise RecipeError(f"`regularizers.ada.target`: {reason}; set it to null and give a fixed `p`")
        pipe = AugmentPipe(self.groups, channels=require_images(self.name, game, (1, 3)))
        pipe.p.fill_(self.p)
        if self.target is None:
            return nn.ModuleDict({"pipe": pipe})
        strength = AdaptiveStrength(target=self.target, speed=self.speed, interval=self.interval)
        return nn.ModuleDict({"pipe": pipe, "strength": strength})

    def view(self, game: TwoPlayerGame, samples: Tensor) -> Tensor:
        kept: nn.ModuleDict = game.memory[self.name]  # type: ignore[assignment]
        augmented: Tensor = kept["pipe"](samples)
        return augmented

    def after_turn(self, game: TwoPlayerGame, player: str, values: Terms) -> None:
        if self.target is None or player != "discriminator":
            return
        kept: nn.ModuleDict = game.memory[self.name]  # type: ignore[assignment]
        strength, pipe = cast(AdaptiveStrength, kept["strength"]), cast(AugmentPipe, kept["pipe"])
        strength.update(pipe.p, values["real_sign"], game.batch_size)


class Consistency(Lazy):
    """The discriminator judges an image flipped and shifted as it judges it (Zhang et al. 2020, arXiv:1910.12027).

    Attributes:
        fake_weight: the same for fakes: balanced consistency (Zhao et al. 2021, arXiv:2002.04724, section 2.2).
        shift: at most so many pixels in each direction.
    """

    name = "consistency"
    weight: float = Field(default=10.0, gt=0)
    fake_weight: float = Field(default=0.0, ge=0)
    shift: int = Field(default=4, ge=0)

    def prepare(self, game: TwoPlayerGame) -> None:
        require_images(self.name, game)

    def discriminator_terms(self, turn: JudgedTurn) -> Terms:
        pairs = [(self.weight, turn.real, turn.real_logits), (self.fake_weight, turn.fake, turn.fake_logits)]

        def disagreement() -> Tensor:
            return torch.stack([
                weight / self.weight * (turn.game.judge(flip_and_shift(samples, self.shift), **turn.condition) - logits)
                .square().mean()
                for weight, samples, logits in pairs if weight
            ]).sum()  # fmt: skip

        return self.due(turn.game.step, disagreement)


def flip_and_shift(images: Tensor, shift: int) -> Tensor:
    """Images `[B, C, H, W]`, half of them mirrored, all moved by up to `shift` pixels over a reflected border."""
    count, _, height, width = images.shape
    mirrored = draws.uniform(count, 1, like=images) < 0.5
    rows, columns = (draws.integers(2 * shift + 1, count, 1, like=images) - shift for _ in range(2))
    y = torch.arange(height, device=images.device) + rows
    x = torch.arange(width, device=images.device) + columns
    x = torch.where(mirrored, width - 1 - x, x)
    y, x = reflected(y, height), reflected(x, width)  # [B, H], [B, W]
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[sample, channel, y[:, None, :, None], x[:, None, None, :]]
