"""The public functions: create, train, resume, load, evaluate; and the requests that each refuses."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from torch import nn

from gan_core import api
from gan_core.api import Toolkit
from gan_core.data import TensorSource
from gan_core.domain import Domain
from gan_core.errors import CheckpointError, DataError, InputError, NonFiniteError, RecipeError
from gan_core.play.game import Game
from gan_core.play.player import Player
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import parse
from gan_core.runs.report import write_report
from gan_core.runs.run import Run

POINTS = {"points": torch.randn(32, 2, generator=torch.Generator().manual_seed(0))}


class Latent(nn.Linear):
    latent_dim = 3


def by_hand():
    torch.manual_seed(0)
    return TwoPlayerGame(Latent(3, 2), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)))


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def train(toy, tmp_path):
    """Trains quietly into a folder of its own; the default is the toy domain's `plain` on `cloud`."""

    def call(game="plain", out="run", **options):
        options = {"data": "cloud", "shown": False, **options}
        return Toolkit(toy).train(game, out=tmp_path / out, **options)

    return call


def refusal(kind, call, *arguments, **options):
    with pytest.raises(kind) as error:
        call(*arguments, **options)
    return str(error.value)


# --- train


def test_a_training_begins_with_what_was_read(train, capsys):
    train(shown=True)
    words = "cloud: 64 items; 3 classes: 0, 1, 2, not learnt (set `network.num_classes` to 3)"
    assert capsys.readouterr().err.splitlines()[0] == words
    train(out="another")
    assert not capsys.readouterr().err


