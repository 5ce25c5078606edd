"""Candles that tests make up: a random walk, sound by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from strategies.bars import BarSeries, Calendar, interval_ms, parse_time

START = parse_time("2024-01-01")


def walk(
    count: int,
    *,
    symbol: str = "BTCUSDT",
    interval: str = "60",
    calendar: Calendar = Calendar.CONTINUOUS,
    start: int = START,
    seed: int = 1,
) -> BarSeries:
    """A series without gaps."""
    # Drawn row by row, so that a longer walk begins with the shorter one.
    draws = np.random.default_rng(seed).normal(size=(count, 4))
    close = 100 * np.exp(np.cumsum(0.01 * draws[:, 0]))
    opened = np.concatenate([[100.0], close[:-1]])[:count]
    high = np.maximum(opened, close) * (1 + 0.003 * np.abs(draws[:, 1]))
    low = np.minimum(opened, close) * (1 - 0.003 * np.abs(draws[:, 2]))
    times = start + interval_ms(interval) * np.arange(count, dtype=np.int64)
    return BarSeries(symbol, interval, calendar, times, opened, high, low, close, 0.1 + np.abs(draws[:, 3]))


def without(series: BarSeries, *positions: int) -> BarSeries:
    """The series with holes."""
    kept = np.ones(len(series), dtype=np.bool_)
    kept[list(positions)] = False
    names = ("open_time", "open", "high", "low", "close", "volume")
    return replace(series, **{name: getattr(series, name)[kept] for name in names})


def changed(series: BarSeries, column: str, position: int, value: float) -> BarSeries:
    """The series with one value replaced."""
    values = getattr(series, column).copy()
    values[position] = value
    return replace(series, **{column: values})
