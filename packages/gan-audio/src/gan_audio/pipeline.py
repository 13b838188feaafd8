"""What the tasks do, in Python: sounds and mels from files and pipes to files and pipes, block by block.

No sound is held whole. A mel is, with a third of the numbers: those of an hour take 99 MB (at 22,050 Hz, 80 bands).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from gan_audio.files import SUFFIXES, WavWriter, open_wav
from gan_audio.mel import MEL_BYTES, MelContract, MelSpectrogram, read_mel, write_mel
from gan_audio.mel import SUFFIX as MEL_SUFFIX
from gan_audio.pipes import FileSound, GivenMel, PipedSound, Raw, StandardOutput, receive
from gan_audio.systems.vocoder import Vocoder
from gan_core.errors import DataError, InputError
from gan_core.files import NAMED, count
from gan_core.game import Game
from gan_core.jobs import PIPE, FileKind, Input, Job, Outcome, Shard, Show, send, standard_input

SOUNDS = FileKind("sound", SUFFIXES)
SOUNDS_AND_MELS = FileKind("sound", (*SUFFIXES, MEL_SUFFIX))

logger = logging.getLogger("gan_audio")


# --- what is given

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
    if one.path.suffix.lower() == ".safetensors":
        return GivenMel(read_mel(one.path)[1], lambda: read_mel(one.path)[0])  # type: ignore[arg-type]
    return FileSound(one.path)


def _open(job: Job, raw: Raw | None, check: Callable[[Input, Source], None]) -> list[tuple[Input, Source]]:
    """All that can be opened; nothing is made before all are checked.

    Raises:
        DataError: something cannot be opened and is of no folder, or `check` refuses it.
        InputError: `raw` has no effect.
    """
    if raw is not None and all(one.path is not None for one in job.inputs):
        raise InputError("`--raw` has no effect: it is of standard input, and no `-` is given; leave it out")
    opened = job.open(lambda one: open_input(one, raw))
    for one, source in opened:
        check(one, source)
    _note(opened)
    return opened


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


# --- the tasks


def write_mels(
    given: Sequence[str], out: str, contract: MelContract, *, raw: Raw | None = None, shard: Shard | None = None
) -> Outcome:
    """Mel files of sounds.

    Sounds are brought to the contract's rate, and several channels to their mean.

    Args:
        given: files, folders and `-`.
        out: a folder, where folders keep their structure, or `-`.
        contract: of the mels.
        raw: what `-` holds, where it is raw samples.
        shard: the part of the files that is done (default: all).

    Raises:
        DataError: something cannot be read.
        InputError: a file would be replaced, or cannot be written.
        OutputClosed: standard output is closed.
    """
    job = Job(given, out, kind=SOUNDS, suffix=MEL_SUFFIX, shard=shard)
    opened, analysis = _open(job, raw, _refuse_mel), MelSpectrogram(contract)

    def make(source: Source, target: Path | None, show: Show) -> None:
        assert not isinstance(source, GivenMel)
        _put_mel(target, _collected(analysed(analysis, source), show, contract), contract)

    return job.run(opened, make)


def _refuse_mel(one: Input, source: Source) -> None:
    if isinstance(source, GivenMel):
        raise DataError(f"{one.name}: is a mel already; give a sound, or give the mel to `vocode`")


def _collected(chunks: Iterable[Tensor], show: Show, contract: MelContract) -> Tensor:
    held, frames = list[Tensor](), 0
    for chunk in chunks:
        held.append(chunk)
        frames += chunk.shape[2]
        show(f"{frames * contract.hop / contract.sample_rate:,.1f} s")
        if frames * contract.mels * 4 > MEL_BYTES:
            raise DataError(f"its mel is larger than {MEL_BYTES // 2**20:,} MiB, which is not read; cut it into parts")
    return torch.cat(held, dim=2)


def _put_mel(path: Path | None, mel: Tensor, contract: MelContract) -> None:
    if path is not None:
        write_mel(path, mel, contract)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_mel(file := Path(folder, "mel"), mel, contract)
        send(file.read_bytes())


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
    convert: bool = False, mono: bool = False, shard: Shard | None = None,
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
        shard: the part of the files that is done (default: all).

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

    return _voice(game, given, out, SOUNDS_AND_MELS, check, chunks, raw=raw, raw_out=raw_out, shard=shard)


def resynthesize(
    game: Vocoder, given: Sequence[str], out: str, *, raw: Raw | None = None, raw_out: bool = False,
    mono: bool = False, shard: Shard | None = None,
) -> Outcome:  # fmt: skip
    """Sounds to their mels and back, at their length: WAV files of 16-bit PCM at the model's rate; see `vocode`."""

    def check(one: Input, source: Source) -> None:
        if isinstance(source, GivenMel):
            raise DataError(f"{one.name}: is a mel; give a sound, or give the mel to `vocode`")
        _check_channels(one, source, mono)

    def chunks(source: Source) -> Iterator[Tensor]:
        assert not isinstance(source, GivenMel)
        return resynthesized(game, source.blocks(game.contract.sample_rate))

    return _voice(game, given, out, SOUNDS, check, chunks, raw=raw, raw_out=raw_out, shard=shard)


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
    game: Vocoder, given: Sequence[str], out: str, kind: FileKind, check: Callable[[Input, Source], None],
    chunks: Callable[[Source], Iterator[Tensor]], *, raw: Raw | None, raw_out: bool, shard: Shard | None,
) -> Outcome:  # fmt: skip
    """What `chunks` makes of each input, written to its place."""
    if raw_out and out != PIPE:
        raise InputError("`--raw-out` has no effect on files, which are WAV; leave it out, or write to `--out -`")
    rate, job = game.contract.sample_rate, Job(given, out, kind=kind, suffix=".wav", shard=shard)
    opened = _open(job, raw, check)
    game.fold()

    def make(source: Source, target: Path | None, show: Show) -> None:
        samples = 0
        with open_output(target, rate, raw=raw_out) as writer:
            for chunk in chunks(source):
                writer.write(chunk[0])
                samples += chunk.shape[2]
                show(f"{samples / rate:,.1f} s")

    return job.run(opened, make)


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
