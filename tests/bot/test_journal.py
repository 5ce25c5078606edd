"""The journal on SQLite and PostgreSQL: all of a step or nothing, and everything reads back as it was written."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from bot.engine import EngineState
from bot.errors import StorageError, UsageError
from bot.execution.fills import Costs
from bot.execution.instruments import Instrument
from bot.journal import Journal, RunKind, RunRecord, RunStatus, StepRecord, WarmSpan, schema
from bot.journal.outlooks import OutlookRecorder
from bot.journal.probes import ProbeRecord, probed_settings
from bot.journal.records import SideEvent
from bot.orders import (
    Decision,
    Execution,
    ExecutionKind,
    Funding,
    OperatorAction,
    OperatorCommand,
    OrderReason,
    OrderStatus,
    OrderUpdate,
    Pruning,
    Side,
    SymbolAvailability,
)
from bot.portfolio import ClosedTrade
from bot.risk import RiskLimits
from memory_store import BankConfig, MemoryBank, Metric
from memory_store.storage import memory_metadata
from strategies.bars import HOUR_MS, Calendar
from strategies.base import Explanation, Neighbour, Signal
from tests.bot.scenes import START, A, B, Scripted, bar, batch, engine_of

DAY_OF_STEPS = 24


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, of both kinds in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'journal.sqlite'}"
        return
    url = request.getfixturevalue("postgres_url")
    yield url
    engine = sa.create_engine(url)
    schema.metadata.drop_all(engine)
    memory_metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    with closing(Journal(url, durable=True)) as opened:
        yield opened


def record_of(run_id: str = "run-1", *, kind: RunKind = RunKind.PAPER, started_at: int = START) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        kind=kind,
        strategy="scripted",
        model_id="m-1",
        symbols=(A, B),
        interval="60",
        calendars={A: Calendar.CONTINUOUS, B: Calendar.SESSIONS},
        instruments={A: Instrument(A, tick_size=Decimal("0.10"))},
        config={"risk": {"max_leverage": 1.0}, "live": {"api_key": "***"}},
        warm={A: WarmSpan(START - 10, START, 10, 3, "ab" * 32)},
        candles="sandbox/synthetic-1",
        started_at=started_at,
        versions={"python": "3.11"},
    )


def bank_of(entries: int = 0) -> MemoryBank:
    bank = MemoryBank(BankConfig(4, 3, (1, 2), 0, 0, Metric.COSINE), encoder_version="e1")
    for number in range(entries):
        remember(bank, number)
    return bank


def remember(bank: MemoryBank, number: int) -> None:
    """One more moment, and the outcome of the one before."""
    if number:
        bank.settle(number - 1, 0, 0.1 * number, START + number + 1)
    bank.append(np.array([1.0, number, -number]), symbol=A, bar_time=START + number)


def steps(count: int) -> tuple[list[StepRecord], list[ClosedTrade]]:
    """The steps of a busy run of two symbols, with fills, stops, events and explained decisions."""
    neighbours = (Neighbour(3, B, START, 0.1 + 0.2, 1.0, -1e-17),)
    explanation = Explanation((0.1, 1e-300), "m-1", 7, 0.25, None, 0.5, neighbours)
    script = {
        (symbol, number): Signal(
            symbol,
            bar(number).open_time,
            (-1.0) ** number * 0.4,
            "why",
            0.01,
            ((0.1, -0.2), (0.9, 0.3)),
            explanation=explanation,
        )
        for symbol in (A, B)
        for number in range(count)
    }
    trades: list[ClosedTrade] = []
    limits = RiskLimits(stop_loss=0.02, take_profit=0.05)
    engine = engine_of(Scripted(script), A, B, limits=limits, costs=Costs(), trades=trades)
    made: list[StepRecord] = []
    sequence = 0
    for number in range(count):
        events = happened(number)
        engine.apply(events)
        step = engine.step(batch(bar(number, 100.0 + number), bar(number, 50.0, low=48.0, symbol=B), late=number == 5))
        written = StepRecord(batch=step.batch, decisions=step.decisions, equity=step.decisions[0].equity)
        for event in events:
            sequence += 1
            written.events.append((sequence, event))
        for fill in step.executions:
            sequence += 1
            written.executions.append((sequence, fill))
        sequence += 1
        written.batch_sequence = written.sequence = sequence
        written.trades = list(enumerate(trades, start=engine.portfolio.trades_closed - len(trades)))
        written.trades_closed = engine.portfolio.trades_closed
        trades.clear()
        written.state = msgspec.json.encode(engine.state())
        made.append(written)
    return made, [trade for each in made for _, trade in each.trades]


def happened(number: int) -> list[SideEvent]:
    return {
        3: [OperatorCommand(OperatorAction.RESUME, "a 'quoted' reason; --"), SymbolAvailability(B, True, "back")],
        4: [Funding(A, Decimal("0.00010"), Decimal("101.50"), START)],
    }.get(number, [])


def everything(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, read without the journal."""
    engine = sa.create_engine(url)
    tables = [*schema.metadata.sorted_tables, *memory_metadata.sorted_tables]
    with engine.connect() as connection:
        found = {table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr) for table in tables}
    engine.dispose()
    return found


