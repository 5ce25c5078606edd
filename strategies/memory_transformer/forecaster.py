"""The memory read of bars: the same call with the same shapes in replay, paper and live.

All that follows the encoder runs on ``ROWS`` bars at once. Live, one row is real and the others are blank; a replay that
knows the bars to come fills as many as it can. A bar keeps its row, and no row depends on what the others hold, so both
give it the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Final, NamedTuple

import numpy as np
import torch

from memory_store import SearchResults
from strategies.bars import interval_ms
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.losses import signed_view
from strategies.memory_transformer.memory_read import Retrieved, describe
from strategies.memory_transformer.targets import units
from strategies.memory_transformer.threads import one_thread
from strategies.memory_transformer.tile_kernel import EncodedSeries, FloatRows
from strategies.memory_transformer.traced import traced

ROWS: Final = 24
"""Bars of one call. More make a replay faster and a live decision slower."""


class BarForecast(NamedTuple):
    """What the model says about one bar."""

    prediction: float
    """Signed: a return in units of its volatility, p(up) - p(down), or a position, by the model's head."""
    gate: float
    """Share of the memory in the mixture, in [0, 1]."""
    quantiles: Sequence[Sequence[float]]
    """``[horizons][len(QUANTILES)]`` of the return in units of its trailing volatility, ``sigma_t * sqrt(h)``."""
    log_volatility: Sequence[float]
    """``[horizons]`` logarithm of the volatility to expect, in the same units."""


class Forecasts(NamedTuple):
    """What the model says about ``n`` bars, as columns: see :class:`BarForecast` for each, which leaves out the weights."""

    predictions: FloatRows
    """``[n]``."""
    gates: FloatRows
    """``[n]``."""
    weights: FloatRows
    """``[n, k]`` share of every neighbour in the model's own vote; what is missing to 1 went to the null entry."""
    quantiles: FloatRows
    """``[n, horizons, len(QUANTILES)]``."""
    log_volatilities: FloatRows
    """``[n, horizons]``."""

    def forecasts(self) -> list[BarForecast]:
        """One by one."""
        told = self.predictions, self.gates, self.quantiles, self.log_volatilities
        return list(map(BarForecast, *[column.tolist() for column in told]))


class Forecaster:
    """Everything after the encoder.

    Args:
        bundle: the trained model.
        n_neighbors: rows of every search result.
    """

    def __init__(self, bundle: Bundle, n_neighbors: int) -> None:
        self._config = bundle.config
        self._temperature = bundle.model.memory_read.temperature
        self._forward = traced(bundle.model, ROWS, n_neighbors)
        self._interval_ms = interval_ms(bundle.interval)
        self._neighbors = n_neighbors

    @property
    def temperature(self) -> float:
        """Of the model's learned softmax over cosines."""
        return self._temperature

    def forecast(
        self,
        encoded: EncodedSeries,
        results: SearchResults,
        bar_times: Sequence[int],
        volatility: Sequence[float],
        ordinal: int,
    ) -> Forecasts:
        """Forecasts of consecutive bars from their neighbours.

        Args:
            encoded: states and keys of the bars, one or more.
            results: of the searches with their keys; masked rows are the null entry's.
            bar_times: open times of the bars, from which the neighbours' age is counted.
            volatility: trailing volatility of every bar, per bar: the unit in which outcomes are told.
            ordinal: absolute number of the first bar, which decides its row.
        """
        calls: list[Forecasts] = []
        start = 0
        while start < len(results):
            row = (ordinal + start) % ROWS
            part = slice(start, start + ROWS - row)
            rows = EncodedSeries(encoded.hidden[part], encoded.keys[part])
            calls.append(self._call(row, rows, results[part], bar_times[part], volatility[part]))
            start = part.stop
        return calls[0] if len(calls) == 1 else Forecasts(*map(np.concatenate, zip(*calls, strict=True)))

    def _call(
        self,
        row: int,
        encoded: EncodedSeries,
        results: SearchResults,
        bar_times: Sequence[int],
        volatility: Sequence[float],
    ) -> Forecasts:
        """Forecasts of bars that fit into one call, from ``row`` on."""
        config, k, width = self._config, self._neighbors, encoded.keys.shape[1]
        real = slice(row, row + len(results))
        states = np.zeros((2, ROWS, width), dtype=np.float32)
        keys = np.zeros((ROWS, k, width), dtype=np.float32)
        outcomes = np.full((ROWS, k, len(config.horizons)), np.nan)
        ages = np.zeros((ROWS, k))
        mask = np.zeros((ROWS, k), dtype=np.bool_)
        expected = np.ones(ROWS)
        expected[real] = np.array(volatility) * sqrt(config.primary_horizon)
        states[0, real], states[1, real] = encoded.hidden, encoded.keys
        keys[real], outcomes[real], mask[real] = results.keys, results.outcomes, results.mask
        ages[real] = np.array(bar_times)[:, None] - results.bar_times
        facts = describe(outcomes, ages / self._interval_ms, units(expected, config))
        with torch.inference_mode(), one_thread():
            hidden, query = torch.from_numpy(states)
            retrieved = Retrieved(torch.from_numpy(keys), torch.from_numpy(facts), torch.from_numpy(mask))
            forecast = self._forward(hidden, query, retrieved)
            columns = (
                signed_view(forecast.prediction, config),
                forecast.gate,
                forecast.weights,
                *forecast.distribution,
            )
            return Forecasts(*[column[real].numpy() for column in columns])
