"""Metrics on features of real and generated samples, computed in float64.

Features are `[N, D]`, one row per sample. Arrays on disk (`numpy.memmap`) are read in blocks, so that memory does not
grow with the number of samples. Figures are comparable only if they are computed from the same kind of features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray

from gan_core.errors import InputError

Array = NDArray[np.float64]
BLOCK = 2048
"""Number of rows in memory at a time."""
FLOOR = 1e-12
"""Size of an eigenvalue, relative to the largest, below which it is treated as a rounding error."""


@dataclass
class Moments:
    """Mean and covariance of features that arrive in parts, in constant memory (Chan et al. 1983).

    Attributes:
        count: number of rows so far.
        mean: `[D]`.
        scatter: sum of the outer products of deviations from the mean, `[D, D]`.
    """

    count: int
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Moments:
        """Returns the moments of features `[N, D]`."""

        def part(rows: Array) -> Moments:
            mean = rows.mean(axis=0)
            centred = rows - mean
            return cls(len(rows), mean, centred.T @ centred)

        return reduce(add, (part(rows) for _, rows in _blocks("features", features)))

    def __add__(self, other: Moments) -> Moments:
        """Returns the moments of both parts together."""
        count, difference = self.count + other.count, other.mean - self.mean
        between = np.outer(difference, difference) * (self.count * other.count / count)
        mean = self.mean + difference * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Array:
        """The unbiased covariance, `[D, D]`."""
        if self.count < 2:
            raise InputError(f"a covariance needs 2 samples or more; there are {self.count}")
        covariance: Array = self.scatter / (self.count - 1)
        return covariance


def frechet_distance(real: Moments, fake: Moments) -> float:
    """Returns ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½) (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

    The trace of the root is computed as the sum of the singular values of Σ₁^½ Σ₂^½, which are always real.
    """
    roots = _root(real.covariance) @ _root(fake.covariance)
    shared = np.linalg.svd(roots, compute_uv=False).sum()
    apart = np.square(real.mean - fake.mean).sum()
    return float(apart + np.trace(real.covariance) + np.trace(fake.covariance) - 2 * shared)


def _root(covariance: Array) -> Array:
    """Returns the symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.where(values > FLOOR * values[-1], values, 0.0)
    root: Array = (vectors * np.sqrt(values)) @ vectors.T
    return root


def kernel_distance(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Returns the unbiased squared MMD of random subsets with a cubic kernel (Bińkowski et al. 2018, arXiv:1801.01401).

    The kernel is (x·y / D + 1)³. Subsets are drawn in the order of torch-fidelity, fakes first.

    Args:
        real: features `[N, D]`.
        fake: features `[M, D]`.
        subsets: number of subsets.
        size: number of rows in each subset.
        seed: seed of numpy's legacy generator.

    Returns:
        The mean over the subsets and their standard deviation.

    Raises:
        InputError: there are fewer rows than the size of a subset.
    """
    if size > min(len(real), len(fake)):
        given = f"subsets have {size} samples, but there are {len(real)} real and {len(fake)} fake"
        raise InputError(f"{given}; use more samples, or smaller subsets")
    random = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        f = _features("fake", fake[random.choice(len(fake), size, replace=False)])
        r = _features("real", real[random.choice(len(real), size, replace=False)])
        found.append(kernel_discrepancy(r, f))
    return float(np.mean(found)), float(np.std(found))


def kernel_discrepancy(real: Array, fake: Array) -> float:
    """Returns the unbiased squared maximum mean discrepancy of all rows."""

    def kernel(x: Array, y: Array) -> Array:
        cubic: Array = (x @ y.T / x.shape[1] + 1) ** 3
        return cubic

    def within(x: Array) -> float:
        products = kernel(x, x)
        return float((products.sum() - np.trace(products)) / (len(x) * (len(x) - 1)))

    return within(real) + within(fake) - 2 * float(kernel(real, fake).mean())


def inception_score(logits: NDArray[np.floating], *, splits: int = 10) -> tuple[float, float]:
    """Returns exp(E[KL(p(y|x) ‖ p(y))]) of logits `[N, classes]` (Salimans et al. 2016, arXiv:1606.03498).

    Returns:
        The mean over consecutive splits and their standard deviation.
    """
    edges = [n * len(logits) // splits for n in range(splits + 1)]
    scores = []
    for start, end in pairwise(edges):
        shifted = _features("logits", logits[start:end])
        shifted = shifted - shifted.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        share = np.exp(log_p).mean(axis=0)
        marginal = np.log(share, out=np.zeros_like(share), where=share > 0)  # of a class that is impossible: any number
        scores.append(np.exp((np.exp(log_p) * (log_p - marginal)).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def precision_recall(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, neighbours: int = 3
) -> tuple[float, float]:
    """Returns precision and recall with k-nearest-neighbour manifolds (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Precision is the share of fakes within the k-th-neighbour radius of a real sample; recall swaps the two sets (eq. 2
    and 3).

    Args:
        real: features `[N, D]`.
        fake: features `[M, D]`.
        neighbours: k.
    """
    real_radii, fake_radii = _radii("real", real, neighbours), _radii("fake", fake, neighbours)
    fake_inside, real_inside = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for i, j, between in _between(real, fake):
        fake_inside[j] |= (between <= real_radii[i, None]).any(axis=0)
        real_inside[i] |= (between <= fake_radii[None, j]).any(axis=1)
    return float(fake_inside.mean()), float(real_inside.mean())


def density_coverage(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, neighbours: int = 5
) -> tuple[float, float]:
    """Returns density and coverage (Naeem et al. 2020, arXiv:2002.09797, equations 3 and 4).

    Args:
        real: features `[N, D]`.
        fake: features `[M, D]`.
        neighbours: k, the number of neighbours that defines a neighbourhood.
    """
    radii = _radii("real", real, neighbours)
    lain, covered = 0, np.zeros(len(real), bool)
    for i, _, between in _between(real, fake):
        inside = between < radii[i, None]
        lain += int(inside.sum())
        covered[i] |= inside.any(axis=1)
    return lain / (neighbours * len(fake)), float(covered.mean())


def unit_vectors(size: int, number: int = 128, *, seed: int = 0) -> Array:
    """Returns random unit vectors, `[size, number]`."""
    axes: Array = np.random.RandomState(seed).standard_normal((size, number))
    return axes / np.linalg.norm(axes, axis=0)


def wasserstein(real: NDArray[np.floating], fake: NDArray[np.floating]) -> float:
    """Returns the Wasserstein-1 distance of each column, averaged over the columns; both inputs have N rows.

    Args:
        real: values `[N, D]`.
        fake: values `[N, D]`.

    Raises:
        InputError: the numbers of rows differ.
    """
    real, fake = _features("real", real), _features("fake", fake)
    if len(real) != len(fake):
        raise InputError(f"the numbers of samples must be equal; there are {len(real)} real and {len(fake)} fake")
    return float(np.abs(np.sort(real, axis=0) - np.sort(fake, axis=0)).mean())


def sliced_wasserstein(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, directions: int = 128, seed: int = 0
) -> float:
    """Returns the mean Wasserstein-1 distance along random directions; both inputs have N rows (Rabin et al. 2011).

    Args:
        real: features `[N, D]`.
        fake: features `[N, D]`.
        directions: number of directions.
        seed: random seed of the directions.

    Raises:
        InputError: the numbers of rows differ.
    """
    axes = unit_vectors(real.shape[1], directions, seed=seed)
    return wasserstein(_features("real", real) @ axes, _features("fake", fake) @ axes)


def _features(name: str, given: NDArray[np.floating]) -> Array:
    rows: Array = np.asarray(given, dtype=np.float64)
    if rows.ndim != 2 or not len(rows):
        raise InputError(f"`{name}` have the shape {list(rows.shape)}; expected [samples, features]")
    if not np.isfinite(rows).all():
        raise InputError(f"`{name}` have non-finite values; check the extractor and the samples")
    return rows


def _blocks(name: str, given: NDArray[np.floating]) -> Iterator[tuple[slice, Array]]:
    """Yields blocks of rows in float64, and their slices."""
    for start in range(0, max(1, len(given)), BLOCK):
        which = slice(start, start + BLOCK)
        yield which, _features(name, given[which])


def _between(
    real: NDArray[np.floating], fake: NDArray[np.floating], names: tuple[str, str] = ("real", "fake")
) -> Iterator[tuple[slice, slice, Array]]:
    """Yields blocks of Euclidean distances between real and fake rows, and their slices."""
    for i, r in _blocks(names[0], real):
        for j, f in _blocks(names[1], fake):
            pair = torch.from_numpy(r), torch.from_numpy(f)
            yield i, j, torch.cdist(*pair, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def _radii(name: str, rows: NDArray[np.floating], neighbours: int) -> Array:
    """Returns the distance of each row to its k-th nearest neighbour, excluding itself."""
    if len(rows) <= neighbours:
        raise InputError(f"{len(rows)} samples are too few for {neighbours} neighbours; use {neighbours + 1} or more")
    nearest = np.full((len(rows), neighbours + 1), np.inf)
    for i, _, between in _between(rows, rows, (name, name)):
        candidates = np.concatenate([nearest[i], between], axis=1)
        nearest[i] = np.partition(candidates, neighbours, axis=1)[:, : neighbours + 1]
    radii: Array = nearest.max(axis=1)
    return radii
