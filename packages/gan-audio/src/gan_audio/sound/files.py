"""Sound files as users have them: of any rate, bit depth and number of channels, read in blocks, and nothing trusted.

libsndfile decodes. A file's rate, channels and length are checked before anything of it is, and no more of it is held
than is asked for, so an hour takes no more memory than a second. Sound is float32 in [-1, 1], `[channels, samples]`.

Sound is brought to another rate by soxr at its setting HQ: measured from 44,100 to 16,000 Hz, what lies above the new
range comes back at -137 dB or less (torchaudio's default: -8 dB for a tone just above, and -118 dB with its long Kaiser
window), it passes what lies below up to nine tenths, it needs no table that grows with the rates' ratio, and fed in
blocks it gives bit for bit what it gives at once.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from math import gcd
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from gan_core.data.files import Files, FolderFiles, open_member
from gan_core.data.limits import DAMAGED
from gan_core.errors import DataError, InputError, Unreadable, reason_of
from gan_core.media.writing import replacing

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"})
"""libsndfile's names of them; it reads others, which nobody needs and somebody could abuse."""
MAX_BYTES = 2**36
MAX_PACKED = 2**28
"""The largest file of an archive that is read, in bytes: it is unpacked to memory."""
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64
MAX_SECONDS = 48 * 3600
MIN_LENGTH = 32
"""The fewest samples that are a sound: 2 ms at 16 kHz."""
MAX_HELD = 2**28
"""The most samples of all channels that are read in one piece: 1 GiB."""
LOUDEST = 16.0
"""Floating-point samples beyond it (+24 dB) are on another scale than [-1, 1]; those below are cut at 1."""
MAX_WAV = 2**32 - 2**12
"""The most bytes of samples that are written to a WAV file, whose sizes have 32 bits; there is a header besides."""
BLOCK = 2**16
"""Samples of each channel that are decoded at a time."""
UNKNOWN = 2**31 - 2**16
"""Sizes from here on are what programs write before a WAV whose length they do not know; some write 0."""
MAX_PARTS = 1000
"""Maximum number of chunks of a WAV file that are searched for its samples."""
MISSING = 0.01
"""Seconds that a WAV may be shorter than it says, which some programs count wrongly by a few bytes."""
LEAD = 16 * 1152
"""Samples that are decoded and left out before a place in the middle of an MP3: its frames borrow from those before."""
MARGIN = 256
"""Samples before and after a slice that resampling it looks at, at the lower of both rates."""


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
    """Opens a `soundfile.SoundFile` and checks its format, rate, channels and length; decodes nothing yet.

    Raises:
        Unreadable: the file is empty, no sound file, beyond a limit, or damaged (also if this shows inside the `with`).
    """
    in_folder = isinstance(files, FolderFiles)
    with guarded(), open_member(files, name, most_bytes=MAX_BYTES if in_folder else MAX_PACKED) as file:
        if not files.sizes[name]:
            raise Unreadable("the file is empty")
        # A file of its own is read by libsndfile itself; a packed one from memory, as it is read back and forth.
        with open_sound(file.fileno() if in_folder else io.BytesIO(file.read())) as sound:
            yield sound


@contextmanager
def open_sound(file: int | IO[bytes]) -> Iterator[Any]:
    """Opens a `soundfile.SoundFile` on an open file (or its descriptor), checked as in `opened`.

    Raises:
        Unreadable: see `opened`.
    """
    with guarded():
        share = share_there(file)
    with guarded(), import_module("soundfile").SoundFile(file, closefd=False) as sound:
        if sound.format == "MP3":
            # soundfile seeks after every read where it can, and libsndfile then forgets what an MP3's frames borrow.
            sound.seekable = lambda: False
        if sound.format not in FORMATS:
            raise Unreadable(f"a file of the format {sound.format}; save it as {', '.join(SUFFIXES)}")
        header = header_of(sound)
        if not MIN_RATE <= header.sample_rate <= MAX_RATE:
            raise Unreadable(f"{header.sample_rate:,} Hz; from {MIN_RATE:,} to {MAX_RATE:,} are read")
        if header.channels > MAX_CHANNELS:
            raise Unreadable(f"{header.channels:,} channels, at most {MAX_CHANNELS} are read")
        if header.seconds > MAX_SECONDS:
            raise Unreadable(f"{header.seconds / 3600:,.0f} hours long, at most {MAX_SECONDS // 3600} are read")
        if header.length < MIN_LENGTH:
            samples = f"{header.length} sample{'' if header.length == 1 else 's'}"
            raise Unreadable(f"holds {samples}, and a sound has {MIN_LENGTH} or more")
        if share is not None and (1 / share - 1) * header.seconds > MISSING:
            raise Unreadable(f"damaged: ends after {header.seconds:.2f} of {header.seconds / share:.2f} s")
        yield sound


