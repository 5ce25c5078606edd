"""What the venue tells besides its own candles: longer candles, partial ones, tickers, funding, price limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect

from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.resampling import floor_open, intervals_of, resample
from backtest.sandbox.venue import SandboxVenue
from bot.execution.fills import PLAIN
from bot.market.funding_rates import FundingRates
from strategies.bars import DAY_MS, HOUR_MS, Bar, BarSeries, Calendar
from tests.backtest.sandbox.client import RULES, Client, bars_of, client_of, level, private_socket, pushed, receive
from tests.backtest.sandbox.client import trading_venue as venue_of
from tests.bot.market.scenes import T0

MOVING = bars_of(*[(100.0 + n, 102.0 + n, 99.0 + n, 101.0 + n) for n in range(12)], volume=2.0)


def play(venue: SandboxVenue, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with client_of(venue) as client:
            return await talk(client)

    return asyncio.run(run())


async def listen(socket: Any, topic: str) -> Any:
    """Subscribe to a topic; its first message."""
    await socket.send(json.dumps({"op": "subscribe", "args": [topic]}))
    assert (await receive(socket))["success"]
    return await receive(socket)


async def until_pong(socket: Any) -> list[str]:
    """Everything that a socket was sent, to the answer to a ping."""
    await socket.send(json.dumps({"op": "ping"}))
    heard: list[str] = []
    async with asyncio.timeout(10):
        while not heard or "pong" not in heard[-1]:
            heard.append(str(await socket.recv()))
    return heard


def test_longer_candles_are_put_together_and_the_newest_still_forms():
    async def talk(client: Client) -> Any:
        await client.venue.step(6)
        name = {"category": "linear", "symbol": "BTCUSDT"}
        whole = await client.get("market/kline", **name, interval="240")
        window = await client.get("market/kline", **name, interval="240", start=T0, end=T0 + 3 * HOUR_MS)
        finer = await client.get("market/kline", **name, interval="30")
        return whole["result"]["list"], window["result"]["list"], finer["retMsg"]

    whole, window, finer = play(venue_of(MOVING), talk)
    first = floor_open(T0, "240")
    assert [int(row[0]) for row in whole] == [first + 4 * HOUR_MS, first]
    assert whole[1][1:6] == ["100", "105", "99", "104", "8"]
    assert whole[0][1:6] == ["104", "107", "103", "106", "4"], "the hour that forms stands at its open"
    assert [int(row[0]) for row in window] == [first]
    assert finer == "Invalid period!"


def test_longer_candles_are_pushed_at_every_close_of_their_parts_and_confirmed_at_their_own():
    async def run() -> Any:
        venue = venue_of(MOVING)
        async with venue, connect(venue.public_url) as socket:
            first = await listen(socket, "kline.120.BTCUSDT")
            await venue.step(3)
            return [first, *[await receive(socket) for _ in range(3)]]

    messages = asyncio.run(run())
    seen = [[((one["start"] - T0) // HOUR_MS, one["confirm"], one["close"]) for one in m["data"]] for m in messages]
    assert seen == [
        [(0, False, "100")],
        [(0, False, "101")],
        [(0, True, "102"), (2, False, "102")],
        [(2, False, "103")],
    ]


def test_candles_that_form_are_pushed_between_closes_and_show_nothing_of_their_future():
    async def run() -> Any:
        venue = venue_of(MOVING, partial_pushes=3)
        async with venue, connect(venue.public_url) as socket:
            await listen(socket, "kline.60.BTCUSDT")
            await venue.step(1)
            return [await receive(socket) for _ in range(4)]

    *partial, closing = asyncio.run(run())
    assert [(m["ts"] - T0) * 4 // HOUR_MS for m in partial] == [1, 2, 3]
    assert {(one["confirm"], one["high"], one["close"]) for m in partial for one in m["data"]} == {
        (False, "100", "100")
    }
    assert [m["data"][0]["volume"] for m in partial] == ["0.5", "1", "1.5"]
    assert [one["confirm"] for one in closing["data"]] == [True, False]


def test_a_partial_candle_does_not_depend_on_what_comes_after():
    async def run(series: BarSeries) -> Any:
        venue = venue_of(series, partial_pushes=2)
        async with venue, connect(venue.public_url) as socket:
            found = [await listen(socket, "kline.60.BTCUSDT"), await listen(socket, "tickers.BTCUSDT")]
            await venue.step(2)
            while len(found) < 6:
                found.append(await receive(socket))
            return found

    same, other = [[(100.0, 101.0, 99.0, 100.0)] + [(100.0, 100.0 + n, 50.0, 60.0 + n)] * 3 for n in (1, 30)]
    assert asyncio.run(run(bars_of(*same))) == asyncio.run(run(bars_of(*other)))


def test_a_ticker_is_told_whole_and_then_what_changed_of_it():
    async def run() -> Any:
        venue = venue_of(MOVING)
        async with venue, connect(venue.public_url) as socket:
            snapshot = await listen(socket, "tickers.BTCUSDT")
            await venue.step(1)
            return snapshot, await receive(socket)

    snapshot, delta = asyncio.run(run())
    assert (snapshot["type"], snapshot["data"]["lastPrice"], snapshot["data"]["bid1Price"]) == (
        "snapshot",
        "100.0",
        "99.9",
    )
    assert (delta["type"], delta["data"]["symbol"], delta["data"]["lastPrice"]) == ("delta", "BTCUSDT", "101.0")
    assert "fundingRate" not in delta["data"], "what stays the same is not told"
    assert snapshot["data"]["nextFundingTime"] == str(T0 + 8 * HOUR_MS)


def test_positions_pay_funding_at_each_settlement_and_are_told_by_an_execution():
    async def run() -> Any:
        rates = {"BTCUSDT": FundingRates((T0 + 8 * HOUR_MS,), (Decimal("0.0005"),))}
        venue = venue_of(level(100.0, bars=20), funding=rates)
        async with client_of(venue) as client, private_socket(venue, "execution") as socket:
            await client.placed("Buy", "10")
            await venue.step(17)
            rows = [row for _, row in await pushed(socket, 3)]
            history = await client.get("market/funding/history", category="linear", symbol="BTCUSDT", limit=2)
            wallet = await client.get("account/wallet-balance", accountType="UNIFIED")
            listed = await client.get("execution/list", category="linear", execType="Funding")
            closed = await client.get("position/closed-pnl", category="linear")
            position = await client.position()
            return rows, history["result"]["list"], wallet, listed["result"]["list"], closed["result"]["list"], position

    rows, history, wallet, listed, closed, position = asyncio.run(run())
    assert [(row["execType"], row["execFee"], row["feeRate"]) for row in rows] == [
        ("Trade", "0.55", "0.00055"),
        ("Funding", "0.5", "0.0005"),
        ("Funding", "0.1", "0.0001"),
    ]
    assert [row["execTime"] for row in rows[1:]] == [str(T0 + 8 * HOUR_MS), str(T0 + 16 * HOUR_MS)]
    assert [(row["fundingRate"], row["fundingRateTimestamp"]) for row in history] == [
        ("0.0001", str(T0 + 16 * HOUR_MS)),
        ("0.0005", str(T0 + 8 * HOUR_MS)),
    ]
    assert wallet["result"]["list"][0]["totalWalletBalance"] == "9998.85"
    assert (len(listed), closed, position["curRealisedPnl"]) == (2, [], "-1.15")


def test_a_short_position_receives_what_a_long_one_pays():
    async def talk(client: Client) -> Any:
        await client.placed("Sell", "10")
        await client.venue.step(8)
        return (await client.get("execution/list", category="linear", execType="Funding"))["result"]["list"]

    (settlement,) = play(venue_of(level(100.0)), talk)
    assert (settlement["execFee"], settlement["side"]) == ("-0.1", "Sell")


def test_a_limit_price_beyond_the_band_is_moved_to_its_edge_which_the_venue_tells():
    banded = msgspec.structs.replace(RULES, price_limit=Decimal("0.01"))

    async def talk(client: Client) -> Any:
        limits = await client.get("market/price-limit", symbol="BTCUSDT")
        order = await client.placed("Buy", "1", "150")
        return limits["result"], await client.shown(order)

    limits, order = play(venue_of(rules={"BTCUSDT": banded}), talk)
    assert (limits["buyLmt"], limits["sellLmt"]) == ("101.0", "99.0")
    assert (order["price"], order["orderStatus"], order["avgPrice"]) == ("101.0", "Filled", "101")


def test_a_market_order_gets_its_share_of_the_candle_that_forms_and_the_rest_is_cancelled():
    rules = replace(PLAIN, participation=0.1)

    async def talk(client: Client) -> Any:
        first = await client.placed("Buy", "15")
        second = await client.placed("Buy", "1")
        await client.venue.step(1)
        third = await client.placed("Buy", "1")
        return [await client.shown(order) for order in (first, second, third)]

    bars = bars_of(*[(100, 100, 100, 100)] * 4, volume=100.0)
    first, second, third = play(venue_of(bars, fills=rules), talk)
    assert (first["orderStatus"], first["cumExecQty"], first["leavesQty"]) == ("Cancelled", "10.000", "0.000")
    assert second["cumExecQty"] == "0.000", "the share of this candle is used up"
    assert third["orderStatus"] == "Filled"


def test_requests_beyond_the_limit_are_refused_and_told_when_they_pass_again():
    async def talk(client: Client) -> Any:
        replies = [await client.get("account/fee-rate", category="linear", symbol="BTCUSDT") for _ in range(6)]
        return [reply["retCode"] for reply in replies], client.headers

    codes, headers = play(venue_of(enforce_limits=True), talk)
    assert codes == [0] * 5 + [10006]
    assert [one["X-Bapi-Limit-Status"] for one in headers] == ["4", "3", "2", "1", "0", "0"]
    assert 0 < int(headers[-1]["X-Bapi-Limit-Reset-Timestamp"]) - T0 <= 1000


def test_a_stepped_venue_plays_the_same_again_to_the_last_byte():
    async def run() -> list[str]:
        venue = venue_of(MOVING, partial_pushes=1)
        topics = ("order", "execution", "position", "wallet")
        async with (
            client_of(venue) as client,
            private_socket(venue, *topics) as private,
            connect(venue.public_url) as public,
        ):
            await listen(public, "kline.60.BTCUSDT")
            for number in range(6):
                side, stop = ("Buy", "80") if number % 3 else ("Sell", "150")
                await client.placed(side, str(1 + number), stopLoss=stop)
                await client.placed("Buy", "1", "98", orderLinkId=f"w{number}")
                await venue.step(1)
            return await until_pong(private) + await until_pong(public)

    first = asyncio.run(run())
    assert len(first) > 40
    assert first == asyncio.run(run())


@pytest.mark.parametrize(("base", "longer"), [("60", ("60", "120", "240", "360", "720", "D", "W")), ("D", ("D", "W"))])
def test_intervals_are_those_that_the_venues_own_divides(base, longer):
    assert intervals_of(base) == longer


def test_weeks_begin_on_monday_and_candles_are_cut_at_their_own_opens():
    monday = 4 * DAY_MS
    days = [
        Bar("X", monday + n * DAY_MS, monday + (n + 1) * DAY_MS, 1.0 + n, 2.0 + n, n, 1.5 + n, 1.0) for n in range(8)
    ]
    first, second = resample(days, "W")
    assert (first.open_time, first.close_time, first.volume) == (monday, monday + 7 * DAY_MS, 7.0)
    assert (first.open, first.high, first.low, first.close) == (1.0, 8.0, 0, 7.5)
    assert second.open_time == monday + 7 * DAY_MS


def test_a_market_with_sessions_has_no_funding():
    stock = msgspec.structs.replace(RULES, calendar=Calendar.SESSIONS)

    async def talk(client: Client) -> Any:
        await client.placed("Buy", "1")
        await client.venue.step(10)
        ticker = (await client.get("market/tickers", category="linear", symbol="BTCUSDT"))["result"]["list"][0]
        return ticker["fundingRate"], (await client.get("execution/list", category="linear", execType="Funding"))

    rate, executions = play(venue_of(rules={"BTCUSDT": stock}), talk)
    assert (rate, executions["result"]["list"]) == ("", [])


def test_a_venue_without_an_account_tells_its_market_all_the_same():
    async def run() -> Any:
        venue = SandboxVenue({"BTCUSDT": MOVING}, "60", ClockSetting.stepped(), start=T0)
        async with client_of(venue) as client:
            await venue.step(9)
            async with client.session.get(f"{venue.rest_url}/v5/market/tickers?category=linear") as response:
                return await response.json()

    assert asyncio.run(run())["result"]["list"][0]["lastPrice"] == "109.00"
