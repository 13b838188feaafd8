"""Tables of results in a README, each between `<!-- NAME -->` and `<!-- /NAME -->`: generated, and tested to be so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = tuple(sorted(path for path in ROOT.glob("*/*/README.md") if path.parts[-3] in ("packages", "shared")))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: the first column is text, the others are figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def place(name: str) -> re.Pattern[str]:
    """Matches what lies between a table's marks."""
    return re.compile(rf"(?<=<!-- {name} -->\n\n).*?(?=\n<!-- /{name} -->)", re.DOTALL)


def shown(name: str) -> str:
    """The table that a README shows."""
    (table,) = place(name).findall(_home(name).read_text(encoding="utf-8"))
    return str(table)


def show(name: str, table: str) -> None:
    """Puts a table in the place of the one that a README shows."""
    home = _home(name)
    home.write_text(place(name).sub(lambda _: table, home.read_text(encoding="utf-8")), encoding="utf-8")


def _home(name: str) -> Path:
    (home,) = (path for path in READMES if f"<!-- {name} -->" in path.read_text(encoding="utf-8"))
    return home
