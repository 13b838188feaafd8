"""MIDI files of tunes, which have a melody and chords: reading of untrusted files, and writing.

Tunes consist of bars of 16 steps, which are sixteenth notes in 4/4, as in MidiNet (Yang et al. 2017, arXiv:1703.10847,
section 4.1). Each step has one note, and each bar has one chord, a major or minor triad.

Pieces in 4/4, 2/2 and 2/4 are supported; two bars in 2/4 become one bar. Pieces in 3/4 or 6/8 are rejected, because 16
steps would have a different meaning in their bars, and the paper does not use them. Tempo, velocities and percussion
(channel 10) are ignored.

- The melody is the track whose name contains "melody", or else the voice (a channel of a track) with the highest mean
  pitch. If notes are simultaneous, the highest is used. Rests are filled: a note lasts until the next note of its bar,
  and the first note starts with the bar.
- All other voices are chords. The chord of a bar is the triad that sounds longest in it, or the first one if several
  sound equally long. A seventh chord counts as its triad. If no triad sounds at any time, all notes of the bar are
  combined.
- A bar is skipped if it has no notes or no chord, or if a note of the melody starts more than a quarter of a step from
  the grid, as with triplets and notes shorter than sixteenths.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_core.data.limits import DAMAGED
from gan_core.errors import Unreadable, reason_of
from gan_core.media.writing import replacing

Array = NDArray[np.int64]

SUFFIXES = (".mid", ".midi", ".kar")
FOREIGN = (".rmi", ".xmf", ".mxl", ".musicxml", ".mscz", ".abc", ".gp3", ".gp4", ".gp5", ".gpx", ".sib")
"""Suffixes of pieces in other formats."""
STEPS = 16
"""Number of steps of a bar."""
PITCHES = 128
"""Number of MIDI pitches; 60 is middle C, C4."""
BEATS = 4
"""Number of quarter notes of a bar."""
LOWEST, OCTAVES = 60, 2
"""Range of melodies: lowest pitch and number of octaves, C4 to B5, as in the paper."""
NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
"""Names of the twelve pitch classes."""
MAJOR, MINOR = (0, 4, 7), (0, 3, 7)
"""Intervals of a triad in semitones above the root."""
CHORDS = 24
"""Number of chords: 0 to 11 are major and 12 to 23 minor, with roots from C upwards."""
SILENT = -1
"""Value for no pitch or no chord."""
MAX_BYTES, MAX_BARS = 2**20, 4096
"""Maximum size of a file in bytes, and maximum number of bars of a piece."""
MAX_TRACKS, MAX_EVENTS = 256, 100_000
"""Maximum number of tracks, and of events in all tracks; a note has two events."""
META, SYSTEM_EXCLUSIVE = 0xFF, (0xF0, 0xF7)
"""Status bytes of events that contain their length."""
SHORT, BARE = (*range(0xC0, 0xE0), 0xF1, 0xF3), (*range(0xF6, 0xFF), 0xF4, 0xF5)
"""Status bytes of events with one data byte and with none; all other events have two."""
NUMBER_BYTES = 4
"""Maximum size in bytes of a variable-length number."""
OFF_GRID = 0.25
"""Maximum distance of the start of a note from the grid, in steps."""
PERCUSSION = 9
"""Channel of percussion, counted from 0."""
BEAT_TICKS, TEMPO = 480, 120
"""Ticks per quarter note, and quarter notes per minute, of written files."""
VELOCITIES, PROGRAMS = (96, 56), (73, 0)
"""Velocities and General MIDI programs of the melody, a flute, and the chords, a piano, in written files."""
NO_BARS = "has no bar with a melody and a major or minor chord"
"""Reason for skipping a file without usable bars."""
CHORD_OCTAVE = 48
"""Lowest root of a chord in written files: C3."""


class Bars(NamedTuple):
    """The bars of a piece: pitches `[bars, 16]` and chords `[bars]`. Skipped bars have the chord `SILENT`."""

    pitches: Array
    chords: Array


class Note(NamedTuple):
    """A note with its start and end in ticks, and its voice (track number and channel)."""

    voice: tuple[int, int]
    pitch: int
    start: int
    end: int


def read_midi(content: bytes) -> Bars:
    """Reads the bars of a MIDI file of format 0 or 1, with any resolution.

    Raises:
        Unreadable: the file is damaged, in another metre, beyond a limit, or has no melody with chords.
    """
    return _bars(_parsed(content))


def describe_midi(content: bytes) -> dict[str, Any]:
    """Returns what a MIDI file of format 0 or 1 contains.

    Keys: `format`, `tracks` (their number), `tempo` in quarter notes per minute and `metre` (both at the start), `bars`
    of that metre, `notes` without percussion, `seconds`, and `problem`: why no tune can be read from the file, or None.

    Raises:
        Unreadable: the file is damaged or beyond a limit.
    """
    file = _parsed(content)
    messages = [message for track in file.tracks for message in track]
    tempo = next((m.tempo for m in messages if m.type == "set_tempo"), 60_000_000 // TEMPO)
    upper, lower = next(((m.numerator, m.denominator) for m in messages if m.type == "time_signature"), (BEATS, 4))
    notes = [note for number, track in enumerate(file.tracks) for note in _notes(track, number)]
    bar = file.ticks_per_beat * 4 * upper / lower
    problem = None
    try:
        bars = _bars(file)
        if (bars.chords == SILENT).all():
            problem = NO_BARS
    except Unreadable as error:
        problem = str(error)
    return {
        "format": "MIDI",
        "tracks": len(file.tracks),
        "tempo": 60_000_000 / tempo if tempo else None,
        "metre": f"{upper}/{lower}",
        "bars": math.ceil(max((note.end for note in notes), default=0) / bar),
        "notes": len(notes),
        "seconds": file.length,
        "problem": problem,
    }


def _parsed(content: bytes) -> Any:
    """Returns a MIDI file of format 0 or 1 as a `mido.MidiFile`."""
    if not content:
        raise Unreadable("the file is empty")
    _check_extent(content)
    mido = import_module("mido")
    try:
        file = mido.MidiFile(file=io.BytesIO(content), clip=True)
    except (*DAMAGED, mido.KeySignatureError) as error:
        raise Unreadable(f"not a MIDI file, or damaged ({reason_of(error)})") from error
    if file.type not in (0, 1):
        raise Unreadable("contains several pieces (format 2); save it as format 1")
    if file.ticks_per_beat <= 0:
        raise Unreadable("its time unit is SMPTE frames; save it with ticks per quarter note")
    return file


def _bars(file: Any) -> Bars:
    """Returns the bars of a `mido.MidiFile`."""
    _check_metre(file.tracks)
    notes = [note for number, track in enumerate(file.tracks) for note in _notes(track, number)]
    if not notes:
        raise Unreadable("contains no notes")
    step = file.ticks_per_beat * BEATS / STEPS
    bars = -(-max(note.end for note in notes) // (file.ticks_per_beat * BEATS))
    if bars > MAX_BARS:
        raise Unreadable(f"{bars:,} bars long; the maximum is {MAX_BARS:,}")
    melody, chords = _voices(notes, [str(track.name).lower() for track in file.tracks])
    if not chords:
        raise Unreadable("contains only one voice; chords must be in another track or channel than the melody")
    pitches, found = _melody(melody, bars, step), _chords(chords, bars, step)
    found[(pitches == SILENT).all(axis=1) | _off_grid_bars(melody, bars, step)] = SILENT
    return Bars(_without_rests(pitches), found)


def write_midi(path: Path, tune: Array) -> None:
    """Writes a tune `[2, steps]` (pitches and chords, a multiple of 16 steps) to a file with two tracks, atomically.

    A note starts where the pitch changes and at every bar. Equal tunes give equal bytes.

    Raises:
        InputError: the file cannot be written.
        GanError: the disk is full or broken.
    """
    mido = import_module("mido")
    file = mido.MidiFile(type=1, ticks_per_beat=BEAT_TICKS)
    step = BEAT_TICKS * BEATS // STEPS
    heads = [("set_tempo", {"tempo": mido.bpm2tempo(TEMPO)}), ("time_signature", {"numerator": 4, "denominator": 4})]
    for number, (name, spans) in enumerate(zip(("melody", "chords"), notes_of(tune), strict=True)):
        track = file.add_track(name)
        track.extend(mido.MetaMessage(kind, **settings) for kind, settings in (heads if number == 0 else []))
        track.append(mido.Message("program_change", channel=number, program=PROGRAMS[number]))
        events = [(end * step, 0, pitch) for pitch, _, end in spans]
        events += [(start * step, VELOCITIES[number], pitch) for pitch, start, _ in spans]
        now = 0
        for tick, velocity, pitch in sorted(events):  # ends before starts
            track.append(mido.Message("note_on", channel=number, note=pitch, velocity=velocity, time=tick - now))
            now = tick
    with replacing(path) as partial:
        file.save(partial)


def notes_of(tune: Array) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Returns the notes of the melody and of the chords of a tune `[2, steps]` as (pitch, start, end) in steps."""
    melody, chords = (
        [(int(row[start]), start, end) for start, end in _spans(row) if row[start] != SILENT] for row in tune
    )
    voiced = [(CHORD_OCTAVE + pitch, start, end) for chord, start, end in chords for pitch in triad(chord)]
    return melody, voiced


