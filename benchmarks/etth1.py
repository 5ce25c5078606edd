"""ETTh1, the public table: seven series of an electricity transformer by the hour, cut and scaled as everyone cuts them.

Zhou et al., "Informer" (AAAI 2021, https://doi.org/10.1609/aaai.v35i12.17325), data from ETDataset (CC BY-ND 4.0). The first
12 months of 30 days are for training, the next 4 for validation, the next 4 for the test. Every channel is scaled by the mean
and standard deviation of its training part. A window is 96 hours; it is asked for all hours up to a horizon after it. Of the
test no window is left out: dropping the last, smaller batch flatters many published figures.

To the model a channel is what a symbol is in trading: its price is the exponential of the scaled series, so that a feature is
the change over an hour, an outcome the change over a horizon, and nothing that it sees knows another channel.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness import BenchmarkSkipped
from strategies.bars import interval_ms
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Dataset, Floats, Integers, Moments, cut_blocks
from strategies.outcomes import NEVER, settled_times
from strategies.scaling import Scaler

FILE: Final = "ETTh1.csv"
LOOKBACK: Final = 96
"""Hours that a forecast may see."""
INTERVAL: Final = "60"
_MONTH: Final = 30 * 24
TRAINING_HOURS: Final = 12 * _MONTH
VALIDATION_HOURS: Final = 4 * _MONTH
TEST_HOURS: Final = 4 * _MONTH
N_FEATURES: Final = 2
"""The change over the last hour, and the level."""


@dataclass(frozen=True, slots=True, eq=False)
class PublicTable:
    """The scaled series, cut for one horizon. A window is named by the position of its last hour."""

    channels: tuple[str, ...]
    open_time: Integers
    """``[n]`` milliseconds."""
    values: Floats
    """``[n, channels]`` in standard deviations of the training part."""
    horizon: int
    """Hours after a window that are forecast, all of them."""
    training: Integers
    """Windows whose hours, and those after them, all lie in the training part."""
    validation: Integers
    """Windows of which every hour that is forecast lies in the validation part."""
    test: Integers

    @property
    def windows(self) -> Integers:
        """All windows in order of time; those between two parts belong to none, but are past to later ones."""
        return np.arange(LOOKBACK - 1, len(self.values) - self.horizon)

    def past(self, windows: Integers) -> Floats:
        """``[n, channels, LOOKBACK]`` values of windows."""
        view = np.lib.stride_tricks.sliding_window_view(self.values, LOOKBACK, axis=0)
        return view[windows - LOOKBACK + 1]

    def change(self, windows: Integers) -> Floats:
        """``[n, channels, horizon]`` what came after windows, less their last value."""
        view = np.lib.stride_tricks.sliding_window_view(self.values, self.horizon, axis=0)
        return view[windows + 1] - self.values[windows][:, :, None]


def find_file() -> Path:
    """The file in ``RECALL_TEST_DATA``, or in ``shared/data`` beside this package.

    Raises:
        BenchmarkSkipped: it is not there.
    """
    beside = Path(__file__).resolve().parents[1] / "shared" / "data"
    path = Path(os.environ.get("RECALL_TEST_DATA", beside)) / FILE
    if not path.is_file():
        raise BenchmarkSkipped(f"there is no {FILE} here; set RECALL_TEST_DATA to a folder that has it (ETDataset)")
    return path


def read_table(path: Path, horizon: int) -> PublicTable:
    """Read, cut and scale.

    Raises:
        BenchmarkSkipped: the file is not the public one.
    """
    frame = pd.read_csv(path, parse_dates=["date"])
    hours = TRAINING_HOURS + VALIDATION_HOURS + TEST_HOURS
    if len(frame) < hours or frame.shape[1] < 2:
        raise BenchmarkSkipped(f"{path} has {len(frame)} rows; the public file has 17,420 and the test needs {hours}")
    frame = frame.iloc[:hours]
    raw = frame.drop(columns="date").to_numpy(dtype=np.float64)
    opened = frame["date"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    return cut_table(tuple(frame.columns.drop("date")), opened, raw, horizon)


def cut_table(channels: tuple[str, ...], open_time: Integers, raw: Floats, horizon: int) -> PublicTable:
    """Scale by the training part and cut."""
    known = raw[:TRAINING_HOURS]
    values = (raw - known.mean(axis=0)) / known.std(axis=0)
    ends = np.arange(LOOKBACK - 1, len(values) - horizon)
    validated, tested = TRAINING_HOURS, TRAINING_HOURS + VALIDATION_HOURS
    return PublicTable(
        channels,
        open_time,
        values,
        horizon,
        ends[ends + horizon < validated],
        ends[(ends >= validated - 1) & (ends + horizon < tested)],
        ends[ends >= tested - 1],
    )


def table_dataset(table: PublicTable, config: ModelConfig, asked: Integers) -> Dataset:
    """The table as training sees a market: train on its training windows, validate on some later ones.

    Args:
        table: the series; nothing after the last asked window's horizon is used.
        config: of the model; its horizons are counted in hours and the last of them is the table's.
        asked: windows in place of the validation part.
    """
    hours = int(asked[-1]) + table.horizon + 1
    values = table.values[:hours]
    count, channels = values.shape
    changes = np.diff(values, axis=0, prepend=values[:1])
    features = np.stack((changes, values), axis=2)
    in_training = np.zeros((count, channels), dtype=np.bool_)
    in_training[table.training] = True
    length = interval_ms(INTERVAL)
    close_time = table.open_time[:hours] + length
    moments = _moments(values, changes, close_time, config, sqrt(float(changes[:TRAINING_HOURS].var())))
    # Moments are in order of time and within an hour in order of channels, so hour h of channel c is row h * channels + c.
    place = np.arange(count * channels).reshape(count, channels)
    scaler = Scaler.fit(features[in_training])
    blocks = tuple(
        cut_blocks(scaler.transform(features[:, channel]), place[:, channel], 0, config.block)
        for channel in range(channels)
    )
    outcome_scale = moments.outcomes[in_training.ravel()].std(axis=0)
    return Dataset(
        blocks,
        moments,
        place[table.training].ravel(),
        place[asked].ravel(),
        scaler,
        outcome_scale,
        table.channels,
        INTERVAL,
        (int(table.open_time[0]), int(close_time[-1])),
        (int(table.open_time[asked[0]]), int(close_time[-1])),
    )


def _moments(values: Floats, changes: Floats, close_time: Integers, config: ModelConfig, volatility: float) -> Moments:
    """One row per hour and channel, as a memory appends them."""
    count, channels = values.shape
    horizons = config.horizons
    outcomes = np.full((count, channels, len(horizons)), np.nan)
    realised = outcomes.copy()
    squares = np.concatenate((np.zeros((1, channels)), np.cumsum(changes**2, axis=0)))
    for column, horizon in enumerate(horizons):
        outcomes[:-horizon, :, column] = values[horizon:] - values[:-horizon]
        realised[:-horizon, :, column] = np.sqrt(squares[horizon + 1 :] - squares[1:-horizon])
    settled = np.broadcast_to(settled_times(close_time, horizons)[:, None], outcomes.shape)
    unit = volatility * sqrt(config.primary_horizon)
    target = np.nan_to_num(outcomes[:, :, config.primary]) / unit
    ready = np.repeat(np.arange(count) >= LOOKBACK - 1, channels)
    return Moments(
        np.repeat(close_time, channels),
        ready,
        outcomes.reshape(count * channels, -1),
        settled.reshape(count * channels, -1),
        target.ravel().astype(np.float32),
        np.full(count * channels, unit),
        realised.reshape(count * channels, -1),
    )


def known_only(moments: Moments, until: int) -> npt.NDArray[np.bool_]:
    """``[n]`` which moments' outcomes over all horizons were known by a time in milliseconds."""
    known: npt.NDArray[np.bool_] = moments.settled.max(axis=1) <= min(until, NEVER - 1)
    return known
