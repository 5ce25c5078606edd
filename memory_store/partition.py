"""Cells of key space: every key belongs to one, and a query looks into those nearest to it.

All of it is a pure function of numbers: sums run in a fixed order in float64, and where a float32 product cannot tell two
cells apart, ``rescore`` decides. So the same keys give the same cells, and the same cells take the same keys, however many
are handled at once and by however many threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from memory_store.index import BLOCK, best_first, candidates, rescore, scan_margin
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray
from memory_store.shortlist import floor_below

TARGET_RECALL: Final = 0.995
"""Share of the true neighbours that the cells looked into must hold, measured on the keys that they were fitted to. Keys that
come later find up to 0.3 % fewer."""
NO_CELL: Final = -1
_LEADERS: Final = 16
"""A query looks into cells that are not much worse than its so many best: where keys lie close together these are hardly
worse than the best, and where it is lonely it looks further."""
_ITERATIONS: Final = 6
_KEYS_PER_CELL: Final = 32
"""Keys that a cell's centre is learned from; more make it little better and learning slower."""
_ROWS: Final = 2048
_GOLDEN: Final = (5**0.5 - 1) / 2
_STRETCHES: Final = 16
_STRETCH: Final = 16
_STRIDE: Final = 8
_APART: Final = 1024
"""Keys before and after a tested one that do not count: what follows each other is alike, and easy to find."""
_NEIGHBOURS: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Cells of key space around centres, in coordinates relative to the mean of the keys.

    Keys of an encoder may crowd around their mean; without it a difference between two of them is still a difference.
    """

    mean: KeyArray
    """``[d]``."""
    centres: KeyArray
    """``[cells, d]``, relative to the mean, all different."""
    reach: float
    """How much further away than the 16th best a cell may be and be looked into, when all entries are visible."""
    recall: float
    """Share of true neighbours found in these when the cells were fitted."""
    count: int
    """Entries that they are for."""
    unit: bool
    """Whether keys and queries have length one: then the nearest cells are best, else those of the largest products."""
    _extended: KeyArray = field(init=False, repr=False)
    _columns: KeyArray = field(init=False, repr=False)
    _longest: float = field(init=False, repr=False)
    _margin: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        extended = _extended_centres(self.centres)
        object.__setattr__(self, "_extended", extended)
        object.__setattr__(self, "_columns", np.ascontiguousarray(extended.T))
        object.__setattr__(self, "_longest", _longest(extended))
        asking = 1.001 + float(np.sqrt(rescore(self.mean[None], self.mean)[0])) + 1.0
        # Twice what two scanned scores are off, and so more than the rounding of their difference as well.
        margin = 2.0 * scan_margin(extended.shape[1], self._longest, np.array([asking]))
        object.__setattr__(self, "_margin", float(margin[0]))

    @property
    def cells(self) -> int:
        """How many there are."""
        return len(self.centres)

    def centred(self, keys: KeyArray) -> KeyArray:
        """Keys relative to the mean, same shape."""
        return keys - self.mean

    def assign(self, centred: KeyArray) -> IntArray:
        """The cell of every centred key, ``[n]``: that of the nearest centre, of equally near ones the first."""
        return _assign(centred, self._extended, self._columns, self._longest)

    def exact_scores(self, query: KeyArray) -> ScoreArray:
        """What every cell is worth to a query ``[d]``, ``[cells]``.

        For keys of length one half the square by which the centre is nearer than the mean; otherwise the inner product with a
        query of length one. Whoever is nearest to a query is nearest in both, and cells are chosen as keys are put in them.
        """
        return rescore(self._extended, self._asking(query[None])[0])

    def looked_into(self, queries: KeyArray, visible: int) -> IntArray:
        """The cells that every query looks into, ``[n, most]``: the better ones about first, then ``NO_CELL``.

        They are those whose ``exact_scores`` are at most ``reach`` below the 16th best. When fewer entries are visible the
        nearest of them lie further away, and a third more are looked into for every halving: measured on encoder keys, where
        an eighth visible needs about 2.3 times the cells.

        Args:
            queries: ``[n, d]``.
            visible: entries that may be found.
        """
        rows = self._asking(queries)
        scores: KeyArray = np.matmul(rows, self._columns)
        chosen = self._within_reach(rows, scores)
        halvings = self.halvings(visible)
        if halvings:
            for row, one in enumerate(rows):
                wanted = -(-int(np.count_nonzero(chosen[row])) * 4**halvings // 3**halvings)
                best = best_first(rescore(self._extended, one), np.arange(self.cells), max(1, wanted))
                chosen[row, best] = True
        return _better_first(chosen, scores)

    def halvings(self, visible: int) -> int:
        """How often the number of entries that the cells are for was halved, when so many are visible."""
        return max(0, (self.count // max(visible, 1)).bit_length() - 1)

    def _asking(self, queries: KeyArray) -> KeyArray:
        """``[n, d + 1]``, to be multiplied with the extended centres."""
        rows: KeyArray = np.empty((len(queries), queries.shape[1] + 1), dtype=np.float32)
        if self.unit:
            np.subtract(queries, self.mean, out=rows[:, :-1])
            rows[:, -1] = -1.0
            return rows
        lengths = np.sqrt(rescore(queries, queries))
        lengths[lengths == 0.0] = 1.0
        rows[:, :-1] = queries / lengths[:, None]
        rows[:, -1] = 0.0
        return rows

    def _within_reach(self, rows: KeyArray, scores: KeyArray) -> BoolArray:
        """``[n, cells]``, by scanned scores where these can tell and by exact ones elsewhere."""
        place = max(0, self.cells - _LEADERS)
        leader = np.partition(scores, place, axis=1)[:, place, None]
        chosen: BoolArray = scores >= leader - np.float32(self.reach + self._margin)
        sure = scores >= leader - np.float32(self.reach - self._margin)
        if np.count_nonzero(chosen) > np.count_nonzero(sure):
            for row in np.flatnonzero((chosen != sure).any(axis=1)).tolist():
                exact = rescore(self._extended, rows[row])
                chosen[row] = exact >= np.partition(exact, place)[place] - self.reach
        return chosen


def _better_first(chosen: BoolArray, scores: KeyArray) -> IntArray:
    """The chosen columns of every row, ``[n, most]``, in about the order of their scores, then ``NO_CELL``.

    Only speed depends on the order: who looks into the best first soon knows how good is good enough.
    """
    if len(chosen) == 1:
        columns = np.flatnonzero(chosen)
        only: IntArray = columns[(-scores[0].take(columns)).argsort()][None]
        return only
    places = np.flatnonzero(chosen)
    rows = places // chosen.shape[1]
    counts = np.bincount(rows, minlength=len(chosen))
    depths = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    names = np.full((len(chosen), int(counts.max())), NO_CELL, dtype=np.int64)
    behind: KeyArray = np.full(names.shape, np.inf, dtype=np.float32)
    names[rows, depths] = places - rows * chosen.shape[1]
    behind[rows, depths] = -scores.ravel()[places]
    ordered: IntArray = np.take_along_axis(names, behind.argsort(axis=1), axis=1)
    return ordered


def cells_for(count: int) -> int:
    """How many cells to cut so many keys into: a power of two, about four times the square root."""
    return 1 << max(0, round(math.log2(4.0 * max(count, 1) ** 0.5)))


def fit_partition(keys: KeyArray, *, unit: bool, held: int | None = None) -> Partition:
    """Learn cells from keys: Lloyd's k-means on an evenly spread sample, started from a sparser one; nothing is drawn by lot.

    How far a query must look is then measured: see ``TARGET_RECALL``.

    Args:
        keys: ``[n, d]`` in the order of their ids, one or more.
        unit: whether keys and queries have length one.
        held: entries that the cells are for, where ``keys`` are only a part of them. The 16 nearest of half of them lie as far
            away as the 32 nearest of all, but are alike in more than that: measured, the cells that the 24 nearest of half
            need are those that the 32 nearest of all need.
    """
    held = len(keys) if held is None else max(held, len(keys))
    mean = keys.mean(axis=0, dtype=np.float64).astype(np.float32)
    cells = cells_for(held)
    sample = keys[_spread(len(keys), cells * _KEYS_PER_CELL)] - mean
    centres: KeyArray = np.unique(sample[_spread(len(sample), cells)], axis=0)
    for _ in range(_ITERATIONS):
        centres = _moved(sample, centres)
    partition = Partition(mean, centres, np.inf, 1.0, held, unit)
    behind = np.sort(np.concatenate([np.empty(0), *_behind_leaders(keys, partition)]))
    if not len(behind):
        return partition  # too few keys to measure with
    reach = max(0.0, float(behind[math.ceil(TARGET_RECALL * len(behind)) - 1]))
    return replace(partition, reach=reach, recall=float(np.mean(behind <= reach)))


def _spread(count: int, wanted: int) -> IntArray:
    """About ``wanted`` of ``count`` rows, spread evenly, without a period that could fall in step with one of the data."""
    if wanted >= count:
        return np.arange(count)
    places = np.arange(1, wanted + 1) * _GOLDEN % 1.0
    return np.unique((places * count).astype(np.int64))


def _moved(sample: KeyArray, centres: KeyArray) -> KeyArray:
    """Centres moved to the means of their keys; those without keys are dropped, and those that fell together are one."""
    extended = _extended_centres(centres)
    cells = _assign(sample, extended, np.ascontiguousarray(extended.T), _longest(extended))
    order = np.argsort(cells, kind="stable")
    _, starts, counts = np.unique(cells[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(sample[order], starts, axis=0, dtype=np.float64)
    moved: KeyArray = np.unique((sums / counts[:, None]).astype(np.float32), axis=0)
    return moved


def _extended_centres(centres: KeyArray) -> KeyArray:
    """``[cells, d + 1]`` so that an inner product with ``[key, -1]`` is greatest for the nearest centre.

    ``|x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2)``.
    """
    halves = (0.5 * rescore(centres, centres)).astype(np.float32)
    return np.concatenate((centres, halves[:, None]), axis=1)


def _longest(rows: KeyArray) -> float:
    return float(np.sqrt(rescore(rows, rows).max()))


def _assign(centred: KeyArray, extended: KeyArray, columns: KeyArray, longest: float) -> IntArray:
    """The nearest centre of every row; see ``Partition.assign``."""
    cells = np.empty(len(centred), dtype=np.int64)
    for start in range(0, len(centred), _ROWS):
        part = centred[start : start + _ROWS]
        rows: KeyArray = np.full((len(part), part.shape[1] + 1), -1.0, dtype=np.float32)
        rows[:, :-1] = part
        scores = np.matmul(rows, columns)
        every = np.arange(len(part))
        best = scores.argmax(axis=1)
        top = scores[every, best]
        margin = scan_margin(rows.shape[1], longest, np.sqrt(rescore(rows, rows)))
        floor = floor_below(top, margin)
        scores[every, best] = -np.inf
        for row in np.flatnonzero(scores.max(axis=1) >= floor).tolist():
            scores[row, best[row]] = top[row]
            close = np.flatnonzero(scores[row] >= floor[row])
            best[row] = close[rescore(extended[close], rows[row]).argmax()]
        cells[start : start + _ROWS] = best
    return cells


def _behind_leaders(keys: KeyArray, partition: Partition) -> Iterator[ScoreArray]:
    """For true neighbours of tested keys: by how much their cells score less than the 16th best cell of the tested key.

    Stretches of the keys themselves ask for their neighbours among keys that are not close by in the order of ids.
    """
    size = len(keys) // BLOCK * BLOCK
    wanted = max(1, _NEIGHBOURS * (partition.count + len(keys)) // (2 * partition.count))
    longest = _longest(keys)
    place = max(0, partition.cells - _LEADERS)
    for middle in ((np.arange(_STRETCHES) + 0.5) / _STRETCHES * size).astype(np.int64).tolist():
        start = max(0, middle - _STRETCH * _STRIDE // 2)
        queries = keys[start : start + _STRETCH * _STRIDE : _STRIDE]
        hidden = np.zeros(size, dtype=np.bool_)
        hidden[max(0, start - _APART) : start + _STRETCH * _STRIDE + _APART] = True
        if hidden.all():
            continue
        lengths = np.sqrt(rescore(queries, queries))
        found = candidates(keys[:size], hidden, queries, wanted, scan_margin(keys.shape[1], longest, lengths))
        for row, query in enumerate(queries):
            slots = found.slots[found.rows == row]
            slots = slots[best_first(rescore(keys[slots], query), slots, wanted)]
            scores = partition.exact_scores(query)
            yield np.partition(scores, place)[place] - scores[partition.assign(partition.centred(keys[slots]))]
