"""What the tasks do, in Python: sounds and mels from files and pipes to files and pipes, block by block.

No sound is held whole. A mel is, with a third of the numbers: those of an hour take 99 MB (at 22,050 Hz, 80 bands).
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from gan_audio.files import SUFFIXES, WavWriter, open_wav
from gan_audio.mel import MEL_BYTES, MelContract, MelSpectrogram, read_mel, write_mel
from gan_audio.mel import SUFFIX as MEL_SUFFIX
from gan_audio.pipes import (
    FileSound,
    GivenMel,
    PipedSound,
    Raw,
    StandardOutput,
    receive,
    send,
    standard_input,
    standard_output,
)
from gan_audio.systems.vocoder import Vocoder
from gan_core.errors import DataError, InputError
from gan_core.files import NAMED, count, names_ending, nothing_readable, open_files, refuse_existing, skip
from gan_core.game import Game

PIPE = "-"
"""In the place of a file: standard input, or standard output."""
STANDARD_INPUT = "standard input"

logger = logging.getLogger("gan_audio")


# --- what is given


@dataclass(frozen=True)
class Input:
    """One file that was given, or standard input.

    Attributes:
        name: for messages.
        path: the file; None is standard input.
        stem: of what is made of it, below the output folder.
        folder: that it was found in, where a folder was given; what cannot be read there is skipped.
    """

    name: str
    path: Path | None
    stem: str
    folder: Path | None = None


def find_inputs(given: Sequence[str], *, mels: bool = False) -> list[Input]:
    """The files that are named, those in folders that are, and standard input for `-`.

    Args:
        given: files, folders and `-`.
        mels: whether mel files in folders count besides sounds.

    Raises:
        DataError: there is no such file or folder, or nothing in it.
        InputError: `-` is given twice.
    """
    suffixes = (*SUFFIXES, MEL_SUFFIX) if mels else SUFFIXES
    found: list[Input] = []
    for text in given:
        path = Path(text)
        if text == PIPE:
            found.append(Input(STANDARD_INPUT, None, "stdin"))
        elif path.is_dir():
            names, seen = names_ending(open_files(path), suffixes)
            if not names:
                raise nothing_readable(text, seen, {}, thing="sound", suffixes=suffixes)
            found += [Input(str(path / name), path / name, _stem(name), path) for name in names]
        elif path.exists():
            found.append(Input(text, path, _stem(path.name)))
        else:
            raise DataError(f"{text}: no such file or folder")
    if sum(one.path is None for one in found) > 1:
        raise InputError("`-` is given twice, and standard input can be read once")
    return found


def _stem(name: str) -> str:
    if name.endswith(MEL_SUFFIX):
        return name.removesuffix(MEL_SUFFIX)
    return str(PurePosixPath(name).with_suffix(""))


Source = FileSound | PipedSound | GivenMel


def open_input(one: Input, raw: Raw | None = None) -> Source:
    """What was given, opened and checked.

    Args:
        one: the file, or standard input.
        raw: what standard input holds, where it is raw samples; else it is a WAV or a mel file.

    Raises:
        DataError: it cannot be read.
        InputError: standard input is closed.
    """
    if one.path is None:
        return receive(standard_input(), raw)
    if one.path.suffix == ".safetensors":
        return GivenMel(read_mel(one.path)[1], lambda: read_mel(one.path)[0])  # type: ignore[arg-type]
    return FileSound(one.path)


# --- one after the other


@dataclass
class Outcome:
    """What came of inputs: the files that were made, and why others were skipped, by name."""

    files: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


class Job:
    """Inputs that are worked through: in a folder, what cannot be read is named, counted and skipped.

    Args:
        inputs: what is given.
    """

    def __init__(self, inputs: Sequence[Input]):
        self.inputs = inputs
        self.skipped: dict[Path, dict[str, str]] = {}

    def open(self, raw: Raw | None, check: Callable[[Input, Source], None]) -> list[tuple[Input, Source]]:
        """All that can be opened; nothing is made before all are checked.

        Raises:
            DataError: something cannot be opened and is of no folder, or `check` refuses it.
            InputError: `raw` has no effect.
        """
        if raw is not None and all(one.path is not None for one in self.inputs):
            raise InputError("`--raw` has no effect: it is of standard input, and no `-` is given; leave it out")
        opened: list[tuple[Input, Source]] = []
        for one in self.inputs:
            with self.attempt(one):
                opened.append((one, open_input(one, raw)))
        for one, source in opened:
            check(one, source)
        _note(opened)
        return opened

    @contextmanager
    def attempt(self, one: Input) -> Iterator[None]:
        """Within it, an input is read."""
        try:
            yield
        except DataError as error:
            reason = str(error).removeprefix(f"{one.name}: ")
            if one.folder is None:
                raise DataError(f"{one.name}: {reason}") from error
            self.skipped.setdefault(one.folder, {})[one.name] = reason

    def close(self, files: list[Path]) -> Outcome:
        """Names what was skipped.

        Raises:
            DataError: nothing is left.
        """
        reasons = {name: reason for some in self.skipped.values() for name, reason in some.items()}
        if not files and reasons:
            folder = next(iter(self.skipped))
            raise nothing_readable(str(folder), len(self.inputs), reasons, thing="sound", suffixes=SUFFIXES)
        for folder, some in self.skipped.items():
            skip({}, some, where=str(folder), thing="file", strict=False, logger=logger)
        return Outcome(files, reasons)


def _note(opened: Sequence[tuple[Input, Source]]) -> None:
    """Says what is lost, or was before, that one may not know of."""
    sounds = [(one.name, source) for one, source in opened if not isinstance(source, GivenMel)]
    mixed = [name for name, sound in sounds if sound.channels > 1]
    coarse = [name for name, sound in sounds if sound.bits == 8]
    for names, what in (
        (mixed, "of several channels, mixed to one"),
        (coarse, "of 8 bits, whose noise lies at -50 dB"),
    ):
        if names:
            more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
            logger.warning("%s %s: %s%s", count(len(names), "sound"), what, ", ".join(names[:NAMED]), more)


def targets(inputs: Sequence[Input], out: str, suffix: str) -> list[Path | None]:
    """The file that is made of each input, in a folder; None is standard output, for `-`.

    Raises:
        InputError: one is there already, two would be the same, or several would go to standard output, or it is
            closed.
    """
    if out == PIPE:
        if len(inputs) > 1:
            raise InputError(f"`--out -` takes one at a time, and {len(inputs):,} are given; name a folder")
        standard_output()
        return [None]
    folder, names = Path(out), dict[str, Input]()
    for one in inputs:
        other = names.setdefault(one.stem + suffix, one)
        if other is not one:
            raise InputError(f"{other.name} and {one.name} would both become {folder / (one.stem + suffix)}; "
                             "write them to two folders")  # fmt: skip
    refuse_existing(folder, names)
    return [folder / name for name in names]


def refuse_file(path: Path) -> None:
    """Checks that a file would not be replaced.

    Raises:
        InputError: it is there.
    """
    if path.exists():
        raise InputError(f"{path}: exists already; choose another name, or remove it")


@contextmanager
def progress(total: int) -> Iterator[Callable[[str, float], None]]:
    """Shows on standard error, if it is a terminal, which input is at work and how many seconds of it are done."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.completed}/{task.total} {task.description}")
    hidden = sys.stderr is None or not sys.stderr.isatty()  # None is closed
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task, last = bar.add_task("", total=total), ""

        def show(name: str, seconds: float) -> None:
            nonlocal last
            bar.update(task, description=f"{name} {seconds:,.1f} s", advance=int(name != last))
            last = name

        yield show


