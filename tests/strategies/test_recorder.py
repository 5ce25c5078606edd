"""The recorder: entries and outcomes by received bars, bulk and bar by bar the same bank, in one order only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, Metric
from memory_store.records import Eviction
from strategies.bars import HOUR_MS, Bar, BarSeries
from strategies.outcomes import outcome_matrix, settled_times
from strategies.recorder import MemoryRecorder, Recall, recall_of
from tests.strategies.markets import START, batches, random_walk

HORIZONS = (1, 4, 9)
DIMENSION = 3


def new_bank(capacity: int = 10_000) -> MemoryBank:
    config = BankConfig(
        capacity=capacity, dimension=DIMENSION, horizons=HORIZONS, primary=2, embargo_ms=HOUR_MS, metric=Metric.COSINE
    )
    return MemoryBank(config, encoder_version="test")


def new_recorder(capacity: int = 10_000) -> tuple[MemoryBank, MemoryRecorder]:
    bank = new_bank(capacity)
    return bank, MemoryRecorder(bank, HORIZONS)


def with_gaps(series: BarSeries, kept: np.ndarray) -> BarSeries:
    names = ("open_time", "open", "high", "low", "close", "volume")
    return replace(series, **{name: getattr(series, name)[kept] for name in names})


def market(seed: int, symbols: Sequence[str] = ("BBBUSDT", "AAAUSDT", "CCCUSDT")) -> dict[str, BarSeries]:
    """Symbols that start at different times, each with gaps of its own."""
    rng = np.random.default_rng(seed)
    history = {}
    for number, symbol in enumerate(symbols):
        length = int(rng.integers(1, 60))
        series = random_walk(length, seed + number, symbol, start=START + HOUR_MS * int(rng.integers(0, 30)))
        history[symbol] = with_gaps(series, rng.random(length) < 0.8)
    return history


def keys_of(history: Mapping[str, BarSeries], seed: int, skipped: int = 0) -> dict[str, np.ndarray]:
    """Random keys of all bars but the first ``skipped`` of every symbol."""
    rng = np.random.default_rng(seed)
    return {
        symbol: rng.normal(size=(max(0, len(series) - skipped), DIMENSION)).astype(np.float32)
        for symbol, series in history.items()
    }


def regimes_of(history: Mapping[str, BarSeries]) -> dict[str, np.ndarray]:
    return {symbol: np.arange(len(series)) % 6 for symbol, series in history.items()}


def bar_by_bar(
    recorder: MemoryRecorder,
    history: Mapping[str, BarSeries],
    keys: Mapping[str, np.ndarray],
    only: set[tuple[str, int]] | None = None,
) -> None:
    places = dict.fromkeys(history, 0)
    for batch in batches(history):
        shown = [bar for bar in batch if only is None or (bar.symbol, bar.open_time) in only]
        recorder.settle(shown)
        for bar in batch:
            place = places[bar.symbol]
            places[bar.symbol] += 1
            if bar not in shown:
                continue
            without = len(history[bar.symbol]) - len(keys[bar.symbol])
            key = keys[bar.symbol][place - without] if place >= without else None
            recorder.remember(bar, key, place % 6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), skipped=st.integers(0, 20))
def test_warming_in_bulk_gives_the_bank_of_going_bar_by_bar(seed, skipped):
    history = market(seed)
    keys = keys_of(history, seed, skipped)
    one, single = new_recorder()
    bar_by_bar(single, history, keys)
    other, bulk = new_recorder()
    bulk.warm(history, keys, regimes_of(history))
    assert one.digest() == other.digest()
    assert one.next_id == other.next_id


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), capacity=st.integers(1, 60))
def test_warming_writes_only_the_latest_moments_that_fit(seed, capacity):
    history = market(seed)
    keys = keys_of(history, seed)
    latest = [(bar.symbol, bar.open_time) for batch in batches(history) for bar in batch][-capacity:]
    one, single = new_recorder(capacity)
    bar_by_bar(single, history, keys, set(latest))
    other, bulk = new_recorder(capacity)
    bulk.warm(history, keys, regimes_of(history))
    assert [(entry.symbol, entry.bar_time) for entry in other.entries()] == latest
    assert one.digest() == other.digest()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 50), resumed=st.booleans())
def test_going_on_after_a_warm_up_or_a_restart_gives_the_bank_of_an_uninterrupted_run(seed, cut, resumed):
    """After a restart the bank comes from storage and only the recorder's own short memory is rebuilt."""
    history = market(seed)
    keys = keys_of(history, seed)
    whole, uninterrupted = new_recorder()
    bar_by_bar(uninterrupted, history, keys)

    moment = START + HOUR_MS * cut
    past = {symbol: series.span(None, moment) for symbol, series in history.items()}
    rest = {symbol: series.span(moment, None) for symbol, series in history.items()}
    bank, recorder = new_recorder()
    recorder.warm(
        past,
        {symbol: keys[symbol][: len(series)] for symbol, series in past.items()},
        regimes_of(past),
    )
    if resumed:
        restored = new_bank()
        restored.restore(bank.entries(), next_id=bank.next_id)
        bank, recorder = restored, MemoryRecorder(restored, HORIZONS)
        recorder.resume(past)
    for batch in batches(rest):
        recorder.settle(batch)
        for bar in batch:
            place = int(np.searchsorted(history[bar.symbol].open_time, bar.open_time))
            recorder.remember(bar, keys[bar.symbol][place], place % 6)
    assert bank.digest() == whole.digest()


