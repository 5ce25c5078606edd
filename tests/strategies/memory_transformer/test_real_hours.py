"""The default model on real hours: trained, saved, loaded, and driven both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from strategies.bars import parse_time
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.bundle import load_bundle, save_bundle
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.settings import MemoryTransformerSettings
from strategies.memory_transformer.strategy import MemoryTransformerStrategy
from strategies.memory_transformer.training import TrainingConfig, train
from tests.strategies.markets import real_candles


@pytest.mark.slow
def test_replay_with_and_without_preview_decides_the_same_on_real_hours(real_data: Path, tmp_path: Path):
    series = real_candles(real_data, "bybit_linear_BTCUSDT_1h", "BTCUSDT")
    boundary = parse_time("2024-01-01")
    past, future = series.span(None, boundary), series.span(boundary, None).slice(0, 500)
    config = ModelConfig(n_features=len(FEATURE_NAMES))
    trained = train({"BTCUSDT": past.slice(len(past) - 6000, len(past))}, config, TrainingConfig(epochs=2))
    bundle = load_bundle(tmp_path / save_bundle(tmp_path, trained), interval="60")
    runs = []
    for preview in (False, True):
        strategy = MemoryTransformerStrategy(bundle, ("BTCUSDT",), MemoryTransformerSettings())
        strategy.warm({"BTCUSDT": past})
        if preview:
            strategy.preview({"BTCUSDT": future})
        signals = []
        for bar in future.bars():
            strategy.settle([bar])
            signals.append(strategy.on_bar(bar))
            strategy.remember([bar])
        runs.append(signals)
    assert runs[0] == runs[1]
    assert {(signal.target_exposure > 0) - (signal.target_exposure < 0) for signal in runs[0]} >= {-1, 1}
    assert all(len(signal.explanation.neighbours) == config.n_neighbors for signal in runs[0])
