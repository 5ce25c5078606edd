"""The leak certificate: what was checked so that nobody need believe that a result knew nothing of the future."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backtest.probe import ProbeReport
from backtest.significance.verdict import told_p
from strategies.bars import format_time


@dataclass(frozen=True, slots=True)
class PrefixInvariance:
    """Decisions and memory up to random cuts, with everything after a cut replaced by another market (``recall probe``)."""

    cuts: int
    changed: int
    """Cuts before which something changed; 0 is the only pass."""
    first_change: str
    sha256: str
    """Over all decisions up to the last cut, as they were with either future where nothing changed."""

    @classmethod
    def of(cls, found: ProbeReport) -> PrefixInvariance:
        """What a probe found."""
        first = found.cuts[found.first_leak].first_change if found.leaks else ""
        return cls(len(found.cuts), found.leaks, first, found.sha256)

    @classmethod
    def of_all(cls, parts: Sequence[PrefixInvariance]) -> PrefixInvariance:
        """Several probes as one; its hash is that over theirs, in their order."""
        return cls(
            sum(each.cuts for each in parts),
            sum(each.changed for each in parts),
            next((each.first_change for each in parts if each.changed), ""),
            hashlib.sha256("".join(each.sha256 for each in parts).encode()).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class MaturityAudit:
    """When the outcomes that spoke for decisions were known, against when these were made.

    Settlement is counted anew from the bars: the close of the bar that is the primary horizon after the remembered one.
    """

    decisions: int
    """That had neighbours."""
    violations: int
    """Decisions with a neighbour whose outcome was not known, or whose embargo was not over; 0 is the only pass."""
    latest_settlement: int | None
    """Of the decision with the smallest margin: when its youngest outcome was known, milliseconds."""
    decided_at: int | None
    """Close at which that decision was made, milliseconds."""
    smallest_margin_ms: int | None
    """Their distance; at least the embargo."""
    embargo_ms: int


@dataclass(frozen=True, slots=True)
class CertificatePart:
    """One check."""

    name: str
    passed: bool | None
    """``None``: it was not made, or cannot fail."""
    sentence: str


@dataclass(frozen=True, slots=True)
class LeakCertificate:
    """What stands beside every result. ``None``: not checked, or there is no such thing in this run."""

    prefix: PrefixInvariance | None
    maturity: MaturityAudit | None
    memory_p_value: float | None
    """Against the memory with shuffled outcomes; see ``MemoryContribution``."""
    deflated_sharpe: float | None
    trials: int
    """From the ledger; see ``backtest.significance.ledger``."""
    ledger_sha256: str
    """Head of the ledger's chain when this was written; empty where the run was not entered."""
    train_span: tuple[int, int] | None
    """Half-open, milliseconds: bars that the model learned from; ``None`` where nothing was fitted."""
    test_span: tuple[int, int]
    """First open and last close of the bars that were decided on, milliseconds."""
    walk: tuple[tuple[int, int, int, int], ...] = ()
    """Of a walk, for every window that fitted something: ``train_span`` and then ``test_span``."""
    has_memory: bool = False
    """Whether there are outcomes to audit at all."""

    @property
    def is_clean(self) -> bool | None:
        """Whether every check that was made passed; ``None`` where none was made."""
        checks = [part.passed for part in self.parts() if part.passed is not None]
        return all(checks) if checks else None

    def sentences(self) -> tuple[str, ...]:
        """The certificate in words."""
        return tuple(part.sentence for part in self.parts())

    def parts(self) -> tuple[CertificatePart, ...]:
        """Check by check."""
        return (
            CertificatePart(
                "Another future", None if self.prefix is None else not self.prefix.changed, _prefix(self.prefix)
            ),
            CertificatePart(
                "Outcomes in time",
                None if self.maturity is None else not self.maturity.violations,
                _maturity(self.maturity, self.has_memory),
            ),
            CertificatePart("Shuffled memory", None, _memory(self.memory_p_value, self.has_memory)),
            CertificatePart("Training before test", self._is_ahead, _spans(self)),
            CertificatePart("Trials counted", None, _trials(self)),
        )

    @property
    def _is_ahead(self) -> bool | None:
        """Whether all training ended before its test began; ``None`` where nothing was fitted."""
        if self.walk:
            return all(learned <= tested for _, learned, tested, _ in self.walk)
        return None if self.train_span is None else self.train_span[1] <= self.test_span[0]

    def to_json(self) -> dict[str, Any]:
        """As plain values, with its sentences."""
        return {"is_clean": self.is_clean, "sentences": list(self.sentences())} | asdict(self)


def _prefix(prefix: PrefixInvariance | None) -> str:
    if prefix is None:
        return "Whether decisions know later bars was not probed: recall probe and recall backtest --verdict full do."
    if prefix.changed:
        return f"LEAK: with another future the past changes: {prefix.first_change}."
    proof = f" (sha256 {prefix.sha256[:16]})" if prefix.sha256 else ""
    return f"With another future after {prefix.cuts} random moments, nothing before them changed{proof}."


def _maturity(audit: MaturityAudit | None, has_memory: bool) -> str:
    if audit is None and has_memory:
        return (
            "When the outcomes that its memory told became known was not audited: recall backtest --verdict full does."
        )
    if audit is None:
        return "No outcome of a memory was used."
    if audit.violations:
        return f"LEAK: {audit.violations:,} decisions used outcomes that were not known or still under embargo."
    if audit.latest_settlement is None or audit.decided_at is None or audit.smallest_margin_ms is None:
        return "The memory never answered."
    return (
        f"Of {audit.decisions:,} decisions with neighbours none used an outcome before its time: the closest was known at "
        f"{format_time(audit.latest_settlement)}, {audit.smallest_margin_ms / 3_600_000:,.1f} h before "
        f"{format_time(audit.decided_at)} (embargo {audit.embargo_ms / 3_600_000:,.1f} h)."
    )


def _memory(p_value: float | None, has_memory: bool) -> str:
    if p_value is not None:
        return f"The lead over the same memory with shuffled outcomes has {told_p(p_value)}."
    if has_memory:
        return "It was not compared with a memory whose outcomes are shuffled: recall backtest --verdict full does."
    return "There is no memory whose outcomes could be shuffled."


def _spans(certificate: LeakCertificate) -> str:
    first, last = certificate.test_span
    tested = f"{format_time(first)} to {format_time(last)}"
    if certificate.walk:
        ahead = sum(learned > opened for _, learned, opened, _ in certificate.walk)
        if ahead:
            return f"HINDSIGHT: in {ahead} of {len(certificate.walk)} windows the training reaches into the test, {tested}."
        return (
            f"In each of {len(certificate.walk)} windows the model learned from earlier bars only; tested on {tested}."
        )
    if certificate.train_span is None:
        return f"Nothing was fitted; tested on {tested}."
    trained = f"{format_time(certificate.train_span[0])} to {format_time(certificate.train_span[1])}"
    if certificate.train_span[1] > first:
        return f"HINDSIGHT: learned from {trained}, which reaches into the test, {tested}."
    return f"Learned from {trained}, tested on {tested}."


def _trials(certificate: LeakCertificate) -> str:
    tried = "1 setting" if certificate.trials == 1 else f"{certificate.trials:,} settings"
    ledger = f" (ledger {certificate.ledger_sha256[:16]})" if certificate.ledger_sha256 else ""
    if certificate.deflated_sharpe is None:
        return f"{tried} of this strategy tried on this data, by the ledger of trials{ledger}."
    return (
        f"{tried} of this strategy tried on this data{ledger}; deflated Sharpe ratio {certificate.deflated_sharpe:.3f}."
    )
