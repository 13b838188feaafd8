"""What games need of audio data: sounds cut to a length, or tunes of some bars."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from gan_core.data import Spec

Samples = Annotated[int, Field(ge=1, le=2**28)]
"""Length in samples."""
SampleRate = Annotated[int, Field(ge=100, le=768_000)]
"""Sample rate in Hz."""
Peak = Annotated[float, Field(gt=0, le=1)]
"""Largest magnitude of a recording."""
Channels = Annotated[int, Field(ge=1, le=64)]
"""Number of channels."""
Decibels = Annotated[float, Field(gt=0, le=200)]
"""Difference of two levels in dB."""
Bars = Annotated[int, Field(ge=1, le=256)]
"""Number of bars of a tune."""


class SoundSpec(Spec):
    """Sounds, or slices of them.

    Attributes:
        samples: length of an item in samples.
        sample_rate: sample rate in Hz; sounds of other rates are resampled.
        channels: number of channels; 1 is the mean of all channels of a sound.
        peak: magnitude that the largest sample of every sound is scaled to; None leaves the levels as they are.
        trim: silence at the beginning and the end of a sound is left out. It is silence where the level is this many dB
            or more below the loudest hundredth of a second of the sound. None leaves nothing out.
    """

    key: ClassVar[str | None] = "audio"
    thing: ClassVar[str] = "sounds"
    samples: Samples | None = None
    sample_rate: SampleRate | None = None
    channels: Channels | None = None
    peak: Peak | None = None
    trim: Decibels | None = None


class TuneSpec(Spec):
    """Tunes: at every step the pitch of the melody and the chord (`gan_audio.midi`).

    Attributes:
        bars: length of an item in bars of 16 steps.
        transposed: whether every tune is used in all twelve keys.
    """

    key: ClassVar[str | None] = "tune"
    thing: ClassVar[str] = "tunes"
    bars: Bars | None = None
    transposed: bool = False
