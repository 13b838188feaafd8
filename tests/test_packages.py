"""Rules for all packages: imports between them, imports of the command line, layout, versions and licenses."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gan_core

ROOT = Path(__file__).parent.parent
CORE = ROOT / "shared" / "gan-core"
DOMAINS = {path.name.removeprefix("gan-"): path for path in sorted((ROOT / "packages").glob("gan-*"))}
PACKAGES = {"core": CORE, **DOMAINS}
HEAVY = [
    "torch",
    "torchvision",
    "torchaudio",
    "accelerate",
    "numpy",
    "scipy",
    "sklearn",
    "PIL",
    "cv2",
    "av",
    "librosa",
    "soundfile",
    "transformers",
    "trimesh",
    "skimage",
    "opacus",
    "pydicom",
    "nibabel",
]


def pyproject(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))


def all_requirements() -> Iterator[str]:
    """Yields all requirements of the workspace and its packages, with extras and groups."""
    for table in map(pyproject, (ROOT, *PACKAGES.values())):
        project = table.get("project", {})
        lists = [*table["dependency-groups"].values(), *project.get("optional-dependencies", {}).values()]
        yield from chain(project.get("dependencies", []), *lists)


def imports(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields the top-level names that the sources below a folder import, anywhere in a file."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            yield from ((path, name.partition(".")[0]) for name in names)


def loaded_by(statement: str) -> list[str]:
    """Returns the heavy modules that a new Python process has imported after a statement, which may exit."""
    program = (
        f"import sys\ntry:\n    {statement}\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules: list[str] = ast.literal_eval(done.stderr.splitlines()[-1])
    return modules


def command(domain: str, *arguments: str) -> str:
    module = f"gan_{domain}.__main__"
    return f"sys.argv = {['gan', *arguments]}; import importlib; importlib.import_module({module!r}).main()"


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_imports_no_other_domain(domain):
    others = {f"gan_{name}" for name in DOMAINS if name != domain}
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path, name in imports(DOMAINS[domain]) if name in others]
    assert wrong == []


def test_gan_core_imports_no_domain():
    domains = {f"gan_{name}" for name in DOMAINS}
    assert [f"{path.relative_to(ROOT)}: {name}" for path, name in imports(CORE) if name in domains] == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_importing_a_domain_loads_nothing_heavy(domain):
    assert loaded_by(f"import gan_{domain}") == []


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["systems"], ["data"]], ids=" ".join)
@pytest.mark.parametrize("package", PACKAGES)
def test_help_and_lists_load_nothing_heavy(package, arguments):
    if package == "core" and arguments != ["--help"]:
        arguments = ["image", *arguments]  # `gan image systems` is `gan-image systems`
    assert loaded_by(command(package, *arguments)) == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_help_and_lists_fit_80_columns(domain):
    program, narrow = [sys.executable, "-m", f"gan_{domain}"], os.environ | {"COLUMNS": "80"}
    for words in (["--help"], ["systems"], ["data"]):
        shown = subprocess.run([*program, *words], capture_output=True, text=True, check=True, env=narrow).stdout
        lines = [line for line in shown.splitlines() if not line.startswith("Usage:")]
        assert [line for line in lines if len(line) > 80 or line.endswith(("...", "…"))] == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_systems_lists_the_cards(domain):
    (point,) = entry_points(group="gan.domains", name=domain)
    program = [sys.executable, "-m", f"gan_{domain}", "systems", "--json"]
    listed = json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
    assert [system["name"] for system in listed] == [card.name for card in point.load().cards]


def test_all_packages_have_the_same_version():
    versions = {name: pyproject(folder)["project"]["version"] for name, folder in PACKAGES.items()}
    assert set(versions.values()) == {gan_core.__version__}


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_requires_gan_core_of_its_own_version(domain):
    project = pyproject(DOMAINS[domain])["project"]
    requirements = map(Requirement, project["dependencies"])
    assert [str(each.specifier) for each in requirements if each.name == "gan-core"] == [f"=={project['version']}"]


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_is_registered(domain):
    project = pyproject(DOMAINS[domain])["project"]
    assert project["name"] == f"gan-{domain}"
    assert project["scripts"] == {f"gan-{domain}": f"gan_{domain}.__main__:main"}
    assert project["entry-points"] == {"gan.domains": {domain: f"gan_{domain}:DOMAIN"}}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_the_same_layout(package):
    folder, name = PACKAGES[package], f"gan_{package}"
    wanted = ["pyproject.toml", "README.md", "LICENSE", "tests"]
    wanted += [f"src/{name}/{file}" for file in ("__init__.py", "__init__.pyi", "__main__.py", "py.typed", "api.py")]
    if package in DOMAINS:
        wanted += [f"src/{name}/domain.py", f"src/{name}/systems/__init__.py"]
        (point,) = entry_points(group="gan.domains", name=package)
        if point.load().cards:
            wanted += [f"src/{name}/{module}.py" for module in ("data", "media", "metrics", "reference", "tasks")]
    assert [path for path in wanted if not (folder / path).exists()] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_contain_the_license(package):
    assert (PACKAGES[package] / "LICENSE").read_text("utf-8") == (ROOT / "LICENSE").read_text("utf-8")


def test_constraints_pin_all_requirements():
    lines = (ROOT / "tools" / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    asked = [Requirement(text) for text in all_requirements() if not text.startswith("gan-")]
    pinned = {str(requirement): versions.get(canonicalize_name(requirement.name)) for requirement in asked}
    assert [text for text, version in pinned.items() if version is None] == []
    assert [text for text, version in pinned.items() if version not in Requirement(text).specifier] == []


def test_no_file_names_a_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    machine = re.compile(rb"/(root|work|home/\w+|Users/\w+)/\w|\b[A-Z]:\\+Users|file:/{3}|https?://[^\s\"]*/simple\b")
    texts = {path.relative_to(ROOT): path.read_bytes() for path in paths if path.is_file()}
    assert [str(path) for path, text in texts.items() if b"\0" not in text and machine.search(text)] == []
