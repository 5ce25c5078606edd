"""Bybit's REST replies as bars and instruments. Tolerant: the venue sends ``""`` for "not applicable" and drops fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from bot.errors import VenueError
from bot.execution.instruments import Category, Instrument, MarginTier
from bot.market.wire import number
from strategies.bars import Bar, Calendar, close_time_of

ZERO: Final = Decimal(0)
_KINDS: Final[Mapping[Category, str]] = {"linear": "linear contract", "spot": "pair of the spot market"}


def envelope_time(reply: Mapping[str, Any], endpoint: str) -> int:
    """The venue's clock in milliseconds, which every reply carries.

    Raises:
        VenueError: this one does not.
    """
    time = reply.get("time")
    if isinstance(time, bool) or not isinstance(time, int) or time <= 0:
        raise VenueError(f"{endpoint} sent a reply without its time; check that this is a Bybit v5 host")
    return time


def result_rows(reply: Mapping[str, Any], endpoint: str) -> Sequence[Any]:
    """The rows of a list reply.

    Raises:
        VenueError: there is no list.
    """
    result = reply.get("result")
    rows = result.get("list") if isinstance(result, Mapping) else None
    if not isinstance(rows, list):
        raise VenueError(f"{endpoint} sent a reply without a list; check that this is a Bybit v5 host")
    return rows


def next_cursor(reply: Mapping[str, Any]) -> str:
    """The cursor of the page after this one; empty on the last."""
    result = reply.get("result")
    cursor = result.get("nextPageCursor") if isinstance(result, Mapping) else None
    return cursor if isinstance(cursor, str) else ""


def decode_klines(
    rows: Sequence[Any], symbol: str, interval: str, calendar: Calendar, venue_time: int, endpoint: str
) -> list[Bar]:
    """The closed bars of a kline reply, oldest first, each once; a candle still forming at ``venue_time`` is left out.

    A price or volume that is missing or cannot be read is NaN: whoever uses the bar judges it.

    Raises:
        VenueError: a row has no open time.
    """
    bars: dict[int, Bar] = {}
    for row in rows:
        try:
            opened = int(row[0])
            closes = close_time_of(opened, interval, calendar)
        except (TypeError, ValueError, IndexError, KeyError, OverflowError, OSError):
            raise VenueError(
                f"{endpoint} sent a candle of {symbol} that has no open time ({str(row)[:60]}); "
                "check that this is a Bybit v5 host"
            ) from None
        if closes <= venue_time:
            values = [number(row[column]) if column < len(row) else number(None) for column in range(1, 6)]
            bars[opened] = Bar(symbol, opened, closes, *values)
    return [bars[opened] for opened in sorted(bars)]


def decode_instrument(symbol: str, row: Mapping[str, Any] | None, endpoint: str, category: Category) -> Instrument:
    """Trading rules from a row of ``instruments-info``; a field that is missing or empty takes the default.

    Raises:
        VenueError: there is no such row, it is not open for trading, or its tick or lot cannot be read.
    """
    if row is None:
        raise VenueError(f"symbol {symbol!r} is unknown at {endpoint}; use a {_KINDS[category]} such as BTCUSDT")
    status = row.get("status")
    if status not in ("Trading", "", None):
        raise VenueError(f"symbol {symbol!r} is not open for trading at {endpoint} (status {status}); choose another")
    price, lot, leverage, risk = (
        _part(row, name) for name in ("priceFilter", "lotSizeFilter", "leverageFilter", "riskParameters")
    )
    is_spot = category == "spot"
    tick, step = _decimal(price.get("tickSize")), _decimal(lot.get("basePrecision" if is_spot else "qtyStep"))
    if tick is None or step is None:
        raise VenueError(f"{endpoint} gives no tick or lot for symbol {symbol!r}; choose another symbol")
    base = Instrument(symbol)
    if is_spot:
        return _spot_instrument(symbol, tick, step, lot, _decimal(risk.get("priceLimitRatioX")) or base.price_limit)
    funding = row.get("fundingInterval")
    return Instrument(
        symbol=symbol,
        tick_size=tick,
        lot_size=step,
        minimum_quantity=_decimal(lot.get("minOrderQty")) or step,
        minimum_notional=_decimal(lot.get("minNotionalValue")) or base.minimum_notional,
        maximum_market_quantity=(
            _decimal(lot.get("maxMktOrderQty")) or _decimal(lot.get("maxOrderQty")) or base.maximum_market_quantity
        ),
        maximum_limit_quantity=_decimal(lot.get("maxOrderQty")) or base.maximum_limit_quantity,
        price_limit=_decimal(risk.get("priceLimitRatioX")) or base.price_limit,
        maximum_leverage=_decimal(leverage.get("maxLeverage")) or base.maximum_leverage,
        funding_interval_minutes=funding if isinstance(funding, int) and funding > 0 else base.funding_interval_minutes,
    )


def _spot_instrument(symbol: str, tick: Decimal, step: Decimal, lot: Mapping[str, Any], band: Decimal) -> Instrument:
    """Rules of a pair of coins: https://bybit-exchange.github.io/docs/v5/market/instrument."""
    base = Instrument(symbol)
    most = _decimal(lot.get("maxOrderQty"))
    return Instrument(
        symbol=symbol,
        tick_size=tick,
        lot_size=step,
        minimum_quantity=_decimal(lot.get("minOrderQty")) or step,
        minimum_notional=_decimal(lot.get("minOrderAmt")) or base.minimum_notional,
        maximum_market_quantity=_decimal(lot.get("maxMarketOrderQty")) or most or base.maximum_market_quantity,
        maximum_limit_quantity=_decimal(lot.get("maxLimitOrderQty")) or most or base.maximum_limit_quantity,
        price_limit=band,
        maximum_leverage=Decimal(1),
        is_spot=True,
    )


