"""The decision core: facts in, orders out.

A synchronous, deterministic state machine without I/O, clock or randomness. Replay, paper and live feed it the same
sequence of events and therefore get the same decisions; everything that talks to the world is around it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from bot.decision_hash import BLOCK, DecisionHash, joined
from bot.orders import (
    AccountStanding,
    BarBatch,
    Decision,
    EmergencyOrder,
    Event,
    Execution,
    Funding,
    GuardOrder,
    ModelSwap,
    Notice,
    OperatorAction,
    OperatorCommand,
    Order,
    OrderUpdate,
    Pruning,
    Retraining,
    RuleChange,
    SymbolAvailability,
    TimeInForce,
    Transfer,
    Verdict,
)
from bot.portfolio import ClosedTrade, Portfolio, PortfolioState
from bot.risk import RiskLayer, RiskState
from memory_store.recall_monitor import RecallState
from strategies.bars import Bar
from strategies.base import Signal, Strategy
from strategies.neighbours import ids_of

_BEFORE_ALL: Final = -(2**63)


class CoreState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the core must remember over a crash; the rest of the strategy is rebuilt from bars and memory."""

    portfolio: PortfolioState
    risk: RiskState
    decisions: int
    decisions_link: str
    """Hash over all whole blocks of decisions, in hexadecimal: each block is hashed with the link before it."""
    decisions_tail: tuple[str, ...]
    """Texts of the decisions since the last whole block."""
    trades_sha256: str
    last_open_times: dict[str, int]
    strategy: bytes = b""
    """See ``Strategy.state``; left out where empty, as in runs of versions that did not have it."""
    recall: RecallState | None = None
    """What the running check of an approximate memory knows; left out where the memory is exact or there is none."""


