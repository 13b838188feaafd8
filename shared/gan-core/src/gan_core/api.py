"""What users call: create, train, resume, load, evaluate. The command line and every domain package go through here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gan_core.data import Data, FittedData, Paired, Source, Unpaired, as_source, require_classes, require_keys
from gan_core.domain import Domain, find_domain, resolve
from gan_core.errors import CheckpointError, DataError, InputError, NonFiniteError, RecipeError, unknown
from gan_core.evaluation import Evaluation, log_line, protocol_id
from gan_core.files import is_url, split_part
from gan_core.game import Game
from gan_core.hub_data import is_hub_dataset
from gan_core.model import local_folder, read_config, read_weights
from gan_core.preset import Preset, check_players, completed, on_meta
from gan_core.recipe import Recipe, TrainSettings, parse, read_yaml
from gan_core.regime import Regime, regime_of
from gan_core.run import Run
from gan_core.schedule import lengths
from gan_core.start import check_whole, start_networks
from gan_core.trainer import Evaluate, Trainer, WriteSamples

Where = str | Path | Mapping[str, str | Path]
"""Where data are: a named dataset, a folder or archive, or one of them for each part of an item."""

CHANGEABLE = ("optimizer", "players", "train")
"""The parts of a recipe that a run may go on with other values of; the others say what its checkpoints hold."""


def create(domain: Domain, system: str, *, preset: str = "small", **network: Any) -> Game:
    """A game with a preset's networks; see `Domain.create`."""
    chosen = domain.preset(system, preset)
    return chosen.build(chosen.recipe(domain=domain.name, system=system, preset=preset).but({"network": network}))


def open_data(domain: Domain | None, where: Where, *, strict: bool = False, paired: bool = True) -> Source:
    """Opens a named dataset of a domain, or a folder or archive of its files.

    Args:
        domain: whose datasets and files.
        where: `NAME`, `NAME:PART` (`mnist:test`), a path or URL (`s3://bucket/set.zip`), `PATH:PART`, where the part
            is a sub-folder (`fruits:test`) or, of pictures that show two images side by side, `left` or `right`; or a
            Hugging Face dataset, `hf:OWNER/NAME:SPLIT`. A mapping names a place for each part of an item:
            `{"source": "nuclei:masks", "target": "nuclei:images"}`.
        strict: whether a file that cannot be read is an error.
        paired: whether the parts of a mapping belong together; otherwise they are sets without pairs.

    Raises:
        DataError: there is neither a dataset nor a path of that name, or nothing usable in it.
    """
    if domain is None:
        raise DataError(f"`{where}`: naming data needs a domain; use its package's `train`, or give tensors")
    if isinstance(where, Mapping):
        if reserved := where.keys() & {"name", "strict", "self"}:
            raise DataError(f"`{min(reserved)}` cannot be the name of a part; use a key that the system reads")
        parts: dict[str, Any] = {key: open_data(domain, place, strict=strict) for key, place in where.items()}
        return Paired(strict=strict, **parts) if paired else Unpaired(**parts)
    module, text = domain.module("data"), str(where)
    if is_hub_dataset(text):
        return cast(Source, module.open_folder(text, strict=strict))
    cards = {card.name: card for card in module.DATASETS}
    if text in cards:
        return cast(Source, resolve(cards[text].load)())
    place, part = split_part(text)
    if place in cards:
        if part not in cards[place].parts:
            raise unknown(f"part of {place}", str(part), cards[place].parts, DataError)
        return cast(Source, resolve(cards[place].load)(part))
    if is_url(place) or Path(place).exists():
        return cast(Source, module.open_folder(place, strict=strict, part=part))
    if "/" in text or Path(text).suffix:
        raise DataError(f"{text}: no such folder or archive; the named datasets are {', '.join(cards)}")
    raise unknown("dataset", text, cards, DataError)


