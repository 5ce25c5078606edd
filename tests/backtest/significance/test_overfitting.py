"""Whether choosing the best chooses anything."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.significance.overfitting import chosen_paths, overfitting

DAYS = np.arange(19_000, 19_320, dtype=np.int64)


def test_one_trial_that_is_better_everywhere_is_always_the_right_choice() -> None:
    returns = np.random.default_rng(0).normal(0.0, 0.01, (8, 320))
    returns[3] += 0.02
    found = overfitting(returns, DAYS, 365, purge_days=1, blocks=8)
    assert found is not None and found.probability == 0.0
    assert len(found.path_sharpe) == 9 and found.path_sharpe[0] > 10.0
    paths = chosen_paths(returns, DAYS, purge_days=1)
    assert np.array_equal(paths, np.tile(returns[3], (9, 1)))


def test_among_trials_of_noise_the_choice_is_a_coin() -> None:
    """The paper: without skill the best of one half is anywhere in the other, so that the probability is near one half."""
    found = [
        overfitting(np.random.default_rng(seed).normal(0.0, 0.01, (10, 320)), DAYS, 365, purge_days=1, blocks=6)
        for seed in range(12)
    ]
    assert np.mean([each.probability for each in found if each is not None]) == pytest.approx(0.5, abs=0.15)


def test_days_of_a_test_group_take_no_part_in_the_choice() -> None:
    """A trial that is best only in one group is never chosen for it on the strength of that group."""
    random = np.random.default_rng(3)
    returns = random.normal(0.0, 0.001, (2, 320))
    returns[0] += 0.001
    returns[1, 160:192] += 0.05
    paths = chosen_paths(returns, DAYS, purge_days=1)
    assert np.array_equal(paths[:, 160:192], np.tile(returns[0, 160:192], (9, 1)))


def test_one_trial_or_few_days_cannot_be_judged() -> None:
    random = np.random.default_rng(1)
    assert overfitting(random.normal(size=(1, 320)), DAYS, 365, purge_days=1) is None
    assert overfitting(random.normal(size=(5, 20)), DAYS[:20], 365, purge_days=1) is None
    assert overfitting(np.zeros((5, 320)), DAYS, 365, purge_days=1) is None
