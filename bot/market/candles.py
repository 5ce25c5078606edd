"""The candle store: closed bars on disk by symbol and interval, append-only, written atomically, and never revised.

``root/BTCUSDT/60/`` holds ``meta.json`` and part files (see ``parts``). Bars are numbered by their position in the whole
stored series, and the numbers stay as they are when later bars are appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bot.errors import StorageError
from bot.market.parts import (
    TEMPORARY_SUFFIX,
    Columns,
    Part,
    columns_of,
    count_rows,
    folder_lock,
    join,
    list_parts,
    read_part,
    sync_folder,
    write_atomically,
    write_part,
)
from bot.market.validation import DataError, require_sound
from strategies.bars import COLUMNS, INTERVALS, SYMBOL, BarSeries, Calendar, format_time, parse_symbol

MAX_PARTS: Final = 32
"""Appending merges small parts into larger ones when a series has more parts than this."""

_META: Final = "meta.json"


class Meta(msgspec.Struct, frozen=True):
    """What is known of a stored series besides its bars."""

    symbol: str
    interval: str
    calendar: Calendar
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What an append did."""

    added: int
    already_there: int


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """One series of the store; times are those of the first and last bar's open."""

    symbol: str
    interval: str
    calendar: Calendar
    source: str
    """Where the bars came from; several sources are joined with ``+``."""
    bars: int
    first_open: int
    last_open: int
    bytes: int


def check_symbol(symbol: str) -> str:
    """The symbol, when it may name a folder.

    Raises:
        DataError: it may not; see :func:`strategies.bars.parse_symbol`.
    """
    try:
        return parse_symbol(symbol)
    except ValueError as problem:
        raise DataError(str(problem)) from None


