"""Rows of a bank's entries and outcomes as columns: an object for each of a quarter of a million would take ten seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from memory_store.records import BoolArray, IntArray, KeyArray, MemoryBankError, ScoreArray
from memory_store.registry import StoredBank
from memory_store.ring import NEVER
from memory_store.schema import memory_entries, memory_settlements

KEY_TYPE: Final = np.dtype("<f4")
"""Numbers of a key as they are stored."""
_ROWS_AT_ONCE: Final = 256
"""Few enough that Python's garbage collector sees no reason to run: with thousands it takes half of the time."""
_REGIMES: Final = np.iinfo(np.int32)


class EntryRows(NamedTuple):
    """Rows of ``memory_entries`` as columns, in the order of ids; names as in ``BankState``."""

    names: tuple[str, ...]
    ids: IntArray
    symbols: npt.NDArray[np.int32]
    bar_times: IntArray
    regimes: npt.NDArray[np.int32]
    keys: KeyArray
    novelties: KeyArray

    def only(self, kept: BoolArray) -> EntryRows:
        """Some of the rows, ``[n]``."""
        return EntryRows(
            self.names,
            self.ids[kept],
            self.symbols[kept],
            self.bar_times[kept],
            self.regimes[kept],
            self.keys[kept],
            self.novelties[kept],
        )


def held_condition(bank_id: int, as_of: int | None = None) -> sa.ColumnElement[bool]:
    """Which rows of ``memory_entries`` a bank holds, or held."""
    entries = memory_entries.c
    if as_of is None:
        return sa.and_(entries.bank_id == bank_id, entries.evicted_time.is_(None))
    staying = sa.or_(entries.evicted_time.is_(None), entries.evicted_time > as_of)
    return sa.and_(entries.bank_id == bank_id, entries.written_time <= as_of, staying)


def read_next_id(connection: sa.Connection, bank_id: int, *, as_of: int | None = None) -> int:
    """The id that the next entry gets."""
    highest = connection.execute(sa.select(sa.func.max(memory_entries.c.entry_id)).where(_written(bank_id, as_of)))
    found = highest.scalar()
    return 0 if found is None else int(found) + 1


def read_last_times(
    connection: sa.Connection, bank_id: int, *, as_of: int | None = None, from_id: int = 0
) -> dict[str, int]:
    """Latest bar time by symbol, evicted entries included, of the entries from an id on; milliseconds."""
    entries = memory_entries.c
    query = sa.select(entries.symbol, sa.func.max(entries.bar_time).label("latest")).where(_written(bank_id, as_of))
    if from_id:
        query = query.where(entries.entry_id >= from_id)
    return {row.symbol: row.latest for row in connection.execute(query.group_by(entries.symbol))}


def _written(bank_id: int, as_of: int | None) -> sa.ColumnElement[bool]:
    mine = memory_entries.c.bank_id == bank_id
    return mine if as_of is None else sa.and_(mine, memory_entries.c.written_time <= as_of)


def read_entry_rows(connection: sa.Connection, stored: StoredBank, condition: sa.ColumnElement[bool]) -> EntryRows:
    """Entries as columns.

    Raises:
        MemoryBankError: a key has another length, or an entry is of another encoder.
    """
    entries = memory_entries.c
    query = sa.select(
        entries.entry_id,
        entries.symbol,
        entries.bar_time,
        entries.key,
        entries.regime,
        entries.encoder_version,
        entries.novelty,
    )
    numbers: dict[str, int] = {}
    parts = [_no_entries(stored.config.dimension)]
    for rows in connection.execute(query.where(condition).order_by(entries.entry_id)).partitions(_ROWS_AT_ONCE):
        ids, symbols, bar_times, keys, regimes, versions, novelties = zip(*rows, strict=True)
        _check_rows(stored, ids, keys, regimes, versions)
        for symbol in dict.fromkeys(symbols):
            numbers.setdefault(symbol, len(numbers))
        parts.append(
            (
                np.array(ids, dtype=np.int64),
                np.array([numbers[symbol] for symbol in symbols], dtype=np.int32),
                np.array(bar_times, dtype=np.int64),
                np.array(regimes, dtype=np.int32),
                np.frombuffer(b"".join(keys), dtype=KEY_TYPE).reshape(len(ids), -1),
                np.array(novelties, dtype=np.float32),
            )
        )
    return EntryRows(tuple(numbers), *(np.concatenate(column) for column in zip(*parts, strict=True)))


