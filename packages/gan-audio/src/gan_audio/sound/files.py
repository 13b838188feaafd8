"""Reading of sound files of any sample rate, bit depth and number of channels, in blocks.

Files are decoded by libsndfile. The sample rate, the channels and the length of a file are checked before anything is
decoded, and only the requested part is held in memory. Sound is float32 in [-1, 1], `[channels, samples]`.

Sound is resampled by soxr with quality HQ. In measurements from 44,100 to 16,000 Hz, aliases are at -137 dB or less
(torchaudio's default: -8 dB for a tone just above the new range, or -118 dB with its long Kaiser window), and
frequencies up to 90 % of the new range are passed. soxr needs no table that grows with the ratio of the rates, and the
result in blocks equals that in one piece bit for bit.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from math import gcd
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from gan_audio.sound.wav import read_wav_header
from gan_core.data.files import Files, FolderFiles, open_member
from gan_core.data.limits import DAMAGED
from gan_core.errors import Unreadable, count, reason_of

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""File name suffixes of sounds."""
FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"})
"""Accepted formats, as libsndfile names them. Its other formats are rare and would increase the attack surface."""
MAX_BYTES = 2**36
"""Maximum size of a sound file in bytes."""
MAX_PACKED = 2**28
"""Maximum size in bytes of a sound in an archive, which is unpacked to memory."""
MIN_RATE, MAX_RATE = 1_000, 768_000
"""Minimum and maximum sample rate in Hz."""
MAX_CHANNELS = 64
"""Maximum number of channels."""
MAX_SECONDS = 48 * 3600
"""Maximum duration in seconds."""
MIN_LENGTH = 32
"""Minimum number of samples per channel: 2 ms at 16 kHz."""
MAX_HELD = 2**28
"""Maximum number of samples, of all channels together, that `read_sound` returns: 1 GiB."""
LOUDEST = 16.0
"""Maximum magnitude of floating-point samples, +24 dB. Files with larger values are rejected as being on another scale;
smaller values above 1 are clipped."""
BLOCK = 2**16
"""Number of samples per channel that are decoded at once."""
TOLERANCE = 0.01
"""Duration in seconds by which a WAV file may be shorter than its header declares, since some programs miscount."""
LEAD = 16 * 1152
"""Number of samples that are decoded before a position in an MP3, whose frames depend on earlier ones."""
MARGIN = 256
"""Number of samples before and after a slice that are resampled with it, at the lower of both rates."""


class Header(NamedTuple):
    """Sample rate in Hz, number of channels and samples per channel, as a sound file declares them."""

    sample_rate: int
    channels: int
    length: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.length / self.sample_rate

    def length_at(self, sample_rate: int) -> int:
        """Returns the number of samples per channel after resampling to `sample_rate`."""
        return self.length * sample_rate // self.sample_rate


def read_header(files: Files, name: str) -> Header:
    """Reads the header of a sound file.

    Raises:
        Unreadable: see `opened`.
    """
    with opened(files, name) as sound:
        return header_of(sound)


@contextmanager
def opened(files: Files, name: str) -> Iterator[Any]:
    """Context manager that yields a `soundfile.SoundFile` after checking its format, rate, channels and length.

    Raises:
        Unreadable: the file is empty, not a sound file, beyond a limit, or damaged (even if that is only discovered
            inside the `with` block, since nothing is decoded before).
    """
    in_folder = isinstance(files, FolderFiles)
    with guarded(), open_member(files, name, most_bytes=MAX_BYTES if in_folder else MAX_PACKED) as file:
        if not files.sizes[name]:
            raise Unreadable("the file is empty")
        # libsndfile reads a file by its descriptor, and a packed one from memory, because it seeks back and forth.
        with open_sound(file.fileno() if in_folder else io.BytesIO(file.read())) as sound:
            yield sound


@contextmanager
def open_sound(file: int | IO[bytes]) -> Iterator[Any]:
    """Context manager that yields a `soundfile.SoundFile` of an open file or its descriptor, checked as in `opened`.

    Raises:
        Unreadable: see `opened`.
    """
    with guarded():
        present = fraction_present(file)
    with guarded(), import_module("soundfile").SoundFile(file, closefd=False) as sound:
        if sound.format == "MP3":
            # Without this, soundfile seeks after every read, and libsndfile loses the state that MP3 frames need.
            sound.seekable = lambda: False
        check_limits(sound, present)
        yield sound


