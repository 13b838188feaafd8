"""Charts of values over steps, as SVG that is styled by the report's style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from gan_core.media.layout import round_step, ticks

COLOURS = 8
"""Maximum number of lines in a chart: the number of colours in the style sheet."""
BUCKETS = 240
"""Maximum number of points in a line, about one for every four pixels."""
MAX_PHASES = 24
"""Maximum number of phases whose starts are marked."""

Points = Sequence[tuple[int, float, int]]
"""Points of a line: step, value and index of the phase."""


@dataclass(frozen=True)
class Axis:
    """A range of values."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Returns a value's position in percent of the axis, limited to [-50, 150]."""
        return min(max(100 * (value - self.low) / (self.high - self.low), -50.0), 150.0)

    def ticks(self, count: int) -> list[float]:
        """Returns round values on the axis, at most about `count`."""
        return ticks(self.low, self.high, round_step((self.high - self.low) / count))


def value_axis(values: Sequence[float], *, from_zero: bool = False) -> tuple[Axis, int]:
    """Returns an axis for the values, and the number of outliers beyond it, which would flatten the other values."""
    values = sorted(value for value in values if math.isfinite(value)) or [0.0]
    low, high, rim = values[0], values[-1], len(values) // 100
    if rim and high - low > 2 * (values[-1 - rim] - values[rim]):
        low, high = values[rim], values[-1 - rim]
    low = min(low, 0.0) if from_zero else low
    margin = max(0.05 * (high - low), 0.005 * max(abs(low), abs(high))) or 1.0
    axis = Axis(low - margin * (low != 0), high + margin)
    return axis, sum(not axis.low <= value <= axis.high for value in values)


def curve(points: Points, colour: int, x: Axis, y: Axis) -> str:
    """Returns a line as SVG: medians of neighbouring points, a band over their range, × for non-finite values."""
    groups: dict[tuple[int, int], list[float]] = {}
    for step, value, phase in points:
        groups.setdefault((phase, round(x.at(step) * BUCKETS / 100)), []).append(value)
    runs: list[list[tuple[str, str, str]]] = [[]]  # low, middle, high of each bucket, until a gap
    crosses, before = "", None
    for (phase, bucket), values in groups.items():
        left, finite = 100 * bucket / BUCKETS, [value for value in values if math.isfinite(value)]
        if len(finite) < len(values):
            crosses += f'<text class="cross c{colour}" x="{left:.2f}%" dy="12">×</text>'
        if phase != before or not finite:
            runs.append([])
        if finite:
            low, middle, high = (f"{left:.2f} {100 - y.at(v):.2f}" for v in (min(finite), median(finite), max(finite)))
            runs[-1].append((low, middle, high))
        before = phase
    band = "".join("M" + "L".join([p[2] for p in run] + [p[0] for p in run[::-1]]) + "Z" for run in runs if run[1:])
    line = "".join("M" + "L".join(p[1] for p in run) for run in runs if run)
    lone = [run[0][1].split() for run in runs if len(run) == 1]
    dots = "".join(
        f'<circle class="c{colour}" cx="{left}%" cy="{top}%" r="3"/>' for left, top in lone if 0 <= float(top) <= 100
    )
    paths = f'<path class="band" d="{band}"/><path class="line" d="{line}"/>'
    return f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" class="c{colour}">{paths}</svg>{dots}{crosses}'


def grid(x: Axis, y: Axis) -> str:
    """Returns the ticks of both axes as SVG."""
    up = [(f"{100 - y.at(tick):.2f}%", compact(tick)) for tick in y.ticks(7)]
    across = [(f"{x.at(tick):.2f}%", compact(tick)) for tick in x.ticks(5)]
    return "".join(
        f'<line class="grid" x2="100%" y1="{top}" y2="{top}"/><text class="up" y="{top}" dx="-8" dy="4">{label}</text>'
        for top, label in up
    ) + "".join(f'<text class="across" x="{left}" y="100%" dy="18">{label}</text>' for left, label in across)


def boundaries(x: Axis, starts: Sequence[int]) -> str:
    """Returns SVG marks at the start of each phase: a line, and the phase number unless the next mark is too close."""
    if not 1 < len(starts) <= MAX_PHASES:
        return ""
    places = [x.at(step) for step in starts]
    return "".join(
        f'<line class="phase" x1="{left:.2f}%" x2="{left:.2f}%" y2="100%"/>'
        + f'<text x="{left:.2f}%" dx="4" dy="-5">{index}</text>' * (right - left > 4)
        for index, (left, right) in enumerate(pairwise([*places, 100.0]), 1)
    )


def chart(
    title: str, terms: Mapping[str, Points], last: int, *, starts: Sequence[int] = (), from_zero: bool = False
) -> str:
    """Returns a chart of lines over the steps from 0 to `last`: SVG of any width, a legend, and notes.

    Args:
        title: title of the chart.
        terms: points of each line, by label; at most `COLOURS` lines.
        last: step at the right end.
        starts: steps at which phases start.
        from_zero: whether the vertical axis includes zero.
    """
    values = [value for points in terms.values() for _, value, _ in points]
    finals = {term: compact(points[-1][1]) for term, points in terms.items()}
    x, (y, beyond) = Axis(0, max(last, 1)), value_axis(values, from_zero=from_zero)
    lost = sum(not math.isfinite(value) for value in values)
    notes = [
        f"{beyond} of {len(values)} values are beyond the axis (1st to 99th percentile). " * (beyond > 0),
        f"{lost} of {len(values)} values are not finite (×). " * (lost > 0),
        "Lines show medians of neighbouring steps, bands their range." * (max(map(len, terms.values())) > BUCKETS),
    ]
    legend = "".join(
        f'<li><svg class="c{colour}" aria-hidden="true"><line class="line" x2="100%" y1="50%" y2="50%"/></svg>'
        f"{text(term)} <b>{value}</b></li>"
        for colour, (term, value) in enumerate(finals.items())
    )
    summary = f"{title} until step {last}. Last values: {', '.join(' '.join(pair) for pair in finals.items())}"
    lines = "".join(curve(points, colour, x, y) for colour, points in enumerate(terms.values()))
    return (
        f'<figure class="chart"><h3>{text(title)}</h3><ul class="legend">{legend}</ul>'
        f'<svg class="plot" role="img" aria-label="{text(summary, 600)}">'
        f"{grid(x, y)}{boundaries(x, starts)}{lines}</svg>"
        f"<figcaption>{''.join(notes)}</figcaption></figure>\n"
    )


def text(value: str, limit: int = 160) -> str:
    """Escapes untrusted text for HTML, and truncates it to `limit` characters."""
    return html.escape(value if len(value) <= limit else f"{value[: limit - 1]}…")


def compact(value: float) -> str:
    """Formats a number with four significant digits: 0.7123, 1.2k, 30M."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if unit <= abs(value) < 1e12:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}" if math.isfinite(value) else "not finite"
