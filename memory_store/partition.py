"""Cells of key space: every key belongs to one, and a query looks into those nearest to it.

All of it is a pure function of numbers: sums run in a fixed order in float64, and where a float32 product cannot tell two
cells apart, ``rescore`` decides. So the same keys give the same cells, and the same cells take the same keys, however many
are handled at once and by however many threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from memory_store.index import BLOCK, best_first, candidates, rescore, scan_margin
from memory_store.records import IntArray, KeyArray
from memory_store.shortlist import floor_below

TARGET_RECALL: Final = 0.995
"""Share of the true neighbours that the cells looked into must hold, measured on the keys that they were fitted to."""
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
    probes: int
    """Cells that a query looks into when all entries are visible."""
    recall: float
    """Share of true neighbours found in them when the cells were fitted."""
    count: int
    """Entries that they are for."""
    _extended: KeyArray = field(init=False, repr=False)
    _columns: KeyArray = field(init=False, repr=False)
    _extended_columns: KeyArray = field(init=False, repr=False)
    _longest: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        extended = _extended_centres(self.centres)
        object.__setattr__(self, "_extended", extended)
        object.__setattr__(self, "_columns", np.ascontiguousarray(self.centres.T))
        object.__setattr__(self, "_extended_columns", np.ascontiguousarray(extended.T))
        object.__setattr__(self, "_longest", (_longest(self.centres), _longest(extended)))

    @property
    def cells(self) -> int:
        """How many there are."""
        return len(self.centres)

    def probes_among(self, visible: int) -> int:
        """Cells to look into when only so many entries are visible: then the nearest of them lie further away.

        A third more for every halving: measured on encoder keys, where an eighth visible needs about 2.3 times the cells.
        """
        halvings = max(0, (self.count // max(visible, 1)).bit_length() - 1)
        thirds: int = -(-self.probes * 4**halvings // 3**halvings)
        return min(self.cells, thirds)

    def centred(self, keys: KeyArray) -> KeyArray:
        """Keys relative to the mean, same shape."""
        return keys - self.mean

    def assign(self, centred: KeyArray) -> IntArray:
        """The cell of every centred key, ``[n]``: that of the nearest centre, of equally near ones the first."""
        return _assign(centred, self._extended, self._extended_columns, self._longest[1])

    def nearest(self, query: KeyArray, count: int) -> IntArray:
        """The ``count`` cells whose centres have the largest inner product with a query ``[d]``; ties go to the first.

        They come about in the order of these products: who looks into the best first soon knows how good is good enough.
        """
        cells = len(self.centres)
        if count >= cells:
            return np.arange(cells)
        scores = np.matmul(query, self._columns)
        kth = float(np.partition(scores, cells - count)[cells - count])
        length = float(np.sqrt(rescore(query[None], query[None])[0]))
        margin = float(scan_margin(len(query), self._longest[0], np.array([length]))[0])
        near = np.flatnonzero(scores >= kth - margin)
        if len(near) == count:
            return near[np.argsort(-scores[near])]
        sure = np.flatnonzero(scores > kth + margin)
        close = np.setdiff1d(near, sure, assume_unique=True)
        best = best_first(rescore(self.centres[close], query), close, count - len(sure))
        return np.concatenate((sure, close[best]))


def cells_for(count: int) -> int:
    """How many cells to cut so many keys into: a power of two, about four times the square root."""
    return 1 << max(0, round(math.log2(4.0 * max(count, 1) ** 0.5)))


def fit_partition(keys: KeyArray, *, held: int | None = None) -> Partition:
    """Learn cells from keys: Lloyd's k-means on an evenly spread sample, started from a sparser one; nothing is drawn by lot.

    How many cells a query must look into is then measured: see ``TARGET_RECALL``.

    Args:
        keys: ``[n, d]`` in the order of their ids, one or more.
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
    partition = Partition(mean, centres, len(centres), 1.0, held)
    for probes, recall in _recall_curve(keys, partition):
        if recall >= TARGET_RECALL:
            return Partition(mean, centres, probes, recall, held)
    return partition


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


def _recall_curve(keys: KeyArray, partition: Partition) -> Iterator[tuple[int, float]]:
    """Probes and the share of true neighbours found with so many, in increasing order.

    Stretches of the keys themselves ask for their neighbours among keys that are not close by in the order of ids.
    """
    ranks = [ranks for ranks in _neighbour_ranks(keys, partition) if len(ranks)]
    if not ranks:
        return iter(())  # too few keys to measure with
    counts = np.bincount(np.concatenate(ranks), minlength=partition.cells)
    found = np.cumsum(counts) / counts.sum()
    return zip(range(1, partition.cells + 1), found.tolist(), strict=True)


def _neighbour_ranks(keys: KeyArray, partition: Partition) -> Iterator[IntArray]:
    """For true neighbours of tested keys: how many cells are nearer to the tested key than the neighbour's own."""
    size = len(keys) // BLOCK * BLOCK
    wanted = max(1, _NEIGHBOURS * (partition.count + len(keys)) // (2 * partition.count))
    longest = _longest(keys)
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
            order = np.lexsort((np.arange(partition.cells), -rescore(partition.centres, query)))
            rank = np.empty(partition.cells, dtype=np.int64)
            rank[order] = np.arange(partition.cells)
            yield rank[partition.assign(partition.centred(keys[slots]))]
