"""Keys turned so that few of their coordinates tell most of an inner product."""

from __future__ import annotations

from typing import Final

import numpy as np

from memory_store.index import rescore
from memory_store.records import KeyArray, ScoreArray

_SAMPLE: Final = 16384
_SAMPLE_QUERIES: Final = 16
_FEWEST: Final = 3
"""Directions to think of, and more by steps: with the rest they are numbers that processors multiply four by four."""
_STEP: Final = 4
_SMALLEST_NORMAL: Final = 2.0**-126


def coordinates(rows: KeyArray | ScoreArray, basis: ScoreArray) -> ScoreArray:
    """Coordinates of rows along the basis and an upper bound of the length of the rest, ``[n, m + 1]``.

    By the inequality of Cauchy and Schwarz the inner product of two such rows is an upper bound of that of the rows themselves,
    but for float64 rounding. The rest is the difference of two squares, wrong by a few roundings of the whole; 1e-14 of it is
    added.

    Args:
        rows: ``[n, d]``.
        basis: ``[d, m]`` orthonormal.
    """
    wide = rows.astype(np.float64)
    turned: ScoreArray = np.empty((len(rows), basis.shape[1] + 1))
    head = np.matmul(wide, basis, out=turned[:, :-1])
    square = np.einsum("ij,ij->i", wide, wide)
    rest = np.maximum(square - np.einsum("ij,ij->i", head, head), 0.0) + 1e-14 * square
    np.sqrt(rest, out=turned[:, -1])
    return turned


def turned(rows: KeyArray | ScoreArray, basis: ScoreArray) -> KeyArray:
    """``coordinates`` in float32, the rest rounded up."""
    wide = coordinates(rows, basis)
    narrow: KeyArray = wide.astype(np.float32)
    narrow[:, -1] = np.nextafter(narrow[:, -1], np.float32(np.inf))
    return narrow


def underflow(directions: int) -> float:
    """What a product of two ``turned`` rows of length one loses at most where numbers are too small for float32."""
    return 4 * (directions + 4) * _SMALLEST_NORMAL


def of_length_one(rows: KeyArray) -> tuple[ScoreArray, ScoreArray]:
    """Rows ``[n, d]`` scaled to length one, and their lengths ``[n]``; 1 for those of zeros, which stay as they are."""
    lengths = np.sqrt(rescore(rows, rows))
    lengths[lengths == 0.0] = 1.0
    return rows / lengths[:, None], lengths


def fit_basis(keys: KeyArray, gather_cost: float) -> ScoreArray:
    """Orthonormal directions, ``[d, m]``: the leading principal axes, as many as make searches cheapest.

    The axes are those of the second moment about zero, because it is inner products that are bounded. How many is weighed
    on a sample: each further direction costs a number per key, each key that the bound cannot rule out costs a gather.

    Args:
        keys: ``[n, d]``.
        gather_cost: of one number of a key that lies anywhere; one of many in a row costs 1.
    """
    step = -(-len(keys) // _SAMPLE)
    sample = keys[::step].astype(np.float64)
    sample /= np.abs(sample).max() or 1.0
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]
    dimension = len(axes)
    turned = sample @ axes
    asked = turned[:: -(-len(turned) // _SAMPLE_QUERIES)]
    wanted = min(_SAMPLE_QUERIES, len(turned))
    kth = np.partition(turned @ asked.T, -wanted, axis=0)[-wanted]
    rests = np.sqrt(np.cumsum(np.square(turned[:, ::-1]), axis=1))[:, ::-1]
    asked_rests = rests[:: -(-len(turned) // _SAMPLE_QUERIES)]
    best, best_cost = dimension, dimension + 1.0
    for count in range(_FEWEST, dimension, _STEP):
        bounds = turned[:, :count] @ asked[:, :count].T + np.outer(rests[:, count], asked_rests[:, count])
        cost = count + 1 + gather_cost * dimension * float(np.mean(bounds >= kth))
        if cost < best_cost:
            best, best_cost = count, cost
    return np.ascontiguousarray(axes[:, :best])
