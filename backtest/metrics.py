"""Performance of a run: what an equity curve and its closed trades say, and nothing where they say nothing.

Ratios come from UTC-daily equity, so that the same account gets the same numbers whether it was sampled every minute or
once a day. Drawdowns come from every bar, because that is where an account would have been closed out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from bot.portfolio import ClosedTrade
from strategies.bars import DAY_MS, Calendar, FloatArray, IntArray

# Below this a spread of daily returns is rounding of the equity's last bits, not volatility.
_NO_SPREAD: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Metrics:
    """Performance figures. Returns and ratios are fractions; ``None`` where a figure is not defined."""

    initial_cash: float
    """Quote units."""
    final_equity: float
    """Quote units; equals ``initial_cash`` when there was no bar."""
    days: int
    """Observations of daily return: UTC days of a continuous market, session days of one with sessions."""
    total_return: float
    annual_return: float | None
    """Geometric, by elapsed calendar time."""
    volatility: float | None
    """Annualised standard deviation (ddof 1) of daily returns."""
    sharpe_ratio: float | None
    """Annualised mean over standard deviation of daily returns (Sharpe 1994), with a riskless rate of zero."""
    sortino_ratio: float | None
    """As above over the downside deviation, the root of the mean of min(r, 0)^2 over *all* days (Sortino 1994)."""
    calmar_ratio: float | None
    """``annual_return`` over the depth of ``max_drawdown``."""
    max_drawdown: float
    """Deepest fall below an earlier peak of bar-level equity, as a fraction of that peak; at most 0."""
    max_drawdown_days: float
    """Longest time from a peak until it was reached again, or until the span ended, in days."""
    best_day: float | None
    worst_day: float | None
    trades: int
    """Closed round trips."""
    win_rate: float | None
    """Share of closed trades with a profit after fees and funding."""
    profit_factor: float | None
    """Sum of winning over sum of losing trades, both net of costs."""
    expectancy: float | None
    """Mean net profit of a closed trade as a fraction of its entry value."""
    fees_paid: float
    """Quote units."""
    funding_paid: float
    """Quote units; negative when more was received."""
    turnover: float
    """Sum of all notional traded, in quote units."""

    def to_json(self) -> dict[str, float | int | None]:
        """Every figure under its own name, ready for strict JSON: fractions, ``None`` for what is undefined."""
        return asdict(self)


def performance(
    close_times: IntArray,
    equity: FloatArray,
    trades: Sequence[ClosedTrade],
    *,
    initial_cash: Decimal | float,
    calendar: Calendar,
    fees_paid: Decimal | float = 0.0,
    funding_paid: Decimal | float = 0.0,
    turnover: Decimal | float = 0.0,
) -> Metrics:
    """Figures of a run.

    Args:
        close_times: close of every bar batch, ``[n]`` milliseconds, strictly increasing.
        equity: equity at these closes, ``[n]`` quote units.
        trades: closed round trips.
        initial_cash: equity before the first bar.
        calendar: when the market is open; decides what a day and a year are.
        fees_paid: fees over the run, quote units.
        funding_paid: funding over the run, quote units.
        turnover: notional traded over the run, quote units.

    Raises:
        ValueError: the arrays differ in length, times do not increase, equity is not finite, or there is no cash to
            start with.
    """
    start_cash = float(initial_cash)
    _refuse_nonsense(close_times, equity, start_cash)
    final_equity = float(equity[-1]) if len(equity) else start_cash
    _, daily = daily_equity(close_times, equity, start_cash, calendar)
    returns = daily_returns(daily)
    annual_return = _annual_return(close_times, final_equity / start_cash, len(daily) - 1, calendar)
    volatility, sharpe, sortino = _ratios(returns, calendar.days_per_year)
    depth, length = _drawdown(close_times, equity, start_cash)
    profits = [float(trade.profit) for trade in trades]
    return Metrics(
        initial_cash=start_cash,
        final_equity=final_equity,
        days=len(daily) - 1,
        total_return=final_equity / start_cash - 1.0,
        annual_return=annual_return,
        volatility=volatility,
        sharpe_ratio=sharpe,
        sortino_ratio=sortino,
        calmar_ratio=None if annual_return is None else _quotient(annual_return, -depth),
        max_drawdown=depth,
        max_drawdown_days=length,
        best_day=float(returns.max()) if len(returns) else None,
        worst_day=float(returns.min()) if len(returns) else None,
        trades=len(trades),
        win_rate=_quotient(sum(profit > 0.0 for profit in profits), len(profits)),
        profit_factor=_quotient(
            math.fsum(profit for profit in profits if profit > 0.0),
            -math.fsum(profit for profit in profits if profit < 0.0),
        ),
        expectancy=_quotient(math.fsum(_trade_return(trade) for trade in trades), len(trades)),
        fees_paid=float(fees_paid),
        funding_paid=float(funding_paid),
        turnover=float(turnover),
    )


def drawdowns(equity: FloatArray, initial_cash: float) -> FloatArray:
    """How far equity is below its highest value so far (the initial cash included), ``[n]`` fractions, at most 0."""
    peaks = np.maximum.accumulate(np.maximum(equity, initial_cash))
    return np.asarray(equity / peaks - 1.0)


def _refuse_nonsense(close_times: IntArray, equity: FloatArray, initial_cash: float) -> None:
    if close_times.shape != equity.shape or close_times.ndim != 1:
        raise ValueError(
            f"times {close_times.shape} and equity {equity.shape} must be two vectors of one length, one per bar"
        )
    if not (math.isfinite(initial_cash) and initial_cash > 0.0):
        raise ValueError(f"initial cash {initial_cash} must be a positive number, as returns are fractions of it")
    if np.any(np.diff(close_times) <= 0):
        raise ValueError("close times must be strictly increasing; sort the equity curve by time first")
    if not np.all(np.isfinite(equity)):
        raise ValueError("equity must be finite at every bar; a mark price is missing or not a number")


def _start_time(close_times: IntArray) -> int:
    """When the first bar opened: one typical bar before its close. Needs at least one bar."""
    length = float(np.median(np.diff(close_times))) if len(close_times) > 1 else 0.0
    return int(close_times[0]) - round(length)


def daily_equity(
    close_times: IntArray, equity: FloatArray, initial_cash: float, calendar: Calendar, *, started_at: int | None = None
) -> tuple[IntArray, FloatArray]:
    """The UTC days of a run, ``[days]`` since the epoch, and equity before the first and at the end of every day,
    ``[days + 1]``.

    Args:
        close_times: of the bars, ``[n]`` milliseconds, increasing; at least the last of every day.
        equity: at these closes, ``[n]`` quote units.
        initial_cash: equity before the first bar.
        calendar: a market with sessions has the days that have bars, one that never closes has every day.
        started_at: when the first bar opened, milliseconds; by default one typical bar before its close.
    """
    if not len(equity):
        return np.empty(0, dtype=np.int64), np.array([initial_cash])
    days = (close_times - 1) // DAY_MS
    last_of_day = np.flatnonzero(np.diff(days, append=days[-1] + 1))
    if calendar is Calendar.SESSIONS:
        return days[last_of_day], np.concatenate(([initial_cash], equity[last_of_day]))
    # A market that never closes has a day where the bars have a hole, or are longer than one: equity stays what it was.
    first_day = min(int(days[0]), (_start_time(close_times) if started_at is None else started_at) // DAY_MS)
    every_day = np.arange(first_day, days[-1] + 1)
    latest = np.searchsorted(days[last_of_day], every_day, side="right")
    by_day = np.concatenate(([initial_cash], equity[last_of_day]))[latest]
    return every_day, np.concatenate(([initial_cash], by_day))


def daily_returns(daily: FloatArray) -> FloatArray:
    """Simple returns, ``[days]``; none at all when equity was gone, or as good as, on any day."""
    if np.any(daily <= 0.0):
        return np.empty(0)
    with np.errstate(over="ignore"):
        returns = np.asarray(daily[1:] / daily[:-1] - 1.0)
    return returns if np.isfinite(returns).all() else np.empty(0)


def _annual_return(close_times: IntArray, growth: float, days: int, calendar: Calendar) -> float | None:
    if days < 2 or growth <= 0.0:
        return None
    if calendar is Calendar.CONTINUOUS:
        years = (int(close_times[-1]) - _start_time(close_times)) / (365 * DAY_MS)
    else:
        years = days / calendar.days_per_year
    exponent = math.log(growth) / years
    # A few days of a wild market can annualise to more than a float holds; such a number says nothing.
    return math.expm1(exponent) if exponent < 700.0 else None


def _ratios(returns: FloatArray, days_per_year: int) -> tuple[float | None, float | None, float | None]:
    """Annualised volatility, Sharpe and Sortino ratio of daily returns."""
    if len(returns) < 2:
        return None, None, None
    scale = math.sqrt(days_per_year)
    # An account that comes back from next to nothing has returns whose squares are no number any more.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(returns.mean())
        spread = float(returns.std(ddof=1))
        downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    if not (math.isfinite(mean) and math.isfinite(spread) and math.isfinite(downside)):
        return None, None, None
    volatility = spread * scale if spread > _NO_SPREAD else 0.0
    sharpe = mean / spread * scale if spread > _NO_SPREAD else None
    sortino = mean / downside * scale if downside > _NO_SPREAD else None
    return volatility, sharpe, sortino


def _drawdown(close_times: IntArray, equity: FloatArray, initial_cash: float) -> tuple[float, float]:
    """Depth of the deepest drawdown (at most 0) and length of the longest one in days."""
    if not len(equity):
        return 0.0, 0.0
    falls = np.concatenate(([0.0], drawdowns(equity, initial_cash)))
    times = np.concatenate(([_start_time(close_times)], close_times))
    under_water = falls < 0.0
    # The latest peak before each bar; a bar that is back at the peak ends the drawdown that it follows.
    peak_at = np.maximum.accumulate(np.where(under_water, 0, np.arange(len(falls))))
    lengths = (times[1:] - times[peak_at[:-1]]) * under_water[:-1]
    still_under = (times - times[peak_at]) * under_water
    longest = max(int(lengths.max()), int(still_under.max()))
    return float(falls.min()), longest / DAY_MS


def _trade_return(trade: ClosedTrade) -> float:
    return float(trade.profit / (trade.quantity * trade.entry_price))


def _quotient(numerator: float, denominator: float) -> float | None:
    """A ratio, or ``None`` when there is nothing to divide by."""
    return numerator / denominator if denominator > 0.0 else None