# -- what is written reads back --------------------------------------------------------------------------


def test_every_kind_of_thing_reads_back_as_it_was_written(journal: Journal) -> None:
    bank = bank_of(2)
    bank_id = journal.create_run(record_of(), bank=bank)
    written, trades = steps(DAY_OF_STEPS)
    for number, step in enumerate(written):
        remember(bank, number + 2)
        step.memory = [(step.batch.bars[0].close_time if step.batch else 0, bank.take_changes())]
        journal.write_step("run-1", step, bank_id=bank_id)
    assert bank_id is not None
    run = journal.find_run("run-1")
    assert (run.record, run.status, run.bank_id) == (record_of(), RunStatus.RUNNING, bank_id)
    assert journal.read_executions("run-1") == [fill for step in written for fill in step.executions]
    assert journal.read_decisions("run-1") == [(s.batch_sequence, d) for s in written for d in s.decisions]
    assert journal.read_events("run-1") == [event for step in written for event in step.events]
    assert {type(event) for _, event in journal.read_events("run-1")} == {OperatorCommand, SymbolAvailability, Funding}
    assert journal.read_trades("run-1") == trades
    assert journal.read_equity("run-1") == [(s.batch.bars[0].close_time, s.equity) for s in written if s.batch]
    assert journal.load_bank(bank_id).digest() == bank.digest()
    state = journal.read_state("run-1")
    assert state == (written[-1].state, written[-1].sequence, len(trades))
    assert msgspec.json.decode(state[0], type=EngineState).core.decisions == 2 * DAY_OF_STEPS
    rows = journal.read_bars("run-1")
    bars = [bar for step in written if step.batch for bar in step.batch.bars]
    assert [tuple(row[name] for name in bar.__struct_fields__) for row, bar in zip(rows, bars, strict=True)] == [
        msgspec.structs.astuple(bar) for bar in bars
    ]
    assert [row["open_time"] for row in rows if row["late"]] == [bar(5).open_time] * 2
    assert journal.read_bars("run-1", symbol=B) == [row for row in rows if row["symbol"] == B]
    assert len(trades) > 3
    counted = {table: journal.count("run-1", table) for table in ("bars", "decisions", "executions", "orders")}
    orders = sum(len(d.orders) for s in written for d in s.decisions)
    fills = sum(len(s.executions) for s in written)
    assert counted == {"bars": len(bars), "decisions": len(bars), "executions": fills, "orders": orders}


def test_decisions_can_be_read_in_pieces(journal: Journal) -> None:
    journal.create_run(record_of())
    for step in steps(4)[0]:
        journal.write_step("run-1", step)
    pieces: list[tuple[int, Decision]] = []
    while piece := journal.read_decisions("run-1", after=len(pieces) - 1, limit=3):
        pieces += piece
    assert pieces == journal.read_decisions("run-1")
    assert len(pieces) == 8


