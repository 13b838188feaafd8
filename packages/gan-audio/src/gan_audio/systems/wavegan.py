"""Waveforms by strided convolutions along time.

- `wavegan`: Donahue et al. 2019, arXiv:1802.04208, with the layers of its code (github.com/chrisdonahue/wavegan), which
  also makes 32,768 and 65,536 samples. Convolutions are padded as TensorFlow's `SAME` pads, which is not symmetric.

With `num_classes` the generator is told the class beside its latent (Mirza & Osindero 2014, arXiv:1411.1784) and the
discriminator by projection (Miyato & Koyama 2018, arXiv:1802.05637, eq. 3); the paper has no classes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_audio.specs import SoundSpec
from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.nn.augment import reflected
from gan_core.nn.blocks import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED, doublings
from gan_core.nn.conditioning import add_class_projection, append_class
from gan_core.play.conditions import Truncation
from gan_core.play.exported import Exported
from gan_core.play.latents import straight_line
from gan_core.play.preset import Preset
from gan_core.play.regularizers import R1, R2, GradientPenalty
from gan_core.play.two_player import TwoPlayerGame, latent_dim
from gan_core.recipe import Adam, Size

START = 16
"""Samples at which the generator begins and the discriminator ends."""
SHUFFLED = 4
"""The discriminator's layers whose features are shifted: so many, never the last (as in the published code)."""

Kernel = Annotated[int, Field(ge=4, le=1024)]
"""Taps of a filter, at least as many as a layer's stride."""
Radius = Annotated[int, Field(ge=0, le=START - 1)]
"""The largest shift, in samples of a layer."""
Upsampling = Literal["zeros", "nearest"]
"""How a layer comes by its further samples: by zeros between them, which is a transposed convolution, or by repeating.

Both are the paper's (appendix A.2): the first leaves a pitched noise, which repeating lowers.
"""


def initialize(module: nn.Module) -> None:
    """TensorFlow's defaults, which the published code keeps: Glorot's uniform weights, no biases; small class vectors.

    Class vectors that are large at first let the discriminator tell every sample by its class.
    """
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)


def normalised(channels: int, batch_norm: bool, *, ndim: int = 1, tracked: bool = True) -> nn.Module:
    """Batch normalisation with TensorFlow's settings, or nothing.

    Args:
        channels: of the input, its axis 1.
        batch_norm: whether it normalises.
        ndim: 1 for sequences, 2 for images.
        tracked: whether it keeps running statistics; else it always takes the batch's, as the published discriminators.
    """
    if not batch_norm:
        return nn.Identity()
    return BATCH_NORMS[ndim](channels, eps=1e-3, momentum=0.01, track_running_stats=tracked)


class SameConvolution(nn.Module):
    """A convolution that divides every side by its stride, padded as TensorFlow's `SAME` pads.

    `x [B, inputs, …]`, its sides multiples of the stride, to `[B, outputs, …]`. `kernel - stride` zeros are added in
    all, the smaller half of them in front. Torch pads both ends alike: where their number is odd, it pads a stride more
    and the first output is left out, which is faster than to pad beforehand.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: along every axis, at least the stride.
        stride: along every axis.
        ndim: 1 for sequences, 2 for images.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, ndim: int = 1):
        super().__init__()
        front, odd = divmod(kernel - stride, 2)
        self.kept = (..., *[slice(odd, None)] * ndim)
        self.conv = CONVOLUTIONS[ndim](inputs, outputs, kernel, stride, front + odd * stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[self.kept]


class SameTransposed(nn.Module):
    """A transposed convolution that multiplies every side by its stride: the adjoint of `SameConvolution`.

    `x [B, inputs, …]` to `[B, outputs, …]`.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: along every axis, at least the stride.
        stride: along every axis.
        ndim: 1 for sequences, 2 for images.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, ndim: int = 1):
        super().__init__()
        front, odd = divmod(kernel - stride, 2)
        self.kept = (..., *[slice(-odd or None)] * ndim)
        self.conv = TRANSPOSED[ndim](inputs, outputs, kernel, stride, front)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[self.kept]


def upsampler(
    inputs: int, outputs: int, kernel: int, *, stride: int, upsampling: Upsampling, ndim: int = 1
) -> nn.Module:
    """A layer `[B, inputs, …]` to `[B, outputs, …]` that multiplies every side by its stride."""
    if upsampling == "zeros":
        return SameTransposed(inputs, outputs, kernel, stride=stride, ndim=ndim)
    repeated = nn.Upsample(scale_factor=stride, mode="nearest")
    return nn.Sequential(repeated, SameConvolution(inputs, outputs, kernel, ndim=ndim))


