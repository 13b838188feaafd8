"""Model folders in the Hugging Face layout: `config.json`, `model.safetensors`, and a model card."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

import gan_core
from gan_core.errors import CheckpointError, GanError, InputError, RecipeError, writing
from gan_core.media.writing import PARTIAL_FOLDER, is_written, partial_folder, remove_partial_folders
from gan_core.models.card import model_card, shareable
from gan_core.models.checkpoint import (
    AVERAGE,
    EXTRA,
    GAME,
    Tensors,
    check_sums,
    flush,
    load_state,
    read_checkpoint,
    read_tensors,
    split_state,
    state_of_training,
    sums_of,
    write_tensors,
)
from gan_core.models.pretrained import check_helpers, helpers_of
from gan_core.places import expanded
from gan_core.play.game import Game
from gan_core.recipe import parse
from gan_core.runs.run import Run

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CONFIG_BYTES = 1_000_000
"""Maximum size of a `config.json`, in bytes."""
FILES = 1000
"""Maximum number of a game's own files in a model folder."""


class Reached(BaseModel):
    """The phase in which the training of a game ended.

    Attributes:
        number: index of the phase, from 0.
        progress: completed fraction of the phase.
    """

    number: int = Field(default=0, ge=0)
    progress: float = Field(default=0.0, ge=0, le=1)