def test_an_order_is_an_intention_until_its_fill_is_written(journal: Journal) -> None:
    journal.create_run(record_of())
    first, second = steps(2)[0]

    def statuses() -> dict[str, str]:
        with journal.engine.connect() as connection:
            rows = connection.execute(sa.select(schema.orders.c.client_order_id, schema.orders.c.status))
            return dict(map(tuple, rows))

    journal.write_step("run-1", first)
    assert set(statuses().values()) == {"intended"}
    journal.write_step("run-1", second)
    filled = {fill.client_order_id for _, fill in second.executions}
    assert {name for name, status in statuses().items() if status == "filled"} == filled
    assert filled


def test_an_order_that_ended_unfilled_says_why(journal: Journal) -> None:
    journal.create_run(record_of())
    first, second = steps(2)[0]
    (name,) = {order.client_order_id for decision in first.decisions for order in decision.orders if order.symbol == A}
    journal.write_step("run-1", first)
    end = OrderUpdate(name, A, OrderStatus.CANCELLED, START, OrderReason.REDUCE_ONLY)
    journal.write_step("run-1", StepRecord(updates=(end,), sequence=second.sequence))
    (row,) = journal.read_rows(schema.orders, run_id="run-1", client_order_id=name)
    assert (row["status"], row["reason"]) == ("cancelled", "reduce_only")


def test_a_replay_is_written_whole_with_its_summary(journal: Journal) -> None:
    written, trades = steps(8)
    fills = [fill for step in written for _, fill in step.executions]
    kept = [decision for step in written for decision in step.decisions if decision.orders]
    daily = [(START, 10_000.0), (START + 1, 10_000.1)]
    fundings = [Funding(A, Decimal("0.0001"), Decimal(price), START + price) for price in (100, 101)]
    journal.write_replay(
        record_of("r", kind=RunKind.REPLAY),
        {"sharpe_ratio": None, "trades": 3},
        decisions=kept,
        executions=fills,
        trades=trades,
        fundings=fundings,
        equity=daily,
    )
    run = journal.find_run("r")
    assert (run.status, run.summary, run.ended_at is None) == (
        RunStatus.FINISHED,
        {"sharpe_ratio": None, "trades": 3},
        False,
    )
    assert [fill for _, fill in journal.read_executions("r")] == fills
    assert [decision for _, decision in journal.read_decisions("r")] == kept
    assert (journal.read_trades("r"), journal.read_equity("r")) == (trades, daily)
    assert [event for _, event in journal.read_events("r")] == fundings


def test_a_replay_may_leave_its_decisions_out_and_still_writes_their_orders(journal: Journal) -> None:
    written, _ = steps(8)
    kept = [decision for step in written for decision in step.decisions]
    journal.write_replay(
        record_of("r", kind=RunKind.REPLAY),
        {},
        decisions=kept,
        executions=[],
        trades=[],
        equity=[],
        keep_decisions=False,
    )
    assert journal.count("r", "decisions") == 0
    assert journal.count("r", "orders") == sum(len(decision.orders) for decision in kept) > 0


def signal_with_memory(number: int, neighbours: int) -> Signal:
    around = tuple(
        Neighbour(each, B, START - each * HOUR_MS, 0.5 + each / 100, (each + 1) / 10, -0.01 * each)
        for each in range(neighbours)
    )
    seen = Explanation(memory_size=90, prediction=-0.5, memory_mean=0.25, gate=0.125, novelty=0.5, neighbours=around)
    return Signal(A, START + number * HOUR_MS, None if number % 2 else 0.75, explanation=seen)


def test_what_a_replay_expected_comes_back_as_it_was(journal: Journal) -> None:
    recorder = OutlookRecorder(24)
    for number, neighbours in enumerate((5, 0, 2)):
        recorder.add(signal_with_memory(number, neighbours))
    recorder.add(Signal(A, START, 1.0))
    written = recorder.outlooks()
    journal.write_replay(
        record_of("r", kind=RunKind.REPLAY), {}, decisions=[], executions=[], trades=[], equity=[], outlooks=written
    )
    found = journal.read_outlooks("r")
    assert found is not None and len(found) == 3 and found.to_bytes() == written.to_bytes()
    assert (found.horizon_bars, found.symbols) == (24, (A, B))
    assert found.exposure.tolist()[::2] == [0.75, 0.75] and np.isnan(found.exposure[1])
    # The three neighbours with the largest share of the vote, and nobody where there were fewer.
    assert found.neighbour_time[0].tolist() == [START - each * HOUR_MS for each in (4, 3, 2)]
    assert found.neighbour_symbol.tolist() == [[1, 1, 1], [-1, -1, -1], [1, 1, -1]]
    assert np.allclose(found.outcome[2], [-0.01, 0.0, np.nan], equal_nan=True)


