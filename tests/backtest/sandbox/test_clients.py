"""Clients that others wrote run against the sandbox as they are, but for their endpoints: pybit and ccxt."""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Iterator
from typing import Any

import pybit._websocket_trading
import pybit.unified_trading
import pytest
from pybit.exceptions import InvalidRequestError
from pybit.unified_trading import HTTP, WebSocket, WebSocketTrading

from backtest.sandbox.faults import Fault, FaultPlan, FaultRule
from backtest.sandbox.tls import make_certificate
from backtest.sandbox.venue import SandboxVenue
from tests.backtest.sandbox.client import KEY, bars_of, level, trading_venue
from tests.backtest.sandbox.threaded import LONG_S, threaded

BARS = bars_of((100, 100, 100, 100), (100, 106, 100, 105), (105, 105, 105, 105))
ORDER = {"category": "linear", "symbol": "BTCUSDT"}

NO_FASTER_THAN_A_NETWORK = FaultPlan(
    (FaultRule(Fault.DELAY, "subscribe", seconds=0.3), FaultRule(Fault.DELAY, "order.*", seconds=0.1))
)
"""pybit notes a subscription or a request only after it has sent it: an answer that comes before that kills its thread without
a word, and the next subscription waits for ever."""
LOGIN = {"api_key": KEY.key, "api_secret": KEY.secret, "private_auth_expire": 60}
"""pybit's own second to log in is over before it begins on a busy machine, and then it waits for ever."""


