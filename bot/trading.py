"""The event loop of a run: what the venue says, in order, and every step durable before the next one begins.

The event loop only moves messages. Deciding and committing happen in one dedicated thread, one step after the other, so
that torch and the database never block a heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from bot.engine import Step
from bot.market.batches import BarBatch, FeedEvent, SymbolAvailable, SymbolUnavailable
from bot.orders import AccountEvent, EmergencyOrder, Execution, GuardOrder, Order, SymbolAvailability
from bot.run import Run

log = structlog.get_logger()

COMMAND_POLL_SECONDS = 0.5
AccountNews = tuple[AccountEvent, ...]
"""What the account told at once: applied and committed together."""


@dataclass(slots=True)
class Progress:
    """What a run has done since it was started or resumed."""

    bars: int = 0
    fills: int = 0
    finished: bool = False
    """The venue has no more bars to give."""


class OrderRouter(Protocol):
    """Where orders go once they are durable."""

    def deliver(self, orders: Sequence[Order]) -> None:
        """Send orders; what becomes of them comes with the account's news."""

    async def last_news(self) -> list[AccountNews]:
        """What the account has told and nobody has taken, once the orders on their way have come to something."""


async def trade(
    run: Run,
    feed: AsyncIterator[FeedEvent | AccountNews],
    thread: ThreadPoolExecutor,
    *,
    stop: asyncio.Event,
    max_bars: int | None = None,
    advance: Callable[[int], Awaitable[bool]] | None = None,
    prepare: Callable[[BarBatch], Awaitable[None]] | None = None,
    entry: OrderRouter | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_news: Callable[[AccountNews], None] | None = None,
) -> Progress:
    """Trade until told to stop, until ``max_bars`` bars were decided, or until the venue has no more.

    Args:
        run: the engine and its journal.
        feed: what the venue says, in order, of the market and of the account.
        thread: one worker, in which everything that decides or commits runs.
        stop: set by whoever wants the run to end after the step in hand.
        max_bars: bars to decide at most.
        advance: called with the close time of the last batch decided (0 at first) whenever the next is waited for, so that a
            sandbox may move in lock-step; answers whether there will be another bar.
        prepare: awaited before every step, to find out what it needs from the venue.
        entry: takes the orders of every step that was made durable; ``None`` where the engine fills them itself.
        on_step: shown every step that was made durable.
        on_news: shown what the account told, once that is durable.
    """
    loop = asyncio.get_running_loop()
    progress = Progress()

    async def take(news: AccountNews) -> None:
        await loop.run_in_executor(thread, run.apply_waiting, *news)
        progress.fills += sum(isinstance(event, Execution) for event in news)
        if entry is not None:
            entry.deliver([event.order for event in news if isinstance(event, EmergencyOrder | GuardOrder)])
        if on_news is not None:
            on_news(news)
        if run.wants_rest:
            await loop.run_in_executor(thread, run.rest)

    stopping = asyncio.ensure_future(stop.wait())
    waiting: asyncio.Future[FeedEvent | AccountNews] | None = None
    # Advancing may itself wait for the feed, which moves on only while its next event is taken: so it runs beside.
    advancing: asyncio.Future[bool] | None = None
    is_due = False
    decided = 0
    try:
        while not stop.is_set():
            if waiting is None:
                waiting, is_due = asyncio.ensure_future(_next_event(feed)), True
            # One that began before the last event knows nothing of it, so that another is due once it has ended.
            if is_due and advance is not None and advancing is None:
                advancing, is_due = asyncio.ensure_future(advance(decided)), False
            pending: set[asyncio.Future[Any]] = {waiting, stopping}
            if advancing is not None:
                pending.add(advancing)
            await asyncio.wait(pending, timeout=COMMAND_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                break
            if advancing is not None and advancing.done():
                goes_on, advancing = advancing.result(), None
                if not goes_on:
                    progress.finished = True
                    break
                if not waiting.done():
                    continue
            if not waiting.done():
                await loop.run_in_executor(thread, run.apply_waiting)
                continue
            try:
                event = waiting.result()
            except StopAsyncIteration:
                progress.finished = True
                break
            waiting = None
            if isinstance(event, BarBatch):
                if prepare is not None:
                    await prepare(event)
                step = await loop.run_in_executor(thread, run.decide, event)
                decided = max(decided, event.bars[0].close_time)
                progress.bars += len(step.decisions)
                progress.fills += len(step.executions)
                if entry is not None:
                    entry.deliver([order for decision in step.decisions for order in decision.orders])
                if on_step is not None:
                    on_step(step)
                if run.wants_rest:
                    await loop.run_in_executor(thread, run.rest)
                if max_bars is not None and progress.bars >= max_bars:
                    break
            elif isinstance(event, tuple):
                await take(event)
            else:
                change = _availability(event)
                log.warning("availability", symbol=change.symbol, available=change.available, reason=change.reason)
                await loop.run_in_executor(thread, run.apply_waiting, change)
        if entry is not None:
            taken = [waiting.result()] if waiting is not None and waiting.done() and not waiting.exception() else []
            # What is taken may send more, such as the stop loss of what has been bought.
            while told := [*taken, *await entry.last_news()]:
                taken = []
                for news in told:
                    if isinstance(news, tuple):
                        await take(news)
    finally:
        unfinished = [task for task in (stopping, waiting, advancing) if task is not None]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
    return progress


def _availability(event: SymbolUnavailable | SymbolAvailable) -> SymbolAvailability:
    if isinstance(event, SymbolUnavailable):
        return SymbolAvailability(event.symbol, False, event.reason)
    return SymbolAvailability(event.symbol, True, "its bars are up to date again")


async def _next_event(feed: AsyncIterator[FeedEvent | AccountNews]) -> FeedEvent | AccountNews:
    return await anext(feed)
