"""What the journal is given and gives back, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec

from bot.execution.instruments import Instrument
from bot.orders import (
    AccountStanding,
    BarBatch,
    Decision,
    EmergencyOrder,
    Execution,
    Funding,
    GuardOrder,
    ModelSwap,
    Notice,
    OperatorCommand,
    OrderUpdate,
    Retraining,
    RuleChange,
    SymbolAvailability,
    Transfer,
)
from bot.portfolio import ClosedTrade
from memory_store import BankChanges
from strategies.bars import Calendar, close_time_of


class RunKind(StrEnum):
    """How a run got its bars and fills."""

    REPLAY = "replay"
    PAPER = "paper"
    LIVE = "live"
    MEMORY = "memory"
    """A memory that was filled from stored candles and trades nothing: a *standing bank*, named by its run id."""


TRADING: Final = (RunKind.PAPER, RunKind.LIVE)
"""Kinds of runs that a venue's stream drives and that an audit can prove."""


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    """It runs, or was killed: the next start resumes it."""
    STOPPED = "stopped"
    """It was stopped by its user; the next start resumes it."""
    FINISHED = "finished"
    """Its bars came to an end."""


class WarmSpan(msgspec.Struct, frozen=True):
    """The stored candles that warmed one symbol: a span, and the digest that proves they are still the same."""

    first_open_time: int
    end_time: int
    bars: int
    first_ordinal: int
    digest: str


class RunRecord(msgspec.Struct, frozen=True):
    """The settings that a run's decisions follow from."""

    run_id: str
    kind: RunKind
    strategy: str
    model_id: str
    symbols: tuple[str, ...]
    interval: str
    calendars: dict[str, Calendar]
    instruments: dict[str, Instrument]
    config: dict[str, Any]
    """The whole configuration, secrets masked."""
    warm: dict[str, WarmSpan]
    candles: str
    """The folder of the candle store below data_dir that the warm spans lie in."""
    started_at: int
    versions: dict[str, str]
    source: str = ""
    """The run whose bars in the journal the warm spans reach into; empty where they are all stored candles."""
    copied: bool = False
    """Whether the memory was written by the decisions of ``source``, so that warming alone does not make it again."""

    @property
    def warmed_until(self) -> int:
        """Close of the newest bar that it was warmed from, milliseconds, on the clock of its bars; 0 without any."""
        closes = [
            close_time_of(span.end_time - 1, self.interval, self.calendars[symbol])
            for symbol, span in self.warm.items()
            if span.bars
        ]
        return max(closes, default=0)


SideEvent = (
    OperatorCommand
    | SymbolAvailability
    | Funding
    | ModelSwap
    | Retraining
    | AccountStanding
    | Transfer
    | EmergencyOrder
    | GuardOrder
    | OrderUpdate
    | Notice
    | RuleChange
)
"""Everything that happens to a run besides bars and fills, which have tables of their own."""


@dataclass(slots=True)
class StepRecord:
    """Everything that one step makes durable, in one transaction."""

    batch: BarBatch | None = None
    batch_sequence: int = 0
    executions: list[tuple[int, Execution]] = field(default_factory=list)
    """Fills with their sequence numbers."""
    updates: tuple[OrderUpdate, ...] = ()
    """What happened to orders besides fills."""
    events: list[tuple[int, SideEvent]] = field(default_factory=list)
    commands_applied: list[tuple[int, int]] = field(default_factory=list)
    """Pairs (command id, sequence)."""
    decisions: tuple[Decision, ...] = ()
    trades: list[tuple[int, ClosedTrade]] = field(default_factory=list)
    equity: float | None = None
    memory: list[tuple[int, BankChanges]] = field(default_factory=list)
    """What happened to the memory, and when by the clock of the bars, milliseconds; in order."""
    bank_id: int | None = None
    """The bank that the run has from this step on; ``None`` where it keeps its own."""
    state: bytes | None = None
    sequence: int = 0
    """Events applied once this step is."""
    trades_closed: int = 0


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as the journal has it."""

    record: RunRecord
    status: RunStatus
    started_at: int
    ended_at: int | None
    bank_id: int | None
    summary: dict[str, Any] | None
