"""The content of a run folder, for reports and the doctor. Missing and damaged parts are skipped.

Everything on disk is untrusted: sizes are bounded, and links that lead out of the folder are not followed.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import yaml

from gan_core.cards import Scale
from gan_core.errors import CheckpointError
from gan_core.places import without_folders
from gan_core.runs.lines import DIAGNOSTICS, EVALUATION, LOST_LINES, MEASURED, Lines, parse_line

MAX_FRAMES, MAX_MEDIA = 12, 4
"""Maximum number of steps whose samples are shown, and maximum number of files per step."""
MAX_LISTED = 20_000
"""Maximum number of files that are listed in a folder."""
MAX_EMBEDDED = 2 << 20
"""Maximum total size of the embedded files in bytes, so that a report is smaller than 3 MB."""
MAX_MEASURED = 100
"""Maximum number of evaluations that are read from `evaluations.jsonl`."""
MAX_RECIPE = 1 << 18
"""Maximum number of bytes read of a recipe."""
MAX_LOG = 32 << 20
"""Maximum size in bytes of a log that is read completely. If a log is n times larger, every nth line is read."""
MAX_TEXT = 4_000
"""Maximum length of a text, in characters."""
LARGEST = 1e30
"""Absolute value from which a logged number is treated as non-finite."""
GROWTH = 10
"""Minimum factor by which a value must have grown before a rollback to be reported."""
TRAINING = "training"
"""Key of the log's lines with training losses."""
REAL = -1
"""Key of the real samples, in place of a step."""
IMAGES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
SOUNDS = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac"}
MIME = IMAGES | SOUNDS | {".mp4": "video/mp4", ".webm": "video/webm", ".txt": "text/plain"}


@dataclass(frozen=True)
class Entry:
    """A line of the log.

    Attributes:
        step: completed steps.
        phase: name of the phase, or `EVALUATION` or `DIAGNOSTICS`.
        values: logged values by name; NaN if a value was not finite or beyond `LARGEST`.
        protocols: protocol ids of an evaluation's figures, by figure.
        scales: units and directions of an evaluation's figures, by figure.
    """

    step: int
    phase: str
    values: Mapping[str, float]
    protocols: Mapping[str, str]
    scales: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """A figure of the trained model.

    Attributes:
        step: step of the model.
        metric: name of the metric.
        name: name of the figure.
        value: the figure; NaN if it was not finite.
        data: name of the data it was compared with, without folders.
        samples: number of generated samples.
        scale: unit and direction of the figure.
        protocol: protocol id.
        settings: the protocol, by name.
    """

    step: int
    metric: str
    name: str
    value: float
    data: str
    samples: int
    scale: str
    protocol: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Rollback:
    """A rollback of the run.

    Attributes:
        step: step at which a value was not finite.
        to: step to which the run was rolled back; None if there was no valid checkpoint.
        what: description of the values that were not finite.
        growth: phrase about the value that grew most before the rollback; empty if no value grew much.
    """

    step: int
    to: int | None
    what: str
    growth: str


@dataclass(frozen=True)
class Media:
    """A sample file; `data` is None if it is not embedded."""

    name: str
    size: int
    data: bytes | None


