"""Bars: one candle, a column-wise series of them, and the clock arithmetic of intervals and calendars.

Times are integer milliseconds since the epoch, UTC. A bar is named by its *open* time and is known at its *close* time.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, repeat
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000

# Bybit's own interval codes: https://bybit-exchange.github.io/docs/v5/enum#interval
INTERVALS: Final = ("1", "3", "5", "15", "30", "60", "120", "240", "360", "720", "D", "W", "M")
_ALIASES: Final = {
    "1m": "1",
    "3m": "3",
    "5m": "5",
    "15m": "15",
    "30m": "30",
    "1h": "60",
    "2h": "120",
    "4h": "240",
    "6h": "360",
    "12h": "720",
    "1d": "D",
    "d": "D",
    "1440": "D",
    "1w": "W",
    "w": "W",
    "1M": "M",
}
SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,39}")
"""What a symbol may be called: it also names a folder."""


class Calendar(StrEnum):
    """When a market is open."""

    CONTINUOUS = "continuous"
    """Never closes (crypto): bars follow each other without a gap."""
    SESSIONS = "sessions"
    """Opens and closes (stocks): a bar exists only where a session was."""

    @property
    def days_per_year(self) -> int:
        """Trading days in a year: 365 for a market that never closes, 252 for stock sessions."""
        return 365 if self is Calendar.CONTINUOUS else 252


def parse_interval(text: str) -> str:
    """Bybit's code for an interval written either way (``60``, ``1h``, ``D``, ``1d``).

    Raises:
        ValueError: it is none of Bybit's intervals.
    """
    code = text if text in INTERVALS else _ALIASES.get(text, _ALIASES.get(text.lower()))
    if code is None:
        raise ValueError(f"interval {text!r} is unknown; use one of {', '.join(INTERVALS)} (minutes, or D, W, M)")
    return code


def parse_symbol(text: str) -> str:
    """The name of a symbol, which may also name a folder.

    Raises:
        ValueError: it holds other characters than capitals, digits, dot, dash and underscore, starts with none of the
            first two, or is longer than 40.
    """
    if not SYMBOL.fullmatch(text):
        raise ValueError(f"symbol {text!r} needs up to 40 capitals, digits, '.', '_' or '-', such as BTCUSDT")
    return text


def interval_ms(interval: str) -> int:
    """Nominal length of an interval in milliseconds (a month counts as 30 days)."""
    if interval in ("D", "W", "M"):
        return {"D": DAY_MS, "W": 7 * DAY_MS, "M": 30 * DAY_MS}[interval]
    return int(interval) * MINUTE_MS


def close_time_of(open_time: int, interval: str, calendar: Calendar = Calendar.CONTINUOUS) -> int:
    """When the bar that opens at ``open_time`` is known, in milliseconds.

    A daily bar of a market with sessions is known 23 hours after its open: later than any exchange's close, yet never
    after the next session's open, which a change to summer time moves one hour forward.
    """
    if interval == "M":
        opened = dt.datetime.fromtimestamp(open_time / 1000, tz=dt.UTC)
        following = (opened.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        return int(following.timestamp() * 1000)
    if interval == "D" and calendar is Calendar.SESSIONS:
        return open_time + 23 * HOUR_MS
    return open_time + interval_ms(interval)


def format_time(time_ms: int) -> str:
    """``2024-08-05T06:00Z``: how a time is written for people."""
    moment = dt.datetime.fromtimestamp(time_ms / 1000, tz=dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M" if time_ms % MINUTE_MS == 0 else "%Y-%m-%dT%H:%M:%S") + "Z"


def parse_time(text: str) -> int:
    """Milliseconds of a UTC date or date and time in ISO form; a bare date is its midnight.

    Raises:
        ValueError: it is not such a date.
    """
    try:
        moment = dt.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"date {text!r} is not understood; write 2024-01-31 or 2024-01-31T06:00 (UTC)") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp() * 1000)


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One closed candle. Prices in quote units, volume in base units, times in milliseconds UTC."""

    symbol: str
    open_time: int
    close_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COLUMNS: Final = ("open", "high", "low", "close", "volume")
_BARS_AT_ONCE: Final = 256
"""Bars made from columns together: few enough to stay in the processor's cache until they are used."""


