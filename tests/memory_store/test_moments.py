"""Moments: what lies close in time counts once, and an answer knows how much evidence it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store.moments import (
    cluster_moments,
    effective_number,
    first_of_each_moment,
    independence,
    relative_strengths,
    share_out,
)

CLUSTER = 1_000
TIMES = st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=40)


def plain_leaders(times: list[int]) -> list[int]:
    """For every time the place of its moment's leader, by the definition."""
    leaders: list[int] = []
    found = []
    for place, time in enumerate(times):
        near = [leader for leader in leaders if abs(time - times[leader]) < CLUSTER]
        if not near:
            near = [place]
            leaders.append(place)
        found.append(near[0])
    return found


@given(times=TIMES)
def test_clusters_are_those_of_the_plain_rule(times):
    row = np.array([times], dtype=np.int64)
    found = cluster_moments(row, np.ones_like(row, dtype=np.bool_), CLUSTER)[0]
    assert found.tolist() == plain_leaders(times)


@given(times=TIMES, k=st.integers(1, 45))
def test_the_first_of_each_moment_are_the_first_leaders(times, k):
    leaders = sorted(set(plain_leaders(times)))
    assert first_of_each_moment(np.array(times), CLUSTER, k).tolist() == leaders[:k]


@given(times=TIMES, k=st.integers(1, 45))
def test_without_a_span_every_time_is_its_own_moment_even_an_equal_one(times, k):
    row = np.array([times], dtype=np.int64)
    everything = list(range(len(times)))
    assert cluster_moments(row, np.ones_like(row, dtype=np.bool_), 0)[0].tolist() == everything
    assert first_of_each_moment(row[0], 0, k).tolist() == everything[:k]


ANSWER = st.lists(st.tuples(st.floats(-1.0, 1.0), st.integers(0, 20_000), st.booleans()), min_size=1, max_size=40)


@given(rows=ANSWER, temperature=st.sampled_from([1e-4, 0.07, 2.0]), cluster_ms=st.sampled_from([0, CLUSTER]))
def test_an_answer_is_at_least_one_moment_and_at_most_as_many_as_it_has_neighbours(rows, temperature, cluster_ms):
    scores, times, known = (np.array(column) for column in zip(*rows, strict=True))
    found = independence(scores, times, known, cluster_ms=cluster_ms, temperature=temperature)
    assert found.moments <= np.count_nonzero(known)
    assert found.effective <= found.moments + 1e-9
    assert (found.moments >= 1 and found.effective >= 1.0 - 1e-9) if known.any() else found == (0, 0.0)


@given(rows=ANSWER, temperature=st.sampled_from([1e-4, 0.07, 2.0]))
def test_shares_of_moments_and_of_members_both_sum_to_one(rows, temperature):
    scores, times, _ = (np.array([column]) for column in zip(*rows, strict=True))
    known = np.ones(scores.shape, dtype=np.bool_)
    leaders = cluster_moments(times, known, CLUSTER)
    shares, members = share_out(relative_strengths(scores, known, temperature), leaders)
    assert shares.sum() == pytest.approx(1.0)
    assert members.sum() == pytest.approx(1.0)
    for leader in set(leaders[0].tolist()):
        assert members[0, leaders[0] == leader].sum() == pytest.approx(shares[0, leader])


def test_a_crowd_of_one_day_is_one_observation():
    times = np.array([0, 5 * CLUSTER, 5 * CLUSTER + 1, 5 * CLUSTER + 2, 5 * CLUSTER + 3])
    known = np.ones(5, dtype=np.bool_)
    crowd = independence(np.full(5, 0.9), times, known, cluster_ms=CLUSTER, temperature=0.07)
    assert crowd == (2, pytest.approx(2.0))
    assert independence(np.full(5, 0.9), times, known, cluster_ms=0, temperature=0.07) == (5, pytest.approx(5.0))


def test_the_effective_number_of_equal_shares_is_their_number():
    assert effective_number(np.array([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])).tolist() == [4.0, 1.0]
