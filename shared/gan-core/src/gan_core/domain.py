"""Interface between domain packages and gan-core: names and dotted paths, without torch.

A domain package declares an entry point in the group `gan.domains` that names its `DOMAIN` object. Importing a
domain, listing its systems and data sets, and showing its help load no torch and no heavy dependency: everything
else is a dotted path here and is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from gan_core.cards import DOMAINS, Card, Demo
from gan_core.errors import InputError, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from gan_core.data import Source
    from gan_core.play.game import Game
    from gan_core.play.preset import Preset
    from gan_core.runs.run import Run

OFFERS = ("create", "train", "resume", "load", "evaluate", "open_data", "load_reference")
"""Functions that every domain package offers in Python: methods of its `Domain`."""


@dataclass(frozen=True)
class Domain:
    """Systems, datasets, media, metrics and tasks of a package.

    `package` is the import name. A domain without `cards` has none of the modules that systems need: `data`
    (`DATASETS`, `open_folder`), `media` (`write_samples` and `write_items`, which get the `game` that generated the
    samples; `write_items` takes them in parts, with their `count` and `labels`), `metrics` (`METRICS`, `EXTRACTORS`),
    `reference` (`IMPORTERS`), `tasks` (`COMMANDS`).
    """

    name: str
    title: str
    package: str
    cards: tuple[Card, ...] = ()
    demo: Demo | None = None

    def module(self, name: str) -> Any:
        """The domain's module of that name (`data`, `media`, `metrics`, `reference`, `tasks`)."""
        if not self.cards:
            raise InputError(f"gan-{self.name} has no systems yet")
        return import_module(f"{self.package}.{name}")

    @cached_property
    def systems(self) -> dict[str, Card]:
        """Cards by system name."""
        return {card.name: card for card in self.cards}

    def card(self, system: str) -> Card:
        """The card of a system.

        Raises:
            RecipeError: there is no such system; the message names the nearest.
        """
        if system not in self.systems:
            raise unknown("system", system, self.systems)
        return self.systems[system]

    def presets(self, system: str) -> dict[str, Preset]:
        """All presets of a system; `paper` and `small` are always among them."""
        presets: dict[str, dict[str, Preset]] = import_module(self.card(system).module).PRESETS
        return presets[system]

    def preset(self, system: str, name: str = "small") -> Preset:
        """One preset of a system.

        Raises:
            RecipeError: there is no such system or preset.
        """
        presets = self.presets(system)
        if name not in presets:
            raise unknown(f"preset of {system}", name, presets)
        return presets[name]

    # What a package offers in Python (`gan_image.create`, …): the same functions for every domain.

    def create(self, system: str, *, preset: str = "small", **network: Any) -> Game:
        """A game with a preset's networks; keyword arguments are its `network` settings.

        Raises:
            RecipeError: the system, the preset or a setting is unknown or out of range.
        """
        return import_module("gan_core.api").create(self, system, preset=preset, **network)

    def train(
        self, game: Game | str, *, data: Source | Mapping[str, Tensor] | str | Path, out: str | Path, **settings: Any
    ) -> Run:
        """Trains a game (or a system, by name) into the run folder `out`; see `gan_core.api.train`."""
        return import_module("gan_core.api").train(game, data=data, out=out, domain=self, **settings)

    def resume(self, path: str | Path, **options: Any) -> Run:
        """Continues a run of this domain from its latest valid checkpoint; see `gan_core.api.resume`."""
        return import_module("gan_core.api").resume(path, domain=self, **options)

    def evaluate(self, model: Game | str | Path, **options: Any) -> dict[str, Any]:
        """Evaluates a model's samples or results against data; see `gan_core.api.evaluate`."""
        return import_module("gan_core.api").evaluate(model, domain=self, **options)

    def open_data(
        self, where: str | Path | Mapping[str, str | Path], *, strict: bool = False, paired: bool = True
    ) -> Source:
        """Opens a named dataset, or a folder or archive of files; see `gan_core.api.open_data`.

        Raises:
            DataError: there is no such dataset or path, or nothing usable in it.
        """
        return import_module("gan_core.api").open_data(self, where, strict=strict, paired=paired)

    def load(self, path: str | Path) -> Game:
        """Loads the game of a run folder, a model folder or a hub repository id.

        Raises:
            CheckpointError: there is no model, it is damaged, or it belongs to another domain.
        """
        return import_module("gan_core.api").load(path, domain=self)

    def load_reference(self, name: str, state_dict: Mapping[str, Tensor], **arguments: Any) -> nn.Module:
        """A published network (`system/network`) with a published checkpoint's weights.

        Raises:
            CheckpointError: there is no importer of that name, or the checkpoint's keys or shapes are not its.
        """
        return import_module("gan_core.models.reference").load_reference(
            self.module("reference").IMPORTERS, name, state_dict, **arguments
        )


def find_domains() -> dict[str, Domain]:
    """The installed domains by name."""
    return {point.name: point.load() for point in sorted(entry_points(group=DOMAINS), key=lambda p: p.name)}


def find_domain(name: str) -> Domain:
    """The installed domain of that name.

    Raises:
        InputError: it is not installed.
    """
    domains = find_domains()
    if name not in domains:
        raise InputError(f"the domain `{name}` is not installed: pip install gan-{name}")
    return domains[name]


def public_names(domain: Domain, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's module-level `__getattr__`: `create`, `train`, … of its domain, and `names`, imported on first use.

    Args:
        domain: the package's domain.
        names: public name to the module that defines it.
    """

    def get(name: str) -> Any:
        if name in OFFERS:
            return getattr(domain, name)
        if name not in names:
            raise AttributeError(f"module {domain.package!r} has no attribute {name!r}")
        return getattr(import_module(names[name]), name)

    return get
