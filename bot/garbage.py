"""Bulk work without the collector of reference cycles looking through its lists again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the collector look less often for a while.

    Replays and bulk writes keep hundreds of thousands of objects and make no cycles; looking through them took a tenth of
    a replay's time and half of a bulk write's. Cycles that a user's strategy makes are still found, only later.
    """
    earlier = gc.get_threshold()
    gc.set_threshold(200_000, 50, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*earlier)
