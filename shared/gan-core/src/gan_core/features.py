"""Features of samples: extractors, which see samples, what they saw, and the measures of it.

Features lie on disk while they are measured, so that memory does not grow with the number of samples; where their
folder is kept, an interrupted extraction goes on where it stopped. Importing this loads nothing heavy.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gan_core.domain import MetricCard
from gan_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[np.float32]

SUBSET, SUBSETS = 1000, 100
"""Rows of the kernel distance's subsets, and how many (Bińkowski et al. 2018, section 4; torch-fidelity)."""
SPLITS = 10
"""Of the inception score (Salimans et al. 2016)."""
NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
"""Of precision and recall (Kynkäänniemi et al. 2019), and of density and coverage (Naeem et al. 2020)."""

FEATURE_METRICS = (
    MetricCard("fid", "Fréchet distance of features, in float64", "gan_core.features:fid", extracts="features"),
    MetricCard("kid", f"kernel distance of features: cubic, {SUBSETS} subsets of {SUBSET}", "gan_core.features:kid",
               extracts="features", least=SUBSET),
    MetricCard("inception_score", f"exp E KL(p(y|x) || p(y)), {SPLITS} splits", "gan_core.features:inception_score",
               extracts="logits", least=5 * SPLITS),
    MetricCard("precision_recall", f"share of each among the others' {NEIGHBOURS} neighbours",
               "gan_core.features:precision_recall", extracts="features", least=NEIGHBOURS + 1),
    MetricCard("density_coverage", f"real neighbourhoods ({DENSITY_NEIGHBOURS} neighbours) that samples lie in",
               "gan_core.features:density_coverage", extracts="features", least=DENSITY_NEIGHBOURS + 1),
)  # fmt: skip
"""Metrics of any domain that has extractors."""


class Features(NamedTuple):
    """What a network sees in samples: features `[B, D]`, and logits `[B, K]` where it is a classifier."""

    features: Tensor
    logits: Tensor | None


class Extractor(ABC):
    """Samples in the data's range to features; `protocol` says everything that the figures depend on."""

    name: str
    protocol: Mapping[str, str]

    @abstractmethod
    def __call__(self, samples: Tensor) -> Features:
        """Features and logits of a batch."""


@dataclass(frozen=True)
class Seen:
    """What an extractor saw in a set of samples, in arrays on disk: features `[N, D]`, and logits `[N, K]`, if any."""

    features: Array
    logits: Array | None

    def __len__(self) -> int:
        return len(self.features)


def see(extractor: Extractor, parts: Callable[[int], Iterator[Tensor]], count: int, stem: Path) -> Seen:
    """Extracts the features of `count` samples into files that begin with `stem`, from where they end on.

    Args:
        extractor: what sees them.
        parts: the samples from the n-th on, in parts; n is where a part ended before.
        count: how many there are.
        stem: of the files; its name must say what is extracted of what.

    Raises:
        InputError: the files are of something else, or cannot be written.
    """
    import numpy as np

    names = {name: stem.with_name(f"{stem.name}.{name}.npy") for name in Features._fields}
    progress = stem.with_name(f"{stem.name}.json")
    try:
        done = int(json.loads(progress.read_text(encoding="utf-8"))["rows"]) if progress.exists() else 0
        arrays = {name: np.load(file, mmap_mode="r+") for name, file in names.items() if done and file.exists()}
        if any(len(array) != count or array.dtype != np.float32 for array in arrays.values()) or not 0 <= done <= count:
            raise InputError(f"{progress}: is of {done} of other rows than {count}; name another folder, or remove it")
        stem.parent.mkdir(parents=True, exist_ok=True)
        for part in parts(done) if done < count else ():
            found = {name: value for name, value in extractor(part)._asdict().items() if value is not None}
            if not arrays:
                arrays = {
                    name: np.lib.format.open_memmap(names[name], "w+", np.float32, (count, value.shape[1]))
                    for name, value in found.items()
                }
            for name, value in found.items():
                arrays[name][done : done + len(part)] = value.float().cpu().numpy()
                arrays[name].flush()
            done += len(part)
            temporary = progress.with_suffix(".part")
            temporary.write_text(json.dumps({"rows": done}), encoding="utf-8")
            os.replace(temporary, progress)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{stem.parent}: features cannot be kept there ({reason[:200]}); name another folder"
        ) from error
    return Seen(arrays["features"], arrays.get("logits"))


def fid(real: Seen, fake: Seen) -> dict[str, float]:
    """`fid`: see `gan_core.metrics.frechet_distance`."""
    from gan_core.metrics import Moments, frechet_distance

    return {"fid": frechet_distance(Moments.of(real.features), Moments.of(fake.features))}


def kid(real: Seen, fake: Seen) -> dict[str, float]:
    """`kid` and its deviation over the subsets `kid_std`: see `gan_core.metrics.kernel_distance`.

    Where a subset is all there is, subsets do not deviate, and that says nothing: it is left out.
    """
    from gan_core.metrics import kernel_distance

    value, deviation = kernel_distance(real.features, fake.features, subsets=SUBSETS, size=SUBSET)
    only = max(len(real.features), len(fake.features)) == SUBSET
    return {"kid": value} if only else {"kid": value, "kid_std": deviation}


def inception_score(real: Seen, fake: Seen) -> dict[str, float]:
    """`inception_score`, its deviation over the splits, and that of as many real samples, which a perfect model has."""
    from gan_core import metrics

    assert real.logits is not None
    assert fake.logits is not None
    score, deviation = metrics.inception_score(fake.logits, splits=SPLITS)
    of_real, _ = metrics.inception_score(real.logits, splits=SPLITS)
    return {"inception_score": score, "inception_score_std": deviation, "inception_score_of_real": of_real}


def precision_recall(real: Seen, fake: Seen) -> dict[str, float]:
    """`precision` and `recall`: see `gan_core.metrics.precision_recall`."""
    from gan_core import metrics

    found = metrics.precision_recall(real.features, fake.features, neighbours=NEIGHBOURS)
    return dict(zip(("precision", "recall"), found, strict=True))


def density_coverage(real: Seen, fake: Seen) -> dict[str, float]:
    """`density` and `coverage`: see `gan_core.metrics.density_coverage`."""
    from gan_core import metrics

    found = metrics.density_coverage(real.features, fake.features, neighbours=DENSITY_NEIGHBOURS)
    return dict(zip(("density", "coverage"), found, strict=True))
