"""Tunes made by rule: simple songs in eight keys, of periods of four bars, with chords and a melody that follows them.

A period opens on the tonic and comes to rest on another chord, the next one answers it and ends on the tonic. In the
first and third bar of a period, and in the second and fourth, notes are as long as each other; where an answer begins
with its question's chords, it may begin with its notes. On the first and the third beat the melody has a note of the
chord, between them it goes mostly by step. A tune depends on its number and its length alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gan_audio.tune.midi import LOWEST, OCTAVES, STEPS, in_key, triad

KEYS = ((0, 0), (7, 0), (2, 0), (5, 0), (9, 1), (4, 1), (2, 1), (11, 1))
"""The tonic, in semitones above C, and 1 for minor: C, G, D, F, Am, Em, Dm, Bm."""
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))
QUESTIONS = (
    ((0, 0, 5, 7), (0, 5, 0, 7), (0, 21, 5, 7), (0, 16, 5, 7), (0, 7, 0, 7), (0, 14, 21, 7)),
    ((12, 10, 12, 10), (12, 8, 3, 10), (12, 17, 8, 10), (12, 3, 10, 19), (12, 12, 10, 10)),
)
"""Chords of a period with an open end, in major and minor: numbered as in `gan_audio.tune.midi`, for C and Cm."""
ANSWERS = (
    ((0, 5, 7, 0), (0, 0, 7, 0), (21, 5, 7, 0), (0, 14, 7, 0), (5, 0, 7, 0)),
    ((12, 8, 10, 12), (12, 17, 10, 12), (8, 3, 10, 12), (12, 10, 10, 12)),
)
"""Of one that is closed."""
RHYTHMS = ((4, 4), (2, 2, 4), (4, 2, 2), (2, 2, 2, 2), (6, 2), (8,), (2, 4, 2), (3, 3, 2), (2, 2, 3, 1), (4, 3, 1))
"""The lengths of the notes of half a bar, in steps, from the commonest on."""
RESTS = ((16,), (8, 8), (4, 4, 8))
"""The lengths of a period's last notes."""
PERIOD = 4
"""Bars."""
RANGE = (LOWEST + 2, LOWEST + 12 * OCTAVES - 3)
"""The lowest and the highest pitch of a melody: D4 to A5."""
REACH = 3.0
"""Semitones at which a leap is 1/e as likely as a step."""


def make_tunes(numbers: Sequence[int], *, bars: int) -> Tensor:
    """Tunes by their numbers, of which every eighth is in one key.

    Args:
        numbers: which; not negative.
        bars: of each. Those that are no multiple of four are the last ones of a longer tune.

    Returns:
        `[N, 2, 16 bars]`, pitches and chords (`gan_audio.tune.midi`).
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
                melody.go(RESTS[random.integers(len(RESTS))], chords[-1], end=tonic if last else None)
            elif repeats and last and bar < 2 and len(begun) == 2 and chords[-1] == chords[-1 - PERIOD]:
                melody.again(begun[bar])
            else:
                melody.go(rhythms[bar % 2], chords[-1])
            if period == 0 and bar < 2:
                begun.append(melody.pitches[-STEPS:])
    whole = np.stack([melody.pitches, np.repeat(chords, STEPS)]).astype(np.int64)
    return whole[:, -bars * STEPS :]


def _rhythm(random: np.random.Generator) -> tuple[int, ...]:
    """A bar's, of two halves."""
    commonest = np.arange(len(RHYTHMS), 0, -1) / (len(RHYTHMS) * (len(RHYTHMS) + 1) / 2)
    return tuple(length for half in random.choice(len(RHYTHMS), 2, p=commonest) for length in RHYTHMS[half])


class _Melody:
    """A melody that is made note by note.

    Args:
        random: what decides.
        scale: its notes, in semitones above any C.
    """

    def __init__(self, random: np.random.Generator, scale: Sequence[int]):
        self.random, self.pitches, self.rises = random, list[int](), True
        self.scale = self._within(scale)
        self.now = int(random.choice(self.scale[len(self.scale) // 4 : 3 * len(self.scale) // 4]))

    def go(self, rhythm: Sequence[int], chord: int, end: int | None = None) -> None:
        """A bar with notes of these lengths over a chord, which ends on a note in semitones above C."""
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

    def again(self, pitches: list[int]) -> None:
        """A bar that there was before."""
        self.pitches += pitches
        self.now = pitches[-1]

    def _leap(self, notes: Sequence[int]) -> None:
        """To one of some notes, to a near one mostly and seldom to where it is."""
        apart = np.abs(np.array(notes) - self.now)
        chances = np.where(apart == 0, 0.3, np.exp(-apart / REACH))
        before, self.now = self.now, int(self.random.choice(notes, p=chances / chances.sum()))
        self.rises = self.now > before or (self.now == before and self.rises)

    def _step(self) -> None:
        """To the next note of the scale, mostly on in one direction."""
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
        """All pitches of the range that are some notes."""
        wanted = {note % 12 for note in notes}
        return [pitch for pitch in range(RANGE[0], RANGE[1] + 1) if pitch % 12 in wanted]
