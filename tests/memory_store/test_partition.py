"""Cells of key space: the same for the same keys, however they are computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.index import best_first
from memory_store.partition import NO_CELL, TARGET_RECALL, Partition, cells_for, fit_partition
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
    partition = fit_partition(keys, unit=False)
    assert 1 <= partition.cells <= cells_for(count)
    cells = partition.assign(partition.centred(keys))
    some = random.permutation(count)[:40]
    assert partition.assign(partition.centred(keys[some])).tolist() == cells[some].tolist()
    assert [int(partition.assign(partition.centred(keys[i : i + 1]))[0]) for i in some] == cells[some].tolist()
    distances = squares(keys[some], partition)
    chosen = distances[np.arange(len(some)), cells[some]]
    # Half squares of centres are rounded to float32 once, so a centre may win that is further by as little.
    slack = 1e-6 * np.square(partition.centres.astype(np.longdouble)).sum(axis=1).max()
    assert (chosen <= distances.min(axis=1) + slack).all()


def chosen(partition: Partition, queries: np.ndarray, visible: int) -> list[list[int]]:
    """The cells that queries look into."""
    cells = partition.looked_into(queries, visible)
    assert (np.diff((cells != NO_CELL).astype(int), axis=1) <= 0).all()
    return [sorted(row[row != NO_CELL].tolist()) for row in cells]


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(KINDS), st.booleans(), st.integers(0, 60), st.sampled_from([1, 2, 5]))
def test_a_query_looks_into_the_cells_that_are_hardly_worse_than_its_sixteen_best(seed, kind, cosine, rank, share):
    """By exact scores, alone as in company, also where cells lie exactly at the edge."""
    random = np.random.default_rng(seed)
    keys = make_keys(kind, random, 2500, 8)
    partition = fit_partition(unit(keys) if cosine else keys, unit=cosine)
    queries = random.standard_normal((6, 8)).astype(np.float32)
    queries = unit(queries) if cosine else queries
    ordered = np.sort(partition.exact_scores(queries[0]))[::-1]
    leader = ordered[min(16, partition.cells) - 1]
    partition = replace(partition, reach=max(0.0, float(leader - ordered[min(rank, partition.cells - 1)])))
    wanted = []
    for query in queries:
        scores = partition.exact_scores(query)
        within = scores >= np.sort(scores)[::-1][min(16, partition.cells) - 1] - partition.reach
        count = int(within.sum())
        if share > 1:
            halvings = (partition.count // (partition.count // share)).bit_length() - 1
            count = min(partition.cells, max(1, -(-count * 4**halvings // 3**halvings)))
        wanted.append(sorted(best_first(scores, np.arange(partition.cells), count).tolist()))
    visible = partition.count // share
    assert chosen(partition, queries, visible) == wanted
    assert [chosen(partition, query[None], visible)[0] for query in queries] == wanted


def test_equal_keys_give_equal_cells():
    keys = make_keys("clustered", np.random.default_rng(5), 4000, 16)
    one, other = fit_partition(keys, unit=False), fit_partition(np.asfortranarray(keys.copy()), unit=False)
    assert one.centres.tobytes() == other.centres.tobytes()
    assert (one.mean.tobytes(), one.reach, one.recall) == (other.mean.tobytes(), other.reach, other.recall)


@pytest.mark.parametrize("kind", ["duplicated", "zero", "crowded"])
def test_centres_are_all_different(kind):
    """Keys that repeat must not give cells between which nothing can decide."""
    partition = fit_partition(make_keys(kind, np.random.default_rng(6), 3000, 8), unit=False)
    assert len(np.unique(partition.centres, axis=0)) == partition.cells


def test_as_many_cells_are_looked_into_as_the_recall_needs():
    keys = unit(make_keys("spread", np.random.default_rng(7), 9000, 12))
    partition = fit_partition(keys, unit=True)
    assert TARGET_RECALL <= partition.recall < 1.0
    part = fit_partition(keys[::2], unit=True, held=9000)
    assert part.cells == partition.cells
    looked, of_part = (np.mean([len(row) for row in chosen(one, keys[:200], 9000)]) for one in (partition, part))
    assert 16 < looked < partition.cells
    assert 0.7 * looked <= of_part <= 1.4 * looked


def test_more_cells_are_looked_into_when_less_is_visible():
    partition = fit_partition(unit(make_keys("spread", np.random.default_rng(9), 1000, 8)), unit=True)
    partition = replace(partition, reach=0.0)
    query = unit(np.ones((1, 8)))
    counts = [len(chosen(partition, query, visible)[0]) for visible in (5000, 1000, 501, 500, 250, 1, 0)]
    assert counts == [16, 16, 16, 22, 29, partition.cells, partition.cells]


def test_without_enough_keys_to_measure_with_all_cells_are_looked_into():
    keys = unit(make_keys("spread", np.random.default_rng(8), 300, 8))
    partition = fit_partition(keys, unit=True)
    assert len(chosen(partition, keys[:1], 300)[0]) == partition.cells