def train(
    game: Game | str, *, data: Data | Where, out: str | Path,
    domain: Domain | None = None, preset: str | None = None, start: Mapping[str, str | Path] | None = None,
    changes: Mapping[str, Any] | None = None, regime: Regime | None = None, shown: bool = True, **settings: Any,
) -> Run:  # fmt: skip
    """Trains a game into a run folder. Afterwards the game makes samples with the averaged weights.

    Args:
        game: a game, or the name of one of the domain's systems.
        data: a dataset's name, a folder or archive, one of them for each part of an item, a source, or tensors by key.
        out: the run folder; new or empty.
        domain: whose data sets, media and metrics are used.
        preset: of a system given by name; None is `small`.
        start: weights with which networks start, by the network's name; see `gan_core.recipe.Start`.
        changes: to the recipe, by dotted key: `{"optimizer.learning_rate": 1e-4}`.
        regime: training regime that was built in Python; None takes the recipe's.
        shown: whether progress is shown on standard error.
        **settings: of the training: `steps`, `batch_size`, `seed`, `ema` … (`gan_core.recipe.TrainSettings`).

    Raises:
        RecipeError: a setting is unknown or out of range.
        DataError: the data are missing or do not fit.
        InputError: `out` is in use or cannot be written.
    """
    if isinstance(game, str):
        if domain is None:
            raise RecipeError(f"`{game}`: naming a system needs a domain; use its package's `train`")
        preset = preset or "small"
        recipe = domain.preset(game, preset).recipe(domain=domain.name, system=game, preset=preset)
    elif preset is not None:
        raise RecipeError(f"`preset` is {preset}, and this game is made already; give its system's name instead")
    else:
        recipe = game.recipe or Recipe(domain=domain.name if domain else None, system=type(game).__name__)
        recipe = recipe.model_copy(update={"start": {}})  # the game has its weights already
    rules = _rules(recipe)
    for name in settings:
        if name not in TrainSettings.model_fields:
            raise unknown("training setting", name, TrainSettings.model_fields)
    recipe = recipe.but({f"train.{name}": value for name, value in settings.items()} | dict(changes or {}))
    recipe = recipe.but({"start": {name: str(weights) for name, weights in (start or {}).items()}})
    where, source = _named(data)
    recipe = recipe.but({"data.source": where})
    if isinstance(game, str):
        return train_recipe(recipe, out, source=source, regime=regime, shown=shown)
    if _rules(recipe) != rules:
        raise RecipeError("`changes` name what the game is built from; create it with them, or give its system's name")
    Run(out).check_free()
    source = source or _source_of(recipe, domain, type(game))
    recipe = completed(game, recipe, source.facts)
    return _fit(game, recipe, _fitted(game, recipe, source), out, domain, regime, shown)


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
    source = source or _source_of(recipe, domain, chosen.game)
    recipe = chosen.complete(recipe, source.facts)  # networks that cannot be built are refused before the data are read
    with on_meta():
        blank = chosen.build(recipe)
    data = _fitted(blank, recipe, source)
    torch.manual_seed(recipe.train.seed)
    return _fit(chosen.build(recipe), recipe, data, out, domain, regime, shown)


def open_recipe(path: Path, domain: Domain) -> Recipe:
    """The recipe in a file; what it leaves out is as its system's preset has it (`small`, if it names none).

    Raises:
        RecipeError: it is no recipe, or of another domain, or a key is unknown or a value is out of range.
    """
    fields = read_yaml(path)
    system, preset, home = fields.get("system"), fields.get("preset") or "small", fields.get("domain", domain.name)
    if home != domain.name:
        raise RecipeError(f"{path}: is a recipe of gan-{home}, not of gan-{domain.name}")
    try:
        if not isinstance(system, str):
            raise RecipeError("`system` is missing; give it a value")
        recipe = domain.preset(system, str(preset)).recipe(domain=domain.name, system=system, preset=str(preset))
        named = {"regularizers", "adversaries"} & fields.keys()  # those that it names are all
        recipe = recipe.model_copy(update={name: {} for name in named})
        return recipe.but({**fields, "preset": str(preset)})
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def resume(
    path: str | Path, *, steps: int | None = None, samples: int | None = None, minutes: float | None = None,
    changes: Mapping[str, Any] | None = None, game: Game | None = None, data: Data | Where | None = None,
    domain: Domain | None = None, regime: Regime | None = None, shown: bool = True,
) -> Run:  # fmt: skip
    """Goes on with a run from its newest checkpoint that is whole and finite.

    Args:
        path: the run folder.
        steps: in all, if it shall be another number than before; the last phase is made longer.
        samples: in all, likewise.
        minutes: in all, likewise.
        changes: to the recipe, by dotted key: of `optimizer`, `players` and `train` alone.
        game: built as it was, where it was put together by hand.
        data: where the run did not name its data.
        domain: that the run must be of; None is any.
        regime: the training regime, where it was built in Python.
        shown: whether progress is shown on standard error.

    Raises:
        CheckpointError: it is no run, of another domain, or has no whole checkpoint.
        RecipeError: it is finished already, or a change is unknown, out of range, or to what the run is made of.
    """
    run = Run.open(path)
    for key in changes or ():
        if key.partition(".")[0] not in CHANGEABLE:
            raise RecipeError(f"`{key}` is what the run is made of; train anew with it, from {run.recipe_file}")
    limits = {"train.steps": steps, "train.samples": samples, "train.minutes": minutes}
    recipe = run.recipe.but({key: value for key, value in limits.items() if value is not None} | dict(changes or {}))
    home = _domain_of(recipe, path, domain) if recipe.domain is not None or game is None else None
    if game is None:
        assert home is not None
        game = _preset_of(recipe, home).build(recipe)
    else:
        check_players(game, recipe)
    where, source = _named(data) if data is not None else (recipe.data.source, None)
    source = source or _source_of(recipe.but({"data.source": where}), home, type(game))
    fitted = _fitted(game, recipe, source)
    if recipe.train.epochs != run.recipe.train.epochs:
        recipe = measured(game, recipe, fitted)
    regime, recipe = regime_of(recipe, regime)
    trainer = _trainer(game, recipe, fitted, run, home, regime, shown)
    run.problems = trainer.restore()
    finished = trainer.finished()
    if finished and run.is_rounded_off():
        limit = "steps" if trainer.step >= recipe.train.steps else "minutes (or samples)"
        trainer.release()
        reason = trainer.ended or f"give more {limit} to train on"
        raise RecipeError(f"{run.path}: is finished at step {trainer.step}; {reason}")
    if not finished:
        trainer.rewind()
    if trainer.processes.first:
        run.write_recipe(recipe)
    return _finish(trainer, run)


