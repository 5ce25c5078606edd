"""Where paper runs end, stop and go on: the corners that a night's run finds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from backtest.sandbox.market import SyntheticMarket
from bot.assembly import home_of
from bot.config import load_config
from bot.execution.builtin import builtin_instrument
from bot.market.candles import CandleStore
from strategies.bars import DAY_MS, HOUR_MS, MINUTE_MS, BarSeries, Calendar, format_time
from tests.runs import BEGIN, INTERVAL, journal_connection, make_candles, recall, span, start_recall, time_of

CROSS = ("--strategy", "sma_cross", "--interval", INTERVAL)
SANDBOX = ("--venue", "sandbox", "--set", "sandbox.source=store")


def without(series: BarSeries, first: int, last: int) -> BarSeries:
    """A series that lacks some bars."""
    kept = np.r_[0:first, last : len(series)]
    columns = ("open_time", "open", "high", "low", "close", "volume")
    return dataclasses.replace(series, **{name: getattr(series, name)[kept] for name in columns})


def finish(data_dir: Path, *arguments: str) -> None:
    """Run ``recall paper`` in a process of its own, which must end by itself."""
    process = start_recall(data_dir, "paper", *arguments)
    try:
        assert process.wait(timeout=90) == 0, (data_dir / "output.log").read_text()[-3000:]
    finally:
        process.kill()


@pytest.mark.slow
def test_bars_that_one_symbol_lacks_do_not_stop_the_others(tmp_path: Path):
    make_candles(tmp_path, ("BTCUSDT",), 160)
    market = SyntheticMarket(3, "ETHUSDT", INTERVAL, instrument=builtin_instrument("ETHUSDT", Calendar.CONTINUOUS))
    holed = without(market.series(BEGIN, time_of(160)), 120, 123)
    CandleStore(tmp_path / "candles").append(holed, source="synthetic")
    symbols = ("--symbols", "BTCUSDT,ETHUSDT")
    finish(tmp_path, *symbols, *CROSS, *SANDBOX, *span(100, 160))
    report = recall(tmp_path, "audit", "latest")
    assert report["bars"] == 60 + 57
    assert report["differences"] == 0


@pytest.mark.parametrize("kept_open", [False, True], ids=["stopped", "killed"])
def test_a_run_that_had_decided_its_last_bar_is_finished_when_it_goes_on(tmp_path: Path, kept_open: bool):
    make_candles(tmp_path, ("BTCUSDT",), 120)
    arguments = ("--symbols", "BTCUSDT", *CROSS, *SANDBOX, *span(100, 120))
    first = recall(tmp_path, "paper", *arguments, "--max-bars", "20")
    assert not first["finished"]
    if kept_open:
        with journal_connection(tmp_path).begin() as connection:
            connection.execute(sa.text("UPDATE runs SET status = 'running', summary = NULL, ended_at = NULL"))
    again = recall(tmp_path, "paper", *arguments)
    assert again["finished"] and again["run_id"] == first["run_id"] and again["bars"] == 0
    assert again["decisions_sha256"] == first["decisions_sha256"]
    assert recall(tmp_path, "status", "--run", first["run_id"])["status"] == "finished"


def test_a_command_without_a_run_reaches_the_one_that_was_last_active(tmp_path: Path):
    make_candles(tmp_path, ("BTCUSDT", "ETHUSDT"), 140)
    bitcoin = ("--symbols", "BTCUSDT", *CROSS, *SANDBOX, *span(100, 140))
    ether = ("--symbols", "ETHUSDT", *CROSS, *SANDBOX, *span(100, 140))
    older = recall(tmp_path, "paper", *bitcoin, "--max-bars", "5")["run_id"]
    recall(tmp_path, "paper", *ether, "--max-bars", "5")
    assert recall(tmp_path, "paper", *bitcoin, "--max-bars", "5")["run_id"] == older
    assert recall(tmp_path, "halt")["run_id"] == older


def test_sandboxes_elsewhere_share_neither_candles_nor_runs_with_the_embedded_one():
    embedded = load_config(overrides=["storage.data_dir=here"], environment={})
    elsewhere = embedded.changed({"venue": {"sandbox_url": "http://127.0.0.1:8788"}}, "the test")
    another = embedded.changed({"venue": {"sandbox_url": "http://127.0.0.1:8789/"}}, "the test")
    homes = {home_of(config, venue="sandbox").root for config in (embedded, elsewhere, another)}
    assert len(homes) == 3


def test_a_run_of_crypto_and_stocks_goes_on_wherever_it_stopped(tmp_path: Path):
    """A stock's day is forming when the crypto day closes; stopped there, its bar must still come."""
    store = CandleStore(tmp_path / "candles")
    market = SyntheticMarket(3, "BTCUSDT", "D", instrument=builtin_instrument("BTCUSDT", Calendar.CONTINUOUS))
    days = market.series(BEGIN, BEGIN + 120 * DAY_MS)
    store.append(days, source="synthetic")
    opened = days.open_time + 14 * HOUR_MS + 30 * MINUTE_MS
    sessions = np.flatnonzero((days.open_time // DAY_MS + 3) % 7 < 5)  # 1 January 1970 was a Thursday
    columns = {name: getattr(days, name)[sessions] for name in ("open", "high", "low", "close", "volume")}
    stock = BarSeries("AAPL", "D", Calendar.SESSIONS, opened[sessions], **columns)
    store.append(stock, source="synthetic")
    dates = ("--start", format_time(BEGIN + 80 * DAY_MS), "--end", format_time(BEGIN + 110 * DAY_MS))
    market_of = ("--symbols", "BTCUSDT,AAPL", "--interval", "D", "--strategy", "sma_cross")
    replay = recall(tmp_path, "backtest", *market_of, *dates, "--no-plot")
    paper = recall(tmp_path, "paper", *market_of, *SANDBOX, *dates, "--max-bars", "1")
    while not paper["finished"]:
        paper = recall(tmp_path, "paper", *market_of, *SANDBOX, *dates, "--max-bars", "7")
    assert paper["decisions"] == replay["bars"]
    assert (paper["decisions_sha256"], paper["trades_sha256"]) == (replay["decisions_sha256"], replay["trades_sha256"])