def test_outcomes_are_those_of_the_batch_form_and_known_when_their_bar_closes():
    history = market(3)
    bank, recorder = new_recorder()
    bar_by_bar(recorder, history, keys_of(history, 3))
    for symbol, series in history.items():
        outcomes = outcome_matrix(series.close, HORIZONS)
        times = settled_times(series.close_time, HORIZONS)
        for place, opened in enumerate(series.open_time.tolist()):
            entry_id = bank.find(symbol, opened)
            assert entry_id is not None
            entry = bank.entry(entry_id)
            for column in range(len(HORIZONS)):
                if np.isnan(outcomes[place, column]):
                    assert entry.outcomes[column] is None
                else:
                    assert entry.outcomes[column] == outcomes[place, column]
                    assert entry.settled_times[column] == times[place, column]


def test_pending_entries_wait_while_their_symbol_is_silent():
    """Bars of another symbol settle nothing here."""
    bank, recorder = new_recorder()
    silent = next(random_walk(1, 1, "AAAUSDT").bars())
    recorder.settle([silent])
    entry_id = recorder.remember(silent, np.ones(DIMENSION, dtype=np.float32), 0)
    for bar in random_walk(30, 2, "BBBUSDT", start=START + HOUR_MS).bars():
        recorder.settle([bar])
        recorder.remember(bar, np.ones(DIMENSION, dtype=np.float32), 0)
    assert entry_id is not None
    assert bank.entry(entry_id).outcomes == (None, None, None)


def test_a_bar_without_a_key_makes_no_entry_but_counts():
    bank, recorder = new_recorder()
    bars = list(random_walk(3, 1).bars())
    key = np.ones(DIMENSION, dtype=np.float32)
    recorder.settle([bars[0]])
    entry_id = recorder.remember(bars[0], key, 0)
    assert entry_id is not None
    for bar in bars[1:]:
        recorder.settle([bar])
        assert recorder.remember(bar, None, 0) is None
    assert len(bank) == 1
    assert bank.entry(entry_id).settled_times[0] == bars[1].close_time


def test_any_other_order_than_settle_ask_remember_is_an_error():
    first, second = random_walk(2, 1).bars()
    other = next(random_walk(1, 2, "BBBUSDT").bars())
    key = np.ones(DIMENSION, dtype=np.float32)
    _, recorder = new_recorder()
    with pytest.raises(AssertionError, match="before it settled"):
        recorder.assert_may_ask(first)
    with pytest.raises(AssertionError, match="before it settled"):
        recorder.remember(first, key, 0)
    recorder.settle([first, other])
    recorder.assert_may_ask(first)
    with pytest.raises(AssertionError, match="never remembered"):
        recorder.settle([second])
    recorder.remember(other, key, 0)
    with pytest.raises(AssertionError, match="after its batch was remembered"):
        recorder.assert_may_ask(first)
    recorder.remember(first, key, 0)
    with pytest.raises(AssertionError, match="before it settled"):
        recorder.remember(first, key, 0)


