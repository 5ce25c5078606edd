"""A second process that works ahead: every bit as without it, whatever happens to it or to the memory meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from memory_store import BankConfig, Eviction, MemoryBank, Metric, Outlook, Proposal
from memory_store.helper import Promise, can_help
from memory_store.pruned import WORTHWHILE
from tests.memory_store.test_rounded import PlainArithmetic

pytestmark = pytest.mark.skipif(not can_help(), reason="a second process needs Linux and a second core")

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
        self.done = 0

    def go_on(self, moments: int) -> None:
        for key in self.random.standard_normal((moments, 6), dtype=np.float32):
            entry_id = self.bank.append(key, symbol="A", bar_time=self.now)
            self.now += 1
            if entry_id >= HORIZON:
                self.bank.settle(entry_id - HORIZON, 0, float(key[0]), self.now)

    def queries(self, count: int = 20) -> np.ndarray:
        return self.random.standard_normal((count, 6), dtype=np.float32)

    def propose(self, task: tuple[np.ndarray, int]) -> Proposal:
        queries, as_of = task
        return self.bank.propose(queries, as_of=as_of, **WANTED)

    def begin(self, queries: np.ndarray) -> Promise | None:
        return self.bank.begin(self.propose, (queries, self.now), patient=True)

    def number(self, task: np.ndarray) -> int:
        """Propose for queries, if there are any; which of the tasks it was that came to an end."""
        if len(task):
            self.propose((task, self.now))
        self.done += 1
        return self.done

    def look_ahead(self, task: tuple[np.ndarray, int]) -> Outlook:
        outlook = self.bank.look_ahead(self.propose(task), 0, range(task[1], task[1] + EMBARGO))
        assert outlook is not None
        return outlook


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    market = Market(WORTHWHILE)
    market.go_on(WORTHWHILE + 10)
    yield market
    assert multiprocessing.active_children() == []


def assert_equal(one, other) -> None:
    """To the last bit, whatever they are made of."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    elif hasattr(one, "__slots__") and not isinstance(one, str):
        for name in one.__slots__:
            assert_equal(getattr(one, name), getattr(other, name))
    else:
        assert one == other


def test_it_finds_what_the_bank_would_have_found_when_it_was_asked(market):
    bank = market.bank
    with bank.helped():
        assert bank.has_help
        for moments in (0, 1, 40, 200):
            market.go_on(moments)
            queries = market.queries()
            promise, expected = market.begin(queries), market.propose((queries, market.now))
            market.go_on(5)
            assert_equal(promise.result(), expected)
            assert promise.is_kept is False  # there is one answer, and it was taken
    assert not bank.has_help


def test_it_looks_ahead_with_all_that_the_bank_knew_of_outcomes_and_names(market):
    bank = market.bank
    with bank.helped():
        for moments in (0, 30, 300):
            market.go_on(moments)
            queries = market.queries(EMBARGO)
            task = queries, market.now
            promise, expected = bank.begin(market.look_ahead, task, patient=True), market.look_ahead(task)
            answer = promise.result()
            assert_equal(answer, expected)
            for place in range(EMBARGO):
                found = bank.foreseen(answer, place, as_of=market.now + place)
                assert_equal(found, bank.search(queries[place], as_of=market.now + place, k=K))


def test_what_it_proposed_answers_later_searches_as_a_search_in_full_does(market):
    bank, queries = market.bank, market.queries()
    with bank.helped():
        promise = market.begin(queries)
        market.go_on(50)
        proposal = promise.result()
        for row, query in enumerate(queries):
            asked = {"as_of": market.now, "k": K}
            fast, plain = bank.search(query, proposal=proposal, row=row, **asked), bank.search(query, **asked)
            assert fast.ids.tolist() == plain.ids.tolist() and fast.scores.tolist() == plain.scores.tolist()