def read_settlements(
    connection: sa.Connection,
    stored: StoredBank,
    ids: IntArray,
    *,
    as_of: int | None = None,
    among: sa.ColumnElement[bool] | None = None,
) -> tuple[ScoreArray, IntArray]:
    """Outcomes and when they became known, ``[n, horizons]``: nan and ``NEVER`` while pending.

    Args:
        connection: to read from.
        stored: the bank.
        ids: ``[n]`` entries, increasing.
        as_of: leave out what became known later, milliseconds.
        among: look these entries up one by one instead of reading all from the first to the last.

    Raises:
        MemoryBankError: an outcome is of a horizon that there is not.
    """
    shape = (len(ids), len(stored.config.horizons))
    outcomes, settled_times = np.full(shape, np.nan), np.full(shape, NEVER, dtype=np.int64)
    if not len(ids):
        return outcomes, settled_times
    settlements = memory_settlements.c
    query = sa.select(settlements.entry_id, settlements.horizon, settlements.outcome, settlements.settled_time).where(
        settlements.bank_id == stored.bank_id, settlements.entry_id.between(int(ids[0]), int(ids[-1]))
    )
    if as_of is not None:
        query = query.where(settlements.settled_time <= as_of)
    if among is not None:
        query = query.where(settlements.entry_id.in_(sa.select(memory_entries.c.entry_id).where(among)))
    for rows in connection.execute(query).partitions(_ROWS_AT_ONCE):
        columns = zip(*rows, strict=True)
        owners, horizons = (np.array(next(columns), dtype=np.int64) for _ in range(2))
        values, times = np.array(next(columns), dtype=np.float64), np.array(next(columns), dtype=np.int64)
        unknown = (horizons < 0) | (horizons >= shape[1])
        if unknown.any():
            raise MemoryBankError(
                f"entry {owners[unknown][0]} of memory bank {stored.bank_id} is damaged: it has an outcome over horizon "
                f"{horizons[unknown][0]} of {shape[1]}; restore the database"
            )
        places = np.minimum(np.searchsorted(ids, owners), len(ids) - 1)
        here = ids[places] == owners
        outcomes[places[here], horizons[here]] = values[here]
        settled_times[places[here], horizons[here]] = times[here]
    return outcomes, settled_times


def _check_rows(
    stored: StoredBank, ids: Sequence[int], keys: Sequence[bytes], regimes: Sequence[int], versions: Sequence[str]
) -> None:
    """Refuse rows that do not become columns."""
    size = stored.config.dimension * KEY_TYPE.itemsize
    for row, key in enumerate(keys):
        if len(key) != size:
            raise MemoryBankError(
                f"entry {ids[row]} of memory bank {stored.bank_id} is damaged: its key has {len(key)} bytes"
            )
    if set(versions) != {stored.encoder_version}:
        row = next(row for row, version in enumerate(versions) if version != stored.encoder_version)
        raise MemoryBankError(
            f"entry {ids[row]} was made by encoder {versions[row]!r}, not by {stored.encoder_version!r}; re-encode it "
            "from its candles"
        )
    if not _REGIMES.min <= min(regimes) <= max(regimes) <= _REGIMES.max:
        row = next(row for row, regime in enumerate(regimes) if not _REGIMES.min <= regime <= _REGIMES.max)
        raise MemoryBankError(f"entry {ids[row]} is damaged: its regime {regimes[row]} does not fit 32 bits")


def _no_entries(dimension: int) -> tuple[npt.NDArray[Any], ...]:
    """Columns without rows, so that there is always something of the right type to join."""
    types = (np.int64, np.int32, np.int64, np.int32, np.float32, np.float32)
    return tuple(np.empty((0, dimension) if place == 4 else 0, dtype=kind) for place, kind in enumerate(types))
