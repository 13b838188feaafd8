"""Sources of sounds: audio files of any sample rate and length, and generated drum sounds."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset, get_worker_info

from gan_audio.sound.drums import DRUMS, LONGEST, RATE, SAMPLES, make_drums
from gan_audio.sound.files import (
    CONVERT,
    FOREIGN,
    SUFFIXES,
    Header,
    check_channels,
    looks_like_sound,
    loud_part,
    opened,
    read_blocks,
    read_header,
    read_sound,
    report_clipped,
    report_notes,
)
from gan_audio.sound.spec import SoundSpec
from gan_core import draws
from gan_core.data import Batch, Items, ItemSource, Source, Spec, expect
from gan_core.data.augmentation import MEMORY_BYTES
from gan_core.data.files import FileKind, Files
from gan_core.data.folders import Opened, list_files
from gan_core.data.items import ItemOptions
from gan_core.errors import DataError, Unreadable, printable

SOUNDS = FileKind("sound", SUFFIXES, FOREIGN, CONVERT, looks_like_sound)
MEMORY_SAMPLES = 4 * 10**8
"""Maximum number of samples that are decoded before training starts, which takes about twenty seconds."""
KEPT_SAMPLES = 2**22
"""Maximum number of values of a sound that is cached. For longer sounds, only slices are read."""


def complete(source: Source, spec: Spec) -> SoundSpec:
    """Returns a specification with open fields set to the sounds' own length, sample rate and number of channels.

    Raises:
        DataError: the specification is not for sounds; or its length is open, and the sounds have different lengths.
    """
    wanted = expect(spec, SoundSpec, source.name, "sounds")
    wanted = wanted.but({name: source.facts[name] for name in wanted.open_fields() if name in source.facts})
    if wanted.samples is None:
        raise DataError(f"{source.name}: the sounds have different lengths; set `data.spec.samples`")
    return wanted


def levelled(sound: Tensor, peak: float | None) -> Tensor:
    """Scales a whole sound `[channels, T]` to a maximum magnitude. Nothing changes for None and for silence."""
    return sound if peak is None else (sound * gain(float(sound.abs().max()), peak)).clamp(-1, 1)


def gain(loudest: float, peak: float) -> float:
    """Returns the factor that scales the maximum magnitude `loudest` to `peak`; 1 for silence."""
    return peak / loudest if loudest > 0 else 1.0


class Slices(Dataset[Batch]):
    """Slices of sounds as items of one length: `audio` `[channels, samples]` in [-1, 1], and `label`.

    A short sound is padded with silence at the end. A long sound is divided into sections of at least one slice, with
    one item per section. Each time an item is read, its slice has a random position in its section, so that an epoch
    covers the whole sound.

    Attributes:
        groups: index of the sound from which each item is cut, `[N]`.

    Args:
        spec: specification of the items, without open fields.
        lengths: length of each sound in samples, at the sample rate of the items.
        labels: class index of each sound, `[number of sounds]`; None if there are no classes.
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
        """Returns the first sample of the slice at a relative position in [0, 1) of a sound with `length` samples."""
        room = max(0, length - self.samples)
        return min(int(place * (room + 1)), room)

    @abstractmethod
    def slice(self, sound: int, place: float) -> tuple[int, Tensor]:
        """Returns the slice at a relative position in [0, 1) of a sound, `[channels, at most samples]`.

        Returns:
            The index of the sound that was read, which is another one if the sound is unreadable; and the slice.
        """


class HeldSlices(Slices):
    """Slices of sounds `[channels, T]` in memory, already at the specification's sample rate and level."""

    def __init__(self, spec: SoundSpec, sounds: Sequence[Tensor], labels: Tensor | None):
        super().__init__(spec, [sound.shape[1] for sound in sounds], labels)
        self.sounds = sounds

    def slice(self, sound: int, place: float) -> tuple[int, Tensor]:
        whole = self.sounds[sound]
        start = self.start(whole.shape[1], place)
        return sound, whole[:, start : start + self.samples]


