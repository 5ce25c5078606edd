"""The durable form of memory banks: three tables, written through a connection whose transaction belongs to the caller.

Rows are only added; eviction marks its time. So every entry keeps [written, settled, evicted) times, and the next id
follows from the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import sqlalchemy as sa

from memory_store.bank import MemoryBank
from memory_store.records import BankChanges, BankConfig, Entry, MemoryBankError, Metric

memory_metadata = sa.MetaData()

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
    sa.UniqueConstraint("bank_id", "symbol", "bar_time"),
)

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

_KEY_TYPE = np.dtype("<f4")
_INSERT_ENTRY = memory_entries.insert()
_INSERT_SETTLEMENT = memory_settlements.insert()
_EVICT = (
    memory_entries.update()
    .where(
        memory_entries.c.bank_id == sa.bindparam("of_bank"),
        memory_entries.c.entry_id.between(sa.bindparam("first"), sa.bindparam("last")),
    )
    .values(evicted_time=sa.bindparam("at_time"))
)


def create_bank(connection: sa.Connection, name: str, config: BankConfig, encoder_version: str) -> int:
    """Register an empty bank; returns its id.

    Raises:
        MemoryBankError: a bank of this name exists.
    """
    if find_bank(connection, name) is not None:
        raise MemoryBankError(f"a memory bank named {name!r} exists already; open it, or choose another name")
    row = memory_banks.insert().values(
        name=name,
        encoder_version=encoder_version,
        capacity=config.capacity,
        dimension=config.dimension,
        horizons=",".join(str(horizon) for horizon in config.horizons),
        primary_horizon=config.primary,
        embargo_ms=config.embargo_ms,
        metric=config.metric.value,
    )
    return int(connection.execute(row.returning(memory_banks.c.id)).scalar_one())


def find_bank(connection: sa.Connection, name: str) -> int | None:
    """Id of the bank of this name, if there is one."""
    found = connection.execute(sa.select(memory_banks.c.id).where(memory_banks.c.name == name)).scalar()
    return None if found is None else int(found)


def read_config(connection: sa.Connection, bank_id: int) -> tuple[BankConfig, str]:
    """Config and encoder version of a bank.

    Raises:
        MemoryBankError: there is no such bank.
    """
    row = connection.execute(sa.select(memory_banks).where(memory_banks.c.id == bank_id)).one_or_none()
    if row is None:
        raise MemoryBankError(f"memory bank {bank_id} is not in this database")
    config = BankConfig(
        capacity=row.capacity,
        dimension=row.dimension,
        horizons=tuple(int(horizon) for horizon in row.horizons.split(",")),
        primary=row.primary_horizon,
        embargo_ms=row.embargo_ms,
        metric=Metric(row.metric),
    )
    return config, row.encoder_version


def write_changes(connection: sa.Connection, bank_id: int, changes: BankChanges, at_time: int) -> None:
    """Write what happened to a bank, in the caller's transaction.

    Args:
        connection: open, its transaction committed by the caller.
        bank_id: from ``create_bank``.
        changes: from ``MemoryBank.take_changes``.
        at_time: milliseconds, recorded as the time of writing and of eviction.

    Raises:
        sqlalchemy.exc.IntegrityError: an entry of that id or of that bar is stored already.
    """
    if changes.appended:
        connection.execute(_INSERT_ENTRY, [_entry_row(bank_id, entry, at_time) for entry in changes.appended])
    if changes.settlements:
        rows = [
            {
                "bank_id": bank_id,
                "entry_id": settlement.entry_id,
                "horizon": settlement.horizon,
                "outcome": settlement.outcome,
                "settled_time": settlement.settled_time,
            }
            for settlement in changes.settlements
        ]
        connection.execute(_INSERT_SETTLEMENT, rows)
    if changes.evicted:
        spans = [
            {"of_bank": bank_id, "first": first, "last": last, "at_time": at_time}
            for first, last in _spans(changes.evicted)
        ]
        connection.execute(_EVICT, spans)


def read_entries(connection: sa.Connection, bank_id: int) -> Iterator[Entry]:
    """The entries of a bank that were not evicted, with all that has settled, in the order of their ids.

    Raises:
        MemoryBankError: there is no such bank, or a row is damaged.
    """
    config, _ = read_config(connection, bank_id)
    entries = memory_entries.c
    query = (
        sa.select(
            entries.entry_id, entries.symbol, entries.bar_time, entries.key, entries.regime, entries.encoder_version
        )
        .where(entries.bank_id == bank_id, entries.evicted_time.is_(None))
        .order_by(entries.entry_id)
    )
    rows = connection.execute(query).all()
    settled = _settlements_from(connection, bank_id, rows[0].entry_id if rows else 0)
    horizons = range(len(config.horizons))
    for entry_id, symbol, bar_time, key, regime, encoder_version in rows:
        if len(key) != config.dimension * _KEY_TYPE.itemsize:
            raise MemoryBankError(f"entry {entry_id} of memory bank {bank_id} is damaged: its key has {len(key)} bytes")
        known = [settled.get((entry_id, horizon), (None, None)) for horizon in horizons]
        yield Entry(
            entry_id=entry_id,
            symbol=symbol,
            bar_time=bar_time,
            key=np.frombuffer(key, dtype=_KEY_TYPE),
            regime=regime,
            encoder_version=encoder_version,
            outcomes=tuple([outcome for outcome, _ in known]),
            settled_times=tuple([settled_time for _, settled_time in known]),
        )


def load_bank(connection: sa.Connection, bank_id: int, *, record_changes: bool = True) -> MemoryBank:
    """The bank as its last transaction left it.

    Raises:
        MemoryBankError: there is no such bank, or its rows are damaged.
    """
    config, encoder_version = read_config(connection, bank_id)
    entries = memory_entries.c
    mine = entries.bank_id == bank_id
    highest = connection.execute(sa.select(sa.func.max(entries.entry_id)).where(mine)).scalar()
    times = connection.execute(
        sa.select(entries.symbol, sa.func.max(entries.bar_time).label("latest")).where(mine).group_by(entries.symbol)
    )
    bank = MemoryBank(config, encoder_version=encoder_version, record_changes=record_changes)
    bank.restore(
        read_entries(connection, bank_id),
        next_id=0 if highest is None else highest + 1,
        last_times={row.symbol: row.latest for row in times},
    )
    return bank


def key_bytes(entry: Entry) -> bytes:
    """A key as it is stored."""
    return entry.key.astype(_KEY_TYPE).tobytes()


def _entry_row(bank_id: int, entry: Entry, at_time: int) -> Mapping[str, object]:
    return {
        "bank_id": bank_id,
        "entry_id": entry.entry_id,
        "symbol": entry.symbol,
        "bar_time": entry.bar_time,
        "key": key_bytes(entry),
        "regime": entry.regime,
        "encoder_version": entry.encoder_version,
        "written_time": at_time,
        "evicted_time": None,
    }


def _spans(ids: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """First and last of every run of consecutive ids."""
    ordered = sorted(ids)
    first = ordered[0]
    for current, following in zip(ordered, [*ordered[1:], None], strict=True):
        if following != current + 1:
            yield first, current
            first = following if following is not None else first


def _settlements_from(
    connection: sa.Connection, bank_id: int, lowest_id: int
) -> dict[tuple[int, int], tuple[float, int]]:
    """Outcome and time known by entry and horizon, of the entries from an id on."""
    settlements = memory_settlements.c
    query = sa.select(settlements.entry_id, settlements.horizon, settlements.outcome, settlements.settled_time).where(
        settlements.bank_id == bank_id, settlements.entry_id >= lowest_id
    )
    return {
        (entry_id, horizon): (outcome, settled_time)
        for entry_id, horizon, outcome, settled_time in connection.execute(query)
    }
