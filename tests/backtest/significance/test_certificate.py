"""What the leak certificate says, part by part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backtest.probe import CutReport, ProbeReport
from backtest.significance.certificate import LeakCertificate, MaturityAudit, PrefixInvariance
from strategies.bars import DAY_MS, HOUR_MS

BARE = LeakCertificate(None, None, None, None, 1, "", None, (10 * DAY_MS, 20 * DAY_MS))
PASSED = PrefixInvariance(3, 0, "", "ab" * 32)
IN_TIME = MaturityAudit(9, 0, 8 * DAY_MS, 10 * DAY_MS, 48 * HOUR_MS, 48 * HOUR_MS)


def said(certificate: LeakCertificate, name: str) -> tuple[bool | None, str]:
    return next((part.passed, part.sentence) for part in certificate.parts() if part.name == name)


def test_what_was_not_checked_is_neither_passed_nor_failed() -> None:
    assert BARE.is_clean is None and {part.passed for part in BARE.parts()} == {None}
    assert said(BARE, "Outcomes in time")[1] == "No outcome of a memory was used."
    remembering = replace(BARE, has_memory=True)
    assert "was not audited" in said(remembering, "Outcomes in time")[1]
    assert "was not compared" in said(remembering, "Shuffled memory")[1]


@pytest.mark.parametrize(
    ("name", "clean", "leaking"),
    [
        ("Another future", {"prefix": PASSED}, {"prefix": replace(PASSED, changed=1, first_change="BTCUSDT: side")}),
        ("Outcomes in time", {"maturity": IN_TIME}, {"maturity": replace(IN_TIME, violations=2)}),
        ("Training before test", {"train_span": (0, 10 * DAY_MS)}, {"train_span": (0, 11 * DAY_MS)}),
        ("Training before test", {"walk": ((0, 1, 1, 2),)}, {"walk": ((0, 1, 1, 2), (0, 3, 2, 4))}),
    ],
)
def test_one_failed_check_is_enough_to_spoil_it(name: str, clean: dict, leaking: dict) -> None:
    assert replace(BARE, **clean).is_clean is True and said(replace(BARE, **clean), name)[0] is True
    spoiled = replace(BARE, **({"prefix": PASSED, "maturity": IN_TIME} | leaking))
    assert spoiled.is_clean is False
    passed, sentence = said(spoiled, name)
    assert passed is False and sentence.startswith(("LEAK", "HINDSIGHT"))


def test_every_figure_is_in_the_sentences() -> None:
    whole = replace(BARE, prefix=PASSED, memory_p_value=0.0002, deflated_sharpe=0.75, trials=7, ledger_sha256="cd" * 32)
    text = " ".join(whole.sentences())
    for figure in ("3 random moments", "abababababababab", "p < 0.001", "0.750", "7 settings", "cdcdcdcdcdcdcdcd"):
        assert figure in text


def test_several_probes_are_one_with_a_hash_over_theirs() -> None:
    cut = CutReport("2024-01-01T00:00Z", 9, 9, 0, "")
    one = PrefixInvariance.of(ProbeReport((cut, cut), "ab" * 32))
    other = PrefixInvariance.of(ProbeReport((replace(cut, changed=4, first_change="ETHUSDT: side"),), "cd" * 32))
    both = PrefixInvariance.of_all([one, other])
    assert (both.cuts, both.changed, both.first_change) == (3, 1, "ETHUSDT: side")
    assert both.sha256 != PrefixInvariance.of_all([other, one]).sha256 and len(both.sha256) == 64
