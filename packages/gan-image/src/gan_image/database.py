"""LMDB databases of images, the format in which LSUN is published; they are read in place."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path
from typing import IO, Any

from gan_core.data import files
from gan_core.data.files import Files, is_url, opening
from gan_core.errors import MissingDependency

DATABASE = "data.mdb"
"""Name of the file that marks a folder as an LMDB database."""


class DatabaseFiles:
    """The images of an LMDB database. Their names are the keys in hexadecimal.

    LMDB does not check its pages, so a maliciously damaged database can crash the process.

    Raises:
        MissingDependency: lmdb is not installed.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._begin(buffers=True) as transaction:
            sizes = {f"{bytes(key).hex()}.webp": len(value) for key, value in transaction.cursor()}
        self.sizes = dict(sorted(sizes.items()))

    def open(self, name: str) -> IO[bytes]:
        with self._begin() as transaction:
            return io.BytesIO(transaction.get(bytes.fromhex(name.removesuffix(".webp"))))

    def _begin(self, **options: Any) -> Any:
        return _database(self.path.resolve(), os.getpid()).begin(**options)


@cache
def _database(path: Path, process: int) -> Any:
    """Opens a database without its lock file, once per process as LMDB requires."""
    try:
        import lmdb
    except ImportError as error:
        raise MissingDependency(f"{path} needs lmdb: pip install gan-image[lsun]") from error
    try:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise OSError(str(error)) from error


def open_files(place: str | Path) -> Files:
    """Opens a folder, a zip or tar archive (local, or at a URL), or an LMDB database.

    Raises:
        DataError: there is no such folder, archive or database, or it cannot be read.
        MissingDependency: lmdb, which reads databases, or the library for the URL's protocol is not installed.
    """
    if is_url(place) or not (Path(place) / DATABASE).is_file():
        return files.open_files(place)
    with opening(place):
        return DatabaseFiles(Path(place))
