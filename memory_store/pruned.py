"""Exact nearest neighbours without reading all of every key.

Keys are turned so that their leading coordinates carry most of their length. Of each key only those are scanned, and the
length of the rest: by the inequality of Cauchy and Schwarz the rest of a product is at most the product of the rests'
lengths, so the scan gives an upper bound of every score. Keys whose bound stays below a score that ``k`` others are known
to have are out; the few that are left are looked at in full.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from memory_store.index import BLOCK, Candidates, Pause, candidates, reaching, rescore
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray
from memory_store.rotation import fit_basis, of_length_one, turned, underflow
from memory_store.shortlist import floor_below, kth_of_rows, shortlist

WORTHWHILE: Final = 32768
"""Slots below which a scan of all keys is as fast."""
_SEEDS: Final = 256
"""Keys scored in full to learn how good the k-th best is at least."""
_BLOCK_SEEDS: Final = 64
"""The same for each of many queries, which share what it costs to look at a bound again."""
_QUERIES: Final = 16
"""Queries scanned together: with more their bounds leave the processor's cache before they are read again."""
_ROWS: Final = 16384
GATHER_COST: Final = 8.0
"""Reading one number of a key that lies anywhere costs as much as reading so many in a row."""
BULK_GATHER_COST: Final = 64.0
"""The same where a direction is read once for many queries and the key for each of them."""


