"""Positions moved in time, and twins with a shuffled memory."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.significance.permutation import memory_contribution, shifted_signals


def test_every_shift_is_what_moving_the_positions_gives() -> None:
    random = np.random.default_rng(0)
    exposure, returns = random.normal(size=(40, 2)), random.normal(size=(40, 2))
    found = shifted_signals(exposure, returns, nearest=3)
    assert found is not None
    by_hand = [float((np.roll(exposure, shift, axis=0) * returns).sum()) for shift in range(3, 38)]
    assert found.statistic == pytest.approx(float((exposure * returns).sum()))
    assert found.permutations == len(by_hand)
    assert found.mean == pytest.approx(np.mean(by_hand))
    assert found.p_value == (1 + sum(value >= found.statistic for value in by_hand)) / (1 + len(by_hand))


def test_holding_all_the_time_has_no_timing() -> None:
    returns = np.random.default_rng(0).normal(0.01, 0.01, (300, 1))
    found = shifted_signals(np.ones((300, 1)), returns)
    assert found is not None and found.p_value == 1.0


def test_perfect_timing_is_the_best_of_all_shifts() -> None:
    returns = np.random.default_rng(0).normal(0.0, 0.01, (300, 1))
    found = shifted_signals(np.sign(returns), returns)
    assert found is not None and found.p_value == 1 / (1 + found.permutations)


def test_without_positions_or_bars_there_is_nothing_to_shift() -> None:
    assert shifted_signals(np.zeros((100, 1)), np.ones((100, 1))) is None
    assert shifted_signals(np.ones((3, 1)), np.ones((3, 1))) is None


def test_positions_drawn_without_a_look_at_the_market_are_found_as_rarely_as_promised() -> None:
    """Persistent positions and returns with fat tails, 200 of them: 5 % expected, 10 % has a chance below 0.2 %."""
    found = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        exposure = np.repeat(random.choice([-1.0, 0.0, 1.0], 60), 10)[:, None]
        test = shifted_signals(exposure, 0.01 * random.standard_t(3, (600, 1)))
        found += test is not None and test.p_value <= 0.05
    assert found <= 20


def test_a_memory_that_earns_every_day_is_told_from_its_twin_and_one_that_does_not_is_not() -> None:
    random = np.random.default_rng(5)
    base, own = random.normal(0.0, 0.01, 400), random.normal(0.0, 0.004, 400)
    better = memory_contribution(base + own + 0.002, [base], 365, level=0.05, resamples=400, seed=0)
    alike = memory_contribution(base + own - own.mean(), [base], 365, level=0.05, resamples=400, seed=0)
    assert better is not None and better.p_value < 0.01 and better.difference.low is not None
    assert better.difference.low > 0.0 and better.method == "paired bootstrap"
    assert alike is not None and alike.p_value > 0.2


def test_with_twins_enough_the_p_value_is_the_rank_among_them() -> None:
    random = np.random.default_rng(6)
    twins = [random.normal(0.0, 0.01, 100) for _ in range(19)]
    totals = sorted(float(np.prod(1 + twin)) for twin in twins)
    best = memory_contribution(np.full(100, 0.02), twins, 365, level=0.05, resamples=50, seed=0)
    middle = memory_contribution(
        np.full(100, totals[9] ** 0.01 - 1 + 1e-12), twins, 365, level=0.05, resamples=50, seed=0
    )
    assert best is not None and best.p_value == pytest.approx(1 / 20) and best.method == "permutation"
    assert middle is not None and middle.p_value == pytest.approx(10 / 20)


def test_a_run_without_twins_has_no_contribution() -> None:
    assert memory_contribution(np.ones(9), [], 365, level=0.05, resamples=10, seed=0) is None
