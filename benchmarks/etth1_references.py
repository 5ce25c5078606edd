"""What plain arithmetic reaches on the public table: a linear map of the window, and one that also sees what followed others.

Both forecast the change since the last value, for all channels with the same weights, and are ridge regressions whose penalty
is chosen on the validation part. They show how much of a model's figure needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from benchmarks.etth1 import LOOKBACK, PublicTable
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Dataset, Floats, Integers
from strategies.memory_transformer.span_memory import Rows, find_neighbours, visibility_rule

PENALTIES: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TEMPERATURE: Final = 0.1
"""Of the softmax over correlations (Han et al., "RAFT", ICML 2025)."""
_CHUNK: Final = 4096


def linear_errors(table: PublicTable) -> Floats:
    """Squared errors ``[test windows]``, mean over channels and hours, of a linear map of the window less its last value."""
    parts = [_windows(table, asked) for asked in (table.training, table.validation, table.test)]
    return _ridge_errors(table, parts)


def retrieval_errors(table: PublicTable, dataset: Dataset, config: ModelConfig) -> Floats:
    """As :func:`linear_errors`, of a linear map of the window and of what followed the windows most like it.

    Alike is what correlates; a window asks its own channel, and finds only those whose hours were all over by then, up to the
    last hour before it also in the test part. No weight is changed there.

    Args:
        table: the series.
        dataset: of the whole table, whose memory is asked.
        config: how many neighbours, and when they may be found.
    """
    keys = _correlation_keys(table, len(dataset.moments))
    parts = []
    for asked in (table.training, table.validation, table.test):
        recalled = _recalled(table, asked, keys, dataset, config)
        parts.append(np.concatenate((_windows(table, asked), recalled), axis=2))
    return _ridge_errors(table, parts)


def _windows(table: PublicTable, asked: Integers) -> Floats:
    """``[n, channels, LOOKBACK]`` windows less their last value."""
    past = table.past(asked)
    return past - past[:, :, -1:]


def _correlation_keys(table: PublicTable, rows: int) -> Rows:
    """``[rows, LOOKBACK]`` keys whose cosine is the correlation of two windows, in the order of the moments."""
    past = table.past(np.arange(LOOKBACK - 1, len(table.values)))
    past = past - past.mean(axis=2, keepdims=True)
    past /= np.maximum(np.linalg.norm(past, axis=2, keepdims=True), 1e-9)
    keys = np.zeros((len(table.values), len(table.channels), LOOKBACK), dtype=np.float32)
    keys[LOOKBACK - 1 :] = past
    return keys.reshape(-1, LOOKBACK)[:rows]


def _recalled(table: PublicTable, asked: Integers, keys: Rows, dataset: Dataset, config: ModelConfig) -> Floats:
    """``[n, channels, horizon]`` weighted mean of what followed the neighbours of windows; 0 where there is none."""
    channels = len(table.channels)
    queries = (asked[:, None] * channels + np.arange(channels)).ravel()
    found = find_neighbours(keys, dataset, queries, visibility_rule(dataset, config), config)
    recalled = np.zeros((len(queries), table.horizon))
    for start in range(0, len(queries), _CHUNK):
        part = slice(start, start + _CHUNK)
        rows, mask = found.rows[part], found.mask[part]
        alike = np.einsum("qd,qkd->qk", keys[queries[part]], keys[rows], dtype=np.float64)
        weights = np.where(mask, np.exp((alike - 1.0) / TEMPERATURE), 0.0)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        came = np.where(mask[:, :, None], dataset.moments.outcomes[rows], 0.0)
        recalled[part] = np.einsum("qk,qkh->qh", weights, came)
    return recalled.reshape(len(asked), channels, -1)


def _ridge_errors(table: PublicTable, parts: Sequence[Floats]) -> Floats:
    """Fit on the first of three parts, choose the penalty on the second, and give the errors on the third."""
    training, validation, test = parts
    wanted = table.change(table.training)
    columns, targets = training.reshape(-1, training.shape[2]), wanted.reshape(-1, table.horizon)
    gram, cross = columns.T @ columns / len(columns), columns.T @ targets / len(columns)
    fits = [np.linalg.solve(gram + penalty * np.eye(len(gram)), cross) for penalty in PENALTIES]
    losses = [_errors(table, table.validation, validation @ weights).mean() for weights in fits]
    return _errors(table, table.test, test @ fits[int(np.argmin(losses))])


def _errors(table: PublicTable, asked: Integers, forecast: Floats) -> Floats:
    """Squared errors of windows, ``[n]``, mean over channels and hours."""
    errors: Floats = np.square(forecast - table.change(asked)).mean(axis=(1, 2))
    return errors
