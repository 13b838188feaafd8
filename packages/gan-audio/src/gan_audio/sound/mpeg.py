"""Streams of MPEG audio (MP3), found by the headers of their frames.

MP3 files have no header. Most encoders write the number of frames to a first frame without sound, the info frame. It
may be missing, and files that were joined contain several streams. libsndfile reads the first stream of a file up to
the length in its info frame, or up to an estimate from the first bit rate. Here, the frames are counted, and every
stream gets an info frame with its actual length.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from gan_core.errors import Unreadable

MAX_JUNK = 2**18
"""Maximum number of bytes of a file that belong neither to a frame nor to a tag."""
MAX_STREAMS = 1000
"""Maximum number of streams in a file."""
CONSECUTIVE = 3
"""Number of consecutive frames by which a stream is recognised between other bytes."""
LONGEST_FRAME = 2881
"""Maximum size of a frame in bytes."""
WINDOW = 2**16
"""Number of bytes that are read at once."""
RATES = (44_100, 48_000, 32_000)
"""Sample rates in Hz of MPEG 1; those of MPEG 2 and 2.5 are a half and a quarter of them."""
BIT_RATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates in kbit/s by index, for each version (MPEG 2.5 has those of MPEG 2) and layer."""
START = re.compile(rb"\xff[\xe0-\xff]|ID3|TAG|APETAGEX")
"""First bytes of frames and tags."""

Read = Callable[[int, int], bytes]
"""Function that returns up to the given number of bytes (second argument) from a position (first argument) on."""


class FrameHeader(NamedTuple):
    """Header of a frame.

    Attributes:
        size: size of the frame in bytes, with its header; 0 if the bit rate is not defined (free format).
        samples: number of samples per channel.
        sample_rate: sample rate in Hz.
        channels: number of channels.
        layer: 1, 2 or 3.
        info: possible positions of the data of an info frame: without and with a checksum.
    """

    size: int
    samples: int
    sample_rate: int
    channels: int
    layer: int
    info: tuple[int, int]

    @property
    def kind(self) -> tuple[int, ...]:
        """Returns what all frames of a stream have in common."""
        return self.samples, self.sample_rate, self.channels, self.layer


