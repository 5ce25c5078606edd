"""What calibration starts from: the part of it that a validation span gave, stored with a model as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from strategies.uncertainty.platt import Platt, unskilled
from strategies.uncertainty.quantile_tracking import Offsets


class Score(StrEnum):
    """Ways to tell an uncertain forecast; each grows with the uncertainty."""

    NOVELTY = "novelty"
    """One minus the similarity of the closest moment."""
    SPREAD = "spread"
    """From the 10 % to the 90 % quantile, in units of the volatility."""
    DISAGREEMENT = "disagreement"
    """Between the model's forecast and the memory's mean, in units of the volatility."""
    SCARCITY = "scarcity"
    """Minus the effective number of independent neighbours."""


class Abstention(msgspec.Struct, frozen=True):
    """When to say nothing."""

    score: Score
    threshold: float
    """Of the score: abstain above it."""
    coverage: float
    """Share of the validation bars that are left."""
    gain: float
    """By how much the mean error of these is below that of all, as a share of the latter."""
    standard_error: float
    """Of ``gain``."""

    def abstains(self, scores: Mapping[Score, float]) -> bool:
        """Whether a forecast with these scores is too uncertain; one without a number is."""
        return not scores[self.score] <= self.threshold


class HorizonCalibration(msgspec.Struct, frozen=True):
    """Of one horizon."""

    horizon: int
    """Received bars."""
    offsets: Offsets
    """One per level, in units of the scale of a forecast."""
    platt: Platt


class Calibration(msgspec.Struct, frozen=True):
    """Of all horizons.

    Raises:
        ValueError: the parts do not fit together.
    """

    probabilities: tuple[float, ...]
    """Of the levels, increasing."""
    horizons: tuple[HorizonCalibration, ...]
    """Increasing."""
    abstention: Abstention | None = None
    bars: int = 0
    """Validation forecasts that it rests on."""

    def __post_init__(self) -> None:
        levels, spans = self.probabilities, [each.horizon for each in self.horizons]
        if len(levels) < 2 or not all(low < high for low, high in zip((0.0, *levels), (*levels, 1.0), strict=True)):
            raise ValueError(f"probabilities are {levels}; give two or more, increasing, between 0 and 1")
        if not spans or spans[0] < 1 or spans != sorted(set(spans)):
            raise ValueError(f"horizons are {spans}; give one or more bar counts in increasing order")
        for each in self.horizons:
            if len(each.offsets) != len(levels):
                raise ValueError(f"horizon {each.horizon} has {len(each.offsets)} offsets for {len(levels)} levels")

    def as_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Calibration:
        """From ``as_dict``, bit for bit.

        Raises:
            msgspec.ValidationError: it is no calibration.
        """
        return msgspec.convert(plain, cls)


def uncalibrated(probabilities: tuple[float, ...], horizons: tuple[int, ...]) -> Calibration:
    """Quantiles as they come, a direction without skill, no abstention: where there is nothing to rest on."""
    zeros = (0.0,) * len(probabilities)
    return Calibration(probabilities, tuple(HorizonCalibration(each, zeros, unskilled()) for each in horizons))
