"""Journal rows of a step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from bot.journal import schema
from bot.journal.records import SideEvent, StepRecord
from bot.orders import (
    AccountStanding,
    Decision,
    EmergencyOrder,
    Execution,
    Funding,
    GuardOrder,
    ModelSwap,
    Notice,
    OperatorCommand,
    Order,
    OrderUpdate,
    Retraining,
    RuleChange,
    SymbolAvailability,
    Transfer,
)
from bot.portfolio import ClosedTrade
from memory_store.statements import Insertion, change_plain
from strategies.bars import Bar

EVENT_TYPES: Final[dict[str, type[SideEvent]]] = {
    "operator": OperatorCommand,
    "availability": SymbolAvailability,
    "funding": Funding,
    "swap": ModelSwap,
    "retraining": Retraining,
    "standing": AccountStanding,
    "transfer": Transfer,
    "emergency": EmergencyOrder,
    "guard": GuardOrder,
    "order": OrderUpdate,
    "notice": Notice,
    "rules": RuleChange,
}
Fate = tuple[str, str | None]
"""What has become of an order: its status, and why it ended unless it was filled."""
INTENDED: Final[Fate] = ("intended", None)
FILLED: Final[Fate] = ("filled", None)
UNDECIDED: Final = -1
"""In place of the decision's number in rows of orders that no decision asked for."""
EVENT_KINDS: Final = {kind: name for name, kind in EVENT_TYPES.items()}


# Statements are built once: building them costs SQLite's work several times over.
_BARS: Final = Insertion(schema.bars, "run_id", "sequence", "position", "late", *Bar.__struct_fields__)
_EXECUTIONS: Final = Insertion(
    schema.executions,
    "run_id",
    "sequence",
    "execution_id",
    "client_order_id",
    "symbol",
    "side",
    "quantity",
    "price",
    "fee",
    "kind",
    "time",
    "withheld",
)
_DECISIONS: Final = Insertion(
    schema.decisions,
    "run_id",
    "number",
    "sequence",
    "symbol",
    "bar_open_time",
    "target_exposure",
    "verdicts",
    "payload",
)
_ORDERS: Final = Insertion(
    schema.orders,
    "run_id",
    "client_order_id",
    "decision_number",
    "symbol",
    "side",
    "quantity",
    "status",
    "decided_at",
    "payload",
    "reason",
)
_EVENTS: Final = Insertion(schema.events, "run_id", "sequence", "kind", "payload")
_TRADES: Final = Insertion(schema.trades, "run_id", "number", "symbol", "closed_at", "profit", "payload")
_EQUITY: Final = Insertion(schema.equity, "run_id", "time", "equity", replaces=True)
_STATES: Final = Insertion(schema.states, "run_id", "sequence", "trades", "payload", replaces=True)
_MARK_ORDER: Final = "UPDATE orders SET status = ?, reason = ? WHERE run_id = ? AND client_order_id = ?"
_TAKE_BANK: Final = (
    schema.runs.update().where(schema.runs.c.run_id == sa.bindparam("of_run")).values(bank_id=sa.bindparam("to_bank"))
)
_MARK_APPLIED: Final = (
    schema.commands.update()
    .where(schema.commands.c.command_id == sa.bindparam("of_command"))
    .values(sequence=sa.bindparam("as_sequence"))
)


