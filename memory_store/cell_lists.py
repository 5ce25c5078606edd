"""The inverted lists of FAISS: slots and coarse copies of their keys, cell by cell, changed in place."""

from __future__ import annotations

import itertools
import math
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from memory_store.index import scan_margin
from memory_store.partition import Partition
from memory_store.records import IntArray, KeyArray
from memory_store.visibility import Bitmap

# Their constructors in Python take more than their declarations say.
_search_parameters: Any = faiss.SearchParametersIVF
_bitmap_selector: Any = faiss.IDSelectorBitmap
_HALF_ROUNDOFF: Final = 2.0**-11
_HALF_SMALLEST: Final = 2.0**-24
_LARGEST_SCALE: Final = 2.0**14
"""Unit keys are at most 2 away from their mean, and half precision ends at 65,504."""
_NOWHERE: Final = -1
_ROWS: Final = 16384


class CellLists:
    """Lists of slots, one per cell, that FAISS can search.

    Of its index type only the lists and their scan are used: which cell a key belongs to, and which cells a query looks
    into, is decided by the partition. None of the calls used here starts a thread.

    Args:
        keys: ``[slots, d]``, owned by the caller.
        partition: the cells.
        unit: whether all keys have, and will have, length one; they are then stored in half precision.
    """

    def __init__(self, keys: KeyArray, partition: Partition, *, unit: bool) -> None:
        self._keys = keys
        self._partition = partition
        self._unit = unit
        dimension, cells, product = keys.shape[1], partition.cells, faiss.METRIC_INNER_PRODUCT
        # FAISS holds plain pointers: whatever they point to is kept here as long.
        self._quantizer: Any = faiss.IndexFlatIP(dimension)
        if unit:
            half = faiss.ScalarQuantizer.QT_fp16
            self._faiss: Any = faiss.IndexIVFScalarQuantizer(self._quantizer, dimension, cells, half, product, False)
        else:
            self._faiss = faiss.IndexIVFFlat(self._quantizer, dimension, cells, product)
        self._faiss.is_trained = True
        self._lists: Any = self._faiss.invlists
        self._cells: npt.NDArray[np.int32] = np.full(len(keys), _NOWHERE, dtype=np.int32)
        self._offsets: npt.NDArray[np.int32] = np.zeros(len(keys), dtype=np.int32)
        self._radius = 0.0
        self._scale = _scale_for(partition.centres) if unit else 1.0
        self._selector: Any = None
        self._selected: Bitmap | None = None
        self._parameters: dict[int, Any] = {}
        self._selecting: dict[int, Any] = {}
        self.size = 0
        """Slots listed."""

    def add(self, slots: IntArray) -> None:
        """Put slots that are in no list into those of their keys' cells."""
        if not len(slots):
            return
        cells: IntArray = np.empty(len(slots), dtype=np.int64)
        for start in range(0, len(slots), _ROWS):
            rows = slice(start, start + _ROWS)
            cells[rows] = self._partition.assign(self._partition.centred(self._keys.take(slots[rows], axis=0)))
        order = np.argsort(cells, kind="stable")
        self._append(slots[order], cells[order])
        self.size += len(slots)

    def take_out(self, slot: int) -> None:
        """Remove a slot from its list; the last of the list takes its place."""
        cell, offset = int(self._cells[slot]), int(self._offsets[slot])
        last = self._lists.list_size(cell) - 1
        if offset != last:
            moved = self._lists.get_single_id(cell, last)
            self._lists.update_entry(cell, offset, moved, self._lists.get_single_code(cell, last))
            self._offsets[moved] = offset
        self._lists.resize(cell, last)
        self._cells[slot] = _NOWHERE
        self.size -= 1

    def slots_in(self, cell: int) -> IntArray:
        """Slots of a cell, in no order; valid until the next change."""
        size = self._lists.list_size(cell)
        if not size:
            return np.empty(0, dtype=np.int64)
        slots: IntArray = faiss.rev_swig_ptr(self._lists.get_ids(cell), size)
        return slots

    def ask(self, query: KeyArray, cells: IntArray, selected: Bitmap | None, wanted: int) -> tuple[KeyArray, IntArray]:
        """The best entries of some cells, best first; slot -1 where there are fewer than ``wanted``.

        Args:
            query: ``[d]``.
            cells: ``[n]``, each at most once.
            selected: look at these slots only; ``None`` looks at all.
            wanted: how many.

        Returns:
            Scores relative to the mean and scaled, each within ``error`` of its exact value, and slots.
        """
        scores: KeyArray = np.empty(wanted, dtype=np.float32)
        slots: IntArray = np.empty(wanted, dtype=np.int64)
        unused: KeyArray = np.zeros(len(cells), dtype=np.float32)
        query, pointer = np.ascontiguousarray(query), faiss.swig_ptr
        self._faiss.search_preassigned_c(
            1,
            pointer(query),
            wanted,
            pointer(cells),
            pointer(unused),
            pointer(scores),
            pointer(slots),
            False,
            self._parameters_for(len(cells), selected),
        )
        return scores, slots

    def error(self, query: KeyArray) -> float:
        """How far a score of ``ask`` may be from that of the key.

        Rounding a number to half precision errs by ``2**-11`` of it or ``2**-24`` of one; centring rounds once to float32, in
        which the product is summed (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1).
        """
        length = float(np.sqrt(np.square(query, dtype=np.float64).sum()))
        radius = self._radius * self._scale
        error = float(scan_margin(len(query) + 2, radius, np.array([length]))[0])
        if self._unit:
            error += (_HALF_ROUNDOFF * radius + _HALF_SMALLEST * len(query) ** 0.5) * length * 1.01
        return error

    def _parameters_for(self, probes: int, selected: Bitmap | None) -> Any:
        """FAISS's search parameters, which are kept because making them takes as long as a tenth of a search."""
        if selected is None:
            known = self._parameters.get(probes)
            if known is None:
                known = self._parameters[probes] = _search_parameters(nprobe=probes)
            return known
        if self._selected is not selected:
            self._selector, self._selected = _bitmap_selector(selected), selected
            self._selecting.clear()
        known = self._selecting.get(probes)
        if known is None:
            known = _search_parameters(sel=self._selector, nprobe=probes)
            self._selecting[probes] = known
        return known

    def _append(self, slots: IntArray, cells: IntArray) -> None:
        """Add to the ends of lists; equal cells are next to each other."""
        edges = [0, *(np.flatnonzero(cells[1:] != cells[:-1]) + 1).tolist(), len(cells)]
        for start, stop in itertools.pairwise(edges):
            cell, some = int(cells[start]), slots[start:stop]
            codes = self._codes(self._partition.centred(self._keys.take(some, axis=0)))
            offset = self._lists.list_size(cell)
            if offset == 0:
                # Room for a quarter more: a list that outgrows its memory takes twice as much.
                self._lists.resize(cell, len(some) + len(some) // 4)
                self._lists.resize(cell, 0)
            self._lists.add_entries(cell, len(some), faiss.swig_ptr(some), faiss.swig_ptr(codes))
            self._offsets[some] = np.arange(offset, offset + len(some))
        self._cells[slots] = cells

    def _codes(self, centred: KeyArray) -> npt.NDArray[np.uint8]:
        """What FAISS stores of centred keys, ``[n, bytes]``."""
        longest = float(np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64).max()))
        self._radius = max(self._radius, longest * (1.0 + 2.0**-20))
        if not self._unit:
            return centred.view(np.uint8)
        return (centred * np.float32(self._scale)).astype(np.float16).view(np.uint8)


def _scale_for(centres: KeyArray) -> float:
    """What brings centred keys to about length one, so that where they crowd around their mean half precision still holds.

    A power of two, so that scaling rounds nothing.
    """
    longest = float(np.sqrt(np.square(centres, dtype=np.float64).sum(axis=1).max()))
    return min(_LARGEST_SCALE, 2.0 ** -math.ceil(math.log2(max(longest, 1.0 / _LARGEST_SCALE))))
