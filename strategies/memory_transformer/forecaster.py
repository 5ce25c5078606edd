"""What a model says of bars from their neighbours: the same numbers in replay, paper and live.

All that follows the encoder is made bar by bar (:mod:`~strategies.memory_transformer.read_kernel`), so that a bar has the same
bits alone and in any company.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from memory_store import SearchResults
from strategies.bars import interval_ms
from strategies.memory_transformer.bar_kernel import EncodedSeries
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.compiled import Told
from strategies.memory_transformer.memory_read import describe
from strategies.memory_transformer.read_kernel import ReadKernel
from strategies.memory_transformer.targets import units


class BarForecast(NamedTuple):
    """What the model says about one bar and one horizon."""

    prediction: float
    """Signed: a return in units of its volatility, p(up) - p(down), or a position, by the model's head."""
    gate: float
    """Share of the memory in the mixture, in [0, 1]."""
    quantiles: Sequence[float]
    """``[len(QUANTILES)]`` of the return in units of its trailing volatility, ``sigma_t * sqrt(h)``."""
    log_volatility: float
    """Logarithm of the volatility to expect, in the same units."""


class Forecasts(Told):
    """What the model says about ``n`` bars, as columns: see :class:`BarForecast` for each, which leaves out the weights."""

    __slots__ = ()

    def forecasts(self, horizon: int) -> list[BarForecast]:
        """One by one, as they are over one of the horizons."""
        told = self.predictions, self.gates, self.quantiles[:, horizon], self.log_volatilities[:, horizon]
        return list(map(BarForecast, *[column.tolist() for column in told]))


class Forecaster:
    """Everything after the encoder.

    Args:
        bundle: the trained model.
        n_neighbors: rows of every search result.
    """

    def __init__(self, bundle: Bundle, n_neighbors: int) -> None:
        self._config = bundle.config
        self._read = ReadKernel(bundle.model, n_neighbors)
        self._interval_ms = interval_ms(bundle.interval)

    def forecast(
        self,
        encoded: EncodedSeries,
        results: SearchResults,
        bar_times: Sequence[int],
        volatility: Sequence[float],
    ) -> Forecasts:
        """Forecasts of bars from their neighbours.

        Args:
            encoded: states and keys of the bars, one or more.
            results: of the searches with their keys; masked rows are the null entry's.
            bar_times: open times of the bars, from which the neighbours' age is counted.
            volatility: trailing volatility of every bar, per bar: the unit in which outcomes are told.
        """
        expected = np.array(volatility) * sqrt(self._config.primary_horizon)
        ages = (np.array(bar_times)[:, None] - results.bar_times) / self._interval_ms
        # What is masked is never looked at, but must not be an age before its time.
        facts = describe(results.outcomes, np.where(results.mask, ages, 0.0), units(expected, self._config))
        found = results.keys, results.scores, facts, results.mask
        return Forecasts(*self._read(encoded.hidden, encoded.keys, *found))
