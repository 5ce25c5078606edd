"""Which banks a database has, their rules, and how full they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from memory_store.records import BankConfig, Eviction, IndexKind, MemoryBankError, Metric
from memory_store.schema import memory_banks, memory_entries, memory_recollections, memory_settlements


@dataclass(frozen=True, slots=True)
class StoredBank:
    """A bank as a database lists it."""

    bank_id: int
    name: str
    encoder_version: str
    config: BankConfig


@dataclass(frozen=True, slots=True)
class BankStatistics:
    """What the rows of a bank say, counted by the database."""

    held: int
    evicted: int
    pending: int
    """Entries held whose primary outcome is not known."""
    recollections: int
    symbols: tuple[tuple[str, int], ...]
    """Entries held by symbol, in the order of their names."""
    regimes: tuple[tuple[int, int], ...]
    """Entries held by regime, in increasing order."""
    first_bar_time: int | None
    """Of the entries held, milliseconds; ``None`` where there are none."""
    last_bar_time: int | None


def create_bank(connection: sa.Connection, name: str, config: BankConfig, encoder_version: str) -> int:
    """Register an empty bank; returns its id.

    Raises:
        MemoryBankError: the name is empty, or a bank of this name exists.
    """
    if not name:
        raise MemoryBankError("the name of a memory bank is empty; give it one")
    if find_bank(connection, name) is not None:
        raise MemoryBankError(f"a memory bank named {name!r} exists already; open it, or choose another name")
    row = memory_banks.insert().values(name=name, encoder_version=encoder_version, **config_columns(config))
    return int(connection.execute(row.returning(memory_banks.c.id)).scalar_one())


def find_bank(connection: sa.Connection, name: str) -> int | None:
    """Id of the bank of this name, if there is one."""
    found = connection.execute(sa.select(memory_banks.c.id).where(memory_banks.c.name == name)).scalar()
    return None if found is None else int(found)


def list_banks(connection: sa.Connection) -> list[StoredBank]:
    """All banks, in the order in which they were made.

    Raises:
        MemoryBankError: a row is damaged.
    """
    return [_stored(row) for row in connection.execute(sa.select(memory_banks).order_by(memory_banks.c.id))]


def read_bank(connection: sa.Connection, bank_id: int) -> StoredBank:
    """One bank by its id.

    Raises:
        MemoryBankError: there is no such bank, or its row is damaged.
    """
    row = connection.execute(sa.select(memory_banks).where(memory_banks.c.id == bank_id)).one_or_none()
    if row is None:
        raise MemoryBankError(f"memory bank {bank_id} is not in this database")
    return _stored(row)


def read_config(connection: sa.Connection, bank_id: int) -> tuple[BankConfig, str]:
    """Config and encoder version of a bank; raises as ``read_bank``."""
    stored = read_bank(connection, bank_id)
    return stored.config, stored.encoder_version


def config_columns(config: BankConfig) -> dict[str, Any]:
    """A config as the columns of ``memory_banks``."""
    return {
        "capacity": config.capacity,
        "dimension": config.dimension,
        "horizons": ",".join(str(horizon) for horizon in config.horizons),
        "primary_horizon": config.primary,
        "embargo_ms": config.embargo_ms,
        "metric": config.metric.value,
        "eviction": config.eviction.value,
        "half_life_ms": config.half_life_ms,
        "outcome_scale": config.outcome_scale,
        "index_kind": config.index.value,
        "sealed": config.sealed,
    }


def config_from(columns: Any) -> BankConfig:
    """The config in columns of ``memory_banks``, given as attributes.

    Raises:
        ValueError: they are none.
    """
    return BankConfig(
        capacity=columns.capacity,
        dimension=columns.dimension,
        horizons=tuple(int(horizon) for horizon in columns.horizons.split(",")),
        primary=columns.primary_horizon,
        embargo_ms=columns.embargo_ms,
        metric=Metric(columns.metric),
        eviction=Eviction(columns.eviction),
        half_life_ms=columns.half_life_ms,
        outcome_scale=columns.outcome_scale,
        index=IndexKind(columns.index_kind),
        sealed=columns.sealed,
    )


def bank_statistics(connection: sa.Connection, bank_id: int) -> BankStatistics:
    """How full a bank is and of what.

    Raises:
        MemoryBankError: there is no such bank.
    """
    config, _ = read_config(connection, bank_id)
    entries, settlements, recollections = memory_entries.c, memory_settlements.c, memory_recollections.c
    mine = entries.bank_id == bank_id
    held = sa.and_(mine, entries.evicted_time.is_(None))

    def count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*conditions)).scalar_one())

    def counts(column: sa.Column[Any]) -> tuple[tuple[Any, int], ...]:
        query = sa.select(column, sa.func.count()).where(held).group_by(column)
        return tuple(sorted((value, number) for value, number in connection.execute(query)))

    settled = sa.and_(
        settlements.bank_id == entries.bank_id,
        settlements.entry_id == entries.entry_id,
        settlements.horizon == config.primary,
    )
    first, last = connection.execute(
        sa.select(sa.func.min(entries.bar_time), sa.func.max(entries.bar_time)).where(held)
    ).one()
    symbols = counts(entries.symbol)
    return BankStatistics(
        held=sum(number for _, number in symbols),
        evicted=count(memory_entries, mine, entries.evicted_time.is_not(None)),
        pending=count(memory_entries, held, ~sa.exists().where(settled)),
        recollections=count(memory_recollections, recollections.bank_id == bank_id),
        symbols=symbols,
        regimes=counts(entries.regime),
        first_bar_time=first,
        last_bar_time=last,
    )


def _stored(row: Any) -> StoredBank:
    try:
        return StoredBank(row.id, row.name, row.encoder_version, config_from(row))
    except (ValueError, TypeError, AttributeError) as problem:
        raise MemoryBankError(
            f"the rules of memory bank {row.id} are damaged: {problem}; restore the database"
        ) from None
