"""Distances between the spectra of real and generated audio, used as losses of vocoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from gan_core.nn.precision import full_precision


class Resolution(NamedTuple):
    """Settings of a short-time Fourier transform in samples. A window shorter than the FFT is centred in the frame."""

    fft_size: int
    hop: int
    window: int


RESOLUTIONS = (Resolution(1024, 120, 600), Resolution(2048, 240, 1200), Resolution(512, 50, 240))
"""Resolutions of Parallel WaveGAN (arXiv:1910.11480, table 1)."""
MIN_POWER = 1e-7
"""Minimum power before the square root."""


def magnitudes(audio: Tensor, resolution: Resolution) -> Tensor:
    """Computes magnitudes `[B, frames, bins]` of audio `[B, T]`, with centred frames and reflection padding."""
    window = torch.hann_window(resolution.window, device=audio.device, dtype=audio.dtype)
    spectrum = torch.stft(audio, *resolution, window, return_complex=True)
    return torch.view_as_real(spectrum).square().sum(dim=-1).clamp(min=MIN_POWER).sqrt().mT


def spectral_convergence(real: Tensor, fake: Tensor) -> Tensor:
    """Computes ‖|Y| - |X|‖ / ‖|Y|‖, Frobenius norms over the whole batch, Y real (arXiv:1910.11480, eq. 4)."""
    return torch.linalg.vector_norm(real - fake) / torch.linalg.vector_norm(real)


def log_magnitude(real: Tensor, fake: Tensor) -> Tensor:
    """Computes the mean of |log|Y| - log|X|| over magnitudes, natural logarithms (arXiv:1910.11480, eq. 5)."""
    return l1_loss(fake.log(), real.log())


def multi_resolution_stft(real: Tensor, fake: Tensor, resolutions: Sequence[Resolution] = RESOLUTIONS) -> Tensor:
    """Computes spectral convergence and log magnitude distance, averaged over resolutions (arXiv:1910.11480, eq. 6).

    Args:
        real: audio `[B, 1, T]` or `[B, T]`, longer than half of the largest FFT.
        fake: audio of the same shape.
        resolutions: settings of the transforms.

    Returns:
        `[2]`, both distances. The loss is their sum.
    """
    with torch.autocast(real.device.type, enabled=False):
        a, b = (full_precision(audio).flatten(0, -2) for audio in (real, fake))
        pairs = [(magnitudes(a, resolution), magnitudes(b, resolution)) for resolution in resolutions]
        terms = [torch.stack([spectral_convergence(y, x), log_magnitude(y, x)]) for y, x in pairs]
        return torch.stack(terms).mean(dim=0)
