"""Streaming metrics: the evaluated game (`Subject`), parts of samples (`Part`, `PairPart`), and metrics (`Measure`).

A metric of samples or of pairs is a class or function that takes a `Subject` and returns a `Measure`. All metrics of an
evaluation process the same samples in one pass. Memory does not grow with the number of samples as long as a metric
stores only sums, histograms or a few numbers per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data import Batch, length, read, shuffled
from gan_core.draws import BLOCK
from gan_core.measure import metrics
from gan_core.measure.features import Extractor
from gan_core.play.game import Game

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """A game whose samples or results are evaluated, and the data that they are compared with.

    Attributes:
        game: the game, in evaluation mode.
        dataset: the data, fitted to the game's specification, without augmentation.
        facts: facts of the data.
        extractors: returns an extractor of the domain by name, built once per evaluation.
        count: number of samples or pairs.
        seed: random seed of the samples.
        key: key of the data that the samples or results are compared with.
        source: key of the data that the results are computed from; None for samples.
        memory: values by name that all games and metrics of an evaluation share; see `once`.
    """

    game: Game
    dataset: Dataset[Batch]
    facts: Mapping[str, Any]
    extractors: Callable[[str], Extractor]
    count: int
    seed: int
    key: str
    source: str | None = None
    memory: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Returns a value that is computed once per evaluation, for all games and metrics.

        Args:
            name: identifier of the value.
            make: function that computes it.
        """
        if name not in self.memory:
            self.memory[name] = make()
        value: T = self.memory[name]
        return value

    def real(self, most: int | None = None) -> Iterator[Batch]:
        """Yields batches of real items on the CPU, in a fixed shuffled order, in which pairs are also read.

        Args:
            most: maximum number of items (default: `count`).
        """
        order = shuffled(length(self.dataset))[: self.count if most is None else most]
        return read(self.dataset, order, BLOCK)


@dataclass(frozen=True)
class Part:
    """Consecutive samples of a game. Measures receive them on the CPU.

    Attributes:
        start: index of the first sample.
        samples: samples `[B, …]`; for pairs, the results.
        asked: values of the conditions by name: `label` `[B]`, or a list of captions.
    """

    start: int
    samples: Tensor
    asked: Mapping[str, Any]

    def cpu(self) -> Part:
        """Returns a copy whose tensors are on the CPU."""
        return replace(self, samples=self.samples.cpu())


@dataclass(frozen=True)
class PairPart(Part):
    """Consecutive results of a game, with their inputs and targets.

    Attributes:
        batch: the items, including the targets.
        real: the targets `[B, …]`.
    """

    batch: Batch
    real: Tensor

    @property
    def made(self) -> Tensor:
        """The game's results `[B, …]`."""
        return self.samples

    def cpu(self) -> PairPart:
        batch = {key: value.cpu() for key, value in self.batch.items()}
        return replace(self, samples=self.samples.cpu(), real=self.real.cpu(), batch=batch)


P = TypeVar("P", bound=Part, contravariant=True)


class Measure(Protocol[P]):
    """State of a metric during an evaluation. `update` is called without gradients, for every part in order."""

    def update(self, part: P) -> None:
        """Adds the next samples or pairs."""

    def figures(self) -> Mapping[str, float]:
        """Returns the figures by name, after the last part."""


def copied(source: Tensor, shape: torch.Size) -> Tensor | None:
    """Returns inputs in the form of results, for the baseline of copying the input; a single channel is repeated.

    Args:
        source: inputs `[B, C, …]`.
        shape: shape of a target, `[C, …]`.

    Returns:
        `[B, *shape]`; None if the inputs have another size or other channels, or are not floating point.
    """
    fits = source.ndim == len(shape) + 1 > 1 and source.shape[2:] == shape[1:] and source.shape[1] in (1, shape[0])
    return source.expand(-1, *shape) if fits and source.is_floating_point() else None


class Recognition:
    """Accuracy on samples of a classifier that is trained on the real data, given the classes requested of the samples.

    The classifier is the domain's extractor `classifier`, independently of the extractor that other metrics use.

    Figures: `accuracy`, the share of samples that are assigned to their class; `classes_found`, the number of classes
    with at least one such sample; `accuracy_on_real`, the classifier's accuracy on held-out real items.
    """

    def __init__(self, subject: Subject):
        self.classifier, self.count = subject.extractors("classifier"), 0
        self.correct = torch.zeros(subject.facts["num_classes"], dtype=torch.long)

    def update(self, part: Part) -> None:
        logits, label = self.classifier(part.samples).logits, part.asked["label"]
        assert logits is not None
        self.correct += label[logits.argmax(dim=1) == label].bincount(minlength=len(self.correct))
        self.count += len(label)

    def figures(self) -> dict[str, float]:
        assert self.classifier.accuracy is not None
        return {
            "accuracy": int(self.correct.sum()) / self.count,
            "classes_found": int((self.correct > 0).sum()),
            "accuracy_on_real": self.classifier.accuracy,
        }


class SlicedWasserstein:
    """Wasserstein-1 distance along 128 random directions (`gan_core.measure.metrics`).

    Figures: `sliced_wasserstein`, the distance between samples and real items; `sliced_wasserstein_of_real`, the
    distance between two halves of the real items, as a baseline. The number of samples compared is limited to the
    number of real items. 128 numbers per sample are kept.

    Args:
        subject: evaluated game and data.
        view: maps samples `[B, …]` to the compared values `[B, …]` (default: the samples).
    """

    def __init__(self, subject: Subject, view: Callable[[Tensor], Tensor] = lambda samples: samples):
        self.view, self.directions = view, np.empty((0, 0))
        self.real: list[NDArray[np.float64]] = []
        self.fake: list[NDArray[np.float64]] = []
        for batch in subject.real():
            self.real.append(self._projected(batch[subject.key]))
        self.left = sum(map(len, self.real))

    @torch.no_grad()
    def _projected(self, samples: Tensor) -> NDArray[np.float64]:
        """Returns the projections of samples `[B, …]` on the directions, `[B, directions]`."""
        rows = self.view(samples).flatten(1).double().numpy()
        if not self.directions.size:
            self.directions = metrics.unit_vectors(rows.shape[1])
        projected: NDArray[np.float64] = rows @ self.directions
        return projected

    def update(self, part: Part) -> None:
        if self.left:
            self.fake.append(self._projected(part.samples[: self.left]))
            self.left -= len(self.fake[-1])

    def figures(self) -> dict[str, float]:
        real, fake = np.concatenate(self.real), np.concatenate(self.fake)
        half = len(real) // 2
        return {
            "sliced_wasserstein": metrics.wasserstein(real, fake),
            "sliced_wasserstein_of_real": metrics.wasserstein(real[:half], real[half : 2 * half]),
        }
