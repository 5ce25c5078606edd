"""One order for what the market and the account tell: a batch comes after all that the account had to say before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from bot.live_account import LiveAccount
from bot.market.batches import BarBatch, FeedEvent
from bot.trading import AccountNews


async def with_account(
    market: AsyncIterator[FeedEvent], account: LiveAccount
) -> AsyncGenerator[FeedEvent | AccountNews]:
    """The market's events and the account's in one order: a batch comes after all that the account had to say before it."""
    from_market: asyncio.Future[FeedEvent] | None = None
    from_account: asyncio.Future[None] | None = None
    settling: asyncio.Future[None] | None = None
    try:
        while True:
            while (told := account.take_news()) is not None:
                yield told
            from_market = from_market or asyncio.ensure_future(_following(market))
            if not from_market.done():
                from_account = asyncio.ensure_future(account.has_news())
                both: set[asyncio.Future[Any]] = {from_market, from_account}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                from_account.cancel()
                continue
            try:
                event, from_market = from_market.result(), None
            except StopAsyncIteration:
                return
            if isinstance(event, BarBatch):
                # What the account tells meanwhile is taken at once: an order that it is about must not wait.
                settling = asyncio.ensure_future(account.settled([bar.symbol for bar in event.bars]))
                while not settling.done():
                    from_account = asyncio.ensure_future(account.has_news())
                    await asyncio.wait({settling, from_account}, return_when=asyncio.FIRST_COMPLETED)
                    from_account.cancel()
                    while (told := account.take_news()) is not None:
                        yield told
                settling.result()
                while (told := account.take_news()) is not None:
                    yield told
            yield event
    finally:
        unfinished = [task for task in (from_market, from_account, settling) if task is not None]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


async def _following(market: AsyncIterator[FeedEvent]) -> FeedEvent:
    return await anext(market)
