"""Hits and credit: what decisions remembered, and whose advice was good."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric
from memory_store.columns import ENTRY_COLUMNS
from memory_store.credit import LARGEST_CREDIT, credit_in_outcomes, credit_in_units, in_scales, leave_one_out
from memory_store.records import Eviction, Recollection

UNIT = 2.0**-32
sixteenths = st.integers(-200, 200).map(lambda number: number / 16)


def exact_credit(outcome: float, outcomes: list[float], weights: list[int]) -> list[float]:
    """By the definition, in rational numbers: the forecast's error without a neighbour, less the error with it."""

    def error(places: list[int]) -> Fraction:
        total = sum(weights[place] for place in places)
        votes = sum((weights[place] * Fraction(outcomes[place]) for place in places), Fraction())
        return abs(Fraction(outcome) - (votes / total if total else 0))

    everyone = list(range(len(weights)))
    return [
        float(error([p for p in everyone if p != place]) - error(everyone)) if weights[place] else 0.0
        for place in everyone
    ]


@settings(max_examples=200, deadline=None)
@given(
    sixteenths,
    st.lists(st.tuples(sixteenths, st.integers(0, 9)), min_size=1, max_size=40).filter(lambda v: any(w for _, w in v)),
)
def test_credit_is_what_the_error_would_have_been_without_less_what_it_was(outcome, votes):
    outcomes, weights = [o for o, _ in votes], [w for _, w in votes]
    units = leave_one_out(np.array([outcome]), np.array([outcomes]), np.array([weights], dtype=np.float64))[0]
    np.testing.assert_allclose(units * UNIT, exact_credit(outcome, outcomes, weights), rtol=0, atol=UNIT)


def test_a_lone_neighbour_is_compared_with_a_forecast_of_nothing():
    one = leave_one_out(np.array([0.5, -0.5]), np.array([[0.25], [0.25]]), np.array([[3.0], [3.0]]))
    assert (one * UNIT).tolist() == [[0.25], [-0.25]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 9))
def test_credit_does_not_depend_on_company_or_padding(seed, k, padding):
    """One decision at a time, many at once, with masked places at the end: the same units."""
    random = np.random.default_rng(seed)
    outcome, outcomes = random.standard_normal(7), np.zeros((7, k + padding))
    weights = np.zeros((7, k + padding))
    outcomes[:, :k], weights[:, :k] = random.standard_normal((7, k)), random.random((7, k))
    together = leave_one_out(outcome, outcomes, weights)
    alone = [leave_one_out(outcome[i : i + 1], outcomes[i : i + 1, :k], weights[i : i + 1, :k])[0] for i in range(7)]
    assert together[:, :k].tolist() == [units.tolist() for units in alone]
    assert not together[:, k:].any()


@given(st.integers(-LARGEST_CREDIT, LARGEST_CREDIT), st.floats(1e-100, 1e100))
def test_credit_survives_as_a_number_of_outcomes(units, scale):
    assert credit_in_units(credit_in_outcomes(units, scale), scale) == units


def test_a_glitch_of_an_outcome_gives_bounded_credit():
    followed = in_scales(np.array([1e300]), 1e-100)
    units = leave_one_out(followed, in_scales(np.array([[1e300, -1e300]]), 1e-100), np.array([[1e-300, 1e300]]))
    assert np.abs(units).max() * UNIT <= 4096.0


# -- the bank -------------------------------------------------------------------------------------------------------------


def make_bank(capacity: int = 50, eviction: Eviction = Eviction.FIFO) -> MemoryBank:
    half_life = 0 if eviction is Eviction.FIFO else 1000
    config = BankConfig(capacity, 2, (1, 4), 1, 10, Metric.COSINE, eviction, half_life_ms=half_life, outcome_scale=0.5)
    return MemoryBank(config, encoder_version="v1")


def remember(bank: MemoryBank, time: int, outcome: float | None = None) -> int:
    entry_id = bank.append([1.0, time], symbol="BTCUSDT", bar_time=time)
    if outcome is not None:
        bank.settle(entry_id, 1, outcome, time + 1)
    return entry_id


def with_three(capacity: int = 50) -> tuple[MemoryBank, int]:
    """Entries 0 and 1 with outcomes, visible from 111 and 112; 2 pending; and the id of an asker."""
    bank = make_bank(capacity)
    remember(bank, 100, 1.0)
    remember(bank, 101, -1.0)
    remember(bank, 102)
    return bank, remember(bank, 200)


