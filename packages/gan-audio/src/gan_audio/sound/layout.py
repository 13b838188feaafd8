"""Layout of sound files that libsndfile does not read as they are, or of which it reads only a part.

- A recorder that crashed leaves a WAV file without the size of its samples. A FLAC file from a pipe lacks its length.
- Files that were joined contain several streams. libsndfile reads the first.
- MP3 files without an info frame have an unknown length, which libsndfile estimates (see `gan_audio.sound.mpeg`).

Such files are read as views, in which a part of the file has a corrected header.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib import import_module
from itertools import accumulate, pairwise
from typing import IO, Any, NamedTuple

from gan_audio.sound.mpeg import MAX_STREAMS, Window, find_streams, id3_size
from gan_audio.sound.wav import KINDS, MAX_CHUNKS, RF64_EXTRA, read_wav_header, rf64_start
from gan_core.errors import Unreadable

MAX_SECONDS = 48 * 3600
"""Maximum duration of a sound in seconds."""
UNFINISHED = "without a length in the header, as from a pipe or after a crash, read to the end"
CUT = "cut short, read to the end"
DAMAGED_MP3 = "with bytes between the MP3 frames, which were left out"
"""Notes on unusual files, which follow the number of files."""
MP3_PADDING = 2**14
"""Maximum number of samples by which an MP3 stream may be shorter than its frames: the silence that encoders add."""
UNCOMPRESSED = (b"NONE", b"twos", b"sowt", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")
"""Encodings of AIFF-C files whose frames have a fixed size."""
MAX_PAGES = 2**24
"""Maximum number of pages of an Ogg file."""
PROBES, PROBE_BYTES = 4, 2**16
"""Number of places at which the frames of a FLAC file are checked, and number of bytes that are read at each."""
SEARCHED = 2**20
"""Number of bytes of a FLAC file that are searched at once for further streams."""
FLAC_START, FLAC_SYNC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"), re.compile(rb"\xff[\xf8\xf9]")
"""First bytes of FLAC streams and of their frames."""
FLAC_BLOCK = 2**12
"""Number of samples that are decoded at once to find the length of a FLAC file."""
MAX_FLAC_LENGTH = 2**36 - 1
"""Maximum length in the header of a FLAC file, and the bits that hold it."""
REMEMBERED = 2**14
"""Number of files whose layouts are kept in memory."""

Piece = bytes | tuple[int, int]
"""Part of a view: bytes, or the start and the end of a part of the file."""


class Part(NamedTuple):
    """A stream of a sound file.

    Attributes:
        pieces: pieces of the view that libsndfile reads.
        length: maximum number of samples per channel, as counted; None if libsndfile's own length is right.
        padding: number of samples by which the actual length may be smaller.
    """

    pieces: tuple[Piece, ...]
    length: int | None = None
    padding: int = 0


@dataclass(frozen=True)
class Layout:
    """Layout of a sound file.

    Attributes:
        parts: the streams of the file; none if libsndfile reads the file as it is.
        note: phrase about an unusual file, which follows the number of files; None for usual files.
        present: fraction of the declared samples that a truncated file contains; None if it is complete.
    """

    parts: tuple[Part, ...] = ()
    note: str | None = None
    present: float | None = None


class View(io.RawIOBase):
    """A file that consists of parts of another file, and of bytes.

    Args:
        file: the other file.
        pieces: the parts, in order.
    """

    def __init__(self, file: IO[bytes], pieces: Sequence[Piece]):
        self._file, self._pieces, self._place = file, pieces, 0
        lengths = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces]
        self._ends = list(accumulate(lengths))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._ends[-1]}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: object) -> int:
        target, done = memoryview(buffer).cast("B"), 0  # type: ignore[arg-type]
        start = 0
        for piece, end in zip(self._pieces, self._ends, strict=True):
            if done < len(target) and start <= self._place < end:
                first, size = self._place - start, min(end - self._place, len(target) - done)
                data = piece[first : first + size] if isinstance(piece, bytes) else self._bytes(piece[0] + first, size)
                target[done : done + len(data)] = data
                done, self._place = done + len(data), self._place + len(data)
                if len(data) < size:
                    break  # the file has become shorter
            start = end
        return done

    def _bytes(self, place: int, size: int) -> bytes:
        try:
            self._file.seek(place)
            return self._file.read(size)
        except OSError:  # libsndfile cannot receive exceptions; it finds that the file ends too early
            return b""


def layout_of(file: IO[bytes]) -> Layout:
    """Returns the layout of a sound file. Layouts that need a search of the whole file are kept in memory.

    Args:
        file: the file, on disk or in memory. It is at its start afterwards.

    Raises:
        Unreadable: the file is damaged, too long, or has too many streams.
    """
    file.seek(0)
    head = file.read(4)
    reader = _Reader(file, file.seek(0, os.SEEK_END))
    try:
        if head in KINDS:
            return _of_wav(reader)
        if head == b"FORM":
            return _of_aiff(reader)
        key = _identity(file)
        if key not in _layouts:
            if len(_layouts) >= REMEMBERED:
                _layouts.clear()
            _layouts[key] = _of_stream(reader)
        return _layouts[key]
    finally:
        file.seek(0)


_layouts: dict[object, Layout] = {}


def _identity(file: IO[bytes]) -> object:
    """Returns the place and the time of modification of a file on disk, or a digest of a file in memory."""
    try:
        status = os.fstat(file.fileno())
    except io.UnsupportedOperation:
        file.seek(0)
        return blake2b(file.read()).digest()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _Reader(NamedTuple):
    """A file and its size in bytes."""

    file: IO[bytes]
    size: int

    def read(self, place: int, size: int) -> bytes:
        """Returns up to `size` bytes from a position on."""
        self.file.seek(place)
        return self.file.read(size)

    def sound(self, pieces: Sequence[Piece]) -> Any:
        """Opens a view of the file with libsndfile."""
        return import_module("soundfile").SoundFile(View(self.file, pieces))


def _of_stream(reader: _Reader) -> Layout:
    """Returns the layout of a FLAC, Ogg or MP3 file, or of a file of another format."""
    start = id3_size(reader.read(0, 10))
    magic = reader.read(start, 4)
    if magic == b"fLaC":
        return _of_flac(reader, start)
    if magic == b"OggS":
        return _of_ogg(reader)
    found = find_streams(reader.read, reader.size, max_seconds=MAX_SECONDS)
    if found is None:
        return Layout()
    parts = [Part((one.head, (one.start, one.end)), one.samples, MP3_PADDING) for one in found.streams]
    return Layout(tuple(parts), DAMAGED_MP3 if found.damaged else CUT if found.cut else None)


# --- WAV and AIFF


def _of_wav(reader: _Reader) -> Layout:
    file = reader.file
    file.seek(0)
    try:
        header = read_wav_header(file.read(12), file.read, lambda size: file.seek(size, os.SEEK_CUR))
    except Unreadable:
        return Layout()  # libsndfile decides whether it can be read
    found = reader.size - header.place
    if header.size is not None or found <= 0:
        return Layout(present=found / header.size if header.size and 0 < found < header.size else None)
    order = ">" if header.kind == b"RIFX" else "<"
    if reader.size < 2**32:
        kind = b"RIFX" if header.kind == b"RIFX" else b"RIFF"
        start: bytes = kind + struct.pack(f"{order}I", reader.size - 8) + b"WAVE"
        size = struct.pack(f"{order}I", found)
    elif header.kind == b"RIFX":
        raise Unreadable("is a big-endian WAV file beyond 4 GiB, without its length")
    else:
        start, size = rf64_start(reader.size + RF64_EXTRA, found), struct.pack("<I", 2**32 - 1)
    return Layout((Part((start, (12, header.place - 4), size, (header.place, reader.size))),), UNFINISHED)


def _of_aiff(reader: _Reader) -> Layout:
    chunks = _aiff_chunks(reader)
    if not {b"COMM", b"SSND"} <= chunks.keys():
        return Layout()
    common, sound = chunks[b"COMM"], chunks[b"SSND"]
    form, (total,) = reader.read(8, 4), struct.unpack(">I", reader.read(4, 4))
    channels, frames, bits, encoding = struct.unpack(">hIh10x4s", reader.read(common + 8, 22).ljust(22, b"\0"))
    size, offset = struct.unpack(">II", reader.read(sound + 4, 8).ljust(8, b"\0"))
    width = channels * -(-bits // 8)
    found = (reader.size - sound - 16 - offset) // width if width > 0 else 0
    if found <= 0 or (form == b"AIFC" and encoding not in UNCOMPRESSED):
        return Layout()
    if frames and size > 8:
        return Layout(present=found / frames if found < frames else None)
    if 8 + total >= reader.size:
        return Layout()  # the header is complete: there are no samples
    pieces = (
        b"FORM" + struct.pack(">I", reader.size - 8),
        (8, common + 10),
        struct.pack(">I", found),
        (common + 14, sound + 4),
        struct.pack(">I", reader.size - sound - 8),
        (sound + 8, reader.size),
    )
    return Layout((Part(pieces),), UNFINISHED)


def _aiff_chunks(reader: _Reader) -> dict[bytes, int]:
    """Returns the positions of the chunks of an AIFF file by name."""
    chunks, place = dict[bytes, int](), 12
    for _ in range(MAX_CHUNKS):
        chunk = reader.read(place, 8)
        if len(chunk) < 8 or place + 8 > reader.size:
            break
        chunks.setdefault(chunk[:4], place)
        size = int.from_bytes(chunk[4:], "big")
        place += 8 + size + size % 2
    return chunks


# --- Ogg


def _of_ogg(reader: _Reader) -> Layout:
    """Finds the streams of a chained Ogg file: each begins with one or more pages that are marked as first."""
    starts, place, first, last = [0], 0, True, False
    read = Window(reader.read).read
    for _ in range(MAX_PAGES):
        page = read(place, 282)
        if page[:4] != b"OggS" or len(page) < 27:
            break
        if page[5] & 2 and not first:
            starts.append(place)
        first, last = bool(page[5] & 2), bool(page[5] & 4)
        place += 27 + page[26] + sum(page[27 : 27 + page[26]])
    if len(starts) > MAX_STREAMS:
        raise Unreadable(f"consists of more than {MAX_STREAMS:,} Ogg streams")
    note = None if last and place <= reader.size else CUT
    if len(starts) == 1:
        return Layout(note=note)
    ends = [*starts[1:], reader.size]
    return Layout(tuple(Part(((start, end),)) for start, end in zip(starts, ends, strict=True)), note)


# --- FLAC


def _of_flac(reader: _Reader, start: int) -> Layout:
    """Finds the streams of a FLAC file, and determines unknown lengths by decoding."""
    info, frames = _flac_info(reader, start)
    if info is None:
        return Layout()
    if info.length and _ends_with(reader, info, frames):
        return Layout()
    starts = [start, *_further_flac(reader, frames)]
    if len(starts) > MAX_STREAMS:
        raise Unreadable(f"consists of more than {MAX_STREAMS:,} FLAC streams")
    parts = [_flac_part(reader, *ends) for ends in zip(starts, [*starts[1:], reader.size], strict=True)]
    note = CUT if any(cut for _, cut in parts) else None
    return Layout(tuple(part for part, _ in parts), note) if len(parts) > 1 or not info.length else Layout()


class _FlacInfo(NamedTuple):
    """Content of the first metadata block: size of the blocks (0 if it varies), and length in samples (0: unknown)."""

    block: int
    length: int


def _flac_info(reader: _Reader, start: int) -> tuple[_FlacInfo | None, int]:
    """Returns the content of a stream's first metadata block, and the position of its first frame."""
    head, place, last = reader.read(start, 42), start + 4, False
    if len(head) < 42 or head[4] & 0x7F:
        return None, 0
    for _ in range(MAX_CHUNKS):
        block = reader.read(place, 4)
        if last or len(block) < 4:
            break
        last, place = bool(block[0] & 0x80), place + 4 + int.from_bytes(block[1:], "big")
    least, most = struct.unpack(">HH", head[8:12])
    return _FlacInfo(least if least == most else 0, int.from_bytes(head[18:26], "big") & MAX_FLAC_LENGTH), place


