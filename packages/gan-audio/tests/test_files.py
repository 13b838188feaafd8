import io
import shutil
import struct
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from gan_audio.sound import files, layout, wav
from gan_audio.sound.files import Header, looks_like_sound, loud_part, opened, read_blocks, read_header, read_sound
from gan_audio.sound.mpeg import frame_header
from gan_audio.sound.wav import open_wav, write_wav
from gan_core.data.files import FolderFiles, open_files
from gan_core.errors import DataError, InputError, Unreadable


def noise(samples, channels=1, *, level=0.1, seed=0):
    """`[channels, samples]`."""
    return level * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


def tone(hz, rate, samples, level=0.5):
    return level * torch.sin(2 * torch.pi * hz * torch.arange(samples, dtype=torch.float64) / rate)[None].float()


def save(path, audio, rate=16_000, subtype="PCM_16", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.T.numpy(), rate, subtype=subtype, **options)
    return path


def read(path, **wanted):
    return read_sound(FolderFiles(path.parent), path.name, **wanted)


def decibels(audio):
    return 10 * float(audio.double().square().mean().mul(2).log10())  # a sine of amplitude 1 is 0


# --- what is decoded


@pytest.mark.parametrize(
    ("suffix", "subtype", "within"),
    [
        (".wav", "PCM_U8", 2**-7),
        (".wav", "PCM_16", 2**-15),
        (".wav", "PCM_24", 2**-23),
        (".wav", "PCM_32", 2**-23),
        (".wav", "FLOAT", 0),
        (".wav", "DOUBLE", 2**-23),
        (".wav", "ULAW", 2**-5),
        (".flac", "PCM_16", 2**-15),
        (".flac", "PCM_24", 2**-23),
        (".aiff", "PCM_16", 2**-15),
        (".aiff", "PCM_24", 2**-23),
    ],
)
def test_every_bit_depth_is_decoded_exactly(tmp_path, suffix, subtype, within):
    audio = noise(5000, 2).clamp(-1, 1)
    path = save(tmp_path / f"a{suffix}", audio, 22_050, subtype)
    assert read_header(FolderFiles(tmp_path), path.name) == Header(22_050, 2, 5000)
    found = read(path)
    assert found.dtype == torch.float32
    assert_close(found, audio, atol=within, rtol=0)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [(".ogg", "VORBIS"), (".oga", "VORBIS"), (".opus", "OPUS"), (".mp3", "MPEG_LAYER_III")]
)
def test_lossy_formats_are_decoded_approximately(tmp_path, suffix, subtype):
    audio = tone(440, 24_000, 24_000)
    format = "MP3" if suffix == ".mp3" else "OGG"
    found = read(save(tmp_path / f"a{suffix}", audio, 24_000, subtype, format=format))
    assert found.shape == audio.shape
    assert decibels((found - audio)[:, 2000:-2000]) < -25


def test_an_mp3_is_read_in_blocks_and_slices_as_at_once(tmp_path):
    """MP3 frames depend on earlier ones, whose state a seek discards."""
    time = torch.arange(5 * 2**16) / 44_100
    save(tmp_path / "a.mp3", 0.5 * torch.sin(2 * torch.pi * (100 + 900 * time) * time)[None], 44_100, None)
    at_once = torch.from_numpy(soundfile.read(tmp_path / "a.mp3", dtype="float32", always_2d=True)[0].T)
    at_once = at_once.clamp(-1, 1)
    assert torch.equal(read(tmp_path / "a.mp3"), at_once)
    for start in (1, 5000, 70_000, 200_001):
        assert_close(read(tmp_path / "a.mp3", start=start, length=4000), at_once[:, start : start + 4000])


