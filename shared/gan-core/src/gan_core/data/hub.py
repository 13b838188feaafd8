"""Hugging Face datasets as named sources: `hf:owner/name:split`, `hf:owner/name/config:split`.

A dataset is presented as an archive with one file per row, so that each domain's readers decode it with their own size
limits. The library `datasets` downloads and stores it; from version 4 it does not run code from a dataset's repository.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal

from gan_core.data.files import Files, Sizes
from gan_core.errors import DataError, InputError, MissingDependency, count, reason_of, unknown

PREFIX = "hf:"
KINDS = {"image": ("Image", ".png"), "audio": ("Audio", ".wav")}
"""Feature class of the column, and suffix of the file names, for each kind; decoders detect the real format."""

logger = logging.getLogger("gan_core")


class HubFiles:
    """A column of a dataset, presented as files that are named by row index: `000123.png`.

    A row holds the bytes of a file, or the path of a file that `datasets` has unpacked. Paths outside of `folders` are
    rejected.

    Args:
        column: a dataset in Arrow format with one column, whose values are structs with the fields `bytes` and `path`.
        suffix: suffix of the names, with its dot.
        folders: folders in which unpacked files may be.
    """

    def __init__(self, column: Any, suffix: str, folders: Sequence[Path]):
        self._column, self._folders = column, [os.path.abspath(folder) for folder in folders]
        width = max(6, len(str(len(column))))
        self._names = [f"{row:0{width}}{suffix}" for row in range(len(column))]

    @property
    def sizes(self) -> Mapping[str, int]:
        return Sizes(self._names, self._size)

    def open(self, name: str) -> IO[bytes]:
        content = self._value(name)
        return open(content, "rb") if isinstance(content, str) else io.BytesIO(content)

    def _size(self, name: str) -> int:
        try:
            content = self._value(name)
            return os.stat(content).st_size if isinstance(content, str) else len(content)
        except OSError:  # opening it says why
            return 0

    def _value(self, name: str) -> str | memoryview:
        """Returns the content of a row without copying it, or the path of its file.

        Raises:
            OSError: the row has neither content nor path, or the path is outside of the dataset's folders.
        """
        value = self._column[int(name.partition(".")[0])].column(0)[0]
        if value.is_valid and value["bytes"].is_valid:
            return memoryview(value["bytes"].as_buffer())
        path = value["path"].as_py() if value.is_valid else None
        if path is None:
            raise OSError("the row is empty")
        place = os.path.abspath(path)
        if not any(place.startswith(folder + os.sep) for folder in self._folders):
            raise OSError("its path is outside of the dataset's folders")
        return place


def is_hub_dataset(text: object) -> bool:
    """Returns whether a text names a Hugging Face dataset, `hf:…`; `hf://…` is a URL for `files.open_files`."""
    return isinstance(text, str) and text.startswith(PREFIX) and not text.startswith(f"{PREFIX}//")


def open_hub_dataset(text: str, *, kind: Literal["image", "audio"]) -> tuple[Files, list[int] | None, list[str] | None]:
    """Opens one split of a Hugging Face dataset; it is downloaded on first use.

    Args:
        text: `hf:owner/name:split` or `hf:owner/name/config:split`. Instead of `owner/name`, it may contain the path of
            a local folder that `datasets` can read, starting with `/`, `.` or `~`. The split is optional if there is
            only one. If several columns are of this kind, append the column: `hf:owner/name:split:column`.
        kind: kind of the items.

    Returns:
        The files; the class index of each file; and the names of the classes. The last two are None if the dataset has
        no class column, or if a row has no class.

    Raises:
        DataError: there is no such dataset, config, split or column, or the Hub cannot be reached.
        MissingDependency: `datasets` is not installed.
    """
    path, config, split, column = _parsed(text)
    library = _library(text, kind)
    dataset, home = _loaded(library, text, path, config, split)
    feature, suffix = KINDS[kind]
    columns = [name for name, each in dataset.features.items() if isinstance(each, getattr(library, feature))]
    if not columns:
        raise DataError(f"{text}: no column holds {kind}s; the columns are {', '.join(dataset.column_names)}")
    if column is None and len(columns) > 1:
        example = f"{text if split else f'{text}:{dataset.split}'}:{columns[0]}"
        raise DataError(f"{text}: several columns hold {kind}s ({', '.join(columns)}); append one, such as {example}")
    column = column or columns[0]
    if column not in columns:
        raise DataError(f"{text}: {unknown(f'column of {kind}s', column, columns)}")
    folders = [
        Path(home),
        *([Path(path)] if _is_local(path) else []),
        library.config.DOWNLOADED_DATASETS_PATH,
        library.config.EXTRACTED_DATASETS_PATH,
        Path(_hub().HF_HUB_CACHE),
    ]
    files = HubFiles(dataset.select_columns([column]).with_format("arrow"), suffix, folders)
    return (files, *_labels(library, dataset, text))


def _parsed(text: str) -> tuple[str, str | None, str | None, str | None]:
    """Returns the dataset or local folder, the config, the split and the column that a text names."""
    path, *rest = text.removeprefix(PREFIX).split(":")
    parts = path.split("/")
    if len(rest) > 2 or not all(rest) or not (_is_local(path) or (len(parts) in (2, 3) and all(parts))):
        raise DataError(f"{text}: expected hf:owner/name:split or hf:owner/name/config:split")
    split, column = (*rest, None, None)[:2]
    if _is_local(path):
        return os.path.abspath(os.path.expanduser(path)), None, split, column
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split, column


def _is_local(path: str) -> bool:
    return path.startswith(("/", ".", "~"))


def _library(text: str, kind: str) -> Any:
    """Imports `datasets`, with usage statistics disabled and progress bars enabled only in a terminal."""
    try:
        library = import_module("datasets")
    except ImportError as error:
        raise MissingDependency(f"{text} needs `datasets`: pip install gan-{kind}[hf]") from error
    library.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    _hub().HF_HUB_DISABLE_TELEMETRY = True
    if not sys.stderr.isatty():
        library.disable_progress_bars()
    return library


def _hub() -> Any:
    return import_module("huggingface_hub.constants")


def _loaded(library: Any, text: str, path: str, config: str | None, split: str | None) -> tuple[Any, str]:
    """Returns a split of a dataset, downloaded if necessary, and the folder in which `datasets` stores it."""
    try:
        with redirect_stdout(sys.stderr):
            builder = library.load_dataset_builder(path, config)
            _check_split(text, split, builder.info.splits)  # known before the download if the repository lists them
            builder.download_and_prepare()
        name = _check_split(text, split, builder.info.splits)
        return builder.as_dataset(name), builder.cache_dir
    except InputError:
        raise
    except FileNotFoundError as error:
        hint = "check the name, or run `hf auth login` if it is private"
        raise DataError(f"{text}: there is no such dataset ({reason_of(error)}); {hint}") from error
    except ConnectionError as error:
        raise DataError(f"{text}: the Hugging Face Hub cannot be reached ({reason_of(error)})") from error
    except Exception as error:  # also those of pyarrow, of network libraries, and DatasetsError
        cause = error.__cause__ or error  # "an error occurred while generating the dataset" says little
        failure = MissingDependency if isinstance(cause, ImportError) else DataError
        raise failure(f"{text}: cannot be opened ({reason_of(cause)})") from error


def _check_split(text: str, split: str | None, splits: Mapping[str, Any] | None) -> str | None:
    """Returns the split to open; `split` unchanged if the splits are not known yet.

    Raises:
        DataError: there is no such split, or `split` is None and there are several.
    """
    if not splits or split in splits:
        return split
    if split is not None:
        raise DataError(f"{text}: {unknown('split', split, splits)}")
    if len(splits) > 1:
        raise DataError(f"{text}: the splits are {', '.join(splits)}; append one, such as {text}:{next(iter(splits))}")
    return next(iter(splits))


def _labels(library: Any, dataset: Any, text: str) -> tuple[list[int] | None, list[str] | None]:
    """Returns the class index of each row and the names of the classes.

    If several columns hold classes, `label` is used, or else the first one. Both results are None if there is no such
    column, or if a row has no class.
    """
    columns = [name for name, each in dataset.features.items() if isinstance(each, library.ClassLabel)]
    if not columns:
        return None, None
    column = "label" if "label" in columns else columns[0]
    if len(columns) > 1:
        logger.warning("%s: several columns hold classes (%s); using `%s`", text, ", ".join(columns), column)
    labels = dataset.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    missing = sum(label is None or label < 0 for label in labels)
    if missing:
        logger.warning("%s: `%s` is missing in %s; labels are ignored", text, column, count(missing, "row"))
        return None, None
    return labels, list(dataset.features[column].names)
