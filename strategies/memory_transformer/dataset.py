"""What training sees of a span of bars: blocks of scaled features, targets, and one table of moments in order of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.bars import BarSeries, format_time, interval_ms
from strategies.errors import StrategyError
from strategies.features import feature_matrix
from strategies.memory_transformer.config import ModelConfig
from strategies.outcomes import (
    NEVER,
    outcome_matrix,
    realised_volatility_matrix,
    settled_times,
    trailing_volatility,
)
from strategies.scaling import Scaler

TARGET_LIMIT: Final = 10.0
"""Targets beyond this many volatilities are cut: after a market that stood still any move looks endless."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class TrainingError(StrategyError):
    """Training cannot work with what it was given, in one sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class SymbolBlocks:
    """The bars of one symbol, cut into the encoder's blocks."""

    features: npt.NDArray[np.float32]
    """``[blocks, block, n_features]`` scaled; rows outside the series are zeros."""
    offset: int
    """Row of the first bar in the first block."""
    rows: Integers
    """``[blocks, block]`` row of every bar in the :class:`Moments` table; -1 where there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """One row per symbol and bar, in the order in which a memory appends them: by close time, then by symbol."""

    close_time: Integers
    """``[n]`` milliseconds, not decreasing."""
    has_key: Flags
    """``[n]`` false for the first bars of a symbol, whose key would depend on where the history begins."""
    outcomes: Floats
    """``[n, horizons]`` log returns; nan where the span ends before."""
    settled: Integers
    """``[n, horizons]`` milliseconds; ``NEVER`` where the span ends before."""
    target: npt.NDArray[np.float32]
    """``[n]`` outcome of the primary horizon over its volatility, ``r / (sigma_t * sqrt(h))``; 0 where not known."""
    volatility: Floats
    """``[n]`` volatility of the log return over the primary horizon, ``sigma_t * sqrt(h)``."""
    realised: Floats
    """``[n, horizons]`` realised volatility over every horizon after the bar; nan where the span ends before."""

    def __len__(self) -> int:
        return len(self.close_time)

    def of(self, rows: Integers) -> Moments:
        """Those of some rows, in their order."""
        return Moments(*(getattr(self, each.name)[rows] for each in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Everything that training takes from the bars. Statistics are those of the training part alone."""

    blocks: tuple[SymbolBlocks, ...]
    moments: Moments
    train: Integers
    """Rows of ``moments`` that are trained on; their outcomes are known before the validation part begins."""
    validation: Integers
    """Rows that are validated on: the tail of the span."""
    scaler: Scaler
    outcome_scale: Floats
    """``[horizons]`` standard deviation of outcomes over the training rows."""
    symbols: tuple[str, ...]
    interval: str
    span: tuple[int, int]
    """First open time and last close time of the bars."""
    validation_span: tuple[int, int] | None
    """First open time and last close time of the validation part."""
    remembered: Floats | None = None
    """``[n, horizons]`` what the memory says instead of the moments' own outcomes, for controls; targets stay what they are."""


def build_dataset(series: Mapping[str, BarSeries], config: ModelConfig, validation_fraction: float) -> Dataset:
    """Features, targets and parts of a training span.

    The last ``validation_fraction`` of the time is for validation. A training row's primary outcome is known, and the
    embargo over, before the first validation bar opens.

    Raises:
        TrainingError: the bars are too few, do not move, or mix intervals.
    """
    interval = _interval(series)
    names = tuple(name for name in series if len(series[name]))
    tables = [_symbol_table(series[name], config) for name in names]
    features = [table.features for table in tables]
    moments, positions = _merge(tables, config)
    usable = moments.has_key & (moments.settled[:, config.primary] < NEVER)
    embargo = config.embargo * interval_ms(interval)
    boundary = _validation_start(moments.close_time[usable], validation_fraction)
    bar_length = interval_ms(interval)
    in_training = usable & (moments.settled[:, config.primary] + embargo <= boundary - bar_length)
    train = np.flatnonzero(in_training)
    validation = np.flatnonzero(usable & (moments.close_time >= boundary))
    _check_enough(series, config, len(train), len(validation), validation_fraction)

    outcome_scale = np.nanstd(np.where(in_training[:, None], moments.outcomes, np.nan), axis=0)
    if not (outcome_scale > 0.0).all():
        raise TrainingError(f"prices of {', '.join(names)} do not move in the training span; train on other bars")
    fitted = [matrix[in_training[rows]] for matrix, rows in zip(features, positions, strict=True)]
    scaler = Scaler.fit(np.concatenate(fitted))
    blocks = tuple(
        cut_blocks(scaler.transform(matrix), rows, series[name].first_ordinal % config.block, config.block)
        for name, matrix, rows in zip(names, features, positions, strict=True)
    )
    start = min(int(series[name].open_time[0]) for name in names)
    end = int(moments.close_time[-1])
    validation_span = (boundary - bar_length, end) if len(validation) else None
    return Dataset(
        blocks, moments, train, validation, scaler, outcome_scale, names, interval, (start, end), validation_span
    )


