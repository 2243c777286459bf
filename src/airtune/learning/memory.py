"""How this process treats memory that it has freed."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, glibc's malloc.h
_LARGE = 1 << 30


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step instead of handing it back.

    Each step allocates and frees the same activations; by default glibc maps blocks of some
    megabytes anew every time, and the kernel fills each of their pages with zeros. Where the C
    library is another one, nothing happens.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            # Before 2.35 glibc allows 32 MiB at most; the second setting alone would do harm.
            if library.mallopt(_MMAP_THRESHOLD, _LARGE) or library.mallopt(
                _MMAP_THRESHOLD, 1 << 25
            ):
                library.mallopt(_TRIM_THRESHOLD, _LARGE)
