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


def insert_step(connection: sa.Connection, run_id: str, step: StepRecord) -> None:
    """Write all rows of a step but its memory."""
    if step.batch is not None:
        connection.execute(schema.bars.insert(), _bar_rows(run_id, step))
    if step.executions:
        rows = [
            {"run_id": run_id, "sequence": sequence, **_execution_row(execution)}
            for sequence, execution in step.executions
        ]
        connection.execute(schema.executions.insert(), rows)
    if step.decisions:
        connection.execute(
            schema.decisions.insert(), [_decision_row(run_id, step.batch_sequence, d) for d in step.decisions]
        )
        orders = [row for decision in step.decisions for row in _order_rows(run_id, decision)]
        if orders:
            connection.execute(schema.orders.insert(), orders)
    if step.executions:
        filled = [{"filled_id": execution.client_order_id} for _, execution in step.executions]
        connection.execute(
            schema.orders.update()
            .where(schema.orders.c.run_id == run_id, schema.orders.c.client_order_id == sa.bindparam("filled_id"))
            .values(status="filled"),
            filled,
        )
    for sequence, event in step.events:
        row = {"run_id": run_id, "sequence": sequence, "kind": EVENT_KINDS[type(event)]}
        connection.execute(schema.events.insert().values(**row, payload=msgspec.json.encode(event).decode()))
    for command_id, sequence in step.commands_applied:
        table = schema.commands
        connection.execute(table.update().where(table.c.command_id == command_id).values(sequence=sequence))
    if step.trades:
        connection.execute(schema.trades.insert(), [_trade_row(run_id, n, trade) for n, trade in step.trades])
    if step.equity is not None and step.batch is not None:
        _upsert(
            connection, schema.equity, {"run_id": run_id, "time": step.batch.bars[0].close_time, "equity": step.equity}
        )
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


def _execution_row(execution: Execution) -> dict[str, Any]:
    return {
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


def _order_rows(run_id: str, decision: Decision) -> Iterator[dict[str, Any]]:
    for order in decision.orders:
        yield {
            "run_id": run_id,
            "client_order_id": order.client_order_id,
            "decision_number": decision.number,
            "symbol": order.symbol,
            "side": order.side.value,
            "quantity": str(order.quantity),
            "status": "intended",
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
    where = sa.and_(*(table.c[name] == row[name] for name in keys))
    values = {name: value for name, value in row.items() if name not in keys}
    if connection.execute(table.update().where(where).values(**values)).rowcount == 0:
        connection.execute(table.insert().values(**row))
