"""The account: cash, positions and closed trades.

Bookkeeping is exact: every purchase takes its cost and fee from cash, every sale adds its proceeds less the fee, so that
``equity = cash + sum(position x mark)`` and the profits of all round trips add up to it without a division anywhere. Only
average prices are quotients. Marks are floats, because they only ever serve decisions and reports, never the books.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from bot.execution.instruments import Instrument
from bot.orders import ZERO, Execution, Funding

_FEE_UNIT: Final = Decimal("1e-12")
"""What a fee is split to when one fill ends a round trip and begins the next, so that the parts add up exactly."""


class Position(msgspec.Struct):
    """One symbol's open position and the round trip it belongs to."""

    symbol: str
    quantity: Decimal = ZERO
    """Base units; negative when short."""
    cost: Decimal = ZERO
    """Signed cost of what is held: quantity times average entry price."""
    opened_at: int = 0
    peak_quantity: Decimal = ZERO
    cash_flow: Decimal = ZERO
    """Received for sales less paid for purchases in this round trip, before fees: exact, no average enters it."""
    fees: Decimal = ZERO
    funding: Decimal = ZERO
    """Funding paid in this round trip (negative when received)."""
    exit_notional: Decimal = ZERO
    exit_quantity: Decimal = ZERO

    @property
    def entry_price(self) -> Decimal:
        """Average entry price of what is held; 0 when flat."""
        return self.cost / self.quantity if self.quantity else ZERO

    @property
    def realised(self) -> Decimal:
        """Profit already taken in this round trip, before fees."""
        return self.cash_flow + self.cost

    def clear(self) -> None:
        """Forget the round trip: become what a symbol without one has."""
        self.quantity = self.cost = self.peak_quantity = self.cash_flow = ZERO
        self.fees = self.funding = self.exit_notional = self.exit_quantity = ZERO
        self.opened_at = 0


class ClosedTrade(msgspec.Struct, frozen=True):
    """A round trip from flat to flat. ``profit`` is net of fees and funding, in quote units."""

    symbol: str
    side: str
    quantity: Decimal
    """Largest size held."""
    entry_price: Decimal
    exit_price: Decimal
    opened_at: int
    closed_at: int
    profit: Decimal
    fees: Decimal
    funding: Decimal


