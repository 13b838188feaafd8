"""Command line of all domains: `gan-image …` and `gan image …` are the same program.

Results are written to standard output, progress and logs to standard error. The exit status is 0 if the command
succeeded, 1 if it failed, and 2 if the request or its input was invalid. Only commands that need torch import it.
"""

from __future__ import annotations

import inspect
import io
import itertools
import json
import logging
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core

from gan_core import __version__
from gan_core.domain import Domain, find_domains
from gan_core.errors import FULL, GanError, InputError, escaped, reason_of, say, unknown
from gan_core.jobs import PIPE, Outcome, OutputClosed, Shard
from gan_core.places import expanded
from gan_core.tables import table

if TYPE_CHECKING:
    from gan_core.models.reference import Published
    from gan_core.play.game import Game
    from gan_core.recipe import Recipe
    from gan_core.runs.run import Run

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Exception for an invalid command line: click's class, or typer's private copy of it (since typer 0.27)."""
LONGEST_MESSAGE = 500
"""Maximum length of an error message, in characters."""
FLAGS = ("--json", "--debug")
"""Options of every command."""
FURTHER = "gan_core.cli.further"
"""Key in a command's context under which options for the model are stored, as lists of texts by option."""
NEAR = 0.8
"""Minimum similarity at which an unknown option is treated as a misspelt option of the command."""
PLACES = ("--data", "--out", "--recipe", "--keep", "--weights")
"""Options that name a file, a folder or a dataset."""
EXTRA_ARGUMENTS = re.compile(r"^Got unexpected extra argument\S* \((.*)\)$")
"""Message of click that is reworded."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""Parts of the messages with which torch reports that memory is full."""
INTERRUPTED = 130
"""Exit status after Ctrl-C. Commands that train write a checkpoint and exit with 0 instead."""
DATA_HELP = (
    "Named dataset (see `data`), or folder or archive of files. Append a split of a dataset or a sub-folder after a "
    "colon: mnist:test. Repeat the option if items have several parts: --data source=DIR --data target=DIR."
)
START_HELP = (
    "Initial weights of a network: a run, a model folder or a hub repository id (append :NETWORK if the network has "
    "another name there), or a published checkpoint, SYSTEM/NETWORK:FILE. Can be repeated."
)
PRESET_HELP = "Preset: small (default; trains on two CPU cores), paper (published scale), or another."
SET_HELP = "Recipe setting by dotted key, such as optimizer.learning_rate=1e-4. Can be repeated."
SYSTEM_HELP = "Name of the system; see `systems`."
BATCH_SIZE_HELP = "Global batch size, over all processes."
SEED_HELP = "Random seed for initial weights, data order and noise."
RECIPE_HELP = "Recipe file; other options override its settings."
DEVICE_HELP = "Device: auto (default), cpu, cuda, cuda:1, mps or xpu."
PRECISION_HELP = "Precision of the forward pass: fp32, bf16 or fp16."
STRICT_HELP = "Stop at an unreadable file (default: skip it)."
METRICS_HELP = "Metrics, separated by commas (default: all that fit the data)."
ARGUMENT_HELP = "Setting of the network that cannot be inferred from the weights. Can be repeated."
MODEL_HELP = "Run folder, model folder, or hub repository id."
EXTRACTOR_HELP = "Feature extractor (default: a small classifier trained on the data's labels, if there are any)."
KEEP_HELP = "Folder for extracted features, so that an interrupted evaluation can continue (default: not kept)."


@dataclass(frozen=True)
class Answer:
    """Result of a command.

    Attributes:
        document: the result for `--json`.
        text: the result as text.
        notes: lines for standard error.
        status: exit status.
    """

    document: Any
    text: str = ""
    notes: list[str] = field(default_factory=list)
    status: int = 0


Commands = Mapping[str, Callable[..., Answer | None]]
"""Commands by name. A command returns None if it has written its result to standard output itself."""


