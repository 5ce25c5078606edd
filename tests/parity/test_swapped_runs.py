"""A run that changes its model while it trades: an event like any other, resumed, audited and explained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from bot.lifecycle.keeper import Arrival
from bot.lifecycle.preparation import Successor
from bot.orders import BarBatch
from tests.models import decide, paper_arguments, prepared, rows, swap, taken_up, train_tiny
from tests.runs import INTERVAL, journal_connection, make_candles, recall, time_of

FIRST, LAST = 1_100, 1_240


class Begun(NamedTuple):
    """A paper run of 20 bars that waits to be taken up, and two models."""

    data_dir: Path
    old: str
    new: str


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    data_dir = tmp_path_factory.mktemp("swaps")
    make_candles(data_dir, ("BTCUSDT",), LAST)
    old = train_tiny(data_dir, 900)
    new = train_tiny(data_dir, 1_000)
    recall(data_dir, *paper_arguments(old, FIRST, LAST), "--max-bars", "20")
    return Begun(data_dir, old, new)


@pytest.fixture
def copied(begun: Begun, tmp_path: Path) -> Begun:
    """The same, for a test that goes on with it."""
    copy = tmp_path / "copy"
    shutil.copytree(begun.data_dir, copy)
    return begun._replace(data_dir=copy)


@pytest.fixture(scope="module")
def swapped(begun: Begun, tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """A run that swapped to the new model after 40 bars, prepared at 30, and back to the old one after 80; 120 bars."""
    copy = tmp_path_factory.mktemp("swapped") / "copy"
    shutil.copytree(begun.data_dir, copy)
    with taken_up(copy) as (run, session, journal):
        decide(run, session, FIRST + 20, FIRST + 30)
        successor = prepared(session, journal, run, begun.new)
        decide(run, session, FIRST + 30, FIRST + 40)
        run.receive(Arrival(successor=successor))
        decide(run, session, FIRST + 40, FIRST + 80)
        swap(session, journal, run, begun.old)
        decide(run, session, FIRST + 80, FIRST + 120)
    return begun._replace(data_dir=copy)


def contents(successor: Successor) -> list[tuple[Any, ...]]:
    """All that a memory holds but the ids, which count on from where it began."""
    return [
        (each.symbol, each.bar_time, each.key.tobytes(), each.regime, each.outcomes, each.settled_times)
        for each in successor.strategy.bank.entries()
    ]


def assert_made_again(data_dir: Path) -> None:
    report = recall(data_dir, "audit", "latest")
    assert report["differences"] == 0, report["first_differences"]
    checked = recall(data_dir, "memory", "check", "latest")
    assert checked["differences"] == 0, checked["first_differences"]
    assert checked["entries"] == report["memory_entries"]


def test_every_decision_after_a_swap_is_the_new_models_and_the_audit_finds_nothing(swapped: Begun):
    data_dir, old, new = swapped
    models = rows(
        data_dir, "SELECT json_extract(payload, '$.signal.explanation.model_id') FROM decisions ORDER BY number"
    )
    assert [model for (model,) in models] == [old] * 40 + [new] * 40 + [old] * 40
    assert_made_again(data_dir)


def test_each_model_has_a_bank_of_its_own_and_the_run_the_newest(swapped: Begun):
    data_dir, old, new = swapped
    ((run_id, bank_id),) = rows(data_dir, "SELECT run_id, bank_id FROM runs WHERE kind = 'paper'")
    banks = rows(data_dir, "SELECT name, encoder_version FROM memory_banks ORDER BY id")
    assert banks == [(run_id, old), (f"{run_id}.2", new), (f"{run_id}.3", old)]
    assert rows(data_dir, f"SELECT name FROM memory_banks WHERE id = {bank_id}") == [(f"{run_id}.3",)]
    joined = "memory_entries e JOIN memory_banks b ON b.id = e.bank_id"
    assert rows(data_dir, f"SELECT DISTINCT b.encoder_version = e.encoder_version FROM {joined}") == [(1,)]


def test_a_swapped_run_that_is_taken_up_decides_as_one_that_never_stopped(swapped: Begun, tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    for copy in (one, other):
        shutil.copytree(swapped.data_dir, copy)
    with taken_up(one) as (run, session, _):
        decide(run, session, FIRST + 120, LAST)
        hashes = run.engine.core.decisions_sha256
    for first in range(FIRST + 120, LAST, 10):
        with taken_up(other) as (run, session, _):
            assert session.model_id == swapped.old
            decide(run, session, first, first + 10)
    assert run.engine.core.decisions_sha256 == hashes
    assert_made_again(other)
    assert recall(other, "status")["model_id"] == swapped.old


def test_a_memory_prepared_early_and_caught_up_is_the_one_prepared_at_the_last_moment(copied: Begun):
    with taken_up(copied.data_dir) as (run, session, journal):
        early = prepared(session, journal, run, copied.new)
        decide(run, session, FIRST + 20, FIRST + 40)
        early.catch_up()
        caught_up = contents(early)
        assert caught_up == contents(prepared(session, journal, run, copied.new))
        assert len(caught_up) == 400


def test_a_late_bar_between_preparation_and_swap_is_replayed_at_its_place(begun: Begun, tmp_path: Path):
    """Two symbols, one of them late: memories hold their moments in the order in which they came."""
    make_candles(tmp_path, ("BTCUSDT", "ETHUSDT"), LAST)
    shutil.copytree(begun.data_dir / "models", tmp_path / "models")
    arguments = paper_arguments(begun.old, FIRST, LAST)
    recall(tmp_path, *arguments, "--symbols", "BTCUSDT,ETHUSDT", "--max-bars", "10")
    with taken_up(tmp_path) as (run, session, journal):
        store = session.home.candles
        bitcoin, ether = (
            list(store.load(symbol, INTERVAL, start=time_of(FIRST + 5), end=time_of(FIRST + 15)).bars())
            for symbol in session.symbols
        )
        run.decide(BarBatch((bitcoin[0],), (False,)))
        successor = prepared(session, journal, run, begun.new)
        run.decide(BarBatch((bitcoin[1],), (False,)))
        run.decide(BarBatch((ether[0],), (True,)))
        run.decide(BarBatch((ether[1],), (True,)))
        run.receive(Arrival(successor=successor))
        for together in zip(bitcoin[2:], ether[2:], strict=True):
            run.decide(BarBatch(together, (False, False)))
    assert_made_again(tmp_path)


def test_the_memory_explains_a_decision_with_the_model_that_made_it(swapped: Begun):
    for number in (30, 60, 110):
        assert recall(swapped.data_dir, "memory", "explain", str(number), "--run", "latest")["as_decided"] is True


def test_the_memory_of_a_swapped_run_can_be_encoded_again(swapped: Begun, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(swapped.data_dir, copy)
    made = recall(copy, "memory", "rebuild", "latest", "--name", "again")
    assert made["model_id"] == swapped.old and made["entries"] == 400
    assert recall(copy, "memory", "check", "again")["differences"] == 0


def test_rollback_asks_the_run_for_the_model_before(swapped: Begun, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(swapped.data_dir, copy)
    told = recall(copy, "models", "rollback", "--reason", "the old one was better")
    run_id = recall(copy, "status")["run_id"]
    assert (told["model_id"], told["run_id"]) == (swapped.new, run_id)
    assert recall(copy, "status")["waiting_commands"] == ["swap"]
    again = recall(copy, "models", "promote", swapped.new)
    assert again["command_id"] is None, "it is told already"
    assert recall(copy, "models", "show", "latest")["model_id"] == swapped.new


TAMPERING = {
    "the model that took over": ("json_set(payload, '$.model_id', '{old}')", "digest"),
    "the digest of its memory": ("json_set(payload, '$.digest', 'ab')", "digest"),
    "the moment up to which it was encoded": ("json_set(payload, '$.encoded_until', 5)", "digest"),
    "the time of the swap": ("json_set(payload, '$.as_of', 5)", "as_of"),
    "the bank that it named": ("json_set(payload, '$.bank', 'another')", "bank"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_the_audit_names_what_was_changed_of_a_swap(swapped: Begun, tmp_path: Path, what: str):
    copy = tmp_path / "copy"
    shutil.copytree(swapped.data_dir, copy)
    change, field = TAMPERING[what]
    first = "(SELECT min(sequence) FROM events WHERE kind = 'swap')"
    with journal_connection(copy).begin() as connection:
        statement = f"UPDATE events SET payload = {change.format(old=swapped.old)} WHERE sequence = {first}"
        assert connection.execute(sa.text(statement)).rowcount == 1
    report = recall(copy, "audit", "latest", expect=1)
    assert any(field in difference["field"] for difference in report["first_differences"]), report["first_differences"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "field"),
    [
        ("UPDATE memory_entries SET key = zeroblob(64) WHERE bank_id = 2 AND entry_id = 40", "key"),
        ("UPDATE memory_entries SET regime = 77 WHERE bank_id = 1 AND entry_id = 40", "regime"),
        ("UPDATE runs SET bank_id = 2 WHERE kind = 'paper'", "memory"),
        ("DELETE FROM events WHERE sequence = (SELECT max(sequence) FROM events WHERE kind = 'swap')", "model_id"),
    ],
)
def test_the_audit_finds_changes_in_the_memory_of_every_model(
    swapped: Begun, tmp_path: Path, statement: str, field: str
):
    copy = tmp_path / "copy"
    shutil.copytree(swapped.data_dir, copy)
    with journal_connection(copy).begin() as connection:
        assert connection.execute(sa.text(statement)).rowcount == 1
    report = recall(copy, "audit", "latest", expect=1)
    assert any(field in difference["field"] for difference in report["first_differences"]), report["first_differences"]
