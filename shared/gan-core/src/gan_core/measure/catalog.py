"""Metrics and extractors that several domains list, as cards. Importing this module loads no torch."""

from __future__ import annotations

from gan_core.cards import ExtractorCard, MetricCard, Scale

SUBSET, SUBSETS = 1000, 100
"""Size and number of the kernel distance's subsets (Bińkowski et al. 2018, section 4; torch-fidelity)."""
SPLITS = 10
"""Number of splits of the inception score (Salimans et al. 2016)."""
NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
"""Neighbours of precision and recall (Kynkäänniemi et al. 2019), and of density and coverage (Naeem et al. 2020)."""

FEATURE_METRICS = (
    MetricCard(
        name="fid",
        title="Fréchet distance of features, in float64",
        measure="gan_core.measure.features:fid",
        extracts="features",
        scales={"": Scale(better="lower")},
    ),
    MetricCard(
        name="kid",
        title=f"kernel distance of features: cubic, {SUBSETS} subsets of {SUBSET}",
        measure="gan_core.measure.features:kid",
        extracts="features",
        least=SUBSET,
        scales={"": Scale(better="lower")},
    ),
    MetricCard(
        name="inception_score",
        title=f"exp E KL(p(y|x) || p(y)), {SPLITS} splits",
        measure="gan_core.measure.features:inception_score",
        extracts="logits",
        least=5 * SPLITS,
        scales={"": Scale(better="higher")},
    ),
    MetricCard(
        name="precision_recall",
        title=f"shares of samples and of real items in each other's neighbourhoods ({NEIGHBOURS} neighbours)",
        measure="gan_core.measure.features:precision_recall",
        extracts="features",
        least=NEIGHBOURS + 1,
        scales={"": Scale(better="higher")},
    ),
    MetricCard(
        name="density_coverage",
        title=f"number and share of real neighbourhoods ({DENSITY_NEIGHBOURS} neighbours) that contain samples",
        measure="gan_core.measure.features:density_coverage",
        extracts="features",
        least=DENSITY_NEIGHBOURS + 1,
        scales={"": Scale(better="higher")},
    ),
)
"""Metrics of extracted features, for every domain with extractors."""

IMAGE_EXTRACTORS = (
    ExtractorCard(
        name="classifier",
        title="small classifier, trained on the data's labels in seconds",
        origin="embedded",
        make="gan_core.measure.image_extractors:classifier",
        needs=("num_classes", "channels"),
    ),
    ExtractorCard(
        name="random",
        title="small network with random weights, for data without labels",
        origin="embedded",
        make="gan_core.measure.image_extractors:random",
        needs=("channels",),
    ),
    ExtractorCard(
        name="inception",
        title="Inception v3 as used by FID",
        origin="download",
        make="gan_core.measure.image_extractors:inception",
        needs=("channels",),
    ),
    ExtractorCard(
        name="torchvision",
        title="classifier of torchvision: torchvision:NAME",
        origin="download",
        make="gan_core.measure.image_extractors:torchvision",
        needs=("channels",),
    ),
    ExtractorCard(
        name="transformers",
        title="vision model of transformers: transformers:REPOSITORY",
        origin="download",
        make="gan_core.measure.image_extractors:transformers",
        needs=("channels",),
    ),
)
"""Extractors of images, for every domain of images."""
