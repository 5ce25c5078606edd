"""Exact scores and who is best by them, compiled: the one routine that decides, whoever proposed.

A score is an inner product of float32 factors whose products, exact in float64, are added in an order that depends on the
dimension alone: eight sums of every eighth product, these pairwise, then what is left; and so for every 128 products.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from memory_store.machine_code import compiled, fixed
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray

_LANES: Final = 8
_BLOCK: Final = 128
NOBODY: Final = -1
"""An id that no entry has."""


class Best(NamedTuple):
    """The best of ``n`` queries so far, best first, equal scores in the order of ids; written to."""

    ids: IntArray
    """``[n, k]``, :data:`NOBODY` where there are fewer."""
    scores: ScoreArray
    """``[n, k]``, -inf where there are fewer."""
    numbers: IntArray
    """``[n]`` how many there are."""

    @classmethod
    def none(cls, n: int, k: int) -> Best:
        """Nobody yet."""
        return cls(np.full((n, k), NOBODY, dtype=np.int64), np.full((n, k), -np.inf), np.zeros(n, dtype=np.int64))

    @classmethod
    def of(cls, ids: IntArray, scores: ScoreArray, kept: BoolArray, k: int) -> Best:
        """At most ``k`` of those ``kept`` among some, ``[n, m]`` each, that are in their order already."""
        best = cls.none(len(ids), k)
        _keep(fixed(ids), fixed(scores), fixed(kept), best)
        return best


@compiled
def score_rows(keys: KeyArray, queries: KeyArray, scores: ScoreArray) -> None:
    """Scores of every row of ``[m, d]`` with its own of ``[m, d]``, or with the only one of ``[1, d]``."""
    several = len(queries) > 1
    for row in range(len(keys)):
        scores[row] = _score(keys[row], queries[row if several else 0])


@compiled
def add_pairs(keys: KeyArray, ids: IntArray, queries: KeyArray, rows: IntArray, slots: IntArray, best: Best) -> None:
    """Let candidates in among the best where they belong.

    Args:
        keys: ``[slots, d]``.
        ids: ``[slots]``.
        queries: ``[n, d]``.
        rows: ``[m]`` which query a candidate is one of.
        slots: ``[m]`` where it lies.
        best: none of the candidates is among them yet.
    """
    # Taken out once: compiled code counts the holders of what it takes out of a tuple.
    best_ids, best_scores, numbers = best.ids, best.scores, best.numbers
    for pair in range(len(rows)):
        row, slot = rows[pair], slots[pair]
        score = _score(keys[slot], queries[row])
        numbers[row] = _let_in(best_ids, best_scores, row, numbers[row], ids[slot], score)


@compiled
def _keep(ids: IntArray, scores: ScoreArray, kept: BoolArray, best: Best) -> None:
    best_ids, best_scores, numbers = best.ids, best.scores, best.numbers
    n, k = best_ids.shape
    for row in range(n):
        number = 0
        for place in range(ids.shape[1]):
            if kept[row, place] and number < k:
                best_ids[row, number], best_scores[row, number] = ids[row, place], scores[row, place]
                number += 1
        numbers[row] = number


@compiled
def _let_in(ids: IntArray, scores: ScoreArray, row: int, number: int, own_id: int, score: float) -> int:
    """Put one where it belongs in a row; how many there are then."""
    place, most = number, ids.shape[1]
    if number == most:
        place -= 1
        if scores[row, place] > score or (scores[row, place] == score and ids[row, place] < own_id):
            return number
    while place > 0:
        other = scores[row, place - 1]
        if other > score or (other == score and ids[row, place - 1] < own_id):
            break
        ids[row, place], scores[row, place] = ids[row, place - 1], other
        place -= 1
    ids[row, place], scores[row, place] = own_id, score
    return number + 1 if number < most else most


@compiled
def _score(key: KeyArray, query: KeyArray) -> float:
    total = 0.0
    for start in range(0, len(key), _BLOCK):
        total += _score_of_block(key[start : start + _BLOCK], query[start : start + _BLOCK])
    return total


@compiled
def _score_of_block(key: KeyArray, query: KeyArray) -> float:
    count = len(key)
    whole = count - count % _LANES
    total = 0.0
    if whole:
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        e, f, g, h = 0.0, 0.0, 0.0, 0.0
        for i in range(0, whole, _LANES):
            a += np.float64(key[i]) * np.float64(query[i])
            b += np.float64(key[i + 1]) * np.float64(query[i + 1])
            c += np.float64(key[i + 2]) * np.float64(query[i + 2])
            d += np.float64(key[i + 3]) * np.float64(query[i + 3])
            e += np.float64(key[i + 4]) * np.float64(query[i + 4])
            f += np.float64(key[i + 5]) * np.float64(query[i + 5])
            g += np.float64(key[i + 6]) * np.float64(query[i + 6])
            h += np.float64(key[i + 7]) * np.float64(query[i + 7])
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(whole, count):
        total += np.float64(key[i]) * np.float64(query[i])
    return total
