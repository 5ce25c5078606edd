"""Banks from their rows.

A bank is asked for as it is, or as it was at a past moment: an entry is there from the time at which it was written until
the time of its eviction, an outcome from the time at which it became known, a recollection from the time at which it
asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from memory_store.archive import Archive, segment_entries
from memory_store.bank import MemoryBank
from memory_store.recollection_rows import read_primary_outcomes, read_recollections_of
from memory_store.records import Entry, Eviction, MemoryBankError
from memory_store.registry import StoredBank, read_bank
from memory_store.restoration import BankState
from memory_store.ring import NEVER, NOT_YET
from memory_store.rows import (
    EntryRows,
    held_condition,
    read_entry_rows,
    read_last_times,
    read_next_id,
    read_settlements,
)
from memory_store.schema import memory_entries
from memory_store.segments import Segment

_SPARSE: Final = 4
"""Where so many times more ids were given than are held, looking up the held ones is faster than reading all."""


def load_bank(
    connection: sa.Connection, bank_id: int, *, as_of: int | None = None, record_changes: bool = True
) -> MemoryBank:
    """A bank as its last transaction left it, or as it was at a past moment.

    Args:
        connection: to read from. Where its transaction has not begun yet, everything is read as of one moment, whatever a
            writer does meanwhile.
        bank_id: from ``create_bank``.
        as_of: milliseconds, on the clock of ``write_changes``. Where that clock once ran backwards, entries that were held
            one after the other may seem held together; of more than fit, those that left first are left out.
        record_changes: as for ``MemoryBank``.

    Raises:
        MemoryBankError: there is no such bank, or its rows are damaged.
    """
    with reading_rows(connection, bank_id):
        stored = read_bank(connection, bank_id)
        bank = load_unsealed(connection, stored, as_of=as_of, record_changes=record_changes)
        if stored.config.sealed:
            bank.restore_archive(read_archive(connection, stored, next_id=bank.next_id, as_of=as_of))
    return bank


def load_unsealed(
    connection: sa.Connection, stored: StoredBank, *, as_of: int | None = None, record_changes: bool = True
) -> MemoryBank:
    """The same without sealed entries.

    Raises:
        MemoryBankError: rows are damaged.
    """
    bank = MemoryBank(stored.config, encoder_version=stored.encoder_version, record_changes=record_changes)
    state = read_state(connection, stored, as_of=as_of)
    recollections, gone = read_recollections_of(connection, stored.bank_id, state.ids, as_of=as_of)
    outcomes = read_primary_outcomes(connection, stored, gone, as_of=as_of)
    bank.restore_state(state, recollections=recollections, outcomes=outcomes)
    return bank


def read_entries(connection: sa.Connection, bank_id: int, *, as_of: int | None = None) -> Iterator[Entry]:
    """The entries of a bank in the order of their ids, with all that follows from its rows; raises as ``load_bank``."""
    yield from load_bank(connection, bank_id, as_of=as_of, record_changes=False).entries()


@contextmanager
def reading_rows(connection: sa.Connection, bank_id: int) -> Iterator[None]:
    """Let all that is read see one moment, and say in one sentence where rows hold what no bank can have written.

    Raises:
        MemoryBankError: rows are damaged.
    """
    _hold_still(connection)
    try:
        yield
    except MemoryBankError:
        raise
    except (TypeError, ValueError, OverflowError) as problem:
        raise MemoryBankError(f"rows of memory bank {bank_id} are damaged: {problem}; restore the database") from None


def read_state(
    connection: sa.Connection, stored: StoredBank, *, as_of: int | None = None, from_id: int = 0
) -> BankState:
    """The entries of a bank that are not sealed as columns, as if no decision had used any of them.

    Args:
        connection: to read from.
        stored: the bank.
        as_of: as for ``load_bank``.
        from_id: leave out entries, and latest bar times, below this id.

    Raises:
        MemoryBankError: a row is damaged.
    """
    next_id = read_next_id(connection, stored.bank_id, as_of=as_of)
    first = max(from_id, next_id - stored.config.capacity) if stored.config.sealed else from_id
    state = read_columns(connection, stored, memory_entries.c.entry_id >= first, next_id=next_id, as_of=as_of)
    return replace(state, last_times=read_last_times(connection, stored.bank_id, as_of=as_of, from_id=from_id))


def read_archive(
    connection: sa.Connection,
    stored: StoredBank,
    *,
    next_id: int,
    as_of: int | None = None,
    kept: Callable[[int, int], Segment | None] = lambda _first, _last: None,
) -> Archive:
    """The archive of a bank, segment by segment from its rows.

    Args:
        connection: to read from.
        stored: the bank.
        next_id: the id that the next entry got then.
        as_of: as for ``load_bank``.
        kept: gives a sealed segment by its first id and the oldest id that is held, where there is one already.
    """
    config, entries = stored.config, segment_entries(stored.config)
    boundary = next_id - config.capacity
    oldest = max(0, boundary - config.sealed)
    archive = Archive(config)
    for first in range(oldest // entries * entries, boundary, entries):
        segment = kept(first, oldest) if first + entries <= boundary else None
        if segment is not None:
            archive.add(segment)
        else:
            ids = memory_entries.c.entry_id.between(max(first, oldest), min(first + entries, boundary) - 1)
            archive.fill(read_columns(connection, stored, ids, next_id=next_id, as_of=as_of))
    return archive


def read_columns(
    connection: sa.Connection,
    stored: StoredBank,
    which: sa.ColumnElement[bool],
    *,
    next_id: int,
    as_of: int | None = None,
) -> BankState:
    """Some of the entries that a bank holds as columns, as if no decision had used any of them; without latest bar times.

    Raises:
        MemoryBankError: a row is damaged.
    """
    wanted = held_condition(stored.bank_id, as_of) & which
    entries = read_entry_rows(connection, stored, wanted)
    if as_of is not None:
        entries = _fitting(connection, stored, entries, next_id)
    ids = entries.ids
    sparse = len(ids) > 0 and int(ids[-1]) - int(ids[0]) > _SPARSE * len(ids)
    outcomes, settled_times = read_settlements(connection, stored, ids, as_of=as_of, among=wanted if sparse else None)
    return BankState(
        next_id=next_id,
        last_times={},
        **entries._asdict(),
        outcomes=outcomes,
        settled_times=settled_times,
        hits=np.zeros(len(entries.ids), dtype=np.int32),
        last_hits=np.full(len(entries.ids), NOT_YET, dtype=np.int64),
        credits=np.zeros(len(entries.ids), dtype=np.int64),
    )


def _fitting(connection: sa.Connection, stored: StoredBank, entries: EntryRows, next_id: int) -> EntryRows:
    """Leave out what cannot have been held together with the rest."""
    config = stored.config
    if config.eviction is Eviction.FIFO:
        kept = entries.ids >= next_id - config.holds
    elif len(entries.ids) > config.capacity:
        known = connection.execute(
            sa.select(memory_entries.c.entry_id, memory_entries.c.evicted_time).where(
                memory_entries.c.bank_id == stored.bank_id, memory_entries.c.evicted_time.is_not(None)
            )
        )
        left = {row.entry_id: row.evicted_time for row in known}
        evicted = [left.get(entry_id, NEVER) for entry_id in entries.ids.tolist()]
        kept = np.zeros(len(entries.ids), dtype=np.bool_)
        kept[np.lexsort((entries.ids, evicted))[-config.capacity :]] = True
    else:
        return entries
    return entries.only(kept)


def _hold_still(connection: sa.Connection) -> None:
    """Let the reads to come see one moment, where a transaction has not begun."""
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        if not driver.in_transaction:
            # Reading alone begins no transaction with this driver: every query would see a moment of its own.
            connection.exec_driver_sql("BEGIN")
    elif not connection.in_transaction():
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