@dataclass(frozen=True)
class RunRecord:
    """The content of a run folder.

    Attributes:
        folder: the folder.
        recipe: the recipe, with all scalars as strings; empty if it cannot be read.
        recipe_text: source text of the recipe.
        training: lines of the log with training losses.
        evaluations: lines of the log from evaluations.
        measured: evaluations of the trained model, oldest first.
        diagnostics: lines of the log from diagnostics of samples.
        rollbacks: rollbacks, oldest first.
        damaged_lines: number of lines of the log that could not be read.
        stride: interval of the lines of the log that were read; 1 if all were read.
        frames: sample files by step, for an evenly spaced selection of `steps`; those of real samples under `REAL`.
        steps: steps that have samples on disk.
        checkpoint: step of the latest checkpoint, or None.
        has_model: whether there is a model folder.
        written: times at which the first and the last file were written, in seconds since the epoch.
    """

    folder: Path
    recipe: Mapping[str, Any]
    recipe_text: str
    training: Sequence[Entry]
    evaluations: Sequence[Entry]
    measured: Sequence[Measured]
    diagnostics: Sequence[Entry]
    rollbacks: Sequence[Rollback]
    damaged_lines: int
    stride: int
    frames: Mapping[int, Sequence[Media]]
    steps: Sequence[int]
    checkpoint: int | None
    has_model: bool
    written: tuple[float, float]

    def setting(self, *keys: str) -> str:
        """Returns a scalar of the recipe as a string; empty if it is missing or null."""
        value: Any = self.recipe
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) and value != "null" else ""

    @property
    def title(self) -> str:
        """Name of the system, or of the folder if the system is not known."""
        return self.setting("system") or self.name

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def data(self) -> Sequence[str]:
        """Values of `--data` for the training data: one name or path, or `PART=PLACE` for each part."""
        one, parts = self.setting("data", "source"), self.recipe.get("data", {})
        parts = parts.get("source") if isinstance(parts, Mapping) else None
        several = parts.items() if isinstance(parts, Mapping) else ()
        return [one] if one else [f"{part}={place}" for part, place in several if isinstance(place, str)]

    @property
    def done(self) -> int:
        """Last step with a line of the log, samples or a checkpoint."""
        return max([*(entry.step for entry in self.training[-1:]), *self.steps[-1:], self.checkpoint or 0])

    @property
    def planned(self) -> int:
        """The recipe's `train.steps`, or 0."""
        steps = self.setting("train", "steps")
        return int(steps) if re.fullmatch("[0-9]{1,12}", steps) else 0

    @property
    def finished(self) -> bool:
        """Whether all planned steps are completed."""
        return 0 < self.planned <= self.done

    @property
    def phases(self) -> list[Entry]:
        """First entry of each phase. A phase that occurs several times has several entries."""
        return [*self.training[:1], *(new for old, new in pairwise(self.training) if new.phase != old.phase)]


def read_run(folder: Path) -> RunRecord:
    """Reads a run folder; any part of it may be missing or damaged.

    Raises:
        CheckpointError: the folder has no recipe, log, samples or checkpoints.
    """
    recipe, log, model = (inside(folder, name) for name in ("recipe.yaml", "log.jsonl", "model/config.json"))
    samples, checkpoints = numbered(folder, "samples"), numbered(folder, "checkpoints")
    if not (recipe or log or samples or checkpoints):
        missing = "not a run folder (it has no recipe.yaml, log, samples or checkpoints)"
        raise CheckpointError(f"{folder}: {missing}; give the folder that `train --out` wrote")
    dated = [*(path for group in samples.values() for path in group), recipe, log, model]
    times = [path.stat().st_mtime for path in dated if path] or [folder.stat().st_mtime]
    steps, reached = sorted(samples.keys() - {REAL}), max(checkpoints, default=None)
    settings, source = read_recipe(recipe)
    stride = 1 if log is None else 1 + log.stat().st_size // MAX_LOG
    entries, damaged = read_log(log, stride)
    rollbacks = read_rollbacks(inside(folder, "rollbacks.jsonl"))
    frames, written = read_frames(samples, steps), (min(times), max(times))
    return RunRecord(
        folder,
        settings,
        source,
        entries[TRAINING],
        entries[EVALUATION],
        read_measured(inside(folder, MEASURED)),
        entries[DIAGNOSTICS],
        rollbacks,
        damaged,
        stride,
        frames,
        steps,
        reached,
        model is not None,
        written,
    )


def inside(folder: Path, name: str) -> Path | None:
    """Returns the path of a file or folder, or None if it is missing, special, or a link that leaves the run."""
    path = folder / name
    return path if (path.is_file() or path.is_dir()) and path.resolve().is_relative_to(folder.resolve()) else None


