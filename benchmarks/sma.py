"""Replay of a moving-average cross with everything on, against backtesting.py doing the same."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import backtesting
import numpy as np
import pandas as pd

from benchmarks.cross import BARS, FAST, FEE, INITIAL_CASH, SLOW, STOP, Outcome, Replays
from benchmarks.harness import (
    LATEST,
    BenchmarkError,
    BenchmarkSkipped,
    Measurement,
    benchmark,
    median_ratio,
    spread,
    take_turns,
)
from benchmarks.market import SYMBOL, synthetic_bars
from bot.execution.builtin import builtin_instrument
from strategies.bars import BarSeries

REPETITIONS: Final = 5
SLOW_REPETITIONS: Final = 3
"""Of a peer that takes half a minute."""
WHOLE: Final = 0.9999
"""The peer's word for all of its equity."""
LARGEST_DIFFERENCE: Final = 0.01


class PeerCross(backtesting.Strategy):  # type: ignore[misc]  # the package has no types
    """The same rule as a strategy of the peer: averages computed in bulk, one order per change of side."""

    def init(self) -> None:
        close = np.asarray(self.data.Close, dtype=np.float64)
        self.fast = self.I(_moving_average, close, FAST, name="fast")
        self.slow = self.I(_moving_average, close, SLOW, name="slow")

    def next(self) -> None:
        fast, slow = self.fast[-1], self.slow[-1]
        if fast > slow:
            if not self.position.is_long:
                self.position.close()
                self.buy(size=WHOLE, sl=self.data.Close[-1] * (1.0 - STOP))
        elif fast < slow and not self.position.is_short:
            self.position.close()
            self.sell(size=WHOLE, sl=self.data.Close[-1] * (1.0 + STOP))


@benchmark("replay_sma_bars_per_s", "replay_sma_vs_backtestingpy", seed=11)
def measure(seed: int) -> Mapping[str, Measurement]:
    """Both run over the same bars, in turns, from bars in memory to finished figures."""
    series = synthetic_bars(seed, "1", BARS + SLOW)
    frame = _peer_frame(series)
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        contestant = Replays(Path(folder), series)

        def ours() -> float:
            seconds, outcomes["ours"] = contestant.run()
            return seconds

        def theirs() -> float:
            seconds, outcomes["theirs"] = _run_peer(frame)
            return seconds

        times = take_turns({"ours": ours, "theirs": theirs}, repetitions=REPETITIONS)
    _require_same_work(outcomes["ours"], outcomes["theirs"])
    speeds = [BARS / seconds for seconds in times["ours"]]
    peers = [BARS / seconds for seconds in times["theirs"]]
    work = (
        f"{BARS:,} synthetic one-minute bars, sma_cross {FAST}/{SLOW}, {outcomes['ours'].trades:,} round trips, risk, "
        f"portfolio and journal of orders on, one process; median of {REPETITIONS} turns, {spread(speeds)}"
    )
    return {
        "replay_sma_bars_per_s": Measurement(statistics.median(speeds), "bars/s", work),
        "replay_sma_vs_backtestingpy": Measurement(
            median_ratio(times["theirs"], times["ours"]),
            "x",
            f"{work}; backtesting.py {backtesting.__version__} did {statistics.median(peers):,.0f} bars/s "
            f"({spread(peers)}) with {outcomes['theirs'].trades:,} round trips",
        ),
    }


@benchmark("replay_sma_vs_nautilus", seed=11)
def measure_nautilus(seed: int) -> Mapping[str, Measurement]:
    """Both run over the same bars, in turns; of the peer only its engine's run is timed, and it watches no stop."""
    interpreter = os.environ.get("RECALL_NAUTILUS", "")
    if not interpreter:
        raise BenchmarkSkipped("RECALL_NAUTILUS names no python of an environment with nautilus_trader==1.221")
    series = synthetic_bars(seed, "1", BARS + SLOW)
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        contestant = Replays(Path(folder), series)
        with _nautilus(interpreter, Path(folder), series) as peer:

            def ours() -> float:
                seconds, outcomes["ours"] = contestant.run()
                return seconds

            def theirs() -> float:
                seconds, outcomes["theirs"] = _ask(peer)
                return seconds

            times = take_turns({"ours": ours, "theirs": theirs}, repetitions=SLOW_REPETITIONS, warm_up=False)
    _require_same_trips(outcomes["ours"], outcomes["theirs"])
    peers = [BARS / seconds for seconds in times["theirs"]]
    return {
        "replay_sma_vs_nautilus": Measurement(
            median_ratio(times["theirs"], times["ours"]),
            "x",
            f"{BARS:,} synthetic one-minute bars, sma_cross {FAST}/{SLOW}, {outcomes['ours'].trades:,} round trips, risk, "
            f"portfolio and journal of orders on; NautilusTrader 1.221 with orders, averages of its own and no stop did "
            f"{statistics.median(peers):,.0f} bars/s ({spread(peers)}) with {outcomes['theirs'].trades:,} round trips, its "
            f"engine's run alone; {SLOW_REPETITIONS} turns",
        )
    }


