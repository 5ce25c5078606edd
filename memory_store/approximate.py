"""Nearly all nearest neighbours of a large bank, several times faster than all of them.

Entries are kept in the inverted lists of FAISS, one list per cell of a ``Partition``, and overwritten in place. A search
looks into the cells nearest to its query and finds the best of all visible entries there, exactly: the codes in the lists
are coarser than the keys, so what they propose is checked to be enough, and otherwise those cells are read in full. An
answer therefore depends on the cells, the keys and what is visible, and on nothing else: not on the order of writing, the
number of queries asked at once, or rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from memory_store.index import Candidates
from memory_store.partition import NO_CELL, Partition, fit_partition
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray
from memory_store.shortlist import shortlist
from memory_store.visibility import Bitmap, bitmap_of

FIRST_TRAINING: Final = 8192
"""Entries from which an index is worth having; until then a scan of all is as fast."""
_FEW: Final = 4096
"""Visible entries up to which all of them are read."""
_AT_ONCE: Final = 1024


def training_points(capacity: int) -> Iterator[int]:
    """The numbers of appended entries at which an index is trained anew and takes the place of the last one, without end.

    At ``FIRST_TRAINING``, then whenever the bank has doubled, then when it is full, and from then on whenever half of it has
    been replaced. A bank smaller than ``FIRST_TRAINING`` has none. The index of a bank that has been given ``n`` ids is the
    one trained on the keys held when the largest of these numbers that is not above ``n`` was reached.
    """
    if capacity < FIRST_TRAINING:
        return
    count = FIRST_TRAINING
    while count < capacity:
        yield count
        count *= 2
    count = capacity
    while True:
        yield count
        count += max(1, capacity // 2)


def trained_at(capacity: int, next_id: int) -> int | None:
    """The training point that the index of a bank with so many ids given stands at; ``None`` before the first."""
    reached = None
    for count in training_points(capacity):
        if count > next_id:
            break
        reached = count
    return reached


@dataclass(frozen=True, slots=True, eq=False)
class CellsLookedInto:
    """Where the answers to a block of queries were looked for. An entry that becomes visible later is one of them where it lies
    in these cells."""

    partition: Partition
    halvings: int
    """See ``Partition.halvings``."""
    cells: IntArray
    """``[n, p]`` of every query, then ``NO_CELL``."""

    def apply(self, partition: Partition | None, visible: int, k: int) -> bool:
        """Whether a query for ``k`` neighbours looks into the same cells now.

        Args:
            partition: the cells now, ``None`` where there are none.
            visible: entries that may be found now.
            k: neighbours wanted.
        """
        return (
            partition is self.partition and not reads_all(visible, k) and partition.halvings(visible) == self.halvings
        )

    def hold(self, rows: IntArray, keys: KeyArray) -> BoolArray:
        """Which keys ``[m, d]`` lie in the cells that the queries of these rows ``[m]`` look into."""
        cells = self.partition.assign(self.partition.centred(keys))
        inside: BoolArray = (self.cells[rows] == cells[:, None]).any(axis=1)
        return inside


def reads_all(visible: int, k: int) -> bool:
    """Whether so few entries are visible that a query for ``k`` neighbours reads all of them."""
    return visible <= max(_FEW, k)


class ApproximateIndex:
    """Slots of a bank in cells, searched a few cells at a time. For one thread.

    The lists follow what is visible: an entry enters the list of its cell when a search may first see it. Memory per listed
    slot: 1 byte per number of a key where keys have length one, otherwise 4, and 16 bytes more, plus what the growth of
    lists leaves unused.

    Args:
        keys: ``[slots, d]``, owned by the caller, who says what changes in it.
        partition: the cells.
        occupied: ``[n]`` slots that hold an entry now.
        unit: whether all keys have, and will have, length one.
    """

    def __init__(self, keys: KeyArray, partition: Partition, occupied: IntArray, *, unit: bool) -> None:
        self.partition = partition
        self._keys = keys
        # Imported here so that a memory that is searched exactly, which most are, does not load FAISS.
        from memory_store.cell_lists import make_lists

        self._lists = make_lists(keys, partition, unit=unit)
        self._changed: list[int] = []
        absent = np.ones(len(keys), dtype=np.bool_)
        absent[occupied] = False
        self._listed = bitmap_of(absent)
        """Slots that are in a list, with the key that they have."""
        self._lists.add(np.flatnonzero(~absent))

    @classmethod
    def trained(cls, keys: KeyArray, slots_in_id_order: IntArray, *, unit: bool) -> ApproximateIndex:
        """Learn cells from the entries held now, and put them in.

        Args:
            keys: as above.
            slots_in_id_order: ``[n]`` slots of all entries, oldest first: equal keys in this order give an equal partition,
                whatever their slots.
            unit: as above.
        """
        return cls(keys, fit_partition(keys[slots_in_id_order], unit=unit), slots_in_id_order, unit=unit)

    def write(self, slot: int) -> None:
        """Take note that the key of a slot has changed. The work is done by the next search that sees it."""
        self._changed.append(slot)
        if len(self._changed) >= _AT_ONCE:
            self._drop_changed()

    def candidates(
        self, hidden: BoolArray, bitmap: Bitmap | None, queries: KeyArray, k: int, margin: ScoreArray, visible: int
    ) -> Candidates:
        """For every query, slots among which its ``k`` nearest are, of the visible ones in the cells that it looks into.

        Where those cells hold fewer than ``k`` visible entries, or few are visible at all, slots among which the ``k``
        nearest of all visible ones are. So every query finds ``k`` unless fewer are visible.

        Args:
            hidden: ``[slots]``, True where a slot must not be found; True where there is no entry.
            bitmap: the same as a bitmap, where the caller has it; kept from search to search it saves a little.
            queries: ``[n, d]``.
            k: neighbours wanted.
            margin: ``[n]`` from ``scan_margin``.
            visible: how many slots are not hidden.
        """
        if reads_all(visible, k):
            shown = np.flatnonzero(~hidden)
            pairs = zip(queries, margin.tolist(), strict=True)
            return _joined([shortlist(self._keys, shown, query, k, error) for query, error in pairs])
        selected = self._follow(bitmap_of(hidden) if bitmap is None else bitmap)
        found: list[IntArray] = []
        for start in range(0, len(queries), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            some, error = queries[rows], margin[rows]
            cells = self.partition.looked_into(some, visible)
            for row, near in enumerate(self._found(some, cells, hidden, selected, k, error)):
                if near is None:
                    near = shortlist(self._keys, np.flatnonzero(~hidden), some[row], k, float(error[row]))
                found.append(near)
        return _joined(found)

    def propose(
        self, hidden: BoolArray, queries: KeyArray, k: int, margin: ScoreArray, visible: int
    ) -> tuple[Candidates, CellsLookedInto]:
        """The same for searches to come, with the cells that they look into; without those whose cells hold fewer than ``k``.

        Args:
            hidden: ``[slots]``, True where a slot must not be found.
            queries: ``[n, d]``.
            k: neighbours wanted.
            margin: ``[n]`` from ``scan_margin``.
            visible: how many slots the searches may choose from; more than ``_FEW``, and more than are not hidden.
        """
        selected = self._follow(bitmap_of(hidden))
        found: list[IntArray | None] = []
        looked_into: list[IntArray] = []
        for start in range(0, len(queries), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            looked_into.append(self.partition.looked_into(queries[rows], visible))
            found += self._found(queries[rows], looked_into[-1], hidden, selected, k, margin[rows])
        nothing = np.empty(0, dtype=np.int64)
        pairs = _joined([nothing if near is None else near for near in found])
        complete = np.array([near is not None for near in found])
        cells = CellsLookedInto(self.partition, self.partition.halvings(visible), _stacked(looked_into))
        return Candidates(pairs.rows, pairs.slots, complete), cells

    # -- what is in the lists ---------------------------------------------------------------------------------------

    def _follow(self, bitmap: Bitmap) -> Bitmap | None:
        """Put into the lists whatever is visible, and take out what is not, unless that is much.

        Returns:
            The bitmap, where the lists hold more than what is visible and FAISS must choose.
        """
        self._drop_changed()
        places = np.flatnonzero(self._listed != bitmap)
        if not len(places):
            return None
        listed, wanted = self._listed[places], bitmap[places]
        self._lists.add(_slots(places, wanted & ~listed))
        surplus = _slots(places, listed & ~wanted)
        if len(surplus) > max(_AT_ONCE, self._lists.size // 64):
            self._listed[places] = listed | wanted
            return bitmap
        for slot in surplus.tolist():
            self._lists.take_out(slot)
        self._listed[places] = wanted
        return None

    def _drop_changed(self) -> None:
        """Take slots with another key than before out of the lists."""
        for slot in self._changed:
            bit = 1 << (slot & 7)
            if self._listed[slot >> 3] & bit:
                self._lists.take_out(slot)
                self._listed[slot >> 3] &= 0xFF ^ bit
        self._changed.clear()

    # -- asking -----------------------------------------------------------------------------------------------------

    def _found(
        self,
        queries: KeyArray,
        cells: IntArray,
        hidden: BoolArray,
        selected: Bitmap | None,
        k: int,
        margin: ScoreArray,
    ) -> list[IntArray | None]:
        """What the coarse codes say is near in some cells, where that is enough, else what a scan of the cells' keys says.

        ``None`` where the cells of a query hold fewer than ``k`` visible entries.
        """
        found = self._lists.nearest(queries, cells, selected, k, margin)
        for row, near in enumerate(found):
            if near is None:
                found[row] = self._read(queries[row], cells[row], hidden, k, float(margin[row]))
        return found

    def _read(self, query: KeyArray, cells: IntArray, hidden: BoolArray, k: int, margin: float) -> IntArray | None:
        """The nearest by all keys in some cells, ``None`` where these hold too few."""
        within = np.concatenate([self._lists.slots_in(cell) for cell in cells[cells != NO_CELL].tolist()])
        within = within[~hidden[within]]
        return None if len(within) < k else shortlist(self._keys, within, query, k, margin)


def _slots(places: IntArray, bytes_there: Bitmap) -> IntArray:
    """Slots whose bits are set in some bytes of a bitmap."""
    if not bytes_there.any():
        return np.empty(0, dtype=np.int64)
    bits = np.flatnonzero(np.unpackbits(bytes_there, bitorder="little"))
    slots: IntArray = places[bits >> 3] * 8 + (bits & 7)
    return slots


def _stacked(parts: list[IntArray]) -> IntArray:
    """Rows of cells under each other, filled up with ``NO_CELL``."""
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=NO_CELL) for part in parts]
    return np.concatenate(padded)


def _joined(found: list[IntArray]) -> Candidates:
    """Slots of every query as pairs."""
    if len(found) == 1:
        return Candidates(np.zeros(len(found[0]), dtype=np.int64), found[0], np.ones(1, dtype=np.bool_))
    rows = np.repeat(np.arange(len(found)), [len(slots) for slots in found])
    slots = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    return Candidates(rows, slots, np.ones(len(found), dtype=np.bool_))