def numbered(folder: Path, name: str) -> dict[int, list[Path]]:
    """Returns the files of one of the run's folders by the step in their names; those named `real` under `REAL`."""
    groups: dict[int, list[Path]] = {}
    for path in sorted(islice((folder / name).glob("*"), MAX_LISTED)):
        match = re.fullmatch(r"([0-9]{1,12}|real)([-_].*)?(\.\w+)?", path.name)
        if match and path.suffix not in {".tmp", ".part"} and inside(folder, f"{name}/{path.name}"):
            groups.setdefault(REAL if match[1] == "real" else int(match[1]), []).append(path)
    return groups


def read_recipe(path: Path | None) -> tuple[Mapping[str, Any], str]:
    """Returns the recipe and its text; the recipe is empty if it is missing, damaged, or longer than `MAX_RECIPE`.

    Absolute paths are reduced to their last part, because reports are given to others.
    """
    if path is None:
        return {}, ""
    with path.open("rb") as file:
        source = file.read(MAX_RECIPE).decode("utf-8", "replace")
    try:
        # All scalars are strings; no tags, and no merge keys, which can grow without bound.
        loader = yaml.BaseLoader(source)
        node = loader.get_single_node()
        shared = hide_folders(node, source)
        recipe = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, RecursionError):
        return {}, "\n".join(line for line in source.splitlines() if not any(mark in line for mark in "/\\"))
    return (recipe, shared) if isinstance(recipe, dict) else ({}, shared)


def hide_folders(node: yaml.Node | None, source: str) -> str:
    """Applies `without_folders` to the scalars of a YAML document, and returns its text with the same changes."""
    stack, seen, changed = [node], set[int](), dict[int, yaml.ScalarNode]()
    while stack:
        one = stack.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, yaml.ScalarNode):
            shown = without_folders(one.value)
            if shown != one.value:
                one.value, changed[one.start_mark.index] = shown, one
        elif isinstance(one, yaml.MappingNode):
            stack += (part for pair in one.value for part in pair)
        else:
            stack += one.value
    for start in sorted(changed, reverse=True):
        source = f"{source[:start]}{changed[start].value}{source[changed[start].end_mark.index :]}"
    return source


def read_log(path: Path | None, stride: int = 1) -> tuple[dict[str, list[Entry]], int]:
    """Returns the entries of the log under `training`, `EVALUATION` and `DIAGNOSTICS`, and the number of damaged lines.

    If a resumed run has repeated a step, the later line is used.
    """
    found: dict[str, list[Entry]] = {TRAINING: [], EVALUATION: [], DIAGNOSTICS: []}
    lines = Lines(path, stride)
    for line in lines:
        entry = entry_of(line)
        entries = found[entry.phase if entry.phase in (EVALUATION, DIAGNOSTICS) else TRAINING]
        while entries and entries[-1].step > entry.step:
            entries.pop()
        entries.append(entry)
    return found, lines.damaged


def read_rollbacks(path: Path | None) -> list[Rollback]:
    """Returns the rollbacks on record; damaged lines are skipped."""
    found = []
    for line in islice(Lines(path), MAX_LISTED):
        try:
            step, to = line["step"], None if line["to"] is None else int(line["to"])
            lost = [parse_line(json.dumps(entry).encode()) for entry in line["log"][:LOST_LINES]]
            entries = [entry_of(entry) for entry in lost if entry is not None]
            found.append(Rollback(step, to, str(line["what"])[:MAX_TEXT], growth(entries)))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
    return found


