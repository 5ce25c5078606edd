"""Stocks from Yahoo Finance through the package ``yfinance``, an optional extra."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bot.errors import UsageError, VenueError
from bot.market.validation import CandleFrame, Policy, repair
from strategies.bars import COLUMNS, DAY_MS, BarSeries, Calendar, format_time

if TYPE_CHECKING:
    import pandas as pd

Downloader = Callable[..., "pd.DataFrame | None"]
"""``yfinance.download``, or a function that takes the same arguments."""


@dataclass(frozen=True, slots=True)
class _YahooInterval:
    """How Yahoo names an interval, how many days back it has it, and how many days one request may span."""

    code: str
    days_kept: int | None = None
    days_per_request: int | None = None


_INTERVALS: Final = {
    "1": _YahooInterval("1m", 29, 7),
    "5": _YahooInterval("5m", 59),
    "15": _YahooInterval("15m", 59),
    "30": _YahooInterval("30m", 59),
    "60": _YahooInterval("1h", 729),
    "D": _YahooInterval("1d"),
    "W": _YahooInterval("1wk"),
    "M": _YahooInterval("1mo"),
}


def _yfinance_download() -> Downloader:
    try:
        import yfinance  # an optional extra
    except ImportError:
        raise UsageError(
            "the source 'yfinance' needs the package yfinance, which is not installed; "
            "run `pip install 'recall-bot[stocks]'`"
        ) from None
    download: Downloader = yfinance.download
    return download


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class YFinanceSource:
    """A ``HistorySource`` of stocks: prices adjusted for splits and dividends, sessions only, closed bars only.

    Yahoo keeps hours for 729 days, minutes for 29 and the lengths between for 59; earlier starts begin there. Adjusting in
    floating point moves opens and closes out of [low, high] by a rounding error, so that bars are mended as
    ``Policy.REPAIR`` says.

    Args:
        download: takes the place of ``yfinance.download``.
        now_ms: the clock that says which bars have closed, in milliseconds.

    Raises:
        UsageError: ``yfinance`` is not installed.
    """

    download: Downloader = field(default_factory=_yfinance_download)
    now_ms: Callable[[], int] = _now_ms
    name: str = "yfinance"
    calendar: Calendar = Calendar.SESSIONS
    is_adjusted: bool = True

    def pages(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Iterator[BarSeries]:
        """See ``HistorySource``.

        Raises:
            UsageError: Yahoo has no such interval.
            DataError: the bars are not sound.
            VenueError: Yahoo cannot be reached, or has no bar of the symbol in the span.
        """
        yahoo = _INTERVALS.get(interval)
        if yahoo is None:
            raise UsageError(f"interval {interval!r} is not one of Yahoo's; use one of {', '.join(_INTERVALS)}")
        now = self.now_ms()
        start = start_ms if yahoo.days_kept is None else max(start_ms, now - yahoo.days_kept * DAY_MS)
        end = min(end_ms, now)
        window = max(1, end - start) if yahoo.days_per_request is None else yahoo.days_per_request * DAY_MS
        has_rows = False
        for first in range(start, end, window):
            frame = self._ask(symbol, interval, yahoo.code, first, min(first + window, end))
            has_rows = has_rows or len(frame) > 0
            series = repair(frame, Calendar.SESSIONS, Policy.REPAIR)[0].span(first, min(first + window, end))
            closed = int(np.searchsorted(series.close_time, now, side="right"))
            if closed:
                yield series.slice(0, closed)
        if start < end and not has_rows:
            raise VenueError(
                f"Yahoo has no bars of {symbol} {interval} from {format_time(start)} to {format_time(end)}; "
                "check the symbol and the span, or try again later"
            )

    def _ask(self, symbol: str, interval: str, code: str, start_ms: int, end_ms: int) -> CandleFrame:
        try:
            table = self.download(
                symbol,
                start=dt.datetime.fromtimestamp(start_ms / 1000, tz=dt.UTC),
                end=dt.datetime.fromtimestamp(end_ms / 1000, tz=dt.UTC),
                interval=code,
                auto_adjust=True,
                actions=False,
                # Without it the opens of days and weeks would be local dates that look like UTC.
                ignore_tz=False,
                progress=False,
                threads=False,
            )
        except Exception as error:  # whatever a scraper and its network stack may raise
            raise VenueError(
                f"Yahoo did not give bars of {symbol} {interval} ({type(error).__name__}: {error}); try again later"
            ) from None
        return _frame(table, symbol, interval)


def _frame(table: pd.DataFrame | None, symbol: str, interval: str) -> CandleFrame:
    """The rows of a download, with or without the level of column names that holds the ticker.

    Raises:
        VenueError: the table is not one of candles.
    """
    if table is None or not len(table):
        nothing = np.empty(0, dtype=np.float64)
        return CandleFrame(symbol, interval, np.empty(0, dtype=np.int64), *([nothing] * len(COLUMNS)))
    columns = {_price_name(label): table.iloc[:, place] for place, label in enumerate(table.columns)}
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise VenueError(
            f"Yahoo's answer for {symbol} {interval} has no column {missing[0]!r}; update yfinance and try again"
        )
    values = [columns[name].to_numpy(dtype=np.float64) for name in COLUMNS]
    # Yahoo lists halted and future sessions as rows without prices.
    is_priced = ~np.isnan(np.stack(values[:4])).all(axis=0)
    return CandleFrame(symbol, interval, _milliseconds(table.index), *values).take(is_priced)


def _price_name(label: Any) -> str:
    """``close`` for ``Close``, ``("Close", "AAPL")`` and ``("AAPL", "Close")``."""
    levels = [str(level).lower() for level in (label if isinstance(label, tuple) else (label,))]
    return next((level for level in levels if level in COLUMNS), levels[0])


def _milliseconds(index: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    naive = index if index.tz is None else index.tz_convert("UTC").tz_localize(None)
    return np.asarray(naive.to_numpy().astype("datetime64[ms]").astype(np.int64))
