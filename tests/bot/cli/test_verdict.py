"""``recall backtest`` judges its own result."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from backtest.significance.ledger import Ledger
from bot.cli.app import run
from tests.runs import BUSY, INTERVAL, make_candles, recall, span

MARKET = ("--symbols", "BTCUSDT", "--interval", INTERVAL)
SPAN = span(1200, 2700)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("verdict")
    make_candles(made, ("BTCUSDT",), 3000)
    return made


def test_the_first_lines_say_whether_it_is_luck_and_what_was_not_looked_at(folder: Path) -> None:
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        arguments = ["backtest", *MARKET, *BUSY, *SPAN, "--no-plot", "--set", f"storage.data_dir={folder}"]
        code = run(arguments)
    assert code == 0
    document = recall(folder, "backtest", *MARKET, *BUSY, *SPAN, "--no-plot")
    lines = document["significance"]["sentences"]
    assert "luck" in lines[0]
    assert any("--verdict full" in line for line in lines)
    assert document["significance"]["memory"] is None and document["certificate"]["prefix"] is None
    audit = document["certificate"]["maturity"]
    assert audit["violations"] == 0 and audit["decisions"] > 500 and document["certificate"]["is_clean"]
    unstressed = document["significance"]["stresses"][1]
    assert unstressed["name"] == "costs x1"
    assert unstressed["total_return"] == pytest.approx(document["total_return"], abs=1e-12)


def test_a_full_verdict_trades_with_a_shuffled_memory_and_probes_the_future(folder: Path) -> None:
    options = ("--verdict", "full", "--shuffles", "2", "--no-plot")
    document = recall(folder, "backtest", *MARKET, *BUSY, *SPAN, *options)
    memory = document["significance"]["memory"]
    assert memory["shuffles"] == 2 and memory["method"] == "paired bootstrap" and 0.0 < memory["p_value"] <= 1.0
    assert memory["total_return"] == pytest.approx(document["total_return"], abs=1e-9)
    assert memory["shuffled_return"] != memory["total_return"]
    assert document["certificate"]["memory_p_value"] == memory["p_value"]
    prefix = document["certificate"]["prefix"]
    assert prefix["changed"] == 0 and prefix["cuts"] == 3 and len(prefix["sha256"]) == 64
    assert not any("Not looked at" in line for line in document["significance"]["sentences"])


def test_a_strategy_that_peeks_is_found_out_by_a_full_verdict(folder: Path) -> None:
    options = ("--strategy", "tests.bot.cli.strategies:Peeks", "--verdict", "full", "--no-plot")
    document = recall(folder, "backtest", *MARKET, *SPAN, *options)
    assert document["significance"]["outcome"] == "significant", "which is why the certificate stands beside it"
    assert document["certificate"]["prefix"]["changed"] > 0
    assert document["certificate"]["is_clean"] is False
    assert any(line.startswith("LEAK") for line in document["certificate"]["sentences"])


def test_every_backtest_is_entered_and_deflates_the_next(tmp_path: Path) -> None:
    make_candles(tmp_path, ("BTCUSDT",), 3000)
    found = []
    for fast in (5, 9, 9):
        options = ("--strategy", "sma_cross", "--set", f"strategy.parameters.fast={fast}", "--no-plot")
        found.append(recall(tmp_path, "backtest", *MARKET, *SPAN, *options)["significance"])
    assert [each["trials"] for each in found] == [1, 2, 2]
    assert found[0]["luckiest_sharpe"] == 0.0 < found[1]["luckiest_sharpe"]
    none = recall(tmp_path, "backtest", *MARKET, *SPAN, "--strategy", "sma_cross", "--verdict", "none", "--no-plot")
    assert "significance" not in none
    assert len(Ledger(tmp_path).read()) == 4
