"""Candles out of files that people bring: Parquet or CSV, with the column names and time formats that are in use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bot.market.grid import grid_position, on_grid
from bot.market.validation import CandleFrame, DataError, Policy, repair
from strategies.bars import (
    COLUMNS,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    BarSeries,
    Calendar,
    FloatArray,
    IntArray,
    interval_ms,
    parse_time,
)

TIME_COLUMNS: Final = ("open_time_ms", "open_time", "timestamp", "time", "date", "datetime")
"""Names that the column of open times may have, first match first."""

CONTINUOUS_FILL: Final = 0.9
"""Share of the grid that the bars of a market that never closes fill at least."""

# What a bare number of a time means follows from its size: these bounds are the year 5138 in seconds, milliseconds and
# microseconds, and the year 1973 in the respectively finer unit.
_UNIT_BOUNDS: Final = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
_PER_MS: Final = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}

_EARLIEST: Final = parse_time("1900-01-01")
_LATEST: Final = parse_time("2200-01-01")

Column = np.ndarray[Any, np.dtype[Any]]


def read_candle_file(
    path: Path, symbol: str, interval: str, calendar: Calendar | None = None, policy: Policy = Policy.REFUSE
) -> BarSeries:
    """The bars of a file, validated and mended as ``repair`` says.

    Args:
        path: a ``.parquet`` or ``.csv`` file; see ``read_candle_frame``.
        symbol: the name that the bars get.
        interval: the venue's code of the interval that the bars have.
        calendar: when the market is open; ``None`` tells it from the bars (see ``detect_calendar``).
        policy: what to do about bars that contradict themselves.

    Raises:
        DataError: the file or its bars cannot be used.
    """
    frame = read_candle_frame(path, symbol, interval)
    return repair(frame, calendar or detect_calendar(frame), policy)[0]


def read_candle_frame(path: Path, symbol: str, interval: str) -> CandleFrame:
    """The rows of a Parquet or CSV file as they are, in any order and of any quality.

    Column names are matched without regard to capitals. Times may be numbers (seconds, milliseconds, microseconds or
    nanoseconds, told by their size; a column ``open_time_ms`` is milliseconds), timestamps, dates or ISO text; what names
    no zone is UTC. Other columns are ignored.

    Raises:
        DataError: no such file, unknown kind, damaged, empty, a column is missing or not numeric, a time is not
            understood, or the bars are spaced otherwise than ``interval`` says.
    """
    columns = read_table(path, COLUMNS)
    rows = {name: _numbers(columns[name], name, path) for name in COLUMNS}
    times = read_time_column(columns, path)
    frame = CandleFrame(symbol, interval, times, *(rows[name] for name in COLUMNS))
    _check_spacing(frame, path)
    return frame


def read_table(path: Path, needed: Sequence[str] = ()) -> dict[str, pa.ChunkedArray]:
    """The columns of a Parquet or CSV file by their names in small letters.

    Raises:
        DataError: no such file, unknown kind, damaged, empty, or a column of ``needed`` is missing.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not there"
        raise DataError(f"candle file {path} is {kind}; give the path of a .parquet or .csv file")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"candle file {path} is of unknown kind {path.suffix!r}; give a .parquet or .csv file")
    return _by_lower_name(read(path), path, needed)


def read_time_column(columns: Mapping[str, pa.ChunkedArray], path: Path) -> IntArray:
    """The first of ``TIME_COLUMNS`` as milliseconds, UTC.

    Raises:
        DataError: there is none, or a time in it is missing, not understood, or in no century of markets.
    """
    name = _time_column(columns, path)
    times = _milliseconds(columns[name], name, path)
    _check_times(times, name, path)
    return times


def detect_calendar(frame: CandleFrame) -> Calendar:
    """When the market of these bars is open.

    Bars that fill at least ``CONTINUOUS_FILL`` of the grid between the first and the last come from a market that never
    closes. Days and longer must also open on the grid (midnight UTC): a working week of days has no holes either.
    """
    times = np.unique(frame.open_time)
    cells = grid_position(times[[0, -1]], frame.interval)
    is_full = len(times) >= CONTINUOUS_FILL * float(cells[1] - cells[0] + 1)
    if is_full and interval_ms(frame.interval) >= DAY_MS:
        is_full = bool(np.mean(on_grid(times, frame.interval)) >= CONTINUOUS_FILL)
    return Calendar.CONTINUOUS if is_full else Calendar.SESSIONS


def _read_parquet(path: Path) -> pa.Table:
    try:
        # read_table would take folder names such as symbol=BTCUSDT for columns.
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"candle file {path} is not a complete Parquet file ({reason}); download or write it again"
        ) from None


def _read_csv(path: Path) -> pa.Table:
    import pandas as pd  # half a second that only CSV files need

    try:
        with warnings.catch_warnings():
            # Where rows are longer than the header, pandas would shift the columns by one, or warn and cut them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, index_col=False, low_memory=False)
        return pa.Table.from_pandas(table, preserve_index=False)
    except pd.errors.EmptyDataError:
        raise DataError(f"candle file {path} is empty; give a file with a header and rows") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError, pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"candle file {path} is not a readable CSV file ({reason}); mend or export it again") from None


