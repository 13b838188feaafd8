"""Tunes: MIDI files, bars and phrases, folders, synthetic tunes, pictures, sound and statistics."""

import io
import logging
import struct
import subprocess
import sys
import zipfile

import mido
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from gan_audio.data import load_tunes, open_folder
from gan_audio.measure.measures import ChordFit, Notes, Repetition
from gan_audio.media import write_items, write_samples
from gan_audio.metrics import METRICS
from gan_audio.sound.spec import SoundSpec
from gan_audio.tune import figures as tune_figures
from gan_audio.tune import midi, rolls
from gan_audio.tune.compose import KEYS, SCALES, make_tunes
from gan_audio.tune.midi import SILENT, Bars, chord_name, in_two_octaves, notes_of, phrases, read_midi, write_midi
from gan_audio.tune.sources import in_all_keys
from gan_audio.tune.spec import TuneSpec
from gan_core.data import Spec
from gan_core.errors import DataError, InputError, Unreadable
from gan_core.testing import measured

C, F, G, AM = 0, 5, 7, 21


def random_tunes(count, bars=4, *, seed=0):
    """Returns random pitches and chords, one chord per bar, `[count, 2, 16 * bars]`."""
    random = np.random.default_rng(seed)
    pitches = random.integers(0, 128, (count, bars * 4)).repeat(4, axis=1)
    return np.stack([pitches, random.integers(0, 24, (count, bars)).repeat(16, axis=1)], axis=1)


def midi_bytes(*voices, ticks=480, metre=None, kind=1, names=("", ""), tempos=()):
    """Returns a MIDI file with one voice per track, of notes `(pitch, start, length[, channel])` in quarter notes."""
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    for number, voice in enumerate(voices):
        track = file.add_track(names[number] or None)
        events = [(0, mido.MetaMessage("time_signature", numerator=metre[0], denominator=metre[1]))] if metre else []
        events += [(beat, mido.MetaMessage("set_tempo", tempo=tempo)) for beat, tempo in tempos]
        for pitch, start, length, *channel in voice:
            where = {"note": pitch, "channel": channel[0] if channel else number}
            events.append((start, mido.Message("note_on", velocity=80, **where)))
            events.append((start + length, mido.Message("note_on", velocity=0, **where)))
        now = 0
        for beat, message in sorted(
            events, key=lambda event: (event[0], event[1].type == "note_on" and event[1].velocity > 0)
        ):
            track.append(message.copy(time=round(beat * ticks) - now))
            now = round(beat * ticks)
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def held(chord, start=0.0, length=4.0):
    """Returns the notes of a chord."""
    return [(48 + note, start, length) for note in midi.triad(chord)]


MELODY = [(72, 0, 1), (74, 1, 1), (76, 2, 2)]


# --- files there and back


def test_written_tunes_are_read_back(tmp_path):
    for tune in [*random_tunes(5), *make_tunes(range(3), bars=8).numpy()]:
        write_midi(tmp_path / "a.mid", tune)
        bars = read_midi((tmp_path / "a.mid").read_bytes())
        assert (bars.pitches.ravel() == tune[0]).all()
        assert (bars.chords.repeat(16) == tune[1]).all()


def test_the_same_tune_gives_the_same_bytes_and_another_program_reads_them(tmp_path):
    tune = make_tunes([3], bars=2)[0].numpy()
    for name in "ab":
        write_midi(tmp_path / f"{name}.mid", tune)
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mid", "b.mid"]
    file = mido.MidiFile(tmp_path / "a.mid")
    assert [track.name for track in file.tracks] == ["melody", "chords"]
    assert file.length == pytest.approx(2 * 2.0)  # two bars of four quarter notes, 120 a minute
    struck = [message.note for message in file.tracks[0] if message.type == "note_on" and message.velocity]
    assert struck == [pitch for pitch, _, _ in notes_of(tune)[0]]


