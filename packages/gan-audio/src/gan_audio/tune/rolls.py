"""How tunes are shown and heard: pictures of their piano rolls, and a simple synthesizer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gan_audio.tune.midi import BEATS, LOWEST, NOTES, SILENT, STEPS, TEMPO, Array, chord_name, notes_of

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

RATE = 8000
"""In Hz, of the sound."""
STEP = RATE * 60 * BEATS // (TEMPO * STEPS)
"""Samples of a sixteenth note: an eighth of a second."""
HARMONICS, TILT = 8, 1.5
"""Of a tone: how many at most, and the power of their number that their levels fall by."""
LEVELS, DECAYS = (0.35, 0.07), (0.6, 1.2)
"""Of the melody's and of a chord's notes, and the seconds in which a note falls to 1/e."""
ATTACK, RELEASE = 0.008, 0.03
"""Seconds in which a note begins, and in which it ends."""

AREA, LARGEST = 700_000, 5
"""Pixels of all rolls in a picture, about, and pixels of a step at most."""
HEIGHT = 1.4
"""A pitch's pixels over a step's."""
LEFT, HEAD, GAP, EDGE = 26, 13, 10, 6
"""Pixels of the margins for the octaves' names, for the chords' and for nothing, and between two tunes."""
NAMED = 20
"""Pixels of a bar that its chord is named over, at least."""
PAPER, DARK_KEYS, LINE, INK = (255, 255, 255), (238, 238, 242), (200, 200, 208), (90, 90, 90)
MELODY, IN_CHORD = (40, 75, 160), (222, 232, 214)
"""Colours of a note, and of the rows that a bar's chord names."""


def synthesize(tune: Array) -> NDArray[np.float32]:
    """The sound of a tune `[2, steps]` (pitches, chords) at 120 quarter notes a minute, `[1, 1000 steps]` at `RATE`.

    Every note is a sum of harmonics that decays.
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
    ends = np.minimum(1, np.minimum(time / ATTACK, (length / RATE - time) / RELEASE))
    shaped: NDArray[np.float64] = wave * np.exp(-time / decay) * ends
    return shaped


def draw_rolls(tunes: Array, columns: int | None) -> Image.Image:
    """Piano rolls of tunes `[N, 2, steps]` in rows: time across and pitch up, bars with their chords.

    All show the octaves that their melodies use. Rows are tinted where a pitch is of the bar's chord.
    """
    from PIL import Image, ImageDraw

    number, _, steps = tunes.shape
    used = tunes[:, 0][tunes[:, 0] != SILENT] if (tunes[:, 0] != SILENT).any() else np.array([LOWEST])
    low, high = int(used.min()) // 12 * 12, (int(used.max()) // 12 + 1) * 12
    step = max(1, min(LARGEST, math.isqrt(int(AREA / (number * steps * (high - low) * HEIGHT)))))
    row = max(2, round(HEIGHT * step))
    columns = min(number, columns or max(1, round(math.sqrt(number * (high - low) * row / (steps * step)))))
    width, height = steps * step, (high - low) * row
    across, down = width + GAP, HEAD + height + GAP
    size = LEFT + columns * across - GAP + EDGE, -(-number // columns) * down - GAP + EDGE
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    for i, tune in enumerate(tunes):
        left, top = LEFT + i % columns * across, i // columns * down + HEAD
        _draw_roll(draw, tune, (left, top), (step, row), (low, high))
        if i % columns == 0:
            for octave in range(low, high, 12):
                draw.text((left - 4, top + (high - octave) * row), f"C{octave // 12 - 1}", fill=INK, anchor="rb")
    return picture.quantize(64)


def _draw_roll(
    draw: ImageDraw.ImageDraw, tune: Array, corner: tuple[int, int], cell: tuple[int, int], pitches: tuple[int, int]
) -> None:
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
        if bar < steps and tune[1, bar] != SILENT and STEPS * step >= NAMED:
            draw.text((at + 2, top - 2), chord_name(int(tune[1, bar])), fill=INK, anchor="lb")
    for pitch, start, end in melody:
        x0, y0, x1, y1 = box(pitch, start, end)
        draw.rectangle((x0 + (step > 1), y0, x1, y1), fill=MELODY)  # a gap tells a note from the next