@benchmark("replay_500k_peak_mb", "replay_sma_growth", seed=11)
def measure_size(seed: int) -> Mapping[str, Measurement]:
    """What a long replay holds at most, and whether a bar of a long one costs more than a bar of a short one."""
    few = BARS // 10
    with tempfile.TemporaryDirectory() as folder:
        long = Replays(Path(folder) / "long", synthetic_bars(seed, "1", BARS + SLOW))
        short = Replays(Path(folder) / "short", synthetic_bars(seed, "1", few + SLOW))
        contestants = {"long": lambda: long.run()[0], "short": lambda: short.run()[0]}
        times = take_turns(contestants, repetitions=REPETITIONS)
    growth = [one / BARS / (other / few) for one, other in zip(times["long"], times["short"], strict=True)]
    command = [sys.executable, "-m", "benchmarks.cross", str(BARS), str(seed)]
    weighed = subprocess.run(command, cwd=LATEST.parent.parent, capture_output=True, text=True)
    if weighed.returncode:
        raise BenchmarkError(f"the process that was to be weighed failed: {weighed.stderr.strip().splitlines()[-1:]}")
    return {
        "replay_500k_peak_mb": Measurement(
            int(weighed.stdout) / 1e6,
            "MB",
            f"the most that a process held which made {BARS:,} synthetic one-minute bars, stored and replayed them with "
            "sma_cross and wrote the journal, libraries included",
        ),
        "replay_sma_growth": Measurement(
            statistics.median(growth),
            "x",
            f"time per bar of a replay of {BARS:,} bars over that of one of {few:,}, journal included; {REPETITIONS} turns, "
            f"{spread(growth)}",
        ),
    }


@contextmanager
def _nautilus(interpreter: str, folder: Path, series: BarSeries) -> Iterator[subprocess.Popen[str]]:
    """The peer in its own interpreter, with the bars in its memory."""
    path = folder / "bars.npz"
    np.savez(
        path,
        close_time=series.close_time,
        open=series.open,
        high=series.high,
        low=series.low,
        close=series.close,
        volume=series.volume,
    )
    instrument = builtin_instrument(SYMBOL, series.calendar)
    settings = {
        "cash": INITIAL_CASH,
        "fee": FEE,
        "fast": FAST,
        "slow": SLOW,
        "price_precision": -int(instrument.tick_size.as_tuple().exponent),
        "size_precision": -int(instrument.lot_size.as_tuple().exponent),
    }
    command = [interpreter, str(Path(__file__).with_name("nautilus_peer.py")), str(path), json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        yield peer
        assert peer.stdin is not None
        peer.stdin.close()


def _ask(peer: subprocess.Popen[str]) -> tuple[float, Outcome]:
    """Let the peer run once.

    Raises:
        BenchmarkError: it did not answer.
    """
    assert peer.stdin is not None and peer.stdout is not None
    try:
        peer.stdin.write("run\n")
        peer.stdin.flush()
        answer = json.loads(peer.stdout.readline())
    except (OSError, ValueError):
        raise BenchmarkError(
            "NautilusTrader did not answer; run benchmarks/nautilus_peer.py by hand to see why"
        ) from None
    return float(answer["seconds"]), Outcome(int(answer["trades"]), float(answer["total_return"]))


def _run_peer(frame: pd.DataFrame) -> tuple[float, Outcome]:
    started = time.perf_counter()
    test = backtesting.Backtest(frame, PeerCross, cash=INITIAL_CASH, commission=FEE, finalize_trades=False)
    with warnings.catch_warnings():
        # It says that the last trade stays open, which is as it should be: so does ours.
        warnings.simplefilter("ignore", UserWarning)
        figures: Any = test.run()
    seconds = time.perf_counter() - started
    return seconds, Outcome(int(figures["# Trades"]), float(figures["Return [%]"]) / 100.0)


def _peer_frame(series: BarSeries) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Open": series.open,
            "High": series.high,
            "Low": series.low,
            "Close": series.close,
            "Volume": series.volume,
        },
        index=pd.to_datetime(series.open_time, unit="ms"),
    )


def _moving_average(
    values: np.ndarray[Any, np.dtype[np.float64]], length: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    sums = np.cumsum(np.insert(values, 0, 0.0))
    return np.concatenate((np.full(length - 1, np.nan), (sums[length:] - sums[:-length]) / length))


def _require_same_work(ours: Outcome, theirs: Outcome) -> None:
    """Speeds may only be compared when both traded the same; rounding of sizes and averages moves a little.

    Raises:
        BenchmarkError: they did not.
    """
    _require_as_many(ours, theirs)
    if abs(ours.total_return - theirs.total_return) > LARGEST_DIFFERENCE * (1.0 + theirs.total_return):
        raise _other_return(ours, theirs)


def _require_same_trips(ours: Outcome, theirs: Outcome) -> None:
    """The same of a peer that fills at the close, where sizes differ a little at every round trip, and that adds up.

    Raises:
        BenchmarkError: they did not, or a round trip made a twentieth of its fees more here than there on average.
    """
    _require_as_many(ours, theirs)
    difference = math.log1p(ours.total_return) - math.log1p(theirs.total_return)
    if abs(difference) > theirs.trades * 2.0 * FEE / 20.0:
        raise _other_return(ours, theirs)


def _require_as_many(ours: Outcome, theirs: Outcome) -> None:
    fewer, more = sorted((ours.trades, theirs.trades))
    if more == 0 or fewer < more * (1.0 - LARGEST_DIFFERENCE):
        raise BenchmarkError(
            f"the runs are not comparable: {ours.trades} round trips here, {theirs.trades} there; mend the rule of one"
        )


def _other_return(ours: Outcome, theirs: Outcome) -> BenchmarkError:
    return BenchmarkError(
        f"the runs are not comparable: return {ours.total_return:.4f} here, {theirs.total_return:.4f} there"
    )
