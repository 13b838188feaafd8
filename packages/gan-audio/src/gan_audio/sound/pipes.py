"""Sounds and mels from files and pipes, block by block, and sound to pipes.

Pipes do not support seeking, and the writing program may not know the length of the sound.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_audio.mel.contract import MelContract
from gan_audio.mel.files import MEL_BYTES, read_mel
from gan_audio.sound.files import (
    LOUDEST,
    MAX_CHANNELS,
    MAX_RATE,
    MIN_RATE,
    TOLERANCE,
    Sound,
    beyond,
    open_sound,
    read_blocks,
)
from gan_audio.sound.layout import CUT
from gan_audio.sound.wav import MAX_CHUNK_BYTES, WavHeader, read_wav_header, wav_header
from gan_core.errors import DataError, InputError, Unreadable, count, writing
from gan_core.jobs import send

PIPE_BYTES = 2**16
"""Maximum number of bytes that are read from a pipe at once, which is a pipe's capacity."""
PCM, IEEE_FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
"""Codes of sample formats in WAV headers. "Extensible" headers contain the actual format in a later field."""
BITS = {
    "PCM_U8": 8,
    "PCM_S8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "FLOAT": 32,
    "DOUBLE": 64,
    "ULAW": 8,
    "ALAW": 8,
}
"""Bits per sample, by libsndfile's encoding. Lossy encodings are not listed."""


class Raw(NamedTuple):
    """Format of raw signed 16-bit samples: sample rate in Hz and number of channels."""

    sample_rate: int
    channels: int

    @classmethod
    def parse(cls, text: str) -> Raw:
        """Parses `RATE:CHANNELS:s16`.

        Raises:
            InputError: the text has another form.
        """
        rate, _, rest = text.partition(":")
        channels, _, form = rest.partition(":")
        if form != "s16" or not (rate.isdecimal() and channels.isdecimal()):
            raise InputError(f"`--raw` is {text}; expected RATE:CHANNELS:s16, for example 22050:1:s16")
        return cls(int(rate), int(channels))


# --- in


class FileSound:
    """A sound file that is not decoded yet.

    Attributes:
        sample_rate: sample rate in Hz.
        channels: number of channels.
        length: number of samples per channel.
        format: libsndfile's name of the file format.
        encoding: libsndfile's name of the sample encoding.
        bits: bits per sample; None for lossy encodings.
        note: phrase about an unusual file; see `gan_audio.sound.files.Header`.
        clipped: number of samples beyond [-1, 1] that were clipped while reading `blocks`.

    Args:
        path: the file.

    Raises:
        Unreadable: see `gan_audio.sound.files.opened`.
    """

    def __init__(self, path: Path):
        self.path = path
        with open_sound_file(path) as sound:
            self.sample_rate, self.channels, self.length, self.note = sound.header
            self.format, self.encoding = sound.format, sound.encoding
        self.bits, self.clipped = BITS.get(self.encoding), 0

    def blocks(self, sample_rate: int, *, channels: int = 1, clip: bool = True) -> Iterator[Tensor]:
        """Yields the sound in blocks `[channels, n]`, by default the mean of all channels.

        The arguments are those of `gan_audio.sound.files.read_blocks`.
        """
        with open_sound_file(self.path) as sound:
            for block in read_blocks(sound, sample_rate=sample_rate, channels=channels, clip=clip):
                self.clipped = sound.clipped
                yield block


