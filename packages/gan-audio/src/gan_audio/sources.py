"""The audio package's sources of sounds: files of any rate and length that are cut to what a game needs, and drums."""

from __future__ import annotations

import logging
from abc import abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset, get_worker_info

from gan_audio.drums import DRUMS, LONGEST, RATE, SAMPLES, make_drums
from gan_audio.files import SUFFIXES, Header, check_channels, loud_part, opened, read_blocks, read_header, read_sound
from gan_audio.specs import SoundSpec
from gan_core import draws
from gan_core.data import Batch, Items, Source, Spec, expect
from gan_core.errors import DataError
from gan_core.files import Files, Unreadable, labels_of, names_ending, nothing_readable, printable, skip

MEMORY_BYTES = 2**31
"""The largest set that is held in memory, cut to its channels and rate, and the most that is kept of a larger one."""
MEMORY_SAMPLES = 4 * 10**8
"""The most samples that are decoded before a training begins: some twenty seconds."""
KEPT_SAMPLES = 2**22
"""The longest sound of a larger set that is kept when it was read; of a longer one only slices are read."""

Labelled = tuple[list[int] | None, list[str] | None]
"""The class of each item as an index, and the names of the classes; None where there are none."""

logger = logging.getLogger("gan_audio")


def complete(source: Source, spec: Spec) -> SoundSpec:
    """Returns what a game needs, with the sounds' own length, rate and channels where it leaves them open.

    Raises:
        DataError: the game needs something else, or leaves open the length of sounds that have different lengths.
    """
    wanted = expect(spec, SoundSpec, source.name, "sounds")
    wanted = wanted.but({name: source.facts[name] for name in wanted.open_fields() if name in source.facts})
    if wanted.samples is None:
        raise DataError(f"{source.name}: the sounds have different lengths; set `data.spec.samples`")
    return wanted


def levelled(sound: Tensor, peak: float | None) -> Tensor:
    """Returns a whole sound `[channels, T]` scaled to a peak; None and silence leave it as it is."""
    return sound if peak is None else sound * gain(float(sound.abs().max()), peak)


def gain(loudest: float, peak: float) -> float:
    """Returns the factor that brings the largest magnitude of a sound to a peak."""
    return peak / loudest if loudest > 0 else 1.0


