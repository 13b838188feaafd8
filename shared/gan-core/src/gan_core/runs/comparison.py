"""A comparison of several runs on one web page: differences of their recipes, samples, figures and curves.

It uses the parts of `gan_core.runs.report`, with the same limits and the same security policy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from gan_core.errors import InputError
from gan_core.runs.chart import COLOURS, chart, compact, text
from gan_core.runs.record import REAL, RunRecord, read_run
from gan_core.runs.report import MAX_CHARTS, figure, note, section, series, state, write_page

MAX_DIFFERENCES = 40
"""Maximum number of differing settings that are shown."""

Runs = Mapping[str, RunRecord]


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Writes a page that compares several runs and returns its path.

    Raises:
        InputError: fewer than two runs or more than `COLOURS` are given, a run is given twice, or `out` is a folder.
        CheckpointError: a folder is not a run.
        GanError: the page could not be written.
    """
    if not 2 <= len(folders) <= COLOURS:
        raise InputError(f"{len(folders)} runs are given; expected 2 to {COLOURS}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("a run is given twice; give each once")
    if out.is_dir():
        raise InputError(f"{out}: is a folder; give the name of a file, such as `--out comparison.html`")
    runs = dict(zip(names(folders), map(read_run, folders), strict=True))
    header = f'<p class="eyebrow">Comparison</p>\n<h1>{len(runs)} runs</h1>\n'
    sections = "".join(part(runs) for part in (overview, differences, samples, figures, curves))
    return write_page(out, f"Comparison of {', '.join(runs)}", header, sections)


def names(folders: Sequence[Path]) -> list[str]:
    """Returns short, distinct names, which are the last parts of each path."""
    parts = [folder.resolve().parts for folder in folders]
    depth = next(
        depth for depth in range(1, max(map(len, parts)) + 1) if len({p[-depth:] for p in parts}) == len(parts)
    )
    return ["/".join(part[-depth:]) for part in parts]


def table(head: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Returns a table of HTML cells, with a header for each column and each row."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for name, cells in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def overview(runs: Runs) -> str:
    """Returns the section with the system, data, state and speed of each run."""

    def cells(run: RunRecord) -> list[str]:
        speeds = [entry.values.get("samples_per_second", math.nan) for entry in run.training]
        speeds = [speed for speed in speeds if math.isfinite(speed)]
        speed = f"{compact(median(speeds))}/s" if speeds else ""
        return [
            text(run.title),
            text(run.setting("preset")),
            text(" ".join(run.data)),
            state(run),
            f"{run.done:,}",
            speed,
        ]

    head = ("Run", "System", "Preset", "Data", "State", "Steps", "Samples")
    return section("Runs", table(head, ((text(name), cells(run)) for name, run in runs.items())))


def differences(runs: Runs) -> str:
    """Returns the section with the settings that differ, by dotted key."""
    flat = [dict(flattened(run.recipe)) for run in runs.values()]
    keys = [key for key in dict.fromkeys(key for each in flat for key in each) if len({e.get(key) for e in flat}) > 1]
    rows = ((text(key), (text(each.get(key, "–"), 60) for each in flat)) for key in keys[:MAX_DIFFERENCES])
    return section(
        "Settings that differ",
        table(["Setting", *map(text, runs)], rows) if keys else note("The recipes are the same."),
        note(f"{len(keys) - MAX_DIFFERENCES} more settings are not shown." if len(keys) > MAX_DIFFERENCES else ""),
    )


def flattened(settings: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yields the scalars of a recipe by dotted key."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from flattened(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(settings, list):
        yield prefix, ", ".join(map(str, settings))
    else:
        yield prefix, str(settings)


def samples(runs: Runs) -> str:
    """Returns the section with the last generated samples of each run."""
    shown = []
    for name, run in runs.items():
        last = max(run.frames, default=REAL)
        if last > REAL:
            shown.append(figure(run.frames[last], f"{text(name)}, step {last:,}"))
    missing = [name for name, run in runs.items() if max(run.frames, default=REAL) == REAL]
    return section(
        "Samples",
        f'<div class="pair">{"".join(shown)}</div>' if shown else "",
        note(f"No samples yet: {text(', '.join(missing))}." if missing else ""),
    )


def last_figures(run: RunRecord) -> dict[str, tuple[float, str, str]]:
    """Returns the value, the protocol id and the scale of each figure, from the last evaluation that computed it."""
    found: dict[str, tuple[float, str, str]] = {}
    for entry in run.evaluations[-1:]:
        for key, value in entry.values.items():
            name = key.removeprefix("evaluation/")
            if name != key:
                found[name] = value, entry.protocols.get(name, "unknown"), entry.scales.get(name, "")
    return found | {each.name: (each.value, each.protocol, each.scale) for each in run.measured}


def figures(runs: Runs) -> str:
    """Returns the section with the last figures of each run. Figures with different protocols are marked."""
    last = {name: last_figures(run) for name, run in runs.items()}
    rows, marked = [], False
    for measure in islice(dict.fromkeys(key for found in last.values() for key in found), MAX_CHARTS):
        known = [found[measure] for found in last.values() if measure in found]
        several = len({protocol for _, protocol, _ in known}) > 1
        marked |= several
        cells = []
        for found in last.values():
            value, protocol, _ = found.get(measure, (None, "", ""))
            mark = f" <small>({text(protocol)})</small>" if several else ""
            cells.append("" if value is None else compact(value) + mark)
        scale = next((scale for _, _, scale in known if scale), "")
        rows.append((text(f"{measure} ({scale})" if scale else measure), cells))
    if not rows:
        return section("Figures", note("No run has figures; use `evaluate`, or set `train.evaluate_every`."))
    warning = "Figures with different protocols (in brackets) are not comparable." if marked else ""
    return section("Figures", table(["Figure", *map(text, runs)], rows), note(warning))


def curves(runs: Runs) -> str:
    """Returns the section with a chart of each figure and loss, with a line per run.

    Figures with different protocols are not drawn together.
    """
    charts: list[str] = []
    left_out: list[str] = []
    for kind in ("evaluations", "training"):
        found = {name: series(getattr(run, kind)) for name, run in runs.items()}
        terms = dict.fromkeys((p, t) for players in found.values() for p, ts in players.items() for t in ts)
        for player, term in terms:
            lines = {name: players[player][term] for name, players in found.items() if term in players.get(player, {})}
            ids = {entry.protocols.get(term) for run in runs.values() for entry in run.evaluations}
            if kind == "evaluations" and len(ids - {None}) > 1:
                left_out.append(term)
            elif max(map(len, lines.values())) > 1:
                label = term if term == "samples per second" else f"{player}/{term}"
                charts.append(chart(label, lines, max(points[-1][0] for points in lines.values())))
    return section(
        "Curves",
        f'<div class="charts">{"".join(charts[:MAX_CHARTS])}</div>',
        note(f"{len(charts) - MAX_CHARTS} more charts are not shown." if len(charts) > MAX_CHARTS else ""),
        note(f"Not drawn because the protocols differ: {text(', '.join(left_out))}." if left_out else ""),
    )
