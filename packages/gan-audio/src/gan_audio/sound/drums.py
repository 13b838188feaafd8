"""Synthesized drum sounds: kick, snare, hat, tom and clap, each with random pitch, decay, noise and level.

They are simple models of analogue drum machines: oscillators with a falling pitch, band-limited noise, and envelopes
that decay exponentially. A sound depends only on its number, the sample rate and its length. Its label is the number
modulo 5. At another sample rate, the same number gives the same drum with different noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]

DRUMS = ("kick", "snare", "hat", "tom", "clap")
"""Names of the classes."""
RATE, SAMPLES = 16_000, 8192
"""Default sample rate in Hz, and default length in samples."""
LONGEST = 1.0
"""Maximum duration of a sound in seconds."""
PARAMETERS = 8
"""Number of random parameters of a sound."""
FADE = 0.04
"""Duration in seconds of the fade at the end."""
METAL = (1.0, 1.342, 1.2312, 1.6532, 1.9523, 2.1523)
"""Frequency ratios of the six oscillators of a hat; like the partials of a cymbal, they are not harmonic."""
BATCH = 256
"""Number of sounds that are synthesized at once."""


def make_drums(numbers: Sequence[int], *, samples: int = SAMPLES, sample_rate: int = RATE) -> tuple[Tensor, Tensor]:
    """Synthesizes drum sounds by their numbers.

    Args:
        numbers: numbers of the sounds, from 0.
        samples: length of each sound in samples; it is silent after `LONGEST` seconds.
        sample_rate: sample rate in Hz. Frequencies above half of it are left out.

    Returns:
        Sounds `[N, 1, samples]` in [-1, 1], and labels `[N]`, indices in `DRUMS`.
    """
    which = np.asarray(numbers, dtype=np.int64)
    audio = np.zeros((len(which), samples), dtype=np.float32)
    sounding = min(samples, round(LONGEST * sample_rate))
    for label, make in enumerate((_kick, _snare, _hat, _tom, _clap)):
        rows = np.flatnonzero(which % len(DRUMS) == label)
        for part in np.array_split(rows, -(-len(rows) // BATCH) or 1):
            if len(part):
                draw = Draws(which[part], sounding, sample_rate)
                audio[part, :sounding] = _finished(make(draw), draw.between(0.35, 0.95), sample_rate)
    return torch.from_numpy(audio).unsqueeze(1), torch.from_numpy(which % len(DRUMS))


class Draws:
    """Random parameters and noise of several sounds of one kind.

    Args:
        numbers: numbers of the sounds, `[N]`, which seed their random generators.
        length: length T in samples.
        sample_rate: sample rate in Hz.

    Attributes:
        time: time of each sample in seconds, `[1, T]`.
        nyquist: half the sample rate, in Hz.
        noise: normally distributed noise, `[N, T]`.
    """

    def __init__(self, numbers: NDArray[np.int64], length: int, sample_rate: int):
        random = [np.random.default_rng(int(number)) for number in numbers]
        self._drawn = iter(np.stack([each.random(PARAMETERS, dtype=np.float32) for each in random]).T[:, :, None])
        self.noise = np.stack([each.standard_normal(length, dtype=np.float32) for each in random])
        self.time = np.arange(length, dtype=np.float32)[None] / np.float32(sample_rate)
        self.nyquist = sample_rate / 2

    def between(self, low: float, high: float) -> Array:
        """Draws the next random parameter of each sound, `[N, 1]`, uniform on a logarithmic scale."""
        ratio: Array = np.float32(low) * np.float32(high / low) ** next(self._drawn)
        return ratio

    def decay(self, seconds: Any) -> Array:
        """Returns an envelope that decays to 1/e in the given time."""
        envelope: Array = np.exp(-self.time / seconds)
        return envelope

    def tone(self, hz: Any) -> Array:
        """Returns a sine, or silence if its frequency is above half the sample rate."""
        wave: Array = np.sin(2 * np.pi * hz * self.time) * (np.asarray(hz) < self.nyquist)
        return wave.astype(np.float32)

    def falling(self, first: Array, last: Array, seconds: Array) -> Array:
        """Returns a sine whose frequency falls exponentially from `first` to `last` (in Hz)."""
        cycles = last * self.time + (first - last) * seconds * (1 - self.decay(seconds))
        wave: Array = np.sin(2 * np.pi * cycles)
        return wave

    def band(self, low: Any, high: Any) -> Array:
        """Returns the noise between two frequencies in Hz, with slopes of an octave, scaled to a mean square of 1."""
        spectrum = np.fft.rfft(self.noise)
        hz = np.fft.rfftfreq(self.noise.shape[1]).astype(np.float32)[None] * np.float32(2 * self.nyquist)
        low = np.minimum(low, 0.8 * self.nyquist)
        octaves = np.log2(np.maximum(hz, 1.0))
        rise, fall = octaves - np.log2(low) + 1, np.log2(high) - octaves + 1
        shaped = np.fft.irfft(spectrum * np.clip(np.minimum(rise, fall), 0, 1), n=self.noise.shape[1])
        scaled: Array = (shaped / np.sqrt(np.square(shaped).mean(axis=1, keepdims=True) + 1e-12)).astype(np.float32)
        return scaled


def _kick(draw: Draws) -> Array:
    """Returns kicks: a sine that falls to the lowest notes, and a click."""
    first, last, fall = draw.between(120, 400), draw.between(38, 65), draw.between(0.015, 0.06)
    body = draw.falling(first, last, fall) * draw.decay(draw.between(0.08, 0.3))
    click = draw.band(800, 5000) * draw.decay(0.003)
    driven: Array = np.tanh(draw.between(1, 4) * body) + draw.between(0.02, 0.3) * click
    return driven


def _snare(draw: Draws) -> Array:
    """Returns snares: two modes of the drumhead, and the noise of the snare wires."""
    hz, ring, rattle = draw.between(150, 260), draw.between(0.04, 0.1), draw.between(0.06, 0.22)
    head = draw.tone(hz) + 0.6 * draw.tone(1.59 * hz)  # first two modes of an ideal membrane
    noise = draw.band(draw.between(800, 2500), draw.between(5000, 9000)) * draw.decay(rattle)
    mixed: Array = draw.between(0.4, 1.2) * head * draw.decay(ring) + draw.between(0.2, 0.5) * noise
    return mixed


def _hat(draw: Draws) -> Array:
    """Returns hats: six inharmonic oscillators and high noise, from short (closed) to long (open)."""
    hz, length, edge = draw.between(3000, 4500), draw.between(0.015, 0.25), draw.between(3500, 6500)
    metal = sum((draw.tone(ratio * hz) for ratio in METAL), np.zeros_like(draw.noise))
    mixed: Array = (draw.between(0.15, 0.7) * metal + 0.5 * draw.band(edge, 16_000)) * draw.decay(length)
    return mixed


def _tom(draw: Draws) -> Array:
    """Returns toms: two modes of a drumhead whose pitch falls slightly, and the stick."""
    hz, bend, fall = draw.between(75, 220), draw.between(1.15, 1.7), draw.between(0.03, 0.1)
    ring = draw.between(0.1, 0.35)
    head = draw.falling(bend * hz, hz, fall) * draw.decay(ring)
    second = draw.falling(1.59 * bend * hz, 1.59 * hz, fall) * draw.decay(0.4 * ring)
    stick = draw.band(500, 4000) * draw.decay(0.008)
    mixed: Array = head + draw.between(0.1, 0.5) * second + draw.between(0.03, 0.2) * stick
    return mixed


def _clap(draw: Draws) -> Array:
    """Returns claps: mid-range noise in two or three short bursts and a longer one, as of several hands."""
    middle, width, apart = draw.between(900, 2200), draw.between(1.3, 2.5), draw.between(0.007, 0.014)
    burst, tail, four = draw.between(0.003, 0.007), draw.between(0.04, 0.16), draw.between(1, 4) > 2
    last = np.where(four, 3, 2) * apart
    late = draw.time - last
    envelope = np.where(late >= 0, np.exp(-np.maximum(late, 0) / tail), 0)
    for k in range(3):
        since = draw.time - k * apart
        envelope += np.where((since >= 0) & (late < 0), np.exp(-np.maximum(since, 0) / burst), 0)
    clapped: Array = draw.band(middle / width, middle * width) * envelope.astype(np.float32)
    return clapped


def _finished(audio: Array, level: Array, sample_rate: int) -> Array:
    """Returns sounds that are faded at the end and scaled to a peak level."""
    fade = np.minimum(1, np.arange(audio.shape[1], 0, -1, dtype=np.float32) / (FADE * sample_rate))
    faded = audio * np.square(np.sin(np.pi / 2 * fade))
    done: Array = (faded / np.abs(faded).max(axis=1, keepdims=True) * level).astype(np.float32)
    return done