def check_limits(sound: Any, present: float | None) -> None:
    """Checks the format, rate, channels and length of an open sound file.

    Args:
        sound: open file.
        present: fraction of the samples that are present; see `fraction_present`.

    Raises:
        Unreadable: the file is beyond a limit, or cut short.
    """
    header = header_of(sound)
    if sound.format not in FORMATS:
        raise Unreadable(f"the format is {sound.format}; expected {', '.join(SUFFIXES)}")
    if not MIN_RATE <= header.sample_rate <= MAX_RATE:
        raise Unreadable(f"the sample rate is {header.sample_rate:,} Hz; expected {MIN_RATE:,} to {MAX_RATE:,}")
    if header.channels > MAX_CHANNELS:
        raise Unreadable(f"has {header.channels:,} channels; the maximum is {MAX_CHANNELS}")
    if header.seconds > MAX_SECONDS:
        raise Unreadable(f"{header.seconds / 3600:,.0f} hours long; the maximum is {MAX_SECONDS // 3600}")
    if header.length < MIN_LENGTH:
        raise Unreadable(f"contains {count(header.length, 'sample')}; expected {MIN_LENGTH} or more")
    if present is not None and (1 / present - 1) * header.seconds > TOLERANCE:
        raise Unreadable(f"damaged: ends after {header.seconds:.2f} of {header.seconds / present:.2f} s")


def fraction_present(file: int | IO[bytes]) -> float | None:
    """Returns the fraction of the declared samples that a truncated WAV file contains; libsndfile does not report it.

    Returns None if the file is complete, not a WAV file, or of unknown length. Seeks to the start of the file.
    """
    with open(file, "rb", closefd=False) if isinstance(file, int) else nullcontext(file) as stream:
        stream.seek(0)
        try:
            header = read_wav_header(stream.read(12), stream.read, lambda size: stream.seek(size, os.SEEK_CUR))
        except Unreadable:
            return None  # libsndfile decides whether it can be read
        finally:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(0)
    found = length - header.place
    return found / header.size if header.size and 0 < found < header.size else None


def header_of(sound: Any) -> Header:
    """Returns the header of an open file."""
    return Header(sound.samplerate, sound.channels, max(0, sound.frames))


def read_blocks(
    sound: Any,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: int = 0,
    length: int | None = None,
) -> Iterator[Tensor]:
    """Reads a part of an open file in blocks `[channels, n]`.

    Args:
        sound: open file.
        sample_rate: sample rate of the result in Hz (default: the file's).
        channels: number of channels of the result (default: the file's). For 1, all channels are averaged; a single
            channel is copied to several.
        start: first sample, at the file's rate.
        length: number of samples, at the file's rate (default: to the end).

    Raises:
        Unreadable: the file is damaged, ends too early, contains values that are not finite or on another scale, or
            its channels cannot be converted.
    """
    header = header_of(sound)
    wanted = channels or header.channels
    check_channels(header.channels, wanted)
    left = header.length - start if length is None else length
    resampler = None
    if sample_rate not in (None, header.sample_rate):
        mixed = min(wanted, header.channels)  # copies of one channel are made after resampling
        resampler = import_module("soxr").ResampleStream(header.sample_rate, sample_rate, mixed, "float32", "HQ")
    with guarded():
        place = _seek(sound, start, header)
        while left > 0:
            block = _decoded(sound, min(left, BLOCK), header, place)
            left, place = left - block.shape[1], place + block.shape[1]
            if wanted < len(block):
                block = block.mean(dim=0, keepdim=True)
            if resampler is not None:
                block = torch.from_numpy(resampler.resample_chunk(block.T.numpy(), last=left == 0)).T
            if block.shape[1]:
                yield block.clamp(-1, 1).expand(wanted, -1)


def _seek(sound: Any, start: int, header: Header) -> int:
    """Seeks to a sample and returns `start`. In an MP3 file, some samples before it are decoded first."""
    place = max(0, start - LEAD) if sound.format == "MP3" else start
    sound.seek(place)
    if place < start:
        _decoded(sound, start - place, header, place)
    return start


