"""Exact nearest neighbours by inner product: a fast float32 scan proposes, one float64 routine decides.

The scan runs on the BLAS, whose last bits depend on shapes and threads. So it only narrows the field, with a margin that
covers its rounding, and every survivor is scored again by ``rescore``. Results therefore do not depend on how candidates
were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from memory_store.machine_code import fixed
from memory_store.ranking import score_rows
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray

Number = TypeVar("Number", bound=np.number[Any])

BLOCK: Final = 64
"""Scores that share one maximum; the arrays scanned have a multiple of this many rows."""
LARGEST_NORM: Final = 1e18
"""Longest key or query: the product of two such lengths is far from overflowing float32."""
GIVE_UP: Final = 4096
"""Candidates of one query beyond which a bulk scan leaves it to a search of its own."""
_SCAN_SCORES: Final = 1 << 20
_UNIT_ROUNDOFF: Final = 2.0**-24
_SMALLEST_NORMAL: Final = 2.0**-126
_LOWEST: Final = np.finfo(np.float32).min


def rescore(keys: KeyArray, query: KeyArray) -> ScoreArray:
    """Inner products of rows, the same to the last bit however many rows are asked at once.

    They are added in float64, in an order that depends on the dimension alone: see :mod:`memory_store.ranking`.

    Args:
        keys: ``[m, d]``.
        query: ``[d]``, or ``[m, d]`` for a query per row.

    Returns:
        ``[m]``.

    Raises:
        ValueError: they do not fit each other: compiled code, which checks no bounds, would read past their end.
    """
    queries = query if query.ndim == 2 else query[None]
    if keys.shape[1] != queries.shape[1] or len(queries) not in (1, len(keys)):
        raise ValueError(f"queries of shape {query.shape} do not fit keys of shape {keys.shape}")
    scores = np.empty(len(keys), dtype=np.float64)
    score_rows(fixed(keys), fixed(queries), scores)
    return scores


def scan_margin(dimension: int, key_norm: float, query_norm: ScoreArray) -> ScoreArray:
    """How far below the threshold a scanned score may lie and its row still be among the best, ``[n]``.

    A float32 inner product, summed in any order, is off by at most ``gamma_d |k| |q|`` with ``gamma_d = d u / (1 - d u)``
    and ``u = 2**-24`` (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), plus a smallest
    normal number per product that underflows. Both the threshold and the row may be off by that much.

    Args:
        dimension: numbers in a key.
        key_norm: upper bound of the length of all keys.
        query_norm: ``[n]`` lengths of the queries.
    """
    rounding = (dimension + 2) * _UNIT_ROUNDOFF
    error = rounding / (1.0 - rounding) * key_norm * query_norm + 2 * dimension * _SMALLEST_NORMAL
    return 2.0 * error


def best_first(scores: ScoreArray, ids: IntArray, k: int) -> IntArray:
    """Positions of the ``k`` best scores, best first, equal scores in the order of ids; of all if there are fewer."""
    if len(scores) <= k:
        return np.lexsort((ids, -scores))
    kth = np.partition(scores, -k)[-k]
    kept = np.flatnonzero(scores >= kth)
    return kept[np.lexsort((ids[kept], -scores[kept]))[:k]]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Pairs of a query and a slot that may be one of its nearest."""

    rows: IntArray
    """Which query."""
    slots: IntArray
    complete: BoolArray
    """``[n]``: False where a query was given up, because too many slots came close, and has no pairs."""


