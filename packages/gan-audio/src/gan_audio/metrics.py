"""Metrics of audio and tunes, as cards. Importing it loads nothing heavy; the measures are in `measures`."""

from __future__ import annotations

from gan_core.cards import ExtractorCard, MetricCard
from gan_core.measure.features import FEATURE_METRICS

METRICS = (
    MetricCard(
        "recognition",
        "share of samples that a classifier of the real data takes for their class",
        "gan_audio.measure.measures:Recognition",
        ("num_classes", "sample_rate"),
        asks=("label",),
    ),
    *FEATURE_METRICS,
    MetricCard(
        "spectrum", "distance of the mean spectra, in dB", "gan_audio.measure.measures:Spectrum", ("sample_rate",)
    ),
    MetricCard(
        "sliced_wasserstein",
        "Wasserstein distance of log-mel spectrograms along 128 random directions",
        "gan_audio.measure.measures:sliced_wasserstein",
        ("sample_rate",),
    ),
    MetricCard(
        "distances",
        "mel-cepstral distortion, log-spectral and multi-resolution STFT distance of re-synthesis",
        "gan_audio.measure.measures:Distances",
        ("sample_rate",),
        least=1,
        pairs=True,
    ),
    MetricCard(
        "f0",
        "error of the fundamental frequency of re-synthesis, where it is voiced",
        "gan_audio.measure.measures:F0",
        ("sample_rate",),
        least=1,
        pairs=True,
    ),
    MetricCard(
        "chord_fit",
        "share of steps whose note is of the bar's chord, and of the chord's scale",
        "gan_audio.measure.measures:ChordFit",
        ("tunes",),
    ),
    MetricCard(
        "notes",
        "how often notes begin, and how far the distributions of onsets, lengths, intervals and pitch "
        "classes are from the data's",
        "gan_audio.measure.measures:Notes",
        ("tunes",),
    ),
    MetricCard(
        "repetition", "share of bars that are as the bar before", "gan_audio.measure.measures:Repetition", ("tunes",)
    ),
)

EXTRACTORS = (
    ExtractorCard(
        "classifier",
        "a small classifier of log-mel spectrograms, learnt in seconds on the data's labels",
        "embedded",
        "gan_audio.measure.extractors:classifier",
        ("num_classes", "sample_rate"),
    ),
    ExtractorCard(
        "spectrogram",
        "means and deviations over time of 64 log-mel bands",
        "embedded",
        "gan_audio.measure.extractors:spectrogram",
        ("sample_rate",),
    ),
)
