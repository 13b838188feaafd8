import math
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from gan_audio import media
from gan_audio.media import write_items, write_samples
from gan_audio.mel.contract import htk_hz, htk_mel
from gan_audio.sound.spec import SoundSpec
from gan_audio.sound.spectrogram import LOWEST, colours, frame_size, frequency_ticks, levels
from gan_audio.systems import wavegan
from gan_core.errors import DataError, InputError


class Maker(nn.Module):
    """A stand-in for a game with or without a sample rate."""

    def __init__(self, sample_rate=16_000):
        super().__init__()
        self.spec = SoundSpec(sample_rate=sample_rate)


def tone(hz, rate=16_000, samples=4096, level=0.5):
    return level * torch.sin(2 * torch.pi * hz * torch.arange(samples) / rate)[None]


def steps(count=3, channels=1, samples=400):
    """Returns constant sounds; the samples of item `i` are `i / 8`."""
    return (torch.arange(count) / 8)[:, None, None].expand(-1, channels, samples)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def heard(path):
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


# --- spectrograms


def test_a_sine_has_its_level_at_its_frequency():
    for hz, level in ((1000, 1.0), (3000, 0.1), (6500, 0.01)):  # in the middle of one of the 512 samples' bins
        found = levels(tone(hz, level=level)[0].double().numpy(), 16_000, rows=1024, columns=32)
        middle = found[:, 16]
        assert middle.max() == pytest.approx(20 * math.log10(level), abs=0.1)
        edges = htk_hz(torch.linspace(0, htk_mel(8000), 1025))
        assert edges[middle.argmax()] - 16 <= hz <= edges[middle.argmax() + 1] + 16


def test_a_click_appears_at_its_time_and_silence_has_the_lowest_level():
    audio = np.zeros(8000)
    audio[6000] = 1
    found = levels(audio, 16_000, rows=16, columns=100)
    assert abs(int(found.max(axis=0).argmax()) - 75) <= 1
    assert (found[:, :60] == LOWEST).all()
    assert (levels(audio, 16_000, rows=16, columns=100, seconds=1.0)[:, 55:] == LOWEST).all()


def test_white_noise_has_the_same_level_at_all_frequencies():
    audio = 0.1 * np.random.default_rng(0).standard_normal(64_000)
    power = 10 ** (levels(audio, 16_000, rows=8, columns=400) / 10)
    expected = 0.01 * 4 * 1.5 / frame_size(16_000)  # variance, a sine's amplitude, and the window's breadth in bins
    assert_close(power.mean(axis=1)[1:], np.full(7, expected), rtol=0.12, atol=0)


def test_frequency_ticks_keep_their_minimum_distance():
    assert [hz for hz, _ in frequency_ticks(16_000, 1000, 16)] == [100, 200, 500, 1000, 2000, 4000, 8000]
    few = frequency_ticks(16_000, 80, 16)
    assert [hz for hz, _ in few][-1] == 8000
    assert few[-1][1] == 1
    assert all((b[1] - a[1]) * 80 >= 16 for a, b in pairwise(few))


def test_colours_increase_in_lightness():
    shown = colours(np.linspace(0, 1, 256)).astype(int)
    assert (shown[0] == 0).all()
    assert (shown[-1] == 255).all()
    lightness = shown @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) >= -0.8).all()  # but for rounding
    assert (np.diff(lightness[::8]) > 0).all()


# --- pictures and sounds of samples


def test_the_picture_and_the_wav_file_have_the_same_order(tmp_path):
    path = write_samples({"audio": steps()}, tmp_path / "new" / "00001000", columns=2, game=Maker(8000))
    assert path == tmp_path / "new" / "00001000.png"
    assert sorted(each.name for each in path.parent.iterdir()) == ["00001000.png", "00001000.wav"]
    audio = heard(path.with_suffix(".wav"))
    assert soundfile.info(path.with_suffix(".wav")).samplerate == 8000
    assert audio.shape == (1, 3 * (400 + 800))  # a tenth of a second of silence after each
    for sound, level in zip(np.split(audio[0], 3), (0.0, 0.125, 0.25), strict=True):
        assert (sound[:400] == level).all()
        assert not sound[400:].any()


def test_sounds_of_one_item_are_adjacent_in_the_wav_file(tmp_path):
    samples = {"source": steps(2), "mel": torch.zeros(2, 80, 30), "generated": -steps(2, channels=2)}
    write_samples(samples, tmp_path / "a", game=Maker(8000))
    audio = heard(tmp_path / "a.wav")
    assert audio[:, ::1200].tolist() == [[0.0, 0.0, 0.125, -0.125]] * 2


def test_the_wav_file_is_limited_to_whole_items(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "MAX_WAV_BYTES", 5000)
    write_samples({"audio": steps(3)}, tmp_path / "a", game=Maker(8000))
    assert heard(tmp_path / "a.wav").shape[1] == 2 * 1200
    monkeypatch.setattr(media, "MAX_WAV_BYTES", 5)
    write_samples({"audio": steps(3)}, tmp_path / "a", game=Maker(8000))
    assert heard(tmp_path / "a.wav").shape[1] == 1200  # at least one


