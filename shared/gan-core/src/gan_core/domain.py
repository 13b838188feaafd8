"""Interface between domain packages and gan-core: names and dotted paths, without torch.

A domain package declares an entry point in the group `gan.domains` that names its `DOMAIN` object. Importing a
domain, listing its systems and data sets, and showing its help load no torch and no heavy dependency: everything
else is a dotted path here and is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from gan_core.errors import InputError, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from gan_core.data import Source
    from gan_core.game import Game
    from gan_core.preset import Preset
    from gan_core.run import Run

ENTRY_POINT_GROUP = "gan.domains"
OFFERS = ("create", "train", "resume", "load", "evaluate", "open_data", "load_reference")
"""Functions that every domain package offers in Python: methods of its `Domain`."""


@dataclass(frozen=True)
class Card:
    """One system in a package's table of contents.

    `module` is the dotted path of its family, whose `PRESETS[name]` holds the presets; `data` is the embedded data set
    that it is trained on where the user names none.
    """

    name: str
    title: str
    year: int
    task: str
    paper: str
    module: str
    data: str


@dataclass(frozen=True)
class DataCard:
    """One named dataset; `load` (`module:function`) returns its `Source`.

    It takes no argument, or the name of one of the `parts`, if there are any; the first is the default.
    """

    name: str
    title: str
    items: str
    origin: str
    """`embedded` (works with no network) or `download`."""
    load: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricCard:
    """A metric of generated samples, or of the results of a game that transforms items.

    Attributes:
        name: name in `--metrics`.
        title: description in one line.
        measure: dotted path of a class or function that takes a `gan_core.measures.Subject` and returns a
            `gan_core.measures.Measure`, which gets the samples or pairs part by part. If `extracts` is set, it is a
            function `(real, fake) -> {figure: value}` of extracted features (`gan_core.features.Seen`).
        needs: facts that the data must have.
        asks: conditions that the game must have, such as `label`.
        methods: names of methods that the game must have, such as `log_likelihood`.
        least: minimum number of samples, generated and real.
        extracts: `features` or `logits`, if it compares these.
        pairs: whether it compares results with their targets (`Game.compared`).
    """

    name: str
    title: str
    measure: str
    needs: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    least: int = 2
    extracts: Literal["features", "logits"] | None = None
    pairs: bool = False


@dataclass(frozen=True)
class ExtractorCard:
    """One network that sees samples, for the metrics of features.

    `make` is the dotted path of `(argument, weights, dataset, facts) -> Extractor`, where `NAME:ARGUMENT` is what the
    user wrote; `needs` are the facts that the data must have for it.
    """

    name: str
    title: str
    origin: str
    """`embedded` (works with no network; the first that the data suit is the default) or `download`."""
    make: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Demo:
    """Training of `demo`: a system, a dataset, settings, and the metric that shows whether it learned."""

    system: str
    data: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None


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

    def train(self, game: Game | str, *, data: Source | Mapping[str, Tensor] | str | Path, out: str | Path,
              **settings: Any) -> Run:  # fmt: skip
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
        return import_module("gan_core.reference").load_reference(self, name, state_dict, **arguments)


def resolve(dotted: str) -> Any:
    """Imports the object at a dotted path `module:name` of a card."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)


def find_domains() -> dict[str, Domain]:
    """The installed domains by name."""
    return {point.name: point.load() for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name)}


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