def frame_header(data: bytes) -> FrameHeader | None:
    """Returns the header in the first four bytes; None if they are not the header of a frame."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    version, layer = {0: 2.5, 2: 2, 3: 1}.get(data[1] >> 3 & 3), 4 - (data[1] >> 1 & 3)
    index, rate = data[2] >> 4, data[2] >> 2 & 3
    if version is None or layer == 4 or index == 15 or rate == 3 or data[3] & 3 == 2:
        return None
    sample_rate = RATES[rate] // {1: 1, 2: 2, 2.5: 4}[version]
    bits, padding = 1000 * BIT_RATES[1 if version == 1 else 2, layer][index], data[2] >> 1 & 1
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 1 else 1152
    slot = 4 if layer == 1 else 1
    size = (samples // 8 // slot * bits // sample_rate + padding) * slot
    channels = 1 if data[3] >> 6 == 3 else 2
    side = (17 if channels == 1 else 32) if version == 1 else (9 if channels == 1 else 17)
    return FrameHeader(size if index else 0, samples, sample_rate, channels, layer, (4 + side, 6 + side))


def id3_size(data: bytes) -> int:
    """Returns the size in bytes of the ID3v2 tag that begins with at least ten bytes; 0 if it is none."""
    if data[:3] != b"ID3" or len(data) < 10 or any(byte & 0x80 for byte in data[6:10]):
        return 0
    return 10 + (data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9]) + (10 if data[5] & 0x10 else 0)


class Stream(NamedTuple):
    """A stream of frames with the same sample rate and number of channels.

    Attributes:
        start: position of the first frame with sound, in bytes.
        end: position after the last frame.
        frames: number of frames with sound.
        kind: header of the first frame.
        head: an info frame with the number of frames, to be read before `start`; empty in layers 1 and 2, which have
            none.
    """

    start: int
    end: int
    frames: int
    kind: FrameHeader
    head: bytes

    @property
    def samples(self) -> int:
        """Returns the number of samples per channel, with the silence that encoders add at both ends."""
        return self.frames * self.kind.samples


class Found(NamedTuple):
    """Streams of a file.

    Attributes:
        streams: the streams, in order.
        damaged: whether there are other bytes than frames and tags between frames.
        cut: whether the last frame is incomplete.
    """

    streams: list[Stream]
    damaged: bool
    cut: bool


def find_streams(read: Read, size: int, *, max_seconds: float) -> Found | None:
    """Finds the streams of a file by the headers of all frames.

    Args:
        read: reads the file.
        size: size of the file in bytes.
        max_seconds: maximum duration in seconds.

    If the info frame of a stream declares exactly the bytes that there are, its number of frames is used, so that most
    files need not be read.

    Returns:
        The streams; None if the file does not begin with MPEG audio, apart from tags and up to `MAX_JUNK` other bytes.

    Raises:
        Unreadable: a stream ends before the length in its info frame; or the sound is too long, or in free format; or
            the file has too many streams or other bytes.
    """
    scan = _Scan(Window(read).read, size, max_seconds)
    scan.run()
    return Found(scan.streams, scan.damaged, scan.cut) if scan.streams else None


class Window:
    """Part of a file that is held in memory, so that reading the next few bytes is cheap.

    Args:
        read: reads the file.
    """

    def __init__(self, read: Read):
        self._read, self._start, self._held = read, 0, b""

    def read(self, place: int, size: int) -> bytes:
        """Returns up to `size` bytes from a position on; fewer only at the end of the file."""
        if not self._start <= place or place + size > self._start + len(self._held):
            self._start, self._held = place, self._read(place, max(size, WINDOW))
        return self._held[place - self._start : place - self._start + size]


class _Scan:
    """The state of `find_streams`: the stream that is being read, and those before it."""

    def __init__(self, read: Read, size: int, max_seconds: float):
        self.read, self.size, self.max_seconds = read, size, max_seconds
        self.streams: list[Stream] = []
        self.damaged = self.cut = False
        self.junk, self.seconds = 0, 0.0  # other bytes, and the duration, so far
        self.info: bytes = b""  # info frame of the stream that is being read
        self.declared: int | None = None
        self.start = self.frames = self.end = 0
        self.kind: FrameHeader | None = None

    def run(self) -> None:
        place, between = 0, 0
        while place < self.size:
            header = frame_header(self.read(place, 4))
            if header is None and (length := self._tag(place)):
                self._close()
                place += length
                continue
            in_stream = self.kind is not None and not between
            if header is None or not header.size or not (in_stream or self._is_stream(place)):
                if header is not None and not self.streams and not self.junk and self._is_free_format(place, header):
                    convert = "convert it (`ffmpeg -i IN OUT.wav`)"
                    raise Unreadable(f"an MP3 in free format, whose frames have no defined bit rate; {convert}")
                following = self._next_sync(place + 1)
                between += following - place
                self.junk += following - place
                if self.junk > MAX_JUNK:
                    if not self.streams and not self.frames:
                        return
                    raise Unreadable(f"damaged: more than {MAX_JUNK:,} bytes belong to no MP3 frame")
                place = following
                continue
            if place + header.size > self.size:
                self.cut = True
                break
            if between:
                self.damaged |= self.kind is not None or bool(self.streams)
                self._close()
                between = 0
            self._add(place, header)
            place = self.end
        self._close()

    def _add(self, place: int, header: FrameHeader) -> None:
        """Adds a frame to the stream, or begins another stream with it."""
        declared = self._declared(place, header)
        complete = self.declared is not None and self.frames >= self.declared
        if declared is not None or complete or self.kind is None or header.kind != self.kind.kind:
            self._close()
            self.kind, self.start, self.end = header, place, place
        if declared is not None:
            self.info, self.declared = self.read(place, header.size), declared or None
            self.start = self.end = place + header.size
            if self._declares_the_rest(place, header):
                self.frames, self.end = declared, self._end_of_sound()
        else:
            self.frames, self.end = self.frames + 1, place + header.size
        seconds = self.seconds + self.frames * header.samples / header.sample_rate
        if seconds > self.max_seconds:
            raise Unreadable(f"longer than {self.max_seconds / 3600:,.0f} hours, the maximum")

    def _close(self) -> None:
        """Adds the stream that is being read to the list."""
        kind, frames, declared = self.kind, self.frames, self.declared
        if kind is not None and declared is not None and frames < declared - 1:
            seconds = [number * kind.samples / kind.sample_rate for number in (frames, declared)]
            raise Unreadable(f"damaged: ends after {seconds[0]:.2f} of {seconds[1]:.2f} s")
        if kind is not None and frames:
            if len(self.streams) == MAX_STREAMS:
                raise Unreadable(f"consists of more than {MAX_STREAMS:,} MP3 streams")
            head = self._head(kind, frames, self.end - self.start)
            self.streams.append(Stream(self.start, self.end, frames, kind, head))
            self.seconds += frames * kind.samples / kind.sample_rate
        self.kind, self.frames, self.info, self.declared = None, 0, b"", None

    def _head(self, kind: FrameHeader, frames: int, size: int) -> bytes:
        """Returns the stream's own info frame if it has one with the number of frames, or else a new one."""
        if kind.layer != 3:
            return b""
        if self.declared is not None and (place := _xing(self.info, kind)):
            data = bytearray(self.info)
            (flags,) = struct.unpack_from(">I", data, place + 4)
            if flags & 2:
                struct.pack_into(">I", data, place + 12, min(len(data) + size, 2**32 - 1))
            return bytes(data)
        first = bytearray(self.read(self.start, 4))
        first[1] |= 1  # no checksum
        first[2] = 14 << 4 | first[2] & 0b1100  # the highest bit rate, which has room for the numbers
        header = frame_header(bytes(first))
        assert header is not None
        data = first + bytes(header.size - 4)
        struct.pack_into(">4sIII", data, header.info[0], b"Xing", 3, frames, min(header.size + size, 2**32 - 1))
        return bytes(data)

    def _declared(self, place: int, header: FrameHeader) -> int | None:
        """Returns the number of frames in an info frame, 0 if it is not defined; None if the frame is none."""
        if header.layer != 3:
            return None
        data = self.read(place, header.size)
        if at := _xing(data, header):
            flags, frames = struct.unpack_from(">II", data, at + 4)
            return frames if flags & 1 else 0
        return 0 if data[36:40] == b"VBRI" and len(data) >= 54 else None

    def _declares_the_rest(self, place: int, header: FrameHeader) -> bool:
        """Returns whether an info frame declares as many bytes as there are, so that its number of frames is right."""
        at = _xing(self.info, header)
        flags, _, size = struct.unpack_from(">III", self.info, at + 4) if at else (0, 0, 0)
        return self.declared is not None and flags & 3 == 3 and place + size == self._end_of_sound()

    def _end_of_sound(self) -> int:
        """Returns the size of the file without the tags at its end."""
        end = self.size
        if end > 128 and self.read(end - 128, 3) == b"TAG":
            end -= 128
        footer = self.read(max(0, end - 32), 32)
        return end - self._tag(end - 32) if footer[:8] == b"APETAGEX" else end

    def _tag(self, place: int) -> int:
        """Returns the size of a tag (ID3 or APE) at a position; 0 if there is none."""
        data = self.read(place, 32)
        if length := id3_size(data):
            return length
        if data[:3] == b"TAG" and self._ends(place + 128):
            return 128
        if data[:8] == b"APETAGEX" and len(data) == 32:
            length, flags = struct.unpack("<4xI4x", data[8:20])[0], struct.unpack("<I", data[20:24])[0]
            return 32 if not flags >> 29 & 1 else min(32 + length, self.size)  # a footer, or a header
        return 0

    def _ends(self, place: int) -> bool:
        """Returns whether a file, or the stream before a joined one, may end at a position."""
        data = self.read(place, 8)
        return not data or data[:3] in (b"ID3", b"TAG") or data == b"APETAGEX" or frame_header(data) is not None

    def _is_stream(self, place: int) -> bool:
        """Returns whether consecutive frames of one kind begin at a position, up to the end of the file or a tag."""
        first, at = frame_header(self.read(place, 4)), place
        for number in range(CONSECUTIVE):
            header = frame_header(self.read(at, 4))
            if first is None or header is None or not header.size or header.kind != first.kind:
                return False
            at += header.size
            if at >= self.size or self._tag(at):
                return at == self.size or number > 0  # the last frame may be cut
        return True

    def _is_free_format(self, place: int, header: FrameHeader) -> bool:
        """Returns whether two more frames without a bit rate follow at equal distances (a padding byte aside)."""
        if header.size or header.layer == 4:
            return False
        data = self.read(place, 3 * LONGEST_FRAME)
        same = bytes([data[0], data[1], data[2] & 0b11111101])

        def at(position: int) -> bool:
            found = data[position : position + 3]
            return len(found) == 3 and bytes([*found[:2], found[2] & 0b11111101]) == same

        return any(at(d) and any(at(2 * d + more) for more in (-1, 0, 1)) for d in range(24, LONGEST_FRAME))

    def _next_sync(self, place: int) -> int:
        """Returns the next position at which a frame or a tag may begin."""
        while data := self.read(place, 4096):
            if found := START.search(data):
                return place + found.start()
            place += max(1, len(data) - 7)  # a start may be cut by the end of the data
        return self.size


def _xing(data: bytes, header: FrameHeader) -> int:
    """Returns the position of the data `Xing` or `Info` of an info frame; 0 if it is none."""
    return next((at for at in header.info if data[at : at + 4] in (b"Xing", b"Info") and len(data) >= at + 16), 0)
