"""Options of the fill model on the command line: finer candles, funding rates, and runs of the first release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from backtest.sandbox.market import SyntheticMarket
from bot.config import Config, stored_config
from bot.execution.builtin import builtin_instrument
from bot.execution.fills import PLAIN, FillRules
from bot.market.candles import CandleStore
from strategies.bars import BarSeries, Calendar
from tests.runs import BEGIN, journal_connection, make_candles, recall, span, time_of

CROSS = (
    "--symbols", "BTCUSDT", "--interval", "60", "--strategy", "sma_cross", "--set", "strategy.parameters.fast=3",
    "--set", "strategy.parameters.slow=12", "--set", "risk.daily_loss_limit=0", "--no-plot",
    "--set", "risk.stop_loss=0.006", "--set", "risk.take_profit=0.006",
)  # fmt: skip


def store_hours_and_quarters(data_dir: Path, hours: int) -> None:
    """The same market at two intervals."""
    store = CandleStore(data_dir / "candles")
    instrument = builtin_instrument("BTCUSDT", Calendar.CONTINUOUS)
    fine = SyntheticMarket(3, "BTCUSDT", "15", instrument=instrument).series(BEGIN, time_of(hours))

    def four(column: np.ndarray) -> np.ndarray:
        return column.reshape(-1, 4)

    hourly = BarSeries(
        "BTCUSDT", "60", Calendar.CONTINUOUS, four(fine.open_time)[:, 0].copy(), four(fine.open)[:, 0].copy(),
        four(fine.high).max(axis=1), four(fine.low).min(axis=1), four(fine.close)[:, -1].copy(),
        four(fine.volume).sum(axis=1),
    )  # fmt: skip
    for series in (fine, hourly):
        store.append(series, source="synthetic")


def test_finer_candles_decide_which_of_stop_and_target_came_first(tmp_path: Path) -> None:
    store_hours_and_quarters(tmp_path, 900)
    when = span(100, 900)
    coarse = recall(tmp_path, "backtest", *CROSS, *when)
    fine = recall(tmp_path, "backtest", *CROSS, *when, "--detail-interval", "15")
    assert coarse["bars"] == fine["bars"] == 800
    assert coarse["trades_sha256"] != fine["trades_sha256"]
    assert (
        fine["trades_sha256"]
        == recall(tmp_path, "backtest", *CROSS, *when, "--detail-interval", "15m")["trades_sha256"]
    )


def test_a_replay_says_why_its_orders_ended(tmp_path: Path) -> None:
    """Orders that come bars later find that a stop has closed what they were to reduce."""
    make_candles(tmp_path, ("BTCUSDT",), 700)
    late = ("--set", "fills.delay_bars=3", "--set", "strategy.parameters.long_only=true", "--keep-decisions")
    run_id = recall(tmp_path, "backtest", *CROSS, *late, *span(100, 700))["run_id"]
    with journal_connection(tmp_path).connect() as connection:
        rows = connection.execute(
            sa.text("SELECT decision_number, status, reason FROM orders WHERE run_id = :run"), {"run": run_id}
        ).all()
    assert {(status, reason) for _, status, reason in rows} >= {("filled", None), ("cancelled", "reduce_only")}
    number = next(number for number, _, reason in rows if reason)
    (fate,) = recall(tmp_path, "why", str(number), "--run", run_id)["order_fates"].values()
    assert fate == {"status": "cancelled", "reason": "reduce_only"}


@pytest.mark.parametrize("detail", ["60", "D", "1", "nonsense"])
def test_a_detail_interval_that_is_not_finer_or_not_stored_is_refused(tmp_path: Path, detail: str) -> None:
    make_candles(tmp_path, ("BTCUSDT",), 200)
    recall(tmp_path, "backtest", *CROSS, *span(100, 200), "--detail-interval", detail, expect=2)


def test_funding_comes_from_files_of_one_symbol_and_from_no_stock_exchange(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("time,rate\n2024-01-01T00:00:00Z,0.0001\n2024-01-01T08:00:00Z,-0.00002\n")
    source = ("fetch", "--funding", "--source", "file")
    (told,) = recall(tmp_path, *source, str(path), "--symbol", "BTCUSDT")
    assert (told["added"], told["settlements"]) == (2, 2)
    (told,) = recall(tmp_path, *source, str(path), "--symbol", "BTCUSDT")
    assert (told["added"], told["settlements"]) == (0, 2)
    path.write_text("time,rate\n2024-01-01T00:00:00Z,0.0002\n")
    recall(tmp_path, *source, str(path), "--symbol", "BTCUSDT", expect=2)
    recall(tmp_path, *source, "--symbol", "BTCUSDT", expect=2)
    recall(tmp_path, *source, str(path), "--symbols", "BTCUSDT,ETHUSDT", expect=2)
    recall(tmp_path, "fetch", "--funding", "--source", "yfinance", "--symbol", "BTCUSDT", expect=2)


def test_a_run_that_was_recorded_before_there_were_options_is_filled_as_it_was_then() -> None:
    then = {section: values for section, values in Config().masked().items() if section != "fills"}
    fills = stored_config(then, "paper-1").fills
    assert fills.rules(1.0) == FillRules(**{**{name: getattr(PLAIN, name) for name in PLAIN.__slots__}, "leverage": 1})
    assert fills.funding_rate == 0
    assert stored_config(Config().masked(), "paper-2").fills == Config().fills
    now = Config().masked()
    del now["fills"]["share_exits"]
    assert not stored_config(now, "paper-3").fills.share_exits
    assert Config().fills.rules(2.5).leverage == 3
