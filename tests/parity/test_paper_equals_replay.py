"""Live and replay decide the same: the promise of the house, over real sockets."""

from __future__ import annotations

import shutil
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.assembly import home_named
from bot.config import load_config
from bot.journal import Journal, schema
from bot.orders import BarBatch, Funding, SymbolAvailability
from bot.portfolio import ClosedTrade
from bot.run import Run
from bot.session import reopen_session, warm_again
from tests.runs import BUSY, INTERVAL, journal_connection, make_candles, recall, span, time_of

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
    # A full memory from before the run, and one entry per bar since, each of which evicted one.
    assert report["memory_entries"] == 1_500 + paper["bars"]
    assert report["orders"] > 40 and report["trades"] == paper["trades"] > 20
    # The run is worth auditing: both sides were traded and protective levels were hit.
    assert min(report["buys"], report["sells"]) > 20
    assert report["stops_and_targets"] >= 1


EVICTED = 40
"""An entry that decisions saw and that later ones evicted."""
FIRST_ORDER = "(SELECT min(client_order_id) FROM orders WHERE run_id LIKE 'paper%') AND run_id LIKE 'paper%'"

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
        " kind, time, withheld FROM executions WHERE run_id LIKE 'paper%' ORDER BY sequence LIMIT 1",
        "fill",
    ),
    "a fill's place among the events": (
        "UPDATE executions SET sequence = sequence - 1 WHERE run_id LIKE 'paper%' AND sequence ="
        " (SELECT min(sequence) FROM executions WHERE run_id LIKE 'paper%')",
        "sequence",
    ),
    "a decision's verdicts as they are listed": (
        "UPDATE decisions SET verdicts = 'bankrupt' WHERE number = 300 AND run_id LIKE 'paper%'",
        "verdicts",
    ),
    "a decision that is no JSON": (
        "UPDATE decisions SET payload = '{' WHERE number = 300 AND run_id LIKE 'paper%'",
        "payload",
    ),
    "an evicted entry's key": (
        f"UPDATE memory_entries SET key = zeroblob(length(key)) WHERE entry_id = {EVICTED}",
        "key",
    ),
    "an evicted entry's regime": (f"UPDATE memory_entries SET regime = 77 WHERE entry_id = {EVICTED}", "regime"),
    "an evicted entry's bar": (
        f"UPDATE memory_entries SET bar_time = bar_time + 1 WHERE entry_id = {EVICTED}",
        "bar_time",
    ),
    "an evicted entry that is gone": (f"DELETE FROM memory_entries WHERE entry_id = {EVICTED}", "entry"),
    "an evicted entry that is alive again": (
        f"UPDATE memory_entries SET evicted_time = NULL WHERE entry_id = {EVICTED}",
        "evicted_time",
    ),
    "a living entry that was evicted": (
        "UPDATE memory_entries SET evicted_time = written_time + 1 WHERE entry_id ="
        " (SELECT max(entry_id) FROM memory_entries)",
        "evicted_time",
    ),
    "an entry that never was": (
        "INSERT INTO memory_entries SELECT bank_id, entry_id + 1, symbol, bar_time + 1, key, regime, encoder_version,"
        " written_time, evicted_time, novelty FROM memory_entries ORDER BY entry_id DESC LIMIT 1",
        "entry",
    ),
    "an evicted entry's outcome": (
        f"UPDATE memory_settlements SET outcome = -outcome WHERE entry_id = {EVICTED} AND horizon = 1",
        "outcomes[1]",
    ),
    "when an evicted entry's outcome became known": (
        f"UPDATE memory_settlements SET settled_time = settled_time - 1 WHERE entry_id = {EVICTED} AND horizon = 2",
        "settled_times[2]",
    ),
    "an evicted entry's outcome that is gone": (
        f"DELETE FROM memory_settlements WHERE entry_id = {EVICTED} AND horizon = 0",
        "settlements[0]",
    ),
    "an outcome of no entry": (
        "INSERT INTO memory_settlements SELECT bank_id, entry_id + 90000, horizon, outcome, settled_time"
        " FROM memory_settlements LIMIT 1",
        "settlements[0]",
    ),
    "the capacity of the memory": ("UPDATE memory_banks SET capacity = capacity + 1", "capacity"),
    "an order's status": (
        "UPDATE orders SET status = 'intended' WHERE status = 'filled' AND client_order_id ="
        " (SELECT min(client_order_id) FROM orders WHERE status = 'filled' AND run_id LIKE 'paper%')",
        "status",
    ),
    "an order's stop": (
        f"UPDATE orders SET payload = json_set(payload, '$.stop_loss', '1.5') WHERE client_order_id = {FIRST_ORDER}",
        "payload.stop_loss",
    ),
    "an order's quantity as it is listed": (
        f"UPDATE orders SET quantity = '1.5' WHERE client_order_id = {FIRST_ORDER}",
        "quantity",
    ),
    "an order that is gone": (f"DELETE FROM orders WHERE client_order_id = {FIRST_ORDER}", "order"),
    "a trade's exit price": (
        "UPDATE trades SET payload = json_set(payload, '$.exit_price', '1.5') WHERE number = 7 AND run_id LIKE 'paper%'",
        "payload.exit_price",
    ),
    "a trade's profit as it is listed": (
        "UPDATE trades SET profit = '1000000' WHERE number = 7 AND run_id LIKE 'paper%'",
        "profit",
    ),
    "a trade that is gone": ("DELETE FROM trades WHERE number = 7 AND run_id LIKE 'paper%'", "trade"),
    "the equity of an hour": (
        "UPDATE equity SET equity = equity + 0.01 WHERE run_id LIKE 'paper%' AND time ="
        " (SELECT min(time) FROM equity WHERE run_id LIKE 'paper%')",
        "equity",
    ),
    "the equity of an hour that is gone": (
        "DELETE FROM equity WHERE run_id LIKE 'paper%' AND time ="
        " (SELECT max(time) FROM equity WHERE run_id LIKE 'paper%')",
        "equity",
    ),
    "the cash that a resume would begin with": (
        "UPDATE states SET payload = json_set(payload, '$.core.portfolio.cash', '1000000')",
        "core.portfolio.cash",
    ),
    "a halt that a resume would keep": (
        "UPDATE states SET payload = json_set(payload, '$.core.risk.halted_by_operator', 1)",
        "core.risk.halted_by_operator",
    ),
    "the stop that a resume would watch": (
        "UPDATE states SET payload = json_set(payload, '$.books[0].stop_loss', '1.5')",
        "books[0].stop_loss",
    ),
    "where a resume would count on": ("UPDATE states SET sequence = sequence + 1", "sequence"),
    "the state that is gone": ("DELETE FROM states", "state"),
    "a batch that came before its time": (
        "UPDATE bars SET sequence = 0 WHERE run_id LIKE 'paper%' AND symbol = 'BTCUSDT' AND open_time ="
        " (SELECT max(open_time) FROM bars WHERE run_id LIKE 'paper%')",
        "sequence",
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


def test_a_run_with_operator_commands_that_was_stopped_and_resumed_audits_clean(tmp_path: Path):
    """Halted, resumed, flattened, and taken up again three times, with settlements that cross the stops."""
    make_candles(tmp_path, SYMBOLS, LAST)
    arguments = (*MARKET, *BUSY, *SANDBOX, *span(FIRST, FIRST + 200))
    for command in ("halt", "resume", "flatten", None):
        bars = ("--max-bars", "80") if command else ()
        paper = recall(tmp_path, "paper", *arguments, *bars)
        report = recall(tmp_path, "audit", "latest")
        assert report["differences"] == 0, report["first_differences"]
        if command:
            recall(tmp_path, command)
    assert paper["finished"] and report["bars"] == 400


def test_a_run_with_late_bars_funding_and_a_symbol_that_went_away_audits_clean(paper_run, tmp_path: Path):
    """What the stream rarely brings, given to a run that goes on: a late batch closes when an earlier one did."""
    data_dir, paper = paper_run
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy)
    make_candles(copy, SYMBOLS, LAST + 40)
    config = load_config(None, overrides=[f"storage.data_dir={copy}"], environment={})
    with closing(Journal(config.journal_url, durable=True)) as journal:
        stored = journal.find_run(paper["run_id"])
        session = reopen_session(config, stored)
        warm_again(session, journal, stored)
        trades: list[ClosedTrade] = []
        engine = session.engine(paper["run_id"], trades)
        run = Run(engine, journal, paper["run_id"], bank_id=stored.bank_id, closed_trades=trades)
        assert run.resume()
        store = home_named(config, stored.record.candles).candles
        bitcoin, ether = (list(store.load(symbol, INTERVAL, start=time_of(LAST)).bars()) for symbol in SYMBOLS)
        for together in zip(bitcoin[:10], ether[:10], strict=True):
            run.decide(BarBatch(together, (False, False)))
        run.apply_waiting(SymbolAvailability("ETHUSDT", False, "no bars"))
        for bar in bitcoin[10:20]:
            run.decide(BarBatch((bar,), (False,)))
        run.apply_waiting(Funding("BTCUSDT", Decimal("0.0001"), Decimal("40000"), bitcoin[19].close_time))
        for bar in ether[10:20]:
            run.decide(BarBatch((bar,), (True,)))
        run.apply_waiting(SymbolAvailability("ETHUSDT", True, "back"))
        for together in zip(bitcoin[20:], ether[20:], strict=True):
            run.decide(BarBatch(together, (False, False)))
    report = recall(copy, "audit", paper["run_id"])
    assert report["differences"] == 0, report["first_differences"]
    assert report["bars"] == paper["bars"] + 80


def test_an_audit_looks_at_a_run_as_it_was_when_it_began(paper_run, tmp_path: Path):
    """A bot that goes on while its run is audited makes no difference."""
    data_dir, paper = paper_run
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy)
    with (
        closing(Journal(f"sqlite:///{copy / 'journal.sqlite'}", durable=True)) as journal,
        journal.snapshot() as frozen,
    ):
        before = frozen.count(paper["run_id"], "decisions")
        with journal_connection(copy).begin() as connection:
            connection.execute(sa.text("DELETE FROM decisions"))
        assert journal.count(paper["run_id"], "decisions") == 0
        assert frozen.count(paper["run_id"], "decisions") == before == paper["bars"]
        assert len(list(frozen.read_rows(schema.decisions, run_id=paper["run_id"]))) == before


def test_the_audit_refuses_candles_that_are_not_those_of_the_run(paper_run, tmp_path: Path):
    data_dir, paper = paper_run
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy)
    shutil.rmtree(copy / "candles" / "ETHUSDT")
    make_candles(copy, ("ETHUSDT",), LAST, seed=4)
    recall(copy, "audit", paper["run_id"], expect=2)
