"""The audit: a run's recorded events through the replay driver, and every field that comes out differently.

Decisions, fills and memory are recomputed from the recorded bars and the stored candles, never read back. Zero
differences is the only pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import msgspec

from bot.engine import SimulatedEngine
from bot.errors import UsageError
from bot.journal import Journal, StoredRun
from bot.journal.records import SideEvent
from bot.orders import BarBatch, Decision, Execution
from memory_store import Entry, MemoryBank
from strategies.bars import Bar, format_time

_DECISION_CHUNK: Final = 512


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that the replay computed differently."""

    where: str
    """Which decision, fill or memory entry."""
    field: str
    recorded: Any
    replayed: Any


@dataclass(slots=True)
class AuditReport:
    """What an audit found."""

    run_id: str
    bars: int = 0
    decisions: int = 0
    fills: int = 0
    memory_entries: int = 0
    buys: int = 0
    sells: int = 0
    protective_fills: int = 0
    differences: list[Difference] = field(default_factory=list)
    differing: int = 0
    """How many fields differ in all; ``differences`` keeps the first ones."""

    def note(self, found: Iterable[Difference], *, keep: int = 200) -> None:
        """Count differences and keep the first ones."""
        for difference in found:
            self.differing += 1
            if len(self.differences) < keep:
                self.differences.append(difference)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run_id": self.run_id,
            "bars": self.bars,
            "decisions": self.decisions,
            "fills": self.fills,
            "buys": self.buys,
            "sells": self.sells,
            "stops_and_targets": self.protective_fills,
            "memory_entries": self.memory_entries,
            "differences": self.differing,
            "first_differences": [
                {"where": d.where, "field": d.field, "recorded": str(d.recorded), "replayed": str(d.replayed)}
                for d in self.differences
            ],
        }


def audit_run(journal: Journal, run: StoredRun, engine: SimulatedEngine) -> AuditReport:
    """Replay a run from its journal and compare.

    Args:
        journal: where the run is.
        run: the run.
        engine: fresh, with a strategy warmed from the same stored candles as the run was.

    Raises:
        UsageError: the run has no bars yet.
    """
    run_id = run.record.run_id
    report = AuditReport(run_id)
    stored_bank = None if run.bank_id is None else journal.load_bank(run.bank_id)
    recorded_fills = iter(journal.read_executions(run_id))
    recorded_decisions = _decisions(journal, run_id)
    pending_fill = next(recorded_fills, None)
    for sequence, happening in _happenings(journal, run_id):
        if not isinstance(happening, BarBatch):
            engine.apply([happening])
            continue
        step = engine.step(happening)
        report.bars += len(happening.bars)
        fills: list[Execution] = []
        while pending_fill is not None and pending_fill[0] < sequence:
            fills.append(pending_fill[1])
            pending_fill = next(recorded_fills, None)
        _compare_fills(report, fills, step.executions)
        decided = [next(recorded_decisions, None) for _ in step.decisions]
        for recorded, replayed in zip(decided, step.decisions, strict=True):
            report.decisions += 1
            report.note(_decision_differences(recorded, replayed))
    if not report.bars:
        raise UsageError(f"run {run_id} has no bars yet, so there is nothing to audit; let it decide on some first")
    _compare_fills(report, [fill for _, fill in _rest(pending_fill, recorded_fills)], [])
    for extra in recorded_decisions:
        where = f"decision {extra.number} ({extra.signal.symbol} {format_time(extra.signal.bar_open_time)})"
        report.note([Difference(where, "decision", "there", "missing")])
    if stored_bank is not None:
        replayed_bank = engine.core.strategy.bank
        assert replayed_bank is not None
        _compare_memory(report, stored_bank, replayed_bank)
    return report


def _rest(
    first: tuple[int, Execution] | None, others: Iterator[tuple[int, Execution]]
) -> Iterator[tuple[int, Execution]]:
    if first is not None:
        yield first
    yield from others