def test_hits_count_at_once_and_credit_when_the_outcome_is_known():
    bank, asker = with_three()
    bank.take_changes()
    bank.note(asker, as_of=300, ids=[1, 0], weights=[1.0, 3.0])
    for entry_id in (0, 1):
        entry = bank.entry(entry_id)
        assert (entry.hits, entry.last_hit, entry.credit) == (1, 300, 0.0)
    (recollection,) = bank.take_changes().recollections
    assert (recollection.asker_id, recollection.as_of) == (asker, 300)
    assert (recollection.ids.tolist(), recollection.weights.tolist()) == ([1, 0], [1.0, 3.0])
    bank.settle(asker, 0, 9.0, 400)
    assert bank.entry(0).credit == 0.0, "another horizon's outcome is not what was forecast"
    bank.settle(asker, 1, 1.0, 400)
    assert (bank.entry(0).credit, bank.entry(1).credit) == (1.5, -0.5)
    bank.settle(asker, 1, 1.0, 400)
    assert bank.entry(0).credit == 1.5, "said again, counted once"
    assert (bank.entry(2).hits, bank.entry(2).last_hit) == (0, None)


def test_the_last_hit_is_the_latest_not_the_last_said():
    bank, first = with_three()
    second = remember(bank, 201)
    bank.note(second, as_of=500, ids=[0], weights=[1])
    bank.note(first, as_of=300, ids=[0], weights=[1])
    assert (bank.entry(0).hits, bank.entry(0).last_hit) == (2, 500)


def test_neighbours_that_left_before_they_were_noted_are_left_out():
    bank, asker = with_three(capacity=4)
    remember(bank, 201)
    bank.take_changes()
    bank.note(asker, as_of=300, ids=[0, 1], weights=[1.0, 1.0])
    assert bank.take_changes().recollections[0].ids.tolist() == [1]
    bank.settle(asker, 1, -1.0, 400)
    assert bank.entry(1).credit == 1.0


def test_neighbours_that_left_after_it_still_count_in_the_forecast():
    bank, asker = with_three(capacity=4)
    bank.note(asker, as_of=300, ids=[0, 1], weights=[1.0, 1.0])
    remember(bank, 201)
    assert bank.find("BTCUSDT", 100) is None
    bank.settle(asker, 1, -1.0, 400)
    assert bank.entry(1).credit == 1.0, "the forecast was 0; without it, 1"


def test_nothing_is_noted_where_nothing_is_left():
    bank, asker = with_three(capacity=4)
    bank.note(asker, as_of=300, ids=[], weights=[])
    remember(bank, 201)
    bank.note(asker, as_of=300, ids=[0, 1], weights=[1.0, 0.0])
    bank.take_changes()
    for time in range(202, 206):
        remember(bank, time)
    bank.note(asker, as_of=300, ids=[0], weights=[1.0])
    assert bank.take_changes().recollections == ()


def test_an_asker_that_leaves_takes_its_question_along():
    bank, asker = with_three()
    bank.note(asker, as_of=300, ids=[0], weights=[1.0])
    bank.evict([asker])
    bank.settle(asker, 1, 1.0, 400)
    assert (bank.entry(0).hits, bank.entry(0).credit) == (1, 0.0)
    assert not bank.state().recollections


