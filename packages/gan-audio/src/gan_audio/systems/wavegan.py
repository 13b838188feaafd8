"""WaveGAN: waveforms by strided convolutions over time.

- `wavegan`: Donahue et al. 2019, arXiv:1802.04208, with the layers of the published code
  (github.com/chrisdonahue/wavegan), which also generates 32,768 and 65,536 samples. Convolutions have TensorFlow's
  `SAME` padding, which is asymmetric.

The paper has no classes. With `num_classes`, the class is concatenated to the generator's latent (Mirza & Osindero
2014, arXiv:1411.1784) and projected in the discriminator (Miyato & Koyama 2018, arXiv:1802.05637, eq. 3).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_audio.layers.strided import Down, Kernel, Up, Upsampling, batch_norm_if, initialize, upsampler
from gan_audio.sound.spec import SoundSpec
from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.nn.augment import reflected
from gan_core.nn.blocks import doublings
from gan_core.nn.conditioning import add_class_projection, append_class
from gan_core.play.conditions import Truncation
from gan_core.play.exported import Exported
from gan_core.play.latents import straight_line
from gan_core.play.preset import Preset
from gan_core.play.regularizers import R1, R2, GradientPenalty
from gan_core.play.two_player import TwoPlayerGame, latent_dim
from gan_core.recipe import Adam, Size

START = 16
"""Length in samples of the generator's first and the discriminator's last features."""
SHUFFLED = 4
"""Maximum number of discriminator layers with phase shuffle; the last layer has none, as in the published code."""

Radius = Annotated[int, Field(ge=0, le=START - 1)]
"""Maximum shift of a layer's features in samples."""


class PhaseShuffle(nn.Module):
    """Random time shift of features, so that the discriminator cannot recognise fakes by phase (paper, section 3.3).

    Maps `[B, C, T]` to the same shape. Inactive in evaluation mode.

    Args:
        radius: maximum shift n; shifts are uniform over the integers in [-n, n]. 0 disables them.
        per_example: whether every sample has its own shift. Otherwise, all samples of a batch have the same shift, as
            in the published code. (The paper's text describes one shift per feature map.)
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
    """Delays features: the output at t is the input at t - shift.

    Missing values at the ends are reflected without repeating the outermost sample. The shifts stay on their device,
    so the computation does not synchronise with the host.

    Args:
        x: `[B, C, T]`.
        shift: shifts in samples, `[B]`, or `[1]` for all rows; less than T.

    Returns:
        `[B, C, T]`.
    """
    length = x.shape[2]
    times = reflected(torch.arange(length, device=x.device) - shift[:, None], length)
    return x.gather(2, times[:, None].expand_as(x))


def strides(samples: int) -> list[int]:
    """Returns the strides of the layers between `START` and `samples` samples: 4s, then a 2 if needed.

    Raises:
        RecipeError: `samples` is not `START` doubled at least three times.
    """
    fours, twos = divmod(doublings(samples, START, least=3, what="samples"), 2)
    return [4] * fours + [2] * twos


class Generator(nn.Module):
    """`z [B, latent_dim]` in [-1, 1] and a class to audio `[B, channels, samples]` in [-1, 1].

    Args:
        samples: length of a sound: 16 doubled at least three times; 16,384, 32,768 or 65,536 in the published code.
        channels: audio channels.
        latent_dim: size of z.
        width: channels before the last layer, doubled at each earlier layer.
        kernel: taps of every layer.
        upsampling: method of up-sampling.
        post_filter: taps of a learnt filter of each channel that removes artefacts (512 in appendix A.1), after which
            values may exceed ±1; None for no filter.
        num_classes: number of classes; None for a generator without classes.
        batch_norm: whether to use batch normalisation.
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
        self.start = nn.Sequential(batch_norm_if(batch_norm, widths[0]), nn.ReLU())
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
        samples: length of a sound: 16 doubled at least three times.
        channels: audio channels.
        width: channels after the first layer, doubled at each further layer.
        kernel: taps of every layer.
        phase_shuffle: maximum shift of the first layers' features in samples; 0 disables phase shuffle.
        shuffle_per_example: whether every sample has its own shift. Otherwise, all samples of a batch have the same
            shift, as in the published code.
        num_classes: number of classes; None for a discriminator without classes.
        batch_norm: whether all layers but the first use batch normalisation, always with the batch's statistics.

    Raises:
        RecipeError: `samples` is not valid, or `shuffle_per_example` is set without `phase_shuffle`.
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
    """Two-player game with latents that are uniform in [-1, 1] (Donahue et al. 2019, arXiv:1802.04208)."""

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
    objective="relativistic",  # with R1 and R2, better after one minute than WGAN-GP after three
    regularizers=[R1(weight=1.0, interval=4), R2(weight=1.0, interval=4)],
    network={"samples": 4096, "latent_dim": 32, "width": 16},
    optimizer=Adam(learning_rate=5e-4, betas=(0.0, 0.9)),
    players={"discriminator": {"turns": 1}},
    data={"spec": {"sample_rate": 8000}},
    train={"batch_size": 16, "steps": 2000, "ema": 0.99, "sample_every": 250, "checkpoint_every": 250},
)

PRESETS = {"wavegan": {"paper": WAVEGAN, "paper-65536": WAVEGAN.but(network={"samples": 65_536}), "small": SMALL}}