def test_a_run_whose_decisions_explain_nothing_has_no_outlooks(journal: Journal) -> None:
    journal.write_replay(record_of("r", kind=RunKind.REPLAY), {}, decisions=[], executions=[], trades=[], equity=[])
    assert journal.read_outlooks("r") is None


def test_outlooks_that_are_damaged_are_told_in_a_sentence(journal: Journal) -> None:
    with journal.engine.begin() as connection:
        connection.execute(schema.outlooks.insert().values(run_id="r", payload=b"nonsense"))
    with pytest.raises(StorageError, match="what run r expected in the journal is damaged"):
        journal.read_outlooks("r")


def test_the_last_probe_of_the_same_settings_is_found(journal: Journal) -> None:
    first, second = ProbeRecord(1, "0.1", 500, 8, 0, False), ProbeRecord(2, "0.1", 500, 8, 2, True)
    config = {"strategy": {"name": "mine"}, "log": {"level": "info"}}
    name = probed_settings(config, (A, B), "60", "")
    for probe in (first, second):
        journal.write_probe(name, probe)
    assert journal.find_probe(name) == second
    # What decides counts, and nothing else.
    assert probed_settings({**config, "log": {"level": "error"}}, (A, B), "60", "") == name
    for other in (
        probed_settings({**config, "strategy": {"name": "yours"}}, (A, B), "60", ""),
        probed_settings(config, (B, A), "60", ""),
        probed_settings(config, (A, B), "15", ""),
        probed_settings(config, (A, B), "60", "mt-1"),
    ):
        assert other != name and journal.find_probe(other) is None


def test_runs_do_not_see_each_others_rows(journal: Journal) -> None:
    written, _ = steps(3)
    for run_id in ("one", "two"):
        journal.create_run(record_of(run_id))
    for step in written:
        journal.write_step("one", step)
    assert journal.count("two", "bars") == 0
    assert (journal.read_state("two"), journal.read_decisions("two"), journal.read_events("two")) == (None, [], [])
    for step in written:
        journal.write_step("two", step)
    assert journal.read_decisions("one") == journal.read_decisions("two")


def test_runs_are_found_by_id_or_as_the_latest_paper_run(journal: Journal) -> None:
    with pytest.raises(UsageError, match="there is no run in the journal yet"):
        journal.find_run("latest")
    journal.create_run(record_of("replay", kind=RunKind.REPLAY, started_at=9))
    assert journal.find_run("latest").record.run_id == "replay"
    journal.create_run(record_of("old", started_at=1))
    journal.create_run(record_of("new", started_at=2))
    assert journal.find_run("latest").record.run_id == "new"
    assert [run.record.run_id for run in journal.list_runs()] == ["replay", "new", "old"]
    assert [run.record.run_id for run in journal.list_runs(kinds=(RunKind.PAPER,), limit=1)] == ["new"]
    with pytest.raises(UsageError, match="'nope' is not in the journal; known runs are replay, new, old"):
        journal.find_run("nope")


def test_a_run_ends_and_goes_on(journal: Journal) -> None:
    journal.create_run(record_of())
    journal.end_run("run-1", RunStatus.STOPPED, {"bars": 5})
    ended = journal.find_run("run-1")
    assert (ended.status, ended.summary, ended.ended_at is not None) == (RunStatus.STOPPED, {"bars": 5}, True)
    journal.resume_run("run-1")
    assert (journal.find_run("run-1").status, journal.find_run("run-1").ended_at) == (RunStatus.RUNNING, None)


