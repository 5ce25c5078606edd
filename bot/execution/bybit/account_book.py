"""What a run believes of its account, and what the venue's messages make of that. No sockets, no clock.

A message of the stream or a view of the whole account goes in, and the events come out that the run's journal must take so
that it believes the same again. The book has applied them already: the run follows one step behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from bot.execution.bybit.client import Sent
from bot.execution.bybit.decode import ExecutionType, VenueExecution, VenueOrder, VenueOrderStatus, is_protective
from bot.execution.bybit.guarding import Guard, waits_for_a_rise, wanted_guard
from bot.execution.bybit.reconciliation import JournalView, VenueView, is_own, reconcile
from bot.execution.bybit.spot import fee_of
from bot.execution.bybit.tracking import TrackedOrder
from bot.execution.fills.book import BookSide
from bot.execution.instruments import Instrument
from bot.execution.venue_books import VenueBooks
from bot.orders import (
    ZERO,
    AccountEvent,
    Execution,
    ExecutionKind,
    Funding,
    GuardOrder,
    Notice,
    NoticeKind,
    Order,
    OrderReason,
    OrderStatus,
    OrderUpdate,
    Side,
    Transfer,
    is_guard,
)
from bot.portfolio import Portfolio
from strategies.bars import DAY_MS, HOUR_MS, MINUTE_MS

LOOK_BACK_MS: Final = 10 * MINUTE_MS
"""Fills so much older than the newest are asked for again: the venue's lists are not in order to the millisecond."""
LONGEST_LOOK_MS: Final = 7 * DAY_MS - HOUR_MS
"""A list of fills covers at most 7 days (https://bybit-exchange.github.io/docs/v5/order/execution)."""
_WALLET_UNIT: Final = Decimal("0.01")
_WALLET_SHARE: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Compared:
    """What a view of the account was found to say."""

    events: tuple[AccountEvent, ...] = ()
    """Corrections, applied already."""
    unseen: frozenset[str] = frozenset()
    """Client order ids of orders that the venue does not know."""
    foreign: Mapping[str, str] = field(default_factory=dict)
    """By symbol, in words: what is not the run's."""
    naked: tuple[str, ...] = ()
    """Symbols whose position should have a stop loss at the venue and has none."""
    astray: tuple[VenueOrder, ...] = ()
    """Guards of coins that are open at the venue and should not be, or not so."""


