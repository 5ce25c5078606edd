"""Orders over the websocket trade interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from backtest.sandbox.faults import Fault, FaultPlan, FaultRule
from backtest.sandbox.keys import ApiKey
from backtest.sandbox.venue import SandboxVenue
from tests.backtest.sandbox.client import KEY, client_of, log_in, receive, trading_venue
from tests.bot.market.scenes import T0

ORDER = {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "1"}


@asynccontextmanager
async def trading(venue: SandboxVenue, key: ApiKey = KEY) -> AsyncIterator[ClientConnection]:
    async with connect(venue.trade_url) as socket:
        await log_in(socket, key)
        assert (await receive(socket))["retCode"] == 0
        yield socket


async def operate(socket: ClientConnection, operation: str, name: str = "", stamp: int = T0, **order: Any) -> Any:
    header = {"X-BAPI-TIMESTAMP": str(stamp), "X-BAPI-RECV-WINDOW": "5000"}
    await socket.send(json.dumps({"reqId": name, "header": header, "op": operation, "args": [order]}))
    return await receive(socket)


def test_orders_are_made_changed_and_cancelled_as_over_rest():
    async def run() -> Any:
        venue = trading_venue()
        async with client_of(venue) as client, trading(venue) as socket:
            limit = {**ORDER, "orderType": "Limit", "price": "90", "orderLinkId": "a"}
            named = {"category": "linear", "symbol": "BTCUSDT", "orderLinkId": "a"}
            made = await operate(socket, "order.create", "1", **limit)
            changed = await operate(socket, "order.amend", "2", **named, qty="3")
            shown = await client.shown(made["data"]["orderId"])
            cancelled = await operate(socket, "order.cancel", "3", **named)
            gone = await operate(socket, "order.cancel", "4", **named)
            return made, changed, shown, cancelled, gone

    made, changed, shown, cancelled, gone = asyncio.run(run())
    assert [one["retCode"] for one in (made, changed, cancelled, gone)] == [0, 0, 0, 110001]
    assert (made["op"], made["reqId"], made["header"]["X-Bapi-Limit"]) == ("order.create", "1", "10")
    assert shown["qty"] == "3.000"
    assert (gone["retMsg"], gone["data"]) == ("order not exists or too late to cancel", {})


def test_a_socket_must_log_in_once_and_name_each_request_once():
    reader = replace(KEY, key="reader", read_only=True)

    async def run() -> Any:
        venue = trading_venue(keys=(KEY, reader))
        async with venue:
            async with connect(venue.trade_url) as socket:
                stranger = await operate(socket, "order.create", "1", **ORDER)
            async with trading(venue, reader) as socket:
                poor = await operate(socket, "order.create", "1", **ORDER)
            async with trading(venue) as socket:
                await log_in(socket)
                again = await receive(socket)
                await operate(socket, "order.create", "1", **ORDER)
                codes = [
                    (await operate(socket, "order.create", "1", **ORDER))["retCode"],
                    (await operate(socket, "order.dance", "2", **ORDER))["retCode"],
                    (await operate(socket, "order.create", "x" * 37, **ORDER))["retCode"],
                    (await operate(socket, "order.create", "3", stamp=T0 + 1000, **ORDER))["retCode"],
                ]
                await socket.send("garbage")
                return stranger, poor, again, codes, await receive(socket)

    stranger, poor, again, codes, garbage = asyncio.run(run())
    assert stranger["retCode"] == 10003
    assert (poor["retCode"], poor["retMsg"]) == (10005, "Permission denied for current apikey")
    assert {"header", "data"}.isdisjoint(poor)
    assert again["retCode"] == 20001
    assert codes == [20006, 10404, 10001, 10002]
    assert garbage["retCode"] == 10001


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (FaultRule(Fault.ANSWER, "order.create", code=10016), "0"),
        (FaultRule(Fault.LOSE, "order.create", code=10000), "1.000"),
    ],
)
def test_a_planned_code_is_told_before_or_after_the_order_was_carried_out(rule, size):
    async def run() -> Any:
        venue = trading_venue()
        venue.plant(FaultPlan((rule,)))
        async with client_of(venue) as client, trading(venue) as socket:
            reply = await operate(socket, "order.create", "1", **ORDER)
            return reply["retCode"], (await client.position())["size"]

    assert asyncio.run(run()) == (rule.code, size)


def test_limits_are_shared_with_rest():
    async def run() -> Any:
        venue = trading_venue(enforce_limits=True)
        async with client_of(venue) as client, trading(venue) as socket:
            codes = [(await client.order("Buy", "0.1"))["retCode"] for _ in range(8)]
            codes += [(await operate(socket, "order.create", str(n), **ORDER))["retCode"] for n in range(3)]
            return codes

    assert asyncio.run(run()) == [0] * 10 + [10006]
