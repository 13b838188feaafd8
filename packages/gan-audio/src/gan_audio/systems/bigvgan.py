"""BigVGAN: HiFi-GAN's generator with anti-aliased periodic activations, and a multi-resolution discriminator.

- `bigvgan`: Lee et al. 2023, arXiv:2206.04658, as in github.com/NVIDIA/BigVGAN, at 24 kHz with 100 bands. The preset
  `base` is the paper's smaller model. The published code clips the gradients of each discriminator separately; here
  they are clipped together.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_audio.layers.convolution import as_image, is_cpu_inference, same_convolution
from gan_audio.layers.losses import RESOLUTIONS, Resolution
from gan_audio.layers.streaming import Span
from gan_audio.mel.contract import CONTRACTS, MelContract
from gan_audio.systems.hifigan import (
    ConvolutionalDiscriminator,
    MultiPeriodDiscriminator,
    receptive_field_fusion,
    upsampling_layers,
)
from gan_audio.systems.vocoder import PEAK, Discriminators, MelGenerator, Vocoder
from gan_core.nn.precision import full_precision
from gan_core.play.adversary import Adversary
from gan_core.play.preset import Preset
from gan_core.play.regularizers import FeatureMatching
from gan_core.recipe import Adam, Size, Step

MIN_BETA = 1e-9
"""Value added to β to avoid division by 0."""


class Snake(nn.Module):
    """Activation x + sin²(αx) / β of `[B, C, T]`, α and β per channel (Ziyin et al. 2020, arXiv:2006.08195).

    Args:
        channels: number of channels.
        separate: whether β is a separate parameter (SnakeBeta in the published code) instead of equal to α.
        logarithmic: whether the parameters are the logarithms of α and β.
    """

    def __init__(self, channels: int, *, separate: bool, logarithmic: bool = True):
        super().__init__()
        self.logarithmic = logarithmic
        start = torch.zeros(channels) if logarithmic else torch.ones(channels)
        self.alpha = nn.Parameter(start)
        self.register_parameter("beta", nn.Parameter(start.clone()) if separate else None)

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        beta = alpha if self.beta is None else self.get_parameter("beta")[:, None]
        if self.logarithmic:
            alpha, beta = alpha.exp(), beta.exp()
        return torch.addcmul(x, 1 / (beta + MIN_BETA), (alpha * x).sin().square())


def low_pass(ratio: int, taps: int) -> Tensor:
    """Returns a low-pass filter `[1, 1, taps]` with its cutoff at 1 / `ratio` of the band: a Kaiser-windowed sinc.

    Its taps sum to 1. The attenuation follows from the number of taps and a transition width of 0.6 / `ratio`, by
    Kaiser's formulas, as in `julius`.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(1, 1, taps)
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * 0.6 / ratio + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    time = torch.arange(taps) - taps // 2 + (0 if taps % 2 else 0.5)
    weights = torch.kaiser_window(taps, periodic=False, beta=beta) * torch.sinc(time / ratio)
    return (weights / weights.sum()).view(1, 1, -1)