def test_notes_start_where_the_pitch_changes_and_at_every_bar():
    tune = np.stack([np.array([60] * 8 + [62] * 8 + [62] * 16), np.repeat([C, AM], 16)])
    melody, chords = notes_of(tune)
    assert melody == [(60, 0, 8), (62, 8, 16), (62, 16, 32)]
    assert chords == [(48, 0, 16), (52, 0, 16), (55, 0, 16), (57, 16, 32), (60, 16, 32), (64, 16, 32)]


# --- what is read of other files


@pytest.mark.parametrize("ticks", [24, 96, 480, 1000, 1024])
def test_steps_are_sixteenths_at_any_resolution(ticks):
    bars = read_midi(midi_bytes(MELODY, held(C), ticks=ticks))
    assert bars.pitches.tolist() == [[72] * 4 + [74] * 4 + [76] * 8]
    assert bars.chords.tolist() == [C]


def test_tempo_changes_are_ignored():
    plain = read_midi(midi_bytes(MELODY, held(C)))
    changed = read_midi(midi_bytes(MELODY, held(C), tempos=[(0, 300_000), (1.5, 900_000)]))
    assert all((a == b).all() for a, b in zip(plain, changed, strict=True))


def test_rests_are_filled_within_the_bar():
    melody = [(72, 1, 0.5), (74, 3, 0.25), (79, 4.5, 0.25)]
    bars = read_midi(midi_bytes(melody, held(C) + held(F, 4)))
    assert bars.pitches.tolist() == [[72] * 12 + [74] * 4, [79] * 16]


def test_the_highest_of_simultaneous_notes_is_the_melody():
    bars = read_midi(midi_bytes([(72, 0, 4), (79, 1, 1), (67, 3, 1)], held(C)))
    assert bars.pitches.tolist() == [[72] * 4 + [79] * 4 + [72] * 8]


def test_channels_of_one_track_are_read_as_several_voices():
    one = [(*note, 0) for note in MELODY] + [(*note, 1) for note in held(C)] + [(40, 0, 4, 9)]  # and a drum
    assert read_midi(midi_bytes(one, kind=0)).chords.tolist() == [C]
    assert read_midi(midi_bytes(one, kind=0)).pitches[0, 0] == 72


def test_the_melody_is_the_track_with_that_name():
    low = [(36, 0, 4)]
    bars = read_midi(midi_bytes(held(C), low, names=("chords", "Melody 1")))
    assert (bars.pitches == 36).all()
    assert read_midi(midi_bytes(low, [(84, 0, 4)])).pitches[0, 0] == 84


@pytest.mark.parametrize(
    ("chords", "chord"),
    [
        ([(43, 0, 4), (47, 0, 4), (50, 0, 4), (53, 0, 4)], G),  # G7
        ([(45, 0, 4), (48, 0, 4), (52, 0, 4), (55, 0, 4)], AM),  # Am7, which has the notes of C
        ([(48, 0, 4), (52, 0, 4), (55, 0, 4), (57, 0, 4)], C),  # C6, which has those of Am
        ([(52, 0, 4), (55, 0, 4), (60, 0, 4)], C),  # its third in the bass
        (held(C, 0, 1) + held(F, 1, 3), F),  # the longest
        (held(G, 0, 2) + held(C, 2, 2), G),  # of two as long the first
        ([(48, 0, 1), (52, 1, 1), (55, 2, 2)], C),  # one note after the other
        ([(48, 0, 4), (51, 0, 4), (54, 0, 4)], SILENT),  # diminished
        ([(48, 0, 4), (53, 0, 4), (55, 0, 4)], SILENT),  # suspended
    ],
)
def test_a_bar_has_one_chord(chords, chord):
    assert read_midi(midi_bytes(MELODY, chords)).chords.tolist() == [chord]


def test_bars_of_two_quarters_are_joined():
    bars = read_midi(midi_bytes(MELODY, held(C), metre=(2, 4)))
    assert bars.pitches.tolist() == [[72] * 4 + [74] * 4 + [76] * 8]
    assert read_midi(midi_bytes(MELODY, held(C), metre=(2, 2))).chords.tolist() == [C]


