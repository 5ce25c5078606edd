"""Small markets for the protocol: noise with clustered volatility, in which nobody can know a direction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backtest.evaluation.folds import Fold, FoldLength, walk_forward
from backtest.evaluation.panel import Panel, build_panel
from backtest.synthetic.noise import noise_task
from strategies.bars import BarSeries
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.config import ModelConfig

HORIZON = 6
CONFIG = ModelConfig(
    n_features=len(FEATURE_NAMES),
    d_model=8,
    n_heads=2,
    n_layers=1,
    attention_window=8,
    block=16,
    horizons=(1, HORIZON),
    primary=1,
    embargo=12,
    memory_size=4000,
)
BARS = 3600
TRAIN_BARS = 2400


def noise(seed: int = 1, bars: int = BARS) -> dict[str, BarSeries]:
    """Two symbols that have nothing to do with each other."""
    names = ("AUSDT", "BUSDT")
    return {name: noise_task(10 * seed + number, bars, symbol=name).series for number, name in enumerate(names)}


def panel_of(series: dict[str, BarSeries]) -> Panel:
    return build_panel(series, CONFIG)


def one_fold(panel: Panel, bars: int = BARS) -> Fold:
    """Learn from the first ``TRAIN_BARS`` bars, forecast the rest up to a number of bars."""
    start = int(panel.open_time[0])
    boundary, end = (start + count * panel.interval_ms for count in (TRAIN_BARS, bars))
    (fold,) = walk_forward(panel, boundary, end, FoldLength.ONE)
    return fold


def with_other_future(series: dict[str, BarSeries], cut: int, seed: int = 99) -> dict[str, BarSeries]:
    """The same bars, but for those from number ``cut`` on."""
    others = noise(seed, len(next(iter(series.values()))))
    columns = ("open", "high", "low", "close", "volume")
    changed = {}
    for name, bars in series.items():
        scale = 3.0 * float(bars.close[cut - 1]) / float(others[name].close[cut])
        parts = {}
        for column in columns:
            later = getattr(others[name], column)[cut:] * (1.0 if column == "volume" else scale)
            parts[column] = np.concatenate((getattr(bars, column)[:cut], later))
        changed[name] = replace(bars, **parts)
    return changed
