"""A run whose memory has an archive: paper, replay and audit agree, across a stop of the bot, with and without its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memory_store import archive
from tests.bot.cli import terminal
from tests.runs import BUSY, INTERVAL, make_candles, recall, span

FIRST, LAST, STOPPED = 1_100, 1_260, 100
MARKET = ("--symbols", "BTCUSDT", "--interval", INTERVAL)
MEMORY = ("--memory-size", "300", "--set", "memory.sealed_size=500")
SANDBOX = ("--venue", "sandbox", "--set", "sandbox.source=store")


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SMALLEST_SEGMENT", 64)


def test_paper_replay_and_audit_agree_with_an_archive(tmp_path: Path):
    make_candles(tmp_path, ("BTCUSDT",), LAST)
    paper = ("paper", *MARKET, *BUSY, *MEMORY, *SANDBOX, *span(FIRST, LAST))
    recall(tmp_path, *paper, "--max-bars", str(STOPPED))
    segments = sorted((tmp_path / "snapshots").glob("*.segments/*.segment"))
    assert len(segments) == 8
    segments[3].unlink()
    again = terminal.recall(tmp_path, *paper, "--json", "--set", f"storage.data_dir={tmp_path}")
    assert again.code == 0 and "1 sealed segments of the memory made again from the journal" in again.err
    replay = recall(tmp_path, "backtest", *MARKET, *BUSY, *MEMORY, *span(FIRST, LAST), "--no-plot")
    assert again.document["decisions_sha256"] == replay["decisions_sha256"]
    assert again.document["trades_sha256"] == replay["trades_sha256"] and replay["fills"] > 10
    alone = ("--memory-size", "300")
    small = recall(tmp_path, "backtest", *MARKET, *BUSY, *alone, *span(FIRST, LAST), "--no-plot")
    assert small["decisions_sha256"] != replay["decisions_sha256"], "the archive has nothing to say"
    shutil.rmtree(tmp_path / "snapshots")
    report = recall(tmp_path, "audit", again.document["run_id"])
    assert (report["differences"], report["decisions"]) == (0, LAST - FIRST)
    assert recall(tmp_path, "memory", "check", "latest")["differences"] == 0
    held = recall(tmp_path, "memory", "stats", "latest")
    assert (held["held"], held["capacity"], held["sealed"]) == (800, 800, 500)