def test_a_folder_with_the_name_of_a_dataset_is_named(train, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cloud").mkdir()
    train()
    assert caplog.messages == ["`cloud` is the named dataset; write ./cloud for the folder of this name"]


def test_a_system_by_name_leaves_a_complete_run(train, toy):
    run = train()
    assert [line["step"] for line in run.log()] == [3]
    assert {path.name for path in run.path.iterdir()} == {
        "recipe.yaml",
        "log.jsonl",
        "samples",
        "checkpoints",
        "model",
        "report.html",
    }
    assert run.recipe.data.source == "cloud"
    assert run.recipe.network == {"shape": [2], "latent_dim": 4, "width": 8, "slope": 0.1, "num_classes": None}
    assert same(Toolkit(toy).load(run.path), Toolkit(toy).load(run.model))


def test_the_recipe_of_a_run_gives_the_run_again(train, toy, tmp_path):
    run = train("critic", steps=4, ema=0.9, changes={"regularizers.gradient_penalty.weight": 3.0})
    again = api.train_recipe(api.open_recipe(run.recipe_file, toy), tmp_path / "again", shown=False)
    assert again.recipe == run.recipe
    assert same(Toolkit(toy).load(again.path), Toolkit(toy).load(run.path))


def test_a_run_depends_only_on_its_seed(train, toy):
    torch.manual_seed(1)
    first = train(out="a", seed=5)
    torch.manual_seed(2)
    second, third = train(out="b", seed=5), train(out="c", seed=6)
    assert same(Toolkit(toy).load(first.path), Toolkit(toy).load(second.path))
    assert not same(Toolkit(toy).load(first.path), Toolkit(toy).load(third.path))


def test_after_training_the_game_generates_with_the_averaged_weights(toy, tmp_path):
    game = Toolkit(toy).create("plain")
    run = Toolkit(toy).train(game, data="cloud", out=tmp_path / "run", ema=0.9, steps=5, shown=False)
    assert torch.equal(game.generate(4, seed=0), Toolkit(toy).load(run.path).generate(4, seed=0))
    assert not game.training
    assert all(parameter.requires_grad for parameter in game.parameters())


def test_data_may_be_tensors_a_source_or_a_data_set(toy, tmp_path):
    from gan_core.data import TensorDataset

    for number, data in enumerate((POINTS, TensorSource(POINTS), TensorDataset(POINTS))):
        run = Toolkit(toy).train(by_hand(), data=data, out=tmp_path / str(number), steps=1, batch_size=4, shown=False)
        assert run.recipe.data.source is None


def test_data_passed_as_tensors_are_not_named_in_the_recipe(train, toy, tmp_path):
    game = Toolkit(toy).load(train().path)
    assert game.recipe.data.source == "cloud"
    run = Toolkit(toy).train(game, data=POINTS, out=tmp_path / "other", shown=False)
    assert run.recipe.data.source is None
    assert refusal(DataError, api.resume, run.path, steps=9) == (
        "plain: the recipe does not name the data; pass them as `data`"
    )


def test_settings_of_every_kind_reach_the_recipe(train):
    run = train(
        steps=2,
        batch_size=8,
        preset="paper",
        changes={
            "optimizer.learning_rate": 0.1,
            "players.discriminator.turns": 2,
            "network.slope": 0.3,
            "objective": "wasserstein",
        },
    )
    recipe = run.recipe
    assert (recipe.train.steps, recipe.train.batch_size, recipe.preset) == (2, 8, "paper")
    assert (recipe.optimizer.learning_rate, recipe.players["discriminator"].turns) == (0.1, 2)
    assert (recipe.network["slope"], recipe.network["width"], recipe.objective) == (0.3, 32, "wasserstein")


def test_an_invalid_request_is_refused_and_writes_nothing(train, tmp_path):
    cases = {
        "unknown system `plian`; did you mean `plain`?": {"game": "plian"},
        "unknown preset of plain `papre`; did you mean `paper`?": {"preset": "papre"},
        "unknown training setting `step`; did you mean `steps`?": {"step": 3},
        "`train.steps` is 0; expected greater than or equal to 1": {"steps": 0},
        "unknown setting `network.widht`; did you mean `network.width`?": {"changes": {"network.widht": 3}},
        "unknown player of plain `critic`; known: discriminator, generator": {"changes": {"players.critic.turns": 3}},
        "unknown folder, archive or dataset `clod`; did you mean `cloud`?": {"data": "clod"},
        "no/where: no such folder or archive; the named datasets are cloud, plain-cloud": {"data": "no/where"},
        "plain-cloud has no labels, but the networks are conditioned on classes (`network.num_classes` is 3); give a "
        "folder with a sub-folder for each class (pairs: `Derived(…, labels=True)`); there must be two or more": {
            "data": "plain-cloud",
            "changes": {"network.num_classes": 3},
        },
        "cloud has 3 classes, but `network.num_classes` is 2; set it to 3": {"changes": {"network.num_classes": 2}},
        "`train.device` is cuda:99, which this machine lacks; use auto or cpu": {"device": "cuda:99"},
        "`train.precision` is fp16, which needs an accelerator; use bf16 or fp32": {"precision": "fp16"},
        "`preset` is paper, but the game is already built; pass the name of its system instead": {
            "game": by_hand(),
            "data": POINTS,
            "preset": "paper",
        },
    }
    for words, options in cases.items():
        assert refusal(InputError, train, **options) == words
    assert list(tmp_path.iterdir()) == []


def test_a_name_needs_a_domain(tmp_path):
    assert refusal(RecipeError, api.train, "plain", data=POINTS, out=tmp_path / "run") == (
        "`plain`: naming a system needs a domain; use the function of its package"
    )
    assert refusal(DataError, api.train, by_hand(), data="cloud", out=tmp_path / "run") == (
        "`cloud`: naming data needs a domain; use its package's `train`, or give tensors"
    )


def test_changes_cannot_rebuild_a_game(toy, tmp_path):
    words = (
        "`changes` has settings that a built game cannot change; pass them to `create`, or pass the name of its system"
    )
    for game in (Toolkit(toy).create("plain"), by_hand()):
        for changes in (
            {"objective": "wasserstein"},
            {"network.width": 3},
            {"regularizers.gradient_penalty.weight": 1},
        ):
            made = refusal(RecipeError, api.train, game, data=POINTS, out=tmp_path / "run", changes=changes)
            assert made == words


def test_players_of_a_game_by_hand_are_checked_too(tmp_path):
    words = refusal(
        RecipeError, api.train, by_hand(), data=POINTS, out=tmp_path / "run", changes={"players.critic.turns": 2}
    )
    assert words == "unknown player of TwoPlayerGame `critic`; known: discriminator, generator"


def test_a_folder_in_use_is_refused_before_the_data_are_read(train, toy):
    run = train()
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert refusal(InputError, train, data="nowhere") == (
        f"{run.path}: holds a run already; resume it, or choose another `--out`"
    )
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_invalid_networks_are_refused_before_the_data_are_read(toy, tmp_path, monkeypatch):
    recipe = toy.preset("plain").recipe(domain="toy", system="plain", preset="small").but({"data.source": "cloud"})

    class Unread(TensorSource):
        def fit(self, spec):
            raise AssertionError("read")

    with pytest.raises(RecipeError, match=r"expected less than or equal to 65536$"):
        api.train_recipe(recipe.but({"network.width": 10**6}), tmp_path / "run", source=Unread(POINTS))


# --- recipe files


def opened(toy, tmp_path, fields):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(fields))
    return api.open_recipe(file, toy)


