import logging
import pickle
import re
import subprocess
import sys
import tarfile

import pytest
import soundfile
import torch
from torch.testing import assert_close

import gan_audio
from gan_audio import DOMAIN, data
from gan_audio.data import DATASETS, load_drums, open_folder
from gan_audio.media import write_items
from gan_audio.sound import sources
from gan_audio.sound.files import SUFFIXES
from gan_audio.sound.sources import DrumSource, FileSlices, HeldSlices
from gan_audio.sound.spec import SoundSpec
from gan_audio.sound.wav import write_wav
from gan_audio.systems import wavegan
from gan_audio.tune.spec import TuneSpec
from gan_core.api import open_recipe
from gan_core.data import BatchStream, Paired, Spec, hold_out, read
from gan_core.errors import DataError, RecipeError

LOOKED_FOR = f"(looked for {', '.join(SUFFIXES)})"


def ramp(length):
    """Returns a sound `[1, length]` whose sample `i` is `(i + 1) / 2^15`."""
    return torch.arange(1, length + 1)[None] / 2**15


def flat(level, length=64, channels=1):
    return torch.full((channels, length), level / 2**15)


def put(path, audio, rate=8000):
    write_wav(path, audio, rate)
    return path


def levels(batch):
    """Returns the first sample of every item, in 16-bit steps."""
    return (batch["audio"][:, 0, 0] * 2**15).round().int().tolist()


def spoil(path):
    """Writes a file with a valid header whose samples are NaN."""
    soundfile.write(path, torch.full((64,), torch.nan).numpy(), 8000, subtype="FLOAT")


def item(dataset, index, seed=0):
    torch.manual_seed(seed)
    return dataset[index]


# --- named datasets


def test_listing_the_datasets_imports_no_heavy_library():
    code = "import sys, gan_audio.data; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchaudio", "soundfile", "librosa", "numpy"} & set(answer.stdout.split())


def test_every_card_names_a_loader():
    for card in DATASETS:
        module, _, function = card.load.partition(":")
        assert module == "gan_audio.data"
        assert callable(getattr(data, function))
        assert card.origin in ("embedded", "download")
    assert len({card.name for card in DATASETS}) == len(DATASETS)


