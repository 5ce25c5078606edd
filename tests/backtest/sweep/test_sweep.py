"""Whole sweeps through the command line: what they try, that they go on, and that they do not flatter."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from backtest.significance.ledger import Ledger
from tests.runs import INTERVAL, make_candles, recall, start_recall

MARKET = ("--symbols", "BTCUSDT", "--interval", INTERVAL, "--strategy", "sma_cross")
SPAN = ("--start", "2022-02-01", "--end", "2022-05-15", "--test-months", "1", "--train-months", "1")
FAST = ("--param", "strategy.parameters.fast=4:40")
SLOW = ("--param", "strategy.parameters.slow=50:200")


def swept(folder: Path, *options: str) -> Any:
    return recall(folder, "sweep", *MARKET, *SPAN, *options)


@pytest.fixture
def candles(tmp_path: Path) -> Path:
    make_candles(tmp_path, ("BTCUSDT",), 24 * 140)
    return tmp_path


def tried(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Settings and states by number; what is left of them depends on how many were counted."""
    rows = sorted(document["trials"], key=lambda row: row["number"])
    return [(row["number"], row["values"], row["state"]) for row in rows]


def test_a_grid_tries_every_combination_once_and_counts_them_all(candles: Path) -> None:
    grid = ("--sampler", "grid", "--no-prune", "--param", "strategy.parameters.fast=5,10,20")
    document = swept(candles, *grid, "--param", "strategy.parameters.slow=60,90")
    values = [tuple(row["values"].values()) for row in document["trials"]]
    assert sorted(values) == [(5, 60), (5, 90), (10, 60), (10, 90), (20, 60), (20, 90)]
    assert {row["state"] for row in document["trials"]} == {"complete"}
    assert document["trials_counted"] == 6 == document["walk"]["significance"]["trials"]
    assert len(Ledger(candles).read()) == 6
    assert document["choice"]["path_sharpe"] == sorted(document["choice"]["path_sharpe"])
    assert 0.0 <= document["reality_check"] <= 1.0
    sure = [row["deflated_sharpe"] for row in document["trials"] if row["deflated_sharpe"] is not None]
    assert sure == sorted(sure, reverse=True)
    alone = document["walk"]["significance"]["probabilistic_sharpe"]
    assert document["walk"]["significance"]["deflated_sharpe"] < alone, "six trials deflate"
    assert "6 settings" in document["sentences"][0]
    prefix = document["walk"]["certificate"]["prefix"]
    assert prefix["cuts"] == 4 and prefix["changed"] == 0, "the chosen trial is probed in every window"


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.slow)])
def test_a_sweep_that_goes_on_tries_what_one_without_a_break_tries(tmp_path: Path, sampler: str) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    for folder in (once, twice):
        folder.mkdir()
        make_candles(folder, ("BTCUSDT",), 24 * 140)
    options = (*FAST, *SLOW, "--sampler", sampler)
    first = swept(twice, *options, "--trials", "3")
    assert len(first["trials"]) == 3
    again = swept(twice, *options, "--trials", "7")
    whole = swept(once, *options, "--trials", "7")
    assert tried(again) == tried(whole) and len(tried(whole)) == 7
    assert again["walk"] == whole["walk"] | {"certificate": again["walk"]["certificate"]}


def test_trials_below_the_median_end_early_and_still_count(candles: Path) -> None:
    document = swept(candles, *FAST, *SLOW, "--trials", "9", "--sampler", "random")
    states = [row["state"] for row in document["trials"]]
    assert "pruned" in states and "complete" in states
    assert document["trials_counted"] == 9
    windows = {
        path.parent.name: len(list(path.parent.glob("*.msgpack"))) for path in candles.glob("walk-forward/*/*.msgpack")
    }
    assert min(windows.values()) < max(windows.values()) == 4


def test_settings_that_cannot_be_are_told_and_the_rest_is_tried(candles: Path) -> None:
    grid = ("--sampler", "grid", "--param", "strategy.parameters.fast=5,70", "--param", "strategy.parameters.slow=60")
    document = swept(candles, *grid)
    failed = next(row for row in document["trials"] if row["state"] == "failed")
    assert failed["values"]["strategy.parameters.fast"] == 70 and "fast" in failed["problem"]
    assert document["trials_counted"] == 1
    recall(candles, "sweep", *MARKET, *SPAN, "--param", "strategy.parameters.fast=70,80", "--sampler", "grid",
           "--set", "strategy.parameters.slow=60", expect=2)  # fmt: skip


def test_a_sweep_of_nothing_is_refused(candles: Path) -> None:
    recall(candles, "sweep", *MARKET, *SPAN, expect=2)


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_to_the_numbers_of_one_that_was_not(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        make_candles(folder, ("BTCUSDT",), 24 * 140)
    options = (*FAST, *SLOW, "--trials", "10", "--workers", "2")
    process = start_recall(killed, "sweep", *MARKET, *SPAN, *options)
    deadline = time.monotonic() + 120
    while len(list(killed.glob("walk-forward/*/002-plain.msgpack"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline, (killed / "output.log").read_text()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again, unbroken = swept(killed, *options), swept(whole, *options)
    assert [row[1:] for row in tried(again)] == [row[1:] for row in tried(unbroken)]
    assert again["walk"]["arms"] == unbroken["walk"]["arms"]
