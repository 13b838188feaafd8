"""Feature extractors for comparing generated and real sounds: a classifier of the data's labels, or spectrograms.

Each factory makes an extractor from `--extractor NAME[:ARGUMENT] --weights FILE`. An extractor maps sounds
`[B, channels, samples]` in [-1, 1] to features and logits. Its `protocol` names everything that a figure depends on.
With an extractor's features, the metric `fid` is a Fréchet audio distance (Kilgour et al. 2019, arXiv:1812.08466). That
paper uses the features of a different published network, so compare only figures of the same protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_audio.measure.classifier import BANDS, WIDTH, Classifier, LogMel, learn_classes
from gan_core.data import some
from gan_core.errors import InputError
from gan_core.measure.features import Extractor, Features
from gan_core.models.checkpoint import digest

MOST_LEARNT = 4000
"""Sounds that the classifier learns and is tested on."""


class ClassifierExtractor(Extractor):
    """The last convolution's means and the logits of a classifier that has learnt the data's labels."""

    name = "classifier"

    def __init__(self, network: Classifier, accuracy: float, learnt: int):
        self.network = network.requires_grad_(False)
        self.protocol = {
            "extractor": self.name,
            "weights": f"learnt on {learnt:,} sounds (tensors {digest(network.state_dict())}), "
            f"accuracy {accuracy:.4f} on held-out ones",
            "input": f"cut to [-1, 1], mean channel, {network.look.contract.describe()}",
            "features": f"means of the last convolution, {4 * WIDTH}",
            "dtype": "float32",
        }

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Features:
        return Features(*self.network.to(samples.device).features_of(checked(samples)))


class SpectrogramExtractor(Extractor):
    """The mean and the deviation over time of every band of a log-mel spectrogram: `2 BANDS` features."""

    name = "spectrogram"

    def __init__(self, look: LogMel):
        self.look = look
        self.protocol = {
            "extractor": self.name,
            "input": f"cut to [-1, 1], mean channel, {look.contract.describe()}",
            "features": f"mean and deviation over time of each band, {2 * BANDS}",
            "dtype": "float32",
        }

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Features:
        bands = self.look.to(samples.device)(checked(samples))
        return Features(torch.cat([bands.mean(dim=2), bands.std(dim=2)], dim=1), None)


def classifier(
    argument: str | None, weights: Path | None, dataset: Dataset[Any], facts: Mapping[str, Any]
) -> Extractor:
    """A small network that learns the data's labels in seconds, at the samples' length and rate, the same every time.

    Its features know only what tells the classes apart, so its figures say little of how natural a sound is.

    Raises:
        InputError: there is an argument, or weights.
    """
    _refuse("classifier", "learns the data's labels", argument, weights)
    network, accuracy, learnt = learnt_classes(dataset, facts["num_classes"], rate_of(dataset, facts))
    return ClassifierExtractor(network, accuracy, learnt)


def spectrogram(
    argument: str | None, weights: Path | None, dataset: Dataset[Any], facts: Mapping[str, Any]
) -> Extractor:
    """Means and deviations of log-mel bands, for data without labels.

    Raises:
        InputError: there is an argument, or weights.
    """
    _refuse("spectrogram", "measures bands", argument, weights)
    return SpectrogramExtractor(LogMel(some(dataset, 1)["audio"].shape[-1], rate_of(dataset, facts)))


@lru_cache(maxsize=1)
def learnt_classes(dataset: Dataset[Any], num_classes: int, sample_rate: int) -> tuple[Classifier, float, int]:
    """A classifier of a dataset's labels, its accuracy on held-out sounds, and how many it learnt of; learnt once."""
    real = some(dataset, MOST_LEARNT)
    learnt = learn_classes(real["audio"], real["label"], num_classes=num_classes, sample_rate=sample_rate)
    return *learnt, len(real["audio"])


def rate_of(dataset: Dataset[Any], facts: Mapping[str, Any]) -> int:
    """Returns the sample rate in Hz of a dataset's items, which may have been resampled."""
    return int(getattr(dataset, "sample_rate", None) or facts["sample_rate"])


def checked(samples: Tensor) -> Tensor:
    """Sounds, made sure that they are.

    Raises:
        InputError: they are no sounds, or not finite.
    """
    if samples.ndim != 3:
        shape = list(samples.shape)
        raise InputError(f"the samples have the shape {shape}; the extractor takes sounds [B, channels, samples]")
    if not samples.isfinite().all():
        raise InputError("the samples hold values that are not finite; look at what made them")
    return samples


def _refuse(name: str, does: str, argument: str | None, weights: Path | None) -> None:
    if argument is not None or weights is not None:
        raise InputError(f"the extractor `{name}` {does}; it takes no argument and no `--weights`")
