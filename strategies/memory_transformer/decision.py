"""From two forecasts to a position: the model's, and what the memory says by itself."""

from __future__ import annotations

from math import exp, sqrt
from typing import Final, NamedTuple

from strategies.bars import DAY_MS
from strategies.memory_transformer.settings import ExitRule, MemoryTransformerSettings
from strategies.readout import HasQuantiles, MemoryView
from strategies.similarity import exit_distances

YEAR_MS: Final = 365 * DAY_MS
_LARGEST_DISTANCE: Final = 0.5


class Decision(NamedTuple):
    """A side and how sure."""

    side: int
    """1 long, -1 short, 0 neither."""
    confidence: float
    """In [0, 1]."""
    agree: bool
    """Whether model and memory lean the same way."""


def combine(prediction: float, memory_mean: float | None) -> Decision:
    """The specification's rule: the model gives the side, agreement makes it surer, conflict halves it.

    Args:
        prediction: the model's forecast in units of the volatility over the primary horizon.
        memory_mean: weighted mean outcome of the neighbours in the same units; ``None`` where no memory is asked, and the
            model decides alone.
    """
    side = (prediction > 0.0) - (prediction < 0.0)
    if memory_mean is None:
        return Decision(side, min(abs(prediction), 1.0), agree=False)
    agree = side != 0 and side == (memory_mean > 0.0) - (memory_mean < 0.0)
    confidence = abs(prediction) + abs(memory_mean) if agree else 0.5 * abs(prediction)
    return Decision(side, min(confidence, 1.0), agree)


def volatility_share(expected: float, horizon_ms: int, target: float) -> float:
    """Share of a position that keeps its volatility within the target, in (0, 1].

    ``min(1, target / forecast)`` (Moreira and Muir, "Volatility-managed portfolios", 2017), both over the horizon.

    Args:
        expected: volatility forecast over the horizon, a log return, positive.
        horizon_ms: its length.
        target: volatility per year; 0 leaves positions alone.
    """
    if target == 0.0:
        return 1.0
    return min(1.0, target * sqrt(horizon_ms / YEAR_MS) / expected)


def distances(
    view: MemoryView,
    forecast: HasQuantiles,
    side: int,
    volatility: float,
    expected_volatility: float,
    settings: MemoryTransformerSettings,
) -> tuple[float | None, float | None]:
    """Distances of stop and target from the entry, as fractions of price; ``None`` leaves them to the risk layer.

    Args:
        view: outcomes of the neighbours, one or more.
        forecast: calibrated quantiles of the model.
        side: 1 for long, -1 for short.
        volatility: of the log return over the primary horizon, from the trailing one.
        expected_volatility: the same, as the model forecasts it.
        settings: which rule, and its multiples.
    """
    if settings.exits is ExitRule.RISK:
        return None, None
    if settings.exits is ExitRule.MEMORY:
        return exit_distances(view, side, volatility)
    if settings.exits is ExitRule.FORECAST:
        return exit_distances(forecast, side, expected_volatility)
    return (
        _fraction(-side, settings.stop_multiple * volatility),
        _fraction(side, settings.target_multiple * volatility),
    )


def _fraction(direction: int, move: float) -> float:
    """A log move up (1) or down (-1) as a fraction of price."""
    return min(exp(min(move, 1.0)) - 1.0 if direction > 0 else 1.0 - exp(-move), _LARGEST_DISTANCE)