def test_16_bit_samples_are_written_and_read_unchanged(tmp_path):
    levels = torch.arange(-(2**15), 2**15, dtype=torch.float32)[None] / 2**15
    assert write_wav(tmp_path / "a.wav", levels, 8000) == 0
    found = read(tmp_path / "a.wav")
    assert torch.equal(found, levels)
    assert write_wav(tmp_path / "b.wav", found, 8000) == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_channels_are_averaged_or_copied_and_other_conversions_are_refused(tmp_path):
    audio = torch.stack([torch.full((400,), 0.5), torch.full((400,), -0.25)])
    stereo, mono = save(tmp_path / "stereo.wav", audio), save(tmp_path / "mono.wav", audio[:1])
    assert_close(read(stereo, channels=1), torch.full((1, 400), 0.125))
    assert_close(read(mono, channels=3), torch.full((3, 400), 0.5))
    with pytest.raises(Unreadable, match=r"^has 2 channels, which cannot be converted to 3; use 1 or 2$"):
        read(stereo, channels=3)


# --- other rates


@pytest.mark.parametrize(("rate", "hz"), [(44_100, 9000), (48_000, 9000), (44_100, 20_000)])
def test_resampling_does_not_alias(tmp_path, rate, hz):
    path = save(tmp_path / "a.wav", tone(hz, rate, rate), rate, "FLOAT")
    assert decibels(read(path, sample_rate=16_000)[:, 500:-500]) < -120


@pytest.mark.parametrize(("rate", "to"), [(44_100, 16_000), (8000, 22_050), (22_050, 8000), (16_000, 48_000)])
def test_resampling_keeps_frequency_level_and_position(tmp_path, rate, to):
    path = save(tmp_path / "a.wav", tone(1000, rate, rate), rate, "FLOAT")
    found = read(path, sample_rate=to)
    assert found.shape == (1, to)
    assert_close(found[:, 500:-500], tone(1000, to, to)[:, 500:-500], atol=2e-4, rtol=0)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 44_101, 96_000])
def test_a_slice_equals_the_same_part_of_the_whole_sound(tmp_path, rate):
    path = save(tmp_path / "a.wav", noise(rate + 17, 2), rate, "FLOAT")
    whole = read(path, sample_rate=16_000)
    assert whole.shape == (2, read_header(FolderFiles(tmp_path), "a.wav").length_at(16_000))
    for start in (0, 1, 99, 5000, 12_345, whole.shape[1] - 700):
        part = read(path, sample_rate=16_000, start=start, length=700)
        assert_close(part, whole[:, start : start + 700], atol=1e-6, rtol=0)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_block_size_does_not_change_the_sound(tmp_path, monkeypatch, block):
    path = save(tmp_path / "a.flac", noise(3001, 2), 44_100)
    whole = read(path, sample_rate=16_000, channels=1)
    monkeypatch.setattr(files, "BLOCK", block)
    assert torch.equal(read(path, sample_rate=16_000, channels=1), whole)


# --- what is refused, and how


def encoded(audio, rate=16_000, *, subtype="FLOAT", format="WAV"):
    stream = io.BytesIO()
    soundfile.write(stream, audio.T.numpy(), rate, subtype=subtype, format=format)
    return stream.getvalue()


LATE = torch.zeros(1, 16_000)
LATE[0, 12_000] = torch.nan
LOUD = torch.zeros(1, 16_000)
LOUD[0, 4000] = 30_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"this is a text\n" * 10, "not a readable sound file, or damaged at its start"),
        (encoded(noise(1000), format="AU"), "the format is AU; expected WAV, FLAC, Ogg, MP3 or AIFF"),
        (encoded(torch.zeros(1, 0)), "contains 0 samples; expected 32 or more"),
        (encoded(torch.zeros(1, 1)), "contains 1 sample; expected 32 or more"),
        (encoded(noise(100), 500), "the sample rate is 500 Hz; expected 1,000 to 768,000"),
        (encoded(noise(100), 900_000), "the sample rate is 900,000 Hz; expected 1,000 to 768,000"),
        (encoded(noise(100, 65)), "has 65 channels; the maximum is 64"),
        (encoded(LATE), "contains values that are not finite, from 0.750 s on"),
        (
            encoded(LOUD),
            "contains values up to 30,000, from 0.250 s on; expected [-1, 1], so scale them or save as PCM",
        ),
    ],
)
def test_invalid_sound_files_are_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(Unreadable) as error:
        read(tmp_path / "a.wav")
    assert str(error.value) == reason


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_truncated_files_are_refused(tmp_path, suffix):
    content = save(tmp_path / f"a{suffix}", noise(48_000), 16_000, None).read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(Unreadable, match=r"^damaged: ends after 1\.\d\d of 3\.\d\d s$|lost sync"):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64", "AIFF"])
