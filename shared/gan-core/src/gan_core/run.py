"""A run: the folder with everything about one training (recipe, log, samples, checkpoints, model, report)."""

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

EVALUATION, WATCH = "evaluation", "watch"
"""The `phase` of the log's lines that are of no interval: of an evaluation, of a look at samples (`gan_core.watch`)."""
LOST_LINES = 20
"""Lines of the log that the record of a rollback keeps."""


class Run:
    """A run folder; reading it loads no torch.

    Attributes:
        path: the folder.
        interrupted: the signal that ended the training early in this process, or None.
        ended: sentence with which a training regime ended the training in this process, or None.
        problems: what was wrong with checkpoints that were passed over when it was resumed.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.interrupted: str | None = None
        self.ended: str | None = None
        self.problems: list[str] = []

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe) -> Run:
        """A new run in an empty or new folder.

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
        """A run that exists.

        Raises:
            CheckpointError: there is none.
        """
        run = cls(path)
        if not run.path.exists():
            raise CheckpointError(f"{run.path}: no such folder")
        if not run.recipe_file.is_file():
            raise CheckpointError(f"{run.path}: not a run folder (it has no recipe.yaml)")
        return run

    def check_free(self) -> None:
        """Makes sure that a new run can be written here, and writes nothing.

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
            raise InputError(f"{self.path}: cannot be written ({parent} allows no writing); choose another `--out`")

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
        """`model/`, the folder to use and to share."""
        return self.path / "model"

    @property
    def report_file(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def recipe(self) -> Recipe:
        """What was trained, complete."""
        return read_recipe(self.recipe_file)

    def write_recipe(self, recipe: Recipe) -> None:
        """Writes `recipe.yaml`, whole or not at all."""
        with writing(self.recipe_file):
            _replace(self.recipe_file, recipe.to_yaml())

    def checkpoints(self, step: int | None = None) -> list[Path]:
        """The checkpoints, oldest first; those up to a step, if one is given."""
        found = [path for path in self.checkpoints_folder.glob("*") if path.is_dir() and path.name.isdecimal()]
        return sorted(path for path in found if step is None or int(path.name) <= step)

    def keep_checkpoints(self, count: int, step: int) -> None:
        """Removes all but the newest checkpoints up to a step, and what an interrupted writer left.

        Later ones are damaged (the training went back to that step) and do not count.
        """
        for folder in self.checkpoints(step)[:-count]:
            shutil.rmtree(folder)
        self.tidy()

    def tidy(self) -> None:
        """Removes what interrupted writers left."""
        hidden = self.checkpoints_folder.glob(".*"), self.path.glob(".model.*"), self.path.glob(".report.*")
        for leftover in chain(*hidden):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def is_rounded_off(self) -> bool:
        """Whether its model and its report were written after its last checkpoint; a kill may have come between."""
        checkpoints = self.checkpoints()
        written = [path.stat().st_mtime_ns for path in (self.report_file, self.model) if path.exists()]
        return len(written) == 2 and bool(checkpoints) and min(written) >= checkpoints[-1].stat().st_mtime_ns

    def log(self) -> list[dict[str, Any]]:
        """The training's lines of `log.jsonl`; a last line that a kill cut short is left out."""
        return [line for line in _read_lines(self.log_file) if line.get("phase") not in (EVALUATION, WATCH)]

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of `log.jsonl` that are of evaluations: `evaluation/FIGURE`, and `protocol/FIGURE` beside each."""
        return [line for line in _read_lines(self.log_file) if line.get("phase") == EVALUATION]

    def append_log(self, line: Mapping[str, Any]) -> None:
        """Adds a line to `log.jsonl`."""
        _append_line(self.log_file, line)

    def rollbacks(self) -> list[dict[str, Any]]:
        """What became non-finite (`what`), by which `step`, and `to` which step the run was rolled back for it.

        `to` is None where there was no good checkpoint; `log` has the last lines that the log lost. A rewind keeps all.
        """
        return _read_lines(self.rollbacks_file)

    def append_rollback(self, step: int, to: int | None, what: str) -> None:
        """Adds a line to `rollbacks.jsonl`; the log's lines after `to` are still in the log, and are about to go."""
        lost = [line for line in self.log() if to is not None and line["step"] > to]
        _append_line(self.rollbacks_file, {"step": step, "to": to, "what": what, "log": lost[-LOST_LINES:]})

    def rewind(self, step: int, *, log_every: int, sample_every: int | None, evaluate_every: int | None) -> None:
        """Goes back to a step: forgets the log's lines and the samples that come after it.

        Those of the step itself stay where an interval ends there. Where they were made because the training did, they
        go: a training that goes on has none.

        Raises:
            GanError: the folder cannot be written.
        """

        def stays(at: int, interval: int | None) -> bool:
            return at < step or (at == step and interval is not None and at % interval == 0)

        intervals = {EVALUATION: evaluate_every, WATCH: sample_every}
        lines = _read_lines(self.log_file)
        kept = [line for line in lines if stays(line["step"], intervals.get(line["phase"], log_every))]
        with writing(self.path):
            _replace(self.log_file, "".join(json.dumps(line) + "\n" for line in kept))
            for path in self.samples():
                if not stays(int(path.stem), sample_every):
                    path.unlink()

    def samples(self) -> list[Path]:
        """What the training showed, oldest first."""
        return sorted(path for path in self.samples_folder.glob("*") if path.stem.isdecimal())

    def sample_stem(self, step: int) -> Path:
        """Where the samples of a step go, without the suffix that their kind of media has."""
        return self.samples_folder / f"{step:08d}"

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step goes."""
        return self.checkpoints_folder / f"{step:08d}"

    def report(self) -> Path:
        """Writes `report.html` and returns its path."""
        from gan_core.report import write_report

        return write_report(self.path)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """A file's lines of JSON, up to the first that is none."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _append_line(path: Path, line: Mapping[str, Any]) -> None:
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)
