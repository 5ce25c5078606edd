"""The pages of reports and comparisons, in a real browser and as files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from backtest.report.page import render_run
from backtest.report.recollection import recollect
from tests.backtest.report.conftest import Runs
from tests.backtest.report.test_diagnosis import gathered
from tests.bot.cli.terminal import PROJECT
from tests.runs import recall

PANELS = ("account", "rolling", "distribution", "candles-BTCUSDT", "candles-ETHUSDT", "advice", "attention")
TABLES = (
    "months", "drawdowns", "evidence", "baselines", "stresses", "sides", "costs", "trades", "remembered", "facts",
)  # fmt: skip
SHOWN = """
((name) => {
  const view = Object.values(Bokeh.index).find((each) => each.el.closest(`#chart-${name}`))
  const {canvas} = view.export("png", false)
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
  return canvas.width > 200 && new Set(new Uint32Array(pixels.buffer)).size > 20
})
"""
"""Whether a chart has drawn something: a blank one has few colours."""


def write_report(runs: Runs, run_id: str, path: Path) -> str:
    recall(runs.folder, "report", run_id, "--out", str(path))
    return path.read_text(encoding="utf-8")


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1280, dark: bool = False) -> Iterator[Any]:
    """A page of the browser, without a network, that is not allowed to complain or to ask for anything."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, offline=True, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda each: complaints.append(each.text) if each.type in ("error", "warning") else None)
    page.on("pageerror", lambda each: complaints.append(str(each)))
    page.on("request", lambda each: None if each.url.startswith(("file:", "data:")) else complaints.append(each.url))
    page.goto(path.resolve().as_uri())
    page.wait_for_selector("html[data-drawn=yes]", timeout=60_000)
    page.wait_for_timeout(300)
    yield page
    assert complaints == []
    context.close()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), pytest.param(400, True, marks=pytest.mark.slow)])
def test_every_panel_of_a_report_is_drawn_without_a_network_and_without_a_complaint(
    page_of_memory: Path, browser: Any, width: int, dark: bool
) -> None:
    with opened(browser, page_of_memory, width=width, dark=dark) as page:
        assert page.locator("#verdict strong").inner_text()
        for name in PANELS:
            if name.startswith("candles-"):
                page.click(f"button[data-shows=chart-{name}]")
                page.wait_for_timeout(300)
            assert page.evaluate(SHOWN, name), name
        for name in TABLES:
            assert page.locator(f"#{name} tr").count() >= 1, name
        assert page.locator("#certificate li").count() == 5
        # What the tests found is seen without scrolling sideways.
        edges = page.evaluate(
            "[...document.querySelectorAll('#evidence td')].map((c) => c.getBoundingClientRect().right)"
        )
        assert max(edges) <= width
        # Nothing is wider than the window; wide tables scroll by themselves.
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_trades_can_be_turned_over_and_sorted(page_of_memory: Path, browser: Any) -> None:
    with opened(browser, page_of_memory) as page:
        first = page.locator("#trades tbody tr").first.inner_text()
        page.click("#trades-pager button:last-of-type")
        assert page.locator("#trades tbody tr").first.inner_text() != first
        page.click("#trades th:nth-child(9) button")
        profits = page.locator("#trades tbody td:nth-child(9)").all_inner_texts()
        values = [float(text.replace("\N{MINUS SIGN}", "-").replace(",", "")) for text in profits]
        assert len(values) == 20 and values == sorted(values, reverse=True)


@pytest.mark.slow
def test_candles_follow_the_part_of_the_run_that_is_looked_at(page_of_memory: Path, browser: Any) -> None:
    with opened(browser, page_of_memory) as page:
        fit = "models('CustomJS').find((each) => each.name === 'on-opening').args"
        shown = (
            f"(() => {{ const fit = {fit}; const [own, all, heights] = ['shown', 'base', 'heights'].map((n) => fit[n]);"
            " return {count: own.data.time.length, all: all.data.time.length, low: heights.start, high: heights.end} })()"
        )
        look = fit + ".span.setv({{start: {}, end: {}}})"
        whole = page.evaluate(f"(() => {{ const t = {fit}.base.data.time; return [t[0], t.at(-1)] }})()")
        page.evaluate(look.format(*whole))
        page.wait_for_timeout(200)
        wide = page.evaluate(shown)
        assert 100 < wide["count"] <= 361 < wide["all"] == 1470
        page.evaluate(look.format(whole[0], whole[0] + 50 * 3_600_000))
        page.wait_for_timeout(200)
        narrow = page.evaluate(shown)
        assert 50 <= narrow["count"] <= 53
        assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]


