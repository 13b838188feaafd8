"""Drum sounds made by rule: kick, snare, hat, tom and clap, each of its own pitch, decay, noise and level.

They are small models of analogue drum machines, in their usual parts: oscillators whose pitch falls, bands of noise,
and envelopes that decay exponentially. A sound depends on its number, the rate and its length alone; its label is the
number's remainder by 5. Sounds of one number at different rates are the same drum with other noise.
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
RATE, SAMPLES = 16_000, 8192
"""In Hz, and of a sound: what they are made at unless something else is asked for."""
LONGEST = 1.0
"""Seconds after which every sound is over."""
PARAMETERS = 8
"""Random numbers that a sound is shaped by."""
FADE = 0.04
"""Seconds over which a sound that is cut ends."""
METAL = (1.0, 1.342, 1.2312, 1.6532, 1.9523, 2.1523)
"""Ratios of a hat's six oscillators: like a cymbal's partials, those of no note."""
AT_ONCE = 256
"""Sounds that are made together."""


def make_drums(numbers: Sequence[int], *, samples: int = SAMPLES, sample_rate: int = RATE) -> tuple[Tensor, Tensor]:
    """Drum sounds by their numbers.

    Args:
        numbers: which; not negative.
        samples: of each sound; it is silent after `LONGEST` seconds.
        sample_rate: in Hz. What lies above half of it is left out.

    Returns:
        Sounds `[N, 1, samples]` in [-1, 1], and labels `[N]`, places in `DRUMS`.
    """
    which = np.asarray(numbers, dtype=np.int64)
    audio = np.zeros((len(which), samples), dtype=np.float32)
    sounding = min(samples, round(LONGEST * sample_rate))
    for label, make in enumerate((_kick, _snare, _hat, _tom, _clap)):
        rows = np.flatnonzero(which % len(DRUMS) == label)
        for part in np.array_split(rows, -(-len(rows) // AT_ONCE) or 1):
            if len(part):
                draw = Draws(which[part], sounding, sample_rate)
                audio[part, :sounding] = _finished(make(draw), draw.between(0.35, 0.95), sample_rate)
    return torch.from_numpy(audio).unsqueeze(1), torch.from_numpy(which % len(DRUMS))


class Draws:
    """What some sounds of one kind are made of: for each, random numbers and noise of its own.

    Attributes:
        time: in seconds, `[1, T]`.
        nyquist: half the sample rate, in Hz.
        noise: normal, `[N, T]`.
    """

    def __init__(self, numbers: NDArray[np.int64], length: int, sample_rate: int):
        random = [np.random.default_rng(int(number)) for number in numbers]
        self._drawn = iter(np.stack([each.random(PARAMETERS, dtype=np.float32) for each in random]).T[:, :, None])
        self.noise = np.stack([each.standard_normal(length, dtype=np.float32) for each in random])
        self.time = np.arange(length, dtype=np.float32)[None] / np.float32(sample_rate)
        self.nyquist = sample_rate / 2

    def between(self, low: float, high: float) -> Array:
        """A number for each sound, `[N, 1]`, even on the scale of ratios."""
        ratio: Array = np.float32(low) * np.float32(high / low) ** next(self._drawn)
        return ratio

    def decay(self, seconds: Any) -> Array:
        """An envelope that falls to 1/e in that time."""
        envelope: Array = np.exp(-self.time / seconds)
        return envelope

    def tone(self, hz: Any) -> Array:
        """A sine; silent where it lies above half the sample rate."""
        wave: Array = np.sin(2 * np.pi * hz * self.time) * (np.asarray(hz) < self.nyquist)
        return wave.astype(np.float32)

    def falling(self, first: Array, last: Array, seconds: Array) -> Array:
        """A sine whose frequency falls exponentially from the first to the last, in Hz."""
        cycles = last * self.time + (first - last) * seconds * (1 - self.decay(seconds))
        wave: Array = np.sin(2 * np.pi * cycles)
        return wave

    def band(self, low: Any, high: Any) -> Array:
        """The noise between two frequencies in Hz, with slopes of an octave, and of power 1."""
        spectrum = np.fft.rfft(self.noise)
        hz = np.fft.rfftfreq(self.noise.shape[1]).astype(np.float32)[None] * np.float32(2 * self.nyquist)
        low = np.minimum(low, 0.8 * self.nyquist)
        octaves = np.log2(np.maximum(hz, 1.0))
        rise, fall = octaves - np.log2(low) + 1, np.log2(high) - octaves + 1
        shaped = np.fft.irfft(spectrum * np.clip(np.minimum(rise, fall), 0, 1), n=self.noise.shape[1])
        scaled: Array = (shaped / np.sqrt(np.square(shaped).mean(axis=1, keepdims=True) + 1e-12)).astype(np.float32)
        return scaled


def _kick(draw: Draws) -> Array:
    """A sine that falls to the lowest notes, and a click."""
    first, last, fall = draw.between(120, 400), draw.between(38, 65), draw.between(0.015, 0.06)
    body = draw.falling(first, last, fall) * draw.decay(draw.between(0.08, 0.3))
    click = draw.band(800, 5000) * draw.decay(0.003)
    driven: Array = np.tanh(draw.between(1, 4) * body) + draw.between(0.02, 0.3) * click
    return driven


def _snare(draw: Draws) -> Array:
    """Two modes of the skin, and the snares' noise."""
    hz, ring, rattle = draw.between(150, 260), draw.between(0.04, 0.1), draw.between(0.06, 0.22)
    skin = draw.tone(hz) + 0.6 * draw.tone(1.59 * hz)  # of an ideal membrane: its first two modes
    noise = draw.band(draw.between(800, 2500), draw.between(5000, 9000)) * draw.decay(rattle)
    mixed: Array = draw.between(0.4, 1.2) * skin * draw.decay(ring) + draw.between(0.2, 0.5) * noise
    return mixed


def _hat(draw: Draws) -> Array:
    """Six oscillators of no common note and high noise; short where it is closed, longer where it is open."""
    hz, length, edge = draw.between(3000, 4500), draw.between(0.015, 0.25), draw.between(3500, 6500)
    metal = sum((draw.tone(ratio * hz) for ratio in METAL), np.zeros_like(draw.noise))
    mixed: Array = (draw.between(0.15, 0.7) * metal + 0.5 * draw.band(edge, 16_000)) * draw.decay(length)
    return mixed


def _tom(draw: Draws) -> Array:
    """A skin whose pitch falls a little as it calms, with its second mode, and the stick."""
    hz, bend, fall = draw.between(75, 220), draw.between(1.15, 1.7), draw.between(0.03, 0.1)
    ring = draw.between(0.1, 0.35)
    skin = draw.falling(bend * hz, hz, fall) * draw.decay(ring)
    second = draw.falling(1.59 * bend * hz, 1.59 * hz, fall) * draw.decay(0.4 * ring)
    stick = draw.band(500, 4000) * draw.decay(0.008)
    mixed: Array = skin + draw.between(0.1, 0.5) * second + draw.between(0.03, 0.2) * stick
    return mixed


def _clap(draw: Draws) -> Array:
    """Noise in the middle of the range, in three or four short bursts and a longer one: hands that are not together."""
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
    """Sounds with a peak at their level, faded where they are cut off."""
    left = np.minimum(1, np.arange(audio.shape[1], 0, -1, dtype=np.float32) / (FADE * sample_rate))
    faded = audio * np.square(np.sin(np.pi / 2 * left))
    done: Array = (faded / np.abs(faded).max(axis=1, keepdims=True) * level).astype(np.float32)
    return done
