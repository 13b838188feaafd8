"""Short-time spectra with half-overlapping Hann windows, and sound from magnitudes by the Griffin-Lim algorithm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

MIN_WEIGHT = 0.5
"""Minimum sum of squared windows by which overlapping frames are divided.

Two overlapping Hann windows give at least 0.5. At the ends, where only one window contributes, the sum approaches 0,
and dividing by it would turn errors of a generated spectrogram into clicks.
"""
MOMENTUM = 0.99
"""Momentum α of the accelerated algorithm (Perraudin, Balazs & Søndergaard 2013)."""


def spectrum(audio: Tensor, size: int) -> Tensor:
    """Computes complex spectra of frames of `2 * size` samples under a Hann window, every `size` samples.

    Args:
        audio: `[…, (frames + 1) * size]`.
        size: distance between frames in samples.

    Returns:
        `[…, frames, size + 1]`.
    """
    hops = audio.reshape(*audio.shape[:-1], -1, size)
    frames = torch.cat([hops[..., :-1, :], hops[..., 1:, :]], dim=-1)
    return torch.fft.rfft(frames * _window(size, audio))


def overlapped(spectra: Tensor, size: int) -> Tensor:
    """Computes the audio whose spectra are closest to the given ones (Griffin & Lim 1984, eq. 6).

    Args:
        spectra: `[…, frames, size + 1]`.
        size: distance between frames in samples.

    Returns:
        `[…, (frames + 1) * size]`, which fades in and out over `size` samples.
    """
    frames = torch.fft.irfft(spectra, n=2 * size)
    window = _window(size, frames)
    weight = _overlap_add(window.square().expand(frames.shape[-2], -1), size).clamp(min=MIN_WEIGHT)
    return _overlap_add(frames * window, size) / weight


def griffin_lim(magnitudes: Tensor, size: int, *, iterations: int) -> Tensor:
    """Reconstructs audio from magnitudes with the fast Griffin-Lim algorithm (Griffin & Lim 1984, section III).

    It differs from SpecGAN's published code in three ways:

    - Sums of overlapping frames are divided by the sum of their windows. Without this, sounds are 25 % quieter and
      match the spectrogram less closely.
    - Initial phases are 0 in the middle of a frame, not at its first sample, where the window is 0 and the result would
      depend on the last digits of the spectrogram.
    - Steps are extrapolated (Perraudin et al. 2013).

    Args:
        magnitudes: `[…, frames, size + 1]`.
        size: distance between frames in samples.
        iterations: number of iterations.

    Returns:
        `[…, (frames + 1) * size]`.
    """
    middle = 1 - 2 * (torch.arange(size + 1, device=magnitudes.device) % 2)  # e^(-2πi k size / (2 size))
    audio = overlapped(magnitudes * middle, size)
    current = extrapolated = spectrum(audio, size)
    for _ in range(iterations):
        audio = overlapped(magnitudes * extrapolated / extrapolated.abs().clamp(min=1e-8), size)
        previous, current = current, spectrum(audio, size)
        extrapolated = current + MOMENTUM * (current - previous)
    return audio


def _window(size: int, like: Tensor) -> Tensor:
    return torch.hann_window(2 * size, dtype=like.dtype, device=like.device)


def _overlap_add(frames: Tensor, size: int) -> Tensor:
    """Adds frames `[…, frames, 2 * size]`, each shifted by `size` samples from the one before."""
    first, second = frames.chunk(2, dim=-1)
    return pad(first.flatten(-2), (0, size)) + pad(second.flatten(-2), (size, 0))
