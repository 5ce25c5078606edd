"""The rows that a run owes to its journal, gathered step by step from its replay."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backtest.audit_compare import (
    BankRow,
    DecisionRow,
    EntryRow,
    EquityRow,
    OrderRow,
    RecollectionRow,
    RowKey,
    SettlementRow,
    StateRow,
    TradeRow,
)
from bot.engine import Engine, Step
from bot.journal.rows import FILLED, INTENDED, UNDECIDED, Fate, fate_of
from bot.orders import Decision, EmergencyOrder, Event, Execution, GuardOrder, Order, OrderUpdate
from bot.portfolio import ClosedTrade
from memory_store import BankChanges, MemoryBank
from memory_store.registry import config_columns
from memory_store.storage import id_bytes, key_bytes, weight_bytes


class Trail:
    """Rows by their keys. Decisions are not kept: a long run has more of them than need be in memory at once."""

    def __init__(self) -> None:
        self.orders: dict[RowKey, OrderRow] = {}
        self.equity: dict[RowKey, EquityRow] = {}

    def follow(self, step: Step) -> None:
        """Note what a step left in the tables of orders and equity."""
        for decision in step.decisions:
            for order in decision.orders:
                self._intend(order, decision.number)
        for execution in step.executions:
            self._mark_fill(execution)
        for update in step.updates:
            self._mark_end(update)
        # A late batch may close at the same time as one before it: the last word counts.
        time = step.batch.bars[0].close_time
        self.equity[time,] = EquityRow(time, step.decisions[0].equity)

    def hear(self, event: Event) -> None:
        """Note what an event between two steps left in the table of orders."""
        if isinstance(event, Execution):
            self._mark_fill(event)
        elif isinstance(event, OrderUpdate):
            self._mark_end(event)
        elif isinstance(event, EmergencyOrder | GuardOrder):
            self._intend(event.order, UNDECIDED)

    def _intend(self, order: Order, decision_number: int) -> None:
        self.orders[order.client_order_id,] = OrderRow(
            order.client_order_id,
            decision_number,
            order.symbol,
            order.side.value,
            str(order.quantity),
            INTENDED[0],
            order.decided_at,
            msgspec.json.encode(order),
        )

    def _mark_fill(self, execution: Execution) -> None:
        if execution.names_its_order:
            self._mark(execution.client_order_id, FILLED)

    def _mark_end(self, update: OrderUpdate) -> None:
        if update.is_final:
            self._mark(update.client_order_id, fate_of(update))

    def _mark(self, name: str, fate: Fate) -> None:
        if (name,) in self.orders:
            self.orders[name,] = msgspec.structs.replace(self.orders[name,], status=fate[0], reason=fate[1])


class MemoryTrail:
    """Rows of one memory by their keys."""

    def __init__(self, bank: BankRow) -> None:
        self.bank = bank
        self.entries: dict[RowKey, EntryRow] = {}
        self.settlements: dict[RowKey, SettlementRow] = {}
        self.recollections: dict[RowKey, RecollectionRow] = {}

    def remember(self, changes: BankChanges, at_time: int) -> None:
        """Note what happened to the memory in one transaction, written at ``at_time``."""
        for entry in changes.appended:
            self.entries[entry.entry_id,] = EntryRow(
                entry.entry_id,
                entry.symbol,
                entry.bar_time,
                key_bytes(entry),
                entry.regime,
                entry.encoder_version,
                at_time,
                novelty=entry.novelty,
            )
        for settled in changes.settlements:
            self.settlements[settled.entry_id, settled.horizon] = SettlementRow(
                settled.entry_id, settled.horizon, settled.outcome, settled.settled_time
            )
        for noted in changes.recollections:
            row = RecollectionRow(noted.asker_id, noted.as_of, id_bytes(noted), weight_bytes(noted))
            self.recollections[noted.asker_id,] = row
        for entry_id in changes.evicted:
            self.entries[entry_id,] = msgspec.structs.replace(self.entries[entry_id,], evicted_time=at_time)


def decision_row(decision: Decision, sequence: int) -> DecisionRow:
    """The row of a decision on the batch of that sequence number."""
    signal = decision.signal
    return DecisionRow(
        decision.number,
        sequence,
        signal.symbol,
        signal.bar_open_time,
        signal.target_exposure,
        ",".join(decision.verdicts),
        msgspec.json.encode(decision),
    )


def trade_rows(trades: Sequence[ClosedTrade]) -> dict[RowKey, TradeRow]:
    """The rows of all round trips of a run, in the order in which they closed."""
    return {
        (number,): TradeRow(number, trade.symbol, trade.closed_at, str(trade.profit), msgspec.json.encode(trade))
        for number, trade in enumerate(trades)
    }


def state_row(engine: Engine, sequence: int) -> StateRow:
    """The state of a run after its last event, from which a resume goes on."""
    return StateRow(sequence, engine.portfolio.trades_closed, msgspec.json.encode(engine.state()))


def bank_row(name: str, bank: MemoryBank) -> BankRow:
    """The row of a bank of that name."""
    return BankRow(name, bank.encoder_version, **config_columns(bank.config))
