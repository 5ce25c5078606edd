"""What a venue refuses at the door, whatever the market does."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from bot.execution.instruments import Instrument
from bot.orders import Order, OrderReason, OrderType

# Looking a member up in its enumeration costs as much as an addition of decimals.
_LIMIT: Final = OrderType.LIMIT


def refusal(order: Order, instrument: Instrument, *, price: Decimal | None = None) -> OrderReason | None:
    """Why the venue would not take an order; ``None`` where it would.

    Args:
        order: as it is sent.
        instrument: rules of its symbol.
        price: of the market, in quote units: what the value of a market order is measured by; ``None`` leaves the value
            of market orders unmeasured.
    """
    quantity, limit, trigger = order.quantity, order.limit_price, order.trigger_price
    is_limit = order.order_type is _LIMIT
    if (is_limit and limit is None) or (trigger is None) is not (order.trigger_direction is None):
        return OrderReason.INCOMPLETE
    if not quantity and order.close_on_trigger:
        return None
    tick = instrument.tick_size
    is_on_tick = (limit is None or not limit % tick) and (trigger is None or not trigger % tick)
    if quantity % instrument.lot_size or not is_on_tick:
        return OrderReason.OFF_GRID
    if quantity > (instrument.maximum_limit_quantity if is_limit else instrument.maximum_market_quantity):
        return OrderReason.ABOVE_MAXIMUM
    if quantity <= 0:
        return OrderReason.BELOW_MINIMUM
    if order.only_reduces:
        return None  # A position may be smaller than the minimum, and must be closed all the same.
    value_price = limit if is_limit else price
    is_worthless = value_price is not None and quantity * value_price < instrument.minimum_notional
    return OrderReason.BELOW_MINIMUM if is_worthless or quantity < instrument.minimum_quantity else None
