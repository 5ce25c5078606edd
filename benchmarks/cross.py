"""The product's side of the replay of a moving-average cross.

``python -m benchmarks.cross BARS SEED`` weighs one in a process of its own: it prints the most memory that it held, in bytes.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from backtest.metrics import performance
from backtest.replay import replay
from benchmarks.harness import BenchmarkError
from benchmarks.market import SYMBOL, configuration, stored_session, synthetic_bars
from bot.config import Config
from bot.journal import Journal, RunKind
from bot.portfolio import ClosedTrade
from bot.settings import PLAIN_FILLS
from strategies.bars import BarSeries, Calendar

_STATUS: Final = Path("/proc/self/status")
BARS: Final = 500_000
FAST: Final = 20
SLOW: Final = 50
FEE: Final = 0.0002
"""So low that twenty thousand of them leave enough to go on trading with."""
STOP: Final = 0.05
DAILY_LOSS: Final = 0.5
"""A limit that is watched at every bar but not reached, because the peer has none."""
INITIAL_CASH: Final = 1_000_000_000
"""The peer trades whole units only; this much makes the rounding of no account."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    trades: int
    total_return: float


class Replays:
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
        """Seconds from bars in memory to a journal, and what came of it."""
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


def weigh(bars: int, seed: int) -> int:
    """The most memory that this process has held once it has made its bars and replayed them, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        Replays(Path(folder), synthetic_bars(seed, "1", bars + SLOW)).run()
    # Not what getrusage says, which remembers the process that this one was forked from.
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii")) if _STATUS.exists() else None
    if found is None:
        raise BenchmarkError(
            f"the most memory that a process held is read from {_STATUS}, which has no VmHWM; use Linux"
        )
    return 1024 * int(found[1])


if __name__ == "__main__":
    print(weigh(int(sys.argv[1]), int(sys.argv[2])))
