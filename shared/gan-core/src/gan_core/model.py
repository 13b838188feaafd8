"""A model folder, in the Hugging Face layout: `config.json`, `model.safetensors`, and a model card."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

import gan_core
from gan_core.checkpoint import Tensors, load_state, read_checkpoint, read_tensors, split_state, write_tensors
from gan_core.errors import CheckpointError, InputError
from gan_core.game import Game
from gan_core.run import Run

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CONFIG_BYTES = 1_000_000
"""The largest `config.json` that is read."""


def save_model(game: Game, folder: Path, *, networks: Iterable[str] | None = None) -> Path:
    """Writes a model folder under a temporary name and renames it.

    Args:
        game: whose weights are written as they are.
        folder: replaced if it is a model folder already.
        networks: those that are written; None is all. (An imported checkpoint may hold one of several.)

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not (folder / CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is no model folder; choose another")
    tensors, plain = split_state(game)
    if networks is not None:
        chosen = tuple(f"{name}." for name in networks)
        tensors = {key: value for key, value in tensors.items() if key.startswith(chosen)}
    config = {
        "library_name": "gan-core", "library_version": gan_core.__version__, "game": type(game).__name__,
        "recipe": None if game.recipe is None else game.recipe.model_dump(mode="json"),
        "networks": None if networks is None else sorted(networks), "plain_state": plain,
    }  # fmt: skip
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        write_tensors(temporary / WEIGHTS, tensors)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(model_card(game), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(f"{folder}: the model cannot be written ({error.strerror})") from error
    return folder


def model_card(game: Game) -> str:
    """The model's README, with the hub's metadata."""
    recipe = game.recipe
    if recipe is None or recipe.domain is None:
        title, use = (
            type(game).__name__,
            f"game.restore(folder)  # a {type(game).__name__} built as it was for training",
        )
    else:
        package = f"gan_{recipe.domain}"
        title = f"{recipe.system} ({recipe.preset})"
        use = f'import {package}\n\ngame = {package}.load("path/or/repository")\nsamples = game.generate(16, seed=0)'
    parameters = "\n".join(f"| {name} | {count:,} |" for name, count in parameter_counts(game).items())
    settings = "" if recipe is None else f"\n## Recipe\n\n```yaml\n{recipe.to_yaml()}```\n"
    data = ModelCardData(library_name="gan-core", tags=["gan"])
    body = f"# {title}\n\n```python\n{use}\n```\n\n| network | parameters |\n|---|---|\n{parameters}\n{settings}"
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def parameter_counts(game: Game) -> dict[str, int]:
    """Trainable scalars of each network."""
    return {name: sum(p.numel() for p in network.parameters()) for name, network in game.named_children()}


def read_config(path: Path) -> dict[str, Any]:
    """The config of a model folder, or the same facts of a run folder.

    Raises:
        CheckpointError: it is neither, or damaged.
    """
    if (path / "recipe.yaml").is_file():
        return {"recipe": Run.open(path).recipe.model_dump(mode="json"), "networks": None, "plain_state": {}}
    file = path / CONFIG
    if not path.exists():
        raise CheckpointError(f"{path}: no such folder")
    if not file.is_file():
        raise CheckpointError(f"{path}: neither a run (it has no recipe.yaml) nor a model folder (it has no {CONFIG})")
    try:
        if file.stat().st_size > CONFIG_BYTES:
            raise CheckpointError(f"{file}: larger than {CONFIG_BYTES:,} bytes")
        config = json.loads(file.read_text(encoding="utf-8"))
        return {key: config[key] for key in ("recipe", "networks", "plain_state")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file}: is not a model's config") from error


def restore(game: Game, path: str | Path) -> None:
    """Loads the weights of a run or model folder into a game of the same networks; see `Game.restore`."""
    folder = Path(path)
    config = read_config(folder)
    tensors, plain = _newest_weights(folder, config)
    if config["networks"] is not None:
        own, own_plain = split_state(game)
        tensors, plain = own | tensors, own_plain | plain
    load_state(game, tensors, plain, folder)


def _newest_weights(folder: Path, config: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """A model's weights; of a run, its newest checkpoint's with the average in the place of what was averaged."""
    if (folder / CONFIG).is_file():
        return read_tensors(folder / WEIGHTS), config["plain_state"]
    run, problem = Run.open(folder), None
    for checkpoint in reversed(run.checkpoints()):
        try:
            files, state = read_checkpoint(checkpoint)
        except CheckpointError as error:
            problem = problem or error
            continue
        return files["game.safetensors"] | files.get("average.safetensors", {}), state["game"]
    if (run.model / CONFIG).is_file():
        return _newest_weights(run.model, read_config(run.model))
    raise problem or CheckpointError(f"{folder}: has no checkpoint and no model yet")


def local_folder(path: str | Path) -> Path:
    """The folder itself, or the hub repository of that id, downloaded.

    Raises:
        CheckpointError: it is neither on this machine nor on the hub, or the hub cannot be reached.
    """
    folder = Path(path)
    text = str(path)
    if folder.exists() or text.count("/") != 1 or text.startswith((".", "/", "~")):
        return folder
    try:
        return Path(snapshot_download(text, allow_patterns=[CONFIG, WEIGHTS, CARD]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{text}: no such folder here, and the hub gave none ({reason})") from error


def push(game: Game, repository: str, *, private: bool, token: str | None) -> str:
    """Uploads a game's model folder; see `Game.push_to_hub`."""
    api = HfApi(token=token)
    identity = api.create_repo(repository, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(game, Path(folder) / "model")
        return str(api.upload_folder(repo_id=identity, folder_path=saved))
