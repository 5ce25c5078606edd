"""Who leaves when room is needed, who is pruned, and what every policy promises."""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric
from memory_store.eviction import importance, priority
from memory_store.heap import PairHeap
from memory_store.pruning import PruneRule
from memory_store.records import Entry, Eviction
from memory_store.slots import FreeSlots

DAY_MS = 86_400_000
HALF_LIFE_MS = 30 * DAY_MS
LATE = 10**15


def make_bank(eviction: Eviction = Eviction.IMPORTANCE, capacity: int = 50, **changes) -> MemoryBank:
    half_life = 0 if eviction is Eviction.FIFO else HALF_LIFE_MS
    config = BankConfig(
        capacity,
        2,
        (1, 4),
        1,
        0,
        Metric.COSINE,
        eviction=eviction,
        half_life_ms=half_life,
        outcome_scale=0.5,
        **changes,
    )
    return MemoryBank(config, encoder_version="v1")


def remember(bank: MemoryBank, day: int, *, regime: int = 0, novelty: float = 0.0, outcome: float | None = None) -> int:
    time = day * DAY_MS
    entry_id = bank.append([1.0, day % 7], symbol="BTCUSDT", bar_time=time, regime=regime, novelty=novelty)
    if outcome is not None:
        bank.settle(entry_id, 1, outcome, time + 1)
    return entry_id


def held(bank: MemoryBank) -> list[int]:
    return [entry.entry_id for entry in bank.entries()]


def priority_of(entry: Entry, bank: MemoryBank) -> tuple[int, int]:
    outcome = entry.outcomes[bank.config.primary]
    worth = 1.0 + max(entry.novelty, 0.0)
    worth += 0.0 if outcome is None else abs(outcome) / bank.config.outcome_scale
    worth += max(entry.credit, 0.0) / bank.config.outcome_scale
    return priority(entry.bar_time, worth, bank.config.half_life_ms), entry.entry_id


# -- importance -----------------------------------------------------------------------------------------------------------


def test_importance_counts_novelty_outcome_and_credit_and_is_never_below_one():
    assert importance(0.0, np.nan, 0, 0.5) == 1.0
    assert importance(0.25, np.nan, 0, 0.5) == 1.25
    assert importance(0.0, -1.0, 0, 0.5) == 3.0
    assert importance(0.0, 1.0, 2**32, 0.5) == 4.0
    assert importance(-0.5, 0.0, -(2**40), 0.5) == 1.0


def test_a_glitch_of_an_outcome_counts_no_more_than_a_huge_one():
    assert importance(0.0, 1e300, 0, 1e-90) == importance(0.0, 1024.0, 0, 1.0) == 1025.0


def test_an_entry_of_double_importance_stays_one_half_life_longer():
    assert priority(0, 2.0, HALF_LIFE_MS) == priority(HALF_LIFE_MS, 1.0, HALF_LIFE_MS)
    bank = make_bank(capacity=40)
    special = remember(bank, 0, outcome=0.5)
    for day in range(1, 69):
        remember(bank, day, outcome=0.0)
    assert held(bank)[:2] == [special, 30], "it outlived the thirty days that were younger"
    remember(bank, 69, outcome=0.0)
    assert held(bank)[:2] == [30, 31], "as fresh as the thirtieth now, and of lower id"


# -- invariants -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([Eviction.IMPORTANCE, Eviction.RESERVOIR]),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_whoever_leaves_is_the_least_important_of_those_who_could(eviction, capacity, regimes, seed):
    """And under a reservoir no regime with no more than its share gets smaller."""
    random = np.random.default_rng(seed)
    bank = make_bank(eviction, capacity)
    for day in range(3 * capacity + 40):
        before = {entry.entry_id: entry for entry in bank.entries()}
        sizes = Counter(entry.regime for entry in before.values())
        regime = int(random.integers(regimes))
        bank.take_changes()
        remember(bank, day, regime=regime, novelty=float(random.integers(3)) / 2)
        gone = bank.take_changes().evicted
        if len(before) < capacity:
            assert gone == ()
        else:
            (victim,) = gone
            left = before[victim].regime
            rivals = [e for e in before.values() if eviction is Eviction.IMPORTANCE or e.regime == left]
            assert priority_of(before[victim], bank) == min(priority_of(entry, bank) for entry in rivals)
            if eviction is Eviction.RESERVOIR and left != regime:
                assert sizes[left] > capacity / len({*sizes, regime})
        for entry_id in held(bank):
            if random.random() < 0.2 and bank.entry(entry_id).outcomes[1] is None:
                bank.settle(entry_id, 1, float(random.standard_normal()), day * DAY_MS + 1)


