"""Reading the journal: runs, and all that they left, as it was written."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import sqlalchemy as sa

from bot.errors import UsageError
from bot.journal import schema
from bot.journal.database import Database, believed
from bot.journal.memories import StoredMemory, export_memory, read_memory
from bot.journal.outlooks import OutlookRecorder, Outlooks
from bot.journal.probes import ProbeRecord
from bot.journal.records import TRADING, RunKind, RunRecord, RunStatus, SideEvent, StoredRun
from bot.journal.rows import EVENT_TYPES
from bot.orders import BarBatch, Decision, Execution, ModelSwap, OperatorAction, OperatorCommand
from bot.portfolio import ClosedTrade
from memory_store import MemoryBank
from memory_store import storage as memory_storage
from memory_store.opening import OpenedBank, open_bank
from memory_store.registry import find_bank, list_banks, read_bank
from memory_store.statements import select_plain
from strategies.bars import Bar

if TYPE_CHECKING:
    from memory_store.transfer import Export

_ROWS_AT_ONCE: Final = 512
_WAITING: Final = (
    "SELECT command_id, action, reason, payload FROM commands WHERE run_id = ? AND sequence IS NULL ORDER BY command_id"
)


class JournalReader(Database):
    """The database of all runs, to read."""

    def find_run(self, run_id: str) -> StoredRun:
        """The run of that id; ``latest`` is the paper or live run last started or resumed, else the newest of all.

        Raises:
            UsageError: there is no such run.
        """
        query = sa.select(schema.runs)
        if run_id == "latest":
            order = sa.case((schema.runs.c.kind.in_(TRADING), 0), else_=1)
            newest = (
                column.desc() for column in (schema.runs.c.active_at, schema.runs.c.started_at, schema.runs.c.run_id)
            )
            query = query.where(schema.runs.c.kind != RunKind.MEMORY).order_by(order, *newest).limit(1)
        else:
            query = query.where(schema.runs.c.run_id == run_id)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            known = [run.record.run_id for run in self.list_runs(limit=3)]
            if not known:
                raise UsageError("there is no run in the journal yet; start one with recall paper or recall backtest")
            raise UsageError(f"run {run_id!r} is not in the journal; known runs are {', '.join(known)}")
        return _stored_run(row)

    def list_runs(self, *, kinds: Collection[RunKind] | None = None, limit: int = 50) -> list[StoredRun]:
        """All runs but standing memories, newest first, or those of some kinds."""
        query = sa.select(schema.runs).order_by(schema.runs.c.started_at.desc(), schema.runs.c.run_id.desc())
        chosen = schema.runs.c.kind != RunKind.MEMORY if kinds is None else schema.runs.c.kind.in_(kinds)
        query = query.where(chosen)
        with self._reading() as connection:
            return [_stored_run(row) for row in connection.execute(query.limit(limit)).mappings()]

    def read_state(self, run_id: str) -> tuple[bytes, int, int] | None:
        """The last state of a run, how many events it had applied, and how many trades it had closed."""
        query = sa.select(schema.states).where(schema.states.c.run_id == run_id)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else (row["payload"].encode(), row["sequence"], row["trades"])

    def read_bars(
        self, run_id: str, *, symbol: str | None = None, after: int | None = None, until: int | None = None
    ) -> list[Any]:
        """Bars of a run as rows, in the order in which they were applied.

        Args:
            run_id: of the run.
            symbol: only its bars.
            after: only those whose batch has a higher sequence number.
            until: only those whose batch has this sequence number or a lower one.
        """
        query = sa.select(schema.bars).where(schema.bars.c.run_id == run_id)
        if after is not None:
            query = query.where(schema.bars.c.sequence > after)
        if until is not None:
            query = query.where(schema.bars.c.sequence <= until)
        if symbol is not None:
            query = query.where(schema.bars.c.symbol == symbol)
        with self._reading() as connection:
            return list(connection.execute(query.order_by(schema.bars.c.sequence, schema.bars.c.position)).mappings())

    def read_batches(self, run_id: str, *, after: int = 0) -> Iterator[tuple[int, BarBatch]]:
        """Batches of bars of a run with their sequence numbers, in the order in which they were applied.

        Args:
            run_id: of the run.
            after: only those with a higher sequence number.
        """
        names = Bar.__struct_fields__
        together: list[Any] = []
        for row in [*self.read_bars(run_id, after=after), None]:
            if together and (row is None or row["sequence"] != together[0]["sequence"]):
                bars = tuple(Bar(*(each[name] for name in names)) for each in together)
                yield together[0]["sequence"], BarBatch(bars, tuple(bool(each["late"]) for each in together))
                together = []
            if row is not None:
                together.append(row)

    def last_close(self, run_id: str) -> int:
        """Close of the newest bar that a run has decided on, else was warmed from, milliseconds.

        Raises:
            UsageError: there is no such run.
        """
        query = sa.select(sa.func.max(schema.bars.c.close_time)).where(schema.bars.c.run_id == run_id)
        with self._reading() as connection:
            newest = connection.execute(query).scalar_one()
        return self.find_run(run_id).record.warmed_until if newest is None else int(newest)

    def read_executions(self, run_id: str) -> list[tuple[int, Execution]]:
        """All fills of a run with their sequence numbers, in the order in which they were applied.

        Raises:
            StorageError: a row holds what no fill can hold.
        """
        query = sa.select(schema.executions).where(schema.executions.c.run_id == run_id)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(schema.executions.c.sequence)).mappings().all()
        fields = Execution.__struct_fields__
        with believed(f"a fill of run {run_id}"):
            return [
                (
                    row["sequence"],
                    msgspec.convert(
                        {name: row[name] for name in fields if row[name] is not None}, Execution, strict=False
                    ),
                )
                for row in rows
            ]

    def read_decisions(self, run_id: str, *, after: int = -1, limit: int | None = None) -> list[tuple[int, Decision]]:
        """Decisions of a run with the sequence numbers of their batches, in order, from number ``after + 1`` on.

        Raises:
            StorageError: a row holds what no decision can hold; so do the readers below.
        """
        query = (
            sa.select(schema.decisions.c.sequence, schema.decisions.c.payload)
            .where(schema.decisions.c.run_id == run_id, schema.decisions.c.number > after)
            .order_by(schema.decisions.c.number)
        )
        with self._reading() as connection:
            rows = connection.execute(query if limit is None else query.limit(limit)).all()
        with believed(f"a decision of run {run_id}"):
            return [(sequence, msgspec.json.decode(payload, type=Decision)) for sequence, payload in rows]

    def count_decided(self, run_id: str, *, until: int) -> int:
        """How many bars a run had decided on when the event of that number was applied."""
        bars = schema.bars.c
        query = sa.select(sa.func.count()).where(bars.run_id == run_id, bars.sequence <= until)
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def read_events(self, run_id: str) -> list[tuple[int, SideEvent]]:
        """Operator commands and the like of a run, in order."""
        query = sa.select(schema.events).where(schema.events.c.run_id == run_id).order_by(schema.events.c.sequence)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        with believed(f"an event of run {run_id}"):
            return [
                (row["sequence"], msgspec.json.decode(row["payload"], type=EVENT_TYPES[row["kind"]])) for row in rows
            ]

    def read_swaps(self, run_id: str) -> list[tuple[int, ModelSwap]]:
        """The swaps of a run's model with their sequence numbers, in order."""
        return [(sequence, event) for sequence, event in self.read_events(run_id) if isinstance(event, ModelSwap)]

    def model_of(self, run: StoredRun) -> str:
        """The model that a run decides with now, which is also the one that its memory belongs to; empty without any."""
        if not run.record.model_id or run.bank_id is None:
            return run.record.model_id
        with self._reading() as connection:
            return read_bank(connection, run.bank_id).encoder_version

    def find_bank(self, name: str) -> int | None:
        """Id of the memory of a name, if there is one."""
        with self._reading() as connection:
            return find_bank(connection, name)

    def read_trades(self, run_id: str) -> list[ClosedTrade]:
        """Closed round trips of a run, in order."""
        query = sa.select(schema.trades.c.payload).where(schema.trades.c.run_id == run_id)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(schema.trades.c.number)).scalars().all()
        with believed(f"a trade of run {run_id}"):
            return [msgspec.json.decode(payload, type=ClosedTrade) for payload in rows]

    def read_equity(self, run_id: str) -> list[tuple[int, float]]:
        """Equity of a run by time."""
        query = sa.select(schema.equity.c.time, schema.equity.c.equity).where(schema.equity.c.run_id == run_id)
        with self._reading() as connection:
            return [(at, value) for at, value in connection.execute(query.order_by(schema.equity.c.time))]

    def read_outlooks(self, run_id: str) -> Outlooks | None:
        """What memory and model expected at the decisions of a run; ``None`` where no decision explained itself.

        A replay wrote them down; of other runs, and of replays that kept their decisions only, they come from these.

        Raises:
            StorageError: a row holds what it cannot hold.
        """
        query = sa.select(schema.outlooks.c.payload).where(schema.outlooks.c.run_id == run_id)
        with self._reading() as connection:
            packed = connection.execute(query).scalar()
        if packed is not None:
            with believed(f"what run {run_id} expected"):
                return Outlooks.from_bytes(packed)
        bank_id = self.find_run(run_id).bank_id
        if bank_id is None:
            return None
        with self._reading() as connection:
            bank = read_bank(connection, bank_id).config
        recorder = OutlookRecorder(bank.horizons[bank.primary])
        with believed(f"a decision of run {run_id}"):
            for row in self.read_rows(schema.decisions, run_id=run_id):
                recorder.add(msgspec.json.decode(row["payload"], type=Decision).signal)
        return recorder.outlooks()

    def find_probe(self, settings: str) -> ProbeRecord | None:
        """The last lookahead probe of these settings; see ``probed_settings``."""
        query = sa.select(schema.probes.c.payload).where(schema.probes.c.settings == settings)
        with self._reading() as connection:
            payload = connection.execute(query.order_by(schema.probes.c.probe_id.desc()).limit(1)).scalar()
        with believed("a probe"):
            return None if payload is None else msgspec.json.decode(payload, type=ProbeRecord)

    def read_rows(self, table: sa.Table, **owner: object) -> Iterator[sa.RowMapping]:
        """Rows of any table as they are, in the order of their primary key, fetched as they are asked for.

        Args:
            table: of the journal or of the memory.
            owner: columns and the values that they must have, such as ``run_id``.
        """
        query = sa.select(table).filter_by(**owner).order_by(*table.primary_key)
        with self._reading() as connection:
            yield from connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE}).mappings()

    @contextmanager
    def snapshot(self) -> Iterator[Self]:
        """The journal to read as it is now: what a running bot writes meanwhile is not seen."""
        with self._reading() as connection:
            if self.url.get_backend_name() == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            frozen = copy(self)
            frozen._pinned = connection
            yield frozen

    def count(self, run_id: str, table: str) -> int:
        """How many rows a run has in one of the tables ``bars``, ``decisions``, ``executions`` or ``orders``."""
        rows = schema.metadata.tables[table]
        with self._reading() as connection:
            found = connection.execute(sa.select(sa.func.count()).where(rows.c.run_id == run_id)).scalar_one()
        return int(found)

    def load_bank(self, bank_id: int, *, as_of: int | None = None) -> MemoryBank:
        """A run's memory as it was when the last step was written, or after a time on the clock of its bars."""
        with self._reading() as connection:
            return memory_storage.load_bank(connection, bank_id, as_of=as_of)

    def open_bank(self, bank_id: int, snapshots: Path) -> OpenedBank:
        """A run's memory as it was when the last step was written, from its snapshot in a folder if that is any good."""
        with self._reading() as connection:
            return open_bank(connection, bank_id, snapshots)

    def list_memories(self) -> list[StoredMemory]:
        """All memories in the order in which they were made, with what their rows say."""
        with self._reading() as connection:
            return [read_memory(connection, bank.bank_id) for bank in list_banks(connection)]

    def read_memory(self, bank_id: int) -> StoredMemory:
        """What the rows of one memory say."""
        with self._reading() as connection:
            return read_memory(connection, bank_id)

    def export_memory(self, run: StoredRun, path: Path) -> Export:
        """Write the memory of a run or a standing bank into a Parquet file, with the record of how it was made.

        Raises:
            MemoryBankError: the file cannot be written.
        """
        assert run.bank_id is not None
        record = msgspec.structs.replace(run.record, model_id=self.model_of(run))
        with self._reading() as connection:
            return export_memory(connection, record, run.bank_id, path)

    def waiting_commands(self, run_id: str) -> list[tuple[int, OperatorCommand]]:
        """Commands that the bot has not applied yet, oldest first; asked for before every step, by whoever writes them."""
        with self._stepping() as connection:
            rows = select_plain(connection, _WAITING, run_id)
        with believed(f"a command to run {run_id}"):
            return [(number, _command(*rest)) for number, *rest in rows]


def _command(action: str, reason: str, payload: str | None) -> OperatorCommand:
    if payload is None:
        return OperatorCommand(OperatorAction(action), reason)
    return msgspec.json.decode(payload, type=OperatorCommand)


def _stored_run(row: Any) -> StoredRun:
    with believed(f"the record of run {row['run_id']}"):
        return StoredRun(
            record=msgspec.json.decode(row["record"], type=RunRecord),
            status=RunStatus(row["status"]),
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            bank_id=row["bank_id"],
            summary=None if row["summary"] is None else json.loads(row["summary"]),
        )
