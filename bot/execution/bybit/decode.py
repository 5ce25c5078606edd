"""Rows of Bybit's private interface as typed values: pushes and REST lists have the same fields.

Tolerant: an empty text means "not applicable", an enumeration that is new means unknown, a row without its name is left out.
Shapes: https://bybit-exchange.github.io/docs/v5/websocket/private/order and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

from bot.orders import ZERO, Side

Row = TypeVar("Row")
_LONGEST_NUMBER: Final = 64
SETTLE_COIN: Final = "USDT"
"""What contracts are settled in and coins are paid with."""


class VenueOrderStatus(StrEnum):
    """``orderStatus``: https://bybit-exchange.github.io/docs/v5/enum#orderstatus."""

    UNTRIGGERED = "Untriggered"
    TRIGGERED = "Triggered"
    NEW = "New"
    PARTIALLY_FILLED = "PartiallyFilled"
    FILLED = "Filled"
    CANCELLED = "Cancelled"
    PARTIALLY_FILLED_CANCELLED = "PartiallyFilledCanceled"
    REJECTED = "Rejected"
    DEACTIVATED = "Deactivated"
    UNKNOWN = "UNKNOWN"
    """One that this version does not know."""


FINAL: Final = frozenset(
    {
        VenueOrderStatus.FILLED,
        VenueOrderStatus.CANCELLED,
        VenueOrderStatus.PARTIALLY_FILLED_CANCELLED,
        VenueOrderStatus.REJECTED,
        VenueOrderStatus.DEACTIVATED,
    }
)
"""An order with one of these will not change any more."""


class ExecutionType(StrEnum):
    """``execType``: https://bybit-exchange.github.io/docs/v5/enum#exectype."""

    TRADE = "Trade"
    ADL = "AdlTrade"
    FUNDING = "Funding"
    BUST = "BustTrade"
    DELIVERY = "Delivery"
    SETTLE = "Settle"
    BLOCK_TRADE = "BlockTrade"
    CORPORATE_ACTION = "CorporateAction"
    UNKNOWN = "UNKNOWN"
    """One that this version does not know."""


class VenueOrder(msgspec.Struct, frozen=True):
    """An order as the venue has it."""

    order_id: str
    client_order_id: str
    """Empty where whoever sent it gave none."""
    symbol: str
    side: Side | None
    status: VenueOrderStatus
    quantity: Decimal
    filled: Decimal
    average_price: Decimal | None
    reason: str
    updated_at: int
    """Milliseconds."""
    stop_type: str = ""
    """``stopOrderType``: what of a position sent the order, ``Stop`` for a conditional one, empty for any other."""
    trigger_price: Decimal | None = None
    base_price: Decimal | None = None
    """Of the spot market: the last price when the order was placed."""

    @property
    def guards_position(self) -> bool:
        """Whether it is a level of a position: the venue makes and ends it together with that."""
        return is_protective(self.stop_type)

    @property
    def is_open(self) -> bool:
        """Whether it may still be filled; an unknown status counts as open, the more careful guess."""
        return self.status not in FINAL


class VenueExecution(msgspec.Struct, frozen=True):
    """A fill or a settlement as the venue has it."""

    execution_id: str
    order_id: str
    client_order_id: str
    symbol: str
    kind: ExecutionType
    side: Side | None
    quantity: Decimal
    price: Decimal
    fee: Decimal
    """Positive when paid; of a settlement of funding, what was paid."""
    is_maker: bool
    stop_type: str
    """``stopOrderType``: what of a position sent the order, empty for an order of its own."""
    time: int
    sequence: int
    fee_coin: str = ""
    """``feeCurrency``; empty where the venue does not say."""


class VenuePosition(msgspec.Struct, frozen=True):
    """A position as the venue has it."""

    symbol: str
    quantity: Decimal
    """Signed; 0 when flat."""
    average_price: Decimal
    stop_loss: Decimal | None
    take_profit: Decimal | None
    leverage: Decimal | None
    index: int
    """0 in one-way mode, 1 and 2 in hedge mode."""
    updated_at: int


class VenueWallet(msgspec.Struct, frozen=True):
    """What a unified account holds."""

    equity: Decimal | None
    """In USD; ``None`` where the venue does not say."""
    available: Decimal | None
    """``None`` also in isolated margin, where the venue sends nothing."""
    coins: dict[str, Decimal]
    """Balance by coin."""


def is_protective(stop_type: str) -> bool:
    """Whether ``stopOrderType`` names a level of a position (https://bybit-exchange.github.io/docs/v5/enum#stopordertype)."""
    return stop_type.endswith(("TakeProfit", "StopLoss", "TrailingStop"))


def decode_orders(rows: object) -> list[VenueOrder]:
    """Orders of a push or list; never raises."""
    return _each(rows, _order)


