"""Commands that every domain has."""

from __future__ import annotations

import itertools
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

from gan_core.cli.answer import Answer, Commands
from gan_core.cli.options import (
    ARGUMENT_HELP,
    BATCH_SIZE_HELP,
    DATA_HELP,
    DEVICE_HELP,
    EXTRACTOR_HELP,
    KEEP_HELP,
    METRICS_HELP,
    MODEL_HELP,
    PRECISION_HELP,
    PRESET_HELP,
    RECIPE_HELP,
    SEED_HELP,
    START_HELP,
    STRICT_HELP,
    SYSTEM_HELP,
    Preset,
    Seed,
    Set,
    asked_of,
    read_data,
    read_settings,
    read_starts,
)
from gan_core.domain import Domain
from gan_core.errors import InputError, say, unknown
from gan_core.tables import table

if TYPE_CHECKING:
    from gan_core.models.reference import Published
    from gan_core.play.game import Game
    from gan_core.recipe import Recipe
    from gan_core.runs.run import Run


def commands(domain: Domain) -> Commands:
    """Returns the commands of a domain by name: those that all domains have, and the domain's own tasks."""
    common: dict[str, Callable[..., Answer | None]] = {
        "systems": lambda: systems(domain),
        "data": lambda: data_sets(domain),
        "show": show_recipe_command(domain),
        "train": train_command(domain),
        "resume": resume_command(domain),
        "generate": generate_command(domain),
        "evaluate": evaluate_command(domain),
        "report": report_command,
        "import": import_command(domain),
        "export": export_command(domain),
        "demo": demo_command(domain),
        "doctor": doctor_command,
    }
    helps = {"systems": "Lists the systems that can be trained.", "data": "Lists the named datasets."}
    for name, text in helps.items():
        common[name].__doc__ = text
    return {**common, **(domain.tasks.COMMANDS if domain.cards else {})}


def systems(domain: Domain) -> Answer:
    """Returns the table of systems."""
    names = ("name", "year", "task", "paper", "title")
    document = [{name: getattr(card, name) for name in names} for card in domain.cards]
    if not document:
        return Answer(document, notes=[f"gan-{domain.name} has no systems yet"])
    return Answer(document, _listing(names, document))


def data_sets(domain: Domain) -> Answer:
    """Returns the table of named datasets."""
    names = ("name", "origin", "items", "title")
    cards = domain.data.DATASETS if domain.cards else ()
    document = [{name: getattr(card, name) for name in names} for card in cards]
    notes = [] if document else [f"gan-{domain.name} has no named datasets yet"]
    rows = [entry | {"title": f"{entry['title']}: {entry['items']}"} for entry in document]
    return Answer(document, _listing(("name", "origin", "title"), rows) if document else "", notes)