def test_it_takes_some_tasks_at_once_and_answers_may_be_left(market):
    bank = market.bank
    with bank.helped():
        for _ in range(4):
            asked = [market.queries(200) for _ in range(5)]
            promises = [market.begin(queries) for queries in asked]
            assert all(promises[:2])
            expected = [market.propose((queries, market.now)) for queries in asked]
            for place in (1, 0):
                assert_equal(promises[place].result(), expected[place])
            market.go_on(3)


def test_who_is_patient_lets_others_go_first(market):
    bank = market.bank
    with bank.helped():
        assert bank.begin(market.number, market.queries(0)).result() == 1
        (process,) = multiprocessing.active_children()
        os.kill(process.pid, signal.SIGSTOP)  # it finds all three when it goes on
        patient = [bank.begin(market.number, market.queries(20), patient=True) for _ in range(2)]
        urgent = bank.begin(market.number, market.queries(0))
        os.kill(process.pid, signal.SIGCONT)
        assert (urgent.result(), patient[1].result(), patient[0].result()) == (2, 4, 3)


@pytest.mark.parametrize("arithmetic", [None, PlainArithmetic()], ids=["float32", "bytes"])
def test_what_is_hidden_from_a_search_may_be_written_in_the_middle_of_it(arithmetic):
    market = Market(WORTHWHILE)
    market.go_on(WORTHWHILE + 10)
    queries, asked = market.queries(300), {"as_of": market.now, "arithmetic": arithmetic, **WANTED}
    expected = market.bank.propose(queries, **asked)
    pauses = []

    def pause(hidden: np.ndarray) -> None:
        pauses.append(int(np.count_nonzero(hidden)))
        if len(pauses) <= 3:
            market.go_on(WANTED["skip_oldest"] // 3)

    market.bank._held.finder.pause = pause
    assert_equal(market.bank.propose(queries, **asked), expected)
    assert len(pauses) > 3
    market.bank._held.finder.pause = None
    asked["as_of"] = market.now
    later = market.bank.propose(queries, **asked)
    with pytest.raises(AssertionError):
        assert_equal(later, expected)


def test_what_a_search_looks_at_is_written_when_it_has_ended(market):
    """Told of so much that nothing of what was searched is left, while it was searched."""
    bank = market.bank
    with bank.helped():
        queries = market.queries(2000)
        first, expected = market.begin(queries), market.propose((queries, market.now))
        market.go_on(WORTHWHILE)
        others = market.queries(20)
        second = market.begin(others)
        assert_equal(first.result(), expected)
        assert_equal(second.result(), market.propose((others, market.now)))


def test_much_that_changed_is_told_while_an_answer_waits_to_be_read(market):
    """More than the system takes off a writer, both ways."""
    bank = market.bank
    with bank.helped():
        first = market.begin(market.queries(4000))
        market.go_on(6000)
        queries = market.queries()
        second, expected = market.begin(queries), market.propose((queries, market.now))
        assert second is not None and len(first.result().ids) == 4000
        assert_equal(second.result(), expected)


def test_an_entry_that_is_evicted_out_of_turn_is_not_proposed(market):
    bank, queries = market.bank, market.queries()
    with bank.helped():
        market.begin(queries).result()
        best = bank.search(queries[0], as_of=market.now, k=1).ids
        bank.evict(best.tolist())
        proposal = market.begin(queries).result()
        assert best[0] not in proposal.ids
        assert_equal(proposal, market.propose((queries, market.now)))


def test_a_helper_that_dies_is_not_missed(market):
    with market.bank.helped():
        first = market.begin(market.queries())
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        assert first.is_kept in (True, False)
        while (second := market.begin(market.queries())) is not None:
            assert second.result() is None


@pytest.mark.parametrize("changes", [{}, {"eviction": Eviction.IMPORTANCE, "half_life_ms": 10}], ids=["small", "other"])
def test_where_help_would_not_help_everybody_works_alone(changes):
    market = Market(WORTHWHILE if changes else 100, **changes)
    market.go_on(150)
    with market.bank.helped():
        assert not market.bank.has_help and multiprocessing.active_children() == []
        assert market.begin(market.queries()) is None
