"""What a domain package lists, as plain data: systems, datasets, metrics, extractors and the demo. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol

DOMAINS = "gan.domains"
"""Entry point group in which packages name their domain."""


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
        measure: dotted path of a class or function that takes a `gan_core.measure.measures.Subject` and returns a
            `gan_core.measure.measures.Measure`, which gets the samples or pairs part by part. If `extracts` is set,
            it is a function `(real, fake) -> {figure: value}` of extracted features (`gan_core.measure.features.Seen`).
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


class Metrics(Protocol):
    """The module `metrics` of a domain."""

    @property
    def METRICS(self) -> tuple[MetricCard, ...]: ...

    @property
    def EXTRACTORS(self) -> tuple[ExtractorCard, ...]: ...


@dataclass(frozen=True)
class Demo:
    """Training of `demo`: a system, a dataset, settings, and the metric that shows whether it learned."""

    system: str
    data: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None


def resolve(dotted: str) -> Any:
    """Imports the object at a dotted path `module:name` of a card."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)
