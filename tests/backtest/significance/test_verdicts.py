"""Verdicts over many strategies: how rarely luck is called an edge, and how often an edge is."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.significance.assessment import Account, Evidence, assess
from backtest.significance.sharpe import Trials
from backtest.significance.verdict import LEVEL, Outcome, SignificanceReport
from strategies.bars import DAY_MS, Calendar, FloatArray

BARS_PER_DAY = 6
DAYS = 365
FEE = 0.0002


def walk(random: np.random.Generator) -> FloatArray:
    """Returns of a market that no one can foresee, with calm and wild stretches and fat tails."""
    level = np.exp(np.repeat(random.normal(0.0, 0.5, DAYS // 5 + 1), 5 * BARS_PER_DAY)[: DAYS * BARS_PER_DAY])
    return 0.006 * level * random.standard_t(4, DAYS * BARS_PER_DAY) / np.sqrt(2.0)


def judge(returns: FloatArray, position: FloatArray, *, fee: float, trials: Trials | None = None) -> SignificanceReport:
    """The verdict on positions that are held from one close to the next."""
    changes = np.abs(np.diff(position, prepend=0.0))
    equity = 1000.0 * np.cumprod(1.0 + position * returns - fee * changes)
    times = DAY_MS // BARS_PER_DAY * np.arange(1, len(returns) + 1, dtype=np.int64)
    evidence = Evidence(
        Account(times, equity, 1000.0, Calendar.CONTINUOUS),
        {"hold": 1000.0 * np.cumprod(1.0 + returns)},
        np.append(position[1:], 0.0)[:, None],
        np.append(returns[1:], 0.0)[:, None],
        trials=trials or Trials(),
    )
    return assess(evidence, resamples=200, seed=1)


def seeded(random: np.random.Generator) -> FloatArray:
    """Positions of a strategy: long, short or flat for some hours or days, without a look at the future."""
    length = int(random.integers(1, 30))
    drawn = random.choice([-1.0, 0.0, 1.0], DAYS * BARS_PER_DAY // length + 1)
    return np.repeat(drawn, length)[: DAYS * BARS_PER_DAY]


def verdicts(edge: float, strategies: int, *, fee: float) -> list[SignificanceReport]:
    """Verdicts on strategies of as many seeds, each on a market of its own.

    Args:
        edge: correlation of position and next return that is planted, by giving away some of the bars.
        strategies: how many.
        fee: of every change of position.
    """
    found = []
    for seed in range(strategies):
        random = np.random.default_rng(seed)
        returns, position = walk(random), seeded(random)
        known = random.random(len(position)) < edge
        found.append(judge(returns, np.where(known, np.sign(returns), position), fee=fee))
    return found


def share(found: list[SignificanceReport], outcome: Outcome) -> float:
    return sum(each.outcome is outcome for each in found) / len(found)


@pytest.mark.slow
def test_of_200_strategies_without_an_edge_no_more_than_the_level_are_called_significant() -> None:
    """Without costs, which is hardest: with them nearly all lose."""
    found = verdicts(0.0, 200, fee=0.0)
    print({str(outcome): share(found, outcome) for outcome in Outcome})
    assert share(found, Outcome.SIGNIFICANT) <= LEVEL
    assert share(found, Outcome.LOSS) <= 2 * LEVEL


@pytest.mark.slow
def test_the_best_of_200_strategies_without_an_edge_is_not_significant_once_the_trials_are_counted() -> None:
    random = np.random.default_rng(7)
    returns = walk(random)
    tried = [judge(returns, seeded(random), fee=0.0) for _ in range(200)]
    ratios = np.array([each.sharpe_ratio.value for each in tried]) / np.sqrt(365)
    best = int(np.argmax(ratios))
    assert tried[best].probabilistic_sharpe is not None and tried[best].probabilistic_sharpe > 1.0 - LEVEL
    random = np.random.default_rng(7)
    walk(random)
    again = [seeded(random) for _ in range(best + 1)][-1]
    counted = judge(returns, again, fee=0.0, trials=Trials(200, float(ratios.var(ddof=1))))
    assert counted.probabilistic_sharpe == tried[best].probabilistic_sharpe
    assert counted.outcome is Outcome.LUCK and counted.trials == 200


@pytest.mark.slow
def test_the_power_grows_with_the_edge() -> None:
    """Costs are paid. The figures are in docs/backtesting.md; pytest -s shows them."""
    powers = [share(verdicts(edge, 40, fee=FEE), Outcome.SIGNIFICANT) for edge in (0.05, 0.1, 0.2)]
    print(f"power with an edge of 5, 10 and 20 %: {powers}")
    assert powers == sorted(powers)
    assert powers[-1] >= 0.9


def test_a_strong_edge_is_significant_and_noise_is_not() -> None:
    assert verdicts(0.3, 1, fee=FEE)[0].outcome is Outcome.SIGNIFICANT
    assert verdicts(0.0, 1, fee=0.0)[0].outcome is Outcome.LUCK


def test_steady_costs_without_an_edge_are_a_loss() -> None:
    assert verdicts(0.0, 1, fee=0.02)[0].outcome is Outcome.LOSS


def test_holding_a_rising_market_is_not_better_than_holding_it() -> None:
    returns = walk(np.random.default_rng(3)) + 0.002
    report = judge(returns, np.ones(len(returns)), fee=0.0)
    assert report.deflated_sharpe is not None and report.deflated_sharpe > 0.95
    assert report.outcome is Outcome.LUCK
    assert "simpler ways" in report.sentences()[0]


def test_an_account_that_stands_still_or_is_young_is_not_judged() -> None:
    still = judge(walk(np.random.default_rng(1)), np.zeros(DAYS * BARS_PER_DAY), fee=0.0)
    assert still.outcome is Outcome.UNDECIDED and still.shifted_signals is None
    young = judge(walk(np.random.default_rng(1))[: 20 * BARS_PER_DAY], np.ones(20 * BARS_PER_DAY), fee=0.0)
    assert young.outcome is Outcome.UNDECIDED and "too few" in young.sentences()[0]


def test_bars_after_a_day_change_nothing_that_was_said_of_the_days_before() -> None:
    """Daily returns up to a day, and what follows from them, do not know what comes after."""
    random = np.random.default_rng(2)
    returns, position = walk(random), seeded(random)
    part = 200 * BARS_PER_DAY
    other = np.concatenate((returns[:part], 5.0 * returns[part:][::-1]))
    before = judge(returns[:part], position[:part], fee=FEE)
    again = judge(other[:part], position[:part], fee=FEE)
    assert before == again
