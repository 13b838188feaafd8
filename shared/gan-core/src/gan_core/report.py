"""A run folder as one web page: what was trained, how far it is, how real the samples look, how to go on.

`read_run` reads a folder into a frozen `RunRecord`; each section of the page is a function of that record which returns
HTML, and `gan_core.chart` draws the lines over steps. Everything on disk is untrusted: what is read is bounded, text is
escaped, links that leave the folder are not followed, and the page's security policy forbids every request and every
script but its own. The page depends on nothing but the folder: the same folder gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import shlex
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from gan_core.chart import COLOURS, MAX_PHASES, chart, compact, text
from gan_core.errors import CheckpointError, GanError
from gan_core.run import EVALUATION, LOST_LINES, WATCH
from gan_core.symptoms import UNSEEN, look_for_symptoms

MAX_FRAMES, MAX_MEDIA, MAX_LISTED = 12, 4, 20_000  # steps shown, files of each; files in a folder
MAX_FILE, MAX_EMBEDDED, MAX_LINE, MAX_RECIPE = 4 << 20, 16 << 20, 1 << 16, 1 << 18  # bytes
MAX_LOG = 32 << 20  # bytes; of a log of n times that size, every nth line is read
MAX_CHARTS, MAX_TEXT = 24, 4_000  # text is in characters
LARGEST = 1e30  # a loss beyond it is as lost as an infinite one
REAL = -1  # stands for the step of real samples
SPEED = "speed"  # stands for the player of `samples_per_second`
IMAGES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
SOUNDS = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac"}
MIME = IMAGES | SOUNDS | {".mp4": "video/mp4", ".webm": "video/webm", ".txt": "text/plain"}


@dataclass(frozen=True)
class Entry:
    """One line of the log; a value that was not finite, or beyond `LARGEST`, is NaN."""

    step: int
    phase: str
    values: Mapping[str, float]
    protocols: Mapping[str, str]  # of an evaluation's figures, by figure


@dataclass(frozen=True)
class Rollback:
    """What was not finite, by which step, and to which step the run was rolled back; None where there was none."""

    step: int
    to: int | None
    what: str
    growth: str  # what had grown most before, in words


@dataclass(frozen=True)
class Media:
    """One sample file; `data` is None where it is not embedded."""

    name: str
    size: int
    data: bytes | None


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds, as far as a page shows it."""

    folder: Path
    recipe: Mapping[str, Any]  # scalars are strings
    recipe_text: str
    training: Sequence[Entry]
    evaluations: Sequence[Entry]
    watched: Sequence[Entry]
    rollbacks: Sequence[Rollback]
    skipped_lines: int
    stride: int  # of so many lines of the log one was read
    frames: Mapping[int, Sequence[Media]]  # by step: an even choice of `steps`, and real ones under `REAL`
    steps: Sequence[int]  # that have samples on disk
    checkpoint: int | None
    has_model: bool
    written: tuple[float, float]  # when the first and the last file were written, in seconds since the epoch

    def setting(self, *keys: str) -> str:
        """The recipe's scalar at that place, or nothing."""
        value: Any = self.recipe
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) and value != "null" else ""

    @property
    def title(self) -> str:
        """The system, or the folder's name where it is not known."""
        return self.setting("system") or self.folder.resolve().name

    @property
    def data(self) -> Sequence[str]:
        """Names or paths of the training data, as `--data` takes them: one, or `PART=PLACE` for each part."""
        one, parts = self.setting("data", "source"), self.recipe.get("data", {})
        parts = parts.get("source") if isinstance(parts, Mapping) else None
        several = parts.items() if isinstance(parts, Mapping) else ()
        return [one] if one else [f"{part}={place}" for part, place in several if isinstance(place, str)]

    @property
    def done(self) -> int:
        """The last step of which anything is on disk."""
        return max([*(entry.step for entry in self.training[-1:]), *self.steps[-1:], self.checkpoint or 0])

    @property
    def planned(self) -> int:
        """The recipe's `train.steps`, or 0."""
        steps = self.setting("train", "steps")
        return int(steps) if re.fullmatch("[0-9]{1,12}", steps) else 0

    @property
    def finished(self) -> bool:
        return 0 < self.planned <= self.done

    @property
    def phases(self) -> list[Entry]:
        """The first entry of each phase; a phase that comes back counts again."""
        return [*self.training[:1], *(new for old, new in pairwise(self.training) if new.phase != old.phase)]