def onsets(pitches: Array) -> NDArray[np.bool_]:
    """Returns a mask of the steps at which notes start: where the pitch in `[…, steps]` changes, and at every bar."""
    begins: NDArray[np.bool_] = np.diff(pitches, axis=-1, prepend=SILENT - 1) != 0
    begins[..., ::STEPS] = True
    return begins


def triad(chord: int) -> tuple[int, ...]:
    """Returns the root, third and fifth of a chord in semitones above C."""
    return tuple(chord % 12 + interval for interval in (MAJOR if chord < 12 else MINOR))


def in_key(chord: Any, key: Any) -> Any:
    """Transposes chords (an integer, array or tensor) up by `key` semitones."""
    return chord // 12 * 12 + (chord + key) % 12


def chord_name(chord: int) -> str:
    """Returns the name of a chord: `G`, `Am`."""
    return NOTES[chord % 12] + ("" if chord < 12 else "m")


def in_two_octaves(pitches: Array) -> Array:
    """Moves pitches by octaves to C4–B5: first all by the same number, so that most fit, then the others singly."""
    ends = LOWEST, LOWEST + 12 * OCTAVES
    shifts = sorted(range(-120, 121, 12), key=abs)
    inside = [int(((pitches + shift >= ends[0]) & (pitches + shift < ends[1])).sum()) for shift in shifts]
    moved = pitches + shifts[int(np.argmax(inside))]
    low, high = ends[0] + moved % 12, ends[1] - 12 + moved % 12
    return np.where(moved < ends[0], low, np.where(moved >= ends[1], high, moved))


