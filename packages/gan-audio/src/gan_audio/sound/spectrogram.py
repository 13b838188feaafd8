"""Spectrograms to look at: levels over time and frequency, and their colours."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from gan_audio.mel.contract import htk_hz, htk_mel

Array = NDArray[np.float64]

WINDOW = 0.032
"""Seconds of a frame: short enough for a drum's attack, long enough for a voice's harmonics."""
LOWEST, HIGHEST = -90.0, -10.0
"""Levels that are black and white, in dB; the same in all pictures, so that they can be compared."""
START, ROTATIONS, HUE = 0.5, -0.9, 1.2
"""Of the colours' helix: from dark blue by green and orange to white."""
TICKS = (100, 200, 500, 1000, 2000, 4000, 8000, 16_000, 32_000)
"""Frequencies that an axis may name, in Hz."""


def levels(audio: Array, sample_rate: int, *, rows: int, columns: int, seconds: float | None = None) -> Array:
    """The level of each band at each time, in dB relative to a sine of amplitude 1.

    A band's level is the mean power of the spectrum within it.

    Args:
        audio: `[samples]`.
        sample_rate: in Hz.
        rows: bands, evenly spaced on the mel scale (HTK's) from 0 to half the rate.
        columns: frames, evenly spaced over the time.
        seconds: the time; that of the audio if None.

    Returns:
        `[rows, columns]`, the lowest band first; `LOWEST` at least.
    """
    size = frame_size(sample_rate)
    length = len(audio) if seconds is None else round(seconds * sample_rate)
    padded = np.concatenate([np.zeros(size // 2), audio, np.zeros(max(0, length - len(audio)) + size)])
    starts = ((np.arange(columns) + 0.5) * length / columns).astype(int)
    window = np.hanning(size + 1)[:-1]
    spectra = np.fft.rfft(padded[starts[:, None] + np.arange(size)] * window) * (2 / window.sum())
    power = np.square(np.abs(spectra))  # [columns, bins]
    mels = torch.linspace(0, htk_mel(sample_rate / 2), rows + 1, dtype=torch.float64)
    edges = htk_hz(mels).numpy() * size / sample_rate  # in bins
    below = np.concatenate([np.zeros((columns, 1)), np.cumsum(power, axis=1)], axis=1)
    bins = np.arange(below.shape[1]) - 0.5  # where each bin begins
    summed = np.stack([np.interp(edges, bins, each) for each in below])
    mean = np.diff(summed, axis=1) / np.diff(edges)
    found: Array = np.maximum(10 * np.log10(np.maximum(mean.T, 1e-20)), LOWEST)
    return found


def frame_size(sample_rate: int) -> int:
    """Samples of a frame: the power of two that is nearest to `WINDOW`."""
    return 1 << max(4, round(math.log2(WINDOW * sample_rate)))


def frequency_ticks(sample_rate: int, height: int, apart: int) -> list[tuple[int, float]]:
    """Frequencies for an axis in Hz, and where they lie, from 0 at its foot to 1 at its head, which is half the rate.

    Args:
        sample_rate: in Hz.
        height: of the axis in pixels.
        apart: the least distance of two ticks in pixels.
    """
    top, ticks = htk_mel(sample_rate / 2), list[tuple[int, float]]()
    for hz in (hz for hz in TICKS if hz <= sample_rate / 2):
        place = htk_mel(hz) / top
        if (place - (ticks[-1][1] if ticks else 0)) * height >= apart:
            ticks.append((hz, place))
    return ticks


def colours(values: Array) -> NDArray[np.uint8]:
    """Values in [0, 1] as RGB whose lightness rises with them all the way: a cubehelix (Green 2011, arXiv:1108.5083).

    Args:
        values: of any shape.

    Returns:
        The shape of the values, and 3.
    """
    light = np.clip(values, 0, 1)[..., None]
    angle = 2 * np.pi * (START / 3 + ROTATIONS * light)
    swing = HUE * light * (1 - light) / 2
    red_green_blue = light + swing * (
        np.cos(angle) * np.array([-0.14861, -0.29227, 1.97294]) + np.sin(angle) * np.array([1.78277, -0.90649, 0.0])
    )
    pixels: NDArray[np.uint8] = (np.clip(red_green_blue, 0, 1) * 255).round().astype(np.uint8)
    return pixels
