#!/usr/bin/env python3
"""One door for developers: set-up, demo, tests, checks, benchmarks, isolated installs; with the standard library only.

Every command first makes what it needs in `.venv` at the repository's root and says so: a demo needs gan-core and one
domain, the tests need all packages and the tools. What is installed is written to `.venv/dev-stamp.json`, a component
at a time and only after pip has finished, so an interrupted installation is taken up again and a finished one costs
nothing.
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
VENV = ROOT / ".venv"
STAMP = VENV / "dev-stamp.json"
FOLDERS = {"core": ROOT / "shared" / "gan-core"} | {
    path.parent.name.removeprefix("gan-"): path.parent for path in sorted(ROOT.glob("packages/gan-*/pyproject.toml"))
}
DOMAINS = [name for name in FOLDERS if name != "core"]


def program(name: str, venv: Path = VENV) -> Path:
    """Where a program of an environment lies."""
    return venv / "Scripts" / f"{name}.exe" if os.name == "nt" else venv / "bin" / name


def say(line: str) -> None:
    """One line about what is going on, at once; stdout is left to the program that runs in the end."""
    print(line, file=sys.stderr, flush=True)


# The environment: a stamp says which components are installed, and from which requirements.


def group(name: str) -> list[str]:
    """The requirements of one of the workspace's dependency groups."""
    import tomllib

    requirements: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"][name]
    return requirements


def requirements(component: str) -> list[str]:
    """What pip is asked for: a package of ours as an editable folder, or a group of tools and of our extras."""
    asked = [f"gan-{component}"] if component in FOLDERS else group(component)
    words: list[str] = []
    for text in asked:
        ours, bracket, extras = text.removeprefix("gan-").partition("[")
        words += ["--editable", f"{FOLDERS[ours]}{bracket}{extras}"] if ours in FOLDERS else [text]
    return words


