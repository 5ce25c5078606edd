"""Noise: a market whose next return nobody can know, and whose next volatility everybody could.

Returns are ``sigma_t e_t`` with independent normal ``e_t``, and ``sigma_t**2`` follows a GARCH(1, 1) recursion (Bollerslev
1986, https://doi.org/10.1016/0304-4076(86)90063-1). Any information coefficient beyond chance is a leak; the volatility
keeps the pipeline from being blind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest.synthetic.candles import Floats, series_of
from strategies.bars import BarSeries


@dataclass(frozen=True, slots=True)
class GarchSettings:
    """Of the recursion ``sigma**2 = (1 - reaction - persistence) level**2 + reaction r**2 + persistence sigma**2``.

    Raises:
        ValueError: the variance would not have a level to return to.
    """

    level: float = 0.005
    """Long-run volatility per bar."""
    reaction: float = 0.08
    persistence: float = 0.90

    def __post_init__(self) -> None:
        if not (self.level > 0.0 and self.reaction >= 0.0 and self.persistence >= 0.0):
            raise ValueError(f"level {self.level} must be positive, reaction and persistence 0 or more")
        if not self.reaction + self.persistence < 1.0:
            raise ValueError(f"reaction + persistence is {self.reaction + self.persistence:g}; it must be below 1")


@dataclass(frozen=True, slots=True, eq=False)
class NoiseTask:
    """A series without a knowable direction."""

    series: BarSeries
    volatility: Floats
    """``[n]`` the true volatility of every bar's return, known at the close of the bar before."""


def noise_task(seed: int, bars: int, settings: GarchSettings | None = None, *, symbol: str = "NOISEUSDT") -> NoiseTask:
    """A random walk with clustered volatility. The same seed gives the same bars."""
    settings = settings or GarchSettings()
    generator = np.random.default_rng(seed)
    shocks = generator.standard_normal(bars)
    base = (1.0 - settings.reaction - settings.persistence) * settings.level**2
    variance = np.empty(bars)
    returns = np.empty(bars)
    current = settings.level**2
    for place, shock in enumerate(shocks.tolist()):
        variance[place] = current
        returns[place] = current**0.5 * shock
        current = base + settings.reaction * returns[place] ** 2 + settings.persistence * current
    return NoiseTask(series_of(symbol, returns, generator), np.sqrt(variance))


def expected_variance(volatility: Floats, horizon: int, settings: GarchSettings) -> Floats:
    """Best forecast of the variance of the return over a horizon, ``[n]``.

    Args:
        volatility: ``[n]`` the volatility of the first bar of the horizon.
        horizon: bars.
        settings: of the recursion.

    Variances decay towards the level by ``reaction + persistence`` per bar, so their sum is geometric.
    """
    decay = settings.reaction + settings.persistence
    excess = volatility**2 - settings.level**2
    summed: Floats = horizon * settings.level**2 + excess * (1.0 - decay**horizon) / (1.0 - decay)
    return summed
