"""The one fill model: how orders meet bars, in replay, in paper trading and in the sandbox alike.

Timing: an order decided at the close of bar *t* meets bar *t + 1* first. Inside a bar the order of events is unknown but for
the open, so the model assumes the one that is worst for the account:

1. Market orders fill at the open, worsened by the slippage.
2. Limit orders fill only when the price went *through* the limit, at the limit, as maker. Those that open or add to a
   position fill before its stop loss is looked at, those that reduce or turn it after.
3. The stop loss is looked at before the take profit.
4. The take profit fills only when the price went through it, and never in a bar in which a limit order filled, as the
   price may have been there first.

A stop or target that the open has already passed fills at the open, any other at its level. Both are market orders once
triggered, as at Bybit: worsened by the slippage, and charged as taker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from bot.execution.instruments import Instrument, exact
from bot.orders import ZERO, Execution, ExecutionKind, Order, OrderType, Side
from strategies.bars import Bar

_ANY_BAR: Final = (math.inf, -math.inf)
"""The quiet range of a symbol with an order that waits: no bar lies in it."""
# Looking a member up in its enumeration costs as much as an addition of decimals.
_LIMIT: Final = OrderType.LIMIT
_MARKET: Final = ExecutionKind.MARKET
_BUY: Final = Side.BUY


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of trading as fractions of notional or price."""

    taker_fee: Decimal = Decimal("0.00055")
    maker_fee: Decimal = Decimal("0.0002")
    slippage: Decimal = Decimal("0.0001")


class BookSide(msgspec.Struct):
    """What the matching knows of one symbol: orders that wait, the position, and the levels that protect it."""

    symbol: str
    working: list[Order] = []
    quantity: Decimal = ZERO
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    protected_by: str = ""
    """Client order id of the order that set the levels."""
    protective_fills: int = 0


