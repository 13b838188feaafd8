"""Paths as they are typed, and as they are shown to others. Does not import torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def expanded(path: str | Path) -> Path:
    """Returns a path with a leading `~` or `~user` replaced by the home folder; an unknown user's is unchanged."""
    return Path(os.path.expanduser(path))


def without_folders(place: str) -> str:
    """Returns a place without the folders of an absolute path or of a path in a home folder.

    `/data/me/fruits:train` becomes `fruits:train`. Names, relative paths and URLs are unchanged.
    """
    if "://" in place and not place.startswith("file:"):
        return place
    return ":".join(_last_part(part) for part in place.split(":"))


def name_of(place: str) -> str:
    """Returns a place without the folders of its path, absolute or relative: `photos/fruits:train` is `fruits:train`.

    Several places are joined by ` + `. URLs and Hugging Face datasets are unchanged.
    """
    return " + ".join(
        one if "://" in one or one.startswith("hf:") else re.sub(r"^[^:]*[/\\](?=[^/\\:])", "", one)
        for one in place.split(" + ")
    )


def all_without_folders(values: Any) -> Any:
    """Returns a value, or nested mappings and lists of values, with `without_folders` applied to every string."""
    if isinstance(values, Mapping):
        return {key: all_without_folders(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [all_without_folders(value) for value in values]
    return without_folders(values) if isinstance(values, str) else values


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] if path.startswith(("/", "\\", "~")) else path
