"""Normalisation of features with statistics of the training span alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from strategies.errors import ShapeError

CLIP: Final = 8.0
"""Scaled values are kept within this many standard deviations."""
_FLAT: Final = 1e-9  # a spread this small against the size of the values is rounding, not variation


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """Mean and standard deviation of every feature, each ``[F]``; a feature without variance has scale 1."""

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, matrix: npt.NDArray[np.float64]) -> Scaler:
        """Statistics of the rows of ``matrix``, ``[n, F]``: pass the training span and nothing else.

        Raises:
            ShapeError: there are no rows, or a value is not finite.
        """
        if matrix.ndim != 2 or len(matrix) == 0:
            raise ShapeError(
                f"a scaler is fitted to rows of features, but got shape {matrix.shape}; give [n, F], n >= 1"
            )
        if not np.isfinite(matrix).all():
            raise ShapeError("a scaler cannot be fitted to values that are not finite; leave those rows out")
        mean = matrix.mean(axis=0)
        scale = matrix.std(axis=0)
        scale[scale <= _FLAT * np.abs(matrix).max(axis=0)] = 1.0
        return cls(mean, scale)

    def transform(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Scaled features within ``CLIP``, of the shape given: ``[F]`` or ``[n, F]``; a row alone has the same bits.

        Raises:
            ShapeError: the last axis is not as long as the fitted one.
        """
        values = np.asarray(features, dtype=np.float64)
        if values.shape[-1:] != self.mean.shape:
            raise ShapeError(f"the scaler was fitted to {len(self.mean)} features, but got shape {values.shape}")
        scaled = np.clip((values - self.mean) / self.scale, -CLIP, CLIP)
        return scaled.astype(np.float32)

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists, which JSON keeps to the last bit."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Scaler:
        """The scaler that ``to_dict`` wrote.

        Raises:
            ShapeError: the lists are missing, differ in length, or hold what no fit gives.
        """
        try:
            mean = np.asarray(plain["mean"], dtype=np.float64)
            scale = np.asarray(plain["scale"], dtype=np.float64)
        except (KeyError, TypeError, ValueError):
            raise ShapeError("a stored scaler needs the lists of numbers mean and scale; store it again") from None
        sound = mean.ndim == 1 and mean.shape == scale.shape and np.isfinite(mean).all() and np.isfinite(scale).all()
        if not sound or not (scale > 0).all():
            raise ShapeError("a stored scaler needs finite means and positive scales of one length; store it again")
        return cls(mean, scale)
