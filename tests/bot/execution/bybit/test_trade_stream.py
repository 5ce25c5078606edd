"""Orders over the trade socket against the sandbox: each is there once, whatever happens to its request or its socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from backtest.sandbox.faults import Fault, FaultPlan, FaultRule
from backtest.sandbox.keys import ApiKey
from backtest.sandbox.venue import SandboxVenue
from bot.execution.bybit.client import BybitAccount, Credentials, Refused
from bot.execution.bybit.codes import Action
from bot.execution.bybit.decode import VenueOrderStatus
from bot.execution.bybit.order_entry import NotWritten, Operation
from bot.execution.bybit.trade_stream import TradeStream
from bot.orders import OrderType
from tests.backtest.sandbox.client import KEY, trading_venue
from tests.bot.execution.bybit.test_account import AT_ONCE, account_at, market
from tests.bot.market.scenes import T0

CREDENTIALS = Credentials(KEY.key, KEY.secret)
CREATE_OVER_REST = "POST /v5/order/create"


def rule(**values: Any) -> FaultRule:
    return FaultRule(**{"on": "order.create", "times": 1, **values})


NO_REST = FaultRule(do=Fault.ANSWER, on=CREATE_OVER_REST, code=10001)
"""Orders over REST are refused: what is filled came over the socket."""


@asynccontextmanager
async def trading_at(
    venue: SandboxVenue, key: ApiKey = KEY, *, connected: bool = True, answer_timeout_s: float = 0.3, **more: Any
) -> AsyncIterator[tuple[BybitAccount, TradeStream]]:
    async with account_at(venue, key, **more) as account:
        await account.synchronise()
        stream = TradeStream(
            venue.trade_url,
            Credentials(key.key, key.secret),
            account.stamp,
            answer_timeout_s=answer_timeout_s,
            backoff=AT_ONCE,
        )
        async with stream:
            account.entry = stream
            if connected:
                async with asyncio.timeout(5):
                    await stream.logged_in()
            yield account, stream


def play(venue: SandboxVenue, talk: Callable[[BybitAccount, TradeStream], Awaitable[Any]], **more: Any) -> Any:
    async def run() -> Any:
        async with trading_at(venue, **more) as (account, stream):
            return await talk(account, stream)

    return asyncio.run(run())


async def sent_and_counted(account: BybitAccount, _: TradeStream) -> Any:
    sent = await account.send(market("mine"))
    return sent, await account.executions(T0 - 1000), await account.positions()


@pytest.mark.parametrize(
    "faults",
    [
        (),
        (rule(do=Fault.LOSE),),
        (rule(do=Fault.LOSE, code=10016),),
        (rule(do=Fault.LOSE, code=10000),),
        (rule(do=Fault.DROP),),
        (rule(do=Fault.CORRUPT),),
        (rule(do=Fault.DUPLICATE),),
        (rule(do=Fault.ANSWER, code=10006, times=2),),
        (rule(do=Fault.ANSWER, code=10016, times=2),),
        (rule(do=Fault.ANSWER, code=10002),),
        (rule(do=Fault.ANSWER, code=20006),),
        (rule(do=Fault.DELAY, seconds=0.6),),
    ],
    ids=["nothing", "lost", "10016", "10000", "dropped", "cut-off", "twice", "limit", "trouble", "clock", "id", "late"],
)
def test_an_order_over_the_socket_is_there_exactly_once_whatever_happens_to_its_request(
    faults: tuple[FaultRule, ...],
) -> None:
    venue = trading_venue(faults=FaultPlan((NO_REST, *faults)))
    sent, executions, positions = play(venue, sent_and_counted)
    assert sent.is_accepted, sent
    assert [(fill.client_order_id, fill.quantity) for fill in executions] == [("mine", 1)]
    assert [(position.symbol, position.quantity) for position in positions] == [("BTCUSDT", 1)]


def test_a_socket_that_breaks_before_the_order_is_carried_out_leaves_it_to_rest() -> None:
    venue = trading_venue(faults=FaultPlan((rule(do=Fault.CUT),)))
    sent, executions, _ = play(venue, sent_and_counted)
    assert (sent.action, sent.attempts, len(executions)) == (Action.ACCEPT, 2, 1), sent


def test_a_socket_that_breaks_after_the_order_was_carried_out_is_asked_about_by_rest_and_the_order_not_repeated() -> (
    None
):
    venue = trading_venue(faults=FaultPlan((NO_REST, rule(do=Fault.DELAY, seconds=5.0))))

    async def talk(account: BybitAccount, stream: TradeStream) -> Any:
        sending = asyncio.create_task(account.send(market("mine")))
        while not await account.executions(T0 - 1000):
            await asyncio.sleep(0.01)
        venue.drop_connections()
        return await sending, await account.executions(T0 - 1000)

    sent, executions = play(venue, talk, answer_timeout_s=5)
    assert (sent.action, sent.attempts, len(executions)) == (Action.ACCEPT, 1, 1), sent
    assert "broke" in sent.reason


def test_orders_go_over_rest_while_the_socket_is_away_and_over_the_socket_when_it_is_back() -> None:
    faults = FaultPlan((FaultRule(do=Fault.ANSWER, on=CREATE_OVER_REST, after=1, code=10001),))
    venue = trading_venue(faults=faults)

    async def talk(account: BybitAccount, stream: TradeStream) -> Any:
        venue.drop_connections()
        first = await account.send(market("first"))
        async with asyncio.timeout(5):
            await stream.logged_in()
        return first, await account.send(market("second")), await account.positions(), stream.connections

    first, second, positions, connections = play(venue, talk)
    assert first.is_accepted
    assert second.is_accepted, "REST took one order only"
    assert (positions[0].quantity, connections) == (2, 2)


def test_the_venue_that_restarts_its_trade_service_gets_the_order_over_rest_at_once() -> None:
    venue = trading_venue(faults=FaultPlan((rule(do=Fault.ANSWER, code=10019),)))
    sent, executions, _ = play(venue, sent_and_counted)
    assert (sent.action, sent.attempts, len(executions)) == (Action.ACCEPT, 2, 1), sent


def test_nothing_is_written_by_a_socket_that_is_not_logged_in() -> None:
    venue = trading_venue()

    async def talk(account: BybitAccount, stream: TradeStream) -> Any:
        with pytest.raises(NotWritten):
            await stream.operate(Operation.CREATE, {})
        return await account.send(market("mine"))

    assert play(venue, talk, connected=False).is_accepted


def test_the_same_order_sent_again_after_a_crash_is_found_not_doubled() -> None:
    async def talk(account: BybitAccount, _: TradeStream) -> Any:
        return await account.send(market("mine")), await account.send(market("mine")), await account.positions()

    first, second, positions = play(trading_venue(), talk)
    assert (second.action, second.order_id) == (Action.ACCEPT, first.order_id)
    assert positions[0].quantity == 1


@pytest.mark.parametrize("code", [110007, 10006, 10001])
def test_a_refusal_after_an_attempt_that_may_have_arrived_is_not_believed(code: int) -> None:
    rules = (
        NO_REST,
        rule(do=Fault.LOSE),
        FaultRule(do=Fault.OMIT, on="GET /v5/order/*", times=2, keep=0),
        rule(do=Fault.ANSWER, after=1, code=code),
    )
    sent, executions, _ = play(trading_venue(faults=FaultPlan(rules)), sent_and_counted)
    assert (sent.action, sent.attempts, len(executions)) == (Action.ACCEPT, 2, 1), sent


@pytest.mark.parametrize(
    ("quantity", "more", "action"),
    [("50", {}, Action.STAND_DOWN), ("0.01", {"stop_loss": Decimal(500)}, Action.REFUSE)],
)
def test_a_refusal_for_good_is_told_and_not_repeated(quantity: str, more: dict[str, Any], action: Action) -> None:
    venue = trading_venue(balance=Decimal(10), faults=FaultPlan((NO_REST,)))
    sent = play(venue, lambda account, _: account.send(market("mine", quantity=quantity, **more)), answer_timeout_s=5)
    assert (sent.action, sent.attempts) == (action, 1), sent


def test_an_order_that_the_venue_never_answers_stays_unknown_and_is_not_called_refused() -> None:
    rules = (FaultRule(do=Fault.LOSE, on="order.create"), FaultRule(do=Fault.LOSE, on="*/order/*", status=502))
    sent = play(trading_venue(faults=FaultPlan(rules)), lambda account, _: account.send(market("mine")), attempts=2)
    assert sent.action is Action.LOOK_UP


@pytest.mark.parametrize("fault", [None, Fault.LOSE, Fault.CUT])
def test_an_order_is_cancelled_over_the_socket_too(fault: Fault | None) -> None:
    over_rest = FaultRule(do=Fault.ANSWER, on="POST /v5/order/cancel", code=10001)
    rules = (over_rest,) if fault is None else (FaultRule(do=fault, on="order.cancel", times=1),)

    async def talk(account: BybitAccount, _: TradeStream) -> Any:
        await account.send(market("mine", order_type=OrderType.LIMIT, limit_price=Decimal(90)))
        return await account.cancel("BTCUSDT", "mine")

    cancelled = play(trading_venue(faults=FaultPlan(rules)), talk)
    assert cancelled.status is VenueOrderStatus.CANCELLED


def test_a_key_that_the_venue_does_not_know_never_gets_a_socket_and_its_secret_is_nowhere(capfd: Any) -> None:
    async def talk(account: BybitAccount, stream: TradeStream) -> Any:
        while stream.connections < 2:
            await asyncio.sleep(0.01)
        return await account.send(market("mine")), repr(vars(stream))

    stranger = ApiKey("trader", "wrong-secret-of-mine")
    sent, shown = play(trading_venue(), talk, key=stranger, connected=False)
    assert sent.action is Action.STOP
    assert "wrong-secret-of-mine" not in "".join((shown, str(sent), *capfd.readouterr()))


def test_requests_that_wait_end_when_the_stream_is_closed() -> None:
    async def run() -> Any:
        venue = trading_venue(faults=FaultPlan((FaultRule(do=Fault.LOSE, on="order.create"),)))
        async with trading_at(venue) as (_, stream):
            waiting = asyncio.create_task(stream.operate(Operation.CREATE, {}))
            await asyncio.sleep(0.05)
        with pytest.raises(Refused) as caught:
            await waiting
        return caught.value

    problem = asyncio.run(run())
    assert (problem.action, problem.is_ambiguous) == (Action.LOOK_UP, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
REPLY = st.fixed_dictionaries(
    {},
    optional={
        "reqId": st.just("1") | JSON,
        "retCode": st.sampled_from([0, 10006, 10019, 110007]) | JSON,
        "retMsg": JSON,
        "op": st.sampled_from(["order.create", "pong", "auth"]) | JSON,
        "data": JSON,
        "header": st.dictionaries(st.just("X-Bapi-Limit-Reset-Timestamp"), JSON) | JSON,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames=st.lists(REPLY.map(json.dumps) | st.text() | st.binary(), max_size=5))
def test_no_frame_kills_the_socket_and_an_answer_is_a_result_or_a_refusal(frames: list[str | bytes]) -> None:
    async def answer(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send('{"retCode":0,"retMsg":"OK","op":"auth","connId":"x"}')
        async for _ in socket:
            for frame in frames:
                await socket.send(frame)
            await socket.send('{"reqId":"1","retCode":0,"retMsg":"OK","op":"order.create","data":{"orderId":"o"}}')

    async def run() -> Any:
        async with serve(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            stream = TradeStream(f"ws://127.0.0.1:{port}", CREDENTIALS, lambda: T0, answer_timeout_s=5, backoff=AT_ONCE)
            async with stream:
                await stream.logged_in()
                try:
                    result = await stream.operate(Operation.CREATE, {})
                except Refused as problem:
                    return problem
                finally:
                    assert stream._task is not None
                    assert not stream._task.done()
                return result

    assert asyncio.run(asyncio.wait_for(run(), 10))
