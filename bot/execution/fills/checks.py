"""What a venue refuses at the door, whatever the market does."""

from __future__ import annotations

from decimal import Decimal

from bot.execution.instruments import Instrument
from bot.orders import Order, OrderReason, OrderType


def refusal(order: Order, instrument: Instrument, *, price: Decimal | None = None) -> OrderReason | None:
    """Why the venue would not take an order; ``None`` where it would.

    Args:
        order: as it is sent.
        instrument: rules of its symbol.
        price: of the market, in quote units: what the value of a market order is measured by; ``None`` leaves the value
            of market orders unmeasured.
    """
    is_limit = order.order_type is OrderType.LIMIT
    if (is_limit and order.limit_price is None) or (order.trigger_price is None) != (order.trigger_direction is None):
        return OrderReason.INCOMPLETE
    quantity, limit = order.quantity, order.limit_price
    if not quantity and order.close_on_trigger:
        return None
    if quantity % instrument.lot_size or any(
        level is not None and level % instrument.tick_size for level in (limit, order.trigger_price)
    ):
        return OrderReason.OFF_GRID
    most = instrument.maximum_limit_quantity if is_limit else instrument.maximum_market_quantity
    if quantity > most:
        return OrderReason.ABOVE_MAXIMUM
    if order.only_reduces:
        # A position may be smaller than the minimum, and must be closed all the same.
        return None if quantity > 0 else OrderReason.BELOW_MINIMUM
    value_price = limit if is_limit else price
    if quantity <= 0 or quantity < instrument.minimum_quantity:
        return OrderReason.BELOW_MINIMUM
    if value_price is not None and quantity * value_price < instrument.minimum_notional:
        return OrderReason.BELOW_MINIMUM
    return None
