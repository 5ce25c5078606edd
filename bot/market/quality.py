"""Whether a bar that came from a venue may be believed."""

from __future__ import annotations

import math
from typing import Final

from strategies.bars import Bar, Calendar, close_time_of, format_time

CLOCK_TOLERANCE_MS: Final = 500
"""How far a bar's close may lie after the time at which the venue says it sent it."""


def bar_fault(bar: Bar, interval: str, calendar: Calendar, venue_time: int = 0) -> str | None:
    """What is wrong with a closed bar, as half a sentence that names the bar, or ``None`` when nothing is.

    Args:
        bar: the bar as received.
        interval: the interval that was asked for.
        calendar: of the symbol's market.
        venue_time: the venue's clock when it sent the bar (milliseconds); 0 when it is not known.
    """
    fault = _fault(bar, interval, calendar, venue_time)
    return None if fault is None else f"its bar of {_when(bar)} {fault}"


def _fault(bar: Bar, interval: str, calendar: Calendar, venue_time: int) -> str | None:
    prices = (bar.open, bar.high, bar.low, bar.close)
    if not all(math.isfinite(price) for price in prices):
        return "has a price that is missing or no number"
    if min(prices) <= 0.0:
        return f"has a price that is not positive ({min(prices)})"
    if bar.high < bar.low:
        return f"has a high of {bar.high} below its low of {bar.low}"
    if not math.isfinite(bar.volume) or bar.volume < 0.0:
        return f"has no usable volume ({bar.volume})"
    try:
        expected = close_time_of(bar.open_time, interval, calendar)
    except (OverflowError, ValueError, OSError):
        return f"opens at {bar.open_time}, which is no time"
    if bar.close_time != expected:
        return f"closes at {bar.close_time} instead of {expected}"
    if venue_time and bar.close_time > venue_time + CLOCK_TOLERANCE_MS:
        return "was called closed before its close"
    return None


def _when(bar: Bar) -> str:
    try:
        return format_time(bar.open_time)
    except (OverflowError, ValueError, OSError):
        return str(bar.open_time)
