"""Sources: datasets before they are converted to the form that a game needs."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data.augmentation import Augmented, augmented, sized
from gan_core.data.dataset import EMPTY, PIXELS, Batch, TensorDataset, length, named, pixels_of
from gan_core.data.spec import ImageSpec, Spec
from gan_core.errors import DataError, count
from gan_core.tables import html_table

logger = logging.getLogger("gan_core")

LARGEST_PIXEL = 2.0
"""Maximum magnitude of floating-point pixels. Images with larger values are rejected as not scaled to [-1, 1]."""


class Source(ABC):
    """A dataset before it is converted to the form that a game needs.

    Attributes:
        name: name of the source, for messages and recipes.
        keys: keys of its items.
        facts: properties of the data: `channels`, `image_size`, `sample_rate`, `num_classes`, `classes` (their names)
            … They are used for network settings and fields of the specification that are not set.
    """

    name: str
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        facts = [f"{name}={value!r}" for name, value in self.facts.items() if isinstance(value, int | float)]
        return f"<{type(self).__name__} {self.name!r}: {', '.join([count(len(self), 'item'), *facts])}>"

    def _repr_html_(self) -> str:
        """Returns the name, the number of items and the facts as a table for notebooks."""
        facts = {name: ", ".join(value) if name == "classes" else value for name, value in self.facts.items()}
        return html_table([("source", self.name), ("items", f"{len(self):,}"), *facts.items()])

    @property
    @abstractmethod
    def keys(self) -> Collection[str]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    def in_words(self, spec: Spec) -> str:
        """Returns what the data are and how they are converted, for people: `1,797 images, scaled … to 32x32`."""
        return ", ".join(filter(None, (count(len(self), "item"), spec.in_words())))

    def item_name(self, index: int) -> str:
        """Returns the name of an item, for messages."""
        return str(index)

    @abstractmethod
    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns a dataset of the items, converted to a specification.

        Items are `dict[str, Tensor]`. A dataset may define `__getitems__`, which takes a list of indices and returns a
        finished batch. It may also have the attributes `pixels`, the keys whose uint8 values are scaled to [-1, 1]
        (default: `PIXELS`), and `groups` `[N]`, equal numbers for items that come from one file.

        Raises:
            DataError: the data cannot be converted to the specification.
        """

    def items(self, spec: Spec) -> Items:
        """Returns the converted items for random access, without augmentation, as composed sources read them."""
        dataset = self.fit(spec.plain())
        if length(dataset) != len(self):
            found = f"{self.name} has {len(self):,} entries but {length(dataset):,} items"
            raise DataError(f"{found}, which cannot be matched with other data; give a source with one item per entry")
        return DatasetItems(dataset)


class FixedSource(Source):
    """A source of the items of a dataset. Images are resized, cropped and flipped; nothing else is converted.

    Args:
        dataset: a map-style dataset with a length, whose items are `dict[str, Tensor]`.
        name: name of the source.
        facts: properties of the data, see `Source`.

    Raises:
        DataError: the items are not dictionaries.
    """

    def __init__(self, dataset: Dataset[Batch], *, name: str = "dataset", facts: Mapping[str, Any] = EMPTY):
        self.dataset, self.name, self.facts = dataset, name, facts

    @property
    def keys(self) -> Collection[str]:
        if isinstance(self.dataset, TensorDataset):
            return self.dataset.tensors.keys()
        return named(self.dataset[0]).keys()

    def __len__(self) -> int:
        return length(self.dataset)

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns the items, resized, cropped and flipped to the specification; see `Source.fit`.

        Raises:
            DataError: the number of channels differs, or images are too small and the specification does not resize.
        """
        if not isinstance(spec, ImageSpec):
            return self.dataset
        first, pixels = named(self.dataset[0]), getattr(self.dataset, "pixels", PIXELS)
        require_channels(first, spec, pixels, self.name)
        dataset = sized(self.dataset, spec)
        first = dataset[0]
        sizes = {tuple(first[key].shape[-2:]) for key in pixels if key in first and first[key].ndim == 3}
        if spec.size is None or sizes <= {spec.size}:
            return augmented(dataset, spec)
        dataset = Augmented(dataset, spec)
        dataset[0]  # raises now if the images cannot be cropped
        return dataset

    def items(self, spec: Spec) -> Items:
        """Returns the items resized but not cropped: composed sources apply the same crop to all parts of an item."""
        if not isinstance(spec, ImageSpec):
            return DatasetItems(self.dataset)
        require_channels(named(self.dataset[0]), spec, getattr(self.dataset, "pixels", PIXELS), self.name)
        return DatasetItems(sized(self.dataset, spec))


class TensorSource(FixedSource):
    """A source of tensors in memory: `{"image": [N, C, H, W], "label": [N]}`.

    Args:
        tensors: tensors `[N, …]` by key. uint8 tensors whose key is in `pixels` are scaled from 0 … 255 to [-1, 1];
            floating-point tensors are used unchanged, and images must be in [-1, 1].
        name: name of the source.
        classes: names of the classes (default: their indices).
        pixels: keys whose uint8 values are pixels (default: `PIXELS`).

    Raises:
        DataError: there are no items, or the tensors have different lengths, or labels are not class indices, or
            floating-point images are not finite or exceed `LARGEST_PIXEL`.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        name: str = "tensors",
        classes: Sequence[str] | None = None,
        pixels: Collection[str] | None = None,
    ) -> None:
        dataset = TensorDataset(tensors, pixels=pixels)
        if "label" in tensors:
            check_labels(tensors["label"], name)
        super().__init__(dataset, name=name, facts=facts_of(tensors, classes))
        for key in tensors.keys() & ({"image", "video"} if pixels is None else dataset.pixels):
            if tensors[key].is_floating_point():
                check_pixels(tensors[key], name, key)


