"""The audit: a run's recorded events through the replay driver, and every field that comes out differently.

Decisions, orders, fills, trades, equity, memory and the state that a resume goes on from are recomputed from the recorded
bars and the stored candles, never read back; of a live run the fills and whatever else its account told are facts, and are fed
in where they came. Zero differences is the only pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Generic, TypeVar

from backtest.audit_compare import (
    DECISION,
    EQUITY,
    ORDER,
    STATE,
    TRADE,
    Difference,
    Findings,
    moment,
    table_differences,
)
from backtest.audit_compare import field_differences as field_differences
from backtest.audit_memory import RunMemories, swap_again
from backtest.audit_trail import Trail, decision_row, state_row, trade_rows
from bot.engine import Engine, Step
from bot.errors import UsageError
from bot.journal import Journal, StoredRun, schema
from bot.journal.records import SideEvent
from bot.live_engine import LiveEngine
from bot.orders import PROTECTIVE, BarBatch, Execution, ModelSwap, OperatorCommand
from bot.portfolio import ClosedTrade
from bot.session import Session

Row = TypeVar("Row")


@dataclass(slots=True)
class AuditReport(Findings):
    """What an audit found."""

    run_id: str
    bars: int = 0
    decisions: int = 0
    fills: int = 0
    orders: int = 0
    trades: int = 0
    memory_entries: int = 0
    """All that the run ever held, evicted ones included."""
    buys: int = 0
    sells: int = 0
    protective_fills: int = 0
    differences: list[Difference] = field(default_factory=list)
    differing: int = 0
    """How many fields differ in all; ``differences`` keeps the first ones."""

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
            "orders": self.orders,
            "trades": self.trades,
            "memory_entries": self.memory_entries,
            "differences": self.differing,
            "first_differences": [
                {"where": d.where, "field": d.field, "recorded": str(d.recorded), "replayed": str(d.replayed)}
                for d in self.differences
            ],
        }


def audit_run(
    journal: Journal, run: StoredRun, session: Session, engine: Engine, trades: Sequence[ClosedTrade]
) -> AuditReport:
    """Replay a run from its journal and compare. The run may be going on: it is looked at as it is now.

    Args:
        journal: where the run is.
        run: the run.
        session: of the run, from which other models than its first are made.
        engine: fresh, with a strategy warmed from the same stored candles as the run was, its memory recording changes.
        trades: the list that the engine's closed trades are appended to.

    Raises:
        UsageError: the run has no bars yet.
    """
    with journal.snapshot() as frozen:
        return _Audit(frozen, run, session, engine, trades).report_all()


class _Audit:
    """One audit on its way through a run."""

    def __init__(
        self, journal: Journal, run: StoredRun, session: Session, engine: Engine, trades: Sequence[ClosedTrade]
    ) -> None:
        self._journal = journal
        self._run = run
        self._session = session
        self._run_id = run.record.run_id
        self._engine = engine
        self._trades = trades
        self._report = AuditReport(self._run_id)
        self._trail = Trail()
        self._memories = RunMemories()
        self._memories.begin(self._run_id, engine.core.strategy)
        self._fills = _Waiting(journal.read_executions(self._run_id), lambda fill: fill[0])
        self._decisions = _Waiting(
            journal.read_rows(schema.decisions, run_id=self._run_id), lambda row: int(row["number"])
        )
        self._is_live = isinstance(engine, LiveEngine)
        self._sequence = 0
        """Number of the last event applied."""

    def report_all(self) -> AuditReport:
        """Replay every event, then compare what is left in the tables."""
        run_id, report = self._run_id, self._report
        self._remember(self._run.record.warmed_until)
        last: dict[str, int] = {}
        present = self._run.record.warmed_until
        for sequence, happening in happenings(self._journal, run_id):
            if self._is_live:
                self._feed_fills(self._fills.until(sequence - 1))
            if isinstance(happening, BarBatch):
                if impossible := _impossible(happening, last):
                    report.note([impossible])
                    break
                self._follow(sequence, happening)
                present = max(present, happening.bars[0].close_time)
            else:
                self._apply(sequence, happening, present)
        if not report.bars and not report.differing:
            raise UsageError(f"run {run_id} has no bars yet, so there is nothing to audit; let it decide on some first")
        if self._is_live:
            self._feed_fills(self._fills.until(math.inf))
        self._compare_fills(self._fills.until(math.inf), [])
        report.note(table_differences(DECISION, self._decisions.until(math.inf), {}))
        self._compare_tables()
        self._compare_memory()
        return report

    def _apply(self, sequence: int, event: SideEvent, present: int) -> None:
        where = f"event {sequence}"
        dated = event.pruning if isinstance(event, OperatorCommand) else event if isinstance(event, ModelSwap) else None
        if dated is not None and dated.as_of != present:
            self._report.note([Difference(where, "as_of", dated.as_of, present)])
        if isinstance(event, ModelSwap):
            strategy, found = swap_again(self._session, self._journal, self._run, event, sequence, self._memories)
            self._report.note(found)
            self._engine.core.offer(strategy)
        self._engine.apply([event])
        self._trail.hear(event)
        self._count(where, sequence)
        self._remember(present)

    def _feed_fills(self, recorded: Iterable[tuple[int, Execution]]) -> None:
        """Apply fills that a venue made: they are facts, and what follows from them is compared."""
        for sequence, fill in recorded:
            self._tally(fill)
            self._engine.apply([fill])
            self._trail.hear(fill)
            self._count(f"fill {fill.execution_id} at {moment(fill.time)}", sequence)

    def _follow(self, sequence: int, batch: BarBatch) -> None:
        step = self._engine.step(batch)
        self._report.bars += len(batch.bars)
        self._compare_fills(self._fills.until(sequence - 1), step.executions)
        self._count(f"bars closing {moment(batch.bars[0].close_time)}", sequence)
        self._compare_decisions(step, sequence)
        self._trail.follow(step)
        self._remember(batch.bars[0].close_time)

    def _count(self, where: str, sequence: int) -> None:
        """Events of a run are numbered without a gap; after one, count on from there, so that it is named once."""
        self._sequence += 1
        if sequence != self._sequence:
            self._report.note([Difference(where, "sequence", sequence, self._sequence)])
        self._sequence = sequence

    def _compare_fills(self, recorded: Iterable[tuple[int, Execution]], replayed: Sequence[Execution]) -> None:
        report = self._report
        for old, new in zip_longest(recorded, replayed):
            known = new if old is None else old[1]
            self._tally(known)
            where = f"fill {known.execution_id} at {moment(known.time)}"
            if old is None or new is None:
                report.note([Difference(where, "fill", "there" if old else "missing", "there" if new else "missing")])
                self._sequence += new is not None
                continue
            report.note(
                Difference(where, name, getattr(known, name), getattr(new, name))
                for name in Execution.__struct_fields__
                if getattr(known, name) != getattr(new, name)
            )
            self._count(where, old[0])

    def _tally(self, fill: Execution) -> None:
        report = self._report
        report.fills += 1
        report.protective_fills += fill.kind in PROTECTIVE
        report.buys += fill.side == "buy"
        report.sells += fill.side == "sell"

    def _compare_decisions(self, step: Step, sequence: int) -> None:
        for decision in step.decisions:
            self._report.decisions += 1
            replayed = {(decision.number,): decision_row(decision, sequence)}
            self._report.note(table_differences(DECISION, self._decisions.until(decision.number), replayed))

    def _compare_tables(self) -> None:
        report, trail = self._report, self._trail
        state = {(): state_row(self._engine, self._sequence)}
        report.orders, report.trades = len(trail.orders), len(self._trades)
        for form, table, replayed in (
            (ORDER, schema.orders, trail.orders),
            (TRADE, schema.trades, trade_rows(self._trades)),
            (EQUITY, schema.equity, trail.equity),
            (STATE, schema.states, state),
        ):
            report.note(table_differences(form, self._journal.read_rows(table, run_id=self._run_id), replayed))

    def _compare_memory(self) -> None:
        """The banks and all that they ever held, evicted entries too: they are what earlier decisions saw."""
        self._report.memory_entries = self._memories.entries
        self._report.note(self._memories.differences(self._journal, self._run))

    def _remember(self, at_time: int) -> None:
        bank = self._engine.core.strategy.bank
        if bank is not None:
            self._memories.remember(bank.take_changes(), at_time)


class _Waiting(Generic[Row]):
    """Recorded rows in the order of a number, handed out when the replay gets there."""

    def __init__(self, rows: Iterable[Row], number: Callable[[Row], int]) -> None:
        self._rows = iter(rows)
        self._number = number
        self._next = next(self._rows, None)

    def until(self, number: float) -> Iterator[Row]:
        """Those not handed out yet, up to and with ``number``."""
        while self._next is not None and self._number(self._next) <= number:
            row, self._next = self._next, next(self._rows, None)
            yield row


def _impossible(batch: BarBatch, last: dict[str, int]) -> Difference | None:
    """Why no run can have had this batch after those before it, if so; ``last`` open times are kept by symbol."""
    where = f"bars closing {moment(batch.bars[0].close_time)}"
    for bar in batch.bars:
        before = last.get(bar.symbol)
        if before is not None and bar.open_time <= before:
            return Difference(
                where, "order", f"{bar.symbol} {moment(bar.open_time)} after {moment(before)}", "time goes on"
            )
        last[bar.symbol] = bar.open_time
    return None


def happenings(journal: Journal, run_id: str) -> Iterator[tuple[int, BarBatch | SideEvent]]:
    """Batches, operator commands and the like of a run with their sequence numbers, in the order in which they were applied."""
    events = journal.read_events(run_id)
    position = 0
    for sequence, batch in journal.read_batches(run_id):
        while position < len(events) and events[position][0] < sequence:
            yield events[position]
            position += 1
        yield sequence, batch
    yield from events[position:]
