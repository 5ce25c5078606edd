"""Features: two forms of one kernel, a pure function of the last bars, finite whatever the market does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.bars import HOUR_MS, BarSeries, Calendar, parse_time
from strategies.features import (
    FEATURE_NAMES,
    FEATURE_SET,
    FEATURE_WARMUP,
    LONG_VOLATILITY_FEATURE,
    TREND_SPANS,
    VOLATILITY_FEATURE,
    FeatureState,
    feature_matrix,
)
from tests.strategies.markets import hostile_bars, random_walk, real_candles, with_other_future


def incremental(series: BarSeries) -> np.ndarray:
    state = FeatureState()
    return np.array([state.update(bar) for bar in series.bars()])


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def column(matrix: np.ndarray, name: str) -> np.ndarray:
    return matrix[:, FEATURE_NAMES.index(name)]


@settings(max_examples=60, deadline=None)
@given(bars=hostile_bars(max_size=220))
def test_the_batch_form_gives_the_bits_of_the_incremental_form_in_any_market(bars):
    series = BarSeries.of(bars, "60")
    assert same_bits(feature_matrix(series), incremental(series))


@settings(max_examples=60, deadline=None)
@given(bars=hostile_bars())
def test_every_feature_of_every_bar_is_finite_and_within_its_bounds(bars):
    matrix = feature_matrix(BarSeries.of(bars, "60"))
    assert np.isfinite(matrix).all()
    assert np.abs(column(matrix, "volume_zscore")).max() < 4.26
    assert column(matrix, "volume_change").min() >= -1.0
    assert column(matrix, "volume_change").max() <= 19.0
    assert np.abs(column(matrix, "close_location")).max() <= 1.0
    assert 0.0 <= column(matrix, "bar_range").min() <= column(matrix, "bar_range").max() <= 10.0
    for span in TREND_SPANS:
        assert np.abs(column(matrix, f"trend_{span}")).max() <= 10.0
    assert column(matrix, "volatility_ratio").max() <= 2.6


def test_both_forms_agree_on_real_candles(real_data):
    series = real_candles(real_data, "bybit_linear_BTCUSDT_1h", "BTCUSDT")
    assert same_bits(feature_matrix(series), incremental(series))


def test_a_batch_longer_than_one_chunk_has_no_seam():
    series = random_walk(66_500, seed=1)
    matrix = feature_matrix(series)
    tail = series.slice(65_000, 66_500)
    assert same_bits(matrix[65_000 + FEATURE_WARMUP :], incremental(tail)[FEATURE_WARMUP:])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), start=st.integers(0, 400), wild=st.booleans())
def test_features_are_a_pure_function_of_the_last_bars_wherever_the_history_began(seed, start, wild):
    """A state started late gives the same bits as one that saw everything, from ``FEATURE_WARMUP`` bars on."""
    series = random_walk(700, seed, volatility=2.0 if wild else 0.01)
    everything = incremental(series)
    late = incremental(series.slice(start, len(series)))
    assert same_bits(everything[start + FEATURE_WARMUP - 1 :], late[FEATURE_WARMUP - 1 :])


@settings(max_examples=60, deadline=None)
@given(past=hostile_bars(max_size=80), seed=st.integers(0, 2**31))
def test_whatever_a_market_did_before_the_warm_up_is_forgotten_to_the_last_bit(past, seed):
    later = list(random_walk(FEATURE_WARMUP + 5, seed, start=past[-1].close_time).bars())
    scarred, fresh = FeatureState(), FeatureState()
    for bar in past:
        scarred.update(bar)
    one = np.array([scarred.update(bar) for bar in later])
    other = np.array([fresh.update(bar) for bar in later])
    assert same_bits(one[FEATURE_WARMUP - 1 :], other[FEATURE_WARMUP - 1 :])


def test_one_bar_fewer_than_the_warm_up_is_not_enough():
    """The warm-up is as short as it can be: the longest window really reaches that far back."""
    series = random_walk(400, seed=3)
    late = incremental(series.slice(100, 400))
    assert not np.array_equal(incremental(series)[100 + FEATURE_WARMUP - 2], late[FEATURE_WARMUP - 2])


def test_the_state_after_a_series_goes_on_like_the_state_that_saw_it():
    series = random_walk(6_000, seed=4)
    lived = FeatureState()
    for bar in series.slice(0, 5_000).bars():
        lived.update(bar)
    resumed = FeatureState.after(series.slice(0, 5_000))
    rest = list(series.slice(5_000, 6_000).bars())
    assert [lived.update(bar) for bar in rest] == [resumed.update(bar) for bar in rest]


def test_no_feature_knows_the_future():
    series = random_walk(600, seed=5)
    for place in (1, 50, 168, 300, 599):
        assert same_bits(feature_matrix(series)[:place], feature_matrix(with_other_future(series, place))[:place])


def test_features_are_what_their_definitions_say(real_data):
    """Against pandas, which computes the specification's features another way."""
    series = real_candles(real_data, "bybit_linear_ETHUSDT_1h", "ETHUSDT").slice(0, 5_000)
    matrix = feature_matrix(series)
    frame = pd.DataFrame({"close": series.close, "volume": series.volume, "high": series.high, "low": series.low})
    returns = np.log(frame.close / frame.close.shift(1))
    long = returns.rolling(120).std()
    volumes = frame.volume.rolling(20)
    expected = {
        "log_return": returns,
        "volatility_20": returns.rolling(20).std(),
        "volatility_120": long,
        "volatility_ratio": returns.rolling(20).std() / long,
        "volume_change": frame.volume / volumes.mean() - 1.0,
        "volume_zscore": (frame.volume - volumes.mean()) / volumes.std(),
        "bar_range": (frame.high - frame.low) / frame.close,
        "close_location": (2.0 * frame.close - frame.high - frame.low) / (frame.high - frame.low),
        **{f"trend_{s}": np.log(frame.close / frame.close.shift(s)) / (long * np.sqrt(s)) for s in TREND_SPANS},
    }
    for name, values in expected.items():
        np.testing.assert_allclose(
            column(matrix, name)[FEATURE_WARMUP:], values.to_numpy()[FEATURE_WARMUP:], rtol=0, atol=1e-9, err_msg=name
        )


