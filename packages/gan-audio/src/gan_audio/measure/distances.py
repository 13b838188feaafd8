"""Distances between sounds of equal length, such as a vocoder's output and the original.

All take aligned sounds `[T]`, `[channels, T]` or `[B, channels, T]` in [-1, 1] and return the mean over all axes before
`T`. They are metrics, not losses: they are computed in float64 and returned as floats.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from gan_audio.layers.losses import multi_resolution_stft
from gan_audio.mel.contract import MelContract, filterbank
from gan_audio.sound.spectrogram import frame_size
from gan_core.errors import InputError

COEFFICIENTS = 13
"""Number of coefficients of the mel cepstrum, without the level, as in most publications with Kubichek's measure."""
BANDS = 80
"""Number of mel bands from which the cepstrum is computed."""
LEAST_POWER = 1e-10
"""Minimum power of a bin or band, relative to a full-scale sine (-100 dB)."""
DECIBELS = 10 / math.log(10)
"""Decibels per unit of the natural logarithm of power."""
LOWEST_F0, HIGHEST_F0 = 60.0, 600.0
"""Range in Hz in which the fundamental frequency is searched, which is that of speech."""
F0_FRAME, F0_HOP = 0.064, 0.01
"""Length of a frame of the search, and hop between frames, in seconds."""


def multi_resolution_stft_distance(real: Tensor, fake: Tensor) -> float:
    """Returns the spectral convergence plus the distance of log magnitudes (Yamamoto et al. 2020, arXiv:1910.11480).

    The value is the mean over three resolutions (eq. 6).

    Raises:
        InputError: the sounds have different shapes, or are too short.
    """
    pairs = zip(*_pair(real, fake), strict=True)  # one by one: the convergence of a batch is not a mean over its sounds
    return float(torch.stack([multi_resolution_stft(a, b).sum() for a, b in pairs]).mean())


def log_spectral_distance(real: Tensor, fake: Tensor, *, sample_rate: int) -> float:
    """Returns the root-mean-square difference of levels over frequency, averaged over frames (Gray & Markel 1976).

    The value is in dB. Frames are about 32 ms long and overlap by three quarters. Levels are at least 100 dB below a
    full-scale sine.

    Args:
        real: sounds.
        fake: sounds.
        sample_rate: in Hz.

    Raises:
        InputError: the sounds have different shapes, or are too short.
    """
    a, b = (_power(audio, sample_rate).clamp(min=LEAST_POWER).log() * DECIBELS for audio in _pair(real, fake))
    return float((a - b).square().mean(dim=-2).sqrt().mean())


def mel_cepstral_distortion(real: Tensor, fake: Tensor, *, sample_rate: int) -> float:
    """Returns (10 / ln 10) √(2 Σ (c_k - c'_k)²) for k from 1 to 13, averaged over frames, in dB (Kubichek 1993).

    The cepstrum c is computed from the logarithms of the powers of 80 mel bands: L_m = c_0 + 2 Σ c_k cos(π k (m + ½) /
    80). With all coefficients, the distortion would be the root-mean-square difference of the levels of the bands. The
    level c_0 is excluded. Cepstra of other spectra, such as those of SPTK, give different figures.

    Args:
        real: sounds.
        fake: sounds.
        sample_rate: in Hz.

    Raises:
        InputError: the sounds have different shapes, or are too short.
    """
    a, b = (mel_cepstrum(audio, sample_rate=sample_rate) for audio in _pair(real, fake))
    apart = (a - b)[..., 1 : COEFFICIENTS + 1, :].square().sum(dim=-2)
    return float((DECIBELS * (2 * apart).sqrt()).mean())


