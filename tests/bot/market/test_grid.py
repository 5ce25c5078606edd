"""The grid that bars lie on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bot.market.grid import bars_between, grid_position, on_grid
from strategies.bars import INTERVALS, close_time_of, parse_time

TIMES = st.integers(parse_time("1962-01-01"), parse_time("2100-01-01"))


def first_open_from(time: int, interval: str) -> int:
    """The next open, found by walking closes from a known one of long ago."""
    opened = {"W": parse_time("1961-01-02"), "M": parse_time("1961-01-01")}.get(interval, 0)
    if interval not in ("W", "M"):
        length = close_time_of(0, interval)
        return -(-time // length) * length
    while opened < time:
        opened = close_time_of(opened, interval)
    return opened


@given(TIMES, st.sampled_from(INTERVALS))
def test_the_close_of_a_bar_is_the_next_cell_of_the_grid(time: int, interval: str) -> None:
    opened = first_open_from(time, interval)
    times = np.array([opened, close_time_of(opened, interval)], dtype=np.int64)
    assert on_grid(times, interval).all()
    assert np.diff(grid_position(times, interval)).tolist() == [1]
    assert bars_between(int(times[0]), int(times[1]), interval) == 1


@given(TIMES, st.sampled_from(INTERVALS))
def test_a_millisecond_after_an_open_is_in_its_cell_but_off_the_grid(time: int, interval: str) -> None:
    opened = first_open_from(time, interval)
    times = np.array([opened, opened + 1], dtype=np.int64)
    assert on_grid(times, interval).tolist() == [True, False]
    assert np.diff(grid_position(times, interval)).tolist() == [0]


def test_an_empty_or_reversed_span_has_no_bars() -> None:
    assert bars_between(5_000, 5_000, "1") == 0
    assert bars_between(600_000, 0, "1") == 0


def test_a_half_open_span_counts_its_first_open_and_not_its_end() -> None:
    assert bars_between(0, 180_000, "1") == 3
    assert bars_between(1, 180_001, "1") == 3


def test_weeks_open_on_mondays() -> None:
    monday, thursday = parse_time("2024-01-01"), parse_time("2024-01-04")
    assert on_grid(np.array([monday, thursday]), "W").tolist() == [True, False]
