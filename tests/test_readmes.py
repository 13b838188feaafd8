"""Every command and every example in the READMEs runs, from the first to the last, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", *sorted(ROOT.glob("shared/*/README.md")), *sorted(ROOT.glob("packages/*/README.md"))]
INSTALLING = ("pip install", "git clone", "python3 tools/dev.py")
"""Lines that make an environment, or run all the tests: those that are made and run here."""
ELSEWHERE = {("gan-core", "python")}
"""Blocks that a package's own tests run (`gan-core/tests/test_guide.py`)."""
SHOWN = "py"
"""The language of a block that shows a piece of code and is not to be run."""

DRIVER = """
import json, subprocess, sys
from importlib import import_module

names = {"__name__": "readme"}
for kind, source in json.load(sys.stdin):
    print(f"--- {source}", file=sys.stderr)
    if kind == "python":
        exec(compile(source, "README", "exec"), names)
        continue
    if kind == "pipe":
        subprocess.run(["bash", "-o", "pipefail", "-c", source], check=True)
        continue
    program, *sys.argv[1:] = source
    try:
        import_module(f"{program.replace('-', '_')}.__main__").main()
    except SystemExit as end:
        assert not end.code, f"{source} ended with {end.code}"
"""
"""Runs all of a README in one process, for importing torch takes longer than most of it."""


def steps(readme: Path) -> list[tuple[str, object]]:
    """The Python blocks and the command lines of a README, in order: a command as its words, a pipe as it stands."""
    found: list[tuple[str, object]] = []
    for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", readme.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        if (readme.parent.name, kind) in ELSEWHERE or kind == SHOWN:
            continue
        if kind == "python":
            found.append((kind, body))
        else:
            assert kind in ("bash", ""), f"{readme}: a block of {kind}, which nothing runs"
            lines = body.replace("\\\n", " ").splitlines()
            for line in lines:
                words = [] if line.startswith(INSTALLING) else shlex.split(line, comments=True)
                if words:
                    found.append(("pipe", line) if {"|", ">"} & set(words) else ("bash", words))
    return found


def programs() -> set[str]:
    return {"gan", *(path.name for path in ROOT.glob("packages/gan-*"))}


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name if readme.parent != ROOT else "root")
def test_what_a_readme_shows_runs(readme, tmp_path):
    found = steps(readme)
    assert {words[0] for kind, words in found if kind == "bash"} <= programs()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # of the programs in a pipe
    threads = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}  # networks so small gain nothing from more
    program = [sys.executable, "-c", DRIVER]
    done = subprocess.run(program, input=json.dumps(found), cwd=tmp_path, capture_output=True, text=True, env=threads)
    assert done.returncode == 0, done.stderr[-2000:]


def test_installing_lines_name_folders_that_are_there():
    for readme in READMES:
        for line in readme.read_text("utf-8").splitlines():
            if line.startswith("pip install"):
                paths = [word for word in shlex.split(line, comments=True) if word.startswith("./")]
                assert paths
                assert [path for path in paths if not (ROOT / path / "pyproject.toml").is_file()] == []


def test_links_lead_somewhere():
    for readme in READMES:
        prose = re.sub(r"^```.*?^```", "", readme.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", prose):
            assert (readme.parent / target).exists(), f"{readme}: {target}"
