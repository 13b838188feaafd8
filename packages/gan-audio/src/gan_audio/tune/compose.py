"""Synthetic tunes: simple songs in eight keys, with chords and a melody that follows them.

Songs consist of periods of four bars. Questions, which do not end on the tonic, alternate with answers, which do. The
first and third bars of a period have the same rhythm, and so do the second and fourth bars. An answer that starts with
the chords of its question may also start with its notes. The melody has a note of the chord on the first and the third
beat, and mostly moves by step between them. A tune depends only on its number and its length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gan_audio.tune.midi import LOWEST, OCTAVES, STEPS, in_key, triad

KEYS = ((0, 0), (7, 0), (2, 0), (5, 0), (9, 1), (4, 1), (2, 1), (11, 1))
"""Tonic in semitones above C, and 1 for minor: C, G, D, F, Am, Em, Dm, Bm."""
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))
"""Major and natural minor scale in semitones above the tonic."""
QUESTIONS = (
    ((0, 0, 5, 7), (0, 5, 0, 7), (0, 21, 5, 7), (0, 16, 5, 7), (0, 7, 0, 7), (0, 14, 21, 7)),
    ((12, 10, 12, 10), (12, 8, 3, 10), (12, 17, 8, 10), (12, 3, 10, 19), (12, 12, 10, 10)),
)
"""Chord progressions of questions, in C major and C minor, numbered as in `gan_audio.tune.midi`."""
ANSWERS = (
    ((0, 5, 7, 0), (0, 0, 7, 0), (21, 5, 7, 0), (0, 14, 7, 0), (5, 0, 7, 0)),
    ((12, 8, 10, 12), (12, 17, 10, 12), (8, 3, 10, 12), (12, 10, 10, 12)),
)
"""Chord progressions of answers, in C major and C minor."""
RHYTHMS = ((4, 4), (2, 2, 4), (4, 2, 2), (2, 2, 2, 2), (6, 2), (8,), (2, 4, 2), (3, 3, 2), (2, 2, 3, 1), (4, 3, 1))
"""Rhythms of half a bar, as lengths of notes in steps, the most frequent first."""
RESTS = ((16,), (8, 8), (4, 4, 8))
"""Rhythms of the last bar of a period, in steps."""
PERIOD = 4
"""Number of bars of a period."""
RANGE = (LOWEST + 2, LOWEST + 12 * OCTAVES - 3)
"""Lowest and highest pitch of a melody: D4 and A5."""
REACH = 3.0
"""Scale in semitones of the exponential distribution of leaps."""


def make_tunes(numbers: Sequence[int], *, bars: int) -> Tensor:
    """Generates tunes by their numbers. Tunes whose numbers are equal modulo 8 have the same key.

    Args:
        numbers: numbers of the tunes, 0 or more.
        bars: number of bars of each tune. If it is not a multiple of four, the last bars of a longer tune are returned.

    Returns:
        Pitches and chords `[N, 2, 16 * bars]` (`gan_audio.tune.midi`).
    """
    return torch.from_numpy(np.stack([_tune(number, bars) for number in numbers]))


def _tune(number: int, bars: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    random = np.random.default_rng(number)
    tonic, minor = KEYS[number % len(KEYS)]
    periods = -(-bars // PERIOD)
    question, answer = (one[minor][random.integers(len(one[minor]))] for one in (QUESTIONS, ANSWERS))
    melody = _Melody(random, [tonic + note for note in SCALES[minor]])
    rhythms = [_rhythm(random), _rhythm(random)]
    begun: list[list[int]] = []
    repeats = random.random() < 0.5
    chords: list[int] = []
    for period in range(periods):
        last = period == periods - 1 or period % 2 == 1
        for bar, chord in enumerate(answer if last else question):
            chords.append(in_key(chord, tonic))
            if bar == PERIOD - 1:
                melody.append_bar(RESTS[random.integers(len(RESTS))], chords[-1], end=tonic if last else None)
            elif repeats and last and bar < 2 and len(begun) == 2 and chords[-1] == chords[-1 - PERIOD]:
                melody.repeat_bar(begun[bar])
            else:
                melody.append_bar(rhythms[bar % 2], chords[-1])
            if period == 0 and bar < 2:
                begun.append(melody.pitches[-STEPS:])
    whole = np.stack([melody.pitches, np.repeat(chords, STEPS)]).astype(np.int64)
    return whole[:, -bars * STEPS :]


def _rhythm(random: np.random.Generator) -> tuple[int, ...]:
    """Draws the rhythm of a bar, of two halves."""
    commonest = np.arange(len(RHYTHMS), 0, -1) / (len(RHYTHMS) * (len(RHYTHMS) + 1) / 2)
    return tuple(length for half in random.choice(len(RHYTHMS), 2, p=commonest) for length in RHYTHMS[half])


class _Melody:
    """A melody that is generated note by note.

    Args:
        random: random generator.
        scale: notes of the scale in semitones above C.
    """

    def __init__(self, random: np.random.Generator, scale: Sequence[int]):
        self.random, self.pitches, self.rises = random, list[int](), True
        self.scale = self._within(scale)
        self.now = int(random.choice(self.scale[len(self.scale) // 4 : 3 * len(self.scale) // 4]))

    def append_bar(self, rhythm: Sequence[int], chord: int, end: int | None = None) -> None:
        """Appends a bar with a rhythm over a chord, which ends on `end` (semitones above C) if given."""
        place = 0
        for k, length in enumerate(rhythm):
            if end is not None and k == len(rhythm) - 1:
                self._leap(self._within([end]))
            elif place % (STEPS // 2) == 0 or self.random.random() < 0.2:
                self._leap(self._within(triad(chord)))
            else:
                self._step()
            self.pitches += [self.now] * length
            place += length

    def repeat_bar(self, pitches: list[int]) -> None:
        """Appends a repetition of an earlier bar."""
        self.pitches += pitches
        self.now = pitches[-1]

    def _leap(self, notes: Sequence[int]) -> None:
        """Moves to one of several notes, most likely a near one, and rarely stays on the same note."""
        apart = np.abs(np.array(notes) - self.now)
        chances = np.where(apart == 0, 0.3, np.exp(-apart / REACH))
        before, self.now = self.now, int(self.random.choice(notes, p=chances / chances.sum()))
        self.rises = self.now > before or (self.now == before and self.rises)

    def _step(self) -> None:
        """Moves to the next note of the scale, mostly in the same direction."""
        if self.random.random() < 0.25:
            self.rises = not self.rises
        beyond = [note for note in self.scale if (note > self.now if self.rises else note < self.now)]
        if not beyond:
            self.rises = not self.rises
            return self._step()
        self.now = min(beyond, key=lambda note: abs(note - self.now))
        return None

    @staticmethod
    def _within(notes: Sequence[int]) -> list[int]:
        """Returns all pitches in `RANGE` with the given pitch classes."""
        wanted = {note % 12 for note in notes}
        return [pitch for pitch in range(RANGE[0], RANGE[1] + 1) if pitch % 12 in wanted]
