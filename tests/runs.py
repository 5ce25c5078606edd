"""Whole runs through the real command line, on candles that the tests make themselves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from backtest.sandbox.market import SyntheticMarket
from bot.cli.app import run
from bot.execution.builtin import builtin_instrument
from bot.market.candles import CandleStore
from strategies.bars import Calendar, format_time, interval_ms

INTERVAL = "60"
BEGIN = 1_640_995_200_000  # 2022-01-01

# Thresholds under which the similarity strategy trades often, with many stops and targets, on a small memory.
BUSY = (
    "--strategy", "similarity", "--memory-size", "1500",
    "--set", "signal.confidence_threshold=0.52", "--set", "signal.significance=1",
    "--set", "risk.stop_loss=0.01", "--set", "risk.daily_loss_limit=0",
)  # fmt: skip


def make_candles(data_dir: Path, symbols: tuple[str, ...], bars: int, *, seed: int = 3) -> None:
    """Fill a candle store with synthetic hours."""
    store = CandleStore(data_dir / "candles")
    for symbol in symbols:
        market = SyntheticMarket(seed, symbol, INTERVAL, instrument=builtin_instrument(symbol, Calendar.CONTINUOUS))
        store.append(market.series(BEGIN, time_of(bars)), source="synthetic")


def time_of(bar: int) -> int:
    """Open time of a bar by its number since ``BEGIN``."""
    return BEGIN + bar * interval_ms(INTERVAL)


def span(first: int, last: int) -> tuple[str, ...]:
    """Options for the bars from ``first`` to before ``last``."""
    return ("--start", format_time(time_of(first)), "--end", format_time(time_of(last)))


def recall(data_dir: Path, *arguments: str, expect: int = 0) -> Any:
    """Run a command in this process with ``--json``; returns its document."""
    out = io.StringIO()
    # In a folder of its own, so that the project's config.toml has no say.
    with contextlib.chdir(data_dir), contextlib.redirect_stdout(out):
        code = run([*arguments, "--json", "--set", f"storage.data_dir={data_dir}"])
    assert code == expect, f"{arguments} exited with {code}"
    return json.loads(out.getvalue()) if out.getvalue() else None


def start_recall(data_dir: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own."""
    command = [sys.executable, "-c", "from bot.cli import main; main()", *arguments]
    command += ["--json", "--set", f"storage.data_dir={data_dir}"]
    with (data_dir / "output.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=data_dir, env=dict(os.environ))


def journal_connection(data_dir: Path) -> sa.Engine:
    """The journal's database, for a test that looks at it or spoils it."""
    return sa.create_engine(f"sqlite:///{data_dir / 'journal.sqlite'}")
