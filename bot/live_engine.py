"""The run whose fills come from a venue: the decision core, and books that only the venue's reports change.

Live trading calls ``step`` for every batch that the stream brings and ``apply`` for whatever the account tells; the audit
calls the very same with what the journal holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bot.core import DecisionCore
from bot.engine import AccountSettings, EngineState, Step
from bot.execution.instruments import Instrument
from bot.execution.venue_books import VenueBooks
from bot.orders import AccountEvent, BarBatch, Event, Funding
from bot.portfolio import ClosedTrade, Portfolio
from bot.risk import RiskLayer, run_token
from strategies.base import Strategy


class LiveEngine:
    """Core and venue books of one run."""

    def __init__(
        self,
        strategy: Strategy,
        instruments: dict[str, Instrument],
        account: AccountSettings,
        *,
        run_id: str,
        on_trade: Callable[[ClosedTrade], None] | None = None,
    ) -> None:
        """
        Args:
            strategy: warmed up to just before the first batch.
            instruments: trading rules by symbol, in the order of symbols.
            account: its settings; of these the fill model's are not used.
            run_id: makes client order ids unique.
            on_trade: called with every round trip that ends.
        """
        self.account = account
        self.instruments = instruments
        self.venue = VenueBooks(instruments)
        self.portfolio = Portfolio(account.initial_cash, instruments)
        self.core = DecisionCore(
            strategy,
            RiskLayer(account.limits, instruments, run_token=run_token(run_id)),
            self.portfolio,
            working=self.venue,
            on_trade=on_trade,
        )

    def step(self, batch: BarBatch) -> Step:
        """Decide on a batch. The orders count as working from then on, and are to be sent once they are durable."""
        decisions = self.core.decide(batch)
        for decision in decisions:
            for order in decision.orders:
                self.venue.submit(order)
        return Step(batch, [], decisions, self.core.equity)

    def settle(self, close_time: int) -> list[Funding]:
        """Nothing: funding is what the venue says it was, whenever it says so."""
        return []

    def apply(self, events: Iterable[Event]) -> None:
        """Apply events that are no bars: what the account tells, what a person wants, and the like."""
        for event in events:
            if isinstance(event, AccountEvent):
                self.venue.apply(event)
            self.core.apply(event)

    def state(self) -> EngineState:
        """A copy that can be journalled."""
        books = tuple(book.copy() for book in self.venue.books.values())
        return EngineState(core=self.core.state(), books=books, outside=self.venue.outside)

    def restore(self, state: EngineState) -> None:
        """Go on from ``state``."""
        self.core.restore(state.core)
        self.venue.restore(state.books, state.outside)
