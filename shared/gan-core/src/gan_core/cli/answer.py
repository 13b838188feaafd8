"""Results of commands, and how they are printed."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gan_core.errors import GanError, InputError, escaped, say
from gan_core.jobs import PIPE, Outcome, OutputClosed


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
