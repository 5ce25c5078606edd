"""Sealed segments as files, mapped into memory: derived from the database, and never believed against it.

A segment is used if it holds what its rows say: as many entries, recent ones and a sample of the others to the last bit.
Else it is made again from its rows.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from memory_store.archive import Archive, segment_entries
from memory_store.array_file import UnusableFile, read_arrays, write_arrays
from memory_store.pruned import PrunedIndex
from memory_store.reading import read_archive, read_columns
from memory_store.registry import StoredBank
from memory_store.restoration import BankState
from memory_store.rows import held_condition
from memory_store.schema import memory_entries
from memory_store.segments import COLUMNS, Segment
from memory_store.snapshot import check_identity, identity, snapshot_path

SEGMENT_FORMAT: Final = 2
_MAGIC: Final = b"MEMSEGM\0"
_ENDING: Final = ".segment"
_RECENT: Final = 1024
"""So many of the last entries of a segment are compared with their rows: lives that part differ there."""
_SAMPLE: Final = 8
"""So many of all, evenly spaced."""


class SegmentFolder:
    """The files of a bank's sealed segments.

    Args:
        folder: where snapshots are kept.
        stored: the bank.
    """

    def __init__(self, folder: Path, stored: StoredBank) -> None:
        self._folder = snapshot_path(folder, stored.name).with_suffix(".segments")
        self._stored = stored
        self.unsaved: str | None = None
        """Why a segment could not be written; it stays in memory, and nothing is lost."""

    def keep(self, segment: Segment) -> Segment:
        """Write a sealed segment and map it from its file; where that cannot be it stays as it is."""
        basis, tiles = segment.index.fit() if segment.scans_bounds else (np.empty((0, 0)), np.empty((0, 0)))
        arrays = {name: getattr(segment, name) for name in (*COLUMNS, "gone")} | {"basis": basis, "tiles": tiles}
        header = {
            **identity(self._stored),
            "first": segment.first,
            "names": segment.names,
            "count": segment.count,
            "latest": segment.latest,
            "longest": segment.longest,
        }
        little = {name: np.ascontiguousarray(each, dtype=each.dtype.newbyteorder("<")) for name, each in arrays.items()}
        try:
            write_arrays(self._path(segment.first), _MAGIC, SEGMENT_FORMAT, header, little)
            return self.read(segment.first)
        except (OSError, UnusableFile) as problem:
            self.unsaved = (
                f"a sealed segment could not be kept in {self._folder}: {problem}; check the folder and the disk"
            )
            return segment

    def read(self, first: int) -> Segment:
        """The sealed segment that begins with an id.

        Raises:
            UnusableFile: there is none, or it is damaged or of another bank.
        """
        check = partial(check_identity, self._stored)
        header, arrays = read_arrays(self._path(first), _MAGIC, SEGMENT_FORMAT, "sealed segment", check)
        if header["first"] != first:
            raise UnusableFile(f"it begins with entry {header['first']}")
        held: dict[str, Any] = {name: np.asarray(arrays[name]) for name in COLUMNS}
        keys, basis, tiles = held["keys"], np.asarray(arrays["basis"]), np.asarray(arrays["tiles"])
        try:
            index = PrunedIndex.fitted(keys, basis, tiles) if basis.size else PrunedIndex(keys)
        except ValueError as problem:
            raise UnusableFile(str(problem)) from None
        segment = Segment(first=first, names=header["names"], index=index, gone=np.array(arrays["gone"]), **held)
        segment.count, segment.latest, segment.longest = header["count"], header["latest"], header["longest"]
        segment.sealed = segment.mapped = True
        return segment

    def drop(self, first: int) -> None:
        """Remove the file of a segment that nobody needs any more."""
        with suppress(OSError):
            self._path(first).unlink(missing_ok=True)

    def drop_others(self, kept: Collection[int]) -> None:
        """Remove the files of all segments but these."""
        names = {self._path(first).name for first in kept}
        for path in self._folder.glob(f"*{_ENDING}"):
            if path.name not in names:
                with suppress(OSError):
                    path.unlink()

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:015d}{_ENDING}"


def open_archive(
    connection: sa.Connection, stored: StoredBank, files: SegmentFolder, *, next_id: int, refresh: bool
) -> tuple[Archive, int]:
    """The archive of a bank as its last transaction left it, and how many of its sealed segments were made again from rows.

    Args:
        connection: to read from.
        stored: the bank.
        files: where sealed segments are kept.
        next_id: the id that the next entry gets.
        refresh: write what was made again, and remove what is not needed.

    Raises:
        MemoryBankError: rows are damaged.
    """

    def sealed(first: int, oldest: int) -> Segment | None:
        try:
            segment = files.read(first)
            _check(connection, stored, segment, oldest)
        except UnusableFile:
            return None
        return segment

    archive = read_archive(connection, stored, next_id=next_id, kept=sealed)
    made_again = sum(segment.sealed and not segment.mapped for segment in archive.segments)
    if refresh:
        files.drop_others([segment.first for segment in archive.segments])
        archive.keep_in(files)
    return archive, made_again


def _check(connection: sa.Connection, stored: StoredBank, segment: Segment, oldest: int) -> None:
    """Bring a segment to what its rows say; ids below ``oldest`` have left.

    Raises:
        UnusableFile: it cannot be what they say.
    """
    segment.forget_before(oldest)
    mine = held_condition(stored.bank_id) & memory_entries.c.entry_id.between(
        max(oldest, segment.first), segment.first + segment_entries(stored.config) - 1
    )
    held = connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one()
    if held != segment.count:
        ids = list(connection.execute(sa.select(memory_entries.c.entry_id).where(mine)).scalars())
        segment.forget_all_but(np.array(ids, dtype=np.int64))
        if held != segment.count:
            raise UnusableFile("it lacks entries that are held")
    rows = np.flatnonzero(~segment.gone)
    if not len(rows):
        return
    for place in np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64)).tolist():
        _compare(connection, stored, segment, rows[place : place + 1])
    _compare(connection, stored, segment, rows[-_RECENT:])


def _compare(connection: sa.Connection, stored: StoredBank, segment: Segment, rows: npt.NDArray[np.int64]) -> None:
    known = segment.state(rows, stored.config, next_id=0)
    first, last = int(known.ids[0]), int(known.ids[-1])
    told = read_columns(connection, stored, memory_entries.c.entry_id.between(first, last), next_id=0)
    if not _same(known, told):
        raise UnusableFile(f"it differs from the database between entries {first} and {last}")


def _same(one: BankState, other: BankState) -> bool:
    symbols = [[state.names[number] for number in state.symbols.tolist()] for state in (one, other)]
    names = ("ids", "bar_times", "regimes", "keys", "novelties", "outcomes", "settled_times")
    return symbols[0] == symbols[1] and all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in names
    )
