"""Audio tasks in Python: resampling, mels, vocoding and resynthesis from files and pipes to files and pipes.

Sounds are streamed in blocks. Mels are held in memory: 99 MB per hour at 22,050 Hz with 80 bands and a hop of 256.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gan_audio.mel.contract import MelContract, MelSpectrogram
from gan_audio.mel.files import ARRAY, MEL_BYTES, read_array, read_mel, refuse_array, write_mel
from gan_audio.mel.files import SUFFIX as MEL_SUFFIX
from gan_audio.sound.encoding import check_writable, open_sound_writer
from gan_audio.sound.files import CONVERT, FOREIGN, SUFFIXES, listed, report_clipped, report_notes
from gan_audio.sound.pipes import FileSound, GivenMel, PipedSound, Raw, StandardOutput, read_pipe
from gan_audio.sound.sources import SOUNDS, gain
from gan_audio.sound.wav import WavWriter, open_wav
from gan_audio.systems.vocoder import Vocoder
from gan_core.data.files import FileKind, names_ending, open_files
from gan_core.errors import DataError, InputError, count
from gan_core.jobs import PIPE, Input, Job, Outcome, Shard, Show, send, standard_input
from gan_core.play.game import Game

SOUNDS_AND_MELS = FileKind("sound", (*SUFFIXES, MEL_SUFFIX), FOREIGN, CONVERT)
"""Inputs that may be sounds or mels."""
WITH_ARRAYS = FileKind("sound", (*SOUNDS_AND_MELS.suffixes, ARRAY), FOREIGN, CONVERT)
"""Inputs that may be sounds, mels, or mels as NumPy arrays."""

logger = logging.getLogger("gan_audio")


# --- inputs

Source = FileSound | PipedSound | GivenMel
"""An opened input."""


def open_input(one: Input, raw: Raw | None = None, contract: MelContract | None = None) -> Source:
    """Opens and checks an input.

    Args:
        one: the file, or standard input.
        raw: format of raw samples on standard input; None for a WAV or mel file.
        contract: contract of mels as NumPy arrays, which are not read without it.

    Raises:
        DataError: the input cannot be read.
        InputError: standard input is closed.
    """
    if one.path is None:
        return read_pipe(standard_input(), raw)
    path, suffix = one.path, one.path.suffix.lower()
    if suffix == ARRAY and contract is not None:
        _, exchanged = read_array(path, contract)
        if exchanged:
            logger.warning("%s: the array is read as [frames, mels]", one.name)
        return GivenMel(contract, lambda: read_array(path, contract)[0])
    refuse_array(path)
    if suffix == ".safetensors":
        return GivenMel(read_mel(path)[1], lambda: read_mel(path)[0])
    return FileSound(path)


def _open(
    job: Job, raw: Raw | None, check: Callable[[Input, Source], None], contract: MelContract | None = None
) -> list[tuple[Input, Source]]:
    """Opens and checks all inputs of a job before anything is written. Unreadable files in folders are skipped.

    Raises:
        DataError: an input that was named directly cannot be opened, or `check` rejects it.
        InputError: `raw` or `contract` has no effect.
    """
    if raw is not None and all(one.path is not None for one in job.inputs):
        raise InputError("`--raw` has no effect without standard input (`-`); omit it")
    if contract is not None and not any(
        one.path is not None and one.path.suffix.lower() == ARRAY for one in job.inputs
    ):
        raise InputError(
            "`--contract` applies to .npy files, and none is given; omit it for mel files, and convert other arrays "
            "with numpy.save"
        )
    opened = job.open(lambda one: open_input(one, raw, contract))
    for one, source in opened:
        check(one, source)
    _note(opened)
    return opened


def _note(opened: Sequence[tuple[Input, Source]]) -> None:
    """Warns about sounds that are mixed to one channel, about the noise of 8-bit sounds, and about unusual files."""
    sounds = {one.name: source for one, source in opened if not isinstance(source, GivenMel)}
    mixed = [name for name, sound in sounds.items() if sound.channels > 1]
    coarse = [name for name, sound in sounds.items() if sound.bits == 8]
    for names, what in (
        (mixed, "with several channels mixed to one"),
        (coarse, "with 8 bits, which have noise at -50 dB"),
    ):
        if names:
            logger.warning("%s %s: %s", count(len(names), "sound"), what, listed(names))
    report_notes({name: sound.note for name, sound in sounds.items()})


def _run(
    job: Job, opened: Sequence[tuple[Input, Source]], make: Callable[[Source, Path | None, Show], None]
) -> Outcome:
    """Runs a job, and warns about what was only found while its sounds were read; see `Job.run`."""
    outcome = job.run(opened, make)
    sounds = {one.name: source for one, source in opened if not isinstance(source, GivenMel)}
    report_notes({name: sound.note for name, sound in sounds.items() if isinstance(sound, PipedSound)})
    report_clipped({name: sound.clipped for name, sound in sounds.items()}, remedy="lower their level beforehand")
    return outcome


# --- the tasks


def write_mels(
    given: Sequence[str], out: str, contract: MelContract, *, raw: Raw | None = None, shard: Shard | None = None
) -> Outcome:
    """Computes mels of sounds and writes them to files.

    Sounds are resampled to the contract's rate, and channels are averaged.

    Args:
        given: files, folders and `-`.
        out: output folder, in which the folder structure is kept, or `-`.
        contract: mel settings.
        raw: format of raw samples on standard input; None for a WAV file.
        shard: part of the files that is processed (default: all).

    Raises:
        DataError: an input cannot be read.
        InputError: a file exists or cannot be written.
        OutputClosed: standard output is closed.
    """
    job = Job(given, out, kind=SOUNDS, suffix=MEL_SUFFIX, shard=shard)
    opened, analysis = _open(job, raw, _refuse_mel), MelSpectrogram(contract)

    def convert(source: Source, target: Path | None, show: Show) -> None:
        assert not isinstance(source, GivenMel)
        _write_mel_to(target, _collected(analysed(analysis, source), show, contract), contract)

    return _run(job, opened, convert)


def resample(
    given: Sequence[str],
    out: str,
    *,
    sample_rate: int | None = None,
    mono: bool = False,
    peak: float | None = None,
    shard: Shard | None = None,
) -> Outcome:
    """Converts sounds to another sample rate, level or number of channels, in the format and encoding of each file.

    Sounds are read and written in blocks. Tags are not kept.

    Args:
        given: files and folders.
        out: output folder, in which the folder structure is kept.
        sample_rate: sample rate in Hz (default: that of each file).
        mono: whether channels are averaged.
        peak: maximum magnitude to which each sound is scaled (default: levels are kept).
        shard: part of the files that is processed (default: all).

    Raises:
        DataError: an input cannot be read, or its format does not support the sample rate.
        InputError: a file exists or cannot be written, `-` is given, or nothing would change.
    """
    if PIPE in (*given, out):
        raise InputError("`resample` works on files; in a pipe, use `ffmpeg -i - -ar RATE -f wav -`")
    if sample_rate is None and peak is None and not mono:
        raise InputError("nothing would change; give `--rate`, `--mono` or `--peak`")
    job = Job(given, out, kind=SOUNDS, suffix=None, shard=shard)
    clipped = dict[str, int]()

    def open_one(one: Input) -> FileSound:
        sound = FileSound(cast(Path, one.path))
        check_writable(**form(sound))
        return sound

    def form(sound: FileSound) -> dict[str, Any]:
        rate, channels = sample_rate or sound.sample_rate, 1 if mono else sound.channels
        return {"sample_rate": rate, "channels": channels, "format": sound.format, "encoding": sound.encoding}

    def convert(sound: FileSound, target: Path | None, show: Show) -> None:
        assert target is not None
        wanted = form(sound)
        rate = wanted["sample_rate"]

        def blocks() -> Iterator[Tensor]:
            return sound.blocks(rate, channels=wanted["channels"], clip=False)

        factor = 1.0 if peak is None else gain(max(float(block.abs().max()) for block in blocks()), peak)
        with open_sound_writer(target, samples=sound.length * rate // sound.sample_rate, **wanted) as writer:
            done = 0
            for block in blocks():
                writer.write(block * factor)
                done += block.shape[1]
                show(f"{done / rate:,.1f} s")
        clipped[str(sound.path)] = writer.clipped

    opened = job.open(open_one)
    report_notes({one.name: sound.note for one, sound in opened})
    outcome = job.run(opened, convert)
    report_clipped(clipped, remedy="use `--peak 0.95` to scale them")
    return outcome


def _refuse_mel(one: Input, source: Source) -> None:
    if isinstance(source, GivenMel):
        raise DataError(f"{one.name}: is a mel; expected a sound. Use `vocode` for mels")


def _collected(chunks: Iterable[Tensor], show: Show, contract: MelContract) -> Tensor:
    held, frames = list[Tensor](), 0
    for chunk in chunks:
        held.append(chunk)
        frames += chunk.shape[2]
        show(f"{frames * contract.hop / contract.sample_rate:,.1f} s")
        if frames * contract.mels * 4 > MEL_BYTES:
            raise DataError(
                f"its mel is larger than {MEL_BYTES // 2**20:,} MiB, the maximum; split the sound into parts"
            )
    return torch.cat(held, dim=2)


def _write_mel_to(path: Path | None, mel: Tensor, contract: MelContract) -> None:
    if path is not None:
        write_mel(path, mel, contract)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_mel(file := Path(folder, "mel"), mel, contract)
        send(file.read_bytes())


def analysed(analysis: MelSpectrogram, sound: FileSound | PipedSound) -> Iterator[Tensor]:
    """Yields a sound's mel in chunks `[1, mels, frames]`."""
    return analysis.stream(block[None] for block in sound.blocks(analysis.contract.sample_rate))


