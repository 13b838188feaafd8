"""Measuring a game's samples against data: which metrics fit, on what protocol, and their figures."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from gan_core.checkpoint import digest
from gan_core.data import Batch, IndexStream, Source, read
from gan_core.domain import Domain, ExtractorCard, MetricCard, resolve
from gan_core.errors import InputError, unknown
from gan_core.features import Extractor, Seen, see
from gan_core.game import GENERATE_AT_ONCE, Game

Figures = dict[str, dict[str, Any]]


class Evaluation:
    """The metrics that measure samples of a kind of game against some data.

    Real samples are as many as generated ones, or all if there are fewer, drawn by a fixed shuffle.

    Args:
        domain: whose metrics and extractors are used.
        source: the data.
        game: whose recipe says at what sizes, and which is of the kind that is measured.
        metrics: by name; None takes all that fit.
        count: samples that are generated.
        seed: of the samples.
        extractor: `NAME` or `NAME:ARGUMENT`; None takes the domain's embedded one, where the data suit it.
        weights: of the extractor, where it reads a file.
        keep: a folder where features are kept, so that an interrupted evaluation goes on; None keeps nothing.

    Raises:
        InputError: a metric or an extractor is unknown, or does not fit.
        DataError: the data cannot be brought to the game's sizes.
        CheckpointError: the extractor's weights cannot be had.
    """

    def __init__(
        self, domain: Domain, source: Source, game: Game, *, metrics: list[str] | None = None, count: int = 1000,
        seed: int = 0, extractor: str | None = None, weights: Path | None = None, keep: Path | None = None,
    ) -> None:  # fmt: skip
        assert game.recipe is not None
        self.source, self.count, self.seed, self.keep, self.asked = source, count, seed, keep, metrics is not None
        module = domain.module("metrics")
        cards: dict[str, MetricCard] = {card.name: card for card in module.METRICS}
        extractors: dict[str, ExtractorCard] = {card.name: card for card in module.EXTRACTORS}
        seer, argument = _chosen_extractor(extractors, extractor, source)
        obstacles = {name: self._obstacle(card, game, seer, extractors) for name, card in cards.items()}
        for name in metrics or ():
            if name not in cards:
                raise unknown("metric", name, cards, InputError)
            if obstacles[name]:
                raise InputError(f"the metric `{name}` {obstacles[name]}")
        names = [name for name in cards if not obstacles[name]] if metrics is None else metrics
        if not names:
            why = "; ".join(f"`{name}` {obstacle}" for name, obstacle in obstacles.items())
            raise InputError(f"no metric fits: {why}")
        self.cards = [cards[name] for name in names]
        self.dataset: Dataset[Batch] = source.fit(**game.recipe.network)
        self.extractor: Extractor | None = None
        if any(card.extracts for card in self.cards):
            assert seer is not None
            self.extractor = resolve(seer.make)(argument, weights, self.dataset, source.facts)
        elif extractor is not None or weights is not None:
            raise InputError("`--extractor` and `--weights` have no effect: no metric of features is asked for")

    @property
    def real_count(self) -> int:
        """Real samples that are compared."""
        return min(self.count, len(self.source))

    def measure(self, game: Game) -> tuple[Figures, dict[str, dict[str, Any]]]:
        """Figures by metric, and the protocol of each metric.

        Raises:
            InputError: the extractor gives no logits, and a metric needs them.
        """
        figures: Figures = {}
        plain = [card for card in self.cards if card.extracts is None]
        if plain:
            samples = game.generate(self.count, seed=self.seed)
            figures |= {
                card.name: resolve(card.measure)(samples, self.dataset, self.source.facts) for card in plain
            }  # fmt: skip
        if self.extractor is not None:
            with tempfile.TemporaryDirectory() as scratch:
                seen = self._see(game, self.keep or Path(scratch))
                figures |= {card.name: resolve(card.measure)(*seen) for card in self._served(seen[1])}
        measured = [card for card in self.cards if card.name in figures]
        shape = list(next(self._real(0)).shape[1:])
        return (
            {card.name: figures[card.name] for card in measured},
            {card.name: self._protocol(card, shape) for card in measured},
        )

    def _served(self, seen: Seen) -> list[MetricCard]:
        """The metrics of features that can be had of what was seen."""
        served = [card for card in self.cards if card.extracts]
        if seen.logits is None:
            assert self.extractor is not None
            left = [card for card in served if card.extracts == "features"]
            if left != served and (self.asked or not left):
                name = next(card.name for card in served if card not in left)
                raise InputError(f"the metric `{name}` needs logits, and the extractor {self.extractor.name} has none")
            return left
        return served

    def _obstacle(
        self, card: MetricCard, game: Game, seer: ExtractorCard | None, extractors: Mapping[str, ExtractorCard]
    ) -> str:
        """Why a game's samples cannot be measured by a metric on these data; nothing if they can."""
        lacking = [fact for fact in card.needs if fact not in self.source.facts]
        if lacking:
            return f"needs data with {' and '.join(lacking)}; {self.source.name} has none"
        if card.by_class and game.num_classes is None:
            return "needs samples by class, and this model was trained without; set `network.num_classes`"
        if card.extracts and seer is None:
            return f"needs an extractor of features: {', '.join(extractors) or 'the domain has none'}"
        if self.count < card.least:
            return f"needs {card.least:,} samples or more; {self.count:,} are generated"
        if len(self.source) < card.least:
            return f"needs {card.least:,} samples or more; {self.source.name} has {len(self.source):,}"
        return ""

    def _see(self, game: Game, folder: Path) -> tuple[Seen, Seen]:
        """What the extractor sees in real samples and in generated ones."""
        assert self.extractor is not None
        protocol = json.dumps(dict(self.extractor.protocol), sort_keys=True)
        real_name, fake_name = "real", "fake"
        if self.keep is not None:  # files are found again by everything that they depend on
            content = hashlib.sha256()
            for part in self._real(0):
                content.update(part.contiguous().numpy().data)
            fake = f"{digest(game.state_dict())} {self.seed} {self.count}"
            real_name, fake_name = (
                f"{kind}-{hashlib.sha256(f'{protocol} {what}'.encode()).hexdigest()[:16]}"
                for kind, what in (("real", content.hexdigest()), ("fake", fake))
            )

        def reals(start: int) -> Iterator[Tensor]:
            return (part.to(game.device) for part in self._real(start))

        def fakes(start: int) -> Iterator[Tensor]:
            return game.generated(self.count, seed=self.seed, start=start)

        return (
            see(self.extractor, reals, self.real_count, folder / real_name),
            see(self.extractor, fakes, self.count, folder / fake_name),
        )

    def _real(self, start: int) -> Iterator[Tensor]:
        """Real samples from one on, in parts."""
        order = IndexStream(len(self.dataset), 1, seed=0).epoch(0)[start : self.real_count]  # type: ignore[arg-type]
        for batch in read(self.dataset, order, GENERATE_AT_ONCE):
            yield batch["target"] if "target" in batch else next(t for key, t in batch.items() if key != "label")

    def _protocol(self, card: MetricCard, shape: list[int]) -> dict[str, Any]:
        protocol = {
            "measure": card.title, "data": self.source.name, "shape": shape, "samples": self.count, "seed": self.seed
        }  # fmt: skip
        if card.extracts:
            assert self.extractor is not None
            protocol |= {"real samples": self.real_count, **self.extractor.protocol}
        return protocol


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits; figures of one protocol can be compared."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:8]


def _chosen_extractor(
    extractors: Mapping[str, ExtractorCard], given: str | None, source: Source
) -> tuple[ExtractorCard | None, str | None]:
    """The extractor that `NAME:ARGUMENT` names, else the first embedded one that the data suit, if there is one."""
    if given is None:
        suits = (c for c in extractors.values() if c.origin == "embedded" and set(c.needs) <= set(source.facts))
        return next(suits, None), None
    name, colon, argument = given.partition(":")
    if name not in extractors:
        raise unknown("extractor", name, extractors, InputError)
    if lacking := [fact for fact in extractors[name].needs if fact not in source.facts]:
        raise InputError(f"the extractor `{name}` needs data with {' and '.join(lacking)}; {source.name} has none")
    return extractors[name], argument if colon else None
