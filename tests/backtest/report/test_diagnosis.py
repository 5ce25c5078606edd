"""The report questions its own result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from backtest.report.diagnosis import Finding, Severity, diagnose
from backtest.report.exposure import Exposure
from backtest.report.material import Material, Walk, WindowFigures, gather
from backtest.report.returns import DailyReturns
from backtest.significance.certificate import PrefixInvariance
from backtest.significance.verdict import LATE, TWICE
from bot.config import load_config
from bot.errors import ExitCode, UsageError
from bot.journal import Journal
from tests.backtest.report.conftest import Runs
from tests.backtest.report.scenes import START, trade
from tests.bot.cli.terminal import recall as typed


@pytest.fixture(scope="module")
def material(runs: Runs) -> Material:
    return gathered(runs, runs.memory)


def gathered(runs: Runs, run_id: str) -> Material:
    config = load_config(None, overrides=[f"storage.data_dir={runs.folder}"], environment={})
    with closing(Journal(config.journal_url, durable=False)) as journal:
        return gather(journal, journal.find_run(run_id), config)


def profits(*amounts: int, fees: str = "0.1") -> list[Any]:
    made = [trade(START + at, amount) for at, amount in enumerate(amounts)]
    return [msgspec.structs.replace(each, fees=Decimal(fees)) for each in made]


def found(material: Material, title: str) -> Finding | None:
    return next((finding for finding in diagnose(material) if finding.title == title), None)


def months_of(*changes: float) -> DailyReturns:
    """One change in every month from January 2024 on."""
    days = [int(np.datetime64(f"2024-{month:02d}-15", "D").astype(int)) for month in range(1, len(changes) + 1)]
    return DailyReturns(np.array(days), np.array(changes))


def nothing(material: Material) -> Material:
    return material


CASES: dict[str, tuple[str, Callable[[Material], Material], Callable[[Material], Material]]] = {
    "few trades": (
        "Too few trades",
        lambda material: replace(material, trades=profits(*[1] * 29)),
        lambda material: replace(material, trades=profits(*[1] * 30)),
    ),
    "one trade": (
        "One trade makes the result",
        lambda material: replace(material, trades=profits(60, 30, 10)),
        lambda material: replace(material, trades=profits(40, 30, 30)),
    ),
    "one month": (
        "One month makes the result",
        lambda material: replace(material, daily=months_of(0.3, 0.01, 0.01, 0.0, 0.01, 0.01)),
        lambda material: replace(material, daily=months_of(0.03, 0.02, 0.01, 0.0, 0.01, 0.01)),
    ),
    "costs eat all": (
        "Costs eat the whole edge",
        lambda material: replace(material, trades=profits(-1, -1, fees="2")),
        lambda material: replace(material, trades=profits(1, 1, fees="2")),
    ),
    "costs eat most": (
        "Costs eat most of the edge",
        lambda material: replace(material, trades=profits(1, 1, fees="2")),
        lambda material: replace(material, trades=profits(3, 3, fees="2")),
    ),
    "a loss before costs": (
        "A loss before costs",
        lambda material: replace(material, trades=profits(-5, 1, fees="1")),
        lambda material: replace(material, trades=profits(-1, 1, fees="1")),
    ),
    "worse assumptions": (
        "Worse assumptions take the gain",
        lambda material: stressed(material, 0.1, -0.01),
        lambda material: stressed(material, 0.1, 0.01),
    ),
    "holding": (
        "Holding would have earned more",
        lambda material: replace(material, hold=(material.times, material.equity + 1.0)),
        lambda material: replace(material, hold=(material.times, material.equity - 1.0)),
    ),
    "windows": (
        "Most windows lost",
        lambda material: replace(material, walk=walked(0.1, -0.1)),
        lambda material: replace(material, walk=walked(0.1, 0.2, -0.1)),
    ),
    "hardly invested": (
        "Hardly ever invested",
        lambda material: replace(material, exposure=invested(0.04)),
        lambda material: replace(material, exposure=invested(0.06)),
    ),
    "candles": ("Candles are missing", lambda material: replace(material, candles={}), nothing),
    "memory": ("What the memory said is not in the journal", lambda material: replace(material, recollection=None), nothing),
}  # fmt: skip


def stressed(material: Material, twice: float, late: float) -> Material:
    """A run that earned something, and less under other assumptions."""
    cases = [{"name": TWICE, "total_return": twice}, {"name": LATE, "total_return": late}]
    judgement = replace(material.judgement, significance={**material.judgement.significance, "stresses": cases})
    return replace(material, judgement=judgement, equity=np.full(len(material.times), 2.0 * material.initial_cash))


def walked(*returns: float) -> Walk:
    return Walk(tuple(WindowFigures(0, 1, "", each, None, 0.0, 9, 0.0, ()) for each in returns), {}, {})


def invested(share: float) -> Exposure:
    gross = (np.arange(100) < 100 * share).astype(float)
    return Exposure(np.arange(100), gross, gross)


@pytest.mark.parametrize("case", list(CASES))
def test_what_is_wrong_is_named_and_what_is_right_is_not_accused(case: str, material: Material) -> None:
    title, wrong, right = CASES[case]
    finding = found(wrong(material), title)
    assert finding is not None and finding.severity is not Severity.PASSED
    assert finding.text.endswith((".", "?"))
    assert found(right(material), title) is None


def test_a_replay_that_nobody_probed_says_how_to_probe_it(material: Material) -> None:
    finding = found(material, "Lookahead probe not run")
    assert finding is not None
    assert "recall probe --strategy similarity --symbols BTCUSDT,ETHUSDT --interval 60" in finding.text
    assert found(material, "Out-of-sample result missing") is not None


@pytest.mark.parametrize(("changed", "title"), [(0, "Lookahead probe passed"), (2, "The lookahead probe failed")])
def test_the_certificate_of_a_run_counts_as_its_probe(material: Material, changed: int, title: str) -> None:
    prefix = PrefixInvariance(3, changed, "BTCUSDT: side", "")
    certificate = replace(material.judgement.certificate, prefix=prefix)
    certified = replace(material, judgement=replace(material.judgement, certificate=certificate))
    assert found(certified, title) is not None and found(certified, "Lookahead probe not run") is None


@pytest.mark.slow
def test_a_paper_run_is_out_of_sample_and_cannot_look_ahead(runs: Runs, paper_run: str) -> None:
    paper = gathered(runs, paper_run)
    titles = {finding.title: finding.severity for finding in diagnose(paper)}
    assert titles["Out of sample"] == titles["No lookahead by construction"] == Severity.PASSED


def test_warnings_come_first(material: Material) -> None:
    order = [list(Severity).index(finding.severity) for finding in diagnose(material)]
    assert order == sorted(order) and order[0] == 0


def test_the_report_of_a_replay_has_the_figures_that_the_replay_ended_with(material: Material) -> None:
    assert material.figures["total_return"] == pytest.approx(material.equity[-1] / material.initial_cash - 1.0)
    assert material.figures["days"] == len(material.daily) == 62


def test_nothing_to_report_is_said_in_a_sentence(runs: Runs) -> None:
    outcome = typed(runs.folder, "report", "nobody", "--set", f"storage.data_dir={runs.folder}")
    assert outcome.code == ExitCode.USAGE and "run 'nobody' is not in the journal" in outcome.error
    with closing(Journal(f"sqlite:///{runs.folder / 'other.sqlite'}", durable=False)) as journal:
        from bot.journal import RunKind
        from tests.bot.test_journal import record_of

        journal.write_replay(
            record_of("empty", kind=RunKind.REPLAY), {}, decisions=[], executions=[], trades=[], equity=[]
        )
        config = load_config(None, overrides=[], environment={})
        with pytest.raises(UsageError, match="fewer than two bars"):
            gather(journal, journal.find_run("empty"), config)
