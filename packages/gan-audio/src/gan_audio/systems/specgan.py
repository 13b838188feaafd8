"""SpecGAN: sounds from generated log spectrograms.

- `specgan`: Donahue et al. 2019, arXiv:1802.04208, with the layers of the published code
  (github.com/chrisdonahue/wavegan).

The networks generate and judge log spectrograms that are standardised per frequency and, as published, clipped at three
standard deviations. The game's inputs and samples are
sounds. `num_classes` conditions both networks as in WaveGAN.
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

from gan_audio.layers.griffin_lim import griffin_lim, spectrum
from gan_audio.layers.strided import Down, Kernel, Up, Upsampling, batch_norm_if, initialize, upsampler
from gan_audio.sound.spec import SoundSpec
from gan_audio.systems import wavegan
from gan_audio.systems.wavegan import WAVEGAN, WaveGAN
from gan_core.data import Batch, read
from gan_core.errors import DataError, RecipeError
from gan_core.nn.conditioning import add_class_projection, append_class
from gan_core.play.exported import Exported
from gan_core.play.objectives import Objective, non_saturating
from gan_core.play.preset import Preset
from gan_core.play.regularizers import Regularizer
from gan_core.recipe import Size

START = 4
"""Number of frames and frequencies of the generator's first and the discriminator's last features."""
MAGNITUDE_EPSILON = 1e-6
"""Value added to magnitudes before the logarithm."""
CLIP = 3.0
"""Number of standard deviations that are scaled to 1. Larger deviations are clipped."""
MIN_DEVIATION = 1e-5
"""Lower bound of a frequency's standard deviation, which is 0 for a frequency that is always silent."""
MAX_MEASURED = 10_000
"""Maximum number of items from which means and standard deviations are computed."""


def side(samples: int) -> int:
    """Returns the number of frames and of frequencies of a spectrogram: the square root of its samples.

    Raises:
        RecipeError: `samples` is not a power of 4 of at least 256.
    """
    root = math.isqrt(samples)
    if root * root != samples or root < 4 * START or root.bit_count() != 1:
        nearest = 4 ** max(4, round(math.log(samples, 4)))
        raise RecipeError(f"`samples` is {samples}; expected a power of 4 of at least 256. Try {nearest}.")
    return root


class Standardised(nn.Module, ABC):
    """Base class of log spectrograms that are standardised per frequency to [-1, 1].

    `CLIP` standard deviations are scaled to 1. Means are 0 and standard deviations 1 until `measure` is called.

    Args:
        frequencies: number of frequencies.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, frequencies: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(frequencies))
        self.register_buffer("deviation", torch.ones(frequencies))

    @abstractmethod
    def logarithms(self, audio: Tensor) -> Tensor:
        """Computes log magnitudes `[B, C, frames, frequencies]` of audio `[B, C, samples]`."""

    def standard(self, logarithms: Tensor) -> Tensor:
        """Standardises log magnitudes and clips them to [-1, 1]."""
        return ((logarithms - self.mean) / self.deviation / CLIP).clamp(-1, 1)

    def original(self, standard: Tensor) -> Tensor:
        """Inverts `standard`: returns log magnitudes."""
        return CLIP * standard * self.deviation + self.mean

    @torch.no_grad()
    def measure(self, sounds: Iterable[Tensor]) -> None:
        """Sets the mean and standard deviation of each frequency to those of sounds.

        Args:
            sounds: batches `[B, C, samples]`.

        Raises:
            DataError: there are no sounds.
        """
        count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
        for audio in sounds:
            logarithms = self.logarithms(audio).double().flatten(0, -2)
            count += len(logarithms)
            total, squares = total + logarithms.sum(dim=0), squares + logarithms.square().sum(dim=0)
        if count == 0:
            raise DataError("there are no sounds to compute the statistics of spectrograms from; expected at least one")
        mean = total / count
        self.mean.copy_(mean)
        self.deviation.copy_((squares / count - mean.square()).clamp(min=MIN_DEVIATION**2).sqrt())


class Spectrogram(Standardised):
    """Standardised log spectrograms `[B, C, size, size]` (frames, frequencies) of audio `[B, C, samples]`.

    Frames have `2 * size` samples under a Hann window and are `size` samples apart. The audio is padded with zeros at
    its end, and the highest frequency is dropped.

    Args:
        size: number of frames and of frequencies, and samples between frames: 128 in the paper, 8 ms at 16 kHz.
    """

    def __init__(self, size: int):
        super().__init__(size + 1)
        self.size = size

    def forward(self, audio: Tensor) -> Tensor:
        return self.standard(self.logarithms(audio))[..., :-1]

    def logarithms(self, audio: Tensor) -> Tensor:
        return torch.log(spectrum(pad(audio, (0, self.size)), self.size).abs() + MAGNITUDE_EPSILON)

    def inverse(self, spectrograms: Tensor, *, iterations: int) -> Tensor:
        """Reconstructs audio `[B, C, samples]` in [-1, 1]; the highest frequency is set to its mean.

        Args:
            spectrograms: `[B, C, size, size]` in [-1, 1].
            iterations: number of Griffin-Lim iterations.
        """
        magnitudes = self.original(pad(spectrograms, (0, 1))).exp()
        return griffin_lim(magnitudes, self.size, iterations=iterations)[..., : -self.size].clamp(-1, 1)


class SpectrogramGenerator(nn.Module):
    """`z [B, latent_dim]` in [-1, 1] and a class to `[B, channels, frames, frequencies]` in [-1, 1].

    Args:
        start: number of frames and frequencies of the first features.
        layers: number of layers, each of which doubles both.
        channels: audio channels.
        latent_dim: size of z.
        width: channels before the last layer, doubled at each earlier layer.
        kernel: height and width of every layer's filters.
        upsampling: method of up-sampling.
        num_classes: number of classes; None for a generator without classes.
        batch_norm: whether to use batch normalisation.
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
        self.latent_dim, self.num_classes, self.start_size = latent_dim, num_classes, start
        self.project = nn.Linear(latent_dim + (num_classes or 0), widths[0] * start[0] * start[1])
        self.start = nn.Sequential(batch_norm_if(batch_norm, widths[0], ndim=2), nn.ReLU())
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
        x = self.start(self.project(z).unflatten(1, (-1, *self.start_size)))
        return self.to_spectrogram(self.up(x))


