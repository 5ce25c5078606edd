"""The journal: every run's settings, events, decisions, orders, fills and memory, in one database."""

from bot.journal.journal import Journal
from bot.journal.records import RunKind, RunRecord, RunStatus, StepRecord, StoredRun, WarmSpan

__all__ = ["Journal", "RunKind", "RunRecord", "RunStatus", "StepRecord", "StoredRun", "WarmSpan"]