def _flac_part(reader: _Reader, start: int, end: int) -> tuple[Part, bool]:
    """Returns a stream of a FLAC file, with its length in the header, and whether it is cut short."""
    head, length, cut = reader.read(start, 42), 0, False
    if len(head) < 42 or int.from_bytes(head[18:26], "big") & MAX_FLAC_LENGTH:
        return Part(((start, end),)), False
    with reader.sound(((start, end),)) as sound:
        sound.seekable = lambda: False  # libFLAC cannot seek in a stream of unknown length
        try:
            while found := len(sound.read(FLAC_BLOCK, dtype="float32")):
                length += found
                if length > MAX_SECONDS * sound.samplerate:
                    raise Unreadable(f"longer than {MAX_SECONDS // 3600} hours, the maximum")
        except RuntimeError:  # of libsndfile
            cut = True
    known = (int.from_bytes(head[18:26], "big") | length).to_bytes(8, "big")
    return Part((head[:18] + known, (start + 26, end))), cut


def _further_flac(reader: _Reader, place: int) -> Iterator[int]:
    """Yields the positions of further streams in a FLAC file, which begin with its magic and a first metadata block."""
    while len(data := reader.read(place, SEARCHED)) >= 8:
        for found in FLAC_START.finditer(data):
            yield place + found.start()
        place += len(data) - 7