def main(domain: Domain | None = None) -> NoReturn:
    """Runs the command line of a domain (default: `gan`, with all domains) and exits."""
    flags = {flag for flag in FLAGS if flag in sys.argv[1:]}
    words = [word for word in sys.argv[1:] if word not in FLAGS] or ["--help"]
    program = "gan" if domain is None else f"gan-{domain.name}"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")  # for consoles of other encodings
    logging.lastResort = _printer()
    try:
        refuse_empty(words)
        answer = build(domain)(words, prog_name=program, standalone_mode=False)
        if isinstance(answer, Answer) and os.environ.get("RANK", "0") == "0":  # only the first process prints
            show(answer, as_json="--json" in flags)
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001  internal errors are one line too; `--debug` shows the traceback
        if "--debug" in flags:
            print(escaped(traceback.format_exc()), file=sys.stderr)  # noqa: T201
        raise SystemExit(complain(program, error)) from None
    raise SystemExit(answer.status if isinstance(answer, Answer) else answer)


def refuse_empty(words: Sequence[str]) -> None:
    """Checks that no option that names a place is empty, because an empty path is the current folder.

    Raises:
        InputError: one is empty.
    """
    for option, value in itertools.pairwise(words):
        if option in PLACES and not value:
            raise InputError(f"`{option}` is empty; give it a value")


class EscapedFormatter(logging.Formatter):
    """Formatter of log messages that are printed to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))


def _printer() -> logging.Handler:
    """Returns the handler that prints warnings if no other logging handler is configured."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(EscapedFormatter())
    return handler


def complain(program: str, error: Exception) -> int:
    """Prints an error as one line and returns its exit status."""
    status, message = explain(error)
    line = textwrap.shorten(message, LONGEST_MESSAGE, placeholder=" …")  # it may contain names from files
    say(f"{program}: {line}")
    return status


def explain(error: Exception) -> tuple[int, str]:
    """Returns the exit status and the message of an error."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if isinstance(error, GanError):
        return error.exit_status, message
    if isinstance(error, UsageError):
        return 2, EXTRA_ARGUMENTS.sub(r"too many arguments: \1", message)
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return 1 if error.errno in FULL or not where else 2, f"{where}{error.strerror}"
    if isinstance(error, MemoryError) or any(words in message for words in OUT_OF_MEMORY):
        return 1, "out of memory; choose a smaller batch size, smaller networks or fewer samples"
    return 1, f"internal error ({type(error).__name__}): {message or 'no reason given'}; `--debug` shows the traceback"


def show(answer: Answer, *, as_json: bool) -> None:
    """Prints an answer. A closed pipe is not an error."""
    for note in answer.notes:
        say(note)
    text = escaped(answer.text)
    if as_json:
        plain = sys.stdout is not None and not str(sys.stdout.encoding).lower().startswith("utf")
        text = _as_json(answer.document, ascii_only=plain)
    if not text:
        return
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        _forget_output()
    except OSError as error:
        _forget_output()
        raise GanError(
            f"standard output: cannot be written ({error.strerror}); free some space or redirect it"
        ) from error


def _forget_output() -> None:
    """Redirects standard output to nowhere, so that flushing it at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _as_json(document: Any, *, ascii_only: bool) -> str:
    """Returns a document as JSON in one line, in which unprintable characters are escaped."""
    text = json.dumps(_finite(document), ensure_ascii=ascii_only, allow_nan=False)
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def _finite(document: Any) -> Any:
    """Returns a document with None in place of infinities and NaN, which JSON cannot represent."""
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def build(domain: Domain | None) -> typer.Typer:
    """Builds the program of a domain, or of all installed domains (None)."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    if domain is None:
        text = "Trains and uses GANs. Each installed domain package adds a command: pip install gan-image."
        app.callback(help=text, invoke_without_command=True)(root("gan"))
        for found in find_domains().values():
            try:
                app.add_typer(build(found), name=found.name, help=found.title)
            except Exception as error:  # noqa: BLE001  a domain's own code must not stop the others
                say(f"gan: gan-{found.name} cannot be used ({reason_of(error)})")
        return app

    text = f"{domain.title}. Every command accepts --json (result as JSON) and --debug (tracebacks)."
    app.callback(help=text, invoke_without_command=True)(root(f"gan-{domain.name}"))
    for name, command in commands(domain).items():
        takes_more = "context" in inspect.signature(command).parameters
        app.command(name, cls=ModelCommand if takes_more else None)(expanding(command))
    return app


def expanding(command: Callable[..., Answer | None]) -> Callable[..., Answer | None]:
    """Returns a command whose paths may begin with `~`, which shells leave as it is in `--out=~/run`."""

    @wraps(command)
    def call(**options: Any) -> Answer | None:
        return command(**{name: expanded_value(value) for name, value in options.items()})

    return call


def expanded_value(value: Any) -> Any:
    """Returns an option's value, with home folders expanded if it is a path or a list of paths."""
    if isinstance(value, list):
        return [expanded_value(each) for each in value]
    return expanded(value) if isinstance(value, Path) else value


