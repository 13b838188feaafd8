"""The command line of every domain: `gan-image …` and `gan image …` are the same program.

Results go to standard output, progress and logs to standard error. Exit status 0: done; 1: the work failed; 2: the
request or its input was wrong. Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import os
import re
import shlex
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core

from gan_core.domain import Domain, find_domains
from gan_core.errors import GanError, InputError, unknown
from gan_core.jobs import PIPE, Outcome, OutputClosed, Shard

if TYPE_CHECKING:
    from gan_core.models.reference import Published
    from gan_core.play.game import Game
    from gan_core.recipe import Recipe

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Exception of a malformed command line: click's class, of which typer has an unexported copy since 0.27."""
LONGEST_MESSAGE = 500
FLAGS = ("--json", "--debug")
FURTHER = "gan_core.cli.further"
"""Key under which a command's context holds the model's options: texts by option."""
NEAR = 0.8
"""Similarity above which an option unknown to the model counts as a misspelling of one of the command's own."""
INTERRUPTED = 130
"""Exit status of a program ended by Ctrl-C (a training stops in order instead, with 0)."""
DATA_HELP = (
    "A named dataset, or a folder or archive of files (default: embedded data). If items have several parts, give one "
    "for each: --data source=DIR --data target=DIR. Parts of a dataset and sub-folders: NAME:test, DIR:masks."
)
START_HELP = (
    "Initial weights of a network: a run, a model folder or a hub repository id (with :NETWORK if it has another name "
    "there), or a published checkpoint, SYSTEM/NETWORK:FILE. Can be repeated for several networks."
)
MODEL_HELP = "A run folder, a model folder, or a hub repository id."
EXTRACTOR_HELP = "Feature extractor (default: a small classifier of the data's labels)."
KEEP_HELP = "Folder for features, so that an interrupted evaluation can continue."


@dataclass(frozen=True)
class Answer:
    """Result of a command: a document for `--json`, and text."""

    document: Any
    text: str = ""
    notes: list[str] = field(default_factory=list)
    """Lines for standard error."""
    status: int = 0
    """Exit status."""