class FillModel:
    """Matches the orders of one account against bars."""

    def __init__(self, costs: Costs, instruments: dict[str, Instrument]) -> None:
        self.costs = costs
        self.instruments = instruments
        self.books = {symbol: BookSide(symbol, working=[]) for symbol in instruments}
        self.waiting: set[str] = set()
        """Symbols with an order that waits."""
        # What the hot path reads: the range in which a bar meets neither a level nor an order.
        self._quiet = {symbol: _quiet_range(book) for symbol, book in self.books.items()}
        self._bought = 1 + costs.slippage
        self._sold = 1 - costs.slippage

    def submit(self, order: Order) -> None:
        """Let an order wait for the next bar of its symbol."""
        symbol = order.symbol
        self.books[symbol].working.append(order)
        self.waiting.add(symbol)
        self._quiet[symbol] = _ANY_BAR

    def has_working(self, symbol: str) -> bool:
        """Whether an order of this symbol still waits."""
        return symbol in self.waiting

    def on_bars(self, bars: Sequence[Bar]) -> list[Execution]:
        """Executions of a batch, symbol by symbol."""
        executions: list[Execution] = []
        quiet = self._quiet
        for bar in bars:
            lowest, highest = quiet[bar.symbol]
            if bar.low <= lowest or bar.high >= highest:
                executions += self.on_bar(bar)
        return executions

    def on_bar(self, bar: Bar) -> list[Execution]:
        """Executions that this bar brings, in the order in which they are assumed to have happened."""
        book = self.books[bar.symbol]
        executions: list[Execution] = []
        waiting, book.working = book.working, []
        limits: list[Order] = []
        for order in waiting:
            if order.order_type is _LIMIT:
                limits.append(order)
            else:
                price = self._slipped(exact(bar.open), order.side, bar.symbol)
                self._fill(book, order, price, _MARKET, bar, executions)
        lowest, highest = _quiet_range(book)
        if limits:
            self._fill_limits(book, limits, bar, executions)
        elif bar.low <= lowest or bar.high >= highest:
            self._fill_stop_loss(book, bar, executions)
            self._fill_take_profit(book, bar, executions)
        else:
            self._note(book, (lowest, highest))
            return executions
        self._note(book, _quiet_range(book))
        return executions

    def state(self) -> tuple[BookSide, ...]:
        """A copy that can be journalled."""
        return tuple(msgspec.structs.replace(book, working=list(book.working)) for book in self.books.values())

    def restore(self, state: Sequence[BookSide]) -> None:
        """Go on from ``state``."""
        for book in state:
            self.books[book.symbol] = msgspec.structs.replace(book, working=list(book.working))
            self._note(book, _quiet_range(book))

    def _note(self, book: BookSide, quiet: tuple[float, float]) -> None:
        """Keep what every bar asks for at hand."""
        if book.working:
            self.waiting.add(book.symbol)
            self._quiet[book.symbol] = _ANY_BAR
        else:
            self.waiting.discard(book.symbol)
            self._quiet[book.symbol] = quiet

    def _fill_limits(self, book: BookSide, limits: list[Order], bar: Bar, executions: list[Execution]) -> None:
        """Fill the limit orders that this bar fills and look at the stop where that hurts most."""
        reached = [order for order in limits if _passes_through(order, bar)]
        book.working = [order for order in limits if order not in reached]
        exits = []
        before = len(executions)
        for order in reached:
            if book.quantity * order.side.sign < 0:
                exits.append(order)
            else:
                self._fill_limit(book, order, bar, executions)
        self._fill_stop_loss(book, bar, executions)
        for order in exits:
            self._fill_limit(book, order, bar, executions)
            self._fill_stop_loss(book, bar, executions)
        if not any(execution.kind is ExecutionKind.LIMIT for execution in executions[before:]):
            self._fill_take_profit(book, bar, executions)

    def _fill_limit(self, book: BookSide, order: Order, bar: Bar, executions: list[Execution]) -> None:
        assert order.limit_price is not None
        self._fill(book, order, order.limit_price, ExecutionKind.LIMIT, bar, executions)

    def _fill(
        self,
        book: BookSide,
        order: Order,
        price: Decimal,
        kind: ExecutionKind,
        bar: Bar,
        executions: list[Execution],
    ) -> None:
        quantity = order.quantity
        if order.reduce_only:
            opposite = book.quantity * order.side.sign < 0
            quantity = min(quantity, abs(book.quantity)) if opposite else ZERO
            if not quantity:
                return  # The position is gone already: a reduce-only order has nothing left to do.
        rate = self.costs.maker_fee if kind is ExecutionKind.LIMIT else self.costs.taker_fee
        name, side = order.client_order_id, order.side
        fee = price * quantity * rate
        executions.append(Execution(f"{name}-f", name, order.symbol, side, quantity, price, fee, kind, bar.open_time))
        book.quantity += quantity if side is _BUY else -quantity
        if not order.reduce_only:
            book.stop_loss, book.take_profit = order.stop_loss, order.take_profit
            book.protected_by, book.protective_fills = name, 0
        if not book.quantity:
            book.stop_loss = book.take_profit = None

    def _fill_stop_loss(self, book: BookSide, bar: Bar, executions: list[Execution]) -> None:
        stop = book.stop_loss
        if stop is None or not book.quantity:
            return
        opened = exact(bar.open)
        if book.quantity > 0 and exact(bar.low) <= stop:
            self._leave(book, min(opened, stop), ExecutionKind.STOP_LOSS, bar, executions)
        elif book.quantity < 0 and exact(bar.high) >= stop:
            self._leave(book, max(opened, stop), ExecutionKind.STOP_LOSS, bar, executions)

    def _fill_take_profit(self, book: BookSide, bar: Bar, executions: list[Execution]) -> None:
        target = book.take_profit
        if target is None or not book.quantity:
            return
        opened = exact(bar.open)
        if book.quantity > 0 and exact(bar.high) > target:
            self._leave(book, max(opened, target), ExecutionKind.TAKE_PROFIT, bar, executions)
        elif book.quantity < 0 and exact(bar.low) < target:
            self._leave(book, min(opened, target), ExecutionKind.TAKE_PROFIT, bar, executions)

    def _leave(
        self, book: BookSide, level: Decimal, kind: ExecutionKind, bar: Bar, executions: list[Execution]
    ) -> None:
        """Close the whole position at a level that protects it."""
        side = Side.SELL if book.quantity > 0 else Side.BUY
        quantity = abs(book.quantity)
        price = self._slipped(level, side, book.symbol)
        book.protective_fills += 1
        executions.append(
            Execution(
                execution_id=f"{book.protected_by}-p{book.protective_fills}",
                client_order_id=book.protected_by,
                symbol=book.symbol,
                side=side,
                quantity=quantity,
                price=price,
                fee=price * quantity * self.costs.taker_fee,
                kind=kind,
                time=bar.open_time,
            )
        )
        book.quantity = ZERO
        book.stop_loss = book.take_profit = None

    def _slipped(self, price: Decimal, side: Side, symbol: str) -> Decimal:
        """``price`` made worse by the slippage and moved onto the tick, away from the account's favour."""
        instrument = self.instruments[symbol]
        if side is _BUY:
            return instrument.ceil_price(price * self._bought)
        return max(instrument.floor_price(price * self._sold), instrument.tick_size)


def _quiet_range(book: BookSide) -> tuple[float, float]:
    """Between these two prices no bar can touch a level of the position; the levels themselves count as touched."""
    stop, target = book.stop_loss, book.take_profit
    below, above = (stop, target) if book.quantity > 0 else (target, stop)
    return (
        -math.inf if below is None else float(below),
        math.inf if above is None else float(above),
    )


def _passes_through(order: Order, bar: Bar) -> bool:
    """Whether the price traded beyond the limit; touching it is not enough, as others queue there first."""
    assert order.limit_price is not None
    if order.side is Side.BUY:
        return exact(bar.low) < order.limit_price
    return exact(bar.high) > order.limit_price
