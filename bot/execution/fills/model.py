"""The fill model of one account: which orders wait, and what a bar makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import msgspec

from bot.execution.fills.book import ANY_BAR, BookSide, Progress, WorkingOrder
from bot.execution.fills.checks import refusal
from bot.execution.fills.meeting import Meetings, update_of
from bot.execution.fills.moment import Moment
from bot.execution.fills.pricing import Pricing
from bot.execution.fills.rules import PLAIN, Costs, FillRules
from bot.execution.instruments import Instrument
from bot.orders import ZERO, Execution, Order, OrderReason, OrderStatus, OrderUpdate
from strategies.bars import Bar

FinerBars = Callable[[Bar], Sequence[Bar]]
"""The finer bars that one bar consists of, in order and without a hole; none where they are not known."""


class FillModel:
    """Matches the orders of one account against bars; how is told by ``meeting``.

    A venue that knows one price alone, such as the sandbox when an order arrives, may show a bar that is flat at that price
    before it shows the bar in which it lies.
    """

    def __init__(
        self,
        costs: Costs,
        instruments: dict[str, Instrument],
        rules: FillRules = PLAIN,
        *,
        finer_bars: FinerBars | None = None,
    ) -> None:
        """
        Args:
            costs: fees and the like.
            instruments: trading rules by symbol.
            rules: how orders meet bars.
            finer_bars: tells the order of events inside a bar, where it is known.
        """
        self.costs = costs
        self.rules = rules
        self.instruments = instruments
        self.books = {symbol: BookSide(symbol) for symbol in instruments}
        self.waiting: set[str] = set()
        """Symbols with an order that waits, or whose position is on its way out."""
        self._finer_bars = finer_bars
        self.updates: list[OrderUpdate] = []
        """What has happened to orders besides fills, until it is taken."""
        self._meetings = {symbol: self._meetings_of(book) for symbol, book in self.books.items()}
        self.quiet = {symbol: book.quiet_range() for symbol, book in self.books.items()}
        """By symbol the range in which a bar meets neither a level nor an order: there is no need to show it."""

    def submit(self, order: Order) -> OrderReason | None:
        """Let an order wait for the next bar of its symbol; answers why not, where the venue would not take it."""
        symbol = order.symbol
        reason = refusal(order, self.instruments[symbol])
        book = self.books[symbol]
        if reason is not None:
            self.updates.append(update_of(book, order, OrderStatus.REJECTED, order.decided_at, reason))
            return reason
        book.working.append(order)
        if self.rules.delay_bars:
            book.progress[order.client_order_id] = Progress(wait=self.rules.delay_bars)
        self.waiting.add(symbol)
        self.quiet[symbol] = ANY_BAR
        return None

    def cancel(self, client_order_id: str, *, time: int) -> OrderUpdate | None:
        """Take back an order that waits; ``None`` where none of that id does.

        Args:
            client_order_id: of the order.
            time: the market's, milliseconds.
        """
        found = self._find(client_order_id)
        if found is None:
            return None
        book, order = found
        update = update_of(book, order, OrderStatus.CANCELLED, time, OrderReason.CLIENT)
        book.working.remove(order)
        book.progress.pop(client_order_id, None)
        self._note(book, book.quiet_range())
        self.updates.append(update)
        return update

    def amend(
        self,
        client_order_id: str,
        *,
        time: int,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        trigger_price: Decimal | None = None,
    ) -> OrderUpdate | None:
        """Change an order that waits; what is ``None`` stays as it is.

        A new price or a larger quantity costs the order its place: it comes to the market anew with the next bar.

        Args:
            client_order_id: of the order.
            time: the market's, milliseconds.
            quantity: the whole of it, what is filled already included.
            limit_price: of a limit order.
            trigger_price: of a conditional order that has not been triggered.

        Returns:
            What became of it: ``AMENDED``, or ``REFUSED`` with the reason, while the order stays as it was. ``None`` where
            no order of that id waits.
        """
        found = self._find(client_order_id)
        if found is None:
            return None
        book, order = found
        changes = {"quantity": quantity, "limit_price": limit_price, "trigger_price": trigger_price}
        amended = msgspec.structs.replace(
            order, **{name: value for name, value in changes.items() if value is not None}
        )
        progress = book.progress.get(client_order_id)
        reason = refusal(amended, self.instruments[order.symbol])
        if reason is None and progress is not None and amended.quantity <= progress.filled:
            reason = OrderReason.BELOW_MINIMUM
        if reason is None:
            book.working[book.working.index(order)] = amended
            if progress is not None and (amended.limit_price != order.limit_price or amended.quantity > order.quantity):
                progress.rests = False
        status = OrderStatus.AMENDED if reason is None else OrderStatus.REFUSED
        update = update_of(book, amended, status, time, reason)
        self.updates.append(update)
        return update

    def protect(
        self, symbol: str, *, stop_loss: Decimal | None, take_profit: Decimal | None, name: str | None = None
    ) -> bool:
        """Set the levels of a position without an order, as Bybit's trading-stop does; ``False`` where there is none.

        Args:
            symbol: of the position.
            stop_loss: the level from now on; ``None`` for none.
            take_profit: likewise.
            name: the client order id that executions at these levels get, new or that of the levels now; ``None`` keeps
                that of the order before.
        """
        book = self.books[symbol]
        if not book.quantity:
            return False
        book.stop_loss, book.take_profit = stop_loss, take_profit
        if name is not None and name != book.protected_by:
            book.protected_by, book.protective_fills = name, 0
        self._note(book, book.quiet_range())
        return True

    def has_working(self, symbol: str) -> bool:
        """Whether an order of this symbol still waits, or its position is on its way out."""
        return symbol in self.waiting

    def working(self, symbol: str) -> tuple[WorkingOrder, ...]:
        """Orders of this symbol that wait, in the order of submission, with what is filled of them."""
        book = self.books[symbol]
        return tuple([book.shown(order) for order in book.working])

    def take_updates(self) -> tuple[OrderUpdate, ...]:
        """What has happened to orders besides fills since this was last asked, in order."""
        updates = tuple(self.updates)
        self.updates.clear()
        return updates

    def on_bars(self, bars: Sequence[Bar]) -> list[Execution]:
        """Executions of a batch, symbol by symbol."""
        executions: list[Execution] = []
        quiet = self.quiet
        for bar in bars:
            lowest, highest = quiet[bar.symbol]
            if bar.low <= lowest or bar.high >= highest:
                executions += self.on_bar(bar)
        return executions

    def on_bar(self, bar: Bar) -> list[Execution]:
        """Executions that this bar brings, in the order in which they are assumed to have happened."""
        symbol = bar.symbol
        book, meetings = self.books[symbol], self._meetings[symbol]
        finer = () if self._finer_bars is None else self._finer_bars(bar)
        if finer:
            executions = []
            for part in finer:
                meetings.meet(part)
                executions += meetings.executions
            quiet = None
        else:
            quiet = meetings.meet(bar)
            executions = meetings.executions
        if self.rules.delay_bars:
            for progress in book.progress.values():
                progress.wait = max(0, progress.wait - 1)
        self._note(book, book.quiet_range() if quiet is None else quiet)
        return executions

    def liquidate(self, prices: Mapping[str, Decimal], bars: Mapping[str, Bar], time: int) -> list[Execution]:
        """Close every position and cancel every order, because the account's margin is gone.

        Args:
            prices: at which positions are closed, before what a taker pays; of every symbol that has one.
            bars: in which it happens, by symbol; a symbol without one trades flat at its price.
            time: the market's, of symbols without a bar, milliseconds.
        """
        executions: list[Execution] = []
        for symbol, book in self.books.items():
            if not book.quantity and not book.working:
                continue
            price = float(prices.get(symbol, 0))
            bar = bars.get(symbol) or Bar(symbol, time, time, price, price, price, price, 0.0)
            meetings = self._meetings[symbol]
            meetings.liquidate(bar, prices.get(symbol, ZERO))
            executions += meetings.executions
            self._note(book, book.quiet_range())
        return executions

    def state(self) -> tuple[BookSide, ...]:
        """A copy that can be journalled."""
        return tuple([book.copy() for book in self.books.values()])

    def restore(self, state: Sequence[BookSide]) -> None:
        """Go on from ``state``."""
        for book in state:
            self.books[book.symbol] = mine = book.copy()
            self._meetings[book.symbol] = self._meetings_of(mine)
            self._note(mine, mine.quiet_range())

    def _meetings_of(self, book: BookSide) -> Meetings:
        instrument = self.instruments[book.symbol]
        pricing = Pricing(self.costs, self.rules, instrument)
        return Meetings(Moment(pricing, self.rules, instrument, book), self.updates)

    def _find(self, client_order_id: str) -> tuple[BookSide, Order] | None:
        for symbol in sorted(self.waiting):
            book = self.books[symbol]
            for order in book.working:
                if order.client_order_id == client_order_id:
                    return book, order
        return None

    def _note(self, book: BookSide, quiet: tuple[float, float]) -> None:
        """Keep what every bar asks for at hand."""
        if book.working or book.leaving is not None:
            self.waiting.add(book.symbol)
            self.quiet[book.symbol] = ANY_BAR
        else:
            self.waiting.discard(book.symbol)
            self.quiet[book.symbol] = quiet