def load(path: str | Path, *, domain: Domain | None = None) -> Game:
    """The game of a run folder, a model folder or a hub repository id, in evaluation mode; see `Domain.load`."""
    folder = local_folder(path)
    fields = read_config(folder).recipe
    if fields is None or fields.get("domain") is None:
        raise CheckpointError(
            f"{path}: its game was built without a recipe; build it again, then call `game.restore(path)`"
        )
    try:
        recipe = parse(fields)
        chosen = _preset_of(recipe, _domain_of(recipe, path, domain))
        with on_meta():
            blank = chosen.build(recipe)
    except RecipeError as error:
        raise CheckpointError(f"{path}: cannot be built as its recipe says: {error}") from error
    weights = read_weights(folder)
    with on_meta():
        weights.enter_phase(blank)
    weights.check_sizes(blank)
    game = chosen.build(recipe, absent=weights.absent(chosen.networks))
    weights.put_into(game)
    return game.eval()


def evaluate(
    model: Game | str | Path, *, data: Data | Where, metrics: list[str] | None = None, count: int = 1000,
    seed: int = 0, extractor: str | None = None, weights: str | Path | None = None, keep: str | Path | None = None,
    domain: Domain | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measures a model's samples, or the results of its `apply`, against data.

    Args:
        model: a run, a model folder or a hub repository id; or a game.
        data: a dataset's name, a folder or archive, one of them for each part of an item, a source, or tensors by key.
        metrics: by name; None takes all that fit the data.
        count: samples that are generated.
        seed: of the samples.
        extractor: whose features are compared, `NAME` or `NAME:ARGUMENT`; None takes the domain's embedded one.
        weights: a file of the extractor's weights.
        keep: a folder where features are kept, so that an interrupted evaluation goes on.
        domain: whose metrics are used; None is the model's own. A game that was built by hand needs one.

    Returns:
        Figures by metric (`metrics`), the id of each metric's protocol (`protocol`), and what the ids stand for
        (`protocols`). Figures of different ids are not to be compared.

    Raises:
        InputError: a metric or an extractor is unknown, or does not fit the data; or no domain is known.
        CheckpointError: the extractor's weights cannot be had.
    """
    game = model if isinstance(model, Game) else load(model, domain=domain)
    recipe = game.recipe or Recipe(domain=None if domain is None else domain.name, system=game.title)
    if recipe.domain is None:
        raise InputError(f"measuring {game.title} needs a domain's metrics; use its package's `evaluate`")
    home = _domain_of(recipe)
    where, source = _named(data)
    source = source or open_data(home, cast(Where, where), paired=game.paired)
    evaluation = Evaluation(
        home, _fitted(game, recipe, source), game, metrics=metrics, count=count, seed=seed, extractor=extractor,
        weights=None if weights is None else Path(weights), keep=None if keep is None else Path(keep),
    )  # fmt: skip
    figures, protocols = evaluation.measure(game)
    ids = {name: protocol_id(protocol) for name, protocol in protocols.items()}
    return {
        "model": game.title if isinstance(model, Game) else str(model), "data": source.name, "samples": count,
        "seed": seed, "metrics": figures, "protocol": ids,
        "protocols": {ids[name]: protocol for name, protocol in protocols.items()},
    }  # fmt: skip


def _named(data: Data | Where) -> tuple[str | dict[str, str] | None, Source | None]:
    """Returns where data are, as a recipe says it, or the source of data that are given themselves."""
    if isinstance(data, str | Path):
        return str(data), None
    if isinstance(data, Mapping) and data and all(isinstance(value, str | Path) for value in data.values()):
        return {key: str(value) for key, value in data.items()}, None
    return None, as_source(cast(Data, data))


def _fitted(game: Game, recipe: Recipe, source: Source) -> FittedData:
    """Returns a source fitted to what a game needs.

    Raises:
        DataError: the data lack the classes or a key that the game reads, or cannot be brought to its specification.
    """
    require_classes(source, game.num_classes, recipe.data.classes)
    require_keys(source, game.data_keys, recipe.system)
    return FittedData(source, game.spec_with(recipe.data.spec))


def _fit(
    game: Game, recipe: Recipe, data: FittedData, out: str | Path, domain: Domain | None, regime: Regime | None,
    shown: bool,
) -> Run:  # fmt: skip
    run = Run(out)
    run.check_free()
    check_players(game, recipe)
    check_whole(game)
    recipe = measured(game, start_networks(game, recipe, domain), data)
    regime, recipe = regime_of(recipe, regime)
    trainer = _trainer(game, recipe, data, run, domain, regime, shown)
    if trainer.processes.first:
        Run.create(out, trainer.recipe)
    trainer.processes.wait()
    try:
        return _finish(trainer, run)
    except Exception:
        if trainer.step == 0 and trainer.processes.first:  # nothing was trained, and the folder can be used again
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def measured(game: Game, recipe: Recipe, data: FittedData) -> Recipe:
    """Returns the recipe with the number of steps that `train.epochs` and the game's phases make with these data."""
    _, steps = lengths(game, recipe, data)
    return recipe.but({"train.steps": steps, "train.epochs": recipe.train.epochs})


def _trainer(
    game: Game, recipe: Recipe, data: FittedData, run: Run, domain: Domain | None, regime: Regime, shown: bool
) -> Trainer:
    write: WriteSamples = write_arrays if domain is None else domain.module("media").write_samples
    evaluate = None if recipe.train.evaluate_every is None else _evaluator(game, recipe, data, domain)
    return Trainer(game, recipe, data, run, write_samples=write, regime=regime, evaluate=evaluate, shown=shown)


def _evaluator(game: Game, recipe: Recipe, data: FittedData, domain: Domain | None) -> Evaluate:
    """What measures a game during its training, against the training's data."""
    if domain is None:
        raise RecipeError("`train.evaluate_every` needs a domain's metrics; train with its package's `train`")
    settings = recipe.train
    evaluation = Evaluation(domain, data, game, metrics=settings.metrics, count=settings.evaluate)
    return lambda game: log_line(*evaluation.measure(game))


def _finish(trainer: Trainer, run: Run) -> Run:
    """Trains, then leaves the averaged weights in the game and the model and the report in the run."""
    trainer.game.recipe = trainer.recipe
    try:
        run.interrupted, run.ended = trainer.fit(), trainer.ended
    except NonFiniteError:
        if trainer.recovered:
            _round_off(trainer, run)
        elif trainer.processes.first:
            run.report()
        raise
    _round_off(trainer, run)
    return run


def _round_off(trainer: Trainer, run: Run) -> None:
    if trainer.average is not None:
        trainer.average.swap()
    trainer.game.eval()
    if trainer.processes.first:
        trainer.game.save_pretrained(run.model)
        run.report()
        run.tidy()
    trainer.processes.wait()


def write_arrays(samples: dict[str, Tensor], stem: Path, *, columns: int | None, game: Game) -> Path:
    """Samples where there is no domain to show them: a `.npz` of arrays."""
    import numpy as np

    path = stem.with_suffix(".npz")
    np.savez(path, **{key: value.cpu().numpy() for key, value in samples.items()})  # type: ignore[arg-type]
    return path


def _rules(recipe: Recipe) -> tuple[Any, ...]:
    return recipe.network, recipe.game, recipe.objective, recipe.regularizers, recipe.adversaries


def _domain_of(recipe: Recipe, where: object = "the recipe", only: Domain | None = None) -> Domain:
    """The domain that a recipe names, which must be `only`, if that is given."""
    if recipe.domain is None:
        raise RecipeError(f"{where}: names no `domain`; a game put together by hand is trained from Python")
    if only is not None and recipe.domain != only.name:
        raise CheckpointError(f"{where}: is a system of gan-{recipe.domain} ({recipe.system}), not of gan-{only.name}")
    return only or find_domain(recipe.domain)


def _preset_of(recipe: Recipe, domain: Domain) -> Preset:
    if recipe.preset is None and recipe.system not in domain.systems:
        raise RecipeError(
            f"{recipe.system} is a game of your own: build it, then `gan_core.resume(run, game=game)` goes on with its "
            "training, and `game.restore(run)` loads its weights"
        )
    return domain.preset(recipe.system, recipe.preset or "small")


def _source_of(recipe: Recipe, domain: Domain | None, game: type[Game]) -> Source:
    if recipe.data.source is None:
        raise DataError(f"{recipe.system}: the data were not named; give them again as `data`")
    return open_data(domain, recipe.data.source, strict=recipe.data.strict, paired=game.paired)
