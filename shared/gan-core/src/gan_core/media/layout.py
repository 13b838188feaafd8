"""Layout of pictures: grids of items, and round numbers on axes."""

from __future__ import annotations

import math
from dataclasses import dataclass


def columns_for(count: int, columns: int | None = None, *, width: float = 1, height: float = 1) -> int:
    """Returns the number of items in a row of a grid.

    Args:
        count: number of items.
        columns: requested number (default: the number for which the grid is about square).
        width: width of an item, in any unit.
        height: height of an item, in the same unit.
    """
    return min(count, columns or max(1, round(math.sqrt(count * height / width))))


@dataclass(frozen=True)
class Grid:
    """Grid of items, each of which has one or several cells side by side. All sizes are in pixels.

    Attributes:
        count: number of items.
        columns: number of items in a row.
        width: width of a cell.
        height: height of a cell.
        cells: number of cells per item.
        cell_gap: horizontal distance between the cells of one item.
        gap: distance between items.
        left, top, right, bottom: margins.
    """

    count: int
    columns: int
    width: int
    height: int
    cells: int = 1
    cell_gap: int = 0
    gap: int = 0
    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    @property
    def rows(self) -> int:
        return math.ceil(self.count / self.columns)

    @property
    def item_width(self) -> int:
        """Width of an item with all its cells."""
        return self.cells * (self.width + self.cell_gap) - self.cell_gap

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole grid with its margins."""
        across = self.left + self.columns * (self.item_width + self.gap) - self.gap + self.right
        return across, self.top + self.rows * (self.height + self.gap) - self.gap + self.bottom

    def corner(self, item: int, cell: int = 0) -> tuple[int, int]:
        """Returns the position of the upper left corner of a cell."""
        row, column = divmod(item, self.columns)
        left = self.left + column * (self.item_width + self.gap) + cell * (self.width + self.cell_gap)
        return left, self.top + row * (self.height + self.gap)


def round_step(minimum: float) -> float:
    """Returns the smallest distance between ticks that is at least `minimum`: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(minimum))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= minimum)


def ticks(low: float, high: float, step: float) -> list[float]:
    """Returns the multiples of a step from `low` to `high`."""
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
