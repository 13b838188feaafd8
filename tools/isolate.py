"""Installs each package from its wheel into its own environment and tests it there; run by `dev.py isolate` in `.venv`.

An environment contains gan-core, the package, their declared requirements with all dependencies, and the package's
dependency group `test`. Third-party packages are hard-linked from `.venv`, which takes almost no time and disk space.
The linked packages are determined from the declared requirements, and pip checks them without an index and reports
missing ones. Importing a package that is not declared fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from dev import FOLDERS, ROOT, program
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ISOLATED = Path(sys.prefix) / "isolated"
WHEELS = ISOLATED / "wheels"
OURS = {folder.name for folder in FOLDERS.values()}


def closure(requirements: Iterable[str]) -> set[str]:
    """Returns the names of all installed distributions that requirements depend on, including their extras.

    Raises:
        PackageNotFoundError: a requirement is not installed.
    """
    seen: set[tuple[str, str]] = set()
    queue = [Requirement(text) for text in requirements]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        children = [Requirement(text) for text in metadata.requires(name) or ()]
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            queue += [child for child in children if not child.marker or child.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def link(name: str, site_packages: Path) -> None:
    """Links the files of an installed distribution into another environment, without its programs."""
    for file in metadata.files(name) or ():
        if ".." in file.parts:
            continue
        target = site_packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.locate(), target)
        except OSError:  # another file system, or one without hard links
            shutil.copy2(file.locate(), target)


def make(folder: Path) -> tuple[Path, set[str]]:
    """Creates an environment with the requirements of a package, and returns it with the names of the requirements."""
    environment = ISOLATED / folder.name
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    tests = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["dependency-groups"]["test"]
    names = closure([folder.name, *tests]) - OURS
    variables = {"base": str(environment), "platbase": str(environment)}
    for name in names:
        link(name, Path(sysconfig.get_path("purelib", "venv", variables)))
    return environment, names


def left_out(folder: Path) -> set[str]:
    """Returns the source and data files of a package that are not in its wheel."""
    source = folder / "src"
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    (wheel,) = WHEELS.glob(f"{folder.name.replace('-', '_')}-*.whl")
    caches = {path for path in files if any(part.startswith((".", "__pycache__")) for part in path.parts)}
    return {path.as_posix() for path in files - caches} - set(zipfile.ZipFile(wheel).namelist())


def run(log: Any, *command: str | Path) -> str:
    """Runs a command, writes its output to a log, and returns the last line.

    Raises:
        CalledProcessError: the command failed.
    """
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    log.write(f"$ {' '.join(map(str, command))}\n")
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, cwd=ISOLATED
    )
    log.write(done.stdout)
    done.check_returncode()
    return (done.stdout.splitlines() or [""])[-1].strip("= ")


def check(folder: Path, log: Any) -> str:
    """Installs a package, runs `--help` and its tests, and returns a summary.

    Raises:
        CalledProcessError: a command failed; its output is in the log.
        PackageNotFoundError: a declared requirement is not in `.venv`.
        FileNotFoundError: the wheel lacks files of the package.
    """
    if missing := left_out(folder):
        raise FileNotFoundError(f"the wheel lacks {', '.join(sorted(missing))}")
    environment, names = make(folder)
    python = program("python", environment)
    run(
        log,
        sys.executable,
        "-m",
        "pip",
        "--isolated",
        "--python",
        python,
        "install",
        "--no-index",
        "--find-links",
        WHEELS,
        "gan-core",
        folder.name,
    )
    start = time.perf_counter()
    run(log, program("gan" if folder.name == "gan-core" else folder.name, environment), "--help")
    seconds = time.perf_counter() - start
    summary = run(
        log,
        python,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        ROOT,
        "-p",
        "no:cacheprovider",
        folder / "tests",
    )
    return f"{len(names)} requirements, --help in {seconds:.2f} s, {summary}"


def attempt(folder: Path) -> bool:
    """Tests a package and prints the result; its environment is only kept if the tests fail."""
    path = ISOLATED / f"{folder.name}.log"
    with path.open("w", encoding="utf-8") as log:
        try:
            result, passed = check(folder, log), True
        except subprocess.CalledProcessError as error:
            last = (error.stdout.strip().splitlines() or [f"exit status {error.returncode}"])[-1].strip("= ")
            result, passed = f"FAILED: {last} (see {path.relative_to(ROOT)})", False
        except (metadata.PackageNotFoundError, FileNotFoundError) as error:
            result, passed = f"FAILED: {error}", False
    print(f"{folder.name:12} {result}", flush=True)
    if passed:
        shutil.rmtree(ISOLATED / folder.name)
    return passed


def main() -> None:
    """Tests the packages in the folders given on the command line."""
    folders = [Path(word) for word in sys.argv[1:]]
    shutil.rmtree(ISOLATED, ignore_errors=True)
    ISOLATED.mkdir()
    with (ISOLATED / "wheels.log").open("w+", encoding="utf-8") as log:
        run(
            log,
            sys.executable,
            "-m",
            "pip",
            "--no-cache-dir",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            WHEELS,
            *dict.fromkeys([FOLDERS["core"], *folders]),
        )
    passed = [attempt(folder) for folder in folders]
    print(f"{sum(passed)} of {len(folders)} packages pass their tests in isolation")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
