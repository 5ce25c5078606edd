"""Who is best by exact scores."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.index import rescore
from memory_store.machine_code import fixed
from memory_store.ranking import NOBODY, Best, add_pairs


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    dimension=st.sampled_from([1, 5, 8, 64, 130]),
    count=st.integers(1, 60),
    k=st.integers(1, 40),
    levels=st.sampled_from([2, 1000]),
    known=st.integers(0, 60),
)
def test_the_best_are_those_of_all_in_whatever_order_they_come(seed, dimension, count, k, levels, known):
    """Equal scores, of which few levels make many, in the order of ids; some known already, some let in later."""
    random = np.random.default_rng(seed)
    keys = random.integers(-levels, levels + 1, (count, dimension)).astype(np.float32)
    queries = random.integers(-levels, levels + 1, (3, dimension)).astype(np.float32)
    ids = random.permutation(1_000)[:count]
    wanted_ids, wanted_scores = np.full((3, k), NOBODY), np.full((3, k), -np.inf)
    first_ids, first_scores = np.full((3, count), NOBODY), np.full((3, count), -np.inf)
    rows, slots = [], []
    for row, query in enumerate(queries):
        scores = rescore(keys, query)
        order = np.lexsort((ids, -scores))
        best = order[:k]
        wanted_ids[row, : len(best)], wanted_scores[row, : len(best)] = ids[best], scores[best]
        early = order[np.isin(order, random.permutation(count)[:known])]
        first_ids[row, : len(early)], first_scores[row, : len(early)] = ids[early], scores[early]
        late = random.permutation(np.setdiff1d(order, early))
        rows += [row] * len(late)
        slots += late.tolist()
    best = Best.of(first_ids, first_scores, first_ids != NOBODY, k)
    pairs = random.permutation(len(rows))
    asked, found = np.array(rows, dtype=np.int64)[pairs], np.array(slots, dtype=np.int64)[pairs]
    add_pairs(fixed(keys), fixed(ids), fixed(queries), fixed(asked), fixed(found), best)
    assert np.array_equal(best.ids, wanted_ids)
    assert best.scores.tobytes() == wanted_scores.tobytes()
