"""The feed over real sockets: whatever the line does, every bar leaves once, in order, and late ones say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.venue import SandboxVenue
from bot.market.batches import BarBatch, FeedEvent, SymbolAvailable, SymbolUnavailable
from bot.market.bybit_rest import BybitRest
from bot.market.bybit_stream import KlineClosed, KlineStream, StreamEvent
from bot.market.feed import FeedLimits, MarketFeed
from strategies.bars import DAY_MS, HOUR_MS, Bar, BarSeries, Calendar, close_time_of, parse_time
from tests.bot.market.scenes import LIMITS, QUICK, T0, close_of, hourly, scene


def test_stepped_bars_arrive_one_by_one_exactly_as_stored():
    series = hourly("BTCUSDT", 20)

    async def play():
        async with scene([series]) as at:
            return await at.lock_step(20)

    batches = asyncio.run(play())
    assert [batch.bars[0] for batch in batches] == list(series.bars())
    assert all(batch.late == (False,) for batch in batches)


def test_two_real_years_cross_the_wire_to_the_last_bit(real_data):
    table = pq.read_table(real_data / "bybit_linear_BTCUSDT_1h.parquet").to_pydict()
    columns = [np.array(table[name]) for name in ("open_time_ms", "open", "high", "low", "close", "volume")]
    stored = BarSeries("BTCUSDT", "60", Calendar.CONTINUOUS, *columns).span(
        parse_time("2023-12-31T23:00"), parse_time("2026-01-01")
    )
    first = int(stored.open_time[0])

    async def play():
        hours = (first + HOUR_MS - T0) // HOUR_MS
        async with scene([stored], start=hours, last_seen={"BTCUSDT": first}) as at:
            steps = await at.venue.step(len(stored))
            return await at.batches(steps)

    batches = asyncio.run(play())
    assert [batch.bars[0] for batch in batches] == list(stored.bars())[1:]


def test_symbols_that_close_together_are_one_batch_in_the_order_of_the_run():
    series = [hourly("ETHUSDT", 5, level=50), hourly("BTCUSDT", 5), hourly("SOLUSDT", 5, level=20)]

    async def play():
        async with scene(series, symbols=["BTCUSDT", "SOLUSDT", "ETHUSDT"]) as at:
            await at.venue.step(5)
            return await at.batches(5)

    batches = asyncio.run(play())
    assert [[bar.symbol for bar in batch.bars] for batch in batches] == [["BTCUSDT", "SOLUSDT", "ETHUSDT"]] * 5
    assert [batch.bars[0].close_time for batch in batches] == [close_of(number) for number in range(5)]


def test_bars_missed_before_the_connection_come_by_rest_and_all_but_the_newest_are_late():
    series = hourly("BTCUSDT", 12)

    async def play():
        async with scene([series], seen=3, start=8) as at:
            missed = await at.batches(4)
            await at.venue.step()
            return missed + await at.batches(1), at.feed.repaired_bars

    batches, repaired = asyncio.run(play())
    assert [batch.bars[0] for batch in batches] == list(series.bars())[4:9]
    assert [batch.late[0] for batch in batches] == [True, True, True, False, False]
    assert repaired == 4


def test_a_feed_whose_caller_has_nothing_begins_with_the_first_bar_that_closes():
    series = hourly("BTCUSDT", 12)

    async def play():
        async with scene([series], seen=None, start=8) as at:
            await at.venue.step(2)
            return await at.batches(2)

    assert [batch.bars[0] for batch in asyncio.run(play())] == list(series.bars())[8:10]


def test_a_cut_socket_heals_and_no_bar_is_missing_or_doubled():
    series = hourly("BTCUSDT", 12)

    async def play():
        async with scene([series]) as at:
            first = await at.lock_step(2)
            at.venue.drop_connections()
            await at.venue.step(3)
            await at.venue.subscribed()
            missed = await at.batches(3)
            return first + missed + await at.lock_step(2), at.stream.connections

    batches, connections = asyncio.run(play())
    assert [batch.bars[0] for batch in batches] == list(series.bars())[:7]
    assert [batch.late[0] for batch in batches] == [False, False, True, True, False, False, False]
    assert connections == 2


def test_a_bar_that_the_stream_lost_is_repaired_before_the_next_one_leaves():
    series = hourly("BTCUSDT", 6)

    async def play():
        async with scene([series]) as at:
            at.venue.mute("BTCUSDT", 2)
            await at.venue.step(3)
            return await at.batches(3)

    batches = asyncio.run(play())
    assert [batch.bars[0] for batch in batches] == list(series.bars())[:3]
    assert [batch.late[0] for batch in batches] == [True, True, False]


def test_bars_that_stream_in_while_rest_is_asked_wait_their_turn_and_need_no_second_question():
    series = hourly("BTCUSDT", 6)

    async def play():
        behind = SandboxVenue({"BTCUSDT": series}, "60", ClockSetting.stepped(), start=T0 + HOUR_MS)
        async with behind, scene([series], seen=-1, rest_url=behind.rest_url) as at:
            caught_up = await at.batches(1)
            at.venue.mute("BTCUSDT", 2)
            await at.venue.step(2)
            await behind.step(1)
            await at.venue.step(3)
            return caught_up + await at.batches(4), behind.requests

    batches, requests = asyncio.run(play())
    assert [batch.bars[0] for batch in batches] == list(series.bars())[:5]
    assert requests == 2


def test_a_straggler_is_asked_for_by_rest_and_leaves_in_its_own_batch():
    async def play():
        async with scene([hourly("BTCUSDT", 6), hourly("ETHUSDT", 6)]) as at:
            at.venue.mute("ETHUSDT", 1)
            await at.venue.step()
            return await at.batches(1)

    (batch,) = asyncio.run(play())
    assert [bar.symbol for bar in batch.bars] == ["BTCUSDT", "ETHUSDT"]
    assert batch.late == (False, False)


def test_a_batch_leaves_without_a_symbol_that_rest_cannot_give_and_its_bars_follow_late():
    async def play():
        async with scene([hourly("BTCUSDT", 6), hourly("ETHUSDT", 6)]) as at:
            at.venue.mute("ETHUSDT", 1)
            at.venue.fail_requests(1, status=503)
            await at.venue.step()
            gone = [await at.next(), await at.next()]
            await at.venue.step()
            back = await at.batches(3)
            await at.venue.step()
            return gone, back, [await at.next(), await at.next()]

    gone, back, after = asyncio.run(play())
    assert isinstance(gone[0], SymbolUnavailable)
    assert gone[0].symbol == "ETHUSDT"
    assert isinstance(gone[1], BarBatch)
    assert [bar.symbol for bar in gone[1].bars] == ["BTCUSDT"]
    assert [(batch.bars[0].symbol, batch.bars[0].close_time, batch.late[0]) for batch in back] == [
        ("BTCUSDT", close_of(1), False),
        ("ETHUSDT", close_of(0), True),
        ("ETHUSDT", close_of(1), True),
    ]
    assert after[0] == SymbolAvailable("ETHUSDT")
    assert isinstance(after[1], BarBatch)
    assert after[1].late == (False, False)


def test_repair_goes_on_until_rest_answers_again():
    series = hourly("BTCUSDT", 6)

    async def play():
        async with scene([series]) as at:
            at.venue.mute("BTCUSDT", 1)
            at.venue.fail_requests(3, code=10016)
            await at.venue.step(2)
            return [await at.next() for _ in range(4)]

    events = asyncio.run(play())
    assert isinstance(events[0], SymbolUnavailable)
    assert events[2] == SymbolAvailable("BTCUSDT")
    batches = [event for event in events if isinstance(event, BarBatch)]
    assert [batch.bars[0] for batch in batches] == list(series.bars())[:2]


def test_a_silent_stream_is_overtaken_by_rest_after_the_quiet_time():
    series = hourly("BTCUSDT", 6)

    async def play():
        async with scene([series], limits=FeedLimits(quiet_s=0.02)) as at:
            at.venue.mute("BTCUSDT", 1)
            await at.venue.step()
            return await at.batches(1)

    assert asyncio.run(play())[0].bars[0] == next(series.bars())


def test_a_bar_without_a_number_or_with_a_negative_price_is_refused_and_never_passed_on():
    good = hourly("BTCUSDT", 6)
    closes, lows = good.close.copy(), good.low.copy()
    closes[1], lows[3] = np.nan, -1.0
    series = replace(good, close=closes, low=lows)

    async def play():
        async with scene([series]) as at:
            events = []
            for _ in range(6):
                await at.venue.step()
            while not (events and isinstance(events[-1], BarBatch) and events[-1].bars[0].close_time == close_of(5)):
                events.append(await at.next())
            return events, at.feed.refused_bars

    events, refused = asyncio.run(play())
    bars = [bar for event in events if isinstance(event, BarBatch) for bar in event.bars]
    assert bars == [bar for number, bar in enumerate(good.bars()) if number not in (1, 3)]
    reasons = [event.reason for event in events if isinstance(event, SymbolUnavailable)]
    assert any("no number" in reason for reason in reasons)
    assert refused >= 2


def test_garbage_on_the_line_changes_nothing():
    series = hourly("BTCUSDT", 4)

    async def play():
        async with scene([series]) as at:
            for text in (
                "",
                "{",
                "null",
                '{"topic":"kline.60.BTCUSDT","data":[{"start":"x"}]}',
                "\u0000" * 50,
                "[" * 5000,
            ):
                await at.venue.send_raw(text)
                await at.venue.step() if text == "{" else None
            await at.venue.step(3)
            return await at.batches(4), at.stream.malformed_frames, at.stream.connections

    batches, malformed, connections = asyncio.run(play())
    assert [batch.bars[0] for batch in batches] == list(series.bars())
    assert (malformed, connections) == (6, 1)


async def taken_after_queueing(series: BarSeries, queued: int, events_taken: int) -> list[FeedEvent]:
    """The feed's events after the first bar, where the next ``queued`` bars arrived before anybody took one."""
    symbol = series.symbol
    venue = SandboxVenue({symbol: series}, "60", ClockSetting.stepped(), start=T0)
    async with venue, KlineStream(venue.public_url, [symbol], "60", backoff=QUICK) as stream:
        all_arrived = asyncio.Event()

        async def overheard() -> AsyncIterator[StreamEvent]:
            async for event in stream:
                yield event
                if isinstance(event, KlineClosed) and event.bar.close_time == close_of(queued):
                    all_arrived.set()

        rest = BybitRest(venue.rest_url, backoff=QUICK)
        feed = MarketFeed(overheard(), rest, [symbol], "60", {symbol: T0 - HOUR_MS}, limits=LIMITS)
        async with asyncio.timeout(10), aclosing(feed.events()) as events:
            first = asyncio.ensure_future(anext(events))
            await feed.caught_up()
            await venue.step()
            assert isinstance(await first, BarBatch)
            await venue.step(queued)
            await all_arrived.wait()
            taken = [await anext(events) for _ in range(events_taken)]
        rest.close()
    return taken


