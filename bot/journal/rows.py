"""Journal rows of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from bot.journal import schema
from bot.journal.records import SideEvent, StepRecord
from bot.orders import (
    PROTECTIVE,
    AccountStanding,
    Decision,
    EmergencyOrder,
    Execution,
    Funding,
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


class _Insertion:
    """Adds rows, given as tuples in the order of ``columns``, to a table.

    They go to the driver as they are: for rows by name SQLAlchemy takes twice as long as SQLite does to store them.
    """

    def __init__(self, table: sa.Table, *columns: str, replaces: bool = False) -> None:
        """
        Args:
            table: takes the rows.
            columns: of the rows' values.
            replaces: a row takes the place of one with the same primary key; without, there must be none.
        """
        self._table = table
        self._columns = [table.columns[name] for name in columns]
        self._replaces = replaces
        self._statements: dict[str, str] = {}

    def __call__(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        dialect = connection.dialect
        statement = self._statements.get(dialect.name)
        if statement is None:
            preparer = dialect.identifier_preparer
            names = ", ".join(preparer.format_column(column) for column in self._columns)
            marks = ", ".join(["?" if dialect.paramstyle == "qmark" else "%s"] * len(self._columns))
            statement = f"INSERT INTO {preparer.format_table(self._table)} ({names}) VALUES ({marks})"
            if self._replaces:
                # The same on SQLite (https://www.sqlite.org/lang_upsert.html) and PostgreSQL.
                keys = ", ".join(preparer.format_column(column) for column in self._table.primary_key)
                values = [preparer.format_column(column) for column in self._columns if not column.primary_key]
                changes = ", ".join(f"{value} = excluded.{value}" for value in values)
                statement += f" ON CONFLICT ({keys}) DO UPDATE SET {changes}"
            self._statements[dialect.name] = statement
        connection.exec_driver_sql(statement, list(rows))


# Statements are built once: building them costs SQLite's work several times over.
_BARS: Final = _Insertion(schema.bars, "run_id", "sequence", "position", "late", *Bar.__struct_fields__)
_EXECUTIONS: Final = _Insertion(
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
_DECISIONS: Final = _Insertion(
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
_ORDERS: Final = _Insertion(
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
_EVENTS: Final = _Insertion(schema.events, "run_id", "sequence", "kind", "payload")
_TRADES: Final = _Insertion(schema.trades, "run_id", "number", "symbol", "closed_at", "profit", "payload")
_EQUITY: Final = _Insertion(schema.equity, "run_id", "time", "equity", replaces=True)
_STATES: Final = _Insertion(schema.states, "run_id", "sequence", "trades", "payload", replaces=True)
_MARK_ORDER: Final = (
    schema.orders.update()
    .where(
        schema.orders.c.run_id == sa.bindparam("of_run"), schema.orders.c.client_order_id == sa.bindparam("of_order")
    )
    .values(status=sa.bindparam("as_status"), reason=sa.bindparam("for_reason"))
)
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
    # A fill at a level names the order that set it, and says nothing of that.
    fills = [execution for _, execution in step.executions if execution.kind not in PROTECTIVE]
    fates: dict[str, Fate] = {execution.client_order_id: FILLED for execution in fills}
    fates |= {update.client_order_id: fate_of(update) for update in step.updates if update.is_final}
    numbered = [(decision.number, order) for decision in step.decisions for order in decision.orders]
    numbered += [(UNDECIDED, event.order) for _, event in step.events if isinstance(event, EmergencyOrder)]
    rows = [_order_row(run_id, number, order, fates.pop(order.client_order_id, INTENDED)) for number, order in numbered]
    _ORDERS(connection, rows)
    if fates:
        marks = [
            {"of_run": run_id, "of_order": order, "as_status": status, "for_reason": reason}
            for order, (status, reason) in sorted(fates.items())
        ]
        connection.execute(_MARK_ORDER, marks)


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