def test_truncated_pcm_files_are_read_to_their_end_with_a_note(tmp_path, format):
    content = encoded(noise(48_000), format=format, subtype="PCM_16")
    (tmp_path / "a.wav").write_bytes(content[:-16_000])
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("a.wav", content[:-16_000])
        archive.writestr("b.wav", content)
    for there in (FolderFiles(tmp_path), open_files(tmp_path / "packed.zip")):
        assert read_header(there, "a.wav") == Header(16_000, 1, 40_000, layout.CUT)
        assert torch.equal(
            read_sound(there, "a.wav"), read_sound(open_files(tmp_path / "packed.zip"), "b.wav")[:, :40_000]
        )
    for end in (content + b"more", content[:-100]):  # 3 ms, as where a program counts wrongly
        (tmp_path / "a.wav").write_bytes(end)
        assert read_header(FolderFiles(tmp_path), "a.wav").note is None
        assert 0 <= 48_000 - read(tmp_path / "a.wav").shape[1] <= 50
    for length in range(40, len(content) - 96_000 + 4):
        (tmp_path / "a.wav").write_bytes(content[:length])
        with pytest.raises(Unreadable):
            read(tmp_path / "a.wav")


def test_truncation_is_found_behind_other_chunks(tmp_path):
    content = encoded(noise(48_000), format="WAV", subtype="PCM_16")
    comment = b"LIST" + struct.pack("<I", 8000) + b"INFO" + b"\ndata : 10 (should be 5)\n".ljust(7996)
    (tmp_path / "a.wav").write_bytes(content[:36] + comment + content[36:])
    assert read_header(FolderFiles(tmp_path), "a.wav") == Header(16_000, 1, 48_000)
    (tmp_path / "a.wav").write_bytes((content[:36] + comment + content[36:])[:-16_000])
    assert read_header(FolderFiles(tmp_path), "a.wav") == Header(16_000, 1, 40_000, layout.CUT)


def with_sizes(content, order, **sizes):
    """Returns a sound file whose chunks declare other sizes."""
    content = bytearray(content)
    for name, size in sizes.items():
        struct.pack_into(f"{order}I", content, content.index(name.encode()) + 4, size)
    return bytes(content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("riff", "data"), [(0, 0), (36, 0), (2**31 - 1, 2**31 - 37), (2**32 - 1, 2**32 - 1), (2**32 - 1, 0)]
)
@pytest.mark.parametrize(("kind", "subtype"), [("RIFF", "PCM_16"), ("RIFF", "PCM_24"), ("RIFX", "PCM_16")])
def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path, packed, riff, data, kind, subtype):
    stream = io.BytesIO()
    endian = "BIG" if kind == "RIFX" else "FILE"
    soundfile.write(stream, noise(5000, 2).T.numpy(), 16_000, subtype=subtype, format="WAV", endian=endian)
    content = with_sizes(stream.getvalue(), ">" if kind == "RIFX" else "<", **{kind: riff, "data": data})
    (tmp_path / "a.wav").write_bytes(stream.getvalue())
    (tmp_path / "b.wav").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("b.wav", content)
    there = open_files(tmp_path / "packed.zip") if packed else FolderFiles(tmp_path)
    assert read_header(there, "b.wav") == Header(16_000, 2, 5000, layout.UNFINISHED)
    assert torch.equal(read_sound(there, "b.wav"), read(tmp_path / "a.wav"))
    assert torch.equal(read_sound(there, "b.wav", start=3000, length=99), read(tmp_path / "a.wav")[:, 3000:3099])


