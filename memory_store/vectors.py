"""Vectors on their way in: checked, and for cosine scaled to length one, the same way for keys and for queries."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store.index import LARGEST_NORM, rescore
from memory_store.records import BankConfig, KeyArray, MemoryBankError, Metric, ScoreArray

UNIT_LENGTH: Final = 1.0001
"""Upper bound of the length of a float32 vector that was scaled to length one."""
_ONE_LENGTH: Final = np.array([UNIT_LENGTH])
_ONE_LENGTH.flags.writeable = False


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
    cosine = config.metric is Metric.COSINE
    for row, square in enumerate(squares.tolist()):
        if not square < np.inf:
            raise MemoryBankError(f"{what} {_name(row, rows)}contains a NaN or infinite number; the memory takes none")
        if cosine and square == 0.0:
            raise MemoryBankError(f"{what} {_name(row, rows)}is zero, which has no direction for cosine similarity")
        if not cosine and square > LARGEST_NORM**2:
            raise MemoryBankError(
                f"{what} {_name(row, rows)}has length {square**0.5:.3g}; the memory takes lengths up to {LARGEST_NORM:.0e}"
            )
    lengths = np.sqrt(squares)
    if not cosine:
        return rows, lengths
    scaled = (rows / lengths[:, None]).astype(np.float32)
    return scaled, _ONE_LENGTH if len(rows) == 1 else np.full(len(rows), UNIT_LENGTH)


def _name(row: int, rows: KeyArray) -> str:
    """Which row a message is about; nothing where there is only one."""
    return f"{row} " if len(rows) > 1 else ""
