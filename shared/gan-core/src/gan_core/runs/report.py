"""The report of a run: a web page with its state, samples, losses, evaluations, and commands to continue.

`read_run` reads a folder into a frozen `RunRecord`. For each section of the page, a function returns HTML for that
record, and `gan_core.runs.chart` draws the charts. Everything on disk is untrusted: its size is bounded, text is
escaped, links that lead out of the folder are not followed, and the page's security policy forbids all requests and all
scripts except its own. The page depends only on the folder: the same folder gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import shlex
import string
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import islice
from pathlib import Path
from statistics import median

from gan_core.errors import InputError
from gan_core.media.writing import replacing
from gan_core.runs.advice import resume_command
from gan_core.runs.chart import COLOURS, MAX_PHASES, chart, compact, text
from gan_core.runs.record import MAX_RECIPE, MAX_TEXT, MIME, REAL, Entry, Media, RunRecord, read_run
from gan_core.runs.symptoms import find_symptoms

MAX_CHARTS = 24
"""Maximum number of charts in a section."""
MAX_FIGURES = 40
"""Maximum number of figures of the trained model."""
SPEED = "speed"
"""Key of `samples_per_second`, in place of a player."""


def series(entries: Sequence[Entry]) -> dict[str, dict[str, list[tuple[int, float, int]]]]:
    """Returns points by player (`generator/mpd` for one of several adversaries) and term; the speed comes last."""
    players: dict[str, dict[str, list[tuple[int, float, int]]]] = {}
    phase, before = 0, ""
    for entry in entries:
        phase, before = phase + (entry.phase != before), entry.phase
        for key, value in entry.values.items():
            player, slash, term = key.rpartition("/")
            if key == "samples_per_second":
                player, slash, term = SPEED, "/", "samples per second"
            elif term == "gradient_norm":  # on another scale than the losses
                player, term = "gradient norm", player
            if slash:
                players.setdefault(player, {}).setdefault(term, []).append((entry.step, value, phase))
    return dict(sorted(players.items(), key=lambda item: item[0] == SPEED))


def section(title: str, *parts: str) -> str:
    """Returns a section of the page."""
    return f"<section>\n<h2>{title}</h2>\n{''.join(parts)}\n</section>\n"


def prose(sentence: str, limit: int) -> str:
    """Returns a sentence as HTML, with settings and commands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", text(sentence, limit))


def note(sentence: str) -> str:
    """Returns a sentence as an HTML paragraph, or an empty string if it is empty."""
    return f'<p class="note">{sentence}</p>' if sentence else ""


def state(run: RunRecord) -> str:
    """Returns the state of the run in a few words."""
    if run.rollbacks and run.rollbacks[-1].step >= run.done:
        to = run.rollbacks[-1].to
        return "Not finite" if to is None else f"Rolled back to step {to:,}"
    if run.training and any(not math.isfinite(value) for value in run.training[-1].values.values()):
        return "Loss not finite"
    return "Finished" if run.finished else "Not finished" if run.done else "Not started"


def header(run: RunRecord) -> str:
    """Returns the page's header: names and key figures of the run."""
    speeds = [entry.values.get("samples_per_second", math.nan) for entry in run.training]
    speeds = [speed for speed in speeds if math.isfinite(speed)]
    first, last = run.written
    facts = {
        "State": state(run),
        "Steps": f"{run.done:,} of {run.planned:,}" if run.planned else f"{run.done:,}",
        "Median speed": f"{compact(median(speeds))} samples/s" if speeds else "not logged",
        "First to last file": str(timedelta(seconds=int(last - first))) if last - first >= 1 else "",
        "Last written": f"{datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M} UTC",
    }
    names = {"domain": run.setting("domain"), "preset": run.setting("preset"), "data": " ".join(run.data)}
    about = "".join(f"<li>{key} <b>{text(value)}</b></li>" for key, value in names.items() if value)
    cells = "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in facts.items() if value)
    return (
        f'<p class="eyebrow">Training report</p>\n<h1>{text(run.title)}</h1>\n<ul class="about">{about}</ul>\n'
        f'<progress max="{run.planned or 1}" value="{min(run.done, run.planned)}" aria-label="Steps done"></progress>\n'
        f"<dl>{cells}</dl>"
    )


def comparison(run: RunRecord) -> str:
    """Returns the section with real samples and the last generated ones."""
    real, last = run.frames.get(REAL), max(run.frames, default=REAL)
    pair = figure(real, "Real") if real else ""
    pair += figure(run.frames[last], f"Generated at step {last:,}", "generated") if last > REAL else ""
    missing = "" if last > REAL else "No samples have been generated yet." if real else "There are no samples yet."
    missing = missing or ("" if real else "The run has no real samples to compare with.")
    return section("Real and generated samples", f'<div class="pair">{pair}</div>' if pair else "", note(missing))


def over_time(run: RunRecord) -> str:
    """Returns the section with samples of several steps, from the first to the last."""
    shown = [step for step in run.frames if step != REAL]
    strip = "".join(figure(run.frames[step], f"Step {step:,}") for step in shown)
    left_out = f"{len(shown)} of {len(run.steps)} steps with samples are shown; the others are in the run folder."
    left_out = note(left_out if len(shown) < len(run.steps) else "")
    return section("Samples over time", f'<div class="strip">{strip}</div>', left_out) if len(shown) > 1 else ""