def test_an_rf64_of_unknown_length_is_read_to_its_end(tmp_path):
    content = bytearray(encoded(noise(5000), format="RF64", subtype="PCM_16"))
    (tmp_path / "a.wav").write_bytes(content)
    content[20:44] = bytes(24)  # the sizes in `ds64`
    (tmp_path / "b.wav").write_bytes(content)
    assert torch.equal(read(tmp_path / "b.wav"), read(tmp_path / "a.wav"))


def test_a_wav_of_unknown_length_may_exceed_4_gib(tmp_path):
    content = with_sizes(encoded(noise(100), 768_000, subtype="PCM_16"), "<", RIFF=0, data=0)
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(content[:44])
        file.truncate(44 + 2**32 + 2000)  # holes, which take no room
        file.seek(0, 2)
        file.write(content[44:])
    header = read_header(FolderFiles(tmp_path), "a.wav")
    assert header.length == 2**31 + 1100
    assert_close(read(tmp_path / "a.wav", start=2**31 + 1000), noise(100), atol=2**-15, rtol=0)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_an_aiff_of_unknown_length_is_read_to_its_end(tmp_path, subtype):
    content = encoded(noise(5000, 2), format="AIFF", subtype=subtype)
    (tmp_path / "a.aiff").write_bytes(content)
    crashed = bytearray(with_sizes(content, ">", FORM=0, SSND=0))
    struct.pack_into(">I", crashed, crashed.index(b"COMM") + 10, 0)  # the number of samples
    (tmp_path / "b.aif").write_bytes(crashed)
    assert read_header(FolderFiles(tmp_path), "b.aif") == Header(16_000, 2, 5000, layout.UNFINISHED)
    assert torch.equal(read(tmp_path / "b.aif"), read(tmp_path / "a.aiff"))


# --- FLAC and Ogg


def without_length(flac):
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_a_flac_of_unknown_length_is_counted_and_read(tmp_path, rate):
    content = encoded(noise(100_001, 2), format="FLAC", subtype="PCM_16")
    (tmp_path / "a.flac").write_bytes(content)
    (tmp_path / "b.flac").write_bytes(without_length(content))
    (tmp_path / "c.flac").write_bytes(b"ID3\x03\0\0\0\0\x02\0" + bytes(256) + without_length(content))
    whole = read(tmp_path / "a.flac", sample_rate=rate)
    for name in ("b.flac", "c.flac"):
        assert read_header(FolderFiles(tmp_path), name) == Header(16_000, 2, 100_001)
        assert torch.equal(read(tmp_path / name, sample_rate=rate), whole)
        for start in (0, 4095, 65_536, 90_000):
            found = read(tmp_path / name, sample_rate=rate, start=start, length=500)
            assert_close(found, whole[:, start : start + 500], atol=1e-6, rtol=0)


