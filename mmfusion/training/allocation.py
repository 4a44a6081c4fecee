"""Memory that is freed in one update is kept for the next."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
LARGEST = 32 * 1024 * 1024  # glibc refuses a larger MMAP_THRESHOLD


def keep_freed_memory() -> None:
    """Tells glibc to hold on to freed blocks; does nothing where the C library is another.

    By default every large tensor on a CPU is fetched from the kernel, page by page, and given back when it is freed:
    for small models that is up to half of the time of an update.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, LARGEST)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
