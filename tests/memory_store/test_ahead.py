"""Answers before their time: the bits of answers in time, or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric, Proposal, approximate, partition
from memory_store.policy import Asker, RetrievalPolicy
from memory_store.records import Eviction, IndexKind
from tests.memory_store.test_oracle import BAR_MS, SYMBOLS, assert_identical

K = 5
BLOCK = 24


@dataclass
class Stream:
    """A bank that is asked at every bar and then takes in a moment per symbol, as a replay does."""

    config: BankConfig
    seed: int
    symbols: int = 1
    pauses: float = 0.0
    """Share of bars that a symbol misses."""
    unruly: float = 0.0
    """Share of outcomes that are said to be known a while ago."""
    now: int = 0
    own: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.bank = MemoryBank(self.config, encoder_version="v1")

    def vectors(self, count: int) -> np.ndarray:
        """Eighths, whose products are exact and tie often."""
        vectors = self.random.integers(-4, 5, (count, self.config.dimension)) / 8
        vectors[:, 0] += 1 / 64
        return vectors.astype(np.float32)

    def bars(self, count: int) -> Iterator[int]:
        """Close times; each bar is settled before its turn and remembered after it."""
        for _ in range(count):
            self.now += BAR_MS
            present = [symbol for symbol in SYMBOLS[: self.symbols] if self.random.random() >= self.pauses]
            for symbol in present:
                own = self.own.setdefault(symbol, [])
                for horizon, bars in enumerate(self.config.horizons):
                    if len(own) >= bars:
                        late = self.random.random() < self.unruly
                        time = self.now - int(self.random.integers(bars * BAR_MS)) if late else self.now
                        self.bank.settle(own[-bars], horizon, float(self.random.standard_normal()), time)
            yield self.now
            for symbol in present:
                key = self.vectors(1)[0]
                self.own[symbol].append(self.bank.append(key, symbol=symbol, bar_time=self.now - BAR_MS))

    def block(self, skip_oldest: int) -> tuple[np.ndarray, Proposal, list[int]]:
        """Queries of the bars to come, the proposal for them, and their close times."""
        queries = self.vectors(BLOCK)
        times = [self.now + BAR_MS * (row + 1) for row in range(BLOCK)]
        return queries, self.bank.propose(queries, as_of=times[0], k=K, skip_oldest=skip_oldest), times


def answered(stream: Stream, skip_oldest: int) -> int:
    """Go through a block, comparing every early answer with the one in time; how many there were."""
    queries, proposal, times = stream.block(skip_oldest)
    outlook, first, early_ones = None, 0, 0
    for row, now in enumerate(stream.bars(BLOCK)):
        if outlook is None or row - first >= len(outlook.results):
            outlook, first = stream.bank.look_ahead(proposal, row, times[row:]), row
        if outlook is None:
            continue
        assert stream.bank.foreseen(outlook, row - first, as_of=now + 1) is None
        early = stream.bank.foreseen(outlook, row - first, as_of=now)
        if early is not None:
            early_ones += 1
            assert_identical(stream.bank.search(queries[row], as_of=now, k=K), early)
    return early_ones


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    metric=st.sampled_from(list(Metric)),
    capacity=st.sampled_from([1, 7, 40, 96, 300]),
    embargo=st.integers(0, 12),
    primary=st.integers(0, 1),
    symbols=st.integers(1, 3),
    pauses=st.sampled_from([0.0, 0.2]),
    unruly=st.sampled_from([0.0, 0.02]),
    skip_oldest=st.sampled_from([0, 5, 90]),
    eviction=st.sampled_from(list(Eviction)),
)
def test_an_answer_given_before_its_time_is_the_one_given_in_time(
    seed, metric, capacity, embargo, primary, symbols, pauses, unruly, skip_oldest, eviction
):
    """Rings that turn while answers wait, symbols that pause, outcomes that come late and out of order, any eviction."""
    half_life = 0 if eviction is Eviction.FIFO else 9 * BAR_MS
    config = BankConfig(capacity, 3, (1, 4), primary, embargo * BAR_MS, metric, eviction, half_life)
    stream = Stream(config, seed, symbols, pauses, unruly)
    for _ in range(6):
        answered(stream, skip_oldest)


def steady(embargo: int, capacity: int = 1000, eviction: Eviction = Eviction.FIFO) -> Stream:
    half_life = 0 if eviction is Eviction.FIFO else 9 * BAR_MS
    stream = Stream(BankConfig(capacity, 3, (1, 4), 1, embargo * BAR_MS, Metric.INNER_PRODUCT, eviction, half_life), 1)
    for _ in stream.bars(60):
        pass
    return stream


def test_under_a_long_embargo_every_bar_is_answered_early():
    assert answered(steady(embargo=8), skip_oldest=BLOCK) == BLOCK


def test_an_outlook_reaches_to_the_end_of_the_embargo():
    stream = steady(embargo=8)
    _, proposal, times = stream.block(0)
    next(stream.bars(1))
    outlook = stream.bank.look_ahead(proposal, 0, times)
    assert outlook is not None
    assert outlook.terms.as_of == tuple(times[:8])


def test_without_an_embargo_nothing_can_be_said_early():
    assert answered(steady(embargo=0), skip_oldest=BLOCK) == 0


@pytest.mark.parametrize("eviction", list(Eviction))
def test_an_answer_that_loses_an_entry_is_withdrawn(eviction):
    stream = steady(embargo=30, capacity=40, eviction=eviction)
    assert 0 < answered(stream, skip_oldest=0) < BLOCK


@pytest.mark.parametrize("eviction", list(Eviction))
def test_an_entry_that_is_forgotten_on_purpose_withdraws_all_answers(eviction):
    stream = steady(embargo=8, eviction=eviction)
    queries, proposal, times = stream.block(0)
    next(stream.bars(1))
    outlook = stream.bank.look_ahead(proposal, 0, times)
    assert stream.bank.foreseen(outlook, 0, as_of=times[0]) is not None
    stream.bank.evict([int(proposal.ids[0, 0])])
    assert stream.bank.foreseen(outlook, 0, as_of=times[0]) is None
    full = stream.bank.search(queries[0], as_of=times[0], k=K)
    assert_identical(full, stream.bank.search(queries[0], as_of=times[0], k=K, proposal=proposal, row=0))
    again = stream.bank.look_ahead(proposal, 1, times[1:])
    assert_identical(
        stream.bank.search(queries[1], as_of=times[1], k=K), stream.bank.foreseen(again, 0, as_of=times[1])
    )


def test_an_outcome_out_of_order_withdraws_all_answers():
    stream = steady(embargo=8)
    _, proposal, times = stream.block(0)
    bars = stream.bars(2)
    next(bars)
    outlook = stream.bank.look_ahead(proposal, 0, times)
    assert stream.bank.foreseen(outlook, 0, as_of=times[0]) is not None
    pending = stream.bank.append(stream.vectors(1)[0], symbol="LATE", bar_time=0)
    stream.bank.settle(pending, 1, 0.1, 1)
    assert stream.bank.foreseen(outlook, 0, as_of=times[0]) is None


def test_an_outlook_of_another_bank_has_no_answer_and_a_wrong_place_is_refused():
    stream, other = steady(embargo=8), steady(embargo=8)
    _, proposal, times = stream.block(0)
    next(stream.bars(1))
    outlook = stream.bank.look_ahead(proposal, 0, times)
    assert other.bank.foreseen(outlook, 0, as_of=times[0]) is None
    with pytest.raises(MemoryBankError, match="place 8 is not in the outlook, which has 8 searches"):
        stream.bank.foreseen(outlook, 8, as_of=times[0])
    with pytest.raises(MemoryBankError, match="another memory bank"):
        other.bank.look_ahead(proposal, 0, times)


# -- the approximate index ------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes from which an approximate index pays, brought down to banks of some hundred, of whose cells few are looked into."""
    monkeypatch.setattr(approximate, "FIRST_TRAINING", 64)
    monkeypatch.setattr(approximate, "_FEW", 8)
    monkeypatch.setattr(partition, "_APART", 8)
    monkeypatch.setattr(partition, "_LEADERS", 2)
    monkeypatch.setattr(partition, "TARGET_RECALL", 0.7)