def decode_margin_tiers(rows: Iterable[Any], symbol: str, endpoint: str) -> tuple[MarginTier, ...]:
    """Margin tiers of a symbol from rows of ``risk-limit``, by increasing value; none where there are no rows.

    Rates were percentages in earlier versions of the reply, and are fractions now: the initial margin times the largest
    leverage tells, which is 1 (https://bybit-exchange.github.io/docs/v5/market/risk-limit).

    Raises:
        VenueError: a row has no limit or no rate.
    """
    tiers = []
    for row in rows:
        if not isinstance(row, Mapping) or row.get("symbol") not in (symbol, None):
            continue
        limit, rate, initial, leverage = (
            _decimal(row.get(name)) for name in ("riskLimitValue", "maintenanceMargin", "initialMargin", "maxLeverage")
        )
        if limit is None or rate is None:
            raise VenueError(
                f"{endpoint} sent a margin tier of {symbol} that cannot be read ({str(row)[:60]}); "
                "check that this is a Bybit v5 host"
            )
        is_percent = initial is not None and leverage is not None and initial * leverage > 10
        tiers.append(MarginTier(limit, rate / 100 if is_percent else rate, _decimal(row.get("mmDeduction")) or ZERO))
    return tuple(sorted(tiers, key=lambda tier: tier.up_to_value))


def decode_funding(rows: Iterable[Any], symbol: str, endpoint: str) -> list[tuple[int, Decimal]]:
    """Settlement times and rates from rows of ``funding/history``, oldest first, each once.

    Raises:
        VenueError: a row has no time or no rate.
    """
    found: dict[int, Decimal] = {}
    for row in rows:
        try:
            rate = Decimal(str(row["fundingRate"]))
            time = int(row["fundingRateTimestamp"])
        except (TypeError, KeyError, ValueError, InvalidOperation):
            rate, time = Decimal("nan"), 0
        if not rate.is_finite():
            raise VenueError(
                f"{endpoint} sent a funding rate of {symbol} that cannot be read ({str(row)[:60]}); "
                "check that this is a Bybit v5 host"
            )
        found[time] = rate
    return sorted(found.items())


def _part(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = row.get(name)
    return part if isinstance(part, Mapping) else {}


def _decimal(text: object) -> Decimal | None:
    """A positive decimal, or ``None`` for anything else."""
    try:
        value = Decimal(str(text))
    except InvalidOperation:
        return None
    return value if value.is_finite() and value > 0 else None