def read_measured(path: Path | None) -> list[Measured]:
    """Returns the figures of the last evaluations on record; damaged lines are skipped."""
    found: list[Measured] = []
    for line in deque(Lines(path), MAX_MEASURED):
        try:
            data, samples = str(line["data"])[:MAX_TEXT].rstrip("/").rpartition("/")[2], int(line["samples"])
            for metric, figures in line["metrics"].items():
                protocol = str(line["protocol"][metric])[:MAX_TEXT]
                settings = {str(key): str(value)[:MAX_TEXT] for key, value in line["protocols"][protocol].items()}
                for name, figure in figures.items():
                    value = number(figure)
                    plain = (line["step"], str(metric), str(name), math.nan if value is None else value, data, samples)
                    scale = dict(line.get("scales", {}).get(name, {}))
                    words = str(Scale(str(scale.get("unit") or "")[:MAX_TEXT], scale.get("better")))
                    found.append(Measured(*plain, words[:MAX_TEXT], protocol, settings))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            continue
    return found


def growth(entries: Sequence[Entry]) -> str:
    """Returns a phrase about the value that grew most from the first to the last entry, if by a factor of `GROWTH`."""
    if len(entries) < 2:
        return ""
    first, last = entries[0].values, entries[-1].values
    ratios = {name: abs(last[name] / first[name]) for name in first.keys() & last.keys() if "/" in name and first[name]}
    name = max(sorted(ratios), key=lambda name: ratios[name] if math.isfinite(ratios[name]) else 0.0, default="")
    if not name or not ratios[name] >= GROWTH:
        return ""
    return f" ({name} had grown from {first[name]:.3g} to {last[name]:.3g} before)"


def entry_of(line: Mapping[str, Any]) -> Entry:
    """Returns a valid line of the log as an entry."""
    protocols, scales = (
        {key.removeprefix(start)[:80]: str(value)[:80] for key, value in line.items() if key.startswith(start)}
        for start in ("protocol/", "scale/")
    )
    numbers = {key[:80]: number(line[key]) for key in line if key not in ("step", "phase")}
    values = {key: value for key, value in numbers.items() if value is not None}
    return Entry(line["step"], str(line.get("phase", ""))[:80], values, protocols, scales)


def number(value: object) -> float | None:
    """Returns a logged value; NaN for `null`, "nan" and "inf", and None for anything else that is not a number."""
    if value is None or (isinstance(value, str) and value.lower().strip("+-") in {"nan", "inf", "infinity"}):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST else math.nan


def choose(steps: Sequence[int], count: int = MAX_FRAMES) -> list[int]:
    """Returns at most `count` steps, evenly spaced, including the first and the last."""
    rest = len(steps) - 1
    return list(steps) if rest < count else [steps[round(index * rest / (count - 1))] for index in range(count)]


def read_frames(groups: Mapping[int, Sequence[Path]], steps: Sequence[int]) -> dict[int, list[Media]]:
    """Reads the real samples and those of as many steps as can be embedded, at most `MAX_FRAMES`.

    The real, last and first samples are embedded first.
    """
    frames: dict[int, list[Media]] = {}
    real, last = (sum(map(size_of, groups.get(step, ())[:MAX_MEDIA])) for step in (REAL, max(steps, default=REAL)))
    left = max(MAX_EMBEDDED - last, MAX_EMBEDDED // 2)  # the last samples are shown twice
    count = max(2, min(MAX_FRAMES, (left - real) // max(1, last)))
    for step in dict.fromkeys([REAL, *steps[-1:], *choose(steps, count)]):
        shown_first = sorted(groups.get(step, ()), key=lambda path: path.suffix.lower() not in MIME)
        for path in shown_first[:MAX_MEDIA]:
            media = read_media(path, left)
            left -= len(media.data or b"")
            frames.setdefault(step, []).append(media)
    return dict(sorted(frames.items()))


def size_of(path: Path) -> int:
    """Returns the size of a file in bytes; 0 if it is missing."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_media(path: Path, limit: int) -> Media:
    """Reads a sample file. Its data are None if it has no preview, is empty or unreadable, or exceeds `limit`."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            data = file.read(limit + 1) if path.suffix.lower() in MIME else b""
    except OSError:
        size, data = 0, b""
    return Media(path.name, size, data if 0 < len(data) <= limit else None)
