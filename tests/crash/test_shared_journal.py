"""Two bots with folders of their own on one journal: they share the database, never a run."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.runs import INTERVAL, make_candles, recall, span, start_recall

BARS = 60
PAPER = (
    "paper", "--symbols", "BTCUSDT", "--interval", INTERVAL, "--strategy", "sma_cross",
    "--venue", "sandbox", "--set", "sandbox.source=store", *span(100, 100 + BARS),
)  # fmt: skip
DEADLINE_S = 60.0


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'shared.sqlite'}"


def bars_in(url: str) -> int:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT count(*) FROM bars")).scalar_one())
    except (sa.exc.OperationalError, sa.exc.ProgrammingError):
        return 0  # The tables are not there yet.
    finally:
        engine.dispose()


def output_of(process: subprocess.Popen[bytes], data_dir: Path) -> str:
    process.wait(DEADLINE_S)
    return " ".join((data_dir / "output.log").read_text().split())


def test_a_run_that_one_bot_trades_is_refused_to_another_until_it_dies(tmp_path: Path, journal_url: str):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        make_candles(folder, ("BTCUSDT",), 100 + BARS)
    one, other = folders
    arguments = (*PAPER, "--set", f"storage.database_url={journal_url}")
    first = start_recall(one, *arguments, "--set", "sandbox.pause=6")
    try:
        while bars_in(journal_url) == 0:
            assert first.poll() is None, output_of(first, one)
            threading.Event().wait(0.02)
        second = start_recall(other, *arguments)
        said = output_of(second, other)
        assert second.returncode == 2, said
        assert (
            "is being traded by another process on the same journal; stop that one, or begin a new run with --new"
            in said
        )
        assert "Traceback" not in said and bars_in(journal_url) < BARS
    finally:
        first.kill()
        first.wait()
    third = start_recall(other, *arguments)
    said = output_of(third, other)
    assert third.returncode == 0, said
    assert bars_in(journal_url) == BARS
    report = recall(other, "audit", "latest", "--set", f"storage.database_url={journal_url}")
    assert report["bars"] == BARS and report["differences"] == 0