def _listing(names: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> str:
    """Returns a table that fits the terminal, or 80 columns if the output is not a terminal."""
    return table([names, *([row[name] for name in names] for row in rows)], width=shutil.get_terminal_size().columns)


def show_recipe_command(domain: Domain) -> Callable[..., Answer]:
    """Returns the command `show` of a domain."""

    def show_recipe(
        system: Annotated[str, typer.Argument(help=SYSTEM_HELP)], preset: Preset = "small", set_: Set = None
    ) -> Answer:
        """Shows a system's recipe and its parameter counts."""
        from gan_core.models.card import parameter_counts
        from gan_core.play.preset import on_meta

        chosen = domain.preset(system, preset)
        recipe = domain.recipe(system, preset).but(read_settings(set_))
        recipe = chosen.complete(recipe)
        with on_meta():
            counts = parameter_counts(chosen.build(recipe))
        lines = [f"# {name}: {count:,} parameters" for name, count in counts.items()]
        text = "\n".join([f"# {domain.card(system).title} ({chosen.paper})", *lines, recipe.to_yaml().rstrip()])
        return Answer({"recipe": recipe.model_dump(mode="json"), "parameters": counts}, text)

    return show_recipe


def train_command(domain: Domain) -> Callable[..., Answer]:
    """Returns the command `train` of a domain."""

    def train(
        system: Annotated[str | None, typer.Argument(help=f"{SYSTEM_HELP} Omit it with --recipe.")] = None,
        data: Annotated[
            list[str] | None,
            typer.Option(metavar="[KEY=]NAME|PATH", help=f"{DATA_HELP} Default: the system's embedded dataset."),
        ] = None,
        out: Annotated[Path | None, typer.Option(metavar="RUN", help="Run folder; new or empty.")] = None,
        steps: Annotated[int | None, typer.Option(metavar="N", help="Number of steps.")] = None,
        batch_size: Annotated[int | None, typer.Option(metavar="N", help=BATCH_SIZE_HELP)] = None,
        seed: Annotated[int | None, typer.Option(metavar="N", help=SEED_HELP)] = None,
        preset: Annotated[str | None, typer.Option(metavar="NAME", help=PRESET_HELP)] = None,
        start: Annotated[list[str] | None, typer.Option(metavar="NETWORK=WHERE", help=START_HELP)] = None,
        set_: Set = None,
        recipe: Annotated[Path | None, typer.Option(metavar="FILE", help=RECIPE_HELP)] = None,
        device: Annotated[str | None, typer.Option(metavar="NAME", help=DEVICE_HELP)] = None,
        precision: Annotated[str | None, typer.Option(metavar="NAME", help=PRECISION_HELP)] = None,
        compile: Annotated[bool | None, typer.Option("--compile", help="Compile the networks.")] = None,
        strict: Annotated[bool | None, typer.Option("--strict", help=STRICT_HELP)] = None,
    ) -> Answer:
        """Trains a system and writes a run folder.

        Settings that are not given are those of the preset; `show SYSTEM` lists them.
        """
        if out is None:
            raise InputError("`--out` is missing: name the run folder, for example --out runs/first")
        chosen = starting_recipe(domain, system, preset, recipe)
        given = {
            "data.source": read_data(data),
            "train.steps": steps,
            "train.batch_size": batch_size,
            "train.seed": seed,
            "train.device": device,
            "train.precision": precision,
            "train.compile": compile,
            "data.strict": strict,
        }
        chosen = chosen.but({key: value for key, value in given.items() if value is not None} | read_settings(set_))
        chosen = chosen.but({"start": read_starts(start)})
        if chosen.data.source is None:
            chosen = chosen.but({"data.source": domain.card(chosen.system).data})
        from gan_core.api import train_recipe

        return trained(domain, train_recipe(chosen, out))

    return train


def starting_recipe(domain: Domain, system: str | None, preset: str | None, file: Path | None) -> Recipe:
    """Returns the recipe of a preset or a file, before the other options are applied."""
    if file is not None:
        from gan_core.api import open_recipe

        recipe = open_recipe(file, domain)
        if system not in (None, recipe.system) or preset not in (None, recipe.preset):
            raise InputError(f"{file}: is a recipe for {recipe.system} ({recipe.preset}); omit SYSTEM and --preset")
        return recipe
    if system is None:
        raise InputError(f"SYSTEM is missing: name a system (see `gan-{domain.name} systems`), or give `--recipe`")
    return domain.recipe(system, preset or "small")


def resume_command(domain: Domain) -> Callable[..., Answer]:
    """Returns the command `resume` of a domain."""

    def resume(
        run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
        steps: Annotated[int | None, typer.Option(metavar="N", help="New total number of steps.")] = None,
        samples: Annotated[int | None, typer.Option(metavar="N", help="New total number of samples.")] = None,
        minutes: Annotated[float | None, typer.Option(metavar="N", help="New total training time in minutes.")] = None,
        data: Annotated[
            list[str] | None, typer.Option(metavar="[KEY=]NAME|PATH", help="New place of the data, if they have moved.")
        ] = None,
        set_: Set = None,
    ) -> Answer:
        """Continues a run from its latest valid checkpoint."""
        from gan_core.api import Toolkit

        resumed = Toolkit(domain).resume(
            run, steps=steps, samples=samples, minutes=minutes, changes=read_settings(set_), data=read_data(data)
        )
        return trained(domain, resumed)

    return resume


def trained(domain: Domain, run: Run) -> Answer:
    """Returns the answer of the commands `train`, `resume` and `demo`."""
    log = run.log()
    step = log[-1]["step"] if log else 0
    document = {
        "run": str(run.path),
        "step": step,
        "interrupted": run.interrupted,
        "ended": run.ended,
        "report": str(run.path / "report.html"),
        "model": str(run.model),
    }
    if run.interrupted:
        command = f"gan-{domain.name} resume {shlex.quote(str(run.path))}"
        text = f"interrupted by {run.interrupted} at step {step}; continue with: {command}"
    else:
        reason = f" ({run.ended})" if run.ended else ""
        text = f"trained to step {step}{reason}: {run.path} (see {run.path / 'report.html'})"
    return Answer(document, text, [f"skipped checkpoint: {problem}" for problem in run.problems])


def generate_command(domain: Domain) -> Callable[..., Answer]:
    """Returns the command `generate` of a domain."""

    def generate(
        context: typer.Context,
        model: Annotated[str, typer.Argument(help=MODEL_HELP)],
        count: Annotated[int, typer.Option("-n", metavar="N", min=1, help="Number of samples.")] = 16,
        out: Annotated[Path | None, typer.Option(metavar="DIR", file_okay=False, help="Output folder.")] = None,
        seed: Seed = 0,
    ) -> Answer:
        """Generates samples and writes each to a file.

        If the model has conditions, they are written to `labels.csv`. Additional options set the model's conditions and
        parameters, for example --label NAME|INDEX (default: all classes in turn), --caption TEXT, or --truncation PSI
        (0 < PSI <= 1). If a condition is repeated, its values are assigned to the samples in turn.
        """
        if out is None:
            raise InputError("`--out` is missing: name the folder for the samples, for example --out samples")
        from gan_core.api import Toolkit

        game = Toolkit(domain).load(model)
        given = asked_of(game, context, count, game.sample)
        asked = game.asked(count, **given)
        labels = {name: game.conditions[name].describe(values) for name, values in asked.items()}
        files = domain.media.write_items(
            game.generated(count, seed=seed, **given),
            out,
            count=count,
            game=game,
            labels={name: texts for name, texts in labels.items() if texts},
        )
        return Answer({"files": [str(file) for file in files], "seed": seed}, f"{count} samples in {out}")

    return generate


def evaluate_command(domain: Domain) -> Callable[..., Answer]:
    """Returns the command `evaluate` of a domain."""

    def evaluate(
        model: Annotated[str, typer.Argument(help=MODEL_HELP)],
        data: Annotated[
            list[str] | None, typer.Option(metavar="[KEY=]NAME|PATH", help=f"{DATA_HELP} Required.")
        ] = None,
        metrics: Annotated[str | None, typer.Option(metavar="A,B", help=METRICS_HELP)] = None,
        count: Annotated[int, typer.Option("-n", metavar="N", min=2, help="Number of generated samples.")] = 1000,
        seed: Seed = 0,
        extractor: Annotated[str | None, typer.Option(metavar="NAME[:ARGUMENT]", help=EXTRACTOR_HELP)] = None,
        weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights file of the extractor.")] = None,
        keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help=KEEP_HELP)] = None,
    ) -> Answer:
        """Computes metrics of a model's samples or results."""
        from gan_core.api import Toolkit

        where = read_data(data)
        if where is None:
            raise InputError("`--data` is missing: name the data that the samples are compared with")
        chosen = [name.strip() for name in metrics.split(",")] if metrics is not None else None
        figures = Toolkit(domain).evaluate(
            model, data=where, metrics=chosen, count=count, seed=seed, extractor=extractor, weights=weights, keep=keep
        )
        return Answer(figures, str(figures))

    return evaluate


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folder, or several to compare.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output .html file of a comparison; required for several runs.")
    ] = None,
) -> Answer:
    """Writes an HTML report of a run, or a comparison of several.

    The report of a single run is written to RUN/report.html. Reports are self-contained files.
    """
    from gan_core.runs.comparison import write_comparison
    from gan_core.runs.report import write_report
    from gan_core.runs.run import Run

    if len(runs) > 1:
        if out is None:
            raise InputError("`--out` is missing: name the output file, for example --out comparison.html")
        path = write_comparison([Run.open(run).path for run in runs], out)
    elif out is not None:
        raise InputError("`--out` has no effect for one run, whose report is RUN/report.html; omit it")
    else:
        path = write_report(Run.open(runs[0]).path)
    return Answer({"report": str(path)}, str(path))