def test_settings_missing_in_a_recipe_file_come_from_the_preset(toy, tmp_path):
    recipe = opened(toy, tmp_path, {"system": "critic", "train": {"steps": 9}})
    assert (recipe.objective, list(recipe.regularizers), recipe.players["discriminator"].turns) == (
        "wasserstein",
        ["gradient_penalty"],
        2,
    )
    assert (recipe.train.steps, recipe.train.batch_size) == (9, 4)
    assert (recipe.domain, recipe.preset, recipe.network["generator"]) == ("toy", "small", {"width": 16})
    assert opened(toy, tmp_path, {"system": "plain", "preset": "paper"}).network == {"width": 32}


def test_regularizers_in_a_recipe_file_replace_those_of_the_preset(toy, tmp_path):
    assert opened(toy, tmp_path, {"system": "critic", "regularizers": {}}).regularizers == {}
    one = {"gradient_penalty": {"weight": 2.0}}
    assert opened(toy, tmp_path, {"system": "plain", "regularizers": one}).regularizers == one


def test_a_recipe_file_changes_the_rules_of_one_adversary(toy, tmp_path):
    recipe = opened(toy, tmp_path, {"system": "critic", "adversaries": {"discriminator": {"objective": "hinge"}}})
    game = toy.preset("critic").build(recipe)
    assert game.discriminator.objective.name == "hinge"
    assert [r.name for r in game.discriminator.regularizers] == ["gradient_penalty"]
    again = toy.preset("critic").build(parse(recipe.model_dump()))
    assert again.discriminator.objective is game.discriminator.objective


def test_an_invalid_recipe_file_is_refused_with_its_path_and_the_problem(toy, tmp_path):
    file = tmp_path / "recipe.yaml"
    for fields, words in (
        ({"train": {}}, "`system` is missing; set it"),
        ({"system": "plian"}, "unknown system `plian`; did you mean `plain`?"),
        ({"system": "plain", "preset": "big"}, "unknown preset of plain `big`; known: paper, small"),
        ({"system": "plain", "trian": {"steps": 1}}, "unknown setting `trian`; did you mean `train`?"),
        ({"system": "plain", "domain": "audio"}, "is a recipe for gan-audio, not for gan-toy"),
    ):
        assert refusal(RecipeError, opened, toy, tmp_path, fields) == f"{file}: {words}"


# --- resume


def test_a_resumed_run_equals_an_uninterrupted_one(train, toy):
    straight = train("critic", out="a", steps=6, ema=0.9, checkpoint_every=2)
    half = train("critic", out="b", steps=4, ema=0.9, checkpoint_every=2)
    resumed = api.resume(half.path, steps=6, shown=False)
    assert resumed.recipe.train.steps == 6
    assert same(Toolkit(toy).load(resumed.path), Toolkit(toy).load(straight.path))
    assert [line["step"] for line in resumed.log()] == [6]


def test_a_run_by_hand_is_resumed_with_its_game_and_data(tmp_path):
    straight, half = by_hand(), by_hand()
    settings = {"data": POINTS, "batch_size": 4, "shown": False}
    api.train(straight, out=tmp_path / "a", steps=6, **settings)
    api.train(half, out=tmp_path / "b", steps=3, **settings)
    again = by_hand()
    api.resume(tmp_path / "b", steps=6, game=again, data=POINTS, shown=False)
    assert same(again, straight)
    assert refusal(RecipeError, api.resume, tmp_path / "b", steps=9) == (
        f"{tmp_path / 'b'}: has no `domain`; a game built by hand is trained from Python"
    )