def test_bars_without_notes_or_chords_and_triplets_are_left_out():
    triplet = [(72, 8, 1 / 3), (74, 8 + 1 / 3, 1 / 3), (76, 8 + 2 / 3, 1 / 3)]
    fast = [(72, 12, 1), (74, 13, 0.125), (76, 13.125, 0.875)]
    chords = [note for start in (0, 4, 8, 12, 20) for note in held(C, start)]
    bars = read_midi(midi_bytes([(72, 0, 4), *triplet, *fast, (72, 16, 4), (77, 20.02, 1)], chords))
    assert bars.chords.tolist() == [C, SILENT, SILENT, SILENT, SILENT, C]
    assert (bars.pitches[5] == 77).all()  # a note that is a little late is where it is meant to be


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty"),
        (b"MThd", r"not a MIDI file, or damaged \("),
        (b"\x89PNG\r\n" * 20, r"not a MIDI file, or damaged \("),
        (midi_bytes(MELODY, held(C))[:60], r"not a MIDI file, or damaged \("),
        (midi_bytes([], []), r"contains no notes"),
        (midi_bytes([(72, 0, 4)], [(40, 0, 1, 9)]), r"contains only one voice; chords must be"),
        (midi_bytes(MELODY, held(C), metre=(6, 8)), r"has the time signature 6/8; expected 4/4, 2/2 or 2/4"),
        (midi_bytes(MELODY, held(C), metre=(3, 4)), r"has the time signature 3/4; expected"),
        (midi_bytes([(72, 4 * 4096, 1)], held(C)), r"4,097 bars long; the maximum is 4,096"),
        (b"MThd\0\0\0\6\0\1\0\0\xe7\x28", r"its time unit is SMPTE frames; save it with ticks per quarter note"),
        (b"MThd\0\0\0\6\0\1\0\0\0\0", r"its time unit is SMPTE frames; save it with ticks per quarter note"),
        (b"MThd\0\0\0\6\0\2\0\0\0\x60", r"contains several pieces \(format 2\)"),
        (b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\0\6\0\xff\x59\2\x7f\0", r"not a MIDI file, or damaged \("),  # the key
    ],
)
def test_invalid_midi_files_are_refused_in_one_line(content, message):
    with pytest.raises(Unreadable, match=rf"^{message}") as refused:
        read_midi(content)
    assert "\n" not in str(refused.value)


def midi_of(*tracks):
    head = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), 96)
    return head + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (midi_of(b"\0\x90\x48\x40" + b"\1\x48\0\0\x48\x40" * 174_000), r"contains more than 100,000 events, the max"),
        (midi_of(b"\0\xc0\1" + b"\0\1" * 500_000), r"contains more than 100,000 events"),
        (midi_of(b"\0\xff\1\0" * 260_000), r"contains more than 100,000 events"),
        (midi_of(*[b"\0\xff\1\0" * 900] * 200), r"contains more than 100,000 events"),
        (midi_of(*[b""] * 257), r"contains 257 tracks; the maximum is 256$"),
        (midi_of(b"\xff" * 1_000_000), r"damaged: contains a number of more than 4 bytes$"),
        (midi_of(b"\0\xff\1\x81\x80\x80\x80\0"), r"damaged: contains a number of more than 4 bytes$"),
    ],
)
def test_files_beyond_the_limits_are_refused_before_parsing(monkeypatch, content, message):
    assert len(content) <= midi.MAX_BYTES
    monkeypatch.setattr(mido, "MidiFile", None)
    with pytest.raises(Unreadable, match=rf"^{message}"):
        read_midi(content)


def test_the_event_limit_counts_the_events_that_mido_reads(monkeypatch):
    events = [b"\x90\x48\x40", b"\x47\x40", b"\xff\1\3abc", b"\x48\0", b"\xc0\1", b"\2", b"\xf0\2\1\xf7", b"\xe0\0\x40"]
    content = midi_of(b"".join(b"\x81\0" + event for event in events), b"\0\x91\x30\x40\1\x30\0")
    file = mido.MidiFile(file=io.BytesIO(content))
    count = sum(len(track) for track in file.tracks)
    assert count == 10
    monkeypatch.setattr(midi, "MAX_EVENTS", count)
    with pytest.raises(Unreadable, match=r"^contains no notes$"):  # but read
        read_midi(midi_of(b"\0\xc0\1" + b"\0\1" * (count - 1)))
    assert read_midi(content).pitches.shape == (3, 16)
    monkeypatch.setattr(midi, "MAX_EVENTS", count - 1)
    with pytest.raises(Unreadable, match=r"^contains more than 9 events"):
        read_midi(content)


