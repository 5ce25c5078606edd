"""Stocks: sessions instead of an endless day, from the file to the figures."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import numpy as np
import pytest

from bot.config import Config
from bot.journal import Journal
from bot.market.candles import CandleStore
from strategies.bars import Calendar
from tests.bot.cli.terminal import ask, recall

AAPL = ("--symbols", "AAPL", "--interval", "D")


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Apple's daily candles."""
    folder = tmp_path_factory.mktemp("stocks")
    (fetched,) = ask(folder, "fetch", "--source", "file", str(real_data / "stock_AAPL_1d_recent.parquet"), *AAPL)
    assert fetched["calendar"] == "sessions"
    return folder


def test_daily_candles_of_a_stock_are_sound_on_their_own_calendar(folder: Path) -> None:
    """Weekends and holidays are no gaps."""
    (report,) = ask(folder, "data", "check", *AAPL)
    assert report["sound"] and report["findings"] == []
    series = CandleStore(folder / "recall-data" / "candles").load("AAPL", "D")
    assert series.calendar is Calendar.SESSIONS
    opened = [dt.datetime.fromtimestamp(time / 1000, tz=dt.UTC) for time in series.open_time.tolist()]
    assert all(moment.weekday() < 5 for moment in opened)


@pytest.mark.parametrize("strategy", ["sma_cross", "buy_and_hold"])
def test_figures_of_a_stock_use_252_days_a_year(folder: Path, strategy: str) -> None:
    """Sharpe ratio and annual return from the journalled equity of the days that the market was open."""
    document = ask(folder, "backtest", *AAPL, "--strategy", strategy, "--no-plot")
    journal = Journal(
        Config().changed({"storage": {"data_dir": folder / "recall-data"}}, "test").journal_url, durable=False
    )
    equity = np.array([value for _, value in journal.read_equity(document["run_id"])])
    journal.close()
    daily = np.concatenate(([document["initial_cash"]], equity))
    returns = daily[1:] / daily[:-1] - 1.0
    assert document["days"] == document["bars"] == len(equity)
    assert document["sharpe_ratio"] == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(252))
    assert document["annual_return"] == pytest.approx((daily[-1] / daily[0]) ** (252 / len(equity)) - 1.0)


def test_whole_shares_are_bought(folder: Path) -> None:
    """A stock trades in lots of one."""
    document = ask(folder, "backtest", *AAPL, "--strategy", "buy_and_hold", "--no-plot", "--set", "risk.stop_loss=0")
    journal = Journal(
        Config().changed({"storage": {"data_dir": folder / "recall-data"}}, "test").journal_url, durable=False
    )
    fills = [fill for _, fill in journal.read_executions(document["run_id"])]
    journal.close()
    assert fills and all(fill.quantity == int(fill.quantity) for fill in fills)


def test_crypto_and_stocks_share_an_account(folder: Path, real_data: Path) -> None:
    """One call may mix them; an account with crypto in it has 365 days."""
    btc = str(real_data / "bybit_linear_BTCUSDT_1d.parquet")
    assert recall(folder, "fetch", "--source", "file", btc, "--symbol", "BTCUSDT", "--interval", "D").code == 0
    options = ("--symbols", "BTCUSDT,AAPL", "--interval", "D", "--strategy", "sma_cross", "--no-plot")
    document = ask(folder, "backtest", *options, "--start", "2024-01-01", "--end", "2025-01-01")
    assert document["days"] >= 365
    assert document["bars"] > 366 + 240
