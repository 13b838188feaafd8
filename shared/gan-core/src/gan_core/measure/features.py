"""Feature extractors, extracted features, and the metrics computed from them.

Features are stored on disk, so that memory does not grow with the number of samples; if their folder is kept, an
interrupted extraction continues where it stopped.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.cards import ExtractorCard, resolve
from gan_core.data import Batch
from gan_core.errors import FULL, InputError, unknown, writing
from gan_core.measure import metrics
from gan_core.measure.catalog import DENSITY_NEIGHBOURS, NEIGHBOURS, SPLITS, SUBSET, SUBSETS

Array = NDArray[np.float32]


class Features(NamedTuple):
    """Outputs of an extractor: features `[B, D]`, and logits `[B, K]` if it is a classifier."""

    features: Tensor
    logits: Tensor | None


class Extractor(ABC):
    """Base class of extractors, which map samples in the data's range to features.

    Attributes:
        name: name in `--extractor`.
        protocol: description of everything that its features depend on, by name.
        letter: letter in the names of the Fréchet and the kernel distance: `i` for `fid` and `kid`, `v` for `fvd` and
            `kvd`, `a` for `fad` and `kad`. Letters other than `i` are reserved for the network that is standard for
            these figures in the literature.
        accuracy: accuracy of the logits on held-out real items; None if the logits are not for the data's classes.
    """

    name: str
    protocol: Mapping[str, str]
    letter: str = "i"
    accuracy: float | None = None

    @abstractmethod
    def __call__(self, samples: Tensor) -> Features:
        """Returns features and logits of a batch."""


class Extractors:
    """A domain's extractors for given data; each is built when it is first used.

    Args:
        cards: the extractors of a domain.
        dataset: the real items.
        facts: facts of the data.
        key: key of the items whose features are extracted.
    """

    def __init__(self, cards: Iterable[ExtractorCard], dataset: Dataset[Batch], facts: Mapping[str, Any], key: str):
        self.cards = {card.name: card for card in cards}
        self.dataset, self.facts, self.key = dataset, facts, key
        self._built: dict[tuple[str, str | None, Path | None], Extractor] = {}

    def __call__(self, name: str, argument: str | None = None, weights: Path | None = None) -> Extractor:
        """Returns the extractor of `--extractor NAME[:ARGUMENT] --weights FILE`.

        Raises:
            InputError: the extractor is unknown, or does not fit the data or the arguments.
            CheckpointError: the weights are missing, or are those of another network.
        """
        if name not in self.cards:
            raise unknown("extractor", name, self.cards, InputError)
        options = name, argument, weights
        if options not in self._built:
            make = resolve(self.cards[name].make)
            self._built[options] = make(argument, weights, self.dataset, self.facts, self.key)
        return self._built[options]


def take_no_options(name: str, why: str, argument: str | None, weights: Path | None) -> None:
    """Checks that an extractor without options is given none.

    Args:
        name: name of the extractor.
        why: reason why it has no options, for the message.
        argument: the part of `--extractor NAME:ARGUMENT` after the colon.
        weights: file of `--weights`.

    Raises:
        InputError: an argument or weights are given.
    """
    if argument is not None or weights is not None:
        raise InputError(f"the extractor `{name}` {why}; it accepts neither an argument nor `--weights`")


def check_samples(samples: Tensor, fits: bool, form: str) -> None:
    """Checks samples before their features are extracted.

    Args:
        samples: samples `[B, …]`.
        fits: whether their shape is one that the extractor supports.
        form: description of the supported shapes, for the message.

    Raises:
        InputError: the samples have another shape or non-finite values.
    """
    if not fits:
        raise InputError(f"the samples have the shape {list(samples.shape)}; the extractor takes {form}")
    if not samples.isfinite().all():
        raise InputError("the samples have non-finite values; check the model that generated them")


@dataclass(frozen=True)
class Extracted:
    """Features and logits of a set of samples, in arrays on disk.

    Attributes:
        features: `[N, D]`.
        logits: `[N, K]`; None if the extractor is not a classifier.
        letter: the extractor's letter in names of figures.
    """

    features: Array
    logits: Array | None
    letter: str = "i"

    def __len__(self) -> int:
        return len(self.features)


class FeatureFiles:
    """Files of features that are written part by part. If the files exist, extraction continues where they end.

    Args:
        extractor: the extractor.
        count: number of samples.
        stem: common start of the files' paths; it must identify everything that the features depend on.

    Attributes:
        done: number of samples whose features are stored.

    Raises:
        InputError: the files belong to other features, or cannot be read.
    """

    def __init__(self, extractor: Extractor, count: int, stem: Path):
        self.extractor, self.count, self.stem = extractor, count, stem
        self.done = 0
        self._arrays: dict[str, Array] = {}
        with self._reported():
            if self._progress.exists():
                progress = json.loads(self._progress.read_text(encoding="utf-8"))
                self.done = int(progress["rows"])
                self._arrays = {
                    name: np.load(self._file(name), mmap_mode="r+")
                    for name in Features._fields
                    if name in progress["arrays"]
                }
        fits = all(len(array) == count and array.dtype == np.float32 for array in self._arrays.values())
        if not fits or not 0 <= self.done <= count:
            raise InputError(
                f"{self._progress}: was not written for {count:,} samples; remove it, or choose another folder"
            )

    def add(self, samples: Tensor) -> None:
        """Extracts the features of the next samples.

        Raises:
            InputError: the files cannot be written.
        """
        found = {name: value for name, value in self.extractor(samples)._asdict().items() if value is not None}
        with self._reported():
            self.stem.parent.mkdir(parents=True, exist_ok=True)
            for name, value in found.items():
                if name not in self._arrays:
                    shape = (self.count, value.shape[1])
                    self._arrays[name] = np.lib.format.open_memmap(self._file(name), "w+", np.float32, shape)
                self._arrays[name][self.done : self.done + len(samples)] = value.float().cpu().numpy()
                self._arrays[name].flush()  # type: ignore[attr-defined]  # it is a `numpy.memmap`
            self.done += len(samples)
            temporary = self._progress.with_suffix(".part")
            temporary.write_text(json.dumps({"rows": self.done, "arrays": sorted(self._arrays)}), encoding="utf-8")
            os.replace(temporary, self._progress)

    def extracted(self) -> Extracted:
        """Returns the features of all samples."""
        return Extracted(self._arrays["features"], self._arrays.get("logits"), self.extractor.letter)

    def remove(self) -> None:
        """Removes the files."""
        for file in self.stem.parent.glob(f"{self.stem.name}.*"):
            file.unlink()

    @property
    def _progress(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.json")

    def _file(self, name: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{name}.npy")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Context manager that converts file errors to an `InputError` about the folder; a `GanError` if it is full."""
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                with writing(self.stem.parent):
                    raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{self.stem.parent}: features cannot be stored there ({reason[:200]}); choose another folder"
            ) from error


