"""One thread for model arithmetic that decides.

The order in which a matrix product adds depends on how its work is split over threads. Decisions must be the same to the
last bit in replay, paper and live, so both ways through the encoder and the memory read run inside
:func:`one_thread`, whatever the process has set.

The setting belongs to the process: only one thread at a time may run models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, then give the process its setting back."""
    with thread_count(1):
        yield


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """Run torch on ``count`` threads, then give the process its setting back."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
