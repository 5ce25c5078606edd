"""How history gets into the candle store: incrementally, page by page, durable as it goes; and how much of it is there.

An interrupted download loses nothing that was reported as done, and the next call goes on where the store ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from bot.errors import UsageError, VenueError
from bot.market.candles import AppendResult, CandleStore, StoredSeries
from bot.market.grid import bars_between
from bot.market.validation import DataError
from strategies.bars import COLUMNS, DAY_MS, Bar, BarSeries, Calendar, format_time, interval_ms

PAGE_BARS: Final = 1000
"""Bars that Bybit returns for one request at most."""

ADJUSTMENT_TOLERANCE: Final = 1e-5
"""Relative difference of one stored close up to which an adjusted source still tells the same past: sources compute the
adjustment in single precision, and dividends move prices a hundred times further."""

Progress = Callable[[int, int], None]
"""Told after every page: how many grid cells of the span are done, and how many there are. The last call has both equal."""

PageOfBars = Callable[[str, str, int, int], Sequence[Bar]]
"""Closed bars of a symbol and interval that open from the third to the fourth argument, oldest first, at most 1000."""


class HistorySource(Protocol):
    """Something that has past bars. Retries and rate limits are its own business."""

    @property
    def name(self) -> str:
        """How the store names the source."""

    @property
    def calendar(self) -> Calendar:
        """When its markets are open."""

    @property
    def is_adjusted(self) -> bool:
        """Whether it rewrites past prices at every split and dividend."""

    def pages(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Iterator[BarSeries]:
        """Closed bars that open in ``[start_ms, end_ms)``, oldest first, in pages of any size.

        Raises:
            VenueError: it cannot be reached or refuses.
        """


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What a fetch did, and what the store holds of the series now."""

    symbol: str
    interval: str
    added: int
    already_there: int
    """Bars that came again and were equal to the stored ones."""
    stored: StoredSeries | None
    starts_late: bool
    """The store begins after the start that was asked for: bars from before it were not asked for, as they would
    renumber the stored ones."""