def test_a_tone_is_bright_at_its_frequency_in_its_cell(tmp_path):
    samples = torch.stack([tone(500), tone(4000)])
    picture = pixels(write_samples({"audio": samples}, tmp_path / "a", columns=2, game=Maker()))
    width = (picture.shape[1] - media.LEFT - media.EDGE - media.GAP) // 2
    height = picture.shape[0] - media.EDGE - media.FOOT
    for k, hz in enumerate((500, 4000)):
        left = media.LEFT + k * (width + media.GAP)
        cell = picture[media.EDGE : media.EDGE + height, left : left + width].sum(axis=2)
        brightest = cell[:, width // 2].argmax()
        expected = (height - 1) * (1 - htk_mel(hz) / htk_mel(8000))
        assert abs(brightest - expected) <= 4
    assert (picture[: media.EDGE, media.LEFT :] == 255).all()


def test_without_a_sample_rate_only_a_picture_is_written(tmp_path):
    write_samples({"audio": steps()}, tmp_path / "bare")
    write_samples({"audio": steps()}, tmp_path / "named", game=Maker())
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["bare.png", "named.png", "named.wav"]
    bare, named = pixels(tmp_path / "bare.png"), pixels(tmp_path / "named.png")
    assert bare.shape == named.shape
    assert (bare[:, : media.LEFT - 2] == 255).all()
    assert (named[:, : media.LEFT - 2] < 255).any()


def test_values_that_are_not_finite_are_silent(tmp_path):
    samples = torch.full((1, 1, 400), torch.nan)
    picture = write_samples({"audio": samples}, tmp_path / "a", game=Maker(8000))
    assert (pixels(picture)[30, 100] == 0).all()
    assert not heard(tmp_path / "a.wav").any()


def test_spectrograms_and_rolls_are_drawn_as_images(tmp_path):
    roll = torch.zeros(1, 1, 16, 128)
    roll[..., :4, :] = 1  # the first rows are at the foot
    picture = pixels(write_samples({"roll": roll}, tmp_path / "a"))
    middle = picture[:, media.LEFT + 50]
    height = picture.shape[0] - media.EDGE - media.FOOT
    assert (middle[media.EDGE + height - 5] == 255).all()
    assert (middle[media.EDGE + 5] == 0).all()
    write_samples({"mel": torch.randn(4, 80, 33)}, tmp_path / "b", game=Maker())
    assert not (tmp_path / "b.wav").exists()


def test_the_same_samples_give_the_same_bytes(tmp_path):
    samples = {"a": 0.1 * torch.randn(5, 1, 1000), "b": 0.1 * torch.randn(5, 1, 500)}
    first = [write_samples(samples, tmp_path / "x", game=Maker()), tmp_path / "x.wav"]
    before = [path.read_bytes() for path in first]
    write_samples(samples, tmp_path / "x", game=Maker())
    assert [path.read_bytes() for path in first] == before


def test_the_size_of_a_sheet_of_many_items_is_limited(tmp_path):
    write_samples({"audio": steps(64)}, tmp_path / "a", columns=8, game=Maker())
    with Image.open(tmp_path / "a.png") as image:
        assert image.width < 1100
        assert image.height < 900


def test_samples_that_cannot_be_drawn_are_rejected(tmp_path):
    with pytest.raises(
        DataError, match=r"^no samples to write: expected sounds \[N, channels, samples\], got {'label'"
    ):
        write_samples({"label": torch.zeros(3)}, tmp_path / "a")
    with pytest.raises(DataError, match=r"different numbers of items: {'a': 2, 'b': 3}$"):
        write_samples({"a": steps(2), "b": steps(3)}, tmp_path / "a")


# --- items


def test_written_sounds_are_read_back_exactly(tmp_path):
    audio = torch.randint(-(2**15), 2**15, (3, 2, 500)) / 2**15
    paths = write_items({"audio": audio}, tmp_path / "new", game=Maker(22_050))
    assert paths == [tmp_path / "new" / f"0000{k}.wav" for k in range(3)]
    assert soundfile.info(paths[0]).samplerate == 22_050
    assert torch.equal(torch.stack([torch.from_numpy(heard(path)) for path in paths]), audio)


def test_labels_are_written_to_a_table(tmp_path):
    write_items(steps(2), tmp_path, labels={"label": ["seven", "3"]}, game=Maker())
    assert (tmp_path / "labels.csv").read_text() == "file,label\n00000.wav,seven\n00001.wav,3\n"
    assert len(list(tmp_path.glob("*.wav"))) == 2


def test_an_item_of_several_sounds_has_several_files(tmp_path):
    paths = write_items(
        {"source": steps(1), "mel": torch.zeros(1, 80, 9), "generated": steps(1)}, tmp_path, game=Maker()
    )
    assert [path.name for path in paths] == ["00000_source.wav", "00000_generated.wav"]


def test_clipped_samples_are_counted(tmp_path, caplog):
    write_items(torch.tensor([[[0.5, 1.5, -2.0] * 20]]), tmp_path, game=Maker())
    assert caplog.messages == [f"{tmp_path}: 40 samples beyond [-1, 1] were clipped"]


def test_no_file_is_overwritten(tmp_path):
    (tmp_path / "00001.wav").write_text("mine")
    with pytest.raises(InputError, match=r"already contains 00001.wav; choose another folder, or empty this one$"):
        write_items(steps(2), tmp_path, game=Maker())
    assert [path.name for path in tmp_path.iterdir()] == ["00001.wav"]


def test_items_that_cannot_be_written_are_rejected(tmp_path):
    by_hand = wavegan.WaveGAN(wavegan.Generator(samples=128, width=1), wavegan.Discriminator(samples=128, width=1))
    for game in (None, by_hand):
        with pytest.raises(InputError) as error:
            write_items(steps(2), tmp_path, game=game)
        assert str(error.value) == (
            f"{tmp_path}: the sample rate of the sounds is not known; "
            "set `data.spec.sample_rate`, or the `data_spec` of a game built by hand"
        )
    with pytest.raises(DataError, match="no samples to write"):
        write_items({"mel": torch.zeros(2, 80, 9)}, tmp_path, game=Maker())
