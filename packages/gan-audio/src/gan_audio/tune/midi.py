"""Tunes, a melody and its chords, in MIDI files: read as users have them, of which nothing is trusted, and written.

A tune is cut into bars of 16 steps, sixteenth notes in 4/4, as MidiNet's data are (Yang et al. 2017, arXiv:1703.10847,
section 4.1): at every step one note sounds, and every bar has one chord, a major or minor triad.

Taken are pieces in 4/4 and 2/2, and in 2/4, whose bars are joined two by two. Those in 3/4 or 6/8 are left out: sixteen
steps of their bars would mean something else, and the paper has none. Tempo, velocities and percussion (channel 10) are
not looked at.

- The melody is what its track is called; else the voice (a channel of a track) with the highest mean pitch. Of notes
  that sound together the highest counts. Rests are filled: a note lasts until the next one of its bar, and the first
  begins with the bar.
- The chords are all other voices. A bar's chord is the triad that sounds longest in it, the first of several. A seventh
  chord is its triad. Where no triad sounds at any time, what sounds during the bar is taken together.
- A bar is left out if it has no note or no such chord, or if a note of the melody begins more than a quarter of a step
  beside the grid, as those of triplets do, and every other one that is faster than sixteenths.
"""

from __future__ import annotations

import io
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

SUFFIXES = (".mid", ".midi")
STEPS, PITCHES = 16, 128
"""Of a bar, and of MIDI: 60 is the middle C, C4."""
BEATS = 4
"""Quarter notes of a bar."""
LOWEST, OCTAVES = 60, 2
"""Where melodies are brought to: C4 to B5, as in the paper."""
NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MAJOR, MINOR = (0, 4, 7), (0, 3, 7)
"""Semitones above the root. Chords are numbered by their roots from C on: 0 to 11 are major, 12 to 23 minor."""
CHORDS = 24
SILENT = -1
"""In the place of a pitch or a chord: there is none."""
MAX_BYTES, MAX_BARS = 2**20, 4096
"""The largest file, and the longest piece, that are read."""
MAX_TRACKS, MAX_EVENTS = 256, 100_000
"""The most tracks, and the most events of all tracks, that are read: a note takes two."""
META, SYSTEM_EXCLUSIVE = 0xFF, (0xF0, 0xF7)
"""The first bytes of events that say their length."""
SHORT, BARE = (*range(0xC0, 0xE0), 0xF1, 0xF3), (*range(0xF6, 0xFF), 0xF4, 0xF5)
"""Those of events with one byte of data, and with none; all others have two."""
NUMBER_BYTES = 4
"""Of the longest time and length that the format has."""
OFF_GRID = 0.25
"""Steps that a note may begin beside the grid."""
PERCUSSION = 9
"""The channel of it, counted from 0."""
BEAT_TICKS, TEMPO = 480, 120
"""Of files that are written: ticks of a quarter note, and quarter notes a minute."""
VELOCITIES, PROGRAMS = (96, 56), (73, 0)
"""Of the melody, a flute in General MIDI, and of the chords, a piano."""
CHORD_OCTAVE = 48
"""The lowest root of a written chord, C3."""


class Bars(NamedTuple):
    """A piece in bars: pitches `[bars, 16]` and chords `[bars]`, whose chord is `SILENT` where a bar is left out."""

    pitches: Array
    chords: Array


class Note(NamedTuple):
    """A note of a voice (a track's number and a channel), from one tick to another."""

    voice: tuple[int, int]
    pitch: int
    start: int
    end: int


