"""The compiled scan: whoever asks, whatever may be seen, nobody is missed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.bound_scan import TILE, Sight
from memory_store.index import rescore, scan_margin
from memory_store.pruned import ALWAYS, BULK_GATHER_COST, NOTHING_HIDDEN, TurnedKeys

QUERIES = 9


def unit_keys(count: int, seed: int, dimension: int) -> np.ndarray:
    keys = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return keys / np.linalg.norm(keys, axis=1, keepdims=True)


def margin_of(queries: np.ndarray) -> np.ndarray:
    return scan_margin(queries.shape[1], 1.001, np.sqrt(rescore(queries, queries)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 6000),
    dimension=st.sampled_from([1, 6, 64]),
    k=st.sampled_from([1, 7, 32]),
    crowded=st.booleans(),
    data=st.data(),
)
def test_among_what_a_scan_proposes_are_the_nearest_of_what_each_query_sees(seed, count, dimension, k, crowded, data):
    """However keys lie, and whatever comes, goes, is hidden or too old or too new."""
    random = np.random.default_rng(seed)
    keys, queries = unit_keys(count, seed, dimension), unit_keys(QUERIES, seed + 1, dimension)
    if crowded:
        keys = (keys[0] + 1e-3 * keys).astype(np.float32)
    share = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    hidden = random.random(count) < share if data.draw(st.booleans()) else NOTHING_HIDDEN
    since = random.integers(0, 20, count) if data.draw(st.booleans()) else ALWAYS
    until = random.integers(5, 30, count) if data.draw(st.booleans()) else ALWAYS
    first, last = sorted(random.integers(0, count + 1, 2)) if data.draw(st.booleans()) else (0, count)
    times, oldest = random.integers(0, 25, QUERIES), random.integers(0, count, QUERIES)
    turned = TurnedKeys.fitted(keys, count, BULK_GATHER_COST)
    sight = Sight(int(first), int(last), hidden, since, until)
    near = turned.near(queries, k, margin_of(queries), sight, times=times, oldest=oldest)
    assert near.complete.all()
    assert len(np.unique(np.stack((near.rows, near.slots)), axis=1).T) == len(near.rows)
    exact = queries.astype(np.float64) @ keys.T.astype(np.float64)
    slots = np.arange(count)
    for query in range(QUERIES):
        seen = (slots >= max(first, oldest[query])) & (slots < last)
        seen &= ~hidden if len(hidden) else True
        seen &= since <= times[query] if len(since) else True
        seen &= until > times[query] if len(until) else True
        shown = np.flatnonzero(seen)
        mine = near.slots[near.rows == query]
        assert len(set(mine.tolist())) == len(mine)
        assert set(mine.tolist()) <= set(shown.tolist())
        best = shown[np.argsort(-exact[query, shown], kind="stable")[:k]]
        assert set(best.tolist()) <= set(mine.tolist())


@pytest.mark.parametrize("place", range(3))
def test_where_the_sample_holds_the_best_all_others_are_found_without_it(place):
    """What the sample lets expect is then too much, and the query is asked again."""
    count = 40 * TILE
    keys, queries = unit_keys(count, 1, 16), unit_keys(5, 2, 16)
    keys[:20] = queries[place]  # in the first tile, which is in the sample
    turned = TurnedKeys.fitted(keys, count, BULK_GATHER_COST)
    sight = Sight(0, count, NOTHING_HIDDEN, ALWAYS, ALWAYS)
    near = turned.near(queries, 32, margin_of(queries), sight)
    exact = queries[place].astype(np.float64) @ keys.T.astype(np.float64)
    assert set(np.argsort(-exact, kind="stable")[:32].tolist()) <= set(near.slots[near.rows == place].tolist())


def test_a_scan_proposes_few_more_than_are_wanted():
    count = 40_000
    keys, queries = unit_keys(count, 1, 64), unit_keys(64, 2, 64)
    turned = TurnedKeys.fitted(keys, count, BULK_GATHER_COST)
    near = turned.near(queries, 32, margin_of(queries), Sight(0, count, NOTHING_HIDDEN, ALWAYS, ALWAYS))
    assert 32 * len(queries) <= len(near.rows) < 1.1 * 32 * len(queries)


def test_what_cannot_be_left_out_is_found_whole_or_given_up():
    count = 3000
    keys = np.zeros((count, 4), dtype=np.float32)
    keys[:, 0] = 1.0
    queries = np.eye(4, dtype=np.float32)[[0, 1]]
    turned = TurnedKeys.fitted(keys, count, BULK_GATHER_COST)
    sight = Sight(0, count, NOTHING_HIDDEN, ALWAYS, ALWAYS)
    whole = turned.near(queries, 8, margin_of(queries), sight)
    assert np.bincount(whole.rows).tolist() == [count, count]
    assert not turned.near(queries, 8, margin_of(queries), sight, give_up=2000).complete.any()


def test_tiles_of_another_shape_are_refused():
    """As a file would hold them that a version with larger tiles wrote."""
    keys = unit_keys(3 * TILE, 1, 8)
    turned = TurnedKeys.fitted(keys, len(keys), BULK_GATHER_COST)
    other = turned.tiles.reshape(-1, turned.tiles.shape[1], TILE // 2)
    with pytest.raises(ValueError, match="are not those of keys"):
        TurnedKeys(keys, turned.basis, other)
