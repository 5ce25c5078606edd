"""One book of the account: the fill model of one position, and what its answers mean for the venue's orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

import msgspec

from backtest.sandbox.records import BookKey, Status, VenueOrder
from bot.execution.fills import BookSide, Costs, FillModel, FillRules
from bot.execution.fills.margin import maintenance_margin, worst_price
from bot.execution.instruments import Instrument
from bot.orders import ZERO, Execution, Order, OrderReason, OrderUpdate, TriggerDirection
from strategies.bars import Bar

_DIRECTIONS: Final = {1: TriggerDirection.RISE, 2: TriggerDirection.FALL}
# https://bybit-exchange.github.io/docs/v5/enum#rejectreason and #canceltype
REJECT_REASONS: Final = {
    OrderReason.POST_ONLY: "EC_PostOnlyWillTakeLiquidity",
    OrderReason.IMMEDIATE_OR_CANCEL: "EC_NoImmediateQtyToFill",
    OrderReason.FILL_OR_KILL: "EC_NoEnoughQtyToFill",
    OrderReason.REDUCE_ONLY: "EC_PerCancelRequest",
    OrderReason.PRICE_BAND: "EC_PriceNotInRange",
}
CANCEL_TYPES: Final = {
    OrderReason.CLIENT: "CancelByUser",
    OrderReason.REDUCE_ONLY: "CancelByReduceOnly",
    OrderReason.LIQUIDATION: "CancelByPrepareLiq",
}


@dataclass(frozen=True, slots=True)
class Levels:
    """Prices that protect a position; ``None`` for none."""

    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None

    def filled_up(self, others: Levels) -> Levels:
        """These, and the others' where there is none."""
        return Levels(
            others.stop_loss if self.stop_loss is None else self.stop_loss,
            others.take_profit if self.take_profit is None else self.take_profit,
        )


