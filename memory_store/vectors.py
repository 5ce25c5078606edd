"""Vectors on their way in: checked, and for cosine scaled to length one, the same way for keys and for queries."""

from __future__ import annotations

from math import inf, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store.index import LARGEST_NORM, rescore
from memory_store.records import BankConfig, KeyArray, MemoryBankError, Metric, ScoreArray

UNIT_LENGTH: Final = 1.0001
"""Upper bound of the length of a float32 vector that was scaled to length one."""


def prepare(vectors: npt.ArrayLike, config: BankConfig, what: str) -> tuple[KeyArray, ScoreArray]:
    """Rows as they are stored and searched, and upper bounds of their lengths.

    Every row is the same to the last bit however many are prepared at once.

    Args:
        vectors: ``[n, dimension]``.
        config: gives the dimension and the metric.
        what: "key" or "query", for messages.

    Raises:
        MemoryBankError: a row is of another dimension, not finite, too long, or for cosine zero.
    """
    rows: KeyArray = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != config.dimension:
        raise MemoryBankError(f"{what} has shape {rows.shape[1:]}; this memory takes vectors of {config.dimension}")
    squares = rescore(rows, rows)
    for row, square in enumerate(squares.tolist()):
        _check_length(square, config, f"{what} {row}" if len(rows) > 1 else what)
    lengths = np.sqrt(squares)
    if config.metric is not Metric.COSINE:
        return rows, lengths
    return (rows / lengths[:, None]).astype(np.float32), np.full(len(rows), UNIT_LENGTH)


def prepare_one(vector: npt.ArrayLike, config: BankConfig, what: str) -> tuple[KeyArray, float]:
    """The same of one vector, ``[dimension]``, with the same bits, in half the time of a block of one."""
    row: KeyArray = np.asarray(vector, dtype=np.float32)
    if row.shape != (config.dimension,):
        raise MemoryBankError(f"{what} has shape {row.shape}; this memory takes vectors of {config.dimension}")
    square = float(rescore(row[None], row)[0])
    _check_length(square, config, what)
    length = sqrt(square)
    if config.metric is not Metric.COSINE:
        return row, length
    return np.divide(row, length, dtype=np.float64).astype(np.float32), UNIT_LENGTH


def _check_length(square: float, config: BankConfig, what: str) -> None:
    """Refuse a vector by the square of its length."""
    if not square < inf:
        raise MemoryBankError(f"{what} contains a NaN or infinite number; the memory takes none")
    if config.metric is Metric.COSINE:
        if square == 0.0:
            raise MemoryBankError(f"{what} is zero, which has no direction for cosine similarity")
    elif square > LARGEST_NORM**2:
        raise MemoryBankError(f"{what} has length {square**0.5:.3g}; the memory takes lengths up to {LARGEST_NORM:.0e}")
