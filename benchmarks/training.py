"""Training: one epoch at full size, and samples per second against the plain way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Final

import numpy as np

from benchmarks.harness import Measurement, benchmark, median_ratio, spread, take_turns
from benchmarks.market import SYMBOL, synthetic_bars
from benchmarks.naive import FEATURES, WINDOW, Floats, feature_frame, filled_memory
from benchmarks.naive_training import BATCH, PlainTrainer
from benchmarks.threads import one_thread
from strategies.bars import BarSeries
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.training import TrainingConfig, TrainingProgress, train

INTERVAL: Final = "60"
ENTRIES: Final = 100_000
EPOCH_BARS: Final = 50_000
SAMPLED_BARS: Final = 120_000
"""So many that the memory of the last fifth of them is full."""
TURNS: Final = 3
PLAIN_STEPS: Final = 3


@benchmark("epoch_50k_s", seed=31)
def measure_epoch(seed: int) -> Mapping[str, Measurement]:
    """From the first step of the first epoch to that of the second: steps, keys made anew, validation, all of it."""
    with one_thread():
        seconds, samples = _epoch(synthetic_bars(seed, INTERVAL, EPOCH_BARS), seed)
    note = (
        f"one thread, {EPOCH_BARS:,} hourly synthetic bars, of which {samples:,} are samples and the rest validation, "
        f"warm-up and embargo; default model and training, with keys made anew, validation and the choice of shrinkage"
    )
    return {"epoch_50k_s": Measurement(seconds, "s", note)}


@benchmark("train_vs_naive", seed=31)
def measure_training(seed: int) -> Mapping[str, Measurement]:
    """Samples per second of whole epochs, and of steps of the plain training, in turns."""
    with one_thread():
        series = synthetic_bars(seed, INTERVAL, SAMPLED_BARS)
        samples = 0

        def ours() -> float:
            nonlocal samples
            seconds, samples = _epoch(series, seed)
            return seconds / samples

        trainer = PlainTrainer(filled_memory(ENTRIES, seed), seed)
        windows, returns = _windows(series.slice(0, WINDOW * BATCH))
        rows = np.random.default_rng(seed)

        def naive() -> float:
            started = time.perf_counter()
            for _ in range(PLAIN_STEPS):
                chosen = rows.integers(0, len(windows), BATCH)
                trainer.step(windows[chosen], returns[chosen])
            return (time.perf_counter() - started) / (PLAIN_STEPS * BATCH)

        naive()  # The first step makes room for the optimiser's state.
        times = take_turns({"ours": ours, "naive": naive}, repetitions=TURNS, warm_up=False)
    speeds = [1.0 / each for each in times["ours"]]
    plain = 1.0 / statistics.median(times["naive"])
    note = (
        f"one thread: {statistics.median(speeds):,.0f} samples/s ({spread(speeds)}) over whole epochs of {SAMPLED_BARS:,} "
        f"hourly synthetic bars with a memory of {ENTRIES:,}, naive {plain:.0f} windows/s in steps of {BATCH} with "
        f"{ENTRIES:,} entries; {TURNS} turns"
    )
    return {"train_vs_naive": Measurement(median_ratio(times["naive"], times["ours"]), "x", note)}


def _epoch(series: BarSeries, seed: int) -> tuple[float, int]:
    """Seconds of the first epoch, with everything that ends it, and its samples."""
    begins: dict[int, float] = {}

    def note(progress: TrainingProgress) -> None:
        begins.setdefault(progress.epoch, time.perf_counter())

    config = ModelConfig(n_features=len(FEATURE_NAMES), memory_size=ENTRIES)
    trained = train({SYMBOL: series}, config, TrainingConfig(epochs=2, seed=seed), progress=note)
    return begins[2] - begins[1], trained.report.train_bars


def _windows(series: BarSeries) -> tuple[Floats, Floats]:
    """All windows of a series and the return after each, as the plain design cuts them."""
    frame = feature_frame(series.close, series.volume)
    table = frame[list(FEATURES)].to_numpy(dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(table, WINDOW, axis=0).transpose(0, 2, 1)[:-1]
    return np.ascontiguousarray(windows), table[WINDOW:, 0].copy()