def root(program: str) -> Callable[[bool], Answer | None]:
    """Returns the callback for the program's own option, `--version`."""

    def show_version(
        version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    ) -> Answer | None:
        return Answer({"version": __version__}, f"{program} {__version__}") if version else None

    return show_version


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


Preset = Annotated[str, typer.Option(metavar="NAME", help=PRESET_HELP, show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=2**31 - 1, help="Random seed.")]
Out = Annotated[str | None, typer.Option(metavar="DIR|-", help="Output folder, or - for standard output.")]
Part = Annotated[
    Shard | None,
    typer.Option(parser=Shard.parse, metavar="K/N", help="Process the K-th of N parts of the files (default: all)."),
]


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


class ModelCommand(typer.core.TyperCommand):
    """Command that accepts additional options `--NAME VALUE`, which depend on its model; see `asked_of`."""

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
    """Converts the additional options of a command to conditions of a game and keywords of its methods, by name.

    If a condition is given several times, its values are assigned to the samples in turn.

    Args:
        game: the game.
        context: context of the command.
        count: number of samples.
        functions: methods of the game whose keywords, without the first argument, can be given as options.

    Raises:
        InputError: an option is misspelt or given too many times.
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
            most = f"{count} times, once per sample" if name in conditions else "once"
            raise InputError(f"`{option}` is given {len(texts)} times; give it at most {most}")
        if name in conditions:
            values = conditions[name].read(name, texts)
            given[name] = [values[k % len(values)] for k in range(count)]
        else:
            given[name] = read_text(functions, name, texts[0]) if name in takes else texts[0]
    return given


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


def made(out: str | None, work: Callable[[str], Outcome]) -> Answer | None:
    """Runs a task on files and returns its answer, or None if the result was written to standard output.

    Skipped files are listed in the answer's `document` and do not change the exit status.

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


def read_data(given: list[str] | None) -> str | dict[str, str] | None:
    """Parses `--data`: one location, or one for each part of an item (`--data source=A --data target=B`).

    Raises:
        InputError: several locations are given without part names, or a part is given twice.
    """
    if not given:
        return None
    named = [re.match(r"([a-z_]+)=(.+)", text) for text in given if not Path(text).exists()]
    if len(given) == 1 and not any(named):
        return given[0]
    parts = [(match[1], match[2]) for match in named if match]
    if len(parts) < len(given) or len(dict(parts)) < len(parts):
        raise InputError(
            "`--data` is given several times; name the part that each provides, such as --data source=A --data target=B"
        )
    return dict(parts)


def read_starts(given: list[str] | None) -> dict[str, str]:
    """Parses `--start NETWORK=WHERE` to sources of initial weights by network.

    Raises:
        InputError: a value has no `=`, or a network is given twice.
    """
    starts: dict[str, str] = {}
    for text in given or ():
        network, _, where = text.partition("=")
        if not network or not where:
            raise InputError(f"`--start {text}`: write NETWORK=WHERE, for example --start generator=runs/first")
        if network in starts:
            raise InputError(f"`--start` is given twice for `{network}`; give it once")
        starts[network] = where
    return starts


def read_settings(given: list[str] | None, option: str = "--set") -> dict[str, Any]:
    """Parses `--set KEY=VALUE`, or another option of this form, to values by key.

    Raises:
        InputError: the `=` is missing.
        RecipeError: a value is not valid YAML.
    """
    from gan_core.recipe import parse_value

    settings = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"`{option} {text}`: write KEY=VALUE, for example --set train.steps=100")
        settings[key.strip()] = parse_value(value)
    return settings
