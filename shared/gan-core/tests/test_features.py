"""Extracted features: stored on disk, continued, measured in blocks, and described by a protocol."""

import json
import re
import resource
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_core import api
from gan_core.api import Toolkit
from gan_core.cards import ExtractorCard, resolve
from gan_core.data import FittedData, Spec, TensorDataset, TensorSource
from gan_core.draws import BLOCK
from gan_core.errors import GanError, InputError
from gan_core.measure import catalog, features, metrics
from gan_core.measure.catalog import FEATURE_METRICS
from gan_core.measure.evaluation import Evaluation, protocol_id
from gan_core.measure.features import Extracted, Extractor, Extractors, Features, check_samples, extract
from gan_core.runs.report import write_report


class Twice(Extractor):
    """An extractor of `[x, 2 x]`, with the samples as logits, that counts the samples."""

    name = "twice"

    def __init__(self, argument: str | None = None, *, judges: bool = True, fails_after: int | None = None):
        self.protocol = {"extractor": f"twice:{argument}"}
        self.judges, self.left, self.rows = judges, fails_after, 0

    def __call__(self, samples: Tensor) -> Features:
        if self.left is not None and self.rows >= self.left:
            raise KeyboardInterrupt
        self.rows += len(samples)
        return Features(torch.cat([samples, 2 * samples], dim=1), samples if self.judges else None)


POINTS = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


def parts(start: int) -> Iterator[Tensor]:
    yield from POINTS[start:].split(64)


# --- on disk


def test_features_are_those_of_all_samples_in_order(tmp_path):
    seen = extract(Twice(), parts, 200, tmp_path / "real")
    assert torch.equal(torch.from_numpy(np.array(seen.features)), torch.cat([POINTS, 2 * POINTS], dim=1))
    assert torch.equal(torch.from_numpy(np.array(seen.logits)), POINTS)
    assert extract(Twice(judges=False), parts, 200, tmp_path / "fake").logits is None


def test_an_interrupted_extraction_is_continued(tmp_path):
    whole = extract(Twice(), parts, 200, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extract(Twice(fails_after=128), parts, 200, tmp_path / "part")
    rest = Twice()
    seen = extract(rest, parts, 200, tmp_path / "part")
    assert rest.rows == 72  # 128 of 200 were stored
    assert np.array_equal(seen.features, whole.features)
    assert np.array_equal(seen.logits, whole.logits)
    again = Twice()
    extract(again, parts, 200, tmp_path / "part")
    assert again.rows == 0


def test_features_of_other_samples_are_refused(tmp_path):
    extract(Twice(), parts, 200, tmp_path / "real")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'real.json'}: ")):
        extract(Twice(), parts, 150, tmp_path / "real")
    for content in ("{", "[]", '{"rows": "many"}', "{}"):
        (tmp_path / "real.json").write_text(content)
        with pytest.raises(InputError, match="features cannot be stored there"):
            extract(Twice(), parts, 200, tmp_path / "real")
    (tmp_path / "real.json").write_text('{"rows": 128, "arrays": ["features"]}')
    (tmp_path / "real.features.npy").write_bytes(b"not an array")
    with pytest.raises(InputError, match="features cannot be stored there"):
        extract(Twice(), parts, 200, tmp_path / "real")


def test_a_disk_that_is_full_is_a_failure_and_not_a_wrong_request(tmp_path):
    def full():
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        try:
            extract(Twice(), parts, 200, tmp_path / "real")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    with pytest.raises(GanError, match=r"cannot be written \(File too large\); free some space") as error:
        full()
    assert error.value.exit_status == 1


