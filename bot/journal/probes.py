"""What a lookahead probe found, so that a report of the same strategy knows of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_DECIDING: Final = ("strategy", "memory", "signal", "risk")
"""Sections of the configuration that signals and orders follow from."""


class ProbeRecord(msgspec.Struct, frozen=True):
    """One probe that ran to its end."""

    made_at: int
    """Milliseconds, by the clock of the machine."""
    version: str
    """Of Recall."""
    bars: int
    """Bars of each symbol that were probed at most."""
    cuts: int
    leaks: int
    """Cuts before which something changed; 0 is the only pass."""
    past_matters: bool
    """Whether a longer past changed signals where it must not."""
    first_change: str = ""
    """Before the first cut that leaked."""
    sha256: str = ""
    """Over all decisions up to the last cut; empty where an earlier version probed."""


def probed_settings(config: Mapping[str, Any], symbols: tuple[str, ...], interval: str, model_id: str) -> str:
    """A name for everything that decides: equal for a probe and for a run of the same strategy on the same symbols.

    Args:
        config: the whole configuration as ``RunRecord.config`` has it.
        symbols: of the run, in order.
        interval: of its bars.
        model_id: empty without a model.
    """
    deciding = [{section: config.get(section) for section in _DECIDING}, list(symbols), interval, model_id]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()