def _decisions(journal: Journal, run_id: str) -> Iterator[Decision]:
    after = -1
    while chunk := journal.read_decisions(run_id, after=after, limit=_DECISION_CHUNK):
        for _, decision in chunk:
            yield decision
        after = chunk[-1][1].number


def _happenings(journal: Journal, run_id: str) -> Iterator[tuple[int, BarBatch | SideEvent]]:
    """Batches and operator commands of a run in the order in which they were applied."""
    events = journal.read_events(run_id)
    position = 0
    for sequence, batch in _batches(journal, run_id):
        while position < len(events) and events[position][0] < sequence:
            yield events[position]
            position += 1
        yield sequence, batch
    yield from events[position:]


def _batches(journal: Journal, run_id: str) -> Iterator[tuple[int, BarBatch]]:
    names = Bar.__struct_fields__
    together: list[Any] = []
    for row in [*journal.read_bars(run_id), None]:
        if together and (row is None or row["sequence"] != together[0]["sequence"]):
            bars = tuple(Bar(*(each[name] for name in names)) for each in together)
            yield together[0]["sequence"], BarBatch(bars, tuple(bool(each["late"]) for each in together))
            together = []
        if row is not None:
            together.append(row)


def _compare_fills(report: AuditReport, recorded: list[Execution], replayed: list[Execution]) -> None:
    for old, new in zip_longest(recorded, replayed):
        known = old if old is not None else new
        report.fills += 1
        if known.kind in ("stop_loss", "take_profit"):
            report.protective_fills += 1
        report.buys += known.side == "buy"
        report.sells += known.side == "sell"
        where = f"fill {known.execution_id} at {format_time(known.time)}"
        if old is None or new is None:
            report.note([Difference(where, "fill", "there" if old else "missing", "there" if new else "missing")])
            continue
        report.note(
            Difference(where, name, getattr(old, name), getattr(new, name))
            for name in Execution.__struct_fields__
            if getattr(old, name) != getattr(new, name)
        )


def _decision_differences(recorded: Decision | None, replayed: Decision) -> Iterator[Difference]:
    where = f"decision {replayed.number} ({replayed.signal.symbol} {format_time(replayed.signal.bar_open_time)})"
    if recorded is None:
        yield Difference(where, "decision", "missing", "there")
        return
    if recorded == replayed:
        return
    yield from field_differences(where, recorded, replayed)


def field_differences(where: str, old: Decision, new: Decision) -> Iterator[Difference]:
    """Every field in which two decisions differ, by its path."""
    yield from _field_differences(where, "", msgspec.to_builtins(old), msgspec.to_builtins(new))


def _field_differences(where: str, path: str, old: Any, new: Any) -> Iterator[Difference]:
    """Paths of all leaves in which two trees of plain values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            below = f"{path}.{name}" if path else name
            yield from _field_differences(where, below, old.get(name), new.get(name))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        for index, (left, right) in enumerate(zip_longest(old, new)):
            yield from _field_differences(where, f"{path}[{index}]", left, right)
    elif _written(old) != _written(new):
        yield Difference(where, path, old, new)


def _written(value: Any) -> Any:
    """A leaf as the journal writes it: JSON has no word for what is not a finite number and says null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _compare_memory(report: AuditReport, stored: MemoryBank, replayed: MemoryBank) -> None:
    for old, new in zip_longest(stored.entries(), replayed.entries()):
        report.memory_entries += 1
        report.note(_entry_differences(old, new))


def _entry_differences(old: Entry | None, new: Entry | None) -> Iterator[Difference]:
    known = old if old is not None else new
    assert known is not None
    where = f"memory entry {known.entry_id} ({known.symbol} {format_time(known.bar_time)})"
    if old is None or new is None:
        yield Difference(where, "entry", "there" if old else "missing", "there" if new else "missing")
        return
    for name in ("entry_id", "symbol", "bar_time", "regime", "encoder_version", "outcomes", "settled_times"):
        yield from _field_differences(where, name, getattr(old, name), getattr(new, name))
    if old.key.tobytes() != new.key.tobytes():
        yield Difference(where, "key", "other bits", "other bits")