def test_a_truncated_flac_of_unknown_length_is_read_to_the_damage(tmp_path):
    content = encoded(noise(100_000), format="FLAC", subtype="PCM_16")
    (tmp_path / "a.flac").write_bytes(without_length(content)[: len(content) // 2])
    length, note = read_header(FolderFiles(tmp_path), "a.flac")[2:]
    assert 40_000 < length < 50_000
    assert note == layout.CUT
    assert_close(read(tmp_path / "a.flac"), noise(100_000)[:, :length], atol=2**-15, rtol=0)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("levels", [(0.1, 0.1), (0.0, 0.1), (0.1, 0.0)])
def test_joined_flac_files_are_read_completely(tmp_path, levels, known):
    parts = [noise(300_000, level=level, seed=k) for k, level in enumerate(levels)]
    contents = [encoded(part, format="FLAC", subtype="PCM_16") for part in parts]
    (tmp_path / "a.flac").write_bytes(b"".join(contents if known else map(without_length, contents)))
    whole = read(tmp_path / "a.flac")
    assert_close(whole, torch.cat(parts, dim=1), atol=2**-15, rtol=0)
    assert torch.equal(read(tmp_path / "a.flac", start=299_900, length=200), whole[:, 299_900:300_100])


@pytest.mark.parametrize("level", [0.1, 0.001])
def test_a_long_flac_is_recognised_as_complete_without_a_search(tmp_path, monkeypatch, level):
    save(tmp_path / "a.flac", noise(600_000, level=level))
    monkeypatch.setattr(layout, "SEARCHED", 0)  # a search would find the end of the file at once
    monkeypatch.setattr(layout, "_further_flac", None)
    assert read_header(FolderFiles(tmp_path), "a.flac").length == 600_000


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_files_are_read_completely(tmp_path, subtype):
    for name, hz in (("a", 300), ("b", 700)):
        save(tmp_path / f"{name}.ogg", tone(hz, 24_000, 50_000), 24_000, subtype)
    content = b"".join((tmp_path / f"{name}.ogg").read_bytes() for name in "ab")
    (tmp_path / "ab.ogg").write_bytes(content)
    whole = torch.cat([read(tmp_path / "a.ogg"), read(tmp_path / "b.ogg")], dim=1)
    assert torch.equal(read(tmp_path / "ab.ogg"), whole)
    found = read(tmp_path / "ab.ogg", start=49_900, length=200)
    assert_close(found, whole[:, 49_900:50_100], atol=1e-2, rtol=0)  # Opus is not exact after a seek
    assert read_header(FolderFiles(tmp_path), "a.ogg").note is None


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_truncated_ogg_file_is_read_to_its_end_with_a_note(tmp_path, subtype):
    content = save(tmp_path / "a.ogg", noise(200_000), 24_000, subtype).read_bytes()
    (tmp_path / "cut.ogg").write_bytes(content[: len(content) // 2])
    assert 50_000 < read(tmp_path / "cut.ogg").shape[1] < 150_000
    assert read_header(FolderFiles(tmp_path), "cut.ogg").note == layout.CUT


# --- MP3


def mp3(hz, samples=44_100, rate=44_100, channels=1, *, info=True):
    """Returns an MP3 file, with or without its info frame."""
    content = encoded(tone(hz, rate, samples).expand(channels, -1), rate, subtype="MPEG_LAYER_III", format="MP3")
    return content if info else content[frame_header(content[:4]).size :]


ID3 = b"ID3\x03\0\0\0\0\x02\0" + bytes(256)
ID3_AT_END = b"TAG" + bytes(125)
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        mp3(300) + mp3(700),
        mp3(300) + ID3_AT_END + ID3 + mp3(700) + ID3_AT_END,
        ID3 + mp3(300) + APE + ID3_AT_END + mp3(700) + APE,
        bytes(3000) + mp3(300) + mp3(700),
        b"\xff\xfb\x90\0junk" * 400 + mp3(300) + mp3(700) + b"\xff" * 5000,
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_joined_mp3_files_are_read_completely(tmp_path, content, packed, capfd):
    for name, each in (("a", mp3(300)), ("b", mp3(700)), ("joined", content)):
        (tmp_path / f"{name}.mp3").write_bytes(each)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("joined.mp3", content)
    there = open_files(tmp_path / "packed.zip") if packed else FolderFiles(tmp_path)
    whole = torch.cat([read(tmp_path / "a.mp3"), read(tmp_path / "b.mp3")], dim=1)
    assert read_header(there, "joined.mp3") == Header(44_100, 1, 88_200)
    assert torch.equal(read_sound(there, "joined.mp3"), whole)
    for start in (0, 30_000, 44_000, 44_100, 60_000):
        found = read_sound(there, "joined.mp3", start=start, length=700)
        assert_close(found, whole[:, start : start + 700], atol=1e-6, rtol=0)
    assert capfd.readouterr().err == ""  # no warnings of the decoder


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (44_100, 2), (22_050, 1), (8000, 2)])
def test_an_mp3_without_an_info_frame_has_the_length_of_its_frames(tmp_path, rate, channels):
    (tmp_path / "a.mp3").write_bytes(mp3(300, 2 * rate, rate, channels))
    (tmp_path / "b.mp3").write_bytes(mp3(300, 2 * rate, rate, channels, info=False))
    whole, found = read(tmp_path / "a.mp3"), read(tmp_path / "b.mp3")
    added = found.shape[1] - whole.shape[1]  # silence that the encoder adds at both ends, as the info frame says
    assert 576 <= added < 4000
    assert_close(found[:, 576:][:, : whole.shape[1]], whole, atol=1e-6, rtol=0)


def test_a_stream_without_an_info_frame_is_found_after_one_with_it(tmp_path):
    for name, content in (
        ("a", mp3(300)),
        ("b", mp3(700, info=False)),
        ("ab", mp3(300) + mp3(700, info=False)),
        ("bb", 2 * mp3(700, info=False)),
    ):
        (tmp_path / f"{name}.mp3").write_bytes(content)
    a, b = read(tmp_path / "a.mp3"), read(tmp_path / "b.mp3")
    assert torch.equal(read(tmp_path / "ab.mp3"), torch.cat([a, b], dim=1))
    assert read(tmp_path / "bb.mp3").shape[1] - 2 * b.shape[1] == 529  # one stream, whose decoding starts once


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (mp3(300) + mp3(300, rate=22_050), "(44,100 Hz with 1 channel, then 22,050 Hz with 1 channel); split it"),
        (mp3(300) + mp3(300, channels=2), "(44,100 Hz with 1 channel, then 44,100 Hz with 2 channels); split it"),
        (mp3(300)[:800], "damaged: ends after 0.00 of 1.04 s"),
        (mp3(300, info=False)[:200], "not a readable sound file, or damaged at its start"),
        (mp3(300)[:3000] + mp3(700), "damaged: ends after 0.50 of 1.04 s"),
        (50 * (b"\xff\xfb\x00\xc4" + bytes(400)), "an MP3 in free format, whose frames have no defined bit rate; "),
        (mp3(300) + 2**19 * b"\x01" + mp3(700), "damaged: more than 262,144 bytes belong to no MP3 frame"),
    ],
)
def test_mp3_files_that_cannot_be_read_completely_are_refused(tmp_path, content, reason):
    (tmp_path / "a.mp3").write_bytes(content)
    with pytest.raises(Unreadable) as error:
        read(tmp_path / "a.mp3")
    assert reason in str(error.value)


