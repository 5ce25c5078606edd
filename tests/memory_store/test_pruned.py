"""Exact search by bounds in a few rotated directions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.index import BLOCK, GIVE_UP, best_first, rescore, scan_margin
from memory_store.pruned import PrunedIndex

KINDS = ("spread", "clustered", "duplicated", "flat", "crowded", "in time", "mixed lengths", "zero")
seeds = st.integers(0, 2**32)


def make_keys(kind: str, random: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    keys = random.standard_normal((count, dimension))
    if kind == "clustered":
        keys = random.standard_normal((7, dimension))[random.integers(0, 7, count)] + 0.01 * keys
    elif kind == "duplicated":
        keys = random.standard_normal((5, dimension))[random.integers(0, 5, count)]
    elif kind == "flat":
        keys *= 0.3 ** np.arange(dimension)
    elif kind == "crowded":
        keys = random.standard_normal(dimension) + 1e-6 * keys
    elif kind == "in time":
        keys = np.cumsum(keys, axis=0)
    elif kind == "mixed lengths":
        keys *= 10.0 ** random.uniform(-6, 6, (count, 1))
    elif kind == "zero":
        keys[random.random(count) < 0.9] = 0.0
    return keys.astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def margin_of(keys: np.ndarray, query: np.ndarray) -> np.ndarray:
    longest = float(np.sqrt(rescore(keys, keys).max()))
    return scan_margin(keys.shape[1], longest, np.sqrt(rescore(query, query)))


def assert_exact(index: PrunedIndex, keys: np.ndarray, hidden: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    found = index.candidates(hidden, query, k, margin_of(keys, query))
    assert not hidden[found].any()
    assert len(np.unique(found)) == len(found)
    shown = np.flatnonzero(~hidden)
    nearest = shown[best_first(rescore(keys[shown], query[0]), shown, k)]
    assert set(nearest.tolist()) <= set(found.tolist())
    return found


@settings(max_examples=80, deadline=None)
@given(
    seeds,
    st.sampled_from(KINDS),
    st.sampled_from([1, 2, 5, 16, 64]),
    st.sampled_from([1, 3, 7]),
    st.sampled_from([0.0, 0.02, 0.7, 0.99, 1.0]),
    st.sampled_from([(1.0, 1.0), (1e-30, 1.0), (1e-30, 1e-8), (1e17, 1.0), (1e17, 1e17), (1e-39, 1e-39)]),
    st.booleans(),
)
def test_no_neighbour_is_ever_missed(seed, kind, dimension, k, share_hidden, scales, cosine):
    """Whatever the keys are like, near or far from the query, tiny or huge, for both metrics, few or many hidden."""
    random = np.random.default_rng(seed)
    keys = make_keys(kind, random, 60 * BLOCK, dimension)
    near = keys[random.integers(len(keys))] + 0.1 * make_keys("spread", random, 1, dimension)
    query = near if random.random() < 0.5 else make_keys("spread", random, 1, dimension)
    keys, query = (unit(keys), unit(query)) if cosine else (keys, query)
    if not cosine:
        with np.errstate(under="ignore"):
            keys, query = (np.float32(scales[0]) * keys).astype(np.float32), np.float32(scales[1]) * query
        keys[np.abs(keys) > 1e18] = 0.0
    hidden = random.random(len(keys)) < share_hidden
    index = PrunedIndex(keys, worthwhile=0)
    assert_exact(index, keys, hidden, query, k)
    assert index.directions > 0


@settings(max_examples=80, deadline=None)
@given(
    seeds,
    st.sampled_from(KINDS),
    st.sampled_from([1, 5, 16, 64]),
    st.sampled_from([1, 7, 40]),
    st.sampled_from([1, 2, 15, 16, 17, 40]),
    st.sampled_from([0.0, 0.02, 0.7, 0.99, 1.0]),
    st.sampled_from([(1.0, 1.0), (1e-30, 1e-8), (1e17, 1.0), (1e17, 1e17), (1e-39, 1e-39)]),
    st.booleans(),
)
def test_no_neighbour_of_many_queries_is_missed(seed, kind, dimension, k, count, share_hidden, scales, cosine):
    """The same of every query that was not given up, whichever others are asked with it and however unlike they are."""
    random = np.random.default_rng(seed)
    keys = make_keys(kind, random, 400 * BLOCK, dimension)
    queries = make_keys(random.choice(KINDS), random, count, dimension)
    queries[::2] = keys[random.integers(len(keys), size=len(queries[::2]))]
    keys, queries = (unit(keys), unit(queries)) if cosine else (keys, queries)
    if not cosine:
        with np.errstate(under="ignore"):
            keys, queries = np.float32(scales[0]) * keys, np.float32(scales[1]) * queries
        keys[np.abs(keys) > 1e18] = 0.0
        queries[np.abs(queries) > 1e18] = 0.0
    hidden = random.random(len(keys)) < share_hidden
    index = PrunedIndex(keys, worthwhile=0)
    found = index.search_of_many(hidden, queries, k, margin_of(keys, queries), give_up=GIVE_UP)()
    assert index.directions > 0
    assert not hidden[found.slots].any()
    assert found.complete[found.rows].all()
    shown = np.flatnonzero(~hidden)
    for row in np.flatnonzero(found.complete).tolist():
        mine = found.slots[found.rows == row].tolist()
        assert len(set(mine)) == len(mine)
        assert set(shown[best_first(rescore(keys[shown], queries[row]), shown, k)].tolist()) <= set(mine)


def test_of_many_queries_only_those_that_everything_is_near_to_are_given_up():
    random = np.random.default_rng(5)
    keys = make_keys("spread", random, 200 * BLOCK, 4)
    keys[:, 0] = 0.0
    queries = make_keys("spread", random, 40, 4)
    queries[[7, 33]] = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    index = PrunedIndex(keys, worthwhile=0)
    nothing_hidden = np.zeros(len(keys), dtype=np.bool_)
    found = index.search_of_many(nothing_hidden, queries, 8, margin_of(keys, queries), give_up=GIVE_UP)()
    assert np.flatnonzero(~found.complete).tolist() == [7, 33]
    assert not np.isin(found.rows, [7, 33]).any()


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_keys_may_change_and_become_more(seed, before, after):
    """Slots are overwritten a few or many at a time, by keys like the old ones or quite other ones, and new ones come."""
    random = np.random.default_rng(seed)
    slots = 80 * BLOCK
    keys = make_keys(before, random, slots, 12)
    held = 40 * BLOCK
    keys[held:] = 0.0
    index = PrunedIndex(keys, worthwhile=0)
    for count in (0, 1, 30, 0, 700, 3000, 4000, 1, 2):
        fresh = make_keys(after, random, count, 12)
        for row, key in enumerate(fresh):
            slot = int(random.integers(0, min(held + 1, slots)))
            keys[slot] = key
            held = max(held, slot + 1)
            index.write(slot)
            assert row < count
        scanned = -(-held // BLOCK) * BLOCK
        hidden = random.random(scanned) < 0.1
        hidden[held:] = True
        assert_exact(index, keys[:scanned], hidden, make_keys(after, random, 1, 12), 5)


def test_a_zero_query_is_equally_near_to_everything():
    keys = make_keys("spread", np.random.default_rng(1), 20 * BLOCK, 8)
    index = PrunedIndex(keys, worthwhile=0)
    hidden = np.arange(len(keys)) % 3 == 0
    found = index.candidates(hidden, np.zeros((1, 8), dtype=np.float32), 2, np.zeros(1))
    assert sorted(found.tolist()) == np.flatnonzero(~hidden).tolist()


@pytest.mark.parametrize("k", [1, 32, 33, 2000, 10_000])
def test_any_number_of_neighbours_can_be_asked_for(k):
    random = np.random.default_rng(2)
    keys = make_keys("flat", random, 100 * BLOCK, 16)
    index = PrunedIndex(keys, worthwhile=0)
    assert_exact(index, keys, np.zeros(len(keys), dtype=np.bool_), make_keys("flat", random, 1, 16), k)


def test_a_small_bank_is_scanned_in_full():
    keys = make_keys("spread", np.random.default_rng(3), 4 * BLOCK, 8)
    index = PrunedIndex(keys)
    index.write(0)
    assert_exact(index, keys, np.zeros(len(keys), dtype=np.bool_), keys[:1], 5)
    assert index.directions == 0


def test_few_keys_are_left_when_their_variance_is_in_few_directions():
    """The point of it: of 40,000 keys whose spread falls off as that of encoder keys does, next to none survive."""
    random = np.random.default_rng(4)
    keys = random.standard_normal((640 * BLOCK, 64)) * np.maximum(0.9 ** np.arange(64), 0.05)
    keys = unit(keys @ np.linalg.qr(random.standard_normal((64, 64)))[0])
    index = PrunedIndex(keys)
    nothing_hidden = np.zeros(len(keys), dtype=np.bool_)
    found = [len(assert_exact(index, keys, nothing_hidden, keys[i : i + 1], 32)) for i in range(20)]
    assert max(found) < 40
    assert 8 <= index.directions <= 40
    together = index.search_of_many(nothing_hidden, keys[:100], 32, margin_of(keys, keys[:100]), give_up=GIVE_UP)()
    assert together.complete.all()
    assert len(together.rows) < 2 * 32 * 100