def share_there(file: int | IO[bytes]) -> float | None:
    """The share of its samples that is left of a WAV that was cut short, of which libsndfile takes what there is.

    None: it is whole, or no WAV, or its writer did not know how long it would be. The file stands at its start then.
    """
    if not isinstance(file, int):
        share = _share_there(file.seek(0, os.SEEK_END), partial(_peeked, file))
        file.seek(0)
        return share
    return _share_there(os.fstat(file).st_size, partial(os.pread, file))


def _share_there(length: int, read_at: Callable[[int, int], bytes]) -> float | None:
    kind, form = read_at(4, 0), read_at(4, 8)
    if form != b"WAVE" or kind not in (b"RIFF", b"RIFX", b"RF64"):
        return None
    order, place, long = ">" if kind == b"RIFX" else "<", 12, 0
    for _ in range(MAX_PARTS):
        if len(head := read_at(8, place)) < 8:
            return None
        name, size = struct.unpack(f"{order}4sI", head)
        place += 8
        if name == b"data":
            said = long if kind == b"RF64" and size == 2**32 - 1 else size if size < UNKNOWN else 0
            return (length - place) / said if 0 < length - place < said else None
        if name == b"ds64" and len(sizes := read_at(16, place)) == 16:
            _, long = struct.unpack("<QQ", sizes)
        place += size + size % 2
    return None


def _peeked(file: IO[bytes], count: int, place: int) -> bytes:
    file.seek(place)
    return file.read(count)


def header_of(sound: Any) -> Header:
    """What an open file says of itself."""
    return Header(sound.samplerate, sound.channels, max(0, sound.frames))


def read_blocks(
    sound: Any,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: int = 0,
    length: int | None = None,
) -> Iterator[Tensor]:
    """An open file from one sample to another, in blocks `[channels, n]`.

    Args:
        sound: the file.
        sample_rate: in Hz; the file's own if None.
        channels: the file's own if None; one is the mean of all, and of one are made as many as are asked for.
        start: the first sample, at the file's own rate.
        length: how many, at the file's own rate; None is all that follow.

    Raises:
        Unreadable: it is damaged, ends before its time, holds values that are not finite or on another scale, or its
            channels cannot become those.
    """
    header = header_of(sound)
    wanted = channels or header.channels
    check_channels(header.channels, wanted)
    left = header.length - start if length is None else length
    resampler = None
    if sample_rate not in (None, header.sample_rate):
        mixed = min(wanted, header.channels)  # of one channel others are made after it
        resampler = import_module("soxr").ResampleStream(header.sample_rate, sample_rate, mixed, "float32", "HQ")
    with guarded():
        place = max(0, start - LEAD) if sound.format == "MP3" else start
        sound.seek(place)
        if place < start:
            _decoded(sound, start - place, header, place)
            place = start
        while left > 0:
            block = _decoded(sound, min(left, BLOCK), header, place)
            left, place = left - block.shape[1], place + block.shape[1]
            if wanted < len(block):
                block = block.mean(dim=0, keepdim=True)
            if resampler is not None:
                block = torch.from_numpy(resampler.resample_chunk(block.T.numpy(), last=left == 0)).T
            if block.shape[1]:
                yield block.clamp(-1, 1).expand(wanted, -1)


