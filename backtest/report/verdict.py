"""The first lines of a report: can the result be told from luck, and how much of it came from the memory, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from backtest.report.formats import number, percent
from backtest.report.recollection import Agreement, Recollection
from backtest.report.returns import DailyReturns
from backtest.significance.verdict import Outcome
from strategies.bars import FloatArray

FEWEST_DAYS: Final = 20
"""Below this no interval is given."""
RESAMPLES: Final = 2000
LEVEL: Final = 0.95


_HEADLINES: Final = {
    Outcome.SIGNIFICANT: ("Better than luck alone explains", "good"),
    Outcome.LUCK: ("Cannot be told from luck", "open"),
    Outcome.LOSS: ("A loss that luck alone does not explain", "bad"),
    Outcome.UNDECIDED: ("Too short to judge", "open"),
}


@dataclass(frozen=True, slots=True)
class SharpeInterval:
    """A Sharpe ratio and what it might as well have been."""

    value: float
    low: float
    high: float
    days: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A headline and the sentences under it."""

    headline: str
    tone: str
    """``good``, ``bad`` or ``open``."""
    sentences: tuple[str, ...]
    sharpe: SharpeInterval | None


def sharpe_interval(daily: DailyReturns, days_per_year: int) -> SharpeInterval | None:
    """The annualised Sharpe ratio with its interval from a stationary bootstrap of daily returns (Politis and Romano 1994).

    Stretches have a mean length of the cube root of the number of days, the rate at which the optimal one grows (Politis
    and White 2004). ``None`` for fewer than ``FEWEST_DAYS`` days, or where returns do not move.
    """
    count = len(daily)
    if count < FEWEST_DAYS or float(daily.returns.std()) == 0.0:
        return None
    # The library behind it takes half a second to load, which a report without returns need not pay.
    from backtest.evaluation.intervals import Resamples

    def ratio(weights: FloatArray) -> FloatArray:
        total = weights.sum(axis=-1)
        mean = weights @ daily.returns / total
        variance = weights @ daily.returns**2 / total - mean**2
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = mean / np.sqrt(variance * count / (count - 1)) * np.sqrt(days_per_year)
        return np.where(np.isfinite(drawn), drawn, np.nan)

    figure = Resamples.draw(count, block_length(count), resamples=RESAMPLES).figure(ratio, level=LEVEL)
    if figure.value is None or figure.low is None or figure.high is None:
        return None
    return SharpeInterval(figure.value, figure.low, figure.high, count)


def block_length(days: int) -> int:
    """Mean length of the stretches that are drawn of so many days."""
    return max(1, round(math.cbrt(days)))


def verdict_of(
    daily: DailyReturns,
    days_per_year: int,
    trades: int,
    recollection: Recollection | None,
    judged: Mapping[str, Any] | None = None,
) -> Verdict:
    """What the returns of a run prove.

    Args:
        daily: returns of the run.
        days_per_year: of its calendar.
        trades: closed round trips.
        recollection: what the memory said, where there was one.
        judged: ``SignificanceReport.to_json`` of the run, where it was tested when it ended; then it has the word.
    """
    memory = _memory(recollection)
    if judged is not None:
        headline, tone = _HEADLINES[Outcome(judged["outcome"])]
        return Verdict(headline, tone, (*judged["sentences"], *(memory if recollection is not None else ())), None)
    interval = sharpe_interval(daily, days_per_year)
    headline, tone, luck = _luck(interval, len(daily), trades)
    return Verdict(headline, tone, (luck, *memory), interval)


def _luck(interval: SharpeInterval | None, days: int, trades: int) -> tuple[str, str, str]:
    if trades == 0:
        return "Nothing was traded to an end", "open", "There is no closed round trip, so there is nothing to judge."
    if interval is None:
        return (
            *_HEADLINES[Outcome.UNDECIDED],
            f"Of {days} days with returns nothing can be said; {FEWEST_DAYS} are the least, and years are better.",
        )
    span = f"{number(interval.low, 2, signed=True)} and {number(interval.high, 2, signed=True)}"
    ratio = f"{number(interval.value, 2, signed=True)}"
    figures = (
        f"The Sharpe ratio is {ratio}, and with {percent(LEVEL, 0)} confidence between {span} ({interval.days:,} days)."
    )
    if interval.low > 0.0:
        return *_HEADLINES[Outcome.SIGNIFICANT], f"{figures} Zero is outside."
    if interval.high < 0.0:
        return *_HEADLINES[Outcome.LOSS], f"{figures} Zero is outside: this loses by itself."
    return *_HEADLINES[Outcome.LUCK], f"{figures} Zero is inside."


def _memory(recollection: Recollection | None) -> tuple[str, ...]:
    if recollection is None:
        return ("This run had no memory that explained its decisions, so none of the result came from one.",)
    sentences = []
    gate = recollection.mean_gate
    if gate is not None:
        sentences.append(f"The memory's mean share in the forecast was {percent(gate, 1)}.")
    if recollection.correlation is not None and recollection.correlation_error is not None:
        strength = abs(recollection.correlation) / recollection.correlation_error
        known = "can be told from none" if strength > 2.0 else "cannot be told from none"
        sentences.append(
            f"What it said and what followed have a correlation of {number(recollection.correlation, 3, signed=True)} "
            f"± {number(recollection.correlation_error, 3)}, which {known}."
        )
    sentences.append(_disagreement(recollection.disagreed))
    return tuple(sentences)


def _disagreement(disagreed: Agreement) -> str:
    share, error = disagreed.memory_share, disagreed.standard_error
    if share is None or error is None:
        return "It never disagreed with a model about the side, so its part in the result cannot be told apart."
    if abs(share - 0.5) < 2.0 * error:
        who = "so neither was better than a coin"
    else:
        who = "so the memory knew better" if share > 0.5 else "so the model knew better"
    return (
        f"When it disagreed with the model, at {disagreed.count:,} decisions, the memory was right in {percent(share, 1)} "
        f"(± {percent(error, 1)}), {who}."
    )