class SpectrogramDiscriminator(nn.Module):
    """Spectrograms `[B, channels, frames, frequencies]` and a class to logits `[B]`.

    Args:
        end: number of frames and frequencies of the last features.
        layers: number of layers, each of which halves both.
        channels: audio channels.
        width: channels after the first layer, doubled at each further layer.
        kernel: height and width of every layer's filters.
        num_classes: number of classes; None for a discriminator without classes.
        batch_norm: whether all layers but the first use batch normalisation, always with the batch's statistics.
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
        samples: length of a sound, the square of the spectrogram's size: a power of 4 of at least 256 (paper: 16,384).
        channels: see `SpectrogramGenerator` for this and all other settings.
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
        samples: length of a sound, the square of the spectrogram's size: a power of 4 of at least 256.
        channels: see `SpectrogramDiscriminator` for this and all other settings.
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
    """Returns the number of layers between `START` and a spectrogram's size."""
    return (size // START).bit_length() - 1


class SpectrogramGAN(WaveGAN):
    """WaveGAN's game on standardised spectrograms (Donahue et al. 2019, section 3.4).

    Args:
        generator: generator of standardised spectrograms.
        discriminator: discriminator of standardised spectrograms.
        spectrogram: transform from sounds to standardised spectrograms.
        objective: adversarial losses of both players.
        regularizers: regularizers, which are applied to spectrograms.
    """

    images: ClassVar[bool] = False  # the axes are time and frequency

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
        """Computes the means and standard deviations of the training data, before the first step."""
        length = len(training)  # type: ignore[arg-type]  # all datasets here have a length
        indices = range(0, length, -(-length // MAX_MEASURED))
        audio_of = super().real
        self.spectrogram.measure(audio_of(batch)[0] for batch in read(training, indices, 64))

    def exports(self) -> dict[str, Exported]:
        """Returns the generator of standardised spectrograms, without the inversion to sound."""
        made = super().exports()["generator"]
        spectrograms = {"spectrograms": "[-1, 1], standardised by the training data"}
        return {"generator": replace(made, outputs=spectrograms)}

    def real(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        audio, condition = super().real(batch)
        return self.spectrogram(audio), condition


class SpecGAN(SpectrogramGAN):
    """WaveGAN's game on spectrograms (Donahue et al. 2019, arXiv:1802.04208).

    Args:
        generator: generator of standardised spectrograms.
        discriminator: discriminator of standardised spectrograms.
        objective: adversarial losses of both players.
        regularizers: regularizers, which are applied to spectrograms.
        iterations: number of Griffin-Lim iterations per sound.
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
        spectrogram = Spectrogram(generator.size)
        super().__init__(generator, discriminator, spectrogram, objective=objective, regularizers=regularizers)
        self.iterations = iterations

    def finish(self, fakes: Tensor) -> Tensor:
        return self.spectrogram.inverse(fakes, iterations=self.iterations)


SPECGAN = WAVEGAN.but(game=SpecGAN, networks={"generator": Generator, "discriminator": Discriminator})
SMALL = wavegan.SMALL.but(game=SPECGAN.game, networks=SPECGAN.networks)

PRESETS: dict[str, dict[str, Preset]] = {"specgan": {"paper": SPECGAN, "small": SMALL}}
