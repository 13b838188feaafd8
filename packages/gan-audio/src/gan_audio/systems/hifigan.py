"""HiFi-GAN: a generator with parallel residual blocks, and multi-period and multi-scale discriminators.

- `hifigan`: Kong et al. 2020, arXiv:2010.05646, as in github.com/jik876/hifi-gan. The presets `v1` (= `paper`), `v2`
  and `v3` are the paper's three generators. The published code initialises weights from N(0, 0.01), but weight
  normalisation undoes that; here they have torch's default initialisation.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from gan_audio.layers.blocks import Mean, Sum, normalise_weights
from gan_audio.layers.convolution import TransposedConvolution, same_convolution
from gan_audio.mel.contract import CONTRACTS, MelContract
from gan_audio.systems.vocoder import PEAK, Discriminators, MelGenerator, Vocoder
from gan_core.errors import RecipeError
from gan_core.nn.spectral import spectrally_normalised
from gan_core.play.adversary import Adversary
from gan_core.play.preset import Preset
from gan_core.play.regularizers import FeatureMatching
from gan_core.recipe import Adam, Size, Step

SLOPE = 0.1
"""Negative slope of all leaky ReLUs but the generator's last one."""
LAST_SLOPE = 0.01
"""Negative slope of the generator's last leaky ReLU: torch's default, as in the published code."""
EPOCH = 12_950 // 16
"""Steps per epoch of the published code on LJSpeech, after which the learning rate decays."""

Activation = Callable[[int, bool], nn.Module]
"""Constructor of an activation from the number of channels and whether its input may be overwritten."""


class Generator(MelGenerator):
    """Mels `[B, mels, frames]` to audio `[B, 1, frames * hop]` in [-1, 1].

    Args:
        mel: mel contract, its settings, or its name.
        rates: up-sampling factors of the stages; each stage halves the channels.
        up_sizes: kernel sizes of the transposed convolutions.
        width: channels of the first layer.
        sizes: kernel sizes of the parallel residual blocks of each stage.
        dilations: dilations of the convolutions in each of these blocks.
        paired: whether an undilated convolution follows each dilated one.
        folded: whether the weights are plain, as after `Vocoder.fold`.

    Raises:
        RecipeError: settings contradict each other.
    """

    def __init__(
        self,
        *,
        mel: MelContract = CONTRACTS["hifigan-22k"],
        rates: tuple[Size, ...] = (8, 8, 2, 2),
        up_sizes: tuple[Size, ...] = (16, 16, 4, 4),
        width: Size = 512,
        sizes: tuple[Size, ...] = (3, 7, 11),
        dilations: tuple[tuple[Size, ...], ...] = ((1, 3, 5),) * 3,
        paired: bool = True,
        folded: bool = False,
    ) -> None:
        mel = MelContract.model_validate(mel)
        layers: list[nn.Module] = [same_convolution(mel.mels, width, 7)]
        channels = width
        for up, outputs in upsampling_layers(width, rates, up_sizes):
            blocks = receptive_field_fusion(outputs, sizes, dilations, paired=paired, activation=leaky_relu)
            layers += [nn.LeakyReLU(SLOPE, inplace=True), up, blocks]
            channels = outputs
        layers += [nn.LeakyReLU(LAST_SLOPE, inplace=True), same_convolution(channels, 1, 7), nn.Tanh()]
        super().__init__(mel, rates, layers, folded)


def leaky_relu(channels: int, inplace: bool) -> nn.Module:
    """Returns the activation before every convolution of the residual blocks."""
    return nn.LeakyReLU(SLOPE, inplace)


