"""What users call: create, train, resume, load, evaluate. The command line and every domain package go through here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gan_core.data import Source, TensorSource
from gan_core.domain import Domain, MetricCard, find_domain
from gan_core.errors import CheckpointError, DataError, InputError, RecipeError, unknown
from gan_core.game import Game
from gan_core.model import local_folder, read_config
from gan_core.recipe import Recipe, TrainSettings, parse
from gan_core.run import Run
from gan_core.trainer import Trainer, WriteSamples


def create(domain: Domain, system: str, *, preset: str = "small", **network: Any) -> Game:
    """A game with a preset's networks; see `Domain.create`."""
    chosen = domain.preset(system, preset)
    return chosen.build(chosen.recipe(domain=domain.name, system=system, preset=preset).but({"network": network}))


def open_data(domain: Domain | None, text: str | Path, *, strict: bool = False) -> Source:
    """A named data set of a domain, or a folder or archive of its files.

    Raises:
        DataError: there is neither a data set nor a path of that name, or nothing usable in it.
    """
    if domain is None:
        raise DataError(f"`{text}`: naming data needs a domain; use its package's `train`, or give tensors")
    module = domain.module("data")
    for card in module.DATASETS:
        if card.name == str(text):
            return cast(Source, resolve(card.load)())
    if Path(text).exists():
        return cast(Source, module.open_folder(Path(text), strict=strict))
    names = [card.name for card in module.DATASETS]
    if "/" in str(text) or Path(text).suffix:
        raise DataError(f"{text}: no such folder or archive; the named data sets are {', '.join(names)}")
    raise unknown("data set", str(text), names, DataError)


def resolve(dotted: str) -> Any:
    """What a dotted path `module:name` in a card names."""
    from importlib import import_module

    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)


def train(
    game: Game | str, *, data: Source | Mapping[str, Tensor] | str | Path, out: str | Path,
    domain: Domain | None = None, preset: str = "small", changes: Mapping[str, Any] | None = None, shown: bool = True,
    **settings: Any,
) -> Run:  # fmt: skip
    """Trains a game into a run folder. Afterwards the game makes samples with the averaged weights.

    Args:
        game: a game, or the name of one of the domain's systems.
        data: a data set's name, a folder or archive, a source, or tensors by key.
        out: the run folder; new or empty.
        domain: whose data sets, media and metrics are used.
        preset: of a system given by name.
        changes: to the recipe, by dotted key: `{"optimizer.learning_rate": 1e-4}`.
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
        recipe = domain.preset(game, preset).recipe(domain=domain.name, system=game, preset=preset)
    else:
        recipe = game.recipe or Recipe(domain=domain.name if domain else None, system=type(game).__name__)
    for name in settings:
        if name not in TrainSettings.model_fields:
            raise unknown("training setting", name, TrainSettings.model_fields)
    recipe = recipe.but({f"train.{name}": value for name, value in settings.items()} | dict(changes or {}))
    if isinstance(data, str | Path):
        recipe = recipe.but({"data.source": str(data)})
    source = data if isinstance(data, Source) else TensorSource(data) if isinstance(data, Mapping) else None
    if isinstance(game, str):
        return train_recipe(recipe, out, source=source, shown=shown)
    if changes and game.recipe is not None and _rules(recipe) != _rules(game.recipe):
        raise RecipeError("`changes` name what the game is built from; create it with them, or give its system's name")
    return _fit(game, recipe, source or _source_of(recipe, domain), out, domain, shown)


def train_recipe(recipe: Recipe, out: str | Path, *, source: Source | None = None, shown: bool = True) -> Run:
    """Trains the system that a recipe describes.

    Raises:
        RecipeError: the recipe names no system of a domain, or a setting is unknown or out of range.
    """
    domain = _domain_of(recipe)
    chosen = domain.preset(recipe.system, recipe.preset or "small")
    chosen.check(recipe)
    Run(out).check_free()
    source = source or _source_of(recipe, domain)
    recipe = chosen.complete(recipe, source.facts)
    source.fit(**recipe.network)
    torch.manual_seed(recipe.train.seed)
    return _fit(chosen.build(recipe), recipe, source, out, domain, shown)


def resume(
    path: str | Path, *, steps: int | None = None, game: Game | None = None,
    data: Source | Mapping[str, Tensor] | None = None, shown: bool = True,
) -> Run:  # fmt: skip
    """Goes on with a run from its newest checkpoint that is whole.

    Args:
        path: the run folder.
        steps: in all, if it shall be another number than before; the last phase is made longer.
        game: built as it was, where it was put together by hand.
        data: where the run did not name its data.
        shown: whether progress is shown on standard error.

    Raises:
        CheckpointError: it is no run, or has no whole checkpoint.
        RecipeError: it is finished already.
    """
    run = Run.open(path)
    recipe = run.recipe if steps is None else run.recipe.but({"train.steps": steps})
    domain = None if recipe.domain is None else find_domain(recipe.domain)
    if game is None:
        game = _domain_of(recipe).preset(recipe.system, recipe.preset or "small").build(recipe)
    source = TensorSource(data) if isinstance(data, Mapping) else data or _source_of(recipe, domain)
    trainer = _trainer(game, recipe, source, run, domain, shown)
    run.problems = trainer.restore()
    if trainer.step >= recipe.train.steps:
        raise RecipeError(f"{run.path}: is finished at step {trainer.step}; give a larger `--steps` to train on")
    run.write_recipe(recipe)
    return _finish(trainer, run)


def load(path: str | Path, *, domain: Domain | None = None) -> Game:
    """The game of a run folder, a model folder or a hub repository id; see `Domain.load`."""
    folder = local_folder(path)
    fields = read_config(folder)["recipe"]
    if fields is None:
        raise CheckpointError(f"{path}: its game was put together by hand; build it again, then `game.restore(path)`")
    recipe = parse(fields)
    home = _domain_of(recipe, path)
    if domain is not None and home.name != domain.name:
        raise CheckpointError(f"{path}: is a system of gan-{home.name} ({recipe.system}), not of gan-{domain.name}")
    return home.preset(recipe.system, recipe.preset or "small").build(recipe).restore(folder)


def evaluate(
    path: str | Path, *, data: str | Path, metrics: list[str] | None = None, count: int = 1000, seed: int = 0,
    domain: Domain | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measures generated samples against data.

    Args:
        path: a run, a model folder or a hub repository id.
        data: a data set's name, a folder or archive.
        metrics: by name; None takes all that fit the data.
        count: samples that are generated.
        seed: of the samples.
        domain: whose metrics are used; None is the model's own.

    Returns:
        Figures by metric, and how they were obtained.

    Raises:
        InputError: a metric is unknown, or does not fit the data.
    """
    game = load(path, domain=domain)
    assert game.recipe is not None
    home = _domain_of(game.recipe)
    source = open_data(home, data)
    cards: dict[str, MetricCard] = {card.name: card for card in home.module("metrics").METRICS}
    for name in metrics or ():
        if name not in cards:
            raise unknown("metric", name, cards, InputError)
    fitting = [name for name, card in cards.items() if set(card.needs) <= set(source.facts)]
    chosen = metrics or fitting
    for name in chosen:
        if name not in fitting:
            raise InputError(f"the metric `{name}` needs data with {' and '.join(cards[name].needs)}; {data} has none")
    samples = game.generate(count, seed=seed)
    reference = source.fit(**game.recipe.network)
    figures = {name: resolve(cards[name].measure)(samples, reference, source.facts) for name in chosen}
    return {"model": str(path), "data": str(data), "samples": count, "seed": seed, "metrics": figures}


