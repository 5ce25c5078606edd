"""The sandbox's REST interface: public market routes of ``/v5``, answering in simulated time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from backtest.sandbox import protocol
from backtest.sandbox.keys import ServerClock
from backtest.sandbox.market_data import MarketData
from backtest.sandbox.refusals import ROUTE_NOT_FOUND, VenueRefusal, bad_parameter
from backtest.sandbox.tape import Tape
from bot.execution.instruments import Instrument

SPOT: Final = "spot"
EMPTY_CATEGORIES: Final = frozenset({"inverse", "option"})
"""Categories that exist and have no instruments here."""
MAXIMUM_SETTLEMENTS: Final = 200


class RestInterface:
    """Handlers of the public market routes."""

    def __init__(self, tape: Tape, clock: ServerClock, data: MarketData, instruments: Mapping[str, Instrument]) -> None:
        self._tape = tape
        self._data = data
        self._clock = clock
        self._instruments = instruments

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the routes; everything else that nobody claims is answered as an unknown route."""
        router.add_get("/v5/market/time", self._time)
        router.add_get("/v5/market/kline", self._kline)
        router.add_get("/v5/market/instruments-info", self._instruments_info)
        router.add_get("/v5/market/risk-limit", self._risk_limit)
        router.add_get("/v5/market/tickers", self._tickers)
        router.add_get("/v5/market/funding/history", self._funding_history)
        router.add_get("/v5/market/price-limit", self._price_limit)
        router.add_get("/v5/market/orderbook", self._order_book)
        router.add_get("/v5/system/status", self._status)
        router.add_route("*", "/{unknown:.*}", self._unknown_route)

    def _reply(self, result: protocol.JsonObject) -> web.Response:
        return web.json_response(protocol.reply(result, self._clock.now()))

    async def _unknown_route(self, request: web.Request) -> web.Response:
        raise VenueRefusal(ROUTE_NOT_FOUND, f"Route not found: {request.path}", status=404)

    async def _time(self, request: web.Request) -> web.Response:
        return self._reply(protocol.time_result(self._clock.now()))

    async def _kline(self, request: web.Request) -> web.Response:
        query = request.query
        category = query.get("category", protocol.CATEGORY)
        _check_category(category)
        symbol, interval = query.get("symbol", ""), query.get("interval", "")
        if symbol not in self._instruments:
            raise bad_parameter("params error: Symbol Is Invalid")
        if interval not in self._tape.intervals:
            raise bad_parameter("Invalid period!")
        limit = _limit(query.get("limit"), protocol.DEFAULT_KLINES, protocol.MAXIMUM_KLINES)
        first, last = _whole(query.get("start"), "start"), _whole(query.get("end"), "end")
        bars = self._tape.candles(symbol, interval, first, last, limit)
        return self._reply(protocol.kline_result(symbol, bars, category))

    async def _instruments_info(self, request: web.Request) -> web.Response:
        query = request.query
        if query.get("category") in EMPTY_CATEGORIES:
            return self._reply({"category": query["category"], "list": [], "nextPageCursor": ""})
        _check_category(query.get("category", ""))
        symbol = query.get("symbol")
        rows = [rules for _, rules in sorted(self._instruments.items())]
        if symbol:
            rows = [row for row in rows if row.symbol == symbol]
            if not rows:
                raise bad_parameter("params error: symbol invalid")
        if query["category"] == SPOT:
            spot = [protocol.spot_instrument_row(number, row) for number, row in enumerate(rows, start=1)]
            return self._reply({"category": SPOT, "list": spot})
        after = dict(parse_qsl(unquote(query.get("cursor", "")))).get("last", "")
        rows = [row for row in rows if row.symbol > after]
        limit = _limit(query.get("limit"), protocol.DEFAULT_INSTRUMENTS, protocol.MAXIMUM_INSTRUMENTS)
        return self._reply(protocol.instruments_result(rows[:limit], more=len(rows) > limit))

    async def _risk_limit(self, request: web.Request) -> web.Response:
        category = request.query.get("category", "")
        if category != protocol.CATEGORY and category not in EMPTY_CATEGORIES:
            raise bad_parameter("params error: Category is invalid")
        symbols = [self._symbol(request)] if request.query.get("symbol") else sorted(self._instruments)
        rows = [row for symbol in symbols for row in protocol.risk_limit_rows(self._instruments[symbol])]
        listed = rows if category == protocol.CATEGORY else []
        return self._reply({"category": category, "list": listed, "nextPageCursor": ""})

    async def _tickers(self, request: web.Request) -> web.Response:
        category = request.query.get("category", "")
        if category in EMPTY_CATEGORIES:
            return self._reply({"category": category, "list": []})
        _check_category(category)
        symbols = [self._symbol(request)] if request.query.get("symbol") else sorted(self._instruments)
        row = self._data.spot_ticker_row if category == SPOT else self._data.ticker_row
        rows = [row(symbol) for symbol in symbols]
        return self._reply({"category": category, "list": rows})

    async def _funding_history(self, request: web.Request) -> web.Response:
        query = request.query
        _check_category(query.get("category", ""))
        first, last = _whole(query.get("startTime"), "startTime"), _whole(query.get("endTime"), "endTime")
        if first is not None and last is None:
            raise bad_parameter("params error: endTime is required with startTime")
        limit = _limit(query.get("limit"), MAXIMUM_SETTLEMENTS, MAXIMUM_SETTLEMENTS)
        return self._reply(self._data.funding_history(self._symbol(request), first, last, limit))

    async def _price_limit(self, request: web.Request) -> web.Response:
        _check_category(request.query.get("category", protocol.CATEGORY))
        return self._reply(self._data.price_limit(self._symbol(request)))

    async def _order_book(self, request: web.Request) -> web.Response:
        _check_category(request.query.get("category", ""))
        now = self._clock.now()
        return self._reply({**self._data.order_book(self._symbol(request)), "ts": now, "cts": now})

    async def _status(self, request: web.Request) -> web.Response:
        return self._reply({"list": []})

    def _symbol(self, request: web.Request) -> str:
        symbol = request.query.get("symbol", "")
        if symbol not in self._instruments:
            raise bad_parameter("params error: symbol invalid")
        return symbol


def _check_category(category: str) -> None:
    if category not in (protocol.CATEGORY, SPOT):
        raise bad_parameter("params error: Category is invalid")


def _whole(text: str | None, name: str) -> int | None:
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdecimal():
        raise bad_parameter(f"params error: {name} invalid")
    return int(text)


def _limit(text: str | None, default: int, maximum: int) -> int:
    limit = _whole(text, "limit")
    if limit is None:
        return default
    if not 1 <= limit <= maximum:
        raise bad_parameter("params error: limit invalid")
    return limit