def test_commands_queue_in_order_until_a_step_has_applied_them(journal: Journal) -> None:
    for run_id in ("run-1", "run-2"):
        journal.create_run(record_of(run_id))
    halt, flatten = OperatorCommand(OperatorAction.HALT, "news"), OperatorCommand(OperatorAction.FLATTEN)
    first, second = (journal.issue_command("run-1", command) for command in (halt, flatten))
    journal.issue_command("run-2", halt)
    assert journal.waiting_commands("run-1") == [(first, halt), (second, flatten)]
    journal.write_step("run-1", StepRecord(events=[(1, halt)], commands_applied=[(first, 1)], sequence=1))
    assert journal.waiting_commands("run-1") == [(second, flatten)]
    assert journal.read_events("run-1") == [(1, halt)]
    assert len(journal.waiting_commands("run-2")) == 1


# -- all of a step, or nothing ---------------------------------------------------------------------------


def test_a_step_that_is_refused_half_way_leaves_nothing_behind(journal: Journal, url: str) -> None:
    """Its last row is one that is there already: bars, fills, decisions and memory before it must go again."""
    bank = bank_of(1)
    bank_id = journal.create_run(record_of(), bank=bank)
    written, _ = steps(6)
    for step in written[:4]:
        journal.write_step("run-1", step, bank_id=bank_id)
    before = everything(url)
    bad = written[4]
    remember(bank, 1)
    bad.memory = [(START, bank.take_changes())]
    taken = msgspec.structs.replace(bad.decisions[-1], number=0)
    bad.decisions = (*bad.decisions[:-1], taken)
    with pytest.raises(StorageError, match="could not be used"):
        journal.write_step("run-1", bad, bank_id=bank_id)
    assert everything(url) == before


def test_the_same_step_is_never_written_twice(journal: Journal, url: str) -> None:
    journal.create_run(record_of())
    (step,) = steps(1)[0]
    journal.write_step("run-1", step)
    before = everything(url)
    with pytest.raises(StorageError):
        journal.write_step("run-1", step)
    assert everything(url) == before


def limited(journal: Journal) -> Callable[[int | None], None]:
    """Sets how many pages the file may grow by from now on: SQLite then says what it says when the disk is full."""
    allowed: list[int] = []

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={allowed[-1] if allowed else 1_000_000}")

    def grow(pages: int | None) -> None:
        with journal.engine.connect() as connection:
            used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        allowed.append(1_000_000 if pages is None else used + pages)

    sa.event.listen(journal.engine, "begin", on_begin)
    return grow


@pytest.mark.parametrize("pages", [0, 1, 2, 4])
def test_a_full_disk_ends_in_one_sentence_writes_nothing_and_the_step_can_be_written_later(
    tmp_path: Path, pages: int
) -> None:
    url = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    with closing(Journal(url, durable=True)) as journal:
        bank = bank_of(1)
        bank_id = journal.create_run(record_of(), bank=bank)
        written, _ = steps(40)
        remember(bank, 1)
        many = StepRecord(
            batch=written[0].batch,
            batch_sequence=1,
            decisions=tuple(
                msgspec.structs.replace(decision, orders=()) for step in written for decision in step.decisions
            ),
            equity=1.0,
            memory=[(START, bank.take_changes())],
            state=written[-1].state,
            sequence=1,
        )
        before = everything(url)
        grow = limited(journal)
        grow(pages)
        with pytest.raises(StorageError) as refused:
            journal.write_step("run-1", many, bank_id=bank_id)
        message = str(refused.value)
        assert "database or disk is full; free some space and start again" in message
        assert "\n" not in message
        assert refused.value.exit_code == 2
        assert everything(url) == before
        assert journal.read_state("run-1") is None
        grow(None)
        journal.write_step("run-1", many, bank_id=bank_id)
        assert journal.count("run-1", "decisions") == 80
        assert bank_id is not None
        assert journal.load_bank(bank_id).digest() == bank.digest()


