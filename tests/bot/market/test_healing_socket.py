"""Whatever a venue sends, the streams go on; and a stream whose own code fails says so instead of going deaf."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection

from backtest.sandbox import protocol
from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.faults import Fault, FaultPlan, FaultRule
from backtest.sandbox.venue import SandboxVenue
from bot.execution.bybit.decode import VenueOrder
from bot.market.batches import BarBatch
from bot.market.bybit_private_stream import PrivateConnected, PrivateDisconnected, PrivateStream
from bot.market.bybit_rest import BybitRest
from bot.market.bybit_stream import KlineClosed, KlineStream, StreamConnected, StreamDisconnected
from bot.market.feed import MarketFeed
from bot.market.healing_socket import HealingSocket
from strategies.bars import HOUR_MS
from tests.bot.market.scenes import LIMITS, QUICK, T0, hourly
from tests.bot.market.test_bybit_stream import acknowledge, server, take

BARS = list(hourly("BTCUSDT", 4).bars())
NAMES = [
    *("topic", "data", "op", "success", "ret_msg", "retMsg", "retCode", "req_id", "ts", "type", "args", "conn_id"),
    *("start", "end", "confirm", "close", "orderId", "symbol", "orderStatus", "qty", "execId", "coin", "updatedTime"),
]
WORDS = [
    "kline.60.BTCUSDT",
    "order",
    "execution",
    "position",
    "wallet",
    "auth",
    "subscribe",
    "ping",
    "pong",
    "1e999",
    "",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=12,
)
PUSHES = st.fixed_dictionaries({"topic": st.sampled_from(WORDS), "data": JSON}, optional={"ts": JSON, "type": JSON})
FRAMES = st.lists((JSON | PUSHES).map(json.dumps) | st.text(max_size=30) | st.binary(max_size=30), max_size=8)


def confirmed(number: int) -> str:
    bar = BARS[number]
    candle = protocol.candle(bar, "60", confirm=True, timestamp=bar.close_time)
    return protocol.kline_push("BTCUSDT", "60", [candle], bar.close_time)


@settings(max_examples=60, deadline=None)
@given(frames=FRAMES)
def test_no_frame_kills_the_public_stream(frames: list[str | bytes]) -> None:
    async def handle(socket: ServerConnection) -> None:
        await acknowledge(socket)
        for frame in frames:
            await socket.send(frame)
        await socket.send(confirmed(3))
        await socket.wait_closed()

    async def play() -> int:
        async with server(handle) as url, KlineStream(url, ["BTCUSDT"], "60", backoff=QUICK) as stream:
            async with asyncio.timeout(10):
                async for event in stream:
                    if isinstance(event, KlineClosed) and event.bar == BARS[3]:
                        return stream.connections
        return 0

    assert asyncio.run(play()) == 1


@settings(max_examples=60, deadline=None)
@given(frames=FRAMES)
def test_no_frame_kills_the_private_stream(frames: list[str | bytes]) -> None:
    async def handle(socket: ServerConnection) -> None:
        for operation in ("auth", "subscribe"):
            await socket.recv()
            await socket.send(json.dumps({"success": True, "ret_msg": "", "op": operation, "conn_id": "c"}))
        for frame in frames:
            await socket.send(frame)
        await socket.send('{"topic":"order","data":[{"orderId":"last of all","symbol":"BTCUSDT"}]}')
        await socket.wait_closed()

    async def play() -> int:
        async with server(handle) as url, PrivateStream(url, "key", "secret", backoff=QUICK) as stream:
            async with asyncio.timeout(10):
                async for event in stream:
                    if isinstance(event, VenueOrder) and event.order_id == "last of all":
                        return stream.connections
        return 0

    assert asyncio.run(play()) == 1


@pytest.mark.parametrize("answer", ['{"success":true,"op":"pong"}', "not json", '{"op":"auth","success":"yes"}'])
def test_a_login_that_is_answered_by_something_else_ends_in_another_attempt(answer: str) -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(answer)
        await socket.wait_closed()

    async def play() -> Any:
        async with server(handle) as url:
            stream = PrivateStream(url, "key", "secret", silence_timeout_s=0.05, backoff=QUICK)
            async with stream, asyncio.timeout(10):
                return await anext(stream)

    assert asyncio.run(play()) == PrivateDisconnected("the venue did not answer a login in 0.05 s")


class Broken(HealingSocket[str]):
    """A stream whose own code fails where ``where`` says."""

    def __init__(self, url: str, where: str) -> None:
        super().__init__(url, "broken", ping_interval_s=0.01, silence_timeout_s=1, backoff=QUICK)
        self._where = where

    async def _open(self, socket: ClientConnection) -> None:
        if self._where == "open":
            raise ZeroDivisionError("our mistake")

    def _take(self, data: str | bytes) -> None:
        if self._where == "take":
            raise ZeroDivisionError("our mistake")
        self._pong.set()

    def _ping(self) -> str:
        if self._where == "ping":
            raise ZeroDivisionError("our mistake")
        return "ping"

    def _lost(self, reason: str) -> str:
        return reason


@pytest.mark.parametrize("where", ["open", "take", "ping"])
def test_a_mistake_of_our_own_ends_the_stream_and_reaches_who_reads_it(where: str) -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.send("hello")
        await socket.wait_closed()

    async def play() -> None:
        async with server(handle) as url, Broken(url, where) as stream, asyncio.timeout(10):
            await anext(stream)

    with pytest.raises(ZeroDivisionError, match="our mistake"):
        asyncio.run(play())


def pinging(url: str, symbols: list[str], silence_s: float) -> KlineStream:
    return KlineStream(url, symbols, "60", ping_interval_s=0.01, backoff=QUICK, topic_silence_s=silence_s)


def test_a_topic_that_is_frozen_while_pongs_go_on_is_subscribed_anew_and_no_bar_is_missing() -> None:
    series = hourly("BTCUSDT", 12)
    faults = FaultPlan((FaultRule(do=Fault.FREEZE, on="kline.60.BTCUSDT", first=3, last=5),))
    venue = SandboxVenue({"BTCUSDT": series}, "60", ClockSetting.stepped(), start=T0, faults=faults)

    async def play() -> Any:
        async with venue, pinging(venue.public_url, ["BTCUSDT"], 0.15) as stream:
            rest = BybitRest(venue.rest_url, backoff=QUICK)
            feed = MarketFeed(stream, rest, ["BTCUSDT"], "60", {"BTCUSDT": T0 - HOUR_MS}, limits=LIMITS)
            taken: list[BarBatch] = []
            try:
                async with asyncio.timeout(10):
                    events = feed.events()
                    for _ in range(8):
                        waiting = asyncio.ensure_future(anext(events))
                        await feed.caught_up()
                        await venue.step()
                        event = await waiting
                        assert isinstance(event, BarBatch)
                        taken.append(event)
                    await events.aclose()
            finally:
                rest.close()
            return taken, stream.connections

    taken, connections = asyncio.run(play())
    assert [batch.bars[0] for batch in taken] == list(series.bars())[:8]
    assert connections >= 2, "REST alone does not bring a frozen topic back"


async def answer_pings(socket: ServerConnection, on_ping: Callable[[], Awaitable[None]]) -> None:
    async for text in socket:
        if json.loads(text)["op"] == "ping":
            # Before the pong, so that a slow machine sees the two together.
            await on_ping()
            await socket.send('{"success":true,"ret_msg":"pong","op":"ping"}')
        else:
            await socket.send(protocol.acknowledgement("subscribe", "c", json.loads(text)["req_id"]))


def test_a_symbol_that_stays_silent_is_not_waited_for_again_until_it_is_heard() -> None:
    sockets = 0

    async def handle(socket: ServerConnection) -> None:
        nonlocal sockets
        sockets += 1
        turn, sent = sockets, 0

        async def push() -> None:
            nonlocal sent
            sent += 1
            # The second connection hears of the silent symbol once, and then no more.
            names = ["ETHUSDT", "BTCUSDT"] if turn == 2 and sent == 20 else ["ETHUSDT"]
            for name in names:
                forming = protocol.candle(BARS[0], "60", confirm=False, timestamp=T0)
                await socket.send(protocol.kline_push(name, "60", [forming], T0))

        await answer_pings(socket, push)

    async def play() -> Any:
        async with server(handle) as url, pinging(url, ["BTCUSDT", "ETHUSDT"], 0.1) as stream:
            return await take(stream, 4)

    events = asyncio.run(play())
    reason = "the venue sent nothing of BTCUSDT for 0.1 s, though it answers pings"
    assert events == [StreamConnected(1), StreamDisconnected(reason), StreamConnected(2), StreamDisconnected(reason)]


def test_forming_candles_are_signs_of_life() -> None:
    async def handle(socket: ServerConnection) -> None:
        async def push() -> None:
            forming = protocol.candle(BARS[0], "60", confirm=False, timestamp=T0)
            await socket.send(protocol.kline_push("BTCUSDT", "60", [forming], T0))

        await answer_pings(socket, push)

    async def play() -> Any:
        async with server(handle) as url, pinging(url, ["BTCUSDT"], 0.1) as stream:
            connected = await take(stream, 1)
            await asyncio.sleep(0.4)
            return connected, stream.connections

    assert asyncio.run(play()) == ([StreamConnected(1)], 1)


def test_the_first_push_after_a_connection_may_be_old_and_is_no_news() -> None:
    async def handle(socket: ServerConnection) -> None:
        await acknowledge(socket)
        for number in (0, 1, 0, 1, 2):
            await socket.send(confirmed(number))
        await socket.wait_closed()

    async def play() -> Any:
        series = hourly("BTCUSDT", 4)
        venue = SandboxVenue({"BTCUSDT": series}, "60", ClockSetting.stepped(), start=T0 + 2 * HOUR_MS)
        async with server(handle) as url, venue, KlineStream(url, ["BTCUSDT"], "60", backoff=QUICK) as stream:
            rest = BybitRest(venue.rest_url, backoff=QUICK)
            feed = MarketFeed(stream, rest, ["BTCUSDT"], "60", {"BTCUSDT": T0 + HOUR_MS}, limits=LIMITS)
            try:
                async with asyncio.timeout(10):
                    events = feed.events()
                    event = await anext(events)
                    await events.aclose()
                    return event
            finally:
                rest.close()

    event = asyncio.run(play())
    assert event == BarBatch((BARS[2],), (False,))


def test_a_private_stream_that_is_not_heard_from_is_opened_anew() -> None:
    async def handle(socket: ServerConnection) -> None:
        for operation in ("auth", "subscribe"):
            await socket.recv()
            await socket.send(json.dumps({"success": True, "ret_msg": "", "op": operation, "conn_id": "c"}))
        await socket.wait_closed()

    async def play() -> Any:
        async with server(handle) as url:
            stream = PrivateStream(url, "key", "secret", ping_interval_s=0.01, silence_timeout_s=0.05, backoff=QUICK)
            async with stream, asyncio.timeout(10):
                return [await anext(stream) for _ in range(3)]

    connected, lost, again = asyncio.run(play())
    assert (connected, again) == (PrivateConnected(1), PrivateConnected(2))
    assert lost == PrivateDisconnected("the venue did not answer a ping in 0.05 s")