def main(domain: Domain | None = None) -> NoReturn:
    """Runs the command line of a domain (default: `gan`, with all domains) and exits."""
    words = sys.argv[1:] or ["--help"]
    flags = {flag for flag in FLAGS if flag in words}
    program = "gan" if domain is None else f"gan-{domain.name}"
    app = build(domain)
    try:
        answer = app([word for word in words if word not in FLAGS], prog_name=program, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001  an internal error is one line too; `--debug` shows the traceback
        if "--debug" in flags:
            traceback.print_exc()
        raise SystemExit(complain(program, error)) from None
    if isinstance(answer, Answer):
        if os.environ.get("RANK", "0") == "0":  # only the first process prints
            show(answer, as_json="--json" in flags)
        raise SystemExit(answer.status)
    raise SystemExit(answer)


def complain(program: str, error: Exception) -> int:
    """Prints an error as one line and returns its exit status."""
    status = error.exit_status if isinstance(error, GanError) else 2 if isinstance(error, UsageError) else 1
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if not isinstance(error, GanError | UsageError):
        message = (
            f"internal error ({type(error).__name__}): {message or 'no reason given'}; `--debug` shows the traceback"
        )
    line = textwrap.shorten(message, LONGEST_MESSAGE, placeholder=" …")  # with names of files and of a model's classes
    safe = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    print(f"{program}: {safe}", file=sys.stderr)  # noqa: T201
    return status


def show(answer: Answer, *, as_json: bool) -> None:
    """Prints an answer; a closed pipe is not an error."""
    for note in answer.notes:
        print(note, file=sys.stderr)  # noqa: T201
    text = json.dumps(_finite(answer.document), ensure_ascii=False, allow_nan=False) if as_json else answer.text
    try:
        if text:
            print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        sys.stderr.close()


def _finite(document: Any) -> Any:
    """Returns a document with None for numbers that JSON lacks: infinite ones, and what is not a number."""
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def build(domain: Domain | None) -> typer.Typer:
    """Returns the program of a domain, or of all installed domains."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    if domain is None:
        app.callback(help="GANs: a command for each installed domain package (pip install gan-image …).")(lambda: None)
        for found in find_domains().values():
            app.add_typer(build(found), name=found.name, help=found.title)
        return app

    @app.callback(help=f"{domain.title}. Every command takes --json (results as JSON) and --debug (tracebacks).")
    def root() -> None:
        pass

    for name, command in commands(domain).items():
        takes_more = "context" in inspect.signature(command).parameters
        app.command(name, cls=ModelCommand if takes_more else None)(command)
    return app


def commands(domain: Domain) -> dict[str, Callable[..., Answer]]:
    """Returns a domain's commands by name: those of every domain, and the domain's own tasks."""
    common: dict[str, Callable[..., Answer]] = {
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
    helps = {"systems": "Lists the systems: name, year, task, paper.", "data": "Lists the named datasets."}
    for name, text in helps.items():
        common[name].__doc__ = text
    return common | (domain.module("tasks").COMMANDS if domain.cards else {})


def table(rows: Iterable[Iterable[object]]) -> str:
    """Returns rows as aligned columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def systems(domain: Domain) -> Answer:
    """Returns the table of systems."""
    names = ("name", "year", "task", "paper", "title")
    document = [{name: getattr(card, name) for name in names} for card in domain.cards]
    if not document:
        return Answer(document, notes=[f"gan-{domain.name} has no systems yet"])
    return Answer(document, table([names, *(entry.values() for entry in document)]))


def data_sets(domain: Domain) -> Answer:
    """Returns the table of named datasets."""
    names = ("name", "origin", "items", "title")
    cards = domain.module("data").DATASETS if domain.cards else ()
    document = [{name: getattr(card, name) for name in names} for card in cards]
    notes = [] if document else [f"gan-{domain.name} has no named datasets yet"]
    return Answer(document, table([names, *(entry.values() for entry in document)]) if document else "", notes)


Preset = Annotated[str, typer.Option(help="Preset: `small`, `paper` (published scale), or another.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting by its dotted key.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed.")]
Out = Annotated[str | None, typer.Option(metavar="DIR|-", help="Output folder, or - for standard output.")]
Part = Annotated[
    Shard | None,
    typer.Option(parser=Shard.parse, metavar="K/N", help="Process the K-th of N parts of the files (default: all)."),
]


def show_recipe_command(domain: Domain) -> Callable[..., Answer]:
    """The command `show` of a domain."""

    def show_recipe(system: str, preset: Preset = "small", set_: Set = None) -> Answer:
        """Prints a system's recipe as YAML, and its parameter counts."""
        from gan_core.models.card import parameter_counts
        from gan_core.play.preset import on_meta

        chosen = domain.preset(system, preset)
        recipe = chosen.recipe(domain=domain.name, system=system, preset=preset).but(read_settings(set_))
        recipe = chosen.complete(recipe)
        with on_meta():
            counts = parameter_counts(chosen.build(recipe))
        lines = [f"# {name}: {count:,} parameters" for name, count in counts.items()]
        text = "\n".join([f"# {domain.card(system).title} ({chosen.paper})", *lines, recipe.to_yaml().rstrip()])
        return Answer({"recipe": recipe.model_dump(mode="json"), "parameters": counts}, text)

    return show_recipe


def train_command(domain: Domain) -> Callable[..., Answer]:
    """The command `train` of a domain."""

    def train(
        system: Annotated[str | None, typer.Argument(help="Name of the system; omit it with `--recipe`.")] = None,
        data: Annotated[list[str] | None, typer.Option(metavar="[KEY=]NAME|PATH", help=DATA_HELP)] = None,
        out: Annotated[Path | None, typer.Option(help="Run folder, new or empty.")] = None,
        steps: Annotated[int | None, typer.Option(help="Number of steps.")] = None,
        batch_size: Annotated[int | None, typer.Option(help="Global batch size, over all processes.")] = None,
        seed: Annotated[int | None, typer.Option(help="Random seed of weights, data order and noise.")] = None,
        preset: Annotated[str | None, typer.Option(help="`small` (default), `paper`, or another.")] = None,
        start: Annotated[list[str] | None, typer.Option(metavar="NETWORK=WHERE", help=START_HELP)] = None,
        set_: Set = None,
        recipe: Annotated[Path | None, typer.Option(help="Recipe file; other options override it.")] = None,
        device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")] = None,
        precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
        compile: Annotated[bool | None, typer.Option("--compile", help="Compiles the networks.")] = None,
        strict: Annotated[bool | None, typer.Option("--strict", help="Fail on unreadable files.")] = None,
    ) -> Answer:
        """Trains a system and writes the run folder."""
        if out is None:
            raise InputError("`--out` is missing: name the run folder, for instance --out runs/first")
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
            raise InputError(f"{file}: is a recipe of {recipe.system} ({recipe.preset}); omit SYSTEM and --preset")
        return recipe
    if system is None:
        raise InputError(f"name a system (see `gan-{domain.name} systems`) or a `--recipe`")
    preset = preset or "small"
    return domain.preset(system, preset).recipe(domain=domain.name, system=system, preset=preset)


def resume_command(domain: Domain) -> Callable[..., Answer]:
    """The command `resume` of a domain."""

    def resume(
        run: Path,
        steps: Annotated[int | None, typer.Option(help="New total number of steps.")] = None,
        samples: Annotated[int | None, typer.Option(help="New total number of samples.")] = None,
        minutes: Annotated[float | None, typer.Option(help="New total training time in minutes.")] = None,
        set_: Set = None,
    ) -> Answer:
        """Continues a run from its latest valid checkpoint."""
        from gan_core.api import resume as go_on

        changes = read_settings(set_)
        return trained(
            domain, go_on(run, steps=steps, samples=samples, minutes=minutes, changes=changes, domain=domain)
        )

    return resume


def trained(domain: Domain, run: Any) -> Answer:
    """Returns the answer after a training."""
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
        why = f" ({run.ended})" if run.ended else ""
        text = f"trained to step {step}{why}: {run.path} (see {run.path / 'report.html'})"
    return Answer(document, text, [f"skipped checkpoint: {problem}" for problem in run.problems])


class ModelCommand(typer.core.TyperCommand):
    """A command with further options `--NAME VALUE` that depend on its model; see `asked_of`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name: parameter for parameter in self.params for name in parameter.opts}
        left, further, rest = list[str](), dict[str, list[str]](), iter(args)
        for word in rest:
            name, equals, value = word.partition("=")
            if word == "--":
                left += [word, *rest]
            elif not name.startswith("--") or name in ctx.help_option_names:
                left.append(word)
            elif name in own:
                left.append(word)
                if not equals and not getattr(own[name], "is_flag", False):
                    left += itertools.islice(rest, 1)
            else:
                value = value if equals else next(rest, "--")
                if value.startswith("--") and not equals:
                    raise UsageError(f"Option '{name}' requires an argument.")
                further.setdefault(name, []).append(value)
        ctx.meta[FURTHER] = further
        return super().parse_args(ctx, left)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[--CONDITION VALUE]…"]


def asked_of(game: Game, context: typer.Context, count: int, *functions: Callable[..., Any]) -> dict[str, Any]:
    """Converts a command's further options to a game's conditions and to keywords of its methods, by name.

    The values of a condition that is given several times are assigned to the samples in turn.

    Args:
        game: the game.
        context: context of the command.
        count: number of samples.
        functions: methods of the game; their first argument is not an option.

    Raises:
        InputError: an option is misspelt or given too often.
        RecipeError: a value cannot be converted.
    """
    from gan_core.signature import read_text

    conditions, takes = game.conditions, game.parameters_of(*functions)
    known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
    given: dict[str, Any] = {}
    for option, texts in context.meta[FURTHER].items():
        name = option.removeprefix("--").replace("-", "_")
        if name not in conditions and name not in takes and get_close_matches(option, known, cutoff=NEAR):
            raise unknown("option", option, known, InputError)
        if len(texts) > (count if name in conditions else 1):
            most = f"one for each of {count}" if name in conditions else "one value"
            raise InputError(f"`{option}` is given {len(texts)} times; give {most} at most")
        if name in conditions:
            values = conditions[name].read(name, texts)
            given[name] = [values[k % len(values)] for k in range(count)]
        else:
            given[name] = read_text(functions, name, texts[0]) if name in takes else texts[0]
    return given


def generate_command(domain: Domain) -> Callable[..., Answer]:
    """The command `generate` of a domain."""

    def generate(
        context: typer.Context,
        model: Annotated[str, typer.Argument(help=MODEL_HELP)],
        count: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 16,
        out: Annotated[Path | None, typer.Option(file_okay=False, help="Output folder.")] = None,
        seed: Seed = 0,
    ) -> Answer:
        """Generates samples: one file each, and `labels.csv` if the model has conditions.

        Further options are the model's conditions and parameters, such as --label NAME|K (default: all classes in
        turn), --caption TEXT or --truncation PSI (above 0, at most 1). Repeated conditions are used in turn.
        """
        if out is None:
            raise InputError("`--out` is missing: name the folder for the samples, for instance --out samples")
        media, game = domain.module("media"), domain.load(model)
        given = asked_of(game, context, count, game.sample)
        asked = game.asked(count, **given)
        labels = {name: game.conditions[name].describe(values) for name, values in asked.items()}
        files = media.write_items(
            game.generated(count, seed=seed, **given),
            out,
            count=count,
            game=game,
            labels={name: texts for name, texts in labels.items() if texts},
        )
        return Answer({"files": [str(file) for file in files], "seed": seed}, f"{count} samples in {out}")

    return generate


def evaluate_command(domain: Domain) -> Callable[..., Answer]:
    """The command `evaluate` of a domain."""

    def evaluate(
        model: Annotated[str, typer.Argument(help=MODEL_HELP)],
        data: Annotated[list[str] | None, typer.Option(metavar="[KEY=]NAME|PATH", help=DATA_HELP)] = None,
        metrics: Annotated[str | None, typer.Option(metavar="A,B", help="Metrics (default: all that fit).")] = None,
        count: Annotated[int, typer.Option("-n", min=2, help="Number of generated samples.")] = 1000,
        seed: Seed = 0,
        extractor: Annotated[str | None, typer.Option(metavar="NAME[:ARGUMENT]", help=EXTRACTOR_HELP)] = None,
        weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights of the extractor.")] = None,
        keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help=KEEP_HELP)] = None,
    ) -> Answer:
        """Evaluates generated samples against data."""
        from gan_core.api import evaluate as measure

        where = read_data(data)
        if where is None:
            raise InputError("`--data` is missing: name the data that the samples are compared with")
        chosen = [name.strip() for name in metrics.split(",")] if metrics is not None else None
        document = measure(
            model,
            data=where,
            metrics=chosen,
            count=count,
            seed=seed,
            extractor=extractor,
            weights=weights,
            keep=keep,
            domain=domain,
        )
        return Answer(document, figures_text(document))

    return evaluate


def figures_text(document: Mapping[str, Any]) -> str:
    """Returns the figures by metric, one line each, with their protocol ids, and a table of the protocols."""
    figures = table(
        (metric, name, value, document["protocol"][metric])
        for metric, values in document["metrics"].items()
        for name, value in values.items()
    )
    common = dict.fromkeys(
        (key, str(value)) for protocol in document["protocols"].values() for key, value in protocol.items()
    )
    rows = []
    for key, value in common:
        ids = [name for name, protocol in document["protocols"].items() if str(protocol.get(key)) == value]
        rows.append((" ".join(ids) if len(ids) < len(document["protocols"]) else "all", key, value))
    return f"{figures}\n\n{table([('protocol', '', ''), *rows])}"


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folder, or several to compare.")],
    out: Annotated[Path | None, typer.Option(help="Output page, if several runs are compared.")] = None,
) -> Answer:
    """Writes RUN/report.html, a self-contained file; for several runs, a page that compares them."""
    from gan_core.runs.comparison import write_comparison
    from gan_core.runs.report import write_report
    from gan_core.runs.run import Run

    if len(runs) > 1:
        if out is None:
            raise InputError("`--out` is missing: name the page, for instance --out comparison.html")
        path = write_comparison([Run.open(run).path for run in runs], out)
    elif out is not None:
        raise InputError("`--out` has no effect for one run, whose report is RUN/report.html; omit it")
    else:
        path = write_report(Run.open(runs[0]).path)
    return Answer({"report": str(path)}, str(path))


def import_command(domain: Domain) -> Callable[..., Answer]:
    """The command `import` of a domain."""

    def import_(
        name: Annotated[str, typer.Argument(metavar="SYSTEM/NETWORK")],
        file: Path,
        out: Annotated[Path | None, typer.Option(file_okay=False, help="Output model folder.")] = None,
        as_: Annotated[
            str | None, typer.Option("--as", metavar="NETWORK", help="Network of the game to load it into.")
        ] = None,
        argument: Annotated[
            list[str] | None, typer.Option(metavar="KEY=VALUE", help="Value not given by shapes; repeatable.")
        ] = None,
        fold: Annotated[bool, typer.Option("--fold", help="Remove weight normalisation (inference only).")] = False,
    ) -> Answer:
        """Converts a published checkpoint to a model folder."""
        from gan_core.models.checkpoint import read_published
        from gan_core.models.folder import save_model
        from gan_core.models.reference import read_reference

        if out is None:
            raise InputError("`--out` is missing: name the model folder")
        told = read_settings(argument, "--argument")
        published = read_reference(domain.module("reference").IMPORTERS, name, read_published(file), told)
        game = game_around(domain, name, published, as_)
        if fold:
            take_out = getattr(type(game), "fold", None)
            if take_out is None:
                raise InputError(f"{name} has no weight normalisation to remove; omit `--fold`")
            take_out(game)
        save_model(game, out)
        held = [each for each, _ in game.named_children() if each not in game.absent]
        return Answer({"model": str(out), "networks": held}, f"{name} in {out}")

    return import_


def game_around(domain: Domain, name: str, published: Published, place: str | None = None) -> Game:
    """Returns a game with the paper's settings and one published network; the others are absent.

    Args:
        domain: the system's domain.
        name: `SYSTEM/NETWORK`, the importer's name.
        published: the network.
        place: name of the game's network that gets its weights (default: the importer's).

    Raises:
        RecipeError: the game has no such network.
        CheckpointError: the weights do not fit that network.
    """
    from gan_core.models.checkpoint import load_state, split_state

    system, _, importer = name.partition("/")
    own = published.place or importer
    network = place or own
    if network != own and network not in published.elsewhere:
        raise unknown(f"network of {system} that {name} can become", network, [own, *published.elsewhere])
    chosen = domain.preset(system, "paper")
    recipe = chosen.recipe(domain=domain.name, system=system, preset="paper")
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
    load_state(into, *split_state(published.build()), f"{name} as `{network}`")
    return game


def export_command(domain: Domain) -> Callable[..., Answer]:
    """The command `export` of a domain."""

    def export(
        model: Annotated[str, typer.Argument(help=MODEL_HELP)],
        format: Annotated[str, typer.Option(help="onnx")] = "onnx",
        out: Annotated[Path | None, typer.Option(dir_okay=False, help="Output file.")] = None,
        network: Annotated[str | None, typer.Option(help="Network, if the model offers several.")] = None,
    ) -> Answer:
        """Exports a network to ONNX and checks its outputs against torch at other sizes."""
        from gan_core.models.export import export_onnx

        if format != "onnx":
            raise InputError(f"`--format` is {format}; expected onnx")
        if out is None:
            raise InputError("`--out` is missing: name the file, for instance --out generator.onnx")
        made = export_onnx(domain.load(model), out, network)
        lines = [f"{out}: {made.network}"]
        for kind, values in (("input", made.inputs), ("output", made.outputs)):
            lines += [f"  {kind} {name}: {value}" for name, value in values.items()]
        lines += [f"  {name}: {axis}" for name, axis in made.axes.items()]
        lines.append(f"  largest difference from torch: {made.difference:.2g}")
        document = {"file": str(out), **asdict(made)}
        document["largest_difference"] = document.pop("difference")
        return Answer(document, "\n".join(lines))

    return export


def made(out: str | None, work: Callable[[str], Outcome]) -> Answer | None:
    """Runs a task on files and returns its answer; None if the result was written to standard output.

    Skipped files are listed in the answer's document and do not change the exit status.

    Args:
        out: the option `--out`.
        work: runs the task, given the output folder or `-`; see `gan_core.jobs.Job`.

    Raises:
        InputError: `--out` is missing.
    """
    from gan_core.errors import count

    if out is None:
        raise InputError("`--out` is missing: name a folder, or - for standard output")
    try:
        outcome = work(out)
    except OutputClosed:
        return None
    if out == PIPE:
        return None
    document = {"files": [str(file) for file in outcome.files], "skipped": outcome.skipped}
    return Answer(document, f"{count(len(outcome.files), 'file')} in {out}")


def demo_command(domain: Domain) -> Callable[..., Answer]:
    """The command `demo` of a domain."""

    def demo(
        out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/demo, runs/demo-2 …).")] = None,
    ) -> Answer:
        """Trains on embedded data for at most two minutes, and writes samples and a report."""
        from gan_core.api import evaluate as measure
        from gan_core.api import train as fit

        plan = domain.demo
        if plan is None:
            raise InputError(f"gan-{domain.name} has no systems yet, so there is no demo")
        out = out or next(path for path in demo_folders() if not path.exists())
        run = fit(plan.system, data=plan.data, out=out, domain=domain, changes=plan.settings)
        answer = trained(domain, run)
        if run.interrupted or plan.metric is None:
            return answer
        measured = measure(out, data=plan.data, metrics=[plan.metric], domain=domain)
        figures = measured["metrics"]
        text = f"{figures_text(measured)}\nsamples: {run.samples()[-1]}\nreport:  {run.path / 'report.html'}"
        return Answer(answer.document | {"metrics": figures, "samples": str(run.samples()[-1])}, text)

    return demo


def demo_folders() -> Iterator[Path]:
    """Yields the run folders of demos: `runs/demo`, `runs/demo-2` and so on."""
    yield Path("runs/demo")
    yield from (Path(f"runs/demo-{number}") for number in itertools.count(2))


def doctor_command(
    run: Annotated[Path | None, typer.Argument(help="Run folder (default: check the installation).")] = None,
) -> Answer:
    """Checks the installation or, with RUN, diagnoses a run and suggests settings to try."""
    from gan_core.doctor import examine_installation, examine_run

    checks = examine_installation() if run is None else examine_run(run)
    rows = [(("ok" if check.seen else "-") if check.good else "PROBLEM", check.name, check.finding) for check in checks]
    good = all(check.good for check in checks)
    document = {"checks": [vars(check) | {"seen": check.seen} for check in checks], "good": good}
    return Answer(document, table(rows), status=0 if good else 1)


def read_data(given: list[str] | None) -> str | dict[str, str] | None:
    """Returns the location of the data, or one for each part of an item (`--data source=A --data target=B`).

    Raises:
        InputError: several locations are given without parts, or a part is given twice.
    """
    if not given:
        return None
    named = [re.match(r"([a-z_]+)=(.+)", text) for text in given if not Path(text).exists()]
    if len(given) == 1 and not any(named):
        return given[0]
    parts = [(match[1], match[2]) for match in named if match]
    if len(parts) < len(given) or len(dict(parts)) < len(parts):
        raise InputError(
            "`--data` is given several times; name a part for each, such as --data source=A --data target=B"
        )
    return dict(parts)


def read_starts(given: list[str] | None) -> dict[str, str]:
    """Parses `--start NETWORK=WHERE` to sources of initial weights by network.

    Raises:
        InputError: one has no `=`, or a network is given twice.
    """
    starts: dict[str, str] = {}
    for text in given or ():
        network, _, where = text.partition("=")
        if not network or not where:
            raise InputError(f"`--start {text}`: write NETWORK=WHERE, for instance --start generator=runs/first")
        if network in starts:
            raise InputError(f"`--start` is given twice for `{network}`; give it once")
        starts[network] = where
    return starts


def read_settings(given: list[str] | None, option: str = "--set") -> dict[str, Any]:
    """`--set key=value`, or another option's, as dotted keys and values.

    Raises:
        InputError: one has no `=`.
    """
    from gan_core.recipe import parse_value

    settings = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"`{option} {text}`: write KEY=VALUE, for instance --set train.steps=100")
        settings[key.strip()] = parse_value(value)
    return settings