def approximate_stream(seed: int, capacity: int, *, embargo: int = 8, **changes: Any) -> Stream:
    config = BankConfig(
        capacity, 3, (1, 4), 1, embargo * BAR_MS, changes.pop("metric", Metric.COSINE), index=IndexKind.APPROXIMATE
    )
    return Stream(config, seed, **changes)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    metric=st.sampled_from(list(Metric)),
    capacity=st.sampled_from([64, 100, 250, 700]),
    embargo=st.sampled_from([0, 3, 12, 80]),
    symbols=st.integers(1, 3),
    pauses=st.sampled_from([0.0, 0.2]),
    unruly=st.sampled_from([0.0, 0.02]),
    skip_oldest=st.sampled_from([0, 5, 90]),
    early=st.booleans(),
)
def test_an_approximate_bank_answers_a_block_as_it_answers_bar_by_bar(
    small, seed, metric, capacity, embargo, symbols, pauses, unruly, skip_oldest, early
):
    """Cells are learned anew within blocks, entries come and go, and the running check compares the same queries."""
    changes = {"metric": metric, "embargo": embargo, "symbols": symbols, "pauses": pauses, "unruly": unruly}
    one, other = (approximate_stream(seed, capacity, **changes) for _ in range(2))
    for stream in (one, other):
        for _ in stream.bars(60):
            pass
    for _ in range(7):
        queries, proposal, times = one.block(skip_oldest)
        other.vectors(BLOCK)
        outlook, first = None, 0
        for row, (now, _) in enumerate(zip(one.bars(BLOCK), other.bars(BLOCK), strict=True)):
            if early and (outlook is None or row - first >= len(outlook.results)):
                outlook, first = one.bank.look_ahead(proposal, row, times[row:]), row
            found = None if outlook is None else one.bank.foreseen(outlook, row - first, as_of=now)
            if found is None:
                found = one.bank.search(queries[row], as_of=now, k=K, proposal=proposal, row=row)
            assert_identical(other.bank.search(queries[row], as_of=now, k=K), found)
        assert one.bank.recall_state == other.bank.recall_state


