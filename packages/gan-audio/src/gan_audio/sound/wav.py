"""WAV files: their headers, and writing of 16-bit PCM in parts."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from gan_core.errors import DataError, InputError, Unreadable
from gan_core.media.writing import replacing

MAX_WAV = 2**32 - 2**12
"""Maximum size of the samples of a WAV file in bytes. Sizes in the header have 32 bits and include the header."""
UNKNOWN_SIZE = 2**31 - 2**16
"""Smallest declared size that counts as unknown; programs that stream a WAV file write such a size, or 0."""
MAX_CHUNKS = 1000
"""Maximum number of chunks before the samples of a WAV file."""
MAX_CHUNK_BYTES = 2**20
"""Maximum size in bytes of a header chunk that is read to memory or from a pipe."""
RF64_EXTRA = 36
"""Number of bytes by which the header of an RF64 file is longer than that of a RIFF file."""
KINDS = (b"RIFF", b"RIFX", b"RF64")
"""Container formats: little-endian, big-endian, and with 64-bit sizes."""


class WavHeader(NamedTuple):
    """Header of a WAV file, up to its samples.

    Attributes:
        kind: container format, one of `KINDS`.
        form: content of the chunk `fmt `, which defines the format of the samples; empty if it is missing.
        place: position of the first sample in bytes.
        size: declared size of the samples in bytes; None if the program that wrote it did not know the length.
    """

    kind: bytes
    form: bytes
    place: int
    size: int | None


def read_wav_header(head: bytes, read: Callable[[int], bytes], skip: Callable[[int], object]) -> WavHeader:
    """Reads the header of a WAV file.

    Args:
        head: first 12 bytes of the file.
        read: returns up to the given number of following bytes.
        skip: skips the given number of bytes.

    Raises:
        Unreadable: it is not a WAV file, or its header is damaged.
    """
    kind = head[:4]
    if kind not in KINDS or head[8:] != b"WAVE":
        raise Unreadable("not a WAV file")
    order = ">" if kind == b"RIFX" else "<"
    (total,) = struct.unpack(f"{order}I", head[4:8])
    form, place, long_size = b"", 12, 0
    for _ in range(MAX_CHUNKS):
        name, size = struct.unpack(f"{order}4sI", _exactly(read, 8))
        place += 8
        if name == b"data":
            if kind == b"RF64" and size == 2**32 - 1:
                return WavHeader(kind, form, place, long_size or None)
            followed = place - 8 < total < UNKNOWN_SIZE  # by other chunks, so that a size of 0 is meant
            known = size < UNKNOWN_SIZE and (size > 0 or followed)
            return WavHeader(kind, form, place, size if known else None)
        length = size + size % 2
        if name in (b"fmt ", b"ds64"):
            if size > MAX_CHUNK_BYTES:
                raise Unreadable(f"damaged: its header has a chunk of {size:,} bytes")
            content = _exactly(read, length)
            if name == b"fmt ":
                form = content
            elif size >= 16:
                _, long_size = struct.unpack("<QQ", content[:16])
        else:
            skip(length)
        place += length
    raise Unreadable(f"damaged: has no samples after the first {MAX_CHUNKS:,} chunks of its header")


def wav_header(sample_rate: int, channels: int = 1, size: int | None = None) -> bytes:
    """Returns the header of a WAV file with 16-bit samples.

    Args:
        sample_rate: sample rate in Hz.
        channels: number of channels.
        size: size of the samples in bytes, at most `MAX_WAV`; None if unknown, as in a pipe.
    """
    form = struct.pack("<IHHIIHH", 16, 1, channels, sample_rate, 2 * channels * sample_rate, 2 * channels, 16)
    total, size = (2**32 - 1, 2**32 - 1) if size is None else (36 + size, size)
    return b"RIFF" + struct.pack("<I", total) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size)


def rf64_start(total: int, size: int) -> bytes:
    """Returns the start of an RF64 file, up to the chunk `fmt `, for any length.

    Args:
        total: size of the file in bytes.
        size: size of the samples in bytes.
    """
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, total - 8, size, 0, 0)
    return struct.pack("<4sI4s", b"RF64", 2**32 - 1, b"WAVE") + sizes


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise Unreadable("damaged: ends within its header")
    return data


class WavWriter:
    """Writes sound in parts as 16-bit PCM. Samples that were read from 16-bit PCM are written unchanged.

    Attributes:
        size: size of the samples so far in bytes.
        clipped: number of samples so far that were clipped to [-1, 1], or replaced by 0 because they were not finite.

    Args:
        write: writes 16-bit samples in little-endian order.
        path: path of the file, whose size is limited; None for a pipe.
    """

    def __init__(self, write: Callable[[bytes], object], path: Path | None = None):
        self._write, self._path = write, path
        self.size = self.clipped = 0

    def write(self, audio: Tensor) -> None:
        """Appends sound `[channels, n]`.

        Raises:
            InputError: the file would exceed the maximum size of a WAV file.
        """
        self.size += 2 * audio.numel()
        if self._path is not None and self.size > MAX_WAV:
            limit = f"{MAX_WAV / 2**30:.1f} GiB"
            remedy = "split the sound, or write raw samples to standard output"
            raise InputError(f"{self._path}: larger than the maximum size of a WAV file, {limit}; {remedy}")
        audio = audio.detach().float().cpu()
        self.clipped += int((~(audio.abs() <= 1)).sum())
        levels = audio.nan_to_num(0.0, 2.0, -2.0).mul(2**15).round().clamp(-(2**15), 2**15 - 1)
        self._write(levels.short().T.numpy().astype("<i2").tobytes())


@contextmanager
def open_wav(path: Path, *, sample_rate: int, channels: int) -> Iterator[WavWriter]:
    """Context manager that yields a writer of a WAV file, which has a temporary name until it is complete.

    Raises:
        InputError: the file cannot be written, or exceeds the maximum size of a WAV file.
        GanError: the disk is full or broken.
    """
    with replacing(path) as partial, partial.open("xb") as file:
        file.write(wav_header(sample_rate, channels))
        writer = WavWriter(file.write, path)
        yield writer
        file.seek(0)
        file.write(wav_header(sample_rate, channels, writer.size))


def write_wav(path: Path, audio: Tensor, sample_rate: int) -> int:
    """Writes sound `[channels, samples]` in [-1, 1] to a WAV file of 16-bit PCM, atomically.

    Returns:
        Number of samples that were clipped or not finite; see `WavWriter`.

    Raises:
        DataError: the sound has the wrong shape, or no samples.
        InputError: the file cannot be written, or exceeds the maximum size of a WAV file.
        GanError: the disk is full or broken.
    """
    if audio.ndim != 2 or not audio.numel():
        raise DataError(f"{path}: the sound has the shape {list(audio.shape)}; expected [channels, samples]")
    with open_wav(path, sample_rate=sample_rate, channels=len(audio)) as writer:
        writer.write(audio)
    return writer.clipped
