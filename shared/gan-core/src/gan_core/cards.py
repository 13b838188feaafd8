"""Cards: plain data with which a domain package lists its systems, datasets, metrics, extractors and demo.

Loading this module or a package's cards does not import torch. Functions and classes are named by dotted paths, which
`resolve` imports when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol

DOMAINS = "gan.domains"
"""Entry point group in which packages register their domain."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A system in a package's table of contents.

    Attributes:
        name: name in commands and recipes.
        title: short title, at most 29 characters.
        year: year of publication.
        task: `generation`, `translation`, `vocoding` …
        paper: arXiv number or reference of the paper.
        module: dotted path of the module whose `PRESETS[name]` holds the presets.
        data: embedded dataset that is used by default.
    """

    name: str
    title: str
    year: int
    task: str
    paper: str
    module: str
    data: str


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """A named dataset.

    Attributes:
        name: name in `--data`.
        title: description in one line.
        items: number and form of the items.
        origin: `embedded` (available offline) or `download`.
        load: dotted path (`module:function`) of a function that returns the `Source`. It takes no argument, or the
            name of a part if there are `parts`.
        parts: names of the parts; the first is the default.
    """

    name: str
    title: str
    items: str
    origin: Literal["embedded", "download"]
    load: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """Unit and direction of a figure.

    Attributes:
        unit: unit, such as `dB`; empty for numbers without a unit.
        better: direction of improvement; None if there is none, as for baselines.
    """

    unit: str = ""
    better: Literal["lower", "higher"] | None = None

    def __str__(self) -> str:
        """Returns `dB, lower is better`."""
        return ", ".join(filter(None, (self.unit, f"{self.better} is better" if self.better else "")))


@dataclass(frozen=True, kw_only=True)
class MetricCard:
    """A metric of generated samples, or of the results of a game that transforms items.

    Attributes:
        name: name in `--metrics`.
        title: description in one line.
        measure: dotted path of a class or function that takes a `gan_core.measure.measures.Subject` and returns a
            `gan_core.measure.measures.Measure`, which receives the samples or pairs in parts. If `extracts` is set,
            it is a function `(real, fake) -> {figure: value}` of extracted features
            (`gan_core.measure.features.Extracted`).
        needs: facts that the data must have.
        asks: conditions that the game must have, such as `label`.
        methods: names of methods that the game must have, such as `log_likelihood`.
        least: minimum number of samples, generated and real.
        extracts: `features` or `logits` if it compares the outputs of an extractor.
        pairs: whether it compares results with their targets (`Game.compared`).
        scales: units and directions by the beginnings of the names of figures; see `scale`.
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
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def scale(self, figure: str) -> Scale:
        """Returns the scale of a figure: that with the longest matching beginning.

        Standard deviations, and figures of real items or of inputs (`_of_real`), have no direction.
        """
        start = max((start for start in self.scales if figure.startswith(start)), key=len, default=None)
        found = Scale() if start is None else self.scales[start]
        plain = figure.endswith("_std") or "_of_" in figure or "_on_" in figure
        return Scale(found.unit) if plain else found


@dataclass(frozen=True, kw_only=True)
class ExtractorCard:
    """A feature extractor: the network on whose outputs FID and other metrics are computed.

    Attributes:
        name: name in `--extractor`.
        title: description in one line.
        origin: `embedded` (available offline) or `download`. The first embedded extractor that fits the data is the
            default.
        make: dotted path of `(argument, weights, dataset, facts, key) -> Extractor`; `argument` is the text after the
            colon in `--extractor NAME:ARGUMENT`, and `key` is the key of the items in the data.
        needs: facts that the data must have.
    """

    name: str
    title: str
    origin: Literal["embedded", "download"]
    make: str
    needs: tuple[str, ...] = ()


class Metrics(Protocol):
    """Module `metrics` of a domain package."""

    @property
    def METRICS(self) -> tuple[MetricCard, ...]: ...

    @property
    def EXTRACTORS(self) -> tuple[ExtractorCard, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Settings of the command `demo`.

    Attributes:
        system: name of the system.
        data: name of an embedded dataset.
        settings: changes to the recipe of the preset `small`, by dotted key.
        metric: metric of the trained model that is printed, if any.
    """

    system: str
    data: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None


def resolve(dotted: str) -> Any:
    """Imports the object at a dotted path `module:name`."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)
