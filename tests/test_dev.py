"""The commands for developers: installation, arguments, environment of the tests, and the check of docstrings."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dev(monkeypatch, tmp_path):
    """Module tools/dev.py with an empty `.venv` and a pip that only records its arguments."""
    module = load("dev")
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


def test_a_domain_is_installed_without_the_others(dev):
    dev.prepare(["image"])
    words = " ".join(word for words in dev.asked for word in words)
    assert "gan-core" in words
    assert "gan-image" in words
    assert "gan-audio" not in words
    assert "pytest" not in words


def test_installed_components_are_not_installed_again(dev):
    dev.prepare(["image"])
    dev.asked.clear()
    dev.prepare(["image"])
    assert dev.asked == []


def test_missing_components_are_added(dev):
    dev.prepare(["image"])
    dev.asked.clear()
    dev.prepare(["image", "audio"])
    assert dev.asked == [("--no-build-isolation", "--editable", str(dev.FOLDERS["audio"]))]


def test_an_interrupted_installation_is_repeated(dev, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(dev, "pip", interrupt)
        with pytest.raises(KeyboardInterrupt):
            dev.prepare(["image"])
    assert set(json.loads(dev.STAMP.read_text())) == {"root"}
    dev.prepare(["image"])
    assert len(dev.asked) == 2  # the build tools, then the packages


def test_an_interrupted_environment_is_created_again(dev, monkeypatch):
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


def test_an_environment_made_by_hand_is_kept(dev):
    dev.VENV.mkdir()
    (dev.VENV / "pyvenv.cfg").touch()
    with pytest.raises(SystemExit, match="was not made by this script"):
        dev.prepare(["image"])
    assert (dev.VENV / "pyvenv.cfg").exists()


def test_extras_of_our_packages_are_installed_from_their_folders(dev):
    words = dev.requirements("dev")
    assert f"{dev.FOLDERS['core']}[onnx,remote,tensorboard]" in words
    assert not [word for word in words if word.startswith("gan-")]


def test_arguments_after_two_dashes_are_passed_on(dev):
    options = dev.parse(["test", "core", "--", "-k", "slow"])
    assert (options.package, options.extra) == ("core", ["-k", "slow"])


def test_an_unknown_package_is_an_error(dev, capsys):
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


def test_the_documentation_is_checked_and_built_in_the_environment(dev, monkeypatch, capsys):
    commands = []

    class Done:
        returncode = 0

    def run(command, **options):
        commands.append([str(word) for word in command])
        return Done

    dev.prepare(dev.DOMAINS)
    monkeypatch.setattr(dev.subprocess, "run", run)
    dev.docs(dev.parse(["docs"]))
    dev.docs(dev.parse(["docs", "--update"]))
    assert [command[1:] for command in commands[::3]] == [
        ["tools/docs/generate.py", "--check"],
        ["tools/docs/generate.py"],
    ]
    assert all("--fail-on-warning" in command for command in commands[1::3])
    assert [command[1:] for command in commands[2::3]] == [["tools/docs/hosts.py", str(dev.BUILT / "html")]] * 2
    assert capsys.readouterr().out.splitlines() == [str(dev.BUILT / "html" / "index.html")] * 2


def test_a_stale_page_fails_the_build_of_the_documentation(dev, monkeypatch):
    class Failed:
        returncode = 1

    dev.prepare(dev.DOMAINS)
    monkeypatch.setattr(dev.subprocess, "run", lambda command, **options: Failed)
    with pytest.raises(SystemExit, match="1"):
        dev.docs(dev.parse(["docs"]))


def test_temporary_files_of_tests_are_in_memory_if_there_is_room(dev, monkeypatch, tmp_path):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(dev, "MEMORY", tmp_path)
    monkeypatch.setattr(dev, "ROOM", 1)
    assert dev.test_environment()["TMPDIR"] == str(tmp_path)
    monkeypatch.setattr(dev, "available_memory", lambda: 0)
    assert "TMPDIR" not in dev.test_environment()
    monkeypatch.setattr(dev, "available_memory", lambda: 1 << 62)
    monkeypatch.setattr(dev, "ROOM", 1 << 61)
    assert "TMPDIR" not in dev.test_environment()
    monkeypatch.setattr(dev, "ROOM", 1)
    monkeypatch.setattr(dev, "MEMORY", tmp_path / "missing")
    assert "TMPDIR" not in dev.test_environment()


def test_a_folder_for_temporary_files_that_the_user_chose_is_kept(dev, monkeypatch, tmp_path):
    monkeypatch.setattr(dev, "MEMORY", tmp_path)
    monkeypatch.setattr(dev, "ROOM", 1)
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert "TMPDIR" not in dev.test_environment()


REFUSED = [
    ('"""Of each."""', "begins with “Of”"),
    ('class A:\n    """That which is."""', "begins with “That”"),
    ('LIMIT = 3\n"""So many are named."""', "begins with “So”"),
    ('class A:\n    size: int = 1\n    """How large it is."""', "begins with “How”"),
    ('def f(a):\n    """Returns it.\n\n    Args:\n        a: which one.\n    """', "`a` begins with “which”"),
    ('def f():\n    """The result."""', "does not begin with a verb in the third person"),
    ('def f():\n    """Return the result."""', "does not begin with a verb in the third person"),
    ('class A:\n    async def f(self):\n        """Class of it."""', "does not begin with a verb in the third person"),
    ('def f():\n    """Torch\'s optimizer."""', "does not begin with a verb in the third person"),
]
ACCEPTED = [
    '"""Offers of all kinds."""',
    'class A:\n    """Whatever is left."""',
    'LIMIT = 3\n"""Maximum number of items."""',
    'def f(a):\n    """Returns it.\n\n    Args:\n        a: the one, of several.\n    """',
    'class A:\n    @property\n    def f(self):\n        """Size in pixels."""',
    'def f():\n    """-E[log D(x)]."""',
    'def f():\n    """Context manager that suppresses output."""',
    'def f():\n    """Called before a step."""',
    'def f():\n    """Re-reads the file."""',
    "def f():\n    pass",
]


@pytest.mark.parametrize(("source", "reason"), REFUSED)
def test_a_docstring_with_a_refused_beginning_is_found(source, reason):
    assert [text.partition(":")[0] for _, text in load("docstrings").findings(source)] == [
        reason if reason.startswith(("begins", "`")) else f"{reason} (Returns, Computes …)"
    ]


@pytest.mark.parametrize("source", ACCEPTED)
def test_a_docstring_with_another_beginning_is_accepted(source):
    assert list(load("docstrings").findings(source)) == []


def test_the_check_of_docstrings_names_file_and_line(capsys, tmp_path):
    file = tmp_path / "module.py"
    file.write_text('"""Module."""\n\nLIMIT = 3\n"""What is allowed."""\n')
    assert load("docstrings").main([str(file)]) == 1
    assert capsys.readouterr().out == f"{file}:4: begins with “What”: What is allowed.\n"
    file.write_text('"""Module."""\n')
    assert load("docstrings").main([str(file)]) == 0