_READERS: Final[Mapping[str, Callable[[Path], pa.Table]]] = {
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
    ".csv": _read_csv,
}


def _by_lower_name(table: pa.Table, path: Path, needed: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    names = [name.strip().lower() for name in table.column_names]
    read = [name for name in names if name in (*needed, *TIME_COLUMNS)]
    twice = next((name for name in read if read.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"candle file {path} has more than one column {twice!r}; rename all but one")
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(
            f"candle file {path} has no column {missing[0]!r} (found: {', '.join(table.column_names)}); rename or add it"
        )
    if table.num_rows == 0:
        raise DataError(f"candle file {path} holds no rows; give a file with at least one bar")
    return dict(zip(names, table.columns, strict=True))


def _time_column(columns: Mapping[str, Any], path: Path) -> str:
    name = next((name for name in TIME_COLUMNS if name in columns), None)
    if name is None:
        raise DataError(
            f"candle file {path} has no column of open times, one of {', '.join(TIME_COLUMNS)} "
            f"(found: {', '.join(columns)}); rename or add it"
        )
    return name


def _numbers(column: pa.ChunkedArray, name: str, path: Path) -> FloatArray:
    """The column as float64; what is absent is NaN, for the validator to refuse."""
    try:
        return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"candle file {path} has something other than numbers in column {name!r} ({reason}); mend the file"
        ) from None


def _milliseconds(column: pa.ChunkedArray, name: str, path: Path) -> IntArray:
    """The column as whole milliseconds since the epoch, UTC."""
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py() + 1
        raise DataError(f"candle file {path} has no time in column {name!r} of row {row}; mend or remove that row")
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        stamps = column.to_numpy().astype("datetime64[ms]")
        return np.asarray(stamps.astype(np.int64))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _from_numbers(column.to_numpy(), name, path)
    return _from_text(column, name, path)


def _from_numbers(values: Column, name: str, path: Path) -> IntArray:
    if not np.all(np.isfinite(values)):
        row = int(np.argmin(np.isfinite(values))) + 1
        raise DataError(f"candle file {path} has no time in column {name!r} of row {row}; mend or remove that row")
    size = float(np.median(np.abs(values.astype(np.float64))))
    unit = next((unit for bound, unit in _UNIT_BOUNDS if size < bound), "ns")
    if name == "open_time_ms":
        unit = "ms"
    if np.issubdtype(values.dtype, np.integer) and unit != "s":
        return np.asarray(values.astype(np.int64) // np.int64(_PER_MS[unit]))
    # Times below 2**53 milliseconds are exact in float64, so that only fractions of a millisecond are rounded.
    return np.rint(values.astype(np.float64) / _PER_MS[unit]).astype(np.int64)


def _from_text(column: pa.ChunkedArray, name: str, path: Path) -> IntArray:
    import pandas as pd  # only times written as text need its parser

    texts = pd.Series(column.to_pylist(), dtype="object")
    stamps = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    unread = np.flatnonzero(stamps.isna().to_numpy())
    if len(unread):
        row = int(unread[0])
        raise DataError(
            f"candle file {path} has a time {texts[row]!r} in column {name!r} of row {row + 1} that is not understood; "
            "write times as 2024-01-31T06:00:00Z or as milliseconds since 1970"
        )
    naive = stamps.dt.tz_localize(None).to_numpy()
    return np.asarray(naive.astype("datetime64[ms]").astype(np.int64))


def _check_times(times: IntArray, name: str, path: Path) -> None:
    """Refuse times that no market has seen: damage that happened to decode, or units that are mixed in one column."""
    absurd = (times < _EARLIEST) | (times > _LATEST)
    if absurd.any():
        row = int(np.argmax(absurd))
        raise DataError(
            f"candle file {path} has a time in column {name!r} of row {row + 1} that is {times[row]} ms from 1970, outside "
            "the years 1900 to 2200; mend the file, or download it again"
        )


def _check_spacing(frame: CandleFrame, path: Path) -> None:
    """Refuse an interval that the bars contradict; fewer than three bars contradict nothing."""
    spacing = np.diff(np.unique(frame.open_time))
    if len(spacing) < 2:
        return
    # Sessions and gaps only widen spacings, and a few stray rows only narrow some: both the median and the lower
    # quartile have to speak against the interval (four-hour bars of a stock are as often 20 hours apart as four).
    typical = {float(np.quantile(spacing, share, method="lower")) for share in (0.25, 0.5)}
    if not any(_fits(found, frame.interval) for found in typical):
        raise DataError(
            f"candle file {path} has bars {_duration(float(np.median(spacing)))} apart, and the interval given is "
            f"{frame.interval!r} ({_duration(interval_ms(frame.interval))}); give the interval of the file"
        )


def _fits(spacing: float, interval: str) -> bool:
    if interval == "M":
        return 28 * DAY_MS <= spacing <= 31 * DAY_MS
    return spacing == interval_ms(interval)


def _duration(milliseconds: float) -> str:
    for length, unit in ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min")):
        if milliseconds >= length:
            return f"{milliseconds / length:g} {unit}"
    return f"{milliseconds / 1000:g} s"
