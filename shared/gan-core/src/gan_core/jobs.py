"""Tasks on files: inputs, their targets, progress, unreadable files, and pipes.

A domain's task reads files, folders or standard input, and writes to one file for each input or to standard output:

1. `Job` finds the inputs and their targets. If a file would be overwritten, it raises an error before anything is read.
2. `Job.open` opens all inputs. An unreadable file in a folder is skipped; one that was named directly is an error.
3. `Job.run` writes the files one after the other and shows progress.

The folder structure is kept. A large job can be split over machines without coordination (`Shard`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Self, TypeVar

from gan_core.data.files import FileKind, names_ending, nothing_readable, open_files, skip
from gan_core.data.folders import other_files
from gan_core.errors import DataError, InputError, printable, writing
from gan_core.media.writing import refuse_existing
from gan_core.places import expanded

PIPE = "-"
"""Name of standard input and standard output on the command line."""
STANDARD_INPUT = "standard input"

Source = TypeVar("Source")
Show = Callable[[str], None]
"""Function that shows the progress on an input, for example `12.3 s` or `tile 3 of 12`."""


class Shard(NamedTuple):
    """One part of a job that is split into parts of about equal size.

    If all machines are given the same inputs, the parts are disjoint and cover the whole job.

    Attributes:
        number: number of the part, from 1.
        total: number of parts.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `K/N`.

        Raises:
            InputError: the text does not have this form, or K is not from 1 to N.
        """
        number, slash, total = text.partition("/")
        given = number.isdecimal() and slash and total.isdecimal()
        if not given or not 1 <= int(number) <= int(total):
            raise InputError(f"`--shard` is {text}; expected K/N with K from 1 to N, for example 1/4")
        return cls(int(number), int(total))


@dataclass(frozen=True)
class Input:
    """A file, or standard input.

    Attributes:
        name: name in messages.
        path: the file; None for standard input.
        stem: path of the target relative to the output folder, without a suffix.
        folder: the folder in which the file was found; None if the file was named directly.
    """

    name: str
    path: Path | None
    stem: str
    folder: Path | None = None


def find_inputs(given: Sequence[str], kind: FileKind) -> tuple[list[Input], dict[Path, dict[str, str]]]:
    """Returns the given files, the files of a kind in the given folders, and standard input for `-`.

    Returns:
        The inputs; and by folder, the reasons by name of files that seem to be of the kind but cannot be read.

    Raises:
        DataError: a file or folder does not exist, or a folder has no file of the kind.
        InputError: `-` is given twice.
    """
    found: list[Input] = []
    unreadable: dict[Path, dict[str, str]] = {}
    for text in given:
        path = expanded(text)
        if text == PIPE:
            found.append(Input(STANDARD_INPUT, None, "stdin"))
        elif path.is_dir():
            files = open_files(path)
            names, seen = names_ending(files, kind.suffixes)
            others = {} if len(names) == seen else other_files(files, kind)
            named = {str(path / name): reason for name, reason in others.items() if reason}
            if not names:
                raise nothing_readable(text, seen, named, kind)
            unreadable |= {path: named} if named else {}
            found += [Input(str(path / name), path / name, _stem(name, kind), path) for name in names]
        elif path.exists():
            found.append(Input(text, path, _stem(path.name, kind)))
        else:
            raise DataError(f"{text}: no such file or folder")
    if sum(one.path is None for one in found) > 1:
        raise InputError("`-` is given twice, but standard input can only be read once")
    return found, unreadable


def _stem(name: str, kind: FileKind) -> str:
    """Returns a name without its suffix, which may contain several dots."""
    suffix = max((suffix for suffix in kind.suffixes if name.lower().endswith(suffix)), key=len, default="")
    return name[: -len(suffix)] if suffix else str(PurePosixPath(name).with_suffix(""))


@dataclass
class Outcome:
    """The result of a job.

    Attributes:
        files: paths of the written files.
        skipped: reason for each skipped file, by name.
    """

    files: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


class Job:
    """The work of one task on its inputs.

    Args:
        given: files, folders and `-`.
        out: the output folder, or `-` for standard output.
        kind: kind of the files that the task reads.
        suffix: suffix of the output files; None if each keeps that of its input.
        shard: part of the inputs that is processed (default: all).

    Attributes:
        inputs: the inputs of this shard.
        targets: output file of each input; None for standard output.

    Raises:
        DataError: a file or folder does not exist, or a folder has no file of the kind.
        InputError: a target exists or belongs to two inputs, several inputs would go to standard output, standard
            output is closed, or standard input or output is used with a shard.
    """

    def __init__(
        self, given: Sequence[str], out: str, *, kind: FileKind, suffix: str | None, shard: Shard | None = None
    ):
        self.kind, self.shard = kind, shard
        everything, unreadable = find_inputs(given, kind)
        self._skipped = unreadable if shard is None or shard.number == 1 else {}  # named once
        if shard is not None and (out == PIPE or any(one.path is None for one in everything)):
            raise InputError("`--shard` applies to files, and `-` is a single stream; omit `--shard`")
        self.inputs = everything if shard is None else _part(everything, shard)
        self.targets: dict[Input, Path | None]
        folder = expanded(out)
        if out == PIPE:
            if len(everything) > 1:
                raise InputError(
                    f"`--out -` takes one input, but there are {len(everything):,}; choose an output folder"
                )
            standard_output()
            self.targets = dict.fromkeys(self.inputs)
        else:
            _refuse_collisions(everything, folder, suffix)
            refuse_existing(folder, [_target(one, suffix) for one in self.inputs])
            self.targets = {one: folder / _target(one, suffix) for one in self.inputs}

    def open(self, opener: Callable[[Input], Source]) -> list[tuple[Input, Source]]:
        """Returns the inputs that are not skipped, with their opened sources.

        Args:
            opener: opens and checks an input, and raises a `DataError` if it cannot be read.

        Raises:
            DataError: an input that was named directly cannot be read.
        """
        opened: list[tuple[Input, Source]] = []
        for one in self.inputs:
            with self._attempt(one):
                opened.append((one, opener(one)))
        return opened

    def run(self, opened: Sequence[tuple[Input, Source]], make: Callable[[Source, Path | None, Show], None]) -> Outcome:
        """Writes the output of each source, logs skipped files, and shows progress in a terminal.

        Args:
            opened: the result of `open`.
            make: takes a source, its target and a function that shows progress. It writes the output to the target
                atomically (see `gan_core.media.writing.replacing`), or to standard output if the target is None (see
                `send`), and raises a `DataError` if the source is unreadable.

        Raises:
            DataError: an input that was named directly cannot be read, or no input can be read.
        """
        outcome = Outcome()
        with _progress(len(opened)) as show:
            for one, source in opened:
                show(one.name, "")
                with self._attempt(one):
                    target = self.targets[one]
                    make(source, target, lambda done, name=one.name: show(name, done))  # type: ignore[misc]
                    outcome.files.append(target or Path(PIPE))
        outcome.skipped = {name: reason for some in self._skipped.values() for name, reason in some.items()}
        if outcome.skipped and not outcome.files and self.shard is None:
            folder, few = next(iter(self._skipped)), outcome.skipped
            raise nothing_readable(str(folder), len(self.inputs), few, self.kind)
        for folder, reasons in self._skipped.items():
            skip({}, reasons, where=str(folder), thing="file", strict=False)
        return outcome

    @contextmanager
    def _attempt(self, one: Input) -> Iterator[None]:
        """Context manager that records an unreadable file in a folder as skipped."""
        try:
            yield
        except DataError as error:
            reason = str(error).removeprefix(f"{one.name}: ")
            if one.folder is None:
                raise DataError(f"{one.name}: {reason}") from error
            self._skipped.setdefault(one.folder, {})[one.name] = reason


def _target(one: Input, suffix: str | None) -> str:
    """Returns the target of an input relative to the output folder."""
    return one.stem + (Path(one.name).suffix if suffix is None else suffix)


def _refuse_collisions(inputs: Iterable[Input], folder: Path, suffix: str | None) -> None:
    """Checks, over all shards, that no two inputs have the same target."""
    by_target = dict[str, Input]()
    for one in inputs:
        other = by_target.setdefault(_target(one, suffix), one)
        if other is not one:
            target = folder / _target(one, suffix)
            raise InputError(f"{other.name} and {one.name} would both be written to {target}; use two output folders")


def _part(inputs: Iterable[Input], shard: Shard) -> list[Input]:
    """Returns every N-th input in sorted order, because neighbours often have similar sizes."""
    return sorted(inputs, key=lambda one: one.stem)[shard.number - 1 :: shard.total]


def refuse_file(path: Path) -> None:
    """Checks that a file does not exist.

    Raises:
        InputError: it exists.
    """
    if path.exists():
        raise InputError(f"{path}: already exists; choose another name, or remove it")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, str], None]]:
    """Context manager that yields a function to show the current input and its progress, if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.completed}/{task.total} {task.description}", markup=False)
    hidden = sys.stderr is None or not sys.stderr.isatty()  # None if it is closed
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task, last = bar.add_task("", total=total), ""

        def show(name: str, done: str) -> None:
            nonlocal last
            bar.update(task, description=f"{printable(name)} {done}", advance=int(name != last))
            last = name

        yield show


# --- pipes


class OutputClosed(Exception):
    """The reader of standard output has closed the pipe."""


def standard_input() -> IO[bytes]:
    """Returns standard input.

    Raises:
        InputError: it is closed.
    """
    if sys.stdin is None:  # closed before the program began
        raise InputError("standard input is closed; pipe data into it, or give a file")
    return sys.stdin.buffer


def standard_output() -> IO[bytes]:
    """Returns standard output.

    Raises:
        InputError: it is closed.
    """
    if sys.stdout is None:
        raise InputError("standard output is closed; redirect it, or give an output folder")
    return sys.stdout.buffer


def send(data: bytes) -> None:
    """Writes to standard output and flushes it.

    Raises:
        OutputClosed: the reader has closed the pipe.
        InputError: standard output is closed, or cannot be written to.
        GanError: the disk is full or broken.
    """
    output = standard_output()
    with writing("standard output"):
        try:
            output.write(data)
            output.flush()
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # so that flushing at exit does not fail
            raise OutputClosed from error
