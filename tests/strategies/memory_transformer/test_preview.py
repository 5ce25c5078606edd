"""What a replay finds out before its bars come: every bit as in time, whatever the memory, the market and the rules."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import MemoryBank
from memory_store.second_thread import has_second_core
from strategies.bars import BarSeries
from strategies.base import Signal
from strategies.memory_rules import MemoryRules
from strategies.memory_transformer.appraisal import Appraiser
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.settings import MemoryTransformerSettings
from strategies.memory_transformer.strategy import MemoryTransformerStrategy
from strategies.memory_transformer.symbol_state import SymbolState
from strategies.recorder import MemoryRecorder
from tests.strategies.markets import batches, random_walk, with_other_future
from tests.strategies.memory_transformer.tiny import TINY, tiny_model

SYMBOLS = ("AAAUSDT", "BBBUSDT", "CCCUSDT")
WARM = TINY.warmup + 10
LENGTH = WARM + 150


def with_embargo(bundle: Bundle, embargo: int) -> Bundle:
    model = tiny_model(embargo=embargo)
    model.load_state_dict(bundle.model.state_dict())
    return replace(bundle, model=model)


def with_gaps(series: BarSeries, share: float, seed: int) -> BarSeries:
    """The series without some of its bars, now and then without many in a row."""
    random = np.random.default_rng(seed)
    kept = random.random(len(series)) >= share
    if share:
        hole = int(random.integers(len(series)))
        kept[hole : hole + 40] = False
    columns = {name: getattr(series, name)[kept] for name in ("open_time", "open", "high", "low", "close", "volume")}
    return replace(series, **columns)


def market(symbols: int, gaps: float, seed: int) -> dict[str, BarSeries]:
    return {
        symbol: with_gaps(random_walk(LENGTH, seed + number, symbol), gaps, seed + number)
        for number, symbol in enumerate(SYMBOLS[:symbols])
    }


def split(history: dict[str, BarSeries], place: int) -> tuple[dict[str, BarSeries], dict[str, BarSeries]]:
    times = next(iter(history.values())).open_time
    time = int(times[min(place, len(times) - 1)])
    past = {symbol: series.span(None, time) for symbol, series in history.items()}
    return past, {symbol: series.span(time, None) for symbol, series in history.items()}


def play(strategy: MemoryTransformerStrategy, history: dict[str, BarSeries]) -> list[Signal]:
    signals = []
    for batch in batches(history):
        strategy.settle(batch)
        signals.extend(strategy.on_bar(bar) for bar in batch)
        strategy.remember(batch)
    return signals


def warmed(bundle: Bundle, past: dict[str, BarSeries], memory_size: int) -> MemoryTransformerStrategy:
    settings = MemoryTransformerSettings(entry_threshold=0.05, minimum_neighbors=1, memory_size=memory_size)
    strategy = MemoryTransformerStrategy(bundle, tuple(past), settings)
    strategy.warm(past)
    return strategy


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 999),
    symbols=st.integers(1, 3),
    embargo=st.sampled_from([0, 1, 7, 12, 60]),
    memory_size=st.sampled_from([8, 60, 200, 600]),
    gaps=st.sampled_from([0.0, 0.1]),
    wrong_from=st.none() | st.integers(0, LENGTH - WARM),
    again_after=st.none() | st.integers(1, 100),
)
def test_a_preview_changes_no_bit(bundle, seed, symbols, embargo, memory_size, gaps, wrong_from, again_after):
    """Memories that turn many times within a block, bars that are missing, come otherwise or are shown once more."""
    bundle = with_embargo(bundle, embargo)
    past, future = split(market(symbols, gaps, seed), WARM)
    expected = play(warmed(bundle, past, memory_size), future)
    strategy = warmed(bundle, past, memory_size)
    if wrong_from is None:
        strategy.preview(future)
    else:
        strategy.preview({name: with_other_future(s, min(wrong_from, len(s))) for name, s in future.items()})
    signals = []
    if again_after is not None:
        now, future = split(future, again_after)
        signals = play(strategy, now)
        strategy.preview(future)
    assert signals + play(strategy, future) == expected


@pytest.mark.skipif(not has_second_core(), reason="a second thread needs a second core")
@pytest.mark.parametrize("wrong_from", [None, 20, 70])
def test_a_second_thread_changes_no_bit(bundle, wrong_from):
    past, future = split(market(2, 0.1, 5), WARM)
    expected = play(warmed(bundle, past, 40_000), future)
    strategy = warmed(bundle, past, 40_000)
    strategy.preview(
        future if wrong_from is None else {name: with_other_future(s, wrong_from) for name, s in future.items()}
    )
    with strategy.bank.helped():
        assert strategy.bank.second_thread is not None
        assert play(strategy, future) == expected


def test_what_was_found_out_early_goes_without_the_collector_of_cycles(bundle):
    """Which looks through all that a replay keeps: that took a tenth of it."""
    past, future = split(market(1, 0.0, 5), WARM)
    strategy = warmed(bundle, past, 600)
    strategy.preview(future)
    gc.collect()
    gc.disable()
    try:
        play(strategy, future)
        assert gc.collect() < 50
    finally:
        gc.enable()


def test_most_bars_of_a_replay_are_appraised_before_they_come(bundle):
    """The point of it all: of the bars that an embargo of 12 bars lets be foreseen, none is left to its own time."""
    config, series = TINY, random_walk(LENGTH, 3)
    past, future = series.slice(0, WARM), series.slice(WARM, LENGTH)
    strategy = warmed(bundle, {"AAAUSDT": past}, 600)
    bank = MemoryBank(strategy.bank_config, encoder_version=bundle.model_id)
    recorder = MemoryRecorder(bank, config.horizons)
    state = SymbolState(BarKernel(bundle.model.encoder), bundle.scaler)
    keys, regimes, _ = state.catch_up(past, 600)
    recorder.warm({"AAAUSDT": past}, {"AAAUSDT": keys}, {"AAAUSDT": regimes})
    state.foresee(future)
    appraiser = Appraiser(bundle, config.n_neighbors, 1, MemoryRules())
    early = 0
    for bar in future.bars():
        recorder.settle([bar])
        observed = state.observe(bar)
        assert observed.encoded is not None
        assert state.prospect is not None
        appraisal = appraiser.appraise(
            bank, bar, observed.encoded, observed.volatility, state.ordinal, state.prospect, observed.regime
        )
        findings = state.prospect.findings
        place = state.ordinal - state.prospect.first_ordinal - findings.row
        early += appraisal.view is findings.appraisals[place].view
        recorder.remember(bar, observed.encoded.key, observed.regime)
    assert early == len(future)
