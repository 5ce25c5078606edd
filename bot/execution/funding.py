"""Funding: which positions pay at which settlement, in order with the bars.

Every settlement after the close of one batch and up to that of the next is charged once that batch is decided, on the
position held then and at the marks of its closes: for bars no longer than the funding interval exactly at the settlement.
The rate is the stored one; where none is stored, every position pays, as nobody knows which side would.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from bot.execution.instruments import Instrument, exact
from bot.market.funding_rates import FundingRates
from bot.orders import Funding
from bot.portfolio import Portfolio
from strategies.bars import HOUR_MS, MINUTE_MS, Calendar

_NOT_BEGUN: Final = -(2**63)
_LONGEST_STEP: Final = 12 * HOUR_MS
"""Stored settlements farther apart than this have a hole between them: Bybit's longest interval is 8 hours."""


class FundingSchedule:
    """The settlements of an account's symbols. Its only state is which of them come next."""

    def __init__(
        self, instruments: Mapping[str, Instrument], rates: Mapping[str, FundingRates], fallback: Decimal
    ) -> None:
        """
        Args:
            instruments: rules by symbol; coins, and those whose market has sessions, have no funding.
            rates: what is stored of each symbol.
            fallback: rate that every position pays where none is stored; 0 for none.
        """
        self._steps = {
            symbol: instrument.funding_interval_minutes * MINUTE_MS
            for symbol, instrument in instruments.items()
            if instrument.calendar is Calendar.CONTINUOUS and not instrument.is_spot
        }
        self._rates = {symbol: rates.get(symbol, FundingRates()) for symbol in self._steps}
        self._fallback = fallback
        self._next: dict[str, int] = {}
        self.next_due = _NOT_BEGUN
        """Time of the next settlement, milliseconds; before everything until it has begun."""

    def begin(self, time: int) -> None:
        """Settle from here on what comes after ``time``, milliseconds."""
        self._next = {symbol: self._following(symbol, time) for symbol in self._steps}
        self.next_due = min(self._next.values(), default=2**63)

    def learn(self, symbol: str, time: int, rate: Decimal) -> None:
        """Add a rate that has become known, later than all before it."""
        known = self._rates[symbol]
        if not known.times or time > known.times[-1]:
            self._rates[symbol] = FundingRates((*known.times, time), (*known.rates, rate))

    def due_symbols(self, close_time: int) -> list[tuple[str, int]]:
        """Settlements up to ``close_time`` that are still to come: symbols and times, milliseconds."""
        found = []
        for symbol, time in self._next.items():
            while time <= close_time:
                found.append((symbol, time))
                time = self._following(symbol, time)
        return found

    def settle(self, close_time: int, portfolio: Portfolio) -> list[Funding]:
        """Settlements up to and with ``close_time``, in order of time and symbol, of positions that are held.

        The first call only begins, as nothing can have been held before.
        """
        if self.next_due == _NOT_BEGUN:
            self.begin(close_time)
            return []
        settled: list[Funding] = []
        while self.next_due <= close_time:
            time = self.next_due
            for symbol, due in self._next.items():
                if due != time:
                    continue
                self._next[symbol] = self._following(symbol, time)
                quantity = portfolio.positions[symbol].quantity
                rate = self._rate(symbol, time, quantity) if quantity else None
                if rate:
                    settled.append(Funding(symbol, rate, exact(portfolio.marks[symbol]), time))
            self.next_due = min(self._next.values())
        return settled

    def _following(self, symbol: str, time: int) -> int:
        """The next settlement after ``time``: a stored one, or one of the instrument's interval where none is stored."""
        known, step = self._rates[symbol], self._steps[symbol]
        regular = (time // step + 1) * step
        position = known.following(time)
        if position == len(known.times):
            return regular
        stored = known.times[position]
        has_hole = position == 0 or stored - known.times[position - 1] > _LONGEST_STEP
        return min(stored, regular) if has_hole else stored

    def _rate(self, symbol: str, time: int, quantity: Decimal) -> Decimal:
        known = self._rates[symbol]
        position = known.following(time) - 1
        if position >= 0 and known.times[position] == time:
            return known.rates[position]
        return self._fallback if quantity > 0 else -self._fallback
