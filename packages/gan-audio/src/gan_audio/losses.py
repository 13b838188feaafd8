"""What vocoders minimise beside their adversarial terms, and those terms over several discriminators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from gan_core.objectives import Objective
from gan_core.precision import full_precision


class Judgement(NamedTuple):
    """What discriminators make of audio.

    Attributes:
        logits: of each discriminator, `[B, …]`.
        features: of each, those of its layers.
    """

    logits: list[Tensor]
    features: list[list[Tensor]]


class Resolution(NamedTuple):
    """A short-time Fourier transform, in samples; the Hann window is centred in the FFT's frame."""

    fft_size: int
    hop: int
    window: int


RESOLUTIONS = (Resolution(1024, 120, 600), Resolution(2048, 240, 1200), Resolution(512, 50, 240))
"""Parallel WaveGAN's (arXiv:1910.11480, table 1)."""
LEAST_POWER = 1e-7
"""That a power is raised to before its root is taken."""


def together(judgements: Mapping[str, Judgement]) -> Judgement:
    """Several judgements of the same audio as one."""
    logits, features = zip(*judgements.values(), strict=True)
    return Judgement(list(chain(*logits)), list(chain(*features)))


def told_apart(objective: Objective, real: Judgement, fake: Judgement) -> Tensor:
    """The discriminators' adversarial loss, summed over them."""
    return torch.stack([objective.discriminator(a, b) for a, b in logit_pairs(real, fake)]).sum()


def fooled(objective: Objective, real: Judgement, fake: Judgement) -> Tensor:
    """The generator's adversarial loss, summed over the discriminators."""
    return torch.stack([objective.generator(b, a) for a, b in logit_pairs(real, fake)]).sum()


def logit_pairs(real: Judgement, fake: Judgement) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits of each discriminator for real and generated audio, in at least float32."""
    for a, b in zip(real.logits, fake.logits, strict=True):
        yield full_precision(a), full_precision(b)


def feature_matching(real: Judgement, fake: Judgement) -> Tensor:
    """Mean |D_i(x) - D_i(G(s))| of layer i, summed over layers and discriminators (arXiv:1910.06711, section 2.3)."""
    pairs = zip(chain(*real.features), chain(*fake.features), strict=True)
    return torch.stack([l1_loss(b, a) for a, b in pairs]).sum()


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
