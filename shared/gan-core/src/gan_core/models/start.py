"""Initial weights of networks from an earlier run, a model, or a published checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gan_core.errors import NAMED, CheckpointError, RecipeError, count, unknown
from gan_core.models.checkpoint import load_state, sha256, split_state, state_of_training
from gan_core.models.folder import read_weights
from gan_core.models.hub import local_folder
from gan_core.models.reference import Importers, read_published_file
from gan_core.places import expanded
from gan_core.play.adversary import Adversary
from gan_core.play.game import Game
from gan_core.recipe import Recipe, Start

logger = logging.getLogger("gan_core")


@dataclass(frozen=True)
class Given:
    """Weights for one network.

    Attributes:
        tensors: tensors by name within the network.
        plain: other values of its state, by name.
        file: file of the weights.
    """

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]
    file: Path


def start_networks(game: Game, recipe: Recipe, importers: Importers) -> Recipe:
    """Loads the weights that a recipe's `start` names into a game's networks.

    Parameters that the file lacks keep their values, and weights that the network lacks are ignored; a warning is
    logged in both cases.

    Args:
        game: the game; its networks are changed in place.
        recipe: the recipe.
        importers: importers for published checkpoints.

    Returns:
        The recipe with the absolute path and the SHA-256 of each file that was used.

    Raises:
        RecipeError: the game has no network with a given name.
        CheckpointError: weights are missing or damaged, do not have the SHA-256 in the recipe, or do not fit.
    """
    started: dict[str, Start] = {}
    for name, start in recipe.start.items():
        network = _network(game, name)
        given = find_start(start.source, name, importers)
        total = sha256(given.file)
        if start.sha256 not in (None, total):
            raise CheckpointError(
                f"{given.file}: has changed since `start.{name}` was recorded (its SHA-256 is {total}); "
                f"leave out `start.{name}.sha256` to use the changed file"
            )
        _load(network, given, name, start.source)
        started[name] = Start(source=_address(start.source, importers), sha256=total)
    return recipe.model_copy(update={"start": started})


def _address(source: str, importers: Importers) -> str:
    """Returns a source whose path is valid in any working directory; ids of repositories are unchanged."""
    place, colon, rest = source.rpartition(":")
    if colon and place in importers:
        return f"{place}:{os.path.abspath(expanded(rest))}"
    folder, network = (place, f":{rest}") if colon and not expanded(source).exists() else (source, "")
    return os.path.abspath(expanded(folder)) + network if expanded(folder).exists() else source


def _network(game: Game, name: str) -> nn.Module:
    """Returns the network of a game into which weights are loaded; for an adversary, its discriminator.

    Raises:
        RecipeError: there is no network of that name.
    """
    networks = dict(game.named_modules())
    if not name or name not in networks:
        known = [child for child, network in game.named_children() if any(True for _ in network.parameters())]
        raise unknown("network in `start`", name, known)
    network = networks[name]
    return network.network if isinstance(network, Adversary) else network


def find_start(source: str, name: str, importers: Importers) -> Given:
    """Reads the weights of a network from a source.

    Args:
        source: see `gan_core.recipe.Start`.
        name: name of the network, and its name in the source unless `source` gives another.
        importers: importers for published checkpoints.

    Raises:
        CheckpointError: the weights are missing or damaged, or the source names an unknown published network.
    """
    source = str(expanded(source))
    place, colon, rest = source.rpartition(":")
    if colon and place in importers:
        file = expanded(rest)
        published = read_published_file(importers, place, file, {})
        tensors, plain = split_state(published.build())
        return Given(tensors, plain, file)
    folder, network = (place, rest) if colon and not os.path.exists(source) else (source, name)
    if not os.path.isdir(folder):
        _check_not_published(folder, rest if colon else source, importers)
    weights = read_weights(local_folder(folder))
    found = _of_network(weights.tensors, network)
    if not found:
        held = sorted({key.partition(".")[0] for key in weights.tensors})
        raise CheckpointError(f"{folder}: has no network `{network}`; it has {', '.join(held) or 'none'}")
    return Given(found, _of_network(weights.plain, network), weights.file_of(network))


def _check_not_published(place: str, file: str, importers: Importers) -> None:
    """Checks that a source without a folder is not a misspelt `SYSTEM/NETWORK:FILE`, which the hub would not know.

    Args:
        place: part of the source before the colon, or all of it.
        file: part after the colon, or all of the source.
        importers: importers for published checkpoints.

    Raises:
        CheckpointError: the source names a network or a file of a published checkpoint, but not both.
    """
    if place in importers:
        raise CheckpointError(f"{place}: is a published network; append the file of its checkpoint, {place}:FILE")
    if place != file and (own := [name for name in importers if name.startswith(f"{place.partition('/')[0]}/")]):
        raise CheckpointError(f"{place}: neither a folder nor a published network; known: {', '.join(own)}")
    if place != file and os.path.isfile(file):
        raise unknown("published network", place, importers, CheckpointError)
    if os.path.isfile(place):
        raise CheckpointError(f"{place}: is a file; for a published checkpoint, write SYSTEM/NETWORK:{place}")


def _of_network(state: Mapping[str, Any], network: str) -> dict[str, Any]:
    """Returns the state of one network, with names relative to it."""
    return {key.removeprefix(f"{network}."): value for key, value in state.items() if key.startswith(f"{network}.")}


def _as_named(found: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a state with the names of a network; a state of an adversary is reduced to that of its discriminator."""
    unwrapped = {key.removeprefix("network."): value for key, value in found.items() if key.startswith("network.")}
    return max(found, unwrapped, key=lambda state: len(state.keys() & own.keys()))