def upsampling_layers(width: int, rates: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[nn.Module, int]]:
    """Builds the transposed convolutions of all stages.

    Returns:
        Each layer with its number of output channels, half its input channels.

    Raises:
        RecipeError: the numbers of sizes and rates differ, a size is less than its rate, or the width is too small.
    """
    if len(sizes) != len(rates) or any(size < rate for size, rate in zip(sizes, rates, strict=True)):
        raise RecipeError(
            f"`up_sizes` is {list(sizes)}; expected one size for each of the `rates` {list(rates)}, at least the rate"
        )
    if width >> len(rates) < 1:
        raise RecipeError(f"`width` is {width}; expected {1 << len(rates)} or more, as {len(rates)} stages halve it")
    ups: list[tuple[nn.Module, int]] = []
    for stage, (rate, size) in enumerate(zip(rates, sizes, strict=True)):
        inputs, outputs = width >> stage, width >> stage + 1
        ups.append((TransposedConvolution(inputs, outputs, size, rate, padding=(size - rate) // 2), outputs))
    return ups


def receptive_field_fusion(
    channels: int,
    sizes: tuple[int, ...],
    dilations: tuple[tuple[int, ...], ...],
    *,
    paired: bool,
    activation: Activation,
) -> nn.Module:
    """Builds a multi-receptive field fusion: the mean of residual blocks of several kernel sizes (section 2.2).

    Raises:
        RecipeError: the numbers of dilations and sizes differ.
    """
    if len(dilations) != len(sizes):
        given = [list(one) for one in dilations]
        raise RecipeError(f"`dilations` is {given}; expected one list for each of the `sizes` {list(sizes)}")
    pairs = zip(sizes, dilations, strict=True)
    return Mean(*(residual_block(channels, size, ds, paired=paired, activation=activation) for size, ds in pairs))


def residual_block(
    channels: int, size: int, dilations: tuple[int, ...], *, paired: bool, activation: Activation
) -> nn.Module:
    """Builds a sequence of dilated convolutions with residual connections (appendix A.1).

    Args:
        channels: channels of all convolutions.
        size: kernel size.
        dilations: dilation of each convolution.
        paired: whether an undilated convolution follows each dilated one (the published ResBlock1; ResBlock2 has none).
        activation: constructor of the activation before every convolution.
    """

    def step(dilation: int) -> nn.Module:
        layers = [activation(channels, False), same_convolution(channels, channels, size, dilation=dilation)]
        if paired:
            layers += [activation(channels, True), same_convolution(channels, channels, size)]
        return Sum(nn.Identity(), nn.Sequential(*layers))

    return nn.Sequential(*(step(dilation) for dilation in dilations))


class ConvolutionalDiscriminator(nn.Module):
    """Convolutions with leaky ReLUs that return logits `[B, n]` and a list with the outputs of all layers.

    As in the published code, the last entry of the list is the logits before flattening.

    Args:
        layers: convolutions before the last one.
        judge: last convolution, to one channel.
        spectral: whether to use spectral normalisation instead of weight normalisation.
    """

    def __init__(self, layers: list[nn.Module], judge: nn.Module, *, spectral: bool = False):
        super().__init__()
        self.layers, self.judge = nn.ModuleList(layers), judge
        if spectral:
            for layer in (*layers, judge):
                spectrally_normalised(layer)
        else:
            normalise_weights(self)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for layer in self.layers:
            x = F.leaky_relu_(layer(x), SLOPE)
            features.append(x)
        logits = self.judge(x)
        return logits.flatten(1), [*features, logits]


class PeriodDiscriminator(ConvolutionalDiscriminator):
    """Discriminator of audio `[B, 1, T]` reshaped to rows of `period` samples (section 2.3).

    Args:
        period: period in samples.
        width: channels of the first layer; the following layers have 4, 16, 32 and 32 times this number.
        size: kernel size along time. The padding is 2 samples for every size, as in the published code.
        stride: stride of all convolutions but the last two.
        spectral: whether to use spectral normalisation instead of weight normalisation.
    """

    def __init__(self, period: int, *, width: int = 32, size: int = 5, stride: int = 3, spectral: bool = False):
        widths = [1, width, 4 * width, 16 * width, 32 * width, 32 * width]
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, (size, 1), (step, 1), padding=(2, 0))
            for (inputs, outputs), step in zip(pairwise(widths), [*[stride] * 4, 1], strict=True)
        ]
        super().__init__(layers, nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)), spectral=spectral)
        self.period = period

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        whole = F.pad(audio, (0, -audio.shape[2] % self.period), mode="reflect")
        return super().forward(whole.view(len(whole), 1, -1, self.period))


class MultiPeriodDiscriminator(Discriminators):
    """Discriminators of audio `[B, 1, T]` with several periods.

    Args:
        periods: periods in samples.
        width: channels of the first layer of each discriminator.
    """

    def __init__(self, *, periods: tuple[Size, ...] = (2, 3, 5, 7, 11), width: Size = 32):
        super().__init__(PeriodDiscriminator(period, width=width) for period in periods)


