"""Pages of the systems, from their cards, presets and networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from _markdown import DOCS, code, docstring, domains, fence, page, table, toctree
from _settings import beneath, kind, sentence, setting_table, shown

from gan_core.cards import Card
from gan_core.domain import Domain
from gan_core.models.card import parameter_counts
from gan_core.play.game import Game
from gan_core.play.preset import FIXED, Preset, on_meta
from gan_core.recipe import Recipe
from gan_core.signature import keywords

PICTURES = DOCS / "systems" / "samples"
LONGEST = 60
"""Maximum length of a value in a table."""
HIDDEN = ("domain", "system", "preset", "network", "game")
"""Sections that are left out of the table of a preset's settings; networks and game have their own tables."""


def pages() -> dict[str, str]:
    """Returns the pages by path."""
    made: dict[str, str] = {}
    parts = []
    for domain in domains():
        made |= {f"systems/{card.name}.md": system(domain, card) for card in domain.cards}
        rows = [
            (f"[`{card.name}`]({card.name}.md)", card.title, card.task, str(card.year), card.paper)
            for card in domain.cards
        ]
        parts += [
            f"## {domain.title}",
            table(["system", "", "task", "year", "paper"], rows),
            toctree(*(card.name for card in domain.cards)).replace(":maxdepth: 1", ":hidden:"),
        ]
    introduction = "`gan-image systems` and `gan-audio systems` print these tables."
    return made | {"systems/index.md": page("Systems", introduction, *parts)}


def missing_pictures() -> list[str]:
    """Returns the systems that have no sample picture."""
    return [card.name for domain in domains() for card in domain.cards if not picture(card.name).exists()]


def picture(system: str) -> Path:
    """Returns the path of a system's sample picture."""
    return PICTURES / f"{system}.webp"


def system(domain: Domain, card: Card) -> str:
    """Returns the page of one system."""
    program, presets = f"gan-{domain.name}", domain.presets(card.name)
    facts = {"Task": card.task, "Year": str(card.year), "Paper": card.paper, "Package": code(program)}
    parts = [
        f"{card.title}.",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        f"![Samples](samples/{card.name}.webp)" if picture(card.name).exists() else "",
        "## Train",
        fence("sh", f"{program} train {card.name} --out runs/{card.name}\n{program} report runs/{card.name}"),
        f"Without `--data`, it trains on the embedded dataset `{card.data}`. `--preset paper` selects the published "
        f"scale, and `{program} show {card.name} --preset paper` prints its recipe.",
        *imports(domain, card),
        "## Paper and differences",
        docstring(import_module(card.module)).text,
        *preset_tables(domain, card, presets),
    ]
    return page(card.name, *parts)


def imports(domain: Domain, card: Card) -> list[str]:
    """Returns the section about published checkpoints; an empty list if there are no importers."""
    importers: Mapping[str, Callable[..., Any]] = domain.reference.IMPORTERS
    own = {name: each for name, each in importers.items() if name.partition("/")[0] == card.name}
    if not own:
        return []
    rows = []
    for name, importer in own.items():
        options = list(keywords(importer))[1:]
        text = docstring(getattr(importer, "func", importer)).text.split("\n\n")[0]
        rows.append((code(name), text, ", ".join(code(f"{option}=…") for option in options)))
    command = f"gan-{domain.name} import {next(iter(own))} FILE --out models/{card.name}"
    return ["## Import published weights", fence("sh", command), table(["network", "checkpoint", "`--argument`"], rows)]


def preset_tables(domain: Domain, card: Card, presets: Mapping[str, Preset]) -> list[str]:
    """Returns the tables of the presets: parameter counts, training settings, and settings of networks and game."""
    games: dict[str, Game] = {}
    for names, preset in distinct(presets).items():
        recipe = preset.complete(preset.recipe(domain=domain.name, system=card.name))
        with on_meta():
            games[names] = preset.build(recipe)
    recipes = {names: game.recipe for names, game in games.items() if game.recipe is not None}
    counts = {names: parameter_counts(game) for names, game in games.items()}
    networks = dict.fromkeys(network for each in counts.values() for network in each)
    size_rows = [
        (code(name), *(f"{each[name]:,}" if name in each else "" for each in counts.values())) for name in networks
    ]
    settings = {names: flat(recipe.model_dump(mode="json")) for names, recipe in recipes.items()}
    differing = dict.fromkeys(
        key for game, values in zip(games.values(), settings.values(), strict=True) for key in changed(game, values)
    )
    setting_rows = [
        (code(key), *(shown_or_nothing(values.get(key)) for values in settings.values())) for key in differing
    ]
    note = f"`gan-{domain.name} show {card.name} --preset NAME` prints all settings, also those truncated (…) here."
    return [
        "## Presets",
        "Number of parameters:",
        table(["network", *games], size_rows),
        f"Settings that differ from the [defaults](../reference/settings/index.md). {note}",
        table(["setting", *games], setting_rows),
        "## Settings of the networks",
        taken(network_settings(presets), recipes, "network"),
        *game_settings(presets, recipes),
    ]