def read_run(folder: Path) -> RunRecord:
    """What a run folder says about itself, however little of it there is.

    Raises:
        CheckpointError: it has no recipe, no log, no samples and no checkpoints.
    """
    recipe, log, model = (inside(folder, name) for name in ("recipe.yaml", "log.jsonl", "model/config.json"))
    samples, checkpoints = numbered(folder, "samples"), numbered(folder, "checkpoints")
    if not (recipe or log or samples or checkpoints):
        missing = "not a run folder (no recipe.yaml), and no log, samples or checkpoints either"
        raise CheckpointError(f"{folder}: {missing}; give the folder that `train --out` wrote.")
    dated = [*(path for group in samples.values() for path in group), recipe, log, model]
    times = [path.stat().st_mtime for path in dated if path] or [folder.stat().st_mtime]
    steps, reached = sorted(samples.keys() - {REAL}), max(checkpoints, default=None)
    settings, source = read_recipe(recipe)
    stride = 1 if log is None else 1 + log.stat().st_size // MAX_LOG
    training, evaluations, watched, skipped = read_log(log, stride)
    rollbacks = read_rollbacks(inside(folder, "rollbacks.jsonl"))
    frames, written = read_frames(samples, steps), (min(times), max(times))
    return RunRecord(
        folder,
        settings,
        source,
        training,
        evaluations,
        watched,
        rollbacks,
        skipped,
        stride,
        frames,
        steps,
        reached,
        model is not None,
        written,
    )


def inside(folder: Path, name: str) -> Path | None:
    """The file or folder of that name, unless it is missing, special, or a link that leaves the run."""
    path = folder / name
    return path if (path.is_file() or path.is_dir()) and path.resolve().is_relative_to(folder.resolve()) else None


def numbered(folder: Path, name: str) -> dict[int, list[Path]]:
    """What one of the run's folders holds that is named by a step (or `real`), by step."""
    groups: dict[int, list[Path]] = {}
    for path in sorted(islice((folder / name).glob("*"), MAX_LISTED)):
        match = re.fullmatch(r"([0-9]{1,12}|real)([-_].*)?(\.\w+)?", path.name)
        if match and path.suffix not in {".tmp", ".part"} and inside(folder, f"{name}/{path.name}"):
            groups.setdefault(REAL if match[1] == "real" else int(match[1]), []).append(path)
    return groups


def read_recipe(path: Path | None) -> tuple[Mapping[str, Any], str]:
    """The recipe and its text; the recipe is empty where it is missing, damaged, or longer than recipes are."""
    if path is None:
        return {}, ""
    with path.open("rb") as file:
        source = file.read(MAX_RECIPE).decode("utf-8", "replace")
    try:
        recipe = yaml.load(source, yaml.BaseLoader)  # makes strings only: no tags, no merge keys that grow unbounded
    except (yaml.YAMLError, RecursionError):
        recipe = None
    return recipe if isinstance(recipe, dict) else {}, source


def read_log(path: Path | None, stride: int = 1) -> tuple[list[Entry], list[Entry], list[Entry], int]:
    """Entries of training, evaluations and watch, and how many lines were none (the last one of a killed run)."""
    training: list[Entry] = []
    evaluations: list[Entry] = []
    watched: list[Entry] = []
    if path is None:
        return training, evaluations, watched, 0
    skipped = 0
    with path.open("rb") as file:
        for line in islice(iter(lambda: file.readline(MAX_LINE), b""), 0, None, stride):
            entry = parse_entry(line)
            if entry is None:
                skipped += bool(line.strip())
            else:
                kind = {EVALUATION: evaluations, WATCH: watched}.get(entry.phase, training)
                while kind and kind[-1].step > entry.step:  # resumed: the later line of a step counts
                    kind.pop()
                kind.append(entry)
    return training, evaluations, watched, skipped


