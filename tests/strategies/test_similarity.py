"""The similarity strategy: the same decisions however it is run, causal, and sensible where the answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store import MemoryBank
from strategies.bars import HOUR_MS, BarSeries
from strategies.base import Signal
from strategies.errors import SettingsError
from strategies.readout import QUANTILES, MemoryView
from strategies.shape import SHAPE_VERSION, SHAPE_WARMUP
from strategies.similarity import SimilaritySettings, SimilarityStrategy, exit_distances, rise_probability
from tests.strategies.markets import START, batches, random_walk, real_candles, with_other_future

SMALL = SimilaritySettings(memory_size=2_000, n_neighbors=12, minimum_neighbors=4, confidence_threshold=0.6)


def two_symbols(length: int, seed: int = 1) -> dict[str, BarSeries]:
    """The second symbol is listed later."""
    return {
        "AAAUSDT": random_walk(length, seed, "AAAUSDT"),
        "BBBUSDT": random_walk(length - 100, seed + 1, "BBBUSDT", start=START + 100 * HOUR_MS),
    }


def halves(market: Mapping[str, BarSeries], bars: int) -> tuple[dict[str, BarSeries], dict[str, BarSeries]]:
    moment = START + bars * HOUR_MS
    return (
        {symbol: series.span(None, moment) for symbol, series in market.items()},
        {symbol: series.span(moment, None) for symbol, series in market.items()},
    )


def replay(strategy: SimilarityStrategy, market: Mapping[str, BarSeries]) -> list[Signal]:
    signals = []
    for batch in batches(market):
        strategy.settle(batch)
        signals += [strategy.on_bar(bar) for bar in batch]
        strategy.remember(batch)
    return signals


def new(market: Mapping[str, BarSeries], settings: SimilaritySettings = SMALL) -> SimilarityStrategy:
    return SimilarityStrategy(tuple(market), "60", settings)


def answers(signals: list[Signal]) -> list[Signal]:
    return [signal for signal in signals if signal.target_exposure is not None]


@pytest.mark.parametrize("memory_size", [100, 500, 5_000])
def test_preview_changes_no_bit_of_any_signal(memory_size):
    """Also where the memory is so small that it evicts within a chunk."""
    market = two_symbols(1_000)
    past, rest = halves(market, 500)
    settings = replace(SMALL, memory_size=memory_size)
    plain, fast = new(market, settings), new(market, settings)
    for strategy in (plain, fast):
        strategy.warm(past)
    fast.preview(rest)
    signals = replay(fast, rest)
    assert signals == replay(plain, rest)
    assert plain.bank.digest() == fast.bank.digest()
    assert len(answers(signals)) > 100 or memory_size == 100


def test_preview_changes_nothing_on_real_candles(real_data):
    series = real_candles(real_data, "bybit_linear_BTCUSDT_1h", "BTCUSDT").slice(20_000, 22_500)
    past, rest = {"BTCUSDT": series.slice(0, 2_000)}, {"BTCUSDT": series.slice(2_000, 2_500)}
    plain, fast = new(past), new(past)
    for strategy in (plain, fast):
        strategy.warm(past)
    fast.preview(rest)
    signals = replay(fast, rest)
    assert signals == replay(plain, rest)
    assert {signal.target_exposure is None for signal in signals} == {False}


def test_a_preview_of_other_bars_than_come_changes_nothing():
    market = two_symbols(700)
    past, rest = halves(market, 400)
    plain, misled = new(market), new(market)
    for strategy in (plain, misled):
        strategy.warm(past)
    misled.preview({symbol: with_other_future(series, 20) for symbol, series in rest.items()})
    assert replay(misled, rest) == replay(plain, rest)


def test_a_preview_before_the_first_bar_changes_nothing():
    market = two_symbols(500)
    fast = new(market)
    fast.preview(market)
    assert replay(fast, market) == replay(new(market), market)


def test_warming_is_being_shown_the_bars():
    market = two_symbols(800)
    past, rest = halves(market, 500)
    warmed, shown = new(market), new(market)
    warmed.warm(past)
    replay(shown, past)
    assert warmed.bank.digest() == shown.bank.digest()
    assert replay(warmed, rest) == replay(shown, rest)
    assert warmed.bank.digest() == shown.bank.digest()


def test_without_a_past_it_starts_from_nothing():
    market = two_symbols(400)
    nothing = {symbol: BarSeries.empty(symbol, "60") for symbol in market}
    signals = replay(new(market), market)
    for past in ({}, nothing):
        strategy = new(market)
        strategy.warm(past)
        assert replay(strategy, market) == signals


def test_a_bank_of_the_callers_own_is_used_even_while_it_is_empty():
    market = two_symbols(400)
    bank = MemoryBank(new(market).bank_config, encoder_version=SHAPE_VERSION, record_changes=False)
    strategy = SimilarityStrategy(tuple(market), "60", SMALL, bank=bank)
    replay(strategy, market)
    assert strategy.bank is bank
    assert len(bank) > 100


def test_a_restart_with_the_stored_memory_goes_on_as_if_nothing_had_happened():
    market = two_symbols(800)
    past, rest = halves(market, 500)
    lived = new(market)
    lived.warm(past)
    stored = MemoryBank(lived.bank_config, encoder_version=SHAPE_VERSION)
    stored.restore(lived.bank.entries(), next_id=lived.bank.next_id)
    resumed = new(market)
    resumed.attach_bank(stored)
    resumed.warm(past, remember=False)
    assert replay(resumed, rest) == replay(lived, rest)
    assert resumed.bank.digest() == lived.bank.digest()


def test_no_signal_and_no_entry_knows_the_future():
    market = two_symbols(700)
    cut = START + 600 * HOUR_MS
    other = {
        symbol: with_other_future(series, int(np.searchsorted(series.open_time, cut)))
        for symbol, series in market.items()
    }
    runs = []
    for version in (market, other):
        strategy = new(version)
        signals = replay(strategy, version)
        entries = {
            (entry.symbol, entry.bar_time): (
                entry.key.tobytes(),
                entry.regime,
                [
                    known
                    for known in zip(entry.outcomes, entry.settled_times, strict=True)
                    if known[1] is not None and known[1] <= cut
                ],
            )
            for entry in strategy.bank.entries()
            if entry.bar_time < cut
        }
        runs.append(([signal for signal in signals if signal.bar_open_time < cut], entries))
    assert runs[0] == runs[1]
    assert len(answers(runs[0][0])) > 100


def test_every_neighbour_was_settled_and_embargoed_when_it_was_asked():
    market = two_symbols(800)
    strategy = new(market)
    seen = 0
    for signal in replay(strategy, market):
        if signal.explanation is None:
            continue
        for neighbour in signal.explanation.neighbours:
            seen += 1
            waited = signal.bar_open_time - neighbour.bar_open_time
            assert waited >= (SMALL.primary + SMALL.embargo) * HOUR_MS
    assert seen > 1_000


def test_in_pure_noise_it_finds_nothing():
    """Random walks: the correlation of forecast and outcome stays within 2.6 standard errors of overlapping outcomes."""
    forecasts, outcomes = [], []
    for seed in range(4):
        series = random_walk(1_300, seed)
        signals = replay(new({"AAAUSDT": series}), {"AAAUSDT": series})
        logs = np.log(series.close)
        for place, signal in enumerate(signals[:-24]):
            if signal.expected_return is not None:
                forecasts.append(signal.expected_return)
                outcomes.append(logs[place + 24] - logs[place])
    assert len(forecasts) > 3_000
    correlation = np.corrcoef(forecasts, outcomes)[0, 1]
    assert abs(correlation) < 2.6 / np.sqrt(len(forecasts) / 24)


def test_what_always_came_next_before_is_traded():
    """Prices on a noisy wave: long in the troughs, short on the crests."""
    length, period = 1_500, 96
    rng = np.random.default_rng(5)
    phase = 2.0 * np.pi * np.arange(length) / period
    close = 100.0 * np.exp(0.2 * np.sin(phase) + rng.normal(0.0, 0.002, length))
    series = replace(random_walk(length, 1), open=close, high=close * 1.001, low=close * 0.999, close=close)
    market = {"AAAUSDT": series}
    signals = replay(new(market, replace(SMALL, confidence_threshold=0.7)), market)[800:]
    targets = np.array([signal.target_exposure for signal in signals], dtype=np.float64)
    rise = np.sin(phase + 2.0 * np.pi * 24 / period) - np.sin(phase)
    clear = np.abs(rise[800:]) > 0.7
    assert (np.sign(targets[clear]) == np.sign(rise[800:][clear])).all()
    assert np.abs(targets[clear]).min() > 0.7
    for signal in signals:
        if signal.target_exposure:
            assert signal.stop_distance is not None and 0.0 < signal.stop_distance <= 0.5
            assert signal.target_distance is not None and 0.0 < signal.target_distance <= 0.5
            assert signal.expected_return is not None
            assert np.sign(signal.expected_return) == np.sign(signal.target_exposure)


def test_before_there_are_enough_moments_the_answer_is_unknown():
    series = random_walk(400, 6)
    strategy = new({"AAAUSDT": series})
    signals = replay(strategy, {"AAAUSDT": series})
    first = next(place for place, signal in enumerate(signals) if signal.target_exposure is not None)
    assert first <= strategy.required_bars <= first + 2
    assert "too early" in signals[SHAPE_WARMUP - 2].reason
    assert "similar moments" in signals[first - 1].reason
    assert all(signal.target_exposure is not None for signal in signals[first:])


def test_a_market_that_stands_still_is_not_traded():
    series = random_walk(600, 7)
    still = np.full(600, 100.0)
    series = replace(series, open=still, high=still, low=still, close=still, volume=np.zeros(600))
    signals = replay(new({"AAAUSDT": series}), {"AAAUSDT": series})
    assert {signal.target_exposure for signal in signals[400:]} == {0.0}


def test_the_explanation_names_what_was_seen():
    series = random_walk(700, 8)
    strategy = new({"AAAUSDT": series})
    signal = replay(strategy, {"AAAUSDT": series})[-1]
    explanation = signal.explanation
    assert explanation is not None
    assert len(explanation.features) == len(strategy.feature_names)
    assert len(explanation.neighbours) == SMALL.n_neighbors
    assert explanation.memory_size > 100
    mean = sum(neighbour.weight * neighbour.outcome for neighbour in explanation.neighbours)
    assert explanation.memory_mean == pytest.approx(mean) == signal.expected_return


def test_history_fills_the_memory_of_all_symbols_together():
    strategy = SimilarityStrategy(("AAAUSDT", "BBBUSDT", "CCCUSDT"), "60", SimilaritySettings(memory_size=10_000))
    assert strategy.history_bars == SHAPE_WARMUP + 3_334
    assert strategy.required_bars == SHAPE_WARMUP + 24 + 48 + 8


def test_a_memory_of_other_settings_is_refused():
    strategy = new({"AAAUSDT": random_walk(1, 1)})
    other = SimilarityStrategy(("AAAUSDT",), "60", replace(SMALL, embargo=47))
    with pytest.raises(SettingsError, match="other settings"):
        strategy.attach_bank(other.bank)
    with pytest.raises(SettingsError, match="other settings"):
        strategy.attach_bank(MemoryBank(strategy.bank_config, encoder_version="another"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_size", 0),
        ("n_neighbors", 0),
        ("minimum_neighbors", 33),
        ("confidence_threshold", 0.5),
        ("prior_strength", -1.0),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("horizons", (4, 1, 24)),
        ("primary", 5),
        ("embargo", -1),
    ],
)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(SettingsError, match=f"similarity: {name} is"):
        SimilaritySettings(**{name: value})


def view(positive_ratio: float, effective: float, levels: list[float]) -> MemoryView:
    return MemoryView(
        10, 10, effective, np.full(10, 0.1), 0.0, 0.1, positive_ratio, tuple(zip(QUANTILES, levels, strict=True))
    )


@given(ratio=st.floats(0.0, 1.0), effective=st.floats(1.0, 64.0), prior=st.floats(0.0, 50.0))
def test_few_moments_are_pulled_further_towards_one_half(ratio, effective, prior):
    levels = [0.0] * len(QUANTILES)
    some = rise_probability(view(ratio, effective, levels), prior)
    more = rise_probability(view(ratio, 2.0 * effective, levels), prior)
    assert abs(some - 0.5) <= abs(more - 0.5) + 1e-12 <= abs(ratio - 0.5) + 1e-9


@given(
    levels=st.lists(st.floats(-2.0, 2.0), min_size=len(QUANTILES), max_size=len(QUANTILES)).map(sorted),
    side=st.sampled_from([-1, 1]),
    volatility=st.floats(1e-6, 2.0),
)
def test_exits_lie_within_bounds_of_the_volatility(levels, side, volatility):
    for distance in exit_distances(view(0.5, 5.0, levels), side, volatility):
        assert 0.0 < distance <= 0.5
        assert distance <= np.expm1(3.0 * volatility) + 1e-12
        assert distance >= min(0.5, -np.expm1(-0.5 * volatility)) - 1e-12


def test_exits_follow_the_outcomes_of_the_neighbours():
    levels = [-0.10, -0.08, -0.02, 0.01, 0.05, 0.12, 0.15]
    long_stop, long_target = exit_distances(view(0.5, 5.0, levels), 1, 0.1)
    short_stop, short_target = exit_distances(view(0.5, 5.0, levels), -1, 0.1)
    assert long_stop == pytest.approx(1.0 - np.exp(-0.10))
    assert long_target == pytest.approx(np.exp(0.12) - 1.0)
    assert short_stop == pytest.approx(np.exp(0.15) - 1.0)
    assert short_target == pytest.approx(1.0 - np.exp(-0.08))
