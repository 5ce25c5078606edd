"""The durable form of memory banks, written through a connection whose transaction belongs to the caller.

Rows are only added; eviction marks its time. So every entry keeps [written, settled, evicted) times, and the next id
follows from the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from memory_store.reading import load_bank as load_bank
from memory_store.reading import read_entries as read_entries
from memory_store.recollection_rows import ID_TYPE, WEIGHT_TYPE
from memory_store.recollection_rows import read_recollections as read_recollections
from memory_store.records import BankChanges, Entry, Recollection
from memory_store.registry import BankStatistics as BankStatistics
from memory_store.registry import StoredBank as StoredBank
from memory_store.registry import bank_statistics as bank_statistics
from memory_store.registry import create_bank as create_bank
from memory_store.registry import find_bank as find_bank
from memory_store.registry import list_banks as list_banks
from memory_store.registry import read_config as read_config
from memory_store.rows import KEY_TYPE
from memory_store.schema import memory_banks as memory_banks
from memory_store.schema import memory_entries, memory_recollections, memory_settlements
from memory_store.schema import memory_metadata as memory_metadata
from memory_store.schema import open_database as open_database
from memory_store.statements import Insertion, change_plain

_EVICT: Final = "UPDATE memory_entries SET evicted_time = ? WHERE bank_id = ? AND entry_id BETWEEN ? AND ?"


def write_changes(connection: sa.Connection, bank_id: int, changes: BankChanges, at_time: int) -> None:
    """Write what happened to a bank, in the caller's transaction.

    Args:
        connection: open, its transaction committed by the caller.
        bank_id: from ``create_bank``.
        changes: from ``MemoryBank.take_changes``.
        at_time: milliseconds, recorded as the time of writing and of eviction. ``load_bank`` asks for past moments on the
            same clock.

    Raises:
        sqlalchemy.exc.IntegrityError: an entry of that id or of that bar is stored already, or an asker of that id.
    """
    insert_rows(connection, memory_entries, [_entry_row(bank_id, entry, at_time) for entry in changes.appended])
    insert_rows(
        connection,
        memory_settlements,
        [(bank_id, each.entry_id, each.horizon, each.outcome, each.settled_time) for each in changes.settlements],
    )
    insert_rows(connection, memory_recollections, [_recollection_row(bank_id, each) for each in changes.recollections])
    if changes.evicted:
        spans = [(at_time, bank_id, first, last) for first, last in spans_of(changes.evicted)]
        change_plain(connection, _EVICT, spans)


def drop_entries(connection: sa.Connection, bank_id: int, at_once: int) -> bool:
    """Remove the first entries of a bank with all that belongs to them, in the caller's transaction; the empty bank at last.

    Returns:
        Whether anything of it is left.
    """
    entries = memory_entries.c
    query = sa.select(entries.entry_id).where(entries.bank_id == bank_id).order_by(entries.entry_id).limit(at_once)
    ids = list(connection.execute(query).scalars())
    if not ids:
        connection.execute(memory_banks.delete().where(memory_banks.c.id == bank_id))
        return False
    for table, column in (
        (memory_recollections, memory_recollections.c.asker_id),
        (memory_settlements, memory_settlements.c.entry_id),
        (memory_entries, entries.entry_id),
    ):
        connection.execute(table.delete().where(table.c.bank_id == bank_id, column <= ids[-1]))
    return True


def key_bytes(entry: Entry) -> bytes:
    """A key as it is stored."""
    return entry.key.astype(KEY_TYPE).tobytes()


def id_bytes(recollection: Recollection) -> bytes:
    """Neighbours as they are stored."""
    return recollection.ids.astype(ID_TYPE).tobytes()


def weight_bytes(recollection: Recollection) -> bytes:
    """Shares of neighbours as they are stored."""
    return recollection.weights.astype(WEIGHT_TYPE).tobytes()


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, each with all columns of the table in their order."""
    _insertion(table)(connection, rows)


def spans_of(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of every run of consecutive ids, in increasing order; at least one id."""
    ordered = sorted(ids)
    first = ordered[0]
    for current, following in zip(ordered, [*ordered[1:], None], strict=True):
        if following != current + 1:
            yield first, current
            first = following if following is not None else first


@cache
def _insertion(table: sa.Table) -> Insertion:
    return Insertion(table)


def _entry_row(bank_id: int, entry: Entry, at_time: int) -> tuple[Any, ...]:
    return (
        bank_id,
        entry.entry_id,
        entry.symbol,
        entry.bar_time,
        key_bytes(entry),
        entry.regime,
        entry.encoder_version,
        at_time,
        None,
        entry.novelty,
    )


def _recollection_row(bank_id: int, recollection: Recollection) -> tuple[Any, ...]:
    return (
        bank_id,
        recollection.asker_id,
        recollection.as_of,
        id_bytes(recollection),
        weight_bytes(recollection),
    )
