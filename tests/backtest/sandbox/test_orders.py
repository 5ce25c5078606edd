"""Orders on the sandbox: what becomes of them, what is refused, and with which of Bybit's codes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from backtest.sandbox.records import PositionMode
from backtest.sandbox.venue import SandboxVenue
from bot.execution.fills import PLAIN
from strategies.bars import DAY_MS, HOUR_MS
from tests.backtest.sandbox.client import Client, bars_of, client_of, level, private_socket, pushed, trading_venue
from tests.bot.market.scenes import T0


def play(venue: SandboxVenue, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with client_of(venue) as client:
            return await talk(client)

    return asyncio.run(run())


def test_a_market_order_is_filled_when_it_arrives_and_is_pushed_before_its_reply():
    async def run() -> Any:
        venue = trading_venue()
        async with (
            client_of(venue) as client,
            private_socket(venue, "order", "execution", "position", "wallet") as socket,
        ):
            reply = await client.order("Buy", "2", orderLinkId="mine")
            return reply, await pushed(socket, 4)

    reply, rows = asyncio.run(run())
    assert [topic for topic, _ in rows] == ["execution", "order", "position", "wallet"]
    execution, order, position, wallet = (row for _, row in rows)
    assert reply["result"] == {"orderId": order["orderId"], "orderLinkId": "mine"}
    assert (order["orderStatus"], order["avgPrice"], order["cumExecFee"]) == ("Filled", "100", "0.11")
    assert (execution["execPrice"], execution["execQty"], execution["execTime"]) == ("100.0", "2.000", str(T0))
    assert (position["side"], position["size"], position["entryPrice"]) == ("Buy", "2.000", "100")
    assert wallet["totalWalletBalance"] == "9999.89"


def test_a_limit_order_waits_until_the_price_goes_through_it_and_pays_as_maker():
    bars = bars_of((100, 101, 99, 100), (100, 101, 95, 96), (96, 96, 96, 96))

    async def talk(client: Client) -> Any:
        order = await client.placed("Buy", "1", "99")
        states = [await client.shown(order)]
        for _ in range(2):
            await client.venue.step()
            states.append(await client.shown(order))
        (fill,) = (await client.get("execution/list", category="linear"))["result"]["list"]
        return [state["orderStatus"] for state in states], fill

    states, fill = play(trading_venue(bars), talk)
    assert states == ["New", "New", "Filled"], "a touch is not enough"
    assert (fill["isMaker"], fill["execPrice"], fill["feeRate"], fill["execFee"]) == (True, "99.0", "0.0002", "0.0198")


def test_an_attached_stop_loss_is_an_order_of_its_own_and_closes_the_position():
    bars = bars_of((100, 100, 100, 100), (100, 100, 90, 95), (95, 95, 95, 95))

    async def talk(client: Client) -> Any:
        await client.placed("Buy", "1", stopLoss="98", takeProfit="120")
        waiting = (await client.get("order/realtime", category="linear", symbol="BTCUSDT"))["result"]["list"]
        await client.venue.step(2)
        stop, target = [await client.shown(row["orderId"]) for row in reversed(waiting)]
        (closed,) = (await client.get("position/closed-pnl", category="linear"))["result"]["list"]
        return waiting, stop, target, closed, await client.position()

    waiting, stop, target, closed, position = play(trading_venue(bars), talk)
    assert {(row["stopOrderType"], row["orderStatus"], row["triggerPrice"]) for row in waiting} == {
        ("StopLoss", "Untriggered", "98.0"),
        ("TakeProfit", "Untriggered", "120.0"),
    }
    assert (stop["orderStatus"], stop["avgPrice"], stop["reduceOnly"]) == ("Filled", "98", True)
    assert (target["orderStatus"], target["cancelType"]) == ("Deactivated", "CancelByTpSlTsClear")
    assert (position["size"], position["side"]) == ("0", "")
    assert closed["closedPnl"] == "-2.1089", "net of the fees of opening and of closing"


def test_levels_are_set_moved_and_taken_away_by_trading_stop():
    async def talk(client: Client) -> Any:
        stop = {"category": "linear", "symbol": "BTCUSDT", "positionIdx": 0}
        flat = await client.post("position/trading-stop", **stop, stopLoss="90")
        await client.placed("Sell", "1")
        replies = [
            await client.post("position/trading-stop", **stop, **change)
            for change in ({"stopLoss": "90"}, {"stopLoss": "110"}, {"stopLoss": "110"}, {"takeProfit": "80"})
        ]
        both = await client.position()
        await client.placed("Sell", "1")
        added = await client.position()
        await client.post("position/trading-stop", **stop, stopLoss="0")
        return flat, replies, both, added, await client.position()

    flat, replies, both, added, after = play(trading_venue(), talk)
    assert flat["retMsg"] == "can not set tp/sl/ts for zero position"
    assert [reply["retCode"] for reply in replies] == [10001, 0, 34040, 0]
    assert replies[0]["retMsg"] == "StopLoss:900000 set for Sell position should higher than base_price:1000000"
    assert (both["stopLoss"], both["takeProfit"]) == ("110.0", "80.0")
    assert (added["size"], added["stopLoss"]) == ("2.000", "110.0"), (
        "an order without levels keeps those of the position"
    )
    assert (after["stopLoss"], after["takeProfit"]) == ("", "80.0")


def test_a_cancelled_order_is_gone_and_an_amended_one_is_as_it_was_wanted():
    async def talk(client: Client) -> Any:
        order = await client.placed("Buy", "1", "90", orderLinkId="a")
        named = {"category": "linear", "symbol": "BTCUSDT"}
        amended = await client.post("order/amend", **named, orderLinkId="a", qty="2", price="91")
        shown = await client.shown(order)
        cancelled = await client.post("order/cancel", **named, orderId=order)
        again = await client.post("order/cancel", **named, orderId=order)
        late = await client.post("order/amend", **named, orderLinkId="a", qty="3")
        unnamed = await client.post("order/cancel", **named)
        return amended, shown, cancelled, again, late, unnamed, await client.shown(order)

    amended, shown, cancelled, again, late, unnamed, last = play(trading_venue(), talk)
    assert (amended["retCode"], shown["qty"], shown["price"]) == (0, "2.000", "91.0")
    assert cancelled["retCode"] == 0
    assert (again["retCode"], again["retMsg"]) == (110001, "order not exists or too late to cancel")
    assert (late["retCode"], late["retMsg"]) == (110001, "order not exists or too late to replace")
    assert unnamed["retMsg"] == "params error: OrderId or orderLinkId is required"
    assert (last["orderStatus"], last["cancelType"]) == ("Cancelled", "CancelByUser")


def test_an_order_cannot_be_amended_to_what_is_filled_already():
    bars = bars_of((100, 100, 100, 100), (100, 100, 89, 95), (95, 95, 95, 95))

    async def run() -> Any:
        venue = trading_venue(bars, fills=replace(PLAIN, participation=0.001))
        async with client_of(venue) as client:
            order = await client.placed("Buy", "10", "90")
            await venue.step(2)
            shown = await client.shown(order)
            reply = await client.post(
                "order/amend", category="linear", symbol="BTCUSDT", orderId=order, qty=shown["cumExecQty"]
            )
            return shown, reply, await client.shown(order)

    shown, reply, after = asyncio.run(run())
    assert 0 < float(shown["cumExecQty"]) < 10
    assert (reply["retCode"], after["qty"]) == (110064, "10.000")


def test_ten_conditional_orders_of_a_symbol_wait_and_no_more():
    async def talk(client: Client) -> Any:
        wanted = {"triggerPrice": "110", "triggerDirection": 1}
        return [(await client.order("Buy", "1", **wanted))["retCode"] for _ in range(11)]

    assert play(trading_venue(), talk) == [0] * 10 + [110009]


def test_five_hundred_orders_of_a_symbol_wait_and_no_more():
    async def talk(client: Client) -> Any:
        codes = [(await client.order("Buy", "0.1", "90"))["retCode"] for _ in range(501)]
        return codes[-2:]

    assert play(trading_venue(balance=Decimal(100_000)), talk) == [0, 110020]


def test_the_position_mode_stays_while_an_order_waits():
    async def talk(client: Client) -> Any:
        await client.placed("Buy", "1", "90")
        return await client.post("position/switch-mode", category="linear", coin="USDT", mode=3)

    assert play(trading_venue(), talk)["retCode"] == 110028


def test_cancel_all_takes_back_what_waits_and_needs_a_scope():
    async def talk(client: Client) -> Any:
        for price in ("90", "91"):
            await client.placed("Buy", "1", price)
        await client.placed("Buy", "1", triggerPrice="110", triggerDirection=1)
        bare = await client.post("order/cancel-all", category="linear")
        plain = await client.post("order/cancel-all", category="linear", symbol="BTCUSDT", orderFilter="Order")
        rest = await client.post("order/cancel-all", category="linear", settleCoin="USDT")
        return bare, plain, rest

    bare, plain, rest = play(trading_venue(), talk)
    assert bare["retCode"] == 10001
    assert (len(plain["result"]["list"]), len(rest["result"]["list"])) == (2, 1)


def test_an_own_id_is_taken_once_and_for_ever():
    async def talk(client: Client) -> Any:
        first = await client.order("Buy", "1", orderLinkId="once")
        second = await client.order("Sell", "1", orderLinkId="once")
        fills = await client.get("execution/list", category="linear")
        return first, second, fills

    first, second, fills = play(trading_venue(), talk)
    assert first["retCode"] == 0
    assert (second["retCode"], second["retMsg"]) == (110072, "OrderLinkedID is duplicate")
    assert len(fills["result"]["list"]) == 1


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"side": "buy"}, 10001, "params error: side invalid"),
        ({"category": "forex"}, 10001, "params error: Category is invalid"),
        ({"symbol": "NOPE"}, 10001, "params error: symbol invalid"),
        ({"orderType": "Stop"}, 10001, "params error: orderType invalid"),
        ({"qty": "much"}, 10001, "params error: qty invalid"),
        ({"qty": "1e-3"}, 10001, "params error: qty invalid"),
        ({"qty": "0.0005"}, 10001, "Qty invalid"),
        ({"qty": "0"}, 10001, "The number of contracts exceeds minimum limit allowed"),
        ({"qty": "0.001"}, 110094, "Order does not meet minimum order value 5USDT"),
        ({"qty": "51"}, 10001, "The number of contracts exceeds maximum limit allowed"),
        ({"orderType": "Limit", "price": "99.95"}, 10001, "params error: price is not a multiple of the tick size"),
        ({"positionIdx": 1}, 10001, "position idx not match position mode"),
        ({"orderLinkId": "x" * 37}, 10001, "order link id is longer than 45"),
        ({"reduceOnly": True}, 110017, "current position is zero, cannot fix reduce-only order qty"),
        ({"qty": "50", "orderType": "Limit", "price": "30000"}, 110007, "ab not enough for new order"),
        (
            {"triggerPrice": "90", "triggerDirection": 1},
            110092,
            "expect Rising, but trigger_price[900000] <= current[1000000]??LastPrice",
        ),
        (
            {"triggerPrice": "110", "triggerDirection": 2},
            110093,
            "expect Falling, but trigger_price[1100000] >= current[1000000]??LastPrice",
        ),
        ({"stopLoss": "101"}, 10001, "StopLoss:1010000 set for Buy position should lower than base_price:1000000"),
        ({"timeInForce": "Never", "orderType": "Limit", "price": "99"}, 10001, "params error: timeInForce invalid"),
    ],
)
def test_an_order_that_bybit_refuses_is_refused_with_its_code_and_leaves_nothing(changes, code, text):
    async def talk(client: Client) -> Any:
        wanted = {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "1"}
        reply = await client.post("order/create", **{**wanted, **changes})
        waiting = await client.get("order/realtime", category="linear", symbol="BTCUSDT")
        return reply, waiting["result"]["list"], await client.position()

    reply, waiting, position = play(trading_venue(), talk)
    assert (reply["retCode"], reply["retMsg"], reply["result"]) == (code, text, {})
    assert waiting == []
    assert position["size"] == "0"


def test_a_post_only_order_that_would_take_is_accepted_and_then_cancelled():
    async def talk(client: Client) -> Any:
        taking = await client.placed("Buy", "1", "105", timeInForce="PostOnly")
        missed = await client.placed("Buy", "1", "95", timeInForce="IOC")
        return await client.shown(taking), await client.shown(missed)

    taking, missed = play(trading_venue(), talk)
    assert (taking["orderStatus"], taking["rejectReason"]) == ("Cancelled", "EC_PostOnlyWillTakeLiquidity")
    assert (missed["orderStatus"], missed["rejectReason"]) == ("Cancelled", "EC_NoImmediateQtyToFill")


def test_a_conditional_order_waits_for_its_trigger_and_then_trades():
    bars = bars_of((100, 100, 100, 100), (100, 112, 100, 111), (111, 111, 111, 111))

    async def run() -> Any:
        venue = trading_venue(bars)
        async with client_of(venue) as client, private_socket(venue, "order") as socket:
            order = await client.placed("Buy", "1", triggerPrice="110", triggerDirection=1)
            await venue.step(2)
            return order, [row for _, row in await pushed(socket, 3)]

    order, rows = asyncio.run(run())
    assert {row["orderId"] for row in rows} == {order}
    assert [row["orderStatus"] for row in rows] == ["Untriggered", "Triggered", "Filled"]
    assert rows[-1]["avgPrice"] == "110"


def test_a_reduce_only_order_reduces_what_there_is_and_one_on_the_same_side_is_refused():
    async def talk(client: Client) -> Any:
        await client.placed("Sell", "2")
        same = await client.order("Sell", "1", reduceOnly=True)
        more = await client.placed("Buy", "5", reduceOnly=True)
        return same, await client.shown(more), await client.position()

    same, more, position = play(trading_venue(), talk)
    assert (same["retCode"], same["retMsg"]) == (110017, "reduce-only order has same side with current position")
    assert (more["orderStatus"], more["cumExecQty"], more["cancelType"]) == ("Cancelled", "2.000", "CancelByReduceOnly")
    assert position["size"] == "0"


def test_hedge_mode_has_a_position_for_each_side():
    async def talk(client: Client) -> Any:
        wrong = await client.order("Buy", "1")
        await client.placed("Buy", "1", positionIdx=1)
        await client.placed("Sell", "2", positionIdx=2)
        nothing = await client.order("Buy", "1", positionIdx=2, reduceOnly=True)
        rows = (await client.get("position/list", category="linear", symbol="BTCUSDT"))["result"]["list"]
        switch = await client.post("position/switch-mode", category="linear", coin="USDT", mode=0)
        return wrong, nothing, rows, switch

    wrong, nothing, rows, switch = play(trading_venue(mode=PositionMode.HEDGE), talk)
    assert wrong["retMsg"] == "position idx not match position mode"
    assert nothing["retCode"] == 0
    assert [(row["positionIdx"], row["side"], row["size"]) for row in rows] == [
        (1, "Buy", "1.000"),
        (2, "Sell", "1.000"),
    ]
    assert switch["retCode"] == 110024


def test_leverage_margin_and_position_mode_are_set_once():
    async def talk(client: Client) -> list[Any]:
        lever = {"category": "linear", "symbol": "BTCUSDT"}
        calls = [
            ("position/set-leverage", {**lever, "buyLeverage": "5", "sellLeverage": "5"}),
            ("position/set-leverage", {**lever, "buyLeverage": "5", "sellLeverage": "5"}),
            ("position/set-leverage", {**lever, "buyLeverage": "5", "sellLeverage": "6"}),
            ("position/set-leverage", {**lever, "buyLeverage": "101", "sellLeverage": "101"}),
            ("position/switch-mode", {"category": "linear", "coin": "USDT", "mode": 0}),
            ("position/switch-mode", {"category": "linear", "coin": "USDT", "mode": 3}),
            ("position/switch-mode", {"category": "linear", "coin": "USDT", "mode": 7}),
            ("account/set-margin-mode", {"setMarginMode": "ISOLATED_MARGIN"}),
            ("account/set-margin-mode", {"setMarginMode": "ISOLATED_MARGIN"}),
        ]
        codes = [(await client.post(path, **parameters))["retCode"] for path, parameters in calls]
        info = (await client.get("account/info"))["result"]["marginMode"]
        rows = (await client.get("position/list", category="linear", symbol="BTCUSDT"))["result"]["list"]
        return [codes, info, [row["leverage"] for row in rows]]

    codes, margin, leverages = play(trading_venue(), talk)
    assert codes == [0, 110043, 10001, 110013, 110025, 0, 10001, 0, 110026]
    assert (margin, leverages) == ("ISOLATED_MARGIN", ["5", "5"])


def test_the_history_keeps_cancelled_orders_for_a_day_and_others_for_a_week():
    async def talk(client: Client) -> Any:
        filled = await client.placed("Buy", "1")
        cancelled = await client.placed("Buy", "1", "90")
        await client.post("order/cancel", category="linear", symbol="BTCUSDT", orderId=cancelled)
        found = []
        for hours in (0, 24, 1, 7 * 24):
            await client.venue.step(hours)
            rows = (await client.get("order/history", category="linear"))["result"]["list"]
            found.append({row["orderId"] for row in rows})
        return filled, cancelled, found

    filled, cancelled, found = play(trading_venue(level(100.0, bars=8 * 24 + 5)), talk)
    assert found == [{filled, cancelled}, {filled, cancelled}, {filled}, set()]


def test_a_restart_forgets_closed_orders_in_realtime_but_not_in_the_history():
    async def talk(client: Client) -> Any:
        order = await client.placed("Buy", "1", orderLinkId="x")
        open_only = await client.get("order/realtime", category="linear", symbol="BTCUSDT")
        before = await client.get("order/realtime", category="linear", symbol="BTCUSDT", openOnly=1)
        client.venue.restart()
        after = await client.get("order/realtime", category="linear", orderLinkId="x")
        history = await client.get("order/history", category="linear", orderLinkId="x")
        found = [reply["result"]["list"] for reply in (open_only, before, after, history)]
        return order, [[row["orderId"] for row in rows] for rows in found]

    order, found = play(trading_venue(), talk)
    assert found == [[], [order], [], [order]]


def test_lists_come_in_pages_and_windows_are_seven_days_at_most():
    async def talk(client: Client) -> Any:
        for number in range(5):
            await client.placed("Buy", "1", orderLinkId=f"o{number}")
        names, cursor = [], ""
        while True:
            page = await client.get("order/history", category="linear", limit=2, cursor=cursor)
            names.append([row["orderLinkId"] for row in page["result"]["list"]])
            cursor = page["result"]["nextPageCursor"]
            if not cursor:
                break
        wide = await client.get("execution/list", category="linear", startTime=T0 - 8 * DAY_MS, endTime=T0)
        empty = await client.get("execution/list", category="linear", startTime=T0 - 2 * HOUR_MS, endTime=T0 - HOUR_MS)
        return names, wide["retCode"], empty["result"]["list"]

    names, wide, empty = play(trading_venue(), talk)
    assert names == [["o4", "o3"], ["o2", "o1"], ["o0"]]
    assert (wide, empty) == (10001, [])


def test_the_wallet_balance_is_what_went_in_less_fees_plus_realised_profit_and_equity_adds_the_open_one():
    bars = bars_of((100, 100, 100, 100), (100, 110, 100, 110), (110, 110, 110, 110))

    async def talk(client: Client) -> Any:
        await client.placed("Buy", "10")
        await client.venue.step(2)
        await client.placed("Sell", "4")
        return (await client.get("account/wallet-balance", accountType="UNIFIED"))["result"]["list"][0]

    wallet = play(trading_venue(bars), talk)
    balance = Decimal(10_000) - Decimal("0.55") + 40 - Decimal("0.242")
    assert Decimal(wallet["totalWalletBalance"]) == balance
    assert Decimal(wallet["totalPerpUPL"]) == 60
    assert Decimal(wallet["totalEquity"]) == balance + 60
    assert Decimal(wallet["totalInitialMargin"]) == 60


def test_a_batch_tells_the_code_of_each_order_and_its_own_code_stays_zero():
    async def talk(client: Client) -> Any:
        order = {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "1", "price": "90"}
        made = await client.post(
            "order/create-batch",
            category="linear",
            request=[{**order, "orderLinkId": "b1"}, {**order, "orderLinkId": "b1"}, {**order, "qty": "0.001"}],
        )
        changed = await client.post(
            "order/amend-batch", category="linear", request=[{"symbol": "BTCUSDT", "orderLinkId": "b1", "qty": "2"}]
        )
        cancelled = await client.post(
            "order/cancel-batch",
            category="linear",
            request=[{"symbol": "BTCUSDT", "orderLinkId": name} for name in ("b1", "b2")],
        )
        large = await client.post("order/create-batch", category="linear", request=[order] * 21)
        return made, changed, cancelled, large

    made, changed, cancelled, large = play(trading_venue(), talk)
    assert made["retCode"] == 0
    assert [row["code"] for row in made["retExtInfo"]["list"]] == [0, 110072, 110094]
    assert [bool(row["orderId"]) for row in made["result"]["list"]] == [True, False, False]
    assert changed["retExtInfo"]["list"] == [{"code": 0, "msg": "OK"}]
    assert [row["code"] for row in cancelled["retExtInfo"]["list"]] == [0, 110001]
    assert large["retCode"] == 10001


def test_orders_that_wait_follow_the_levels_of_the_position_and_never_bring_old_ones_back():
    bars = bars_of((100, 100, 100, 100), (100, 100, 100, 100), (100, 100, 94, 96), (96, 96, 91, 92), (92, 92, 92, 92))
    stop = {"category": "linear", "symbol": "BTCUSDT", "positionIdx": 0}

    async def talk(client: Client) -> Any:
        early = await client.placed("Buy", "1", "95")
        await client.placed("Buy", "1", stopLoss="80")
        late = await client.placed("Buy", "1", "92")
        await client.post("position/trading-stop", **stop, stopLoss="85", takeProfit="150")
        await client.venue.step(3)
        first = await client.position()
        await client.post("position/trading-stop", **stop, stopLoss="0")
        await client.venue.step(1)
        states = [(await client.shown(order))["orderStatus"] for order in (early, late)]
        return states, first, await client.position()

    states, first, second = play(trading_venue(bars), talk)
    assert states == ["Filled", "Filled"]
    assert (first["size"], first["stopLoss"], first["takeProfit"]) == ("2.000", "85.0", "150.0")
    assert (second["size"], second["stopLoss"], second["takeProfit"]) == ("3.000", "", "150.0")


def test_levels_of_a_position_do_not_follow_an_order_that_opens_the_opposite_one():
    series = bars_of((91, 91, 91, 91), *[(90, 90, 90, 90)] * 3)

    async def run() -> Any:
        venue = trading_venue(series)
        async with client_of(venue) as client:
            await client.placed("Sell", "1", stopLoss="115")
            await client.placed("Buy", "1", "91")
            await venue.step()
            await client.placed("Buy", "1")
            await venue.step()
            rows = (await client.get("execution/list", category="linear"))["result"]["list"]
            return rows, await client.position()

    rows, position = asyncio.run(run())
    assert [(row["side"], row["stopOrderType"]) for row in rows[::-1]] == [
        ("Sell", "UNKNOWN"),
        ("Buy", "UNKNOWN"),
        ("Buy", "UNKNOWN"),
    ]
    assert (position["side"], position["size"], position["stopLoss"]) == ("Buy", "1.000", "")


def test_a_stop_of_a_position_that_changed_sides_is_filled_on_the_side_that_closes_it():
    series = bars_of((91, 91, 91, 91), (91, 91, 80, 80), (80, 80, 80, 80))

    async def run() -> Any:
        venue = trading_venue(series)
        async with client_of(venue) as client:
            await client.placed("Sell", "1", stopLoss="115")
            await client.placed("Buy", "2", "90", stopLoss="85")
            await venue.step(2)
            rows = (await client.get("execution/list", category="linear"))["result"]["list"]
            return rows, await client.position()

    rows, position = asyncio.run(run())
    assert [(row["side"], row["execQty"], row["stopOrderType"]) for row in rows[::-1]] == [
        ("Sell", "1.000", "UNKNOWN"),
        ("Buy", "2.000", "UNKNOWN"),
        ("Sell", "1.000", "StopLoss"),
    ]
    assert position["size"] == "0"
