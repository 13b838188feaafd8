"""Folders and archives of users' files: opening, listing, and classes and parts from the names of sub-folders."""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Generic, Literal, NamedTuple, TypeVar

from gan_core.data.files import (
    SNIFFED,
    FileKind,
    Files,
    FolderFiles,
    SubFolder,
    hidden,
    is_url,
    names_ending,
    nothing_readable,
    open_files,
    read_member,
    skip,
)
from gan_core.data.hub import is_hub_dataset, open_hub_dataset
from gan_core.data.limits import DAMAGED
from gan_core.errors import DataError, Unreadable, printable, unknown

LABELS_FILE = "dataset.json"
"""Name of the file with labels that StyleGAN's tools write."""
MAX_LABELS_BYTES = 2**28
"""Maximum size of that file in bytes."""
MAX_CLASSES = 2**20
"""Maximum number of classes in that file."""
MAX_SNIFFED = 100
"""Maximum number of files whose content is looked at because their suffix is unknown."""
TEXTS = frozenset({".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".xml", ".yaml", ".yml", ".html"})
"""Suffixes of texts that usually accompany data."""

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Folder names, in lower case, that name splits of a dataset and not classes."""

SOURCES = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "sources",
    "source",
    "inputs",
    "input",
    "A",
    "traina",
    "vala",
    "testa",
)

TARGETS = ("images", "image", "imgs", "img", "targets", "target", "outputs", "output", "B", "trainb", "valb", "testb")
"""Names of folders that usually contain the targets of pairs (above: the sources) instead of classes. Upper and lower
case match, except for `A` and `B`, because folders `a` and `b` may be classes."""

Header = TypeVar("Header")
"""Result of reading the header of a file: its size, its sample rate …"""

Labelled = tuple[Sequence[int] | None, Sequence[str] | None]
"""Class index of each item, and names of the classes; None for both if there are no classes."""

logger = logging.getLogger("gan_core")


class Opened(NamedTuple):
    """An opened folder, archive or Hugging Face dataset.

    Attributes:
        name: name of the source.
        files: its files.
        labelled: class index of each file and names of the classes; None if the sub-folders are the classes.
    """

    name: str
    files: Files
    labelled: Labelled | None = None


def open_place(
    place: str | Path,
    part: str | None,
    *,
    kind: Literal["image", "audio"],
    open_files: Callable[[str | Path], Files] = open_files,
) -> Opened:
    """Opens a folder, an archive (local, or at a URL), or a Hugging Face dataset.

    Args:
        place: a local path or a URL; or a Hugging Face dataset, `hf:OWNER/NAME:SPLIT`.
        part: name of a sub-folder to open instead; None opens everything.
        kind: kind of the items of a Hugging Face dataset.
        open_files: opens a path or a URL.

    Raises:
        DataError: there is no such folder, archive, dataset or sub-folder, or it cannot be read.
        MissingDependency: a library for the URL or for Hugging Face datasets is not installed.
    """
    if is_hub_dataset(place):
        files, labels, classes = open_hub_dataset(str(place), kind=kind)
        return Opened(str(place), files, (labels, classes))
    place = place if is_url(place) else Path(place)
    files = open_files(place)
    return Opened(str(place), files) if part is None else Opened(f"{place}:{part}", sub_folder(files, part, place))


@dataclass(frozen=True)
class Listing(Generic[Header]):
    """The readable files of one kind in a folder or archive.

    Attributes:
        names: names of the files, without those whose headers are known to be unreadable.
        headers: headers by file name, of all files or of a subset; see `list_files`.
        labels: class index of each file; None if there are no classes.
        classes: names of the classes.
        skipped: reasons by name of the files that could not be read.
        ignored: numbers of the other files, by suffix.
    """

    names: Sequence[str]
    headers: Mapping[str, Header]
    labels: Sequence[int] | None = None
    classes: Sequence[str] | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)


def list_files(
    opened: Opened,
    kind: FileKind,
    read_header: Callable[[Files, str], Header],
    *,
    strict: bool,
    max_headers: int | None = None,
) -> Listing[Header]:
    """Lists the files of one kind, and reads their headers to find unreadable files.

    Every file is either listed, or skipped with a warning if it is unreadable or seems to be of this kind but cannot be
    read, or counted as ignored. Hidden files are not counted.

    Args:
        opened: the folder or archive.
        kind: kind of the files.
        read_header: reads the header of a file; raises `Unreadable` if the file is damaged.
        strict: whether an unreadable file is an error.
        max_headers: maximum number of headers that are read. If there are more files, the headers of evenly spaced
            files are read (default: no maximum).

    Raises:
        DataError: no header is readable; or a file is unreadable and `strict` is set; or the sub-folders are splits of
            a dataset or parts of items, not classes.
    """
    name, files, labelled = opened
    names, seen = names_ending(files, kind.suffixes)
    headers: dict[str, Header] = {}
    skipped: dict[str, str] = {}
    for each in names[:: -(-len(names) // max_headers)] if max_headers and names else names:
        try:
            headers[each] = read_header(files, each)
        except Unreadable as error:
            skipped[each] = str(error)
    others = {} if len(names) == seen else other_files(files, kind)
    skipped |= {each: reason for each, reason in others.items() if reason}
    ignored = Counter(PurePosixPath(each).suffix.lower() for each, reason in others.items() if not reason)
    if not headers and not (strict and skipped):
        raise nothing_readable(name, seen, skipped, kind, ignored)
    kept = [each for each in names if each not in skipped]
    if labelled is None:
        in_file = labels_in_file(opened, kept)
        ignored -= Counter({".json": int(in_file is not None)})
        labelled = in_file or labels_of(name, names, kept, thing=kind.thing)
    elif (given := labelled[0]) is not None:
        labels = [label for each, label in zip(names, given, strict=True) if each not in skipped]
        labelled = labels, labelled[1]
    skip({}, skipped, where=name, thing=kind.thing, strict=strict)
    return Listing(kept, headers, *labelled, skipped, ignored)


def other_files(files: Files, kind: FileKind) -> dict[str, str]:
    """Returns the files without a suffix of a kind, and reasons why they cannot be read if they seem to be of it."""
    found: dict[str, str] = {}
    sniffed = 0
    for name in files.sizes:
        if hidden(name) or name.lower().endswith(kind.suffixes):
            continue
        found[name] = ""
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in kind.foreign:
            found[name] = f"{suffix} files cannot be read; convert it to {kind.convert}"
        elif kind.looks_like is not None and suffix not in TEXTS and sniffed < MAX_SNIFFED:
            sniffed += 1
            with suppress(Unreadable, *DAMAGED), files.open(name) as file:
                if kind.looks_like(file.read(SNIFFED)):
                    known = ", ".join(kind.suffixes[:4])
                    found[name] = f"looks like {kind.thing} data; rename it to end with {known} …"
    return found


def labels_in_file(opened: Opened, names: Sequence[str]) -> Labelled | None:
    """Returns the labels in `dataset.json` at the top of a folder or archive, as StyleGAN's tools write it.

    Its folders are then not classes. The classes are named by their numbers.

    Args:
        opened: the folder or archive.
        names: names of the files.

    Returns:
        The class indices and the names of the classes; None for both if the file contains no labels. None if there is
        no such file.

    Raises:
        DataError: the file is damaged, its labels are not class indices, or files have no label.
    """
    place = f"{_shared({_folder(name) for name in opened.files.sizes if not hidden(name)})}{LABELS_FILE}"
    if place not in opened.files.sizes:
        return None
    where = f"{opened.name}: {LABELS_FILE}"
    try:
        document = json.loads(read_member(opened.files, place, most_bytes=MAX_LABELS_BYTES))
        if not isinstance(document, dict) or "labels" not in document:
            return None  # another program's file
        pairs = document["labels"]
        labels = None if pairs is None else {str(name).replace("\\", "/"): label for name, label in pairs}
    except (Unreadable, ValueError, TypeError, RecursionError) as error:
        form = '{"labels": [[FILE, CLASS], …]}'
        raise DataError(f"{where}: damaged, or not of the form {form}; repair or remove it") from error
    if labels is None:
        return None, None
    start = _folder(place)
    found: list[int] = []
    for name in names:
        label = labels.get(name.removeprefix(start))
        if label is None:
            raise DataError(f"{where}: has no label for {printable(name)}; add it, or remove {LABELS_FILE}")
        if type(label) is not int or not 0 <= label < MAX_CLASSES:
            odd = f"the label of {printable(name)} is {printable(str(label)[:40])}"
            raise DataError(f"{where}: {odd}; expected an integer from 0 to {MAX_CLASSES - 1:,}")
        found.append(label)
    return found, [str(k) for k in range(max(found, default=-1) + 1)]


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorts names in natural order: `2` before `10`, `class2` before `Class10`."""
    return sorted(names, key=_natural)


def classes_of(names: Iterable[str]) -> dict[str, str] | None:
    """Returns the class of each folder: the first path component below the deepest folder that contains all files.

    Args:
        names: names of files.

    Returns:
        The class by folder (with a trailing slash); None if all files are in one folder, or if some are in the folder
        that contains the classes.
    """
    folders = {_folder(name) for name in names}
    shared = _shared(folders)
    if len(folders) < 2 or shared in folders:
        return None
    return {folder: folder[len(shared) :].partition("/")[0] for folder in folders}


def labels_of(place: str | Path, names: Sequence[str], kept: Sequence[str], *, thing: str) -> Labelled:
    """Returns the class of each kept file as a number, and the names of the classes in natural order.

    If some files are in the folder that contains the classes, there are no classes, and a warning is logged.

    Args:
        place: the folder or archive, for messages.
        names: names of all files of the kind, readable or not.
        kept: names of the readable files.
        thing: name of a file in messages, in the singular.

    Returns:
        The class indices and the names of the classes; None for both if there are no classes.

    Raises:
        DataError: the sub-folders are splits of a dataset or parts of items, not classes.
    """
    of_folder = classes_of(names)
    if of_folder is None:
        if len({_folder(name) for name in names}) > 1:
            logger.warning("%s: %ss are both in the folder and in its sub-folders; labels are ignored", place, thing)
        return None, None
    classes = natural_order(set(of_folder.values()))
    _refuse_parts(place, classes)
    number = {name: k for k, name in enumerate(classes)}
    return [number[of_folder[_folder(name)]] for name in kept], [printable(name) for name in classes]


def split_part(text: str) -> tuple[str, str | None]:
    """Splits `PATH:part`, `URL:part` or `NAME:part` into the location and the part, which is None if it is missing."""
    if not is_url(text) and Path(text).exists():
        return text, None
    host = re.match(r"https?://[^/]*", text)  # a port is no part
    colon = text.rfind(":", host.end() if host else text.find("://") + 3 if is_url(text) else 2)  # nor is a drive
    return (text, None) if colon < 0 or colon == len(text) - 1 else (text[:colon], text[colon + 1 :])


def parts_of(files: Files) -> dict[str, str]:
    """Returns the sub-folders that can be opened as parts: their paths by name, in natural order.

    They are the first folders below the deepest folder that contains all files, because archives often wrap everything
    in one folder.
    """
    folders = {_folder(name) for name in files.sizes if not hidden(name)} - {""}
    shared = _shared(folders) if len(folders) > 1 else ""
    found = {rest.partition("/")[0] for folder in folders if (rest := folder[len(shared) :])}
    return {name: shared + name for name in natural_order(found)}


def sub_folder(files: Files, part: str, place: str | Path) -> Files:
    """Opens a sub-folder of a folder or archive: `train`, `masks`, `photos/train`.

    Args:
        files: the folder or archive.
        part: a name among `parts_of(files)`, or a path from the top.
        place: the folder or archive, for messages.

    Raises:
        DataError: there is no such sub-folder.
    """
    parts = parts_of(files)
    folder = parts.get(part, part.strip("/"))
    if not folder or not any(name.startswith(f"{folder}/") for name in files.sizes):
        raise DataError(f"{place}: {unknown('part', part, parts)}")
    return FolderFiles(files.path / folder) if isinstance(files, FolderFiles) else SubFolder(files, folder)


def _folder(name: str) -> str:
    """Returns the folder of a file with a trailing slash; empty for a file at the top level."""
    return name[: name.rfind("/") + 1]


def _shared(folders: Collection[str]) -> str:
    """Returns the deepest folder that contains all folders; all with a trailing slash."""
    first, last = min(folders, default=""), max(folders, default="")  # a prefix of these two is one of all
    same = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return _folder(first[:same])


def _natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Returns the sorting key of `natural_order`: alternating text and numbers, then the name itself."""
    pieces = re.split("([0-9]+)", name.casefold())
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    key: list[str | tuple[int, str]] = [*pieces]
    key[1::2] = [(len(digits), digits) for digits in numbers]  # as numbers compare, of any length
    return key, name


def _refuse_parts(place: str | Path, folders: Sequence[str]) -> None:
    """Checks that the names of sub-folders can be class names.

    Raises:
        DataError: they are splits of a dataset or parts of items.
    """
    listed = ", ".join(map(printable, folders))
    if SPLITS.issuperset(name.lower() for name in folders):
        first = next((name for name in folders if name.lower().startswith("train")), folders[0])
        raise DataError(
            f"{place}: {listed} are splits of a dataset, not classes; give one of them, such as {place}:{first}"
        )
    known = {name if len(name) == 1 else name.lower(): name for name in folders}
    if known.keys() <= {*SOURCES, *TARGETS}:
        source, *others = (known[name] for name in (*SOURCES, *TARGETS) if name in known)
        target = next((known[name] for name in TARGETS if known.get(name) in others), others[0])
        start = f"{place}/" if Path(place, source).is_dir() else f"{place}:"
        one = shlex.quote(start + source)
        advice = f"--data source={one} --data target={shlex.quote(start + target)}, or one of them alone, --data {one}"
        raise DataError(f"{place}: {listed} are parts of each item, not classes; give them as {advice}")
