"""Remote folders and archives, read in place through fsspec with the same limits as local ones.

Only the protocols in `PROTOCOLS` are supported. `file://` is rejected because local files are opened by path. fsspec's
chained URLs (`zip::…`, `simplecache::…`) and reference files are rejected because they can refer to any location, write
to a shared cache or evaluate templates. Nothing is cached on disk. Credentials come from each library's own settings
(environment, `~/.aws`, `hf auth login`). Web servers cannot list folders, so `http://` and `https://` support only
archives.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, Literal

from gan_core.data.limits import DAMAGED, MAX_UNPACKED, bounded
from gan_core.errors import DataError, InputError, MissingDependency, reason_of, unknown

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PROTOCOLS = {
    "memory": "fsspec",
    "http": "aiohttp",
    "https": "aiohttp",
    "hf": "huggingface_hub",
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}
"""Library that reads each protocol."""
BLOCK = 2**18
"""Size of the read buffer of a remote file, and maximum size of a file that is fetched in one request, in bytes."""


class RemoteFile:
    """A remote file with random access. Each process opens its own connection.

    Args:
        url: URL of the file, or of the folder that contains it.
        path: path of the file in the remote file system, if `url` is that of a folder.
        size: size in bytes; None asks the server.
    """

    def __init__(self, url: str, path: str | None = None, size: int | None = None):
        self.url, self.path, self.size = url, path, size
        self._file: Any = None
        self._process: int | None = None
        self._lock = Lock()

    def open(self, mode: Literal["rb"] = "rb", buffering: int = -1) -> IO[bytes]:
        return io.BufferedReader(_Raw(self), BLOCK if buffering < 0 else buffering)

    def read(self, start: int, count: int) -> bytes:
        """Returns `count` bytes from offset `start`, or fewer at the end of the file.

        Raises:
            OSError: the bytes cannot be fetched, or `count` is more than `MAX_UNPACKED`.
        """
        with _reached():
            if count > MAX_UNPACKED:
                raise OSError(f"a read of {count:,} bytes is more than the maximum of {MAX_UNPACKED:,}")
            with self._lock:
                file = self._handle()
                count = max(0, min(count, self.length() - start))
                file.seek(start)
                content: bytes = file.read(count) if count else b""
        if len(content) != count:
            raise OSError(f"the connection ended after {len(content):,} of {count:,} bytes")
        return content

    def length(self) -> int:
        """Returns the size in bytes.

        Raises:
            OSError: the server does not report it.
        """
        if self.size is None:
            with _reached():
                self.size = self._handle().size
        if self.size is None:
            raise OSError("the server does not report the size of the file")
        return self.size

    def _handle(self) -> Any:
        if self._file is None or self._process != os.getpid():
            system, path = _system(self.url)
            self._file, self._process = system.open(self.path or path, "rb", cache_type="none"), os.getpid()
        return self._file

    def __reduce__(self) -> tuple[type[RemoteFile], tuple[object, ...]]:
        return RemoteFile, (self.url, self.path, self.size)


class RemoteFiles:
    """The files below a remote folder. The listing is fetched once, on construction."""

    def __init__(self, url: str):
        self.url = url
        system, path = _system(url)
        with _reached():
            self._root = system.info(path)["name"].rstrip("/") + "/"
            found = [info for info in bounded(system.find(path, detail=True).values()) if self._below(info)]
        sizes = {info["name"].removeprefix(self._root): info["size"] for info in found}
        if None in sizes.values():
            raise OSError("the server does not report the sizes of its files")
        self.sizes: Mapping[str, int] = {name: sizes[name] for name in sorted(sizes)}

    def open(self, name: str) -> IO[bytes]:
        path, size = self._root + name, self.sizes[name]
        if size > BLOCK:
            return RemoteFile(self.url, path, size).open()
        with _reached():
            content = _system(self.url)[0].cat_file(path, start=0, end=size) if size else b""
        if len(content) != size:
            raise OSError(f"received {len(content):,} of {size:,} bytes")
        return io.BytesIO(content)

    def _below(self, info: Mapping[str, Any]) -> bool:
        name = info["name"]
        return bool(info["type"] == "file" and name.startswith(self._root) and not name.endswith("/"))


class _Raw(io.RawIOBase):
    """An unbuffered stream over a remote file."""

    def __init__(self, file: RemoteFile):
        self._remote, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._remote.length()}[whence]
        if start + offset < 0:
            raise OSError("cannot seek to a negative position")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = self._remote.read(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def readall(self) -> bytes:
        content = self._remote.read(self._position, self._remote.length() - self._position)
        self._position += len(content)
        return content


def locate(url: str) -> RemoteFile | RemoteFiles:
    """Opens a URL: returns `RemoteFiles` for a folder, otherwise a `RemoteFile`. No content is fetched yet.

    Raises:
        DataError: the protocol is not supported, or the URL is chained or contains a password.
        MissingDependency: the library for the protocol is not installed.
        OSError: there is nothing at the URL, or the server cannot be reached.
    """
    system, path = _system(url)
    with _reached():
        is_folder = system.info(path)["type"] == "directory"
    return RemoteFiles(url) if is_folder else RemoteFile(url)


def _system(url: str) -> tuple[AbstractFileSystem, str]:
    """Returns the file system of a URL and the path in it. fsspec caches the file system per process and thread."""
    protocol = url.partition("://")[0]
    if "::" in url:
        raise DataError(f"{url}: chained URLs are not supported; give the URL of the folder or archive itself")
    if protocol in ("file", "local"):
        raise DataError(f"{url}: `{protocol}://` is not supported; give the path of the local folder or archive")
    if protocol not in PROTOCOLS:
        raise DataError(f"{url}: {unknown('protocol', protocol, PROTOCOLS)}")
    if re.match(r"[^/]+//[^/@]*:[^/@]*@", url):
        raise DataError(
            f"{protocol}://…: a password in a URL would be written to recipes and logs; set it in the environment"
        )
    try:
        from fsspec.core import get_filesystem_class, url_to_fs

        get_filesystem_class(protocol)
    except ImportError as error:
        library = PROTOCOLS[protocol]
        package = "gan-core[remote]" if library in ("fsspec", "aiohttp") else library
        raise MissingDependency(f"{url} needs `{library}`: pip install {package}") from error
    with _reached():
        system, path = url_to_fs(url)
    return system, path


@contextmanager
def _reached() -> Iterator[None]:
    """Context manager that converts exceptions of network libraries to `OSError`, but not other errors."""
    try:
        yield
    except (InputError, *DAMAGED):
        raise
    except Exception as error:
        raise OSError(reason_of(error)) from error
