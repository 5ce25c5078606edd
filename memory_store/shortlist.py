"""The nearest of a few slots that are already named."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from memory_store.records import IntArray, KeyArray

_Floats = npt.NDArray[np.floating[Any]] | float

_ROWS: Final = 16384
_LOWEST: Final = np.finfo(np.float32).min


def shortlist(keys: KeyArray, slots: IntArray, query: KeyArray, k: int, margin: float) -> IntArray:
    """Those of some slots among which the ``k`` nearest of them are, by a float32 scan of their keys alone.

    Args:
        keys: ``[size, d]``.
        slots: ``[m]``, each at most once.
        query: ``[d]``.
        k: neighbours wanted.
        margin: from ``scan_margin``, so that a rounded score never drops a neighbour.
    """
    if len(slots) <= k:
        return slots
    scores: KeyArray = np.empty(len(slots), dtype=np.float32)
    for start in range(0, len(slots), _ROWS):
        part = slots[start : start + _ROWS]
        np.matmul(keys.take(part, axis=0), query, out=scores[start : start + _ROWS])
    return slots[scores >= floor_below(float(np.partition(scores, -k)[-k]), margin)]


def floor_below(score: _Floats, margin: _Floats) -> KeyArray:
    """The largest float32 number below ``score - margin``, never as low as the -inf of a hidden slot."""
    rounded = np.asarray(score - margin).astype(np.float32)
    lowered: KeyArray = np.maximum(np.nextafter(rounded, np.float32(-np.inf)), _LOWEST)
    return lowered