def as_vocoder(game: Game, name: str) -> Vocoder:
    """Returns the game, if it is a vocoder.

    Raises:
        InputError: it is not.
    """
    if isinstance(game, Vocoder):
        return game
    raise InputError(
        f"{name}: is a model of {game.title}; expected a vocoder (melgan, hifigan or bigvgan). Use `generate` instead"
    )


def vocode(
    game: Vocoder,
    given: Sequence[str],
    out: str,
    *,
    raw: Raw | None = None,
    raw_out: bool = False,
    convert: bool = False,
    contract: MelContract | None = None,
    shard: Shard | None = None,
) -> Outcome:
    """Converts mels, or the mels of sounds, to 16-bit WAV files at the model's sample rate.

    The result equals `game.vocode` of the whole mel, with one hop per frame. The channels of sounds are averaged.

    Args:
        game: vocoder; its weight normalisation is removed in place.
        given: mel files, sounds, folders and `-`.
        out: output folder, in which the folder structure is kept, or `-`.
        raw: format of raw samples on standard input; None for a WAV or mel file.
        raw_out: whether raw samples, without a WAV header, are written to standard output.
        convert: whether mels of another contract are converted, if that is possible.
        contract: contract of mels as NumPy arrays (`.npy`), which are not read without it.
        shard: part of the files that is processed (default: all).

    Raises:
        DataError: an input cannot be read, or has another contract.
        InputError: a file exists or cannot be written.
        OutputClosed: standard output is closed.
    """

    def check(one: Input, source: Source) -> None:
        if isinstance(source, GivenMel) and not (convert and source.contract.obstacle(game.contract) is None):
            game.contract.check(source.contract, one.name)

    def chunks(source: Source) -> Iterator[Tensor]:
        if isinstance(source, GivenMel):
            return game.stream([source.contract.convert(source.read(), game.contract)])
        return game.stream(analysed(game.mel, source))

    kind = SOUNDS_AND_MELS if contract is None and not _has_only_arrays(given) else WITH_ARRAYS
    return _write_sounds(
        game, given, out, kind, check, chunks, raw=raw, raw_out=raw_out, contract=contract, shard=shard
    )