def test_one_batch_holds_one_bar_per_symbol():
    _, recorder = new_recorder()
    with pytest.raises(AssertionError, match="two bars of AAAUSDT"):
        recorder.settle(list(random_walk(2, 1).bars()))


def recall(ids: Sequence[int], novelty: float = 0.25) -> Recall:
    return Recall(novelty, np.array(ids, dtype=np.int64), np.full(len(ids), 1.0 / max(1, len(ids))))


def played(bank: MemoryBank, recorder: MemoryRecorder, bars: Sequence[Bar]) -> None:
    for bar in bars:
        recorder.settle([bar])
        recorder.remember(bar, np.arange(1, DIMENSION + 1, dtype=np.float32), 0)


def test_what_the_search_of_a_bar_found_is_noted_with_its_entry():
    bank, recorder = new_recorder()
    bars = list(random_walk(20, 1).bars())
    played(bank, recorder, bars[:19])
    recorder.settle([bars[19]])
    entry_id = recorder.remember(bars[19], np.ones(DIMENSION, dtype=np.float32), 0, recall([1, 0]))
    assert bank.entry(entry_id).novelty == 0.25
    assert [(bank.entry(number).hits, bank.entry(number).last_hit) for number in (0, 1, 2)] == [
        (1, bars[19].close_time),
        (1, bars[19].close_time),
        (0, None),
    ]
    (noted,) = bank.take_changes().recollections
    assert (noted.asker_id, noted.as_of, noted.ids.tolist()) == (entry_id, bars[19].close_time, [1, 0])


def test_a_decision_without_neighbours_and_a_bar_without_an_entry_note_nothing():
    bank, recorder = new_recorder()
    bars = list(random_walk(21, 1).bars())
    played(bank, recorder, bars[:19])
    recorder.settle([bars[19]])
    entry_id = recorder.remember(bars[19], np.ones(DIMENSION, dtype=np.float32), 0, recall([0]).unused())
    recorder.settle([bars[20]])
    assert recorder.remember(bars[20], None, 0, recall([0])) is None
    assert bank.entry(entry_id).novelty == 0.25
    assert bank.take_changes().recollections == ()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), capacity=st.integers(1, 60), refused=st.floats(0.0, 0.6))
def test_bars_that_may_not_be_remembered_are_counted_and_make_no_entry(seed, capacity, refused):
    """In bulk as bar by bar, also where only the latest moments fit."""
    history = market(seed)
    keys = keys_of(history, seed)
    rng = np.random.default_rng(seed)
    admitted = {symbol: rng.random(len(series)) >= refused for symbol, series in history.items()}
    one, single = new_recorder(capacity)
    places = dict.fromkeys(history, 0)
    for batch in batches(history):
        single.settle(batch)
        for bar in batch:
            place = places[bar.symbol]
            places[bar.symbol] += 1
            single.remember(bar, keys[bar.symbol][place] if admitted[bar.symbol][place] else None, place % 6)
    other, bulk = new_recorder(capacity)
    bulk.warm(history, keys, regimes_of(history), admitted)
    held = [[(e.symbol, e.bar_time, e.outcomes, e.settled_times) for e in bank.entries()] for bank in (one, other)]
    assert held[0] == held[1]


def test_a_bank_that_does_not_turn_is_shown_every_moment():
    history = {"AAAUSDT": random_walk(50, 1)}
    config = replace(new_bank(20).config, eviction=Eviction.RESERVOIR, half_life_ms=HOUR_MS)
    bank = MemoryBank(config, encoder_version="test")
    MemoryRecorder(bank, HORIZONS).warm(history, keys_of(history, 1), regimes_of(history))
    assert (bank.next_id, len(bank)) == (50, 20)


def test_the_shares_of_a_search_are_those_that_had_a_vote():
    bank, recorder = new_recorder()
    played(bank, recorder, list(random_walk(30, 1).bars()))
    result = bank.search(np.arange(1, DIMENSION + 1), as_of=10**15, k=25)
    weights = np.zeros(25)
    weights[[0, 3]] = 0.75, 0.25
    found = recall_of(result, weights)
    assert found.novelty == pytest.approx(0.0, abs=1e-6)
    assert found.ids.tolist() == result.ids[[0, 3]].tolist()
    assert found.weights.tolist() == [0.75, 0.25]
    assert recall_of(result, np.full(25, 0.04)).ids.tolist() == result.ids[:25].tolist()
