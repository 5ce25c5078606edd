"""A second process that proposes: every bit as without it, whatever happens to it or to the memory meanwhile."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import numpy as np
import pytest

from memory_store import BankConfig, Eviction, MemoryBank, Metric, Proposal
from memory_store.helper import can_help
from memory_store.pruned import WORTHWHILE

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

    def go_on(self, moments: int) -> None:
        for key in self.random.standard_normal((moments, 6), dtype=np.float32):
            entry_id = self.bank.append(key, symbol="A", bar_time=self.now)
            self.now += 1
            if entry_id >= HORIZON:
                self.bank.settle(entry_id - HORIZON, 0, float(key[0]), self.now)

    def queries(self, count: int = 20) -> np.ndarray:
        return self.random.standard_normal((count, 6), dtype=np.float32)


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    market = Market(WORTHWHILE)
    market.go_on(WORTHWHILE + 10)
    yield market
    assert multiprocessing.active_children() == []


def assert_equal(one: Proposal, other: Proposal) -> None:
    for name in Proposal.__slots__:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs, name


def test_it_proposes_what_the_bank_would_have_proposed_when_it_was_asked(market):
    bank = market.bank
    with bank.helped():
        assert bank.has_help
        for moments in (0, 1, 40, 200):
            market.go_on(moments)
            queries = market.queries()
            promised = bank.propose_later(queries, as_of=market.now, **WANTED)
            expected = bank.propose(queries, as_of=market.now, **WANTED)
            market.go_on(5)
            assert_equal(promised.result(), expected)
    assert not bank.has_help


def test_what_it_proposed_answers_later_searches_as_a_search_in_full_does(market):
    bank, queries = market.bank, market.queries()
    with bank.helped():
        promised = bank.propose_later(queries, as_of=market.now, **WANTED)
        market.go_on(50)
        proposal = promised.result()
        for row, query in enumerate(queries):
            asked = {"as_of": market.now, "k": K}
            fast, plain = bank.search(query, proposal=proposal, row=row, **asked), bank.search(query, **asked)
            assert fast.ids.tolist() == plain.ids.tolist() and fast.scores.tolist() == plain.scores.tolist()


def test_more_may_be_asked_than_it_takes_and_answers_may_be_left(market):
    bank = market.bank
    with bank.helped():
        for _ in range(4):
            asked = [market.queries() for _ in range(5)]
            promises = [bank.propose_later(queries, as_of=market.now, **WANTED) for queries in asked]
            expected = [bank.propose(queries, as_of=market.now, **WANTED) for queries in asked]
            for place in (3, 1):
                assert_equal(promises[place].result(), expected[place])


def test_an_entry_that_is_evicted_out_of_turn_is_not_proposed(market):
    bank, queries = market.bank, market.queries()
    with bank.helped():
        bank.propose_later(queries, as_of=market.now, **WANTED).result()
        best = bank.search(queries[0], as_of=market.now, k=1).ids
        bank.evict(best.tolist())
        proposal = bank.propose_later(queries, as_of=market.now, **WANTED).result()
        assert best[0] not in proposal.ids
        assert_equal(proposal, bank.propose(queries, as_of=market.now, **WANTED))


def test_a_helper_that_dies_is_not_missed(market):
    bank, queries = market.bank, market.queries()
    with bank.helped():
        first = bank.propose_later(queries, as_of=market.now, **WANTED)
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        expected = bank.propose(queries, as_of=market.now, **WANTED)
        second = bank.propose_later(queries, as_of=market.now, **WANTED)
        for promised in (first, second):
            result = promised.result()
            assert np.array_equal(result.ids, expected.ids) and np.array_equal(result.scores, expected.scores)


@pytest.mark.parametrize("changes", [{}, {"eviction": Eviction.IMPORTANCE, "half_life_ms": 10}], ids=["small", "other"])
def test_where_help_would_not_help_everybody_works_alone(changes):
    market = Market(WORTHWHILE if changes else 100, **changes)
    market.go_on(150)
    bank, queries = market.bank, market.queries()
    with bank.helped():
        assert not bank.has_help and multiprocessing.active_children() == []
        promised = bank.propose_later(queries, as_of=market.now, **WANTED)
        assert_equal(promised.result(), bank.propose(queries, as_of=market.now, **WANTED))
