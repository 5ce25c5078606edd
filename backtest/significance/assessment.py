"""All tests of one result, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from backtest.metrics import daily_equity, daily_returns, performance
from backtest.significance.permutation import memory_contribution, shifted_signals
from backtest.significance.sharpe import Trials, return_intervals, sharpe_evidence
from backtest.significance.superiority import superiority
from backtest.significance.verdict import (
    FEWEST_DAYS,
    LEVEL,
    BaselineComparison,
    SignificanceReport,
    StressCase,
)
from strategies.bars import Calendar, FloatArray, IntArray

RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """An equity curve and what it started from."""

    close_times: IntArray
    """``[n]`` milliseconds."""
    equity: FloatArray
    """``[n]`` quote units."""
    initial_cash: float
    calendar: Calendar

    def of(self, equity: FloatArray) -> Account:
        """Another curve of the same closes."""
        return Account(self.close_times, equity, self.initial_cash, self.calendar)

    @property
    def daily(self) -> FloatArray:
        """Simple daily returns; none where equity was gone on any day."""
        return daily_returns(daily_equity(self.close_times, self.equity, self.initial_cash, self.calendar)[1])

    @property
    def total_return(self) -> float:
        """Of the whole span."""
        return float(self.equity[-1]) / self.initial_cash - 1.0 if len(self.equity) else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A run and all that it is held against."""

    account: Account
    baselines: Mapping[str, FloatArray] = field(default_factory=dict)
    """Equity of other accounts at the same closes, by name; ``flat`` is always added."""
    exposure: FloatArray | None = None
    """``[n, symbols]``; see ``shifted_signals``."""
    returns: FloatArray | None = None
    """``[n, symbols]``."""
    stresses: Mapping[str, FloatArray] = field(default_factory=dict)
    """Equity under other assumptions, by name; see ``stress_runs``."""
    twins: Sequence[FloatArray] = ()
    """Equity with shuffled outcomes."""
    trials: Trials = field(default_factory=Trials)
    skipped: tuple[str, ...] = ()
    has_memory: bool = False


def assess(
    evidence: Evidence, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> SignificanceReport:
    """Every test of a result.

    Args:
        evidence: what is known.
        level: of every test.
        resamples: of every bootstrap.
        seed: of every draw: equal evidence gives an equal report.
    """
    account = evidence.account
    daily, days_per_year = account.daily, account.calendar.days_per_year
    found = sharpe_evidence(daily, evidence.trials, level=level)
    intervals = return_intervals(daily, days_per_year, level=level, resamples=resamples, seed=seed)
    baselines: tuple[BaselineComparison, ...] = ()
    if found.probabilistic is not None and len(daily) >= FEWEST_DAYS:
        baselines = _baselines(evidence, daily, resamples=resamples, seed=seed)
    shifted = None
    if evidence.exposure is not None and evidence.returns is not None:
        shifted = shifted_signals(evidence.exposure, evidence.returns)
    twins = [account.of(twin).daily for twin in evidence.twins]
    return SignificanceReport(
        level=level,
        days=len(daily),
        sharpe_ratio=intervals.sharpe_ratio,
        annual_return=intervals.annual_return,
        probabilistic_sharpe=found.probabilistic,
        deflated_sharpe=found.deflated,
        trials=evidence.trials.count,
        luckiest_sharpe=None if found.luckiest is None else found.luckiest * days_per_year**0.5,
        minimum_track_record_days=found.minimum_days,
        baselines=baselines,
        shifted_signals=shifted,
        stresses=tuple(_stress(name, account.of(equity)) for name, equity in evidence.stresses.items()),
        memory=memory_contribution(daily, twins, days_per_year, level=level, resamples=resamples, seed=seed),
        skipped=evidence.skipped,
        has_memory=evidence.has_memory,
    )


def _baselines(evidence: Evidence, daily: FloatArray, *, resamples: int, seed: int) -> tuple[BaselineComparison, ...]:
    account = evidence.account
    rivals = {"flat": np.full(len(account.equity), account.initial_cash), **evidence.baselines}
    found = []
    for name, equity in rivals.items():
        rival = account.of(equity)
        returns = rival.daily
        if len(returns) != len(daily):
            # An account that is gone is no rival any more: to be flat from the start is better, and is compared with anyhow.
            continue
        p_value = superiority(daily, returns, seed=seed, repetitions=resamples // 2).upper
        figures = performance(rival.close_times, equity, (), initial_cash=rival.initial_cash, calendar=rival.calendar)
        found.append(BaselineComparison(name, figures.total_return, figures.sharpe_ratio, p_value))
    return tuple(found)


def _stress(name: str, account: Account) -> StressCase:
    figures = performance(
        account.close_times, account.equity, (), initial_cash=account.initial_cash, calendar=account.calendar
    )
    return StressCase(name, figures.total_return, figures.annual_return, figures.sharpe_ratio)