class PortfolioState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything a portfolio needs to go on after a crash."""

    initial_cash: Decimal
    cash: Decimal
    positions: tuple[Position, ...]
    marks: dict[str, float]
    fees_paid: Decimal
    funding_paid: Decimal
    turnover: Decimal
    trades_closed: int
    transferred: Decimal = ZERO


class Portfolio:
    """Cash and positions in one quote currency."""

    def __init__(self, initial_cash: Decimal, instruments: dict[str, Instrument]) -> None:
        self.initial_cash = initial_cash
        self.cash = initial_cash
        self.instruments = dict(instruments)
        self.positions = {symbol: Position(symbol) for symbol in instruments}
        self.fees_paid = ZERO
        self.funding_paid = ZERO
        self.turnover = ZERO
        self.trades_closed = 0
        self.transferred = ZERO
        """Came in less went out other than by trading, since the beginning."""
        self.marks: dict[str, float] = {}
        # What the hot path reads: floats and lot counts that change only when something is filled.
        self.cash_value = float(initial_cash)
        """Cash as a float."""
        self._quantities = dict.fromkeys(instruments, 0.0)
        self.holdings: tuple[tuple[str, float], ...] = ()
        """Symbols that are held and how much, in the order of the instruments: one order of summation keeps equity the same
        to the last bit."""
        self.lots: dict[str, int] = dict.fromkeys(instruments, 0)

    def obey(self, instrument: Instrument) -> None:
        """Count in the lots of new trading rules from now on."""
        self.instruments[instrument.symbol] = instrument
        self._refresh(instrument.symbol)

    def mark(self, symbol: str, price: float) -> None:
        """Value a symbol at ``price`` from now on."""
        self.marks[symbol] = price

    @property
    def equity(self) -> float:
        """Cash plus the value of all positions at their marks, in quote units."""
        total = self.cash_value
        for symbol, quantity in self.holdings:
            total += quantity * self.marks[symbol]
        return total

    @property
    def wallet(self) -> Decimal:
        """What the venue's wallet holds in quote units: the cash with which it began, and all that is realised since.

        A coin of the spot market is paid for; of a contract the venue's wallet only ever sees what was made or lost.
        """
        contracts = (each for symbol, each in self.positions.items() if not self.instruments[symbol].is_spot)
        return self.cash + sum((position.cost for position in contracts), ZERO)

    @property
    def invested(self) -> Decimal:
        """What was put in: returns are measured against it."""
        return self.initial_cash + self.transferred

    def notional(self, symbol: str) -> float:
        """Signed value of a position at its mark."""
        return sum((quantity * self.marks[held] for held, quantity in self.holdings if held == symbol), 0.0)

    def gross_notional_except(self, symbol: str) -> float:
        """Value of all other positions without their signs."""
        return sum(abs(quantity * self.marks[held]) for held, quantity in self.holdings if held != symbol)

    def apply_execution(self, execution: Execution) -> ClosedTrade | None:
        """Book a fill; returns the round trip that it ended, if any.

        A fill that turns a position around ends one round trip and begins the next; its fee is split by quantity.
        """
        symbol, quantity, price = execution.symbol, execution.quantity, execution.price
        fee, time = execution.fee, execution.time
        position = self.positions[symbol]
        held = position.quantity
        change = execution.signed_quantity
        self.cash -= change * price + fee
        self.fees_paid += fee
        self.turnover += quantity * price
        closed: ClosedTrade | None = None
        if held * change < 0:
            closing = min(quantity, abs(held))
            opening = quantity - closing
            share = (fee * closing / quantity).quantize(_FEE_UNIT) if opening else fee
            closed = self._reduce(position, closing, price, share, time)
            if opening:
                self._increase(position, opening if change > 0 else -opening, price, fee - share, time)
        else:
            self._increase(position, change, price, fee, time)
        self._refresh(symbol)
        if symbol not in self.marks:
            self.marks[symbol] = float(price)
        return closed

    def apply_funding(self, funding: Funding) -> Decimal:
        """Book a funding settlement; returns what was paid (negative: received).

        Bybit: position value at the mark price times the rate, paid by longs when the rate is positive
        (https://www.bybit.com/en/help-center/article/Funding-fee-calculation).
        """
        position = self.positions[funding.symbol]
        paid = position.quantity * funding.mark_price * funding.rate if funding.paid is None else funding.paid
        self.cash -= paid
        self.funding_paid += paid
        position.funding += paid
        self._refresh(position.symbol)
        return paid

    def apply_transfer(self, amount: Decimal) -> None:
        """Book money that came in or, negative, went out other than by trading, in quote units."""
        self.cash += amount
        self.transferred += amount
        self.cash_value = float(self.cash)

    def state(self) -> PortfolioState:
        """A copy that can be journalled."""
        return PortfolioState(
            initial_cash=self.initial_cash,
            cash=self.cash,
            positions=tuple(msgspec.structs.replace(position) for position in self.positions.values()),
            marks=dict(self.marks),
            fees_paid=self.fees_paid,
            funding_paid=self.funding_paid,
            turnover=self.turnover,
            trades_closed=self.trades_closed,
            transferred=self.transferred,
        )

    def restore(self, state: PortfolioState) -> None:
        """Become what ``state`` says."""
        self.initial_cash = state.initial_cash
        self.cash = state.cash
        self.marks = dict(state.marks)
        self.fees_paid = state.fees_paid
        self.funding_paid = state.funding_paid
        self.turnover = state.turnover
        self.trades_closed = state.trades_closed
        self.transferred = state.transferred
        for position in state.positions:
            self.positions[position.symbol] = msgspec.structs.replace(position)
            self._refresh(position.symbol)

    def _increase(self, position: Position, change: Decimal, price: Decimal, fee: Decimal, time: int) -> None:
        if not position.quantity or self._is_dust(position):
            position.opened_at = time
        position.quantity += change
        position.cost += change * price
        position.cash_flow -= change * price
        position.fees += fee
        position.peak_quantity = max(position.peak_quantity, abs(position.quantity))

    def _reduce(
        self, position: Position, closing: Decimal, price: Decimal, fee: Decimal, time: int
    ) -> ClosedTrade | None:
        held = abs(position.quantity)
        sign = 1 if position.quantity > 0 else -1
        position.cost -= position.cost if closing == held else position.cost * closing / held
        position.cash_flow += sign * closing * price
        position.quantity -= sign * closing
        position.fees += fee
        position.exit_notional += closing * price
        position.exit_quantity += closing
        left, made = position.quantity, position.cash_flow
        if left:
            if not self._is_dust(position):
                return None
            # It cannot be sold: what it has cost is carried into the next round trip.
            made = position.realised
        carried = position.cost
        exit_price = position.exit_notional / position.exit_quantity
        trade = ClosedTrade(
            symbol=position.symbol,
            side="long" if sign > 0 else "short",
            quantity=position.peak_quantity,
            # What was paid for all that was sold, per unit: entries made on the way count with their size.
            entry_price=exit_price - sign * made / position.exit_quantity,
            exit_price=exit_price,
            opened_at=position.opened_at,
            closed_at=time,
            profit=made - position.fees - position.funding,
            fees=position.fees,
            funding=position.funding,
        )
        self.trades_closed += 1
        position.clear()
        if left:
            position.quantity = position.peak_quantity = left
            position.cost, position.cash_flow, position.opened_at = carried, -carried, time
        return trade

    def _is_dust(self, position: Position) -> bool:
        """Whether what is held of a coin is less than can be sold."""
        instrument = self.instruments[position.symbol]
        return instrument.is_spot and not instrument.lots(position.quantity)

    def _refresh(self, symbol: str) -> None:
        quantity = self.positions[symbol].quantity
        self.cash_value = float(self.cash)
        self._quantities[symbol] = float(quantity)
        self.holdings = tuple([holding for holding in self._quantities.items() if holding[1]])
        self.lots[symbol] = self.instruments[symbol].lots(quantity)
