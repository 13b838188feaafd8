"""Run folders, which contain the recipe, log, samples, checkpoints, model and report of a training run."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gan_core.errors import CheckpointError, InputError, writing
from gan_core.media.writing import PARTIAL_FILE, remove_partial_files, remove_partial_folders, replacing
from gan_core.places import expanded
from gan_core.recipe import Recipe, read_recipe
from gan_core.runs.lines import DIAGNOSTICS, EVALUATION, LOST_LINES, MAX_LINE, MEASURED, Lines, parse_line
from gan_core.runs.lock import LOCK, check_unowned, owning
from gan_core.tables import html_table

logger = logging.getLogger("gan_core")


STARTED = ("recipe.yaml", "log.jsonl", "rollbacks.jsonl", "samples", "checkpoints", "trackers", "report.html", LOCK)
"""Names in a run folder before its first checkpoint."""
SAMPLES = re.compile(rf"(real|[0-9]+)([-_.].*)?|{PARTIAL_FILE.pattern}")
"""Pattern of the names of sample files."""
PARTIAL_CHECKPOINT = re.compile(r"\.[0-9]+\.[0-9]+")
"""Pattern of the name of a checkpoint that is being written."""


class Run:
    """A run folder. Reading it does not import torch.

    Attributes:
        path: the folder.
        interrupted: name of the signal that interrupted training in this process, or None.
        ended: reason why a training regime ended the run in this process, or None.
        problems: problems of the checkpoints that were skipped when the run was resumed.
    """

    def __init__(self, path: str | Path):
        self.path = expanded(path)
        self.interrupted: str | None = None
        self.ended: str | None = None
        self.problems: list[str] = []

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Returns the run's system, progress and files as a table for notebooks."""
        rows: list[tuple[str, object]] = [("run", self.path)]
        if self.recipe_file.is_file():
            recipe, log, samples = self.recipe, self.log(), self.samples()
            rows += [("system", recipe.system), ("preset", recipe.preset or "none")]
            rows += [("step", f"{log[-1]['step'] if log else 0:,} of {recipe.train.steps:,}")]
            rows += [("samples", samples[-1])] if samples else []
            rows += [(file.stem, file) for file in (self.model, self.report_file) if file.exists()]
        return html_table(rows)

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe) -> Run:
        """Creates a run in a new or empty folder, or in place of a run that has no checkpoint yet.

        The process that trains the run must own it; see `owned`.

        Raises:
            InputError: the folder is in use, or cannot be written.
        """
        run = cls(path)
        run._check_content()
        if run.is_unfinished_start():
            logger.warning("%s: an earlier run ended before its first checkpoint; it is replaced", run.path)
            run.clear()
        with writing(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
            run.write_recipe(recipe)  # first: the folder is then a run's
            for folder in (run.samples_folder, run.checkpoints_folder):
                folder.mkdir()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Opens an existing run.

        Raises:
            CheckpointError: the folder does not exist or is not a run.
        """
        run = cls(path)
        if not run.path.exists():
            raise CheckpointError(f"{run.path}: no such folder")
        if not run.recipe_file.is_file():
            raise CheckpointError(f"{run.path}: not a run folder (it has no recipe.yaml)")
        return run

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Context manager under which no other process can train the run. A new folder is removed if it stays empty.

        Raises:
            InputError: another process is training it, or the folder cannot be written.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            with owning(self.path):
                yield
        finally:
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()

    def is_unfinished_start(self) -> bool:
        """Returns whether the folder holds a run without a checkpoint, and nothing that no run writes before one."""
        if not self.recipe_file.is_file():
            return False
        inner = self.samples_folder, self.checkpoints_folder
        if any(folder.is_symlink() or (folder.exists() and not folder.is_dir()) for folder in inner):
            return False
        return (
            all(path.name in STARTED or PARTIAL_FILE.fullmatch(path.name) for path in self.path.iterdir())
            and all(SAMPLES.fullmatch(path.name) and path.is_file() for path in self.samples_folder.glob("*"))
            and all(PARTIAL_CHECKPOINT.fullmatch(path.name) for path in self.checkpoints_folder.glob("*"))
        )

    def clear(self) -> None:
        """Removes everything that a run writes before its first checkpoint.

        Raises:
            InputError: it cannot be removed.
        """
        with writing(self.path):
            for name in STARTED:
                path = self.path / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif name != LOCK:
                    path.unlink(missing_ok=True)
        self.tidy()

    def check_free(self) -> None:
        """Checks that a new run can be written here, without writing anything.

        Raises:
            InputError: the folder is in use, or cannot be written.
        """
        check_unowned(self.path)
        self._check_content()

    def _check_content(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; choose another `--out`")
        if self.path.is_dir() and not os.access(self.path, os.R_OK | os.X_OK):
            raise InputError(f"{self.path}: cannot be read; choose another `--out`")
        if self.recipe_file.exists() and not self.is_unfinished_start():
            raise InputError(f"{self.path}: holds a run already; resume it, or choose another `--out`")
        found = self.path.iterdir() if self.path.exists() else ()
        empty = all(path.name == LOCK or PARTIAL_FILE.fullmatch(path.name) for path in found)
        if not (empty or self.is_unfinished_start()):
            raise InputError(f"{self.path}: is not empty; choose another `--out`")
        parent = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise InputError(f"{self.path}: cannot be written ({parent} is not writable); choose another `--out`")

    @property
    def recipe_file(self) -> Path:
        """`recipe.yaml`."""
        return self.path / "recipe.yaml"

    @property
    def log_file(self) -> Path:
        """`log.jsonl`."""
        return self.path / "log.jsonl"

    @property
    def rollbacks_file(self) -> Path:
        """`rollbacks.jsonl`."""
        return self.path / "rollbacks.jsonl"

    @property
    def samples_folder(self) -> Path:
        """`samples/`."""
        return self.path / "samples"

    @property
    def checkpoints_folder(self) -> Path:
        """`checkpoints/`."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """`model/`, the model folder."""
        return self.path / "model"

    @property
    def report_file(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def recipe(self) -> Recipe:
        """The complete recipe of the run."""
        return read_recipe(self.recipe_file)

    def write_recipe(self, recipe: Recipe) -> None:
        """Writes `recipe.yaml` atomically."""
        _replace(self.recipe_file, recipe.to_yaml())

    def checkpoints(self, step: int | None = None) -> list[Path]:
        """Returns the checkpoints, oldest first (default: all; otherwise those up to `step`)."""
        found = [path for path in self.checkpoints_folder.glob("*") if path.is_dir() and path.name.isdecimal()]
        return sorted((path for path in found if step is None or int(path.name) <= step), key=_step)

    def keep_checkpoints(self, count: int, step: int) -> None:
        """Removes all but the `count` newest checkpoints up to a step, and partial files.

        Checkpoints of later steps, which are damaged if the run was rolled back to this step, are ignored.
        """
        for folder in self.checkpoints(step)[:-count]:
            shutil.rmtree(folder)
        self.tidy()

    def tidy(self) -> None:
        """Removes partial files of interrupted writers; those that another living process writes are kept."""
        for folder in (self.path, self.samples_folder, self.checkpoints_folder):
            remove_partial_files(folder)
        remove_partial_folders(self.path, self.model.name)
        remove_partial_folders(self.checkpoints_folder, "[0-9]+")

    def is_rounded_off(self) -> bool:
        """Returns whether the report and the model of the last checkpoint are written, unlike after a kill.

        The model is written last, and its config contains the step.
        """
        checkpoints, config = self.checkpoints(), self.model / "config.json"
        if not checkpoints or not self.report_file.exists() or not config.is_file():
            return False
        with config.open("rb") as file:
            written = parse_line(file.read(MAX_LINE))
        return written is not None and written["step"] == _step(checkpoints[-1])

    def log(self) -> list[dict[str, Any]]:
        """Returns the lines of `log.jsonl` with training losses, without damaged lines."""
        return [line for line in Lines(self.log_file) if line.get("phase") not in (EVALUATION, DIAGNOSTICS)]

    def evaluations(self) -> list[dict[str, Any]]:
        """Returns the evaluations in `log.jsonl`: `evaluation/FIGURE`, and `protocol/FIGURE` for each."""
        return [line for line in Lines(self.log_file) if line.get("phase") == EVALUATION]

    def append_log(self, line: Mapping[str, Any]) -> None:
        """Appends a line to `log.jsonl`."""
        _append_line(self.log_file, line)

    def append_evaluation(self, figures: Mapping[str, Any]) -> None:
        """Appends the figures of an evaluation of the trained model to `evaluations.jsonl`, for the report.

        Raises:
            InputError: the folder cannot be written.
        """
        log = self.log()
        kept = ("data", "samples", "seed", "metrics", "scales", "protocol", "protocols")
        step = log[-1]["step"] if log else 0
        _append_line(self.path / MEASURED, {"step": step} | {key: figures[key] for key in kept})

    def rollbacks(self) -> list[dict[str, Any]]:
        """Returns the rollbacks: what was not finite (`what`), at which `step`, and the restored step (`to`).

        `to` is None if there was no valid checkpoint; `log` contains the last lines that were removed from the log.
        Rewinding the run keeps all rollbacks.
        """
        return list(Lines(self.rollbacks_file))

    def append_rollback(self, step: int, to: int | None, what: str) -> None:
        """Appends a line to `rollbacks.jsonl`; must be called before the log's lines after `to` are removed."""
        lost = [line for line in self.log() if to is not None and line["step"] > to]
        _append_line(self.rollbacks_file, {"step": step, "to": to, "what": what, "log": lost[-LOST_LINES:]})

    def rewind(self, step: int, *, log_every: int, sample_every: int | None, evaluate_every: int | None) -> None:
        """Removes samples and lines of the log after a step, and damaged lines.

        Samples of the step itself are kept. Lines of the step itself are kept if they are due by their interval. They
        are removed if they were written only because the run ended there, because a longer run continues their means.

        Raises:
            GanError: the folder cannot be written.
        """

        def stays(at: int, interval: int | None) -> bool:
            return at < step or (at == step and interval is not None and at % interval == 0)

        intervals = {EVALUATION: evaluate_every, DIAGNOSTICS: sample_every}
        kept = [
            line
            for line in Lines(self.log_file)
            if stays(line["step"], intervals.get(str(line.get("phase")), log_every))
        ]
        _replace(self.log_file, "".join(json.dumps(line) + "\n" for line in kept))
        with writing(self.path):
            for path in self.samples():
                if _step(path) > step:
                    path.unlink()

    def samples(self) -> list[Path]:
        """Returns the samples written during training, oldest first."""
        return sorted((path for path in self.samples_folder.glob("*") if path.stem.isdecimal()), key=_step)

    def sample_stem(self, step: int) -> Path:
        """Returns the path of a step's samples, without the suffix."""
        return self.samples_folder / f"{step:08d}"

    def checkpoint(self, step: int) -> Path:
        """Returns the path of a step's checkpoint."""
        return self.checkpoints_folder / f"{step:08d}"


def _append_line(path: Path, line: Mapping[str, Any]) -> None:
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _replace(path: Path, text: str) -> None:
    """Writes a file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _step(path: Path) -> int:
    """Returns the step in the name of samples or of a checkpoint."""
    return int(path.stem)
