"""Keeps the stop loss of coins at the venue: one conditional sale per symbol that holds what the run has of it.

Nothing is remembered of why a guard is as it is: whatever has happened, what should be there is compared with what is, and the
difference is made good, one request after the other. A guard is durable before it is sent, like any order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Protocol

import structlog

from bot.errors import VenueError
from bot.execution.bybit.account_book import AccountBook
from bot.execution.bybit.client import BybitAccount, Refused
from bot.execution.bybit.decode import VenueOrder
from bot.execution.bybit.guarding import guard_order, waits_for_a_rise
from bot.execution.bybit.spot import GUARD_FILTER
from bot.orders import AccountEvent, Execution, Order, OrderReason, OrderStatus, OrderUpdate, is_guard

log = structlog.get_logger()


class Desk(Protocol):
    """What guards need of the account that they belong to."""

    def tell(self, events: Iterable[AccountEvent]) -> None:
        """Let the run take in events; orders among them are sent once they are durable."""

    def alarm(self, symbol: str, text: str) -> None:
        """Let a person know."""

    def close_out(self, symbol: str, reason: str) -> None:
        """Sell what is held at once, because it cannot be protected."""

    def ask(self) -> None:
        """Compare with the venue now."""

    def deliver(self, orders: Sequence[Order]) -> None:
        """Send orders, which are durable."""

    def is_sending(self, client_order_id: str) -> bool:
        """Whether an order is on its way."""

    def signal(self) -> None:
        """Let everybody look again who waits for a change."""

    def fail(self, error: Exception) -> None:
        """End the run with an error."""


class Guards:
    """The guards of one run's coins; of contracts there are none.

    Args:
        client: for requests.
        book: what the run believes.
        token: of the run, for ids.
        desk: of the account.
        changed: waits for a change of anything, until a moment of the loop's clock; false where nothing did.
    """

    def __init__(
        self,
        client: BybitAccount,
        book: AccountBook,
        token: str,
        desk: Desk,
        changed: Callable[[float], Awaitable[bool]],
    ) -> None:
        self._client = client
        self._book = book
        self._token = token
        self._desk = desk
        self._changed = changed
        self._tending: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._not_durable: set[str] = set()
        self._taken_back: set[str] = set()
        self._given_up: set[str] = set()
        self._left_alone: frozenset[str] = frozenset()

    async def end(self) -> None:
        """Leave what is under way as it is; the next start finds it."""
        tasks = list(self._tending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def unsettled(self) -> str:
        """What is not as it should be yet, in words."""
        for symbol, book in self._book.venue.books.items():
            wanted = self._book.wanted_guard(symbol)
            is_well = book.guard is None if wanted is None else book.guard is not None and wanted.is_met_by(book.guard)
            if not is_well or (book.guard is not None and self._is_on_its_way(book.guard)):
                return f"the stop loss of {symbol} is being set"
        return ""

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way, or an order waits to become durable."""
        return bool(self._tending or self._not_durable)

    def delivered(self, orders: Iterable[Order]) -> None:
        """Orders have become durable, and are sent now."""
        self._not_durable -= {order.client_order_id for order in orders}

    def is_durable(self, client_order_id: str) -> bool:
        """Whether an order has been sent, or may have been."""
        return client_order_id not in self._not_durable

    def heard(self, events: Iterable[AccountEvent]) -> None:
        """Look again at what the account's events are about."""
        for event in events:
            if isinstance(event, OrderUpdate) and event.is_final and is_guard(event.client_order_id):
                self._ended(event)
            if isinstance(event, Execution | OrderUpdate):
                self.tend(event.symbol)

    def verify(self, naked: Collection[str], astray: Iterable[VenueOrder], left_alone: Collection[str]) -> None:
        """Make good what a comparison with the venue has found.

        Args:
            naked: symbols without a guard that should have one.
            astray: guards that are open at the venue and should not be, or not so.
            left_alone: symbols that somebody else trades.
        """
        self._left_alone = frozenset(left_alone)
        for symbol in naked:
            held, guard = self._book.venue.books[symbol], self._book.venue.books[symbol].guard
            self._desk.alarm(symbol, _naked(held.quantity, held.stop_loss))
            if guard is not None and not self._is_on_its_way(guard):
                # The venue takes no id twice, so that one which is only late does no harm.
                self._desk.deliver([guard])
        self._given_up.clear()
        for order in astray:
            self._spawn(f"{order.symbol} {order.client_order_id}", self._correct(order))
        for symbol in self._book.venue.books:
            self.tend(symbol)

    def tend(self, symbol: str) -> None:
        """Bring the guard of a symbol in line with what is held."""
        if self._book.coins is None or symbol in self._left_alone:
            return
        if symbol in self._tending:
            self._again.add(symbol)
        elif self._is_due(symbol):
            if self._book.venue.books[symbol].guard is None:
                self._place(symbol)
            else:
                self._spawn(symbol, self._tend(symbol))

    async def release(self, symbol: str, patience_s: float) -> None:
        """Wait, but not for long, until the guard of a symbol holds none of the coins that a sale on its way takes."""
        deadline = asyncio.get_running_loop().time() + patience_s
        before = self._book.venue.books[symbol].guard
        while before is not None and self._book.venue.books[symbol].guard is before and self._is_due(symbol):
            self.tend(symbol)
            if not await self._changed(deadline):
                return

    def refused(self, order: Order, events: Iterable[AccountEvent], reason: str) -> None:
        """The venue does not take a guard: what it was to protect is closed; the next comparison looks again."""
        self._given_up.add(order.symbol)
        self._desk.tell(events)
        self._desk.close_out(order.symbol, reason)

    # -- one symbol --------------------------------------------------------------------------------------------------

    def _is_on_its_way(self, guard: Order) -> bool:
        name = guard.client_order_id
        return name in self._not_durable or self._desk.is_sending(name)

    def _is_due(self, symbol: str) -> bool:
        """Whether the guard of a symbol is not what it should be."""
        book, wanted = self._book.venue.books[symbol], self._book.wanted_guard(symbol)
        if book.guard is None:
            return wanted is not None and symbol not in self._given_up
        return wanted is None or not wanted.is_met_by(book.guard)

    async def _tend(self, symbol: str) -> None:
        while self._is_due(symbol):
            guard = self._book.venue.books[symbol].guard
            if guard is None:
                self._place(symbol)
                return
            # A sale that has begun goes its way: what it leaves is seen to when it has ended.
            if self._is_on_its_way(guard) or guard.client_order_id in self._book.venue.books[symbol].progress:
                return
            if not await self._take_back(guard):
                return

    def _place(self, symbol: str) -> None:
        wanted = self._book.wanted_guard(symbol)
        assert wanted is not None
        order = guard_order(wanted, self._book.venue.books[symbol], self._token, self._book.newest)
        self._not_durable.add(order.client_order_id)
        self._desk.tell([self._book.guard(order)])

    async def _take_back(self, guard: Order) -> bool:
        """Cancel a guard; whether the venue has let go of it."""
        name = guard.client_order_id
        self._taken_back.add(name)
        try:
            order = await self._client.cancel(guard.symbol, name, order_filter=GUARD_FILTER)
        except (Refused, VenueError) as problem:
            log.warning("a stop loss could not be taken back", order=name, reason=str(problem))
            self._taken_back.discard(name)
            self._desk.ask()
            return False
        self._desk.tell(self._book.lost(name) if order is None else self._book.heard(order))
        if self._book.venue.books[guard.symbol].guard is guard:
            # Cancelled only soon, or filled with fills that have not arrived.
            self._desk.ask()
            return False
        return True

    async def _correct(self, order: VenueOrder) -> None:
        """Take back a guard that the venue has otherwise than the journal."""
        name, symbol = order.client_order_id, order.symbol
        guard = self._book.venue.guards.get(name)
        if guard is None:
            try:
                await self._client.cancel(symbol, name, order_filter=GUARD_FILTER)
            except (Refused, VenueError) as problem:
                log.warning("a stop loss could not be taken back", order=name, reason=str(problem))
            return
        crossed = waits_for_a_rise(order)
        held = self._book.venue.books[symbol]
        if not crossed:
            self._desk.alarm(symbol, f"the stop loss at the venue was changed; {held.stop_loss} is set again")
        self._given_up.add(symbol)
        if await self._take_back(guard) and crossed:
            self._desk.close_out(symbol, f"the price was at the stop loss of {held.stop_loss} before it was set")
        elif not crossed:
            self._given_up.discard(symbol)
            self.tend(symbol)

    def _ended(self, event: OrderUpdate) -> None:
        """A guard is gone that was not filled whole."""
        name, symbol = event.client_order_id, event.symbol
        ours = name in self._taken_back
        self._taken_back.discard(name)
        held = self._book.venue.books[symbol]
        if event.filled and self._book.wanted_guard(symbol) is not None:
            self._given_up.add(symbol)
            self._desk.close_out(symbol, f"of the stop loss only {event.filled:f} was sold")
        elif event.status is OrderStatus.CANCELLED and event.reason is OrderReason.VENUE and not ours:
            self._desk.alarm(symbol, _naked(held.quantity, held.stop_loss))

    def _spawn(self, name: str, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except Exception as error:
                self._desk.fail(error)
            finally:
                self._tending.pop(name, None)
                self._desk.signal()
            if name in self._again:
                self._again.discard(name)
                self.tend(name)

        self._tending[name] = asyncio.create_task(run(), name="stop loss")


def _naked(quantity: object, stop_loss: object) -> str:
    return f"the position of {quantity:f} has no stop loss at the venue; {stop_loss} is set again"
