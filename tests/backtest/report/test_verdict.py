"""The first lines: whether a result can be told from luck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backtest.report.evidence import evidence_rows, rival_rows, stress_rows
from backtest.report.judgement import stored_judgement, with_probe
from backtest.report.verdict import verdict_of
from backtest.significance.certificate import PrefixInvariance
from backtest.significance.permutation import memory_contribution
from backtest.significance.verdict import told_p
from bot.journal.probes import ProbeRecord
from tests.backtest.report.conftest import MARKET, Runs
from tests.backtest.report.scenes import CERTIFICATE, judged
from tests.backtest.report.test_diagnosis import gathered
from tests.runs import recall, span


@pytest.mark.parametrize(("mean", "tone"), [(0.002, "good"), (-0.002, "bad"), (0.0, "open")])
def test_an_edge_a_steady_loss_and_luck_have_their_headlines(mean: float, tone: str) -> None:
    assert verdict_of(judged(1000, mean), 50, None).tone == tone


def test_what_is_too_short_or_without_trades_is_not_judged() -> None:
    assert "Too short" in verdict_of(judged(12, 0.01), 50, None).headline
    assert "Nothing was traded" in verdict_of(judged(300, 0.01), 0, None).headline


def test_luck_and_memory_come_first_and_the_grounds_after_them() -> None:
    verdict = verdict_of(judged(300, 0.0), 9, None)
    assert "told from luck" in verdict.sentences[0] and "It has no memory" in verdict.sentences[1]
    assert any("flat" in each for each in verdict.grounds)


def test_a_p_value_is_never_told_as_zero() -> None:
    assert told_p(0.0004) == "p < 0.001" and told_p(0.0006) == "p = 0.001" and told_p(0.25) == "p = 0.250"


def test_the_tables_have_every_figure_of_the_tests() -> None:
    twin = 1000.0 * np.cumprod(1.0 + np.random.default_rng(4).normal(0.0, 0.01, 300))
    found = judged(300, 0.001, twins=[twin], stresses={"costs x2": twin}, has_memory=True).significance
    rows = {name: (value, against) for name, value, against in evidence_rows(found)}
    assert rows["Sharpe ratio"][1].startswith("95 %: ")
    assert rows["What its memory is worth"][0] == told_p(found["memory"]["p_value"])
    assert memory_contribution(np.zeros(9), [], 365, level=0.05, resamples=9, seed=0) is None
    assert [row[0] for row in rival_rows(found)] == ["flat"] and [row[0] for row in stress_rows(found)] == ["costs x2"]


def test_a_stored_judgement_comes_back_as_it_was_written() -> None:
    prefix = PrefixInvariance(3, 0, "", "ab" * 32)
    judgement = replace(judged(99, 0.0), certificate=replace(CERTIFICATE, prefix=prefix, walk=((0, 1, 1, 2),)))
    assert stored_judgement(judgement.to_json()) == judgement
    assert stored_judgement({"significance": None}) is None


def test_a_probe_of_the_same_settings_stands_in_for_one_of_the_run() -> None:
    judgement, probe = judged(99, 0.0), ProbeRecord(1, "0.1", 500, 8, 0, False, "", "cd" * 32)
    assert with_probe(judgement, None) is judgement
    probed = with_probe(judgement, probe)
    assert probed.certificate.prefix == PrefixInvariance(8, 0, "", "cd" * 32) and probed.certificate.is_clean
    assert with_probe(probed, ProbeRecord(2, "0.1", 500, 9, 1, False)) is probed


def test_a_replay_that_was_not_judged_gets_the_verdict_that_it_would_have_got(runs: Runs) -> None:
    bare = recall(
        runs.folder, "backtest", *MARKET, "--strategy", "sma_cross", *span(1000, 2470), "--no-plot", "--verdict", "none"
    )
    assert "significance" not in bare
    late, then = (dict(gathered(runs, run_id).judgement.significance) for run_id in (bare["run_id"], runs.rule))
    assert late.pop("skipped") != then.pop("skipped") and late.pop("stresses") == () and then.pop("stresses")
    for name in ("sentences", "survives_stress"):
        late.pop(name), then.pop(name)
    timing, known = late.pop("shifted_signals"), then.pop("shifted_signals")
    assert timing["p_value"] == pytest.approx(known["p_value"]) and timing["permutations"] == known["permutations"]
    assert [each["p_value"] for each in late.pop("baselines")] == [each["p_value"] for each in then.pop("baselines")]
    assert {name: late[name] for name in ("outcome", "days", "trials", "deflated_sharpe", "sharpe_ratio")} == {
        name: then[name] for name in ("outcome", "days", "trials", "deflated_sharpe", "sharpe_ratio")
    }


@pytest.mark.slow
def test_the_certificate_of_a_paper_run_is_made_from_its_journal(runs: Runs, paper_run: str) -> None:
    material = gathered(runs, paper_run)
    certificate = material.judgement.certificate
    assert certificate.maturity is not None and certificate.maturity.decisions > 100
    assert certificate.maturity.violations == 0 and certificate.has_memory and certificate.is_clean
    assert certificate.maturity.smallest_margin_ms is not None
    assert certificate.maturity.smallest_margin_ms >= certificate.maturity.embargo_ms > 0
    assert material.judgement.significance["outcome"] == "undecided"
