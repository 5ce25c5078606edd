"""The simulated run: the decision core and the fill model, one batch of bars after the other.

A replay gives ``run`` all of its batches; paper trading calls ``step``, a run of one, for every batch that the stream brings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

import msgspec

from bot.core import CoreState, DecisionCore
from bot.execution.fills import PLAIN, BookSide, Costs, FillModel, FillRules, MarginMode
from bot.execution.fills.margin import is_margin_gone, worst_price
from bot.execution.fills.model import FinerBars
from bot.execution.funding import FundingSchedule
from bot.execution.instruments import Instrument, exact
from bot.orders import ZERO, BarBatch, Decision, Event, Execution, Funding, OrderUpdate
from bot.portfolio import ClosedTrade, Portfolio
from bot.risk import RiskLayer, RiskLimits, run_token
from strategies.bars import Bar
from strategies.base import Signal, Strategy


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What an account starts with and pays, and how its orders meet the market."""

    initial_cash: Decimal
    costs: Costs
    limits: RiskLimits
    rules: FillRules = PLAIN


class Step(msgspec.Struct):
    """What one batch brought: the fills of orders decided earlier, then the decisions."""

    batch: BarBatch
    executions: list[Execution]
    decisions: tuple[Decision, ...]
    equity: float
    """Equity marked at the closes of the batch, in quote units."""
    updates: tuple[OrderUpdate, ...] = ()
    """What happened to orders besides fills: when the batch met them, and when the new ones were handed over."""


@dataclass(slots=True)
class RunLog:
    """What happens in a run besides its decisions, in order."""

    equity: list[float] = field(default_factory=list)
    """At every batch, marked at its closes, in quote units."""
    executions: list[Execution] = field(default_factory=list)
    updates: list[OrderUpdate] = field(default_factory=list)
    """What happened to orders besides fills."""
    fundings: list[Funding] | None = None
    """Funding, settled after the batch that closes when it is due; ``None``: whoever runs the engine settles it."""


