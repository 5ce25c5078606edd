"""The scan of bounds, compiled: for many queries at once, which keys may be among the nearest.

Keys lie in tiles, so few that the bounds of two queries with a whole tile never leave the processor's first cache. A bound
that reaches what the k-th best score is expected to be is followed by the score itself. What to expect is told by a sample of
the tiles, which come first; where in the end fewer than ``k`` reach it, the query is asked again without. What of the keys a
query may find is looked at for the few alone whose bounds are high enough.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from memory_store.machine_code import compiled_freely
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray

TILE: Final = 128
"""Keys of a tile."""
_SAMPLED: Final = 8
"""Every so manieth tile comes first."""
_HOPED: Final = 3
"""What one in so many of the neighbours wanted reach in the sample is expected: in all nearly three times as many as are wanted
should, so that seldom fewer do."""
_STEP: Final = 32
"""Bounds that are looked at one by one only if the largest of them is high enough."""
_NOTHING: Final = np.float32(-np.inf)
_LOWEST: Final = np.finfo(np.float32).min
_LAST_BITS: Final = np.float32(2.0**-22)
_SMALLEST: Final = np.float32(2.0**-126)
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)


class Sight(NamedTuple):
    """Which keys queries may find: those from ``first`` to before ``last`` that are not hidden and there at their time."""

    first: int
    last: int
    hidden: BoolArray
    """``[slots]``, or empty where nothing is hidden from all."""
    since: IntArray
    """``[slots]`` from which time on each may be found, or empty where all may."""
    until: IntArray
    """``[slots]`` from which time on no more, or empty likewise."""


class Asked(NamedTuple):
    """Queries, ``n`` of them."""

    turned: KeyArray
    """``[n, m + 1]`` of length one, turned as the keys."""
    queries: KeyArray
    """``[n, d]``."""
    length: ScoreArray
    """``[n]`` of the queries."""
    margin: ScoreArray
    """``[n]`` from ``scan_margin``."""
    times: IntArray
    """``[n]`` when each asks."""
    oldest: IntArray
    """``[n]`` first slot that each may find."""
    known: ScoreArray
    """``[n]`` a score that ``k`` keys elsewhere reach, or -inf."""

    def only(self, rows: IntArray) -> Asked:
        """Some of them."""
        return Asked(
            self.turned[rows],
            self.queries[rows],
            self.length[rows],
            self.margin[rows],
            self.times[rows],
            self.oldest[rows],
            self.known[rows],
        )


class Found(NamedTuple):
    """Room for what is found."""

    slots: IntArray
    """``[n, most]``."""
    scores: KeyArray
    """``[n, most]``."""
    number: IntArray
    """``[n]`` how many; :data:`TOO_MANY` or :data:`TOO_FEW` where the query has to be asked in another way."""


TOO_MANY: Final = -1
"""There is no room for all."""
TOO_FEW: Final = -2
"""Fewer than ``k`` reach what was expected."""


@compiled_freely
def scan(
    tiles: KeyArray, keys: KeyArray, sight: Sight, asked: Asked, k: int, slack: float, hopeful: bool, found: Found
) -> None:
    """Find for every query slots among which its ``k`` nearest are.

    Args:
        tiles: ``[slots / TILE, m + 1, TILE]``: coordinates, and lengths of the rests, of a tile's keys.
        keys: ``[slots, d]``.
        sight: of all queries.
        asked: the queries.
        k: neighbours wanted.
        slack: what a product of numbers too small for float32 may lose.
        hopeful: whether to expect what a sample says, or only what is known.
        found: written to.
    """
    # Taken out of their tuples once: compiled code counts the holders of what it takes out of one.
    turned, queries, times, oldest = asked.turned, asked.queries, asked.times, asked.oldest
    length, margin, known = asked.length, asked.margin, asked.known
    hidden, since, until = sight.hidden, sight.since, sight.until
    hides, begins, ends = len(hidden) > 0, len(since) > 0, len(until) > 0
    slots, scores, number = found.slots, found.scores, found.number
    n, most = slots.shape
    best, hopes = np.full((n, k), _NOTHING), np.full((n, -(-k // _HOPED)), _NOTHING)
    lowest, floor = np.empty(n, np.float64), np.empty(n, np.float32)
    for q in range(n):
        number[q] = 0
        lowest[q] = known[q] - margin[q]
        floor[q] = _rounded_down(lowest[q] / length[q] - slack)
    first, last = sight.first // TILE, -(-sight.last // TILE)
    bounds, others = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for sampled in range(2):
        for tile in range(first, last):
            if (tile % _SAMPLED == 0) != (sampled == 0):
                continue
            start = tile * TILE
            # Two queries at once, so that a number of a key is fetched once for both.
            for q in range(0, n, 2):
                p = min(q + 1, n - 1)
                if min(oldest[q], oldest[p]) >= start + TILE:
                    continue
                if p == q:
                    _multiply_one(tiles, tile, turned, q, bounds)
                else:
                    _multiply_two(tiles, tile, turned, q, p, bounds, others)
                for row in range(q, p + 1):
                    mine = bounds if row == q else others
                    if not _reaches(mine, 0, TILE, floor[row]):
                        continue
                    for step in range(0, TILE, _STEP):
                        if not _reaches(mine, step, step + _STEP, floor[row]):
                            continue
                        for slot in range(start + step, min(start + step + _STEP, sight.last)):
                            if mine[slot - start] < floor[row] or slot < oldest[row] or slot < sight.first:
                                continue
                            if hides and hidden[slot]:
                                continue
                            if (begins and since[slot] > times[row]) or (ends and until[slot] <= times[row]):
                                continue
                            score = _ZERO
                            for i in range(queries.shape[1]):
                                score += keys[slot, i] * queries[row, i]
                            if np.float64(score) < lowest[row]:
                                continue
                            if number[row] == most:
                                number[row] = _keep_near(lowest[row], slots[row], scores[row], most)
                                if number[row] == most:
                                    number[row], floor[row] = TOO_MANY, np.inf
                                    continue
                            slots[row, number[row]], scores[row, number[row]] = slot, score
                            number[row] += 1
                            raised = known[row]
                            if score > best[row, 0]:
                                _replace_least(best[row], score)
                                raised = max(raised, np.float64(best[row, 0]))
                            if hopeful and sampled == 0 and score > hopes[row, 0]:
                                _replace_least(hopes[row], score)
                            if hopeful:
                                raised = max(raised, np.float64(hopes[row, 0]))
                            if raised - margin[row] > lowest[row]:
                                lowest[row] = raised - margin[row]
                                floor[row] = _rounded_down(lowest[row] / length[row] - slack)
    for row in range(n):
        least = max(known[row], np.float64(best[row, 0]))
        if number[row] == TOO_MANY:
            continue
        if hopeful and hopes[row, 0] > least:
            number[row] = TOO_FEW
        else:
            number[row] = _keep_near(least - margin[row], slots[row], scores[row], number[row])


@compiled_freely
def _multiply_two(
    tiles: KeyArray, tile: int, turned: KeyArray, q: int, p: int, bounds: KeyArray, others: KeyArray
) -> None:
    """Bounds of two queries with the keys of a tile, ``[TILE]`` each."""
    numbers = turned.shape[1]
    whole = numbers - numbers % 4
    for j in range(TILE):
        bounds[j] = _ZERO
        others[j] = _ZERO
    for i in range(0, whole, 4):
        a, b, c, d = turned[q, i], turned[q, i + 1], turned[q, i + 2], turned[q, i + 3]
        e, f, g, h = turned[p, i], turned[p, i + 1], turned[p, i + 2], turned[p, i + 3]
        for j in range(TILE):
            w, x, y, z = tiles[tile, i, j], tiles[tile, i + 1, j], tiles[tile, i + 2, j], tiles[tile, i + 3, j]
            bounds[j] = bounds[j] + a * w + b * x + c * y + d * z
            others[j] = others[j] + e * w + f * x + g * y + h * z
    for i in range(whole, numbers):
        a, e = turned[q, i], turned[p, i]
        for j in range(TILE):
            bounds[j] += a * tiles[tile, i, j]
            others[j] += e * tiles[tile, i, j]


@compiled_freely
def _multiply_one(tiles: KeyArray, tile: int, turned: KeyArray, q: int, bounds: KeyArray) -> None:
    """The same of one query."""
    numbers = turned.shape[1]
    whole = numbers - numbers % 4
    for j in range(TILE):
        bounds[j] = _ZERO
    for i in range(0, whole, 4):
        a, b, c, d = turned[q, i], turned[q, i + 1], turned[q, i + 2], turned[q, i + 3]
        for j in range(TILE):
            w, x, y, z = tiles[tile, i, j], tiles[tile, i + 1, j], tiles[tile, i + 2, j], tiles[tile, i + 3, j]
            bounds[j] = bounds[j] + a * w + b * x + c * y + d * z
    for i in range(whole, numbers):
        a = turned[q, i]
        for j in range(TILE):
            bounds[j] += a * tiles[tile, i, j]


@compiled_freely
def _reaches(bounds: KeyArray, first: int, last: int, floor: np.float32) -> bool:
    """Whether one of some bounds reaches a floor. They are counted, as that is done several at a time and a maximum is not."""
    count = _ZERO
    for j in range(first, last):
        count += _ONE if bounds[j] >= floor else _ZERO
    return bool(count > _ZERO)


@compiled_freely
def _rounded_down(exact: float) -> np.float32:
    """A number of float32 that is not above."""
    if exact < _LOWEST:
        return np.float32(_LOWEST)
    rounded = np.float32(exact)
    return rounded - abs(rounded) * _LAST_BITS - _SMALLEST


@compiled_freely
def _keep_near(lowest: float, slots: IntArray, scores: KeyArray, number: int) -> int:
    """Drop what is further away than what is known by now; how many are left."""
    kept = 0
    for i in range(number):
        if np.float64(scores[i]) >= lowest:
            slots[kept], scores[kept] = slots[i], scores[i]
            kept += 1
    return kept


@compiled_freely
def _replace_least(heap: KeyArray, score: np.float32) -> None:
    """Put a score in the place of the least of a heap, which is its first."""
    count, place = len(heap), 0
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= score:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = score
