"""Candles for the notebooks: stored ones where there are some, else of a synthetic market; and the look of their plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib.pyplot as plt

from backtest.sandbox.market import SyntheticMarket
from bot.execution.builtin import builtin_instrument
from bot.market.candles import CandleStore
from strategies.bars import BarSeries, Calendar, interval_ms

BEGIN: Final = 1_640_995_200_000
"""2022-01-01, when the synthetic market opens, milliseconds."""
BLUE, RED, GREEN, PURPLE, GREY = "#2f74b5", "#cf4f43", "#2a9d6b", "#8a63c7", "#98a3ad"


def candles(symbols: Sequence[str] = ("BTCUSDT",), *, bars: int = 8000, interval: str = "60") -> dict[str, BarSeries]:
    """The last ``bars`` bars of every symbol, and a line that says where they come from.

    Stored candles lie in ``recall-data`` beside this folder, or where ``RECALL_STORAGE__DATA_DIR`` says; get some with
    ``recall fetch --symbols BTCUSDT --interval 60``. ``RECALL_EXAMPLE_BARS`` makes everything smaller, as the tests do.
    """
    bars = min(bars, int(os.environ.get("RECALL_EXAMPLE_BARS", bars)))
    folder = Path(os.environ.get("RECALL_STORAGE__DATA_DIR", Path(__file__).parents[1] / "recall-data"))
    store = CandleStore(folder / "candles")
    found = {}
    for symbol in symbols:
        stored = None if store.describe(symbol, interval) is None else store.load(symbol, interval)
        if stored is None or len(stored) < bars:
            instrument = builtin_instrument(symbol, Calendar.CONTINUOUS)
            market = SyntheticMarket(7, symbol, interval, instrument=instrument)
            stored = market.series(BEGIN, BEGIN + bars * interval_ms(interval))
            print(f"{symbol}: {bars:,} bars of a synthetic market")
        else:
            print(f"{symbol}: the last {bars:,} of {len(stored):,} stored bars")
        found[symbol] = stored.slice(len(stored) - bars, len(stored))
    return found


def plain_plots() -> None:
    """A quiet look, and pictures that are small enough for a repository."""
    plt.rcParams.update(
        {
            "figure.figsize": (9.0, 3.4),
            "figure.dpi": 72,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 11,
            "grid.color": "#dfe4e8",
            "legend.frameon": False,
            "lines.linewidth": 1.2,
        }
    )
