"""Evaluations of samples and results: one pass in constant memory, metrics that use the game, and trivial baselines."""

import math
import re
import sys
import weakref
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_core.cards import ExtractorCard, MetricCard
from gan_core.data import (
    ArraySpec,
    FittedData,
    FixedSource,
    Paired,
    Source,
    Spec,
    TensorDataset,
    TensorSource,
    Unpaired,
    shuffled,
)
from gan_core.errors import InputError
from gan_core.measure import metrics
from gan_core.measure.catalog import FEATURE_METRICS
from gan_core.measure.evaluation import Evaluation
from gan_core.measure.features import Extractor, Features
from gan_core.measure.measures import PairPart, Part, Subject, copied
from gan_core.play.conditions import Text
from gan_core.play.game import Game
from gan_core.play.player import Phase
from gan_core.recipe import Recipe


class Values(Extractor):
    """Features that are the samples' values."""

    def __init__(self, letter: str = "i"):
        self.name, self.letter, self.protocol = "values", letter, {"extractor": "values"}

    def __call__(self, samples: Tensor) -> Features:
        return Features(samples.flatten(1), None)


class Nearest(Extractor):
    """A classifier of points that assigns the class number that is nearest to their mean."""

    name, accuracy = "classifier", 0.75

    def __init__(self, classes: int):
        self.classes, self.protocol = classes, {"extractor": "classifier"}

    def __call__(self, samples: Tensor) -> Features:
        distance = samples.mean(dim=1, keepdim=True) - torch.arange(self.classes)
        return Features(samples, -distance.square())


class Sampler(Game):
    """Normal points `[N, 2]` around the class's number, with standard deviation 1."""

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.generator = nn.Linear(1, 1)
        self.num_classes = num_classes

    def players(self) -> tuple[()]:
        return ()

    def sample(self, count: int, label: Tensor | None = None, truncation: float | None = None) -> Tensor:
        centre = 0.0 if label is None else label[:, None].float()
        return centre + (truncation or 1.0) * torch.randn(count, 2)


class Normal(Sampler):
    """A sampler with a known density."""

    def log_likelihood(self, batch: dict[str, Tensor]) -> Tensor:
        return -batch["points"].square().sum(dim=1) / 2 - math.log(2 * math.pi)


class Captioned(Sampler):
    """A sampler that requires captions."""

    conditions: ClassVar = {"caption": Text()}


class Adder(Game):
    """A translator that adds a number to its source."""

    results: ClassVar = {"added": "source"}
    compared: ClassVar = {"added": "target"}

    def __init__(self, number: float):
        super().__init__()
        self.generator, self.number = nn.Linear(1, 1), number

    def players(self) -> tuple[()]:
        return ()

    def apply(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"added": batch["source"] + self.number}


