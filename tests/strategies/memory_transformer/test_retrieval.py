"""Bulk retrieval of a training span obeys the rule of visibility that trading obeys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, Metric
from memory_store.policy import Scope
from strategies.bars import HOUR_MS
from strategies.memory_transformer.dataset import Moments, SymbolBlocks, build_dataset
from strategies.memory_transformer.retrieval import Lifetimes, VisibilityRule, causal_neighbours
from strategies.memory_transformer.span_memory import find_neighbours
from strategies.outcomes import NEVER
from strategies.recorder import MemoryRecorder
from tests.strategies.markets import batches
from tests.strategies.memory_transformer.tiny import TINY, two_symbols


def random_moments(count: int, symbols: int, horizon: int, seed: int) -> Moments:
    """Moments of several symbols with bars missing here and there."""
    generator = np.random.default_rng(seed)
    parts = []
    for symbol in range(symbols):
        close = np.cumsum(generator.choice([1, 1, 1, 5], size=count)).astype(np.int64) * 10
        settled = np.full(count, NEVER)
        settled[: count - horizon] = close[horizon:]
        parts.append((close, settled, np.full(count, symbol), np.arange(count) >= 3))
    close, settled, number, has_key = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((number, close))
    outcomes = np.where(settled[:, None] < NEVER, generator.normal(size=(len(close), 1)), np.nan)
    nothing = np.zeros(len(close))
    return Moments(
        close[order],
        has_key[order],
        outcomes[order],
        settled[order][:, None],
        nothing.astype(np.float32),
        nothing,
        np.zeros((len(nothing), 1)),
    )


def unit_keys(count: int, seed: int, dimension: int = 6) -> np.ndarray:
    keys = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return keys / np.linalg.norm(keys, axis=1, keepdims=True)


def one_by_one(keys: np.ndarray, moments: Moments, row: int, rule: VisibilityRule, k: int) -> list[int]:
    """The rule in words: what was appended, not evicted, settled, and past its embargo."""
    now = moments.close_time[row]
    appended = [j for j in range(len(moments)) if moments.has_key[j] and moments.close_time[j] < now]
    held = appended[-rule.capacity :]
    visible = [j for j in held if moments.settled[j, 0] < NEVER and moments.settled[j, 0] + rule.embargo_ms <= now]
    return sorted(visible, key=lambda j: -float(keys[row] @ keys[j]))[:k]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    symbols=st.integers(1, 3),
    horizon=st.integers(1, 6),
    embargo=st.integers(0, 80),
    capacity=st.sampled_from([1, 5, 40, 1000]),
    k=st.sampled_from([1, 4]),
)
def test_the_bulk_search_finds_what_asking_one_by_one_finds(seed, symbols, horizon, embargo, capacity, k):
    moments = random_moments(150, symbols, horizon, seed)
    keys = unit_keys(len(moments), seed + 1)
    rule = VisibilityRule(0, embargo, capacity)
    queries = np.flatnonzero(moments.has_key)
    table = causal_neighbours(keys, moments, queries, rule, k)
    for place in range(0, len(queries), 7):
        expected = one_by_one(keys, moments, int(queries[place]), rule, k)
        found = table.rows[place][table.mask[place]]
        similarity = keys[queries[place]]
        np.testing.assert_allclose(keys[found] @ similarity, keys[expected] @ similarity, atol=1e-6)
        assert set(found.tolist()) == set(expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), symbols=st.integers(1, 3), capacity=st.sampled_from([1, 5, 40, 1000]))
def test_a_symbol_that_asks_its_own_finds_of_what_the_shared_memory_holds_only_that(seed, symbols, capacity):
    """In words: what was appended by anyone and not evicted, settled, past its embargo, and of the same symbol."""
    moments = random_moments(120, symbols, 4, seed)
    keys = unit_keys(len(moments), seed + 1)
    rule, own = VisibilityRule(0, 30, capacity), np.arange(len(moments)) % symbols
    blocks = tuple(
        SymbolBlocks(np.zeros((1, 1, 1), dtype=np.float32), 0, np.flatnonzero(own == symbol)[None])
        for symbol in range(symbols)
    )
    dataset = replace(build_dataset(two_symbols(900), TINY, 0.2), blocks=blocks, moments=moments)
    queries = np.flatnonzero(moments.has_key)
    table = find_neighbours(keys, dataset, queries, rule, replace(TINY, scope=Scope.SAME, n_neighbors=4))
    for place in range(0, len(queries), 5):
        row = int(queries[place])
        visible = one_by_one(keys, moments, row, rule, len(moments))
        expected = [found for found in visible if own[found] == own[row]][:4]
        assert set(table.rows[place][table.mask[place]].tolist()) == set(expected)


def test_equally_near_moments_come_in_the_order_of_time():
    moments = random_moments(500, 1, 4, 14)
    keys = np.tile(unit_keys(1, 15), (len(moments), 1))
    table = causal_neighbours(keys, moments, np.array([400]), VisibilityRule(0, 30, 1000), 8)
    assert table.mask.all()
    visible = np.flatnonzero(VisibilityRule(0, 30, 1000).visible_from(moments) <= moments.close_time[400])
    assert np.array_equal(table.rows[0], visible[:8])


def test_no_neighbour_was_unknown_when_it_was_asked_for():
    """Neither itself, nor an overlapping one, nor anything later, whichever symbol it belongs to."""
    moments = random_moments(2000, 2, 8, 3)
    rule = VisibilityRule(0, 120, 1000)
    queries = np.flatnonzero(moments.has_key)
    table = causal_neighbours(unit_keys(len(moments), 4), moments, queries, rule, 8)
    known_at = np.where(table.mask, moments.settled[table.rows, 0] + rule.embargo_ms, 0)
    assert table.mask.any()
    assert (known_at.max(axis=1) <= moments.close_time[queries]).all()


def test_a_planted_leak_cannot_be_retrieved():
    """The bar whose future is one's own has the very same key, and is still not found."""
    moments = random_moments(600, 1, 8, 5)
    keys = unit_keys(600, 6)
    keys[301:310] = keys[300]
    rule = VisibilityRule(0, 120, 1000)
    table = causal_neighbours(keys, moments, np.array([300, 305, 309]), rule, 8)
    assert not np.isin(table.rows[table.mask], np.arange(300, 310)).any()


