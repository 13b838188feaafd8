"""What the audio package's data sets are made of: sounds of any rate and length cut to a network's, and drums."""

from __future__ import annotations

import logging
from abc import abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from gan_audio.drums import DRUMS, LONGEST, RATE, SAMPLES, make_drums
from gan_audio.files import SUFFIXES, Header, check_channels, loud_part, opened, read_blocks, read_header, read_sound
from gan_core import draws
from gan_core.data import Batch, Source, require_labels
from gan_core.errors import DataError
from gan_core.files import Files, Unreadable, labels_of, names_ending, nothing_readable, printable, skip

MEMORY_BYTES = 2**31
"""The largest set that is held in memory, cut to its channels and rate, and the most that is kept of a larger one."""
MEMORY_SAMPLES = 4 * 10**8
"""The most samples that are decoded before a training begins: some twenty seconds."""
KEPT_SAMPLES = 2**22
"""The longest sound of a larger set that is kept when it was read; of a longer one only slices are read."""

logger = logging.getLogger("gan_audio")


class Form(NamedTuple):
    """What a network asks of sounds.

    Attributes:
        samples: of an item.
        sample_rate: in Hz.
        channels: of an item.
        peak: what the largest magnitude of every sound is made; None leaves sounds as loud as they are.
    """

    samples: int
    sample_rate: int
    channels: int
    peak: float | None

    def levelled(self, sound: Tensor) -> Tensor:
        """A whole sound `[channels, T]` with the peak that is asked for; silence stays silent."""
        return sound if self.peak is None else sound * gain(float(sound.abs().max()), self.peak)


def gain(loudest: float, peak: float) -> float:
    """By what a sound is multiplied so that its largest magnitude becomes the peak."""
    return peak / loudest if loudest > 0 else 1.0