class FileSlices(Slices):
    """Slices of files, read on demand. Short sounds are cached until `MEMORY_BYTES` (2 GiB) are used.

    Cached sounds are never evicted: an epoch reads each sound once, so the sounds that are needed next would be
    evicted.
    """

    def __init__(self, source: SoundSource, spec: SoundSpec):
        assert spec.sample_rate is not None
        lengths = [header.length_at(spec.sample_rate) for header in source.headers]
        super().__init__(spec, lengths, source.labels)
        self.source, self.lengths = source, lengths
        self.clipped: dict[str, int] = {}  # number of samples beyond [-1, 1] by name
        self._reported = False
        self._kept: dict[int, Tensor] = {}
        self._gains: dict[int, float] = {}
        self._spent = 0
        self._bounds: dict[int, tuple[int, int]] = {}

    def slice(self, sound: int, place: float) -> tuple[int, Tensor]:
        """Returns the slice of the sound, or of the next readable sound."""
        found = self.source.read_next(sound, lambda which: self._read(which, place))
        self.report_clipped()
        return found

    def whole(self, sound: int) -> Tensor:
        """Returns a whole sound, trimmed and scaled, `[channels, T]`.

        Raises:
            Unreadable: the file is damaged.
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
        return part if self.spec.peak is None else (part * self._gain_of(sound, self.spec.peak)).clamp(-1, 1)

    def _part(self, sound: int, start: int, length: int) -> Tensor:
        return read_sound(
            self.source.files,
            self.source.item_name(sound),
            sample_rate=self.sample_rate,
            channels=self.channels,
            start=start,
            length=length,
            clip=self.spec.peak is None,
            clipped=lambda number: self._note_clipped(sound, number),
        ).contiguous()

    def _note_clipped(self, sound: int, number: int) -> None:
        self.clipped[self.source.item_name(sound)] = number

    def report_clipped(self) -> None:
        """Logs a warning about the sounds that were clipped so far, once."""
        if self.clipped and not self._reported:
            self._reported = True
            report_clipped(self.clipped, where=self.source.name, remedy="set `data.spec.peak` to scale all sounds")

    def _gain_of(self, sound: int, peak: float) -> float:
        """Returns the gain of a sound that is read in slices. Its peak is determined once."""
        if sound not in self._gains:
            with opened(self.source.files, self.source.item_name(sound)) as file:
                blocks = read_blocks(file, sample_rate=self.sample_rate, channels=self.channels, clip=False)
                self._gains[sound] = gain(max(float(block.abs().max()) for block in blocks), peak)
        return self._gains[sound]

    def _ends_of(self, sound: int) -> tuple[int, int]:
        """Returns the start and the end of a sound after trimming, in samples at the items' sample rate."""
        header = self.source.headers[sound]
        if self.spec.trim is None:
            return 0, self.lengths[sound]
        if sound not in self._bounds:
            with opened(self.source.files, self.source.item_name(sound)) as file:
                bounds = loud_part(read_blocks(file), header.sample_rate, decibels=self.spec.trim)
            first, last = (sample * self.sample_rate // header.sample_rate for sample in bounds)
            self._bounds[sound] = first, max(last, first + 1)
        return self._bounds[sound]

    def _may_keep(self, values: int) -> bool:
        """Returns whether a sound with this number of values may be cached. Worker processes share the cache size."""
        worker = get_worker_info()
        share = MEMORY_BYTES // (worker.num_workers if worker else 1)
        return values <= KEPT_SAMPLES and 4 * (self._spent + values) <= share

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_spent": 0}


class SoundItems(Items):
    """Whole sounds by index, padded with silence at the end, as composed sources read them."""

    pixels: frozenset[str] = frozenset()

    def __init__(self, slices: FileSlices):
        self.slices, source = slices, slices.source
        self.memory = 4 * len(self) * slices.channels * slices.samples
        self.values = sum(header.length * header.channels for header in source.headers)

    def __len__(self) -> int:
        return len(self.slices.source)

    def read(self, index: int) -> Batch:
        sound, labels = self.slices.whole(index), self.slices.labels
        self.slices.report_clipped()
        audio = {"audio": pad(sound, (0, self.slices.samples - sound.shape[1]))}
        return audio if labels is None else audio | {"label": labels[index]}


class SoundSource(ItemSource):
    """A source of the sounds in a folder or archive, with or without labels.

    Args:
        files: the folder or archive.
        headers: header of each sound by its name in the folder or archive.
        name: name of the source.
        **options: see `ItemSource`.

    Attributes:
        facts: `sample_rate` is the most common rate (if there are several, the lowest of them); `channels` is the
            number of channels if it is the same for all sounds, or else 1; `samples` is present if all sounds have the
            same length and rate.
    """

    key, kind = "audio", SOUNDS

    def __init__(
        self, files: Files, headers: Mapping[str, Header], *, name: str, **options: Unpack[ItemOptions]
    ) -> None:
        self.files, self.headers = files, list(headers.values())
        super().__init__(name=name, facts=_facts(self.headers), names=list(headers), **options)

    def __len__(self) -> int:
        return len(self.headers)

    def fit(self, spec: Spec) -> Slices:
        """Returns items `audio` `[channels, samples]` (float32, in [-1, 1]) and `label`; see `Slices`.

        A small dataset is decoded completely and held in memory. The items of a large dataset are read on demand, and
        an unreadable sound is replaced by the next readable one.

        Raises:
            DataError: the specification is not for sounds; or its length is open and the sounds have different lengths;
                or a sound cannot be converted to its number of channels; or no sound is readable, or one is unreadable
                and the source is strict.
        """
        wanted = complete(self, spec)
        slices = FileSlices(self, wanted)
        self._check_channels(slices.channels)
        held = sum(slices.lengths) * slices.channels
        decoded = sum(header.length * header.channels for header in self.headers)
        if 4 * held <= MEMORY_BYTES and decoded <= MEMORY_SAMPLES:
            sounds = self.read_all(slices.whole)
            slices.report_clipped()
            labels = None if self.labels is None else self.labels[list(sounds)]
            return HeldSlices(wanted, list(sounds.values()), labels)
        slices[0]  # raises here rather than during training if no sound is readable
        return slices

    def items(self, spec: Spec) -> Items:
        """Returns whole sounds.

        Raises:
            DataError: see `fit`; or a sound is longer than an item, so that the parts of a pair would be cut at
                different positions.
        """
        slices = FileSlices(self, complete(self, spec))
        self._check_channels(slices.channels)
        for index, length in enumerate(slices.lengths):
            if length > slices.samples:
                given = f"{printable(self.item_name(index))} has {length:,} samples"
                given += f", but `data.spec.samples` is {slices.samples:,}"
                raise DataError(f"{self.name}: {given}; cut the sounds of pairs to this length beforehand")
        return SoundItems(slices)

    def _check_channels(self, wanted: int) -> None:
        for index, header in enumerate(self.headers):
            try:
                check_channels(header.channels, wanted)
            except Unreadable as error:
                name = printable(self.item_name(index))
                raise DataError(f"{self.name}: {name} {error} as `network.channels`") from error


class DrumSource(Source):
    """A source of generated drum sounds, the same in every process; see `gan_audio.sound.drums`."""

    def __init__(self, *, name: str, count: int):
        self.name, self.count = name, count
        self.facts = {
            "sample_rate": RATE,
            "channels": 1,
            "samples": SAMPLES,
            "num_classes": len(DRUMS),
            "classes": list(DRUMS),
        }

    @property
    def keys(self) -> Collection[str]:
        return ("audio", "label")

    def __len__(self) -> int:
        return self.count

    def fit(self, spec: Spec) -> HeldSlices:
        """Returns items `audio` `[channels, samples]` and `label`, generated at the specification's sample rate.

        Raises:
            DataError: the specification is not for sounds.
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


def open_sounds(opened: Opened, *, strict: bool = False) -> SoundSource:
    """Opens the sounds of a folder or archive, and reads all of their headers to find unreadable files.

    Args:
        opened: the folder or archive.
        strict: whether an unreadable sound is an error.

    Raises:
        DataError: see `list_files`.
    """
    found = list_files(opened, SOUNDS, read_header, strict=strict)
    report_notes({name: header.note for name, header in found.headers.items()}, where=opened.name)
    return SoundSource(
        opened.files,
        found.headers,
        name=opened.name,
        labels=found.labels,
        classes=found.classes,
        skipped=found.skipped,
        strict=strict,
    )


def _facts(headers: Sequence[Header]) -> dict[str, Any]:
    rates = Counter(header.sample_rate for header in headers)
    channels = {header.channels for header in headers}
    lengths = {(header.sample_rate, header.length) for header in headers}
    facts: dict[str, Any] = {
        "sample_rate": min(rates, key=lambda rate: (-rates[rate], rate), default=None),
        "channels": channels.pop() if len(channels) == 1 else 1,
    }
    if len(lengths) == 1:
        facts["samples"] = lengths.pop()[1]
    return facts
