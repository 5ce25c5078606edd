"""Bars for tests: random walks, hostile markets, real candles, and futures that may not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hypothesis import strategies as st

from strategies.bars import COLUMNS, HOUR_MS, Bar, BarSeries, Calendar

START = 1_600_000_000_000 // HOUR_MS * HOUR_MS


def random_walk(
    length: int,
    seed: int,
    symbol: str = "AAAUSDT",
    *,
    start: int = START,
    price: float = 100.0,
    volatility: float = 0.01,
) -> BarSeries:
    """Hourly bars of a random walk without any structure."""
    rng = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(rng.normal(0.0, volatility, length)))
    opened = np.concatenate(([price], close[:-1]))[:length]
    high = np.maximum(opened, close) * (1.0 + np.abs(rng.normal(0.0, volatility / 3, length)))
    low = np.minimum(opened, close) * (1.0 - np.abs(rng.normal(0.0, volatility / 3, length)))
    volume = rng.lognormal(3.0, 1.0, length)
    times = start + HOUR_MS * np.arange(length, dtype=np.int64)
    return BarSeries(symbol, "60", Calendar.CONTINUOUS, times, opened, high, low, close, volume)


def with_other_future(series: BarSeries, place: int, seed: int = 99) -> BarSeries:
    """The same bars up to ``place``, entirely different ones from there on."""
    rng = np.random.default_rng(seed)
    columns = {name: getattr(series, name).copy() for name in COLUMNS}
    for name in ("open", "high", "low", "close"):
        columns[name][place:] *= np.exp(rng.normal(0.0, 1.0, len(series) - place))
    columns["volume"][place:] = rng.lognormal(9.0, 3.0, len(series) - place)
    return replace(series, **columns)


def batches(history: Mapping[str, BarSeries]) -> list[list[Bar]]:
    """Bars that close together, in the order of symbols."""
    by_time: dict[int, list[Bar]] = {}
    for series in history.values():
        for bar in series.bars():
            by_time.setdefault(bar.close_time, []).append(bar)
    return [by_time[time] for time in sorted(by_time)]


def real_candles(folder: Path, name: str, symbol: str, interval: str = "60") -> BarSeries:
    """A file of real candles as one series."""
    table = pq.read_table(folder / f"{name}.parquet")
    times = table["open_time_ms"].to_numpy()
    return BarSeries(symbol, interval, Calendar.CONTINUOUS, times, *(table[c].to_numpy() for c in COLUMNS))


PRICES = st.one_of(
    st.sampled_from([1e-8, 1.0, 100.0, 65_000.1]),
    st.floats(1e-8, 1e8),
    st.floats(5e-324, 1.7e308, allow_subnormal=True),
)
VOLUMES = st.one_of(st.just(0.0), st.floats(0.0, 1e6), st.floats(0.0, 1.7e308))


@st.composite
def hostile_bars(draw: st.DrawFn, max_size: int = 60) -> list[Bar]:
    """Bars with flat stretches, jumps over many orders of magnitude, no volume or far too much."""
    bars: list[Bar] = []
    time = START
    for _ in range(draw(st.integers(1, max_size))):
        if bars and draw(st.booleans()):
            before = bars[-1]
            bar = Bar("AAAUSDT", time, time + HOUR_MS, before.close, before.close, before.close, before.close, 0.0)
        else:
            prices = sorted(draw(st.tuples(PRICES, PRICES, PRICES, PRICES)))
            opened, close = draw(st.permutations(prices[1:3]))
            bar = Bar("AAAUSDT", time, time + HOUR_MS, opened, prices[3], prices[0], close, draw(VOLUMES))
        bars.append(bar)
        time += HOUR_MS * draw(st.integers(1, 100))
    return bars
