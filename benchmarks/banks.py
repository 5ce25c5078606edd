"""Memory banks as they stand in the middle of a run: filled in the order of time, the newest moments still pending."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from benchmarks.keys import HOUR_MS, KeyStream
from memory_store import BankConfig, MemoryBank, Metric, SearchResult
from memory_store.records import IndexKind

HORIZONS: Final = (1, 4, 24)
PRIMARY: Final = 2
EMBARGO_MS: Final = 48 * HOUR_MS
NEIGHBOURS: Final = 32
ENCODER: Final = "benchmark"
_TAKEN_EVERY: Final = 16
"""Appends between two takings of what changed, as a run does at every batch of bars."""


@dataclass(slots=True)
class RunningBank:
    """A bank that takes the moments of a stream one by one, each primary outcome settled 24 hours later."""

    stream: KeyStream
    capacity: int
    index: IndexKind = IndexKind.EXACT
    bank: MemoryBank = field(init=False)
    written: int = 0
    _settled: int = 0

    def __post_init__(self) -> None:
        self.bank = MemoryBank(
            bank_config(self.capacity, self.stream.keys.shape[1], self.index), encoder_version=ENCODER
        )

    @property
    def now(self) -> int:
        """Close of the bar written last, milliseconds."""
        return self.stream.bar_times[self.written - 1] + HOUR_MS

    def advance_to(self, written: int) -> None:
        """Write moments until so many of the stream were written. What changed is forgotten."""
        while self.written < written:
            self._append()
            self._settle()
            if self.written % _TAKEN_EVERY == 0:
                self.bank.take_changes()
        self.bank.take_changes()

    def timed_appends(self, count: int) -> list[float]:
        """Seconds of each of the next ``count`` appends; what matures meanwhile is settled untimed."""
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            self._append()
            seconds.append(time.perf_counter() - started)
            self._settle()
        self.bank.take_changes()
        return seconds

    def ask(self, query: int) -> SearchResult:
        """Ask for the nearest of moment ``query`` of the stream."""
        return self.bank.search(self.stream.keys[query], as_of=self.now, k=NEIGHBOURS)

    def timed_queries(self, queries: Sequence[int]) -> float:
        """Median seconds of a search."""
        seconds = []
        for query in queries:
            started = time.perf_counter()
            self.ask(query)
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def _append(self) -> None:
        place = self.written
        stream = self.stream
        self.bank.append(stream.keys[place], symbol=stream.symbols[place], bar_time=stream.bar_times[place])
        self.written = place + 1

    def _settle(self) -> None:
        times, horizon = self.stream.bar_times, HORIZONS[PRIMARY] * HOUR_MS
        while times[self._settled] + horizon <= times[self.written - 1]:
            known = times[self._settled] + horizon + HOUR_MS
            self.bank.settle(self._settled, PRIMARY, 1e-3 * (self._settled % 21 - 10), known)
            self._settled += 1


def bank_config(capacity: int, dimension: int, index: IndexKind) -> BankConfig:
    """The shape of the benchmarks' banks: the product's horizons and embargo."""
    return BankConfig(capacity, dimension, HORIZONS, PRIMARY, EMBARGO_MS, Metric.COSINE, index=index)


def recall(found: Sequence[SearchResult], exact: Sequence[SearchResult]) -> float:
    """Share of the nearest that were found, over all queries."""
    shared = sum(len(np.intersect1d(a.ids[a.mask], b.ids[b.mask])) for a, b in zip(found, exact, strict=True))
    return shared / sum(b.count for b in exact)
