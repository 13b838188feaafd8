"""Commands of gan-audio: mels, vocoding, resynthesis, inspection of files, and interpolations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gan_core.cli import MODEL_HELP, Answer, Commands, Out, Part, Seed, asked_of, made
from gan_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

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
    from gan_audio.mel.contract import CONTRACTS
    from gan_audio.pipeline import write_mels
    from gan_audio.sound.pipes import Raw
    from gan_core.errors import unknown

    if contract not in CONTRACTS:
        raise unknown("mel contract", contract, CONTRACTS)
    asked = Raw.parse(raw) if raw is not None else None
    return made(out, lambda place: write_mels(inputs, place, CONTRACTS[contract], raw=asked, shard=shard))


def vocode(
    model: Model,
    inputs: Mels,
    out: Out = None,
    raw: RawIn = None,
    raw_out: RawOut = False,
    convert: Annotated[bool, typer.Option("--convert", help="Convert mels with other settings if possible.")] = False,
    shard: Part = None,
) -> Answer | None:
    """Converts mels, or the mels of sounds, to sound.

    Writes WAV files or a stream.
    """
    from gan_audio.pipeline import vocode as work
    from gan_audio.sound.pipes import Raw

    asked = Raw.parse(raw) if raw is not None else None
    return made(
        out,
        lambda place: work(_vocoder(model), inputs, place, raw=asked, raw_out=raw_out, convert=convert, shard=shard),
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
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Sound or mel files.")],
    spectrogram: Annotated[
        Path | None,
        typer.Option(metavar="PNG", dir_okay=False, help="Output .png file for the spectrogram of one sound."),
    ] = None,
) -> Answer:
    """Describes sound and mel files.

    Prints the sample rate, channels, length, level, clipping and silence of sounds, and the settings of mels.
    """
    from gan_audio.sound.inspection import inspect_mel, inspect_sound
    from gan_core.jobs import refuse_file

    mels = [file for file in files if file.suffix.lower() == ".safetensors"]
    if spectrogram is not None:
        if len(files) > 1 or mels:
            raise InputError("`--spectrogram` needs exactly one sound file")
        if spectrogram.suffix != ".png":
            raise InputError(f"`--spectrogram` is {spectrogram}; expected a .png file")
        refuse_file(spectrogram)
    found = {
        str(file): inspect_mel(file) if file in mels else inspect_sound(file, picture=spectrogram) for file in files
    }
    text = "\n".join(f"{name}: {_described(facts)}" for name, facts in found.items())
    return Answer(found, text)


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
    if facts["format"] == "mel":
        return f"mel, {facts['frames']:,} frames, {facts['seconds']:.3f} s, {facts['described']}"
    peak, rms = ("silent" if facts[key] is None else f"{facts[key]:.2f} dBFS" for key in ("peak", "rms"))
    bits = facts["encoding"] if facts["bits"] is None else f"{facts['bits']} bits ({facts['encoding']})"
    channels = f"{facts['channels']} channel{'' if facts['channels'] == 1 else 's'}"
    return (
        f"{facts['format']}, {facts['sample_rate']:,} Hz, {channels}, {bits}, {facts['seconds']:.3f} s, "
        f"peak {peak}, RMS {rms}, {facts['clipped']:,} clipped, {facts['silent']:.1%} silent"
    )


COMMANDS: Commands = {
    "mel": mel,
    "vocode": vocode,
    "resynthesize": resynthesize,
    "inspect": inspect,
    "interpolate": interpolate,
}