def test_a_flood_of_quiet_days_does_not_push_out_the_last_crash():
    bank = make_bank(Eviction.RESERVOIR, capacity=100)
    crash = [remember(bank, day, regime=1, outcome=-3.0) for day in range(20)]
    for day in range(20, 2000):
        remember(bank, day, regime=0, outcome=0.1)
    assert set(crash) <= set(held(bank))
    assert len(bank) == 100


def test_with_equal_shares_the_regime_that_grows_gives_way():
    bank = make_bank(Eviction.RESERVOIR, capacity=10)
    for day in range(10):
        remember(bank, day, regime=day % 2)
    remember(bank, 10, regime=1)
    assert Counter(entry.regime for entry in bank.entries()) == {0: 5, 1: 5}
    remember(bank, 11, regime=2)
    assert Counter(entry.regime for entry in bank.entries()) == {0: 4, 1: 5, 2: 1}


def test_every_entry_may_have_a_regime_of_its_own():
    bank = make_bank(Eviction.RESERVOIR, capacity=70)
    for day in range(400):
        remember(bank, day, regime=day)
    assert len(bank) == 70
    assert held(bank)[-1] == 399


def test_the_newcomer_is_never_the_one_to_leave():
    bank = make_bank(Eviction.IMPORTANCE, capacity=1)
    for day in range(5):
        newest = remember(bank, day, outcome=100.0 / (day + 1))
        assert held(bank) == [newest]


def test_credit_that_is_lost_again_no_longer_protects():
    """An importance may fall as well as rise, and the order of leaving follows."""
    bank = make_bank(Eviction.IMPORTANCE, capacity=3)
    good, other = remember(bank, 0, outcome=0.25), remember(bank, 1, outcome=0.5)
    first = remember(bank, 2)
    bank.note(first, as_of=2 * DAY_MS, ids=[good, other], weights=[1.0, 1.0])
    bank.settle(first, 1, 0.25, 2 * DAY_MS + 1)
    assert bank.entry(good).credit > 0.0
    second = remember(bank, 3)
    assert (good in held(bank), first in held(bank)) == (True, False)
    bank.note(second, as_of=3 * DAY_MS, ids=[good, other], weights=[1.0, 1.0])
    bank.settle(second, 1, 1.5, 3 * DAY_MS + 1)
    assert bank.entry(good).credit <= 0.0
    remember(bank, 4)
    assert good not in held(bank)


def test_first_in_first_out_leaves_gaps_where_entries_were_pruned():
    bank = make_bank(Eviction.FIFO, capacity=5)
    for day in range(5):
        remember(bank, day)
    bank.evict([1, 3])
    assert held(bank) == [0, 2, 4]
    remember(bank, 5)
    remember(bank, 6)
    assert held(bank) == [2, 4, 5, 6], "each goes when five have come after it"


# -- evicting and pruning on purpose --------------------------------------------------------------------------------------


@pytest.mark.parametrize("eviction", list(Eviction))
def test_an_evicted_entry_is_found_no_more(eviction):
    bank = make_bank(eviction, capacity=9)
    for day in range(9):
        remember(bank, day, outcome=0.1)
    bank.take_changes()
    bank.evict([4, 4, 7])
    bank.evict([4])
    assert bank.take_changes().evicted == (4, 7)
    assert (len(bank), bank.visible_count(LATE)) == (7, 7)
    assert set(bank.search([1.0, 0.0], as_of=LATE, k=9).ids.tolist()) == {0, 1, 2, 3, 5, 6, 8, -1}
    assert bank.find("BTCUSDT", 4 * DAY_MS) is None
    with pytest.raises(MemoryBankError, match="entry 4 is not in this memory"):
        bank.entry(4)
    with pytest.raises(MemoryBankError, match=r"BTCUSDT: the bar at .* would come after"):
        remember(bank, 4)


@pytest.mark.parametrize("strange", [-1, 9])
def test_an_id_that_was_never_given_cannot_be_evicted_and_nothing_is(strange):
    bank = make_bank(capacity=9)
    for day in range(9):
        remember(bank, day)
    with pytest.raises(MemoryBankError, match=f"entry {strange} cannot be evicted: this memory has given no such id"):
        bank.evict([2, strange])
    assert len(bank) == 9