def test_a_finished_run_is_refused_and_left_as_it_is(train):
    run = train(log_every=2)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert refusal(RecipeError, api.resume, run.path) == (
        f"{run.path}: is finished at step 3; give more steps to train on"
    )
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_run_that_cannot_be_resumed_is_refused_with_the_reason(train, toy, tmp_path):
    run = train()
    assert refusal(
        CheckpointError, Toolkit(Domain(name="image", title="", package="gan_image")).resume, run.path, steps=9
    ) == (f"{run.path}: is a system of gan-toy (plain), not of gan-image")
    for checkpoint in run.checkpoints():
        (checkpoint / "state.json").write_text(json.dumps({"state": {}, "sha256": "0"}))
    assert "damaged" in refusal(CheckpointError, api.resume, run.path, steps=9)
    for checkpoint in run.checkpoints():
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    words = f"{run.path}: has no checkpoint to resume from; start a new run"
    assert refusal(CheckpointError, api.resume, run.path, steps=9) == words
    assert refusal(CheckpointError, api.resume, tmp_path / "none") == f"{tmp_path / 'none'}: no such folder"


def test_a_run_is_resumed_with_other_settings(train, toy):
    run = train(steps=3, log_every=2, checkpoint_every=1, ema=None)
    changes = {"optimizer.learning_rate": 1e-4, "players.generator.turns": 2, "train.log_every": 5, "train.ema": 0.5}
    resumed = api.resume(run.path, steps=6, changes=changes, shown=False)
    assert Run.open(run.path).recipe == resumed.recipe == run.recipe.but(changes | {"train.steps": 6})
    assert [line["step"] for line in resumed.log()] == [2, 5, 6]  # what was logged by the old interval stays


def test_changed_optimizer_settings_take_effect_when_resumed(tmp_path):
    class Slope(Game):
        def __init__(self):
            super().__init__()
            self.generator = nn.Linear(1, 1, bias=False)
            nn.init.zeros_(self.generator.weight)

        def players(self):
            yield Player("generator", (self.generator,), lambda batch: {"slope": self.generator.weight.sum()})

        def sample(self, count):
            return self.generator(torch.ones(count, 1))

    sgd = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.5, "optimizer.momentum": 0.5}
    settings = {"data": POINTS, "batch_size": 4, "shown": False}
    api.train(Slope(), out=tmp_path / "run", steps=2, changes=sgd, **settings)  # 0 - 0.5 · 1 - 0.5 · 1.5
    game, changes = Slope(), {"optimizer.learning_rate": 0.25, "optimizer.momentum": 0.0}
    api.resume(tmp_path / "run", steps=4, game=game, data=POINTS, changes=changes, shown=False)
    assert game.generator.weight.item() == -1.25 - 2 * 0.25


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network.width": 9}, "`network.width` cannot change when a run is resumed; start a new run from {}"),
        ({"network": {"width": 9}}, "`network` cannot change when a run is resumed; start a new run from {}"),
        (
            {"data.source": "plain-cloud"},
            "`data.source` cannot change; if the data have moved, give their new place as `data`",
        ),
        ({"optimizer.epsilo": 1}, "unknown setting `optimizer.epsilo`; did you mean `optimizer.epsilon`?"),
        ({"players.genrator.turns": 2}, "unknown player of plain `genrator`; did you mean `generator`?"),
        ({"train.steps": 0}, "`train.steps` is 0; expected greater than or equal to 1"),
    ],
)
def test_only_training_settings_can_change_when_resumed(train, changes, words):
    run = train(steps=2)
    before = run.recipe_file.read_text()
    assert refusal(RecipeError, api.resume, run.path, changes=changes) == words.format(run.recipe_file)
    assert run.recipe_file.read_text() == before


def test_an_optimizer_of_another_kind_is_refused(train):
    run = train(steps=2)
    changes = {"players.generator.optimizer": {"name": "sgd", "learning_rate": 0.1}}
    assert refusal(RecipeError, api.resume, run.path, steps=4, changes=changes) == (
        f"{run.path}: the saved optimizer state of `generator` is for adam; keep its `name`, or start a new run "
        "with sgd"
    )


