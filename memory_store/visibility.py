"""Which slots a search may see, kept up to date instead of computed for every search.

Trading asks with a time that never runs backwards, so between two searches only a few slots change: those written, and
those whose outcome has become usable.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np
import numpy.typing as npt

from memory_store.records import BoolArray, IntArray

Bitmap = npt.NDArray[np.uint8]
"""One bit per slot, set where the slot is visible; slot ``s`` is bit ``s % 8`` of byte ``s // 8``, as FAISS reads it."""


def bitmap_of(hidden: BoolArray) -> Bitmap:
    """The bitmap that says the same as a mask of hidden slots."""
    return np.packbits(~hidden, bitorder="little")


class Visibility:
    """A mask and a bitmap of the slots visible at a time.

    A slot is visible at ``as_of`` if and only if ``visible_from[slot] <= as_of``. Searches in the order of time cost what
    has changed since the last one; a search at an earlier time than the last is answered from scratch and disturbs nothing.

    Args:
        visible_from: ``[slots]`` milliseconds, from when each slot is visible; the largest 64-bit number for never. It is
            kept and written to, not copied, so the owner of the slots may read it; nobody else may write.
    """

    __slots__ = ("_as_of", "_bitmap", "_coming", "_count", "_hidden", "_shown_bitmap", "_shown_hidden", "visible_from")

    def __init__(self, visible_from: IntArray) -> None:
        self.visible_from = visible_from
        self._as_of: int | None = None
        self._coming: list[tuple[int, int]] = []
        """Heap of (visible from, slot) of slots settled but not visible yet; stale where the slot says another time."""
        self._start(np.ones(len(visible_from), dtype=np.bool_))

    def write(self, slot: int) -> None:
        """Hide a slot: its entry is new and pending, or gone."""
        self.visible_from[slot] = _NEVER
        if not self._hidden[slot]:
            self._hide(slot)

    def settle(self, slot: int, visible_from: int) -> None:
        """Say from when the entry of a slot is visible, milliseconds."""
        self.visible_from[slot] = visible_from
        if self._as_of is None:
            return
        if visible_from > self._as_of:
            heappush(self._coming, (visible_from, slot))
            if not self._hidden[slot]:
                self._hide(slot)
        elif self._hidden[slot]:
            self._show(slot)

    def hidden(self, as_of: int) -> BoolArray:
        """``[slots]``, True where nothing may be seen at a time. Read-only, and valid until the next call of any method."""
        return self._shown_hidden if self._reach(as_of) else self.visible_from > as_of

    def bitmap(self, as_of: int) -> Bitmap:
        """``[ceil(slots / 8)]``, the same as a bitmap. Read-only, and valid until the next call of any method.

        As long as time does not run backwards it is the same array, so that what was built around it can be kept.
        """
        return self._shown_bitmap if self._reach(as_of) else bitmap_of(self.visible_from > as_of)

    def count(self, as_of: int) -> int:
        """How many slots are visible at a time."""
        return self._count if self._reach(as_of) else int(np.count_nonzero(self.visible_from <= as_of))

    def _reach(self, as_of: int) -> bool:
        """Bring the mask to a time, unless it is further already."""
        if self._as_of is None:
            hidden = self.visible_from > as_of
            coming = np.flatnonzero(hidden & (self.visible_from < _NEVER))
            self._coming = list(zip(self.visible_from[coming].tolist(), coming.tolist(), strict=True))
            heapify(self._coming)
            self._start(hidden)
            self._as_of = as_of
        elif as_of < self._as_of:
            return False
        self._as_of = as_of
        while self._coming and self._coming[0][0] <= as_of:
            time, slot = heappop(self._coming)
            if self._hidden[slot] and self.visible_from[slot] == time:
                self._show(slot)
        return True

    def _start(self, hidden: BoolArray) -> None:
        self._hidden = hidden
        self._bitmap = bitmap_of(hidden)
        self._count = len(hidden) - int(np.count_nonzero(hidden))
        self._shown_hidden, self._shown_bitmap = self._hidden.view(), self._bitmap.view()
        self._shown_hidden.flags.writeable = self._shown_bitmap.flags.writeable = False

    def _show(self, slot: int) -> None:
        self._hidden[slot] = False
        self._bitmap[slot >> 3] |= 1 << (slot & 7)
        self._count += 1

    def _hide(self, slot: int) -> None:
        self._hidden[slot] = True
        self._bitmap[slot >> 3] &= 0xFF ^ (1 << (slot & 7))
        self._count -= 1


_NEVER = np.iinfo(np.int64).max
