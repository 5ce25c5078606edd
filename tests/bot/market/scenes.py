"""What the market tests share: small made-up series, a sandbox to play them, limits that take milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.venue import SandboxVenue
from bot.market.backoff import Backoff
from bot.market.batches import BarBatch, FeedEvent
from bot.market.bybit_rest import BybitRest
from bot.market.bybit_stream import KlineStream
from bot.market.feed import FeedLimits, MarketFeed
from strategies.bars import HOUR_MS, Bar, BarSeries, Calendar

T0 = 480_000 * HOUR_MS
QUICK = Backoff(first_s=0.001, base_s=0.001, limit_s=0.01)
LIMITS = FeedLimits(straggler_s=0.03, answer_s=10.0, retry_s=0.005, repairs=2)


def hourly(symbol: str, bars: int, *, first: int = 0, level: float = 100.0) -> BarSeries:
    """``bars`` hourly bars from ``T0`` plus ``first`` hours; every value names its bar."""
    rows = []
    for number in range(first, first + bars):
        opened = T0 + number * HOUR_MS
        price = level + number / 8
        rows.append(Bar(symbol, opened, opened + HOUR_MS, price, price + 1, price - 1, price + 0.125, 3.0 + number))
    return BarSeries.of(rows, "60", Calendar.CONTINUOUS)


def close_of(number: int) -> int:
    """Close time of hourly bar ``number``."""
    return T0 + (number + 1) * HOUR_MS


@dataclass
class Scene:
    """A stepped venue with a feed on it, caught up and ready to be stepped."""

    venue: SandboxVenue
    feed: MarketFeed
    stream: KlineStream
    events: asyncio.Queue[FeedEvent]

    async def next(self) -> FeedEvent:
        """The feed's next event."""
        async with asyncio.timeout(10):
            return await self.events.get()

    async def batches(self, count: int) -> list[BarBatch]:
        """The next events, which must all be batches."""
        events = [await self.next() for _ in range(count)]
        assert all(isinstance(event, BarBatch) for event in events), events
        return [event for event in events if isinstance(event, BarBatch)]

    async def lock_step(self, count: int) -> list[BarBatch]:
        """Step ``count`` times, each when the batch of the step before has come."""
        batches = []
        for _ in range(count):
            await self.venue.step()
            batches += await self.batches(1)
        return batches


@asynccontextmanager
async def scene(
    series: Sequence[BarSeries],
    *,
    seen: int | None = -1,
    start: int = 0,
    symbols: Sequence[str] = (),
    limits: FeedLimits = LIMITS,
    attempts: int = 1,
    interval: str = "60",
    calendar: Calendar = Calendar.CONTINUOUS,
    last_seen: dict[str, int | None] | None = None,
    unavailable: Collection[str] = (),
    rest_url: str | None = None,
) -> AsyncIterator[Scene]:
    """A venue that has released the bars before ``start``, and a feed whose caller has the bars up to ``seen``.

    ``rest_url`` lets the feed ask another venue than the one that streams.
    """
    asked = list(symbols) or [one.symbol for one in series]
    known = dict.fromkeys(asked, None if seen is None else T0 + seen * HOUR_MS) if last_seen is None else last_seen
    sources = {one.symbol: one for one in series}
    venue = SandboxVenue(sources, interval, ClockSetting.stepped(), start=T0 + start * HOUR_MS)
    async with venue:
        rest = BybitRest(rest_url or venue.rest_url, attempts=attempts, backoff=QUICK)
        stream = KlineStream(venue.public_url, asked, interval, backoff=QUICK)
        async with stream:
            feed = MarketFeed(
                stream,
                rest,
                asked,
                interval,
                known,
                calendars=dict.fromkeys(asked, calendar),
                unavailable=unavailable,
                limits=limits,
            )
            events: asyncio.Queue[FeedEvent] = asyncio.Queue()

            async def consume() -> None:
                async with aclosing(feed.events()) as source:
                    async for event in source:
                        events.put_nowait(event)

            consumer = asyncio.create_task(consume())
            try:
                async with asyncio.timeout(10):
                    await feed.caught_up()
                yield Scene(venue, feed, stream, events)
            finally:
                consumer.cancel()
                await asyncio.gather(consumer, return_exceptions=True)
                rest.close()
