"""Whether a Sharpe ratio is above what luck shows, by the library ``purgedcv``; and intervals of it by resampling.

Bailey and Lopez de Prado, "The Sharpe ratio efficient frontier", 2012 (probabilistic ratio, equation 7; minimum track record
length, equation 11; https://ssrn.com/abstract=1821643) and "The deflated Sharpe ratio", 2014
(https://ssrn.com/abstract=2460551).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from backtest.evaluation.intervals import Figure, Resamples
from strategies.bars import FloatArray

_NO_SPREAD: Final = 1e-12
"""Below this a spread of daily returns is rounding, not volatility."""
_SHORTEST: Final = 8
"""Daily returns below which no interval is drawn."""


@dataclass(frozen=True, slots=True)
class Trials:
    """How often luck was asked."""

    count: int = 1
    """Settings that were tried, this one included."""
    variance: float = 0.0
    """Of their Sharpe ratios per day."""


@dataclass(frozen=True, slots=True)
class SharpeEvidence:
    """What a Sharpe ratio proves. ``None`` where returns do not move, or are too wild for the formula."""

    probabilistic: float | None
    deflated: float | None
    luckiest: float | None
    """Sharpe ratio per day to expect of the best of all trials without an edge."""
    minimum_days: float | None
    """``None`` where no length would do."""


def sharpe_evidence(returns: FloatArray, trials: Trials, *, level: float) -> SharpeEvidence:
    """Evidence that daily returns have a positive mean.

    Args:
        returns: simple daily returns, ``[n]``.
        trials: how many settings were tried, and how far apart their ratios are.
        level: of the minimum track record length.
    """
    if not moves(returns):
        return SharpeEvidence(None, None, None, None)
    # The library loads scikit-learn, which takes a second.
    from purgedcv import deflated_sharpe_ratio_full, min_track_record_length, probabilistic_sharpe_ratio

    try:
        found = deflated_sharpe_ratio_full(returns, trials.count, trials.variance)
        needed = min_track_record_length(found.observed_sr, 0.0, level, found.skew, found.kurt)
        probabilistic = probabilistic_sharpe_ratio(returns, 0.0)
    except ValueError:
        return SharpeEvidence(None, None, None, None)
    return SharpeEvidence(probabilistic, found.dsr, found.sr_star, needed if math.isfinite(needed) else None)


def moves(returns: FloatArray) -> bool:
    """Whether there are returns to judge at all."""
    return len(returns) >= _SHORTEST and float(returns.std()) > _NO_SPREAD


def daily_sharpe(returns: FloatArray) -> float | None:
    """Mean over standard deviation (ddof 1) of daily returns, not annualised; ``None`` where they do not move."""
    return float(returns.mean() / returns.std(ddof=1)) if moves(returns) else None


def block_length(values: FloatArray) -> int:
    """Mean length of the stretches of a stationary bootstrap: Politis and White's, as corrected (Patton, Politis and White
    2009), by ``arch``; at least 1 and at most a quarter of the values."""
    from arch.bootstrap import optimal_block_length

    chosen = float(optimal_block_length(values)["stationary"].iloc[0])
    return max(1, min(round(chosen) if math.isfinite(chosen) else 1, len(values) // 4))


@dataclass(frozen=True, slots=True)
class ReturnIntervals:
    """Annual figures of daily returns, with intervals of a stationary bootstrap (Politis and Romano 1994)."""

    sharpe_ratio: Figure
    annual_return: Figure


def return_intervals(
    returns: FloatArray, days_per_year: int, *, level: float, resamples: int, seed: int
) -> ReturnIntervals:
    """Annual Sharpe ratio and geometric return of daily returns.

    Args:
        returns: simple daily returns, ``[n]``, above -1.
        days_per_year: of the calendar.
        level: share of the resamples outside the intervals.
        resamples: how many.
        seed: of the draws.
    """
    if not moves(returns):
        return ReturnIntervals(Figure(None), Figure(None))
    count, logs = len(returns), np.log1p(returns)

    def ratio(weights: FloatArray) -> FloatArray:
        total = weights.sum(axis=-1)
        mean = weights @ returns / total
        variance = np.maximum(weights @ returns**2 / total - mean**2, 0.0) * count / (count - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = mean / np.sqrt(variance) * math.sqrt(days_per_year)
        return np.where(np.isfinite(drawn), drawn, np.nan)

    def growth(weights: FloatArray) -> FloatArray:
        exponent = days_per_year * (weights @ logs) / weights.sum(axis=-1)
        return np.asarray(np.expm1(np.minimum(exponent, 700.0)))

    drawn = Resamples.draw(count, block_length(returns), resamples=resamples, seed=seed)
    return ReturnIntervals(drawn.figure(ratio, level=1.0 - level), drawn.figure(growth, level=1.0 - level))
