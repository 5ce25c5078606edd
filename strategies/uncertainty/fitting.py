"""Calibration from the forecasts of a validation span and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from strategies.readout import QUANTILES
from strategies.uncertainty.abstention import Integers, choose_abstention, stretches_of
from strategies.uncertainty.calibration import Calibration, HorizonCalibration, Score
from strategies.uncertainty.direction import raw_rise_probability
from strategies.uncertainty.platt import fit, rise_of, score_of
from strategies.uncertainty.risk_coverage import Floats

FEWEST_INDEPENDENT: Final = 20.0
"""Independent outcomes without which quantiles stay as they come: the outermost are those of one in twenty."""


@dataclass(frozen=True, slots=True, eq=False)
class ValidationForecasts:
    """Forecasts of ``n`` bars of any symbols, in order of time, that the model was not trained on."""

    close_time: Integers
    """``[n]`` milliseconds, not decreasing."""
    quantiles: Floats
    """``[n, H, P]`` log returns, not decreasing along the last axis."""
    scales: Floats
    """``[n, H]`` positive, see ``RawForecast``."""
    outcomes: Floats
    """``[n, H]`` log returns; nan where not known."""
    scores: Mapping[Score, Floats] = field(default_factory=dict)
    """``[n]`` each, candidates for abstention."""
    error: Floats | None = None
    """``[n]`` that abstention is to lower; by default the mean pinball loss of the calibrated quantiles at the primary horizon,
    in units of the scale, so that calm and wild bars count alike."""


def fit_calibration(
    forecasts: ValidationForecasts,
    horizons: tuple[int, ...],
    primary: int,
    *,
    stretch_ms: int,
    probabilities: tuple[float, ...] = QUANTILES,
) -> Calibration:
    """What the online calibration starts from.

    Offsets are quantiles of the residuals in units of the scale, which is split conformal prediction (Vovk, Gammerman, Shafer,
    "Algorithmic learning in a random world", 2005) of each level; Platt's curve is fitted exactly; abstention is chosen by
    ``choose_abstention``. It depends on the rows given and on nothing else.

    Args:
        forecasts: one or more per bar of time; those of several symbols at one time count as one independent outcome.
        horizons: ``[H]`` received bars, increasing.
        primary: place of the horizon that abstention is judged on.
        stretch_ms: see ``stretches_of``; the longest horizon and the embargo.
        probabilities: ``[P]`` of the levels.
    """
    calibrated = tuple(_of_horizon(forecasts, place, horizon, probabilities) for place, horizon in enumerate(horizons))
    abstention = None
    known = ~np.isnan(forecasts.outcomes[:, primary])
    if forecasts.scores and known.any():
        error = forecasts.error
        if error is None:
            shift = forecasts.scales[:, primary, None] * np.array(calibrated[primary].offsets)
            levels = np.sort(forecasts.quantiles[:, primary] + shift, axis=1)
            losses = quantile_losses(levels, probabilities, forecasts.outcomes[:, primary])
            error = losses.mean(axis=1) / forecasts.scales[:, primary]
        abstention = choose_abstention(
            {name: score[known] for name, score in forecasts.scores.items()},
            error[known],
            stretches_of(forecasts.close_time[known], stretch_ms),
        )
    return Calibration(probabilities, calibrated, abstention, len(forecasts.close_time))


def quantile_losses(quantiles: Floats, probabilities: tuple[float, ...], outcome: Floats) -> Floats:
    """Pinball loss of every quantile, ``[n, P]`` (Koenker, Bassett, "Regression quantiles", 1978).

    Args:
        quantiles: ``[n, P]``.
        probabilities: ``[P]``.
        outcome: ``[n]``.
    """
    error, levels = outcome[:, None] - quantiles, np.array(probabilities)
    losses: Floats = np.maximum(levels * error, (levels - 1.0) * error)
    return losses


def _of_horizon(
    forecasts: ValidationForecasts, place: int, horizon: int, probabilities: tuple[float, ...]
) -> HorizonCalibration:
    known = ~np.isnan(forecasts.outcomes[:, place])
    outcomes = forecasts.outcomes[known, place]
    quantiles, scales = forecasts.quantiles[known, place], forecasts.scales[known, place]
    independent = len(np.unique(forecasts.close_time[known])) / horizon
    offsets = [0.0] * len(probabilities)
    if independent >= FEWEST_INDEPENDENT:
        residuals = (outcomes[:, None] - quantiles) / scales[:, None]
        offsets = [float(np.quantile(residuals[:, level], each)) for level, each in enumerate(probabilities)]
    scores = np.array([score_of(raw_rise_probability(probabilities, row)) for row in quantiles.tolist()])
    rises = np.array([rise_of(came) for came in outcomes.tolist()])
    return HorizonCalibration(horizon, tuple(offsets), fit(scores, rises, independent, horizon))