def read_rollbacks(path: Path | None) -> list[Rollback]:
    """What the record of rollbacks says, as far as it can be read."""
    if path is None:
        return []
    found = []
    with path.open("rb") as file:
        for line in islice(iter(lambda: file.readline(MAX_LINE), b""), MAX_LISTED):
            try:
                raw = json.loads(line)
                step, to = int(raw["step"]), None if raw["to"] is None else int(raw["to"])
                entries = [parse_entry(json.dumps(entry).encode()) for entry in raw["log"][:LOST_LINES]]
                found.append(Rollback(step, to, str(raw["what"])[:MAX_TEXT], growth([e for e in entries if e])))
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                continue
    return found


def growth(entries: Sequence[Entry]) -> str:
    """Which value grew most from the first to the last of some entries, if one has grown tenfold."""
    if len(entries) < 2:
        return ""
    first, last = entries[0].values, entries[-1].values
    ratios = {name: abs(last[name] / first[name]) for name in first.keys() & last.keys() if "/" in name and first[name]}
    name = max(sorted(ratios), key=lambda name: ratios[name] if math.isfinite(ratios[name]) else 0.0, default="")
    if not name or not ratios[name] >= 10:
        return ""
    return f" (before it, {name} had gone from {first[name]:.3g} to {last[name]:.3g})"


def parse_entry(line: bytes) -> Entry | None:
    """One line of the log, or None where it is cut off or no entry."""
    try:
        raw = json.loads(line)
        step, phase = int(raw.pop("step")), str(raw.pop("phase", ""))[:80]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    ids = {k.removeprefix("protocol/")[:80]: str(raw.pop(k))[:80] for k in list(raw) if k.startswith("protocol/")}
    values = {key[:80]: number(value) for key, value in raw.items()}
    known = {key: value for key, value in values.items() if value is not None}
    return Entry(step, phase, known, ids) if 0 <= step < 10**12 else None


def number(value: object) -> float | None:
    """A logged value, or None where it is no number; `null` and "nan" are numbers that were not finite."""
    if value is None or (isinstance(value, str) and value.lower().strip("+-") in {"nan", "inf", "infinity"}):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST else math.nan


def choose(steps: Sequence[int], count: int = MAX_FRAMES) -> list[int]:
    """At most `count` of them, evenly spaced, the first and the last among them."""
    rest = len(steps) - 1
    return list(steps) if rest < count else [steps[round(index * rest / (count - 1))] for index in range(count)]


def read_frames(groups: Mapping[int, Sequence[Path]], steps: Sequence[int]) -> dict[int, list[Media]]:
    """Real samples and an even choice of steps; real, last and first are embedded before the rest."""
    frames: dict[int, list[Media]] = {}
    left = MAX_EMBEDDED
    for step in dict.fromkeys([REAL, *steps[-1:], *choose(steps)]):
        shown_first = sorted(groups.get(step, ()), key=lambda path: path.suffix.lower() not in MIME)
        for path in shown_first[:MAX_MEDIA]:
            media = read_media(path, min(left, MAX_FILE))
            left -= len(media.data or b"")
            frames.setdefault(step, []).append(media)
    return dict(sorted(frames.items()))


def read_media(path: Path, limit: int) -> Media:
    """One sample file; without its data where it has no preview, is empty, unreadable, or larger than `limit`."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            data = file.read(limit + 1) if path.suffix.lower() in MIME else b""
    except OSError:
        size, data = 0, b""
    return Media(path.name, size, data if 0 < len(data) <= limit else None)


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
    parts = {kind: (files("gan_core") / f"report.{kind}").read_text("utf-8") for kind in ("html", "css", "js")}
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
