"""A run and its journal: whatever happens is applied to the engine and made durable before anything follows from it."""

from __future__ import annotations

import msgspec
import structlog

from bot.engine import Engine, EngineState, SimulatedEngine, Step
from bot.errors import StorageError
from bot.journal import Journal, StepRecord
from bot.journal.records import SideEvent
from bot.lifecycle.keeper import Arrival, ModelKeeper
from bot.lifecycle.preparation import Successor
from bot.market.batches import BarBatch
from bot.orders import Execution, ModelSwap, OperatorAction, OperatorCommand, OrderUpdate, Pruning, RuleChange
from bot.portfolio import ClosedTrade

log = structlog.get_logger()


class Run:
    """Applies what happens to an engine and makes it durable. Used from one thread only."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        run_id: str,
        *,
        bank_id: int | None,
        closed_trades: list[ClosedTrade],
        models: ModelKeeper | None = None,
    ) -> None:
        """
        Args:
            engine: warmed up, and restored where the run is resumed.
            journal: durable.
            run_id: a run that the journal knows.
            bank_id: the run's bank in the journal, for strategies with a memory.
            closed_trades: the list that the engine's ``on_trade`` appends to.
            models: keeps the run's model up to date, for strategies with a model.
        """
        self.engine = engine
        self.journal = journal
        self.run_id = run_id
        self.bank_id = bank_id
        self.models = models
        self._closed_trades = closed_trades
        self._sequence = 0
        self._misses_neighbours = False
        """Whether the memory's recall alarm is on, and has been told."""

    def resume(self) -> bool:
        """Take up the account, the working orders, protective levels and halts of the last step; False if there is none."""
        stored = self.journal.read_state(self.run_id)
        if stored is None:
            return False
        payload, self._sequence, _ = stored
        if isinstance(self.engine, SimulatedEngine) and self.engine.funding is not None:
            self.engine.funding.begin(self.journal.last_close(self.run_id))
        try:
            self.engine.restore(msgspec.json.decode(payload, type=EngineState))
        except msgspec.MsgspecError as problem:
            raise StorageError(
                f"the state of run {self.run_id} in the journal is damaged: {problem}; restore the journal or start a "
                "new run with --new"
            ) from None
        for _, event in self.journal.read_events(self.run_id):
            if isinstance(event, RuleChange):
                self.engine.apply([event])
        return True

    def decide(self, batch: BarBatch) -> Step:
        """Commands that wait, then fills, then decisions on one batch: one transaction, after one for models if need be."""
        waiting = self.journal.waiting_commands(self.run_id)
        self._apply_models(waiting)
        record = StepRecord()
        self._apply_commands(waiting, record)
        step = self.engine.step(batch)
        record.executions = [(self._next(), execution) for execution in step.executions]
        record.updates = step.updates
        record.batch = batch
        record.batch_sequence = self._next()
        for funding in self.engine.settle(batch.bars[0].close_time):
            record.events.append((self._next(), funding))
        record.decisions = step.decisions
        record.equity = step.decisions[0].equity
        bank = self.engine.core.strategy.bank
        if bank is not None:
            record.memory.append((batch.bars[0].close_time, bank.take_changes()))
        self._write(record)
        if self.models is not None:
            self.models.observe(batch.bars, [decision.signal for decision in step.decisions])
        self._watch_recall()
        return step

    @property
    def wants_rest(self) -> bool:
        """Whether there is something that ``rest`` would do."""
        return self.journal.wants_checkpoint

    def rest(self) -> None:
        """Do what no order has to wait for."""
        self.journal.checkpoint()

    def _watch_recall(self) -> None:
        """Say it when the memory's approximate index begins to miss too many true neighbours, and when it ceases to."""
        bank = self.engine.core.strategy.bank
        reading = None if bank is None else bank.recall
        alarm = reading is not None and reading.alarm
        if reading is not None and alarm != self._misses_neighbours:
            tell = log.warning if alarm else log.info
            tell(
                "the memory misses neighbours; an exact index finds all"
                if alarm
                else "the memory finds its neighbours",
                recall=reading.recall,
                worst=reading.worst,
                checks=reading.checks,
                queries=reading.queries,
            )
        self._misses_neighbours = alarm

    def apply_waiting(self, *events: SideEvent | Execution) -> bool:
        """Apply commands that wait and ``events``, between batches; returns whether there was anything."""
        waiting = self.journal.waiting_commands(self.run_id)
        changed = self._apply_models(waiting)
        record = StepRecord()
        self._apply_commands(waiting, record)
        for event in events:
            if isinstance(event, Execution):
                self.engine.apply([event])
                record.executions.append((self._next(), event))
            else:
                self._apply(event, record)
        if record.events or record.executions:
            self._write(record)
        return changed or bool(record.events)

    def _apply_commands(self, waiting: list[tuple[int, OperatorCommand]], record: StepRecord) -> None:
        """Apply commands, but for those that go on waiting until a model is ready."""
        for command_id, command in waiting:
            if command.action is OperatorAction.SWAP:
                continue
            if command.pruning is None:
                sequence = self._apply(command, record)
            else:
                sequence = self._prune(command, command.pruning, record)
            record.commands_applied.append((command_id, sequence))
            log.info("operator command applied", action=str(command.action), reason=command.reason)

    def _apply_models(self, waiting: list[tuple[int, OperatorCommand]]) -> bool:
        """Take in what has come of the work on models; returns whether there was anything."""
        if self.models is None:
            return False
        swaps = [(number, command) for number, command in waiting if command.action is OperatorAction.SWAP]
        arrival = self.models.arrival(self.engine.core.decisions_made, self._sequence, swaps)
        if arrival is not None:
            self.receive(arrival)
        return arrival is not None

    def receive(self, arrival: Arrival) -> None:
        """Take in what has come of the work on models, between batches, in a transaction of its own."""
        record = StepRecord()
        for event in arrival.events:
            sequence = self._apply(event, record)
        if arrival.successor is not None:
            sequence = self._swap(arrival.successor, record)
        if arrival.command_id is not None:
            record.commands_applied.append((arrival.command_id, sequence))
        self._write(record)

    def _swap(self, successor: Successor, record: StepRecord) -> int:
        """Let another model and its memory take over from the next batch on."""
        successor.catch_up()
        prepared = successor.prepared
        as_of = self.journal.last_close(self.run_id)
        self.engine.core.offer(successor.strategy)
        sequence = self._apply(
            ModelSwap(prepared.model_id, prepared.bank, prepared.digest, prepared.encoded_until, as_of), record
        )
        record.memory += successor.changes
        record.bank_id = self.bank_id = prepared.bank_id
        log.info("model swapped", model=prepared.model_id, memory=prepared.bank)
        return sequence

    def _apply(self, event: SideEvent, record: StepRecord) -> int:
        self.engine.apply([event])
        sequence = self._next()
        record.events.append((sequence, event))
        if isinstance(event, OrderUpdate):
            record.updates += (event,)
        return sequence

    def _prune(self, command: OperatorCommand, pruning: Pruning, record: StepRecord) -> int:
        """Prune as of the last close; what is evicted is gone from then on, so that it is written as of that time."""
        as_of = self.journal.last_close(self.run_id)
        pruning = msgspec.structs.replace(pruning, as_of=as_of)
        sequence = self._apply(msgspec.structs.replace(command, pruning=pruning), record)
        bank = self.engine.core.strategy.bank
        assert bank is not None
        record.memory.append((as_of, bank.take_changes()))
        return sequence

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _write(self, record: StepRecord) -> None:
        portfolio = self.engine.portfolio
        first = portfolio.trades_closed - len(self._closed_trades)
        record.trades = list(enumerate(self._closed_trades, start=first))
        self._closed_trades.clear()
        record.sequence = self._sequence
        record.trades_closed = portfolio.trades_closed
        record.state = msgspec.json.encode(self.engine.state())
        self.journal.write_step(self.run_id, record, bank_id=self.bank_id)
