"""What the venue refuses at its door, in Bybit's words; the rules of form are those of the one fill model."""

from __future__ import annotations

from decimal import Decimal

from backtest.sandbox import refusals, rows
from backtest.sandbox.book import Book, as_order
from backtest.sandbox.records import Category, VenueOrder
from backtest.sandbox.refusals import VenueRefusal, bad_parameter, scaled
from bot.execution.fills import refusal
from bot.execution.instruments import Instrument
from bot.orders import ZERO, OrderReason, Side


def check_form(order: VenueOrder) -> None:
    """Grid, least and most: the rules of the one fill model.

    Raises:
        VenueRefusal: 10001 or 110094.
    """
    instrument = order.instrument
    price = order.price if order.price is not None else order.last_price
    if order.price is not None and order.price % instrument.tick_size:
        raise bad_parameter("params error: price is not a multiple of the tick size")
    reason = refusal(as_order(order, order.book.symbol), instrument, price=price)
    if reason is None:
        return
    if reason is OrderReason.BELOW_MINIMUM:
        if order.book.category is Category.SPOT:
            raise VenueRefusal(refusals.SPOT_BELOW_NOTIONAL)
        if order.quantity >= instrument.minimum_quantity:
            least = rows.plain(instrument.minimum_notional)
            message = f"Order does not meet minimum order value {least}USDT"
            raise VenueRefusal(refusals.BELOW_NOTIONAL, message)
        raise bad_parameter("The number of contracts exceeds minimum limit allowed")
    if reason is OrderReason.ABOVE_MAXIMUM:
        raise bad_parameter("The number of contracts exceeds maximum limit allowed")
    raise bad_parameter("Qty invalid")


def check_trigger(order: VenueOrder) -> None:
    """The price has not reached the trigger yet.

    Raises:
        VenueRefusal: 110092 or 110093.
    """
    trigger, price = order.trigger_price, order.last_price
    if trigger is None:
        return
    if order.trigger_direction == 1 and trigger <= price:
        message = f"expect Rising, but trigger_price[{scaled(trigger)}] <= current[{scaled(price)}]??LastPrice"
        raise VenueRefusal(refusals.NOT_RISING, message)
    if order.trigger_direction == 2 and trigger >= price:
        message = f"expect Falling, but trigger_price[{scaled(trigger)}] >= current[{scaled(price)}]??LastPrice"
        raise VenueRefusal(refusals.NOT_FALLING, message)


def check_reduction(book: Book, order: VenueOrder) -> None:
    """There is something that an order which may only reduce can reduce.

    Raises:
        VenueRefusal: 110017.
    """
    if not order.reduce_only or order.is_conditional:
        return
    if not book.quantity:
        raise VenueRefusal(refusals.REDUCE_ONLY, "current position is zero, cannot fix reduce-only order qty")
    if book.quantity * order.side.sign > 0:
        raise VenueRefusal(refusals.REDUCE_ONLY, "reduce-only order has same side with current position")


def check_levels(order: VenueOrder) -> None:
    """Attached levels fit the order.

    Raises:
        VenueRefusal: 10001.
    """
    if order.stop_loss is None and order.take_profit is None:
        return
    if order.reduce_only or order.close_on_trigger:
        raise bad_parameter("params error: reduceOnly order can not have takeProfit or stopLoss")
    base = order.trigger_price or order.price or order.last_price
    check_sides(order.instrument, order.side, base, order.stop_loss, order.take_profit)


def check_sides(
    instrument: Instrument, side: Side, base: Decimal, stop: Decimal | None, target: Decimal | None
) -> None:
    """Levels lie on the tick, and on the side of ``base`` that is theirs.

    Raises:
        VenueRefusal: 10001.
    """
    tick = instrument.tick_size
    name = "Buy" if side is Side.BUY else "Sell"
    for level, kind, below in ((stop, "StopLoss", side is Side.BUY), (target, "TakeProfit", side is Side.SELL)):
        if level is None:
            continue
        if level < 0 or level % tick:
            raise bad_parameter(f"params error: {kind} invalid")
        if (level >= base) if below else (level <= base):
            relation = "lower" if below else "higher"
            raise bad_parameter(
                f"{kind}:{scaled(level)} set for {name} position should {relation} than base_price:{scaled(base)}"
            )


def margin_of(book: Book, order: VenueOrder, quantity: Decimal) -> Decimal:
    """Initial margin of what an order would add to the position."""
    if order.reduce_only or order.close_on_trigger:
        return ZERO
    price = order.price if order.price is not None else order.last_price
    held = book.quantity
    adding = quantity if held * order.side.sign >= 0 else max(quantity - 2 * abs(held), ZERO)
    return adding * price / book.leverage
