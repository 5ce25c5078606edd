"""The similarity strategy: the same decisions however it is run, causal, and sensible where the answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store import MemoryBank
from memory_store.policy import RegimeRule, Scope
from strategies.bars import DAY_MS, HOUR_MS, BarSeries
from strategies.base import Signal
from strategies.errors import SettingsError
from strategies.memory_rules import MemoryRules
from strategies.readout import QUANTILES, MemoryView
from strategies.shape import SHAPE_VERSION, SHAPE_WARMUP
from strategies.similarity import (
    SimilaritySettings,
    SimilarityStrategy,
    chance_of_vote,
    exit_distances,
    rise_probability,
)
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


def moments(strategy: SimilarityStrategy) -> str:
    """Digest of all entries, less what they were in decisions, of which warming makes none."""
    bank = MemoryBank(strategy.bank_config, encoder_version=SHAPE_VERSION)
    unasked = {"novelty": 0.0, "hits": 0, "last_hit": None, "credit": 0.0}
    bank.restore([replace(entry, **unasked) for entry in strategy.bank.entries()], next_id=strategy.bank.next_id)
    return bank.digest()


def test_warming_is_being_shown_the_bars():
    market = two_symbols(800)
    past, rest = halves(market, 500)
    warmed, shown = new(market), new(market)
    warmed.warm(past)
    replay(shown, past)
    assert moments(warmed) == moments(shown)
    assert replay(warmed, rest) == replay(shown, rest)
    assert moments(warmed) == moments(shown)


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
    taken = clear & (targets != 0.0)
    assert (np.sign(targets[taken]) == np.sign(rise[800:][taken])).all()
    assert taken.sum() > 0.8 * clear.sum(), "the others have too few independent moments to be told from chance"
    assert np.abs(targets[taken]).min() > 0.7
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


RULES = {
    "ageing": MemoryRules(age_half_life_days=5.0),
    "same symbol": MemoryRules(scope="same"),
    "other symbols": MemoryRules(scope="other"),
    "same regime": MemoryRules(regimes="same"),
    "regimes preferred": MemoryRules(regimes="prefer", regime_penalty=2.0),
    "alike enough": MemoryRules(minimum_similarity=0.2),
    "one per moment": MemoryRules(one_per_moment=True),
    "important stay": MemoryRules(eviction="importance", eviction_half_life_days=3.0),
    "regimes stay": MemoryRules(eviction="reservoir", eviction_half_life_days=3.0, age_half_life_days=5.0),
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_under_every_rule_a_preview_changes_no_bit_and_neighbours_obey(rules):
    market = two_symbols(900)
    past, rest = halves(market, 550)
    settings = replace(SMALL, memory_size=400, minimum_neighbors=1, rules=rules)
    plain, fast = new(market, settings), new(market, settings)
    for strategy in (plain, fast):
        strategy.warm(past)
    fast.preview(rest)
    signals = replay(fast, rest)
    assert signals == replay(plain, rest)
    assert plain.bank.digest() == fast.bank.digest()
    asked = answers(signals)
    assert len(asked) > 100
    for signal in asked:
        neighbours = signal.explanation.neighbours
        entry = fast.bank.find(signal.symbol, signal.bar_open_time)
        if rules.scope is not Scope.ALL:
            assert {n.symbol == signal.symbol for n in neighbours} == {rules.scope is Scope.SAME}
        if rules.regimes is RegimeRule.SAME and entry is not None:
            assert {n.regime for n in neighbours} == {fast.bank.entry(entry).regime}
        assert min(n.similarity for n in neighbours) >= rules.minimum_similarity
        times = sorted(n.bar_open_time for n in neighbours)
        if rules.one_per_moment:
            assert min(np.diff(times), default=np.inf) >= (24 + 24) * HOUR_MS


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_under_every_rule_no_decision_knows_a_later_bar(rules):
    market = two_symbols(700)
    settings = replace(SMALL, memory_size=400, minimum_neighbors=1, rules=rules)
    straight = replay(new(market, settings), market)
    place = 520
    changed = {symbol: with_other_future(series, place) for symbol, series in market.items()}
    strategy = new(market, settings)
    strategy.preview(changed)
    time = min(series.open_time[place] for series in changed.values())
    before = replay(strategy, {symbol: series.span(None, int(time)) for symbol, series in changed.items()})
    assert before == straight[: len(before)]


GLITCH = 620


def with_a_print(market: Mapping[str, BarSeries]) -> dict[str, BarSeries]:
    """The same market, where one low of AAAUSDT is a wrong tick on no volume."""
    series = market["AAAUSDT"]
    low, volume = series.low.copy(), series.volume.copy()
    low[GLITCH], volume[GLITCH] = 0.3 * low[GLITCH], 0.0
    return {**market, "AAAUSDT": replace(series, low=low, volume=volume)}


def test_a_print_that_nothing_followed_is_asked_about_and_not_remembered():
    market = with_a_print(two_symbols(800))
    bar = next(market["AAAUSDT"].slice(GLITCH, GLITCH + 1).bars())
    kept = new(market, replace(SMALL, rules=MemoryRules(glitch_wick=0.0)))
    refused, warmed = new(market), new(market)
    signals = replay(refused, market)
    replay(kept, market)
    warmed.warm(market)
    assert kept.bank.find(bar.symbol, bar.open_time) is not None
    for strategy in (refused, warmed):
        assert strategy.bank.find(bar.symbol, bar.open_time) is None
        assert len(strategy.bank) == len(kept.bank) - 1
    assert moments(warmed) == moments(refused)
    asked = [signal for signal in signals if (signal.symbol, signal.bar_open_time) == (bar.symbol, bar.open_time)]
    assert asked[0].target_exposure is not None


@pytest.mark.parametrize("memory_size", [100, 300])
def test_a_full_memory_warmed_over_a_print_is_that_of_being_shown_the_bars(memory_size):
    market = with_a_print(two_symbols(800))
    settings = replace(SMALL, memory_size=memory_size)
    warmed, shown = new(market, settings), new(market, settings)
    warmed.warm(market)
    replay(shown, market)
    assert len(warmed.bank) == memory_size
    held = [[(e.symbol, e.bar_time, e.outcomes) for e in each.bank.entries()] for each in (warmed, shown)]
    assert held[0] == held[1]


def test_what_was_seen_is_explained_and_noted():
    market = two_symbols(700)
    strategy = new(market)
    signals = answers(replay(strategy, market))
    uses = {}
    for signal in signals:
        seen = signal.explanation
        assert 1.0 <= seen.independent <= len(seen.neighbours)
        assert seen.novelty == pytest.approx(1.0 - max(neighbour.similarity for neighbour in seen.neighbours))
        vote = seen.regime_vote
        assert vote.winner in {neighbour.regime for neighbour in seen.neighbours}
        assert sum(share.share for share in vote.shares) == pytest.approx(1.0)
        entry = strategy.bank.entry(strategy.bank.find(signal.symbol, signal.bar_open_time))
        assert entry.novelty == pytest.approx(seen.novelty)
        for neighbour in seen.neighbours:
            assert strategy.bank.entry(neighbour.entry_id).regime == neighbour.regime
            uses[neighbour.entry_id] = uses.get(neighbour.entry_id, 0) + 1
    assert {entry.entry_id: entry.hits for entry in strategy.bank.entries() if entry.hits} == uses


def test_neighbours_of_an_answer_that_was_not_enough_are_not_noted():
    market = two_symbols(600)
    strategy = new(market, replace(SMALL, n_neighbors=8, minimum_neighbors=8))
    unknown = [s for s in replay(strategy, market) if s.explanation and s.target_exposure is None]
    assert any(signal.explanation.neighbours for signal in unknown)
    noted = {recollection.asker_id for recollection in strategy.bank.take_changes().recollections}
    assert noted
    assert not noted & {strategy.bank.find(signal.symbol, signal.bar_open_time) for signal in unknown}


@pytest.mark.parametrize("eviction", ["importance", "reservoir"])
def test_a_memory_that_keeps_others_than_the_latest_is_shown_everything(eviction):
    market = two_symbols(900)
    rules = MemoryRules(eviction=eviction)
    strategy = new(market, replace(SMALL, memory_size=100, rules=rules))
    assert strategy.history_bars >= 10**9
    assert strategy.bank_config.half_life_ms == 365 * DAY_MS
    assert strategy.bank_config.outcome_scale == pytest.approx(0.03)
    strategy.warm(market)
    keys = [len(series) - SHAPE_WARMUP + 1 for series in market.values()]
    assert strategy.bank.next_id == sum(keys)
    assert len(strategy.bank) == 100
    assert min(entry.entry_id for entry in strategy.bank.entries()) < sum(keys) - 100


def test_what_only_importance_looks_at_makes_no_other_bank_where_the_oldest_makes_room():
    """So that banks written before there was importance are still taken."""
    market = two_symbols(200)
    config = new(market, replace(SMALL, rules=MemoryRules(eviction_half_life_days=3.0))).bank_config
    assert config == new(market).bank_config
    assert (config.half_life_ms, config.outcome_scale) == (0, 1.0)


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
    shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8),
    significance=st.floats(0.01, 1.0),
)
def test_flips_of_a_coin_pass_no_more_often_than_the_significance(shares, significance):
    """All outcomes of a few flips, with any weights."""
    weights = np.array(shares) / sum(shares)
    effective = 1.0 / float(np.sum(weights**2))
    flips = (np.arange(2 ** len(weights))[:, None] >> np.arange(len(weights))) & 1
    chances = np.array(
        [chance_of_vote(view(float(ratio), effective, [0.0] * len(QUANTILES))) for ratio in flips @ weights]
    )
    assert np.mean(chances <= significance) <= significance + 1e-12


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