# -- opening ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 0)])
def test_sqlite_writes_ahead_and_syncs_every_commit_of_what_must_last(
    tmp_path: Path, durable: bool, synchronous: int
) -> None:
    """2 is FULL, 0 is OFF (https://www.sqlite.org/pragma.html#pragma_synchronous); on every connection of the pool."""
    journal = Journal(f"sqlite:///{tmp_path / 'below' / 'journal.sqlite'}", durable=durable)
    with closing(journal), journal.engine.connect() as one, journal.engine.connect() as two:
        for connection in (one, two):
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == synchronous
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    with closing(Journal(url, durable=True)) as journal, closing(sqlite3.connect(tmp_path / "journal.sqlite")) as other:
        journal.create_run(record_of())
        other.execute("BEGIN IMMEDIATE")
        assert journal.find_run("run-1").status == RunStatus.RUNNING
        with closing(Journal(url, durable=True)) as second:
            assert second.find_run("run-1").record == record_of()


def test_a_journal_of_a_newer_format_is_refused_and_left_as_it_is(url: str) -> None:
    with closing(Journal(url, durable=True)) as journal, journal.engine.begin() as connection:
        connection.execute(schema.journal_format.update().values(version=schema.SCHEMA_VERSION + 1))
        schema.commands.drop(connection)
    with pytest.raises(StorageError, match=rf"knows {schema.SCHEMA_VERSION}; update Recall"):
        Journal(url, durable=True)
    engine = sa.create_engine(url)
    assert not sa.inspect(engine).has_table("commands")
    engine.dispose()


def _open(url: str, barrier: Any) -> None:
    barrier.wait()
    Journal(url, durable=True).close()


def test_processes_that_open_a_new_journal_at_the_same_moment_all_succeed(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_open, args=(url, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert everything(url)["journal_format"] == [(schema.SCHEMA_VERSION,)]


def test_the_journal_reopens_with_all_it_had(url: str) -> None:
    with closing(Journal(url, durable=True)) as journal:
        journal.create_run(record_of())
        (step,) = steps(1)[0]
        journal.write_step("run-1", step)
    with closing(Journal(url, durable=True)) as journal:
        assert [decision for _, decision in journal.read_decisions("run-1")] == list(step.decisions)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("nonsense", "storage.database_url is not understood"),
        ("oracle+nothing://x", "storage.database_url is not understood"),
        ("sqlite:////proc/none/journal.sqlite", "check storage.database_url"),
        ("postgresql+psycopg://me:hunter2@127.0.0.1:1/x", "check storage.database_url"),
        ("postgresql+pg8000://me:hunter2@127.0.0.1:1/x", "needs the package pg8000"),
    ],
)
def test_a_journal_that_cannot_be_opened_says_so_in_one_sentence_without_the_password(url: str, what: str) -> None:
    with pytest.raises(StorageError) as refused:
        Journal(url, durable=True)
    message = str(refused.value)
    assert what in message
    assert "hunter2" not in message
    assert "\n" not in message


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_text("this is a letter, not a database " * 100)
    with pytest.raises(StorageError, match="file is not a database"):
        Journal(f"sqlite:///{path}", durable=True)


# -- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "column", "value", "read"),
    [
        (schema.executions, "price", "a lot", lambda journal: journal.read_executions("run-1")),
        (schema.executions, "side", "left", lambda journal: journal.read_executions("run-1")),
        (schema.decisions, "payload", '{"number": "x"}', lambda journal: journal.read_decisions("run-1")),
        (schema.events, "payload", "{", lambda journal: journal.read_events("run-1")),
        (schema.events, "kind", "mystery", lambda journal: journal.read_events("run-1")),
        (schema.trades, "payload", "[]", lambda journal: journal.read_trades("run-1")),
        (schema.runs, "record", "{}", lambda journal: journal.find_run("run-1")),
    ],
)
def test_a_damaged_row_is_one_sentence_that_names_the_run(
    journal: Journal, table: sa.Table, column: str, value: str, read: Callable[[Journal], object]
) -> None:
    journal.create_run(record_of())
    for step in steps(8)[0]:
        journal.write_step("run-1", step)
    with journal.engine.begin() as connection:
        connection.execute(table.update().values({column: value}))
    with pytest.raises(StorageError, match=r"run-1 in the journal is damaged.*; restore the journal") as refused:
        read(journal)
    assert "\n" not in str(refused.value)


