"""Cells of key space: the same for the same keys, however they are computed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.index import best_first, rescore
from memory_store.partition import TARGET_RECALL, Partition, cells_for, fit_partition
from tests.memory_store.test_pruned import KINDS, make_keys, unit

seeds = st.integers(0, 2**32)


def squares(keys: np.ndarray, partition: Partition) -> np.ndarray:
    """Squared distances of keys to all centres, in extended precision."""
    centred = partition.centred(keys).astype(np.longdouble)
    return np.stack([np.square(centred - centre).sum(axis=1) for centre in partition.centres.astype(np.longdouble)], 1)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(KINDS), st.sampled_from([1, 3, 16, 64]), st.sampled_from([1, 7, 500, 3000]))
def test_every_key_is_assigned_to_its_nearest_centre_alone_as_in_company(seed, kind, dimension, count):
    random = np.random.default_rng(seed)
    keys = make_keys(kind, random, count, dimension)
    partition = fit_partition(keys)
    assert 1 <= partition.cells <= cells_for(count)
    assert 1 <= partition.probes <= partition.cells
    cells = partition.assign(partition.centred(keys))
    some = random.permutation(count)[:40]
    assert partition.assign(partition.centred(keys[some])).tolist() == cells[some].tolist()
    assert [int(partition.assign(partition.centred(keys[i : i + 1]))[0]) for i in some] == cells[some].tolist()
    distances = squares(keys[some], partition)
    chosen = distances[np.arange(len(some)), cells[some]]
    # Half squares of centres are rounded to float32 once, so a centre may win that is further by as little.
    slack = 1e-6 * np.square(partition.centres.astype(np.longdouble)).sum(axis=1).max()
    assert (chosen <= distances.min(axis=1) + slack).all()


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(KINDS), st.integers(1, 200), st.sampled_from([1e-20, 1.0, 1e15]))
def test_the_nearest_cells_are_those_of_the_best_exact_scores(seed, kind, count, scale):
    random = np.random.default_rng(seed)
    partition = fit_partition(make_keys(kind, random, 2500, 8))
    query = (scale * random.standard_normal(8)).astype(np.float32)
    everything = np.arange(partition.cells)
    expected = best_first(rescore(partition.centres, query), everything, count)
    assert sorted(partition.nearest(query, count).tolist()) == sorted(expected.tolist())


def test_equal_keys_give_equal_cells():
    keys = make_keys("clustered", np.random.default_rng(5), 4000, 16)
    one, other = fit_partition(keys), fit_partition(np.asfortranarray(keys.copy()))
    assert one.centres.tobytes() == other.centres.tobytes()
    assert (one.mean.tobytes(), one.probes, one.recall) == (other.mean.tobytes(), other.probes, other.recall)


@pytest.mark.parametrize("kind", ["duplicated", "zero", "crowded"])
def test_centres_are_all_different(kind):
    """Keys that repeat must not give cells between which nothing can decide."""
    partition = fit_partition(make_keys(kind, np.random.default_rng(6), 3000, 8))
    assert len(np.unique(partition.centres, axis=0)) == partition.cells


def test_as_many_cells_are_looked_into_as_the_recall_needs():
    keys = unit(make_keys("spread", np.random.default_rng(7), 9000, 12))
    partition = fit_partition(keys)
    assert 1 < partition.probes < partition.cells
    assert TARGET_RECALL <= partition.recall < 1.0
    part = fit_partition(keys[::2], held=9000)
    assert part.cells == partition.cells
    assert 0.7 * partition.probes <= part.probes <= 1.4 * partition.probes


def test_more_cells_are_looked_into_when_less_is_visible():
    partition = Partition(np.zeros(2, np.float32), np.eye(100, 2, dtype=np.float32), 9, 1.0, 1000)
    assert [partition.probes_among(visible) for visible in (5000, 1000, 501, 500, 250, 1, 0)] == [
        9,
        9,
        9,
        12,
        16,
        100,
        100,
    ]


def test_without_enough_keys_to_measure_with_all_cells_are_looked_into():
    partition = fit_partition(make_keys("spread", np.random.default_rng(8), 300, 8))
    assert partition.probes == partition.cells
