"""The bank against two independent oracles, and against itself with and without proposals."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import faiss
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, Metric, Proposal, SearchResult
from memory_store.records import Eviction
from tests.memory_store.oracle import Oracle

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
BAR_MS = 1000


def assert_identical(one: SearchResult, other: SearchResult) -> None:
    assert one.symbols == other.symbols
    assert one.visible == other.visible
    for name in ("ids", "scores", "mask", "keys", "outcomes", "bar_times", "regimes"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes(), name


def assert_matches_oracle(result: SearchResult, oracle: Oracle, query: np.ndarray, as_of: int, symbols) -> None:
    visible = {m.entry_id: m for m in oracle.visible(as_of, symbols)}
    scores = {entry_id: oracle.score(m, query.tolist()) for entry_id, m in visible.items()}
    expected = sorted(scores, key=lambda entry_id: (-scores[entry_id], entry_id))[: len(result.ids)]
    assert result.visible == len(visible)
    assert result.count == len(expected)
    assert result.mask.tolist() == [True] * result.count + [False] * (len(result.ids) - result.count)
    ids = result.ids[: result.count].tolist()
    tolerance = 3e-7 if oracle.cosine else 0.0
    if not oracle.cosine:
        assert ids == expected
    assert len(set(ids)) == len(ids)
    np.testing.assert_allclose([scores[i] for i in ids], [scores[i] for i in expected], rtol=0, atol=tolerance)
    np.testing.assert_allclose(result.scores[: result.count], [scores[i] for i in ids], rtol=0, atol=tolerance)
    for place, entry_id in enumerate(ids):
        moment = visible[entry_id]
        assert (result.symbols[place], result.bar_times[place]) == (moment.symbol, moment.bar_time)
        assert result.regimes[place] == moment.regime
        np.testing.assert_array_equal(result.outcomes[place], oracle.outcomes(moment, as_of))
    assert set(result.ids[result.count :].tolist()) <= {-1}


def assert_matches_faiss(result: SearchResult, bank: MemoryBank, oracle: Oracle, query, as_of: int, symbols) -> None:
    keys = [bank.entry(m.entry_id).key for m in oracle.visible(as_of, symbols)]
    if not keys:
        assert result.count == 0
        return
    index = faiss.IndexFlatIP(bank.config.dimension)
    index.add(np.stack(keys))
    scaled = query / np.linalg.norm(query) if oracle.cosine else query
    scores, _ = index.search(scaled[None].astype(np.float32), result.count)
    np.testing.assert_allclose(result.scores[: result.count], scores[0], rtol=1e-5, atol=1e-5)


@dataclass
class Twins:
    """The bank and its oracle, doing the same, with every proposal made so far."""

    config: BankConfig
    seed: int
    now: int = 0
    proposals: list[tuple[Proposal, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.bank = MemoryBank(self.config, encoder_version="v1")
        self.oracle = Oracle(
            self.config.capacity,
            self.config.primary,
            self.config.embargo_ms,
            len(self.config.horizons),
            self.config.metric is Metric.COSINE,
        )

    def vectors(self, count: int) -> np.ndarray:
        """Inner products of eighths are exact and tie often; cosines are of any direction."""
        shape = (count, self.config.dimension)
        if self.config.metric is Metric.INNER_PRODUCT:
            return (self.random.integers(-4, 5, shape) / 8).astype(np.float32)
        return self.random.standard_normal(shape).astype(np.float32)

    def append(self, symbols: int, count: int) -> None:
        for number in range(count):
            self.now += BAR_MS
            symbol = SYMBOLS[number % symbols]
            key = self.vectors(1)[0]
            regime = int(self.random.integers(5))
            entry_id = self.bank.append(key, symbol=symbol, bar_time=self.now, regime=regime)
            assert entry_id == self.oracle.next_id
            self.oracle.append(key.tolist(), symbol, self.now, regime)

    def settle(self, share: int, delay: int) -> None:
        """Settle some pending outcomes at some horizons; ids that are long gone may be asked for as well."""
        for entry_id in range(max(0, self.oracle.next_id - self.config.capacity - 3), self.oracle.next_id):
            for horizon in range(len(self.config.horizons)):
                moment = next((m for m in self.oracle.moments if m.entry_id == entry_id), None)
                if (moment and horizon in moment.settled) or self.random.integers(4) > share:
                    continue
                outcome, time = float(self.random.standard_normal()), self.now + 1 + delay
                self.bank.settle(entry_id, horizon, outcome, time)
                self.oracle.settle(entry_id, horizon, outcome, time)

    def propose(self, count: int, k: int, skip_oldest: int, offset: int) -> None:
        queries = self.vectors(count)
        proposal = self.bank.propose(queries, as_of=self.now + offset, k=k, skip_oldest=skip_oldest)
        self.proposals.append((proposal, queries))

    def search(self, k: int, offset: int, symbols: list[str] | None) -> None:
        as_of = self.now + offset
        for proposal, queries in self.proposals[-4:]:
            row = int(self.random.integers(len(queries)))
            full = self.bank.search(queries[row], as_of=as_of, k=k, symbols=symbols)
            quick = self.bank.search(queries[row], as_of=as_of, k=k, symbols=symbols, proposal=proposal, row=row)
            assert_identical(full, quick)
        query = self.vectors(1)[0]
        result = self.bank.search(query, as_of=as_of, k=k, symbols=symbols)
        assert_matches_oracle(result, self.oracle, query, as_of, symbols)
        assert_matches_faiss(result, self.bank, self.oracle, query, as_of, symbols)
        assert self.bank.visible_count(as_of) == len(self.oracle.visible(as_of, None))

    def check_content(self) -> None:
        entries = list(self.bank.entries())
        assert [e.entry_id for e in entries] == [m.entry_id for m in self.oracle.moments]
        assert len(self.bank) == len(entries)
        for entry, moment in zip(entries, self.oracle.moments, strict=True):
            assert (entry.symbol, entry.bar_time, entry.regime) == (moment.symbol, moment.bar_time, moment.regime)
            settled = [moment.settled.get(horizon, (None, None)) for horizon in range(len(self.config.horizons))]
            assert list(zip(entry.outcomes, entry.settled_times, strict=True)) == settled
            assert self.bank.find(moment.symbol, moment.bar_time) == moment.entry_id


configs = st.builds(
    BankConfig,
    capacity=st.sampled_from([1, 2, 5, 17, 63, 64, 65, 128, 200]),
    dimension=st.sampled_from([1, 2, 3, 8, 33]),
    horizons=st.just((1, 4, 24)),
    primary=st.sampled_from([0, 1, 2]),
    embargo_ms=st.sampled_from([0, 1, 3 * BAR_MS]),
    metric=st.sampled_from(list(Metric)),
)
offsets = st.one_of(st.integers(-10 * BAR_MS, 10 * BAR_MS), st.sampled_from([6 * BAR_MS, 10**9]))
steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 3), st.integers(1, 40)),
    st.tuples(st.just("settle"), st.integers(0, 3), st.integers(0, 2 * BAR_MS)),
    st.tuples(
        st.just("propose"),
        st.integers(1, 9),
        st.integers(1, 40),
        st.sampled_from([0, 1, 5, 300]),
        offsets,
    ),
    st.tuples(
        st.just("search"),
        st.integers(1, 40),
        offsets,
        st.sampled_from([None, None, None, ["ETHUSDT"], ["BTCUSDT", "SOLUSDT"], [], ["NOSUCH"]]),
    ),
)


@settings(max_examples=50, deadline=None)
@given(configs, st.integers(0, 2**32), st.lists(steps, min_size=10, max_size=60))
def test_any_sequence_of_operations_gives_what_both_oracles_give(config, seed, sequence):
    """Appends, settlements, evictions, proposals and searches in any order: same neighbours, bit for bit with proposals."""
    twins = Twins(config, seed)
    for name, *arguments in sequence:
        getattr(twins, name)(*arguments)
    twins.search(7, 10**9, None)
    twins.check_content()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(list(Metric)),
    st.sampled_from([40, 96, 200, 500]),
    st.sampled_from([8, 16, 32]),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(list(Eviction)),
)
def test_a_block_of_bars_asked_through_one_proposal_equals_asking_bar_by_bar(
    seed, metric, capacity, block, symbols, skip, eviction
):
    """As replay does it: propose for a block, then settle, search, append at every bar, with each symbol at its own pace."""
    half_life = 0 if eviction is Eviction.FIFO else 20 * BAR_MS
    config = BankConfig(capacity, 8, (1, 4), 1, 2 * BAR_MS, metric, eviction, half_life)
    twins = Twins(config, seed)
    bank, random = twins.bank, twins.random
    ids: list[tuple[str, int]] = []
    ring_used = 0
    for _ in range(3 + 2 * capacity // block):
        queries = twins.vectors(block)
        skip_oldest = block if skip else 0
        proposal = bank.propose(queries, as_of=twins.now, k=5, skip_oldest=skip_oldest)
        for row in range(block):
            symbol = SYMBOLS[int(random.integers(symbols))]
            twins.now += BAR_MS
            own = [entry_id for name, entry_id in ids if name == symbol]
            for horizon, bars in enumerate(config.horizons):
                if len(own) >= bars:
                    bank.settle(own[-bars], horizon, float(row), twins.now)
            full = bank.search(queries[row], as_of=twins.now, k=5)
            assert_identical(full, bank.search(queries[row], as_of=twins.now, k=5, proposal=proposal, row=row))
            assert twins.now - BAR_MS not in full.bar_times[full.mask]
            ids.append((symbol, bank.append(queries[row], symbol=symbol, bar_time=twins.now - BAR_MS)))
            ring_used = max(ring_used, len(bank))
    assert ring_used == capacity


def test_crowded_and_clustered_keys_are_searched_exactly_at_size():
    """Keys as a collapsed encoder makes them, thousands within the rounding of each other: still the exact order."""
    random = np.random.default_rng(5)
    config = BankConfig(12_000, 16, (1,), 0, 0, Metric.COSINE)
    bank = MemoryBank(config, encoder_version="v1", record_changes=False)
    centre = random.standard_normal(16)
    keys = (centre + 3e-5 * random.standard_normal((12_500, 16))).astype(np.float32)
    keys[9000:9400] = keys[8999]
    for number, key in enumerate(keys):
        bank.settle(bank.append(key, symbol="BTCUSDT", bar_time=number), 0, 0.0, number + 1)
    queries = np.concatenate((keys[8999:9000], random.standard_normal((100, 16)).astype(np.float32)))
    proposal = bank.propose(queries, as_of=13_000, k=32)
    stored = np.stack([entry.key for entry in bank.entries()]).astype(np.float64)
    assert not proposal.complete[0], "this many equals are left to a search of its own"
    assert proposal.complete.any()
    restored = MemoryBank(config, encoder_version="v1")
    restored.restore(bank.entries(), next_id=bank.next_id)
    for row, query in enumerate(queries):
        full = bank.search(query, as_of=13_000, k=32)
        assert_identical(bank.search(query, as_of=13_000, k=900), restored.search(query, as_of=13_000, k=900))
        assert_identical(full, bank.search(query, as_of=13_000, k=32, proposal=proposal, row=row))
        exact = stored @ proposal.queries[row].astype(np.float64)
        kth = np.sort(exact)[-32]
        np.testing.assert_allclose(full.scores, np.sort(exact)[::-1][:32], rtol=0, atol=1e-14)
        sure = set((np.flatnonzero(exact > kth + 1e-14) + 500).tolist())
        assert sure <= set(full.ids.tolist())
        ties = [a < b for (a, s), (b, t) in itertools.pairwise(zip(full.ids, full.scores, strict=True)) if s == t]
        assert all(ties)