class AntiAliased(nn.Module):
    """Activation that is applied at a higher sample rate, so that added frequencies do not alias (section 3.2).

    Up-samples `[B, C, T]`, applies the activation, and down-samples to the same shape, with replicated ends.

    Args:
        activation: pointwise activation.
        up: up-sampling factor.
        down: down-sampling factor.
        up_taps: taps of the up-sampling filter.
        down_taps: taps of the down-sampling filter.
    """

    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self, activation: nn.Module, *, up: int = 2, down: int = 2, up_taps: int = 12, down_taps: int = 12
    ) -> None:
        super().__init__()
        self.activation, self.up, self.down = activation, up, down
        self.register_buffer("up_filter", low_pass(up, up_taps))
        self.register_buffer("down_filter", low_pass(down, down_taps))
        self.delay = (up_taps - up) // 2  # of the up-sampling filter, as a transposed convolution
        self.before = (down_taps - 1) // 2  # inputs of the down-sampling filter before its output

    def forward(self, x: Tensor) -> Tensor:
        channels, length = x.shape[1:]
        edge = self.up_filter.shape[2] // self.up - 1
        x = as_image(x) if is_cpu_inference(x) else x.unsqueeze(2)  # [B, C, 1, T]
        weights = (self.up * self.up_filter).expand(channels, 1, 1, -1)
        x = F.pad(x, (edge, edge, 0, 0), mode="replicate")
        x = F.conv_transpose2d(x, weights, stride=(1, self.up), groups=channels).squeeze(2)
        start = edge * self.up + self.delay
        x = self.activation(x[..., start : start + length * self.up]).unsqueeze(2)
        weights = self.down_filter.expand(channels, 1, 1, -1)
        ends = self.before, self.down_filter.shape[2] // 2, 0, 0
        x = F.pad(x, ends, mode="replicate")
        return F.conv2d(x, weights, stride=(1, self.down), groups=channels).squeeze(2)

    def input_span(self, span: Span) -> Span:
        """See `gan_audio.layers.streaming.input_span`."""
        first = span[0] * self.down - self.before
        last = span[1] * self.down - self.before + self.down_filter.shape[2] - 1
        return -((self.up_filter.shape[2] - 1 - first - self.delay) // self.up), (last + self.delay) // self.up


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
        separate: whether β of the activations is a separate parameter instead of equal to α.
        logarithmic: whether the parameters of the activations are logarithms.
        last_bias: whether the last layer has a bias; version 2 has none.
        bound: function that limits audio to [-1, 1]; version 2 clamps.
        folded: whether the weights are plain, as after `Vocoder.fold`.

    Raises:
        RecipeError: settings contradict each other.
    """

    def __init__(
        self,
        *,
        mel: MelContract = CONTRACTS["24k"],
        rates: tuple[Size, ...] = (4, 4, 2, 2, 2, 2),
        up_sizes: tuple[Size, ...] = (8, 8, 4, 4, 4, 4),
        width: Size = 1536,
        sizes: tuple[Size, ...] = (3, 7, 11),
        dilations: tuple[tuple[Size, ...], ...] = ((1, 3, 5),) * 3,
        paired: bool = True,
        separate: bool = True,
        logarithmic: bool = True,
        last_bias: bool = True,
        bound: Literal["tanh", "clamp"] = "tanh",
        folded: bool = False,
    ) -> None:
        mel = MelContract.model_validate(mel)

        def activation(channels: int, inplace: bool = False) -> nn.Module:
            return AntiAliased(Snake(channels, separate=separate, logarithmic=logarithmic))

        layers: list[nn.Module] = [same_convolution(mel.mels, width, 7)]
        channels = width
        for up, outputs in upsampling_layers(width, rates, up_sizes):
            layers += [up, receptive_field_fusion(outputs, sizes, dilations, paired=paired, activation=activation)]
            channels = outputs
        layers += [activation(channels), same_convolution(channels, 1, 7, bias=last_bias)]
        layers.append(nn.Tanh() if bound == "tanh" else nn.Hardtanh())
        super().__init__(mel, rates, layers, folded)


class ResolutionDiscriminator(ConvolutionalDiscriminator):
    """Discriminator of magnitudes `[B, 1, bins, frames]` of audio `[B, 1, T]` (section 3.3).

    The window is rectangular, as in the published code.

    Args:
        resolution: settings of the short-time Fourier transform.
        width: channels of all layers.
    """

    def __init__(self, resolution: Resolution, *, width: int = 32):
        plan = [(1, 9, 1), (width, 9, 2), (width, 9, 2), (width, 9, 2), (width, 3, 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, width, (3, size), (1, stride), padding=(1, size // 2)) for inputs, size, stride in plan
        ]
        super().__init__(layers, nn.Conv2d(width, 1, 3, padding=1))
        self.resolution = resolution

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        return super().forward(self.magnitudes(audio))

    def magnitudes(self, audio: Tensor) -> Tensor:
        """Computes magnitudes of audio `[B, 1, T]`, reflected at both ends."""
        edge = (self.resolution.fft_size - self.resolution.hop) // 2
        with torch.autocast(audio.device.type, enabled=False):
            samples = F.pad(full_precision(audio), (edge, edge), mode="reflect").squeeze(1)
            window = torch.ones(self.resolution.window, device=samples.device, dtype=samples.dtype)
            return torch.stft(samples, *self.resolution, window, center=False, return_complex=True).abs()[:, None]


class MultiResolutionDiscriminator(Discriminators):
    """Discriminators of magnitudes of audio `[B, 1, T]` at several resolutions (Jang et al. 2021, arXiv:2106.07889).

    Args:
        resolutions: FFT, hop and window sizes in samples.
        width: channels of all layers of each discriminator.
    """

    def __init__(self, *, resolutions: tuple[tuple[Size, Size, Size], ...] = RESOLUTIONS, width: Size = 32):
        super().__init__(ResolutionDiscriminator(Resolution(*sizes), width=width) for sizes in resolutions)


class BigVGAN(Vocoder):
    """BigVGAN (Lee et al. 2023, arXiv:2206.04658), with the losses of HiFi-GAN.

    Args:
        generator: maps mels `[B, mels, frames]` to audio `[B, 1, T]`.
        mpd: multi-period discriminator of audio.
        mrd: multi-resolution discriminator of audio.
        adversarial_weight: weight of the adversarial terms. The default of 2 cancels the factor ½ in `least_squares`.
        mel_weight: weight of the mel loss, λ_mel.
        stft_weight: weight of the multi-resolution STFT loss, which is not part of the paper.
    """

    def __init__(
        self,
        generator: MelGenerator,
        mpd: Adversary,
        mrd: Adversary,
        *,
        adversarial_weight: float = 2.0,
        mel_weight: float = 45.0,
        stft_weight: float = 0.0,
    ) -> None:
        super().__init__(
            generator, adversarial_weight=adversarial_weight, mel_weight=mel_weight, stft_weight=stft_weight
        )
        self.mpd, self.mrd = mpd, mrd


BIGVGAN = Preset(
    BigVGAN,
    networks={"generator": Generator, "mpd": MultiPeriodDiscriminator, "mrd": MultiResolutionDiscriminator},
    paper="arXiv:2206.04658",
    objective="least_squares",
    regularizers=[FeatureMatching(weight=2.0)],  # λ_fm
    settings={"mel_weight": 45.0},
    network={
        "mel": CONTRACTS["24k"].model_dump(),
        "rates": (4, 4, 2, 2, 2, 2),
        "up_sizes": (8, 8, 4, 4, 4, 4),
        "sizes": (3, 7, 11),
        "dilations": ((1, 3, 5),) * 3,
        "generator": {"width": 1536},
        "mpd": {"width": 32},
        "mrd": {"width": 32},
    },
    optimizer=Adam(
        learning_rate=1e-4,
        betas=(0.8, 0.99),
        weight_decay=0.01,
        clip_norm=1000.0,
        schedule=Step(every=1, factor=0.9999996),
    ),
    data={"spec": {"samples": 8192, "peak": PEAK}},
    train={"batch_size": 32, "steps": 1_000_000, "show": 8, "sample_every": 5000, "checkpoint_every": 5000},
)
BASE = BIGVGAN.but(network={"rates": (8, 8, 2, 2), "up_sizes": (16, 16, 4, 4), "generator": {"width": 512}})
SMALL = BASE.but(
    network={
        "rates": (8, 8, 4),
        "up_sizes": (16, 16, 8),
        "sizes": (3, 7),
        "dilations": ((1, 3), (1, 3)),
        "paired": False,
        "generator": {"width": 32},
        "mpd": {"periods": (2, 3, 5), "width": 4},
        "mrd": {"resolutions": ((1024, 240, 1024), (512, 120, 512)), "width": 4},
    },
    optimizer=Adam(learning_rate=5e-4, betas=(0.8, 0.99), clip_norm=1000.0),
    train={"batch_size": 4, "steps": 3000, "ema": 0.995, "sample_every": 500, "checkpoint_every": 500},
)

PRESETS = {"bigvgan": {"paper": BIGVGAN, "base": BASE, "small": SMALL}}
