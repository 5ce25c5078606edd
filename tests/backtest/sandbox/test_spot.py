"""The spot market of the sandbox: coins instead of positions, and fees in what is received."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from backtest.sandbox.venue import SandboxVenue
from tests.backtest.sandbox.client import Client, bars_of, client_of, private_socket, pushed, trading_venue
from tests.backtest.sandbox.test_shapes import check

FEE = Decimal("0.001")


def play(venue: SandboxVenue, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with client_of(venue) as client:
            return await talk(client)

    return asyncio.run(run())


async def balances(client: Client) -> dict[str, Decimal]:
    reply = await client.get("account/wallet-balance", accountType="UNIFIED")
    return {coin["coin"]: Decimal(coin["walletBalance"]) for coin in reply["result"]["list"][0]["coin"]}


async def spot(client: Client, side: str, quantity: str, price: str | None = None, **more: Any) -> Any:
    return await client.order(side, quantity, price, **{"category": "spot", **more})


def test_a_market_purchase_spends_usdt_and_pays_its_fee_in_the_coin_so_that_not_all_of_it_can_be_sold():
    async def talk(client: Client) -> Any:
        bought = await spot(client, "Buy", "250")
        order = (await client.get("order/realtime", category="spot", orderId=bought["result"]["orderId"]))["result"][
            "list"
        ]
        (fill,) = (await client.get("execution/list", category="spot"))["result"]["list"]
        after = await balances(client)
        too_much = await spot(client, "Sell", "2.5")
        rest = await spot(client, "Sell", "2.497")
        return order[0], fill, after, too_much, rest, await balances(client)

    order, fill, after, too_much, rest, last = play(trading_venue(), talk)
    assert (order["qty"], order["cumExecQty"], order["orderStatus"]) == ("250", "2.500", "Filled")
    assert (fill["execFee"], fill["feeCurrency"]) == ("0.0025", "BTC")
    assert after == {"USDT": Decimal(9750), "BTC": Decimal("2.4975")}
    assert (too_much["retCode"], too_much["retMsg"]) == (170131, "Insufficient balance.")
    assert rest["retCode"] == 0
    assert last == {"USDT": 9750 + Decimal("249.7") * (1 - FEE), "BTC": Decimal("0.0005")}


def test_an_order_that_waits_locks_what_it_would_spend_and_gives_it_back():
    async def talk(client: Client) -> Any:
        waiting = await spot(client, "Buy", "90", "100", timeInForce="PostOnly", orderLinkId="w")
        full = await spot(client, "Buy", "20", "90", orderLinkId="x")
        await client.post("order/cancel", category="spot", symbol="BTCUSDT", orderLinkId="w")
        again = await client.post("order/cancel", category="spot", symbol="BTCUSDT", orderLinkId="w")
        freed = await spot(client, "Buy", "20", "90", orderLinkId="y")
        return [one["retCode"] for one in (waiting, full, again, freed)], again["retMsg"]

    codes, text = play(trading_venue(), talk)
    assert (codes, text) == ([0, 170131, 170213, 0], "Order does not exist.")


def test_refusals_have_the_codes_of_the_spot_market():
    async def talk(client: Client) -> list[int]:
        replies = [
            await spot(client, "Buy", "0.01", "90"),
            await spot(client, "Buy", "1", "90", orderLinkId="d"),
            await spot(client, "Buy", "1", "90", orderLinkId="d"),
            await spot(client, "Sell", "1"),
            await spot(client, "Buy", "1000.01"),
            await spot(client, "Buy", "1", "90", triggerPrice="95"),
            await spot(client, "Buy", "100", stopLoss="90"),
            await spot(client, "Sell", "1", orderFilter="tpslOrder"),
            await spot(client, "Sell", "1", orderFilter="stop"),
        ]
        return [reply["retCode"] for reply in replies]

    assert play(trading_venue(balance=Decimal(1000)), talk) == [
        *(170140, 0, 170141, 170131, 170131, 10001),
        *(170130, 170202, 170201),
    ]


def test_a_limit_order_fills_when_the_price_goes_through_it_and_the_wallet_is_pushed():
    bars = bars_of((100, 100, 100, 100), (100, 100, 94, 96), (96, 96, 96, 96))

    async def run() -> Any:
        venue = trading_venue(bars)
        async with (
            client_of(venue) as client,
            private_socket(venue, "order.spot", "execution.spot", "wallet") as socket,
        ):
            await spot(client, "Buy", "1", "95")
            await venue.step(2)
            return await pushed(socket, 4)

    rows = asyncio.run(run())
    assert [topic for topic, _ in rows] == ["order.spot", "execution.spot", "order.spot", "wallet"]
    assert [row["orderStatus"] for topic, row in rows if topic == "order.spot"] == ["New", "Filled"]
    assert {coin["coin"]: coin["walletBalance"] for coin in rows[-1][1]["coin"]} == {"USDT": "9905", "BTC": "0.999"}


STOP = {"orderFilter": "tpslOrder", "triggerPrice": "95"}


def test_a_tpsl_order_holds_its_coins_until_it_is_taken_back_by_its_own_filter():
    async def talk(client: Client) -> Any:
        await spot(client, "Buy", "100")
        stop = await spot(client, "Sell", "0.999", orderLinkId="s", **STOP)
        twice = await spot(client, "Sell", "0.999", orderLinkId="t", **{**STOP, "triggerPrice": "110"})
        sale = await spot(client, "Sell", "0.999")
        name = {"category": "spot", "symbol": "BTCUSDT", "orderLinkId": "s"}
        listed = [
            len((await client.get("order/realtime", category="spot", **more))["result"]["list"])
            for more in ({}, {"orderFilter": "tpslOrder"}, {"orderFilter": "Order"})
        ]
        (row,) = (await client.get("order/realtime", **name))["result"]["list"]
        ordinary = await client.post("order/cancel", **name)
        all_ordinary = await client.post("order/cancel-all", category="spot", symbol="BTCUSDT")
        more = await client.post("order/amend", **name, qty="1.2")
        less = await client.post("order/amend", **name, qty="0.5", triggerPrice="94")
        (amended,) = (await client.get("order/realtime", **name))["result"]["list"]
        back = await client.post("order/cancel", **name, orderFilter="tpslOrder")
        (ended,) = (await client.get("order/realtime", **name))["result"]["list"]
        freed = await spot(client, "Sell", "0.999")
        codes = [one["retCode"] for one in (stop, twice, sale, ordinary, more, less, back, freed)]
        return codes, listed, row, all_ordinary["result"]["list"], amended, ended["orderStatus"]

    codes, listed, row, taken, amended, ended = play(trading_venue(), talk)
    assert codes == [0, 170131, 170131, 170213, 170131, 0, 0, 0]
    assert listed == [1, 1, 0] and taken == []
    told = {
        name: row[name] for name in ("orderStatus", "stopOrderType", "triggerPrice", "basePrice", "lastPriceOnCreated")
    }
    assert told == {
        "orderStatus": "Untriggered",
        "stopOrderType": "tpslOrder",
        "triggerPrice": "95.0",
        "basePrice": "100.0",
        "lastPriceOnCreated": "",
    }
    assert (amended["qty"], amended["triggerPrice"], ended) == ("0.500", "94.0", "Deactivated")


def test_a_tpsl_order_sells_when_the_price_gets_there_from_where_it_was():
    bars = bars_of((100, 100, 100, 100), (100, 101, 94, 96), (96, 96, 96, 96))

    async def run() -> Any:
        venue = trading_venue(bars)
        async with client_of(venue) as client, private_socket(venue, "order.spot", "execution.spot") as socket:
            await spot(client, "Buy", "300")
            await pushed(socket, 2)
            await spot(client, "Sell", "0.999", orderLinkId="stop", **STOP)
            await spot(client, "Sell", "0.999", orderLinkId="target", **{**STOP, "triggerPrice": "120"})
            await venue.step(2)
            return await pushed(socket, 5)

    rows = asyncio.run(run())
    told = [(row["orderLinkId"], row["orderStatus"]) for topic, row in rows if topic == "order.spot"]
    assert told == [
        *(("stop", "Untriggered"), ("target", "Untriggered")),
        *(("stop", "Triggered"), ("stop", "Filled")),
    ]
    (fill,) = [row for topic, row in rows if topic == "execution.spot"]
    assert (fill["orderLinkId"], fill["stopOrderType"], fill["execPrice"]) == ("stop", "tpslOrder", "95.0")


def test_of_tpsl_orders_a_symbol_has_thirty_at_most():
    async def talk(client: Client) -> list[int]:
        await spot(client, "Buy", "4000")
        return [(await spot(client, "Sell", "1", orderLinkId=f"s{n}", **STOP))["retCode"] for n in range(31)]

    assert play(trading_venue(), talk) == [*[0] * 30, 170810]


def test_it_lives_beside_the_contracts_of_the_same_symbol():
    async def talk(client: Client) -> Any:
        await spot(client, "Buy", "100")
        await client.placed("Sell", "1")
        spot_orders = await client.get("order/history", category="spot")
        position = await client.position()
        return len(spot_orders["result"]["list"]), position["size"], await balances(client)

    count, size, wallet = play(trading_venue(coins={"ETH": Decimal(3)}), talk)
    assert (count, size) == (1, "1.000")
    assert wallet == {"USDT": Decimal("9899.945"), "BTC": Decimal("0.999"), "ETH": Decimal(3)}


def test_what_is_told_of_its_market_is_shaped_like_bybits():
    async def talk(client: Client) -> dict[str, Any]:
        name = {"category": "spot", "symbol": "BTCUSDT"}
        candles = await client.get("market/kline", **name, interval="60")
        assert candles["result"]["category"] == "spot"
        return {
            "market tickers spot": await client.get("market/tickers", **name),
            "market instruments-info spot": await client.get("market/instruments-info", **name),
        }

    for name, reply in play(trading_venue(), talk).items():
        check(name, reply)