def import_command(domain: Domain) -> Callable[..., Answer]:
    """Returns the command `import` of a domain."""

    def import_(
        name: Annotated[
            str, typer.Argument(metavar="SYSTEM/NETWORK", help="System and published network: dcgan/generator.")
        ],
        file: Annotated[Path, typer.Argument(metavar="FILE", help="Published checkpoint.")],
        out: Annotated[Path | None, typer.Option(metavar="DIR", file_okay=False, help="Output model folder.")] = None,
        as_: Annotated[
            str | None,
            typer.Option("--as", metavar="NETWORK", help="Network that receives the weights, if there are several."),
        ] = None,
        argument: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help=ARGUMENT_HELP)] = None,
        fold: Annotated[
            bool, typer.Option("--fold", help="Fold weight normalisation into the weights (for inference only).")
        ] = False,
    ) -> Answer:
        """Converts a published checkpoint to a model folder."""
        from gan_core.models.folder import save_model
        from gan_core.models.reference import read_published_file

        if out is None:
            raise InputError("`--out` is missing: name the model folder, for example --out models/imported")
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out}: is not empty; choose another folder")
        arguments = read_settings(argument, "--argument")
        published = read_published_file(domain.reference.IMPORTERS, name, file, arguments)
        game = game_around(domain, name, published, as_)
        if fold:
            fold_weights = getattr(type(game), "fold", None)
            if fold_weights is None:
                raise InputError(f"{name} has no weight normalisation to fold; omit `--fold`")
            fold_weights(game)
        save_model(game, out)
        networks = [each for each, _ in game.named_children() if each not in game.absent]
        document = {"model": str(out), "networks": networks, "path": published.path, "notes": list(published.notes)}
        text = f"{name} in {out}" + (f" (from `{published.path}` in the file)" if published.path else "")
        return Answer(document, text, list(published.notes))

    return import_


