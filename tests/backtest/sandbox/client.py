"""A client of the sandbox's private side that knows nothing of the sandbox's own code: signatures from the documentation."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import aiohttp
from websockets.asyncio.client import ClientConnection, connect

from backtest.sandbox.account import AccountSetting
from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.faults import FaultPlan
from backtest.sandbox.keys import ApiKey
from backtest.sandbox.venue import SandboxVenue
from bot.execution.fills import PLAIN, Costs, FillRules
from bot.execution.instruments import Instrument
from bot.market.funding_rates import FundingRates
from strategies.bars import HOUR_MS, Bar, BarSeries, Calendar
from tests.bot.market.scenes import T0

KEY = ApiKey("trader", "trader-secret")
FREE = Costs(taker_fee=Decimal("0.00055"), maker_fee=Decimal("0.0002"), slippage=Decimal(0))
RULES = Instrument(
    "BTCUSDT",
    tick_size=Decimal("0.1"),
    lot_size=Decimal("0.001"),
    minimum_quantity=Decimal("0.001"),
    minimum_notional=Decimal(5),
    maximum_market_quantity=Decimal(50),
    maximum_limit_quantity=Decimal(100),
    maximum_leverage=Decimal(100),
)


def signature(secret: str, text: str) -> str:
    """Lower-case hex of HMAC-SHA256."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def bars_of(*prices: tuple[float, float, float, float], symbol: str = "BTCUSDT", volume: float = 1000.0) -> BarSeries:
    """Hourly bars from ``T0`` of these opens, highs, lows and closes."""
    rows = [
        Bar(symbol, T0 + number * HOUR_MS, T0 + (number + 1) * HOUR_MS, *price, volume)
        for number, price in enumerate(prices)
    ]
    return BarSeries.of(rows, "60", Calendar.CONTINUOUS)


def level(price: float, bars: int = 12) -> BarSeries:
    """Bars that stay where they are."""
    return bars_of(*[(price, price, price, price)] * bars)


def trading_venue(
    *series: BarSeries,
    rules: Mapping[str, Instrument] | None = None,
    keys: tuple[ApiKey, ...] = (KEY,),
    tls: ssl.SSLContext | None = None,
    partial_pushes: int = 0,
    enforce_limits: bool | None = None,
    funding: Mapping[str, FundingRates] | None = None,
    fills: FillRules = PLAIN,
    faults: FaultPlan | None = None,
    **account: Any,
) -> SandboxVenue:
    """A stepped venue with an account, a bar after ``T0``."""
    settings = {"costs": FREE, "rules": fills, **account}
    return SandboxVenue(
        {one.symbol: one for one in series or (level(100.0),)},
        "60",
        ClockSetting.stepped(),
        start=T0,
        instruments=rules or {"BTCUSDT": RULES},
        account=AccountSetting(keys, **settings),
        tls=tls,
        partial_pushes=partial_pushes,
        enforce_limits=enforce_limits,
        funding=funding,
        faults=faults,
    )


@dataclass
class Client:
    """Signed requests to one venue."""

    venue: SandboxVenue
    session: aiohttp.ClientSession
    key: ApiKey = KEY
    headers: list[Mapping[str, str]] = field(default_factory=list)
    """Of the replies, newest last."""

    async def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The reply to a signed GET."""
        query = urlencode(parameters)
        target = f"{self.venue.rest_url}/v5/{path}" + (f"?{query}" if query else "")
        async with self.session.get(target, headers=self.signed(query)) as response:
            self.headers.append(response.headers)
            return await response.json()

    async def post(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The reply to a signed POST."""
        body = json.dumps(parameters)
        target = f"{self.venue.rest_url}/v5/{path}"
        async with self.session.post(target, data=body, headers=self.signed(body)) as response:
            self.headers.append(response.headers)
            return await response.json()

    async def order(self, side: str, quantity: str, price: str | None = None, **more: Any) -> dict[str, Any]:
        """The reply to a new order of BTCUSDT."""
        kind = {"orderType": "Market"} if price is None else {"orderType": "Limit", "price": price}
        return await self.post(
            "order/create", **{"category": "linear", "symbol": "BTCUSDT", "side": side, "qty": quantity, **kind, **more}
        )

    async def placed(self, side: str, quantity: str, price: str | None = None, **more: Any) -> str:
        """Id of a new order that was accepted."""
        reply = await self.order(side, quantity, price, **more)
        assert reply["retCode"] == 0, reply
        return reply["result"]["orderId"]

    async def shown(self, order_id: str) -> dict[str, Any]:
        """An order as the venue shows it."""
        reply = await self.get("order/realtime", category="linear", orderId=order_id)
        assert reply["retCode"] == 0, reply
        (row,) = reply["result"]["list"]
        return row

    async def position(self, symbol: str = "BTCUSDT") -> dict[str, Any]:
        """The one-way position of a symbol."""
        reply = await self.get("position/list", category="linear", symbol=symbol)
        assert reply["retCode"] == 0, reply
        (row,) = reply["result"]["list"]
        return row

    def signed(self, payload: str, **changed: str) -> dict[str, str]:
        """Headers of a request, with its signature."""
        stamp = changed.get("stamp", str(int(time.time() * 1000)))
        window = changed.get("window", "5000")
        return {
            "X-BAPI-API-KEY": self.key.key,
            "X-BAPI-TIMESTAMP": stamp,
            "X-BAPI-RECV-WINDOW": window,
            "X-BAPI-SIGN": signature(self.key.secret, f"{stamp}{self.key.key}{window}{payload}"),
            "Content-Type": "application/json",
        }


@asynccontextmanager
async def client_of(venue: SandboxVenue, key: ApiKey = KEY) -> AsyncIterator[Client]:
    """A started venue and a client of it."""
    async with venue, aiohttp.ClientSession() as session:
        yield Client(venue, session, key)


@asynccontextmanager
async def private_socket(venue: SandboxVenue, *topics: str, key: ApiKey = KEY) -> AsyncIterator[ClientConnection]:
    """A socket that has logged in and subscribed."""
    async with connect(venue.private_url) as socket:
        await log_in(socket, key)
        assert (await receive(socket))["success"]
        await socket.send(json.dumps({"op": "subscribe", "args": list(topics)}))
        assert (await receive(socket))["success"]
        yield socket


async def log_in(socket: ClientConnection, key: ApiKey = KEY) -> None:
    """Send the login; its answer is still to be read."""
    expires = int(time.time() * 1000) + 10_000
    sign = signature(key.secret, f"GET/realtime{expires}")
    await socket.send(json.dumps({"op": "auth", "args": [key.key, expires, sign]}))


async def receive(socket: ClientConnection) -> dict[str, Any]:
    """The next message."""
    async with asyncio.timeout(10):
        return json.loads(await socket.recv())


async def pushed(socket: ClientConnection, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Topic and row of the next rows."""
    found: list[tuple[str, dict[str, Any]]] = []
    while len(found) < count:
        message = await receive(socket)
        found += [(message["topic"], row) for row in message["data"]]
    return found
