"""Memory banks as they stand in the middle of a run: filled in the order of time, the newest moments still pending."""

from __future__ import annotations

import statistics
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from benchmarks.keys import HOUR_MS, Keys, KeyStream
from memory_store import BankConfig, MemoryBank, Metric, SearchResult
from memory_store.records import IndexKind, IntArray
from memory_store.restoration import BankState
from memory_store.ring import NEVER, NOT_YET
from memory_store.vectors import prepare

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

    @classmethod
    def filled(cls, stream: KeyStream, capacity: int, written: int, index: IndexKind = IndexKind.EXACT) -> RunningBank:
        """The bank that ``advance_to`` would give, made in bulk."""
        running = cls(stream, capacity, index)
        running.bank.restore_state(_state(stream, capacity, written))
        running.written = written
        running._settled = _settled_count(stream, written)
        return running

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

    def ask_together(self, queries: Keys) -> IntArray:
        """Ids of the nearest of every query, ``[n, k]``: proposed in bulk, those that cannot be asked one by one."""
        proposal = self.bank.propose(queries, as_of=self.now, k=NEIGHBOURS)
        ids = proposal.ids
        for row in np.flatnonzero(~proposal.complete).tolist():
            ids[row] = self.bank.search(queries[row], as_of=self.now, k=NEIGHBOURS).ids
        return ids

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
            self.bank.settle(self._settled, PRIMARY, _outcome(self._settled), known)
            self._settled += 1


def _settled_count(stream: KeyStream, written: int) -> int:
    """How many moments have their primary outcome when so many were written."""
    return bisect_right(stream.bar_times, stream.bar_times[written - 1] - HORIZONS[PRIMARY] * HOUR_MS)


def _outcome(place: int) -> float:
    return 1e-3 * (place % 21 - 10)


def _state(stream: KeyStream, capacity: int, written: int) -> BankState:
    """Everything that a bank holds after so many moments."""
    held = range(max(0, written - capacity), written)
    times, symbols = stream.bar_times[held.start : held.stop], stream.symbols[held.start : held.stop]
    numbers = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbols))}
    settled = max(0, _settled_count(stream, written) - held.start)
    outcomes = np.full((len(held), len(HORIZONS)), np.nan)
    settled_times = np.full((len(held), len(HORIZONS)), NEVER, dtype=np.int64)
    outcomes[:settled, PRIMARY] = [_outcome(place) for place in held[:settled]]
    settled_times[:settled, PRIMARY] = np.array(times[:settled]) + (HORIZONS[PRIMARY] + 1) * HOUR_MS
    config = bank_config(capacity, stream.keys.shape[1], IndexKind.EXACT)
    return BankState(
        next_id=written,
        last_times=dict(zip(symbols, times, strict=True)),
        names=tuple(numbers),
        ids=np.arange(held.start, held.stop),
        symbols=np.array([numbers[symbol] for symbol in symbols], dtype=np.int32),
        bar_times=np.array(times),
        regimes=np.zeros(len(held), dtype=np.int32),
        keys=prepare(stream.keys[held.start : held.stop], config, "key")[0],
        outcomes=outcomes,
        settled_times=settled_times,
        novelties=np.zeros(len(held), dtype=np.float32),
        hits=np.zeros(len(held), dtype=np.int32),
        last_hits=np.full(len(held), NOT_YET, dtype=np.int64),
        credits=np.zeros(len(held), dtype=np.int64),
    )


def bank_config(capacity: int, dimension: int, index: IndexKind) -> BankConfig:
    """The shape of the benchmarks' banks: the product's horizons and embargo."""
    return BankConfig(capacity, dimension, HORIZONS, PRIMARY, EMBARGO_MS, Metric.COSINE, index=index)


def recall(found: Sequence[SearchResult], exact: Sequence[SearchResult]) -> float:
    """Share of the nearest that were found, over all queries."""
    shared = sum(len(np.intersect1d(a.ids[a.mask], b.ids[b.mask])) for a, b in zip(found, exact, strict=True))
    return shared / sum(b.count for b in exact)