def test_bytes_between_the_frames_and_a_cut_end_are_noted(tmp_path):
    for name, content, note in (
        ("between", mp3(300, info=False) + b"hello" * 100 + mp3(700, info=False), layout.DAMAGED_MP3),
        ("cut", mp3(300, info=False)[:-100], layout.CUT),
    ):
        (tmp_path / f"{name}.mp3").write_bytes(content)
        assert read_header(FolderFiles(tmp_path), f"{name}.mp3").note == note
        assert read(tmp_path / f"{name}.mp3").shape[1] > 43_000


def test_a_sound_beyond_full_scale_is_clipped_and_counted_or_kept(tmp_path):
    audio = tone(440, 16_000, 16_000, level=2.0)
    path, clipped = save(tmp_path / "a.wav", audio, subtype="FLOAT"), []
    assert torch.equal(read(path, clipped=clipped.append), audio.clamp(-1, 1))
    assert clipped == [int((audio.abs() > 1).sum())]
    assert torch.equal(read(path, clip=False), audio)
    assert float(read(path, clip=False, sample_rate=24_000).abs().max()) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_give_a_sound_or_unreadable(tmp_path, seed):
    rng = np.random.default_rng(seed)
    kinds = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")]
    format, subtype = kinds[seed % 5]
    content = np.frombuffer(encoded(noise(8000), format=format, subtype=subtype), dtype=np.uint8).copy()
    content[rng.integers(0, min(len(content), 200 if seed % 2 else len(content)), 6)] = rng.integers(0, 256, 6)
    (tmp_path / "a.wav").write_bytes(content.tobytes())
    with suppress(Unreadable):  # and no other error
        assert read(tmp_path / "a.wav", sample_rate=16_000, channels=1).abs().max() <= 1


