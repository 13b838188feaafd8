"""The structure of the source trees: direction of imports, circles, orphans, folders, and copies between packages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT / "shared" / "gan-core", *sorted((ROOT / "packages").glob("gan-*"))]
SOURCES = {folder.name.replace("-", "_"): folder / "src" / folder.name.replace("-", "_") for folder in FOLDERS}

LAYERS = (
    ("__main__", "api", "cli", "doctor", "domain"),
    ("jobs",),
    ("measure",),
    ("training",),
    ("models",),
    ("runs",),
    ("play",),
    ("data",),
    ("media",),
    ("nn",),
    ("__init__", "cards", "distributed", "draws", "errors", "places", "recipe", "signature", "tables"),
)
"""Folders and modules of gan_core, from top to bottom; a module imports only from its own layer and those below."""
ASIDE = "testing"
"""Folder of gan_core that may import everything."""
UPWARD = ("save_pretrained", "from_pretrained", "restore", "push_to_hub")
"""Methods of `Game` that may import from above."""
WITHOUT_TORCH = (
    "cards",
    "errors",
    "places",
    "recipe",
    "tables",
    "runs.run",
    "runs.record",
    "data.files",
    "data.folders",
    "data.limits",
    "data.spec",
    "media.writing",
    "jobs",
    "domain",
    "cli.program",
)
FACES = ("data", "media", "metrics", "reference", "tasks")
"""Modules that every domain has and that gan_core imports by name."""
COPIED = 10
"""Number of equal lines in a row that count as a copy."""


@dataclass(frozen=True)
class Module:
    """A source file with the modules that it imports, anywhere in the file.

    Attributes:
        name: dotted name; that of a folder for its `__init__.py`.
        path: the file.
        imports: names of imported modules, without those in methods of `Game` that may import from above.
    """

    name: str
    path: Path
    imports: set[str] = field(default_factory=set)


@cache
def modules() -> dict[str, Module]:
    """Returns all modules of all packages by name."""
    found = {}
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            found[name] = Module(name, path)
    for module in found.values():
        module.imports.update(imported(ast.parse(module.path.read_text("utf-8")), found))
        module.imports.discard(module.name)
    return found


def imported(tree: ast.AST, known: dict[str, Module]) -> Iterator[str]:
    """Yields the names of the modules that a syntax tree imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name in UPWARD:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            yield from (defining(node.module, alias.name, known) for alias in node.names)
        yield from imported(node, known)


def defining(module: str, name: str, known: dict[str, Module]) -> str:
    """Returns the module that defines a name which is imported from a module or, through its stub, from a folder."""
    if f"{module}.{name}" in known:
        return f"{module}.{name}"
    stub = known[module].path.with_suffix(".pyi")
    if stub.exists():
        for node in ast.parse(stub.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and name in [alias.asname for alias in node.names]:
                return f"{module}.{node.module}"
    return module


def layer(name: str) -> int:
    """Returns the number of a module's layer in gan_core, from the top."""
    part = name.split(".")[1] if "." in name else "__init__"
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def core() -> list[Module]:
    """Returns the modules of gan_core that have a layer."""
    return [
        module
        for name, module in modules().items()
        if name.split(".")[0] == "gan_core" and not name.startswith(f"gan_core.{ASIDE}")
    ]


def test_the_scan_finds_imports_of_every_kind():
    imports = {name: module.imports for name, module in modules().items()}
    assert "gan_core.tables" in imports["gan_core.cli.commands"]  # at the top of the file
    assert "gan_core.play.game" in imports["gan_core.cli.commands"]  # under TYPE_CHECKING
    assert "gan_core.api" in imports["gan_core.cli.commands"]  # in a function
    assert "gan_core.data.source" in imports["gan_core.api"]  # through a stub
    assert "gan_core.api" not in imports["gan_core.play.game"]  # the exception


def test_every_module_of_gan_core_has_a_layer():
    for module in core():
        assert layer(module.name) >= 0


def test_imports_go_downward():
    upward = [
        f"{module.name} imports {other}"
        for module in core()
        for other in module.imports
        if other.startswith(f"gan_core.{ASIDE}") or layer(other) < layer(module.name)
    ]
    assert sorted(upward) == []


def test_only_the_game_has_methods_that_import_from_above():
    named = {
        module.name
        for module in core()
        for node in ast.walk(ast.parse(module.path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name in UPWARD
        if any(layer(other) < layer(module.name) for other in imported(ast.Module(node.body, []), modules()))
    }
    assert named == {"gan_core.play.game"}


@pytest.mark.parametrize("package", SOURCES)
def test_there_are_no_circles(package):
    graph = {name: module.imports for name, module in modules().items() if name.split(".")[0] == package}
    circles = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = error.args[1]
            circles.append(" <- ".join(circle))
            graph[circle[1]] = graph[circle[1]] - {circle[0]}
        else:
            break
    assert circles == []


def test_modules_of_the_command_line_do_not_import_torch():
    names = ", ".join(f"gan_core.{name}" for name in WITHOUT_TORCH)
    program = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_module_is_used():
    used = set().union(*(module.imports for module in modules().values()))
    used |= {f"{package}.{face}" for package in SOURCES for face in FACES}
    for folder in FOLDERS:
        used |= set(re.findall(r"\bgan_\w+(?:\.\w+)+", (folder / "pyproject.toml").read_text("utf-8")))
    for module in modules().values():
        text = module.path.read_text("utf-8")
        used |= set(re.findall(r"\"(gan_\w+(?:\.\w+)+)[:\"]", text))
        if (stub := module.path.with_suffix(".pyi")).exists():
            tree = ast.parse(stub.read_text("utf-8"))
            used |= {f"{module.name}.{node.module}" for node in tree.body if isinstance(node, ast.ImportFrom)}
    unused = [
        name
        for name, module in modules().items()
        if name not in used and module.path.name not in ("__init__.py", "__main__.py") and f".{ASIDE}." not in name
    ]
    assert unused == []


def test_every_folder_states_its_purpose_in_one_line():
    folders = {path.parent for folder in SOURCES.values() for path in folder.rglob("*.py")}
    wrong = []
    for folder in sorted(folders):
        file = folder / "__init__.py"
        docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) if file.exists() else None
        if not docstring or not docstring.splitlines()[0].endswith("."):
            wrong.append(str(folder.relative_to(ROOT)))
    assert wrong == []


@cache
def runs_of_lines(package: str) -> dict[tuple[str, ...], str]:
    """Returns the place of every run of `COPIED` lines in a package; blank lines and indentation do not count."""
    found = {}
    for path in sorted(SOURCES[package].rglob("*.py")):
        lines = [(number, text.strip()) for number, text in enumerate(path.read_text("utf-8").splitlines(), 1)]
        lines = [(number, text) for number, text in lines if text]
        for start in range(len(lines) - COPIED + 1):
            run = lines[start : start + COPIED]
            found[tuple(text for _, text in run)] = f"{path.relative_to(ROOT)}:{run[0][0]}"
    return found


@pytest.mark.parametrize(("one", "other"), list(combinations(SOURCES, 2)))
def test_no_two_packages_have_ten_equal_lines(one, other):
    copies = runs_of_lines(one).keys() & runs_of_lines(other).keys()
    assert [f"{runs_of_lines(one)[copy]} and {runs_of_lines(other)[copy]}" for copy in copies] == []
