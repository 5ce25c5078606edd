"""Outcomes: log returns over received bars, known when the last of them closes."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.bars import HOUR_MS
from strategies.features import LONG_VOLATILITY_FEATURE, VOLATILITY_FEATURE, feature_matrix
from strategies.outcomes import NEVER, SMALLEST_VOLATILITY, outcome, outcome_matrix, settled_times, trailing_volatility
from tests.strategies.markets import random_walk


@given(
    closes=st.lists(st.floats(1e-8, 1e8), max_size=40),
    horizons=st.lists(st.integers(1, 30), min_size=1, max_size=4, unique=True).map(sorted),
)
def test_the_matrix_holds_the_bits_of_the_single_outcomes(closes, horizons):
    matrix = outcome_matrix(np.array(closes, dtype=np.float64), horizons)
    assert matrix.shape == (len(closes), len(horizons))
    for bar in range(len(closes)):
        for column, horizon in enumerate(horizons):
            if bar + horizon < len(closes):
                assert matrix[bar, column] == outcome(closes[bar], closes[bar + horizon])
            else:
                assert np.isnan(matrix[bar, column])


def test_an_outcome_is_a_log_return():
    assert outcome(100.0, 110.0) == log(1.1)


def test_horizons_count_received_bars_not_hours():
    """A gap makes the outcome late, not early."""
    closes = np.array([0, 1, 2, 50, 51], dtype=np.int64) * HOUR_MS
    assert settled_times(closes, (1, 3)).tolist() == [
        [1 * HOUR_MS, 50 * HOUR_MS],
        [2 * HOUR_MS, 51 * HOUR_MS],
        [50 * HOUR_MS, NEVER],
        [51 * HOUR_MS, NEVER],
        [NEVER, NEVER],
    ]


def test_trailing_volatility_is_between_the_short_and_the_long_and_never_zero():
    features = feature_matrix(random_walk(300, seed=2))
    volatility = trailing_volatility(features)
    both = features[:, [VOLATILITY_FEATURE, LONG_VOLATILITY_FEATURE]]
    assert volatility[0] == SMALLEST_VOLATILITY
    assert (volatility[2:] >= both[2:].min(axis=1) * (1 - 1e-12)).all()
    assert (volatility[2:] <= both[2:].max(axis=1) * (1 + 1e-12)).all()
    assert float(trailing_volatility(features[200])) == volatility[200] == pytest.approx(0.01, rel=0.3)
