"""Memories in the journal: what their rows say, and the rows of a standing bank with the record of how it was made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import sqlalchemy as sa

from bot.errors import UsageError
from bot.journal import schema
from bot.journal.records import RunRecord, RunStatus
from memory_store import BankChanges, Entry, MemoryBank, Settlement
from memory_store import storage as memory_storage
from memory_store.pruning import PruneRule
from memory_store.registry import BankStatistics, StoredBank, bank_statistics, read_bank
from memory_store.schema import begin_writing

if TYPE_CHECKING:
    from memory_store.transfer import Export

_ENTRIES_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """A memory as the database counts it."""

    bank: StoredBank
    statistics: BankStatistics


def read_memory(connection: sa.Connection, bank_id: int) -> StoredMemory:
    """See ``Journal.read_memory``."""
    return StoredMemory(read_bank(connection, bank_id), bank_statistics(connection, bank_id))


def insert_memory(
    connection: sa.Connection, record: RunRecord, bank: MemoryBank, progress: Callable[[int], None] | None
) -> int:
    """Write a standing bank in the caller's transaction; see ``Journal.create_memory``."""
    name, written = record.run_id, 0
    refuse_taken(connection, name)
    bank_id = memory_storage.create_bank(connection, name, bank.config, bank.encoder_version)
    for changes in contents_of(bank):
        memory_storage.write_changes(connection, bank_id, changes, at_time=record.warmed_until)
        written += len(changes.appended)
        if progress is not None:
            progress(written)
    _insert_record(connection, record, bank_id)
    return bank_id


def export_memory(connection: sa.Connection, record: RunRecord, bank_id: int, path: Path) -> Export:
    """See ``Journal.export_memory``."""
    # Imported here, as below, because Parquet takes its time to load and most commands do without.
    from memory_store.transfer import export_bank

    return export_bank(connection, bank_id, path, note=msgspec.json.encode(record).decode())


def import_memory(connection: sa.Connection, record: RunRecord, path: Path) -> int:
    """See ``Journal.import_memory``."""
    from memory_store.transfer import import_bank

    refuse_taken(connection, record.run_id)
    bank_id = import_bank(connection, path, name=record.run_id)
    _insert_record(connection, record, bank_id)
    return bank_id


def split_changes(changes: BankChanges, at_once: int) -> Iterator[BankChanges]:
    """The same changes in pieces that can be written one after the other, each with so many new entries at most."""
    settlements: dict[int, list[Settlement]] = {}
    for settled in changes.settlements:
        settlements.setdefault(settled.entry_id, []).append(settled)
    appended = iter(changes.appended)
    while entries := tuple(islice(appended, at_once)):
        known = [each for entry in entries for each in settlements.pop(entry.entry_id, ())]
        yield BankChanges(entries, tuple(known))
    rest = tuple(each for group in settlements.values() for each in group)
    if rest or changes.evicted or changes.recollections:
        yield BankChanges((), rest, changes.evicted, changes.recollections)


def prune_memory(connection: sa.Connection, bank_id: int, rule: PruneRule, as_of: int) -> tuple[int, ...]:
    """See ``Journal.prune_memory``."""
    begin_writing(connection)
    bank = memory_storage.load_bank(connection, bank_id)
    pruned = bank.prune(rule, as_of=as_of)
    memory_storage.write_changes(connection, bank_id, bank.take_changes(), at_time=as_of)
    return pruned


def contents_of(bank: MemoryBank) -> Iterator[BankChanges]:
    """What made a bank as it is: its entries and what is known of their outcomes, some thousand at a time."""
    entries = bank.entries()
    while batch := tuple(islice(entries, _ENTRIES_AT_ONCE)):
        yield BankChanges(batch, tuple(_settlements(batch)))


def refuse_taken(connection: sa.Connection, name: str) -> None:
    """See ``Journal.refuse_taken``."""
    runs = schema.runs.c
    is_run = connection.execute(sa.select(runs.run_id).where(runs.run_id == name)).first() is not None
    if is_run or memory_storage.find_bank(connection, name) is not None:
        raise UsageError(f"there is a memory named {name} already, and it stays as it is; give another --name")


def _insert_record(connection: sa.Connection, record: RunRecord, bank_id: int) -> None:
    connection.execute(
        schema.runs.insert().values(
            run_id=record.run_id,
            kind=record.kind,
            status=RunStatus.FINISHED,
            started_at=record.started_at,
            active_at=record.started_at,
            ended_at=time.time_ns() // 1_000_000,
            record=msgspec.json.encode(record).decode(),
            bank_id=bank_id,
        )
    )


def _settlements(entries: Iterable[Entry]) -> Iterator[Settlement]:
    """What is known of the outcomes of entries."""
    for entry in entries:
        for horizon, (outcome, known) in enumerate(zip(entry.outcomes, entry.settled_times, strict=True)):
            if outcome is not None and known is not None:
                yield Settlement(entry.entry_id, horizon, outcome, known)
