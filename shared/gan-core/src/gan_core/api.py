"""The public functions: create, train, resume, load, evaluate, open_data and load_reference."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn

from gan_core.cards import resolve
from gan_core.data import Data, FittedData, Paired, Source, Unpaired, as_source, require_classes, require_keys
from gan_core.data.files import is_url
from gan_core.data.folders import split_part
from gan_core.data.hub import is_hub_dataset
from gan_core.distributed import is_first
from gan_core.domain import Domain, find_domain
from gan_core.errors import CheckpointError, DataError, GanError, InputError, NonFiniteError, RecipeError, say, unknown
from gan_core.measure.evaluation import Evaluation, log_line, protocol_id
from gan_core.measure.figures import Figures
from gan_core.models.folder import read_config, read_weights
from gan_core.models.hub import local_folder
from gan_core.models.reference import load_reference
from gan_core.models.start import check_whole, start_networks
from gan_core.places import expanded
from gan_core.play.game import Game
from gan_core.play.preset import Preset, check_players, completed, on_meta
from gan_core.recipe import Recipe, TrainOptions, TrainSettings, parse, read_yaml
from gan_core.runs.report import write_report
from gan_core.runs.run import Run
from gan_core.training.output import Evaluate, WriteSamples
from gan_core.training.regime import Regime, regime_of
from gan_core.training.schedule import lengths
from gan_core.training.trainer import ReaderLost, Trainer

Where = str | Path | Mapping[str, str | Path]
"""Location of data: a named dataset, a folder, an archive, or a mapping with one of these per part of an item."""

CHANGEABLE = ("optimizer", "players", "train", "data.workers")
"""Sections and settings of a recipe that may change when a run is resumed; the others determine what its checkpoints
contain."""

logger = logging.getLogger("gan_core")


class Toolkit:
    """The public functions of a package.

    A domain package binds them to its domain: `train = Toolkit(DOMAIN).train`. The functions of gan-core have no domain
    and work with runs and models of all installed domains, and with games built by hand.

    Args:
        domain: domain that defines the named systems and datasets, the media and the metrics, and to which runs and
            models must belong.
    """

    def __init__(self, domain: Domain | None = None) -> None:
        self.domain = domain

    def create(
        self, system: str, *, preset: str = "small", changes: Mapping[str, Any] | None = None, **network: Any
    ) -> Game:
        """Creates a game of a system, with newly initialized networks.

        Args:
            system: name of the system.
            preset: preset on which the settings are based.
            changes: changes to the recipe by dotted key: `{"objective": "hinge", "regularizers": ["r1"]}`.
            **network: settings of the networks, such as `image_size=32`. A mapping under a network's name applies only
                to that network.

        Raises:
            RecipeError: the system, the preset or a setting is unknown, or a value is out of range.
        """
        chosen = self._domain("system", system).preset(system, preset)
        for name in network.keys() - chosen.network_keys():
            if name in Recipe.model_fields:
                value = {name: network[name]}
                raise RecipeError(
                    f"`{name}` is not a setting of the networks; use `create({system!r}, changes={value!r})`"
                )
            if name in TrainSettings.model_fields:
                raise RecipeError(f"`{name}` is a training setting; give it to `train`")
        recipe = self._domain("system", system).recipe(system, preset)
        return chosen.build(recipe.but({"network": network}).but(changes or {}))

    def train(
        self,
        game: Game | str,
        *,
        data: Data | Where,
        out: str | Path,
        preset: str | None = None,
        start: Mapping[str, str | Path] | None = None,
        changes: Mapping[str, Any] | None = None,
        regime: Regime | None = None,
        shown: bool = True,
        **settings: Unpack[TrainOptions],
    ) -> Run:
        """Trains a game and writes a run folder. Afterwards the game generates with the averaged weights.

        Args:
            game: a game, or the name of a system.
            data: a dataset name, a folder, an archive, a mapping of these by part of an item, a source, or tensors by
                key.
            out: run folder; new or empty.
            preset: preset of a system given by name (default: `small`).
            start: initial weights of networks, by network name; see `gan_core.recipe.Start`.
            changes: changes to the recipe by dotted key: `{"optimizer.learning_rate": 1e-4}`.
            regime: training regime that was built in Python (default: the recipe's).
            shown: whether progress is shown on standard error.
            **settings: training settings: `steps`, `batch_size`, `seed`, `ema` … (`gan_core.recipe.TrainSettings`).

        Raises:
            RecipeError: a setting is unknown or out of range.
            DataError: the data are missing or do not fit the game.
            InputError: `out` is in use or cannot be written.
        """
        domain = self.domain
        if isinstance(game, str):
            recipe = self._domain("system", game).recipe(game, preset or "small")
        elif not isinstance(game, Game):
            raise RecipeError(f"`game` has the type {type(game).__name__}; pass a `Game`, or the name of a system")
        elif preset is not None:
            raise RecipeError(
                f"`preset` is {preset}, but the game is already built; pass the name of its system instead"
            )
        else:
            recipe = game.recipe or Recipe(domain=domain.name if domain else None, system=type(game).__name__)
            recipe = recipe.model_copy(update={"start": {}})  # a game that is passed in has its initial weights already
        rules = _rules(recipe)
        for name, value in settings.items():
            if name in Recipe.model_fields:
                raise RecipeError(f"`{name}` is not a training setting; use `changes={ {name: value}!r}`")
            if name not in TrainSettings.model_fields:
                raise unknown("training setting", name, TrainSettings.model_fields)
        recipe = recipe.but({f"train.{name}": value for name, value in settings.items()} | dict(changes or {}))
        if isinstance(start, str | Path):
            raise RecipeError(f"`start` is {str(start)!r}; give it by network: {{'generator': {str(start)!r}}}")
        recipe = recipe.but({"start": {name: str(weights) for name, weights in (start or {}).items()}})
        where, source = _named(data)
        recipe = recipe.but({"data.source": where})
        if isinstance(game, str):
            return train_recipe(recipe, out, source=source, regime=regime, shown=shown)
        if _rules(recipe) != rules:
            raise RecipeError(
                "`changes` has settings that a built game cannot change; pass them to `create`, or pass the name of "
                "its system"
            )
        Run(out).check_free()
        source = source or self._source_of(recipe, type(game))
        recipe = completed(game, self._addressed(recipe), source.facts)
        return _fit(game, recipe, _fitted(game, recipe, source), out, domain, regime, shown)

    def resume(
        self,
        path: str | Path,
        *,
        steps: int | None = None,
        samples: int | None = None,
        minutes: float | None = None,
        changes: Mapping[str, Any] | None = None,
        game: Game | None = None,
        data: Data | Where | None = None,
        regime: Regime | None = None,
        shown: bool = True,
    ) -> Run:
        """Continues a run from its latest valid checkpoint: one that is complete and has only finite values.

        Args:
            path: run folder.
            steps: new total number of steps (default: unchanged); the last phase is extended.
            samples: new total number of samples (default: unchanged).
            minutes: new total training time in minutes (default: unchanged).
            changes: changes to the recipe by dotted key; only settings of `optimizer`, `players` and `train`, and
                `data.workers`.
            game: the game, built in the same way, if it was built by hand.
            data: the data, if the recipe does not name them, or their new place; see `train`. A new place is written to
                the recipe.
            regime: training regime, if it was built in Python.
            shown: whether progress is shown on standard error.

        Raises:
            CheckpointError: the folder is not a run, belongs to another domain, or has no valid checkpoint.
            RecipeError: the run is finished, or a change is unknown, out of range, or not allowed in a resumed run.
            DataError: the data are missing, or `data` have other parts or classes than those of the run.
            InputError: another process is training the run.
        """
        run = Run.open(path)
        for key in changes or ():
            if key.startswith("data.source"):
                raise RecipeError(f"`{key}` cannot change; if the data have moved, give their new place as `data`")
            if key not in CHANGEABLE and key.partition(".")[0] not in CHANGEABLE:
                raise RecipeError(
                    f"`{key}` cannot change when a run is resumed; start a new run from {run.recipe_file}"
                )
        with ExitStack() as owning:
            if is_first():
                owning.enter_context(run.owned())
            before = run.recipe
            limits = {"train.steps": steps, "train.samples": samples, "train.minutes": minutes}
            given = {key: value for key, value in limits.items() if value is not None}
            recipe = before.but(given | dict(changes or {}))
            home = _domain_of(recipe, path, self.domain) if recipe.domain is not None or game is None else None
            if game is None:
                assert home is not None
                game = _preset_of(recipe, home).build(recipe)
            else:
                check_players(game, recipe)
            recipe, source = Toolkit(home)._found_again(run, recipe, data, type(game))
            fitted = _fitted(game, recipe, source)
            if recipe.train.epochs != before.train.epochs:
                recipe = measured(game, recipe, fitted)
            regime, recipe = regime_of(recipe, regime)
            trainer = _trainer(game, recipe, fitted, run, home, regime, shown)
            run.problems = trainer.restore()
            finished = trainer.finished()
            if finished and run.is_rounded_off():
                limit = "steps" if trainer.step >= recipe.train.steps else "minutes (or samples)"
                trainer.release()
                reason = trainer.ended or f"give more {limit} to train on"
                state = "is already" if trainer.step > recipe.train.steps else "is finished"
                raise RecipeError(f"{run.path}: {state} at step {trainer.step}; {reason}")
            if not finished:
                trainer.rewind()
            if trainer.processes.first:
                run.write_recipe(recipe)
            _say_what_was_read(fitted, game, shown=shown and trainer.processes.first)
            return _finish(trainer, run)

    def load(self, path: str | Path, *, preset: Preset | None = None) -> Game:
        """Loads the game of a run folder, a model folder or a hub repository id, in evaluation mode.

        Args:
            path: the folder, or the id of a repository on the Hugging Face hub.
            preset: preset from which the game was built, if it belongs to no domain.

        Raises:
            CheckpointError: there is no model, it is damaged, or it belongs to another domain or does not fit the
                preset.
        """
        folder = local_folder(path)
        fields = read_config(folder).recipe
        if fields is None or (preset is None and fields.get("domain") is None):
            raise CheckpointError(
                f"{path}: its game was built without a recipe; build it again, then call `game.restore(path)`"
            )
        try:
            recipe = parse(fields)
            chosen = preset or _preset_of(recipe, _domain_of(recipe, path, self.domain))
            with on_meta():
                blank = chosen.build(recipe)
        except RecipeError as error:
            raise CheckpointError(f"{path}: cannot be built from its recipe: {error}") from error
        weights = read_weights(folder)
        with on_meta():
            weights.enter_phase(blank)
        weights.check_sizes(blank)
        game = chosen.build(recipe, absent=weights.absent(chosen.networks))
        weights.put_into(game)
        return game.eval()

    def evaluate(
        self,
        model: Game | str | Path,
        *,
        data: Data | Where,
        metrics: str | Sequence[str] | None = None,
        count: int = 1000,
        seed: int = 0,
        extractor: str | None = None,
        weights: str | Path | None = None,
        keep: str | Path | None = None,
    ) -> Figures:
        """Evaluates a model's samples, or the results of its `apply`, against data.

        Args:
            model: a run, a model folder or a hub repository id; or a game. A game that was built by hand is evaluated
                with the metrics of this package.
            data: a dataset name, a folder, an archive, a mapping of these by part of an item, a source, or tensors by
                key.
            metrics: name or names of metrics (default: all that fit the data).
            count: number of generated samples.
            seed: random seed of the samples.
            extractor: feature extractor, `NAME` or `NAME:ARGUMENT` (default: the domain's embedded one).
            weights: file of the extractor's weights.
            keep: folder in which features are kept, so that an interrupted evaluation can continue.

        Returns:
            Figures by metric (`metrics`), the protocol id of each (`protocol`), and the protocols by id (`protocols`).
            Only figures with the same protocol id are comparable. Those of a run are added to its report.

        Raises:
            InputError: a metric or an extractor is unknown or does not fit the data, or the domain is not known.
            CheckpointError: the extractor's weights are missing or cannot be downloaded.
        """
        game = model if isinstance(model, Game) else self.load(model)
        recipe = game.recipe or Recipe(domain=self.domain.name if self.domain else None, system=game.title)
        if recipe.domain is None:
            raise InputError(f"measuring {game.title} needs a domain's metrics; use its package's `evaluate`")
        home = _domain_of(recipe)
        where, source = _named(data)
        source = source or Toolkit(home).open_data(cast(Where, where), paired=game.paired)
        evaluation = Evaluation(
            home.metrics,
            _fitted(game, recipe, source),
            game,
            metrics=[metrics] if isinstance(metrics, str) else metrics,
            count=count,
            seed=seed,
            extractor=extractor,
            weights=None if weights is None else expanded(weights),
            keep=None if keep is None else expanded(keep),
        )
        figures, protocols = evaluation.measure(game)
        ids = {name: protocol_id(protocol) for name, protocol in protocols.items()}
        found = Figures(
            {
                "model": game.title if isinstance(model, Game) else str(model),
                "data": source.name,
                "samples": count,
                "seed": seed,
                "metrics": figures,
                "scales": {name: asdict(scale) for name, scale in evaluation.scales(figures).items()},
                "protocol": ids,
                "protocols": {ids[name]: protocol for name, protocol in protocols.items()},
            }
        )
        if not isinstance(model, Game) and Run(model).recipe_file.is_file():
            _record(Run(model), found)
        return found

    def open_data(self, where: Where, *, strict: bool = False, paired: bool = True) -> Source:
        """Opens a named dataset, or a folder or archive of files.

        Args:
            where: `NAME`, `NAME:PART` (`mnist:test`), a path or URL (`s3://bucket/set.zip`), `PATH:PART`, where the
                part is a sub-folder (`fruits:test`), or `left` or `right` of files that show two images side by side;
                or a Hugging Face dataset, `hf:OWNER/NAME:SPLIT`. A mapping gives a location for each part of an item:
                `{"source": "nuclei:masks", "target": "nuclei:images"}`.
            strict: whether an unreadable file is an error; otherwise it is skipped.
            paired: whether the parts of a mapping are matched item by item; otherwise they are unpaired datasets.

        Raises:
            DataError: no dataset or path has that name, or it contains no readable items.
        """
        if self.domain is None:
            raise DataError(f"`{where}`: naming data needs a domain; use its package's `train`, or give tensors")
        if isinstance(where, Mapping):
            if reserved := where.keys() & {"name", "strict", "self"}:
                raise DataError(f"`{min(reserved)}` cannot be the name of a part; use a key that the system reads")
            parts: dict[str, Any] = {key: self.open_data(place, strict=strict) for key, place in where.items()}
            return Paired(strict=strict, **parts) if paired else Unpaired(**parts)
        datasets, text = self.domain.data, os.path.expanduser(where)
        if not text:
            raise DataError("the name of the data is empty; give a dataset, a folder or an archive")
        if is_hub_dataset(text):
            return datasets.open_folder(text, strict=strict)
        cards = {card.name: card for card in datasets.DATASETS}
        if text in cards:
            if Path(text).is_dir():
                logger.warning("`%s` is the named dataset; write ./%s for the folder of this name", text, text)
            return cast(Source, resolve(cards[text].load)())
        place, part = split_part(text)
        if place in cards:
            if part not in cards[place].parts:
                raise unknown(f"part of {place}", str(part), cards[place].parts, DataError)
            return cast(Source, resolve(cards[place].load)(part))
        if is_url(place) or Path(place).exists():
            return datasets.open_folder(place, strict=strict, part=part)
        if "/" in text or Path(text).suffix:
            raise DataError(f"{text}: no such folder or archive; the named datasets are {', '.join(cards)}")
        if Path(text).exists():
            raise DataError(f"{text}: is a file; give a folder, an archive or the name of a dataset")
        raise unknown("folder, archive or dataset", text, cards, DataError)

    def load_reference(self, name: str, state_dict: Mapping[str, Tensor], **arguments: Any) -> nn.Module:
        """Loads a published checkpoint into this package's network of the same architecture.

        The module's `forward` takes the inputs of the published network.

        Args:
            name: `system/network`: `cyclegan/resnet_generator`.
            state_dict: the published weights.
            **arguments: arguments of the published constructor that cannot be inferred from the shapes.

        Raises:
            CheckpointError: there is no importer of that name, or a key or shape does not match the network.
        """
        return load_reference(
            self._domain("published network", name).reference.IMPORTERS, name, state_dict, **arguments
        )

    def _domain(self, kind: str, name: str) -> Domain:
        if self.domain is None:
            raise RecipeError(f"`{name}`: naming a {kind} needs a domain; use the function of its package")
        return self.domain

    def _source_of(self, recipe: Recipe, game: type[Game]) -> Source:
        """Opens the data that a recipe names.

        Raises:
            DataError: the recipe names no data, or the data cannot be opened.
        """
        if recipe.data.source is None:
            raise DataError(f"{recipe.system}: the recipe does not name the data; pass them as `data`")
        return self.open_data(recipe.data.source, strict=recipe.data.strict, paired=game.paired)

    def _found_again(
        self, run: Run, recipe: Recipe, data: Data | Where | None, game: type[Game]
    ) -> tuple[Recipe, Source]:
        """Opens the data of a resumed run, which may have moved, and returns the recipe with their new place.

        Args:
            run: the run.
            recipe: its recipe.
            data: new place of the data, or the data; None opens the recipe's.
            game: class of the game.

        Raises:
            DataError: the data cannot be opened, or `data` has other parts or classes than the run.
        """
        before = recipe.data.source
        if data is None:
            try:
                return recipe, self._source_of(recipe, game)
            except DataError as error:
                if before is None:
                    raise
                hint = "if they have moved, resume with `--data PATH` (in Python, `data`)"
                raise DataError(f"{run.path}: its data cannot be opened; {hint}. {error}") from error
        where, source = _named(data)
        if source is not None:
            return recipe, source
        assert where is not None
        if isinstance(before, dict) or isinstance(where, dict):
            parts, given = (sorted(each) if isinstance(each, dict) else ["one place"] for each in (before, where))
            if before is not None and parts != given:
                raise DataError(
                    f"{run.path}: was trained on {', '.join(parts)}, and `data` gives {', '.join(given)}; "
                    "give the same parts"
                )
        recipe = recipe.but({"data.source": where})
        source = self._source_of(recipe, game)
        classes = source.facts.get("classes")
        if recipe.data.classes is not None and list(classes or ()) != list(recipe.data.classes):
            named = f"the classes {', '.join(classes)}" if classes else "no classes"
            raise DataError(
                f"{source.name} has {named}, and {run.path} was trained on {', '.join(recipe.data.classes)}; "
                "give the same data"
            )
        return self._addressed(recipe), source

    def _addressed(self, recipe: Recipe) -> Recipe:
        """Returns a recipe whose data are found from any working directory."""
        return recipe.but({"data.source": self._address(recipe.data.source)})

    def _address(self, where: str | dict[str, str] | None) -> str | dict[str, str] | None:
        """Returns a location of data that is valid in any working directory.

        Paths become absolute. Names of datasets, URLs, Hugging Face datasets and what does not exist are unchanged.
        """
        if isinstance(where, dict):
            return {key: cast(str, self._address(place)) for key, place in where.items()}
        if where is None or self.domain is None or is_hub_dataset(where):
            return where
        text = os.path.expanduser(where)
        place, part = split_part(text)
        names = {card.name for card in self.domain.data.DATASETS}
        if is_url(place) or {text, place} & names or not Path(place).exists():
            return where
        return os.path.abspath(place) + ("" if part is None else f":{part}")


_core = Toolkit()
train, resume, load, evaluate = _core.train, _core.resume, _core.load, _core.evaluate


def train_recipe(
    recipe: Recipe, out: str | Path, *, source: Source | None = None, regime: Regime | None = None, shown: bool = True
) -> Run:
    """Trains the system that a recipe describes.

    Raises:
        RecipeError: the recipe names no system of a domain, or a setting is unknown or out of range.
    """
    domain = _domain_of(recipe)
    chosen = _preset_of(recipe, domain)
    chosen.check(recipe)
    Run(out).check_free()
    toolkit = Toolkit(domain)
    source = source or toolkit._source_of(recipe, chosen.game)
    recipe = chosen.complete(
        toolkit._addressed(recipe), source.facts
    )  # report invalid networks before the data are read
    with on_meta():
        blank = chosen.build(recipe)
    data = _fitted(blank, recipe, source)
    torch.manual_seed(recipe.train.seed)
    return _fit(chosen.build(recipe), recipe, data, out, domain, regime, shown)


def open_recipe(path: Path, domain: Domain) -> Recipe:
    """Reads a recipe file; missing settings come from its system's preset (default: `small`).

    Raises:
        RecipeError: the file is not a recipe of this domain, a key is unknown, or a value is out of range.
    """
    fields = read_yaml(path)
    system, preset, home = fields.get("system"), fields.get("preset") or "small", fields.get("domain", domain.name)
    if home != domain.name:
        raise RecipeError(f"{path}: is a recipe for gan-{home}, not for gan-{domain.name}")
    try:
        if not isinstance(system, str):
            raise RecipeError("`system` is missing; set it")
        recipe = domain.recipe(system, str(preset))
        named = {"regularizers", "adversaries"} & fields.keys()  # a recipe that names these lists all of them
        recipe = recipe.model_copy(update={name: {} for name in named})
        return recipe.but({**fields, "preset": str(preset)})
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def _named(data: Data | Where) -> tuple[str | dict[str, str] | None, Source | None]:
    """Returns the location of data as recorded in a recipe, or the source if the data are passed directly."""
    if isinstance(data, str | Path):
        return str(data), None
    if isinstance(data, Mapping) and data and all(isinstance(value, str | Path) for value in data.values()):
        return {key: str(value) for key, value in data.items()}, None
    return None, as_source(cast(Data, data))


def _fitted(game: Game, recipe: Recipe, source: Source) -> FittedData:
    """Returns a source fitted to a game's specification.

    Raises:
        DataError: the data lack the classes or a key that the game reads, or cannot be converted to its specification.
    """
    require_classes(source, game.num_classes, recipe.data.classes)
    require_keys(source, game.data_keys, recipe.system)
    return FittedData(source, game.spec_with(recipe.data.spec))


def _fit(
    game: Game,
    recipe: Recipe,
    data: FittedData,
    out: str | Path,
    domain: Domain | None,
    regime: Regime | None,
    shown: bool,
) -> Run:
    run = Run(out)
    run.check_free()
    check_players(game, recipe)
    check_whole(game)
    importers = {} if domain is None else domain.reference.IMPORTERS
    recipe = measured(game, start_networks(game, recipe, importers), data)
    regime, recipe = regime_of(recipe, regime)
    trainer = _trainer(game, recipe, data, run, domain, regime, shown)
    with ExitStack() as owning:
        if trainer.processes.first:
            owning.enter_context(run.owned())
            Run.create(out, trainer.recipe)
        trainer.processes.wait()
        _say_what_was_read(data, game, shown=shown and trainer.processes.first)
        try:
            return _finish(trainer, run)
        except BaseException:
            if trainer.step == 0 and trainer.processes.first:  # nothing was learnt: the folder is free again
                run.clear()
            raise


def _say_what_was_read(data: FittedData, game: Game, *, shown: bool) -> None:
    """Prints what the data are and how they are converted."""
    if shown:
        say(f"{data.source.name}: {data.in_words(game.num_classes)}")


def measured(game: Game, recipe: Recipe, data: FittedData) -> Recipe:
    """Returns the recipe with `train.steps` computed from `train.epochs`, the phases and the size of the data."""
    _, steps = lengths(game, recipe, data)
    return recipe.but({"train.steps": steps, "train.epochs": recipe.train.epochs})


def _trainer(
    game: Game, recipe: Recipe, data: FittedData, run: Run, domain: Domain | None, regime: Regime, shown: bool
) -> Trainer:
    write: WriteSamples = write_arrays if domain is None else domain.media.write_samples
    evaluate = None if recipe.train.evaluate_every is None else _evaluator(game, recipe, data, domain)
    return Trainer(game, recipe, data, run, write_samples=write, regime=regime, evaluate=evaluate, shown=shown)


def _evaluator(game: Game, recipe: Recipe, data: FittedData, domain: Domain | None) -> Evaluate:
    """Returns the function that evaluates a game during training, against the training data."""
    if domain is None:
        raise RecipeError("`train.evaluate_every` needs a domain's metrics; use the `train` of its package")
    settings = recipe.train
    evaluation = Evaluation(domain.metrics, data, game, metrics=settings.metrics, count=settings.evaluate)

    def measured(game: Game) -> dict[str, Any]:
        figures, protocols = evaluation.measure(game)
        return log_line(figures, protocols, evaluation.scales(figures))

    return measured


def _record(run: Run, figures: Figures) -> None:
    """Adds figures to a run and its report, if the folder can be written."""
    try:
        run.append_evaluation(figures)
        write_report(run.path)
    except GanError as error:
        logger.warning("the figures are not added to the run's report: %s", error)


def _finish(trainer: Trainer, run: Run) -> Run:
    """Trains, loads the averaged weights into the game, and writes the model and the report."""
    trainer.game.recipe = trainer.recipe
    try:
        run.interrupted, run.ended = trainer.fit(), trainer.ended
    except NonFiniteError:
        if trainer.recovered:
            _round_off(trainer, run)
        elif trainer.processes.first:
            write_report(run.path)
        raise
    except ReaderLost:
        _round_off(trainer, run)
        raise
    _round_off(trainer, run)
    return run


def _round_off(trainer: Trainer, run: Run) -> None:
    if trainer.average is not None:
        trainer.average.swap()
    trainer.game.eval()
    if trainer.processes.first:
        write_report(run.path)
        trainer.game.save_pretrained(run.model)  # last: see `Run.is_rounded_off`
        run.tidy()
    trainer.processes.wait()


def write_arrays(samples: dict[str, Tensor], stem: Path, *, columns: int | None, game: Game) -> Path:
    """Writes samples as a `.npz` file, for games without a domain."""
    import numpy as np

    path = stem.with_suffix(".npz")
    np.savez(path, **{key: value.cpu().numpy() for key, value in samples.items()})  # type: ignore[arg-type]
    return path


def _rules(recipe: Recipe) -> tuple[Any, ...]:
    return recipe.network, recipe.game, recipe.objective, recipe.regularizers, recipe.adversaries


def _domain_of(recipe: Recipe, where: object = "the recipe", only: Domain | None = None) -> Domain:
    """Returns the domain that a recipe names; if `only` is given, the domain must be `only`."""
    if recipe.domain is None:
        raise RecipeError(f"{where}: has no `domain`; a game built by hand is trained from Python")
    if only is not None and recipe.domain != only.name:
        raise CheckpointError(f"{where}: is a system of gan-{recipe.domain} ({recipe.system}), not of gan-{only.name}")
    return only or find_domain(recipe.domain)


def _preset_of(recipe: Recipe, domain: Domain) -> Preset:
    if recipe.preset is None and recipe.system not in domain.systems:
        raise RecipeError(
            f"{recipe.system} is a game of your own: build it in Python, then continue its training with "
            "`gan_core.resume(run, game=game)`, or load its weights with `game.restore(run)` to use, measure or "
            "export it (`gan_core.models.export.export_onnx`)"
        )
    return domain.preset(recipe.system, recipe.preset or "small")