def test_overlapping_notes_of_a_pitch_are_merged_within_the_bars():
    notes = [midi.Note((0, 0), *note) for note in [(60, 0, 96), (60, 48, 144), (60, 300, 384), (62, 383, 384)]]
    sounding = midi._sounding(notes, 1, 24.0)
    assert sounding[60].tolist() == [True] * 6 + [False] * 6 + [True] * 4
    assert not np.delete(sounding, 60, axis=0).any()  # the last would begin with the next bar


def test_damaged_midi_files_give_bars_or_unreadable():
    whole, random = (
        bytearray(midi_bytes(MELODY, held(C), metre=(4, 4), tempos=[(1, 400_000)])),
        np.random.default_rng(0),
    )
    outcomes = set()
    for _ in range(400):
        damaged = whole.copy()
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[place] = random.integers(256)
        try:
            end = len(whole) if random.random() < 0.5 else random.integers(20, len(whole))
            outcomes.add(type(read_midi(bytes(damaged[:end]))))
        except Unreadable as error:
            outcomes.add(type(error))
    assert outcomes == {Bars, Unreadable}


# --- tunes of bars


def test_melodies_are_moved_to_two_octaves():
    assert in_two_octaves(np.array([36, 48, 50])).tolist() == [60, 72, 74]
    assert in_two_octaves(np.array([62, 83])).tolist() == [62, 83]
    assert in_two_octaves(np.array([84, 88, 91])).tolist() == [72, 76, 79]
    wide = in_two_octaves(np.array([60, 60, 60, 62, 90, 40]))
    assert wide.tolist() == [60, 60, 60, 62, 78, 64]


def test_a_piece_is_cut_at_skipped_bars():
    pitches = np.arange(9)[:, None].repeat(16, axis=1) + 60
    chords = np.array([SILENT, C, F, G, C, SILENT, F, G, AM])
    tunes = phrases(Bars(pitches, chords), 2)
    assert tunes[:, 1, ::16].tolist() == [[C, F], [G, C], [F, G]]
    assert tunes[:, 0, ::16].tolist() == [[61, 62], [63, 64], [66, 67]]
    assert phrases(Bars(pitches, chords), 5).shape == (0, 2, 80)


def test_tunes_are_transposed_to_all_keys():
    tunes = make_tunes(range(8), bars=4)
    moved = in_all_keys(tunes).reshape(12, 8, 2, 64)
    assert torch.equal(moved[0], tunes)
    assert (moved[3, :, 0] % 12 == (tunes[:, 0] + 3) % 12).all()
    assert ((moved[:, :, 0] >= 60) & (moved[:, :, 0] <= 83)).all()
    assert all(tune_figures.on_chord(each) == tune_figures.on_chord(tunes) for each in moved)
    assert set(moved[:, 0, 1, 0].tolist()) == set(range(12))  # the first is in C: its first chord in every key


def write_folder(folder, **files):
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.mid").write_bytes(content)
    return folder


def bars_of_c(count):
    chords = [note for bar in range(count) for note in held(C, 4 * bar)]
    return midi_bytes([(72, 4 * bar, 4) for bar in range(count)], chords)


