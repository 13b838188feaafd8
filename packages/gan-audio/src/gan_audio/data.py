"""The named datasets of the audio package, and the user's own folders and archives.

This module imports no heavy libraries, so that datasets can be listed quickly. The sources are in
`gan_audio.sound.sources` and are imported when a dataset is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.cards import DataCard
from gan_core.data.downloads import data_home, download
from gan_core.errors import DataError

if TYPE_CHECKING:
    from gan_audio.sound.sources import DrumSource, SoundSource
    from gan_audio.tune.sources import TuneSource
    from gan_core.data import Source

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
"""Files that list the sounds of each split in a release of Speech Commands; all other sounds are `train`."""
PARTS = ("train", *LISTS)
"""Splits of Speech Commands."""

DATASETS: tuple[DataCard, ...] = (
    DataCard(
        name="drums",
        title="synthetic drum sounds",
        items="2,000 sounds of 0.5 s, 5 classes",
        origin="embedded",
        load="gan_audio.data:load_drums",
    ),
    DataCard(
        name="tunes",
        title="synthetic melodies with chords",
        items="1,000 tunes of 8 bars in 8 keys",
        origin="embedded",
        load="gan_audio.data:load_tunes",
    ),
    DataCard(
        name="sc09",
        title="spoken digits",
        items="about 18,600 sounds of 1 s, 16 kHz, 10 classes",
        origin="download",
        load="gan_audio.data:load_sc09",
        parts=PARTS,
    ),
    DataCard(
        name="speech-commands",
        title="spoken words",
        items="84,843 sounds of 1 s, 16 kHz, 35 classes",
        origin="download",
        load="gan_audio.data:load_speech_commands",
        parts=PARTS,
    ),
    DataCard(
        name="yesno",
        title="yes and no in Hebrew, 8 words per recording",
        items="60 sounds of 6 s, 8 kHz",
        origin="download",
        load="gan_audio.data:load_yesno",
    ),
    DataCard(
        name="ljspeech",
        title="one English speaker",
        items="13,100 sounds of 1 to 10 s, 22,050 Hz",
        origin="download",
        load="gan_audio.data:load_ljspeech",
    ),
    DataCard(
        name="gtzan",
        title="music of 10 genres",
        items="1,000 sounds of 30 s, 22,050 Hz, 10 classes",
        origin="download",
        load="gan_audio.data:load_gtzan",
    ),
    DataCard(
        name="libritts",
        title="247 English speakers",
        items="33,236 sounds of up to 30 s, 24 kHz",
        origin="download",
        load="gan_audio.data:load_libritts",
    ),
)

COUNT = 2000
"""Number of drum sounds."""
TUNES = 1000
"""Number of generated tunes."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = (
    "backward",
    "bed",
    "bird",
    "cat",
    "dog",
    "down",
    "eight",
    "five",
    "follow",
    "forward",
    "four",
    "go",
    "happy",
    "house",
    "learn",
    "left",
    "marvin",
    "nine",
    "no",
    "off",
    "on",
    "one",
    "right",
    "seven",
    "sheila",
    "six",
    "stop",
    "three",
    "tree",
    "two",
    "up",
    "visual",
    "wow",
    "yes",
    "zero",
)
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def open_folder(path: str | Path, *, strict: bool = False, part: str | None = None) -> Source:
    """Opens the sounds or the MIDI files of a folder, or of a zip or tar archive, which is read in place.

    If all sounds are in sub-folders, the names of the top-level sub-folders are their classes. Other sounds and tunes
    have no labels. Unreadable files are skipped with a warning.

    Args:
        path: a local path or a URL of a folder or archive; or a Hugging Face dataset, `hf:OWNER/NAME:SPLIT`.
        strict: whether an unreadable file is an error.
        part: name of a sub-folder to open instead.

    Raises:
        DataError: there is no such folder or archive; or it contains no readable file, or both sounds and MIDI files;
            or a file is unreadable and `strict` is set.
        MissingDependency: a library for the URL or for Hugging Face datasets is not installed.
    """
    from gan_audio.sound.sources import SOUNDS, open_sounds
    from gan_audio.tune.sources import TUNES, open_tunes
    from gan_core.data.files import names_ending
    from gan_core.data.folders import open_place
    from gan_core.errors import count, printable

    opened = open_place(path, part, kind="audio")
    sounds, tunes = (names_ending(opened.files, kind.suffixes)[0] for kind in (SOUNDS, TUNES))
    if sounds and tunes:
        found = f"{count(len(sounds), 'sound')} ({printable(sounds[0])} …)"
        found += f" and {count(len(tunes), 'MIDI file')} ({printable(tunes[0])} …)"
        raise DataError(f"{opened.name}: contains {found}; give a folder with only one kind of file")
    return (open_tunes if tunes else open_sounds)(opened, strict=strict)


