"""Metrics of images and points, on samples whose figures are known."""

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from gan_core.cards import resolve
from gan_core.data import ImageSpec, Spec, TensorDataset
from gan_core.measure import image_classifier
from gan_core.measure.features import Extractors
from gan_core.measure.measures import Recognition, SlicedWasserstein
from gan_core.testing import measured
from gan_image.data import load_digits, load_grid, load_ring, load_stacked_digits
from gan_image.measures import Modes, Moments, StackedModes
from gan_image.metrics import EXTRACTORS, METRICS

SQUARE = {"modes": torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]]), "std": 0.5}
NOTHING = TensorDataset({"points": torch.zeros(1, 2)})


@pytest.fixture(scope="module", autouse=True)
def _fewer_steps():
    """Digits of 8x8 pixels need fewer than 600 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_classifier, "STEPS", 200)
        yield


def found(points: list[list[float]]) -> dict[str, float | int]:
    return measured(Modes, torch.tensor(points), NOTHING, SQUARE)


# --- modes


def test_a_sample_on_each_mode_finds_all():
    assert found([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]]) == {
        "modes_found": 4,
        "modes": 4,
        "high_quality": 1.0,
        "kl": 0.0,
    }


def test_one_sample_within_three_deviations_finds_a_mode():
    one = {"modes_found": 1, "modes": 4, "high_quality": 0.5, "kl": math.log(4)}
    assert found([[0.0, 1.49], [4.0, 1.51]]) == one


def test_the_divergence_counts_only_samples_on_a_mode():
    uneven = found([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [4.0, 4.0], [2.0, 2.0]])  # three quarters and one
    assert uneven["kl"] == pytest.approx(0.75 * math.log(0.75 * 4) + 0.25 * math.log(0.25 * 4))


def test_a_sample_counts_only_for_the_nearest_mode():
    near = {"modes": torch.tensor([[0.0], [1.0]]), "std": 1.0}  # each is within 3 deviations of the other
    assert measured(Modes, torch.tensor([[0.1], [0.4]]), NOTHING, near)["modes_found"] == 1


def test_samples_far_from_every_mode_find_none():
    none = {"modes_found": 0, "modes": 4, "high_quality": 0.0, "kl": math.log(4)}
    assert found([[2.0, 2.0], [100.0, 0.0], [float("nan"), 0.0]]) == none


@pytest.mark.parametrize(("load", "count"), [(load_ring, 8), (load_grid, 25)])
def test_the_real_points_find_all_modes(load, count):
    source = load()
    points = source.fit(Spec()).tensors["points"][:5000]
    figures = measured(Modes, points, source.fit(Spec()), source.facts)
    assert (figures["modes_found"], figures["modes"]) == (count, count)
    assert figures["high_quality"] == pytest.approx(1 - 0.0111, abs=0.004)  # exp(-9/2) of a plane's normal lies beyond


# --- moments


def test_moments_are_those_of_all_coordinates():
    samples, real = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 2.0], [4.0, 6.0]])
    assert measured(Moments, samples, TensorDataset({"points": real}), {}) == pytest.approx(
        {"mean_of_samples": 2.0, "mean_of_data": 3.0, "std_of_samples": 2**0.5, "std_of_data": (20 / 3) ** 0.5}
    )


# --- recognition


def facts() -> dict[str, object]:
    return load_digits().facts


def in_turn(images: Tensor, labels: Tensor, count: int) -> Tensor:
    """Real images of class `i % 10` at `i`, the order in which samples are generated."""
    rows = torch.stack([torch.nonzero(labels == label).flatten()[: count // 10] for label in range(10)], dim=1)
    return images[rows.flatten()].float() / 127.5 - 1


@pytest.fixture(scope="module")
def digits() -> TensorDataset:
    return load_digits().fit(Spec())


@pytest.fixture(scope="module")
def recognised(digits):
    """The metric `recognition` of samples. The classifier is trained once."""
    every = {"classifier": Extractors(EXTRACTORS, digits, facts(), "image")("classifier")}

    def call(samples: Tensor) -> dict[str, float]:
        return measured(Recognition, samples, digits, facts(), extractors=every.__getitem__)

    return call


def test_real_digits_are_recognised(digits, recognised):
    figures = recognised(in_turn(digits.tensors["image"], digits.tensors["label"], 200))
    assert figures["accuracy"] > 0.97
    assert figures["classes_found"] == 10
    assert figures["accuracy_on_real"] > 0.97


def test_digits_in_the_wrong_order_are_not_recognised(digits, recognised):
    figures = recognised(in_turn(digits.tensors["image"], digits.tensors["label"], 200).roll(1, dims=0))
    assert figures["accuracy"] < 0.02
    assert figures["accuracy_on_real"] > 0.97


def test_one_digit_for_every_class_is_right_once_in_ten(digits, recognised):
    seven = in_turn(digits.tensors["image"], digits.tensors["label"], 10)[7]
    figures = recognised(seven.expand(100, -1, -1, -1))
    assert (figures["accuracy"], figures["classes_found"]) == (0.1, 1)


def test_noise_is_not_recognised(recognised):
    noise = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert recognised(noise)["accuracy"] < 0.2


# --- pixels


def test_the_distance_of_pixels_is_zero_for_the_data_and_known_for_a_shift(digits):
    real = digits.tensors["image"].float() / 127.5 - 1
    chance = measured(SlicedWasserstein, real, digits, facts())
    assert chance["sliced_wasserstein"] == pytest.approx(0, abs=1e-6)
    assert 0 < chance["sliced_wasserstein_of_real"] < 0.1
    apart = measured(SlicedWasserstein, real + 1, digits, facts())["sliced_wasserstein"]
    assert apart == pytest.approx((64 * 2 / math.pi / 64) ** 0.5, rel=0.25)  # E|sum of a unit vector| of 64 numbers


# --- stacked digits


@pytest.fixture(scope="module")
def stacked_digits():
    return load_stacked_digits()


@pytest.fixture(scope="module")
def stacked(stacked_digits):
    """The metric `stacked_modes` of samples that are stacked from digits, `[N, 3]`. The classifier is trained once."""
    source, memory = stacked_digits, {}
    digits = source.single.fit(ImageSpec(image_size=8, channels=1)).tensors["image"]

    def call(parts: Tensor) -> dict[str, float]:
        samples = digits[parts, 0].float() / 127.5 - 1  # [N, 3] -> [N, 3, 8, 8]
        return measured(StackedModes, samples, source.fit(Spec()), source.facts, memory=memory)

    return call


def test_a_perfect_sampler_finds_the_modes_that_drawing_with_replacement_predicts(stacked_digits, stacked):
    count = 4000
    figures = stacked(torch.randint(1797, (count, 3), generator=torch.Generator().manual_seed(1)))
    frequency = torch.bincount(stacked_digits.single.labels).double() / 1797
    data = torch.einsum("i,j,k->ijk", frequency, frequency, frequency).flatten()
    expected = float((1 - (1 - data) ** count).sum())
    assert figures["modes"] == 1000
    assert figures["modes_found"] == pytest.approx(expected, abs=4 * (1000 - expected) ** 0.5)
    assert figures["kl"] == pytest.approx(999 / (2 * count), rel=0.2)  # expectation: (K - 1) / 2 n
    assert figures["accuracy_on_real"] > 0.98


def test_a_collapsed_sampler_finds_one_mode(stacked):
    figures = stacked(torch.zeros(50, 3, dtype=torch.long))  # the first digit is a zero, as 178 of 1,797 are
    assert figures["modes_found"] == 1
    assert figures["kl"] == pytest.approx(3 * math.log(1797 / 178))  # log 1000 for equal frequencies
    assert figures["kl"] == pytest.approx(math.log(1000), rel=0.01)


def test_each_channel_of_a_stacked_digit_is_one_digit_of_its_mode(stacked):
    rows = torch.arange(10)  # the first ten of the set are 0 to 9
    same = torch.stack([rows, rows, rows], dim=1)
    mixed = torch.cartesian_prod(rows, rows, rows)
    assert stacked(same)["modes_found"] == 10
    figures = stacked(mixed)
    assert figures["modes_found"] == 1000
    assert stacked(mixed.flip(0)) == figures


# --- the list


def test_every_card_names_a_function_and_what_it_needs():
    assert all(callable(resolve(card.measure)) for card in METRICS)
    needs = {card.name: (set(card.needs), card.asks) for card in METRICS}
    assert needs["recognition"] == ({"num_classes", "channels"}, ("label",))
    assert needs["modes"] == ({"modes"}, ())


def test_listing_the_metrics_loads_no_torch():
    assert all(callable(resolve(card.make)) for card in EXTRACTORS)
    code = "import sys, gan_image.metrics; sys.exit(bool({'torch', 'sklearn', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
