"""Searches as a whole: under a policy, by an approximate index, with and without proposals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric, SearchResult
from memory_store.index import rescore
from memory_store.policy import Asker, RegimeRule, RetrievalPolicy, Scope, preferences
from memory_store.records import Eviction, IndexKind
from tests.memory_store.test_oracle import SYMBOLS, assert_identical

HOUR_MS = 3_600_000
LATE = 10**15

policies = st.builds(
    RetrievalPolicy,
    minimum_similarity=st.sampled_from([None, -0.3, 0.2]),
    half_life_ms=st.sampled_from([None, 5 * HOUR_MS, 500 * HOUR_MS]),
    temperature=st.sampled_from([0.05, 0.5]),
    scope=st.sampled_from(Scope),
    regimes=st.sampled_from(RegimeRule),
    cluster_ms=st.sampled_from([1, 3 * HOUR_MS]),
    one_per_moment=st.booleans(),
)


def filled(count: int, seed: int, *, dimension: int = 3, capacity: int = 300, **changes) -> MemoryBank:
    random = np.random.default_rng(seed)
    config = BankConfig(capacity, dimension, (1,), 0, 0, Metric.COSINE, **changes)
    bank = MemoryBank(config, encoder_version="v1", record_changes=False)
    for number in range(count):
        key, time = random.standard_normal(dimension), number // 3 * HOUR_MS
        entry_id = bank.append(key, symbol=SYMBOLS[number % 3], bar_time=time, regime=number % 4)
        if random.random() < 0.9:
            bank.settle(entry_id, 0, 0.1, time + 1 + int(random.integers(9)) * HOUR_MS)
    return bank


def by_hand(
    bank: MemoryBank, query: np.ndarray, as_of: int, k: int, policy: RetrievalPolicy, asker: Asker
) -> list[int]:
    """Every entry weighed one by one."""
    length = np.sqrt(rescore(query[None], query[None]))[0]
    ranked = []
    for entry in bank.entries():
        if entry.settled_times[0] is None or entry.settled_times[0] > as_of:
            continue
        same = entry.symbol == asker.symbol
        if (policy.scope is Scope.SAME and not same) or (policy.scope is Scope.OTHER and same):
            continue
        if policy.regimes is RegimeRule.SAME and entry.regime != asker.regime:
            continue
        score = rescore(entry.key[None], (query / length).astype(np.float32))
        times, regimes = np.array([entry.bar_time]), np.array([entry.regime])
        worth = preferences(policy, asker, score, bar_times=times, regimes=regimes)[0]
        if worth > -np.inf:
            ranked.append((-worth, entry.entry_id, entry.bar_time))
    taken: list[tuple[float, int, int]] = []
    for row in sorted(ranked):
        if not policy.one_per_moment or all(abs(row[2] - other[2]) >= policy.cluster_ms for other in taken):
            taken.append(row)
    return [row[1] for row in taken[:k]]


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 20, 299, 450]),
    st.integers(1, 40),
    policies,
    st.sampled_from([*SYMBOLS, "XRPUSDT"]),
    st.sampled_from(list(Eviction)),
)
def test_a_policy_finds_what_weighing_every_entry_finds(seed, count, k, policy, symbol, eviction):
    half_life = 0 if eviction is Eviction.FIFO else 100 * HOUR_MS
    bank = filled(count, seed, eviction=eviction, half_life_ms=half_life)
    query = np.random.default_rng(seed + 1).standard_normal(3).astype(np.float32)
    now = count // 3 * HOUR_MS
    asker = Asker(symbol, seed % 4, now)
    for as_of in (now, now - 20 * HOUR_MS, LATE):
        result = bank.search(query, as_of=as_of, k=k, policy=policy, asker=asker)
        assert result.ids[result.mask].tolist() == by_hand(bank, query, as_of, k, policy, asker)
        assert result.visible == bank.visible_count(as_of)
        assert (result.preferences[result.mask] <= result.scores[result.mask]).all()
        assert np.isneginf(result.preferences[~result.mask]).all()
        assert result.policy is policy


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(0, 12), st.lists(policies, min_size=3, max_size=3))
def test_a_proposal_changes_nothing_under_a_policy_either(seed, k, reserve, some):
    bank = filled(330, seed)
    random = np.random.default_rng(seed + 1)
    queries = random.standard_normal((4, 3)).astype(np.float32)
    proposal = bank.propose(queries, as_of=100 * HOUR_MS, k=k + reserve, skip_oldest=20)
    for step in range(20):
        time = (112 + step) * HOUR_MS
        bank.settle(bank.append(random.standard_normal(3), symbol="BTCUSDT", bar_time=time), 0, 0.1, time + 1)
        for row, policy in enumerate(some):
            ask = {"as_of": time, "k": k, "policy": policy, "asker": Asker("BTCUSDT", 1, time)}
            full = bank.search(queries[row], **ask)
            assert_identical(full, bank.search(queries[row], proposal=proposal, row=row, **ask))


def test_a_result_says_how_many_moments_it_is():
    bank = filled(300, 1)
    query = np.ones(3)
    plain = bank.search(query, as_of=LATE, k=30)
    assert plain.moments == 30
    assert plain.preferences.tolist() == plain.scores.tolist()
    assert 1.0 <= plain.effective <= 30.0
    clustered = RetrievalPolicy(cluster_ms=10**12)
    one = bank.search(query, as_of=LATE, k=30, policy=clustered)
    assert_identical(plain, one)
    assert (one.moments, one.effective) == (1, 1.0)
    single = RetrievalPolicy(cluster_ms=10 * HOUR_MS, one_per_moment=True)
    apart = bank.search(query, as_of=LATE, k=30, policy=single)
    times = apart.bar_times[apart.mask].tolist()
    assert all(abs(a - b) >= 10 * HOUR_MS for a, b in itertools.combinations(times, 2))
    assert apart.moments == apart.count < 30
    nothing = filled(0, 1).search(query, as_of=LATE, k=3)
    assert (nothing.moments, nothing.effective) == (0, 0.0)


def test_a_policy_that_needs_an_asker_says_so():
    for policy in (
        RetrievalPolicy(half_life_ms=1),
        RetrievalPolicy(scope=Scope.SAME),
        RetrievalPolicy(regimes=RegimeRule.SAME),
    ):
        for count in (0, 50):
            with pytest.raises(MemoryBankError, match="nobody said who asks; give the search an asker"):
                filled(count, 1).search(np.ones(3), as_of=LATE, k=3, policy=policy)


# -- the approximate index ------------------------------------------------------------------------------------------------


def many(capacity: int, count: int, *, seed: int = 3, **changes) -> tuple[MemoryBank, np.ndarray]:
    """Keys that drift, as an encoder's do; two in three coordinates small."""
    random = np.random.default_rng(seed)
    steps = random.standard_normal((count, 12)) * np.arange(1, 13) ** -0.7
    keys = (0.7 * steps + 0.05 * np.cumsum(steps, axis=0)).astype(np.float32)
    config = BankConfig(capacity, 12, (1,), 0, 0, Metric.COSINE, index=IndexKind.APPROXIMATE, **changes)
    bank = MemoryBank(config, encoder_version="v1", record_changes=False)
    grow(bank, keys)
    return bank, keys