def phrases(bars: Bars, length: int) -> Array:
    """Cuts a piece into tunes `[N, 2, 16 * length]` of `length` consecutive bars without skipped ones.

    Melodies are moved to two octaves (`in_two_octaves`). Remaining bars at the ends are dropped.
    """
    cut: list[Array] = []
    edges = np.flatnonzero(np.diff(bars.chords != SILENT, prepend=False, append=False)).reshape(-1, 2)
    for first, last in edges:
        for start in range(first, last - length + 1, length):
            pitches, chords = (part[start : start + length] for part in bars)
            cut.append(np.stack([in_two_octaves(pitches).ravel(), chords.repeat(STEPS)]))
    return np.stack(cut) if cut else np.empty((0, 2, length * STEPS), np.int64)


def _check_extent(content: bytes) -> None:
    """Checks the number of tracks and events before the file is parsed, which takes ten times as long.

    Damage is ignored here, because it is found by the parser.

    Raises:
        Unreadable: there are too many, or a variable-length number is too long.
    """
    if not content.startswith(b"MThd"):
        return
    with suppress(IndexError, struct.error):  # the file ends early
        size, tracks = struct.unpack_from(">4xI2xh", content)
        if tracks > MAX_TRACKS:
            raise Unreadable(f"contains {tracks:,} tracks; the maximum is {MAX_TRACKS}")
        place, events = 8 + size, 0
        for _ in range(tracks):
            (size,) = struct.unpack_from(">4xI", content, place)
            place, end, status = place + 8, place + 8 + size, 0
            while place != end:
                events += 1
                if events > MAX_EVENTS:
                    raise Unreadable(f"contains more than {MAX_EVENTS:,} events, the maximum (a note has two)")
                place, status = _after_event(content, place, status)


def _after_event(content: bytes, place: int, status: int) -> tuple[int, int]:
    """Returns the position after an event, and the status byte that the next event may omit (running status)."""
    _, place = _number(content, place)  # time
    has_status = content[place] >= 0x80
    kind = content[place] if has_status else status
    place += 1
    if kind == META:
        length, place = _number(content, place + 1)
        return place + length, status
    if kind in SYSTEM_EXCLUSIVE:
        length, place = _number(content, place)
        return place + length, kind
    data = 1 if kind in SHORT else 0 if kind in BARE else 2
    return place + data - (not has_status), kind


def _number(content: bytes, place: int) -> tuple[int, int]:
    """Returns a variable-length number, with seven bits per byte, and the position after it."""
    value = 0
    for byte in range(place, place + NUMBER_BYTES):
        value = value << 7 | content[byte] & 0x7F
        if content[byte] < 0x80:
            return value, byte + 1
    raise Unreadable(f"damaged: contains a number of more than {NUMBER_BYTES} bytes")


