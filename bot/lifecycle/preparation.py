"""The memory of a model that is going to take over: written by the background process, opened and caught up by the bot."""

from __future__ import annotations

from bot.assembly import build_strategy
from bot.banks.moments import bank_of
from bot.errors import StorageError
from bot.journal import Journal, StoredRun
from bot.lifecycle.banks import drop_orphan, hold_preparation, next_bank, write_bank
from bot.lifecycle.job import PreparedMemory
from bot.orders import BarBatch
from bot.session import Session, extended_history, reencode
from memory_store import BankChanges
from strategies.base import Strategy


def witness(strategy: Strategy, batch: BarBatch) -> tuple[int, BankChanges]:
    """Let a strategy remember a batch that another one decided on.

    Returns:
        Close of the batch, milliseconds, and what happened to the memory.
    """
    strategy.settle(batch.bars)
    strategy.remember(batch.bars)
    return batch.bars[0].close_time, bank_of(strategy).take_changes()


def prepare_memory(session: Session, journal: Journal, run: StoredRun, model_id: str) -> PreparedMemory:
    """Write the memory that another model makes of all bars that a run has seen until now.

    Args:
        session: of the run.
        journal: where the run is.
        run: the run; it may be going on.
        model_id: the other model.

    Raises:
        UsageError: the model cannot take over this run.
        StorageError: somebody else prepares one, or the database refuses.
    """
    run_id = run.record.run_id
    with hold_preparation(journal, run_id):
        drop_orphan(journal, run_id)
        state = journal.read_state(run_id)
        until = 0 if state is None else state[1]
        strategy, present = reencode(session, journal, run, model_id, until=until)
        bank, name = bank_of(strategy), next_bank(journal, run_id)
        bank_id = write_bank(journal, name, bank, at_time=present)
        journal.save_snapshot(bank_id, bank, session.home.snapshots)
    return PreparedMemory(model_id, name, bank_id, bank.digest(), until)


class Successor:
    """A model that has seen what the run has seen, and waits for its turn.

    Args:
        session: of the run.
        journal: where the run is.
        run: the run.
        prepared: its memory.

    Raises:
        StorageError: the memory in the journal is not the one that was written.
    """

    def __init__(self, session: Session, journal: Journal, run: StoredRun, prepared: PreparedMemory) -> None:
        self.prepared = prepared
        self.changes: list[tuple[int, BankChanges]] = []
        """What has happened to the memory since it was written, and when; see ``StepRecord.memory``."""
        self._journal = journal
        self._run_id = run.record.run_id
        self._shown = prepared.encoded_until
        bank = journal.open_bank(prepared.bank_id, session.home.snapshots).bank
        if bank.digest() != prepared.digest:
            raise StorageError(f"memory {prepared.bank} in the journal is not the one that was written; check the disk")
        self.strategy, _ = build_strategy(
            session.config, session.symbols, session.interval, session.home.models, model_id=prepared.model_id
        )
        self.strategy.attach_bank(bank)
        history = extended_history(session, journal, run, until=prepared.encoded_until)
        self.strategy.warm(history, remember=False)
        self.catch_up()

    def catch_up(self) -> None:
        """See the batches that the run has decided on since."""
        for sequence, batch in self._journal.read_batches(self._run_id, after=self._shown):
            self.changes.append(witness(self.strategy, batch))
            self._shown = sequence
