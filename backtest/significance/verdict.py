"""What is known of a result: the figures of every test, and the sentences that a person reads first.

Plain values only, so that a report can be written from JSON without the libraries that computed them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from backtest.evaluation.intervals import Figure

TWICE: Final = "costs x2"
LATE: Final = "one bar late"
"""Stress cases that a result has to survive."""

LEVEL: Final = 0.05
"""Share of strategies without an edge that may be called significant."""
FEWEST_DAYS: Final = 60
"""Daily returns below which nothing is judged."""


class Outcome(StrEnum):
    """The verdict in one word."""

    SIGNIFICANT = "significant"
    """Better than luck, after the trials that were made, and better than every baseline."""
    LUCK = "luck"
    """It cannot be told from luck."""
    LOSS = "loss"
    """It lost more than bad luck explains."""
    UNDECIDED = "undecided"
    """Too short, or nothing was traded."""


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """A baseline on the same bars, and how likely the strategy is ahead of it by luck alone."""

    name: str
    total_return: float
    sharpe_ratio: float | None
    p_value: float
    """Hansen's upper p-value of no superior ability (see ``superiority``); one-sided."""


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """A statistic among those of the same thing with its timing or its outcomes shuffled."""

    statistic: float
    """Of the run."""
    mean: float
    """Of the permutations."""
    permutations: int
    p_value: float
    """``(1 + permutations that reach the statistic) / (1 + permutations)``; one-sided."""


@dataclass(frozen=True, slots=True)
class StressCase:
    """The same decisions under another assumption."""

    name: str
    """``costs x0``, ``costs x1``, ``costs x2`` or ``one bar late``."""
    total_return: float
    annual_return: float | None
    sharpe_ratio: float | None


@dataclass(frozen=True, slots=True)
class MemoryContribution:
    """The run beside its twin, whose memory tells outcomes of other moments of the same symbol."""

    shuffles: int
    """Twins that were run."""
    total_return: float
    shuffled_return: float
    """Mean total return of the twins."""
    difference: Figure
    """Annual log return of the run less that of the twins, with its interval."""
    p_value: float
    """Of a difference like this or larger if the outcomes say nothing."""
    method: str
    """``paired bootstrap`` of daily returns, or ``permutation`` where there are twins enough."""


@dataclass(frozen=True, slots=True)
class SignificanceReport:
    """Every test of one result. ``None`` where a figure is not defined or the test was not run; ``skipped`` says why."""

    level: float
    """Of all tests; intervals hold ``1 - level`` of the resamples."""
    days: int
    """Daily returns that were judged."""
    sharpe_ratio: Figure
    """Annual, with its interval."""
    annual_return: Figure
    """Geometric, with its interval."""
    probabilistic_sharpe: float | None
    """Probability that the true Sharpe ratio is above 0 (Bailey and Lopez de Prado 2012)."""
    deflated_sharpe: float | None
    """Probability that it is above what the best of ``trials`` shows by luck (Bailey and Lopez de Prado 2014)."""
    trials: int
    """Settings of this strategy that were tried on overlapping data, this one included."""
    luckiest_sharpe: float | None
    """Annual Sharpe ratio to expect of the best of ``trials`` without any edge."""
    minimum_track_record_days: float | None
    """Days needed for ``probabilistic_sharpe`` to reach ``1 - level``; ``None`` where no length would do."""
    baselines: tuple[BaselineComparison, ...]
    shifted_signals: PermutationTest | None
    """Positions moved against the bars in time: what the timing is worth, whatever the market did."""
    stresses: tuple[StressCase, ...]
    memory: MemoryContribution | None
    skipped: tuple[str, ...] = ()
    """What was not looked at, and how to."""
    has_memory: bool = False

    @property
    def outcome(self) -> Outcome:
        """The verdict. *Significant* needs the deflated Sharpe ratio and every baseline at the level."""
        if self.deflated_sharpe is None or self.days < FEWEST_DAYS:
            return Outcome.UNDECIDED
        beaten = all(each.p_value <= self.level for each in self.baselines)
        if self.deflated_sharpe >= 1.0 - self.level and beaten:
            return Outcome.SIGNIFICANT
        if self.probabilistic_sharpe is not None and self.probabilistic_sharpe <= self.level:
            return Outcome.LOSS
        return Outcome.LUCK

    @property
    def survives_stress(self) -> bool | None:
        """Whether it still earns with twice the costs and one bar late; ``None`` where that was not looked at."""
        looked = [each for each in self.stresses if each.name in (TWICE, LATE)]
        return all(each.total_return > 0.0 for each in looked) if looked else None

    def sentences(self) -> tuple[str, ...]:
        """The verdict in words: luck first, then the memory, then what it rests on."""
        said = [_luck(self), _memory(self)]
        said += [text for text in (_baselines(self), _timing(self), _stress(self), _length(self)) if text]
        return tuple(said) + tuple(f"Not looked at: {each}." for each in self.skipped)

    def to_json(self) -> dict[str, Any]:
        """As plain values, with the verdict and its sentences."""
        found = asdict(self)
        return {
            "outcome": str(self.outcome),
            "survives_stress": self.survives_stress,
            "sentences": list(self.sentences()),
        } | found