def check_pixels(pixels: Tensor, name: str, key: str) -> None:
    """Checks that floating-point pixels are in [-1, 1], and warns if none is negative.

    Raises:
        DataError: a value is not finite, or its magnitude exceeds `LARGEST_PIXEL`.
    """
    least, most = (float(each) for each in pixels.aminmax())
    if not math.isfinite(least + most):
        raise DataError(f"{name}: `{key}` has values that are not finite; remove these items")
    if max(-least, most) > LARGEST_PIXEL:
        given = f"{name}: `{key}` is floating point with magnitudes up to {max(-least, most):.3g}"
        raise DataError(f"{given}; give pixels as uint8, or scale them to [-1, 1]")
    if least >= 0:
        logger.warning(
            "%s: `%s` is in [%.2g, %.2g]; pixels in [0, 1] must be scaled to [-1, 1]", name, key, least, most
        )


def check_labels(labels: Tensor, name: str) -> None:
    """Checks that labels are class indices `[N]`.

    Raises:
        DataError: they have another shape or type, or one is negative.
    """
    form = f"{list(labels.shape)} of {labels.dtype}"
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(f"{name}: `label` is {form}; expected class indices [N] as integers from 0")
    if len(labels) and labels.min() < 0:
        raise DataError(f"{name}: `label` has the value {int(labels.min())}; expected class indices from 0")


def as_source(data: Source | Mapping[str, Tensor] | Dataset[Batch]) -> Source:
    """Converts tensors by key, or a dataset of such items, to a source; a source is returned unchanged.

    Raises:
        DataError: the data have another type.
    """
    if isinstance(data, Source):
        return data
    if not isinstance(data, Mapping) and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        kind = type(data).__name__
        raise DataError(f"`data` is a {kind}; give tensors by key, or a dataset with `__getitem__` and `__len__`")
    return TensorSource(data) if isinstance(data, Mapping) else FixedSource(data, facts=_facts_of_items(data))


def _facts_of_items(dataset: Dataset[Batch]) -> Mapping[str, Any]:
    """Returns the facts that follow from a dataset's first item, without the number of classes."""
    first = named(dataset[0])
    return facts_of({key: value[None] for key, value in first.items() if key != "label" and isinstance(value, Tensor)})