def _ends_with(reader: _Reader, info: _FlacInfo, frames: int) -> bool:
    """Returns whether the frames at a few places of a FLAC file are those of a single stream of its length.

    This avoids reading every file completely, only because a few files consist of several streams.
    """
    size = (reader.size - frames) // PROBES
    if size < PROBE_BYTES:
        return False
    probes = [reader.read(frames + k * size, PROBE_BYTES) for k in range(PROBES)]
    end = reader.read(reader.size - PROBE_BYTES, PROBE_BYTES)
    if any(FLAC_START.search(data) for data in [*probes, end]):
        return False
    found = [next(_flac_frames(data, info), None) for data in probes]
    *_, final = [None, *_flac_frames(end, info)]
    if final is None or sum(final) != info.length:
        return False
    numbers = [frame[0] for frame in [*found, final] if frame is not None]
    return len(numbers) == PROBES + 1 and all(a < b for a, b in pairwise(numbers))


def _flac_frames(data: bytes, info: _FlacInfo) -> Iterator[tuple[int, int]]:
    """Yields the first sample and the number of samples of the frames in a part of a FLAC file."""
    for found in FLAC_SYNC.finditer(data):
        head = data[found.start() : found.start() + 16].ljust(16, b"\0")
        extra = next((k for k in range(8) if not head[4] << k & 0x80), 8)  # bytes of the number, in UTF-8's way
        if extra in (1, 8) or head[3] & 1:
            continue
        number, at = head[4] & (0x7F >> extra), 5
        for byte in head[5 : 4 + max(1, extra)]:
            number, at = number << 6 | byte & 0x3F, at + 1
        code = head[2] >> 4
        if code in (6, 7):
            block = int.from_bytes(head[at : at + code - 5], "big") + 1
            at += code - 5
        else:
            block = {1: 192}.get(code, 576 << code - 2 if 2 <= code <= 5 else 1 << code)
        at += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
        if code and _crc8(head[:at]) == head[at]:
            yield (number if head[1] & 1 else number * info.block), block


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return value
