"""Metrics and feature extractors of audio and tunes, as cards. Importing this module loads no torch."""

from __future__ import annotations

from gan_core.cards import ExtractorCard, MetricCard, Scale
from gan_core.measure.catalog import FEATURE_METRICS

METRICS = (
    MetricCard(
        name="recognition",
        title="share of samples that a small classifier of the real data assigns to their class",
        measure="gan_core.measure.measures:Recognition",
        needs=("num_classes", "sample_rate"),
        asks=("label",),
        scales={"": Scale(better="higher")},
    ),
    *FEATURE_METRICS,
    MetricCard(
        name="spectrum",
        title="distance of the mean spectra, in dB",
        measure="gan_audio.measure.measures:Spectrum",
        needs=("sample_rate",),
        scales={"": Scale("dB", "lower")},
    ),
    MetricCard(
        name="sliced_wasserstein",
        title="Wasserstein distance of log-mel spectrograms along 128 random directions",
        measure="gan_audio.measure.measures:sliced_wasserstein",
        needs=("sample_rate",),
        scales={"": Scale(better="lower")},
    ),
    MetricCard(
        name="distances",
        title="mel-cepstral distortion, log-spectral and multi-resolution STFT distance of resynthesis",
        measure="gan_audio.measure.measures:Distances",
        needs=("sample_rate",),
        least=1,
        pairs=True,
        scales={"": Scale("dB", "lower"), "stft_distance": Scale(better="lower")},
    ),
    MetricCard(
        name="f0",
        title="error of the fundamental frequency of resynthesis in voiced frames",
        measure="gan_audio.measure.measures:F0",
        needs=("sample_rate",),
        least=1,
        pairs=True,
        scales={"f0_rmse": Scale("cents", "lower"), "voicing_error": Scale("share of frames", "lower")},
    ),
    MetricCard(
        name="chord_fit",
        title="share of steps whose note is in the bar's chord, and in the chord's scale",
        measure="gan_audio.measure.measures:ChordFit",
        needs=("tunes",),
        scales={"": Scale("share of steps", "higher")},
    ),
    MetricCard(
        name="notes",
        title="onsets per bar, and distances of the distributions of onsets, lengths, intervals and pitch classes",
        measure="gan_audio.measure.measures:Notes",
        needs=("tunes",),
        scales={"": Scale(better="lower"), "onsets_per_bar": Scale()},
    ),
    MetricCard(
        name="repetition",
        title="share of bars that equal the previous bar",
        measure="gan_audio.measure.measures:Repetition",
        needs=("tunes",),
        scales={"": Scale("share of bars")},
    ),
)

EXTRACTORS = (
    ExtractorCard(
        name="classifier",
        title="small classifier of log-mel spectrograms, trained on the data's labels in seconds",
        origin="embedded",
        make="gan_audio.measure.extractors:classifier",
        needs=("num_classes", "sample_rate"),
    ),
    ExtractorCard(
        name="spectrogram",
        title="means and standard deviations over time of 64 log-mel bands",
        origin="embedded",
        make="gan_audio.measure.extractors:spectrogram",
        needs=("sample_rate",),
    ),
)