FORMAT_1 = """
    CREATE TABLE commands (
        command_id {serial} PRIMARY KEY, run_id VARCHAR(64) NOT NULL, action VARCHAR(16) NOT NULL, reason TEXT NOT NULL,
        issued_at BIGINT NOT NULL, sequence BIGINT
    )
"""


def made_by_format_1(url: str) -> None:
    """A journal as the first format left it, with a command that waits and one that was applied."""
    with closing(Journal(url, durable=True)) as made:
        made.create_run(record_of())
        with made.engine.begin() as connection:
            schema.commands.drop(connection)
            schema.outlooks.drop(connection)
            schema.probes.drop(connection)
            connection.exec_driver_sql("ALTER TABLE executions DROP COLUMN withheld")
            connection.exec_driver_sql("ALTER TABLE orders DROP COLUMN reason")
            serial = "INTEGER" if connection.dialect.name == "sqlite" else "SERIAL"
            connection.exec_driver_sql(FORMAT_1.format(serial=serial))
            connection.exec_driver_sql("CREATE INDEX ix_commands_run_id ON commands (run_id)")
            connection.execute(schema.journal_format.update().values(version=1))
            for action, sequence in (("halt", "7"), ("flatten", "NULL")):
                values = f"'run-1', '{action}', 'news', 5, {sequence}"
                connection.exec_driver_sql(
                    f"INSERT INTO commands (run_id, action, reason, issued_at, sequence) VALUES ({values})"
                )


def test_a_journal_of_the_first_format_is_migrated_where_it_lies(url: str) -> None:
    made_by_format_1(url)
    for _ in range(2):
        with closing(Journal(url, durable=True)) as journal:
            assert journal.waiting_commands("run-1") == [(2, OperatorCommand(OperatorAction.FLATTEN, "news"))]
    prune = OperatorCommand(OperatorAction.PRUNE, pruning=Pruning(5, -0.25))
    with closing(Journal(url, durable=True)) as journal:
        assert journal.issue_command("run-1", prune) == 3
        assert [command for _, command in journal.waiting_commands("run-1")][1:] == [prune]
        journal.write_step("run-1", StepRecord(events=[(1, prune)], commands_applied=[(3, 1)], sequence=1))
        assert journal.read_events("run-1") == [(1, prune)]
        with journal.engine.connect() as connection:
            assert connection.execute(sa.select(schema.journal_format)).all() == [(schema.SCHEMA_VERSION,)]
            columns = {column["name"] for column in sa.inspect(connection).get_columns("commands")}
            assert sa.inspect(connection).has_table("outlooks")
    assert columns == set(schema.commands.columns.keys())


def test_fills_of_the_third_format_are_read_as_they_were_and_those_of_the_spot_market_say_what_was_withheld(
    url: str,
) -> None:
    before = Execution(
        "1", "a", "BTCUSDT", Side.BUY, Decimal("0.01"), Decimal(50_000), Decimal("0.275"), ExecutionKind.MARKET, 5
    )
    after = msgspec.structs.replace(before, execution_id="2", withheld=Decimal("0.00001"))
    with closing(Journal(url, durable=True)) as made:
        made.create_run(record_of())
        with made.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE executions DROP COLUMN withheld")
            connection.exec_driver_sql("ALTER TABLE orders DROP COLUMN reason")
            connection.exec_driver_sql(
                "INSERT INTO executions (run_id, sequence, execution_id, client_order_id, symbol, side, quantity, price, fee,"
                " kind, time) VALUES ('run-1', 1, '1', 'a', 'BTCUSDT', 'buy', '0.01', '50000', '0.275', 'market', 5)"
            )
            connection.execute(schema.journal_format.update().values(version=3))
    with closing(Journal(url, durable=True)) as journal:
        assert journal.read_executions("run-1") == [(1, before)]
        journal.write_step("run-1", StepRecord(executions=[(2, after)], sequence=2))
        assert journal.read_executions("run-1") == [(1, before), (2, after)]
    assert after.signed_quantity == Decimal("0.00999")


