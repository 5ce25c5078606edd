"""The forecaster: a bar keeps its bits whatever else is forecast with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import SearchResult, SearchResults
from strategies.bars import HOUR_MS
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.forecaster import Forecaster, Forecasts
from strategies.memory_transformer.streaming import EncodedSeries
from tests.strategies.memory_transformer.tiny import TINY, tiny_model

NOW = 10_000 * HOUR_MS


def result(random: np.random.Generator, count: int, k: int, width: int) -> SearchResult:
    """``count`` neighbours of any kind, padded to ``k`` as the bank pads them."""
    mask = np.arange(k) < count
    keys = random.standard_normal((k, width)).astype(np.float32)
    outcomes = np.where(random.random((k, 3)) < 0.8, 0.1 * random.standard_normal((k, 3)), np.nan)
    keys[~mask], outcomes[~mask] = 0.0, np.nan
    times = np.where(mask, NOW - HOUR_MS * random.integers(100, 9_000, k), 0)
    scores = np.where(mask, 0.5, -np.inf)
    ids = np.where(mask, np.arange(k), -1)
    return SearchResult(ids, scores, mask, keys, outcomes, times, ("",) * k, ids, count)


def bundle_of(bundle: Bundle, **changes: object) -> Bundle:
    return replace(bundle, model=tiny_model(**changes))


def assert_is_that_of(alone: Forecasts, together: Forecasts, place: int) -> None:
    """To the last bit the forecast of one bar, and that of a bar among others."""
    assert all(np.array_equal(one, other[place, None]) for one, other in zip(alone, together, strict=True))
    assert all(
        alone.forecasts(each) == together.forecasts(each)[place : place + 1] for each in range(len(TINY.horizons))
    )


@pytest.mark.parametrize("output_type", list(OutputType))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(1, 40))
def test_a_bar_has_the_same_forecast_alone_and_in_any_company(bundle, output_type, seed, count):
    random = np.random.default_rng(seed)
    forecaster = Forecaster(bundle_of(bundle, output_type=output_type), TINY.n_neighbors)
    encoded = EncodedSeries(*random.standard_normal((2, count, TINY.d_model)).astype(np.float32))
    results = [
        result(random, int(random.integers(TINY.n_neighbors + 1)), TINY.n_neighbors, TINY.d_model) for _ in range(count)
    ]
    volatility = random.uniform(0.001, 0.05, count).tolist()
    times = [NOW + HOUR_MS * place for place in range(count)]
    together = forecaster.forecast(encoded, SearchResults.of(results), times, volatility)
    assert len(together.forecasts(0)) == count
    for place in range(count):
        alone = EncodedSeries(encoded.hidden[place, None], encoded.keys[place, None])
        found = SearchResults.of([results[place]])
        again = forecaster.forecast(alone, found, [times[place]], [volatility[place]])
        assert_is_that_of(again, together, place)


def test_at_full_size_every_bar_has_the_same_bits_alone(bundle):
    """The default shape, whose loops are cut into other pieces than small ones."""
    random = np.random.default_rng(0)
    width, k, count = 64, 32, 24
    forecaster = Forecaster(bundle_of(bundle, d_model=width, n_heads=4, d_ff=256, n_neighbors=k), k)
    encoded = EncodedSeries(*random.standard_normal((2, count, width)).astype(np.float32))
    results = SearchResults.of([result(random, k, k, width) for _ in range(count)])
    together = forecaster.forecast(encoded, results, [NOW] * count, [0.01] * count)
    for row in range(count):
        alone = EncodedSeries(encoded.hidden[row, None], encoded.keys[row, None])
        found = results[row : row + 1]
        assert_is_that_of(forecaster.forecast(alone, found, [NOW], [0.01]), together, row)
    assert len(set(together.predictions.tolist())) == count