@pytest.mark.parametrize(
    ("asker", "as_of", "ids", "weights", "message"),
    [
        (4, 300, [0], [1.0], "entry 4 cannot have asked: this memory has given no such id"),
        (-1, 300, [0], [1.0], "entry -1 cannot have asked"),
        (3, 300, [0, 9], [1.0, 1.0], "entry 9 cannot have been a neighbour: this memory has given no such id"),
        (3, 300, [0, -1], [1.0, 1.0], "entry -1 cannot have been a neighbour"),
        (3, 300, [0, 0], [1.0, 1.0], "neighbours of entry 3 name an entry twice"),
        (3, 300, [0, 1], [1.0], "give one weight per id"),
        (3, 300, [[0]], [[1.0]], "give one weight per id"),
        (3, 300, [0.5], [1.0], "ids are whole numbers"),
        (3, 300, [0, 1], [1.0, -0.1], "weights of the neighbours of entry 3 are not shares"),
        (3, 300, [0, 1], [0.0, 0.0], "weights of the neighbours of entry 3 are not shares"),
        (3, 300, [0, 1], [np.nan, 1.0], "weights of the neighbours of entry 3 are not shares"),
        (3, 300, [0, 2], [1.0, 1.0], "entry 2 cannot have been a neighbour at 300: it was not visible then"),
        (3, 110, [0], [1.0], "entry 0 cannot have been a neighbour at 110: it was not visible then"),
        (3, 300, [3], [1.0], "entry 3 cannot have been a neighbour"),
        (1, 300, [0], [1.0], "outcome of entry 1 is known already"),
        (3, 2**62, [0], [1.0], "entry 3 cannot have asked at"),
    ],
)
def test_a_recollection_that_cannot_be_is_refused_and_changes_nothing(asker, as_of, ids, weights, message):
    bank, _ = with_three()
    bank.take_changes()
    digest = bank.digest()
    with pytest.raises(MemoryBankError, match=message):
        bank.note(asker, as_of=as_of, ids=ids, weights=weights)
    assert (bank.digest(), bool(bank.take_changes())) == (digest, False)


def test_a_decision_is_noted_once():
    bank, asker = with_three()
    bank.note(asker, as_of=300, ids=[0], weights=[1.0])
    with pytest.raises(MemoryBankError, match="entry 3 has its neighbours noted already"):
        bank.note(asker, as_of=300, ids=[1], weights=[1.0])


def lived(bank: MemoryBank, steps: int, *, read: bool, size: float = 1.0) -> list[str]:
    """Decisions in a bank that turns and forgets, with digests after every step or only of the end."""
    random = np.random.default_rng(7)
    digests: list[str] = []
    for now in range(100, 100 + steps):
        asker = remember(bank, now)
        sign, weights, share = random.choice([-size, size]), random.random(9) + 1e-9, random.random()
        held = np.array(
            [entry_id for entry_id in range(max(0, asker - 40), asker - 15) if bank.find("BTCUSDT", 100 + entry_id)]
        )
        ids = random.permutation(held)[: 1 + int(share * 9)]
        if len(ids):
            bank.note(asker, as_of=now, ids=ids, weights=weights[: len(ids)])
        if asker >= 3:
            bank.settle(asker - 3, 1, sign * random.random(), now + 1)
        if share < 0.02:
            bank.evict([asker - 20, asker - 2])
        if read:
            digests.append(bank.digest())
    return [*digests, bank.digest()]


@pytest.mark.parametrize("steps", [40, 300, 700])
@pytest.mark.parametrize("eviction", [Eviction.FIFO, Eviction.IMPORTANCE])
def test_when_somebody_reads_the_counts_makes_no_difference(steps, eviction):
    often, once = (lived(make_bank(60, eviction), steps, read=read) for read in (True, False))
    assert often[-1] == once[-1]
    assert len(set(often)) > steps // 2


def test_at_the_largest_credit_it_makes_no_difference_either():
    """What is beyond the largest is lost at once, so the order in which credit came has a say in what is left."""
    often, once = make_bank(2000), make_bank(2000)
    assert lived(often, 900, read=True, size=1e9)[-1] == lived(once, 900, read=False, size=1e9)[-1]
    largest = 0
    for bank in (often, once):
        advised = [bank.append([1.0, 0.0], symbol="ETHUSDT", bar_time=5000)]
        bank.settle(advised[0], 1, 1e9, 5001)
        for number in range(300):
            asker = remember(bank, 6000 + number)
            bank.note(asker, as_of=6000 + number, ids=np.array(advised), weights=np.array([1.0]))
            bank.settle(asker, 1, 1e9 if number < 280 else -1e9, 6001 + number)
            if bank is often:
                largest = max(largest, credit_in_units(bank.entry(advised[0]).credit, 0.5))
    assert largest == LARGEST_CREDIT
    assert often.digest() == once.digest()
    assert 0 < credit_in_units(once.entry(advised[0]).credit, 0.5) < LARGEST_CREDIT


