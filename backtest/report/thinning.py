"""Fewer points than there are, without losing a peak or a trough."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.bars import FloatArray

MOST_POINTS: Final = 4000


def thin_out(values: FloatArray, most: int = MOST_POINTS) -> npt.NDArray[np.intp]:
    """Positions of at most ``most`` points that keep the shape of a curve: first, last, and each stretch's extremes.

    Args:
        values: the curve, ``[n]``.
        most: at least 4.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    stretches = (most - 2) // 2
    length = -(-count // stretches)
    padded = np.concatenate((values, np.full(length * (-(-count // length)) - count, values[-1])))
    rows = padded.reshape(-1, length)
    starts = np.arange(len(rows)) * length
    picked = np.concatenate(([0, count - 1], starts + rows.argmin(axis=1), starts + rows.argmax(axis=1)))
    return np.unique(np.minimum(picked, count - 1))
