"""Statistics of tunes `[N, 2, steps]` of pitches and chords (`gan_audio.tune.midi`): chords, notes, repetition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gan_audio.tune.compose import SCALES
from gan_audio.tune.midi import CHORDS, STEPS, onsets, triad

WIDEST = 12
"""Semitones: wider intervals count as this one and one more."""


def on_chord(tunes: Tensor) -> float:
    """The share of steps whose pitch is the root, the third or the fifth of the chord."""
    return _share_within(tunes, [triad(chord) for chord in range(CHORDS)])


def on_scale(tunes: Tensor) -> float:
    """The share of steps whose pitch is of the scale on the chord's root, major or natural minor as the chord is."""
    return _share_within(tunes, [[chord + note for note in SCALES[chord // 12]] for chord in range(CHORDS)])


def onsets_per_bar(tunes: Tensor) -> float:
    """Notes that begin in a bar, in the mean; one does so where the pitch changes, and with every bar."""
    return float(_begins(tunes).double().sum() * STEPS / tunes[:, 0].numel())


def repeated_bars(tunes: Tensor) -> float:
    """The share of bars, but for the first of each tune, with the pitches of the bar before."""
    bars = tunes[:, 0].reshape(len(tunes), -1, STEPS)
    return float((bars[:, 1:] == bars[:, :-1]).all(dim=2).double().mean()) if bars.shape[1] > 1 else 0.0


def distinct_bars(tunes: Tensor) -> float:
    """Different bars as a share of all."""
    bars = tunes[:, 0].reshape(-1, STEPS)
    return len(torch.unique(bars, dim=0)) / len(bars)


def onset(tunes: Tensor) -> Tensor:
    """Of the notes that begin, the share at each step of the bar, `[16]`."""
    return _shares(_begins(tunes).nonzero()[:, 1] % STEPS, STEPS)


def length(tunes: Tensor) -> Tensor:
    """Of the notes, the share of each length, 0 to 16 steps, `[17]`."""
    return _shares(_starts(tunes).diff(), STEPS + 1)


def interval(tunes: Tensor) -> Tensor:
    """Of the steps from a note to the next of its tune, the share of each interval from -13 to 13 semitones, `[27]`."""
    starts = _starts(tunes)
    pitches = tunes[:, 0].flatten()[starts[:-1]]
    within = (starts[1:-1] % tunes.shape[2]) != 0  # a tune's first note follows on none
    apart = pitches.diff()[within].clamp(-WIDEST - 1, WIDEST + 1)
    return _shares(apart + WIDEST + 1, 2 * WIDEST + 3)


def pitch_class(tunes: Tensor) -> Tensor:
    """Of the steps, the share of each note from C on, `[12]`."""
    return _shares(tunes[:, 0].flatten() % 12, 12)


def total_variation(a: Tensor, b: Tensor) -> float:
    """Half the sum of the differences of two distributions: 0 if they are equal, 1 if they share nothing."""
    return float((a - b).abs().sum() / 2)


DISTRIBUTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "onset": onset,
    "length": length,
    "interval": interval,
    "pitch_class": pitch_class,
}
"""By the name of their distance."""


def _begins(tunes: Tensor) -> Tensor:
    """Where notes begin, `[N, steps]`."""
    return torch.from_numpy(onsets(tunes[:, 0].numpy()))


def _starts(tunes: Tensor) -> Tensor:
    """The places in all tunes one after the other at which notes begin, and the end."""
    places = _begins(tunes).flatten().nonzero().flatten()
    return torch.cat([places, places.new_tensor([tunes[:, 0].numel()])])


def _share_within(tunes: Tensor, allowed: Sequence[Sequence[int]]) -> float:
    """The share of steps whose pitch class is among those of their chord."""
    table = torch.zeros(CHORDS, 12, dtype=torch.bool)
    for chord, notes in enumerate(allowed):
        table[chord, [note % 12 for note in notes]] = True
    pitches, chords = tunes.unbind(1)
    return float(table[chords, pitches % 12].double().mean())


def _shares(values: Tensor, number: int) -> Tensor:
    """How often each of the first whole numbers is among some."""
    counts = values.bincount(minlength=number).double()
    return counts / counts.sum().clamp(min=1)
