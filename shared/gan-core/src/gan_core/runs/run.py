"""Run folders, which contain the recipe, log, samples, checkpoints, model and report of a training run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from gan_core.errors import CheckpointError, InputError, writing
from gan_core.recipe import Recipe, read_recipe
from gan_core.runs.lines import DIAGNOSTICS, EVALUATION, LOST_LINES, MEASURED, Lines
from gan_core.tables import html_table


class Run:
    """A run folder. Reading it does not import torch.

    Attributes:
        path: the folder.
        interrupted: name of the signal that interrupted training in this process, or None.
        ended: reason why a training regime ended the run in this process, or None.
        problems: problems of the checkpoints that were skipped when the run was resumed.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
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
        """Creates a run in a new or empty folder.

        Raises:
            InputError: the folder is in use, or cannot be written.
        """
        run = cls(path)
        run.check_free()
        with writing(run.path):
            for folder in (run.path, run.samples_folder, run.checkpoints_folder):
                folder.mkdir(parents=True, exist_ok=True)
        run.write_recipe(recipe)
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

    def check_free(self) -> None:
        """Checks that a new run can be written here, without writing anything.

        Raises:
            InputError: the folder is in use, or cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; choose another `--out`")
        if self.recipe_file.exists():
            raise InputError(f"{self.path}: holds a run already; resume it, or choose another `--out`")
        if self.path.is_dir() and any(self.path.iterdir()):
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
        with writing(self.recipe_file):
            _replace(self.recipe_file, recipe.to_yaml())

    def checkpoints(self, step: int | None = None) -> list[Path]:
        """Returns the checkpoints, oldest first (default: all; otherwise those up to `step`)."""
        found = [path for path in self.checkpoints_folder.glob("*") if path.is_dir() and path.name.isdecimal()]
        return sorted(path for path in found if step is None or int(path.name) <= step)

    def keep_checkpoints(self, count: int, step: int) -> None:
        """Removes all but the `count` newest checkpoints up to a step, and partial files.

        Checkpoints of later steps, which are damaged if the run was rolled back to this step, are ignored.
        """
        for folder in self.checkpoints(step)[:-count]:
            shutil.rmtree(folder)
        self.tidy()

    def tidy(self) -> None:
        """Removes partial files of interrupted writers."""
        hidden = self.checkpoints_folder.glob(".*"), self.path.glob(".model.*"), self.path.glob(".report.*")
        for leftover in chain(*hidden):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def is_rounded_off(self) -> bool:
        """Returns whether the model and the report are newer than the last checkpoint, unlike after a kill."""
        checkpoints = self.checkpoints()
        written = [path.stat().st_mtime_ns for path in (self.report_file, self.model) if path.exists()]
        return len(written) == 2 and bool(checkpoints) and min(written) >= checkpoints[-1].stat().st_mtime_ns

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
        kept = ("data", "samples", "seed", "metrics", "protocol", "protocols")
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

        Output of the step itself is kept if it is due by its interval. It is removed if it was written only because the
        run ended there, because a longer run would not have written it.

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
        with writing(self.path):
            _replace(self.log_file, "".join(json.dumps(line) + "\n" for line in kept))
            for path in self.samples():
                if not stays(int(path.stem), sample_every):
                    path.unlink()

    def samples(self) -> list[Path]:
        """Returns the samples written during training, oldest first."""
        return sorted(path for path in self.samples_folder.glob("*") if path.stem.isdecimal())

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
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)
