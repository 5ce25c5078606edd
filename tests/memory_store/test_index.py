"""The kernels of exact search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.index import BLOCK, GIVE_UP, best_first, candidates, rescore, scan_margin
from memory_store.records import BankConfig, Metric
from memory_store.vectors import prepare, prepare_one

seeds = st.integers(0, 2**32)
dimensions = st.sampled_from([1, 2, 3, 7, 8, 16, 33, 64, 100, 129, 300])


def vectors(random: np.random.Generator, count: int, dimension: int, scale: float = 1.0) -> np.ndarray:
    return (scale * random.standard_normal((count, dimension))).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(seeds, dimensions, st.integers(1, 500), st.data())
def test_a_rescored_row_does_not_depend_on_its_company(seed, dimension, count, data):
    """Alone, in any subset, in any order, from a strided view, with a query per row: the same bits."""
    random = np.random.default_rng(seed)
    keys, query = vectors(random, count, dimension), vectors(random, 1, dimension)[0]
    together = rescore(keys, query)
    row = data.draw(st.integers(0, count - 1))
    assert rescore(keys[row : row + 1], query)[0] == together[row]
    some = random.permutation(count)[: data.draw(st.integers(1, count))]
    assert rescore(keys[some], query).tobytes() == together[some].tobytes()
    assert rescore(np.asfortranarray(keys), query).tobytes() == together.tobytes()
    assert rescore(keys[::-2], query).tobytes() == together[::-2].tobytes()
    assert rescore(keys, np.tile(query, (count, 1))).tobytes() == together.tobytes()


@pytest.mark.parametrize("shape", [(2,), (4,), (2, 3), (1, 2)])
def test_queries_that_do_not_fit_their_keys_are_refused(shape):
    with pytest.raises(ValueError, match="do not fit keys"):
        rescore(np.ones((3, 3), dtype=np.float32), np.ones(shape, dtype=np.float32))


def test_a_rescored_row_is_the_same_on_both_sides_of_a_chunk():
    """More rows than are widened at once."""
    random = np.random.default_rng(1)
    keys, query = vectors(random, 20_000, 8), vectors(random, 1, 8)[0]
    together = rescore(keys, query)
    assert together.tobytes() == np.concatenate([rescore(keys[i : i + 1], query) for i in range(20_000)]).tobytes()


@settings(max_examples=60, deadline=None)
@given(seeds, dimensions)
def test_a_rescored_product_is_exact_to_float64(seed, dimension):
    random = np.random.default_rng(seed)
    keys, query = vectors(random, 5, dimension), vectors(random, 1, dimension)[0]
    for row, score in enumerate(rescore(keys, query).tolist()):
        products = [float(a) * float(b) for a, b in zip(keys[row], query, strict=True)]
        assert math.isclose(score, math.fsum(products), rel_tol=0, abs_tol=1e-14 * sum(map(abs, products)) + 1e-300)


@settings(max_examples=100, deadline=None)
@given(seeds, dimensions, st.sampled_from([1e-30, 1e-3, 1.0, 1e8]))
def test_the_margin_covers_twice_the_rounding_of_the_scan(seed, dimension, scale):
    random = np.random.default_rng(seed)
    keys, queries = vectors(random, 300, dimension, scale), vectors(random, 3, dimension, scale)
    lengths = np.sqrt(rescore(queries, queries))
    margin = scan_margin(dimension, float(np.sqrt(rescore(keys, keys)).max()), lengths)
    for row, query in enumerate(queries):
        assert np.abs(keys @ query - rescore(keys, query)).max() <= margin[row] / 2


def test_equal_scores_come_in_the_order_of_ids():
    scores = np.array([1.0, 3.0, 3.0, 2.0, 3.0, 2.0, -0.0, 0.0])
    ids = np.array([9, 8, 2, 7, 5, 1, 4, 3])
    assert ids[best_first(scores, ids, 2)].tolist() == [2, 5]
    assert ids[best_first(scores, ids, 4)].tolist() == [2, 5, 8, 1]
    assert ids[best_first(scores, ids, 20)].tolist() == [2, 5, 8, 1, 7, 9, 3, 4]
    assert best_first(scores[:0], ids[:0], 3).tolist() == []


@settings(max_examples=80, deadline=None)
@given(
    seeds,
    st.sampled_from([1, 2, 5, 64]),
    st.integers(1, 60),
    st.sampled_from([1, 3, 600, 3000]),
    st.integers(1, 200),
    st.sampled_from([0.0, 0.02, 0.7, 1.0]),
    st.booleans(),
)
def test_candidates_contain_the_nearest_of_every_query(seed, dimension, blocks, count, k, share_hidden, in_time):
    """For one query and for many (scanned in chunks), hidden slots left out, keys independent or alike in time."""
    random = np.random.default_rng(seed)
    keys = vectors(random, blocks * BLOCK, dimension)
    if in_time:
        keys = np.cumsum(keys, axis=0, dtype=np.float32)
    queries = vectors(random, count, dimension)
    hidden = random.random(len(keys)) < share_hidden
    margin = scan_margin(dimension, float(np.sqrt(rescore(keys, keys)).max()), np.sqrt(rescore(queries, queries)))
    found = candidates(keys, hidden, queries, k, margin)
    assert found.complete.all()
    assert not hidden[found.slots].any()
    shown = np.flatnonzero(~hidden)
    for row in range(min(count, 3)):
        mine = found.slots[found.rows == row]
        assert len(set(mine.tolist())) == len(mine)
        scores = rescore(keys[shown], queries[row])
        assert set(shown[best_first(scores, shown, k)].tolist()) <= set(mine.tolist())


def test_a_bulk_scan_gives_up_only_queries_that_everything_is_near_to():
    random = np.random.default_rng(3)
    keys = vectors(random, 2 * GIVE_UP, 4)
    keys[:, 0] = 0.0
    queries = vectors(random, 300, 4)
    queries[7] = [1.0, 0.0, 0.0, 0.0]
    nothing_hidden = np.zeros(len(keys), dtype=np.bool_)
    margin = scan_margin(4, 10.0, np.sqrt(rescore(queries, queries)))
    found = candidates(keys, nothing_hidden, queries, 8, margin, give_up=GIVE_UP)
    assert np.flatnonzero(~found.complete).tolist() == [7]
    assert 7 not in found.rows
    assert len(candidates(keys, nothing_hidden, queries[7:8], 8, margin[7:8]).slots) == len(keys)


@pytest.mark.parametrize("autocorrelated", [False, True])
def test_few_candidates_are_looked_at_twice(autocorrelated):
    """The work after the scan is a few times k, not a share of the bank."""
    random = np.random.default_rng(4)
    keys = vectors(random, 300 * BLOCK, 32)
    if autocorrelated:
        keys = np.stack([keys[i : i + 25].mean(axis=0) for i in range(len(keys))]).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    found = candidates(keys, np.zeros(len(keys), dtype=np.bool_), keys[:64], 32, scan_margin(32, 1.0001, np.ones(64)))
    assert len(found.rows) < 64 * 32 * 2


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("dimension", [1, 7, 8, 64, 129, 300])
def test_a_vector_alone_is_prepared_with_the_bits_that_it_has_in_a_block(metric: Metric, dimension: int):
    config = BankConfig(10, dimension, (1,), 0, 0, metric)
    generator = np.random.default_rng(dimension)
    sizes = 10.0 ** generator.uniform(-15, 15, size=(20, 1))
    block = (generator.normal(size=(20, dimension)) * sizes).astype(np.float32)
    rows, lengths = prepare(block, config, "key")
    for vector, row, length in zip(block, rows, lengths.tolist(), strict=True):
        alone, its_length = prepare_one(vector, config, "key")
        assert alone.tobytes() == row.tobytes() and its_length == length
