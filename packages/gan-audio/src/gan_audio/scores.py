"""What tunes are as data: those of a user's MIDI files, and those that are made by rule, cut to a network's bars."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_audio.midi import LOWEST, MAX_BYTES, OCTAVES, SILENT, SUFFIXES, Bars, in_key, phrases, read_midi
from gan_audio.tunes import make_tunes
from gan_core.data import Source, TensorDataset
from gan_core.errors import DataError
from gan_core.files import Files, Unreadable, count, names_ending, nothing_readable, read_member, skip

KEYS = 12
"""That a tune can be moved to."""

logger = logging.getLogger("gan_audio")


class TuneSource(Source):
    """Tunes of so many bars as a network asks for.

    Args:
        name: of the source.
        pieces: how many there are.
        make: the tunes `[N, 2, 16 bars]` of so many bars, which may be none.

    Attributes:
        facts: `tunes`, the pieces.
        skipped: what could not be read and why, by name.
    """

    def __init__(self, name: str, pieces: int, make: Callable[[int], Tensor]):
        self.name, self.pieces, self.make = name, pieces, make
        self.facts = {"tunes": pieces}
        self.skipped: dict[str, str] = {}
        self._last: tuple[tuple[int, bool], TensorDataset] | None = None

    def __len__(self) -> int:
        return self.pieces

    def fit(self, **network: Any) -> TensorDataset:
        """Items `tune` `[2, 16 bars]`: at every step the melody's pitch and the chord (`gan_audio.midi`).

        Args:
            network: `bars` of a tune; `transposed`, whether each is in all twelve keys (`in_all_keys`).

        Raises:
            DataError: the network takes no tunes, or no piece has so many bars one after the other.
        """
        if "bars" not in network:
            raise DataError(f"{self.name}: holds tunes, which midinet learns from, and this system learns from sounds")
        wanted = bars, transposed = int(network["bars"]), bool(network.get("transposed"))
        if self._last is None or self._last[0] != wanted:
            tunes = self.make(bars)
            if not len(tunes):
                lacking = f"no piece has {count(bars, 'bar')} with a melody and a chord one after the other"
                raise DataError(f"{self.name}: {lacking}; set `network.bars` to fewer")
            self._last = wanted, TensorDataset({"tune": in_all_keys(tunes) if transposed else tunes})
        return self._last[1]


def in_all_keys(tunes: Tensor) -> Tensor:
    """Tunes `[N, 2, steps]` moved to each of the twelve keys, `[12 N, 2, steps]`.

    Pitches that leave their two octaves at one end come in at the other (Yang et al. 2017, arXiv:1703.10847, sec. 4.1:
    melodies and chords are shifted circularly).
    """
    pitches, chords = tunes.unbind(1)
    moved = [
        torch.stack([(pitches - LOWEST + key) % (12 * OCTAVES) + LOWEST, in_key(chords, key)], dim=1)
        for key in range(KEYS)
    ]
    return torch.cat(moved)


def made_tunes(name: str, number: int) -> TuneSource:
    """So many tunes that are made by rule (`gan_audio.tunes`)."""
    return TuneSource(name, number, lambda bars: make_tunes(range(number), bars=bars))


def open_tunes(path: Path, files: Files, *, strict: bool) -> TuneSource:
    """The tunes of the MIDI files of a folder or archive, all of which are read now; see `gan_audio.midi`.

    A file that cannot be used is named, counted and skipped, and bars that are left out are counted.

    Raises:
        DataError: no file can be used, or one cannot and `strict`.
    """
    names, seen = names_ending(files, SUFFIXES)
    pieces: list[Bars] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            piece = read_midi(read_member(files, name, most_bytes=MAX_BYTES))
            if (piece.chords == SILENT).all():
                raise Unreadable("has no bar with a melody and a major or minor chord")
            pieces.append(piece)
        except Unreadable as error:
            skipped[name] = str(error)
    if not pieces and not (strict and skipped):
        raise nothing_readable(str(path), seen, skipped, thing="tune", suffixes=SUFFIXES)
    source = TuneSource(
        str(path), len(pieces), lambda bars: torch.from_numpy(np.concatenate([phrases(each, bars) for each in pieces]))
    )
    skip(source.skipped, skipped, where=source.name, thing="tune", strict=strict, logger=logger)
    every = np.concatenate([piece.chords for piece in pieces])
    if out := int((every == SILENT).sum()):
        reason = "without notes, without a major or minor chord, or with notes beside the sixteenths"
        logger.warning("%s: left out %s of %s: %s", path, f"{out:,}", count(len(every), "bar"), reason)
    return source
