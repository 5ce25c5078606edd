"""Leads over a baseline."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from backtest.significance.superiority import superiority


def test_the_lead_of_one_candidate_with_independent_days_has_the_p_value_of_students_test() -> None:
    random = np.random.default_rng(4)
    baseline, lead = random.normal(0.0, 0.01, 600), random.normal(0.0006, 0.01, 600)
    found = superiority(baseline + lead, baseline, repetitions=4000)
    expected = stats.ttest_1samp(lead, 0.0, alternative="greater").pvalue
    assert found.hansen == pytest.approx(expected, abs=0.02)
    assert found.upper == pytest.approx(expected, abs=0.02)
    assert found.white == pytest.approx(expected, abs=0.02)


def test_the_best_of_many_without_an_edge_is_no_surprise() -> None:
    """The largest of k independent means exceeds a bound with probability 1 - (1 - p)^k."""
    random = np.random.default_rng(9)
    candidates, baseline = random.normal(0.0, 0.01, (500, 20)), np.zeros(500)
    alone = min(superiority(column, baseline, repetitions=500).hansen for column in candidates.T)
    together = superiority(candidates, baseline, repetitions=2000)
    assert together.white == pytest.approx(1.0 - (1.0 - alone) ** 20, abs=0.08)
    assert together.hansen > 0.05 > alone


def test_a_candidate_that_is_its_baseline_has_no_lead() -> None:
    returns = np.random.default_rng(1).normal(0.0, 0.01, 100)
    assert superiority(returns, returns).hansen == 1.0


def test_a_candidate_that_is_far_behind_is_said_to_be() -> None:
    random = np.random.default_rng(4)
    assert superiority(random.normal(-0.003, 0.01, 400), np.zeros(400)).upper > 0.99


def test_the_same_seed_gives_the_same_answer() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 200)
    assert superiority(returns, np.zeros(200), seed=3) == superiority(returns, np.zeros(200), seed=3)
