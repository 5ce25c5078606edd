"""Candles and sessions for benchmarks: seeded, in a folder of their own, built by the parts that the product uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from backtest.sandbox.market import SyntheticMarket
from bot.assembly import home_of
from bot.config import Config
from bot.execution.builtin import builtin_instrument
from bot.session import Session, open_session
from strategies.bars import BarSeries, Calendar, interval_ms

SYMBOL: Final = "BTCUSDT"
START: Final = 1_577_836_800_000
"""2020-01-01T00:00Z."""


def synthetic_bars(seed: int, interval: str, bars: int) -> BarSeries:
    """The first ``bars`` bars from ``START`` of the synthetic market of that seed, at prices around 30,000."""
    instrument = builtin_instrument(SYMBOL, Calendar.CONTINUOUS)
    market = SyntheticMarket(seed, SYMBOL, interval, instrument=instrument, base_price=30_000.0)
    return market.series(START, START + bars * interval_ms(interval))


def configuration(folder: Path, **sections: Mapping[str, Any]) -> Config:
    """Defaults with some sections changed; neither a file nor the environment has a say."""
    return Config.model_validate({"storage": {"data_dir": folder}, **sections})


def stored_session(config: Config, series: BarSeries, start: int) -> Session:
    """A session over ``series``, put into the candle store, that is to be warmed from all bars before ``start``."""
    home = home_of(config)
    home.candles.append(series, source="synthetic")
    return open_session(
        config, home, (series.symbol,), series.interval, {series.symbol: series.calendar}, start, hindsight=True
    )
