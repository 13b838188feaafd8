"""The developers' door: what it believes to be installed, and what it hands on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def dev(monkeypatch, tmp_path):
    """tools/dev.py as a module, on an empty repository root, with a pip that only writes down what it was asked."""
    spec = importlib.util.spec_from_file_location("dev", TOOLS / "dev.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    asked = []
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "dev-stamp.json")
    monkeypatch.setattr(module, "program", lambda name: tmp_path / ".venv" / "bin" / name)
    monkeypatch.setattr(module, "pip", lambda *words: asked.append(words))
    monkeypatch.setattr(module.subprocess, "run", lambda command: make_python(Path(command[-1])))
    module.asked = asked
    return module


def make_python(venv):
    (venv / "bin").mkdir()
    (venv / "bin" / "python").touch()

    class Done:
        returncode = 0

    return Done


def interrupt(*words):
    raise KeyboardInterrupt


def test_a_domain_brings_no_other_domain(dev):
    dev.prepare(["image"])
    words = " ".join(word for words in dev.asked for word in words)
    assert "gan-core" in words
    assert "gan-image" in words
    assert "gan-audio" not in words
    assert "pytest" not in words


def test_what_is_installed_is_not_installed_again(dev):
    dev.prepare(["image"])
    dev.asked.clear()
    dev.prepare(["image"])
    assert dev.asked == []


def test_what_is_missing_is_added(dev):
    dev.prepare(["image"])
    dev.asked.clear()
    dev.prepare(["image", "audio"])
    assert dev.asked == [("--no-build-isolation", "--editable", str(dev.FOLDERS["audio"]))]


def test_an_interrupted_installation_is_not_believed(dev, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(dev, "pip", interrupt)
        with pytest.raises(KeyboardInterrupt):
            dev.prepare(["image"])
    assert set(json.loads(dev.STAMP.read_text())) == {"root"}
    dev.prepare(["image"])
    assert len(dev.asked) == 2  # what builds the packages, then the packages


def test_an_interrupted_environment_is_made_anew(dev, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(dev.subprocess, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            dev.prepare(["image"])
    (dev.VENV / "half").touch()
    dev.prepare(["image"])
    assert not (dev.VENV / "half").exists()


def test_changed_requirements_are_installed_again(dev, monkeypatch, tmp_path):
    dev.prepare(["image"])
    dev.asked.clear()
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("torch==0.0.1")
    monkeypatch.setattr(dev, "CONSTRAINTS", constraints)
    dev.prepare(["image"])
    assert len(dev.asked) == 2


def test_an_environment_of_someone_else_is_left_alone(dev):
    dev.VENV.mkdir()
    (dev.VENV / "pyvenv.cfg").touch()
    with pytest.raises(SystemExit, match="was not made by this script"):
        dev.prepare(["image"])
    assert (dev.VENV / "pyvenv.cfg").exists()


def test_extras_of_ours_are_asked_of_the_folder(dev):
    words = dev.requirements("dev")
    assert f"{dev.FOLDERS['core']}[onnx,remote,tensorboard]" in words
    assert not [word for word in words if word.startswith("gan-")]


def test_what_follows_two_dashes_is_handed_on(dev):
    options = dev.parse(["test", "core", "--", "-k", "slow"])
    assert (options.package, options.extra) == ("core", ["-k", "slow"])


def test_a_package_that_does_not_exist_is_named(dev, capsys):
    with pytest.raises(SystemExit):
        dev.parse(["isolate", "imgae"])
    assert "unknown package `imgae`; known: core, 3d, audio" in capsys.readouterr().err


def test_the_closure_of_a_requirement_follows_extras_and_markers(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.delitem(sys.modules, "isolate", raising=False)
    isolate = importlib.import_module("isolate")
    requires = {
        "a": ["b[x]", 'never; python_version < "3"'],
        "b": ["c", 'd; extra == "x"', 'e; extra == "y"'],
        "c": ["a"],
        "d": None,
    }
    monkeypatch.setattr(isolate.metadata, "requires", requires.__getitem__)
    assert isolate.closure(["a"]) == {"a", "b", "c", "d"}