class PrunedIndex:
    """The slots of a bank, scanned by a few rotated directions.

    The rotation is derived from the keys and refitted when the number of writes since equals that of the keys it was
    fitted to; it decides the speed, never the answer. Memory: 4 bytes per slot and direction, about a third of the keys.

    Args:
        keys: ``[slots, d]``, ``slots`` a multiple of ``BLOCK``, owned by the caller, who says what changes in it.
        worthwhile: slots below which all keys are scanned in full.
        gather_cost: by which the number of directions is chosen; ``BULK_GATHER_COST`` for an index asked in bulk.
    """

    __slots__ = (
        "_basis",
        "_bounds",
        "_changed",
        "_columns",
        "_gather_cost",
        "_keys",
        "_refit_after",
        "_room",
        "_worthwhile",
    )

    def __init__(self, keys: KeyArray, *, worthwhile: int = WORTHWHILE, gather_cost: float = GATHER_COST) -> None:
        self._keys = keys
        self._gather_cost = gather_cost
        self._worthwhile = worthwhile
        self._columns: KeyArray | None = None
        self._bounds: KeyArray = np.empty(0, dtype=np.float32)
        self._room: KeyArray = np.empty(0, dtype=np.float32)
        """For the bounds of many queries at once."""
        self._basis: ScoreArray = np.empty((0, 0))
        self._changed: list[int] = []
        self._refit_after = 0

    @classmethod
    def fitted(cls, keys: KeyArray, basis: ScoreArray, columns: KeyArray) -> PrunedIndex:
        """An index over keys that change no more, from what ``fit`` of an index over the same keys gave."""
        index = cls(keys)
        index._basis, index._columns, index._refit_after = basis, columns, len(keys)
        index._bounds = np.empty(len(keys), dtype=np.float32)
        return index

    def fit(self) -> tuple[ScoreArray, KeyArray]:
        """Directions ``[d, m]``, and coordinates along them with the lengths of the rests, ``[m + 1, slots]``, of all slots."""
        columns = self._follow(len(self._keys))
        return self._basis, columns

    @property
    def directions(self) -> int:
        """Rotated directions scanned; 0 while the bank is too small for a rotation to pay."""
        return int(self._basis.shape[1])

    def write(self, slot: int) -> None:
        """Take note that the key of a slot has changed. The work is done by the next search."""
        if self._columns is None:
            return
        self._changed.append(slot)
        if len(self._changed) >= self._refit_after:
            self._columns = None
            self._changed.clear()

    def candidates(
        self, hidden: BoolArray, query: KeyArray, k: int, margin: ScoreArray, *, known: float = -np.inf
    ) -> IntArray:
        """Slots among which the ``k`` nearest are.

        Why none is missed: let ``q`` and ``x`` be query and key, ``m`` the directions, ``a`` and ``b`` their rotated leading
        coordinates, ``r`` and ``s`` upper bounds of the lengths of the rests. Then ``q.x <= a.b + r s`` (Cauchy-Schwarz).
        The right side is an inner product of ``m + 1`` numbers, no longer than ``|q| |x|``. Rounding its factors to float32
        costs at most ``2 u |q| |x|``, summing it in any order ``gamma_(m+1) |q| |x|`` (Higham, Accuracy and Stability of
        Numerical Algorithms, 2nd ed., section 3.1), so the scanned bound lies at most ``gamma_(m+4) |q| |x|`` below the score,
        plus a smallest normal number for each factor and product that underflows. ``margin`` is at least
        ``2 gamma_(d+2) |q| |x|``, and ``m + 4 <= 2 (d + 2)``. The query is scaled to length one, so that nothing else
        overflows or underflows. Float64 steps err by parts of ``u**2``, which the difference covers.

        Args:
            hidden: ``[size]``, True where a slot must not be found; the slots scanned, a multiple of ``BLOCK``.
            query: ``[1, d]``.
            k: neighbours wanted.
            margin: ``[1]`` from ``scan_margin``.
            known: a score that ``k`` entries elsewhere reach; those that stay below it may be missing.
        """
        size = len(hidden)
        if size < self._worthwhile or 8 * k * BLOCK > size:
            return candidates(self._keys[:size], hidden, query, k, margin).slots
        columns = self._follow(size)
        length = float(np.sqrt(rescore(query, query)[0])) or 1.0
        bounds = np.matmul(self._turned(query, length), columns[:, :size], out=self._bounds[:size])
        bounds[np.flatnonzero(hidden)] = -np.inf
        floor = known
        if known == -np.inf:
            seeds = np.flatnonzero(bounds >= _high_floor(bounds, min(max(_SEEDS, 4 * k), size // BLOCK)))
            floor = _known_score(self._keys, seeds, query[0], k)
        near = np.flatnonzero(bounds >= floor_below((floor - float(margin[0])) / length, underflow(self.directions)))
        return shortlist(self._keys, near, query[0], k, float(margin[0]))

    def candidates_of_many(
        self,
        hidden: BoolArray,
        queries: KeyArray,
        k: int,
        margin: ScoreArray,
        *,
        give_up: int,
        pause: Pause | None = None,
    ) -> Candidates:
        """The same for ``n`` queries at once, none of whose nearest is missed either.

        Args:
            hidden: as for ``candidates``.
            queries: ``[n, d]``.
            k: neighbours wanted.
            margin: ``[n]`` from ``scan_margin``.
            give_up: leave out queries with more slots to look at than this.
            pause: called after every few queries.
        """
        size = len(hidden)
        if size < self._worthwhile or 8 * k * BLOCK > size:
            return candidates(self._keys[:size], hidden, queries, k, margin, give_up=give_up)
        columns = self._follow(size)[:, :size]
        covered = np.flatnonzero(hidden)
        buffer = self._room_for_many(min(len(queries), _QUERIES), size)
        parts = []
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            rows, slots, complete = self._of_some(columns, covered, queries[part], k, margin[part], give_up, buffer)
            parts.append((rows + start, slots, complete))
            if pause is not None:
                pause(hidden)
        return Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _room_for_many(self, count: int, size: int) -> KeyArray:
        """Room for ``[count, size]`` bounds, the same again and again: to be given new memory costs half of a scan."""
        if len(self._room) < count * size:
            self._room = np.empty(count * len(self._keys), dtype=np.float32)
        return self._room[: count * size].reshape(count, size)

    def _of_some(
        self,
        columns: KeyArray,
        covered: IntArray,
        queries: KeyArray,
        k: int,
        margin: ScoreArray,
        give_up: int,
        buffer: KeyArray,
    ) -> tuple[IntArray, IntArray, BoolArray]:
        """Row and slot of the candidates of a few queries, and which queries were not given up."""
        count = len(queries)
        units, lengths = of_length_one(queries)
        bounds = np.matmul(turned(units, self._basis), columns, out=buffer[:count])
        bounds[:, covered] = -np.inf
        blocks = bounds.reshape(count, BLOCK, -1)
        peaks = blocks.max(axis=1)
        seeds = min(max(_BLOCK_SEEDS, 2 * k), peaks.shape[1])
        high = np.maximum(np.partition(peaks, -seeds, axis=1)[:, -seeds], np.finfo(np.float32).min)
        rows, slots, complete = _unless_many(*reaching(blocks, peaks, high)[:2], count, give_up)
        known = kth_of_rows(rows, rescore(self._keys[slots], queries[rows]), count, k, -np.inf)
        floor = floor_below((known - margin) / lengths, underflow(self.directions))
        floor[~complete] = np.inf
        rows, slots, fewer = _unless_many(*reaching(blocks, peaks, floor)[:2], count, give_up)
        scores = np.einsum("ij,ij->i", self._keys[slots], queries[rows])
        near = scores >= floor_below(known, margin)[rows]
        return rows[near], slots[near], complete & fewer

    def _turned(self, query: KeyArray, length: float) -> KeyArray:
        """Leading coordinates of a query scaled to length one, and the length of the rest, ``[m + 1]``."""
        leading: KeyArray = turned(query / np.float64(length), self._basis)[0]
        return leading

    def _follow(self, size: int) -> KeyArray:
        """The columns of the first ``size`` slots, with all changes taken in."""
        if self._columns is None:
            return self._fit(size)
        if self._changed:
            slots = np.array(self._changed)
            self._refit_after -= len(slots)
            self._changed.clear()
            for start in range(0, len(slots), _ROWS):
                part = slots[start : start + _ROWS]
                self._columns[:, part] = turned(self._keys[part], self._basis).T
        return self._columns

    def _fit(self, size: int) -> KeyArray:
        """Turn everything anew."""
        self._refit_after = size
        self._basis = fit_basis(self._keys[:size], self._gather_cost)
        columns: KeyArray = np.zeros((self._basis.shape[1] + 1, len(self._keys)), dtype=np.float32)
        for start in range(0, size, _ROWS):
            rows = slice(start, min(start + _ROWS, size))
            columns[:, rows] = turned(self._keys[rows], self._basis).T
        self._columns = columns
        self._bounds = np.empty(len(self._keys), dtype=np.float32)
        return columns


def _high_floor(bounds: KeyArray, count: int) -> float:
    """A bound that at least ``count`` others reach, not many more; the lowest number where fewer are visible."""
    peaks = bounds.reshape(BLOCK, -1).max(axis=0)
    return max(float(np.partition(peaks, -count)[-count]), float(np.finfo(np.float32).min))


def _known_score(keys: KeyArray, slots: IntArray, query: KeyArray, k: int) -> float:
    """The k-th best exact score of some slots, -inf where there are fewer."""
    if len(slots) < k:
        return -np.inf
    return float(np.partition(rescore(keys.take(slots, axis=0), query), -k)[-k])


def _unless_many(rows: IntArray, slots: IntArray, count: int, most: int) -> tuple[IntArray, IntArray, BoolArray]:
    """Pairs of a row and a slot without those of rows that have too many, and which of ``count`` rows have not."""
    few: BoolArray = np.bincount(rows, minlength=count) <= most
    if few.all():
        return rows, slots, few
    kept = few[rows]
    return rows[kept], slots[kept], few