@pytest.mark.parametrize("name", ["features", "logits"])
def test_incomplete_features_are_not_continued(tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        extract(Twice(fails_after=128), parts, 200, tmp_path / "part")
    (tmp_path / f"part.{name}.npy").unlink()
    with pytest.raises(InputError, match="features cannot be stored there"):
        extract(Twice(), parts, 200, tmp_path / "part")


@pytest.mark.parametrize("block", [7, 64])
def test_metrics_in_blocks_are_those_of_all_rows(monkeypatch, block):
    real, fake = np.random.RandomState(0).randn(2, 150, 3)
    fake = fake[:140] * 1.5

    def figures() -> list[float]:
        return [
            metrics.frechet_distance(metrics.Moments.of(real), metrics.Moments.of(fake)),
            *metrics.precision_recall(real, fake),
            *metrics.density_coverage(real, fake),
        ]

    whole = figures()
    monkeypatch.setattr(metrics, "BLOCK", block)
    assert figures() == pytest.approx(whole, rel=1e-12)


# --- metrics


def test_equal_samples_have_perfect_figures(tmp_path):
    real = extract(Twice(), parts, 200, tmp_path / "real")
    far = extract(Twice(), lambda start: iter((POINTS[start:] + 100).split(64)), 200, tmp_path / "far")
    assert features.fid(real, real)["fid"] == pytest.approx(0, abs=1e-9)
    assert features.fid(real, far)["fid"] == pytest.approx(2 * 100**2 * (1 + 4))  # the means differ by (100, 200) twice
    assert features.precision_recall(real, real) == {"precision": 1, "recall": 1}
    assert features.precision_recall(real, far) == {"precision": 0, "recall": 0}
    assert features.density_coverage(real, far) == {"density": 0, "coverage": 0}
    assert features.density_coverage(real, real)["coverage"] == 1
    score = features.inception_score(real, far)
    assert score["inception_score_of_real"] == pytest.approx(metrics.inception_score(np.array(real.logits))[0])


def extracted(count: int, *, shift: float = 0.0, seed: int = 0, letter: str = "i") -> Extracted:
    """Normal features of two dimensions around `shift`."""
    rows = np.random.RandomState(seed).standard_normal((count, 2)) + shift
    return Extracted(rows.astype(np.float32), None, letter)


@pytest.fixture
def few_subsets(monkeypatch):
    monkeypatch.setattr(features, "SUBSETS", 10)


@pytest.mark.usefixtures("few_subsets")
def test_the_kernel_distance_of_two_normal_distributions_is_their_discrepancy():
    """The kernel is (x·y / 2 + 1)³; for unit variance, its mean is a polynomial of the means a and b of x and y."""
    real, fake = extracted(20_000), extracted(20_000, shift=1.0, seed=1, letter="v")

    def expected(a: np.ndarray, b: np.ndarray) -> float:
        mean, second = a @ b, (a @ b) ** 2 + a @ a + b @ b + 2  # E[x·y] and E[(x·y)²]
        third = (a @ b) ** 3 + 3 * (a @ b) * (a @ a + b @ b) + 3 * 2 * (a @ b) + 6 * (a @ b)  # E[(x·y)³]
        return third / 8 + 3 * second / 4 + 3 * mean / 2 + 1

    a, b = np.zeros(2), np.ones(2)
    figures = features.kid(real, fake)
    assert list(figures) == ["kvd", "kvd_std"]
    assert figures["kvd"] == pytest.approx(expected(a, a) + expected(b, b) - 2 * expected(a, b), rel=0.05)
    value, deviation = metrics.kernel_distance(real.features, fake.features, subsets=10, size=1000)
    assert (figures["kvd"], figures["kvd_std"]) == (value, deviation)
    assert abs(features.kid(real, extracted(20_000, seed=2))["kid"]) < 0.05


@pytest.mark.usefixtures("few_subsets")
def test_the_kernel_distance_has_no_deviation_if_a_subset_has_all_samples():
    assert list(features.kid(extracted(1000), extracted(1000, seed=1))) == ["kid"]
    assert list(features.kid(extracted(1000), extracted(1001, seed=1))) == ["kid", "kid_std"]
    assert list(features.kid(extracted(1001), extracted(1000, seed=1))) == ["kid", "kid_std"]


def test_the_settings_of_the_metrics_are_the_published_ones():
    assert (catalog.SUBSETS, catalog.SUBSET) == (100, 1000)  # torch-fidelity
    assert catalog.SPLITS == 10  # Salimans et al. 2016
    assert (catalog.NEIGHBOURS, catalog.DENSITY_NEIGHBOURS) == (3, 5)  # Kynkäänniemi et al. 2019, Naeem et al. 2020
    least = {card.name: card.least for card in FEATURE_METRICS}
    assert least == {"fid": 2, "kid": 1000, "inception_score": 50, "precision_recall": 4, "density_coverage": 6}


@pytest.mark.usefixtures("few_subsets")
@pytest.mark.parametrize("card", FEATURE_METRICS, ids=lambda card: card.name)
def test_the_least_number_of_samples_is_enough(card):
    def seen(seed: int) -> Extracted:
        rows = extracted(card.least, seed=seed).features
        return Extracted(rows, rows)

    figures = resolve(card.measure)(seen(0), seen(1))
    assert all(np.isfinite(value) for value in figures.values())


def test_figures_are_of_the_sets_in_their_places():
    """Fakes in a corner of the real points: precise, with little recall; and the other way round."""
    real = extracted(300)
    fake = Extracted(real.features[:30] * 0.1, None)
    forth, back = features.precision_recall(real, fake), features.precision_recall(fake, real)
    assert forth == {"precision": back["recall"], "recall": back["precision"]}
    assert forth["precision"] == 1 > 0.2 > forth["recall"]
    assert features.density_coverage(real, fake)["density"] > 1 > features.density_coverage(fake, real)["density"]


def test_extractors_are_built_once_for_each_request(monkeypatch):
    made = []
    module = ModuleType("test_extractors_module")
    module.make = lambda *given: made.append(given) or Twice(given[0])
    monkeypatch.setitem(sys.modules, "test_extractors_module", module)
    dataset, facts = TensorDataset({"points": POINTS}), {"colour": 1}
    every = Extractors(
        [ExtractorCard(name="twice", title="twice", origin="embedded", make="test_extractors_module:make")],
        dataset,
        facts,
        "points",
    )
    assert every("twice") is every("twice")
    assert every("twice", "x") is not every("twice")
    assert made == [(None, None, dataset, facts, "points"), ("x", None, dataset, facts, "points")]
    with pytest.raises(InputError, match=r"^unknown extractor `twise`; did you mean `twice`\?$"):
        every("twise")


def test_samples_of_another_shape_or_non_finite_values_are_refused():
    check_samples(POINTS, True, "points [B, 2]")
    with pytest.raises(InputError, match=r"^the samples have the shape \[200, 2\]; the extractor takes images$"):
        check_samples(POINTS, False, "images")
    for value in (torch.nan, torch.inf):
        with pytest.raises(
            InputError, match=r"^the samples have non-finite values; check the model that generated them$"
        ):
            check_samples(torch.tensor([0.0, value]), True, "numbers")


def test_every_card_names_the_function_of_its_name():
    assert [card.measure for card in FEATURE_METRICS] == [
        f"gan_core.measure.features:{card.name}" for card in FEATURE_METRICS
    ]
    assert all(card.extracts for card in FEATURE_METRICS)


# --- evaluate


@pytest.fixture
def train(toy, tmp_path):
    """Trains quietly, into a folder of its own."""

    def call(out="run", **options):
        options = {"steps": 2} | options if "changes" not in options else options
        return Toolkit(toy).train("plain", data="cloud", out=tmp_path / out, shown=False, **options)

    return call


@pytest.fixture
def seeing(toy, train):
    """A toy run, and a domain with the metrics of features and two extractors."""
    module = sys.modules["gan_toy.metrics"]
    module.METRICS = (*module.METRICS, *FEATURE_METRICS)
    module.EXTRACTORS = (
        ExtractorCard(
            name="blind",
            title="needs facts that no data have",
            origin="embedded",
            make="gan_toy.metrics:blind",
            needs=("colour",),
        ),
        ExtractorCard(name="twice", title="twice", origin="embedded", make="gan_toy.metrics:twice"),
        ExtractorCard(name="mute", title="gives no logits", origin="download", make="gan_toy.metrics:mute"),
    )
    module.made = []

    def twice(argument, weights, dataset, facts, key):
        module.made.append(Twice(argument))
        return module.made[-1]

    module.twice = twice
    module.mute = lambda argument, weights, dataset, facts, key: Twice(argument, judges=False)
    return train().path


def test_a_model_is_measured_by_features(seeing, toy):
    document = api.evaluate(seeing, data="cloud", count=100)
    assert list(document["metrics"]) == ["spread", "fid", "inception_score", "precision_recall", "density_coverage"]
    fake = Toolkit(toy).load(seeing).generate(100, seed=0)
    real = Toolkit(toy).open_data("cloud").fit(Spec()).tensors["points"]
    double = (torch.cat([x, 2 * x], dim=1).numpy() for x in (real, fake))
    expected = metrics.frechet_distance(*(metrics.Moments.of(x) for x in double))
    assert document["metrics"]["fid"]["fid"] == pytest.approx(expected, rel=1e-6)
    protocol = document["protocols"][document["protocol"]["fid"]]
    assert protocol["extractor"] == "twice:None"
    assert (protocol["samples"], protocol["real samples"], protocol["data"]) == (100, 64, "cloud")
    assert json.dumps(document)


def test_only_readable_real_samples_are_counted(seeing):
    class Damaged(TensorSource):
        def __len__(self):
            return 80  # of which 64 can be read

    points = {"points": torch.randn(64, 2), "label": torch.arange(64) % 3}
    documents = [
        api.evaluate(seeing, data=kind(points, name="points"), metrics=["fid"], count=100)
        for kind in (Damaged, TensorSource)
    ]
    assert documents[0] == documents[1]


def test_settings_that_change_a_figure_change_its_protocol(seeing):
    def of(**changes) -> str:
        return api.evaluate(seeing, data="cloud", metrics=["fid"], **({"count": 20} | changes))["protocol"]["fid"]

    ids = {of(), of(count=21), of(seed=1), of(extractor="twice:x"), of(extractor="mute:y")}
    assert len(ids) == 5
    assert of() in ids
    assert protocol_id({"a": 1, "b": 2}) == protocol_id({"b": 2, "a": 1})


def test_kept_features_are_used_again_for_the_same_model_only(seeing, train, tmp_path):
    made = sys.modules["gan_toy.metrics"].made
    other = train(out="other", seed=5).path
    keep = {"data": "cloud", "metrics": ["fid"], "count": 20, "keep": tmp_path / "kept"}
    first = api.evaluate(seeing, **keep)
    assert made[-1].rows == 40
    assert api.evaluate(seeing, **keep) == first
    assert made[-1].rows == 0
    assert api.evaluate(other, **keep)["metrics"] != first["metrics"]
    assert made[-1].rows == 20  # the real ones were stored
    assert api.evaluate(seeing, **keep | {"keep": None}) == first


def test_a_model_is_measured_against_tensors_too(seeing, toy):
    points = Toolkit(toy).open_data("cloud").fit(Spec()).tensors["points"]
    named, same, moved = (
        api.evaluate(seeing, data=data, count=50, metrics=["fid"])["metrics"]["fid"]["fid"]
        for data in ("cloud", {"points": points}, {"points": points + 1})
    )
    assert same == pytest.approx(named)
    assert moved != pytest.approx(named)


def measuring(toy) -> Evaluation:
    data = FittedData(Toolkit(toy).open_data("cloud"), Spec())
    return Evaluation(toy.metrics, data, Toolkit(toy).create("plain"), metrics=["fid"], count=20)


def test_features_of_games_are_removed(seeing, toy):
    evaluation = measuring(toy)
    first, second = Toolkit(toy).create("plain"), Toolkit(toy).load(seeing)
    figures = [evaluation.measure(game)[0] for game in (first, second, first)]
    assert figures[0] == figures[2] != figures[1]
    assert {file.name.partition("-")[0] for file in evaluation._folder.iterdir()} == {"real"}


def test_a_game_with_extra_state_is_measured(seeing, toy):
    game = Toolkit(toy).load(seeing)
    figures = measuring(toy).measure(game)
    game.get_extra_state = lambda: {"rate": 1.0}
    assert measuring(toy).measure(game) == figures


def test_requests_of_features_that_cannot_be_met(seeing):
    for arguments, words in (
        ({"extractor": "twise"}, "unknown extractor `twise`; did you mean `twice`?"),
        (
            {"extractor": "blind"},
            "the extractor `blind` needs data with colour, but cloud has none; choose another extractor",
        ),
        ({"metrics": ["kid"]}, "the metric `kid` needs 1,000 samples or more; 100 are generated"),
        ({"metrics": ["kid"], "count": 1000}, "the metric `kid` needs 1,000 samples or more; cloud has 64"),
        (
            {"metrics": ["spread"], "extractor": "twice"},
            "`--extractor` and `--weights` have no effect because no metric uses features; omit them",
        ),
        (
            {"metrics": ["inception_score"], "extractor": "mute"},
            "the metric `inception_score` needs logits, which the extractor twice does not return; choose another "
            "`--extractor`",
        ),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(words)}"):
            api.evaluate(seeing, data="cloud", **{"count": 100} | arguments)
    assert "inception_score" not in api.evaluate(seeing, data="cloud", count=100, extractor="mute")["metrics"]


# --- evaluations of a training


EVERY = {"evaluate_every": 2, "evaluate": 50, "metrics": ["fid", "spread"], "log_every": 2, "checkpoint_every": 3}


def test_a_training_is_measured_as_evaluate_measures_it(seeing, train):
    run = train(out="measured", **EVERY, changes={"train.steps": 5, "train.ema": 0.5})
    assert [line["step"] for line in run.evaluations()] == [2, 4, 5]
    assert [line["step"] for line in run.log()] == [2, 4, 5]
    last = run.evaluations()[-1]
    document = api.evaluate(run.path, data="cloud", count=50, metrics=["fid", "spread"])
    assert last["evaluation/fid"] == pytest.approx(document["metrics"]["fid"]["fid"])
    assert last["evaluation/std"] == pytest.approx(document["metrics"]["spread"]["std"])
    assert last["protocol/fid"] == document["protocol"]["fid"]
    assert "evaluation" in write_report(run.path).read_text().lower()


def test_measuring_changes_nothing_of_the_training(seeing, train):
    measured = train(out="measured", **EVERY, changes={"train.steps": 5})
    plain = train(out="plain", log_every=2, changes={"train.steps": 5})
    terms = [{k: v for k, v in line.items() if "/" in k} for line in measured.log()]
    assert terms == [{k: v for k, v in line.items() if "/" in k} for line in plain.log()]


def test_a_resumed_training_has_the_evaluations_of_one_that_was_not_interrupted(seeing, train):
    whole = train(out="whole", **EVERY, changes={"train.steps": 8})
    parts = train(out="parts", **EVERY, changes={"train.steps": 5})
    api.resume(parts.path, steps=8, shown=False)
    assert [line["step"] for line in parts.evaluations()] == [2, 4, 6, 8]
    assert parts.evaluations() == whole.evaluations()


def test_impossible_evaluations_are_refused_before_the_training(seeing, train, tmp_path):
    with pytest.raises(InputError, match="unknown metric `fit`; did you mean `fid`"):
        train(out="refused", evaluate_every=1, metrics=["fit"])
    assert not (tmp_path / "refused").exists()


def test_samples_in_parts_are_the_samples(toy, seeing):
    game, count = Toolkit(toy).load(seeing), 2 * BLOCK + 5
    whole = game.generate(count, seed=3)
    assert torch.equal(torch.cat(list(game.generated(count, seed=3))), whole)
    assert torch.equal(torch.cat(list(game.generated(count, seed=3, start=BLOCK))), whole[BLOCK:])
    assert not torch.equal(whole[:5], whole[BLOCK : BLOCK + 5])
