"""Tables in Markdown, for the pages of results (`python3 tools/dev.py docs --update` writes these)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table whose first column is text and whose other columns are figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