def game_around(domain: Domain, name: str, published: Published, place: str | None = None) -> Game:
    """Builds a game from the preset `paper` with one published network; its other networks are absent.

    Args:
        domain: the system's domain.
        name: `SYSTEM/NETWORK`, the importer's name.
        published: the network.
        place: name of the game's network that receives the weights (default: that of the importer).

    Raises:
        RecipeError: the game has no such network.
        CheckpointError: the weights do not fit that network.
    """
    from gan_core.models.checkpoint import load_state, split_state

    source = published.build()
    system, _, importer = name.partition("/")
    own = published.place or importer
    network = place or own
    if network != own and network not in published.elsewhere:
        raise unknown(f"target network of {name}", network, [own, *published.elsewhere])
    chosen = domain.preset(system, "paper")
    recipe = domain.recipe(system, "paper")
    separate = recipe.network.get(network, {})
    settings = {**published.settings, **published.elsewhere.get(network, {})}
    recipe = recipe.but(
        {f"network.{network}.{key}" if key in separate else f"network.{key}": value for key, value in settings.items()}
        | {f"data.spec.{key}": value for key, value in published.spec.items()}
        | {f"game.{key}": value for key, value in published.game.items()}
    )
    game = chosen.build(recipe, absent=[other for other in chosen.networks if other != network])
    game.enter_phase(len(list(game.phases())) - 1, 1.0)  # published networks are fully trained
    adversaries = game.adversaries
    into = adversaries[network].network if network in adversaries else game.get_submodule(network)
    load_state(into, *split_state(source), f"{name} as `{network}`")
    return game


