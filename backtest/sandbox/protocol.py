"""What Bybit's v5 interface puts on the wire for public market data, as plain values and bytes.

Shapes follow https://bybit-exchange.github.io/docs/v5/intro and recordings of the real linear stream: numbers that carry
money are decimal strings without exponent, times are integers in milliseconds (strings in kline rows).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

import msgspec

from bot.execution.instruments import Instrument
from strategies.bars import Bar

CATEGORY: Final = "linear"
MAXIMUM_KLINES: Final = 1000
DEFAULT_KLINES: Final = 200
MAXIMUM_INSTRUMENTS: Final = 1000
DEFAULT_INSTRUMENTS: Final = 500
MAXIMUM_ARGUMENT_CHARACTERS: Final = 21_000
OTHER_TOPICS: Final = frozenset({"tickers", "orderbook.1"})
"""Topics besides candles, without their symbol."""

JsonObject = dict[str, Any]


class KlineCandle(msgspec.Struct, frozen=True):
    """One element of a kline push, fields in the venue's order."""

    start: int
    end: int
    interval: str
    open: str
    close: str
    high: str
    low: str
    volume: str
    turnover: str
    confirm: bool
    timestamp: int


class KlinePush(msgspec.Struct, frozen=True):
    """One message of a ``kline.*`` topic, fields in the venue's order."""

    topic: str
    data: tuple[KlineCandle, ...]
    ts: int
    type: str = "snapshot"


_encoder: Final = msgspec.json.Encoder()


