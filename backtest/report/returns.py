"""Returns of an account by day and by month, and how they were over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from backtest import metrics
from backtest.metrics import daily_equity, daily_returns
from strategies.bars import DAY_MS, BarSeries, Calendar, FloatArray, IntArray

ROLLING_DAYS: Final = 60
"""Of the specification's rolling Sharpe ratio."""
_NO_SPREAD: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class DailyReturns:
    """Simple returns of every day of a run."""

    days: IntArray
    """``[n]`` UTC days since the epoch."""
    returns: FloatArray
    """``[n]`` fractions."""

    @property
    def times(self) -> IntArray:
        """End of every day, ``[n]`` milliseconds."""
        return (self.days + 1) * DAY_MS

    def __len__(self) -> int:
        return len(self.days)


def returns_by_day(
    close_times: IntArray, equity: FloatArray, initial_cash: float, calendar: Calendar, *, started_at: int | None = None
) -> DailyReturns:
    """Daily returns of an equity curve; none where equity was gone on any day. See ``daily_equity`` for the arguments."""
    days, levels = daily_equity(close_times, equity, initial_cash, calendar, started_at=started_at)
    returns = daily_returns(levels)
    return DailyReturns(days if len(returns) else days[:0], returns)


def rolling_sharpe(daily: DailyReturns, days_per_year: int, window: int = ROLLING_DAYS) -> tuple[IntArray, FloatArray]:
    """Annualised mean over standard deviation (ddof 1) of the last ``window`` days, and the times of their ends,
    milliseconds; NaN where returns did not move. Nothing at all while there are fewer days."""
    if len(daily) < window:
        return np.empty(0, dtype=np.int64), np.empty(0)
    windows = np.lib.stride_tricks.sliding_window_view(daily.returns, window)
    spread = windows.std(axis=1, ddof=1)
    ratio = np.full(len(windows), np.nan)
    np.divide(windows.mean(axis=1), spread, out=ratio, where=spread > _NO_SPREAD)
    return daily.times[window - 1 :], ratio * np.sqrt(days_per_year)


def monthly_returns(daily: DailyReturns) -> dict[tuple[int, int], float]:
    """Return of every calendar month that has a day, by year and month."""
    return {(each.year, each.month): each.total_return for each in metrics.monthly_returns(daily.days, daily.returns)}


def yearly_returns(monthly: dict[tuple[int, int], float]) -> dict[int, float]:
    """Return of every calendar year, from its months."""
    growth: dict[int, float] = {}
    for (year, _), change in monthly.items():
        growth[year] = growth.get(year, 1.0) * (1.0 + change)
    return {year: factor - 1.0 for year, factor in growth.items()}


def hold_equally(candles: dict[str, BarSeries], initial_cash: float) -> tuple[IntArray, FloatArray]:
    """Equity of an account that buys every symbol for the same money at the first open and keeps it, without costs.

    Returns:
        Close times ``[n]`` in milliseconds and equity ``[n]`` in quote units; empty where there are no candles.
    """
    held = [series for series in candles.values() if len(series)]
    if not held:
        return np.empty(0, dtype=np.int64), np.empty(0)
    times = np.unique(np.concatenate([series.close_time for series in held]))
    total = np.zeros(len(times))
    for series in held:
        at = np.searchsorted(series.close_time, times, side="right")
        growth = np.concatenate(([1.0], series.close / series.open[0]))[at]
        total += initial_cash / len(held) * growth
    return times, total