@pytest.mark.parametrize("eviction", list(Eviction))
def test_pruning_takes_what_was_never_of_use_or_of_harm_and_can_be_tried_first(eviction):
    bank = make_bank(eviction, capacity=20)
    for day in range(6):
        remember(bank, day, outcome=day / 4 - 0.5)
    asker = remember(bank, 6)
    bank.note(asker, as_of=6 * DAY_MS, ids=[0, 3], weights=[0.5, 0.5])
    bank.settle(asker, 1, 0.25, 6 * DAY_MS + 1)
    assert bank.entry(0).credit < 0.0 < bank.entry(3).credit
    unused = PruneRule(unused_for_ms=2 * DAY_MS)
    digest = bank.digest()
    assert bank.prune_candidates(unused, 6 * DAY_MS) == (1, 2)
    assert bank.prune_candidates(unused, 6 * DAY_MS + 1) == (1, 2, 4)
    assert bank.prune_candidates(PruneRule(credit_below=0.0), 6 * DAY_MS) == (0,)
    assert bank.prune_candidates(PruneRule(0, 0.0), 0) == (0,)
    assert (bank.digest(), bank.take_changes().evicted) == (digest, ())
    assert bank.prune(PruneRule(2 * DAY_MS, 0.0), 6 * DAY_MS) == (0, 1, 2)
    assert bank.take_changes().evicted == (0, 1, 2)
    assert held(bank) == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((None, None), "the prune rule has no condition"),
        ((-1, None), "unused_for_ms is -1"),
        ((2**62, None), "unused_for_ms is"),
        ((None, float("nan")), "credit_below is nan"),
    ],
)
def test_a_senseless_prune_rule_is_refused(values, message):
    with pytest.raises(MemoryBankError, match=message):
        PruneRule(*values)


def test_a_novelty_that_is_no_number_is_refused():
    bank = make_bank()
    for novelty in (float("nan"), float("inf"), 1e39):
        with pytest.raises(MemoryBankError, match=r"BTCUSDT: novelty .* is no finite number"):
            remember(bank, 0, novelty=novelty)
    assert bank.next_id == 0
    assert bank.entry(remember(bank, 0, novelty=0.1)).novelty == float(np.float32(0.1))


# -- structures -----------------------------------------------------------------------------------------------------------

pairs = st.tuples(st.integers(-3, 3), st.integers(0, 9))


@settings(deadline=None)
@given(st.lists(pairs), st.lists(st.tuples(st.sampled_from(["push", "pop", "replace"]), pairs), max_size=60))
def test_the_heap_gives_the_lowest_pair(start, steps):
    columns = np.array(start, dtype=np.int64).reshape(-1, 2)
    ours, theirs = PairHeap(columns[:, 0], columns[:, 1]), sorted(start)
    for step, pair in steps:
        if step == "push":
            ours.push(*pair)
            heapq.heappush(theirs, pair)
        elif theirs and step == "pop":
            ours.pop()
            heapq.heappop(theirs)
        elif theirs:
            ours.replace(*pair)
            heapq.heapreplace(theirs, pair)
        assert len(ours) == len(theirs)
        if theirs:
            assert ours.lowest() == theirs[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 200))
def test_slots_are_found_by_id_whatever_was_released(seed, most):
    random = np.random.default_rng(seed)
    slots, taken = FreeSlots(), {}
    for entry_id in range(800):
        taken[entry_id] = slots.take(entry_id)
        assert len(set(taken.values())) == len(taken) <= most + 1
        while len(taken) > most or (taken and random.random() < 0.1):
            slots.release(taken.pop(int(random.choice(list(taken)))))
        if entry_id % 97 == 0:
            ids = np.array(sorted(taken), dtype=np.int64)
            assert (
                slots.slots(ids).tolist() == [taken[i] for i in ids.tolist()] == [slots.slot(i) for i in ids.tolist()]
            )
            since, places = slots.since(entry_id - 50, entry_id + 1)
            listed = dict(zip(since.tolist(), places.tolist(), strict=True))
            assert {i: listed[i] for i in taken if i >= entry_id - 50} == {
                i: slot for i, slot in taken.items() if i >= entry_id - 50
            }
