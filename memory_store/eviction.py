"""Who makes room: the oldest, the least important, or the least important of the most crowded regime.

The importance of an entry is ``1 + novelty + |primary outcome| + max(0, credit)``, the latter two in outcome scales: it
is high for what was unlike everything before, for what had large consequences, and for what proved useful. Pending
outcomes count as 0. It becomes a *priority* in milliseconds,

    priority = bar_time + half_life * log2(importance),

by which entries are kept. All priorities age alike, so their order changes only where an importance does ("forward
decay": Cormode, Shkapenyuk, Srivastava, Xu, ICDE 2009), and an entry of double importance stays one half-life longer.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from heapq import heappop, heappush
from math import log2
from typing import Final, Protocol

import numpy as np

from memory_store.credit import LARGEST_OUTCOME, UNITS, credit_in_scales
from memory_store.heap import PairHeap
from memory_store.records import Eviction, IntArray
from memory_store.ring import EMPTY, Ring

_LIMIT: Final = 2**62
"""Priorities beyond it are equal to it."""
_REBUILT_LATE: Final = 64
"""A heap this small is not worth tidying up."""


def importance(novelty: float, outcome: float, credit: int, outcome_scale: float) -> float:
    """What an entry is worth keeping for, at least 1.

    Args:
        novelty: one minus the best similarity that its own bar found; less than 0 counts as 0.
        outcome: over the primary horizon, nan while pending; beyond ``LARGEST_OUTCOME`` scales it counts as that many.
        credit: in units; less than 0 counts as 0.
        outcome_scale: size of an ordinary outcome.
    """
    size = 0.0 if outcome != outcome else min(abs(outcome), LARGEST_OUTCOME * outcome_scale) / outcome_scale
    return 1.0 + min(max(novelty, 0.0), LARGEST_OUTCOME) + size + credit_in_scales(max(credit, 0))


def priority(bar_time: int, importance: float, half_life_ms: int) -> int:
    """The time until which an entry counts as fresh, milliseconds; the lowest leaves first."""
    return max(-_LIMIT, min(_LIMIT, bar_time + round(min(half_life_ms * log2(importance), _LIMIT))))


class Evictor(Protocol):
    """Chooses who leaves. The choice depends on the entries held alone, not on how they came."""

    def due(self, entry_id: int, regime: int) -> int | None:
        """The entry that must leave before this one, the next, is written; ``None`` if there is room."""

    def added(self, slot: int) -> None:
        """An entry was written."""

    def changed(self, slots: Iterable[int]) -> None:
        """The importance of these entries may be another."""

    def removing(self, slot: int) -> None:
        """An entry is about to leave."""


def make_evictor(ring: Ring) -> Evictor:
    """The evictor that the config names, for the entries that the ring holds."""
    return Oldest(ring) if ring.config.eviction is Eviction.FIFO else LeastImportant(ring)


class Oldest:
    """First in, first out: an entry leaves when as many as the capacity have come after it.

    Invariant: the ids held are among the last ``capacity`` given. Pruning leaves gaps; they fill as the ring turns.
    """

    __slots__ = ("_capacity", "_ring")

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._capacity = ring.config.capacity

    def due(self, entry_id: int, regime: int) -> int | None:
        leaving = entry_id - self._capacity
        return leaving if self._ring.holds(leaving) else None

    def added(self, slot: int) -> None:
        """Age is all that counts."""

    def changed(self, slots: Iterable[int]) -> None:
        """Age is all that counts."""

    def removing(self, slot: int) -> None:
        """Age is all that counts."""


class LeastImportant:
    """At capacity the entry of lowest (priority, id) leaves: of all, or under ``RESERVOIR`` of the largest regime.

    The largest regime is the one with most entries, the one about to be written counted, equal ones in the order of
    labels. The entry about to be written is never the one to leave.

    Invariants: no entry held (of the same regime) has a lower (priority, id) than the one that leaves; and under
    ``RESERVOIR`` a regime that holds no more than capacity / (number of regimes, the newcomer's included) entries never gets
    smaller: it loses one only to a newcomer of its own. So a flood of quiet moments does not displace the last crash.

    Every group has a heap of (priority, id) in which at least one pair per entry is not above its true place. A pair found
    too low is put right when it comes up; one found too high, or of an entry that is gone, is dropped.
    """

    __slots__ = ("_counts", "_heaps", "_priorities", "_ring", "_sizes", "_total")

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._priorities = array("q", bytes(8 * ring.config.capacity))
        self._heaps: dict[int, PairHeap] = {}
        self._counts: dict[int, int] = {}
        self._sizes: list[tuple[int, int]] = []
        """Heap of (-count, group); only items that agree with the counts mean anything."""
        self._total = 0
        occupied = np.flatnonzero(ring.ids[: ring.config.capacity] != EMPTY)
        np.frombuffer(self._priorities, dtype=np.int64)[occupied] = self._priorities_of(occupied)
        self._total = len(occupied)
        groups = self._groups(occupied)
        for group in np.unique(groups).tolist():
            members = occupied[groups == group]
            self._counts[group] = len(members)
            self._rebuild(group, members)
        self._rebuild_sizes()

    def due(self, entry_id: int, regime: int) -> int | None:
        if self._total < self._ring.config.capacity:
            return None
        return self._lowest(self._largest(self._group(regime)))

    def added(self, slot: int) -> None:
        group = self._group(int(self._ring.regimes[slot]))
        self._priorities[slot] = self._priority(slot)
        self._total += 1
        self._count(group, 1)
        self._push(group, slot)

    def changed(self, slots: Iterable[int]) -> None:
        for slot in slots:
            before = self._priorities[slot]
            after = self._priorities[slot] = self._priority(slot)
            if after < before:
                self._push(self._group(int(self._ring.regimes[slot])), slot)

    def removing(self, slot: int) -> None:
        self._total -= 1
        self._count(self._group(int(self._ring.regimes[slot])), -1)

    def _priority(self, slot: int) -> int:
        ring, config = self._ring, self._ring.config
        outcome = float(ring.outcomes[slot, config.primary])
        worth = importance(float(ring.novelties[slot]), outcome, int(ring.credits[slot]), config.outcome_scale)
        return priority(int(ring.bar_times[slot]), worth, config.half_life_ms)

    def _priorities_of(self, slots: IntArray) -> IntArray:
        """The same for many, with the same bits."""
        ring, config = self._ring, self._ring.config
        novelties = np.clip(ring.novelties[slots].astype(np.float64), 0.0, LARGEST_OUTCOME)
        outcomes = np.abs(ring.outcomes[slots, config.primary])
        sizes = np.minimum(outcomes, LARGEST_OUTCOME * config.outcome_scale) / config.outcome_scale
        credits = np.maximum(ring.credits[slots], 0) / UNITS
        worth = 1.0 + novelties + np.nan_to_num(sizes) + credits
        # One by one, because the last bit of NumPy's own may depend on how many are asked at once.
        folds = np.array([log2(each) for each in worth.tolist()])
        rounded = np.rint(np.minimum(config.half_life_ms * folds, _LIMIT)).astype(np.int64)
        priorities: IntArray = np.clip(ring.bar_times[slots] + rounded, -_LIMIT, _LIMIT)
        return priorities

    def _group(self, regime: int) -> int:
        return regime if self._ring.config.eviction is Eviction.RESERVOIR else 0

    def _groups(self, slots: IntArray) -> IntArray:
        reservoir = self._ring.config.eviction is Eviction.RESERVOIR
        return self._ring.regimes[slots].astype(np.int64) if reservoir else np.zeros(len(slots), dtype=np.int64)

    # -- groups ---------------------------------------------------------------------------------------------------------

    def _largest(self, newcomer: int) -> int:
        """The group with most entries, one more counted for the newcomer's, among those that have any."""
        sizes = self._sizes
        while self._counts.get(sizes[0][1]) != -sizes[0][0]:
            heappop(sizes)
        held = self._counts.get(newcomer, 0)
        return min(sizes[0], (-(held + 1), newcomer))[1] if held else sizes[0][1]

    def _count(self, group: int, change: int) -> None:
        count = self._counts.get(group, 0) + change
        if count:
            self._counts[group] = count
            heappush(self._sizes, (-count, group))
        else:
            del self._counts[group], self._heaps[group]
        if len(self._sizes) > _REBUILT_LATE + 4 * len(self._counts):
            self._rebuild_sizes()

    def _rebuild_sizes(self) -> None:
        self._sizes = sorted((-count, group) for group, count in self._counts.items())

    # -- entries of a group -----------------------------------------------------------------------------------------------

    def _push(self, group: int, slot: int) -> None:
        heap = self._heaps.get(group)
        if heap is None:
            self._rebuild(group, np.array([slot]))
            return
        heap.push(self._priorities[slot], int(self._ring.ids[slot]))
        if len(heap) > _REBUILT_LATE + self._counts[group] + self._counts[group] // 8:
            held = self._ring.ids[: self._ring.config.capacity] != EMPTY
            if self._ring.config.eviction is Eviction.RESERVOIR:
                held &= self._ring.regimes[: len(held)] == group
            self._rebuild(group, np.flatnonzero(held))

    def _rebuild(self, group: int, slots: IntArray) -> None:
        priorities = np.frombuffer(self._priorities, dtype=np.int64)[slots]
        self._heaps[group] = PairHeap(priorities, self._ring.ids[slots])

    def _lowest(self, group: int) -> int:
        heap = self._heaps[group]
        while True:
            listed, entry_id = heap.lowest()
            slot = self._ring.find(entry_id)
            if slot is None or listed > self._priorities[slot]:
                heap.pop()
            elif listed < self._priorities[slot]:
                heap.replace(self._priorities[slot], entry_id)
            else:
                return entry_id
