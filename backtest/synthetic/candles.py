"""Candles from returns: what turns a planted series into bars that every part of the product can be shown."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.bars import BarSeries, Calendar, interval_ms

Floats = npt.NDArray[np.float64]

START: Final = 1_577_836_800_000
"""2020-01-01, when every synthetic series opens, milliseconds."""
FIRST_PRICE: Final = 1000.0


def series_of(
    symbol: str, returns: Floats, generator: np.random.Generator, *, interval: str = "60", spread: float = 0.25
) -> BarSeries:
    """Bars with these close-to-close log returns; every bar opens where the last one closed.

    Args:
        symbol: of the bars.
        returns: ``[n]`` log returns; the first bar opens at ``FIRST_PRICE``.
        generator: draws the wicks and the volumes, which say nothing about what comes next.
        interval: Bybit's code.
        spread: mean size of a wick, as a share of the standard deviation of the returns.
    """
    count = len(returns)
    log_close = np.log(FIRST_PRICE) + np.cumsum(returns)
    log_open = np.concatenate(([np.log(FIRST_PRICE)], log_close[:-1]))
    wicks = generator.exponential(spread * float(np.std(returns)), size=(2, count))
    opened, close = np.exp(log_open), np.exp(log_close)
    high = np.exp(np.maximum(log_open, log_close) + wicks[0])
    low = np.exp(np.minimum(log_open, log_close) - wicks[1])
    return BarSeries(
        symbol,
        interval,
        Calendar.CONTINUOUS,
        START + np.arange(count, dtype=np.int64) * interval_ms(interval),
        opened,
        np.maximum(high, np.maximum(opened, close)),
        np.minimum(low, np.minimum(opened, close)),
        close,
        100.0 * np.exp(0.3 * generator.standard_normal(count)),
    )
