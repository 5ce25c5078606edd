"""Live and replay decide the same: the promise of the house, over real sockets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.runs import BUSY, INTERVAL, journal_connection, make_candles, recall, span

FIRST, LAST = 1_000, 1_500
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MARKET = ("--symbols", ",".join(SYMBOLS), "--interval", INTERVAL)
SANDBOX = ("--venue", "sandbox", "--set", "sandbox.source=store")


@pytest.fixture(scope="module")
def paper_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A finished paper run of two symbols with a memory, and its data_dir."""
    data_dir = tmp_path_factory.mktemp("paper")
    make_candles(data_dir, SYMBOLS, LAST)
    return data_dir, recall(data_dir, "paper", *MARKET, *BUSY, *SANDBOX, *span(FIRST, LAST))


def test_a_paper_run_over_real_sockets_decides_and_fills_as_its_replay_does(paper_run):
    data_dir, paper = paper_run
    replay = recall(data_dir, "backtest", *MARKET, *BUSY, *span(FIRST, LAST), "--no-plot")
    assert paper["finished"] and paper["bars"] == replay["bars"] == (LAST - FIRST) * len(SYMBOLS)
    assert paper["decisions_sha256"] == replay["decisions_sha256"]
    assert paper["trades_sha256"] == replay["trades_sha256"]
    assert paper["fills"] == replay["fills"]
    assert paper["equity"] == replay["final_equity"]


def test_the_audit_of_a_paper_run_finds_no_difference_in_decisions_fills_or_memory(paper_run):
    data_dir, paper = paper_run
    report = recall(data_dir, "audit", paper["run_id"])
    assert report["differences"] == 0
    assert report["decisions"] == report["bars"] == paper["bars"]
    assert report["memory_entries"] == 1_500
    # The run is worth auditing: both sides were traded and protective levels were hit.
    assert min(report["buys"], report["sells"]) > 20
    assert report["stops_and_targets"] >= 1


TAMPERING = {
    "a flipped bar": (
        "UPDATE bars SET close = open, open = close WHERE symbol = 'BTCUSDT' AND open_time ="
        " (SELECT open_time FROM bars WHERE symbol = 'BTCUSDT' AND close <> open ORDER BY open_time LIMIT 1 OFFSET 100)",
        "features",
    ),
    "a neighbour's outcome": (
        "UPDATE memory_settlements SET outcome = outcome + 0.001"
        " WHERE entry_id = (SELECT max(entry_id) FROM memory_settlements) AND horizon = 0",
        "outcomes[0]",
    ),
    "a neighbour's outcome as a decision saw it": (
        "UPDATE decisions SET payload = json_set(payload, '$.signal.explanation.neighbours[2].outcome', 0.5)"
        " WHERE number = 300 AND run_id LIKE 'paper%'",
        "signal.explanation.neighbours[2].outcome",
    ),
    "a fee": (
        "UPDATE executions SET fee = '0.01' WHERE run_id LIKE 'paper%' AND sequence ="
        " (SELECT min(sequence) FROM executions WHERE run_id LIKE 'paper%')",
        "fee",
    ),
    "a fill price": (
        "UPDATE executions SET price = '1.5' WHERE run_id LIKE 'paper%' AND sequence ="
        " (SELECT max(sequence) FROM executions WHERE run_id LIKE 'paper%')",
        "price",
    ),
    "a decision that is gone": (
        "DELETE FROM decisions WHERE run_id LIKE 'paper%' AND number ="
        " (SELECT max(number) FROM decisions WHERE run_id LIKE 'paper%')",
        "decision",
    ),
    "a fill that never was": (
        "INSERT INTO executions SELECT run_id, 'ghost', sequence, client_order_id, symbol, side, quantity, price, fee,"
        " kind, time FROM executions WHERE run_id LIKE 'paper%' ORDER BY sequence LIMIT 1",
        "fill",
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_the_audit_names_the_field_that_was_changed_in_a_journal(paper_run, tmp_path: Path, what: str):
    data_dir, paper = paper_run
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy)
    statement, field = TAMPERING[what]
    with journal_connection(copy).begin() as connection:
        assert connection.execute(sa.text(statement)).rowcount == 1
    report = recall(copy, "audit", paper["run_id"], expect=1)
    assert report["differences"] >= 1
    assert any(field in difference["field"] for difference in report["first_differences"]), report["first_differences"]


def test_the_audit_refuses_candles_that_are_not_those_of_the_run(paper_run, tmp_path: Path):
    data_dir, paper = paper_run
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy)
    shutil.rmtree(copy / "candles" / "ETHUSDT")
    make_candles(copy, ("ETHUSDT",), LAST, seed=4)
    recall(copy, "audit", paper["run_id"], expect=2)
