"""Tables of memory banks and their format: made where they are missing, migrated where they are old, refused where newer.

Format 1 had no table of its own: it is a database with banks and without ``memory_format``.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import sqlalchemy as sa

from memory_store.records import Eviction, IndexKind, MemoryBankError

MEMORY_FORMAT: Final = 3
_CREATION_LOCK: Final = 0x3E3
"""Name of the lock under which tables are made on PostgreSQL: any number of our own."""
_BUSY_TIMEOUT_MS: Final = 30_000

memory_metadata = sa.MetaData()

memory_format = sa.Table("memory_format", memory_metadata, sa.Column("version", sa.Integer, primary_key=True))

memory_banks = sa.Table(
    "memory_banks",
    memory_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("encoder_version", sa.Text, nullable=False),
    sa.Column("capacity", sa.BigInteger, nullable=False),
    sa.Column("dimension", sa.Integer, nullable=False),
    sa.Column("horizons", sa.Text, nullable=False, comment="spans in bars, separated by commas"),
    sa.Column("primary_horizon", sa.Integer, nullable=False, comment="index into horizons"),
    sa.Column("embargo_ms", sa.BigInteger, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("eviction", sa.Text, nullable=False, server_default=Eviction.FIFO.value),
    sa.Column("half_life_ms", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("outcome_scale", sa.Double, nullable=False, server_default=sa.text("1")),
    sa.Column("index_kind", sa.Text, nullable=False, server_default=IndexKind.EXACT.value),
    sa.Column("sealed", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

memory_entries = sa.Table(
    "memory_entries",
    memory_metadata,
    sa.Column("bank_id", sa.Integer, sa.ForeignKey(memory_banks.c.id), primary_key=True),
    sa.Column("entry_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("bar_time", sa.BigInteger, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False, comment="float32, little-endian"),
    sa.Column("regime", sa.Integer, nullable=False),
    sa.Column("encoder_version", sa.Text, nullable=False),
    sa.Column("written_time", sa.BigInteger, nullable=False),
    sa.Column("evicted_time", sa.BigInteger, nullable=True),
    sa.Column("novelty", sa.Double, nullable=False, server_default=sa.text("0")),
    sa.UniqueConstraint("bank_id", "symbol", "bar_time"),
)

_HELD = memory_entries.c.evicted_time.is_(None)
memory_entries_held = sa.Index(
    "memory_entries_held",
    memory_entries.c.bank_id,
    memory_entries.c.entry_id,
    sqlite_where=_HELD,
    postgresql_where=_HELD,
)
"""Which entries are held, without touching those that are gone."""

memory_settlements = sa.Table(
    "memory_settlements",
    memory_metadata,
    sa.Column("bank_id", sa.Integer, primary_key=True),
    sa.Column("entry_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("horizon", sa.Integer, primary_key=True, autoincrement=False, comment="index into the bank's horizons"),
    sa.Column("outcome", sa.Double, nullable=False),
    sa.Column("settled_time", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["bank_id", "entry_id"], [memory_entries.c.bank_id, memory_entries.c.entry_id]),
    sqlite_with_rowid=False,
)

memory_recollections = sa.Table(
    "memory_recollections",
    memory_metadata,
    sa.Column("bank_id", sa.Integer, primary_key=True),
    sa.Column("asker_id", sa.BigInteger, primary_key=True, autoincrement=False, comment="entry of the bar decided"),
    sa.Column("as_of", sa.BigInteger, nullable=False),
    sa.Column("ids", sa.LargeBinary, nullable=False, comment="neighbours: int64, little-endian"),
    sa.Column("weights", sa.LargeBinary, nullable=False, comment="their shares: float64, little-endian"),
    sa.ForeignKeyConstraint(["bank_id", "asker_id"], [memory_entries.c.bank_id, memory_entries.c.entry_id]),
)

_ADDED_IN_2: Final = (
    memory_banks.c.eviction,
    memory_banks.c.half_life_ms,
    memory_banks.c.outcome_scale,
    memory_banks.c.index_kind,
    memory_entries.c.novelty,
)
_ADDED_IN_3: Final = (memory_banks.c.sealed,)


@sa.event.listens_for(memory_format, "after_create")
def _say_format(_table: sa.Table, connection: sa.Connection, **_arguments: Any) -> None:
    connection.execute(memory_format.insert().values(version=MEMORY_FORMAT))


def open_database(url: str) -> sa.Engine:
    """A database of memories by its URL, its tables made or migrated: all that is needed to use them alone.

    Args:
        url: as SQLAlchemy takes it, such as ``sqlite:///memory.sqlite``.

    Raises:
        MemoryBankError: it cannot be opened, or was written by a newer version.
    """
    try:
        place = sa.engine.make_url(url)
    except sa.exc.ArgumentError:
        raise MemoryBankError(
            f"{url!r} is no database URL; write sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        ) from None
    try:
        engine = sa.create_engine(place)
        if place.get_backend_name() == "sqlite":
            sa.event.listen(engine, "connect", _configure_sqlite)
        with engine.begin() as connection:
            prepare_tables(connection)
    except (sa.exc.DBAPIError, OSError) as problem:
        cause = str(problem.orig if isinstance(problem, sa.exc.DBAPIError) else problem).strip().splitlines()[0]
        raise MemoryBankError(
            f"the memory database {place.render_as_string()} could not be opened: {cause}; check the URL and the disk"
        ) from None
    except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as problem:
        raise MemoryBankError(
            f"the memory database {place.render_as_string()} needs a package that is not installed: {problem}"
        ) from None
    return engine


def prepare_tables(connection: sa.Connection) -> None:
    """Make the tables where they are missing and migrate them where they are old, in the caller's transaction.

    A database that is up to date is only read. Any number of processes may do this at once.

    Raises:
        MemoryBankError: the tables were written by a newer version, or do not say by which.
    """
    if read_format(connection) == MEMORY_FORMAT:
        return
    _lock_out_others(connection)
    found = read_format(connection)
    if found is None:
        memory_metadata.create_all(connection)
    elif found < MEMORY_FORMAT:
        _migrate(connection, found)
    elif found > MEMORY_FORMAT:
        raise MemoryBankError(
            f"the memory in this database has format {found}, this version knows {MEMORY_FORMAT}; update it or use "
            "another database"
        )


def read_format(connection: sa.Connection) -> int | None:
    """Format of the tables; ``None`` where there are none.

    Raises:
        MemoryBankError: there are tables that do not say their format.
    """
    inspector = sa.inspect(connection)
    if not inspector.has_table(memory_format.name):
        return 1 if inspector.has_table(memory_banks.name) else None
    version = connection.execute(sa.select(sa.func.max(memory_format.c.version))).scalar()
    if version is None:
        raise MemoryBankError("the table memory_format is empty, so this memory cannot be read; restore the database")
    return int(version)


def _migrate(connection: sa.Connection, found: int) -> None:
    """Add what came since: with format 2 rules of eviction and index, novelty, recollections; with format 3 archives."""
    added = _ADDED_IN_3 if found > 1 else (*_ADDED_IN_2, *_ADDED_IN_3)
    for column in added:
        specification = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {specification}")
    if found > 1:
        connection.execute(memory_format.update().values(version=MEMORY_FORMAT))
        return
    memory_entries_held.create(connection)
    memory_recollections.create(connection)
    memory_format.create(connection)


def begin_writing(connection: sa.Connection) -> None:
    """Begin a transaction that reads first and writes then, where none has begun.

    SQLite refuses to write in a transaction that has read, once somebody else wrote meanwhile, and does not wait
    (https://www.sqlite.org/isolation.html). Its driver begins none at all before the first change of a row.
    """
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection) and not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _lock_out_others(connection: sa.Connection) -> None:
    """Let nobody else make or migrate the tables until this transaction ends."""
    begin_writing(connection)
    if connection.dialect.name != "sqlite":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    """Writers wait for each other; the write-ahead log lets readers go on meanwhile (https://www.sqlite.org/wal.html)."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            # Another process is switching it on, or the file may only be read: either works without it.
            pass
    cursor.close()
