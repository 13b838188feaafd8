"""What can go wrong, as one line each: what was given and where, what was expected, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What the system says where a place is right and the disk is not."""


class GanError(Exception):
    """The work failed; the command line answers with exit status 1."""

    exit_status = 1


class InputError(GanError):
    """The request or its input was wrong; the command line answers with exit status 2."""

    exit_status = 2


class RecipeError(InputError):
    """A setting is unknown, out of range, or makes no sense for this system."""


class DataError(InputError):
    """A data set, a file or a batch is not what the system can read."""


class CheckpointError(InputError):
    """A checkpoint, model folder or run is missing, damaged, or of another system."""


class MissingDependency(InputError, ImportError):
    """An optional library is needed for this request; the message names the command that installs it."""


class NonFiniteError(GanError):
    """A loss or a weight became infinite or not a number; the message says to which step the run was rolled back."""


@contextmanager
def writing(path: object) -> Iterator[None]:
    """Within it, what the system says against writing to a place becomes one line that names the place.

    Raises:
        InputError: nothing can be written there.
        GanError: the disk is full or broken.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            raise GanError(f"{path}: cannot be written ({reason}); make room and try again") from error
        raise InputError(f"{path}: cannot be written ({reason}); choose another place") from error


def unknown(kind: str, name: str, known: Iterable[str], error: type[GanError] = RecipeError) -> GanError:
    """The error for a name that is not among the known ones; it shows the nearest, else all of them."""
    choices = sorted(known)
    start = name[: name.rfind(".") + 1]  # of a dotted key: all would look alike by it
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


def count(number: int, thing: str) -> str:
    """Returns a number with a noun: `1 file`, `2 files`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
