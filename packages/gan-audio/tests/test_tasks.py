"""Commands of gan-audio: files, folders and pipes as inputs and outputs, and invalid requests.

Commands run in this process, except where pipes between processes are the subject.
"""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import mido
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.testing import assert_close

import gan_audio
from gan_audio import DOMAIN
from gan_audio.media import SILENCE
from gan_audio.mel.contract import CONTRACTS, MelSpectrogram
from gan_audio.mel.files import read_array, read_mel, write_mel
from gan_audio.reference import IMPORTERS
from gan_audio.sound import files
from gan_audio.sound.files import read_sound
from gan_audio.sound.inspection import PICTURE
from gan_audio.sound.pipes import PIPE_BYTES, PipedSound, Raw, read_pipe
from gan_audio.sound.spec import SoundSpec
from gan_audio.sound.wav import WavWriter, write_wav
from gan_audio.systems import hifigan
from gan_audio.tune.compose import make_tunes
from gan_audio.tune.midi import write_midi
from gan_core.cli import game_around, main
from gan_core.data.files import FolderFiles
from gan_core.errors import CheckpointError, DataError, InputError, Unreadable
from gan_core.models.reference import read_reference, renamed
from gan_core.testing import find_fixtures

RATE = 22_050
TINY = CONTRACTS["hifigan-22k"].but(mels=5, hop=8, fft_size=32, window=32, high_hz=None)
PROGRAM = [sys.executable, "-m", "gan_audio"]

Call = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Uses one thread, which is faster for networks this small if the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Model folders of untrained networks, by system."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    small = {
        "melgan": {
            "mel": TINY.model_dump(),
            "rates": (4, 2),
            "generator": {"width": 4, "depth": 2},
            "discriminator": {"scales": 2, "width": 4, "depth": 1},
        },
        "wavegan": {"samples": 256, "latent_dim": 4, "width": 2, "num_classes": 3},
        "specgan": {"samples": 256, "latent_dim": 4, "width": 2},
    }
    for system, network in small.items():
        gan_audio.create(system, **network).save_pretrained(folder / system)
    return folder


@pytest.fixture(scope="module")
def game(models):
    return gan_audio.load(models / "melgan")


