"""Writing the journal.

Synchronous SQLAlchemy Core: one transaction per step. The paper daemon calls it from one dedicated thread, which was
measured to be several times faster than the asynchronous engine for single-row commits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from bot.garbage import rare_collections
from bot.journal import schema
from bot.journal.holding import hold_run
from bot.journal.memories import import_memory, insert_memory, prune_memory, refuse_taken
from bot.journal.outlooks import Outlooks
from bot.journal.probes import ProbeRecord
from bot.journal.reading import JournalReader
from bot.journal.records import RunRecord, RunStatus, StepRecord
from bot.journal.rows import insert_equity, insert_step
from bot.orders import Decision, Execution, Funding, OperatorCommand, OrderUpdate
from bot.portfolio import ClosedTrade
from memory_store import BankChanges, MemoryBank
from memory_store import storage as memory_storage
from memory_store.locking import hold_bank
from memory_store.opening import save_snapshot
from memory_store.pruning import PruneRule

_STEPS_PER_CHECKPOINT: Final = 32
"""Of one symbol they make about as many pages as SQLite by itself would let gather."""


class Journal(JournalReader):
    """The database of all runs."""

    _steps_in_log = 0

    def create_run(self, record: RunRecord, *, bank: MemoryBank | None = None) -> int | None:
        """Begin a run; with ``bank`` also store its memory as it is now. Returns the id of the bank."""
        bank_id: int | None = None
        with self._transaction() as connection:
            if bank is not None:
                bank_id = memory_storage.create_bank(connection, record.run_id, bank.config, bank.encoder_version)
                changes = bank.take_changes()
                memory_storage.write_changes(connection, bank_id, changes, at_time=record.warmed_until)
            connection.execute(
                schema.runs.insert().values(
                    run_id=record.run_id,
                    kind=record.kind,
                    status=RunStatus.RUNNING,
                    started_at=record.started_at,
                    active_at=_now(),
                    record=msgspec.json.encode(record).decode(),
                    bank_id=bank_id,
                )
            )
        return bank_id

    def refuse_taken(self, name: str) -> None:
        """Make sure that a standing bank may have a name.

        Raises:
            UsageError: there is a run or a bank of that name.
        """
        with self._reading() as connection:
            refuse_taken(connection, name)

    def create_memory(
        self, record: RunRecord, bank: MemoryBank, *, progress: Callable[[int], None] | None = None
    ) -> int:
        """Store a standing bank as it is now, named by its record: all of it, or nothing. Returns its id.

        Args:
            record: of the kind ``MEMORY``.
            bank: its entries must not change meanwhile.
            progress: told how many entries are written.

        Raises:
            UsageError: its name is taken.
        """
        with self._transaction() as connection:
            return insert_memory(connection, record, bank, progress)

    def begin_bank(self, name: str, bank: MemoryBank) -> int:
        """Register an empty bank with the rules of another one, to be filled piece by piece; returns its id.

        Raises:
            MemoryBankError: the name is taken.
        """
        with self._transaction() as connection:
            return memory_storage.create_bank(connection, name, bank.config, bank.encoder_version)

    def extend_bank(self, bank_id: int, changes: BankChanges, *, at_time: int) -> None:
        """Write one piece of a bank that no run has yet, in a transaction of its own."""
        with self._transaction() as connection:
            memory_storage.write_changes(connection, bank_id, changes, at_time=at_time)

    def save_snapshot(self, bank_id: int, bank: MemoryBank, snapshots: Path) -> None:
        """Keep what a bank holds, all of which is written, so that it opens fast.

        Raises:
            MemoryBankError: the file cannot be written.
        """
        with self._reading() as connection:
            save_snapshot(connection, bank_id, bank, snapshots)

    def drop_bank(self, bank_id: int, *, at_once: int) -> None:
        """Remove a bank that no run has, some thousand entries at a time so that others can write in between."""
        left = True
        while left:
            with self._transaction() as connection:
                left = memory_storage.drop_entries(connection, bank_id, at_once)

    def write_step(self, run_id: str, step: StepRecord, *, bank_id: int | None = None) -> None:
        """Make one step durable: all of it, or nothing.

        Raises:
            StorageError: the database refused, for example because the disk is full; nothing of the step was written.
        """
        with self._stepping() as connection:
            insert_step(connection, run_id, step)
            if bank_id is not None:
                for at_time, changes in step.memory:
                    memory_storage.write_changes(connection, bank_id, changes, at_time=at_time)
        self._steps_in_log += 1

    @property
    def wants_checkpoint(self) -> bool:
        """Whether enough steps have been written since the last ``checkpoint``."""
        return self._steps_in_log >= _STEPS_PER_CHECKPOINT

    def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into the database: between two steps, as it takes several syncs of the disk.

        Left to itself, SQLite does it in a commit, and an order waits. Nobody is kept from reading or writing meanwhile
        (https://www.sqlite.org/pragma.html#pragma_wal_checkpoint).

        Raises:
            StorageError: the disk is full, for example; what was written is safe in the log.
        """
        self._steps_in_log = 0
        if self.url.get_backend_name() == "sqlite":
            with self._reading() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def write_replay(
        self,
        record: RunRecord,
        summary: dict[str, Any],
        *,
        decisions: Sequence[Decision],
        executions: Sequence[Execution],
        trades: Sequence[ClosedTrade],
        equity: Sequence[tuple[int, float]],
        updates: Sequence[OrderUpdate] = (),
        fundings: Sequence[Funding] = (),
        keep_decisions: bool = True,
        outlooks: Outlooks | None = None,
    ) -> None:
        """Store a finished replay: its summary, orders, fills, funding, trades and equity; the decisions themselves if they
        are wanted, and what they were expecting where the strategy explains itself. What it stores is numbered by kind."""
        step = StepRecord(
            executions=list(enumerate(executions)),
            updates=tuple(updates),
            decisions=tuple(decisions),
            trades=list(enumerate(trades)),
            events=list(enumerate(fundings)),
        )
        with rare_collections(), self._transaction() as connection:
            connection.execute(
                schema.runs.insert().values(
                    run_id=record.run_id,
                    kind=record.kind,
                    status=RunStatus.FINISHED,
                    started_at=record.started_at,
                    active_at=_now(),
                    ended_at=_now(),
                    record=msgspec.json.encode(record).decode(),
                    summary=json.dumps(summary),
                )
            )
            insert_step(connection, record.run_id, step, keep_decisions=keep_decisions)
            insert_equity(connection, record.run_id, equity)
            if outlooks is not None and len(outlooks):
                connection.execute(schema.outlooks.insert().values(run_id=record.run_id, payload=outlooks.to_bytes()))

    def write_probe(self, settings: str, probe: ProbeRecord) -> None:
        """Note what a lookahead probe of these settings found; see ``probed_settings``."""
        payload = msgspec.json.encode(probe).decode()
        with self._transaction() as connection:
            connection.execute(schema.probes.insert().values(settings=settings, payload=payload))

    def end_run(self, run_id: str, status: RunStatus, summary: dict[str, Any] | None = None) -> None:
        """Note how a run ended."""
        with self._transaction() as connection:
            connection.execute(
                schema.runs.update()
                .where(schema.runs.c.run_id == run_id)
                .values(status=status, ended_at=_now(), summary=None if summary is None else json.dumps(summary))
            )

    def resume_run(self, run_id: str) -> None:
        """Note that a run goes on."""
        with self._transaction() as connection:
            connection.execute(
                schema.runs.update()
                .where(schema.runs.c.run_id == run_id)
                .values(status=RunStatus.RUNNING, active_at=_now(), ended_at=None)
            )

    @contextmanager
    def hold_run(self, run_id: str) -> Iterator[None]:
        """Keep a run to this process for as long as the context lasts; a process that dies lets go of it.

        On SQLite the lock is a file beside the database, on PostgreSQL it belongs to a session of its own
        (https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS). A database in memory has no other
        users. The run need not be in the journal yet.

        Raises:
            UsageError: another process holds it.
            StorageError: the file cannot be made.
        """
        with hold_run(self.engine, run_id):
            yield

    def import_memory(self, record: RunRecord, path: Path) -> int:
        """Make a standing bank from an export: all of it, or nothing. Returns its id.

        Raises:
            UsageError: its name is taken.
            MemoryBankError: the file is no export, or damaged.
        """
        with self._transaction() as connection:
            return import_memory(connection, record, path)

    def prune_memory(self, bank_id: int, rule: PruneRule, *, as_of: int) -> tuple[int, ...]:
        """Evict what a rule names from a standing bank; returns the ids.

        Args:
            bank_id: of a bank that belongs to no run: the memory of a run follows from its events alone.
            rule: what to evict.
            as_of: the present on the clock of its bars, milliseconds.

        Raises:
            MemoryBankError: another process writes to the bank.
        """
        with hold_bank(self.engine, bank_id), self._transaction() as connection:
            return prune_memory(connection, bank_id, rule, as_of)

    def issue_command(self, run_id: str, command: OperatorCommand) -> int:
        """Leave a command for a running bot; returns its id."""
        with self._transaction() as connection:
            result = connection.execute(
                schema.commands.insert().values(
                    run_id=run_id,
                    action=command.action,
                    reason=command.reason,
                    issued_at=_now(),
                    payload=msgspec.json.encode(command).decode(),
                )
            )
            key = result.inserted_primary_key
            assert key is not None
            return int(key[0])


def _now() -> int:
    return time.time_ns() // 1_000_000
