"""Rows of what a bank's decisions remembered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import sqlalchemy as sa

from memory_store.records import BoolArray, IntArray, MemoryBankError, Recollection, ScoreArray
from memory_store.registry import StoredBank
from memory_store.schema import memory_recollections, memory_settlements

ID_TYPE: Final = np.dtype("<i8")
"""Ids of neighbours as they are stored."""
WEIGHT_TYPE: Final = np.dtype("<f8")
"""Shares of neighbours as they are stored."""
_ROWS_AT_ONCE: Final = 2048


def read_recollections(connection: sa.Connection, bank_id: int, *, as_of: int | None = None) -> Iterator[Recollection]:
    """What the decisions of a bank remembered, in the order of their askers.

    Raises:
        MemoryBankError: a row is damaged.
    """
    for batch in _recollection_batches(connection, bank_id, as_of=as_of, after=-1):
        yield from batch.records(np.ones(len(batch.lengths), dtype=np.bool_))


def read_recollections_of(
    connection: sa.Connection, bank_id: int, held: IntArray, *, as_of: int | None = None, after: int = -1
) -> tuple[list[Recollection], IntArray]:
    """The recollections that matter to the entries held: that name one of them, or were asked for by one.

    Args:
        connection: to read from.
        bank_id: of the bank.
        held: ``[n]`` ids, increasing.
        as_of: leave out those of later decisions, milliseconds.
        after: leave out askers up to this id.

    Returns:
        Recollections in the order of their askers, and the ids that they name which are not held, increasing.
    """
    if not len(held):
        return [], held
    found: list[Recollection] = []
    gone = [np.empty(0, dtype=np.int64)]
    among = _Among(held)
    # An entry is only remembered by later ones, so who asked before the first that is held does not matter.
    for batch in _recollection_batches(connection, bank_id, as_of=as_of, after=max(after, int(held[0]) - 1)):
        known = among(batch.ids)
        askers = np.array(batch.askers, dtype=np.int64)
        asking = among(askers)
        wanted = np.logical_or.reduceat(known, np.cumsum(batch.lengths) - batch.lengths) | asking
        found.extend(batch.records(wanted))
        gone.append(np.unique(batch.ids[~known & np.repeat(wanted, batch.lengths)]))
        gone.append(askers[wanted & ~asking])
    return found, np.unique(np.concatenate(gone))


class _Among:
    """Which ids are among some that increase; prepared, because it is asked often."""

    def __init__(self, ids: IntArray) -> None:
        self._first = int(ids[0])
        self._table = np.zeros(int(ids[-1]) - self._first + 1, dtype=np.bool_)
        self._table[ids - self._first] = True

    def __call__(self, ids: IntArray) -> BoolArray:
        places = ids - self._first
        inside = (places >= 0) & (places < len(self._table))
        found: BoolArray = self._table[np.where(inside, places, 0)] & inside
        return found


def read_primary_outcomes(
    connection: sa.Connection, stored: StoredBank, ids: IntArray, *, as_of: int | None = None
) -> dict[int, float]:
    """Primary outcomes by entry, of those of some entries, ids increasing, that are known."""
    if not len(ids):
        return {}
    settlements = memory_settlements.c
    query = sa.select(settlements.entry_id, settlements.outcome).where(
        settlements.bank_id == stored.bank_id,
        settlements.horizon == stored.config.primary,
        settlements.entry_id.between(int(ids[0]), int(ids[-1])),
    )
    if as_of is not None:
        query = query.where(settlements.settled_time <= as_of)
    wanted = set(ids.tolist())
    return {entry_id: outcome for entry_id, outcome in connection.execute(query) if entry_id in wanted}


class _RecollectionBatch(NamedTuple):
    """Rows of ``memory_recollections``, neighbours one after the other."""

    askers: Sequence[int]
    times: Sequence[int]
    lengths: IntArray
    ids: IntArray
    weights: ScoreArray

    def records(self, wanted: BoolArray) -> Iterator[Recollection]:
        """The wanted ones, ``[n]``, as records."""
        last = np.cumsum(self.lengths)
        first = last - self.lengths
        for row in np.flatnonzero(wanted).tolist():
            mine = slice(first[row], last[row])
            yield Recollection(self.askers[row], self.times[row], self.ids[mine], self.weights[mine])


def _recollection_batches(
    connection: sa.Connection, bank_id: int, *, as_of: int | None, after: int
) -> Iterator[_RecollectionBatch]:
    recollections = memory_recollections.c
    query = sa.select(recollections.asker_id, recollections.as_of, recollections.ids, recollections.weights)
    query = query.where(recollections.bank_id == bank_id, recollections.asker_id > after)
    if as_of is not None:
        query = query.where(recollections.as_of <= as_of)
    for rows in connection.execute(query.order_by(recollections.asker_id)).partitions(_ROWS_AT_ONCE):
        askers, times, ids, weights = zip(*rows, strict=True)
        sizes = np.array([len(each) for each in ids], dtype=np.int64)
        damaged = (sizes == 0) | (sizes % ID_TYPE.itemsize != 0) | (sizes != [len(each) for each in weights])
        if damaged.any():
            raise MemoryBankError(
                f"the neighbours of entry {askers[int(np.argmax(damaged))]} of memory bank {bank_id} are damaged; restore "
                "the database"
            )
        yield _RecollectionBatch(
            askers,
            times,
            sizes // ID_TYPE.itemsize,
            np.frombuffer(b"".join(ids), dtype=ID_TYPE),
            np.frombuffer(b"".join(weights), dtype=WEIGHT_TYPE),
        )
