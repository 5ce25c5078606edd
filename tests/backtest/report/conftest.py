"""A folder with runs of every kind that a report knows, and a browser to look at their pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.bot.cli.terminal import run_process
from tests.runs import BUSY, INTERVAL, make_candles, recall, span

SYMBOLS = ("BTCUSDT", "ETHUSDT")
MARKET = ("--symbols", ",".join(SYMBOLS), "--interval", INTERVAL)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip


class Runs(NamedTuple):
    """A folder, and the ids of what ran in it."""

    folder: Path
    memory: str
    """A replay of two symbols whose memory explains itself."""
    rule: str
    """A replay over the same span without a memory."""


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("reported")
    make_candles(folder, SYMBOLS, 2470)
    memory = recall(folder, "backtest", *MARKET, *BUSY, *span(1000, 2470), "--no-plot")
    rule = recall(folder, "backtest", *MARKET, "--strategy", "sma_cross", *span(1000, 2470), "--no-plot")
    return Runs(folder, memory["run_id"], rule["run_id"])


@pytest.fixture(scope="session")
def paper_run(runs: Runs) -> str:
    """The id of a paper run with a memory, in the same folder."""
    sandbox = ("--venue", "sandbox", "--set", "sandbox.source=store")
    arguments = ("paper", *MARKET, *BUSY, *sandbox, *span(1000, 1120), "--json")
    # In a process of its own: while a browser is driven, this one has an event loop that runs.
    outcome = run_process(runs.folder, *arguments, "--set", f"storage.data_dir={runs.folder}")
    return str(outcome.document["run_id"])


@pytest.fixture(scope="session")
def page_of_memory(runs: Runs) -> Path:
    """The report of the replay with a memory."""
    recall(runs.folder, "report", runs.memory)
    return runs.folder / "reports" / f"{runs.memory}.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright; its event loop must be gone before tests that run one of their own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here: pip install playwright")
    named = os.environ.get("RECALL_TEST_BROWSER") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    with playwright.sync_playwright() as driver:
        path = named or driver.chromium.executable_path
        if not Path(path).exists():
            pytest.skip(
                "no browser here: apt-get install chromium, or python -m playwright install chromium, or set "
                "RECALL_TEST_BROWSER to one"
            )
        opened = driver.chromium.launch(executable_path=path, args=list(_QUIET))
        yield opened
        opened.close()
