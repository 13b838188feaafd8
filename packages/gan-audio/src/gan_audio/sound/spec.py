"""Data specification of sounds."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from gan_core.data import Spec

Samples = Annotated[int, Field(ge=1, le=2**28)]
"""Length in samples."""
SampleRate = Annotated[int, Field(ge=100, le=768_000)]
"""Sample rate in Hz."""
Peak = Annotated[float, Field(gt=0, le=1)]
"""Maximum magnitude of a sound."""
Channels = Annotated[int, Field(ge=1, le=64)]
"""Number of channels."""
Decibels = Annotated[float, Field(gt=0, le=200)]
"""Difference of two levels in dB."""


class SoundSpec(Spec):
    """Sounds, or slices of them.

    Attributes:
        samples: length of an item in samples.
        sample_rate: sample rate in Hz; sounds with other rates are resampled.
        channels: number of channels; for 1, the channels of a sound are averaged.
        peak: maximum magnitude to which each sound is scaled, in (0, 1]; None keeps the levels.
        trim: threshold in dB for trimming silence at both ends of a sound, relative to its loudest 10 ms. None disables
            trimming.
    """

    key: ClassVar[str | None] = "audio"
    thing: ClassVar[str] = "sounds"
    values: ClassVar[str] = "[-1, 1]"
    samples: Samples | None = None
    sample_rate: SampleRate | None = None
    channels: Channels | None = None
    peak: Peak | None = None
    trim: Decibels | None = None

    def in_words(self) -> str:
        rate = "" if self.sample_rate is None else f"at {self.sample_rate:,} Hz"
        length = "" if self.samples is None else f"in slices of {self.samples:,} samples"
        peak = "" if self.peak is None else f"scaled to a peak of {self.peak:g}"
        return ", ".join(filter(None, (rate, length, peak)))
