"""Commands of gan-audio: resampling, mels, vocoding, resynthesis, inspection of files, and interpolations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gan_core.cli import MODEL_HELP, Answer, Commands, Out, Part, Seed, asked_of, made
from gan_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_audio.systems.vocoder import Vocoder

CONTRACT = "hifigan-22k"
"""Default mel contract, which most speech vocoders use."""
Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Sounds = Annotated[list[str], typer.Argument(metavar="IN…", help="Sound files, folders, or - (a WAV).")]
Mels = Annotated[list[str], typer.Argument(metavar="IN…", help="Mel or sound files, folders, or - (either).")]
RawIn = Annotated[str | None, typer.Option(metavar="RATE:CHANNELS:s16", help="Read - as raw 16-bit samples.")]
RawOut = Annotated[bool, typer.Option("--raw-out", help="Write raw 16-bit samples to `--out -`.")]


def mel(
    inputs: Sounds,
    out: Out = None,
    contract: Annotated[
        str, typer.Option(metavar="NAME", help="melgan-22k, hifigan-22k, tacotron2 or 24k.")
    ] = CONTRACT,
    raw: RawIn = None,
    shard: Part = None,
) -> Answer | None:
    """Computes mel spectrograms of sounds.

    Sounds are mixed to one channel and resampled. A mel file contains the settings of its mel.
    """
    from gan_audio.mel.contract import named_contract
    from gan_audio.pipeline import write_mels
    from gan_audio.sound.pipes import Raw

    chosen, asked = named_contract(contract), Raw.parse(raw) if raw is not None else None
    return made(out, lambda place: write_mels(inputs, place, chosen, raw=asked, shard=shard))


def resample(
    inputs: Annotated[list[str], typer.Argument(metavar="IN…", help="Sound files or folders.")],
    out: Out = None,
    rate: Annotated[
        int | None, typer.Option(min=1000, max=768_000, metavar="HZ", help="Sample rate (default: unchanged).")
    ] = None,
    mono: Annotated[bool, typer.Option("--mono", help="Mix the channels to one.")] = False,
    peak: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Scale each sound to this peak (default: unchanged).")
    ] = None,
    shard: Part = None,
) -> Answer | None:
    """Converts sounds to another sample rate, level or to mono.

    Each file keeps its format and encoding. Tags are not kept.
    """
    from gan_audio.pipeline import resample as work

    return made(out, lambda place: work(inputs, place, sample_rate=rate, mono=mono, peak=peak, shard=shard))


def vocode(
    model: Model,
    inputs: Mels,
    out: Out = None,
    raw: RawIn = None,
    raw_out: RawOut = False,
    convert: Annotated[bool, typer.Option("--convert", help="Convert mels with other settings if possible.")] = False,
    contract: Annotated[
        str | None, typer.Option(metavar="NAME", help="Read .npy arrays [mels, frames] with these mel settings.")
    ] = None,
    shard: Part = None,
) -> Answer | None:
    """Converts mels, or the mels of sounds, to sound.

    Writes WAV files or a stream.
    """
    from gan_audio.mel.contract import named_contract
    from gan_audio.pipeline import vocode as work
    from gan_audio.sound.pipes import Raw

    asked = Raw.parse(raw) if raw is not None else None
    chosen = named_contract(contract) if contract is not None else None
    return made(
        out,
        lambda place: work(
            _vocoder(model), inputs, place, raw=asked, raw_out=raw_out, convert=convert, contract=chosen, shard=shard
        ),
    )


def resynthesize(
    model: Model, inputs: Sounds, out: Out = None, raw: RawIn = None, raw_out: RawOut = False, shard: Part = None
) -> Answer | None:
    """Converts sounds to mels and back.

    Writes WAV files of the same length, or a stream.
    """
    from gan_audio.pipeline import resynthesize as work
    from gan_audio.sound.pipes import Raw

    asked = Raw.parse(raw) if raw is not None else None
    return made(out, lambda place: work(_vocoder(model), inputs, place, raw=asked, raw_out=raw_out, shard=shard))


def inspect(
    inputs: Annotated[list[str], typer.Argument(metavar="IN…", help="Sound, mel or MIDI files, or folders.")],
    spectrogram: Annotated[
        Path | None,
        typer.Option(metavar="PNG", dir_okay=False, help="Output .png file for the spectrogram of one sound."),
    ] = None,
) -> Answer:
    """Describes sound, mel and MIDI files.

    Prints the sample rate, channels, length, level, clipping and silence of sounds, the settings of mels, and the
    tracks, tempo, bars and notes of MIDI files.
    """
    from gan_audio.sound.inspection import INSPECTED, inspect_file
    from gan_core.errors import DataError, count, printable
    from gan_core.jobs import find_inputs, refuse_file

    files, unreadable = find_inputs(inputs, INSPECTED)
    if any(one.path is None for one in files):
        raise InputError("`inspect` reads files, not standard input; write it to a file first")
    if spectrogram is not None:
        if len(files) > 1:
            raise InputError("`--spectrogram` needs exactly one sound file")
        if spectrogram.suffix != ".png":
            raise InputError(f"`--spectrogram` is {spectrogram}; expected a .png file")
        refuse_file(spectrogram)
    found: dict[str, dict[str, Any]] = {}
    notes, failed = [], False
    for name, reason in (each for named in unreadable.values() for each in named.items()):
        found[name] = {"error": reason}
        notes.append(f"cannot read {printable(name)}: {reason}")
    for one in files:
        try:
            found[one.name] = inspect_file(Path(one.name), picture=spectrogram)
        except DataError as error:
            if len(files) == 1:
                raise
            found[one.name] = {"error": str(error).removeprefix(f"{one.name}: ")}
            notes.append(f"cannot read {printable(str(error))}")
            failed |= one.folder is None
    lines = [f"{printable(name)}: {_described(facts)}" for name, facts in found.items() if "error" not in facts]
    if len(files) > 1:
        seconds = sum(facts.get("seconds", 0) for facts in found.values())
        bad = f", {len(notes):,} unreadable" if notes else ""
        lines.append(f"{count(len(found), 'file')}{bad}, {seconds:,.3f} s in total")
    return Answer(found, "\n".join(lines), notes, status=2 if failed else 0)


def interpolate(
    context: typer.Context,
    model: Model,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Output .wav file.")] = None,
    steps: Annotated[int, typer.Option(min=2, max=1024, help="Number of sounds, including both ends.")] = 8,
    seed: Seed = 0,
) -> Answer:
    """Writes sounds that interpolate between two latents.

    The sounds follow each other in one file. Additional options set the model's conditions, such as --label NAME|INDEX
    (default: the first class), and --truncation PSI.
    """
    from gan_audio.api import load
    from gan_audio.media import write_joined
    from gan_core.jobs import refuse_file
    from gan_core.play.interpolation import interpolated

    if out is None:
        raise InputError("`--out` is missing: name the sound, for example --out interpolation.wav")
    if out.suffix != ".wav":
        raise InputError(f"`--out` is {out}; expected a .wav file")
    refuse_file(out)
    game = load(model)
    given = asked_of(game, context, 1, game.latent, game.render)
    write_joined(interpolated(game, rows=1, steps=steps, seed=seed, **given), out, game)
    return Answer({"file": str(out), "sounds": steps, "seed": seed}, str(out))


def _vocoder(model: str) -> Vocoder:
    from gan_audio.api import load
    from gan_audio.pipeline import as_vocoder

    return as_vocoder(load(model), model)


def _described(facts: Mapping[str, Any]) -> str:
    """Returns the facts of a file as one line."""
    if facts["format"] == "MIDI":
        tempo = "no tempo" if facts["tempo"] is None else f"{facts['tempo']:.4g} BPM"
        parts = (f"{facts[key]:,} {key if facts[key] != 1 else key[:-1]}" for key in ("tracks", "bars", "notes"))
        problem = f"; no tune: {facts['problem']}" if facts["problem"] else ""
        return f"MIDI, {', '.join(parts)}, {facts['metre']}, {tempo}, {facts['seconds']:.3f} s{problem}"
    if facts["format"] == "mel":
        return f"mel, {facts['frames']:,} frames, {facts['seconds']:.3f} s, {facts['described']}"
    peak, rms = ("silent" if facts[key] is None else f"{facts[key]:.2f} dBFS" for key in ("peak", "rms"))
    bits = facts["encoding"] if facts["bits"] is None else f"{facts['bits']} bits ({facts['encoding']})"
    note = f"; {facts['note']}" if facts["note"] else ""
    channels = f"{facts['channels']} channel{'' if facts['channels'] == 1 else 's'}"
    return (
        f"{facts['format']}, {facts['sample_rate']:,} Hz, {channels}, {bits}, {facts['seconds']:.3f} s, "
        f"peak {peak}, RMS {rms}, {facts['clipped']:,} clipped, {facts['silent']:.1%} silent{note}"
    )


COMMANDS: Commands = {
    "resample": resample,
    "mel": mel,
    "vocode": vocode,
    "resynthesize": resynthesize,
    "inspect": inspect,
    "interpolate": interpolate,
}