@pytest.fixture
def endpoints(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Points pybit's websockets at a venue."""

    def point(venue: SandboxVenue) -> None:
        monkeypatch.setattr(pybit.unified_trading, "PRIVATE_WSS", venue.private_url)
        public = venue.public_url.replace("/linear", "/{CHANNEL_TYPE}")
        monkeypatch.setattr(pybit.unified_trading, "PUBLIC_WSS", public)
        monkeypatch.setattr(pybit._websocket_trading, "TRADE_WSS", venue.trade_url)

    logging.getLogger("websocket").setLevel(logging.CRITICAL)
    return point


def session_of(venue: SandboxVenue) -> HTTP:
    session = HTTP(testnet=False, api_key=KEY.key, api_secret=KEY.secret)
    session.endpoint = venue.rest_url
    return session


def rows_of(heard: queue.Queue[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The next rows that a callback was given."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += heard.get(timeout=LONG_S)["data"]
    return found


def test_pybit_places_amends_cancels_and_reads_over_http():
    venue = trading_venue(BARS)
    with threaded(venue):
        session = session_of(venue)
        assert session.get_server_time()["retCode"] == 0
        assert session.get_instruments_info(**ORDER)["result"]["list"][0]["symbol"] == "BTCUSDT"
        assert session.get_tickers(**ORDER)["result"]["list"][0]["lastPrice"] == "100.0"
        session.set_leverage(**ORDER, buyLeverage="5", sellLeverage="5")
        placed = session.place_order(
            **ORDER, side="Buy", orderType="Limit", qty="1", price="90", orderLinkId="mine", timeInForce="PostOnly"
        )
        name = placed["result"]["orderId"]
        session.amend_order(**ORDER, orderLinkId="mine", price="91")
        (order,) = session.get_open_orders(**ORDER)["result"]["list"]
        assert (order["orderId"], order["price"], order["orderStatus"]) == (name, "91.0", "New")
        session.cancel_order(**ORDER, orderId=name)
        with pytest.raises(InvalidRequestError) as refused:
            session.cancel_order(**ORDER, orderId=name)
        assert refused.value.status_code == 110001
        session.place_order(**ORDER, side="Buy", orderType="Market", qty="2", stopLoss="95")
        (position,) = session.get_positions(**ORDER)["result"]["list"]
        assert (position["side"], position["size"], position["leverage"]) == ("Buy", "2.000", "5")
        session.set_trading_stop(**ORDER, stopLoss="96", positionIdx=0)
        assert len(session.get_executions(**ORDER)["result"]["list"]) == 1
        assert session.get_order_history(**ORDER, orderId=name)["result"]["list"][0]["orderStatus"] == "Cancelled"
        wallet = session.get_wallet_balance(accountType="UNIFIED")["result"]["list"][0]
        assert wallet["totalWalletBalance"] == "9999.89"
        assert session.get_api_key_information()["result"]["apiKey"] == KEY.key
        assert len(session.cancel_all_orders(**ORDER)["result"]["list"]) == 1, "the stop loss"


def test_pybit_hears_private_and_public_pushes_over_websockets(endpoints):
    venue = trading_venue(BARS)
    venue.plant(NO_FASTER_THAN_A_NETWORK)
    with threaded(venue) as run:
        endpoints(venue)
        private = WebSocket(
            testnet=False, channel_type="private", api_key=KEY.key, api_secret=KEY.secret, private_auth_expire=60
        )
        public = WebSocket(testnet=False, channel_type="linear")
        heard: dict[str, queue.Queue[dict[str, Any]]] = {
            name: queue.Queue() for name in ("order", "execution", "position", "wallet", "kline")
        }
        try:
            private.order_stream(heard["order"].put)
            private.execution_stream(heard["execution"].put)
            private.position_stream(heard["position"].put)
            private.wallet_stream(heard["wallet"].put)
            public.kline_stream(60, "BTCUSDT", heard["kline"].put)
            run(venue.private.subscribed("order", "execution", "position", "wallet"))
            run(venue.subscribed())
            session_of(venue).place_order(**ORDER, side="Sell", orderType="Market", qty="1")
            run(venue.step(2))
            assert rows_of(heard["order"], 1)[0]["orderStatus"] == "Filled"
            assert rows_of(heard["execution"], 1)[0]["execPrice"] == "100.0"
            assert rows_of(heard["position"], 1)[0]["side"] == "Sell"
            assert rows_of(heard["wallet"], 1)[0]["totalWalletBalance"] == "9999.945"
            assert [row["confirm"] for row in rows_of(heard["kline"], 4)][-2:] == [True, False]
        finally:
            private.exit()
            public.exit()


def test_pybit_trades_over_the_websocket_trade_interface(endpoints):
    venue = trading_venue(BARS)
    venue.plant(NO_FASTER_THAN_A_NETWORK)
    with threaded(venue):
        endpoints(venue)
        trading = WebSocketTrading(testnet=False, api_key=KEY.key, api_secret=KEY.secret)
        heard: queue.Queue[dict[str, Any]] = queue.Queue()
        try:
            trading.place_order(
                heard.put, **ORDER, side="Buy", orderType="Limit", qty="1", price="90", orderLinkId="ws"
            )
            placed = heard.get(timeout=LONG_S)
            trading.amend_order(heard.put, **ORDER, orderLinkId="ws", price="92")
            amended = heard.get(timeout=LONG_S)
            assert session_of(venue).get_open_orders(**ORDER)["result"]["list"][0]["price"] == "92.0"
            trading.cancel_order(heard.put, **ORDER, orderId=placed["data"]["orderId"])
            cancelled = heard.get(timeout=LONG_S)
        finally:
            trading.exit()
        assert [reply["op"] for reply in (placed, amended, cancelled)] == [
            "order.create",
            "order.amend",
            "order.cancel",
        ]
        assert placed["header"]["X-Bapi-Limit"] == "10"


@pytest.fixture
def ccxt() -> Iterator[Any]:
    """The library, where it is there."""
    yield pytest.importorskip("ccxt", reason="ccxt is not installed: pip install 'recall-bot[dev]'")


def pointed(exchange: Any, venue: SandboxVenue) -> Any:
    """An exchange of ccxt with the venue's endpoints."""
    exchange.urls["api"] = {name: venue.rest_url for name in exchange.urls["api"] if name != "ws"} | {
        "ws": {
            "public": dict.fromkeys(("spot", "inverse", "option", "linear"), venue.public_url),
            "private": {
                "spot": {"unified": venue.private_url, "nonUnified": venue.private_url, "usdc": venue.private_url},
                "contract": venue.private_url,
                "usdc": venue.private_url,
                "trade": venue.trade_url,
            },
        }
    }
    return exchange


def test_ccxt_places_amends_cancels_and_reads(ccxt):
    venue = trading_venue(level(100.0))
    with threaded(venue):
        exchange = pointed(ccxt.bybit({"apiKey": KEY.key, "secret": KEY.secret}), venue)
        symbol = "BTC/USDT:USDT"
        assert symbol in exchange.load_markets()
        order = exchange.create_order(symbol, "limit", "buy", 1, 90, {"clientOrderId": "mine"})
        exchange.edit_order(order["id"], symbol, "limit", "buy", 2, 91)
        (waiting,) = exchange.fetch_open_orders(symbol)
        assert (waiting["amount"], waiting["price"], waiting["clientOrderId"]) == (2.0, 91.0, "mine")
        exchange.cancel_order(order["id"], symbol)
        with pytest.raises(ccxt.OrderNotFound):
            exchange.cancel_order(order["id"], symbol)
        exchange.create_order(symbol, "market", "sell", 3)
        (position,) = exchange.fetch_positions([symbol])
        assert (position["side"], position["contracts"]) == ("short", 3.0)
        assert exchange.fetch_balance()["USDT"]["total"] == pytest.approx(9999.835)
        assert [trade["amount"] for trade in exchange.fetch_my_trades(symbol)] == [3.0]
        assert exchange.fetch_ticker(symbol)["last"] == 100.0
        assert len(exchange.fetch_ohlcv(symbol, "1h")) == 1
        assert exchange.fetch_funding_rate(symbol)["fundingRate"] == 0.0001


def test_ccxt_hears_private_pushes(ccxt):
    pytest.importorskip("ccxt.pro")

    async def run() -> Any:
        venue = trading_venue(level(100.0))
        async with venue:
            exchange = pointed(ccxt.pro.bybit({"apiKey": KEY.key, "secret": KEY.secret}), venue)
            try:
                await exchange.load_markets()
                assert await exchange.watch_positions(["BTC/USDT:USDT"]) == [], "the first answer is a snapshot"
                orders = asyncio.create_task(exchange.watch_orders("BTC/USDT:USDT"))
                positions = asyncio.create_task(exchange.watch_positions(["BTC/USDT:USDT"]))
                async with asyncio.timeout(LONG_S):
                    await venue.private.subscribed("order", "position")
                    await exchange.create_order("BTC/USDT:USDT", "market", "buy", 1)
                    return await orders, await positions
            finally:
                await exchange.close()

    (order,), (position,) = asyncio.run(run())
    assert (order["status"], order["filled"]) == ("closed", 1.0)
    assert (position["side"], position["contracts"]) == ("long", 1.0)


def test_pybit_trades_and_listens_over_tls_with_a_certificate_made_here(endpoints, tmp_path, monkeypatch):
    pytest.importorskip("trustme", reason="trustme is not installed: pip install 'recall-bot[tls]'")
    certificate = make_certificate()
    authority = tmp_path / "authority.pem"
    certificate.write(authority)
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", str(authority))
    venue = trading_venue(BARS, tls=certificate.context)
    venue.plant(NO_FASTER_THAN_A_NETWORK)
    heard: queue.Queue[dict[str, Any]] = queue.Queue()
    with threaded(venue) as run:
        endpoints(venue)
        assert (venue.rest_url[:8], venue.private_url[:6]) == ("https://", "wss://")
        session = session_of(venue)
        session.client.verify = str(authority)
        private = WebSocket(
            testnet=False, channel_type="private", api_key=KEY.key, api_secret=KEY.secret, private_auth_expire=60
        )
        try:
            private.execution_stream(heard.put)
            run(venue.private.subscribed("execution"))
            session.place_order(**ORDER, side="Buy", orderType="Market", qty="1")
            assert rows_of(heard, 1)[0]["execQty"] == "1.000"
        finally:
            private.exit()
