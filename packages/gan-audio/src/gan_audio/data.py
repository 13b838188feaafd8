"""The audio package's data: the named sets, and a user's own folders and archives.

Listing what is here loads nothing heavy: the sources themselves are in `gan_audio.sources` and are imported by the
functions that make them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.domain import DataCard
from gan_core.errors import DataError
from gan_core.files import data_home, download

if TYPE_CHECKING:
    from gan_audio.scores import TuneSource
    from gan_audio.sources import DrumSource, SoundSource
    from gan_core.data import Source

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
"""Lists of a release of Speech Commands, by the part that they name the sounds of."""
PARTS = ("train", *LISTS)
"""Parts of Speech Commands."""

DATASETS: tuple[DataCard, ...] = (
    DataCard("drums", "drum sounds, made by rule", "2,000 sounds of 0.5 s, 5 classes", "embedded",
             "gan_audio.data:load_drums"),
    DataCard("tunes", "melodies with chords, made by rule", "1,000 tunes of 8 bars in 8 keys", "embedded",
             "gan_audio.data:load_tunes"),
    DataCard("sc09", "spoken digits, as WaveGAN learnt them", "about 18,600 sounds of 1 s at 16 kHz, 10 classes",
             "download", "gan_audio.data:load_sc09", PARTS),
    DataCard("speech-commands", "spoken words", "84,843 sounds of 1 s at 16 kHz, 35 classes", "download",
             "gan_audio.data:load_speech_commands", PARTS),
    DataCard("yesno", "yes and no in Hebrew, eight in each recording", "60 sounds of 6 s at 8 kHz", "download",
             "gan_audio.data:load_yesno"),
    DataCard("ljspeech", "one woman reading", "13,100 sounds of 1 to 10 s at 22,050 Hz", "download",
             "gan_audio.data:load_ljspeech"),
    DataCard("gtzan", "music", "1,000 sounds of 30 s at 22,050 Hz, 10 classes", "download",
             "gan_audio.data:load_gtzan"),
    DataCard("libritts", "247 people reading", "33,236 sounds of up to 30 s at 24 kHz", "download",
             "gan_audio.data:load_libritts"),
)  # fmt: skip

COUNT = 2000
"""Of the drum sounds."""
TUNES = 1000
"""Of the tunes that are made by rule."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy",
    "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop",
    "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
)  # fmt: skip
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def open_folder(path: str | Path, *, strict: bool = False, part: str | None = None) -> Source:
    """Opens the sounds, or the MIDI files, of a folder or of a zip or tar archive, which is read in place.

    Sounds in sub-folders are labelled with the name of the first folder on their way; sounds that lie directly in the
    folder have no labels. Tunes have none. A file that cannot be read is named, counted and skipped.

    Args:
        path: the folder or archive, on this machine or by its URL; or a Hugging Face dataset, `hf:OWNER/NAME:SPLIT`.
        strict: whether a file that cannot be read is an error.
        part: a sub-folder.

    Raises:
        DataError: there is no such folder or archive, it holds nothing readable, or sounds as well as MIDI files, or
            one file is unreadable and `strict`.
    """
    from gan_audio import files, midi
    from gan_audio.scores import open_tunes
    from gan_audio.sources import open_sounds
    from gan_core.files import count, is_url, names_ending, open_files, printable, sub_folder
    from gan_core.hub_data import is_hub_dataset, open_hub_dataset

    if is_hub_dataset(path):
        rows, labels, classes = open_hub_dataset(str(path), kind="audio")
        return open_sounds(str(path), rows, strict=strict, labelled=(labels, classes))
    place = path if is_url(path) else Path(path)
    there, name = open_files(place), str(place) if part is None else f"{place}:{part}"
    there = there if part is None else sub_folder(there, part, place)
    sounds, tunes = (names_ending(there, suffixes)[0] for suffixes in (files.SUFFIXES, midi.SUFFIXES))
    if sounds and tunes:
        found = f"{count(len(sounds), 'sound')} ({printable(sounds[0])} …)"
        found += f" and {count(len(tunes), 'MIDI file')} ({printable(tunes[0])} …)"
        raise DataError(f"{name}: holds {found}; give a folder of one kind")
    return (open_tunes if tunes else open_sounds)(name, there, strict=strict)


def load_drums() -> DrumSource:
    """Loads kick, snare, hat, tom and clap (`gan_audio.drums`), at 16,000 Hz unless a game needs another rate."""
    from gan_audio.sources import DrumSource

    return DrumSource(name="drums", count=COUNT)


def load_tunes() -> TuneSource:
    """Simple songs with chords in four major and four minor keys (`gan_audio.tunes`)."""
    from gan_audio.scores import made_tunes

    return made_tunes("tunes", TUNES)


