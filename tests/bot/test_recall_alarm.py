"""A run with an approximate memory checks every hundredth query and says when too many true neighbours are missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from memory_store import approximate, partition
from tests.bot.cli import terminal
from tests.models import MARKET, SANDBOX, decide, taken_up
from tests.runs import make_candles, recall, span

FIRST, BEGUN, STOPPED, CHECKED = 300, 5, 640, 1_020
"""The first bar that is decided on; decisions made when the run is stopped, twice, and when it has been checked ten times."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A paper run of five bars; sizes from which an approximate index pays are brought down to a memory of four hundred."""
    monkeypatch.setattr(approximate, "FIRST_TRAINING", 64)
    monkeypatch.setattr(approximate, "_FEW", 16)
    monkeypatch.setattr(partition, "_APART", 8)
    folder = tmp_path / "recall-data"
    make_candles(folder, ("BTCUSDT",), FIRST + CHECKED)
    memory = ("--strategy", "similarity", "--memory-size", "400", "--set", "memory.index=approximate")
    recall(folder, "paper", *MARKET, *memory, *SANDBOX, *span(FIRST, FIRST + CHECKED), "--max-bars", str(BEGUN))
    return folder


def decide_the_rest(folder: Path) -> list[Any]:
    """The run goes on, stopped once on its way; what it said."""
    said: list[Any] = []
    for first, last in ((BEGUN, STOPPED), (STOPPED, CHECKED)):
        with capture_logs() as logs, taken_up(folder) as (run, session, _journal):
            decide(run, session, FIRST + first, FIRST + last)
        said += [(last, each["log_level"], each["event"]) for each in logs]
    return said


def test_an_index_that_misses_neighbours_raises_an_alarm_across_a_stop_of_the_bot(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ten checks are needed, which no session makes alone; the audit counts the same queries."""
    monkeypatch.setattr(partition, "TARGET_RECALL", 0.05)
    monkeypatch.setattr(partition, "_LEADERS", 1)
    assert decide_the_rest(run) == [(CHECKED, "warning", "the memory misses neighbours; an exact index finds all")]
    found = recall(run, "status")["memory_recall"]
    assert found["alarm"] and found["asked"] == CHECKED // 100 and found["worst"] <= found["share"] < 0.95
    assert "ALARM: " in terminal.recall(run.parent, "status").out
    assert recall(run, "audit")["differences"] == 0


@pytest.mark.slow
def test_an_index_that_finds_them_is_checked_and_raises_none(run: Path):
    assert decide_the_rest(run) == []
    found = recall(run, "status")["memory_recall"]
    assert (found["asked"], found["alarm"]) == (CHECKED // 100, False) and found["share"] >= 0.95
    assert "of the true neighbours found" in terminal.recall(run.parent, "status").out
