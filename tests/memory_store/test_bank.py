"""What a memory bank promises, and what it refuses."""

from __future__ import annotations

import sys
import tracemalloc
import zlib

import numpy as np
import pytest

from memory_store import BankChanges, BankConfig, MemoryBank, MemoryBankError, Metric
from memory_store.records import Eviction, IndexKind

HOUR_MS = 3_600_000
EMBARGO_MS = 48 * HOUR_MS


def make_config(**changes) -> BankConfig:
    values = {
        "capacity": 50,
        "dimension": 4,
        "horizons": (1, 4, 24),
        "primary": 2,
        "embargo_ms": EMBARGO_MS,
        "metric": Metric.COSINE,
    }
    return BankConfig(**{**values, **changes})


def make_bank(*, record_changes: bool = True, **changes) -> MemoryBank:
    return MemoryBank(make_config(**changes), encoder_version="v1", record_changes=record_changes)


def key_of(number: int, dimension: int = 4) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(dimension).astype(np.float32)


def settle_all(bank: MemoryBank, entry_id: int, outcome: float, time: int) -> None:
    for horizon in range(len(bank.config.horizons)):
        bank.settle(entry_id, horizon, outcome, time)


def filled(bank: MemoryBank, count: int) -> MemoryBank:
    for number in range(count):
        entry_id = bank.append(key_of(number, bank.config.dimension), symbol="BTCUSDT", bar_time=number)
        settle_all(bank, entry_id, number / 10, number + 1)
    return bank


LATE = 10**15


# -- fewer neighbours than asked for ------------------------------------------------------------------------------------


def test_asking_for_more_neighbours_than_exist_masks_the_rest():
    """No id -1 ever stands for an entry: masked rows carry nothing that could be mistaken for one."""
    result = filled(make_bank(), 5).search(key_of(0), as_of=LATE, k=32)
    assert result.count == 5
    assert result.mask.tolist() == [True] * 5 + [False] * 27
    assert sorted(result.ids[:5].tolist()) == [0, 1, 2, 3, 4]
    assert set(result.ids[5:].tolist()) == {-1}
    assert np.isneginf(result.scores[5:]).all()
    assert np.isnan(result.outcomes[5:]).all()
    assert not result.keys[5:].any()
    assert result.symbols == ("BTCUSDT",) * 5 + ("",) * 27
    assert set(result.regimes[5:].tolist()) == {-1}
    assert np.nanmean(result.outcomes[:, 2]) == pytest.approx(0.2), "the mean of five outcomes, not of 32"


def test_an_empty_memory_answers_with_nothing():
    bank = make_bank()
    result = bank.search(key_of(0), as_of=LATE, k=3)
    assert (result.count, result.visible, len(bank), list(bank.entries())) == (0, 0, 0, [])
    assert bank.visible_count(LATE) == 0
    proposal = bank.propose(key_of(0)[None], as_of=LATE, k=3)
    assert bank.search(key_of(0), as_of=LATE, k=3, proposal=proposal).count == 0
    filled(bank, 3)
    assert bank.search(key_of(0), as_of=LATE, k=3, proposal=proposal).count == 3


def test_results_have_the_types_and_shapes_that_were_promised():
    result = filled(make_bank(), 9).search(key_of(3), as_of=LATE, k=4)
    assert (result.ids.dtype, result.bar_times.dtype, result.regimes.dtype) == (np.int64,) * 3
    assert (result.scores.dtype, result.outcomes.dtype) == (np.float64, np.float64)
    assert (result.mask.dtype, result.keys.dtype) == (np.bool_, np.float32)
    assert (result.keys.shape, result.outcomes.shape) == ((4, 4), (4, 3))
    assert result.ids[0] == 3
    assert result.scores[0] == pytest.approx(1.0, abs=1e-7)


# -- time ---------------------------------------------------------------------------------------------------------------


