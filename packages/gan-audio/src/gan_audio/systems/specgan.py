"""Sound by way of spectrograms, which are made like images.

- `specgan`: Donahue et al. 2019, arXiv:1802.04208, with the layers of its code (github.com/chrisdonahue/wavegan).

The networks make and judge log spectrograms, whose frequencies are standardised by the data; what goes in and comes out
of the game is sound. With `num_classes` both networks are told the class as WaveGAN's are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import Dataset

from gan_audio.specs import SoundSpec
from gan_audio.systems import wavegan
from gan_audio.systems.wavegan import WAVEGAN, Down, Kernel, Up, Upsampling, WaveGAN, initialize, normalised, upsampler
from gan_core.data import read
from gan_core.errors import DataError, RecipeError
from gan_core.nn.conditioning import add_class_projection, append_class
from gan_core.play.exported import Exported
from gan_core.play.game import Batch
from gan_core.play.objectives import Objective, non_saturating
from gan_core.play.preset import Preset
from gan_core.play.regularizers import Regularizer
from gan_core.recipe import Size

START = 4
"""Frames, and frequencies, at which the generator begins and the discriminator ends."""
QUIET = 1e-6
"""Added to magnitudes before their logarithm is taken."""
CLIP = 3.0
"""Deviations from a frequency's mean that are told apart; they become 1."""
STEADY = 1e-5
"""The least deviation that a frequency is divided by: one that is always silent has none."""
LEAST_WEIGHT = 0.5
"""Of overlapping windows in a sample: what two Hann windows have at least. At the ends, where there is one, it would
fall to nothing, and dividing by it would make clicks of what a made spectrogram has there."""
MOMENTUM = 0.99
"""Of the search for phases: α of Perraudin, Balazs & Søndergaard 2013, "A fast Griffin-Lim algorithm"."""
STUDIED = 10_000
"""Items that the frequencies' means and deviations are taken from, at most."""


def side(samples: int) -> int:
    """Frames, and frequencies, of the spectrogram of so many samples: their root.

    Raises:
        RecipeError: it is not 4 doubled at least twice.
    """
    root = math.isqrt(samples)
    if root * root != samples or root < 4 * START or root.bit_count() != 1:
        nearest = 4 ** max(4, round(math.log(samples, 4)))
        raise RecipeError(f"`samples` is {samples}; specgan needs a power of 4 from 256 on. Try {nearest}.")
    return root


def spectrum(audio: Tensor, size: int) -> Tensor:
    """Complex spectra of `2 · size` samples under a Hann window, every `size` samples.

    Args:
        audio: `[…, (frames + 1) · size]`.
        size: in samples.

    Returns:
        `[…, frames, size + 1]`.
    """
    hops = audio.reshape(*audio.shape[:-1], -1, size)
    frames = torch.cat([hops[..., :-1, :], hops[..., 1:, :]], dim=-1)
    return torch.fft.rfft(frames * _window(size, audio))


def overlapped(spectra: Tensor, size: int) -> Tensor:
    """The audio whose spectra are nearest to these (Griffin & Lim 1984, eq. 6).

    Args:
        spectra: `[…, frames, size + 1]`.
        size: samples between frames.

    Returns:
        `[…, (frames + 1) · size]`; it fades in and out over `size` samples.
    """
    frames = torch.fft.irfft(spectra, n=2 * size)
    window = _window(size, frames)
    weight = _sum_up(window.square().expand(frames.shape[-2], -1), size).clamp(min=LEAST_WEIGHT)
    return _sum_up(frames * window, size) / weight


def _window(size: int, like: Tensor) -> Tensor:
    return torch.hann_window(2 * size, dtype=like.dtype, device=like.device)


def _sum_up(frames: Tensor, size: int) -> Tensor:
    """Frames `[…, frames, 2 · size]`, each `size` samples after the one before, in one."""
    first, second = frames.chunk(2, dim=-1)
    return pad(first.flatten(-2), (0, size)) + pad(second.flatten(-2), (size, 0))