def fingerprint(component: str) -> str:
    """Changes when a component has to be installed again: with its own requirements, gan-core's, or the constraints."""
    files = [CONSTRAINTS, *(FOLDERS[name] / "pyproject.toml" for name in {"core", component} & FOLDERS.keys())]
    text = "\n".join([*requirements(component), *(file.read_text("utf-8") for file in sorted(files))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_stamp() -> dict[str, Any]:
    """What the stamp says; nothing where there is none, or none that can be read."""
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp


def write_stamp(stamp: Mapping[str, Any]) -> None:
    """Replaces the stamp as a whole."""
    draft = STAMP.with_suffix(".tmp")
    draft.write_text(json.dumps(stamp, indent=1), "utf-8")
    draft.replace(STAMP)


def pip(*arguments: str) -> None:
    """Runs `pip install` in the environment; shows what it downloads, and everything only if it fails."""
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
        sys.exit(f"pip failed with exit status {process.returncode}; mend what it names above and run this again")


def make_venv() -> dict[str, Any]:
    """Creates the environment, empty but for pip, and returns its stamp. One that this script did not make is kept."""
    if VENV.exists() and any(VENV.iterdir()) and not STAMP.exists():
        sys.exit(f"{VENV} was not made by this script; move it away and run this again")
    say(f"making .venv with Python {sys.version.split()[0]}")
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    write_stamp({})
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
        sys.exit("Python's `venv` failed; where it is a package of its own (Debian: python3-venv), install it")
    return {"root": str(ROOT)}


def prepare(components: Iterable[str]) -> None:
    """Makes the environment and installs those of the components that are not, or not as they are now."""
    stamp = read_stamp()
    if stamp.get("root") != str(ROOT) or not program("python").exists():
        stamp = make_venv()
    wanted = {name: fingerprint(name) for name in dict.fromkeys(["build", "core", *components])}
    missing = [name for name in wanted if stamp.get(name) != wanted[name]]
    if not missing:
        return
    write_stamp({name: mark for name, mark in stamp.items() if name not in missing})
    if "build" in missing:
        say("installing what builds the packages")
        pip(*requirements("build"))
    rest = [name for name in missing if name != "build"]
    if rest:
        long = " (PyTorch among it: a few minutes)" if "core" not in stamp else ""
        say(f"installing {', '.join(title(name) for name in rest)}{long}")
        pip("--no-build-isolation", *(word for name in rest for word in requirements(name)))
    write_stamp(stamp | wanted)


def title(component: str) -> str:
    """A component as the user knows it."""
    return f"gan-{component}" if component in FOLDERS else {"dev": "the tools"}[component]


def hand_over(command: Sequence[str | Path], **environment: str) -> NoReturn:
    """Ends as the command ends. On POSIX it takes this process's place, so an interrupt reaches it and only it."""
    words = [str(word) for word in command]
    variables = os.environ | environment
    sys.stdout.flush()
    if os.name == "nt":
        sys.exit(subprocess.call(words, env=variables))
    os.execve(words[0], words, variables)


def test_data() -> dict[str, str]:
    """Where the tests find the shared data: `GAN_TEST_DATA`, else a folder beside the repository."""
    return {"GAN_TEST_DATA": os.path.abspath(os.environ.get("GAN_TEST_DATA", ROOT.parent / "shared" / "data"))}


# The commands.


def install(options: argparse.Namespace) -> None:
    """Installs gan-core and the named domains (all of them, if none is named), editable."""
    names = options.names or DOMAINS
    prepare(names)
    say(f"{', '.join(f'gan-{name}' for name in names)}: ready in {program('python').parent}")


def demo(options: argparse.Namespace) -> None:
    """Trains a domain's demo on embedded data; it ends with samples and a report."""
    prepare([options.domain])
    hand_over([program(f"gan-{options.domain}"), "demo", *options.extra])


def test(options: argparse.Namespace) -> None:
    """Runs the tests: of everything, of one package, or (`together`) those across packages."""
    alone = options.package in FOLDERS
    prepare([options.package, "dev"] if alone else [*DOMAINS, "dev"])
    folders = [FOLDERS[options.package] / "tests"] if alone else [ROOT / "tests"]
    if options.package is None:
        folders = [folder / "tests" for folder in FOLDERS.values()] + folders
    data = test_data()
    os.chdir(ROOT)
    present = [folder.relative_to(ROOT) for folder in folders if folder.is_dir()]
    hand_over([program("python"), "-m", "pytest", *present, *options.extra], **data)


def check(options: argparse.Namespace) -> None:
    """Looks at format, lint and types; changes nothing."""
    prepare([*DOMAINS, "dev"])
    looks = {"format": ["ruff", "format", "--check"], "lint": ["ruff", "check"], "types": ["mypy"]}
    failed = []
    for name, (tool, *arguments) in looks.items():
        say(f"{name}: {tool} {' '.join(arguments)}".rstrip())
        if subprocess.run([program(tool), *arguments], cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def bench(options: argparse.Namespace) -> None:
    """Runs a benchmark, or lists them."""
    names = sorted(path.stem for path in BENCHMARKS.glob("[!_]*.py"))
    if options.name is None:
        print("\n".join(names))
        return
    if options.name not in names:
        print(f"unknown benchmark `{options.name}`; known: {', '.join(names) or 'none yet'}", file=sys.stderr)
        sys.exit(2)
    prepare([*DOMAINS, "dev"])
    hand_over([program("python"), BENCHMARKS / f"{options.name}.py", *options.extra], **test_data())


def isolate(options: argparse.Namespace) -> None:
    """Installs each package alone, with what it declares and nothing else, and tests it there."""
    prepare([*DOMAINS, "dev"])
    names = options.names or FOLDERS
    hand_over([program("python"), ROOT / "tools" / "isolate.py", *(FOLDERS[name] for name in names)], **test_data())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; what follows `--` goes to the program that is run."""
    place = list(arguments).index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="dev.py", description="Set-up, demo, tests and checks of the GAN toolkits.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run, extra=list(arguments[place + 1 :]))
        return added

    command(install).add_argument("names", nargs="*", metavar="domain", help=" ".join(DOMAINS))
    command(demo).add_argument("domain", nargs="?", choices=DOMAINS, default="image")
    command(test).add_argument("package", nargs="?", choices=[*FOLDERS, "together"])
    command(check)
    command(bench).add_argument("name", nargs="?")
    command(isolate).add_argument("names", nargs="*", metavar="package", help=" ".join(FOLDERS))
    options = parser.parse_args(arguments[:place])
    for name in getattr(options, "names", []):
        if name not in FOLDERS:
            parser.error(f"unknown package `{name}`; known: {', '.join(FOLDERS)}")
    if options.extra and options.run not in (demo, test, bench):
        parser.error(f"{options.run.__name__} takes nothing after `--`")
    return options


def main() -> None:
    """Runs one command."""
    options = parse(sys.argv[1:])
    try:
        options.run(options)
    except KeyboardInterrupt:
        sys.exit("interrupted; the next call goes on from here")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this may have an older one
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    main()
