"""The decision core: facts in, orders out.

A synchronous, deterministic state machine without I/O, clock or randomness. Replay, paper and live feed it the same
sequence of events and therefore get the same decisions; everything that talks to the world is around it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from bot.orders import (
    BarBatch,
    Decision,
    Event,
    Execution,
    Funding,
    OperatorCommand,
    Order,
    SymbolAvailability,
)
from bot.portfolio import ClosedTrade, Portfolio, PortfolioState
from bot.risk import RiskLayer, RiskState
from strategies.bars import Bar
from strategies.base import Signal, Strategy


class CoreState(msgspec.Struct, frozen=True):
    """What the core must remember over a crash; the strategy's part is rebuilt from bars and memory."""

    portfolio: PortfolioState
    risk: RiskState
    decisions: int
    decisions_sha256: str
    """Running hash of the decisions, in hexadecimal: each step hashes the one before and the new decision."""
    trades_sha256: str
    last_open_times: dict[str, int]


class DecisionCore:
    """Applies events in order. One instance serves one account and run."""

    def __init__(
        self,
        strategy: Strategy,
        risk: RiskLayer,
        portfolio: Portfolio,
        *,
        is_working: Callable[[str], bool],
        on_trade: Callable[[ClosedTrade], None] | None = None,
    ) -> None:
        """
        Args:
            strategy: warmed up to just before the first batch.
            risk: the risk layer of the account.
            portfolio: the account.
            is_working: tells whether an order of a symbol waits at the venue.
            on_trade: called with every round trip that ends.
        """
        self.strategy = strategy
        self.risk = risk
        self.portfolio = portfolio
        self._is_working = is_working
        self._on_trade = on_trade
        self._decisions = 0
        self._decisions_hash = hashlib.sha256(b"decisions").hexdigest()
        self._trades_hash = hashlib.sha256(b"trades").hexdigest()
        self._pending_digests: list[str] = []
        self._last_open_times: dict[str, int] = {}

    def apply(self, event: Event) -> tuple[Decision, ...]:
        """Apply one event; only a batch of bars answers with decisions.

        Raises:
            ValueError: a bar is not later than the one before it of the same symbol.
        """
        if isinstance(event, BarBatch):
            return self._on_batch(event)
        if isinstance(event, Execution):
            self._on_execution(event)
        elif isinstance(event, OperatorCommand):
            self.risk.command(event)
        elif isinstance(event, SymbolAvailability):
            self.risk.set_available(event.symbol, event.available)
        else:
            assert isinstance(event, Funding)
            self.portfolio.apply_funding(event)
        return ()

    @property
    def decisions_made(self) -> int:
        """How many decisions the run has made so far."""
        return self._decisions

    @property
    def decisions_sha256(self) -> str:
        """Hash over all decisions so far: side, lots, order fields, verdicts and neighbour ids."""
        if self._pending_digests:
            # Chained in chunks that do not depend on when somebody looks: every decision is one link.
            link = self._decisions_hash
            for text in self._pending_digests:
                link = hashlib.sha256((link + text).encode()).hexdigest()
            self._decisions_hash = link
            self._pending_digests.clear()
        return self._decisions_hash

    @property
    def trades_sha256(self) -> str:
        """Hash over all executions so far: symbol, side, quantity, price, fee, kind and time."""
        return self._trades_hash

    def state(self) -> CoreState:
        """A copy that can be journalled."""
        return CoreState(
            portfolio=self.portfolio.state(),
            risk=self.risk.state,
            decisions=self._decisions,
            decisions_sha256=self.decisions_sha256,
            trades_sha256=self._trades_hash,
            last_open_times=dict(self._last_open_times),
        )

    def restore(self, state: CoreState) -> None:
        """Go on from ``state``; the strategy has been warmed by the caller."""
        self.portfolio.restore(state.portfolio)
        self.risk.restore(state.risk)
        self._decisions = state.decisions
        self._decisions_hash = state.decisions_sha256
        self._trades_hash = state.trades_sha256
        self._pending_digests.clear()
        self._last_open_times = dict(state.last_open_times)

    def _on_batch(self, batch: BarBatch) -> tuple[Decision, ...]:
        bars = batch.bars
        portfolio = self.portfolio
        last = self._last_open_times
        for bar in bars:
            if bar.open_time <= last.get(bar.symbol, -1):
                raise ValueError(
                    f"{bar.symbol}: bar {bar.open_time} came after {last[bar.symbol]}; bars must move forward in time"
                )
            last[bar.symbol] = bar.open_time
            portfolio.mark(bar.symbol, bar.close)
        equity = portfolio.equity
        close_time = bars[0].close_time
        self.risk.observe_equity(close_time, equity)
        strategy = self.strategy
        # The law of the house (causality): settle what has matured, query and decide, and only then append.
        strategy.settle(bars)
        signals = [strategy.on_bar(bar) for bar in bars]
        strategy.remember(bars)
        return tuple(
            [
                self._decide(bar, signal, equity, close_time, late)
                for bar, signal, late in zip(bars, signals, batch.late, strict=True)
            ]
        )

    def _decide(self, bar: Bar, signal: Signal, equity: float, close_time: int, late: bool) -> Decision:
        symbol = bar.symbol
        position = self.portfolio.positions[symbol].quantity
        orders, verdicts = self.risk.review(
            signal, bar, self.portfolio, equity, late=late, working=self._is_working(symbol)
        )
        decision = Decision(self._decisions, signal, verdicts, orders, position, equity, close_time)
        self._decisions += 1
        pending = self._pending_digests
        pending.append(digest_text(decision))
        if len(pending) >= 4096:
            _ = self.decisions_sha256
        return decision

    def _on_execution(self, execution: Execution) -> None:
        closed = self.portfolio.apply_execution(execution)
        text = (
            f"{execution.symbol}|{execution.side}|{execution.quantity.normalize()}|{execution.price.normalize()}"
            f"|{execution.fee.normalize()}|{execution.kind}|{execution.time}"
        )
        self._trades_hash = hashlib.sha256((self._trades_hash + text).encode()).hexdigest()
        if closed is not None and self._on_trade is not None:
            self._on_trade(closed)


def digest_text(decision: Decision) -> str:
    """The part of a decision that a hash covers; run ids and floats that only explain are left out."""
    signal = decision.signal
    text = f"{signal.symbol}|{signal.bar_open_time}|{','.join(decision.verdicts)}"
    if decision.orders:
        text += "|" + ";".join(_order_text(order) for order in decision.orders)
    explanation = signal.explanation
    if explanation is not None and explanation.neighbours:
        text += "|" + ",".join([str(neighbour.entry_id) for neighbour in explanation.neighbours])
    return text


def _order_text(order: Order) -> str:
    return (
        f"{order.side}:{order.quantity.normalize()}:{order.order_type}:{order.limit_price}:{order.reduce_only}"
        f":{order.stop_loss}:{order.take_profit}"
    )