def _has_only_arrays(given: Sequence[str]) -> bool:
    """Returns whether the given folders have no sounds and mels but NumPy arrays, which are then named in the error."""
    folders = [Path(text) for text in given if Path(text).is_dir()]
    ending = [names_ending(open_files(folder), WITH_ARRAYS.suffixes)[0] for folder in folders]
    return any(names and all(name.lower().endswith(ARRAY) for name in names) for names in ending)


def resynthesize(
    game: Vocoder,
    given: Sequence[str],
    out: str,
    *,
    raw: Raw | None = None,
    raw_out: bool = False,
    shard: Shard | None = None,
) -> Outcome:
    """Converts sounds to mels and back, to 16-bit WAV files of the same length at the model's rate; see `vocode`."""

    def chunks(source: Source) -> Iterator[Tensor]:
        assert not isinstance(source, GivenMel)
        blocks = source.blocks(game.contract.sample_rate)
        return (chunk[None, None] for chunk in game.stream_audio(block[0] for block in blocks))

    return _write_sounds(game, given, out, SOUNDS, _refuse_mel, chunks, raw=raw, raw_out=raw_out, shard=shard)


def _write_sounds(
    game: Vocoder,
    given: Sequence[str],
    out: str,
    kind: FileKind,
    check: Callable[[Input, Source], None],
    chunks: Callable[[Source], Iterator[Tensor]],
    *,
    raw: Raw | None,
    raw_out: bool,
    contract: MelContract | None = None,
    shard: Shard | None,
) -> Outcome:
    """Writes the result of `chunks` for each input to its target."""
    if raw_out and out != PIPE:
        raise InputError("`--raw-out` has no effect on files, which are always WAV; use it with `--out -`, or omit it")
    rate, job = game.contract.sample_rate, Job(given, out, kind=kind, suffix=".wav", shard=shard)
    opened = _open(job, raw, check, contract)
    game.fold()

    def convert(source: Source, target: Path | None, show: Show) -> None:
        samples = 0
        with open_output(target, rate, raw=raw_out) as writer:
            for chunk in chunks(source):
                writer.write(chunk[0])
                samples += chunk.shape[2]
                show(f"{samples / rate:,.1f} s")

    return _run(job, opened, convert)


@contextmanager
def open_output(path: Path | None, sample_rate: int, *, raw: bool) -> Iterator[WavWriter]:
    """Context manager that yields a writer of mono sound to a WAV file, or to standard output (None).

    Raises:
        OutputClosed: the reader has closed standard output.
        InputError: the output cannot be written.
        GanError: the disk is full or broken.
    """
    if path is None:
        yield WavWriter(StandardOutput(sample_rate, raw=raw).write)
        return
    with open_wav(path, sample_rate=sample_rate, channels=1) as writer:
        yield writer
