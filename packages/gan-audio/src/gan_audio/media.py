"""Writing and drawing of samples: sounds as WAV, tunes as MIDI, and pictures of both.

Files are written atomically, and equal samples give equal bytes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.errors import InputError
from gan_core.errors import count as plural
from gan_core.media.items import check_samples, split_samples, write_each
from gan_core.media.layout import Grid, columns_for, round_step
from gan_core.media.writing import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, ImageDraw
    from torch import Tensor

    from gan_audio.mel.contract import MelContract
    from gan_core.media.items import Samples
    from gan_core.play.game import Game

    Array = NDArray[np.float64]

MAX_CHANNELS = 8
"""Maximum number of channels of a sound; a tensor with more is a spectrogram `[N, bands, frames]`."""
EXPECTED = "sounds [N, channels, samples]"
AREA = 600_000
"""Approximate number of pixels of all spectrograms in a picture."""
MIN_WIDTH, MAX_WIDTH = 72, 400
"""Range of the width of a spectrogram in pixels."""
ASPECT = 0.66
"""Height of a spectrogram divided by its width."""
COLOURS = 60
"""Number of colours of the spectrograms, 1.3 dB each."""
GREYS = 4
"""Number of grey levels of text; few levels keep the file small."""
GAP = 4
"""Distance in pixels between the spectrograms of one item, and between items with a single spectrogram."""
WIDE_GAP = 12
"""Distance between items that have several spectrograms, in pixels."""
LEFT, FOOT, HEAD, EDGE = 42, 22, 18, 8
"""Widths in pixels of the margins for frequencies (left), for times (bottom) and for names (top), and of empty ones."""
FREQUENCY_DISTANCE, TIME_DISTANCE = 16, 44
"""Minimum distance of the ticks of the frequency axis and of the time axis, in pixels."""
INK, PAPER = (90, 90, 90), (255, 255, 255)
"""Colours of text and of the background."""
SILENCE = 0.1
"""Silence between the sounds of one file, in seconds."""
MAX_WAV_BYTES = 2**18
"""Maximum size in bytes of a WAV file of several sounds, which a report embeds. Further sounds are only drawn."""
DEFAULT_RATE = 16_000
"""Sample rate in Hz for the frequency axis if the actual rate is not known."""

logger = logging.getLogger("gan_audio")


def write_samples(
    samples: Mapping[str, Tensor], stem: Path, *, columns: int | None = None, game: Game | None = None
) -> Path:
    """Writes a picture of all samples to `stem` with the suffix `.png`, and the sounds one after the other as `.wav`.

    Tunes are drawn as piano rolls and also written as `.mid`, with a bar of silence after each.

    Sounds are drawn as spectrograms, over time and frequency (mel scale) from `spectrogram.LOWEST` to `HIGHEST` dB.
    The WAV file contains them in the order of the picture, limited to whole items within `MAX_WAV_BYTES`.

    Args:
        samples: samples by name; those of one item are drawn side by side. Sounds `[N, channels, samples]` in [-1, 1];
            other arrays, which are drawn directly, with the first axis upwards: mels `[N, bands, frames]`, or rolls
            `[N, 1, H, W]`; or integer tunes `[N, 2, steps]` under a single name, with pitches and chords
            (`gan_audio.tune.midi`).
        stem: output path without the suffix; its folder is created if needed.
        columns: number of items in a row (default: a square picture).
        game: game that generated the samples. If its data specification has no sample rate, the axes have no ticks and
            no WAV file is written.

    Raises:
        DataError: none of the samples can be drawn.
    """
    path = stem.with_suffix(".png")
    if (tunes := _tunes(samples)) is not None:
        return _write_tunes(tunes, path, columns)
    drawn = _drawn(samples)
    rate = rate_of(game)
    picture = in_few_colours(_sheet(drawn, columns, rate))
    with replacing(path) as partial:
        picture.save(partial, format="PNG", optimize=True)
    sounds = [tensor for tensor in drawn.values() if is_sound(tensor)]
    if sounds and rate is not None:
        _write_all(sounds, stem.with_suffix(".wav"), rate)
    return path


def write_items(
    samples: Samples,
    folder: Path,
    *,
    count: int | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    game: Game | None = None,
) -> list[Path]:
    """Writes each item to its own file.

    Sounds are written as `00000.wav`, …, or as `00000_NAME.wav`, … if an item has several; tunes as `00000.mid`, …; and
    the mels of a game with a `contract` as `00000.mel.safetensors`, ….

    Args:
        samples: one tensor, tensors by name, or an iterable of tensors, which are written part by part: sounds
            `[N, channels, samples]` in [-1, 1], mels `[N, mels, frames]` or tunes `[N, 2, steps]`.
        folder: output folder, created if needed. Existing files are not overwritten.
        count: total number of items (default: those of the first part).
        labels: texts by column, one for each item, written to `labels.csv`.
        game: game that generated the samples; its data specification defines the sample rate.

    Returns:
        The paths of the files, without `labels.csv`.

    Raises:
        InputError: one of the files already exists, or the sample rate is not known.
        DataError: none of the samples can be written.
    """
    first, parts = split_samples(samples)
    number = count or len(next(iter(first.values())))
    if _tunes(first) is not None:
        from gan_audio.tune.midi import write_midi

        tunes = (tensor.cpu().numpy() for part in parts for tensor in [_tunes(part)] if tensor is not None)
        return write_each(({"tune": part} for part in tunes), folder, ".mid", write_midi, count=number, labels=labels)
    if (contract := contract_of(game)) is not None and len(first) == 1 and not is_sound(next(iter(first.values()))):
        from gan_audio.mel.files import SUFFIX, write_mel

        return write_each(
            parts, folder, SUFFIX, lambda path, mel: write_mel(path, mel, contract), count=number, labels=labels
        )
    return _write_sounds(parts, folder, known_rate_of(game, folder), count=number, labels=labels)


def _write_sounds(
    parts: Iterable[Mapping[str, Tensor]],
    folder: Path,
    rate: int,
    *,
    count: int,
    labels: Mapping[str, Sequence[str]] | None,
) -> list[Path]:
    from gan_audio.sound.wav import write_wav

    clipped = 0

    def write(path: Path, audio: Tensor) -> None:
        nonlocal clipped
        clipped += write_wav(path, audio, rate)

    files = write_each(map(_sounds, parts), folder, ".wav", write, count=count, labels=labels)
    if clipped:
        logger.warning("%s: %s beyond [-1, 1] were clipped", folder, plural(clipped, "sample"))
    return files


def _sounds(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the sounds among some samples."""
    sounds = {key: tensor for key, tensor in samples.items() if is_sound(tensor) and len(tensor)}
    check_samples(sounds, samples, expected=EXPECTED)
    return sounds