def read_sound(
    files: Files,
    name: str,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: int = 0,
    length: int | None = None,
) -> Tensor:
    """A sound, or a slice of it, in one piece: `[channels, length]`.

    A slice is what the whole has at its place, to rounding, whatever the rates.

    Args:
        files: the folder or archive.
        name: of the file in it.
        sample_rate: in Hz; the file's own if None.
        channels: see `read_blocks`.
        start: the first sample, at the rate that is asked for.
        length: how many, at that rate; None is all that follow.

    Raises:
        Unreadable: see `opened` and `read_blocks`, or it is too long to be held.
    """
    with opened(files, name) as sound:
        header = header_of(sound)
        rate = sample_rate or header.sample_rate
        length = header.length_at(rate) - start if length is None else length
        if (held := length * (channels or header.channels)) > MAX_HELD:
            raise Unreadable(f"{held:,} samples in one piece, at most {MAX_HELD:,} are held; read it in blocks")
        common = gcd(rate, header.sample_rate)
        up, down = rate // common, header.sample_rate // common  # `up` samples of ours begin where `down` of its do
        before, after = -(-MARGIN * up // min(up, down)), -(-MARGIN * down // min(up, down))
        period = max(0, start - before) // up
        end = min(header.length, -(-(start + length) * down // up) + after)
        blocks = read_blocks(
            sound, sample_rate=rate, channels=channels, start=period * down, length=end - period * down
        )
        skipped = start - period * up
        return torch.cat(list(blocks), dim=1)[:, skipped : skipped + length]


def check_channels(have: int, wanted: int) -> None:
    """Makes sure that channels can become others: as many, their mean, or copies of one.

    Raises:
        Unreadable: they cannot.
    """
    if wanted not in (1, have) and have != 1:
        raise Unreadable(f"has {have} channels, of which {wanted} cannot be made; ask for 1 or {have}")


def loud_part(blocks: Iterable[Tensor], sample_rate: int, *, decibels: float) -> tuple[int, int]:
    """Finds where a sound begins and ends, without the silence before and after it.

    Args:
        blocks: the sound, `[channels, n]` each.
        sample_rate: sample rate in Hz.
        decibels: a hundredth of a second is silent if its mean power is at least this far below the loudest one's.

    Returns:
        The first sample, and the one after the last.

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
        raise Unreadable("is silent from beginning to end")
    return int(loud[0]) * step, min((int(loud[-1]) + 1) * step, length)


class WavWriter:
    """Writes sound to a WAV file in parts, as 16-bit PCM: what was read from such a file comes out as it was.

    Attributes:
        clipped: samples so far that lay beyond [-1, 1], which were cut there, or were not finite, which became 0.

    Args:
        sound: what takes 16-bit samples `[n, channels]`.
        path: of the file; None is a pipe, whose header says no size.
    """

    def __init__(self, sound: Any, path: Path | None = None):
        self._sound, self._path, self._bytes = sound, path, 0
        self.clipped = 0

    def write(self, audio: Tensor) -> None:
        """Appends sound `[channels, n]`.

        Raises:
            InputError: the file would be larger than a WAV can be.
        """
        self._bytes += 2 * audio.numel()
        if self._path is not None and self._bytes > MAX_WAV:
            remedy = "cut the sound into parts, or write raw samples to standard output"
            raise InputError(f"{self._path}: longer than a WAV file can be, {MAX_WAV / 2**30:.1f} GiB; {remedy}")
        audio = audio.detach().float().cpu()
        self.clipped += int((~(audio.abs() <= 1)).sum())
        levels = audio.nan_to_num(0.0, 2.0, -2.0).mul(2**15).round().clamp(-(2**15), 2**15 - 1)
        self._sound.write(levels.short().T.numpy())


@contextmanager
def open_wav(path: Path, *, sample_rate: int, channels: int) -> Iterator[WavWriter]:
    """Within it, a WAV file is written in parts under a temporary name; then it takes its place, whole or not at all.

    Raises:
        InputError: nothing can be written there, or it becomes larger than a WAV can be.
        GanError: the disk is full or broken.
    """
    soundfile = import_module("soundfile")
    with replacing(path) as partial, partial.open("xb") as file:
        try:
            with soundfile.SoundFile(file, "w", sample_rate, channels, "PCM_16", format="WAV") as sound:
                yield WavWriter(sound, path)
        except soundfile.LibsndfileError as error:
            raise OSError(reason_of(error)) from error


def write_wav(path: Path, audio: Tensor, sample_rate: int) -> int:
    """Writes sound `[channels, samples]` in [-1, 1] as a WAV file of 16-bit PCM, whole or not at all.

    Returns:
        How many samples were cut or not finite: see `WavWriter`.

    Raises:
        DataError: it has no channels, or no samples.
        InputError: nothing can be written there, or it is longer than a WAV can be.
        GanError: the disk is full or broken.
    """
    if audio.ndim != 2 or not audio.numel():
        raise DataError(f"{path}: a sound is [channels, samples], and this is {list(audio.shape)}")
    with open_wav(path, sample_rate=sample_rate, channels=len(audio)) as writer:
        writer.write(audio)
    return writer.clipped


@contextmanager
def guarded() -> Iterator[None]:
    """Turns what libsndfile and the archive readers raise on damaged content into `Unreadable`."""
    try:
        yield
    except DAMAGED as error:
        reason = getattr(error, "error_string", None)  # of libsndfile: its message alone, without the file object
        if reason == "Format not recognised.":
            raise Unreadable("no sound that can be read, or damaged at its start") from error
        raise Unreadable(str(reason).removeprefix("Error : ").rstrip(".") if reason else reason_of(error)) from error


def _decoded(sound: Any, length: int, header: Header, place: int) -> Tensor:
    """The next samples `[channels, length]`, from that place on, checked."""
    block = torch.from_numpy(sound.read(length, dtype="float32", always_2d=True)).T
    if block.shape[1] < length:
        ends = (place + block.shape[1]) / header.sample_rate
        raise Unreadable(f"damaged: ends after {ends:.2f} of {header.seconds:.2f} s")
    peak = float(block.abs().max())
    if peak <= LOUDEST:  # not so if it is not a number
        return block
    bad = torch.nonzero(~(block.abs() <= LOUDEST).all(dim=0))[0]
    when = f"from {(place + int(bad)) / header.sample_rate:.3f} s on"
    if not block.isfinite().all():
        raise Unreadable(f"holds values that are not finite, {when}")
    raise Unreadable(
        f"holds values up to {peak:,.0f}, {when}, on another scale than [-1, 1]; scale them, or save as PCM"
    )
