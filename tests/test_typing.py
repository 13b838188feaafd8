"""Types of the public names: mypy sees them, accepts their correct use, and rejects every wrong use."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import get_type_hints

import pytest

from gan_core.recipe import TrainOptions, TrainSettings

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "shared" / "gan-core" / "src", *sorted((ROOT / "packages").glob("*/src"))]
DOMAINS = sorted(point.value.partition(":")[0] for point in entry_points(group="gan.domains"))
WITH_SYSTEMS = [name for name in DOMAINS if importlib.import_module(name).DOMAIN.cards]
OFFERS = ["create", "evaluate", "load", "load_reference", "open_data", "resume", "train"]

SETTINGS = """
steps=10, epochs=None, samples=None, minutes=2.5, batch_size=4, accumulate=1, seed=0, ema=0.9, precision="bf16",
compile=False, device="cpu", log_every=1, sample_every=None, evaluate_every=None, metrics=["fid"], evaluate=10,
checkpoint_every=5, keep_checkpoints=1, show=4, trackers=["tensorboard"],
"""

RIGHT_OF_A_DOMAIN = f"""
import torch
import {{name}}
from gan_core import Domain, Game, Recipe, Run, Source
from gan_core.domain import Datasets, Media, References, Tasks
from gan_core.cards import Metrics

game: Game = {{name}}.create("dcgan", preset="paper", changes={{{{"objective": "hinge"}}}}, image_size=32)
run: Run = {{name}}.train(
    game, data="digits", out="x", start={{{{"generator": "runs/a"}}}}, changes={{{{"train.steps": 3}}}}, shown=False,
    {SETTINGS}
)
run = {{name}}.train("dcgan", data={{{{"source": "a", "target": "b"}}}}, out="x", preset="paper")
run = {{name}}.train(game, data={{{{"image": torch.zeros(4, 1, 8, 8)}}}}, out="x", regime=None)
run = {{name}}.resume("x", steps=3, samples=3, minutes=1.5, changes={{{{"train.seed": 1}}}}, game=game, data="a")
game = {{name}}.load("x")
figures: dict[str, object] = dict({{name}}.evaluate(game, data="a", metrics=["fid"], count=3, seed=1, extractor="a"))
source: Source = {{name}}.open_data("digits", strict=True, paired=False)
network: torch.nn.Module = {{name}}.load_reference("a/b", {{{{"w": torch.zeros(1)}}}}, nz=3)
domain: Domain = {{name}}.DOMAIN
recipe: Recipe = domain.recipe("dcgan", "paper")
metrics: Metrics = domain.metrics
"""

FACES_OF_A_DOMAIN = """
import {name}.data, {name}.media, {name}.metrics, {name}.reference, {name}.tasks

data_module: Datasets = {name}.data
media_module: Media = {name}.media
metrics_module: Metrics = {name}.metrics
reference_module: References = {name}.reference
tasks_module: Tasks = {name}.tasks
"""

WRONG_OF_A_DOMAIN = """
{name}.create(3)
{name}.create("dcgan", preset=3)
{name}.create("dcgan", changes=["hinge"])
{name}.train("dcgan", data="digits", out="x", stepz=3)
{name}.train("dcgan", data="digits", out="x", steps="many")
{name}.train("dcgan", data="digits", out="x", precision="fp64")
{name}.train("dcgan", data=3, out="x")
{name}.train("dcgan", data="digits")
{name}.train("dcgan", data="digits", out="x", start="runs/a")
{name}.resume("x", stepz=3)
{name}.resume("x", batch_size=3)
{name}.load(3)
{name}.load("x").generate("many")
{name}.evaluate("x")
{name}.evaluate("x", data="digits", metrics=3)
{name}.open_data(3)
{name}.open_data("digits", strict="yes")
{name}.load_reference("dcgan/generator")
{name}.DOMAIN.cards[0].nmae
{name}.DOMAIN.data.DATASET
{name}.nothing
"""

RIGHT_OF_CORE = f"""
import torch
import gan_core

