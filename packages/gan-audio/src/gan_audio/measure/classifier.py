"""A small convolutional classifier of sounds, trained on the data's labels, and its log-mel spectrograms."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_audio.mel.contract import MelContract, MelSpectrogram
from gan_audio.sound.spectrogram import frame_size
from gan_core.measure.classification import AT_ONCE, learn_classes
from gan_core.measure.features import Features

BANDS, MAX_FRAMES = 64, 64
"""Number of mel bands, and maximum number of frames, of a log-mel spectrogram."""
WIDTH = 12
"""Number of channels of the first convolution."""
STEPS, BATCH_SIZE = 400, 32
"""Number of training steps, and batch size."""
LEARNING_RATE = 4e-3
"""Highest learning rate of the cycle."""
SHIFT, GAIN = 2, 0.35
"""Maximum shift in frames, and maximum change of level in nepers (3 dB), of training sounds."""


class LogMel(nn.Module):
    """Log-mel spectrograms `[B, BANDS, frames]` of the mean channel of sounds `[B, channels, samples]`.

    Frames are about 32 ms long and overlap by three quarters, or by less if there would be more than `MAX_FRAMES`.

    Args:
        samples: length of the sounds in samples.
        sample_rate: in Hz.
    """

    def __init__(self, samples: int, sample_rate: int):
        super().__init__()
        size = min(frame_size(sample_rate), 1 << (samples.bit_length() - 1))
        hop = max(1, size // 4)
        while samples // hop > MAX_FRAMES:
            hop *= 2
        size = max(size, hop)
        self.contract = MelContract(sample_rate=sample_rate, fft_size=size, hop=hop, window=size, mels=BANDS)
        self.mel = MelSpectrogram(self.contract)

    def forward(self, audio: Tensor) -> Tensor:
        mono = audio.float().mean(dim=1, keepdim=True).clamp(-1, 1)
        return torch.cat([self.mel(part) for part in torch.split(mono, AT_ONCE)])


class SoundClassifier(nn.Module):
    """A classifier with four convolutions, the mean over time, and a linear layer.

    Args:
        spectrogram: computes the spectrograms of sounds.
        mean: mean of the training spectrograms.
        deviation: standard deviation of the training spectrograms.
        num_classes: number of classes.
    """

    def __init__(self, spectrogram: LogMel, mean: float, deviation: float, num_classes: int):
        super().__init__()
        self.spectrogram, self.mean, self.deviation = spectrogram, mean, deviation
        widths = [1, WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.judge = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(widths[-1] * BANDS // 16, num_classes))

    def forward(self, bands: Tensor) -> Tensor:
        """Returns the logits `[B, num_classes]` of log-mel spectrograms `[B, BANDS, frames]`."""
        logits: Tensor = self.judge(self._maps(bands).mean(dim=3))
        return logits

    def features(self, audio: Tensor) -> Features:
        """Returns the means of the last convolution, `[B, 4 WIDTH]`, and the logits.

        Args:
            audio: `[B, channels, samples]`.
        """
        maps = self._maps(self.spectrogram(audio))
        return Features(maps.mean(dim=(2, 3)), self.judge(maps.mean(dim=3)))

    def _maps(self, bands: Tensor) -> Tensor:
        """Returns the last convolution's output, `[B, 4 WIDTH, BANDS / 16, frames / 16]`."""
        maps: Tensor = self.convolutions(((bands - self.mean) / self.deviation).unsqueeze(1))
        return maps


def learn_sound_classes(
    audio: Tensor, labels: Tensor, *, num_classes: int, sample_rate: int
) -> tuple[SoundClassifier, float]:
    """Trains a classifier of sounds; equal sounds give equal weights.

    Training sounds are randomly shifted in time and changed in level, because generated sounds are not aligned as
    precisely as the data.

    Args:
        audio: `[N, channels, samples]` in [-1, 1].
        labels: classes `[N]`.
        num_classes: number of classes.
        sample_rate: in Hz.

    Returns:
        The classifier in evaluation mode, and its accuracy on a held-out quarter of the sounds.

    Raises:
        InputError: there are too few sounds, or a class has only one.
    """
    spectrogram = LogMel(audio.shape[-1], sample_rate)
    bands = spectrogram(audio)
    return learn_classes(
        lambda: SoundClassifier(spectrogram, float(bands.mean()), float(bands.std()), num_classes),
        bands,
        labels,
        augment=_changed,
        steps=STEPS,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
    )


def _changed(bands: Tensor) -> Tensor:
    """Shifts each spectrogram in time, with the end frames repeated, and changes its level, both at random."""
    frames = bands.shape[2]
    by = torch.randint(-SHIFT, SHIFT + 1, (len(bands), 1))
    at = (torch.arange(frames) + by).clamp(0, frames - 1)[:, None].expand(-1, BANDS, -1)
    louder = (2 * torch.rand(len(bands), 1, 1) - 1) * GAIN
    return bands.gather(2, at) + louder