def test_an_approximate_bank_needs_its_index_once_for_a_block(small, monkeypatch):
    """With the index taken away, what was proposed answers: early, and in time."""
    stream = approximate_stream(1, 500, embargo=20)
    for _ in stream.bars(300):
        pass
    queries, proposal, times = stream.block(BLOCK)
    assert proposal.complete.all() and proposal.looked_into is not None
    cells = np.count_nonzero(proposal.looked_into.cells >= 0, axis=1)
    assert cells.max() < proposal.looked_into.partition.cells
    monkeypatch.delattr(approximate.ApproximateIndex, "candidates")
    outlook = None
    for row, now in enumerate(stream.bars(12)):
        if outlook is None:
            outlook = stream.bank.look_ahead(proposal, row, times[row:])
        early = stream.bank.foreseen(outlook, row, as_of=now)
        assert_identical(stream.bank.search(queries[row], as_of=now, k=K, proposal=proposal, row=row), early)
    assert stream.bank.recall.queries == 24


def test_a_query_that_is_to_be_checked_is_asked_in_full(small):
    stream = approximate_stream(2, 500, embargo=20)
    for _ in stream.bars(300):
        pass
    queries, proposal, times = stream.block(BLOCK)
    next(stream.bars(1))
    outlook = stream.bank.look_ahead(proposal, 0, times)
    for _ in range(99):
        assert stream.bank.foreseen(outlook, 0, as_of=times[0]) is not None
    assert stream.bank.foreseen(outlook, 0, as_of=times[0]) is None
    stream.bank.search(queries[0], as_of=times[0], k=K, proposal=proposal, row=0)
    assert (stream.bank.recall.queries, stream.bank.recall.checks) == (100, 1)
    assert stream.bank.foreseen(outlook, 0, as_of=times[0]) is not None


def test_a_policy_is_asked_of_an_approximate_bank_in_full(small):
    """How far such a search looks depends on whom the policy leaves out."""
    stream = approximate_stream(3, 500, embargo=20)
    for _ in stream.bars(300):
        pass
    queries, proposal, _ = stream.block(BLOCK)
    policy = RetrievalPolicy(half_life_ms=50 * BAR_MS)
    for row, now in enumerate(stream.bars(5)):
        ask = {"as_of": now, "k": K, "policy": policy, "asker": Asker("BTCUSDT", 0, now)}
        full = stream.bank.search(queries[row], **ask)
        assert_identical(full, stream.bank.search(queries[row], proposal=proposal, row=row, **ask))