@contextmanager
def open_sound_file(path: Path) -> Iterator[Sound]:
    """Context manager that yields the sound of a file, checked as in `gan_audio.sound.files.opened`.

    Raises:
        Unreadable: see `gan_audio.sound.files.opened`.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror})") from error
    with file:
        if not os.fstat(file.fileno()).st_size:
            raise Unreadable("the file is empty")
        with open_sound(file) as sound:
            yield sound


class PipedSound:
    """PCM sound from a pipe, which can be read once and may be endless.

    Args:
        file: pipe, at the first sample.
        sample_rate: sample rate in Hz.
        channels: number of channels.
        bits: bits per sample; 8-bit samples are unsigned.
        floating: whether samples are floating-point numbers.
        size: size of all samples in bytes; None if unknown.
        headed: whether the size comes from a header, so that the sound may end earlier.

    Attributes:
        note: phrase about an unusual sound, which is known after all `blocks` were read.
        clipped: number of samples beyond [-1, 1] that were clipped so far.

    Raises:
        Unreadable: the rate or the number of channels is beyond a limit, or the sample format is not supported.
    """

    def __init__(
        self,
        file: IO[bytes],
        sample_rate: int,
        channels: int,
        bits: int = 16,
        *,
        floating: bool = False,
        size: int | None = None,
        headed: bool = False,
    ):
        if not MIN_RATE <= sample_rate <= MAX_RATE:
            raise Unreadable(f"the sample rate is {sample_rate:,} Hz; expected {MIN_RATE:,} to {MAX_RATE:,}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise Unreadable(f"has {channels:,} channels; expected 1 to {MAX_CHANNELS}")
        if bits not in ((32, 64) if floating else (8, 16, 24, 32)):
            raise Unreadable(f"samples of {bits} bits are not supported; send 16-bit PCM")
        self.file, self.sample_rate, self.channels, self.bits = file, sample_rate, channels, bits
        self.floating, self.size, self.headed = floating, size, headed
        self.note: str | None = None
        self.clipped = 0

    def blocks(self, sample_rate: int) -> Iterator[Tensor]:
        """Yields the mean of all channels at a sample rate in blocks `[1, n]`, as soon as they arrive.

        Raises:
            Unreadable: the sound ends too early, or contains values that are not finite or on another scale.
        """
        if sample_rate == self.sample_rate:
            yield from (block.clamp(-1, 1) for block in self._mixed())
            return
        resampler = import_module("soxr").ResampleStream(self.sample_rate, sample_rate, 1, "float32", "HQ")
        for block in self._mixed():
            yield from _filled(resampler.resample_chunk(block.T.numpy()))
        yield from _filled(resampler.resample_chunk(np.zeros((0, 1), np.float32), last=True))

    def _mixed(self) -> Iterator[Tensor]:
        frame, done, held = self.channels * self.bits // 8, 0, b""
        while data := self._next(done):
            held, done = held + data, done + len(data)
            if whole := len(held) // frame * frame:
                samples = _numbers(held[:whole], self.bits, self.floating).view(-1, self.channels)
                self._check(samples, (done - len(held)) // frame)
                self.clipped += beyond(samples)
                held = held[whole:]
                yield samples.mean(dim=1)[None]
        if self.headed:
            if done < frame:
                raise Unreadable("contains no samples")
            lacking = 0 if self.size is None else self.size - done
            self.note = CUT if lacking > TOLERANCE * self.sample_rate * frame else None
        elif held:
            raise Unreadable(
                f"ends within a sample; check that it is {self.bits}-bit PCM with {count(self.channels, 'channel')}"
            )

    def _next(self, done: int) -> bytes:
        """Returns the available bytes, waiting for at least one."""
        wanted = PIPE_BYTES if self.size is None else min(PIPE_BYTES, self.size - done)
        read: Callable[[int], bytes] = getattr(self.file, "read1", self.file.read)
        return read(wanted) if wanted else b""

    def _check(self, samples: Tensor, place: int) -> None:
        if not bool((samples.abs() <= LOUDEST).all()):  # false for NaN
            when = f"within {len(samples):,} samples from {place / self.sample_rate:.3f} s on"
            raise Unreadable(f"contains values that are not finite, or far beyond [-1, 1], {when}")


def _filled(resampled: NDArray[np.float32]) -> Iterator[Tensor]:
    if len(resampled):
        yield torch.from_numpy(resampled).T.clamp(-1, 1)


def _numbers(data: bytes, bits: int, floating: bool) -> Tensor:
    """Returns samples as float32; integers are scaled to [-1, 1)."""
    if floating:
        return torch.frombuffer(bytearray(data), dtype=torch.float32 if bits == 32 else torch.float64).float()
    if bits == 8:
        return (torch.frombuffer(bytearray(data), dtype=torch.uint8).float() - 128) / 128
    size = bits // 8
    wide = np.zeros((len(data) // size, 4), np.uint8)  # the upper bytes of 32-bit integers
    wide[:, 4 - size :] = np.frombuffer(data, np.uint8).reshape(-1, size)
    return torch.from_numpy(wide.view(np.int32)[:, 0]).float() / 2**31


class GivenMel(NamedTuple):
    """A mel as an input: its contract, and a function that reads it, `[1, mels, frames]`."""

    contract: MelContract
    read: Callable[[], Tensor]


def read_pipe(file: IO[bytes], raw: Raw | None = None) -> PipedSound | GivenMel:
    """Reads the start of a pipe with raw samples, a WAV file (possibly still being written), or a mel file.

    Args:
        file: the pipe.
        raw: format of raw samples; None to detect a WAV or mel file.

    Raises:
        Unreadable: the content is none of these, or is damaged.
    """
    if raw is not None:
        return PipedSound(file, raw.sample_rate, raw.channels)
    head = file.read(12)
    if not head:
        raise Unreadable("is empty")
    if head[8:9] == b"{":
        return _read_mel(head, file)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        convert = "convert other formats first (`ffmpeg -i IN -f wav -`)"
        raise Unreadable(f"not a WAV or mel file; {convert}, or use `--raw RATE:CHANNELS:s16` for raw samples")
    return _read_wav(read_wav_header(head, file.read, lambda size: _skip(file, size)), file)


def _read_wav(header: WavHeader, file: IO[bytes]) -> PipedSound:
    """Returns the sound of a WAV file whose header has been read."""
    if len(header.form) < 16:
        raise Unreadable("damaged: its header does not define the format of the samples")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", header.form[:16])
    if kind == EXTENSIBLE and len(header.form) >= 26:
        (kind,) = struct.unpack("<H", header.form[24:26])
    if kind not in (PCM, IEEE_FLOAT):
        raise Unreadable(f"the samples are compressed (format {kind}); send 16-bit PCM")
    if header.size == 0:
        raise Unreadable("contains no samples")
    return PipedSound(file, rate, channels, bits, floating=kind == IEEE_FLOAT, size=header.size, headed=True)


def _skip(file: IO[bytes], size: int) -> None:
    if size > MAX_CHUNK_BYTES:
        raise Unreadable(f"damaged: its header has a chunk of {size:,} bytes")
    if len(file.read(size)) < size:
        raise Unreadable("damaged: ends within its header")


def _read_mel(head: bytes, file: IO[bytes]) -> GivenMel:
    with tempfile.TemporaryDirectory() as folder, writing(folder):
        path = Path(folder, "mel")
        with path.open("wb") as spool:
            spool.write(head)
            while spool.tell() <= MEL_BYTES and (data := file.read(PIPE_BYTES)):
                spool.write(data)
        try:
            mel, contract = read_mel(path)
        except DataError as error:
            raise Unreadable(str(error).removeprefix(f"{path}: ")) from error
    return GivenMel(contract, lambda: mel)


# --- out


class StandardOutput:
    """Output of a `WavWriter` that writes mono 16-bit PCM to standard output instead of a file.

    Args:
        sample_rate: sample rate in Hz.
        raw: whether to omit the WAV header, which declares an unknown length.
    """

    def __init__(self, sample_rate: int, *, raw: bool):
        self.header = b"" if raw else wav_header(sample_rate)

    def write(self, samples: bytes) -> None:
        """Writes 16-bit samples in little-endian order."""
        send(self.header + samples)
        self.header = b""
