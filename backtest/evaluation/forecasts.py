"""How every forecaster answers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from backtest.evaluation.panel import Panel
from strategies.memory_transformer.dataset import Floats, Integers
from strategies.readout import QUANTILES

TARGET_VOLATILITY: Final = 0.20
"""Annual volatility that a view is sized for."""


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """Answers for some rows of a panel over its horizon; nan where a forecaster gives none."""

    rows: Integers
    """``[m]`` rows of the panel, increasing."""
    mean: Floats
    """``[m]`` expected log return."""
    probability_up: Floats
    """``[m]``."""
    quantiles: Floats
    """``[m, len(QUANTILES)]`` of the log return."""
    log_volatility: Floats
    """``[m]`` expected logarithm of the realised volatility over the horizon."""
    uncertainty: Floats
    """``[m]`` the larger, the less the forecast is to be believed; only its order counts."""
    exposure: Floats
    """``[m]`` what it would hold for the horizon, as a share of equity in [-1, 1]."""

    def take(self, places: Integers) -> Forecasts:
        """Some of the answers, by place."""
        return Forecasts(**{field.name: getattr(self, field.name)[places] for field in fields(self)})


def joined(parts: list[Forecasts]) -> Forecasts:
    """Answers of several folds, one after the other."""
    return Forecasts(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Forecasts)}
    )


def forecasts_of(
    rows: Integers,
    *,
    mean: Floats | None = None,
    probability_up: Floats | None = None,
    quantiles: Floats | None = None,
    log_volatility: Floats | None = None,
    uncertainty: Floats | None = None,
    exposure: Floats | None = None,
) -> Forecasts:
    """Answers from those that there are. Uncertainty is the width of the 80 % interval unless another is given."""
    nothing = np.full(len(rows), np.nan)
    if uncertainty is None and quantiles is not None:
        uncertainty = interval_80(quantiles)[1] - interval_80(quantiles)[0]
    return Forecasts(
        rows,
        nothing if mean is None else mean,
        nothing if probability_up is None else probability_up,
        np.full((len(rows), len(QUANTILES)), np.nan) if quantiles is None else quantiles,
        nothing if log_volatility is None else log_volatility,
        nothing if uncertainty is None else uncertainty,
        nothing if exposure is None else exposure,
    )


def interval_80(quantiles: Floats) -> tuple[Floats, Floats]:
    """Ends of the 80 % interval, ``[m]`` each, of quantiles ``[m, len(QUANTILES)]``."""
    return quantiles[:, QUANTILES.index(0.1)], quantiles[:, QUANTILES.index(0.9)]


def sized(panel: Panel, rows: Integers, direction: Floats, days_per_year: int = 365) -> Floats:
    """Exposure of a direction ``[m]``: as much as brings the target volatility, one at most.

    Volatility targeting as in Moskowitz, Ooi and Pedersen, "Time series momentum", 2012, by the trailing volatility that
    outcomes are measured in.
    """
    bars_per_year = days_per_year * 86_400_000 / panel.interval_ms
    annual = panel.moments.volatility[rows] * np.sqrt(bars_per_year / panel.horizon)
    exposure: Floats = np.clip(direction, -1.0, 1.0) * np.minimum(1.0, TARGET_VOLATILITY / annual)
    return exposure
