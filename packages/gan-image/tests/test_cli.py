"""The command line of `gan-image`: the output of each command, and the messages for wrong requests.

A wrong request prints one line on standard error, has exit status 2, and writes nothing. Commands run in this process
unless the process itself is tested.
"""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import gan_image
from gan_core.cli import main
from gan_core.data.pictures import SUFFIXES
from gan_core.domain import Domain
from gan_core.measure import image_classifier
from gan_core.runs.run import Run
from gan_core.testing.onnx import run_onnx
from gan_image import DOMAIN

Call = Callable[..., tuple[int, str, str]]

SETTINGS = [
    "--set",
    "network.image_size=16",
    "--set",
    "network.width=4",
    "--set",
    "network.latent_dim=4",
    "--set",
    "train.show=4",
]
SMALL = [*SETTINGS, "--device", "cpu", "--batch-size", "4"]
TRAIN = ["train", "dcgan", "--out", "new", "--steps", "1", *SMALL]
LOOKED_FOR = f"looked for {', '.join(SUFFIXES)})"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Uses one thread: a second one makes such small networks slower on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Runs `gan-image WORDS…` in an empty folder and returns the exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, domain: Domain | None = DOMAIN) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gan-image", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main(domain)
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return call


@pytest.fixture
def refused(gan: Call, tmp_path: Path) -> Callable[..., str]:
    """Runs a wrong request, checks that it fails with one line and writes nothing, and returns the message."""

    def call(*words: object) -> str:
        before = contents(tmp_path)
        status, out, err = gan(*words)
        assert (status, out) == (2, ""), err
        assert err.count("\n") == 1, err
        assert contents(tmp_path) == before
        return err.removeprefix("gan-image: ").removesuffix("\n")

    return call


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def in_folder(folder: Path, *words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["gan-image", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main(DOMAIN)
    assert end.value.code == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns a folder with three runs: `plain` and `labelled` (10 classes) of dcgan, `points` of gan on the ring."""
    folder = tmp_path_factory.mktemp("trained")
    every = [word for name in ("log", "sample", "checkpoint") for word in ("--set", f"train.{name}_every=2")]
    in_folder(folder, "train", "dcgan", "--out", "plain", "--steps", 4, *SMALL, *every)
    in_folder(folder, "train", "dcgan", "--out", "labelled", "--steps", 2, *SMALL, "--set", "network.num_classes=10")
    in_folder(
        folder,
        "train",
        "gan",
        "--out",
        "points",
        "--data",
        "ring",
        "--steps",
        2,
        "--batch-size",
        8,
        "--set",
        "network.width=4",
    )
    return folder


# --- wrong requests: settings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set train.stepz=3", "unknown setting `train.stepz`; did you mean `train.steps`?"),
        ("--set trian.steps=3", "unknown setting `trian`; did you mean `train`?"),
        ("--set network.widht=3", "unknown setting `network.widht`; did you mean `network.width`?"),
        (
            "--set network.generator.widht=3",
            "unknown setting `network.generator.widht`; did you mean `network.generator.width`?",
        ),
        ("--set network.width=0", "`network.width` is 0; expected greater than or equal to 1"),
        ("--set network.width=wide", "`network.width` is 'wide'; expected a whole number"),
        ("--set network.image_size=15", "`image_size` is 15; expected 16, 32, 64, 128 … Try 16."),
        ("--set network.image_size=1000000", "`network.image_size` is 1000000; expected less than or equal to 65536"),
        ("--set network.generator=3", "`network.generator` is 3; expected a mapping of settings"),
        ("--set network.norm=bacth", "unknown norm `bacth`; did you mean `batch`?"),
        ("--set objective=wassersten", "unknown objective `wassersten`; did you mean `wasserstein`?"),
        ("--set players.critic.turns=5", "unknown player of dcgan `critic`; known: discriminator, generator"),
        (
            "--set regularizers.gradient_penalti.weight=1",
            "unknown regularizer `gradient_penalti`; did you mean `gradient_penalty`?",
        ),
        ("--set optimizer.name=adamm", "unknown optimizer `adamm`; did you mean `adam`?"),
        ("--set game.anything=1", "unknown setting `game.anything`; there are none"),
        ("--set train", "`--set train`: write KEY=VALUE, for example --set train.steps=100"),
        ("--set =3", "`--set =3`: write KEY=VALUE, for example --set train.steps=100"),
        (
            "--set train.steps=[",
            "`[` is not a valid value (line 1: expected the node content, but found '<stream end>')",
        ),
        (
            "--set train.steps=!!python/object/apply:os.abort",
            "`!!python/object/apply:os.abort` is not a valid value (line 1: "
            "could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.abort')",
        ),
        ("--batch-size -3", "`train.batch_size` is -3; expected greater than or equal to 1"),
        ("--batch-size 0", "`train.batch_size` is 0; expected greater than or equal to 1"),
        ("--steps 0", "`train.steps` is 0; expected greater than or equal to 1"),
        ("--seed -1", "`train.seed` is -1; expected greater than or equal to 0"),
        ("--precision fp8", "`train.precision` is 'fp8'; expected 'fp32', 'bf16' or 'fp16'"),
        ("--precision fp16", "`train.precision` is fp16, which needs an accelerator; use bf16 or fp32"),
        ("--device tpu", "`train.device` is 'tpu'; expected auto, cpu, cuda, cuda:1 (the second), mps or xpu"),
        ("--set train.accumulate=3", "`train.batch_size` is 4; make it a multiple of `train.accumulate`, 3"),
        ("--set train.trackers=[wandbb]", "unknown tracker `wandbb`; did you mean `wandb`?"),
        ("--preset smal", "unknown preset of dcgan `smal`; did you mean `small`?"),
        (
            "--data nothing",
            "unknown folder, archive or dataset `nothing`; known: celeba, cifar10, digit-outlines, digits, "
            "fashion-mnist, gaussian-1d, grid, inverted-digits, lsun-bedroom, mnist, photographs, ring, "
            "stacked-digits, stacked-mnist, stl10",
        ),
        ("--data digts", "unknown folder, archive or dataset `digts`; did you mean `digits`?"),
        ("--data ring", "ring has `points`, but dcgan reads `image`; give data whose items have `image`"),
        ("--set network.num_classes=3", "digits has 10 classes, but `network.num_classes` is 3; set it to 10"),
        ("--set network.channels=2", "digits: `data.spec.channels` is 2; expected 1 or 3"),
    ],
)
def test_wrong_settings_are_refused(refused, words, message):
    assert refused(*TRAIN, *words.split()) == message


def test_the_nearest_name_is_suggested_for_a_misspelt_system(refused):
    for words in (("train", "dcgna", "--out", "new"), ("show", "dcgna")):
        assert refused(*words) == "unknown system `dcgna`; did you mean `dcgan`?"
    assert refused("import", "dcgan/generatr", "x", "--out", "m") == (
        "unknown published network `dcgan/generatr`; did you mean `dcgan/generator`?"
    )


def test_a_setting_that_would_have_no_effect_is_refused(refused):
    assert refused("train", "wgan-gp", "--out", "new", "--set", "network.width=8") == (
        "`network.width` would have no effect; set `network.generator.width` and `network.discriminator.width`"
    )


def test_missing_options_are_named(refused, trained):
    assert refused("train", "dcgan").startswith("`--out` is missing: name the run folder, for example ")
    words = "SYSTEM is missing: name a system (see `gan-image systems`), or give `--recipe`"
    assert refused("train", "--out", "new") == words
    assert refused("generate", trained / "plain").startswith("`--out` is missing: ")
    assert refused("export", trained / "plain").startswith("`--out` is missing: ")
    assert refused("import", "dcgan/generator", "x").startswith("`--out` is missing: ")
    assert refused("evaluate", trained / "plain").startswith("`--data` is missing: ")


def test_unknown_commands_and_options_are_refused(refused):
    assert refused("trian") == "No such command 'trian'. Did you mean 'train'?"
    assert refused(*TRAIN, "--stepz", "3").startswith("No such option: --stepz")
    assert refused(*TRAIN, "--steps", "many").startswith("Invalid value for '--steps': ")
    assert refused("show") == "Missing argument 'system'."


# --- wrong requests: data


def noise(path: Path, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)).save(path)
    return path


def test_a_missing_data_folder_is_refused(refused):
    named = "the named datasets are digits, gaussian-1d, ring, grid, mnist, fashion-mnist, cifar10, " + (
        "photographs, stl10, celeba, lsun-bedroom, stacked-digits, inverted-digits, digit-outlines, stacked-mnist"
    )
    assert refused(*TRAIN, "--data", "./photos") == f"./photos: no such folder or archive; {named}"


def test_a_data_folder_of_text_files_is_refused(refused, tmp_path):
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.md"):
        (tmp_path / "texts" / name).write_text("words")
    words = f"texts: no readable images among 2 files (found 1 .md, 1 .txt; {LOOKED_FOR}"
    assert refused(*TRAIN, "--data", "texts") == words


def test_an_empty_folder_and_a_damaged_archive_are_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    assert refused(*TRAIN, "--data", "empty") == f"empty: no readable images among 0 files ({LOOKED_FOR}"
    assert refused(*TRAIN, "--data", "a.zip").startswith("a.zip: cannot be read as a folder, zip or tar archive (")


def test_a_folder_with_only_a_truncated_image_is_refused(refused, tmp_path):
    path = noise(tmp_path / "photos" / "a.png")
    path.write_bytes(path.read_bytes()[:200])
    words = f"photos: no readable images among 1 file ({LOOKED_FOR}; a.png: image file is truncated"
    assert refused(*TRAIN, "--data", "photos") == words
    assert refused(*TRAIN, "--data", "photos", "--strict") == words


def test_an_image_of_one_pixel_is_refused(refused, tmp_path):
    noise(tmp_path / "photos" / "a.png", size=(1, 1))
    assert refused(*TRAIN, "--data", "photos").endswith("; a.png: 1x1 pixels, smaller than the minimum of 4 per side")


def test_an_image_with_a_huge_declared_size_is_refused(refused, tmp_path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    (tmp_path / "photos").mkdir()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0))
    (tmp_path / "photos" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"0")))
    words = refused(*TRAIN, "--data", "photos")
    assert words.endswith("; a.png: too many pixels; the maximum is 89 million pixels and 20,000 per side")


def test_an_unreadable_image_among_others_is_named_and_skipped(gan, refused, tmp_path, caplog):
    for name in ("a.png", "b.png", "c.png"):
        noise(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b.png").write_bytes(b"\x89PNG")
    assert refused(*TRAIN, "--data", "photos", "--strict").startswith("photos: cannot read b.png (")
    assert gan(*TRAIN, "--data", "photos")[0] == 0
    assert caplog.messages[0].startswith("photos: skipped 1 unreadable image: b.png (")


# --- wrong requests: outputs


def test_existing_files_and_folders_are_not_overwritten(refused, tmp_path, trained):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert refused(*TRAIN, "--out", "file") == "file: is a file; choose another `--out`"
    assert refused(*TRAIN, "--out", "full") == "full: is not empty; choose another `--out`"
    assert refused(*TRAIN, "--out", trained / "plain").endswith(
        "holds a run already; resume it, or choose another `--out`"
    )
    words = refused("import", "dcgan/generator", published(tmp_path / "g.safetensors"), "--out", "full")
    assert words == "full: is not empty; choose another folder"


@pytest.mark.parametrize("place", ["/proc/new", "file/new"])
def test_an_output_that_cannot_be_written_is_refused(refused, tmp_path, trained, place):
    (tmp_path / "file").touch()
    assert f"{place}: cannot be written (" in refused(*TRAIN, "--out", place)
    for command, suffix in (("generate", ""), ("sheet", ".png"), ("interpolate", ".png"), ("film", ".gif")):
        words = refused(command, trained / "plain", "--out", place + suffix)
        assert words.startswith(place)
        assert ": cannot be written (" in words
    published(tmp_path / "g.safetensors")
    assert "cannot be written (" in refused("import", "dcgan/generator", "g.safetensors", "--out", place)


def test_an_export_has_the_suffix_onnx_and_overwrites_nothing(refused, tmp_path, trained):
    for name in ("g.pt", "g", "g.onnx.zip"):
        assert refused("export", trained / "plain", "--out", name) == f"`--out` is {name}; expected a .onnx file"
    (tmp_path / "g.onnx").write_text("mine")
    assert refused("export", trained / "plain", "--out", "g.onnx").startswith("g.onnx: already exists; choose another")
    assert (tmp_path / "g.onnx").read_text() == "mine"


@pytest.mark.parametrize("place", ["/proc/new", "file/new"])
def test_an_onnx_file_that_cannot_be_written_is_refused(refused, tmp_path, trained, place):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    (tmp_path / "file").touch()
    assert refused("export", trained / "plain", "--out", f"{place}.onnx").startswith(
        f"{place}.onnx: cannot be written ("
    )


def test_files_in_place_of_folders_and_folders_in_place_of_files_are_refused(refused, tmp_path, trained):
    (tmp_path / "file").touch()
    assert refused("generate", trained / "plain", "--out", "file") == "Invalid value for '--out': dir 'file' is a file."
    for command in ("sheet", "interpolate", "film", "export"):
        assert (
            refused(command, trained / "plain", "--out", ".") == "Invalid value for '--out': file '.' is a directory."
        )
    assert refused("sheet", trained / "plain", "--out", "a.jpg") == "`--out` is a.jpg; expected a .png file"
    assert refused("film", trained / "plain", "--out", "a.mp4") == "`--out` is a.mp4; expected a .gif file"
    assert (
        refused("export", trained / "plain", "--out", "a.onnx", "--network", "discriminator")
        == "`discriminator` of dcgan cannot be exported; choose --network generator"
    )
    assert refused("export", trained / "plain", "--out", "a", "--format", "tf") == "`--format` is tf; expected onnx"


def test_samples_are_never_overwritten(gan, refused, trained):
    assert gan("generate", trained / "plain", "-n", 2, "--out", "s")[0] == 0
    words = refused("generate", trained / "plain", "-n", 2, "--out", "s")
    assert words == "s already contains 00000.png; choose another folder, or empty this one"


# --- wrong requests: models, runs and recipes


def test_files_and_folders_that_are_not_models_are_refused(refused, tmp_path):
    (tmp_path / "text").write_text("words")
    (tmp_path / "empty").mkdir()
    neither = "neither a run (it has no recipe.yaml) nor a model folder (it has no config.json)"
    for command in (
        ["generate", "text", "--out", "s"],
        ["evaluate", "text", "--data", "digits"],
        ["sheet", "text"],
        ["export", "text", "--out", "x.onnx"],
    ):
        assert refused(*command) == f"text: {neither}"
    assert refused("generate", "empty", "--out", "s") == f"empty: {neither}"
    assert refused("generate", "./none", "--out", "s") == "none: no such folder"


def test_files_and_folders_that_are_not_runs_are_refused(refused, tmp_path):
    (tmp_path / "text").write_text("words")
    (tmp_path / "empty").mkdir()
    for command in ("resume", "report", "film", "doctor"):
        assert refused(command, "empty") == "empty: not a run folder (it has no recipe.yaml)"
        assert refused(command, "text") == "text: not a run folder (it has no recipe.yaml)"
        assert refused(command, "none") == "none: no such folder"


def test_a_run_without_checkpoints_is_refused(refused, tmp_path, trained):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text((trained / "plain" / "recipe.yaml").read_text())
    assert refused("resume", "run") == "run: has no checkpoint to resume from; start a new run"
    assert refused("generate", "run", "--out", "s") == "run: has no checkpoint and no model yet"
    assert refused("film", "run").startswith("run: has no sample pictures; train with `--set train.sample_every=")


def test_a_finished_run_is_only_resumed_with_more_steps(refused, trained, tmp_path):
    before = contents(trained / "points")
    assert refused("resume", trained / "points").endswith("is finished at step 2; give more steps to train on")
    assert contents(trained / "points") == before


def changed_model(trained: Path, folder: Path, **fields: object) -> Path:
    folder.mkdir()
    config = json.loads((trained / "plain" / "model" / "config.json").read_text())
    config["recipe"] |= fields
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((trained / "plain" / "model" / "model.safetensors").read_bytes())
    return folder


def test_models_of_other_systems_and_domains_are_refused(refused, tmp_path, trained):
    audio = changed_model(trained, tmp_path / "audio", domain="audio", system="wavegan")
    assert refused("generate", audio, "--out", "s") == f"{audio}: is a system of gan-audio (wavegan), not of gan-image"
    network = {"image_size": 16, "latent_dim": 4, "width": 4}
    other = changed_model(trained, tmp_path / "other", system="wgan-gp", network=network)
    assert refused("generate", other, "--out", "s") == (
        f"{other}: has no `generator.project.weight`; it is damaged or belongs to another system"
    )
    (tmp_path / "run").mkdir()
    recipe = (trained / "plain" / "recipe.yaml").read_text().replace("domain: image", "domain: audio")
    (tmp_path / "run" / "recipe.yaml").write_text(recipe)
    assert refused("resume", "run") == "run: is a system of gan-audio (dcgan), not of gan-image"


def test_files_that_are_not_recipes_are_refused(refused, tmp_path, trained):
    expected = "is not a recipe; expected keys such as `system`, `data`, `train`"
    audio = (trained / "plain" / "recipe.yaml").read_text().replace("domain: image", "domain: audio")
    for content, words in (
        (b"just words", expected),
        (b"- a\n- list", expected),
        (b"a: [", "is not YAML of plain values (line 1: expected the node content, but found '<stream end>')"),
        (b"\x89PNG\xff\xfe", "cannot be read as a recipe (it is not UTF-8 text)"),
        (b"\x00\x01", "is not YAML of plain values ("),
        (b"system: dcgan\ntrain: {stepz: 3}", "unknown setting `train.stepz`; did you mean `train.steps`?"),
        (b"train: {steps: 3}", "`system` is missing; set it"),
        (audio.encode(), "is a recipe for gan-audio, not for gan-image"),
    ):
        (tmp_path / "recipe.yaml").write_bytes(content)
        assert refused("train", "--recipe", "recipe.yaml", "--out", "new").startswith(f"recipe.yaml: {words}")
    missing = "none.yaml: cannot be read as a recipe (No such file or directory)"
    assert refused("train", "--recipe", "none.yaml", "--out", "new") == missing
    assert refused("train", "gan", "--recipe", trained / "plain" / "recipe.yaml", "--out", "new").endswith(
        "is a recipe for dcgan (small); omit SYSTEM and --preset"
    )


def test_a_recipe_cannot_run_code(refused, tmp_path):
    for tag in (
        "!!python/object/apply:os.mkdir [trace]",
        "!!python/object/new:os.mkdir [trace]",
        "!!python/name:os.abort",
        "!!python/module:antigravity",
    ):
        (tmp_path / "recipe.yaml").write_text(f"system: {tag}\n")
        words = refused("train", "--recipe", "recipe.yaml", "--out", "new")
        assert "could not determine a constructor for the tag" in words
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plain --label 3", "this dcgan was trained without classes; leave `label` out, or set `network.num_classes`"),
        ("labelled --label 10", "`label` is 10; expected 0 to 9"),
        ("labelled --label -1", "`label` is -1; expected 0 to 9"),
        ("plain --truncation 0", "`truncation` is 0.0; expected a number above 0 and at most 1"),
        ("plain --truncation 1.5", "`truncation` is 1.5; expected a number above 0 and at most 1"),
        ("plain -n 0", "Invalid value for '-n': Input should be greater than or equal to 1"),
        ("plain --seed -1", "Invalid value for '--seed': Input should be greater than or equal to 0"),
    ],
)
def test_wrong_options_of_generate_are_refused(refused, trained, words, message):
    model, *options = words.split()
    assert refused("generate", trained / model, "--out", "s", *options) == message


def test_wrong_options_of_interpolate_are_refused(refused, trained):
    assert refused("interpolate", trained / "labelled", "--label", 10) == "`label` is 10; expected 0 to 9"
    assert refused("interpolate", trained / "plain", "--label", 1) == (
        "this dcgan was trained without classes; leave `label` out, or set `network.num_classes`"
    )


def test_metrics_and_extractors_that_do_not_apply_are_refused(refused, trained):
    for model, data, metrics, words in (
        ("labelled", "digits", "recogniton", "unknown metric `recogniton`; did you mean `recognition`?"),
        ("labelled", "digits", "modes", "the metric `modes` needs data with modes; digits has none"),
        (
            "plain",
            "digits",
            "recognition",
            "the metric `recognition` needs a model conditioned on the class; set `network.num_classes`",
        ),
        ("plain", "ring", "modes", "ring has `points`, but dcgan reads `image`; give data whose items have `image`"),
    ):
        assert refused("evaluate", trained / model, "--data", data, "--metrics", metrics, "-n", 4) == words
    assert refused("evaluate", trained / "points", "--data", "ring", "-n", 40, "--metrics", "fid") == (
        "the metric `fid` needs a feature extractor; known: classifier, random, inception, torchvision, transformers"
    )
    for name, words in (
        (
            "classifier:x",
            "the extractor `classifier` learns the data's labels; it accepts neither an argument nor `--weights`",
        ),
        ("inseption", "unknown extractor `inseption`; did you mean `inception`?"),
    ):
        assert refused("evaluate", trained / "plain", "--data", "digits", "-n", 60, "--extractor", name) == words


@pytest.fixture
def fewer_steps(monkeypatch):
    """Trains the classifier of the data's labels for 100 steps, not 600."""
    monkeypatch.setattr(image_classifier, "STEPS", 100)


@pytest.mark.usefixtures("fewer_steps")
def test_evaluation_of_images_needs_no_download(gan, trained):
    words = ["evaluate", trained / "plain", "--data", "digits", "-n", 60]
    document = json.loads(gan(*words, "--json")[1])
    assert set(document["metrics"]) == {
        "fid",
        "inception_score",
        "precision_recall",
        "density_coverage",
        "sliced_wasserstein",
    }
    assert document["metrics"]["fid"]["fid"] > 5  # four steps from noise
    assert document["metrics"]["inception_score"]["inception_score_of_real"] > 4  # at most 6: splits of six
    assert document["protocols"][document["protocol"]["fid"]]["extractor"] == "classifier"


# --- outputs of commands


def test_systems_and_datasets_are_listed_as_json(gan):
    systems = [each["name"] for each in json.loads(gan("systems", "--json")[1])]
    assert {"gan", "dcgan", "sngan", "infogan"} <= set(systems)
    assert len(set(systems)) == len(systems)
    assert "digits" in {each["name"] for each in json.loads(gan("data", "--json")[1])}


@pytest.mark.parametrize(
    ("system", "preset", "generator", "discriminator"),
    [
        ("dcgan", "paper", 3_576_704, 2_765_568),
        ("wgan-gp", "paper", 4_276_739, 1_053_825),
        ("sngan", "paper", 4_276_739, 1_053_825),
        ("sngan", "paper-48", 4_878_083, 10_141_441),
        ("sngan", "paper-64", 12_220_675, 10_141_441),
        ("sngan", "paper-128", 32_150_787, 29_017_857),
        ("cgan-pd", "paper", 4_304_387, 1_055_105),
        ("sagan", "paper", 42_017_412, 39_448_258),
        ("sagan", "paper-32", 4_386_308, 1_075_586),
        ("ssgan", "paper", 4_276_739, 1_054_341),
        ("ssgan", "paper-64", 12_220_675, 10_145_541),
        ("infomax-gan", "paper", 4_276_739, 1_615_233),
        ("infomax-gan", "paper-64", 12_220_675, 14_603_521),
        ("infogan", "paper", 6_632_832, 6_691_151),
    ],
)
def test_networks_at_the_papers_scale_have_the_published_number_of_parameters(
    gan, system, preset, generator, discriminator
):
    shown = json.loads(gan("show", system, "--preset", preset, "--json")[1])
    assert shown["parameters"] == {"generator": generator, "discriminator": discriminator}
    assert (shown["recipe"]["system"], shown["recipe"]["preset"]) == (system, preset)


def test_the_output_of_show_can_be_trained(gan, tmp_path):
    _, shown, _ = gan("show", "dcgan", *SETTINGS, "--set", "network.channels=1")
    (tmp_path / "recipe.yaml").write_text(shown)
    assert yaml.safe_load(shown)["network"]["width"] == 4
    assert gan("train", "--recipe", "recipe.yaml", "--out", "new", "--steps", 1, "--batch-size", 4)[0] == 0


def test_a_run_has_all_its_files(trained):
    run = trained / "plain"
    assert sorted(path.name for path in run.iterdir() if path.name != "evaluations.jsonl") == [
        "checkpoints",
        "log.jsonl",
        "model",
        "recipe.yaml",
        "report.html",
        "samples",
    ]
    lines = Run(run).log()
    assert [line["step"] for line in lines] == [2, 4]
    assert set(lines[0]) == {
        "step",
        "phase",
        "discriminator/adversarial",
        "generator/adversarial",
        "samples_per_second",
        "discriminator/real_logits",
        "discriminator/fake_logits",
        "discriminator/real_sign",
        "discriminator/of_guessing",
        "discriminator/gradient_norm",
        "generator/gradient_norm",
    }
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["00000002.png", "00000004.png", "real.png"]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["00000002", "00000004"]


def test_the_recipe_of_a_run_reproduces_it_bit_for_bit(gan, trained, tmp_path):
    assert gan("train", "--recipe", trained / "plain" / "recipe.yaml", "--out", "again")[0] == 0
    weights = [load_file(run / "model" / "model.safetensors") for run in (trained / "plain", tmp_path / "again")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    for name in ("recipe.yaml", "samples/00000004.png", "samples/real.png"):
        assert (trained / "plain" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(gan, trained, tmp_path):
    words = ["train", "dcgan", *SMALL, "--set", "train.log_every=2"]
    assert gan(*words, "--out", "half", "--steps", 3)[0] == 0
    status, out, _ = gan("resume", "half", "--steps", 6)
    assert (status, out) == (0, "trained to step 6: half (see half/report.html)\n")
    assert gan(*words, "--out", "whole", "--steps", 6)[0] == 0
    half, whole = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("half", "whole"))
    assert all(torch.equal(half[key], whole[key]) for key in whole)


def test_samples_are_files_that_a_seed_reproduces(gan, trained, tmp_path):
    answers = {}
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        status, text, _ = gan("generate", trained / "plain", "-n", 3, "--out", out, "--seed", seed, "--json")
        assert status == 0
        answers[out] = json.loads(text)
    assert answers["a"] == {"files": ["a/00000.png", "a/00001.png", "a/00002.png"], "seed": 1}
    pictures = {out: [(tmp_path / name).read_bytes() for name in answers[out]["files"]] for out in answers}
    assert pictures["a"] == pictures["b"] != pictures["c"]
    with Image.open(tmp_path / "a" / "00000.png") as image:
        assert (image.size, image.mode) == ((16, 16), "L")


def test_a_run_and_its_model_make_the_same_samples(gan, trained, tmp_path):
    gan("generate", trained / "plain", "-n", 2, "--out", "run")
    gan("generate", trained / "plain" / "model", "-n", 2, "--out", "model")
    for name in ("00000.png", "00001.png"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_points_are_written_as_a_table(gan, trained, tmp_path):
    assert json.loads(gan("generate", trained / "points", "-n", 5, "--out", "s", "--json")[1])["files"] == [
        "s/points.csv"
    ]
    assert len((tmp_path / "s" / "points.csv").read_text().splitlines()) == 6


def test_a_sheet_has_a_column_for_each_class(gan, trained, tmp_path):
    assert json.loads(gan("sheet", trained / "labelled", "-n", 20, "--out", "s.png", "--json")[1])["file"] == "s.png"
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 4 * sheet.height  # 10 columns, 2 rows
    assert gan("sheet", trained / "plain", "-n", 9)[:2] == (0, "samples.png\n")


def test_an_interpolation_has_a_row_for_each_pair_of_ends(gan, trained, tmp_path):
    words = [
        "interpolate",
        trained / "labelled",
        "--rows",
        2,
        "--steps",
        6,
        "--label",
        3,
        "--out",
        "walk.png",
        "--json",
    ]
    assert json.loads(gan(*words)[1]) == {"file": "walk.png", "seed": 0}
    with Image.open(tmp_path / "walk.png") as walk:
        assert 2.5 < walk.width / walk.height < 3.5


def test_a_film_has_every_sample_picture_of_the_training(gan, trained, tmp_path):
    assert json.loads(gan("film", trained / "plain", "--out", "f.gif", "--json")[1]) == {"file": "f.gif", "pictures": 2}
    with Image.open(tmp_path / "f.gif") as film:
        assert film.n_frames == 2


@pytest.mark.usefixtures("fewer_steps")
def test_an_evaluation_is_printed_as_json_or_as_a_table(gan, trained):
    words = ["evaluate", trained / "labelled", "--data", "digits", "-n", 40, "--metrics", "recognition"]
    document = json.loads(gan(*words, "--json")[1])
    assert (document["data"], document["samples"], document["seed"]) == ("digits", 40, 0)
    figures = document["metrics"]["recognition"]
    assert set(figures) == {"accuracy", "classes_found", "accuracy_on_real"}
    lines = gan(*words)[1].splitlines()
    protocol = document["protocol"]["recognition"]
    assert " ".join(lines[0].split()) == f"recognition accuracy {figures['accuracy']} higher is better {protocol}"
    assert ["all", "samples", "40"] in [line.split() for line in lines]
    points = json.loads(gan("evaluate", trained / "points", "--data", "ring", "-n", 40, "--json")[1])
    assert set(points["metrics"]) == {"modes", "moments"}


def test_a_report_is_one_file(gan, trained):
    run = trained / "plain"
    assert json.loads(gan("report", run, "--json")[1]) == {"report": str(run / "report.html")}
    page = (run / "report.html").read_text()
    for part in ("dcgan", "digits", "discriminator until step 4", "gan-image resume plain --steps 8"):
        assert part in page


def test_the_commands_that_a_report_proposes_are_commands(gan, trained, tmp_path, monkeypatch):
    import html
    import re
    import shlex

    shutil.copytree(trained / "plain", tmp_path / "plain")
    monkeypatch.chdir(tmp_path)
    page = Path("plain/report.html").read_text()
    commands = [shlex.split(html.unescape(line))[1:] for line in re.findall(r"<code>(gan-image .*?)</code>", page)]
    assert [words[0] for words in commands] == ["resume", "generate", "evaluate", "train", "doctor"]
    quick = {"evaluate": ["--metrics", "sliced_wasserstein", "-n", 40]}  # without learning a classifier
    for words in commands[1:]:
        status, _, err = gan(*words, *quick.get(words[0], []))
        assert status == 0, err


def test_an_exported_generator_computes_what_ours_does(gan, trained, tmp_path):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    answer = json.loads(gan("export", trained / "labelled", "--out", "g.onnx", "--json")[1])
    assert (answer["file"], answer["network"]) == ("g.onnx", "generator")
    assert answer["inputs"]["label"] == {"type": "int64", "shape": ["batch"], "values": "class, from 0 to 9"}
    assert answer["largest_difference"] < 1e-3
    text = gan("export", trained / "labelled", "--network", "generator", "--out", "h.onnx")[1].splitlines()
    assert text[:2] == ["h.onnx: generator", "  input z: float32 [batch, 4], standard normal"]
    assert text[-1].startswith("  largest difference from torch: ")
    z, label = torch.randn(3, 4), torch.tensor([9, 0, 4])
    (ours,) = run_onnx(tmp_path / "g.onnx", z=z, label=label)
    game = gan_image.load(trained / "labelled")
    assert_close(ours, game.generator(z, label).detach(), atol=1e-5, rtol=1e-4)


def test_the_doctor_examines_a_run(gan, trained):
    document = json.loads(gan("doctor", trained / "plain", "--json")[1])
    assert [check["name"] for check in document["checks"]] == [
        "recipe",
        "checkpoints",
        "log",
        "finite",
        "collapse",
        "discriminator",
        "memory",
        "gradients",
        "oscillation",
    ]
    assert document["good"]


# --- published checkpoints


def published(path: Path, *, image_size: int = 32, width: int = 4, latent_dim: int = 6) -> Path:
    """Writes a checkpoint with the keys of dcgan/main.py, github.com/pytorch/examples."""
    stages = image_size.bit_length() - 3
    random = torch.Generator().manual_seed(0)
    widths = [latent_dim, *(width << stage for stage in reversed(range(stages))), 3]
    state = {}
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        state[f"main.{3 * number}.weight"] = 0.1 * torch.randn(inputs, outputs, 4, 4, generator=random)
        if number < stages:
            norm = f"main.{3 * number + 1}"
            state |= {f"{norm}.{part}": torch.ones(outputs) for part in ("weight", "running_var")}
            state |= {f"{norm}.{part}": torch.zeros(outputs) for part in ("bias", "running_mean")}
            state[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)  # as the published script does
    return path


@pytest.mark.parametrize("name", ["netG.pt", "netG.safetensors"])
def test_an_imported_generator_generates(gan, tmp_path, name):
    published(tmp_path / name)
    status, out, _ = gan("import", "dcgan/generator", name, "--out", "m")
    assert (status, out) == (0, "dcgan/generator in m\n")
    assert gan("generate", "m", "-n", 2, "--out", "s")[0] == 0
    with Image.open(tmp_path / "s" / "00000.png") as image:
        assert (image.size, image.mode) == ((32, 32), "RGB")
    state = torch.load(published(tmp_path / "again.pt"), weights_only=True)  # noqa: TID251  written above
    game = gan_image.load("m")
    z = torch.randn(2, 6, 1, 1)
    assert_close(game.generator(z), gan_image.load_reference("dcgan/generator", state).eval()(z))


def test_published_checkpoints_that_do_not_fit_are_refused(refused, tmp_path):
    published(tmp_path / "g.pt")
    assert refused("import", "dcgan/generatr", "g.pt", "--out", "m") == (
        "unknown published network `dcgan/generatr`; did you mean `dcgan/generator`?"
    )
    assert refused("import", "wgan-gp/generator", "g.pt", "--out", "m") == (
        "wgan-gp/generator: the checkpoint is of another network ('l1.weight' is missing)"
    )
    (tmp_path / "text.pt").write_text("words")
    (tmp_path / "text.safetensors").write_text("words")
    for name in ("text.pt", "text.safetensors", "none.pt"):
        assert refused("import", "dcgan/generator", name, "--out", "m").startswith(f"{name}: ")


def test_a_published_checkpoint_cannot_run_code(refused, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trace",)

    torch.save({"main.0.weight": Evil()}, tmp_path / "evil.pt")
    words = refused("import", "dcgan/generator", "evil.pt", "--out", "m")
    assert words.startswith("evil.pt: ")
    assert not (tmp_path / "trace").exists()
    assert "arbitrary code" not in words  # torch's message suggests loading it with code execution


def test_a_model_without_a_generator_cannot_generate(gan, refused, tmp_path):
    state = {}
    for number, (inputs, outputs) in enumerate([(3, 4), (4, 8), (8, 16)]):
        at = 3 * number - 1 if number else 0
        state[f"main.{at}.weight"] = torch.zeros(outputs, inputs, 4, 4)
        if number:
            state |= {
                f"main.{at + 1}.{part}": torch.zeros(outputs)
                for part in ("weight", "bias", "running_mean", "running_var")
            }
            state[f"main.{at + 1}.num_batches_tracked"] = torch.tensor(0)
    save_file(state | {"main.8.weight": torch.zeros(1, 16, 4, 4)}, tmp_path / "d.safetensors")
    assert gan("import", "dcgan/discriminator", "d.safetensors", "--out", "m")[0] == 0
    words = refused("generate", "m", "--out", "s")
    assert words == "this model has no weights for the network `generator`; load a model that has them"


# --- the program itself


def test_a_traceback_is_only_shown_with_debug(gan):
    assert "Traceback" not in gan("show", "dcgna")[2]
    status, _, err = gan("show", "dcgna", "--debug")
    assert status == 2
    assert err.startswith("Traceback")
    assert err.splitlines()[-1] == "gan-image: unknown system `dcgna`; did you mean `dcgan`?"


def test_gan_image_is_a_subcommand_of_gan(gan):
    assert gan("image", "systems", "--json", domain=None) == gan("systems", "--json")
    assert gan("image", "show", "dcgan", domain=None) == gan("show", "dcgan")


def test_the_module_can_be_run_as_the_program(gan):
    program = [sys.executable, "-m", "gan_image", "systems"]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout == gan("systems")[1]


def test_an_interrupted_training_leaves_a_checkpoint_and_prints_how_to_continue(tmp_path):
    words = ["train", "dcgan", "--out", "my run", "--steps", "100000", *SMALL, "--set", "train.log_every=1"]
    command = [sys.executable, "-m", "gan_image", *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        log, patience = tmp_path / "my run" / "log.jsonl", time.monotonic() + 60
        while not log.exists() and time.monotonic() < patience:
            time.sleep(0.05)
        training.send_signal(signal.SIGTERM)
        out, err = training.communicate(timeout=60)
    assert training.returncode == 0, err
    (checkpoint,) = (tmp_path / "my run" / "checkpoints").iterdir()
    step = int(checkpoint.name)
    assert out == f"interrupted by SIGTERM at step {step}; continue with: gan-image resume 'my run'\n"
    assert len(Run(tmp_path / "my run").log()) == step


def test_a_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m gan_image systems | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