def write_joined(parts: Iterable[Tensor], path: Path, game: Game) -> None:
    """Writes sounds one after the other to a WAV file, with a short silence between them.

    Args:
        parts: sounds `[N, channels, samples]`, part by part.
        path: output file.
        game: game that generated the sounds; its data specification defines the sample rate.

    Raises:
        InputError: the file cannot be written, the samples are not sounds, or their sample rate is not known.
    """
    from torch.nn.functional import pad

    from gan_audio.sound.wav import open_wav

    sounds = (sound for part in parts for sound in part)
    first = next(sounds)
    if not is_sound(first[None]):
        raise InputError(f"{path}: samples of {game.title} are not sounds; use a model that generates sounds")
    rate = known_rate_of(game, path)
    with open_wav(path, sample_rate=rate, channels=len(first)) as writer:
        writer.write(first)
        for sound in sounds:
            writer.write(pad(sound, (round(SILENCE * rate), 0)))


def rate_of(game: Game | None) -> int | None:
    """Returns the sample rate in Hz of a game's sounds; None if its data specification does not define one."""
    from gan_audio.sound.spec import SoundSpec

    spec = None if game is None else game.spec
    return spec.sample_rate if isinstance(spec, SoundSpec) else None


def known_rate_of(game: Game | None, place: object) -> int:
    """Returns the sample rate in Hz of a game's sounds.

    Args:
        game: the game; None if it is not known.
        place: prefix of the error message, such as the output file.

    Raises:
        InputError: the game is None, or its data specification does not define a sample rate.
    """
    if (rate := rate_of(game)) is None:
        remedy = "set `data.spec.sample_rate`, or the `data_spec` of a game built by hand"
        raise InputError(f"{place}: the sample rate of the sounds is not known; {remedy}")
    return rate


