"""Model cards: the `README.md` of a model folder."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch
from huggingface_hub import ModelCard, ModelCardData

import gan_core
from gan_core.nn.tiling import UNKNOWN_RADIUS, Needs
from gan_core.places import all_without_folders, without_folders
from gan_core.play.game import Game
from gan_core.recipe import Recipe, parse


def model_card(game: Game, networks: Sequence[str] | None = None) -> str:
    """Returns the model card: metadata of the hub, usage, parameter counts, classes, recipe, and versions.

    Args:
        game: the model.
        networks: names of the networks in the folder; None for all.
    """
    recipe = game.recipe
    if recipe is None or game.built_by_hand:
        title = type(game).__name__
        use = f'game = {title}(…).restore("path/or/repository")  # built as for training\n{_example(game)}'
    else:
        package = f"gan_{recipe.domain}"
        title = f"{recipe.system} ({recipe.preset})"
        use = f'import {package}\n\ngame = {package}.load("path/or/repository")\n{game.example}'
    counts = parameter_counts(game)
    rows = [f"| {name} | {count:,} |\n" for name, count in counts.items() if networks is None or name in networks]
    sections = [f"# {title}\n\n```python\n{use}\n```\n", f"| network | parameters |\n|---|---|\n{''.join(rows)}"]
    if recipe is not None and recipe.data.classes is not None:
        classes = (f"{index} = {name}" for index, name in enumerate(recipe.data.classes))
        sections.append(f"Classes: {', '.join(classes)}\n")
    sections += _note_on_tiles(game)
    if recipe is not None:
        sections.append(f"## Recipe\n\n```yaml\n{parse(all_without_folders(recipe.model_dump())).to_yaml()}```\n")
    versions = (f"- {name} {number}\n" for name, number in framework_versions(recipe).items())
    sections.append(f"## Framework versions\n\n{''.join(versions)}")
    body, data = "\n".join(sections), ModelCardData(library_name="gan-core", tags=["gan"])
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def shareable(recipe: Recipe) -> Recipe:
    """Returns a recipe without the folders of absolute paths of the data and of initial weights."""
    start = {
        network: one.model_copy(update={"source": without_folders(one.source)}) for network, one in recipe.start.items()
    }
    data = recipe.data.model_copy(update={"source": all_without_folders(recipe.data.source)})
    return recipe.model_copy(update={"data": data, "start": start})


def framework_versions(recipe: Recipe | None) -> dict[str, str]:
    """Returns the versions of gan-core, of the recipe's domain package if it is installed, of PyTorch and of Python."""
    versions = {"gan-core": gan_core.__version__}
    if recipe is not None and recipe.domain is not None:
        with suppress(PackageNotFoundError):
            package = f"gan-{recipe.domain}"
            versions[package] = version(package)
    return versions | {"PyTorch": torch.__version__, "Python": platform.python_version()}


def _example(game: Game) -> str:
    """Returns an example line of Python for a game that was built by hand."""
    if type(game).sample is Game.sample and game.results:
        name, key = next(iter(game.results.items()))
        return f'{name} = game.apply({{"{key}": {key}}})["{name}"]'
    return game.example


def _note_on_tiles(game: Game) -> list[str]:
    """Returns a note about results that differ if an item is transformed in tiles; empty if there are none."""
    differing = [name for name in game.results if Needs.of(game.networks_of(name)).receptive_radius is None]
    if not differing or not game.images:  # sound is transformed in blocks
        return []
    return [
        f"Items larger than a tile are transformed in tiles that are blended. The result ({', '.join(differing)}) then "
        f"differs from that of the whole item, because {UNKNOWN_RADIUS}.\n"
    ]


def parameter_counts(game: Game) -> dict[str, int]:
    """Returns the number of parameters of each network."""
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in game.named_children()}
    return {name: count for name, count in counts.items() if count}
