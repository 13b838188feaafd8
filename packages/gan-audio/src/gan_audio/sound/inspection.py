"""What is in a sound or mel file: what it is, how long and how loud, and how it looks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gan_audio.media import EDGE, FOOT, LEFT, PAPER, draw_frequencies, draw_times, in_few_colours
from gan_audio.mel.contract import read_mel
from gan_audio.sound.files import read_blocks
from gan_audio.sound.pipes import FileSound, opened
from gan_audio.sound.spectrogram import HIGHEST, LOWEST, colours, frame_size, levels
from gan_core.errors import DataError, Unreadable
from gan_core.media.writing import replacing

QUIET = -60.0
"""The level in dB of full scale below which a hundredth of a second is silence."""
PICTURE = (800, 300)
"""Width and height of a spectrogram's picture, in pixels."""


def inspect_mel(path: Path) -> dict[str, Any]:
    """A mel file's contract and length.

    Raises:
        DataError: it cannot be read.
    """
    mel, contract = read_mel(path)
    frames = mel.shape[2]
    return {
        "format": "mel",
        "frames": frames,
        "seconds": frames * contract.hop / contract.sample_rate,
        "contract": contract.model_dump(mode="json"),
        "described": contract.named(),
    }


def inspect_sound(path: Path, *, picture: Path | None = None) -> dict[str, Any]:
    """What a sound file is and how loud.

    Levels are in dB of full scale, 1: a sine that just reaches it has a peak of 0 and an RMS of -3.01 dB; None is
    silence. What lies beyond full scale is cut there, as it is wherever sounds are read. `clipped` counts the samples
    of all channels that are as large as can be, and `silent` is the share of hundredths of a second below `QUIET`.

    Args:
        path: the file.
        picture: where the spectrogram of its channels' mean is drawn, a PNG.

    Raises:
        DataError: it cannot be read.
        InputError: the picture cannot be written.
    """
    try:
        sound = FileSound(path)
        rate, step = sound.sample_rate, max(1, sound.sample_rate // 100)
        whole = sound.bits is None or sound.encoding in ("FLOAT", "DOUBLE")
        largest = 1.0 if whole else 1 - 2.0 ** (1 - min(sound.bits or 0, 24))
        peak, squares, clipped, silent, parts = 0.0, 0.0, 0, 0, 0
        columns = Columns(sound.length, rate)
        held = torch.empty(sound.channels, 0)
        with opened(path) as file:
            for block in read_blocks(file):
                peak, clipped = max(peak, float(block.abs().max())), clipped + int((block.abs() >= largest).sum())
                squares += float(block.double().square().sum())
                columns.add(block.mean(dim=0).numpy())
                held = torch.cat([held, block], dim=1)
                parted = held.shape[1] // step * step
                powers = held[:, :parted].reshape(sound.channels, -1, step).square().mean(dim=(0, 2))
                silent, parts = silent + int((powers < 10 ** (QUIET / 10)).sum()), parts + len(powers)
                held = held[:, parted:]
    except Unreadable as error:
        raise DataError(f"{path}: {error}") from error
    if picture is not None:
        columns.draw(picture)
    return {
        "format": sound.format,
        "encoding": sound.encoding,
        "sample_rate": rate,
        "channels": sound.channels,
        "bits": sound.bits,
        "seconds": sound.length / rate,
        "peak": _decibels(peak),
        "rms": _decibels(math.sqrt(squares / (sound.length * sound.channels))),
        "clipped": clipped,
        "silent": silent / parts if parts else None,
    }


def _decibels(amplitude: float) -> float | None:
    return 20 * math.log10(amplitude) if amplitude else None


class Columns:
    """A spectrogram's frames, picked from a sound that comes in blocks: one in the middle of every column.

    Args:
        length: of the sound in samples.
        sample_rate: in Hz.
    """

    def __init__(self, length: int, sample_rate: int):
        self.length, self.sample_rate, self.size = length, sample_rate, frame_size(sample_rate)
        self.starts = ((np.arange(PICTURE[0]) + 0.5) * length / PICTURE[0]).astype(int) - self.size // 2
        self.place = -self.size // 2  # of the first sample that is held
        self.held = np.zeros(self.size // 2, np.float32)
        self.frames: list[NDArray[np.float32]] = []

    def add(self, block: NDArray[np.float32]) -> None:
        """The sound's next samples `[n]`."""
        self.held = np.concatenate([self.held, block])
        while len(self.frames) < PICTURE[0]:
            start = self.starts[len(self.frames)] - self.place
            if start + self.size > len(self.held):
                dropped = min(max(0, start), len(self.held))
                self.held, self.place = self.held[dropped:], self.place + dropped
                return
            self.frames.append(self.held[start : start + self.size].copy())

    def draw(self, path: Path) -> None:
        """Writes the picture, with its axes, once the sound is over.

        Raises:
            InputError: it cannot be written.
        """
        from PIL import Image, ImageDraw

        self.add(np.zeros(self.size, np.float32))
        width, height = PICTURE
        found = levels(np.concatenate(self.frames).astype(np.float64), self.sample_rate, rows=height, columns=width)
        picture = Image.new("RGB", (LEFT + width + EDGE, EDGE + height + FOOT), PAPER)
        picture.paste(Image.fromarray(colours((found[::-1] - LOWEST) / (HIGHEST - LOWEST))), (LEFT, EDGE))
        pencil, box = ImageDraw.Draw(picture), (LEFT, EDGE, width, height)
        draw_frequencies(pencil, box, self.sample_rate)
        draw_times(pencil, box, self.length / self.sample_rate)
        with replacing(path) as partial:
            in_few_colours(picture).save(partial, format="PNG", optimize=True)
