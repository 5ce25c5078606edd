"""What a validation span gives: offsets, a curve, and abstention only by a score that orders the error; sizes from them."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.readout import QUANTILES
from strategies.uncertainty.abstention import choose_abstention, stretches_of, student_quantile
from strategies.uncertainty.calibration import Calibration, Score, uncalibrated
from strategies.uncertainty.fitting import ValidationForecasts, fit_calibration
from strategies.uncertainty.risk_coverage import risk_coverage
from strategies.uncertainty.sizing import exposure
from tests.strategies.uncertainty.test_direction import NORMAL

HOUR = 3_600_000
HORIZONS = (1, 4)


def validation(seed: int, bars: int = 4_000) -> ValidationForecasts:
    """Normal outcomes, forecasts that are half as wide; a score that tells the error and one that does not."""
    generator = np.random.default_rng(seed)
    scales = np.full((bars, 2), 0.01)
    wild = np.exp(0.8 * generator.standard_normal(bars))
    outcomes = 0.01 * wild[:, None] * generator.standard_normal((bars, 2))
    scores = {Score.SPREAD: wild, Score.NOVELTY: generator.random(bars)}
    quantiles = np.broadcast_to(0.005 * NORMAL, (bars, 2, 7))
    return ValidationForecasts(HOUR * np.arange(bars), quantiles, scales, outcomes, scores)


def fitted(forecasts: ValidationForecasts) -> Calibration:
    return fit_calibration(forecasts, HORIZONS, 1, stretch_ms=24 * HOUR)


def test_the_offsets_make_every_level_hold_on_the_validation_span():
    forecasts = validation(1)
    for place, each in enumerate(fitted(forecasts).horizons):
        levels = forecasts.quantiles[:, place] + forecasts.scales[:, place, None] * np.array(each.offsets)
        shares = (forecasts.outcomes[:, place, None] <= levels).mean(axis=0)
        assert shares == pytest.approx(QUANTILES, abs=1e-3)


def test_a_calibration_goes_through_json_unchanged():
    calibration = fitted(validation(1))
    assert calibration.abstention is not None and calibration.bars == 4_000
    assert Calibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration


def test_a_calibration_whose_parts_do_not_fit_is_refused():
    plain = uncalibrated(QUANTILES, HORIZONS).as_dict()
    plain["probabilities"] = plain["probabilities"][1:]
    with pytest.raises(msgspec.ValidationError, match="7 offsets for 6 levels"):
        Calibration.from_dict(plain)


def test_too_short_a_span_leaves_the_quantiles_as_they_come():
    calibration = fitted(validation(2, 15))
    assert all(set(each.offsets) == {0.0} for each in calibration.horizons)
    assert calibration.abstention is None


def test_outcomes_that_are_not_known_change_nothing():
    forecasts = validation(3)
    outcomes = forecasts.outcomes.copy()
    outcomes[3_000:] = np.nan
    cut = slice(0, 3_000)
    short = ValidationForecasts(
        forecasts.close_time[cut],
        forecasts.quantiles[cut],
        forecasts.scales[cut],
        forecasts.outcomes[cut],
        {name: score[cut] for name, score in forecasts.scores.items()},
    )
    unknown, known = fitted(replace(forecasts, outcomes=outcomes)), fitted(short)
    assert (unknown.horizons, unknown.abstention) == (known.horizons, known.abstention)


def test_the_score_that_tells_the_error_is_chosen_and_lowers_it():
    rule = fitted(validation(4)).abstention
    assert rule is not None and rule.score is Score.SPREAD
    assert rule.gain > 0.1 and 0.65 < rule.coverage < 0.96
    assert rule.abstains({Score.SPREAD: rule.threshold * 1.01})
    assert not rule.abstains({Score.SPREAD: rule.threshold})
    assert rule.abstains({Score.SPREAD: float("nan")})


def test_scores_that_know_nothing_are_hardly_ever_chosen():
    chosen = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        error = np.repeat(np.exp(generator.standard_normal(150)), 10) * generator.random(1_500)
        scores = {name: np.repeat(generator.random(150), 10) + generator.random(1_500) for name in Score}
        chosen += choose_abstention(scores, error, stretches_of(HOUR * np.arange(1_500), 30 * HOUR)) is not None
    assert chosen <= 10


def test_a_score_against_the_error_is_never_chosen():
    forecasts = validation(5)
    assert fitted(replace(forecasts, scores={Score.SCARCITY: -forecasts.scores[Score.SPREAD]})).abstention is None


@pytest.mark.parametrize(
    ("probability", "freedom", "table"), [(0.975, 10, 2.228), (0.99, 4, 3.747), (0.995, 20, 2.845)]
)
def test_quantiles_of_students_t_are_those_of_the_tables(probability: float, freedom: int, table: float):
    assert student_quantile(probability, freedom) == pytest.approx(table, rel=0.01)


def test_the_risk_falls_with_coverage_only_where_the_score_knows():
    error = np.arange(1.0, 101.0)
    oracle, blind, wrong = (risk_coverage(score, error) for score in (error, np.zeros(100), -error))
    assert oracle.risk[0] == 1.0 and oracle.coverage[-1] == 1.0
    assert oracle.area < blind.area < wrong.area
    assert blind.area == pytest.approx(error.mean())
    assert list(blind.coverage) == [1.0]
    assert oracle.area == pytest.approx(np.mean([error[:n].mean() for n in range(1, 101)]))


@given(st.floats(0.0, 1.0), st.floats(0.0, 10.0), st.floats(1e-6, 10.0), st.floats(0.01, 1.0))
def test_a_position_is_on_the_probable_side_and_within_the_target_volatility(
    up: float, volatility: float, target: float, whole_at: float
):
    size = exposure(up, volatility, target, whole_at=whole_at)
    assert -1.0 <= size <= 1.0
    assert abs(size) * volatility <= target * (1.0 + 1e-9)
    assert size * (up - 0.5) >= 0.0
    assert size == pytest.approx(-exposure(1.0 - up, volatility, target, whole_at=whole_at), abs=1e-9)
