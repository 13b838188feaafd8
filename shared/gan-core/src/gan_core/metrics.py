"""Measures of two sets of features, in float64: how far the generated one is from the real one, and in what way.

Features are `[N, D]`, one row a sample. Figures of different features are different measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from gan_core.errors import InputError

Array = NDArray[np.float64]
FLOOR = 1e-12
"""Eigenvalues below this share of the largest are rounding."""


@dataclass
class Moments:
    """Mean and covariance of features that arrive in parts, in constant memory (Chan et al. 1983).

    Attributes:
        count: rows so far.
        mean: `[D]`.
        scatter: the sum of the products of deviations from the mean, `[D, D]`.
    """

    count: int
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Moments:
        """The moments of features `[N, D]`."""
        rows = _features("features", features)
        mean = rows.mean(axis=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both parts together."""
        count, difference = self.count + other.count, other.mean - self.mean
        between = np.outer(difference, difference) * (self.count * other.count / count)
        mean = self.mean + difference * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Array:
        """Unbiased, `[D, D]`."""
        if self.count < 2:
            raise InputError(f"a covariance of {self.count} samples is none; give 2 or more")
        covariance: Array = self.scatter / (self.count - 1)
        return covariance


def frechet_distance(real: Moments, fake: Moments) -> float:
    """‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½) (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

    The trace of the root is the sum of the singular values of Σ₁^½ Σ₂^½, which are real however few samples there are.
    """
    roots = _root(real.covariance) @ _root(fake.covariance)
    shared = np.linalg.svd(roots, compute_uv=False).sum()
    apart = np.square(real.mean - fake.mean).sum()
    return float(apart + np.trace(real.covariance) + np.trace(fake.covariance) - 2 * shared)


def _root(covariance: Array) -> Array:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.where(values > FLOOR * values[-1], values, 0.0)
    root: Array = (vectors * np.sqrt(values)) @ vectors.T
    return root


def kernel_distance(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """The unbiased squared discrepancy of random subsets, by a cubic kernel (Bińkowski et al. 2018, arXiv:1801.01401).

    The kernel is (x·y / D + 1)³. Subsets are drawn as torch-fidelity draws them: of the fakes first.

    Args:
        real: features `[N, D]`.
        fake: features `[M, D]`.
        subsets: how many.
        size: rows of each.
        seed: of numpy's legacy generator.

    Returns:
        The mean over the subsets and their standard deviation.

    Raises:
        InputError: there are fewer features than a subset has.
    """
    real, fake = _features("real", real), _features("fake", fake)
    if size > min(len(real), len(fake)):
        raise InputError(f"subsets of {size} need as many features; there are {len(real)} real and {len(fake)} fake")
    random = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        f = fake[random.choice(len(fake), size, replace=False)]
        r = real[random.choice(len(real), size, replace=False)]
        found.append(kernel_discrepancy(r, f))
    return float(np.mean(found)), float(np.std(found))


def kernel_discrepancy(real: Array, fake: Array) -> float:
    """The unbiased squared maximum mean discrepancy of all rows, each pair of one set's different rows once."""

    def kernel(x: Array, y: Array) -> Array:
        cubic: Array = (x @ y.T / x.shape[1] + 1) ** 3
        return cubic

    def within(x: Array) -> float:
        products = kernel(x, x)
        return float((products.sum() - np.trace(products)) / (len(x) * (len(x) - 1)))

    return within(real) + within(fake) - 2 * float(kernel(real, fake).mean())


def inception_score(logits: NDArray[np.floating], *, splits: int = 10) -> tuple[float, float]:
    """The exponential of E[KL(p(y|x) ‖ p(y))], of logits `[N, classes]` (Salimans et al. 2016, arXiv:1606.03498).

    Returns:
        The mean over consecutive splits and their standard deviation.
    """
    shifted = _features("logits", logits)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    edges = [n * len(log_p) // splits for n in range(splits + 1)]
    scores = []
    for start, end in pairwise(edges):
        part = log_p[start:end]
        marginal = np.log(np.exp(part).mean(axis=0))
        scores.append(np.exp((np.exp(part) * (part - marginal)).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def precision_recall(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, neighbours: int = 3
) -> tuple[float, float]:
    """The share of fakes among the real samples and of real samples among the fakes (arXiv:1904.06991, eq. 2 and 3).

    A sample is among others that lie no further from one of them than its k-th neighbour (Kynkäänniemi et al. 2019).

    Args:
        real: features `[N, D]`.
        fake: features `[M, D]`.
        neighbours: k.
    """
    real, fake = _features("real", real), _features("fake", fake)
    between = _distances(real, fake)
    precision = (between <= _radii(real, neighbours)[:, None]).any(axis=0).mean()
    recall = (between <= _radii(fake, neighbours)[None, :]).any(axis=1).mean()
    return float(precision), float(recall)


def density_coverage(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, neighbours: int = 5
) -> tuple[float, float]:
    """How many real neighbourhoods a fake lies in, over k, and the share of those that have a fake (arXiv:2002.09797).

    Args:
        real: features `[N, D]`.
        fake: features `[M, D]`.
        neighbours: k (Naeem et al. 2020, equations 3 and 4).
    """
    real, fake = _features("real", real), _features("fake", fake)
    inside = _distances(real, fake) < _radii(real, neighbours)[:, None]
    return float(inside.sum(axis=0).mean() / neighbours), float(inside.any(axis=1).mean())


def sliced_wasserstein(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, directions: int = 128, seed: int = 0
) -> float:
    """The mean Wasserstein-1 distance along random directions, of as many rows of each (Rabin et al. 2011).

    Args:
        real: features `[N, D]`.
        fake: features `[N, D]`.
        directions: how many.
        seed: of the directions.

    Raises:
        InputError: the numbers of rows differ.
    """
    real, fake = _features("real", real), _features("fake", fake)
    if len(real) != len(fake):
        raise InputError(f"as many samples of each are compared; there are {len(real)} real and {len(fake)} fake")
    axes = np.random.RandomState(seed).standard_normal((real.shape[1], directions))
    axes /= np.linalg.norm(axes, axis=0)
    return float(np.abs(np.sort(real @ axes, axis=0) - np.sort(fake @ axes, axis=0)).mean())


def _features(name: str, given: NDArray[np.floating]) -> Array:
    rows: Array = np.asarray(given, dtype=np.float64)
    if rows.ndim != 2 or not len(rows):
        raise InputError(f"`{name}` have the shape {list(rows.shape)}; expected [samples, features]")
    if not np.isfinite(rows).all():
        raise InputError(f"`{name}` hold values that are not finite; look at what made them")
    return rows


def _distances(x: Array, y: Array) -> Array:
    """Euclidean, `[N, M]`."""
    pair = torch.from_numpy(x), torch.from_numpy(y)
    distances: Array = torch.cdist(*pair, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    return distances


def _radii(rows: Array, neighbours: int) -> Array:
    """The distance of each row to its k-th neighbour, itself not counted."""
    if len(rows) <= neighbours:
        raise InputError(f"{len(rows)} samples have no neighbour number {neighbours}; give more samples")
    radii: Array = np.partition(_distances(rows, rows), neighbours, axis=1)[:, neighbours]
    return radii
