"""The inverted lists of FAISS: slots and coarse copies of their keys, cell by cell, changed in place.

Keys of length one are kept as bytes: their coordinates relative to the mean, in equal steps. The nearest of them by inner
product are the nearest by distance, which does not care about the mean, and distances of bytes are whole numbers, so that
FAISS's integer arithmetic makes no error at all. What rounding to bytes moved a key is known (``_ByteLists``). Keys of any
length are kept as they are (``_FloatLists``).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from memory_store.index import scan_margin
from memory_store.partition import Partition
from memory_store.records import IntArray, KeyArray, ScoreArray
from memory_store.shortlist import floor_below
from memory_store.visibility import Bitmap

# Their constructors in Python take more than their declarations say.
_search_parameters: Any = faiss.SearchParametersIVF
_bitmap_selector: Any = faiss.IDSelectorBitmap
_LEVELS: Final = 255
"""Steps between the smallest and the largest number that a byte can stand for."""
_HEADROOM: Final = 1.1
"""Keys to come may be this much larger than those that the steps were chosen for before they have to be chosen anew."""
_LANES: Final = 16
"""FAISS computes with bytes where the dimension is a multiple of this, and with numbers made of them elsewhere."""
_MIDDLE: Final = 127
"""The byte of the mean."""
_SMALLEST: Final = 2.0**-60
_TINY: Final = 2.0**-40
"""More than float64 rounds off what is computed here, where numbers are below a few hundred."""
_ROUNDING: Final = 1.0 + 2.0**-20
"""FAISS gives squares, whole numbers, in float32, which holds them up to 2**24 and rounds larger ones."""
_SPARE: Final = 32
_BAND: Final = 5
"""Times as many are asked for as wanted: on encoder keys, between which bytes cannot tell, about three times as many."""
_BUFFERS: Final = 64
_NOWHERE: Final = -1
_ROWS: Final = 16384


class CellLists(ABC):
    """Lists of slots, one per cell, that FAISS can search.

    Of its index type only the lists and their scan are used: which cell a key belongs to, and which cells a query looks
    into, is decided by the partition. None of the calls used here starts a thread.

    Args:
        keys: ``[slots, d]``, owned by the caller.
        partition: the cells.
    """

    def __init__(self, keys: KeyArray, partition: Partition) -> None:
        self._keys = keys
        self._partition = partition
        self._faiss: Any = self._made(keys.shape[1], partition.cells)
        self._faiss.is_trained = True
        self._lists: Any = self._faiss.invlists
        self._cells: npt.NDArray[np.int32] = np.full(len(keys), _NOWHERE, dtype=np.int32)
        self._offsets: npt.NDArray[np.int32] = np.zeros(len(keys), dtype=np.int32)
        self._selector: Any = None
        self._selected: Bitmap | None = None
        self._parameters: dict[int, Any] = {}
        self._selecting: dict[int, Any] = {}
        self._buffers: dict[tuple[int, int], _Buffer] = {}
        self.size = 0
        """Slots listed."""

    @abstractmethod
    def nearest(self, query: KeyArray, cells: IntArray, selected: Bitmap | None, k: int) -> IntArray | None:
        """Slots among which the ``k`` best entries of some cells are; ``None`` where too many come close to say.

        Args:
            query: ``[d]``.
            cells: ``[n]``, each at most once.
            selected: look at these slots only; ``None`` looks at all.
            k: at least one.
        """

    @abstractmethod
    def _made(self, dimension: int, cells: int) -> Any:
        """FAISS's index; it holds plain pointers, so whatever they point to is kept here as long."""

    @abstractmethod
    def _codes(self, keys: KeyArray) -> npt.NDArray[np.uint8]:
        """What FAISS stores of some keys, ``[n, bytes]``."""

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

    def _ask(self, query: KeyArray, cells: IntArray, selected: Bitmap | None, wanted: int) -> tuple[KeyArray, IntArray]:
        """What FAISS finds best in some cells, best first; slot -1 where there are fewer than ``wanted``.

        Returns:
            FAISS's scores and slots, valid until the next call.
        """
        buffer = self._buffers.get((len(cells), wanted))
        if buffer is None:
            if len(self._buffers) >= _BUFFERS:
                self._buffers.clear()
            buffer = self._buffers[len(cells), wanted] = _Buffer.of(len(cells), wanted)
        parameters = self._parameters_for(len(cells), selected)
        pointer = faiss.swig_ptr
        self._faiss.search_preassigned_c(
            1,
            pointer(query),
            wanted,
            pointer(cells),
            buffer.unused_pointer,
            buffer.scores_pointer,
            buffer.slots_pointer,
            False,
            parameters,
        )
        return buffer.scores, buffer.slots

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
            codes = self._codes(self._keys.take(some, axis=0))
            offset = self._lists.list_size(cell)
            if offset == 0:
                # Room for a quarter more: a list that outgrows its memory takes twice as much.
                self._lists.resize(cell, len(some) + len(some) // 4)
                self._lists.resize(cell, 0)
            self._lists.add_entries(cell, len(some), faiss.swig_ptr(some), faiss.swig_ptr(codes))
            self._offsets[some] = np.arange(offset, offset + len(some))
        self._cells[slots] = cells


@dataclass(frozen=True, slots=True, eq=False)
class _Buffer:
    """Where FAISS writes its answers; kept, because making it and its pointers takes as long as reading a cell."""

    scores: KeyArray
    slots: IntArray
    unused: KeyArray
    """Scores of the cells, which FAISS adds where codes are relative to them; they are not."""
    scores_pointer: Any
    slots_pointer: Any
    unused_pointer: Any

    @classmethod
    def of(cls, cells: int, wanted: int) -> _Buffer:
        scores: KeyArray = np.empty(wanted, dtype=np.float32)
        slots: IntArray = np.empty(wanted, dtype=np.int64)
        unused: KeyArray = np.zeros(cells, dtype=np.float32)
        pointer = faiss.swig_ptr
        return cls(scores, slots, unused, pointer(scores), pointer(slots), pointer(unused))


class _FloatLists(CellLists):
    """Keys of any length, relative to the mean, in float32."""

    _radius = 0.0

    def nearest(self, query: KeyArray, cells: IntArray, selected: Bitmap | None, k: int) -> IntArray | None:
        """Some more than wanted are asked for. What FAISS left out scores at most as its last answer; if that is two errors
        below the k-th, it is not among the best.
        """
        query = np.ascontiguousarray(query)
        scores, slots = self._ask(query, cells, selected, k + max(_SPARE, k // 2))
        if slots[k - 1] < 0:
            return None
        floor = float(scores[k - 1]) - 2.0 * self._error(query)
        if slots[-1] >= 0 and float(scores[-1]) >= floor:
            return None
        near: IntArray = slots[(slots >= 0) & (scores >= floor_below(floor, 0.0))]
        return near

    def _made(self, dimension: int, cells: int) -> Any:
        self._quantizer: Any = faiss.IndexFlatIP(dimension)
        return faiss.IndexIVFFlat(self._quantizer, dimension, cells, faiss.METRIC_INNER_PRODUCT)

    def _codes(self, keys: KeyArray) -> npt.NDArray[np.uint8]:
        centred = self._partition.centred(keys)
        longest = float(np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64).max()))
        self._radius = max(self._radius, longest * (1.0 + 2.0**-20))
        return centred.view(np.uint8)

    def _error(self, query: KeyArray) -> float:
        """How far a score may be from that of the key: centring rounds once to float32, in which the product is summed
        (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1).
        """
        length = float(np.sqrt(np.square(query, dtype=np.float64).sum()))
        return float(scan_margin(len(query) + 2, self._radius, np.array([length]))[0])


class _ByteLists(CellLists):
    """Keys of length one, relative to the mean, in steps that fit a byte.

    All lengths below are in steps. Let ``q`` and ``x`` be query and key relative to the mean, ``q'`` and ``x'`` their bytes,
    ``a = |q - q'|`` and ``b >= |x - x'|`` for every key. By the triangle inequality ``|q - x|`` lies within ``a + b`` of
    ``|q' - x'|``, of which FAISS gives the square.
    """

    def __init__(self, keys: KeyArray, partition: Partition) -> None:
        super().__init__(keys, partition)
        self._mean = partition.mean.astype(np.float64)
        self._steps = 0.0
        """Steps in one; 0 while there is no key."""
        self._moved = 0.0
        """Upper bound of how far a key was moved by rounding, in steps."""
        self._uneven = 0.0
        """Upper bound of how far a squared length of a key is from one."""

    def add(self, slots: IntArray) -> None:
        if len(slots):
            largest = self._largest(slots)
            if 2.0 * largest * self._steps > _LEVELS or not self._steps:
                self._choose_steps(largest)
        super().add(slots)

    def nearest(self, query: KeyArray, cells: IntArray, selected: Bitmap | None, k: int) -> IntArray | None:
        """Why none is missed: let ``y`` be one of the ``k`` that FAISS finds nearest, the furthest at distance ``D``. So
        ``|q - y| <= D + a + b``. Since ``|q - x|^2 = |q + m|^2 + |x + m|^2 - 2 (q + m).(x + m)``, a key with as large a product
        lies no further than ``sqrt((D + a + b)^2 + 2 u)``, ``u`` being what squared lengths differ from one, and FAISS sees it
        at most ``a + b`` further.
        """
        bytes_, moved = self._rounded(query[None].astype(np.float64))
        code = bytes_[0].astype(np.float32)
        squares, slots = self._ask(code, cells, selected, _BAND * k + _SPARE)
        if slots[k - 1] < 0:
            return None
        slack = self._moved + moved
        uneven = 2.0 * self._uneven * self._steps**2
        reach = math.sqrt((math.sqrt(float(squares[k - 1])) + slack) ** 2 + uneven) + slack
        limit = reach * reach * _ROUNDING
        if slots[-1] >= 0 and float(squares[-1]) <= limit:
            return None
        count = int(np.searchsorted(squares, limit, side="right"))
        near: IntArray = slots[:count]
        return near[near >= 0]

    def _made(self, dimension: int, cells: int) -> Any:
        self._width = -(-dimension // _LANES) * _LANES
        self._quantizer: Any = faiss.IndexFlatL2(self._width)
        kind = faiss.ScalarQuantizer.QT_8bit_direct
        return faiss.IndexIVFScalarQuantizer(self._quantizer, self._width, cells, kind, faiss.METRIC_L2, False)

    def _codes(self, keys: KeyArray) -> npt.NDArray[np.uint8]:
        wide = keys.astype(np.float64)
        codes, moved = self._rounded(wide)
        self._moved = max(self._moved, moved)
        self._uneven = max(self._uneven, float(np.abs(np.einsum("ij,ij->i", wide, wide) - 1.0).max()) + _TINY)
        return codes

    def _rounded(self, vectors: ScoreArray) -> tuple[npt.NDArray[np.uint8], float]:
        """Bytes of some vectors, ``[n, width]``, and an upper bound of how far any of them was moved, in steps."""
        steps = (vectors - self._mean) * self._steps
        whole = np.clip(np.rint(steps), -_MIDDLE, _LEVELS - _MIDDLE)
        codes = np.full((len(vectors), self._width), _MIDDLE, dtype=np.uint8)
        codes[:, : vectors.shape[1]] = whole + _MIDDLE
        steps -= whole
        return codes, math.sqrt(float(np.einsum("ij,ij->i", steps, steps).max())) + _TINY

    def _largest(self, slots: IntArray) -> float:
        """Largest coordinate of some keys relative to the mean."""
        largest = _SMALLEST
        for start in range(0, len(slots), _ROWS):
            centred = self._partition.centred(self._keys.take(slots[start : start + _ROWS], axis=0))
            largest = max(largest, float(centred.max()), -float(centred.min()))
        return largest

    def _choose_steps(self, largest: float) -> None:
        """Choose steps that hold a coordinate and somewhat larger ones, and write all bytes anew."""
        self._steps, self._moved = (_LEVELS - 2) / (2.0 * _HEADROOM * largest), 0.0
        listed = np.flatnonzero(self._cells != _NOWHERE)
        cells = self._cells[listed].astype(np.int64)
        for cell in np.unique(cells).tolist():
            self._lists.resize(cell, 0)
        order = np.argsort(cells, kind="stable")
        if len(listed):
            self._append(listed[order], cells[order])


def make_lists(keys: KeyArray, partition: Partition, *, unit: bool) -> CellLists:
    """Empty lists for keys that all have, and will have, length one, or for any."""
    return _ByteLists(keys, partition) if unit else _FloatLists(keys, partition)