def test_a_folder_of_midi_files_gives_tunes_and_counts_unusable_files_and_bars(tmp_path, caplog):
    good, six = bars_of_c(5), midi_bytes(MELODY, held(C), metre=(6, 8))
    other = midi_bytes([(72, 0, 12)], held(C) + held(C, 8))  # no chord in its second bar
    folder = write_folder(tmp_path / "tunes", a=good, b=six, c=b"nothing", d=other)
    with caplog.at_level(logging.WARNING):
        source = open_folder(folder)
    assert len(source) == source.facts["tunes"] == 2
    assert sorted(source.skipped) == ["b.mid", "c.mid"]
    assert "skipped 2 unreadable tunes: b.mid (has the time signature 6/8" in caplog.text
    assert "left out 1 of 8 bars" in caplog.text
    assert set(source.keys) == {"tune"}
    assert source.fit(TuneSpec(bars=2)).groups.tolist() == [0, 0]
    assert source.fit(TuneSpec(bars=1))[0]["tune"].tolist() == [[72] * 16, [C] * 16]
    assert source.fit(TuneSpec(bars=1)).groups.tolist() == [0] * 5 + [1] * 2
    transposed = source.fit(TuneSpec(bars=1, transposed=True))
    assert (len(transposed), transposed.groups.tolist()) == (12 * 7, 12 * ([0] * 5 + [1] * 2))
    with pytest.raises(DataError, match=r"no piece has 6 consecutive bars with a melody and a chord; lower"):
        source.fit(TuneSpec(bars=6))
    with pytest.raises(DataError, match=r"the length of tunes is not set; set `data\.spec\.bars`$"):
        source.fit(Spec())
    with pytest.raises(DataError, match=r"cannot read b\.mid \(has the time signature 6/8"):
        open_folder(folder, strict=True)


def test_an_archive_is_read_in_place(tmp_path):
    with zipfile.ZipFile(tmp_path / "tunes.zip", "w") as archive:
        archive.writestr("folk/a.MID", bars_of_c(2))
    assert len(open_folder(tmp_path / "tunes.zip").fit(TuneSpec(bars=2))) == 1


def test_damaged_members_of_an_archive_are_named_and_skipped(tmp_path):
    path = tmp_path / "tunes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.mid", bars_of_c(2))
        archive.writestr("b.mid", bars_of_c(2))
    content = bytearray(path.read_bytes())
    content[content.index(b"MTrk") + 10] ^= 0xFF
    path.write_bytes(content)
    source = open_folder(path)
    assert source.skipped == {"a.mid": "Bad CRC-32 for file 'a.mid'"}
    assert len(source.fit(TuneSpec(bars=2))) == 1


def test_midi_files_beyond_the_size_limit_are_skipped(tmp_path):
    folder = write_folder(tmp_path / "tunes", a=bars_of_c(1), b=bars_of_c(1) + bytes(midi.MAX_BYTES))
    assert list(open_folder(folder).skipped.values()) == ["1 MiB, more than the maximum of 1"]


def test_a_folder_with_sounds_and_tunes_is_refused(tmp_path):
    folder = write_folder(tmp_path / "mixed", a=bars_of_c(1))
    soundfile.write(folder / "b.wav", np.zeros(100), 8000)
    with pytest.raises(
        DataError, match=r"contains 1 sound \(b\.wav …\) and 1 MIDI file \(a\.mid …\); give a folder with only one kind"
    ):
        open_folder(folder)


def test_a_folder_without_readable_tunes_is_refused_with_the_reason(tmp_path):
    folder = write_folder(tmp_path / "tunes", a=b"nothing")
    with pytest.raises(
        DataError, match=r"no readable tunes among 1 file \(looked for \.mid, \.midi, \.kar\); a\.mid: not a MIDI"
    ):
        open_folder(folder)


def test_tunes_are_not_accepted_as_sounds():
    words = r"^tunes holds tunes, but this game needs sounds; choose other data$"
    with pytest.raises(DataError, match=words):
        load_tunes().fit(SoundSpec(samples=4096, sample_rate=8000))


def test_folk_tunes_are_read(shared_data):
    folder = shared_data("nottingham_midi")
    read, refused = [], []
    for path in sorted(folder.glob("*.mid"))[::5]:
        try:
            read.append(read_midi(path.read_bytes()))
        except Unreadable as error:
            refused.append(str(error))
    assert len(read) > 25
    assert len(refused) > 10
    assert all("has the time signature" in reason or "only one voice" in reason for reason in refused)
    tunes = torch.from_numpy(np.concatenate([phrases(each, 8) for each in read]))
    assert len(tunes) > 80
    assert tune_figures.on_scale(tunes) > 0.9
    assert 0.6 < tune_figures.on_chord(tunes) < 0.9


