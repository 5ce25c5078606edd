"""The venue's records of its account: orders, executions and closed profits, and what is to be told of them.

It carries over what the matching did to the orders as clients know them, and shows the levels of a position as the orders
that Bybit has for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Protocol

from backtest.sandbox import rows
from backtest.sandbox.account import AccountSetting
from backtest.sandbox.book import CANCEL_TYPES, REJECT_REASONS, Book, Levels, cancelled_status
from backtest.sandbox.ledger import Ledger, Reduction
from backtest.sandbox.protocol import JsonObject
from backtest.sandbox.records import (
    TYPE_TEXT,
    BookKey,
    Category,
    ClosedProfit,
    Numbers,
    Status,
    VenueExecution,
    VenueOrder,
)
from bot.execution.instruments import exact
from bot.orders import (
    ZERO,
    Execution,
    ExecutionKind,
    OrderReason,
    OrderStatus,
    OrderType,
    OrderUpdate,
    Side,
    TimeInForce,
)
from strategies.bars import Bar

REMEMBERED_CLOSED: Final = 500
_PROTECTIVE: Final = {ExecutionKind.STOP_LOSS: "StopLoss", ExecutionKind.TAKE_PROFIT: "TakeProfit"}


class Market(Protocol):
    """What the exchange knows of the market."""

    def now(self) -> int:
        """Simulated time, milliseconds."""

    def flat(self, symbol: str) -> Bar | None:
        """A bar flat at the price of the moment, with the volume of the bar that forms; ``None`` while no price is known."""


@dataclass(frozen=True, slots=True)
class PrivateMessage:
    """One message of the private stream: a topic without category, and its rows."""

    topic: str
    category: str
    rows: tuple[JsonObject, ...]


class Registry:
    """Orders by id, what has been filled of them, and messages about both.

    Args:
        setting: of the account.
        ledger: its money.
        market: prices and time.
    """

    def __init__(self, setting: AccountSetting, ledger: Ledger, market: Market) -> None:
        self._setting = setting
        self._ledger = ledger
        self._market = market
        self.numbers = Numbers()
        self.orders: dict[str, VenueOrder] = {}
        """All orders ever, by id, in the order of creation."""
        self.open: dict[str, VenueOrder] = {}
        """Those of which something may still become, oldest first."""
        self.links: dict[tuple[Category, str], str] = {}
        """Ids of orders by the clients' own."""
        self.recently_closed: deque[str] = deque(maxlen=REMEMBERED_CLOSED)
        self.executions: list[VenueExecution] = []
        self.closed_profits: dict[str, ClosedProfit] = {}
        self._protective: dict[tuple[BookKey, str], VenueOrder] = {}
        self._messages: list[PrivateMessage] = []
        self._touched: dict[BookKey, None] = {}
        self._paid = False

    def add(self, order: VenueOrder) -> None:
        """Give a new order its id and keep it."""
        order.order_id = self.numbers.identity("order")
        self._keep(order)
        if order.link_id:
            self.links[order.book.category, order.link_id] = order.order_id

    def _keep(self, order: VenueOrder) -> None:
        self.orders[order.order_id] = self.open[order.order_id] = order

    def protects(self, order: VenueOrder) -> str:
        """Which level of a position an order shows: ``stop_loss``, ``take_profit``, or none."""
        if self._protective.get((order.book, order.stop_order_type)) is not order:
            return ""
        return {"StopLoss": "stop_loss", "TakeProfit": "take_profit"}[order.stop_order_type]

    def take(self) -> tuple[list[PrivateMessage], list[BookKey], bool]:
        """Messages since this was last asked, positions that changed, and whether money moved."""
        taken = _merged(self._messages), list(self._touched), self._paid
        self._messages, self._touched, self._paid = [], {}, False
        return taken

    def settle(
        self, book: Book, levels: Levels, updates: Sequence[OrderUpdate], executions: Sequence[Execution]
    ) -> None:
        """Carry what the matching did over to the venue's records.

        Args:
            book: that met a bar.
            levels: of its position before that.
            updates: what happened to its orders besides fills.
            executions: its fills.
        """
        held = ZERO if book.key.category is Category.SPOT else self._ledger.position(book.key).quantity
        kept = _levels_after(book, levels, held, executions)
        for update in updates:
            if update.status is not OrderStatus.CANCELLED and update.status is not OrderStatus.REJECTED:
                self._advance(book, self.orders[update.client_order_id], update, executions)
        for execution in executions:
            self._execute(book, execution)
        for update in updates:
            if update.status is OrderStatus.CANCELLED:
                assert update.reason is not None
                order = self.orders[update.client_order_id]
                reason = REJECT_REASONS.get(update.reason, "EC_NoError")
                cancel = CANCEL_TYPES.get(update.reason, "UNKNOWN")
                self.end(order, cancelled_status(order, by_user=False), cancel, reason)
                self.touch(book.key)
        self._end_spent_reductions(book, executions)
        if book.quantity and kept != book.levels:
            book.protect(kept)
        self.show_levels(book)

    def _end_spent_reductions(self, book: Book, executions: Sequence[Execution]) -> None:
        """Cancel what is left of orders that have reduced all there was: for the fill model they are done."""
        for execution in executions:
            order = self.orders.get(execution.client_order_id)
            if order is not None and order.is_open and not book.has_waiting(order.order_id):
                status = cancelled_status(order, by_user=False)
                self.end(order, status, CANCEL_TYPES[OrderReason.REDUCE_ONLY], "EC_NoError")

    def _advance(self, book: Book, order: VenueOrder, update: OrderUpdate, executions: Sequence[Execution]) -> None:
        order.updated = self._market.now()
        if update.status is OrderStatus.TRIGGERED:
            order.status = Status.TRIGGERED
        elif update.status is OrderStatus.RESTING:
            order.status = Status.PARTIALLY_FILLED if order.filled else Status.NEW
        elif update.reason is OrderReason.PRICE_BAND:
            fills = (each.price for each in executions if each.client_order_id == order.order_id)
            order.price = book.limit_of(order.order_id) or next(fills, order.price)
            return
        self.tell_order(order)

    def _execute(self, book: Book, execution: Execution) -> None:
        kind = _PROTECTIVE.get(execution.kind)
        if kind is not None:
            order = self._protecting(book, execution, kind)
            order.quantity = execution.quantity
        elif execution.kind is ExecutionKind.LIQUIDATION:
            order = self._liquidating(book, execution)
        else:
            order = self.orders[execution.client_order_id]
        now = self._market.now()
        is_maker = execution.is_maker
        order.filled += execution.quantity
        order.value += execution.quantity * execution.price
        order.updated = now
        if order.close_on_trigger and not order.quantity:
            order.quantity = execution.quantity
        order.status = Status.FILLED if order.filled >= order.quantity else Status.PARTIALLY_FILLED
        costs = self._setting.costs
        fee, rate, reduction = execution.fee, costs.maker_fee if is_maker else costs.taker_fee, Reduction()
        if book.key.category is Category.SPOT:
            rate = self._setting.spot_fee
            fee = self._ledger.exchange(book.key, execution, rate)
        else:
            reduction = self._ledger.book(book.key, execution)
        order.fee += fee
        if reduction.quantity:
            self._note_profit(book, order, reduction, now)
        self.record(
            VenueExecution(
                execution_id=self.numbers.identity("execution"),
                order_id=order.order_id,
                link_id=order.link_id,
                book=book.key,
                instrument=book.instrument,
                side=order.side,
                quantity=execution.quantity,
                price=execution.price,
                fee=fee,
                fee_rate=rate,
                time=now,
                sequence=self.numbers.count("sequence"),
                mark_price=self.price(book.key.symbol),
                is_maker=is_maker,
                order_price=order.price if order.price is not None else order.last_price,
                order_quantity=order.quantity,
                remaining=order.quantity - order.filled,
                order_type=TYPE_TEXT[order.order_type],
                stop_order_type=order.stop_order_type,
                create_type=order.create_type,
                kind="BustTrade" if execution.kind is ExecutionKind.LIQUIDATION else "Trade",
                closed_size=reduction.quantity,
                profit=reduction.profit,
                fee_coin=rows.order_fee_coin(order),
                market_unit=order.market_unit,
            )
        )
        if order.status is Status.FILLED:
            self._close(order)
        else:
            self.tell_order(order)
        self.touch(book.key)

    def _note_profit(self, book: Book, order: VenueOrder, reduction: Reduction, now: int) -> None:
        known = self.closed_profits.pop(order.order_id, None)
        closed = ClosedProfit(
            order,
            reduction.quantity,
            reduction.entry_value,
            reduction.exit_value,
            reduction.net,
            book.leverage,
            now,
            1,
        )
        if known is not None:
            closed = replace(
                closed,
                quantity=closed.quantity + known.quantity,
                entry_value=closed.entry_value + known.entry_value,
                exit_value=closed.exit_value + known.exit_value,
                profit=closed.profit + known.profit,
                fills=known.fills + 1,
            )
        self.closed_profits[order.order_id] = closed
        order.closed_profit = closed.profit

    def _liquidating(self, book: Book, execution: Execution) -> VenueOrder:
        """The order by which the venue takes a position over."""
        order = self._venue_order(book, execution.side, execution.quantity, "", "CreateByLiq")
        order.price = execution.price
        return order

    def _protecting(self, book: Book, execution: Execution, kind: str) -> VenueOrder:
        """The order of a level that was reached: the one that is shown, unless the position has changed sides meanwhile."""
        shown = self._protective.pop((book.key, kind), None)
        if shown is not None and shown.side is execution.side:
            return shown
        if shown is not None:
            self.end(shown, Status.DEACTIVATED, "CancelByTpSlTsClear", "EC_PerCancelRequest")
        return self._unseen(book, execution, kind)

    def _unseen(self, book: Book, execution: Execution, kind: str) -> VenueOrder:
        """The order of a level that was set and reached within one bar."""
        order = self._venue_order(book, execution.side, execution.quantity, kind, f"CreateBy{kind}")
        own = book.own_levels(execution.client_order_id)
        order.trigger_price = own.stop_loss if kind == "StopLoss" else own.take_profit
        order.trigger_direction = 1 if (kind == "TakeProfit") == (execution.side is Side.SELL) else 2
        order.trigger_by = "LastPrice"
        return order

    def _venue_order(
        self, book: Book, side: Side, quantity: Decimal, stop_order_type: str, create_type: str
    ) -> VenueOrder:
        """An order of the venue's own that closes a position."""
        now = self._market.now()
        order = VenueOrder(
            order_id=self.numbers.identity("order"),
            link_id="",
            book=book.key,
            instrument=book.instrument,
            side=side,
            order_type=OrderType.MARKET,
            quantity=quantity,
            price=None,
            time_in_force=TimeInForce.IOC,
            created=now,
            updated=now,
            status=Status.UNTRIGGERED if stop_order_type else Status.NEW,
            reduce_only=True,
            close_on_trigger=True,
            stop_order_type=stop_order_type,
            create_type=create_type,
            last_price=self.price(book.key.symbol),
        )
        self._keep(order)
        return order

    def show_levels(self, book: Book) -> None:
        """Keep the orders that Bybit shows for the levels of a position in line with them."""
        levels = book.levels
        for kind, level in (("StopLoss", levels.stop_loss), ("TakeProfit", levels.take_profit)):
            side = Side.SELL if book.quantity > 0 else Side.BUY
            is_wanted = level is not None and bool(book.quantity)
            shown = self._protective.get((book.key, kind))
            if shown is not None and (not is_wanted or shown.side is not side):
                del self._protective[book.key, kind]
                self.end(shown, Status.DEACTIVATED, "CancelByTpSlTsClear", "EC_PerCancelRequest")
                shown = None
            if not is_wanted:
                continue
            size = abs(book.quantity)
            if shown is None:
                shown = self._venue_order(book, side, size, kind, f"CreateBy{kind}")
                self._protective[book.key, kind] = shown
            elif (shown.trigger_price, shown.quantity) == (level, size):
                continue
            rises = (kind == "TakeProfit") == (book.quantity > 0)
            shown.trigger_price, shown.trigger_direction, shown.trigger_by = level, 1 if rises else 2, "LastPrice"
            shown.quantity, shown.updated = size, self._market.now()
            self.tell_order(shown)

    # -- telling -----------------------------------------------------------------------------------------------------

    def end(self, order: VenueOrder, status: Status, cancel_type: str, reason: str) -> None:
        """Close an order that is not filled whole, and tell it."""
        order.status, order.cancel_type, order.reject_reason = status, cancel_type, reason
        order.updated = self._market.now()
        self._close(order)

    def _close(self, order: VenueOrder) -> None:
        self.open.pop(order.order_id, None)
        self.recently_closed.append(order.order_id)
        self.tell_order(order)

    def tell_order(self, order: VenueOrder) -> None:
        """Push an order as it is now."""
        self._messages.append(PrivateMessage("order", order.book.category, (rows.order_push_row(order),)))

    def count_order_messages(self) -> int:
        """Pushes of orders that have not been taken yet."""
        return sum(message.topic == "order" for message in self._messages)

    def record(self, execution: VenueExecution) -> None:
        """Keep a fill or settlement and tell it; the wallet is told with it."""
        self._paid = True
        self.executions.append(execution)
        category = execution.book.category
        self._messages.append(PrivateMessage("execution", category, (rows.execution_push_row(execution),)))
        if execution.kind == "Trade":
            self._messages.append(PrivateMessage("execution.fast", category, (rows.fast_execution_row(execution),)))

    def touch(self, key: BookKey) -> None:
        """Let the position be told once more, where there are positions."""
        if key.category is not Category.SPOT:
            self._touched[key] = None

    def price(self, symbol: str) -> Decimal:
        """Of the moment; 0 where none is known."""
        bar = self._market.flat(symbol)
        return ZERO if bar is None else exact(bar.open)


def _levels_after(book: Book, levels: Levels, held: Decimal, executions: Sequence[Execution]) -> Levels:
    """Levels of a position after fills: an order that adds to it without levels of its own leaves them as they are."""
    for execution in executions:
        change = execution.signed_quantity
        is_order = execution.kind not in _PROTECTIVE and execution.kind is not ExecutionKind.LIQUIDATION
        own = book.own_levels(execution.client_order_id) if is_order else Levels()
        if held * change >= 0:
            levels = own.filled_up(levels) if held else own
        elif abs(change) >= abs(held):
            levels = own if abs(change) > abs(held) else Levels()
        held += change
    return levels


def _merged(messages: Iterable[PrivateMessage]) -> list[PrivateMessage]:
    """Neighbours of one topic as one message of several rows."""
    merged: list[PrivateMessage] = []
    for message in messages:
        if merged and (merged[-1].topic, merged[-1].category) == (message.topic, message.category):
            merged[-1] = PrivateMessage(message.topic, message.category, merged[-1].rows + message.rows)
        else:
            merged.append(message)
    return merged
