"""Measuring a game's samples against data: which metrics fit, on what protocol, and their figures."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_core.averaging import sampling_state
from gan_core.checkpoint import digest
from gan_core.data import FittedData, Source, length, read, shuffled, to_device
from gan_core.domain import Domain, ExtractorCard, MetricCard, resolve
from gan_core.draws import BLOCK
from gan_core.errors import InputError, unknown
from gan_core.features import Extractor, Seen, see
from gan_core.game import Game, evaluating

Figures = dict[str, dict[str, Any]]


class Evaluation:
    """The metrics that measure samples of a kind of game against some data.

    Real samples are as many as generated ones, or all if there are fewer, drawn by a fixed shuffle.

    Args:
        domain: whose metrics and extractors are used.
        data: the data, fitted to what the game needs.
        game: of the kind that is measured.
        metrics: by name; None takes all that fit.
        count: samples that are generated; of pairs, as many as there are at most.
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
        self, domain: Domain, data: FittedData, game: Game, *,
        metrics: Sequence[str] | None = None, count: int = 1000, seed: int = 0, extractor: str | None = None,
        weights: Path | None = None, keep: Path | None = None,
    ) -> None:  # fmt: skip
        self.source = source = data.source
        self.dataset, self.key = data.plain, game.data_spec().key
        self.count, self.seed, self.keep, self.asked = count, seed, keep, metrics is not None
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
        names = [name for name in cards if not obstacles[name]] if metrics is None else list(metrics)
        if not names:
            named = {why: [name for name in obstacles if obstacles[name] == why] for why in obstacles.values()}
            whys = "; ".join(f"{', '.join(f'`{name}`' for name in names)} {why}" for why, names in named.items())
            raise InputError(f"no metric fits: {whys}")
        self.cards = [cards[name] for name in names]
        self.extractor: Extractor | None = None
        if any(card.extracts for card in self.cards):
            assert seer is not None
            self.extractor = resolve(seer.make)(argument, weights, self.dataset, source.facts)
        elif extractor is not None or weights is not None:
            raise InputError("`--extractor` and `--weights` have no effect: no metric of features is asked for")
        self._folder = keep or Path(tempfile.mkdtemp(prefix="gan-features-"))
        if keep is None:
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._reals: Seen | None = None

    @property
    def real_count(self) -> int:
        """Real samples that are compared."""
        return min(self.count, length(self.dataset))

    def measure(self, game: Game) -> tuple[Figures, dict[str, dict[str, Any]]]:
        """Figures by metric, and the protocol of each metric.

        Raises:
            InputError: the extractor gives no logits, and a metric needs them.
        """
        figures: Figures = {}
        plain = [card for card in self.cards if card.extracts is None and not card.pairs]
        if any(card.pairs for card in self.cards):
            pairs = self._pairs(game)
            figures |= {
                card.name: resolve(card.measure)(*pairs, self.dataset, self.source.facts)
                for card in self.cards if card.pairs
            }  # fmt: skip
        if plain:
            samples = game.generate(self.count, seed=self.seed)
            figures |= {
                card.name: resolve(card.measure)(samples, self.dataset, self.source.facts) for card in plain
            }  # fmt: skip
        if self.extractor is not None:
            with self._seen(game) as (real, fake):
                figures |= {card.name: resolve(card.measure)(real, fake) for card in self._served(fake)}
        measured = [card for card in self.cards if card.name in figures]
        return (
            {card.name: figures[card.name] for card in measured},
            {card.name: self._protocol(card) for card in measured},
        )

    def _served(self, seen: Seen) -> list[MetricCard]:
        """The metrics of features that can be had of what was seen."""
        served = [card for card in self.cards if card.extracts]
        if seen.logits is None:
            left = [card for card in served if card.extracts == "features"]
            if left != served and (self.asked or not left):
                name = next(card.name for card in served if card not in left)
                raise InputError(f"the metric `{name}` needs logits, and the extractor {self._seer.name} has none")
            return left
        return served

    def _obstacle(
        self, card: MetricCard, game: Game, seer: ExtractorCard | None, extractors: Mapping[str, ExtractorCard]
    ) -> str:
        """Why a game's samples cannot be measured by a metric on these data; nothing if they can."""
        if card.pairs and type(game).reconstruct is Game.reconstruct:
            return "compares what is made of an item with what should be, and this model has no such pairs"
        if not card.pairs and type(game).sample is Game.sample:
            return "measures samples that are made from nothing, and this model makes none"
        if not card.pairs and game.unmeasured is not None:
            return game.unmeasured
        lacking = [fact for fact in card.needs if fact not in self.source.facts]
        if lacking:
            return f"needs data with {' and '.join(lacking)}; {self.source.name} has none"
        if card.by_class and game.num_classes is None:
            return "needs samples by class, and this model was trained without; set `network.num_classes`"
        if card.extracts and seer is None:
            return f"needs an extractor of features: {', '.join(extractors) or 'the domain has none'}"
        if self.count < card.least:
            return f"needs {card.least:,} samples or more; {self.count:,} are generated"
        if (items := length(self.dataset)) < card.least:
            return f"needs {card.least:,} samples or more; {self.source.name} has {items:,}"
        return ""

    def _see_real(self, game: Game) -> Seen:
        """What the extractor sees in the real samples, on the game's device; once for all games."""
        if self._reals is None:
            content = hashlib.sha256()
            if self.keep is not None:
                for part in self._real(0):
                    content.update(part.contiguous().numpy().data)

            def parts(start: int) -> Iterator[Tensor]:
                return (part.to(game.device) for part in self._real(start))

            self._reals = see(self._seer, parts, self.real_count, self._stem("real", content.hexdigest()))
        return self._reals

    @contextmanager
    def _seen(self, game: Game) -> Iterator[tuple[Seen, Seen]]:
        """What the extractor sees in the real samples, and in generated ones, which go from the disk afterwards."""

        def parts(start: int) -> Iterator[Tensor]:
            return game.generated(self.count, seed=self.seed, start=start)

        real = self._see_real(game)
        stem = self._stem("fake", digest(dict(sampling_state(game))), self.seed, self.count)
        try:
            yield real, see(self._seer, parts, self.count, stem)
        finally:
            for file in stem.parent.glob(f"{stem.name}.*") if self.keep is None else ():
                file.unlink()

    @torch.no_grad()
    def _pairs(self, game: Game) -> tuple[Tensor, Tensor]:
        """Real items, and what a game makes of each, on the CPU: `[real_count, …]`; what it draws follows the seed."""
        order = shuffled(length(self.dataset))[: self.real_count]
        pairs: list[tuple[Tensor, Tensor]] = []
        with torch.random.fork_rng(devices=[]), evaluating(game):
            torch.manual_seed(self.seed)
            for batch in read(self.dataset, order, BLOCK):
                real, made = game.reconstruct(to_device(batch, game.device, frozenset()))  # pixels are scaled already
                pairs.append((real.cpu(), made.cpu()))
        reals, mades = zip(*pairs, strict=True)
        return torch.cat(reals), torch.cat(mades)

    @property
    def _seer(self) -> Extractor:
        assert self.extractor is not None
        return self.extractor

    def _stem(self, kind: str, *of: object) -> Path:
        """Where features go: a name that depends on everything that they depend on."""
        content = json.dumps([dict(self._seer.protocol), *map(str, of)], sort_keys=True)
        return self._folder / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def _real(self, start: int) -> Iterator[Tensor]:
        """Real samples from one on, in parts."""
        order = shuffled(length(self.dataset))[start : self.real_count]
        for batch in read(self.dataset, order, BLOCK):
            keys = ["target", self.key, *(key for key in batch if key != "label")]
            yield next(batch[key] for key in keys if key in batch)

    @cached_property
    def _shape(self) -> list[int]:
        return list(next(self._real(0)).shape[1:])

    def _protocol(self, card: MetricCard) -> dict[str, Any]:
        protocol = {
            "measure": card.title, "data": self.source.name, "shape": self._shape, "samples": self.count,
            "seed": self.seed,
        }  # fmt: skip
        if card.pairs:
            protocol["samples"] = self.real_count
        if card.extracts:
            protocol |= {"real samples": self.real_count, **self._seer.protocol}
        return protocol


def log_line(figures: Figures, protocols: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Figures as they are logged: `evaluation/FIGURE`, and `protocol/FIGURE` beside each."""
    ids = {metric: protocol_id(protocol) for metric, protocol in protocols.items()}
    named = [(name, value, ids[metric]) for metric, values in figures.items() for name, value in values.items()]
    return {f"evaluation/{name}": value for name, value, _ in named} | {
        f"protocol/{name}": protocol for name, _, protocol in named
    }


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
