"""A small convolutional classifier of sounds, for measures that need to know what a sound is, and what it looks at."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_audio.mel.contract import MelContract, MelSpectrogram
from gan_audio.sound.spectrogram import frame_size
from gan_core.data import BatchStream, TensorDataset
from gan_core.measure.classification import learn, split

BANDS, FRAMES = 64, 64
"""Of a log-mel spectrogram: mel bands, and frames at most."""
WIDTH = 12
STEPS, BATCH = 400, 32
RATE = 4e-3
"""The highest of the cycle."""
SHIFT, GAIN = 2, 0.35
"""A learnt sound is moved by up to so many frames, and made louder or softer by up to so many nepers (3 dB)."""
AT_ONCE = 256
"""Sounds that are looked at together."""


class LogMel(nn.Module):
    """Sounds `[B, channels, samples]` to log-mel spectrograms `[B, BANDS, frames]` of their mean channel.

    Frames are about 32 ms long and overlap by three quarters, or less where there would be more than `FRAMES`.

    Args:
        samples: of a sound.
        sample_rate: in Hz.
    """

    def __init__(self, samples: int, sample_rate: int):
        super().__init__()
        size = min(frame_size(sample_rate), 1 << (samples.bit_length() - 1))
        hop = max(1, size // 4)
        while samples // hop > FRAMES:
            hop *= 2
        size = max(size, hop)
        self.contract = MelContract(sample_rate=sample_rate, fft_size=size, hop=hop, window=size, mels=BANDS)
        self.mel = MelSpectrogram(self.contract)

    def forward(self, audio: Tensor) -> Tensor:
        mono = audio.float().mean(dim=1, keepdim=True).clamp(-1, 1)
        return torch.cat([self.mel(part) for part in torch.split(mono, AT_ONCE)])


class Classifier(nn.Module):
    """Log-mel spectrograms `[B, BANDS, frames]` to logits `[B, num_classes]`, wherever in time the sound is.

    Args:
        look: sounds to spectrograms.
        mean: of the spectrograms that it learns.
        deviation: of these.
        num_classes: how many there are.
    """

    def __init__(self, look: LogMel, mean: float, deviation: float, num_classes: int):
        super().__init__()
        self.look, self.mean, self.deviation = look, mean, deviation
        widths = [1, WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.judge = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(widths[-1] * BANDS // 16, num_classes))

    def forward(self, bands: Tensor) -> Tensor:
        logits: Tensor = self.judge(self.maps(bands).mean(dim=3))
        return logits

    def maps(self, bands: Tensor) -> Tensor:
        """The last convolution's `[B, 4 WIDTH, BANDS / 16, frames / 16]`."""
        maps: Tensor = self.convolutions(((bands - self.mean) / self.deviation).unsqueeze(1))
        return maps

    def features_of(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Of sounds: the means over places of the last convolution `[B, 4 WIDTH]`, and the logits."""
        maps = self.maps(self.look(audio))
        return maps.mean(dim=(2, 3)), self.judge(maps.mean(dim=3))


def learn_classes(audio: Tensor, labels: Tensor, *, num_classes: int, sample_rate: int) -> tuple[Classifier, float]:
    """A network that tells the classes of sounds, learnt on three quarters of them; the same for the same sounds.

    It hears each sound a little earlier or later and louder or softer, as samples are not placed as exactly as data.

    Args:
        audio: `[N, channels, samples]` in [-1, 1].
        labels: `[N]`.
        num_classes: how many there are.
        sample_rate: in Hz.

    Returns:
        The network in evaluation mode, and its accuracy on the last quarter.
    """
    rows = split(labels)
    look = LogMel(audio.shape[-1], sample_rate)
    bands = look(audio)
    train, test = (TensorDataset({"bands": bands[part], "label": labels[part]}) for part in rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(look, float(bands.mean()), float(bands.std()), num_classes)
        batches = BatchStream(train, BATCH, seed=0)

        def draw() -> tuple[Tensor, Tensor]:
            batch = next(batches)
            return _moved(batch["bands"]), batch["label"]

        learn(network, draw, steps=STEPS, rate=RATE)
    with torch.no_grad():
        taken = torch.cat([network(part).argmax(dim=1) for part in torch.split(test.tensors["bands"], AT_ONCE)])
    return network, float((taken == test.tensors["label"]).double().mean())


def recognise(network: Classifier, audio: Tensor) -> Tensor:
    """The classes `[N]` that a network takes sounds `[N, channels, samples]` for."""
    with torch.no_grad():
        return torch.cat([network.features_of(part)[1].argmax(dim=1) for part in torch.split(audio, AT_ONCE)])


def _moved(bands: Tensor) -> Tensor:
    """Each spectrogram earlier or later, its ends repeated, and louder or softer."""
    frames = bands.shape[2]
    by = torch.randint(-SHIFT, SHIFT + 1, (len(bands), 1))
    at = (torch.arange(frames) + by).clamp(0, frames - 1)[:, None].expand(-1, BANDS, -1)
    louder = (2 * torch.rand(len(bands), 1, 1) - 1) * GAIN
    return bands.gather(2, at) + louder
