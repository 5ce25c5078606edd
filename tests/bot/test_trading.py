"""The loop of a run: events in order, and a venue that steps only when it is asked to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from bot.config import load_config
from bot.journal import Journal
from bot.market.batches import BarBatch, FeedEvent
from bot.orders import Notice, NoticeKind
from bot.run import Run
from bot.session import reopen_session, warm_again
from bot.trading import AccountNews, trade
from tests.runs import INTERVAL, make_candles, recall, span, time_of

FIRST, STOPPED, LAST = 200, 205, 212
ARGUMENTS = (
    "paper", "--symbols", "BTCUSDT", "--interval", INTERVAL, "--strategy", "sma_cross", "--venue", "sandbox",
    "--set", "sandbox.source=store", *span(FIRST, LAST), "--max-bars", str(STOPPED - FIRST),
)  # fmt: skip


def test_a_step_that_was_asked_for_before_a_bar_came_is_asked_for_again_after_it(tmp_path: Path) -> None:
    """News between two bars make the loop ask early; whoever answers that late must not be the last one asked."""
    make_candles(tmp_path, ("BTCUSDT",), LAST)
    recall(tmp_path, *ARGUMENTS)
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.sqlite'}", durable=True)) as journal:
        stored = journal.find_run("latest")
        session = reopen_session(load_config(None, overrides=[f"storage.data_dir={tmp_path}"], environment={}), stored)
        warm_again(session, journal, stored)
        run_id = stored.record.run_id
        run = Run(session.engine(run_id, []), journal, run_id, bank_id=None, closed_trades=[])
        run.resume()
        series = session.home.candles.load("BTCUSDT", INTERVAL, start=time_of(STOPPED), end=time_of(LAST))
        decided = asyncio.run(played(run, [BarBatch((bar,), (False,)) for bar in series.bars()]))
    assert decided == LAST - STOPPED


async def played(run: Run, coming: list[BarBatch]) -> int:
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

    with ThreadPoolExecutor(1) as thread:
        async with asyncio.timeout(30):
            progress = await trade(
                run,
                feed(),
                thread,
                stop=asyncio.Event(),
                max_bars=wanted,
                advance=advance,
                on_step=lambda _step: stepped.set(),
            )
    return progress.bars
