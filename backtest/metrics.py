"""Performance of a run: what an equity curve and its closed trades say, and nothing where they say nothing.

Ratios come from UTC-daily equity, so that the same account gets the same numbers whether it was sampled every minute or
once a day. Drawdowns come from every bar, because that is where an account would have been closed out.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np

from bot.portfolio import ClosedTrade
from strategies.bars import DAY_MS, HOUR_MS, Calendar, FloatArray, IntArray

# Below this a spread of daily returns is rounding of the equity's last bits, not volatility.
_NO_SPREAD: Final = 1e-12


@dataclass(frozen=True, slots=True)
class SideMetrics:
    """The closed round trips of one side. ``None`` where a figure is not defined."""

    trades: int
    win_rate: float | None
    profit_factor: float | None
    net_return: float
    """Sum of their profits after costs as a fraction of the initial cash."""
    mean_hours: float | None
    """Mean time from the first fill to the last."""


@dataclass(frozen=True, slots=True)
class MonthReturn:
    """The return of a calendar month (UTC), or of what the run had of it."""

    year: int
    month: int
    total_return: float


@dataclass(frozen=True, slots=True)
class PerformanceMetrics:
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
    slippage_paid: float
    """Quote units: how much worse than the price of the candles the fills of a taker were."""
    bar_win_rate: float | None
    """Share of bars with a gain among bars at which equity moved (the specification's ``win_rate``)."""
    exposure_time: float | None
    """Share of closes at which a position was held."""
    mean_exposure: float | None
    """Mean of the value of all positions without their signs, as a fraction of equity."""
    annual_turnover: float | None
    """``turnover`` over mean equity, per year: 2 is one round trip with the whole account."""
    alpha: float | None
    """Annual mean return that the benchmark does not explain (Jensen 1968), arithmetic, with a riskless rate of zero."""
    beta: float | None
    """Slope of daily returns on those of the benchmark."""
    long: SideMetrics
    short: SideMetrics
    months: tuple[MonthReturn, ...]
    """In order of time; none where equity was gone on any day."""

    def to_json(self) -> dict[str, Any]:
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
    slippage_paid: Decimal | float = 0.0,
    exposure: FloatArray | None = None,
    benchmark: FloatArray | None = None,
) -> PerformanceMetrics:
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
        slippage_paid: slippage over the run, quote units.
        exposure: value of all positions without their signs at these closes, ``[n]`` fractions of equity.
        benchmark: equity of an account to compare with at these closes, ``[n]``, positive; it begins with ``initial_cash``.

    Raises:
        ValueError: the arrays differ in length, times do not increase, equity is not finite, or there is no cash to
            start with.
    """
    start_cash = float(initial_cash)
    _refuse_nonsense(close_times, equity, start_cash)
    final_equity = float(equity[-1]) if len(equity) else start_cash
    days, daily = daily_equity(close_times, equity, start_cash, calendar)
    returns = daily_returns(daily)
    alpha, beta = None, None
    if benchmark is not None and len(returns):
        _refuse_nonsense(close_times, benchmark, start_cash)
        rivals = daily_returns(daily_equity(close_times, benchmark, start_cash, calendar)[1])
        alpha, beta = _alpha_beta(returns, rivals, calendar.days_per_year)
    annual_return = _annual_return(close_times, final_equity / start_cash, len(daily) - 1, calendar)
    volatility, sharpe, sortino = _ratios(returns, calendar.days_per_year)
    depth, length = _drawdown(close_times, equity, start_cash)
    profits = [float(trade.profit) for trade in trades]
    years = _years(close_times, len(daily) - 1, calendar)
    sides = {side: _side([trade for trade in trades if trade.side == side], start_cash) for side in ("long", "short")}
    return PerformanceMetrics(
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
        profit_factor=_profit_factor(profits),
        expectancy=_quotient(math.fsum(_trade_return(trade) for trade in trades), len(trades)),
        fees_paid=float(fees_paid),
        funding_paid=float(funding_paid),
        turnover=float(turnover),
        slippage_paid=float(slippage_paid),
        bar_win_rate=_bar_win_rate(equity, start_cash),
        exposure_time=None if exposure is None or not len(exposure) else float(np.mean(exposure > 0.0)),
        mean_exposure=None if exposure is None or not len(exposure) else _finite(float(np.mean(exposure))),
        annual_turnover=_annual_turnover(float(turnover), equity, years),
        alpha=alpha,
        beta=beta,
        long=sides["long"],
        short=sides["short"],
        months=monthly_returns(days, returns),
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
    if len(close_times) < 2:
        return int(close_times[0])
    lengths = np.diff(close_times)
    # Most series have no holes, and a median takes fifty times as long as to see that.
    typical = lengths[0] if lengths.min() == lengths.max() else np.median(lengths)
    return int(close_times[0]) - round(float(typical))


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


def monthly_returns(days: IntArray, returns: FloatArray) -> tuple[MonthReturn, ...]:
    """Return of every calendar month that has a day.

    Args:
        days: UTC days since the epoch, ``[n]``, increasing.
        returns: simple returns of these days, ``[n]``, or none at all.
    """
    growth: dict[tuple[int, int], float] = {}
    for day, change in zip(days.tolist(), returns.tolist(), strict=False):
        date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
        month = (date.year, date.month)
        growth[month] = growth.get(month, 1.0) * (1.0 + change)
    return tuple(MonthReturn(year, month, factor - 1.0) for (year, month), factor in growth.items())


def _years(close_times: IntArray, days: int, calendar: Calendar) -> float:
    """Length of the run: elapsed time of a market that never closes, session days over 252 of one with sessions."""
    if not len(close_times):
        return 0.0
    if calendar is Calendar.CONTINUOUS:
        return (int(close_times[-1]) - _start_time(close_times)) / (365 * DAY_MS)
    return days / calendar.days_per_year


def _annual_return(close_times: IntArray, growth: float, days: int, calendar: Calendar) -> float | None:
    if days < 2 or growth <= 0.0:
        return None
    years = _years(close_times, days, calendar)
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


def _side(trades: Sequence[ClosedTrade], initial_cash: float) -> SideMetrics:
    profits = [float(trade.profit) for trade in trades]
    hours = math.fsum((trade.closed_at - trade.opened_at) / HOUR_MS for trade in trades)
    return SideMetrics(
        len(trades),
        _quotient(sum(profit > 0.0 for profit in profits), len(profits)),
        _profit_factor(profits),
        math.fsum(profits) / initial_cash,
        _quotient(hours, len(trades)),
    )


def _profit_factor(profits: Sequence[float]) -> float | None:
    return _quotient(
        math.fsum(profit for profit in profits if profit > 0.0),
        -math.fsum(profit for profit in profits if profit < 0.0),
    )


def _bar_win_rate(equity: FloatArray, initial_cash: float) -> float | None:
    changes = np.diff(equity, prepend=initial_cash)
    return _quotient(int(np.count_nonzero(changes > 0.0)), int(np.count_nonzero(changes)))


def _annual_turnover(turnover: float, equity: FloatArray, years: float) -> float | None:
    mean = float(np.mean(equity)) if len(equity) else 0.0
    if not (years > 0.0 and mean > 0.0 and math.isfinite(mean)):
        return None
    return _finite(turnover / mean / years)


def _alpha_beta(returns: FloatArray, benchmark: FloatArray, days_per_year: int) -> tuple[float | None, float | None]:
    """Intercept, annualised, and slope of the least-squares line of daily returns on those of a benchmark."""
    if len(returns) != len(benchmark) or len(returns) < 3:
        return None, None
    with np.errstate(over="ignore", invalid="ignore"):
        away = benchmark - benchmark.mean()
        spread = float(away @ away)
        if not (math.isfinite(spread) and math.sqrt(spread / len(away)) > _NO_SPREAD):
            return None, None
        beta = float(away @ (returns - returns.mean())) / spread
        alpha = float(returns.mean() - beta * benchmark.mean()) * days_per_year
    return _finite(alpha), _finite(beta)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