# --- tunes that are made by rule


def test_a_synthetic_tune_depends_only_on_its_number():
    every = make_tunes(range(20), bars=8)
    assert torch.equal(make_tunes([17, 3], bars=8), every[[17, 3]])
    code = "from gan_audio.tune.compose import make_tunes; print(make_tunes([7], bars=8).numpy().tobytes().hex())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert bytes.fromhex(answer.stdout.strip()) == every[7].numpy().tobytes()


@pytest.mark.parametrize("bars", [1, 4, 6, 8])
def test_synthetic_tunes_are_in_their_key_and_end_on_its_tonic(bars):
    tunes = make_tunes(range(80), bars=bars)
    assert tunes.shape == (80, 2, 16 * bars)
    for number, (pitches, chords) in enumerate(tunes.tolist()):
        tonic, minor = KEYS[number % len(KEYS)]
        scale = {(tonic + note) % 12 for note in SCALES[minor]}
        sounding = {pitch % 12 for pitch in pitches} | {note % 12 for chord in chords for note in midi.triad(chord)}
        assert sounding <= scale
        assert (pitches[-1] % 12, chords[-1]) == (tonic, tonic + 12 * minor)


def test_synthetic_tunes_follow_their_chords_in_small_steps_and_differ():
    tunes = make_tunes(range(200), bars=8)
    assert len(torch.unique(tunes[:, 0], dim=0)) == 200
    assert 0.7 < tune_figures.on_chord(tunes) < 0.8
    assert 3 < tune_figures.onsets_per_bar(tunes) < 6
    steps = tune_figures.interval(tunes)
    assert steps[13 - 2 : 13 + 3].sum() > 0.6
    assert tune_figures.distinct_bars(tunes) > 0.6


# --- figures, by hand


def example():
    """Returns two tunes of two bars: C D over C and E over Am, and F in two octaves over F, twice."""
    first = [[60] * 8 + [62] * 8 + [64] * 16, [C] * 16 + [AM] * 16]
    second = [[77] * 4 + [65] * 12 + [77] * 4 + [65] * 12, [F] * 32]
    return torch.tensor([first, second])


def test_figures_of_a_tune_are_known():
    tunes = example()
    assert tune_figures.on_chord(tunes) == pytest.approx(56 / 64)  # the D is no note of C
    assert tune_figures.on_scale(tunes) == 1
    assert tune_figures.onsets_per_bar(tunes) == pytest.approx(7 / 4)
    assert tune_figures.repeated_bars(tunes) == 0.5
    assert tune_figures.distinct_bars(tunes) == 0.75
    assert (7 * tune_figures.onset(tunes)).tolist() == pytest.approx([4, 0, 0, 0, 2, 0, 0, 0, 1] + [0] * 7)
    assert (7 * tune_figures.length(tunes)).tolist() == pytest.approx(
        [0] * 4 + [2] + [0] * 3 + [2] + [0] * 3 + [2] + [0] * 3 + [1]
    )
    intervals = 5 * tune_figures.interval(tunes)
    assert {k - 13: round(float(value)) for k, value in enumerate(intervals) if value} == {2: 2, -12: 2, 12: 1}
    assert (64 * tune_figures.pitch_class(tunes)).tolist() == pytest.approx([8, 0, 8, 0, 16, 32] + [0] * 6)


def test_total_variation_is_0_for_equal_and_1_for_disjoint_distributions():
    a, b = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    assert tune_figures.total_variation(a, a) == 0
    assert tune_figures.total_variation(a, b) == 1


def test_metrics_of_real_tunes_are_close_to_ideal():
    source = load_tunes()
    dataset = source.fit(TuneSpec(bars=8))
    others = make_tunes(range(2000, 2400), bars=8)
    found = measured(Notes, others, dataset, source.facts)
    assert all(value < 0.06 for name, value in found.items() if "distance" in name)
    assert found["onsets_per_bar"] == pytest.approx(found["onsets_per_bar_of_real"], rel=0.06)
    fit, again = measured(ChordFit, others, dataset, source.facts), measured(Repetition, others, dataset, source.facts)
    assert fit["chord_tones"] == pytest.approx(fit["chord_tones_of_real"], abs=0.02)
    assert again["distinct_bars"] == pytest.approx(again["distinct_bars_of_real"], abs=0.03)


