"""Entries that may go: never of use, or of harm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from memory_store.credit import credit_in_units
from memory_store.records import TIME_LIMIT, BoolArray, MemoryBankError
from memory_store.ring import EMPTY, Ring


@dataclass(frozen=True, slots=True)
class PruneRule:
    """Which entries to prune: those that meet either condition.

    Raises:
        MemoryBankError: a value is out of range, or there is no condition.
    """

    unused_for_ms: int | None = None
    """Older than this, by the time of the bar, and never retrieved."""
    credit_below: float | None = None
    """Of less credit than this, in units of the outcome; such as -0.01."""

    def __post_init__(self) -> None:
        if self.unused_for_ms is None and self.credit_below is None:
            raise MemoryBankError("the prune rule has no condition; give unused_for_ms, credit_below or both")
        if self.unused_for_ms is not None and not 0 <= self.unused_for_ms < TIME_LIMIT:
            raise MemoryBankError(f"unused_for_ms is {self.unused_for_ms}; give 0 or more milliseconds")
        if self.credit_below is not None and not math.isfinite(self.credit_below):
            raise MemoryBankError(f"credit_below is {self.credit_below}; give a finite number")


def candidates_for_pruning(ring: Ring, rule: PruneRule, as_of: int) -> tuple[int, ...]:
    """Ids of the entries that meet the rule at a time, increasing. Pure.

    Args:
        ring: the entries.
        rule: what to look for.
        as_of: the present, milliseconds.
    """
    due: BoolArray = np.zeros(len(ring.ids), dtype=np.bool_)
    if rule.unused_for_ms is not None:
        due |= (ring.hits == 0) & (ring.bar_times < as_of - rule.unused_for_ms)
    if rule.credit_below is not None:
        due |= ring.credits < credit_in_units(rule.credit_below, ring.config.outcome_scale)
    ids = ring.ids[due & (ring.ids != EMPTY)]
    return tuple(np.sort(ids).tolist())
