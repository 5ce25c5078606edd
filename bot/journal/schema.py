"""Tables of the journal: the one truth about every run, on SQLite or PostgreSQL.

Format 2 added ``commands.payload``, format 3 the tables ``outlooks`` and ``probes``, format 4
``executions.withheld``, format 5 ``orders.reason``.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

SCHEMA_VERSION: Final = 5

metadata = sa.MetaData()
_RUN: Final = sa.String(64)
_DECIMAL: Final = sa.Text()  # exact decimals as text: no database's numeric type keeps them on SQLite
_MILLISECONDS: Final = sa.BigInteger()
_DOUBLE: Final[sa.Double[float]] = sa.Double()

journal_format = sa.Table("journal_format", metadata, sa.Column("version", sa.Integer, primary_key=True))

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("started_at", _MILLISECONDS, nullable=False),
    sa.Column("active_at", _MILLISECONDS, nullable=False, comment="when it was last started or resumed"),
    sa.Column("ended_at", _MILLISECONDS),
    sa.Column("record", sa.Text, nullable=False, comment="the run's settings, as JSON"),
    sa.Column("bank_id", sa.Integer, comment="the run's bank of memory, where it has one"),
    sa.Column("summary", sa.Text, comment="what came out, as JSON"),
)

bars = sa.Table(
    "bars",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("symbol", sa.String(40), primary_key=True),
    sa.Column("open_time", _MILLISECONDS, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False, comment="number of the batch among the run's events"),
    sa.Column("position", sa.Integer, nullable=False, comment="place in the batch"),
    sa.Column("close_time", _MILLISECONDS, nullable=False),
    sa.Column("open", _DOUBLE, nullable=False),
    sa.Column("high", _DOUBLE, nullable=False),
    sa.Column("low", _DOUBLE, nullable=False),
    sa.Column("close", _DOUBLE, nullable=False),
    sa.Column("volume", _DOUBLE, nullable=False),
    sa.Column("late", sa.Boolean, nullable=False),
)
sa.Index("bars_by_sequence", bars.c.run_id, bars.c.sequence)

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("execution_id", sa.String(64), primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("client_order_id", sa.String(64), nullable=False),
    sa.Column("symbol", sa.String(40), nullable=False),
    sa.Column("side", sa.String(8), nullable=False),
    sa.Column("quantity", _DECIMAL, nullable=False),
    sa.Column("price", _DECIMAL, nullable=False),
    sa.Column("fee", _DECIMAL, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("time", _MILLISECONDS, nullable=False),
    sa.Column("withheld", _DECIMAL, comment="fee of a spot purchase in base units; empty elsewhere"),
)
sa.Index("executions_by_sequence", executions.c.run_id, executions.c.sequence)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("symbol", sa.String(40), nullable=False),
    sa.Column("bar_open_time", _MILLISECONDS, nullable=False),
    sa.Column("target_exposure", _DOUBLE),
    sa.Column("verdicts", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False, comment="the whole decision, as JSON"),
)

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("client_order_id", sa.String(64), primary_key=True),
    sa.Column("decision_number", sa.BigInteger, nullable=False),
    sa.Column("symbol", sa.String(40), nullable=False),
    sa.Column("side", sa.String(8), nullable=False),
    sa.Column("quantity", _DECIMAL, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, comment="intended, filled, cancelled or rejected"),
    sa.Column("decided_at", _MILLISECONDS, nullable=False),
    sa.Column("payload", sa.Text, nullable=False, comment="the whole order, as JSON"),
    sa.Column("reason", sa.String(24), comment="why it was cancelled or rejected, where that was after format 4"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.String(24), nullable=False, comment="see EVENT_TYPES in rows.py"),
    sa.Column("payload", sa.Text, nullable=False),
)

trades = sa.Table(
    "trades",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("symbol", sa.String(40), nullable=False),
    sa.Column("closed_at", _MILLISECONDS, nullable=False),
    sa.Column("profit", _DECIMAL, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
)

equity = sa.Table(
    "equity",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("time", _MILLISECONDS, primary_key=True),
    sa.Column("equity", _DOUBLE, nullable=False),
)

outlooks = sa.Table(
    "outlooks",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("payload", sa.LargeBinary, nullable=False, comment="what Outlooks.to_bytes packed"),
)

probes = sa.Table(
    "probes",
    metadata,
    sa.Column("probe_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("settings", sa.String(64), nullable=False, index=True, comment="see probed_settings"),
    sa.Column("payload", sa.Text, nullable=False, comment="what was found, as JSON"),
)

states = sa.Table(
    "states",
    metadata,
    sa.Column("run_id", _RUN, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False, comment="events applied so far"),
    sa.Column("trades", sa.Integer, nullable=False),
    sa.Column("payload", sa.Text, nullable=False, comment="account, book and halts after them, as JSON"),
)

commands = sa.Table(
    "commands",
    metadata,
    sa.Column("command_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_id", _RUN, nullable=False, index=True),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("issued_at", _MILLISECONDS, nullable=False),
    sa.Column("sequence", sa.BigInteger, comment="the event that it became; empty while it waits"),
    sa.Column("payload", sa.Text, comment="the whole command, as JSON; empty in those of format 1"),
)

_ADDED_IN_2: Final = (commands.c.payload,)
_ADDED_IN_3: Final = (outlooks, probes)
_ADDED_IN_4: Final = (executions.c.withheld,)
_ADDED_IN_5: Final = (orders.c.reason,)


def migrate(connection: sa.Connection, version: int) -> None:
    """Bring tables of an earlier format to this one, in the caller's transaction, which nobody else may interrupt."""
    assert 1 <= version < SCHEMA_VERSION, f"there is no format {version}"
    columns = {2: _ADDED_IN_2, 4: _ADDED_IN_4, 5: _ADDED_IN_5}
    for column in [column for since, added in columns.items() if version < since for column in added]:
        specification = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {specification}")
    metadata.create_all(connection, tables=_ADDED_IN_3)
    connection.execute(journal_format.update().values(version=SCHEMA_VERSION))