def test_the_first_bars_use_the_bars_there_are():
    series = random_walk(30, seed=6)
    matrix = feature_matrix(series)
    returns = np.diff(np.log(series.close))
    assert matrix[0, VOLATILITY_FEATURE] == matrix[1, VOLATILITY_FEATURE] == 0.0
    np.testing.assert_allclose(matrix[5, VOLATILITY_FEATURE], returns[:5].std(ddof=1), atol=1e-12)
    np.testing.assert_allclose(matrix[29, LONG_VOLATILITY_FEATURE], returns.std(ddof=1), atol=1e-12)
    scaled = np.log(series.close[9] / series.close[0]) / (returns[:9].std(ddof=1) * 3.0)
    np.testing.assert_allclose(column(matrix, "trend_168")[9], scaled, atol=1e-9)


def test_a_market_that_stands_still_has_neutral_features():
    series = random_walk(300, seed=7)
    still = np.full(300, 1e-8)
    series = replace(series, open=still, high=still, low=still, close=still, volume=np.zeros(300))
    neutral = dict.fromkeys(FEATURE_NAMES[:13], 0.0) | {"volatility_ratio": 1.0}
    assert dict(zip(FEATURE_NAMES[:13], feature_matrix(series)[250, :13].tolist(), strict=True)) == neutral


def test_time_features_follow_the_utc_day_and_a_week_that_begins_on_monday():
    monday = parse_time("2024-01-01")  # a Monday
    series = replace(random_walk(200, seed=8), open_time=monday + HOUR_MS * np.arange(200, dtype=np.int64))
    matrix = feature_matrix(series)
    np.testing.assert_allclose(column(matrix, "time_of_day_sin")[[0, 6, 18, 30]], [0, 1, -1, 1], atol=1e-12)
    np.testing.assert_allclose(column(matrix, "time_of_week_cos")[[0, 84, 168]], [1, -1, 1], atol=1e-12)


def test_a_scaled_market_has_the_same_features():
    """Prices in another currency and volumes in another unit: all features stay, but for rounding."""
    series = random_walk(500, seed=9)
    other = replace(
        series,
        **{name: getattr(series, name) * 1e-6 for name in ("open", "high", "low", "close")},
        volume=series.volume * 1e9,
    )
    np.testing.assert_allclose(feature_matrix(series), feature_matrix(other), atol=1e-9)


def test_an_empty_series_has_no_rows():
    assert feature_matrix(BarSeries.empty("AAAUSDT", "60", Calendar.CONTINUOUS)).shape == (0, len(FEATURE_NAMES))


def test_a_price_that_is_not_positive_is_refused():
    bar = next(random_walk(1, seed=1).bars())
    with pytest.raises(ValueError):
        FeatureState().update(type(bar)("AAAUSDT", 0, 1, 0.0, 0.0, 0.0, 0.0, 0.0))


def test_the_feature_set_is_named_by_a_version_and_a_hash():
    version, digest = FEATURE_SET.split(":")
    assert version.isdigit()
    assert len(digest) == 64
