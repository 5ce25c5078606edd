"""Which bar a time means: the last one closed, and none at all where the market had long moved on."""

from __future__ import annotations

import pytest

from bot.banks.moments import closed_by, last_closed
from bot.errors import UsageError
from strategies.bars import DAY_MS, HOUR_MS, Bar, BarSeries, Calendar, parse_time

MONDAY = parse_time("2024-01-01T14:30")


def hours(count: int, calendar: Calendar = Calendar.CONTINUOUS, start: int = MONDAY) -> BarSeries:
    opens = [start + number * HOUR_MS for number in range(count)]
    return BarSeries.of([Bar("X", at, at + HOUR_MS, 1.0, 1.0, 1.0, 1.0, 1.0) for at in opens], "60", calendar)


def test_a_bar_counts_from_the_millisecond_of_its_close() -> None:
    """Not one before."""
    series = hours(5)
    close = MONDAY + 3 * HOUR_MS
    assert last_closed(series, close) == last_closed(series, close + HOUR_MS - 1) == 2
    assert last_closed(series, close - 1) == 1
    assert len(closed_by(series, close)) == 3 and len(closed_by(series, close - 1)) == 2


def test_beyond_the_candles_there_is_no_bar() -> None:
    """A market that never closes has a bar every hour, so an hour later the bar is not the last one any more."""
    series = hours(5)
    with pytest.raises(UsageError, match="has no bar that closes at 2024-01-01T20:30Z: the last one before closed at"):
        last_closed(series, MONDAY + 6 * HOUR_MS)
    with pytest.raises(UsageError, match="no bar of X interval 60 was closed at"):
        last_closed(series, MONDAY)
    with pytest.raises(UsageError, match="get some with recall fetch"):
        last_closed(BarSeries.empty("X", "60"), MONDAY)


def test_over_a_weekend_the_last_bar_of_friday_is_the_last_one() -> None:
    """Of a market with sessions; a week later it is not."""
    friday = hours(7, Calendar.SESSIONS, parse_time("2024-01-05T14:30"))
    assert last_closed(friday, parse_time("2024-01-08T12:00")) == 6
    with pytest.raises(UsageError, match="has no bar that closes"):
        last_closed(friday, parse_time("2024-01-05T21:30") + 5 * DAY_MS)
