"""A model folder, in the Hugging Face layout: `config.json`, `model.safetensors`, and a model card."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from pydantic import BaseModel, Field, ValidationError

import gan_core
from gan_core.checkpoint import Tensors, load_state, read_checkpoint, read_tensors, split_state, write_tensors
from gan_core.errors import CheckpointError, InputError, writing
from gan_core.game import Game
from gan_core.run import Run

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CONFIG_BYTES = 1_000_000
"""The largest `config.json` that is read."""


class Config(BaseModel):
    """What `config.json` says of a model, as far as it is read.

    Attributes:
        recipe: what it was built from; None for a game put together by hand.
        networks: those that the folder holds; None is all.
        plain_state: what modules keep beside their tensors.
    """

    recipe: dict[str, Any] | None
    networks: list[str] | None = None
    plain_state: dict[str, Any] = Field(default_factory=dict)


LARGEST_ABSENT = 2**30
"""Parameters of networks that a model folder leaves out."""


@dataclass(frozen=True)
class Weights:
    """What a model folder, or a run, holds of a game's state.

    Attributes:
        folder: where it is from.
        tensors: by name.
        plain: other values that modules keep.
        networks: those that the folder holds; None is all.
    """

    folder: Path
    tensors: Tensors
    plain: Mapping[str, Any]
    networks: Sequence[str] | None

    def check_sizes(self, blank: Game) -> None:
        """Compares the parameters with those of a game on torch's `meta` device, before one that needs memory is built.

        Raises:
            CheckpointError: a parameter is missing or of another shape, or those left out are unreasonably many.
        """
        absent = 0
        for name, parameter in blank.named_parameters():
            mine = self.networks is None or name.partition(".")[0] in self.networks
            if mine and name not in self.tensors:
                raise CheckpointError(f"{self.folder}: has no `{name}`; it is damaged, or of another system")
            if mine and self.tensors[name].shape != parameter.shape:
                sizes = f"{list(self.tensors[name].shape)}, and its recipe's is {list(parameter.shape)}"
                raise CheckpointError(f"{self.folder}: `{name}` is {sizes}; it is damaged, or of another system")
            absent += 0 if mine else parameter.numel()
        if absent > LARGEST_ABSENT:
            raise CheckpointError(f"{self.folder}: its recipe has {absent:,} parameters that it does not hold")

    def put_into(self, game: Game) -> None:
        """Loads them into a game of the same networks; networks that the folder leaves out stay as they are.

        Raises:
            CheckpointError: they are not this game's.
        """
        tensors, plain = self.tensors, self.plain
        if self.networks is not None:
            own, own_plain = split_state(game)
            tensors, plain = own | tensors, {**own_plain, **plain}
        try:
            load_state(game, tensors, plain, self.folder)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{self.folder}: its state is not a {type(game).__name__}'s ({error})") from error


def save_model(game: Game, folder: Path, *, networks: Iterable[str] | None = None) -> Path:
    """Writes a model folder under a temporary name and renames it.

    Args:
        game: whose weights are written as they are.
        folder: replaced if it is a model folder already.
        networks: those that are written; None is all. (An imported checkpoint may hold one of several.)

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not (folder / CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is no model folder; choose another")
    tensors, plain = split_state(game)
    networks = None if networks is None else sorted(networks)
    if networks is not None:
        chosen = tuple(f"{name}." for name in networks)
        tensors = {key: value for key, value in tensors.items() if key.startswith(chosen)}
    about = {"library_name": "gan-core", "library_version": gan_core.__version__, "game": type(game).__name__}
    config = Config(
        recipe=None if game.recipe is None else game.recipe.model_dump(mode="json"),
        networks=networks, plain_state=plain,
    )  # fmt: skip
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with writing(folder):
            temporary.mkdir(parents=True)
            write_tensors(temporary / WEIGHTS, tensors)
            (temporary / CONFIG).write_text(json.dumps(about | config.model_dump(), indent=2) + "\n", encoding="utf-8")
            (temporary / CARD).write_text(model_card(game, networks), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def model_card(game: Game, networks: Sequence[str] | None = None) -> str:
    """The model's README, with the hub's metadata.

    Args:
        game: the model.
        networks: those that the folder holds; None is all.
    """
    recipe = game.recipe
    if recipe is None or recipe.domain is None:
        title, use = (
            type(game).__name__,
            f"game.restore(folder)  # a {type(game).__name__} built as it was for training",
        )
    else:
        package = f"gan_{recipe.domain}"
        title = f"{recipe.system} ({recipe.preset})"
        use = f'import {package}\n\ngame = {package}.load("path/or/repository")\n{game.example}'
    counts = parameter_counts(game)
    parameters = "\n".join(f"| {name} | {counts[name]:,} |" for name in counts if networks is None or name in networks)
    names = None if recipe is None else recipe.data.classes
    classes = "" if names is None else f"\nClasses: {', '.join(names)}\n"
    settings = "" if recipe is None else f"\n## Recipe\n\n```yaml\n{recipe.to_yaml()}```\n"
    data = ModelCardData(library_name="gan-core", tags=["gan"])
    table = f"| network | parameters |\n|---|---|\n{parameters}\n"
    body = f"# {title}\n\n```python\n{use}\n```\n\n{table}{classes}{settings}"
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def parameter_counts(game: Game) -> dict[str, int]:
    """Trainable scalars of each network."""
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in game.named_children()}
    return {name: count for name, count in counts.items() if count}


def read_config(path: Path) -> Config:
    """The config of a model folder, or the same facts of a run folder.

    Raises:
        CheckpointError: it is neither, or damaged.
    """
    if (path / "recipe.yaml").is_file():
        return Config(recipe=Run.open(path).recipe.model_dump(mode="json"))
    file = path / CONFIG
    if not path.exists():
        raise CheckpointError(f"{path}: no such folder")
    if not file.is_file():
        raise CheckpointError(f"{path}: neither a run (it has no recipe.yaml) nor a model folder (it has no {CONFIG})")
    if file.stat().st_size > CONFIG_BYTES:
        raise CheckpointError(f"{file}: larger than {CONFIG_BYTES:,} bytes, which no model's config is")
    try:
        return Config.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"`{part}`: " for part in first["loc"])
        raise CheckpointError(f"{file}: is not a model's config ({place}{first['msg']})") from error


