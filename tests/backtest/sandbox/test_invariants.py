"""Whatever a client sends, the venue refuses or obeys, and its books agree with each other."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from backtest.sandbox.account import AccountSetting
from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.exchange import Exchange
from backtest.sandbox.faults import Fault, FaultPlan, FaultRule
from backtest.sandbox.operations import Operations
from backtest.sandbox.queries import Queries
from backtest.sandbox.records import BookKey, Category, Status
from backtest.sandbox.refusals import VenueRefusal
from backtest.sandbox.sources import StoredBars
from backtest.sandbox.tape import Tape
from strategies.bars import BarSeries
from tests.backtest.sandbox.client import FREE, KEY, RULES, bars_of, client_of, private_socket, receive, trading_venue
from tests.backtest.sandbox.test_market_data import until_pong
from tests.bot.market.scenes import T0

PRICES = st.integers(900, 1100).map(lambda ticks: ticks / 10)
BARS = st.lists(st.tuples(PRICES, PRICES, PRICES, PRICES), min_size=3, max_size=8).map(
    lambda rows: bars_of(*[(o, max(o, h, low, c), min(o, h, low, c), c) for o, h, low, c in rows])
)
TEXTS = st.one_of(
    st.none(), st.text(max_size=6), st.sampled_from(["0", "-1", "1", "100", "1e9", "NaN", "Infinity", "0.001"])
)
NAMES = tuple(
    name
    for line in (
        "category symbol side orderType qty price timeInForce positionIdx reduceOnly closeOnTrigger orderLinkId",
        "triggerPrice triggerDirection triggerBy takeProfit stopLoss tpslMode orderId settleCoin buyLeverage",
        "sellLeverage mode limit cursor",
    )
    for name in line.split()
)
WISHES = st.fixed_dictionaries(
    {
        "side": st.sampled_from(["Buy", "Sell"]),
        "orderType": st.sampled_from(["Market", "Limit"]),
        "qty": st.integers(1, 5).map(str),
        "price": st.integers(90, 110).map(str),
        "timeInForce": st.sampled_from(["GTC", "IOC", "FOK", "PostOnly"]),
        "reduceOnly": st.booleans(),
        "stopLoss": st.sampled_from(["", "", "85", "115"]),
        "takeProfit": st.sampled_from(["", "", "85", "115"]),
        "trigger": st.sampled_from([None, None, ("95", 2), ("105", 1)]),
    }
)


def exchange_of(series: BarSeries) -> tuple[Exchange, Tape]:
    tape = Tape({"BTCUSDT": StoredBars(series)}, "60", ClockSetting.stepped(), T0)
    return Exchange(AccountSetting((KEY,), costs=FREE), {"BTCUSDT": RULES}, tape), tape


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_parameters_of_any_kind_are_refused_or_obeyed(data):
    exchange, _ = exchange_of(bars_of((100, 101, 99, 100), (100, 101, 99, 100)))
    operations, queries = Operations(exchange), Queries(exchange)
    base = {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "1", "price": "90"}
    wild = data.draw(
        st.dictionaries(st.sampled_from(NAMES), st.one_of(TEXTS, st.integers(), st.booleans()), max_size=5)
    )
    parameters = {**base, **wild}
    for handler in (
        operations.create,
        operations.amend,
        operations.cancel,
        operations.cancel_all,
        operations.set_leverage,
        operations.switch_mode,
        operations.trading_stop,
        lambda each: operations.create_batch({**each, "request": [each, wild, "x"]}),
        queries.open_orders,
        queries.order_history,
        queries.executions,
        queries.positions,
        queries.fee_rate,
    ):
        try:
            json.dumps(getattr(handler(parameters), "result", None))
        except VenueRefusal as refusal:
            assert refusal.code > 0 and refusal.message
    for message in exchange.take_messages():
        json.dumps(message.rows)


@given(BARS, st.lists(st.lists(WISHES, max_size=3), min_size=8, max_size=8))
@settings(max_examples=120, deadline=None)
def test_fills_position_wallet_and_orders_agree_after_every_close(series, wishes):
    exchange, tape = exchange_of(series)
    operations, key = Operations(exchange), BookKey(Category.LINEAR, "BTCUSDT")
    for wanted in wishes:
        for wish in wanted:
            order = {name: value for name, value in wish.items() if name != "trigger"}
            if wish["trigger"] is not None:
                order["triggerPrice"], order["triggerDirection"] = wish["trigger"]
            try:
                operations.create({"category": "linear", "symbol": "BTCUSDT", **order})
            except VenueRefusal:
                continue
        for release in tape.release():
            exchange.on_close(release.closed)
        (position,) = exchange.positions("BTCUSDT")
        fills = exchange.records.executions
        held = sum((fill.quantity * fill.side.sign for fill in fills), Decimal(0))
        spent = sum((fill.quantity * fill.side.sign * fill.price + fill.fee for fill in fills), Decimal(0))
        assert position.quantity == held
        (coin,) = exchange.coins()
        equity = Decimal(10_000) - spent + held * position.mark_price
        assert abs(coin.equity - equity) < Decimal("1e-18")
        for order in exchange.records.orders.values():
            own = sum((fill.quantity for fill in fills if fill.order_id == order.order_id), Decimal(0))
            assert order.filled == own <= order.quantity
            assert (order.status is Status.FILLED) == (own == order.quantity)
            assert order.is_open == (order.order_id in exchange.records.open)
        shown = [order for order in exchange.open_orders() if order.stop_order_type in ("StopLoss", "TakeProfit")]
        levels = [level for level in (position.stop_loss, position.take_profit) if level is not None]
        assert sorted(order.trigger_price for order in shown) == sorted(levels)
        assert all(order.quantity == abs(held) and order.side.sign * held < 0 for order in shown), (
            "nothing else is closed"
        )
    assert exchange.positions("BTCUSDT")[0].key == key


@given(st.lists(st.one_of(st.text(max_size=20), st.binary(max_size=20)), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_frames_of_any_kind_leave_a_socket_open(frames):
    async def run() -> None:
        venue = trading_venue()
        async with venue:
            for url in (venue.public_url, venue.private_url, venue.trade_url):
                async with connect(url) as socket:
                    for frame in frames:
                        await socket.send(frame)
                    await socket.send(json.dumps({"op": "ping"}))
                    while "pong" not in json.dumps(await receive(socket)):
                        pass

    asyncio.run(run())


def test_a_plan_of_many_faults_plays_the_same_again_by_its_seed():
    rules = (
        FaultRule(Fault.DROP, "kline.*", chance=0.2),
        FaultRule(Fault.DUPLICATE, "order", chance=0.3),
        FaultRule(Fault.REORDER, "execution", chance=0.3),
        FaultRule(Fault.DELAY, "*", chance=0.2, bars_late=2, first=1),  # not the answers to subscriptions
        FaultRule(Fault.CORRUPT, "wallet", chance=0.2),
        FaultRule(Fault.REVISE, "kline.*", chance=0.2),
    )
    series = bars_of(*[(100.0 + n % 5, 103.0 + n % 5, 97.0, 100.0 + (n + 1) % 5) for n in range(30)])

    async def run(seed: int) -> list[str]:
        venue = trading_venue(series, faults=FaultPlan(rules, seed))
        topics = ("order", "execution", "position", "wallet")
        async with (
            client_of(venue) as client,
            private_socket(venue, *topics) as private,
            connect(venue.public_url) as public,
        ):
            await public.send(json.dumps({"op": "subscribe", "args": ["kline.60.BTCUSDT"]}))
            for _ in range(2):
                await receive(public)
            for number in range(25):
                await client.order("Buy" if number % 2 else "Sell", "1")
                await venue.step(1)
            return await until_pong(private) + await until_pong(public)

    def heard(seed: int) -> Any:
        return asyncio.run(run(seed))

    first = heard(1)
    assert first == heard(1)
    assert first != heard(2)
