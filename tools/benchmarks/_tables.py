"""Tables of results in a README, each between `<!-- NAME -->` and `<!-- /NAME -->`: generated, and tested to be so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

README = Path(__file__).parents[2] / "shared" / "gan-core" / "README.md"
"""Where the tables of objectives and regularizers are."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: the first column is text, the others are figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def place(name: str) -> re.Pattern[str]:
    """Matches what lies between a table's marks."""
    return re.compile(rf"(?<=<!-- {name} -->\n\n).*?(?=\n<!-- /{name} -->)", re.DOTALL)


def shown(name: str) -> str:
    """The table that the README shows."""
    (table,) = place(name).findall(README.read_text(encoding="utf-8"))
    return str(table)


def show(name: str, table: str) -> None:
    """Puts a table in the place of the one that the README shows."""
    text = README.read_text(encoding="utf-8")
    README.write_text(place(name).sub(lambda _: table, text), encoding="utf-8")