class ScaleDiscriminator(ConvolutionalDiscriminator):
    """Discriminator of audio `[B, 1, T]` with grouped convolutions (section 2.3).

    Args:
        width: channels of the first two layers, a multiple of 16.
        spectral: whether to use spectral normalisation instead of weight normalisation.

    Raises:
        RecipeError: the width is not a multiple of 16.
    """

    def __init__(self, width: int, *, spectral: bool = False):
        if width % 16:
            raise RecipeError(f"`width` of the multi-scale discriminator is {width}; expected a multiple of 16")
        widths = [1, width, width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        shapes = [(15, 1, 1), (41, 2, 4), (41, 2, 16), (41, 4, 16), (41, 4, 16), (41, 1, 16), (5, 1, 1)]
        layers: list[nn.Module] = [
            nn.Conv1d(inputs, outputs, size, stride, padding=size // 2, groups=groups)
            for (inputs, outputs), (size, stride, groups) in zip(pairwise(widths), shapes, strict=True)
        ]
        super().__init__(layers, same_convolution(widths[-1], 1, 3), spectral=spectral)


class MultiScaleDiscriminator(Discriminators):
    """Discriminators of audio `[B, 1, T]`, each at half the sample rate of the one before.

    The first one uses spectral normalisation, the others weight normalisation.

    Args:
        scales: number of discriminators.
        width: channels of the first layer of each discriminator, a multiple of 16.
    """

    def __init__(self, *, scales: Size = 3, width: Size = 128):
        alike = (ScaleDiscriminator(width, spectral=number == 0) for number in range(scales))
        super().__init__(alike, between=nn.AvgPool1d(4, stride=2, padding=2))


class HiFiGAN(Vocoder):
    """HiFi-GAN (Kong et al. 2020, arXiv:2010.05646, equations 5 and 6).

    Args:
        generator: maps mels `[B, mels, frames]` to audio `[B, 1, T]`.
        mpd: multi-period discriminator of audio.
        msd: multi-scale discriminator of audio.
        adversarial_weight: weight of the adversarial terms. The default of 2 cancels the factor ½ in `least_squares`,
            which is not in equations 1 and 2.
        mel_weight: weight of the mel loss, λ_mel.
        stft_weight: weight of the multi-resolution STFT loss, which is not part of the paper.
    """

    def __init__(
        self,
        generator: MelGenerator,
        mpd: Adversary,
        msd: Adversary,
        *,
        adversarial_weight: float = 2.0,
        mel_weight: float = 45.0,
        stft_weight: float = 0.0,
    ) -> None:
        super().__init__(
            generator, adversarial_weight=adversarial_weight, mel_weight=mel_weight, stft_weight=stft_weight
        )
        self.mpd, self.msd = mpd, msd


V1 = Preset(
    HiFiGAN,
    networks={"generator": Generator, "mpd": MultiPeriodDiscriminator, "msd": MultiScaleDiscriminator},
    paper="arXiv:2010.05646",
    objective="least_squares",
    regularizers=[FeatureMatching(weight=2.0)],  # λ_fm
    settings={"mel_weight": 45.0},
    network={
        "mel": CONTRACTS["hifigan-22k"].model_dump(),
        "rates": (8, 8, 2, 2),
        "up_sizes": (16, 16, 4, 4),
        "sizes": (3, 7, 11),
        "dilations": ((1, 3, 5),) * 3,
        "paired": True,
        "generator": {"width": 512},
        "mpd": {"width": 32},
        "msd": {"width": 128},
    },
    optimizer=Adam(learning_rate=2e-4, betas=(0.8, 0.99), weight_decay=0.01, schedule=Step(every=EPOCH, factor=0.999)),
    data={"spec": {"samples": 8192, "peak": PEAK}},
    train={"batch_size": 16, "steps": 2_500_000, "show": 8, "sample_every": 5000, "checkpoint_every": 5000},
)
V2 = V1.but(network={"generator": {"width": 128}})
V3 = V1.but(
    network={
        "rates": (8, 8, 4),
        "up_sizes": (16, 16, 8),
        "sizes": (3, 5, 7),
        "dilations": ((1, 2), (2, 6), (3, 12)),
        "paired": False,
        "generator": {"width": 256},
    }
)
SMALL = V3.but(
    settings={"stft_weight": 40.0},
    network={
        "sizes": (3, 7),
        "dilations": ((1, 3), (1, 3)),
        "generator": {"width": 64},
        "mpd": {"periods": (2, 3, 5), "width": 4},
        "msd": {"scales": 2, "width": 16},
    },
    optimizer=Adam(learning_rate=5e-4, betas=(0.8, 0.99)),
    train={"batch_size": 4, "steps": 3000, "ema": 0.995, "sample_every": 500, "checkpoint_every": 500},
)

PRESETS = {"hifigan": {"paper": V1, "v1": V1, "v2": V2, "v3": V3, "small": SMALL}}
