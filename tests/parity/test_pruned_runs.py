"""A memory that its run prunes: an event like any other, so that the run is resumed and audited as if nothing had been."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from strategies.bars import HOUR_MS
from tests.runs import BUSY, INTERVAL, journal_connection, make_candles, recall, span, start_recall, time_of

MARKET = ("--symbols", "BTCUSDT,ETHUSDT", "--interval", INTERVAL)
SANDBOX = ("--venue", "sandbox", "--set", "sandbox.source=store")
FIRST, LAST = 800, 1_000
PRUNES = "payload LIKE '%prune%'"
"""Which events are prunings: there is funding besides."""
UNUSED = ("memory", "prune", "latest", "--unused-days", "20")


def rows(data_dir: Path, query: str) -> list[Any]:
    engine = journal_connection(data_dir)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(sa.text(query))]
    engine.dispose()
    return found


def moments_of(document: dict[str, Any]) -> set[tuple[str, int]]:
    """Symbols and open times of what was said to go."""
    return {(entry["symbol"], entry["bar_open_time"]) for entry in document["entries"]}


def evicted_at(data_dir: Path, time: int) -> set[tuple[str, int]]:
    """Symbols and open times of what left the memory at a time on the clock of its bars."""
    return set(rows(data_dir, f"SELECT symbol, bar_time FROM memory_entries WHERE evicted_time = {time}"))


def assert_made_again(data_dir: Path) -> dict[str, Any]:
    """The audit and the check of the memory find nothing."""
    report = recall(data_dir, "audit", "latest")
    assert report["differences"] == 0, report["first_differences"]
    checked = recall(data_dir, "memory", "check", "latest")
    assert checked["differences"] == 0, checked["first_differences"]
    return report


@pytest.mark.parametrize(
    "eviction",
    ["importance", pytest.param("fifo", marks=pytest.mark.slow), pytest.param("reservoir", marks=pytest.mark.slow)],
)
def test_a_run_that_prunes_its_memory_is_resumed_and_audited(tmp_path: Path, eviction: str):
    make_candles(tmp_path, ("BTCUSDT", "ETHUSDT"), LAST)
    paper = ("paper", *MARKET, *BUSY, *SANDBOX, "--set", f"memory.eviction={eviction}", *span(FIRST, LAST))
    first = recall(tmp_path, *paper, "--max-bars", "120")
    planned = recall(tmp_path, *UNUSED, "--dry-run")
    assert planned["pruned"] > 0 and not planned["waiting"]
    told = recall(tmp_path, *UNUSED)
    assert told["entries"] == planned["entries"] and told["waiting"]
    assert recall(tmp_path, "status")["waiting_commands"] == ["prune"]
    assert rows(tmp_path, "SELECT count(*) FROM memory_entries WHERE evicted_time = 0") == [(0,)]
    assert recall(tmp_path, *paper, "--max-bars", "100")["run_id"] == first["run_id"]
    closed = time_of(FIRST + 60)
    assert moments_of(planned) <= evicted_at(tmp_path, closed)
    assert_made_again(tmp_path)
    credited = rows(tmp_path, "SELECT count(*) FROM memory_recollections")
    assert credited[0][0] > 0
    recall(tmp_path, "memory", "prune", "latest", "--credit-below", "-0.0001")
    assert recall(tmp_path, *paper)["finished"]
    assert_made_again(tmp_path)
    refused = recall(tmp_path, *UNUSED, expect=2)
    assert refused is None
    events = rows(tmp_path, f"SELECT payload FROM events WHERE {PRUNES} ORDER BY sequence")
    assert [f'"as_of":{at}' in payload for at, (payload,) in zip((closed, closed + 50 * HOUR_MS), events, strict=True)]


def test_a_rule_that_comes_while_the_run_waits_is_durable_at_once_and_survives_a_kill(tmp_path: Path):
    make_candles(tmp_path, ("BTCUSDT", "ETHUSDT"), LAST)
    paper = ("paper", *MARKET, *BUSY, *SANDBOX, *span(FIRST, LAST))
    recall(tmp_path, *paper, "--max-bars", "60")
    process = start_recall(tmp_path, *paper, "--set", "sandbox.pause=8")
    try:
        while rows(tmp_path, "SELECT count(*) FROM bars")[0][0] <= 60:
            assert process.poll() is None, (tmp_path / "output.log").read_text()[-3000:]
            threading.Event().wait(0.02)
        told = recall(tmp_path, *UNUSED)
        while not rows(tmp_path, f"SELECT 1 FROM events WHERE {PRUNES}"):
            assert process.poll() is None, (tmp_path / "output.log").read_text()[-3000:]
            threading.Event().wait(0.005)
    finally:
        process.kill()
        process.wait()
    last = rows(tmp_path, "SELECT max(close_time) FROM bars")[0][0]
    assert moments_of(told) and moments_of(told) <= evicted_at(tmp_path, last)
    assert recall(tmp_path, "status")["waiting_commands"] == []
    assert_made_again(tmp_path)
    again = recall(tmp_path, *paper)
    assert again["finished"] and again["decisions"] == 2 * (LAST - FIRST)
    assert assert_made_again(tmp_path)["bars"] == 2 * (LAST - FIRST)
    assert rows(tmp_path, f"SELECT count(*) FROM events WHERE {PRUNES}") == [(1,)]


def test_an_audit_finds_a_rule_that_was_applied_as_of_another_time(tmp_path: Path):
    make_candles(tmp_path, ("BTCUSDT", "ETHUSDT"), LAST)
    paper = ("paper", *MARKET, *BUSY, *SANDBOX, *span(FIRST, LAST))
    recall(tmp_path, *paper, "--max-bars", "60")
    recall(tmp_path, *UNUSED)
    recall(tmp_path, *paper, "--max-bars", "20")
    closed = time_of(FIRST + 30)
    engine = journal_connection(tmp_path)
    with engine.begin() as connection:
        change = f"UPDATE events SET payload = replace(payload, '{closed}', '{closed - HOUR_MS}') WHERE {PRUNES}"
        assert connection.execute(sa.text(change)).rowcount == 1
    engine.dispose()
    report = recall(tmp_path, "audit", "latest", expect=1)
    assert any(each["field"] == "as_of" for each in report["first_differences"])