class Slices(Dataset[Batch]):
    """Sounds as items of one length: `audio` `[channels, samples]` in [-1, 1], and `label`.

    A short sound is followed by silence. A long one is several items, as many as it has whole slices. Each is cut at a
    place that is drawn anew, every time it is read, from the item's own part of the sound, so that an epoch covers all
    of it.

    Attributes:
        groups: index of the sound that each item is cut from, `[N]`.

    Args:
        spec: complete specification of the items.
        lengths: lengths of the sounds in samples.
        labels: class of each sound, `[number of sounds]`.
    """

    pixels: frozenset[str] = frozenset()

    def __init__(self, spec: SoundSpec, lengths: Sequence[int], labels: Tensor | None):
        assert spec.samples is not None
        assert spec.sample_rate is not None
        assert spec.channels is not None
        self.spec, self.labels = spec, labels
        self.samples, self.sample_rate, self.channels = spec.samples, spec.sample_rate, spec.channels
        slices = [max(1, length // self.samples) for length in lengths]
        self.ends = list(accumulate(slices))
        self.groups = torch.repeat_interleave(torch.tensor(slices))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Batch:
        return {key: tensor[0] for key, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        audio, sounds = torch.zeros(len(indices), self.channels, self.samples), []
        places = draws.of_items(len(indices))[:, 0].tolist()
        for row, (index, place) in enumerate(zip(indices, places, strict=True)):
            sound = bisect_right(self.ends, index)
            first = self.ends[sound - 1] if sound else 0
            sound, cut = self.slice(sound, (index - first + place) / (self.ends[sound] - first))
            audio[row, :, : cut.shape[1]] = cut
            sounds.append(sound)
        return {"audio": audio} | ({} if self.labels is None else {"label": self.labels[sounds]})

    def start(self, length: int, place: float) -> int:
        """Where a slice begins that is cut at a place in [0, 1) of a whole sound."""
        room = max(0, length - self.samples)
        return min(int(place * (room + 1)), room)

    @abstractmethod
    def slice(self, sound: int, place: float) -> tuple[int, Tensor]:
        """A sound's slice `[channels, at most samples]` at a place in [0, 1), and which sound it is of."""


class HeldSlices(Slices):
    """Slices of sounds `[channels, T]` that are held in memory, at the specification's rate and level already."""

    def __init__(self, spec: SoundSpec, sounds: Sequence[Tensor], labels: Tensor | None):
        super().__init__(spec, [sound.shape[1] for sound in sounds], labels)
        self.sounds = sounds

    def slice(self, sound: int, place: float) -> tuple[int, Tensor]:
        whole = self.sounds[sound]
        start = self.start(whole.shape[1], place)
        return sound, whole[:, start : start + self.samples]


class FileSlices(Slices):
    """Slices that are read when they are asked for; short sounds are kept as long as there is room.

    What is kept stays: as every epoch reads all sounds once, replacing them would lose those that come next.
    """

    def __init__(self, source: SoundSource, spec: SoundSpec):
        assert spec.sample_rate is not None
        lengths = [header.length_at(spec.sample_rate) for header in source.headers]
        super().__init__(spec, lengths, source.labels)
        self.source, self.lengths = source, lengths
        self._kept: dict[int, Tensor] = {}
        self._gains: dict[int, float] = {}
        self._spent = 0
        self._bounds: dict[int, tuple[int, int]] = {}

    def slice(self, sound: int, place: float) -> tuple[int, Tensor]:
        """The slice, or that of the next sound that can be read."""
        count = len(self.source)
        for which in (*range(sound, count), *range(sound)):
            try:
                return which, self._read(which, place)
            except Unreadable as error:
                self.source.skip({self.source.names[which]: str(error)})
        raise self.source.nothing()

    def whole(self, sound: int) -> Tensor:
        """A sound in one piece, `[channels, T]`.

        Raises:
            Unreadable: it is damaged.
        """
        first, last = self._ends_of(sound)
        return levelled(self._part(sound, first, last - first), self.spec.peak)

    def _read(self, sound: int, place: float) -> Tensor:
        if sound not in self._kept and self._may_keep(self.lengths[sound] * self.channels):
            self._kept[sound] = self.whole(sound)
            self._spent += self._kept[sound].numel()
        if sound in self._kept:
            whole = self._kept[sound]
            start = self.start(whole.shape[1], place)
            return whole[:, start : start + self.samples]
        first, last = self._ends_of(sound)
        part = self._part(sound, first + self.start(last - first, place), min(self.samples, last - first))
        return part if self.spec.peak is None else part * self._gain_of(sound, self.spec.peak)

    def _part(self, sound: int, start: int, length: int) -> Tensor:
        return read_sound(
            self.source.files, self.source.names[sound], sample_rate=self.sample_rate, channels=self.channels,
            start=start, length=length,
        ).contiguous()  # fmt: skip

    def _gain_of(self, sound: int, peak: float) -> float:
        """Returns the factor of a sound of which only slices are read; its peak is looked for once."""
        if sound not in self._gains:
            with opened(self.source.files, self.source.names[sound]) as file:
                blocks = read_blocks(file, sample_rate=self.sample_rate, channels=self.channels)
                self._gains[sound] = gain(max(float(block.abs().max()) for block in blocks), peak)
        return self._gains[sound]

    def _ends_of(self, sound: int) -> tuple[int, int]:
        """Returns the first sample and the one after the last, at the items' rate, of all or of what is not silent."""
        header = self.source.headers[sound]
        if self.spec.trim is None:
            return 0, self.lengths[sound]
        if sound not in self._bounds:
            with opened(self.source.files, self.source.names[sound]) as file:
                bounds = loud_part(read_blocks(file), header.sample_rate, decibels=self.spec.trim)
            first, last = (sample * self.sample_rate // header.sample_rate for sample in bounds)
            self._bounds[sound] = first, max(last, first + 1)
        return self._bounds[sound]

    def _may_keep(self, values: int) -> bool:
        """Whether so many more numbers may be kept; processes that read for a training share the room."""
        worker = get_worker_info()
        share = MEMORY_BYTES // (worker.num_workers if worker else 1)
        return values <= KEPT_SAMPLES and 4 * (self._spent + values) <= share

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_spent": 0}


class SoundItems(Items):
    """Whole sounds by index, as composed sources read them: each from its beginning, followed by silence."""

    pixels: frozenset[str] = frozenset()

    def __init__(self, slices: FileSlices):
        self.slices, source = slices, slices.source
        self.memory = 4 * len(self) * slices.channels * slices.samples
        self.values = sum(header.length * header.channels for header in source.headers)

    def __len__(self) -> int:
        return len(self.slices.source)

    def name(self, index: int) -> str:
        return self.slices.source.names[index]

    def read(self, index: int) -> Batch:
        sound, labels = self.slices.whole(index), self.slices.labels
        audio = {"audio": pad(sound, (0, self.slices.samples - sound.shape[1]))}
        return audio if labels is None else audio | {"label": labels[index]}


class SoundSource(Source):
    """Sounds of a folder or archive, with or without labels.

    Args:
        files: the folder or archive.
        names: names of the sounds in it.
        headers: headers of the sounds.
        name: name of the source.
        labels: class of each sound, `[N]`.
        classes: names of the classes.
        strict: whether a sound that cannot be read is an error.

    Attributes:
        facts: `sample_rate` is the commonest (of several the lowest), `channels` the number that all sounds have, or 1,
            and `samples` is there if all are equally long.
        skipped: names of sounds that could not be read, with the reasons; grows as items are read.
    """

    def __init__(
        self, files: Files, names: Sequence[str], headers: Sequence[Header], *, name: str, labels: Tensor | None = None,
        classes: Sequence[str] | None = None, strict: bool = False,
    ) -> None:  # fmt: skip
        self.files, self.names, self.headers = files, names, headers
        self.name, self.labels, self.strict = name, labels, strict
        self.skipped: dict[str, str] = {}
        self.facts = _facts(headers, classes)

    @property
    def keys(self) -> Collection[str]:
        return ("audio",) if self.labels is None else ("audio", "label")

    def __len__(self) -> int:
        return len(self.headers)

    def fit(self, spec: Spec) -> Slices:
        """Returns items `audio` `[channels, samples]` (float32, in [-1, 1]), and `label`; see `Slices`.

        A set that is small enough is decoded now and held in memory. Otherwise items are read when they are needed, and
        the next readable sound takes the place of one that cannot be read.

        Raises:
            DataError: the game needs something else, the length or the channels cannot be had, or nothing can be read.
        """
        wanted = complete(self, spec)
        slices = FileSlices(self, wanted)
        self._check_channels(slices.channels)
        held = sum(slices.lengths) * slices.channels
        decoded = sum(header.length * header.channels for header in self.headers)
        if 4 * held <= MEMORY_BYTES and decoded <= MEMORY_SAMPLES:
            return self._held(slices)
        slices[0]  # raises now, and not during the training, if nothing can be read
        return slices

    def items(self, spec: Spec) -> Items:
        """Returns the sounds in one piece each.

        Raises:
            DataError: see `fit`, or a sound is longer than an item, so that parts of a pair would be cut at different
                places.
        """
        slices = FileSlices(self, complete(self, spec))
        self._check_channels(slices.channels)
        for name, length in zip(self.names, slices.lengths, strict=True):
            if length > slices.samples:
                given = f"{printable(name)} has {length:,} samples, and an item has {slices.samples:,}"
                raise DataError(f"{self.name}: {given}; cut the sounds of pairs to the length of an item beforehand")
        return SoundItems(slices)

    def _held(self, slices: FileSlices) -> HeldSlices:
        sounds: dict[int, Tensor] = {}
        skipped: dict[str, str] = {}
        for number, name in enumerate(self.names):
            try:
                sounds[number] = slices.whole(number)
            except Unreadable as error:
                skipped[name] = str(error)
        if not sounds:
            raise self.nothing(skipped)
        self.skip(skipped)
        labels = None if self.labels is None else self.labels[list(sounds)]
        return HeldSlices(slices.spec, list(sounds.values()), labels)

    def _check_channels(self, wanted: int) -> None:
        for name, header in zip(self.names, self.headers, strict=True):
            try:
                check_channels(header.channels, wanted)
            except Unreadable as error:
                raise DataError(f"{self.name}: {printable(name)} {error} as `network.channels`") from error

    def skip(self, skipped: Mapping[str, str]) -> None:
        """Records what cannot be read, and names what is new in a warning.

        Raises:
            DataError: something cannot be read, and the source is strict.
        """
        skip(self.skipped, skipped, where=self.name, thing="sound", strict=self.strict, logger=logger)

    def nothing(self, skipped: Mapping[str, str] | None = None) -> DataError:
        """The error for a source of which nothing can be read."""
        return nothing_readable(self.name, len(self), skipped or self.skipped, thing="sound", suffixes=SUFFIXES)


class DrumSource(Source):
    """Drum sounds that are made by rule, the same in every process: see `gan_audio.drums`."""

    def __init__(self, *, name: str, count: int):
        self.name, self.count = name, count
        self.facts = {"sample_rate": RATE, "channels": 1, "samples": SAMPLES, "num_classes": len(DRUMS),
                      "classes": list(DRUMS)}  # fmt: skip

    @property
    def keys(self) -> Collection[str]:
        return ("audio", "label")

    def __len__(self) -> int:
        return self.count

    def fit(self, spec: Spec) -> HeldSlices:
        """Returns items `audio` `[channels, samples]` and `label`: each drum from its beginning, made for that rate.

        Raises:
            DataError: the game needs something else.
        """
        wanted = complete(self, spec)
        assert wanted.samples is not None
        assert wanted.sample_rate is not None
        assert wanted.channels is not None
        length, rate = min(wanted.samples, round(LONGEST * wanted.sample_rate)), wanted.sample_rate
        audio, labels = make_drums(range(self.count), samples=length, sample_rate=rate)
        sounds = list(audio.expand(-1, wanted.channels, -1))
        if wanted.trim is not None:
            bounds = [loud_part([sound], rate, decibels=wanted.trim) for sound in sounds]
            sounds = [sound[:, first:last] for sound, (first, last) in zip(sounds, bounds, strict=True)]
        return HeldSlices(wanted, [levelled(sound, wanted.peak) for sound in sounds], labels)


def open_sounds(name: str, files: Files, *, strict: bool, labelled: Labelled | None = None) -> SoundSource:
    """Opens the sounds of a folder or archive; every header is read now, so that what is no sound is known.

    Args:
        name: name of the source.
        files: its files.
        strict: whether a sound that cannot be read is an error.
        labelled: class of each file and names of the classes; None takes them from the folders.

    Raises:
        DataError: see `gan_audio.data.open_folder`.
    """
    names, seen = names_ending(files, SUFFIXES)
    headers, skipped = read_headers(files, names)
    if not headers and not (strict and skipped):
        raise nothing_readable(name, seen, skipped, thing="sound", suffixes=SUFFIXES)
    labels, classes = labelled or labels_of(name, names, list(headers), thing="sound", logger=logger)
    if labelled is not None and labels is not None:
        labels = [label for file, label in zip(names, labels, strict=True) if file not in skipped]
    source = SoundSource(
        files, list(headers), list(headers.values()), name=name, classes=classes, strict=strict,
        labels=None if labels is None else torch.tensor(labels),
    )  # fmt: skip
    source.skip(skipped)
    return source


def read_headers(files: Files, names: Sequence[str]) -> tuple[dict[str, Header], dict[str, str]]:
    """What each file says of itself, and why others cannot be read, by name."""
    headers: dict[str, Header] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            headers[name] = read_header(files, name)
        except Unreadable as error:
            skipped[name] = str(error)
    return headers, skipped


def _facts(headers: Sequence[Header], classes: Sequence[str] | None) -> dict[str, Any]:
    rates = Counter(header.sample_rate for header in headers)
    channels = {header.channels for header in headers}
    lengths = {(header.sample_rate, header.length) for header in headers}
    facts: dict[str, Any] = {
        "sample_rate": min(rates, key=lambda rate: (-rates[rate], rate), default=None),
        "channels": channels.pop() if len(channels) == 1 else 1,
    }
    if len(lengths) == 1:
        facts["samples"] = lengths.pop()[1]
    if classes is not None:
        facts |= {"num_classes": len(classes), "classes": list(classes)}
    return facts