def extract(extractor: Extractor, parts: Callable[[int], Iterator[Tensor]], count: int, stem: Path) -> Extracted:
    """Extracts the features of `count` samples to files, and continues existing files.

    Args:
        extractor: the extractor.
        parts: yields samples in parts, starting at the given index, which is the end of an earlier part.
        count: number of samples.
        stem: common start of the files' paths; it must identify everything that the features depend on.

    Raises:
        InputError: the files belong to other features, or cannot be read or written.
    """
    files = FeatureFiles(extractor, count, stem)
    for part in parts(files.done) if files.done < count else ():
        files.add(part)
    return files.extracted()


def fid(real: Extracted, fake: Extracted) -> dict[str, float]:
    """Returns `fid` (or `fvd`, `fad` …, by the extractor's letter); see `gan_core.measure.metrics.frechet_distance`."""
    moments = (metrics.Moments.of(each.features) for each in (real, fake))
    return {f"f{fake.letter}d": metrics.frechet_distance(*moments)}


def kid(real: Extracted, fake: Extracted) -> dict[str, float]:
    """Returns `kid` (or `kvd`, `kad` …, by the extractor's letter) and its standard deviation over subsets, `kid_std`.

    See `gan_core.measure.metrics.kernel_distance`. `kid_std` is omitted if a subset has all samples.
    """
    value, deviation = metrics.kernel_distance(real.features, fake.features, subsets=SUBSETS, size=SUBSET)
    name, only = f"k{fake.letter}d", max(len(real.features), len(fake.features)) == SUBSET
    return {name: value} if only else {name: value, f"{name}_std": deviation}


def inception_score(real: Extracted, fake: Extracted) -> dict[str, float]:
    """Returns `inception_score`, its standard deviation over splits, and the score of the same number of real items."""
    assert real.logits is not None
    assert fake.logits is not None
    score, deviation = metrics.inception_score(fake.logits, splits=SPLITS)
    of_real, _ = metrics.inception_score(real.logits, splits=SPLITS)
    return {"inception_score": score, "inception_score_std": deviation, "inception_score_of_real": of_real}


def precision_recall(real: Extracted, fake: Extracted) -> dict[str, float]:
    """Returns `precision` and `recall`: see `gan_core.measure.metrics.precision_recall`."""
    found = metrics.precision_recall(real.features, fake.features, neighbours=NEIGHBOURS)
    return dict(zip(("precision", "recall"), found, strict=True))


def density_coverage(real: Extracted, fake: Extracted) -> dict[str, float]:
    """Returns `density` and `coverage`: see `gan_core.measure.metrics.density_coverage`."""
    found = metrics.density_coverage(real.features, fake.features, neighbours=DENSITY_NEIGHBOURS)
    return dict(zip(("density", "coverage"), found, strict=True))