def grow(bank: MemoryBank, keys: np.ndarray) -> None:
    for key in keys:
        number = bank.next_id
        bank.settle(bank.append(key, symbol="BTCUSDT", bar_time=number), 0, 0.1, number + 1)


def asked(bank: MemoryBank, keys: np.ndarray, as_of: int) -> list[SearchResult]:
    return [bank.search(key, as_of=as_of, k=16) for key in keys]


def test_an_approximate_bank_finds_nearly_all_and_watches_itself():
    bank, keys = many(20_000, 30_000)
    exact = MemoryBank(BankConfig(20_000, 12, (1,), 0, 0, Metric.COSINE), encoder_version="v1", record_changes=False)
    grow(exact, keys)
    queries = keys[-3000::10]
    found = [set(result.ids.tolist()) for result in asked(bank, queries, 30_000)]
    right = [set(result.ids.tolist()) for result in asked(exact, queries, 30_000)]
    assert np.mean([len(a & b) / 16 for a, b in zip(found, right, strict=True)]) > 0.97
    reading = bank.recall
    assert reading is not None
    assert (reading.queries, reading.checks, reading.alarm) == (300, 3, False)
    assert exact.recall is None


def test_a_restored_approximate_bank_gives_the_same_answers():
    """Though the keys that the index was trained on are known no more than the bank knows them."""
    bank, keys = many(9_000, 12_000)
    asked(bank, keys[-5:], 12_000)
    grow(bank, keys[:700])
    restored = MemoryBank(bank.config, encoder_version="v1", record_changes=False)
    restored.restore(bank.entries(), next_id=bank.next_id)
    for turn in range(2):
        for one, other in zip(*(asked(each, keys[-200::4], 20_000) for each in (bank, restored)), strict=True):
            assert_identical(one, other)
        if turn == 0:
            for each in (bank, restored):
                grow(each, keys[1000:3500])