def _check_metre(tracks: Iterable[Any]) -> None:
    metres = [(m.numerator, m.denominator) for track in tracks for m in track if m.type == "time_signature"]
    for upper, lower in metres:
        if upper * BEATS not in (BEATS * lower, BEATS * lower // 2):
            raise Unreadable(f"has the time signature {upper}/{lower}; expected 4/4, 2/2 or 2/4")


def _notes(track: Iterable[Any], number: int) -> list[Note]:
    """Returns the notes of a track; notes without an end last until the end of the track."""
    now, sounding, notes = 0, dict[tuple[int, int], int](), list[Note]()
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == PERCUSSION:
            continue
        key = message.channel, message.note
        if (start := sounding.pop(key, None)) is not None:
            notes.append(Note((number, key[0]), key[1], start, now))
        if message.type == "note_on" and message.velocity > 0:
            sounding[key] = now
    notes += [Note((number, channel), pitch, start, now) for (channel, pitch), start in sounding.items()]
    return [note for note in notes if note.end > note.start]


def _voices(notes: list[Note], names: list[str]) -> tuple[list[Note], list[Note]]:
    """Returns the notes of the melody, and all other notes."""
    voices: dict[tuple[int, int], list[int]] = {}
    for note in notes:
        voices.setdefault(note.voice, []).append(note.pitch)
    named = [voice for voice in voices if "melody" in names[voice[0]]]
    chosen = max(named or voices, key=lambda voice: sum(voices[voice]) / len(voices[voice]))
    return [note for note in notes if note.voice == chosen], [note for note in notes if note.voice != chosen]


def _span(note: Note, step: float) -> slice:
    """Returns the steps of a note, at least one."""
    first = round(note.start / step)
    return slice(first, max(first + 1, round(note.end / step)))


def _sounding(notes: list[Note], bars: int, step: float) -> NDArray[np.bool_]:
    """Returns a mask of the pitches that sound at each step, `[128, 16 * bars]`. Long notes take no more time."""
    changes = np.zeros(
        (PITCHES, bars * STEPS + 2), np.int32
    )  # a note that starts in the last half step rounds to the next bar
    for note in notes:
        span = _span(note, step)
        changes[note.pitch, span.start] += 1
        changes[note.pitch, span.stop] -= 1
    return changes.cumsum(axis=1, out=changes)[:, :-2] > 0


def _melody(notes: list[Note], bars: int, step: float) -> Array:
    """Returns the highest pitch at every step, `[bars, 16]`."""
    sounding = _sounding(notes, bars, step)
    highest = PITCHES - 1 - np.argmax(sounding[::-1], axis=0)
    return np.where(sounding.any(axis=0), highest, SILENT).reshape(bars, STEPS)


def _off_grid_bars(notes: list[Note], bars: int, step: float) -> NDArray[np.bool_]:
    """Returns a mask of the bars in which a note starts too far from the grid, `[bars]`."""
    starts = np.array([note.start for note in notes]) / step
    far = np.abs(starts - starts.round()) > OFF_GRID
    found = np.zeros(bars, np.bool_)
    found[(starts[far] // STEPS).astype(np.int64)] = True
    return found


def _without_rests(pitches: Array) -> Array:
    """Fills the rests of pitches `[bars, 16]`; bars without notes stay empty."""
    places = np.where(pitches == SILENT, -1, np.arange(STEPS))
    first = np.argmax(pitches != SILENT, axis=1)[:, None]
    latest = np.maximum(np.maximum.accumulate(places, axis=1), first)
    return np.take_along_axis(pitches, latest, axis=1)


def _chords(notes: list[Note], bars: int, step: float) -> Array:
    """Returns the chord of every bar, `[bars]`; `SILENT` if it has none."""
    pitches = _sounding(notes, bars, step)
    classes = np.stack([pitches[note::12].any(axis=0) for note in range(12)])
    sounding = (1 << np.arange(12)) @ classes.astype(np.int64)
    bass = np.where(pitches.any(axis=0), np.argmax(pitches, axis=0), PITCHES)
    found = np.full(bars, SILENT, np.int64)
    for bar in range(bars):
        part = slice(bar * STEPS, (bar + 1) * STEPS)
        triads = [_triad_of(int(a), int(b)) for a, b in zip(sounding[part], bass[part], strict=True)]
        triads = [chord for chord in triads if chord != SILENT]
        combined = int(np.bitwise_or.reduce(sounding[part])), int(bass[part].min())
        found[bar] = max(triads, key=triads.count) if triads else _triad_of(*combined)
    return found


@lru_cache(2**12)
def _triad_of(sounding: int, bass: int) -> int:
    """Returns the chord whose notes all sound: the one with the bass as root, or else with the next root above it.

    Args:
        sounding: one bit for each of the 12 pitch classes from C.
        bass: lowest pitch.
    """
    for root in range(bass, bass + 12):
        for first, intervals in ((0, MAJOR), (12, MINOR)):
            if all(sounding >> (root + interval) % 12 & 1 for interval in intervals):
                return first + root % 12
    return SILENT


def _spans(row: Array) -> list[tuple[int, int]]:
    """Returns the start and end of each run of equal values within a bar."""
    edges = [*np.flatnonzero(onsets(row)).tolist(), len(row)]
    return list(pairwise(edges))