def read_sound(
    files: Files,
    name: str,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: int = 0,
    length: int | None = None,
) -> Tensor:
    """Reads a sound, or a slice of it, as one tensor `[channels, length]`.

    At any sample rate, a slice equals the same part of the whole sound, up to rounding.

    Args:
        files: folder or archive.
        name: name of the file in it.
        sample_rate: sample rate of the result in Hz (default: the file's).
        channels: see `read_blocks`.
        start: first sample, at the rate of the result.
        length: number of samples, at the rate of the result (default: to the end).

    Raises:
        Unreadable: see `opened` and `read_blocks`; or the result is too large for memory.
    """
    with opened(files, name) as sound:
        header = header_of(sound)
        rate = sample_rate or header.sample_rate
        length = header.length_at(rate) - start if length is None else length
        if (held := length * (channels or header.channels)) > MAX_HELD:
            raise Unreadable(f"{held:,} samples; at most {MAX_HELD:,} can be read at once. Read it in blocks")
        # `up` samples of the result have the duration of `down` samples of the file: the slice that is resampled
        # starts at a common multiple, so that the phase of the resampler is that of the whole sound.
        common = gcd(rate, header.sample_rate)
        up, down = rate // common, header.sample_rate // common
        before, after = -(-MARGIN * up // min(up, down)), -(-MARGIN * down // min(up, down))
        period = max(0, start - before) // up
        end = min(header.length, -(-(start + length) * down // up) + after)
        blocks = read_blocks(
            sound, sample_rate=rate, channels=channels, start=period * down, length=end - period * down
        )
        skipped = start - period * up
        return torch.cat(list(blocks), dim=1)[:, skipped : skipped + length]


def check_channels(given: int, wanted: int) -> None:
    """Checks that channels can be converted: they are unchanged, averaged to one, or copied from one.

    Raises:
        Unreadable: they cannot.
    """
    if wanted not in (1, given) and given != 1:
        raise Unreadable(f"has {given} channels, which cannot be converted to {wanted}; use 1 or {given}")


def loud_part(blocks: Iterable[Tensor], sample_rate: int, *, decibels: float) -> tuple[int, int]:
    """Finds where a sound begins and ends, without the silence before and after it.

    Args:
        blocks: the sound, `[channels, n]` each.
        sample_rate: sample rate in Hz.
        decibels: threshold of silence: blocks of 10 ms are silent if their mean power is at least this far below that
            of the loudest block.

    Returns:
        The index of the first sample, and the index after the last sample.

    Raises:
        Unreadable: the sound is silent throughout.
    """
    step, length = max(1, sample_rate // 100), 0
    powers: list[Tensor] = []
    held: Tensor | None = None
    for block in blocks:
        length += block.shape[1]
        held = block if held is None else torch.cat([held, block], dim=1)
        whole = held.shape[1] // step * step
        powers.append(held[:, :whole].reshape(len(held), -1, step).square().mean(dim=(0, 2)))
        held = held[:, whole:]
    if held is not None and held.shape[1]:
        powers.append(held.square().mean()[None])
    power = torch.cat(powers)
    loud = torch.nonzero(power > power.max() * 10 ** (-decibels / 10)).flatten()
    if not len(loud):
        raise Unreadable("is silent throughout")
    return int(loud[0]) * step, min((int(loud[-1]) + 1) * step, length)


@contextmanager
def guarded() -> Iterator[None]:
    """Context manager that converts errors of libsndfile and archive readers on damaged content to `Unreadable`."""
    try:
        yield
    except DAMAGED as error:
        reason = getattr(error, "error_string", None)  # libsndfile's message without the name of the file object
        if reason == "Format not recognised.":
            raise Unreadable("not a readable sound file, or damaged at its start") from error
        raise Unreadable(str(reason).removeprefix("Error : ").rstrip(".") if reason else reason_of(error)) from error


def _decoded(sound: Any, length: int, header: Header, place: int) -> Tensor:
    """Decodes and checks the next samples `[channels, length]`, which start at `place`."""
    block = torch.from_numpy(sound.read(length, dtype="float32", always_2d=True)).T
    if block.shape[1] < length:
        ends = (place + block.shape[1]) / header.sample_rate
        raise Unreadable(f"damaged: ends after {ends:.2f} of {header.seconds:.2f} s")
    peak = float(block.abs().max())
    if peak <= LOUDEST:  # false for NaN
        return block
    bad = torch.nonzero(~(block.abs() <= LOUDEST).all(dim=0))[0]
    when = f"from {(place + int(bad)) / header.sample_rate:.3f} s on"
    if not block.isfinite().all():
        raise Unreadable(f"contains values that are not finite, {when}")
    raise Unreadable(f"contains values up to {peak:,.0f}, {when}; expected [-1, 1], so scale them or save as PCM")
