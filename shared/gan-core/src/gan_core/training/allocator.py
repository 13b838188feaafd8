"""Settings of the C library's memory allocator for training on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's `malloc.h`."""
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Lets the process keep up to 2 GiB of freed memory for reuse, on Linux with glibc.

    A training step frees memory that the next step allocates again. By default, glibc returns large freed blocks to the
    system, which causes a page fault for each page in the next step (`tools/dev.py bench overhead` measures the cost).
    The setting holds until the process ends. Nothing is changed if the user has set one of these limits in the
    environment, or if the process uses another allocator.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 2**25)  # the maximum that glibc accepts
