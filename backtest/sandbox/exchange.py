"""The venue's exchange: one account's orders, positions and money under the project's one fill model. No sockets.

An order meets the price of the moment when it arrives, and from then on every bar of its symbol as it closes. What happens is
collected as messages of the private stream, which the caller takes and sends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Protocol

from backtest.sandbox import refusals, rows
from backtest.sandbox.account import AccountSetting, MarginSetting
from backtest.sandbox.book import CANCEL_TYPES, REJECT_REASONS, Book, Levels, as_order, cancelled_status
from backtest.sandbox.ledger import Ledger, Reduction
from backtest.sandbox.protocol import JsonObject
from backtest.sandbox.records import (
    TYPE_TEXT,
    BookKey,
    Category,
    ClosedProfit,
    Numbers,
    PositionMode,
    Status,
    VenueExecution,
    VenueOrder,
)
from backtest.sandbox.refusals import VenueRefusal, bad_parameter, scaled
from backtest.sandbox.rows import CoinBalance, PositionView
from backtest.sandbox.tickets import Ticket
from bot.execution.fills import refusal
from bot.execution.instruments import Instrument, exact
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
MAXIMUM_ORDERS: Final = 500
MAXIMUM_CONDITIONALS: Final = 10
_PROTECTIVE: Final = {ExecutionKind.STOP_LOSS: "StopLoss", ExecutionKind.TAKE_PROFIT: "TakeProfit"}
_LINEAR: Final = Category.LINEAR


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


class Exchange:
    """The account and its books.

    Args:
        setting: of the account.
        instruments: linear contracts by symbol.
        market: prices and time.
    """

    def __init__(self, setting: AccountSetting, instruments: Mapping[str, Instrument], market: Market) -> None:
        self.setting = setting
        self.instruments = dict(instruments)
        self.mode = setting.mode
        self.margin = setting.margin
        self._market = market
        self._numbers = Numbers()
        keys = [BookKey(_LINEAR, symbol, index) for symbol in instruments for index in (0, 1, 2)]
        self._books = {
            key: Book(
                key,
                self.instruments[key.symbol],
                setting.costs,
                setting.rules,
                max(Decimal(1), min(setting.leverage, self.instruments[key.symbol].maximum_leverage)),
            )
            for key in keys
        }
        self._ledger = Ledger(setting.balance, {key: self.instruments[key.symbol] for key in keys})
        self.orders: dict[str, VenueOrder] = {}
        """All orders ever, by id, in the order of creation."""
        self.recently_closed: deque[str] = deque(maxlen=REMEMBERED_CLOSED)
        self.executions: list[VenueExecution] = []
        self.closed_profits: dict[str, ClosedProfit] = {}
        self._links: dict[tuple[Category, str], str] = {}
        self._protective: dict[tuple[BookKey, str], VenueOrder] = {}
        self._messages: list[PrivateMessage] = []
        self._touched: dict[BookKey, None] = {}
        self._paid = False
        self.updated = market.now()
        """When the account's settings last changed, milliseconds."""

    def now(self) -> int:
        """Simulated time, milliseconds."""
        return self._market.now()

    # -- orders ------------------------------------------------------------------------------------------------------

    def create(self, ticket: Ticket) -> VenueOrder:
        """Take an order, and let it meet the price of the moment.

        Raises:
            VenueRefusal: with the code that Bybit has for it.
        """
        book = self._book_of(ticket)
        now = self._market.now()
        order = VenueOrder(
            order_id="",
            link_id=ticket.link_id,
            book=book.key,
            instrument=book.instrument,
            side=ticket.side,
            order_type=ticket.order_type,
            quantity=ticket.quantity,
            price=ticket.price,
            time_in_force=ticket.time_in_force,
            created=now,
            updated=now,
            status=Status.NEW if ticket.trigger_price is None else Status.UNTRIGGERED,
            reduce_only=ticket.reduce_only or (book.key.index > 0 and not _opens(book.key.index, ticket.side)),
            close_on_trigger=ticket.close_on_trigger,
            trigger_price=ticket.trigger_price,
            trigger_direction=ticket.trigger_direction,
            trigger_by=ticket.trigger_by,
            stop_loss=ticket.stop_loss,
            take_profit=ticket.take_profit,
            stop_order_type="Stop" if ticket.trigger_price is not None else "",
            last_price=self._price(book.key.symbol),
        )
        self._check(book, order)
        order.order_id = self._numbers.identity("order")
        self.orders[order.order_id] = order
        if order.link_id:
            self._links[order.book.category, order.link_id] = order.order_id
        book.submit(self._inheriting(book, order))
        self._touch(book.key)
        before = self._count_order_messages()
        self._arrive(book)
        if order.is_open and self._count_order_messages() == before:
            self._tell_order(order)
        return order

    def amend(
        self,
        order: VenueOrder,
        *,
        quantity: Decimal | None = None,
        price: Decimal | None = None,
        trigger_price: Decimal | None = None,
        stop_loss: Decimal | None = None,
        take_profit: Decimal | None = None,
    ) -> None:
        """Change a waiting order; what is ``None`` stays, and a level of 0 is taken away.

        Raises:
            VenueRefusal: 110001 when it does not wait any more, 110064 when as much is filled already, or as for a new one.
        """
        book = self._books[order.book]
        if not order.is_open:
            raise VenueRefusal(refusals.ORDER_GONE, "order not exists or too late to replace")
        if (order.book, order.stop_order_type) in self._protective:
            if trigger_price is None:
                raise bad_parameter("params error: triggerPrice invalid")
            changed = {"StopLoss": "stop_loss", "TakeProfit": "take_profit"}[order.stop_order_type]
            self.protect(order.book, **{changed: trigger_price})
            return
        if quantity is not None and quantity <= order.filled:
            raise VenueRefusal(refusals.BELOW_FILLED)
        amended = replace(
            order,
            quantity=order.quantity if quantity is None else quantity,
            price=order.price if price is None else price,
            trigger_price=order.trigger_price if trigger_price is None else trigger_price,
            stop_loss=order.stop_loss if stop_loss is None else stop_loss or None,
            take_profit=order.take_profit if take_profit is None else take_profit or None,
        )
        if amended == order:
            raise bad_parameter("order not modified")
        self._check_form(book, amended)
        self._check_levels(amended)
        now = self._market.now()
        if not book.amend(self._inheriting(book, amended), now):
            raise VenueRefusal(refusals.ORDER_GONE, "order not exists or too late to replace")
        for name in ("quantity", "price", "trigger_price", "stop_loss", "take_profit"):
            setattr(order, name, getattr(amended, name))
        order.updated = now
        self._tell_order(order)
        self._touch(book.key)
        self._arrive(book)

    def cancel(self, order: VenueOrder) -> None:
        """Take back an order that waits.

        Raises:
            VenueRefusal: 110001 when it does not wait any more.
        """
        book = self._books[order.book]
        if not order.is_open:
            raise VenueRefusal(refusals.ORDER_GONE, "order not exists or too late to cancel")
        if self._protective.get((order.book, order.stop_order_type)) is order:
            changed = {"StopLoss": "stop_loss", "TakeProfit": "take_profit"}[order.stop_order_type]
            self.protect(order.book, **{changed: ZERO})
            return
        if not book.cancel(order.order_id, self._market.now()):
            raise VenueRefusal(refusals.ORDER_GONE, "order not exists or too late to cancel")
        self._end(order, cancelled_status(order, by_user=True), CANCEL_TYPES[OrderReason.CLIENT], "EC_PerCancelRequest")
        self._touch(book.key)

    def find(self, category: Category, order_id: str, link_id: str) -> VenueOrder | None:
        """The order of an id or, without one, of the client's own id."""
        found = self.orders.get(order_id or self._links.get((category, link_id), ""))
        return found if found is not None and found.book.category is category else None

    def open_orders(self) -> list[VenueOrder]:
        """What waits, oldest first."""
        return [order for order in self.orders.values() if order.is_open]

    # -- position and account ----------------------------------------------------------------------------------------

    def protect(self, key: BookKey, *, stop_loss: Decimal | None = None, take_profit: Decimal | None = None) -> None:
        """Set the levels of a position; what is ``None`` stays, and 0 takes a level away.

        Raises:
            VenueRefusal: there is no position, or a level lies on the wrong side of the price.
        """
        book = self._books[key]
        if not book.quantity:
            raise bad_parameter("can not set tp/sl/ts for zero position")
        side = Side.BUY if book.quantity > 0 else Side.SELL
        self._check_sides(key, side, self._price(key.symbol), stop_loss or None, take_profit or None)
        levels = book.levels
        wanted = Levels(
            levels.stop_loss if stop_loss is None else stop_loss or None,
            levels.take_profit if take_profit is None else take_profit or None,
        )
        if wanted == levels:
            raise VenueRefusal(refusals.NOT_MODIFIED)
        book.protect(wanted)
        self._show_levels(book)
        self._touch(key)

    def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        """Let positions of a symbol have another leverage.

        Raises:
            VenueRefusal: 110013 above the symbol's maximum, 110043 when it has it already.
        """
        most = self._instrument(symbol).maximum_leverage
        if leverage < 1 or leverage > most:
            raise VenueRefusal(
                refusals.LEVERAGE_TOO_HIGH,
                f"cannot set leverage [{int(leverage * 100)}] gt maxLeverage [{int(most * 100)}] by risk limit",
            )
        books = [self._books[BookKey(_LINEAR, symbol, index)] for index in (0, 1, 2)]
        if all(book.leverage == leverage for book in books):
            raise VenueRefusal(refusals.LEVERAGE_NOT_MODIFIED)
        for book in books:
            book.lever(leverage)
            if book.key.index in self.indices:
                self._touch(book.key)

    def switch_mode(self, mode: PositionMode) -> None:
        """Have one position per symbol, or one for each side.

        Raises:
            VenueRefusal: 110024, 110028 or 110025.
        """
        if mode is self.mode:
            raise VenueRefusal(refusals.MODE_NOT_MODIFIED)
        if any(book.quantity for book in self._books.values()):
            raise VenueRefusal(refusals.MODE_HAS_POSITION)
        if self.open_orders():
            raise VenueRefusal(refusals.MODE_HAS_ORDERS)
        self.mode = mode
        self.updated = self._market.now()

    def set_margin(self, margin: MarginSetting) -> None:
        """Change the margin mode of the account.

        Raises:
            VenueRefusal: 110026 when it is that already.
        """
        if margin is self.margin:
            raise VenueRefusal(refusals.MARGIN_NOT_MODIFIED)
        self.margin = margin
        self.updated = self._market.now()

    @property
    def indices(self) -> tuple[int, ...]:
        """Position indices of the present mode."""
        return (0,) if self.mode is PositionMode.ONE_WAY else (1, 2)

    def leverage(self, symbol: str) -> Decimal:
        """Of a symbol."""
        return self._books[BookKey(_LINEAR, symbol)].leverage

    def positions(self, symbol: str | None = None) -> list[PositionView]:
        """Positions of one symbol, flat or not; without one, all that are held."""
        views = [
            self._view(self._books[BookKey(_LINEAR, name, index)])
            for name in ([symbol] if symbol is not None else sorted(self.instruments))
            for index in self.indices
        ]
        return views if symbol is not None else [view for view in views if view.quantity]

    def coins(self) -> list[CoinBalance]:
        """The wallet."""
        views = [self._view(book) for book in self._books.values() if book.quantity]
        earned = sum((self._ledger.realised(key)[1] for key in self._ledger.holdings), ZERO)
        return [
            CoinBalance(
                "USDT",
                self._ledger.wallet_balance,
                Decimal(1),
                sum((view.unrealised for view in views), ZERO),
                earned,
                sum((view.initial_margin for view in views), ZERO),
                self._order_margin(),
                sum((view.maintenance for view in views), ZERO),
            )
        ]

    # -- time --------------------------------------------------------------------------------------------------------

    def on_close(self, bar: Bar) -> None:
        """Let the orders and levels of a symbol meet a bar that has closed."""
        for index in (0, 1, 2):
            book = self._books[BookKey(_LINEAR, bar.symbol, index)]
            self._settle(book, *book.close(bar))

    def fund(self, symbol: str, rate: Decimal) -> None:
        """Settle the funding of a symbol: longs pay ``rate`` times position value when it is positive."""
        price, now = self._price(symbol), self._market.now()
        for index in (0, 1, 2):
            book = self._books[BookKey(_LINEAR, symbol, index)]
            if not book.quantity:
                continue
            paid = self._ledger.fund(book.key, rate, price, now)
            quantity = abs(book.quantity)
            side = Side.BUY if book.quantity > 0 else Side.SELL
            self._record(
                VenueExecution(
                    execution_id=self._numbers.identity("execution"),
                    order_id=self._numbers.identity("funding"),
                    link_id="",
                    book=book.key,
                    instrument=book.instrument,
                    side=side,
                    quantity=quantity,
                    price=price,
                    fee=paid,
                    fee_rate=rate,
                    time=now,
                    sequence=self._numbers.count("sequence"),
                    mark_price=price,
                    order_quantity=quantity,
                    order_type="UNKNOWN",
                    create_type="",
                    kind="Funding",
                )
            )
            self._touch(book.key)
            self._paid = True

    def forget_closed(self) -> None:
        """Restart: ``/v5/order/realtime`` no longer knows what is closed."""
        self.recently_closed.clear()

    def take_messages(self) -> list[PrivateMessage]:
        """What has happened since this was last asked, in the order in which the private stream tells it."""
        messages, self._messages = self._messages, []
        now = self._market.now()
        for key in self._touched:
            holding = self._ledger.holdings[key]
            holding.updated, holding.sequence = now, self._numbers.count("sequence")
            view = self._view(self._books[key])
            messages.append(PrivateMessage("position", key.category, (rows.position_push_row(view),)))
        self._touched.clear()
        if self._paid:
            messages.append(PrivateMessage("wallet", "", (rows.wallet_row(self.coins()),)))
        self._paid = False
        return _merged(messages)

    # -- checks ------------------------------------------------------------------------------------------------------

    def _instrument(self, symbol: str) -> Instrument:
        instrument = self.instruments.get(symbol)
        if instrument is None:
            raise bad_parameter("params error: symbol invalid")
        return instrument

    def _book_of(self, ticket: Ticket) -> Book:
        self._instrument(ticket.symbol)
        if ticket.index not in self.indices:
            raise bad_parameter("position idx not match position mode")
        return self._books[BookKey(ticket.category, ticket.symbol, ticket.index)]

    def _check(self, book: Book, order: VenueOrder) -> None:
        """Refuse what Bybit refuses at the door."""
        if order.link_id and (order.book.category, order.link_id) in self._links:
            raise VenueRefusal(refusals.DUPLICATE_LINK_ID)
        self._check_form(book, order)
        waiting = [each for each in self.open_orders() if each.book.symbol == order.book.symbol]
        if sum(not each.stop_order_type for each in waiting) >= MAXIMUM_ORDERS:
            raise VenueRefusal(refusals.TOO_MANY_ORDERS)
        if order.is_conditional and sum(each.stop_order_type == "Stop" for each in waiting) >= MAXIMUM_CONDITIONALS:
            raise VenueRefusal(refusals.TOO_MANY_CONDITIONALS)
        self._check_trigger(order)
        self._check_reduction(book, order)
        self._check_levels(order)
        if not order.is_conditional:
            self._check_margin(book, order)

    def _check_form(self, book: Book, order: VenueOrder) -> None:
        """Grid, least and most: the rules of the one fill model, in Bybit's words."""
        instrument = order.instrument
        price = order.price if order.price is not None else order.last_price
        if order.price is not None and order.price % instrument.tick_size:
            raise bad_parameter("params error: price is not a multiple of the tick size")
        reason = refusal(as_order(order, order.book.symbol), instrument, price=price)
        if reason is None:
            return
        if reason is OrderReason.BELOW_MINIMUM:
            if order.quantity >= instrument.minimum_quantity:
                least = rows.plain(instrument.minimum_notional)
                message = f"Order does not meet minimum order value {least}USDT"
                raise VenueRefusal(refusals.BELOW_NOTIONAL, message)
            raise bad_parameter("The number of contracts exceeds minimum limit allowed")
        if reason is OrderReason.ABOVE_MAXIMUM:
            raise bad_parameter("The number of contracts exceeds maximum limit allowed")
        raise bad_parameter("Qty invalid")

    def _check_trigger(self, order: VenueOrder) -> None:
        trigger, price = order.trigger_price, order.last_price
        if trigger is None:
            return
        if order.trigger_direction == 1 and trigger <= price:
            message = f"expect Rising, but trigger_price[{scaled(trigger)}] <= current[{scaled(price)}]??LastPrice"
            raise VenueRefusal(refusals.NOT_RISING, message)
        if order.trigger_direction == 2 and trigger >= price:
            message = f"expect Falling, but trigger_price[{scaled(trigger)}] >= current[{scaled(price)}]??LastPrice"
            raise VenueRefusal(refusals.NOT_FALLING, message)

    def _check_reduction(self, book: Book, order: VenueOrder) -> None:
        if not order.reduce_only or order.is_conditional:
            return
        if not book.quantity:
            raise VenueRefusal(refusals.REDUCE_ONLY, "current position is zero, cannot fix reduce-only order qty")
        if book.quantity * order.side.sign > 0:
            raise VenueRefusal(refusals.REDUCE_ONLY, "reduce-only order has same side with current position")

    def _check_levels(self, order: VenueOrder) -> None:
        if order.stop_loss is None and order.take_profit is None:
            return
        if order.reduce_only or order.close_on_trigger:
            raise bad_parameter("params error: reduceOnly order can not have takeProfit or stopLoss")
        base = order.trigger_price or order.price or order.last_price
        self._check_sides(order.book, order.side, base, order.stop_loss, order.take_profit)

    def _check_sides(
        self, key: BookKey, side: Side, base: Decimal, stop: Decimal | None, target: Decimal | None
    ) -> None:
        tick = self._instrument(key.symbol).tick_size
        name = "Buy" if side is Side.BUY else "Sell"
        for level, kind, below in ((stop, "StopLoss", side is Side.BUY), (target, "TakeProfit", side is Side.SELL)):
            if level is None:
                continue
            if level < 0 or level % tick:
                raise bad_parameter(f"params error: {kind} invalid")
            if (level >= base) if below else (level <= base):
                relation = "lower" if below else "higher"
                raise bad_parameter(
                    f"{kind}:{scaled(level)} set for {name} position should {relation} than base_price:{scaled(base)}"
                )

    def _check_margin(self, book: Book, order: VenueOrder) -> None:
        """Initial margin and the taker's fee must be there."""
        needed = self._margin_of(book, order, order.quantity)
        if not needed:
            return
        coin = self.coins()[0]
        available = coin.equity - coin.position_margin - coin.order_margin
        price = order.price if order.price is not None else order.last_price
        if needed + order.quantity * price * self.setting.costs.taker_fee > available:
            raise VenueRefusal(refusals.NOT_ENOUGH_MARGIN)

    def _margin_of(self, book: Book, order: VenueOrder, quantity: Decimal) -> Decimal:
        """Initial margin of what an order would add to the position."""
        if order.reduce_only or order.close_on_trigger:
            return ZERO
        price = order.price if order.price is not None else order.last_price
        held = book.quantity
        adding = quantity if held * order.side.sign >= 0 else max(quantity - 2 * abs(held), ZERO)
        return adding * price / book.leverage

    def _order_margin(self) -> Decimal:
        return sum(
            (
                self._margin_of(self._books[order.book], order, order.remaining)
                for order in self.open_orders()
                if not order.is_conditional
            ),
            ZERO,
        )

    # -- what the matching answers -----------------------------------------------------------------------------------

    def _inheriting(self, book: Book, order: VenueOrder) -> VenueOrder:
        """An order that leaves the levels of a position as they are, where it brings none of its own."""
        if book.quantity * order.side.sign <= 0:
            return order
        levels = book.levels
        return replace(
            order,
            stop_loss=order.stop_loss if order.stop_loss is not None else levels.stop_loss,
            take_profit=order.take_profit if order.take_profit is not None else levels.take_profit,
        )

    def _arrive(self, book: Book) -> None:
        bar = self._market.flat(book.key.symbol)
        if bar is not None:
            self._settle(book, *book.arrive(bar))

    def _settle(self, book: Book, updates: Sequence[OrderUpdate], executions: Sequence[Execution]) -> None:
        """Carry what the matching did over to the venue's records."""
        before, levels = self._ledger.position(book.key).quantity, book.levels
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
                self._end(order, cancelled_status(order, by_user=False), cancel, reason)
                self._touch(book.key)
        if executions and before * book.quantity > 0:
            self._restore_levels(book, levels)
        self._show_levels(book)

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
        self._tell_order(order)

    def _execute(self, book: Book, execution: Execution) -> None:
        kind = _PROTECTIVE.get(execution.kind)
        if kind is not None:
            order = self._protective.pop((book.key, kind))
            order.quantity = execution.quantity
        elif execution.kind is ExecutionKind.LIQUIDATION:
            order = self._liquidating(book, execution)
        else:
            order = self.orders[execution.client_order_id]
        now = self._market.now()
        is_maker = execution.is_maker
        order.filled += execution.quantity
        order.value += execution.quantity * execution.price
        order.fee += execution.fee
        order.updated = now
        if order.close_on_trigger and not order.quantity:
            order.quantity = execution.quantity
        order.status = Status.FILLED if order.filled >= order.quantity else Status.PARTIALLY_FILLED
        reduction = self._ledger.book(book.key, execution)
        if reduction.quantity:
            self._note_profit(book, order, reduction, now)
        costs = self.setting.costs
        self._record(
            VenueExecution(
                execution_id=self._numbers.identity("execution"),
                order_id=order.order_id,
                link_id=order.link_id,
                book=book.key,
                instrument=book.instrument,
                side=order.side,
                quantity=execution.quantity,
                price=execution.price,
                fee=execution.fee,
                fee_rate=costs.maker_fee if is_maker else costs.taker_fee,
                time=now,
                sequence=self._numbers.count("sequence"),
                mark_price=self._price(book.key.symbol),
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
            )
        )
        if order.status is Status.FILLED:
            self._close(order)
        else:
            self._tell_order(order)
        self._touch(book.key)
        self._paid = True

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

    def _venue_order(
        self, book: Book, side: Side, quantity: Decimal, stop_order_type: str, create_type: str
    ) -> VenueOrder:
        """An order of the venue's own that closes a position."""
        now = self._market.now()
        order = VenueOrder(
            order_id=self._numbers.identity("order"),
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
            last_price=self._price(book.key.symbol),
        )
        self.orders[order.order_id] = order
        return order

    def _restore_levels(self, book: Book, levels: Levels) -> None:
        """Give a position that was added to back the levels that it had, where the order brought none."""
        now = book.levels
        kept = Levels(
            now.stop_loss if now.stop_loss is not None else levels.stop_loss,
            now.take_profit if now.take_profit is not None else levels.take_profit,
        )
        if kept != now:
            book.protect(kept)

    def _show_levels(self, book: Book) -> None:
        """Keep the orders that Bybit shows for the levels of a position in line with them."""
        levels = book.levels
        for kind, level in (("StopLoss", levels.stop_loss), ("TakeProfit", levels.take_profit)):
            shown = self._protective.get((book.key, kind))
            if shown is not None and (level is None or not book.quantity):
                del self._protective[book.key, kind]
                self._end(shown, Status.DEACTIVATED, "CancelByTpSlTsClear", "EC_PerCancelRequest")
                continue
            if level is None or not book.quantity:
                continue
            size = abs(book.quantity)
            if shown is None:
                side = Side.SELL if book.quantity > 0 else Side.BUY
                shown = self._venue_order(book, side, size, kind, f"CreateBy{kind}")
                self._protective[book.key, kind] = shown
            elif (shown.trigger_price, shown.quantity) == (level, size):
                continue
            rises = (kind == "TakeProfit") == (book.quantity > 0)
            shown.trigger_price, shown.trigger_direction, shown.trigger_by = level, 1 if rises else 2, "LastPrice"
            shown.quantity, shown.updated = size, self._market.now()
            self._tell_order(shown)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _end(self, order: VenueOrder, status: Status, cancel_type: str, reason: str) -> None:
        order.status, order.cancel_type, order.reject_reason = status, cancel_type, reason
        order.updated = self._market.now()
        self._close(order)

    def _close(self, order: VenueOrder) -> None:
        self.recently_closed.append(order.order_id)
        self._tell_order(order)

    def _tell_order(self, order: VenueOrder) -> None:
        self._messages.append(PrivateMessage("order", order.book.category, (rows.order_push_row(order),)))

    def _count_order_messages(self) -> int:
        return sum(message.topic == "order" for message in self._messages)

    def _record(self, execution: VenueExecution) -> None:
        self.executions.append(execution)
        category = execution.book.category
        self._messages.append(PrivateMessage("execution", category, (rows.execution_push_row(execution),)))
        if execution.kind == "Trade":
            self._messages.append(PrivateMessage("execution.fast", category, (rows.fast_execution_row(execution),)))

    def _touch(self, key: BookKey) -> None:
        self._touched[key] = None

    def _price(self, symbol: str) -> Decimal:
        bar = self._market.flat(symbol)
        return ZERO if bar is None else exact(bar.open)

    def _view(self, book: Book) -> PositionView:
        position, holding = self._ledger.position(book.key), self._ledger.holdings[book.key]
        price = self._price(book.key.symbol)
        realised, earned = self._ledger.realised(book.key)
        liquidation, bankruptcy = book.liquidation
        levels = book.levels
        value = abs(position.cost)
        return PositionView(
            key=book.key,
            instrument=book.instrument,
            quantity=position.quantity,
            entry_price=position.entry_price,
            mark_price=price,
            leverage=book.leverage,
            unrealised=self._ledger.unrealised(book.key, price),
            realised=realised,
            earned=earned,
            maintenance=book.maintenance(value),
            stop_loss=levels.stop_loss,
            take_profit=levels.take_profit,
            liquidation=liquidation,
            bankruptcy=bankruptcy,
            isolated=self.margin is MarginSetting.ISOLATED,
            created=holding.created,
            updated=holding.updated,
            sequence=holding.sequence,
        )


def _opens(index: int, side: Side) -> bool:
    """Whether a side opens the position of an index in hedge mode."""
    return (index == 1) == (side is Side.BUY)


def _merged(messages: Iterable[PrivateMessage]) -> list[PrivateMessage]:
    """Neighbours of one topic as one message of several rows."""
    merged: list[PrivateMessage] = []
    for message in messages:
        if merged and (merged[-1].topic, merged[-1].category) == (message.topic, message.category):
            merged[-1] = PrivateMessage(message.topic, message.category, merged[-1].rows + message.rows)
        else:
            merged.append(message)
    return merged