def facts_of(tensors: Mapping[str, Tensor], classes: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns the facts that follow from tensors `[N, …]`: `shape`, `channels`, and `num_classes` and `classes`.

    The shape is that of an item of the first tensor that is not `label`. Where items have several parts,
    `PART_channels` are the channels of each.

    Raises:
        DataError: there are only labels.
    """
    shape = next((tuple(tensor.shape[1:]) for key, tensor in tensors.items() if key != "label"), None)
    if shape is None:
        raise DataError("the only key is `label`; give the labelled samples too")
    facts: dict[str, Any] = {"shape": shape} | ({"channels": shape[0]} if shape else {})
    parts = {key: tensor for key, tensor in tensors.items() if key != "label" and tensor.ndim > 2}
    if len(parts) > 1:
        facts |= {f"{key}_channels": tensor.shape[1] for key, tensor in parts.items()}
    if "label" in tensors:
        facts["num_classes"] = len(classes) if classes else int(tensors["label"].max()) + 1
        facts["classes"] = list(classes) if classes else [str(k) for k in range(facts["num_classes"])]
    return facts


LABELLED = "a folder with a sub-folder for each class (pairs: `Derived(…, labels=True)`)"
PAIRS = (
    "give `--data source=PATH --data target=PATH`, or in Python `Paired(source=a, target=b)` or "
    "`Derived(target, degrade)`"
)
PROVIDERS = {
    "label": f"give {LABELLED}",
    "source": PAIRS,
    "target": PAIRS,
    "mask": "give `--data image=PATH --data mask=PATH`, or in Python `Paired(image=a, mask=b)`",
}
"""Instruction in the error message for each missing key."""


def require_keys(source: Source, reads: Collection[str], title: str) -> None:
    """Checks that a source has the keys that a game reads.

    Args:
        source: the data.
        reads: keys that the game reads.
        title: the system's name.

    Raises:
        DataError: a key is missing; the message lists the source's keys and how to provide the missing one.
    """
    missing = next((key for key in reads if key not in source.keys), None)
    if missing is not None:
        have, wanted = (", ".join(f"`{key}`" for key in keys) for keys in (source.keys, reads))
        remedy = PROVIDERS.get(missing, f"give data whose items have `{missing}`")
        raise DataError(f"{source.name} has {have}, but {title} reads {wanted}; {remedy}")


def require_channels(item: Batch, spec: ImageSpec, pixels: Collection[str], name: str) -> None:
    """Checks that an item's images, which cannot be converted, have the number of channels of a specification.

    Args:
        item: an item.
        spec: form of the data that the game needs.
        pixels: keys of images.
        name: the source's name.

    Raises:
        DataError: an image has other channels.
    """
    for key in sorted(item.keys() & pixels):
        wanted = spec.channels.get(key) if isinstance(spec.channels, dict) else spec.channels
        if wanted is not None and item[key].ndim == 3 and len(item[key]) != wanted:
            given = f"{name}: `{key}` has {len(item[key])} channels, and the networks have {wanted}"
            raise DataError(f"{given}; convert the data, or set the networks' channels")


def require_classes(source: Source, num_classes: int | None, classes: Sequence[str] | None = None) -> None:
    """Checks that a source has the classes that the networks need.

    The names are compared only if the data and the model have at least one name in common. Data whose class names are
    all different are accepted.

    Args:
        source: the data.
        num_classes: number of classes of the networks; None if they have none.
        classes: names of the classes on which the networks were trained.

    Raises:
        DataError: the source has no labels, another number of classes, or classes in another order.
    """
    if num_classes is None:
        return
    have = source.facts.get("num_classes")
    if have is None:
        raise DataError(
            f"{source.name} has no labels, but the networks are conditioned on classes (`network.num_classes` is "
            f"{num_classes}); give {LABELLED}; there must be two or more"
        )
    if have != num_classes:
        raise DataError(
            f"{source.name} has {have} classes, but `network.num_classes` is {num_classes}; set it to {have}"
        )
    own = source.facts.get("classes", ())
    if classes is not None and list(own) != list(classes) and not set(own).isdisjoint(classes):
        raise DataError(
            f"{source.name} has the classes {', '.join(own)}, and the model {', '.join(classes)}; "
            "give data with the same classes in the same order"
        )


class Items(ABC):
    """Base class of items that are read by index and may be unreadable.

    Attributes:
        pixels: keys whose uint8 values are pixels.
        groups: group of each item, `[N]`; None if each item is a group of its own.
        memory: estimated size of all items after reading, in bytes.
        values: estimated number of values that are decoded to read all items.
    """

    pixels: frozenset[str]
    groups: Tensor | None = None
    memory: int
    values: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Batch:
        """Reads one item.

        Raises:
            Unreadable: the item is damaged.
        """


class DatasetItems(Items):
    """The items of a dataset, all of which can be read."""

    def __init__(self, dataset: Dataset[Batch]):
        self.dataset, self.pixels = dataset, pixels_of(dataset)
        self.groups = getattr(dataset, "groups", None)
        first = dataset[0]
        self.values = length(dataset) * sum(tensor.numel() for tensor in first.values())
        self.memory = length(dataset) * sum(tensor.numel() * tensor.element_size() for tensor in first.values())

    def __len__(self) -> int:
        return length(self.dataset)

    def read(self, index: int) -> Batch:
        return self.dataset[index]