class EngineState(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of a run that bars and memory do not rebuild."""

    core: CoreState
    books: tuple[BookSide, ...]
    outside: Decimal = ZERO
    """Money at the venue that is not the run's to trade with, in quote units."""


class Engine(Protocol):
    """What a run needs of whatever decides and fills."""

    core: DecisionCore
    portfolio: Portfolio
    account: AccountSettings

    def step(self, batch: BarBatch) -> Step:
        """Fills of orders decided earlier, where this side makes them, then the decisions on a batch."""

    def settle(self, close_time: int) -> list[Funding]:
        """Charge the funding that is due up to the close of the batch that was stepped last, milliseconds."""

    def apply(self, events: Iterable[Event]) -> None:
        """Apply events that are no bars."""

    def state(self) -> EngineState:
        """A copy that can be journalled."""

    def restore(self, state: EngineState) -> None:
        """Go on from ``state``."""


class SimulatedEngine:
    """Core and fill model of one run."""

    def __init__(
        self,
        strategy: Strategy,
        instruments: dict[str, Instrument],
        account: AccountSettings,
        *,
        run_id: str,
        on_trade: Callable[[ClosedTrade], None] | None = None,
        finer_bars: FinerBars | None = None,
        funding: FundingSchedule | None = None,
    ) -> None:
        """
        Args:
            strategy: warmed up to just before the first batch.
            instruments: trading rules by symbol, in the order of symbols.
            account: its settings.
            run_id: makes client order ids unique.
            on_trade: called with every round trip that ends.
            finer_bars: tells the order of events inside a bar, where it is known.
            funding: the settlements of its symbols; ``None`` for a market without.
        """
        self.funding = funding
        self._is_cross = account.rules.margin is MarginMode.CROSS
        self.account = account
        self.instruments = instruments
        self.fills = FillModel(account.costs, instruments, account.rules, finer_bars=finer_bars)
        self.portfolio = Portfolio(account.initial_cash, instruments)
        self.core = DecisionCore(
            strategy,
            RiskLayer(account.limits, instruments, run_token=run_token(run_id)),
            self.portfolio,
            working=self.fills.waiting,
            on_trade=on_trade,
        )

    def step(self, batch: BarBatch) -> Step:
        """Let a batch fill what was decided before it, then decide on it.

        The orders of the decisions wait from then on; they meet the next bar, so that whoever drives the engine can make
        them durable first.
        """
        log, decisions = RunLog(), list[Decision]()
        self.run((batch,), log, decisions.extend)
        return Step(batch, log.executions, tuple(decisions), log.equity[0], tuple(log.updates))

    def run(
        self,
        batches: Iterable[BarBatch],
        log: RunLog,
        take: Callable[[tuple[Decision, ...]], object],
        every: bool = True,
        watch: Callable[[Signal], object] | None = None,
    ) -> None:
        """Take one step after the other. The next batch is asked for only when the one before is done with.

        Args:
            batches: bars that close together, in order.
            log: what happens is appended to it.
            take: called with the decisions on every batch that brings some to tell of.
            every: tell of every decision; else only of those with orders.
            watch: called with every signal.
        """
        fills = self.fills
        for decisions in self.core.run(self._met(batches, log), log.equity, every, watch):
            take(decisions)
            for decision in decisions:
                for order in decision.orders:
                    fills.submit(order)
        log.updates += fills.take_updates()

    def _met(self, batches: Iterable[BarBatch], log: RunLog) -> Iterator[BarBatch]:
        """The same batches, each once the orders and levels that wait have met it."""
        core, quiet, on_bars = self.core, self.fills.quiet, self.fills.on_bars
        funding = None if log.fundings is None else self.funding
        settlement = math.inf if funding is None else funding.next_due
        for batch in batches:
            if self._is_cross:
                log.executions += self._under_cross_margin(batch.bars)
            else:
                for bar in batch.bars:
                    lowest, highest = quiet[bar.symbol]
                    if bar.low <= lowest or bar.high >= highest:
                        filled = on_bars(batch.bars)
                        for execution in filled:
                            core.apply(execution)
                        log.executions += filled
                        break
            yield batch
            # From here on the batch is decided.
            if batch.bars[0].close_time >= settlement:
                assert funding is not None and log.fundings is not None
                log.fundings += self.settle(batch.bars[0].close_time)
                settlement = funding.next_due

    def _under_cross_margin(self, bars: Sequence[Bar]) -> list[Execution]:
        """Fills of a batch, and what the account's margin costs: looked at with the positions before them and after."""
        executions = self._margin_call(bars)
        for matched in (executions, self.fills.on_bars(bars)):
            for execution in matched:
                self.core.apply(execution)
        called = self._margin_call(bars)
        for execution in called:
            self.core.apply(execution)
        return [*executions, *matched, *called]

    def _margin_call(self, bars: Sequence[Bar]) -> list[Execution]:
        fills, portfolio = self.fills, self.portfolio
        by_symbol = {bar.symbol: bar for bar in bars}
        prices = {
            symbol: worst_price(book, by_symbol[symbol]) if symbol in by_symbol else exact(portfolio.marks[symbol])
            for symbol, book in fills.books.items()
            if book.quantity
        }
        held = [(fills.books[symbol].quantity, price, self.instruments[symbol]) for symbol, price in prices.items()]
        if not is_margin_gone(portfolio.cash, held, self.account.rules.maintenance_rate):
            return []
        return fills.liquidate(prices, by_symbol, bars[0].open_time)

    def settle(self, close_time: int) -> list[Funding]:
        """Charge the funding that is due up to the close of the batch that was stepped last, milliseconds.

        It comes after the decisions of that batch: a rate is known once it is settled.
        """
        if self.funding is None or close_time < self.funding.next_due:
            return []
        settled = self.funding.settle(close_time, self.portfolio)
        self.apply(settled)
        return settled

    def apply(self, events: Iterable[Event]) -> None:
        """Apply events that are neither bars nor fills, such as an operator's command."""
        for event in events:
            self.core.apply(event)

    def state(self) -> EngineState:
        """A copy that can be journalled."""
        return EngineState(core=self.core.state(), books=self.fills.state())

    def restore(self, state: EngineState) -> None:
        """Go on from ``state``."""
        self.core.restore(state.core)
        self.fills.restore(state.books)