def contract_of(game: Game | None) -> MelContract | None:
    """Returns the contract of the mels that a game generates or takes as input; None if there is none."""
    from gan_audio.mel.contract import HasContract

    return game.contract if isinstance(game, HasContract) else None


def is_sound(tensor: Tensor) -> bool:
    """Returns whether a tensor holds sounds `[N, channels, samples]`."""
    return tensor.ndim == 3 and tensor.is_floating_point() and tensor.shape[1] <= MAX_CHANNELS


def is_tune(tensor: Tensor) -> bool:
    """Returns whether a tensor holds tunes `[N, 2, steps]`."""
    return tensor.ndim == 3 and not tensor.is_floating_point() and tensor.shape[1] == 2


# --- the picture


def _drawn(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the samples that can be drawn, as `[N, channels, samples]` or `[N, H, W]`."""
    flat = {
        key: tensor.squeeze(1) if tensor.ndim == 4 and tensor.shape[1] == 1 else tensor
        for key, tensor in samples.items()
    }
    drawn = {key: tensor.detach().float().cpu() for key, tensor in flat.items() if tensor.ndim == 3 and tensor.numel()}
    check_samples(drawn, samples, expected=EXPECTED)
    return drawn


def _sheet(drawn: Mapping[str, Tensor], columns: int | None, rate: int | None) -> Image.Image:
    """Draws items in rows, with an item's pictures side by side; axes are labelled at the left and the bottom."""
    from PIL import Image, ImageDraw

    count, cells = len(next(iter(drawn.values()))), len(drawn)
    width = min(max(round(math.sqrt(AREA / (ASPECT * count * cells))), MIN_WIDTH), MAX_WIDTH)
    grid = Grid(
        count,
        columns_for(count, columns, width=cells),
        width,
        round(ASPECT * width),
        cells=cells,
        cell_gap=GAP,
        gap=WIDE_GAP if cells > 1 else GAP,
        left=LEFT,
        top=HEAD if cells > 1 else EDGE,
        right=EDGE,
        bottom=FOOT,
    )
    sheet = Image.new("RGB", grid.size, PAPER)
    draw = ImageDraw.Draw(sheet)
    sounds = [tensor for tensor in drawn.values() if is_sound(tensor)]
    seconds = max((tensor.shape[-1] for tensor in sounds), default=0) / (rate or DEFAULT_RATE)
    for cell, (name, tensor) in enumerate(drawn.items()):
        pictures = _pictures(tensor, grid.width, grid.height, rate or DEFAULT_RATE, seconds)
        for item, pixels in enumerate(pictures):
            left, top = grid.corner(item, cell)
            sheet.paste(Image.fromarray(pixels), (left, top))
            box = left, top, grid.width, grid.height
            if rate is not None and is_sound(tensor):
                if item % grid.columns == 0 and cell == 0:
                    draw_frequencies(draw, box, rate)
                if item + grid.columns >= count:
                    draw_times(draw, box, seconds)
            if cells > 1 and item < grid.columns:
                draw.text((left + grid.width // 2, top - 3), name, fill=INK, anchor="mb")
    return sheet


def in_few_colours(picture: Image.Image) -> Image.Image:
    """Converts a picture to a palette of the spectrograms' colours and of greys between `INK` and `PAPER`."""
    import numpy as np
    from PIL import Image

    from gan_audio.sound.spectrogram import colours

    steps = np.linspace(0, 1, GREYS)[:, None]
    greys = np.array(INK) * (1 - steps) + np.array(PAPER) * steps
    palette = np.concatenate([colours(np.linspace(0, 1, COLOURS)), greys.round()]).astype(np.int64)
    numbers, where = np.unique(np.asarray(picture.convert("RGBX")).view("<u4"), return_inverse=True)
    used = numbers[:, None] >> np.array([0, 8, 16]) & 255
    nearest = np.square(used[:, None] - palette).sum(axis=2).argmin(axis=1).astype(np.uint8)
    few = Image.fromarray(nearest[where].reshape(picture.height, picture.width))
    few.putpalette(palette.astype(np.uint8).tobytes())
    return few


def _pictures(tensor: Tensor, width: int, height: int, rate: int, seconds: float) -> list[Any]:
    """Returns RGB pixels `[height, width, 3]` for every item."""
    import numpy as np
    from PIL import Image

    from gan_audio.sound.spectrogram import HIGHEST, LOWEST, colours, levels

    arrays = tensor.nan_to_num(0.0).double().numpy()
    if is_sound(tensor):
        found = [levels(a.mean(axis=0), rate, rows=height, columns=width, seconds=seconds) for a in arrays]
        return [colours((each[::-1] - LOWEST) / (HIGHEST - LOWEST)) for each in found]
    low, high = arrays.min(), arrays.max()
    upward = [colours((each[::-1] - low) / ((high - low) or 1.0)) for each in arrays]
    return [np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BOX)) for each in upward]


def draw_frequencies(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], rate: int) -> None:
    """Draws the frequency axis of a spectrogram, with labels in Hz or kHz."""
    from gan_audio.sound.spectrogram import frequency_ticks

    left, top, _, height = box
    for hz, place in frequency_ticks(rate, height, FREQUENCY_DISTANCE):
        at = top + height - 1 - round(place * (height - 1))
        draw.line((left - 4, at, left - 1, at), fill=INK)
        draw.text((left - 6, at), f"{hz // 1000} kHz" if hz >= 1000 else str(hz), fill=INK, anchor="rm")


