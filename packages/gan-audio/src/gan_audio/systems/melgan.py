"""MelGAN: audio from mels by a convolutional network without noise, judged at three scales.

- `melgan`: Kumar et al. 2019, arXiv:1910.06711, as in github.com/descriptinc/melgan-neurips. Features are matched with
  the code's weight, 4 / (depth + 1) for each layer and a mean over scales. There, the N(0, 0.02) that weights are
  drawn from is undone by weight normalisation; here they begin as torch's do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, chain, pairwise
from operator import mul
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from gan_audio.layers.filtering import TransposedConvolution
from gan_audio.mel.contract import CONTRACTS, MelContract
from gan_audio.specs import Peak
from gan_audio.systems.vocoder import PEAK, Discriminators, MelGenerator, Sum, Vocoder, normalise_weights, same
from gan_core.play.adversary import Adversary
from gan_core.play.preset import Preset
from gan_core.play.regularizers import FeatureMatching
from gan_core.recipe import Adam, Size

Gain = Annotated[float, Field(gt=0, le=10)]
"""Of amplitudes."""
SLOPE = 0.2
STEPS = 3000 * 13_100 // 16
"""Of the published code's 3,000 epochs over the clips of LJSpeech."""


class Residual(Sum):
    """A dilated convolution and one over a single sample, beside another of those as a shortcut (section 2.1)."""

    def __init__(self, channels: int, dilation: int):
        dilated = same(channels, channels, 3, dilation=dilation, mode="reflect")
        block = nn.Sequential(
            nn.LeakyReLU(SLOPE), dilated, nn.LeakyReLU(SLOPE, inplace=True), same(channels, channels, 1)
        )
        super().__init__(same(channels, channels, 1), block)


class Generator(MelGenerator):
    """Mels `[B, mels, frames]` to audio `[B, 1, frames · hop]` in [-1, 1]; padding reflects.

    Args:
        mel: the contract of its mels.
        rates: by which the stages lengthen; each halves the channels.
        width: channels before the last layer.
        depth: dilated blocks in a stage, with the dilations 1, 3, 9 …
        folded: whether its weights are plain, as `fold` leaves them.
        gain: by which a layer makes noise louder at first; None leaves the weights as torch draws them.
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
        layers: list[nn.Module] = [same(mel.mels, widths[0], 7, mode="reflect")]
        for rate, (inputs, outputs) in zip(rates, pairwise(widths), strict=True):
            up = TransposedConvolution(
                inputs, outputs, 2 * rate, rate, padding=rate // 2 + rate % 2, output_padding=rate % 2
            )
            layers += [nn.LeakyReLU(SLOPE, inplace=True), up, *(Residual(outputs, 3**k) for k in range(depth))]
        layers += [nn.LeakyReLU(SLOPE, inplace=True), same(width, 1, 7, mode="reflect"), nn.Tanh()]
        if gain is not None:
            amplify(layers, gain)
        super().__init__(mel, rates, layers, folded)
        widest = max((3 ** (depth - 1) // longer for longer in accumulate(rates, mul)), default=0)
        self.least = 1 + max(3, widest)  # what is reflected lies within the input


def amplify(layers: Iterable[nn.Module], gain: float) -> None:
    """Draws weights of convolutions by which noise comes out louder by the gain; biases become 0.

    By torch's, which the published code begins with, every layer makes noise weaker by √3 or more. After sixteen of
    them the biases are louder than what mels make, and it takes long until they are heard.
    """
    for layer in chain.from_iterable(layer.modules() for layer in layers):
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            (size,), (stride,) = layer.kernel_size, layer.stride
            summed = layer.in_channels * size / (stride if isinstance(layer, nn.ConvTranspose1d) else 1)
            nn.init.normal_(layer.weight, std=gain / math.sqrt(summed))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ScaleDiscriminator(nn.Module):
    """Audio `[B, 1, T]` to logits of its windows `[B, T / downsampling^depth]`, and the features of each layer.

    Args:
        width: channels of the first layer.
        depth: strided layers.
        downsampling: of each of them; it widens as much, to 1024 channels at most.
    """

    def __init__(self, width: int, depth: int, downsampling: int):
        super().__init__()
        widths = [min(width * downsampling**k, 1024) for k in range(depth + 1)]
        layers = [same(1, width, 15, mode="reflect")]
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
        layers.append(same(widths[-1], last, 5))
        self.layers = nn.ModuleList(nn.Sequential(layer, nn.LeakyReLU(SLOPE, inplace=True)) for layer in layers)
        self.judge = same(last, 1, 3)

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = [audio]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return self.judge(features[-1]).squeeze(1), features[1:]


class Discriminator(Discriminators):
    """Audio `[B, 1, T]` to the logits and features of discriminators alike, each of the audio at half the rate before.

    Args:
        scales: how many.
        width: channels of their first layers.
        depth: of their strided layers.
        downsampling: of each of these.
    """

    def __init__(self, *, scales: Size = 3, width: Size = 16, depth: Size = 4, downsampling: Size = 4):
        alike = [ScaleDiscriminator(width, depth, downsampling) for _ in range(scales)]
        super().__init__(alike, between=nn.AvgPool1d(4, stride=2, padding=1, count_include_pad=False))
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