class Up(nn.Sequential):
    """Up-samples by the stride, normalises if asked, rectifies."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int,
        upsampling: Upsampling,
        batch_norm: bool,
        ndim: int = 1,
    ):
        layer = upsampler(inputs, outputs, kernel, stride=stride, upsampling=upsampling, ndim=ndim)
        super().__init__(layer, normalised(outputs, batch_norm, ndim=ndim), nn.ReLU())


class Down(nn.Sequential):
    """Down-samples by the stride, normalises if asked, rectifies leakily."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, batch_norm: bool, ndim: int = 1):
        layer = SameConvolution(inputs, outputs, kernel, stride=stride, ndim=ndim)
        super().__init__(layer, normalised(outputs, batch_norm, ndim=ndim, tracked=False), nn.LeakyReLU(0.2))


class PhaseShuffle(nn.Module):
    """Shifts features in time by up to `radius` samples, so that no phase tells a fake (Donahue et al. 2019, sec. 3.3).

    `x [B, C, T]` to the same shape. It shifts in training only; a radius of 0 never does.

    Args:
        radius: n; shifts are uniform over the whole numbers in [-n, n].
        per_example: whether every sample has a shift of its own; else, as in the published code, one is for all
            samples of the batch. (The paper's text has one for each feature map.)
    """

    def __init__(self, radius: int = 2, *, per_example: bool = False):
        super().__init__()
        self.radius, self.per_example = radius, per_example

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.radius == 0:
            return x
        choices = 2 * self.radius + 1
        draw, count = (draws.integers, len(x)) if self.per_example else (draws.shared_integers, 1)
        return delayed(x, draw(choices, count, like=x) - self.radius)


def delayed(x: Tensor, shift: Tensor) -> Tensor:
    """Features later by some samples: the output at t is the input at t - shift.

    What is missing at an end is reflected there, the outermost sample not repeated.

    Args:
        x: `[B, C, T]`.
        shift: in samples, `[B]`, or `[1]` for all; smaller than T. Nothing waits for its value.

    Returns:
        `[B, C, T]`.
    """
    length = x.shape[2]
    times = reflected(torch.arange(length, device=x.device) - shift[:, None], length)
    return x.gather(2, times[:, None].expand_as(x))


def strides(samples: int) -> list[int]:
    """Of the layers between `START` samples and so many: fours, and at the end a two where they do not suffice.

    Raises:
        RecipeError: no such layers lead there.
    """
    fours, twos = divmod(doublings(samples, START, least=3, what="samples"), 2)
    return [4] * fours + [2] * twos