# --- the tasks


def write_mels(given: Sequence[str], out: str, contract: MelContract, *, raw: Raw | None = None) -> Outcome:
    """Mel files of sounds.

    Sounds are brought to the contract's rate, and several channels to their mean.

    Args:
        given: files, folders and `-`.
        out: a folder, where folders keep their structure, or `-`.
        contract: of the mels.
        raw: what `-` holds, where it is raw samples.

    Raises:
        DataError: something cannot be read.
        InputError: a file would be replaced, or cannot be written.
        OutputClosed: standard output is closed.
    """
    job, files = Job(inputs := find_inputs(given)), list[Path]()
    places = dict(zip(inputs, targets(inputs, out, MEL_SUFFIX), strict=True))
    opened, analysis = job.open(raw, _refuse_mel), MelSpectrogram(contract)
    with progress(len(opened)) as show:
        for one, source in opened:
            assert not isinstance(source, GivenMel)
            with job.attempt(one):
                mel = _collected(analysed(analysis, source), partial(show, one.name), contract)
                files += _put_mel(places[one], mel, contract)
    return job.close(files)


def _refuse_mel(one: Input, source: Source) -> None:
    if isinstance(source, GivenMel):
        raise DataError(f"{one.name}: is a mel already; give a sound, or give the mel to `vocode`")


