"""Feature extractors of sounds: a classifier of the data's labels, and statistics of log-mel spectrograms.

Each factory takes the argument and the weights of `--extractor NAME[:ARGUMENT] --weights FILE`, and the real items,
their facts and the key of the sounds. It returns an extractor for sounds `[B, channels, samples]` in [-1, 1]. The
`protocol` describes everything that the features depend on.

With these features, the metric `fid` is a Fréchet audio distance (Kilgour et al. 2019, arXiv:1812.08466). The paper
uses features of a different network, so compare only figures with the same protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_audio.measure.classifier import BANDS, WIDTH, LogMel, SoundClassifier, learn_sound_classes
from gan_core.data import Batch, some
from gan_core.measure.features import Extractor, Features, check_samples, take_no_options
from gan_core.models.checkpoint import digest

MAX_LEARNED = 4000
"""Maximum number of sounds for training and testing the classifier of the data's labels."""


class ClassifierExtractor(Extractor):
    """Extractor that returns the means of the last convolution and the logits of a classifier of the data's labels.

    Args:
        network: the classifier.
        accuracy: its accuracy on held-out sounds.
        learnt: total number of sounds on which it was trained and tested.
    """

    name = "classifier"

    def __init__(self, network: SoundClassifier, accuracy: float, learnt: int):
        self.network, self.accuracy = network.requires_grad_(False), accuracy
        self.protocol = {
            "extractor": self.name,
            "weights": f"learnt on {learnt:,} sounds (tensors {digest(network.state_dict())}), "
            f"accuracy {accuracy:.4f} on held-out ones",
            "input": f"cut to [-1, 1], mean channel, {network.spectrogram.contract.describe()}",
            "features": f"means of the last convolution, {4 * WIDTH}",
            "dtype": "float32",
        }

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Features:
        return self.network.to(samples.device).features(checked(samples))


class SpectrogramExtractor(Extractor):
    """Extractor that returns the mean and the standard deviation over time of each log-mel band: `2 BANDS` features.

    Args:
        spectrogram: computes the spectrograms of sounds.
    """

    name = "spectrogram"

    def __init__(self, spectrogram: LogMel):
        self.spectrogram = spectrogram
        self.protocol = {
            "extractor": self.name,
            "input": f"cut to [-1, 1], mean channel, {spectrogram.contract.describe()}",
            "features": f"mean and deviation over time of each band, {2 * BANDS}",
            "dtype": "float32",
        }

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Features:
        bands = self.spectrogram.to(samples.device)(checked(samples))
        return Features(torch.cat([bands.mean(dim=2), bands.std(dim=2)], dim=1), None)


def classifier(
    argument: str | None, weights: Path | None, dataset: Dataset[Batch], facts: Mapping[str, Any], key: str
) -> Extractor:
    """Returns a small classifier that is trained on the data's labels, at the length and rate of the sounds.

    Its features represent only what distinguishes the classes, so figures hardly depend on how natural a sound is.

    Raises:
        InputError: an argument or weights are given, or there are too few sounds.
    """
    take_no_options("classifier", "learns the data's labels", argument, weights)
    batch = some(dataset, MAX_LEARNED)
    network, accuracy = learn_sound_classes(
        batch[key], batch["label"], num_classes=facts["num_classes"], sample_rate=rate_of(dataset, facts)
    )
    return ClassifierExtractor(network, accuracy, len(batch[key]))


def spectrogram(
    argument: str | None, weights: Path | None, dataset: Dataset[Batch], facts: Mapping[str, Any], key: str
) -> Extractor:
    """Returns means and standard deviations of log-mel bands, for data without labels.

    Raises:
        InputError: an argument or weights are given.
    """
    take_no_options("spectrogram", "measures bands", argument, weights)
    return SpectrogramExtractor(LogMel(some(dataset, 1)[key].shape[-1], rate_of(dataset, facts)))


def rate_of(dataset: Dataset[Batch], facts: Mapping[str, Any]) -> int:
    """Returns the sample rate in Hz of a dataset's items, which may have been resampled."""
    return int(getattr(dataset, "sample_rate", None) or facts["sample_rate"])


def checked(samples: Tensor) -> Tensor:
    """Returns samples, checked to be sounds.

    Raises:
        InputError: the samples are not sounds, or have non-finite values.
    """
    check_samples(samples, samples.ndim == 3, "sounds [B, channels, samples]")
    return samples
