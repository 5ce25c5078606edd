"""A venue on a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from backtest.sandbox.venue import SandboxVenue

LONG_S = 20.0


@contextmanager
def threaded(venue: SandboxVenue) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Start a venue beside this thread; yields what runs a coroutine over there and waits for it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(LONG_S)

    try:
        run(venue.start())
        yield run
    finally:
        run(venue.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LONG_S)
        loop.close()
