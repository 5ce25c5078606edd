"""Tasks with a known optimum: needles that a bank must find, and noise in which a model must find nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from backtest.evaluation.controls import recall
from backtest.evaluation.folds import FoldLength, walk_forward
from backtest.evaluation.model import ModelForecasters, Weights
from backtest.evaluation.panel import build_panel
from backtest.evaluation.skill import LAGS_PER_HORIZON, information_coefficient_test
from backtest.synthetic.needle import NeedleTask, needle_task
from backtest.synthetic.noise import noise_task
from benchmarks.harness import Measurement, benchmark
from memory_store import BankConfig, MemoryBank, Metric
from memory_store.records import Eviction
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.training import TrainingConfig, train

_MOMENTS: Final = 280_000
_CAPACITY: Final = 262_144
_DELAYS: Final = (1_000, 8_192, 65_536, 131_072, 250_000)
_SMALL_CAPACITY: Final = 32_768
_BEYOND: Final = (65_536, 98_304)
_SMALL_MOMENTS: Final = 110_000
_BAR_MS: Final = 60_000
_HAY: Final = 0.01
"""Standard deviation of an ordinary outcome."""

_NOISE_SEEDS: Final = 20
_NOISE_BARS: Final = 6_000
_SMALL_MODEL: Final = ModelConfig(
    n_features=len(FEATURE_NAMES),
    d_model=16,
    n_heads=2,
    n_layers=1,
    d_ff=32,
    attention_window=24,
    n_neighbors=16,
    memory_size=6_000,
    horizons=(1, 4, 8),
    embargo=12,
)


@benchmark("needle_recall_at_capacity", "needle_recall_beyond_importance", "needle_recall_beyond_fifo", seed=3)
def needle(seed: int) -> Mapping[str, Measurement]:
    """How many needles are found, up to the capacity of a bank and beyond it."""
    within = needle_task(seed, moments=_MOMENTS, delays=_DELAYS)
    beyond = needle_task(seed, moments=_SMALL_MOMENTS, delays=_BEYOND)
    found = {
        "needle_recall_at_capacity": needles_found(within, _CAPACITY, Eviction.FIFO),
        "needle_recall_beyond_importance": needles_found(beyond, _SMALL_CAPACITY, Eviction.IMPORTANCE),
        "needle_recall_beyond_fifo": needles_found(beyond, _SMALL_CAPACITY, Eviction.FIFO),
    }
    notes = {
        "needle_recall_at_capacity": f"{_CAPACITY:,} entries, asked {', '.join(f'{d:,}' for d in _DELAYS)} moments later",
        "needle_recall_beyond_importance": f"{_SMALL_CAPACITY:,} entries, kept by importance, asked "
        f"{', '.join(f'{d:,}' for d in _BEYOND)} moments later; the optimum is 1",
        "needle_recall_beyond_fifo": "the same, first in, first out, which can hold none of them",
    }
    return {
        name: Measurement(value, "recall@1", f"{notes[name]}; 20 needles of each delay, cosine of needle and cue 0.75")
        for name, value in found.items()
    }


def needles_found(task: NeedleTask, capacity: int, eviction: Eviction) -> float:
    """Share of the cues whose closest visible moment is their needle."""
    config = BankConfig(
        capacity=capacity,
        dimension=task.keys.shape[1],
        horizons=(1,),
        primary=0,
        embargo_ms=0,
        metric=Metric.COSINE,
        eviction=eviction,
        half_life_ms=0 if eviction is Eviction.FIFO else capacity * _BAR_MS,
        outcome_scale=_HAY,
    )
    bank = MemoryBank(config, encoder_version="needle")
    bank.stop_recording()
    asked: dict[int, list[int]] = {}
    for cue, moment in enumerate((task.needles + task.asked_after).tolist()):
        asked.setdefault(moment, []).append(cue)
    ids, right = np.empty(len(task.keys), dtype=np.int64), 0
    for moment, key in enumerate(task.keys):
        time = moment * _BAR_MS
        if moment:
            bank.settle(int(ids[moment - 1]), 0, float(task.outcomes[moment - 1]), time)
        for cue in asked.get(moment, ()):
            result = bank.search(task.cues[cue], as_of=time, k=1)
            right += bool(result.mask[0]) and int(result.ids[0]) == int(ids[task.needles[cue]])
        ids[moment] = bank.append(key, symbol="HAY", bar_time=time)
    return right / len(task.cues)


@benchmark("noise_max_z", "noise_pooled_z", seed=0)
def noise(seed: int) -> Mapping[str, Measurement]:
    """The largest and the pooled z of the information coefficient of models trained on noise."""
    values = np.array([noise_z(seed + number) for number in range(_NOISE_SEEDS)])
    note = (
        f"{_NOISE_SEEDS} seeds, {_NOISE_BARS:,} bars of GARCH noise each, models of width {_SMALL_MODEL.d_model}, 3 epochs, "
        f"bars after the training span, errors that allow for a lag of {LAGS_PER_HORIZON * _SMALL_MODEL.primary_horizon} bars"
    )
    return {
        "noise_max_z": Measurement(float(np.abs(values).max()), "z", note),
        "noise_pooled_z": Measurement(float(abs(values.sum()) / np.sqrt(len(values))), "z", note),
    }


def noise_z(seed: int, bars: int = _NOISE_BARS) -> float:
    """z of the information coefficient, on later bars, of a model trained on the first half of a noise series."""
    series = noise_task(seed, bars).series
    bars_by_symbol, half = {series.symbol: series}, bars // 2
    training = TrainingConfig(epochs=3, segment_blocks=2, learning_rate=3e-3, seed=seed)
    trained = train({series.symbol: series.slice(0, half)}, _SMALL_MODEL, training)
    config = trained.model.config
    panel = build_panel(bars_by_symbol, config)
    (fold,) = walk_forward(panel, int(series.open_time[half]), int(series.close_time[-1]), FoldLength.ONE)
    weights = Weights(trained.model, trained.scaler)
    memory = ModelForecasters(panel, bars_by_symbol, lambda _fold: weights).memory(panel, fold)
    answers = memory.reader(fold.test, recall(panel, fold, memory))
    outcome = panel.log_return[fold.test]
    return information_coefficient_test(answers.mean, outcome, LAGS_PER_HORIZON * config.primary_horizon).statistic
