"""The door of the exchange: which book an order belongs to, and what is refused before it gets there."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from backtest.sandbox import refusals
from backtest.sandbox.admission import check_form, check_levels, check_reduction, check_trigger, margin_of
from backtest.sandbox.book import Book
from backtest.sandbox.records import BookKey, Category, VenueOrder
from backtest.sandbox.refusals import VenueRefusal, bad_parameter
from backtest.sandbox.registry import Registry
from backtest.sandbox.standing import Standing, spent
from backtest.sandbox.tickets import Ticket
from bot.execution.instruments import Instrument
from bot.orders import ZERO, Side

MAXIMUM_ORDERS: Final = 500
MAXIMUM_CONDITIONALS: Final = 10
MAXIMUM_SPOT_CONDITIONALS: Final = 30


class Door:
    """Refuses what Bybit refuses at once.

    Args:
        instruments: linear contracts by symbol.
        books: of the account.
        standing: what it holds.
        records: its orders.
        taker_fee: that must be there besides the margin, as a fraction of value.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        books: Mapping[BookKey, Book],
        standing: Standing,
        records: Registry,
        taker_fee: Decimal,
    ) -> None:
        self._instruments = instruments
        self._books = books
        self._standing = standing
        self._records = records
        self._taker_fee = taker_fee

    def instrument(self, symbol: str) -> Instrument:
        """Rules of a symbol.

        Raises:
            VenueRefusal: 10001: there is no such symbol.
        """
        instrument = self._instruments.get(symbol)
        if instrument is None:
            raise bad_parameter("params error: symbol invalid")
        return instrument

    def book_of(self, ticket: Ticket) -> Book:
        """Where an order belongs.

        Raises:
            VenueRefusal: 10001: there is no such market, or its positions have other indices.
        """
        self.instrument(ticket.symbol)
        if ticket.category is Category.SPOT:
            return self._books[BookKey(Category.SPOT, ticket.symbol)]
        if ticket.category is not Category.LINEAR:
            raise bad_parameter("params error: symbol invalid")
        if ticket.index not in self._standing.indices:
            raise bad_parameter("position idx not match position mode")
        return self._books[BookKey(ticket.category, ticket.symbol, ticket.index)]

    def check(self, book: Book, order: VenueOrder) -> None:
        """Let an order pass.

        Raises:
            VenueRefusal: with the code that Bybit has for it.
        """
        is_spot = order.book.category is Category.SPOT
        if order.link_id and (order.book.category, order.link_id) in self._records.links:
            raise VenueRefusal(refusals.SPOT_DUPLICATE_LINK_ID if is_spot else refusals.DUPLICATE_LINK_ID)
        check_form(order)
        waiting = [
            each
            for each in self._records.open.values()
            if (each.book.category, each.book.symbol) == (order.book.category, order.book.symbol)
        ]
        if is_spot:
            most = MAXIMUM_SPOT_CONDITIONALS if order.is_conditional else MAXIMUM_ORDERS
            if sum(each.is_conditional is order.is_conditional for each in waiting) >= most:
                raise VenueRefusal(refusals.SPOT_TOO_MANY_ORDERS)
            self.check_balance(order)
            return
        if sum(not each.stop_order_type for each in waiting) >= MAXIMUM_ORDERS:
            raise VenueRefusal(refusals.TOO_MANY_ORDERS)
        if order.is_conditional and sum(each.stop_order_type == "Stop" for each in waiting) >= MAXIMUM_CONDITIONALS:
            raise VenueRefusal(refusals.TOO_MANY_CONDITIONALS)
        check_trigger(order)
        check_reduction(book, order)
        check_levels(order)
        if not order.is_conditional:
            self._check_margin(book, order)

    def check_balance(self, order: VenueOrder, instead_of: VenueOrder | None = None) -> None:
        """What an order of the spot market spends must be free, a TP/SL order's as well.

        Args:
            order: new, or as it is to be.
            instead_of: as it is, where it waits already.

        Raises:
            VenueRefusal: 170131.
        """
        coin = "USDT" if order.side is Side.BUY else order.book.base_coin
        amount = spent(order, coin, order.remaining) if order.quote_quantity is None else order.quote_quantity
        held = ZERO if instead_of is None else spent(instead_of, coin, instead_of.remaining)
        if amount > self._standing.free(coin) + held:
            raise VenueRefusal(refusals.SPOT_BALANCE)

    def _check_margin(self, book: Book, order: VenueOrder) -> None:
        """Initial margin and the taker's fee must be there."""
        needed = margin_of(book, order, order.quantity)
        if not needed:
            return
        available = self._standing.free("USDT")
        price = order.price if order.price is not None else order.last_price
        if needed + order.quantity * price * self._taker_fee > available:
            raise VenueRefusal(refusals.NOT_ENOUGH_MARGIN)
