"""The probability of a rise that a forecast distribution implies."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import exp, log


def raw_rise_probability(probabilities: Sequence[float], quantiles: Sequence[float]) -> float:
    """Probability that an outcome above 0 follows, from the quantiles of the forecast, in [0, 1].

    Between quantiles the distribution function is linear. Beyond the outermost it falls off exponentially, at the rate that
    the last two of that side show; where these are equal, nothing is beyond. An outcome of exactly 0 counts half.

    Args:
        probabilities: of the levels, increasing, two or more, strictly between 0 and 1.
        quantiles: not decreasing.
    """
    if quantiles[0] > 0.0:
        return 1.0 - _tail(probabilities[0], probabilities[1], quantiles[0], quantiles[1])
    if quantiles[-1] < 0.0:
        return _tail(1.0 - probabilities[-1], 1.0 - probabilities[-2], -quantiles[-1], -quantiles[-2])
    low, high = bisect_left(quantiles, 0.0), bisect_right(quantiles, 0.0)
    if low < high:
        return 1.0 - 0.5 * (probabilities[low] + probabilities[high - 1])
    before, after = quantiles[low - 1], quantiles[low]
    part = -before / (after - before)
    return 1.0 - (probabilities[low - 1] + part * (probabilities[low] - probabilities[low - 1]))


def _tail(outer: float, inner: float, outermost: float, next_to_it: float) -> float:
    """Probability of being more than ``outermost`` below the outermost quantile.

    ``outer exp(-outermost / rate)`` goes through both quantiles, whose probabilities are ``outer`` and ``inner``.
    """
    rate = (next_to_it - outermost) / log(inner / outer)
    return outer * exp(-outermost / rate) if rate > 0.0 else 0.0