@dataclass(frozen=True, slots=True)
class BybitHistory:
    """Past bars by Bybit's kline request, which answers a window wider than a page with its *newest* bars: windows of at
    most a page are walked from the oldest on, with both ends given.

    Args:
        page: the request; see ``PageOfBars``.
        name: how the store names the source.
        calendar: of the symbols; Bybit's own markets never close, a sandbox may play a stock.
    """

    page: PageOfBars
    name: str = "bybit"
    calendar: Calendar = Calendar.CONTINUOUS
    is_adjusted: bool = False

    def pages(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Iterator[BarSeries]:
        """See ``HistorySource``; windows without bars, such as those before a listing, give no page."""
        window = PAGE_BARS * interval_ms(interval)
        is_listed = False
        for first in range(start_ms, end_ms, window):
            last = min(first + window, end_ms) - 1
            bars = self._ask(symbol, interval, first, last)
            if self._looks_cut(bars, interval, first if is_listed else None):
                # Bybit has a bar for every interval since the listing, so a hole is a bad answer, and the store
                # could never fill it later. What is missing twice is missing.
                bars = max(bars, self._ask(symbol, interval, first, last), key=len)
            if bars:
                is_listed = True
                yield BarSeries.of(bars, interval, self.calendar)

    def _ask(self, symbol: str, interval: str, first: int, last: int) -> list[Bar]:
        bars = list(self.page(symbol, interval, first, last))
        astray = next((bar for bar in bars if not first <= bar.open_time <= last), None)
        if astray is not None:
            raise VenueError(
                f"{self.name} answered a request for {symbol} {interval} from {format_time(first)} to "
                f"{format_time(last)} with a bar of {format_time(astray.open_time)}; try again later"
            )
        return bars

    def _looks_cut(self, bars: Sequence[Bar], interval: str, listed_from: int | None) -> bool:
        """Whether bars are missing between the first and the last, or after ``listed_from`` before the first."""
        if self.calendar is not Calendar.CONTINUOUS:
            return False
        if not bars:
            return listed_from is not None
        start = bars[0].open_time if listed_from is None else listed_from
        return len(bars) < bars_between(start, bars[-1].open_time + 1, interval)


def fetch_history(
    store: CandleStore,
    source: HistorySource,
    symbol: str,
    interval: str,
    start: int,
    end: int,
    *,
    prepend: bool = False,
    progress: Progress | None = None,
) -> FetchResult:
    """Bring the store up to ``end`` (milliseconds, not included), asking only for what it lacks.

    A series that is stored already goes on after its last bar, whatever ``start`` says, so that no hole arises.

    Args:
        store: where the bars go, each page durably before the next is asked for.
        source: where they come from.
        symbol: the name.
        interval: the venue's code.
        start: open time of the first bar wanted.
        end: end of the span.
        prepend: also fetch what lies between ``start`` and the first stored bar. It is stored as one piece, since bars
            before a hole could never be completed, and renumbers the stored bars.
        progress: told after every page.

    Raises:
        UsageError: the span is empty.
        DataError: the source contradicts the store, or its bars are not sound.
        VenueError: the source failed; what came before is stored.
        StorageError: the disk refused.
    """
    if start >= end:
        raise UsageError(
            f"the span from {format_time(start)} to {format_time(end)} is empty; put its end after its start"
        )
    stored = store.describe(symbol, interval)
    begin = start if stored is None else stored.last_open + 1
    cells_before = bars_between(start, stored.first_open, interval) if stored is not None and prepend else 0
    total = cells_before + bars_between(begin, end, interval)

    def report(done: int) -> None:
        if progress is not None:
            progress(min(done, total), total)

    result = AppendResult(0, 0)
    if stored is not None and start < stored.first_open and prepend:
        first_bar = _stored_bar(store, stored, stored.first_open)
        earlier = []
        for page in _pages(source, symbol, interval, start, stored.first_open, first_bar):
            earlier.append(page)
            report(bars_between(start, _end_of(page, start), interval))
        result = _plus(result, store.append(_joined(earlier, symbol, interval), source=source.name, prepend=True))
    if begin < end:
        last_bar = None if stored is None else _stored_bar(store, stored, stored.last_open)
        for page in _pages(source, symbol, interval, begin, end, last_bar):
            result = _plus(result, store.append(page, source=source.name))
            report(cells_before + bars_between(begin, _end_of(page, begin), interval))
    report(total)
    starts_late = stored is not None and not prepend and start < stored.first_open
    now = store.describe(symbol, interval)
    return FetchResult(symbol, interval, result.added, result.already_there, now, starts_late)


def history_before(
    store: CandleStore, symbols: Sequence[str], interval: str, start: int, at_most: int, at_least: int
) -> dict[str, BarSeries]:
    """The last ``at_most`` stored bars of every symbol that open before ``start`` (milliseconds), to warm up on.

    Raises:
        UsageError: a symbol has fewer than ``at_least`` of them.
        DataError: a stored file is damaged.
    """
    history = {}
    for symbol in symbols:
        series = store.load(symbol, interval, None, start)
        if len(series) < at_least:
            raise UsageError(_too_few(store, symbol, interval, start, at_least, len(series)))
        history[symbol] = series.slice(max(0, len(series) - at_most), len(series))
    return history


def _too_few(store: CandleStore, symbol: str, interval: str, start: int, needed: int, there: int) -> str:
    stored = store.describe(symbol, interval)
    # Sessions fill only part of the grid; the bars already there tell which part better than any rule.
    filled = 1.0
    if stored is not None and stored.calendar is Calendar.SESSIONS:
        filled = stored.bars / max(1, bars_between(stored.first_open, stored.last_open + 1, interval))
    from_time = int(start - 1.1 * needed * interval_ms(interval) / filled) // DAY_MS * DAY_MS
    command = f"recall fetch --symbols {symbol} --interval {interval} --start {format_time(from_time)[:10]}"
    if stored is not None and from_time < stored.first_open:
        command += " --prepend"
    return (
        f"{symbol} {interval}: {needed} bars are needed before {format_time(start)} and {there} are stored; "
        f"run `{command}`, or start later"
    )


def _pages(
    source: HistorySource, symbol: str, interval: str, first: int, last: int, anchor: Bar | None
) -> Iterator[BarSeries]:
    """Pages of the span ``[first, last)``; from an adjusted source only if it still agrees on the stored bar beside it.

    Raises:
        DataError: it tells the past differently since.
    """
    if anchor is None or not source.is_adjusted:
        yield from source.pages(symbol, interval, first, last)
        return
    start, end = min(first, anchor.open_time), max(last, anchor.open_time + 1)
    for page in source.pages(symbol, interval, start, end):
        for close in page.span(anchor.open_time, anchor.open_time + 1).close.tolist():
            if abs(close - anchor.close) > ADJUSTMENT_TOLERANCE * anchor.close:
                raise DataError(
                    f"{symbol} {interval}: {source.name} adjusted past prices since they were stored (close of "
                    f"{format_time(anchor.open_time)}: {anchor.close:.10g} stored, {close:.10g} now), which a split or "
                    "dividend causes; delete the stored series and fetch it again"
                )
        yield page.span(first, last)


def _stored_bar(store: CandleStore, stored: StoredSeries, open_time: int) -> Bar:
    return next(store.load(stored.symbol, stored.interval, open_time, open_time + 1).bars())


def _end_of(page: BarSeries, otherwise: int) -> int:
    return int(page.open_time[-1]) + 1 if len(page) else otherwise


def _plus(one: AppendResult, other: AppendResult) -> AppendResult:
    return AppendResult(one.added + other.added, one.already_there + other.already_there)


def _joined(pages: Sequence[BarSeries], symbol: str, interval: str) -> BarSeries:
    """Pages that follow each other as one series."""
    if not pages:
        return BarSeries.empty(symbol, interval)
    opens, highs, lows, closes, volumes = (np.concatenate([getattr(page, name) for page in pages]) for name in COLUMNS)
    times = np.concatenate([page.open_time for page in pages])
    return BarSeries(symbol, interval, pages[0].calendar, times, opens, highs, lows, closes, volumes)
