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


@dataclass(frozen=True, slots=True)
class Drawdown:
    """A fall from one highest value to the next."""

    depth: float
    """Fraction of the peak, below 0."""
    peak: int
    """Time of the peak, milliseconds; the first close where it is what the account began with."""
    trough: int
    end: int | None
    """When the peak was reached again; ``None`` where the run ended before."""
    days: float
    """From the peak to the end, or to the end of the run."""


def deepest_drawdowns(times: IntArray, equity: FloatArray, initial_cash: float, most: int = 5) -> list[Drawdown]:
    """The deepest falls of an account, the deepest first; each counts once, from its peak until the peak is reached again.

    Args:
        times: of the equity, ``[n]`` milliseconds, increasing.
        equity: ``[n]`` quote units.
        initial_cash: the first peak.
        most: how many.
    """
    falls = metrics.drawdowns(equity, initial_cash)
    below = np.flatnonzero(falls < 0.0)
    if not len(below):
        return []
    spells = np.split(below, np.flatnonzero(np.diff(below) > 1) + 1)
    spells.sort(key=lambda rows: float(falls[rows].min()))
    found = []
    for rows in spells[:most]:
        first, last = int(rows[0]), int(rows[-1])
        peak, ended = int(times[max(0, first - 1)]), last + 1 < len(times)
        end = int(times[last + 1]) if ended else None
        over = int(times[last]) if end is None else end
        trough = int(rows[falls[rows].argmin()])
        found.append(Drawdown(float(falls[trough]), peak, int(times[trough]), end, (over - peak) / DAY_MS))
    return found


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
