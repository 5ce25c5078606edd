"""Whole walks through the command line: the same numbers however they are computed, and none that knows the future."""

from __future__ import annotations

import os
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backtest.sandbox.market import SyntheticMarket
from backtest.walk_forward.window import read_result
from bot.execution.builtin import builtin_instrument
from bot.market.candles import CandleStore
from bot.market.funding import FundingStore
from strategies.bars import Calendar, format_time
from tests.models import TINY
from tests.runs import BEGIN, INTERVAL, make_candles, recall, start_recall, time_of

MARKET = ("--symbols", "BTCUSDT,ETHUSDT", "--interval", INTERVAL)
SPAN = ("--start", "2022-03-01", "--end", "2022-05-15", "--test-months", "1", "--train-months", "2")
SMA = ("walk-forward", *MARKET, *SPAN, "--strategy", "sma_cross")
MODEL = (
    "walk-forward", *MARKET, *SPAN, "--strategy", "memory_transformer", *TINY, "--set", "training.epochs=1",
    "--set", "signal.entry_threshold=0.1",
)  # fmt: skip
BARS = 24 * 140


def numbers(document: dict[str, Any]) -> dict[str, Any]:
    """Of a walk, all that must not depend on how it was computed."""
    return {name: document[name] for name in ("walk_id", "arms", "windows")} | {
        "significance": {**document["significance"], "trials": 0},
        "prefix": document["certificate"]["prefix"],
    }


@pytest.fixture
def candles(tmp_path: Path) -> Path:
    make_candles(tmp_path, ("BTCUSDT", "ETHUSDT"), BARS)
    return tmp_path


def test_a_walk_of_rules_has_one_account_over_all_windows(candles: Path) -> None:
    document = recall(candles, *SMA)
    plain = document["arms"]["plain"]
    assert [each["name"] for each in document["windows"]] == [
        "2022-03-01 to 2022-04-01", "2022-04-01 to 2022-05-01", "2022-05-01 to 2022-05-15",
    ]  # fmt: skip
    growth = 1.0
    for window in plain["windows"]:
        growth *= 1.0 + window["total_return"]
    assert plain["metrics"]["total_return"] == pytest.approx(growth - 1.0)
    held = plain["metrics"]["mean_exposure"]
    assert 0.0 < held <= 1.0 and plain["metrics"]["annual_turnover"] > 1.0
    # A round trip turns its value over twice, and every fill pays the fee of a taker.
    assert plain["metrics"]["fees_paid"] == pytest.approx(0.00055 * plain["metrics"]["turnover"], rel=1e-6)
    assert plain["metrics"]["trades"] == sum(window["trades"] for window in plain["windows"])
    assert document["significance"]["outcome"] in ("significant", "luck", "loss", "undecided")
    names = [each["name"] for each in document["significance"]["stresses"]]
    assert names == ["costs x0", "costs x1", "costs x2", "one bar late"]
    unstressed = document["significance"]["stresses"][1]["total_return"]
    assert unstressed == pytest.approx(plain["metrics"]["total_return"], abs=1e-12)
    free, twice = (document["significance"]["stresses"][at]["total_return"] for at in (0, 2))
    assert free > unstressed > twice


def test_the_certificate_of_a_walk_has_every_part(candles: Path) -> None:
    certificate = recall(candles, *SMA)["certificate"]
    assert certificate["prefix"]["cuts"] == 3 and certificate["prefix"]["changed"] == 0
    assert len(certificate["prefix"]["sha256"]) == 64 and certificate["is_clean"]
    assert certificate["trials"] == 1 and len(certificate["ledger_sha256"]) == 64
    assert certificate["test_span"] == [time_of(24 * 59 + 1), time_of(24 * 134)]


def test_a_window_that_a_sweep_traded_is_probed_when_it_is_walked(candles: Path) -> None:
    first = recall(candles, *SMA)
    files = sorted((candles / "walk-forward" / first["walk_id"]).glob("*-plain.msgpack"))
    for file in files:
        result = read_result(file)
        assert result is not None and result.prefix is not None
        file.write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(result, prefix=None)))
    assert numbers(recall(candles, *SMA)) == numbers(first)
    assert [read_result(file).prefix is not None for file in files] == [True] * 3


