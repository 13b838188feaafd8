"""Interface between a domain package and gan-core.

A package registers its `Domain` as an entry point in the group `gan.domains`. A domain contains only names and dotted
paths: importing it, listing its systems and datasets, and showing its help do not import torch or other heavy
dependencies. The package's modules `data`, `media`, `metrics`, `reference` and `tasks` are imported on first use; the
protocols below define their contents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

from gan_core.cards import DOMAINS, Card, DataCard, Demo, Metrics
from gan_core.errors import InputError, reason_of, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from gan_core.data import Source
    from gan_core.media.items import Samples
    from gan_core.models.reference import Importers
    from gan_core.play.game import Game
    from gan_core.play.preset import Preset
    from gan_core.recipe import Recipe
    from gan_core.training.output import WriteSamples

logger = logging.getLogger("gan_core")


class Datasets(Protocol):
    """Module `data` of a domain package."""

    @property
    def DATASETS(self) -> tuple[DataCard, ...]: ...

    def open_folder(self, path: str | Path, *, strict: bool = False, part: str | None = None) -> Source:
        """Opens a folder or archive of users' files, or a Hugging Face dataset; see `Toolkit.open_data`."""


class Media(Protocol):
    """Module `media` of a domain package."""

    @property
    def write_samples(self) -> WriteSamples: ...

    def write_items(
        self,
        samples: Samples,
        folder: Path,
        *,
        count: int,
        labels: Mapping[str, Sequence[str]] | None = None,
        game: Game,
    ) -> list[Path]:
        """Writes one file per sample, and `labels.csv` if there are labels, and returns the paths."""


class References(Protocol):
    """Module `reference` of a domain package."""

    @property
    def IMPORTERS(self) -> Importers: ...


class Tasks(Protocol):
    """Module `tasks` of a domain package: its own commands, by name."""

    @property
    def COMMANDS(self) -> Mapping[str, Callable[..., Any]]: ...


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Systems, datasets, media, metrics and tasks of a package.

    Attributes:
        name: name of the domain (`image`); its package is `gan-NAME`.
        title: title in the help.
        package: import name of the package.
        cards: cards of the systems. A domain without systems has no `data`, `media`, `metrics`, `reference` or `tasks`.
        demo: settings of the command `demo`, if there is one.
    """

    name: str
    title: str
    package: str
    cards: tuple[Card, ...] = ()
    demo: Demo | None = None

    @property
    def data(self) -> Datasets:
        """The package's module `data`."""
        return cast(Datasets, self._module("data"))

    @property
    def media(self) -> Media:
        """The package's module `media`."""
        return cast(Media, self._module("media"))

    @property
    def metrics(self) -> Metrics:
        """The package's module `metrics`."""
        return cast(Metrics, self._module("metrics"))

    @property
    def reference(self) -> References:
        """The package's module `reference`."""
        return cast(References, self._module("reference"))

    @property
    def tasks(self) -> Tasks:
        """The package's module `tasks`."""
        return cast(Tasks, self._module("tasks"))

    def _module(self, name: str) -> object:
        if not self.cards:
            raise InputError(f"gan-{self.name} has no systems yet")
        return import_module(f"{self.package}.{name}")

    @cached_property
    def systems(self) -> dict[str, Card]:
        """Cards by system name."""
        return {card.name: card for card in self.cards}

    def card(self, system: str) -> Card:
        """Returns the card of a system.

        Raises:
            RecipeError: there is no such system; the message suggests the nearest name.
        """
        if system not in self.systems:
            raise unknown("system", system, self.systems)
        return self.systems[system]

    def presets(self, system: str) -> dict[str, Preset]:
        """Returns all presets of a system by name, including `paper` and `small`."""
        presets: dict[str, dict[str, Preset]] = import_module(self.card(system).module).PRESETS
        return presets[system]

    def preset(self, system: str, name: str = "small") -> Preset:
        """Returns one preset of a system.

        Raises:
            RecipeError: there is no such system or preset.
        """
        presets = self.presets(system)
        if name not in presets:
            raise unknown(f"preset of {system}", name, presets)
        return presets[name]

    def recipe(self, system: str, preset: str = "small") -> Recipe:
        """Returns the recipe of a preset, with the names of the domain, the system and the preset.

        Raises:
            RecipeError: there is no such system or preset.
        """
        return self.preset(system, preset).recipe(domain=self.name, system=system, preset=preset)


def find_domains(*, strict: bool = False) -> dict[str, Domain]:
    """Returns the installed domains by name. One that cannot be imported is left out, with a warning.

    Raises:
        InputError: `strict` is set, and a domain cannot be imported.
    """
    found: dict[str, Domain] = {}
    for point in sorted(entry_points(group=DOMAINS), key=lambda point: point.name):
        try:
            found[point.name] = _loaded(point)
        except InputError as error:
            if strict:
                raise
            logger.warning("%s", error)
    return found


def find_domain(name: str) -> Domain:
    """Returns the installed domain of that name.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    points = entry_points(group=DOMAINS, name=name)
    if not points:
        raise InputError(f"the domain `{name}` is not installed: pip install gan-{name}")
    return _loaded(next(iter(points)))


def _loaded(point: EntryPoint) -> Domain:
    try:
        return cast(Domain, point.load())
    except Exception as error:  # any, because the package's own code runs
        raise InputError(
            f"the installed package gan-{point.name} cannot be used ({reason_of(error)}); install it again, or "
            f"remove it: pip uninstall gan-{point.name}"
        ) from error