def _collected(chunks: Iterable[Tensor], show: Callable[[float], None], contract: MelContract) -> Tensor:
    held, frames = list[Tensor](), 0
    for chunk in chunks:
        held.append(chunk)
        frames += chunk.shape[2]
        show(frames * contract.hop / contract.sample_rate)
        if frames * contract.mels * 4 > MEL_BYTES:
            raise DataError(f"its mel is larger than {MEL_BYTES // 2**20:,} MiB, which is not read; cut it into parts")
    return torch.cat(held, dim=2)


def _put_mel(path: Path | None, mel: Tensor, contract: MelContract) -> list[Path]:
    if path is not None:
        write_mel(path, mel, contract)
        return [path]
    with tempfile.TemporaryDirectory() as folder:
        write_mel(file := Path(folder, "mel"), mel, contract)
        send(file.read_bytes())
    return [Path(PIPE)]


def analysed(analysis: MelSpectrogram, sound: FileSound | PipedSound) -> Iterator[Tensor]:
    """A sound's mel in chunks `[1, mels, frames]`."""
    return analysis.stream(block[None] for block in sound.blocks(analysis.contract.sample_rate))


def as_vocoder(game: Game, name: str) -> Vocoder:
    """The game, if it makes sound of mels.

    Raises:
        InputError: it does not.
    """
    if isinstance(game, Vocoder):
        return game
    raise InputError(f"{name}: is a model of {game.title}, which makes sounds of noise and not of mels; "
                     "give a vocoder's, or use `generate`")  # fmt: skip


def vocode(
    game: Vocoder, given: Sequence[str], out: str, *, raw: Raw | None = None, raw_out: bool = False,
    convert: bool = False, mono: bool = False,
) -> Outcome:  # fmt: skip
    """Sound of mels, or of the mels of sounds: WAV files of 16-bit PCM at the model's rate.

    What comes out is `game.vocode` of the whole: so many hops as the mel has frames.

    Args:
        game: is folded.
        given: mel files, sounds, folders and `-`.
        out: a folder, where folders keep their structure, or `-`.
        raw: what `-` holds, where it is raw samples.
        raw_out: whether standard output gets samples without a header.
        convert: whether mels of another contract are converted, where that is sound.
        mono: whether sounds of several channels are mixed to one.

    Raises:
        DataError: something cannot be read, or is of another contract, which the message shows.
        InputError: a file would be replaced or cannot be written, or a sound has several channels.
        OutputClosed: standard output is closed.
    """

    def check(one: Input, source: Source) -> None:
        if not isinstance(source, GivenMel):
            _check_channels(one, source, mono)
        elif not convert or source.contract.obstacle(game.contract):
            game.contract.check(source.contract, one.name)

    def chunks(source: Source) -> Iterator[Tensor]:
        if isinstance(source, GivenMel):
            return game.stream([source.contract.convert(source.read(), game.contract)])
        return game.stream(analysed(game.mel, source))

    return _voice(game, find_inputs(given, mels=True), out, check, chunks, raw=raw, raw_out=raw_out)


