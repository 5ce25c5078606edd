"""The nearest of slots that are already named."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.index import best_first, rescore, scan_margin
from memory_store.shortlist import floor_below, shortlist


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(0, 300), st.integers(1, 40), st.sampled_from([1e-30, 1.0, 1e17]), st.booleans()
)
def test_the_nearest_of_the_slots_named_are_kept(seed, count, k, scale, crowded):
    random = np.random.default_rng(seed)
    keys = (scale * random.standard_normal((400, 16))).astype(np.float32)
    if crowded:
        keys = (keys[0] + 1e-7 * keys).astype(np.float32)
    query = random.standard_normal(16).astype(np.float32)
    slots = random.permutation(400)[:count]
    lengths = np.sqrt(rescore(query[None], query[None]))
    margin = float(scan_margin(16, float(np.sqrt(rescore(keys, keys).max())), lengths)[0])
    found = shortlist(keys, slots, query, k, margin)
    assert set(slots[best_first(rescore(keys[slots], query), slots, k)].tolist()) <= set(found.tolist())
    assert set(found.tolist()) <= set(slots.tolist())


@given(st.floats(-1e30, 1e30), st.floats(0, 1e30))
def test_a_floor_is_below_what_it_is_made_from_and_above_what_is_hidden(score, margin):
    floor = float(floor_below(score, margin))
    assert floor < score - margin
    assert floor > -np.inf
    assert float(floor_below(-np.inf, margin)) == np.finfo(np.float32).min