@pytest.fixture
def gan(capfdbinary, monkeypatch, tmp_path) -> Call:
    """Runs `gan-audio WORDS…` in an empty folder; returns exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["gan-audio", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main(DOMAIN)
        out, err = capfdbinary.readouterr()
        return end.value.code or 0, out, err.decode()

    return call


@pytest.fixture
def refused(gan, tmp_path):
    """Runs an invalid request, checks that it fails in one line without output, and returns the message."""

    def call(*words: object, stdin: bytes = b"") -> str:
        before = contents(tmp_path)
        status, out, err = gan(*words, stdin=stdin)
        assert (status, out) == (2, b""), err
        assert err.count("\n") == 1, err
        assert contents(tmp_path) == before
        return err.removeprefix("gan-audio: ").removesuffix("\n")

    return call


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def noise(samples, channels=1, *, seed=0):
    """`[channels, samples]`."""
    return 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed)).clamp(-3, 3)


def save(path, audio, rate=RATE, subtype="PCM_16", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.T.numpy(), rate, subtype=subtype, **options)
    return path


def read(path, **wanted):
    return read_sound(FolderFiles(path.parent), path.name, **wanted)


def levels(audio):
    """Returns sound `[…, n]` in units of 16-bit levels."""
    return audio.mul(2**15).round().flatten()


def assert_same_sound(found, wanted):
    """Compares sounds to one 16-bit level, because of rounding."""
    assert_close(levels(found), levels(wanted), atol=1, rtol=0)


def test_listing_the_commands_loads_no_torch():
    code = "import sys, gan_audio.tasks; print('torch' in sys.modules, sorted(gan_audio.tasks.COMMANDS))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "False ['inspect', 'interpolate', 'mel', 'resample', 'resynthesize', 'vocode']\n"


# --- mel


def test_mels_of_a_folder_are_computed_in_mono_at_the_contracts_rate(gan, tmp_path, caplog):
    stereo = save(tmp_path / "in/a/one.flac", noise(9000, 2), 16_000)
    save(tmp_path / "in/b/two.wav", noise(7000))
    save(tmp_path / "three.wav", noise(5000), subtype="PCM_U8")
    assert gan("mel", "in", "three.wav", "--out", "mels", "--contract", "24k") == (0, b"3 files in mels\n", "")
    assert caplog.messages == [
        f"1 sound with several channels mixed to one: {Path('in/a/one.flac')}",
        "1 sound with 8 bits, which have noise at -50 dB: three.wav",
    ]
    names = ["a", "a/one.mel.safetensors", "b", "b/two.mel.safetensors", "three.mel.safetensors"]
    assert contents(tmp_path / "mels") == names
    mel, contract = read_mel(tmp_path / "mels/a/one.mel.safetensors")
    assert contract == CONTRACTS["24k"]
    whole = read(stereo, sample_rate=24_000, channels=1)
    assert_close(mel, MelSpectrogram(contract)(whole[None]), atol=2e-4, rtol=0)


def test_unreadable_files_in_a_folder_are_named_and_skipped(gan, tmp_path, caplog):
    save(tmp_path / "in/good.wav", noise(5000))
    cut = save(tmp_path / "in/cut.flac", noise(50_000))
    cut.write_bytes(cut.read_bytes()[:30_000])
    (tmp_path / "in/empty.wav").touch()
    status, out, _ = gan("mel", "in", "--out", "mels", "--json")
    assert status == 0
    assert contents(tmp_path / "mels") == ["good.mel.safetensors"]
    document = json.loads(out)
    assert document["files"] == ["mels/good.mel.safetensors"]
    assert sorted(document["skipped"]) == ["in/cut.flac", "in/empty.wav"]
    (said,) = caplog.messages
    assert said.startswith("in: skipped 2 unreadable files: ")
    assert "in/empty.wav (the file is empty)" in said


@pytest.mark.parametrize("words", [("mel",), ("vocode", "MODEL"), ("resynthesize", "MODEL")])
def test_two_shards_make_the_files_of_the_whole_job(gan, refused, models, tmp_path, words):
    words = [models / "melgan" if word == "MODEL" else word for word in words]
    for number, name in enumerate(("a", "b/c", "b/d", "e")):
        save(tmp_path / f"in/{name}.wav", noise(3000, seed=number))
    gan(*words, "in", "--out", "whole")
    parts = [json.loads(gan(*words, "in", "--out", "parts", "--shard", f"{k}/2", "--json")[1])["files"] for k in (1, 2)]
    assert [len(part) for part in parts] == [2, 2]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    for file in (tmp_path / "whole").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "parts" / file.relative_to(tmp_path / "whole")).read_bytes()
    assert refused(*words, "in", "--out", "more", "--shard", "3/2").startswith("`--shard` is 3/2; expected K/N ")


# --- sound of mels


def test_vocoding_in_blocks_equals_the_whole(gan, models, game, tmp_path):
    audio = read(save(tmp_path / "in/x/long.wav", noise(150_000)))
    mel = game.mel(audio[None])
    write_mel(tmp_path / "in/y/long.MEL.SafeTensors", mel, TINY)  # suffixes are known in any case
    status, out, err = gan("vocode", models / "melgan", "in", "--out", "out")
    assert (status, out, err) == (0, b"2 files in out\n", "")
    wanted = game.vocode(mel)
    assert wanted.abs().max() > 0.01
    for name in ("out/x/long.wav", "out/y/long.wav"):
        assert soundfile.info(tmp_path / name).subtype == "PCM_16"
        assert soundfile.info(tmp_path / name).samplerate == RATE
        assert_same_sound(read(tmp_path / name), wanted)


def test_sounds_are_resynthesised_at_their_length(gan, models, game, tmp_path):
    audio = read(save(tmp_path / "a.wav", noise(70_003)))
    assert gan("resynthesize", models / "melgan", "a.wav", "--out", "out")[0] == 0
    found = read(tmp_path / "out/a.wav")
    assert found.shape == audio.shape
    assert_same_sound(found, game.resynthesize(audio[None]))


@pytest.mark.parametrize("command", ["vocode", "resynthesize", "mel"])
def test_stereo_sounds_are_mixed_with_a_note_in_every_task(gan, models, tmp_path, caplog, command):
    for name, channels in (("a", 1), ("b", 2)):
        save(tmp_path / f"in/{name}.wav", noise(5000, channels))
    model = () if command == "mel" else (models / "melgan",)
    status, out, _ = gan(command, *model, "in", "--out", "out")
    assert (status, out) == (0, b"2 files in out\n")
    assert caplog.messages == [f"1 sound with several channels mixed to one: {Path('in/b.wav')}"]


def test_clipped_sounds_are_named_after_a_task(gan, tmp_path, caplog):
    save(tmp_path / "a.wav", 20 * noise(5000), subtype="FLOAT")
    status = gan("mel", "a.wav", "--out", "out")[0]
    clipped = int((read(tmp_path / "a.wav", clip=False).abs() > 1).sum())
    assert (status, clipped > 1000) == (0, True)
    what = "1 sound with samples beyond [-1, 1], which were clipped"
    assert caplog.messages == [f"{what}: a.wav ({clipped:,}); lower their level beforehand"]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("samples", [159, 160, 161])
def test_streamed_resynthesis_equals_the_whole_for_every_block_size(samples, centred):
    torch.manual_seed(0)
    mel = TINY.but(centred=centred).model_dump()
    made = gan_audio.create(
        "melgan", mel=mel, rates=(4, 2), generator={"width": 4, "depth": 2}, discriminator={"width": 4, "depth": 1}
    )
    audio = noise(samples)
    whole = made.resynthesize(audio[None])
    for size in (1, 7, 8, 9, 100, 161):
        chunks = list(made.stream_audio(audio[0].split(size)))
        assert_close(torch.cat(chunks), whole[0, 0], atol=1e-5, rtol=0)
        arrays = list(made.stream_audio([part.double().numpy() for part in audio[0].split(size)]))
        assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
        assert_close(torch.from_numpy(np.concatenate(arrays)), whole[0, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("centred", [False, True])
def test_the_latency_of_streamed_audio_is_known(centred):
    mel = TINY.but(centred=centred).model_dump()
    made = gan_audio.create(
        "melgan", mel=mel, rates=(4, 2), generator={"width": 4, "depth": 2}, discriminator={"width": 4, "depth": 1}
    )
    received = returned = longest = 0

    def microphone():
        nonlocal received, longest
        for _ in range(600):
            received += 1
            yield torch.zeros(1)
            longest = max(longest, received - returned)

    for part in made.stream_audio(microphone()):
        returned += len(part)
        if returned > 500:
            break
    assert longest + 1 == round(made.latency_ms / 1000 * TINY.sample_rate)


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (torch.zeros(1, 1, 8), r"\[1, 1, 8\] of torch.float32"),
        (np.zeros(8, np.int16), r"\[8\] of int16"),
        ([0.0], "list"),
    ],
)
def test_blocks_of_other_shapes_are_refused(game, block, found):
    with pytest.raises(DataError, match=rf"^a block is {found}; expected samples \[n\] as floating-point numbers"):
        list(game.stream_audio([block]))


def test_mels_of_another_contract_are_refused_unless_convert_is_given(gan, refused, models, game, tmp_path):
    other = TINY.but(log_base="10", magnitude_epsilon=0.0)
    mel = MelSpectrogram(other)(noise(4000)[None])
    write_mel(tmp_path / "a.mel.safetensors", mel, other)
    said = refused("vocode", models / "melgan", "a.mel.safetensors", "--out", "out")
    assert said.startswith(
        "a.mel.safetensors: the mel does not have the model's contract; convert it with `--convert`; its contract is "
    )
    assert other.describe() in said
    assert TINY.describe() in said
    assert gan("vocode", models / "melgan", "a.mel.safetensors", "--out", "out", "--convert")[0] == 0
    assert_same_sound(read(tmp_path / "out/a.wav"), game.vocode(other.convert(mel, TINY)))
    write_mel(tmp_path / "b.mel.safetensors", mel, other.but(hop=16))
    said = refused("vocode", models / "melgan", "b.mel.safetensors", "--out", "out", "--convert")
    assert "; it cannot be converted (`hop` differs); its contract is " in said


# --- pipes


def test_standard_output_has_only_the_sound_as_wav_or_raw(gan, models, game, tmp_path):
    audio = read(save(tmp_path / "a.wav", noise(6000)))
    wanted = levels(game.resynthesize(audio[None])).numpy().astype("<i2")
    sent = (tmp_path / "a.wav").read_bytes()
    status, raw, err = gan("resynthesize", models / "melgan", "-", "--out", "-", "--raw-out", "--json", stdin=sent)
    assert (status, err) == (0, "")
    assert np.abs(np.frombuffer(raw, "<i2") - wanted).max() <= 1
    status, wav, _ = gan(
        "resynthesize", models / "melgan", "-", "--out", "-", "--raw", f"{RATE}:1:s16", stdin=sent[44:]
    )
    assert wav[44:] == raw
    (tmp_path / "b.wav").write_bytes(wav)  # of unknown length, as it says
    assert_same_sound(read(tmp_path / "b.wav"), game.resynthesize(audio[None]))
    assert read_pipe(io.BytesIO(wav)).size is None


def test_commands_can_be_piped_into_each_other(models, game, tmp_path):
    audio = read(save(tmp_path / "a.wav", noise(30_000), 16_000), sample_rate=RATE)
    vocode = [*PROGRAM, "vocode", str(models / "melgan"), "-", "--out", "-"]
    mel = [*PROGRAM, "mel", "-", "--out", str(tmp_path / "mels")]
    with (
        (tmp_path / "a.wav").open("rb") as file,
        subprocess.Popen(vocode, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first,
        subprocess.Popen(mel, stdin=first.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second,
    ):
        first.stdout.close()
        out, err = second.communicate()
        assert (out.decode(), err) == (f"1 file in {tmp_path / 'mels'}\n", b"")
        assert (first.stderr.read(), first.wait()) == (b"", 0)
    sent = levels(game.vocode(game.mel(audio[None]))) / 2**15
    found, contract = read_mel(tmp_path / "mels/stdin.mel.safetensors")
    wanted = MelSpectrogram(contract)(sent[None, None])
    assert found.shape == wanted.shape
    assert (found - wanted).abs().mean() < 0.01  # a level may round otherwise


def test_closing_the_output_pipe_ends_the_command_silently(models, tmp_path):
    write_wav(tmp_path / "a.wav", noise(400_000), RATE)
    command = [*PROGRAM, "resynthesize", str(models / "melgan"), str(tmp_path / "a.wav"), "--out", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(4) == b"RIFF"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_mels_are_read_from_and_written_to_pipes(gan, models, game, tmp_path):
    audio = read(save(tmp_path / "a.wav", noise(6000)))
    write_mel(tmp_path / "a.mel.safetensors", game.mel(audio[None]), TINY)
    sent = (tmp_path / "a.mel.safetensors").read_bytes()
    assert gan("vocode", models / "melgan", "-", "--out", "out", stdin=sent)[0] == 0
    assert_same_sound(read(tmp_path / "out/stdin.wav"), game.vocode(game.mel(audio[None])))
    status, out, err = gan("mel", "a.wav", "--out", "-")
    assert (status, err) == (0, "")
    contract, mel = read_pipe(io.BytesIO(out))
    assert contract == CONTRACTS["hifigan-22k"]
    assert_close(mel(), MelSpectrogram(contract)(audio[None]), atol=1e-4, rtol=0)


class Trickle(io.RawIOBase):
    """A pipe that returns its content in small pieces and records the requested sizes."""

    def __init__(self, content: bytes, most: int):
        self.stream, self.most, self.asked = io.BytesIO(content), most, []

    def read(self, size=-1):
        return self.stream.read(size)

    def read1(self, size=-1):
        self.asked.append(size)
        return self.stream.read(min(size, self.most))


@pytest.mark.parametrize(
    ("subtype", "options"),
    [
        ("PCM_U8", {}),
        ("PCM_16", {}),
        ("PCM_24", {}),
        ("PCM_32", {}),
        ("FLOAT", {}),
        ("DOUBLE", {}),
        ("PCM_24", {"format": "WAVEX"}),
    ],
)
@pytest.mark.parametrize("rate", [RATE, 8000])
def test_a_piped_wav_equals_the_file_in_every_encoding(tmp_path, subtype, options, rate):
    path = save(tmp_path / "a.wav", noise(3000, 2), subtype=subtype, **options)
    sound = read_pipe(Trickle(path.read_bytes(), 1001))
    assert (sound.sample_rate, sound.channels) == (RATE, 2)
    assert_close(
        torch.cat(list(sound.blocks(rate)), dim=1), read(path, sample_rate=rate, channels=1), rtol=0, atol=1e-6
    )


PLACES = {"RIFF": 4, "data": 40}
"""Positions of the sizes in the header of a plain WAV."""
TITLE = b"LIST" + struct.pack("<I", 24) + b"INFOINAM" + struct.pack("<I", 12) + b"Silent night"


def with_sizes(wav: bytes, **sizes: int) -> bytes:
    for name, size in sizes.items():
        wav = wav[: PLACES[name]] + struct.pack("<I", size) + wav[PLACES[name] + 4 :]
    return wav


def test_a_piped_wav_without_samples_is_refused_even_if_chunks_follow(tmp_path):
    header = save(tmp_path / "a.wav", noise(3000)).read_bytes()[:44]
    with pytest.raises(Unreadable, match=r"^contains no samples$"):
        read_pipe(io.BytesIO(with_sizes(header, RIFF=36 + len(TITLE), data=0) + TITLE))


@pytest.mark.parametrize(
    "sizes",
    [
        {"RIFF": 36, "data": 0},
        {"RIFF": 0, "data": 0},
        {"RIFF": 2**32 - 1, "data": 2**32 - 1},
        {"RIFF": 2**32 - 1, "data": 0},
        {"RIFF": 2**31 - 1, "data": 2**31 - 37},
    ],
)
def test_a_piped_wav_of_unknown_length_is_read_to_its_end(tmp_path, sizes):
    path = save(tmp_path / "a.wav", noise(3000))
    sound = read_pipe(io.BytesIO(with_sizes(path.read_bytes(), **sizes)))
    assert torch.equal(torch.cat(list(sound.blocks(RATE)), dim=1), read(path))


def test_a_piped_wav_that_ends_early_is_read_with_a_warning(gan, tmp_path, caplog):
    whole = save(tmp_path / "a.wav", noise(5000)).read_bytes()
    sound = read_pipe(io.BytesIO(whole[:-2001]))  # within a sample
    assert torch.equal(torch.cat(list(sound.blocks(RATE)), dim=1), read(tmp_path / "a.wav")[:, :-1001])
    assert gan("mel", "-", "--out", "out", stdin=whole[:-2001])[0] == 0
    assert caplog.messages == ["1 sound cut short, read to the end: standard input"]


@pytest.mark.parametrize("known", [True, False])
def test_a_piped_rf64_equals_the_file(tmp_path, known):
    path = save(tmp_path / "a.wav", noise(3000, 2), format="RF64")
    content = bytearray(path.read_bytes())
    if not known:
        content[20:44] = bytes(24)  # the sizes in `ds64`
    sound = read_pipe(io.BytesIO(bytes(content)))
    assert torch.equal(torch.cat(list(sound.blocks(RATE)), dim=1), read(path, channels=1))


@pytest.mark.parametrize("words", [("mel", "-", "--out", "-"), ("resynthesize", "MODEL", "-", "--out", "-")])
@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_closed_standard_stream_is_reported_in_one_line(monkeypatch, capfdbinary, models, stream, words):
    monkeypatch.setattr(sys, "argv", ["gan-audio", *(str(models / "melgan") if w == "MODEL" else w for w in words)])
    monkeypatch.setattr(sys, stream, None)  # as Python has it after `<&-` and `>&-`
    with pytest.raises(SystemExit) as end:
        main(DOMAIN)
    err = capfdbinary.readouterr().err.decode()
    assert end.value.code == 2
    name, remedy = {
        "stdin": ("input", "pipe data into it, or give a file"),
        "stdout": ("output", "redirect it, or give an output folder"),
    }[stream]
    assert err == f"gan-audio: standard {name} is closed; {remedy}\n"


def test_damaged_pipes_are_refused(tmp_path):
    good = save(tmp_path / "a.wav", noise(3000)).read_bytes()
    header, form = good[:12], good[12:36]

    def message_of(content):
        with pytest.raises(Unreadable) as error:
            list(read_pipe(io.BytesIO(content)).blocks(RATE))
        return str(error.value)

    assert message_of(b"") == "is empty"
    assert message_of(b"fLaC" + good).startswith(
        "not a WAV or mel file; convert other formats first (`ffmpeg -i IN -f wav -`), or"
    )
    assert message_of(good[:44]) == "contains no samples"
    assert message_of(good[:30]) == "damaged: ends within its header"
    assert (
        message_of(header + b"junk" + struct.pack("<I", 2**30))
        == "damaged: its header has a chunk of 1,073,741,824 bytes"
    )
    assert (
        message_of(header + 1000 * b"junk\0\0\0\0")
        == "damaged: has no samples after the first 1,000 chunks of its header"
    )
    assert message_of(header + good[36:]) == "damaged: its header does not define the format of the samples"
    law = form[:8] + struct.pack("<H", 7) + form[10:]
    assert message_of(header + law + good[36:]) == "the samples are compressed (format 7); send 16-bit PCM"
    silent = form[:12] + struct.pack("<I", 0) + form[16:]
    assert message_of(header + silent + good[36:]) == "the sample rate is 0 Hz; expected 1,000 to 768,000"
    nan = save(tmp_path / "b.wav", torch.full((1, 200), torch.nan), subtype="FLOAT").read_bytes()
    assert message_of(nan).startswith("contains values that are not finite, or far beyond [-1, 1], within 200 samples")
    with pytest.raises(Unreadable, match=r"^ends within a sample; check that it is 16-bit PCM with 2 channels$"):
        list(PipedSound(io.BytesIO(bytes(42)), RATE, 2).blocks(RATE))


@pytest.mark.parametrize("text", ["22050", "22050:1", "22050:1:u8", "a:1:s16", "22050:-1:s16", "22050:1:s16:le"])
def test_unsupported_raw_formats_are_refused(text):
    with pytest.raises(InputError, match=r"^`--raw` is .*; expected RATE:CHANNELS:s16"):
        Raw.parse(text)
    assert Raw.parse("22050:2:s16") == Raw(22_050, 2)


# --- how much is held


def test_long_files_are_read_as_their_output_is_written(gan, models, tmp_path, monkeypatch):
    write_wav(tmp_path / "long.wav", noise(10 * files.BLOCK), RATE)
    seen: list[tuple[str, int]] = []
    decode, write = files._decoded, WavWriter.write
    monkeypatch.setattr(files, "_decoded", lambda sound, n, *more: (seen.append(("in", n)), decode(sound, n, *more))[1])
    monkeypatch.setattr(WavWriter, "write", lambda w, a: (seen.append(("out", a.shape[1])), write(w, a))[1])
    assert gan("resynthesize", models / "melgan", "long.wav", "--out", "out")[0] == 0
    ahead = 0
    for way, samples in seen:
        ahead += samples if way == "in" else -samples
        assert ahead <= files.BLOCK + 4096  # a block, and what the context of a frame holds back
    assert ahead == 0
    assert {n for way, n in seen if way == "in"} == {files.BLOCK}


def test_pipes_are_read_in_small_parts_and_audio_is_returned_before_they_end(game):
    pipe = Trickle(bytes(40 * PIPE_BYTES), 10**9)
    stream = game.stream(game.mel.stream(block[None] for block in PipedSound(pipe, RATE, 1).blocks(RATE)))
    first = next(stream)
    assert first.shape[2] > 0
    assert pipe.asked == [PIPE_BYTES]
    next(stream)
    assert set(pipe.asked) == {PIPE_BYTES}
    assert len(pipe.asked) <= 2


# --- refusals


def test_invalid_task_requests_are_refused_in_one_line_and_write_nothing(refused, models, tmp_path):
    melgan = models / "melgan"
    save(tmp_path / "a.wav", noise(5000))
    save(tmp_path / "in/a.flac", noise(5000))
    save(tmp_path / "short.wav", noise(100))
    save(tmp_path / "there/a.wav", noise(5000))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text").write_text("no model")
    (tmp_path / "none").mkdir()
    assert refused("vocode", "text", "a.wav", "--out", "out").startswith("text: neither a run (it has no recipe.yaml)")
    assert refused("vocode", models / "wavegan", "a.wav", "--out", "out").endswith(
        "is a model of wavegan; expected a vocoder (melgan, hifigan or bigvgan). Use `generate` instead"
    )
    assert refused("mel", "-", "--raw", "22050:1:u8", "--out", "out").startswith("`--raw` is 22050:1:u8; expected ")
    assert refused("mel", "empty.wav", "--out", "out") == "empty.wav: the file is empty"
    assert refused("mel", "missing.wav", "--out", "out") == "missing.wav: no such file or folder"
    assert refused("mel", "text", "--out", "out") == "text: not a readable sound file, or damaged at its start"
    assert refused("mel", "none", "--out", "out").startswith("none: no readable sounds among 0 files (looked for .wav")
    assert refused("mel", "short.wav", "--out", "out").startswith("short.wav: the audio has 100 samples; a mel needs ")
    assert refused("mel", "-", "--out", "out") == "standard input: is empty"
    assert refused("mel", "-", "-", "--out", "out") == "`-` is given twice, but standard input can only be read once"
    assert refused("mel", "a.wav", "--raw", "22050:1:s16", "--out", "out").startswith("`--raw` has no effect")
    assert refused("mel", "a.wav", "--contract", "24", "--out", "out").startswith("unknown mel contract `24`")
    assert refused("mel", "a.wav").startswith("`--out` is missing")
    assert refused("mel", "a.wav", "in", "--out", "out") == (
        f"a.wav and {Path('in/a.flac')} would both be written to {Path('out/a.mel.safetensors')}; "
        "use two output folders"
    )
    assert refused("resynthesize", melgan, "a.wav", "--out", "there").startswith("there already contains a.wav; ")
    assert refused("resynthesize", melgan, "a.wav", "in", "--out", "-").startswith("`--out -` takes one input")
    assert refused("resynthesize", melgan, "a.wav", "--out", "out", "--raw-out").startswith("`--raw-out` has no effect")
    write_mel(tmp_path / "a.mel.safetensors", torch.zeros(5, 9), TINY)
    assert refused("mel", "a.mel.safetensors", "--out", "out").startswith(
        "a.mel.safetensors: is a mel; expected a sound. "
    )


def test_failed_conversions_leave_no_file(gan, models, tmp_path):
    cut = save(tmp_path / "cut.flac", noise(150_000))
    cut.write_bytes(cut.read_bytes()[:200_000])
    status, out, err = gan("resynthesize", models / "melgan", "cut.flac", "--out", "out")
    assert (status, out) == (2, b"")
    assert err.startswith("gan-audio: cut.flac: ")
    assert err.count("\n") == 1
    assert contents(tmp_path) == ["cut.flac", "out"]


# --- resample


def test_a_folder_is_resampled_in_the_format_of_each_file(gan, tmp_path, caplog):
    audio = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(24_000) / 24_000).expand(2, -1)
    kept = {
        "a.wav": ("WAV", "PCM_24"),
        "x/b.FLAC": ("FLAC", "PCM_16"),
        "x/c.ogg": ("OGG", "VORBIS"),
        "d.opus": ("OGG", "OPUS"),
        "e.mp3": ("MP3", "MPEG_LAYER_III"),
        "f.aiff": ("AIFF", "PCM_16"),
        "g.wav": ("WAV", "FLOAT"),
    }
    for name, (format, subtype) in kept.items():
        save(tmp_path / "in" / name, audio, 24_000, subtype, format=format)
    (tmp_path / "in/bad.wav").write_text("words")
    (tmp_path / "in/notes.txt").write_text("words")
    status, out, _ = gan("resample", "in", "--rate", "16000", "--out", "out")
    assert (status, out) == (0, b"7 files in out\n")
    assert contents(tmp_path / "out") == sorted([*kept, "x"])
    bad = f"{Path('in/bad.wav')} (not a readable sound file, or damaged at its start)"
    assert caplog.messages == [f"in: skipped 1 unreadable file: {bad}"]
    for name, (format, subtype) in kept.items():
        info = soundfile.info(tmp_path / "out" / name)
        assert (info.format, info.subtype, info.samplerate, info.channels) == (format, subtype, 16_000, 2)
        wanted = read_sound(FolderFiles(tmp_path / "in"), name, sample_rate=16_000)
        found = read_sound(FolderFiles(tmp_path / "out"), name)
        exact = subtype in ("PCM_16", "PCM_24", "FLOAT")
        assert_close(found, wanted, atol=2**-16 if exact else 0.1, rtol=0)


def test_resampling_nothing_keeps_the_samples_and_levels_are_scaled_by_the_true_peak(gan, tmp_path, caplog):
    save(tmp_path / "in/a.wav", noise(40_000, 2))
    save(tmp_path / "in/loud.wav", 20 * noise(40_000), subtype="FLOAT")
    assert gan("resample", "in", "--mono", "--out", "mono")[0] == 0
    mixed = read(tmp_path / "in/a.wav", channels=1)
    assert_close(read(tmp_path / "mono/a.wav"), mixed, atol=2**-16, rtol=0)
    assert torch.equal(read(tmp_path / "mono/loud.wav", clip=False), read(tmp_path / "in/loud.wav", clip=False))
    assert gan("resample", "in", "--rate", RATE, "--out", "same")[0] == 0
    assert torch.equal(read(tmp_path / "same/a.wav"), read(tmp_path / "in/a.wav"))
    assert gan("resample", "in", "--peak", "0.5", "--out", "scaled")[0] == 0
    loud = read(tmp_path / "in/loud.wav", clip=False)
    assert_close(read(tmp_path / "scaled/loud.wav"), loud * (0.5 / loud.abs().max()))
    assert caplog.messages == []


def test_resampling_is_refused_where_it_cannot_be_done(refused, tmp_path):
    save(tmp_path / "a.opus", noise(48_000), 48_000, "OPUS", format="OGG")
    what = "OGG (OPUS) with 1 channel at 22,050 Hz"
    assert refused("resample", "a.opus", "--rate", "22050", "--out", "out") == (
        f"a.opus: cannot be written as {what}; choose another rate, or convert it to WAV"
    )
    assert refused("resample", "a.opus", "--out", "out").startswith("nothing would change; ")
    assert refused("resample", "-", "--rate", "8000", "--out", "out").startswith("`resample` works on files; ")
    assert "greater than or equal to 1000" in refused("resample", "a.opus", "--rate", "5", "--out", "out")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the size of files")
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_full_disk_is_reported_in_one_line_and_leaves_no_file(tmp_path, subtype):
    save(tmp_path / "a.wav", noise(100_000), subtype=subtype)
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
        "sys.argv = ['gan-audio', 'resample', 'a.wav', '--rate', '16000', '--out', 'out']; "
        "from gan_audio.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(
        r"gan-audio: out.a\.wav: cannot be written \(.+\); free some space and try again\n", done.stderr
    )
    assert list((tmp_path / "out").iterdir()) == []


# --- inspect


def test_a_folder_is_inspected_with_a_line_per_file_and_its_unreadable_files(gan, tmp_path):
    save(tmp_path / "in/a.wav", noise(RATE))
    save(tmp_path / "in/x/b.flac", noise(RATE // 2))
    (tmp_path / "in/bad.wav").write_text("words")
    write_midi(tmp_path / "in/tune.mid", make_tunes(range(1), bars=2)[0].numpy())
    status, out, err = gan("inspect", "in")
    lines = out.decode().splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [
        str(Path("in", n)) for n in ("a.wav", "tune.mid", "x/b.flac")
    ]
    assert lines[1].endswith(": MIDI, 2 tracks, 2 bars, 11 notes, 4/4, 120 BPM, 4.000 s")
    assert lines[3] == "4 files, 1 unreadable, 5.500 s in total"
    bad = f"{Path('in/bad.wav')}: not a readable sound file, or damaged at its start"
    assert (status, err) == (0, f"cannot read {bad}\n")
    status, out, err = gan("inspect", "in/bad.wav", "in/a.wav", "--json")  # the file was named
    assert (status, err) == (
        2,
        f"cannot read {Path('in/bad.wav')}: not a readable sound file, or damaged at its start\n",
    )
    found = json.loads(out)
    assert found["in/bad.wav"] == {"error": "not a readable sound file, or damaged at its start"}
    assert found["in/a.wav"]["seconds"] == 1


def test_inspection_of_midi_names_what_no_tune_can_be_read_from(gan, refused, tmp_path):
    mido.MidiFile(
        tracks=[
            mido.MidiTrack(
                [
                    mido.MetaMessage("set_tempo", tempo=500_000 * 2),
                    mido.MetaMessage("time_signature", numerator=3, denominator=4),
                    mido.Message("note_on", note=60, velocity=9),
                    mido.Message("note_off", note=60, time=480 * 4),
                ]
            )
        ],
        type=0,
    ).save(tmp_path / "waltz.kar")
    found = json.loads(gan("inspect", "waltz.kar", "--json")[1])["waltz.kar"]
    problem = "has the time signature 3/4; expected 4/4, 2/2 or 2/4"
    assert found == {
        "format": "MIDI",
        "tracks": 1,
        "tempo": 60.0,
        "metre": "3/4",
        "bars": 2,
        "notes": 1,
        "seconds": 4.0,
        "problem": problem,
    }
    (tmp_path / "cut.mid").write_bytes((tmp_path / "waltz.kar").read_bytes()[:30])
    assert refused("inspect", "cut.mid").startswith("cut.mid: not a MIDI file, or damaged (")
    assert refused("inspect", "-").startswith("`inspect` reads files, not standard input")


def test_inspection_reports_unfinished_recordings(gan, tmp_path):
    whole = save(tmp_path / "a.wav", noise(RATE)).read_bytes()
    (tmp_path / "a.wav").write_bytes(with_sizes(whole, RIFF=0, data=0))
    line = gan("inspect", "a.wav")[1].decode()
    assert ", 1.000 s, " in line
    assert line.endswith("% silent; without a length in the header, as from a pipe or after a crash, read to the end\n")


def test_inspection_reports_the_true_peak_of_float_sounds(gan, tmp_path):
    save(tmp_path / "a.wav", torch.linspace(-2, 2, 4001)[None], subtype="FLOAT")
    found = json.loads(gan("inspect", "a.wav", "--json")[1])["a.wav"]
    assert found["peak"] == pytest.approx(20 * np.log10(2))
    assert found["clipped"] == 2000


def test_inspect_reports_format_and_levels(gan, tmp_path):
    time = torch.arange(16_000) / 16_000
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * time)
    save(tmp_path / "tone.wav", torch.stack([tone, tone]), 16_000, "PCM_24")
    save(tmp_path / "loud.wav", torch.cat([torch.zeros(1, 2400), torch.ones(1, 800)], dim=1), 8000)
    save(tmp_path / "silent.flac", torch.zeros(1, 800), 8000)
    write_mel(tmp_path / "a.mel.SAFETENSORS", torch.zeros(5, 441), TINY)
    names = ["tone.wav", "loud.wav", "silent.flac", "a.mel.SAFETENSORS"]
    found = json.loads(gan("inspect", *names, "--json")[1])
    tone, loud, silent, mel = (found[name] for name in names)
    assert [tone[key] for key in ("format", "sample_rate", "channels", "bits", "seconds")] == [
        "WAV",
        16_000,
        2,
        24,
        1.0,
    ]
    assert tone["peak"] == pytest.approx(-6.02, abs=0.01)
    assert tone["rms"] == pytest.approx(-9.03, abs=0.01)
    assert (tone["clipped"], tone["silent"]) == (0, 0)
    assert loud["rms"] == pytest.approx(-6.02, abs=0.01)
    assert (loud["clipped"], loud["silent"]) == (800, 0.75)
    assert (silent["peak"], silent["rms"], silent["silent"]) == (None, None, 1)
    assert mel["frames"] == 441
    assert mel["seconds"] == pytest.approx(0.16)
    assert mel["contract"] == TINY.model_dump(mode="json")
    lines = gan("inspect", *names)[1].decode().splitlines()
    assert lines[0] == (
        "tone.wav: WAV, 16,000 Hz, 2 channels, 24 bits (PCM_24), 1.000 s, peak -6.02 dBFS, "
        "RMS -9.03 dBFS, 0 clipped, 0.0% silent"
    )
    assert lines[3] == f"a.mel.SAFETENSORS: mel, 441 frames, 0.160 s, {TINY.describe()}"


@pytest.mark.parametrize("seconds", [0.1, 20])
def test_a_tone_is_a_bright_line_in_the_spectrogram(gan, refused, tmp_path, seconds):
    samples = round(seconds * 8000)
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(samples) / 8000)
    tone[samples // 2 :] = 0
    save(tmp_path / "tone.wav", tone[None], 8000)
    assert gan("inspect", "tone.wav", "--spectrogram", "tone.png")[0] == 0
    width, height = PICTURE
    picture = np.asarray(Image.open(tmp_path / "tone.png").convert("L")).astype(int)
    shown = picture[8 : 8 + height, 42 : 42 + width]
    assert shown[:, width // 2 + width // 4 :].max() < 10
    place = height * (1 - np.log10(1 + 1000 / 700) / np.log10(1 + 4000 / 700))
    assert abs(shown[:, width // 4].argmax() - place) < 8
    assert shown[:, width // 4].max() > 150
    assert refused("inspect", "tone.wav", "--spectrogram", "tone.png").startswith("tone.png: already exists; ")
    assert refused("inspect", "tone.wav", "--spectrogram", "tone.jpg").startswith("`--spectrogram` is tone.jpg; ")
    assert refused("inspect", "tone.wav", "tone.wav", "--spectrogram", "a.png").startswith(
        "`--spectrogram` needs exactly one"
    )


# --- interpolate


@pytest.mark.parametrize("system", ["wavegan", "specgan"])
def test_interpolated_sounds_are_on_the_line_between_two_latents(gan, models, tmp_path, system, monkeypatch):
    label = {"wavegan": ["--label", "1"], "specgan": []}[system]
    ends = torch.tensor([[-1.0, 0.5, 0.0, 1.0], [1.0, 0.5, 0.4, 0.0]])
    game = gan_audio.load(models / system)
    monkeypatch.setattr(type(game), "latent", lambda game, count, truncation=None: ends)
    assert gan("interpolate", models / system, "--out", "walk.wav", "--steps", "17", *label)[0] == 0
    found, apart = read(tmp_path / "walk.wav")[0], round(SILENCE * 8000)
    starts = [k * (256 + apart) for k in range(17)]
    assert len(found) == starts[-1] + 256
    for before, after in pairwise(starts):
        assert not found[before + 256 : after].any()
    monkeypatch.setattr(type(game), "latent", lambda game, count, truncation=None: ends.mean(dim=0, keepdim=True))
    middle = game.sample(1, **({"label": torch.tensor([1])} if label else {}))
    assert middle.abs().max() > 1e-4
    assert_same_sound(found[starts[8] : starts[8] + 256], middle)


def test_files_in_other_formats_are_named_by_tasks_on_folders(gan, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_wav(folder / "a.wav", torch.zeros(1, 4096).uniform_(-0.5, 0.5), 8000)
    for name in ("voice.m4a", "notes.txt"):
        (folder / name).write_bytes(b"words")
    reason = ".m4a files cannot be read; convert it to WAV or FLAC (`ffmpeg -i IN OUT.wav`)"
    for k, words in enumerate((("resample", "--rate", 16000), ("mel", "--contract", "melgan-22k"))):
        status, out, err = gan(words[0], folder, *words[1:], "--out", tmp_path / f"out{k}", "--json")
        assert status == 0, err
        assert json.loads(out)["skipped"] == {str(folder / "voice.m4a"): reason}
    status, out, err = gan("inspect", folder, "--json")
    assert (status, json.loads(out)[str(folder / "voice.m4a")]) == (0, {"error": reason})


def test_interpolations_depend_on_the_seed_and_invalid_ones_are_refused(gan, refused, models, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        gan("interpolate", models / "wavegan", "--out", f"{name}.wav", "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c
    assert refused("interpolate", models / "melgan", "--out", "d.wav").endswith(
        "melgan has no latents to interpolate between"
    )
    assert refused("interpolate", models / "wavegan", "--out", "a.wav").startswith("a.wav: already exists; ")
    assert refused("interpolate", models / "wavegan", "--out", "d.mp3").startswith("`--out` is d.mp3; ")
    assert refused("interpolate", models / "wavegan", "--out", "d.wav", "--label", 3).endswith("expected 0 to 2")
    assert refused("interpolate", models / "specgan", "--out", "d.wav", "--label", 0).startswith(
        "this specgan was trained without classes; "
    )


# --- mels of other tools


@pytest.fixture
def vocoder(models, tmp_path):
    """A vocoder with the contract `hifigan-22k`, and a mel `[80, 20]`."""
    network = {"rates": (8, 8, 4), "generator": {"width": 4, "depth": 1}}
    contract = CONTRACTS["hifigan-22k"]
    folder = gan_audio.create("melgan", mel=contract.model_dump(), **network).save_pretrained(tmp_path / "vocoder")
    mel = np.random.default_rng(0).normal(-5, 1, (80, 20)).astype(np.float32)
    return folder, mel


def test_arrays_are_vocoded_as_mels_of_a_named_contract(gan, vocoder, tmp_path, caplog):
    folder, mel = vocoder
    arrays = {
        "plain": (mel, ""),
        "batch": (mel[None], ""),
        "columns": (np.asfortranarray(mel), ""),
        "double": (mel.astype(">f8"), ""),
        "exchanged": (mel.T, "exchanged.npy: the array is read as [frames, mels]"),
    }
    write_mel(tmp_path / "own.mel.safetensors", torch.from_numpy(mel), CONTRACTS["hifigan-22k"])
    gan("vocode", folder, "own.mel.safetensors", "--out", "own")
    expected = (tmp_path / "own" / "own.wav").read_bytes()
    for name, (array, words) in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        caplog.clear()
        assert gan("vocode", folder, f"{name}.npy", "--contract", "hifigan-22k", "--out", name)[0] == 0
        assert caplog.messages == ([words] if words else []), name
        assert (tmp_path / name / f"{name}.wav").read_bytes() == expected


def test_arrays_of_another_contract_are_converted_if_requested(gan, refused, vocoder, tmp_path):
    folder, mel = vocoder
    np.save(tmp_path / "a.npy", mel)
    words = refused("vocode", folder, "a.npy", "--contract", "tacotron2", "--out", "s")
    assert "convert it with `--convert`" in words
    assert gan("vocode", folder, "a.npy", "--contract", "tacotron2", "--convert", "--out", "s")[0] == 0


def test_arrays_that_cannot_be_read_are_refused_with_what_to_give(refused, vocoder, tmp_path):
    folder, mel = vocoder
    np.save(tmp_path / "a.npy", mel)
    without = "a.npy: an array has no mel settings; `vocode --contract NAME` reads it as a mel (melgan-22k, "
    assert refused("vocode", folder, "a.npy", "--out", "s").startswith(without)
    assert refused("resynthesize", folder, "a.npy", "--out", "s").startswith(without)
    assert refused("mel", "a.npy", "--out", "s").startswith(without)
    assert refused("inspect", "a.npy").startswith(without)
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "b.npy", mel)
    assert "b.npy: an array has no mel settings; " in refused("vocode", folder, "folder", "--out", "s")
    assert refused("vocode", folder, "a.npy", "--contract", "hifigan", "--out", "s").endswith("`hifigan-22k`?")
    save(tmp_path / "a.wav", noise(4000))
    words = refused("vocode", folder, "a.wav", "--contract", "24k", "--out", "s")
    assert words.startswith("`--contract` applies to .npy files, and none is given")
    for name in ("a.npz", "a.pt", "a.txt", "a.csv", "a.h5"):
        (tmp_path / name).write_bytes(b"x")
        words = f"{name}: {Path(name).suffix} files are not read as mels; in Python, save the array [mels, frames] with"
        assert refused("vocode", folder, name, "--out", "s").startswith(words)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((70, 20)), "the array has the shape [70, 20]; the contract needs [80, frames]"),
        (np.zeros((2, 80, 20)), "the array has the shape [2, 80, 20]; "),
        (np.zeros(80), "the array has the shape [80]; "),
        (np.zeros((80, 0)), "the array has the shape [80, 0]; "),
        (np.zeros((80, 20), np.int16), "the array has the data type int16; expected floating-point numbers"),
        (np.zeros((80, 20), np.complex64), "the array has the data type complex64; "),
        (np.full((80, 20), np.nan), "contains values that are not finite"),
        (np.full((80, 20), 1e300), "contains values that are not finite"),
    ],
)
def test_arrays_that_are_not_mels_are_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as error:
        read_array(tmp_path / "a.npy", CONTRACTS["hifigan-22k"])
    assert str(error.value).startswith(f"{tmp_path / 'a.npy'}: {words}")


def test_arrays_with_false_headers_are_refused_before_memory_is_allocated(tmp_path):
    def written(header, version=(1, 0)):
        text = header.ljust(117).encode() + b"\n"
        start = b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text))
        (tmp_path / "a.npy").write_bytes(start + text + bytes(6400))
        with pytest.raises(DataError) as error:
            read_array(tmp_path / "a.npy", CONTRACTS["hifigan-22k"])
        return str(error.value).removeprefix(f"{tmp_path / 'a.npy'}: ")

    form = "{'descr': %r, 'fortran_order': False, 'shape': %s, }"
    assert written(form % ("<f4", "(80, 5000000000)")).startswith("larger than 1,024 MiB")
    assert written(form % ("<f4", "(80, 3000000)")).startswith("damaged (its size does not match its shape, ")
    assert written(form % ("<f4", "(80, 19)")).startswith("damaged (its size does not match its shape, ")
    assert written(form % ("|O", "(80, 20)")).startswith("the array has the data type object")
    for bad in ("{'descr': __import__('os'), }", "", form % ("<f4", "(-80, -20)"), form % ("x", "(80, 20)")):
        assert written(bad).startswith(("not a NumPy array, or damaged (", "damaged", "the array has the "))
    assert written(form % ("<f4", "(80, 19)"), (2, 0)).startswith("damaged")
    assert written(form % ("<f4", "(80, 19)"), (9, 0)).startswith("not a NumPy array, or damaged (")


def test_a_vocoder_takes_arrays_and_single_mels_in_python(vocoder):
    folder, mel = vocoder
    game = gan_audio.load(folder)
    expected = game.vocode(torch.from_numpy(mel)[None])
    for given in (mel, mel[None], mel.astype(np.float64), torch.from_numpy(mel), mel[:, ::-1][:, ::-1]):
        assert torch.equal(game.vocode(given), expected)
    assert_close(torch.cat(list(game.stream([mel[:, :7], mel[:, 7:]])), dim=2), expected)
    for given, words in (
        (mel.T, "expected [B, 80, frames] or [80, frames]; transpose it"),
        (mel[0], "the mel has the shape [20]; expected [B, 80, frames] or [80, frames]"),
        (mel.astype(np.int32), "the mel is a ndarray of int32; expected a tensor or a NumPy array of floating-point"),
        ([1.0], "the mel is a list; expected a tensor or a NumPy array"),
    ):
        with pytest.raises(DataError) as error:
            game.vocode(given)
        assert words in str(error.value)


def test_a_vocoder_resynthesizes_arrays_and_single_sounds_in_python(vocoder):
    game, audio = gan_audio.load(vocoder[0]), noise(3000)
    expected = game.resynthesize(audio[None])
    for given in (audio[0], audio[0].numpy(), audio[None].numpy()):
        assert torch.equal(game.resynthesize(given), expected)
    with pytest.raises(DataError, match=r"^the audio has the shape \[1, 3000\]; expected \[B, 1, samples\] or"):
        game.resynthesize(audio)


# --- published checkpoints


def test_a_published_vocoder_is_imported_folded_with_the_same_output(gan, refused, tmp_path):
    fixtures = find_fixtures("audio", Path(__file__).parent / "conformance")
    state = next(found.values[0] for found in fixtures if found.id == "melgan_generator").state_dict()
    torch.save(state, tmp_path / "published.pt")
    assert gan("import", "melgan/generator", "published.pt", "--out", "model", "--fold")[0] == 0
    published, folded = gan_audio.load_reference("melgan/generator", state).eval(), gan_audio.load(tmp_path / "model")
    assert not any("parametrizations" in name for name in folded.generator.state_dict())
    mel = torch.randn(1, 80, 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(folded.vocode(mel), published(mel), atol=1e-5, rtol=0)
    said = refused("import", "melgan/generator", "published.pt", "--out", "other", "--argument", "mel")
    assert said.startswith("`--argument mel`: write KEY=VALUE")


def test_a_published_discriminator_is_imported_into_the_adversary():
    fixtures = find_fixtures("audio", Path(__file__).parent / "conformance")
    state = next(found.values[0] for found in fixtures if found.id == "melgan_discriminator").state_dict()
    published = read_reference(IMPORTERS, "melgan/discriminator", state, {})
    game = game_around(DOMAIN, "melgan/discriminator", published)
    for name, value in published.build().state_dict().items():
        assert torch.equal(game.discriminator.network.state_dict()[name], value)


def test_a_published_wavegan_has_the_published_sample_rate(gan, tmp_path):
    fixtures = find_fixtures("audio", Path(__file__).parent / "conformance")
    state = next(found.values[0] for found in fixtures if found.id == "wavegan_generator_16384").state_dict()
    torch.save(state, tmp_path / "published.pt")
    assert gan("import", "wavegan/generator", "published.pt", "--out", "model")[0] == 0
    game = gan_audio.load(tmp_path / "model")
    assert (game.spec.sample_rate, game.spec.peak) == (16_000, 1.0)
    assert gan("generate", "model", "-n", 1, "--out", "made")[0] == 0
    assert soundfile.info(tmp_path / "made" / "00000.wav").samplerate == 16_000


def published_hifigan(generator):
    """Returns the weights of a generator with two stages of one residual block, with their published names."""
    names = {"layers.0": "conv_pre", "layers.8": "conv_post"}
    for stage in range(2):
        names |= {f"layers.{3 * stage + 2}": f"ups.{stage}"}
        names |= {f"layers.{3 * stage + 3}.branches.0.0.branches.1.1": f"resblocks.{stage}.convs.0"}
    return renamed(generator.state_dict(), names)


CONFIG = {
    "resblock": "2",
    "num_gpus": 0,
    "upsample_rates": [3, 2],
    "upsample_kernel_sizes": [6, 4],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "num_mels": 5,
    "n_fft": 64,
    "hop_size": 6,
    "win_size": 48,
    "sampling_rate": 16_000,
    "fmin": 20,
    "fmax": None,
    "fmax_for_loss": None,
    "dist_config": {"dist_backend": "nccl"},
}
"""Settings as HiFi-GAN publishes them."""


@pytest.fixture
def hifigan_file(tmp_path):
    """The published weights of a small HiFi-GAN; the function writes a `config.json` beside them."""
    contract = TINY.but(hop=6, sample_rate=16_000)
    generator = hifigan.Generator(
        mel=contract, rates=(3, 2), up_sizes=(6, 4), width=8, sizes=(3,), dilations=((1,),), paired=False, folded=True
    )
    torch.save({"generator": published_hifigan(generator)}, tmp_path / "g_00000001")
    return lambda content: (tmp_path / "config.json").write_text(content)


def test_the_config_beside_a_published_vocoder_gives_its_mel_settings(gan, hifigan_file, tmp_path):
    hifigan_file(json.dumps(CONFIG))
    status, out, err = gan("import", "hifigan/generator", "g_00000001", "--out", "m", "--json")
    assert status == 0, err
    document = json.loads(out)
    assert err.startswith(
        "mel settings from config.json: 16,000 Hz, FFT 64, hop 6, window 48, 5 mels from 20 to 8000 Hz"
    )
    assert err.count("\n") == 1
    assert (document["path"], document["notes"]) == ("generator", [err.rstrip("\n")])
    contract = gan_audio.load(tmp_path / "m").contract
    assert (contract.fft_size, contract.window, contract.low_hz, contract.magnitude_epsilon) == (64, 48, 20, 1e-9)


def test_settings_that_are_given_have_priority_over_the_config(gan, hifigan_file, tmp_path):
    hifigan_file(json.dumps(CONFIG))
    mel = json.dumps(TINY.but(hop=6).model_dump())
    assert gan("import", "hifigan/generator", "g_00000001", "--out", "m", "--argument", f"mel={mel}")[0] == 0
    assert gan_audio.load(tmp_path / "m").contract == TINY.but(hop=6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"upsample_initial_channel": 512}, "`upsample_initial_channel` is 512 in the settings, and 8 in the weights"),
        ({"resblock": "1"}, "`resblock` is 1 in the settings, and 2 in the weights"),
        ({"num_mels": 80}, "`mel` has 80 bands and a hop of 6; the checkpoint needs 5 and 6"),
        (
            {"hop_size": 256, "n_fft": 1024, "win_size": 1024},
            "`mel` has 5 bands and a hop of 256; the checkpoint needs",
        ),
        ({"win_size": 128}, "expected `hop` <= `window` <= `fft_size`"),
        ({"n_fft": "wide"}, "`config.json.n_fft` is 'wide'; expected a whole number"),
        ({"upsample_rates": []}, "config.json.upsample_rates"),
        ({"upsample_rates": [0, 2]}, "config.json.upsample_rates"),
        ({"fmax": "\x1b]0;x\a"}, "config.json.fmax"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(refused, hifigan_file, changes, words):
    hifigan_file(json.dumps(CONFIG | changes))
    said = refused("import", "hifigan/generator", "g_00000001", "--out", "m")
    assert said.startswith("g_00000001, with config.json: ")
    assert words in said
    assert said.isprintable()


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000, "x" * 1_000_001, "\x00"])
def test_a_config_that_cannot_be_read_is_refused(refused, hifigan_file, content):
    hifigan_file(content)
    assert "config.json: " in refused("import", "hifigan/generator", "g_00000001", "--out", "m")


def test_a_config_of_another_kind_of_model_is_not_used(gan, hifigan_file, caplog):
    hifigan_file(json.dumps({"architectures": ["Bert"], "hidden_size": 768}))
    options = ["--argument", "upsample_rates=[3, 2]", "--argument", "resblock_dilation_sizes=[[1]]"]
    assert gan("import", "hifigan/generator", "g_00000001", "--out", "m", *options)[0] == 0
    assert caplog.messages[0].startswith("the checkpoint does not contain its mel settings; assuming ")


def test_a_vocoder_without_a_network_leads_to_its_generator(refused, hifigan_file):
    said = refused("import", "hifigan", "g_00000001", "--out", "m")
    assert said.startswith("`hifigan` is a system; name the network in the file: hifigan/generator, hifigan/mpd, ")


def test_the_discriminators_in_one_file_are_told_apart():
    networks = {
        "mpd": hifigan.MultiPeriodDiscriminator(periods=(2, 3), width=4),
        "msd": hifigan.MultiScaleDiscriminator(scales=3, width=16),
    }
    both = {
        name: {
            key.replace(".layers.", ".convs.").replace(".judge.", ".conv_post."): value
            for key, value in network.state_dict().items()
        }
        for name, network in networks.items()
    }
    for name in ("mpd", "msd"):
        published = read_reference(IMPORTERS, f"hifigan/{name}", {**both, "steps": 3}, {})
        assert published.path == name
        ours, theirs = published.build().state_dict(), networks[name].state_dict()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    with pytest.raises(CheckpointError, match=r"the checkpoint has `mpd` \(\d+ tensors\), `msd` \(\d+ tensors\)$"):
        read_reference(IMPORTERS, "hifigan/generator", both, {})


def test_imported_vocoders_have_excerpts_of_whole_hops(tmp_path):
    """Uses hops of 6 samples, of which the 8,192 samples of the paper are not a multiple."""
    contract = TINY.but(hop=6, sample_rate=16_000)
    generator = hifigan.Generator(
        mel=contract, rates=(3, 2), up_sizes=(6, 4), width=8, sizes=(3,), dilations=((1,),), paired=False, folded=True
    )
    published = published_hifigan(generator)
    told = {"mel": contract.model_dump(), "upsample_rates": [3, 2], "resblock_dilation_sizes": [[1]]}
    read = read_reference(IMPORTERS, "hifigan/generator", published, told)
    game = game_around(DOMAIN, "hifigan/generator", read)
    game.save_pretrained(tmp_path / "model")
    loaded = gan_audio.load(tmp_path / "model")
    assert loaded.spec == SoundSpec(samples=8190, sample_rate=16_000, channels=1, peak=0.95)
    mel = torch.randn(1, 5, 20)
    with torch.no_grad():
        assert_close(loaded.vocode(mel), generator(mel), atol=1e-5, rtol=0)


# --- data settings


def test_silence_is_trimmed_by_a_data_setting(gan, refused, tmp_path):
    tone = 0.5 * torch.sin(torch.arange(240) / 3)[None]
    save(tmp_path / "sounds" / "a.wav", torch.cat([torch.zeros(1, 8000), tone, torch.zeros(1, 4000)], dim=1), 8000)
    small = [
        "network.samples=256",
        "network.width=2",
        "network.latent_dim=4",
        "train.batch_size=2",
        "data.spec.trim=30",
    ]
    chosen = [word for setting in small for word in ("--set", setting)]
    status, _, err = gan("train", "wavegan", "--data", "sounds", "--out", "run", "--steps", 1, *chosen)
    assert status == 0, err
    assert gan_audio.load(tmp_path / "run").spec.trim == 30
    shown, rate = soundfile.read(tmp_path / "run" / "samples" / "real.wav", dtype="float32")
    assert rate == 8000
    assert_close(torch.from_numpy(shown[:240]), tone[0], atol=1e-4, rtol=0)  # not a slice of the silence
    said = refused("train", "wavegan", "--data", "sounds", "--out", "other", "--set", "data.spec.trim=loud")
    assert said.startswith("`data.spec.trim` is 'loud'")
