"""Statistics of tunes `[N, 2, steps]` of pitches and chords (`gan_audio.tune.midi`): chords, notes, repetition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gan_audio.tune.compose import SCALES
from gan_audio.tune.midi import CHORDS, STEPS, onsets, triad

WIDEST = 12
"""Widest interval in semitones that is counted separately. Wider intervals count as this number plus 1."""


def on_chord(tunes: Tensor) -> float:
    """Returns the share of steps whose pitch is the root, third or fifth of the chord."""
    return _share_within(tunes, [triad(chord) for chord in range(CHORDS)])


def on_scale(tunes: Tensor) -> float:
    """Returns the share of steps whose pitch is in the major or natural minor scale of the chord."""
    return _share_within(tunes, [[chord + note for note in SCALES[chord // 12]] for chord in range(CHORDS)])


def onsets_per_bar(tunes: Tensor) -> float:
    """Returns the mean number of notes that start in a bar (see `gan_audio.tune.midi.onsets`)."""
    return float(_begins(tunes).double().sum() * STEPS / tunes[:, 0].numel())


def repeated_bars(tunes: Tensor) -> float:
    """Returns the fraction of bars with the pitches of the previous bar, not counting the first bar of each tune."""
    bars = tunes[:, 0].reshape(len(tunes), -1, STEPS)
    return float((bars[:, 1:] == bars[:, :-1]).all(dim=2).double().mean()) if bars.shape[1] > 1 else 0.0


def distinct_bars(tunes: Tensor) -> float:
    """Returns the number of distinct bars divided by the number of bars."""
    bars = tunes[:, 0].reshape(-1, STEPS)
    return len(torch.unique(bars, dim=0)) / len(bars)


def onset(tunes: Tensor) -> Tensor:
    """Returns the share of notes that start at each step of the bar, `[16]`."""
    return _shares(_begins(tunes).nonzero()[:, 1] % STEPS, STEPS)


def length(tunes: Tensor) -> Tensor:
    """Returns the share of notes of each length from 0 to 16 steps, `[17]`."""
    return _shares(_starts(tunes).diff(), STEPS + 1)


def interval(tunes: Tensor) -> Tensor:
    """Returns the share of each interval between consecutive notes of a tune, from -13 to 13 semitones, `[27]`."""
    starts = _starts(tunes)
    pitches = tunes[:, 0].flatten()[starts[:-1]]
    within = (starts[1:-1] % tunes.shape[2]) != 0  # no interval leads to the first note of a tune
    apart = pitches.diff()[within].clamp(-WIDEST - 1, WIDEST + 1)
    return _shares(apart + WIDEST + 1, 2 * WIDEST + 3)


def pitch_class(tunes: Tensor) -> Tensor:
    """Returns the share of steps of each pitch class from C, `[12]`."""
    return _shares(tunes[:, 0].flatten() % 12, 12)


def total_variation(a: Tensor, b: Tensor) -> float:
    """Returns half the L1 distance of two distributions: 0 if they are equal, 1 if they do not overlap."""
    return float((a - b).abs().sum() / 2)


DISTRIBUTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "onset": onset,
    "length": length,
    "interval": interval,
    "pitch_class": pitch_class,
}
"""Distributions of tunes, by the name of their distance in metrics."""


def _begins(tunes: Tensor) -> Tensor:
    """Returns a mask of the steps at which notes start, `[N, steps]`."""
    return torch.from_numpy(onsets(tunes[:, 0].numpy()))


def _starts(tunes: Tensor) -> Tensor:
    """Returns the positions where notes start in the concatenated tunes, and the end of the last tune."""
    places = _begins(tunes).flatten().nonzero().flatten()
    return torch.cat([places, places.new_tensor([tunes[:, 0].numel()])])


def _share_within(tunes: Tensor, allowed: Sequence[Sequence[int]]) -> float:
    """Returns the share of steps whose pitch class is allowed for the chord of the step."""
    table = torch.zeros(CHORDS, 12, dtype=torch.bool)
    for chord, notes in enumerate(allowed):
        table[chord, [note % 12 for note in notes]] = True
    pitches, chords = tunes.unbind(1)
    return float(table[chords, pitches % 12].double().mean())


def _shares(values: Tensor, number: int) -> Tensor:
    """Returns the shares of the integers from 0 to `number` - 1 among values."""
    counts = values.bincount(minlength=number).double()
    return counts / counts.sum().clamp(min=1)
