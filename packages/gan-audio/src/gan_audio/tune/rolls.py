"""Pictures of tunes as piano rolls, and a simple synthesizer for tunes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gan_audio.tune.midi import BEATS, LOWEST, NOTES, SILENT, STEPS, TEMPO, Array, chord_name, notes_of
from gan_core.media.layout import Grid, columns_for

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

RATE = 8000
"""Sample rate of synthesized tunes, in Hz."""
STEP = RATE * 60 * BEATS // (TEMPO * STEPS)
"""Duration of a sixteenth note in samples (1/8 s)."""
HARMONICS = 8
"""Maximum number of harmonics of a tone."""
TILT = 1.5
"""Exponent of the harmonics' levels: harmonic k has the level k^-1.5."""
LEVELS = (0.35, 0.07)
"""Levels of the notes of the melody and of a chord."""
DECAYS = (0.6, 1.2)
"""Times in seconds in which a note of the melody and of a chord decays to 1/e."""
ATTACK, RELEASE = 0.008, 0.03
"""Durations in seconds of the fade at the start and at the end of a note."""

AREA = 700_000
"""Approximate total number of pixels of the rolls in a picture."""
MAX_STEP = 5
"""Maximum width of a step in pixels."""
ASPECT = 1.4
"""Height of a pitch divided by the width of a step."""
LEFT, HEAD, GAP, EDGE = 26, 13, 10, 6
"""Sizes in pixels of the margin for octave names, of the strip for chord names, of the gap between tunes, and of empty
margins."""
MIN_NAMED = 20
"""Minimum width of a bar in pixels at which the name of its chord is drawn."""
PAPER, DARK_KEYS, LINE, INK = (255, 255, 255), (238, 238, 242), (200, 200, 208), (90, 90, 90)
"""Colours of the background, the rows of black keys, the bar lines and the text."""
MELODY, IN_CHORD = (40, 75, 160), (222, 232, 214)
"""Colours of the notes of the melody, and of the rows of the notes in a bar's chord."""


def synthesize(tune: Array) -> NDArray[np.float32]:
    """Synthesizes a tune with decaying sums of harmonics, at 120 quarter notes per minute.

    Args:
        tune: `[2, steps]`, pitches and chords.

    Returns:
        `[1, 1000 * steps]` in [-1, 1], at the sample rate `RATE`.
    """
    audio = np.zeros(tune.shape[1] * STEP)
    for notes, level, decay in zip(notes_of(tune), LEVELS, DECAYS, strict=True):
        for pitch, start, end in notes:
            audio[start * STEP : end * STEP] += level * _tone(pitch, (end - start) * STEP, decay)
    return np.clip(audio, -1, 1).astype(np.float32)[None]


def _tone(pitch: int, length: int, decay: float) -> NDArray[np.float64]:
    time = np.arange(length) / RATE
    hz = 440 * 2 ** ((pitch - 69) / 12)
    numbers = [k for k in range(1, HARMONICS + 1) if k * hz < RATE / 2]
    wave = sum((np.sin(2 * np.pi * k * hz * time) / k**TILT for k in numbers), np.zeros(length))
    fade = np.minimum(1, np.minimum(time / ATTACK, (length / RATE - time) / RELEASE))
    shaped: NDArray[np.float64] = wave * np.exp(-time / decay) * fade
    return shaped


def draw_rolls(tunes: Array, columns: int | None) -> Image.Image:
    """Draws tunes `[N, 2, steps]` in rows as piano rolls, with time to the right, pitch upwards, and chord names.

    All rolls show the octaves that the melodies use. Rows are tinted if their pitch is in the chord of the bar.

    Args:
        tunes: the tunes.
        columns: number of tunes in a row (default: a square picture).
    """
    from PIL import Image, ImageDraw

    count, _, steps = tunes.shape
    used = tunes[:, 0][tunes[:, 0] != SILENT] if (tunes[:, 0] != SILENT).any() else np.array([LOWEST])
    low, high = int(used.min()) // 12 * 12, (int(used.max()) // 12 + 1) * 12
    step = max(1, min(MAX_STEP, math.isqrt(int(AREA / (count * steps * (high - low) * ASPECT)))))
    row = max(2, round(ASPECT * step))
    width, height = steps * step, (high - low) * row
    columns = columns_for(count, columns, width=width, height=height)
    grid = Grid(count, columns, width, HEAD + height, gap=GAP, left=LEFT, right=EDGE, bottom=EDGE)
    picture = Image.new("RGB", grid.size, PAPER)
    draw = ImageDraw.Draw(picture)
    for i, tune in enumerate(tunes):
        left, top = grid.corner(i)
        _draw_roll(draw, tune, (left, top + HEAD), (step, row), (low, high))
        if i % columns == 0:
            for octave in range(low, high, 12):
                place = left - 4, top + HEAD + (high - octave) * row
                draw.text(place, f"C{octave // 12 - 1}", fill=INK, anchor="rb")
    return picture.quantize(64)


def _draw_roll(
    draw: ImageDraw.ImageDraw, tune: Array, corner: tuple[int, int], cell: tuple[int, int], pitches: tuple[int, int]
) -> None:
    """Draws one roll.

    Args:
        draw: the picture.
        tune: `[2, steps]`.
        corner: position of the upper left corner in pixels.
        cell: width of a step and height of a pitch in pixels.
        pitches: first and last pitch of the drawn range; the last one is excluded.
    """
    (left, top), (step, row), (low, high) = corner, cell, pitches
    steps = tune.shape[1]

    def box(pitch: int, start: int, end: int) -> tuple[int, int, int, int]:
        upper = top + (high - 1 - pitch) * row
        return left + start * step, upper, left + end * step - 1, upper + row - 1

    for pitch in range(low, high):
        if len(NOTES[pitch % 12]) > 1:
            draw.rectangle(box(pitch, 0, steps), fill=DARK_KEYS)
    melody, chords = notes_of(tune)
    for pitch, start, end in chords:
        for octave in range(low + pitch % 12, high, 12):
            draw.rectangle(box(octave, start, end), fill=IN_CHORD)
    for bar in range(0, steps + 1, STEPS):
        at = left + bar * step
        draw.line((at, top, at, top + (high - low) * row - 1), fill=LINE)
        if bar < steps and tune[1, bar] != SILENT and STEPS * step >= MIN_NAMED:
            draw.text((at + 2, top - 2), chord_name(int(tune[1, bar])), fill=INK, anchor="lb")
    for pitch, start, end in melody:
        x0, y0, x1, y1 = box(pitch, start, end)
        draw.rectangle((x0 + (step > 1), y0, x1, y1), fill=MELODY)  # a gap separates notes
