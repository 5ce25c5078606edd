"""Regimes: causal labels against medians of what was seen so far."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies.features import LONG_VOLATILITY_FEATURE, feature_matrix
from strategies.regimes import REGIME_NAMES, ExpandingMedian, RegimeState
from tests.strategies.markets import random_walk, real_candles, with_other_future


@given(numbers=st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_the_expanding_median_is_the_lower_median_of_all_numbers_so_far(numbers):
    median = ExpandingMedian(31)
    for count, number in enumerate(numbers, start=1):
        assert median.add(number) == sorted(numbers[:count])[(count - 1) // 2]


def test_labels_of_rows_and_of_matrices_agree():
    features = feature_matrix(random_walk(800, seed=1))
    state = RegimeState()
    one_by_one = [state.update(tuple(row)) for row in features.tolist()]
    assert RegimeState().update_many(features).tolist() == one_by_one


def test_a_label_never_depends_on_later_bars():
    series = random_walk(800, seed=2)
    labels = RegimeState().update_many(feature_matrix(series))
    for place in (1, 200, 500):
        other = RegimeState().update_many(feature_matrix(with_other_future(series, place)))
        assert labels[:place].tolist() == other[:place].tolist()


def test_a_state_goes_on_where_it_stopped():
    features = feature_matrix(random_walk(800, seed=3))
    state = RegimeState()
    parts = [state.update_many(features[:333]), state.update_many(features[333:])]
    assert np.concatenate(parts).tolist() == RegimeState().update_many(features).tolist()


def test_labels_say_what_the_market_did(real_data):
    series = real_candles(real_data, "bybit_linear_BTCUSDT_1h", "BTCUSDT")
    features = feature_matrix(series)
    labels = RegimeState().update_many(features)
    names = np.array(REGIME_NAMES)[labels]
    moved = np.zeros(len(series))
    moved[72:] = np.log(series.close[72:] / series.close[:-72])
    volatility = features[:, LONG_VOLATILITY_FEATURE]
    bull, bear, wild = (np.char.find(names, word) >= 0 for word in ("bull", "bear", "volatile"))
    assert moved[bull][200:].min() > 0.0
    assert moved[bear][200:].max() < 0.0
    assert volatility[wild].mean() > 1.5 * volatility[~wild].mean()
    assert set(labels.tolist()) == set(range(len(REGIME_NAMES)))


def test_a_market_that_stands_still_is_sideways_and_calm():
    rows = np.zeros((50, feature_matrix(random_walk(1, seed=1)).shape[1]))
    assert {REGIME_NAMES[label] for label in RegimeState().update_many(rows).tolist()} == {"sideways calm"}
