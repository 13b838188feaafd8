"""The program of a domain: its commands, exit status and error messages."""

from __future__ import annotations

import inspect
import io
import itertools
import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from gan_core import __version__
from gan_core.cli.answer import Answer, show
from gan_core.cli.commands import commands
from gan_core.cli.options import ModelCommand, UsageError
from gan_core.domain import Domain, find_domains
from gan_core.errors import FULL, GanError, InputError, escaped, reason_of, say
from gan_core.places import expanded

LONGEST_MESSAGE = 500
"""Maximum length of an error message, in characters."""
FLAGS = ("--json", "--debug")
"""Options of every command."""
PLACES = ("--data", "--out", "--recipe", "--keep", "--weights")
"""Options that name a file, a folder or a dataset."""
EXTRA_ARGUMENTS = re.compile(r"^Got unexpected extra argument\S* \((.*)\)$")
"""Message of click that is reworded."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""Parts of the messages with which torch reports that memory is full."""
INTERRUPTED = 130
"""Exit status after Ctrl-C. Commands that train write a checkpoint and exit with 0 instead."""


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
