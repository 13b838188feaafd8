"""Runs the examples of a Markdown page in order, in an empty folder.

Blocks in Python and bash run; blocks without a language count as bash. In bash, each line is a command. All Python
blocks of a page share one namespace. Our own programs run in the same process, because importing torch takes longer
than most commands; other commands run in bash. Blocks in other languages are only shown: `text`, `yaml`, `json` and so
on, and `sh` and `py` for examples that a test cannot run, because they need a network, a GPU or a microphone.

Two kinds of comments, which are not displayed, adapt a page for the test:

- `<!-- test: --steps 20000 -> --steps 2 -->` before a block replaces text in the block, for example to train less.
- A comment that starts with the line `<!-- setup python` and ends with the line `-->` contains code that is run but not
  shown.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

RUN = ("bash", "python")
"""Languages of blocks that run."""
SHOWN = ("console", "csv", "html", "json", "py", "sh", "text", "toml", "yaml")
"""Languages of blocks that do not run."""
INSTALLING = ("pip install", "git clone", "python3 tools/dev.py")
"""First words of commands that change the installation; they are not run."""
SHELL = frozenset("|>&;<$*?{(")
"""Characters of command lines that need a shell."""

PIECES = re.compile(
    r"^<!-- test: (?P<old>.+?) -> (?P<new>.*?) ?-->$"
    r"|^<!-- setup (?P<hidden>bash|python)\n(?P<setup>.*?)^-->$"
    r"|^(?P<indent> *)(?P<fence>`{3,})(?P<language>\S*)[^\n]*\n(?P<body>.*?)^(?P=indent)(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)

PRELOADED = ("torch", "gan_core.api", "gan_core.cli.program", "gan_core.training.trainer")
"""Modules that are imported once for all pages, where processes can be forked."""
if sys.platform == "win32":
    SERVER = multiprocessing.get_context("spawn")
else:
    SERVER = multiprocessing.get_context("forkserver")
    SERVER.set_forkserver_preload(list(PRELOADED))


class Example(NamedTuple):
    """An example that runs: Python code, the words of a command of one of our programs, or lines for bash."""

    kind: Literal["python", "command", "shell"]
    source: str | list[str]


def programs() -> set[str]:
    """Returns the names of our installed command-line programs."""
    from importlib.metadata import entry_points

    from gan_core.cards import DOMAINS

    return {"gan", *(f"gan-{point.name}" for point in entry_points(group=DOMAINS))}


def examples(page: str) -> list[Example]:
    """Returns the examples of a page in order.

    Args:
        page: text of the page, in Markdown.

    Raises:
        ValueError: a block has an unknown language, or text to be replaced is not in the next block.
    """
    found: list[Example] = []
    changes: list[tuple[str, str]] = []
    for piece in PIECES.finditer(page):
        if piece["old"] is not None:
            changes.append((piece["old"], piece["new"]))
            continue
        language = piece["hidden"] or piece["language"] or "bash"
        body = piece["setup"] if piece["hidden"] else textwrap.dedent(piece["body"])
        for old, new in changes:
            if language not in RUN or old not in body:
                raise ValueError(f"`<!-- test: {old} -> {new} -->` does not apply to the block after it:\n{body}")
            body = body.replace(old, new)
        changes = []
        if language == "python":
            found.append(Example("python", body))
        elif language == "bash":
            found += commands(body)
        elif language not in SHOWN and not language.startswith("{"):
            raise ValueError(
                f"a block has the language `{language}`; expected one of {', '.join(RUN + SHOWN)}:\n{body}"
            )
    return found


def commands(block: str) -> Iterator[Example]:
    """Yields the commands of a block in bash: one for each line, or the whole block if it contains a here-document."""
    if "<<" in block:
        yield Example("shell", block)
        return
    for line in block.replace("\\\n", " ").splitlines():
        words = [] if line.startswith(INSTALLING) else shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "cd":
            raise ValueError(f"`{line}`: the examples of a page run in one folder; write paths from there")
        needs_shell = words[0] not in programs() or any(SHELL & set(word) for word in unquoted(line))
        yield Example("shell", line) if needs_shell else Example("command", words)


def unquoted(line: str) -> list[str]:
    """Returns the words of a command line, without quoted words and comments."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars=False)
    lexer.whitespace_split = True
    return [word for word in lexer if not word.startswith(("'", '"'))]


def run(found: Sequence[Example], folder: Path) -> str | None:
    """Runs examples in a folder, in a new process.

    Args:
        found: the examples.
        folder: the working directory.

    Returns:
        None if all of them succeed; otherwise the end of standard error, and the exit status (negative: a signal).
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # for our programs in a shell
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}  # such small networks gain nothing from more
    with tempfile.TemporaryDirectory() as outside:
        errors = Path(outside) / "stderr"
        page = SERVER.Process(target=play, args=(list(found), folder, errors, environment))
        page.start()
        page.join()
        status = page.exitcode
        page.close()
        return None if status == 0 else f"{errors.read_text('utf-8', 'replace')[-3000:]}\nexit status {status}"


def play(found: Sequence[Example], folder: Path, errors: Path, environment: dict[str, str]) -> None:
    """Runs examples in this process, which ends with them; stops at the first that fails.

    Args:
        found: the examples.
        folder: the working directory.
        errors: file for standard error.
        environment: environment variables.
    """
    import torch

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, file, mode in ((0, os.devnull, "r"), (1, os.devnull, "w"), (2, errors, "w")):
        with open(file, mode) as stream:
            os.dup2(stream.fileno(), descriptor)
    torch.set_num_threads(1)
    names: dict[str, Any] = {"__name__": "page"}
    for kind, source in found:
        print(f"--- {source}", file=sys.stderr, flush=True)  # noqa: T201
        if isinstance(source, str):
            if kind == "python":
                exec(compile(source, "page", "exec"), names)  # the page's own code
            else:
                subprocess.run(["bash", "-e", "-o", "pipefail", "-c", source], check=True)
        else:
            program, *sys.argv[1:] = source
            try:
                import_module(f"{program.replace('-', '_')}.__main__").main()
            except SystemExit as end:
                if end.code:
                    sys.exit(f"{source} ended with {end.code}")
