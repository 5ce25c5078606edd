"""Series of bars: columns and bars are two forms of one thing."""

from __future__ import annotations

import pytest

from strategies.bars import BarSeries
from tests.strategies.markets import random_walk


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 1_000])
def test_every_bar_of_a_series_comes_in_order_with_the_values_of_its_columns(length: int) -> None:
    series = random_walk(1_000, 5).slice(0, length)
    columns = (series.open_time, series.close_time, series.open, series.high, series.low, series.close, series.volume)
    rows = list(zip(*[column.tolist() for column in columns], strict=True))
    bars = list(series.bars())
    assert [(bar.open_time, bar.close_time, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars] == rows
    if bars:
        assert BarSeries.of(bars, series.interval).digest() == series.digest()
