"""Admission: a print that nothing followed is not remembered, a crash is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.admission import LARGEST_BODY, ORDINARY_VOLUME, SPAN, AdmissionState
from strategies.bars import HOUR_MS, BarSeries, Calendar, parse_time
from tests.strategies.markets import random_walk, real_candles, with_other_future

GLITCH_WICK = 8.0


def refused(series: BarSeries, glitch_wick: float = GLITCH_WICK) -> list[int]:
    """Open times of the bars that may not become memories."""
    return series.open_time[~AdmissionState(glitch_wick).admit_many(series)].tolist()


def quiet_market(length: int = 100) -> BarSeries:
    """Bars from 99 to 101 that open and close at 100 on a volume of 10."""
    ones = np.ones(length)
    times = HOUR_MS * np.arange(length, dtype=np.int64)
    columns = (100.0 * ones, 101.0 * ones, 99.0 * ones, 100.0 * ones, 10.0 * ones)
    return BarSeries("AAAUSDT", "60", Calendar.CONTINUOUS, times, *columns)


def with_bar(series: BarSeries, place: int, **values: float) -> BarSeries:
    columns = {name: getattr(series, name).copy() for name in values}
    for name, value in values.items():
        columns[name][place] = value
    return replace(series, **columns)


@pytest.mark.parametrize(
    ("values", "remembered"),
    [
        ({"low": 80.0}, False),
        ({"high": 120.0}, False),
        ({"low": 85.0}, True),  # 7.5 medians of the range
        ({"low": 80.0, "volume": 10.0 * ORDINARY_VOLUME}, False),
        ({"low": 80.0, "volume": 10.0 * ORDINARY_VOLUME + 1.0}, True),
        ({"low": 60.0, "close": 100.0 - 40.0 * LARGEST_BODY / (1.0 + LARGEST_BODY) + 0.01}, False),
        ({"low": 60.0, "close": 100.0 - 40.0 * LARGEST_BODY / (1.0 + LARGEST_BODY) - 0.01}, True),
        ({"low": 60.0, "close": 60.0}, True),  # nothing came back
    ],
)
def test_a_long_wick_on_an_ordinary_volume_that_closed_back_inside_is_refused(values, remembered):
    series = with_bar(quiet_market(), 70, **values)
    assert refused(series) == ([] if remembered else [70 * HOUR_MS])


def test_a_bar_with_too_few_before_it_is_not_judged():
    for place, judged in ((SPAN - 1, False), (SPAN, True)):
        assert refused(with_bar(quiet_market(), place, low=50.0)) == ([place * HOUR_MS] if judged else [])


def test_zero_switches_it_off():
    series = with_bar(quiet_market(), 70, low=1.0)
    assert refused(series, 0.0) == []
    assert all(AdmissionState(0.0).admit(bar) for bar in series.bars())


WICKS = st.lists(st.tuples(st.integers(0, 199), st.floats(0.1, 0.95)), max_size=8)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1_000), wicks=WICKS, place=st.integers(1, 199))
def test_the_judgement_of_a_bar_never_depends_on_later_ones(seed, wicks, place):
    series = random_walk(200, seed)
    for at, part in wicks:
        series = with_bar(series, at, low=series.low[at] * part)
    mine = AdmissionState(2.0).admit_many(series)
    other = AdmissionState(2.0).admit_many(with_other_future(series, place))
    assert mine[:place].tolist() == other[:place].tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1_000), wicks=WICKS, start=st.integers(0, 140))
def test_after_its_span_a_judge_no_longer_knows_where_it_began(seed, wicks, start):
    series = random_walk(200, seed)
    for at, part in wicks:
        series = with_bar(series, at, low=series.low[at] * part)
    whole = AdmissionState(2.0).admit_many(series)
    late = AdmissionState(2.0).admit_many(series.slice(start, len(series)))
    assert late[SPAN:].tolist() == whole[start + SPAN :].tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000), wicks=WICKS)
def test_the_rule_is_that_of_the_plain_medians(seed, wicks):
    series = random_walk(200, seed)
    for at, part in wicks:
        series = with_bar(series, at, low=series.low[at] * part)
    expected = []
    for at in range(SPAN, len(series)):
        before = slice(at - SPAN, at)
        body = abs(series.close[at] - series.open[at])
        top, bottom = max(series.open[at], series.close[at]), min(series.open[at], series.close[at])
        wick = max(series.high[at] - top, bottom - series.low[at])
        ordinary = series.volume[at] <= ORDINARY_VOLUME * np.median(series.volume[before])
        long = wick > 2.0 * np.median(series.high[before] - series.low[before])
        if long and ordinary and body <= LARGEST_BODY * wick:
            expected.append(int(series.open_time[at]))
    assert refused(series, 2.0) == expected


HOURS = {
    "bybit_linear_BTCUSDT_1h": "BTCUSDT",
    "bybit_linear_ETHUSDT_1h": "ETHUSDT",
    "bybit_linear_SOLUSDT_1h": "SOLUSDT",
    "binance_spot_BTCUSDT_1h": "BTCUSDT",
}
CRASHES = ("2020-03-12", "2020-03-13", "2021-05-19", "2022-11-08", "2023-08-17", "2024-08-05", "2025-10-10")


@pytest.mark.parametrize("name", HOURS)
def test_on_real_hours_of_crypto_nothing_is_refused_and_certainly_no_crash(real_data, name):
    """Their longest wicks, up to 44 medians, all came on many times the ordinary volume: markets, not prints."""
    series = real_candles(real_data, name, HOURS[name])
    assert refused(series) == []
    half = refused(series, GLITCH_WICK / 2)
    days = [(parse_time(day), parse_time(day) + 24 * HOUR_MS) for day in CRASHES]
    assert not [time for time in half for start, end in days if start <= time < end]


def test_real_wicks_that_the_mark_price_followed_are_all_remembered(real_data):
    """The mark price tells prints from markets, but is in no stream of candles; volume stands in for it."""
    series = real_candles(real_data, "bybit_linear_BTCUSDT_1h", "BTCUSDT")
    mark = real_candles(real_data, "bybit_linear_BTCUSDT_mark_1h", "BTCUSDT")
    series = series.span(int(mark.open_time[0]), None)
    assert np.array_equal(series.open_time, mark.open_time)
    bottom = np.minimum(series.open, series.close)
    wick = bottom - series.low
    followed = bottom - mark.low > 0.5 * wick
    assert not set(refused(series, 3.0)) & set(series.open_time[followed].tolist())


def test_wrong_ticks_of_a_real_stock_are_refused_and_its_flash_crash_is_not(real_data):
    """Lows of a tenth of the price stand in these daily bars, on days of ordinary volume."""
    series = real_candles(real_data, "stock_AAPL_1d_1998_2021", "AAPL", "D")
    found = {time // (24 * HOUR_MS) * 24 * HOUR_MS for time in refused(series)}
    assert {parse_time("2009-09-21"), parse_time("2010-08-31"), parse_time("2011-01-03")} <= found
    assert parse_time("2010-05-06") not in found
    assert len(found) < 6
