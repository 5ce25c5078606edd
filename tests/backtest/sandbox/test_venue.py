"""The sandbox over its own port: REST, websocket, control and the three clocks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from yarl import URL

from backtest.sandbox.clock import ClockMode, ClockSetting, RunningClock, SteppedClock
from backtest.sandbox.market import SyntheticMarket
from backtest.sandbox.venue import SandboxVenue
from strategies.bars import DAY_MS, HOUR_MS, Bar, BarSeries, Calendar, close_time_of
from tests.bot.market.scenes import T0, close_of, hourly


def stepped(*series: BarSeries, start: int = 5, **settings: Any) -> SandboxVenue:
    sources = {one.symbol: one for one in series or (hourly("BTCUSDT", 10),)}
    return SandboxVenue(sources, "60", ClockSetting.stepped(), start=T0 + start * HOUR_MS, **settings)


def ask(venue: SandboxVenue, talk: Callable[[aiohttp.ClientSession, str], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with venue, aiohttp.ClientSession() as session:
            return await talk(session, venue.rest_url)

    return asyncio.run(run())


async def fetch(session: aiohttp.ClientSession, url: str, **body: Any) -> tuple[int, Any]:
    call = session.post(url, json=body["json"]) if "json" in body else session.get(url, **body)
    async with call as response:
        return response.status, await response.json(content_type=None) if response.status != 403 else None


async def receive(socket: ClientConnection, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [json.loads(await socket.recv()) for _ in range(count)]


async def send(socket: ClientConnection, **request: Any) -> None:
    await socket.send(json.dumps(request))


def starts(reply: dict[str, Any]) -> list[int]:
    return [(int(row[0]) - T0) // HOUR_MS for row in reply["result"]["list"]]


def test_klines_are_newest_first_with_the_open_candle_on_top_and_both_ends_included():
    async def talk(session, url):
        route = f"{url}/v5/market/kline?category=linear&symbol=BTCUSDT&interval=60"
        newest = await fetch(session, f"{route}&limit=3")
        window = await fetch(session, f"{route}&start={T0 + HOUR_MS}&end={T0 + 3 * HOUR_MS}")
        wide = await fetch(session, f"{route}&start={T0}&end={T0 + 4 * HOUR_MS}&limit=2")
        forward = await fetch(session, f"{route}&start={T0}&limit=2")
        ignored = await fetch(session, f"{route}&startTime={T0}&endTime={T0}")
        return [newest, window, wide, forward, ignored]

    replies = ask(stepped(), talk)
    assert [status for status, _ in replies] == [200] * 5
    newest, window, wide, forward, ignored = [reply for _, reply in replies]
    assert starts(newest) == [5, 4, 3]
    assert newest["result"]["list"][0][4:6] == [newest["result"]["list"][0][1], "0"], "nothing of its future shows"
    assert starts(window) == [3, 2, 1]
    assert starts(wide) == [4, 3]
    assert starts(forward) == [1, 0]
    assert starts(ignored) == [5, 4, 3, 2, 1, 0]
    assert newest["time"] == T0 + 5 * HOUR_MS


@pytest.mark.parametrize(
    "query",
    [
        "symbol=NOPE&interval=60",
        "symbol=BTCUSDT&interval=7",
        "symbol=BTCUSDT&interval=60&limit=0",
        "symbol=BTCUSDT&interval=60&limit=1001",
        "symbol=BTCUSDT&interval=60&start=yesterday",
        "symbol=BTCUSDT&interval=60&category=option",
        "",
    ],
)
def test_a_parameter_that_the_venue_does_not_accept_is_code_10001_with_status_200(query):
    status, reply = ask(stepped(), lambda session, url: fetch(session, f"{url}/v5/market/kline?{query}"))
    assert (status, reply["retCode"], reply["result"]) == (200, 10001, {})


def test_parameters_are_percent_decoded():
    series = hourly("1000PEPE-USDT+X", 10)
    route = "/v5/market/kline?symbol=1000PEPE%2DUSDT%2BX&interval=60"
    _, reply = ask(stepped(series), lambda session, url: fetch(session, URL(url + route, encoded=True)))
    assert reply["result"]["symbol"] == "1000PEPE-USDT+X"


def test_an_unknown_route_is_404_and_a_get_with_a_body_is_403():
    async def talk(session, url):
        return await fetch(session, f"{url}/v5/market/nothing"), await fetch(
            session, f"{url}/v5/market/time", data="{}"
        )

    unknown, body = ask(stepped(), talk)
    assert (unknown[0], unknown[1]["retCode"]) == (404, 10017)
    assert body[0] == 403


def test_subscribing_shows_the_forming_candle_and_each_close_is_one_message_with_the_new_one():
    async def run():
        async with stepped() as venue, connect(venue.public_url) as socket:
            await send(socket, op="subscribe", args=["kline.60.BTCUSDT"], req_id="r")
            answer, snapshot = await receive(socket, 2)
            await venue.step(5)
            return answer, snapshot, await receive(socket, 5), venue.state()

    answer, snapshot, pushes, state = asyncio.run(run())
    assert (answer["success"], answer["op"], answer["req_id"]) == (True, "subscribe", "r")
    assert [(one["start"], one["confirm"]) for one in snapshot["data"]] == [(T0 + 5 * HOUR_MS, False)]
    assert [[one["confirm"] for one in push["data"]] for push in pushes] == [[True, False]] * 4 + [[True]]
    assert [push["ts"] for push in pushes] == [close_of(number) for number in range(5, 10)]
    assert pushes[0]["data"][0]["close"] == "100.75"
    assert state["finished"]
    assert state["next_close"] is None
    assert state["time"] == close_of(9)


def test_the_socket_answers_pings_refuses_bad_topics_and_survives_garbage():
    async def run():
        async with stepped() as venue, connect(venue.public_url) as socket:
            await send(socket, op="ping")
            await send(socket, op="subscribe", args=["kline.60.BTCUSDT", "kline.60.NOPE"])
            await send(socket, op="dance")
            await socket.send("garbage")
            await socket.send("[]")
            await send(socket, op="subscribe", args=["kline.60.BTCUSDT"])
            before = await receive(socket, 7)
            await send(socket, op="subscribe", args=["kline.60.BTCUSDT"])
            await send(socket, op="unsubscribe", args=["kline.60.BTCUSDT"])
            after = await receive(socket, 2)
            await venue.step()
            await send(socket, op="ping")
            return before, after, await receive(socket, 1)

    before, after, last = asyncio.run(run())
    assert before[0]["ret_msg"] == "pong"
    assert (before[1]["success"], before[1]["ret_msg"]) == (False, "Invalid symbol :[kline.60.NOPE]")
    assert before[2]["ret_msg"] == "error:invalid op"
    assert before[3]["ret_msg"].startswith("Failed to decode incoming data")
    assert before[4]["ret_msg"].startswith("Failed to decode incoming data")
    assert (before[5]["success"], before[6]["topic"]) == (True, "kline.60.BTCUSDT")
    assert after[0]["ret_msg"] == "error:already subscribed,topic:kline.60.BTCUSDT"
    assert after[1]["success"]
    assert last[0]["ret_msg"] == "pong", "nothing is pushed after unsubscribing"


def test_the_spot_stream_has_the_same_candles_and_refuses_tickers():
    async def run():
        async with stepped() as venue, connect(venue.stream_url("spot")) as socket, connect(venue.public_url) as other:
            await send(socket, op="subscribe", args=["tickers.BTCUSDT"])
            for one in (socket, other):
                await send(one, op="subscribe", args=["kline.60.BTCUSDT"])
            refused, *first = await receive(socket, 3)
            same = await receive(other, 2)
            await venue.step(2)
            return refused, first[1:] + await receive(socket, 2), same[1:] + await receive(other, 2)

    refused, spot, linear = asyncio.run(run())
    assert (refused["success"], "no tickers" in refused["ret_msg"]) == (False, True)
    assert spot == linear and len(spot) == 3


def test_symbols_that_close_together_are_pushed_in_one_step_and_others_in_their_own():
    later = hourly("ETHUSDT", 4, first=6)

    async def run():
        async with stepped(hourly("BTCUSDT", 8), later) as venue, connect(venue.public_url) as socket:
            await send(socket, op="subscribe", args=["kline.60.BTCUSDT", "kline.60.ETHUSDT"])
            await receive(socket, 2)
            done = [await venue.step(2), await venue.step(10)]
            return done, await receive(socket, 7)

    done, pushes = asyncio.run(run())
    assert done == [2, 3]
    assert [(push["topic"][-7:], (push["ts"] - T0) // HOUR_MS - 1) for push in pushes] == [
        ("BTCUSDT", 5),
        ("BTCUSDT", 6),
        ("ETHUSDT", 6),
        ("BTCUSDT", 7),
        ("ETHUSDT", 7),
        ("ETHUSDT", 8),
        ("ETHUSDT", 9),
    ]


def test_the_control_endpoints_step_mute_speak_and_cut():
    async def run():
        async with stepped() as venue, aiohttp.ClientSession() as session, connect(venue.public_url) as socket:
            await send(socket, op="subscribe", args=["kline.60.BTCUSDT"])
            await receive(socket, 2)
            root = venue.control_url
            await fetch(session, f"{root}/mute", json={"symbol": "BTCUSDT", "bars": 2})
            _, state = await fetch(session, f"{root}/step", json={"bars": 3})
            await fetch(session, f"{root}/raw", json={"text": '"anything"'})
            heard = await receive(socket, 2)
            await fetch(session, f"{root}/drop", json={})
            await socket.wait_closed()
            _, after = await fetch(session, f"{root}/state")
            bad = [
                await fetch(session, f"{root}/step", json={"bars": "three"}),
                await fetch(session, f"{root}/step", json=[1]),
                await fetch(session, f"{root}/mute", json={"symbol": "NOPE"}),
                await fetch(session, f"{root}/unknown", json={}),
            ]
            return state, heard, after, bad

    state, heard, after, bad = asyncio.run(run())
    assert (state["time"], state["released"], state["mode"]) == (close_of(7), {"BTCUSDT": 3}, "stepped")
    assert state["subscriptions"] == {"kline.60.BTCUSDT": 1}
    assert heard[0]["ts"] == close_of(7), "the two muted closes were not pushed"
    assert heard[1] == "anything"
    assert after["subscriptions"] == {"kline.60.BTCUSDT": 0}
    assert [status for status, _ in bad] == [400, 400, 400, 404]
    assert "NOPE" in bad[2][1]["error"]


def test_an_accelerated_clock_plays_by_itself_from_resume_to_the_end_and_cannot_be_stepped():
    async def run():
        clock = ClockSetting.accelerated(HOUR_MS)  # one hourly bar per millisecond
        sources = {"BTCUSDT": hourly("BTCUSDT", 10)}
        venue = SandboxVenue(sources, "60", clock, start=T0 + 5 * HOUR_MS, paused=True)
        async with venue, connect(venue.public_url) as socket, aiohttp.ClientSession() as session:
            await send(socket, op="subscribe", args=["kline.60.BTCUSDT"])
            await receive(socket, 2)
            before = venue.state()
            status, _ = await fetch(session, f"{venue.control_url}/step", json={"bars": 1})
            await fetch(session, f"{venue.control_url}/resume", json={})
            return before, status, await receive(socket, 5), venue.state()

    before, status, pushes, after = asyncio.run(run())
    assert (before["time"], before["paused"], before["released"]) == (T0 + 5 * HOUR_MS, True, {"BTCUSDT": 0})
    assert status == 400
    assert [push["data"][0]["start"] for push in pushes] == [T0 + number * HOUR_MS for number in range(5, 10)]
    assert all(push["ts"] >= push["data"][0]["end"] for push in pushes)
    assert (after["finished"], after["time"]) == (True, close_of(9))


def test_a_synthetic_market_plays_on_from_its_own_history():
    market = SyntheticMarket(4, "BTCUSDT", "60")
    venue = SandboxVenue({"BTCUSDT": market}, "60", ClockSetting.stepped(), start=T0 + 1)

    async def run():
        async with venue, connect(venue.public_url) as socket:
            await send(socket, op="subscribe", args=["kline.60.BTCUSDT"])
            await receive(socket, 2)
            await venue.step(3)
            return await receive(socket, 3)

    pushes = asyncio.run(run())
    bars = list(market.series(T0 + HOUR_MS, T0 + 4 * HOUR_MS).bars())
    closed = [push["data"][0] for push in pushes]
    assert [(one["start"], float(one["close"]), float(one["volume"])) for one in closed] == [
        (bar.open_time, bar.close, bar.volume) for bar in bars
    ]


def test_a_market_with_sessions_has_no_open_candle_over_night():
    opens = [T0 - T0 % DAY_MS + day * DAY_MS + 14 * HOUR_MS for day in (0, 1, 4)]
    bars = [
        Bar("AAPL", opened, close_time_of(opened, "D", Calendar.SESSIONS), 10.0, 11.0, 9.0, 10.5, 5.0)
        for opened in opens
    ]
    series = BarSeries.of(bars, "D", Calendar.SESSIONS)

    async def run():
        venue = SandboxVenue({"AAPL": series}, "D", ClockSetting.stepped())
        async with venue, connect(venue.public_url) as socket:
            await send(socket, op="subscribe", args=["kline.D.AAPL"])
            await receive(socket, 2)
            await venue.step(3)
            return await receive(socket, 3)

    pushes = asyncio.run(run())
    assert [[(one["start"], one["confirm"]) for one in push["data"]] for push in pushes] == [
        [(opened, True)] for opened in opens
    ]


def test_bars_from_the_end_on_are_hidden_and_a_start_without_bars_is_refused():
    venue = stepped(hourly("BTCUSDT", 10), end=T0 + 7 * HOUR_MS)
    assert ask(venue, lambda session, url: fetch(session, f"{url}/control/state"))[1]["next_close"] == close_of(5)
    assert asyncio.run(count_steps(venue)) == 2
    with pytest.raises(ValueError, match="no bar of BTCUSDT from the start"):
        stepped(start=10)
    with pytest.raises(ValueError, match="at least one symbol"):
        SandboxVenue({}, "60", ClockSetting.stepped())


async def count_steps(venue: SandboxVenue) -> int:
    async with venue:
        return await venue.step(100)


def test_a_taken_port_is_an_error_and_a_stopped_venue_frees_its_own():
    async def run():
        first, second = stepped(), stepped()
        async with first:
            port = int(first.rest_url.rpartition(":")[2])
            with pytest.raises(OSError):
                await second.start(port)
        await second.start(port)
        await second.stop()

    asyncio.run(run())


def test_a_running_clock_passes_at_its_speed_stands_until_it_runs_and_never_passes_its_end():
    seconds = [100.0]
    clock = RunningClock(1000, 60.0, lambda: seconds[0])
    seconds[0] = 105.0
    assert clock.now() == 1000
    clock.run()
    seconds[0] = 106.5
    assert clock.now() == 1000 + 90_000
    assert clock.seconds_until(1000 + 120_000) == pytest.approx(0.5)
    clock.advance_to(1000 + 100_000)
    assert clock.now() == 101_000
    clock.stop_at(102_000)
    seconds[0] = 1000.0
    assert clock.now() == 102_000
    assert clock.seconds_until(0) == 0.0


def test_a_stepped_clock_moves_only_when_told_and_never_back():
    clock = SteppedClock(10)
    clock.run()
    clock.advance_to(20)
    clock.advance_to(15)
    assert clock.now() == 20
    assert (clock.seconds_until(20), clock.seconds_until(21)) == (0.0, float("inf"))


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_no_speed_is_refused(speed):
    with pytest.raises(ValueError, match="speed"):
        ClockSetting.accelerated(speed)
    assert ClockSetting.real() == ClockSetting(ClockMode.REAL)