def figure(media: Sequence[Media], caption: str, role: str = "") -> str:
    """Returns the figure of one step's sample files."""
    shown = "".join(embed(item, caption) for item in media)
    return f'<figure class="sample {role}">{shown}<figcaption>{caption}</figcaption></figure>\n'


def embed(media: Media, alt: str) -> str:
    """Returns the HTML element that shows or plays a sample file."""
    kind = MIME.get(Path(media.name).suffix.lower(), "")
    if media.data is None:
        reason = ("too large" if media.size else "empty") if kind else "this format has no preview"
        return note(f"{text(media.name)} ({math.ceil(media.size / 1024):,} KiB) is not embedded: {reason}.")
    if kind == "text/plain":
        return f'<pre tabindex="0">{text(media.data.decode("utf-8", "replace"), MAX_TEXT)}</pre>'
    source = f'src="data:{kind};base64,{base64.b64encode(media.data).decode()}"'
    if kind.startswith("image/"):
        return f'<img {source} alt="{alt}" {image_size(media.data)}>'
    tag = kind.partition("/")[0]
    return f'<{tag} controls preload="metadata" {source} aria-label="{alt}"></{tag}>'


def image_size(data: bytes) -> str:
    """Returns the size of a PNG or GIF as HTML attributes, and a class that enlarges small images."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") * (data[:4] == b"GIF8") for at in (6, 8))
    kind = "tiny" if width <= 160 else "small" if width <= 640 else "large"
    return f'width="{width}" height="{height}" class="{kind}"' if width and height else ""


def findings(run: RunRecord) -> str:
    """Returns the section with the doctor's findings, problems first, and charts of the diagnostics."""
    checks = sorted(find_symptoms(run), key=lambda check: check.good)
    rows = "".join(
        f'<tr><th scope="row">{text(check.name)}</th><td>{"ok" if check.good else "<b>problem</b>"}</td>'
        f"<td>{prose(check.finding, 1000)}</td></tr>"
        for check in checks
        if check.seen
    )
    not_checked = "".join(note(prose(f"{check.name}: {check.finding}", 300)) for check in checks if not check.seen)
    table = f'<div class="wide"><table><tr><th>Check</th><th>Result</th><th>Finding</th></tr>{rows}</table></div>'
    charts = "".join(chart(subject, terms, run.done) for subject, terms in series(run.diagnostics).items())
    charts = f'<div class="charts">{charts}</div>' if len(run.diagnostics) > 1 else ""
    return section("Diagnosis", table, not_checked, charts)


def curves(run: RunRecord) -> str:
    """Returns the section with a chart of each player's terms, and one of the speed."""
    if not run.training:
        return section("Losses", note("Nothing has been logged yet."))
    charts, phases = [], run.phases
    starts = [phase.step for phase in phases]
    for player, terms in series(run.training).items():
        for start in range(0, len(terms), COLOURS):
            part = dict(islice(terms.items(), start, start + COLOURS))
            title = player + " (continued)" * (start > 0)
            charts.append(chart(title, part, run.training[-1].step, starts=starts, from_zero=player == SPEED))
    names = "".join(f"<li>{text(p.phase)} <span>from step {p.step:,}</span></li>" for p in phases[:MAX_PHASES])
    return section(
        "Losses and speed",
        f'<ol class="phases">{names}</ol>' if len(phases) > 1 else "",
        f'<div class="charts">{"".join(charts[:MAX_CHARTS])}</div>',
        note(f"{len(charts) - MAX_CHARTS} more charts are not shown." if len(charts) > MAX_CHARTS else ""),
        note(f"The log is large: one in {run.stride} of its lines was read." if run.stride > 1 else ""),
        note(f"Damaged lines of the log: {run.damaged_lines}." if run.damaged_lines else ""),
    )


def evaluation(run: RunRecord) -> str:
    """Returns the section with the figures of the trained model, and the metrics during training with charts."""
    latest = {(each.name, each.protocol, each.samples): each for each in run.measured}
    measured = "".join(
        f'<tr><th scope="row">{text(each.name)}</th><td>{in_unit(each.value, each.scale)}</td><td>{each.step:,}</td>'
        f"<td>{text(each.data)}</td><td>{each.samples:,}</td><td>{protocol(each.protocol, each.settings)}</td></tr>"
        for each in [*latest.values()][-MAX_FIGURES:]
    )
    metrics = dict(islice(series(run.evaluations).get("evaluation", {}).items(), MAX_CHARTS))
    protocols, scales = (run.evaluations[-1].protocols, run.evaluations[-1].scales) if run.evaluations else ({}, {})
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{in_unit(points[-1][1], scales.get(name))}</td>'
        f"<td>{points[-1][0]:,}</td><td>{text(protocols.get(name, ''))}</td></tr>"
        for name, points in metrics.items()
    )
    charts = [chart(name, {name: points}, run.done) for name, points in metrics.items() if len(points) > 1]
    columns = ("Figure", "Value", "Step", "Data", "Samples", "Protocol")
    tables = rows_in_table(columns, measured) + rows_in_table(("In training", "Value", "Step", "Protocol"), rows)
    return section("Evaluation", tables, f'<div class="charts">{"".join(charts)}</div>') if tables else ""


