"""Memory that a training frees and asks for again in every step, kept by the process meanwhile.

A step frees tensors of some megabytes by the dozen. Given back to the system, each costs a page fault for every 4 kB of it when
it is asked for again: of a step of 1,024 samples about a sixth.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_TRIM_THRESHOLD: Final = -1  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h, see mallopt(3)
_MMAP_THRESHOLD: Final = -3
_LARGEST_BLOCK: Final = 32 << 20
"""Blocks below it come from the heap: the most that glibc comes to by itself, once it has seen such a block freed."""
_KEPT: Final = 512 << 20
"""Bytes free at the end of the heap that are not given back."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let the process keep what it frees, then give it back. Where the C library is not glibc nothing changes.

    The setting belongs to the process. What was set before cannot be asked for: afterwards it is what glibc comes to by itself
    when a block of 32 MiB is freed.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    libc.mallopt(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK)
        libc.malloc_trim(0)
