"""Banks that live on and banks that were restored, beside a model in plain Python: the same to the last bit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric, Proposal
from memory_store.pruning import PruneRule
from memory_store.records import Eviction, Recollection
from tests.memory_store.plain import PlainBank, product
from tests.memory_store.test_oracle import BAR_MS, SYMBOLS, assert_identical


@dataclass
class Lives:
    """One memory in plain Python and several real ones: the first was never closed, each other was restored at some time."""

    config: BankConfig
    seed: int
    now: int = 0
    recollections: list[Recollection] = field(default_factory=list)
    outcomes: dict[int, float] = field(default_factory=dict)
    """All primary outcomes that were ever recorded."""
    proposal: tuple[list[Proposal], np.ndarray, int] | None = None

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.banks = [MemoryBank(self.config, encoder_version="v1")]
        config = self.config
        self.plain = PlainBank(
            config.capacity,
            config.primary,
            config.embargo_ms,
            len(config.horizons),
            config.eviction.value,
            config.half_life_ms,
            config.outcome_scale,
        )

    def vectors(self, count: int) -> np.ndarray:
        """Eighths, whose products are exact and tie often."""
        return (self.random.integers(-4, 5, (count, self.config.dimension)) / 8).astype(np.float32)

    def append(self, count: int, regimes: int) -> None:
        for number in range(count):
            self.now += BAR_MS
            key, symbol = self.vectors(1)[0], SYMBOLS[number % 3]
            regime, novelty = int(self.random.integers(regimes)), int(self.random.integers(9)) / 8
            victims = self.plain.append(key.tolist(), symbol, self.now, regime, novelty)
            for bank in self.banks:
                bank.append(key, symbol=symbol, bar_time=self.now, regime=regime, novelty=novelty)
            self.take(victims)

    def settle(self, share: int) -> None:
        self.now += BAR_MS
        for moment in list(self.plain.moments.values()):
            for horizon in range(len(self.config.horizons)):
                if horizon in moment.settled or self.random.integers(4) > share:
                    continue
                outcome = int(self.random.integers(-16, 17)) / 8
                for bank in self.banks:
                    bank.settle(moment.entry_id, horizon, outcome, self.now)
                self.plain.settle(moment.entry_id, horizon, outcome, self.now)
                if horizon == self.config.primary:
                    self.outcomes[moment.entry_id] = outcome

    def decide(self, k: int) -> None:
        """The latest entry that is pending was decided with what it finds."""
        query, primary = self.vectors(1)[0], self.config.primary
        pending = [m.entry_id for m in self.plain.moments.values() if primary not in m.settled and not m.recollection]
        found = self.search(query, self.now, k)
        if not pending or not len(found):
            return
        weights = self.random.integers(0, 4, len(found))
        weights[0] = 1
        for bank in self.banks:
            bank.note(pending[-1], as_of=self.now, ids=found, weights=weights)
        self.plain.note(pending[-1], self.now, found.tolist(), weights.tolist())
        self.take([])

    def evict(self, count: int) -> None:
        gone = self.random.permutation(sorted(self.plain.moments))[:count].tolist()
        for bank in self.banks:
            bank.evict(gone)
        self.plain.evict(gone)
        self.take(gone)

    def prune(self, age: int, credit: float) -> None:
        rule = PruneRule(age * BAR_MS, credit)
        gone = self.plain.prunable(self.now, rule.unused_for_ms, rule.credit_below)
        for bank in self.banks:
            assert list(bank.prune(rule, self.now)) == gone
        self.plain.evict(gone)
        self.take(gone)

    def propose(self, count: int, k: int, skip_oldest: int) -> None:
        queries = self.vectors(count)
        proposals = [bank.propose(queries, as_of=self.now, k=k, skip_oldest=skip_oldest) for bank in self.banks]
        self.proposal = (proposals, queries, k)

    def reopen(self, way: str) -> None:
        """Another bank joins in, made of what the first one holds."""
        first, other = self.banks[0], MemoryBank(self.config, encoder_version="v1")
        if way == "state":
            other.restore_state(first.state())
        else:
            entries = [replace(entry, hits=0, last_hit=None, credit=0.0) for entry in first.entries()]
            other.restore(
                entries,
                next_id=first.next_id,
                last_times=self.plain.last_times,
                recollections=self.recollections,
                outcomes=self.outcomes,
            )
        assert not other.take_changes()
        self.banks.append(other)

    def search(self, query: np.ndarray, as_of: int, k: int) -> np.ndarray:
        results = [bank.search(query, as_of=as_of, k=k) for bank in self.banks]
        visible = {m.entry_id: product(m.key, query.tolist()) for m in self.plain.visible(as_of)}
        expected = sorted(visible, key=lambda i: (-visible[i], i))[:k]
        assert results[0].ids[results[0].mask].tolist() == expected
        assert results[0].visible == len(visible)
        for result in results[1:]:
            assert_identical(results[0], result)
        if self.proposal is not None:
            proposals, queries, most = self.proposal
            row = int(self.random.integers(len(queries)))
            for bank, proposal in zip(self.banks, proposals, strict=False):
                quick = bank.search(queries[row], as_of=as_of, k=min(k, most), proposal=proposal, row=row)
                assert_identical(self.banks[0].search(queries[row], as_of=as_of, k=min(k, most)), quick)
        return np.array(expected, dtype=np.int64)

    def take(self, gone: list[int]) -> None:
        """All banks report the same changes, and the evictions that the model foresaw."""
        changes = [bank.take_changes() for bank in self.banks]
        assert all(sorted(each.evicted) == sorted(gone) for each in changes)
        for each in changes:
            assert [r.ids.tolist() for r in each.recollections] == [r.ids.tolist() for r in changes[0].recollections]
        self.recollections.extend(changes[0].recollections)

    def check(self) -> None:
        assert len({bank.digest() for bank in self.banks}) == 1
        entries = list(self.banks[0].entries())
        moments = sorted(self.plain.moments.values(), key=lambda moment: moment.entry_id)
        assert len(self.banks[0]) == len(entries) == len(moments) <= self.config.capacity
        for entry, moment in zip(entries, moments, strict=True):
            assert (entry.entry_id, entry.symbol, entry.bar_time) == (moment.entry_id, moment.symbol, moment.bar_time)
            assert (entry.regime, entry.novelty, entry.hits) == (moment.regime, moment.novelty, moment.hits)
            assert entry.last_hit == moment.last_hit
            assert entry.credit == moment.credit / 2**32 * self.config.outcome_scale
            settled = [moment.settled.get(horizon, (None, None)) for horizon in range(len(self.config.horizons))]
            assert list(zip(entry.outcomes, entry.settled_times, strict=True)) == settled
            for bank in self.banks:
                assert bank.find(moment.symbol, moment.bar_time) == moment.entry_id


steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 40), st.integers(1, 5)),
    st.tuples(st.just("append"), st.integers(30, 90), st.integers(1, 3)),
    st.tuples(st.just("settle"), st.integers(0, 3)),
    st.tuples(st.just("decide"), st.integers(1, 12)),
    st.tuples(st.just("decide"), st.integers(1, 12)),
    st.tuples(st.just("evict"), st.integers(0, 9)),
    st.tuples(st.just("prune"), st.integers(20, 90), st.sampled_from([-0.5, 0.0])),
    st.tuples(st.just("propose"), st.integers(1, 6), st.integers(1, 12), st.sampled_from([0, 5, 60])),
    st.tuples(st.just("reopen"), st.sampled_from(["state", "rows"])),
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(Eviction)),
    st.sampled_from([1, 2, 9, 40, 64, 130]),
    st.integers(0, 1),
    st.integers(0, 2**32),
    st.lists(steps, min_size=10, max_size=40),
)
def test_a_restored_bank_goes_on_exactly_as_the_one_that_was_never_closed(eviction, capacity, primary, seed, sequence):
    """Whatever happened before and whatever happens then; and all of them are what the plain model says."""
    half_life = 0 if eviction is Eviction.FIFO else 20 * BAR_MS
    config = BankConfig(
        capacity,
        3,
        (1, 4),
        primary,
        2 * BAR_MS,
        Metric.INNER_PRODUCT,
        eviction,
        half_life_ms=half_life,
        outcome_scale=0.5,
    )
    lives = Lives(config, seed)
    for name, *arguments in sequence:
        getattr(lives, name)(*arguments)
        lives.search(lives.vectors(1)[0], lives.now, 7)
    lives.append(20, 3)
    lives.settle(3)
    lives.decide(5)
    lives.check()


def test_a_state_that_does_not_fit_is_not_restored():
    lives = Lives(BankConfig(40, 3, (1, 4), 1, 0, Metric.INNER_PRODUCT), 1)
    lives.append(60, 2)
    state = lives.banks[0].state()
    refusals = [
        (replace(state, ids=state.ids[::-1]), "ids are damaged"),
        (replace(state, next_id=59), "ids are damaged"),
        (replace(state, keys=state.keys[:, :2]), r"keys of the memory's state have shape \(40, 2\), not \(40, 3\)"),
        (replace(state, symbols=state.symbols + 7), "symbols are damaged"),
        (replace(state, names=("BTCUSDT",) * 3), "symbols are damaged: a name is given twice"),
        (replace(state, bar_times=state.bar_times[::-1]), "would come after"),
        (replace(state, novelties=state.novelties + np.inf), "entry 20 is damaged"),
        (replace(state, hits=state.hits - 1), "entry 20 is damaged"),
        (replace(state, outcomes=np.ones_like(state.outcomes)), "entry 20 is damaged"),
    ]
    for damaged, message in refusals:
        bank = MemoryBank(lives.config, encoder_version="v1")
        with pytest.raises(MemoryBankError, match=message):
            bank.restore_state(damaged)
        assert (len(bank), bank.next_id) == (0, 0)
    with pytest.raises(MemoryBankError, match="40 entries do not fit a memory of 39"):
        small = replace(lives.config, capacity=39, eviction=Eviction.IMPORTANCE, half_life_ms=1)
        MemoryBank(small, encoder_version="v1").restore_state(state)
    with pytest.raises(MemoryBankError, match="only an unused one can be restored"):
        lives.banks[0].restore_state(state)