def distinct(presets: Mapping[str, Preset]) -> dict[str, Preset]:
    """Returns the presets by name. If a preset has several names, they are joined."""
    names: dict[int, list[str]] = {}
    for name, preset in presets.items():
        names.setdefault(id(preset), []).append(code(name))
    return {", ".join(each): presets[each[0].strip("`")] for each in names.values()}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested values by dotted key; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        found |= flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return found


def changed(game: Game, values: Mapping[str, Any]) -> list[str]:
    """Returns the dotted keys of settings that differ from the defaults of recipes and data specifications."""
    optimizer = {"name": values["optimizer.name"]}
    defaults = flat(Recipe.model_validate({"system": "", "optimizer": optimizer}).model_dump(mode="json"))
    spec = type(game.data_spec())().model_dump(mode="json")
    defaults |= {f"data.spec.{key}": value for key, value in spec.items()}
    return [
        key for key, value in values.items() if key.split(".")[0] not in HIDDEN and value not in (defaults.get(key), {})
    ]


def shown_or_nothing(value: Any) -> str:
    """Returns a value as YAML, truncated if it is long; an empty string for None."""
    text = "" if value is None else shown(value)
    return text if len(text) <= LONGEST else "…"


def network_settings(presets: Mapping[str, Preset]) -> dict[str, list[tuple[str, Callable[..., Any]]]]:
    """Returns the networks that take a setting, with their classes, by setting."""
    takers: dict[str, list[tuple[str, Callable[..., Any]]]] = {}
    for preset in presets.values():
        for network, make in preset.networks.items():
            for key in keywords(make):
                if (network, make) not in takers.setdefault(key, []):
                    takers[key].append((network, make))
    return takers


def taken(takers: Mapping[str, list[tuple[str, Callable[..., Any]]]], recipes: Mapping[str, Recipe], where: str) -> str:
    """Returns the table of settings: name with type, networks and values in the presets, and meaning."""
    rows = []
    for key, makers in takers.items():
        hints = [get_type_hints(_init(make), include_extras=True).get(key, Any) for _, make in makers]
        meanings = {network: docstring(make).entries.get(key, "") for network, make in makers}
        networks = ", ".join(dict.fromkeys(code(network) for network, _ in makers if network))
        given = {names: values(recipe, where, key) for names, recipe in recipes.items()}
        facts = [
            ", ".join(dict.fromkeys(kind(hint) for hint in hints)),
            f"of {networks}" if networks else "",
            *(f"{names}: {value}" for names, value in given.items() if value),
        ]
        rows.append((beneath(code(f"{where}.{key}"), *facts), joined(meanings)))
    return setting_table(rows)


def joined(meanings: Mapping[str, str]) -> str:
    """Returns the description of a setting, or one for each network if the descriptions differ."""
    if len(set(meanings.values())) == 1:
        return sentence(next(iter(meanings.values())))
    return " ".join(f"`{network}`: {sentence(text)}" for network, text in meanings.items() if text)


def values(recipe: Recipe, where: str, key: str) -> str:
    """Returns the values of a setting in a recipe: the shared one, or those of single networks."""
    section = recipe.model_dump(mode="json")[where]
    if key in section:
        return shown_or_nothing(section[key]) or "`null`"
    own = {name: each[key] for name, each in section.items() if isinstance(each, Mapping) and key in each}
    return ", ".join(f"`{name}`: {shown(value)}" for name, value in own.items())


def game_settings(presets: Mapping[str, Preset], recipes: Mapping[str, Recipe]) -> list[str]:
    """Returns the section of a game's own settings; an empty list if it has none."""
    takers: dict[str, list[tuple[str, Callable[..., Any]]]] = {}
    for preset in presets.values():
        for key in keywords(preset.game):
            if key not in FIXED and key not in preset.networks:
                takers[key] = [("", preset.game)]
    return ["## Settings of the game", taken(takers, recipes, "game")] if takers else []


def _init(make: Callable[..., Any]) -> Callable[..., Any]:
    return make.__init__ if inspect.isclass(make) else make