def number_text(value: float) -> str:
    """The shortest decimal that reads back as ``value``, without exponent and without a bare ``.0``."""
    text = repr(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def turnover_text(bar: Bar) -> str:
    """Quote volume of a bar, estimated as volume times typical price, because candle stores do not keep it."""
    turnover = bar.volume * (bar.high + bar.low + bar.close) / 3.0
    return number_text(round(turnover, 4)) if math.isfinite(turnover) else number_text(turnover)


def topic_of(symbol: str, interval: str) -> str:
    """``kline.60.BTCUSDT``."""
    return f"kline.{interval}.{symbol}"


def candle(bar: Bar, interval: str, *, confirm: bool, timestamp: int) -> KlineCandle:
    """A bar as an element of a kline push; ``timestamp`` stands for the candle's last match."""
    return KlineCandle(
        start=bar.open_time,
        end=bar.close_time - 1,
        interval=interval,
        open=number_text(bar.open),
        close=number_text(bar.close),
        high=number_text(bar.high),
        low=number_text(bar.low),
        volume=number_text(bar.volume),
        turnover=turnover_text(bar),
        confirm=confirm,
        timestamp=timestamp,
    )


def kline_push(symbol: str, interval: str, candles: Sequence[KlineCandle], time: int) -> str:
    """The text of one push."""
    return _encoder.encode(KlinePush(topic_of(symbol, interval), tuple(candles), time)).decode()


def kline_row(bar: Bar) -> list[str]:
    """A bar as a row of the REST reply: start, open, high, low, close, volume, turnover."""
    prices = (number_text(value) for value in (bar.open, bar.high, bar.low, bar.close, bar.volume))
    return [str(bar.open_time), *prices, turnover_text(bar)]


def forming(bar: Bar, time: int) -> Bar:
    """What a bar looks like at ``time``, before it closes.

    Volume grows with the elapsed share and the price has not moved yet, so that a client which mistakes an open candle
    for a closed one is found out, and nothing of the bar's future shows but its open.
    """
    share = (time - bar.open_time) / (bar.close_time - bar.open_time)
    volume = round(bar.volume * share, 8) if math.isfinite(bar.volume) else 0.0
    return Bar(bar.symbol, bar.open_time, bar.close_time, bar.open, bar.open, bar.open, bar.open, volume)


def reply(result: JsonObject, time: int) -> JsonObject:
    """The envelope of a successful REST reply."""
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": time}


def error(code: int, message: str, time: int) -> JsonObject:
    """The envelope of a refused REST request."""
    return {"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": time}


def time_result(time: int) -> JsonObject:
    """Result of ``/v5/market/time``."""
    return {"timeSecond": str(time // 1000), "timeNano": str(time * 1_000_000)}


def kline_result(symbol: str, bars: Sequence[Bar], category: str = CATEGORY) -> JsonObject:
    """Result of ``/v5/market/kline`` for bars in order; the venue lists them newest first."""
    return {"symbol": symbol, "category": category, "list": [kline_row(bar) for bar in reversed(bars)]}


def instrument_row(instrument: Instrument) -> JsonObject:
    """One row of ``/v5/market/instruments-info`` for a perpetual contract settled in USDT."""
    symbol = instrument.symbol
    tick = instrument.tick_size
    exponent = tick.as_tuple().exponent
    base = symbol.removesuffix("USDT") or symbol
    most_limit = format(instrument.maximum_limit_quantity, "f")
    band = instrument.price_limit
    return {
        "symbol": symbol,
        "contractType": "LinearPerpetual",
        "status": "Trading",
        "baseCoin": base,
        "quoteCoin": "USDT",
        "launchTime": "0",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(max(0, -exponent) if isinstance(exponent, int) else 0),
        "leverageFilter": {
            "minLeverage": "1",
            "maxLeverage": format(instrument.maximum_leverage, "f"),
            "leverageStep": "0.01",
        },
        "priceFilter": {
            "minPrice": format(tick, "f"),
            "maxPrice": format(tick * 19_999_998, "f"),
            "tickSize": format(tick, "f"),
        },
        "lotSizeFilter": {
            "maxOrderQty": most_limit,
            "minOrderQty": format(instrument.minimum_quantity, "f"),
            "qtyStep": format(instrument.lot_size, "f"),
            "postOnlyMaxOrderQty": most_limit,
            "maxMktOrderQty": format(instrument.maximum_market_quantity, "f"),
            "minNotionalValue": format(instrument.minimum_notional, "f"),
        },
        "unifiedMarginTrade": True,
        "fundingInterval": instrument.funding_interval_minutes,
        "settleCoin": "USDT",
        "copyTrading": "none",
        "upperFundingRate": "0.005",
        "lowerFundingRate": "-0.005",
        "isPreListing": False,
        "preListingInfo": None,
        "riskParameters": {"priceLimitRatioX": format(band, "f"), "priceLimitRatioY": format(2 * band, "f")},
        "displayName": "",
        "symbolType": "",
        "forbidUplWithdrawal": False,
    }


def spot_instrument_row(number: int, instrument: Instrument) -> JsonObject:
    """One row of ``/v5/market/instruments-info`` for a pair of the spot market."""
    lot, most_limit = format(instrument.lot_size, "f"), format(instrument.maximum_limit_quantity, "f")
    most_market = format(instrument.maximum_market_quantity, "f")
    band = instrument.price_limit
    return {
        "symbolId": number,
        "symbol": instrument.symbol,
        "baseCoin": instrument.symbol.removesuffix("USDT") or instrument.symbol,
        "quoteCoin": "USDT",
        "innovation": "0",
        "status": "Trading",
        "marginTrading": "none",
        "stTag": "0",
        "lotSizeFilter": {
            "basePrecision": lot,
            "quotePrecision": "0.0000001",
            "minOrderQty": format(instrument.minimum_quantity, "f"),
            "maxOrderQty": most_limit,
            "minOrderAmt": format(instrument.minimum_notional, "f"),
            "maxOrderAmt": "1000000000",
            "maxLimitOrderQty": most_limit,
            "maxMarketOrderQty": most_market,
            "postOnlyMaxLimitOrderSize": most_limit,
        },
        "priceFilter": {"tickSize": format(instrument.tick_size, "f")},
        "riskParameters": {"priceLimitRatioX": format(band, "f"), "priceLimitRatioY": format(2 * band, "f")},
        "symbolType": "",
    }


def instruments_result(instruments: Sequence[Instrument], *, more: bool) -> JsonObject:
    """Result of ``/v5/market/instruments-info``; ``more`` says that another page follows."""
    cursor = quote(f"first={instruments[0].symbol}&last={instruments[-1].symbol}", safe="") if more else ""
    return {"category": CATEGORY, "list": [instrument_row(row) for row in instruments], "nextPageCursor": cursor}


def risk_limit_rows(instrument: Instrument) -> list[JsonObject]:
    """Rows of ``/v5/market/risk-limit``, one for every margin tier; none where nobody has told them.

    Initial margins are the smallest that the symbol's leverage and the maintenance margin allow for.
    """
    rows: list[JsonObject] = []
    for number, tier in enumerate(instrument.margin_tiers, start=1):
        initial = max(1 / instrument.maximum_leverage, tier.maintenance_rate)
        rows.append(
            {
                "id": number,
                "symbol": instrument.symbol,
                "riskLimitValue": format(tier.up_to_value, "f"),
                "maintenanceMargin": format(tier.maintenance_rate, "f"),
                "initialMargin": format(initial, "f"),
                "isLowestRisk": int(number == 1),
                "maxLeverage": format((1 / initial).quantize(Decimal("0.01")), "f"),
                "mmDeduction": format(tier.deduction, "f") if tier.deduction else "",
            }
        )
    return rows


def acknowledgement(operation: str, connection: str, request: str, *, refusal: str = "") -> str:
    """The answer to a subscribe or unsubscribe request; ``refusal`` is the venue's reason when it does not succeed."""
    body = {"success": not refusal, "ret_msg": refusal, "conn_id": connection, "req_id": request, "op": operation}
    return json.dumps(body, separators=(",", ":"))


def pong(connection: str, request: str) -> str:
    """The linear stream's answer to ``{"op":"ping"}``."""
    body = {"success": True, "ret_msg": "pong", "conn_id": connection, "req_id": request, "op": "ping"}
    return json.dumps(body, separators=(",", ":"))


def complaint(message: str, connection: str) -> str:
    """The answer to a frame that is no request the stream knows; the socket stays open."""
    return json.dumps({"success": False, "ret_msg": message, "conn_id": connection}, separators=(",", ":"))


def first_bad_topic(
    arguments: Sequence[str], intervals: Collection[str], known: Mapping[str, object], held: set[str]
) -> str:
    """Why a subscription is refused, naming the first bad topic, or an empty string when every topic is good.

    One bad topic refuses the whole request, as on the real stream.
    """
    for topic in arguments:
        prefix, _, symbol = topic.rpartition(".")
        kind, _, code = prefix.partition(".")
        is_known = code in intervals if kind == "kline" else prefix in OTHER_TOPICS
        if not is_known:
            return f"error:handler not found,topic:{topic}"
        if symbol not in known:
            return f"Invalid symbol :[{topic}]"
        if topic in held:
            return f"error:already subscribed,topic:{topic}"
    return ""


def topic_push(topic: str, kind: str, data: JsonObject, time: int, **more: int) -> str:
    """The text of a push of ``tickers`` or ``orderbook``."""
    return json.dumps({"topic": topic, "type": kind, "data": data, **more, "ts": time}, separators=(",", ":"))
