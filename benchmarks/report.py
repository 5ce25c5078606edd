"""How long a report takes that has ten thousand round trips."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backtest.metrics import performance
from backtest.replay import replay
from backtest.report.material import gather
from backtest.report.page import render_run
from benchmarks.harness import BenchmarkError, Measurement, benchmark, spread
from benchmarks.market import SYMBOL, configuration, stored_session, synthetic_bars
from bot.journal import Journal, RunKind
from bot.portfolio import ClosedTrade
from strategies.bars import Calendar

BARS: Final = 115_000
TRADES: Final = 10_000
FAST, SLOW = 4, 12
TURNS: Final = 3
RUN: Final = "replay-of-many-trades"


@benchmark("report_10k_trades_s", "report_10k_trades_mb", seed=31)
def report(seed: int) -> Mapping[str, Measurement]:
    """From the journal and the candle store to the page, in one process that has loaded its libraries."""
    with tempfile.TemporaryDirectory() as folder:
        config = configuration(
            Path(folder),
            market={"symbols": [SYMBOL], "interval": "1"},
            strategy={"name": "sma_cross", "parameters": {"fast": FAST, "slow": SLOW}},
            costs={"taker_fee": 0.0, "slippage": 0.0},
            risk={"stop_loss": 0.0, "daily_loss_limit": 0.0},
        )
        series = synthetic_bars(seed, "1", BARS)
        start = int(series.open_time[SLOW])
        session = stored_session(config, series, start)
        session.warm()
        trades: list[ClosedTrade] = []
        engine = session.engine(RUN, trades)
        result = replay(engine, {SYMBOL: series.span(start, None)}, trades=trades)
        if len(trades) < TRADES:
            raise BenchmarkError(
                f"the run made {len(trades):,} round trips of the {TRADES:,} wanted; give it more bars"
            )
        figures = performance(
            result.close_times,
            result.equity,
            trades,
            initial_cash=config.account.initial_cash,
            calendar=Calendar.CONTINUOUS,
            turnover=engine.portfolio.turnover,
        )
        journal = Journal(config.journal_url, durable=False)
        journal.write_replay(
            session.record(RUN, RunKind.REPLAY),
            figures.to_json(),
            decisions=result.decisions,
            executions=result.executions,
            trades=trades,
            equity=result.equity_points(),
            keep_decisions=False,
        )
        times = []
        for _ in range(1 + TURNS):
            started = time.perf_counter()
            page = render_run(gather(journal, journal.find_run(RUN), config))
            times.append(time.perf_counter() - started)
        journal.close()
    note = f"{len(trades):,} round trips on {BARS:,} one-minute bars, {TURNS} turns"
    note += f" ({spread(times[1:])}), the first {times[0]:.2f} s"
    return {
        "report_10k_trades_s": Measurement(statistics.median(times[1:]), "s", note),
        "report_10k_trades_mb": Measurement(len(page.encode()) / 1e6, "MB", "the same page, with every trade in it"),
    }