def test_the_bulk_search_sees_what_the_memory_bank_shows_bar_by_bar():
    history = two_symbols(260)
    horizons, embargo, capacity, k = TINY.horizons, 12, 150, 5
    config = BankConfig(capacity, 6, horizons, TINY.primary, embargo * HOUR_MS, Metric.COSINE)
    bank = MemoryBank(config, encoder_version="test")
    recorder = MemoryRecorder(bank, horizons)
    bars = [bar for batch in batches(history) for bar in batch]
    keys = unit_keys(len(bars), 7)
    place = {(bar.symbol, bar.open_time): row for row, bar in enumerate(bars)}
    settled = np.full((len(bars), len(horizons)), NEVER)
    for series in history.values():
        rows = np.array([place[series.symbol, time] for time in series.open_time.tolist()])
        for column, horizon in enumerate(horizons):
            settled[rows[:-horizon], column] = series.close_time[horizon:]
    moments = Moments(
        np.array([bar.close_time for bar in bars]),
        np.ones(len(bars), dtype=np.bool_),
        np.zeros(settled.shape),
        settled,
        np.zeros(len(bars), dtype=np.float32),
        np.zeros(len(bars)),
        np.zeros(settled.shape),
    )
    rule = VisibilityRule(TINY.primary, embargo * HOUR_MS, capacity)
    table = causal_neighbours(keys, moments, np.arange(len(bars)), rule, k)
    known = rule.usable_outcomes(moments, table.rows, moments.close_time)
    for batch in batches(history):
        recorder.settle(batch)
        for bar in batch:
            row = place[bar.symbol, bar.open_time]
            result = bank.search(keys[row], as_of=bar.close_time, k=k)
            found = [place[s, t] for s, t in zip(result.symbols, result.bar_times.tolist(), strict=True) if s]
            assert table.rows[row][table.mask[row]].tolist() == found
            count = len(found)
            assert np.array_equal(np.isnan(known[row][:count]), np.isnan(result.outcomes[:count]))
        for bar in batch:
            recorder.remember(bar, keys[place[bar.symbol, bar.open_time]], 0)


def test_outcomes_of_longer_horizons_stay_hidden_until_they_are_known_too():
    settled = np.array([[20, 60], [30, 70], [NEVER, NEVER]])
    moments = Moments(
        np.array([10, 20, 50]),
        np.ones(3, dtype=np.bool_),
        np.ones((3, 2)),
        settled,
        np.zeros(3, np.float32),
        np.zeros(3),
        np.zeros((3, 2)),
    )
    rule = VisibilityRule(0, 10, 100)
    known = rule.usable_outcomes(moments, np.array([[0, 1]]), np.array([50]))
    assert np.array_equal(np.isnan(known[0]), [[False, True], [False, True]])


def test_lifetimes_take_the_place_of_the_capacity():
    moments = random_moments(400, 2, 6, 8)
    keys = unit_keys(len(moments), 9)
    queries = np.flatnonzero(moments.has_key)
    generator = np.random.default_rng(10)
    born = VisibilityRule(0, 30, 10).visible_from(moments)
    gone = np.where(generator.random(len(moments)) < 0.5, moments.close_time + generator.integers(1, 2000), NEVER)
    table = causal_neighbours(keys, moments, queries, VisibilityRule(0, 30, 1), 3, lifetimes=Lifetimes(born, gone))
    for place in range(0, len(queries), 11):
        now = moments.close_time[queries[place]]
        alive = np.flatnonzero((born <= now) & (gone > now) & (moments.close_time < now))
        best = alive[np.argsort(-(keys[alive] @ keys[queries[place]]), kind="stable")][:3]
        assert set(table.rows[place][table.mask[place]].tolist()) == set(best.tolist())


def test_an_immature_rule_shows_outcomes_that_nobody_could_know():
    moments = random_moments(300, 1, 8, 11)
    keys = unit_keys(300, 12)
    honest, leaking = VisibilityRule(0, 120, 1000), VisibilityRule(0, 120, 1000, immature=True)
    query = np.array([200])
    table = causal_neighbours(keys, moments, query, leaking, 1000)
    shown = table.rows[table.mask]
    assert shown.max() == 199 and (moments.settled[shown, 0] > moments.close_time[200]).any()
    now = moments.close_time[query]
    assert np.isfinite(leaking.usable_outcomes(moments, table.rows[:, :50], now)[table.mask[:, :50]]).all()
    newest = np.array([[199]])
    assert np.isnan(honest.usable_outcomes(moments, newest, now)).all()
    assert np.isfinite(leaking.usable_outcomes(moments, newest, now)).all()
