"""The read-out: weights over independent moments, and what they say about the outcome."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from memory_store import SearchResult
from strategies.readout import QUANTILES, neighbours, read_out, read_out_all, weighted_quantiles

FAR = 1_000_000
CLUSTER = 1_000


def found(scores, outcomes, times=None, *, k: int | None = None, symbols=None) -> SearchResult:
    """A search result with these neighbours, padded to ``k`` as the bank pads it."""
    n = len(scores)
    k = n if k is None else k
    times = [FAR * number for number in range(n)] if times is None else times
    symbols = ["AAAUSDT"] * n if symbols is None else symbols

    def padded(values, fill, dtype):
        return np.array([*values, *[fill] * (k - n)], dtype=dtype)

    return SearchResult(
        ids=padded(range(n), -1, np.int64),
        scores=padded(scores, -np.inf, np.float64),
        mask=np.arange(k) < n,
        keys=np.zeros((k, 2), dtype=np.float32),
        outcomes=padded(outcomes, np.nan, np.float64)[:, None],
        bar_times=padded(times, 0, np.int64),
        symbols=(*symbols, *[""] * (k - n)),
        regimes=padded([0] * n, -1, np.int64),
        visible=n,
    )


def view_of(result: SearchResult, temperature: float = 0.1):
    return read_out(result, 0, temperature=temperature, cluster_ms=CLUSTER)


SEEN = (st.floats(-1.0, 1.0), st.floats(-0.5, 0.5) | st.just(float("nan")), st.integers(0, 20_000))
NEIGHBOURS = st.lists(
    st.tuples(st.floats(-1.0, 1.0), st.floats(-0.5, 0.5), st.integers(0, 20_000)), min_size=1, max_size=40
)


@given(rows=NEIGHBOURS, extra=st.integers(0, 5), temperature=st.sampled_from([1e-4, 0.07, 2.0]))
def test_shares_sum_to_one_and_all_summaries_lie_within_the_outcomes(rows, extra, temperature):
    rows.sort(key=lambda row: -row[0])
    scores, outcomes, times = zip(*rows, strict=True)
    view = view_of(found(scores, outcomes, times, k=len(rows) + extra), temperature)
    low, high = min(outcomes), max(outcomes)
    assert view.weights.min() >= 0.0
    assert view.weights.sum() == pytest.approx(1.0)
    assert (view.weights[len(rows) :] == 0.0).all()
    assert 1 <= view.moments <= view.count == len(rows)
    assert 1.0 - 1e-9 <= view.effective <= view.moments + 1e-9
    assert low - 1e-12 <= view.mean <= high + 1e-12
    assert 0.0 <= view.positive_ratio <= 1.0
    levels = [level for _, level in view.quantiles]
    assert levels == sorted(levels)
    assert low <= levels[0] <= levels[-1] <= high


@given(rows=NEIGHBOURS, extra=st.integers(1, 9))
def test_masked_rows_change_no_bit(rows, extra):
    scores, outcomes, times = zip(*rows, strict=True)
    one = view_of(found(scores, outcomes, times))
    other = view_of(found(scores, outcomes, times, k=len(rows) + extra))
    assert one.weights.tobytes() == other.weights[: len(rows)].tobytes()
    assert (one.mean, one.deviation, one.positive_ratio, one.quantiles, one.effective) == (
        other.mean,
        other.deviation,
        other.positive_ratio,
        other.quantiles,
        other.effective,
    )


@given(data=st.data(), horizon=st.just(0))
def test_a_view_has_the_same_bits_in_any_company(data, horizon):
    k = data.draw(st.sampled_from([1, 5, 8, 32, 40]))
    results = []
    for rows in data.draw(st.lists(st.lists(st.tuples(*SEEN), max_size=k), min_size=1, max_size=9)):
        scores, outcomes, times = zip(*rows, strict=True) if rows else ((), (), ())
        results.append(found(scores, outcomes, times, k=k))
    views = read_out_all(results, horizon, temperature=0.07, cluster_ms=CLUSTER)
    for result, view in zip(results, views, strict=True):
        alone = view_of(result, 0.07)
        assert view.weights.tobytes() == alone.weights.tobytes()
        assert repr(replace(view, weights=None)) == repr(replace(alone, weights=None))


def test_equal_neighbours_far_apart_have_equal_shares():
    view = view_of(found([0.5] * 4, [0.1, -0.1, 0.2, 0.0]))
    assert view.weights.tolist() == [0.25] * 4
    assert view.effective == view.moments == 4
    assert view.mean == pytest.approx(0.05)
    assert view.deviation == pytest.approx(np.std([0.1, -0.1, 0.2, 0.0]))
    assert view.positive_ratio == pytest.approx(0.5 + 0.125)


def test_weights_are_a_softmax_of_the_scores():
    view = view_of(found([0.9, 0.8, 0.5], [0.0] * 3), temperature=0.1)
    expected = np.exp([9.0, 8.0, 5.0])
    np.testing.assert_allclose(view.weights, expected / expected.sum(), rtol=1e-12)


def test_a_crowd_of_overlapping_moments_counts_as_one_also_across_symbols():
    times = [FAR, FAR + 400, FAR - 400, FAR + 999, 9 * FAR]
    result = found([0.5] * 5, [0.1, 0.1, 0.1, 0.1, -0.1], times, symbols=["A", "B", "A", "C", "A"])
    view = view_of(result)
    assert view.count == 5
    assert view.moments == 2
    assert view.effective == pytest.approx(2.0)
    assert view.positive_ratio == pytest.approx(0.5)
    np.testing.assert_allclose(view.weights, [0.125] * 4 + [0.5])


def test_more_copies_of_a_moment_do_not_make_it_count_more():
    alone = view_of(found([0.9, 0.8], [0.1, -0.1], [FAR, 5 * FAR]))
    crowd = view_of(found([0.9, 0.9, 0.9, 0.8], [0.1, 0.1, 0.1, -0.1], [FAR, FAR, FAR, 5 * FAR]))
    assert crowd.mean == pytest.approx(alone.mean)
    assert crowd.effective == pytest.approx(alone.effective)


def test_weighted_quantiles_of_equal_weights_are_hazens():
    values = np.random.default_rng(0).normal(size=101)
    ours = weighted_quantiles(values[None], np.full((1, 101), 0.3), QUANTILES)[0]
    np.testing.assert_allclose(ours, np.quantile(values, QUANTILES, method="hazen"), rtol=1e-12)


def test_an_unknown_outcome_has_no_vote():
    view = view_of(found([0.9, 0.8], [np.nan, 0.1]))
    assert view.count == 1
    assert view.weights.tolist() == [0.0, 1.0]


def test_without_neighbours_nothing_is_claimed():
    view = view_of(found([], [], k=4))
    assert (view.count, view.moments, view.effective, view.quantiles) == (0, 0, 0.0, ())
    assert np.isnan(view.mean)
    assert view.weights.tolist() == [0.0] * 4


def test_neighbours_are_listed_best_first_with_their_share_and_outcome():
    result = found([0.9, 0.8], [0.1, -0.2], [FAR, 3 * FAR], k=3)
    first, second = neighbours(result, view_of(result), 0)
    assert (first.entry_id, first.symbol, first.bar_open_time, first.similarity) == (0, "AAAUSDT", FAR, 0.9)
    assert (first.outcome, second.outcome) == (0.1, -0.2)
    assert first.weight + second.weight == pytest.approx(1.0)
    assert first.weight > second.weight


def test_a_row_without_a_value_has_no_quantiles():
    values = np.array([[np.inf, np.inf], [1.0, np.inf]])
    levels = weighted_quantiles(values, np.array([[0.0, 0.0], [1.0, 0.0]]), (0.1, 0.9))
    assert np.isnan(levels[0]).all() and levels[1].tolist() == [1.0, 1.0]