def test_the_error_after_a_rollback_names_settings_to_continue_with(train):
    wild = {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "step", "every": 1, "factor": 1e30}}
    changes = {"players.discriminator.optimizer": wild}
    message = refusal(NonFiniteError, train, steps=9, log_every=1, checkpoint_every=1, changes=changes)
    assert re.search(r"; rolled back to step [12]; continue with gan-toy resume ", message)
    assert message.endswith(
        " --set players.discriminator.optimizer.learning_rate=0.05 --set optimizer.learning_rate=0.0005, or with "
        "--set optimizer.clip_norm=1"
    )


# --- one owner


def test_a_run_that_is_being_trained_is_neither_resumed_nor_replaced(train, toy, tmp_path):
    run = train(steps=2)
    unfinished = Run.create(tmp_path / "unfinished", run.recipe)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for busy, call in (
        (run, lambda: api.resume(run.path, steps=5, shown=False)),
        (run, train),
        (unfinished, lambda: train(out="unfinished", data="nowhere")),  # before the data are opened
    ):
        with busy.owned():
            words = refusal(InputError, call)
        assert words.startswith(f"{busy.path}: is being trained by process {os.getpid()} on ")
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    with run.owned():
        assert write_report(run.path) == run.report_file
        assert same(Toolkit(toy).load(run.path), Toolkit(toy).load(run.model))
    assert api.resume(run.path, steps=5, shown=False).log()[-1]["step"] == 5


