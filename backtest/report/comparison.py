"""Runs side by side: their figures, and whether the difference of their returns can be told from luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from backtest.report.formats import money, number, percent
from backtest.report.judgement import Judgement
from backtest.report.material import Material
from backtest.report.returns import DailyReturns
from backtest.significance.assessment import RESAMPLES
from backtest.significance.sharpe import block_length, moves
from backtest.significance.verdict import LEVEL
from bot.errors import UsageError
from strategies.bars import FloatArray

FIGURES: Final = (
    ("total_return", "Total return"),
    ("annual_return", "Annual return"),
    ("volatility", "Volatility, annual"),
    ("sharpe_ratio", "Sharpe ratio"),
    ("sortino_ratio", "Sortino ratio"),
    ("calmar_ratio", "Calmar ratio"),
    ("max_drawdown", "Maximum drawdown"),
    ("max_drawdown_days", "Longest drawdown, days"),
    ("trades", "Closed round trips"),
    ("win_rate", "Win rate, after costs"),
    ("profit_factor", "Profit factor"),
    ("expectancy", "Mean result per trade"),
    ("fees_paid", "Fees"),
    ("funding_paid", "Funding"),
    ("turnover", "Turnover"),
)
"""Name in ``PerformanceMetrics`` and the words for it."""
FEWEST_DAYS: Final = 20
"""Common days below which no interval is given."""
_PERCENTS: Final = (
    "total_return",
    "annual_return",
    "volatility",
    "max_drawdown",
    "win_rate",
    "expectancy",
)
_MONEY: Final = ("fees_paid", "funding_paid", "turnover")


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and what it might as well have been; no bounds where there were too few days."""

    value: float
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference can be told from none."""
        return self.low is not None and self.high is not None and (self.low > 0.0 or self.high < 0.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """One run less the first one, over the days that both have."""

    run_id: str
    days: int
    annual_return: Interval
    """Of mean daily returns, arithmetic, times the days of a year."""
    sharpe_ratio: Interval
    correlation: float | None
    """Of the daily returns."""

    def told(self, first: str) -> tuple[str, str]:
        """Whether it can be told from the run ``first``, and the figures in a sentence."""
        verb = "can be told" if self.sharpe_ratio.excludes_zero else "cannot be told"
        returned = _more(self.annual_return, 100.0, 1, " % a year")
        rated = _more(self.sharpe_ratio, 1.0, 2, "", low="lower", high="higher")
        correlation = number(self.correlation, 2, signed=True)
        sentence = (
            f"Over {self.days:,} common days it returned {returned}, and its Sharpe ratio was {rated}; the correlation of "
            f"daily returns is {correlation}"
        )
        return f"{self.run_id} {verb} from {first}", f"{sentence}."


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs, and the others held against the first."""

    runs: tuple[str, ...]
    figures: dict[str, tuple[float | int | None, ...]]
    """By name in ``PerformanceMetrics``, in the order of ``runs``."""
    differences: tuple[Difference, ...]
    judgements: tuple[Judgement, ...]
    """Of every run, in the order of ``runs``."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "runs": list(self.runs),
            "figures": self.figures,
            "differences": [asdict(each) for each in self.differences],
            "judgements": [each.to_json() for each in self.judgements],
        }


def require_different(runs: Sequence[str]) -> None:
    """
    Raises:
        UsageError: there are fewer than two, or one is named twice.
    """
    if len(set(runs)) < max(2, len(runs)):
        raise UsageError(f"compare two runs or more, each named once; these are {', '.join(runs)}; see recall runs")


def compare(materials: Sequence[Material]) -> Comparison:
    """Hold runs against the first of them.

    Differences are those of paired days, with intervals from a stationary bootstrap that draws the same stretches of days
    for both (Politis and Romano 1994; Ledoit and Wolf, "Robust performance hypothesis testing with the Sharpe ratio",
    2008, resample pairs alike).

    Raises:
        UsageError: there are fewer than two, one is named twice, or a run has no day in common with the first.
    """
    runs = tuple(each.about.run_id for each in materials)
    require_different(runs)
    first = materials[0]
    return Comparison(
        runs,
        {name: tuple(each.figures.get(name) for each in materials) for name, _ in FIGURES},
        tuple(_difference(each, first) for each in materials[1:]),
        tuple(each.judgement for each in materials),
    )


def shown_figure(name: str, value: float | int | None) -> str:
    """A figure of a comparison as a person reads it."""
    if value is None or name not in (*_PERCENTS, *_MONEY, "trades", "max_drawdown_days"):
        return number(value, 2)
    if name in _PERCENTS:
        return percent(value, 3 if name == "expectancy" else 1)
    return money(value) if name in _MONEY else number(value, 0)


def _more(interval: Interval, scale: float, digits: int, unit: str, *, low: str = "less", high: str = "more") -> str:
    """A difference in words, with what it might as well have been."""
    text = f"{number(abs(scale * interval.value), digits)}{unit} {high if interval.value >= 0.0 else low}"
    if interval.low is None or interval.high is None:
        return text
    ends = [number(scale * each, digits, signed=True) for each in (interval.low, interval.high)]
    return f"{text} ({100.0 * (1.0 - LEVEL):.0f} %: {' to '.join(ends)})"


def _difference(other: Material, first: Material) -> Difference:
    days, own, base = common_days(other.daily, first.daily)
    if not days:
        raise UsageError(
            f"runs {other.about.run_id} and {first.about.run_id} have no day in common; compare runs over the same span"
        )
    year = first.calendar.days_per_year
    spreads = float(own.std()), float(base.std())
    return Difference(
        other.about.run_id,
        days,
        *_intervals(own, base, year),
        float(np.corrcoef(own, base)[0, 1]) if min(spreads) > 0.0 else None,
    )


def common_days(one: DailyReturns, other: DailyReturns) -> tuple[int, FloatArray, FloatArray]:
    """How many days two runs share, and the returns of both on them, ``[days]`` each."""
    days, mine, theirs = np.intersect1d(one.days, other.days, return_indices=True)
    return len(days), one.returns[mine], other.returns[theirs]


def _intervals(own: FloatArray, base: FloatArray, year: int) -> tuple[Interval, Interval]:
    """Of the difference of annual returns, and of Sharpe ratios."""

    def annual(weights: FloatArray) -> FloatArray:
        return np.asarray(year * (weights @ (own - base)) / weights.sum(axis=-1))

    def ratio(returns: FloatArray, weights: FloatArray) -> FloatArray:
        total = weights.sum(axis=-1)
        mean = weights @ returns / total
        variance = np.maximum(0.0, weights @ returns**2 / total - mean**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = mean / np.sqrt(variance * len(returns) / max(1, len(returns) - 1)) * np.sqrt(year)
        return np.where(np.isfinite(drawn), drawn, 0.0)

    def sharpe(weights: FloatArray) -> FloatArray:
        return ratio(own, weights) - ratio(base, weights)

    if len(own) < FEWEST_DAYS:
        once = np.ones(len(own))
        return Interval(float(annual(once)), None, None), Interval(float(sharpe(once)), None, None)
    # The library behind it takes half a second to load.
    from backtest.evaluation.intervals import Resamples

    length = block_length(own - base) if moves(own - base) else 1
    drawn = Resamples.draw(len(own), length, resamples=RESAMPLES)
    figures = [drawn.figure(metric, level=1.0 - LEVEL) for metric in (annual, sharpe)]
    returned, rated = (Interval(each.value or 0.0, each.low, each.high) for each in figures)
    return returned, rated
