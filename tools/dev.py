#!/usr/bin/env python3
"""Commands for developers: set-up, demo, tests, checks, documentation, benchmarks. Needs the standard library only.

Each command first installs the components that it needs into `.venv` at the root of the repository: gan-core and one
domain for a demo, all packages and the tools for the tests. `.venv/dev-stamp.json` records each component after pip has
installed it, so that the next call continues an interrupted installation and does not repeat a complete one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "tools" / "constraints.txt"
BENCHMARKS = ROOT / "tools" / "benchmarks"
DOCS = ROOT / "shared" / "docs"
BUILT = DOCS / "dist"
"""Output folder of the documentation, which git ignores."""
MEMORY = Path("/dev/shm")
"""File system in memory on Linux."""
ROOM = 4 << 30
"""Free space in bytes that is needed for temporary files of the tests."""
WORKERS = 4
"""Maximum number of processes that run tests. Each needs about 1 GiB, and runs whole test files."""
VENV = ROOT / ".venv"
STAMP = VENV / "dev-stamp.json"
FOLDERS = {"core": ROOT / "shared" / "gan-core"} | {
    path.parent.name.removeprefix("gan-"): path.parent for path in sorted(ROOT.glob("packages/gan-*/pyproject.toml"))
}
DOMAINS = [name for name in FOLDERS if name != "core"]


def program(name: str, venv: Path = VENV) -> Path:
    """Returns the path of a program in a virtual environment."""
    return venv / "Scripts" / f"{name}.exe" if os.name == "nt" else venv / "bin" / name


def say(line: str) -> None:
    """Prints a line of progress to standard error. Standard output is reserved for the program that a command runs."""
    print(line, file=sys.stderr, flush=True)


# The environment. A component is a package of ours, or a dependency group of the workspace.


def group(name: str) -> list[str]:
    """Returns the requirements of a dependency group of the workspace."""
    import tomllib

    requirements: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"][name]
    return requirements


def requirements(component: str) -> list[str]:
    """Returns pip's arguments for a component: one of our packages in editable mode, or the entries of a group."""
    asked = [f"gan-{component}"] if component in FOLDERS else group(component)
    words: list[str] = []
    for text in asked:
        ours, bracket, extras = text.removeprefix("gan-").partition("[")
        words += ["--editable", f"{FOLDERS[ours]}{bracket}{extras}"] if ours in FOLDERS else [text]
    return words


