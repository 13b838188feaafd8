"""Hugging Face datasets as named sources: `hf:owner/name:split`, `hf:owner/name/config:split`.

A dataset is presented as the files of an archive, one per row, so that a domain's own readers decode them under its own
limits. The library `datasets` downloads and stores it; since version 4 it runs no code from a dataset's repository.
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

from gan_core.errors import DataError, InputError, MissingDependency, unknown
from gan_core.files import Files, Sizes, count, reason_of

PREFIX = "hf:"
KINDS = {"image": ("Image", ".png"), "audio": ("Audio", ".wav")}
"""The feature of the column that holds each kind, and the suffix of its rows' names; decoders judge by the content."""

logger = logging.getLogger("gan_core")


class HubFiles:
    """One column of a dataset as files named by their row: `000123.png`.

    A row holds bytes, or the path of a file that `datasets` has unpacked; any other path is refused.

    Args:
        column: an Arrow-formatted dataset of one column of structs `bytes`, `path`.
        suffix: of the names, with its dot.
        folders: where unpacked files may be.
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
        """The content of a row, which is not copied, or the path of its file.

        Raises:
            OSError: it has neither, or the path leads out of the dataset.
        """
        value = self._column[int(name.partition(".")[0])].column(0)[0]
        if value.is_valid and value["bytes"].is_valid:
            return memoryview(value["bytes"].as_buffer())
        path = value["path"].as_py() if value.is_valid else None
        if path is None:
            raise OSError("the row is empty")
        place = os.path.abspath(path)
        if not any(place.startswith(folder + os.sep) for folder in self._folders):
            raise OSError("its path leads out of the dataset")
        return place


def is_hub_dataset(text: object) -> bool:
    """Whether a text names a Hugging Face dataset (`hf://…` is a URL of files, for `gan_core.files.open_files`)."""
    return isinstance(text, str) and text.startswith(PREFIX) and not text.startswith(f"{PREFIX}//")


def open_hub_dataset(text: str, *, kind: Literal["image", "audio"]) -> tuple[Files, list[int] | None, list[str] | None]:
    """Opens one split of a dataset, which is downloaded at the first time.

    Args:
        text: `hf:owner/name:split` or `hf:owner/name/config:split`; a local folder that `datasets` reads may take the
            place of `owner/name` if it begins with `/`, `.` or `~`. The split may be left out if there is one. A
            dataset with several columns of the kind needs its name at the end: `hf:owner/name:split:column`.
        kind: of the items.

    Returns:
        The files; the class of each and the names of the classes, both None if it has none or some are unknown.

    Raises:
        DataError: there is no such dataset, config, split or column, or it cannot be reached.
        MissingDependency: `datasets` is not installed.
    """
    path, config, split, column = _parsed(text)
    library = _library(text, kind)
    dataset, home = _loaded(library, text, path, config, split)
    feature, suffix = KINDS[kind]
    columns = [name for name, each in dataset.features.items() if isinstance(each, getattr(library, feature))]
    if not columns:
        raise DataError(f"{text}: no column of {kind}s; its columns are {', '.join(dataset.column_names)}")
    if column is None and len(columns) > 1:
        example = f"{text if split else f'{text}:{dataset.split}'}:{columns[0]}"
        raise DataError(f"{text}: {', '.join(columns)} hold {kind}s; add one of them, such as {example}")
    column = column or columns[0]
    if column not in columns:
        raise DataError(f"{text}: {unknown(f'column of {kind}s', column, columns)}")
    folders = [Path(home), *([Path(path)] if _is_local(path) else []), library.config.DOWNLOADED_DATASETS_PATH,
               library.config.EXTRACTED_DATASETS_PATH, Path(_hub().HF_HUB_CACHE)]  # fmt: skip
    files = HubFiles(dataset.select_columns([column]).with_format("arrow"), suffix, folders)
    return (files, *_labels(library, dataset, text))


def _parsed(text: str) -> tuple[str, str | None, str | None, str | None]:
    """The dataset or local folder, config, split and column that a text names."""
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
    """The library `datasets`, which from here on sends no statistics and draws no bars into a log."""
    try:
        library = import_module("datasets")
    except ImportError as error:
        raise MissingDependency(f"{text}: needs datasets: pip install gan-{kind}[hf]") from error
    library.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    _hub().HF_HUB_DISABLE_TELEMETRY = True
    if not sys.stderr.isatty():
        library.disable_progress_bars()
    return library


def _hub() -> Any:
    return import_module("huggingface_hub.constants")


def _loaded(library: Any, text: str, path: str, config: str | None, split: str | None) -> tuple[Any, str]:
    """One split of a dataset, downloaded where needed, and the folder that `datasets` keeps it in."""
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
    """The split to open, among those that are known.

    Raises:
        DataError: there is no such split, or several and none is named.
    """
    if not splits or split in splits:
        return split
    if split is not None:
        raise DataError(f"{text}: {unknown('split', split, splits)}")
    if len(splits) > 1:
        raise DataError(f"{text}: has {', '.join(splits)}; give one of them, such as {text}:{next(iter(splits))}")
    return next(iter(splits))


def _labels(library: Any, dataset: Any, text: str) -> tuple[list[int] | None, list[str] | None]:
    """The class of each row and the names of the classes; of several columns of classes, `label` or the first."""
    columns = [name for name, each in dataset.features.items() if isinstance(each, library.ClassLabel)]
    if not columns:
        return None, None
    column = "label" if "label" in columns else columns[0]
    if len(columns) > 1:
        logger.warning("%s: %s hold classes; `%s` is used", text, ", ".join(columns), column)
    labels = dataset.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    missing = sum(label is None or label < 0 for label in labels)
    if missing:
        logger.warning("%s: `%s` is missing in %s, so none is labelled", text, column, count(missing, "row"))
        return None, None
    return labels, list(dataset.features[column].names)
