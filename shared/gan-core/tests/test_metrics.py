"""Metrics of features: values of the published implementations, and closed forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_core.errors import InputError
from gan_core.measure.metrics import (
    Moments,
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_discrepancy,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
    unit_vectors,
    wasserstein,
)

RECORDED = json.loads((Path(__file__).parent / "conformance" / "metrics.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in RECORDED["cases"]}
SCORES = {case["name"]: case for case in RECORDED["inception_scores"]}


def features(made: dict[str, Any]) -> np.ndarray:
    x = np.random.RandomState(made["seed"]).standard_normal(made["shape"])
    if made["mix_seed"]:
        size = made["shape"][1]
        x = x @ (np.random.RandomState(made["mix_seed"]).standard_normal((size, size)) / np.sqrt(size))
    if made["relu"]:
        x = np.maximum(x, 0)
    return x * made["scale"] + made["shift"]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    recorded = CASES[request.param]
    return features(recorded["real"]), features(recorded["fake"]), recorded["metrics"]


def test_the_frechet_distance_is_the_published_one(case) -> None:
    real, fake, metrics = case
    found = frechet_distance(Moments.of(real), Moments.of(fake))
    assert found == pytest.approx(metrics["fid"]["torch_fidelity_eigenvalues"], rel=1e-6)


def test_the_kernel_distance_is_the_published_one(case) -> None:
    real, fake, metrics = case
    recorded = metrics["kid"]
    found = kernel_distance(
        real, fake, subsets=recorded["subsets"], size=recorded["subset_size"], seed=recorded["rng_seed"]
    )
    assert found == pytest.approx((recorded["mean"], recorded["std"]), rel=1e-6)
    if "full_set_unbiased" in recorded:
        assert kernel_discrepancy(real, fake) == pytest.approx(recorded["full_set_unbiased"], rel=1e-6)


def test_precision_recall_density_and_coverage_are_the_published_ones(case) -> None:
    real, fake, metrics = case
    for name, recorded in metrics["precision_recall"].items():
        k = int(name.removeprefix("k="))
        wanted = recorded["torch_fidelity"]
        assert precision_recall(real, fake, neighbours=k) == pytest.approx(
            (wanted["precision"], wanted["recall"]), abs=1e-6
        )
        wanted = recorded["prdc"]
        assert density_coverage(real, fake, neighbours=k) == pytest.approx(
            (wanted["density"], wanted["coverage"]), abs=1e-8
        )


@pytest.mark.parametrize("name", SCORES)
def test_the_inception_score_is_the_published_one(name: str) -> None:
    recorded = SCORES[name]
    made = recorded["logits"]
    logits = np.random.RandomState(made["seed"]).standard_normal(made["shape"]) * made["scale"]
    wanted = recorded["unshuffled"]
    assert inception_score(logits, splits=recorded["splits"]) == pytest.approx(
        (wanted["mean"], wanted["std"]), rel=1e-6
    )
    shuffled = logits[np.random.RandomState(recorded["rng_seed"]).permutation(len(logits))]
    wanted = recorded["shuffled"]
    assert inception_score(shuffled, splits=recorded["splits"]) == pytest.approx(
        (wanted["mean"], wanted["std"]), rel=1e-6
    )
    assert inception_score(logits, splits=1)[0] == pytest.approx(recorded["one_split"], rel=1e-6)


def test_moments_of_parts_add_up() -> None:
    rows = np.random.RandomState(0).standard_normal((1000, 6)) * np.arange(1, 7) + 1e4
    whole = Moments.of(rows)
    parts = Moments.of(rows[:1]) + Moments.of(rows[1:300]) + Moments.of(rows[300:])
    assert parts.count == 1000
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.covariance, np.cov(rows.T), rtol=1e-8, atol=1e-8)


def test_the_covariance_of_two_rows_is_half_the_outer_product_of_their_difference() -> None:
    rows = np.array([[1.0, 2.0], [4.0, -2.0]])
    np.testing.assert_allclose(Moments.of(rows).covariance, np.outer([3.0, -4.0], [3.0, -4.0]) / 2)
    np.testing.assert_allclose(Moments.of(rows).covariance, np.cov(rows.T))


def test_the_frechet_distance_of_known_gaussians() -> None:
    one = Moments(3, np.zeros(2), 2 * np.diag([1.0, 4.0]))
    other = Moments(3, np.array([3.0, 4.0]), 2 * np.diag([9.0, 4.0]))
    assert frechet_distance(one, other) == pytest.approx(25 + (1 - 3) ** 2)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)


def test_the_sliced_distance_of_a_shift_is_its_mean_projection() -> None:
    x = np.random.RandomState(0).standard_normal((500, 2))
    assert sliced_wasserstein(x, x[::-1]) == 0
    moved = sliced_wasserstein(x, x + np.array([3.0, 4.0]), directions=20_000)
    assert moved == pytest.approx(5 * 2 / np.pi, rel=0.02)  # E|cos| of a random direction in the plane


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Moments.of(np.zeros(3)), "`features` have the shape [3]; expected [samples, features]"),
        (lambda: Moments.of(np.full((2, 2), np.nan)), "`features` have non-finite values"),
        (lambda: Moments.of(np.zeros((1, 2))).covariance, "a covariance needs 2 samples or more; there are 1"),
        (lambda: kernel_distance(np.zeros((5, 2)), np.zeros((9, 2)), size=6), "there are 5 real and 9 fake"),
        (lambda: precision_recall(np.zeros((3, 2)), np.zeros((3, 2))), "3 samples are too few for 3 neighbours"),
        (lambda: sliced_wasserstein(np.zeros((3, 2)), np.zeros((4, 2))), "there are 3 real and 4 fake"),
    ],
)
def test_invalid_features_are_refused(call, words: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value)


def test_neighbourhoods_need_one_sample_more_than_neighbours() -> None:
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert precision_recall(corners, corners) == (1.0, 1.0)  # 3 neighbours of 4 samples
    with pytest.raises(InputError, match=r"^4 samples are too few for 4 neighbours; use 5 or more$"):
        precision_recall(corners, corners, neighbours=4)


def test_precision_recall_density_and_coverage_of_points_on_a_line() -> None:
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # distances to the nearest: 1, 1, 2, 7
    fake = np.array([[0.5], [4.9], [5.1], [30.0]])  # distances to the nearest: 4.4, 0.2, 0.2, 24.9
    precision, recall = precision_recall(real, fake, neighbours=1)
    assert precision == 3 / 4  # 0.5 by 0 and 1; 4.9 by 3 and 10; 5.1 by 10; 30 by none
    assert recall == 4 / 4  # 0, 1 and 3 by 0.5; 10 by 30
    density, coverage = density_coverage(real, fake, neighbours=1)
    assert density == 5 / 4  # two neighbourhoods contain 0.5, two 4.9, and one 5.1
    assert coverage == 4 / 4


@pytest.mark.parametrize("splits", [1, 2])
def test_the_inception_score_of_certain_logits_is_the_number_of_classes(splits: int) -> None:
    certain = 1000 * np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    assert inception_score(certain, splits=splits) == pytest.approx((4.0, 0.0))
    assert inception_score(np.zeros((8, 4)), splits=splits) == pytest.approx((1.0, 0.0))
    assert inception_score(certain[[0, 0, 0, 0, 0, 1, 2, 3]], splits=2) == pytest.approx((2.5, 1.5))  # of 1 and 4


def test_the_wasserstein_distance_is_that_of_sorted_columns() -> None:
    real, fake = np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([[2.0, 1.0], [5.0, -1.0]])
    assert wasserstein(real, fake) == (1 + 2 + 1 + 1) / 4  # columns 1, 3 and 2, 5; 0, 0 and -1, 1
    axes = unit_vectors(5, 7)
    assert axes.shape == (5, 7)
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0), 1)
    assert (unit_vectors(5, 7, seed=1) != axes).all()
