"""The retrieval policy: what neighbours are worth, which are left out, and when a partial look is enough."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store.policy import (
    Asker,
    RegimeRule,
    RetrievalPolicy,
    Scope,
    excluded,
    is_final,
    most_preferred,
    penalties,
    preferences,
)
from memory_store.records import MemoryBankError

HOUR = 3_600_000
ASKER = Asker("AAAUSDT", 2, 1_000 * HOUR)

POLICIES = st.builds(
    RetrievalPolicy,
    minimum_similarity=st.none() | st.floats(-1.0, 1.0),
    half_life_ms=st.none() | st.integers(1, 10_000 * HOUR),
    temperature=st.sampled_from([0.01, 0.07, 1.0]),
    regimes=st.sampled_from(RegimeRule),
    regime_penalty=st.floats(0.0, 5.0),
    cluster_ms=st.integers(1, 100 * HOUR),
    one_per_moment=st.booleans(),
)
# Few different similarities and times, so that ties and crowds happen.
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([-0.5, 0.0, 0.25, 0.5, 0.75]) | st.floats(-1.0, 1.0), st.integers(0, 999), st.integers(0, 4)
    ),
    max_size=60,
)


def columns(entries):
    """Scores, bar times and regimes."""
    scores = np.array([score for score, _, _ in entries], dtype=np.float64)
    times = np.array([hour * HOUR for _, hour, _ in entries], dtype=np.int64)
    return scores, times, np.array([regime for _, _, regime in entries], dtype=np.int32)


def plainly_worth(policy: RetrievalPolicy, score: float, time: int, regime: int) -> float:
    if policy.minimum_similarity is not None and score < policy.minimum_similarity:
        return -math.inf
    folds = 0.0
    if policy.half_life_ms is not None:
        folds += math.log(2.0) * (ASKER.bar_time - time) / policy.half_life_ms
    if policy.regimes is RegimeRule.PREFER and regime != ASKER.regime:
        folds += policy.regime_penalty
    return score - policy.temperature * folds


def plainly_chosen(policy: RetrievalPolicy, worth, times, k: int) -> list[int]:
    """By the definition: walk down the preferences, skip what is close to someone taken."""
    order = sorted((place for place in range(len(worth)) if worth[place] > -math.inf), key=lambda p: (-worth[p], p))
    taken: list[int] = []
    for place in order:
        crowded = any(abs(times[place] - times[other]) < policy.cluster_ms for other in taken)
        if len(taken) < k and not (policy.one_per_moment and crowded):
            taken.append(place)
    return taken


@given(policy=POLICIES, entries=ENTRIES)
def test_preferences_follow_the_formula_and_never_exceed_the_similarity(policy, entries):
    scores, times, regimes = columns(entries)
    worth = preferences(policy, ASKER, scores, bar_times=times, regimes=regimes)
    assert (worth <= scores).all()
    if policy.penalises:
        assert (penalties(policy, ASKER, bar_times=times, regimes=regimes) >= 0.0).all()
    expected = [plainly_worth(policy, *entry) for entry in zip(scores, times, regimes, strict=True)]
    np.testing.assert_allclose(worth, expected, rtol=1e-12, atol=1e-12)


@given(policy=POLICIES, entries=ENTRIES)
def test_a_preference_has_the_same_bits_alone_and_among_others(policy, entries):
    scores, times, regimes = columns(entries)
    together = preferences(policy, ASKER, scores, bar_times=times, regimes=regimes)
    for place in range(len(entries)):
        one = slice(place, place + 1)
        alone = preferences(policy, ASKER, scores[one], bar_times=times[one], regimes=regimes[one])
        assert alone.tobytes() == together[one].tobytes()


@given(policy=POLICIES, entries=ENTRIES, k=st.integers(1, 12))
def test_the_choice_is_that_of_the_plain_walk_down_the_preferences(policy, entries, k):
    scores, times, regimes = columns(entries)
    worth = preferences(policy, ASKER, scores, bar_times=times, regimes=regimes)
    chosen = most_preferred(policy, worth, ids=np.arange(len(worth)), bar_times=times, k=k)
    assert chosen.tolist() == plainly_chosen(policy, worth, times, k)


@given(policy=POLICIES, entries=ENTRIES, k=st.integers(1, 12))
def test_of_two_neighbours_under_one_per_moment_none_are_close(policy, entries, k):
    policy = replace(policy, one_per_moment=True)
    scores, times, regimes = columns(entries)
    worth = preferences(policy, ASKER, scores, bar_times=times, regimes=regimes)
    chosen = times[most_preferred(policy, worth, ids=np.arange(len(worth)), bar_times=times, k=k)]
    assert all(abs(a - b) >= policy.cluster_ms for i, a in enumerate(chosen) for b in chosen[:i])


@given(policy=POLICIES, entries=ENTRIES, k=st.integers(1, 6), looked_at=st.integers(0, 60))
def test_a_final_choice_among_the_most_similar_is_the_choice_among_all(policy, entries, k, looked_at):
    scores, times, regimes = columns(entries)
    worth = preferences(policy, ASKER, scores, bar_times=times, regimes=regimes)
    ids = np.arange(len(scores))
    by_similarity = np.argsort(-scores, kind="stable")
    seen, rest = by_similarity[:looked_at], by_similarity[looked_at:]
    unseen = float(scores[rest].max()) if len(rest) else -math.inf
    places = most_preferred(policy, worth[seen], ids=ids[seen], bar_times=times[seen], k=k)
    if is_final(policy, worth[seen][places], k, unseen):
        everywhere = most_preferred(policy, worth, ids=ids, bar_times=times, k=k)
        assert seen[places].tolist() == everywhere.tolist()


def test_a_choice_is_final_once_everything_was_looked_at_or_nothing_else_is_alike_enough():
    plain, choosy = RetrievalPolicy(), RetrievalPolicy(minimum_similarity=0.5)
    nothing = np.array([])
    assert is_final(plain, nothing, 3, -math.inf)
    assert is_final(choosy, nothing, 3, 0.49)
    assert not is_final(choosy, nothing, 3, 0.5)
    assert is_final(plain, np.array([0.9, 0.8]), 2, 0.7)
    assert not is_final(plain, np.array([0.9, 0.8]), 2, 0.8), "an equal one may have a lower id"


def test_one_half_life_halves_the_weight_under_a_softmax_of_the_policys_temperature():
    policy = RetrievalPolicy(half_life_ms=24 * HOUR)
    times = np.array([ASKER.bar_time - 24 * HOUR, ASKER.bar_time - 48 * HOUR])
    fresh, old = preferences(policy, ASKER, np.array([0.6, 0.6]), bar_times=times, regimes=np.array([0, 0]))
    assert math.exp((old - fresh) / policy.temperature) == pytest.approx(0.5)


def test_a_moment_after_the_asker_is_not_rewarded():
    policy = RetrievalPolicy(half_life_ms=HOUR)
    later = np.array([ASKER.bar_time + 5 * HOUR])
    assert preferences(policy, ASKER, np.array([0.3]), bar_times=later, regimes=np.array([0])).tolist() == [0.3]


SYMBOLS = np.array([0, 1, 0, 2], dtype=np.int32)
REGIMES = np.array([2, 2, 3, 2], dtype=np.int32)


@pytest.mark.parametrize(
    ("policy", "out"),
    [
        (RetrievalPolicy(), [False, False, False, False]),
        (RetrievalPolicy(scope=Scope.SAME), [False, True, False, True]),
        (RetrievalPolicy(scope=Scope.OTHER), [True, False, True, False]),
        (RetrievalPolicy(regimes=RegimeRule.SAME), [False, False, True, False]),
        (RetrievalPolicy(regimes=RegimeRule.PREFER), [False, False, False, False]),
        (RetrievalPolicy(scope=Scope.SAME, regimes=RegimeRule.SAME), [False, True, True, True]),
    ],
)
def test_scope_and_regime_leave_entries_out(policy, out):
    assert excluded(policy, ASKER, symbols=SYMBOLS, asker_symbol=0, regimes=REGIMES).tolist() == out


@pytest.mark.parametrize(
    "policy",
    [
        RetrievalPolicy(half_life_ms=HOUR),
        RetrievalPolicy(scope=Scope.SAME),
        RetrievalPolicy(scope=Scope.OTHER),
        RetrievalPolicy(regimes=RegimeRule.SAME),
        RetrievalPolicy(regimes=RegimeRule.PREFER),
    ],
)
def test_a_policy_that_compares_with_the_asker_wants_one(policy):
    assert policy.needs_asker
    with pytest.raises(MemoryBankError, match="give the search an asker"):
        excluded(policy, None, symbols=SYMBOLS, asker_symbol=-1, regimes=REGIMES)


@pytest.mark.parametrize(
    ("policy", "nothing"),
    [
        (RetrievalPolicy(), True),
        (RetrievalPolicy(regimes=RegimeRule.PREFER, regime_penalty=0.0, cluster_ms=HOUR), True),
        (RetrievalPolicy(minimum_similarity=-1.0), False),
        (RetrievalPolicy(half_life_ms=HOUR), False),
        (RetrievalPolicy(scope=Scope.SAME), False),
        (RetrievalPolicy(regimes=RegimeRule.PREFER), False),
        (RetrievalPolicy(cluster_ms=HOUR, one_per_moment=True), False),
    ],
)
def test_a_policy_knows_whether_it_changes_anything(policy, nothing):
    assert policy.changes_nothing is nothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"minimum_similarity": math.nan},
            "minimum_similarity of the policy is nan; it must be a finite number or none",
        ),
        ({"half_life_ms": 0}, "half_life_ms of the policy is 0; it must be 1 millisecond or more, or none"),
        ({"temperature": 0.0}, "temperature of the policy is 0.0; it must be above 0"),
        ({"scope": "mine"}, "scope of the policy is mine; it must be all, same, other"),
        ({"regimes": "bull"}, "regimes of the policy is bull; it must be any, same, prefer"),
        ({"regime_penalty": -1.0}, "regime_penalty of the policy is -1.0; it must be 0 or more"),
        ({"cluster_ms": -1}, "cluster_ms of the policy is -1; it must be 0 or more milliseconds"),
        ({"one_per_moment": True}, "one_per_moment of the policy is True; it must be used with a positive cluster_ms"),
    ],
)
def test_a_value_out_of_range_is_named_in_one_sentence(change, message):
    with pytest.raises(MemoryBankError) as raised:
        RetrievalPolicy(**change)
    assert str(raised.value) == message


def test_rules_may_be_given_as_texts():
    policy = RetrievalPolicy(scope="same", regimes="prefer")  # type: ignore[arg-type]
    assert policy.scope is Scope.SAME
    assert policy.regimes is RegimeRule.PREFER