def _load(network: nn.Module, given: Given, name: str, source: str) -> None:
    """Loads weights into a network.

    Raises:
        CheckpointError: no name matches the network, or a shape differs.
    """
    tensors, plain = split_state(network)
    own = {**tensors, **plain}
    found = _as_named({**given.tensors, **given.plain}, own)
    used = {key: value for key, value in found.items() if key in own}
    if not used.keys() & tensors.keys():
        raise CheckpointError(
            f"{source}: no weight matches a name in `{name}`; use weights of the same kind of network"
        )
    for key in sorted(used.keys() & tensors.keys()):
        if used[key].shape != tensors[key].shape:
            sizes = f"{list(used[key].shape)} in {source}, but {list(tensors[key].shape)} here"
            raise CheckpointError(f"`start.{name}`: `{key}` has shape {sizes}; give both networks the same settings")
    of_training = tuple(state_of_training(network))
    fresh = [key for key in own if key not in used and not (of_training and key.startswith(of_training))]
    _warn(f"{source} does not have {{}} of `{name}`, which keep their initial values: {{}}", fresh)
    _warn(f"{source} has {{}} that `{name}` does not have, which are not used: {{}}", found.keys() - own.keys())
    try:
        load_state(network, {**own, **used}, {}, source)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise CheckpointError(f"{source}: its state does not fit `{name}` ({error})") from error


def _warn(text: str, names: Iterable[str]) -> None:
    """Logs a warning with the number of names and the first of them, if there are any."""
    listed = sorted(names)
    if listed:
        more = f" and {len(listed) - NAMED:,} more" if len(listed) > NAMED else ""
        logger.warning(text.format(count(len(listed), "tensor"), ", ".join(listed[:NAMED]) + more))


def check_whole(game: Game) -> None:
    """Checks that a game has weights for all its networks, before it is trained.

    Raises:
        RecipeError: the model from which it was loaded lacks a network.
    """
    if game.absent:
        names = " and ".join(f"`{name}`" for name in game.absent)
        raise RecipeError(
            f"the model has no weights for {names}; create a new game, and start its other networks from the model "
            "(`start` in Python, `--start NETWORK=MODEL` on the command line)"
        )
