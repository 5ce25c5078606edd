"""What views would have earned, before costs and after.

A simple rule, the same for all: a view is for h bars, so one h-th of the account follows each of the last h views
(overlapping portfolios: Jegadeesh and Titman 1993). A position decided at a close is filled at the next bar's open, one bar
late as in the bot, and every change of it costs the taker fee. No stops, no risk layer, no funding: ``recall backtest`` has
these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest.evaluation.forecasts import Forecasts
from backtest.evaluation.panel import Panel
from backtest.metrics import performance
from strategies.bars import Calendar
from strategies.memory_transformer.dataset import Floats


@dataclass(frozen=True, slots=True)
class TradingResult:
    """An account that followed the views on one symbol. Fractions; ``None`` where a figure is not defined."""

    gross_return: float
    """Without any cost."""
    net_return: float
    """After fees."""
    sharpe_ratio: float | None
    """Annual, of daily returns after fees."""
    max_drawdown: float
    """After fees; at most 0."""
    turnover: float
    """Sum of all changes of position, in units of equity."""


def positions(exposure: Floats, horizon: int) -> Floats:
    """``[n]`` mean of the last ``horizon`` views ``[n]``, of those there are at the beginning."""
    padded = np.concatenate((np.zeros(horizon - 1), exposure))
    sums = np.lib.stride_tricks.sliding_window_view(padded, horizon).sum(axis=1)
    means: Floats = sums / np.minimum(np.arange(1, len(exposure) + 1), horizon)
    return means


def trade(panel: Panel, forecasts: Forecasts, fee: float) -> TradingResult | None:
    """The account of views on one symbol; ``None`` where there are none.

    Args:
        panel: where the prices are.
        forecasts: of one symbol, in order of time.
        fee: of a trade as a share of its value.
    """
    held = np.isfinite(forecasts.exposure) & np.isfinite(panel.step_return[forecasts.rows])
    if not held.any():
        return None
    rows = forecasts.rows[held]
    position = positions(forecasts.exposure[held], panel.horizon)
    change = np.abs(np.diff(position, prepend=0.0))
    change[-1] += abs(position[-1])  # at the end it is closed
    earned = position * panel.step_return[rows]
    gross = np.cumprod(1.0 + earned)
    net = np.asarray(np.cumprod((1.0 + earned) * (1.0 - fee * change)), dtype=np.float64)
    figures = performance(
        panel.moments.close_time[rows], net, (), initial_cash=1.0, calendar=Calendar.CONTINUOUS, turnover=change.sum()
    )
    return TradingResult(
        float(gross[-1]) - 1.0, figures.total_return, figures.sharpe_ratio, figures.max_drawdown, figures.turnover
    )