def load_drums() -> DrumSource:
    """Loads synthetic kicks, snares, hats, toms and claps, at 16,000 Hz unless a game needs another sample rate."""
    from gan_audio.sound.sources import DrumSource

    return DrumSource(name="drums", count=COUNT)


def load_tunes() -> TuneSource:
    """Loads generated tunes with chords, in four major and four minor keys (`gan_audio.tune.compose`)."""
    from gan_audio.tune.sources import made_tunes

    return made_tunes("tunes", TUNES)


def load_sc09(part: str = "train") -> SoundSource:
    """Loads the spoken digits of Speech Commands, version 0.01, as WaveGAN uses them (arXiv:1802.04208).

    Args:
        part: split of the release: `train`, `validation` or `test`.

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _commands("sc09", "speech_commands_v0.01", DIGITS, part)


def load_speech_commands(part: str = "train") -> SoundSource:
    """Loads Speech Commands, version 0.02 (Warden 2018, arXiv:1804.03209).

    Args:
        part: split of the release: `train`, `validation` or `test`.

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _commands("speech-commands", "speech_commands_v0.02", WORDS, part)


def load_yesno() -> SoundSource:
    """Loads YesNo (openslr.org/1): recordings of yes and no in Hebrew, without labels.

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _sounds("yesno", _published("yesno", "YESNO", "waves_yesno.tar.gz", "waves_yesno"))


def load_ljspeech() -> SoundSource:
    """Loads LJ Speech 1.1, without labels (Ito & Johnson 2017).

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _sounds("ljspeech", _published("ljspeech", "LJSPEECH", "LJSpeech-1.1.tar.bz2", "LJSpeech-1.1/wavs"))


def load_gtzan() -> SoundSource:
    """Loads GTZAN, with genres as classes (Tzanetakis & Cook 2002).

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _sounds("gtzan", _published("gtzan", "GTZAN", "genres.tar.gz", "genres"), classes=GENRES)


def load_libritts() -> SoundSource:
    """Loads the part `train-clean-100` of LibriTTS, without labels (Zen et al. 2019, arXiv:1904.02882).

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    folder = _published("libritts", "LIBRITTS", "train-clean-100.tar.gz", "LibriTTS/train-clean-100")
    return _sounds("libritts", folder)


def _published(name: str, dataset: str, archive: str, folder: str, **options: Any) -> Path:
    """Returns the folder of a torchaudio dataset in `GAN_DATA_HOME`, and unpacks or downloads it if it is missing."""
    home = data_home()
    if not (home / folder).is_dir():

        def fetch() -> None:
            home.mkdir(parents=True, exist_ok=True)
            getattr(import_module("torchaudio.datasets"), dataset)(str(home), download=True, **options)

        download(name, fetch, files=archive, folder=home)
    return home / folder


def _commands(name: str, version: str, words: Sequence[str], part: str) -> SoundSource:
    """Loads a split of Speech Commands. Sounds that the release lists for no other split belong to `train`."""
    folder = _published(name, "SPEECHCOMMANDS", f"{version}.tar.gz", f"SpeechCommands/{version}", url=version)
    listed: dict[str, set[str]] = {}
    for kind, file in LISTS.items():
        try:
            listed[kind] = set((folder / file).read_text(encoding="utf-8").split())
        except OSError as error:
            raise DataError(f"{folder}: has no {file}; delete the folder to download it again") from error

    def belongs(each: str) -> bool:
        return each in listed[part] if part in listed else not any(each in some for some in listed.values())

    return _sounds(name if part == "train" else f"{name}:{part}", folder, classes=words, belongs=belongs)


def _sounds(
    name: str, folder: Path, *, classes: Sequence[str] = (), belongs: Callable[[str], bool] = lambda name: True
) -> SoundSource:
    """Opens the sounds in a folder for which `belongs` is true, and whose class is in `classes` if any are given."""
    from gan_audio.sound.sources import SOUNDS, open_sounds
    from gan_core.data.files import SomeFiles, names_ending, open_files
    from gan_core.data.folders import Opened

    files = open_files(folder)
    label = {each: k for k, each in enumerate(classes)}
    names = [each for each in names_ending(files, SOUNDS.suffixes)[0] if belongs(each)]
    if label:
        names = [each for each in names if each.partition("/")[0] in label]
    if not names:
        raise DataError(f"{folder}: contains no sounds of {name}; delete the folder to download it again")
    labelled = ([label[each.partition("/")[0]] for each in names], classes) if label else (None, None)
    return open_sounds(Opened(name, SomeFiles(files, names), labelled))
