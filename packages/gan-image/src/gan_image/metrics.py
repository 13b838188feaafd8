"""Metrics of images and toy points, as cards. Importing it loads nothing heavy; the measures are in `measures`."""

from __future__ import annotations

from gan_core.cards import ExtractorCard, MetricCard
from gan_core.measure.features import FEATURE_METRICS

METRICS = (
    MetricCard(
        name="recognition",
        title="share of samples that a classifier of the real data takes for their class",
        measure="gan_image.measures:Recognition",
        needs=("num_classes", "channels"),
        asks=("label",),
    ),
    MetricCard(
        name="modes",
        title="modes of a toy distribution that are found, and samples that lie on one",
        measure="gan_image.measures:Modes",
        needs=("modes",),
    ),
    MetricCard(
        name="stacked_modes",
        title="modes of stacked digits that are found, and their divergence from the data's",
        measure="gan_image.measures:StackedModes",
        needs=("stacked",),
    ),
    MetricCard(
        name="moments",
        title="mean and standard deviation beside the data's",
        measure="gan_image.measures:Moments",
        needs=("modes",),
    ),
    MetricCard(
        name="similarity",
        title="peak signal-to-noise ratio and structural similarity of pairs",
        measure="gan_core.measure.similarity:Similarity",
        pairs=True,
    ),
    *FEATURE_METRICS,
    MetricCard(
        name="sliced_wasserstein",
        title="Wasserstein distance of pixels along 128 random directions",
        measure="gan_core.measure.measures:SlicedWasserstein",
        needs=("channels",),
    ),
)

EXTRACTORS = (
    ExtractorCard(
        name="classifier",
        title="a small classifier, learnt in seconds on the data's labels",
        origin="embedded",
        make="gan_image.extractors:classifier",
        needs=("num_classes", "channels"),
    ),
    ExtractorCard(
        name="random",
        title="a small network with random weights, for data without labels",
        origin="embedded",
        make="gan_image.extractors:random",
        needs=("channels",),
    ),
    ExtractorCard(
        name="inception",
        title="FID's Inception v3",
        origin="download",
        make="gan_image.extractors:inception",
        needs=("channels",),
    ),
    ExtractorCard(
        name="torchvision",
        title="a classifier of torchvision's: torchvision:NAME",
        origin="download",
        make="gan_image.extractors:torchvision",
        needs=("channels",),
    ),
    ExtractorCard(
        name="transformers",
        title="a vision model of transformers': transformers:REPOSITORY",
        origin="download",
        make="gan_image.extractors:transformers",
        needs=("channels",),
    ),
)
