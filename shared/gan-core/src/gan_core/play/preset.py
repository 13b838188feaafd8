"""Presets: the networks, the game and the settings of a published system at one size."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Any, Self, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from gan_core.errors import CheckpointError, RecipeError, unknown
from gan_core.play.adversary import Adversary
from gan_core.play.game import Game
from gan_core.play.objectives import OBJECTIVES, Objective, non_saturating
from gan_core.play.regularizers import REGULARIZERS, Regularizer
from gan_core.recipe import SGD, Adam, AdversarySettings, Recipe, RMSprop, parse, parse_settings
from gan_core.signature import checked, keywords

EMPTY: Mapping[str, Any] = MappingProxyType({})
PARAMETERS = 20_000
"""Maximum number of weight tensors, whatever their sizes, of the networks of a game."""
FIXED = ("self", "objective", "regularizers")
"""Parameters of a game's constructor that are not settings of its own."""


@dataclass(frozen=True)
class Preset:
    """The game, networks and settings of a system. It is validated on construction; `but` derives another preset.

    Attributes:
        game: class of the game. Its constructor takes the networks by name and its own settings as keyword-only
            parameters. A network whose parameter is annotated `Adversary` is wrapped in one, with the recipe's
            objective and regularizers. A game with the keywords `objective` and `regularizers` creates its own
            adversary, which must be named `discriminator`.
        networks: classes of the networks, by their parameter names in the game's constructor. Their keywords are the
            `network` settings.
        paper: arXiv number or reference of the paper.
        network: network settings that differ from the classes' defaults. A setting that is set neither here nor by the
            user is taken from the data's fact of the same name, if there is one (`channels`, `sample_rate` …).
        settings: settings of the game that differ from its defaults.
        objective: name of the objective of every adversary (default: that of the game or of `Adversary`).
        regularizers: penalties, augmentations and constraints of every adversary; a name stands for default settings.
        adversaries: settings that differ for one adversary: `{"mpd": {"regularizers": [R1(weight=1.0)]}}`.
            `regularizers` may also map names to settings; None removes a regularizer.
        optimizer: optimizer of every player.
        players: settings that differ for one player: `{"discriminator": {"turns": 5}}`.
        data: data settings that differ from the defaults: `{"spec": {"flip": True}}`.
        train: training settings that differ from the defaults.
    """

    game: type[Game]
    networks: Mapping[str, Callable[..., nn.Module]]
    paper: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    objective: str | None = None
    regularizers: Iterable[Regularizer | str] = ()
    adversaries: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Adam | RMSprop | SGD = field(default_factory=Adam)
    players: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check(self.recipe())

    def but(self, **changes: Any) -> Self:
        """Returns a copy of the preset with some attributes changed: mappings are updated, other values are replaced.

        Raises:
            RecipeError: the result is not valid.
        """
        merged: dict[str, Any] = {
            name: {**getattr(self, name), **value} if isinstance(value, Mapping) else value
            for name, value in changes.items()
        }
        return replace(self, **merged)

    def recipe(self, *, domain: str | None = None, system: str | None = None, preset: str | None = None) -> Recipe:
        """Returns the preset as a recipe."""
        return parse(
            {
                "domain": domain,
                "system": system or self.game.__name__,
                "preset": preset,
                "network": dict(self.network),
                "game": dict(self.settings),
                "objective": self.objective,
                "regularizers": _dumped(self.regularizers),
                "adversaries": {name: _plain(over) for name, over in self.adversaries.items()},
                "optimizer": self.optimizer.model_dump(),
                "players": dict(self.players),
                "data": dict(self.data),
                "train": dict(self.train),
            }
        )

    def check(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with the defaults of its network, game, regularizer and adversary settings filled in.

        Raises:
            RecipeError: a setting is unknown or out of range, or a name is unknown.
        """
        recipe = recipe.model_copy(
            update={
                "network": self._network_settings(recipe.network),
                "game": self._game_settings(recipe.game),
                "objective": self._objective(recipe),
                "regularizers": self._regularizers(recipe),
            }
        )
        return recipe.model_copy(update={"adversaries": self._adversary_settings(recipe)})

    def complete(self, recipe: Recipe, facts: Mapping[str, Any] = EMPTY) -> Recipe:
        """Returns the checked recipe with defaults filled in, and open settings taken from the data's `facts`.

        Open network settings are taken from the facts of the same name, except `num_classes`, because the user decides
        whether a game is class-conditional. See `completed` for the data settings.

        Raises:
            RecipeError: see `check`; or the networks cannot be built with these settings.
        """
        takers = self._takers(self._own_settings(recipe.network))
        known = {name: facts[name] for name in facts.keys() - {"num_classes"} if takers.get(name)}
        recipe = self.check(recipe.model_copy(update={"network": known | recipe.network}))
        with on_meta():
            return completed(self.build(recipe), recipe, facts)

    def build(self, recipe: Recipe | None = None, *, absent: Collection[str] = ()) -> Game:
        """Builds the game of a recipe (default: the preset's own), with weights drawn from torch's global generator.

        Args:
            recipe: the recipe.
            absent: names of networks that are built on torch's `meta` device, without weights; using them raises a
                `CheckpointError`.

        Raises:
            RecipeError: a setting is unknown or out of range, or a regularizer does not apply.
        """
        recipe = self.check(recipe or self.recipe())
        networks = {name: self._network(name, recipe, absent=name in absent) for name in self.networks}
        wrapped = self._wrapped()
        adversaries = {name: self._adversary(name, networks[name], recipe) for name in wrapped}
        rules = {} if wrapped else self._rules("discriminator", recipe)
        game = self.game(**(networks | adversaries), **recipe.game, **rules)
        game.recipe = recipe
        check_players(game, recipe)
        return game

    def create(self, **network: Any) -> Game:
        """Builds the preset's game with some network settings changed."""
        return self.build(self.recipe().but({"network": network}))

    def network_keys(self) -> set[str]:
        """Returns the keys that `network` settings can have: keywords of the networks, and the networks' names."""
        return {*self.networks, *chain.from_iterable(self._signatures().values())}

    def _signatures(self) -> dict[str, dict[str, inspect.Parameter]]:
        return {name: keywords(make) for name, make in self.networks.items()}

    def _network(self, name: str, recipe: Recipe, *, absent: bool) -> nn.Module:
        try:
            if absent:
                return without_weights(name, self.networks[name], **self._for(name, recipe.network))
            return self.networks[name](**self._for(name, recipe.network))
        except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RecipeError(
                f"{recipe.system}: `{name}` cannot be built with these `network` settings: {reason}"
            ) from error

    def _for(self, name: str, network: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the settings of one network: the shared ones that it accepts, updated with its own."""
        takes = self._signatures()[name]
        shared = {key: value for key, value in network.items() if key in takes and key not in self.networks}
        return shared | network.get(name, {})

    def _network_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the settings of the networks with defaults filled in: shared ones, then those of single networks.

        A shared setting is validated for each network that takes it. If networks convert it to different values, each
        gets its own. A shared value of the preset is omitted if all networks have their own value.

        Raises:
            RecipeError: a setting is unknown, is out of range, has no effect, or is not set.
        """
        own = self._own_settings(given)
        plain = {key: value for key, value in given.items() if key not in self.networks}
        takers = self._takers(own)
        for key, value in plain.items():
            if key not in takers:
                raise unknown("setting", f"network.{key}", [f"network.{known}" for known in takers])
            if not takers[key] and (key not in self.network or value != self.network[key]):
                places = _places(key, [name for name in own if key in own[name]])
                raise RecipeError(f"`network.{key}` would have no effect; set {places}")
        values = self._values(takers, plain)
        shared: dict[str, Any] = {}
        for key, names in takers.items():
            first = values[names[0]][key] if names else None
            if all(values[name][key] == first for name in names):
                shared |= {key: first} if names else {}
            elif key in plain:
                own |= {name: own.get(name, {}) | {key: values[name][key]} for name in names}
            else:
                differ = f"the defaults of {_places(key, names)} differ"
                raise RecipeError(f"`network.{key}` is not set, and {differ}; set it")
        return shared | own

    def _values(self, takers: Mapping[str, list[str]], plain: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the validated values of the shared settings that each network takes, by network name."""
        values = {}
        for name, make in self.networks.items():
            takes = {key: parameter for key, parameter in self._signatures()[name].items() if name in takers[key]}
            try:
                values[name] = checked([make], takes, {key: plain[key] for key in takes if key in plain}, "network")
            except RecipeError:
                self._explain(takers, plain)
                raise
        return values

    def _explain(self, takers: Mapping[str, list[str]], plain: Mapping[str, Any]) -> None:
        """Raises an error for the first shared setting that is valid for some networks and invalid for others."""
        for key in plain:
            errors: dict[str, RecipeError] = {}
            for name in takers[key]:
                try:
                    checked([self.networks[name]], {key: self._signatures()[name][key]}, {key: plain[key]}, "network")
                except RecipeError as error:
                    errors[name] = error
            if 0 < len(errors) < len(takers[key]):
                name = next(iter(errors))
                raise RecipeError(f"{errors[name]} in `{name}`; set {_places(key, takers[key])}") from errors[name]

    def _own_settings(self, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the validated settings of single networks, by network name."""
        own = {}
        for name, takes in self._signatures().items():
            if name not in given:
                continue
            if not isinstance(given[name], Mapping):
                raise RecipeError(f"`network.{name}` is {given[name]!r}; expected a mapping of settings")
            own[name] = checked([self.networks[name]], takes, given[name], f"network.{name}", fill=False)
        return own

    def _takers(self, own: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
        """Returns, by setting, the networks that accept the setting and do not have their own value for it."""
        takers: dict[str, list[str]] = {}
        for name, takes in self._signatures().items():
            for key in takes:
                takers.setdefault(key, []).extend([name] if key not in own.get(name, {}) else [])
        return takers

    def _game_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        takes = {k: p for k, p in keywords(self.game).items() if k not in FIXED and k not in self.networks}
        return checked([self.game], takes, given, "game")

    def _wrapped(self) -> tuple[str, ...]:
        """Returns the names of the networks whose parameters in the game's constructor are annotated `Adversary`."""
        hints = get_type_hints(self.game.__init__)
        return tuple(name for name in self.networks if hints.get(name) is Adversary)

    def _adversaries(self) -> tuple[str, ...]:
        """Returns the names of the adversaries that a recipe can configure."""
        own = {"objective", "regularizers"} & keywords(self.game).keys()
        return self._wrapped() or (("discriminator",) if own else ())

    def _adversary(self, name: str, network: nn.Module, recipe: Recipe) -> Adversary:
        try:
            return Adversary(network, images=self.game.images, **self._rules(name, recipe))
        except RecipeError as error:
            raise RecipeError(f"{name}: {error}") from error

    def _rules(self, name: str, recipe: Recipe) -> dict[str, Any]:
        """Returns the objective and the regularizers of an adversary, from a complete recipe."""
        over = recipe.adversaries.get(name, AdversarySettings())
        objective = over.objective or recipe.objective
        rules: dict[str, Any] = {} if objective is None else {"objective": OBJECTIVES[objective]}
        chosen: dict[str, dict[str, Any] | None] = {**recipe.regularizers, **over.regularizers}
        regularizers = [REGULARIZERS[key](**fields) for key, fields in chosen.items() if fields is not None]
        return rules | ({"regularizers": regularizers} if regularizers else {})

    def _objective(self, recipe: Recipe) -> str | None:
        parameter = keywords(self.game).get("objective")
        if recipe.objective is None:
            own = parameter.default if parameter else non_saturating if self._wrapped() else None
            return own.name if isinstance(own, Objective) else None
        return self._chosen_objective(recipe.objective, recipe)

    def _chosen_objective(self, objective: str, recipe: Recipe) -> str:
        if "objective" not in keywords(self.game) and not self._wrapped():
            raise RecipeError(f"{recipe.system} has its own losses; leave out `objective`")
        if objective not in OBJECTIVES:
            raise unknown("objective", objective, OBJECTIVES)
        return objective

    def _regularizers(self, recipe: Recipe) -> dict[str, dict[str, Any]]:
        if recipe.regularizers:
            self._check_place(recipe)
        return {name: _regularizer(name, fields) for name, fields in recipe.regularizers.items()}

    def _check_place(self, recipe: Recipe) -> None:
        if "regularizers" not in keywords(self.game) and not self._wrapped():
            raise RecipeError(f"{recipe.system} does not support `regularizers`; leave them out")

    def _adversary_settings(self, recipe: Recipe) -> dict[str, AdversarySettings]:
        """Returns the settings of single adversaries, with the defaults of their regularizers filled in."""
        return {name: self._changes(name, over, recipe) for name, over in recipe.adversaries.items()}

    def _changes(self, name: str, over: AdversarySettings, recipe: Recipe) -> AdversarySettings:
        if name not in self._adversaries():
            raise unknown(f"adversary of {recipe.system}", name, self._adversaries())
        if over.objective is not None:
            self._chosen_objective(over.objective, recipe)
        if over.regularizers:
            self._check_place(recipe)
        regularizers = {
            key: None if fields is None else _regularizer(key, recipe.regularizers.get(key, {}) | fields, name)
            for key, fields in over.regularizers.items()
        }
        return AdversarySettings(objective=over.objective, regularizers=regularizers)


def _places(key: str, networks: Iterable[str]) -> str:
    """Returns the keys of a setting in several networks: `network.generator.key` and `network.discriminator.key`."""
    return " and ".join(f"`network.{name}.{key}`" for name in networks)


def without_weights(name: str, make: Callable[..., nn.Module], **settings: Any) -> nn.Module:
    """Marks a network on torch's `meta` device as absent from a model: using it raises a `CheckpointError`."""

    def refuse(*_: object) -> None:
        raise CheckpointError(f"this model has no weights for the network `{name}`; load a model that has them")

    with on_meta():
        network = make(**settings)
    network.register_forward_pre_hook(refuse)
    return network


class _WithoutValues(TorchFunctionMode):
    """Computes only the shapes of `normal_` and of norms of weights on the `meta` device.

    Torch's own functions for that device would import its compiler for them, which takes seconds and 150 MB.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            tensor = args[0] if args else given["tensor"]
            if tensor.is_meta:
                return tensor
        if func is normalize and given.get("out") is None and args[0].is_meta:
            return args[0]
        if func is torch.norm_except_dim and args[0].is_meta:
            weight, _, dim = args
            return weight.new_empty([size if axis == dim else 1 for axis, size in enumerate(weight.shape)])
        return func(*args, **given)


@contextmanager
def on_meta() -> Iterator[None]:
    """Context manager under which networks are built on torch's `meta` device, with shapes but without weights.

    It silences torch's warning that weights loaded in a constructor are not copied to that device.

    Raises:
        RecipeError: the networks have more than `PARAMETERS` parameters, whose modules take memory on any device.
    """
    count = 0

    def limit(*_: object) -> None:
        nonlocal count
        count += 1
        if count > PARAMETERS:
            raise RecipeError(f"the networks have more than {PARAMETERS:,} weight tensors; choose a smaller depth")

    handle = register_module_parameter_registration_hook(limit)
    try:
        with torch.device("meta"), _WithoutValues(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*copying from a non-meta parameter.*")
            yield
    finally:
        handle.remove()


def completed(game: Game, recipe: Recipe, facts: Mapping[str, Any] = EMPTY) -> Recipe:
    """Returns a recipe with the data settings of a game filled in; open settings are taken from the data's facts.

    Fields that remain open are written as None, so that a preset does not fill them in when the recipe is read again.
    Fields that the networks determine are omitted, because they change with the networks. Class names are stored if the
    game has classes.

    Raises:
        RecipeError: a field of `data.spec` is unknown or out of range, or contradicts the networks.
    """
    spec, fixed = game.spec_with(recipe.data.spec), game.data_spec().fixed()
    spec = spec.but({name: facts[name] for name in spec.open_fields() if name in facts})
    fields = {name: value for name, value in spec.model_dump().items() if name not in fixed}
    classes = None if game.num_classes is None else facts.get("classes", recipe.data.classes)
    update = {"spec": fields, "classes": None if classes is None else tuple(classes)}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=update)})


def check_players(game: Game, recipe: Recipe) -> None:
    """Checks the settings of a recipe's players.

    Raises:
        RecipeError: the game has no such player, or an optimizer setting is unknown or out of range.
    """
    players = {player.name: player for player in game.players()}
    for name in recipe.players:
        if name not in players:
            raise unknown(f"player of {recipe.system}", name, players)
        recipe.player_optimizer(name, players[name].optimizer)


def _regularizer(name: str, fields: Mapping[str, Any], adversary: str | None = None) -> dict[str, Any]:
    if name not in REGULARIZERS:
        raise unknown("regularizer", name, REGULARIZERS)
    where = "regularizers" if adversary is None else f"adversaries.{adversary}.regularizers"
    return parse_settings(REGULARIZERS[name], fields, f"{where}.{name}").model_dump()


def _dumped(regularizers: Iterable[Regularizer | str] | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of regularizers as plain values, by name."""
    if isinstance(regularizers, Mapping):
        return dict(regularizers)
    return dict((r, {}) if isinstance(r, str) else (r.name, r.model_dump()) for r in regularizers)


def _plain(over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of one adversary as plain values."""
    return {key: _dumped(value) if key == "regularizers" else value for key, value in over.items()}
