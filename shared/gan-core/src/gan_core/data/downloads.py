"""Downloads of named datasets, and the folder that holds them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from gan_core.errors import DataError

Loaded = TypeVar("Loaded")


def data_home() -> Path:
    """Returns the folder of downloads: the environment variable `GAN_DATA_HOME` (default: `~/.cache/gan-data`)."""
    return Path(os.environ.get("GAN_DATA_HOME") or "~/.cache/gan-data").expanduser()


def download(name: str, fetch: Callable[[], Loaded], *, files: str, folder: Path) -> Loaded:
    """Returns the result of a library's downloader, whose output is redirected to stderr.

    Args:
        name: name of the dataset.
        fetch: the downloader; it must download only files that are missing.
        files: names of the files that it looks for.
        folder: folder in which it looks for them.

    Raises:
        DataError: the download fails; the message says which files to download by hand and where to put them.
    """
    try:
        with redirect_stdout(sys.stderr):
            return fetch()
    except (OSError, RuntimeError, ImportError, HTTPException, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} cannot be downloaded; put {files} into {folder} by hand ({reason[:200]})") from error