def test_a_header_that_declares_too_many_hours_is_refused_before_decoding(tmp_path):
    content = bytearray(encoded(noise(1000), format="FLAC", subtype="PCM_16"))
    content[21:26] = bytes([content[21] | 0x0F, 255, 255, 255, 255])  # the 36 bits of STREAMINFO's total
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(Unreadable, match=r"^1,193 hours long; the maximum is 48$"):
        read(tmp_path / "a.flac")


def test_sounds_that_are_too_long_for_memory_can_be_read_in_blocks(tmp_path, monkeypatch):
    path = save(tmp_path / "a.wav", noise(3000))
    monkeypatch.setattr(files, "MAX_HELD", 2000)
    with pytest.raises(Unreadable, match=r"^3,000 samples; at most 2,000 can be read at once\. Read it in blocks$"):
        read(path)
    with opened(FolderFiles(tmp_path), "a.wav") as sound:
        assert sum(block.shape[1] for block in read_blocks(sound)) == 3000


def test_reading_an_hour_needs_little_memory(tmp_path):
    rate, seconds = 44_100, 3600
    data = 2 * rate * seconds
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + data, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", data
    )
    with (tmp_path / "hour.wav").open("wb") as file:
        file.write(header)
        file.seek(44 + 2 * rate * 3000)
        file.write(struct.pack("<h", 16_384))
        file.truncate(44 + data)  # the rest are holes, which take no room
    tracemalloc.start()
    part = read(tmp_path / "hour.wav", sample_rate=16_000, start=3000 * 16_000 - 100, length=200)
    with opened(FolderFiles(tmp_path), "hour.wav") as sound:
        first, last = loud_part(read_blocks(sound), rate, decibels=40)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert int(part.argmax()) == 100
    assert first <= rate * 3000 < last
    assert last - first == rate // 100
    assert peak < 2**23


# --- archives


def test_an_archive_is_read_in_place(tmp_path):
    path = save(tmp_path / "folder" / "a" / "one.flac", noise(1000))
    for kind in ("zip", "tar", "gztar"):
        shutil.make_archive(str(tmp_path / kind), kind, tmp_path / "folder")
    for name in ("zip.zip", "tar.tar", "gztar.tar.gz"):
        assert torch.equal(read_sound(open_files(tmp_path / name), "a/one.flac"), read(path))


