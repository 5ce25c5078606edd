"""Orders that fill over several bars, and funding: paper over real sockets, replay and audit agree on them too."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from bot.execution.instruments import MarginTier
from bot.market.margin_tiers import MarginTierStore
from strategies.bars import HOUR_MS
from tests.runs import INTERVAL, journal_connection, make_candles, recall, span, time_of

FIRST, LAST = 100, 500
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MARKET = ("--symbols", ",".join(SYMBOLS), "--interval", INTERVAL, "--strategy", "sma_cross")
THIN = (
    "--set", "strategy.parameters.fast=3", "--set", "strategy.parameters.slow=12", "--set", "fills.participation=0.0004",
    "--set", "risk.daily_loss_limit=0", "--set", "risk.max_position=3", "--set", "risk.max_leverage=6",
    "--set", "risk.stop_loss=0.02", "--set", "fills.leverage=20",
)  # fmt: skip


def store_funding(data_dir: Path) -> None:
    """Rates of one of the symbols, for the first half of the run."""
    path = data_dir / "rates.parquet"
    times = list(range(time_of(FIRST) // (8 * HOUR_MS) * 8 * HOUR_MS, time_of((FIRST + LAST) // 2), 8 * HOUR_MS))
    rates = [(-1) ** number * 0.0001 * (1 + number % 5) for number in range(len(times))]
    pq.write_table(pa.table({"open_time_ms": times, "funding_rate": rates}), path)
    (told,) = recall(data_dir, "fetch", "--funding", "--source", "file", str(path), "--symbol", "BTCUSDT")
    assert told["added"] == told["settlements"] == len(times)


def journal_record(data_dir: Path, run_id: str) -> dict[str, Any]:
    """What the journal noted of a run."""
    with journal_connection(data_dir).connect() as connection:
        text = connection.execute(sa.text("SELECT record FROM runs WHERE run_id = :run"), {"run": run_id}).scalar_one()
    found: dict[str, Any] = json.loads(text)
    return found


def test_paper_replay_and_audit_agree_on_parts_of_orders_and_on_funding(tmp_path: Path) -> None:
    make_candles(tmp_path, SYMBOLS, LAST)
    store_funding(tmp_path)
    tiers = (MarginTier(Decimal(5_000), Decimal("0.01")), MarginTier(Decimal(10**9), Decimal("0.04"), Decimal(150)))
    MarginTierStore(tmp_path / "margin_tiers.json").keep({"BTCUSDT": tiers})
    sandbox = ("--venue", "sandbox", "--set", "sandbox.source=store")
    half = recall(tmp_path, "paper", *MARKET, *THIN, *sandbox, *span(FIRST, LAST), "--max-bars", "150")
    paper = recall(tmp_path, "paper", *MARKET, *THIN, *sandbox, *span(FIRST, LAST))
    assert paper["run_id"] == half["run_id"] and paper["finished"]
    replay = recall(tmp_path, "backtest", *MARKET, *THIN, *span(FIRST, LAST), "--no-plot")
    assert paper["decisions_sha256"] == replay["decisions_sha256"]
    assert paper["trades_sha256"] == replay["trades_sha256"]
    assert paper["equity"] == replay["final_equity"]
    assert replay["funding_paid"] != 0
    assert journal_record(tmp_path, paper["run_id"])["instruments"]["BTCUSDT"]["margin_tiers"]
    report = recall(tmp_path, "audit", paper["run_id"])
    assert report["differences"] == 0, report["first_differences"]
    with journal_connection(tmp_path).connect() as connection:

        def count(text: str) -> int:
            return int(connection.execute(sa.text(text), {"run": paper["run_id"]}).scalar_one())

        assert count("SELECT count(*) FROM executions WHERE run_id = :run AND execution_id LIKE '%-f2'") > 10
        assert count("SELECT count(*) FROM executions WHERE run_id = :run AND execution_id LIKE '%-p2'") > 3
        assert count("SELECT count(*) FROM events WHERE run_id = :run AND kind = 'funding'") > 20
