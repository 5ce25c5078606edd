"""The fault plan: each fault does what it says, over real sockets, and a seed plays the same again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from backtest.sandbox.faults import CLOSE, OF_PUSHES, Fault, FaultInjector, FaultPlan, FaultRule
from backtest.sandbox.venue import SandboxVenue
from bot.market.bybit_stream import KlineStream, StreamConnected
from strategies.bars import HOUR_MS
from tests.backtest.sandbox.client import Client, bars_of, client_of, private_socket, pushed, receive, trading_venue
from tests.bot.market.scenes import T0

KLINE = "kline.60.BTCUSDT"
BARS = bars_of(*[(100.0 + n, 102.0 + n, 98.0 + n, 101.0 + n) for n in range(12)])


def venue_with(*rules: FaultRule, seed: int = 0) -> SandboxVenue:
    venue = trading_venue(BARS)
    venue.plant(FaultPlan(rules, seed))
    return venue


def opens(message: dict[str, Any]) -> tuple[int, str]:
    """Number and close of the confirmed candle of a push."""
    candle = next(one for one in message["data"] if one["confirm"])
    return (candle["start"] - T0) // HOUR_MS, candle["close"]


def closes(venue: SandboxVenue, steps: int, count: int) -> list[Any]:
    """The confirmed candles of so many pushes, stepping so often; a text that is no JSON as ``None``."""

    async def run() -> list[Any]:
        async with venue, connect(venue.public_url) as socket:
            await listen(socket)
            await venue.step(steps)
            found = []
            async with asyncio.timeout(10):
                while len(found) < count:
                    try:
                        found.append(opens(json.loads(await socket.recv())))
                    except ValueError:
                        found.append(None)
            return found

    return asyncio.run(run())


async def listen(socket: ClientConnection) -> None:
    await socket.send(json.dumps({"op": "subscribe", "args": [KLINE]}))
    await receive(socket)
    await receive(socket)


def play(venue: SandboxVenue, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with client_of(venue) as client:
            return await talk(client)

    return asyncio.run(run())


TRUE = [(n, str(101 + n)) for n in range(12)]


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        (FaultRule(Fault.DROP, "kline.*", after=1, times=1), [TRUE[0], TRUE[2], TRUE[3]]),
        (FaultRule(Fault.FREEZE, KLINE, first=2, last=4), [TRUE[0], TRUE[3], TRUE[4]]),
        (FaultRule(Fault.DUPLICATE, KLINE, after=1, times=1), [TRUE[0], TRUE[1], TRUE[1], TRUE[2]]),
        (FaultRule(Fault.REORDER, KLINE, after=1, times=1), [TRUE[0], TRUE[2], TRUE[1], TRUE[3]]),
        (FaultRule(Fault.DELAY, KLINE, after=1, times=1, bars_late=2), [TRUE[0], TRUE[2], TRUE[1], TRUE[3]]),
        (FaultRule(Fault.CORRUPT, KLINE, after=1, times=1), [TRUE[0], None, TRUE[2]]),
        (FaultRule(Fault.SKIP, KLINE, after=1, times=1, bars_late=1), [TRUE[0], TRUE[1], TRUE[2]]),
        (FaultRule(Fault.REVISE, KLINE, after=1, times=1, fraction=0.25), [TRUE[0], (1, "101"), TRUE[1], TRUE[2]]),
        (FaultRule(Fault.DROP, KLINE, every=2), [TRUE[0], TRUE[2], TRUE[4]]),
    ],
)
def test_a_push_is_lost_late_doubled_swapped_broken_missing_or_revised(rule, seen):
    assert closes(venue_with(rule), 6, len(seen)) == seen


def test_a_frozen_topic_still_answers_pings():
    async def run() -> Any:
        venue = venue_with(FaultRule(Fault.FREEZE, "kline.*"))
        async with venue, connect(venue.public_url) as socket:
            await listen(socket)
            await venue.step(3)
            await socket.send(json.dumps({"op": "ping"}))
            return await receive(socket)

    assert asyncio.run(run())["ret_msg"] == "pong"


def test_a_skipped_candle_is_missing_over_rest_too_until_it_comes():
    async def talk(client: Client) -> list[list[int]]:
        async with connect(client.venue.public_url) as socket:
            await listen(socket)
            seen = []
            for _ in range(3):
                await client.venue.step()
                reply = await client.get("market/kline", category="linear", symbol="BTCUSDT", interval="60")
                seen.append([(int(row[0]) - T0) // HOUR_MS for row in reversed(reply["result"]["list"])])
            return seen

    for_ever = play(venue_with(FaultRule(Fault.SKIP, KLINE, times=1)), talk)
    for_a_while = play(venue_with(FaultRule(Fault.SKIP, KLINE, times=1, bars_late=2)), talk)
    assert for_ever == [[1], [1, 2], [1, 2, 3]]
    assert for_a_while == [[1], [1, 2], [0, 1, 2, 3]]


def test_sockets_break_before_a_push_or_at_every_so_manieth_close():
    async def run(rule: FaultRule) -> int:
        venue = venue_with(rule)
        async with venue, connect(venue.public_url) as socket:
            await listen(socket)
            await venue.step(6)
            count = 0
            with pytest.raises(ConnectionClosed):
                while True:
                    await receive(socket)
                    count += 1
            return count

    assert asyncio.run(run(FaultRule(Fault.CUT, KLINE, after=2))) == 2
    assert asyncio.run(run(FaultRule(Fault.CUT, CLOSE, every=4))) == 3


def test_a_request_is_refused_by_status_code_or_page_before_it_is_carried_out():
    rules = [
        FaultRule(Fault.ANSWER, "POST /v5/order/create", times=1, code=10006),
        FaultRule(Fault.ANSWER, "POST /v5/order/create", times=1, code=10016),
    ]

    async def talk(client: Client) -> Any:
        codes = [(await client.order("Buy", "1"))["retCode"] for _ in range(3)]
        return codes, (await client.position())["size"]

    assert play(venue_with(*rules), talk) == ([10006, 10016, 0], "1.000")


@pytest.mark.parametrize("status", [403, 429, 502, 503])
def test_an_http_status_comes_with_a_page_of_html(status):
    async def talk(client: Client) -> Any:
        async with client.session.get(f"{client.venue.rest_url}/v5/market/time") as response:
            return response.status, response.content_type

    rule = FaultRule(Fault.ANSWER, "GET /v5/market/*", status=status)
    assert play(venue_with(rule), talk) == (status, "text/html")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (FaultRule(Fault.LOSE, "POST /v5/order/create", times=1), "broken"),
        (FaultRule(Fault.LOSE, "POST /v5/order/create", times=1, status=502), "page"),
        (FaultRule(Fault.LOSE, "POST /v5/order/create", times=1, code=10000), 10000),
        (FaultRule(Fault.CORRUPT, "POST /v5/order/create", times=1), "garbage"),
        (FaultRule(Fault.DUPLICATE, "POST /v5/order/create", times=1), 0),
    ],
)
def test_an_order_whose_reply_is_lost_has_been_accepted_all_the_same_and_only_once(rule, told):
    async def talk(client: Client) -> Any:
        try:
            first: Any = (await client.order("Buy", "1", orderLinkId="x"))["retCode"]
        except aiohttp.ContentTypeError:
            first = "page"
        except aiohttp.ClientError:
            first = "broken"
        except ValueError:
            first = "garbage"
        again = await client.order("Buy", "1", orderLinkId="x")
        return first, again["retCode"], (await client.position())["size"]

    assert play(venue_with(rule), talk) == (told, 110072, "1.000")


def test_a_request_that_is_dropped_was_never_carried_out():
    async def talk(client: Client) -> Any:
        with pytest.raises(aiohttp.ClientError):
            await client.order("Buy", "1", orderLinkId="x")
        return (await client.order("Buy", "1", orderLinkId="x"))["retCode"]

    assert play(venue_with(FaultRule(Fault.DROP, "POST /v5/order/create", times=1)), talk) == 0


def test_a_reply_that_is_late_is_late_after_the_order_was_carried_out():
    async def run() -> Any:
        venue = venue_with(FaultRule(Fault.DELAY, "POST /v5/order/create", seconds=0.2))
        async with client_of(venue) as client, private_socket(venue, "execution") as socket:
            reply = asyncio.create_task(client.order("Buy", "1"))
            (fill,) = await pushed(socket, 1)
            return reply.done(), fill[0], (await reply)["retCode"]

    assert asyncio.run(run()) == (False, "execution", 0)


def test_a_list_leaves_out_rows():
    async def talk(client: Client) -> Any:
        await client.placed("Buy", "1")
        hidden = await client.get("order/history", category="linear")
        known = await client.get("order/history", category="linear")
        return len(hidden["result"]["list"]), len(known["result"]["list"])

    assert play(venue_with(FaultRule(Fault.OMIT, "GET /v5/order/history", times=1)), talk) == (0, 1)


def test_executions_are_pushed_some_closes_late_and_rest_knows_them_at_once():
    async def run() -> Any:
        venue = venue_with(FaultRule(Fault.DELAY, "execution", bars_late=2))
        async with client_of(venue) as client, private_socket(venue, "execution", "wallet") as socket:
            await client.placed("Buy", "1")
            known = (await client.get("execution/list", category="linear"))["result"]["list"]
            order = [await pushed(socket, 1)]
            await venue.step(2)
            order.append(await pushed(socket, 1))
            return len(known), [rows[0][0] for rows in order], venue.faults_struck

    assert asyncio.run(run()) == (1, ["wallet", "execution"], 1)


def test_the_clock_is_skewed_and_closed_orders_are_forgotten_at_a_close():
    rules = (
        FaultRule(Fault.SKEW, CLOSE, first=1, times=1, milliseconds=-3000),
        FaultRule(Fault.RESTART, CLOSE, first=2, times=1),
    )

    async def talk(client: Client) -> Any:
        order = await client.placed("Buy", "1")
        await client.venue.step()
        time = (await client.get("market/time"))["time"]
        early = (await client.get("account/info"))["retCode"]
        client.venue.clock.skew_ms = 0
        await client.venue.step()
        known = await client.get("order/realtime", category="linear", orderId=order)
        return time, early, known["result"]["list"]

    assert play(venue_with(*rules), talk) == (T0 + HOUR_MS - 3000, 10002, [])


def test_a_seed_plays_the_same_again_and_another_one_does_not():
    rule = FaultRule(Fault.DROP, "*", chance=0.3)

    def struck(seed: int) -> list[bool]:
        injector = FaultInjector(FaultPlan((rule,), seed))
        return [injector.strike(KLINE, OF_PUSHES) is not None for _ in range(200)]

    assert struck(1) == struck(1)
    assert struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90


def test_what_happens_to_one_topic_does_not_depend_on_the_others():
    rule = FaultRule(Fault.DROP, "*", chance=0.5)
    alone, mixed = FaultInjector(FaultPlan((rule,), 5)), FaultInjector(FaultPlan((rule,), 5))
    apart = [alone.strike("order", OF_PUSHES) is None for _ in range(50)]
    among = []
    for number in range(50):
        for _ in range(number % 3):
            mixed.strike("position", OF_PUSHES)
        among.append(mixed.strike("order", OF_PUSHES) is None)
    assert apart == among


def test_a_plan_is_read_from_toml(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        'seed = 7\n[[fault]]\ndo = "drop"\non = "kline.*"\nchance = 1\n[[fault]]\ndo = "cut"\non = "close"\nevery = 20\n'
    )
    plan = FaultPlan.read(path)
    assert plan.seed == 7
    assert plan.rules == (FaultRule(Fault.DROP, "kline.*"), FaultRule(Fault.CUT, CLOSE, every=20))


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"faults": []}, "the plan has 'faults'"),
        ({"seed": "7"}, "seed '7'"),
        ({"fault": {}}, "must be a list"),
        ({"fault": ["drop"]}, "fault 1 must be a table"),
        ({"fault": [{"do": "explode"}]}, "fault 1: do must be one of"),
        ({"fault": [{"do": "drop", "where": "x"}]}, "fault 1 has 'where'"),
        ({"fault": [{"do": "drop", "chance": "often"}]}, "chance was 'often'"),
        ({"fault": [{"do": "drop", "times": True}]}, "times was True"),
        ({"fault": [{"do": "drop", "chance": 2}]}, "chance 2 must be between 0 and 1"),
        ({"fault": [{"do": "drop", "every": 0}]}, "every at least 1"),
        ({"fault": [{"do": "drop", "on": "close"}]}, 'drop is on "close" or on'),
        ({"fault": [{"do": "skew", "on": "order"}]}, 'skew is on "close" or on'),
        ({"fault": [{"do": "answer"}]}, "needs a status, a code or html"),
        ({"fault": [{"do": "answer", "status": 7}]}, "no HTTP status"),
        ({"fault": [{"do": "delay"}]}, "needs bars_late or seconds"),
    ],
)
def test_a_plan_that_is_not_understood_is_refused_with_the_reason(document, text):
    with pytest.raises(ValueError, match=text):
        FaultPlan.of(document)


def test_faults_are_planted_over_the_control_interface():
    async def talk(client: Client) -> Any:
        root = client.venue.control_url
        plan = {"fault": [{"do": "answer", "on": "GET /v5/account/info", "code": 10016}]}
        async with client.session.post(f"{root}/faults", json=plan) as response:
            planted = response.status
        async with client.session.post(f"{root}/faults", json={"fault": [{"do": "x"}]}) as response:
            refused = response.status
        async with client.session.post(f"{root}/skew", json={"milliseconds": 40}) as response:
            skewed = (await response.json())["clock_skew_ms"]
        async with client.session.post(f"{root}/restart", json={}) as response:
            return planted, refused, skewed, response.status, (await client.get("account/info"))["retCode"]

    assert play(trading_venue(), talk) == (200, 400, 40, 200, 10016)


def test_a_client_whose_subscription_is_never_answered_connects_again() -> None:
    async def run() -> StreamConnected:
        venue = venue_with(FaultRule(Fault.DROP, "subscribe", times=1))
        async with (
            venue,
            KlineStream(venue.public_url, ["BTCUSDT"], "60", silence_timeout_s=0.3) as stream,
            asyncio.timeout(20),
        ):
            return await anext(event async for event in stream if isinstance(event, StreamConnected))

    assert asyncio.run(run()).attempt == 2
