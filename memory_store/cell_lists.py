"""The inverted lists of FAISS: slots and coarse copies of their keys, cell by cell, changed in place.

Keys of length one are kept as bytes: their coordinates relative to the mean, in equal steps. Keys of any length are kept
as they are, relative to the mean. Either way it is known how far a kept key is from the key, and so what the product of a
query with the one says about that with the other.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
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
_MIDDLE: Final = 127
"""The byte of the mean; keys lie at most so many steps from it."""
_HEADROOM: Final = 1.1
"""Keys to come may be this much larger than those that the steps were chosen for before they have to be chosen anew."""
_LANES: Final = 16
"""FAISS reads so many bytes at once, where the dimension is a multiple of it."""
_SMALLEST: Final = 2.0**-60
_TINY: Final = 2.0**-40
"""More than float64 rounds off in what is computed here, relative to the lengths of what is multiplied."""
_DECODED: Final = 2.0**-24 * 4 * 128
"""How far a number that FAISS makes of a byte is from whole steps, in steps: four float32 roundings of numbers below 128."""
_FIRST: Final = (2, 32)
"""How many are asked for: so many times the neighbours wanted and so many more. On encoder keys, between which bytes can
hardly tell, that is enough for nineteen of twenty queries."""
_SECOND: Final = (8, 128)
"""The same for the others."""
_TOGETHER: Final = 8192
"""Keys looked at together."""
_LOWEST: Final = np.finfo(np.float64).min
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
        self._mean = partition.mean.astype(np.float64)
        self._mean_length = float(np.sqrt(np.square(self._mean).sum()))
        self._radius = 0.0
        """Upper bound of the lengths of what is kept."""
        self._moved = 0.0
        """Upper bound of how far what is kept is from the centred key."""
        self._faiss: Any = self._made(keys.shape[1], partition.cells)
        self._faiss.is_trained = True
        self._lists: Any = self._faiss.invlists
        self._cells: npt.NDArray[np.int32] = np.full(len(keys), _NOWHERE, dtype=np.int32)
        self._offsets: npt.NDArray[np.int32] = np.zeros(len(keys), dtype=np.int32)
        self._selector: Any = None
        self._selected: Bitmap | None = None
        self._parameters: Any = _search_parameters()
        self._selecting: Any = None
        self._unused: KeyArray = np.zeros(partition.cells, dtype=np.float32)
        """Scores of the cells, which FAISS adds where codes are relative to them; they are not."""
        self.size = 0
        """Slots listed."""

    def nearest(
        self, queries: KeyArray, cells: IntArray, selected: Bitmap | None, k: int, margin: ScoreArray
    ) -> list[IntArray | None]:
        """For every query, slots among which the ``k`` best entries of its cells are; ``None`` where that cannot be said.

        FAISS gives more than wanted, by coarse codes, and these are scored by their keys. What it left out scores no better
        than ``_ceiling``; where the k-th of what it gave does, none of the best is missed.

        Args:
            queries: ``[n, d]``.
            cells: ``[n, p]``, each at most once, then ``NO_CELL``.
            selected: look at these slots only; ``None`` looks at all.
            k: at least one.
            margin: ``[n]`` from ``scan_margin``.
        """
        found = self._attempt(queries, cells, selected, k, margin, _FIRST)
        missing = [row for row, near in enumerate(found) if near is None]
        if missing:
            again = self._attempt(queries[missing], cells[missing], selected, k, margin[missing], _SECOND)
            for row, near in zip(missing, again, strict=True):
                found[row] = near
        return found

    def _attempt(
        self,
        queries: KeyArray,
        cells: IntArray,
        selected: Bitmap | None,
        k: int,
        margin: ScoreArray,
        asked: tuple[int, int],
    ) -> list[IntArray | None]:
        """The same with one number of entries asked for."""
        wanted = asked[0] * k + asked[1]
        found: list[IntArray | None] = []
        together = max(1, _TOGETHER // wanted)
        for start in range(0, len(queries), together):
            part = slice(start, start + together)
            some, error = queries[part], margin[part]
            last, slots = self._ask(some, cells[part], selected, wanted)
            scores = np.matmul(self._keys.take(slots, axis=0, mode="clip"), some[:, :, None])[:, :, 0]
            ceiling = self._ceiling(some, last)
            if slots[:, -1].min() < 0:  # the cells hold no more
                ceiling[slots[:, -1] < 0] = _LOWEST
                scores[slots < 0] = -np.inf
            kth = np.partition(scores, wanted - k, axis=1)[:, wanted - k]
            near = scores >= floor_below(kth, error)[:, None]
            certain = kth - error > ceiling
            found += [slots[row, near[row]] if sure else None for row, sure in enumerate(certain.tolist())]
        return found

    def _ceiling(self, queries: KeyArray, last: KeyArray) -> ScoreArray:
        """What an entry scores at most that FAISS ranks behind the last one it gave, ``[n]``.

        With query ``q``, mean ``m``, key ``m + x`` and ``y`` kept for ``x``: ``q.(m + x) <= q.m + q.y + |q| |x - y|``. Centring
        rounds once to float32, in which FAISS computes ``q.y`` (Higham, Accuracy and Stability of Numerical Algorithms, 2nd
        ed., section 3.1).

        Args:
            queries: ``[n, d]``.
            last: ``[n]`` FAISS's score of that one.
        """
        wide = queries.astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        error = scan_margin(queries.shape[1] + 2, self._radius, lengths)
        ceiling: ScoreArray = last + wide @ self._mean + error + (self._moved + _TINY * self._mean_length) * lengths
        return ceiling

    @abstractmethod
    def _made(self, dimension: int, cells: int) -> Any:
        """FAISS's index; it holds plain pointers, so whatever they point to is kept here as long."""

    @abstractmethod
    def _codes(self, keys: KeyArray) -> npt.NDArray[np.uint8]:
        """What FAISS stores of some keys, ``[n, bytes]``; ``_radius`` and ``_moved`` are to cover them."""

    def _asking(self, queries: KeyArray) -> KeyArray:
        """Queries as FAISS takes them, ``[n, width]``."""
        return np.ascontiguousarray(queries)

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

    def _ask(
        self, queries: KeyArray, cells: IntArray, selected: Bitmap | None, wanted: int
    ) -> tuple[KeyArray, IntArray]:
        """What FAISS finds best in some cells, best first; slot -1 where there are fewer than ``wanted``.

        Returns:
            FAISS's score of the last of every query, and slots, ``[n, wanted]``.
        """
        count, probes = cells.shape
        cells, asking = np.ascontiguousarray(cells), self._asking(queries)
        scores: KeyArray = np.empty((count, wanted), dtype=np.float32)
        slots: IntArray = np.empty((count, wanted), dtype=np.int64)
        if cells.size > len(self._unused):
            self._unused = np.zeros(cells.size, dtype=np.float32)
        pointer = faiss.swig_ptr
        self._faiss.search_preassigned_c(
            count,
            pointer(asking),
            wanted,
            pointer(cells),
            pointer(self._unused),
            pointer(scores),
            pointer(slots),
            False,
            self._parameters_for(probes, selected),
        )
        return scores[:, -1], slots

    def _parameters_for(self, probes: int, selected: Bitmap | None) -> Any:
        """FAISS's search parameters, which are kept because making them takes as long as a tenth of a search."""
        parameters = self._parameters
        if selected is not None:
            if self._selected is not selected:
                self._selector, self._selected = _bitmap_selector(selected), selected
                self._selecting = _search_parameters(sel=self._selector)
            parameters = self._selecting
        parameters.nprobe = probes
        return parameters

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


