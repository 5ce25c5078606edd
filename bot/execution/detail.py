"""Finer candles: they tell in which order the prices of a bar came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bot.execution.fills.model import FinerBars
from strategies.bars import Bar, BarSeries, interval_ms

_UNKNOWN: tuple[Bar, ...] = ()


def finer_bars_of(finer: Mapping[str, BarSeries]) -> FinerBars:
    """Looks up the finer bars that a bar consists of.

    Where they do not fill the bar without a hole, or do not reach just as high and low, they tell of another market, and
    nothing is known.

    Args:
        finer: candles of one shorter interval, by symbol.
    """

    def look_up(bar: Bar) -> Sequence[Bar]:
        series = finer.get(bar.symbol)
        if series is None:
            return _UNKNOWN
        part = series.span(bar.open_time, bar.close_time)
        step = interval_ms(series.interval)
        times = part.open_time
        is_whole = len(part) * step == bar.close_time - bar.open_time and bool(np.all(np.diff(times) == step))
        if not is_whole or times[0] != bar.open_time or part.high.max() != bar.high or part.low.min() != bar.low:
            return _UNKNOWN
        return list(part.bars())

    return look_up
