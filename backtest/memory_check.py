"""A stored memory made again from candles, bars and model, and every field of it that comes out differently.

A run's memory is made by its strategy deciding on the recorded bars once more, so that what decisions remembered is
compared too; a standing bank by warming it again from the candles that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backtest.audit import happenings
from backtest.audit_compare import Difference, Findings
from backtest.audit_memory import RunMemories, memory_differences, swap_again
from backtest.audit_trail import MemoryTrail, bank_row
from bot.banks.moments import bank_of
from bot.journal import Journal, RunKind, StoredRun
from bot.journal.memories import contents_of
from bot.journal.records import SideEvent
from bot.orders import BarBatch, ModelSwap, OperatorCommand
from bot.session import Session
from memory_store import MemoryBank

Progress = Callable[[int], None]


@dataclass(slots=True)
class MemoryReport(Findings):
    """What a comparison found."""

    name: str
    entries: int = 0
    """Made again, evicted ones included."""
    settlements: int = 0
    recollections: int = 0
    differences: list[Difference] = field(default_factory=list)
    differing: int = 0
    """How many fields differ in all; ``differences`` keeps the first ones."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "memory": self.name,
            "entries": self.entries,
            "outcomes": self.settlements,
            "recollections": self.recollections,
            "differences": self.differing,
            "first_differences": [
                {"where": d.where, "field": d.field, "recorded": str(d.recorded), "rebuilt": str(d.replayed)}
                for d in self.differences
            ],
        }


def check_memory(
    journal: Journal, run: StoredRun, session: Session, *, progress: Progress | None = None
) -> MemoryReport:
    """Make a stored memory again and compare. A run may be going on: it is looked at as it is now.

    Args:
        journal: where it is.
        run: the run or the standing bank.
        session: of the run, not warmed yet.
        progress: told how many recorded bars are done.
    """
    report = MemoryReport(run.record.run_id)
    with journal.snapshot() as frozen:
        if run.record.kind is RunKind.MEMORY:
            trail = _warmed_again(run, session)
            trails = [trail]
            report.note(memory_differences(frozen, trail, _without_pruning))
        else:
            memories = _decided_again(frozen, run, session, report, progress)
            trails = memories.trails
            report.note(memories.differences(frozen, run))
        report.entries = sum(len(trail.entries) for trail in trails)
        report.settlements = sum(len(trail.settlements) for trail in trails)
        report.recollections = sum(len(trail.recollections) for trail in trails)
    return report


def _warmed_again(run: StoredRun, session: Session) -> MemoryTrail:
    session.warm()
    bank = bank_of(session.strategy)
    trail = MemoryTrail(bank_row(run.record.run_id, bank))
    for changes in contents_of(bank):
        trail.remember(changes, run.record.warmed_until)
    return trail


def _decided_again(
    journal: Journal, run: StoredRun, session: Session, report: MemoryReport, progress: Progress | None
) -> RunMemories:
    session.warm(stored=True)
    strategy, memories, done = session.strategy, RunMemories(), 0
    memories.begin(run.record.run_id, strategy)
    memories.remember(bank_of(strategy).take_changes(), run.record.warmed_until)
    for sequence, happening in happenings(journal, run.record.run_id):
        if isinstance(happening, ModelSwap):
            strategy, found = swap_again(session, journal, run, happening, sequence, memories)
            report.note(found)
            continue
        if not isinstance(happening, BarBatch):
            _prune_again(bank_of(strategy), memories, happening)
            continue
        strategy.settle(happening.bars)
        for bar in happening.bars:
            strategy.on_bar(bar)
        strategy.remember(happening.bars)
        memories.remember(bank_of(strategy).take_changes(), happening.bars[0].close_time)
        done += len(happening.bars)
        if progress is not None:
            progress(done)
    return memories


def _prune_again(bank: MemoryBank, memories: RunMemories, event: SideEvent) -> None:
    """Do to the memory what an event did to it, if anything."""
    pruning = event.pruning if isinstance(event, OperatorCommand) else None
    if pruning is not None and pruning.as_of is not None:
        bank.prune(pruning.rule, as_of=pruning.as_of)
        memories.remember(bank.take_changes(), pruning.as_of)


def _without_pruning(rows: Iterator[Mapping[Any, Any]]) -> Iterator[Mapping[Any, Any]]:
    """Rows of a standing bank as they were written: only pruning evicts from one."""
    return ({**row, "evicted_time": None} if "evicted_time" in row else row for row in rows)