class Failing(TwoPlayerGame):
    """Fails in the first step."""

    def generator_loss(self, batch):
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("exists", [False, True])
def test_a_first_step_that_fails_leaves_nothing_behind(tmp_path, exists):
    game = Failing(Latent(3, 2), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)))
    out = tmp_path / "runs" / "a"
    if exists:
        out.mkdir(parents=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        api.train(game, data=POINTS, out=out, batch_size=4, steps=2, shown=False)
    assert list(tmp_path.rglob("*")) == ([out.parent, out] if exists else [])


def test_a_training_that_was_killed_before_its_first_checkpoint_is_begun_again(train, caplog):
    run = train(steps=4, log_every=1, sample_every=1)
    for path in (*run.checkpoints(), run.model):
        shutil.rmtree(path)
    run.report_file.unlink()
    assert refusal(CheckpointError, api.resume, run.path).endswith("has no checkpoint to resume from; start a new run")
    again = train(steps=3, log_every=1)
    assert [line["step"] for line in again.log()] == [1, 2, 3]
    assert [path.stem for path in again.samples()] == ["00000003"]
    assert caplog.messages == [f"{run.path}: an earlier run ended before its first checkpoint; it is replaced"]


# --- the place of the data


@pytest.fixture
def folder(toy, tmp_path, monkeypatch):
    """A folder of points; the toy domain opens such folders, with the sub-folders of `classes.json` as classes."""

    def open_folder(path, *, strict=False, part=None):
        place = Path(path) / (part or "")
        if not (place / "classes.json").is_file():
            raise DataError(f"{place}: no points")
        classes = json.loads((place / "classes.json").read_text())
        return TensorSource({**POINTS, "label": torch.arange(32) % len(classes)}, name=str(place), classes=classes)

    monkeypatch.setattr(sys.modules["gan_toy.data"], "open_folder", open_folder)
    monkeypatch.chdir(tmp_path)
    for place in ("points", "points/part"):
        Path(place).mkdir()
        Path(place, "classes.json").write_text('["a", "b", "c"]')
    return tmp_path / "points"


@pytest.mark.parametrize(
    ("given", "found"), [("points", ""), ("./points/", ""), ("points:part", ":part"), ("~/points", "")]
)
def test_data_given_by_a_relative_path_are_found_from_anywhere(train, folder, monkeypatch, given, found):
    monkeypatch.setenv("HOME", str(folder.parent))
    run = train(data=given)
    assert run.recipe.data.source == f"{folder}{found}"
    (folder.parent / "elsewhere").mkdir()
    monkeypatch.chdir(folder.parent / "elsewhere")
    assert api.resume(run.path, steps=5, shown=False).log()[-1]["step"] == 5
    assert str(folder) not in (run.model / "config.json").read_text() + (run.model / "README.md").read_text()
    assert str(folder.parent) not in run.report_file.read_text()


def test_a_built_game_and_a_recipe_file_record_an_absolute_path_too(toy, folder, tmp_path):
    run = Toolkit(toy).train(Toolkit(toy).create("plain"), data="points", out=tmp_path / "a", shown=False)
    assert run.recipe.data.source == str(folder)
    recipe = run.recipe.but({"data.source": "~/points" if Path.home() == tmp_path else "points"})
    assert api.train_recipe(recipe, tmp_path / "b", shown=False).recipe.data.source == str(folder)


def test_names_of_datasets_are_recorded_as_they_are(train, folder):
    Path("cloud").mkdir()
    assert train(data="cloud").recipe.data.source == "cloud"


def test_data_that_have_moved_are_given_again(train, folder):
    run = train(data="points", changes={"network.num_classes": 3})
    folder.rename(folder.with_name("moved"))
    assert refusal(DataError, api.resume, run.path, steps=5) == (
        f"{run.path}: its data cannot be opened; if they have moved, resume with `--data PATH` (in Python, `data`). "
        f"{folder}: no such folder or archive; the named datasets are cloud, plain-cloud"
    )
    resumed = api.resume(run.path, steps=5, data="moved", shown=False)
    assert resumed.recipe.data.source == str(folder.with_name("moved"))
    assert api.resume(run.path, steps=6, shown=False).log()[-1]["step"] == 6


def test_other_data_than_those_of_the_run_are_refused(train, folder):
    run = train(data="points", changes={"network.num_classes": 3})
    before = run.recipe_file.read_text()
    for classes, words in (
        (["a", "c", "b"], f"points has the classes a, c, b, and {run.path} was trained on a, b, c; give the same data"),
        (["x", "y", "z"], f"points has the classes x, y, z, and {run.path} was trained on a, b, c; give the same data"),
        (["a", "b"], f"points has the classes a, b, and {run.path} was trained on a, b, c; give the same data"),
    ):
        (folder / "classes.json").write_text(json.dumps(classes))
        assert refusal(DataError, api.resume, run.path, steps=5, data="points") == words
    assert refusal(DataError, api.resume, run.path, steps=5, data="plain-cloud") == (
        f"plain-cloud has no classes, and {run.path} was trained on a, b, c; give the same data"
    )
    assert refusal(DataError, api.resume, run.path, steps=5, data={"source": "points", "target": "points"}) == (
        f"{run.path}: was trained on one place, and `data` gives source, target; give the same parts"
    )
    assert run.recipe_file.read_text() == before


# --- evaluate


def test_a_model_is_evaluated_with_the_metrics_that_fit(train, toy):
    run = train()
    result = api.evaluate(run.path, data="cloud", count=50, seed=3)
    assert (result["samples"], result["seed"], list(result["metrics"])) == (50, 3, ["spread"])
    samples = Toolkit(toy).load(run.path).generate(50, seed=3)
    assert result["metrics"]["spread"]["std"] == pytest.approx(samples.std().item())
    labelled = train(out="labelled", changes={"network.num_classes": 3})
    assert list(api.evaluate(labelled.path, data="cloud", count=5)["metrics"]) == ["spread", "shares"]


def test_the_figures_of_a_run_are_added_to_its_report(train, toy, tmp_path, caplog):
    run = train()
    result = api.evaluate(run.path, data="cloud", count=50, seed=3)
    (line,) = (json.loads(line) for line in (run.path / "evaluations.jsonl").read_text().splitlines())
    assert line == {"step": 3, **{key: value for key, value in result.items() if key != "model"}}
    assert result["protocol"]["spread"] in run.report_file.read_text()
    before = sorted(tmp_path.rglob("*"))
    api.evaluate(run.model, data="cloud", count=50)  # a model folder is left as it is
    Toolkit(toy).evaluate(Toolkit(toy).load(run.path), data="cloud", count=50)
    assert sorted(tmp_path.rglob("*")) == before
    assert not caplog.messages


def test_an_evaluation_of_a_run_that_cannot_be_written_has_its_result(train, caplog):
    run = train()
    (run.path / "evaluations.jsonl").mkdir()
    assert api.evaluate(run.path, data="cloud", count=50)["metrics"]["spread"]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("the figures are not added to the run's report: ")


def test_a_metric_that_does_not_fit_is_refused_with_the_reason(train):
    run, labelled = train(), train(out="labelled", changes={"network.num_classes": 3})
    for path, data, metrics, words in (
        (run.path, "cloud", ["spred"], "unknown metric `spred`; did you mean `spread`?"),
        (run.path, "plain-cloud", ["shares"], "the metric `shares` needs data with num_classes; plain-cloud has none"),
        (
            run.path,
            "cloud",
            ["shares"],
            "the metric `shares` needs a model conditioned on the class; set `network.num_classes`",
        ),
        (
            labelled.path,
            "plain-cloud",
            None,
            "plain-cloud has no labels, but the networks are conditioned on classes (`network.num_classes` is 3); give "
            "a folder with a sub-folder for each class (pairs: `Derived(…, labels=True)`); there must be two or more",
        ),
    ):
        assert refusal(InputError, api.evaluate, path, data=data, metrics=metrics, count=4) == words


def test_a_model_that_no_metric_fits_is_refused(train, toy):
    import sys

    run, metrics = train(), sys.modules["gan_toy.metrics"]
    metrics.METRICS = metrics.METRICS[1:]
    assert refusal(InputError, api.evaluate, run.path, data="cloud", count=4) == (
        "no metric fits: `shares` needs a model conditioned on the class; set `network.num_classes`"
    )


def test_a_game_is_evaluated_directly(toy, tmp_path):
    game = Toolkit(toy).create("plain")
    run = Toolkit(toy).train(game, data="cloud", out=tmp_path / "run", shown=False)
    figures, again = (
        Toolkit(toy).evaluate(game, data="cloud", count=50),
        Toolkit(toy).evaluate(run.path, data="cloud", count=50),
    )
    assert (figures["model"], figures["metrics"]) == ("plain", again["metrics"])
    own = TwoPlayerGame(game.generator, game.discriminator.network)
    assert Toolkit(toy).evaluate(own, data="cloud", count=50)["metrics"] == again["metrics"]
    with pytest.raises(InputError, match="measuring TwoPlayerGame needs a domain's metrics; use its package's"):
        api.evaluate(own, data={"points": torch.zeros(8, 2)})


def test_a_game_trained_again_starts_from_its_own_weights(toy, tmp_path):
    first = Toolkit(toy).train("plain", data="cloud", out=tmp_path / "first", shown=False)
    game = Toolkit(toy).create("plain")
    Toolkit(toy).train(game, data="cloud", out=tmp_path / "second", start={"generator": first.path}, shown=False)
    weight = game.generator.out.weight.detach().clone()
    third = Toolkit(toy).train(
        game,
        data="cloud",
        out=tmp_path / "third",
        steps=1,
        shown=False,
        changes={"optimizer.name": "sgd", "optimizer.learning_rate": 1e-30},
    )
    assert torch.equal(game.generator.out.weight, weight)
    assert third.recipe.start == {}


class Coloured(Game):
    """A game of one's own that transforms points by their class."""

    num_classes = 3
    reads = ("points", "label")
    results: ClassVar = {"moved": "points"}

    def __init__(self):
        super().__init__()
        self.generator = nn.Embedding(3, 2)

    def players(self):
        yield Player("generator", (self.generator,), lambda b: {"far": self.apply(b)["moved"].square().mean()})

    def apply(self, batch):
        return {"moved": batch["points"] + self.generator(batch["label"])}


def test_a_class_attribute_makes_a_custom_game_class_conditional(toy, tmp_path):
    game, data = (
        Coloured(),
        TensorSource({"points": torch.randn(9, 2), "label": torch.arange(9) % 3}, classes=["a", "b", "c"]),
    )
    run = Toolkit(toy).train(game, data=data, out=tmp_path / "run", steps=1, batch_size=4, device="cpu", shown=False)
    assert run.recipe.data.classes == ("a", "b", "c")
    assert game.conditions["label"].names == ("a", "b", "c")
    with pytest.raises(RecipeError, match=r"Coloured cannot generate samples without input; use `game.apply"):
        game.generate(4)
    card = (run.model / "README.md").read_text()
    assert "# Coloured\n" in card
    assert 'game = Coloured(…).restore("path/or/repository")  # built as for training' in card
    assert 'moved = game.apply({"points": points})["moved"]' in card
    with pytest.raises(RecipeError, match=r"`start` is 'runs/a'; give it by network: {'generator': 'runs/a'}"):
        Toolkit(toy).train(game, data=data, out=tmp_path / "other", start="runs/a", shown=False)


def test_a_custom_game_has_the_names_of_its_classes_after_training(toy, tmp_path):
    made = Toolkit(toy).create("plain", num_classes=3)
    game = TwoPlayerGame(made.generator, made.discriminator.network)
    run = Toolkit(toy).train(
        game,
        data=TensorSource({"points": torch.randn(8, 2), "label": torch.arange(8) % 3}, classes=["a", "b", "c"]),
        out=tmp_path / "run",
        steps=2,
        shown=False,
    )
    again = TwoPlayerGame(made.generator, made.discriminator.network).restore(run.model)
    for each in (game, again):
        assert torch.equal(each.generate(2, seed=0, label="c"), each.generate(2, seed=0, label=2))


# --- create


def test_a_game_is_created_with_changes_to_its_recipe(toy):
    changes = {"objective": "hinge", "regularizers": ["r1", "gradient_penalty"], "network.slope": 0.3}
    game = Toolkit(toy).create("plain", changes=changes, width=6)
    assert game.discriminator.objective.name == "hinge"
    assert {r.name for r in game.discriminator.regularizers} == {"r1", "gradient_penalty"}
    assert (game.recipe.network["width"], game.recipe.network["slope"]) == (6, 0.3)
    assert (game.recipe.domain, game.recipe.system, game.recipe.preset) == ("toy", "plain", "small")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"objective": "hinge"},
            "`objective` is not a setting of the networks; use `create('plain', changes={'objective': 'hinge'})`",
        ),
        (
            {"regularizers": ["r1"]},
            "`regularizers` is not a setting of the networks; use `create('plain', changes={'regularizers': ['r1']})`",
        ),
        ({"steps": 3}, "`steps` is a training setting; give it to `train`"),
        ({"widht": 3}, "unknown setting `network.widht`; did you mean `network.width`?"),
        ({"changes": {"objective": "hing"}}, "unknown objective `hing`; did you mean `hinge`?"),
        ({"changes": {"batch_size": 8}}, "unknown setting `batch_size`; did you mean `train.batch_size`?"),
    ],
)
def test_a_setting_in_the_wrong_place_is_refused_with_the_right_one(toy, settings, words):
    assert refusal(RecipeError, Toolkit(toy).create, "plain", **settings) == words


