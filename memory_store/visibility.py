"""Which slots a search may see, kept up to date instead of computed for every search.

Trading asks with a time that never runs backwards, so between two searches only a few slots change: those written, and
those whose outcome has become usable. A look back is answered from scratch; whoever goes on from there is followed.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store.records import BoolArray, IntArray

Bitmap = npt.NDArray[np.uint8]
"""One bit per slot, set where the slot is visible; slot ``s`` is bit ``s % 8`` of byte ``s // 8``, as FAISS reads it."""
_NEVER: Final = np.iinfo(np.int64).max
_LOOKS_BACK: Final = 32
"""So many questions in a row about earlier times, and the mask goes back: going back costs about as much as they did."""
_SHOWN_SINGLY: Final = 2048
"""Where a step forward shows more slots than this, computing the mask anew is faster."""


def bitmap_of(hidden: BoolArray) -> Bitmap:
    """The bitmap that says the same as a mask of hidden slots."""
    return np.packbits(~hidden, bitorder="little")


class Visibility:
    """A mask and a bitmap of the slots visible at a time.

    A slot is visible at ``as_of`` if and only if ``visible_from[slot] <= as_of``. Searches in the order of time cost what
    has changed since the last one. A search at an earlier time is answered from scratch and disturbs nothing, unless many
    come in a row: then time has gone back, as after one question about the far future, and the mask follows.

    Args:
        visible_from: ``[slots]`` milliseconds, from when each slot is visible; the largest 64-bit number for never. It is
            kept and written to, not copied, so the owner of the slots may read it; nobody else may write.
    """

    __slots__ = (
        "_as_of",
        "_bitmap",
        "_coming",
        "_count",
        "_hidden",
        "_looks_back",
        "_shown_bitmap",
        "_shown_hidden",
        "visible_from",
    )

    def __init__(self, visible_from: IntArray) -> None:
        self.visible_from = visible_from
        self._as_of: int | None = None
        self._coming: list[tuple[int, int]] = []
        """Heap of (visible from, slot) of slots settled but not visible yet; stale where the slot says another time."""
        self._looks_back = 0
        """Questions about earlier times since the last about a later one."""
        self._hidden: BoolArray = np.ones(len(visible_from), dtype=np.bool_)
        self._bitmap = bitmap_of(self._hidden)
        self._count = 0
        self._shown_hidden, self._shown_bitmap = self._hidden.view(), self._bitmap.view()
        self._shown_hidden.flags.writeable = self._shown_bitmap.flags.writeable = False

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

        Except for a look back it is always the same array, so that what was built around it can be kept.
        """
        return self._shown_bitmap if self._reach(as_of) else bitmap_of(self.visible_from > as_of)

    def count(self, as_of: int) -> int:
        """How many slots are visible at a time."""
        return self._count if self._reach(as_of) else int(np.count_nonzero(self.visible_from <= as_of))

    def _reach(self, as_of: int) -> bool:
        """Bring the mask to a time, unless this looks back."""
        if self._as_of is not None and as_of < self._as_of:
            self._looks_back += 1
            if self._looks_back <= _LOOKS_BACK:
                return False
            self._start(as_of)
        elif self._as_of is None or not self._advance(as_of):
            self._start(as_of)
        self._as_of = as_of
        self._looks_back = 0
        return True

    def _advance(self, as_of: int) -> bool:
        """Show what has become visible by a time; ``False``, with the work half done, where it is too much for this way."""
        coming = self._coming
        for _ in range(_SHOWN_SINGLY):
            if not coming or coming[0][0] > as_of:
                return True
            time, slot = heappop(coming)
            if self._hidden[slot] and self.visible_from[slot] == time:
                self._show(slot)
        return False

    def _start(self, as_of: int) -> None:
        """Compute the mask of a time anew, in place."""
        np.greater(self.visible_from, as_of, out=self._hidden)
        self._bitmap[:] = bitmap_of(self._hidden)
        coming = np.flatnonzero(self._hidden & (self.visible_from < _NEVER))
        self._count = len(self._hidden) - int(np.count_nonzero(self._hidden))
        self._coming = list(zip(self.visible_from[coming].tolist(), coming.tolist(), strict=True))
        heapify(self._coming)

    def _show(self, slot: int) -> None:
        self._hidden[slot] = False
        self._bitmap[slot >> 3] |= 1 << (slot & 7)
        self._count += 1

    def _hide(self, slot: int) -> None:
        self._hidden[slot] = True
        self._bitmap[slot >> 3] &= 0xFF ^ (1 << (slot & 7))
        self._count -= 1
