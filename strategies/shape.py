"""The shape of the recent market as a vector: what the similarity strategy compares moments by.

Fixed arithmetic on features, nothing fitted: it is the same for every symbol, interval and span of history, and it
works without training. Returns and trends are in units of the market's own volatility, so that a quiet month and a wild
one can look alike. Only element-wise arithmetic is used, so a bar has the same key to the last bit alone and in bulk.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.features import FEATURE_NAMES, FEATURE_SET, FEATURE_WARMUP, LOG_RETURN_FEATURE
from strategies.outcomes import trailing_volatility

SHAPE_WINDOW: Final = 24
"""Log returns in a shape, the bar's own included."""
SHAPE_WARMUP: Final = FEATURE_WARMUP + SHAPE_WINDOW - 1
"""Bars until a bar has a shape that no longer depends on where the history began."""

RETURN_LIMIT: Final = 4.0
"""A single return counts for at most this many volatilities."""

_CONTEXT: Final[tuple[tuple[str, float, float], ...]] = (
    # name, value in an ordinary market, weight; together about as long as the returns
    ("trend_4", 0.0, 1.5),
    ("trend_12", 0.0, 1.5),
    ("trend_24", 0.0, 1.5),
    ("trend_72", 0.0, 1.5),
    ("trend_168", 0.0, 1.5),
    ("volatility_ratio", 1.0, 4.0),
    ("volume_zscore", 0.0, 1.0),
    ("close_location", 0.0, 1.0),
    # Never both zero, so that no key is.
    ("time_of_day_sin", 0.0, 1.0),
    ("time_of_day_cos", 0.0, 1.0),
)
_COLUMNS: Final = np.array([FEATURE_NAMES.index(name) for name, _, _ in _CONTEXT])
_ORDINARY: Final = np.array([ordinary for _, ordinary, _ in _CONTEXT])
_WEIGHTS: Final = np.array([weight for _, _, weight in _CONTEXT])

SHAPE_DIMENSION: Final = SHAPE_WINDOW + len(_CONTEXT)
_DEFINITION: Final = repr((SHAPE_WINDOW, RETURN_LIMIT, _CONTEXT, FEATURE_SET))
SHAPE_VERSION: Final = "shape-1:" + hashlib.sha256(_DEFINITION.encode()).hexdigest()
"""Names this definition of the key; shapes of another one must never be compared with these."""


def shape_keys(
    features: npt.NDArray[np.float64], earlier_returns: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float32]:
    """Keys of the bars whose window is complete, ``[m, SHAPE_DIMENSION]``.

    Args:
        features: ``[n, F]`` of consecutive bars of one symbol.
        earlier_returns: log returns of the bars right before them; without any, the first ``SHAPE_WINDOW - 1`` bars
            have no key.
    """
    returns = features[:, LOG_RETURN_FEATURE]
    if earlier_returns is not None:
        returns = np.concatenate((earlier_returns[-(SHAPE_WINDOW - 1) :], returns))
    if len(returns) < SHAPE_WINDOW:
        return np.empty((0, SHAPE_DIMENSION), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(returns, SHAPE_WINDOW)
    return _assemble(windows, features[len(features) - len(windows) :])


def shape_key(returns: npt.NDArray[np.float64], features: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Key of one bar, ``[SHAPE_DIMENSION]``, bit for bit the row of ``shape_keys``.

    Args:
        returns: ``[SHAPE_WINDOW]`` log returns, the bar's own last.
        features: ``[F]`` of the bar.
    """
    key: npt.NDArray[np.float32] = _assemble(returns[None], features[None])[0]
    return key


def _assemble(windows: npt.NDArray[np.float64], features: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Keys ``[m, SHAPE_DIMENSION]`` from returns ``[m, SHAPE_WINDOW]`` and features ``[m, F]``, element by element."""
    keys = np.empty((len(windows), SHAPE_DIMENSION), dtype=np.float32)
    scaled = windows / trailing_volatility(features)[:, None]
    keys[:, :SHAPE_WINDOW] = np.clip(scaled, -RETURN_LIMIT, RETURN_LIMIT)
    keys[:, SHAPE_WINDOW:] = (features[:, _COLUMNS] - _ORDINARY) * _WEIGHTS
    return keys