def fingerprint(component: str) -> str:
    """Returns a digest of a component's requirements, those of gan-core, and the constraints.

    A component is installed again when its digest changes.
    """
    files = [CONSTRAINTS, *(FOLDERS[name] / "pyproject.toml" for name in {"core", component} & FOLDERS.keys())]
    text = "\n".join([*requirements(component), *(file.read_text("utf-8") for file in sorted(files))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_stamp() -> dict[str, Any]:
    """Returns the digests of the installed components; empty if the stamp is missing or unreadable."""
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp


def write_stamp(stamp: Mapping[str, Any]) -> None:
    """Replaces the stamp atomically."""
    draft = STAMP.with_suffix(".tmp")
    draft.write_text(json.dumps(stamp, indent=1), "utf-8")
    draft.replace(STAMP)


def pip(*arguments: str) -> None:
    """Runs `pip install` in the environment. It prints large downloads, and the end of pip's output if pip fails."""
    command = [
        str(program("python")),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--progress-bar",
        "off",
        "--constraint",
        str(CONSTRAINTS),
        *arguments,
    ]
    output: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:
        for line in process.stdout or ():
            output.append(line)
            words = line.split()
            if words[:1] == ["Downloading"] and line.rstrip().endswith(("MB)", "GB)")):
                say(f"  {line.strip()}")
            elif words[:3] == ["Installing", "collected", "packages:"]:
                say(f"  installing {len(words) - 3} packages")
    if process.returncode:
        sys.stderr.writelines(output[-40:])
        sys.exit(f"pip failed with exit status {process.returncode}; correct the error above and run this again")


def make_venv() -> dict[str, Any]:
    """Creates the environment with only pip, and returns its stamp. An environment made by hand is never replaced."""
    if VENV.exists() and any(VENV.iterdir()) and not STAMP.exists():
        sys.exit(f"{VENV} was not made by this script; move it away and run this again")
    say(f"creating .venv with Python {sys.version.split()[0]}")
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    write_stamp({})
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
        sys.exit("Python's `venv` failed; on Debian and Ubuntu, install the package python3-venv")
    return {"root": str(ROOT)}


def prepare(components: Iterable[str]) -> None:
    """Creates the environment and installs the components that are missing or out of date."""
    stamp = read_stamp()
    if stamp.get("root") != str(ROOT) or not program("python").exists():
        stamp = make_venv()
    wanted = {name: fingerprint(name) for name in dict.fromkeys(["build", "core", *components])}
    missing = [name for name in wanted if stamp.get(name) != wanted[name]]
    if not missing:
        return
    write_stamp({name: mark for name, mark in stamp.items() if name not in missing})
    if "build" in missing:
        say("installing the build tools")
        pip(*requirements("build"))
    rest = [name for name in missing if name != "build"]
    if rest:
        long = " (with PyTorch: a few minutes)" if "core" not in stamp else ""
        say(f"installing {', '.join(title(name) for name in rest)}{long}")
        pip("--no-build-isolation", *(word for name in rest for word in requirements(name)))
    write_stamp(stamp | wanted)


def title(component: str) -> str:
    """Returns the name of a component for messages."""
    return f"gan-{component}" if component in FOLDERS else {"dev": "the tools", "docs": "Sphinx"}[component]


def hand_over(command: Sequence[str | Path], **environment: str) -> NoReturn:
    """Runs a command and exits with its status. On POSIX, it replaces this process and receives its signals."""
    words = [str(word) for word in command]
    variables = os.environ | environment
    sys.stdout.flush()
    if os.name == "nt":
        sys.exit(subprocess.call(words, env=variables))
    os.execve(words[0], words, variables)


def test_environment() -> dict[str, str]:
    """Returns environment variables for tests and benchmarks.

    `GAN_TEST_DATA` is the folder of shared data; by default, it is next to the repository. Temporary files are kept in
    memory (`TMPDIR`) if there is room and the user has not chosen another place.
    """
    variables = {"GAN_TEST_DATA": os.path.abspath(os.environ.get("GAN_TEST_DATA", ROOT.parent / "shared" / "data"))}
    if "TMPDIR" not in os.environ and has_room(MEMORY):
        variables["TMPDIR"] = str(MEMORY)
    return variables


def has_room(folder: Path) -> bool:
    """Returns whether a folder in memory is writable, and both it and the machine have at least `ROOM` bytes free."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return False
    return min(shutil.disk_usage(folder).free, available_memory()) >= ROOM


def available_memory() -> int:
    """Returns Linux's estimate of the memory in bytes that programs can still use; 0 if it is not known."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)


# The commands.


def install(options: argparse.Namespace) -> None:
    """Installs gan-core and domains (default: all) as editable packages."""
    names = options.names or DOMAINS
    prepare(names)
    say(f"{', '.join(f'gan-{name}' for name in names)}: ready in {program('python').parent}")


def demo(options: argparse.Namespace) -> None:
    """Runs the demo of a domain: a short training run on embedded data, with samples and a report."""
    prepare([options.domain])
    hand_over([program(f"gan-{options.domain}"), "demo", *options.extra])


def test(options: argparse.Namespace) -> None:
    """Runs all tests, those of one package, or those across packages (`together`)."""
    alone = options.package in FOLDERS
    prepare([options.package, "dev"] if alone else [*DOMAINS, "dev"])
    folders = [FOLDERS[options.package] / "tests"] if alone else [ROOT / "tests"]
    if options.package is None:
        folders += [folder / "tests" for folder in FOLDERS.values()]
    workers = min(os.cpu_count() or 1, WORKERS)
    variables = test_environment() | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    os.chdir(ROOT)
    present = [folder.relative_to(ROOT) for folder in folders if folder.is_dir()]
    parallel = [f"--numprocesses={workers}", "--dist=loadfile", "--no-loadscope-reorder"]
    hand_over([program("python"), "-m", "pytest", *parallel, *present, *options.extra], **variables)


def check(options: argparse.Namespace) -> None:
    """Checks format, lint, types and docstrings; changes nothing."""
    prepare([*DOMAINS, "dev"])
    checks = {
        "format": ["ruff", "format", "--check"],
        "lint": ["ruff", "check"],
        "types": ["mypy"],
        "docstrings": ["python", "tools/docstrings.py"],
    }
    failed = []
    for name, (tool, *arguments) in checks.items():
        say(f"{name}: {tool} {' '.join(arguments)}".rstrip())
        if subprocess.run([program(tool), *arguments], cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def docs(options: argparse.Namespace) -> None:
    """Builds the documentation site; fails if a page generated from the code is stale."""
    prepare([*DOMAINS, "dev", "docs"])
    generate: list[str | Path] = [program("python"), "tools/docs/generate.py", *([] if options.update else ["--check"])]
    sphinx: list[str | Path] = [program("sphinx-build"), "--fail-on-warning", "--keep-going", "--quiet", "--jobs", "2"]
    pages = BUILT / "html"
    sphinx += ["-d", BUILT / "doctrees", DOCS, pages]
    hosts: list[str | Path] = [program("python"), "tools/docs/hosts.py", pages]
    for command in (generate, sphinx, hosts):
        if status := subprocess.run(command, cwd=ROOT).returncode:
            sys.exit(status)
    print(pages / "index.html")


def bench(options: argparse.Namespace) -> None:
    """Runs a benchmark, or lists the benchmarks."""
    names = sorted(path.stem for path in BENCHMARKS.glob("[!_]*.py"))
    if options.name is None:
        print("\n".join(names))
        return
    if options.name not in names:
        print(f"unknown benchmark `{options.name}`; known: {', '.join(names)}", file=sys.stderr)
        sys.exit(2)
    prepare([*DOMAINS, "dev"])
    hand_over([program("python"), BENCHMARKS / f"{options.name}.py", *options.extra], **test_environment())


def isolate(options: argparse.Namespace) -> None:
    """Tests each package in an environment that has only the package and its declared dependencies."""
    prepare([*DOMAINS, "dev"])
    names = options.names or FOLDERS
    hand_over(
        [program("python"), ROOT / "tools" / "isolate.py", *(FOLDERS[name] for name in names)], **test_environment()
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; arguments after `--` are passed to the program that a command runs."""
    place = list(arguments).index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="dev.py", description="Set-up, demo, tests, checks and documentation.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run, extra=list(arguments[place + 1 :]))
        return added

    command(install).add_argument("names", nargs="*", metavar="domain", help=" ".join(DOMAINS))
    command(demo).add_argument("domain", nargs="?", choices=DOMAINS, default="image")
    command(test).add_argument("package", nargs="?", choices=[*FOLDERS, "together"])
    command(check)
    command(docs).add_argument(
        "--update", action="store_true", help="write the generated pages instead of checking them"
    )
    command(bench).add_argument("name", nargs="?")
    command(isolate).add_argument("names", nargs="*", metavar="package", help=" ".join(FOLDERS))
    options = parser.parse_args(arguments[:place])
    for name in getattr(options, "names", []):
        if name not in FOLDERS:
            parser.error(f"unknown package `{name}`; known: {', '.join(FOLDERS)}")
    if options.extra and options.run not in (demo, test, bench):
        parser.error(f"`{options.run.__name__}` takes no arguments after `--`")
    return options


def main() -> None:
    """Runs a command."""
    options = parse(sys.argv[1:])
    try:
        options.run(options)
    except KeyboardInterrupt:
        sys.exit("interrupted; run the command again to continue")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - users may start this with an older Python
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    main()
