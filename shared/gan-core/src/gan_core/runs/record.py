"""What a run folder holds, read leniently.

Everything on disk is untrusted: sizes are bounded, and links that leave the folder are not followed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import yaml

from gan_core.errors import CheckpointError

EVALUATION, DIAGNOSTICS = "evaluation", "diagnostics"
"""Values of `phase` in lines of the log for evaluations and for diagnostics of samples."""

LOST_LINES = 20
"""Maximum number of log lines kept in the record of a rollback."""
MAX_FRAMES, MAX_MEDIA, MAX_LISTED = 12, 4, 20_000  # steps shown, files of each; files in a folder
MAX_FILE, MAX_EMBEDDED, MAX_LINE, MAX_RECIPE = 4 << 20, 16 << 20, 1 << 16, 1 << 18  # bytes
MAX_LOG = 32 << 20  # bytes; of a log of n times that size, every nth line is read
MAX_TEXT = 4_000  # characters
LARGEST = 1e30  # a loss beyond it is as lost as an infinite one
REAL = -1  # stands for the step of real samples
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
    """Entries of training, evaluations and diagnostics, and how many lines were none (the last one of a killed run)."""
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
                kind = {EVALUATION: evaluations, DIAGNOSTICS: watched}.get(entry.phase, training)
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
