"""Tunes as data: those of a user's MIDI files, and those that are made by rule, cut to the bars that a game needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gan_audio.midi import LOWEST, MAX_BYTES, OCTAVES, SILENT, SUFFIXES, Bars, in_key, phrases, read_midi
from gan_audio.specs import TuneSpec
from gan_audio.tunes import make_tunes
from gan_core.data import Source, Spec, TensorDataset, expect
from gan_core.errors import DataError
from gan_core.files import Files, Unreadable, count, names_ending, nothing_readable, read_member, skip

KEYS = 12
"""That a tune can be moved to."""

logger = logging.getLogger("gan_audio")


class Cut(NamedTuple):
    """Tunes of equal length, cut from pieces.

    Attributes:
        tunes: `[N, 2, 16 bars]`, pitches and chords.
        pieces: index of the piece that each tune is cut from, `[N]`.
    """

    tunes: Tensor
    pieces: Tensor


class TuneSource(Source):
    """Tunes of as many bars as a game needs.

    Args:
        name: name of the source.
        pieces: number of pieces.
        cut: returns all tunes of a number of bars; there may be none.

    Attributes:
        facts: `tunes`, the number of pieces.
        skipped: names of files that could not be read, with the reasons.
    """

    def __init__(self, name: str, pieces: int, cut: Callable[[int], Cut]):
        self.name, self.pieces, self.cut = name, pieces, cut
        self.facts = {"tunes": pieces}
        self.skipped: dict[str, str] = {}

    @property
    def keys(self) -> Collection[str]:
        return ("tune",)

    def __len__(self) -> int:
        return self.pieces

    def fit(self, spec: Spec) -> TensorDataset:
        """Returns items `tune` `[2, 16 bars]`: at every step the melody's pitch and the chord (`gan_audio.midi`).

        Tunes of one piece, in all keys, are of one group.

        Raises:
            DataError: the game needs something else or does not say how many bars, or no piece has that many bars one
                after the other.
        """
        wanted = expect(spec, TuneSpec, self.name, "tunes")
        if wanted.bars is None:
            raise DataError(f"{self.name}: tunes are cut to a number of bars; set `data.spec.bars`")
        tunes, pieces = self.cut(wanted.bars)
        if not len(tunes):
            lacking = f"no piece has {count(wanted.bars, 'bar')} with a melody and a chord one after the other"
            raise DataError(f"{self.name}: {lacking}; set `game.bars` to fewer")
        if wanted.transposed:
            tunes, pieces = in_all_keys(tunes), pieces.repeat(KEYS)
        return TensorDataset({"tune": tunes}, pixels=(), groups=pieces)


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
    """Returns a number of tunes that are made by rule (`gan_audio.tunes`)."""
    return TuneSource(name, number, lambda bars: Cut(make_tunes(range(number), bars=bars), torch.arange(number)))


def cut_pieces(pieces: Sequence[Bars], bars: int) -> Cut:
    """Cuts pieces to tunes of a number of bars (`gan_audio.midi.phrases`)."""
    tunes = [phrases(piece, bars) for piece in pieces]
    numbers = torch.repeat_interleave(torch.tensor([len(some) for some in tunes]))
    return Cut(torch.from_numpy(np.concatenate(tunes)), numbers)


def open_tunes(name: str, files: Files, *, strict: bool) -> TuneSource:
    """Opens the tunes of the MIDI files of a folder or archive; all files are read now (see `gan_audio.midi`).

    A file that cannot be used is named, counted and skipped, and bars that are left out are counted.

    Args:
        name: name of the source.
        files: its files.
        strict: whether a file that cannot be used is an error.

    Raises:
        DataError: no file can be used, or one cannot and `strict`.
    """
    names, seen = names_ending(files, SUFFIXES)
    pieces: list[Bars] = []
    skipped: dict[str, str] = {}
    for each in names:
        try:
            piece = read_midi(read_member(files, each, most_bytes=MAX_BYTES))
            if (piece.chords == SILENT).all():
                raise Unreadable("has no bar with a melody and a major or minor chord")
            pieces.append(piece)
        except Unreadable as error:
            skipped[each] = str(error)
    if not pieces and not (strict and skipped):
        raise nothing_readable(name, seen, skipped, thing="tune", suffixes=SUFFIXES)
    source = TuneSource(name, len(pieces), partial(cut_pieces, pieces))
    skip(source.skipped, skipped, where=source.name, thing="tune", strict=strict, logger=logger)
    every = np.concatenate([piece.chords for piece in pieces])
    if out := int((every == SILENT).sum()):
        reason = "without notes, without a major or minor chord, or with notes beside the sixteenths"
        logger.warning("%s: left out %s of %s: %s", name, f"{out:,}", count(len(every), "bar"), reason)
    return source