class DecisionCore:
    """Applies events in order. One instance serves one account and run."""

    def __init__(
        self,
        strategy: Strategy,
        risk: RiskLayer,
        portfolio: Portfolio,
        *,
        working: Container[str],
        on_trade: Callable[[ClosedTrade], None] | None = None,
    ) -> None:
        """
        Args:
            strategy: warmed up to just before the first batch.
            risk: the risk layer of the account.
            portfolio: the account.
            working: symbols with an order that waits at the venue, kept up to date by whoever sends orders.
            on_trade: called with every round trip that ends.
        """
        self.strategy = strategy
        self.risk = risk
        self.portfolio = portfolio
        self._working = working
        self._on_trade = on_trade
        self._offered: Strategy | None = None
        self._decisions = 0
        self._decisions_hash = DecisionHash()
        self._trades_hash = hashlib.sha256(b"trades").hexdigest()
        self._last_open_times: dict[str, int] = dict.fromkeys(portfolio.positions, _BEFORE_ALL)
        self.equity = portfolio.equity
        """Equity at the last batch, marked at its closes."""

    def apply(self, event: Event) -> tuple[Decision, ...]:
        """Apply one event; only a batch of bars answers with decisions.

        Raises:
            ValueError: a bar is not later than the one before it of the same symbol.
        """
        if isinstance(event, BarBatch):
            return self.decide(event)
        if isinstance(event, Execution):
            self._on_execution(event)
        elif isinstance(event, OperatorCommand):
            if event.pruning is not None:
                self._prune(event.pruning)
            elif event.action is not OperatorAction.SWAP:
                self.risk.command(event)
        elif isinstance(event, SymbolAvailability):
            self.risk.set_available(event.symbol, event.available)
        elif isinstance(event, ModelSwap):
            self._swap(event)
        elif isinstance(event, Funding):
            self.portfolio.apply_funding(event)
        elif isinstance(event, AccountStanding):
            self.risk.set_standing(event)
        elif isinstance(event, Transfer):
            self._transfer(event)
        elif isinstance(event, RuleChange):
            self.risk.obey(event.instrument)
            self.portfolio.obey(event.instrument)
        else:
            assert isinstance(event, Retraining | OrderUpdate | EmergencyOrder | GuardOrder | Notice)
        return ()

    def offer(self, strategy: Strategy) -> None:
        """The strategy that the next ``ModelSwap`` brings in: its model's, shown exactly the bars that this one has seen."""
        self._offered = strategy

    @property
    def decisions_made(self) -> int:
        """How many decisions the run has made so far."""
        return self._decisions

    @property
    def decisions_sha256(self) -> str:
        """Hash over all decisions so far: side, quantity, order fields, verdicts and neighbour ids.

        It does not depend on when it is asked for.
        """
        return self._decisions_hash.sha256

    @property
    def trades_sha256(self) -> str:
        """Hash over all executions so far: symbol, side, quantity, price, fee, kind, time, and what was withheld."""
        return self._trades_hash

    def state(self) -> CoreState:
        """A copy that can be journalled."""
        bank = self.strategy.bank
        return CoreState(
            portfolio=self.portfolio.state(),
            risk=self.risk.state,
            decisions=self._decisions,
            decisions_link=self._decisions_hash.link,
            decisions_tail=self._decisions_hash.tail,
            trades_sha256=self._trades_hash,
            last_open_times={symbol: time for symbol, time in self._last_open_times.items() if time > _BEFORE_ALL},
            strategy=self.strategy.state(),
            recall=None if bank is None else bank.recall_state,
        )

    def restore(self, state: CoreState) -> None:
        """Go on from ``state``; the strategy has been warmed by the caller."""
        self.portfolio.restore(state.portfolio)
        self.risk.restore(state.risk)
        self._decisions = state.decisions
        self._decisions_hash.restore(state.decisions_link, state.decisions_tail)
        self._trades_hash = state.trades_sha256
        self._last_open_times |= state.last_open_times
        if state.strategy:
            self.strategy.restore(state.strategy)
        if state.recall is not None and self.strategy.bank is not None:
            self.strategy.bank.resume_recall(state.recall)
        self.equity = self.portfolio.equity

    def decide(self, batch: BarBatch) -> tuple[Decision, ...]:
        """Apply a batch of bars and decide on each of them, in their order.

        Raises:
            ValueError: a bar is not later than the one before it of the same symbol.
        """
        return next(self.run((batch,), []))

    def run(
        self,
        batches: Iterable[BarBatch],
        equities: list[float],
        every: bool = True,
        watch: Callable[[Signal], object] | None = None,
    ) -> Iterator[tuple[Decision, ...]]:
        """Apply one batch of bars after the other; answers after every batch that brings a decision to tell of.

        One loop holds all of it, because calls and attributes that are looked up anew at every bar cost more than what is
        decided. Whoever takes an answer may apply other events than a ``ModelSwap`` before asking for the next.

        Args:
            batches: bars that close together, in order.
            equities: the equity at every batch, marked at its closes, is appended to it.
            every: tell of every decision; else only of those with orders, so that a replay need not build what nobody keeps.
            watch: called with every signal, as the strategy gave it.

        Raises:
            ValueError: a bar is not later than the one before it of the same symbol.
        """
        portfolio, risk, digest, working = self.portfolio, self.risk, self._decisions_hash, self._working
        last, marks, append = self._last_open_times, portfolio.marks, equities.append
        strategy = self.strategy
        settle, remember = _unless_empty(strategy, "settle"), _unless_empty(strategy, "remember")
        on_bar, review, observe_equity = strategy.on_bar, risk.review, risk.observe_equity
        repeat = digest.times.append
        decisions: list[Decision] = []
        number = self._decisions
        due = number - number % BLOCK + BLOCK
        for batch in batches:
            bars, late = batch.bars, batch.late
            for bar in bars:
                symbol, open_time = bar.symbol, bar.open_time
                if open_time <= last[symbol]:
                    raise _backwards(bar, last[symbol])
                last[symbol] = open_time
                marks[symbol] = bar.close
            # ``Portfolio.equity``, which would be called at every bar.
            equity = portfolio.cash_value
            for symbol, quantity in portfolio.holdings:
                equity += quantity * marks[symbol]
            self.equity = equity
            append(equity)
            close_time = bar.close_time
            if close_time > risk.day_end or equity <= risk.loss_floor:
                observe_equity(close_time, equity)
            risk.last_equity = equity
            if risk.ordered_lots:
                risk.forget_filled(working)
            # The law of the house (causality): settle what has matured, query and decide, and only then append.
            if settle is not None:
                settle(bars)
            # Flags are looked up by place: pairing them with their bars takes longer than reviewing a signal.
            first = number
            for bar in bars:
                symbol = bar.symbol
                signal = on_bar(bar)
                orders, verdicts = review(signal, bar, portfolio, equity, late[number - first], symbol in working)
                if orders or signal.explanation is not None:
                    digest.add(digest_text(symbol, bar.open_time, signal, verdicts, orders))
                elif verdicts is digest.verdicts and symbol is digest.symbol:
                    repeat(bar.open_time)
                else:
                    digest.begin(symbol, verdicts, bar.open_time)
                if watch is not None:
                    watch(signal)
                if every or orders:
                    position = portfolio.positions[symbol].quantity
                    decisions.append(Decision(number, signal.made, verdicts, orders, position, equity, close_time))
                number += 1
                if number == due:
                    digest.end_block()
                    due += BLOCK
            self._decisions = number
            if remember is not None:
                remember(bars)
            if decisions:
                yield tuple(decisions)
                decisions.clear()

    def _prune(self, pruning: Pruning) -> None:
        bank = self.strategy.bank
        assert bank is not None and pruning.as_of is not None, (
            "a run without a memory, or of no time, was told to prune"
        )
        bank.prune(pruning.rule, as_of=pruning.as_of)

    def _transfer(self, event: Transfer) -> None:
        if not event.outside:
            self.portfolio.apply_transfer(event.amount)
            self.risk.observe_transfer(float(event.amount))

    def _swap(self, event: ModelSwap) -> None:
        strategy, self._offered = self._offered, None
        assert strategy is not None and strategy.bank is not None, (
            "a model is to be swapped in that nobody has prepared"
        )
        assert strategy.bank.encoder_version == event.model_id, "the memory that was prepared is another model's"
        self.strategy = strategy

    def _on_execution(self, execution: Execution) -> None:
        closed = self.portfolio.apply_execution(execution)
        text = (
            f"{execution.symbol}|{execution.side!s}|{execution.quantity.normalize()!s}|{execution.price.normalize()!s}"
            f"|{execution.fee.normalize()!s}|{execution.kind!s}|{execution.time}"
        )
        if execution.withheld:
            text += f"|{execution.withheld.normalize()!s}"
        self._trades_hash = hashlib.sha256((self._trades_hash + text).encode()).hexdigest()
        if closed is not None and self._on_trade is not None:
            self._on_trade(closed)


