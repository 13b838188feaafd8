"""Training regimes: changes to training that apply to any game, such as differential privacy.

A regime defines each player's step, the order of the data, the batch of each turn, and when the run ends. `Regime`
itself implements plain training, and subclasses override methods. A recipe names a regime and its settings:

    regime: {name: "gan_medical.privacy:Private", epsilon: 8}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from gan_core.cards import DOMAINS, resolve
from gan_core.data import Batch, BatchStream
from gan_core.errors import RecipeError, unknown
from gan_core.play.game import Game
from gan_core.play.player import Player
from gan_core.recipe import Recipe
from gan_core.signature import checked, keywords

ENTRY_POINT_GROUP = "gan.regimes"
"""Entry point group in which packages register their regimes."""
PATH = re.compile(r"(\w+)(\.\w+)*:\w+")


class Regime(nn.Module):
    """Base class of regimes, which implements plain training.

    State is kept in buffers and in `get_extra_state`, as in a game. It is saved in checkpoints, but not in model
    folders, and it is loaded before the stream of batches is created.
    """

    def prepare(self, game: Game, recipe: Recipe) -> None:
        """Called before anything is written; override it to check the game and the complete recipe.

        Raises:
            RecipeError: the regime does not support the game or a setting.
        """

    def player(self, player: Player) -> Player:
        """Returns a player with the regime's changes, such as another `step`. Called when a phase starts."""
        return player

    def stream(self, dataset: Dataset[Batch], batch_size: int, **options: Any) -> BatchStream:
        """Returns the stream of a phase's batches.

        Args:
            dataset: training items of the phase.
            batch_size: global batch size, over all processes.
            options: further arguments of `BatchStream`, except `order`.
        """
        return BatchStream(dataset, batch_size, **options)

    def batches(self, player: Player, read: Callable[[], Sequence[Batch]]) -> Sequence[Batch]:
        """Returns the batch of a player's turn, in the parts over which gradients are accumulated.

        Args:
            player: the player.
            read: reads the batch of plain training. If it is not called, no data are read.
        """
        return read()

    def over(self) -> str | None:
        """Returns the reason for ending the run now, as a sentence, or None to continue. Called after every step."""
        return None

    def figures(self) -> dict[str, float]:
        """Returns figures for a line of the log, by name (`privacy/epsilon`)."""
        return {}


def regime_of(recipe: Recipe, given: Regime | None = None) -> tuple[Regime, Recipe]:
    """Returns the training regime, and the recipe with the name and settings of the regime.

    Args:
        recipe: the recipe.
        given: a regime that was built in Python. The recipe records its class, and resuming requires the same class.

    Raises:
        RecipeError: there is no such regime, a setting is unknown or out of range, or `given` is of another class.
    """
    if given is not None:
        name = f"{type(given).__module__}.{type(given).__name__}"
        before = name if recipe.regime is None else str(recipe.regime.get("name"))
        if before.rpartition(".")[2] != type(given).__name__:  # the module may differ, for example `__main__`
            raise RecipeError(
                f"the recipe's regime is `{before}`, but `regime` is a {name}; pass one of the same class"
            )
        return given, recipe.model_copy(update={"regime": {"name": name}})
    if recipe.regime is None:
        return Regime(), recipe
    named = recipe.regime.get("name")
    if not isinstance(named, str):
        raise RecipeError("`regime.name` is missing; give an entry point of `gan.regimes`, or MODULE:CLASS")
    kind = find_regime(named)
    settings = {key: value for key, value in recipe.regime.items() if key != "name"}
    takes = {key: parameter for key, parameter in keywords(kind).items() if key != "self"}
    settings = checked([kind], takes, settings, "regime")
    return kind(**settings), recipe.model_copy(update={"regime": {"name": named, **settings}})


def find_regime(name: str) -> type[Regime]:
    """Returns the class of a regime: an entry point of `gan.regimes`, or `MODULE:CLASS` in an installed domain package.

    Other modules are not imported, because a recipe may come from an untrusted source.

    Raises:
        RecipeError: there is no regime of that name.
    """
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name in points:
        load = points[name].load
    elif path := PATH.fullmatch(name):
        packages = {point.module.partition(".")[0] for point in entry_points(group=DOMAINS)}
        if path[1] not in packages:
            trusted = ", ".join(sorted(packages)) or "none"
            raise RecipeError(f"`regime.name` is {name}, which is not in a domain package (installed: {trusted})")
        load = partial(resolve, name)
    elif "." in name:
        raise RecipeError(f"the regime of this recipe, {name}, was built in Python; pass it again as `regime`")
    else:
        raise unknown("regime", name, points)
    try:
        found = load()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"`regime.name` is {name}, which cannot be imported ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Regime)):
        raise RecipeError(f"`regime.name` is {name}, which is not a `gan_core.Regime`")
    return found
