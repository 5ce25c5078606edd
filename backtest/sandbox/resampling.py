"""Candles of longer intervals, put together from those of the venue's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from strategies.bars import DAY_MS, Bar, interval_ms

CODES: Final = ("1", "3", "5", "15", "30", "60", "120", "240", "360", "720", "D", "W")
"""Bybit's intervals (https://bybit-exchange.github.io/docs/v5/enum#interval) but for months, whose length is not fixed."""
WEEK_OFFSET_MS: Final = 4 * DAY_MS
"""The epoch was a Thursday, and the venue's weeks begin on Monday."""


def intervals_of(base: str) -> tuple[str, ...]:
    """Intervals that candles of ``base`` can be put together to, ``base`` first."""
    if base == "M":
        return ("M",)
    length = interval_ms(base)
    longer = (code for code in CODES if interval_ms(code) > length and not interval_ms(code) % length)
    return (base, *longer)


def floor_open(time: int, interval: str) -> int:
    """Open time of the candle that a moment lies in."""
    offset = WEEK_OFFSET_MS if interval == "W" else 0
    return time - (time - offset) % interval_ms(interval)


def resample(bars: Iterable[Bar], interval: str) -> list[Bar]:
    """Candles of a longer interval from bars in order; the first and the last may lack some of theirs."""
    candles: list[Bar] = []
    length = interval_ms(interval)
    for bar in bars:
        opened = floor_open(bar.open_time, interval)
        if candles and candles[-1].open_time == opened:
            last = candles[-1]
            candles[-1] = Bar(
                bar.symbol,
                opened,
                last.close_time,
                last.open,
                max(last.high, bar.high),
                min(last.low, bar.low),
                bar.close,
                round(last.volume + bar.volume, 8),
            )
        else:
            volume = bar.volume
            candles.append(Bar(bar.symbol, opened, opened + length, bar.open, bar.high, bar.low, bar.close, volume))
    return candles