def _unless_empty(strategy: Strategy, name: str) -> Callable[[Sequence[Bar]], None] | None:
    """A method that a strategy need not have; ``None`` where it has none, to save a call per bar."""
    return None if getattr(type(strategy), name) is getattr(Strategy, name) else getattr(strategy, name)


def _backwards(bar: Bar, before: int) -> ValueError:
    return ValueError(f"{bar.symbol}: bar {bar.open_time} came after {before}; bars must move forward in time")


def digest_text(
    symbol: str, bar_open_time: int, signal: Signal, verdicts: tuple[Verdict, ...], orders: tuple[Order, ...]
) -> str:
    """The part of a decision that a hash covers; run ids and floats that only explain are left out."""
    text = f"{symbol}|{bar_open_time}|{','.join(verdicts)}"
    if orders:
        text += "|" + ";".join([_order_text(order) for order in orders])
    explanation = signal.explanation
    if explanation is not None and explanation.neighbours:
        text += "|" + joined(ids_of(explanation.neighbours))
    return text


def _order_text(order: Order) -> str:
    text = (
        f"{order.side!s}:{order.quantity.normalize()!s}:{order.order_type!s}:{order.limit_price!s}:{order.reduce_only}"
        f":{order.stop_loss!s}:{order.take_profit!s}"
    )
    if order.time_in_force is not TimeInForce.GTC or order.trigger_price is not None or order.close_on_trigger:
        text += f":{order.time_in_force!s}:{order.trigger_price!s}:{order.trigger_direction!s}:{order.close_on_trigger}"
    return text
