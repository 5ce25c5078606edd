"""How many of the true neighbours the approximate index of a memory finds, measured against all of its keys.

A memory that was opened to be looked at has answered nothing, so its running check (``memory_store.recall_monitor``) has
nothing to show yet. So some of its own moments are asked again, each as of its own close, as a bot asked then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from memory_store import MemoryBank, SearchResult
from memory_store.index import rescore
from memory_store.recall_monitor import RecallMonitor, RecallReading
from memory_store.records import IntArray, KeyArray
from memory_store.ring import NEVER

_MOST_CHECKED: Final = 64
_AT_ONCE: Final = 8
"""Queries whose scores are held together: 32 MB for a million keys."""
_SPARE: Final = 32
"""Candidates beyond those wanted, for scores that differ by less than float32 can tell."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question to a memory and its answer."""

    key: KeyArray
    as_of: int
    result: SearchResult


def measured_recall(bank: MemoryBank, asked: Sequence[Asked]) -> RecallReading | None:
    """The share of true neighbours among those found; ``None`` where the index is exact, and so is the answer.

    Args:
        bank: as it was when it answered.
        asked: questions without a policy, all for as many neighbours; evenly spaced ones of them are checked, at most 64.
    """
    if bank.recall is None or not asked:
        return None
    checked = [asked[place] for place in np.linspace(0, len(asked) - 1, min(len(asked), _MOST_CHECKED)).astype(int)]
    monitor = RecallMonitor(every=1, window=len(checked))
    state = bank.state()
    usable = state.settled_times[:, bank.config.primary]
    visible_from = np.where(usable == NEVER, NEVER, usable + bank.config.embargo_ms)
    for start in range(0, len(checked), _AT_ONCE):
        batch = checked[start : start + _AT_ONCE]
        scores = np.stack([each.key for each in batch]) @ state.keys.T
        for each, row in zip(batch, scores, strict=True):
            monitor.due()
            row[visible_from > each.as_of] = -np.inf
            result = each.result
            wanted = min(len(result.ids), int(np.count_nonzero(visible_from <= each.as_of)))
            monitor.record(result.ids[: result.count], state.ids[_best(state.keys, each.key, row, wanted)])
    return monitor.reading


def recall_document(reading: RecallReading | None) -> dict[str, Any] | None:
    """A reading as plain values; ``None`` where the index is exact."""
    if reading is None:
        return None
    return {"share": reading.recall, "worst": reading.worst, "asked": reading.checks, "alarm": reading.alarm}


def _best(keys: KeyArray, query: KeyArray, scores: KeyArray, wanted: int) -> IntArray:
    """Places of the nearest keys, by the scores that decisions are made with; equal ones in the order of ids."""
    count = min(len(scores), wanted + _SPARE)
    near = np.sort(np.argpartition(scores, len(scores) - count)[-count:])
    near = near[np.isfinite(scores[near])]
    return near[np.argsort(-rescore(keys[near], query), kind="stable")[:wanted]]
