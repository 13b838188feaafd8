"""A run folder as one web page: what was trained, how far it is, how real the samples look, how to go on.

`read_run` reads a folder into a frozen `RunRecord`; each section of the page is a function of that record which returns
HTML, and `gan_core.runs.chart` draws the lines over steps. Everything on disk is untrusted: what is read is bounded,
text is escaped, links that leave the folder are not followed, and the page's security policy forbids every request
and every script but its own. The page depends on nothing but the folder: the same folder gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import shlex
import string
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import islice
from pathlib import Path
from statistics import median

from gan_core.errors import GanError
from gan_core.runs.chart import COLOURS, MAX_PHASES, chart, compact, text
from gan_core.runs.record import MAX_RECIPE, MAX_TEXT, MIME, REAL, Entry, Media, RunRecord, read_run
from gan_core.runs.symptoms import UNSEEN, look_for_symptoms

MAX_CHARTS = 24
SPEED = "speed"  # stands for the player of `samples_per_second`


def series(entries: Sequence[Entry]) -> dict[str, dict[str, list[tuple[int, float, int]]]]:
    """Returns points by player (`generator/mpd` for one of several adversaries) and term; the speed is the last."""
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
    """A part of the page under its heading."""
    return f"<section>\n<h2>{title}</h2>\n{''.join(parts)}\n</section>\n"


def note(sentence: str) -> str:
    """What is missing or left out, if anything is."""
    return f'<p class="note">{sentence}</p>' if sentence else ""


def state(run: RunRecord) -> str:
    """Where the run stands, in few words."""
    if run.rollbacks and run.rollbacks[-1].step >= run.done:
        to = run.rollbacks[-1].to
        return "Not finite" if to is None else f"Rolled back to step {to:,}"
    if run.training and any(not math.isfinite(value) for value in run.training[-1].values.values()):
        return "Loss not finite"
    return "Finished" if run.finished else "Not finished" if run.done else "Not started"


def header(run: RunRecord) -> str:
    """Names and figures of the run."""
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
    """Real samples beside the last generated ones."""
    real, last = run.frames.get(REAL), max(run.frames, default=REAL)
    pair = figure(real, "Real") if real else ""
    pair += figure(run.frames[last], f"Generated at step {last:,}", "generated") if last > REAL else ""
    missing = "" if last > REAL else "No samples were generated yet." if real else "There are no samples yet."
    missing = missing or ("" if real else "The run kept no real samples to compare with.")
    return section("Real against generated", f'<div class="pair">{pair}</div>' if pair else "", note(missing))


def over_time(run: RunRecord) -> str:
    """The samples of some steps, from the first to the last."""
    shown = [step for step in run.frames if step != REAL]
    strip = "".join(figure(run.frames[step], f"Step {step:,}") for step in shown)
    left_out = f"Shown are {len(shown)} of the {len(run.steps)} steps with samples; the others are in the run's folder."
    left_out = note(left_out if len(shown) < len(run.steps) else "")
    return section("Over time", f'<div class="strip">{strip}</div>', left_out) if len(shown) > 1 else ""


def figure(media: Sequence[Media], caption: str, role: str = "") -> str:
    """The sample files of one step."""
    shown = "".join(embed(item, caption) for item in media)
    return f'<figure class="sample {role}">{shown}<figcaption>{caption}</figcaption></figure>\n'


def embed(media: Media, alt: str) -> str:
    """One sample file as an element that shows, plays or prints it."""
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
    """Attributes by the header of a PNG or GIF: its size, and whether it is small enough to show its pixels."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") * (data[:4] == b"GIF8") for at in (6, 8))
    kind = "tiny" if width <= 160 else "small" if width <= 640 else "large"
    return f'width="{width}" height="{height}" class="{kind}"' if width and height else ""


def verdict(run: RunRecord) -> str:
    """What the doctor finds, what is wrong first; and what was seen of the samples over time."""
    checks = sorted(look_for_symptoms(run), key=lambda check: check.good)
    rows = "".join(
        f'<tr><th scope="row">{text(check.name)}</th><td>{"well" if check.good else "<b>problem</b>"}</td>'
        f"<td>{text(check.finding, 1000)}</td></tr>"
        for check in checks
        if not check.finding.startswith(UNSEEN)
    )
    unseen = "".join(note(text(f"{c.name}: {c.finding}", 300)) for c in checks if c.finding.startswith(UNSEEN))
    table = f'<div class="wide"><table><tr><th>Look</th><th>Verdict</th><th>Finding</th></tr>{rows}</table></div>'
    charts = "".join(chart(looker, terms, run.done) for looker, terms in series(run.watched).items())
    charts = f'<div class="charts">{charts}</div>' if len(run.watched) > 1 else ""
    return section("What the doctor finds", table, unseen, charts)


