"""A walk is reported and compared like a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bot.errors import ExitCode
from tests.backtest.report.conftest import MARKET, Runs
from tests.backtest.report.test_pages import SHOWN, opened
from tests.bot.cli.terminal import recall as typed
from tests.runs import BUSY, recall

SPAN = ("--start", "2022-02-05", "--end", "2022-04-12", "--test-months", "1", "--train-months", "1")


@pytest.fixture(scope="module")
def walk(runs: Runs) -> dict[str, Any]:
    """What a walk of rules said."""
    document: dict[str, Any] = recall(runs.folder, "walk-forward", *MARKET, *SPAN, "--strategy", "sma_cross")
    return document


def test_the_report_of_a_walk_says_what_the_walk_said(runs: Runs, walk: dict[str, Any], tmp_path: Path) -> None:
    written = recall(runs.folder, "report", walk["walk_id"], "--out", str(tmp_path / "walk.html"))
    assert written["significance"] == walk["significance"] and written["certificate"] == walk["certificate"]
    assert Path(written["picture"]).read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "walk.html").read_text(encoding="utf-8")
    plain = walk["arms"]["plain"]
    for window in plain["windows"]:
        told = f"{100 * window['total_return']:+.1f} %".replace("-", "\N{MINUS SIGN}")
        assert told in text
    table = re.search(r'id="trades-data">(.*?)</script>', text, re.DOTALL)
    assert table is not None and len(json.loads(table[1])["rows"]) == plain["metrics"]["trades"] > 0
    recall(runs.folder, "report", walk["walk_id"], "--out", str(tmp_path / "again.html"))
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_a_walk_is_held_against_a_run(runs: Runs, walk: dict[str, Any]) -> None:
    document = recall(runs.folder, "compare", walk["walk_id"], runs.rule)
    assert document["runs"] == [walk["walk_id"], runs.rule]
    assert document["figures"]["total_return"][0] == walk["arms"]["plain"]["metrics"]["total_return"]
    assert document["differences"][0]["days"] > 40
    assert document["judgements"][0]["significance"] == walk["significance"]
    assert {each["certificate"]["is_clean"] for each in document["judgements"]} == {True, None}


def test_a_walk_is_listed_with_the_runs(runs: Runs, walk: dict[str, Any]) -> None:
    listed = {each["run_id"]: each for each in recall(runs.folder, "runs")}
    assert listed[walk["walk_id"]]["kind"] == "walk-forward" and runs.rule in listed
    assert listed[walk["walk_id"]]["total_return"] == walk["arms"]["plain"]["metrics"]["total_return"]


def test_a_walk_that_lacks_a_window_is_refused_with_the_fix(runs: Runs, walk: dict[str, Any]) -> None:
    folder = runs.folder / "walk-forward" / walk["walk_id"]
    file = folder / "002-plain.msgpack"
    content = file.read_bytes()
    file.unlink()
    outcome = typed(runs.folder, "report", walk["walk_id"], "--set", f"storage.data_dir={runs.folder}")
    file.write_bytes(content)
    assert outcome.code == ExitCode.USAGE
    assert outcome.error == (
        f"walk {walk['walk_id']} is not whole, or of an earlier version; give the command that made it once more, which "
        "reads the windows that are there"
    )


@pytest.mark.slow
def test_every_panel_of_the_report_of_a_walk_is_drawn(runs: Runs, browser: Any, tmp_path: Path) -> None:
    walk = recall(runs.folder, "walk-forward", *MARKET, *BUSY, *SPAN)
    recall(runs.folder, "report", walk["walk_id"], "--out", str(tmp_path / "walk.html"))
    with opened(browser, tmp_path / "walk.html") as page:
        for name in ("account", "distribution", "candles-BTCUSDT", "advice", "attention"):
            assert page.evaluate(SHOWN, name), name
        for name in ("windows", "arms", "evidence", "baselines", "stresses", "drawdowns", "remembered"):
            assert page.locator(f"#{name} tr").count() >= 2, name
        assert page.locator("#certificate li.passed").count() == 2
        assert page.locator("#certificate li").count() == 5
        assert "shuffled outcomes" in page.locator("#windows thead").inner_text()
