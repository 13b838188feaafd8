"""Exceptions. Each message is one line: the value and where it was given, what is valid, and how to fix it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""errno values that mean a full or failing disk, rather than a wrong path."""


class GanError(Exception):
    """Base class of errors: the work failed. The command line exits with status 1."""

    exit_status = 1


class InputError(GanError):
    """The request or its input was wrong. The command line exits with status 2."""

    exit_status = 2


class RecipeError(InputError):
    """A setting is unknown, out of range, or not supported by the system."""


class DataError(InputError):
    """A dataset, a file or a batch cannot be read or does not fit the system."""


class CheckpointError(InputError):
    """A checkpoint, model folder or run is missing, damaged, or belongs to another system."""


class MissingDependency(InputError, ImportError):
    """An optional library is missing; the message contains the command that installs it."""


class NonFiniteError(GanError):
    """A loss or a weight became infinite or NaN; the message states the step to which the run was rolled back."""


@contextmanager
def writing(path: object) -> Iterator[None]:
    """Context manager that converts operating-system errors to errors with a one-line message and the path.

    Raises:
        InputError: the path cannot be written.
        GanError: the disk is full or failing.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            raise GanError(f"{path}: cannot be written ({reason}); free some space and try again") from error
        raise InputError(f"{path}: cannot be written ({reason}); choose another place") from error


def unknown(kind: str, name: str, known: Iterable[str], error: type[GanError] = RecipeError) -> GanError:
    """Returns the error for an unknown name. The message suggests the most similar known name, or lists all names."""
    choices = sorted(known)
    start = name[: name.rfind(".") + 1]  # shared start of dotted keys, which would make all of them similar
    ends = {choice.removeprefix(start): choice for choice in choices}
    near = get_close_matches(name.removeprefix(start), ends, n=1, cutoff=0.6)
    if near:
        hint = f"did you mean `{ends[near[0]]}`?"
    elif choices:
        hint = f"known: {', '.join(choices)}"
    else:
        hint = "there are none"
    return error(f"unknown {kind} `{name}`; {hint}")


NAMED = 5
"""Maximum number of skipped files that a warning names."""


class Unreadable(DataError):
    """A file that cannot be read; the message is the reason."""


def reason_of(error: BaseException) -> str:
    """Returns an exception's message, or else its type, in one printable line of at most 200 characters."""
    return printable((" ".join(str(error).split()) or type(error).__name__)[:200])


def printable(text: str) -> str:
    """Returns a text that is safe to print to a terminal, with unprintable characters escaped."""
    return text if text.isprintable() else ascii(text)


def say(line: str) -> None:
    """Prints a line to standard error, with unprintable characters escaped; does nothing if that is closed or full."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(escaped(line), file=sys.stderr, flush=True)  # noqa: T201


def escaped(text: str) -> str:
    """Returns a text of several lines that is safe to print, with each unprintable character escaped.

    Text that may come from files passes through this function where it is printed, because terminals execute control
    sequences.
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def count(number: int, thing: str) -> str:
    """Returns a number with a noun: `1 file`, `2 files`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
