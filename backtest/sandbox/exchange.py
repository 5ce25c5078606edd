"""The venue's exchange: one account's orders, positions and money under the project's one fill model. No sockets.

An order meets the price of the moment when it arrives, and from then on every bar of its symbol as it closes. What happens is
collected as messages of the private stream, which the caller takes and sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final

from backtest.sandbox import refusals, rows
from backtest.sandbox.account import AccountSetting, MarginSetting
from backtest.sandbox.admission import (
    check_form,
    check_levels,
    check_sides,
)
from backtest.sandbox.book import CANCEL_TYPES, Book, Levels, cancelled_status
from backtest.sandbox.door import Door
from backtest.sandbox.ledger import Ledger
from backtest.sandbox.records import BookKey, Category, PositionMode, Status, VenueExecution, VenueOrder
from backtest.sandbox.refusals import VenueRefusal, bad_parameter
from backtest.sandbox.registry import Market, PrivateMessage, Registry
from backtest.sandbox.rows import CoinBalance, PositionView
from backtest.sandbox.standing import Standing
from backtest.sandbox.tickets import TPSL, Ticket
from bot.execution.fills import BandAction, MarginMode
from bot.execution.fills.margin import is_margin_gone
from bot.execution.instruments import Instrument
from bot.orders import ZERO, OrderReason, Side
from strategies.bars import Bar

_LINEAR: Final = Category.LINEAR
_SPOT: Final = Category.SPOT


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
        self._market = market
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
        for symbol, instrument in instruments.items():
            self._books[BookKey(_SPOT, symbol)] = _spot_book(symbol, instrument, setting)
        self._ledger = Ledger(setting.balance, {key: self.instruments[key.symbol] for key in keys}, setting.coins)
        self.records = Registry(setting, self._ledger, market)
        self.standing = Standing(setting, self._books, self._ledger, self.records)
        self._door = Door(self.instruments, self._books, self.standing, self.records, setting.costs.taker_fee)
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
        book = self._door.book_of(ticket)
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
            last_price=self.records.price(book.key.symbol),
        )
        if book.key.category is _SPOT:
            _direct(order, order.last_price)
            order.market_unit = "quoteCoin" if ticket.in_quote else "baseCoin"
            if ticket.in_quote:
                order.quote_quantity = ticket.quantity
                order.quantity = self.standing.affordable(order, ticket.quantity)
        self._door.check(book, order)
        self.records.add(order)
        book.submit(order)
        self.records.touch(book.key)
        before = self.records.count_order_messages()
        self._arrive(book)
        if order.is_open and self.records.count_order_messages() == before:
            self.records.tell_order(order)
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
        level = self.records.protects(order)
        if level:
            if trigger_price is None:
                raise bad_parameter("params error: triggerPrice invalid")
            self.protect(order.book, **{level: trigger_price})
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
        check_form(amended)
        check_levels(amended)
        if order.book.category is _SPOT:
            _direct(amended, self.records.price(order.book.symbol))
            self._door.check_balance(amended, order)
        now = self._market.now()
        if not book.amend(amended, now):
            raise VenueRefusal(refusals.ORDER_GONE, "order not exists or too late to replace")
        for name in ("quantity", "price", "trigger_price", "trigger_direction", "stop_loss", "take_profit"):
            setattr(order, name, getattr(amended, name))
        order.updated = now
        self.records.tell_order(order)
        self.records.touch(book.key)
        self._arrive(book)

    def cancel(self, order: VenueOrder) -> None:
        """Take back an order that waits.

        Raises:
            VenueRefusal: 110001 when it does not wait any more.
        """
        book = self._books[order.book]
        if not order.is_open:
            if order.book.category is _SPOT:
                raise VenueRefusal(refusals.SPOT_ORDER_GONE)
            raise VenueRefusal(refusals.ORDER_GONE, "order not exists or too late to cancel")
        level = self.records.protects(order)
        if level:
            self.protect(order.book, **{level: ZERO})
            return
        if not book.cancel(order.order_id, self._market.now()):
            raise VenueRefusal(refusals.ORDER_GONE, "order not exists or too late to cancel")
        self.records.end(
            order, cancelled_status(order, by_user=True), CANCEL_TYPES[OrderReason.CLIENT], "EC_PerCancelRequest"
        )
        self.records.touch(book.key)

    def find(self, category: Category, order_id: str, link_id: str) -> VenueOrder | None:
        """The order of an id or, without one, of the client's own id."""
        found = self.records.orders.get(order_id or self.records.links.get((category, link_id), ""))
        return found if found is not None and found.book.category is category else None

    def open_orders(self) -> list[VenueOrder]:
        """What waits, oldest first."""
        return list(self.records.open.values())

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
        check_sides(book.instrument, side, self.records.price(key.symbol), stop_loss or None, take_profit or None)
        levels = book.levels
        wanted = Levels(
            levels.stop_loss if stop_loss is None else stop_loss or None,
            levels.take_profit if take_profit is None else take_profit or None,
        )
        if wanted == levels:
            raise VenueRefusal(refusals.NOT_MODIFIED)
        book.protect(wanted)
        self.records.show_levels(book)
        self.records.touch(key)

    def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        """Let positions of a symbol have another leverage.

        Raises:
            VenueRefusal: 110013 above the symbol's maximum, 110043 when it has it already.
        """
        most = self._door.instrument(symbol).maximum_leverage
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
            if book.key.index in self.standing.indices:
                self.records.touch(book.key)

    def switch_mode(self, mode: PositionMode) -> None:
        """Have one position per symbol, or one for each side.

        Raises:
            VenueRefusal: 110024, 110028 or 110025.
        """
        if mode is self.standing.mode:
            raise VenueRefusal(refusals.MODE_NOT_MODIFIED)
        if any(book.quantity for book in self._books.values()):
            raise VenueRefusal(refusals.MODE_HAS_POSITION)
        if self.open_orders():
            raise VenueRefusal(refusals.MODE_HAS_ORDERS)
        self.standing.mode = mode
        self.updated = self._market.now()

    def set_margin(self, margin: MarginSetting) -> None:
        """Change the margin mode of the account.

        Raises:
            VenueRefusal: 110026 when it is that already.
        """
        if margin is self.standing.margin:
            raise VenueRefusal(refusals.MARGIN_NOT_MODIFIED)
        self.standing.margin = margin
        self.updated = self._market.now()

    def leverage(self, symbol: str) -> Decimal:
        """Of a symbol."""
        return self._books[BookKey(_LINEAR, symbol)].leverage

    def positions(self, symbol: str | None = None) -> list[PositionView]:
        """Positions of one symbol, flat or not; without one, all that are held."""
        return self.standing.positions(symbol)

    def coins(self) -> list[CoinBalance]:
        """The wallet."""
        return self.standing.coins()

    # -- time --------------------------------------------------------------------------------------------------------

    def on_close(self, bar: Bar) -> None:
        """Let the orders and levels of a symbol meet a bar that has closed.

        Under cross margin the account is looked at with the positions before it and after, as in replays.
        """
        self._margin_call(bar)
        for key in (*(BookKey(_LINEAR, bar.symbol, index) for index in (0, 1, 2)), BookKey(_SPOT, bar.symbol)):
            book = self._books[key]
            levels = book.levels
            self.records.settle(book, levels, *book.close(bar))
        self._margin_call(bar)

    def _margin_call(self, bar: Bar) -> None:
        """Under cross margin: take all positions over where the margin is gone, at the worst that a bar does to its symbol."""
        if self.setting.rules.margin is not MarginMode.CROSS:
            return
        held = [book for key, book in self._books.items() if key.category is _LINEAR and book.quantity]
        prices = [
            book.worst_price(bar) if book.key.symbol == bar.symbol else self.records.price(book.key.symbol)
            for book in held
        ]
        cash = self._ledger.wallet_balance - sum((self._ledger.position(book.key).cost for book in held), ZERO)
        positions = [(book.quantity, price, book.instrument) for book, price in zip(held, prices, strict=True)]
        if not is_margin_gone(cash, positions, self.setting.rules.maintenance_rate):
            return
        for key, book in self._books.items():
            moment = bar if key.symbol == bar.symbol else self._market.flat(key.symbol)
            if key.category is _LINEAR and moment is not None:
                levels = book.levels
                price = prices[held.index(book)] if book in held else ZERO
                self.records.settle(book, levels, *book.liquidate(moment, price))

    def fund(self, symbol: str, rate: Decimal) -> None:
        """Settle the funding of a symbol: longs pay ``rate`` times position value when it is positive."""
        price, now = self.records.price(symbol), self._market.now()
        for index in (0, 1, 2):
            book = self._books[BookKey(_LINEAR, symbol, index)]
            if not book.quantity:
                continue
            paid = self._ledger.fund(book.key, rate, price, now)
            quantity = abs(book.quantity)
            side = Side.BUY if book.quantity > 0 else Side.SELL
            self.records.record(
                VenueExecution(
                    execution_id=self.records.numbers.identity("execution"),
                    order_id=self.records.numbers.identity("funding"),
                    link_id="",
                    book=book.key,
                    instrument=book.instrument,
                    side=side,
                    quantity=quantity,
                    price=price,
                    fee=paid,
                    fee_rate=rate,
                    time=now,
                    sequence=self.records.numbers.count("sequence"),
                    mark_price=price,
                    order_quantity=quantity,
                    order_type="UNKNOWN",
                    create_type="",
                    kind="Funding",
                )
            )
            self.records.touch(book.key)

    def change_rules(self, instrument: Instrument) -> None:
        """Let new orders of a symbol have other rules, on both markets.

        Raises:
            ValueError: the symbol is not traded here, or its tick or lot would change, which orders that wait lie on.
        """
        before = self.instruments.get(instrument.symbol)
        if before is None:
            raise ValueError(
                f"symbol {instrument.symbol!r} is not traded here; choose one of {', '.join(self.instruments)}"
            )
        if (instrument.tick_size, instrument.lot_size) != (before.tick_size, before.lot_size):
            raise ValueError(f"tick and lot of {instrument.symbol} stay as they are while the venue runs")
        self.instruments[instrument.symbol] = instrument
        for key, book in self._books.items():
            if key.symbol == instrument.symbol:
                book.change_rules(instrument)

    def forget_closed(self) -> None:
        """Restart: ``/v5/order/realtime`` no longer knows what is closed."""
        self.records.recently_closed.clear()

    def take_messages(self) -> list[PrivateMessage]:
        """What has happened since this was last asked, in the order in which the private stream tells it."""
        messages, touched, paid = self.records.take()
        now = self._market.now()
        for key in touched:
            holding = self._ledger.holdings[key]
            holding.updated, holding.sequence = now, self.records.numbers.count("sequence")
            view = self.standing.view(self._books[key])
            messages.append(PrivateMessage("position", key.category, (rows.position_push_row(view),)))
        if paid:
            messages.append(PrivateMessage("wallet", "", (rows.wallet_row(self.coins()),)))
        return messages

    # -- what the matching answers -----------------------------------------------------------------------------------

    def _arrive(self, book: Book) -> None:
        bar = self._market.flat(book.key.symbol)
        if bar is not None:
            levels = book.levels
            self.records.settle(book, levels, *book.arrive(bar))


def _spot_book(symbol: str, instrument: Instrument, setting: AccountSetting) -> Book:
    """The spot market of a symbol: no margin, and prices beyond the band are not moved but rejected."""
    costs = replace(setting.costs, taker_fee=setting.spot_fee, maker_fee=setting.spot_fee)
    rules = replace(setting.rules, margin=MarginMode.NONE, price_band=BandAction.REJECT)
    return Book(BookKey(_SPOT, symbol), instrument, costs, rules, Decimal(1))


def _direct(order: VenueOrder, price: Decimal) -> None:
    """Let a TP/SL order of the spot market wait for its trigger from where the price is: no request says from which side."""
    if order.trigger_price is not None:
        order.stop_order_type = TPSL
        order.trigger_direction = 1 if order.trigger_price > price else 2


def _opens(index: int, side: Side) -> bool:
    """Whether a side opens the position of an index in hedge mode."""
    return (index == 1) == (side is Side.BUY)
