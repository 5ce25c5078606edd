"""Part files of the candle store: immutable Parquet files of consecutive bars, named by their first and last open time.

A part appears under its name complete and on disk, or not at all: it is written to a temporary name, fsynced and renamed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bot.market.validation import DataError
from strategies.bars import COLUMNS, BarSeries, FloatArray, IntArray

if sys.platform != "win32":
    import fcntl

TIME_COLUMN: Final = "open_time_ms"
TEMPORARY_SUFFIX: Final = ".tmp"

_NAMES: Final = (TIME_COLUMN, *COLUMNS)
_SCHEMA: Final = pa.schema([(TIME_COLUMN, pa.int64()), *((name, pa.float64()) for name in COLUMNS)])
_PART_NAME: Final = re.compile(r"(-?\d+)_(-?\d+)\.parquet")
# Times in nearly equal steps shrink to almost nothing as differences, and prices hardly repeat: half the size of the
# default encoding, and faster to read.
_ENCODING: Final[dict[str, Any]] = {
    "compression": "zstd",
    "use_dictionary": False,
    "column_encoding": {TIME_COLUMN: "DELTA_BINARY_PACKED"},
    "row_group_size": 65_536,
    # A flipped bit on the disk would otherwise read as another price.
    "write_page_checksum": True,
}


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One part file and the open times of its first and last bar."""

    first: int
    last: int
    path: Path


@dataclass(frozen=True, slots=True)
class Columns:
    """Bars as bare columns in order of time."""

    open_time: IntArray
    values: tuple[FloatArray, ...]
    """The columns of ``strategies.bars.COLUMNS``."""


def list_parts(folder: Path) -> tuple[list[Part], list[Part]]:
    """The parts in order of time, and those that a larger part replaces (a merge was cut off before it removed them).

    Raises:
        DataError: two parts overlap without one containing the other, which no crash can cause.
    """
    found = []
    for path in folder.iterdir():
        if match := _PART_NAME.fullmatch(path.name):
            found.append(Part(int(match[1]), int(match[2]), path))
    found.sort(key=lambda part: (part.first, -part.last))
    live: list[Part] = []
    replaced: list[Part] = []
    for part in found:
        if live and part.last <= live[-1].last:
            replaced.append(part)
        elif live and part.first <= live[-1].last:
            raise DataError(
                f"candle files {live[-1].path} and {part.path.name} overlap; delete the second and every later one, "
                "then run `recall fetch` again"
            )
        else:
            live.append(part)
    return live, replaced


def write_part(folder: Path, columns: Columns) -> Part:
    """Store bars that are in order as one part, durably.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    first, last = int(columns.open_time[0]), int(columns.open_time[-1])
    path = folder / f"{first}_{last}.parquet"
    table = pa.Table.from_arrays([pa.array(columns.open_time), *map(pa.array, columns.values)], schema=_SCHEMA)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary, **_ENCODING))
    return Part(first, last, path)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, and give it its name once it is complete and on disk."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were created in a folder, or removed from it, survive a loss of power."""
    if sys.platform != "win32":  # Windows has no handle on a folder
        _sync(folder)


def _sync(path: Path) -> None:
    # Windows flushes only what is open for writing; a folder opens only for reading.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def count_rows(part: Part) -> int:
    """Bars in a part, from its footer.

    Raises:
        DataError: the file is damaged.
    """
    with _opened(part) as file:
        return int(file.metadata.num_rows)


def read_part(part: Part, start: int | None, end: int | None) -> tuple[int, Columns]:
    """The bars of a part that open in ``[start, end)``, and how many of its bars come before them.

    Raises:
        DataError: the file is damaged or is no part of a candle store.
    """
    with _opened(part) as file:
        skipped, groups = _row_groups(file, start, end)
        table = file.read_row_groups(groups, columns=list(_NAMES))
    times = table.column(0).to_numpy()
    if np.any(np.diff(times) <= 0):
        raise _damaged(part, "its bars are not in order")
    low = 0 if start is None else int(np.searchsorted(times, start, side="left"))
    high = len(times) if end is None else max(low, int(np.searchsorted(times, end, side="left")))
    values = tuple(table.column(1 + i).to_numpy()[low:high] for i in range(len(COLUMNS)))
    return skipped + low, Columns(times[low:high], values)


def join(pieces: Sequence[Columns]) -> Columns:
    """Pieces that follow each other in time as one; at least one is needed."""
    if len(pieces) == 1:
        return pieces[0]
    values = tuple(np.concatenate([piece.values[i] for piece in pieces]) for i in range(len(COLUMNS)))
    return Columns(np.concatenate([piece.open_time for piece in pieces]), values)


def columns_of(series: BarSeries) -> Columns:
    """The columns of a series."""
    return Columns(series.open_time, tuple(getattr(series, name) for name in COLUMNS))


@contextmanager
def folder_lock(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold a folder for one writer or for many readers, across threads and processes; a killed holder lets go.

    The lock is advisory and sits on the folder itself, so that it leaves no file behind. Windows has none: there one
    process at a time may write.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _opened(part: Part) -> Iterator[Any]:
    try:
        with pq.ParquetFile(part.path, page_checksum_verification=True) as file:
            if file.schema_arrow != _SCHEMA:
                raise _damaged(part, "its columns are not those of the candle store")
            yield file
    except (pa.ArrowException, OSError) as error:
        raise _damaged(part, str(error).splitlines()[0]) from None


def _row_groups(file: Any, start: int | None, end: int | None) -> tuple[int, list[int]]:
    """Rows in the row groups that end before ``start``, and the numbers of the groups that reach into the span."""
    skipped, groups = 0, []
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        times = group.column(0).statistics
        if start is not None and times.max < start:
            skipped += group.num_rows
        elif end is None or times.min < end:
            groups.append(number)
    return skipped, groups


def _damaged(part: Part, reason: str) -> DataError:
    return DataError(
        f"candle file {part.path} is damaged ({reason}); delete it and every later file beside it, then run "
        "`recall fetch` again"
    )