def test_an_outcome_is_not_seen_one_millisecond_before_its_embargo_ends():
    bank = make_bank()
    entry_id = bank.append(key_of(0), symbol="BTCUSDT", bar_time=0)
    settle_all(bank, entry_id, 1.5, 24 * HOUR_MS)
    moment = 24 * HOUR_MS + EMBARGO_MS
    assert bank.search(key_of(0), as_of=moment - 1, k=1).count == 0
    assert bank.visible_count(moment - 1) == 0
    result = bank.search(key_of(0), as_of=moment, k=1)
    assert (result.count, result.visible, bank.visible_count(moment)) == (1, 1, 1)
    assert result.outcomes[0].tolist() == [1.5, 1.5, 1.5]


@pytest.mark.parametrize("ready", [0, 1])
def test_an_outcome_of_a_longer_horizon_stays_masked_until_its_own_time(ready):
    bank = make_bank(primary=0)
    entry_id = bank.append(key_of(0), symbol="BTCUSDT", bar_time=0)
    for horizon, bars in enumerate(bank.config.horizons):
        bank.settle(entry_id, horizon, float(bars), bars * HOUR_MS)
    as_of = 4 * HOUR_MS + EMBARGO_MS - 1 + ready
    assert bank.search(key_of(0), as_of=as_of, k=1).outcomes[0, 0] == 1.0
    assert np.isnan(bank.search(key_of(0), as_of=as_of, k=1).outcomes[0, 1]) == (not ready)
    assert np.isnan(bank.search(key_of(0), as_of=as_of, k=1).outcomes[0, 2])


def test_a_pending_entry_is_never_seen_however_late_it_is_asked_for():
    bank = make_bank()
    bank.settle(bank.append(key_of(0), symbol="BTCUSDT", bar_time=0), 0, 1.0, HOUR_MS)
    for as_of in (LATE, 2**62, 2**63 - 1, 2**70):
        assert bank.search(key_of(0), as_of=as_of, k=1).count == 0
        assert bank.visible_count(as_of) == 0


def test_a_bar_never_finds_itself_nor_anything_whose_outcome_it_could_share():
    """In the order of the house (settle, query, append) every neighbour's outcome was known an embargo ago."""
    bank = make_bank(capacity=500)
    for number in range(300):
        close = (number + 1) * HOUR_MS
        for horizon, bars in enumerate(bank.config.horizons):
            if number >= bars:
                bank.settle(number - bars, horizon, 0.1, close)
        result = bank.search(key_of(number), as_of=close, k=40)
        matured = result.bar_times[result.mask] + (24 + 1) * HOUR_MS
        assert (matured + EMBARGO_MS <= close).all()
        assert result.visible == max(0, number - 24 - 48 + 1)
        bank.append(key_of(number), symbol="BTCUSDT", bar_time=number * HOUR_MS)
        assert number not in bank.search(key_of(number), as_of=close, k=40).ids


def test_the_past_can_be_asked_as_the_past():
    bank = make_bank(embargo_ms=0)
    answers = {}
    for number in range(30):
        settle_all(bank, bank.append(key_of(number), symbol="BTCUSDT", bar_time=number), 0.1, number + 1)
        answers[number + 1] = bank.search(key_of(99), as_of=number + 1, k=5)
    for as_of, answer in answers.items():
        assert bank.search(key_of(99), as_of=as_of, k=5).ids.tolist() == answer.ids.tolist()


# -- the ring -----------------------------------------------------------------------------------------------------------


def checksum(bar_time: int) -> float:
    return float(zlib.crc32(str(bar_time).encode()))


def test_nothing_shifts_when_the_ring_turns():
    """Every entry's fields carry a checksum of its own bar time; after several turns every retrieved row still matches."""
    bank = make_bank(capacity=37)
    for number in range(200):
        bar_time = number * HOUR_MS
        symbol = f"S{number % 5}"
        entry_id = bank.append(key_of(number), symbol=symbol, bar_time=bar_time, regime=number % 7)
        assert entry_id == number
        settle_all(bank, entry_id, checksum(bar_time), bar_time + 1)
        result = bank.search(key_of(number), as_of=LATE, k=50)
        assert sorted(result.ids[result.mask].tolist()) == list(range(max(0, number - 36), number + 1))
        for place in np.flatnonzero(result.mask).tolist():
            found = int(result.ids[place])
            assert result.bar_times[place] == found * HOUR_MS
            assert result.outcomes[place].tolist() == [checksum(found * HOUR_MS)] * 3
            assert (result.symbols[place], result.regimes[place]) == (f"S{found % 5}", found % 7)
            stored = key_of(found).astype(np.float64)
            np.testing.assert_allclose(result.keys[place], stored / np.linalg.norm(stored), rtol=0, atol=1e-7)


