"""The kline stream over real sockets: what it delivers, and how it survives the venue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve

from backtest.sandbox import protocol
from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.venue import SandboxVenue
from bot.market.backoff import Backoff
from bot.market.bybit_stream import (
    KlineClosed,
    KlineStream,
    StreamConnected,
    StreamDisconnected,
    StreamEvent,
    SubscriptionRefused,
)
from tests.bot.market.scenes import QUICK, T0, hourly

SERIES = hourly("BTCUSDT", 20)
BARS = list(SERIES.bars())


def venue_of(*series) -> SandboxVenue:
    return SandboxVenue({one.symbol: one for one in series or (SERIES,)}, "60", ClockSetting.stepped(), start=T0)


async def take(stream: KlineStream, count: int) -> list[StreamEvent]:
    async with asyncio.timeout(10):
        return [await anext(stream) for _ in range(count)]


def bars_of(events: list[StreamEvent]):
    return [event.bar for event in events if isinstance(event, KlineClosed)]


@asynccontextmanager
async def server(handle: Callable[[ServerConnection], Awaitable[None]], **settings) -> AsyncIterator[str]:
    async with serve(handle, "127.0.0.1", 0, **settings) as listening:
        yield f"ws://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"


async def acknowledge(socket: ServerConnection) -> None:
    json.loads(await socket.recv())
    await socket.send(protocol.acknowledgement("subscribe", "c", ""))


def test_closed_candles_come_in_order_and_forming_ones_do_not_come_at_all():
    async def play():
        async with venue_of() as venue, KlineStream(venue.public_url, ["BTCUSDT"], "60") as stream:
            connected = await take(stream, 1)
            await venue.step(20)
            return connected, await take(stream, 20)

    connected, events = asyncio.run(play())
    assert connected == [StreamConnected(1)]
    assert bars_of(events) == BARS
    assert all(isinstance(event, KlineClosed) and event.venue_time == event.bar.close_time for event in events)


def test_one_message_may_carry_several_closed_candles_and_a_repeated_one_counts_once():
    candles = [protocol.candle(bar, "60", confirm=True, timestamp=bar.close_time) for bar in BARS[:3]]
    text = protocol.kline_push("BTCUSDT", "60", candles, BARS[2].close_time)
    last = protocol.kline_push("BTCUSDT", "60", candles[2:], BARS[2].close_time)
    other = protocol.kline_push("ETHUSDT", "60", candles, BARS[2].close_time)

    async def play():
        async with venue_of() as venue, KlineStream(venue.public_url, ["BTCUSDT"], "60") as stream:
            await take(stream, 1)
            for frame in (text, last, other, last):
                await venue.send_raw(frame)
            await venue.step(4)
            return await take(stream, 7)

    assert bars_of(asyncio.run(play())) == BARS[:3] + BARS[:4]


def test_garbage_is_counted_and_the_socket_stays():
    async def play():
        async with venue_of() as venue, KlineStream(venue.public_url, ["BTCUSDT"], "60") as stream:
            await take(stream, 1)
            for frame in ("", "}{", '{"topic":"kline.60.BTCUSDT","data":7}'):
                await venue.send_raw(frame)
            await venue.step()
            return await take(stream, 1), stream.malformed_frames, stream.connections

    events, malformed, connections = asyncio.run(play())
    assert bars_of(events) == BARS[:1]
    assert (malformed, connections) == (3, 1)


def test_a_cut_socket_is_opened_again_and_subscribed_again():
    async def play():
        async with venue_of() as venue, KlineStream(venue.public_url, ["BTCUSDT"], "60", backoff=QUICK) as stream:
            await take(stream, 1)
            venue.drop_connections()
            lost = await take(stream, 2)
            await venue.step()
            return lost, await take(stream, 1)

    lost, events = asyncio.run(play())
    assert isinstance(lost[0], StreamDisconnected)
    assert lost[1] == StreamConnected(2)
    assert bars_of(events) == BARS[:1]


def test_a_venue_that_is_not_there_yet_is_tried_until_it_is():
    async def play():
        venue = venue_of()
        async with venue:
            url, port = venue.public_url, int(venue.rest_url.rpartition(":")[2])
        async with KlineStream(url, ["BTCUSDT"], "60", backoff=QUICK) as stream:
            refused = await take(stream, 2)
            await venue.start(port)
            try:
                async with asyncio.timeout(10):
                    while not isinstance(event := await anext(stream), StreamConnected):
                        pass
            finally:
                await venue.stop()
            return refused, event

    refused, event = asyncio.run(play())
    assert all(isinstance(one, StreamDisconnected) for one in refused)
    assert event == StreamConnected(1)


def test_an_unknown_symbol_is_refused_by_name_and_the_others_stream():
    async def play():
        async with venue_of() as venue, KlineStream(venue.public_url, ["BTCUSDT", "NOPEUSDT"], "60") as stream:
            answers = await take(stream, 2)
            await venue.step()
            return answers, await take(stream, 1)

    answers, events = asyncio.run(play())
    assert answers == [SubscriptionRefused("NOPEUSDT", "Invalid symbol :[kline.60.NOPEUSDT]"), StreamConnected(1)]
    assert bars_of(events) == BARS[:1]


def test_already_subscribed_is_no_refusal():
    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        refusal = "error:already subscribed,topic:kline.60.BTCUSDT"
        await socket.send(protocol.acknowledgement("subscribe", "c", "", refusal=refusal))
        await socket.wait_closed()

    async def play():
        async with server(handle) as url, KlineStream(url, ["BTCUSDT"], "60") as stream:
            return await take(stream, 1)

    assert asyncio.run(play()) == [StreamConnected(1)]


def test_any_of_the_five_shapes_of_pong_keeps_the_connection():
    shapes = [
        '{"success":true,"ret_msg":"pong","conn_id":"c","op":"ping"}',
        '{"success":true,"ret_msg":"pong","conn_id":"c","req_id":"","op":"ping"}',
        '{"args":["1672916271846"],"op":"pong"}',
        '{"req_id":"x","op":"pong","args":["1675418560633"],"conn_id":"c"}',
        '{"retCode":0,"retMsg":"OK","op":"pong","data":["1711002002529"],"connId":"c"}',
    ]

    async def handle(socket: ServerConnection) -> None:
        await acknowledge(socket)
        for shape in shapes:
            assert json.loads(await socket.recv())["op"] == "ping"
            await socket.send(shape)
        await socket.recv()
        candle = protocol.candle(BARS[0], "60", confirm=True, timestamp=BARS[0].close_time)
        await socket.send(protocol.kline_push("BTCUSDT", "60", [candle], BARS[0].close_time))
        await socket.wait_closed()

    async def play():
        async with (
            server(handle) as url,
            KlineStream(url, ["BTCUSDT"], "60", ping_interval_s=0.001, silence_timeout_s=5) as stream,
        ):
            return await take(stream, 2)

    events = asyncio.run(play())
    assert events[0] == StreamConnected(1)
    assert bars_of(events) == BARS[:1]


def test_a_ping_that_nobody_answers_ends_the_connection_and_a_new_one_is_made():
    async def handle(socket: ServerConnection) -> None:
        await acknowledge(socket)
        await socket.wait_closed()

    async def play():
        async with server(handle) as url:
            stream = KlineStream(url, ["BTCUSDT"], "60", ping_interval_s=0.001, silence_timeout_s=0.05, backoff=QUICK)
            async with stream:
                return await take(stream, 3)

    events = asyncio.run(play())
    assert events[1] == StreamDisconnected("the venue did not answer a ping in 0.05 s")
    assert events[2] == StreamConnected(2)


def test_a_subscription_that_nobody_answers_ends_the_connection():
    async def handle(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async def play():
        async with (
            server(handle) as url,
            KlineStream(url, ["BTCUSDT"], "60", silence_timeout_s=0.05, backoff=QUICK) as stream,
        ):
            return await take(stream, 1)

    assert asyncio.run(play()) == [StreamDisconnected("the venue did not answer a subscription in 0.05 s")]


def test_a_handshake_that_is_forbidden_is_reported_as_such():
    async def handle(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async def play():
        def forbid(connection, request):
            return connection.respond(HTTPStatus.FORBIDDEN, "no")

        async with (
            server(handle, process_request=forbid) as url,
            KlineStream(url, ["BTCUSDT"], "60", backoff=QUICK) as stream,
        ):
            return await take(stream, 1)

    assert asyncio.run(play()) == [StreamDisconnected("the handshake was refused with HTTP status 403")]


def test_backoff_is_fast_once_then_doubles_up_to_its_limit_with_jitter_below():
    highest = Backoff(uniform=lambda: 1.0)
    assert [highest.delay(attempt) for attempt in range(8)] == [0.25, 1, 2, 4, 8, 16, 30, 30]
    assert [Backoff(uniform=lambda: 0.0).delay(attempt) for attempt in (0, 1, 10_000)] == [0.125, 0.5, 15]