class Config(BaseModel):
    """Fields of a model's `config.json` that are read.

    Attributes:
        recipe: recipe from which the game was built, without the folders of its data; None for a game built by hand.
        networks: networks that the folder contains; None if it contains all.
        phase: phase in which the training ended.
        step: number of steps of the training.
        plain_state: state of modules other than tensors.
        files: SHA-256 of the game's own files (`Game.save_files`), by path.
        pretrained: SHA-256 of the weights of frozen helpers, which are not in the folder, by name of the helper.
    """

    recipe: dict[str, Any] | None
    networks: list[str] | None = None
    phase: Reached | None = None
    step: int = Field(default=0, ge=0)
    plain_state: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict, max_length=FILES)
    pretrained: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """State of a game in a model folder or a run.

    Attributes:
        folder: the model folder, or the run's checkpoint.
        tensors: tensors by name.
        plain: other values of the modules' state, by name.
        networks: networks that the folder contains; None if it contains all.
        phase: phase in which the training ended; None if it is not known.
        file: name of the file with the tensors.
        averaged: names of the averaged tensors, which are in a separate file.
        files: folder of the game's own files; None if there are none.
        pretrained: SHA-256 of the weights of frozen helpers, by name.
    """

    folder: Path
    tensors: Tensors
    plain: Mapping[str, Any]
    networks: Sequence[str] | None = None
    phase: Reached | None = None
    file: str = WEIGHTS
    averaged: frozenset[str] = frozenset()
    files: Path | None = None
    pretrained: Mapping[str, str] = field(default_factory=dict)

    def file_of(self, network: str) -> Path:
        """Returns the file with the weights of a network."""
        return self.folder / (AVERAGE if any(name.startswith(f"{network}.") for name in self.averaged) else self.file)

    def enter_phase(self, game: Game) -> None:
        """Enters the phase in which the game was saved.

        Raises:
            CheckpointError: the game has no such phase.
        """
        if self.phase is not None:
            try:
                game.enter_phase(self.phase.number, self.phase.progress)
            except RecipeError as error:
                raise CheckpointError(f"{self.folder}: does not belong to this game ({error})") from error

    def absent(self, networks: Iterable[str]) -> tuple[str, ...]:
        """Returns the networks that are not in the folder."""
        return () if self.networks is None else tuple(name for name in networks if name not in self.networks)

    def check_sizes(self, blank: Game) -> None:
        """Compares the shapes of tensors with those of a game on the `meta` device, before memory is allocated.

        Raises:
            CheckpointError: a tensor is missing or has another shape.
        """
        of_training = tuple(state_of_training(blank))
        for name, parameter in blank.state_dict().items():
            mine = self.networks is None or name.partition(".")[0] in self.networks
            if not isinstance(parameter, Tensor) or not mine or name.startswith(of_training):
                continue
            if name not in self.tensors:
                raise CheckpointError(f"{self.folder}: has no `{name}`; it is damaged or belongs to another system")
            if self.tensors[name].shape != parameter.shape:
                sizes = f"{list(self.tensors[name].shape)}, but {list(parameter.shape)} in the game of its recipe"
                cause = "the model is damaged or belongs to another system"
                raise CheckpointError(f"{self.folder}: `{name}` has shape {sizes}; {cause}")

    def put_into(self, game: Game) -> None:
        """Enters the saved phase and loads the files and the weights into a game.

        Networks that are not in the folder keep their weights, and training state is unchanged (see `split_state`).

        Raises:
            CheckpointError: the weights do not belong to this game.
        """
        self.enter_phase(game)
        check_helpers(game, self.pretrained, self.folder)
        try:
            if self.files is not None:
                game.load_files(self.files)
            left_out = (
                ()
                if self.networks is None
                else tuple(f"{name}." for name, _ in game.named_children() if name not in self.networks)
            )
            optional = (*left_out, *state_of_training(game))
            load_state(game, self.tensors, self.plain, self.folder, optional=optional)
        except (OSError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{self.folder}: its state does not fit {type(game).__name__} ({error})") from error


def save_model(game: Game, folder: Path, *, networks: Iterable[str] | None = None) -> Path:
    """Writes a model folder under a temporary name and renames it.

    If the process is killed, the folder holds the old model or the new one. In between, both are under temporary names,
    and `find_model` finds the old one.

    Args:
        game: the game; its weights are written as they are.
        folder: output folder; an existing model folder is replaced.
        networks: names of the networks to write (default: all that have weights).

    Raises:
        InputError: the folder exists and is not a model folder, or it cannot be written.
        GanError: the game writes a file with a reserved name, or its plain state is too large.
    """
    folder = Path(os.path.abspath(expanded(folder)))
    if folder.is_symlink():
        folder = folder.resolve()
    _clean_up(folder)
    if folder.exists() and not (folder / CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not a model folder; choose another")
    tensors, plain = split_state(game, model=True)
    if networks is None and game.absent:
        networks = [name for name, _ in game.named_children() if name not in game.absent]
    helpers = {name: helper.sha256 for name, helper in helpers_of(game).items()}
    networks = None if networks is None else sorted(networks)
    if networks is not None:
        left_out = tuple(f"{name}." for name, _ in game.named_children() if name not in networks)
        tensors = {key: value for key, value in tensors.items() if not key.startswith(left_out)}
        plain = {key: value for key, value in plain.items() if not key.startswith(left_out)}
        helpers = {name: total for name, total in helpers.items() if not f"{name}.".startswith(left_out)}
    about = {"library_name": "gan-core", "library_version": gan_core.__version__, "game": type(game).__name__}
    config = Config(
        recipe=None if game.recipe is None else shareable(game.recipe).model_dump(mode="json"),
        networks=networks,
        plain_state=plain,
        phase=Reached(number=game.phase_number, progress=game.progress),
        step=game.step,
        pretrained=helpers,
    )
    temporary = partial_folder(folder)
    try:
        with writing(folder):
            temporary.mkdir(parents=True)
            game.save_files(temporary)
            config.files = sums_of(temporary)
            text = json.dumps(about | config.model_dump(), indent=2) + "\n"
            _check_written(game, config, text)
            write_tensors(temporary / WEIGHTS, tensors)
            (temporary / CONFIG).write_text(text, encoding="utf-8")
            (temporary / CARD).write_text(model_card(game, networks), encoding="utf-8")
            for path in (*temporary.rglob("*"), temporary):
                flush(path)
            _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Replaces a folder, which may be missing, by a new one.

    Raises:
        OSError: it cannot be replaced; the old folder is in place.
    """
    old = temporary.with_name(f"{temporary.name}.old")
    if folder.exists():
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def find_model(folder: Path) -> Path:
    """Returns a model folder, or the name under which a killed `save_model` has left the old one; see there."""
    return folder if folder.exists() else next((path for path, _ in _set_aside(folder)), folder)


def _set_aside(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yields old models that were about to be replaced, and the process ids of their writers."""
    for path in sorted(folder.parent.glob(".*.old")):
        match = PARTIAL_FOLDER.fullmatch(path.name)
        if match and match[1] == folder.name and (path / CONFIG).is_file():
            yield path, int(match[2])


def _clean_up(folder: Path) -> None:
    """Puts a model back that a killed `save_model` has set aside, and removes what it had written.

    Raises:
        InputError: the folder cannot be renamed.
    """
    left = next((path for path, process in _set_aside(folder) if not is_written(process)), None)
    if left is not None and not folder.exists():
        with writing(folder):
            left.rename(folder)
    remove_partial_folders(folder.parent, re.escape(folder.name))


def _check_written(game: Game, config: Config, text: str) -> None:
    """Checks that a model folder can be read again.

    Raises:
        GanError: the folder would not be readable.
    """
    title = type(game).__name__
    if taken := {CONFIG, WEIGHTS, CARD} & config.files.keys():
        raise GanError(
            f"{title}.save_files writes {min(taken)}, a name that model folders reserve; choose another name"
        )
    if len(config.files) > FILES:
        raise GanError(f"{title}.save_files writes {len(config.files):,} files; a model folder has at most {FILES:,}")
    if len(text.encode()) > CONFIG_BYTES:
        raise GanError(
            f"the extra state of {title} would make {CONFIG} {len(text):,} characters long; the maximum is "
            f"{CONFIG_BYTES:,} bytes. Write it to a file in `save_files`"
        )


def read_config(path: Path) -> Config:
    """Returns the config of a model folder, or the equivalent of a run folder.

    Raises:
        CheckpointError: the folder is neither a model nor a run, or it is damaged.
    """
    if (path / "recipe.yaml").is_file():
        return Config(recipe=Run.open(path).recipe.model_dump(mode="json"))
    file = path / CONFIG
    if not path.exists():
        raise CheckpointError(f"{path}: no such folder")
    if not file.is_file():
        raise CheckpointError(f"{path}: neither a run (it has no recipe.yaml) nor a model folder (it has no {CONFIG})")
    if file.stat().st_size > CONFIG_BYTES:
        raise CheckpointError(f"{file}: larger than {CONFIG_BYTES:,} bytes, the maximum for a config")
    try:
        return Config.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"`{part}`: " for part in first["loc"])
        raise CheckpointError(f"{file}: is not a model's config ({place}{first['msg']})") from error


def restore(game: Game, path: str | Path) -> None:
    """Loads the weights of a run or model folder into a game, in evaluation mode; see `Game.restore`.

    A game that was built by hand also gets the recipe of its training run, which includes the class names.
    """
    folder = find_model(expanded(path))
    read_weights(folder).put_into(game)
    fields = read_config(folder).recipe
    if game.recipe is None and fields is not None and fields.get("system") == type(game).__name__:
        try:
            game.recipe = parse(fields)
        except RecipeError as error:
            raise CheckpointError(f"{path}: its recipe cannot be read ({error})") from error
    game.eval()


def read_weights(folder: Path) -> Weights:
    """Returns a model's weights; for a run, those of its latest checkpoint, averaged if the run averages weights.

    Only the files with these weights are read.

    Raises:
        CheckpointError: the weights are missing or damaged.
    """
    if not (folder / "recipe.yaml").is_file():
        config = read_config(folder)
        check_sums(folder, config.files, CONFIG)
        return Weights(
            folder,
            read_tensors(folder / WEIGHTS),
            config.plain_state,
            config.networks,
            config.phase,
            files=folder if config.files else None,
            pretrained=config.pretrained,
        )
    run, problem = Run.open(folder), None
    for checkpoint in reversed(run.checkpoints()):
        try:
            files, state = read_checkpoint(checkpoint, (GAME, AVERAGE))
            phase = Reached(number=state.get("phase", 0), progress=state.get("progress", 0.0))
            config = Config(
                recipe=None, phase=phase, plain_state=state.get("game", {}), pretrained=state.get("pretrained", {})
            )
        except CheckpointError as error:
            problem = problem or error
            continue
        except ValidationError:
            problem = problem or CheckpointError(f"{checkpoint}: its state.json is not a training state")
            continue
        average = files.get(AVERAGE, {})
        return Weights(
            checkpoint,
            files.get(GAME, {}) | average,
            config.plain_state,
            phase=config.phase,
            file=GAME,
            averaged=frozenset(average),
            files=checkpoint / EXTRA if state["extra"] else None,
            pretrained=config.pretrained,
        )
    if (run.model / CONFIG).is_file():
        return read_weights(run.model)
    raise problem or CheckpointError(f"{folder}: has no checkpoint and no model yet")
