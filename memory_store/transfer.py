"""Banks as Parquet files: one row per entry, evicted ones too, so that an imported bank has the same past.

The file's metadata, under ``memory_store``, are JSON: the format of the export, the bank's name, encoder version and rules.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from memory_store.reading import load_bank, reading_rows
from memory_store.recollection_rows import ID_TYPE, WEIGHT_TYPE
from memory_store.records import BankConfig, BoolArray, MemoryBankError
from memory_store.registry import StoredBank, config_columns, config_from, create_bank, read_bank
from memory_store.ring import NEVER
from memory_store.rows import KEY_TYPE, read_entry_rows, read_settlements
from memory_store.schema import memory_entries, memory_recollections, memory_settlements
from memory_store.storage import insert_rows

EXPORT_FORMAT: Final = 2
_METADATA: Final = b"memory_store"
_ROWS_AT_ONCE: Final = 16_384


@dataclass(frozen=True, slots=True)
class Export:
    """What an export says about itself."""

    name: str
    encoder_version: str
    config: BankConfig
    entries: int
    """Rows, evicted entries included."""
    note: str = ""
    """What whoever exported it wanted to keep with it."""


def export_bank(
    connection: sa.Connection, bank_id: int, path: Path, *, note: str = "", rows_at_once: int = _ROWS_AT_ONCE
) -> Export:
    """Write a bank with all that it ever held into a Parquet file, whole or not at all; an older file is replaced.

    Columns: ``entry_id``, ``symbol``, ``bar_time``, ``key`` (a list of ``dimension`` floats), ``regime``, ``novelty``,
    ``written_time``, ``evicted_time``, ``outcomes`` and ``settled_times`` (lists with one place per horizon, empty where
    pending), and for entries whose decision remembered something ``recalled_at``, ``recalled_ids``,
    ``recalled_weights``. Times are milliseconds.

    Args:
        connection: to read from.
        bank_id: from ``create_bank``.
        path: of the file.
        note: kept with it, for whoever reads the export.
        rows_at_once: entries that are in memory at a time, and in one row group of the file.

    Raises:
        MemoryBankError: there is no such bank, a row is damaged, or the file cannot be written.
    """
    with reading_rows(connection, bank_id):
        stored = read_bank(connection, bank_id)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            count = _write_parts(unfinished, stored, note, _parts(connection, stored, rows_at_once))
            unfinished.replace(path)
        except OSError as problem:
            raise MemoryBankError(
                f"the export {path} could not be written: {problem.strerror or problem}; check the folder and the disk"
            ) from None
        finally:
            with suppress(OSError):
                unfinished.unlink()
    return Export(stored.name, stored.encoder_version, stored.config, count, note)


def read_export(path: Path) -> Export:
    """What an export says about itself.

    Raises:
        MemoryBankError: the file is none, or of a newer format.
    """
    with _opened(path) as file:
        return _described(path, file)


def import_bank(connection: sa.Connection, path: Path, *, name: str | None = None) -> int:
    """Make a new bank from an export, in the caller's transaction; returns its id.

    Args:
        connection: open, its transaction committed by the caller, and rolled back where this raises.
        path: from ``export_bank``.
        name: of the new bank; its old one if none is given.

    Raises:
        MemoryBankError: the file is no export, of a newer format, or damaged, or a bank of this name exists.
    """
    with _opened(path) as file:
        export = _described(path, file)
        bank_id = create_bank(connection, name or export.name, export.config, export.encoder_version)
        stored = read_bank(connection, bank_id)
        try:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                _insert_batch(connection, stored, batch)
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, sa.exc.IntegrityError) as problem:
            cause = str(problem.orig if isinstance(problem, sa.exc.IntegrityError) else problem).strip().splitlines()[0]
            raise MemoryBankError(f"the export {path} is damaged: {cause}; export the bank again") from None
    # Whatever it is that a file may hold, it becomes a bank only if it can be opened as one.
    load_bank(connection, bank_id, record_changes=False)
    return bank_id


def _schema(config: BankConfig) -> pa.Schema:
    horizons = len(config.horizons)
    return pa.schema(
        [
            pa.field("entry_id", pa.int64(), nullable=False),
            pa.field("symbol", pa.string(), nullable=False),
            pa.field("bar_time", pa.int64(), nullable=False),
            pa.field("key", pa.list_(pa.float32(), config.dimension), nullable=False),
            pa.field("regime", pa.int32(), nullable=False),
            pa.field("novelty", pa.float64(), nullable=False),
            pa.field("written_time", pa.int64(), nullable=False),
            pa.field("evicted_time", pa.int64()),
            pa.field("outcomes", pa.list_(pa.float64(), horizons), nullable=False),
            pa.field("settled_times", pa.list_(pa.int64(), horizons), nullable=False),
            pa.field("recalled_at", pa.int64()),
            pa.field("recalled_ids", pa.list_(pa.int64())),
            pa.field("recalled_weights", pa.list_(pa.float64())),
        ]
    )


def _parts(connection: sa.Connection, stored: StoredBank, rows_at_once: int) -> Iterator[pa.RecordBatch]:
    """The rows of a bank in the order of their ids."""
    entries, after = memory_entries.c, -1
    while True:
        mine = sa.and_(entries.bank_id == stored.bank_id, entries.entry_id > after)
        ids = sa.select(entries.entry_id).where(mine).order_by(entries.entry_id).limit(rows_at_once)
        last = connection.execute(sa.select(sa.func.max(ids.subquery().c.entry_id))).scalar()
        if last is None:
            return
        yield _part(connection, stored, sa.and_(mine, entries.entry_id <= last))
        after = last


def _part(connection: sa.Connection, stored: StoredBank, mine: sa.ColumnElement[bool]) -> pa.RecordBatch:
    """The entries that meet a condition."""
    entries, recollections = memory_entries.c, memory_recollections.c
    rows = read_entry_rows(connection, stored, mine)
    outcomes, settled_times = read_settlements(connection, stored, rows.ids)
    pending = settled_times == NEVER
    times = connection.execute(
        sa.select(entries.written_time, entries.evicted_time).where(mine).order_by(entries.entry_id)
    ).all()
    named = recollections.asker_id.between(int(rows.ids[0]), int(rows.ids[-1]))
    recalled = {
        row.asker_id: row
        for row in connection.execute(
            sa.select(memory_recollections).where(recollections.bank_id == stored.bank_id, named)
        )
    }
    asked = [recalled.get(entry_id) for entry_id in rows.ids.tolist()]
    columns = {
        "entry_id": rows.ids,
        "symbol": [rows.names[number] for number in rows.symbols.tolist()],
        "bar_time": rows.bar_times,
        "key": _lists(rows.keys, None),
        "regime": rows.regimes,
        "novelty": rows.novelties.astype(np.float64),
        "written_time": [row.written_time for row in times],
        "evicted_time": [row.evicted_time for row in times],
        "outcomes": _lists(outcomes, pending),
        "settled_times": _lists(settled_times, pending),
        "recalled_at": [None if row is None else row.as_of for row in asked],
        "recalled_ids": [None if row is None else np.frombuffer(row.ids, dtype=ID_TYPE) for row in asked],
        "recalled_weights": [None if row is None else np.frombuffer(row.weights, dtype=WEIGHT_TYPE) for row in asked],
    }
    schema = _schema(stored.config)
    return pa.RecordBatch.from_arrays(
        [
            each if isinstance(each, pa.Array) else pa.array(each, schema.field(name).type)
            for name, each in columns.items()
        ],
        schema=schema,
    )


def _lists(values: npt.NDArray[Any], empty: BoolArray | None) -> pa.Array:
    """Rows of a table as lists of one length."""
    flat = pa.array(values.reshape(-1), mask=None if empty is None else empty.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _write_parts(path: Path, stored: StoredBank, note: str, parts: Iterator[pa.RecordBatch]) -> int:
    """Write a file that is on the disk when this returns; returns how many rows it has."""
    described = {
        "format": EXPORT_FORMAT,
        "name": stored.name,
        "encoder_version": stored.encoder_version,
        "config": config_columns(stored.config),
        "note": note,
    }
    schema = _schema(stored.config).with_metadata({_METADATA: json.dumps(described).encode()})
    count = 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema) as writer:
            for part in parts:
                writer.write_batch(part)
                count += part.num_rows
        file.flush()
        os.fsync(file.fileno())
    return count


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise MemoryBankError(f"the export {path} is not there; check its name") from None
    except (pa.ArrowException, OSError) as problem:
        cause = str(problem).strip().splitlines()[0]
        raise MemoryBankError(f"{path} cannot be read as an export of a memory bank: {cause}") from None
    with file:
        yield file


def _described(path: Path, file: pq.ParquetFile) -> Export:
    metadata = file.schema_arrow.metadata or {}
    if _METADATA not in metadata:
        raise MemoryBankError(f"{path} is no export of a memory bank; make one from a bank first")
    try:
        described = json.loads(metadata[_METADATA])
        if described["format"] > EXPORT_FORMAT:
            raise MemoryBankError(
                f"the export {path} has format {described['format']}, this version knows {EXPORT_FORMAT}; update it"
            )
        config = config_from(SimpleNamespace(**{"sealed": 0, **described["config"]}))  # format 1 had no archives
        note = described.get("note", "")
        export = Export(described["name"], described["encoder_version"], config, file.metadata.num_rows, note)
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as problem:
        raise MemoryBankError(f"what the export {path} says about itself is damaged: {problem}") from None
    if not file.schema_arrow.equals(_schema(export.config), check_metadata=False):
        raise MemoryBankError(
            f"the export {path} has other columns than its format {EXPORT_FORMAT}; export the bank again"
        )
    return export


def _insert_batch(connection: sa.Connection, stored: StoredBank, batch: pa.RecordBatch) -> None:
    """Insert the rows of a part of an export.

    Raises:
        ValueError: a place is empty that must not be.
    """
    columns = {name: batch.column(name) for name in batch.schema.names}
    for field in _schema(stored.config):
        if not field.nullable and columns[field.name].null_count:
            raise ValueError(f"its column {field.name} has empty places")
    insert_rows(connection, memory_entries, list(_entry_rows(stored, columns)))
    insert_rows(connection, memory_settlements, list(_settlement_rows(stored, columns)))
    insert_rows(connection, memory_recollections, list(_recollection_rows(stored, columns)))


def _entry_rows(stored: StoredBank, columns: Mapping[str, pa.Array]) -> Iterator[tuple[Any, ...]]:
    names = ("entry_id", "symbol", "bar_time", "regime", "written_time", "evicted_time", "novelty")
    plain = zip(*(columns[name].to_pylist() for name in names), strict=True)
    numbers = columns["key"].flatten().to_numpy(zero_copy_only=False).astype(KEY_TYPE)
    keys = numbers.reshape(-1, stored.config.dimension)
    for key, (entry_id, symbol, bar_time, regime, written, evicted, novelty) in zip(keys, plain, strict=True):
        yield (
            stored.bank_id,
            entry_id,
            symbol,
            bar_time,
            key.tobytes(),
            regime,
            stored.encoder_version,
            written,
            evicted,
            novelty,
        )


def _settlement_rows(stored: StoredBank, columns: Mapping[str, pa.Array]) -> Iterator[tuple[Any, ...]]:
    ids, horizons = columns["entry_id"].to_pylist(), len(stored.config.horizons)
    outcomes, times = (columns[name].flatten().to_pylist() for name in ("outcomes", "settled_times"))
    for place, (outcome, time) in enumerate(zip(outcomes, times, strict=True)):
        if outcome is not None or time is not None:
            yield stored.bank_id, ids[place // horizons], place % horizons, outcome, time


def _recollection_rows(stored: StoredBank, columns: Mapping[str, pa.Array]) -> Iterator[tuple[Any, ...]]:
    names = ("entry_id", "recalled_at", "recalled_ids", "recalled_weights")
    for entry_id, asked_at, ids, weights in zip(*(columns[name] for name in names), strict=True):
        if asked_at.is_valid:
            if not (ids.is_valid and weights.is_valid):
                raise ValueError(f"entry {entry_id} remembered something that is not there")
            yield (
                stored.bank_id,
                entry_id.as_py(),
                asked_at.as_py(),
                ids.values.to_numpy().astype(ID_TYPE).tobytes(),
                weights.values.to_numpy().astype(WEIGHT_TYPE).tobytes(),
            )