class Book:
    """Orders and position of one ``BookKey``.

    Args:
        key: which.
        instrument: rules of its symbol.
        costs: of trading in it.
        rules: how orders meet bars.
        leverage: value over initial margin, where the position can be liquidated.
    """

    def __init__(self, key: BookKey, instrument: Instrument, costs: Costs, rules: FillRules, leverage: Decimal) -> None:
        self.key = key
        self.instrument = instrument
        self.leverage = leverage
        # A venue lets no order wait longer than the way to it took.
        rules = replace(rules, delay_bars=0)
        self._model = FillModel(costs, {key.name: msgspec.structs.replace(instrument, symbol=key.name)}, rules)
        self.lever(leverage)
        self._own: dict[str, Levels] = {}
        self.used_volume = 0.0
        """Volume of the bar that forms which orders on arrival have used up."""

    @property
    def _side(self) -> BookSide:
        return self._model.books[self.key.name]

    @property
    def quantity(self) -> Decimal:
        """Of the position; negative when short."""
        return self._side.quantity

    @property
    def levels(self) -> Levels:
        """What protects the position."""
        return Levels(self._side.stop_loss, self._side.take_profit)

    @property
    def liquidation(self) -> tuple[Decimal | None, Decimal | None]:
        """Price at which the venue takes the position over, and the one that it is closed at then."""
        return self._side.liquidation, self._side.bankruptcy

    def maintenance(self, value: Decimal) -> Decimal:
        """Maintenance margin of a position of that value, in quote units."""
        return maintenance_margin(value, self.instrument, self._model.rules.maintenance_rate)

    def worst_price(self, bar: Bar) -> Decimal:
        """The worst that a bar of the symbol can do to the position."""
        return worst_price(self._side, bar)

    def liquidate(self, bar: Bar, price: Decimal) -> tuple[Sequence[OrderUpdate], Sequence[Execution]]:
        """Let the venue close the position around ``price`` and cancel what waits, in a bar of the symbol."""
        name = self.key.name
        executions = self._model.liquidate({name: price}, {name: self._shown(bar)}, bar.open_time)
        return self._model.take_updates(), executions

    def lever(self, leverage: Decimal) -> None:
        """Give positions that are opened from now on another leverage."""
        self.leverage = leverage
        self._model.rules = replace(self._model.rules, leverage=leverage)
        self._model.restore(self._model.state())

    def change_rules(self, instrument: Instrument) -> None:
        """Give orders from now on other rules of the same grid."""
        self.instrument = instrument
        self._model.instruments[self.key.name] = msgspec.structs.replace(instrument, symbol=self.key.name)
        self._model.restore(self._model.state())

    def submit(self, order: VenueOrder) -> None:
        """Let an order wait for the next bar that is shown."""
        self._own[order.order_id] = Levels(order.stop_loss, order.take_profit)
        self._model.submit(as_order(order, self.key.name))

    def cancel(self, order_id: str, time: int) -> bool:
        """Take an order back; ``False`` where it does not wait."""
        cancelled = self._model.cancel(order_id, time=time) is not None
        self._model.take_updates()
        return cancelled

    def amend(self, order: VenueOrder, time: int) -> bool:
        """Let a waiting order have the quantity, prices and levels that ``order`` says; ``False`` where none waits."""
        update = self._model.amend(
            order.order_id,
            time=time,
            quantity=order.quantity,
            limit_price=order.price,
            trigger_price=order.trigger_price,
        )
        self._model.take_updates()
        if update is None:
            return False
        self._own[order.order_id] = Levels(order.stop_loss, order.take_profit)
        return True

    def protect(self, levels: Levels) -> None:
        """Set what protects the position, where there is one."""
        self._model.protect(self.key.name, stop_loss=levels.stop_loss, take_profit=levels.take_profit)

    def has_waiting(self, order_id: str) -> bool:
        """Whether an order waits to be filled, or filled further."""
        return any(waiting.client_order_id == order_id for waiting in self._side.working)

    def limit_of(self, order_id: str) -> Decimal | None:
        """The limit price that a waiting order has by now."""
        for waiting in self._side.working:
            if waiting.client_order_id == order_id:
                return waiting.limit_price
        return None

    def own_levels(self, order_id: str) -> Levels:
        """What an order brings itself."""
        return self._own.get(order_id, Levels())

    def _lend_levels(self) -> None:
        """Let orders that add to the position keep its levels, where they bring none of their own, and those that reduce it.

        For the fill model the levels of an order are those that the position has afterwards.
        """
        side, levels = self._side, self.levels
        reducing = sum((order.quantity for order in side.working if side.quantity * order.side.sign < 0), ZERO)
        self._own = {order.client_order_id: self.own_levels(order.client_order_id) for order in side.working}
        for place, order in enumerate(side.working):
            own = self.own_levels(order.client_order_id)
            if side.quantity * order.side.sign > 0:
                wanted = own.filled_up(levels)
            else:
                # Where they are more than the position together, one of them may open the opposite one.
                wanted = levels if reducing <= abs(side.quantity) else own
            if (order.stop_loss, order.take_profit) != (wanted.stop_loss, wanted.take_profit):
                side.working[place] = msgspec.structs.replace(
                    order, stop_loss=wanted.stop_loss, take_profit=wanted.take_profit
                )

    def meet(self, bar: Bar) -> tuple[Sequence[OrderUpdate], Sequence[Execution]]:
        """Show a bar to the matching: what it does to orders besides filling them, and its fills."""
        self._lend_levels()
        executions = self._model.on_bar(self._shown(bar))
        return self._model.take_updates(), executions

    def _shown(self, bar: Bar) -> Bar:
        """A bar under the name that the matching knows."""
        return Bar(self.key.name, bar.open_time, bar.close_time, bar.open, bar.high, bar.low, bar.close, bar.volume)

    def arrive(self, bar: Bar) -> tuple[Sequence[OrderUpdate], Sequence[Execution]]:
        """Show the price of the moment, to what has just come; ``bar`` is flat and has the volume of the one that forms."""
        updates, executions = self.meet(_less(bar, self.used_volume))
        share = self._model.rules.participation
        if share:
            self.used_volume += float(sum((each.quantity for each in executions), ZERO)) / share
        return updates, executions

    def close(self, bar: Bar) -> tuple[Sequence[OrderUpdate], Sequence[Execution]]:
        """Show a bar that has closed, with the volume that orders on arrival have left of it."""
        used, self.used_volume = self.used_volume, 0.0
        return self.meet(_less(bar, used))


def as_order(order: VenueOrder, symbol: str) -> Order:
    """An order as the fill model takes it; its name there is the venue's id."""
    return Order(
        order.order_id,
        symbol,
        order.side,
        order.quantity,
        order.created,
        order.created,
        order.order_type,
        order.price,
        order.reduce_only,
        order.stop_loss,
        order.take_profit,
        order.time_in_force,
        order.trigger_price,
        _DIRECTIONS.get(order.trigger_direction),
        order.close_on_trigger,
    )


def _less(bar: Bar, volume: float) -> Bar:
    if not volume:
        return bar
    left = max(0.0, bar.volume - volume)
    return Bar(bar.symbol, bar.open_time, bar.close_time, bar.open, bar.high, bar.low, bar.close, left)


def cancelled_status(order: VenueOrder, *, by_user: bool) -> Status:
    """What an order becomes that is cancelled: one that never came to the market is deactivated."""
    if by_user and order.is_conditional:
        return Status.DEACTIVATED
    if order.filled and order.book.category == "spot":
        return Status.PARTIALLY_FILLED_CANCELLED
    return Status.CANCELLED
