"""The part of the page of results about walking forward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness import BenchmarkError
from benchmarks.walk import walk_of, with_walk, write_walk
from tests.runs import INTERVAL, make_candles, recall


def test_a_walk_becomes_a_part_of_the_page_and_the_next_takes_its_place(tmp_path: Path) -> None:
    make_candles(tmp_path, ("BTCUSDT",), 24 * 120)
    page, source = tmp_path / "results.md", tmp_path / "walk.json"
    page.write_text("# Results\n\nOpening.\n\n## Volatility\n\nTable.\n", encoding="utf-8")
    arguments = ("walk-forward", "--symbols", "BTCUSDT", "--interval", INTERVAL, "--strategy", "sma_cross",
                 "--start", "2022-02-01", "--train-months", "1", "--test-months", "1")  # fmt: skip
    for fast in ("5", "9"):
        document = recall(tmp_path, *arguments, "--set", f"strategy.parameters.fast={fast}")
        source.write_text(json.dumps(document), encoding="utf-8")
        write_walk(source, page=page, code="abc", picture=tmp_path / "walk.png")
        text = page.read_text(encoding="utf-8")
        assert text.count("## Walking forward") == 1 and text.endswith("## Volatility\n\nTable.\n")
        assert document["significance"]["sentences"][0] in text and (tmp_path / "walk.png").stat().st_size > 10_000
        assert f"{document['arms']['plain']['metrics']['total_return']:+.2%}" in text
    assert with_walk("# Other\n\n## Part\n", walk_of(text)).count("## Walking forward") == 1
    assert walk_of("# Other") == "" and with_walk("# Other", "") == "# Other"


def test_what_is_no_walk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "walk.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BenchmarkError, match="recall walk-forward --json"):
        write_walk(tmp_path / "walk.json", page=tmp_path / "results.md")
