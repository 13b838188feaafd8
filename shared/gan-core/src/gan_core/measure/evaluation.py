"""Evaluation of a game's samples and results against data: selection of metrics, figures and protocols."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.cards import ExtractorCard, MetricCard, Metrics, Scale, resolve
from gan_core.data import Batch, FittedData, length, read, shuffled, to_device
from gan_core.draws import BLOCK
from gan_core.errors import InputError, unknown, writing
from gan_core.measure.features import Extracted, Extractor, Extractors, FeatureFiles, extract
from gan_core.measure.measures import Measure, PairPart, Part, Subject, copied
from gan_core.models.checkpoint import digest
from gan_core.nn.blocks import evaluating
from gan_core.places import name_of
from gan_core.play.game import Game
from gan_core.training.averaging import sampling_state

Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Output that is compared with data: a game's samples, or one result of its `apply`.

    Attributes:
        key: key of the data that it is compared with.
        result: name of the result; None for samples.
        source: key of the data that the result is computed from; None for samples.
    """

    key: str
    result: str | None = None
    source: str | None = None


class Evaluation:
    """Evaluates games of one kind against data.

    The number of real items is that of the samples, or that of the dataset if it has fewer items. Their order is fixed
    and shuffled. Each result of `Game.apply` is compared with the part of the data that `Game.compared` names, and
    figures of a copy of the input are added as a baseline.

    Args:
        offered: the metrics and extractors of a domain, its module `metrics`.
        data: the data, fitted to the game's specification.
        game: a game of the kind that is evaluated.
        metrics: names of metrics (default: all that fit).
        count: number of samples, or maximum number of results.
        seed: random seed of the samples.
        extractor: `NAME` or `NAME:ARGUMENT` (default: the domain's first embedded one that fits the data).
        weights: file with the extractor's weights, if it needs one.
        keep: folder in which features are kept, so that an interrupted evaluation can continue; None does not keep
            them.

    Raises:
        InputError: a metric or an extractor is unknown or does not fit the game or the data, or `keep` cannot be
            written.
        DataError: the data cannot be converted to the game's specification.
        CheckpointError: the extractor's weights are missing.
    """

    def __init__(
        self,
        offered: Metrics,
        data: FittedData,
        game: Game,
        *,
        metrics: Sequence[str] | None = None,
        count: int = 1000,
        seed: int = 0,
        extractor: str | None = None,
        weights: Path | None = None,
        keep: Path | None = None,
    ) -> None:
        self.source = source = data.source
        self.dataset = data.plain
        self.count, self.seed, self.keep, self.asked = count, seed, keep, metrics is not None
        self.samples = None if type(game).sample is Game.sample else Comparison(self._key(game))
        self.results = [
            Comparison(key, result, game.results[result])
            for result, key in game.compared.items()
            if result in game.offered
        ]
        self.paired = game.paired
        cards: dict[str, MetricCard] = {card.name: card for card in offered.METRICS}
        extractors: dict[str, ExtractorCard] = {card.name: card for card in offered.EXTRACTORS}
        chosen, argument = self._chosen_extractor(extractors, extractor)
        obstacles = {name: self._obstacle(card, game, chosen, extractors) for name, card in cards.items()}
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
        key = (self.samples or self.results[0]).key
        self.extractors = Extractors(offered.EXTRACTORS, self.dataset, source.facts, key)
        self.memory: dict[Hashable, Any] = {}
        self.extractor: Extractor | None = None
        if any(card.extracts for card in self.cards):
            assert chosen is not None
            if keep is not None:
                with writing(keep):  # before an extractor is trained
                    keep.mkdir(parents=True, exist_ok=True)
                    tempfile.TemporaryFile(dir=keep).close()
            self.extractor = self.extractors(chosen.name, argument, weights)
        elif extractor is not None or weights is not None:
            raise InputError("`--extractor` and `--weights` have no effect because no metric uses features; omit them")
        self._folder = keep or Path(tempfile.mkdtemp(prefix="gan-features-"))
        if keep is None:
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._extracted: dict[tuple[str, torch.Size | None], Extracted] = {}

    def measure(self, game: Game) -> tuple[Figures, dict[str, dict[str, Any]]]:
        """Returns the figures by metric, and the protocol of each metric.

        If the game has several results, the name of the result is appended to that of the figure: `fid_to_target`.

        Raises:
            InputError: a metric needs logits, but the extractor does not return any.
        """
        figures: Figures = {card.name: {} for card in self.cards}
        with evaluating(game):
            for comparisons in self._passes():
                self._measure(game, comparisons, figures)
        measured = [card for card in self.cards if figures[card.name]]
        return (
            {card.name: figures[card.name] for card in measured},
            {card.name: self._protocol(card) for card in measured},
        )

    def scales(self, figures: Figures) -> dict[str, Scale]:
        """Returns the unit and direction of each figure."""
        return {name: card.scale(name) for card in self.cards for name in figures.get(card.name, ())}

    def _compared_by(self, card: MetricCard) -> list[Comparison]:
        """Returns the outputs that a metric measures: the results if it needs pairs or there are no samples."""
        return self.results if card.pairs or self.samples is None else [self.samples]

    def _passes(self) -> list[list[Comparison]]:
        """Returns groups of outputs that are computed together: the samples, and the results of items of one set."""
        together = [self.results] if self.paired else [[result] for result in self.results]
        return [comparisons for comparisons in ([self.samples] if self.samples else [], *together) if comparisons]

    def _measure(self, game: Game, comparisons: Sequence[Comparison], figures: Figures) -> None:
        """Adds the figures of a group of outputs, computed in one pass."""
        cards = [card for card in self.cards if comparisons[0] in self._compared_by(card)]
        plain, extracting = ([card for card in cards if bool(card.extracts) is kind] for kind in (False, True))
        if not cards:
            return
        measures: list[dict[str, Measure[Any]]] = [
            {card.name: resolve(card.measure)(self._subject(game, each)) for card in plain} for each in comparisons
        ]
        with ExitStack() as stack:
            files = [stack.enter_context(self._files(game, each)) for each in comparisons] if extracting else []
            done = 0 if plain else min(each.done for each in files)
            with torch.no_grad():
                for parts in self._made(game, comparisons, done):
                    for part, own in zip(parts, measures, strict=True):
                        on_cpu = part.cpu() if own else part
                        for measure in own.values():
                            measure.update(on_cpu)
                    for part, kept in zip(parts, files, strict=bool(files)):
                        if kept.done < part.start + len(part.samples):
                            kept.add(part.samples[max(0, kept.done - part.start) :])
                for comparison, own in zip(comparisons, measures, strict=True):
                    for name, measure in own.items():
                        self._put(figures[name], comparison, measure.figures())
            for comparison, kept in zip(comparisons, files, strict=bool(files)):
                self._compare_features(game, comparison, kept.extracted(), extracting, figures)

    def _compare_features(
        self, game: Game, comparison: Comparison, fake: Extracted, cards: Sequence[MetricCard], figures: Figures
    ) -> None:
        """Adds the figures computed from features and, for results, the figures of a copy of the input."""
        real, source, copy = self._extract(game, comparison.key), comparison.source, None
        if source is not None and source != comparison.key:
            shape = self._shape(comparison.key)
            fits = copied(next(self._real(source))[source], shape) is not None
            copy = self._extract(game, source, shape) if fits else None
        for card in self._served(cards, fake):
            measure = resolve(card.measure)
            self._put(figures[card.name], comparison, measure(real, fake))
            if copy is not None:  # figures of real items alone are known already
                found = {name: value for name, value in measure(real, copy).items() if "_of_" not in name}
                named = {f"{name}_of_{source}": value for name, value in found.items()}
                self._put(figures[card.name], comparison, named)

    def _put(self, figures: dict[str, Any], comparison: Comparison, found: Mapping[str, Any]) -> None:
        """Adds figures by name; the result's name is appended if there are several results."""
        several = comparison.result is not None and len(self.results) > 1
        figures |= {f"{name}_{comparison.result}" if several else name: value for name, value in found.items()}

    def _served(self, cards: Sequence[MetricCard], seen: Extracted) -> Sequence[MetricCard]:
        """Returns the metrics that can be computed from the extracted features."""
        left = [card for card in cards if card.extracts == "features" or seen.logits is not None]
        if left != cards and (self.asked or not left):
            name = next(card.name for card in cards if card not in left)
            raise InputError(
                f"the metric `{name}` needs logits, which the extractor {self._extractor.name} does not return; choose "
                "another `--extractor`"
            )
        return left

    def _obstacle(
        self, card: MetricCard, game: Game, chosen: ExtractorCard | None, extractors: Mapping[str, ExtractorCard]
    ) -> str:
        """Returns the reason why a metric does not apply to the game and the data; empty if it does."""
        if card.pairs and not (self.paired and self.results):
            remedy = (
                "; set `compared`, such as {result: key of the target}" if game.results and not game.compared else ""
            )
            return f"compares results with paired targets, which this model does not have{remedy}"
        if not card.pairs and self.samples is None and not (card.extracts and self.results):
            return "measures generated samples, but this model only transforms items"
        if not card.pairs and game.unmeasured is not None:
            return game.unmeasured
        if missing := [name for name in card.methods if not hasattr(game, name)]:
            return f"needs a model with {' and '.join(f'`{name}`' for name in missing)}"
        if lacking := self._lacking(card.needs):
            return f"needs data with {' and '.join(lacking)}; {self.source.name} has none"
        if unasked := [name for name in card.asks if name not in game.conditions]:
            names = " and ".join("the class" if name == "label" else f"`{name}`" for name in unasked)
            remedy = "; set `network.num_classes`" if "label" in unasked else ""
            return f"needs a model conditioned on {names}{remedy}"
        if not card.pairs and self.samples and (needed := [n for n, kind in game.conditions.items() if kind.required]):
            without = " and ".join(f"`{name}`" for name in needed)
            return f"measures samples, but this model cannot generate any without {without}"
        if card.extracts and chosen is None:
            return f"needs a feature extractor; known: {', '.join(extractors) or 'the domain has none'}"
        if self.count < card.least:
            return f"needs {card.least:,} samples or more; {self.count:,} are generated"
        sets = {key for each in self._compared_by(card) for key in (each.key, each.source or each.key)}
        if (items := min(length(self._set(key)) for key in sets)) < card.least:
            return f"needs {card.least:,} samples or more; {self.source.name} has {items:,}"
        return ""

    def _lacking(self, needs: Sequence[str]) -> list[str]:
        """Returns the needed facts that the data lack, both for whole items and for the parts that are compared."""
        parts = [each.key for each in self.results]

        def known(fact: str) -> bool:
            return fact in self.source.facts or (bool(parts) and all(f"{p}_{fact}" in self.source.facts for p in parts))

        return [fact for fact in needs if not known(fact)]

    def _chosen_extractor(
        self, extractors: Mapping[str, ExtractorCard], given: str | None
    ) -> tuple[ExtractorCard | None, str | None]:
        """Returns the extractor and argument given as `NAME:ARGUMENT` (default: the first embedded one that fits)."""
        if given is None:
            suits = (c for c in extractors.values() if c.origin == "embedded" and not self._lacking(c.needs))
            return next(suits, None), None
        name, colon, argument = given.partition(":")
        if name not in extractors:
            raise unknown("extractor", name, extractors, InputError)
        if lacking := self._lacking(extractors[name].needs):
            raise InputError(
                f"the extractor `{name}` needs data with {' and '.join(lacking)}, but {self.source.name} has none; "
                "choose another extractor"
            )
        return extractors[name], argument if colon else None

    # Samples and results.

    def _made(self, game: Game, comparisons: Sequence[Comparison], done: int) -> Iterator[Sequence[Part]]:
        """Yields the outputs of each comparison in parts on the game's device, from the block of sample `done` on."""
        source, start = comparisons[0].source, done - done % BLOCK
        if done == self._number(comparisons[0]):
            return iter(())
        return self._sampled(game, start) if source is None else self._applied(game, start, source, comparisons)

    def _sampled(self, game: Game, start: int) -> Iterator[Sequence[Part]]:
        asked = game.asked(self.count)
        for samples in game.generated(self.count, seed=self.seed, start=start):
            rows = slice(start, start + len(samples))
            yield [Part(start, samples, {name: values[rows] for name, values in asked.items()})]
            start = rows.stop

    def _applied(
        self, game: Game, start: int, source: str, comparisons: Sequence[Comparison]
    ) -> Iterator[Sequence[Part]]:
        """Yields results in parts of `Game.at_once`; random draws depend on the seed, as they do for samples."""
        for batch in self._real(source, start):
            for first in game.firsts(len(batch[source])):
                part = {key: value[first : first + game.at_once] for key, value in batch.items()}
                items, rows = to_device(part, game.device, frozenset()), len(part[source])  # pixels are already scaled
                with game.seeded_rows(self.seed, start, rows):
                    made = game.apply(items if self.paired else {source: items[source]})
                results = [(made[each.result], each.key) for each in comparisons]
                if self.paired:
                    asked = {name: value for name, value in game.conditions_in(part).items() if name != source}
                    yield [PairPart(start, result, asked, items, items[key]) for result, key in results]
                else:
                    yield [Part(start, result, {}) for result, _ in results]
                start += rows

    def _number(self, comparison: Comparison) -> int:
        """Returns the number of samples or results that are compared."""
        return self.count if comparison.source is None else self._number_of(comparison.source)

    # Real items.

    def _subject(self, game: Game, comparison: Comparison) -> Subject:
        return Subject(
            game=game,
            dataset=self._set(comparison.key),
            facts=self.source.facts,
            extractors=self.extractors,
            count=self._number(comparison),
            seed=self.seed,
            key=comparison.key,
            source=comparison.source,
            memory=self.memory,
        )

    def _set(self, key: str) -> Dataset[Batch]:
        """Returns the items with a key; for unpaired data, one of the two sets."""
        apart = None if self.paired else getattr(self.dataset, "apart", None)
        return self.dataset if apart is None else apart(key)

    def _number_of(self, key: str) -> int:
        """Returns the number of real items of a key that are compared."""
        return min(self.count, length(self._set(key)))

    def _real(self, key: str, start: int = 0) -> Iterator[Batch]:
        """Yields batches of real items, starting at an index."""
        items = self._set(key)
        return read(items, shuffled(length(items))[start : self._number_of(key)], BLOCK)

    def _key(self, game: Game) -> str:
        """Returns the key of the data that samples are compared with.

        It is the key of the game's specification, or else `target`, or else the first key.
        """
        keys = [key for key in next(read(self.dataset, [0], 1)) if key != "label"]
        return next(key for key in (game.data_spec().key, "target", *keys) if key in keys)

    def _shape(self, key: str) -> torch.Size:
        """Returns the shape of a real item."""
        return next(self._real(key))[key].shape[1:]

    def _content(self, key: str) -> str:
        """Returns a digest of the real items of a key; that of no items if features are not kept."""
        content = hashlib.sha256()
        for batch in self._real(key) if self.keep is not None else ():
            content.update(batch[key].contiguous().numpy().data)
        return content.hexdigest()

    # Features.

    @property
    def _extractor(self) -> Extractor:
        assert self.extractor is not None
        return self.extractor

    def _stem(self, kind: str, *of: object) -> Path:
        """Returns the stem of a feature file's path, with a digest of everything that the features depend on."""
        content = json.dumps([dict(self._extractor.protocol), *map(str, of)], sort_keys=True)
        return self._folder / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @contextmanager
    def _files(self, game: Game, comparison: Comparison) -> Iterator[FeatureFiles]:
        """Context manager that yields the feature files of an output, and removes them unless features are kept."""
        of: list[object] = [comparison.result]
        if self.keep is not None:
            settings = None if game.recipe is None else game.recipe.model_dump_json(include={"network", "game"})
            of += [digest(dict(sampling_state(game))), game.phase_number, game.progress, settings]
            of += [self.seed, self.count]
            of += [] if comparison.source is None else [self._content(comparison.source)]
        stem = self._stem("fake", *of)
        files = FeatureFiles(self._extractor, self._number(comparison), stem)
        try:
            yield files
        finally:
            if self.keep is None:
                files.remove()

    def _extract(self, game: Game, key: str, shape: torch.Size | None = None) -> Extracted:
        """Returns the features of real items, which are extracted once, on the device of the first game.

        Args:
            game: game that is evaluated.
            key: key of the items.
            shape: shape of the targets, if the items stand for the results of a model that copies its input.
        """
        known = key, shape
        if known not in self._extracted:

            def parts(start: int) -> Iterator[Tensor]:
                for batch in self._real(key, start):
                    samples = batch[key] if shape is None else copied(batch[key], shape)
                    assert samples is not None
                    yield samples.to(game.device)

            stem = self._stem("real", *known, self._content(key))
            self._extracted[known] = extract(self._extractor, parts, self._number_of(key), stem)
        return self._extracted[known]

    def _protocol(self, card: MetricCard) -> dict[str, Any]:
        compared = self._compared_by(card)

        def number(of: Callable[[Comparison], int]) -> int | str:
            """Returns the number of samples, or a text with one number per result if they differ."""
            numbers = [of(each) for each in compared]
            named = ", ".join(f"{number} {each.result}" for number, each in zip(numbers, compared, strict=True))
            return numbers[0] if len(set(numbers)) == 1 else named

        protocol = {
            "measure": card.title,
            "data": name_of(self.source.name),
            "shape": list(self._shape(compared[0].key)),
            "samples": number(self._number),
            "seed": self.seed,
        }
        if card.extracts:
            protocol |= {"real samples": number(lambda each: self._number_of(each.key)), **self._extractor.protocol}
        return protocol


def log_line(
    figures: Figures, protocols: Mapping[str, Mapping[str, Any]], scales: Mapping[str, Scale]
) -> dict[str, Any]:
    """Returns the entries of a log line: `evaluation/FIGURE`, `protocol/FIGURE` and `scale/FIGURE` for each figure."""
    ids = {metric: protocol_id(protocol) for metric, protocol in protocols.items()}
    named = [(name, value, ids[metric]) for metric, values in figures.items() for name, value in values.items()]
    return (
        {f"evaluation/{name}": value for name, value, _ in named}
        | {f"protocol/{name}": protocol for name, _, protocol in named}
        | {f"scale/{name}": str(scales[name]) for name, _, _ in named if str(scales[name])}
    )


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """Returns the id of a protocol, eight hexadecimal digits. Only figures with the same id are comparable."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:8]
