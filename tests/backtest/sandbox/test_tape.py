"""Which candles the sandbox releases, and when: those of the span, whatever calendars their markets keep."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from backtest.replay import batches
from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.sources import StoredBars
from backtest.sandbox.tape import Tape
from backtest.sandbox.venue import SandboxVenue
from bot.market.batches import BarBatch
from bot.market.bybit_rest import BybitRest
from bot.market.bybit_stream import KlineStream
from bot.market.feed import MarketFeed
from strategies.bars import DAY_MS, HOUR_MS, Bar, BarSeries, Calendar, close_time_of, parse_time
from tests.bot.market.scenes import LIMITS, QUICK

MONDAY = parse_time("2024-03-04")
"""The clocks of New York change on the Sunday after."""
DAYS = range(12)


def daily(symbol: str, opens: list[int], calendar: Calendar) -> BarSeries:
    bars = [
        Bar(symbol, opened, close_time_of(opened, "D", calendar), 10.0, 11.0, 9.0, 10.0 + number / 8, 5.0)
        for number, opened in enumerate(opens)
    ]
    return BarSeries.of(bars, "D", calendar)


def mixed_market() -> dict[str, BarSeries]:
    """Twelve days of a market that never closes and of one with sessions, weekends and a change to summer time."""
    sessions = [day for day in DAYS if day % 7 < 5]
    stock = [
        MONDAY + day * DAY_MS + (14 * HOUR_MS + HOUR_MS // 2 if day < 7 else 13 * HOUR_MS + HOUR_MS // 2)
        for day in sessions
    ]
    return {
        "BTCUSDT": daily("BTCUSDT", [MONDAY + day * DAY_MS for day in DAYS], Calendar.CONTINUOUS),
        "AAPL": daily("AAPL", stock, Calendar.SESSIONS),
    }


def tape_of(market: dict[str, BarSeries], start: int | None, history_until: int | None = None) -> Tape:
    sources = {symbol: StoredBars(series) for symbol, series in market.items()}
    return Tape(sources, "D", ClockSetting.stepped(), start, history_until=history_until)


def span_of(market: dict[str, BarSeries], start: int) -> list[tuple[Bar, ...]]:
    """What a backtest replays from ``start`` on."""
    return [batch.bars for batch in batches({symbol: series.span(start, None) for symbol, series in market.items()})]


def released(tape: Tape) -> list[tuple[Bar, ...]]:
    steps = []
    while releases := tape.release():
        steps.append(tuple(release.closed for release in releases))
    return steps


@pytest.mark.parametrize("hour", [0, 6, 13.5, 14.5, 20])
@pytest.mark.parametrize("day", range(11))
def test_a_tape_releases_the_bars_that_open_from_its_start_on_as_a_backtest_replays_them(day: int, hour: float):
    market, start = mixed_market(), MONDAY + day * DAY_MS + int(hour * HOUR_MS)
    assert released(tape_of(market, start)) == span_of(market, start)


@pytest.mark.parametrize("day", range(8))
def test_a_run_that_goes_on_after_any_close_sees_the_rest_of_its_bars_and_each_once(day: int):
    market, begin = mixed_market(), MONDAY + day * DAY_MS
    steps = span_of(market, begin)
    for done in range(1, len(steps)):
        stopped = steps[done - 1][0].close_time
        tape = tape_of(market, stopped, begin)
        assert tape.now() == max(stopped, min(bar.open_time for step in steps[done:] for bar in step))
        assert released(tape) == steps[done:]


def test_a_bar_of_the_history_is_forming_for_rest_until_it_closes_and_is_never_released():
    market, start = mixed_market(), MONDAY + DAY_MS
    tape = tape_of(market, start)
    monday = next(market["AAPL"].bars())
    (forming,) = tape.klines("AAPL", None, None, 10)
    assert (forming.open_time, forming.close) == (monday.open_time, monday.open), "nothing of its future shows"
    tape.release()
    assert tape.now() == start + DAY_MS
    assert tape.klines("AAPL", None, None, 10)[0] == monday
    assert tape.released == {"BTCUSDT": 1, "AAPL": 0}


def test_a_span_whose_last_bar_is_still_forming_can_be_gone_on_with():
    market = mixed_market()
    last_stock = next(market["AAPL"].bars())
    sources = {"BTCUSDT": market["BTCUSDT"].span(None, MONDAY + DAY_MS), "AAPL": market["AAPL"].slice(0, 1)}
    tape = tape_of(sources, MONDAY + DAY_MS, MONDAY)
    assert released(tape) == [(last_stock,)]
    with pytest.raises(ValueError, match="no bar of BTCUSDT, AAPL from the start"):
        tape_of(sources, last_stock.close_time, MONDAY)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("day", [1, 2, 4, 5, 6, 7])
def test_a_stepped_sandbox_of_mixed_calendars_gives_a_feed_every_bar_of_the_span(day: int, resumed: bool):
    """The client holds the stored bars that open before its start, so lock-step must never wait for one of them."""
    market, begin = mixed_market(), MONDAY + day * DAY_MS
    steps = span_of(market, begin)
    done = 3 if resumed else 0
    start = steps[done - 1][0].close_time if resumed else begin
    seen: dict[str, int | None] = {symbol: int(one.span(None, begin).open_time[-1]) for symbol, one in market.items()}
    seen |= {bar.symbol: bar.open_time for step in steps[:done] for bar in step}
    calendars = {symbol: one.calendar for symbol, one in market.items()}

    async def play() -> list[BarBatch]:
        venue = SandboxVenue(market, "D", ClockSetting.stepped(), start=start, history_until=begin)
        async with venue, KlineStream(venue.public_url, list(market), "D", backoff=QUICK) as stream:
            rest = BybitRest(venue.rest_url, backoff=QUICK)
            feed = MarketFeed(stream, rest, list(market), "D", seen, calendars=calendars, limits=LIMITS)
            taken = []
            async with asyncio.timeout(10), aclosing(feed.events()) as events:
                while not venue.finished:
                    upcoming = asyncio.ensure_future(anext(events))
                    await feed.caught_up()
                    await venue.step()
                    taken.append(await upcoming)
            rest.close()
            return [event for event in taken if isinstance(event, BarBatch)]

    played = asyncio.run(play())
    assert [batch.bars for batch in played] == steps[done:]
    assert not any(any(batch.late) for batch in played)