@pytest.mark.slow
def test_a_print_shows_pictures_of_the_charts(page_of_memory: Path, browser: Any) -> None:
    with opened(browser, page_of_memory, dark=True) as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        sizes = page.evaluate("[...document.querySelectorAll('.chart img')].map((each) => each.src.length)")
        assert len(sizes) == len(PANELS) - 1  # of the candles only those of the chosen symbol
        assert min(sizes) > 2000
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert not page.evaluate("document.documentElement.classList.contains('printing')")


@pytest.mark.slow
def test_a_comparison_shows_its_curves(runs: Runs, browser: Any, tmp_path: Path) -> None:
    recall(runs.folder, "compare", runs.memory, runs.rule, "--out", str(tmp_path / "both.html"))
    with opened(browser, tmp_path / "both.html") as page:
        assert page.evaluate(SHOWN, "growth")
        assert runs.rule in page.locator("#differences strong").inner_text()


@pytest.mark.slow
def test_the_report_of_a_paper_run_is_whole_too(runs: Runs, paper_run: str, browser: Any, tmp_path: Path) -> None:
    write_report(runs, paper_run, tmp_path / "report.html")
    with opened(browser, tmp_path / "report.html") as page:
        assert page.evaluate(SHOWN, "account") and page.evaluate(SHOWN, "candles-BTCUSDT")
        assert "Too short to judge" in page.locator("#verdict strong").inner_text()
        assert page.locator("#certificate li.passed").count() >= 1


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes_in_another_process(runs: Runs, page_of_memory: Path, tmp_path: Path) -> None:
    once = page_of_memory.read_text(encoding="utf-8")
    code = "from bot.cli.app import run; import sys; sys.exit(run(sys.argv[1:]))"
    arguments = [
        "report",
        runs.memory,
        "--out",
        str(tmp_path / "three.html"),
        "--set",
        f"storage.data_dir={runs.folder}",
    ]
    variables = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "77"}
    subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, env=variables, cwd=tmp_path, capture_output=True
    )
    assert (tmp_path / "three.html").read_text(encoding="utf-8") == once


class _Outside(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_the_file_names_nothing_outside_itself_and_stays_small(page_of_memory: Path) -> None:
    text = page_of_memory.read_text(encoding="utf-8")
    parser = _Outside()
    parser.feed(text)
    assert parser.found == ["data:,"]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None and "url(" not in style[1] and "@import" not in style[1] and "FONT_OF_CHARTS" not in text
    assert len(text.encode()) < 3_000_000


def test_who_was_right_is_told_where_a_model_and_a_memory_had_a_say(runs: Runs, page_of_memory: Path) -> None:
    assert 'id="agreement"' not in page_of_memory.read_text(encoding="utf-8")
    material = gathered(runs, runs.memory)
    assert material.recollection is not None
    outlooks = material.recollection.outlooks
    advised = replace(outlooks, prediction=-outlooks.memory_mean)
    text = render_run(replace(material, recollection=recollect(advised, material.candles)))
    assert 'id="agreement"' in text and "When it disagreed with the model" in text


def test_the_page_has_every_figure_and_the_assumptions_that_it_rests_on(page_of_memory: Path) -> None:
    text = page_of_memory.read_text(encoding="utf-8")
    for name in (
        "Volatility, a year",
        "Calmar ratio",
        "Profit factor",
        "Mean of a round trip",
        "Bars with a gain",
        "Beta",
    ):
        assert f"<dt>{name}</dt>" in text, name
    assert "participation 0.1, share exits yes, queue 0.1" in text
    assert "max position 1.0" in text


def test_all_trades_are_in_the_page_whatever_the_number_of_candles(runs: Runs, page_of_memory: Path) -> None:
    text = page_of_memory.read_text(encoding="utf-8")
    table = re.search(r'id="trades-data">(.*?)</script>', text, re.DOTALL)
    assert table is not None
    rows = json.loads(table[1])["rows"]
    figures = recall(runs.folder, "compare", runs.memory, runs.rule)["figures"]
    assert len(rows) == figures["trades"][0] > 50


def test_a_report_written_twice_has_the_same_bytes(runs: Runs, page_of_memory: Path, tmp_path: Path) -> None:
    once = page_of_memory.read_text(encoding="utf-8")
    assert write_report(runs, runs.memory, tmp_path / "again.html") == once


def test_words_of_the_user_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    from backtest.report.rendering import embedded

    text = embedded({"name": "</script><script>alert(1)</script>"})
    assert "<" not in text and json.loads(text)["name"].startswith("</script>")