def griffin_lim(magnitudes: Tensor, size: int, *, iterations: int) -> Tensor:
    """Audio of a spectrogram without phases, which are sought (Griffin & Lim 1984, section III).

    It differs from the published code's search in three ways. There, sums of overlapping frames are not divided by the
    weight of their windows, which makes sounds a quarter softer and leaves them farther from the spectrogram. There,
    phases begin with 0 at the first sample of a frame, where the window lets nothing pass, so that the result follows
    the last digits of the spectrogram; here, with 0 in the frame's middle. And here every step goes on beyond its end
    (Perraudin et al. 2013).

    Args:
        magnitudes: `[…, frames, size + 1]`.
        size: samples between frames.
        iterations: of the search.

    Returns:
        `[…, (frames + 1) · size]`.
    """
    middle = 1 - 2 * (torch.arange(size + 1, device=magnitudes.device) % 2)  # e^(-2πi k size / (2 size))
    audio = overlapped(magnitudes * middle, size)
    now = ahead = spectrum(audio, size)
    for _ in range(iterations):
        audio = overlapped(magnitudes * ahead / ahead.abs().clamp(min=1e-8), size)
        before, now = now, spectrum(audio, size)
        ahead = now + MOMENTUM * (now - before)
    return audio


class Standardised(nn.Module, ABC):
    """Logarithms of magnitudes over frames and frequencies, standardised to what networks make and judge.

    Each frequency has its mean and deviation, as `measure` found them, and a deviation of `CLIP` is 1. At first all
    have mean 0 and deviation 1.

    Args:
        frequencies: how many there are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, frequencies: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(frequencies))
        self.register_buffer("deviation", torch.ones(frequencies))

    @abstractmethod
    def logarithms(self, audio: Tensor) -> Tensor:
        """Of all frequencies of audio `[B, C, samples]`: `[B, C, frames, frequencies]`."""

    def standard(self, logarithms: Tensor) -> Tensor:
        """In [-1, 1], where what deviates more is cut."""
        return ((logarithms - self.mean) / self.deviation / CLIP).clamp(-1, 1)

    def original(self, standard: Tensor) -> Tensor:
        """The logarithms of what is standardised."""
        return CLIP * standard * self.deviation + self.mean

    @torch.no_grad()
    def measure(self, sounds: Iterable[Tensor]) -> None:
        """Takes each frequency's mean and deviation from sounds, `[B, C, samples]` at a time.

        Raises:
            DataError: there are none.
        """
        count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
        for audio in sounds:
            logarithms = self.logarithms(audio).double().flatten(0, -2)
            count += len(logarithms)
            total, squares = total + logarithms.sum(dim=0), squares + logarithms.square().sum(dim=0)
        if count == 0:
            raise DataError("there are no sounds to standardise spectrograms by; give at least one")
        mean = total / count
        self.mean.copy_(mean)
        self.deviation.copy_((squares / count - mean.square()).clamp(min=STEADY**2).sqrt())


class Spectrogram(Standardised):
    """Audio `[B, C, samples]` to log spectrograms `[B, C, size, size]` (frames, frequencies) in [-1, 1], and back.

    A frame is `2 · size` samples under a Hann window, every `size` samples; silence follows the last sample. The
    highest frequency is left out.

    Args:
        size: frames, frequencies, and samples between frames: 128 in the paper, 8 ms at 16 kHz.
    """

    def __init__(self, size: int):
        super().__init__(size + 1)
        self.size = size

    def forward(self, audio: Tensor) -> Tensor:
        return self.standard(self.logarithms(audio))[..., :-1]

    def logarithms(self, audio: Tensor) -> Tensor:
        return torch.log(spectrum(pad(audio, (0, self.size)), self.size).abs() + QUIET)

    def inverse(self, spectrograms: Tensor, *, iterations: int) -> Tensor:
        """Audio `[B, C, samples]` in [-1, 1] of spectrograms `[B, C, size, size]`; the highest frequency has its mean.

        Args:
            spectrograms: in [-1, 1].
            iterations: of Griffin and Lim's search for phases.
        """
        return griffin_lim(self.original(pad(spectrograms, (0, 1))).exp(), self.size, iterations=iterations)[
            ..., : -self.size
        ].clamp(-1, 1)


class SpectrogramGenerator(nn.Module):
    """`z [B, latent_dim]` in [-1, 1] and a class to `[B, channels, frames, frequencies]` in [-1, 1].

    Args:
        start: frames and frequencies at which it begins.
        layers: that each double both.
        channels: of the audio.
        latent_dim: of z.
        width: channels before the last layer; every layer towards the latent has twice as many.
        kernel: height and width of every layer's filters.
        upsampling: how the layers come by further frames and frequencies.
        num_classes: number of classes; None for a generator without classes.
        batch_norm: whether it normalises.
    """

    def __init__(
        self,
        start: tuple[int, int],
        layers: int,
        *,
        channels: int,
        latent_dim: int,
        width: int,
        kernel: int,
        upsampling: Upsampling,
        num_classes: int | None,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        widths = [width << layer for layer in reversed(range(layers))]
        self.latent_dim, self.num_classes, self.begins = latent_dim, num_classes, start
        self.project = nn.Linear(latent_dim + (num_classes or 0), widths[0] * start[0] * start[1])
        self.start = nn.Sequential(normalised(widths[0], batch_norm, ndim=2), nn.ReLU())
        ups = [
            Up(a, b, kernel, stride=2, upsampling=upsampling, batch_norm=batch_norm, ndim=2)
            for a, b in pairwise(widths)
        ]
        self.up = nn.Sequential(*ups)
        last = upsampler(width, channels, kernel, stride=2, upsampling=upsampling, ndim=2)
        self.to_spectrogram = nn.Sequential(last, nn.Tanh())
        self.apply(initialize)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        z = append_class(z, label, self.num_classes)
        x = self.start(self.project(z).unflatten(1, (-1, *self.begins)))
        return self.to_spectrogram(self.up(x))


class SpectrogramDiscriminator(nn.Module):
    """Spectrograms `[B, channels, frames, frequencies]` and a class to logits `[B]`.

    Args:
        end: frames and frequencies at which it ends.
        layers: that each halve both.
        channels: of the audio.
        width: channels after the first layer; every further one has twice as many.
        kernel: height and width of every layer's filters.
        num_classes: number of classes; None for a discriminator without classes.
        batch_norm: whether all layers but the first normalise, always with the batch's own statistics.
    """

    def __init__(
        self,
        end: tuple[int, int],
        layers: int,
        *,
        channels: int,
        width: int,
        kernel: int,
        num_classes: int | None,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        widths = [channels, *(width << layer for layer in range(layers))]
        self.num_classes = num_classes
        downs = [
            Down(a, b, kernel, stride=2, batch_norm=batch_norm and layer > 0, ndim=2)
            for layer, (a, b) in enumerate(pairwise(widths))
        ]
        self.down = nn.Sequential(*downs)
        self.judge = nn.Linear(widths[-1] * end[0] * end[1], 1)
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, widths[-1])
        self.apply(initialize)

    def forward(self, spectrograms: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.down(spectrograms)
        logits = self.judge(features.flatten(1)).flatten()
        return add_class_projection(logits, features, label, self.embedding)


class Generator(SpectrogramGenerator):
    """`z [B, latent_dim]` in [-1, 1] and a class to spectrograms `[B, channels, size, size]` in [-1, 1].

    Args:
        samples: of a sound, the square of the spectrogram's `size`: a power of 4 from 256 on, in the paper 16,384.
        channels: see `SpectrogramGenerator`, as all others.
    """

    def __init__(
        self,
        *,
        samples: Size = 16_384,
        channels: Size = 1,
        latent_dim: Size = 100,
        width: Size = 64,
        kernel: Kernel = 5,
        upsampling: Upsampling = "zeros",
        num_classes: Size | None = None,
        batch_norm: bool = False,
    ):
        size = side(samples)
        super().__init__(
            (START, START),
            doublings_of(size),
            channels=channels,
            latent_dim=latent_dim,
            width=width,
            kernel=kernel,
            upsampling=upsampling,
            num_classes=num_classes,
            batch_norm=batch_norm,
        )
        self.size, self.data_spec = size, SoundSpec(samples=samples, channels=channels)


class Discriminator(SpectrogramDiscriminator):
    """Spectrograms `[B, channels, size, size]` and a class to logits `[B]`.

    Args:
        samples: of a sound, the square of the spectrogram's `size`: a power of 4 from 256 on.
        channels: see `SpectrogramDiscriminator`, as all others.
    """

    def __init__(
        self,
        *,
        samples: Size = 16_384,
        channels: Size = 1,
        width: Size = 64,
        kernel: Kernel = 5,
        num_classes: Size | None = None,
        batch_norm: bool = False,
    ):
        super().__init__(
            (START, START),
            doublings_of(side(samples)),
            channels=channels,
            width=width,
            kernel=kernel,
            num_classes=num_classes,
            batch_norm=batch_norm,
        )


def doublings_of(size: int) -> int:
    """Layers between `START` and a spectrogram's size."""
    return (size // START).bit_length() - 1


class SpectrogramGAN(WaveGAN):
    """WaveGAN's game, played on spectrograms that are standardised by the data (Donahue et al. 2019, section 3.4).

    Args:
        generator: of spectrograms.
        discriminator: of spectrograms.
        spectrogram: sounds to what the discriminator judges.
        objective: what both minimise.
        regularizers: what steadies them; they see spectrograms.
    """

    images: ClassVar[bool] = False  # but time and frequency

    def __init__(
        self,
        generator: SpectrogramGenerator,
        discriminator: SpectrogramDiscriminator,
        spectrogram: Standardised,
        *,
        objective: Objective,
        regularizers: Sequence[Regularizer],
    ) -> None:
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.spectrogram = spectrogram

    def study(self, training: Dataset[Batch]) -> None:
        """Standardises spectrograms by the data of a training, before its first step."""
        length = len(training)  # type: ignore[arg-type]  # every dataset here has one
        some = range(0, length, -(-length // STUDIED))
        audio_of = super().real
        self.spectrogram.measure(audio_of(batch)[0] for batch in read(training, some, 64))

    def exports(self) -> dict[str, Exported]:
        """Returns the generator of standardised spectrograms, without the inversion to sound."""
        made = super().exports()["generator"]
        spectrograms = {"spectrograms": "[-1, 1], standardised by the training data"}
        return {"generator": replace(made, outputs=spectrograms)}

    def real(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        audio, condition = super().real(batch)
        return self.spectrogram(audio), condition


class SpecGAN(SpectrogramGAN):
    """WaveGAN's game, played on spectrograms (Donahue et al. 2019, arXiv:1802.04208).

    Args:
        generator: of spectrograms.
        discriminator: of spectrograms.
        objective: what both minimise.
        regularizers: what steadies them; they see spectrograms.
        iterations: of Griffin and Lim's search for the phases of a sound.
    """

    spectrogram: Spectrogram

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        objective: Objective = non_saturating,
        regularizers: Sequence[Regularizer] = (),
        iterations: Size = 16,
    ) -> None:
        seen = Spectrogram(generator.size)
        super().__init__(generator, discriminator, seen, objective=objective, regularizers=regularizers)
        self.iterations = iterations

    def finish(self, fakes: Tensor) -> Tensor:
        return self.spectrogram.inverse(fakes, iterations=self.iterations)


SPECGAN = WAVEGAN.but(game=SpecGAN, networks={"generator": Generator, "discriminator": Discriminator})
SMALL = wavegan.SMALL.but(game=SPECGAN.game, networks=SPECGAN.networks)

PRESETS: dict[str, dict[str, Preset]] = {"specgan": {"paper": SPECGAN, "small": SMALL}}
