"""Journal rows of a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from bot.journal import schema
from bot.journal.records import SideEvent, StepRecord
from bot.orders import Decision, Execution, ExecutionKind, Funding, OperatorCommand, Side, SymbolAvailability
from bot.portfolio import ClosedTrade

EVENT_TYPES: Final[dict[str, type[SideEvent]]] = {
    "operator": OperatorCommand,
    "availability": SymbolAvailability,
    "funding": Funding,
}
EVENT_KINDS: Final = {kind: name for name, kind in EVENT_TYPES.items()}


# Statements are built once: building them costs SQLite's work several times over.
_INSERT: Final = {table.name: table.insert() for table in schema.metadata.sorted_tables}
_MARK_FILLED: Final = (
    schema.orders.update()
    .where(
        schema.orders.c.run_id == sa.bindparam("of_run"), schema.orders.c.client_order_id == sa.bindparam("of_order")
    )
    .values(status="filled")
)
_MARK_APPLIED: Final = (
    schema.commands.update()
    .where(schema.commands.c.command_id == sa.bindparam("of_command"))
    .values(sequence=sa.bindparam("as_sequence"))
)


def _update_of(table: sa.Table) -> sa.Update:
    keys = [column == sa.bindparam(f"of_{column.name}") for column in table.primary_key]
    values: dict[str, Any] = {
        column.name: sa.bindparam(f"to_{column.name}") for column in table.columns if not column.primary_key
    }
    return table.update().where(*keys).values(values)


_UPDATE: Final = {table.name: _update_of(table) for table in (schema.equity, schema.states)}


def insert_step(connection: sa.Connection, run_id: str, step: StepRecord, *, keep_decisions: bool = True) -> None:
    """Write all rows of a step but its memory; of decisions only the orders unless they are to be kept."""

    def insert(table: sa.Table, rows: list[dict[str, Any]]) -> None:
        if rows:
            connection.execute(_INSERT[table.name], rows)

    if step.batch is not None:
        insert(schema.bars, _bar_rows(run_id, step))
    insert(schema.executions, [_execution_row(run_id, *numbered) for numbered in step.executions])
    if keep_decisions:
        insert(schema.decisions, [_decision_row(run_id, step.batch_sequence, decision) for decision in step.decisions])
    filled = {execution.client_order_id for _, execution in step.executions}
    orders = [row for decision in step.decisions for row in _order_rows(run_id, decision, filled)]
    insert(schema.orders, orders)
    earlier = filled.difference(row["client_order_id"] for row in orders)
    if earlier:
        connection.execute(_MARK_FILLED, [{"of_run": run_id, "of_order": order} for order in sorted(earlier)])
    insert(schema.events, [_event_row(run_id, *numbered) for numbered in step.events])
    if step.commands_applied:
        applied = [{"of_command": command, "as_sequence": sequence} for command, sequence in step.commands_applied]
        connection.execute(_MARK_APPLIED, applied)
    insert(schema.trades, [_trade_row(run_id, *numbered) for numbered in step.trades])
    if step.equity is not None and step.batch is not None:
        moment = {"run_id": run_id, "time": step.batch.bars[0].close_time}
        _upsert(connection, schema.equity, moment | {"equity": step.equity})
    if step.state is not None:
        row = {"run_id": run_id, "sequence": step.sequence, "trades": step.trades_closed}
        _upsert(connection, schema.states, {**row, "payload": step.state.decode()})


def _bar_rows(run_id: str, step: StepRecord) -> list[dict[str, Any]]:
    assert step.batch is not None
    return [
        {
            "run_id": run_id,
            "sequence": step.batch_sequence,
            "position": position,
            "late": late,
            **{name: getattr(bar, name) for name in bar.__struct_fields__},
        }
        for position, (bar, late) in enumerate(zip(step.batch.bars, step.batch.late, strict=True))
    ]


def _execution_row(run_id: str, sequence: int, execution: Execution) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "sequence": sequence,
        "execution_id": execution.execution_id,
        "client_order_id": execution.client_order_id,
        "symbol": execution.symbol,
        "side": Side(execution.side).value,
        "quantity": str(execution.quantity),
        "price": str(execution.price),
        "fee": str(execution.fee),
        "kind": ExecutionKind(execution.kind).value,
        "time": execution.time,
    }


def _decision_row(run_id: str, sequence: int, decision: Decision) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "number": decision.number,
        "sequence": sequence,
        "symbol": decision.signal.symbol,
        "bar_open_time": decision.signal.bar_open_time,
        "target_exposure": decision.signal.target_exposure,
        "verdicts": ",".join(decision.verdicts),
        "payload": msgspec.json.encode(decision).decode(),
    }


def _event_row(run_id: str, sequence: int, event: SideEvent) -> dict[str, Any]:
    payload = msgspec.json.encode(event).decode()
    return {"run_id": run_id, "sequence": sequence, "kind": EVENT_KINDS[type(event)], "payload": payload}


def _order_rows(run_id: str, decision: Decision, filled: set[str]) -> Iterator[dict[str, Any]]:
    for order in decision.orders:
        yield {
            "run_id": run_id,
            "client_order_id": order.client_order_id,
            "decision_number": decision.number,
            "symbol": order.symbol,
            "side": order.side.value,
            "quantity": str(order.quantity),
            "status": "filled" if order.client_order_id in filled else "intended",
            "decided_at": order.decided_at,
            "payload": msgspec.json.encode(order).decode(),
        }


def _trade_row(run_id: str, number: int, trade: ClosedTrade) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "number": number,
        "symbol": trade.symbol,
        "closed_at": trade.closed_at,
        "profit": str(trade.profit),
        "payload": msgspec.json.encode(trade).decode(),
    }


def _upsert(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
    keys = {column.name for column in table.primary_key}
    named = {(f"of_{name}" if name in keys else f"to_{name}"): value for name, value in row.items()}
    if connection.execute(_UPDATE[table.name], named).rowcount == 0:
        connection.execute(_INSERT[table.name], [row])
