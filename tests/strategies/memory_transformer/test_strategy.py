"""The strategy: the same decisions however it is driven, and none that knows the future."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import sqrt

import msgspec
import numpy as np
import pytest

from memory_store import MemoryBank
from strategies.bars import HOUR_MS, Bar, BarSeries
from strategies.base import Signal
from strategies.errors import SettingsError
from strategies.features import feature_matrix
from strategies.memory_rules import MemoryRules
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.decision import combine, distances, volatility_share
from strategies.memory_transformer.settings import ExitRule, MemoryTransformerSettings
from strategies.memory_transformer.strategy import MemoryTransformerStrategy
from strategies.outcomes import trailing_volatility
from strategies.readout import QUANTILES, MemoryView
from strategies.regimes import REGIME_NAMES
from strategies.uncertainty.calibration import Abstention, Score
from tests.strategies.markets import batches, random_walk, with_other_future
from tests.strategies.memory_transformer.tiny import TINY, two_symbols

SETTINGS = MemoryTransformerSettings(entry_threshold=0.05, holding_bars=6, minimum_neighbors=4)


def strategy_for(bundle, symbols: Iterable[str] = ("AAAUSDT",), **changes) -> MemoryTransformerStrategy:
    return MemoryTransformerStrategy(bundle, tuple(symbols), replace(SETTINGS, **changes))


def play(strategy: MemoryTransformerStrategy, history: dict[str, BarSeries]) -> list[Signal]:
    signals = []
    for batch in batches(history):
        strategy.settle(batch)
        signals.extend(strategy.on_bar(bar) for bar in batch)
        strategy.remember(batch)
    return signals


def learned(bundle, past: dict[str, BarSeries], **changes) -> bytes:
    """What the calibration of a strategy knows that decided on these bars: the one thing that bars alone do not tell."""
    strategy = strategy_for(bundle, past, **changes)
    play(strategy, past)
    return strategy.state()


def without_ids(signal: Signal) -> Signal:
    neighbours = tuple(msgspec.structs.replace(n, entry_id=0) for n in signal.explanation.neighbours)
    return msgspec.structs.replace(
        signal, explanation=msgspec.structs.replace(signal.explanation, neighbours=neighbours)
    )


def cut(history: dict[str, BarSeries], time: int) -> tuple[dict[str, BarSeries], dict[str, BarSeries]]:
    past = {symbol: series.span(None, time) for symbol, series in history.items()}
    return past, {symbol: series.span(time, None) for symbol, series in history.items()}


@pytest.fixture(scope="module")
def market() -> dict[str, BarSeries]:
    """Histories that begin with their first bar: whoever pushes it by itself counts from there."""
    return {symbol: replace(series, first_ordinal=0) for symbol, series in two_symbols(560).items()}


@pytest.fixture(scope="module")
def live(bundle, market) -> list[Signal]:
    """Every bar pushed by itself from the very first one."""
    return play(strategy_for(bundle, market), market)


def test_signals_are_what_the_contract_says(live):
    decided = [signal for signal in live if signal.target_exposure is not None]
    assert len(decided) > 400
    assert any(signal.target_exposure > 0 for signal in decided)
    assert any(signal.target_exposure < 0 for signal in decided)
    for signal in decided:
        assert -1.0 <= signal.target_exposure <= 1.0
        assert len(signal.quantiles) == len(QUANTILES)
        if signal.target_exposure:
            assert 0.0 < signal.stop_distance <= 0.5
            assert 0.0 < signal.target_distance <= 0.5
        explanation = signal.explanation
        assert 0.0 <= explanation.gate <= 1.0
        assert explanation.prediction is not None
        assert sum(neighbour.weight for neighbour in explanation.neighbours) == pytest.approx(1.0)


def test_a_preview_changes_no_bit_of_any_decision(bundle, market, live):
    strategy = strategy_for(bundle, market)
    strategy.preview(market)
    assert play(strategy, market) == live


def test_a_preview_that_does_not_come_true_changes_no_bit_either(bundle, market, live):
    strategy = strategy_for(bundle, market)
    promised = {symbol: with_other_future(series, 430) for symbol, series in market.items()}
    strategy.preview(promised)
    assert play(strategy, market) == live


def test_warming_up_equals_having_been_there(bundle, market, live):
    time = market["AAAUSDT"].open_time[450]
    past, future = cut(market, int(time))
    strategy = strategy_for(bundle, market)
    strategy.warm(past)
    strategy.restore(learned(bundle, past))
    warmed = play(strategy, future)
    assert warmed == live[len(live) - len(warmed) :]


def test_warming_up_and_preview_together_equal_having_been_there(bundle, market, live):
    past, future = cut(market, int(market["AAAUSDT"].open_time[333]))
    strategy = strategy_for(bundle, market)
    strategy.warm(past)
    strategy.restore(learned(bundle, past))
    strategy.preview(future)
    signals = play(strategy, future)
    assert signals == live[len(live) - len(signals) :]


def test_a_bank_from_storage_goes_on_as_if_nothing_had_happened(bundle, market, live):
    past, future = cut(market, int(market["AAAUSDT"].open_time[450]))
    before = strategy_for(bundle, market)
    before.warm(past)
    restored = MemoryBank(before.bank_config, encoder_version=bundle.model_id)
    restored.restore(before.bank.entries(), next_id=before.bank.next_id)
    after = strategy_for(bundle, market)
    after.attach_bank(restored)
    after.warm(past, remember=False)
    after.restore(learned(bundle, past))
    signals = play(after, future)
    assert signals == live[len(live) - len(signals) :]
    assert after.bank is restored


def test_a_full_memory_forgets_the_same_in_every_way(bundle, market):
    past, future = cut(market, int(market["AAAUSDT"].open_time[450]))
    known = learned(bundle, past, memory_size=200)
    signals = []
    for preview in (False, True):
        strategy = strategy_for(bundle, market, memory_size=200)
        strategy.warm(past)
        strategy.restore(known)
        if preview:
            strategy.preview(future)
        signals.append(play(strategy, future))
        assert len(strategy.bank) == 200
    assert signals[0] == signals[1]
    # One that was there all the time gave its entries other ids; everything else is the same.
    straight = play(strategy_for(bundle, market, memory_size=200), market)
    expected = straight[len(straight) - len(signals[0]) :]
    assert [without_ids(signal) for signal in signals[0]] == [without_ids(signal) for signal in expected]


def test_no_decision_knows_a_later_bar(bundle, market, live):
    for place in (300, 450, 451):
        changed = {symbol: with_other_future(series, place) for symbol, series in market.items()}
        strategy = strategy_for(bundle, market)
        strategy.preview(changed)
        time = min(series.open_time[place] for series in changed.values())
        before = play(strategy, cut(changed, int(time))[0])
        assert before == live[: len(before)]


def test_every_neighbour_s_outcome_was_known_an_embargo_before_the_decision(live, market):
    hidden = (TINY.primary_horizon + TINY.embargo) * HOUR_MS
    neighbours = 0
    for signal in live:
        if signal.explanation is None:
            continue
        for neighbour in signal.explanation.neighbours:
            neighbours += 1
            assert neighbour.bar_open_time + hidden <= signal.bar_open_time
            series = market[neighbour.symbol]
            place = int(np.searchsorted(series.open_time, neighbour.bar_open_time))
            move = np.log(series.close[place + TINY.primary_horizon] / series.close[place])
            assert neighbour.outcome == pytest.approx(move, abs=1e-12)
    assert neighbours > 1000


def test_a_bar_without_a_whole_history_has_no_answer(live):
    first = [signal for signal in live if signal.symbol == "AAAUSDT"]
    assert {signal.target_exposure for signal in first[: TINY.warmup - 1]} == {None}
    assert first[TINY.warmup - 2].explanation is None
    assert first[TINY.warmup - 1].explanation is not None


def test_too_few_neighbours_is_unknown_not_flat(live):
    for signal in live:
        if signal.explanation is not None and len(signal.explanation.neighbours) < SETTINGS.minimum_neighbors:
            assert signal.target_exposure is None
            assert "neighbours known, 4 needed" in signal.reason
            return
    raise AssertionError("the market never had too few neighbours")


def test_a_forecast_below_the_threshold_abstains(bundle, market):
    past, future = cut(market, int(market["AAAUSDT"].open_time[450]))
    strategy = strategy_for(bundle, market, entry_threshold=1.0, holding_bars=1, abstains=False)
    strategy.warm(past)
    signals = play(strategy, future)
    decided = [signal for signal in signals if signal.target_exposure is not None]
    assert sum(signal.target_exposure == 0.0 for signal in decided) > 0.5 * len(decided)
    for signal in decided:
        if signal.target_exposure == 0.0:
            assert signal.stop_distance is None
            assert "below the entry threshold" in signal.reason


def test_the_reason_and_the_expectation_are_in_one_unit(bundle, market, live):
    series = market["AAAUSDT"]
    features = feature_matrix(series)
    signal = [signal for signal in live if signal.symbol == "AAAUSDT"][-1]
    volatility = float(trailing_volatility(features)[-1]) * sqrt(TINY.primary_horizon)
    assert signal.expected_return == pytest.approx(signal.explanation.prediction * volatility)
    assert f"memory {signal.explanation.memory_mean / volatility:+.3f}" in signal.reason
    assert signal.explanation.features == tuple(features[-1].tolist())


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
def test_under_every_rule_a_preview_changes_no_bit(bundle, market, rules):
    past, future = cut(market, int(market["AAAUSDT"].open_time[450]))
    plain, fast = (strategy_for(bundle, market, memory_size=250, minimum_neighbors=1, rules=rules) for _ in range(2))
    for strategy in (plain, fast):
        strategy.warm(past)
    fast.preview(future)
    signals = play(fast, future)
    assert signals == play(plain, future)
    assert plain.bank.digest() == fast.bank.digest()
    assert any(signal.target_exposure for signal in signals)


def mean_age(signals: list[Signal]) -> float:
    """Of the neighbours by their weight, milliseconds."""
    decided = [signal for signal in signals if signal.target_exposure is not None]
    return np.mean(
        [
            sum(n.weight * (signal.bar_open_time - n.bar_open_time) for n in signal.explanation.neighbours)
            for signal in decided
        ]
    )


def test_what_ages_fast_weighs_less_when_it_is_old(bundle, market, live):
    strategy = strategy_for(bundle, market, rules=MemoryRules(age_half_life_days=1.0))
    strategy.preview(market)
    assert mean_age(play(strategy, market)) < 0.5 * mean_age(live)


def test_what_was_seen_is_explained_and_noted(bundle, market):
    strategy = strategy_for(bundle, market, memory_size=2_000)
    strategy.preview(market)
    signals = play(strategy, market)
    noted = {each.asker_id: each for each in strategy.bank.take_changes().recollections}
    for signal in signals:
        seen = signal.explanation
        if seen is None:
            continue
        entry_id = strategy.bank.find(signal.symbol, signal.bar_open_time)
        assert strategy.bank.entry(entry_id).novelty == pytest.approx(seen.novelty)
        if signal.target_exposure is None:
            assert entry_id not in noted
            continue
        assert 1.0 <= seen.independent <= len(seen.neighbours)
        assert noted[entry_id].as_of == signal.bar_open_time + HOUR_MS
        assert noted[entry_id].ids.tolist() == [neighbour.entry_id for neighbour in seen.neighbours]
        assert noted[entry_id].weights.tolist() == [neighbour.weight for neighbour in seen.neighbours]
        assert {neighbour.regime for neighbour in seen.neighbours} <= set(range(len(REGIME_NAMES)))
        assert seen.regime_vote.winner is not None
    assert len(noted) > 400


def test_a_print_that_nothing_followed_is_asked_about_and_not_remembered(bundle, market):
    place = 400
    series = market["AAAUSDT"]
    low, volume = series.low.copy(), series.volume.copy()
    low[place], volume[place] = 0.3 * low[place], 0.0
    wrong = {**market, "AAAUSDT": replace(series, low=low, volume=volume)}
    shown, warmed = (strategy_for(bundle, wrong, memory_size=2_000) for _ in range(2))
    shown.preview(wrong)
    signals = play(shown, wrong)
    warmed.warm(wrong)
    opened = int(series.open_time[place])
    asked = [signal for signal in signals if (signal.symbol, signal.bar_open_time) == ("AAAUSDT", opened)]
    assert asked[0].target_exposure is not None
    for strategy in (shown, warmed):
        assert strategy.bank.find("AAAUSDT", opened) is None
        assert strategy.bank.find("AAAUSDT", opened + HOUR_MS) is not None
    small = [strategy_for(bundle, wrong, memory_size=300) for _ in range(2)]
    small[0].preview(wrong)
    play(small[0], wrong)
    small[1].warm(wrong)
    held = [[(e.symbol, e.bar_time, e.key.tobytes(), e.outcomes) for e in each.bank.entries()] for each in small]
    assert held[0] == held[1]
    assert len(held[0]) == 300


def test_importance_is_measured_in_outcomes_of_the_training_span(bundle):
    config = strategy_for(bundle, rules=MemoryRules(eviction="importance")).bank_config
    assert config.outcome_scale == bundle.outcome_scale[TINY.primary]


def test_asking_out_of_order_is_caught(bundle):
    strategy = strategy_for(bundle)
    bar: Bar = next(iter(random_walk(5, 1).bars()))
    with pytest.raises(AssertionError, match="before it settled"):
        strategy.on_bar(bar)
    strategy.settle([bar])
    strategy.on_bar(bar)
    strategy.remember([bar])
    with pytest.raises(AssertionError):
        strategy.on_bar(bar)


def test_a_memory_of_another_model_is_refused(bundle):
    strategy = strategy_for(bundle)
    stranger = MemoryBank(strategy.bank_config, encoder_version="mt-000000000000")
    with pytest.raises(SettingsError, match="holds keys of model mt-000000000000"):
        strategy.attach_bank(stranger)
    smaller = MemoryBank(replace(strategy.bank_config, capacity=7), encoder_version=bundle.model_id)
    with pytest.raises(SettingsError, match="other settings"):
        strategy.attach_bank(smaller)


def test_a_memory_wants_its_whole_capacity_of_history(bundle):
    strategy = strategy_for(bundle, ("AAAUSDT", "BBBUSDT"), memory_size=5000)
    assert strategy.history_bars == TINY.warmup + 2500
    assert strategy.required_bars == TINY.warmup + TINY.primary_horizon + TINY.embargo + 4


@pytest.mark.parametrize(
    ("prediction", "memory", "side", "confidence"),
    [
        (0.3, 0.2, 1, 0.5),
        (-0.3, -0.2, -1, 0.5),
        (0.3, -0.2, 1, 0.15),
        (-0.3, 0.2, -1, 0.15),
        (0.9, 0.9, 1, 1.0),
        (5.0, -1.0, 1, 1.0),
        (0.3, 0.0, 1, 0.15),
        (0.0, 0.7, 0, 0.0),
    ],
)
def test_agreement_adds_and_conflict_halves(prediction, memory, side, confidence):
    decision = combine(prediction, memory)
    assert decision.side == side
    assert decision.confidence == pytest.approx(confidence)


def view(*quantiles: float) -> MemoryView:
    pairs = tuple(zip(QUANTILES, quantiles, strict=True))
    return MemoryView(8, 8, 8.0, np.full(8, 1 / 8), 0.0, 0.02, 0.5, pairs)


def test_exits_follow_the_rule_that_was_chosen():
    outcomes = view(-0.04, -0.03, -0.01, 0.0, 0.01, 0.03, 0.05)
    forecast = view(-0.05, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06)
    memory = MemoryTransformerSettings(exits=ExitRule.MEMORY)
    assert distances(outcomes, forecast, 1, 0.02, 0.03, memory) == pytest.approx((1 - np.exp(-0.04), np.exp(0.03) - 1))
    default = MemoryTransformerSettings()
    assert distances(outcomes, forecast, 1, 0.02, 0.03, default) == pytest.approx((1 - np.exp(-0.05), np.exp(0.04) - 1))
    # Within half and three times the volatility that is forecast.
    wild = distances(outcomes, forecast, 1, 0.02, 0.2, default)
    assert wild == pytest.approx((1 - np.exp(-0.1), np.exp(0.1) - 1))
    volatility = MemoryTransformerSettings(exits="volatility", stop_multiple=1.0, target_multiple=2.0)
    found = distances(outcomes, forecast, -1, 0.02, 0.03, volatility)
    assert found == pytest.approx((np.exp(0.02) - 1, 1 - np.exp(-0.04)))
    assert distances(outcomes, forecast, 1, 9.0, 9.0, volatility) == (0.5, 0.5)
    assert distances(outcomes, forecast, 1, 0.02, 0.03, MemoryTransformerSettings(exits=ExitRule.RISK)) == (None, None)


def test_a_position_shrinks_as_more_volatility_is_forecast_than_is_wanted():
    day = 24 * HOUR_MS
    assert volatility_share(0.01, day, 0.0) == 1.0
    assert volatility_share(0.01, day, 0.8) == 1.0
    calm, wild = (volatility_share(expected, day, 0.8) for expected in (0.08, 0.16))
    assert calm == pytest.approx(0.8 / 365**0.5 / 0.08)
    assert wild == pytest.approx(calm / 2)


def test_a_forecast_that_validation_found_too_uncertain_is_not_traded(bundle, market):
    """The rule of a bundle may be any; this one leaves the half with the wider quantiles."""
    alone = play(strategy_for(bundle, market, abstains=False, holding_bars=1), market)
    traded = [signal for signal in alone if signal.target_exposure]
    width = sorted(novelty for signal in traded if (novelty := signal.explanation.novelty) is not None)
    rule = Abstention(Score.NOVELTY, width[len(width) // 2], coverage=0.5, gain=0.1, standard_error=0.01)
    careful = replace(bundle, calibration=msgspec.structs.replace(bundle.calibration, abstention=rule))
    signals = play(strategy_for(careful, market, holding_bars=1), market)
    left = [signal for signal in signals if signal.reason.endswith("too uncertain by its novelty")]
    assert left and all(signal.target_exposure == 0.0 for signal in left)
    assert all(signal.explanation.novelty > rule.threshold for signal in left)
    assert all(signal.explanation.novelty <= rule.threshold for signal in signals if signal.target_exposure)
    assert play(strategy_for(careful, market, abstains=False, holding_bars=1), market) == alone


def with_direction(bundle: Bundle, known: bool | None) -> Bundle:
    """The same model, whose validation said so of its direction; ``None`` is what bundles of earlier versions say."""
    metrics = {name: value for name, value in bundle.description["metrics"].items() if name != "knows_direction"}
    if known is not None:
        metrics["knows_direction"] = known
    return replace(bundle, description={**bundle.description, "metrics": metrics})


def last_bars(bundle: Bundle, market: dict[str, BarSeries], **changes) -> list[Signal]:
    """What a strategy that was warmed with all others decides on the last 40 bars of a symbol."""
    name, series = next(iter(market.items()))
    strategy = strategy_for(bundle, **changes)
    strategy.warm({name: series.slice(0, len(series) - 40)})
    return play(strategy, {name: series.slice(len(series) - 40, len(series))})


@pytest.mark.parametrize("known", [False, None])
def test_where_skill_is_asked_for_a_direction_without_it_is_not_traded(bundle, market, known):
    unproven = with_direction(bundle, known)
    usual = last_bars(unproven, market)
    assert any(signal.target_exposure for signal in usual)
    for signal, other in zip(last_bars(unproven, market, needs_skill=True), usual, strict=True):
        assert signal.target_exposure == 0.0
        assert signal.reason.endswith("its direction has shown no skill on validation")
        assert signal.stop_distance is None and signal.target_distance is None
        assert signal.explanation == other.explanation  # it goes on to forecast and to remember


def test_where_skill_is_asked_for_a_direction_that_has_it_is_traded_as_ever(bundle, market):
    skilled = with_direction(bundle, True)
    assert last_bars(skilled, market, needs_skill=True) == last_bars(skilled, market)


def test_a_forecast_says_how_likely_a_rise_is_and_how_far_the_price_may_go(live):
    for signal in live:
        if signal.target_exposure is None:
            continue
        seen = signal.explanation
        assert 0.0 < seen.rise_probability < 1.0
        assert seen.volatility > 0.0
        levels = [level for _, level in signal.quantiles]
        assert levels == sorted(levels)
        assert sum(neighbour.attention for neighbour in seen.neighbours) <= 1.0 + 1e-6
        assert all(neighbour.attention >= 0.0 for neighbour in seen.neighbours)


@pytest.mark.parametrize(
    "change",
    [
        {"entry_threshold": 1.5},
        {"minimum_neighbors": 0},
        {"memory_size": 0},
        {"n_neighbors": 0},
        {"exits": "hope"},
        {"stop_multiple": 0.0},
        {"target_volatility": -0.1},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(change):
    with pytest.raises(SettingsError, match=next(iter(change))):
        MemoryTransformerSettings(**change)


def test_more_neighbours_cannot_be_demanded_than_are_asked_for(bundle):
    with pytest.raises(SettingsError, match="at most n_neighbors, 8"):
        strategy_for(bundle, minimum_neighbors=9)


def test_without_a_memory_the_model_decides_alone_and_remembers_nothing(bundle, market):
    past, future = cut(market, int(market["AAAUSDT"].open_time[450]))
    strategy = strategy_for(bundle, market, uses_memory=False, holding_bars=1)
    strategy.warm(past)
    strategy.preview(future)
    signals = play(strategy, future)
    assert len(strategy.bank) == 0
    assert all(signal.target_exposure is not None and not signal.explanation.neighbours for signal in signals)
    assert any(signal.target_exposure for signal in signals)
    for signal in signals:
        if signal.target_exposure:
            assert np.sign(signal.target_exposure) == np.sign(signal.explanation.prediction)
    unseen = strategy_for(bundle, market, uses_memory=False, holding_bars=1)
    unseen.warm(past)
    assert play(unseen, future) == signals, "a preview changes nothing"


def test_the_confidence_of_a_model_that_is_alone_is_its_own():
    assert combine(-0.3, None) == (-1, 0.3, False)
    assert combine(2.0, None).confidence == 1.0


def test_exits_by_a_memory_that_is_not_there_are_refused():
    with pytest.raises(SettingsError, match="exits is memory"):
        MemoryTransformerSettings(uses_memory=False, exits=ExitRule.MEMORY)
