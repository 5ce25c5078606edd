"""SIGKILL at any moment: the run goes on, nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.runs import BUSY, INTERVAL, journal_connection, make_candles, recall, span, start_recall

MARKET = ("--symbols", "BTCUSDT", "--interval", INTERVAL)
SANDBOX = ("--venue", "sandbox", "--set", "sandbox.source=store")
MOST_STARTS = 200


def bars_in_journal(data_dir: Path) -> int:
    """Bars that are durable so far."""
    if not (data_dir / "journal.sqlite").exists():
        return 0
    engine = journal_connection(data_dir)
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT count(*) FROM bars")).scalar_one())
    except sa.exc.OperationalError:
        return 0  # The tables are not there yet.
    finally:
        engine.dispose()


def run_with_kills(data_dir: Path, arguments: tuple[str, ...], kills: int, bars: int, seed: int) -> int:
    """Start a run again and again until it is finished, killing it at random points; returns how often it was killed."""
    rng = random.Random(seed)
    targets = sorted(rng.sample(range(1, bars - 1), kills))
    killed = 0
    for _ in range(MOST_STARTS):
        process = start_recall(data_dir, "paper", *arguments)
        target = targets[killed] if killed < kills else None
        # Poll the journal as fast as it allows: the kill lands anywhere inside the steps that follow.
        while process.poll() is None:
            if target is not None and bars_in_journal(data_dir) >= target:
                threading.Event().wait(rng.random() * 0.01)
                process.kill()
                process.wait()
                killed += 1
                break
            threading.Event().wait(0.005)
        else:
            log = (data_dir / "output.log").read_text()
            assert process.returncode == 0, log[-3000:]
            return killed
    raise AssertionError("the run never finished")


def assert_nothing_lost_or_doubled(data_dir: Path, arguments: tuple[str, ...], first: int, last: int) -> dict:
    """The journal holds each bar, decision and fill once, and all of it replays."""
    engine = journal_connection(data_dir)
    with engine.connect() as connection:
        runs = connection.execute(sa.text("SELECT count(*) FROM runs")).scalar_one()
        assert runs == 1, "a restart began another run"
        decisions = [row[0] for row in connection.execute(sa.text("SELECT number FROM decisions ORDER BY number"))]
        assert decisions == list(range(last - first))
        sequences = [
            row[0]
            for row in connection.execute(
                sa.text(
                    "SELECT sequence FROM bars UNION ALL SELECT sequence FROM executions"
                    " UNION ALL SELECT sequence FROM events ORDER BY 1"
                )
            )
        ]
        assert sequences == list(range(1, len(sequences) + 1)), "an event was lost or doubled"
    engine.dispose()
    report = recall(data_dir, "audit", "latest")
    assert report["differences"] == 0, report
    replay = recall(data_dir, "backtest", *arguments, *span(first, last), "--no-plot")
    assert replay["fills"] == report["fills"]
    return report | {"replay": replay}


def final_hashes(data_dir: Path) -> tuple[str, str]:
    """Hashes of the last paper run, as it reported them when it finished."""
    with journal_connection(data_dir).connect() as connection:
        row = connection.execute(
            sa.text(
                "SELECT json_extract(summary, '$.decisions_sha256'), json_extract(summary, '$.trades_sha256')"
                " FROM runs WHERE kind = 'paper'"
            )
        ).one()
    return row[0], row[1]


@pytest.mark.parametrize(
    ("kills", "last"), [(2, 850), pytest.param(4, 1_000, marks=pytest.mark.slow)], ids=["twice", "four-times"]
)
def test_a_run_killed_again_and_again_ends_like_one_that_never_was(tmp_path: Path, kills: int, last: int):
    first = 700
    make_candles(tmp_path, ("BTCUSDT",), last)
    arguments = (*MARKET, *BUSY)
    killed = run_with_kills(tmp_path, (*arguments, *SANDBOX, *span(first, last)), kills, last - first, seed=1)
    assert killed == kills
    report = assert_nothing_lost_or_doubled(tmp_path, arguments, first, last)
    assert final_hashes(tmp_path) == (report["replay"]["decisions_sha256"], report["replay"]["trades_sha256"])


def test_a_killed_run_gives_its_strategy_the_state_that_bars_do_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    first, last = 700, 800
    make_candles(tmp_path, ("BTCUSDT",), last)
    mine = ("--strategy", "tests.bot.cli.strategies:TakesTurns", "--set", "strategy.parameters.bars=7")
    arguments = (*MARKET, *mine)
    assert run_with_kills(tmp_path, (*arguments, *SANDBOX, *span(first, last)), 1, last - first, seed=3) == 1
    report = assert_nothing_lost_or_doubled(tmp_path, arguments, first, last)
    assert final_hashes(tmp_path) == (report["replay"]["decisions_sha256"], report["replay"]["trades_sha256"])
    assert report["buys"] >= 6, "it hardly took its turns"


@pytest.mark.slow
def test_a_run_of_the_memory_transformer_survives_thirty_kills(tmp_path: Path):
    """The main strategy, its memory answering, killed thirty times in a row."""
    first, last = 3_000, 4_200
    make_candles(tmp_path, ("BTCUSDT",), last)
    recall(tmp_path, "train", *MARKET, *span(0, first), "--epochs", "1", "--memory-size", "2500")
    arguments = (*MARKET, "--strategy", "memory_transformer", "--memory-size", "2500")
    killed = run_with_kills(tmp_path, (*arguments, *SANDBOX, *span(first, last)), 30, last - first, seed=2)
    assert killed == 30
    report = assert_nothing_lost_or_doubled(tmp_path, arguments, first, last)
    assert final_hashes(tmp_path) == (report["replay"]["decisions_sha256"], report["replay"]["trades_sha256"])
    assert min(report["buys"], report["sells"]) > 0
