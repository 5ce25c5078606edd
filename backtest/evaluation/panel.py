"""What every forecaster is given, and what came: one row per symbol and bar in the order of a memory's moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backtest.evaluation.metrics import expanding_mean
from strategies.bars import BarSeries, interval_ms
from strategies.features import feature_matrix
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Floats, Integers, Moments, build_dataset
from strategies.memory_transformer.retrieval import VisibilityRule
from strategies.outcomes import SMALLEST_VOLATILITY, realised_volatility_matrix


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Rows of all symbols by close time, then by symbol."""

    symbols: tuple[str, ...]
    interval: str
    horizon: int
    """Bars over which outcomes are forecast: the primary horizon."""
    rule: VisibilityRule
    """When an outcome may be used, by any forecaster: that of the memory."""
    moments: Moments
    symbol: Integers
    """``[n]`` place in ``symbols``."""
    open_time: Integers
    """``[n]`` milliseconds."""
    close: Floats
    """``[n]`` price."""
    features: Floats
    """``[n, F]`` as they are, not scaled."""
    log_return: Floats
    """``[n]`` over the horizon; nan where the bars end before."""
    log_volatility: Floats
    """``[n]`` logarithm of the realised volatility over the horizon, in the unit of the return; nan as above."""
    step_return: Floats
    """``[n]`` simple return from the next bar's open to the open after it, which is what an order of this bar's close can
    earn next; nan where there is none."""
    visible_from: Integers
    """``[n]`` milliseconds; when a row's outcome may be used. ``NEVER`` for rows without a key or an outcome."""
    past_return: Floats
    """``[n]`` mean of the symbol's returns that were visible at the row's close; nan before the first."""
    past_log_volatility: Floats
    """``[n]`` the same of log volatilities."""

    @property
    def interval_ms(self) -> int:
        """Length of a bar."""
        return interval_ms(self.interval)

    def rows_of(self, symbol: int) -> Integers:
        """Rows of one symbol, in order."""
        return np.flatnonzero(self.symbol == symbol)


def build_panel(series: Mapping[str, BarSeries], config: ModelConfig) -> Panel:
    """The panel of some bars; horizons, warm-up, embargo and capacity are those of the model.

    Raises:
        TrainingError: the bars are too few, do not move, or mix intervals.
    """
    dataset = build_dataset(series, config, 0.0)
    moments, count = dataset.moments, len(dataset.moments)
    embargo_ms = config.embargo * interval_ms(dataset.interval)
    rule = VisibilityRule(config.primary, embargo_ms, config.memory_size)
    features = np.empty((count, config.n_features))
    symbol, open_time = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    close, realised, step_return = np.empty(count), np.empty(count), np.full(count, np.nan)
    for number, (name, blocks) in enumerate(zip(dataset.symbols, dataset.blocks, strict=True)):
        bars, rows = series[name], blocks.rows[blocks.rows >= 0]
        features[rows] = feature_matrix(bars)
        symbol[rows], open_time[rows], close[rows] = number, bars.open_time, bars.close
        realised[rows] = realised_volatility_matrix(bars.close, (config.primary_horizon,))[:, 0]
        step_return[rows[:-2]] = bars.open[2:] / bars.open[1:-1] - 1.0
    log_return = moments.outcomes[:, config.primary]
    log_volatility = np.log(np.maximum(realised, SMALLEST_VOLATILITY * np.sqrt(config.primary_horizon)))
    visible_from = rule.visible_from(moments)
    return Panel(
        symbols=dataset.symbols,
        interval=dataset.interval,
        horizon=config.primary_horizon,
        rule=rule,
        moments=moments,
        symbol=symbol,
        open_time=open_time,
        close=close,
        features=features,
        log_return=log_return,
        log_volatility=log_volatility,
        step_return=step_return,
        visible_from=visible_from,
        past_return=expanding_mean(log_return, visible_from, moments.close_time, symbol),
        past_log_volatility=expanding_mean(log_volatility, visible_from, moments.close_time, symbol),
    )
