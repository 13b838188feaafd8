"""Metrics of images and toy points, as cards. Importing it loads nothing heavy; the measures are in `measures`."""

from __future__ import annotations

from gan_core.cards import ExtractorCard, MetricCard
from gan_core.measure.features import FEATURE_METRICS

METRICS = (
    MetricCard(
        "recognition",
        "share of samples that a classifier of the real data takes for their class",
        "gan_image.measures:Recognition",
        ("num_classes", "channels"),
        asks=("label",),
    ),
    MetricCard(
        "modes",
        "modes of a toy distribution that are found, and samples that lie on one",
        "gan_image.measures:Modes",
        ("modes",),
    ),
    MetricCard(
        "stacked_modes",
        "modes of stacked digits that are found, and their divergence from the data's",
        "gan_image.measures:StackedModes",
        ("stacked",),
    ),
    MetricCard("moments", "mean and standard deviation beside the data's", "gan_image.measures:Moments", ("modes",)),
    MetricCard(
        "similarity",
        "peak signal-to-noise ratio and structural similarity of pairs",
        "gan_core.measure.similarity:Similarity",
        pairs=True,
    ),
    *FEATURE_METRICS,
    MetricCard(
        "sliced_wasserstein",
        "Wasserstein distance of pixels along 128 random directions",
        "gan_core.measure.measures:SlicedWasserstein",
        ("channels",),
    ),
)

EXTRACTORS = (
    ExtractorCard(
        "classifier",
        "a small classifier, learnt in seconds on the data's labels",
        "embedded",
        "gan_image.extractors:classifier",
        ("num_classes", "channels"),
    ),
    ExtractorCard(
        "random",
        "a small network with random weights, for data without labels",
        "embedded",
        "gan_image.extractors:random",
        ("channels",),
    ),
    ExtractorCard("inception", "FID's Inception v3", "download", "gan_image.extractors:inception", ("channels",)),
    ExtractorCard(
        "torchvision",
        "a classifier of torchvision's: torchvision:NAME",
        "download",
        "gan_image.extractors:torchvision",
        ("channels",),
    ),
    ExtractorCard(
        "transformers",
        "a vision model of transformers': transformers:REPOSITORY",
        "download",
        "gan_image.extractors:transformers",
        ("channels",),
    ),
)