def decode_executions(rows: object) -> list[VenueExecution]:
    """Executions of a push or list; never raises."""
    return _each(rows, _execution)


def decode_positions(rows: object) -> list[VenuePosition]:
    """Positions of a push or list; never raises."""
    return _each(rows, _position)


def decode_wallets(rows: object) -> list[VenueWallet]:
    """Wallets of a push or list; never raises."""
    return _each(rows, _wallet)


def decimal_of(value: object) -> Decimal | None:
    """A finite number that was sent as text, or ``None`` for anything else."""
    text = value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""
    if not text or isinstance(value, bool) or "_" in text or len(text) > _LONGEST_NUMBER:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    # Beyond these exponents nothing is a price or a quantity, and sums would take for ever.
    return number if number.is_finite() and abs(number.adjusted()) <= _LONGEST_NUMBER else None


def time_of(value: object) -> int:
    """Milliseconds that were sent as text or number; 0 for anything else."""
    number = decimal_of(value)
    return int(number) if number is not None and 0 <= number < 2**53 else 0


def _each(rows: object, decode: Callable[[Mapping[str, Any]], Row | None]) -> list[Row]:
    found: Iterable[object] = rows if isinstance(rows, list | tuple) else ()
    decoded = (decode(row) for row in found if isinstance(row, Mapping))
    return [row for row in decoded if row is not None]


def _order(row: Mapping[str, Any]) -> VenueOrder | None:
    order_id, symbol = _text(row, "orderId"), _text(row, "symbol")
    if not order_id or not symbol:
        return None
    return VenueOrder(
        order_id,
        _text(row, "orderLinkId"),
        symbol,
        _side(row),
        _member(VenueOrderStatus, row.get("orderStatus"), VenueOrderStatus.UNKNOWN),
        _number(row, "qty"),
        _number(row, "cumExecQty"),
        _positive(row, "avgPrice"),
        _text(row, "rejectReason"),
        time_of(row.get("updatedTime")),
        _stop_type(row),
        _positive(row, "triggerPrice"),
        _positive(row, "basePrice"),
    )


def _execution(row: Mapping[str, Any]) -> VenueExecution | None:
    execution_id, symbol = _text(row, "execId"), _text(row, "symbol")
    if not execution_id or not symbol:
        return None
    return VenueExecution(
        execution_id,
        _text(row, "orderId"),
        _text(row, "orderLinkId"),
        symbol,
        _member(ExecutionType, row.get("execType"), ExecutionType.UNKNOWN),
        _side(row),
        _number(row, "execQty"),
        _number(row, "execPrice"),
        _number(row, "execFee"),
        row.get("isMaker") is True,
        _stop_type(row),
        time_of(row.get("execTime")),
        time_of(row.get("seq")),
        _text(row, "feeCurrency"),
    )


def _position(row: Mapping[str, Any]) -> VenuePosition | None:
    symbol, side = _text(row, "symbol"), _side(row)
    if not symbol:
        return None
    size = _number(row, "size")
    index = row.get("positionIdx")
    return VenuePosition(
        symbol,
        ZERO if side is None else size * side.sign,
        # REST says avgPrice, the stream entryPrice.
        _positive(row, "avgPrice") or _number(row, "entryPrice"),
        _positive(row, "stopLoss"),
        _positive(row, "takeProfit"),
        _positive(row, "leverage"),
        index if isinstance(index, int) else 0,
        time_of(row.get("updatedTime")),
    )


def _wallet(row: Mapping[str, Any]) -> VenueWallet:
    coins = row.get("coin")
    named = [coin for coin in coins if isinstance(coin, Mapping)] if isinstance(coins, list) else []
    return VenueWallet(
        decimal_of(row.get("totalEquity")),
        decimal_of(row.get("totalAvailableBalance")),
        {_text(coin, "coin"): _number(coin, "walletBalance") for coin in named if _text(coin, "coin")},
    )


Member = TypeVar("Member", bound=StrEnum)


def _member(kind: type[Member], value: Any, unknown: Member) -> Member:
    try:
        return kind(value)
    except ValueError:
        return unknown


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _stop_type(row: Mapping[str, Any]) -> str:
    text = _text(row, "stopOrderType")
    return "" if text == "UNKNOWN" else text


def _side(row: Mapping[str, Any]) -> Side | None:
    return {"Buy": Side.BUY, "Sell": Side.SELL}.get(_text(row, "side"))


def _number(row: Mapping[str, Any], name: str) -> Decimal:
    return decimal_of(row.get(name)) or ZERO


def _positive(row: Mapping[str, Any], name: str) -> Decimal | None:
    value = decimal_of(row.get(name))
    return value if value is not None and value > 0 else None