def load_sc09(part: str = "train") -> SoundSource:
    """Loads the digits of Speech Commands, version 0.01; WaveGAN is trained on the part `train` (arXiv:1802.04208).

    Args:
        part: `train`, `validation` or `test`, by the release's lists.

    Raises:
        DataError: it is not here yet and cannot be downloaded.
    """
    return _commands("sc09", "speech_commands_v0.01", DIGITS, part)


def load_speech_commands(part: str = "train") -> SoundSource:
    """Loads Speech Commands, version 0.02 (Warden 2018, arXiv:1804.03209).

    Args:
        part: `train`, `validation` or `test`, by the release's lists.

    Raises:
        DataError: it is not here yet and cannot be downloaded.
    """
    return _commands("speech-commands", "speech_commands_v0.02", WORDS, part)


def load_yesno() -> SoundSource:
    """YesNo (openslr.org/1).

    Raises:
        DataError: it is not here yet and cannot be downloaded.
    """
    return _sounds("yesno", _published("yesno", "YESNO", "waves_yesno.tar.gz", "waves_yesno"))


def load_ljspeech() -> SoundSource:
    """LJ Speech 1.1 (Ito & Johnson 2017).

    Raises:
        DataError: it is not here yet and cannot be downloaded.
    """
    return _sounds("ljspeech", _published("ljspeech", "LJSPEECH", "LJSpeech-1.1.tar.bz2", "LJSpeech-1.1/wavs"))


def load_gtzan() -> SoundSource:
    """GTZAN, by genre (Tzanetakis & Cook 2002).

    Raises:
        DataError: it is not here yet and cannot be downloaded.
    """
    return _sounds("gtzan", _published("gtzan", "GTZAN", "genres.tar.gz", "genres"), classes=GENRES)


def load_libritts() -> SoundSource:
    """LibriTTS, the part `train-clean-100` (Zen et al. 2019, arXiv:1904.02882).

    Raises:
        DataError: it is not here yet and cannot be downloaded.
    """
    folder = _published("libritts", "LIBRITTS", "train-clean-100.tar.gz", "LibriTTS/train-clean-100")
    return _sounds("libritts", folder)


def _published(name: str, dataset: str, archive: str, folder: str, **options: Any) -> Path:
    """The folder of a data set of torchaudio's; what is in `GAN_DATA_HOME` is used as it is, be it unpacked or not."""
    home = data_home()
    if not (home / folder).is_dir():

        def fetch() -> None:
            home.mkdir(parents=True, exist_ok=True)
            getattr(import_module("torchaudio.datasets"), dataset)(str(home), download=True, **options)

        download(name, fetch, files=archive, folder=home)
    return home / folder


def _commands(name: str, version: str, words: Sequence[str], part: str) -> SoundSource:
    """Loads a part of a release of Speech Commands; what the release lists for no other part is for training."""
    folder = _published(name, "SPEECHCOMMANDS", f"{version}.tar.gz", f"SpeechCommands/{version}", url=version)
    listed: dict[str, set[str]] = {}
    for kind, file in LISTS.items():
        try:
            listed[kind] = set((folder / file).read_text(encoding="utf-8").split())
        except OSError as error:
            raise DataError(f"{folder}: has no {file}; remove the folder, and it is downloaded anew") from error

    def belongs(each: str) -> bool:
        return each in listed[part] if part in listed else not any(each in some for some in listed.values())

    return _sounds(name if part == "train" else f"{name}:{part}", folder, classes=words, belongs=belongs)


def _sounds(
    name: str, folder: Path, *, classes: Sequence[str] = (), belongs: Callable[[str], bool] = lambda name: True
) -> SoundSource:
    """Opens the sounds below a folder that belong to a part; where there are classes, those of the classes alone."""
    import torch

    from gan_audio.files import SUFFIXES
    from gan_audio.sources import SoundSource, read_headers
    from gan_core.files import names_ending, open_files

    files = open_files(folder)
    label = {each: k for k, each in enumerate(classes)}
    names = [each for each in names_ending(files, SUFFIXES)[0] if belongs(each)]
    headers, skipped = read_headers(files, [each for each in names if not label or each.partition("/")[0] in label])
    if not headers:
        raise DataError(f"{folder}: holds no sounds of {name}; remove it, and it is downloaded anew")
    labels = torch.tensor([label[each.partition("/")[0]] for each in headers]) if label else None
    source = SoundSource(
        files, list(headers), list(headers.values()), name=name, labels=labels, classes=list(classes) or None
    )
    source.skip(skipped)
    return source
