"""All metrics of one forecaster on one set of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from backtest.evaluation import metrics
from backtest.evaluation.forecasts import Forecasts, interval_80
from backtest.evaluation.intervals import Figure, Resamples
from backtest.evaluation.panel import Panel
from backtest.evaluation.skill import LAGS_PER_HORIZON, SkillTest, information_coefficient_test
from strategies.memory_transformer.dataset import Floats, Integers
from strategies.readout import QUANTILES

BLOCK_HORIZONS: Final = 5
"""Mean length of a bootstrap's stretch in horizons: errors of volatility go on for longer than outcomes overlap."""
METRICS: Final = (
    "volatility_r2",
    "qlike",
    "return_r2",
    "information_coefficient",
    "brier",
    "log_score",
    "normal_log_score",
    "calibration_error",
    "crps",
    "coverage_80",
    "risk_coverage",
    "risk",
)
"""Names of the figures, in order. ``risk`` is the mean absolute error of the mean, to compare ``risk_coverage`` with."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one forecaster on one cell."""

    rows: int
    figures: dict[str, Figure]
    """By the names of ``METRICS``."""
    skill: SkillTest
    """Of the information coefficient."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """Rows that are scored together, and the resamples that all forecasters share on them."""

    symbol: str
    """Or ``all``."""
    fold: str
    rows: Integers
    """``[m]`` rows of the panel, increasing."""
    resamples: Resamples
    lag: int
    """Of long-run variances, in rows."""
    horizon: int
    """Rows that an outcome spans."""

    @classmethod
    def of(cls, panel: Panel, symbol: str, fold: str, rows: Integers, seed: int) -> Cell:
        """A cell; where rows of several symbols alternate, stretches and lags are as many times longer."""
        symbols = len(np.unique(panel.symbol[rows]))
        horizon = panel.horizon * symbols
        resamples = Resamples.draw(len(rows), BLOCK_HORIZONS * horizon, seed=seed)
        return cls(symbol, fold, rows, resamples, LAGS_PER_HORIZON * horizon, horizon)


def score(panel: Panel, cell: Cell, answers: Forecasts, *, intervals: bool = True) -> Scores:
    """All figures of the answers for exactly the rows of a cell; those not answered throughout are ``None``."""
    rows = cell.rows
    came, volatility = panel.log_return[rows], panel.log_volatility[rows]
    past, past_volatility = panel.past_return[rows], panel.past_log_volatility[rows]
    mean, up, quantiles = answers.mean, answers.probability_up, answers.quantiles
    lower, upper = interval_80(quantiles)
    expected, doubt = answers.log_volatility, answers.uncertainty
    wanted: dict[str, tuple[tuple[Floats, ...], Callable[[Floats], Floats]]] = {
        "volatility_r2": (
            (expected, past_volatility),
            lambda weights: metrics.r2(volatility, expected, past_volatility, weights),
        ),
        "qlike": (
            (expected,),
            lambda weights: metrics.mean_of(metrics.qlike_losses(expected, volatility), weights),
        ),
        "return_r2": ((mean, past), lambda weights: metrics.r2(came, mean, past, weights)),
        "information_coefficient": ((mean,), lambda weights: metrics.correlation(mean, came, weights)),
        "brier": ((up,), lambda weights: metrics.mean_of(metrics.brier_losses(up, came), weights)),
        "log_score": ((up,), lambda weights: metrics.mean_of(metrics.log_losses(up, came), weights)),
        "normal_log_score": (
            (mean, expected),
            lambda weights: metrics.mean_of(metrics.normal_log_losses(mean, expected, came), weights),
        ),
        "calibration_error": ((up,), lambda weights: metrics.calibration_error(up, came, weights)),
        "crps": (
            (quantiles,),
            lambda weights: metrics.mean_of(metrics.crps_losses(quantiles, QUANTILES, came), weights),
        ),
        "coverage_80": ((quantiles,), lambda weights: metrics.coverage(lower, upper, came, weights)),
        "risk_coverage": (
            (mean, doubt),
            lambda weights: metrics.area_under_risk_coverage(np.abs(came - mean), doubt, weights),
        ),
        "risk": ((mean, doubt), lambda weights: metrics.mean_of(np.abs(came - mean), weights)),
    }
    resamples = cell.resamples if intervals else None
    figures = {name: _figure(resamples, len(rows), *wanted[name]) for name in METRICS}
    asked = mean if np.isfinite(mean).all() else np.zeros(len(rows))  # a constant has no coefficient
    return Scores(len(rows), figures, information_coefficient_test(asked, came, cell.lag))


def _figure(
    resamples: Resamples | None, rows: int, needed: tuple[Floats, ...], metric: Callable[[Floats], Floats]
) -> Figure:
    """A figure where all that it needs was answered."""
    if not all(np.isfinite(each).all() for each in needed):
        return Figure(None)
    if resamples is not None:
        return resamples.figure(metric)
    value = float(metric(np.ones(rows)))
    return Figure(value if np.isfinite(value) else None)
