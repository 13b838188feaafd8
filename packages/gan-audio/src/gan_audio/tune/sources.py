"""Sources of tunes from MIDI files or from a generator, cut to the number of bars that a game needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gan_audio.tune.compose import make_tunes
from gan_audio.tune.midi import (
    FOREIGN,
    LOWEST,
    MAX_BYTES,
    NO_BARS,
    OCTAVES,
    SILENT,
    SUFFIXES,
    Bars,
    in_key,
    phrases,
    read_midi,
)
from gan_audio.tune.spec import TuneSpec
from gan_core.data import Source, Spec, TensorDataset, expect
from gan_core.data.dataset import EMPTY
from gan_core.data.files import FileKind, Files, read_member
from gan_core.data.folders import Opened, list_files
from gan_core.errors import DataError, Unreadable, count

TUNES = FileKind("tune", SUFFIXES, FOREIGN, "MIDI (.mid)", lambda start: start.startswith(b"MThd"))
KEYS = 12
"""Number of keys to which a tune can be transposed."""

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
    """A source of tunes, which are cut from pieces to the number of bars that a game needs.

    Args:
        name: name of the source.
        pieces: number of pieces.
        cut: returns all tunes with the given number of bars, of which there may be none.
        skipped: reasons by name of the files that could not be read.

    Attributes:
        facts: `tunes`, the number of pieces.
    """

    def __init__(self, name: str, pieces: int, cut: Callable[[int], Cut], *, skipped: Mapping[str, str] = EMPTY):
        self.name, self.pieces, self.cut, self.skipped = name, pieces, cut, skipped
        self.facts = {"tunes": pieces}

    @property
    def keys(self) -> Collection[str]:
        return ("tune",)

    def __len__(self) -> int:
        return self.pieces

    def fit(self, spec: Spec) -> TensorDataset:
        """Returns items `tune` `[2, 16 * bars]`: pitch of the melody and chord, per step (`gan_audio.tune.midi`).

        All tunes of one piece, including transposed ones, are in one group.

        Raises:
            DataError: the specification is not for tunes, or its number of bars is not set, or no piece has that many
                consecutive bars.
        """
        wanted = expect(spec, TuneSpec, self.name, "tunes")
        if wanted.bars is None:
            raise DataError(f"{self.name}: the length of tunes is not set; set `data.spec.bars`")
        tunes, pieces = self.cut(wanted.bars)
        if not len(tunes):
            lacking = f"no piece has {count(wanted.bars, 'consecutive bar')} with a melody and a chord"
            raise DataError(f"{self.name}: {lacking}; lower `game.bars`")
        if wanted.transposed:
            tunes, pieces = in_all_keys(tunes), pieces.repeat(KEYS)
        return TensorDataset({"tune": tunes}, pixels=(), groups=pieces)


def in_all_keys(tunes: Tensor) -> Tensor:
    """Transposes tunes `[N, 2, steps]` to all twelve keys, `[12 * N, 2, steps]`.

    Melodies and chords are shifted circularly: pitches above the two octaves wrap around to the lowest ones (Yang et
    al. 2017, arXiv:1703.10847, section 4.1).
    """
    pitches, chords = tunes.unbind(1)
    moved = [
        torch.stack([(pitches - LOWEST + key) % (12 * OCTAVES) + LOWEST, in_key(chords, key)], dim=1)
        for key in range(KEYS)
    ]
    return torch.cat(moved)


def made_tunes(name: str, number: int) -> TuneSource:
    """Returns a source of `number` generated tunes (`gan_audio.tune.compose`)."""
    return TuneSource(name, number, lambda bars: Cut(make_tunes(range(number), bars=bars), torch.arange(number)))


def cut_pieces(pieces: Sequence[Bars], bars: int) -> Cut:
    """Cuts pieces into tunes with the given number of bars (`gan_audio.tune.midi.phrases`)."""
    tunes = [phrases(piece, bars) for piece in pieces]
    numbers = torch.repeat_interleave(torch.tensor([len(some) for some in tunes]))
    return Cut(torch.from_numpy(np.concatenate(tunes)), numbers)


def open_tunes(opened: Opened, *, strict: bool = False) -> TuneSource:
    """Opens the MIDI files of a folder or archive as tunes, and reads all of them (see `gan_audio.tune.midi`).

    Warnings list the skipped files and the number of bars that are left out.

    Args:
        opened: the folder or archive.
        strict: whether an unusable file is an error.

    Raises:
        DataError: no file is usable, or a file is unusable and `strict` is set.
    """
    found = list_files(opened._replace(labelled=(None, None)), TUNES, _read_piece, strict=strict)
    pieces = list(found.headers.values())
    bars = np.concatenate([piece.chords for piece in pieces])
    if unusable := int((bars == SILENT).sum()):
        reason = "without notes, without a major or minor chord, or with notes off the grid of sixteenths"
        logger.warning("%s: left out %s of %s: %s", opened.name, f"{unusable:,}", count(len(bars), "bar"), reason)
    return TuneSource(opened.name, len(pieces), partial(cut_pieces, pieces), skipped=found.skipped)


def _read_piece(files: Files, name: str) -> Bars:
    piece = read_midi(read_member(files, name, most_bytes=MAX_BYTES))
    if (piece.chords == SILENT).all():
        raise Unreadable(NO_BARS)
    return piece