class BothWays(Adder):
    """Unpaired translators that add or subtract a number."""

    paired = False
    results: ClassVar = {"to_target": "source", "to_source": "target"}
    compared: ClassVar = {"to_target": "target", "to_source": "source"}

    def apply(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        (key,) = batch  # of unpaired data, one part
        return {"to_target": batch[key] + self.number} if key == "source" else {"to_source": batch[key] - self.number}


# Metrics as they are written in a domain.


class CopyBaseline:
    """The error of the results, and that of a copy of the input."""

    def __init__(self, subject: Subject):
        self.source, self.sums, self.count = subject.source, [0.0, 0.0], 0

    def update(self, part: PairPart) -> None:
        for place, made in enumerate((part.made, part.batch[self.source])):
            self.sums[place] += float((made - part.real).square().sum())
        self.count += part.real.numel()

    def figures(self) -> dict[str, float]:
        error, of_copy = (total / self.count for total in self.sums)
        return {"error": error, "error_of_copy": of_copy}


class AttributeAccuracy:
    """The share of points whose nearest number is their class."""

    def __init__(self, subject: Subject):
        self.right, self.count = 0, 0

    def update(self, part: Part) -> None:
        self.right += int((part.samples.mean(dim=1).round() == part.asked["label"]).sum())
        self.count += len(part.samples)

    def figures(self) -> dict[str, float]:
        return {"attribute_accuracy": self.right / self.count}


class NegativeLogLikelihood:
    """The mean negative log-likelihood of the real items."""

    def __init__(self, subject: Subject):
        self.subject = subject

    def update(self, part: Part) -> None:
        pass

    def figures(self) -> dict[str, float]:
        found = torch.cat([-self.subject.game.log_likelihood(batch) for batch in self.subject.real()])
        return {"nll": float(found.mean())}


class Sweep:
    """The deviation of samples at several temperatures."""

    def __init__(self, subject: Subject):
        self.subject = subject

    def update(self, part: Part) -> None:
        pass

    def figures(self) -> dict[str, float]:
        game, seed = self.subject.game, self.subject.seed
        return {f"std_at_{t}": float(game.generate(64, seed=seed, truncation=t).std()) for t in (0.5, 1.0)}


class Drawn:
    """A number that is drawn once per evaluation."""

    def __init__(self, subject: Subject):
        self.number = subject.once("number", lambda: float(torch.rand(())))

    def update(self, part: Part) -> None:
        pass

    def figures(self) -> dict[str, float]:
        return {"number": self.number}


class Sums:
    """Counts the parts that are alive when another arrives."""

    alive: ClassVar = weakref.WeakSet()
    most = 0

    def __init__(self, subject: Subject):
        Sums.most = 0

    def update(self, part: Part) -> None:
        Sums.alive.add(part.samples)
        Sums.most = max(Sums.most, len(Sums.alive))

    def figures(self) -> dict[str, float]:
        return {"most": Sums.most}


CARDS = (
    MetricCard(name="copy", title="error beside copying", measure="test_measures:CopyBaseline", pairs=True),
    MetricCard(
        name="attributes", title="share that is as asked", measure="test_measures:AttributeAccuracy", asks=("label",)
    ),
    MetricCard(
        name="nll", title="of real items", measure="test_measures:NegativeLogLikelihood", methods=("log_likelihood",)
    ),
    MetricCard(name="sweep", title="deviation by temperature", measure="test_measures:Sweep"),
    MetricCard(
        name="recognition",
        title="recognised",
        measure="gan_core.measure.measures:Recognition",
        needs=("num_classes",),
        asks=("label",),
    ),
    MetricCard(name="drawn", title="drawn once", measure="test_measures:Drawn"),
    MetricCard(name="sums", title="parts alive", measure="test_measures:Sums"),
    MetricCard(name="pair_sums", title="parts alive", measure="test_measures:Sums", pairs=True),
    MetricCard(name="similarity", title="of pairs", measure="gan_core.measure.similarity:Similarity", pairs=True),
    *FEATURE_METRICS,
)


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch):
    """Measures a game with the metrics above."""
    built: list[str] = []
    module = ModuleType("test_measures")
    vars(module).update(
        CopyBaseline=CopyBaseline,
        AttributeAccuracy=AttributeAccuracy,
        NegativeLogLikelihood=NegativeLogLikelihood,
        Sweep=Sweep,
        Drawn=Drawn,
        Sums=Sums,
        values=lambda *_: Values(),
        videos=lambda *_: Values("v"),
        classifier=lambda _argument, _weights, _dataset, facts, key: built.append(key) or Nearest(facts["num_classes"]),
        built=built,
        METRICS=CARDS,
        EXTRACTORS=(
            ExtractorCard(name="values", title="values", origin="embedded", make="test_measures:values"),
            ExtractorCard(name="videos", title="values of videos", origin="embedded", make="test_measures:videos"),
            ExtractorCard(
                name="classifier",
                title="classifier",
                origin="embedded",
                make="test_measures:classifier",
                needs=("num_classes",),
            ),
        ),
    )
    monkeypatch.setitem(sys.modules, "test_measures", module)

    def call(game: Game, source: Source, **options: Any) -> tuple[dict, dict]:
        return Evaluation(module, FittedData(source, Spec()), game, **options).measure(game)

    return call


def points(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def cloud(count: int = 300) -> TensorSource:
    return TensorSource({"points": points(count), "label": torch.arange(count) % 3}, name="cloud")


def images(count: int, channels: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed)) - 0.5


# --- metrics that use the game, the batch and the conditions


def test_a_metric_of_pairs_can_report_a_copy_of_the_input(evaluate):
    source = images(70)
    figures, _ = evaluate(Adder(0.25), Paired(source=source, target=source + 0.5), metrics=["copy"])
    assert figures["copy"] == pytest.approx({"error": 0.25**2, "error_of_copy": 0.5**2}, rel=1e-5)


def test_a_metric_gets_the_condition_of_each_sample(evaluate):
    figures, _ = evaluate(Sampler(num_classes=3), cloud(), metrics=["attributes"], count=2000)
    expected = math.erf(0.5)  # the mean of two has the variance 1/2, and may be off by 1/2
    assert figures["attributes"]["attribute_accuracy"] == pytest.approx(expected, abs=0.05)
    with pytest.raises(
        InputError, match=r"^the metric `attributes` needs a model conditioned on the class; set `network"
    ):
        evaluate(Sampler(), cloud(), metrics=["attributes"])