def restore(game: Game, path: str | Path) -> None:
    """Loads the weights of a run or model folder into a game, in evaluation mode; see `Game.restore`."""
    read_weights(Path(path)).put_into(game)
    game.eval()


def read_weights(folder: Path) -> Weights:
    """A model's weights; of a run, its newest checkpoint's with the average in the place of what was averaged.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
    if not (folder / "recipe.yaml").is_file():
        config = read_config(folder)
        return Weights(folder, read_tensors(folder / WEIGHTS), config.plain_state, config.networks)
    run, problem = Run.open(folder), None
    for checkpoint in reversed(run.checkpoints()):
        try:
            files, state = read_checkpoint(checkpoint)
        except CheckpointError as error:
            problem = problem or error
            continue
        tensors = files.get("game.safetensors", {}) | files.get("average.safetensors", {})
        return Weights(checkpoint, tensors, state.get("game", {}), None)
    if (run.model / CONFIG).is_file():
        return read_weights(run.model)
    raise problem or CheckpointError(f"{folder}: has no checkpoint and no model yet")


def local_folder(path: str | Path) -> Path:
    """The folder itself, or the hub repository of that id, downloaded.

    Raises:
        CheckpointError: it is neither on this machine nor on the hub, or the hub cannot be reached.
    """
    folder = Path(path)
    text = str(path)
    if folder.exists() or folder.parent.is_dir() or text.count("/") != 1 or text.startswith("~"):
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
