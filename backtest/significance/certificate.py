"""The leak certificate: what was checked so that nobody need believe that a result knew nothing of the future."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backtest.probe import ProbeReport
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

    @property
    def is_clean(self) -> bool | None:
        """Whether every check that was made passed; ``None`` where none was made."""
        checks = []
        if self.prefix is not None:
            checks.append(self.prefix.changed == 0)
        if self.maturity is not None:
            checks.append(self.maturity.violations == 0)
        if self.train_span is not None:
            checks.append(self.train_span[1] <= self.test_span[0])
        checks += [learned <= tested for _, learned, tested, _ in self.walk]
        return all(checks) if checks else None

    def sentences(self) -> tuple[str, ...]:
        """The certificate in words."""
        return (_prefix(self.prefix), _maturity(self.maturity), _spans(self), _trials(self))

    def to_json(self) -> dict[str, Any]:
        """As plain values, with its sentences."""
        return {"is_clean": self.is_clean, "sentences": list(self.sentences())} | asdict(self)


def _prefix(prefix: PrefixInvariance | None) -> str:
    if prefix is None:
        return "Whether decisions know later bars was not probed: recall probe and recall backtest --verdict full do."
    if prefix.changed:
        return f"LEAK: with another future the past changes: {prefix.first_change}."
    return f"With another future after {prefix.cuts} random moments, nothing before them changed (sha256 {prefix.sha256[:16]})."


def _maturity(audit: MaturityAudit | None) -> str:
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
    if certificate.deflated_sharpe is None:
        return f"{tried} of this strategy tried on this data, by the ledger of trials."
    return f"{tried} of this strategy tried on this data; deflated Sharpe ratio {certificate.deflated_sharpe:.3f}."
