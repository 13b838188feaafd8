"""Result of an evaluation, shown as a table in the terminal and in notebooks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

from gan_core.cards import Scale
from gan_core.tables import html_table, table

DIGITS = 5
"""Number of significant digits of figures in tables."""


class Figures(dict[str, Any]):
    """Result of `evaluate`: a dictionary that is shown as a table.

    Keys: `model`, `data`, `samples`, `seed`; `metrics`, the figures by metric; `scales`, the unit and direction by
    figure (`unit` and `better`, see `gan_core.cards.Scale`); `protocol`, the protocol id of each metric; `protocols`,
    the protocols by id.
    """

    def __str__(self) -> str:
        """Returns one line per figure with its unit, direction and protocol id, and a table of the protocols."""
        protocols = table([("protocol", "", ""), *self._protocols()], width=shutil.get_terminal_size().columns)
        return f"{table(self._figures())}\n\n{protocols}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return html_table([("metric", "figure", "value", "scale", "protocol"), *self._figures()])

    def _figures(self) -> Iterator[tuple[object, ...]]:
        for metric, values in self["metrics"].items():
            for name, value in values.items():
                yield metric, name, f"{value:.{DIGITS}g}", str(Scale(**self["scales"][name])), self["protocol"][metric]

    def _protocols(self) -> Iterator[tuple[str, str, str]]:
        """Yields `(ids, key, value)` for every setting of a protocol; `ids` is `all` if all protocols share it."""
        protocols = self["protocols"]
        for key, value in dict.fromkeys(
            (key, str(value)) for each in protocols.values() for key, value in each.items()
        ):
            ids = [name for name, protocol in protocols.items() if str(protocol.get(key)) == value]
            yield " ".join(ids) if len(ids) < len(protocols) else "all", key, value