def test_stored_funding_rates_make_another_walk(candles: Path) -> None:
    first = recall(candles, *SMA)
    FundingStore(candles / "funding").append("BTCUSDT", [(time_of(24 * 70), Decimal("0.003"))])
    again = recall(candles, *SMA)
    assert again["walk_id"] != first["walk_id"]
    assert again["arms"]["plain"]["metrics"]["funding_paid"] != first["arms"]["plain"]["metrics"]["funding_paid"]


def test_the_same_walk_again_reads_what_is_there_and_counts_once(candles: Path) -> None:
    first = recall(candles, *SMA)
    folder = candles / "walk-forward" / first["walk_id"]
    stamps = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.msgpack")}
    again = recall(candles, *SMA)
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("*.msgpack")} == stamps
    assert numbers(again) == numbers(first)
    assert first["significance"]["trials"] == again["significance"]["trials"] == 1
    other = recall(candles, *SMA, "--set", "strategy.parameters.fast=7")
    assert other["significance"]["trials"] == 2 and other["walk_id"] != first["walk_id"]
    assert other["certificate"]["ledger_sha256"] not in ("", first["certificate"]["ledger_sha256"])


def test_candles_after_a_window_change_nothing_in_it(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    make_candles(here, ("BTCUSDT", "ETHUSDT"), BARS)
    store, cut = CandleStore(there / "candles"), 24 * (31 + 28 + 31)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        instrument = builtin_instrument(symbol, Calendar.CONTINUOUS)
        for seed, first, last in ((3, 0, cut), (8, cut, BARS)):
            market = SyntheticMarket(seed, symbol, INTERVAL, instrument=instrument)
            store.append(market.series(BEGIN, time_of(BARS)).slice(first, last), source="synthetic")
    mine, other = (recall(folder, *SMA)["arms"]["plain"]["windows"] for folder in (here, there))
    assert mine[0] == other[0]
    assert mine[1] != other[1]


def test_a_span_without_a_past_is_refused_in_one_sentence(candles: Path) -> None:
    recall(candles, "walk-forward", *MARKET, "--start", "2022-01-01", "--end", "2022-02-01", expect=2)


@pytest.mark.slow
def test_a_walk_that_was_killed_goes_on_to_the_same_numbers_in_one_process_or_two(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        make_candles(folder, ("BTCUSDT", "ETHUSDT"), BARS)
    process = start_recall(killed, *MODEL)
    deadline = time.monotonic() + 300
    while not list(killed.glob("walk-forward/*/001-shuffled-outcomes.msgpack")):
        assert process.poll() is None and time.monotonic() < deadline, (killed / "output.log").read_text()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = list(killed.glob("walk-forward/*/*.msgpack"))
    assert 2 <= len(found) < 9
    continued = recall(killed, *MODEL, "--workers", "2")
    assert numbers(continued) == numbers(recall(whole, *MODEL))
    certificate = continued["certificate"]
    assert certificate["prefix"]["cuts"] == 3 and certificate["prefix"]["changed"] == 0
    assert certificate["memory_p_value"] is not None and certificate["deflated_sharpe"] is not None
    assert certificate["is_clean"] and len(certificate["walk"]) == 3
    assert certificate["maturity"]["violations"] == 0 and certificate["maturity"]["decisions"] > 0
    assert certificate["maturity"]["smallest_margin_ms"] >= certificate["maturity"]["embargo_ms"]
    assert set(continued["arms"]) == {"plain", "shuffled outcomes", "without memory"}
    assert continued["significance"]["memory"]["method"] == "paired bootstrap"
    assert not list(killed.glob("models/*")), "the models of a walk are none to trade with"
    opened = [each["start"] for each in continued["arms"]["plain"]["windows"]]
    assert format_time(opened[0]) == "2022-03-01T01:00Z"
