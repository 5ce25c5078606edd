"""Scaling: statistics of the training span alone, the same numbers for a row and for a matrix."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies.errors import ShapeError
from strategies.features import feature_matrix
from strategies.scaling import CLIP, Scaler
from tests.strategies.markets import random_walk, with_other_future

MATRICES = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 40), st.integers(1, 6)), elements=st.floats(-1e6, 1e6, allow_subnormal=False)
)


@given(matrix=MATRICES)
def test_a_row_alone_has_the_bits_it_has_in_the_matrix(matrix):
    scaler = Scaler.fit(matrix)
    whole = scaler.transform(matrix)
    assert whole.dtype == np.float32
    for row, scaled in zip(matrix, whole, strict=True):
        assert scaler.transform(tuple(row.tolist())).tobytes() == scaled.tobytes()


@given(matrix=MATRICES)
def test_scaled_values_are_finite_and_clipped(matrix):
    scaled = Scaler.fit(matrix).transform(matrix * 1e6)
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() <= CLIP


def test_the_training_span_gets_mean_zero_and_deviation_one():
    matrix = np.random.default_rng(0).normal([5.0, -2.0], [0.001, 300.0], (5_000, 2))
    scaled = Scaler.fit(matrix).transform(matrix).astype(np.float64)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, atol=1e-6)


def test_a_feature_without_variance_becomes_zero():
    matrix = np.column_stack((np.full(100, 0.1), np.arange(100.0)))
    scaled = Scaler.fit(matrix).transform(matrix)
    assert np.abs(scaled[:, 0]).max() < 1e-6
    assert np.isfinite(scaled).all()


def test_rows_outside_the_fitted_span_change_nothing():
    series = random_walk(900, seed=1)
    one = Scaler.fit(feature_matrix(series)[:600])
    other = Scaler.fit(feature_matrix(with_other_future(series, 600))[:600])
    assert one.to_dict() == other.to_dict()


def test_json_keeps_a_scaler_to_the_last_bit():
    matrix = np.random.default_rng(1).normal(size=(50, 17))
    scaler = Scaler.fit(matrix)
    read = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert read.transform(matrix).tobytes() == scaler.transform(matrix).tobytes()


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"mean": [0.0]},
        {"mean": [0.0], "scale": [1.0, 2.0]},
        {"mean": [0.0], "scale": [0.0]},
        {"mean": ["x"], "scale": [1.0]},
        {"mean": [float("nan")], "scale": [1.0]},
    ],
)
def test_a_stored_scaler_that_no_fit_gives_is_refused(plain):
    with pytest.raises(ShapeError, match="stored scaler"):
        Scaler.from_dict(plain)


@pytest.mark.parametrize("matrix", [np.empty((0, 3)), np.zeros(3), np.array([[np.nan]])])
def test_nothing_to_fit_is_refused(matrix):
    with pytest.raises(ShapeError):
        Scaler.fit(matrix)


def test_features_of_another_number_are_refused():
    with pytest.raises(ShapeError, match="fitted to 2 features"):
        Scaler.fit(np.eye(2)).transform(np.zeros(3))