def read_midi(content: bytes) -> Bars:
    """The bars of a MIDI file of format 0 or 1, any resolution.

    Raises:
        Unreadable: it is damaged, of another metre, beyond a limit, or holds no melody with chords.
    """
    if not content:
        raise Unreadable("the file is empty")
    _check_extent(content)
    mido = import_module("mido")
    try:
        file = mido.MidiFile(file=io.BytesIO(content), clip=True)
    except (*DAMAGED, mido.KeySignatureError) as error:
        raise Unreadable(f"no MIDI file, or damaged ({reason_of(error)})") from error
    if file.type not in (0, 1):
        raise Unreadable("holds pieces one beside the other (format 2); save it as format 1")
    if file.ticks_per_beat <= 0:
        raise Unreadable("its time is in frames of film, not in beats")
    _check_metre(file.tracks)
    notes = [note for number, track in enumerate(file.tracks) for note in _notes(track, number)]
    if not notes:
        raise Unreadable("holds no notes")
    step = file.ticks_per_beat * BEATS / STEPS
    bars = -(-max(note.end for note in notes) // (file.ticks_per_beat * BEATS))
    if bars > MAX_BARS:
        raise Unreadable(f"{bars:,} bars long, at most {MAX_BARS:,} are read")
    melody, chords = _voices(notes, [str(track.name).lower() for track in file.tracks])
    if not chords:
        raise Unreadable("holds one voice alone; a melody needs chords in a track or channel beside it")
    pitches, found = _melody(melody, bars, step), _chords(chords, bars, step)
    found[(pitches == SILENT).all(axis=1) | _beside_the_grid(melody, bars, step)] = SILENT
    return Bars(_held(pitches), found)


def write_midi(path: Path, tune: Array) -> None:
    """Writes a tune `[2, steps]` (pitches, chords; a multiple of 16 steps) as two tracks, whole or not at all.

    A note begins where the pitch changes and with every bar. The same tune gives the same bytes.

    Raises:
        InputError: nothing can be written there.
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
        for tick, velocity, pitch in sorted(events):  # what ends comes before what begins
            track.append(mido.Message("note_on", channel=number, note=pitch, velocity=velocity, time=tick - now))
            now = tick
    with replacing(path) as partial:
        file.save(partial)


def notes_of(tune: Array) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """The notes of a tune `[2, steps]`, the melody's and the chords': pitch, first step, and the one after the last."""
    melody, chords = (
        [(int(row[start]), start, end) for start, end in _spans(row) if row[start] != SILENT] for row in tune
    )
    voiced = [(CHORD_OCTAVE + pitch, start, end) for chord, start, end in chords for pitch in triad(chord)]
    return melody, voiced


def onsets(pitches: Array) -> NDArray[np.bool_]:
    """Where notes begin: where the pitch changes, and with every bar. Pitches `[…, steps]`."""
    begins: NDArray[np.bool_] = np.diff(pitches, axis=-1, prepend=SILENT - 1) != 0
    begins[..., ::STEPS] = True
    return begins


def triad(chord: int) -> tuple[int, ...]:
    """The notes of a chord, in semitones above C: the root, the third, the fifth."""
    return tuple(chord % 12 + interval for interval in (MAJOR if chord < 12 else MINOR))


def in_key(chord: Any, key: Any) -> Any:
    """Chords (numbers, arrays or tensors of them) moved up by so many semitones."""
    return chord // 12 * 12 + (chord + key) % 12


def chord_name(chord: int) -> str:
    """As musicians write it: `G`, `Am`."""
    return NOTES[chord % 12] + ("" if chord < 12 else "m")


def in_two_octaves(pitches: Array) -> Array:
    """Pitches moved to C4 to B5: all by the octaves that bring most there, then those that are still beyond."""
    ends = LOWEST, LOWEST + 12 * OCTAVES
    shifts = sorted(range(-120, 121, 12), key=abs)
    inside = [int(((pitches + shift >= ends[0]) & (pitches + shift < ends[1])).sum()) for shift in shifts]
    moved = pitches + shifts[int(np.argmax(inside))]
    low, high = ends[0] + moved % 12, ends[1] - 12 + moved % 12
    return np.where(moved < ends[0], low, np.where(moved >= ends[1], high, moved))


def phrases(bars: Bars, length: int) -> Array:
    """A piece cut into tunes `[N, 2, 16 length]` of so many bars that follow each other and have all a chord.

    The melody is brought to two octaves (`in_two_octaves`). What is left over at an end is left out.
    """
    cut: list[Array] = []
    edges = np.flatnonzero(np.diff(bars.chords != SILENT, prepend=False, append=False)).reshape(-1, 2)
    for first, last in edges:
        for start in range(first, last - length + 1, length):
            pitches, chords = (part[start : start + length] for part in bars)
            cut.append(np.stack([in_two_octaves(pitches).ravel(), chords.repeat(STEPS)]))
    return np.stack(cut) if cut else np.empty((0, 2, length * STEPS), np.int64)


def _check_extent(content: bytes) -> None:
    """Counts tracks and events before any is kept, which takes a tenth of the time; damage is found in reading.

    Raises:
        Unreadable: there are too many, or a time or length is too long a number.
    """
    if not content.startswith(b"MThd"):
        return
    with suppress(IndexError, struct.error):  # where the file ends, reading ends
        size, tracks = struct.unpack_from(">4xI2xh", content)
        if tracks > MAX_TRACKS:
            raise Unreadable(f"{tracks:,} tracks, at most {MAX_TRACKS} are read")
        place, events = 8 + size, 0
        for _ in range(tracks):
            (size,) = struct.unpack_from(">4xI", content, place)
            place, end, status = place + 8, place + 8 + size, 0
            while place != end:
                events += 1
                if events > MAX_EVENTS:
                    raise Unreadable(
                        f"holds more than {MAX_EVENTS:,} events, the most that are read (a note takes two)"
                    )
                place, status = _after_event(content, place, status)


def _after_event(content: bytes, place: int, status: int) -> tuple[int, int]:
    """Where an event ends, and the first byte that the next one has if it leaves it out."""
    _, place = _number(content, place)  # the time
    told = content[place] >= 0x80
    kind = content[place] if told else status
    place += 1
    if kind == META:
        length, place = _number(content, place + 1)
        return place + length, status
    if kind in SYSTEM_EXCLUSIVE:
        length, place = _number(content, place)
        return place + length, kind
    data = 1 if kind in SHORT else 0 if kind in BARE else 2
    return place + data - (not told), kind


def _number(content: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for byte in range(place, place + NUMBER_BYTES):
        value = value << 7 | content[byte] & 0x7F
        if content[byte] < 0x80:
            return value, byte + 1
    raise Unreadable(f"damaged: holds a number of more than {NUMBER_BYTES} bytes")


def _check_metre(tracks: Iterable[Any]) -> None:
    metres = [(m.numerator, m.denominator) for track in tracks for m in track if m.type == "time_signature"]
    for upper, lower in metres:
        if upper * BEATS not in (BEATS * lower, BEATS * lower // 2):
            raise Unreadable(f"is in {upper}/{lower}, or comes to it; tunes in 4/4 and 2/4 are taken")


def _notes(track: Iterable[Any], number: int) -> list[Note]:
    """A track's notes; one that never ends does so with the track."""
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
    """The melody's notes, and all others."""
    voices: dict[tuple[int, int], list[int]] = {}
    for note in notes:
        voices.setdefault(note.voice, []).append(note.pitch)
    named = [voice for voice in voices if "melody" in names[voice[0]]]
    chosen = max(named or voices, key=lambda voice: sum(voices[voice]) / len(voices[voice]))
    return [note for note in notes if note.voice == chosen], [note for note in notes if note.voice != chosen]


def _span(note: Note, step: float) -> slice:
    """The steps of a note, one at least."""
    first = round(note.start / step)
    return slice(first, max(first + 1, round(note.end / step)))


def _sounding(notes: list[Note], bars: int, step: float) -> NDArray[np.bool_]:
    """Which pitches sound at every step, `[128, 16 bars]`; a note takes no longer for being long."""
    changes = np.zeros((PITCHES, bars * STEPS + 2), np.int32)  # a note of the last half step lies beyond
    for note in notes:
        span = _span(note, step)
        changes[note.pitch, span.start] += 1
        changes[note.pitch, span.stop] -= 1
    return changes.cumsum(axis=1, out=changes)[:, :-2] > 0


def _melody(notes: list[Note], bars: int, step: float) -> Array:
    """The highest pitch at every step, `[bars, 16]`."""
    sounding = _sounding(notes, bars, step)
    highest = PITCHES - 1 - np.argmax(sounding[::-1], axis=0)
    return np.where(sounding.any(axis=0), highest, SILENT).reshape(bars, STEPS)


def _beside_the_grid(notes: list[Note], bars: int, step: float) -> NDArray[np.bool_]:
    """The bars in which a note begins too far from any step."""
    starts = np.array([note.start for note in notes]) / step
    far = np.abs(starts - starts.round()) > OFF_GRID
    found = np.zeros(bars, np.bool_)
    found[(starts[far] // STEPS).astype(np.int64)] = True
    return found


def _held(pitches: Array) -> Array:
    """Pitches `[bars, 16]` without rests, but for bars without a note."""
    places = np.where(pitches == SILENT, -1, np.arange(STEPS))
    first = np.argmax(pitches != SILENT, axis=1)[:, None]
    latest = np.maximum(np.maximum.accumulate(places, axis=1), first)
    return np.take_along_axis(pitches, latest, axis=1)


def _chords(notes: list[Note], bars: int, step: float) -> Array:
    """The chord of every bar, `[bars]`; `SILENT` where there is none."""
    pitches = _sounding(notes, bars, step)
    heard_at = np.stack([pitches[note::12].any(axis=0) for note in range(12)])
    sounding = (1 << np.arange(12)) @ heard_at.astype(np.int64)
    bass = np.where(pitches.any(axis=0), np.argmax(pitches, axis=0), PITCHES)
    found = np.full(bars, SILENT, np.int64)
    for bar in range(bars):
        part = slice(bar * STEPS, (bar + 1) * STEPS)
        heard = [_triad_of(int(a), int(b)) for a, b in zip(sounding[part], bass[part], strict=True)]
        heard = [chord for chord in heard if chord != SILENT]
        together = int(np.bitwise_or.reduce(sounding[part])), int(bass[part].min())
        found[bar] = max(heard, key=heard.count) if heard else _triad_of(*together)
    return found


@lru_cache(2**12)
def _triad_of(sounding: int, bass: int) -> int:
    """The chord of which all notes sound, on the bass if it can be, else on the next root above it.

    Args:
        sounding: a bit for each of the 12 notes from C on.
        bass: the lowest pitch.
    """
    for root in range(bass, bass + 12):
        for first, intervals in ((0, MAJOR), (12, MINOR)):
            if all(sounding >> (root + interval) % 12 & 1 for interval in intervals):
                return first + root % 12
    return SILENT


def _spans(row: Array) -> list[tuple[int, int]]:
    """The first step and the one after the last of each stretch of one value within a bar."""
    edges = [*np.flatnonzero(onsets(row)).tolist(), len(row)]
    return list(pairwise(edges))
