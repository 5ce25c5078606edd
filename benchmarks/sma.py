"""Replay of a moving-average cross with everything on, against backtesting.py doing the same."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import backtesting
import numpy as np
import pandas as pd

from backtest.metrics import performance
from backtest.replay import replay
from benchmarks.harness import BenchmarkError, Measurement, benchmark, median_ratio, spread, take_turns
from benchmarks.market import SYMBOL, configuration, stored_session, synthetic_bars
from bot.config import Config
from bot.journal import Journal, RunKind
from bot.portfolio import ClosedTrade
from bot.settings import PLAIN_FILLS
from strategies.bars import BarSeries, Calendar

BARS: Final = 500_000
REPETITIONS: Final = 5
FAST: Final = 20
SLOW: Final = 50
FEE: Final = 0.0002
"""So low that twenty thousand of them leave enough to go on trading with."""
STOP: Final = 0.05
DAILY_LOSS: Final = 0.5
"""A limit that is watched at every bar but not reached, because the peer has none."""
WHOLE: Final = 0.9999
"""The peer's word for all of its equity."""
INITIAL_CASH: Final = 1_000_000_000
"""The peer trades whole units only; this much makes the rounding of no account."""
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    trades: int
    total_return: float


@benchmark("replay_sma_bars_per_s", "replay_sma_vs_backtestingpy", seed=11)
def measure(seed: int) -> Mapping[str, Measurement]:
    """Both run over the same bars, in turns, from bars in memory to finished figures."""
    series = synthetic_bars(seed, "1", BARS + SLOW)
    frame = _peer_frame(series)
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        contestant = _Ours(Path(folder), series)

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


class _Ours:
    """The product's way: candles stored once, then every run through a session, the replay driver and the journal."""

    def __init__(self, folder: Path, series: BarSeries) -> None:
        self.config: Config = configuration(
            folder,
            market={"symbols": [SYMBOL], "interval": "1"},
            strategy={"name": "sma_cross", "parameters": {"fast": FAST, "slow": SLOW}},
            account={"initial_cash": INITIAL_CASH},
            costs={"taker_fee": FEE, "slippage": 0.0},
            fills=PLAIN_FILLS.model_dump(),  # the peer fills whole at the open, and knows no funding
            risk={"stop_loss": STOP, "daily_loss_limit": DAILY_LOSS},
        )
        self.series = series
        self.start = int(series.open_time[SLOW])
        self.upcoming = {SYMBOL: series.span(self.start, None)}
        self.journal = Journal(self.config.journal_url, durable=False)
        self.runs = 0

    def run(self) -> tuple[float, Outcome]:
        session = stored_session(self.config, self.series, self.start)
        session.warm()
        self.runs += 1
        run_id = f"replay-{self.runs}"
        trades: list[ClosedTrade] = []
        engine = session.engine(run_id, trades)
        started = time.perf_counter()
        result = replay(engine, self.upcoming, trades=trades)
        metrics = performance(
            result.close_times,
            result.equity,
            trades,
            initial_cash=Decimal(INITIAL_CASH),
            calendar=Calendar.CONTINUOUS,
            fees_paid=engine.portfolio.fees_paid,
            turnover=engine.portfolio.turnover,
        )
        self.journal.write_replay(
            session.record(run_id, RunKind.REPLAY),
            metrics.to_json(),
            decisions=result.decisions,
            executions=result.executions,
            trades=trades,
            equity=result.equity_points(),
            keep_decisions=False,
        )
        return time.perf_counter() - started, Outcome(metrics.trades, metrics.total_return)


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
    fewer, more = sorted((ours.trades, theirs.trades))
    if more == 0 or fewer < more * (1.0 - LARGEST_DIFFERENCE):
        raise BenchmarkError(
            f"the runs are not comparable: {ours.trades} round trips here, {theirs.trades} there; mend the rule of one"
        )
    if abs(ours.total_return - theirs.total_return) > LARGEST_DIFFERENCE * (1.0 + theirs.total_return):
        raise BenchmarkError(
            f"the runs are not comparable: return {ours.total_return:.4f} here, {theirs.total_return:.4f} there"
        )
