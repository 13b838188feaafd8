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
import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import accumulate
from math import gcd
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gan_audio.sound.layout import CUT, MAX_SECONDS, View, layout_of
from gan_audio.sound.wav import KINDS
from gan_core.data.files import Files, FolderFiles, open_member
from gan_core.data.limits import DAMAGED
from gan_core.errors import NAMED, Unreadable, count, printable, reason_of

SUFFIXES = (".wav", ".wave", ".bwf", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc")
"""File name suffixes of sounds, in lower case; upper and lower case match."""
FOREIGN = (
    *(".3gp", ".aa", ".aac", ".aax", ".ac3", ".amr", ".ape", ".au", ".caf", ".dff", ".dsf"),
    *(".dts", ".eac3", ".m4a", ".m4b", ".m4r", ".mka", ".mp2", ".mp4", ".mpc", ".mpga", ".ra"),
    *(".snd", ".spx", ".tta", ".voc", ".w64", ".weba", ".webm", ".wma", ".wv"),
)
"""File name suffixes of sounds in other formats, which must be converted."""
CONVERT = "WAV or FLAC (`ffmpeg -i IN OUT.wav`)"
"""Formats to which such files can be converted."""
FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF"})
"""Accepted formats, by libsndfile's names. Its other formats are rare and would increase the attack surface."""
EXPECTED = "WAV, FLAC, Ogg, MP3 or AIFF"
"""The accepted formats in messages."""
MAX_BYTES = 2**36
"""Maximum size of a sound file in bytes."""
MAX_PACKED = 2**28
"""Maximum size in bytes of a sound in an archive, which is unpacked to memory."""
MIN_RATE, MAX_RATE = 1_000, 768_000
"""Minimum and maximum sample rate in Hz."""
MAX_CHANNELS = 64
"""Maximum number of channels."""
MIN_LENGTH = 32
"""Minimum number of samples per channel: 2 ms at 16 kHz."""
MAX_HELD = 2**28
"""Maximum number of samples, of all channels together, that `read_sound` returns: 1 GiB."""
LOUDEST = 16.0
"""Maximum magnitude of floating-point samples, +24 dB. Larger values are rejected as being on another scale."""
BLOCK = 2**16
"""Number of samples per channel that are decoded at once."""
TOLERANCE = 0.01
"""Duration in seconds by which a WAV file may be shorter than its header declares, since some programs miscount."""
LEAD = 16 * 1152
"""Number of samples that are decoded before a position in an MP3."""
MARGIN = 256
"""Number of samples before and after a slice that are resampled with it, at the lower of both rates."""

logger = logging.getLogger("gan_audio")


class Header(NamedTuple):
    """Sample rate in Hz, number of channels and samples per channel of a sound file.

    Attributes:
        note: phrase about an unusual file, which follows `1 sound`; None for usual files.
    """

    sample_rate: int
    channels: int
    length: int
    note: str | None = None

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
        return sound.header


class Sound:
    """An open sound file, which may consist of several streams.

    Args:
        file: the file, on disk or in memory.
        stack: exit stack that closes the file's decoders.

    Attributes:
        header: sample rate, channels and length.
        format: libsndfile's name of the file format.
        encoding: libsndfile's name of the sample encoding.
        clipped: number of samples beyond [-1, 1] that `read_blocks` has clipped so far.

    Raises:
        Unreadable: see `opened`.
    """

    def __init__(self, file: IO[bytes], stack: ExitStack):
        layout = layout_of(file)
        self._file, self._stack, self._parts = file, stack, layout.parts
        self._lengths: list[int] = []
        self._part, self._left = -1, 0  # the open part, and the number of its samples that were not read yet
        first = self._sound = self._open(0)
        self.format, self.encoding, self.clipped = str(first.format), str(first.subtype), 0
        shape = first.samplerate, first.channels
        for number, part in enumerate(self._parts or (None,)):
            sound = self._open(number)
            if (sound.samplerate, sound.channels) != shape:
                both = f"{shape[0]:,} Hz with {count(shape[1], 'channel')}, then {sound.samplerate:,} Hz with"
                raise Unreadable(f"consists of different streams ({both} {count(sound.channels, 'channel')}); split it")
            if part is not None and part.length is not None and not 0 <= part.length - sound.frames <= part.padding:
                raise Unreadable(f"damaged: {sound.frames:,} of {part.length:,} samples can be decoded")
            self._lengths.append(max(0, sound.frames))
        self._starts = [0, *accumulate(self._lengths)]
        self.header = Header(*shape, self._starts[-1], layout.note)
        self._check(layout.present)

    def _open(self, number: int) -> Any:
        """Returns a decoder of a part of the file, at its start."""
        if number != self._part:
            soundfile = import_module("soundfile")
            self._stack.close()
            if self._parts:
                sound = soundfile.SoundFile(View(self._file, self._parts[number].pieces))
            elif isinstance(self._file, io.BytesIO):
                self._file.seek(0)
                sound = soundfile.SoundFile(self._file)
            else:  # libsndfile reads a file on disk by its descriptor
                os.lseek(self._file.fileno(), 0, os.SEEK_SET)
                sound = soundfile.SoundFile(self._file.fileno(), closefd=False)
            self._sound, self._part = self._stack.enter_context(sound), number
            if sound.format == "MP3":
                # Without this, soundfile seeks after every read, and libsndfile loses the state that MP3 frames need.
                sound.seekable = lambda: False
        return self._sound

    def _check(self, present: float | None) -> None:
        header = self.header
        if self.format not in FORMATS:
            raise Unreadable(f"the format is {self.format}; expected {EXPECTED}")
        if not MIN_RATE <= header.sample_rate <= MAX_RATE:
            raise Unreadable(f"the sample rate is {header.sample_rate:,} Hz; expected {MIN_RATE:,} to {MAX_RATE:,}")
        if header.channels > MAX_CHANNELS:
            raise Unreadable(f"has {header.channels:,} channels; the maximum is {MAX_CHANNELS}")
        if header.seconds > MAX_SECONDS:
            raise Unreadable(f"{header.seconds / 3600:,.0f} hours long; the maximum is {MAX_SECONDS // 3600}")
        if header.length < MIN_LENGTH:
            raise Unreadable(f"contains {count(header.length, 'sample')}; expected {MIN_LENGTH} or more")
        if present is not None and (1 / present - 1) * header.seconds > TOLERANCE:
            self.header = header._replace(note=CUT)

    def seek(self, place: int) -> None:
        """Seeks to a sample."""
        number = min(bisect_right(self._starts, place), len(self._lengths)) - 1
        sound, within = self._open(number), place - self._starts[number]
        # The frames of an MP3 file depend on earlier ones, so some samples before the position are decoded.
        lead = min(within, LEAD) if self.format == "MP3" else 0
        sound.seek(within - lead)
        if lead:
            sound.read(lead, dtype="float32")
        self._left = self._lengths[number] - within

    def read(self, length: int) -> Tensor:
        """Decodes the next samples `[channels, length]`; fewer only at the end of the file, or of damaged content."""
        blocks, missing = list[Any](), length
        while missing:
            if not self._left and self._part + 1 < len(self._lengths):
                self.seek(self._starts[self._part + 1])
            block = self._sound.read(min(missing, self._left), dtype="float32", always_2d=True)
            if not len(block):
                break
            blocks.append(block)
            missing, self._left = missing - len(block), self._left - len(block)
        if not blocks:
            return torch.zeros(self.header.channels, 0)
        return torch.from_numpy(blocks[0] if len(blocks) == 1 else np.concatenate(blocks)).T


@contextmanager
def opened(files: Files, name: str) -> Iterator[Sound]:
    """Context manager that yields a sound file after checking its format, rate, channels and length.

    Raises:
        Unreadable: the file is empty, not a sound file, beyond a limit, or damaged (even if that is only discovered
            inside the `with` block, since nothing is decoded before).
    """
    in_folder = isinstance(files, FolderFiles)
    with guarded(), open_member(files, name, most_bytes=MAX_BYTES if in_folder else MAX_PACKED) as file:
        if not files.sizes[name]:
            raise Unreadable("the file is empty")
        # A packed file is read from memory, because libsndfile seeks back and forth.
        with open_sound(file if in_folder else io.BytesIO(file.read())) as sound:
            yield sound


@contextmanager
def open_sound(file: IO[bytes]) -> Iterator[Sound]:
    """Context manager that yields the sound of an open file, on disk or in memory, checked as in `opened`.

    Raises:
        Unreadable: see `opened`.
    """
    with guarded(), ExitStack() as stack:
        yield Sound(file, stack)


def read_blocks(
    sound: Sound,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: int = 0,
    length: int | None = None,
    clip: bool = True,
) -> Iterator[Tensor]:
    """Reads a part of an open file in blocks `[channels, n]`.

    Args:
        sound: open file, which counts the clipped samples.
        sample_rate: sample rate of the result in Hz (default: the file's).
        channels: number of channels of the result (default: the file's). For 1, all channels are averaged; a single
            channel is copied to several.
        start: first sample, at the file's rate.
        length: number of samples, at the file's rate (default: to the end).
        clip: whether the result is clipped to [-1, 1], instead of up to `LOUDEST`, to be scaled.

    Raises:
        Unreadable: the file is damaged, ends too early, contains values that are not finite or on another scale, or
            its channels cannot be converted.
    """
    header = sound.header
    wanted = channels or header.channels
    check_channels(header.channels, wanted)
    left = header.length - start if length is None else length
    resampler = None
    if sample_rate not in (None, header.sample_rate):
        mixed = min(wanted, header.channels)  # copies of one channel are made after resampling
        resampler = import_module("soxr").ResampleStream(header.sample_rate, sample_rate, mixed, "float32", "HQ")
    with guarded():
        sound.seek(start)
        place = start
        while left > 0:
            block = _decoded(sound, min(left, BLOCK), place)
            left, place = left - block.shape[1], place + block.shape[1]
            if clip:
                sound.clipped += beyond(block)
            if wanted < len(block):
                block = block.mean(dim=0, keepdim=True)
            if resampler is not None:
                block = torch.from_numpy(resampler.resample_chunk(block.T.numpy(), last=left == 0)).T
            if block.shape[1]:
                yield (block.clamp(-1, 1) if clip else block).expand(wanted, -1)


def beyond(block: Tensor) -> int:
    """Returns the number of samples beyond [-1, 1]."""
    return int((block.abs() > 1).sum())


def read_sound(
    files: Files,
    name: str,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: int = 0,
    length: int | None = None,
    clip: bool = True,
    clipped: Callable[[int], object] = lambda number: None,
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
        clip: see `read_blocks`.
        clipped: called with the number of clipped samples, if there are any.

    Raises:
        Unreadable: see `opened` and `read_blocks`; or the result is too large for memory.
    """
    with opened(files, name) as sound:
        header = sound.header
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
        part = {"start": period * down, "length": end - period * down}
        blocks = list(read_blocks(sound, sample_rate=rate, channels=channels, clip=clip, **part))
        if sound.clipped:
            clipped(sound.clipped)
        skipped = start - period * up
        return torch.cat(blocks, dim=1)[:, skipped : skipped + length]


def looks_like_sound(start: bytes) -> bool:
    """Returns whether a file with these first bytes may be a sound that can be read, whatever its name is."""
    in_chunks = (start[:4] in KINDS and start[8:12] == b"WAVE") or start[8:12] in (b"AIFF", b"AIFC")
    return in_chunks or start.startswith((b"fLaC", b"OggS", b"ID3"))


def report_notes(notes: Mapping[str, str | None], *, where: str | None = None) -> None:
    """Logs a warning for each kind of unusual files; see `Header.note`.

    Args:
        notes: note by file name; None for usual files.
        where: prefix of the messages, such as the folder (default: none).
    """
    for note in dict.fromkeys(filter(None, notes.values())):
        names = [name for name, own in notes.items() if own == note]
        logger.warning("%s%s %s: %s", f"{where}: " if where else "", count(len(names), "sound"), note, listed(names))


def report_clipped(clipped: Mapping[str, int], *, remedy: str, where: str | None = None) -> None:
    """Logs a warning about clipped samples, if there are any.

    Args:
        clipped: number of clipped samples by file name.
        remedy: advice at the end of the message.
        where: prefix of the message, such as the folder (default: none).
    """
    names = [f"{name} ({number:,})" for name, number in clipped.items() if number]
    if names:
        what = f"{where}: " if where else ""
        what += f"{count(len(names), 'sound')} with samples beyond [-1, 1], which were clipped"
        logger.warning("%s: %s; %s", what, listed(names), remedy)


def listed(names: Sequence[str]) -> str:
    """Returns the first `NAMED` names, and the number of the others."""
    more = f", and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(printable, names[:NAMED])) + more


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
        if str(reason).startswith(("Format not recognised", "File does not exist")):  # of a decoder without a frame
            raise Unreadable("not a readable sound file, or damaged at its start") from error
        raise Unreadable(str(reason).removeprefix("Error : ").rstrip(".") if reason else reason_of(error)) from error


def _decoded(sound: Sound, length: int, place: int) -> Tensor:
    """Decodes and checks the next samples `[channels, length]`, which start at `place`."""
    header, block = sound.header, sound.read(length)
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