toolkit = gan_core.Toolkit(None)
made: gan_core.Run = gan_core.train(toolkit.load("x"), data={{"points": torch.zeros(4, 2)}}, out="x", {SETTINGS})
made = gan_core.resume("x", steps=3)
mine: gan_core.Game = gan_core.load("x", preset=None)
found: dict[str, object] = dict(gan_core.evaluate("x", data="a"))
card = gan_core.Card(name="a", title="A", year=2014, task="t", paper="p", module="m", data="d")
datasets = gan_core.DataCard(name="a", title="A", items="3", origin="embedded", load="m:f", parts=("train",))
spec: gan_core.Spec = gan_core.ImageSpec(image_size=32, channels=1)
arrays: gan_core.Spec = gan_core.ArraySpec()
points: gan_core.Source = gan_core.TensorSource({{"image": torch.zeros(4, 1, 8, 8)}}, classes=["a"])
pairs: gan_core.Source = gan_core.Paired(source=points, target=points)
sets: gan_core.Source = gan_core.Unpaired(a=points, b=points)
lines: gan_core.Source = gan_core.Derived(points, lambda image, numbers: image)
program = gan_core.Domain(name="a", title="A", package="gan_a", cards=(card,))
net = torch.nn.Linear(2, 1)
two: gan_core.Game = gan_core.TwoPlayerGame(net, net, objective="hinge", regularizers=["r1"])
judge = gan_core.Adversary(net, objective="hinge", regularizers=[gan_core.GradientPenalty(weight=1.0)])
phase = gan_core.Phase(name="first", share=0.5)
player = gan_core.Player("a", (net,), lambda batch: {{"b": torch.zeros(())}}, optimizer=gan_core.Adam(), turns=2)
optimizers = [gan_core.SGD(momentum=0.5), gan_core.RMSprop(learning_rate=0.1)]
preset = gan_core.Preset(gan_core.TwoPlayerGame, {{"generator": torch.nn.Identity}}, regularizers=["r1"])
pool = gan_core.ReplayPool(50)
recipe = gan_core.Recipe(system="a").but({{"train.steps": 3}})
width: gan_core.Size = 3
objective: gan_core.Objective | None = None
regularizer: gan_core.Regularizer | None = None
regime: gan_core.Regime | None = None
error: Exception = gan_core.GanError("a")
version: str = gan_core.__version__
"""

WRONG_OF_CORE = """
gan_core.Toolkit("image")
gan_core.train("x", data="y", out="z", stepz=3)
gan_core.resume("x", stepz=3)
gan_core.load("x", presett=None)
gan_core.evaluate("x")
gan_core.Card("a", "A", 2014, "t", "p", "m", "d")
gan_core.DataCard(name="a", title="A", items="3", origin="web", load="m:f")
gan_core.ImageSpec(image_size="large")
gan_core.ArraySpec(shape="a")
gan_core.Spec().nothing
gan_core.Source()
gan_core.TensorSource(3)
gan_core.Paired(source=3)
gan_core.Unpaired(a=3)
gan_core.Derived("a")
gan_core.Domain(name="a")
gan_core.TwoPlayerGame(net, net, objective=3)
gan_core.Adversary(net, objective=3)
gan_core.GradientPenalty(weight="a")
gan_core.Phase(shares=0.5)
gan_core.Player("a")
gan_core.Adam(learning_rate="fast")
gan_core.SGD(nesterov=True)
gan_core.RMSprop(alpha=0.5)
gan_core.Preset(net)
gan_core.ReplayPool("large")
gan_core.Recipe()
gan_core.Run()
gan_core.Game().generate("many")
gan_core.Objective()
gan_core.Regularizer().nothing
gan_core.Regime().player(3)
gan_core.GanError("a").nothing
gan_core.nothing
width_error: gan_core.Size = "a"
version_error: int = gan_core.__version__
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Reports of one run of mypy --strict on the generated files, by file name."""
    folder = tmp_path_factory.mktemp("typed")
    files = {
        "right_core.py": RIGHT_OF_CORE,
        "wrong_core.py": "import torch\nimport gan_core\n\nnet = torch.nn.Linear(2, 1)\n" + WRONG_OF_CORE,
    }
    for name in DOMAINS:
        faces = FACES_OF_A_DOMAIN if name in WITH_SYSTEMS else ""
        files[f"right_{name}.py"] = (RIGHT_OF_A_DOMAIN + faces).format(name=name)
        files[f"wrong_{name}.py"] = f"import {name}\n" + WRONG_OF_A_DOMAIN.format(name=name)
    names = public_names()
    files["revealed.py"] = "".join(f"import {module}\n" for module in names) + "".join(
        f"reveal_type({module}.{name})\n" for module, found in names.items() for name in found
    )
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", *(folder / file for file in files)],
        cwd=ROOT,
        env=os.environ | {"MYPYPATH": os.pathsep.join(map(str, SOURCES))},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    lines = [line for line in done.stdout.splitlines() if str(folder.name) in line]
    return {file: "\n".join(line for line in lines if f"{file}:" in line) for file in files} | {
        f"text of {file}": text for file, text in files.items()
    }


def public_names() -> dict[str, list[str]]:
    """Returns the public names of every package, without constants of modules."""
    return {name: sorted(importlib.import_module(name).__all__) for name in ["gan_core", *DOMAINS]}


def lines_with_errors(report: str) -> set[int]:
    return {int(line.split(":")[1]) for line in report.splitlines() if ": error:" in line}


@pytest.mark.parametrize("name", ["core", *DOMAINS])
def test_correct_use_is_accepted(reports, name):
    assert reports[f"right_{name}.py"].splitlines() == []


@pytest.mark.parametrize("name", ["core", *DOMAINS])
def test_every_wrong_use_is_an_error(reports, name):
    file = f"wrong_{name}.py"
    text = reports[f"text of {file}"]
    kinds = ast.Import, ast.ImportFrom
    lines = {node.lineno: ast.unparse(node) for node in ast.parse(text).body if not isinstance(node, kinds)}
    missed = lines.keys() - lines_with_errors(reports[file])
    assert [lines[line] for line in sorted(missed) if not lines[line].startswith("net =")] == []


def test_no_public_name_is_any(reports):
    revealed = [line for line in reports["revealed.py"].splitlines() if "Revealed type" in line]
    assert len(revealed) == sum(map(len, public_names().values()))
    assert [line for line in revealed if 'is "Any"' in line] == []


@pytest.mark.parametrize("name", DOMAINS)
def test_a_package_lists_its_public_names(name):
    package = importlib.import_module(name)
    assert {*OFFERS, "DOMAIN"} <= set(dir(package))
    for each in dir(package):
        assert getattr(package, each) is not None
    with pytest.raises(AttributeError, match=r"^No gan_\w+ attribute nothing$"):
        _ = package.nothing


def test_the_options_of_train_are_the_training_settings():
    assert list(get_type_hints(TrainOptions)) == list(TrainSettings.model_fields)
