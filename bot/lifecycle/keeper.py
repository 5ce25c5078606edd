"""Keeps the model of a paper run up to date: starts what is due, and says when a successor may take over.

Used from the thread that decides, between two batches, and never waits: the work is done by a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import structlog

from bot.config import Config
from bot.journal import Journal, StoredRun
from bot.journal.records import SideEvent
from bot.lifecycle.background import Background, Finished
from bot.lifecycle.drift import DriftAlarm
from bot.lifecycle.job import Job, Progress
from bot.lifecycle.preparation import Successor
from bot.orders import OperatorCommand, Retraining, RetrainingTrigger, RetrainingVerdict
from bot.session import Session
from strategies.bars import Bar
from strategies.base import Signal, Strategy

if TYPE_CHECKING:
    from strategies.memory_transformer.strategy import MemoryTransformerStrategy

log = structlog.get_logger()

_DECISIONS_AT_ONCE: Final = 512


class Arrival(NamedTuple):
    """What has come of the work in the background, to be made an event."""

    events: tuple[SideEvent, ...] = ()
    """What there is to tell, or the refusal of a command."""
    successor: Successor | None = None
    """Takes over after these."""
    command_id: int | None = None
    """The operator's command that the last of all this answers."""


class ModelKeeper:
    """Decides what the background process does.

    Args:
        config: of the bot; ``retraining`` says when.
        session: of the run, its models those of the configuration's home.
        journal: where the run is.
        run: the run, as it was when it was begun or taken up again.
    """

    def __init__(self, config: Config, session: Session, journal: Journal, run: StoredRun) -> None:
        self._config = config
        self._background = Background(session, journal, run)
        self._run_id = run.record.run_id
        self._model_id = journal.model_of(run)
        self._symbols = len(session.symbols)
        self._command: tuple[int, OperatorCommand] | None = None
        """The command that is being carried out."""
        self._last_due = max(
            (event.due for _, event in journal.read_events(self._run_id) if isinstance(event, Retraining)), default=0
        )
        self._decided = 0
        """Bars that the run has decided on, of all symbols."""
        self._has_drifted = False
        self._alarm: DriftAlarm | None = None
        if config.retraining.on_drift:
            self._alarm = self._alarm_of(session.strategy)
            self._show_past(journal)

    @property
    def progress(self) -> Progress | None:
        """Where the work in the background stands; ``None`` where there is none."""
        return self._background.progress

    def observe(self, bars: Sequence[Bar], signals: Sequence[Signal]) -> None:
        """See what the run has decided on a batch."""
        self._decided += len(bars)
        if self._alarm is not None and self._alarm.observe(bars, signals):
            self._has_drifted = self._decided // self._symbols > self._last_due

    @property
    def drift_evidence(self) -> float | None:
        """How far the drift alarm has risen; ``None`` where it is off."""
        return None if self._alarm is None else self._alarm.evidence

    def close(self) -> None:
        """End the work in the background."""
        self._background.close()

    def arrival(self, decisions: int, sequence: int, waiting: Sequence[tuple[int, OperatorCommand]]) -> Arrival | None:
        """Start what is due; what has come of earlier work, once.

        Args:
            decisions: that the run has made so far.
            sequence: number of the last event applied.
            waiting: commands to swap that are not answered yet, oldest first.
        """
        finished = self._background.collect()
        if finished is not None:
            return self._arrived(finished)
        if not self._background.is_busy:
            self._start(decisions // self._symbols, sequence, waiting)
        elif waiting and self._command is None:
            # A person is served first; what is due stays due.
            self._background.abandon()
        return None

    def _start(self, bars: int, sequence: int, waiting: Sequence[tuple[int, OperatorCommand]]) -> None:
        every = self._config.retraining.every_bars
        if waiting:
            self._command = waiting[0]
            self._background.start(self._job(model_id=self._command[1].model_id))
        elif every and bars // every > self._last_due // every:
            log.info("retraining", bars=bars, trigger="schedule")
            self._background.start(self._job(due=bars, until=sequence))
        elif self._has_drifted:
            log.info("retraining", bars=bars, trigger="drift")
            self._background.start(self._job(due=bars, until=sequence, trigger=RetrainingTrigger.DRIFT))

    def _job(self, **rest: Any) -> Job:
        return Job(self._config.model_dump(mode="json"), self._run_id, **rest)

    def _arrived(self, finished: Finished) -> Arrival:
        job, outcome = finished.job, finished.outcome
        command, self._command = self._command, None
        if finished.successor is not None:
            self._model_id = finished.successor.prepared.model_id
            if self._alarm is not None:
                self._alarm = self._alarm_of(finished.successor.strategy)
        if command is not None:
            if finished.successor is None:
                refused = OperatorCommand(command[1].action, f"refused: {outcome.problem}", model_id=job.model_id)
                log.warning("model not swapped", model=job.model_id, reason=outcome.problem)
                return Arrival((refused,), command_id=command[0])
            return Arrival(successor=finished.successor, command_id=command[0])
        self._last_due, self._has_drifted = job.due, False
        told = outcome.retraining
        if outcome.problem:
            told = Retraining(job.due, job.trigger, RetrainingVerdict.FAILED, self._model_id, reason=outcome.problem)
        assert told is not None
        log.info(
            "retrained",
            verdict=str(told.verdict),
            running=told.running,
            candidate=told.candidate,
            running_loss=told.running_loss,
            candidate_loss=told.candidate_loss,
            standard_error=told.standard_error,
            reason=told.reason,
        )
        return Arrival((told,), finished.successor)

    def _alarm_of(self, strategy: Strategy) -> DriftAlarm:
        bundle = cast("MemoryTransformerStrategy", strategy).bundle
        settings, costs = self._config.retraining, self._config.costs
        return DriftAlarm(
            bundle.config, bundle.interval, cost=float(costs.taker_fee), threshold=settings.drift_threshold
        )

    def _show_past(self, journal: Journal) -> None:
        """Show the alarm what the running model has decided so far."""
        swaps = journal.read_swaps(self._run_id)
        since = swaps[-1][0] if swaps else 0
        self._decided = journal.count_decided(self._run_id, until=since)
        decisions = _decisions(journal, self._run_id, self._decided)
        for _, batch in journal.read_batches(self._run_id, after=since):
            self.observe(batch.bars, list(islice(decisions, len(batch.bars))))


def _decisions(journal: Journal, run_id: str, first: int) -> Iterator[Signal]:
    """Signals of a run in order, from a number on."""
    while found := journal.read_decisions(run_id, after=first - 1, limit=_DECISIONS_AT_ONCE):
        yield from (decision.signal for _, decision in found)
        first += len(found)