def draw_times(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], seconds: float) -> None:
    """Draws the time axis, with ticks at round times; the last label has the unit."""
    left, top, width, height = box
    step = round_step(seconds * TIME_DISTANCE / width)
    times = [k * step for k in range(math.floor(seconds / step + 1e-6) + 1)]
    for time in times:
        at, foot = left + round(time / seconds * (width - 1)), top + height
        draw.line((at, foot, at, foot + 3), fill=INK)
        anchor = "lt" if time == 0 else "rt" if at > left + width - TIME_DISTANCE // 2 else "mt"
        draw.text((at, foot + 5), f"{time:g} s" if time == times[-1] else f"{time:g}", fill=INK, anchor=anchor)


# --- the sounds


def _write_all(sounds: list[Tensor], path: Path, rate: int) -> None:
    """Writes sounds one after the other, grouped by item, with a short silence after each."""
    import torch

    from gan_audio.sound.wav import open_wav

    channels = max(tensor.shape[1] for tensor in sounds)
    silence = torch.zeros(channels, round(SILENCE * rate))
    length = sum(tensor.shape[-1] + silence.shape[-1] for tensor in sounds)
    items = min(len(sounds[0]), max(1, MAX_WAV_BYTES // (2 * channels * length)))
    with open_wav(path, sample_rate=rate, channels=channels) as writer:
        for item in range(items):
            for tensor in sounds:
                writer.write(
                    tensor[item] if tensor.shape[1] == channels else tensor[item].mean(dim=0).expand(channels, -1)
                )
                writer.write(silence)


# --- tunes


def _tunes(samples: Mapping[str, Tensor]) -> Tensor | None:
    """Returns the tunes among some samples, if there are any."""
    return next((tensor for tensor in samples.values() if is_tune(tensor) and len(tensor)), None)


def _write_tunes(tunes: Tensor, path: Path, columns: int | None) -> Path:
    """Writes a picture of tunes, all tunes as one MIDI file, and those within `MAX_WAV_BYTES` as a WAV file."""
    import numpy as np
    import torch

    from gan_audio.tune.midi import SILENT, STEPS, write_midi
    from gan_audio.tune.rolls import RATE, draw_rolls, synthesize

    every = tunes.cpu().numpy()
    with replacing(path) as partial:
        draw_rolls(every, columns).save(partial, format="PNG", optimize=True)
    apart = np.pad(every, ((0, 0), (0, 0), (0, STEPS)), constant_values=SILENT)
    write_midi(path.with_suffix(".mid"), np.concatenate(list(apart), axis=1))
    sounds = [torch.from_numpy(synthesize(every[0]))]
    bytes_of_one = 2 * sounds[0].shape[1] + 2 * round(SILENCE * RATE)
    sounds += [torch.from_numpy(synthesize(tune)) for tune in every[1 : MAX_WAV_BYTES // bytes_of_one]]
    _write_all([torch.stack(sounds)], path.with_suffix(".wav"), RATE)
    return path