@dataclass(frozen=True, slots=True, eq=False)
class _SymbolTable:
    features: Floats
    close_time: Integers
    outcomes: Floats
    settled: Integers
    volatility: Floats
    realised: Floats


def _interval(series: Mapping[str, BarSeries]) -> str:
    intervals = {bars.interval for bars in series.values()}
    if len(intervals) != 1:
        raise TrainingError(
            f"one model is trained on one interval, but the bars given have {sorted(intervals) or 'none'}; choose one"
        )
    return intervals.pop()


def _symbol_table(series: BarSeries, config: ModelConfig) -> _SymbolTable:
    features = feature_matrix(series)
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        time = format_time(int(series.open_time[broken[0]]))
        raise TrainingError(f"{series.symbol}: a feature of the bar at {time} is not finite; check the stored candles")
    return _SymbolTable(
        features,
        series.close_time,
        outcome_matrix(series.close, config.horizons),
        settled_times(series.close_time, config.horizons),
        trailing_volatility(features) * sqrt(config.primary_horizon),
        realised_volatility_matrix(series.close, config.horizons),
    )


def _merge(tables: list[_SymbolTable], config: ModelConfig) -> tuple[Moments, list[Integers]]:
    """All bars in order of close time, and where the bars of every symbol went."""
    lengths = [len(table.close_time) for table in tables]
    if not sum(lengths):
        raise TrainingError("there are no bars to train on; fetch candles for the span first")
    close_time = np.concatenate([table.close_time for table in tables])
    order = np.lexsort((np.repeat(np.arange(len(tables)), lengths), close_time))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    outcomes = np.concatenate([table.outcomes for table in tables])[order]
    volatility = np.concatenate([table.volatility for table in tables])[order]
    primary = np.nan_to_num(outcomes[:, config.primary])
    moments = Moments(
        close_time=close_time[order],
        has_key=np.concatenate([np.arange(length) >= config.warmup - 1 for length in lengths])[order],
        outcomes=outcomes,
        settled=np.concatenate([table.settled for table in tables])[order],
        target=np.clip(primary / volatility, -TARGET_LIMIT, TARGET_LIMIT).astype(np.float32),
        volatility=volatility,
        realised=np.concatenate([table.realised for table in tables])[order],
    )
    return moments, np.split(place, np.cumsum(lengths)[:-1])


def _validation_start(close_time: Integers, fraction: float) -> int:
    """Close time of the first validation bar: the last ``fraction`` of the moments close then or later."""
    if not len(close_time):
        return NEVER
    first = round(len(close_time) * (1.0 - fraction))
    return NEVER if first >= len(close_time) else int(close_time[first])


def _check_enough(
    series: Mapping[str, BarSeries], config: ModelConfig, train: int, validation: int, fraction: float
) -> None:
    if train and (validation or fraction == 0.0):
        return
    # The gap between the parts costs horizon and embargo twice: before validation, and before the end of the span.
    needed = config.warmup + 2 * (config.primary_horizon + config.embargo) + 2 * config.block
    most = max(len(bars) for bars in series.values())
    raise TrainingError(
        f"{most} bars are too few to train on: with horizon {config.primary_horizon} and embargo {config.embargo} "
        f"give at least {needed} bars of one symbol"
    )


def cut_blocks(features: npt.NDArray[np.float32], rows: Integers, offset: int, block: int) -> SymbolBlocks:
    """Pad a series to whole blocks that are aligned to absolute bar numbers.

    Args:
        features: ``[n, n_features]``, scaled.
        rows: ``[n]`` places of the bars in the moments table.
        offset: row of the first bar in its block.
        block: bars of a block.
    """
    count = -(-(offset + len(features)) // block)
    padded = np.zeros((count * block, features.shape[1]), dtype=np.float32)
    padded[offset : offset + len(features)] = features
    places = np.full(count * block, -1, dtype=np.int64)
    places[offset : offset + len(rows)] = rows
    return SymbolBlocks(padded.reshape(count, block, -1), offset, places.reshape(count, block))
