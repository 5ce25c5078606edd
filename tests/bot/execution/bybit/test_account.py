"""The signed client and the private stream against the sandbox, over real sockets, with faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from backtest.sandbox.faults import Fault, FaultPlan, FaultRule
from backtest.sandbox.keys import ApiKey
from backtest.sandbox.venue import SandboxVenue
from bot.errors import VenueError
from bot.execution.bybit.client import BybitAccount, Credentials, Refused
from bot.execution.bybit.codes import Action
from bot.execution.bybit.decode import VenueExecution, VenueOrder, VenueOrderStatus, VenuePosition
from bot.market.backoff import Backoff
from bot.market.bybit_private_stream import PrivateConnected, PrivateDisconnected, PrivateStream
from bot.orders import Order, OrderType, Side
from tests.backtest.sandbox.client import KEY, trading_venue
from tests.bot.market.scenes import T0

AT_ONCE = Backoff(first_s=0.01, base_s=0.01, limit_s=0.02)


def plan(**rule: Any) -> FaultPlan:
    return FaultPlan(rules=(FaultRule(**rule),))


def market(name: str, side: Side = Side.BUY, quantity: str = "1", **more: Any) -> Order:
    return Order(name, "BTCUSDT", side, Decimal(quantity), T0, T0, **more)


@asynccontextmanager
async def account_at(venue: SandboxVenue, key: ApiKey = KEY, **more: Any) -> AsyncIterator[BybitAccount]:
    async with venue:
        account = BybitAccount(Credentials(key.key, key.secret), venue.rest_url, timeout_s=2.0, backoff=AT_ONCE, **more)
        try:
            yield account
        finally:
            account.close()


def play(venue: SandboxVenue, talk: Callable[[BybitAccount], Awaitable[Any]], **more: Any) -> Any:
    async def run() -> Any:
        async with account_at(venue, **more) as account:
            await account.synchronise()
            return await talk(account)

    return asyncio.run(run())


async def sent_and_counted(account: BybitAccount) -> Any:
    sent = await account.send(market("mine"))
    return sent, await account.executions(T0 - 1000), await account.positions()


@pytest.mark.parametrize(
    "faults",
    [
        FaultPlan(),
        plan(do=Fault.LOSE, on="POST /v5/order/create", times=1),
        plan(do=Fault.LOSE, on="POST /v5/order/create", times=1, status=502),
        plan(do=Fault.LOSE, on="POST /v5/order/create", times=1, code=10016),
        plan(do=Fault.LOSE, on="POST /v5/order/create", times=1, code=10000),
        plan(do=Fault.DROP, on="POST /v5/order/create", times=2),
        plan(do=Fault.CORRUPT, on="POST /v5/order/create", times=1),
        plan(do=Fault.DUPLICATE, on="POST /v5/order/create", times=1),
        plan(do=Fault.ANSWER, on="POST /v5/order/create", times=2, code=10006),
        plan(do=Fault.ANSWER, on="POST /v5/order/create", times=1, code=10002),
        plan(do=Fault.ANSWER, on="POST /v5/order/create", times=1, status=503, html=True),
    ],
    ids=["nothing", "lost", "lost-502", "10016", "10000", "dropped", "cut-off", "twice", "limit", "clock", "page"],
)
def test_an_order_is_there_exactly_once_whatever_happens_to_its_request(faults):
    sent, executions, positions = play(trading_venue(faults=faults), sent_and_counted)
    assert sent.is_accepted, sent
    assert [(fill.client_order_id, fill.quantity) for fill in executions] == [("mine", 1)]
    assert [(position.symbol, position.quantity) for position in positions] == [("BTCUSDT", 1)]


def test_the_same_order_sent_again_after_a_crash_is_found_not_doubled():
    async def talk(account: BybitAccount) -> Any:
        return await account.send(market("mine")), await account.send(market("mine")), await account.positions()

    first, second, positions = play(trading_venue(), talk)
    assert (second.action, second.order_id) == (Action.ACCEPT, first.order_id)
    assert positions[0].quantity == 1


def test_an_order_that_the_venue_never_answers_stays_unknown_and_is_not_called_refused():
    faults = plan(do=Fault.LOSE, on="*order*", status=502)
    sent = play(trading_venue(faults=faults), lambda account: account.send(market("mine")), attempts=2)
    assert sent.action is Action.LOOK_UP


@pytest.mark.parametrize("code", [110007, 10006, 10001])
def test_a_refusal_after_an_attempt_that_may_have_arrived_is_not_believed(code: int) -> None:
    rules = (
        FaultRule(do=Fault.LOSE, on="POST /v5/order/create", times=1, status=502),
        FaultRule(do=Fault.OMIT, on="GET /v5/order/*", times=2, keep=0),
        FaultRule(do=Fault.ANSWER, on="POST /v5/order/create", after=1, times=1, code=code),
    )
    sent, executions, _ = play(trading_venue(faults=FaultPlan(rules=rules)), sent_and_counted)
    assert (sent.action, sent.attempts, len(executions)) == (Action.ACCEPT, 2, 1), sent


def test_a_ban_of_the_address_is_answered_by_one_request_only() -> None:
    venue = trading_venue(faults=plan(do=Fault.ANSWER, on="POST /v5/*", status=403))

    async def talk(account: BybitAccount) -> Any:
        sent = await account.send(market("mine"))
        with pytest.raises(Refused) as caught:
            await account.set_leverage("BTCUSDT", Decimal(3))
        return sent, caught.value

    sent, refused = play(venue, talk)
    assert (sent.action, sent.attempts, refused.action) == (Action.STAND_DOWN, 1, Action.STAND_DOWN)


@pytest.mark.parametrize(
    ("order", "action"),
    [
        (market("big", quantity="50"), Action.STAND_DOWN),
        (market("out", side=Side.SELL, reduce_only=True), Action.REFUSE),
    ],
)
def test_a_refusal_for_good_is_told_and_not_repeated(order, action):
    sent = play(trading_venue(balance=Decimal(10)), lambda account: account.send(order))
    assert (sent.action, sent.attempts) == (action, 1), sent


def test_protective_levels_are_on_the_venue_from_the_entry_on_and_can_be_repaired():
    async def talk(account: BybitAccount) -> Any:
        await account.send(market("mine", stop_loss=Decimal(90), take_profit=Decimal(120)))
        (before,) = await account.positions()
        await account.set_stops("BTCUSDT", Decimal(95), None)
        (after,) = await account.positions()
        return before, after

    before, after = play(trading_venue(), talk)
    assert (before.stop_loss, before.take_profit) == (90, 120)
    assert (after.stop_loss, after.take_profit) == (95, None)


def test_a_cancelled_order_is_looked_up_and_a_second_cancellation_does_no_harm():
    async def talk(account: BybitAccount) -> Any:
        await account.send(market("mine", order_type=OrderType.LIMIT, limit_price=Decimal(90)))
        opened = await account.open_orders()
        return opened, await account.cancel("BTCUSDT", "mine"), await account.cancel("BTCUSDT", "mine")

    opened, once, twice = play(trading_venue(), talk)
    assert [order.client_order_id for order in opened] == ["mine"]
    assert once.status is twice.status is VenueOrderStatus.CANCELLED


def test_leverage_that_is_so_already_is_no_error():
    async def talk(account: BybitAccount) -> Any:
        await account.set_leverage("BTCUSDT", Decimal(3))
        await account.set_leverage("BTCUSDT", Decimal(3))
        return await account.position_rows("BTCUSDT")

    (row,) = play(trading_venue(), talk)
    assert row.leverage == 3


def test_a_wrong_key_is_named_with_its_fix_and_nothing_secret_is_in_the_message(capfd):
    async def talk(account: BybitAccount) -> Any:
        with pytest.raises(VenueError) as caught:
            await account.wallet()
        return caught.value, await account.send(market("mine")), repr(account.__dict__)

    error, sent, shown = play(trading_venue(), talk, key=ApiKey("trader", "wrong-secret-of-mine"))
    assert "RECALL_LIVE__API_KEY" in str(error)
    assert sent.action is Action.STOP
    told = "".join((str(error), str(sent), shown, *capfd.readouterr()))
    assert "wrong-secret-of-mine" not in told


async def until(stream: PrivateStream, kind: type, count: int = 1) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(10):
        async for event in stream:
            found += [event] if isinstance(event, kind) else []
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


def test_the_private_stream_tells_fills_orders_and_positions_and_comes_back_after_a_cut():
    async def run() -> Any:
        venue = trading_venue()
        async with account_at(venue) as account:
            stream = PrivateStream(venue.private_url, KEY.key, KEY.secret, backoff=AT_ONCE)
            async with stream:
                await until(stream, PrivateConnected)
                await account.send(market("first"))
                executions = await until(stream, VenueExecution)
                orders, positions = await until(stream, VenueOrder), await until(stream, VenuePosition)
                venue.drop_connections()
                await until(stream, PrivateDisconnected)
                (again,) = await until(stream, PrivateConnected)
                await account.send(market("second"))
                return executions, orders, positions, again, await until(stream, VenueExecution)

    executions, orders, positions, again, more = asyncio.run(run())
    assert [fill.client_order_id for fill in executions + more] == ["first", "second"]
    assert (orders[0].status, positions[0].quantity) == (VenueOrderStatus.FILLED, 1)
    assert again.attempt == 2


def test_a_login_that_is_refused_is_told_as_such():
    async def run() -> Any:
        venue = trading_venue()
        async with venue, PrivateStream(venue.private_url, KEY.key, "not-the-secret", backoff=AT_ONCE) as stream:
            return (await until(stream, PrivateDisconnected))[0]

    told = asyncio.run(run())
    assert told.refused
    assert "refused auth" in told.reason
    assert "not-the-secret" not in told.reason