def test_drums_have_the_requested_sample_rate_and_length():
    source = load_drums()
    assert source.facts == {
        "sample_rate": 16_000,
        "channels": 1,
        "samples": 8192,
        "num_classes": 5,
        "classes": ["kick", "snare", "hat", "tom", "clap"],
    }
    source.count = 20
    dataset = source.fit(SoundSpec(samples=24_000, sample_rate=16_000, channels=2))
    batch = dataset.__getitems__([0, 1, 19])
    assert batch["audio"].shape == (3, 2, 24_000)
    assert batch["label"].tolist() == [0, 1, 4]
    assert not batch["audio"][:, :, 16_000:].any()  # a drum is over after a second
    assert torch.equal(batch["audio"][:, 0], batch["audio"][:, 1])
    short = source.fit(SoundSpec(samples=1000, sample_rate=16_000))[0]["audio"]
    assert short.argmax() < 300  # drums begin at their beginning
    assert set(source.keys) == {"audio", "label"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_sc09_contains_only_digits_of_the_training_split(home, capsys):
    folder = home / "SpeechCommands" / "speech_commands_v0.01"
    names = ["zero/a.wav", "zero/b.wav", "zero/c.wav", "nine/a.wav", "bed/a.wav", "_background_noise_/hum.wav"]
    for k, name in enumerate(names):
        put(folder / name, flat(k + 1), 16_000)
    (folder / "validation_list.txt").write_text("zero/b.wav\n")
    (folder / "testing_list.txt").write_text("zero/c.wav\n")
    source = data.load_sc09()
    assert (source.facts["num_classes"], source.facts["classes"][9]) == (10, "nine")
    batch = source.fit(SoundSpec(samples=64)).__getitems__([0, 1])
    assert (levels(batch), batch["label"].tolist()) == ([4, 1], [9, 0])
    assert capsys.readouterr().out == ""
    for part, level in (("train", [4, 1]), ("validation", [2]), ("test", [3])):
        source = gan_audio.open_data(f"sc09:{part}")
        assert source.name == ("sc09" if part == "train" else f"sc09:{part}")
        assert levels(read_all(source.fit(SoundSpec(samples=64)), 0)) == level
    with pytest.raises(DataError, match=r"unknown part of sc09 `tset`"):
        gan_audio.open_data("sc09:tset")
    (folder / "testing_list.txt").unlink()
    with pytest.raises(DataError, match=r"has no testing_list.txt; delete the folder to download it again$"):
        data.load_sc09()


def test_all_words_of_speech_commands_are_classes(home):
    folder = home / "SpeechCommands" / "speech_commands_v0.02"
    for name in ("backward/a.wav", "zero/a.wav", "_background_noise_/hum.wav"):
        put(folder / name, flat(1), 16_000)
    for part in ("validation", "testing"):
        (folder / f"{part}_list.txt").touch()
    source = data.load_speech_commands()
    assert (len(source), source.facts["num_classes"], source.labels.tolist()) == (2, 35, [0, 34])


def test_genres_are_classes_and_damaged_files_are_named(home, caplog):
    put(home / "genres" / "rock" / "rock.00000.wav", flat(7), 22_050)
    (home / "genres" / "jazz").mkdir()
    (home / "genres" / "jazz" / "jazz.00054.wav").write_bytes(b"as published")
    source = data.load_gtzan()
    assert (source.name, len(source), source.labels.tolist()) == ("gtzan", 1, [9])
    assert caplog.messages == [
        "gtzan: skipped 1 unreadable sound: jazz/jazz.00054.wav (not a readable sound file, or damaged at its start)"
    ]


def test_readers_are_not_classes(home):
    for reader in ("19", "26"):
        put(home / "LibriTTS" / "train-clean-100" / reader / "198" / "a.wav", flat(1), 24_000)
    source = data.load_libritts()
    assert (len(source), source.labels, source.facts["sample_rate"]) == (2, None, 24_000)
    assert "num_classes" not in source.facts


def test_an_archive_in_the_data_folder_is_unpacked(home):
    recording = put(home / "0_0_0_0_1_1_1_1.wav", flat(9))
    with tarfile.open(home / "waves_yesno.tar.gz", "w:gz") as archive:
        archive.add(recording, "waves_yesno/0_0_0_0_1_1_1_1.wav")
    assert levels(data.load_yesno().fit(SoundSpec(samples=64)).__getitems__([0])) == [9]


@pytest.mark.parametrize(
    ("load", "archive"),
    [
        (data.load_ljspeech, "LJSpeech-1.1.tar.bz2"),
        (data.load_gtzan, "genres.tar.gz"),
        (data.load_sc09, "speech_commands_v0.01.tar.gz"),
        (data.load_libritts, "train-clean-100.tar.gz"),
    ],
)
def test_a_failed_download_says_which_file_to_put_where(home, monkeypatch, load, archive):
    import torchaudio.datasets

    def no_network(*_, **__):
        raise OSError("<urlopen error\n no network>")

    for name in ("ljspeech", "gtzan", "speechcommands", "libritts"):
        module = sys.modules[f"torchaudio.datasets.{name}"]
        monkeypatch.setattr(module, "download_url_to_file", no_network)
    with pytest.raises(DataError) as error:
        load()
    card = str(error.value).partition(" ")[0]
    assert str(error.value) == (
        f"{card} cannot be downloaded; put {archive} into {home} by hand (<urlopen error no network>)"
    )
    assert torchaudio.datasets is not None


# --- folders


def test_sounds_in_a_folder_are_unlabelled_and_in_order(tmp_path):
    for k in (2, 0, 1):
        put(tmp_path / f"{k}.wav", flat(10 * k + 1))
    source = open_folder(tmp_path)
    assert source.facts == {"sample_rate": 8000, "channels": 1, "samples": 64}
    batch = source.fit(Spec()).__getitems__([0, 1, 2])
    assert set(batch) == {"audio"}
    assert (batch["audio"].dtype, batch["audio"].shape) == (torch.float32, (3, 1, 64))
    assert levels(batch) == [1, 11, 21]


def test_sub_folders_are_classes(tmp_path):
    for k, name in enumerate(["snare/x.wav", "kick/x.wav", "kick/old/y.wav"]):
        put(tmp_path / name, flat(k + 1))
    source = open_folder(tmp_path)
    assert (source.facts["num_classes"], source.facts["classes"]) == (2, ["kick", "snare"])
    batch = source.fit(SoundSpec(samples=64)).__getitems__([0, 1, 2])
    assert (levels(batch), batch["label"].tolist()) == ([3, 2, 1], [0, 0, 1])
    assert set(source.keys) == {"audio", "label"}


def test_sounds_next_to_class_folders_disable_the_labels(tmp_path, caplog):
    put(tmp_path / "kick" / "x.wav", flat(1))
    put(tmp_path / "intro.wav", flat(1))
    assert "num_classes" not in open_folder(tmp_path).facts
    assert caplog.messages == [f"{tmp_path}: sounds are both in the folder and in its sub-folders; labels are ignored"]
    assert caplog.records[0].name == "gan_core"


def test_facts_of_sounds_that_differ(tmp_path):
    put(tmp_path / "a.wav", flat(1, 64, channels=2), 44_100)
    put(tmp_path / "b.wav", flat(2, 65), 22_050)
    put(tmp_path / "c.wav", flat(3, 66), 22_050)
    put(tmp_path / "d.wav", flat(4, 66), 44_100)
    source = open_folder(tmp_path)
    assert source.facts == {"sample_rate": 22_050, "channels": 1}
    with pytest.raises(DataError, match=r"the sounds have different lengths; set `data.spec.samples`$"):
        source.fit(Spec())
    dataset = source.fit(SoundSpec(samples=32))
    assert (len(dataset), dataset.sample_rate) == (1 + 2 + 2 + 1, 22_050)


def test_impossible_channel_conversions_are_rejected(tmp_path):
    put(tmp_path / "mono.wav", flat(8))
    put(tmp_path / "stereo.wav", flat(4, channels=2))
    source = open_folder(tmp_path)
    assert source.fit(SoundSpec(samples=64, channels=2))[0]["audio"].shape == (2, 64)
    with pytest.raises(DataError) as error:
        source.fit(SoundSpec(samples=64, channels=3))
    assert str(error.value) == (
        f"{tmp_path}: stereo.wav has 2 channels, which cannot be converted to 3; use 1 or 2 as `network.channels`"
    )


def test_unreadable_files_are_named_counted_and_skipped(tmp_path, caplog):
    put(tmp_path / "good.wav", flat(7))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("words")
    (tmp_path / "notes.txt").write_text("no sound, and not looked at")
    source = open_folder(tmp_path)
    assert len(source) == 1
    assert caplog.messages == [
        f"{tmp_path}: skipped 2 unreadable sounds: empty.wav (the file is empty), "
        "text.mp3 (not a readable sound file, or damaged at its start)"
    ]


def test_damage_found_by_decoding_is_reported_when_the_dataset_is_read(tmp_path, caplog):
    for k in range(3):
        put(tmp_path / f"{k}.wav", flat(k + 1))
    spoil(tmp_path / "1.wav")
    source = open_folder(tmp_path)
    assert len(source) == 3
    assert levels(source.fit(SoundSpec(samples=64)).__getitems__([0, 1])) == [1, 3]
    assert list(source.skipped) == ["1.wav"]
    assert len(caplog.messages) == 1
    source.fit(SoundSpec(samples=32))
    assert len(caplog.messages) == 1  # known by now


@pytest.mark.parametrize("spoiled", ["header", "sound"])
def test_strict_stops_at_an_unreadable_file(tmp_path, spoiled):
    put(tmp_path / "a.wav", flat(1))
    spoil(tmp_path / "b.wav")
    if spoiled == "header":
        (tmp_path / "b.wav").write_text("words")
    with pytest.raises(DataError, match=r"cannot read b.wav \(.+\); repair or remove it, or omit `strict` to skip it$"):
        open_folder(tmp_path, strict=True).fit(SoundSpec(samples=64))


@pytest.mark.parametrize("strict", [False, True])
def test_the_error_for_a_folder_without_sounds_lists_the_suffixes(tmp_path, strict):
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(DataError) as error:
        open_folder(tmp_path, strict=strict)
    assert str(error.value) == f"{tmp_path}: no readable sounds among 1 file (found 1 .txt; {LOOKED_FOR[1:]}"


@pytest.mark.parametrize("memory", [2**31, 0])
def test_a_dataset_without_a_readable_sound_fails_before_training(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(sources, "MEMORY_BYTES", memory)
    for k in range(3):
        spoil(tmp_path / f"{k}.wav")
    words = re.escape(
        f"no readable sounds among 3 files {LOOKED_FOR}; 0.wav: contains values that are not finite, from 0.000 s on"
    )
    with pytest.raises(DataError, match=words):
        open_folder(tmp_path).fit(SoundSpec(samples=64))


def test_sources_reject_games_of_other_data(tmp_path):
    put(tmp_path / "a.wav", flat(1))
    for source in (open_folder(tmp_path), load_drums()):
        words = rf"^{re.escape(source.name)} holds sounds, but this game needs tunes; choose other data$"
        with pytest.raises(DataError, match=words):
            source.fit(TuneSpec(bars=8))


@pytest.mark.parametrize("sub_folder", ["train", "other/deep"])
def test_a_part_is_a_sub_folder(tmp_path, sub_folder):
    for name, level in (("train", 1), ("test", 2), ("other/deep", 3)):
        put(tmp_path / name / "a.wav", flat(level))
    source = gan_audio.open_data(f"{tmp_path}:{sub_folder}")
    assert source.name == f"{tmp_path}:{sub_folder}"
    assert levels(read_all(source.fit(Spec()), 0)) == [{"train": 1, "other/deep": 3}[sub_folder]]


# --- slices


def test_a_short_sound_is_followed_by_silence(tmp_path):
    put(tmp_path / "a.wav", ramp(100))
    audio = open_folder(tmp_path).fit(SoundSpec(samples=150))[0]["audio"]
    assert_close(audio[:, :100], ramp(100), atol=0, rtol=0)
    assert not audio[:, 100:].any()


@pytest.fixture(params=["memory", "files"])
def recording(tmp_path, monkeypatch, request):
    """One sound of 1050 samples, as 10 items of 100."""
    if request.param == "files":
        monkeypatch.setattr(sources, "MEMORY_BYTES", 0)
    put(tmp_path / "a.wav", ramp(1050))
    dataset = open_folder(tmp_path).fit(SoundSpec(samples=100))
    assert isinstance(dataset, HeldSlices if request.param == "memory" else FileSlices)
    return dataset


def test_each_item_of_a_long_sound_is_cut_from_its_own_section(recording):
    assert len(recording) == 10
    starts = torch.tensor([levels(read_all(recording, seed)) for seed in range(200)]) - 1  # [seeds, items]
    parts = torch.arange(11) * 951 / 10  # a slice can start at 951 samples
    assert (starts >= parts[:-1].floor()).all()
    assert (starts <= parts[1:].ceil()).all()
    assert int(starts.max()) > 945
    assert int(starts.min()) < 5
    assert_close(starts.double().mean(dim=0), parts.double()[:-1] + 951 / 20, atol=6, rtol=0)  # 3 of 95 / √(12 · 200)


def read_all(dataset, seed):
    torch.manual_seed(seed)
    return dataset.__getitems__(range(len(dataset)))


def test_a_slice_is_contiguous(recording):
    audio = item(recording, 3)["audio"]
    assert_close(audio[0].diff(), torch.full((99,), 2**-15), atol=1e-7, rtol=0)


def test_the_same_seed_gives_the_same_slices(recording):
    torch.manual_seed(5)
    first, second = recording.__getitems__(range(10)), recording.__getitems__(range(10))
    assert levels(first) != levels(second)
    assert levels(read_all(recording, 5)) == levels(first)
    once, again = (next(read(recording, range(10), 10)) for _ in range(2))
    assert levels(once) == levels(again)


def test_slices_of_a_stream_start_anywhere_in_their_own_section(recording):
    stream = BatchStream(recording, 10, seed=0)  # each batch is an epoch
    starts = torch.tensor([sorted(levels(next(stream))) for _ in range(200)]) - 1  # [epochs, sections]
    sections = torch.arange(11) * 951 / 10  # a slice can start at 951 samples
    assert (starts >= sections[:-1].floor()).all()
    assert (starts <= sections[1:].ceil()).all()
    assert_close(starts.double().mean(dim=0), sections.double()[:-1] + 951 / 20, atol=6, rtol=0)


def test_sounds_in_memory_and_in_files_give_the_same_items(tmp_path, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    for k, (rate, channels, length) in enumerate([(44_100, 2, 9000), (8000, 1, 700), (22_050, 1, 4000)]):
        put(tmp_path / f"{k}.wav", torch.randn(channels, length, generator=rng) / 9, rate)
    held = open_folder(tmp_path).fit(SoundSpec(samples=500, sample_rate=16_000))
    monkeypatch.setattr(sources, "MEMORY_SAMPLES", 0)
    files = open_folder(tmp_path).fit(SoundSpec(samples=500, sample_rate=16_000))
    assert (len(files), type(files), type(held)) == (len(held), FileSlices, HeldSlices)
    assert_close(read_all(files, 1), read_all(held, 1), atol=0, rtol=0)
    monkeypatch.setattr(sources, "KEPT_SAMPLES", 0)  # so that slices alone are read
    files = open_folder(tmp_path).fit(SoundSpec(samples=500, sample_rate=16_000))
    assert_close(read_all(files, 1), read_all(held, 1), atol=1e-6, rtol=0)
    assert not files._kept


@pytest.mark.parametrize("workers", [0, 1])
def test_two_processes_read_the_same_slices_as_one(recording, workers):
    whole = BatchStream(recording, 4, seed=0)
    parts = [BatchStream(recording, 4, seed=0, rank=rank, processes=2, workers=workers) for rank in range(2)]
    for _ in range(3):
        both = torch.cat([next(part)["audio"] for part in parts])
        assert torch.equal(both, next(whole)["audio"])


@pytest.mark.parametrize("memory", [2**31, 0])
def test_slices_of_a_recording_are_held_out_together(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(sources, "MEMORY_BYTES", memory)
    for k in range(8):
        put(tmp_path / f"{k}.wav", flat(k + 1, 64 * (k % 3 + 1)))
    dataset = open_folder(tmp_path).fit(SoundSpec(samples=64))
    assert dataset.groups.tolist() == [sound for sound in range(8) for _ in range(sound % 3 + 1)]
    assert dataset.pixels == frozenset()
    kept, held = (levels(read_all(part, 0)) for part in hold_out(dataset, 0.3))
    assert set(kept).isdisjoint(held)
    assert set(kept) | set(held) == set(range(1, 9))
    assert len(held) >= 0.3 * len(dataset)
    assert len(held) > len(set(held))  # recordings of several slices are among them


# --- pairs


def test_sounds_are_paired_by_name_and_start_at_their_beginning(tmp_path):
    for k in range(3):
        put(tmp_path / "noisy" / f"{k}.wav", flat(10 * k + 1, 40))
        put(tmp_path / "clean" / f"{k}.wav", flat(10 * k + 2, 40))
    spoil(tmp_path / "clean" / "1.wav")
    pairs = Paired(source=open_folder(tmp_path / "noisy"), target=open_folder(tmp_path / "clean"))
    batch = read_all(pairs.fit(SoundSpec(samples=64)), 0)
    for part, first in (("source", [1, 21]), ("target", [2, 22])):
        assert (batch[part][:, 0, 0] * 2**15).round().int().tolist() == first
        assert not batch[part][:, :, 40:].any()
    with pytest.raises(
        DataError, match=r"0.wav has 40 samples, but `data.spec.samples` is 32; cut the sounds of pairs to this length"
    ):
        pairs.fit(SoundSpec(samples=32))


# --- datasets too large for memory


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Writes four sounds of two classes, of which two fit in the cache."""
    monkeypatch.setattr(sources, "MEMORY_BYTES", 2 * 64 * 4)
    for k in range(4):
        put(tmp_path / f"{'ab'[k % 2]}/{k}.wav", flat(k + 1))
    return tmp_path


def test_sounds_that_fit_in_the_cache_are_read_once(large):
    dataset = open_folder(large).fit(SoundSpec(samples=64))
    batch = read_all(dataset, 0)
    assert (levels(batch), batch["label"].tolist()) == ([1, 3, 2, 4], [0, 0, 1, 1])
    assert len(dataset._kept) == 2
    for path in large.rglob("*.wav"):
        put(path, flat(9))
    assert levels(read_all(dataset, 0)) == [1, 3, 9, 9]


def test_a_damaged_sound_is_replaced_by_the_next_one(large, caplog):
    source = open_folder(large)
    dataset = source.fit(SoundSpec(samples=64))
    spoil(large / "a" / "2.wav")
    spoil(large / "b" / "3.wav")
    batch = read_all(dataset, 0)
    assert (levels(batch), batch["label"].tolist()) == (
        [1, 2, 2, 1],
        [0, 1, 1, 0],
    )  # the label is that of the sound that was read
    assert list(source.skipped) == ["a/2.wav", "b/3.wav"]
    assert len(caplog.messages) == 2


def test_strict_stops_in_a_large_dataset(large):
    dataset = open_folder(large, strict=True).fit(SoundSpec(samples=64))
    spoil(large / "a" / "2.wav")
    with pytest.raises(DataError, match=r"cannot read a/2.wav \("):
        dataset[1]


def test_a_large_dataset_can_be_pickled_for_workers(large):
    dataset = open_folder(large).fit(SoundSpec(samples=64))
    read_all(dataset, 0)
    assert levels(read_all(pickle.loads(pickle.dumps(dataset)), 0)) == [1, 3, 2, 4]


# --- silence


@pytest.mark.parametrize("memory", [2**31, 0])
def test_silence_is_trimmed_on_request(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(sources, "MEMORY_BYTES", memory)
    audio = torch.cat([torch.zeros(1, 8000), ramp(1600) + 0.25, torch.zeros(1, 4000)], dim=1)
    put(tmp_path / "a.wav", audio)
    dataset = open_folder(tmp_path).fit(SoundSpec(samples=1600, trim=30))
    assert_close(item(dataset, 0)["audio"], ramp(1600) + 0.25, atol=1e-7, rtol=0)
    slower = open_folder(tmp_path).fit(SoundSpec(samples=800, sample_rate=4000, trim=30))
    assert float(item(slower, 0)["audio"].min()) > 0.1  # no silence, but for what filtering does to its edges
    assert item(open_folder(tmp_path).fit(SoundSpec(samples=8000)), 0, seed=1)["audio"][0, 0] == 0


def test_a_silent_sound_is_kept_unless_silence_is_trimmed(tmp_path, caplog):
    put(tmp_path / "quiet.wav", flat(0))
    put(tmp_path / "loud.wav", flat(5))
    assert len(open_folder(tmp_path).fit(Spec())) == 2
    assert len(open_folder(tmp_path).fit(SoundSpec(trim=30))) == 1
    assert caplog.messages[0].endswith("skipped 1 unreadable sound: quiet.wav (is silent throughout)")


# --- peaks


@pytest.mark.parametrize("memory", [2**31, 0])
def test_sounds_are_scaled_to_a_peak_on_request(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(sources, "MEMORY_BYTES", memory)
    put(tmp_path / "a.wav", ramp(1000))
    put(tmp_path / "b.wav", flat(0))
    source = open_folder(tmp_path)
    louder, plain = (read_all(source.fit(SoundSpec(samples=100, peak=peak)), 0)["audio"] for peak in (0.95, None))
    assert_close(louder, plain * (0.95 * 2**15 / 1000))
    assert len(louder) == 11
    assert not louder[10].any()


@pytest.mark.parametrize("memory", [2**31, 0])
def test_a_float_sound_beyond_full_scale_is_scaled_by_its_true_peak(tmp_path, monkeypatch, memory, caplog):
    monkeypatch.setattr(sources, "MEMORY_BYTES", memory)
    monkeypatch.setattr(sources, "KEPT_SAMPLES", 2**22 if memory else 50)
    loud = torch.linspace(-2, 2, 101)[None]
    soundfile.write(tmp_path / "a.wav", loud.T.numpy(), 8000, subtype="FLOAT")
    source = open_folder(tmp_path)
    assert_close(source.fit(SoundSpec(samples=101, peak=0.95))[0]["audio"], loud * (0.95 / 2))
    assert caplog.messages == []


@pytest.mark.parametrize("memory", [2**31, 0])
def test_clipped_sounds_are_named_once(tmp_path, monkeypatch, memory, caplog):
    monkeypatch.setattr(sources, "MEMORY_BYTES", memory)
    soundfile.write(tmp_path / "a.wav", torch.linspace(-2, 2, 101).numpy(), 8000, subtype="FLOAT")
    put(tmp_path / "b.wav", flat(2**15 - 1, 101))
    data = open_folder(tmp_path).fit(SoundSpec(samples=101))
    assert_close(data[0]["audio"], torch.linspace(-2, 2, 101)[None].clamp(-1, 1))
    for index in (0, 1, 0):
        data[index]
    words = (
        "1 sound with samples beyond [-1, 1], which were clipped: a.wav (50); set `data.spec.peak` to scale all sounds"
    )
    assert caplog.messages == [f"{tmp_path}: {words}"]


def test_unfinished_recordings_are_read_and_named_once(tmp_path, caplog):
    for name in "abc":
        content = put(tmp_path / f"{name}.wav", ramp(1000)).read_bytes()
        if name != "c":
            (tmp_path / f"{name}.wav").write_bytes(content[:4] + bytes(4) + content[8:40] + bytes(4) + content[44:])
    assert read_all(open_folder(tmp_path).fit(Spec()), 0)["audio"].shape == (3, 1, 1000)
    words = "2 sounds without a length in the header, as from a pipe or after a crash, read to the end: a.wav, b.wav"
    assert caplog.messages == [f"{tmp_path}: {words}"]


def test_drums_have_the_requested_peak():
    peaks = load_drums().fit(SoundSpec(samples=4096, sample_rate=8000, peak=0.5))[7]["audio"].abs().max()
    assert float(peaks) == pytest.approx(0.5)


def test_drums_are_trimmed_on_request():
    spec = SoundSpec(samples=16_000, sample_rate=16_000)
    whole, trimmed = (DrumSource(name="drums", count=5).fit(spec.but({"trim": trim})) for trim in (None, 20))
    for number in range(5):
        kept = trimmed.sounds[number]
        assert kept.shape[1] < whole.sounds[number].shape[1]
        assert torch.equal(kept, whole.sounds[number][:, : kept.shape[1]])  # drums begin at their beginning


# --- what a training records


def trained(folder, run, **changes):
    """Trains a WaveGAN of 256 samples on a folder for one step."""
    small = {"network.samples": 256, "network.width": 2, "network.latent_dim": 4, "train.batch_size": 4}
    settings = {"steps": 1, "device": "cpu", "shown": False}
    return gan_audio.train("wavegan", data=folder, out=run, changes=small | changes, **settings)


def test_a_sample_rate_that_is_not_set_comes_from_the_data_and_is_saved_with_the_model(tmp_path):
    put(tmp_path / "sounds" / "a.wav", ramp(1000), 11_025)
    run = trained(tmp_path / "sounds", tmp_path / "run", **{"data.spec.sample_rate": None})
    assert run.recipe.data.spec == {"sample_rate": 11_025, "peak": None, "trim": None}
    game = gan_audio.load(tmp_path / "run" / "model")
    assert game.spec == SoundSpec(samples=256, sample_rate=11_025, channels=1)
    (path,) = write_items(game.generate(1, seed=0), tmp_path / "made", game=game)
    assert soundfile.info(path).samplerate == 11_025
    assert soundfile.info(next((tmp_path / "run" / "samples").glob("*.wav"))).samplerate == 11_025


def test_samples_of_a_prepared_game_have_the_sample_rate_of_its_training(tmp_path):
    put(tmp_path / "sounds" / "a.wav", ramp(1000), 11_025)
    game = wavegan.SMALL.create(samples=256, width=2, latent_dim=4)
    settings = {"steps": 1, "batch_size": 4, "device": "cpu", "shown": False}
    gan_audio.train(
        game, data=tmp_path / "sounds", out=tmp_path / "run", changes={"data.spec.sample_rate": 11_025}, **settings
    )
    rates = {soundfile.info(path).samplerate for path in (tmp_path / "run" / "samples").glob("*.wav")}
    assert rates == {11_025}


def test_a_specification_that_contradicts_the_networks_is_rejected(tmp_path):
    put(tmp_path / "sounds" / "a.wav", ramp(1000))
    with pytest.raises(RecipeError) as error:
        trained(tmp_path / "sounds", tmp_path / "run", **{"data.spec.samples": 512})
    assert str(error.value) == (
        "`data.spec.samples` is 512, but the game needs 256; leave it out, or set `network.samples`"
    )
    with pytest.raises(RecipeError, match=r"data\.spec\.bars"):
        trained(tmp_path / "sounds", tmp_path / "run", **{"data.spec.bars": 4})
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_a_peak_is_repeated_without_one(tmp_path):
    """The peak of the preset must not return when the recipe of a run sets none."""
    put(tmp_path / "sounds" / "a.wav", ramp(1000))
    changes = {"data.spec.peak": None, "data.source": str(tmp_path / "sounds")}
    recipe = wavegan.WAVEGAN.recipe(domain="audio", system="wavegan", preset="paper").but(changes)
    recipe = wavegan.WAVEGAN.complete(recipe, open_folder(tmp_path / "sounds").facts)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    again = wavegan.WAVEGAN.complete(open_recipe(tmp_path / "recipe.yaml", DOMAIN))
    assert wavegan.WAVEGAN.build(again).spec == SoundSpec(samples=16_384, sample_rate=16_000, channels=1)


# --- real data


@pytest.mark.parametrize(("name", "count", "items"), [("audio_clips", 6, 683), ("ljspeech_clips", 24, 309)])
def test_long_recordings_yield_many_items(shared_data, name, count, items, caplog):
    source = open_folder(shared_data(name), strict=True)
    dataset = source.fit(SoundSpec(samples=8192, sample_rate=16_000))
    assert (len(source), len(dataset)) == (count, items)
    batch = dataset.__getitems__(range(0, items, 20))
    assert (batch["audio"].square().mean(dim=(1, 2)) > 0).all()
    assert batch["audio"].abs().max() <= 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