class Shifted(Sampler):
    """Points at the number of the next class, for all classes except the first."""

    def sample(self, count: int, label: Tensor | None = None, truncation: float | None = None) -> Tensor:
        assert label is not None
        return (label + (label > 0)).float()[:, None].expand(-1, 2)


def test_recognition_counts_the_samples_of_each_class_that_are_assigned_to_it(evaluate):
    exact = Sampler(num_classes=3)
    figures, _ = evaluate(exact, cloud(), metrics=["recognition"], count=3000)
    expected = 1 - 2 / 3 * math.erfc(0.5)  # the mean's variance is 1/2; outer classes are bounded on one side only
    assert figures["recognition"]["accuracy"] == pytest.approx(expected, abs=0.03)
    assert (figures["recognition"]["classes_found"], figures["recognition"]["accuracy_on_real"]) == (3, 0.75)
    figures, _ = evaluate(Shifted(num_classes=3), cloud(), metrics=["recognition"], count=300)
    # class 0 is right, 1 is taken for 2, and 2 for the nearest number, which is 2
    assert figures["recognition"] == {"accuracy": 2 / 3, "classes_found": 2, "accuracy_on_real": 0.75}
    with pytest.raises(
        InputError, match=r"^the metric `recognition` needs a model conditioned on the class; set `network"
    ):
        evaluate(Sampler(), cloud(), metrics=["recognition"])


def test_a_classifier_is_built_once_for_all_metrics_and_games(evaluate):
    module = sys.modules["test_measures"]
    source, game = cloud(), Sampler(num_classes=3)
    evaluation = Evaluation(
        module, FittedData(source, Spec()), game, metrics=["recognition", "fid"], count=60, extractor="classifier"
    )
    first, second = (evaluation.measure(game)[0] for _ in range(2))
    assert first == second
    assert module.built == ["points"]  # with the key of the samples
    evaluate(game, source, metrics=["recognition", "fid"], count=60)  # `fid` by another extractor
    assert module.built == ["points", "points"]


def test_values_that_are_computed_once_are_shared_by_the_games_of_an_evaluation(evaluate):
    data, game = FittedData(cloud(), Spec()), Sampler()
    module = sys.modules["test_measures"]
    one, other = (Evaluation(module, data, game, metrics=["drawn"], count=10) for _ in range(2))
    number = one.measure(game)[0]["drawn"]["number"]
    assert one.measure(Sampler())[0]["drawn"]["number"] == number
    assert other.measure(game)[0]["drawn"]["number"] != number


def test_a_metric_that_needs_an_extractor_of_the_domain_names_it(evaluate, monkeypatch):
    monkeypatch.setattr(sys.modules["test_measures"], "EXTRACTORS", ())
    with pytest.raises(InputError, match=r"^unknown extractor `classifier`"):
        evaluate(Sampler(num_classes=3), cloud(), metrics=["recognition"], count=10)


def test_extractors_get_the_key_of_the_results(evaluate, monkeypatch):
    keys: list[str] = []
    monkeypatch.setattr(sys.modules["test_measures"], "values", lambda *given: keys.append(given[-1]) or Values())
    source, target = images(20), images(20, seed=1)
    evaluate(Adder(0.5), Paired(source=source, target=target), metrics=["fid"], extractor="values")
    assert keys == ["target"]


def test_the_likelihood_of_data_under_the_model_is_a_metric(evaluate):
    figures, _ = evaluate(Normal(), cloud(), metrics=["nll"], count=100)
    some = points(300)[torch.randperm(300, generator=torch.Generator().manual_seed(0))[:100]]
    assert figures["nll"]["nll"] == pytest.approx(float(some.square().sum(1).mean() / 2 + math.log(2 * math.pi)))
    with pytest.raises(InputError, match=r"^the metric `nll` needs a model with `log_likelihood`$"):
        evaluate(Sampler(), cloud(), metrics=["nll"])


def test_a_metric_may_generate_with_other_settings(evaluate):
    figures, _ = evaluate(Sampler(), cloud(), metrics=["sweep"], count=10)
    assert figures["sweep"]["std_at_0.5"] == pytest.approx(figures["sweep"]["std_at_1.0"] / 2)


# --- memory


