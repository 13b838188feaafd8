"""Description of sound, mel and MIDI files, and a spectrogram picture of a sound."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_audio.media import EDGE, FOOT, LEFT, PAPER, draw_frequencies, draw_times, in_few_colours
from gan_audio.mel.files import SUFFIX as MEL_SUFFIX
from gan_audio.mel.files import read_mel, refuse_array
from gan_audio.sound.files import CONVERT, FOREIGN, SUFFIXES, read_blocks
from gan_audio.sound.pipes import FileSound, open_sound_file
from gan_audio.sound.spectrogram import HIGHEST, LOWEST, colours, frame_size, levels
from gan_audio.tune.midi import MAX_BYTES as MAX_MIDI_BYTES
from gan_audio.tune.midi import SUFFIXES as MIDI_SUFFIXES
from gan_audio.tune.midi import describe_midi
from gan_core.data.files import FileKind, LoneFile, read_member
from gan_core.errors import DataError, InputError, Unreadable, reason_of
from gan_core.media.writing import replacing

QUIET = -60.0
"""Level in dB of full scale below which blocks of 10 ms are silent."""
PICTURE = (800, 300)
"""Width and height of a spectrogram in pixels, without its axes."""


INSPECTED = FileKind("sound, mel or MIDI file", (*SUFFIXES, MEL_SUFFIX, *MIDI_SUFFIXES), FOREIGN, CONVERT)
"""Files that `inspect_file` reads."""


def inspect_file(path: Path, *, picture: Path | None = None) -> dict[str, Any]:
    """Returns the description of a sound, mel or MIDI file, by its suffix; see the functions for the kinds of files.

    Raises:
        DataError: the file cannot be read.
        InputError: the picture cannot be written, or is requested of another file than a sound.
    """
    is_mel, is_midi = path.suffix.lower() == ".safetensors", path.name.lower().endswith(MIDI_SUFFIXES)
    if picture is not None and (is_mel or is_midi):
        raise InputError("`--spectrogram` needs exactly one sound file")
    if is_mel:
        return inspect_mel(path)
    return inspect_midi(path) if is_midi else inspect_sound(path, picture=picture)


def inspect_midi(path: Path) -> dict[str, Any]:
    """Returns the description of a MIDI file; see `gan_audio.tune.midi.describe_midi`.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return describe_midi(read_member(LoneFile(path), path.name, most_bytes=MAX_MIDI_BYTES))
    except (Unreadable, OSError) as error:
        raise DataError(f"{path}: {reason_of(error)}") from error


def inspect_mel(path: Path) -> dict[str, Any]:
    """Returns the contract and the length of a mel file.

    Raises:
        DataError: the file cannot be read.
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
    """Returns the format and the levels of a sound file, and draws its spectrogram if requested.

    `peak` and `rms` are in dB of full scale (a sine of amplitude 1 has a peak of 0 and an RMS of -3.01 dB), or None for
    digital silence; the peak of floating-point sounds may be above 0. `clipped` is the number of samples at or beyond
    full scale in all channels, `silent` is the fraction of blocks of 10 ms below `QUIET`, and `note` is a phrase about
    an unusual file, or None.

    Args:
        path: sound file.
        picture: output .png file for the spectrogram of the mean of all channels.

    Raises:
        DataError: the sound cannot be read.
        InputError: the picture cannot be written.
    """
    refuse_array(path)
    try:
        sound = FileSound(path)
        meter, frames = Meter(sound), SpectrogramFrames(sound.length, sound.sample_rate)
        with open_sound_file(path) as file:
            for block in read_blocks(file, clip=False):
                meter.add(block)
                frames.add(block.mean(dim=0).numpy())
    except Unreadable as error:
        raise DataError(f"{path}: {error}") from error
    if picture is not None:
        frames.draw(picture)
    return {
        "format": sound.format,
        "encoding": sound.encoding,
        "sample_rate": sound.sample_rate,
        "channels": sound.channels,
        "bits": sound.bits,
        "seconds": sound.length / sound.sample_rate,
        **meter.levels(),
        "note": sound.note,
    }


class Meter:
    """Levels of a sound that is read in blocks.

    Args:
        sound: the sound, whose encoding determines full scale.
    """

    def __init__(self, sound: FileSound):
        self.samples = sound.length * sound.channels
        self.step = max(1, sound.sample_rate // 100)  # 10 ms
        unlimited = sound.bits is None or sound.encoding in ("FLOAT", "DOUBLE")
        self.full_scale = 1.0 if unlimited else 1 - 2.0 ** (1 - min(sound.bits or 0, 24))
        self.peak, self.squares, self.clipped, self.silent, self.steps = 0.0, 0.0, 0, 0, 0
        self.held = torch.empty(sound.channels, 0)

    def add(self, block: Tensor) -> None:
        """Adds the next samples `[channels, n]`."""
        self.peak = max(self.peak, float(block.abs().max()))
        self.clipped += int((block.abs() >= self.full_scale).sum())
        self.squares += float(block.double().square().sum())
        self.held = torch.cat([self.held, block], dim=1)
        whole = self.held.shape[1] // self.step * self.step
        powers = self.held[:, :whole].reshape(len(self.held), -1, self.step).square().mean(dim=(0, 2))
        self.silent, self.steps = self.silent + int((powers < 10 ** (QUIET / 10)).sum()), self.steps + len(powers)
        self.held = self.held[:, whole:]

    def levels(self) -> dict[str, float | int | None]:
        """Returns the levels of the whole sound; see `inspect_sound`."""
        return {
            "peak": _decibels(self.peak),
            "rms": _decibels(math.sqrt(self.squares / self.samples)),
            "clipped": self.clipped,
            "silent": self.silent / self.steps if self.steps else None,
        }


def _decibels(amplitude: float) -> float | None:
    return 20 * math.log10(amplitude) if amplitude else None


class SpectrogramFrames:
    """Frames for a spectrogram of a sound that is read in blocks, with one frame per column of the picture.

    Args:
        length: number of samples of the sound.
        sample_rate: sample rate in Hz.
    """

    def __init__(self, length: int, sample_rate: int):
        self.length, self.sample_rate, self.size = length, sample_rate, frame_size(sample_rate)
        self.starts = ((np.arange(PICTURE[0]) + 0.5) * length / PICTURE[0]).astype(int) - self.size // 2
        self.place = -self.size // 2  # index of the first held sample
        self.held = np.zeros(self.size // 2, np.float32)
        self.frames: list[NDArray[np.float32]] = []

    def add(self, block: NDArray[np.float32]) -> None:
        """Adds the next samples `[n]`."""
        self.held = np.concatenate([self.held, block])
        while len(self.frames) < PICTURE[0]:
            start = self.starts[len(self.frames)] - self.place
            if start + self.size > len(self.held):
                dropped = min(max(0, start), len(self.held))
                self.held, self.place = self.held[dropped:], self.place + dropped
                return
            self.frames.append(self.held[start : start + self.size].copy())

    def draw(self, path: Path) -> None:
        """Writes the picture with its axes after the whole sound has been added.

        Raises:
            InputError: the picture cannot be written.
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
