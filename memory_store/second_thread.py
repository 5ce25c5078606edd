"""A second thread that works ahead of the first, where there is a core for it.

What takes the time of a search is compiled or done by a library, and gives up the interpreter's lock: two threads of one
process have all in common then, and nothing has to travel between them.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, cast

T = TypeVar("T")


def has_second_core() -> bool:
    """Whether a second thread would have a core to itself.

    Not in a process that another one started: whoever works with many knows how many.
    """
    if multiprocessing.parent_process() is not None:
        return False
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores > 1


class Promise(Generic[T]):
    """Something that is found out once, by whoever gets to it first.

    Args:
        work: finds it out; it may touch nothing that others change meanwhile.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._found: T | None = None
        self._lock = threading.Lock()

    def result(self) -> T:
        """What was found out. It is done now if nobody has begun with it: that is sooner than to wait for who does."""
        with self._lock:
            if self._work is not None:
                self._found = self._work()
                self._work = None
            return cast(T, self._found)

    def drop(self) -> None:
        """Have it not done any more, or wait for who is at it. Nobody may ask for the result after that."""
        with self._lock:
            self._work = None


class SecondThread:
    """Does what it is told, one after the other."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def begin(self, work: Callable[[], T]) -> Promise[T]:
        """Have something done soon. What goes wrong goes wrong once more for whoever asks for the result."""
        promise = Promise(work)
        self._pool.submit(promise.result)
        return promise

    def close(self) -> None:
        """Wait for what is under way, and do nothing more."""
        self._pool.shutdown(cancel_futures=True)
