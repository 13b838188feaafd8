"""Writing of sounds in the format of other files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from gan_audio.sound.files import beyond
from gan_audio.sound.wav import MAX_WAV
from gan_core.errors import DataError, count, reason_of
from gan_core.media.writing import replacing

BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
"""Bits per sample of the encodings to which samples are rounded."""
FLOATING = ("FLOAT", "DOUBLE")
"""Encodings that hold samples beyond [-1, 1]."""
PLAIN = ("WAV", "WAVEX")
"""Formats with sizes of 32 bits; longer sounds are written as RF64."""


class SoundWriter:
    """Writes sound in parts in any encoding.

    Attributes:
        clipped: number of samples beyond [-1, 1] so far that were clipped, since the encoding cannot hold them.

    Args:
        sound: a `soundfile.SoundFile` that is open for writing.
    """

    def __init__(self, sound: Any):
        self._sound, self.clipped = sound, 0

    def write(self, audio: Tensor) -> None:
        """Appends sound `[channels, n]`."""
        encoding = self._sound.subtype
        if encoding not in FLOATING:
            self.clipped += beyond(audio)
            audio = audio.clamp(-1, 1)
        if encoding in BITS:  # libsndfile truncates
            full_scale = 2 ** (BITS[encoding] - 1)
            audio = (audio * full_scale).round().clamp(max=full_scale - 1) / full_scale
        self._sound.write(audio.T.numpy())


def check_writable(*, sample_rate: int, channels: int, format: str, encoding: str) -> None:
    """Checks that a format supports a sample rate, a number of channels and an encoding.

    Raises:
        DataError: it does not.
    """
    soundfile = import_module("soundfile")
    try:
        soundfile.SoundFile(io.BytesIO(), "w", sample_rate, channels, encoding, format=format).close()
    except (soundfile.LibsndfileError, ValueError) as error:
        what = f"{format} ({encoding}) with {count(channels, 'channel')} at {sample_rate:,} Hz"
        raise DataError(f"cannot be written as {what}; choose another rate, or convert it to WAV") from error


@contextmanager
def open_sound_writer(
    path: Path, *, sample_rate: int, channels: int, format: str, encoding: str, samples: int
) -> Iterator[SoundWriter]:
    """Context manager that yields a writer of a sound file, which has a temporary name until it is complete.

    Args:
        path: the file.
        sample_rate: sample rate in Hz.
        channels: number of channels.
        format: libsndfile's name of the file format.
        encoding: libsndfile's name of the sample encoding.
        samples: approximate number of samples per channel.

    Raises:
        InputError: the file cannot be written.
        GanError: the disk is full or broken.
    """
    soundfile = import_module("soundfile")
    if format in PLAIN and samples * channels * 8 > MAX_WAV:
        format = "RF64"
    with replacing(path) as partial, partial.open("xb") as file:
        # libsndfile writes by the descriptor: errors in functions of Python, which it would call, cannot be raised.
        descriptor, given = file.fileno(), (sample_rate, channels, encoding)
        try:
            with soundfile.SoundFile(descriptor, "w", *given, format=format, closefd=False) as sound:
                yield SoundWriter(sound)
        except soundfile.LibsndfileError as error:
            os.write(descriptor, b"\0")  # raises the system's error, such as a full disk
            raise OSError(reason_of(error)) from error