class CandleStore:
    """Candles under one folder. Instances hold no state: any number of threads and processes may share the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def append(self, series: BarSeries, *, source: str, prepend: bool = False) -> AppendResult:
        """Store bars durably; what is stored already is skipped, so that the call may be repeated.

        Args:
            series: closed bars; their ``first_ordinal`` is ignored.
            source: where they came from, for ``list``.
            prepend: also accept bars from before the first stored one, which changes the number of every stored bar:
                what was derived from numbers, such as a memory's encodings, has to be derived again.

        Raises:
            DataError: the series is not sound, differs from a stored bar, lies before the first one without
                ``prepend``, fills a gap, or has another calendar than the stored series.
            StorageError: the disk refused; what was stored before is intact.
        """
        folder = self._folder(series.symbol, series.interval)
        if not len(series):
            return AppendResult(0, 0)
        require_sound(series)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with folder_lock(folder, exclusive=True):
                parts = _swept_parts(folder)
                result = _append(folder, parts, series, prepend=prepend, source=source)
                _merge_small(folder, list_parts(folder)[0])
        except OSError as error:
            raise StorageError(
                f"candles cannot be written under {folder} ({error.strerror or error}); make room or change the folder's "
                "permissions, then repeat: what was stored before is intact"
            ) from None
        return result

    def load(self, symbol: str, interval: str, start: int | None = None, end: int | None = None) -> BarSeries:
        """Bars that open in ``[start, end)`` (milliseconds), numbered by their position in the whole stored series.

        A series that is not stored has no bars: it loads as an empty one, on the calendar that never closes.

        Raises:
            DataError: a file is damaged.
        """
        folder = self._folder(symbol, interval)
        if not folder.is_dir():
            return BarSeries.empty(symbol, interval)
        with folder_lock(folder, exclusive=False):
            meta, parts = _read_meta(folder), list_parts(folder)[0]
            if meta is None:
                return BarSeries.empty(symbol, interval)
            ordinal, columns = _read_span(parts, start, end)
        if columns is None:
            return BarSeries.empty(symbol, interval, meta.calendar, first_ordinal=ordinal)
        opens, highs, lows, closes, volumes = columns.values
        return BarSeries(
            symbol,
            interval,
            meta.calendar,
            columns.open_time,
            opens,
            highs,
            lows,
            closes,
            volumes,
            first_ordinal=ordinal,
        )

    def list(self) -> Sequence[StoredSeries]:
        """Every stored series, by symbol and by length of the interval.

        Raises:
            DataError: a file is damaged.
        """
        folders = (path.parent for path in self.root.glob(f"*/*/{_META}"))
        names = [(folder.parent.name, folder.name) for folder in folders]
        ours = [name for name in names if SYMBOL.fullmatch(name[0]) and name[1] in INTERVALS]
        ours.sort(key=lambda name: (name[0], INTERVALS.index(name[1])))
        described = (self.describe(symbol, interval) for symbol, interval in ours)
        return [stored for stored in described if stored is not None]

    def describe(self, symbol: str, interval: str) -> StoredSeries | None:
        """One stored series; ``None`` when no bar of it is stored.

        Raises:
            DataError: a file is damaged.
        """
        folder = self._folder(symbol, interval)
        if not folder.is_dir():
            return None
        with folder_lock(folder, exclusive=False):
            meta, parts = _read_meta(folder), list_parts(folder)[0]
            if meta is None or not parts:
                return None
            return StoredSeries(
                symbol,
                interval,
                meta.calendar,
                "+".join(meta.sources),
                bars=sum(map(count_rows, parts)),
                first_open=parts[0].first,
                last_open=parts[-1].last,
                bytes=sum(part.path.stat().st_size for part in parts),
            )

    def last_open_time(self, symbol: str, interval: str) -> int | None:
        """Open time of the newest stored bar; ``None`` when there is none."""
        folder = self._folder(symbol, interval)
        if not folder.is_dir():
            return None
        with folder_lock(folder, exclusive=False):
            parts = list_parts(folder)[0]
        return parts[-1].last if parts else None

    def compact(self, symbol: str, interval: str) -> int:
        """Merge all parts of a series into one, and say how many there were.

        The merged part is complete before the first old one goes, so a crash at any moment loses nothing.

        Raises:
            DataError: a file is damaged.
            StorageError: the disk refused; nothing is lost.
        """
        folder = self._folder(symbol, interval)
        if not folder.is_dir():
            return 0
        try:
            with folder_lock(folder, exclusive=True):
                parts = _swept_parts(folder)
                _merge(folder, parts)
        except OSError as error:
            raise StorageError(
                f"candles cannot be merged under {folder} ({error.strerror or error}); make room: nothing is lost"
            ) from None
        return len(parts)

    def _folder(self, symbol: str, interval: str) -> Path:
        if interval not in INTERVALS:
            raise DataError(f"interval {interval!r} cannot be stored; use one of {', '.join(INTERVALS)}")
        return self.root / check_symbol(symbol) / interval


def _swept_parts(folder: Path) -> list[Part]:
    """The live parts, after removing what a crash left: under the exclusive lock nobody else is writing."""
    for stray in folder.glob(f"*{TEMPORARY_SUFFIX}"):
        stray.unlink(missing_ok=True)
    parts, replaced = list_parts(folder)
    for part in replaced:
        part.path.unlink(missing_ok=True)
    return parts


def _append(folder: Path, parts: Sequence[Part], series: BarSeries, *, prepend: bool, source: str) -> AppendResult:
    # A description without bars is what a crash before the very first part left; it binds nobody.
    meta = (_read_meta(folder) if parts else None) or Meta(series.symbol, series.interval, series.calendar, ())
    if meta.calendar is not series.calendar:
        raise DataError(
            f"{series.symbol} {series.interval} is stored with the calendar {meta.calendar.value!r} and these bars "
            f"have {series.calendar.value!r}; give the stored calendar, or delete {folder} and fetch again"
        )
    first = parts[0].first if parts else int(series.open_time[0])
    last = parts[-1].last if parts else first - 1
    before, within, after = series.span(None, first), series.span(first, last + 1), series.span(last + 1, None)
    if len(before) and not prepend:
        raise DataError(
            f"{series.symbol} {series.interval} is stored from {format_time(first)} on and these bars start at "
            f"{format_time(int(before.open_time[0]))}; earlier bars renumber the stored ones, so models "
            "and runs made of them have to be made anew: recall fetch --prepend takes them all the same"
        )
    if len(within):
        _require_same(within, _read_span(parts, int(within.open_time[0]), int(within.open_time[-1]) + 1)[1], folder)
    # The description comes first: a crash between the two leaves a series without bars, never bars without one.
    _write_meta(folder, meta, source)
    for fresh in (after, before):
        if len(fresh):
            write_part(folder, columns_of(fresh))
    return AppendResult(added=len(after) + len(before), already_there=len(within))


def _merge_small(folder: Path, parts: Sequence[Part]) -> None:
    """Merge the newest parts once there are many, so that every bar is rewritten a logarithmic number of times."""
    if len(parts) <= MAX_PARTS:
        return
    rows, oldest = count_rows(parts[-1]), len(parts) - 1
    while oldest > 0 and (older := count_rows(parts[oldest - 1])) <= 2 * rows:
        rows, oldest = rows + older, oldest - 1
    _merge(folder, parts[oldest:])


def _merge(folder: Path, parts: Sequence[Part]) -> None:
    if len(parts) < 2:
        return
    write_part(folder, join([read_part(part, None, None)[1] for part in parts]))
    for part in parts:
        part.path.unlink(missing_ok=True)
    sync_folder(folder)


def _read_span(parts: Sequence[Part], start: int | None, end: int | None) -> tuple[int, Columns | None]:
    """The bars that open in ``[start, end)`` and the number of the first; ``None`` when there is none."""
    ordinal = 0
    first_ordinal: int | None = None
    pieces = []
    for part in parts:
        if end is not None and part.first >= end:
            break
        if start is not None and part.last < start:
            ordinal += count_rows(part)
            continue
        skipped, columns = read_part(part, start, end)
        first_ordinal = ordinal + skipped if first_ordinal is None else first_ordinal
        if len(columns.open_time):
            pieces.append(columns)
    return (ordinal if first_ordinal is None else first_ordinal), (join(pieces) if pieces else None)


def _require_same(series: BarSeries, stored: Columns | None, folder: Path) -> None:
    """Refuse bars among the stored ones that are not there, or are there with other values."""
    where = f"{series.symbol} {series.interval}"
    known = series.open_time[:0] if stored is None else stored.open_time
    rows = np.searchsorted(known, series.open_time)
    absent = rows == len(known)
    absent[~absent] = known[rows[~absent]] != series.open_time[~absent]
    if absent.any():
        time = format_time(int(series.open_time[int(np.argmax(absent))]))
        raise DataError(
            f"{where}: the bar at {time} would fill a gap in the stored series and renumber all later bars; "
            f"delete {folder} and fetch again to have it"
        )
    if stored is None:
        return
    for name, column in zip(COLUMNS, stored.values, strict=True):
        differs = getattr(series, name) != column[rows]
        if differs.any():
            row = int(np.argmax(differs))
            closes = f"{stored.values[COLUMNS.index('close')][rows[row]]:.10g} is stored, {series.close[row]:.10g} came"
            raise DataError(
                f"{where}: the bar at {format_time(int(series.open_time[row]))} has another {name} than the stored one "
                f"(close {closes}), and closed bars are not revised; if the stored ones are wrong, delete {folder} and "
                "fetch again"
            )


def _read_meta(folder: Path) -> Meta | None:
    """The description of a series; ``None`` when it has none and no bars either."""
    path = folder / _META
    fix = f"delete {folder} and fetch again"
    try:
        meta = msgspec.json.decode(path.read_bytes(), type=Meta)
    except FileNotFoundError:
        if list_parts(folder)[0]:
            raise DataError(f"{path} is missing beside candle files; {fix}") from None
        return None
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is damaged ({error}); {fix}") from None
    if (meta.symbol, meta.interval) != (folder.parent.name, folder.name):
        raise DataError(f"{path} describes {meta.symbol} {meta.interval}; {fix}")
    return meta


def _write_meta(folder: Path, meta: Meta, source: str) -> None:
    """Note the source, unless it is noted already."""
    if source in meta.sources:
        return
    meta = msgspec.structs.replace(meta, sources=(*meta.sources, source))
    encoded = msgspec.json.format(msgspec.json.encode(meta), indent=2) + b"\n"
    write_atomically(folder / _META, lambda temporary: temporary.write_bytes(encoded))
    sync_folder(folder.parent)