class AccountBook:
    """Positions, money and orders of one run at the venue.

    Args:
        portfolio: as the run has it, for this book alone.
        venue: as the run has it, for this book alone.
        known: client order ids of all orders of the run.
        fills: all executions of the run, and
        settlements: ids of all fundings.
        since: no fill of the run is older, milliseconds.
        newest: the newest moment that the run knows of, milliseconds.
        coins: on the spot market, by every symbol: what the wallet holds of its coin that is not the run's, in base units.
    """

    def __init__(
        self,
        portfolio: Portfolio,
        venue: VenueBooks,
        *,
        known: Iterable[str] = (),
        fills: Iterable[Execution] = (),
        settlements: Iterable[str] = (),
        since: int = 0,
        newest: int = 0,
        coins: Mapping[str, Decimal] | None = None,
    ) -> None:
        self.coins = coins
        self.portfolio = portfolio
        self.venue = venue
        self._known = set(known)
        self._seen = set(settlements)
        self._newest = max(since, newest)
        self._recent: dict[str, int] = {}
        """When the fills that were applied last had happened, by execution id."""
        self._tracked = {name: TrackedOrder(name, order.quantity) for name, order in self.waiting.items()}
        for fill in fills:
            self._seen.add(fill.execution_id)
            self._newest = max(self._newest, fill.time)
            tracked = self._tracked.get(fill.client_order_id)
            if tracked is not None:
                self._tracked[fill.client_order_id] = tracked.counted(fill.execution_id, fill.quantity)
        # Bars may have gone on while fills were not told: the first look goes back as far as there can be any.
        self._floor = since

    @property
    def since(self) -> int:
        """From when on the venue is to be asked for fills, milliseconds."""
        return max(0, self._floor, self._newest - LONGEST_LOOK_MS)

    @property
    def newest(self) -> int:
        """The newest moment that the venue has told of, milliseconds on its clock."""
        return self._newest

    @property
    def working(self) -> dict[str, Order]:
        """Orders that may still be filled, by client order id."""
        return self.venue.working

    @property
    def waiting(self) -> dict[str, Order]:
        """Orders that the venue may have, those that guard coins too, by client order id."""
        return {**self.venue.working, **self.venue.guards}

    def wanted_guard(self, symbol: str) -> Guard | None:
        """What should guard the coins of a symbol at the venue; of contracts, nothing."""
        if self.coins is None:
            return None
        return wanted_guard(self.venue.books[symbol], self.portfolio.instruments[symbol])

    def obey(self, instrument: Instrument) -> None:
        """Go by new trading rules of a symbol from now on."""
        self.portfolio.obey(instrument)

    def guard(self, order: Order) -> GuardOrder:
        """An order that guards coins is about to be sent, once it is durable."""
        event = GuardOrder(order)
        self._book(event)
        self.expect(order)
        return event

    def expected_wallet(self, view: VenueView) -> Decimal:
        """What the venue's wallet should hold, in quote units.

        Cash does not depend on the order in which fills were booked, the average price of what is held does: so the
        venue's own is taken. Coins of the spot market are paid for, and stand in the wallet themselves.
        """
        if self.coins is not None:
            return self.portfolio.cash + self.venue.outside
        held = [
            position.cost if view.positions.get(symbol, ZERO) != position.quantity else view.costs.get(symbol, ZERO)
            for symbol, position in self.portfolio.positions.items()
        ]
        return self.portfolio.cash + sum(held, ZERO) + self.venue.outside

    def submit(self, order: Order) -> None:
        """An order is about to be sent."""
        self.venue.submit(order)
        self.expect(order)

    def expect(self, order: Order) -> None:
        """From now on messages about an order are understood."""
        self._known.add(order.client_order_id)
        self._tracked[order.client_order_id] = TrackedOrder(order.client_order_id, order.quantity)
        self._newest = max(self._newest, order.decided_at)

    def acknowledged(self, client_order_id: str, order_id: str) -> None:
        """The venue has taken an order."""
        tracked = self._tracked.get(client_order_id)
        if tracked is not None:
            self._tracked[client_order_id] = tracked.named(order_id)

    def declined(self, order: Order, sent: Sent) -> list[AccountEvent]:
        """The venue did not want an order."""
        return self.end(order, OrderStatus.REJECTED, OrderReason.VENUE, sent.reason)

    def lost(self, client_order_id: str) -> list[AccountEvent]:
        """The venue has never heard of an order, and never will."""
        order = self.waiting.get(client_order_id)
        if order is None:
            return []
        text = f"order {client_order_id} never came to the venue"
        return [
            Notice(NoticeKind.CORRECTION, order.symbol, text),
            *self.end(order, OrderStatus.REJECTED, OrderReason.LOST, ""),
        ]

    def executed(self, execution: VenueExecution) -> list[AccountEvent] | None:
        """A fill or settlement; ``None`` where it is not the run's."""
        if execution.execution_id in self._seen:
            return []
        if execution.kind is ExecutionType.FUNDING:
            return self._funded(execution)
        name = self._owner(execution)
        if execution.side is None or name is None:
            return None
        self._seen.add(execution.execution_id)
        self._newest = max(self._newest, execution.time)
        tracked = self._tracked.get(name)
        if tracked is not None:
            self._tracked[name] = tracked.counted(execution.execution_id, execution.quantity)
        is_spot = self.coins is not None
        events: list[AccountEvent] = [self._booked(_as_execution(execution, execution.side, name, is_spot))]
        return events + self._ended(name)

    def heard(self, order: VenueOrder) -> list[AccountEvent]:
        """A message about an order."""
        self._newest = max(self._newest, order.updated_at)
        tracked = self._tracked.get(order.client_order_id)
        if tracked is None:
            return []
        self._tracked[order.client_order_id] = tracked.heard(order)
        return self._ended(order.client_order_id, order.reason)

    def is_own(self, order: VenueOrder) -> bool:
        """Whether an order is the run's, or a level of a position."""
        return order.client_order_id in self._known or order.guards_position

    @property
    def missing_fills(self) -> tuple[str, ...]:
        """Orders that are filled further than the fills that have arrived say."""
        return tuple(name for name in self.waiting if self._tracked[name].missing)

    def compare(self, view: VenueView, asked: Collection[str], asked_at: int) -> Compared:
        """Take over what the venue says.

        Args:
            view: of the whole account.
            asked: client order ids that the view was asked for: of others it may be too old.
            asked_at: ``newest`` when it was asked for: what is later may lack in it.
        """
        journal = self._view(asked)
        found = reconcile(journal, view)
        events: list[AccountEvent] = []
        for missed in found.missed:
            fill = missed.execution
            text = f"fill {fill.execution_id} of {fill.quantity:f} at {fill.price:f} was asked for, not told"
            events += [Notice(NoticeKind.CORRECTION, fill.symbol, text), *(self.executed(fill) or ())]
        for execution in view.executions:
            if execution.kind is ExecutionType.FUNDING:
                events += self.executed(execution) or ()
        for order in view.orders:
            events += self.heard(order)
        foreign = {each.order.symbol: f"an open order {each.order.order_id}" for each in found.foreign_orders}
        foreign |= {
            each.symbol: f"a position of {each.held:f}, the run's is {each.believed:f}"
            for each in found.foreign_positions
        }
        if not foreign:
            self._floor = max(self._floor, asked_at - LOOK_BACK_MS)
            self._recent = {name: time for name, time in self._recent.items() if time >= self._floor}
        unseen = {each.client_order_id for each in found.ended if each.status is VenueOrderStatus.UNKNOWN}
        naked = [
            book.symbol
            for book in self.venue.books.values()
            if not book.working and book.symbol not in foreign and self._is_naked(book, view, unseen)
        ]
        astray = [order for order in view.orders if order.symbol not in foreign and self._is_astray(order)]
        return Compared(tuple(events), frozenset(unseen), foreign, tuple(naked), tuple(astray))

    def _is_naked(self, book: BookSide, view: VenueView, unseen: Collection[str]) -> bool:
        """Whether what is held should have a stop loss, and neither the venue nor an order on its way is one."""
        if self.coins is None:
            return bool(book.quantity) and book.stop_loss is not None and view.stop_losses.get(book.symbol) is None
        if self.wanted_guard(book.symbol) is None:
            return False
        return book.guard is None or book.guard.client_order_id in unseen

    def _is_astray(self, order: VenueOrder) -> bool:
        """Whether an order that the venue holds is a guard of the run's, and not the one that the journal has."""
        if not order.is_open or order.client_order_id not in self._known or not is_guard(order.client_order_id):
            return False
        guard = self.venue.guards.get(order.client_order_id)
        if guard is None or waits_for_a_rise(order):
            return True
        is_waiting = order.status is VenueOrderStatus.UNTRIGGERED
        return is_waiting and (order.quantity, order.trigger_price) != (guard.quantity, guard.trigger_price)

    def is_newer_than(self, view: VenueView) -> bool:
        """Whether a fill has been applied that a view does not know: then it says nothing about positions."""
        known = {execution.execution_id for execution in view.executions}
        return any(name not in known and time >= self.since for name, time in self._recent.items())

    def transferred(self, wallet: Decimal, view: VenueView, *, outside: bool) -> list[AccountEvent]:
        """The wallet is not what trading explains: somebody paid in or took out."""
        expected = self.expected_wallet(view)
        amount = wallet - expected
        text = f"the wallet holds {wallet:f}, trading explains {expected:f}"
        transfer = Transfer(amount, outside, text)
        self._book(transfer)
        return [Notice(NoticeKind.CORRECTION, "", text), transfer]

    def explains(self, wallet: Decimal, view: VenueView) -> bool:
        """Whether trading explains what the wallet holds, but for what roundings come to."""
        expected = self.expected_wallet(view)
        return abs(wallet - expected) <= max(_WALLET_UNIT, abs(expected) * _WALLET_SHARE)

    def end(self, order: Order, status: OrderStatus, reason: OrderReason, note: str) -> list[AccountEvent]:
        """An order will not be filled further."""
        progress = self.venue.books[order.symbol].progress.get(order.client_order_id)
        filled, price = (ZERO, None) if progress is None else (progress.filled, progress.average_price)
        self._tracked.pop(order.client_order_id, None)
        update = OrderUpdate(order.client_order_id, order.symbol, status, order.decided_at, reason, filled, price, note)
        self._book(update)
        return [update]

    def _view(self, asked: Collection[str]) -> JournalView:
        return JournalView(
            frozenset(name for name in self.waiting if name in asked),
            frozenset(self._known),
            frozenset(self._seen),
            {symbol: position.quantity for symbol, position in self.portfolio.positions.items()},
            frozenset(self.portfolio.positions),
            self.coins is not None,
        )

    def _owner(self, execution: VenueExecution) -> str | None:
        """Client order id of the order that a fill belongs to; of a level, of the order that set it."""
        if execution.client_order_id in self._known:
            return execution.client_order_id
        for name, tracked in self._tracked.items():
            if tracked.order_id and tracked.order_id == execution.order_id:
                return name
        if is_own(execution, self._known, self.portfolio.positions):
            return self.venue.books[execution.symbol].protected_by
        return None

    def _funded(self, execution: VenueExecution) -> list[AccountEvent] | None:
        if execution.symbol not in self.portfolio.positions:
            return None
        self._seen.add(execution.execution_id)
        value = execution.quantity * execution.price
        rate = execution.fee / value if value else ZERO
        funding = Funding(
            execution.symbol, rate, execution.price, execution.time, execution.fee, execution.execution_id
        )
        self._book(funding)
        return [funding]

    def _ended(self, name: str, note: str = "") -> list[AccountEvent]:
        """What is to be said of an order that may just have ended."""
        tracked, order = self._tracked.get(name), self.waiting.get(name)
        if tracked is None or not tracked.is_final:
            return []
        if order is None:
            self._tracked.pop(name)
            return []
        rejected = tracked.status is VenueOrderStatus.REJECTED and not tracked.filled
        note = "" if note == "EC_NoError" else note
        return self.end(order, OrderStatus.REJECTED if rejected else OrderStatus.CANCELLED, OrderReason.VENUE, note)

    def _booked(self, execution: Execution) -> Execution:
        self._recent[execution.execution_id] = execution.time
        self._book(execution)
        return execution

    def _book(self, event: AccountEvent) -> None:
        self.venue.apply(event)
        if isinstance(event, Execution):
            self.portfolio.apply_execution(event)
        elif isinstance(event, Funding):
            self.portfolio.apply_funding(event)
        elif isinstance(event, Transfer) and not event.outside:
            self.portfolio.apply_transfer(event.amount)


def _as_execution(fill: VenueExecution, side: Side, client_order_id: str, is_spot: bool) -> Execution:
    """A fill of the venue as the run books it."""
    fee, withheld = fee_of(fill) if is_spot else (fill.fee, ZERO)
    return Execution(
        fill.execution_id,
        client_order_id,
        fill.symbol,
        side,
        fill.quantity,
        fill.price,
        fee,
        _kind_of(fill, client_order_id),
        fill.time,
        withheld,
    )


def _kind_of(fill: VenueExecution, client_order_id: str) -> ExecutionKind:
    if fill.kind is ExecutionType.BUST:
        return ExecutionKind.LIQUIDATION
    if fill.kind is ExecutionType.ADL:
        return ExecutionKind.DELEVERAGED
    if is_guard(client_order_id):
        return ExecutionKind.STOP_LOSS
    if is_protective(fill.stop_type):
        return ExecutionKind.TAKE_PROFIT if fill.stop_type.endswith("TakeProfit") else ExecutionKind.STOP_LOSS
    return ExecutionKind.LIMIT if fill.is_maker else ExecutionKind.MARKET
