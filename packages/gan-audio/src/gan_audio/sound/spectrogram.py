"""Spectrogram pictures: levels over time and frequency, axis ticks and colours."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from gan_audio.mel.contract import htk_hz, htk_mel

Array = NDArray[np.float64]

WINDOW = 0.032
"""Target length of a frame in seconds, which resolves both the attack of a drum and the harmonics of a voice."""
LOWEST, HIGHEST = -90.0, -10.0
"""Levels in dB that are drawn in black and in white. They are the same in all pictures, so pictures are comparable."""
START, ROTATIONS, HUE = 0.5, -0.9, 1.2
"""Parameters of the cubehelix colour map, from dark blue through green and orange to white."""
TICKS = (100, 200, 500, 1000, 2000, 4000, 8000, 16_000, 32_000)
"""Candidate tick frequencies of an axis in Hz."""


def levels(audio: Array, sample_rate: int, *, rows: int, columns: int, seconds: float | None = None) -> Array:
    """Computes the level of each band at each time in dB, relative to a sine of amplitude 1.

    The level of a band is the mean power of the spectrum within it.

    Args:
        audio: `[samples]`.
        sample_rate: sample rate in Hz.
        rows: number of bands, evenly spaced on HTK's mel scale from 0 to half the sample rate.
        columns: number of frames, evenly spaced in time.
        seconds: duration of the picture (default: that of the audio).

    Returns:
        `[rows, columns]`, the lowest band first, and at least `LOWEST`.
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
    bins = np.arange(below.shape[1]) - 0.5  # lower edge of each bin
    summed = np.stack([np.interp(edges, bins, each) for each in below])
    mean = np.diff(summed, axis=1) / np.diff(edges)
    found: Array = np.maximum(10 * np.log10(np.maximum(mean.T, 1e-20)), LOWEST)
    return found


def frame_size(sample_rate: int) -> int:
    """Returns the length of a frame in samples: the power of two closest to `WINDOW`, in octaves."""
    return 1 << max(4, round(math.log2(WINDOW * sample_rate)))


def frequency_ticks(sample_rate: int, height: int, apart: int) -> list[tuple[int, float]]:
    """Returns tick frequencies of an axis in Hz and their positions, from 0 at the bottom to 1 at half the sample rate.

    Args:
        sample_rate: sample rate in Hz.
        height: height of the axis in pixels.
        apart: minimum distance of two ticks in pixels.
    """
    top, ticks = htk_mel(sample_rate / 2), list[tuple[int, float]]()
    for hz in (hz for hz in TICKS if hz <= sample_rate / 2):
        place = htk_mel(hz) / top
        if (place - (ticks[-1][1] if ticks else 0)) * height >= apart:
            ticks.append((hz, place))
    return ticks


def colours(values: Array) -> NDArray[np.uint8]:
    """Returns RGB colours whose lightness increases with the values: a cubehelix (Green 2011, arXiv:1108.5083).

    Args:
        values: array `[…]` in [0, 1].

    Returns:
        `[…, 3]`.
    """
    light = np.clip(values, 0, 1)[..., None]
    angle = 2 * np.pi * (START / 3 + ROTATIONS * light)
    swing = HUE * light * (1 - light) / 2
    red_green_blue = light + swing * (
        np.cos(angle) * np.array([-0.14861, -0.29227, 1.97294]) + np.sin(angle) * np.array([1.78277, -0.90649, 0.0])
    )
    pixels: NDArray[np.uint8] = (np.clip(red_green_blue, 0, 1) * 255).round().astype(np.uint8)
    return pixels
