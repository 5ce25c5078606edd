"""Standing banks in the journal: stored whole or not at all, kept apart from runs that trade."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from bot.errors import UsageError
from bot.journal import Journal, RunKind
from memory_store import MemoryBankError
from memory_store.locking import hold_bank
from memory_store.pruning import PruneRule
from strategies.bars import HOUR_MS
from tests.bot.scenes import START
from tests.bot.test_journal import bank_of, record_of


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.sqlite'}", durable=True)) as opened:
        yield opened


def test_a_standing_bank_reads_back_as_it_was(journal: Journal) -> None:
    """Entries, outcomes and ids, without those that were evicted before."""
    bank = bank_of(6)
    told: list[int] = []
    record = replace(record_of("standing", kind=RunKind.MEMORY), source="run-7")
    bank_id = journal.create_memory(record, bank, progress=told.append)
    assert told == [4]
    assert journal.load_bank(bank_id).digest() == bank.digest()
    found = journal.find_run("standing")
    assert (found.record, found.bank_id) == (record, bank_id)
    (memory,) = journal.list_memories()
    assert (memory.bank.name, memory.statistics.held) == ("standing", 4) == (memory.bank.name, len(bank))


def test_an_interrupted_bank_leaves_nothing(journal: Journal) -> None:
    """Its name is free as before."""

    def interrupt(_written: int) -> None:
        raise KeyboardInterrupt

    record = record_of("standing", kind=RunKind.MEMORY)
    with pytest.raises(KeyboardInterrupt):
        journal.create_memory(record, bank_of(3), progress=interrupt)
    assert journal.list_memories() == []
    journal.create_memory(record, bank_of(3))


def test_a_name_belongs_to_one_run_or_bank(journal: Journal) -> None:
    """Neither takes the other's."""
    journal.create_run(record_of("run-1"), bank=bank_of(2))
    with pytest.raises(UsageError, match="there is a memory named run-1 already, and it stays as it is"):
        journal.create_memory(record_of("run-1", kind=RunKind.MEMORY), bank_of(2))
    with pytest.raises(UsageError, match="run-1"):
        journal.refuse_taken("run-1")
    journal.refuse_taken("another")


def test_a_bank_is_no_run(journal: Journal) -> None:
    """Neither the latest nor in the list, but found by its name."""
    journal.create_run(record_of("run-1", started_at=1))
    journal.create_memory(record_of("standing", kind=RunKind.MEMORY, started_at=2), bank_of(2))
    assert journal.find_run("latest").record.run_id == "run-1"
    assert [run.record.run_id for run in journal.list_runs()] == ["run-1"]
    assert [run.record.run_id for run in journal.list_runs(kinds=(RunKind.MEMORY,))] == ["standing"]


def test_pruning_marks_what_it_evicts(journal: Journal) -> None:
    """As of the time that it was told; before that the bank is as it was."""
    record = record_of("standing", kind=RunKind.MEMORY)
    bank_id = journal.create_memory(record, bank_of(4))
    rule, present = PruneRule(unused_for_ms=1), START + 5 * HOUR_MS
    pruned = journal.prune_memory(bank_id, rule, as_of=present)
    assert pruned == (0, 1, 2, 3) and len(journal.load_bank(bank_id)) == 0
    assert len(journal.load_bank(bank_id, as_of=present - 1)) == 4


def test_a_bank_that_another_process_writes_is_not_pruned(journal: Journal) -> None:
    """One writer at a time."""
    bank_id = journal.create_memory(record_of("standing", kind=RunKind.MEMORY), bank_of(4))
    with hold_bank(journal.engine, bank_id), pytest.raises(MemoryBankError, match="standing"):
        journal.prune_memory(bank_id, PruneRule(unused_for_ms=1), as_of=START + 100)
    assert len(journal.load_bank(bank_id)) == 4
