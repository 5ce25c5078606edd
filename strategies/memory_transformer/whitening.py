"""Whitening of keys: the states of bars crowd into a narrow cone, in which every cosine is close to one.

Centred and divided by the square root of their covariance they spread out, and a cosine tells bars apart.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALLEST_VARIANCE: Final = 1e-12  # of states that are all alike


class Whitening(nn.Module):
    """Affine map fitted to the training span, then a scaling to length one. The identity until it is fitted."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("matrix", torch.eye(dimension))

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., dimension]`` states to keys of length one, same shape."""
        return F.normalize((hidden - self.mean) @ self.matrix, dim=-1)

    def fit(self, hidden: npt.NDArray[np.float32], shrinkage: float) -> None:
        """Take mean and whitening matrix from states ``[n, dimension]``.

        The covariance is shrunk towards the average variance (Ledoit and Wolf, "A well-conditioned estimator for
        large-dimensional covariance matrices", 2004): small values make all directions count alike, also those that
        hold only noise; 1 leaves the directions as they are, and keys are centred only.

        The matrix is the symmetric inverse square root (ZCA: Kessy, Lewin and Strimmer, "Optimal whitening and
        decorrelation", 2018), of all whitening matrices the one closest to the identity, so that a refit after a few
        steps of training turns the key space as little as possible.

        Args:
            hidden: the states.
            shrinkage: share of the average variance, above 0, at most 1.
        """
        states = hidden.astype(np.float64)
        mean = states.mean(axis=0)
        centred = states - mean
        covariance = centred.T @ centred / len(states)
        average = max(float(np.trace(covariance)) / len(covariance), _SMALLEST_VARIANCE)
        shrunk = (1.0 - shrinkage) * covariance + shrinkage * average * np.eye(len(covariance))
        variances, directions = np.linalg.eigh(shrunk)
        matrix = (directions * variances**-0.5) @ directions.T
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean.astype(np.float32)))
            self.matrix.copy_(torch.from_numpy(matrix.astype(np.float32)))


def anisotropy(keys: npt.NDArray[np.float32]) -> float:
    """Mean cosine of pairs of different keys of length one, ``[n, dimension]``: 0 spread out, 1 all alike."""
    count = len(keys)
    if count < 2:
        return 0.0
    total = keys.sum(axis=0, dtype=np.float64)
    return float((total @ total - count) / (count * (count - 1)))


def directions(keys: npt.NDArray[np.float32]) -> float:
    """Effective number of directions that keys of length one, ``[n, dimension]``, are spread over: 1 to ``dimension``.

    One over the sum of squares of the shares that the directions have in their second moment (participation ratio).
    """
    moment = keys.T.astype(np.float64) @ keys.astype(np.float64) / len(keys)
    return float(np.trace(moment) ** 2 / np.square(moment).sum())
