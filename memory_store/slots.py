"""Which slot of the ring an entry has: counted where the oldest makes room, looked up where anyone may."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Protocol

import numpy as np

from memory_store.records import IntArray

_COMPACTED_LATE = 64
"""A table this small is not worth clearing out."""


class Slots(Protocol):
    """Where ids lie. What is said of an id that is not held is of no meaning: the ring compares the id that it finds."""

    def take(self, entry_id: int) -> int:
        """A free slot for the next entry."""

    def take_all(self, ids: IntArray) -> IntArray:
        """Free slots for entries of a ring that is being filled, ids increasing, ``[n]``."""

    def release(self, slot: int) -> None:
        """The slot's entry is gone."""

    def slot(self, entry_id: int) -> int:
        """Slot of an entry, if it is held."""

    def slots(self, ids: IntArray) -> IntArray:
        """Slots of those entries that are held, ``[n]``."""

    def since(self, first: int, next_id: int) -> tuple[IntArray, IntArray]:
        """Ids from one on, increasing, those held among them, and their slots."""

    def used(self, next_id: int) -> int:
        """Slots that may hold an entry: the first so many."""


class TurningSlots:
    """An entry's slot is its id modulo the capacity: for eviction of the oldest."""

    __slots__ = ("_capacity",)

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity

    def take(self, entry_id: int) -> int:
        return entry_id % self._capacity

    def take_all(self, ids: IntArray) -> IntArray:
        return ids % self._capacity

    def release(self, slot: int) -> None:
        """Nothing to keep: it waits for its turn."""

    def slot(self, entry_id: int) -> int:
        return entry_id % self._capacity

    def slots(self, ids: IntArray) -> IntArray:
        return ids % self._capacity

    def since(self, first: int, next_id: int) -> tuple[IntArray, IntArray]:
        ids = np.arange(max(first, next_id - self._capacity), next_id)
        return ids, ids % self._capacity

    def used(self, next_id: int) -> int:
        return min(next_id, self._capacity)


class FreeSlots:
    """Entries take whatever slot is free, and a table in the order of ids knows which: for any order of eviction.

    Entries that are gone stay in the table until they are an eighth of it, so that both adding and looking up are cheap.
    """

    __slots__ = ("_free", "_gone", "_ids", "_slots", "_used")

    def __init__(self) -> None:
        self._ids = array("q")
        self._slots = array("i")
        self._free = array("i")
        self._used = 0
        self._gone = 0

    def take(self, entry_id: int) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            slot = self._used
            self._used += 1
        self._ids.append(entry_id)
        self._slots.append(slot)
        return slot

    def take_all(self, ids: IntArray) -> IntArray:
        slots = np.arange(self._used, self._used + len(ids))
        self._ids.frombytes(ids.tobytes())
        self._slots.frombytes(slots.astype(np.int32).tobytes())
        self._used += len(ids)
        return slots

    def release(self, slot: int) -> None:
        self._free.append(slot)
        self._gone += 1
        if self._gone > _COMPACTED_LATE + len(self._ids) // 8:
            self._compact()

    def slot(self, entry_id: int) -> int:
        place = bisect_left(self._ids, entry_id)
        return self._slots[place] if place < len(self._ids) else 0

    def slots(self, ids: IntArray) -> IntArray:
        if not self._ids:
            return np.zeros(len(ids), dtype=np.int64)
        places = np.searchsorted(np.frombuffer(self._ids, dtype=np.int64), ids)
        places = np.minimum(places, len(self._ids) - 1)
        return np.frombuffer(self._slots, dtype=np.int32)[places].astype(np.int64)

    def since(self, first: int, next_id: int) -> tuple[IntArray, IntArray]:
        place = bisect_left(self._ids, first)
        ids = np.array(self._ids[place:], dtype=np.int64)
        return ids, np.array(self._slots[place:], dtype=np.int64)

    def used(self, next_id: int) -> int:
        return self._used

    def _compact(self) -> None:
        """Forget entries that are gone: the latest of every slot is the only one that may be there."""
        slots = np.frombuffer(self._slots, dtype=np.int32)
        latest = np.full(self._used, -1, dtype=np.int64)
        latest[slots] = np.arange(len(slots))
        latest[np.frombuffer(self._free, dtype=np.int32)] = -1
        kept = np.sort(latest[latest >= 0])
        ids = np.frombuffer(self._ids, dtype=np.int64)[kept].tobytes()
        held = slots[kept].tobytes()
        self._ids, self._slots, self._gone = array("q", ids), array("i", held), 0
