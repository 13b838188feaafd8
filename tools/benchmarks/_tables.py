"""Generated tables of results in READMEs, each between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = tuple(sorted(path for path in ROOT.glob("*/*/README.md") if path.parts[-3] in ("packages", "shared")))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table with a column of text, followed by columns of figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def place(name: str) -> re.Pattern[str]:
    """Returns a pattern that matches the table between its marks."""
    return re.compile(rf"(?<=<!-- {name} -->\n\n).*?(?=\n<!-- /{name} -->)", re.DOTALL)


def shown(name: str) -> str:
    """Returns a table from the README."""
    (table,) = place(name).findall(_home(name).read_text(encoding="utf-8"))
    return str(table)


def show(name: str, table: str) -> None:
    """Replaces a table in the README."""
    home = _home(name)
    home.write_text(place(name).sub(lambda _: table, home.read_text(encoding="utf-8")), encoding="utf-8")


def _home(name: str) -> Path:
    """Returns the README with a table."""
    (home,) = (path for path in READMES if f"<!-- {name} -->" in path.read_text(encoding="utf-8"))
    return home