def told_p(p_value: float) -> str:
    """A p-value in words; none is told as zero."""
    return "p < 0.001" if p_value < 0.0005 else f"p = {p_value:.3f}"


def _luck(report: SignificanceReport) -> str:
    outcome = report.outcome
    if outcome is Outcome.UNDECIDED:
        return (
            f"Nothing can be said: {report.days} days with returns are too few, {FEWEST_DAYS} are the least."
            if report.days < FEWEST_DAYS
            else "Nothing can be said: the account did not move."
        )
    sharpe = _with_interval(report.sharpe_ratio, "{:+.2f}")
    tried = "one setting was tried" if report.trials == 1 else f"{report.trials:,} settings were tried"
    figures = f"Sharpe ratio {sharpe}, {report.days:,} days, {tried}"
    if outcome is Outcome.LOSS:
        return f"This loses more than bad luck explains ({figures})."
    assert report.deflated_sharpe is not None
    chance = f"{report.deflated_sharpe:.1%} sure that it is better than the luckiest of as many without an edge"
    if outcome is Outcome.SIGNIFICANT:
        return f"This can be told from luck: {chance} ({figures})."
    if report.deflated_sharpe >= 1.0 - report.level:
        return f"This earns more than luck explains, but cannot be told from simpler ways to earn it ({figures})."
    return f"This cannot be told from luck: {chance}, where {1.0 - report.level:.0%} would be needed ({figures})."


def _memory(report: SignificanceReport) -> str:
    memory = report.memory
    if memory is None:
        return (
            "How much came from the memory is not known: it was not compared with a shuffled one."
            if report.has_memory
            else "It has no memory, so nothing came from one."
        )
    part = f"{memory.total_return:+.2%} with its memory, {memory.shuffled_return:+.2%} with the outcomes in it shuffled"
    verdict = (
        "the difference is the memory's"
        if memory.p_value <= report.level
        else "the difference cannot be told from luck"
    )
    return f"Of the memory: {part}; {verdict} ({told_p(memory.p_value)}, {memory.method})."


def _baselines(report: SignificanceReport) -> str:
    if not report.baselines:
        return ""
    parts = [
        f"{'ahead of' if each.p_value <= report.level else 'not provably ahead of'} {each.name} "
        f"({each.total_return:+.2%}, {told_p(each.p_value)})"
        for each in report.baselines
    ]
    return f"It is {', '.join(parts)}."


def _timing(report: SignificanceReport) -> str:
    test = report.shifted_signals
    if test is None:
        return ""
    known = "matters" if test.p_value <= report.level else "cannot be told from chance"
    return (
        f"When it trades {known}: {told_p(test.p_value)} among {test.permutations:,} shifts of its positions in time."
    )


def _stress(report: SignificanceReport) -> str:
    if not report.stresses:
        return ""
    return f"Total return: {', '.join(f'{each.total_return:+.2%} {each.name}' for each in report.stresses)}."


def _length(report: SignificanceReport) -> str:
    needed = report.minimum_track_record_days
    if report.outcome is Outcome.UNDECIDED:
        return ""
    if needed is None:
        return "No length of track record would prove a Sharpe ratio above 0 from returns like these."
    return f"A Sharpe ratio like this needs {needed:,.0f} days to be told from 0; there are {report.days:,}."


def _with_interval(figure: Figure, form: str) -> str:
    if figure.value is None:
        return "not defined"
    if figure.low is None or figure.high is None:
        return form.format(figure.value)
    return f"{form.format(figure.value)} ({form.format(figure.low)} to {form.format(figure.high)})"
