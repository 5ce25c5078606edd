"""The grid that bars lie on: where a market that never closes has a bar, for every interval, vectorised."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.bars import DAY_MS, HOUR_MS, Calendar, IntArray, interval_ms

# The epoch was a Thursday; weekly bars open on Mondays at 00:00 UTC.
_FIRST_MONDAY: Final = 4 * DAY_MS
_SHORTEST_MONTH: Final = 27 * DAY_MS


def grid_position(open_time: IntArray, interval: str) -> IntArray:
    """Number of the grid cell that each time falls into, ``[n]``; consecutive bars have consecutive numbers.

    Cells are counted from the epoch for minutes, hours and days, from Mondays for weeks, and by calendar month for ``M``.
    """
    if interval == "M":
        return open_time.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    origin = _FIRST_MONDAY if interval == "W" else 0
    return (open_time - np.int64(origin)) // np.int64(interval_ms(interval))


def on_grid(open_time: IntArray, interval: str) -> npt.NDArray[np.bool_]:
    """Whether each time is exactly the open of a grid cell, ``[n]``."""
    if interval == "M":
        month = open_time.astype("datetime64[ms]").astype("datetime64[M]")
        return np.asarray(month.astype("datetime64[ms]").astype(np.int64) == open_time)
    origin = _FIRST_MONDAY if interval == "W" else 0
    return np.asarray((open_time - np.int64(origin)) % np.int64(interval_ms(interval)) == 0)


def bars_between(start: int, end: int, interval: str) -> int:
    """How many grid cells open in the half-open span ``[start, end)``."""
    # The number of opens before t is the cell of the last millisecond before t, plus a constant that cancels out.
    before = grid_position(np.array([start - 1, end - 1], dtype=np.int64), interval)
    return max(0, int(before[1] - before[0]))


def least_spacing(interval: str, calendar: Calendar) -> int:
    """Smallest distance between the opens of two bars of which neither lies inside the other, in milliseconds.

    Sessions move by one hour with summer time, so bars of a day and longer may be one hour closer than their length.
    """
    if interval == "M":
        return _SHORTEST_MONTH
    length = interval_ms(interval)
    return length - HOUR_MS if calendar is Calendar.SESSIONS and length >= DAY_MS else length