class Generator(nn.Module):
    """`z [B, latent_dim]` in [-1, 1] and a class to audio `[B, channels, samples]` in [-1, 1].

    Args:
        samples: of a sound: 16 doubled at least three times; the published code has 16,384, 32,768 and 65,536.
        channels: of the audio.
        latent_dim: of z.
        width: channels before the last layer; every layer towards the latent has twice as many.
        kernel: taps of every layer.
        upsampling: how the layers come by further samples.
        post_filter: taps of one more filter of each channel, which learns to take artefacts away (appendix A.1: 512;
            what it makes may pass ±1); None has none.
        num_classes: number of classes; None for a generator without classes.
        batch_norm: whether it normalises.
    """

    def __init__(
        self,
        *,
        samples: Size = 16_384,
        channels: Size = 1,
        latent_dim: Size = 100,
        width: Size = 64,
        kernel: Kernel = 25,
        upsampling: Upsampling = "zeros",
        post_filter: Kernel | None = None,
        num_classes: Size | None = None,
        batch_norm: bool = False,
    ):
        super().__init__()
        *inner, last = strides(samples)
        widths = [width << layer for layer in reversed(range(len(inner) + 1))]
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.data_spec = SoundSpec(samples=samples, channels=channels)
        self.project = nn.Linear(latent_dim + (num_classes or 0), widths[0] * START)
        self.start = nn.Sequential(normalised(widths[0], batch_norm), nn.ReLU())
        ups = [
            Up(a, b, kernel, stride=stride, upsampling=upsampling, batch_norm=batch_norm)
            for (a, b), stride in zip(pairwise(widths), inner, strict=True)
        ]
        self.up = nn.Sequential(*ups)
        self.to_audio = nn.Sequential(upsampler(width, channels, kernel, stride=last, upsampling=upsampling), nn.Tanh())
        self.post_filter: nn.Module = nn.Identity()
        if post_filter is not None:
            padded = nn.ZeroPad1d(((post_filter - 1) // 2, post_filter // 2))
            self.post_filter = nn.Sequential(
                padded, nn.Conv1d(channels, channels, post_filter, groups=channels, bias=False)
            )
        self.apply(initialize)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        z = append_class(z, label, self.num_classes)
        x = self.start(self.project(z).unflatten(1, (-1, START)))
        return self.post_filter(self.to_audio(self.up(x)))


class Discriminator(nn.Module):
    """Audio `[B, channels, samples]` and a class to logits `[B]`.

    Args:
        samples: of a sound: 16 doubled at least three times.
        channels: of the audio.
        width: channels after the first layer; every further one has twice as many.
        kernel: taps of every layer.
        phase_shuffle: the largest shift of the first layers' features; 0 shifts none.
        shuffle_per_example: whether every sample is shifted on its own; else a batch is, as published.
        num_classes: number of classes; None for a discriminator without classes.
        batch_norm: whether all layers but the first normalise, always with the batch's own statistics.

    Raises:
        RecipeError: `samples` is out of reach, or samples would be shifted on their own and are not shifted.
    """

    def __init__(
        self,
        *,
        samples: Size = 16_384,
        channels: Size = 1,
        width: Size = 64,
        kernel: Kernel = 25,
        phase_shuffle: Radius = 2,
        shuffle_per_example: bool = False,
        num_classes: Size | None = None,
        batch_norm: bool = False,
    ):
        super().__init__()
        if shuffle_per_example and phase_shuffle == 0:
            raise RecipeError("`shuffle_per_example` has no effect: `phase_shuffle` is 0; set it to 1 or more")
        steps = strides(samples)
        widths = [channels, *(width << layer for layer in range(len(steps)))]
        self.num_classes, self.shuffled = num_classes, min(SHUFFLED, len(steps) - 1)
        self.down = nn.ModuleList(
            Down(widths[layer], widths[layer + 1], kernel, stride=stride, batch_norm=batch_norm and layer > 0)
            for layer, stride in enumerate(steps)
        )
        self.shuffle = PhaseShuffle(phase_shuffle, per_example=shuffle_per_example)
        self.judge = nn.Linear(widths[-1] * START, 1)
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, widths[-1])
        self.apply(initialize)

    def forward(self, audio: Tensor, label: Tensor | None = None) -> Tensor:
        features = audio
        for layer, down in enumerate(self.down):
            features = down(features)
            if layer < self.shuffled:
                features = self.shuffle(features)
        logits = self.judge(features.flatten(1)).flatten()
        return add_class_projection(logits, features, label, self.embedding)


class WaveGAN(TwoPlayerGame):
    """The plain game with latents that are uniform in [-1, 1] (Donahue et al. 2019, arXiv:1802.04208)."""

    prior: ClassVar[str] = "uniform in [-1, 1]"

    def latent(self, count: int, *, truncation: Truncation = None) -> Tensor:
        """Draws latents `[count, latent_dim]`, uniform in [-ψ, ψ], where ψ is the truncation (default: 1)."""
        like = next(self.parameters())
        return draws.symmetric(count, latent_dim(self.generator), like=like, truncation=truncation)

    def between(self, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
        return straight_line(start, end, share)

    def finish(self, fakes: Tensor) -> Tensor:
        return fakes.clamp(-1, 1)  # a post-filter's output may exceed [-1, 1]

    def exports(self) -> dict[str, Exported]:
        """Returns the generator; its output is audio before clamping to [-1, 1]."""
        made = super().exports()["generator"]
        return {"generator": replace(made, facts={"sample_rate": cast(SoundSpec, self.spec).sample_rate})}


WAVEGAN = Preset(
    WaveGAN,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1802.04208",
    objective="wasserstein",
    regularizers=[GradientPenalty(weight=10.0)],
    network={"samples": 16_384, "latent_dim": 100, "width": 64},
    optimizer=Adam(learning_rate=1e-4, betas=(0.5, 0.9)),
    players={"discriminator": {"turns": 5}},
    data={"spec": {"sample_rate": 16_000, "peak": 1.0}},  # the published code scales every recording to 1
    train={"batch_size": 64, "steps": 200_000, "sample_every": 1000, "checkpoint_every": 1000},
)
SMALL = WAVEGAN.but(
    objective="relativistic",  # with R1 and R2 it learns more in a minute than WGAN-GP in three
    regularizers=[R1(weight=1.0, interval=4), R2(weight=1.0, interval=4)],
    network={"samples": 4096, "latent_dim": 32, "width": 16},
    optimizer=Adam(learning_rate=5e-4, betas=(0.0, 0.9)),
    players={"discriminator": {"turns": 1}},
    data={"spec": {"sample_rate": 8000}},
    train={"batch_size": 16, "steps": 2000, "ema": 0.99, "sample_every": 250, "checkpoint_every": 250},
)

PRESETS = {"wavegan": {"paper": WAVEGAN, "paper-65536": WAVEGAN.but(network={"samples": 65_536}), "small": SMALL}}