@pytest.mark.parametrize("count", [500, 4000])
def test_parts_are_released_however_many_samples_there_are(evaluate, count):
    figures, _ = evaluate(Sampler(), cloud(), metrics=["sums", "fid"], count=count)
    assert figures["sums"]["most"] <= 2
    source = images(count)
    figures, _ = evaluate(Adder(0.5), Paired(source=source, target=source), metrics=["pair_sums"], count=count)
    assert figures["pair_sums"]["most"] <= 2


def test_all_metrics_get_the_samples_of_one_pass(evaluate, monkeypatch):
    calls = []
    sample = Sampler.sample
    monkeypatch.setattr(Sampler, "sample", lambda self, count, *a, **k: calls.append(count) or sample(self, count))
    evaluate(Sampler(), cloud(), metrics=["sums", "fid"], count=150)
    assert calls == [64, 64, 22]


# --- results of `apply`


def frechet(real: Tensor, fake: Tensor) -> float:
    return metrics.frechet_distance(*(metrics.Moments.of(x.flatten(1).double().numpy()) for x in (real, fake)))


def test_translations_and_copies_of_their_sources_are_compared_with_the_targets(evaluate):
    source, target = images(200), images(200, seed=1) + 1.0
    figures, protocols = evaluate(Adder(0.75), Paired(source=source, target=target), count=1000)
    assert list(figures) == ["copy", "pair_sums", "similarity", "fid", "precision_recall", "density_coverage"]
    assert figures["fid"]["fid"] == pytest.approx(frechet(target, source + 0.75), rel=1e-4)
    assert figures["fid"]["fid_of_source"] == pytest.approx(frechet(target, source), rel=1e-4)
    errors = {"psnr": source + 0.75, "psnr_of_source": source, "psnr_of_mean": target.mean(0).expand_as(target)}
    for name, made in errors.items():
        expected = -10 * ((made - target) / 2).square().flatten(1).mean(1).log10()
        assert figures["similarity"][name] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert (protocols["fid"]["samples"], protocols["fid"]["real samples"]) == (200, 200)


def test_a_translation_into_colour_is_compared_with_the_grey_source(evaluate):
    source, target = images(40), images(40, channels=3, seed=1)

    class Colourer(Adder):
        def apply(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"added": batch["source"].expand(-1, 3, -1, -1)}

    figures, _ = evaluate(Colourer(0.0), Paired(source=source, target=target), metrics=["similarity", "fid"])
    assert figures["similarity"]["psnr"] == pytest.approx(figures["similarity"]["psnr_of_source"])
    assert figures["fid"]["fid"] == pytest.approx(figures["fid"]["fid_of_source"], abs=1e-6)
    assert copied(target, torch.Size([1, 4, 4])) is None
    assert copied(images(2), torch.Size([1, 8, 8])) is None
    assert copied(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.Size([1, 4, 4])) is None


def test_unpaired_sets_of_different_sizes_are_compared_as_sets_in_both_directions(evaluate):
    source, target = images(200), images(90, seed=1) + 1.0
    figures, protocols = evaluate(BothWays(0.75), Unpaired(source=source, target=target), count=1000)
    assert list(figures) == ["fid", "precision_recall", "density_coverage"]
    assert figures["fid"] == pytest.approx(
        {
            "fid_to_target": frechet(target, source + 0.75),
            "fid_of_source_to_target": frechet(target, source),
            "fid_to_source": frechet(source, target - 0.75),
            "fid_of_target_to_source": frechet(source, target),
        },
        rel=1e-4,
    )
    assert protocols["fid"]["samples"] == "200 to_target, 90 to_source"
    with pytest.raises(InputError, match=r"^the metric `similarity` compares results with paired targets"):
        evaluate(BothWays(0.75), Unpaired(source=source, target=target), metrics=["similarity"])


def test_kept_features_of_another_model_or_other_data_are_not_used(evaluate, tmp_path):
    source, target = images(100), images(100, seed=1)
    pairs = Paired(source=source, target=target)
    options = {"metrics": ["fid"], "keep": tmp_path / "kept"}
    first, _ = evaluate(Adder(0.5), pairs, **options)
    assert evaluate(Adder(0.5), pairs, **options)[0] == first
    other, _ = evaluate(Adder(0.5), Paired(source=source + 1, target=target), **options)
    assert other["fid"]["fid"] == pytest.approx(frechet(target, source + 1.5), rel=1e-4)


