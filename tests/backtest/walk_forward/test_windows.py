"""Which spans a walk learns from and trades."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.walk_forward.windows import Scheme, plan_windows
from bot.errors import UsageError
from strategies.bars import DAY_MS, HOUR_MS, parse_time

FIRST = parse_time("2021-01-01")
EMBARGO = 48 * HOUR_MS


def spans(scheme: Scheme, start: str, end: str, *, test_months: int = 6) -> list[tuple[int, int, int, int]]:
    windows = plan_windows(
        FIRST, parse_time(start), parse_time(end), test_months=test_months, scheme=scheme, train_months=12,
        embargo_ms=EMBARGO,
    )  # fmt: skip
    return [(each.train_start, each.train_end, each.start, each.end) for each in windows]


def test_a_rolling_window_forgets_and_an_anchored_one_does_not() -> None:
    rolling = spans(Scheme.ROLLING, "2022-01-01", "2023-01-01")
    assert [each[0] for each in rolling] == [FIRST, parse_time("2021-07-01")]
    assert {each[0] for each in spans(Scheme.ANCHORED, "2022-01-01", "2023-01-01")} == {FIRST}
    assert [each[2] for each in rolling] == [parse_time("2022-01-01"), parse_time("2022-07-01")]


@given(days=st.integers(40, 2000), months=st.integers(1, 14), scheme=st.sampled_from(Scheme))
def test_windows_cover_the_span_and_learn_only_from_what_is_the_embargo_before(
    days: int, months: int, scheme: Scheme
) -> None:
    start, end = parse_time("2021-03-01"), parse_time("2021-03-01") + days * DAY_MS
    windows = plan_windows(FIRST, start, end, test_months=months, scheme=scheme, train_months=3, embargo_ms=EMBARGO)
    assert windows[0].start == start and windows[-1].end == end
    assert all(one.end == other.start for one, other in pairwise(windows))
    assert all(FIRST <= each.train_start < each.train_end == each.start - EMBARGO for each in windows)


def test_a_window_without_a_past_is_refused_with_the_fix() -> None:
    with pytest.raises(UsageError, match="nothing to learn from before 2021-01-02"):
        spans(Scheme.ROLLING, "2021-01-02", "2022-01-01")
    with pytest.raises(UsageError, match="widen the span"):
        spans(Scheme.ROLLING, "2022-01-01", "2022-01-01")
