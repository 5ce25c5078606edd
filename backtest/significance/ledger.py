"""The ledger of trials: every backtest, sweep trial and walk, so that nobody forgets how often luck was asked.

One JSON line per trial in ``data_dir/trials.jsonl``, appended under a lock, each with the hash of the line before: a line
that is taken out or changed breaks the chain. Trials of the same strategy on overlapping data count together; the same
settings count once however often they are run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from backtest.significance.sharpe import Trials
from bot.config import Config
from bot.errors import StorageError

LEDGER: Final = "trials.jsonl"
_NOT_DECIDING: Final = frozenset({"storage", "log", "venue", "live", "sandbox", "market", "retraining"})


class Trial(msgspec.Struct, frozen=True):
    """One line of the ledger."""

    at: int
    """When it ended, milliseconds."""
    kind: str
    """``backtest``, ``walk-forward`` or ``sweep``."""
    family: str
    """The strategy."""
    symbols: tuple[str, ...]
    interval: str
    start: int
    """Open of the first bar, milliseconds."""
    end: int
    """Close of the last."""
    settings: str
    """Digest of what decides; see ``settings_digest``."""
    sharpe: float | None
    """Per day; ``None`` where nothing moved."""
    days: int
    run_id: str = ""
    previous: str = ""
    """Hash of the line before."""


def deciding_settings(config: Config) -> dict[str, Any]:
    """The sections that decide what a strategy does on given bars, secrets masked."""
    return {name: section for name, section in config.masked().items() if name not in _NOT_DECIDING}


def settings_digest(config: Config, model_id: str = "") -> str:
    """Digest of settings and model: two trials with the same one are the same trial."""
    content = deciding_settings(config)
    content["model"]["id"] = model_id
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Ledger:
    """The trials of one data folder.

    Args:
        data_dir: where ``trials.jsonl`` lies; made when the first trial is entered.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / LEDGER

    def enter(self, trial: Trial) -> str:
        """Append a trial; returns the hash of its line. Other processes wait meanwhile.

        Raises:
            StorageError: the ledger was changed by other hands.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            lines = file.read().splitlines()
            self._read(lines)
            previous = _hash(lines[-1]) if lines else ""
            line = msgspec.json.encode(msgspec.structs.replace(trial, previous=previous))
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return _hash(line)

    def read(self) -> list[Trial]:
        """All trials, oldest first.

        Raises:
            StorageError: the ledger was changed by other hands.
        """
        if not self.path.exists():
            return []
        return self._read(self.path.read_bytes().splitlines())

    def head(self) -> str:
        """Hash of the last line; empty where there is none."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        return _hash(lines[-1]) if lines else ""

    def related(self, trial: Trial) -> list[Trial]:
        """The trials of the same strategy that saw some of the same data; the last of every settings.

        Raises:
            StorageError: the ledger was changed by other hands.
        """
        found: dict[str, Trial] = {}
        for each in self.read():
            overlaps = each.start < trial.end and trial.start < each.end and set(each.symbols) & set(trial.symbols)
            if each.family == trial.family and overlaps:
                found[each.settings] = each
        return list(found.values())

    def _read(self, lines: Sequence[bytes]) -> list[Trial]:
        trials, previous = [], ""
        for number, line in enumerate(lines, start=1):
            try:
                trial = msgspec.json.decode(line, type=Trial)
            except msgspec.MsgspecError as problem:
                raise StorageError(
                    f"{self.path} line {number} is damaged: {problem}; restore it from a backup"
                ) from None
            if trial.previous != previous:
                raise StorageError(
                    f"{self.path} line {number} does not follow from the line before: the ledger of trials was changed by "
                    "other hands; restore it from a backup"
                )
            trials.append(trial)
            previous = _hash(line)
        return trials


def trials_with(related: Sequence[Trial], trial: Trial) -> Trials:
    """How often luck was asked, with this trial.

    Args:
        related: from ``Ledger.related``, with or without the trial itself.
        trial: the one that is judged.
    """
    ratios = {each.settings: each.sharpe for each in related} | {trial.settings: trial.sharpe}
    known = np.array([ratio for ratio in ratios.values() if ratio is not None])
    return Trials(len(ratios), float(known.var(ddof=1)) if len(known) > 1 else 0.0)


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