def export_command(domain: Domain) -> Callable[..., Answer]:
    """Returns the command `export` of a domain."""

    def export(
        model: Annotated[str, typer.Argument(help=MODEL_HELP)],
        format: Annotated[str, typer.Option(metavar="NAME", help="Format: onnx.")] = "onnx",
        out: Annotated[Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Output file.")] = None,
        network: Annotated[
            str | None, typer.Option(metavar="NAME", help="Network to export, if there are several.")
        ] = None,
    ) -> Answer:
        """Exports a network to ONNX.

        The outputs of the exported network are compared with those of torch, at several input sizes.
        """
        from gan_core.api import Toolkit
        from gan_core.jobs import refuse_file
        from gan_core.models.export import export_onnx

        if format != "onnx":
            raise InputError(f"`--format` is {format}; expected onnx")
        if out is None:
            raise InputError("`--out` is missing: name the file, for example --out generator.onnx")
        if out.suffix != ".onnx":
            raise InputError(f"`--out` is {out}; expected a .onnx file")
        refuse_file(out)
        made = export_onnx(Toolkit(domain).load(model), out, network)
        lines = [f"{out}: {made.network}"]
        for kind, values in (("input", made.inputs), ("output", made.outputs)):
            lines += [f"  {kind} {name}: {value}" for name, value in values.items()]
        lines += [f"  {name}: {axis}" for name, axis in made.axes.items()]
        lines.append(f"  largest difference from torch: {made.difference:.2g}")
        document = {"file": str(out), **asdict(made)}
        document["largest_difference"] = document.pop("difference")
        return Answer(document, "\n".join(lines))

    return export


def demo_command(domain: Domain) -> Callable[..., Answer]:
    """Returns the command `demo` of a domain."""

    def demo(
        out: Annotated[
            Path | None, typer.Option(metavar="RUN", help="Run folder (default: runs/demo, runs/demo-2 …).")
        ] = None,
    ) -> Answer:
        """Trains on embedded data for at most two minutes.

        Writes a run folder with samples and a report, and prints a metric of the trained model.
        """
        from gan_core.api import Toolkit

        plan = domain.demo
        if plan is None:
            raise InputError(f"gan-{domain.name} has no demo yet, because it has no systems")
        out = out or next(path for path in demo_folders() if not path.exists())
        toolkit = Toolkit(domain)
        run = toolkit.train(plan.system, data=plan.data, out=out, changes=plan.settings)
        answer = trained(domain, run)
        if run.interrupted or plan.metric is None:
            return answer
        say(f"computing the metric {plan.metric}")
        figures, samples = toolkit.evaluate(out, data=plan.data, metrics=[plan.metric]), run.samples()[-1]
        text = f"{figures}\nsamples: {samples}\nreport:  {run.report_file}"
        return Answer(answer.document | {"metrics": figures["metrics"], "samples": str(samples)}, text)

    return demo


def demo_folders() -> Iterator[Path]:
    """Yields candidate run folders for the demo: `runs/demo`, `runs/demo-2` and so on."""
    yield Path("runs/demo")
    yield from (Path(f"runs/demo-{number}") for number in itertools.count(2))


def doctor_command(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder (default: check the installation).")
    ] = None,
) -> Answer:
    """Checks the installation, or diagnoses a run.

    For a run, it reports problems such as mode collapse, and suggests settings to try.
    """
    from gan_core.doctor import examine_installation, examine_run

    checks = examine_installation() if run is None else examine_run(run)
    rows = [(("ok" if check.seen else "-") if check.good else "PROBLEM", check.name, check.finding) for check in checks]
    good = all(check.good for check in checks)
    document = {"checks": [vars(check) | {"seen": check.seen} for check in checks], "good": good}
    return Answer(document, table(rows), status=0 if good else 1)
