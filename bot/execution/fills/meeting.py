"""How a bar goes through a book.

Timing: an order decided at the close of bar *t* meets bar *t + 1* first. Inside a bar the order of events is unknown but for
the open, so the one is assumed that is worst for the account:

1. At the open: what is left of a stop or target that an earlier bar reached; see ``levels``. Then, in the order of submission:
   market orders fill, worsened as ``pricing`` says. Limit orders that come to the market either take at once, at their limit,
   or begin to wait. Conditional orders that the open has triggered are what their type says.
2. Limit orders that wait fill only when the price went *through* the limit, at the limit, as maker, after the volume that
   stood before them. Conditional orders are triggered by a touch and fill at the trigger price or worse. Those that open or
   add to a position come before its stop loss is looked at, those that reduce or turn it after.
3. The stop loss is looked at before the take profit, and whichever is nearer of stop loss and liquidation is reached first.
4. The take profit fills only when the price went through it, and never in a bar in which a limit or conditional order
   filled after the open, as the price may have been there first.

Where a bar's volume limits what an account can have, all that it does with the symbol shares ``Pricing.budget``. For a limit
order that waits, the volume of a bar counts with the share of its range that lies beyond the limit, as if every price had
traded alike; it fills those who stood before first, and of the rest ``participation`` comes to the order.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from bot.execution.fills.book import BookSide, Progress
from bot.execution.fills.levels import LevelExits
from bot.execution.fills.moment import Moment, is_beyond
from bot.execution.fills.rules import BandAction
from bot.execution.instruments import exact
from bot.orders import (
    ZERO,
    Execution,
    ExecutionKind,
    Order,
    OrderReason,
    OrderStatus,
    OrderType,
    OrderUpdate,
    Side,
    TimeInForce,
    TriggerDirection,
)
from strategies.bars import Bar

# Looking a member up in its enumeration costs as much as an addition of decimals.
_LIMIT_ORDER: Final = OrderType.LIMIT
_MARKET: Final = ExecutionKind.MARKET
_LIMIT: Final = ExecutionKind.LIMIT
_TAKEN: Final = ExecutionKind.TAKEN
_BUY: Final = Side.BUY
_REASONS: Final = {TimeInForce.IOC: OrderReason.IMMEDIATE_OR_CANCEL, TimeInForce.FOK: OrderReason.FILL_OR_KILL}
_AT_ONCE: Final = frozenset(_REASONS)


class Meetings:
    """What bars of one symbol do to the orders and the position of its book, one bar after the other."""

    __slots__ = ("_kept", "_levels", "_moment", "_updates")

    def __init__(self, moment: Moment, updates: list[OrderUpdate]) -> None:
        """
        Args:
            moment: of the book.
            updates: what happens to orders besides fills is appended to it.
        """
        self._moment = moment
        self._levels = LevelExits(moment)
        self._updates = updates
        self._kept: dict[str, Order] = {}

    @property
    def executions(self) -> list[Execution]:
        """Of the bar that was met last, in the order in which they are assumed to have happened."""
        return self._moment.executions

    def meet(self, bar: Bar) -> tuple[float, float] | None:
        """Let everything happen, and leave in the book what still waits.

        Returns the book's quiet range, where it is known already.
        """
        book, levels = self._moment.book, self._levels
        self._moment.begin(bar)
        if book.leaving is not None:
            levels.go_on()
        waiting = book.working
        standing: list[Order] = []
        if waiting:
            book.working = []
            self._kept = {}
            standing = self._open(waiting)
        quiet = book.quiet_range()
        if standing:
            self._go_through(standing)
        elif bar.low <= quiet[0] or bar.high >= quiet[1]:
            levels.look_at_stop()
            levels.look_at_target()
        elif not self._kept:
            return quiet
        if waiting and self._kept:
            names = [order.client_order_id for order in waiting]
            book.working = [self._kept[name] for name in names if name in self._kept]
            if not book.quantity:
                self._drop_reductions()
        return None

    def liquidate(self, bar: Bar, price: Decimal) -> None:
        """Let the venue take over what is held, around ``price``, and cancel what waits."""
        book = self._moment.book
        self._moment.begin(bar)
        for order in book.working:
            self._cancel(order, OrderReason.LIQUIDATION)
        book.working = []
        if book.quantity:
            self._levels.take_over(price)

    # -- phases ----------------------------------------------------------------------------------------------

    def _open(self, waiting: list[Order]) -> list[Order]:
        """What the open does to the orders that wait; answers with those that the rest of the bar may reach."""
        standing: list[Order] = []
        stages = self._moment.book.progress
        for order in waiting:
            progress = stages.get(order.client_order_id) if stages else None
            if progress is not None and progress.wait:
                self._keep(order)
                continue
            if order.trigger_price is not None and (progress is None or not progress.triggered):
                if not _has_triggered(order, self._moment.opened, self._moment.opened):
                    standing.append(order)
                    continue
                self._trigger(order)
            if order.only_reduces and self._moment.book.quantity * order.side.sign >= 0:
                self._cancel(order, OrderReason.REDUCE_ONLY)
            elif order.order_type is not _LIMIT_ORDER:
                self._take(order, self._moment.opened, _MARKET, sent=True)
            elif progress is not None and progress.rests:
                standing.append(order)
            else:
                placed = self._place(order, self._moment.opened, sent=True)
                if placed is not None:
                    standing.append(placed)
        return standing

    def _go_through(self, standing: list[Order]) -> None:
        """Let the rest of the bar reach orders, and look at the levels of the position where that hurts most."""
        exits: list[Order] = []
        before = len(self._moment.executions)
        for order in standing:
            if not self._is_reached(order):
                self._keep(order)
            elif self._moment.book.quantity * order.side.sign < 0:
                exits.append(order)
            else:
                self._reach(order)
        self._levels.look_at_stop()
        # Orders that cut a loss come before those that take a profit.
        exits.sort(key=lambda order: not self._is_waiting_for_trigger(order))
        for order in exits:
            self._reach(order)
            self._levels.look_at_stop()
        if not any(execution.kind in (_LIMIT, _MARKET, _TAKEN) for execution in self._moment.executions[before:]):
            self._levels.look_at_target()

    def _drop_reductions(self) -> None:
        """Cancel orders that could only have reduced a position that is gone; triggers go on waiting for the next one."""
        book = self._moment.book
        kept = []
        for order in book.working:
            if order.only_reduces and not self._is_waiting_for_trigger(order):
                self._cancel(order, OrderReason.REDUCE_ONLY)
            else:
                kept.append(order)
        book.working = kept

    # -- single orders ---------------------------------------------------------------------------------------

    def _is_waiting_for_trigger(self, order: Order) -> bool:
        progress = self._moment.book.progress.get(order.client_order_id)
        return order.trigger_price is not None and (progress is None or not progress.triggered)

    def _is_reached(self, order: Order) -> bool:
        """Whether the range of the bar triggers an order, or goes through its limit."""
        bar = self._moment.bar
        low, high = exact(bar.low), exact(bar.high)
        if self._is_waiting_for_trigger(order):
            return _has_triggered(order, low, high)
        # Touching a limit is not enough, as others queue there first.
        assert order.limit_price is not None
        return low < order.limit_price if order.side is _BUY else high > order.limit_price

    def _reach(self, order: Order) -> None:
        if not self._is_waiting_for_trigger(order):
            self._fill_limit(order)
            return
        assert order.trigger_price is not None
        self._trigger(order)
        if order.only_reduces and self._moment.book.quantity * order.side.sign >= 0:
            self._cancel(order, OrderReason.REDUCE_ONLY)
        elif order.order_type is not _LIMIT_ORDER:
            self._take(order, order.trigger_price, _MARKET, sent=False)
        else:
            placed = self._place(order, order.trigger_price, sent=False)
            if placed is not None:
                # Whether the price went through its limit before or after the trigger is not known.
                self._keep(placed)

    def _trigger(self, order: Order) -> None:
        self._progress(order).triggered = True
        self._tell(order, OrderStatus.TRIGGERED)

    def _place(self, order: Order, market: Decimal, *, sent: bool) -> Order | None:
        """Bring a limit order to the market, where the price is ``market``; answers with it if it waits there."""
        assert order.limit_price is not None
        is_buy = order.side is _BUY
        edge = self._edge(market, order.side)
        if edge is not None and is_beyond(edge, order.limit_price, is_buy) and edge != order.limit_price:
            if self._moment.rules.price_band is BandAction.REJECT:
                self._cancel(order, OrderReason.PRICE_BAND)
                return None
            order = msgspec.structs.replace(order, limit_price=edge)
            self._tell(order, OrderStatus.AMENDED, OrderReason.PRICE_BAND)
        assert order.limit_price is not None
        if is_beyond(market, order.limit_price, is_buy) and market != order.limit_price:
            if order.time_in_force is TimeInForce.POST_ONLY:
                self._cancel(order, OrderReason.POST_ONLY)
            else:
                self._take(order, market, _TAKEN, sent=sent)
            return None
        if order.time_in_force in _AT_ONCE:
            self._cancel(order, _REASONS[order.time_in_force])
            return None
        self._rest(order)
        return order

    def _edge(self, market: Decimal, side: Side) -> Decimal | None:
        """The worst price that the venue lets a limit order have; ``None`` where it does not care."""
        instrument = self._moment.instrument
        return instrument.highest_bid(market) if side is _BUY else instrument.lowest_offer(market)

    def _rest(self, order: Order) -> None:
        """Let a limit order wait at the market, behind those who are there."""
        progress, moment = self._progress(order), self._moment
        progress.rests = True
        if moment.rules.queue:
            progress.ahead = moment.pricing.lots(moment.rules.queue * moment.bar.volume)
        self._tell(order, OrderStatus.RESTING)

    def _take(self, order: Order, market: Decimal, kind: ExecutionKind, *, sent: bool) -> None:
        """Fill an order at once as far as the bar allows, and let the rest wait or cancel it."""
        wanted = self._wanted(order)
        budget = self._moment.budget
        if budget is None:
            self._fill(order, self._taken(order, market, wanted, sent), wanted, kind, wanted)
            return
        granted = min(wanted, budget)
        if granted < wanted and order.time_in_force is TimeInForce.FOK:
            granted = ZERO
        if granted:
            self._fill(order, self._taken(order, market, granted, sent), granted, kind, wanted)
        if granted < wanted:
            if order.time_in_force in _AT_ONCE:
                self._cancel(order, _REASONS[order.time_in_force])
            else:
                if kind is _TAKEN:
                    self._rest(order)
                self._keep(order)

    def _taken(self, order: Order, market: Decimal, quantity: Decimal, sent: bool) -> Decimal:
        """The price at which an order takes."""
        limit, moment = order.limit_price, self._moment
        if limit is not None and not moment.rules.improve_limits:
            return limit
        price = moment.pricing.taken(market, order.side, quantity, moment.bar, sent=sent)
        if limit is None:
            return price
        return min(limit, price) if order.side is _BUY else max(limit, price)

    def _fill_limit(self, order: Order) -> None:
        """Fill an order that waits at the market, as far as the volume beyond its limit goes."""
        if order.only_reduces and self._moment.book.quantity * order.side.sign >= 0:
            self._cancel(order, OrderReason.REDUCE_ONLY)
            return
        wanted = self._wanted(order)
        granted = self._traded_for(order, wanted)
        if granted:
            assert order.limit_price is not None
            self._fill(order, order.limit_price, granted, _LIMIT, wanted)
        if granted < wanted:
            self._keep(order)

    def _traded_for(self, order: Order, wanted: Decimal) -> Decimal:
        """What the volume beyond the limit leaves for an order, after those who stood before it."""
        moment = self._moment
        rules, bar = moment.rules, moment.bar
        if not (rules.queue or rules.participation):
            return wanted
        assert order.limit_price is not None
        limit = float(order.limit_price)
        reach = limit - bar.low if order.side is _BUY else bar.high - limit
        beyond = min(1.0, reach / (bar.high - bar.low)) if bar.high > bar.low else 1.0
        progress = self._progress(order)
        traded = exact(bar.volume * beyond)
        served = min(progress.ahead, traded)
        progress.ahead -= served
        left = traded - served
        if progress.ahead or not left:
            return ZERO
        if moment.budget is None:
            return wanted
        return min(wanted, moment.budget, moment.pricing.lots(rules.participation * float(left)))

    def _wanted(self, order: Order) -> Decimal:
        """What is left of an order; of one that only reduces, as much as there is to reduce."""
        stages = self._moment.book.progress
        progress = stages.get(order.client_order_id) if stages else None
        quantity = order.quantity if progress is None else order.quantity - progress.filled
        if order.only_reduces:
            held = abs(self._moment.book.quantity)
            quantity = min(quantity, held) if order.quantity else held
        return quantity

    def _fill(self, order: Order, price: Decimal, quantity: Decimal, kind: ExecutionKind, wanted: Decimal) -> None:
        """Book one fill of an order that wanted ``wanted``."""
        moment, name, side = self._moment, order.client_order_id, order.side
        book = moment.book
        rate = moment.pricing.maker_fee if kind is _LIMIT else moment.pricing.taker_fee
        protections = 0
        if quantity == wanted and name not in book.progress:
            number = ""
        else:
            progress = self._progress(order)
            progress.filled += quantity
            progress.cost += quantity * price
            progress.fills += 1
            is_whole = quantity == wanted
            number = "" if is_whole and progress.fills == 1 else str(progress.fills)
            protections = progress.protections
            if is_whole:
                del book.progress[name]
        if moment.budget is not None:
            moment.budget -= quantity
        fee = price * quantity * rate
        time = moment.bar.open_time
        moment.executions.append(
            Execution(f"{name}-f{number}", name, order.symbol, side, quantity, price, fee, kind, time)
        )
        moment.hold(quantity if side is _BUY else -quantity, price)
        if not order.only_reduces:
            book.stop_loss, book.take_profit = order.stop_loss, order.take_profit
            if book.protected_by != name:
                book.protected_by, book.protective_fills = name, protections
        if not book.quantity:
            book.stop_loss = book.take_profit = None

    def _progress(self, order: Order) -> Progress:
        return self._moment.book.progress.setdefault(order.client_order_id, Progress())

    def _keep(self, order: Order) -> None:
        self._kept[order.client_order_id] = order

    def _cancel(self, order: Order, reason: OrderReason) -> None:
        self._tell(order, OrderStatus.CANCELLED, reason)
        self._moment.book.progress.pop(order.client_order_id, None)

    def _tell(self, order: Order, status: OrderStatus, reason: OrderReason | None = None) -> None:
        self._updates.append(update_of(self._moment.book, order, status, self._moment.bar.open_time, reason))


def update_of(
    book: BookSide, order: Order, status: OrderStatus, time: int, reason: OrderReason | None = None
) -> OrderUpdate:
    """What happened to an order, with what is filled of it."""
    progress = book.progress.get(order.client_order_id)
    if progress is None or not progress.filled:
        return OrderUpdate(order.client_order_id, order.symbol, status, time, reason)
    return OrderUpdate(
        order.client_order_id, order.symbol, status, time, reason, progress.filled, progress.average_price
    )


def _has_triggered(order: Order, low: Decimal, high: Decimal) -> bool:
    """Whether a price between these two triggers an order."""
    assert order.trigger_price is not None
    if order.trigger_direction is TriggerDirection.RISE:
        return high >= order.trigger_price
    return low <= order.trigger_price
