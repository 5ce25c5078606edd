"""Novelty: how unlike everything remembered a query is, and how unusual so much of it is.

A similarity says little by itself: how alike the nearest of a hundred thousand moments is depends on the keys and on how
many there are. So a novelty is placed among those of past moments, each of which is asked again as of its own time, when
it knew as little as the present one does now.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store.bank import MemoryBank
from memory_store.records import MemoryBankError, ScoreArray, SearchResult

NOTHING_ALIKE: Final = 1.0
"""Novelty where nothing was found: as if the nearest moment had nothing to do with the query."""


def novelty_of(result: SearchResult) -> float:
    """One minus the best similarity of an answer, never below 0; 1 where nothing was found.

    Under cosine: 0 for a moment seen before, 1 for one that is like nothing, 2 for the opposite of all.
    """
    return novelty_of_best(max(result.scores.tolist()))


def novelty_of_best(similarity: float) -> float:
    """The same by the best similarity of an answer, -inf where nothing was found."""
    return NOTHING_ALIKE if similarity == -inf else max(0.0, 1.0 - similarity)


@dataclass(frozen=True, slots=True, eq=False)
class NoveltyScale:
    """Novelties of past moments, the measure of present ones.

    Raises:
        MemoryBankError: there are none, or one is not a number.
    """

    values: ScoreArray
    """``[n]`` in increasing order."""

    def __post_init__(self) -> None:
        values = np.sort(np.asarray(self.values, dtype=np.float64))
        if not len(values) or np.isnan(values).any():
            raise MemoryBankError("a scale of novelty needs one or more numbers; remember more moments first")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    def percentile(self, novelty: float) -> float:
        """Share of past moments that were less novel, in [0, 1]; equal ones count half."""
        below = np.searchsorted(self.values, novelty, side="left")
        not_above = np.searchsorted(self.values, novelty, side="right")
        return float(below + not_above) / (2.0 * len(self.values))


def evenly_spaced(count: int, sample: int) -> npt.NDArray[np.int64]:
    """Places of at most ``sample`` of ``count`` things, increasing, evenly spaced, the last one among them."""
    wanted = min(count, sample)
    return (np.arange(1, wanted + 1) * count) // max(1, wanted) - 1


def calibrate(bank: MemoryBank, *, as_of: int, k: int = 1, sample: int = 256, span_ms: int = 0) -> NoveltyScale:
    """The novelty that past moments had when they were the present.

    The sample is spaced evenly over the later half of the moments known at ``as_of``: the earlier ones asked a memory that
    was much smaller than it is now, in which more is novel. What was evicted since is missing from their answers.

    Args:
        bank: the memory.
        as_of: milliseconds; later moments take no part.
        k: neighbours asked for.
        sample: moments asked at most, 1 or more.
        span_ms: from the time that names a bar to its close, when its moment asked and its own outcome was not yet known.

    Raises:
        MemoryBankError: no moment before ``as_of`` could have had an answer.
    """
    if sample < 1:
        raise MemoryBankError(f"sample is {sample}; ask at least 1 past moment")
    past = [entry.entry_id for entry in bank.entries() if entry.bar_time + span_ms <= as_of]
    later = past[len(past) // 2 :]
    values = []
    for place in evenly_spaced(len(later), sample).tolist():
        entry = bank.entry(later[place])
        answer = bank.search(entry.key, as_of=entry.bar_time + span_ms, k=k)
        if answer.count:
            values.append(novelty_of(answer))
    return NoveltyScale(np.array(values))
