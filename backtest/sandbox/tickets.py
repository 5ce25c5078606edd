"""What a client wrote, read and checked for its form: the parameters of orders (https://bybit-exchange.github.io/docs/v5/order/create-order)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from backtest.sandbox.records import Category
from backtest.sandbox.refusals import SPOT_FILTER, SPOT_NO_TRIGGER, SPOT_PARAMETER, VenueRefusal, bad_parameter
from bot.orders import ZERO, OrderType, Side, TimeInForce

LINK_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]*)?")
_SIDES: Final = {"Buy": Side.BUY, "Sell": Side.SELL}
_TYPES: Final = {"Market": OrderType.MARKET, "Limit": OrderType.LIMIT}
TPSL: Final = "tpslOrder"
"""``orderFilter`` and ``stopOrderType`` of a TP/SL order of the spot market: what it spends is held from the start."""
SPOT_FILTERS: Final = ("Order", TPSL, "StopOrder", "OcoOrder", "BidirectionalTpslOrder")
_TRIGGERS: Final = ("LastPrice", "IndexPrice", "MarkPrice")

Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ticket:
    """An order as a client wants it; nothing about it has been held against the market yet."""

    category: Category
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None
    time_in_force: TimeInForce
    link_id: str = ""
    index: int = 0
    reduce_only: bool = False
    close_on_trigger: bool = False
    trigger_price: Decimal | None = None
    trigger_direction: int = 0
    trigger_by: str = ""
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    in_quote: bool = False
    """Whether the quantity is in quote units, as that of a spot market purchase is."""


def read_ticket(parameters: Parameters) -> Ticket:
    """The order that the parameters of ``/v5/order/create`` ask for.

    Raises:
        VenueRefusal: 10001, naming the first parameter that is wrong.
    """
    category = read_category(parameters)
    side = _SIDES.get(text(parameters, "side"))
    if side is None:
        raise bad_parameter("params error: side invalid")
    order_type = _TYPES.get(text(parameters, "orderType"))
    if order_type is None:
        raise bad_parameter("params error: orderType invalid")
    quantity = number(parameters, "qty")
    if quantity is None or quantity < 0:
        raise bad_parameter("Qty invalid")
    price = number(parameters, "price") if order_type is OrderType.LIMIT else None
    if order_type is OrderType.LIMIT and (price is None or price <= 0):
        raise bad_parameter("Price invalid")
    _refuse_unknown_features(parameters)
    if category is Category.SPOT:
        _check_spot(parameters, order_type, side)
    direction = whole(parameters, "triggerDirection", 0)
    trigger = number(parameters, "triggerPrice") or None
    if trigger is not None and category is Category.LINEAR and direction not in (1, 2):
        raise bad_parameter("triggerDirection invalid")
    trigger_by = text(parameters, "triggerBy") or ("LastPrice" if trigger is not None else "")
    if trigger_by and trigger_by not in _TRIGGERS:
        raise bad_parameter("params error: triggerBy invalid")
    return Ticket(
        category,
        text(parameters, "symbol"),
        side,
        order_type,
        quantity,
        price,
        _time_in_force(parameters, order_type),
        link_id(parameters),
        whole(parameters, "positionIdx", 0),
        truth(parameters, "reduceOnly"),
        truth(parameters, "closeOnTrigger"),
        trigger,
        direction if trigger is not None else 0,
        trigger_by,
        number(parameters, "stopLoss") or None,
        number(parameters, "takeProfit") or None,
        category is Category.SPOT
        and order_type is OrderType.MARKET
        and side is Side.BUY
        and text(parameters, "marketUnit") != "baseCoin",
    )


def read_category(parameters: Parameters) -> Category:
    """The category asked for.

    Raises:
        VenueRefusal: 10001 for anything else.
    """
    try:
        return Category(text(parameters, "category"))
    except ValueError:
        raise bad_parameter("params error: Category is invalid") from None


def read_name(parameters: Parameters) -> tuple[str, str]:
    """The order id and the client's own id by which an order is named; the first counts where both are given.

    Raises:
        VenueRefusal: 10001 when there is neither.
    """
    order_id, own = text(parameters, "orderId"), text(parameters, "orderLinkId")
    if not order_id and not own:
        raise bad_parameter("params error: OrderId or orderLinkId is required")
    return order_id, own


def link_id(parameters: Parameters) -> str:
    """The client's own id of a new order.

    Raises:
        VenueRefusal: 10001 when it is too long or has other characters than letters, digits, dash and underscore.
    """
    name = text(parameters, "orderLinkId")
    if len(name) > 36:
        raise bad_parameter("order link id is longer than 45")
    if name and LINK_ID.fullmatch(name) is None:
        raise bad_parameter("params error: OrderLinkId invalid")
    return name


def text(parameters: Parameters, name: str) -> str:
    """A parameter as text; empty where it is absent."""
    value = parameters.get(name)
    return "" if value is None else str(value)


def number(parameters: Parameters, name: str) -> Decimal | None:
    """A parameter as a decimal; ``None`` where it is absent or empty.

    Raises:
        VenueRefusal: 10001 when it is no number, or one with an exponent.
    """
    value = text(parameters, name)
    if not value:
        return None
    if len(value) > 64 or _NUMBER.fullmatch(value) is None:
        raise bad_parameter(f"params error: {name} invalid")
    try:
        return Decimal(value)
    except InvalidOperation:
        raise bad_parameter(f"params error: {name} invalid") from None


def whole(parameters: Parameters, name: str, default: int) -> int:
    """A parameter as an integer.

    Raises:
        VenueRefusal: 10001 when it is none.
    """
    value = text(parameters, name)
    if not value:
        return default
    if len(value) > 18 or re.fullmatch(r"-?[0-9]+", value) is None:
        raise bad_parameter(f"params error: {name} invalid")
    return int(value)


def truth(parameters: Parameters, name: str) -> bool:
    """A parameter as a truth value."""
    return text(parameters, name).lower() == "true"


def _time_in_force(parameters: Parameters, order_type: OrderType) -> TimeInForce:
    """As asked for; market orders are always IOC, as at Bybit."""
    if order_type is OrderType.MARKET:
        return TimeInForce.IOC
    try:
        return TimeInForce(text(parameters, "timeInForce") or "GTC")
    except ValueError:
        raise bad_parameter("params error: timeInForce invalid") from None


def _check_spot(parameters: Parameters, order_type: OrderType, side: Side) -> None:
    """What sort of order of the spot market it is, and that its parameters fit that."""
    kind, trigger = order_filter(parameters), number(parameters, "triggerPrice")
    if number(parameters, "stopLoss") or number(parameters, "takeProfit"):
        if order_type is OrderType.MARKET:
            raise VenueRefusal(SPOT_PARAMETER)
        raise bad_parameter("the sandbox has no levels at the orders of its spot market")
    if kind == TPSL and not trigger:
        raise VenueRefusal(SPOT_NO_TRIGGER)
    if (kind != TPSL and trigger) or kind not in ("Order", TPSL):
        raise bad_parameter("of the conditional orders of the spot market the sandbox has orderFilter tpslOrder only")
    if kind == TPSL and order_type is OrderType.MARKET and side is Side.BUY:
        raise bad_parameter("the sandbox has no TP/SL orders that buy at market")


def order_filter(parameters: Parameters) -> str:
    """Which sort of orders of the spot market is meant: ordinary ones, where none is named.

    Raises:
        VenueRefusal: 170201: there is no such sort.
    """
    kind = text(parameters, "orderFilter") or "Order"
    if kind not in SPOT_FILTERS:
        raise VenueRefusal(SPOT_FILTER)
    return kind


def _refuse_unknown_features(parameters: Parameters) -> None:
    """Say so where the real venue has something that this one has not, rather than trade without it."""
    if text(parameters, "tpslMode") == "Partial" or "Limit" in (
        text(parameters, "tpOrderType"),
        text(parameters, "slOrderType"),
    ):
        raise bad_parameter("the sandbox has tpslMode Full with market orders only")
    if text(parameters, "bboSideType") or text(parameters, "slippageToleranceType"):
        raise bad_parameter("the sandbox has neither bboSideType nor slippageToleranceType")
    if (number(parameters, "stopLoss") or ZERO) < 0 or (number(parameters, "takeProfit") or ZERO) < 0:
        raise bad_parameter("params error: takeProfit or stopLoss invalid")
