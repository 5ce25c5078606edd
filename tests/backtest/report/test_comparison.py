"""Runs side by side."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.report.comparison import _intervals, common_days
from backtest.report.returns import DailyReturns
from bot.errors import ExitCode
from tests.backtest.report.conftest import Runs
from tests.bot.cli.terminal import recall as typed
from tests.runs import recall

RANDOM = np.random.default_rng(11)
MARKET = RANDOM.normal(0.0005, 0.02, 800)
BETTER = MARKET + RANDOM.normal(0.002, 0.005, 800)


def test_a_run_that_is_better_on_the_same_days_is_told_from_the_other_though_both_are_noisy() -> None:
    """Pairing takes the market out: alone, neither Sharpe ratio would say so."""
    returned, rated = _intervals(BETTER, MARKET, 365)
    assert returned.value == pytest.approx(365 * np.mean(BETTER - MARKET))
    assert returned.excludes_zero and rated.excludes_zero
    spread = np.std(BETTER - MARKET, ddof=1) / np.sqrt(800) * 365
    assert returned.high - returned.low == pytest.approx(2 * 1.96 * spread, rel=0.2)


def test_noise_cannot_be_told_from_noise() -> None:
    told = [
        _intervals(*np.random.default_rng(seed).normal(0.0, 0.01, (2, 300)), 365)[0].excludes_zero for seed in range(40)
    ]
    assert sum(told) <= 7  # 2 expected; 7 or more has a chance below 1 %


def test_only_days_that_both_have_are_compared() -> None:
    one = DailyReturns(np.array([1, 2, 3]), np.array([0.1, 0.2, 0.3]))
    other = DailyReturns(np.array([2, 3, 4]), np.array([0.5, 0.6, 0.7]))
    days, mine, theirs = common_days(one, other)
    assert (days, mine.tolist(), theirs.tolist()) == (2, [0.2, 0.3], [0.5, 0.6])


def test_the_command_says_what_the_runs_say_themselves(runs: Runs) -> None:
    document = recall(runs.folder, "compare", runs.memory, runs.rule)
    assert document["runs"] == [runs.memory, runs.rule]
    known = {run["run_id"]: run["total_return"] for run in recall(runs.folder, "runs")}
    assert document["figures"]["total_return"] == [known[runs.memory], known[runs.rule]]
    (difference,) = document["differences"]
    assert difference["days"] == 62 and -1.0 <= difference["correlation"] <= 1.0
    assert (
        difference["annual_return"]["low"] < difference["annual_return"]["value"] < difference["annual_return"]["high"]
    )


def test_people_get_a_table_and_a_sentence(runs: Runs) -> None:
    outcome = typed(runs.folder, "compare", runs.memory, runs.rule, "--set", f"storage.data_dir={runs.folder}")
    assert outcome.code == 0
    assert "Sharpe ratio" in outcome.out and f"told from {runs.memory}" in outcome.out


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("{memory}",), "compare two runs or more, each named once; these are {memory}; see recall runs"),
        (("{memory}", "{memory}"), "compare two runs or more, each named once; these are {memory}, {memory}; see recall runs"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(runs: Runs, names: tuple[str, ...], sentence: str) -> None:
    given = [name.format(memory=runs.memory) for name in names]
    outcome = typed(runs.folder, "compare", *given, "--set", f"storage.data_dir={runs.folder}")
    assert outcome.code == ExitCode.USAGE and outcome.error == sentence.format(memory=runs.memory)