@pytest.mark.parametrize("gone", [range(4_000, 8_000, 2), range(8_192)], ids=["some", "all"])
def test_a_restored_approximate_bank_gives_the_same_answers_after_entries_left_out_of_turn(gone: range):
    """Of the keys that the index was trained on the restored bank has only those that are left."""
    keys = np.random.default_rng(5).standard_normal((9_500, 16)).astype(np.float32)
    config = BankConfig(16_384, 16, (1,), 0, 0, Metric.COSINE, index=IndexKind.APPROXIMATE)
    bank = MemoryBank(config, encoder_version="v1", record_changes=False)
    grow(bank, keys[:9_000])
    asked(bank, keys[-5:], 10_000)
    bank.evict(gone)
    grow(bank, keys[:5_000] + 0.1)
    restored = MemoryBank(config, encoder_version="v1", record_changes=False)
    restored.restore(bank.entries(), next_id=bank.next_id)
    for one, other in zip(*(asked(each, keys[-200:], 20_000) for each in (bank, restored)), strict=True):
        assert_identical(one, other)


def test_a_large_block_of_an_approximate_bank_is_what_single_searches_find():
    """At the sizes of the real index; a young bank has nothing to propose yet."""
    bank, keys = many(9_000, 10_000)
    proposal = bank.propose(keys[::8], as_of=10_000, k=16)
    assert proposal.complete.all()
    for row, key in enumerate(keys[::8]):
        full = bank.search(key, as_of=10_000, k=16)
        assert full.ids.tolist() == proposal.ids[row].tolist()
        assert_identical(full, bank.search(key, as_of=10_000, k=16, proposal=proposal, row=row))
    young, keys = many(9_000, 5_000)
    proposal = young.propose(keys[:3], as_of=5_000, k=16)
    assert not proposal.complete.any() and young.look_ahead(proposal, 0, [5_000]) is None


def test_a_small_approximate_bank_is_exact():
    bank, keys = many(500, 700)
    assert bank.recall is None
    assert bank.propose(keys[:2], as_of=700, k=3).complete.all()


def test_a_policy_and_symbols_narrow_an_approximate_search():
    bank, keys = many(9_000, 10_000)
    policy, asker = RetrievalPolicy(half_life_ms=1000), Asker("BTCUSDT", 0, 10_000)
    result = bank.search(keys[-1], as_of=10_000, k=16, policy=policy, asker=asker)
    assert result.count == 16
    assert (np.diff(result.preferences) <= 0).all()
    assert bank.search(keys[-1], as_of=10_000, k=16, symbols=["ETHUSDT"]).count == 0
    wrong = RetrievalPolicy(regimes=RegimeRule.SAME)
    assert bank.search(keys[-1], as_of=10_000, k=16, policy=wrong, asker=Asker("BTCUSDT", 5, 10_000)).count == 0
