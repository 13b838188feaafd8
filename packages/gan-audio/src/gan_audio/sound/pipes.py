"""Sounds and mels as they come, from files and through pipes, block by block; and sound into pipes.

A pipe cannot be gone back in, and what writes into it may not know how much will come.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_audio.mel.contract import MEL_BYTES, MelContract, read_mel
from gan_audio.sound.files import LOUDEST, MAX_CHANNELS, MAX_RATE, MIN_RATE, UNKNOWN, header_of, open_sound, read_blocks
from gan_core.errors import DataError, InputError, Unreadable, count, writing
from gan_core.jobs import send

PIPE_BYTES = 2**16
"""Maximum number of bytes read from a pipe at once, which is a pipe's capacity."""
HEADER_BYTES = 2**20
"""Maximum size of a part of a WAV header, in bytes."""
HEADER_PARTS = 64
"""Maximum number of parts of a WAV header."""
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
"""Bits per sample of libsndfile's encodings; lossy ones have none."""


class Raw(NamedTuple):
    """Format of raw samples, signed 16-bit numbers: sample rate in Hz and number of channels."""

    sample_rate: int
    channels: int

    @classmethod
    def parse(cls, text: str) -> Raw:
        """Of `RATE:CHANNELS:s16`.

        Raises:
            InputError: it is written otherwise, or not 16-bit.
        """
        rate, _, rest = text.partition(":")
        channels, _, form = rest.partition(":")
        if form != "s16" or not (rate.isdecimal() and channels.isdecimal()):
            raise InputError(f"`--raw` is {text}; write RATE:CHANNELS:s16, for instance 22050:1:s16: no other is read")
        return cls(int(rate), int(channels))


# --- in


class FileSound:
    """A sound file, of which nothing is decoded yet: its rate in Hz, its channels, and the bits of a sample.

    Raises:
        Unreadable: see `gan_audio.sound.files.opened`.
    """

    def __init__(self, path: Path):
        self.path = path
        with opened(path) as sound:
            self.sample_rate, self.channels, self.length = header_of(sound)
            self.format, self.encoding = str(sound.format), str(sound.subtype)
        self.bits = BITS.get(self.encoding)

    def blocks(self, sample_rate: int) -> Iterator[Tensor]:
        """Blocks `[1, n]` of the channels' mean at a rate; see `gan_audio.sound.files.read_blocks`."""
        with opened(self.path) as sound:
            yield from read_blocks(sound, sample_rate=sample_rate, channels=1)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A `soundfile.SoundFile` of a file, checked as in `gan_audio.sound.files.opened`.

    Raises:
        Unreadable: see there.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror})") from error
    with file:
        if not os.fstat(file.fileno()).st_size:
            raise Unreadable("the file is empty")
        with open_sound(file.fileno()) as sound:
            yield sound


