"""Who may ask the sandbox for private things: keys, signatures and timestamps, with Bybit's codes."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from backtest.sandbox.keys import ApiKey
from strategies.bars import HOUR_MS
from tests.backtest.sandbox.client import KEY, Client, client_of, log_in, receive, signature, trading_venue
from tests.bot.market.scenes import T0

PATH = "account/info"


async def raw(client: Client, headers: dict[str, str], path: str = PATH) -> dict[str, Any]:
    async with client.session.get(f"{client.venue.rest_url}/v5/{path}", headers=headers) as response:
        assert response.status == 200
        return await response.json()


def asked(headers: Any, **venue: Any) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with client_of(trading_venue(**venue)) as client:
            return await raw(client, headers(client))

    return asyncio.run(run())


def test_a_signed_request_is_answered_and_tells_its_limit():
    async def run() -> tuple[Any, Any]:
        async with client_of(trading_venue()) as client:
            return await client.get(PATH), client.headers[-1]

    reply, headers = asyncio.run(run())
    assert (reply["retCode"], reply["result"]["marginMode"]) == (0, "REGULAR_MARGIN")
    assert (headers["X-Bapi-Limit"], headers["X-Bapi-Limit-Status"]) == ("50", "49")
    assert headers["X-Bapi-Limit-Reset-Timestamp"].isdecimal()


def test_a_request_without_its_headers_names_them():
    reply = asked(lambda client: {"X-BAPI-SIGN": "00"})
    assert reply["retCode"] == 10001
    assert reply["retMsg"] == "empty value: apiTimestamp[] apiKey[] apiSignature[xxx]: openapi sign params error!"


@pytest.mark.parametrize(("ahead_ms", "code"), [(0, 0), (900, 0), (30_000, 10002), (-4_000, 0), (-6_000, 10002)])
def test_a_timestamp_may_lie_a_window_back_and_less_than_a_second_ahead(ahead_ms, code):
    # A market in the far future, so that only the clock on the wall can make the request one in time.
    def headers(client: Client) -> dict[str, str]:
        client.venue.clock.skew_ms = 1
        return client.signed("", stamp=str(int(time.time() * 1000) + ahead_ms))

    reply = asked(headers)
    assert reply["retCode"] == code
    if code:
        assert reply["retMsg"].startswith("invalid request, please check your server timestamp or recv_window param.")
        assert "recv_window[5000]" in reply["retMsg"]


def test_a_client_that_takes_the_time_of_a_stepped_market_is_never_late_but_may_be_early():
    async def run() -> list[int]:
        async with client_of(trading_venue()) as client:
            await client.venue.step(5)
            now = client.venue.clock.now()
            stamps = (T0, now, now + 999, now + 1000)
            return [(await raw(client, client.signed("", stamp=str(stamp))))["retCode"] for stamp in stamps]

    assert asyncio.run(run()) == [0, 0, 0, 10002]


def test_a_clock_that_is_skewed_refuses_whoever_has_not_asked_it():
    async def run() -> list[int]:
        async with client_of(trading_venue()) as client:
            client.venue.clock.skew_ms = -3000
            wrong = (await client.get(PATH))["retCode"]
            now = (await client.get("market/time"))["time"]
            right = (await raw(client, client.signed("", stamp=str(now - 300))))["retCode"]
            return [wrong, right, now]

    assert asyncio.run(run()) == [10002, 0, T0 - 3000]


def test_an_unknown_key_a_wrong_secret_an_expired_key_and_a_foreign_address_have_their_own_codes():
    bound = ApiKey("bound", "s", addresses=("10.0.0.1",))
    old = ApiKey("old", "s", expires_at=T0 - HOUR_MS)

    async def run() -> list[tuple[int, str]]:
        async with client_of(trading_venue(keys=(KEY, bound, old))) as client:
            replies = []
            for key in (ApiKey("nobody", "s"), ApiKey(KEY.key, "wrong"), old, bound):
                reply = await Client(client.venue, client.session, key).get(PATH)
                replies.append((reply["retCode"], reply["retMsg"]))
            return replies

    unknown, wrong, expired, foreign = asyncio.run(run())
    assert unknown == (10003, "API key is invalid.")
    assert wrong[0] == 10004
    assert wrong[1].startswith("error sign! origin_string[")
    assert "wrong" not in wrong[1]
    assert expired == (33004, "Your api key has expired.")
    assert foreign == (10010, "Unmatched IP, please check your API key's bound IP addresses.")


def test_the_signature_covers_the_exact_bytes_that_were_sent():
    async def run() -> list[int]:
        async with client_of(trading_venue()) as client:
            body = '{"category": "linear",   "symbol": "BTCUSDT", "buyLeverage": "3", "sellLeverage": "3"}'
            url = f"{client.venue.rest_url}/v5/position/set-leverage"
            codes = []
            for signed, sent in ((body, body.replace("   ", " ")), (body, body)):
                async with client.session.post(url, data=sent, headers=client.signed(signed)) as response:
                    codes.append((await response.json())["retCode"])
            return codes

    assert asyncio.run(run()) == [10004, 0]


def test_a_key_that_may_only_look_or_lacks_the_right_cannot_trade():
    looker = replace(KEY, key="looker", read_only=True)
    poor = replace(KEY, key="poor", permissions={"ContractTrade": ("Position",)})

    async def run() -> list[int]:
        async with client_of(trading_venue(keys=(looker, poor))) as client:
            codes = []
            for key in (looker, poor):
                hand = Client(client.venue, client.session, key)
                codes.append((await hand.get("position/list", category="linear", symbol="BTCUSDT"))["retCode"])
                codes.append((await hand.order("Buy", "1"))["retCode"])
            return codes

    assert asyncio.run(run()) == [0, 10005, 0, 10005]


def test_query_api_tells_the_rights_of_the_key_that_asks_and_never_its_secret():
    key = ApiKey(
        "w", "hidden", permissions={"Wallet": ("Withdraw",)}, addresses=("127.0.0.1",), expires_at=T0 + HOUR_MS
    )

    async def run() -> Any:
        async with client_of(trading_venue(keys=(key,)), key) as client:
            return await client.get("user/query-api")

    reply = asyncio.run(run())
    result = reply["result"]
    assert (result["apiKey"], result["readOnly"], result["ips"]) == ("w", 0, ["127.0.0.1"])
    assert result["permissions"]["Wallet"] == ["Withdraw"]
    assert result["permissions"]["ContractTrade"] == []
    assert result["expiredAt"] == "2024-10-04T01:00:00Z"
    assert "hidden" not in json.dumps(reply)


def test_a_venue_without_an_account_knows_no_private_route():
    from backtest.sandbox.clock import ClockSetting
    from backtest.sandbox.venue import SandboxVenue
    from tests.backtest.sandbox.client import level

    async def run() -> Any:
        venue = SandboxVenue({"BTCUSDT": level(100.0)}, "60", ClockSetting.stepped())
        async with client_of(venue) as client, client.session.get(f"{venue.rest_url}/v5/{PATH}") as response:
            return response.status, (await response.json())["retCode"]

    assert asyncio.run(run()) == (404, 10017)


@pytest.mark.parametrize(
    ("key", "late_ms", "text"),
    [
        (ApiKey("nobody", "s"), 0, "API key is invalid."),
        (ApiKey(KEY.key, "wrong"), 0, "Error sign"),
        (KEY, 10**10, "expires"),
    ],
)
def test_a_login_that_is_wrong_is_refused_and_its_socket_closed(key, late_ms, text):
    async def run() -> Any:
        venue = trading_venue()
        async with venue, connect(venue.private_url) as socket:
            venue.clock.skew_ms = 1
            expires = int(time.time() * 1000) + 10_000 - late_ms
            if late_ms:
                expires = T0 - late_ms
            sign = signature(key.secret, f"GET/realtime{expires}")
            await socket.send(json.dumps({"op": "auth", "args": [key.key, expires, sign]}))
            answer = await receive(socket)
            with pytest.raises(ConnectionClosed):
                await receive(socket)
            return answer

    answer = asyncio.run(run())
    assert (answer["success"], answer["op"]) == (False, "auth")
    assert text in answer["ret_msg"]


def test_a_login_lets_a_socket_subscribe_and_none_does_not():
    async def run() -> list[Any]:
        venue = trading_venue()
        async with venue, connect(venue.private_url) as socket:
            await socket.send(json.dumps({"op": "subscribe", "args": ["order"]}))
            before = await receive(socket)
            await log_in(socket)
            login = await receive(socket)
            answers = []
            for topics in (["order.linear", "position.linear"], ["order", "wallet.linear"], ["nothing"], ["order"]):
                await socket.send(json.dumps({"op": "subscribe", "args": topics, "req_id": "r"}))
                answers.append(await receive(socket))
            await socket.send(json.dumps({"op": "ping", "req_id": "p"}))
            return [before, login, *answers, await receive(socket)]

    before, login, one, mixed, unknown, same, pong = asyncio.run(run())
    assert not before["success"]
    assert {name: login[name] for name in ("success", "ret_msg", "op")} == {
        "success": True,
        "ret_msg": "",
        "op": "auth",
    }
    assert [one["success"], mixed["success"], unknown["success"], same["success"]] == [True, False, False, True]
    assert unknown["ret_msg"] == "error:handler not found,topic:nothing"
    assert (pong["op"], pong["req_id"], pong["args"]) == ("pong", "p", [str(T0)])
