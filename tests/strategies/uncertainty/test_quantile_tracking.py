"""Quantile tracking: coverage that no series can spoil, with the delay of the outcomes."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.synthetic.noise import GarchSettings, noise_task
from strategies.readout import QUANTILES
from strategies.uncertainty.calibration import uncalibrated
from strategies.uncertainty.online import OnlineUncertainty, RawForecast
from strategies.uncertainty.quantile_tracking import coverage_bound, issue, track

YEAR = 8760
HORIZON = 24


def covered_shares(residuals: list[float], horizon: int, step: float, adversary: bool) -> list[tuple[int, np.ndarray]]:
    """Shares of outcomes at or below each level after every matured forecast of 0 with scale 1."""
    offsets = (0.0,) * len(QUANTILES)
    waiting: list[tuple[tuple[float, ...], float]] = []
    covered, shares = np.zeros(len(QUANTILES)), []
    for bar, residual in enumerate(residuals):
        if bar >= horizon:
            levels, outcome = waiting[bar - horizon]
            offsets = track(offsets, QUANTILES, levels, outcome, step)
            covered += np.array(levels) >= outcome
            shares.append((bar - horizon + 1, covered / (bar - horizon + 1)))
        levels = issue((0.0,) * len(QUANTILES), offsets, 1.0)
        # The adversary sees the median before it chooses on which side of it to come out.
        outcome = abs(residual) * (1.0 if levels[3] < 0.3 else -1.0) if adversary else residual
        waiting.append((levels, outcome))
    return shares


@settings(max_examples=40, deadline=None)
@given(
    residuals=st.lists(st.floats(-1.0, 1.0), min_size=30, max_size=200),
    horizon=st.integers(1, 24),
    step=st.sampled_from([0.01, 0.1, 0.5]),
    adversary=st.booleans(),
)
def test_no_series_can_take_the_coverage_beyond_its_bound(
    residuals: list[float], horizon: int, step: float, adversary: bool
):
    for count, shares in covered_shares(residuals, horizon, step, adversary):
        assert np.abs(shares - QUANTILES).max() <= coverage_bound(count, horizon, 1.0, step) + 1e-9


def test_without_a_delay_the_bound_is_that_of_the_paper():
    assert coverage_bound(100, 1, 0.5, 0.1) == pytest.approx((1.0 + 0.1) / (0.1 * 100))


def interval_coverage(seed: int, narrowness: float) -> tuple[list[float], list[float]]:
    """Coverage per block of a year of raw and calibrated 80 % intervals of a GARCH market whose volatility doubles."""
    task = noise_task(seed, 3 * YEAR + HORIZON, GarchSettings(reaction=0.12, persistence=0.87))
    returns = np.diff(np.log(task.series.close), prepend=np.log(task.series.close[0]))
    close = np.exp(np.cumsum(returns * np.linspace(1.0, 2.0, len(returns))))
    moves = np.diff(np.log(close), prepend=np.log(close[0]))
    variance, current = [], 0.005**2
    for move in moves.tolist():
        current = 0.98 * current + 0.02 * move * move
        variance.append(current)
    scales = np.sqrt(HORIZON * np.array(variance))
    normal = narrowness * np.array([NormalDist().inv_cdf(each) for each in QUANTILES])
    online = OnlineUncertainty(uncalibrated(QUANTILES, (HORIZON,)))
    issued = []
    for price, scale in zip(close.tolist(), scales.tolist(), strict=True):
        online.settle("NOISEUSDT", price)
        made = online.calibrate("NOISEUSDT", [RawForecast((normal * scale).tolist(), scale)])
        online.remember("NOISEUSDT", price, made)
        issued.append((made[0].quantile(0.1), made[0].quantile(0.9)))
    outcomes = np.log(close[HORIZON:] / close[:-HORIZON])
    low, high = np.array(issued)[:-HORIZON].T
    calibrated = (outcomes > low) & (outcomes <= high)
    raw = np.abs(outcomes) <= normal[5] * scales[:-HORIZON]
    blocks = range(0, 3 * YEAR, YEAR)
    return [raw[at : at + YEAR].mean() for at in blocks], [calibrated[at : at + YEAR].mean() for at in blocks]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_eighty_percent_are_eighty_percent_in_every_year_of_a_drifting_market_with_fat_tails(seed: int):
    raw, calibrated = interval_coverage(seed, 0.75)
    assert max(raw) < 0.74, "the raw intervals are not too narrow"
    assert all(0.78 <= share <= 0.82 for share in calibrated), calibrated