def test_a_neighbour_that_left_is_left_out_however_many_decisions_came_before():
    """What is known of entries from earlier decisions is forgotten as they leave, in turn or out of it."""
    bank = make_bank(600)
    for now in range(100, 900):
        asker = remember(bank, now)
        if asker >= 3:
            bank.settle(asker - 3, 1, 0.5, now)
        if asker >= 20:
            bank.note(asker, as_of=now, ids=np.array([asker - 15, asker - 14]), weights=np.array([1.0, 1.0]))
    bank.take_changes()
    bank.evict([500])
    asker = remember(bank, 900)
    bank.note(asker, as_of=900, ids=np.array([asker - 600, 501, 500]), weights=np.array([1.0, 1.0, 1.0]))
    assert bank.take_changes().recollections[0].ids.tolist() == [501]
    asker = remember(bank, 901)
    with pytest.raises(MemoryBankError, match="entry 797 cannot have been a neighbour at 850: it was not visible then"):
        bank.note(asker, as_of=850, ids=np.array([600, 797]), weights=np.array([1.0, 1.0]))


def test_what_was_noted_does_not_follow_the_callers_arrays():
    bank, asker = with_three()
    ids, weights = np.array([0, 1]), np.array([1.0, 1.0])
    bank.note(asker, as_of=300, ids=ids, weights=weights)
    ids[:], weights[:] = 9, -5.0
    assert bank.take_changes().recollections[0].ids.tolist() == [0, 1]
    bank.settle(asker, 1, 1.0, 400)
    assert bank.entry(0).credit == 1.0


# -- from storage -----------------------------------------------------------------------------------------------------------


def test_credit_is_restored_though_the_neighbours_and_askers_it_came_from_are_gone():
    bank, asker = with_three(capacity=4)
    source = make_bank(4)
    bank.note(asker, as_of=300, ids=[0, 1], weights=[1.0, 1.0])
    recollections = bank.take_changes().recollections
    bank.settle(asker, 1, -1.0, 400)
    bank.evict([asker, 0])
    bare = [_without_use(entry) for entry in bank.entries()]
    source.restore(
        bare, next_id=4, last_times={"BTCUSDT": 200}, recollections=recollections, outcomes={0: 1.0, 3: -1.0}
    )
    assert source.digest() == bank.digest()
    assert source.entry(1).credit == 1.0
    unknown = make_bank(4)
    with pytest.raises(MemoryBankError, match="entry 0 was a neighbour and its outcome is not known"):
        unknown.restore(bare, next_id=4, recollections=recollections, outcomes={3: -1.0})
    never_settled = make_bank(4)
    never_settled.restore(bare, next_id=4, recollections=recollections)
    assert (never_settled.entry(1).hits, never_settled.entry(1).credit) == (1, 0.0)


@pytest.mark.parametrize(
    ("ids", "weights"),
    [([], []), ([0, 1], [1.0]), ([0], [-1.0]), ([0], [0.0]), ([0], [np.inf]), ([-1], [1.0])],
)
def test_a_damaged_recollection_is_named(ids, weights):
    bank, _ = with_three()
    damaged = Recollection(3, 300, np.array(ids, dtype=np.int64), np.array(weights, dtype=np.float64))
    with pytest.raises(MemoryBankError, match="what entry 3 remembered is damaged"):
        make_bank().restore(bank.entries(), next_id=4, recollections=[damaged])
    sound = [Recollection(asker, 300, np.array([0, 1]), np.array([0.0, 1.0])) for asker in (1, 2)]
    with pytest.raises(MemoryBankError, match="what entry 3 remembered is damaged"):
        make_bank().restore(bank.entries(), next_id=4, recollections=[*sound, damaged])
    twice = [Recollection(3, 300, np.array([0]), np.array([1.0]))] * 2
    with pytest.raises(MemoryBankError, match="entry 3 cannot have asked twice"):
        make_bank().restore(bank.entries(), next_id=4, recollections=twice)


def test_a_snapshot_whose_askers_were_answered_since_gives_the_credit():
    bank, asker = with_three()
    bank.note(asker, as_of=300, ids=[0, 1], weights=[1.0, 3.0])
    state = bank.state()
    bank.settle(asker, 1, 1.0, 400)
    settled = bank.state()
    later = make_bank()
    later.restore_state(replace(state, outcomes=settled.outcomes, settled_times=settled.settled_times))
    assert later.digest() == bank.digest()
    gone = make_bank()
    bank.evict([asker])
    kept = state.ids != asker
    columns = {name: getattr(state, name)[kept] for name in ENTRY_COLUMNS}
    gone.restore_state(replace(state, **columns), outcomes={asker: 1.0})
    assert gone.digest() == bank.digest()


def _without_use(entry):
    return replace(entry, hits=0, last_hit=None, credit=0.0)
