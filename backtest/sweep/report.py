"""What a sweep says: its best settings after deflation, and what choosing among these settings is worth at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from backtest.metrics import daily_equity
from backtest.significance.overfitting import Overfitting, overfitting
from backtest.significance.sharpe import Trials, sharpe_evidence
from backtest.significance.superiority import superiority
from backtest.significance.verdict import LEVEL, told_p
from backtest.sweep.search import TrialOutcome
from backtest.walk_forward.summary import WalkForwardReport, chain, chained, summarise
from backtest.walk_forward.window import WindowResult, read_result, run_window
from strategies.bars import Calendar


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial as it is shown: with what is left of it, not with what it showed."""

    number: int
    values: dict[str, Any]
    state: str
    deflated_sharpe: float | None
    """Probability that it is better than the luckiest of all trials without an edge."""
    problem: str


@dataclass(frozen=True, slots=True)
class SweepReport:
    """All trials, the chosen one, and the choice."""

    trials: Trials
    rows: tuple[TrialRow, ...]
    """By deflated Sharpe ratio, best first."""
    chosen: int | None
    """Number of the trial with the best score; ``None`` where none was completed."""
    walk: WalkForwardReport | None
    """Of the chosen trial, judged as the best of all trials."""
    reality_check: float | None
    """White's p-value of the best trial's lead over holding, with all completed trials in the race."""
    choice: Overfitting | None

    def sentences(self) -> tuple[str, ...]:
        """In plain words."""
        if self.walk is None or self.chosen is None:
            return ("No trial was completed, so nothing is chosen.",)
        said = [f"Best score: trial {self.chosen} of {self.trials.count:,} settings tried on this data."]
        said += self.walk.significance.sentences()
        if self.reality_check is not None:
            known = "is" if self.reality_check <= LEVEL else "is not"
            said.append(
                f"With all completed trials in the race, the best {known} provably ahead of holding (reality check, "
                f"{told_p(self.reality_check)})."
            )
        if self.choice is not None:
            middle = self.choice.path_sharpe[len(self.choice.path_sharpe) // 2] if self.choice.path_sharpe else None
            worth = (
                "" if middle is None else f"; chosen on other days, it would have had a Sharpe ratio of {middle:+.2f}"
            )
            said.append(
                f"Choosing the best of these settings ends below the median elsewhere with probability "
                f"{self.choice.probability:.0%}{worth}."
            )
        return tuple(said)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "sentences": list(self.sentences()),
            "trials_counted": self.trials.count,
            "chosen": self.chosen,
            "reality_check": self.reality_check,
            "choice": None if self.choice is None else self.choice.to_json(),
            "trials": [asdict(row) for row in self.rows],
            "walk": None if self.walk is None else self.walk.to_json(),
        }


def report_sweep(
    outcomes: Sequence[TrialOutcome],
    *,
    calendar: Calendar,
    initial_cash: float,
    trials: Trials,
    ledger_sha256: str,
    purge_days: int,
) -> SweepReport:
    """Judge a sweep, and probe the chosen trial for lookahead.

    Args:
        outcomes: of all its trials.
        calendar: of all symbols together.
        initial_cash: of every window.
        trials: how often luck was asked on this data, by the ledger.
        ledger_sha256: see ``LeakCertificate``.
        purge_days: see ``overfitting``.
    """
    results = {each.number: _results(each) for each in outcomes}
    daily = {number: chain(found, calendar, initial_cash).daily for number, found in results.items() if found}
    deflated = {number: sharpe_evidence(found, trials, level=LEVEL).deflated for number, found in daily.items()}
    rows = [
        TrialRow(each.number, each.values, each.state, deflated.get(each.number), each.problem) for each in outcomes
    ]
    rows.sort(key=lambda row: (-1.0 if row.deflated_sharpe is None else row.deflated_sharpe, -row.number), reverse=True)
    complete = [each for each in outcomes if each.state == "complete" and each.sharpe is not None]
    if not complete:
        return SweepReport(trials, tuple(rows), None, None, None, None)
    best = max(complete, key=lambda each: (each.sharpe or 0.0, -each.number))
    probed = [run_window(replace(job, probes=True)) for job in best.jobs]
    walk = summarise(
        probed,
        calendar=calendar,
        initial_cash=initial_cash,
        trials=trials,
        ledger_sha256=ledger_sha256,
        skipped=("the memory's part, which recall walk-forward looks at with these settings",),
    )
    alike = [each.number for each in complete if len(daily[each.number]) == len(daily[best.number])]
    matrix = np.array([daily[number] for number in alike])
    account = chain(results[best.number], calendar, initial_cash)
    hold = account.of(chained([each.hold for each in results[best.number]], initial_cash))
    days = daily_equity(account.close_times, account.equity, initial_cash, calendar)[0]
    return SweepReport(
        trials,
        tuple(rows),
        best.number,
        walk,
        superiority(matrix.T, hold.daily).white,
        overfitting(matrix, days, calendar.days_per_year, purge_days=purge_days),
    )


def _results(outcome: TrialOutcome) -> list[WindowResult]:
    found = [read_result(job.file) for job in outcome.jobs]
    return [each for each in found if each is not None]
