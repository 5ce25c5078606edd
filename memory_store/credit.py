"""Credit: how much each neighbour improved the forecast that it took part in.

The forecast is the weighted mean of the neighbours' outcomes. When the asker's own outcome is known, a neighbour is
credited with what the error would have been without it, less what it was: leave-one-out, so positive for good advice and
negative for bad. Outcomes are measured in outcome scales, those beyond ``LARGEST_OUTCOME`` as that, and credit is counted in
whole units of ``2**-32`` of a scale. So a sum of credits does not depend on the order in which they came, and a bank
filled from storage has the same to the last bit.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from memory_store.records import IntArray, ScoreArray

LARGEST_OUTCOME: Final = 1024.0
"""Outcome scales beyond which an outcome counts no more: one glitch must not outweigh everything that was learned."""
LARGEST_CREDIT: Final = 2**50
"""Units beyond which credit does not grow, 262,144 outcome scales: below it a float64 keeps every unit."""
UNITS: Final = 2.0**32
"""Units in an outcome scale."""


def leave_one_out(outcome: ScoreArray, outcomes: ScoreArray, weights: ScoreArray) -> IntArray:
    """Credit of the neighbours of ``n`` decisions, ``[n, k]`` in units.

    Sums run along the neighbours from both ends, so that nothing is subtracted that was added before, and masked places
    at the end change no bit.

    Args:
        outcome: ``[n]`` what followed each decision, in outcome scales.
        outcomes: ``[n, k]`` what had followed its neighbours, in outcome scales; any number where the weight is 0.
        weights: ``[n, k]`` not negative, with a positive sum per row; 0 in masked places.
    """
    weights = weights / weights.max(axis=1, keepdims=True)
    votes = weights * outcomes
    error = np.abs(outcome[:, None] - (_total(votes) / _total(weights)))
    left = _others(weights)
    alone = left == 0.0
    without = np.where(alone, 0.0, _others(votes) / np.where(alone, 1.0, left))
    credit: IntArray = np.rint((np.abs(outcome[:, None] - without) - error) * UNITS).astype(np.int64)
    credit[weights == 0.0] = 0
    return credit


def in_scales(outcomes: ScoreArray, scale: float) -> ScoreArray:
    """Outcomes in outcome scales, none beyond the largest that counts."""
    largest = LARGEST_OUTCOME * scale
    scaled: ScoreArray = np.minimum(np.maximum(outcomes, -largest), largest) / scale
    return scaled


def credit_in_scales(units: int) -> float:
    """Credit in outcome scales."""
    return units / UNITS


def credit_in_outcomes(units: int, scale: float) -> float:
    """Credit in units of the outcome."""
    return units / UNITS * scale


def credit_in_units(credit: float, scale: float) -> int:
    """Units of a credit, those of ``credit_in_outcomes`` to the last."""
    return round(credit / scale * UNITS)


def _total(values: ScoreArray) -> ScoreArray:
    """``[n, 1]`` sums of rows, added from the left."""
    return np.cumsum(values, axis=1)[:, -1:]


def _others(values: ScoreArray) -> ScoreArray:
    """``[n, k]`` for every place the sum of the other places of its row."""
    others = np.zeros_like(values)
    others[:, 1:] = np.cumsum(values, axis=1)[:, :-1]
    others[:, :-1] += np.cumsum(values[:, ::-1], axis=1)[:, -2::-1]
    return others