class PipedSound:
    """Sound that comes through a pipe as PCM, once, and perhaps without end.

    Args:
        file: the pipe, where the samples begin.
        sample_rate: in Hz.
        channels: how many.
        bits: of a sample; 8 of them are unsigned.
        floating: whether samples are floating-point numbers.
        size: of all samples in bytes; None where it is not known.

    Raises:
        Unreadable: the rate or the channels are beyond a limit, or samples of that kind are not read.
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
    ):
        if not MIN_RATE <= sample_rate <= MAX_RATE:
            raise Unreadable(f"{sample_rate:,} Hz; from {MIN_RATE:,} to {MAX_RATE:,} are read")
        if not 1 <= channels <= MAX_CHANNELS:
            raise Unreadable(f"{channels:,} channels; from 1 to {MAX_CHANNELS} are read")
        if bits not in ((32, 64) if floating else (8, 16, 24, 32)):
            raise Unreadable(f"samples of {bits} bits, which are not read; send 16-bit PCM")
        self.file, self.sample_rate, self.channels, self.bits = file, sample_rate, channels, bits
        self.floating, self.size = floating, size

    def blocks(self, sample_rate: int) -> Iterator[Tensor]:
        """Blocks `[1, n]` of the channels' mean at a rate, as soon as they come.

        Raises:
            Unreadable: it ends before its time, or holds values that are not finite or on another scale.
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
                held = held[whole:]
                yield samples.mean(dim=1)[None]
        if self.size is not None and done < self.size:
            seconds = [size // frame / self.sample_rate for size in (done, self.size)]
            raise Unreadable(f"damaged: ends after {seconds[0]:.2f} of {seconds[1]:.2f} s")
        if held:
            raise Unreadable(f"ends within a sample: is it of {count(self.channels, 'channel')}, {self.bits}-bit?")

    def _next(self, done: int) -> bytes:
        """Returns the available bytes, waiting for at least one."""
        wanted = PIPE_BYTES if self.size is None else min(PIPE_BYTES, self.size - done)
        read: Callable[[int], bytes] = getattr(self.file, "read1", self.file.read)
        return read(wanted) if wanted else b""

    def _check(self, samples: Tensor, place: int) -> None:
        if not bool((samples.abs() <= LOUDEST).all()):  # not so if one is not a number
            when = f"within {len(samples):,} samples from {place / self.sample_rate:.3f} s on"
            raise Unreadable(f"holds values that are not finite, or on another scale than [-1, 1], {when}")


def _filled(resampled: NDArray[np.float32]) -> Iterator[Tensor]:
    if len(resampled):
        yield torch.from_numpy(resampled).T.clamp(-1, 1)


def _numbers(data: bytes, bits: int, floating: bool) -> Tensor:
    """Samples as float32, whole numbers from -1 up to 1."""
    if floating:
        return torch.frombuffer(bytearray(data), dtype=torch.float32 if bits == 32 else torch.float64).float()
    if bits == 8:
        return (torch.frombuffer(bytearray(data), dtype=torch.uint8).float() - 128) / 128
    size = bits // 8
    wide = np.zeros((len(data) // size, 4), np.uint8)  # 32 bits, of which the upper ones are theirs
    wide[:, 4 - size :] = np.frombuffer(data, np.uint8).reshape(-1, size)
    return torch.from_numpy(wide.view(np.int32)[:, 0]).float() / 2**31


class GivenMel(NamedTuple):
    """A mel's contract, and how it is read, `[1, mels, frames]`."""

    contract: MelContract
    read: Callable[[], Tensor]


def receive(file: IO[bytes], raw: Raw | None = None) -> PipedSound | GivenMel:
    """Reads a pipe: raw samples, a WAV file while it is written, or a mel file.

    Raises:
        Unreadable: it is neither, or damaged.
    """
    if raw is not None:
        return PipedSound(file, raw.sample_rate, raw.channels)
    head = file.read(12)
    if not head:
        raise Unreadable("is empty")
    if head[8:9] == b"{":
        return _received_mel(head, file)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise Unreadable("is neither a WAV nor a mel file; for raw samples, give `--raw RATE:CHANNELS:s16`")
    (whole,) = struct.unpack("<I", head[4:8])
    form, place = None, 4  # in the file as its size counts it
    for _ in range(HEADER_PARTS):
        name, size = struct.unpack("<4sI", _exactly(file, 8))
        place += 8
        if name == b"data":
            break
        if size > HEADER_BYTES:
            raise Unreadable(f"damaged: its header has a part of {size:,} bytes")
        part = _exactly(file, size + size % 2)
        place += len(part)
        form = part if name == b"fmt " else form
    else:
        raise Unreadable(f"damaged: no samples follow the first {HEADER_PARTS} parts of its header")
    if form is None or len(form) < 16:
        raise Unreadable("damaged: its header does not say what its samples are")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", form[:16])
    if kind == 0xFFFE and len(form) >= 26:  # "extensible", which says it further on
        (kind,) = struct.unpack("<H", form[24:26])
    if kind not in (1, 3):
        raise Unreadable(f"a WAV whose samples are compressed (format {kind}); send 16-bit PCM")
    if size == 0 and place < whole < UNKNOWN:  # what follows is no sound, but other parts
        raise Unreadable("holds no samples")
    known = 0 < size < UNKNOWN
    return PipedSound(file, rate, channels, bits, floating=kind == 3, size=size if known else None)


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise Unreadable("damaged: ends within its header")
    return data


def _received_mel(head: bytes, file: IO[bytes]) -> GivenMel:
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
        sample_rate: in Hz.
        raw: whether no WAV header comes before. That says that the length is not known, as those of pipes do.
    """

    def __init__(self, sample_rate: int, *, raw: bool):
        form = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
        endless = struct.pack("<I", 2**32 - 1)
        self.header = b"" if raw else b"RIFF" + endless + b"WAVEfmt " + form + b"data" + endless

    def write(self, samples: NDArray[np.int16]) -> None:
        """Writes samples `[n, 1]`."""
        send(self.header + samples.astype("<i2").tobytes())
        self.header = b""
