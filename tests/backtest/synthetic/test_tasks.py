"""Noise, needles and regimes: the optimum that each task states is the one that its data has."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.synthetic.needle import needle_task
from backtest.synthetic.noise import GarchSettings, expected_variance, noise_task
from backtest.synthetic.regimes import RegimeSettings, forward_filter, regime_task
from strategies.outcomes import outcome_matrix


def test_noise_has_the_volatility_that_it_states_and_no_direction() -> None:
    task = noise_task(0, 100_000)
    returns = np.diff(np.log(task.series.close))
    scaled = returns / task.volatility[1:]
    assert scaled.std() == pytest.approx(1.0, abs=0.01)
    assert abs(scaled.mean()) < 4.0 / np.sqrt(len(scaled))
    assert abs(np.corrcoef(scaled[:-1], scaled[1:])[0, 1]) < 4.0 / np.sqrt(len(scaled))


def test_the_expected_variance_is_the_mean_of_what_follows() -> None:
    settings = GarchSettings()
    task = noise_task(1, 200_000, settings)
    horizon = 12
    following = outcome_matrix(task.series.close, (horizon,))[:-horizon, 0] ** 2
    expected = expected_variance(task.volatility[1 : len(following) + 1], horizon, settings)
    assert following.mean() == pytest.approx(expected.mean(), rel=0.05)
    high = expected > np.quantile(expected, 0.9)
    assert following[high].mean() == pytest.approx(expected[high].mean(), rel=0.15)


def test_a_garch_without_a_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reaction \+ persistence is 1.1"):
        GarchSettings(reaction=0.2, persistence=0.9)


def test_every_cue_lies_closest_to_its_needle() -> None:
    task = needle_task(2, moments=20_000, delays=(100, 5_000), per_delay=10)
    scores = task.cues @ task.keys.T
    assert (scores.argmax(axis=1) == task.needles).all()
    assert (task.cues * task.keys[task.needles]).sum(axis=1) == pytest.approx(np.full(20, 0.75), abs=1e-5)
    assert (task.needles + task.asked_after < 20_000).all()
    assert len(set(task.needles.tolist())) == 20


def test_a_delay_longer_than_the_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="delay 500 does not fit into 400 moments"):
        needle_task(0, moments=400, delays=(500,))


def test_the_rare_regime_stays_away_and_comes_back() -> None:
    settings = RegimeSettings(dwell=300, absent_from=5_000, absent_until=15_000)
    task = regime_task(3, 20_000, settings)
    assert (task.states[:5_000] == 3).any()
    assert not (task.states[5_000:15_000] == 3).any()
    assert task.states[15_000] == 3


def test_the_filter_is_calibrated_and_uses_the_past_alone() -> None:
    settings = RegimeSettings(dwell=200, absent_from=0, absent_until=1)
    task = regime_task(4, 60_000, settings)
    sure = task.filtered.max(axis=1)
    right = task.filtered.argmax(axis=1) == task.states
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        rows = (sure >= low) & (sure < high)
        assert right[rows].mean() == pytest.approx(sure[rows].mean(), abs=0.06)
    changed = task.returns.copy()
    changed[1_000:] = 0.05
    assert (forward_filter(changed, settings)[:1_000] == task.filtered[:1_000]).all()
