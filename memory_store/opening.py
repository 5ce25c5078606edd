"""Opening a bank fast: its snapshot, and from the database only what was written since.

The database is the truth. A snapshot is used if it can be an earlier state of the bank: what it holds and the database does
not is refused, recent entries and a sample of old ones are compared with their rows to the last bit. Else the bank is
rebuilt from its rows, and ``OpenedBank`` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from memory_store.array_file import UnusableFile
from memory_store.bank import MemoryBank
from memory_store.columns import joined, only
from memory_store.reading import load_unsealed, read_state, reading_rows
from memory_store.recollection_rows import read_primary_outcomes, read_recollections_of
from memory_store.records import IntArray, MemoryBankError
from memory_store.registry import StoredBank, read_bank
from memory_store.restoration import BankState
from memory_store.ring import NEVER
from memory_store.rows import held_condition, read_entry_rows, read_next_id, read_settlements
from memory_store.schema import memory_entries, memory_recollections, memory_settlements
from memory_store.segment_files import SegmentFolder, open_archive
from memory_store.snapshot import Past, Snapshot, read_snapshot, snapshot_path, write_snapshot

_RECENT: Final = 1024
"""So many entries before the first pending one are compared with their rows: a snapshot that is ahead is so there."""
_SAMPLE: Final = 32
"""So many of all entries, evenly spaced."""
_TURN: Final = 2**31
"""Times are added up by what is left of them after so many milliseconds, so that sums fit 64 bits."""
_LOOKED_UP: Final = 1024
"""Entries whose outcomes are looked up by one statement."""
_REFRESHED_AFTER: Final = 0.05
"""Share of the entries that were written since, from which on a new snapshot pays."""


@dataclass(frozen=True, slots=True)
class OpenedBank:
    """A bank, and how it was opened."""

    bank: MemoryBank
    rebuilt: str | None
    """Why the snapshot was not used, as a clause about it; ``None`` where it was."""
    entries_since: int
    """Entries held that were read from the database."""
    unsaved: str | None = None
    """Why no new snapshot could be written where one was due; the bank is none the worse for it."""
    sealed_again: int = 0
    """Sealed segments that were made again from their rows."""


def open_bank(
    connection: sa.Connection, bank_id: int, folder: Path, *, record_changes: bool = True, refresh: bool = True
) -> OpenedBank:
    """A bank as its last transaction left it, from its snapshot if that is any good.

    Args:
        connection: as for ``load_bank``; what its own transaction has written is not for a snapshot, commit it before.
        bank_id: from ``create_bank``.
        folder: where snapshots are kept.
        record_changes: as for ``MemoryBank``.
        refresh: write a new snapshot where this one was not used or is getting old.

    Raises:
        MemoryBankError: there is no such bank, or its rows are damaged.
    """
    with reading_rows(connection, bank_id):
        stored = read_bank(connection, bank_id)
        path = snapshot_path(folder, stored.name)
        try:
            opened = _from_snapshot(connection, stored, read_snapshot(path, stored), record_changes=record_changes)
        except UnusableFile as problem:
            bank = load_unsealed(connection, stored, record_changes=record_changes)
            opened = OpenedBank(bank, str(problem), len(bank))
        if refresh and opened.entries_since > _REFRESHED_AFTER * len(opened.bank):
            try:
                write_snapshot(path, stored, _snapshot_of(connection, stored, opened.bank))
            except MemoryBankError as problem:
                opened = replace(opened, unsaved=str(problem))
        if stored.config.sealed:
            files = SegmentFolder(folder, stored)
            next_id = opened.bank.next_id
            archive, made_again = open_archive(connection, stored, files, next_id=next_id, refresh=refresh)
            opened.bank.restore_archive(archive)
            opened = replace(opened, sealed_again=made_again, unsaved=opened.unsaved or files.unsaved)
    return opened


def save_snapshot(connection: sa.Connection, bank_id: int, bank: MemoryBank, folder: Path) -> Path:
    """Keep what a bank holds, all of which must be committed to the database; returns the file.

    Raises:
        MemoryBankError: the bank holds other entries than its rows say, or the file cannot be written.
    """
    with reading_rows(connection, bank_id):
        stored = read_bank(connection, bank_id)
        next_id = read_next_id(connection, bank_id)
        held, here = len(_read_held_ids(connection, stored, next_id)), bank.unsealed
        if (bank.next_id, here) != (next_id, held):
            raise MemoryBankError(
                f"memory bank {stored.name!r} holds {here} entries up to number {bank.next_id - 1}, the database "
                f"{held} up to {next_id - 1}; write its changes before its snapshot"
            )
        path = snapshot_path(folder, stored.name)
        write_snapshot(path, stored, _snapshot_of(connection, stored, bank))
        bank.keep_sealed(SegmentFolder(folder, stored))
    return path


def _snapshot_of(connection: sa.Connection, stored: StoredBank, bank: MemoryBank) -> Snapshot:
    return Snapshot(bank.unsealed_state(), _read_past(connection, stored, bank.next_id))


def _from_snapshot(
    connection: sa.Connection, stored: StoredBank, snapshot: Snapshot, *, record_changes: bool
) -> OpenedBank:
    """The bank that a snapshot and the rows written since give.

    Raises:
        UnusableFile: it cannot be an earlier state of this bank.
    """
    bank_id, first_new = stored.bank_id, snapshot.state.next_id
    next_id = read_next_id(connection, bank_id)
    held = _read_held_ids(connection, stored, next_id)
    if first_new > next_id:
        raise UnusableFile(f"it is ahead of the database: it goes up to entry {first_new - 1}, not {next_id - 1}")
    past, then = _read_past(connection, stored, first_new, until=snapshot.past.until), snapshot.past
    if past[:3] != then[:3]:
        raise UnusableFile("it counts other entries or recollections than the database has")
    if past != then:
        raise UnusableFile("it counts credit for other outcomes than the database has")
    known = held[: int(np.searchsorted(held, first_new))]
    kept = np.isin(snapshot.state.ids, known)
    if np.count_nonzero(kept) != len(known):
        raise UnusableFile("it is ahead of the database: it lacks entries that are held")
    if 2 * len(known) < len(held):
        raise UnusableFile(f"it is stale: {len(held) - len(known)} of {len(held)} entries are newer")
    if not kept.all():
        _check_gone(connection, stored, snapshot.state, np.flatnonzero(~kept))
    _check_waiting(connection, stored, snapshot.state)
    state = only(snapshot.state, kept)
    _check_sample(connection, stored, state)
    state = _with_new_outcomes(connection, stored, state)
    if next_id > first_new:
        state = joined(state, read_state(connection, stored, from_id=first_new))
    recollections, gone = read_recollections_of(connection, bank_id, state.ids, after=first_new - 1)
    waiting = np.array([each.asker_id for each in state.recollections], dtype=np.int64)
    gone = np.union1d(gone, waiting[~np.isin(waiting, state.ids, kind="table")])
    outcomes = read_primary_outcomes(connection, stored, gone)
    bank = MemoryBank(stored.config, encoder_version=stored.encoder_version, record_changes=record_changes)
    try:
        bank.restore_state(state, recollections=recollections, outcomes=outcomes)
    except MemoryBankError as problem:
        # Rows that are damaged themselves are named when the bank is rebuilt from them.
        raise UnusableFile(f"it does not go with the database: {problem}") from None
    return OpenedBank(bank, None, len(held) - len(known))


def _read_held_ids(connection: sa.Connection, stored: StoredBank, next_id: int) -> IntArray:
    """Ids of the entries that a bank holds and that are not sealed, increasing."""
    entry_id = memory_entries.c.entry_id
    held = held_condition(stored.bank_id)
    if stored.config.sealed:
        held &= entry_id >= next_id - stored.config.capacity
    query = sa.select(entry_id).where(held).order_by(entry_id)
    return np.array([entry_id for (entry_id,) in connection.execute(query)], dtype=np.int64)


def _read_past(connection: sa.Connection, stored: StoredBank, before: int, until: int | None = None) -> Past:
    """What the database has of entries below an id, and of outcomes up to a time."""
    entry, asker, known = memory_entries.c, memory_recollections.c, memory_settlements.c
    total, count = sa.func.sum, sa.func.count()
    entries = (entry.bank_id == stored.bank_id) & (entry.entry_id < before)
    (written,) = connection.execute(sa.select(total(entry.written_time % _TURN)).where(entries)).one()
    askers = (asker.bank_id == stored.bank_id) & (asker.asker_id < before)
    noted, asked = connection.execute(sa.select(count, total(asker.as_of % _TURN)).where(askers)).one()
    answered = (known.bank_id == asker.bank_id) & (known.entry_id == asker.asker_id)
    condition = askers & answered & (known.horizon == stored.config.primary)
    if until is not None:
        condition &= known.settled_time <= until
    sums = sa.select(
        sa.func.max(known.settled_time), count, total(asker.asker_id), total(known.settled_time % _TURN)
    ).where(condition)
    latest, credited, ids, times = connection.execute(sums).one()
    numbers = (written, noted, asked, latest if until is None else until, credited, ids, times)
    return Past(*(int(number or 0) for number in numbers))


def _check_gone(connection: sa.Connection, stored: StoredBank, state: BankState, gone: IntArray) -> None:
    """Compare the outcomes of entries that left since with their rows.

    Raises:
        UnusableFile: one differs.
    """
    entry = memory_entries.c
    for start in range(0, len(gone), _LOOKED_UP):
        places = gone[start : start + _LOOKED_UP]
        ids = state.ids[places]
        among = (entry.bank_id == stored.bank_id) & entry.entry_id.in_(ids.tolist())
        _check_outcomes(state, places, *read_settlements(connection, stored, ids, among=among))


def _check_waiting(connection: sa.Connection, stored: StoredBank, state: BankState) -> None:
    """Compare what waits for an outcome with its rows.

    Raises:
        UnusableFile: one differs.
    """
    askers = np.array(sorted(each.asker_id for each in state.recollections), dtype=np.int64)
    if not len(askers):
        return
    rows, _ = read_recollections_of(connection, stored.bank_id, askers, after=int(askers[0]) - 1)
    noted = {each.asker_id: each for each in rows}
    for each in state.recollections:
        row = noted.get(each.asker_id)
        if row is None or (row.as_of, row.ids.tobytes(), row.weights.tobytes()) != (
            each.as_of,
            each.ids.tobytes(),
            each.weights.tobytes(),
        ):
            raise UnusableFile(f"it differs from the database in what entry {each.asker_id} remembered")


def _check_sample(connection: sa.Connection, stored: StoredBank, state: BankState) -> None:
    """Compare some entries with their rows, and all recent ones.

    Raises:
        UnusableFile: one differs.
    """
    count = len(state.ids)
    for place in np.unique(np.linspace(0, count - 1, min(_SAMPLE, count)).astype(np.int64)).tolist():
        _compare(connection, stored, state, slice(place, place + 1))
    _compare(connection, stored, state, slice(max(0, count - _RECENT), count))


def _compare(connection: sa.Connection, stored: StoredBank, state: BankState, span: slice) -> None:
    ids = state.ids[span]
    if not len(ids):
        return
    first, last = int(ids[0]), int(ids[-1])
    rows = read_entry_rows(
        connection, stored, held_condition(stored.bank_id) & memory_entries.c.entry_id.between(first, last)
    )
    equal = all(
        getattr(rows, name).tobytes() == getattr(state, name)[span].tobytes()
        for name in ("ids", "bar_times", "regimes", "keys", "novelties")
    )
    if not equal or [rows.names[number] for number in rows.symbols] != [state.names[n] for n in state.symbols[span]]:
        raise UnusableFile(f"it differs from the database between entries {first} and {last}")
    _check_outcomes(state, span, *read_settlements(connection, stored, ids))


def _check_outcomes(
    state: BankState, span: slice | IntArray, outcomes: npt.NDArray[np.float64], settled_times: IntArray
) -> None:
    """Refuse a snapshot that knows an outcome which the rows do not have, or have differently."""
    known = state.settled_times[span] != NEVER
    same = (settled_times == state.settled_times[span]) & (outcomes == state.outcomes[span])
    if not same[known].all():
        entry_id = state.ids[span][np.argmin((same | ~known).all(axis=1))]
        raise UnusableFile(f"it differs from the database in the outcomes of entry {entry_id}")


def _with_new_outcomes(connection: sa.Connection, stored: StoredBank, state: BankState) -> BankState:
    """A state with what became known since, read for all entries from shortly before the first pending one on."""
    pending = np.flatnonzero((state.settled_times == NEVER).any(axis=1))
    first = max(0, (int(pending[0]) if len(pending) else len(state.ids)) - _RECENT)
    span = slice(first, len(state.ids))
    outcomes, settled_times = read_settlements(connection, stored, state.ids[span])
    _check_outcomes(state, span, outcomes, settled_times)
    return replace(
        state,
        outcomes=np.concatenate((state.outcomes[:first], outcomes)),
        settled_times=np.concatenate((state.settled_times[:first], settled_times)),
    )
