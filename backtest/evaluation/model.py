"""The memory transformer in the protocol: the newest weights known at a boundary, and its memory of all that came since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from backtest.evaluation.controls import Recalled, Remembering, recall
from backtest.evaluation.folds import Fold
from backtest.evaluation.forecasts import Forecasts, forecasts_of, sized
from backtest.evaluation.panel import Panel
from strategies.bars import BarSeries
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.dataset import Integers
from strategies.memory_transformer.evaluation import joined
from strategies.memory_transformer.losses import signed_view
from strategies.memory_transformer.memory_read import Retrieved, describe
from strategies.memory_transformer.model import Forecast, MemoryTransformer
from strategies.memory_transformer.span_memory import Rows
from strategies.memory_transformer.streaming import StreamingEncoder
from strategies.memory_transformer.targets import units
from strategies.readout import QUANTILES
from strategies.scaling import Scaler
from strategies.uncertainty.direction import raw_rise_probability

_BATCH: Final = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A model and what its forecasts depend on; both a bundle and a trained model have these."""

    model: MemoryTransformer
    """In evaluation mode."""
    scaler: Scaler


ModelSource = Callable[[Fold], Weights]
"""The model to use in a fold: it has seen nothing that was not known at the boundary."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPanel:
    """States and keys of all rows under some weights."""

    weights: Weights
    hidden: Rows
    """``[n, d_model]``."""
    keys: Rows
    """``[n, d_model]``, of length one."""


class ModelForecasters:
    """The forecasters that one model gives; a fold is encoded once for all of them.

    Args:
        panel: all rows.
        series: the bars that the panel is made of.
        source: the model of every fold.
    """

    def __init__(self, panel: Panel, series: Mapping[str, BarSeries], source: ModelSource) -> None:
        self._panel = panel
        self._series = series
        self._source = source
        self._encoded: dict[str, EncodedPanel] = {}

    def memory(self, panel: Panel, fold: Fold) -> Remembering:
        """The model with its memory, for the protocol and its controls."""
        encoded = self._of(fold)
        return Remembering(
            lambda rows, recalled: answer(panel, encoded, rows, recalled),
            encoded.keys,
            encoded.weights.model.config.n_neighbors,
        )

    def without_memory(self, panel: Panel, fold: Fold) -> Forecasts:
        """The same weights with the gate shut."""
        memory = self.memory(panel, fold)
        return answer(panel, self._of(fold), fold.test, recall(panel, fold, memory), force_gate=0.0)

    def _of(self, fold: Fold) -> EncodedPanel:
        if fold.name not in self._encoded:
            self._encoded = {fold.name: encode_panel(self._panel, self._series, self._source(fold))}
        return self._encoded[fold.name]


def encode_panel(panel: Panel, series: Mapping[str, BarSeries], weights: Weights) -> EncodedPanel:
    """All rows through the streaming encoder, as trading does."""
    kernel = BarKernel(weights.model.encoder)
    width = weights.model.config.d_model
    hidden, keys = (np.zeros((len(panel.symbol), width), dtype=np.float32) for _ in range(2))
    for number, name in enumerate(panel.symbols):
        rows = panel.rows_of(number)
        encoder = StreamingEncoder(kernel, series[name].first_ordinal)
        encoded = encoder.encode_series(weights.scaler.transform(panel.features[rows]))
        hidden[rows], keys[rows] = encoded.hidden, encoded.keys
    return EncodedPanel(weights, hidden, keys)


def model_forecast(
    panel: Panel, encoded: EncodedPanel, rows: Integers, recalled: Recalled, *, force_gate: float | None = None
) -> Forecast:
    """What the model itself says of rows, one or more, that recall this: also its gate, and whom it listens to."""
    config, model = encoded.weights.model.config, encoded.weights.model
    parts = []
    close_time = panel.moments.close_time
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            batch, found, said = rows[part], recalled.found[part], recalled.outcomes[part]
            ages = np.maximum(close_time[batch][:, None] - close_time[found], 0) / panel.interval_ms
            known = recalled.rule.usable_outcomes(panel.moments, said, close_time[batch])
            facts = describe(known, ages, units(panel.moments.volatility[batch], config))
            keys, mask = torch.from_numpy(encoded.keys[found]), torch.from_numpy(recalled.mask[part])
            parts.append(
                model(
                    torch.from_numpy(encoded.hidden[batch]),
                    torch.from_numpy(encoded.keys[batch]),
                    Retrieved(keys, torch.from_numpy(facts), mask),
                    force_gate=force_gate,
                )
            )
        return joined(parts)


def answer(
    panel: Panel, encoded: EncodedPanel, rows: Integers, recalled: Recalled, *, force_gate: float | None = None
) -> Forecasts:
    """What the model says of rows that recall this.

    The mean is that of a head that forecasts returns; another head leaves it to the median of the distribution.
    """
    config = encoded.weights.model.config
    forecast = model_forecast(panel, encoded, rows, recalled, force_gate=force_gate)
    volatility = panel.moments.volatility[rows]
    scaled = forecast.distribution.quantiles[:, config.primary].double().numpy()
    signed = signed_view(forecast.prediction, config).double().numpy()
    log_volatility = forecast.distribution.log_volatility[:, config.primary].double().numpy()
    centre = signed if config.output_type.forecasts_returns else scaled[:, QUANTILES.index(0.5)]
    return forecasts_of(
        rows,
        mean=centre * volatility,
        probability_up=np.array([raw_rise_probability(QUANTILES, row) for row in scaled.tolist()]),
        quantiles=scaled * volatility[:, None],
        log_volatility=log_volatility + np.log(volatility),
        exposure=sized(panel, rows, np.sign(signed)),
    )