def test_of_bars_that_queued_up_while_nobody_took_them_only_the_newest_is_on_time():
    """A process that was frozen finds its bars all at once, and must not trade on those that are hours old."""
    series = hourly("BTCUSDT", 12)
    batches = asyncio.run(taken_after_queueing(series, 10, 10))
    assert [batch.bars[0] for batch in batches] == list(series.bars())[1:11]
    assert [batch.late[0] for batch in batches] == [True] * 9 + [False]


def test_a_symbol_does_not_come_back_with_a_bar_that_a_refused_one_has_overtaken():
    good = hourly("BTCUSDT", 6)
    closes = good.close.copy()
    closes[2] = np.nan
    refused, batch = asyncio.run(taken_after_queueing(replace(good, close=closes), 2, 2))
    assert isinstance(refused, SymbolUnavailable)
    assert isinstance(batch, BarBatch)
    assert batch.bars[0].close_time == close_of(1)


def test_a_symbol_that_the_caller_holds_to_be_unavailable_is_back_with_its_first_bar_that_is_not_late():
    series = [hourly("BTCUSDT", 12), hourly("ETHUSDT", 12)]

    async def play():
        async with scene(series, seen=3, start=8, unavailable=["ETHUSDT"]) as at:
            caught_up = [await at.next() for _ in range(5)]
            return caught_up, await at.lock_step(2)

    caught_up, after = asyncio.run(play())
    assert [type(event) for event in caught_up] == [BarBatch, BarBatch, BarBatch, SymbolAvailable, BarBatch]
    assert caught_up[3] == SymbolAvailable("ETHUSDT")
    assert caught_up[4].late == (False, False)
    assert all(batch.late == (False, False) for batch in after)


