"""What a bot asks of its background process, and what that one tells: one JSON document per line."""

from __future__ import annotations

from typing import Any

import msgspec

from bot.orders import Retraining, RetrainingTrigger


class Job(msgspec.Struct, frozen=True):
    """Make a model ready to take over a run: one that exists, or one that is trained and judged first."""

    config: dict[str, Any]
    """The bot's configuration."""
    run_id: str
    model_id: str = ""
    """The model to make ready; empty: train one."""
    due: int = 0
    """Of a retraining; see ``Retraining``."""
    trigger: RetrainingTrigger = RetrainingTrigger.SCHEDULE
    until: int = 0
    """Of a retraining: the number of the last event whose bars are learned from and judged on."""


class PreparedMemory(msgspec.Struct, frozen=True):
    """A bank that lies in the journal, whole, and that no run has yet."""

    model_id: str
    bank: str
    """Its name."""
    bank_id: int
    digest: str
    encoded_until: int
    """See ``ModelSwap``."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Where the work stands."""

    phase: str
    """Training, judging or re-encoding, in one word."""
    share: float = 0.0
    """How much of the phase is done, in [0, 1]."""


class Outcome(msgspec.Struct, frozen=True, tag="outcome"):
    """What came of it."""

    prepared: PreparedMemory | None = None
    retraining: Retraining | None = None
    """Of a job that trained."""
    problem: str = ""
    """Why nothing came of it, in one sentence."""


Message = Progress | Outcome
