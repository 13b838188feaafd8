"""Options of commands: their types, help texts and parsing, and further options that depend on a model."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from gan_core.errors import InputError, unknown
from gan_core.jobs import Shard

if TYPE_CHECKING:
    from gan_core.play.game import Game


UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Exception for an invalid command line: click's class, or typer's private copy of it (since typer 0.27)."""
FURTHER = "gan_core.cli.further"
"""Key in a command's context under which options for the model are stored, as lists of texts by option."""
NEAR = 0.8
"""Minimum similarity at which an unknown option is treated as a misspelt option of the command."""
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
Preset = Annotated[str, typer.Option(metavar="NAME", help=PRESET_HELP, show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=2**31 - 1, help="Random seed.")]
Out = Annotated[str | None, typer.Option(metavar="DIR|-", help="Output folder, or - for standard output.")]
Part = Annotated[
    Shard | None,
    typer.Option(parser=Shard.parse, metavar="K/N", help="Process the K-th of N parts of the files (default: all)."),
]


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
