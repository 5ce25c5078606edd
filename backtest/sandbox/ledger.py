"""The money of the venue's account: the bot's own books, and what Bybit tells of them besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from backtest.sandbox.records import BookKey
from bot.execution.instruments import Instrument
from bot.orders import ZERO, Execution, Funding
from bot.portfolio import Portfolio, Position


@dataclass(slots=True)
class Holding:
    """What is told of one position beyond what the books keep."""

    created: int = 0
    updated: int = 0
    sequence: int = 0
    earned: Decimal = ZERO
    """Of round trips that have ended, net of fees and funding."""
    entry_fees: Decimal = ZERO
    """Paid for what is held now."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """What one fill took out of a position."""

    quantity: Decimal = ZERO
    entry_value: Decimal = ZERO
    exit_value: Decimal = ZERO
    profit: Decimal = ZERO
    """Before fees."""
    net: Decimal = ZERO
    """After the fees of opening and of closing."""


class Ledger:
    """Cash and positions in USDT, by book.

    Args:
        balance: USDT at the start.
        instruments: by book of a contract.
        coins: other coins at the start, by name.
    """

    def __init__(
        self, balance: Decimal, instruments: Mapping[BookKey, Instrument], coins: Mapping[str, Decimal]
    ) -> None:
        self.coins = dict(coins)
        """Coins that were bought on the spot market, by name."""
        self._portfolio = Portfolio(balance, {key.name: instrument for key, instrument in instruments.items()})
        self.holdings = {key: Holding() for key in instruments}

    def position(self, key: BookKey) -> Position:
        """As the books keep it."""
        return self._portfolio.positions[key.name]

    @property
    def wallet_balance(self) -> Decimal:
        """Deposits and realised profit, less fees and funding: what a coin's ``walletBalance`` tells."""
        portfolio = self._portfolio
        return portfolio.cash + sum((position.cost for position in portfolio.positions.values()), ZERO)

    def unrealised(self, key: BookKey, price: Decimal) -> Decimal:
        """Profit of a position that would be made by closing it at ``price``, before fees."""
        position = self.position(key)
        return position.quantity * price - position.cost

    def realised(self, key: BookKey) -> tuple[Decimal, Decimal]:
        """Net profit realised by the round trip that is open, and by all together."""
        position = self.position(key)
        current = position.realised - position.fees - position.funding
        return current, self.holdings[key].earned + current

    def book(self, key: BookKey, execution: Execution) -> Reduction:
        """Book a fill; returns what it took out of the position before."""
        position, holding = self.position(key), self.holdings[key]
        held, entry = position.quantity, position.entry_price
        change = execution.signed_quantity
        closing = min(abs(change), abs(held)) if held * change < 0 else ZERO
        opening_fee = execution.fee * (abs(change) - closing) / abs(change)
        trade = self._portfolio.apply_execution(execution)
        if trade is not None:
            holding.earned += trade.profit
        if not held or abs(change) > closing > 0:
            holding.created = execution.time
        if not closing:
            holding.entry_fees += opening_fee
            return Reduction()
        share = holding.entry_fees * closing / abs(held)
        holding.entry_fees = holding.entry_fees - share + opening_fee
        profit = (execution.price - entry) * closing * (1 if held > 0 else -1)
        net = profit - share - (execution.fee - opening_fee)
        return Reduction(closing, entry * closing, execution.price * closing, profit, net)

    def fund(self, key: BookKey, rate: Decimal, price: Decimal, time: int) -> Decimal:
        """Book a settlement of funding; returns what was paid (negative: received)."""
        return self._portfolio.apply_funding(Funding(key.name, rate, price, time))

    def exchange(self, key: BookKey, execution: Execution, rate: Decimal) -> Decimal:
        """Book a fill on the spot market; returns the fee, in the coin that was received."""
        coin, quantity = key.base_coin, execution.quantity
        value = execution.price * quantity
        is_purchase = execution.side.sign > 0
        fee = (quantity if is_purchase else value) * rate
        self.coins[coin] = self.coins.get(coin, ZERO) + (quantity - fee if is_purchase else -quantity)
        self._portfolio.cash += -value if is_purchase else value - fee
        return fee