def test_an_unavailable_symbol_without_missed_bars_is_back_with_the_next_bar_that_closes():
    async def play():
        async with scene([hourly("BTCUSDT", 4)], unavailable=["BTCUSDT"]) as at:
            await at.venue.step()
            return [await at.next(), await at.next()], await at.lock_step(1)

    first, _ = asyncio.run(play())
    assert first[0] == SymbolAvailable("BTCUSDT")
    assert isinstance(first[1], BarBatch)


def test_a_symbol_that_the_venue_does_not_stream_does_not_hold_up_the_others():
    async def play():
        async with scene([hourly("BTCUSDT", 4)], symbols=["NOPEUSDT", "BTCUSDT"]) as at:
            refused = await at.next()
            await at.venue.step(4)
            return refused, await at.batches(4)

    refused, batches = asyncio.run(play())
    assert isinstance(refused, SymbolUnavailable)
    assert refused.symbol == "NOPEUSDT"
    assert "Invalid symbol" in refused.reason
    assert [[bar.symbol for bar in batch.bars] for batch in batches] == [["BTCUSDT"]] * 4


def test_a_market_with_sessions_has_weekends_and_no_holes():
    opens = [T0 - T0 % DAY_MS + day * DAY_MS + 13 * HOUR_MS for day in (1, 2, 5, 6)]
    series = []
    for symbol in ("AAPL", "SPY"):
        bars = [
            Bar(symbol, opened, close_time_of(opened, "D", Calendar.SESSIONS), 10.0, 11.0, 9.0, 10.0, 5.0)
            for opened in opens
        ]
        series.append(BarSeries.of(bars, "D", Calendar.SESSIONS))

    async def play():
        async with scene(
            series, interval="D", calendar=Calendar.SESSIONS, last_seen={"AAPL": opens[0] - 1, "SPY": None}
        ) as at:
            await at.venue.step(4)
            return await at.batches(4)

    batches = asyncio.run(play())
    assert [[bar.symbol for bar in batch.bars] for batch in batches] == [["AAPL", "SPY"]] * 4
    assert [batch.bars[0].open_time for batch in batches] == opens


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(["step", "mute BTCUSDT", "mute ETHUSDT", "drop", "garbage", "fail"]), max_size=25))
def test_whatever_happens_each_symbol_delivers_every_bar_once_and_in_order(happenings: list[str]):
    symbols = ["BTCUSDT", "ETHUSDT"]
    series = [hourly(symbol, 40) for symbol in symbols]

    async def play():
        delivered: dict[str, list[Bar]] = {symbol: [] for symbol in symbols}
        async with scene(series, limits=replace(LIMITS, straggler_s=0.005, retry_s=0.002), attempts=2) as at:
            steps = 0
            for happening in happenings:
                if happening.startswith("mute"):
                    at.venue.mute(happening.split()[1], 1)
                    await at.venue.step()
                    steps += 1
                elif happening == "step":
                    await at.venue.step()
                    steps += 1
                elif happening == "drop":
                    at.venue.drop_connections()
                elif happening == "garbage":
                    await at.venue.send_raw("{not json")
                else:
                    at.venue.fail_requests(1, status=502)
                await asyncio.sleep(0)
            # One last close that both symbols are told about shows whatever was lost before it.
            await at.venue.subscribed()
            await at.venue.step()
            steps += 1
            while not all(len(bars) == steps for bars in delivered.values()):
                event = await at.next()
                for bar in event.bars if isinstance(event, BarBatch) else ():
                    delivered[bar.symbol].append(bar)
        return delivered, steps

    delivered, steps = asyncio.run(play())
    for one in series:
        assert delivered[one.symbol] == list(one.bars())[:steps]
