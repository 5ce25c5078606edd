"""Exact search of many queries by products of bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.codes import Codes
from memory_store.index import BLOCK, GIVE_UP, best_first, rescore
from memory_store.rounded import TILE, RoundedIndex
from tests.memory_store.test_pruned import KINDS, make_keys, margin_of, seeds, unit


class PlainArithmetic:
    """What every library must give."""

    def multiply(self, queries, keys, out):
        np.matmul(queries.astype(np.int32), keys.T.astype(np.int32), out=out)

    def maxima(self, products, out):
        np.max(products, axis=1, out=out)


def search(index: RoundedIndex, keys: np.ndarray, hidden: np.ndarray, queries: np.ndarray, k: int):
    return index.search_of_many(hidden, queries, k, margin_of(keys, queries), give_up=GIVE_UP)()


def assert_exact(found, keys: np.ndarray, hidden: np.ndarray, queries: np.ndarray, k: int) -> None:
    assert not hidden[found.slots].any()
    assert found.complete[found.rows].all()
    assert np.all(np.diff(found.rows) >= 0)
    shown = np.flatnonzero(~hidden)
    for row in np.flatnonzero(found.complete).tolist():
        mine = found.slots[found.rows == row].tolist()
        assert len(set(mine)) == len(mine)
        assert set(shown[best_first(rescore(keys[shown], queries[row]), shown, k)].tolist()) <= set(mine)


@settings(max_examples=25, deadline=None)
@given(
    seeds,
    st.sampled_from(KINDS),
    st.sampled_from([1, 5, 16, 64]),
    st.sampled_from([1, 7, 40]),
    st.sampled_from([1, 2, 15, 130]),
    st.sampled_from([0.0, 0.02, 0.7, 0.99, 1.0]),
    st.sampled_from([(1.0, 1.0), (1e-30, 1e-8), (1e17, 1.0), (1e17, 1e17), (1e-39, 1e-39)]),
    st.booleans(),
)
def test_no_neighbour_of_many_queries_is_missed(seed, kind, dimension, k, count, share_hidden, scales, cosine):
    """Whatever the keys are like, near or far from the queries, tiny or huge, for both metrics, few or many hidden."""
    random = np.random.default_rng(seed)
    keys = make_keys(kind, random, 10 * TILE + 3 * BLOCK, dimension)
    queries = make_keys(random.choice(KINDS), random, count, dimension)
    queries[::2] = keys[random.integers(len(keys), size=len(queries[::2]))]
    keys, queries = (unit(keys), unit(queries)) if cosine else (keys, queries)
    if not cosine:
        with np.errstate(under="ignore"):
            keys, queries = np.float32(scales[0]) * keys, np.float32(scales[1]) * queries
        keys[np.abs(keys) > 1e18] = 0.0
        queries[np.abs(queries) > 1e18] = 0.0
    hidden = random.random(len(keys)) < share_hidden
    index = RoundedIndex(keys, PlainArithmetic(), worthwhile=0)
    assert_exact(search(index, keys, hidden, queries, k), keys, hidden, queries, k)
    assert index.directions > 0


def test_of_many_queries_only_those_that_everything_is_near_to_are_given_up():
    random = np.random.default_rng(5)
    keys = make_keys("spread", random, 200 * BLOCK, 4)
    keys[:, 0] = 0.0
    queries = make_keys("spread", random, 40, 4)
    queries[[7, 33]] = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    hidden = np.zeros(len(keys), dtype=np.bool_)
    found = search(RoundedIndex(keys, PlainArithmetic(), worthwhile=0), keys, hidden, queries, 8)
    assert np.flatnonzero(~found.complete).tolist() == [7, 33]
    assert_exact(found, keys, hidden, queries, 8)


@settings(max_examples=15, deadline=None)
@given(seeds, st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_keys_may_change_and_become_more(seed, before, after):
    """Slots are overwritten a few or many at a time, by keys like the old ones or quite other ones, and new ones come."""
    random = np.random.default_rng(seed)
    slots, held = 80 * BLOCK, 40 * BLOCK
    keys = make_keys(before, random, slots, 12)
    keys[held:] = 0.0
    index = RoundedIndex(keys, PlainArithmetic(), worthwhile=0)
    for count in (0, 1, 30, 0, 700, 3000, 1, 2):
        for key in make_keys(after, random, count, 12):
            slot = int(random.integers(0, min(held + 1, slots)))
            keys[slot] = key
            held = max(held, slot + 1)
            index.write(slot)
        scanned = -(-held // BLOCK) * BLOCK
        hidden = random.random(scanned) < 0.1
        hidden[held:] = True
        queries = make_keys(after, random, 3, 12)
        assert_exact(search(index, keys[:scanned], hidden, queries, 5), keys[:scanned], hidden, queries, 5)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(KINDS), st.sampled_from([1, 3, 12, 64]), st.booleans())
def test_a_product_bounds_the_score_from_above(seed, kind, dimension, written_later):
    random = np.random.default_rng(seed)
    keys = make_keys(kind, random, 2000, dimension)
    queries = make_keys("spread", random, 8, dimension)
    codes = Codes(keys, len(keys))
    if written_later:  # longer than all that the step was made for
        keys[:50] = 10.0 * make_keys("spread", random, 50, dimension)
        codes.write(np.arange(50))
    asked = codes.asked(queries)
    products = asked.numbers.astype(np.int64) @ codes.numbers.T.astype(np.int64)
    scores = queries.astype(np.float64) @ keys.T.astype(np.float64)
    longest = np.linalg.norm(queries.astype(np.float64), axis=1) * np.linalg.norm(keys.astype(np.float64), axis=1).max()
    assert np.all(products * asked.unit[:, None] + asked.error[:, None] >= scores - 1e-12 * longest[:, None])


@pytest.mark.parametrize("k", [1, 32, 33, 2000, 10_000])
def test_any_number_of_neighbours_can_be_asked_for(k):
    random = np.random.default_rng(2)
    keys, queries = make_keys("flat", random, 100 * BLOCK, 16), make_keys("flat", random, 2, 16)
    hidden = np.zeros(len(keys), dtype=np.bool_)
    assert_exact(
        search(RoundedIndex(keys, PlainArithmetic(), worthwhile=0), keys, hidden, queries, k), keys, hidden, queries, k
    )


@pytest.mark.parametrize("symbol", [0, 1])
def test_no_query_is_given_up_where_two_symbols_with_other_keys_write_in_turn(symbol):
    """Slots follow the order of writing, so that a part of the maxima may be one symbol's alone."""
    random = np.random.default_rng(1)
    keys = random.standard_normal((8 * TILE, 16))
    center = 4.0 * unit(random.standard_normal((1, 16)))
    keys = unit(keys + np.where(np.arange(len(keys))[:, None] % 2, center, -center))
    queries, hidden = keys[symbol :: 2 * BLOCK], np.zeros(len(keys), dtype=np.bool_)
    found = search(RoundedIndex(keys, PlainArithmetic()), keys, hidden, queries, 32)
    assert found.complete.all()
    assert_exact(found, keys, hidden, queries, 32)


def test_few_keys_are_left_when_their_variance_is_in_few_directions():
    random = np.random.default_rng(4)
    keys = random.standard_normal((640 * BLOCK, 64)) * np.maximum(0.9 ** np.arange(64), 0.05)
    keys = unit(keys @ np.linalg.qr(random.standard_normal((64, 64)))[0])
    index, queries = RoundedIndex(keys, PlainArithmetic()), keys[:100]
    index.write(0)
    hidden = np.zeros(len(keys), dtype=np.bool_)
    found = search(index, keys, hidden, queries, 32)
    assert found.complete.all()
    assert_exact(found, keys, hidden, queries, 32)
    assert len(found.rows) < 1.1 * 32 * 100
