"""The lock of a run, which keeps a second process from training it. Does not import torch.

The process that trains a run holds a lock on the file `.lock` in its folder, which contains the process id and the
host. The system releases the lock when the process ends in any way. On file systems without locks, a warning is logged.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gan_core.errors import InputError, printable, writing

LOCK = ".lock"
"""Name of the file that is locked."""
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""errno values of file systems without locks."""
FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

logger = logging.getLogger("gan_core")

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # a locked byte cannot be read, so it is one beyond the content
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def owning(folder: Path) -> Iterator[None]:
    """Context manager that holds the lock of a run.

    Args:
        folder: the run folder, which exists.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.
    """
    handle = _take(folder, os.O_CREAT)
    _held.add(handle)
    try:
        with suppress(OSError):  # the content is only for the message
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
        yield
    finally:
        if handle in _held:  # unlike in a forked process
            with suppress(OSError):
                (folder / LOCK).unlink()
            _held.remove(handle)
            os.close(handle)


def check_unowned(folder: Path) -> None:
    """Checks that no process holds the lock of a run, without creating the file.

    Raises:
        InputError: a process holds it.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        os.close(_take(folder))


def _take(folder: Path, create: int = 0) -> int:
    """Opens and locks the file.

    Raises:
        FileNotFoundError: it does not exist, and `create` is 0.
        InputError: another process holds the lock, or the file cannot be opened.
    """
    path = folder / LOCK
    while True:
        handle = _open(path, create)
        try:
            _lock(handle)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
            os.close(handle)  # its owner has removed it since it was opened
        except (BlockingIOError, PermissionError) as error:
            owner = _owner(handle)
            os.close(handle)
            raise InputError(f"{folder}: is being trained by {owner}; wait until it ends, or stop it") from error
        except FileNotFoundError:
            os.close(handle)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                os.close(handle)
                raise InputError(f"{path}: cannot be locked ({error.strerror})") from error
            logger.warning("%s: its file system has no locks; train it in one process at a time", folder)
            return handle


def _open(path: Path, create: int) -> int:
    try:
        return os.open(path, FLAGS | create, 0o666)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not create:
            raise
        with writing(path):
            raise


def _owner(handle: int) -> str:
    """Returns the process and the host in a lock file."""
    with suppress(OSError):
        process, _, host = os.read(handle, 300).decode("utf-8", "replace").strip().partition(" ")
        if process.isdecimal() and host:
            return f"process {process} on {printable(host)}"
    return "another process"


_held: set[int] = set()
"""File descriptors of the locks that this process holds."""


def _close_inherited() -> None:
    """Closes the locks in a forked process, such as one that reads data, so that it cannot outlive their owner."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
