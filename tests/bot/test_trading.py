"""The loop of a run: events in order, and a venue that steps only when it is asked to."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from bot.config import load_config
from bot.engine import Step
from bot.journal import Journal
from bot.market.batches import BarBatch, FeedEvent
from bot.orders import Notice, NoticeKind
from bot.run import Run
from bot.session import reopen_session, warm_again
from bot.trading import AccountNews, trade
from tests.runs import INTERVAL, make_candles, recall, span, time_of

FIRST, STOPPED = 200, 205


def test_a_step_that_was_asked_for_before_a_bar_came_is_asked_for_again_after_it(tmp_path: Path) -> None:
    """News between two bars make the loop ask early; whoever answers that late must not be the last one asked."""
    with resumed(tmp_path, 7) as (run, coming):
        assert asyncio.run(played(run, coming, lambda _step: None)) == 7


def test_the_log_is_emptied_after_the_orders_of_a_step_have_left(tmp_path: Path) -> None:
    with resumed(tmp_path, 40) as (run, coming):
        due: list[bool] = []
        asyncio.run(played(run, coming, lambda _step: due.append(run.wants_rest)))
        assert due.count(True) > 0
        assert not run.wants_rest
        shutil.copy(tmp_path / "journal.sqlite", tmp_path / "alone.sqlite")
        with closing(sqlite3.connect(tmp_path / "alone.sqlite")) as without_its_log:
            (bars,) = without_its_log.execute("SELECT count(*) FROM bars").fetchone()
        assert STOPPED - FIRST < bars < STOPPED - FIRST + 40


@contextmanager
def resumed(folder: Path, bars: int) -> Iterator[tuple[Run, list[BarBatch]]]:
    """A paper run that was stopped, taken up again, and the bars that are to come."""
    last = STOPPED + bars
    make_candles(folder, ("BTCUSDT",), last)
    recall(
        folder, "paper", "--symbols", "BTCUSDT", "--interval", INTERVAL, "--strategy", "sma_cross", "--venue", "sandbox",
        "--set", "sandbox.source=store", *span(FIRST, last), "--max-bars", str(STOPPED - FIRST),
    )  # fmt: skip
    with closing(Journal(f"sqlite:///{folder / 'journal.sqlite'}", durable=True)) as journal:
        stored = journal.find_run("latest")
        session = reopen_session(load_config(None, overrides=[f"storage.data_dir={folder}"], environment={}), stored)
        warm_again(session, journal, stored)
        run_id = stored.record.run_id
        run = Run(session.engine(run_id, []), journal, run_id, bank_id=None, closed_trades=[])
        run.resume()
        series = session.home.candles.load("BTCUSDT", INTERVAL, start=time_of(STOPPED), end=time_of(last))
        yield run, [BarBatch((bar,), (False,)) for bar in series.bars()]


async def played(run: Run, coming: list[BarBatch], on_step: Callable[[Step], None]) -> int:
    """Let a venue release a bar, with news before it, whenever it is asked and all before are decided on."""
    events: asyncio.Queue[FeedEvent | AccountNews] = asyncio.Queue()
    stepped = asyncio.Event()
    released, wanted = 0, len(coming)

    async def feed() -> AsyncIterator[FeedEvent | AccountNews]:
        while True:
            yield await events.get()

    async def advance(decided: int) -> bool:
        nonlocal released
        if decided < released:
            # As a sandbox that still waits for what it has released before.
            await stepped.wait()
            return True
        stepped.clear()
        batch = coming.pop(0)
        released = batch.bars[0].close_time
        events.put_nowait((Notice(NoticeKind.CORRECTION, "BTCUSDT", "something was told"),))
        events.put_nowait(batch)
        return True

    def shown(step: Step) -> None:
        on_step(step)
        stepped.set()

    with ThreadPoolExecutor(1) as thread:
        async with asyncio.timeout(30):
            progress = await trade(
                run,
                feed(),
                thread,
                stop=asyncio.Event(),
                max_bars=wanted,
                advance=advance,
                on_step=shown,
            )
    return progress.bars
