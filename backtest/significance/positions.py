"""What a replay held at every close, and what holding everything would have made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backtest.replay import ReplayResult
from backtest.report.exposure import exposure_of
from backtest.report.returns import hold_equally
from bot.orders import Execution
from strategies.bars import BarSeries, FloatArray, IntArray


def positions_of(
    times: IntArray,
    equity: FloatArray,
    executions: Sequence[Execution],
    series: Mapping[str, BarSeries],
    symbols: tuple[str, ...],
) -> tuple[FloatArray, FloatArray]:
    """Signed value of the position in every symbol as a fraction of equity at every close, and the symbol's simple return
    from that close to the next (0 after the last): ``[n, symbols]`` both.

    Args:
        times: of the closes, ``[n]`` milliseconds.
        equity: at these closes, ``[n]`` quote units.
        executions: all fills, by time.
        series: the bars, by symbol.
        symbols: the columns.
    """
    exposure, returns = np.zeros((len(times), len(symbols))), np.zeros((len(times), len(symbols)))
    for column, symbol in enumerate(symbols):
        bars = series.get(symbol)
        if bars is None or not len(bars):
            continue
        own = exposure_of(executions, {symbol: bars}, times, equity)
        at = np.searchsorted(own.times, times, side="right")
        # Between two closes of its own a symbol is held as it was.
        exposure[:, column] = np.concatenate(([0.0], np.nan_to_num(own.net)))[at]
        marks = np.concatenate(([bars.open[0]], bars.close))[np.searchsorted(bars.close_time, times, side="right")]
        returns[:-1, column] = marks[1:] / marks[:-1] - 1.0
    return exposure, returns


def hold_curve(result: ReplayResult, series: Mapping[str, BarSeries], cash: float) -> FloatArray:
    """Equity at the closes of a replay of an account that holds all its symbols in equal parts, without costs."""
    times, equity = hold_equally(dict(series), cash)
    at = np.searchsorted(times, result.close_times, side="right")
    return np.asarray(np.concatenate(([cash], equity))[at])
