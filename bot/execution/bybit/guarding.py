"""The stop loss of coins on Bybit's spot market: a conditional sale that holds them. Pure.

The spot market has no positions and no ``trading-stop``; levels can be attached to limit orders only, and a second conditional
sale of the same coins has nothing to sell. So one TP/SL order (``orderFilter=tpslOrder``) guards what is held: its coins are
occupied from the start, and no other order can take them away before it is triggered.
https://bybit-exchange.github.io/docs/v5/order/create-order
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from bot.execution.bybit.decode import VenueOrder, VenueOrderStatus
from bot.execution.fills.book import BookSide
from bot.execution.instruments import Instrument
from bot.orders import ZERO, Order, OrderType, Side, TriggerDirection
from bot.risk import guard_order_id


@dataclass(frozen=True, slots=True)
class Guard:
    """What a guard should be."""

    quantity: Decimal
    """Base units."""
    trigger: Decimal
    """The price that it sells at, once it falls to there."""

    def is_met_by(self, order: Order | VenueOrder) -> bool:
        """Whether an order is just that."""
        return (order.quantity, order.trigger_price) == (self.quantity, self.trigger)


def wanted_guard(book: BookSide, instrument: Instrument) -> Guard | None:
    """The guard that what is held should have; ``None`` where it needs none.

    Coins that a sale on its way takes are not guarded, as they could not be sold then. Less than the venue takes as an order
    cannot be guarded, and more than its largest market order is guarded up to that.
    """
    if book.stop_loss is None:
        return None
    leaving = ZERO
    for order in book.working:
        if order.side is Side.SELL:
            progress = book.progress.get(order.client_order_id)
            leaving += order.quantity - (ZERO if progress is None else progress.filled)
    held = max(ZERO, book.quantity - leaving)
    quantity = min(instrument.whole_lots(held), instrument.maximum_market_quantity)
    if (
        quantity < instrument.minimum_quantity
        or quantity * book.stop_loss < instrument.minimum_notional
        or not quantity
    ):
        return None
    return Guard(quantity, book.stop_loss)


def guard_order(wanted: Guard, book: BookSide, token: str, moment: int) -> Order:
    """The order that is a guard, by an id that follows from what the journal has.

    Args:
        wanted: what it is to be.
        book: of its symbol.
        token: of the run; see ``bot.risk.run_token``.
        moment: of the venue, milliseconds.
    """
    return Order(
        guard_order_id(token, book.symbol, book.guards + 1),
        book.symbol,
        Side.SELL,
        wanted.quantity,
        moment,
        moment,
        order_type=OrderType.MARKET,
        reduce_only=True,
        trigger_price=wanted.trigger,
        trigger_direction=TriggerDirection.FALL,
    )


def waits_for_a_rise(order: VenueOrder) -> bool:
    """Whether the venue took a guard when the price was at or below its trigger already.

    A request names no direction: a trigger above the price is taken for that of a take profit, and a fall does nothing then.
    """
    is_waiting = order.status is VenueOrderStatus.UNTRIGGERED
    return (
        is_waiting
        and order.base_price is not None
        and order.trigger_price is not None
        and (order.base_price <= order.trigger_price)
    )
