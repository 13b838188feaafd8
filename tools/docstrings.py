#!/usr/bin/env python3
"""Checks how docstrings begin; with the standard library only.

    python tools/docstrings.py            # all sources; exit status 1 if one breaks a rule
    python tools/docstrings.py FILE…

- No docstring (of a module, class, function or constant), and no entry of its sections `Args` and `Attributes`, begins
  with "Of", "That", "What", "How", "So many", "Where" or "Which".
- The docstring of a function begins with a verb in the third person: "Returns", "Computes", "Reads". Exceptions are
  properties, which are described by a noun phrase, formulas (`-E[log D(x)]`), functions that return a context manager
  ("Context manager that …"), methods to override ("Called before …"), and methods that override ("See `Base.method`.").
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("shared/*/src/**/*.py", "packages/*/src/**/*.py", "tools/**/*.py")
REFUSED = re.compile(r"(?:of|that|what|how|so many|where|which)\b", re.IGNORECASE)
"""First words with which no docstring may begin."""
VERB = re.compile(r"[A-Z][a-z-]*[a-rt-z]s\b(?!')")
"""First word of a function's docstring: a word with the ending of a verb in the third person."""
ALLOWED = re.compile(r"(?:Called|Context)\b|See `|[^A-Za-z`]|[A-Z]\[|[A-Z]\(")
"""Other beginnings of functions' docstrings: "Called", "Context", "See `METHOD`", and formulas."""
SECTION = re.compile(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^    (\*{0,2}\w+): (.*)", re.MULTILINE)

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def findings(source: str) -> Iterator[tuple[int, str]]:
    """Yields the line of each docstring that breaks a rule, and the reason.

    Args:
        source: text of a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Documented):
            yield from _docstring_findings(node)
            yield from _constant_findings(node)


def _docstring_findings(node: Documented) -> Iterator[tuple[int, str]]:
    text = ast.get_docstring(node)
    if not text:
        return
    line = node.body[0].lineno
    if REFUSED.match(text):
        yield line, f"begins with “{text.split()[0]}”: {_start(text)}"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_verb(node, text):
        yield line, f"does not begin with a verb in the third person (Returns, Computes …): {_start(text)}"
    for section in SECTION.finditer(text):
        for entry in ENTRY.finditer(section[1]):
            if REFUSED.match(entry[2]):
                yield line, f"`{entry[1]}` begins with “{entry[2].split()[0]}”: {_start(entry[2])}"


def _constant_findings(node: Documented) -> Iterator[tuple[int, str]]:
    """Yields the findings of texts that follow an assignment."""
    for before, after in zip(node.body, node.body[1:], strict=False):
        if not isinstance(before, ast.Assign | ast.AnnAssign):
            continue
        match after:
            case ast.Expr(value=ast.Constant(value=str(text))) if REFUSED.match(text):
                yield after.lineno, f"begins with “{text.split()[0]}”: {_start(text)}"


def _is_verb(node: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> bool:
    decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
    return "property" in decorators or bool(VERB.match(text) or ALLOWED.match(text))


def _start(text: str) -> str:
    line = text.splitlines()[0]
    return line if len(line) <= 80 else f"{line[:79]}…"


def main(arguments: Sequence[str]) -> int:
    """Prints the findings of files (default: all sources) and returns the exit status."""
    files = [Path(name) for name in arguments] or sorted(file for each in SOURCES for file in ROOT.glob(each))
    found = [(file, *finding) for file in files for finding in findings(file.read_text("utf-8"))]
    for file, line, reason in found:
        print(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}:{line}: {reason}")
    if found:
        print(f"{len(found)} docstrings to rewrite", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
