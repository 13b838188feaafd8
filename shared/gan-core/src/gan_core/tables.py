"""Tables as aligned text and as HTML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from html import escape

LEAST_WIDTH = 20
"""Minimum width of a wrapped column, in characters."""


LONGEST_CELL = 200
"""Maximum length of a cell in HTML, in characters. Longer text is truncated."""


def table(rows: Iterable[Iterable[object]], *, width: int | None = None) -> str:
    """Returns rows as aligned columns that are two spaces apart.

    Args:
        rows: rows of cells; all rows have the same length.
        width: maximum line length, to which the last column is wrapped (default: unlimited).
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    indent = sum(widths[:-1]) + 2 * len(widths[:-1])
    lines = []
    for *first, last in cells:
        start = "".join(cell.ljust(size) + "  " for cell, size in zip(first, widths, strict=False))
        wrapped = [last] if width is None else _wrapped(last, width - indent)
        lines.append(f"{start}{wrapped[0]}".rstrip())
        lines += [" " * indent + line for line in wrapped[1:]]
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, LEAST_WIDTH), break_on_hyphens=False) or [""]


def html_table(rows: Iterable[Iterable[object]]) -> str:
    """Returns rows as an HTML table; the first cell of each row is its header. Text is escaped."""
    lines = []
    for head, *cells in rows:
        data = "".join(
            f"<td>{escape(textwrap.shorten(str(cell), LONGEST_CELL, placeholder=' …'))}</td>" for cell in cells
        )
        lines.append(f'<tr><th style="text-align:left">{escape(str(head))}</th>{data}</tr>')
    return f"<table>{''.join(lines)}</table>"
