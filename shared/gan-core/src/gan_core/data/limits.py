"""Limits of what is read from folders and archives, and exceptions that damaged content raises."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

MAX_FILES = 2**25
"""Maximum number of files in a folder or archive."""

MAX_UNPACKED = 2**31
"""Maximum size of the content of a compressed tar archive, and of a single remote read, in bytes."""

MAX_RATIO = 100
"""Maximum size of the content of a large compressed tar archive, in multiples of the archive's size. Compressed media
shrink little, uncompressed media and texts about tenfold."""

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
"""Exceptions that archive readers and decoders raise on damaged content."""


def bounded(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the items of a listing after checking their number.

    Raises:
        ValueError: there are more than `MAX_FILES`.
    """
    for number, item in enumerate(items):
        if number >= MAX_FILES:
            raise ValueError(f"it contains more than {MAX_FILES:,} files; split it")
        yield item
