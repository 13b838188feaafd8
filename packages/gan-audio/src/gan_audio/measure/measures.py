"""Metrics of audio and tunes; see `gan_core.measure.measures`."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_audio.measure import distances
from gan_audio.measure.classifier import LogMel
from gan_audio.measure.extractors import checked, rate_of
from gan_audio.tune import figures as tune_figures
from gan_core.data import some
from gan_core.errors import InputError
from gan_core.measure.measures import PairPart, Part, SlicedWasserstein, Subject


class Spectrum:
    """Root-mean-square difference in dB between mean powers of 64 mel bands.

    Figures: `spectrum`, between the samples and at most the same number of real sounds; `spectrum_of_real`, between two
    halves of the real sounds, as a baseline. 64 numbers per real sound are kept.
    """

    def __init__(self, subject: Subject):
        self.spectrogram = spectrogram_of(subject)
        self.count, self.power = 0, torch.zeros(())
        real = torch.cat([self._powers(batch[subject.key]) for batch in subject.real()])
        half = max(1, len(real) // 2)
        self.real, self.halves = real.mean(dim=0), (real[:half].mean(dim=0), real[-half:].mean(dim=0))

    @torch.no_grad()
    def _powers(self, sounds: Tensor) -> Tensor:
        """Returns the mean power of each band of each sound, `[B, bands]`."""
        return self.spectrogram(checked(sounds)).double().mul(2).exp().mean(dim=2)

    def update(self, part: Part) -> None:
        self.power = self.power + self._powers(part.samples).sum(dim=0)
        self.count += len(part.samples)

    def figures(self) -> dict[str, float]:
        return {
            "spectrum": _level_difference(self.power / self.count, self.real),
            "spectrum_of_real": _level_difference(*self.halves),
        }


def _level_difference(a: Tensor, b: Tensor) -> float:
    """Returns the root-mean-square difference in dB between powers `[bands]`."""
    return float((10 * (a.log10() - b.log10())).square().mean().sqrt())


def spectrogram_of(subject: Subject) -> LogMel:
    """Returns the transform from a subject's sounds to log-mel spectrograms."""
    real = next(subject.real(1))[subject.key]
    return LogMel(real.shape[-1], rate_of(subject.dataset, subject.facts))


def sliced_wasserstein(subject: Subject) -> SlicedWasserstein:
    """Returns the sliced Wasserstein distance of log-mel spectrograms."""
    spectrogram = spectrogram_of(subject)
    return SlicedWasserstein(subject, lambda sounds: spectrogram(checked(sounds)))


class Distances:
    """Distances between resynthesised sounds and the originals, `[B, 1, samples]` each (`gan_audio.measure.distances`).

    Figures: `mel_cepstral_distortion` and `log_spectral_distance` in dB, and `stft_distance`, means over all sounds.
    """

    def __init__(self, subject: Subject):
        self.rate = rate_of(subject.dataset, subject.facts)
        self.count = 0
        self.sums = dict.fromkeys(("mel_cepstral_distortion", "log_spectral_distance", "stft_distance"), 0.0)

    def update(self, part: PairPart) -> None:
        real, made, number = part.real, part.made, len(part.real)
        found = (
            distances.mel_cepstral_distortion(real, made, sample_rate=self.rate),
            distances.log_spectral_distance(real, made, sample_rate=self.rate),
            distances.multi_resolution_stft_distance(real, made),
        )
        self.sums = {
            name: total + number * value for (name, total), value in zip(self.sums.items(), found, strict=True)
        }
        self.count += number

    def figures(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items()}


class F0:
    """Error of the fundamental frequency of resynthesised sounds, `[B, 1, samples]` each.

    Figures: see `gan_audio.measure.distances.f0_error`.
    """

    def __init__(self, subject: Subject):
        self.rate = rate_of(subject.dataset, subject.facts)
        self.counts = distances.F0Counts()

    def update(self, part: PairPart) -> None:
        self.counts += distances.f0_counts(part.real, part.made, sample_rate=self.rate)

    def figures(self) -> dict[str, float]:
        return self.counts.figures()


class TuneMeasure:
    """Base class of metrics of tunes `[B, 2, steps]`. All tunes are kept in memory; each takes half a kilobyte.

    Args:
        subject: evaluated game and data.

    Raises:
        InputError: samples do not have the shape of the data's tunes.
    """

    def __init__(self, subject: Subject):
        self.real = some(subject.dataset, subject.count)[subject.key]
        self.parts: list[Tensor] = []

    def update(self, part: Part) -> None:
        if part.samples.shape[1:] != self.real.shape[1:]:
            given, wanted = list(part.samples.shape), list(self.real.shape)
            raise InputError(f"the samples have the shape {given}; expected tunes {wanted}")
        self.parts.append(part.samples.short())

    @property
    def made(self) -> Tensor:
        """All tunes so far, `[N, 2, steps]`."""
        return torch.cat(self.parts).long()


class ChordFit(TuneMeasure):
    """Agreement of melodies with their chords, as fractions of all steps.

    Figures: `chord_tones`, steps whose note is the root, third or fifth of the chord; `scale_tones`, steps whose note
    is in the major or natural minor scale on the chord's root; and both figures for the data (`_of_real`).
    """

    def figures(self) -> dict[str, float]:
        on_chord, on_scale = tune_figures.on_chord, tune_figures.on_scale
        return {
            "chord_tones": on_chord(self.made),
            "chord_tones_of_real": on_chord(self.real),
            "scale_tones": on_scale(self.made),
            "scale_tones_of_real": on_scale(self.real),
        }


class Notes(TuneMeasure):
    """Distributions of onsets, lengths, intervals and pitch classes in melodies, compared with the data.

    Distances are total variation distances, from 0 for equal to 1 for disjoint distributions, of onset positions in the
    bar (`onset_distance`), note lengths, intervals between notes, and pitch classes.

    Figures: `onsets_per_bar`, also for the data (`_of_real`), and the distances, also between two halves of the data as
    a baseline (`_of_real`).
    """

    def figures(self) -> dict[str, float]:
        made, real, count = self.made, self.real, tune_figures.onsets_per_bar
        half = max(1, len(real) // 2)
        figures = {"onsets_per_bar": count(made), "onsets_per_bar_of_real": count(real)}
        for name, distribution in tune_figures.DISTRIBUTIONS.items():
            own, first, second = (distribution(tunes) for tunes in (made, real[:half], real[-half:]))
            figures[f"{name}_distance"] = tune_figures.total_variation(own, distribution(real))
            figures[f"{name}_distance_of_real"] = tune_figures.total_variation(first, second)
        return figures


class Repetition(TuneMeasure):
    """Repetition in melodies.

    Figures: `repeated_bars`, the fraction of bars, except the first, that equal the previous bar; `distinct_bars`, the
    number of distinct bars divided by the number of bars; and both figures for the data (`_of_real`).
    """

    def figures(self) -> dict[str, float]:
        repeated, distinct = tune_figures.repeated_bars, tune_figures.distinct_bars
        return {
            "repeated_bars": repeated(self.made),
            "repeated_bars_of_real": repeated(self.real),
            "distinct_bars": distinct(self.made),
            "distinct_bars_of_real": distinct(self.real),
        }