def curves(run: RunRecord) -> str:
    """One chart a player, of all its terms, and one of the speed."""
    if not run.training:
        return section("Losses", note("Nothing was logged yet."))
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
        note(f"Charts left out: {len(charts) - MAX_CHARTS}." if len(charts) > MAX_CHARTS else ""),
        note(f"The log is so long that one in {run.stride} of its lines was read." if run.stride > 1 else ""),
        note(f"Lines of the log that could not be read: {run.skipped_lines}." if run.skipped_lines else ""),
    )


def evaluation(run: RunRecord) -> str:
    """The last value of each measure, and a chart of each that was measured more than once."""
    measures = dict(islice(series(run.evaluations).get("evaluation", {}).items(), MAX_CHARTS))
    protocols = run.evaluations[-1].protocols if run.evaluations else {}
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{compact(points[-1][1])}</td><td>{points[-1][0]:,}</td>'
        f"<td>{text(protocols.get(name, ''))}</td></tr>"
        for name, points in measures.items()
    )
    charts = [chart(name, {name: points}, run.done) for name, points in measures.items() if len(points) > 1]
    table = f"<table><tr><th>Measure</th><th>Value</th><th>Step</th><th>Protocol</th></tr>{rows}</table>"
    return section("Evaluation", table, f'<div class="charts">{"".join(charts)}</div>') if measures else ""


def going_on(run: RunRecord) -> str:
    """How to go on with the run as it is: commands, or Python for a game that was put together by hand."""
    lines = commands(run) if run.setting("preset") else by_hand(run)
    rows = (f"<dt>{name}</dt><dd><code>{text(line, 1000)}</code></dd>" for name, line in lines.items())
    return section("How to go on", f'<dl class="commands">{"".join(rows)}</dl>') if lines else ""


def commands(run: RunRecord) -> dict[str, str]:
    """The command lines that make sense for a system that can be named."""
    domain, folder = run.setting("domain"), shlex.quote(str(run.folder))
    program = f"gan-{domain}" if re.fullmatch("[a-z0-9]{1,20}", domain) else "gan"
    lines = {}
    if run.checkpoint is not None:
        more = f" --steps {2 * run.done}" if run.finished else ""
        lines["Train longer" if more else "Resume"] = f"{program} resume {folder}{more}"
    if run.checkpoint is not None or run.has_model:
        lines["Generate"] = f"{program} generate {folder} -n 64 --out generated"
        places = " ".join(f"--data {shlex.quote(place)}" for place in run.data or ["NAME"])
        lines["Evaluate"] = f"{program} evaluate {folder} {places}"
    if run.setting("system"):
        recipe = shlex.quote(str(run.folder / "recipe.yaml"))
        lines["Train again"] = f"{program} train {shlex.quote(run.setting('system'))} --recipe {recipe} --out NEW"
    return lines | {"Look for trouble": f"{program} doctor {folder}"}


def by_hand(run: RunRecord) -> dict[str, str]:
    """The Python that goes on with a game which the command line cannot build."""
    folder, lines = repr(str(run.folder)), {}
    if run.checkpoint is not None:
        more = f", steps={2 * run.done}" if run.finished else ""
        call = f"gan_core.resume({folder}, game=game, data=data{more})"
        lines["Train longer" if more else "Resume"] = call
    if run.checkpoint is not None or run.has_model:
        lines["Load"] = f"game.restore({folder})"
    return lines


def recipe(run: RunRecord) -> str:
    """The recipe as it stands in the run."""
    if not run.recipe_text:
        return section("Recipe", note("There is no recipe.yaml, so what was trained is not known."))
    source = f"<details><summary>recipe.yaml</summary><pre>{text(run.recipe_text, MAX_RECIPE)}</pre></details>"
    return section("Recipe", note("" if run.recipe else "recipe.yaml is damaged or too long to be read."), source)


def write_report(run: Path) -> Path:
    """Writes `report.html` into a run's folder, whole or not at all, and returns its path.

    Raises:
        CheckpointError: the folder is no run.
        GanError: the page could not be written.
    """
    record = read_run(run)
    sections = "".join(part(record) for part in (comparison, over_time, verdict, curves, evaluation, going_on, recipe))
    return write_page(run / "report.html", f"{record.title}: training report", header(record), sections)


def write_page(path: Path, title: str, header: str, sections: str) -> Path:
    """Writes a page of HTML parts with the report's style, script and security policy, whole or not at all.

    Raises:
        GanError: it could not be written.
    """
    parts = {kind: (files("gan_core.runs") / f"report.{kind}").read_text("utf-8") for kind in ("html", "css", "js")}
    page = string.Template(parts.pop("html")).substitute(
        parts,
        title=text(title),
        header=header,
        sections=sections,
        digest=base64.b64encode(hashlib.sha256(parts["js"].encode()).digest()).decode(),
    )
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.write_bytes(page.encode("utf-8", "replace"))
        temporary.replace(path)
    except OSError as error:
        raise GanError(f"{path}: the report could not be written ({error.strerror}).") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