class Slices(Dataset[Batch]):
    """Sounds as items of one length: `audio` `[channels, samples]` in [-1, 1], and `label`.

    A short sound is followed by silence. A long one is several items, as many as it has whole slices, and each is cut
    at a place that is drawn anew from the item's own part of the sound, so that an epoch goes through all of it.

    Args:
        form: of the items.
        lengths: of the sounds, in samples.
        labels: of the sounds, `[N]`.
    """

    def __init__(self, form: Form, lengths: Sequence[int], labels: Tensor | None):
        self.form, self.labels = form, labels
        self.samples, self.sample_rate, self.channels = form.samples, form.sample_rate, form.channels
        self.ends = list(accumulate(max(1, length // form.samples) for length in lengths))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Batch:
        return {key: tensor[0] for key, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        audio, sounds = torch.zeros(len(indices), self.channels, self.samples), []
        for row, (index, place) in enumerate(zip(indices, draws.of_items(len(indices)), strict=True)):
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
    """Slices of sounds `[channels, T]`, in that form already, that are held in memory as 32-bit numbers."""

    def __init__(self, form: Form, sounds: Sequence[Tensor], labels: Tensor | None):
        super().__init__(form, [sound.shape[1] for sound in sounds], labels)
        self.sounds = sounds

    def slice(self, sound: int, place: float) -> tuple[int, Tensor]:
        whole = self.sounds[sound]
        start = self.start(whole.shape[1], place)
        return sound, whole[:, start : start + self.samples]


class FileSlices(Slices):
    """Slices that are read when they are asked for; short sounds are kept as long as there is room.

    What is kept stays: as every epoch reads all sounds once, replacing them would lose those that come next.
    """

    def __init__(self, source: SoundSource, form: Form):
        lengths = [header.length_at(form.sample_rate) for header in source.headers]
        super().__init__(form, lengths, source.labels)
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
        return self.form.levelled(self._part(sound, first, last - first))

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
        return part if self.form.peak is None else part * self._gain_of(sound, self.form.peak)

    def _part(self, sound: int, start: int, length: int) -> Tensor:
        return read_sound(
            self.source.files, self.source.names[sound], sample_rate=self.sample_rate, channels=self.channels,
            start=start, length=length,
        ).contiguous()  # fmt: skip

    def _gain_of(self, sound: int, peak: float) -> float:
        """By what a sound is multiplied of which only slices are kept: its peak is looked for once."""
        if sound not in self._gains:
            with opened(self.source.files, self.source.names[sound]) as file:
                blocks = read_blocks(file, sample_rate=self.sample_rate, channels=self.channels)
                self._gains[sound] = gain(max(float(block.abs().max()) for block in blocks), peak)
        return self._gains[sound]

    def _ends_of(self, sound: int) -> tuple[int, int]:
        """The first sample and the one after the last, at the network's rate: all, or what is not silent."""
        header = self.source.headers[sound]
        if self.source.trim is None:
            return 0, self.lengths[sound]
        if sound not in self._bounds:
            with opened(self.source.files, self.source.names[sound]) as file:
                bounds = loud_part(file, decibels=self.source.trim)
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


class SoundSource(Source):
    """Sounds of a folder or archive, with or without labels.

    Args:
        files: the folder or archive.
        names: of the sounds in it.
        headers: what each says of itself.
        name: of the source.
        labels: of each, `[N]`.
        classes: their names.
        strict: whether a sound that cannot be read is an error.
        trim: silence before and after a sound is left out, which is so many dB below its loudest hundredth of a second;
            None leaves nothing out.

    Attributes:
        facts: `sample_rate` is the commonest (of several the lowest), `channels` those that all have, or 1, and
            `samples` is there if all are equally long.
        skipped: what could not be read and why, by name; it grows as items are read.
    """

    def __init__(
        self, files: Files, names: Sequence[str], headers: Sequence[Header], *, name: str, labels: Tensor | None = None,
        classes: Sequence[str] | None = None, strict: bool = False, trim: float | None = None,
    ) -> None:  # fmt: skip
        self.files, self.names, self.headers = files, names, headers
        self.name, self.labels, self.strict, self.trim = name, labels, strict, trim
        self.skipped: dict[str, str] = {}
        self.facts = _facts(headers, classes)
        self._last: tuple[Form, Slices] | None = None

    def __len__(self) -> int:
        return len(self.headers)

    def fit(self, **network: Any) -> Slices:
        """Items `audio` `[channels, samples]` (float32, in [-1, 1]), and `label`; see `Slices`.

        A set that is small enough is decoded now and kept in memory (until another form is asked for); of a larger one
        items are read when they are asked for, and a sound that cannot be read then gives its place to the next.

        Args:
            network: `samples`, `sample_rate` (Hz) and `channels`, the data's own where they are not given; and `peak`,
                to which every sound is scaled.

        Raises:
            DataError: the length or channels are missing or impossible, the classes are not the network's, or nothing
                can be read.
        """
        require_labels(self, network.get("num_classes"))
        wanted = _wanted(self, network)
        self._check_channels(wanted.channels)
        if self._last is None or self._last[0] != wanted:
            self._last = None  # frees what is in memory
            self._last = wanted, self._fit(wanted)
        return self._last[1]

    def _fit(self, form: Form) -> Slices:
        slices = FileSlices(self, form)
        held = sum(slices.lengths) * form.channels
        decoded = sum(header.length * header.channels for header in self.headers)
        if 4 * held <= MEMORY_BYTES and decoded <= MEMORY_SAMPLES:
            return self._held(slices)
        slices[0]  # if nothing can be read, this says so before the training begins
        return slices

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
        return HeldSlices(slices.form, list(sounds.values()), labels)

    def _check_channels(self, wanted: int) -> None:
        for name, header in zip(self.names, self.headers, strict=True):
            try:
                check_channels(header.channels, wanted)
            except Unreadable as error:
                raise DataError(f"{self.name}: {printable(name)} {error} as `network.channels`") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

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
        self._last: tuple[Form, Slices] | None = None

    def __len__(self) -> int:
        return self.count

    def fit(self, **network: Any) -> Slices:
        """Items `audio` `[channels, samples]` and `label`: each drum from its beginning, made for that rate and length.

        Raises:
            DataError: the network has another number of classes.
        """
        require_labels(self, network.get("num_classes"))
        wanted = _wanted(self, network)
        if self._last is None or self._last[0] != wanted:
            length, rate = min(wanted.samples, round(LONGEST * wanted.sample_rate)), wanted.sample_rate
            audio, labels = make_drums(range(self.count), samples=length, sample_rate=rate)
            sounds = [wanted.levelled(sound) for sound in audio.expand(-1, wanted.channels, -1)]
            self._last = wanted, HeldSlices(wanted, sounds, labels)
        return self._last[1]


def open_sounds(path: Path, files: Files, *, strict: bool, trim: float | None) -> SoundSource:
    """The sounds of a folder or archive at a path; every header is read now, so that what is no sound is known.

    Raises:
        DataError: see `gan_audio.data.open_folder`.
    """
    names, seen = names_ending(files, SUFFIXES)
    headers, skipped = read_headers(files, names)
    if not headers and not (strict and skipped):
        raise nothing_readable(str(path), seen, skipped, thing="sound", suffixes=SUFFIXES)
    labels, classes = labels_of(path, names, list(headers), thing="sound", logger=logger)
    source = SoundSource(
        files, list(headers), list(headers.values()), name=str(path), classes=classes, strict=strict, trim=trim,
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


def _wanted(source: Source, network: Mapping[str, Any]) -> Form:
    """What a network asks for, or the data's own; a mel is of one channel."""
    if "bars" in network:
        raise DataError(f"{source.name}: holds sounds, and this system learns from tunes; give MIDI files, or `tunes`")
    if spoken := network.get("mel"):
        network = {"sample_rate": spoken["sample_rate"], "channels": 1} | dict(network)
    samples, rate, channels = (
        network.get(key) or source.facts.get(key) for key in ("samples", "sample_rate", "channels")
    )
    if samples is None:
        raise DataError(f"{source.name}: the sounds have different lengths; set `network.samples`")
    assert rate is not None
    assert channels is not None
    return Form(int(samples), int(rate), int(channels), network.get("peak"))


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
