"""The database of the journal: opening it, its tables, transactions, and its errors as one sentence."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from bot.errors import StorageError
from bot.journal import schema
from memory_store import MemoryBankError
from memory_store.schema import prepare_tables

_CREATION_LOCK: Final = 0x5EC0
"""Name of the lock under which the tables are created on PostgreSQL: any number of our own."""
_WAL_ATTEMPTS: Final = 200
_WAL_WAIT_S: Final = 0.01
_LONGEST_LOG: Final = 8_000
"""Pages in the write-ahead log after which a commit moves them into the database itself; 32 MiB."""


class Database:
    """One database, open."""

    def __init__(self, url: str, *, durable: bool) -> None:
        """Open the journal, create its tables where they are missing and migrate them where they are old.

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
        self._kept: sa.Connection | None = None
        """Of whoever takes steps: to take one out of the pool and put it back costs more than most statements."""
        with _translated(self._place):
            if self.url.get_backend_name() == "sqlite" and self.url.database:
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(self.url)
            if self.url.get_backend_name() == "sqlite":
                _configure_sqlite(self.engine, durable=durable)
            self._create_tables()

    def close(self) -> None:
        """Let go of the database."""
        self._release()
        self.engine.dispose()

    def _release(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _create_tables(self) -> None:
        with self.engine.connect() as connection:
            version = _format_version(connection)
        if version is None or version < schema.SCHEMA_VERSION:
            with self.engine.begin() as connection:
                _lock_out_others(connection)
                version = _format_version(connection)
                if version is None:
                    schema.metadata.create_all(connection)
                    connection.execute(schema.journal_format.insert().values(version=schema.SCHEMA_VERSION))
                elif version < schema.SCHEMA_VERSION:
                    schema.migrate(connection, version)
            version = max(version or 0, schema.SCHEMA_VERSION)
        if version > schema.SCHEMA_VERSION:
            raise StorageError(
                f"journal {self._place} has format {version}, this version knows "
                f"{schema.SCHEMA_VERSION}; update Recall or use another storage.data_dir"
            )
        try:
            with self.engine.begin() as connection:
                prepare_tables(connection)
        except MemoryBankError as problem:
            raise StorageError(f"journal {self._place} cannot be used: {problem}") from None

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with _translated(self._place), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _stepping(self) -> Iterator[sa.Connection]:
        """A transaction on the connection that is kept for steps, which one thread at a time may use."""
        if self._pinned is not None:
            yield self._pinned
            return
        with _translated(self._place):
            try:
                if self._kept is None:
                    self._kept = self.engine.connect()
                with self._kept.begin():
                    yield self._kept
            except BaseException:
                # What went wrong may be the connection.
                self._release()
                raise

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        if self._pinned is not None:
            with _translated(self._place):
                yield self._pinned
            return
        with _translated(self._place), self.engine.connect() as connection:
            yield connection


@contextmanager
def believed(what: str) -> Iterator[None]:
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

    https://www.sqlite.org/pragma.html#pragma_synchronous. A durable journal is also told to let the log grow for longer
    before a commit empties it, so that ``Journal.checkpoint`` comes first: https://www.sqlite.org/wal.html#ckpt
    """

    def on_connect(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        _write_ahead(cursor)
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        if durable:
            cursor.execute(f"PRAGMA wal_autocheckpoint={_LONGEST_LOG}")
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
