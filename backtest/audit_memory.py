"""The memories of a run made again, one for each model that it decided with, and compared row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backtest.audit_compare import (
    BANK,
    ENTRY,
    RECOLLECTION,
    SETTLEMENT,
    Difference,
    moment,
    table_differences,
)
from backtest.audit_trail import MemoryTrail, bank_row
from bot.banks.moments import bank_of
from bot.journal import Journal, StoredRun
from bot.lifecycle.preparation import witness
from bot.orders import ModelSwap
from bot.session import Session, reencode
from memory_store import BankChanges
from memory_store.schema import memory_banks, memory_entries, memory_recollections, memory_settlements
from strategies.base import Strategy

Rows = Iterator[Mapping[Any, Any]]


@dataclass(slots=True)
class RunMemories:
    """What a run owes to its memories: those of the models before, and the one in force, which is the last."""

    trails: list[MemoryTrail] = field(default_factory=list)

    def begin(self, name: str, strategy: Strategy) -> None:
        """From here on this memory is in force; a strategy without one has nothing to owe."""
        if strategy.bank is not None:
            self.trails.append(MemoryTrail(bank_row(name, strategy.bank)))

    def remember(self, changes: BankChanges, at_time: int) -> None:
        """Note what happened to the memory in force; see ``MemoryTrail``."""
        self.trails[-1].remember(changes, at_time)

    @property
    def entries(self) -> int:
        """All that they ever held."""
        return sum(len(trail.entries) for trail in self.trails)

    def differences(self, journal: Journal, run: StoredRun) -> Iterator[Difference]:
        """Every field in which the memories in the journal differ, and whether the run has the right one."""
        for trail in self.trails:
            yield from memory_differences(journal, trail)
        recorded = None if run.bank_id is None else _name_of(journal, run.bank_id)
        expected = self.trails[-1].bank.name if self.trails else None
        if recorded != expected:
            yield Difference(f"run {run.record.run_id}", "memory", recorded, expected)


def _as_they_are(rows: Rows) -> Rows:
    return rows


def memory_differences(
    journal: Journal, trail: MemoryTrail, kept: Callable[[Rows], Rows] = _as_they_are
) -> Iterator[Difference]:
    """Every field in which a memory in the journal differs from what it should be.

    Args:
        journal: where it is.
        trail: the rows that it should have.
        kept: what of its rows is to be compared.
    """
    name = trail.bank.name
    yield from table_differences(BANK, journal.read_rows(memory_banks, name=name), {(): trail.bank})
    bank_id = journal.find_bank(name)
    for form, table, rebuilt in (
        (ENTRY, memory_entries, trail.entries),
        (SETTLEMENT, memory_settlements, trail.settlements),
        (RECOLLECTION, memory_recollections, trail.recollections),
    ):
        yield from table_differences(form, kept(journal.read_rows(table, bank_id=bank_id)), rebuilt)


def swap_again(
    session: Session, journal: Journal, run: StoredRun, swap: ModelSwap, sequence: int, memories: RunMemories
) -> tuple[Strategy, list[Difference]]:
    """The strategy that a swap brought in, made from its model and the recorded bars; its memory is in force from here on.

    Args:
        session: of the run.
        journal: where the run is.
        run: the run.
        swap: the event.
        sequence: its number.
        memories: of the run so far.

    Raises:
        UsageError: the model is not there any more, or cannot have taken over.

    Returns:
        The strategy, and what of its memory is not as the event says.
    """
    strategy, at_time = reencode(session, journal, run, swap.model_id, until=swap.encoded_until)
    bank = bank_of(strategy)
    found = []
    if bank.digest() != swap.digest:
        found.append(
            Difference(f"swap to {swap.model_id} at {moment(swap.as_of)}", "digest", swap.digest, bank.digest())
        )
    memories.begin(swap.bank, strategy)
    memories.remember(bank.take_changes(), at_time)
    for number, batch in journal.read_batches(run.record.run_id, after=swap.encoded_until):
        if number > sequence:
            break
        closed, changes = witness(strategy, batch)
        memories.remember(changes, closed)
    return strategy, found


def _name_of(journal: Journal, bank_id: int) -> str | None:
    return next((str(row["name"]) for row in journal.read_rows(memory_banks, id=bank_id)), None)
