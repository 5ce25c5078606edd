"""What waits and what is held at a venue, as far as its own reports tell. Pure: a run and its account keep one each.

The same books as of the matching, without its prices: fills come from the venue, whatever its reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from bot.execution.fills.book import BookSide, Progress
from bot.execution.instruments import Instrument
from bot.orders import (
    PROTECTIVE,
    ZERO,
    AccountEvent,
    EmergencyOrder,
    Execution,
    GuardOrder,
    Order,
    OrderUpdate,
    RuleChange,
    Transfer,
)


class VenueBooks:
    """One book per symbol, and the money on the account that the run may not trade with.

    Args:
        instruments: trading rules by symbol.
    """

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        self._instruments = dict(instruments)
        self.books = {symbol: BookSide(symbol) for symbol in instruments}
        self.outside = ZERO
        """Quote units of the wallet that are not the run's."""

    def __contains__(self, symbol: object) -> bool:
        """Whether an order of a symbol may still be filled."""
        book = self.books.get(symbol) if isinstance(symbol, str) else None
        return book is not None and bool(book.working)

    @property
    def working(self) -> dict[str, Order]:
        """All orders that may still be filled, by client order id."""
        return {order.client_order_id: order for book in self.books.values() for order in book.working}

    @property
    def guards(self) -> dict[str, Order]:
        """All conditional sales that guard coins, by client order id."""
        return {book.guard.client_order_id: book.guard for book in self.books.values() if book.guard is not None}

    def submit(self, order: Order) -> None:
        """From now on an order may be filled."""
        self.books[order.symbol].working.append(order)

    def apply(self, event: AccountEvent) -> None:
        """Take in what the account tells."""
        if isinstance(event, Execution):
            self._fill(event)
        elif isinstance(event, OrderUpdate):
            if event.is_final:
                self._end(self.books[event.symbol], event.client_order_id)
        elif isinstance(event, EmergencyOrder):
            self.submit(event.order)
        elif isinstance(event, GuardOrder):
            book = self.books[event.order.symbol]
            book.guard = event.order
            book.guards += 1
        elif isinstance(event, Transfer) and event.outside and not event.symbol:
            self.outside += event.amount
        elif isinstance(event, RuleChange):
            self._instruments[event.instrument.symbol] = event.instrument

    def restore(self, books: Iterable[BookSide], outside: Decimal) -> None:
        """Go on from what ``books`` say."""
        for book in books:
            self.books[book.symbol] = book.copy()
        self.outside = outside

    def _fill(self, execution: Execution) -> None:
        book = self.books[execution.symbol]
        held = book.quantity
        book.quantity += execution.signed_quantity
        order = _waiting(book, execution.client_order_id)
        if execution.kind in PROTECTIVE:
            book.protective_fills += 1
        if order is not None and execution.names_its_order:
            progress = book.progress.setdefault(order.client_order_id, Progress())
            progress.filled += execution.quantity
            progress.cost += execution.quantity * execution.price
            progress.fills += 1
            # An order that turns a position round protects only what lies on its own side.
            if not order.only_reduces and book.quantity * order.side.sign > 0:
                self._protect(book, order, adds=held * order.side.sign > 0)
            if progress.filled >= order.quantity:
                self._end(book, order.client_order_id)
        if self._is_flat(book):
            book.stop_loss = book.take_profit = None
            book.protected_by = ""

    def _is_flat(self, book: BookSide) -> bool:
        """Whether nothing is held; of coins, less than a lot is nothing."""
        instrument = self._instruments[book.symbol]
        return not book.quantity or (instrument.is_spot and not instrument.lots(book.quantity))

    def _protect(self, book: BookSide, order: Order, *, adds: bool) -> None:
        """Set the levels of an order that left a position; one that adds to it without levels leaves them as they are."""
        if not adds:
            book.stop_loss = book.take_profit = None
        if order.stop_loss is None and order.take_profit is None and adds:
            return
        book.stop_loss = order.stop_loss if order.stop_loss is not None else book.stop_loss
        book.take_profit = order.take_profit if order.take_profit is not None else book.take_profit
        book.protected_by = order.client_order_id

    def _end(self, book: BookSide, client_order_id: str) -> None:
        book.working = [order for order in book.working if order.client_order_id != client_order_id]
        if book.guard is not None and book.guard.client_order_id == client_order_id:
            book.guard = None
        book.progress.pop(client_order_id, None)


def _waiting(book: BookSide, client_order_id: str) -> Order | None:
    """The order of that id which may still be filled, a guard too."""
    waiting = book.working if book.guard is None else [*book.working, book.guard]
    return next((order for order in waiting if order.client_order_id == client_order_id), None)
