"""How fast stored candles are read: five years of hours, beside pandas on the same numbers in one file."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from benchmarks.harness import Measurement, benchmark, median_ratio, spread, take_turns
from benchmarks.market import SYMBOL, synthetic_bars
from bot.market.candles import CandleStore

BARS: Final = 50_582
PART: Final = 1_000
REPETITIONS: Final = 9


@benchmark("load_50k_hours_ms", "load_50k_hours_vs_pandas", seed=13)
def load(seed: int) -> Mapping[str, Measurement]:
    """From the store's files, checked, to the arrays that a replay steps through."""
    series = synthetic_bars(seed, "60", BARS)
    with tempfile.TemporaryDirectory() as folder:
        store = CandleStore(Path(folder) / "candles")
        for row in range(0, BARS, PART):
            store.append(series.slice(row, row + PART), source="synthetic")
        plain = Path(folder) / "plain.parquet"
        columns = ("open_time", "open", "high", "low", "close", "volume")
        pd.DataFrame({name: getattr(series, name) for name in columns}).to_parquet(plain)

        def ours() -> float:
            started = time.perf_counter()
            store.load(SYMBOL, "60")
            return time.perf_counter() - started

        def pandas() -> float:
            started = time.perf_counter()
            pd.read_parquet(plain)
            return time.perf_counter() - started

        times = take_turns({"ours": ours, "pandas": pandas}, repetitions=REPETITIONS)
    milliseconds = [1e3 * each for each in times["ours"]]
    note = (
        f"{BARS:,} hourly synthetic bars that were appended {PART:,} at a time, order and gaps checked; median of "
        f"{REPETITIONS} turns, {spread(milliseconds)} ms"
    )
    return {
        "load_50k_hours_ms": Measurement(statistics.median(milliseconds), "ms", note),
        "load_50k_hours_vs_pandas": Measurement(
            median_ratio(times["pandas"], times["ours"]),
            "x",
            f"time of pandas.read_parquet of one plain file with the same columns over it; {note}",
        ),
    }
