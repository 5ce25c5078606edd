"""What the account holds: positions and coins as they are shown, and what of them is free."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from backtest.sandbox.account import AccountSetting, MarginSetting
from backtest.sandbox.admission import margin_of
from backtest.sandbox.book import Book
from backtest.sandbox.ledger import Ledger
from backtest.sandbox.records import BookKey, Category, PositionMode, VenueOrder
from backtest.sandbox.registry import Registry
from backtest.sandbox.rows import CoinBalance, PositionView
from bot.orders import ZERO, Side

_LINEAR: Final = Category.LINEAR
_SPOT: Final = Category.SPOT


class Standing:
    """The account at this moment.

    Args:
        setting: of the account.
        books: its orders and positions.
        ledger: its money.
        records: its orders by id.
    """

    def __init__(
        self, setting: AccountSetting, books: Mapping[BookKey, Book], ledger: Ledger, records: Registry
    ) -> None:
        self.mode = setting.mode
        self.margin = setting.margin
        self._costs = setting.costs
        self._books = books
        self._ledger = ledger
        self._records = records
        self._symbols = sorted({key.symbol for key in books})

    @property
    def indices(self) -> tuple[int, ...]:
        """Position indices of the present mode."""
        return (0,) if self.mode is PositionMode.ONE_WAY else (1, 2)

    def positions(self, symbol: str | None = None) -> list[PositionView]:
        """Positions of one symbol, flat or not; without one, all that are held."""
        views = [
            self.view(self._books[BookKey(_LINEAR, name, index)])
            for name in ([symbol] if symbol is not None else self._symbols)
            for index in self.indices
        ]
        return views if symbol is not None else [view for view in views if view.quantity]

    def coins(self) -> list[CoinBalance]:
        """The wallet."""
        views = [self.view(book) for key, book in self._books.items() if book.quantity and key.category is _LINEAR]
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
                self._locked("USDT"),
            ),
            *(
                CoinBalance(name, amount, self._coin_price(name), locked=self._locked(name))
                for name, amount in sorted(self._ledger.coins.items())
            ),
        ]

    def _coin_price(self, coin: str) -> Decimal:
        symbol = f"{coin}USDT"
        return self._records.price(symbol) if symbol in self._symbols else ZERO

    def _locked(self, coin: str) -> Decimal:
        """What waiting orders of the spot market would spend of a coin."""
        return sum((spent(order, coin, order.remaining) for order in self._records.open.values()), ZERO)

    def free(self, coin: str) -> Decimal:
        """What of a coin neither margin nor a waiting order needs."""
        balances = {balance.coin: balance for balance in self.coins()}
        if coin not in balances:
            return ZERO
        balance = balances[coin]
        return balance.equity - balance.position_margin - balance.order_margin - balance.locked

    def affordable(self, order: VenueOrder, amount: Decimal) -> Decimal:
        """Whole lots that an amount of USDT buys at the price that a taker pays now."""
        costs, instrument = self._costs, order.instrument
        price = instrument.ceil_price(order.last_price * (1 + costs.slippage + costs.spread / 2))
        return instrument.lots(amount / price) * instrument.lot_size if price else ZERO

    def _order_margin(self) -> Decimal:
        return sum(
            (
                margin_of(self._books[order.book], order, order.remaining)
                for order in self._records.open.values()
                if not order.is_conditional and order.book.category is _LINEAR
            ),
            ZERO,
        )

    def view(self, book: Book) -> PositionView:
        """A position as it is shown."""
        position, holding = self._ledger.position(book.key), self._ledger.holdings[book.key]
        price = self._records.price(book.key.symbol)
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


def spent(order: VenueOrder, coin: str, quantity: Decimal) -> Decimal:
    """What so much of an order of the spot market spends of a coin."""
    if order.book.category is not _SPOT:
        return ZERO
    if order.side is Side.SELL:
        return quantity if coin == order.book.base_coin else ZERO
    return quantity * (order.price if order.price is not None else order.last_price) if coin == "USDT" else ZERO