def insert_step(connection: sa.Connection, run_id: str, step: StepRecord, *, keep_decisions: bool = True) -> None:
    """Write all rows of a step but its memory; of decisions only the orders unless they are to be kept."""
    if step.batch is not None:
        _BARS(connection, _bar_rows(run_id, step))
    _EXECUTIONS(connection, [_execution_row(run_id, *numbered) for numbered in step.executions])
    if keep_decisions:
        rows = [_decision_row(run_id, step.batch_sequence, decision) for decision in step.decisions]
        _DECISIONS(connection, rows)
    _insert_orders(connection, run_id, step)
    _EVENTS(connection, [_event_row(run_id, *numbered) for numbered in step.events])
    if step.commands_applied:
        applied = [{"of_command": command, "as_sequence": sequence} for command, sequence in step.commands_applied]
        connection.execute(_MARK_APPLIED, applied)
    if step.bank_id is not None:
        connection.execute(_TAKE_BANK, {"of_run": run_id, "to_bank": step.bank_id})
    _TRADES(connection, [_trade_row(run_id, *numbered) for numbered in step.trades])
    if step.equity is not None and step.batch is not None:
        # A late batch may close at the same time as one before it: the last word counts.
        _EQUITY(connection, [(run_id, step.batch.bars[0].close_time, step.equity)])
    if step.state is not None:
        _STATES(connection, [(run_id, step.sequence, step.trades_closed, step.state.decode())])


def fate_of(update: OrderUpdate) -> Fate:
    """What has become of an order that is told to have ended."""
    return str(update.status), None if update.reason is None else str(update.reason)


def insert_equity(connection: sa.Connection, run_id: str, equity: Iterable[tuple[int, float]]) -> None:
    """Write an equity curve, by time."""
    _EQUITY(connection, [(run_id, time, value) for time, value in equity])


def _insert_orders(connection: sa.Connection, run_id: str, step: StepRecord) -> None:
    """Write the orders of a step, and mark those that it filled or that have come to an end otherwise."""
    fills = [execution for _, execution in step.executions if execution.names_its_order]
    fates: dict[str, Fate] = {execution.client_order_id: FILLED for execution in fills}
    fates |= {update.client_order_id: fate_of(update) for update in step.updates if update.is_final}
    numbered = [(decision.number, order) for decision in step.decisions for order in decision.orders]
    numbered += [(UNDECIDED, event.order) for _, event in step.events if isinstance(event, EmergencyOrder | GuardOrder)]
    rows = [_order_row(run_id, number, order, fates.pop(order.client_order_id, INTENDED)) for number, order in numbered]
    _ORDERS(connection, rows)
    if fates:
        change_plain(connection, _MARK_ORDER, [(*fates[order], run_id, order) for order in sorted(fates)])


def _bar_rows(run_id: str, step: StepRecord) -> list[tuple[Any, ...]]:
    assert step.batch is not None
    return [
        (run_id, step.batch_sequence, position, late, *msgspec.structs.astuple(bar))
        for position, (bar, late) in enumerate(zip(step.batch.bars, step.batch.late, strict=True))
    ]


def _execution_row(run_id: str, sequence: int, execution: Execution) -> tuple[Any, ...]:
    return (
        run_id,
        sequence,
        execution.execution_id,
        execution.client_order_id,
        execution.symbol,
        str(execution.side),
        str(execution.quantity),
        str(execution.price),
        str(execution.fee),
        str(execution.kind),
        execution.time,
        str(execution.withheld) if execution.withheld else None,
    )


def _decision_row(run_id: str, sequence: int, decision: Decision) -> tuple[Any, ...]:
    signal = decision.signal
    return (
        run_id,
        decision.number,
        sequence,
        signal.symbol,
        signal.bar_open_time,
        signal.target_exposure,
        ",".join(decision.verdicts),
        msgspec.json.encode(decision).decode(),
    )


def _event_row(run_id: str, sequence: int, event: SideEvent) -> tuple[Any, ...]:
    return run_id, sequence, EVENT_KINDS[type(event)], msgspec.json.encode(event).decode()


def _order_row(run_id: str, decision_number: int, order: Order, fate: Fate) -> tuple[Any, ...]:
    status, reason = fate
    return (
        run_id,
        order.client_order_id,
        decision_number,
        order.symbol,
        str(order.side),
        str(order.quantity),
        status,
        order.decided_at,
        msgspec.json.encode(order).decode(),
        reason,
    )


def _trade_row(run_id: str, number: int, trade: ClosedTrade) -> tuple[Any, ...]:
    payload = msgspec.json.encode(trade).decode()
    return run_id, number, trade.symbol, trade.closed_at, str(trade.profit), payload
