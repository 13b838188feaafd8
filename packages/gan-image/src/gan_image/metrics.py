"""Metrics and feature extractors of images and toy points, as cards. Importing this module loads no torch."""

from __future__ import annotations

from gan_core.cards import MetricCard, Scale
from gan_core.measure.catalog import FEATURE_METRICS, IMAGE_EXTRACTORS

METRICS = (
    MetricCard(
        name="recognition",
        title="share of samples that a small classifier of the real data assigns to their class",
        measure="gan_core.measure.measures:Recognition",
        needs=("num_classes", "channels"),
        asks=("label",),
        scales={"": Scale(better="higher")},
    ),
    MetricCard(
        name="modes",
        title="modes of a toy distribution that are found, and share of samples near a mode",
        measure="gan_image.measures:Modes",
        needs=("modes",),
        scales={
            "modes_found": Scale(better="higher"),
            "high_quality": Scale("share of samples", "higher"),
            "kl": Scale("nats", "lower"),
        },
    ),
    MetricCard(
        name="stacked_modes",
        title="modes of stacked digits that are found, and divergence from the data",
        measure="gan_image.measures:StackedModes",
        needs=("stacked",),
        scales={"modes_found": Scale(better="higher"), "kl": Scale("nats", "lower")},
    ),
    MetricCard(
        name="moments",
        title="mean and standard deviation of samples and data",
        measure="gan_image.measures:Moments",
        needs=("modes",),
    ),
    MetricCard(
        name="similarity",
        title="peak signal-to-noise ratio and structural similarity of pairs",
        measure="gan_core.measure.similarity:Similarity",
        pairs=True,
        scales={"psnr": Scale("dB", "higher"), "ssim": Scale(better="higher"), "lpips": Scale(better="lower")},
    ),
    *FEATURE_METRICS,
    MetricCard(
        name="sliced_wasserstein",
        title="Wasserstein distance of pixels along 128 random directions",
        measure="gan_core.measure.measures:SlicedWasserstein",
        needs=("channels",),
        scales={"": Scale(better="lower")},
    ),
)

EXTRACTORS = IMAGE_EXTRACTORS