def resynthesize(
    game: Vocoder, given: Sequence[str], out: str, *, raw: Raw | None = None, raw_out: bool = False, mono: bool = False
) -> Outcome:
    """Sounds to their mels and back, at their length: WAV files of 16-bit PCM at the model's rate; see `vocode`."""

    def check(one: Input, source: Source) -> None:
        if isinstance(source, GivenMel):
            raise DataError(f"{one.name}: is a mel; give a sound, or give the mel to `vocode`")
        _check_channels(one, source, mono)

    def chunks(source: Source) -> Iterator[Tensor]:
        assert not isinstance(source, GivenMel)
        return resynthesized(game, source.blocks(game.contract.sample_rate))

    return _voice(game, find_inputs(given), out, check, chunks, raw=raw, raw_out=raw_out)


def resynthesized(game: Vocoder, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """A sound in blocks `[1, n]` to its mel and back, in chunks `[1, 1, n]`: together, `game.resynthesize` of it."""
    heard = told = 0

    def filled() -> Iterator[Tensor]:
        nonlocal heard
        for block in blocks:
            heard += block.shape[1]
            yield block[None]
        if rest := game.contract.rest(heard):
            yield torch.zeros(1, 1, rest)

    held = torch.zeros(1, 1, 0)
    for chunk in game.stream(game.mel.stream(filled())):
        held = torch.cat([held, chunk.to(held)], dim=2)
        ready = min(held.shape[2], heard - told)  # what lies beyond is kept, until it is known where the sound ends
        yield held[..., :ready]
        held, told = held[..., ready:], told + ready


def _check_channels(one: Input, sound: FileSound | PipedSound, mono: bool) -> None:
    if sound.channels > 1 and not mono:
        raise InputError(f"{one.name}: has {sound.channels} channels, and the model hears one; `--mono` mixes them")


def _voice(
    game: Vocoder, inputs: Sequence[Input], out: str, check: Callable[[Input, Source], None],
    chunks: Callable[[Source], Iterator[Tensor]], *, raw: Raw | None, raw_out: bool,
) -> Outcome:  # fmt: skip
    """What `chunks` makes of each input, written to its place."""
    if raw_out and out != PIPE:
        raise InputError("`--raw-out` has no effect on files, which are WAV; leave it out, or write to `--out -`")
    rate, job, files = game.contract.sample_rate, Job(inputs), list[Path]()
    places = dict(zip(inputs, targets(inputs, out, ".wav"), strict=True))
    opened = job.open(raw, check)
    game.fold()
    with progress(len(opened)) as show:
        for one, source in opened:
            samples = 0
            with job.attempt(one):
                with open_output(places[one], rate, raw=raw_out) as writer:
                    for chunk in chunks(source):
                        writer.write(chunk[0])
                        samples += chunk.shape[2]
                        show(one.name, samples / rate)
                files.append(places[one] or Path(PIPE))
    return job.close(files)


@contextmanager
def open_output(path: Path | None, sample_rate: int, *, raw: bool) -> Iterator[WavWriter]:
    """A writer of mono sound to a WAV file, or to standard output (None).

    Raises:
        OutputClosed: nobody reads standard output any more.
        InputError: nothing can be written there.
        GanError: the disk is full or broken.
    """
    if path is None:
        yield WavWriter(StandardOutput(sample_rate, raw=raw))
        return
    with open_wav(path, sample_rate=sample_rate, channels=1) as writer:
        yield writer
