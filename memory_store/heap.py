"""A heap of pairs of whole numbers that takes 16 bytes for each."""

from __future__ import annotations

from array import array

import numpy as np

from memory_store.records import IntArray


class PairHeap:
    """The lowest of (rank, name) pairs at hand; ``heapq`` on two arrays, because tuples would take ten times the memory.

    Args:
        ranks: ``[n]`` to begin with.
        names: ``[n]``.
    """

    __slots__ = ("_names", "_ranks")

    def __init__(self, ranks: IntArray, names: IntArray) -> None:
        order = np.lexsort((names, ranks))
        self._ranks = array("q", ranks[order].tobytes())
        self._names = array("q", names[order].tobytes())

    def __len__(self) -> int:
        return len(self._ranks)

    def lowest(self) -> tuple[int, int]:
        """The lowest pair; there is one."""
        return self._ranks[0], self._names[0]

    def push(self, rank: int, name: int) -> None:
        """Add a pair."""
        ranks, names = self._ranks, self._names
        place = len(ranks)
        ranks.append(rank)
        names.append(name)
        while place:
            above = (place - 1) >> 1
            if (ranks[above], names[above]) <= (rank, name):
                break
            ranks[place], names[place] = ranks[above], names[above]
            place = above
        ranks[place], names[place] = rank, name

    def pop(self) -> None:
        """Take the lowest pair away."""
        rank, name = self._ranks.pop(), self._names.pop()
        if self._ranks:
            self.replace(rank, name)

    def replace(self, rank: int, name: int) -> None:
        """Put a pair in the place of the lowest."""
        ranks, names, count = self._ranks, self._names, len(self._ranks)
        place, below = 0, 1
        while below < count:
            other = below + 1
            if other < count and (
                ranks[other] < ranks[below] or (ranks[other] == ranks[below] and names[other] < names[below])
            ):
                below = other
            if rank < ranks[below] or (rank == ranks[below] and name <= names[below]):
                break
            ranks[place], names[place] = ranks[below], names[below]
            place, below = below, 2 * below + 1
        ranks[place], names[place] = rank, name
