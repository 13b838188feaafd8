from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch.testing import assert_close

import gan_audio.mel.files
from gan_audio.mel.contract import CONTRACTS, MelContract, MelSpectrogram, filterbank
from gan_audio.mel.files import read_mel, write_mel
from gan_core.errors import DataError, RecipeError

SMALL = MelContract(sample_rate=8000, fft_size=64, hop=16, window=48, mels=6)


def noise(samples, *, seed=0):
    return 2 * torch.rand(1, 1, samples, generator=torch.Generator().manual_seed(seed)) - 1


def error_of(contract, **changes):
    with pytest.raises(ValidationError) as error:
        contract.but(**changes)
    return error.value.errors()[0]["msg"].removeprefix("Value error, ")


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("sample_rate", "fft_size", "mels", "low_hz", "high_hz"),
    [(22_050, 1024, 80, 0.0, None), (24_000, 1024, 100, 0.0, 12_000.0), (16_000, 512, 40, 60.0, 7600.0)],
)
def test_the_filterbank_equals_librosas(scale, sample_rate, fft_size, mels, low_hz, high_hz):
    librosa = pytest.importorskip("librosa")
    contract = MelContract(
        sample_rate=sample_rate,
        fft_size=fft_size,
        hop=fft_size // 4,
        window=fft_size,
        mels=mels,
        low_hz=low_hz,
        high_hz=high_hz,
        filterbank=scale,
    )
    theirs = librosa.filters.mel(
        sr=sample_rate, n_fft=fft_size, n_mels=mels, fmin=low_hz, fmax=high_hz, htk=scale == "htk"
    )
    assert_close(filterbank(contract), torch.from_numpy(theirs), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", CONTRACTS)
def test_mels_equal_librosas(name):
    librosa = pytest.importorskip("librosa")
    contract, audio = CONTRACTS[name], 0.3 * noise(6000)
    edge = contract.edge
    padded = torch.nn.functional.pad(audio, (edge, edge), mode="reflect")[0, 0].numpy()
    magnitudes = librosa.feature.melspectrogram(
        y=padded,
        sr=contract.sample_rate,
        n_fft=contract.fft_size,
        hop_length=contract.hop,
        power=1.0,
        center=False,
        n_mels=contract.mels,
        fmin=contract.low_hz,
        fmax=contract.high_hz,
    )
    logarithm = {"e": torch.log, "10": torch.log10}[contract.log_base]
    wanted = logarithm(torch.from_numpy(magnitudes).clamp(min=contract.clamp))
    assert_close(MelSpectrogram(contract)(audio)[0], wanted, rtol=0, atol=1e-4)


def test_a_tone_is_loudest_in_its_own_band():
    contract = CONTRACTS["24k"]
    time = torch.arange(12_000) / contract.sample_rate
    mel = MelSpectrogram(contract)(torch.sin(2 * math.pi * 1000 * time)[None, None])
    loudest = mel[0].mean(dim=1).argmax()
    bins = torch.arange(513) * contract.sample_rate / contract.fft_size
    centre = (filterbank(contract)[loudest] * bins).sum() / filterbank(contract)[loudest].sum()
    assert abs(float(centre) - 1000) < 60


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("samples", [1024, 4097, 8192])
def test_there_is_a_frame_for_every_whole_hop(name, samples):
    contract = CONTRACTS[name]
    mel = MelSpectrogram(contract)(noise(samples))
    assert mel.shape == (1, contract.mels, samples // contract.hop + contract.centred)


@pytest.mark.parametrize("changes", [{}, {"centred": True}, {"hop": 17}, {"hop": 48}, {"centred": True, "hop": 40}])
@pytest.mark.parametrize("samples", [65, 160, 333])
def test_a_streamed_mel_equals_the_whole_for_every_chunk_size(changes, samples):
    analyse, audio = MelSpectrogram(SMALL.but(**changes)), noise(samples)
    whole = analyse(audio)
    for size in (*range(1, 70), samples):
        assert_close(torch.cat(list(analyse.stream(audio.split(size, dim=2))), dim=2), whole, rtol=0, atol=1e-5)


def test_a_stream_returns_frames_as_soon_as_their_samples_arrive():
    chunks, seen = iter(noise(400).split(16, dim=2)), []

    def watched():
        for chunk in chunks:
            seen.append(chunk.shape[2])
            yield chunk

    frames = 0
    for part in MelSpectrogram(SMALL).stream(watched()):
        frames += part.shape[2]
        if sum(seen) < 400:  # frame n ends with sample 16 n + 64 - 24, and what is reflected at the end is kept back
            assert frames == (sum(seen) - 40) // 16 + 1


def test_silence_has_gradients():
    audio = torch.zeros(1, 1, 256, requires_grad=True)
    MelSpectrogram(SMALL)(audio).sum().backward()
    assert torch.equal(audio.grad, torch.zeros_like(audio))  # below the floor; a root at 0 would give NaN


def test_autocast_does_not_change_mels():
    analyse, audio = MelSpectrogram(SMALL), noise(256)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(analyse(audio), analyse(audio.float()))


@pytest.mark.parametrize("samples", [1, 24])
def test_audio_that_is_too_short_is_refused(samples):
    for analyse in (
        lambda audio: MelSpectrogram(SMALL)(audio),
        lambda audio: list(MelSpectrogram(SMALL).stream([audio])),
    ):
        with pytest.raises(DataError) as error:
            analyse(noise(samples))
        assert str(error.value) == (f"the audio has {samples} samples; a mel needs 25 or more ({SMALL.describe()})")


def test_audio_of_several_channels_is_refused():
    stereo = torch.zeros(1, 2, 400)
    for analyse in (MelSpectrogram(SMALL), lambda audio: list(MelSpectrogram(SMALL).stream([audio]))):
        with pytest.raises(DataError) as error:
            analyse(stereo)
        assert str(error.value) == "the audio has the shape [1, 2, 400]; expected one channel, [B, 1, T]"


def test_a_contract_is_given_by_name_or_by_settings():
    assert MelContract.model_validate("tacotron2") == CONTRACTS["tacotron2"]
    assert MelContract.model_validate(CONTRACTS["24k"].model_dump()) == CONTRACTS["24k"]
    assert SMALL.but(log_base=10).log_base == "10"
    with pytest.raises(RecipeError) as error:
        MelContract.model_validate("hifigan22k")
    assert str(error.value) == "unknown mel contract `hifigan22k`; did you mean `hifigan-22k`?"


def test_impossible_contracts_are_refused():
    assert (
        error_of(SMALL, hop=65)
        == "`hop` is 65, `window` 48 and `fft_size` 64; expected `hop` <= `window` <= `fft_size`"
    )
    assert (
        error_of(SMALL, window=65)
        == "`hop` is 16, `window` 65 and `fft_size` 64; expected `hop` <= `window` <= `fft_size`"
    )
    bands = "`low_hz` is {} and `high_hz` {}; expected `low_hz` < `high_hz` <= 4000, half the sample rate"
    assert error_of(SMALL, high_hz=5000) == bands.format(0, 5000)
    assert error_of(SMALL, low_hz=300, high_hz=200) == bands.format(300, 200)
    assert error_of(SMALL, decibels=(0, -80)) == "`decibels` is [0.0, -80.0]; give the lower level first"
    assert error_of(SMALL, decibels=(1e5, 2e5)) == "Input should be less than or equal to 700"
    assert error_of(SMALL, decibels=(-1e5, 0)) == "Input should be greater than or equal to -700"
    assert error_of(SMALL, mels=65_536, fft_size=65_536) == "Input should be less than or equal to 512"


def test_contracts_at_their_limits_can_be_computed():
    for decibels in ((-700, -699), (699, 700)):
        mel = MelSpectrogram(SMALL.but(decibels=decibels, clamp=1e-35))(torch.zeros(1, 1, 64))
        assert torch.equal(mel, torch.full_like(mel, float(decibels[0] < 0)))


def test_an_upper_edge_of_half_the_sample_rate_equals_no_edge():
    assert SMALL.but(high_hz=4000).differences(SMALL) == []
    words = ["`hop` 16 instead of 20", "`centred` False instead of True"]
    assert SMALL.differences(SMALL.but(hop=20, centred=True)) == words


def test_a_mel_of_another_contract_is_refused_with_both_contracts_in_the_message():
    wanted = CONTRACTS["hifigan-22k"]
    wanted.check(wanted.but(), "a.mel")
    for given, remedy in (
        (CONTRACTS["tacotron2"], "convert it with `--convert`; "),
        (
            CONTRACTS["melgan-22k"],
            "it cannot be converted (`high_hz` differs), but can be computed again from the sound with "
            "`gan-audio mel --contract hifigan-22k`; ",
        ),
    ):
        with pytest.raises(DataError) as error:
            wanted.check(given, "a.mel")
        message = str(error.value)
        assert message.startswith(f"a.mel: the mel does not have the model's contract; {remedy}")
        assert f"{given.name} ({given.describe()})" in message
        assert f"hifigan-22k ({wanted.describe()})" in message
        assert "\n" not in message


@pytest.mark.parametrize(
    "changes", [{"log_base": "10"}, {"clamp": 1e-2}, {"decibels": (-40.0, 20.0)}, {"decibels": (-40, 20), "clamp": 0.1}]
)
def test_a_converted_mel_equals_the_mel_of_the_other_contract(changes):
    to = SMALL.but(**changes)
    mel, wanted = (MelSpectrogram(contract)(0.01 * noise(800)) for contract in (SMALL, to))
    assert_close(SMALL.convert(mel, to), wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(mel, wanted)


def test_lossless_conversions_can_be_inverted():
    mel = MelSpectrogram(SMALL)(noise(800))
    for to in (SMALL.but(log_base="10"), SMALL.but(decibels=(-100.0, 60.0))):
        assert_close(to.convert(SMALL.convert(mel, to), SMALL), mel, rtol=0, atol=1e-4)


def test_conversion_from_centred_frames_shifts_the_sound_by_half_a_hop():
    given, to = CONTRACTS["tacotron2"], CONTRACTS["hifigan-22k"]
    audio = 0.3 * noise(8192)
    moved = torch.cat([torch.zeros(1, 1, to.hop // 2), audio], dim=2)
    converted, wanted = given.convert(MelSpectrogram(given)(audio), to), MelSpectrogram(to)(moved)
    assert_close(converted[..., 3:29], wanted[..., 3:29], rtol=0, atol=1e-3)


def test_impossible_conversions_are_refused():
    mel = torch.zeros(1, 80, 4)
    clipped = "magnitudes below {} are clipped, but the other contract keeps them"
    epsilon = "`magnitude_epsilon` differs and changes magnitudes above the clamp"
    for given, to, why in (
        (CONTRACTS["melgan-22k"], CONTRACTS["hifigan-22k"], "`high_hz` differs"),
        (SMALL, SMALL.but(hop=20, mels=7), "`hop` and `mels` differ"),
        (SMALL, SMALL.but(clamp=1e-6), clipped.format("1e-05")),
        (SMALL.but(decibels=(-40.0, 0.0)), SMALL, clipped.format("0.01")),
        (SMALL, SMALL.but(magnitude_epsilon=1e-3), epsilon),
    ):
        with pytest.raises(DataError) as error:
            given.convert(mel, to)
        assert str(error.value) == f"cannot convert a mel from {given.describe()} to {to.describe()}: {why}"


def test_a_written_mel_is_read_with_its_contract(tmp_path):
    mel = MelSpectrogram(SMALL)(noise(400))
    for given in (mel, mel[0]):
        write_mel(tmp_path / "deep" / "a.safetensors", given, SMALL)
        found, contract = read_mel(tmp_path / "deep" / "a.safetensors")
        assert torch.equal(found, mel)
        assert contract == SMALL
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.safetensors"]


def test_mels_of_the_wrong_shape_are_not_written(tmp_path):
    with pytest.raises(DataError) as error:
        write_mel(tmp_path / "a.safetensors", torch.zeros(2, 6, 9), SMALL)
    assert str(error.value).endswith("the mel has the shape [2, 6, 9]; its contract needs [6, frames]")
    assert not list(tmp_path.iterdir())


def test_invalid_mel_files_are_refused_in_one_line(tmp_path, monkeypatch):
    def refused(name):
        with pytest.raises(DataError) as error:
            read_mel(tmp_path / name)
        message = str(error.value)
        assert "\n" not in message
        assert message.startswith(f"{tmp_path / name}: ")
        return message.removeprefix(f"{tmp_path / name}: ")

    def written(name, tensors, contract=None):
        save_file(tensors, tmp_path / name, metadata=None if contract is None else {"contract": contract})
        return refused(name)

    good = SMALL.model_dump_json()
    assert refused("none") == "no such file"
    (tmp_path / "text").write_text("these are words, and no numbers")
    assert refused("text").startswith("not a mel file, or damaged (")
    (tmp_path / "empty").write_bytes(b"")
    assert refused("empty").startswith("not a mel file, or damaged (")
    write_mel(tmp_path / "whole", torch.zeros(6, 50), SMALL)
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-100])
    assert refused("cut").startswith("not a mel file, or damaged (")
    assert written("bare", {"mel": torch.zeros(6, 9)}).startswith(
        "has no mel contract (`contract` is missing from the metadata)"
    )
    assert written("odd", {"mel": torch.zeros(6, 9)}, "[1]").startswith("its mel contract is invalid (")
    assert written("named", {"mel": torch.zeros(6, 9)}, '"x"').startswith(
        "its mel contract is invalid (unknown mel contract"
    )
    impossible = good.replace('"hop":16', '"hop":99')
    assert written("impossible", {"mel": torch.zeros(6, 9)}, impossible).startswith(
        "its mel contract is invalid (`hop` is 99"
    )
    assert written("long", {"mel": torch.zeros(6, 9)}, good + " " * 10_000).startswith(
        "its mel contract is longer than"
    )
    assert written("two", {"mel": torch.zeros(6, 9), "b": torch.zeros(1)}, good).startswith(
        "contains 2 tensors; expected one, `mel`"
    )
    assert written("wide", {"mel": torch.zeros(7, 9)}, good).startswith(
        "the mel has the shape [7, 9]; its contract needs [6, frames]"
    )
    assert written("none-at-all", {"mel": torch.zeros(6, 0)}, good).startswith("the mel has the shape [6, 0]")
    assert written("whole-numbers", {"mel": torch.zeros(6, 9).int()}, good).startswith(
        "`mel` has the data type I32; expected F32, F16, BF16"
    )
    assert written("nan", {"mel": torch.full((6, 9), math.nan)}, good) == "contains values that are not finite"
    monkeypatch.setattr(gan_audio.mel.files, "MEL_BYTES", 2**20)
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    assert refused("large") == "larger than 1 MiB, the maximum; split it into parts"