def test_settings_of_the_recipe_are_not_training_settings(train):
    words = "`objective` is not a training setting; use `changes={'objective': 'hinge'}`"
    assert refusal(RecipeError, train, objective="hinge") == words


def test_only_games_and_names_of_systems_are_trained(train):
    assert refusal(RecipeError, train, 3) == "`game` has the type int; pass a `Game`, or the name of a system"


def test_functions_without_a_domain_name_the_package(toy):
    for call in (lambda: Toolkit().create("plain"), lambda: Toolkit().load_reference("plain/generator", {})):
        assert refusal(RecipeError, call).endswith("needs a domain; use the function of its package")


# --- in a notebook


def test_a_run_is_shown_as_a_table(train, tmp_path):
    run = train()
    assert repr(run) == f"Run({str(tmp_path / 'run')!r})"
    for words in ("<td>plain</td>", "<td>small</td>", "<td>3 of 3</td>", "report.html</td>", "00000003.txt</td>"):
        assert words in run._repr_html_()
    assert Run(tmp_path / "<none>")._repr_html_().count("<tr>") == 1


def test_a_source_is_shown_with_its_facts(toy):
    source = Toolkit(toy).open_data("cloud")
    assert repr(source) == "<TensorSource 'cloud': 64 items, channels=2, num_classes=3>"
    assert "<td>64</td>" in source._repr_html_()
    named = TensorSource({"points": torch.zeros(2, 2), "label": torch.arange(2)}, classes=["<a>", "b"])
    assert "<td>&lt;a&gt;, b</td>" in named._repr_html_()


def test_the_figures_of_an_evaluation_are_shown_as_a_table(train, toy):
    figures = Toolkit(toy).evaluate(train().path, data="cloud", count=8, metrics="spread")
    assert str(figures).startswith("spread  std  ")
    assert "<td>std</td>" in figures._repr_html_()
