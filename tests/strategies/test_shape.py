"""Shapes: the same key alone and in bulk, wherever the history began, and never a vector without direction."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from strategies.bars import BarSeries
from strategies.features import LOG_RETURN_FEATURE, feature_matrix
from strategies.shape import SHAPE_DIMENSION, SHAPE_WARMUP, SHAPE_WINDOW, shape_key, shape_keys
from tests.strategies.markets import hostile_bars, random_walk, with_other_future


@settings(max_examples=40, deadline=None)
@given(bars=hostile_bars(max_size=80))
def test_a_key_alone_has_the_bits_it_has_in_bulk_and_a_direction(bars):
    features = feature_matrix(BarSeries.of(bars, "60"))
    keys = shape_keys(features)
    assert keys.shape == (max(0, len(bars) - SHAPE_WINDOW + 1), SHAPE_DIMENSION)
    assert np.isfinite(keys).all()
    assert keys.any(axis=1).all()
    for row, key in enumerate(keys):
        place = row + SHAPE_WINDOW
        alone = shape_key(features[row:place, LOG_RETURN_FEATURE], features[place - 1])
        assert alone.tobytes() == key.tobytes()


def test_keys_go_on_from_earlier_returns():
    features = feature_matrix(random_walk(300, 1))
    whole = shape_keys(features)
    rest = shape_keys(features[200:], features[:200, LOG_RETURN_FEATURE])
    assert rest.tobytes() == whole[-100:].tobytes()


def test_a_key_is_a_pure_function_of_the_last_bars():
    series = random_walk(600, 2)
    whole = shape_keys(feature_matrix(series))
    late = shape_keys(feature_matrix(series.slice(150, 600)))
    complete = SHAPE_WARMUP - SHAPE_WINDOW
    assert late[complete:].tobytes() == whole[150 + complete :].tobytes()


def test_no_key_knows_the_future():
    series = random_walk(400, 3)
    keys = shape_keys(feature_matrix(series))[: 300 - SHAPE_WINDOW + 1]
    other = shape_keys(feature_matrix(with_other_future(series, 300)))[: 300 - SHAPE_WINDOW + 1]
    assert keys.tobytes() == other.tobytes()


def test_the_same_shape_at_another_scale_is_the_same_key():
    """Twice the volatility everywhere: log returns double, the shape stays."""
    quiet, wild = random_walk(400, 4, volatility=0.004), random_walk(400, 4, volatility=0.008)
    one, other = (shape_keys(feature_matrix(series))[300, :SHAPE_WINDOW] for series in (quiet, wild))
    np.testing.assert_allclose(one, other, atol=1e-5)
