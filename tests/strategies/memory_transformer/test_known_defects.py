"""Defects of the specification's code that no other test would notice if they came back; see docs/defects.md for all."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.replay import replay
from bot.execution.fills import Costs
from bot.market.bybit_decode import decode_klines
from memory_store import BankConfig, MemoryBank, Metric
from memory_store.vectors import prepare
from strategies.bars import HOUR_MS, BarSeries, Calendar
from strategies.base import Strategy
from strategies.features import feature_matrix
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.dataset import TARGET_LIMIT, build_dataset
from strategies.memory_transformer.settings import MemoryTransformerSettings
from strategies.memory_transformer.strategy import MemoryTransformerStrategy
from strategies.memory_transformer.symbol_state import SymbolState
from strategies.similarity import SimilaritySettings, SimilarityStrategy
from tests.bot.scenes import engine_of
from tests.strategies.markets import batches, random_walk
from tests.strategies.memory_transformer.tiny import TINY

SETTINGS = MemoryTransformerSettings(entry_threshold=0.05, minimum_neighbors=4)
NAME = "AAAUSDT"


def rows_of(series: BarSeries) -> list[list[str]]:
    """A kline reply: text, newest first."""
    columns = (
        series.open_time.tolist(),
        *(getattr(series, c).tolist() for c in ("open", "high", "low", "close", "volume")),
    )
    return [[str(value) for value in row] for row in zip(*columns, strict=True)][::-1]


def test_defect_1_rows_that_come_newest_first_make_the_features_of_sorted_rows() -> None:
    series = random_walk(300, 4)
    now = int(series.close_time[-1])
    newest_first = rows_of(series)
    decoded = [
        decode_klines(rows, NAME, "60", Calendar.CONTINUOUS, now, "here") for rows in (newest_first, newest_first[::-1])
    ]
    assert decoded[0] == decoded[1] == list(series.bars())
    again = BarSeries.of(decoded[0], "60")
    assert np.array_equal(feature_matrix(again), feature_matrix(series))


def test_defect_2_a_candle_that_still_forms_is_no_bar() -> None:
    series = random_walk(5, 4)
    before_the_last_close = int(series.close_time[-1]) - 1
    bars = decode_klines(rows_of(series), NAME, "60", Calendar.CONTINUOUS, before_the_last_close, "here")
    assert bars == list(series.bars())[:-1]


def test_defect_8_the_head_is_trained_on_the_outcome_that_the_memory_stores() -> None:
    moments = build_dataset({NAME: random_walk(900, 3)}, TINY, 0.2).moments
    stored = np.clip(moments.outcomes[:, TINY.primary] / moments.volatility, -TARGET_LIMIT, TARGET_LIMIT)
    known = ~np.isnan(stored)
    assert known.sum() > 800
    np.testing.assert_allclose(moments.target[known], stored[known], rtol=1e-6)


def test_defects_14_15_and_17_an_outcome_cannot_land_in_another_place_and_is_unknown_until_it_is_settled() -> None:
    bank = MemoryBank(BankConfig(10, 2, (1, 4), 0, 0, Metric.COSINE), encoder_version="v1")
    with pytest.raises(TypeError):
        bank.append([1.0, 0.0], 0.03)  # type: ignore[misc, call-arg]
    entry = bank.append([1.0, 0.0], symbol=NAME, bar_time=0)
    assert bank.search([1.0, 0.0], as_of=10**9, k=3).count == 0
    bank.settle(entry, 0, 0.03, HOUR_MS)
    found = bank.search([1.0, 0.0], as_of=10**9, k=3)
    assert found.outcomes[0, 0] == 0.03
    assert np.isnan(found.outcomes[0, 1]), "not 0, which would be a vote for no change"


def test_defects_16_23_and_31_a_key_is_written_with_the_bits_that_asked(bundle: Bundle) -> None:
    """One key per bar, from one function that knows neither memory nor dropout."""
    series = random_walk(400, 6)
    strategy = MemoryTransformerStrategy(bundle, (NAME,), SETTINGS)
    play(strategy, series)
    asking = SymbolState(BarKernel(bundle.model.encoder), bundle.scaler)
    written = 0
    for bar in series.bars():
        encoded = asking.observe(bar).encoded
        entry = strategy.bank.find(NAME, bar.open_time)
        assert (encoded is None) == (entry is None)
        if encoded is not None and entry is not None:
            assert encoded.key.shape == (TINY.d_model,)
            (asked_with,), _ = prepare([encoded.key], strategy.bank.config, "query")
            assert np.array_equal(strategy.bank.entry(entry).key, asked_with)
            written += 1
    assert written == len(series) - TINY.warmup + 1


def play(strategy: Strategy, series: BarSeries) -> list[float | None]:
    targets = []
    for batch in batches({series.symbol: series}):
        strategy.settle(batch)
        targets += [strategy.on_bar(bar).target_exposure for bar in batch]
        strategy.remember(batch)
    return targets


def test_defects_24_and_46_what_is_replayed_is_the_model_with_a_memory_that_grows(bundle: Bundle) -> None:
    series = random_walk(500, 9)
    strategy = MemoryTransformerStrategy(bundle, (NAME,), SETTINGS)
    strategy.warm({NAME: series.slice(0, 300)})
    held = len(strategy.bank)
    result = replay(
        engine_of(strategy, NAME, costs=Costs()), {NAME: series.slice(300, 500)}, trades=[], keep_all_decisions=True
    )
    assert len(strategy.bank) == held + 200
    explained = [decision.signal.explanation for decision in result.decisions]
    assert all(explanation is not None and explanation.gate is not None for explanation in explained)
    newest = max(n.bar_open_time for e in explained if e is not None for n in e.neighbours)
    assert newest >= int(series.open_time[300]), "moments of the replay itself answer once they have matured"


def test_defect_36_noise_seldom_passes_the_threshold_of_the_vote() -> None:
    """Ten votes of which seven agree come by chance 11 % of the time; in three clusters of one time each, 61 %."""
    settings = SimilaritySettings(memory_size=2_000, n_neighbors=10, minimum_neighbors=8)
    asked = passed = 0
    for seed in range(4):
        series = random_walk(1_100, 40 + seed)
        strategy = SimilarityStrategy((NAME,), "60", settings)
        strategy.warm({NAME: series.slice(0, 600)})
        targets = [target for target in play(strategy, series.slice(600, 1_100)) if target is not None]
        asked += len(targets)
        passed += sum(target != 0.0 for target in targets)
    assert asked == 2_000
    assert 0 < passed < settings.significance * asked


def test_defect_37_a_confidence_is_a_share_not_a_sum_of_returns(bundle: Bundle) -> None:
    series = random_walk(420, 12)
    strategy = MemoryTransformerStrategy(bundle, (NAME,), SETTINGS)
    targets = [target for target in play(strategy, series) if target]
    assert len(targets) > 50
    assert all(-1.0 <= target <= 1.0 for target in targets)
    assert float(np.median(np.abs(targets))) > 0.02, "returns of 0.003 would make positions of 0.3 %"
