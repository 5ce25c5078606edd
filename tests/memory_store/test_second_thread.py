"""A second thread that works ahead: every bit as without it, whatever happens to the memory meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from memory_store import BankConfig, ComingProposal, Eviction, MemoryBank, Metric, Proposal
from memory_store.pruned import WORTHWHILE
from memory_store.second_thread import Promise, SecondThread, has_second_core

two_cores = pytest.mark.skipif(not has_second_core(), reason="a second thread needs a second core")

HORIZON, EMBARGO, K = 3, 2, 4
WANTED = {"k": K, "skip_oldest": 60}


class Market:
    """One moment after the other, each settled three later."""

    def __init__(self, capacity: int, **changes) -> None:
        config = BankConfig(
            capacity=capacity, dimension=6, horizons=(HORIZON,), primary=0, embargo_ms=EMBARGO,
            metric=Metric.COSINE, **changes,
        )  # fmt: skip
        self.bank = MemoryBank(config, encoder_version="v", record_changes=False)
        self.random = np.random.default_rng(5)
        self.now = 0

    def go_on(self, moments: int) -> None:
        for key in self.random.standard_normal((moments, 6), dtype=np.float32):
            entry_id = self.bank.append(key, symbol="A", bar_time=self.now)
            self.now += 1
            if entry_id >= HORIZON:
                self.bank.settle(entry_id - HORIZON, 0, float(key[0]), self.now)

    def queries(self, count: int = 20) -> np.ndarray:
        return self.random.standard_normal((count, 6), dtype=np.float32)

    def propose(self, queries: np.ndarray) -> Proposal:
        return self.bank.propose(queries, as_of=self.now, **WANTED)

    def begin(self, queries: np.ndarray) -> ComingProposal:
        coming = self.bank.begin_proposal(queries, as_of=self.now, **WANTED)
        assert coming is not None
        return coming


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    market = Market(WORTHWHILE)
    market.go_on(WORTHWHILE + 10)
    yield market
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def assert_equal(one, other) -> None:
    """To the last bit, whatever they are made of."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    elif hasattr(one, "__slots__") and not isinstance(one, str):
        for name in one.__slots__:
            assert_equal(getattr(one, name), getattr(other, name))
    else:
        assert one == other


@two_cores
def test_it_finds_what_the_bank_would_have_found_when_it_was_asked_although_the_bank_went_on(market):
    bank = market.bank
    with bank.helped():
        for moments in (0, 1, 40, 200):
            market.go_on(moments)
            queries = market.queries(600)
            expected = market.propose(queries)
            coming = market.begin(queries)
            market.go_on(WANTED["skip_oldest"])  # while it searches
            found = bank.proposal_of(coming)
            assert_equal(found, expected)
            with pytest.raises(AssertionError):
                assert_equal(market.propose(queries), expected)


@two_cores
def test_what_it_proposed_answers_later_searches_as_a_search_in_full_does(market):
    bank, queries = market.bank, market.queries()
    with bank.helped():
        coming = market.begin(queries)
        market.go_on(50)
        proposal = bank.proposal_of(coming)
        for row, query in enumerate(queries):
            asked = {"as_of": market.now, "k": K}
            fast, plain = bank.search(query, proposal=proposal, row=row, **asked), bank.search(query, **asked)
            assert fast.ids.tolist() == plain.ids.tolist() and fast.scores.tolist() == plain.scores.tolist()


@two_cores
def test_it_takes_many_tasks_at_once_and_answers_may_be_left_or_asked_for_in_any_order(market):
    bank = market.bank
    with bank.helped():
        for _ in range(4):
            asked = [market.queries(200) for _ in range(5)]
            coming = [market.begin(queries) for queries in asked]
            expected = [market.propose(queries) for queries in asked]
            for place in (3, 1, 0):
                assert_equal(bank.proposal_of(coming[place]), expected[place])
            market.go_on(3)


@two_cores
def test_there_is_no_answer_where_what_was_searched_was_written_meanwhile(market):
    """Too many moments came: some that were searched had to leave for them."""
    bank = market.bank
    with bank.helped():
        coming = market.begin(market.queries(2000))
        market.go_on(200)
        assert bank.proposal_of(coming) is None
        with bank.written_late():
            coming = market.begin(market.queries(20))
            market.go_on(200)
            assert bank.proposal_of(coming) is None


@two_cores
def test_there_is_no_answer_where_an_entry_was_evicted_out_of_turn(market):
    bank, queries = market.bank, market.queries()
    with bank.helped():
        best = bank.search(queries[0], as_of=market.now, k=1).ids
        coming = market.begin(queries)
        bank.evict(best.tolist())
        assert bank.proposal_of(coming) is None
        later = bank.proposal_of(market.begin(queries))
        assert best[0] not in later.ids
        assert_equal(later, market.propose(queries))


@pytest.mark.parametrize("changes", [{}, {"eviction": Eviction.IMPORTANCE, "half_life_ms": 10}], ids=["small", "other"])
def test_where_help_would_not_help_there_is_none(changes):
    market = Market(WORTHWHILE if changes else 100, **changes)
    market.go_on(150)
    with market.bank.helped():
        assert market.bank.second_thread is None
        assert market.bank.begin_proposal(market.queries(), as_of=market.now, **WANTED) is None


def test_a_promise_is_kept_once_whoever_asks_and_in_how_many_threads():
    times, begun, go_on = [], threading.Event(), threading.Event()

    def work() -> int:
        times.append(threading.current_thread().name)
        begun.set()
        go_on.wait()
        return len(times)

    thread = SecondThread()
    first = thread.begin(work)
    begun.wait()
    behind = thread.begin(lambda: threading.current_thread().name)
    assert behind.result() == threading.current_thread().name  # sooner than to wait for the first
    go_on.set()
    assert first.result() == first.result() == 1
    thread.close()
    assert len(times) == 1 and times[0].startswith("ahead")


def test_what_is_dropped_is_not_done_any_more():
    done = []
    promise = Promise(lambda: done.append(1))
    promise.drop()
    promise.result()
    assert done == []


def test_an_error_on_the_way_is_raised_wherever_the_result_is_asked_for():
    def work() -> None:
        raise ArithmeticError("broken")

    thread = SecondThread()
    promise = thread.begin(work)
    thread.close()
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="broken"):
            promise.result()
