"""Distances between spectra of real and generated audio, which vocoders minimise beside their adversarial terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from gan_core.nn.precision import full_precision


class Resolution(NamedTuple):
    """A short-time Fourier transform, in samples; the Hann window is centred in the FFT's frame."""

    fft_size: int
    hop: int
    window: int


RESOLUTIONS = (Resolution(1024, 120, 600), Resolution(2048, 240, 1200), Resolution(512, 50, 240))
"""Parallel WaveGAN's (arXiv:1910.11480, table 1)."""
LEAST_POWER = 1e-7
"""That a power is raised to before its root is taken."""


def magnitudes(audio: Tensor, resolution: Resolution) -> Tensor:
    """Magnitudes `[B, frames, bins]` of audio `[B, T]`: centred frames, reflected at both ends."""
    window = torch.hann_window(resolution.window, device=audio.device, dtype=audio.dtype)
    spectrum = torch.stft(audio, *resolution, window, return_complex=True)
    return torch.view_as_real(spectrum).square().sum(dim=-1).clamp(min=LEAST_POWER).sqrt().mT


def spectral_convergence(real: Tensor, fake: Tensor) -> Tensor:
    """‖|Y| - |X|‖ / ‖|Y|‖, Frobenius norms of the whole batch's magnitudes, Y real (arXiv:1910.11480, eq. 4)."""
    return torch.linalg.vector_norm(real - fake) / torch.linalg.vector_norm(real)


def log_magnitude(real: Tensor, fake: Tensor) -> Tensor:
    """Mean |log|Y| - log|X|| of magnitudes, natural logarithms (arXiv:1910.11480, eq. 5)."""
    return l1_loss(fake.log(), real.log())


def multi_resolution_stft(real: Tensor, fake: Tensor, resolutions: Sequence[Resolution] = RESOLUTIONS) -> Tensor:
    """Spectral convergence and distance of log magnitudes, each a mean over resolutions (arXiv:1910.11480, eq. 6).

    Args:
        real: audio `[B, 1, T]` or `[B, T]`, longer than half of the largest FFT.
        fake: the same.
        resolutions: of the transforms.

    Returns:
        `[2]`: the loss is their sum.
    """
    with torch.autocast(real.device.type, enabled=False):
        a, b = (full_precision(audio).flatten(0, -2) for audio in (real, fake))
        pairs = [(magnitudes(a, resolution), magnitudes(b, resolution)) for resolution in resolutions]
        terms = [torch.stack([spectral_convergence(y, x), log_magnitude(y, x)]) for y, x in pairs]
        return torch.stack(terms).mean(dim=0)
