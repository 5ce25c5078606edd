"""Returning regimes: a hidden Markov market, one of whose states stays away for long and then comes back.

Every state gives returns a mean and a volatility of its own. The best forecast is that of the forward filter with the true
parameters (Rabiner 1989, https://doi.org/10.1109/5.18626). A forecaster that only fits the recent past must learn the
state anew when it returns; one with a memory should not have to.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
import numpy.typing as npt

from backtest.synthetic.candles import Floats, series_of
from strategies.bars import BarSeries

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RegimeSettings:
    """The states and how they follow each other.

    Raises:
        ValueError: the states do not match, or the last one cannot both leave and come back.
    """

    means: tuple[float, ...] = (0.0004, -0.0004, 0.0, 0.0012)
    """Mean log return per bar of every state; the last is the one that stays away."""
    volatilities: tuple[float, ...] = (0.003, 0.004, 0.002, 0.006)
    dwell: int = 2000
    """Mean bars in a state."""
    absent_from: int = 30_000
    """Bar from which the last state does not come."""
    absent_until: int = 80_000

    def __post_init__(self) -> None:
        if len(self.means) != len(self.volatilities) or len(self.means) < 2:
            raise ValueError(
                f"{len(self.means)} means and {len(self.volatilities)} volatilities; give two or more of each"
            )
        if min(self.volatilities) <= 0.0 or self.dwell < 2:
            raise ValueError("volatilities must be positive and dwell at least 2 bars")
        if not 0 <= self.absent_from < self.absent_until:
            raise ValueError(f"absent_from {self.absent_from} must be before absent_until {self.absent_until}")


@dataclass(frozen=True, slots=True, eq=False)
class RegimeTask:
    """A series of hidden states."""

    series: BarSeries
    returns: Floats
    """``[n]`` log returns of the bars."""
    states: Integers
    """``[n]`` the state of every bar."""
    filtered: Floats
    """``[n, states]`` probabilities of the state of a bar from the returns up to it, its own included."""


def regime_task(
    seed: int, bars: int, settings: RegimeSettings | None = None, *, symbol: str = "REGIMEUSDT"
) -> RegimeTask:
    """A market that wanders between states. The same seed gives the same bars."""
    settings = settings or RegimeSettings()
    generator = np.random.default_rng(seed)
    count, rare = len(settings.means), len(settings.means) - 1
    states = np.empty(bars, dtype=np.int64)
    current = 0
    leaving = generator.random(bars) < 1.0 / settings.dwell
    for place in range(bars):
        away = settings.absent_from <= place < settings.absent_until
        if place == settings.absent_until:
            current = rare
        elif leaving[place] or (away and current == rare):
            others = [state for state in range(count) if state != current and not (away and state == rare)]
            current = int(generator.choice(others))
        states[place] = current
    means, volatilities = np.array(settings.means), np.array(settings.volatilities)
    returns = means[states] + volatilities[states] * generator.standard_normal(bars)
    return RegimeTask(series_of(symbol, returns, generator), returns, states, forward_filter(returns, settings))


def forward_filter(returns: Floats, settings: RegimeSettings) -> Floats:
    """Probabilities of the states from the returns so far, ``[n, states]``, with the true parameters.

    It does not know about the absence, so it is the best forecast for one who only knows the law of the states.
    """
    count = len(settings.means)
    means, volatilities = np.array(settings.means), np.array(settings.volatilities)
    change = 1.0 / settings.dwell
    transition = np.full((count, count), change / (count - 1))
    np.fill_diagonal(transition, 1.0 - change)
    densities = np.exp(-0.5 * ((returns[:, None] - means) / volatilities) ** 2) / (volatilities * np.sqrt(2.0 * pi))
    densities = np.maximum(densities, np.finfo(np.float64).tiny)
    filtered = np.empty((len(returns), count))
    belief = np.full(count, 1.0 / count)
    for place, density in enumerate(densities):
        belief = (belief @ transition) * density
        belief /= belief.sum()
        filtered[place] = belief
    return filtered