def test_the_oldest_entry_makes_room_and_takes_its_pending_outcome_along():
    bank = make_bank(capacity=3)
    for number in range(4):
        bank.append(key_of(number), symbol="BTCUSDT", bar_time=number)
    assert (len(bank), bank.next_id) == (3, 4)
    assert [bank.find("BTCUSDT", number) for number in range(5)] == [None, 1, 2, 3, None]
    settle_all(bank, 0, 1.0, 10)
    assert bank.visible_count(LATE) == 0
    with pytest.raises(MemoryBankError, match="entry 0 is not in this memory"):
        bank.entry(0)
    assert bank.entry(3).outcomes == (None, None, None)


def test_a_returned_result_is_a_copy_that_later_entries_do_not_change():
    bank = filled(make_bank(capacity=4), 4)
    result = bank.search(key_of(1), as_of=LATE, k=4)
    before = (result.ids.copy(), result.keys.copy(), result.outcomes.copy())
    for number in range(10, 14):
        bank.append(key_of(number), symbol="BTCUSDT", bar_time=number)
    for array, copy in zip((result.ids, result.keys, result.outcomes), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def count_work(bank: MemoryBank, number: int) -> tuple[int, int]:
    """Calls made and bytes allocated at most while one entry is appended and another one settled."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    key = key_of(number)
    tracemalloc.start()
    sys.setprofile(count)
    try:
        bank.append(key, symbol="BTCUSDT", bar_time=number)
        bank.settle(number - 1, 2, 0.5, number + 1)
    finally:
        sys.setprofile(None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return calls, peak


def test_the_cost_of_adding_does_not_depend_on_how_many_entries_there_are():
    """Counted, not timed: the same calls, and never as much memory as a pass over the entries would take."""
    work = {}
    bank = make_bank(capacity=20_000, record_changes=False)
    for number in range(30_001):
        if number in (8, 10, 10_000, 30_000):
            work[number] = count_work(bank, number)
        else:
            bank.append(np.ones(4), symbol="BTCUSDT", bar_time=number)
    del work[8]  # what Python allocates once, when a line runs for the first time
    evicting = 15
    assert work[10][0] == work[10_000][0]
    assert work[30_000][0] <= work[10][0] + evicting
    assert all(peak < 8_000 for calls, peak in work.values())


# -- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", list(Metric))
def test_a_vector_with_a_nan_or_infinite_number_is_refused(bad, metric):
    bank = filled(make_bank(metric=metric), 3)
    vector = np.array([1.0, bad, 0.0, 2.0], dtype=np.float32)
    with pytest.raises(MemoryBankError, match=r"key contains a NaN or infinite number; the memory takes none$"):
        bank.append(vector, symbol="BTCUSDT", bar_time=100)
    with pytest.raises(MemoryBankError, match="query contains a NaN"):
        bank.search(vector, as_of=LATE, k=1)
    with pytest.raises(MemoryBankError, match="query 1 contains a NaN"):
        bank.propose(np.stack([key_of(0), vector]), as_of=LATE, k=1)
    assert (len(bank), bank.next_id, bank.find("BTCUSDT", 100)) == (3, 3, None)


def test_a_zero_vector_has_no_direction_but_is_a_vector():
    bank = make_bank()
    with pytest.raises(MemoryBankError, match="key is zero, which has no direction"):
        bank.append(np.zeros(4), symbol="BTCUSDT", bar_time=0)
    with pytest.raises(MemoryBankError, match="query is zero"):
        bank.search(np.zeros(4), as_of=LATE, k=1)
    other = make_bank(metric=Metric.INNER_PRODUCT)
    settle_all(other, other.append(np.zeros(4), symbol="BTCUSDT", bar_time=0), 1.0, 1)
    assert other.search(np.zeros(4), as_of=LATE, k=1).scores.tolist() == [0.0]


def test_tiny_and_huge_vectors_are_found_or_refused_but_never_lost():
    tiny = make_bank()
    for number, scale in enumerate((1e-45, 1e-30, 1.0, 1e30)):
        settle_all(tiny, tiny.append([scale, 0, 0, 0], symbol="BTCUSDT", bar_time=number), 1.0, number + 1)
    assert tiny.search([1e-40, 0, 0, 0], as_of=LATE, k=9).scores[:4].tolist() == [1.0] * 4
    raw = make_bank(metric=Metric.INNER_PRODUCT)
    for number, scale in enumerate((1e-30, 2e-30, 3e-30)):
        settle_all(raw, raw.append([scale, 0, 0, 0], symbol="BTCUSDT", bar_time=number), 1.0, number + 1)
    assert raw.search([1e-30, 0, 0, 0], as_of=LATE, k=2).ids.tolist() == [2, 1]
    with pytest.raises(MemoryBankError, match=r"key has length 1e\+19; the memory takes lengths up to 1e\+18"):
        raw.append([1e19, 0, 0, 0], symbol="BTCUSDT", bar_time=9)


@pytest.mark.parametrize("shape", [(3,), (5,), (), (1, 4), (0,)])
def test_a_vector_of_another_shape_is_refused(shape):
    bank = filled(make_bank(), 3)
    with pytest.raises(MemoryBankError, match="this memory takes vectors of 4"):
        bank.append(np.ones(shape), symbol="BTCUSDT", bar_time=100)
    with pytest.raises(MemoryBankError, match="this memory takes vectors of 4"):
        bank.search(np.ones(shape), as_of=LATE, k=1)


def test_one_bar_is_remembered_once_and_time_does_not_run_backwards():
    bank = make_bank(capacity=3)
    for number in range(5):
        bank.append(key_of(number), symbol="BTCUSDT", bar_time=10 * number)
    with pytest.raises(MemoryBankError, match="BTCUSDT: the bar at 40 is in the memory already"):
        bank.append(key_of(0), symbol="BTCUSDT", bar_time=40)
    with pytest.raises(MemoryBankError, match="the bar at 35 would come after the bar at 40"):
        bank.append(key_of(0), symbol="BTCUSDT", bar_time=35)
    with pytest.raises(MemoryBankError, match="the bar at 0 would come after"):
        bank.append(key_of(0), symbol="BTCUSDT", bar_time=0)
    bank.append(key_of(0), symbol="ETHUSDT", bar_time=5)
    assert len(bank) == 3


def test_a_symbol_keeps_its_time_when_all_its_entries_are_gone():
    bank = make_bank(capacity=2)
    for number, symbol in enumerate(("ETHUSDT", "BTCUSDT", "BTCUSDT")):
        bank.append(key_of(number), symbol=symbol, bar_time=100 + number)
    assert bank.find("ETHUSDT", 100) is None
    with pytest.raises(MemoryBankError, match="ETHUSDT: the bar at 100 would come after the bar at 100"):
        bank.append(key_of(0), symbol="ETHUSDT", bar_time=100)


def test_an_outcome_is_recorded_once_and_may_be_repeated_but_not_changed():
    bank = make_bank()
    bank.append(key_of(0), symbol="BTCUSDT", bar_time=5)
    bank.settle(0, 0, 0.25, 10)
    bank.settle(0, 0, 0.25, 10)
    assert bank.entry(0).outcomes == (0.25, None, None)
    assert len(bank.take_changes().settlements) == 1
    for outcome, time in ((0.5, 10), (0.25, 11)):
        with pytest.raises(MemoryBankError, match=r"over horizon 0 is 0.25 known at 10; it cannot become"):
            bank.settle(0, 0, outcome, time)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 1.0, 5), "known at 5, which is not after its bar 5"),
        ((0, 0, 1.0, 2**62), "not after its bar"),
        ((0, 0, np.nan, 10), "is nan; leave it pending"),
        ((0, 0, np.inf, 10), "is inf; leave it pending"),
        ((0, 3, 1.0, 10), "horizon 3 is no index into the 3 horizons"),
        ((0, -1, 1.0, 10), "horizon -1 is no index"),
        ((1, 0, 1.0, 10), "entry 1 cannot be settled"),
        ((-1, 0, 1.0, 10), "entry -1 cannot be settled"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused(arguments, message):
    bank = make_bank()
    bank.append(key_of(0), symbol="BTCUSDT", bar_time=5)
    with pytest.raises(MemoryBankError, match=message):
        bank.settle(*arguments)
    assert bank.entry(0).outcomes == (None, None, None)


@pytest.mark.parametrize("entry_id", [-1, -50, 3, 50])
def test_an_id_that_was_never_given_names_no_entry(entry_id):
    """-1 in particular is not the last entry, nor the mark of an empty slot."""
    with pytest.raises(MemoryBankError, match=f"entry {entry_id} is not in this memory"):
        filled(make_bank(), 3).entry(entry_id)


def test_senseless_questions_are_refused():
    bank = filled(make_bank(), 3)
    query = key_of(0)
    proposal = bank.propose(query[None], as_of=LATE, k=2)
    refusals = [
        (lambda: bank.search(query, as_of=LATE, k=0), "k is 0; ask for at least 1 neighbour"),
        (lambda: bank.search(query, as_of=LATE, k=1, symbols="BTCUSDT"), "symbols is the text 'BTCUSDT'"),
        (lambda: bank.search(query, as_of=LATE, k=1, proposal=proposal, row=1), "row 1 is not in the proposal"),
        (lambda: bank.search(query, as_of=LATE, k=1, proposal=proposal, row=-1), "row -1 is not in the proposal"),
        (lambda: make_bank().search(query, as_of=LATE, k=1, proposal=proposal), "made by another memory bank"),
        (lambda: bank.propose(np.empty((0, 4)), as_of=LATE, k=1), "queries are empty"),
        (lambda: bank.propose(query[None], as_of=LATE, k=1, skip_oldest=-1), "skip_oldest is -1"),
        (lambda: bank.append(query, symbol="", bar_time=99), "symbol is empty"),
        (lambda: bank.append(query, symbol="B", bar_time=2**62), "is no time in milliseconds"),
        (lambda: bank.append(query, symbol="B", bar_time=1, regime=2**31), "regime 2147483648 does not fit"),
    ]
    for question, message in refusals:
        with pytest.raises(MemoryBankError, match=message):
            question()
    assert len(bank) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": 0}, "capacity is 0"),
        ({"dimension": 0}, "dimension is 0"),
        ({"horizons": ()}, r"horizons are \(\)"),
        ({"horizons": (4, 1)}, "in increasing order"),
        ({"horizons": (0, 1)}, "positive"),
        ({"primary": 3}, "primary is 3"),
        ({"primary": -1}, "primary is -1"),
        ({"embargo_ms": -1}, "embargo_ms is -1"),
        ({"embargo_ms": 2**62}, "embargo_ms is"),
        ({"eviction": Eviction.IMPORTANCE}, "half_life_ms is 0"),
        ({"outcome_scale": 0.0}, "outcome_scale is 0.0"),
        (
            {"eviction": Eviction.RESERVOIR, "half_life_ms": 1, "index": IndexKind.APPROXIMATE},
            "approximate index needs eviction fifo",
        ),
    ],
)
def test_a_config_out_of_range_is_refused(changes, message):
    with pytest.raises(MemoryBankError, match=message):
        make_config(**changes)


# -- symbols and proposals ------------------------------------------------------------------------------------------------


def test_a_search_can_be_limited_to_symbols():
    bank = make_bank(capacity=64)
    for number in range(60):
        symbol = ("BTCUSDT", "ETHUSDT", "SOLUSDT")[number % 3]
        settle_all(bank, bank.append(key_of(number), symbol=symbol, bar_time=number), 0.0, number + 1)
    result = bank.search(key_of(0), as_of=LATE, k=30, symbols={"ETHUSDT"})
    assert (result.count, result.visible) == (20, 20)
    assert set(result.symbols[:20]) == {"ETHUSDT"}
    assert bank.search(key_of(0), as_of=LATE, k=30, symbols=["SOLUSDT", "BTCUSDT"]).visible == 40
    assert bank.search(key_of(0), as_of=LATE, k=30, symbols=[]).count == 0
    assert bank.search(key_of(0), as_of=LATE, k=30, symbols=["XRPUSDT"]).count == 0


def test_a_proposal_for_another_query_is_left_aside():
    bank = filled(make_bank(), 40)
    proposal = bank.propose(key_of(1)[None], as_of=LATE, k=5)
    result = bank.search(key_of(2), as_of=LATE, k=5, proposal=proposal)
    assert result.ids.tolist() == bank.search(key_of(2), as_of=LATE, k=5).ids.tolist()
    assert result.ids[0] == 2


def test_a_proposal_keeps_its_queries_when_the_caller_reuses_the_array():
    bank = filled(make_bank(metric=Metric.INNER_PRODUCT), 40)
    queries = np.stack([key_of(1), key_of(2)])
    proposal = bank.propose(queries, as_of=LATE, k=5)
    queries[:] = key_of(3)
    result = bank.search(queries[0], as_of=LATE, k=5, proposal=proposal, row=0)
    assert result.ids.tolist() == bank.search(key_of(3), as_of=LATE, k=5).ids.tolist()


def test_a_proposal_covers_what_later_appends_do_not_evict():
    bank = filled(make_bank(capacity=1000), 1000)
    proposal = bank.propose(np.stack([key_of(5), key_of(6)]), as_of=LATE, k=8, skip_oldest=20)
    assert (proposal.stable_count, proposal.first_stable) == (980, 20)
    assert proposal.outside.tolist() == list(range(20))
    assert proposal.complete.all()
    assert proposal.ids[1].tolist() == [i for i in bank.search(key_of(6), as_of=LATE, k=28).ids.tolist() if i >= 20][:8]


def test_a_proposal_saves_the_scan():
    """Counted in memory: with a proposal that holds, nothing as large as the bank is made."""
    bank = filled(make_bank(capacity=20_000, record_changes=False), 20_000)
    proposal = bank.propose(key_of(5)[None], as_of=LATE, k=8, skip_oldest=50)
    peaks = []
    for number in range(50):
        bank.append(key_of(number), symbol="BTCUSDT", bar_time=30_000 + number)
    for offered in (None, proposal):
        tracemalloc.start()
        bank.search(key_of(5), as_of=LATE, k=8, proposal=offered)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 4 * 20_000
    assert peaks[1] < 20_000


def test_a_proposal_of_fewer_neighbours_than_wanted_is_left_aside():
    bank = filled(make_bank(), 40)
    proposal = bank.propose(key_of(1)[None], as_of=LATE, k=5)
    result = bank.search(key_of(1), as_of=LATE, k=6, proposal=proposal)
    assert result.ids.tolist() == bank.search(key_of(1), as_of=LATE, k=6).ids.tolist()
    assert result.count == 6


# -- changes and digest -----------------------------------------------------------------------------------------------------


def test_changes_tell_everything_once_and_in_order():
    bank = make_bank(capacity=2)
    assert not bank.take_changes()
    for number in range(3):
        bank.append(key_of(number), symbol="BTCUSDT", bar_time=number, regime=number)
    bank.settle(2, 0, 0.5, 9)
    bank.settle(0, 0, 0.5, 9)
    changes = bank.take_changes()
    assert [entry.entry_id for entry in changes.appended] == [0, 1, 2]
    assert [entry.regime for entry in changes.appended] == [0, 1, 2]
    assert changes.appended[2].outcomes == (None, None, None)
    assert [(s.entry_id, s.horizon, s.outcome, s.settled_time) for s in changes.settlements] == [(2, 0, 0.5, 9)]
    assert changes.evicted == (0,)
    assert bank.take_changes() == BankChanges()


def test_a_refused_append_changes_nothing():
    bank = filled(make_bank(capacity=3), 3)
    bank.take_changes()
    digest = bank.digest()
    for bar_time, key in ((2, key_of(9)), (10, np.zeros(4)), (1, key_of(9))):
        with pytest.raises(MemoryBankError):
            bank.append(key, symbol="BTCUSDT", bar_time=bar_time)
    assert (bank.digest(), bool(bank.take_changes()), len(bank)) == (digest, False, 3)


def test_changes_are_not_kept_where_nobody_wants_them():
    bank = filled(make_bank(capacity=3, record_changes=False), 9)
    assert bank.take_changes() == BankChanges()


def test_a_recorded_key_does_not_follow_the_callers_array():
    bank = make_bank(metric=Metric.INNER_PRODUCT)
    key = np.ones(4, dtype=np.float32)
    bank.append(key, symbol="BTCUSDT", bar_time=0)
    key[:] = 7.0
    assert bank.take_changes().appended[0].key.tolist() == [1.0] * 4
    assert bank.entry(0).key.tolist() == [1.0] * 4


def test_equal_digests_mean_equal_content():
    assert filled(make_bank(), 40).digest() == filled(make_bank(record_changes=False), 40).digest()
    seen = {make_bank().digest()}
    for change in range(6):
        bank = filled(make_bank(), 20)
        symbol = "ETHUSDT" if change == 1 else "BTCUSDT"
        key = key_of(77 if change == 2 else 7)
        bank.append(key, symbol=symbol, bar_time=30 + (change == 3), regime=int(change == 4))
        if change == 5:
            bank.settle(20, 1, 0.5, 99)
        seen.add(bank.digest())
    assert len(seen) == 7


def test_a_restored_bank_is_the_bank_that_was_stored():
    """The same answers, the same changes from then on, through several turns of the ring."""
    bank = filled(make_bank(capacity=37), 100)
    bank.append(key_of(500), symbol="ETHUSDT", bar_time=100)
    bank.take_changes()
    other = make_bank(capacity=37)
    other.restore(bank.entries(), next_id=bank.next_id)
    assert not other.take_changes()
    for number in range(200, 290):
        for each in (bank, other):
            settle_all(each, each.append(key_of(number), symbol="BTCUSDT", bar_time=number), 0.1, number + 5)
        one, two = (each.search(key_of(7), as_of=LATE, k=9) for each in (bank, other))
        assert (one.ids.tobytes(), one.scores.tobytes()) == (two.ids.tobytes(), two.scores.tobytes())
        assert bank.digest() == other.digest()
        assert bank.take_changes().evicted == other.take_changes().evicted


def test_entries_that_do_not_fit_are_not_restored():
    source = filled(make_bank(capacity=5), 8)
    entries = list(source.entries())
    with pytest.raises(MemoryBankError, match="only an unused one can be restored"):
        source.restore(entries, next_id=8)
    refusals = [
        (make_bank(capacity=5), entries[::-1], 8, "are due, in order"),
        (make_bank(capacity=5), entries, 7, "ids from 7 to 6 are due"),
        (make_bank(capacity=4), entries, 8, "entry 3 cannot be restored: ids from 4 to 7 are due"),
        (make_bank(capacity=5, dimension=3), entries, 8, "its key does not have 3 numbers"),
        (make_bank(capacity=5, horizons=(1, 2, 3, 4)), entries, 8, "does not have 4 horizons"),
        (MemoryBank(source.config, encoder_version="v2"), entries, 8, "made by encoder 'v1', not by 'v2'"),
    ]
    for bank, offered, next_id, message in refusals:
        with pytest.raises(MemoryBankError, match=message):
            bank.restore(offered, next_id=next_id)
        assert (len(bank), bank.next_id) == (0, 0)
