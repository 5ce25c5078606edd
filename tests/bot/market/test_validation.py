"""What the validator finds and what the policy does about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import ExitCode
from bot.market.importing import read_candle_frame
from bot.market.validation import CandleFrame, DataError, Policy, Problem, Severity, repair, require_sound, validate
from strategies.bars import Calendar, parse_time
from tests.bot.market.candle_examples import START, changed, walk, without

HOUR = 3_600_000
CONTINUOUS, SESSIONS = Calendar.CONTINUOUS, Calendar.SESSIONS


def frame_of(count: int = 10) -> CandleFrame:
    return CandleFrame.of(walk(count))


def with_rows(frame: CandleFrame, rows: list[int]) -> CandleFrame:
    return frame.take(np.array(rows, dtype=np.int64))


def test_a_sound_series_has_no_findings() -> None:
    report = validate(walk(100), CONTINUOUS)
    assert report.findings == ()
    assert report.is_sound
    assert (report.rows, report.first_open, report.last_open) == (100, START, START + 99 * HOUR)


def test_an_empty_frame_is_sound() -> None:
    report = validate(walk(0), CONTINUOUS)
    assert report.is_sound
    assert (report.rows, report.first_open, report.last_open) == (0, None, None)


def test_gaps_are_counted_with_their_missing_bars_and_their_places() -> None:
    report = validate(without(walk(20), 3, 4, 5, 11), CONTINUOUS)
    assert report.count(Problem.GAP) == 2
    assert report.missing_bars == 4
    assert report.is_sound
    [finding] = report.of_severity(Severity.WARNING)
    assert finding.examples == ("after 2024-01-01T02:00Z (3 missing)", "after 2024-01-01T10:00Z (1 missing)")


def test_a_report_names_only_the_first_places_but_counts_all() -> None:
    report = validate(without(walk(40), *range(1, 39, 2)), CONTINUOUS)
    [finding] = report.findings
    assert finding.count == 19
    assert len(finding.examples) == 3


def test_sessions_have_gaps_only_where_five_days_are_silent() -> None:
    days = walk(30, interval="D", calendar=SESSIONS, start=parse_time("2024-01-01T14:30"))
    weekend = without(days, 5, 6)
    assert validate(weekend, SESSIONS).findings == ()
    report = validate(without(days, 10, 11, 12, 13, 14), SESSIONS)
    assert report.count(Problem.GAP) == 1
    assert report.missing_bars == 0
    assert "6.0 days" in report.findings[0].examples[0]


def test_rows_in_any_order_are_sorted_and_reported() -> None:
    frame = frame_of()
    series, report = repair(with_rows(frame, [3, 1, 0, 2, *range(4, 10)]), CONTINUOUS)
    assert series.digest() == walk(10).digest()
    assert report.count(Problem.UNORDERED) == 2
    assert report.repaired == ("rows sorted",)


def test_equal_duplicates_are_dropped_and_counted() -> None:
    series, report = repair(with_rows(frame_of(), [0, 1, 1, 1, *range(2, 10)]), CONTINUOUS)
    assert series.digest() == walk(10).digest()
    assert report.count(Problem.DUPLICATE) == 2
    assert report.repaired == ("duplicate rows dropped: 2",)


@pytest.mark.parametrize("policy", list(Policy))
def test_different_rows_of_one_open_time_are_refused_with_both_closes(policy: Policy) -> None:
    frame = with_rows(frame_of(), [0, 1, 2, 2])
    frame = replace(frame, close=np.array([100.0, 101.0, 102.0, 103.0]), high=np.full(4, 110.0), low=np.full(4, 90.0))
    with pytest.raises(DataError, match=r"BTCUSDT 60: conflicting .*2024-01-01T02:00Z \(closes 102 and 103\)"):
        repair(frame, CONTINUOUS, policy)


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -5.0])
def test_prices_that_are_not_positive_numbers_are_refused(policy: Policy, column: str, value: float) -> None:
    frame = CandleFrame.of(changed(walk(10), column, 4, value))
    with pytest.raises(DataError, match=rf"prices .*: 1, first at 2024-01-01T04:00Z .*{column} {value:g}"):
        repair(frame, CONTINUOUS, policy)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_volumes_that_are_negative_or_not_numbers_are_refused(value: float) -> None:
    with pytest.raises(DataError, match=r"volumes .*: 1, first at 2024-01-01T04:00Z"):
        repair(CandleFrame.of(changed(walk(10), "volume", 4, value)), CONTINUOUS, Policy.REPAIR)


def test_zero_volume_is_information_and_nothing_else() -> None:
    report = validate(changed(walk(10), "volume", 4, 0.0), CONTINUOUS)
    assert [(finding.problem, finding.severity) for finding in report.findings] == [
        (Problem.ZERO_VOLUME, Severity.INFORMATION)
    ]


@pytest.mark.parametrize(("column", "value"), [("open", 500.0), ("close", 1.0), ("high", 1.0), ("low", 500.0)])
def test_a_bar_that_contradicts_itself_is_refused_or_widened_as_the_policy_says(column: str, value: float) -> None:
    frame = CandleFrame.of(changed(walk(10), column, 4, value))
    with pytest.raises(
        DataError, match=r"outside \[low, high\]: 1, first at 2024-01-01T04:00Z .*recall fetch --repair"
    ):
        repair(frame, CONTINUOUS)
    series, report = repair(frame, CONTINUOUS, Policy.REPAIR)
    assert report.repaired == ("bars whose high or low was widened: 1",)
    assert (series.open == frame.open).all()
    assert (series.close == frame.close).all()
    assert (series.high >= np.maximum(series.open, series.close)).all()
    assert (series.low <= np.minimum(series.open, series.close)).all()
    require_sound(series)


def test_times_off_the_grid_of_a_market_that_never_closes_are_refused() -> None:
    shifted = replace(frame_of(), open_time=frame_of().open_time + 60_000)
    with pytest.raises(DataError, match=r"open times off the grid: 10, first at 2024-01-01T00:01Z"):
        repair(shifted, CONTINUOUS)


def test_a_bar_that_opens_inside_another_is_refused_in_sessions() -> None:
    frame = frame_of()
    times = frame.open_time.copy()
    times[5] -= HOUR // 2
    with pytest.raises(DataError, match=r"bars that open inside the bar before: 1, first at 2024-01-01T04:30Z"):
        repair(replace(frame, open_time=times), SESSIONS)


def test_the_empty_closing_print_of_a_short_session_is_dropped() -> None:
    hours = walk(8, calendar=SESSIONS)
    closing = replace(walk(1, calendar=SESSIONS, start=START + 7 * HOUR + HOUR // 2), volume=np.zeros(1))
    names = ("open_time", "open", "high", "low", "close", "volume")
    columns = [np.concatenate([getattr(hours, name), getattr(closing, name)]) for name in names]
    series, report = repair(CandleFrame("AAPL", "60", *columns), SESSIONS)
    assert series.open_time.tolist() == hours.open_time.tolist()
    assert report.repaired == ("empty bars inside the bar before dropped: 1",)


def test_days_of_sessions_may_be_23_hours_apart_when_summer_time_begins() -> None:
    days = walk(3, interval="D", calendar=SESSIONS, start=parse_time("2024-03-08T14:30"))
    times = days.open_time - np.array([0, 0, HOUR])
    assert validate(replace(days, open_time=times), SESSIONS).findings == ()


def test_gaps_are_never_filled() -> None:
    holed = without(walk(20), 3, 4)
    series, report = repair(CandleFrame.of(holed), CONTINUOUS, Policy.REPAIR)
    assert series.digest() == holed.digest()
    assert report.missing_bars == 2


def test_a_series_out_of_order_is_not_sound() -> None:
    series = walk(5)
    with pytest.raises(DataError, match="repair them first"):
        require_sound(replace(series, open_time=series.open_time[::-1].copy()))


def test_a_data_error_ends_the_command_as_a_usage_error() -> None:
    assert DataError("x").exit_code is ExitCode.USAGE


@given(st.lists(st.integers(0, 29), min_size=1, max_size=80))
def test_repair_gives_the_distinct_bars_in_order_whatever_rows_came(rows: list[int]) -> None:
    whole = walk(30)
    series, report = repair(with_rows(CandleFrame.of(whole), rows), CONTINUOUS)
    wanted = sorted(set(rows))
    assert series.open_time.tolist() == whole.open_time[wanted].tolist()
    assert series.close.tolist() == whole.close[wanted].tolist()
    assert report.count(Problem.DUPLICATE) == len(rows) - len(wanted)
    assert report.missing_bars == wanted[-1] - wanted[0] + 1 - len(wanted)
    again = validate(series, CONTINUOUS)
    assert not again.count(Problem.UNORDERED)
    assert not again.count(Problem.DUPLICATE)


def test_the_outages_of_a_real_exchange_are_all_found(real_data: Path) -> None:
    """Binance was down 27 times for 122 hours, the longest time for 33 hours in February 2018."""
    frame = read_candle_frame(real_data / "binance_spot_BTCUSDT_1h.parquet", "BTCUSDT", "60")
    series, report = repair(frame, CONTINUOUS)
    assert (report.count(Problem.GAP), report.missing_bars) == (27, 122)
    assert report.is_sound
    assert len(series) == len(frame)
    longest = series.open_time[:-1][np.diff(series.open_time) == 34 * HOUR]
    assert longest.tolist() == [parse_time("2018-02-08T00:00")]


def test_the_old_bars_of_a_real_exchange_that_contradict_themselves_are_found_and_mended(real_data: Path) -> None:
    """BitMEX opened 4,521 bars at the close before, outside of what was traded in them."""
    frame = read_candle_frame(real_data / "bitmex_XBTUSD_1h.parquet", "XBTUSD", "60")
    report = validate(frame, CONTINUOUS)
    assert (report.count(Problem.OHLC), report.count(Problem.GAP)) == (4521, 2)
    with pytest.raises(DataError, match="4521"):
        repair(frame, CONTINUOUS)
    series, report = repair(frame, CONTINUOUS, Policy.REPAIR)
    assert len(series) == len(frame)
    assert validate(series, CONTINUOUS).is_sound