def test_any_number_of_processes_may_migrate_at_once(url: str) -> None:
    made_by_format_1(url)
    context = multiprocessing.get_context("spawn")
    openers = [context.Process(target=open_and_close, args=(url,)) for _ in range(3)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
        assert opener.exitcode == 0


def open_and_close(url: str) -> None:
    with closing(Journal(url, durable=True)) as journal:
        assert len(journal.waiting_commands("run-1")) == 1


def test_events_that_an_earlier_version_wrote_are_read(journal: Journal) -> None:
    """They had every field of a command spelled out, and none about pruning."""
    journal.create_run(record_of())
    with journal.engine.begin() as connection:
        payload = '{"action":"halt","reason":""}'
        connection.execute(schema.events.insert().values(run_id="run-1", sequence=1, kind="operator", payload=payload))
    assert journal.read_events("run-1") == [(1, OperatorCommand(OperatorAction.HALT))]


HOLDER = """
import sys
from bot.journal import Journal
with Journal(sys.argv[1], durable=True).hold_run(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(url: str, run_id: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, url, run_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_a_run_is_traded_by_one_process_at_a_time(url: str, journal: Journal) -> None:
    """Two bots with folders of their own may share a journal, never a run; a killed one lets go."""
    with another_process_holds(url, "run-a") as holder:
        with pytest.raises(UsageError) as refused, journal.hold_run("run-a"):
            raise AssertionError
        assert str(refused.value) == (
            "run run-a is being traded by another process on the same journal; stop that one, or begin a new run with --new"
        )
        with journal.hold_run("run-b"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        if journal.engine.dialect.name != "sqlite":
            wait_for_the_server(journal.engine)
        with journal.hold_run("run-a"):
            pass


def wait_for_the_server(engine: sa.Engine) -> None:
    """A server notices that a client is gone when it next reads from it, so its lock is waited for."""
    with engine.connect() as connection:
        connection.execute(sa.text("SET lock_timeout = '30s'"))
        key = connection.execute(
            sa.text("SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory'")
        ).scalar()
        if key is not None:
            connection.execute(sa.text(f"SELECT pg_advisory_lock({key}), pg_advisory_unlock({key})"))


def test_a_run_that_was_let_go_can_be_held_again(journal: Journal) -> None:
    """Also after trading it failed; and not twice at a time, even in one process."""
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), journal.hold_run("run-a"):
            1 / 0  # noqa: B018
    refused = pytest.raises(UsageError, match="run-a is being traded by another process")
    with journal.hold_run("run-a"), refused, journal.hold_run("run-a"):
        raise AssertionError


def test_nothing_stays_beside_a_file_whose_run_was_let_go(tmp_path: Path) -> None:
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.sqlite'}", durable=True)) as journal:
        with journal.hold_run("run-a"):
            assert (tmp_path / "journal.sqlite.run-a.lock").exists()
        assert not list(tmp_path.glob("*.lock"))
        (tmp_path / "journal.sqlite.run-a.lock").mkdir()
        refused = pytest.raises(StorageError, match=r"run run-a cannot be traded: its lock .* cannot be made")
        with refused, journal.hold_run("run-a"):
            raise AssertionError


def test_a_journal_in_memory_has_no_other_users() -> None:
    with closing(Journal("sqlite://", durable=True)) as journal, journal.hold_run("run-a"), journal.hold_run("run-a"):
        pass


def test_a_checkpoint_moves_what_the_log_holds_into_the_database_itself(tmp_path: Path) -> None:
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.sqlite'}", durable=True)) as journal:
        journal.create_run(record_of())
        written, _ = steps(40)

        def bars_without_the_log() -> int:
            shutil.copy(tmp_path / "journal.sqlite", tmp_path / "alone.sqlite")
            with closing(sqlite3.connect(tmp_path / "alone.sqlite")) as alone:
                return int(alone.execute("SELECT count(*) FROM bars").fetchone()[0])

        journal.checkpoint()
        asked = 0
        for step in written:
            journal.write_step("run-1", step)
            if journal.wants_checkpoint:
                asked += 1
                assert bars_without_the_log() == 0
                journal.checkpoint()
                assert bars_without_the_log() == journal.count("run-1", "bars") > 0
        assert asked == 1
