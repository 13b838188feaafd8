"""The page of file formats. A short training run checks that all files and keys of a run are described."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from _markdown import code, fence, page, table

import gan_image

RUN = {
    "recipe.yaml": "The complete recipe: `train --recipe RUN/recipe.yaml` repeats the run.",
    "log.jsonl": "Losses, diagnostics and evaluations: one JSON object per line.",
    "evaluations.jsonl": "Figures of `evaluate` with their protocols, for the report; one JSON object per evaluation.",
    "rollbacks.jsonl": "Rollbacks to an earlier checkpoint after a non-finite value, if there were any.",
    "report.html": "The report: one file without external resources.",
    "samples/STEP.png": "Samples at this step: pictures, `.wav`, `.mid` or `.npz`, depending on the domain.",
    "samples/real.png": "Real items, for comparison.",
    "checkpoints/STEP/state.json": "State of the training run other than tensors, and the SHA-256 of each file.",
    "checkpoints/STEP/game.safetensors": "Weights and buffers of the game at this step.",
    "checkpoints/STEP/average.safetensors": "Moving average of the weights; only with `train.ema`.",
    "checkpoints/STEP/optimizers.safetensors": "State of the optimizers.",
    "checkpoints/STEP/files/": "Other files of the game (`Game.save_files`), if it has any.",
    ".lock": "The process that trains the run, and its host; only while it does.",
    "model/config.json": "Description of the model.",
    "model/model.safetensors": "Weights with which samples are generated: averaged if `train.ema` is set.",
    "model/README.md": "The model card.",
}
"""Files of a run, by path. Those of `model/` make a model folder."""
OPTIONAL = {"evaluations.jsonl", "rollbacks.jsonl", ".lock", "checkpoints/STEP/files/"}
"""Files that the short training run does not write."""

CONFIG = {
    "library_name": "`gan-core`",
    "library_version": "Version of gan-core that wrote the folder.",
    "game": "Class of the game.",
    "recipe": "The recipe, without the folders of paths of data and weights; `null` for a game built by hand.",
    "networks": "Networks that the folder contains; `null` if it contains all.",
    "phase": "Index of the phase in which training ended, and its completed fraction.",
    "step": "Number of completed steps.",
    "plain_state": "State of modules other than tensors (`get_extra_state`).",
    "files": "SHA-256 of the game's other files, by path.",
    "pretrained": "SHA-256 of the weights of frozen helpers, by name. The weights are not in the folder.",
}
"""Keys of a model's `config.json`."""

LOG = {
    "step": "Completed steps.",
    "phase": "Name of the training phase; `diagnostics` or `evaluation` for lines of these kinds.",
    "PLAYER/TERM": "Mean of a loss term since the previous line. With several adversaries: `PLAYER/ADVERSARY/TERM`.",
    "PLAYER/real_logits": "Mean output of the discriminator for real samples; high means real.",
    "PLAYER/fake_logits": "The same for generated samples.",
    "PLAYER/real_sign": "Mean sign of the discriminator's output for real samples: 1 if it takes all for real.",
    "PLAYER/of_guessing": "The discriminator's adversarial loss as a fraction of the loss of one that guesses: 1 is "
    "chance level, and near 0 it recognises every sample. Not logged for losses without a lower bound.",
    "PLAYER/gradient_norm": "Norm of the gradient of the player's loss.",
    "samples_per_second": "Training speed: data items read per second; `samples/s` in the progress display.",
    "scale/FIGURE": "Unit of a figure, and whether lower or higher is better.",
    "samples/FIGURE": "Diagnostics of generated samples, which the doctor reads.",
    "evaluation/FIGURE": "Figure of a metric.",
    "protocol/FIGURE": "Id of the figure's protocol; only figures with the same id are comparable.",
}
"""Keys of a line in `log.jsonl`."""
PATTERNS = {
    r"samples/.+": "samples/FIGURE",
    r"evaluation/.+": "evaluation/FIGURE",
    r"protocol/.+": "protocol/FIGURE",
    **{rf".+/{name}": f"PLAYER/{name}" for name in ("real_logits", "fake_logits", "real_sign", "of_guessing")},
    r"scale/.+": "scale/FIGURE",
    r".+/gradient_norm": "PLAYER/gradient_norm",
    r"(generator|discriminator)/.+": "PLAYER/TERM",
}
"""Entries of `LOG` for keys that contain names, by a pattern of the keys. The first pattern that matches applies."""

TREE = """
RUN/
├── recipe.yaml
├── log.jsonl
├── rollbacks.jsonl
├── report.html
├── samples/00001000.png
├── checkpoints/00001000/
└── model/
"""

RULES = """
- No file is a pickle. Tensors are stored as safetensors, everything else as JSON, YAML or text.
- A checkpoint and a model folder are written under a temporary name, flushed, verified and renamed, so they are
  complete or absent. Resuming takes the latest checkpoint whose checksums are correct and whose values are finite.
- `train.checkpoint_every` and `train.keep_checkpoints` set how often checkpoints are written and how many are kept.
- A run can be moved or copied as a folder. Paths of data in `recipe.yaml` are absolute; `resume --data` changes them.
"""

MODEL = """
The folder follows the layout of Hugging Face, so that it can be uploaded as it is. `gan_image.load("RUN")`,
`gan_image.load("RUN/model")` and `gan_image.load("OWNER/NAME")` (a repository on the hub) load it.
"""

ITEMS = """
`generate` writes a file for each sample (`00000.png` …). If the model has conditions, `labels.csv` names the file and
its conditions in each row. Tasks such as `translate` keep the names and folders of their input files.
"""


def pages() -> dict[str, str]:
    """Returns the page by its path."""
    check()
    parts = [
        "## A run",
        fence("text", TREE),
        table(["file", "content"], [(code(name), text) for name, text in RUN.items()]),
        RULES,
        "### Lines of log.jsonl",
        table(["key", "value"], [(code(name), text) for name, text in LOG.items()]),
        "## A model",
        MODEL,
        "### Keys of config.json",
        table(["key", "value"], [(code(name), text) for name, text in CONFIG.items()]),
        "## Generated files",
        ITEMS,
    ]
    return {"reference/files.md": page("File formats", *parts)}


def check() -> None:
    """Trains for a few steps and compares the written files and keys with the descriptions.

    Raises:
        ValueError: a file or a key is not described, or a described one was not written.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        changes = {
            "network": {"image_size": 16, "width": 2, "latent_dim": 4},
            "train": {"steps": 2, "ema": 0.9, "log_every": 1, "evaluate_every": 2, "evaluate": 16},
        }
        metrics = ["sliced_wasserstein"]  # the fastest
        gan_image.train("dcgan", data="digits", out=run, metrics=metrics, changes=changes, shown=False)
        files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
        compare("files of a run", (re.sub(r"\d{8}", "STEP", name) for name in files), RUN, OPTIONAL)
        compare("keys of config.json", json.loads((run / "model" / "config.json").read_text("utf-8")), CONFIG)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
        compare("keys of log.jsonl", (_entry(key) for line in lines for key in line), LOG)


def compare(kind: str, found: Iterable[str], described: Mapping[str, str], optional: set[str] | None = None) -> None:
    """Compares the names that were found with those that are described.

    Raises:
        ValueError: they differ.
    """
    differing = (set(found) ^ described.keys()) - (optional or set())
    if differing:
        raise ValueError(
            f"{kind}: {', '.join(sorted(differing))} differ from tools/docs/_formats.py; describe them there"
        )


def _entry(key: str) -> str:
    return next((name for pattern, name in PATTERNS.items() if re.fullmatch(pattern, key)), key)