@dataclass(frozen=True, slots=True)
class BarSeries:
    """The bars of one symbol in strictly increasing order of open time, column by column.

    ``first_ordinal`` is the number of the first bar, counted in bars received since the symbol's stored history began.
    Numbers are absolute: the blocks of training and of what a replay looks ahead to are aligned to them, so a bar sits at the
    same place of its block whatever span it was loaded in.
    """

    symbol: str
    interval: str
    calendar: Calendar
    open_time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    first_ordinal: int = 0

    def __len__(self) -> int:
        return len(self.open_time)

    @property
    def close_time(self) -> IntArray:
        """Close time of every bar, ``[n]`` milliseconds."""
        if self.interval == "M":
            return np.array([close_time_of(int(t), "M") for t in self.open_time], dtype=np.int64)
        return self.open_time + np.int64(close_time_of(0, self.interval, self.calendar))

    def slice(self, start: int, stop: int) -> BarSeries:
        """Bars ``start`` to ``stop`` by position, with their absolute numbers."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return replace(
            self,
            open_time=self.open_time[start:stop],
            open=self.open[start:stop],
            high=self.high[start:stop],
            low=self.low[start:stop],
            close=self.close[start:stop],
            volume=self.volume[start:stop],
            first_ordinal=self.first_ordinal + start,
        )

    def span(self, start_time: int | None, end_time: int | None) -> BarSeries:
        """Bars that open in the half-open span ``[start_time, end_time)``; ``None`` leaves that side open."""
        start = 0 if start_time is None else int(np.searchsorted(self.open_time, start_time, side="left"))
        stop = len(self) if end_time is None else int(np.searchsorted(self.open_time, end_time, side="left"))
        return self.slice(start, max(start, stop))

    def bars(self) -> Iterator[Bar]:
        """Every bar in order."""
        columns = (self.open_time, self.close_time, self.open, self.high, self.low, self.close, self.volume)
        return chain.from_iterable(
            map(Bar, repeat(self.symbol), *[column[start : start + _BARS_AT_ONCE].tolist() for column in columns])
            for start in range(0, len(self), _BARS_AT_ONCE)
        )

    def digest(self) -> str:
        """SHA-256 over times and prices, in hexadecimal: two series with equal digests hold equal bars."""
        digest = hashlib.sha256(f"{self.symbol}|{self.interval}|{self.calendar}|{self.first_ordinal}".encode())
        for column in (self.open_time, self.open, self.high, self.low, self.close, self.volume):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    @classmethod
    def of(
        cls, bars: list[Bar], interval: str, calendar: Calendar = Calendar.CONTINUOUS, *, first_ordinal: int = 0
    ) -> BarSeries:
        """A series of bars that are already in order and of one symbol.

        Raises:
            ValueError: there are none, they mix symbols, or their times do not increase.
        """
        if not bars:
            raise ValueError("a series needs at least one bar; use BarSeries.empty for none")
        symbol = bars[0].symbol
        open_time = np.array([bar.open_time for bar in bars], dtype=np.int64)
        if any(bar.symbol != symbol for bar in bars):
            raise ValueError(f"a series holds one symbol; these bars mix {sorted({bar.symbol for bar in bars})}")
        if np.any(np.diff(open_time) <= 0):
            raise ValueError(f"{symbol}: bars must be in strictly increasing order of open time")
        columns = {name: np.array([getattr(bar, name) for bar in bars], dtype=np.float64) for name in COLUMNS}
        return cls(
            symbol,
            interval,
            calendar,
            open_time,
            columns["open"],
            columns["high"],
            columns["low"],
            columns["close"],
            columns["volume"],
            first_ordinal,
        )

    @classmethod
    def empty(
        cls, symbol: str, interval: str, calendar: Calendar = Calendar.CONTINUOUS, *, first_ordinal: int = 0
    ) -> BarSeries:
        """A series without bars."""
        nothing = np.empty(0, dtype=np.float64)
        times = np.empty(0, dtype=np.int64)
        return cls(
            symbol, interval, calendar, times, nothing, nothing, nothing, nothing, nothing, first_ordinal=first_ordinal
        )
