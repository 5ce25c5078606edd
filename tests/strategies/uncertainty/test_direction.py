"""The direction: what quantiles imply, and a curve that says the base rate until there is skill."""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.readout import QUANTILES
from strategies.uncertainty.direction import raw_rise_probability
from strategies.uncertainty.platt import Platt, fit, rise_of, score_of, unskilled, update

NORMAL = np.array([NormalDist().inv_cdf(each) for each in QUANTILES])


@given(st.lists(st.floats(-1.0, 1.0), min_size=7, max_size=7).map(sorted), st.floats(0.0, 0.5))
def test_a_distribution_further_up_rises_more_probably(quantiles: list[float], shift: float):
    here, further = (
        raw_rise_probability(QUANTILES, quantiles),
        raw_rise_probability(QUANTILES, [q + shift for q in quantiles]),
    )
    assert 0.0 <= here <= further + 1e-12 <= 1.0 + 1e-12


def test_a_mirrored_distribution_falls_as_probably_as_the_other_rises():
    for mean in np.linspace(-4.0, 4.0, 33):
        up = raw_rise_probability(QUANTILES, (NORMAL + mean).tolist())
        down = raw_rise_probability(QUANTILES, (NORMAL - mean).tolist())
        assert up + down == pytest.approx(1.0)
        assert up == pytest.approx(NormalDist().cdf(mean), abs=0.03)


def test_beyond_the_outermost_quantiles_the_probability_goes_on_without_a_jump():
    values = [raw_rise_probability(QUANTILES, (NORMAL + mean).tolist()) for mean in np.linspace(-3.0, 3.0, 6001)]
    assert max(after - before for before, after in pairwise(values)) < 1e-3
    assert values[0] > 0.0
    assert raw_rise_probability(QUANTILES, [0.0] * 7) == 0.5
    assert raw_rise_probability(QUANTILES, [1.0] * 7) == 1.0


def stream(seed: int, bars: int, skill: float, overconfidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are so many times the true log odds, and what came."""
    generator = np.random.default_rng(seed)
    odds = skill * generator.standard_normal(bars)
    rises = (generator.random(bars) < 1.0 / (1.0 + np.exp(-odds))).astype(np.float64)
    scores = overconfidence * (odds if skill else generator.standard_normal(bars))
    return np.clip(scores, score_of(0.0), score_of(1.0)), rises


def calibration_error(probabilities: np.ndarray, rises: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width (Naeini and others, AAAI 2015)."""
    bins = np.minimum((10.0 * probabilities).astype(int), 9)
    return float(sum(abs((probabilities - rises)[bins == each].sum()) for each in range(10)) / len(rises))


def followed(platt: Platt, scores: np.ndarray, rises: np.ndarray, delay: int) -> np.ndarray:
    """Probabilities of a curve that learns every outcome so many bars late."""
    said = []
    for bar, score in enumerate(scores.tolist()):
        if bar >= delay:
            platt = update(platt, float(scores[bar - delay]), float(rises[bar - delay]), 1)
        said.append(platt.calibrated(score))
    return np.array(said)


@pytest.mark.parametrize("seed", [1, 2])
def test_overconfident_probabilities_are_calibrated_on_the_stream(seed: int):
    scores, rises = stream(seed, 16_000, 0.6, 4.0)
    said = followed(unskilled(), scores, rises, 24)
    raw = 1.0 / (1.0 + np.exp(-scores))
    late = slice(4_000, None)
    assert calibration_error(raw[late], rises[late]) > 0.15
    assert calibration_error(said[late], rises[late]) < 0.02
    assert np.square(said - rises)[late].mean() < 0.245, "it says nothing"


@pytest.mark.parametrize("seed", [1, 2])
def test_without_skill_the_probability_stays_near_one_half(seed: int):
    scores, rises = stream(seed, 12_000, 0.0, 2.0)
    said = followed(Platt(0.5, 0.0, 1.0), scores, rises, 24)
    assert np.abs(said[4_000:] - 0.5).mean() < 0.03


def test_the_fitted_curve_is_the_most_probable_one():
    scores, rises = stream(3, 3_000, 0.8, 2.0)
    platt = fit(scores, rises, 500.0, 6)
    residual = rises - np.array([platt.calibrated(score) for score in scores.tolist()])
    prior = Platt(platt.base_rate, 0.0, 0.0)
    centre = np.log(prior.base_rate / (1.0 - prior.base_rate))
    assert residual.sum() / 6.0 == pytest.approx(25.0 * (platt.intercept - centre), abs=1e-7)
    assert (residual * scores).sum() / 6.0 == pytest.approx(platt.slope, abs=1e-7)
    assert 0.35 < platt.slope < 0.6


@settings(deadline=None)
@given(st.floats(-0.9, 0.9), st.integers(1, 48))
def test_few_outcomes_move_the_base_rate_little_and_none_not_at_all(outcome: float, horizon: int):
    assert fit(np.empty(0), np.empty(0), 0.0, horizon) == unskilled()
    rise = rise_of(outcome)
    platt = fit(np.array([score_of(0.9)]), np.array([rise]), 1.0, horizon)
    assert abs(platt.base_rate - 0.5) < 0.03
    assert abs(update(unskilled(), 2.0, rise, horizon).calibrated(2.0) - 0.5) <= 0.5 / horizon
