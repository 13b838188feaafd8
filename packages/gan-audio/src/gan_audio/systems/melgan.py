"""MelGAN: a convolutional generator without noise, and discriminators at three scales.

- `melgan`: Kumar et al. 2019, arXiv:1910.06711, as in github.com/descriptinc/melgan-neurips. Feature matching has the
  weight of the published code, 4 / (depth + 1) per layer, averaged over scales. The published code initialises weights
  from N(0, 0.02), but weight normalisation undoes that; here they have torch's default initialisation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, chain, pairwise
from operator import mul
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from gan_audio.layers.blocks import Sum, normalise_weights
from gan_audio.layers.convolution import TransposedConvolution, same_convolution
from gan_audio.mel.contract import CONTRACTS, MelContract
from gan_audio.sound.spec import Peak
from gan_audio.systems.vocoder import PEAK, Discriminators, MelGenerator, Vocoder
from gan_core.play.adversary import Adversary
from gan_core.play.preset import Preset
from gan_core.play.regularizers import FeatureMatching
from gan_core.recipe import Adam, Size

Gain = Annotated[float, Field(gt=0, le=10)]
"""Gain by which amplitudes are multiplied."""
SLOPE = 0.2
"""Negative slope of all leaky ReLUs."""
STEPS = 3000 * 13_100 // 16
"""Steps of the published code: 3,000 epochs of the clips of LJSpeech."""


class Residual(Sum):
    """Residual block of a dilated and a pointwise convolution, with a pointwise shortcut (section 2.1)."""

    def __init__(self, channels: int, dilation: int):
        dilated = same_convolution(channels, channels, 3, dilation=dilation, mode="reflect")
        block = nn.Sequential(
            nn.LeakyReLU(SLOPE), dilated, nn.LeakyReLU(SLOPE, inplace=True), same_convolution(channels, channels, 1)
        )
        super().__init__(same_convolution(channels, channels, 1), block)


class Generator(MelGenerator):
    """Mels `[B, mels, frames]` to audio `[B, 1, frames * hop]` in [-1, 1], with reflection padding.

    Args:
        mel: mel contract, its settings, or its name.
        rates: up-sampling factors of the stages; each stage halves the channels.
        width: channels before the last layer.
        depth: residual blocks per stage, with dilations 1, 3, 9 …
        folded: whether the weights are plain, as after `Vocoder.fold`.
        gain: initial gain of every layer for noise; see `initialize_with_gain`. None keeps torch's initialisation.
    """

    def __init__(
        self,
        *,
        mel: MelContract = CONTRACTS["melgan-22k"],
        rates: tuple[Size, ...] = (8, 8, 2, 2),
        width: Size = 32,
        depth: Size = 3,
        folded: bool = False,
        gain: Gain | None = None,
    ) -> None:
        mel = MelContract.model_validate(mel)
        widths = [width << stage for stage in reversed(range(len(rates) + 1))]
        layers: list[nn.Module] = [same_convolution(mel.mels, widths[0], 7, mode="reflect")]
        for rate, (inputs, outputs) in zip(rates, pairwise(widths), strict=True):
            up = TransposedConvolution(
                inputs, outputs, 2 * rate, rate, padding=rate // 2 + rate % 2, output_padding=rate % 2
            )
            layers += [nn.LeakyReLU(SLOPE, inplace=True), up, *(Residual(outputs, 3**k) for k in range(depth))]
        layers += [nn.LeakyReLU(SLOPE, inplace=True), same_convolution(width, 1, 7, mode="reflect"), nn.Tanh()]
        if gain is not None:
            initialize_with_gain(layers, gain)
        super().__init__(mel, rates, layers, folded)
        widest = max((3 ** (depth - 1) // rate for rate in accumulate(rates, mul)), default=0)
        self.min_frames = 1 + max(3, widest)  # reflection padding must be shorter than the input


def initialize_with_gain(layers: Iterable[nn.Module], gain: float) -> None:
    """Draws convolution weights such that noise is amplified by `gain`, and sets biases to 0.

    With torch's initialisation, as in the published code, each layer attenuates noise by √3 or more. After sixteen
    layers, the biases dominate, and it takes many training steps until the audio depends on the mels.
    """
    for layer in chain.from_iterable(layer.modules() for layer in layers):
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            (size,), (stride,) = layer.kernel_size, layer.stride
            summed = layer.in_channels * size / (stride if isinstance(layer, nn.ConvTranspose1d) else 1)
            nn.init.normal_(layer.weight, std=gain / math.sqrt(summed))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ScaleDiscriminator(nn.Module):
    """Audio `[B, 1, T]` to logits of windows `[B, T / downsampling^depth]`, and the features of each layer.

    Args:
        width: channels of the first layer.
        depth: number of strided layers.
        downsampling: stride of each strided layer, and the factor by which it increases the channels, up to 1024.
    """

    def __init__(self, width: int, depth: int, downsampling: int):
        super().__init__()
        widths = [min(width * downsampling**k, 1024) for k in range(depth + 1)]
        layers = [same_convolution(1, width, 15, mode="reflect")]
        for inputs, outputs in pairwise(widths):
            layers.append(
                nn.Conv1d(
                    inputs,
                    outputs,
                    10 * downsampling + 1,
                    downsampling,
                    padding=5 * downsampling,
                    groups=max(1, inputs // 4),
                )
            )
        last = min(2 * widths[-1], 1024)
        layers.append(same_convolution(widths[-1], last, 5))
        self.layers = nn.ModuleList(nn.Sequential(layer, nn.LeakyReLU(SLOPE, inplace=True)) for layer in layers)
        self.judge = same_convolution(last, 1, 3)

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = [audio]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return self.judge(features[-1]).squeeze(1), features[1:]


class Discriminator(Discriminators):
    """Discriminators of audio `[B, 1, T]`, each at half the sample rate of the one before.

    Args:
        scales: number of discriminators.
        width: channels of the first layer of each discriminator.
        depth: strided layers of each discriminator.
        downsampling: stride of these layers.
    """

    def __init__(self, *, scales: Size = 3, width: Size = 16, depth: Size = 4, downsampling: Size = 4):
        discriminators = [ScaleDiscriminator(width, depth, downsampling) for _ in range(scales)]
        super().__init__(discriminators, between=nn.AvgPool1d(4, stride=2, padding=1, count_include_pad=False))
        normalise_weights(self)


class MelGAN(Vocoder):
    """MelGAN (Kumar et al. 2019, arXiv:1910.06711, section 2.3).

    Args:
        generator: maps mels `[B, mels, frames]` to audio `[B, 1, T]`.
        discriminator: multi-scale discriminator of audio.
        stft_weight: weight of the multi-resolution STFT loss, which is not part of the paper.
        quietest: lower bound of the random gain in [quietest, 1] of real audio; 0.3 in the published code.
    """

    def __init__(
        self, generator: MelGenerator, discriminator: Adversary, *, stft_weight: float = 0.0, quietest: Peak = 0.3
    ) -> None:
        super().__init__(generator, stft_weight=stft_weight, quietest=quietest)
        self.discriminator = discriminator


MELGAN = Preset(
    MelGAN,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1910.06711",
    objective="hinge",
    regularizers=[FeatureMatching(weight=10 * 4 / (4 + 1) / 3)],  # λ · 4 / (depth + 1) / scales
    network={
        "mel": CONTRACTS["melgan-22k"].model_dump(),
        "rates": (8, 8, 2, 2),
        "generator": {"width": 32, "depth": 3},
        "discriminator": {"width": 16, "depth": 4},
    },
    optimizer=Adam(learning_rate=1e-4, betas=(0.5, 0.9)),
    data={"spec": {"samples": 8192, "peak": PEAK}},
    train={"batch_size": 16, "steps": STEPS, "show": 8, "sample_every": 5000, "checkpoint_every": 5000},
)
SMALL = MELGAN.but(
    regularizers=[FeatureMatching(weight=10 * 4 / (3 + 1) / 2)],
    settings={"stft_weight": 40.0},
    network={
        "generator": {"width": 16, "depth": 3, "gain": 1.0},
        "discriminator": {"scales": 2, "width": 4, "depth": 3},
    },
    optimizer=Adam(learning_rate=5e-4, betas=(0.5, 0.9)),
    train={"batch_size": 4, "steps": 3000, "ema": 0.995, "sample_every": 500, "checkpoint_every": 500},
)

PRESETS = {"melgan": {"paper": MELGAN, "small": SMALL}}