def test_metrics_of_tunes_need_tunes_and_metrics_of_sounds_a_sample_rate():
    needs = {card.name: card.needs for card in METRICS}
    assert all(needs[name] == ("tunes",) for name in ("chord_fit", "notes", "repetition"))
    assert all("sample_rate" in needs[name] for name in ("recognition", "spectrum", "sliced_wasserstein"))
    source = load_tunes()
    with pytest.raises(InputError, match=r"^the samples have the shape \[2, 1, 400\]; expected tunes \["):
        measured(ChordFit, torch.zeros(2, 1, 400), source.fit(TuneSpec(bars=2)), source.facts)


# --- shown, heard, kept


def test_tunes_are_written_as_picture_sound_and_midi(tmp_path):
    tunes = make_tunes(range(3), bars=8)
    path = write_samples({"tune": tunes}, tmp_path / "new" / "00000010")
    assert sorted(each.name for each in path.parent.iterdir()) == ["00000010.mid", "00000010.png", "00000010.wav"]
    bars = read_midi(path.with_suffix(".mid").read_bytes())
    assert (bars.chords[8::9] == SILENT).all()  # a bar of silence between
    kept = np.delete(bars.pitches, [8, 17], axis=0)
    assert (kept.reshape(3, -1) == tunes[:, 0].numpy()).all()
    sound = soundfile.info(path.with_suffix(".wav"))
    assert (sound.samplerate, sound.frames) == (8000, 128 * 1000 + 800)  # one of 16 s, and a little silence
    assert path.with_suffix(".wav").stat().st_size < 2**18


def test_a_piano_roll_has_notes_at_their_positions(tmp_path):
    tune = torch.tensor([[60] * 16 + [71] * 16, [C] * 16 + [G] * 16])
    with Image.open(write_samples({"generated": tune[None]}, tmp_path / "a")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    near = np.abs(pixels - rolls.MELODY).sum(axis=2) < 30
    rows, columns = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
    middle = rolls.LEFT + 16 * rolls.MAX_STEP
    low, high = (np.flatnonzero(near[:, part].any(axis=1)) for part in (slice(0, middle), slice(middle, None)))
    assert columns.min() >= rolls.LEFT
    assert columns.max() < rolls.LEFT + 32 * rolls.MAX_STEP
    row = round(rolls.ASPECT * rolls.MAX_STEP)
    assert low.min() - high.min() == 11 * row
    assert high.min() == rows.min() == rolls.HEAD


def test_a_synthesized_tune_has_its_pitch():
    tune = np.stack([np.full(16, 69), np.full(16, SILENT)])
    audio = rolls.synthesize(tune)
    assert audio.shape == (1, 16_000)
    power = np.abs(np.fft.rfft(audio[0])) ** 2
    assert abs(power.argmax() * 8000 / 16_000 - 440) < 1
    assert not rolls.synthesize(np.full((2, 16), SILENT)).any()


def test_items_are_written_and_read_back(tmp_path):
    tunes = torch.from_numpy(random_tunes(3))
    paths = write_items(tunes, tmp_path / "items")
    assert [path.name for path in paths] == ["00000.mid", "00001.mid", "00002.mid"]
    pieces = [read_midi(path.read_bytes()) for path in paths]
    read = [np.stack([pitches.ravel(), chords.repeat(16)]) for pitches, chords in pieces]
    assert np.array_equal(np.stack(read), tunes.numpy())
    with pytest.raises(InputError, match=r"already contains 00000\.mid"):
        write_items(tunes, tmp_path / "items")


def test_chord_names_are_those_of_lead_sheets():
    assert [chord_name(chord) for chord in (C, G, AM, 10, 18)] == ["C", "G", "Am", "Bb", "F#m"]