def candidates(
    keys: KeyArray, hidden: BoolArray, queries: KeyArray, k: int, margin: ScoreArray, *, give_up: int | None = None
) -> Candidates:
    """For every query, slots among which its ``k`` nearest are, found by a float32 scan.

    Scores are cut into blocks. The k-th largest block maximum seen so far has at least ``k`` scores at or above it, so it
    is a lower bound of the k-th best score; only blocks that reach it, less the margin, are looked into.

    Args:
        keys: ``[size, d]``, ``size`` a multiple of ``BLOCK``.
        hidden: ``[size]``, True where a slot must not be found.
        queries: ``[n, d]``.
        k: neighbours wanted.
        margin: ``[n]`` from ``scan_margin``.
        give_up: leave out queries with more candidates than this.
    """
    n, size = len(queries), len(keys)
    width = size if n == 1 else min(size, max(BLOCK, _SCAN_SCORES // n // BLOCK * BLOCK))
    buffer = np.empty(n * width, dtype=np.float32)
    leaders = np.full((n, k), -np.inf, dtype=np.float32)
    seen = np.zeros(n, dtype=np.int64)
    complete = np.ones(n, dtype=np.bool_)
    found = []
    for start in range(0, size, width):
        stop = min(start + width, size)
        scores = np.matmul(queries, keys[start:stop].T, out=buffer[: n * (stop - start)].reshape(n, stop - start))
        scores[:, np.flatnonzero(hidden[start:stop])] = -np.inf
        blocks = scores.reshape(n, _block_length(stop - start, k), -1)
        peaks = blocks.max(axis=1)
        leaders = _largest(np.concatenate((leaders, peaks), axis=1), k)
        floor = _floor(leaders, margin)
        floor[~complete] = np.inf
        rows, slots, values = _reaching(blocks, peaks, floor)
        found.append((rows, slots + start, values))
        if give_up is not None:
            seen += np.bincount(rows, minlength=n)
            complete = seen <= give_up
    rows, slots, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    keep = complete[rows] & (values >= _floor(leaders, margin)[rows])
    return Candidates(rows[keep], slots[keep], complete)


def _block_length(count: int, k: int) -> int:
    """Scores per block: shorter where ``k`` blocks would be most of them and the bound loose."""
    length = BLOCK
    while length > 1 and count < 8 * k * length:
        length //= 2
    return length


def _largest(values: KeyArray, k: int) -> KeyArray:
    """The ``k`` largest of every row, the smallest of them first."""
    return np.partition(values, -k, axis=1)[:, -k:]


def _floor(leaders: KeyArray, margin: ScoreArray) -> KeyArray:
    """``[n]`` lowest scanned score worth a second look; never as low as the -inf of a hidden slot."""
    floor = (leaders[:, 0].astype(np.float64) - margin).astype(np.float32)
    return np.maximum(np.nextafter(floor, np.float32(-np.inf)), _LOWEST)


def _reaching(
    blocks: npt.NDArray[Number], peaks: npt.NDArray[Number], floor: npt.NDArray[Number]
) -> tuple[IntArray, IntArray, npt.NDArray[Number]]:
    """Row, slot and score of every score that reaches its row's floor, in the order of rows.

    Args:
        blocks: ``[n, length, count]`` scores: slot ``s`` lies at ``[s // count, s % count]``.
        peaks: ``[n, count]`` maxima of the blocks.
        floor: ``[n]``.

    Slots that follow each other lie in different blocks, so that neighbours in time, whose keys are alike, do not crowd
    into a few blocks and loosen the bound.
    """
    count = blocks.shape[2]
    rows, columns = _places(peaks >= floor[:, None])
    places = (rows * (blocks.shape[1] * count) + columns)[:, None] + np.arange(blocks.shape[1]) * count
    scores = blocks.reshape(-1).take(places)
    high = np.flatnonzero(scores >= floor.take(rows)[:, None])
    rows = rows.take(high // blocks.shape[1])
    return rows, places.reshape(-1).take(high) - rows * (blocks.shape[1] * count), scores.reshape(-1).take(high)


def _places(marked: BoolArray) -> tuple[IntArray, IntArray]:
    """Row and column of every mark: ``np.nonzero``, which is several times slower on two axes than on one."""
    flat = np.flatnonzero(marked)
    rows = flat // marked.shape[1]
    return rows, flat - rows * marked.shape[1]
