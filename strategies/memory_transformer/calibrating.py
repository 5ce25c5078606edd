"""What the online calibration of a trained model starts from: its forecasts of the validation part, and what came of them."""

from __future__ import annotations

import numpy as np

from strategies.bars import interval_ms
from strategies.memory_transformer.dataset import Dataset, Floats, Integers
from strategies.memory_transformer.evaluation import forecast_rows
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.span_memory import SpanMemory
from strategies.readout import QUANTILES
from strategies.uncertainty.calibration import Calibration, Score, uncalibrated
from strategies.uncertainty.fitting import ValidationForecasts, fit_calibration


def calibrate(model: MemoryTransformer, memory: SpanMemory, dataset: Dataset) -> Calibration:
    """Of the primary horizon, which is the one that is traded.

    Early stopping has seen the validation part, so its forecasts are a little better than later ones will be; the online
    part makes up for that.

    Args:
        model: in evaluation mode.
        memory: of the span, under the model's weights.
        dataset: the span.
    """
    config, rows, primary = model.config, dataset.validation, model.config.primary
    horizon = config.primary_horizon
    if not len(rows):
        return uncalibrated(QUANTILES, (horizon,))
    forecast = forecast_rows(model, memory, rows)
    levels = forecast.distribution.quantiles[:, primary].double().numpy()
    unit = dataset.moments.volatility[rows]
    return fit_calibration(
        ValidationForecasts(
            close_time=dataset.moments.close_time[rows],
            quantiles=(levels * unit[:, None])[:, None],
            scales=unit[:, None],
            outcomes=dataset.moments.outcomes[rows, primary, None],
            scores={Score.SPREAD: spread(levels), Score.NOVELTY: _novelty(memory, rows)},
        ),
        (horizon,),
        0,
        stretch_ms=(horizon + config.embargo) * interval_ms(dataset.interval),
    )


def spread(levels: Floats) -> Floats:
    """From the 10 % to the 90 % quantile, ``[...]`` of quantiles ``[..., len(QUANTILES)]``, in their unit."""
    width: Floats = levels[..., QUANTILES.index(0.9)] - levels[..., QUANTILES.index(0.1)]
    return width


def _novelty(memory: SpanMemory, rows: Integers) -> Floats:
    """One minus the similarity of the closest moment that every row could see; 1 where it saw none."""
    places = memory.positions[rows]
    closest, seen = memory.neighbours.rows[places, 0], memory.neighbours.mask[places, 0]
    similarity = np.einsum("ij,ij->i", memory.keys[rows], memory.keys[closest], dtype=np.float64)
    return np.where(seen, 1.0 - similarity, 1.0)