def rows_in_table(columns: Sequence[str], rows: str) -> str:
    """Returns a table, or an empty string if it has no rows."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>' if rows else ""


def protocol(name: str, settings: Mapping[str, str]) -> str:
    """Returns a protocol id that opens to the protocol's settings."""
    items = "".join(f"<dt>{text(key)}</dt><dd>{text(value, 1000)}</dd>" for key, value in settings.items())
    return f"<details><summary>{text(name)}</summary><dl>{items}</dl></details>"


def in_unit(value: float, scale: str | None) -> str:
    """Returns a figure with its unit and direction, if it has any."""
    return compact(value) + (f" <small>{text(scale)}</small>" if scale else "")


def next_steps(run: RunRecord) -> str:
    """Returns the section with commands that continue or use the run; Python code for a game that was built by hand."""
    lines = commands(run) if run.setting("preset") else by_hand(run)
    rows = (f"<dt>{name}</dt><dd><code>{text(line, 1000)}</code></dd>" for name, line in lines.items())
    where = note("Run these in the folder that contains the run. Paths of data are shortened to their last part.")
    return section("Next steps", where, f'<dl class="commands">{"".join(rows)}</dl>') if lines else ""


def commands(run: RunRecord) -> dict[str, str]:
    """Returns the commands that apply to a run of a domain's system."""
    domain, folder = run.setting("domain"), shlex.quote(run.name)
    program = f"gan-{domain}" if re.fullmatch("[a-z0-9]{1,20}", domain) else "gan"
    lines: dict[str, str] = {}
    if run.checkpoint is not None:
        lines |= resuming(run, program)
    if run.checkpoint is not None or run.has_model:
        lines["Generate"] = f"{program} generate {folder} -n 64 --out generated"
        places = " ".join(f"--data {shlex.quote(place)}" for place in run.data or ["NAME"])
        lines["Evaluate"] = f"{program} evaluate {folder} {places}"
    if run.setting("system"):
        recipe = shlex.quote(f"{run.name}/recipe.yaml")
        lines["Train again"] = f"{program} train {shlex.quote(run.setting('system'))} --recipe {recipe} --out NEW"
    return lines | {"Diagnose": f"{program} doctor {folder}"}


def by_hand(run: RunRecord) -> dict[str, str]:
    """Returns the Python calls for a game that the command line cannot build."""
    lines: dict[str, str] = {}
    if run.checkpoint is not None:
        lines |= resuming(run, None)
    if run.checkpoint is not None or run.has_model:
        lines["Load"] = f"game.restore({run.name!r})"
    return lines


def resuming(run: RunRecord, program: str | None) -> dict[str, str]:
    """Returns the command that continues the run, with twice the steps if the run is finished."""
    steps = 2 * run.done if run.finished else None
    return {"Train longer" if run.finished else "Resume": resume_command(program, Path(run.name), steps=steps)}


def recipe(run: RunRecord) -> str:
    """Returns the section with the recipe."""
    if not run.recipe_text:
        return section("Recipe", note("The run has no recipe.yaml."))
    source = f"<details><summary>recipe.yaml</summary><pre>{text(run.recipe_text, MAX_RECIPE)}</pre></details>"
    return section("Recipe", note("" if run.recipe else "recipe.yaml is damaged or too large."), source)


def write_report(run: Path) -> Path:
    """Writes `report.html` to a run folder atomically and returns its path.

    Raises:
        CheckpointError: the folder is not a run.
        InputError: the page cannot be written there.
        GanError: the disk is full or broken.
    """
    target = run / "report.html"
    if target.is_dir():
        raise InputError(f"{target}: is a folder; rename or remove it")
    if run.is_dir() and not os.access(run, os.W_OK | os.X_OK):
        raise InputError(f"{run}: is not writable; copy the run to a folder of your own, and report on the copy")
    record = read_run(run)
    sections = "".join(
        part(record) for part in (comparison, evaluation, over_time, findings, curves, next_steps, recipe)
    )
    return write_page(target, f"{record.title}: training report", header(record), sections)


def write_page(path: Path, title: str, header: str, sections: str) -> Path:
    """Writes a page with the report's style, script and security policy atomically, and returns its path.

    Raises:
        InputError: the page cannot be written there.
        GanError: the disk is full or broken.
    """
    parts = {kind: (files("gan_core.runs") / f"report.{kind}").read_text("utf-8") for kind in ("html", "css", "js")}
    page = string.Template(parts.pop("html")).substitute(
        parts,
        title=text(title),
        header=header,
        sections=sections,
        digest=base64.b64encode(hashlib.sha256(parts["js"].encode()).digest()).decode(),
    )
    with replacing(path) as partial:
        partial.write_bytes(page.encode("utf-8", "replace"))
    return path