def mel_cepstrum(audio: Tensor, *, sample_rate: int) -> Tensor:
    """Returns the mel cepstrum of sounds `[…, T]`, as in `mel_cepstral_distortion`: `[…, 80, frames]`, c_0 first."""
    size = frame_size(sample_rate)
    contract = MelContract(sample_rate=sample_rate, fft_size=size, hop=size // 4, window=size, mels=BANDS)
    weights = filterbank(contract).double()
    shares = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
    logarithms = (shares @ _power(audio.double(), sample_rate)).clamp(min=LEAST_POWER).log()
    k, m = torch.arange(BANDS, dtype=torch.float64), torch.arange(BANDS, dtype=torch.float64) + 0.5
    return (torch.pi / BANDS * torch.outer(k, m)).cos() / BANDS @ logarithms


@dataclass(frozen=True)
class F0Counts:
    """Errors of the fundamental frequency, summed over frames.

    Attributes:
        frames: number of frames.
        voiced: frames in which both sounds are voiced.
        mismatched: frames in which only one of them is voiced.
        squares: sum of the squared differences in cents (hundredths of a semitone) over the voiced frames.
    """

    frames: int = 0
    voiced: int = 0
    mismatched: int = 0
    squares: float = 0.0

    def __add__(self, other: F0Counts) -> F0Counts:
        return F0Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def figures(self) -> dict[str, float]:
        """Returns `f0_rmse` in cents (NaN if no frame is voiced) and `voicing_error`, a share of frames."""
        return {
            "f0_rmse": math.sqrt(self.squares / self.voiced) if self.voiced else math.nan,
            "voicing_error": self.mismatched / self.frames,
        }


def f0_counts(real: Tensor, fake: Tensor, *, sample_rate: int) -> F0Counts:
    """Compares the fundamental frequencies of sounds, estimated by probabilistic YIN to a tenth of a semitone.

    See Mauch & Dixon 2014; the implementation is librosa's.

    Args:
        real: sounds.
        fake: sounds.
        sample_rate: in Hz.

    Raises:
        InputError: the sounds have different shapes, or are too short.
    """
    pairs = zip(*(audio.flatten(0, -2).numpy() for audio in _pair(real, fake)), strict=True)
    tracks = [(_fundamental(a, sample_rate), _fundamental(b, sample_rate)) for a, b in pairs]
    a, b = (np.concatenate(each) for each in zip(*tracks, strict=True))
    one, other = np.isfinite(a), np.isfinite(b)
    cents = 1200 * np.log2(a[one & other] / b[one & other])
    return F0Counts(len(a), int((one & other).sum()), int((one != other).sum()), float(np.square(cents).sum()))


def f0_error(real: Tensor, fake: Tensor, *, sample_rate: int) -> dict[str, float]:
    """Returns the error of the fundamental frequency: `f0_rmse` in cents, and `voicing_error`.

    The arguments and errors are those of `f0_counts`.
    """
    return f0_counts(real, fake, sample_rate=sample_rate).figures()


def _fundamental(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the fundamental frequency of each frame in Hz; NaN if the frame is unvoiced."""
    frame = 1 << round(math.log2(F0_FRAME * sample_rate))
    hz: np.ndarray = import_module("librosa").pyin(
        audio,
        fmin=LOWEST_F0,
        fmax=HIGHEST_F0,
        sr=sample_rate,
        frame_length=frame,
        hop_length=round(F0_HOP * sample_rate),
    )[0]
    return hz


def _pair(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Returns both sounds as `[N, 1, T]` in float64 on the CPU."""
    if real.shape != fake.shape or not real.ndim:
        shapes = f"{list(real.shape)} and {list(fake.shape)}"
        raise InputError(f"the sounds have the shapes {shapes}; cut them to one length")
    a, b = (audio.detach().double().cpu().reshape(-1, 1, audio.shape[-1]) for audio in (real, fake))
    return a, b


def _power(audio: Tensor, sample_rate: int) -> Tensor:
    """Returns the power of each bin relative to a full-scale sine, `[…, bins, frames]`, of sounds `[…, T]`."""
    size = frame_size(sample_rate)
    if audio.shape[-1] < size:
        raise InputError(f"the sounds are {audio.shape[-1]} samples long; a frame at {sample_rate:,} Hz needs {size}")
    window = torch.hann_window(size, dtype=audio.dtype)
    frames = audio.unfold(-1, size, size // 4) * window
    return (torch.fft.rfft(frames) * (2 / window.sum())).abs().square().transpose(-1, -2)
