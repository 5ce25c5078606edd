"""Where the sandbox's candles come from: anything that can name the bars of a span and the bar after a moment."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from strategies.bars import Bar, BarSeries


class BarSource(Protocol):
    """The candles of one symbol, past and future."""

    def between(self, first: int, last: int, limit: int) -> list[Bar]:
        """The newest ``limit`` bars that open in ``[first, last]`` (both ends, milliseconds), in order."""

    def following(self, time: int) -> Bar | None:
        """The first bar that closes after ``time``, or ``None`` when there is none."""

    def opening_from(self, time: int | None) -> int | None:
        """Open time of the first bar that opens at or after ``time`` (``None``: of the first of all)."""

    def final_close(self) -> int | None:
        """Close time of the last bar, or ``None`` when bars never end."""


class StoredBars:
    """A candle series as a source; bars that open at or after ``end`` are hidden."""

    def __init__(self, series: BarSeries, end: int | None = None) -> None:
        self._series = series.span(None, end)
        self._close_time = self._series.close_time

    def between(self, first: int, last: int, limit: int) -> list[Bar]:
        series = self._series
        start = int(np.searchsorted(series.open_time, first, side="left"))
        stop = int(np.searchsorted(series.open_time, last, side="right"))
        return list(series.slice(max(start, stop - limit), max(start, stop)).bars())

    def following(self, time: int) -> Bar | None:
        series = self._series
        position = int(np.searchsorted(self._close_time, time, side="right"))
        if position >= len(series):
            return None
        return Bar(
            series.symbol,
            int(series.open_time[position]),
            int(self._close_time[position]),
            float(series.open[position]),
            float(series.high[position]),
            float(series.low[position]),
            float(series.close[position]),
            float(series.volume[position]),
        )

    def opening_from(self, time: int | None) -> int | None:
        position = 0 if time is None else int(np.searchsorted(self._series.open_time, time, side="left"))
        return int(self._series.open_time[position]) if position < len(self._series) else None

    def final_close(self) -> int | None:
        return int(self._close_time[-1]) if len(self._series) else 0
