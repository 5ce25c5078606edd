"""The one fill model: how orders meet bars, in replay, in paper trading and in the sandbox alike.

Timing: an order decided at the close of bar *t* meets bar *t + 1* first. Inside a bar the order of events is unknown, so
the model assumes the one that is worst for the account:

1. Market orders fill at the open, worsened by the slippage.
2. Limit orders fill only when the price went *through* the limit, at the limit, as maker.
3. The stop loss is looked at before the take profit. A stop that the open has already passed fills at the open, any
   other at its level; both worsened by the slippage.
4. The take profit fills only when the price went through it, and never in a bar whose limit order made the position, as
   the price may have been there first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from bot.execution.instruments import Instrument, exact
from bot.orders import ZERO, Execution, ExecutionKind, Order, OrderType, Side
from strategies.bars import Bar


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

    def submit(self, order: Order) -> None:
        """Let an order wait for the next bar of its symbol."""
        self.books[order.symbol].working.append(order)

    def has_working(self, symbol: str) -> bool:
        """Whether an order of this symbol still waits."""
        return bool(self.books[symbol].working)

    def on_bar(self, bar: Bar) -> list[Execution]:
        """Executions that this bar brings, in the order in which they are assumed to have happened."""
        book = self.books[bar.symbol]
        executions: list[Execution] = []
        entered_by_limit = False
        if book.working:
            entered_by_limit = self._fill_working(book, bar, executions)
        if book.quantity and (book.stop_loss is not None or book.take_profit is not None):
            self._fill_protection(book, bar, executions, may_take_profit=not entered_by_limit)
        return executions

    def on_bars(self, bars: Sequence[Bar]) -> list[Execution]:
        """Executions of a batch, symbol by symbol."""
        executions: list[Execution] = []
        for bar in bars:
            book = self.books[bar.symbol]
            if book.working or book.quantity:
                executions += self.on_bar(bar)
        return executions

    def state(self) -> tuple[BookSide, ...]:
        """A copy that can be journalled."""
        return tuple(msgspec.structs.replace(book, working=list(book.working)) for book in self.books.values())

    def restore(self, state: Sequence[BookSide]) -> None:
        """Go on from ``state``."""
        for book in state:
            self.books[book.symbol] = msgspec.structs.replace(book, working=list(book.working))

    def _fill_working(self, book: BookSide, bar: Bar, executions: list[Execution]) -> bool:
        """Fill what this bar fills; returns whether a limit order touched the position."""
        waiting, book.working = book.working, []
        entered_by_limit = False
        for order in waiting:
            if order.order_type is OrderType.MARKET:
                self._fill(book, order, self._worsened(exact(bar.open), order), ExecutionKind.MARKET, bar, executions)
            elif _passes_through(order, bar):
                assert order.limit_price is not None
                self._fill(book, order, order.limit_price, ExecutionKind.LIMIT, bar, executions)
                entered_by_limit = True
            else:
                book.working.append(order)
        return entered_by_limit

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
        executions.append(
            Execution(
                execution_id=f"{order.client_order_id}-f",
                client_order_id=order.client_order_id,
                symbol=order.symbol,
                side=order.side,
                quantity=quantity,
                price=price,
                fee=price * quantity * rate,
                kind=kind,
                time=bar.open_time,
            )
        )
        book.quantity += quantity * order.side.sign
        if not order.reduce_only:
            book.stop_loss, book.take_profit = order.stop_loss, order.take_profit
            book.protected_by, book.protective_fills = order.client_order_id, 0
        if not book.quantity:
            book.stop_loss = book.take_profit = None

    def _fill_protection(self, book: BookSide, bar: Bar, executions: list[Execution], *, may_take_profit: bool) -> None:
        is_long = book.quantity > 0
        opened, high, low = exact(bar.open), exact(bar.high), exact(bar.low)
        side = Side.SELL if is_long else Side.BUY
        instrument = self.instruments[book.symbol]
        stop, target = book.stop_loss, book.take_profit
        if stop is not None and (low <= stop if is_long else high >= stop):
            level = min(opened, stop) if is_long else max(opened, stop)
            price, kind = _slipped(level, side, self.costs.slippage, instrument), ExecutionKind.STOP_LOSS
        elif target is not None and may_take_profit and (high > target if is_long else low < target):
            # Bybit's take profit is a market order once triggered: it pays taker fee and slippage.
            price, kind = _slipped(target, side, self.costs.slippage, instrument), ExecutionKind.TAKE_PROFIT
        else:
            return
        quantity = abs(book.quantity)
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

    def _worsened(self, price: Decimal, order: Order) -> Decimal:
        return _slipped(price, order.side, self.costs.slippage, self.instruments[order.symbol])


def _slipped(price: Decimal, side: Side, slippage: Decimal, instrument: Instrument) -> Decimal:
    """``price`` made worse by the slippage and moved onto the tick, away from the account's favour."""
    if side is Side.BUY:
        return instrument.ceil_price(price * (1 + slippage))
    return max(instrument.floor_price(price * (1 - slippage)), instrument.tick_size)


def _passes_through(order: Order, bar: Bar) -> bool:
    """Whether the price traded beyond the limit; touching it is not enough, as others queue there first."""
    assert order.limit_price is not None
    if order.side is Side.BUY:
        return exact(bar.low) < order.limit_price
    return exact(bar.high) > order.limit_price
