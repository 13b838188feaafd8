"""What only audio measures of generated samples. Importing it loads nothing heavy.

How far a vocoder's sound is from the original is measured by the distances of `gan_audio.distances`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gan_core.domain import ExtractorCard, MetricCard
from gan_core.errors import InputError
from gan_core.features import FEATURE_METRICS

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

AT_ONCE = 64
"""Pairs of sounds that are compared together."""

METRICS = (
    MetricCard("recognition", "share of samples that a classifier of the real data takes for their class",
               "gan_audio.metrics:recognition", ("num_classes", "sample_rate"), by_class=True),
    *FEATURE_METRICS,
    MetricCard("spectrum", "distance of the mean spectra, in dB", "gan_audio.metrics:spectrum", ("sample_rate",)),
    MetricCard("sliced_wasserstein", "Wasserstein distance of log-mel spectrograms along 128 random directions",
               "gan_audio.metrics:sliced_wasserstein", ("sample_rate",)),
    MetricCard("distances", "mel-cepstral distortion, log-spectral and multi-resolution STFT distance of re-synthesis",
               "gan_audio.metrics:distances", ("sample_rate",), least=1, pairs=True),
    MetricCard("f0", "error of the fundamental frequency of re-synthesis, where it is voiced",
               "gan_audio.metrics:f0", ("sample_rate",), least=1, pairs=True),
    MetricCard("chord_fit", "share of steps whose note is of the bar's chord, and of the chord's scale",
               "gan_audio.metrics:chord_fit", ("tunes",)),
    MetricCard("notes", "how often notes begin, and how far the distributions of onsets, lengths, intervals and pitch "
               "classes are from the data's", "gan_audio.metrics:notes", ("tunes",)),
    MetricCard("repetition", "share of bars that are as the bar before", "gan_audio.metrics:repetition", ("tunes",)),
)  # fmt: skip

EXTRACTORS = (
    ExtractorCard("classifier", "a small classifier of log-mel spectrograms, learnt in seconds on the data's labels",
                  "embedded", "gan_audio.extractors:classifier", ("num_classes", "sample_rate")),
    ExtractorCard("spectrogram", "means and deviations over time of 64 log-mel bands", "embedded",
                  "gan_audio.extractors:spectrogram", ("sample_rate",)),
)  # fmt: skip


def recognition(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float | int]:
    """Whether samples sound like the class that they were asked for.

    A small network learns three quarters of the real sounds (at most 4,000 are used) as log-mel spectrograms, and is
    scored on the rest. Sample `i` was asked to be of class `i % num_classes`.

    Returns:
        `accuracy`: the share of samples that it takes for their class; `classes_found`: classes of which at least one
        sample is recognised; `accuracy_on_real`: its own on held-out real sounds.
    """
    import torch

    from gan_audio.classifier import recognise
    from gan_audio.extractors import checked, learnt_classes, rate_of

    network, accuracy, _ = learnt_classes(dataset, facts["num_classes"], rate_of(dataset, facts))
    wanted = torch.arange(len(samples)) % facts["num_classes"]
    right = recognise(network.cpu(), checked(samples.cpu())) == wanted
    return {
        "accuracy": float(right.double().mean()),
        "classes_found": len(wanted[right].unique()),
        "accuracy_on_real": accuracy,
    }


def spectrum(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """The root of the mean squared difference in dB of 64 mel bands' mean powers over all time.

    Returns:
        `spectrum`: of samples and as many real sounds (or as there are); `spectrum_of_real`: of two halves of the real
        sounds, which chance leaves.
    """
    import torch

    from gan_audio.extractors import checked

    def decibels(bands: Tensor) -> Tensor:
        return 10 * bands.double().mul(2).exp().mean(dim=(0, 2)).log10()  # [N, bands, frames] -> [bands]

    def apart(a: Tensor, b: Tensor) -> float:
        return float((decibels(a) - decibels(b)).square().mean().sqrt())

    look, real = _looked_at(samples, dataset, facts)
    half = max(1, len(real) // 2)
    with torch.no_grad():
        return {
            "spectrum": apart(look(checked(samples.cpu())), real),
            "spectrum_of_real": apart(real[:half], real[-half:]),
        }


def sliced_wasserstein(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """The mean Wasserstein-1 distance of log-mel spectrograms along random directions (`gan_core.metrics`).

    Returns:
        `sliced_wasserstein`: of samples and as many real sounds (or as there are); `sliced_wasserstein_of_real`: of two
        halves of the real sounds that are as large together, which chance leaves.
    """
    import torch

    from gan_audio.extractors import checked
    from gan_core import metrics

    look, bands = _looked_at(samples, dataset, facts)
    real = bands.flatten(1).numpy()
    with torch.no_grad():
        fake = look(checked(samples.cpu())[: len(real)]).flatten(1).numpy()
    half = len(real) // 2
    return {
        "sliced_wasserstein": metrics.sliced_wasserstein(real, fake),
        "sliced_wasserstein_of_real": metrics.sliced_wasserstein(real[:half], real[half : 2 * half]),
    }


def distances(real: Tensor, made: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """How far re-synthesised sounds are from the originals, `[N, 1, samples]` each (`gan_audio.distances`).

    Returns:
        `mel_cepstral_distortion` and `log_spectral_distance` in dB, and `stft_distance`: means over all sounds.
    """
    import torch

    from gan_audio import distances as of
    from gan_audio.extractors import rate_of

    rate = rate_of(dataset, facts)
    parts = list(zip(torch.split(real, AT_ONCE), torch.split(made, AT_ONCE), strict=True))

    def mean(measure: Callable[[Tensor, Tensor], float]) -> float:
        return sum(len(a) * measure(a, b) for a, b in parts) / len(real)

    return {
        "mel_cepstral_distortion": mean(partial(of.mel_cepstral_distortion, sample_rate=rate)),
        "log_spectral_distance": mean(partial(of.log_spectral_distance, sample_rate=rate)),
        "stft_distance": mean(of.multi_resolution_stft_distance),
    }


def f0(real: Tensor, made: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """How far the fundamental frequency is off in re-synthesised sounds, `[N, 1, samples]` each.

    Returns:
        See `gan_audio.distances.f0_error`.
    """
    from gan_audio.distances import f0_error
    from gan_audio.extractors import rate_of

    return f0_error(real, made, sample_rate=rate_of(dataset, facts))


def chord_fit(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """How a melody goes with its chords: shares of all steps, of tunes `[N, 2, steps]`.

    Returns:
        `chord_tones`: its note is the root, the third or the fifth of the chord; `scale_tones`: it is of the major or
        the natural minor scale on the chord's root; both with `_of_real`.
    """
    from gan_audio.tune_figures import on_chord, on_scale

    real = _real_tunes(samples, dataset)
    return {
        "chord_tones": on_chord(samples.cpu()), "chord_tones_of_real": on_chord(real),
        "scale_tones": on_scale(samples.cpu()), "scale_tones_of_real": on_scale(real),
    }  # fmt: skip


def notes(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """How melodies move, beside the data's; of tunes `[N, 2, steps]`.

    Distances are of total variation, 0 for equal distributions and 1 for those that share nothing: of the steps of the
    bar at which notes begin (`onset_distance`), of the notes' lengths, of the intervals between them, and of the pitch
    classes that sound.

    Returns:
        `onsets_per_bar`, also of the data (`_of_real`), and the distances, also of two halves of the data (`_of_real`),
        which chance leaves.
    """
    from gan_audio.tune_figures import DISTRIBUTIONS, onsets_per_bar, total_variation

    real, made = _real_tunes(samples, dataset), samples.cpu()
    half = max(1, len(real) // 2)
    figures = {"onsets_per_bar": onsets_per_bar(made), "onsets_per_bar_of_real": onsets_per_bar(real)}
    for name, distribution in DISTRIBUTIONS.items():
        figures[f"{name}_distance"] = total_variation(distribution(made), distribution(real))
        figures[f"{name}_distance_of_real"] = total_variation(distribution(real[:half]), distribution(real[-half:]))
    return figures


def repetition(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """Whether melodies go on: of tunes `[N, 2, steps]`.

    Returns:
        `repeated_bars`: the share of bars, but for the first, whose notes are those of the bar before;
        `distinct_bars`: different bars as a share of all; both with `_of_real`.
    """
    from gan_audio.tune_figures import distinct_bars, repeated_bars

    real = _real_tunes(samples, dataset)
    return {
        "repeated_bars": repeated_bars(samples.cpu()), "repeated_bars_of_real": repeated_bars(real),
        "distinct_bars": distinct_bars(samples.cpu()), "distinct_bars_of_real": distinct_bars(real),
    }  # fmt: skip


def _real_tunes(samples: Tensor, dataset: Dataset[Any]) -> Tensor:
    """As many real tunes, or as there are."""
    from gan_audio.extractors import real_sounds

    tunes = real_sounds(dataset, len(samples))["tune"]
    if samples.shape[1:] != tunes.shape[1:]:
        raise InputError(f"the samples have the shape {list(samples.shape)}; this measure is of tunes "
                         f"{list(tunes.shape)}")  # fmt: skip
    return tunes


def _looked_at(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> tuple[Any, Tensor]:
    """Sounds to log-mel spectrograms, and those `[N, bands, frames]` of as many real sounds, or as there are."""
    from gan_audio.classifier import LogMel
    from gan_audio.extractors import rate_of, real_sounds

    real = real_sounds(dataset, len(samples))["audio"]
    look = LogMel(real.shape[-1], rate_of(dataset, facts))
    return look, look(real)
