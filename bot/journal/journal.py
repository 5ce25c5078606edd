"""Writing and reading the journal.

Synchronous SQLAlchemy Core: one transaction per step. The paper daemon calls it from one dedicated thread, which was
measured to be several times faster than the asynchronous engine for single-row commits.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from bot.errors import StorageError, UsageError
from bot.garbage import rare_collections
from bot.journal import schema
from bot.journal.records import RunKind, RunRecord, RunStatus, SideEvent, StepRecord, StoredRun
from bot.journal.rows import EVENT_TYPES, insert_step
from bot.orders import Decision, Execution, OperatorAction, OperatorCommand
from bot.portfolio import ClosedTrade
from memory_store import MemoryBank
from memory_store import storage as memory_storage

_CREATION_LOCK: Final = 0x5EC0
"""Name of the lock under which the tables are created on PostgreSQL: any number of our own."""


_WAL_ATTEMPTS: Final = 200
_WAL_WAIT_S: Final = 0.01
_ROWS_AT_ONCE: Final = 512


class Journal:
    """The database of all runs."""

    def __init__(self, url: str, *, durable: bool) -> None:
        """Open the journal and create its tables where they are missing.

        Args:
            url: SQLAlchemy URL.
            durable: every commit reaches the disk before it returns; replays may do without.

        Raises:
            StorageError: it cannot be opened, or was written by a newer version.
        """
        with _translated("of storage.database_url"):
            self.url = sa.engine.make_url(url)
        self._place = self.url.render_as_string()
        self._pinned: sa.Connection | None = None
        with _translated(self._place):
            if self.url.get_backend_name() == "sqlite" and self.url.database:
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(self.url)
            if self.url.get_backend_name() == "sqlite":
                _configure_sqlite(self.engine, durable=durable)
            self._create_tables()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    def create_run(self, record: RunRecord, *, bank: MemoryBank | None = None) -> int | None:
        """Begin a run; with ``bank`` also store its memory as it is now. Returns the id of the bank."""
        bank_id: int | None = None
        with self._transaction() as connection:
            if bank is not None:
                bank_id = memory_storage.create_bank(connection, record.run_id, bank.config, bank.encoder_version)
                changes = bank.take_changes()
                memory_storage.write_changes(connection, bank_id, changes, at_time=record.started_at)
            connection.execute(
                schema.runs.insert().values(
                    run_id=record.run_id,
                    kind=record.kind,
                    status=RunStatus.RUNNING,
                    started_at=record.started_at,
                    active_at=_now(),
                    record=msgspec.json.encode(record).decode(),
                    bank_id=bank_id,
                )
            )
        return bank_id

    def write_step(self, run_id: str, step: StepRecord, *, bank_id: int | None = None) -> None:
        """Make one step durable: all of it, or nothing.

        Raises:
            StorageError: the database refused, for example because the disk is full; nothing of the step was written.
        """
        with self._transaction() as connection:
            insert_step(connection, run_id, step)
            if step.memory is not None and bank_id is not None:
                at_time = step.batch.bars[0].close_time if step.batch is not None else 0
                memory_storage.write_changes(connection, bank_id, step.memory, at_time=at_time)

    def write_replay(
        self,
        record: RunRecord,
        summary: dict[str, Any],
        *,
        decisions: Sequence[Decision],
        executions: Sequence[Execution],
        trades: Sequence[ClosedTrade],
        daily_equity: Sequence[tuple[int, float]],
        keep_decisions: bool = True,
    ) -> None:
        """Store a finished replay: its summary, orders, fills and trades; the decisions themselves if they are wanted."""
        step = StepRecord(
            executions=list(enumerate(executions)),
            decisions=tuple(decisions),
            trades=list(enumerate(trades)),
        )
        with rare_collections(), self._transaction() as connection:
            connection.execute(
                schema.runs.insert().values(
                    run_id=record.run_id,
                    kind=record.kind,
                    status=RunStatus.FINISHED,
                    started_at=record.started_at,
                    active_at=_now(),
                    ended_at=_now(),
                    record=msgspec.json.encode(record).decode(),
                    summary=json.dumps(summary),
                )
            )
            insert_step(connection, record.run_id, step, keep_decisions=keep_decisions)
            rows = [{"run_id": record.run_id, "time": at, "equity": value} for at, value in daily_equity]
            if rows:
                connection.execute(schema.equity.insert(), rows)

    def end_run(self, run_id: str, status: RunStatus, summary: dict[str, Any] | None = None) -> None:
        """Note how a run ended."""
        with self._transaction() as connection:
            connection.execute(
                schema.runs.update()
                .where(schema.runs.c.run_id == run_id)
                .values(status=status, ended_at=_now(), summary=None if summary is None else json.dumps(summary))
            )

    def resume_run(self, run_id: str) -> None:
        """Note that a run goes on."""
        with self._transaction() as connection:
            connection.execute(
                schema.runs.update()
                .where(schema.runs.c.run_id == run_id)
                .values(status=RunStatus.RUNNING, active_at=_now(), ended_at=None)
            )

    @contextmanager
    def hold_run(self, run_id: str) -> Iterator[None]:
        """Keep a run to this process for as long as the context lasts, where the database can tell.

        PostgreSQL can, and forgets it when the process dies (https://www.postgresql.org/docs/current/explicit-locking.html);
        an SQLite journal lies in one data_dir, which one bot has to itself anyway.

        Raises:
            UsageError: another process holds it.
        """
        if self.url.get_backend_name() != "postgresql":
            yield
            return
        key = sa.func.hashtextextended(f"recall run {run_id}", 0)
        with self.engine.connect() as connection:
            held = connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one()
            connection.commit()  # The lock belongs to the session; a transaction left open for weeks would harm the server.
            if not held:
                raise UsageError(
                    f"run {run_id} is being traded by another process on the same journal; stop that one, or begin a new "
                    "run with --new"
                )
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))

    def find_run(self, run_id: str) -> StoredRun:
        """The run of that id; ``latest`` is the paper run last started or resumed, else the newest of all.

        Raises:
            UsageError: there is no such run.
        """
        query = sa.select(schema.runs)
        if run_id == "latest":
            order = sa.case((schema.runs.c.kind == RunKind.PAPER, 0), else_=1)
            newest = (
                column.desc() for column in (schema.runs.c.active_at, schema.runs.c.started_at, schema.runs.c.run_id)
            )
            query = query.order_by(order, *newest).limit(1)
        else:
            query = query.where(schema.runs.c.run_id == run_id)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            known = [run.record.run_id for run in self.list_runs(limit=3)]
            hint = f"known runs are {', '.join(known)}" if known else "there are none yet: start recall paper"
            raise UsageError(f"run {run_id!r} is not in the journal; {hint}")
        return _stored_run(row)

    def list_runs(self, *, kind: RunKind | None = None, limit: int = 50) -> list[StoredRun]:
        """Runs, newest first."""
        query = sa.select(schema.runs).order_by(schema.runs.c.started_at.desc(), schema.runs.c.run_id.desc())
        if kind is not None:
            query = query.where(schema.runs.c.kind == kind)
        with self._reading() as connection:
            return [_stored_run(row) for row in connection.execute(query.limit(limit)).mappings()]

    def read_state(self, run_id: str) -> tuple[bytes, int, int] | None:
        """The last state of a run, how many events it had applied, and how many trades it had closed."""
        query = sa.select(schema.states).where(schema.states.c.run_id == run_id)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else (row["payload"].encode(), row["sequence"], row["trades"])

    def read_bars(self, run_id: str, *, symbol: str | None = None) -> list[Any]:
        """All bars of a run as rows, in the order in which they were applied."""
        query = sa.select(schema.bars).where(schema.bars.c.run_id == run_id)
        if symbol is not None:
            query = query.where(schema.bars.c.symbol == symbol)
        with self._reading() as connection:
            return list(connection.execute(query.order_by(schema.bars.c.sequence, schema.bars.c.position)).mappings())

    def read_executions(self, run_id: str) -> list[tuple[int, Execution]]:
        """All fills of a run with their sequence numbers, in the order in which they were applied.

        Raises:
            StorageError: a row holds what no fill can hold.
        """
        query = sa.select(schema.executions).where(schema.executions.c.run_id == run_id)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(schema.executions.c.sequence)).mappings().all()
        fields = Execution.__struct_fields__
        with _believed(f"a fill of run {run_id}"):
            return [
                (row["sequence"], msgspec.convert({name: row[name] for name in fields}, Execution, strict=False))
                for row in rows
            ]

    def read_decisions(self, run_id: str, *, after: int = -1, limit: int | None = None) -> list[tuple[int, Decision]]:
        """Decisions of a run with the sequence numbers of their batches, in order, from number ``after + 1`` on.

        Raises:
            StorageError: a row holds what no decision can hold; so do the readers below.
        """
        query = (
            sa.select(schema.decisions.c.sequence, schema.decisions.c.payload)
            .where(schema.decisions.c.run_id == run_id, schema.decisions.c.number > after)
            .order_by(schema.decisions.c.number)
        )
        with self._reading() as connection:
            rows = connection.execute(query if limit is None else query.limit(limit)).all()
        with _believed(f"a decision of run {run_id}"):
            return [(sequence, msgspec.json.decode(payload, type=Decision)) for sequence, payload in rows]

    def read_events(self, run_id: str) -> list[tuple[int, SideEvent]]:
        """Operator commands and the like of a run, in order."""
        query = sa.select(schema.events).where(schema.events.c.run_id == run_id).order_by(schema.events.c.sequence)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        with _believed(f"an event of run {run_id}"):
            return [
                (row["sequence"], msgspec.json.decode(row["payload"], type=EVENT_TYPES[row["kind"]])) for row in rows
            ]

    def read_trades(self, run_id: str) -> list[ClosedTrade]:
        """Closed round trips of a run, in order."""
        query = sa.select(schema.trades.c.payload).where(schema.trades.c.run_id == run_id)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(schema.trades.c.number)).scalars().all()
        with _believed(f"a trade of run {run_id}"):
            return [msgspec.json.decode(payload, type=ClosedTrade) for payload in rows]

    def read_equity(self, run_id: str) -> list[tuple[int, float]]:
        """Equity of a run by time."""
        query = sa.select(schema.equity.c.time, schema.equity.c.equity).where(schema.equity.c.run_id == run_id)
        with self._reading() as connection:
            return [(at, value) for at, value in connection.execute(query.order_by(schema.equity.c.time))]

    def read_rows(self, table: sa.Table, **owner: object) -> Iterator[sa.RowMapping]:
        """Rows of any table as they are, in the order of their primary key, fetched as they are asked for.

        Args:
            table: of the journal or of the memory.
            owner: columns and the values that they must have, such as ``run_id``.
        """
        query = sa.select(table).filter_by(**owner).order_by(*table.primary_key)
        with self._reading() as connection:
            yield from connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE}).mappings()

    @contextmanager
    def snapshot(self) -> Iterator[Journal]:
        """The journal to read as it is now: what a running bot writes meanwhile is not seen."""
        with self._reading() as connection:
            if self.url.get_backend_name() == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            frozen = copy(self)
            frozen._pinned = connection
            yield frozen

    def count(self, run_id: str, table: str) -> int:
        """How many rows a run has in one of the tables ``bars``, ``decisions``, ``executions`` or ``orders``."""
        rows = schema.metadata.tables[table]
        with self._reading() as connection:
            found = connection.execute(sa.select(sa.func.count()).where(rows.c.run_id == run_id)).scalar_one()
        return int(found)

    def load_bank(self, bank_id: int) -> MemoryBank:
        """A run's memory as it was when the last step was written."""
        with self._reading() as connection:
            return memory_storage.load_bank(connection, bank_id)

    def issue_command(self, run_id: str, command: OperatorCommand) -> int:
        """Leave a command for a running bot; returns its id."""
        with self._transaction() as connection:
            result = connection.execute(
                schema.commands.insert().values(
                    run_id=run_id, action=command.action, reason=command.reason, issued_at=_now()
                )
            )
            key = result.inserted_primary_key
            assert key is not None
            return int(key[0])

    def waiting_commands(self, run_id: str) -> list[tuple[int, OperatorCommand]]:
        """Commands that the bot has not applied yet, oldest first."""
        table = schema.commands
        query = sa.select(table).where(table.c.run_id == run_id, table.c.sequence.is_(None))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(table.c.command_id)).mappings().all()
        with _believed(f"a command to run {run_id}"):
            return [(row["command_id"], OperatorCommand(OperatorAction(row["action"]), row["reason"])) for row in rows]

    def _create_tables(self) -> None:
        with self.engine.connect() as connection:
            version = _format_version(connection)
        if version is None:
            with self.engine.begin() as connection:
                _lock_out_others(connection)
                version = _format_version(connection)
                if version is None:
                    schema.metadata.create_all(connection)
                    memory_storage.memory_metadata.create_all(connection)
                    version = schema.SCHEMA_VERSION
                    connection.execute(schema.journal_format.insert().values(version=version))
        if version > schema.SCHEMA_VERSION:
            raise StorageError(
                f"journal {self._place} has format {version}, this version knows "
                f"{schema.SCHEMA_VERSION}; update Recall or use another storage.data_dir"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with _translated(self._place), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        if self._pinned is not None:
            with _translated(self._place):
                yield self._pinned
            return
        with _translated(self._place), self.engine.connect() as connection:
            yield connection


@contextmanager
def _believed(what: str) -> Iterator[None]:
    """Rows that do not hold what they must, as one sentence."""
    try:
        yield
    except (msgspec.MsgspecError, KeyError, ValueError) as problem:
        raise StorageError(f"{what} in the journal is damaged: {problem}; restore the journal") from None


def _format_version(connection: sa.Connection) -> int | None:
    if not sa.inspect(connection).has_table(schema.journal_format.name):
        return None
    return connection.execute(sa.select(schema.journal_format.c.version)).scalar()


def _lock_out_others(connection: sa.Connection) -> None:
    """Let nobody else create the tables until this transaction ends."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))


def _configure_sqlite(engine: sa.Engine, *, durable: bool) -> None:
    """Write-ahead log, so that readers never wait; ``synchronous=FULL`` syncs it at every commit.

    https://www.sqlite.org/pragma.html#pragma_synchronous
    """

    def on_connect(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        _write_ahead(cursor)
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        cursor.close()

    sa.event.listen(engine, "connect", on_connect)


def _write_ahead(cursor: Any) -> None:
    """Switch the write-ahead log on, unless it is.

    Of several processes that open a new file at once, all but one are told that it is locked, and SQLite does not wait here
    as it does elsewhere: https://www.sqlite.org/wal.html#sometimes_queries_return_sqlite_busy_in_wal_mode
    """
    for attempt in range(_WAL_ATTEMPTS):
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            return
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as problem:
            if "locked" not in str(problem) or attempt == _WAL_ATTEMPTS - 1:
                raise
            time.sleep(_WAL_WAIT_S)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Errors of the database as one sentence; ``url`` must not show a password."""
    try:
        yield
    except (sa.exc.DBAPIError, OSError) as problem:
        cause = str(problem.orig if isinstance(problem, sa.exc.DBAPIError) else problem).strip().splitlines()[0]
        is_full = "disk is full" in cause or "No space left" in cause
        fix = "free some space" if is_full else "check storage.database_url, storage.data_dir and the disk"
        raise StorageError(
            f"the journal {url} could not be used: {cause}; {fix} and start again, nothing that was acknowledged is lost"
        ) from None
    except sa.exc.ArgumentError as problem:
        raise StorageError(
            f"storage.database_url is not understood: {problem}; write sqlite:///PATH or "
            "postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        ) from None
    except ModuleNotFoundError as problem:
        raise StorageError(
            f"the journal {url} needs the package {problem.name}; install it with pip install 'recall-bot[postgres]'"
        ) from None


def _stored_run(row: Any) -> StoredRun:
    with _believed(f"the record of run {row['run_id']}"):
        return StoredRun(
            record=msgspec.json.decode(row["record"], type=RunRecord),
            status=RunStatus(row["status"]),
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            bank_id=row["bank_id"],
            summary=None if row["summary"] is None else json.loads(row["summary"]),
        )


def _now() -> int:
    return time.time_ns() // 1_000_000
