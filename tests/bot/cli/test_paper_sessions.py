"""Sessions of one paper run on the embedded sandbox, and what a person can tell it from another terminal."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import termios
from math import expm1
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.config import Config
from bot.journal import Journal
from bot.orders import Decision, Verdict
from tests.bot.cli.terminal import PROJECT, SHORT, Outcome, ask, interrupt, recall, start
from tests.runs import journal_connection

SMA = ("paper", "--strategy", "sma_cross", *SHORT)


def trade(folder: Path, bars: int, *options: str) -> dict[str, Any]:
    """One session of so many bars."""
    return ask(folder, *SMA, "--max-bars", str(bars), *options)


def decisions(folder: Path, run_id: str) -> list[Decision]:
    """All decisions of a run, read from its journal."""
    config = Config().changed({"storage": {"data_dir": folder / "recall-data"}}, "test")
    journal = Journal(config.journal_url, durable=True)
    found = [decision for _, decision in journal.read_decisions(run_id)]
    journal.close()
    return found


def holding(folder: Path) -> str:
    """A run that has a position: its id."""
    for _ in range(20):
        run_id = trade(folder, 10)["run_id"]
        if ask(folder, "positions"):
            return str(run_id)
    raise AssertionError("200 bars without a position")


def test_the_second_session_goes_on_with_the_run(tmp_path: Path) -> None:
    """Same run, account and market as one session of all its bars."""
    first, second = trade(tmp_path, 30), trade(tmp_path, 30)
    assert second["run_id"] == first["run_id"]
    assert (first["decisions"], second["decisions"]) == (30, 60)
    bars = [decision.signal.bar_open_time for decision in decisions(tmp_path, first["run_id"])]
    assert [later - earlier for earlier, later in itertools.pairwise(bars)] == [900_000] * 59
    whole = trade(tmp_path / "recall-data", 60, "--set", "storage.data_dir=whole")
    for figure in ("equity", "trades", "fees_paid", "trades_sha256"):
        assert second[figure] == whole[figure]
    assert ask(tmp_path, "audit")["differences"] == 0
    assert ask(tmp_path, "status")["status"] == "stopped"


def test_a_run_from_before_there_was_a_choice_of_markets_goes_on(tmp_path: Path) -> None:
    first = trade(tmp_path, 3)["run_id"]
    engine = journal_connection(tmp_path / "recall-data")
    with engine.begin() as connection:
        (text,) = connection.execute(sa.text("SELECT record FROM runs")).scalars().all()
        stored = json.loads(text)
        assert stored["config"]["market"].pop("category") == "linear"
        for rules in stored["instruments"].values():
            assert rules.pop("is_spot") is False
        connection.execute(sa.text("UPDATE runs SET record = :record"), {"record": json.dumps(stored)})
    engine.dispose()
    assert trade(tmp_path, 3)["run_id"] == first
    assert trade(tmp_path, 3, "--set", "market.category=spot")["run_id"] != first
    assert ask(tmp_path, "audit")["differences"] == 0


@pytest.mark.parametrize("change", [("--set", "sandbox.seed=8"), ("--symbols", "ETHUSDT")], ids=" ".join)
def test_another_market_has_a_run_of_its_own(change: tuple[str, ...], tmp_path: Path) -> None:
    """The run of the first market goes on when it is asked for again."""
    first = trade(tmp_path, 3)["run_id"]
    assert trade(tmp_path, 3, *change)["run_id"] != first
    assert trade(tmp_path, 3)["run_id"] == first


@pytest.mark.parametrize(
    "change",
    [("--set", "risk.max_position=0.5"), ("--set", "strategy.parameters.fast=10"), ("--new",)],
    ids=" ".join,
)
def test_other_settings_make_another_run(change: tuple[str, ...], tmp_path: Path) -> None:
    """A run has one set of settings from its first decision to its last; the user is told why a new one begins."""
    first = trade(tmp_path, 3)["run_id"]
    outcome = recall(tmp_path, *SMA, "--max-bars", "3", *change)
    assert ask(tmp_path, "status")["run_id"] != first
    told = f"run {first} was made with other settings ({change[-1].partition('.')[0]}): it stays as it is"
    assert (told in outcome.err) == ("--new" not in change)


def test_how_it_is_shown_does_not_make_another_run(tmp_path: Path) -> None:
    """Pauses and logs decide nothing."""
    first = trade(tmp_path, 3)["run_id"]
    assert trade(tmp_path, 3, "--set", "sandbox.pause=0.001", "--set", "log.level=error")["run_id"] == first


def test_a_key_that_a_later_version_added_does_not_make_another_run(tmp_path: Path) -> None:
    """What a record does not say was as it is by default."""
    first = trade(tmp_path, 3)["run_id"]
    engine = journal_connection(tmp_path / "recall-data")
    with engine.begin() as connection:
        remove = "UPDATE runs SET record = json_remove(record, '$.config.memory.sealed_size')"
        assert connection.exec_driver_sql(remove).rowcount == 1
    engine.dispose()
    assert trade(tmp_path, 3)["run_id"] == first
    assert trade(tmp_path, 3, "--set", "memory.sealed_size=9")["run_id"] != first


def test_halt_opens_nothing_until_resume(tmp_path: Path) -> None:
    """Every order of a halted run reduces; after resume it trades as the strategy wants."""
    run_id = trade(tmp_path, 5)["run_id"]
    told = ask(tmp_path, "halt", "--reason", "news ahead")
    assert (told["run_id"], told["command"]) == (run_id, "halt")
    assert ask(tmp_path, "status")["waiting_commands"] == ["halt"]
    trade(tmp_path, 80)
    halted = decisions(tmp_path, run_id)[5:]
    assert all(Verdict.HALTED_BY_OPERATOR in decision.verdicts for decision in halted)
    assert all(order.reduce_only for decision in halted for order in decision.orders)
    status = ask(tmp_path, "status")
    assert status["halts"] == ["operator"] and status["waiting_commands"] == []
    ask(tmp_path, "resume")
    trade(tmp_path, 80)
    resumed = decisions(tmp_path, run_id)[85:]
    assert not any(Verdict.HALTED_BY_OPERATOR in decision.verdicts for decision in resumed)
    assert any(order for decision in resumed for order in decision.orders if not order.reduce_only)
    assert ask(tmp_path, "status")["halts"] == []
    assert ask(tmp_path, "audit")["differences"] == 0


def test_flatten_closes_everything_and_halts_until_resume(tmp_path: Path) -> None:
    """Decided at the first bar, filled at the second, flat from then on; resume trades again."""
    run_id = holding(tmp_path)
    ask(tmp_path, "flatten")
    trade(tmp_path, 2)
    assert ask(tmp_path, "positions") == []
    status = ask(tmp_path, "status")
    assert status["open_positions"] == 0 and status["halts"] == ["operator, flat"]
    first, second = decisions(tmp_path, run_id)[-2:]
    assert Verdict.FLATTENED_BY_OPERATOR in first.verdicts and first.orders[0].reduce_only
    assert second.position == 0 and not second.orders
    trade(tmp_path, 20)
    assert ask(tmp_path, "positions") == []
    ask(tmp_path, "resume")
    trade(tmp_path, 2)
    assert ask(tmp_path, "positions") != []
    assert ask(tmp_path, "audit")["differences"] == 0


def test_commands_reach_a_running_bot(tmp_path: Path) -> None:
    """From another process, without a restart; it says that it is running."""
    with start(tmp_path, *SMA, "--set", "sandbox.pause=0.02") as process:
        assert process.stderr is not None
        while "bar 1 " not in process.stderr.readline():
            assert process.poll() is None
        assert ask(tmp_path, "status")["status"] == "running"
        told = recall(tmp_path, "flatten")
        assert told.err.strip().endswith("closes every position and halts, from its next step on.")
        while (status := ask(tmp_path, "status"))["open_positions"] or not status["halts"]:
            assert process.poll() is None
        interrupt(process)
    assert ask(tmp_path, "positions") == []


def test_a_run_that_was_killed_says_so_and_goes_on(tmp_path: Path) -> None:
    """The journal cannot know that its process died, but the lock does."""
    with start(tmp_path, *SMA, "--set", "sandbox.pause=0.02") as process:
        assert process.stderr is not None
        while "bar 1 " not in process.stderr.readline():
            assert process.poll() is None
        run_id = ask(tmp_path, "status")["run_id"]
        process.kill()
        process.communicate()
    assert ask(tmp_path, "status")["status"] == "interrupted"
    assert ask(tmp_path, "runs")[0]["status"] == "interrupted"
    assert trade(tmp_path, 2)["run_id"] == run_id
    assert ask(tmp_path, "audit")["differences"] == 0


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_stops_a_run_in_order_unless_it_is_told_to_go_on(
    tmp_path: Path, ignored: bool
) -> None:
    """As Ctrl-C does: after the step in hand, and though nobody is left to write to."""

    def take_terminal() -> None:
        # Whoever started the tests may have told them to ignore it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    bars = ("--max-bars", "30") if ignored else ()
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from bot.cli import main; main()", *SMA, "--set", "sandbox.pause=0.02", *bars],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    seen = b""
    while b"bar 1 " not in seen:
        seen += os.read(ours, 4096)
        assert process.poll() is None, seen
    os.close(ours)
    assert process.wait(60) == 0
    status = ask(tmp_path, "status")
    assert status["status"] == "stopped" and (status["bars"] == 30 or not ignored)
    assert ask(tmp_path, "audit")["differences"] == 0


def test_status_and_positions_agree_with_the_journal(tmp_path: Path) -> None:
    """Equity is cash and positions at the last close."""
    run_id = holding(tmp_path)
    status, (position,) = ask(tmp_path, "status"), ask(tmp_path, "positions")
    assert status["run_id"] == run_id and status["kind"] == "paper" and status["symbols"] == ["BTCUSDT"]
    assert status["bars"] == len(decisions(tmp_path, run_id))
    assert status["profit"] == pytest.approx(status["equity"] - 10_000)
    assert status["open_positions"] == 1
    size = float(position["quantity"]) * (1 if position["side"] == "long" else -1)
    assert position["unrealised"] == pytest.approx(size * (position["mark"] - position["entry_price"]))
    stop = float(position["stop_loss"])
    assert (stop < position["entry_price"]) == (size > 0)


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    """With what came out of them."""
    first = trade(tmp_path, 3)
    second = trade(tmp_path, 3, "--new")
    rows = ask(tmp_path, "runs")
    assert [row["run_id"] for row in rows] == [second["run_id"], first["run_id"]]
    assert [row["total_return"] for row in rows] == [second["total_return"], first["total_return"]]
    assert len(ask(tmp_path, "runs", "--limit", "1")) == 1


def explained(folder: Path, *arguments: str) -> str:
    """What ``recall why`` says."""
    outcome: Outcome = recall(folder, "why", *arguments)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_why_tells_a_decision_without_a_memory(tmp_path: Path) -> None:
    """What was wanted, held and ruled, in words."""
    run_id = trade(tmp_path, 5)["run_id"]
    text = explained(tmp_path, "0", "--run", run_id)
    assert text.startswith("Decision 0  BTCUSDT, bar 2024-01-01T00:00Z")
    assert "with 100.0% of equity: fast average" in text
    assert "held then  nothing, equity 10,000.00" in text
    assert "an order brings the position to the target" in text
    assert " at market, stop " in text
    assert "became     filled" in text
    assert "remembered" not in text
    missing = recall(tmp_path, "why", "5")
    assert missing.error == f"run {run_id} has made 5 decisions, the last is number 4; there is no 5"
    unclear = recall(tmp_path, "why", "yesterday")
    assert unclear.error == "decision 'yesterday' is neither a number nor 'last'; see recall why --help"


def test_why_tells_what_the_memory_said(tmp_path: Path) -> None:
    """The most similar moments with what followed, and how that was read."""
    options = ("--strategy", "similarity", "--memory-size", "2000", "--interval", "15", "--max-bars", "20")
    ask(tmp_path, "paper", *options, "--set", "sandbox.history_bars=1200")
    document = ask(tmp_path, "why", "last")
    neighbours = document["signal"]["explanation"]["neighbours"]
    assert 8 <= len(neighbours) <= 32
    text = explained(tmp_path)
    assert f"It remembered {len(neighbours)} of {document['signal']['explanation']['memory_size']:,} moments." in text
    assert document["signal"]["explanation"]["memory_size"] > 900
    assert "similarity  weight  what followed" in text
    assert "over the primary horizon, with 90% between " in text
    strongest = max(neighbours, key=lambda neighbour: neighbour["weight"])
    first_row = text.partition("what followed\n")[2].splitlines()[0]
    assert f"{strongest['weight']:.1%}" in first_row and f"{expm1(strongest['outcome']):+.2%}" in first_row
    average = sum(each["weight"] * expm1(each["outcome"]) for each in neighbours)
    assert f"of them rose, {average:+.2%} on average:" in text
    assert f"{expm1(document['signal']['expected_return']):+.2%} over the primary horizon" in text


def test_a_replay_explains_the_decisions_that_it_kept(tmp_path: Path) -> None:
    """Those with orders always, all of them on request; a replay is not audited, because it is the yardstick."""
    trade(tmp_path, 1)
    where = ("--set", "storage.data_dir=recall-data/sandbox/7-20240101-400")
    options = ("--interval", "15", "--strategy", "sma_cross", "--no-plot", *where)
    run_id = ask(tmp_path, "backtest", *options)["run_id"]
    dropped = recall(tmp_path, "why", "1", "--run", run_id, *where)
    assert dropped.error == (
        f"decision 1 of run {run_id} is not in the journal; replay it with recall backtest --keep-decisions"
    )
    kept = ask(tmp_path, "backtest", *options, "--keep-decisions")["run_id"]
    assert explained(tmp_path, "1", "--run", kept, *where).startswith("Decision 1")
    refused = recall(tmp_path, "audit", kept, *where)
    assert refused.code == 2
    assert refused.error == f"run {kept} is a replay itself; audit a paper or live run, see recall runs"
    finished = recall(tmp_path, "halt", "--run", run_id, *where)
    assert finished.error == f"run {run_id} is finished, so there is nothing to halt; see recall runs"