def test_a_packed_file_has_a_limit(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", encoded(torch.zeros(1, 2**20)))
    monkeypatch.setattr(files, "MAX_PACKED", 2**21)
    with pytest.raises(Unreadable, match=r"^4 MiB, more than the maximum of 2$"):
        read_header(open_files(tmp_path / "a.zip"), "a.wav")


# --- silence


@pytest.mark.parametrize("channels", [1, 2])
def test_the_loud_part_is_found_to_10_ms(tmp_path, channels):
    audio = torch.zeros(channels, 48_000)
    audio[:, 16_000:32_000] = noise(16_000)
    audio[:, 8000:16_000] = noise(8000, level=0.0005)  # 46 dB below
    path = save(tmp_path / "a.wav", audio)
    with opened(FolderFiles(tmp_path), path.name) as sound:
        assert loud_part(read_blocks(sound), 16_000, decibels=40) == (16_000, 32_000)
        assert loud_part(read_blocks(sound), 16_000, decibels=60) == (8000, 32_000)


def test_silent_sounds_have_no_loud_part(tmp_path):
    save(tmp_path / "a.wav", torch.zeros(1, 1000))
    with opened(FolderFiles(tmp_path), "a.wav") as sound, pytest.raises(Unreadable, match=r"^is silent throughout$"):
        loud_part(read_blocks(sound), 16_000, decibels=40)


# --- writing


def test_values_beyond_full_scale_are_clipped_and_counted(tmp_path):
    audio = torch.tensor([[0.0, 1.0, -1.0, 1.5, -7.0, torch.nan, torch.inf, 0.5] * 8])
    assert write_wav(tmp_path / "a.wav", audio, 16_000) == 8 * 4
    top = 1 - 2**-15
    assert read(tmp_path / "a.wav")[0, :8].tolist() == [0.0, top, -1.0, top, -1.0, 0.0, top, 0.5]
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"


def test_writing_in_parts_gives_the_same_file(tmp_path):
    audio = noise(5000, 2)
    write_wav(tmp_path / "whole.wav", audio, 22_050)
    with open_wav(tmp_path / "parts.wav", sample_rate=22_050, channels=2) as writer:
        for part in torch.split(audio, 777, dim=1):
            writer.write(part)
    assert (tmp_path / "whole.wav").read_bytes() == (tmp_path / "parts.wav").read_bytes()


def test_an_interrupted_write_keeps_the_existing_file(tmp_path):
    write_wav(tmp_path / "a.wav", noise(1000), 16_000)
    before = (tmp_path / "a.wav").read_bytes()
    with suppress(KeyboardInterrupt), open_wav(tmp_path / "a.wav", sample_rate=16_000, channels=1) as writer:
        writer.write(noise(10))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == before


def write_parts(path, *parts):
    with open_wav(path, sample_rate=16_000, channels=1) as writer:
        for part in parts:
            writer.write(part)


def test_a_wav_beyond_the_maximum_size_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(wav, "MAX_WAV", 4000)
    write_wav(tmp_path / "a.wav", noise(1000, 2), 16_000)
    write_parts(tmp_path / "b.wav", noise(1000), noise(1000))
    with pytest.raises(InputError, match=r"c.wav: larger than the maximum size of a WAV file, .* GiB; split "):
        write_parts(tmp_path / "c.wav", noise(2000), noise(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


def test_the_largest_wav_has_room_for_its_header():
    header = 44
    assert 2**32 - 2**16 < wav.MAX_WAV <= 2**32 - 1 - header


def test_unwritable_paths_and_wrong_shapes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a.wav: the sound has the shape \[100\]; expected \[channels, samples\]$"):
        write_wav(tmp_path / "a.wav", torch.zeros(100), 16_000)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/a.wav: cannot be written \(.+\); choose another place$"):
        write_wav(tmp_path / "file" / "a.wav", torch.zeros(1, 100), 16_000)


# --- real data


@pytest.mark.parametrize(
    ("name", "count", "seconds"), [("fsdd", 2000, 941), ("audio_clips", 6, 351), ("ljspeech_clips", 24, 164)]
)
def test_all_shared_sounds_can_be_read(shared_data, name, count, seconds):
    held = FolderFiles(shared_data(name))
    names = [each for each in held.sizes if each.endswith(files.SUFFIXES)]
    headers = [read_header(held, each) for each in names]
    assert len(names) == count
    assert sum(header.seconds for header in headers) == pytest.approx(seconds, abs=0.5)
    for each, header in list(zip(names, headers, strict=True))[:24]:
        audio = read_sound(held, each)
        assert audio.shape == (header.channels, header.length)
        assert -40 < decibels(audio) < 0


def test_the_content_of_a_sound_is_recognised_without_its_name():
    contents = [encoded(noise(100), format=each, subtype="PCM_16") for each in ("WAV", "RF64", "FLAC", "AIFF")]
    for content in (*contents, encoded(noise(100), format="OGG", subtype="VORBIS"), ID3 + mp3(300)):
        assert looks_like_sound(content[:16])
    for other in (b"RIFF\x10\0\0\0WEBPVP8 ", b"\x89PNG\r\n\x1a\n", b"words and words and", b""):
        assert not looks_like_sound(other[:16])


def test_suffixes_that_are_read_and_others_are_disjoint():
    assert not set(files.SUFFIXES) & set(files.FOREIGN)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in (*files.SUFFIXES, *files.FOREIGN))