def _fit(game: Game, recipe: Recipe, source: Source, out: str | Path, domain: Domain | None, shown: bool) -> Run:
    run = Run(out)
    run.check_free()
    trainer = _trainer(game, recipe, source, run, domain, shown)
    if trainer.processes.first:
        Run.create(out, recipe)
    trainer.processes.wait()
    return _finish(trainer, run)


def _trainer(game: Game, recipe: Recipe, source: Source, run: Run, domain: Domain | None, shown: bool) -> Trainer:
    write: WriteSamples = write_arrays if domain is None else domain.module("media").write_samples
    return Trainer(game, recipe, source, run, write_samples=write, shown=shown)


def _finish(trainer: Trainer, run: Run) -> Run:
    """Trains, then leaves the averaged weights in the game and the model and the report in the run."""
    run.interrupted = trainer.fit()
    if trainer.average is not None:
        trainer.average.swap()
    trainer.game.eval().requires_grad_(True)
    if trainer.game.recipe is not None:
        trainer.game.recipe = trainer.recipe
    if trainer.processes.first:
        trainer.game.save_pretrained(run.model)
        run.report()
    trainer.processes.wait()
    return run


def write_arrays(samples: dict[str, Tensor], stem: Path, *, columns: int | None) -> Path:
    """Samples where there is no domain to show them: a `.npz` of arrays."""
    import numpy as np

    path = stem.with_suffix(".npz")
    np.savez(path, **{key: value.cpu().numpy() for key, value in samples.items()})  # type: ignore[arg-type]
    return path


def _rules(recipe: Recipe) -> tuple[Any, ...]:
    return recipe.network, recipe.game, recipe.objective, recipe.regularizers


def _domain_of(recipe: Recipe, where: object = "the recipe") -> Domain:
    if recipe.domain is None:
        raise RecipeError(f"{where}: names no `domain`; a game put together by hand is trained from Python")
    return find_domain(recipe.domain)


def _source_of(recipe: Recipe, domain: Domain | None) -> Source:
    if recipe.data.source is None:
        raise DataError(f"{recipe.system}: the data were not named; give them again as `data`")
    return open_data(domain, recipe.data.source, strict=recipe.data.strict)