class _FloatLists(CellLists):
    """Keys of any length, relative to the mean, in float32."""

    def _made(self, dimension: int, cells: int) -> Any:
        self._quantizer: Any = faiss.IndexFlatIP(dimension)
        return faiss.IndexIVFFlat(self._quantizer, dimension, cells, faiss.METRIC_INNER_PRODUCT)

    def _codes(self, keys: KeyArray) -> npt.NDArray[np.uint8]:
        centred = self._partition.centred(keys)
        self._radius = max(self._radius, _longest(centred.astype(np.float64)))
        return centred.view(np.uint8)


class _ByteLists(CellLists):
    """Keys of length one, relative to the mean, in steps that fit a byte."""

    _step = 0.0
    """Length of a step; 0 while there is no key."""

    def add(self, slots: IntArray) -> None:
        if len(slots):
            largest = self._largest(slots)
            if largest > _MIDDLE * self._step:
                self._choose_step(largest)
        super().add(slots)

    def _made(self, dimension: int, cells: int) -> Any:
        self._width = -(-dimension // _LANES) * _LANES
        self._quantizer: Any = faiss.IndexFlatIP(self._width)
        kind = faiss.ScalarQuantizer.QT_8bit_uniform
        return faiss.IndexIVFScalarQuantizer(
            self._quantizer, self._width, cells, kind, faiss.METRIC_INNER_PRODUCT, False
        )

    def _asking(self, queries: KeyArray) -> KeyArray:
        if self._width == queries.shape[1]:
            return np.ascontiguousarray(queries)
        wide: KeyArray = np.zeros((len(queries), self._width), dtype=np.float32)
        wide[:, : queries.shape[1]] = queries
        return wide

    def _codes(self, keys: KeyArray) -> npt.NDArray[np.uint8]:
        steps = (keys - self._mean) / self._step
        whole = np.clip(np.rint(steps), -_MIDDLE, _MIDDLE)
        codes = np.full((len(keys), self._width), _MIDDLE, dtype=np.uint8)
        codes[:, : keys.shape[1]] = whole + _MIDDLE
        rounded = self._step * (1.0 + _TINY)
        self._radius = max(self._radius, rounded * (_longest(whole) + 1.0))
        self._moved = max(self._moved, rounded * (_longest(steps - whole) + _DECODED * self._width**0.5))
        return codes

    def _largest(self, slots: IntArray) -> float:
        """Largest coordinate of some keys relative to the mean."""
        largest = _SMALLEST
        for start in range(0, len(slots), _ROWS):
            centred = self._partition.centred(self._keys.take(slots[start : start + _ROWS], axis=0))
            largest = max(largest, float(centred.max()), -float(centred.min()))
        return largest

    def _choose_step(self, largest: float) -> None:
        """Choose a step with which a coordinate and somewhat larger ones fit a byte, and write all bytes anew."""
        step = np.float32(_HEADROOM * largest / _MIDDLE)
        self._step, self._moved, self._radius = float(step), 0.0, 0.0
        # FAISS makes (byte + 1/2) / 255 * range + least of a byte.
        faiss.copy_array_to_vector(np.array([-127.5 * step, 255.0 * step], dtype=np.float32), self._faiss.sq.trained)
        listed = np.flatnonzero(self._cells != _NOWHERE)
        cells = self._cells[listed].astype(np.int64)
        for cell in np.unique(cells).tolist():
            self._lists.resize(cell, 0)
        order = np.argsort(cells, kind="stable")
        if len(listed):
            self._append(listed[order], cells[order])


def _longest(rows: ScoreArray) -> float:
    """Upper bound of the lengths of some rows."""
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max())) * (1.0 + _TINY)


def make_lists(keys: KeyArray, partition: Partition, *, unit: bool) -> CellLists:
    """Empty lists for keys that all have, and will have, length one, or for any."""
    return _ByteLists(keys, partition) if unit else _FloatLists(keys, partition)