def test_kept_features_of_other_settings_or_another_phase_are_not_used(evaluate, tmp_path):
    class Two(Adder):
        def phases(self) -> tuple[Phase, ...]:
            return Phase("first"), Phase("second")

        def apply(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"added": batch["source"] + self.number + 2 * self.phase_number + self.progress}

    source, target = images(100), images(100, seed=1)
    for number, phase, progress in ((0, 0, 0.0), (0, 0, 0.5), (0, 1, 0.0), (1, 0, 0.0)):
        game = Two(number)
        nn.init.zeros_(game.generator.weight)
        nn.init.zeros_(game.generator.bias)
        game.recipe = Recipe(system="two", game={"number": number})
        game.enter_phase(phase, progress)
        figures, _ = evaluate(
            game, Paired(source=source, target=target), metrics=["fid"], keep=tmp_path / "kept", count=100
        )
        made = source + number + 2 * phase + progress
        assert figures["fid"]["fid"] == pytest.approx(frechet(target, made), rel=1e-4)


def test_a_folder_for_features_that_cannot_be_written_is_refused_before_an_extractor_is_built(
    evaluate, tmp_path, monkeypatch
):
    monkeypatch.setattr(Values, "__init__", lambda *_: pytest.fail("built"))
    (tmp_path / "kept").touch()
    with pytest.raises(InputError, match=r"kept: cannot be written \(File exists\); choose another place"):
        evaluate(Sampler(), cloud(), metrics=["fid"], keep=tmp_path / "kept")


def test_metrics_that_need_more_items_are_left_out(evaluate):
    class OneWay(BothWays):
        results: ClassVar = {"to_source": "target"}
        compared: ClassVar = {"to_source": "source"}

    sets = Unpaired(source=images(1000), target=images(90, seed=1))
    figures, _ = evaluate(OneWay(0.5), sets, count=1000)
    assert list(figures) == ["fid", "precision_recall", "density_coverage"]
    with pytest.raises(InputError, match=r"^the metric `kid` needs 1,000 samples or more; .* has 90$"):
        evaluate(OneWay(0.5), sets, metrics=["kid"], count=1000)


def test_a_metric_of_pairs_gets_the_condition_of_each_result(evaluate, monkeypatch):
    class Classed(Adder):
        def apply(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"added": batch["source"] + batch["label"][:, None, None, None]}

    asked: list[Tensor] = []
    monkeypatch.setattr(CopyBaseline, "update", lambda self, part: asked.append(part.asked["label"]))
    monkeypatch.setattr(CopyBaseline, "figures", lambda self: {"error": 0.0})
    game, label = Classed(0.0), torch.arange(100) % 3
    game.num_classes = 3
    pairs = TensorDataset({"source": images(100), "target": images(100), "label": label})
    evaluate(game, FixedSource(pairs, name="pairs"), metrics=["copy"], count=100)
    assert torch.equal(torch.cat(asked), label[shuffled(100)])


def test_random_draws_in_apply_depend_on_the_seed(evaluate):
    class Noisy(Adder):
        def apply(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"added": batch["source"] + torch.randn_like(batch["source"])}

    pairs = Paired(source=images(100), target=images(100, seed=1))
    first, again, other = (evaluate(Noisy(0), pairs, metrics=["copy"], seed=seed)[0] for seed in (0, 0, 1))
    assert first == again != other


# --- names of figures, and metrics that do not fit


def test_the_letter_of_the_extractor_names_the_figures(evaluate):
    figures, _ = evaluate(Sampler(), cloud(1200), metrics=["fid", "kid"], extractor="videos", count=1100)
    assert {metric: list(found) for metric, found in figures.items()} == {"fid": ["fvd"], "kid": ["kvd", "kvd_std"]}
    assert list(evaluate(Sampler(), cloud(), metrics=["fid"])[0]["fid"]) == ["fid"]


def test_samples_are_compared_with_the_games_own_key(evaluate):
    class Pointed(Sampler):
        def data_spec(self) -> Any:
            return ArraySpec()

    dataset = TensorDataset({"mask": torch.zeros(100, 5), "points": points(100)})
    figures, protocols = evaluate(Pointed(), FixedSource(dataset, name="masked"), metrics=["fid"], count=50)
    assert protocols["fid"]["shape"] == [2]
    assert np.isfinite(figures["fid"]["fid"])


def test_metrics_of_the_other_kind_of_game_are_refused(evaluate):
    pairs = Paired(source=images(20), target=images(20))
    for game, data, metric, why in (
        (Adder(1), pairs, "sweep", "measures generated samples, but this model only transforms items"),
        (Sampler(), cloud(), "copy", "compares results with paired targets, which this model does not have"),
        (Captioned(), cloud(), "fid", "measures samples, but this model cannot generate any without `caption`"),
    ):
        with pytest.raises(InputError, match=f"^the metric `{metric}` {re.escape(why)}"):
            evaluate(game, data, metrics=[metric])
