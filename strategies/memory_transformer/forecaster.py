"""The memory read of one bar: the same call with the same shapes in replay, paper and live."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from memory_store import SearchResult
from strategies.bars import interval_ms
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.config import MAXIMUM_SCALE
from strategies.memory_transformer.losses import signed_view
from strategies.memory_transformer.memory_read import Retrieved, describe
from strategies.memory_transformer.streaming import EncodedBar
from strategies.memory_transformer.threads import one_thread


class BarForecast(NamedTuple):
    """What the model says about one bar."""

    prediction: float
    """Signed: a return in units of its volatility, p(up) - p(down), or a position, by the model's head."""
    gate: float
    """Share of the memory in the mixture, in [0, 1]."""
    weights: npt.NDArray[np.float32]
    """``[k]`` the model's own attention to the neighbours; what is missing to one went to the null entry."""


class Forecaster:
    """Everything after the encoder, one bar at a time."""

    def __init__(self, bundle: Bundle) -> None:
        self._model = bundle.model
        self._outcome_scale = bundle.outcome_scale
        self._interval_ms = interval_ms(bundle.interval)

    @property
    def temperature(self) -> float:
        """Of the model's learned softmax over cosines."""
        scale = float(self._model.memory_read.log_scale.detach().exp())
        return 1.0 / min(scale, MAXIMUM_SCALE)

    def forecast(self, encoded: EncodedBar, result: SearchResult, bar_time: int) -> BarForecast:
        """Forecast of one bar from its neighbours.

        Args:
            encoded: state and key of the bar.
            result: of the search with its key; masked rows are the null entry's.
            bar_time: open time of the bar, from which the neighbours' age is counted.
        """
        ages = (bar_time - result.bar_times) / self._interval_ms
        facts = describe(result.outcomes, ages, self._outcome_scale)
        with torch.inference_mode(), one_thread():
            retrieved = Retrieved(
                torch.from_numpy(result.keys).unsqueeze(0),
                torch.from_numpy(facts).unsqueeze(0),
                torch.from_numpy(result.mask).unsqueeze(0),
            )
            hidden, query = (torch.from_numpy(row).unsqueeze(0) for row in encoded)
            forecast = self._model(hidden, query, retrieved)
            prediction = signed_view(forecast.prediction, self._model.config.output_type)
            return BarForecast(float(prediction), float(forecast.gate), forecast.weights[0].numpy())
